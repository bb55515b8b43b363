"""The state of traffic, and how other observers see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.physics.plane import rotate_quarter
from ..core.rng import Rng
from ..core.types import Symmetry
from .goal_geometry import direction


class State(NamedTuple):
    position: Tensor  # [worlds, agents, 2] length
    velocity: Tensor  # [worlds, agents, 2] length / time
    goal: Tensor  # [worlds, agents, 2] length
    heading: Tensor  # [worlds, agents, 2] unit vector from its start to its goal
    road_velocity: Tensor  # [worlds, 1, 2] of everything that does not act, and of goals
    kind: Tensor  # [worlds, agents] code of the kind, from 1
    rank: Tensor  # [worlds, agents] 1 on the main road, else 0
    hand: Tensor  # [worlds, 1] 1 where traffic keeps right, -1 where it keeps left
    building: Tensor  # [worlds, buildings, 2, 2] ends of a segment, the same twice for a disc
    thickness: Tensor  # [worlds, buildings] its radius
    sign: Tensor  # [worlds, signs, 2] place
    limit: Tensor  # [worlds, signs] the speed it allows
    distance: Tensor  # [worlds, agents] from start to goal
    scale: Tensor  # [worlds, 1] length of the scene
    arrival_time: Tensor  # [worlds, agents] -1 for who has not arrived; others have left
    touched: Tensor  # [worlds, agents, agents] 1 for who ever overlapped by more than 1 mm
    struck: Tensor  # [worlds, agents, buildings] the same
    deepest: Tensor  # [worlds, agents] deepest overlap so far, length
    effort: Tensor  # [worlds, agents] sum of squares of its accelerations
    watched: Tensor  # [worlds, agents] steps within the range of a sign that holds for it
    over: Tensor  # [worlds, agents] those of them in which it was too fast
    steps: Tensor  # [worlds, 1] steps of the episode


class Starts(NamedTuple):
    """Of those that act, in the order of the kinds; all [worlds, agents, ...]."""

    position: Tensor
    goal: Tensor
    rank: Tensor


class Built(NamedTuple):
    """What stands on the road."""

    building: Tensor  # [buildings, 2, 2]
    thickness: Tensor  # [buildings]
    sign: Tensor  # [signs, 2]


def at_rest(starts: Starts, codes: list[int], built: Built, limit: float, scale: float) -> State:
    """A state in which nothing has happened yet; codes [agents] of kinds."""
    worlds, n = starts.rank.shape
    device = starts.rank.device
    building, thickness, sign, kind = (
        part.to(device).expand(worlds, *part.shape).clone()
        for part in (*built, torch.tensor(codes))
    )
    nothing, goal = torch.zeros_like(starts.rank), starts.goal
    one = torch.ones_like(nothing[:, :1])
    return State(
        position=starts.position,
        velocity=torch.zeros_like(goal),
        goal=goal,
        heading=direction(goal - starts.position),
        road_velocity=torch.zeros_like(goal[:, :1]),
        kind=kind,
        rank=starts.rank,
        hand=one,
        building=building,
        thickness=thickness,
        sign=sign,
        limit=torch.full_like(sign[..., 0], limit),
        distance=(goal - starts.position).norm(dim=-1),
        scale=scale * one,
        arrival_time=torch.full_like(nothing, -1.0),
        touched=nothing.unsqueeze(-1).repeat(1, 1, n),
        struck=nothing.unsqueeze(-1).repeat(1, 1, thickness.shape[1]),
        deepest=nothing,
        effort=nothing.clone(),
        watched=nothing.clone(),
        over=nothing.clone(),
        steps=torch.zeros_like(one),
    )


_OF_AGENTS = (
    *("position", "velocity", "goal", "heading", "kind", "rank", "distance", "arrival_time"),
    *("touched", "struck", "deepest", "effort", "watched", "over"),
)


def seen_by_others(state: State, rng: Rng, k: int) -> Iterator[Symmetry]:
    """The world relabelled, shifted, boosted, turned and mirrored; k: others that are seen."""
    worlds, n = state.kind.shape
    order = torch.argsort(rng.uniform(worlds, n), -1)
    device = state.position.device
    rows = torch.arange(worlds, device=device)[:, None]
    mixed = state._replace(**{name: getattr(state, name)[rows, order] for name in _OF_AGENTS})
    touched = mixed.touched[
        rows[..., None], torch.arange(n, device=device)[None, :, None], order[:, None]
    ]
    yield Symmetry("relabel", mixed._replace(touched=touched), order)
    shift = 20 * rng.uniform(worlds, 1, 2) - 10
    yield Symmetry("translation", _mapped(state, lambda x: x + shift, _same, _same))
    boost = 2 * rng.uniform(worlds, 1, 2) - 1
    yield Symmetry("boost", _mapped(state, _same, lambda v: v + boost, _same))
    angle = 2 * math.pi * rng.uniform(worlds, 1, 1)
    c, s = angle.cos(), angle.sin()

    def turn(vector: Tensor) -> Tensor:
        return c * vector + s * rotate_quarter(vector)

    yield Symmetry("rotation", _mapped(state, turn, turn, turn))
    mirror = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=device)

    def reflect(vector: Tensor) -> Tensor:
        return mirror * vector

    parity = [1.0] * 2 * k + [-1.0] * 2 * k + [1.0, -1.0]
    signs: dict[str, float | Tensor] = {
        "action": torch.tensor(parity, dtype=torch.float64, device=device)
    }
    signs |= {name: -1.0 for name in ("I4", "c_across", "r_across", "u_across")}
    flipped = _mapped(state, reflect, reflect, reflect)._replace(hand=-state.hand)
    yield Symmetry("reflection", flipped, signs=signs)


def _same(vector: Tensor) -> Tensor:
    return vector


def _mapped(
    state: State,
    place: Callable[[Tensor], Tensor],
    motion: Callable[[Tensor], Tensor],
    way: Callable[[Tensor], Tensor],
) -> State:
    """The state with places, velocities and directions as another observer has them."""
    return state._replace(
        position=place(state.position),
        goal=place(state.goal),
        building=place(state.building.flatten(1, 2)).reshape(state.building.shape),
        sign=place(state.sign),
        velocity=motion(state.velocity),
        road_velocity=motion(state.road_velocity),
        heading=way(state.heading),
    )
