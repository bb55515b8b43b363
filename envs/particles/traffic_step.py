"""Compiled form of `traffic.py`: one pass per world through dynamics, contacts and loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.kernel import Kernel, parameter_record
from ..core.kernels.binding import arrays_at
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.physics.kernels.discs import Rows, clip, disc_code, disc_part
from .goal_search import depth_on_the_way, nearest_of_all
from .traffic_arrays import (
    BY_ROAD,
    GIVE,
    HEEDS,
    PARAMETERS,
    RADIUS,
    SPEED,
    Built,
    Contacts,
    Kept,
    Moved,
    Near,
    Rules,
    Seen,
    Signs,
    Table,
    Users,
    fixed,
    scratch,
)
from .traffic_geometry import FAR
from .traffic_losses import limit_at, lose, score
from .traffic_scores import TOLERANCE
from .traffic_walls import segment_gap, select_walls


def twin(system: Any, worlds: int) -> Kernel:
    """The compiled form of a `Traffic` of the package's own laws, for so many worlds."""
    code = system.kinds.code
    own = ("dt", "max_acceleration", "arrival", "cutoff", "reach", "gain", "sight")
    more = ("distance_weight", "absence_weight", "effort_weight", "speed_limit", "distance_limit")
    record = parameter_record(
        PARAMETERS,
        building=code(system.building),
        range=system.sign_kind.range,
        **{name: getattr(system, name) for name in (*own, *more)},
    )
    tables = fixed(
        system.kinds.tables(),
        code(system.sign),
        [code(kind.name) for kind in system.present],
        system.contacts,
    )
    n_walls = system.k - system.n_others
    n_kinds = len(system.kinds.kinds)
    memory = scratch(worlds, system.n_agents, system.n_others, n_walls, n_kinds)
    return Kernel(step, observe, record, tables=tables, scratch=memory)


@disc_part
def _give(rules: Rules, t: Table, w: int, i: int, j: int) -> float:
    """The part of the gap to j that i has to give; see `traffic_geometry.right_of_way`."""
    own, other = rules.kind[w, i] - 1, rules.kind[w, j] - 1
    if t.pair[own, other, BY_ROAD] > 0.0:
        heading = rules.heading
        above = rules.rank[w, i] - rules.rank[w, j]
        turn = heading[w, i, 0] * heading[w, j, 1] - heading[w, i, 1] * heading[w, j, 0]
        turn *= rules.hand[w, 0]
        if above != 0.0:
            return 0.0 if above > 0.0 else 1.0
        if abs(turn) > 0.5:
            return 1.0 if turn > 0.0 else 0.0
    return t.pair[own, other, GIVE]


@disc_part
def _accelerate(batch: Any, p: Any, action: Any, w: int) -> None:
    """What actions of world w ask for: accelerations go to the scratch."""
    s, around = arrays_at(batch.state, Users), arrays_at(batch.scratch, Seen)
    acceleration = arrays_at(batch.scratch, Moved).acceleration
    kinds = arrays_at(batch.tables, Table).own
    n, k = around.code.shape[1], around.code.shape[2]
    for i in range(n):
        if s.arrival_time[w, i] >= 0.0:
            continue
        speed = kinds[s.kind[w, i] - 1, SPEED]
        gx, gy = s.goal[w, i, 0] - s.position[w, i, 0], s.goal[w, i, 1] - s.position[w, i, 1]
        d = math.sqrt(gx * gx + gy * gy)
        ex, ey = (gx / d, gy / d) if d > 0.0 else (1.0, 0.0)
        along, across = 1.0 * action[w, i, 4 * k], 1.0 * action[w, i, 4 * k + 1]
        wx, wy = speed * (along * ex - across * ey), speed * (along * ey + across * ex)
        for m in range(k):
            seen = around.seen[w, i, m]
            rx, ry, ux, uy = seen[0], seen[1], seen[2], seen[3]
            window = 1.0 - (rx * rx + ry * ry) / (p.reach * p.reach)
            if around.code[w, i, m] == 0 or window <= 0.0:
                continue
            window *= window * p.gain
            a, b = 1.0 * action[w, i, m], 1.0 * action[w, i, k + m]
            c, e = 1.0 * action[w, i, 2 * k + m], 1.0 * action[w, i, 3 * k + m]
            wx += window * (a * rx + b * ux - c * ry - e * uy)
            wy += window * (a * ry + b * uy + c * rx + e * ux)
        cx = s.velocity[w, i, 0] - s.road_velocity[w, 0, 0]
        cy = s.velocity[w, i, 1] - s.road_velocity[w, 0, 1]
        shrink = speed / math.sqrt(max(wx * wx + wy * wy, speed * speed))
        ax, ay = (shrink * wx - cx) / p.dt, (shrink * wy - cy) / p.dt
        limit2 = p.max_acceleration * p.max_acceleration
        shrink = math.sqrt(limit2 / max(ax * ax + ay * ay, limit2))
        acceleration[w, i, 0], acceleration[w, i, 1] = shrink * ax, shrink * ay


