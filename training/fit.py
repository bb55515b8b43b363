"""Losses inferred from forces by linear least squares.

Forces are linear in the coefficients of a loss, so a fit is one solve. Frames are visited once:
each adds its normal equations, so memory does not depend on how many there are. A ridge lambda is
added after scaling columns to unit length, those that the data hardly touch less: their
coefficients, which would be free to grow where nothing is sampled, stay small.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ..agents.losses import (
    LossModel,
    Radial,
    Walls,
    kinds_of,
    no_walls,
    offsets,
    radial_table,
)
from ..envs.kernels.losses import angular_columns, pair_columns
from ..envs.kernels.neighbours import NeighbourList
from .frames import Frames, chosen, minimum_image, owners, widened

RIDGES = tuple(10.0 ** np.arange(-9, -1.9, 0.5))
TOLERANCE = 1.02  # a larger ridge is preferred while validation stays within this of its best
ORDERS = {"pair": -1, "quadratic": 0, "angular": 3}
_GAP = 0.12  # Angstrom without a sample that parts a bond from what is not bonded
_BINS = 0.01
_PULL = 400.0  # eV/Angstrom^2, stiff enough to bury the hole that losses have beyond a bond
_FLOOR = 0.1  # of the median squared length of a column, added before scaling


class Range(NamedTuple):
    """Distances between two species, Angstrom: the least, and the last of the bond (0: none)."""

    nearest: float
    bond: float


class Layout(NamedTuple):
    """Where the coefficients of a loss stand.

    pair [species, species, 2]: first column and number.  block [species, order + 1]: first column
    of each square block before folding.  folded [species, order + 1]: and after.
    """

    pair: np.ndarray
    block: np.ndarray
    folded: np.ndarray
    size: int
    wide: int


class Normal(NamedTuple):
    """Sums over force components: columns by columns, by forces, squared forces; and how many."""

    matrix: np.ndarray
    vector: np.ndarray
    square: float
    rows: int


class Fit(NamedTuple):
    """An inferred model and how it was found.

    ridge: of the model.  ridges: (lambda, training RMSE, validation RMSE) tried, eV/Angstrom.
    curve: (frames, validation RMSE) with the first part of the frames, spread over the block.
    """

    model: LossModel
    ridge: float
    parameters: int
    ridges: list[tuple[float, float, float]]
    curve: list[tuple[int, float]]


def fit_losses(
    frames: Frames,
    *,
    loss: str,
    shared: bool,
    pair_cutoff: float = 6.0,
    angular_cutoff: float = 4.5,
    order: int | None = None,
    fineness: float = 1.0,
    ridge: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Infer the losses of every species of `frames` from the split "train", judged on "val".

    loss: "pair", "quadratic" or "angular".  order: largest l of angular losses.
    fineness: channels per length, over the default.
    """
    train, val = chosen(frames, "train"), chosen(frames, "val")
    known = tuple(sorted(set(map(int, frames.numbers))))
    order = ORDERS[loss] if order is None or loss != "angular" else order
    ranges = sampled_ranges(train, known, pair_cutoff)
    pair = make_radial(ranges, pair_cutoff, _pair_centres, 0.75, fineness)
    far = pair_cutoff if order == 0 else angular_cutoff
    spacing = _radial_centres if order == 0 else _angular_centres
    channels = make_radial(ranges, far, spacing, 0.75, fineness)
    work = Columns(pair, channels, order, shared, known)
    steps = len(train.positions) + len(val.positions)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    held = work.normal(val, np.arange(len(val.positions)), tick)
    parts = _spread(len(train.positions))
    sums, curve = None, []
    for part in parts:
        more = work.normal(train, part, tick)
        sums = more if sums is None else _added(sums, more)
        seen = round(sums.rows * len(val.positions) / held.rows)
        tried = _ridge_path(sums, held, [ridge] if ridge is not None else [1e-6, 1e-5, 1e-4])
        curve.append((seen, min(error for *_, error, _ in tried)))
    assert sums is not None
    tried = _ridge_path(sums, held, RIDGES if ridge is None else [ridge])
    best = min(error for _, _, error, _ in tried)
    kept = [one for one in tried if one[2] <= TOLERANCE * best][-1]
    model = work.model(kept[3], _walls(train, known, ranges, shared))
    return Fit(model, kept[0], work.layout.size, [one[:3] for one in tried], curve)


