"""Arrays of the compiled form of traffic: what each part of a step takes of them, and memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core.physics.kernels.discs import rows_of
from .traffic_kinds import Tables

RADIUS, SPEED, HEEDS, WARNED = 0, 1, 2, 3
WEIGHT, MARGIN, FORESIGHT, GIVE, BY_ROAD = 8, 9, 10, 11, 12


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
    contact: Any  # [contacts, 3] codes, number of ordered pairs


class Fixed(NamedTuple):
    """All that no step changes."""

    own: Any
    pair: Any
    flow: Any
    contact: Any


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
    contacts: dict[str, tuple[int, int, int]],
) -> Fixed:
    """Tables for compiled code; sign: the code of signs, see `Fixed` for the others."""
    heeds, warned = tables.mask[:, sign - 1, 2], tables.weight[:, sign - 1]
    pair = (tables.weight, tables.margin, tables.foresight, tables.give, tables.by_road)
    return Fixed(
        np.stack([tables.radius, tables.speed, heeds, warned], -1),
        np.ascontiguousarray(np.concatenate([tables.mask, np.stack(pair, -1)], -1)),
        np.array(flow, np.int64).reshape(-1),
        np.array(list(contacts.values()), np.int64).reshape(-1, 3),
    )
