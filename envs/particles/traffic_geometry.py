"""Geometry of traffic in torch: who is near, which point of a building is nearest, who touched."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.physics.plane import cross, dot, positive
from .goal_geometry import nearest
from .traffic_kinds import Tables
from .traffic_state import State

FAR = 1e6  # where searches put those that have left, times 1, 2, ...


class Pairs(NamedTuple):
    """What every agent sees: others, nearest first, then buildings, nearest first.

    All [worlds, agents, k, ...], zeros for who is absent. r leads to the middle of a disc, or to
    the nearest point of a building, which moves with the road.
    """

    present: Tensor
    r: Tensor
    u: Tensor
    contact: Tensor  # |r| at which they touch
    kind: Tensor  # code, 0 where absent
    give: Tensor  # part of the gap that the agent has to give
    mask: Tensor  # [..., 8] what is seen of it


def apart(state: State) -> Tensor:
    """Places in which those that have left are far from everybody and from each other."""
    number = torch.arange(1, state.kind.shape[1] + 1, dtype=torch.float64)
    far = torch.stack([FAR * number, torch.zeros_like(number)], -1).to(state.position.device)
    return torch.where((state.arrival_time < 0).unsqueeze(-1), state.position.detach(), far)


def way_to_buildings(state: State) -> Tensor:
    """From every agent to the nearest point of every building [worlds, agents, buildings, 2]."""
    start, end = (state.building[:, None, :, m] for m in range(2))
    core = _way_to_segment(state.position.unsqueeze(2), start, end)
    distance = positive(dot(core, core)).sqrt()  # a centre may lie on a wall's middle line
    return core * (1 - state.thickness.unsqueeze(1) / distance).clamp(min=0).unsqueeze(-1)


def pairs_of(
    state: State, tables: Tables, cutoff: float, n_neighbours: int, n_buildings: int, building: int
) -> Pairs:
    """What is seen: at most so many within the cutoff; building: the code of buildings."""
    index, present = nearest(apart(state), cutoff, n_neighbours)
    worlds = torch.arange(len(index), device=index.device)[:, None, None]
    r = state.position[worlds, index] - state.position.unsqueeze(2)
    u = state.velocity[worlds, index] - state.velocity.unsqueeze(2)
    kind = state.kind[worlds, index]
    radius = of_kind(tables.radius, state)
    contact = radius.unsqueeze(2) + radius[worlds, index]
    way = way_to_buildings(state)
    near, order = dot(way, way).detach().sort(stable=True, dim=-1)
    order = order[..., :n_buildings]
    there = (near[..., :n_buildings] < cutoff**2) & (state.arrival_time < 0).unsqueeze(-1)
    rows = torch.arange(way.shape[1], device=index.device)[None, :, None]
    wall = way[worlds, rows, order]
    still = (state.road_velocity - state.velocity).unsqueeze(2).expand_as(wall)
    present = torch.cat([present, there], -1)
    shown = present.unsqueeze(-1)
    code = torch.cat([kind, torch.full_like(order, building)], -1)
    own = (state.kind - 1).unsqueeze(-1).expand_as(code)
    right = right_of_way(state, index, tables)
    give = _of(tables.give, r)[own, code - 1]
    give = torch.cat([right, give[..., index.shape[-1] :]], -1)
    return Pairs(
        present,
        torch.cat([r, wall], 2).where(shown, 0.0),
        torch.cat([u, still], 2).where(shown, 0.0),
        torch.cat([contact, radius.unsqueeze(2).expand_as(order)], -1).where(present, 0.0),
        code.where(present, 0),
        give.where(present, 0.0),
        _of(tables.mask, r)[own, code - 1] * shown,
    )


def right_of_way(state: State, index: Tensor, tables: Tables) -> Tensor:
    """The part of the gap [worlds, agents, k] that each has to give to the others in `index`."""
    worlds = torch.arange(len(index), device=index.device)[:, None, None]
    own, other = (state.kind - 1).unsqueeze(-1), state.kind[worlds, index] - 1
    give = _of(tables.give, state.position)[own, other]
    ruled = _of(tables.by_road, state.position)[own, other] > 0
    above = state.rank.unsqueeze(-1) - state.rank[worlds, index]
    turn = cross(state.heading.unsqueeze(2), state.heading[worlds, index])
    turn = turn * state.hand.unsqueeze(-1)
    by_side = torch.where(turn > 0.5, 1.0, torch.where(turn < -0.5, 0.0, give))
    by_road = torch.where(above > 0, 0.0, torch.where(above < 0, 1.0, by_side))
    return torch.where(ruled, by_road, give)


def strictest_limit(state: State, reach: float) -> Tensor:
    """The lowest limit [worlds, agents] of the signs within reach; inf without one."""
    r = state.sign.unsqueeze(1) - state.position.detach().unsqueeze(2)
    limit = state.limit.unsqueeze(1).expand(r.shape[:-1])
    return torch.where(dot(r, r) < reach**2, limit, torch.inf).amin(-1)


def overlaps(before: State, after: State, tables: Tables, drift: Tensor) -> tuple[Tensor, Tensor]:
    """How deep agents overlapped on the straight way of a step; below 0 where they did not.

    With agents [worlds, agents, agents] and with buildings [worlds, agents, buildings], which move
    by `drift` [worlds, 1, 2].
    """
    place, moved = before.position.detach(), after.position.detach()
    there = before.arrival_time < 0
    radius = of_kind(tables.radius, before)
    r = place.unsqueeze(1) - place.unsqueeze(2)
    s = moved.unsqueeze(1) - moved.unsqueeze(2) - r
    t = (-dot(r, s) / positive(dot(s, s))).clamp(0, 1)
    closest = (r + t.unsqueeze(-1) * s).norm(dim=-1)
    depth = radius.unsqueeze(1) + radius.unsqueeze(2) - closest
    met = there.unsqueeze(1) & there.unsqueeze(2)
    met = met & ~torch.eye(place.shape[1], dtype=torch.bool, device=place.device)
    depth = depth.where(met, -1.0)
    end = moved - drift
    one, other = (before.building[:, None, :, m] for m in range(2))
    way = _between_segments(place.unsqueeze(2), end.unsqueeze(2), one, other)
    into = radius.unsqueeze(-1) + before.thickness.unsqueeze(1) - way
    return depth, into.where(there.unsqueeze(-1), -1.0)


def of_kind(table: np.ndarray, state: State) -> Tensor:
    """What a table [kinds] says of every agent [worlds, agents]."""
    return _of(table, state.kind)[state.kind - 1]


def _of(table: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(table)).to(like.device)


def _way_to_segment(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """From points to the nearest points of segments, all [..., 2]."""
    s = end - start
    t = (dot(x - start, s) / positive(dot(s, s))).clamp(0, 1)
    return start + t.unsqueeze(-1) * s - x


def _between_segments(a: Tensor, b: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Distance of the segments a b and p q [...]; 0 where they cross."""
    ways = ((a, p, q), (b, p, q), (p, a, b), (q, a, b))
    distance = torch.stack([_way_to_segment(*way).norm(dim=-1) for way in ways]).amin(0)
    d, e, f = b - a, q - p, p - a
    turn = cross(d, e)
    safe = torch.where(turn == 0, 1.0, turn)
    s, t = cross(f, e) / safe, cross(f, d) / safe
    crosses = (turn != 0) & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    return distance.where(~crosses, 0.0)