class Columns:
    """The design matrix of a loss, frame by frame."""

    def __init__(
        self, pair: Radial, channels: Radial, order: int, shared: bool, known: tuple[int, ...]
    ) -> None:
        self.pair, self.channels, self.order = pair, channels, order
        self.shared, self.known = shared, known
        species = len(known)
        self.layout = _layout(pair, channels, order, species)
        self._pair_table = radial_table(pair, species)
        self._channel_table = radial_table(channels, species)
        self._offset = offsets(channels)

    def normal(self, frames: Frames, which: np.ndarray, tick: Callable[[], None]) -> Normal:
        """Normal equations of some frames."""
        size = self.layout.size
        total = Normal(np.zeros((size, size)), np.zeros(size), 0.0, 0)
        for design, force in self.each(frames, which):
            total.matrix[:] += design.T @ design
            total.vector[:] += design.T @ force
            total = total._replace(
                square=total.square + float(force @ force), rows=total.rows + len(force)
            )
            tick()
        return total

    def each(self, frames: Frames, which: np.ndarray) -> Any:
        """Design matrix [3 atoms, parameters] and forces [3 atoms] of each frame."""
        cut = max(self.pair.cutoff, self.channels.cutoff if self.order >= 0 else 0.0)
        position, cell, numbers = widened(frames.part(which), cut)
        species = kinds_of(numbers, self.known)
        near = NeighbourList(cell[:1], len(numbers), cut, 0.0)
        atoms = frames.positions.shape[1]
        out = np.empty((len(numbers), 3, self.layout.wide))
        for k, frame in enumerate(which):
            near = NeighbourList(cell[k : k + 1], len(numbers), cut, 0.0)
            near.update(position[k : k + 1])
            x = position[k]
            out[:] = 0.0
            where = (x, near.cell[0], near.inverse[0], near.index[0], near.count[0], species)
            pair_columns(
                *where, self._pair_table, self.layout.pair, self.pair.cutoff, self.shared, out
            )
            if self.order >= 0:
                angular_columns(
                    *where,
                    self.order,
                    self._channel_table,
                    self._offset,
                    self.layout.block,
                    self.channels.cutoff,
                    self.shared,
                    out,
                )
            yield self._fold(out[:atoms].reshape(3 * atoms, -1)), frames.forces[frame].ravel()

    def model(self, weights: np.ndarray, walls: Walls) -> LossModel:
        """The loss that these coefficients [parameters] make."""
        species = len(self.known)
        place = self.layout.pair
        pair = tuple(
            tuple(weights[place[s, t, 0] : place[s, t].sum()].copy() for t in range(species))
            for s in range(species)
        )
        matrices = []
        for s in range(species if self.order >= 0 else 0):
            many = int(self._offset[s, -1])
            rows, columns = np.triu_indices(many)
            blocks = np.zeros((self.order + 1, many, many))
            for degree in range(self.order + 1):
                start = self.layout.folded[s, degree]
                part = weights[start : start + len(rows)]
                blocks[degree, rows, columns] = part
                blocks[degree, columns, rows] = part
            matrices.append(blocks)
        kept = self.channels if self.order >= 0 else self.channels._replace(cutoff=0.0)
        return LossModel(
            self.known, self.shared, self.pair, pair, self.order, kept, tuple(matrices), walls
        )

    def _fold(self, wide: np.ndarray) -> np.ndarray:
        """Columns of M_ab and M_ba become one."""
        if self.order < 0:
            return wide
        layout, out = self.layout, np.empty((len(wide), self.layout.size))
        pairs = int(layout.block[0, 0])
        out[:, :pairs] = wide[:, :pairs]
        for s in range(len(self.known)):
            many = int(self._offset[s, -1])
            rows, columns = np.triu_indices(many)
            for degree in range(self.order + 1):
                start = layout.block[s, degree]
                block = wide[:, start : start + many * many].reshape(-1, many, many)
                part = block[:, rows, columns]
                part[:, rows != columns] += block[:, columns, rows][:, rows != columns]
                to = layout.folded[s, degree]
                out[:, to : to + len(rows)] = part
        return out


