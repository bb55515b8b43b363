"""Geometry of discs in the open plane: neighbours, overlaps on the way, directions; in torch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.physics.plane import dot, positive


class Pairs(NamedTuple):
    """Neighbours of every agent, nearest first; zeros for who is absent."""

    neighbour: Tensor  # [worlds, agents, k] index of the agent, its own where absent
    present: Tensor  # [worlds, agents, k]
    r: Tensor  # [worlds, agents, k, 2]
    u: Tensor  # [worlds, agents, k, 2]
    contact: Tensor  # [worlds, agents, k] sum of radii


_TURNS_WILDLY = 0.01  # length of a way whose direction no gradient goes through


def direction(g: Tensor) -> Tensor:
    """Unit vectors along g [..., 2]; (1, 0) where g is 0.

    The derivative grows as 1 / |g|, so that descent through many steps at a goal would overflow:
    there the direction is a constant to it.
    """
    first = torch.tensor([1.0, 0.0], dtype=g.dtype, device=g.device)
    square = dot(g, g).unsqueeze(-1)
    g = torch.where(square < _TURNS_WILDLY**2, torch.where(square == 0, first, g.detach()), g)
    return g / dot(g, g).sqrt().unsqueeze(-1)


def distance_along(g: Tensor) -> Tensor:
    """|g| [...] of g [..., 2], whose derivative at 0 is 0."""
    square = dot(g, g)
    return square.where(square > 0, 1.0).sqrt().where(square > 0, 0.0)


def shortened(vector: Tensor, length: float) -> Tensor:
    """Vectors [..., 2] that are no longer than `length`."""
    return vector * (length / dot(vector, vector).clamp(min=length**2).sqrt()).unsqueeze(-1)


def overlaps(before: Tensor, position: Tensor, radius: Tensor) -> Tensor:
    """How deep each disc overlapped another at most in a straight step [worlds, agents], >= 0."""
    before, position = before.detach(), position.detach()
    if position.device.type == "cpu":
        from .goal_search import overlaps_on_the_way

        plain = (array.double().numpy() for array in (before, position, radius))
        return torch.from_numpy(overlaps_on_the_way(*plain)).to(position.dtype)
    r = before.unsqueeze(1) - before.unsqueeze(2)
    s = position.unsqueeze(1) - position.unsqueeze(2) - r
    t = (-dot(r, s) / positive(dot(s, s))).clamp(0, 1)
    closest = (r + t.unsqueeze(-1) * s).norm(dim=-1)
    depth = radius.unsqueeze(1) + radius.unsqueeze(2) - closest
    depth.diagonal(dim1=1, dim2=2).fill_(0.0)
    return depth.amax(-1).clamp(min=0)


def nearest(position: Tensor, cutoff: float, k: int) -> tuple[Tensor, Tensor]:
    """Index and presence [worlds, agents, k] of the k nearest within the cutoff."""
    if position.device.type == "cpu":
        from .goal_search import nearest_in_plane

        nearest = torch.from_numpy(nearest_in_plane(position.numpy(), cutoff, k)).long()
        own = torch.arange(position.shape[1])[None, :, None]
        return torch.where(nearest >= 0, nearest, own), nearest >= 0
    r = position.unsqueeze(1) - position.unsqueeze(2)
    d2 = dot(r, r)
    d2.diagonal(dim1=1, dim2=2).fill_(math.inf)
    near, index = d2.sort(stable=True, dim=-1)
    present = (near < cutoff**2)[..., :k]
    own = torch.arange(position.shape[1], device=position.device)[None, :, None]
    return torch.where(present, index[..., :k], own), present
