"""Compiled rollouts of Klein-Gordon fields under the exact kick, or none.

Lattices move slab by slab: a slab is what lies at one place of the first axis, a row in two
dimensions and a plane in three. It is kicked while its neighbours are as before the step; the slab
behind it, which nobody needs any more, then moves. On lattices beyond the cache several steps run
behind one another in one sweep, three slabs apart, so that memory is read once for all of them.
Step s starts at slab s and ends there, with a copy of what that slab was.

Of many small lattices, 64 are moved as one, a contiguous row of 64 numbers for every site.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.kernels.compiling import compiled, compiled_part
from ..core.physics.lattice import Torus
from .field import drift, neighbour_table
from .step import note_energy

LANES = 64  # small lattices moved as one
DEPTH = 4  # steps in one sweep over a large lattice
_FEWEST = 16  # lattices from which on they are moved as lanes
_SMALL = 4096  # sites of a lattice up to which they are
_LARGE = 2**22  # bytes of a lattice from which on several steps share a sweep
_APART = 3  # slabs between two steps of a sweep

_compile = compiled(error_model="numpy", fastmath={"contract"})
_part = compiled_part(error_model="numpy", fastmath={"contract"})


def run(
    state: Any, size: int, dimensions: int, policy: str, steps: int, every: int
) -> tuple[Any, tuple[Tensor, Tensor, Tensor]]:
    """Move a state of tensors on.

    Returns it, and |Q / Q0 - 1|, the drift and the loss per site after every so many steps.
    """
    after = type(state)(*(tensor.clone() for tensor in state))
    arrays = type(state)(*(tensor.numpy() for tensor in after))
    worlds = len(arrays.phi)
    share = 1.0 if policy == "leapfrog" else 0.0
    records = torch.empty(3, steps // every, worlds, dtype=torch.float64)
    beside = neighbour_table(Torus((size,) * dimensions))
    pulled = np.empty(worlds)
    for k in range(steps // every):
        advance(arrays, beside, size, dimensions, share, every)
        weigh(*arrays[:5], beside, arrays.course, arrays.energy, pulled, every)
        records[0, k], records[1, k] = after.course[:, 1].abs(), drift(after.course)
        missed = (1 - share) ** 2 * 0.5 * arrays.dt[:, 0] * pulled
        records[2, k] = torch.from_numpy(missed)
    return after, (records[0], records[1], records[2])


def advance(
    arrays: Any, beside: np.ndarray, size: int, dimensions: int, share: float, steps: int
) -> None:
    """Make steps in place; every site takes that share of the exact kick."""
    phi, momentum = arrays.phi, arrays.momentum
    worlds, sites = phi.shape
    number = phi.dtype.type
    factors = np.empty((3, worlds), phi.dtype)  # of neighbours, of the site itself, of momentum
    factors[0] = share * arrays.dt[:, 0] / arrays.spacing[:, 0] ** 2
    own = 2 * dimensions / arrays.spacing[:, 0] ** 2 + arrays.mass[:, 0] ** 2
    factors[1] = share * arrays.dt[:, 0] * own
    factors[2] = arrays.dt[:, 0]
    if worlds >= _FEWEST and sites <= _SMALL:
        move_lanes(phi, momentum, factors, beside, steps)
        return
    slabs = size if dimensions > 1 else 1
    rows = sites // size // slabs
    large = 2 * phi.itemsize * sites >= _LARGE and slabs >= 4 * DEPTH
    depth = DEPTH if large else 1
    saved = np.empty((depth * rows, size), phi.dtype)
    for w in range(worlds):
        place = phi[w].reshape(slabs * rows, size), momentum[w].reshape(slabs * rows, size)
        spread, own, dt = (number(value) for value in factors[:, w])
        sweep(*place, saved, dimensions, spread, own, dt, steps, depth)


@_part
def _kick_row(
    phi: Any, momentum: Any, r: int, back: int, ahead: Any, front: int, sides: Any, c: Any, d: Any
) -> None:
    """Kick a row by its neighbours: row `back` of phi, `front` of `ahead`, those beside it.

    sides: two more rows of phi, or negative where there are none; back is negative likewise.
    """
    n = phi.shape[1]
    for edge in range(2):
        j = (n - 1) * edge
        total = phi[r, j - 1 if j > 0 else n - 1] + phi[r, j + 1 if j < n - 1 else 0]
        if back >= 0:
            total += phi[back, j] + ahead[front, j]
        if sides[0] >= 0:
            total += phi[sides[0], j] + phi[sides[1], j]
        momentum[r, j] += c * total - d * phi[r, j]
    if sides[0] >= 0:
        k, m = sides
        for j in range(1, n - 1):
            total = phi[r, j - 1] + phi[r, j + 1] + phi[back, j] + ahead[front, j]
            momentum[r, j] += c * (total + phi[k, j] + phi[m, j]) - d * phi[r, j]
    elif back >= 0:
        for j in range(1, n - 1):
            total = phi[r, j - 1] + phi[r, j + 1] + phi[back, j] + ahead[front, j]
            momentum[r, j] += c * total - d * phi[r, j]
    else:
        for j in range(1, n - 1):
            momentum[r, j] += c * (phi[r, j - 1] + phi[r, j + 1]) - d * phi[r, j]


@_part
def _kick_slab(
    phi: Any, momentum: Any, slab: int, ahead: Any, front: int, shape: Any, c: Any, d: Any
) -> None:
    """Kick a slab of so many rows; `ahead` holds the slab ahead of it from row `front` on."""
    dimensions, slabs, rows = shape
    behind = slab - 1 if slab > 0 else slabs - 1
    for b in range(rows):
        r, back = slab * rows + b, behind * rows + b if dimensions > 1 else -1
        sides = (-1, -1)
        if dimensions == 3:
            first = slab * rows
            sides = (
                first + (b - 1 if b > 0 else rows - 1),
                first + (b + 1 if b < rows - 1 else 0),
            )
        _kick_row(phi, momentum, r, back, ahead, front + b, sides, c, d)


@_part
def _move_rows(phi: Any, momentum: Any, first: int, rows: int, dt: Any) -> None:
    for r in range(first, first + rows):
        for j in range(phi.shape[1]):
            phi[r, j] += dt * momentum[r, j]


@_compile
def sweep(
    phi: Any, momentum: Any, saved: Any, dimensions: int, c: Any, d: Any, dt: Any, steps: int,
    depth: int,
) -> None:  # fmt: skip
    """Make steps of one lattice [rows, size] in place, `depth` of them per sweep.

    momentum_i += c (sum of neighbours) - d phi_i; phi_i += dt momentum_i.
    saved [depth * rows of a slab, size]: scratch.
    """
    rows = saved.shape[0] // depth
    slabs = phi.shape[0] // rows
    shape, made = (dimensions, slabs, rows), 0
    while made < steps:
        here = min(depth, steps - made)
        for i in range(slabs + 1 + _APART * (here - 1)):
            for s in range(here):
                k = i - _APART * s
                slab = (s + k) % slabs
                if k == 0:
                    for b in range(rows):
                        for j in range(phi.shape[1]):
                            saved[s * rows + b, j] = phi[slab * rows + b, j]
                if 0 <= k < slabs - 1:
                    front = (slab + 1) % slabs * rows
                    _kick_slab(phi, momentum, slab, phi, front, shape, c, d)
                elif k == slabs - 1:
                    _kick_slab(phi, momentum, slab, saved, s * rows, shape, c, d)
                if 1 <= k <= slabs:
                    _move_rows(phi, momentum, (s + k - 1) % slabs * rows, rows, dt)
        made += here


@_compile
def move_lanes(phi: Any, momentum: Any, factors: Any, beside: Any, steps: int) -> None:
    """Make steps of many lattices [worlds, sites] in place, LANES of them side by side.

    factors [3, worlds]: c, d and dt as `sweep` has them.
    """
    worlds, sites = phi.shape
    sides = beside.shape[1]
    f, p = np.empty((sites, LANES), phi.dtype), np.empty((sites, LANES), phi.dtype)
    c, d, dt = np.empty(LANES, phi.dtype), np.empty(LANES, phi.dtype), np.empty(LANES, phi.dtype)
    for first in range(0, worlds, LANES):
        for lane in range(LANES):
            w = min(first + lane, worlds - 1)
            c[lane], d[lane], dt[lane] = factors[0, w], factors[1, w], factors[2, w]
            for i in range(sites):
                f[i, lane], p[i, lane] = phi[w, i], momentum[w, i]
        for _ in range(steps):
            _step_lanes(f, p, c, d, dt, beside, sides)
        for lane in range(min(LANES, worlds - first)):
            for i in range(sites):
                phi[first + lane, i], momentum[first + lane, i] = f[i, lane], p[i, lane]


@_part
def _step_lanes(f: Any, p: Any, c: Any, d: Any, dt: Any, beside: Any, sides: int) -> None:
    """One step of LANES lattices."""
    for i in range(f.shape[0]):
        k, m = beside[i, 0], beside[i, 1]
        if sides == 2:
            for lane in range(LANES):
                p[i, lane] += c[lane] * (f[k, lane] + f[m, lane]) - d[lane] * f[i, lane]
        elif sides == 4:
            q, r = beside[i, 2], beside[i, 3]
            for lane in range(LANES):
                total = f[k, lane] + f[m, lane] + f[q, lane] + f[r, lane]
                p[i, lane] += c[lane] * total - d[lane] * f[i, lane]
        else:
            q, r, s, t = beside[i, 2], beside[i, 3], beside[i, 4], beside[i, 5]
            for lane in range(LANES):
                total = f[k, lane] + f[m, lane] + f[q, lane] + f[r, lane]
                total += f[s, lane] + f[t, lane]
                p[i, lane] += c[lane] * total - d[lane] * f[i, lane]
    for i in range(f.shape[0]):
        for lane in range(LANES):
            f[i, lane] += dt[lane] * p[i, lane]


@_compile
def weigh(
    phi: Any, momentum: Any, mass: Any, dt: Any, spacing: Any, beside: Any, course: Any,
    energy: Any, pulled: Any, steps: int,
) -> None:  # fmt: skip
    """Note Q of every world after so many steps in `course`, and the mean squared force."""
    worlds, sites = phi.shape
    number = phi.dtype.type
    for w in range(worlds):
        scale, square = number(1.0 / spacing[w, 0] ** 2), number(mass[w, 0] ** 2)
        total, squares = 0.0, 0.0
        for i in range(sites):
            sides = beside.shape[1]
            around = phi[w, beside[i, 0]] + phi[w, beside[i, 1]]
            for k in range(2, sides):
                around += phi[w, beside[i, k]]
            curved = scale * (around - number(sides) * phi[w, i])
            pull = np.float64(curved - square * phi[w, i])
            speed = np.float64(momentum[w, i])
            total += speed * speed + pull * (dt[w, 0] * speed - np.float64(phi[w, i]))
            squares += pull * pull
        pulled[w] = squares / sites
        note_energy(course, w, 0.5 * total / energy[w, 0] - 1.0, steps)