@disc_part
def _advance(batch: Any, p: Any, w: int) -> None:
    """Move agents and goals of world w; the scratch keeps where agents were."""
    s, moved = arrays_at(batch.state, Users), arrays_at(batch.scratch, Moved)
    for i in range(s.kind.shape[1]):
        for axis in range(2):
            moved.before[w, i, axis] = s.position[w, i, axis]
            if s.arrival_time[w, i] < 0.0:
                s.velocity[w, i, axis] += p.dt * moved.acceleration[w, i, axis]
            else:
                s.velocity[w, i, axis] = s.road_velocity[w, 0, axis]
            s.position[w, i, axis] += p.dt * s.velocity[w, i, axis]
            s.goal[w, i, axis] += p.dt * s.road_velocity[w, 0, axis]


@disc_part
def _meet(batch: Any, p: Any, w: int) -> None:
    """Who touched whom on the way; then the road moves."""
    s, met = arrays_at(batch.state, Users), arrays_at(batch.state, Contacts)
    built, before = arrays_at(batch.state, Built), arrays_at(batch.scratch, Moved).before
    kinds = arrays_at(batch.tables, Table).own
    n, walls = s.kind.shape[1], built.thickness.shape[1]
    driftx, drifty = p.dt * s.road_velocity[w, 0, 0], p.dt * s.road_velocity[w, 0, 1]
    for i in range(n):
        if s.arrival_time[w, i] >= 0.0:
            continue
        x, y, radius = before[w, i, 0], before[w, i, 1], kinds[s.kind[w, i] - 1, RADIUS]
        endx, endy = s.position[w, i, 0], s.position[w, i, 1]
        for j in range(i):
            if s.arrival_time[w, j] >= 0.0:
                continue
            rx, ry = before[w, j, 0] - x, before[w, j, 1] - y
            contact = radius + kinds[s.kind[w, j] - 1, RADIUS]
            sx, sy = s.position[w, j, 0] - endx - rx, s.position[w, j, 1] - endy - ry
            reach = contact + abs(sx) + abs(sy)
            if rx * rx + ry * ry < reach * reach:
                depth = depth_on_the_way(rx, ry, sx, sy, contact)
                met.deepest[w, i] = max(met.deepest[w, i], depth)
                met.deepest[w, j] = max(met.deepest[w, j], depth)
                if depth > TOLERANCE:
                    met.touched[w, i, j], met.touched[w, j, i] = 1.0, 1.0
        for b in range(walls):
            depth = radius + built.thickness[w, b]
            depth -= segment_gap(x, y, endx - driftx, endy - drifty, built.building, w, b)
            met.deepest[w, i] = max(met.deepest[w, i], depth)
            if depth > TOLERANCE:
                met.struck[w, i, b] = 1.0
    for b in range(walls):
        for end in range(2):
            built.building[w, b, end, 0] += driftx
            built.building[w, b, end, 1] += drifty
    for m in range(built.sign.shape[1]):
        built.sign[w, m, 0] += driftx
        built.sign[w, m, 1] += drifty


