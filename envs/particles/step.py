"""Compiled form of `discs.py`: one pass per world through dynamics, neighbours and loss.

Neighbour selection is the cost, not arithmetic: squared distances of one row go to scratch in a
loop that vectorises, then a scan keeps the k nearest. From 128 discs on, a counting-sort cell list
replaces the row, and the work is linear in the number of discs.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.kernel import Episode, Kernel, parameter_record
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled
from ..core.kernels.philox import uniform_pair
from ..core.kernels.reductions import accumulate_metrics, bad_action

if TYPE_CHECKING:
    from ..core.rng import Rng
    from .discs import Particles

FEW = 5  # discs up to which keeping a sorted list is the fastest
GRID_FROM = 128  # discs; below, all pairs are faster
_PAIR, _HEADING, _LAB = 0, 1, 2
_BLOCK = 512  # discs of the worlds that make a step together, so that they stay in the cache
_SOFTENING2 = 0.01
# Fused multiply-adds round once, in the same way in every batch.
_compile = compiled(error_model="numpy", fastmath={"contract"})
_inline = _compile


class Discs(NamedTuple):
    """The state, in the order of its fields."""

    position: Any
    velocity: Any
    desired: Any
    radius: Any
    box: Any


class Scratch(NamedTuple):
    """Memory of one batch."""

    neighbour: Any  # [worlds, agents, k] the nearest discs, -1 for who is absent
    rows: Any  # [5, agents] what a selection works on
    before: Any  # [2, block, agents] places before the step
    acceleration: Any  # [2, block, agents]


PARAMETERS = np.dtype(
    [
        ("actions", np.int64),
        ("raw", np.bool_),
        ("sees_i1", np.bool_),
        ("sees_i2", np.bool_),
        ("sees_i3", np.bool_),
        ("sees_i4", np.bool_),
        ("sees_motion", np.bool_),
        ("dt", float),
        ("cutoff", float),
        ("gain", float),
        ("max_acceleration", float),
        ("relaxation", float),
        ("margin", float),
        ("collision_weight", float),
        ("speed_weight", float),
        ("effort_weight", float),
        ("speed_limit", float),
        ("farthest", float),
    ]
)


def make_kernel(system: Particles, worlds: int) -> Kernel:
    """The kernel of `worlds` worlds."""
    n = system.n_agents
    pair = system.actions == "pair"
    raw = system.view == "raw"
    block = max(_BLOCK // n, 1)
    return Kernel(
        step,
        observe,
        parameter_record(
            PARAMETERS,
            actions=("pair", "heading", "lab").index(system.actions),
            raw=raw,
            sees_i1="I1" in system.seen,
            sees_i2="I2" in system.seen,
            sees_i3="I3" in system.seen,
            sees_i4="I4" in system.seen,
            sees_motion=system.sees_motion,
            dt=system.dt,
            cutoff=system.cutoff,
            gain=system.gain if pair else system.max_acceleration,
            max_acceleration=system.max_acceleration,
            relaxation=system.relaxation / system.gain,
            margin=system.margin,
            collision_weight=system.collision_weight,
            speed_weight=system.speed_weight,
            effort_weight=system.effort_weight,
            speed_limit=system.speed_limit,
            farthest=system.bounds["own"].high if raw else 0.0,
        ),
        scratch=Scratch(
            np.full((worlds, n, system.k), -1, np.int32),
            np.empty((5, n)),
            np.empty((2, block, n)),
            np.empty((2, block, n)),
        ),
        initial=partial(_crowd, system) if system.layout == "crowd" else None,
    )


def _crowd(system: Particles, rng: Rng) -> tuple[np.ndarray, ...]:
    """The fields of what `Particles.initial` gives for a crowd."""
    world, n = rng.world.numpy(), system.n_agents
    x, v, desired = (np.empty((len(world), n, 2)) for _ in range(3))
    radius, box = np.full((len(world), n), system.radius), np.empty((len(world), 1))
    density, speed = (
        value if isinstance(value, tuple) else (value, value)
        for value in (system.density, system.speed)
    )
    ranges = np.array([*density, *speed])
    place_crowd(
        np.uint64(rng.seed), world, rng.clock.numpy(), rng.draw_number, ranges, system.radius,
        system.rows, x, v, desired, box,
    )  # fmt: skip
    return x, v, desired, radius, box


@_compile
def place_crowd(
    seed: Any,
    world: Any,
    clock: Any,
    draw: int,
    ranges: Any,
    radius: float,
    rows: int,
    position: Any,
    velocity: Any,
    desired: Any,
    box: Any,
) -> None:
    """Random cells of a lattice on the torus, jittered; ranges: of density, of speed."""
    n = position.shape[1]
    key = np.empty(rows * rows)
    for w in range(len(world)):
        who, when = world[w], clock[w]
        a, b = uniform_pair(seed, who, when, draw, 0)
        side = math.sqrt(n / (ranges[0] + (ranges[1] - ranges[0]) * a))
        spacing = side / rows
        slack = (1.0 - 2.0 * radius / spacing) * (1.0 - 1e-9)
        for m in range((len(key) + 1) // 2):
            a, b = uniform_pair(seed, who, when, draw + 1, m)
            key[2 * m] = a
            if 2 * m + 1 < len(key):
                key[2 * m + 1] = b
        cell = np.argsort(key)
        x0, y0 = uniform_pair(seed, who, when, draw + 3, 0)
        a, b = uniform_pair(seed, who, when, draw + 5, 0)
        speed = ranges[2] + (ranges[3] - ranges[2]) * a
        box[w, 0] = side
        for i in range(n):
            a, b = uniform_pair(seed, who, when, draw + 2, i)
            x = (cell[i] % rows + (0.5 + slack * (a - 0.5))) * spacing + x0 * side
            y = (cell[i] // rows + (0.5 + slack * (b - 0.5))) * spacing + y0 * side
            position[w, i, 0] = x - side * np.floor(x / side)
            position[w, i, 1] = y - side * np.floor(y / side)
            a, b = uniform_pair(seed, who, when, draw + 4, i // 2)
            angle = 2.0 * math.pi * (b if i % 2 else a)
            desired[w, i, 0] = velocity[w, i, 0] = speed * math.cos(angle)
            desired[w, i, 1] = velocity[w, i, 1] = speed * math.sin(angle)


@_inline
def _image(d: float, side: float, inverse: float) -> float:
    return d - side * np.rint(d * inverse)


@_inline
def _cutoff(cutoff: float, side: float) -> float:
    return min(cutoff, 0.5 * side) if side > 0.0 else cutoff


@_inline
def _order(near: Any, d2: Any, rank: Any, found: int, k: int, index: Any, w: int, i: int) -> None:
    """Write the k nearest of `found` discs: the place of each is how many are nearer.

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
            index[w, i, rank[m]] = near[m]
    for m in range(found, k):
        index[w, i, m] = -1


