"""Compiled form of `field.py`: one pass per world through discs, grid, neighbours and loss."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernels.binding import arrays_at
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.physics.kernels.discs import (
    Rows,
    clip,
    disc_code,
    disc_part,
    image,
    rows_of,
    select_all,
    select_by_cells,
)


class World(NamedTuple):
    """The state, in the order of its fields."""

    position: Any
    velocity: Any
    desired: Any
    radius: Any
    box: Any
    charge: Any
    mass: Any
    field: Any
    rate: Any
    energy: Any
    momentum: Any


class Tables(NamedTuple):
    """What no step changes."""

    value: Any  # [order + 1, taps] see Taps in field_grid.py
    slope: Any
    low: Any  # [invariants] limits of the observation
    high: Any


class Scratch(NamedTuple):
    """Memory of one batch; the gradients alone hold from one step to the next."""

    gradient: Any  # [worlds, agents, 2] of the field, times the sign of the charge
    neighbour: Any  # [1, agents, k] the nearest discs, -1 for who is absent
    x: Any  # [agents] from here on what a selection works on, see Rows
    y: Any
    d2: Any
    near: Any
    rank: Any
    before: Any  # [agents, 2] places before the step
    push: Any  # [agents, 2] accelerations of the actions
    pull: Any  # [agents, 2] those by the field
    source: Any  # [cells, cells + taps] and the two below: first columns are there once more
    field_copy: Any  # behind the last
    rate_copy: Any
    row: Any  # [taps] rows around a disc
    column: Any  # [1] the first column
    wx: Any  # [taps] and the weights of both
    wy: Any
    sx: Any
    sy: Any
    down: Any  # [taps] sums over rows
    steep: Any


class Around(NamedTuple):
    """Of the scratch, what belongs to the nodes around a disc."""

    row: Any
    column: Any
    wx: Any
    wy: Any
    sx: Any
    sy: Any
    down: Any
    steep: Any


class Motion(NamedTuple):
    """Of the scratch, what is passed on within a step."""

    gradient: Any
    before: Any
    push: Any
    pull: Any
    source: Any
    field_copy: Any
    rate_copy: Any


class Near(NamedTuple):
    """Of the scratch, what a search for neighbours fills."""

    neighbour: Any


class Scores(NamedTuple):
    """Of the episode, what a step fills."""

    reward: Any
    metric: Any


OWN_NAMES = (  # parameters that bear the name of the system's
    "dt",
    "inertia",
    "max_acceleration",
    "gain",
    "relaxation",
    "margin",
    "collision_weight",
    "speed_weight",
    "effort_weight",
)
PARAMETERS = np.dtype(
    [*((name, float) for name in OWN_NAMES), ("cutoff", float), ("shift", float), ("first", int)]
)


def scratch(worlds: int, n: int, k: int, cells: int, taps: int) -> Scratch:
    """Memory for a batch of worlds of n discs on grids of cells x cells nodes."""
    neighbour, rows = np.full((1, n, k), -1, np.int32), rows_of(n)
    before, push, pull = np.empty((3, n, 2))
    source, field_copy, rate_copy = np.empty((3, cells, cells + taps))
    wx, wy, sx, sy, down, steep = np.empty((6, taps))
    return Scratch(
        np.zeros((worlds, n, 2)),
        neighbour,
        *rows,
        before,
        push,
        pull,
        source,
        field_copy,
        rate_copy,
        np.empty(taps, np.int64),
        np.empty(1, np.int64),
        wx,
        wy,
        sx,
        sy,
        down,
        steep,
    )


@disc_part
def _weigh(place: float, p: Any, tables: Any, value: Any, slope: Any) -> int:
    """Weights along one axis, and the first of their nodes; place: in units of the spacing."""
    place += p.shift
    below = np.floor(place)
    f = place - below
    value[:] = 0.0
    slope[:] = 0.0
    for m in range(len(tables.value) - 1, -1, -1):
        for t in range(len(value)):
            value[t] = value[t] * f + tables.value[m, t]
            slope[t] = slope[t] * f + tables.slope[m, t]
    return int(below) + p.first


@disc_part
def _surround(x: float, y: float, spacing: float, p: Any, tables: Any, cells: int, at: Any) -> None:
    """Nodes and weights of a disc at (x, y)."""
    first = _weigh(x / spacing, p, tables, at.wx, at.sx)
    for t in range(len(at.row)):
        at.row[t] = (first + t) % cells
    at.column[0] = _weigh(y / spacing, p, tables, at.wy, at.sy) % cells


@disc_part
def _copy(grid: Any, w: int, wide: Any) -> None:
    """The grid of a world with its first columns once more behind the last."""
    cells = grid.shape[1]
    for i in range(cells):
        for j in range(cells):
            wide[i, j] = grid[w, i, j]
        for j in range(cells, wide.shape[1]):
            wide[i, j] = wide[i, j - cells]


@disc_part
def _read_gradient(wide: Any, spacing: float, at: Any) -> Any:
    """Value and gradient of a field at the disc that `at` surrounds."""
    taps, first = len(at.row), at.column[0]
    down, steep = at.down, at.steep
    down[:] = 0.0
    steep[:] = 0.0
    for r in range(taps):
        row, wx, sx = at.row[r], at.wx[r], at.sx[r]
        for c in range(taps):
            here = wide[row, first + c]
            down[c] += wx * here
            steep[c] += sx * here
    value, gx, gy = 0.0, 0.0, 0.0
    for c in range(taps):
        value += at.wy[c] * down[c]
        gx += at.wy[c] * steep[c]
        gy += at.sy[c] * down[c]
    return value, gx / spacing, gy / spacing


@disc_part
def _read(wide: Any, at: Any) -> float:
    """The value alone."""
    taps, first, down = len(at.row), at.column[0], at.down
    down[:] = 0.0
    for r in range(taps):
        row, wx = at.row[r], at.wx[r]
        for c in range(taps):
            down[c] += wx * wide[row, first + c]
    value = 0.0
    for c in range(taps):
        value += at.wy[c] * down[c]
    return value


@disc_part
def _deposit(wide: Any, density: float, at: Any) -> None:
    """Add a disc's charge; what falls on repeated columns waits there for `_fold`."""
    taps, first = len(at.row), at.column[0]
    for r in range(taps):
        row, share = at.row[r], density * at.wx[r]
        for c in range(taps):
            wide[row, first + c] += share * at.wy[c]


