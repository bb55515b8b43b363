"""Units of a benchmark: one training each, in a run folder of its own."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...envs.core.observation import parameter_values
from ...envs.core.registry import make_system
from ...envs.core.validation import require_choice, require_count, require_number, shown
from ..rl.algorithms import config_class, default_steps, make_config, make_trainer
from ..rl.configs import SB3Config
from ..rl.hyperparameters import ALGORITHMS, PLAIN
from ..runs.folder import CONFIG, SCORES

OPTIMIZERS = ("adam", "cgd")
STANDARD_STEPS = Path(__file__).with_name("standard_steps.json")  # by id and algorithm


class Suite(NamedTuple):
    """What a benchmark runs unless told otherwise; no ids stand for all that have a scale."""

    ids: tuple[str, ...]
    algos: tuple[str, ...]
    seeds: int
    most_steps: int | None  # None: those of STANDARD_STEPS


SUITES = {
    "quick": Suite(
        ("particles-encounter-v0", "quadratic-regimes-v0", "tasep-gates-v0", "ising-transport-v0"),
        ("ppo", "es"),
        2,
        300_000,
    ),
    "standard": Suite((), PLAIN, 5, None),
}


class Unit(NamedTuple):
    """A training of a benchmark: agent-steps are those that are asked for."""

    id: str
    algo: str
    optimizer: str
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """Its folder below that of the benchmark."""
        return f"{self.id}/{self.algo}-{self.optimizer}-{self.seed}"

    def words(self, out: Path) -> list[str]:
        """What follows `invariantzoo` on the command line that begins it, or goes on with it."""
        folder = out / self.name
        words = ["train", self.id, "--algo", self.algo, "--optimizer", self.optimizer]
        words += ["--seed", str(self.seed), "--steps", str(self.steps), f"--out={folder}"]
        resume = ["--resume"] if (folder / CONFIG).exists() else []
        return [*words, "--no-baselines", "--no-film", *resume]

    def done(self, out: Path) -> bool:
        """Whether its folder holds the scores of a whole training."""
        return (out / self.name / SCORES).exists()

    def report(self, out: Path) -> dict[str, Any]:
        """scores.json of its folder; ValueError for one that holds no finite mean return."""
        return read_report(out / self.name)


def read_report(run: Path) -> dict[str, Any]:
    """scores.json of a run; ValueError for one that holds no finite mean return."""
    path = run / SCORES
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        mean = report["scores"]["trained"]["return"]["mean"]
        steps, seconds = report["steps"], report["seconds"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path} cannot be read: {what}; without it the run is scored again"
        ) from None
    for name, value in (("the mean return", mean), ("steps", steps), ("seconds", seconds)):
        require_number(f"{path}: {name}", value)
    return report


def plan(
    ids: Sequence[str],
    algos: Sequence[str],
    optimizers: Sequence[str],
    seeds: int,
    *,
    most_steps: int | None,
    first_seed: int = 0,
) -> tuple[list[Unit], dict[tuple[str, str], str]]:
    """Units of all ids by all algorithms that can train them, and why others cannot.

    A unit makes the agent-steps that suit its id and algorithm, at most `most_steps`; without this,
    those of STANDARD_STEPS, about a minute of CPU time, where they stand there.
    Raises KeyError for an unknown id, ValueError for an unknown algorithm or optimizer, and
    ModuleNotFoundError for an algorithm that needs what is not installed.
    """
    require_count("seeds", seeds)
    for algo in algos:
        require_choice("algos", algo, ALGORITHMS)
    for optimizer in optimizers:
        require_choice("optimizers", optimizer, OPTIMIZERS)
    units, refused = [], {}
    for id in ids:
        for algo in algos:
            reason = refusal(id, algo)
            if reason:
                refused[id, algo] = reason
                continue
            if most_steps is None:
                steps = standard_steps(id, algo)
            else:
                steps = min(default_steps(id, algo), most_steps)
            units += [
                Unit(id, algo, optimizer, seed, steps)
                for optimizer in optimizers
                for seed in range(first_seed, first_seed + seeds)
            ]
    return units, refused


def standard_steps(id: str, algo: str) -> int:
    """Agent-steps of a run of the standard suite: those of STANDARD_STEPS, or those of the id."""
    return _measured_steps().get(id, {}).get(algo, default_steps(id, algo))


@functools.cache
def _measured_steps() -> dict[str, dict[str, int]]:
    measured: dict[str, dict[str, int]] = json.loads(STANDARD_STEPS.read_text(encoding="utf-8"))
    return measured


def refusal(id: str, algo: str) -> str:
    """Why an algorithm cannot train an id; empty if it can."""
    system = make_system(id)
    config = make_config(id, algo, {})
    if isinstance(config, SB3Config):
        config = config.smallest(system.n_agents)
    try:
        make_trainer(algo, system, config, seed=0, steps=1)
    except ValueError as error:
        return str(error)
    return ""


def hyperparameters(id: str, algo: str, optimizer: str) -> dict[str, Any]:
    """Those that a unit is begun with now, as config.json has them."""
    config = make_config(id, algo, {"optimizer": optimizer})
    made: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples are lists
    return made


def plain_hyperparameters(algo: str) -> dict[str, Any]:
    """What an algorithm has where nothing is said, in the same way."""
    config = config_class(algo)()
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def changed(made: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of hyper-parameters that were others; what a run did not have yet is as it is now.

    On which device it computed is no setting of a run.
    """
    return [
        name for name, value in now.items() if name != "device" and made.get(name, value) != value
    ]


def require_same_settings(units: Iterable[Unit], out: Path) -> None:
    """Raise ValueError where a folder holds a run of other settings or steps than its unit's.

    So are parameters of the system, which are those that the id has now, and do not move.
    """
    systems: dict[str, dict[str, Any]] = {}
    for unit in units:
        folder = out / unit.name
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            made, steps = dict(config["hyperparameters"]), config["steps"]
            parameters = {**config.get("parameters", {}), **config.get("curriculum", {})}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # none, or a damaged one, of which the training itself says what is wrong
        if steps != unit.steps:
            raise ValueError(
                f"{folder} is a run of {shown(steps)} agent-steps, not {unit.steps}: give "
                "the same --steps, remove it, or choose another --out"
            )
        now = hyperparameters(unit.id, unit.algo, unit.optimizer)
        made = plain_hyperparameters(unit.algo) | made  # as it is read, and as it was trained
        if unit.id not in systems:
            values = parameter_values(make_system(unit.id))
            systems[unit.id] = json.loads(json.dumps(values))
        for then, wanted, whose in (
            (made, now, f" for {unit.algo}"),
            (parameters, systems[unit.id], ""),
        ):
            for name in changed(then, wanted):
                raise ValueError(
                    f"{folder} is a run with {name}={shown(then[name])}, not {wanted[name]!r}, "
                    f"which {unit.id} has{whose} now: remove it, or choose another --out"
                )


def left(units: Iterable[Unit], out: Path) -> list[Unit]:
    """Units that are not done."""
    return [unit for unit in units if not unit.done(out)]
