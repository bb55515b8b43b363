"""Simulations that go on where they stopped: molecular dynamics of a model, in blocks.

A run folder holds

config.json          the model and what was asked for
checkpoint.npz       positions, velocities, forces, thermostat and clock, and within a block all
                     that was measured of it
blocks/000001.npz    what was measured in a block: traces, counted distances, spectrum, places
trajectory-0.xyz     extended XYZ of each world: positions, forces, energy
stopped.json         the alarm that ended the run: see `OutOfDomain`

A run that goes on, after an interruption or to more steps, is the same run bit for bit as one that
was not interrupted, and measures the same: neighbour lists are built anew where a block begins,
and within a block they are kept as they were. A sample at a last step that is no multiple of the
interval is shown, and forgotten where the run goes on. One process at a time works in a folder.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...envs.core import renamed
from ...envs.core.files import LOCK, claim, write_atomically
from ...envs.core.physics.cell import replicate
from ...envs.molecules.files import Sample, Saved
from ...envs.molecules.molecular_dynamics import (
    MDState,
    NotFinite,
    advance,
    start_md,
)
from .alarms import OutOfDomain, World, longest_bonds, watch_bonds, watch_distances, watch_energy
from .frames import minimum_image
from .measurements import BLOCKS, Measurements, read_arrays, write_arrays, write_block
from .plan import Intervals, Plan, draw_velocity, require_degrees
from .trajectories import Layout, Mark, Trajectory

CONFIG, CHECKPOINT, STOPPED = "config.json", "checkpoint.npz", "stopped.json"
SCHEMA = 2
_SAVE = 300.0  # seconds between checkpoints within a block
_ROUNDED = {"float64": 1e-6, "float32": 1e-3}  # of the largest force, on another machine


class Progress(NamedTuple):
    """How far a run is: steps made, temperatures [worlds] in K, seconds of this process."""

    steps: int
    temperature: np.ndarray
    seconds: float


def simulate(
    folder: Path,
    saved: Saved,
    sample: Sample,
    plan: Plan,
    about: dict[str, Any],
    *,
    velocity: np.ndarray | None = None,
    seconds: float = np.inf,
    threads: int = 1,
    report: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    told: Callable[[str], None] | None = None,
) -> int:
    """Make, or go on with, a run; returns the steps made, fewer than asked for if it was stopped.

    about: written to config.json.  velocity [worlds, n, 3]: of the start, else drawn from Maxwell's
    distribution.  seconds: no further block begins after that.  report: told at every sample.
    stop: asked often; where it says True the run is saved and left.  told: of a new trajectory.
    Raises OutOfDomain, also where the folder holds a run that ended so; ValueError where the folder
    holds another run, is held by another process, or has lost what the run needs; OSError where
    the disk is full: what was saved before is intact.
    """
    require_degrees(plan, len(sample.numbers))
    with claim(folder):
        config = _config(plan, about, sample)
        _require_same_run(folder, config)
        ended = read_alarm(folder)
        if ended is not None:
            raise ended
        run = _Run(folder, saved, sample, plan, velocity, threads, told)
        try:
            return run.to_the_end(config, seconds, report, stop)
        finally:
            run.close()


def repeated(sample: Sample, copies: tuple[int, int, int]) -> Sample:
    """The sample repeated along its cell's vectors, molecules whole."""
    x, n = np.array(sample.position, float), len(sample.numbers)
    owner = sample.owner
    if owner is not None:
        hydrogens = np.flatnonzero(sample.numbers == 1)
        x[hydrogens] = x[owner] + minimum_image(x[hydrogens] - x[owner], sample.cell)
    position, cell = replicate(x, sample.cell, copies)
    times = int(np.prod(copies))
    if owner is not None:
        owner = np.concatenate([owner + n * k for k in range(times)])
    return Sample(position, cell, np.tile(sample.numbers, times), owner)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run; FileNotFoundError or ValueError for what is none."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no simulation: it has no {CONFIG}")
    config = _read_json(path)
    plan = config.get("plan")
    if config.get("schema") not in (1, SCHEMA) or not isinstance(plan, dict):
        raise ValueError(f"{path} is not of a simulation of this version")
    if set(plan) != set(Plan._fields) or not {"numbers", "cell"} <= set(config):
        raise ValueError(f"{path} lacks what a simulation of this version writes")
    return config


