"""Compiled twin of `envs/particles.py`: one pass per world through dynamics, neighbours and loss.

Neighbour selection is the cost, not arithmetic: squared distances of one row go to scratch in a
loop that vectorises, then a scan keeps the k nearest. From 128 discs on, a counting-sort cell list
replaces the row, and the work is linear in the number of discs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from .tally import tally

if TYPE_CHECKING:
    from ..core.system import Buffers
    from ..particles import Particles, State

FEW = 5  # discs up to which keeping a sorted list is the fastest
GRID_FROM = 128  # discs; below, all pairs are faster
_PAIR, _HEADING, _LAB = 0, 1, 2
_SOFTENING2 = 0.01
_TOLERANCE = 1.0 + 1e-6
_compile = njit(cache=True, error_model="numpy")
_inline = njit(inline="always", error_model="numpy")


class ParticlesKernel:
    """The kernel of one batch: parameters and scratch as arrays. See `Kernel` in core/system.py."""

    def __init__(self, system: Particles, worlds: int) -> None:
        actions = ("pair", "heading", "lab").index(system.actions)
        flags = [name in system.seen for name in ("I1", "I2", "I3", "I4")]
        raw = system.view == "raw"
        self._code = np.array([actions, raw, system.k, *flags, system.sees_motion], np.int64)
        bounds = system.bounds
        far = bounds["own"].high if raw else 0.0
        self._real = np.array(
            [
                system.dt,
                system.cutoff,
                system.gain if actions == _PAIR else system.max_acceleration,
                system.max_acceleration,
                system.margin,
                system.collision_weight,
                system.speed_weight,
                system.effort_weight,
                system.speed_limit,
                far,
                system.relaxation / system.gain,
            ]
        )
        self._index = np.full((worlds, system.n_agents, system.k), -1, np.int32)
        self._scratch = np.empty((9, system.n_agents))

    def observe(self, state: State, worlds: np.ndarray, observation: np.ndarray) -> None:
        kept = (self._index, self._code, self._real, self._scratch)
        observe(*state, worlds, *kept, observation)  # type: ignore[call-arg]

    def bind(self, buffers: Buffers) -> Callable[[np.ndarray, np.ndarray], int]:
        compiled: Callable[..., int] = step
        return partial(
            compiled,
            *buffers.state,
            self._index,
            self._code,
            self._real,
            self._scratch,
            buffers.reward,
            buffers.metric,
            buffers.totals,
            buffers.how,
            buffers.warm_up,
            buffers.clock,
            buffers.age,
        )


@_inline
def _image(d: float, side: float, inverse: float) -> float:
    return d - side * np.rint(d * inverse)


@_compile
def select_all(
    xs: Any, ys: Any, d2: Any, places: Any, side: float, cut2: float, index: Any
) -> None:
    """k nearest of every disc within the cutoff, by comparing it with all others.

    d2 [agents] and places [2, agents], float64, are scratch.
    """
    n, k = index.shape
    inverse = 1.0 / side if side > 0.0 else 0.0
    near, rank, best = places[0].view(np.int64), places[1].view(np.int64), places[0]
    for i in range(n):
        xi, yi = xs[i], ys[i]
        for j in range(n):
            dx = _image(xs[j] - xi, side, inverse)
            dy = _image(ys[j] - yi, side, inverse)
            d2[j] = dx * dx + dy * dy
        d2[i] = np.inf
        found = 0
        if n <= FEW:
            worst = cut2
            for j in range(n):
                if d2[j] < worst:
                    found, worst = _insert(best, index[i], found, k, d2[j], j, cut2)
            for m in range(found, k):
                index[i, m] = -1
            continue
        for j in range(n):
            near[found] = j
            found += d2[j] < cut2
        for m in range(found):
            d2[m] = d2[near[m]]
        _order(near, d2, rank, found, k, index[i])


@_inline
def _order(near: Any, d2: Any, rank: Any, found: int, k: int, row: Any) -> None:
    """Write the k nearest of `found` discs to `row`: each one's place is how many are nearer.

    Comparing all pairs without a branch beats sorting: there are about five within the cutoff.
    """
    for m in range(found):
        rank[m] = 0
    for m in range(found):
        for o in range(m):
            nearer = d2[m] < d2[o]
            rank[o] += nearer
            rank[m] += not nearer
    for m in range(found):
        if rank[m] < k:
            row[rank[m]] = near[m]
    for m in range(found, k):
        row[m] = -1


@_inline
def _insert(best: Any, row: Any, found: int, k: int, d: float, j: int, cut2: float) -> Any:
    """Put j into the sorted list; returns its new length and the distance that beats it."""
    m = found if found < k else k - 1
    while m > 0 and best[m - 1] > d:
        best[m] = best[m - 1]
        row[m] = row[m - 1]
        m -= 1
    best[m] = d
    row[m] = j
    if found < k:
        found += 1
    return found, (best[k - 1] if found == k else cut2)


@_compile
def _select_grid(x: Any, side: float, cut: float, index: Any) -> None:
    """The same by a cell list: only discs in the 3 x 3 cells around are compared."""
    n, k = index.shape
    cells = max(int(side / cut), 1)
    scale = cells / side
    start = np.zeros(cells * cells + 1, np.int64)
    home = np.empty(n, np.int64)
    for i in range(n):
        cx = min(int(x[i, 0] * scale), cells - 1)
        cy = min(int(x[i, 1] * scale), cells - 1)
        home[i] = cy * cells + cx
        start[home[i] + 1] += 1
    for c in range(cells * cells):
        start[c + 1] += start[c]
    place = start[:-1].copy()
    order = np.empty(n, np.int64)
    xs, ys = np.empty(n), np.empty(n)
    for i in range(n):
        slot = place[home[i]]
        place[home[i]] += 1
        order[slot] = i
        xs[slot], ys[slot] = x[i, 0], x[i, 1]
    best = np.empty(k)
    cut2 = cut * cut
    inverse = 1.0 / side
    for cell in range(cells * cells):
        cy, cx = cell // cells, cell % cells
        for slot in range(start[cell], start[cell + 1]):
            i = order[slot]
            row = index[i]
            found = 0
            worst = cut2
            for oy in range(-1, 2):
                line = ((cy + oy + cells) % cells) * cells
                for ox in range(-1, 2):
                    other = line + (cx + ox + cells) % cells
                    for t in range(start[other], start[other + 1]):
                        dx = _image(xs[t] - xs[slot], side, inverse)
                        dy = _image(ys[t] - ys[slot], side, inverse)
                        d = dx * dx + dy * dy
                        if d < worst and t != slot:
                            found, worst = _insert(best, row, found, k, d, order[t], cut2)
            for m in range(found, k):
                row[m] = -1


@_inline
def _cutoff(cutoff: float, side: float) -> float:
    return min(cutoff, 0.5 * side) if side > 0.0 else cutoff


@_compile
def _neighbours(x: Any, side: float, cutoff: float, scratch: Any, index: Any) -> None:
    n = len(x)
    cut = _cutoff(cutoff, side)
    if n >= GRID_FROM and side >= 3.0 * cut:
        _select_grid(x, side, cut, index)
        return
    xs, ys = scratch[0], scratch[1]
    for i in range(n):
        xs[i], ys[i] = x[i, 0], x[i, 1]
    select_all(xs, ys, scratch[2], scratch[7:9], side, cut * cut, index)


@_compile
def search(position: Any, box: Any, cutoff: float, index: Any) -> None:
    """k nearest within the cutoff for the torch form; `index` [worlds, agents, k], -1 if absent."""
    scratch = np.empty((9, position.shape[1]))
    for w in range(len(position)):
        _neighbours(position[w], box[w, 0], cutoff, scratch, index[w])


@_inline
def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@_inline
def _heading(px: float, py: float, hx: float, hy: float, weight: float) -> Any:
    hx = px - hx / (1.0 + weight)
    hy = py - hy / (1.0 + weight)
    length = math.sqrt(hx * hx + hy * hy + _SOFTENING2)
    return hx / length, hy / length


@_compile
def _write(
    x: Any, v: Any, desired: Any, side: float, index: Any, code: Any, real: Any, out: Any
) -> None:
    """Observations of one world from its neighbour list."""
    actions, raw, k = code[0], code[1], code[2]
    cutoff, most, far = real[1], real[8], real[9]
    inverse = 1.0 / side if side > 0.0 else 0.0
    c2, cu, uu = cutoff * cutoff, cutoff * most, most * most
    cut = _cutoff(cutoff, side)
    for i in range(len(x)):
        row = out[i]
        px, py = desired[i, 0] - v[i, 0], desired[i, 1] - v[i, 1]
        if raw:
            row[0], row[1] = _clip(x[i, 0], -far, far), _clip(x[i, 1], -far, far)
            row[2], row[3] = _clip(v[i, 0], -far, far), _clip(v[i, 1], -far, far)
            row[4], row[5] = _clip(desired[i, 0], -far, far), _clip(desired[i, 1], -far, far)
            for m in range(k):
                j = index[i, m]
                for axis in range(2):
                    row[6 + 4 * m + axis] = _clip(x[j, axis], -far, far) if j >= 0 else 0.0
                    row[8 + 4 * m + axis] = _clip(v[j, axis], -far, far) if j >= 0 else 0.0
            continue
        row[0] = _clip(px * px + py * py, 0.0, uu)
        at = 1
        ex, ey = 0.0, 0.0
        if actions == _HEADING:
            hx, hy, total = 0.0, 0.0, 0.0
            for m in range(k):
                j = index[i, m]
                if j >= 0:
                    rx = _image(x[j, 0] - x[i, 0], side, inverse)
                    ry = _image(x[j, 1] - x[i, 1], side, inverse)
                    near = 1.0 - (rx * rx + ry * ry) / (cut * cut)
                    total += near * near
                    hx += near * near * (v[j, 0] - v[i, 0])
                    hy += near * near * (v[j, 1] - v[i, 1])
            ex, ey = _heading(px, py, hx, hy, total)
            row[1] = _clip(px * ex + py * ey, -most, most)
            row[2] = _clip(ex * py - ey * px, -most, most)
            at = 3
        for m in range(k):
            j = index[i, m]
            i1, i2, i3, i4 = c2, 0.0, 0.0, 0.0
            rx, ry, ux, uy = 0.0, 0.0, 0.0, 0.0
            if j >= 0:
                rx = _image(x[j, 0] - x[i, 0], side, inverse)
                ry = _image(x[j, 1] - x[i, 1], side, inverse)
                ux, uy = v[j, 0] - v[i, 0], v[j, 1] - v[i, 1]
                i1 = rx * rx + ry * ry
                i2 = rx * ux + ry * uy
                i3 = ux * ux + uy * uy
                i4 = rx * uy - ry * ux
            to = at + m
            if code[3]:
                row[to] = _clip(i1, 0.0, c2)
                to += k
            if code[4]:
                row[to] = _clip(i2, -cu, cu)
                to += k
            if code[5]:
                row[to] = _clip(i3, 0.0, uu)
                to += k
            if code[6]:
                row[to] = _clip(i4, -cu, cu)
                to += k
            if actions == _HEADING:
                row[to] = _clip(rx * ex + ry * ey, -cutoff, cutoff)
                row[to + k] = _clip(ex * ry - ey * rx, -cutoff, cutoff)
                if code[7]:
                    row[to + 2 * k] = _clip(ux * ex + uy * ey, -most, most)
                    row[to + 3 * k] = _clip(ex * uy - ey * ux, -most, most)


@_compile
def observe(
    position: Any,
    velocity: Any,
    desired: Any,
    radius: Any,
    box: Any,
    worlds: Any,
    index: Any,
    code: Any,
    real: Any,
    scratch: Any,
    out: Any,
) -> None:
    """Neighbours and observations of the worlds whose indices are given."""
    for w in worlds:
        side = box[w, 0]
        _neighbours(position[w], side, real[1], scratch, index[w])
        _write(position[w], velocity[w], desired[w], side, index[w], code, real, out[w])


@_compile
def _accelerate(
    x: Any, v: Any, desired: Any, side: float, index: Any, action: Any, code: Any, real: Any, a: Any
) -> None:
    """Accelerations [2, agents] of one world."""
    actions, k = code[0], code[2]
    gain, limit2 = real[2], real[3] * real[3]
    inverse = 1.0 / side if side > 0.0 else 0.0
    cut = _cutoff(real[1], side)
    for i in range(len(x)):
        px, py = desired[i, 0] - v[i, 0], desired[i, 1] - v[i, 1]
        if actions == _LAB:
            ax, ay = 1.0 * action[i, 0], 1.0 * action[i, 1]
        else:
            ax, ay, total = 0.0, 0.0, 0.0
            for m in range(k):
                j = index[i, m]
                if j < 0:
                    break
                rx = _image(x[j, 0] - x[i, 0], side, inverse)
                ry = _image(x[j, 1] - x[i, 1], side, inverse)
                ux, uy = v[j, 0] - v[i, 0], v[j, 1] - v[i, 1]
                near = 1.0 - (rx * rx + ry * ry) / (cut * cut)
                near *= near
                total += near
                if actions == _HEADING:
                    ax += near * ux
                    ay += near * uy
                    continue
                to = m
                w = near * action[i, to]
                ax += w * rx
                ay += w * ry
                if code[7]:
                    to += k
                    w = near * action[i, to]
                    ax += w * ux
                    ay += w * uy
                if code[6]:
                    to += k
                    w = near * action[i, to]
                    ax -= w * ry
                    ay += w * rx
                    if code[7]:
                        to += k
                        w = near * action[i, to]
                        ax -= w * uy
                        ay += w * ux
            if actions == _HEADING:
                ex, ey = _heading(px, py, ax, ay, total)
                forward, left = 1.0 * action[i, 0], 1.0 * action[i, 1]
                ax, ay = forward * ex - left * ey, forward * ey + left * ex
            else:
                w = real[10] * action[i, action.shape[1] - 1]
                ax += w * px
                ay += w * py
        ax *= gain
        ay *= gain
        shrink = math.sqrt(limit2 / max(ax * ax + ay * ay, limit2))
        a[0, i] = shrink * ax
        a[1, i] = shrink * ay


@_compile
def step(
    position: Any,
    velocity: Any,
    desired: Any,
    radius: Any,
    box: Any,
    index: Any,
    code: Any,
    real: Any,
    scratch: Any,
    loss: Any,
    metric: Any,
    totals: Any,
    how: Any,
    warm_up: int,
    clock: Any,
    age: Any,
    action: Any,
    observation: Any,
) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    worlds, n, size = action.shape
    flat = action.reshape(-1)
    good = True
    for m in range(len(flat)):
        good &= abs(flat[m]) <= _TOLERANCE  # false for NaN
    if not good:
        for m in range(len(flat)):
            if not abs(flat[m]) <= _TOLERANCE:
                return m // size
    k = code[2]
    dt, margin = real[0], real[4]
    a, old = scratch[3:5], scratch[5:7]
    for w in range(worlds):
        x, v, goal, side, near = position[w], velocity[w], desired[w], box[w, 0], index[w]
        inverse = 1.0 / side if side > 0.0 else 0.0
        _accelerate(x, v, goal, side, near, action[w], code, real, a)
        for i in range(n):
            for axis in range(2):
                old[axis, i] = x[i, axis]
                v[i, axis] += dt * a[axis, i]
                moved = x[i, axis] + dt * v[i, axis]
                x[i, axis] = moved - side * math.floor(moved * inverse)
        _neighbours(x, side, real[1], scratch, near)
        _write(x, v, goal, side, near, code, real, observation[w])
        new, progress, touching = 0, 0.0, 0.0
        for i in range(n):
            penalty = 0.0
            for m in range(k):
                j = near[i, m]
                if j < 0:
                    break
                rx = _image(x[j, 0] - x[i, 0], side, inverse)
                ry = _image(x[j, 1] - x[i, 1], side, inverse)
                contact = radius[w, i] + radius[w, j]
                d2 = rx * rx + ry * ry
                reach = margin * contact
                if d2 < reach * reach:
                    overlap = reach - math.sqrt(d2)
                    penalty += overlap * overlap
                if d2 < contact * contact:
                    touching = 1.0
                    ox = _image(old[0, j] - old[0, i], side, inverse)
                    oy = _image(old[1, j] - old[1, i], side, inverse)
                    if ox * ox + oy * oy >= contact * contact:
                        new += 1
            px, py = goal[i, 0] - v[i, 0], goal[i, 1] - v[i, 1]
            loss[w, i] = (
                real[5] * penalty
                + real[6] * (px * px + py * py)
                + real[7] * (a[0, i] * a[0, i] + a[1, i] * a[1, i])
            )
            square = goal[i, 0] * goal[i, 0] + goal[i, 1] * goal[i, 1]
            progress += (v[i, 0] * goal[i, 0] + v[i, 1] * goal[i, 1]) / square
        metric[w, 0] = new / (2.0 * n * dt)
        metric[w, 1] = progress / n
        metric[w, 2] = touching
    tally(loss, metric, totals, how, warm_up, clock, age)
    return -1