def sampled_ranges(
    frames: Frames, known: tuple[int, ...], cutoff: float
) -> dict[tuple[int, int], Range]:
    """What distances occur between each two species; a gap in them tells bonds from the rest."""
    edges = np.arange(0.0, cutoff + _BINS, _BINS)
    seen = {(a, b): np.zeros(len(edges) - 1) for a in known for b in known}
    least = {pair: np.inf for pair in seen}
    last = {pair: 0.0 for pair in seen}
    position, cell, numbers = widened(frames, min(cutoff, 3.0))
    upper = {}
    for a in known:
        for b in known:
            upper[a, b] = np.ix_(np.flatnonzero(numbers == a), np.flatnonzero(numbers == b))
    for x, h in zip(position, cell, strict=True):
        d = np.sqrt((minimum_image(x[:, None] - x, h) ** 2).sum(-1))
        np.fill_diagonal(d, np.inf)
        for pair, where in upper.items():
            part = d[where]
            if not part.size:
                continue
            seen[pair] += np.histogram(part, edges)[0]
            least[pair] = min(least[pair], float(part.min()))
            low = part[part < 0.5 * (last[pair] + 3.0)]
            last[pair] = max(last[pair], float(low.max(initial=0.0)))
    found = {}
    for pair, counts in seen.items():
        filled = np.flatnonzero(counts)
        nearest = least[pair] if np.isfinite(least[pair]) else cutoff
        wide = np.flatnonzero(np.diff(filled) * _BINS > _GAP)
        bond = float(edges[filled[wide[0]] + 1]) if len(wide) else 0.0
        found[pair] = Range(float(nearest), bond if bond < 0.5 * cutoff else 0.0)
    return found


def make_radial(
    ranges: dict[tuple[int, int], Range],
    cutoff: float,
    spacing: Callable[[Range, float, float], np.ndarray],
    width: float,
    fineness: float,
) -> Radial:
    """Gaussians as wide as `width` times their spacing."""
    known = sorted({a for a, _ in ranges})
    centres, widths = [], []
    for a in known:
        row = [spacing(ranges[a, b], cutoff, fineness) for b in known]
        centres.append(tuple(row))
        widths.append(tuple(width * np.gradient(c) for c in row))
    return Radial(cutoff, tuple(centres), tuple(widths))


def _line(low: float, high: float, step: float, fineness: float) -> np.ndarray:
    """Centres from low up to, not including, high."""
    return np.linspace(low, high, max(2, round((high - low) / step * fineness)), endpoint=False)


def _pair_centres(seen: Range, cutoff: float, fineness: float) -> np.ndarray:
    start, parts = seen.nearest - 0.1, []
    if seen.bond:
        parts.append(_line(start, seen.bond + 0.12, 0.04, fineness))
        start = seen.bond + 0.15
    if start < 2.5:
        parts.append(_line(start, 2.5, 0.12, fineness))
        start = 2.5
    if start < 3.5:
        parts.append(_line(start, 3.5, 0.15, fineness))
        start = 3.5
    parts.append(_line(start, cutoff, 0.35, fineness))
    return np.concatenate(parts)


def _radial_centres(seen: Range, cutoff: float, fineness: float) -> np.ndarray:
    start, parts = seen.nearest - 0.05, []
    if seen.bond:
        parts.append(_line(start, seen.bond + 0.1, 0.07, fineness))
        start = seen.bond + 0.2
    if start < 2.4:
        parts.append(_line(start, 2.4, 0.2, fineness))
        start = 2.4
    parts.append(_line(start, cutoff, 0.45, fineness))
    return np.concatenate(parts)


def _angular_centres(seen: Range, cutoff: float, fineness: float) -> np.ndarray:
    start, parts = seen.nearest, []
    if seen.bond:
        parts.append(_line(start, seen.bond + 0.05, 0.07, fineness))
        start = seen.bond + 0.2
    if start < 2.4:
        parts.append(_line(start, 2.4, 0.22, fineness))
        start = 2.4
    parts.append(_line(start, cutoff, 0.4, fineness))
    return np.concatenate(parts)


