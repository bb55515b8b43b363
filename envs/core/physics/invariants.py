"""Scalars by symmetry group."""

from __future__ import annotations

from torch import Tensor

from .plane import cross, dot


def galilean_pair(r: Tensor, u: Tensor) -> dict[str, Tensor]:
    """The four generators of what a pair in the plane shows under translation, boost and rotation.

    r, u [..., 2]: relative position and velocity. I1 = r.r, I2 = r.u, I3 = u.u and the
    pseudo-scalar I4 = r x u, which changes sign under reflection; I4^2 = I1 I3 - I2^2. They
    generate all invariants of SO(2) of two vectors (first fundamental theorem), and are the reading
    of "four invariants" in Andrejic and Vanchurin, arXiv 2301.10077, that the number best supports.
    """
    return {"I1": dot(r, r), "I2": dot(r, u), "I3": dot(u, u), "I4": cross(r, u)}


def time_to_collision(i1: Tensor, i2: Tensor, i3: Tensor, i4: Tensor, contact: float) -> Tensor:
    """Time until two discs in straight motion touch at distance `contact`; inf if they miss.

    TTC = (-I2 - sqrt(D^2 I3 - I4^2)) / I3 for I1 > D^2, I2 < 0 and I4^2 < D^2 I3.
    """
    gap = contact**2 * i3 - i4**2
    time = (-i2 - gap.clamp(min=0).sqrt()) / i3
    meets = (i2 < 0) & (gap > 0)
    return time.where(meets, time.new_full((), float("inf")))
