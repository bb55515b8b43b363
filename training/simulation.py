"""Simulations that go on where they stopped: molecular dynamics of a model, in blocks.

A run folder holds

config.json          the model and what was asked for
checkpoint.npz       positions, velocities, forces, thermostat and clock after the last whole block
blocks/000001.npz    what was measured in a block: traces, counted distances, spectrum, places
trajectory-0.xyz     extended XYZ of each world: positions, forces, energy

Neighbour lists are built anew where a block begins, so a run that was interrupted and goes on is
the same run bit for bit. A run stops where it leaves what the model knows: see `Alarm`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..agents.dynamics import Bodies, Thermostat, advance, conserved, kinetic, make_bodies, maxwell
from ..agents.forces import Forces, bonds_of, make_forces
from ..agents.losses import LossModel, kinds_of
from ..agents.model_file import Sample, Saved
from ..envs.core.cell import replicate
from ..envs.core.units import ATOMIC_WEIGHTS, BOLTZMANN, SYMBOLS
from ..envs.kernels.neighbours import NeighbourList
from ..envs.kernels.structure import bond_lengths, count_distances
from .frames import minimum_image
from .structure import Counter

CONFIG, CHECKPOINT, BLOCKS = "config.json", "checkpoint.npz", "blocks"
SCHEMA = 1
MARGIN = 0.1  # of the sampled range: how far distances may leave it
DRIFT = 1e-3  # eV per atom that the conserved quantity may leave its start by
_VELOCITY, _SAMPLE, _PLACE, _BLOCK = 2.0, 10.0, 50.0, 2000.0  # fs
_FOLLOWED = 600  # atoms whose velocities are kept for the spectrum


class Plan(NamedTuple):
    """What is asked for. temperature: K.  tau, dt: fs.  frames: fs between trajectory frames."""

    temperature: float
    thermostat: str
    tau: float
    dt: float
    steps: int
    frames: float
    seed: int
    worlds: int
    precision: str


class Alarm(Exception):
    """The run left what the model knows: at which step, in which world and how."""

    def __init__(self, step: int, world: int, what: str) -> None:
        super().__init__(f"step {step}, world {world}: {what}")
        self.step, self.world, self.what = step, world, what


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
) -> int:
    """Make, or go on with, a run; returns the steps made, fewer than asked for if time was up.

    about: written to config.json.  velocity [worlds, n, 3]: of the start, else drawn from Maxwell's
    distribution.  seconds: no further block begins after that.
    Raises Alarm, and ValueError where the folder holds another run.
    """
    config = _config(plan, about)
    _claim(folder, config)
    world = World(saved, sample, plan, threads)
    bodies, sizes, start = _restored(folder, plan, sample, world, velocity)
    began = time.perf_counter()
    intervals = Intervals.of(plan)
    if bodies.clock[0] == 0:
        _watch(world, bodies, np.zeros(plan.worlds), 0)
    stop = False
    while bodies.clock[0] < plan.steps and not stop:
        first = int(bodies.clock[0])
        steps = min(intervals.block - first % intervals.block, plan.steps - first)
        trajectories = [_Trajectory(folder / f"trajectory-{w}.xyz", n) for w, n in enumerate(sizes)]
        try:
            measured = _block(world, bodies, plan, steps, start, trajectories)
        finally:
            sizes = [one.close() for one in trajectories]
        _write_arrays(folder / BLOCKS / f"{first // intervals.block + 1:06d}.npz", measured)
        state: dict[str, np.ndarray] = bodies._asdict()
        _write_arrays(folder / CHECKPOINT, {**state, "sizes": np.array(sizes), "start": start})
        spent = time.perf_counter() - began
        stop = spent > seconds
        if report is not None:
            report(Progress(int(bodies.clock[0]), measured["temperature"][-1], spent))
    return int(bodies.clock[0])


class Intervals(NamedTuple):
    """Steps between what is recorded, each a multiple of the first."""

    velocity: int
    sample: int
    place: int
    frame: int
    block: int

    @classmethod
    def of(cls, plan: Plan) -> Intervals:
        """The intervals of a plan."""
        stride = max(1, int(_VELOCITY / plan.dt + 1e-9))

        def multiple(fs: float) -> int:
            return stride * max(1, round(fs / plan.dt / stride))

        sample, place, frame = multiple(_SAMPLE), multiple(_PLACE), multiple(plan.frames)
        return cls(stride, sample, place, frame, multiple(_BLOCK))


class World:
    """What stays the same in a run: atoms, cell, forces, thermostat and what to watch."""

    def __init__(self, saved: Saved, sample: Sample, plan: Plan, threads: int = 1) -> None:
        self.numbers, self.cell = np.asarray(sample.numbers), np.asarray(sample.cell, float)
        self.mass = np.array(ATOMIC_WEIGHTS)[self.numbers]
        self.cells = np.repeat(self.cell[None], plan.worlds, 0)
        self.bonds = bonds_of(self.numbers, sample.owner)
        dtype = np.float64 if plan.precision == "float64" else np.float32
        self.forces: Forces = make_forces(
            saved.model, self.cells, self.numbers, bonds=self.bonds, dtype=dtype, threads=threads
        )
        kt = np.full(plan.worlds, BOLTZMANN * plan.temperature)
        self.bath = Thermostat(plan.thermostat, kt, plan.tau)
        noisy = plan.thermostat == "langevin"
        self.freedom = 3 * len(self.numbers) - (0 if noisy else 3)
        model = saved.model
        self.conservative = not isinstance(model, LossModel) or model.shared
        self.limits = saved.about.get("limits", {})
        self.known = tuple(sorted(set(map(int, self.numbers))))
        self.watched = NeighbourList(self.cells, len(self.numbers), 2.6, 0.4)
        self.inverse = self.watched.inverse

    def energy(self, bodies: Bodies) -> np.ndarray:
        """The conserved quantity [worlds], eV."""
        return conserved(bodies, self.mass, self.bath, self.freedom)

    def temperature(self, bodies: Bodies) -> np.ndarray:
        """Kinetic temperatures [worlds], K."""
        return 2 * kinetic(bodies, self.mass) / (self.freedom * BOLTZMANN)


def draw_velocity(sample: Sample, plan: Plan) -> np.ndarray:
    """Velocities [worlds, n, 3] of the plan's temperature; world k is drawn with seed + k."""
    mass = np.array(ATOMIC_WEIGHTS)[np.asarray(sample.numbers)]
    kt = BOLTZMANN * plan.temperature
    seeds = range(plan.seed, plan.seed + plan.worlds)
    return np.concatenate([maxwell(np.random.default_rng(seed), 1, mass, kt) for seed in seeds])


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


