"""What a disc sees of its neighbours: which of I1..I4, of how many, how far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.physics.invariants import galilean_pair
from ..core.types import Bound

INVARIANTS = ("I1", "I2", "I3", "I4")


class Pairs(NamedTuple):
    """Neighbours of every agent, nearest first."""

    neighbour: Tensor  # [worlds, agents, k] index of the agent, its own where absent
    present: Tensor  # [worlds, agents, k]
    r: Tensor  # [worlds, agents, k, 2], 0 where absent
    u: Tensor  # [worlds, agents, k, 2], 0 where absent
    i1: Tensor  # [worlds, agents, k], cutoff^2 where absent
    window: Tensor  # [worlds, agents, k]


@dataclass(frozen=True)
class Sight:
    """The `k` nearest within `cutoff`; relative velocities are clipped at `speed_limit`.

    seen: which of I1..I4, in this order.
    """

    k: int
    cutoff: float
    speed_limit: float
    seen: tuple[str, ...]

    @property
    def sees_motion(self) -> bool:
        """Whether relative velocities are seen."""
        return self.seen != ("I1",)

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Which vectors of a pair an action may use: A r, B u, C r_perp, D u_perp."""
        motion, handed = self.sees_motion, "I4" in self.seen
        return ("A", *("B" * motion), *("C" * handed), *("D" * (handed and motion)))

    @property
    def bounds(self) -> dict[str, Bound]:
        """Limits of what is seen, by name."""
        limits = pair_limits(self.cutoff, self.speed_limit)
        return {name: Bound(*limits[name], self.k, "neighbours") for name in self.seen}

    def invariants(self, pairs: Pairs) -> dict[str, Tensor]:
        """What is seen [worlds, agents, k], by name, nearest first."""
        four = galilean_pair(pairs.r, pairs.u)
        four["I1"] = pairs.i1
        return {name: four[name] for name in self.seen}

    def features(self, seen: dict[str, Tensor]) -> Tensor:
        """What is seen, brought to order one [..., k, invariants]."""
        scaled = {
            "I1": lambda x: 2 * x.clamp(min=1e-12).sqrt() / self.cutoff - 1,
            "I2": torch.asinh,
            "I3": lambda x: torch.asinh(x) - 0.7,
            "I4": torch.asinh,
        }
        return torch.stack([scaled[name](seen[name]) for name in self.seen], -1)

    def window(self, seen: dict[str, Tensor]) -> Tensor:
        """The weight of a neighbour [..., k], 0 at the cutoff; 1 where distance is not seen."""
        if "I1" not in seen:
            return torch.ones_like(seen[self.seen[0]])
        return (1 - seen["I1"] / self.cutoff**2).clamp(min=0) ** 2


def pair_limits(cutoff: float, speed: float) -> dict[str, tuple[float, float]]:
    """Lowest and highest I1..I4 of a pair within `cutoff` whose velocities differ by `speed`."""
    return {
        "I1": (0, cutoff * cutoff),
        "I2": (-cutoff * speed, cutoff * speed),
        "I3": (0, speed * speed),
        "I4": (-cutoff * speed, cutoff * speed),
    }


def frame_limits(cutoff: float, speed: float) -> dict[str, tuple[float, float]]:
    """The same of r and u along and across a direction."""
    vectors = {"r": cutoff, "u": speed}
    return {
        f"{vector}_{axis}": (-limit, limit)
        for vector, limit in vectors.items()
        for axis in ("along", "across")
    }
