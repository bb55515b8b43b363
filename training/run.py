"""Run directories: what a training run leaves, every file whole or not at all.

config.json      what was trained and how; with checkpoint.pt enough to rebuild and continue it
checkpoint.pt    weights, optimizer, counters, generators and worlds: tensors and numbers only
policy.zip       for `PPO.load` (A2C, SAC); never read here unless it is trusted
progress.csv     a row per update; tb/ the same for TensorBoard
scores.json, learning_curve.png, rollout.mp4    what the command line adds at the end
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import json
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..agents.networks import network_names
from ..agents.policy import Policy
from ..envs.core.files import write_atomically
from ..envs.core.registry import make_system, spec
from ..envs.core.system import System, parameters
from . import optimizers
from .hyperparameters import ALGORITHMS
from .trainer import Trainer, Update, config_class, load_policy, load_trusted

SCHEMA = 1
CONFIG, CHECKPOINT, POLICY, PROGRESS = "config.json", "checkpoint.pt", "policy.zip", "progress.csv"
SCORES, CURVE, FILM, BOARD = "scores.json", "learning_curve.png", "rollout.mp4", "tb"
FILES = (CONFIG, CHECKPOINT, POLICY, PROGRESS, SCORES, CURVE, FILM, BOARD)
_KEYS = ("version", "id", "algo", "parameters", "hyperparameters", "network", "steps", "seed")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that was read: its folder, config.json, system and policy."""

    folder: Path
    config: dict[str, Any]
    system: System
    policy: Policy


def describe(
    id: str, algo: str, system: System, config: Any, *, steps: int, seed: int
) -> dict[str, Any]:
    """What goes to config.json."""
    hyper = dataclasses.asdict(config)
    return {
        "schema": SCHEMA,
        "version": importlib.metadata.version("invariantzoo"),
        "id": id,
        "algo": algo,
        "parameters": {name: getattr(system, name) for name in parameters(system)},
        "hyperparameters": hyper,
        "network": hyper["network"] or network_names(system)[0],
        "optimizer": {"name": optimizers.title(config, algo), "lr": hyper["lr"]},
        "steps": steps,
        "seed": seed,
    }


def refuse_occupied(folder: Path) -> None:
    """Raise ValueError if `folder` cannot take a new run without overwriting something."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another --out")
    found = [name for name in FILES if (folder / name).exists()]
    if CONFIG in found:
        raise ValueError(
            f"{folder} already holds a run; give --resume to continue it, or another --out"
        )
    if found:
        raise ValueError(f"{folder} already holds {found[0]}; choose another --out")


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write config.json, making the folder if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, config)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a run.

    Raises FileNotFoundError or ValueError if it is not a run that this version can read.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} is not a run: it has no {CONFIG}")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / CONFIG} cannot be read: {error}") from None
    if not isinstance(config, dict) or "schema" not in config:
        raise ValueError(f"{folder} is not a run: its {CONFIG} has no schema")
    if config["schema"] != SCHEMA:
        raise ValueError(f"{folder} has schema {config['schema']!r}; this version reads {SCHEMA}")
    missing = [name for name in _KEYS if name not in config]
    if missing:
        raise ValueError(f"{folder / CONFIG} has no {missing[0]!r}")
    if config["algo"] not in ALGORITHMS:
        raise ValueError(f"{folder} was trained by {config['algo']!r}, which is not known here")
    try:
        spec(config["id"])
    except KeyError as error:
        raise ValueError(f"{folder} is of another version: {error.args[0]}") from None
    return config


def rebuild(folder: Path, config: dict[str, Any]) -> tuple[System, Any]:
    """System and hyper-parameters of config.json; ValueError if they do not fit this version."""
    try:
        system = make_system(config["id"], **_tuples(config["parameters"]))
        return system, config_class(config["algo"])(**_tuples(config["hyperparameters"]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder} is of another version: {error}") from None


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Tensors and numbers of checkpoint.pt; nothing else is ever unpickled.

    Raises ValueError if there is none, or if it cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise ValueError(f"{folder} has no {CHECKPOINT}: it ended before its first checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that torch did not write
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read: {reason}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a checkpoint")
    return state


def load_run(path: str | os.PathLike[str], *, trust: bool = False) -> Run:
    """A run rebuilt from config.json and tensors.

    trust: take the policy from policy.zip instead, which can run any code that its writer put in.
    Raises FileNotFoundError or ValueError for what is not a run of this version.
    """
    folder = Path(path)
    config = read_config(folder)
    system, hyper = rebuild(folder, config)
    if trust:
        if not (folder / POLICY).is_file():
            raise ValueError(f"{folder} has no {POLICY}")
        return Run(folder, config, system, load_trusted(config["algo"], folder / POLICY))
    state = read_checkpoint(folder)
    with _fitting(folder):
        return Run(folder, config, system, load_policy(config["algo"], system, hyper, state))


def restore(folder: Path, trainer: Trainer) -> None:
    """Bring a trainer to the checkpoint of a run; ValueError if it does not fit."""
    state = read_checkpoint(folder)
    with _fitting(folder):
        trainer.load_state_dict(state)


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    """Say in one line that a checkpoint is not one of this run."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{folder / CHECKPOINT} does not fit {CONFIG}: {reason}") from None


