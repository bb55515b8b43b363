"""What the commands share: settings, numbers, policies by name, and where output goes."""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import invariantzoo
from invariantzoo.envs.core.seeds import HELD_OUT
from invariantzoo.envs.core.validation import LARGEST, shown

if TYPE_CHECKING:
    from rich.console import Console

    from invariantzoo.agents.policy import Policy
    from invariantzoo.envs.core.system import System
    from invariantzoo.training.molecules.frames import Frames
    from invariantzoo.training.runs.run import Run


def seed(text: str) -> int:
    """A seed below those of evaluation, as an argparse type."""
    return _whole(text, 0, HELD_OUT - 1)


def count(text: str) -> int:
    """A whole number of at least 1, as an argparse type."""
    return _whole(text, 1)


def count_from_zero(text: str) -> int:
    """A whole number of at least 0, as an argparse type."""
    return _whole(text, 0)


def _whole(text: str, low: int, high: int = LARGEST) -> int:
    number = whole_number(text)
    if number is None or number < low:
        such = "such as 20000, 20_000 or 2e4"
        raise argparse.ArgumentTypeError(
            f"{shown(text)} must be a whole number of at least {low}, {such}"
        )
    if number > high:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} must be a whole number from {low} to {high}"
        )
    return number


def whole_number(text: str) -> int | None:
    """The whole number that `text` writes as 20000, 20_000, 2e4 or 2.5e5; None for others."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    whole, fraction, exponent = (group or "" for group in match.groups())
    zeros = int(exponent or 0) - len(fraction.rstrip("0"))
    if not 0 <= zeros <= 30:
        return None
    return int(whole + fraction.rstrip("0")) * 10**zeros


_NUMBER = re.compile(r"([0-9]+(?:_[0-9]+)*)(?:\.([0-9]+))?(?:[eE]\+?([0-9]{1,2}))?")


def add_settings(parser: argparse.ArgumentParser, what: str = "a parameter of the system") -> None:
    """Declare `--set name=value`, which may be repeated; `parse_settings(args.set)` reads it."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f'{what}, in Python\'s notation, such as radius=0.3 or "density=(0.1, 0.3)"',
    )


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Values by name from "name=value"; what is no Python literal is a string.

    Lists become tuples, true and false may be written small, and 1e6 is a whole number.
    Raises ValueError for another form and for a name that is given twice.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise ValueError(f"--set {setting!r} must look like name=value")
        if name in values:
            raise ValueError(f"--set {name} is given twice")
        values[name] = _literal(text.strip())
    return values


