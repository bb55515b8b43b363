"""A controller of temperature and field takes Ising spins from a start to an end.

The controller moves lambda = (1 / T, h / T), J = 1, in a stated number of steps, from equilibrium
at first. A step costs the dissipated work -(change of lambda) . X, X = (sum of s_i s_j over bonds,
sum of s_i), plus its share of the change of log Z; then every spin acts once or more often as a
heat bath. The mean of the sum is not negative for a schedule, and 0 if infinitely slow (Jarzynski
1997); a controller that looks at the spins may gain (Sagawa and Ueda 2008). The geodesic of the
metric Cov(X) is shortest in the limit of slow changes with one relaxation time: a comparison, not
the optimum. "learned-geodesic" is that of the metric of 6 x 6 spins as learned from samples alone.
Start, end and steps are our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from ..core.physics.lattice import Torus
from ..core.physics.updates import heat_bath_chance
from ..core.rng import Rng
from ..core.scene import Chart, Scene
from ..core.system import System
from ..core.types import Bound, Symmetry
from ..core.validation import require_codes, require_count, require_fields
from . import picture
from .exact import sample_rows
from .path import ReducedPath

SCENARIOS = {
    "ising-transport-v0": {
        "system": "IsingTransport",
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
            "parameters": {"side": 8, "start": (0.36, 0.2), "end": (0.36, -0.2), "horizon": 100},
            "policy": "straight",
        },
        "score": {
            "random": -234.8,
            "best": 14.8,
            "policy": "es",
            "origin": "random: docs/scores.md; best: two runs of docs/results/benchmark.json",
        },
    },
}


class TransportState(NamedTuple):
    spin: Tensor  # [worlds, spins] -1.0 or 1.0
    point: Tensor  # [worlds, 2] 1 / T and h / T
    time: Tensor  # [worlds, 1] int64 steps made


@dataclass(frozen=True)
class IsingTransport(System):
    """One controller of temperature and field.

    side: spins along a side of the torus, even, at most 8: there log Z is exact.
    start, end: (1 / T, h / T) at first and at last, 1 / T from 0.01 on.
    horizon: in which to get there.
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
        _ = self.path  # which checks start, end and reach

    @cached_property
    def lattice(self) -> Torus:
        return Torus((self.side, self.side))

    @cached_property
    def path(self) -> ReducedPath:
        """The straight line and what an action does to it."""
        return ReducedPath(self.start, self.end, self.reach, self.horizon, self.side)

    @property
    def bounds(self) -> dict[str, Bound]:
        return {
            "bonds": Bound(-2.0, 2.0),
            "magnetization": Bound(-1.0, 1.0),
            **self.path.bounds,
            "progress": Bound(0.0, 1.0),
        }

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (2,))

    def initial(self, rng: Rng, worlds: int) -> TransportState:
        """An exact sample of the equilibrium at the start."""
        device = rng.world.device
        uniform = rng.uniform(worlds, self.side).cpu().numpy()
        spin = torch.from_numpy(sample_rows(self.side, *self.start, uniform)).to(device)
        point = torch.tensor([self.start] * worlds, dtype=torch.float64, device=device)
        time = torch.zeros(worlds, 1, dtype=torch.int64, device=device)
        return TransportState(spin, point, time)

    def require_state(self, state: TransportState) -> None:
        require_codes(state, ("spin",), (-1, 1))
        require_fields(state, ("time",), 0)

    def transition(self, state: TransportState, action: Tensor, rng: Rng) -> TransportState:
        """`action` [worlds, 1, 2]: how far from the straight line to go, in units of `reach`.

        1 / T is kept above 0.01. The last step leads to the end, whatever the action.
        """
        point, spin = self.path.next_point(state.time, action[:, 0]), state.spin
        colour = self.lattice.colours(spin.device)
        for half in range(2 * self.relaxation):
            force = point[:, :1] * self.lattice.neighbour_sum(spin) + point[:, 1:]
            up = rng.uniform(*spin.shape) < heat_bath_chance(-2 * force)
            spin = torch.where(colour == half % 2, 2 * up.double() - 1, spin)
        return TransportState(spin, point, state.time + 1)

    def invariants(self, state: TransportState) -> dict[str, Tensor]:
        """Bonds and magnetization per spin, where lambda is, and the part of the steps made."""
        x = self.observables(state.spin) / self.side**2
        return {
            "bonds": x[:, :1],
            "magnetization": x[:, 1:],
            "inverse_temperature": state.point[:, :1],
            "reduced_field": state.point[:, 1:],
            "progress": state.time / self.horizon,
        }

    def loss(self, state: TransportState, action: Tensor, next_state: TransportState) -> Tensor:
        """Dissipated work of the step, over T."""
        change = next_state.point - state.point
        work = -(change * self.observables(state.spin)).sum(-1, keepdim=True)
        return work + self.path.free_change() / self.horizon

    def metrics(
        self, state: TransportState, action: Tensor, next_state: TransportState
    ) -> dict[str, Tensor]:
        """Dissipated work of the episode."""
        return {"dissipation": self.loss(state, action, next_state)[:, 0]}

    def symmetries(self, state: TransportState, rng: Rng) -> Iterator[Symmetry]:
        half = (self.side // 2 * rng.uniform(len(state.spin), 2)).long()
        sites = self.lattice.shift(2 * half).sites

        def permute(noise: Tensor) -> Tensor:
            return noise.gather(1, sites)

        yield Symmetry("translation", state._replace(spin=permute(state.spin)), noise=permute)

    def scene(self, state: TransportState) -> Scene:
        """The lattice, spins up bright; over time the point lambda, m and the work dissipated."""
        x, y = state.point[0].tolist()
        m = float(state.spin[0].mean())
        most = 1.2 * abs(self.end[1] - self.start[1]) * self.side**2  # work of one sudden change
        charts = (
            Chart(-1.0, 1.0, {"h / T": y, "m": m, "1 / T": x}, length=self.horizon),
            Chart(-0.3 * most, most, metrics=("dissipation",), length=self.horizon),
        )
        caption = (f"T {1 / x:.2f}, h {y / x:+.2f}, m {m:+.2f}",)
        return picture.torus(state.spin, self.side, caption, charts)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return self.path.policies()

    def observables(self, spin: Tensor) -> Tensor:
        """Sum of s_i s_j over bonds, and of s_i [worlds, 2]."""
        bonds = 0.5 * (spin * self.lattice.neighbour_sum(spin)).sum(-1)
        return torch.stack([bonds, spin.sum(-1)], -1)