def read_alarm(folder: Path) -> OutOfDomain | None:
    """The alarm that ended a run, or None."""
    path = Path(folder) / STOPPED
    if not path.exists():
        return None
    written = _read_json(path)
    try:
        return OutOfDomain(int(written["step"]), int(written["world"]), str(written["what"]))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} does not say what ended the run") from None


def final_state(folder: Path) -> dict[str, np.ndarray]:
    """Positions and velocities [worlds, n, 3], among others, where the run was saved last."""
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CHECKPOINT} to go on from")
    state = read_arrays(path)
    missing = {*MDState._fields, "sizes", "start"} - set(state)
    if missing:
        raise ValueError(f"{path} has no {min(missing)!r}: not the checkpoint of a simulation")
    return state


class _Run:
    """A run in motion: its bodies, what is measured, and its files."""

    def __init__(
        self,
        folder: Path,
        saved: Saved,
        sample: Sample,
        plan: Plan,
        velocity: np.ndarray | None,
        threads: int,
        told: Callable[[str], None] | None,
    ) -> None:
        self.folder, self.plan, self.every = folder, plan, Intervals.of(plan)
        self.world = World(saved, sample, plan, threads)
        self.measured = Measurements(self.world.numbers, self.world.cells)
        self.trajectories: list[Trajectory] = []
        self.noise = plan.seed  # of thermostats
        marks = [Mark()] * plan.worlds
        if (folder / CHECKPOINT).exists():
            marks = self._restore(final_state(folder))
        else:
            self._begin(sample, velocity)
        self.saved_step = self.step
        if self.step >= plan.steps:
            return
        layout = Layout(self.world.numbers, self.world.cell)
        self.trajectories = [
            Trajectory(folder / f"trajectory-{w}.xyz", layout, mark, self.step * plan.dt)
            for w, mark in enumerate(marks)
        ]
        for trajectory in self.trajectories:
            if trajectory.begun and told is not None:
                told(f"{trajectory.path} was moved away: a new one begins at step {self.step}")

    @property
    def step(self) -> int:
        """Steps made."""
        return int(self.bodies.clock[0])

    def to_the_end(
        self,
        config: dict[str, Any],
        seconds: float,
        report: Callable[[Progress], None] | None,
        stop: Callable[[], bool] | None,
    ) -> int:
        """Make the steps that are left; see `simulate`."""
        if self.step >= self.plan.steps:
            return self.step
        self._write_config(config)
        for trajectory in self.trajectories:
            trajectory.open()
        try:
            return self._run(seconds, report, stop)
        except OutOfDomain as alarm:
            self._write_alarm(alarm)
            raise
        except OSError as error:
            raise OSError(
                f"{error}; {self.folder} is intact up to step {self.saved_step}: "
                f"when that is mended the same command goes on"
            ) from error

    def close(self) -> None:
        """Close the trajectories."""
        for trajectory in self.trajectories:
            trajectory.close()

    def _run(
        self,
        seconds: float,
        report: Callable[[Progress], None] | None,
        stop: Callable[[], bool] | None,
    ) -> int:
        every, began = self.every, time.perf_counter()
        saved_at = began
        if self.step == 0:
            self._write_checkpoint({})
            self._sample(watch=True)  # forgotten, unless the run ends here
        while self.step < self.plan.steps:
            if self.step % every.block == 0:
                self.measured.clear()
                self.world.forces.forget()
            self._advance(min(every.velocity - self.step % every.velocity, self._left))
            self._record()
            now = time.perf_counter()
            if report is not None and every.is_sampled(self.step):
                report(Progress(self.step, self.world.temperature(self.bodies), now - began))
            whole = self.step % every.block == 0
            ends = whole and now - began > seconds
            ends = ends or self._left == 0 or (stop is not None and stop())
            if whole or ends or now - saved_at > _SAVE:
                self._save(last=ends)
                saved_at = now
            if ends:
                break
        return self.step

    @property
    def _left(self) -> int:
        return self.plan.steps - self.step

    def _advance(self, steps: int) -> None:
        world, plan = self.world, self.plan
        try:
            advance(
                self.bodies,
                world.forces,
                world.mass,
                plan.dt,
                steps,
                thermostat=world.bath,
                freedom=world.freedom,
                seed=self.noise,
            )
        except NotFinite as error:
            raise OutOfDomain(
                error.step, error.world, "a position is not a finite number"
            ) from None

    def _record(self) -> None:
        """Measure what is due at this step."""
        every, step, bodies = self.every, self.step, self.bodies
        if step % every.velocity == 0:
            self.measured.add_velocity(bodies.velocity)
        if every.is_sampled(step):
            self._sample(watch=True)
        if step % every.place == 0:
            self.measured.add_place(bodies.position)
        if step % every.frame == 0:
            for w, trajectory in enumerate(self.trajectories):
                energy = float(bodies.loss[w].sum())
                fs = step * self.plan.dt
                trajectory.add(bodies.position[w], bodies.force[w], energy, fs)

    def _sample(self, *, watch: bool) -> None:
        """Measure, and raise OutOfDomain after that; what is not finite is not measured."""
        bodies, world = self.bodies, self.world
        energy = world.energy(bodies)
        finite = np.isfinite(bodies.position).all((1, 2)) & np.isfinite(energy)
        if watch and not finite.all():
            what = "a position or the energy is not a finite number"
            raise OutOfDomain(self.step, int(np.argmin(finite)), what)
        longest, torn = longest_bonds(world, bodies.position)
        self.measured.add_sample(
            bodies.position,
            step=self.step,
            temperature=world.temperature(bodies),
            potential=bodies.loss.sum(1),
            conserved=energy,
            heat=bodies.heat,
            longest=longest,
        )
        if watch:
            watch_distances(world, bodies.position, self.step)
            watch_bonds(world, longest, torn, self.step)
            watch_energy(world, (energy - self.start) / len(world.numbers), self.step)

    def _save(self, *, last: bool) -> None:
        """Write the block as far as it is, then the checkpoint that can go on with it.

        last: a sample is shown of the step at which the run is left, also between two samples.
        """
        whole = self.step % self.every.block == 0
        within = {} if whole else self.measured.state()
        if last and not self.every.is_sampled(self.step):
            self._sample(watch=False)
        self._write_block(whole=whole)
        self._write_checkpoint({f"block_{name}": values for name, values in within.items()})

    def _write_checkpoint(self, within: dict[str, np.ndarray]) -> None:
        """Write the state; `within`: what was measured of the block so far."""
        marks = [trajectory.mark() for trajectory in self.trajectories]
        state: dict[str, np.ndarray] = self.bodies._asdict() | within
        state |= {"sizes": np.array([mark.size for mark in marks]), "start": self.start}
        state["checksums"] = np.array([mark.checksum for mark in marks])
        state["built"] = self.world.forces.built
        state["noise"] = np.array(self.noise % 2**64, np.uint64)
        write_arrays(self.folder / CHECKPOINT, state)
        self.saved_step = self.step

    def _write_block(self, *, whole: bool) -> None:
        if self.measured.samples:
            number = max(0, self.step - 1) // self.every.block + 1
            write_block(self.folder, number, self.measured.block(whole=whole))

    def _write_alarm(self, alarm: OutOfDomain) -> None:
        """What was measured of the block up to the alarm, and the alarm."""
        self._write_block(whole=False)
        text = json.dumps({"step": alarm.step, "world": alarm.world, "what": alarm.what}) + "\n"
        _write_text(self.folder / STOPPED, text)

    def _write_config(self, config: dict[str, Any]) -> None:
        (self.folder / BLOCKS).mkdir(exist_ok=True)
        for left in (*self.folder.glob(".*.tmp*"), *(self.folder / BLOCKS).glob(".*.tmp*")):
            left.unlink()
        _write_text(self.folder / CONFIG, json.dumps(config, indent=1) + "\n")

    def _begin(self, sample: Sample, velocity: np.ndarray | None) -> None:
        plan, world = self.plan, self.world
        position = np.asarray(sample.position, float)
        if position.ndim == 2:
            position = np.repeat(position[None], plan.worlds, 0)
        v = draw_velocity(sample, plan) if velocity is None else velocity
        if velocity is not None:
            # With the noise of the run that it goes on from, a solid would repeat that run.
            self.noise = zlib.crc32(np.ascontiguousarray(v).tobytes(), plan.seed % 2**32)
        self.bodies = start_md(position, v, world.forces)
        self.start = world.energy(self.bodies)

    def _restore(self, state: dict[str, np.ndarray]) -> list[Mark]:
        """MDState, lists and measurements of a checkpoint; what is sure of the trajectories."""
        self.bodies = MDState(*(state[name] for name in MDState._fields))
        self.start = state["start"]
        self.noise = int(state.get("noise", self.noise))
        within = self.step % self.every.block != 0
        if within and "built" not in state and self.step < self.plan.steps:
            raise ValueError(
                f"{self.folder} was left within a block by an earlier version, which kept not all "
                f"that going on needs: begin another run with --after {self.folder}"
            )
        force, _ = self.world.forces(self.bodies.position)
        off, largest = np.abs(force - self.bodies.force).max(), np.abs(force).max()
        if not off <= _ROUNDED[self.plan.precision] * max(1e-3, largest):
            raise ValueError(
                f"{self.folder} was made with another model: its forces are not those of this one; "
                f"choose another --out"
            )
        if within and "built" in state:
            self.measured.restore(
                {name[6:]: values for name, values in state.items() if name.startswith("block_")}
            )
            self.world.forces.rebuild(state["built"])
        checksums = state.get("checksums", np.full(len(state["sizes"]), -1))
        both = zip(state["sizes"], checksums, strict=True)
        return [Mark(int(size), int(checksum)) for size, checksum in both]


