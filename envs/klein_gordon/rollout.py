"""Compiled rollouts of Klein-Gordon fields under the exact kick, or none.

Lattices move slab by slab: a slab is what lies at one place of the first axis, a row in two
dimensions and a plane in three. What its neighbours were before the step is kept beside the
lattice, in rows that begin at whole cache lines and have their periodic neighbour at either end,
so that a slab is kicked and moved at once and every row is a single loop of vectors. Several steps
run behind one another in one sweep, two slabs apart: what one of them makes is what the next one
keeps, and memory is read and written once for all of them. Step s starts at slab s and ends there.

Of many small lattices, 64 are moved as one, a contiguous row of 64 numbers for every site.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.kernels.compiling import compiled, compiled_part
from ..core.physics.lattice import Torus
from .field import drift, force, neighbour_table

LANES = 64  # small lattices moved as one
_FEWEST = 16  # lattices from which on they are moved as lanes
_SMALL = 4096  # sites of a lattice up to which they are
_DEPTH = 4  # steps in one sweep
_LARGE, _DEEP = 2**24, 8  # the same for lattices from so many bytes on
_APART = 2  # slabs between two steps of a sweep
_KEPT = 5  # slabs kept for each: three that follow one another, and its first two
_LEAD = 16  # numbers before a kept row, the last of them its periodic neighbour
_TILE = 16  # sites that are brought into lanes at once

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
    share = 1.0 if policy == "leapfrog" else 0.0
    records = torch.zeros(3, steps // every, len(arrays.phi), dtype=torch.float64)
    for k in range(steps // every):
        energy = advance(arrays, size, dimensions, share, every)
        excess = energy / arrays.energy[:, 0] - 1
        n, now, total, moment = arrays.course.T
        n += every
        now[:] = excess
        total += excess * every
        moment += excess * every * (n - 0.5 * (every - 1))
        records[0, k], records[1, k] = after.course[:, 1].abs(), drift(after.course)
        if policy == "none":
            records[2, k] = _missed(after, Torus((size,) * dimensions))
    return after, (records[0], records[1], records[2])


def _missed(state: Any, lattice: Torus) -> Tensor:
    """The loss per site [worlds] of a last step in which nobody kicked."""
    before = state.phi - state.dt.to(state.phi.dtype) * state.momentum
    pull = force(before, state.mass, state.spacing, lattice).double()
    return 0.5 * state.dt[:, 0] * pull.square().mean(-1)


def advance(arrays: Any, size: int, dimensions: int, share: float, steps: int) -> np.ndarray:
    """Make steps in place; every site takes that share of the exact kick.

    Returns Q of every world after them.
    """
    phi, momentum = arrays.phi, arrays.momentum
    worlds, sites = phi.shape
    dt, scale, square = arrays.dt[:, 0], 1 / arrays.spacing[:, 0] ** 2, arrays.mass[:, 0] ** 2
    factors = np.stack(
        [share * dt * scale, share * dt * (2 * dimensions * scale + square), dt, scale, square]
    ).astype(phi.dtype)
    sums = np.zeros(worlds)
    if worlds >= _FEWEST and sites <= _SMALL:
        beside = neighbour_table(Torus((size,) * dimensions))
        move_lanes(phi, momentum, factors, beside, steps, sums)
        return 0.5 * sums
    rows = size if dimensions == 3 else 1  # of a slab
    depth = sweep_depth(phi[0].nbytes, sites // size // rows)
    kept = kept_rows(rows, size, depth, phi.dtype)
    columns = np.empty(size)
    for w in range(worlds):
        place = phi[w].reshape(-1, size), momentum[w].reshape(-1, size)
        sweep(*place, kept, dimensions, *factors[:3, w], steps, depth)
        columns[:] = 0
        weigh(*place, kept[0, :size], dimensions, *factors[2:, w], columns)
        sums[w] = columns.sum()
    return 0.5 * sums


def sweep_depth(size: int, slabs: int) -> int:
    """Steps in one sweep over a lattice of so many bytes."""
    depth = _DEEP if size >= _LARGE else _DEPTH
    return depth if slabs >= 4 * depth else 1


def kept_rows(rows: int, size: int, depth: int, dtype: Any) -> np.ndarray:
    """Memory for `sweep` over slabs of so many rows, at a whole cache line and zero at first."""
    number = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.zeros(_KEPT * depth * rows + 1, size + 2 * _LEAD, dtype=number).numpy()


@_part
def _close(kept: Any, row: int, size: int) -> None:
    """Put the periodic neighbours at the ends of a kept row."""
    kept[row, _LEAD - 1] = kept[row, _LEAD + size - 1]
    kept[row, _LEAD + size] = kept[row, _LEAD]


@_part
def _keep(phi: Any, first: int, rows: int, kept: Any, to: int) -> None:
    """Keep so many rows of the field."""
    size = phi.shape[1]
    for b in range(rows):
        for j in range(size):
            kept[to + b, _LEAD + j] = phi[first + b, j]
        _close(kept, to + b, size)


@_part
def _place(k: int, slabs: int, rows: int) -> int:
    """Where the k-th slab that a step meets is kept; its first two are its last ones too."""
    k = k if k < slabs else k - slabs
    return (3 + k if k < 2 else k % 3) * rows


@_part
def _step_row(
    kept: Any, back: int, row: int, front: int, momentum: Any, r: int, c: Any, d: Any, dt: Any,
    out: Any, to: int, keeps: bool,
) -> None:  # fmt: skip
    """Kick row r of the momentum by kept rows, and write what the field becomes.

    keeps: whether `out` is made of kept rows too.
    """
    lead = _LEAD if keeps else 0  # a number that is plainly not negative: such code has vectors
    for j in range(momentum.shape[1]):
        value = kept[row, _LEAD + j]
        total = kept[row, _LEAD - 1 + j] + kept[row, _LEAD + 1 + j]
        total += kept[back, _LEAD + j] + kept[front, _LEAD + j]
        pushed = momentum[r, j] + (c * total - d * value)
        momentum[r, j] = pushed
        out[to, lead + j] = value + dt * pushed


@_compile
def sweep(
    phi: Any, momentum: Any, kept: Any, dimensions: int, c: Any, d: Any, dt: Any, steps: int,
    depth: int,
) -> None:  # fmt: skip
    """Make steps of one lattice [rows, size] in place, `depth` of them per sweep.

    momentum_i += c (sum of neighbours) - d phi_i; phi_i += dt momentum_i.
    kept: `kept_rows` of the rows of a slab, overwritten but for its last row in one dimension.
    """
    size, last = phi.shape[1], kept.shape[0] - 1
    rows = last // (_KEPT * depth)
    slabs, made = phi.shape[0] // rows, 0
    while made < steps:
        here = min(depth, steps - made)
        for k in range(2):
            _keep(phi, (slabs - 1 + k) % slabs * rows, rows, kept, _place(k, slabs, rows))
        for i in range(slabs + _APART * (here - 1)):
            for s in range(here):
                k = i - _APART * s
                if not 0 <= k < slabs:
                    continue
                mine, keeps = s * _KEPT * rows, s < here - 1
                back, own = mine + _place(k, slabs, rows), mine + _place(k + 1, slabs, rows)
                ahead, slab = mine + _place(k + 2, slabs, rows), (s + k) % slabs * rows
                if s == 0 and k < slabs - 2:
                    _keep(phi, slab + rows, rows, kept, ahead)
                out = kept if keeps else phi
                to = back + _KEPT * rows if keeps else slab
                for b in range(rows):
                    behind, front = back + b, ahead + b
                    if dimensions == 1:
                        behind, front = last, last
                    if dimensions == 3:
                        up, down = own + (b - 1) % rows, own + (b + 1) % rows
                        for j in range(_LEAD, _LEAD + size):
                            kept[last, j] = kept[front, j] + (kept[up, j] + kept[down, j])
                        front = last
                    row = slab + b
                    _step_row(
                        kept, behind, own + b, front, momentum, row, c, d, dt, out, to + b, keeps
                    )
                    if keeps:
                        _close(kept, to + b, size)
        made += here


@_compile
def weigh(
    phi: Any, momentum: Any, pull: Any, dimensions: int, dt: Any, scale: Any, square: Any, sums: Any
) -> None:
    """Add up a lattice [rows, size], column by column.

    sums [size] float64: gains the terms of 2 Q.  pull [size]: scratch.
    """
    n = phi.shape[1]
    slab = n if dimensions == 3 else 1
    sites, wide = phi.dtype.type(2 * dimensions), np.float64(dt)
    for r in range(phi.shape[0]):
        first = r // slab * slab
        pull[0] = phi[r, n - 1] + phi[r, 1]
        pull[n - 1] = phi[r, n - 2] + phi[r, 0]
        for j in range(1, n - 1):
            pull[j] = phi[r, j - 1] + phi[r, j + 1]
        if dimensions > 1:
            back, front = (r - slab) % phi.shape[0], (r + slab) % phi.shape[0]
            for j in range(n):
                pull[j] += phi[back, j] + phi[front, j]
        if dimensions == 3:
            up, down = first + (r - 1 - first) % n, first + (r + 1 - first) % n
            for j in range(n):
                pull[j] += phi[up, j] + phi[down, j]
        for j in range(n):
            pull[j] = scale * (pull[j] - sites * phi[r, j]) - square * phi[r, j]
        for j in range(n):
            pulled, speed = np.float64(pull[j]), np.float64(momentum[r, j])
            sums[j] += speed * speed + pulled * (wide * speed - np.float64(phi[r, j]))


@_compile
def move_lanes(phi: Any, momentum: Any, factors: Any, beside: Any, steps: int, sums: Any) -> None:
    """Make steps of many lattices [worlds, sites] in place, LANES of them side by side.

    factors [5, worlds]: c, d and dt as `sweep` has them, 1 / a^2 and m^2.
    sums [worlds] float64: gains the terms of 2 Q.
    """
    worlds, sites = phi.shape
    f, p = np.empty((sites, LANES), phi.dtype), np.empty((sites, LANES), phi.dtype)
    of_lane, around = np.empty((5, LANES), phi.dtype), np.empty(LANES, phi.dtype)
    total = np.empty(LANES)
    for first in range(0, worlds, LANES):
        lanes = min(LANES, worlds - first)
        for lane in range(LANES):
            for k in range(5):
                of_lane[k, lane] = factors[k, first + min(lane, lanes - 1)]
        for tile in range(0, sites, _TILE):
            for lane in range(LANES):
                w = first + min(lane, lanes - 1)
                for i in range(tile, min(tile + _TILE, sites)):
                    f[i, lane], p[i, lane] = phi[w, i], momentum[w, i]
        for _ in range(steps):
            _step_lanes(f, p, of_lane, beside, around)
        _weigh_lanes(f, p, of_lane, beside, around, total)
        for lane in range(lanes):
            sums[first + lane] += total[lane]
        for tile in range(0, sites, _TILE):
            for lane in range(lanes):
                for i in range(tile, min(tile + _TILE, sites)):
                    phi[first + lane, i], momentum[first + lane, i] = f[i, lane], p[i, lane]


@_part
def _step_lanes(f: Any, p: Any, of_lane: Any, beside: Any, around: Any) -> None:
    """One step of LANES lattices."""
    sides = beside.shape[1]
    for i in range(f.shape[0]):
        k, m = beside[i, 0], beside[i, 1]
        if sides == 2:
            for lane in range(LANES):
                total = f[k, lane] + f[m, lane]
                p[i, lane] += of_lane[0, lane] * total - of_lane[1, lane] * f[i, lane]
            continue
        q, r = beside[i, 2], beside[i, 3]
        if sides == 4:
            for lane in range(LANES):
                total = f[k, lane] + f[m, lane] + f[q, lane] + f[r, lane]
                p[i, lane] += of_lane[0, lane] * total - of_lane[1, lane] * f[i, lane]
            continue
        s, t = beside[i, 4], beside[i, 5]
        for lane in range(LANES):
            around[lane] = f[k, lane] + f[m, lane] + f[q, lane] + f[r, lane]
        for lane in range(LANES):
            total = around[lane] + f[s, lane] + f[t, lane]
            p[i, lane] += of_lane[0, lane] * total - of_lane[1, lane] * f[i, lane]
    for i in range(f.shape[0]):
        for lane in range(LANES):
            f[i, lane] += of_lane[2, lane] * p[i, lane]


@_part
def _weigh_lanes(f: Any, p: Any, of_lane: Any, beside: Any, pull: Any, total: Any) -> None:
    """Terms of 2 Q of LANES lattices, into total [LANES]."""
    sides = beside.shape[1]
    sites = f.dtype.type(sides)
    for lane in range(LANES):
        total[lane] = 0.0
    for i in range(f.shape[0]):
        k, m = beside[i, 0], beside[i, 1]
        for lane in range(LANES):
            pull[lane] = f[k, lane] + f[m, lane]
        for side in range(2, sides, 2):
            k, m = beside[i, side], beside[i, side + 1]
            for lane in range(LANES):
                pull[lane] += f[k, lane] + f[m, lane]
        for lane in range(LANES):
            curved = of_lane[3, lane] * (pull[lane] - sites * f[i, lane])
            pull[lane] = curved - of_lane[4, lane] * f[i, lane]
        for lane in range(LANES):
            pulled, speed = np.float64(pull[lane]), np.float64(p[i, lane])
            lag = np.float64(of_lane[2, lane]) * speed
            total[lane] += speed * speed + pulled * (lag - np.float64(f[i, lane]))
