"""Sums over neighbours that atoms observe: bumps of distances, vectors and tensors of directions.

Of all pairs of a batch of worlds, differentiable. An atom is no neighbour of itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .plane import dot

_FAR = 1e6


def distances(r: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths [worlds, atoms, atoms] and directions of the vectors `r` [..., 3] to neighbours.

    An atom is far from itself.
    """
    own = torch.eye(r.shape[1], dtype=torch.bool, device=r.device)
    square = torch.where(own, _FAR**2, dot(r, r)).clamp(min=1e-12)
    distance = square.sqrt()
    return distance, r / distance.unsqueeze(-1)


def bump(distance: Tensor, centre: Tensor, half_width: Tensor) -> Tensor:
    """(1 - ((r - c) / h)^2)^2 within h of the centre c, else 0.

    Centres and half widths broadcast against distances [..., 1].
    """
    return (1 - ((distance.unsqueeze(-1) - centre) / half_width) ** 2).clamp(min=0) ** 2


def moments(weight: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over neighbours of weight times n, and of weight times the products of n with itself.

    weight [worlds, atoms, atoms, channels]; direction [worlds, atoms, atoms, 3]; the sums
    [worlds, atoms, channels, 3] and [worlds, atoms, channels, 9].
    """
    first = (weight.unsqueeze(-1) * direction.unsqueeze(-2)).sum(2)
    square = (direction.unsqueeze(-1) * direction.unsqueeze(-2)).flatten(-2)
    return first, (weight.unsqueeze(-1) * square.unsqueeze(-2)).sum(2)


def products(moment: Tensor) -> Tensor:
    """asinh of the dot products of channels a <= b, row after row; moment [..., channels, m]."""
    channels = moment.shape[-2]
    a, b = torch.triu_indices(channels, channels, device=moment.device)
    return torch.asinh(dot(moment[..., a, :], moment[..., b, :]))
