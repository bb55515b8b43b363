"""The state of discs that have places to go, and how other observers see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.physics.plane import rotate_quarter
from ..core.rng import Rng
from ..core.types import Symmetry

TOLERANCE = 1e-3  # an overlap that is deeper counts as a hit, length
SETTLED = 0.3  # who is so near to the goal has settled, length


class State(NamedTuple):
    position: Tensor  # [worlds, agents, 2] length
    velocity: Tensor  # [worlds, agents, 2] length / time
    goal: Tensor  # [worlds, agents, 2] length
    goal_velocity: Tensor  # [worlds, agents, 2] length / time, the same for all of a world
    radius: Tensor  # [worlds, agents] length
    distance: Tensor  # [worlds, agents] from start to goal
    scale: Tensor  # [worlds, 1] length of the scene
    arrival_time: Tensor  # [worlds, agents] -1 for who has not arrived
    hit: Tensor  # [worlds, agents] 1 for who ever overlapped another by more than 1 mm
    deepest: Tensor  # [worlds, agents] deepest overlap so far, length
    effort: Tensor  # [worlds, agents] sum of squares of its accelerations
    steps: Tensor  # [worlds, 1] steps of the episode


def seen_by_others(state: State, rng: Rng, k: int) -> Iterator[Symmetry]:
    """The world relabelled, shifted, boosted, turned and mirrored; k: neighbours that are seen."""
    worlds, n = state.radius.shape
    order = torch.argsort(rng.uniform(worlds, n), -1)
    mixed = State(*(_relabelled(field, order) for field in state))
    yield Symmetry("relabel", mixed, order)
    shift = 20 * rng.uniform(worlds, 1, 2) - 10
    yield Symmetry("translation", _mapped(state, lambda x: x + shift, lambda v: v))
    boost = 2 * rng.uniform(worlds, 1, 2) - 1
    yield Symmetry("boost", _mapped(state, lambda x: x, lambda v: v + boost))
    angle = 2 * math.pi * rng.uniform(worlds, 1, 1)
    c, s = angle.cos(), angle.sin()

    def turn(vector: Tensor) -> Tensor:
        return c * vector + s * rotate_quarter(vector)

    yield Symmetry("rotation", _mapped(state, turn, turn))
    device = state.position.device
    mirror = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=device)
    parity = [1.0] * 2 * k + [-1.0] * 2 * k + [1.0, -1.0]
    action = torch.tensor(parity, dtype=torch.float64, device=device)
    signs: dict[str, float | Tensor] = {"action": action}
    signs |= {name: -1.0 for name in ("I4", "c_across", "r_across", "u_across")}
    flipped = _mapped(state, lambda x: mirror * x, lambda v: mirror * v)
    yield Symmetry("reflection", flipped, signs=signs)


def _relabelled(field: Tensor, order: Tensor) -> Tensor:
    if field.shape[1] == 1:
        return field
    index = order if field.ndim == 2 else order.unsqueeze(-1).expand(-1, -1, field.shape[-1])
    return field.gather(1, index)


def _mapped(
    state: State, place: Callable[[Tensor], Tensor], motion: Callable[[Tensor], Tensor]
) -> State:
    """The state with places and velocities as another observer has them."""
    return state._replace(
        position=place(state.position),
        goal=place(state.goal),
        velocity=motion(state.velocity),
        goal_velocity=motion(state.goal_velocity),
    )
