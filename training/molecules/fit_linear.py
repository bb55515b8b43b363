"""Losses inferred from forces by linear least squares.

Forces are linear in the coefficients of a loss, so a fit is one solve. Frames are visited once:
each adds its normal equations, so memory does not depend on how many there are. A ridge lambda is
added after scaling columns to unit length, those that the data hardly touch less: their
coefficients, which would be free to grow where nothing is sampled, stay small.

Threads share the frames of a batch and then the tiles of the normal equations, each of which is
summed in the order of the frames: a result does not depend on how many threads there are.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from ...envs.core.memory import require_memory
from ...envs.core.physics.kernels.neighbours import periodic_neighbours
from ...envs.molecules.forces import bonds_of
from ...envs.molecules.kernels.design import ChannelColumns, angular_columns, pair_columns
from ...envs.molecules.linear import (
    LossModel,
    Radial,
    RepulsiveWall,
    no_walls,
    offsets,
    radial_table,
    species_index,
)
from .frames import Frames, chosen, minimum_image, owners, widened

RIDGES = tuple(10.0 ** np.arange(-9, -1.9, 0.5))
CURVE_RIDGES = RIDGES[6:11:2]  # 1e-6, 1e-5, 1e-4: tried for the points of the learning curve
TOLERANCE = 1.02  # a larger ridge is preferred while validation stays within this of its best
ORDERS = {"pair": -1, "quadratic": 0, "angular": 3}
_GAP = 0.12  # Angstrom without a sample that parts a bond from what is not bonded
_BINS = 0.01
_PULL = 400.0  # eV/Angstrom^2, stiff enough to bury the hole that losses have beyond a bond
_FLOOR = 0.1  # of the median squared length of a column, added before scaling
_ROWS = 1152  # of the design matrix that are made before they are multiplied
_JUDGING = 0.4  # the work for a validation frame over that for a training frame
_TILE = 256  # columns of the normal equations that a thread takes at once
_SHORTEST = 0.01  # Angstrom of a stretch that radial functions are put in

Map = Callable[..., Any]  # as the built-in `map`, perhaps in threads


class Range(NamedTuple):
    """Distances between two species, Angstrom: the least, and the last of the bond (0: none)."""

    nearest: float
    bond: float


class Spacing(NamedTuple):
    """Where the centres of radial functions stand, Angstrom.

    before: the first, below the nearest distance that was sampled.  bond: how far beyond the bond
    its fine stretch goes, the step in it, and where the next stretch begins beyond the bond.
    stretches: (up to, step); the last goes up to the cutoff.
    """

    before: float
    bond: tuple[float, float, float]
    stretches: tuple[tuple[float, float], ...]


PAIR = Spacing(0.1, (0.12, 0.04, 0.15), ((2.5, 0.12), (3.5, 0.15), (np.inf, 0.35)))
QUADRATIC = Spacing(0.05, (0.1, 0.07, 0.2), ((2.4, 0.2), (np.inf, 0.45)))
ANGULAR = Spacing(0.0, (0.05, 0.07, 0.2), ((2.4, 0.22), (np.inf, 0.4)))


class Layout(NamedTuple):
    """Where the coefficients of a loss stand.

    pair [species, species, 2]: first column and number.  block [species, order + 1]: first column
    of each triangle M_ab, a <= b, row after row.  size: how many coefficients there are.
    """

    pair: np.ndarray
    block: np.ndarray
    size: int


class Solution(NamedTuple):
    """Coefficients [parameters] for a ridge lambda, and their training RMSE in eV/Angstrom."""

    ridge: float
    training: float
    weights: np.ndarray


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
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Fit:
    """Infer the losses of every species of `frames` from the split "train", judged on "val".

    loss: "pair", "quadratic" or "angular".  order: largest l of angular losses.
    fineness: channels per length, over the default.  threads: of the work, not of the result.
    progress: told the part of the work that is done.
    Raises ValueError for settings that leave nothing to fit.
    """
    for name, value in (
        ("pair_cutoff", pair_cutoff),
        ("angular_cutoff", angular_cutoff),
        ("fineness", fineness),
    ):
        if not 0 < value < np.inf:
            raise ValueError(f"{name}={value} must be above 0 and finite")
    if ridge is not None and not 0 < ridge < np.inf:
        raise ValueError(f"ridge={ridge} must be above 0 and finite")
    if len(frames.numbers) < 2:
        raise ValueError(f"{frames.source} holds one atom: there is none that could act on it")
    train, val = chosen(frames, "train"), chosen(frames, "val")
    known = tuple(sorted(set(map(int, frames.numbers))))
    order = ORDERS[loss] if order is None or loss != "angular" else order
    ranges = sampled_ranges(train, known, pair_cutoff)
    pair = make_radial(ranges, pair_cutoff, PAIR, 0.75, fineness)
    _require_functions(pair, ranges, "pair")
    far = pair_cutoff if order == 0 else angular_cutoff
    channels = make_radial(ranges, far, QUADRATIC if order == 0 else ANGULAR, 0.75, fineness)
    if order >= 0:
        _require_functions(channels, ranges, "pair" if order == 0 else "angular")
    size = _layout(pair, channels, order, len(known)).size
    require_memory(f"a fit of {size:,} coefficients", 8.0 * (3 + threads) * size**2)
    columns = Columns(pair, channels, order, shared, known)
    parts = _spread(len(train.positions))
    tried = [CURVE_RIDGES] * (len(parts) - 1) + [RIDGES]
    if ridge is not None:
        tried = [(ridge,)] * len(parts)
    solving = size / (9 * len(frames.numbers))  # the work for a ridge over that for a frame
    work_of_all = len(train.positions) + _JUDGING * len(val.positions)
    work_of_all += solving * sum(map(len, tried))
    done = 0.0

    def tick(work: float) -> None:
        nonlocal done
        done += work
        if progress is not None:
            progress(min(1.0, done / work_of_all))

    with _workers(threads) as work:
        sums = NormalEquations(columns)
        points: list[tuple[int, list[Solution]]] = []
        for part, ridges in zip(parts, tried, strict=True):
            sums.add(train, part, work, lambda: tick(1.0))
            points.append((sums.frames, sums.solve(ridges, work, lambda: tick(solving))))
        solutions = [solution for _, of_point in points for solution in of_point]
        errors = iter(validation_errors(columns, val, solutions, work, lambda: tick(_JUDGING)))
    judged = [
        (count, [(solution, next(errors)) for solution in of_point]) for count, of_point in points
    ]
    path = judged[-1][1]
    best = min(error for _, error in path)
    accepted = [solution for solution, error in path if error <= TOLERANCE * best][-1]
    model = columns.model(accepted.weights, _walls(train, known, ranges, shared))
    compared = CURVE_RIDGES if ridge is None else (ridge,)
    curve = [
        (count, min(error for solution, error in of_point if solution.ridge in compared))
        for count, of_point in judged
    ]
    rows = [(solution.ridge, solution.training, error) for solution, error in path]
    return Fit(model, accepted.ridge, size, rows, curve)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads for an operation within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _workers(threads: int) -> Iterator[Map]:
    """A `map` over `threads` threads, in each of which torch uses one."""
    with torch_threads(1):
        pool = ThreadPoolExecutor(threads) if threads > 1 else None
        try:
            yield map if pool is None else pool.map
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def _require_functions(radial: Radial, ranges: dict[tuple[int, int], Range], name: str) -> None:
    """ValueError unless some two atoms are near enough to act on each other."""
    if not sum(len(centres) for row in radial.centres for centres in row):
        nearest = min(seen.nearest for seen in ranges.values())
        raise ValueError(
            f"{name} cutoff {radial.cutoff:g} holds no two atoms: the nearest of the training "
            f"frames are {nearest:.3g} Angstrom apart; take more than {nearest + _SHORTEST:.3g}"
        )


class Columns:
    """The design matrix of a loss, frame by frame."""

    def __init__(
        self, pair: Radial, channels: Radial, order: int, shared: bool, known: tuple[int, ...]
    ) -> None:
        self.pair, self.channels, self.order = pair, channels, order
        self.shared, self.known = shared, known
        species = len(known)
        self.cutoff = max(pair.cutoff, channels.cutoff if order >= 0 else 0.0)
        self.layout = _layout(pair, channels, order, species)
        self._pair_table = radial_table(pair, species)
        self._channel_table = radial_table(channels, species)
        self._offset = offsets(channels)

    def fill(self, frames: Frames, frame: int, out: np.ndarray) -> None:
        """Put the design matrix of a frame, and its forces as the last column, into `out`.

        out [3 atoms, parameters + 1], contiguous.
        """
        x = np.ascontiguousarray(frames.positions[frame], float)
        near = periodic_neighbours(x, frames.cell[frame], self.cutoff)
        species = species_index(frames.numbers, self.known)
        rows = out.reshape(len(x), 3, -1)
        rows[:] = 0.0
        rows[:, :, -1] = frames.forces[frame]
        pair = (self._pair_table, self.layout.pair, self.pair.cutoff)
        if not pair_columns(x, near, species, *pair, self.shared, rows):
            split = frames.split[frame]
            raise ValueError(f"frame {frame} of split '{split}': two atoms stand at one place")
        if self.order >= 0:
            channels = ChannelColumns(
                self.order,
                self._channel_table,
                self._offset,
                self.layout.block,
                self.channels.cutoff,
            )
            angular_columns(x, near, species, channels, self.shared, rows)

    def model(self, weights: np.ndarray, walls: RepulsiveWall) -> LossModel:
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
                start = self.layout.block[s, degree]
                part = weights[start : start + len(rows)]
                blocks[degree, rows, columns] = part
                blocks[degree, columns, rows] = part
            matrices.append(blocks)
        kept = self.channels if self.order >= 0 else self.channels._replace(cutoff=0.0)
        return LossModel(
            self.known, self.shared, self.pair, pair, self.order, kept, tuple(matrices), walls
        )


class NormalEquations:
    """Sums over the force components of frames of columns by columns and by forces.

    frames: how many were added.  rows: how many components they have.
    """

    def __init__(self, columns: Columns) -> None:
        size = columns.layout.size + 1  # the forces are the last column
        self.columns, self.frames, self.rows = columns, 0, 0
        self._gram = torch.zeros(size, size, dtype=torch.float64)  # above and on the diagonal
        self._scaled = torch.empty(size - 1, size - 1, dtype=torch.float64)
        self._memory = threading.local()  # of each thread, for a factor
        edges = np.linspace(0, size, max(1, round(size / _TILE)) + 1).astype(int)
        panels = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self._tiles = [(a, b) for i, b in enumerate(panels) for a in panels[: i + 1]]

    def add(self, frames: Frames, which: np.ndarray, work: Map, tick: Callable[[], None]) -> None:
        """Add the frames `which`; `tick` is called for each."""
        height = 3 * len(frames.numbers)
        together = max(1, _ROWS // height)
        rows = np.empty((min(together, len(which)) * height, len(self._gram)))
        for first in range(0, len(which), together):
            batch = which[first : first + together]
            filled = rows[: len(batch) * height]
            parts = filled.reshape(len(batch), height, -1)
            _exhaust(work(partial(self.columns.fill, frames), batch, parts))
            _exhaust(work(partial(self._multiply, torch.from_numpy(filled)), self._tiles))
            self.frames += len(batch)
            self.rows += len(filled)
            for _ in batch:
                tick()

    def _multiply(self, rows: torch.Tensor, tile: tuple[slice, slice]) -> None:
        down, across = tile
        self._gram[down, across].addmm_(rows[:, down].T, rows[:, across])

    def solve(
        self, ridges: tuple[float, ...], work: Map, tick: Callable[[], None]
    ) -> list[Solution]:
        """The coefficients for every ridge that is large enough; ValueError if none is."""
        gram = self._gram.numpy()
        matrix, vector, square = gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1])
        weight = matrix.diagonal()
        if not weight.any():
            raise ValueError(
                "no coefficient of these losses moves an atom: within the cutoff of each there "
                "are only images of itself"
            )
        # Where most columns are empty, those that are not set the scale.
        typical = np.median(weight) or np.median(weight[weight > 0])
        scale = 1 / np.sqrt(weight + _FLOOR * typical)
        # In memory that is there: fresh pages cost as much as the work in them.
        np.multiply(matrix, scale, out=self._scaled.numpy())
        self._scaled.mul_(torch.from_numpy(scale)[:, None])
        wanted = scale * vector
        memory = self._memory

        def solve(ridge: float) -> Solution | None:
            if not hasattr(memory, "factor"):
                memory.factor = torch.empty_like(self._scaled)
                memory.failed = torch.empty((), dtype=torch.int32)
            # LAPACK's lower triangle, column after column, is our upper one, row after row.
            memory.factor.copy_(self._scaled).diagonal().add_(ridge)
            factor = memory.factor.mT
            torch.linalg.cholesky_ex(factor, out=(factor, memory.failed))
            if memory.failed:
                return None
            half = torch.from_numpy(wanted)[:, None]
            for triangle, upper in ((factor, False), (memory.factor, True)):
                half = torch.linalg.solve_triangular(triangle, half, upper=upper)
            z = half[:, 0].numpy()
            # z . (scaled + ridge) z = z . wanted
            missed = square - z @ wanted - ridge * (z @ z)
            training = float(np.sqrt(max(missed, 0.0) / self.rows))
            return Solution(float(ridge), training, scale * z)

        solutions = []
        for solution in work(solve, ridges):
            tick()
            if solution is not None:
                solutions.append(solution)
        if not solutions:
            raise ValueError(f"ridge={max(ridges):g} is too small to solve the normal equations")
        return solutions


def _exhaust(results: Any) -> None:
    """Wait for all results, and raise what was raised."""
    collections.deque(results, maxlen=0)


def validation_errors(
    columns: Columns,
    frames: Frames,
    solutions: list[Solution],
    work: Map,
    tick: Callable[[], None],
) -> list[float]:
    """Root mean square error of a force component of `frames` for each solution, eV/Angstrom."""
    weights = torch.from_numpy(np.stack([solution.weights for solution in solutions], 1))

    def squares(frame: int) -> np.ndarray:
        rows = np.empty((3 * len(frames.numbers), columns.layout.size + 1))
        columns.fill(frames, frame, rows)
        design = torch.from_numpy(rows)
        error = design[:, :-1] @ weights - design[:, -1:]
        result: np.ndarray = (error * error).sum(0).numpy()
        return result

    total = np.zeros(len(solutions))
    for squared_errors in work(squares, range(len(frames.positions))):
        total += squared_errors
        tick()
    return [float(v) for v in np.sqrt(total / frames.forces.size)]


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
    spacing: Spacing,
    width: float,
    fineness: float,
) -> Radial:
    """Gaussians as wide as `width` times their spacing; none for species that never meet."""
    known = sorted({a for a, _ in ranges})
    centres, widths = [], []
    for a in known:
        row = [radial_centres(ranges[a, b], cutoff, spacing, fineness) for b in known]
        centres.append(tuple(row))
        widths.append(tuple(width * np.gradient(c) if len(c) else c for c in row))
    return Radial(cutoff, tuple(centres), tuple(widths))


def radial_centres(
    seen: Range, cutoff: float, spacing: Spacing, fineness: float = 1.0
) -> np.ndarray:
    """Rising centres below the cutoff, two at least; none where nothing was seen within it."""
    start, parts = seen.nearest - spacing.before, []
    if seen.nearest >= cutoff:
        return np.zeros(0)
    if seen.bond:
        beyond, step, gap = spacing.bond
        parts.append(_line(start, min(seen.bond + beyond, cutoff), step, fineness))
        start = seen.bond + gap
    for high, step in spacing.stretches:
        end = min(high, cutoff)
        if end - start >= _SHORTEST:
            parts.append(_line(start, end, step, fineness))
            start = end
    return np.concatenate(parts) if parts else np.zeros(0)


def _line(low: float, high: float, step: float, fineness: float) -> np.ndarray:
    """Centres from low up to, not including, high."""
    return np.linspace(low, high, max(2, round((high - low) / step * fineness)), endpoint=False)


def _layout(pair: Radial, channels: Radial, order: int, species: int) -> Layout:
    place = np.zeros((species, species, 2), np.int64)
    at = 0
    for s in range(species):
        for t in range(species):
            place[s, t] = at, len(pair.centres[s][t])
            at += len(pair.centres[s][t])
    block = np.zeros((species, max(order, 0) + 1), np.int64)
    for s in range(species):
        many = sum(map(len, channels.centres[s]))
        for degree in range(order + 1):
            block[s, degree] = at
            at += many * (many + 1) // 2
    return Layout(place, block, at)


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
) -> RepulsiveWall:
    """Walls just inside the smallest sampled distances, and on bonds beyond the longest."""
    walls = no_walls(len(known))
    for a, first in enumerate(known):
        for b, second in enumerate(known):
            nearest = ranges[first, second].nearest
            walls.nearest[a, b] = 0.98 * nearest
            walls.stiffness[a, b] = 200.0 if nearest < 1.2 else 60.0
    if not len(bonds_of(frames.numbers, owners(frames))):
        return walls
    longest = ranges[1, 8].bond
    return walls._replace(longest=longest, pull=_PULL if longest else 0.0)