@disc_part
def _arrive(batch: Any, p: Any, w: int) -> None:
    """What world w keeps of the step: effort, speeding, arrivals."""
    s, moved = arrays_at(batch.state, Users), arrays_at(batch.scratch, Moved)
    kept, signs = arrays_at(batch.state, Kept), arrays_at(batch.state, Signs)
    kinds = arrays_at(batch.tables, Table).own
    now = kept.steps[w, 0] + 1.0
    for i in range(s.kind.shape[1]):
        moved.here[w, i] = s.arrival_time[w, i] < 0.0
        if not moved.here[w, i]:
            continue
        kept.steps[w, 0] = now
        ax, ay = moved.acceleration[w, i, 0], moved.acceleration[w, i, 1]
        kept.effort[w, i] += ax * ax + ay * ay
        cx = s.velocity[w, i, 0] - s.road_velocity[w, 0, 0]
        cy = s.velocity[w, i, 1] - s.road_velocity[w, 0, 1]
        limit = limit_at(signs, s.position[w, i, 0], s.position[w, i, 1], w, p.range)
        if kinds[s.kind[w, i] - 1, HEEDS] > 0.0 and limit < np.inf:
            kept.watched[w, i] += 1.0
            kept.over[w, i] += math.sqrt(cx * cx + cy * cy) > limit + TOLERANCE
        dx, dy = s.goal[w, i, 0] - s.position[w, i, 0], s.goal[w, i, 1] - s.position[w, i, 1]
        if math.sqrt(dx * dx + dy * dy) <= p.arrival:
            s.arrival_time[w, i] = now * p.dt


@disc_part
def _look(batch: Any, p: Any, rows: Any, w: int) -> None:
    """What is around everybody in world w."""
    s, near = arrays_at(batch.state, Users), arrays_at(batch.scratch, Near)
    rules, built = arrays_at(batch.state, Rules), arrays_at(batch.state, Built)
    t = arrays_at(batch.tables, Table)
    n, n_others, k = s.kind.shape[1], near.neighbour.shape[2], near.code.shape[2]
    for i in range(n):
        here = s.arrival_time[w, i] < 0.0
        near.place[w, i, 0] = s.position[w, i, 0] if here else FAR * (i + 1)
        near.place[w, i, 1] = s.position[w, i, 1] if here else 0.0
    nearest_of_all(near.place, w, p.cutoff, rows, near.neighbour)
    for i in range(n):
        x, y, own = s.position[w, i, 0], s.position[w, i, 1], s.kind[w, i] - 1
        for m in range(n_others):
            seen, j = near.seen[w, i, m], near.neighbour[w, i, m]
            near.code[w, i, m] = s.kind[w, j] if j >= 0 else 0
            if j >= 0:
                seen[0], seen[1] = s.position[w, j, 0] - x, s.position[w, j, 1] - y
                seen[2] = s.velocity[w, j, 0] - s.velocity[w, i, 0]
                seen[3] = s.velocity[w, j, 1] - s.velocity[w, i, 1]
                seen[4] = t.own[own, RADIUS] + t.own[s.kind[w, j] - 1, RADIUS]
                seen[5] = _give(rules, t, w, i, j)
        cutoff = p.cutoff if s.arrival_time[w, i] < 0.0 else 0.0
        select_walls(s.position, built.building, built.thickness, w, i, cutoff, near.wall, near.way)
        for m in range(k - n_others):
            seen, b = near.seen[w, i, n_others + m], near.wall[w, i, m]
            near.code[w, i, n_others + m] = p.building if b >= 0 else 0
            seen[0], seen[1] = near.way[w, i, m, 0], near.way[w, i, m, 1]
            seen[2] = s.road_velocity[w, 0, 0] - s.velocity[w, i, 0]
            seen[3] = s.road_velocity[w, 0, 1] - s.velocity[w, i, 1]
            seen[4], seen[5] = t.own[own, RADIUS], t.pair[own, p.building - 1, GIVE]


