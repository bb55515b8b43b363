"""Compiled form of `goal_discs.py`: one pass per world through dynamics, contacts and loss."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernels.binding import arrays_at
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.physics.kernels.discs import Rows, clip, disc_code, disc_part, rows_of
from .goal_search import (
    cells_of,
    nearest_by_cells,
    nearest_of_all,
    overlaps_by_cells,
    overlaps_of_all,
    overlaps_of_nearest,
    reach_of,
)
from .goal_state import SETTLED, TOLERANCE


class World(NamedTuple):
    """Of the state, what a step uses; see `goal_discs.State`."""

    position: Any
    velocity: Any
    goal: Any
    goal_velocity: Any
    radius: Any
    distance: Any
    scale: Any
    arrival_time: Any
    hit: Any
    deepest: Any
    effort: Any
    steps: Any


class Scratch(NamedTuple):
    """Memory of one batch. Neighbours stay from one step to the next."""

    neighbour: Any  # [worlds, agents, k] the nearest discs, -1 for who is absent
    x: Any  # [agents] from here on what a selection works on, see Rows
    y: Any
    d2: Any
    near: Any
    rank: Any
    before: Any  # [worlds, agents, 2] places before the step
    depth: Any  # [worlds, agents] overlaps on the way
    acceleration: Any  # [worlds, agents, 2]


class Moved(NamedTuple):
    """Of the scratch, what is passed on within a step."""

    neighbour: Any
    before: Any
    depth: Any
    acceleration: Any


class Scores(NamedTuple):
    """Of the episode, what a step fills."""

    reward: Any
    metric: Any


PARAMETERS = np.dtype(
    [
        ("accelerates", np.bool_),
        ("dt", float),
        ("speed", float),
        ("max_acceleration", float),
        ("arrival", float),
        ("cutoff", float),
        ("reach", float),
        ("gain", float),
        ("margin", float),
        ("distance_weight", float),
        ("absence_weight", float),
        ("collision_weight", float),
        ("effort_weight", float),
        ("speed_limit", float),
        ("distance_limit", float),
    ]
)


def scratch(worlds: int, n: int, k: int) -> Scratch:
    """Memory for a batch of worlds of n discs that see k."""
    neighbour = np.full((worlds, n, k), -1, np.int32)
    before, acceleration = np.zeros((2, worlds, n, 2))
    return Scratch(neighbour, *rows_of(n), before, np.zeros((worlds, n)), acceleration)


@disc_part
def _over(arrival_time: Any, w: int) -> bool:
    """Whether all discs of a world have arrived."""
    for i in range(arrival_time.shape[1]):
        if arrival_time[w, i] < 0.0:
            return False
    return True


@disc_part
def _accelerate(batch: Any, p: Any, action: Any, w: int) -> None:
    """What actions of world w ask for: accelerations go to the scratch."""
    s, moved = arrays_at(batch.state, World), arrays_at(batch.scratch, Moved)
    position, velocity, index = s.position, s.velocity, moved.neighbour
    n, k = position.shape[1], index.shape[2]
    for i in range(n):
        x, y = position[w, i, 0], position[w, i, 1]
        vx, vy = velocity[w, i, 0], velocity[w, i, 1]
        gx, gy = s.goal[w, i, 0] - x, s.goal[w, i, 1] - y
        d = math.sqrt(gx * gx + gy * gy)
        ex, ey = (gx / d, gy / d) if d > 0.0 else (1.0, 0.0)
        along, across = 1.0 * action[w, i, 4 * k], 1.0 * action[w, i, 4 * k + 1]
        wx, wy = along * ex - across * ey, along * ey + across * ex
        wx *= p.speed
        wy *= p.speed
        for m in range(k):
            j = index[w, i, m]
            if j < 0:
                break
            rx, ry = position[w, j, 0] - x, position[w, j, 1] - y
            window = 1.0 - (rx * rx + ry * ry) / (p.reach * p.reach)
            if window <= 0.0:
                break
            window *= window * p.gain
            ux, uy = velocity[w, j, 0] - vx, velocity[w, j, 1] - vy
            a, b = 1.0 * action[w, i, m], 1.0 * action[w, i, k + m]
            c, e = 1.0 * action[w, i, 2 * k + m], 1.0 * action[w, i, 3 * k + m]
            wx += window * (a * rx + b * ux - c * ry - e * uy)
            wy += window * (a * ry + b * uy + c * rx + e * ux)
        cx, cy = vx - s.goal_velocity[w, i, 0], vy - s.goal_velocity[w, i, 1]
        if p.accelerates:
            wx, wy = wx / p.speed, wy / p.speed
            shrink = p.max_acceleration * p.dt / math.sqrt(max(wx * wx + wy * wy, 1.0))
            wx, wy = cx + shrink * wx, cy + shrink * wy
        shrink = p.speed / math.sqrt(max(wx * wx + wy * wy, p.speed * p.speed))
        ax, ay = (shrink * wx - cx) / p.dt, (shrink * wy - cy) / p.dt
        limit2 = p.max_acceleration * p.max_acceleration
        shrink = math.sqrt(limit2 / max(ax * ax + ay * ay, limit2))
        moved.acceleration[w, i, 0] = shrink * ax
        moved.acceleration[w, i, 1] = shrink * ay


@disc_part
def _observe(batch: Any, p: Any, out: Any, w: int) -> None:
    """Observations of world w from its neighbour lists, in the order of `GoalDiscs.bounds`."""
    s, moved = arrays_at(batch.state, World), arrays_at(batch.scratch, Moved)
    position, velocity, index = s.position, s.velocity, moved.neighbour
    n, k = position.shape[1], index.shape[2]
    cutoff, most = p.cutoff, p.speed_limit
    c2, cu, uu = cutoff * cutoff, cutoff * most, most * most
    for i in range(n):
        x, y = position[w, i, 0], position[w, i, 1]
        vx, vy = velocity[w, i, 0], velocity[w, i, 1]
        gx, gy = s.goal[w, i, 0] - x, s.goal[w, i, 1] - y
        d = math.sqrt(gx * gx + gy * gy)
        ex, ey = (gx / d, gy / d) if d > 0.0 else (1.0, 0.0)
        cx, cy = vx - s.goal_velocity[w, i, 0], vy - s.goal_velocity[w, i, 1]
        row = out[w, i]
        row[0] = min(d, p.distance_limit)
        row[1] = 1.0 if s.arrival_time[w, i] >= 0.0 else 0.0
        row[2] = clip(ex * cx + ey * cy, -most, most)
        row[3] = clip(ex * cy - ey * cx, -most, most)
        for m in range(k):
            j = index[w, i, m]
            at = 4 + m
            if j < 0:
                row[at] = c2
                for column in range(1, 10):
                    row[at + column * k] = 0.0
                continue
            rx, ry = position[w, j, 0] - x, position[w, j, 1] - y
            ux, uy = velocity[w, j, 0] - vx, velocity[w, j, 1] - vy
            row[at] = clip(rx * rx + ry * ry, 0.0, c2)
            row[at + k] = clip(rx * ux + ry * uy, -cu, cu)
            row[at + 2 * k] = clip(ux * ux + uy * uy, 0.0, uu)
            row[at + 3 * k] = clip(rx * uy - ry * ux, -cu, cu)
            row[at + 4 * k] = clip(ex * rx + ey * ry, -cutoff, cutoff)
            row[at + 5 * k] = clip(ex * ry - ey * rx, -cutoff, cutoff)
            row[at + 6 * k] = clip(ex * ux + ey * uy, -most, most)
            row[at + 7 * k] = clip(ex * uy - ey * ux, -most, most)
            row[at + 8 * k] = 1.0 if s.arrival_time[w, j] >= 0.0 else 0.0
            row[at + 9 * k] = s.radius[w, i] + s.radius[w, j]


@disc_part
def _score(batch: Any, p: Any, w: int) -> None:
    """Losses and metrics of world w after its step; arrivals and hits are written to the state."""
    s, moved = arrays_at(batch.state, World), arrays_at(batch.scratch, Moved)
    reward, metric = arrays_at(batch.episode, Scores)
    position, index = s.position, moved.neighbour
    n, k = position.shape[1], index.shape[2]
    now = (s.steps[w, 0] + 1.0) * p.dt
    s.steps[w, 0] += 1.0
    n_ok, n_hit, n_settled, took, way, deepest, effort = 0, 0, 0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        x, y = position[w, i, 0], position[w, i, 1]
        dx, dy = s.goal[w, i, 0] - x, s.goal[w, i, 1] - y
        d2 = dx * dx + dy * dy
        d, size = math.sqrt(d2), s.radius[w, i]
        if d > size:
            s.arrival_time[w, i] = -1.0
        elif d <= p.arrival and s.arrival_time[w, i] < 0.0:
            s.arrival_time[w, i] = now
        s.deepest[w, i] = max(s.deepest[w, i], moved.depth[w, i])
        s.hit[w, i] = 1.0 if s.deepest[w, i] > TOLERANCE else 0.0
        ax, ay = moved.acceleration[w, i, 0], moved.acceleration[w, i, 1]
        a2 = ax * ax + ay * ay
        s.effort[w, i] += a2
        penalty = 0.0
        for m in range(k):
            j = index[w, i, m]
            if j < 0:
                break
            rx, ry = position[w, j, 0] - x, position[w, j, 1] - y
            i1, reach = rx * rx + ry * ry, p.margin * (size + s.radius[w, j])
            if i1 < reach * reach:
                overlap = reach - math.sqrt(i1)
                penalty += overlap * overlap
        reward[w, i] = (
            p.distance_weight * d / s.scale[w, 0]
            + p.absence_weight * d2 / (d2 + size * size)
            + p.collision_weight * penalty
            + p.effort_weight * a2
        )
        n_hit += s.hit[w, i] > 0.0
        n_settled += d <= SETTLED
        deepest, effort = max(deepest, s.deepest[w, i]), effort + s.effort[w, i]
        if s.arrival_time[w, i] >= 0.0 and s.hit[w, i] == 0.0:
            n_ok += 1
            took += s.arrival_time[w, i]
            way += s.distance[w, i]
    metric[w, 0] = n_ok / n
    metric[w, 1] = 1.0 if n_ok == n else 0.0
    metric[w, 2] = n_hit / n
    metric[w, 3] = n_settled / n
    metric[w, 4] = took * p.speed / way if n_ok > 0 else np.nan
    metric[w, 5] = deepest
    metric[w, 6] = math.sqrt(effort / (n * s.steps[w, 0]))


@disc_part
def _advance(batch: Any, p: Any, w: int) -> None:
    """Move discs and goals of world w; the scratch keeps where discs were."""
    s, moved = arrays_at(batch.state, World), arrays_at(batch.scratch, Moved)
    for i in range(s.position.shape[1]):
        moved.depth[w, i] = 0.0
        for axis in range(2):
            moved.before[w, i, axis] = s.position[w, i, axis]
            s.velocity[w, i, axis] += p.dt * moved.acceleration[w, i, axis]
            s.position[w, i, axis] += p.dt * s.velocity[w, i, axis]
            s.goal[w, i, axis] += p.dt * s.goal_velocity[w, i, axis]


@disc_part
def _rest(batch: Any, w: int) -> None:
    """A world that is over stays as it is and loses nothing."""
    reward = arrays_at(batch.episode, Scores).reward
    for i in range(reward.shape[1]):
        reward[w, i] = 0.0


@disc_code
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Neighbours and observations of the worlds whose indices are given."""
    batch, p = arrays[0], parameters[0]
    s, moved = arrays_at(batch.state, World), arrays_at(batch.scratch, Moved)
    rows = arrays_at(batch.scratch, Rows)
    for w in worlds:
        nearest_of_all(s.position, w, p.cutoff, rows, moved.neighbour)
        _observe(batch, p, out, w)