@_inline
def _insert(
    best: Any, index: Any, w: int, i: int, found: int, k: int, d: float, j: int, cut2: float
) -> Any:
    """Put j into the sorted list; returns its new length and the distance that beats it."""
    m = found if found < k else k - 1
    while m > 0 and best[m - 1] > d:
        best[m] = best[m - 1]
        index[w, i, m] = index[w, i, m - 1]
        m -= 1
    best[m] = d
    index[w, i, m] = j
    if found < k:
        found += 1
    return found, (best[k - 1] if found == k else cut2)


@_compile
def select_all(
    position: Any, box: Any, cutoff: float, scratch: Any, index: Any, start: int, stop: int
) -> None:
    """k nearest of every disc in the worlds from start to stop, by comparing all of a world.

    scratch [5, agents]; index [worlds, agents, k] is filled, with -1 for who is absent.
    """
    n, k = index.shape[1], index.shape[2]
    xs, ys, d2 = scratch[0], scratch[1], scratch[2]
    near, rank, best = scratch[3].view(np.int64), scratch[4].view(np.int64), scratch[3]
    for w in range(start, stop):
        side = box[w, 0]
        inverse = 1.0 / side if side > 0.0 else 0.0
        cut2 = _cutoff(cutoff, side) ** 2
        for i in range(n):
            xs[i], ys[i] = position[w, i, 0], position[w, i, 1]
        for i in range(n):
            x, y = xs[i], ys[i]
            for j in range(n):
                dx = _image(xs[j] - x, side, inverse)
                dy = _image(ys[j] - y, side, inverse)
                d2[j] = dx * dx + dy * dy
            d2[i] = np.inf
            found = 0
            if n <= FEW:
                worst = cut2
                for j in range(n):
                    if d2[j] < worst:
                        found, worst = _insert(best, index, w, i, found, k, d2[j], j, cut2)
                for m in range(found, k):
                    index[w, i, m] = -1
                continue
            for j in range(n):
                near[found] = j
                found += d2[j] < cut2
            for m in range(found):
                d2[m] = d2[near[m]]
            _order(near, d2, rank, found, k, index, w, i)


