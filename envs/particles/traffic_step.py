"""Compiled form of `traffic.py`: one pass per world through dynamics, contacts and loss."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernels.binding import arrays_at
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.physics.kernels.discs import Rows, disc_code, disc_part, rows_of
from .goal_search import depth_on_the_way, nearest_of_all
from .traffic_kinds import Tables
from .traffic_scores import SOFTENING, TOLERANCE
from .traffic_walls import segment_gap, select_walls

RADIUS, SPEED, HEEDS, WARNED = 0, 1, 2, 3
WEIGHT, MARGIN, FORESIGHT, GIVE, BY_ROAD = 8, 9, 10, 11, 12
_FAR = 1e6  # where searches put those that have left, times 1, 2, ...


class Scratch(NamedTuple):
    """Memory of one batch. Neighbours stay from one step to the next."""

    neighbour: Any  # [worlds, agents, n_others] the nearest agents, -1 for who is absent
    wall: Any  # [worlds, agents, n_buildings] the nearest buildings, -1 for none
    way: Any  # [worlds, agents, n_buildings, 2] to their nearest points
    code: Any  # [worlds, agents, k] codes of the kinds of all that is seen, 0 for nobody
    seen: Any  # [worlds, agents, k, 6] r, u, |r| at contact, part of the gap to give
    near: Any  # [agents] from here to `rank` what a selection works on, see Rows
    x: Any
    y: Any
    d2: Any
    rank: Any
    before: Any  # [worlds, agents, 2] places before the step
    place: Any  # [worlds, agents, 2] places for searches
    acceleration: Any  # [worlds, agents, 2]
    here: Any  # [worlds, agents] who was there when the step began
    count: Any  # [kinds, kinds] ordered pairs that touched


class Near(NamedTuple):
    """Of the scratch, what a search fills."""

    neighbour: Any
    wall: Any
    way: Any
    place: Any
    code: Any
    seen: Any


class Seen(NamedTuple):
    """Of the scratch, what is around everybody."""

    code: Any
    seen: Any


class Moved(NamedTuple):
    """Of the scratch, what is passed on within a step."""

    before: Any
    acceleration: Any
    here: Any


class Counts(NamedTuple):
    """Of the scratch, what counts contacts."""

    count: Any


class Users(NamedTuple):
    """Of the state, who moves."""

    position: Any
    velocity: Any
    goal: Any
    road_velocity: Any
    kind: Any
    arrival_time: Any


class Rules(NamedTuple):
    """Of the state, who goes first."""

    kind: Any
    heading: Any
    rank: Any
    hand: Any


class Built(NamedTuple):
    """Of the state, what stands on the road."""

    building: Any
    thickness: Any
    sign: Any


class Signs(NamedTuple):
    """Of the state, where limits hold."""

    sign: Any
    limit: Any


class Contacts(NamedTuple):
    """Of the state, who touched whom."""

    touched: Any
    struck: Any
    deepest: Any


class Kept(NamedTuple):
    """Of the state, what it keeps of an episode besides."""

    effort: Any
    watched: Any
    over: Any
    steps: Any


class Ways(NamedTuple):
    """Of the state, lengths."""

    distance: Any
    scale: Any


class Table(NamedTuple):
    """The table of kinds; no step changes it."""

    own: Any  # [kinds, 4] RADIUS, SPEED, HEEDS, WARNED
    pair: Any  # [kinds, kinds, 13] what is seen of `OBSERVED`, then WEIGHT to BY_ROAD


class Counted(NamedTuple):
    """What metrics stand for."""

    flow: Any  # [flows] codes of kinds
    contact: Any  # [contacts, 2] codes
    pairs: Any  # [contacts] number of ordered pairs of each


class Fixed(NamedTuple):
    """All that no step changes."""

    own: Any
    pair: Any
    flow: Any
    contact: Any
    pairs: Any


class Scores(NamedTuple):
    """Of the episode, what a step fills."""

    reward: Any
    metric: Any


PARAMETERS = np.dtype(
    [
        *(("building", np.int64), ("dt", float), ("max_acceleration", float)),
        *(("arrival", float), ("cutoff", float), ("reach", float), ("gain", float)),
        *(("distance_weight", float), ("absence_weight", float), ("effort_weight", float)),
        *(("range", float), ("sight", float), ("speed_limit", float), ("distance_limit", float)),
        ("largest_contact", float),
    ]
)


def scratch(worlds: int, n: int, n_others: int, n_walls: int, kinds: int) -> Scratch:
    """Memory for a batch of worlds of n agents that see n_others and n_walls."""
    neighbour = np.full((worlds, n, n_others), -1, np.int32)
    wall, way = np.full((worlds, n, n_walls), -1, np.int32), np.zeros((worlds, n, n_walls, 2))
    rows = rows_of(n)._asdict()
    before, place, acceleration = np.zeros((3, worlds, n, 2))
    return Scratch(
        neighbour=neighbour,
        wall=wall,
        way=way,
        code=np.zeros((worlds, n, n_others + n_walls), np.int64),
        seen=np.zeros((worlds, n, n_others + n_walls, 6)),
        before=before,
        place=place,
        acceleration=acceleration,
        here=np.zeros((worlds, n), bool),
        count=np.zeros((kinds, kinds)),
        **rows,
    )


def fixed(
    tables: Tables,
    sign: int,
    flow: list[int],
    contacts: dict[str, tuple[int, int]],
    pairs: list[int],
) -> Fixed:
    """Tables for compiled code; sign: the code of signs, see `Fixed` for the others."""
    heeds, warned = tables.mask[:, sign - 1, 2], tables.weight[:, sign - 1]
    pair = (tables.weight, tables.margin, tables.foresight, tables.give, tables.by_road)
    return Fixed(
        np.stack([tables.radius, tables.speed, heeds, warned], -1),
        np.ascontiguousarray(np.concatenate([tables.mask, np.stack(pair, -1)], -1)),
        np.array(flow, np.int64).reshape(-1),
        np.array(list(contacts.values()), np.int64).reshape(-1, 2),
        np.array(pairs, float).reshape(-1),
    )


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
def _limit(signs: Signs, x: float, y: float, w: int, reach: float) -> float:
    """The lowest limit of the signs within reach of a place; inf without one."""
    limit = np.inf
    for m in range(signs.sign.shape[1]):
        dx, dy = signs.sign[w, m, 0] - x, signs.sign[w, m, 1] - y
        if dx * dx + dy * dy < reach * reach:
            limit = min(limit, signs.limit[w, m])
    return limit


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
        limit = _limit(signs, s.position[w, i, 0], s.position[w, i, 1], w, p.range)
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
        near.place[w, i, 0] = s.position[w, i, 0] if here else _FAR * (i + 1)
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
        select_walls(x, y, built.building, built.thickness, w, i, cutoff, near.wall, near.way)
        for m in range(k - n_others):
            seen, b = near.seen[w, i, n_others + m], near.wall[w, i, m]
            near.code[w, i, n_others + m] = p.building if b >= 0 else 0
            seen[0], seen[1] = near.way[w, i, m, 0], near.way[w, i, m, 1]
            seen[2] = s.road_velocity[w, 0, 0] - s.velocity[w, i, 0]
            seen[3] = s.road_velocity[w, 0, 1] - s.velocity[w, i, 1]
            seen[4], seen[5] = t.own[own, RADIUS], t.pair[own, p.building - 1, GIVE]


@disc_part
def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@disc_part
def _observe(batch: Any, p: Any, out: Any, w: int) -> None:
    """Observations of world w, in the order of `Traffic.bounds`."""
    s, around = arrays_at(batch.state, Users), arrays_at(batch.scratch, Seen)
    signs, t = arrays_at(batch.state, Signs), arrays_at(batch.tables, Fixed)
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
        row, limit = out[w, i], _limit(signs, x, y, w, p.sight)
        warned = t.own[own, HEEDS] > 0.0 and limit < np.inf
        row[0] = min(d, p.distance_limit)
        row[1] = _clip(ex * cx + ey * cy, -most, most)
        row[2] = _clip(ex * cy - ey * cx, -most, most)
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
            row[at] = mask[0] * _clip(rx * rx + ry * ry, 0.0, c2)
            row[at + k] = mask[1] * _clip(rx * ux + ry * uy, -cu, cu)
            row[at + 2 * k] = mask[2] * _clip(ux * ux + uy * uy, 0.0, uu)
            row[at + 3 * k] = mask[3] * _clip(rx * uy - ry * ux, -cu, cu)
            row[at + 4 * k] = mask[4] * _clip(ex * rx + ey * ry, -cutoff, cutoff)
            row[at + 5 * k] = mask[5] * _clip(ex * ry - ey * rx, -cutoff, cutoff)
            row[at + 6 * k] = mask[6] * _clip(ex * ux + ey * uy, -most, most)
            row[at + 7 * k] = mask[7] * _clip(ex * uy - ey * ux, -most, most)
            row[at + 8 * k] = seen[4]
            row[at + 9 * k] = code
            row[at + 10 * k] = seen[5]


@disc_part
def _lose(batch: Any, p: Any, w: int) -> None:
    """Losses of world w after its step."""
    s, around = arrays_at(batch.state, Users), arrays_at(batch.scratch, Seen)
    signs, ways = arrays_at(batch.state, Signs), arrays_at(batch.state, Ways)
    moved, t = arrays_at(batch.scratch, Moved), arrays_at(batch.tables, Fixed)
    reward = arrays_at(batch.episode, Scores).reward
    for i in range(s.kind.shape[1]):
        if not moved.here[w, i]:
            reward[w, i] = 0.0
            continue
        own, x, y = s.kind[w, i] - 1, s.position[w, i, 0], s.position[w, i, 1]
        ax, ay = moved.acceleration[w, i, 0], moved.acceleration[w, i, 1]
        dx, dy = s.goal[w, i, 0] - x, s.goal[w, i, 1] - y
        d2 = dx * dx + dy * dy
        loss = (
            p.distance_weight * math.sqrt(d2 + SOFTENING) / ways.scale[w, 0]
            + p.absence_weight * d2 / (d2 + t.own[own, RADIUS] * t.own[own, RADIUS])
            + p.effort_weight * (ax * ax + ay * ay)
        )
        for m in range(around.code.shape[2]):
            other = around.code[w, i, m] - 1
            if other < 0:
                continue
            seen, foresight = around.seen[w, i, m], t.pair[own, other, FORESIGHT]
            rx, ry, ux, uy = seen[0], seen[1], seen[2], seen[3]
            reach = t.pair[own, other, MARGIN] * seen[4]
            near = max(reach - math.sqrt(rx * rx + ry * ry + SOFTENING), 0.0)
            i2, i3, ahead = rx * ux + ry * uy, ux * ux + uy * uy + SOFTENING, 0.0
            if i2 < 0.0 and -i2 / i3 < foresight:
                miss = max(reach - abs(rx * uy - ry * ux) / math.sqrt(i3), 0.0)
                ahead = (1.0 + i2 / i3 / max(foresight, SOFTENING)) * miss
            loss += t.pair[own, other, WEIGHT] * (near * near + ahead * ahead)
        limit = _limit(signs, x, y, w, p.range)
        if t.own[own, HEEDS] > 0.0 and limit < np.inf:
            cx = s.velocity[w, i, 0] - s.road_velocity[w, 0, 0]
            cy = s.velocity[w, i, 1] - s.road_velocity[w, 0, 1]
            loss += t.own[own, WARNED] * max(cx * cx + cy * cy - limit * limit, 0.0)
        reward[w, i] = loss


@disc_part
def _score(batch: Any, p: Any, w: int) -> None:
    """Metrics of world w, in the order of `Traffic.reductions`."""
    s, met = arrays_at(batch.state, Users), arrays_at(batch.state, Contacts)
    kept, ways = arrays_at(batch.state, Kept), arrays_at(batch.state, Ways)
    metric, kinds_of = arrays_at(batch.episode, Scores).metric, arrays_at(batch.tables, Table).own
    t = arrays_at(batch.tables, Counted)
    count = arrays_at(batch.scratch, Counts).count
    n, walls = s.kind.shape[1], met.struck.shape[2]
    now, kinds = kept.steps[w, 0] * p.dt, count.shape[0]
    for a in range(kinds):
        for b in range(kinds):
            count[a, b] = 0.0
    n_ok, n_hit, n_arrived, took, way, until = 0, 0, 0, 0.0, 0.0, 0.0
    time, effort, watched, over, deepest, contacts = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        own, touches = s.kind[w, i] - 1, 0.0
        for j in range(n):
            if met.touched[w, i, j] > 0.0:
                count[own, s.kind[w, j] - 1] += 1.0
                touches += 1.0
        for b in range(walls):
            if met.struck[w, i, b] > 0.0:
                count[own, p.building - 1] += 1.0
                touches += 1.0
        arrived = s.arrival_time[w, i] >= 0.0
        spent = s.arrival_time[w, i] if arrived else now
        n_arrived += arrived
        n_hit += touches > 0.0
        contacts += touches
        until = max(until, spent)
        time += spent
        effort, deepest = effort + kept.effort[w, i], max(deepest, met.deepest[w, i])
        watched, over = watched + kept.watched[w, i], over + kept.over[w, i]
        if arrived and touches == 0.0:
            n_ok += 1
            took += spent
            way += ways.distance[w, i] / kinds_of[own, SPEED]
    metric[w, 0] = n_ok / n
    metric[w, 1] = 1.0 if n_ok == n else 0.0
    metric[w, 2] = n_hit / n
    metric[w, 3] = n_arrived / n
    metric[w, 4] = n_arrived / until
    at = 5
    for f in range(len(t.flow)):
        here, last = 0, 0.0
        for i in range(n):
            if s.kind[w, i] == t.flow[f]:
                arrived = s.arrival_time[w, i] >= 0.0
                here += arrived
                last = max(last, s.arrival_time[w, i] if arrived else now)
        metric[w, at + f] = here / last
    at += len(t.flow)
    metric[w, at] = took / way if n_ok > 0 else np.nan
    metric[w, at + 1] = over / watched if watched > 0.0 else np.nan
    metric[w, at + 2] = deepest
    metric[w, at + 3] = math.sqrt(effort * p.dt / time)
    metric[w, at + 4] = contacts / (n * (n - 1 + walls))
    for c in range(len(t.pairs)):
        metric[w, at + 5 + c] = count[t.contact[c, 0] - 1, t.contact[c, 1] - 1] / t.pairs[c]


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
        _lose(batch, p, w)
        _score(batch, p, w)
        _observe(batch, p, observation, w)
    accumulate_metrics(batch.episode)
    return -1
