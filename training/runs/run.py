"""Training runs: recorded, read again and continued. Their folder: see `runs/folder.py`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...agents.networks.choose import network_names
from ...agents.policy import Policy
from ...envs.core.files import save_tensors, write_atomically
from ...envs.core.observation import parameter_values
from ...envs.core.registry import make_system
from ...envs.core.system import System
from ..optim import config as optimizers
from ..rl.algorithms import config_class, load_policy, load_trusted, make_trainer
from ..rl.curriculum import Curriculum, Move
from ..rl.devices import computing_device
from ..rl.trainer import Trainer, Update
from .board import Board
from .folder import (
    BOARD,
    CHECKPOINT,
    CONFIG,
    CURVE,
    FILES,
    FILM,
    POLICY,
    PROGRESS,
    SCHEMA,
    SCORES,
    WEIGHTS,
    read_config,
    read_progress,
    refuse_occupied,
    write_config,
    write_json,
    write_progress,
)

__all__ = [
    "BOARD",
    "CHECKPOINT",
    "CONFIG",
    "CURVE",
    "FILES",
    "FILM",
    "POLICY",
    "PROGRESS",
    "SCHEMA",
    "SCORES",
    "Recorder",
    "Run",
    "describe",
    "load_run",
    "on_the_side",
    "read_checkpoint",
    "read_config",
    "read_progress",
    "rebuild",
    "recording",
    "refuse_occupied",
    "restore",
    "train",
    "write_atomically",
    "write_config",
    "write_json",
    "write_progress",
]


# What files of another version, or damaged ones, make the code that reads them raise.
_MISFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


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
        "parameters": parameter_values(system),
        "hyperparameters": hyper,
        "network": hyper["network"] or network_names(system)[0],
        "optimizer": {"name": optimizers.title(config), "lr": hyper["lr"]},
        "steps": steps,
        "seed": seed,
    }


def rebuild(folder: Path, config: dict[str, Any]) -> tuple[System, Any]:
    """System and hyper-parameters of config.json; ValueError if they do not fit this version."""
    try:
        system = make_system(config["id"], **_tuples(config["parameters"]))
        hyper = config_class(config["algo"])(**_tuples(config["hyperparameters"]))
        network = hyper.network or network_names(system)[0]
    except _MISFIT as error:
        raise ValueError(f"{folder} is of another version: {error}") from None
    if network != config["network"]:
        mismatch = f"{config['network']!r}, but the hyper-parameters say {network!r}"
        raise ValueError(f"{folder / CONFIG}: 'network' is {mismatch}")
    return system, hyper


def curriculum_of(
    folder: Path, config: dict[str, Any], system: System, trainer: Trainer
) -> Curriculum | None:
    """The curriculum of config.json, None if it has none; ValueError if it does not fit.

    It is over in the last update.
    """
    if "curriculum" not in config:
        return None
    try:
        last = max(config["total_steps"] - trainer.per_update, 1)
        moves = {name: Move(*_tuples(ends)) for name, ends in config["curriculum"].items()}
        return Curriculum(system, moves, last)
    except _MISFIT as error:
        raise ValueError(f"{folder / CONFIG}: 'curriculum' cannot be used: {error}") from None


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
        reason = str(error).partition("\n")[0] or type(error).__name__
        if not path.stat().st_size:
            reason = "it is empty"
        raise ValueError(f"{path} cannot be read: {reason}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a checkpoint")
    _require_finite(path, state)
    return state


def _read_shared(path: Path) -> dict[str, Any]:
    """The weights of a folder that `hub.export` made."""
    from .hub import read_weights

    state = read_weights(path)
    _require_finite(path, state)
    return state


def _require_finite(path: Path, state: dict[str, Any]) -> None:
    for name in ("policy", "network"):  # of SB3, of descent
        weights = state.get(name)
        for tensor_name, weight in weights.items() if isinstance(weights, dict) else ():
            if isinstance(weight, torch.Tensor) and not torch.isfinite(weight).all():
                raise ValueError(f"{path}: {tensor_name} is not finite, so training has diverged")


def load_run(path: str | os.PathLike[str], *, trust: bool = False, device: str = "cpu") -> Run:
    """A run rebuilt from config.json and tensors; also what `export --hub` made of one.

    device: where the policy computes, wherever it was trained.
    trust: take the policy from policy.zip instead, which can run any code that its writer put in.
    Raises FileNotFoundError or ValueError for what is not a run of this version.
    """
    folder = Path(path)
    config = read_config(folder)
    system, hyper = rebuild(folder, config)
    computing_device(device)
    if trust:
        if device != "cpu":
            raise ValueError(f"device={device!r}: a policy.zip is read to the CPU alone")
        if not (folder / POLICY).is_file():
            raise ValueError(f"{folder} has no {POLICY}")
        return Run(folder, config, system, load_trusted(config["algo"], folder / POLICY))
    shared = (folder / WEIGHTS).is_file() and not (folder / CHECKPOINT).is_file()
    state = _read_shared(folder / WEIGHTS) if shared else read_checkpoint(folder)
    with _fitting(folder / (WEIGHTS if shared else CHECKPOINT)):
        policy = load_policy(config["algo"], system, hyper, state, device)
    return Run(folder, config, system, policy)


def restore(folder: Path, trainer: Trainer) -> None:
    """Bring a trainer to the checkpoint of a run; ValueError if it does not fit."""
    state = read_checkpoint(folder)
    with _fitting(folder / CHECKPOINT):
        trainer.load_state_dict(state)
        if trainer.steps < 1:
            raise ValueError(f"it counts {trainer.steps} steps")


def on_the_side(folder: Path, config: dict[str, Any], updates: int) -> Trainer:
    """A trainer at the checkpoint of a run, with more steps ahead than so many updates need.

    Parameters that a curriculum moves stay where they are then. Nothing of the run is changed by
    what it does.
    """
    system, hyper = rebuild(folder, config)

    def at_checkpoint(steps: int) -> Trainer:
        trainer = make_trainer(config["algo"], system, hyper, seed=config["seed"], steps=steps)
        curriculum = curriculum_of(folder, config, system, trainer)
        restore(folder, trainer)
        if curriculum is not None:
            trainer.use(curriculum.at(trainer.steps))
        return trainer

    steps = 2 * config["steps"] + 1000 * updates * system.n_agents * hyper.n_worlds
    trainer = at_checkpoint(steps)
    needed = trainer.steps + (updates + 1) * trainer.per_update
    return trainer if needed <= steps else at_checkpoint(needed)


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Say in one line that a checkpoint, or a file of weights, is not one of this run."""
    try:
        yield
    except _MISFIT as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} does not fit {CONFIG}: {reason}") from None


