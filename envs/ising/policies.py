"""Exact policies of Ising spins, from what a spin sees of its neighbours."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..core.physics.updates import heat_bath_chance, metropolis_chance
from ..core.rng import Rng

COLD = 0.3  # temperature of the policy "cold", over that of the world


def heat_bath(invariants: dict[str, Tensor]) -> Tensor:
    """Chance to flip [worlds, agents] that forgets the old spin: 1 / (1 + exp(change / T))."""
    return heat_bath_chance(reduced_change(invariants))


def cold(invariants: dict[str, Tensor]) -> Tensor:
    """Chance to flip [worlds, agents] of a heat bath at COLD times the temperature."""
    return heat_bath_chance(reduced_change(invariants) / COLD)


def metropolis(invariants: dict[str, Tensor]) -> Tensor:
    """Chance to flip [worlds, agents]: min(1, exp(-change / T))."""
    return metropolis_chance(reduced_change(invariants))


def reduced_change(invariants: dict[str, Tensor]) -> Tensor:
    """What a flip would add to the energy, over T."""
    local = invariants["alignment"] + invariants["field_alignment"]
    return 2 * local * invariants["inverse_temperature"]


def sample(
    chance: Callable[[dict[str, Tensor]], Tensor], invariants: dict[str, Tensor], rng: Rng
) -> Tensor:
    """Flips drawn with the chance of a policy."""
    flip = chance(invariants)
    return (rng.uniform(*flip.shape) < flip).long()
