"""Discs of the open plane: who is nearest, and how close two came on the way; compiled.

Small worlds compare all pairs; from `GRID_FROM` discs on a counting sort by cells keeps the work
linear in the number of discs, however they lie.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.physics.kernels.discs import GRID_FROM, Rows, disc_code, disc_part, rows_of

_PER_CELL = 4.0  # discs in a cell, where they lie evenly


class Cells(NamedTuple):
    """Discs of one world by square cells."""

    start: Any  # [cells + 1] first place of each cell in `order`
    order: Any  # [agents] discs, cell by cell
    x: Any  # [agents] their positions in that order
    y: Any
    columns: int
    rows: int
    left: float
    bottom: float
    side: float  # of a cell


@disc_part
def nearest_of_all(position: Any, w: int, cutoff: float, rows: Rows, index: Any) -> None:
    """The k nearest of every disc of world w within the cutoff: index[w] [agents, k], -1 for none.

    What index[w] holds may be anything that was written here before: discs that were near before
    bound how far the nearest can be, which leaves few to be compared.
    """
    n, k = index.shape[1], index.shape[2]
    xs, ys, d2, near, rank = rows.x, rows.y, rows.d2, rows.near, rows.rank
    for i in range(n):
        xs[i], ys[i] = position[w, i, 0], position[w, i, 1]
    for i in range(n):
        x, y = xs[i], ys[i]
        for j in range(n):
            dx, dy = xs[j] - x, ys[j] - y
            d2[j] = dx * dx + dy * dy
        d2[i] = np.inf
        limit = cutoff * cutoff
        if k > 0 and index[w, i, k - 1] >= 0:
            farthest = 0.0
            for m in range(k):
                farthest = max(farthest, d2[index[w, i, m]])
            limit = min(limit, np.nextafter(farthest, np.inf))
        count = 0
        for j in range(n):
            near[count] = j
            count += d2[j] < limit
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
def cells_of(position: Any, w: int, least: float) -> Cells:
    """The discs of world w sorted into cells that are at least `least` wide."""
    n = position.shape[1]
    left, bottom, right, top = np.inf, np.inf, -np.inf, -np.inf
    for i in range(n):
        left, right = min(left, position[w, i, 0]), max(right, position[w, i, 0])
        bottom, top = min(bottom, position[w, i, 1]), max(top, position[w, i, 1])
    wide, high = right - left, top - bottom
    side = max(least, math.sqrt(_PER_CELL * wide * high / n))
    side = max(side, max(wide, high) / (4.0 * n))  # a line of discs
    side = side if side > 0.0 else 1.0
    columns, rows = int(wide / side) + 1, int(high / side) + 1
    start = np.zeros(columns * rows + 1, np.int64)
    home = np.empty(n, np.int64)
    for i in range(n):
        column = min(int((position[w, i, 0] - left) / side), columns - 1)
        row = min(int((position[w, i, 1] - bottom) / side), rows - 1)
        home[i] = row * columns + column
        start[home[i] + 1] += 1
    for c in range(columns * rows):
        start[c + 1] += start[c]
    following = start[:-1].copy()
    order = np.empty(n, np.int64)
    xs, ys = np.empty(n), np.empty(n)
    for i in range(n):
        slot = following[home[i]]
        following[home[i]] += 1
        order[slot] = i
        xs[slot], ys[slot] = position[w, i, 0], position[w, i, 1]
    return Cells(start, order, xs, ys, columns, rows, left, bottom, side)


@disc_code
def nearest_by_cells(position: Any, w: int, cutoff: float, cells: Cells, index: Any) -> None:
    """As `nearest_of_all`: mostly 3 x 3 cells hold all that is as near as those near before."""
    n, k = index.shape[1], index.shape[2]
    start, order, xs, ys, side = cells.start, cells.order, cells.x, cells.y, cells.side
    columns, rows = cells.columns, cells.rows
    best, who = np.empty(k), np.empty(k, np.int64)
    x_near, y_near, d2 = np.empty(n), np.empty(n), np.empty(n)
    slot_near, near, rank = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    for here in range(columns * rows):
        if start[here] == start[here + 1]:
            continue
        row, column = here // columns, here % columns
        around = 0
        for other_row in range(max(row - 1, 0), min(row + 2, rows)):
            first = other_row * columns
            begin = start[first + max(column - 1, 0)]
            end = start[first + min(column + 1, columns - 1) + 1]
            for t in range(begin, end):
                x_near[around + t - begin], y_near[around + t - begin] = xs[t], ys[t]
                slot_near[around + t - begin] = t
            around += end - begin
        for slot in range(start[here], start[here + 1]):
            i, x, y = order[slot], xs[slot], ys[slot]
            limit = cutoff * cutoff
            if k > 0 and index[w, i, k - 1] >= 0:
                farthest = 0.0
                for m in range(k):
                    dx = position[w, index[w, i, m], 0] - x
                    dy = position[w, index[w, i, m], 1] - y
                    farthest = max(farthest, dx * dx + dy * dy)
                limit = min(limit, np.nextafter(farthest, np.inf))
            seen = side + _inset(cells, row, column, x, y)  # all that is nearer is around
            if seen * seen < limit:
                count = _nearest_by_rings(cells, row, column, slot, cutoff * cutoff, best, who)
                for m in range(count):
                    index[w, i, m] = who[m]
                for m in range(count, k):
                    index[w, i, m] = -1
                continue
            for t in range(around):
                dx, dy = x_near[t] - x, y_near[t] - y
                d2[t] = dx * dx + dy * dy
            count = 0
            for t in range(around):
                near[count] = t
                count += (d2[t] < limit) & (slot_near[t] != slot)
            for m in range(count):
                d2[m] = d2[near[m]]
                near[m] = order[slot_near[near[m]]]
                rank[m] = 0
            for m in range(count):
                for o in range(m):
                    nearer = (d2[m] < d2[o]) | ((d2[m] == d2[o]) & (near[m] < near[o]))
                    rank[o] += nearer
                    rank[m] += not nearer
            for m in range(count):
                if rank[m] < k:
                    index[w, i, rank[m]] = near[m]
            for m in range(count, k):
                index[w, i, m] = -1


@disc_part
def _inset(cells: Cells, row: int, column: int, x: float, y: float) -> float:
    """How far a place is from the nearest side of its cell."""
    across, along = x - cells.left - column * cells.side, y - cells.bottom - row * cells.side
    inset = min(min(across, cells.side - across), min(along, cells.side - along))
    return max(inset, 0.0)


@disc_part
def _nearest_by_rings(
    cells: Cells, row: int, column: int, slot: int, cut2: float, best: Any, who: Any
) -> int:
    """How many of the k nearest there are; rings of cells are searched until none can follow.

    best, who [k]: their squared distances and indices, nearest first.
    """
    start, order, xs, ys, side = cells.start, cells.order, cells.x, cells.y, cells.side
    columns, rows, k = cells.columns, cells.rows, len(best)
    x, y = xs[slot], ys[slot]
    inset = _inset(cells, row, column, x, y)
    count, worst, ring = 0, cut2, 0
    while True:
        for other_row in range(max(row - ring, 0), min(row + ring, rows - 1) + 1):
            edge = abs(other_row - row) == ring
            stride = 1 if edge or ring == 0 else 2 * ring
            for other_column in range(column - ring, column + ring + 1, stride):
                if other_column < 0 or other_column >= columns:
                    continue
                other = other_row * columns + other_column
                for t in range(start[other], start[other + 1]):
                    dx, dy = xs[t] - x, ys[t] - y
                    d, j = dx * dx + dy * dy, order[t]
                    if d > worst or d >= cut2 or t == slot:
                        continue
                    if count == k and d == worst and j > who[k - 1]:
                        continue
                    m = count if count < k else k - 1
                    while m > 0 and (best[m - 1] > d or (best[m - 1] == d and who[m - 1] > j)):
                        best[m], who[m] = best[m - 1], who[m - 1]
                        m -= 1
                    best[m], who[m] = d, j
                    count += count < k
                    if count == k:
                        worst = best[k - 1]
        seen = ring * side + inset  # all that is nearer has been compared
        ring += 1
        if seen * seen > worst or ring > max(columns, rows):
            return count


@disc_part
def depth_on_the_way(rx: float, ry: float, sx: float, sy: float, contact: float) -> float:
    """How deep two discs overlap at most while r goes to r + s in a straight line; below 0: not."""
    s2 = sx * sx + sy * sy
    t = min(max(-(rx * sx + ry * sy) / s2, 0.0), 1.0) if s2 > 0.0 else 0.0
    rx += t * sx
    ry += t * sy
    return contact - math.sqrt(rx * rx + ry * ry)


@disc_part
def reach_of(before: Any, position: Any, radius: Any, w: int) -> float:
    """A distance at which no two discs of a world can have touched on the way."""
    reach = 0.0
    for i in range(position.shape[1]):
        dx = position[w, i, 0] - before[w, i, 0]
        dy = position[w, i, 1] - before[w, i, 1]
        reach = max(reach, radius[w, i] + math.sqrt(dx * dx + dy * dy))
    return 2.0 * reach


@disc_part
def overlaps_of_all(before: Any, position: Any, radius: Any, w: int, depth: Any) -> None:
    """Raise depth[w, i] to how deep disc i overlapped another on the way from before to position.

    before, position [worlds, agents, 2], radius [worlds, agents], depth [worlds, agents].
    """
    n = position.shape[1]
    reach = reach_of(before, position, radius, w)
    for i in range(n):
        x, y = before[w, i, 0], before[w, i, 1]
        for j in range(i):
            rx, ry = before[w, j, 0] - x, before[w, j, 1] - y
            if rx * rx + ry * ry < reach * reach:
                sx = position[w, j, 0] - position[w, i, 0] - rx
                sy = position[w, j, 1] - position[w, i, 1] - ry
                deep = depth_on_the_way(rx, ry, sx, sy, radius[w, i] + radius[w, j])
                depth[w, i] = max(depth[w, i], deep)
                depth[w, j] = max(depth[w, j], deep)


@disc_part
def overlaps_of_nearest(
    before: Any, position: Any, radius: Any, w: int, reach: float, index: Any, depth: Any
) -> bool:
    """As `overlaps_of_all`, from the nearest at `position` [agents, k], nearest first.

    reach: no two that were farther apart at the end have touched. Nothing is changed, and the
    answer is False, where a disc has more than k within it.
    """
    n, k = index.shape[1], index.shape[2]
    reach2 = reach * reach
    for i in range(n):
        j = index[w, i, k - 1] if k > 0 else -1
        if j >= 0:
            rx, ry = position[w, j, 0] - position[w, i, 0], position[w, j, 1] - position[w, i, 1]
            if rx * rx + ry * ry < reach2:
                return False
    for i in range(n):
        x, y = position[w, i, 0], position[w, i, 1]
        for m in range(k):
            j = index[w, i, m]
            if j < 0:
                break
            rx, ry = position[w, j, 0] - x, position[w, j, 1] - y
            if rx * rx + ry * ry >= reach2:
                break
            ox, oy = before[w, j, 0] - before[w, i, 0], before[w, j, 1] - before[w, i, 1]
            contact = radius[w, i] + radius[w, j]
            deep = depth_on_the_way(ox, oy, rx - ox, ry - oy, contact)
            depth[w, i] = max(depth[w, i], deep)
    return True


@disc_code
def overlaps_by_cells(
    before: Any, position: Any, radius: Any, w: int, cells: Cells, depth: Any
) -> None:
    """As `overlaps_of_all`; no two farther apart than a cell of `position` have touched."""
    columns, rows = cells.columns, cells.rows
    for row in range(rows):
        for column in range(columns):
            here = row * columns + column
            for slot in range(cells.start[here], cells.start[here + 1]):
                i = cells.order[slot]
                for other_row in range(max(row - 1, 0), min(row + 2, rows)):
                    first = other_row * columns
                    begin = cells.start[first + max(column - 1, 0)]
                    end = cells.start[first + min(column + 1, columns - 1) + 1]
                    for t in range(begin, min(end, slot)):
                        j = cells.order[t]
                        rx, ry = cells.x[t] - cells.x[slot], cells.y[t] - cells.y[slot]
                        if rx * rx + ry * ry >= cells.side * cells.side:
                            continue
                        ox = before[w, j, 0] - before[w, i, 0]
                        oy = before[w, j, 1] - before[w, i, 1]
                        contact = radius[w, i] + radius[w, j]
                        deep = depth_on_the_way(ox, oy, rx - ox, ry - oy, contact)
                        depth[w, i] = max(depth[w, i], deep)
                        depth[w, j] = max(depth[w, j], deep)


@disc_code
def _search(position: Any, cutoff: float, rows: Any, index: Any) -> None:
    for w in range(len(position)):
        nearest_of_all(position, w, cutoff, rows, index)


@disc_code
def _search_by_cells(position: Any, cutoff: float, rows: Any, index: Any) -> None:
    for w in range(len(position)):
        nearest_by_cells(position, w, cutoff, cells_of(position, w, 0.0), index)


@disc_code
def _overlaps(before: Any, position: Any, radius: Any, depth: Any) -> None:
    for w in range(len(position)):
        overlaps_of_all(before, position, radius, w, depth)


@disc_code
def _overlaps_by_cells(before: Any, position: Any, radius: Any, depth: Any) -> None:
    for w in range(len(position)):
        cells = cells_of(position, w, reach_of(before, position, radius, w))
        overlaps_by_cells(before, position, radius, w, cells, depth)


def nearest_in_plane(position: np.ndarray, cutoff: float, k: int) -> np.ndarray:
    """The k nearest discs within the cutoff [worlds, agents, k] int32, -1 where absent."""
    worlds, n, _ = position.shape
    index = np.full((worlds, n, k), -1, np.int32)
    search = _search if n < GRID_FROM else _search_by_cells
    search(position, cutoff, rows_of(n), index)
    return index


def overlaps_on_the_way(before: np.ndarray, position: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How deep each disc overlapped another at most [worlds, agents] in one straight step, >= 0.

    before, position [worlds, agents, 2]: at the beginning and the end of it.
    """
    depth = np.zeros(radius.shape)
    search = _overlaps if radius.shape[1] < GRID_FROM else _overlaps_by_cells
    search(before, position, radius, depth)
    return depth
