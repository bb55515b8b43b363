"""What atoms of water know of their neighbours, and the forces that are made of it.

Radial functions are bumps b(r) = (1 - ((r - c) / h)^2)^2 within h of the centre c, else 0, that
depend on both species. All vanish beyond 3.9 Angstrom. Every function here works on all pairs of a
batch of worlds and is differentiable; `step.py` is the compiled form.

Lengths in Angstrom, forces in eV/Angstrom, masses in amu. Idea: Gusev and Vanchurin, "Molecular
Learning Dynamics" (arXiv 2504.10560), of which only the abstract was available: radial functions,
losses and numbers are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.observation import observation_limits
from ..core.physics.cell import nearest_image
from ..core.physics.descriptors import bump, distances, moments, products
from ..core.physics.plane import dot
from ..core.physics.units import ATOMIC_WEIGHTS
from ..core.rng import Rng
from ..core.system import System
from ..core.types import Bound

CUTOFF = 3.9  # Angstrom
# Centres, half widths (Angstrom) and gains (eV/Angstrom) of ten functions: for pairs of oxygens, of
# unlike atoms, of hydrogens.
RADIAL = np.array(
    [
        [
            (2.20, 2.45, 2.60, 2.75, 2.90, 3.05, 3.20, 3.35, 3.50, 3.65),
            (0.75, 0.90, 0.95, 1.00, 1.05, 1.12, 1.60, 1.90, 2.30, 2.90),
            (1.30, 1.42, 1.52, 1.62, 1.75, 2.00, 2.30, 2.70, 3.10, 3.50),
        ],
        [
            (0.35, 0.25, 0.22, 0.22, 0.22, 0.22, 0.22, 0.22, 0.25, 0.25),
            (0.20, 0.08, 0.08, 0.08, 0.08, 0.12, 0.45, 0.50, 0.70, 1.00),
            (0.20, 0.15, 0.15, 0.15, 0.20, 0.35, 0.45, 0.50, 0.50, 0.40),
        ],
        [
            (6.00, 3.00, 3.00, 3.00, 3.00, 2.00, 2.00, 2.00, 2.00, 2.00),
            (20.0, 8.00, 8.00, 8.00, 8.00, 8.00, 4.00, 2.00, 2.00, 1.00),
            (4.00, 3.00, 3.00, 3.00, 3.00, 2.00, 1.00, 1.00, 1.00, 1.00),
        ],
    ]
)
BROAD = ((0.0, 1.4), (2.2, 1.6))  # centre, half width of what is seen of angles
N_FUNCTIONS = RADIAL.shape[2]
N_PRODUCTS = 2 * len(BROAD) * (2 * len(BROAD) + 1) // 2
BIN = 0.1  # Angstrom, of radial distribution functions
BINS = round(CUTOFF / BIN)
_BETWEEN_FROM = (2.0, 1.25, 1.9)  # Angstrom, from where distances are those between molecules
BONDED = 1.3  # Angstrom
MASS = {True: ATOMIC_WEIGHTS[8], False: ATOMIC_WEIGHTS[1]}


class Pairs(NamedTuple):
    """All pairs; an atom is no neighbour of itself."""

    distance: Tensor  # [worlds, agents, agents], far on the diagonal
    direction: Tensor  # [worlds, agents, agents, 3] unit vectors to the neighbour
    kind: Tensor  # [worlds, agents, agents] 0: O-O, 1: O-H, 2: H-H
    other: Tensor  # [worlds, agents, agents, 2] whether the neighbour is an oxygen, a hydrogen


def all_pairs(position: Tensor, oxygen: Tensor, cell: Tensor) -> Pairs:
    """Pairs of atoms at `position` [worlds, agents, 3]; oxygen [worlds, agents]."""
    r = position.unsqueeze(1) - position.unsqueeze(2)
    distance, direction = distances(nearest_image(r, cell[:, None, None]))
    kind = (2 - oxygen.unsqueeze(1) - oxygen.unsqueeze(2)).long()
    other = torch.stack([oxygen, 1 - oxygen], -1).unsqueeze(1).expand(*kind.shape, 2)
    return Pairs(distance, direction, kind, other)


def radial_functions(pairs: Pairs) -> Tensor:
    """Radial functions [worlds, agents, agents, 10] of every pair."""
    c, h = (torch.from_numpy(table).to(pairs.distance)[pairs.kind] for table in RADIAL[:2])
    return bump(pairs.distance, c, h)


def radial_descriptor(pairs: Pairs) -> Tensor:
    """q [worlds, agents, 20]: of oxygens, then of hydrogens."""
    b = radial_functions(pairs)
    return torch.cat([(b * pairs.other[..., t, None]).sum(2) for t in range(2)], -1)


def vectors(pairs: Pairs) -> Tensor:
    """Forces [worlds, agents, 20, 3] of unit weights: gain times A, away from the neighbours."""
    b = radial_functions(pairs) * torch.from_numpy(RADIAL[2]).to(pairs.distance)[pairs.kind]
    away = -pairs.direction.unsqueeze(-2)
    species = [((b * pairs.other[..., t, None]).unsqueeze(-1) * away).sum(2) for t in range(2)]
    return torch.cat(species, 2)


def forces(pairs: Pairs, weights: Tensor) -> Tensor:
    """Forces [worlds, agents, 3] of weights [worlds, agents, 20]."""
    return (weights.unsqueeze(-1) * vectors(pairs)).sum(2)


def pair_histogram(pairs: Pairs) -> Tensor:
    """Ordered pairs [worlds, 3, bins] by kind and distance."""
    worlds = len(pairs.distance)
    at = (pairs.distance.detach() / BIN).clamp(max=BINS).long()
    index = torch.where(at < BINS, pairs.kind * BINS + at, 3 * BINS).reshape(worlds, -1)
    histogram = pairs.distance.new_zeros(worlds, 3 * BINS + 1)
    histogram = histogram.scatter_add(1, index, torch.ones_like(index, dtype=histogram.dtype))
    return histogram[:, :-1].reshape(worlds, 3, BINS)


def rdf(count: Tensor, oxygen: Tensor, cell: Tensor) -> Tensor:
    """g(r) [worlds, 3, bins] of the ordered pairs of one frame."""
    o, h = oxygen.sum(-1), (1 - oxygen).sum(-1)
    pairs = torch.stack([o * (o - 1), 2 * o * h, h * (h - 1)], -1).clamp(min=1)
    edge = BIN * torch.arange(BINS + 1, dtype=count.dtype, device=count.device)
    shell = 4 / 3 * math.pi * (edge[1:] ** 3 - edge[:-1] ** 3)
    volume = (dot(torch.linalg.cross(cell[:, 0], cell[:, 1]), cell[:, 2])).abs()
    return count * (volume.unsqueeze(-1) / pairs).unsqueeze(-1) / shell


def masses(oxygen: Tensor) -> Tensor:
    """amu."""
    return MASS[False] + (MASS[True] - MASS[False]) * oxygen


def kernel_tables(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radial functions, broad ones, and limits of the observations, for a kernel."""
    limits = np.stack(observation_limits(system)).astype(float)
    centres, half_widths, gains = RADIAL
    broad_centres, broad_half_widths = np.array(BROAD).T
    radial = np.array([centres, 1 / half_widths, gains])
    return radial, np.array([broad_centres, 1 / broad_half_widths]), limits