class Recorder:
    """Writes a run's progress and checkpoints; continues those of an earlier session."""

    def __init__(self, folder: Path, *, since: int = 0) -> None:
        """since: agent-steps of the checkpoint that is continued; later rows are forgotten."""
        self.folder, self._since = folder, since
        for left in folder.glob(".*.tmp*"):
            left.unlink()
        rows = read_progress(folder) if since else []
        self.rows = [row for row in rows if row["steps"] <= since]
        last = self.rows[-1] if self.rows else {}
        self._start = time.monotonic() - last.get("seconds", 0.0)
        self._cpu_start = time.process_time() - last.get("cpu_seconds", 0.0)
        self._board = Board(folder / BOARD, since=since)

    def add(self, update: Update) -> None:
        """Note an update."""
        seconds = round(time.monotonic() - self._start, 3)
        cpu = round(time.process_time() - self._cpu_start, 3)
        self.rows.append(
            {"steps": update.steps, "seconds": seconds, "cpu_seconds": cpu, **update.row}
        )
        self._board.add(update.steps, update.row)

    def save(self, trainer: Trainer) -> None:
        """Write progress.csv, checkpoint.pt and policy.zip.

        What the end of a shorter training left is removed: it is of other weights.
        """
        if trainer.steps > self._since:
            for name in (SCORES, CURVE, FILM):
                (self.folder / name).unlink(missing_ok=True)
        write_progress(self.folder, self.rows)
        save_tensors(self.folder / CHECKPOINT, trainer.state_dict())
        write_atomically(self.folder / POLICY, trainer.save_policy)

    def close(self) -> None:
        """Close the TensorBoard log."""
        self._board.close()


class Follower:
    """What stands for a Recorder where another process records: it writes nothing."""

    def add(self, update: Update) -> None:
        """Note nothing."""

    def save(self, trainer: Trainer) -> None:
        """Give the other process what it needs of the trainer here."""
        trainer.state_dict()


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
    recorder: Recorder | Follower,
    *,
    checkpoint_every: int,
    watch: Callable[[Update], bool] = lambda update: True,
    curriculum: Curriculum | None = None,
) -> bool:
    """Train to the end, with a checkpoint after every `checkpoint_every` updates and at the end.

    `watch` sees every update; if it returns False the run is saved and left there.
    curriculum: what parameters every update has; their values stand in its row.
    Returns whether the end was reached.
    """
    values: dict[str, float] = {}
    if curriculum is not None:
        trainer.use(curriculum.at(trainer.steps))
        values = curriculum.row(trainer.steps)
    for count, update in enumerate(trainer, 1):
        if curriculum is not None:
            update = update._replace(row={**update.row, **values})
            trainer.use(curriculum.at(trainer.steps))
            values = curriculum.row(trainer.steps)
        recorder.add(update)
        goes_on = watch(update)
        if not goes_on or count % checkpoint_every == 0:
            recorder.save(trainer)
        if not goes_on:
            return False
    recorder.save(trainer)
    return True


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples."""
    if isinstance(value, dict):
        return {name: _tuples(element) for name, element in value.items()}
    return tuple(_tuples(element) for element in value) if isinstance(value, list) else value