@disc_part
def _fold(wide: Any) -> None:
    """Bring what lies on repeated columns to where they belong."""
    cells = wide.shape[0]
    for i in range(cells):
        for j in range(wide.shape[1] - 1, cells - 1, -1):
            wide[i, j - cells] += wide[i, j]


@disc_part
def _kick_node(
    world: Any, source: Any, w: int, i: int, j: int, around: Any, p: Any, spacing: float
) -> None:
    """The rate of one node, whose neighbours are the rows and columns `around`."""
    field = world.field
    up, down, left, right = around
    here = field[w, i, j]
    bend = field[w, up, j] + field[w, down, j] + field[w, i, left] + field[w, i, right] - 4.0 * here
    heavy = world.mass[w, 0] * world.mass[w, 0]
    world.rate[w, i, j] += p.dt * (bend / (spacing * spacing) - heavy * here + source[i, j])


@disc_part
def _drift(world: Any, w: int, time: float) -> None:
    """Discs and field go on as they move; places are not brought back into the torus."""
    position, velocity, field, rate = world.position, world.velocity, world.field, world.rate
    for i in range(position.shape[1]):
        position[w, i, 0] += time * velocity[w, i, 0]
        position[w, i, 1] += time * velocity[w, i, 1]
    for i in range(field.shape[1]):
        for j in range(field.shape[1]):
            field[w, i, j] += time * rate[w, i, j]


@disc_part
def _kick_field(world: Any, source: Any, w: int, p: Any, spacing: float) -> None:
    cells = world.field.shape[1]
    last = cells - 1
    for i in range(cells):
        up, down = (i - 1) % cells, (i + 1) % cells
        _kick_node(world, source, w, i, 0, (up, down, last, 1 % cells), p, spacing)
        for j in range(1, last):
            _kick_node(world, source, w, i, j, (up, down, j - 1, j + 1), p, spacing)
        if last > 0:
            _kick_node(world, source, w, i, last, (up, down, last - 1, 0), p, spacing)


@disc_part
def _push(batch: Any, p: Any, action: Any, w: int) -> None:
    """What the actions ask for, limited, from the gradients that were seen last."""
    world, motion = arrays_at(batch.state, World), arrays_at(batch.scratch, Motion)
    limit2 = p.max_acceleration * p.max_acceleration
    for i in range(world.position.shape[1]):
        vx, vy = world.velocity[w, i, 0], world.velocity[w, i, 1]
        px, py = world.desired[w, i, 0] - vx, world.desired[w, i, 1] - vy
        gain = p.gain * abs(world.charge[w, i])
        gx, gy = gain * motion.gradient[w, i, 0], gain * motion.gradient[w, i, 1]
        along, up = 1.0 * action[w, i, 0], 1.0 * action[w, i, 1]
        left, back = 1.0 * action[w, i, 2], 1.0 * action[w, i, 3]
        ax = p.relaxation * (along * vx + back * px) + up * gx - left * gy
        ay = p.relaxation * (along * vy + back * py) + up * gy + left * gx
        shrink = math.sqrt(limit2 / max(ax * ax + ay * ay, limit2))
        motion.push[i, 0], motion.push[i, 1] = shrink * ax, shrink * ay