def blocks(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """What was measured, block after block."""
    for path in sorted((folder / BLOCKS).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            yield {name: file[name] for name in file.files}


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run; FileNotFoundError or ValueError for what is none."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no simulation: it has no {CONFIG}")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if config.get("schema") != SCHEMA or "plan" not in config:
        raise ValueError(f"{path} is not of a simulation of this version")
    return config


def final_state(folder: Path) -> dict[str, np.ndarray]:
    """Positions and velocities [worlds, n, 3], among others, after the last whole block."""
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CHECKPOINT} to go on from")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _block(
    world: World,
    bodies: Bodies,
    plan: Plan,
    steps: int,
    start: np.ndarray,
    trajectories: list[_Trajectory],
) -> dict[str, np.ndarray]:
    """Make `steps` steps in place and measure."""
    every = Intervals.of(plan)
    counter = Counter(world.cells, world.numbers)
    followed = min(len(world.numbers), _FOLLOWED)
    traces: dict[str, list[Any]] = {name: [] for name in ("step", "temperature", "potential")}
    traces |= {name: [] for name in ("conserved", "heat", "longest", "place", "velocity")}
    heavy = np.flatnonzero(world.numbers != 1) if (world.numbers != 1).any() else slice(None)
    world.forces.forget()
    made = 0
    while made < steps:
        part = min(every.velocity, steps - made)
        try:
            advance(
                bodies,
                world.forces,
                world.mass,
                plan.dt,
                part,
                thermostat=world.bath,
                freedom=world.freedom,
                seed=plan.seed,
            )
        except FloatingPointError as error:
            raise Alarm(int(bodies.clock[0]), 0, str(error)) from None
        made += part
        step = int(bodies.clock[0])
        if step % every.velocity == 0:
            traces["velocity"].append(bodies.velocity[:, :followed].astype(np.float32))
        if step % every.sample == 0 or made == steps:
            energy, potential = world.energy(bodies), bodies.loss.sum(1)
            traces["step"].append(step)
            traces["temperature"].append(world.temperature(bodies))
            traces["potential"].append(potential)
            traces["conserved"].append(energy)
            traces["heat"].append(bodies.heat.copy())
            traces["longest"].append(_watch(world, bodies, energy - start, step))
            counter.add(bodies.position)
        if step % every.place == 0:
            centre = (world.mass[:, None] * bodies.position).sum(1) / world.mass.sum()
            place = bodies.position[:, heavy] - centre[:, None]
            traces["place"].append(place.astype(np.float32))
        if step % every.frame == 0:
            for w, file in enumerate(trajectories):
                file.add(world, bodies, w, step * plan.dt)
    velocity = np.array(traces.pop("velocity"))
    found = {name: np.array(rows) for name, rows in traces.items()}
    whole = steps == every.block
    found["spectrum"] = (
        _spectrum(velocity, world, followed) if whole else np.zeros((0, 0, 0), np.float32)
    )
    return found | {"counts": counter.counts, "least": counter.least}