@_compile
def _select_grid(position: Any, w: int, side: float, cut: float, index: Any) -> None:
    """The same by a cell list: only discs in the 3 x 3 cells around are compared."""
    n, k = index.shape[1], index.shape[2]
    cells = max(int(side / cut), 1)
    scale = cells / side
    start = np.zeros(cells * cells + 1, np.int64)
    home = np.empty(n, np.int64)
    for i in range(n):
        cx = min(int(position[w, i, 0] * scale), cells - 1)
        cy = min(int(position[w, i, 1] * scale), cells - 1)
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
        xs[slot], ys[slot] = position[w, i, 0], position[w, i, 1]
    best = np.empty(k)
    cut2 = cut * cut
    inverse = 1.0 / side
    for cell in range(cells * cells):
        cy, cx = cell // cells, cell % cells
        for slot in range(start[cell], start[cell + 1]):
            i = order[slot]
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
                            found, worst = _insert(best, index, w, i, found, k, d, order[t], cut2)
            for m in range(found, k):
                index[w, i, m] = -1


@_compile
def _find(
    position: Any, box: Any, cutoff: float, scratch: Any, index: Any, start: int, stop: int
) -> None:
    """Neighbours in the worlds from start to stop, into `index` [worlds, agents, k]."""
    if position.shape[1] < GRID_FROM:
        select_all(position, box, cutoff, scratch, index, start, stop)
        return
    for w in range(start, stop):
        side = box[w, 0]
        cut = _cutoff(cutoff, side)
        if side >= 3.0 * cut:
            _select_grid(position, w, side, cut, index)
        else:
            select_all(position, box, cutoff, scratch, index, w, w + 1)