@disc_part
def _move(batch: Any, p: Any, action: Any, w: int) -> None:
    """Half a drift, a kick, half a drift."""
    world, motion = arrays_at(batch.state, World), arrays_at(batch.scratch, Motion)
    at, tables = arrays_at(batch.scratch, Around), arrays_at(batch.tables, Tables)
    cells, n = world.field.shape[1], world.position.shape[1]
    side = world.box[w, 0]
    spacing = side / cells
    _push(batch, p, action, w)
    for i in range(n):
        motion.before[i, 0], motion.before[i, 1] = world.position[w, i, 0], world.position[w, i, 1]
    _drift(world, w, 0.5 * p.dt)
    _copy(world.field, w, motion.field_copy)
    source = motion.source
    source[:] = 0.0
    for i in range(n):
        charge = world.charge[w, i]
        x, y = world.position[w, i, 0], world.position[w, i, 1]
        _surround(x, y, spacing, p, tables, cells, at)
        _, gx, gy = _read_gradient(motion.field_copy, spacing, at)
        motion.pull[i, 0], motion.pull[i, 1] = charge * gx / p.inertia, charge * gy / p.inertia
        _deposit(source, charge / (spacing * spacing), at)
    _fold(source)
    _kick_field(world, source, w, p, spacing)
    for i in range(n):
        for axis in range(2):
            passive = world.velocity[w, i, axis] + p.dt * motion.pull[i, axis]
            impulse = p.inertia * p.dt * motion.push[i, axis]
            world.velocity[w, i, axis] = passive + p.dt * motion.push[i, axis]
            world.energy[w, 0] += impulse * 0.5 * (passive + world.velocity[w, i, axis])
            world.momentum[w, axis] += impulse
    _drift(world, w, 0.5 * p.dt)
    for i in range(n):
        for axis in range(2):
            place = world.position[w, i, axis]
            world.position[w, i, axis] = place - side * np.floor(place / side)


@disc_part
def _see(batch: Any, p: Any, out: Any, w: int) -> float:
    """Observations; returns sum q phi."""
    world, motion = arrays_at(batch.state, World), arrays_at(batch.scratch, Motion)
    at, tables = arrays_at(batch.scratch, Around), arrays_at(batch.tables, Tables)
    cells = world.field.shape[1]
    spacing = world.box[w, 0] / cells
    low, high = tables.low, tables.high
    _copy(world.field, w, motion.field_copy)
    _copy(world.rate, w, motion.rate_copy)
    bound = 0.0
    for i in range(world.position.shape[1]):
        charge = world.charge[w, i]
        sign = 1.0 if charge > 0.0 else -1.0 if charge < 0.0 else 0.0
        vx, vy = world.velocity[w, i, 0], world.velocity[w, i, 1]
        px, py = world.desired[w, i, 0] - vx, world.desired[w, i, 1] - vy
        x, y = world.position[w, i, 0], world.position[w, i, 1]
        _surround(x, y, spacing, p, tables, cells, at)
        value, gx, gy = _read_gradient(motion.field_copy, spacing, at)
        gx *= sign
        gy *= sign
        bound += charge * value
        motion.gradient[w, i, 0], motion.gradient[w, i, 1] = gx, gy
        out[w, i, 0] = clip(sign * value, low[0], high[0])
        out[w, i, 1] = clip(sign * _read(motion.rate_copy, at), low[1], high[1])
        out[w, i, 2] = clip(math.sqrt(gx * gx + gy * gy), low[2], high[2])
        out[w, i, 3] = clip(vx * gx + vy * gy, low[3], high[3])
        out[w, i, 4] = clip(vx * gy - vy * gx, low[4], high[4])
        out[w, i, 5] = clip(vx * vx + vy * vy, low[5], high[5])
        out[w, i, 6] = clip(px * px + py * py, low[6], high[6])
    return bound


