"""A controller of temperature and field takes Ising spins from a start to an end.

The controller moves lambda = (1 / T, h / T), J = 1, in a stated number of steps, from equilibrium
at first. A step costs the dissipated work -(change of lambda) . X, X = (sum of s_i s_j over bonds,
sum of s_i), plus its share of the change of log Z; then every spin acts once or more often as a
heat bath. The mean of the sum is not negative for a schedule, and 0 if infinitely slow (Jarzynski
1997); a controller that looks at the spins may gain (Sagawa and Ueda 2008). The geodesic of the
metric Cov(X) is shortest in the limit of slow changes with one relaxation time: a comparison, not
the optimum. Start, end and steps are our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from ..core.physics.lattice import around
from ..core.rng import Rng
from ..core.scene import Chart, LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Symmetry
from ..core.validation import require_count, require_number

SCENARIOS = {
    "ising-transport-v0": {
        "system": "Transport",
        "summary": "a controller takes spins from up to down, losing as little work as it can",
        "training": {
            "ppo": {
                "steps": 4_000_000,
                "n_worlds": 256,
                "n_steps": 40,
                "batch_size": 2560,
                "gamma": 1.0,
                "gae_lambda": 1.0,
            }
        },
        "film": {
            "parameters": {
                "side": 8,
                "start": (0.36, 0.2),
                "end": (0.36, -0.2),
                "horizon": 100,
            },
            "policy": "straight",
        },
    },
}
_HOTTEST = 0.01  # 1 / T
_LEGEND = (LegendEntry("spin up", "cell", 1.0), LegendEntry("spin down", "cell", 0.0))


class Driven(NamedTuple):
    spin: Tensor  # [worlds, spins] -1.0 or 1.0
    point: Tensor  # [worlds, 2] 1 / T and h / T
    time: Tensor  # [worlds, 1] int64 steps made


@dataclass(frozen=True)
class Transport(System):
    """One controller of temperature and field.

    side: spins along a side of the torus, even, at most 8: there log Z is exact.
    start, end: (1 / T, h / T) at first and at last.  horizon: in which to get there.
    relaxation: sweeps of heat baths after every step, both sublattices in turn.
    reach: how far from the straight line an action of 1 leads, in 1 / T and in h / T.
    """

    side: int = 6
    start: tuple[float, float] = (0.5, 0.2)
    end: tuple[float, float] = (0.5, -0.2)
    horizon: int = 40
    relaxation: int = 1
    reach: tuple[float, float] = (0.5, 0.5)

    n_agents = 1
    agent_name: ClassVar[str] = "controller"
    reductions: ClassVar[dict[str, str]] = {"dissipation": "sum"}

    def __post_init__(self) -> None:
        require_count("side", self.side, 2)
        if self.side % 2 or self.side > 8:
            raise ValueError(f"side={self.side} must be even and at most 8")
        require_count("horizon", self.horizon)
        require_count("relaxation", self.relaxation)
        for name in ("start", "end", "reach"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or len(value) != 2:
                raise ValueError(f"{name}={value!r} must be two numbers, of 1 / T and h / T")
            require_number(f"1 / T of {name}", value[0], 0, strict=True)
            require_number(f"h / T of {name}", value[1])

    @property
    def bounds(self) -> dict[str, Bound]:
        high = [max(self.start[i], self.end[i]) + self.reach[i] for i in range(2)]
        low = min(self.start[1], self.end[1]) - self.reach[1]
        return {
            "bonds": Bound(-2.0, 2.0),
            "magnetization": Bound(-1.0, 1.0),
            "inverse_temperature": Bound(0.0, high[0]),
            "reduced_field": Bound(low, high[1]),
            "progress": Bound(0.0, 1.0),
        }

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (2,))

    def initial(self, rng: Rng, worlds: int) -> Driven:
        """An exact sample of the equilibrium at the start."""
        from .exact import sample_rows

        uniform = rng.uniform(worlds, self.side).numpy()
        spin = torch.from_numpy(sample_rows(self.side, *self.start, uniform))
        point = torch.tensor([self.start] * worlds, dtype=torch.float64)
        return Driven(spin, point, torch.zeros(worlds, 1, dtype=torch.int64))

    def transition(self, state: Driven, action: Tensor, rng: Rng) -> Driven:
        """`action` [worlds, 1, 2]: how far from the straight line to go, in units of `reach`.

        1 / T is kept above 0.01. The last step leads to the end, whatever the action.
        """
        point, spin = self._next(state, action), state.spin
        site = torch.arange(self.side**2)
        colour = (site // self.side + site % self.side) % 2
        for half in range(2 * self.relaxation):
            force = point[:, :1] * around(spin, self.side) + point[:, 1:]
            up = rng.uniform(*spin.shape) < 1 / (1 + (-2 * force).exp())
            spin = torch.where(colour == half % 2, 2 * up.double() - 1, spin)
        return Driven(spin, point, state.time + 1)

    def invariants(self, state: Driven) -> dict[str, Tensor]:
        """Bonds and magnetization per spin, where lambda is, and the part of the steps made."""
        x = self.observables(state.spin) / self.side**2
        return {
            "bonds": x[:, :1],
            "magnetization": x[:, 1:],
            "inverse_temperature": state.point[:, :1],
            "reduced_field": state.point[:, 1:],
            "progress": state.time / self.horizon,
        }

    def loss(self, state: Driven, action: Tensor, next_state: Driven) -> Tensor:
        """Dissipated work of the step, over T."""
        change = next_state.point - state.point
        work = -(change * self.observables(state.spin)).sum(-1, keepdim=True)
        return work + self.free_change() / self.horizon

    def metrics(self, state: Driven, action: Tensor, next_state: Driven) -> dict[str, Tensor]:
        """Dissipated work of the episode."""
        return {"dissipation": self.loss(state, action, next_state)[:, 0]}

    def symmetries(self, state: Driven, rng: Rng) -> Iterator[Symmetry]:
        worlds, size = len(state.spin), self.side
        site = torch.arange(size * size)
        shift = 2 * (size // 2 * rng.uniform(worlds, 2)).long()
        row, column = site // size + shift[:, :1], site % size + shift[:, 1:]
        moved = row % size * size + column % size

        def permute(noise: Tensor) -> Tensor:
            return noise.gather(1, moved)

        yield Symmetry("translation", state._replace(spin=permute(state.spin)), noise=permute)

    def scene(self, state: Driven) -> Scene:
        """The lattice, spins up bright; over time the point lambda, m and the work dissipated."""
        size = self.side
        x, y = state.point[0].tolist()
        m = float(state.spin[0].mean())
        most = 1.2 * abs(self.end[1] - self.start[1]) * size**2  # work of the change at one stroke
        charts = (
            Chart(-1.0, 1.0, {"h / T": y, "m": m, "1 / T": x}, length=self.horizon),
            Chart(-0.3 * most, most, metrics=("dissipation",), length=self.horizon),
        )
        return Scene(
            view=(0.0, 0.0, float(size), float(size)),
            cells=(0.5 * (1 + state.spin[0])).reshape(size, size).numpy(),
            caption=(f"T {1 / x:.2f}, h {y / x:+.2f}, m {m:+.2f}",),
            charts=charts,
            legend=_LEGEND,
        )

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"straight": _straight, "geodesic": self._follow_geodesic}

    def observables(self, spin: Tensor) -> Tensor:
        """Sum of s_i s_j over bonds, and of s_i [worlds, 2]."""
        bonds = 0.5 * (spin * around(spin, self.side)).sum(-1)
        return torch.stack([bonds, spin.sum(-1)], -1)

    def free_change(self) -> float:
        """log Z at the end less that at the start, exact."""
        return _log_z(self.side, *self.end) - _log_z(self.side, *self.start)

    def towards(self, points: Tensor) -> Tensor:
        """Actions [horizon, 2] that lead along points [horizon + 1, 2]."""
        line = self._straight_line(torch.arange(1, self.horizon + 1)[:, None])
        return ((points[1:] - line) / torch.tensor(self.reach, dtype=torch.float64)).clamp(-1, 1)

    def _straight_line(self, step: Tensor) -> Tensor:
        """Points [..., 2] of the straight line at steps [..., 1]."""
        start, end = torch.tensor([self.start, self.end], dtype=torch.float64)
        return start + (end - start) * step / self.horizon

    def _next(self, state: Driven, action: Tensor) -> Tensor:
        step = state.time + 1
        reach = torch.tensor(self.reach, dtype=torch.float64)
        away = torch.where(step < self.horizon, action[:, 0] * reach, 0.0)
        point = self._straight_line(step) + away
        return torch.cat([point[:, :1].clamp(min=_HOTTEST), point[:, 1:]], 1)

    def _follow_geodesic(self, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
        from .exact import geodesic

        points = geodesic(self.side, self.start, self.end, self.horizon)
        table = self.towards(torch.from_numpy(points))
        step = (invariants["progress"] * self.horizon).round().long().clamp(max=self.horizon - 1)
        return table[step]


@cache
def _log_z(size: int, x: float, y: float) -> float:
    from .exact import log_z

    return log_z(size, x, y)


def _straight(invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    return torch.zeros(*invariants["progress"].shape, 2, dtype=torch.float64)
