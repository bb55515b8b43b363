"""Active learning: agents simulate, say where they are unsure, ask a reference, and learn.

An ensemble of losses is fitted to resampled frames. One of them drives a simulation; the spread of
the others' forces on an atom says how sure they are. Frames whose spread is beyond `limit` go to a
reference calculation, and all losses are fitted anew. Distances that were never sampled show up as
spread before they show up as an explosion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...envs.core.physics.units import ATOMIC_WEIGHTS, BOLTZMANN
from ...envs.molecules.forces import bonds_of, make_forces
from ...envs.molecules.linear import LossModel
from ...envs.molecules.molecular_dynamics import Thermostat, advance, maxwell, start_md
from .fit_linear import fit_losses
from .frames import Frames, owners

Reference = Callable[[np.ndarray], tuple[np.ndarray, float]]  # positions -> forces, energy
_EVERY = 20  # steps between looks at the spread
_APART = 100  # steps between frames that are kept


class Explored(NamedTuple):
    """What a simulation came upon.

    uncertain [k, n, 3]: positions, the most uncertain first.  spread [k] eV/Angstrom.
    steps: made before it was ended.  ended: why, empty if it was not.  largest: spread seen.
    """

    uncertain: np.ndarray
    spread: np.ndarray
    steps: int
    ended: str
    largest: float


def fit_ensemble(frames: Frames, *, size: int, seed: int, **settings: Any) -> list[LossModel]:
    """Losses fitted to all training frames, and `size` - 1 more to resampled ones."""
    rng = np.random.default_rng(seed)
    train = np.flatnonzero(frames.split == "train")
    rest = np.flatnonzero(frames.split != "train")
    models = [fit_losses(frames, **settings).model]
    for _ in range(size - 1):
        drawn = rng.choice(train, len(train))
        models.append(fit_losses(frames.part(np.concatenate([drawn, rest])), **settings).model)
    # The walls of the first, which saw everything, hold for all.
    return [models[0], *(model._replace(walls=models[0].walls) for model in models[1:])]


def spread_of(models: list[LossModel], cell: np.ndarray, numbers: np.ndarray) -> Any:
    """A function from positions [n, 3] to the spread [n] of the models' forces, eV/Angstrom."""
    forces = [make_forces(model, cell[None], numbers) for model in models]

    def spread(position: np.ndarray) -> np.ndarray:
        predicted = np.array([force_of(position[None])[0][0] for force_of in forces])
        result: np.ndarray = np.sqrt(((predicted - predicted.mean(0)) ** 2).sum(-1).mean(0))
        return result

    return spread


def explore(
    models: list[LossModel],
    start: np.ndarray,
    frames: Frames,
    *,
    temperature: float,
    limit: float,
    ruin: float,
    steps: int,
    keep: int,
    seed: int,
    dt: float = 0.5,
) -> Explored:
    """Simulate with the first model and keep frames with a spread between `limit` and `ruin`.

    Ends where the spread is above `ruin`, which is too far from what is known to be of use, or
    where numbers are no longer finite.
    """
    cell, numbers = frames.cell[0], frames.numbers
    mass = np.array(ATOMIC_WEIGHTS)[numbers]
    bonds = bonds_of(numbers, owners(frames))
    forces = make_forces(models[0], cell[None], numbers, bonds=bonds)
    kt = BOLTZMANN * temperature
    velocity = maxwell(np.random.default_rng(seed), 1, mass, kt)
    bodies = start_md(start[None], velocity, forces)
    bath = Thermostat("csvr", np.array([kt]), 50.0)
    spread = spread_of(models, cell, numbers)
    uncertain: list[tuple[float, np.ndarray]] = []
    largest, last, ended = 0.0, -_APART, ""
    for step in range(0, steps, _EVERY):
        try:
            freedom = 3 * len(mass) - 3
            advance(bodies, forces, mass, dt, _EVERY, thermostat=bath, freedom=freedom, seed=seed)
            now = float(spread(bodies.position[0]).max())
        except FloatingPointError:
            ended = "positions are not finite"
            break
        largest = max(largest, now)
        if not now < ruin:
            ended = f"spread of {now:.1f} eV/A"
            break
        if now > limit and step - last >= _APART:
            uncertain.append((now, bodies.position[0].copy()))
            last = step
    uncertain = sorted(uncertain, key=lambda pair: -pair[0])[:keep]
    positions = np.array([x for _, x in uncertain]).reshape(-1, len(numbers), 3)
    done = int(bodies.clock[0])
    return Explored(positions, np.array([s for s, _ in uncertain]), done, ended, largest)


def asked(frames: Frames, positions: np.ndarray, reference: Reference) -> Frames:
    """The frames with more, whose forces the reference gives; they join the training split."""
    answers = [reference(x) for x in positions]
    if not answers:
        return frames
    count = len(answers)
    more = frames._replace(
        positions=np.concatenate([positions, frames.positions]),
        forces=np.concatenate([np.array([f for f, _ in answers]), frames.forces]),
        energy=np.concatenate([[e for _, e in answers], frames.energy]),
        cell=np.concatenate([np.repeat(frames.cell[:1], count, 0), frames.cell]),
        split=np.concatenate([np.full(count, "train"), frames.split]),
    )
    return more


def ase_reference(numbers: np.ndarray, cell: np.ndarray, calculator: Any) -> Reference:
    """A reference from any calculator of ASE."""
    from ase import Atoms

    atoms = Atoms(numbers, np.zeros((len(numbers), 3)), cell=cell, pbc=bool(cell.any()))
    atoms.calc = calculator

    def reference(position: np.ndarray) -> tuple[np.ndarray, float]:
        atoms.positions = position
        return atoms.get_forces(), float(atoms.get_potential_energy())

    return reference