@_compile
def search(position: Any, box: Any, cutoff: float, index: Any) -> None:
    """k nearest within the cutoff for the torch form; `index` [worlds, agents, k], -1 if absent."""
    scratch = np.empty((5, position.shape[1]))
    _find(position, box, cutoff, scratch, index, 0, len(position))


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
def _look(
    discs: Any, scratch: Any, episode: Any, p: Any, out: Any, start: int, stop: int, scored: int
) -> None:
    """Observations from neighbour lists; losses and metrics too of worlds below `scored`."""
    position, velocity, desired, radius, box = discs
    index, before, acceleration = scratch.neighbour, scratch.before, scratch.acceleration
    cutoff, most, far = p.cutoff, p.speed_limit, p.farthest
    n, k = position.shape[1], index.shape[2]
    c2, cu, uu = cutoff * cutoff, cutoff * most, most * most
    for w in range(start, stop):
        side = box[w, 0]
        c = w - start
        inverse = 1.0 / side if side > 0.0 else 0.0
        per_cut2 = 1.0 / _cutoff(cutoff, side) ** 2
        new, progress, touching = 0, 0.0, 0.0
        for i in range(n):
            x, y = position[w, i, 0], position[w, i, 1]
            vx, vy = velocity[w, i, 0], velocity[w, i, 1]
            gx, gy = desired[w, i, 0], desired[w, i, 1]
            px, py = gx - vx, gy - vy
            size = radius[w, i]
            ex, ey, at = 0.0, 0.0, 1
            if p.raw:
                out[w, i, 0], out[w, i, 1] = _clip(x, -far, far), _clip(y, -far, far)
                out[w, i, 2], out[w, i, 3] = _clip(vx, -far, far), _clip(vy, -far, far)
                out[w, i, 4], out[w, i, 5] = _clip(gx, -far, far), _clip(gy, -far, far)
            else:
                out[w, i, 0] = _clip(px * px + py * py, 0.0, uu)
            if p.actions == _HEADING and not p.raw:
                hx, hy, total = 0.0, 0.0, 0.0
                for m in range(k):
                    j = index[w, i, m]
                    if j < 0:
                        break
                    rx = _image(position[w, j, 0] - x, side, inverse)
                    ry = _image(position[w, j, 1] - y, side, inverse)
                    window = 1.0 - (rx * rx + ry * ry) * per_cut2
                    window *= window
                    total += window
                    hx += window * (velocity[w, j, 0] - vx)
                    hy += window * (velocity[w, j, 1] - vy)
                ex, ey = _heading(px, py, hx, hy, total)
                out[w, i, 1] = _clip(px * ex + py * ey, -most, most)
                out[w, i, 2] = _clip(ex * py - ey * px, -most, most)
                at = 3
            penalty = 0.0
            for m in range(k):
                j = index[w, i, m]
                i1, rx, ry, ux, uy = c2, 0.0, 0.0, 0.0, 0.0
                if j >= 0:
                    rx = _image(position[w, j, 0] - x, side, inverse)
                    ry = _image(position[w, j, 1] - y, side, inverse)
                    ux, uy = velocity[w, j, 0] - vx, velocity[w, j, 1] - vy
                    i1 = rx * rx + ry * ry
                    contact = size + radius[w, j]
                    reach = p.margin * contact
                    if w < scored and i1 < reach * reach:
                        overlap = reach - math.sqrt(i1)
                        penalty += overlap * overlap
                        if i1 < contact * contact:
                            touching = 1.0
                            ox = _image(before[0, c, j] - before[0, c, i], side, inverse)
                            oy = _image(before[1, c, j] - before[1, c, i], side, inverse)
                            new += ox * ox + oy * oy >= contact * contact
                if p.raw:
                    to = 6 + 4 * m
                    out[w, i, to] = _clip(position[w, j, 0], -far, far) if j >= 0 else 0.0
                    out[w, i, to + 1] = _clip(position[w, j, 1], -far, far) if j >= 0 else 0.0
                    out[w, i, to + 2] = _clip(velocity[w, j, 0], -far, far) if j >= 0 else 0.0
                    out[w, i, to + 3] = _clip(velocity[w, j, 1], -far, far) if j >= 0 else 0.0
                    continue
                to = at + m
                if p.sees_i1:
                    out[w, i, to] = _clip(i1, 0.0, c2)
                    to += k
                if p.sees_i2:
                    out[w, i, to] = _clip(rx * ux + ry * uy, -cu, cu)
                    to += k
                if p.sees_i3:
                    out[w, i, to] = _clip(ux * ux + uy * uy, 0.0, uu)
                    to += k
                if p.sees_i4:
                    out[w, i, to] = _clip(rx * uy - ry * ux, -cu, cu)
                    to += k
                if p.actions == _HEADING:
                    out[w, i, to] = _clip(rx * ex + ry * ey, -cutoff, cutoff)
                    out[w, i, to + k] = _clip(ex * ry - ey * rx, -cutoff, cutoff)
                    if p.sees_motion:
                        out[w, i, to + 2 * k] = _clip(ux * ex + uy * ey, -most, most)
                        out[w, i, to + 3 * k] = _clip(ex * uy - ey * ux, -most, most)
            if w < scored:
                ax, ay = acceleration[0, c, i], acceleration[1, c, i]
                effort = ax * ax + ay * ay
                episode.reward[w, i] = (
                    p.collision_weight * penalty
                    + p.speed_weight * (px * px + py * py)
                    + p.effort_weight * effort
                )
                progress += (vx * gx + vy * gy) / (gx * gx + gy * gy)
        if w < scored:
            episode.metric[w, 0] = new / (2.0 * n * p.dt)
            episode.metric[w, 1] = progress / n
            episode.metric[w, 2] = touching


