"""Who gives way to whom, read from a state alone."""

from __future__ import annotations

import numpy as np

_DEVIATES = (
    0.1  # from its straight way, as a share of the largest speed: less is driving straight on
)
_HORIZON = 10.0  # in radii over the largest speed


def straight_on(way: np.ndarray, speed: float | np.ndarray, dt: float) -> np.ndarray:
    """Velocities [n, 2] straight to what is `way` [n, 2] away, at full speed or there in a step.

    speed: one, or [n, 1].
    """
    d = np.hypot(*way.T)[:, None]
    return way * (np.minimum(speed, d / dt) / np.maximum(d, 1e-12))


def look_ahead(way: np.ndarray, radius: np.ndarray, speed: float | np.ndarray) -> np.ndarray:
    """How far ahead in time a disc minds others [n]: some radii, and no farther than its goal."""
    return np.minimum(_HORIZON * radius, np.hypot(*way.T)) / speed


def time_to_touch(r: np.ndarray, s: np.ndarray, contact: np.ndarray) -> np.ndarray:
    """When |r + s t| = contact for the first time [...], 0 for those who touch; inf: never.

    r, s [..., 2]: where another is, and how it moves to oneself.  contact [...]: sum of radii.
    """
    approach, s2 = (r * s).sum(-1), (s * s).sum(-1)
    gap = ((r * r).sum(-1) - contact**2).clip(min=0)
    root = approach**2 - s2 * gap
    meets = (approach < 0) & (root >= 0)
    return np.where(meets, gap / (np.sqrt(root.clip(min=0)) - approach).clip(min=1e-12), np.inf)


def yields(
    velocity: np.ndarray,
    straight: np.ndarray,
    neighbour: np.ndarray,
    r: np.ndarray,
    contact: np.ndarray,
    present: np.ndarray,
    horizon: np.ndarray,
    speed: float | np.ndarray,
) -> np.ndarray:
    """Pairs [m, 2] of who gives way and to whom, at most one for each disc.

    A disc gives way if its velocity is not the one straight to its goal, and another is there that
    it would touch within its horizon if it went straight on and the other as it goes now: to the
    first such one, if that keeps nearer to its own straight way.

    velocity, straight [n, 2]: as it is, and straight to the goal (`straight_on`).
    neighbour, contact, present [n, k] and r [n, k, 2]: of the others that are near.
    horizon [n]: times ahead (`look_ahead`).  speed: the largest, one or [n].
    """
    if not neighbour.shape[1]:
        return np.zeros((0, 2), int)
    deviation = np.hypot(*(velocity - straight).T)
    soon = time_to_touch(r, velocity[neighbour] - straight[:, None], contact)
    soon = np.where(present & (soon < horizon[:, None]), soon, np.inf)
    first = soon.argmin(1)[:, None]
    other = np.take_along_axis(neighbour, first, 1)[:, 0]
    more = deviation - deviation[other] > 1e-6 * speed
    blocked = np.isfinite(np.take_along_axis(soon, first, 1)[:, 0])
    mine = np.flatnonzero((deviation > _DEVIATES * speed) & blocked & more)
    return np.stack([mine, other[mine]], -1)
