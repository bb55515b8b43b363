"""Neighbour lists in open, orthorhombic and triclinic cells, by comparing all pairs or by cells.

A row of a list holds the neighbours of one atom in rising order, so sums over it do not depend on
how it was found. Lists are full: j stands in the row of i and i in the row of j.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ...kernels.compiling import compiled
from .images import turns, vector_between

ALL_PAIRS_TO = 500  # atoms; above, cells are faster
_compile = compiled(error_model="numpy", nogil=True)


@_compile
def _least_square(rx: float, ry: float, rz: float, h: Any) -> float:
    """Of the vector and those to the images around."""
    least = np.inf
    for a in range(-1, 2):
        for b in range(-1, 2):
            for c in range(-1, 2):
                qx = rx + a * h[0, 0] + b * h[1, 0] + c * h[2, 0]
                qy = ry + a * h[0, 1] + b * h[1, 1] + c * h[2, 1]
                qz = rz + a * h[0, 2] + b * h[1, 2] + c * h[2, 2]
                least = min(least, qx * qx + qy * qy + qz * qz)
    return least


@_compile
def _all_pairs(x: Any, h: Any, inv: Any, reach: float, narrow: bool, index: Any, count: Any) -> int:
    """narrow: whether the image within reach may be another than that of the rounded vector."""
    n, room = index.shape
    count[:] = 0
    for i in range(n):
        for j in range(i + 1, n):
            rx, ry, rz = vector_between(x, i, j, h, inv)
            d2 = rx * rx + ry * ry + rz * rz
            if narrow and d2 >= reach * reach:
                d2 = _least_square(rx, ry, rz, h)
            if d2 < reach * reach:
                if count[i] < room:
                    index[i, count[i]] = j
                if count[j] < room:
                    index[j, count[j]] = i
                count[i] += 1
                count[j] += 1
    return count.max()


@_compile
def _by_cells(x: Any, h: Any, inv: Any, reach: float, bins: Any, index: Any, count: Any) -> int:
    n, room = index.shape
    nx, ny, nz = bins[0], bins[1], bins[2]
    bin_index, wrapped = np.empty((n, 3), np.int64), np.empty((n, 3))
    start = np.zeros(nx * ny * nz + 1, np.int64)
    for i in range(n):
        for axis in range(3):
            s = x[i, 0] * inv[0, axis] + x[i, 1] * inv[1, axis] + x[i, 2] * inv[2, axis]
            s -= math.floor(s)
            wrapped[i, axis] = s
            bin_index[i, axis] = min(int(s * bins[axis]), bins[axis] - 1)
        start[(bin_index[i, 0] * ny + bin_index[i, 1]) * nz + bin_index[i, 2] + 1] += 1
    most = 0
    for b in range(nx * ny * nz):
        most = max(most, start[b + 1])
        start[b + 1] += start[b]
    order, filled, px = np.empty(n, np.int32), start.copy(), np.empty((n, 3))
    for i in range(n):
        b = (bin_index[i, 0] * ny + bin_index[i, 1]) * nz + bin_index[i, 2]
        at = filled[b]
        order[at] = i
        filled[b] += 1
        for axis in range(3):
            s = wrapped[i, 0] * h[0, axis] + wrapped[i, 1] * h[1, axis]
            px[at, axis] = s + wrapped[i, 2] * h[2, axis]
    near, d2 = np.empty((3, 27 * most)), np.empty(27 * most)
    name = np.empty(27 * most, np.int32)
    near_atoms = np.empty((n, room), np.int32)
    widest = 0
    for home in range(nx * ny * nz):
        if start[home] == start[home + 1]:
            continue
        total = _around(home, bins, start, px, h, order, near, name)
        for at in range(start[home], start[home + 1]):
            i = order[at]
            _squares(near, total, px[at, 0], px[at, 1], px[at, 2], d2)
            many = 0
            for m in range(total):
                if d2[m] < reach * reach and name[m] != i:
                    if many < room:
                        near_atoms[i, many] = name[m]
                    many += 1
            count[i] = many
            widest = max(widest, many)
    if widest <= room:
        _sorted_rows(near_atoms, count, index)
    return widest


@_compile
def _around(
    home: int, bins: Any, start: Any, px: Any, h: Any, order: Any, near: Any, name: Any
) -> int:
    """Positions (images shifted) and names of all atoms in the 27 cells around one; how many."""
    nx, ny, nz = bins[0], bins[1], bins[2]
    cx, cy, cz = home // (ny * nz), home // nz % ny, home % nz
    total = 0
    for dx in range(-1, 2):
        for dy in range(-1, 2):
            for dz in range(-1, 2):
                ax, ay, az = cx + dx, cy + dy, cz + dz
                tx, ty, tz = ax // nx, ay // ny, az // nz
                b = ((ax - tx * nx) * ny + ay - ty * ny) * nz + az - tz * nz
                sx = tx * h[0, 0] + ty * h[1, 0] + tz * h[2, 0]
                sy = tx * h[0, 1] + ty * h[1, 1] + tz * h[2, 1]
                sz = tx * h[0, 2] + ty * h[1, 2] + tz * h[2, 2]
                for at in range(start[b], start[b + 1]):
                    near[0, total] = px[at, 0] + sx
                    near[1, total] = px[at, 1] + sy
                    near[2, total] = px[at, 2] + sz
                    name[total] = order[at]
                    total += 1
    return total


@_compile
def _squares(near: Any, total: int, x0: float, x1: float, x2: float, d2: Any) -> None:
    """Squared distances of `near` [3, total] to a point."""
    for m in range(total):
        rx, ry, rz = near[0, m] - x0, near[1, m] - x1, near[2, m] - x2
        d2[m] = rx * rx + ry * ry + rz * rz


@_compile
def _sorted_rows(near_atoms: Any, count: Any, index: Any) -> None:
    """Rows in rising order: i is appended to the rows of its neighbours, i after i."""
    filled = np.zeros(len(near_atoms), np.int32)
    for i in range(len(near_atoms)):
        for m in range(count[i]):
            j = near_atoms[i, m]
            index[j, filled[j]] = i
            filled[j] += 1


@_compile
def _moved(position: Any, built: Any, out: Any) -> None:
    """Sum of the two largest displacements [worlds] since the lists were built."""
    for w in range(len(position)):
        x, old = position[w], built[w]
        first, second = 0.0, 0.0
        for i in range(len(x)):
            dx, dy, dz = x[i, 0] - old[i, 0], x[i, 1] - old[i, 1], x[i, 2] - old[i, 2]
            d2 = dx * dx + dy * dy + dz * dz
            if not d2 <= first:
                first, second = d2, first
            elif d2 > second:
                second = d2
        out[w] = math.sqrt(first) + math.sqrt(second)


class Neighbours(NamedTuple):
    """What compiled code asks of a `NeighbourList`, under the same names."""

    cell: np.ndarray
    inverse: np.ndarray
    rows: np.ndarray  # [worlds, atoms, room]
    lengths: np.ndarray  # [worlds, atoms] of the rows


class NeighbourList:
    """Verlet lists of a batch of worlds that share the number of atoms.

    It is rebuilt when the two largest displacements since the last time add up to the skin.
    cell: [worlds, 3, 3] rows are the lattice vectors, zeros for open space.
    index, count: [worlds, atoms, room] and [worlds, atoms], of atoms within cutoff + skin.
    built: positions [worlds, atoms, 3] that the lists are of; inf where there are none yet.
    """

    def __init__(self, cell: np.ndarray, atoms: int, cutoff: float, skin: float) -> None:
        worlds = len(cell)
        self.cell = np.ascontiguousarray(cell, float)
        self.inverse = np.zeros_like(self.cell)
        bounded = self.cell.any((1, 2))
        self.inverse[bounded] = np.linalg.inv(self.cell[bounded])
        self.cutoff, self.skin = cutoff, skin
        self.count = np.zeros((worlds, atoms), np.int32)
        self.index = np.zeros((worlds, atoms, min(16, atoms)), np.int32)
        self.built = np.full((worlds, atoms, 3), np.inf)
        self.builds = 0

    @property
    def arrays(self) -> Neighbours:
        """The lists as they are now; the next update may put other arrays in their place."""
        return Neighbours(self.cell, self.inverse, self.index, self.count)

    def update(self, position: np.ndarray) -> None:
        """Make the lists valid for positions [worlds, atoms, 3], which need not be wrapped.

        Raises FloatingPointError where a position is not finite.
        """
        moved = np.empty(len(position))
        _moved(position, self.built, moved)
        for w in np.flatnonzero(~(moved < self.skin)):
            self._build(position, int(w))

    def forget(self) -> None:
        """Make the next update build all lists anew, as in a list that was just made."""
        self.built[:] = np.inf

    def rebuild(self, built: np.ndarray) -> None:
        """Build the lists of positions [worlds, atoms, 3] as they were; inf: of none yet."""
        self.forget()
        for w in np.flatnonzero(np.isfinite(built).all((1, 2))):
            self._build(built, int(w))

    def _build(self, position: np.ndarray, w: int) -> None:
        x = position[w]
        if not np.isfinite(x).all():
            raise FloatingPointError(f"a position in world {w} is not finite")
        reach = self.cutoff + self.skin
        norms = np.linalg.norm(self.inverse[w], axis=0)
        bins = np.floor(1 / np.maximum(norms * reach, 1e-300)).clip(max=1 << 10).astype(np.int64)
        cells = self.inverse[w].any() and len(x) > ALL_PAIRS_TO and bins.min() >= 3
        # What comes within the cutoff while the list is kept may still be beyond half the width.
        narrow = bool(2 * reach * norms.max() > 1) and _is_oblique(self.cell[w])
        while True:
            arguments = (x, self.cell[w], self.inverse[w], reach)
            kept = (self.index[w], self.count[w])
            if cells:
                most = _by_cells(*arguments, bins, *kept)
            else:
                most = _all_pairs(*arguments, narrow, *kept)
            if most <= self.index.shape[2]:
                break
            wider = np.zeros((*self.count.shape, int(1.2 * most) + 4), np.int32)
            wider[..., : self.index.shape[2]] = self.index
            self.index = wider
        self.built[w] = x
        self.builds += 1


def _is_oblique(cell: np.ndarray) -> bool:
    """Whether the rounded vector in a cell may be another than that to the nearest image."""
    products = cell @ cell.T
    return not np.allclose(products, np.diag(np.diag(products)), rtol=0, atol=1e-9 * products.max())


class PeriodicNeighbours(NamedTuple):
    """Every neighbour of every atom, all images of an atom counted, its own too.

    Those of atom i are rows start[i] to start[i + 1], by rising number and then by image.
    start [atoms + 1]; neighbour [pairs]: its number j; shift [pairs, 3]: the lattice vector that
    makes x_j + shift - x_i the vector to the image.
    """

    start: np.ndarray
    neighbour: np.ndarray
    shift: np.ndarray


def periodic_neighbours(
    position: np.ndarray, cell: np.ndarray, cutoff: float
) -> PeriodicNeighbours:
    """Neighbours closer than `cutoff` of atoms [n, 3] in a cell [3, 3] of any size.

    Unlike a `NeighbourList`, which knows nearest images only, it is right for cells narrower than
    two cutoffs: an atom may stand there several times, with different shifts.
    """
    inverse = np.zeros((3, 3))
    images = np.zeros(3, np.int64)
    if cell.any():
        inverse = np.linalg.inv(cell)
        # |fraction| <= 1/2 after rounding, and |fraction + images| <= cutoff / width of the cell.
        images = np.floor(cutoff * np.linalg.norm(inverse, axis=0) + 0.5 + 1e-9).astype(np.int64)
    x, h = np.ascontiguousarray(position, float), np.ascontiguousarray(cell, float)
    start = np.zeros(len(x) + 1, np.int64)
    index, shift = np.empty(64 * len(x), np.int64), np.empty((64 * len(x), 3))
    if _images(x, h, inverse, images, cutoff, start, index, shift) > len(index):
        index, shift = np.empty(start[-1], np.int64), np.empty((start[-1], 3))
        _images(x, h, inverse, images, cutoff, start, index, shift)
    return PeriodicNeighbours(start, index[: start[-1]], shift[: start[-1]])


@_compile
def _images(
    x: Any, h: Any, inv: Any, images: Any, cutoff: float, start: Any, index: Any, shift: Any
) -> int:
    """Fills the arrays as far as they go; how many pairs there are."""
    n, room, total = len(x), len(index), 0
    cut2 = cutoff * cutoff
    for i in range(n):
        start[i] = total
        for j in range(n):
            rx, ry, rz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
            a0, b0, c0 = turns(rx, ry, rz, inv)
            for da in range(-images[0], images[0] + 1):
                for db in range(-images[1], images[1] + 1):
                    for dc in range(-images[2], images[2] + 1):
                        a, b, c = da - a0, db - b0, dc - c0
                        sx = a * h[0, 0] + b * h[1, 0] + c * h[2, 0]
                        sy = a * h[0, 1] + b * h[1, 1] + c * h[2, 1]
                        sz = a * h[0, 2] + b * h[1, 2] + c * h[2, 2]
                        if i == j and a == 0 and b == 0 and c == 0:
                            continue
                        qx, qy, qz = rx + sx, ry + sy, rz + sz
                        if qx * qx + qy * qy + qz * qz < cut2:
                            if total < room:
                                index[total] = j
                                shift[total, 0], shift[total, 1], shift[total, 2] = sx, sy, sz
                            total += 1
    start[n] = total
    return total
