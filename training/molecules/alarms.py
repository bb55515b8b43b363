"""When a simulation has left what its model knows: distances, bonds and energy are watched."""

from __future__ import annotations

import numpy as np

from ...envs.core.physics.cell import half_width
from ...envs.core.physics.kernels.distances import bond_lengths, count_distances
from ...envs.core.physics.kernels.neighbours import NeighbourList
from ...envs.core.physics.units import ATOMIC_WEIGHTS, BOLTZMANN, SYMBOLS
from ...envs.molecules.files import Sample, Saved
from ...envs.molecules.forces import Forces, bonds_of, make_forces
from ...envs.molecules.linear import LossModel, species_index
from ...envs.molecules.molecular_dynamics import MDState, Thermostat, conserved, kinetic
from .plan import Plan, degrees_of_freedom

MARGIN = 0.1  # of the sampled range: how far distances may leave it
DRIFT = 1e-3  # eV per atom that the conserved quantity may leave its start by
_MOLECULE = 1.5  # Angstrom: hydrogens farther from oxygen in the data are not bound to it


class OutOfDomain(Exception):
    """The run left what the model knows: at which step, in which world and how."""

    def __init__(self, step: int, world: int, what: str) -> None:
        super().__init__(f"step {step}, world {world}: {what}")
        self.step, self.world, self.what = step, world, what


class World:
    """What stays the same in a run: atoms, cell, forces, thermostat and what to watch."""

    def __init__(self, saved: Saved, sample: Sample, plan: Plan, threads: int = 1) -> None:
        self.numbers, self.cell = np.asarray(sample.numbers), np.asarray(sample.cell, float)
        self.mass = np.array(ATOMIC_WEIGHTS)[self.numbers]
        self.cells = np.repeat(self.cell[None], plan.worlds, 0)
        self.limits = saved.about.get("limits", {})
        molecules = self.limits.get("1-8", {}).get("bond", 0) < _MOLECULE
        self.bonds = bonds_of(self.numbers, sample.owner if molecules else None)
        dtype = np.float64 if plan.precision == "float64" else np.float32
        self.forces: Forces = make_forces(
            saved.model, self.cells, self.numbers, bonds=self.bonds, dtype=dtype, threads=threads
        )
        kt = np.full(plan.worlds, BOLTZMANN * plan.temperature)
        self.bath = Thermostat(plan.thermostat, kt, plan.tau)
        self.freedom = degrees_of_freedom(plan, len(self.numbers))
        model = saved.model
        self.conservative = not isinstance(model, LossModel) or model.shared
        self.known = tuple(sorted(set(map(int, self.numbers))))
        self.nearest = self._nearest()
        room = half_width(self.cell)
        reach = min(float(self.nearest.max()) + 1e-6, room)
        self.watched = NeighbourList(
            self.cells, len(self.numbers), reach, min(0.4, max(0.0, room - reach))
        )

    def energy(self, bodies: MDState) -> np.ndarray:
        """The conserved quantity [worlds], eV."""
        return conserved(bodies, self.mass, self.bath, self.freedom)

    def temperature(self, bodies: MDState) -> np.ndarray:
        """Kinetic temperatures [worlds], K."""
        return 2 * kinetic(bodies, self.mass) / (self.freedom * BOLTZMANN)

    def _nearest(self) -> np.ndarray:
        """Distances [kinds, kinds] below which an alarm is raised; 0: none."""
        kinds = len(self.known)
        limits = np.zeros((kinds, kinds))
        for a, first in enumerate(self.known):
            for b, second in enumerate(self.known[a:], a):
                limit = self.limits.get(f"{first}-{second}", {}).get("nearest", 0.0)
                if np.isfinite(limit):
                    limits[a, b] = limits[b, a] = limit * (1 - MARGIN)
        return limits


def watch_distances(world: World, position: np.ndarray, step: int) -> None:
    """Raise OutOfDomain where two atoms are nearer than their species were in the data."""
    if not world.nearest.any():
        return
    least = _least(world, position)
    near = least < world.nearest
    if not near.any():
        return
    w, a, b = (int(k) for k in np.argwhere(near)[0])
    names = f"{SYMBOLS[world.known[max(a, b)]]}-{SYMBOLS[world.known[min(a, b)]]}"
    what = f"{names} distance {least[w, a, b]:.2f} A left the sampled range"
    raise OutOfDomain(step, w, f"{what} (below {world.nearest[a, b]:.2f})")


def watch_bonds(world: World, longest: np.ndarray, torn: np.ndarray, step: int) -> None:
    """Raise OutOfDomain where a molecule is broken; longest bond, torn bonds [worlds]."""
    limit = world.limits.get("1-8", {}).get("bond", 0) * (1 + MARGIN)
    if torn.any() or (limit and longest.max() > limit):
        w = int(np.argmax(torn)) if torn.any() else int(longest.argmax())
        raise OutOfDomain(step, w, f"a molecule is broken: a bond of {longest[w]:.2f} A")


def watch_energy(world: World, change: np.ndarray, step: int) -> None:
    """Raise OutOfDomain where the conserved quantity changed too much [worlds], eV per atom."""
    held = np.abs(change) <= DRIFT
    if world.conservative and not held.all():
        w = int(np.argmax(np.abs(change)))
        left = f"{1e3 * change[w]:+.2f} meV/atom"
        raise OutOfDomain(step, w, f"the conserved quantity left its start by {left}")


def longest_bonds(world: World, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longest bond and number of torn bonds [worlds]."""
    longest, torn = np.zeros(len(position)), np.zeros(len(position), np.int64)
    if len(world.bonds):
        rivals = np.unique(world.bonds[:, 1])
        near = world.watched
        bond_lengths(position, near.cell, near.inverse, world.bonds, rivals, longest, torn)
    return longest, torn


def _least(world: World, position: np.ndarray) -> np.ndarray:
    """Least distances [worlds, kinds, kinds], right where they are below the limits."""
    near = world.watched
    near.update(position)
    kinds = len(world.known)
    least = np.full((len(position), kinds, kinds), np.inf)
    nothing = np.zeros((len(position), kinds, kinds, 0), np.int64)
    species = species_index(world.numbers, world.known)
    count_distances(position, near.arrays, species, 1.0, nothing, least)
    return least
