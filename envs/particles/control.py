"""What the actions of a disc mean: how numbers in [-1, 1] become a covariant acceleration.

Policies emit scalars; a control multiplies them by vectors that turn and move with the world. In
all that follows p [worlds, agents, 2] is the desired velocity less the velocity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..core.physics.plane import cross, dot, rotate_quarter
from ..core.types import Bound
from .sight import Pairs, Sight

SOFTENING2 = 0.01  # square of the speed below which the heading fades out


class Control(Protocol):
    """A way to act."""

    covariant: ClassVar[bool]  # whether observers that move or turn see the same acceleration

    def size(self, sight: Sight) -> int:
        """Numbers of an action."""
        ...

    def bounds(self, sight: Sight) -> tuple[dict[str, Bound], dict[str, Bound]]:
        """Limits of what it shows besides the sight: of the agent itself, and of neighbours."""
        ...

    def invariants(self, sight: Sight, pairs: Pairs, p: Tensor) -> dict[str, Tensor]:
        """What it shows besides the sight, by the names of `bounds`."""
        ...

    def acceleration(self, sight: Sight, pairs: Pairs, p: Tensor, action: Tensor) -> Tensor:
        """The acceleration [worlds, agents, 2] that an action asks for, not yet limited."""
        ...

    def parity(self, sight: Sight) -> list[float]:
        """Signs of the action's numbers under reflection."""
        ...


@dataclass(frozen=True)
class PairControl:
    """gain sum_j window(r) [A r + B u + C r_perp + D u_perp] + relaxation E p.

    This is the most general pair-additive Galilean-covariant acceleration. An action is
    (A_1..A_k, B.., C.., D.., E), of which the sight says which there are.
    """

    gain: float
    relaxation: float
    covariant: ClassVar[bool] = True

    def size(self, sight: Sight) -> int:
        return len(sight.coefficients) * sight.k + 1

    def bounds(self, sight: Sight) -> tuple[dict[str, Bound], dict[str, Bound]]:
        return {}, {}

    def invariants(self, sight: Sight, pairs: Pairs, p: Tensor) -> dict[str, Tensor]:
        return {}

    def acceleration(self, sight: Sight, pairs: Pairs, p: Tensor, action: Tensor) -> Tensor:
        vectors = {
            "A": pairs.r,
            "B": pairs.u,
            "C": rotate_quarter(pairs.r),
            "D": rotate_quarter(pairs.u),
        }
        a = torch.zeros_like(p)
        for m, name in enumerate(sight.coefficients):
            coefficient = action[..., m * sight.k : (m + 1) * sight.k]
            a = a + ((pairs.window * coefficient).unsqueeze(-1) * vectors[name]).sum(-2)
        return self.gain * a + self.relaxation * action[..., -1:] * p

    def parity(self, sight: Sight) -> list[float]:
        signs = [-1.0 if name in "CD" else 1.0 for name in sight.coefficients]
        return [sign for sign in signs for _ in range(sight.k)] + [1.0]


@dataclass(frozen=True)
class HeadingControl:
    """Along and across a covariant heading, in units of the largest acceleration."""

    max_acceleration: float
    covariant: ClassVar[bool] = True

    def size(self, sight: Sight) -> int:
        return 2

    def bounds(self, sight: Sight) -> tuple[dict[str, Bound], dict[str, Bound]]:
        c, u = sight.cutoff, sight.speed_limit
        own = {name: Bound(-u, u) for name in ("p_along", "p_across")}
        limits = {"r": c, "u": u} if sight.sees_motion else {"r": c}
        return own, {
            f"{vector}_{axis}": Bound(-limit, limit, sight.k, "neighbours")
            for vector, limit in limits.items()
            for axis in ("along", "across")
        }

    def invariants(self, sight: Sight, pairs: Pairs, p: Tensor) -> dict[str, Tensor]:
        e = heading(p, pairs)
        along = e.unsqueeze(-2)
        shown = {"p_along": dot(p, e), "p_across": cross(e, p)}
        shown |= {"r_along": dot(pairs.r, along), "r_across": cross(along, pairs.r)}
        if sight.sees_motion:
            shown |= {"u_along": dot(pairs.u, along), "u_across": cross(along, pairs.u)}
        return shown

    def acceleration(self, sight: Sight, pairs: Pairs, p: Tensor, action: Tensor) -> Tensor:
        e = heading(p, pairs)
        return self.max_acceleration * (action[..., :1] * e + action[..., 1:] * rotate_quarter(e))

    def parity(self, sight: Sight) -> list[float]:
        return [1.0, -1.0]


def heading(p: Tensor, pairs: Pairs) -> Tensor:
    """A covariant direction [worlds, agents, 2] of length below 1: where the agent wants to go.

    It is the desired velocity seen from the mean motion of the neighbours, weighted by the window.
    """
    window = pairs.window.unsqueeze(-1)
    h = p - (window * pairs.u).sum(-2) / (1 + window.sum(-2))
    return h / (dot(h, h) + SOFTENING2).sqrt().unsqueeze(-1)