def _config(plan: Plan, about: dict[str, Any], sample: Sample) -> dict[str, Any]:
    atoms = {"numbers": np.asarray(sample.numbers).tolist(), "cell": np.asarray(sample.cell)}
    atoms["cell"] = atoms["cell"].tolist()
    return {"schema": SCHEMA, "plan": plan._asdict(), **atoms, **about}


def _require_same_run(folder: Path, config: dict[str, Any]) -> None:
    """Raise ValueError if the folder holds anything but this run, at whatever step."""
    if not (folder / CONFIG).exists():
        if any(path.name != LOCK for path in folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no simulation: choose another --out")
        return
    blocks = len(list((folder / BLOCKS).glob("*.npz")))
    if blocks > 1 and not (folder / CHECKPOINT).exists():  # the first may come before it
        raise ValueError(
            f"{folder} has measured {blocks} blocks but lost its {CHECKPOINT}: it cannot go on; "
            "choose another --out"
        )
    was = read_config(folder)
    pairs = [(name, was["plan"][name], value) for name, value in config["plan"].items()]
    pairs += [(name, was.get(name), config.get(name)) for name in ("digest", "start")]
    pairs.insert(0, ("number of atoms", len(was["numbers"]), len(config["numbers"])))
    for name, old, new in pairs:
        unknown = name == "start" and None in (old, new)
        if name != "steps" and old != new and not unknown:
            raise ValueError(
                f"{folder} holds another simulation: {name} is {old}, not {new}; "
                f"choose another --out"
            )
    if was["numbers"] != config["numbers"]:
        raise ValueError(f"{folder} holds a simulation of other atoms; choose another --out")
    if not np.allclose(was["cell"], config["cell"], rtol=0, atol=1e-6):
        raise ValueError(f"{folder} holds a simulation in another cell; choose another --out")


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; ValueError that names the file for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
