"""Forces of any inferred loss on a batch of worlds, for simulations, judges and calculators."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from ..core.physics.cell import copies_for, half_width, replicate, require_cutoff
from ..core.physics.kernels.neighbours import NeighbourList
from .files import NetModel
from .linear import LossForces, LossModel, interaction_cutoff, species_index
from .network import Graph, blocks

_NET_SKIN = 0.5  # Angstrom


class NetForces:
    """Forces of a network loss, with the walls of its model; as `LossForces`."""

    def __init__(
        self,
        model: NetModel,
        cell: np.ndarray,
        numbers: np.ndarray,
        *,
        bonds: np.ndarray | None = None,
        dtype: type = np.float64,
    ) -> None:
        self._type = torch.float64 if dtype is np.float64 else torch.float32
        self._net = copy.deepcopy(model.net).to(self._type)
        self._constant = model.constant
        species_index(numbers, model.net.numbers)
        for box in cell:
            require_cutoff(model.net.cutoff, box)
        self._cell, self._numbers = cell, np.asarray(numbers)
        self._walls = LossForces(model.walls, cell, numbers, bonds=bonds)
        room = min([half_width(box) - model.net.cutoff for box in cell if box.any()] or [1.0])
        self.neighbours = NeighbourList(cell, len(numbers), 0.0, min(_NET_SKIN, max(room, 0.0)))
        self._graphs: list[Graph] = [{} for _ in cell]
        self.built = np.full((len(cell), len(numbers), 3), np.inf)

    def __call__(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        force, loss = self._walls(position)
        for w, x in enumerate(position):
            leaf = torch.from_numpy(x).to(self._type).requires_grad_()
            own = self._net(leaf, self._graph(w, x))
            force[w] -= torch.autograd.grad(own.sum(), leaf)[0].double().numpy()
            loss[w] += own.detach().double().numpy() + self._constant
        return force, loss

    def forget(self) -> None:
        """Find all neighbours anew next time, so that a resumed run is the same run."""
        self._walls.forget()
        self.built[:] = np.inf

    def rebuild(self, built: np.ndarray) -> None:
        """Find the neighbours of the positions [worlds, n, 3] at which they were found before.

        What a network adds up depends on them in the last bits. Positions of inf: of none yet.
        """
        self.forget()
        for w, x in enumerate(built):
            if np.isfinite(x).all():
                self._build(w, x)

    def _graph(self, w: int, x: np.ndarray) -> Graph:
        moved = np.sqrt(((x - self.built[w]) ** 2).sum(-1).max())
        if not 2 * moved < self.neighbours.skin:
            self._build(w, x)
        return self._graphs[w]

    def _build(self, w: int, x: np.ndarray) -> None:
        far = self._net.cutoff + self.neighbours.skin
        graph = blocks(x, self._cell[w], self._numbers, self._net.numbers, far)
        self._graphs[w] = {
            key: block._replace(shift=block.shift.to(self._type)) for key, block in graph.items()
        }
        self.built[w] = x


class ThreadedForces:
    """Forces of a batch whose worlds are shared out among threads; the same to the last bit."""

    def __init__(self, shares: list[LossForces | NetForces], sizes: list[int]) -> None:
        self._shares, self._ends = shares, np.cumsum([0, *sizes])
        self._pool = ThreadPoolExecutor(len(shares))

    def __call__(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        results = self.each(lambda forces, worlds: forces(position[worlds]))
        return np.concatenate([f for f, _ in results]), np.concatenate([e for _, e in results])

    def each(self, work: Callable[[LossForces | NetForces, slice], Any]) -> list[Any]:
        """What `work` makes of the forces of each share of worlds, and of which; in threads."""
        shares = [slice(a, b) for a, b in itertools.pairwise(self._ends)]
        return list(self._pool.map(work, self._shares, shares))

    def forget(self) -> None:
        """Find all neighbours anew next time, so that a resumed run is the same run."""
        for forces in self._shares:
            forces.forget()

    @property
    def built(self) -> np.ndarray:
        """Positions [worlds, n, 3] at which the neighbours were found."""
        return np.concatenate([forces.built for forces in self._shares])

    def rebuild(self, built: np.ndarray) -> None:
        """Find the neighbours of those positions, so that a resumed run is the same run."""
        for forces, (a, b) in zip(self._shares, itertools.pairwise(self._ends), strict=True):
            forces.rebuild(built[a:b])


Forces = LossForces | NetForces | ThreadedForces


def make_forces(
    model: LossModel | NetModel,
    cell: np.ndarray,
    numbers: np.ndarray,
    *,
    bonds: np.ndarray | None = None,
    dtype: type = np.float64,
    threads: int = 1,
) -> Forces:
    """Forces of a model for worlds with cells [worlds, 3, 3] and the same atoms [n].

    bonds [m, 2]: pairs held together by the outer wall.  dtype: float64, or float32 for speed.
    threads: at most as many as there are worlds.
    Raises ValueError for unknown species and for a cell narrower than twice the cutoff.
    """
    make: Callable[..., Any] = LossForces if isinstance(model, LossModel) else NetForces
    threads = min(threads, len(cell))
    if threads == 1:
        return make(model, cell, numbers, bonds=bonds, dtype=dtype)
    pieces = np.array_split(cell, threads)
    parts = [make(model, piece, numbers, bonds=bonds, dtype=dtype) for piece in pieces]
    return ThreadedForces(parts, [len(piece) for piece in pieces])


def cutoff_of(model: LossModel | NetModel) -> float:
    """The distance that cells must be twice as wide as, Angstrom."""
    if isinstance(model, LossModel):
        return interaction_cutoff(model)
    return max(model.net.cutoff, interaction_cutoff(model.walls))


def forces_of_frame(
    model: LossModel | NetModel, position: np.ndarray, cell: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Forces [n, 3] and losses [n] of one frame; narrow cells are repeated, which is exact."""
    n = len(numbers)
    if cell.any() and half_width(cell) < cutoff_of(model):
        copies = copies_for(cutoff_of(model), cell)
        position, cell = replicate(position, cell, copies)
        numbers = np.tile(numbers, int(np.prod(copies)))
    force, loss = make_forces(model, cell[None], numbers)(position[None])
    return force[0, :n], loss[0, :n]


def bonds_of(numbers: np.ndarray, owner: np.ndarray | None) -> np.ndarray:
    """Bonds [m, 2] of hydrogens with the oxygens that own them: models know how long these get."""
    if owner is None:
        return np.zeros((0, 2), np.int64)
    bonds = np.stack([np.flatnonzero(numbers == 1), owner], 1).astype(np.int64)
    held: np.ndarray = bonds[numbers[bonds[:, 1]] == 8]
    return held