@disc_code
def observe_by_cells(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """`observe` for large worlds."""
    batch, p = arrays[0], parameters[0]
    s, moved = arrays_at(batch.state, World), arrays_at(batch.scratch, Moved)
    for w in worlds:
        nearest_by_cells(s.position, w, p.cutoff, cells_of(s.position, w, 0.0), moved.neighbour)
        _observe(batch, p, out, w)


@disc_code
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    batch, p = arrays[0], parameters[0]
    s, moved = arrays_at(batch.state, World), arrays_at(batch.scratch, Moved)
    rows = arrays_at(batch.scratch, Rows)
    for w in range(action.shape[0]):
        if _over(s.arrival_time, w):
            _rest(batch, w)
        else:
            _accelerate(batch, p, action, w)
            _advance(batch, p, w)
            overlaps_of_all(moved.before, s.position, s.radius, w, moved.depth)
            nearest_of_all(s.position, w, p.cutoff, rows, moved.neighbour)
            _score(batch, p, w)
        _observe(batch, p, observation, w)
    accumulate_metrics(batch.episode)
    return -1


@disc_code
def step_by_cells(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """`step` for large worlds."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    batch, p = arrays[0], parameters[0]
    s, moved = arrays_at(batch.state, World), arrays_at(batch.scratch, Moved)
    for w in range(action.shape[0]):
        if _over(s.arrival_time, w):
            _rest(batch, w)
        else:
            _accelerate(batch, p, action, w)
            _advance(batch, p, w)
            reach = reach_of(moved.before, s.position, s.radius, w)
            cells = cells_of(s.position, w, reach)
            nearest_by_cells(s.position, w, p.cutoff, cells, moved.neighbour)
            if p.cutoff < reach or not overlaps_of_nearest(
                moved.before, s.position, s.radius, w, reach, moved.neighbour, moved.depth
            ):
                overlaps_by_cells(moved.before, s.position, s.radius, w, cells, moved.depth)
            _score(batch, p, w)
        _observe(batch, p, observation, w)
    accumulate_metrics(batch.episode)
    return -1
