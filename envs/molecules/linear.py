"""Losses of invariants that agents of a few species share: pair, quadratic and angular.

L_i = sum_j p_st(r_ij) + 1/2 sum_l sum_ab M^l_s,ab A^l_ia . A^l_ib, as in `kernels/angular.py`,
whose compiled forces this module wraps; `agent_losses` is the differentiable twin. `order` is the
largest l: -1 for pair losses, 0 for quadratic ones in radial invariants alone.

Energies in eV, lengths in Angstrom. The form follows the idea of Gusev and Vanchurin, "Molecular
Learning Dynamics" (arXiv 2504.10560), of which only the abstract was available: the radial
functions, the angular terms, the walls and all numbers are ours. Moments with monomials are as in
the moment tensor potentials of Shapeev, Multiscale Model. Simul. 14, 1153 (2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core import renamed
from ..core.physics.cell import nearest_image, require_cutoff
from ..core.physics.kernels.neighbours import NeighbourList
from .kernels import angular as kernels
from .network import monomials

INTERVALS = 768  # of a spline from 0 to the cutoff
SKIN = 0.8  # Angstrom
_START = (0, 1, 4, 10, 20)


class Radial(NamedTuple):
    """Gaussians exp(-(r - c)^2 / (2 w^2)) (1 - r^2 / cutoff^2)^3, by species and neighbour's.

    centres, widths [species][species] -> [functions], Angstrom.
    """

    cutoff: float
    centres: tuple[tuple[np.ndarray, ...], ...]
    widths: tuple[tuple[np.ndarray, ...], ...]


class RepulsiveWall(NamedTuple):
    """Harmonic walls where the data are silent.

    nearest, stiffness [species, species]: 1/2 k (nearest - r)^2 per pair below `nearest`; 0: none.
    longest, pull: 1/2 pull (r - longest)^2 on the bonds of molecules above `longest`; 0: none.
    """

    nearest: np.ndarray
    stiffness: np.ndarray
    longest: float
    pull: float


class LossModel(NamedTuple):
    """Inferred losses; see the module.

    numbers: atomic numbers of the species, rising.  shared: whether an agent follows the sum of all
    losses rather than its own.  pair_weights [species][species] -> [functions], eV.
    matrices [species] -> [order + 1, channels, channels], eV, symmetric.
    constant: eV per agent, so that energies of the data are met.
    """

    numbers: tuple[int, ...]
    shared: bool
    pair: Radial
    pair_weights: tuple[tuple[np.ndarray, ...], ...]
    order: int
    channels: Radial
    matrices: tuple[np.ndarray, ...]
    walls: RepulsiveWall
    constant: float = 0.0


class Tables(NamedTuple):
    """A model as the kernels take it, in one floating-point type for the moments."""

    pair: np.ndarray  # [species, species, intervals, 4]
    channel: np.ndarray  # [species, species, intervals, 4, channels]
    offset: np.ndarray  # [species, species + 1]
    matrix: np.ndarray  # [species, channels, channels, monomials]


def no_walls(species: int) -> RepulsiveWall:
    """Walls that are not there."""
    return RepulsiveWall(np.zeros((species, species)), np.zeros((species, species)), 0.0, 0.0)


def radial_values(radial: Radial, s: int, t: int, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and slopes [len(r), functions] of the radial functions."""
    centre, width = radial.centres[s][t], radial.widths[s][t]
    u = (r[:, None] - centre) / width
    phi = np.exp(-0.5 * u * u)
    x = np.minimum(r / radial.cutoff, 1.0)[:, None]
    window = (1 - x * x) ** 3
    slope = -6 * x * (1 - x * x) ** 2 / radial.cutoff
    return phi * window, phi * (slope - window * u / width)


def spline(value: np.ndarray, slope: np.ndarray, step: float) -> np.ndarray:
    """Hermite coefficients [intervals, 4, ...] from values and slopes [intervals + 1, ...]."""
    a, b = value[:-1], value[1:]
    da, db = step * slope[:-1], step * slope[1:]
    return np.stack([a, da, 3 * (b - a) - 2 * da - db, 2 * (a - b) + da + db], 1)


