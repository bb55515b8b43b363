"""What is seen in traffic: its bounds, and how networks take it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..core.types import Bound, Neighbourhood
from .sight import frame_limits, pair_limits
from .traffic_kinds import MOST_KINDS, OBSERVED


def bounds_of(
    k: int, cutoff: float, speed: float, largest_radius: float, distance: float
) -> dict[str, Bound]:
    """Bounds of everything that is seen of oneself and of k others, in its order.

    speed: where velocities are clipped.  distance: the largest to a goal.
    """
    u = speed
    limits = {
        **pair_limits(cutoff, u),
        **frame_limits(cutoff, u),
        "contact": (0, 2 * largest_radius),
        "neighbour_kind": (0, MOST_KINDS),
        "give": (0, 1),
    }
    return {
        "goal_distance": Bound(0, distance),
        "c_along": Bound(-u, u),
        "c_across": Bound(-u, u),
        "kind": Bound(0, MOST_KINDS),
        "sign_I3": Bound(0, u * u),
        "sign_limit": Bound(0, u),
        **{name: Bound(*limits[name], k, "neighbours") for name in limits},
    }


def neighbourhood_of(softening: float, reach: float) -> Neighbourhood:
    """What networks see of others.

    softening: length by which directions to a goal fade near it.  reach: how far actions reach.
    """

    names = (*OBSERVED, "contact", "give")
    features, window = partial(_features, softening=softening), partial(_window, reach=reach)
    return Neighbourhood(names, ("A", "B", "C", "D"), features, window)


def _features(seen: dict[str, Tensor], softening: float) -> Tensor:
    """What is seen of others, brought to order one [..., k, 10]."""
    near = seen["I1"].clamp(min=1e-12).sqrt()
    scaled = [near - 1, *(torch.asinh(seen[name]) for name in ("I2", "I3", "I4"))]
    e = seen["goal_distance"] / (seen["goal_distance"] ** 2 + softening**2).sqrt()
    scaled += [e.unsqueeze(-1) * seen[name] for name in OBSERVED[4:]]
    return torch.stack([*scaled, seen["contact"], seen["give"]], -1)


def _window(seen: dict[str, Tensor], reach: float) -> Tensor:
    near = (1 - seen["I1"] / reach**2).clamp(min=0) ** 2
    return near.where(seen["contact"] > 0, 0.0)