def descriptor_bounds(n: int) -> dict[str, Bound]:
    """Limits of what `atom_descriptors` gives in a world of `n` atoms."""
    product = math.asinh(float(n * n))
    return {
        "oxygen": Bound(0, 1),
        "radial": Bound(0, math.log1p(n), 2 * N_FUNCTIONS),
        "along": Bound(-product, product, N_PRODUCTS),
        "angular": Bound(0, product, N_PRODUCTS),
    }


def atom_descriptors(oxygen: Tensor, pairs: Pairs) -> tuple[dict[str, Tensor], Tensor]:
    """Invariants that do not ask for velocities, and broad vectors [worlds, agents, 4, 3]."""
    c, h = torch.tensor(BROAD, dtype=torch.float64).mT.to(pairs.distance)
    b = bump(pairs.distance, c, h)
    broad = torch.cat([b * pairs.other[..., t, None] for t in range(2)], -1)
    first, second = moments(broad, pairs.direction)
    descriptors = {
        "oxygen": oxygen,
        "radial": torch.log1p(radial_descriptor(pairs)),
        "along": products(first),
        "angular": products(second),
    }
    return descriptors, first


class Transformation(NamedTuple):
    """How another observer sees vectors: turned by `turn` [worlds, 3, 3], moved, relabelled."""

    turn: Tensor
    shift: Tensor
    agents: Tensor | None = None

    def vectors(self, vector: Tensor) -> Tensor:
        return self.relabel(self.rotate(vector))

    def rotate(self, vector: Tensor) -> Tensor:
        return dot(vector.unsqueeze(-2), self.turn.unsqueeze(1))

    def relabel(self, rows: Tensor) -> Tensor:
        if self.agents is None:
            return rows
        index = self.agents if rows.ndim == 2 else self.agents.unsqueeze(-1).expand_as(rows)
        return rows.gather(1, index)


def symmetry_operations(
    position: Tensor, cell: Tensor, rng: Rng
) -> Iterator[tuple[str, Transformation]]:
    worlds, n = position.shape[:2]
    same = torch.eye(3, dtype=position.dtype, device=position.device).expand(worlds, 3, 3)
    unmoved = position.new_zeros(worlds, 1, 3)
    yield "relabel", Transformation(same, unmoved, torch.argsort(rng.uniform(worlds, n), -1))
    yield "translation", Transformation(same, 20 * rng.uniform(worlds, 1, 3) - 10)
    turn = torch.linalg.qr(rng.normal(worlds, 3, 3))[0]
    yield "rotation or reflection", Transformation(turn, unmoved)


def between_molecules() -> np.ndarray:
    """Flags [3, bins] of distances between molecules."""
    r = BIN * (np.arange(BINS) + 0.5)
    return (r > np.array(_BETWEEN_FROM)[:, None]).astype(float)
