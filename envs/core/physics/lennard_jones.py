"""The Lennard-Jones law of a pair in reduced units, differentiable."""

from __future__ import annotations

from torch import Tensor


def lennard_jones_energy(square_distance: Tensor) -> Tensor:
    """4 (r^-12 - r^-6)."""
    inverse = 1 / square_distance
    s6 = inverse * inverse * inverse
    return 4 * s6 * (s6 - 1)