class Recorder:
    """Writes a run's progress and checkpoints; continues those of an earlier session."""

    def __init__(self, folder: Path, *, since: int = 0) -> None:
        """since: agent-steps of the checkpoint that is continued; later rows are forgotten."""
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        for left in folder.glob(".*.tmp*"):
            left.unlink()
        rows = read_progress(folder) if since else []
        self.rows = [row for row in rows if row["steps"] <= since]
        before = self.rows[-1]["seconds"] if self.rows else 0.0
        self._start = time.monotonic() - before
        self._board = SummaryWriter(str(folder / BOARD), purge_step=since + 1 if since else None)

    def add(self, update: Update) -> None:
        """Note an update."""
        seconds = round(time.monotonic() - self._start, 3)
        self.rows.append({"steps": update.steps, "seconds": seconds, **update.row})
        for name, value in update.row.items():
            self._board.add_scalar(name, value, update.steps)

    def save(self, trainer: Trainer) -> None:
        """Write progress.csv, checkpoint.pt and policy.zip."""
        write_progress(self.folder, self.rows)
        state = trainer.state_dict()
        write_atomically(self.folder / CHECKPOINT, lambda path: torch.save(state, path))
        write_atomically(self.folder / POLICY, trainer.save_policy)
        self._board.flush()

    def close(self) -> None:
        """Close the TensorBoard log."""
        self._board.close()


@contextmanager
def recording(folder: Path, *, since: int = 0) -> Iterator[Recorder]:
    """A Recorder that is closed at the end."""
    recorder = Recorder(folder, since=since)
    try:
        yield recorder
    finally:
        recorder.close()


def train(
    trainer: Trainer,
    recorder: Recorder,
    *,
    checkpoint_every: int,
    watch: Callable[[Update], bool] = lambda update: True,
) -> bool:
    """Train to the end, with a checkpoint after every `checkpoint_every` updates and at the end.

    `watch` sees every update; if it returns False the run is saved and left there.
    Returns whether the end was reached.
    """
    for count, update in enumerate(trainer, 1):
        recorder.add(update)
        goes_on = watch(update)
        if not goes_on or count % checkpoint_every == 0:
            recorder.save(trainer)
        if not goes_on:
            return False
    recorder.save(trainer)
    return True


def write_progress(folder: Path, rows: list[dict[str, float]]) -> None:
    """Write progress.csv; what a row lacks is left blank."""
    names = (name for row in rows for name in row)
    columns = list(dict.fromkeys(("steps", "seconds", "loss", *names)))

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([_shown(row.get(name)) for name in columns] for row in rows)

    write_atomically(folder / PROGRESS, write)


def read_progress(folder: Path) -> list[dict[str, float]]:
    """Rows of progress.csv, without what is blank."""
    path = folder / PROGRESS
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        found = [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
    return [{**row, "steps": int(row["steps"])} for row in found]


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _shown(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples."""
    if isinstance(value, dict):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