def _literal(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if "e" in text.lower() and (number := whole_number(text)) is not None:
        return number
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return tuple(value) if isinstance(value, list) else value


def require_output_file(option: str, path: Path | None, suffixes: tuple[str, ...] = ()) -> None:
    """Raise ValueError unless `path` is None or a file of such a name that can be written.

    suffixes: what its name may end in; empty: anything. Its folder must be there: a folder that is
    misspelt is not made. To be called before the work that the file is to hold.
    """
    if path is None:
        return
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"{option} {str(path)!r} must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise ValueError(f"{option} {str(path)!r} is a folder, not a file")
    if not path.parent.is_dir():
        raise ValueError(f"{option} {str(path)!r}: there is no folder {str(path.parent)!r}")
    _require_writable(f"{option} {str(path)!r} could not be written", path.parent)


def require_output_folder(option: str, path: Path) -> None:
    """Raise ValueError unless `path` is a folder that can be written, or can be made as one."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise ValueError(f"{option} {path} could not be made: {str(there)!r} is a file")
    verb = "written" if path.exists() else "made"
    _require_writable(f"{option} {path} could not be {verb}", there)


def require_own_files(option: str, folder: Path, mark: str, key: str, names: Iterable[str]) -> None:
    """Raise ValueError where `folder` holds one of the files `names` that is of something else.

    Files are ours where `mark`, one of them, is a JSON object that has `key`.
    """
    there = [name for name in names if (folder / name).exists()]
    if there and not _has_key(folder / mark, key):
        raise ValueError(f"{option} {folder} holds a {there[0]} of something else; choose another")


def _has_key(path: Path, key: str) -> bool:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and key in value


def _require_writable(complaint: str, folder: Path) -> None:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"{complaint}: {error.strerror}") from None


def print_json(args: argparse.Namespace, value: Any) -> None:
    """Write one JSON object to standard output; numbers that are not finite become null."""
    json.dump(plain(value), args.stdout, indent=2, allow_nan=False)
    args.stdout.write("\n")
    args.stdout.flush()


def plain(value: Any) -> Any:
    """The same in JSON's types: arrays and tuples become lists, what is not finite None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def console(args: argparse.Namespace) -> Console:
    """Where tables for people go: standard output, or standard error beside `--json`."""
    return _console(stderr=args.json)


def print_line(console: Console, text: str) -> None:
    """Print a line as it is: never broken, and no part of it taken for markup."""
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def messages() -> Console:
    """Where progress and warnings go: standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    """One that leaves it to `main` what a reader who left means: rich would exit with code 1."""
    from rich.console import Console

    class Heard(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Heard(stderr=stderr)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Declare how data are read: `--forces-key` and `--units`; `read_data` follows them."""
    parser.add_argument(
        "--forces-key", metavar="NAME", help="the column of forces, if the data hold more than one"
    )
    parser.add_argument(
        "--units",
        default="auto",
        metavar="UNITS",
        help="of the data, if not Angstrom and eV: LENGTH-ENERGY such as bohr-hartree, or "
        "LENGTH-ENERGY-LENGTH (of forces) such as angstrom-hartree-bohr",
    )


def read_data(args: argparse.Namespace, path: str, splits: Iterable[str] = ()) -> Frames:
    """Frames of a file or folder, read as `add_reading` declares; says what was read.

    Raises ValueError, before it says anything, where one of the `splits` has no frame.
    """
    from invariantzoo.training.molecules.frames import chosen, describe, read_frames

    frames = read_frames(path, forces_key=args.forces_key, units=args.units)
    for split in splits:
        chosen(frames, split)
    messages().print(describe(frames), soft_wrap=True, highlight=False, markup=False)
    return frames


def require_not_given(args: argparse.Namespace, names: Iterable[str], whose: str) -> None:
    """Raise ValueError for one of the options `names` that is given: it is `whose`, not used here.

    Such options have no default of argparse; `fill_in` gives them theirs.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and value != []:
            shown_value = value[0] if isinstance(value, list) else value
            raise ValueError(f"--{name.replace('_', '-')} {shown_value} is of {whose}")


def fill_in(args: argparse.Namespace, defaults: dict[str, Any]) -> None:
    """Give options that were not given their defaults."""
    for name, default in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, default)


def add_viscosity(parser: argparse.ArgumentParser) -> None:
    """Declare `--viscosity`."""
    parser.add_argument(
        "--viscosity",
        type=float,
        metavar="MPA_S",
        help="of this liquid, for the finite-size correction of its diffusion "
        "(default: that of real water, if it is liquid water; else there is no correction)",
    )


def require_positive(name: str, value: float | None, most: float = math.inf) -> None:
    """Raise ValueError unless the option --`name` is a number above 0, or not given."""
    if value is None:
        return
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"--{name} {value:g} must be above 0")
    if value > most:
        raise ValueError(f"--{name} {value:g} must be at most {most:g}")


def add_deterministic(parser: argparse.ArgumentParser) -> None:
    """Declare `--deterministic` and `--stochastic`."""
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--deterministic",
        action="store_true",
        default=None,
        help="a trained policy takes its most likely action (default unless the system's law is "
        "its agents' randomness); policies by name are as random as their name says",
    )
    mode.add_argument(
        "--stochastic",
        dest="deterministic",
        action="store_false",
        help="a trained policy draws its actions",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Declare `--trust`."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="take a run's policy from its policy.zip, which can run any code its writer put in",
    )


def is_run(name: str) -> bool:
    """Whether `name` is a run folder rather than an id or the name of a policy."""
    if name.removeprefix("invariantzoo/") in invariantzoo.ids():
        return False
    path = Path(name)
    if (path / "config.json").is_file():
        return True
    return ":" not in name and (os.sep in name or path.is_dir())


def require_runs(*names: str | None) -> None:
    """Raise FileNotFoundError or ValueError for a run folder whose config.json cannot be read.

    To be called before anything heavy is imported.
    """
    from invariantzoo.training.runs.folder import read_config

    for name in names:
        if name is not None and is_run(name):
            read_config(Path(name))


class Trained(NamedTuple):
    """A run that was read; its id as it is registered, without a module or a namespace."""

    id: str
    run: Run

    def system_with(self, settings: dict[str, Any]) -> System:
        """The system that it was trained on, with other settings."""
        from invariantzoo.envs.core.observation import parameter_values

        return invariantzoo.make_system(
            self.id, **{**parameter_values(self.run.system), **settings}
        )


def device_of(settings: dict[str, Any]) -> str:
    """The `device` among settings of a system, taken out of them: where a trained policy computes.

    Raises ValueError for one that cannot compute here.
    """
    name = settings.pop("device", "cpu")
    if name != "cpu":
        from invariantzoo.training.rl.devices import computing_device

        computing_device(name)
    return name


def read_run(folder: str, *, trust: bool = False, device: str = "cpu") -> Trained:
    """A run folder; FileNotFoundError or ValueError for what is not a run of this version."""
    from invariantzoo.training.runs.run import load_run

    run = load_run(folder, trust=trust, device=device)
    return Trained(invariantzoo.spec(run.config["id"]).id, run)


def load_policy(name: str, system: System, *, trust: bool = False, device: str = "cpu") -> Policy:
    """A policy by name, or that of a run folder, to act in `system`.

    device: where a trained policy computes.
    Raises KeyError for an unknown name and ValueError for a run that does not fit the system.
    """
    from invariantzoo.agents.policy import make_policy

    if not is_run(name):
        if device != "cpu":
            raise ValueError(f"device={device!r}: {name} is no trained policy; it acts on the CPU")
        return make_policy(name, system)
    run = read_run(name, trust=trust, device=device).run
    was, here = _fit(run.system), _fit(system)
    if was != here:
        raise ValueError(f"{name} was trained on {was}, which does not fit {here}")
    share = run.config["hyperparameters"].get("share", "all")
    if share != "all" and run.system.agent_types != system.agent_types:
        raise ValueError(
            f"{name} was trained with share={share!r} for {run.system.n_agents} agents, each with "
            f"the weights of its place: it cannot act for {system.n_agents}, or for other types"
        )
    return run.policy


def _fit(system: System) -> str:
    """What a policy must agree with."""
    from invariantzoo.envs.core.observation import is_discrete

    seen = " ".join(f"{name}:{bound.size or 1}" for name, bound in system.bounds.items())
    space: Any = system.action_space
    actions = f"{space.n} choices" if is_discrete(system) else f"actions of {space.shape[0]}"
    return f"({seen}; {actions})"