def radial_table(radial: Radial, species: int, intervals: int = INTERVALS) -> np.ndarray:
    """Splines [species, species, intervals, 4, functions] of the functions, padded with zeros."""
    most = 4 * -(-max(len(c) for row in radial.centres for c in row) // 4)
    table = np.zeros((species, species, intervals, 4, most))
    r = np.linspace(0, radial.cutoff, intervals + 1)
    for s in range(species):
        for t in range(species):
            coefficients = spline(*radial_values(radial, s, t, r), r[1])
            table[s, t, :, :, : coefficients.shape[2]] = coefficients
    return table


def offsets(radial: Radial) -> np.ndarray:
    """Where the channels of each neighbour species start [species, species + 1]."""
    sizes = [[0, *(len(c) for c in row)] for row in radial.centres]
    return np.cumsum(sizes, 1)


def tables(model: LossModel, dtype: type = np.float64) -> Tables:
    """The model as splines; walls below the sampled distances go into the pair functions."""
    species = len(model.numbers)
    functions = radial_table(model.pair, species)
    pair = np.zeros(functions.shape[:4])
    r = np.linspace(0, model.pair.cutoff, INTERVALS + 1)
    for s in range(species):
        for t in range(species):
            weights = model.pair_weights[s][t]
            pair[s, t] = functions[s, t, :, :, : len(weights)] @ weights
            inside = np.maximum(model.walls.nearest[s, t] - r, 0.0)
            half = (0.5 if model.shared else 1.0) * model.walls.stiffness[s, t]
            pair[s, t] += spline(0.5 * half * inside**2, -half * inside, r[1])
    if model.order < 0:
        empty: np.ndarray = np.zeros((species, species, 1, 4, 1), dtype)
        return Tables(pair, empty, np.zeros((species, species + 1), np.int64), empty[:, :, 0])
    offset = offsets(model.channels)
    size = int(offset[:, -1].max())
    used = _START[model.order + 1]
    matrix = np.zeros((species, size, size, 4 * -(-used // 4)))
    for s, blocks in enumerate(model.matrices):
        many = blocks.shape[1]
        for degree in range(model.order + 1):
            spread = slice(_START[degree], _START[degree + 1])
            matrix[s, :many, :many, spread] = blocks[degree][:, :, None]
    channel = radial_table(model.channels, species)
    return Tables(pair, channel.astype(dtype), offset, matrix.astype(dtype))


def pair_force(model: LossModel, s: int, t: int, r: np.ndarray) -> np.ndarray:
    """Force on an agent of species s along the line from a neighbour of species t, + pushed away.

    Shared losses pull on an agent twice: by its own and by its neighbour's.
    """
    force = -radial_values(model.pair, s, t, r)[1] @ model.pair_weights[s][t]
    if model.shared:
        force = force - radial_values(model.pair, t, s, r)[1] @ model.pair_weights[t][s]
    return force


def interaction_cutoff(model: LossModel) -> float:
    """The largest distance at which two agents act on each other directly, Angstrom."""
    return max(model.pair.cutoff, model.channels.cutoff if model.order >= 0 else 0.0)


def species_index(numbers: np.ndarray, known: tuple[int, ...]) -> np.ndarray:
    """Position [atoms] of each atomic number among the model's species; ValueError for others."""
    strange = sorted(set(map(int, numbers)) - set(known))
    if strange:
        raise ValueError(f"numbers={strange} are not among the model's species {list(known)}")
    return np.searchsorted(known, numbers).astype(np.int64)


class LossForces:
    """Compiled forces of a batch of worlds that share atoms and model: position -> forces, losses.

    cell [worlds, 3, 3].  numbers [atoms].  bonds [m, 2]: pairs that the outer wall holds together.
    dtype: of the arithmetic on moments, float64 or float32.
    """

    def __init__(
        self,
        model: LossModel,
        cell: np.ndarray,
        numbers: np.ndarray,
        *,
        bonds: np.ndarray | None = None,
        dtype: type = np.float64,
        skin: float = SKIN,
    ) -> None:
        self.model, self.numbers = model, np.asarray(numbers)
        self._species = species_index(self.numbers, model.numbers)
        self._tables = tables(model, dtype)
        self._channels = kernels.Channels(
            model.order,
            self._tables.channel,
            self._tables.offset,
            self._tables.matrix,
            (0,) * self._tables.matrix.shape[3],
            (0,) * self._tables.channel.shape[4],
            model.channels.cutoff,
        )
        far = interaction_cutoff(model)
        for box in cell:
            require_cutoff(far, box)
        roomy = min(skin, 0.1 * far + 0.4)
        self.neighbours = NeighbourList(cell, len(numbers), far, roomy)
        held = bonds if bonds is not None and model.walls.pull > 0 else np.zeros((0, 2))
        self._bonds = np.ascontiguousarray(held, np.int64)

    def __call__(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forces [worlds, atoms, 3] in eV/Angstrom and losses [worlds, atoms] in eV."""
        model, near, table = self.model, self.neighbours, self._tables
        near.update(position)
        force, loss = np.empty_like(position), np.empty(position.shape[:2])
        arrays, species, shared = near.arrays, self._species, model.shared
        cutoff = model.pair.cutoff
        kernels.pair_losses(position, arrays, species, table.pair, cutoff, shared, force, loss)
        if model.order >= 0:
            channels = self._channels
            kernels.angular_losses(position, arrays, species, channels, shared, force, loss)
        loss += model.constant
        if len(self._bonds):
            longest, pull = model.walls.longest, model.walls.pull
            kernels.bond_walls(position, arrays, self._bonds, longest, pull, force, loss)
        return force, loss

    def forget(self) -> None:
        """Build the neighbour lists anew next time, so that a resumed run is the same run."""
        self.neighbours.forget()

    @property
    def built(self) -> np.ndarray:
        """Positions [worlds, n, 3] at which the neighbour lists were built."""
        return self.neighbours.built

    def rebuild(self, built: np.ndarray) -> None:
        """Build the lists of those positions; inf: of none yet."""
        self.neighbours.rebuild(built)


def agent_losses(model: LossModel, position: Tensor, cell: Tensor, numbers: np.ndarray) -> Tensor:
    """Losses [worlds, atoms] in eV at positions [worlds, atoms, 3], cell [worlds, 3, 3].

    All pairs; differentiable in the positions; walls on bonds are left out.
    """
    species = species_index(numbers, model.numbers)
    table = tables(model)
    r = nearest_image(position.unsqueeze(1) - position.unsqueeze(2), cell[:, None, None])
    worlds, n = position.shape[:2]
    loss = position.new_full((worlds, n), model.constant)
    for s in range(len(model.numbers)):
        rows = torch.from_numpy(np.flatnonzero(species == s))
        moments = []
        for t in range(len(model.numbers)):
            columns = torch.from_numpy(np.flatnonzero(species == t))
            vectors = r[:, rows][:, :, columns]
            own = rows[:, None] == columns
            safe = torch.where(own[..., None], torch.full_like(vectors, 1e3), vectors)
            d = torch.linalg.vector_norm(safe, dim=-1)
            pair = torch.from_numpy(table.pair[s, t])[..., None]
            loss = loss.index_add(1, rows, _splined(pair, model.pair.cutoff, d)[..., 0].sum(-1))
            if model.order >= 0:
                many = len(model.channels.centres[s][t])
                splines = torch.from_numpy(table.channel[s, t, :, :, :many])
                g = _splined(splines, model.channels.cutoff, d)
                y = monomials(safe / d.unsqueeze(-1))
                moments.append(torch.einsum("wijc,wijm->wicm", g, y))
        if model.order >= 0:
            a = torch.cat(moments, 2)
            for degree, block in enumerate(model.matrices[s]):
                moment = a[..., _START[degree] : _START[degree + 1]]
                energy = 0.5 * (moment * (torch.from_numpy(block) @ moment)).sum((-1, -2))
                loss = loss.index_add(1, rows, energy)
    return loss


def _splined(table: Tensor, cutoff: float, d: Tensor) -> Tensor:
    """Splines [intervals, 4, c] at distances d [...]: [..., c], zero beyond the cutoff."""
    u = d * (len(table) / cutoff)
    at = u.detach().clamp(max=len(table) - 1).long()
    f = (u - at).unsqueeze(-1)
    q = table[at]
    value = q[..., 0, :] + f * (q[..., 1, :] + f * (q[..., 2, :] + f * q[..., 3, :]))
    return torch.where((d < cutoff).unsqueeze(-1), value, torch.zeros_like(value))


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return renamed.former_name(__name__, name)
