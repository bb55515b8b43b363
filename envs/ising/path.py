"""Paths of a controller of a square torus in the plane of 1 / T and h / T."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from ..core.rng import Rng
from ..core.types import Bound
from ..core.validation import require_number
from .exact import geodesic, learned_geodesic, log_z

_HOTTEST = 0.01  # 1 / T


@final
@dataclass(frozen=True)
class ReducedPath:
    """The straight line from a start to an end (1 / T, h / T), and how far an action leads off.

    reach: in 1 / T and in h / T.  n_steps: in which to get there.  side: of the torus.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    reach: tuple[float, float]
    n_steps: int
    side: int

    def __post_init__(self) -> None:
        for name in ("start", "end", "reach"):
            value, off = getattr(self, name), name == "reach"
            if not isinstance(value, tuple) or len(value) != 2:
                raise ValueError(f"{name}={value!r} must be two numbers, of 1 / T and h / T")
            require_number(f"1 / T of {name}", value[0], 0 if off else _HOTTEST, strict=off)
            require_number(f"h / T of {name}", value[1], 0 if off else -math.inf, strict=off)

    @property
    def bounds(self) -> dict[str, Bound]:
        """Limits of 1 / T and of h / T."""
        high = [max(self.start[i], self.end[i]) + self.reach[i] for i in range(2)]
        low = min(self.start[1], self.end[1]) - self.reach[1]
        return {"inverse_temperature": Bound(0.0, high[0]), "reduced_field": Bound(low, high[1])}

    def line(self, step: Tensor) -> Tensor:
        """Points [..., 2] of the straight line at steps [..., 1]."""
        ends = torch.tensor([self.start, self.end], dtype=torch.float64, device=step.device)
        start, end = ends
        return start + (end - start) * step / self.n_steps

    def next_point(self, time: Tensor, action: Tensor) -> Tensor:
        """Points [worlds, 2] after step `time` [worlds, 1] under actions [worlds, 2]."""
        step = time + 1
        reach = torch.tensor(self.reach, dtype=torch.float64, device=action.device)
        away = torch.where(step < self.n_steps, action * reach, 0.0)
        point = self.line(step) + away
        return torch.cat([point[:, :1].clamp(min=_HOTTEST), point[:, 1:]], 1)

    def towards(self, points: Tensor) -> Tensor:
        """Actions [n_steps, 2] that lead along points [n_steps + 1, 2]."""
        line = self.line(torch.arange(1, self.n_steps + 1, device=points.device)[:, None])
        reach = torch.tensor(self.reach, dtype=torch.float64, device=points.device)
        return ((points[1:] - line) / reach).clamp(-1, 1)

    def free_change(self) -> float:
        """log Z at the end less that at the start, exact."""
        return log_z(self.side, *self.end) - log_z(self.side, *self.start)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        """The straight line, and the shortest paths under the exact metric and a learned one."""
        return {
            "straight": self._follow_line,
            "geodesic": self._follow_geodesic,
            "learned-geodesic": self._follow_learned,
        }

    def _follow_line(self, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
        progress = invariants["progress"]
        return torch.zeros(*progress.shape, 2, dtype=torch.float64, device=progress.device)

    def _follow_geodesic(self, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
        points = geodesic(self.side, self.start, self.end, self.n_steps)
        return self._follow(points, invariants["progress"])

    def _follow_learned(self, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
        points = learned_geodesic(self.start, self.end, self.n_steps)
        return self._follow(points, invariants["progress"])

    def _follow(self, points: np.ndarray, progress: Tensor) -> Tensor:
        """Actions along points [n_steps + 1, 2]."""
        actions = self.towards(torch.from_numpy(points).to(progress.device))
        step = (progress * self.n_steps).round().long().clamp(max=self.n_steps - 1)
        return actions[step]
