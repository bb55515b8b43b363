"""Where roads, houses, trees and signs stand, and where everybody starts.

A layout is a number of equal arms from its middle. Along an arm lie, from its axis outwards, a lane
on either side, the kerb with a tree, the pavement, and a row of houses that begins `corner` from
the middle. Traffic keeps right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.physics.plane import rotate_quarter
from ..core.rng import Rng
from .traffic_kinds import Kind
from .traffic_state import Built, Starts

LANE, KERB, PAVEMENT, FRONT = 0.6, 1.2, 1.55, 2.2  # distances from the axis of an arm
_ENTRY, _QUEUE = 0.75, 1.6  # where the first drivers start, in lengths of an arm; one after another
_JITTER, _ALONG_JITTER, _ACROSS_JITTER = 0.7, 0.06, 0.04
_SLOT, _FROM_CORNER, _FROM_END = 0.5, 0.4, 0.3  # places on a pavement
_CROSSES, _SLANT = 0.75, 1.5  # share of those on a pavement who cross the road, and how askew
_TREE, _POST = 1.9, 0.5  # of trees and signs from the corner
_TREE_RADIUS, _HOUSE_RADIUS = 0.1, 0.1


class Layout(NamedTuple):
    """arms: directions from the middle, rad.  corner: where houses begin.  main: arms that have
    the right of way where there is a main road."""

    arms: tuple[float, ...]
    corner: float
    main: tuple[int, ...]


LAYOUTS = {
    "crossing": Layout((0.0, 0.5 * math.pi, math.pi, 1.5 * math.pi), FRONT, (0, 2)),
    "street": Layout((0.0, math.pi), 0.6, (0, 1)),
}


def directions(layout: Layout) -> Tensor:
    """Unit vectors along the arms [arms, 2]; exact for quarters of a turn."""
    angles = torch.tensor(layout.arms, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], -1).mul(2**40).round().div(2**40)


def buildings(layout: Layout, length: float) -> tuple[Tensor, Tensor]:
    """Houses and trees: ends [buildings, 2, 2] and radii [buildings]."""
    ends, radii = [], []
    for a in directions(layout):
        left = rotate_quarter(a)
        for side in (-1.0, 1.0):
            front = side * FRONT * left
            ends.append(torch.stack([a * layout.corner + front, a * (length + 1) + front]))
            tree = a * (layout.corner + _TREE) + side * KERB * left
            ends.append(torch.stack([tree, tree]))
            radii += [_HOUSE_RADIUS, _TREE_RADIUS]
    return torch.stack(ends), torch.tensor(radii, dtype=torch.float64)


def n_buildings(layout: Layout) -> int:
    """How many those are: a row of houses and a tree on both sides of every arm."""
    return 4 * len(layout.arms)


def signs(layout: Layout) -> Tensor:
    """Places of the signs, at the right of who comes in [signs, 2]."""
    a = directions(layout)
    return a * (layout.corner + _POST) + KERB * rotate_quarter(a)


def built(layout: Layout, length: float) -> Built:
    """Houses, trees and signs."""
    return Built(*buildings(layout, length), signs(layout))


def pavement_slots(layout: Layout, length: float) -> int:
    """How many can start on the pavements."""
    return 2 * len(layout.arms) * _slots_in_a_row(layout, length)


def start(
    rng: Rng,
    layout: Layout,
    length: float,
    worlds: int,
    numbers: Mapping[Kind, int],
    main_road: bool,
) -> Starts:
    """So many of every kind, in this order."""
    totals = dict.fromkeys(("road", "pavement"), 0)
    places = []
    for kind, n in numbers.items():
        places.append((kind.place, totals[kind.place], totals[kind.place] + n))
        totals[kind.place] += n
    starts = {}
    if totals["road"]:
        starts["road"] = _on_road(rng, layout, length, worlds, totals["road"], main_road)
    if totals["pavement"]:
        starts["pavement"] = _on_pavement(rng, layout, length, worlds, totals["pavement"])
    parts = [[part[:, a:b] for part in starts[place]] for place, a, b in places]
    return Starts(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))


def _on_road(
    rng: Rng, layout: Layout, length: float, worlds: int, n: int, main_road: bool
) -> Starts:
    """Queues in the lanes that lead in; goals at the far ends of the lanes straight on."""
    ways = directions(layout).to(rng.world.device)
    first = (rng.uniform(worlds, 1) * len(ways)).long()
    late = _JITTER * rng.uniform(worlds, n)
    number = torch.arange(n, device=ways.device)
    arm = (first + number) % len(ways)
    a = ways[arm]
    queue = torch.div(number, len(ways), rounding_mode="floor")
    u = (_ENTRY * length + _QUEUE * queue + late).unsqueeze(-1)
    lane = LANE * rotate_quarter(a)  # at the right of -a
    main = torch.isin(arm, torch.tensor(layout.main, device=ways.device))
    rank = (main & main_road).double()
    return Starts(a * u + lane, -a * length + lane, rank)


def _on_pavement(rng: Rng, layout: Layout, length: float, worlds: int, n: int) -> Starts:
    """Random places on the pavements; most cross their road, the others walk along it."""
    ways = directions(layout).to(rng.world.device)
    row = _slots_in_a_row(layout, length)
    order = torch.argsort(rng.uniform(worlds, pavement_slots(layout, length)), -1)[:, :n]
    chance = rng.uniform(worlds, n, 4)
    slot, side = order % row, 1.0 - 2.0 * (torch.div(order, row, rounding_mode="floor") % 2)
    a = ways[torch.div(order, 2 * row, rounding_mode="floor")]
    low, high = layout.corner + _FROM_CORNER, length - _FROM_END
    u = low + _SLOT * slot + _ALONG_JITTER * (2 * chance[..., 0] - 1)
    across = side * (PAVEMENT + _ACROSS_JITTER * (2 * chance[..., 1] - 1))
    crosses = chance[..., 2] < _CROSSES
    slant = (u + _SLANT * (2 * chance[..., 3] - 1)).clamp(low, high)
    end = torch.where(u > 0.5 * (low + high), torch.full_like(u, low), torch.full_like(u, high))
    left = rotate_quarter(a)
    start = a * u.unsqueeze(-1) + left * across.unsqueeze(-1)
    along = torch.where(crosses, slant, end).unsqueeze(-1)
    goal = a * along + left * torch.where(crosses, -across, across).unsqueeze(-1)
    return Starts(start, goal, torch.zeros_like(u))


def require_room(layout: Layout, length: float, numbers: Mapping[Kind, int]) -> None:
    """Raise ValueError unless so many of every kind find places to start from."""
    if not any(numbers.values()):
        names = " + ".join(kind.number for kind in numbers)
        raise ValueError(f"{names}=0 must be at least 1")
    for kind, n in numbers.items():
        if n and kind.radius > widest(kind):
            raise ValueError(
                f"radius={kind.radius} of {kind.name} must be at most {widest(kind):g}: "
                f"it starts on the {kind.place}"
            )
    walking = {kind.number: n for kind, n in numbers.items() if kind.place == "pavement"}
    slots = pavement_slots(layout, length)
    if sum(walking.values()) > slots:
        raise ValueError(
            f"{' + '.join(walking)}={sum(walking.values())} must be at most {slots}: so many find "
            f"a place on pavements of length={length}"
        )


def widest(kind: Kind) -> float:
    """The largest radius that fits where a kind starts."""
    if kind.place == "road":
        return min(0.5 * (_QUEUE - _JITTER), LANE)
    return 0.5 * (_SLOT - 2 * _ALONG_JITTER)


def longest_queue(layout: Layout, length: float, n: int) -> float:
    """How far the last of n drivers starts from the middle."""
    return _ENTRY * length + _QUEUE * (max(n - 1, 0) // len(layout.arms)) + _JITTER


def _slots_in_a_row(layout: Layout, length: float) -> int:
    free = length - _FROM_END - layout.corner - _FROM_CORNER
    return max(int(free / _SLOT + 1e-9) + 1, 0)
