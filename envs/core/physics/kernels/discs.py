"""Neighbours of discs in the plane: the k nearest within a cutoff, nearest first.

Selection is the cost, not arithmetic: squared distances of one row go to scratch in a loop that
vectorises, then a scan keeps the k nearest. In large worlds a counting-sort cell list replaces the
row, and the work is linear in the number of discs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...kernels.compiling import compiled, compiled_part
from .images import nearest_image_along as image

GRID_FROM = 128  # discs from which on a cell list is faster than all pairs
# Fused multiply-adds round once, in the same way in every batch.
disc_code = compiled(error_model="numpy", fastmath={"contract"})
disc_part = compiled_part(error_model="numpy", fastmath={"contract"})


class Rows(NamedTuple):
    """What a selection works on [agents]."""

    x: Any
    y: Any
    d2: Any  # squared distances
    near: Any  # who is within the cutoff
    rank: Any  # how many of those are nearer


def rows_of(n: int) -> Rows:
    """Memory for worlds of n discs."""
    return Rows(*np.empty((3, n)), *np.empty((2, n), np.int64))


@disc_part
def clip(value: float, low: float, high: float) -> float:
    """The value within limits."""
    return min(max(value, low), high)


@disc_part
def cutoff_in(cutoff: float, side: float) -> float:
    """The cutoff, or half the torus if that is less."""
    return min(cutoff, 0.5 * side) if side > 0.0 else cutoff


@disc_part
def select_all(
    position: Any, box: Any, cutoff: float, rows: Any, index: Any, start: int, stop: int
) -> None:
    """k nearest of every disc in the worlds from start to stop, by comparing all of a world.

    position [worlds, agents, 2], box [worlds, 1], rows: Rows; index [worlds, agents, k] is filled,
    with -1 for who is absent. Comparing all pairs of the few within the cutoff, without a branch,
    beats sorting them: the place of each is how many are nearer.
    """
    n, k = index.shape[1], index.shape[2]
    xs, ys, d2, near, rank = rows.x, rows.y, rows.d2, rows.near, rows.rank
    for w in range(start, stop):
        side = box[w, 0]
        inverse = 1.0 / side if side > 0.0 else 0.0
        cut2 = cutoff_in(cutoff, side) ** 2
        for i in range(n):
            xs[i], ys[i] = position[w, i, 0], position[w, i, 1]
        for i in range(n):
            x, y = xs[i], ys[i]
            for j in range(n):
                dx = image(xs[j] - x, side, inverse)
                dy = image(ys[j] - y, side, inverse)
                d2[j] = dx * dx + dy * dy
            d2[i] = np.inf
            count = 0
            for j in range(n):
                near[count] = j
                count += d2[j] < cut2
            for m in range(count):
                d2[m] = d2[near[m]]
                rank[m] = 0
            for m in range(count):
                for o in range(m):
                    nearer = d2[m] < d2[o]
                    rank[o] += nearer
                    rank[m] += not nearer
            for m in range(count):
                if rank[m] < k:
                    index[w, i, rank[m]] = near[m]
            for m in range(count, k):
                index[w, i, m] = -1


@disc_code
def _cell_list(position: Any, w: int, side: float, cells: int, index: Any) -> Any:
    """Counting sort of a world's discs by cell: starts, discs in order, and their places."""
    n = index.shape[1]
    scale = cells / side
    start = np.zeros(cells * cells + 1, np.int64)
    home = np.empty(n, np.int64)
    for i in range(n):
        cx = max(min(int(position[w, i, 0] * scale), cells - 1), 0)
        cy = max(min(int(position[w, i, 1] * scale), cells - 1), 0)
        home[i] = cy * cells + cx
        start[home[i] + 1] += 1
    for c in range(cells * cells):
        start[c + 1] += start[c]
    following = start[:-1].copy()
    order = np.empty(n, np.int64)
    xs, ys = np.empty(n), np.empty(n)
    for i in range(n):
        slot = following[home[i]]
        following[home[i]] += 1
        order[slot] = i
        xs[slot], ys[slot] = position[w, i, 0], position[w, i, 1]
    return start, order, xs, ys


@disc_code
def _select_in_cells(position: Any, w: int, side: float, cut: float, index: Any) -> None:
    """As `select_all`, for one world: only discs in the 3 x 3 cells around are compared."""
    k = index.shape[2]
    cells = max(int(side / cut), 1)
    start, order, xs, ys = _cell_list(position, w, side, cells, index)
    best = np.empty(k)
    cut2 = cut * cut
    inverse = 1.0 / side
    for cell in range(cells * cells):
        cy, cx = cell // cells, cell % cells
        for slot in range(start[cell], start[cell + 1]):
            i = order[slot]
            count = 0
            worst = cut2
            for oy in range(-1, 2):
                line = ((cy + oy + cells) % cells) * cells
                for ox in range(-1, 2):
                    other = line + (cx + ox + cells) % cells
                    for t in range(start[other], start[other + 1]):
                        dx = image(xs[t] - xs[slot], side, inverse)
                        dy = image(ys[t] - ys[slot], side, inverse)
                        d = dx * dx + dy * dy
                        if d >= worst or t == slot:
                            continue
                        m = count if count < k else k - 1
                        while m > 0 and best[m - 1] > d:
                            best[m] = best[m - 1]
                            index[w, i, m] = index[w, i, m - 1]
                            m -= 1
                        best[m] = d
                        index[w, i, m] = order[t]
                        count += count < k
                        if count == k:
                            worst = best[k - 1]
            for m in range(count, k):
                index[w, i, m] = -1


@disc_code
def select_by_cells(
    position: Any, box: Any, cutoff: float, rows: Any, index: Any, start: int, stop: int
) -> None:
    """As `select_all`, with a cell list where the torus is wide enough for one."""
    for w in range(start, stop):
        side = box[w, 0]
        cut = cutoff_in(cutoff, side)
        if side >= 3.0 * cut:
            _select_in_cells(position, w, side, cut, index)
        else:
            select_all(position, box, cutoff, rows, index, w, w + 1)


def nearest_discs(position: np.ndarray, box: np.ndarray, cutoff: float, k: int) -> np.ndarray:
    """The k nearest discs within the cutoff [worlds, agents, k], -1 where absent."""
    worlds, n, _ = position.shape
    index = np.empty((worlds, n, k), np.int32)
    search = search_all if n < GRID_FROM else search_by_cells
    search(position, box, cutoff, rows_of(n), index)
    return index


@disc_code
def search_all(position: Any, box: Any, cutoff: float, rows: Any, index: Any) -> None:
    """`select_all` in all worlds."""
    select_all(position, box, cutoff, rows, index, 0, len(position))


@disc_code
def search_by_cells(position: Any, box: Any, cutoff: float, rows: Any, index: Any) -> None:
    """`select_by_cells` in all worlds."""
    select_by_cells(position, box, cutoff, rows, index, 0, len(position))