@_compile
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Neighbours and observations of the worlds whose indices are given."""
    discs, scratch = arrays_at(arrays[0].state, Discs), arrays_at(arrays[0].scratch, Scratch)
    episode, p = arrays_at(arrays[0].episode, Episode), parameters[0]
    for w in worlds:
        _find(discs.position, discs.box, p.cutoff, scratch.rows, scratch.neighbour, w, w + 1)
        _look(discs, scratch, episode, p, out, w, w + 1, w)


@_compile
def _move(discs: Any, scratch: Any, p: Any, action: Any, start: int, stop: int) -> None:
    """Accelerate and move; old places and accelerations go to the scratch."""
    position, velocity, desired, _, box = discs
    index, before, acceleration = scratch.neighbour, scratch.before, scratch.acceleration
    dt, limit2 = p.dt, p.max_acceleration * p.max_acceleration
    n, k, last = position.shape[1], index.shape[2], action.shape[2] - 1
    for w in range(start, stop):
        side = box[w, 0]
        c = w - start
        inverse = 1.0 / side if side > 0.0 else 0.0
        per_cut2 = 1.0 / _cutoff(p.cutoff, side) ** 2
        for i in range(n):
            x, y = position[w, i, 0], position[w, i, 1]
            vx, vy = velocity[w, i, 0], velocity[w, i, 1]
            px, py = desired[w, i, 0] - vx, desired[w, i, 1] - vy
            ax, ay = 0.0, 0.0
            if p.actions == _LAB:
                ax, ay = 1.0 * action[w, i, 0], 1.0 * action[w, i, 1]
            else:
                total = 0.0
                for m in range(k):
                    j = index[w, i, m]
                    if j < 0:
                        break
                    rx = _image(position[w, j, 0] - x, side, inverse)
                    ry = _image(position[w, j, 1] - y, side, inverse)
                    ux, uy = velocity[w, j, 0] - vx, velocity[w, j, 1] - vy
                    window = 1.0 - (rx * rx + ry * ry) * per_cut2
                    window *= window
                    if p.actions == _HEADING:
                        total += window
                        ax += window * ux
                        ay += window * uy
                        continue
                    to, along, across = m, window * action[w, i, m], 0.0
                    cx, cy = along * rx, along * ry
                    if p.sees_motion:
                        to += k
                        along = window * action[w, i, to]
                        cx += along * ux
                        cy += along * uy
                    if p.sees_i4:
                        to += k
                        across = window * action[w, i, to]
                        cx -= across * ry
                        cy += across * rx
                        if p.sees_motion:
                            to += k
                            across = window * action[w, i, to]
                            cx -= across * uy
                            cy += across * ux
                    ax += cx
                    ay += cy
                if p.actions == _HEADING:
                    ex, ey = _heading(px, py, ax, ay, total)
                    forward, left = 1.0 * action[w, i, 0], 1.0 * action[w, i, 1]
                    ax, ay = forward * ex - left * ey, forward * ey + left * ex
                else:
                    ease = p.relaxation * action[w, i, last]
                    ax += ease * px
                    ay += ease * py
            ax *= p.gain
            ay *= p.gain
            shrink = math.sqrt(limit2 / max(ax * ax + ay * ay, limit2))
            acceleration[0, c, i] = shrink * ax
            acceleration[1, c, i] = shrink * ay
        for i in range(n):
            for axis in range(2):
                place = position[w, i, axis]
                before[axis, c, i] = place
                velocity[w, i, axis] += dt * acceleration[axis, c, i]
                moved = place + dt * velocity[w, i, axis]
                position[w, i, axis] = moved - side * np.floor(moved * inverse)


@_compile
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    discs, scratch = arrays_at(arrays[0].state, Discs), arrays_at(arrays[0].scratch, Scratch)
    episode, p = arrays_at(arrays[0].episode, Episode), parameters[0]
    worlds, block = action.shape[0], scratch.before.shape[1]
    for start in range(0, worlds, block):
        stop = min(start + block, worlds)
        _move(discs, scratch, p, action, start, stop)
        _find(discs.position, discs.box, p.cutoff, scratch.rows, scratch.neighbour, start, stop)
        _look(discs, scratch, episode, p, observation, start, stop, stop)
    accumulate_metrics(episode)
    return -1
