"""What a step of traffic costs and how it is scored, compiled; see `traffic_scores.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.kernels.binding import arrays_at
from ..core.physics.kernels.discs import disc_part
from .traffic_arrays import (
    FORESIGHT,
    HEEDS,
    MARGIN,
    RADIUS,
    SPEED,
    WARNED,
    WEIGHT,
    Contacts,
    Counted,
    Counts,
    Kept,
    Moved,
    Scores,
    Seen,
    Signs,
    Table,
    Users,
    Ways,
)
from .traffic_scores import SOFTENING


@disc_part
def limit_at(signs: Signs, x: float, y: float, w: int, reach: float) -> float:
    """The lowest limit of the signs within reach of a place; inf without one."""
    limit = np.inf
    for m in range(signs.sign.shape[1]):
        dx, dy = signs.sign[w, m, 0] - x, signs.sign[w, m, 1] - y
        if dx * dx + dy * dy < reach * reach:
            limit = min(limit, signs.limit[w, m])
    return limit


@disc_part
def lose(batch: Any, p: Any, w: int) -> None:
    """Losses of world w after its step."""
    s, around = arrays_at(batch.state, Users), arrays_at(batch.scratch, Seen)
    signs, ways = arrays_at(batch.state, Signs), arrays_at(batch.state, Ways)
    moved, t = arrays_at(batch.scratch, Moved), arrays_at(batch.tables, Table)
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
        limit = limit_at(signs, x, y, w, p.range)
        if t.own[own, HEEDS] > 0.0 and limit < np.inf:
            cx = s.velocity[w, i, 0] - s.road_velocity[w, 0, 0]
            cy = s.velocity[w, i, 1] - s.road_velocity[w, 0, 1]
            loss += t.own[own, WARNED] * max(cx * cx + cy * cy - limit * limit, 0.0)
        reward[w, i] = loss


@disc_part
def score(batch: Any, p: Any, w: int) -> None:
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
    for c in range(len(t.contact)):
        touched = count[t.contact[c, 0] - 1, t.contact[c, 1] - 1]
        metric[w, at + 5 + c] = touched / t.contact[c, 2]