def _spectrum(velocity: np.ndarray, world: World, followed: int) -> np.ndarray:
    """Power [worlds, kinds, frequencies] of mass-weighted velocities [times, worlds, atoms, 3]."""
    times = len(velocity)
    window = np.hanning(times)[:, None, None, None]
    power = np.abs(np.fft.rfft(window * velocity, axis=0)) ** 2
    power = (power * world.mass[:followed, None]).sum(-1)  # [frequencies, worlds, atoms]
    kinds = [world.numbers[:followed] == number for number in world.known]
    return np.stack([power[..., kind].sum(-1).T for kind in kinds], 1).astype(np.float32)


def _watch(world: World, bodies: Bodies, change: np.ndarray, step: int) -> np.ndarray:
    """The longest bond [worlds]; raises Alarm."""
    worlds, n = bodies.position.shape[:2]
    if not np.isfinite(bodies.position).all():
        raise Alarm(step, int(np.argmax(~np.isfinite(bodies.position).all((1, 2)))), "no number")
    kinds = len(world.known)
    least = _least(world, bodies.position)
    for a in range(kinds):
        for b in range(a, kinds):
            first, second = world.known[a], world.known[b]
            limit = world.limits.get(f"{first}-{second}", {}).get("nearest", 0) * (1 - MARGIN)
            if least[:, a, b].min() < limit:
                w = int(least[:, a, b].argmin())
                names = f"{SYMBOLS[second]}-{SYMBOLS[first]}"
                found = f"{names} distance {least[w, a, b]:.2f} A left the sampled range"
                raise Alarm(step, w, f"{found} (below {limit:.2f})")
    longest, torn = np.zeros(worlds), np.zeros(worlds, np.int64)
    if len(world.bonds):
        rivals = np.unique(world.bonds[:, 1])
        near = world.watched
        bond_lengths(bodies.position, near.cell, near.inverse, world.bonds, rivals, longest, torn)
        limit = world.limits.get("1-8", {}).get("bond", 0) * (1 + MARGIN)
        if torn.any() or (limit and longest.max() > limit):
            w = int(np.argmax(torn)) if torn.any() else int(longest.argmax())
            raise Alarm(step, w, f"a molecule is broken: a bond of {longest[w]:.2f} A")
    if world.conservative and np.abs(change).max() > DRIFT * n:
        w = int(np.abs(change).argmax())
        left = f"{1e3 * change[w] / n:+.2f} meV/atom"
        raise Alarm(step, w, f"the conserved quantity left its start by {left}")
    return longest


