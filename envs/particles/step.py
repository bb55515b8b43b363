"""Compiled form of `discs.py`: one pass per world through dynamics, neighbours and loss."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernels.binding import arrays_at
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.physics.kernels.discs import (
    Rows,
    clip,
    cutoff_in,
    disc_code,
    disc_part,
    image,
    rows_of,
    select_all,
    select_by_cells,
)
from .control import SOFTENING2

_BLOCK = 512  # discs of the worlds that make a step together, so that they stay in the cache


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
    x: Any  # [agents] from here on what a selection works on, see Rows
    y: Any
    d2: Any
    near: Any
    rank: Any
    before: Any  # [2, block, agents] places before the step
    acceleration: Any  # [2, block, agents]


class Places(NamedTuple):
    """Of the state, what a search for neighbours needs."""

    position: Any
    box: Any


class Found(NamedTuple):
    """Of the scratch, what a search for neighbours fills."""

    neighbour: Any


class Moved(NamedTuple):
    """Of the scratch, what is passed on within a step."""

    neighbour: Any
    before: Any
    acceleration: Any


class Scores(NamedTuple):
    """Of the episode, what a step fills."""

    reward: Any
    metric: Any


PARAMETERS = np.dtype(
    [
        ("heading", np.bool_),
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
    ]
)


OWN_NAMES = (  # parameters that bear the name of the system's
    "dt",
    "cutoff",
    "max_acceleration",
    "margin",
    "collision_weight",
    "speed_weight",
    "effort_weight",
)


def scratch(worlds: int, n: int, k: int) -> Scratch:
    """Memory for a batch of worlds of n discs that see k."""
    block = max(_BLOCK // n, 1)
    neighbour = np.full((worlds, n, k), -1, np.int32)
    return Scratch(neighbour, *rows_of(n), np.empty((2, block, n)), np.empty((2, block, n)))


@disc_part
def _heading(px: float, py: float, hx: float, hy: float, weight: float) -> Any:
    hx = px - hx / (1.0 + weight)
    hy = py - hy / (1.0 + weight)
    length = math.sqrt(hx * hx + hy * hy + SOFTENING2)
    return hx / length, hy / length


@disc_part
def _score_and_observe(batch: Any, p: Any, out: Any, start: int, stop: int, scored: int) -> None:
    """Observations from neighbour lists; losses and metrics too of worlds below `scored`."""
    position, velocity, desired, radius, box = arrays_at(batch.state, Discs)
    index, before, acceleration = arrays_at(batch.scratch, Moved)
    reward, metric = arrays_at(batch.episode, Scores)
    cutoff, most = p.cutoff, p.speed_limit
    n, k = position.shape[1], index.shape[2]
    c2, cu, uu = cutoff * cutoff, cutoff * most, most * most
    for w in range(start, stop):
        side = box[w, 0]
        c = w - start
        inverse = 1.0 / side if side > 0.0 else 0.0
        per_cut2 = 1.0 / cutoff_in(cutoff, side) ** 2
        new, progress, touching = 0, 0.0, 0.0
        for i in range(n):
            x, y = position[w, i, 0], position[w, i, 1]
            vx, vy = velocity[w, i, 0], velocity[w, i, 1]
            gx, gy = desired[w, i, 0], desired[w, i, 1]
            px, py = gx - vx, gy - vy
            size = radius[w, i]
            ex, ey, at = 0.0, 0.0, 1
            out[w, i, 0] = clip(px * px + py * py, 0.0, uu)
            if p.heading:
                hx, hy, total = 0.0, 0.0, 0.0
                for m in range(k):
                    j = index[w, i, m]
                    if j < 0:
                        break
                    rx = image(position[w, j, 0] - x, side, inverse)
                    ry = image(position[w, j, 1] - y, side, inverse)
                    window = 1.0 - (rx * rx + ry * ry) * per_cut2
                    window *= window
                    total += window
                    hx += window * (velocity[w, j, 0] - vx)
                    hy += window * (velocity[w, j, 1] - vy)
                ex, ey = _heading(px, py, hx, hy, total)
                out[w, i, 1] = clip(px * ex + py * ey, -most, most)
                out[w, i, 2] = clip(ex * py - ey * px, -most, most)
                at = 3
            penalty = 0.0
            for m in range(k):
                j = index[w, i, m]
                i1, rx, ry, ux, uy = c2, 0.0, 0.0, 0.0, 0.0
                if j >= 0:
                    rx = image(position[w, j, 0] - x, side, inverse)
                    ry = image(position[w, j, 1] - y, side, inverse)
                    ux, uy = velocity[w, j, 0] - vx, velocity[w, j, 1] - vy
                    i1 = rx * rx + ry * ry
                    contact = size + radius[w, j]
                    reach = p.margin * contact
                    if w < scored and i1 < reach * reach:
                        overlap = reach - math.sqrt(i1)
                        penalty += overlap * overlap
                    if w < scored and i1 < contact * contact:
                        touching = 1.0
                        ox = image(before[0, c, j] - before[0, c, i], side, inverse)
                        oy = image(before[1, c, j] - before[1, c, i], side, inverse)
                        new += ox * ox + oy * oy >= contact * contact
                to = at + m
                if p.sees_i1:
                    out[w, i, to] = clip(i1, 0.0, c2)
                    to += k
                if p.sees_i2:
                    out[w, i, to] = clip(rx * ux + ry * uy, -cu, cu)
                    to += k
                if p.sees_i3:
                    out[w, i, to] = clip(ux * ux + uy * uy, 0.0, uu)
                    to += k
                if p.sees_i4:
                    out[w, i, to] = clip(rx * uy - ry * ux, -cu, cu)
                    to += k
                if p.heading:
                    out[w, i, to] = clip(rx * ex + ry * ey, -cutoff, cutoff)
                    out[w, i, to + k] = clip(ex * ry - ey * rx, -cutoff, cutoff)
                    if p.sees_motion:
                        out[w, i, to + 2 * k] = clip(ux * ex + uy * ey, -most, most)
                        out[w, i, to + 3 * k] = clip(ex * uy - ey * ux, -most, most)
            if w < scored:
                ax, ay = acceleration[0, c, i], acceleration[1, c, i]
                effort = ax * ax + ay * ay
                reward[w, i] = (
                    p.collision_weight * penalty
                    + p.speed_weight * (px * px + py * py)
                    + p.effort_weight * effort
                )
                progress += (vx * gx + vy * gy) / (gx * gx + gy * gy)
        if w < scored:
            metric[w, 0] = new / (2.0 * n * p.dt)
            metric[w, 1] = progress / n
            metric[w, 2] = touching


@disc_part
def _move(batch: Any, p: Any, action: Any, start: int, stop: int) -> None:
    """Accelerate and move; old places and accelerations go to the scratch."""
    position, velocity, desired, _, box = arrays_at(batch.state, Discs)
    index, before, acceleration = arrays_at(batch.scratch, Moved)
    dt, limit2 = p.dt, p.max_acceleration * p.max_acceleration
    n, k, last = position.shape[1], index.shape[2], action.shape[2] - 1
    for w in range(start, stop):
        side = box[w, 0]
        c = w - start
        inverse = 1.0 / side if side > 0.0 else 0.0
        per_cut2 = 1.0 / cutoff_in(p.cutoff, side) ** 2
        for i in range(n):
            x, y = position[w, i, 0], position[w, i, 1]
            vx, vy = velocity[w, i, 0], velocity[w, i, 1]
            px, py = desired[w, i, 0] - vx, desired[w, i, 1] - vy
            ax, ay = 0.0, 0.0
            total = 0.0
            for m in range(k):
                j = index[w, i, m]
                if j < 0:
                    break
                rx = image(position[w, j, 0] - x, side, inverse)
                ry = image(position[w, j, 1] - y, side, inverse)
                ux, uy = velocity[w, j, 0] - vx, velocity[w, j, 1] - vy
                window = 1.0 - (rx * rx + ry * ry) * per_cut2
                window *= window
                if p.heading:
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
            if p.heading:
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


@disc_part
def _find(batch: Any, p: Any, start: int, stop: int) -> None:
    position, box = arrays_at(batch.state, Places)
    rows, index = arrays_at(batch.scratch, Rows), arrays_at(batch.scratch, Found)
    select_all(position, box, p.cutoff, rows, index.neighbour, start, stop)


@disc_code
def _find_by_cells(batch: Any, p: Any, start: int, stop: int) -> None:
    position, box = arrays_at(batch.state, Places)
    rows, index = arrays_at(batch.scratch, Rows), arrays_at(batch.scratch, Found)
    select_by_cells(position, box, p.cutoff, rows, index.neighbour, start, stop)


@disc_code
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Neighbours and observations of the worlds whose indices are given."""
    batch, p = arrays[0], parameters[0]
    for w in worlds:
        _find(batch, p, w, w + 1)
        _score_and_observe(batch, p, out, w, w + 1, w)


@disc_code
def observe_by_cells(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """`observe` for large worlds."""
    batch, p = arrays[0], parameters[0]
    for w in worlds:
        _find_by_cells(batch, p, w, w + 1)
        _score_and_observe(batch, p, out, w, w + 1, w)


@disc_code
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    batch, p = arrays[0], parameters[0]
    worlds, block = action.shape[0], max(_BLOCK // action.shape[1], 1)
    for start in range(0, worlds, block):
        stop = min(start + block, worlds)
        _move(batch, p, action, start, stop)
        _find(batch, p, start, stop)
        _score_and_observe(batch, p, observation, start, stop, stop)
    accumulate_metrics(batch.episode)
    return -1


@disc_code
def step_by_cells(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """`step` for large worlds."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    batch, p = arrays[0], parameters[0]
    for w in range(action.shape[0]):
        _move(batch, p, action, w, w + 1)
        _find_by_cells(batch, p, w, w + 1)
        _score_and_observe(batch, p, observation, w, w + 1, w + 1)
    accumulate_metrics(batch.episode)
    return -1
