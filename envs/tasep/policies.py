"""The textbook model as a policy: an attempt with the chance that is the agent's rate."""

from __future__ import annotations

from torch import Tensor

from ..core.rng import Rng


def _attempt(chance: Tensor, rng: Rng) -> Tensor:
    return (rng.uniform(*chance.shape) < chance).long()


def hop(invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    return _attempt(invariants["rate"] * invariants["free"], rng)


def hop_ahead(invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    return _attempt(invariants["rate"] * (invariants["gap"] > 0), rng)


def hop_blindly(invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    return _attempt(invariants["rate"], rng)
