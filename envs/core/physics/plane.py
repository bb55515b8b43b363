"""Geometry of open and periodic space."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_image(r: Tensor, box: Tensor) -> Tensor:
    """Displacements `r` [..., dims] to the nearest periodic image; side `box` 0 is open space.

    `box` must broadcast against `r`. Differentiable in `r`.
    """
    side = torch.where(box > 0, box, torch.ones_like(box))
    return torch.where(box > 0, r - side * (r / side).detach().round(), r)


def wrap(x: Tensor, box: Tensor) -> Tensor:
    """Positions `x` [..., dims] brought into [0, box); unchanged in open space."""
    side = torch.where(box > 0, box, torch.ones_like(box))
    return torch.where(box > 0, x - side * (x / side).detach().floor(), x)


def rotate_quarter(v: Tensor) -> Tensor:
    """(x, y) -> (-y, x), the vector turned by 90 degrees to the left [..., 2]."""
    return torch.stack([-v[..., 1], v[..., 0]], -1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product over the last axis."""
    return (a * b).sum(-1)


def positive(value: Tensor) -> Tensor:
    """The value, at least the smallest normal number of its precision, to be divided by."""
    return value.clamp(min=torch.finfo(value.dtype).tiny)


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Pseudo-scalar a_x b_y - a_y b_x of vectors in the plane [..., 2]."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
