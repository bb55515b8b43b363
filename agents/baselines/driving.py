"""Classical drivers for systems whose agents see the pair invariants I1..I4.

Each maps invariants by name, a batch [worlds, agents(, k)], to the coefficients of the covariant
acceleration gain sum_j window [A r + B u + ...] + relaxation E p; see envs/particles/discs.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...envs.particles.discs import Discs

BRAKE = 1.0  # share of the approach that braking takes away, in units of the gain
REPULSION = 1.0  # strength of the social force, in units of the gain
RELAXATION = 0.5  # pull towards the desired velocity, in units of the relaxation rate


def straight(system: Discs, seen: dict[str, Tensor]) -> Tensor:
    """No acceleration: the desired velocity is kept."""
    return _action(system, seen, {}, 0.0)


def brake(system: Discs, seen: dict[str, Tensor]) -> Tensor:
    """Match the velocity of neighbours that come closer, else return to the desired one.

    Falls back to the desired velocity alone where relative motion is not seen.
    """
    if "I2" not in seen:
        return _action(system, seen, {}, RELAXATION)
    closing = (seen["I2"] < 0).to(seen["I1"].dtype)
    return _action(system, seen, {"B": BRAKE * closing}, RELAXATION)


def social_force(system: Discs, seen: dict[str, Tensor]) -> Tensor:
    """Repulsion that decays exponentially with distance (Helbing and Molnar 1995, simplified).

    Neighbours push each other apart along r, and everybody relaxes to the desired velocity.
    """
    distance = seen["I1"].clamp(min=1e-6).sqrt()
    push = REPULSION * torch.exp((2 * system.radius - distance) / system.radius) / distance
    return _action(system, seen, {"A": -push}, RELAXATION)


def _action(system: Discs, seen: dict[str, Tensor], given: dict[str, Tensor], own: float) -> Tensor:
    """The action [worlds, agents, size] of coefficients by name and E = `own`."""
    nothing = torch.zeros_like(seen["I1"])
    if system.actions == "pair":
        parts = [given.get(name, nothing) for name in system.sight.coefficients]
        last = torch.full_like(nothing[..., :1], own)
        return torch.cat([*parts, last], -1).clamp(-1, 1)
    window = (1 - seen["I1"] / system.cutoff**2).clamp(min=0) ** 2
    total = []
    for axis in ("along", "across"):
        a = system.relaxation * own * seen[f"p_{axis}"]
        a = a + system.gain * (window * given.get("A", nothing) * seen[f"r_{axis}"]).sum(-1)
        if "B" in given:
            a = a + system.gain * (window * given["B"] * seen[f"u_{axis}"]).sum(-1)
        total.append(a / system.max_acceleration)
    return torch.stack(total, -1).clamp(-1, 1)