def _least(world: World, position: np.ndarray) -> np.ndarray:
    near = world.watched
    near.update(position)
    kinds = len(world.known)
    least = np.full((len(position), kinds, kinds), np.inf)
    nothing = np.zeros((len(position), kinds, kinds, 0), np.int64)
    species = kinds_of(world.numbers, world.known)
    where = (position, near.cell, near.inverse, near.index, near.count, species)
    count_distances(*where, 1.0, nothing, least)
    return least


class _Trajectory:
    """Extended XYZ that goes on after `size` bytes."""

    def __init__(self, path: Path, size: int) -> None:
        path.touch()
        self._file = path.open("r+", encoding="utf-8")
        self._file.truncate(size)
        self._file.seek(size)

    def add(self, world: World, bodies: Bodies, w: int, fs: float) -> None:
        x, f = bodies.position[w], bodies.force[w]
        lattice = " ".join(f"{v:.8f}" for v in world.cell.ravel())
        box = f'Lattice="{lattice}" pbc="T T T" ' if world.cell.any() else 'pbc="F F F" '
        energy = bodies.loss[w].sum()
        head = f"{box}Properties=species:S:1:pos:R:3:forces:R:3 energy={energy:.6f} time={fs:.3f}"
        rows = (
            f"{SYMBOLS[z]} {a[0]:.6f} {a[1]:.6f} {a[2]:.6f} {b[0]:.6f} {b[1]:.6f} {b[2]:.6f}"
            for z, a, b in zip(world.numbers, x, f, strict=True)
        )
        self._file.write(f"{len(x)}\n{head}\n" + "\n".join(rows) + "\n")

    def close(self) -> int:
        self._file.flush()
        size = self._file.tell()
        self._file.close()
        return size


def _config(plan: Plan, about: dict[str, Any]) -> dict[str, Any]:
    return {"schema": SCHEMA, "plan": plan._asdict(), **about}


def _claim(folder: Path, config: dict[str, Any]) -> None:
    """Make the folder, or raise ValueError if it holds another run."""
    if (folder / CONFIG).exists():
        was = read_config(folder)
        for name, value in {**config["plan"], "digest": config.get("digest")}.items():
            old = was["plan"].get(name) if name in config["plan"] else was.get(name)
            if name != "steps" and old != value:
                raise ValueError(
                    f"{folder} holds another simulation: {name} is {old}, not {value}; "
                    f"choose another --out"
                )
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no simulation: choose another --out")
    (folder / BLOCKS).mkdir(parents=True, exist_ok=True)
    _write(folder / CONFIG, (json.dumps(config, indent=1) + "\n").encode())


def _restored(
    folder: Path, plan: Plan, sample: Sample, world: World, velocity: np.ndarray | None
) -> tuple[Bodies, list[int], np.ndarray]:
    """Bodies, sizes of the trajectories and the conserved quantity at the start."""
    if (folder / CHECKPOINT).exists():
        state = final_state(folder)
        sizes, start = state.pop("sizes"), state.pop("start")
        return Bodies(**state), [int(n) for n in sizes], start
    position = np.asarray(sample.position, float)
    if position.ndim == 2:
        position = np.repeat(position[None], plan.worlds, 0)
    v = draw_velocity(sample, plan) if velocity is None else velocity
    bodies = make_bodies(position, v, world.forces)
    return bodies, [0] * plan.worlds, world.energy(bodies)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    part = path.with_name("part-" + path.name)
    savez: Any = np.savez
    savez(part, **arrays)
    os.replace(part, path)


def _write(path: Path, data: bytes) -> None:
    part = path.with_name("part-" + path.name)
    part.write_bytes(data)
    os.replace(part, path)