@disc_part
def _field_sums(world: Any, w: int, spacing: float) -> Any:
    """Energy and momentum of the field."""
    field, rate = world.field, world.rate
    cells = field.shape[1]
    squares, steps, px, py = 0.0, 0.0, 0.0, 0.0
    heavy = world.mass[w, 0] * world.mass[w, 0]
    for i in range(cells):
        up, down = (i - 1) % cells, (i + 1) % cells
        before = field[w, i, cells - 1]
        for j in range(cells):
            here, after = field[w, i, j], field[w, i, j + 1 if j + 1 < cells else 0]
            change, along = rate[w, i, j], field[w, down, j] - here
            squares += change * change + heavy * here * here
            steps += along * along + (after - here) * (after - here)
            px += change * (field[w, down, j] - field[w, up, j])
            py += change * (after - before)
            before = here
    area = spacing * spacing
    return 0.5 * (area * squares + steps), -0.5 * spacing * px, -0.5 * spacing * py


@disc_part
def _score(batch: Any, p: Any, w: int, bound: float) -> None:
    """Losses and metrics; bound: sum q phi."""
    world, motion = arrays_at(batch.state, World), arrays_at(batch.scratch, Motion)
    index = arrays_at(batch.scratch, Near).neighbour
    scores = arrays_at(batch.episode, Scores)
    position, velocity, desired = world.position, world.velocity, world.desired
    n, k, side = position.shape[1], index.shape[2], world.box[w, 0]
    inverse = 1.0 / side
    energy, mx, my = _field_sums(world, w, side / world.field.shape[1])
    new, progress, speeds2, speeds = 0, 0.0, 0.0, 0.0
    for i in range(n):
        vx, vy = velocity[w, i, 0], velocity[w, i, 1]
        gx, gy = desired[w, i, 0], desired[w, i, 1]
        penalty = 0.0
        for m in range(k):
            j = index[0, i, m]
            if j < 0:
                break
            rx = image(position[w, j, 0] - position[w, i, 0], side, inverse)
            ry = image(position[w, j, 1] - position[w, i, 1], side, inverse)
            d2 = rx * rx + ry * ry
            contact = world.radius[w, i] + world.radius[w, j]
            reach = p.margin * contact
            if d2 < reach * reach:
                penalty += (reach - math.sqrt(d2)) ** 2
            if d2 < contact * contact:
                ox = image(motion.before[j, 0] - motion.before[i, 0], side, inverse)
                oy = image(motion.before[j, 1] - motion.before[i, 1], side, inverse)
                new += ox * ox + oy * oy >= contact * contact
        error = (gx - vx) ** 2 + (gy - vy) ** 2
        effort = motion.push[i, 0] ** 2 + motion.push[i, 1] ** 2
        scores.reward[w, i] = (
            p.collision_weight * penalty + p.speed_weight * error + p.effort_weight * effort
        )
        want2 = gx * gx + gy * gy
        progress += (vx * gx + vy * gy) / want2
        speeds2 += want2
        speeds += math.sqrt(want2)
        energy += 0.5 * p.inertia * (vx * vx + vy * vy)
        mx += p.inertia * vx
        my += p.inertia * vy
    mx -= world.momentum[w, 0]
    my -= world.momentum[w, 1]
    scores.metric[w, 0] = abs(energy - bound - world.energy[w, 0]) / (0.5 * p.inertia * speeds2)
    scores.metric[w, 1] = new / (2.0 * n * p.dt)
    scores.metric[w, 2] = progress / n
    scores.metric[w, 3] = math.sqrt(mx * mx + my * my) / (p.inertia * speeds)


@disc_code
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    for w in worlds:
        _see(arrays[0], parameters[0], out, w)


@disc_code
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    batch, p = arrays[0], parameters[0]
    world, rows = arrays_at(batch.state, World), arrays_at(batch.scratch, Rows)
    index = arrays_at(batch.scratch, Near).neighbour
    for w in range(action.shape[0]):
        _move(batch, p, action, w)
        here = world.position[w : w + 1]
        select_all(here, world.box[w : w + 1], p.cutoff, rows, index, 0, 1)
        _score(batch, p, w, _see(batch, p, observation, w))
    accumulate_metrics(batch.episode)
    return -1


@disc_code
def step_by_cells(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """`step` for large worlds."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    batch, p = arrays[0], parameters[0]
    world, rows = arrays_at(batch.state, World), arrays_at(batch.scratch, Rows)
    index = arrays_at(batch.scratch, Near).neighbour
    for w in range(action.shape[0]):
        _move(batch, p, action, w)
        here = world.position[w : w + 1]
        select_by_cells(here, world.box[w : w + 1], p.cutoff, rows, index, 0, 1)
        _score(batch, p, w, _see(batch, p, observation, w))
    accumulate_metrics(batch.episode)
    return -1