@disc_part
def _observe(batch: Any, p: Any, out: Any, w: int) -> None:
    """Observations of world w, in the order of `Traffic.bounds`."""
    s, around = arrays_at(batch.state, Users), arrays_at(batch.scratch, Seen)
    signs, t = arrays_at(batch.state, Signs), arrays_at(batch.tables, Table)
    n, k = around.code.shape[1], around.code.shape[2]
    cutoff, most = p.cutoff, p.speed_limit
    c2, cu, uu = cutoff * cutoff, cutoff * most, most * most
    for i in range(n):
        own, x, y = s.kind[w, i] - 1, s.position[w, i, 0], s.position[w, i, 1]
        gx, gy = s.goal[w, i, 0] - x, s.goal[w, i, 1] - y
        d = math.sqrt(gx * gx + gy * gy)
        ex, ey = (gx / d, gy / d) if d > 0.0 else (1.0, 0.0)
        cx = s.velocity[w, i, 0] - s.road_velocity[w, 0, 0]
        cy = s.velocity[w, i, 1] - s.road_velocity[w, 0, 1]
        row, limit = out[w, i], limit_at(signs, x, y, w, p.sight)
        warned = t.own[own, HEEDS] > 0.0 and limit < np.inf
        row[0] = min(d, p.distance_limit)
        row[1] = clip(ex * cx + ey * cy, -most, most)
        row[2] = clip(ex * cy - ey * cx, -most, most)
        row[3] = own + 1
        row[4] = min(cx * cx + cy * cy, uu) if warned else 0.0
        row[5] = min(limit, most) if warned else 0.0
        for m in range(k):
            at, code = 6 + m, around.code[w, i, m]
            if code == 0:
                row[at] = c2
                for column in range(1, 11):
                    row[at + column * k] = 0.0
                continue
            seen, mask = around.seen[w, i, m], t.pair[own, code - 1]
            rx, ry, ux, uy = seen[0], seen[1], seen[2], seen[3]
            row[at] = mask[0] * clip(rx * rx + ry * ry, 0.0, c2)
            row[at + k] = mask[1] * clip(rx * ux + ry * uy, -cu, cu)
            row[at + 2 * k] = mask[2] * clip(ux * ux + uy * uy, 0.0, uu)
            row[at + 3 * k] = mask[3] * clip(rx * uy - ry * ux, -cu, cu)
            row[at + 4 * k] = mask[4] * clip(ex * rx + ey * ry, -cutoff, cutoff)
            row[at + 5 * k] = mask[5] * clip(ex * ry - ey * rx, -cutoff, cutoff)
            row[at + 6 * k] = mask[6] * clip(ex * ux + ey * uy, -most, most)
            row[at + 7 * k] = mask[7] * clip(ex * uy - ey * ux, -most, most)
            row[at + 8 * k] = seen[4]
            row[at + 9 * k] = code
            row[at + 10 * k] = seen[5]


@disc_code
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Neighbours and observations of the worlds whose indices are given."""
    batch, p = arrays[0], parameters[0]
    rows = arrays_at(batch.scratch, Rows)
    for w in worlds:
        _look(batch, p, rows, w)
        _observe(batch, p, out, w)


@disc_code
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    batch, p = arrays[0], parameters[0]
    rows = arrays_at(batch.scratch, Rows)
    for w in range(action.shape[0]):
        _accelerate(batch, p, action, w)
        _advance(batch, p, w)
        _meet(batch, p, w)
        _arrive(batch, p, w)
        _look(batch, p, rows, w)
        lose(batch, p, w)
        score(batch, p, w)
        _observe(batch, p, observation, w)
    accumulate_metrics(batch.episode)
    return -1