def _layout(pair: Radial, channels: Radial, order: int, species: int) -> Layout:
    place = np.zeros((species, species, 2), np.int64)
    at = 0
    for s in range(species):
        for t in range(species):
            place[s, t] = at, len(pair.centres[s][t])
            at += len(pair.centres[s][t])
    block = np.zeros((species, max(order, 0) + 1), np.int64)
    folded = block.copy()
    wide = at
    for s in range(species):
        many = sum(map(len, channels.centres[s]))
        for degree in range(order + 1):
            block[s, degree], folded[s, degree] = wide, at
            wide += many * many
            at += many * (many + 1) // 2
    return Layout(place, block, folded, at, wide)


def _spread(frames: int) -> list[np.ndarray]:
    """The frames in parts, each spread over the whole, the sums of parts doubling."""
    ends = [frames]
    while ends[-1] > 8:
        ends.append(ends[-1] // 2)
    ends = [0, *reversed(ends)]
    # Multiples of the golden ratio fall evenly into an interval, whatever their number.
    golden = (int(frames * (k * 0.6180339887498949 % 1.0)) for k in range(4 * frames))
    visited = list(dict.fromkeys([*golden, *range(frames)]))
    return [np.array(visited[a:b]) for a, b in itertools.pairwise(ends) if b > a]


def _added(a: Normal, b: Normal) -> Normal:
    a.matrix[:] += b.matrix
    a.vector[:] += b.vector
    return Normal(a.matrix, a.vector, a.square + b.square, a.rows + b.rows)


def _ridge_path(
    sums: Normal, held: Normal, ridges: Any
) -> list[tuple[float, float, float, np.ndarray]]:
    """(lambda, training RMSE, validation RMSE, coefficients) for each lambda."""
    weight = sums.matrix.diagonal()
    scale = 1 / np.sqrt(weight + _FLOOR * np.median(weight))
    scaled = sums.matrix * scale * scale[:, None]
    found = []
    for ridge in ridges:
        system = torch.from_numpy(scaled + ridge * np.eye(len(scaled)))
        factor, failed = torch.linalg.cholesky_ex(system)
        if failed:
            continue
        wanted = torch.from_numpy(scale * sums.vector)[:, None]
        solved = torch.cholesky_solve(wanted, factor)[:, 0].numpy()
        weights = scale * solved
        found.append((float(ridge), rmse(sums, weights), rmse(held, weights), weights))
    if not found:
        raise ValueError(f"ridge={list(ridges)} is too small to solve the normal equations")
    return found


def rmse(sums: Normal, weights: np.ndarray) -> float:
    """Root mean square error of a force component, eV/Angstrom."""
    square = weights @ (sums.matrix @ weights) - 2 * weights @ sums.vector + sums.square
    return float(np.sqrt(max(square, 0.0) / sums.rows))


def walls_alone(frames: Frames) -> LossModel:
    """A model without weights that holds the walls around what the data sampled."""
    known = tuple(sorted(set(map(int, frames.numbers))))
    train = chosen(frames, "train")
    none = tuple(tuple(np.zeros(0) for _ in known) for _ in known)
    walls = _walls(train, known, sampled_ranges(train, known, 6.0), True)
    return LossModel(
        known, True, Radial(4.0, none, none), none, -1, Radial(0.0, none, none), (), walls
    )


def _walls(
    frames: Frames, known: tuple[int, ...], ranges: dict[tuple[int, int], Range], shared: bool
) -> Walls:
    """Walls just inside the smallest sampled distances, and on bonds beyond the longest."""
    walls = no_walls(len(known))
    for a, first in enumerate(known):
        for b, second in enumerate(known):
            nearest = ranges[first, second].nearest
            walls.nearest[a, b] = 0.98 * nearest
            walls.stiffness[a, b] = 200.0 if nearest < 1.2 else 60.0
    if owners(frames) is None:
        return walls
    longest = ranges[1, 8].bond
    return walls._replace(longest=longest, pull=_PULL if longest else 0.0)
