"""The two gates of a chain of particles that hop to the right and exclude each other (TASEP).

State      sites, each empty or taken by one particle; what hopped and the rates in the last step
Dynamics   random sequential sweeps of the open chain, hops inside at rate 1
Agents     the gates at the two ends of the chain
Action     the gate's rate
Loss       shared: -J + c (alpha + beta), J the hops per bond and sweep
Reference  the best constant gates, from the exact current of the open chain

Seen in a mirror, the holes move right as the particles did, and the two gates change places. What a
gate sees of the chain is our choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.system import System
from ..core.types import Bound, Symmetry
from ..core.validation import require_codes, require_count, require_fields, require_number
from .picture import diagram

SCENARIOS = {
    "tasep-gates-v0": {
        "system": "GatedTasep",
        "summary": "two gates of a chain that want much current for little opening",
        "training": {
            "ppo": {
                "lr": 1.93e-3,
                "gamma": 0.98,
                "gae_lambda": 0.98,
                "n_steps": 64,
                "batch_size": 1024,
                "reward_scale": 0.0325,
                "log_std_init": -0.404,
            },
            "mappo": {"gamma": 0.9, "n_steps": 32, "batch_size": 1024, "reward_scale": 10.0},
            # Rewards of a step differ by a hundredth: beside them, entropy would be all there is.
            "sac": {"gamma": 0.9, "reward_scale": 100.0, "target_entropy": -3.0},
            "es": {"steps": 2_000_000},
        },
        "film": {
            "parameters": {"sweeps": 1, "horizon": 120},
            "policy": "optimum",
            "skip": 47,
            "steps": 60,
            "size": 240,
        },
        "variants": [
            {"n_sites": 7, "sweeps": 3, "depth": 2},
        ],
        "score": {
            "random": 7.772,
            "best": 10.28,
            "policy": "es",
            "origin": "the best run of docs/results/benchmark.json",
        },
    },
}


class GatesState(NamedTuple):
    occupied: Tensor  # [worlds, sites] 0.0 or 1.0
    hops: Tensor  # [worlds, 1] hops per bond and sweep in the last step
    rate: Tensor  # [worlds, 2] alpha and beta of the last step


@dataclass(frozen=True)
class GatedTasep(System):
    """Parameters with their units.

    n_sites: length of the chain.  cost: of an opening, in current per unit of rate.
    sweeps: of random sequential hops at rate 1, as many attempts as bonds each, in a step.
    depth: sites next to a gate whose density it sees.  horizon: steps of an episode.
    """

    n_sites: int = 50
    cost: float = 0.1
    sweeps: int = 20
    depth: int = 5
    horizon: int = 64

    n_agents = 2
    agent_name: ClassVar[str] = "gate"
    differentiable: ClassVar[bool] = False
    reductions: ClassVar[dict[str, str]] = {
        "current": "mean",
        "density": "mean",
        "alpha": "mean",
        "beta": "mean",
    }

    def __post_init__(self) -> None:
        for name in ("n_sites", "sweeps", "depth", "horizon"):
            require_count(name, getattr(self, name))
        require_number("cost", self.cost, 0)
        if self.depth > self.n_sites:
            raise ValueError(f"depth={self.depth} must be at most n_sites={self.n_sites}")

    @property
    def bounds(self) -> dict[str, Bound]:
        return {"near": Bound(0.0, 1.0), "all": Bound(0.0, 1.0), "rate": Bound(0.0, 1.0)}

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (1,))

    def world_bytes(self) -> int:
        """Every site of the chain."""
        return 8 * self.n_sites

    def initial(self, rng: Rng, worlds: int) -> GatesState:
        """Every site taken with chance 1 / 2; both gates half open."""
        occupied = (rng.uniform(worlds, self.n_sites) < 0.5).double()
        hops = torch.zeros(worlds, 1, dtype=torch.float64, device=occupied.device)
        return GatesState(occupied, hops, (hops + 0.5).expand(-1, 2).clone())

    def require_state(self, state: GatesState) -> None:
        require_codes(state, ("occupied",), (0, 1))
        require_fields(state, ("rate",), 0, 1)
        require_fields(state, ("hops",), 0)

    def transition(self, state: GatesState, action: Tensor, rng: Rng) -> GatesState:
        """`action` [worlds, 2, 1]: -1 shuts a gate, 1 gives it rate 1."""
        rate, n = 0.5 * (action[..., 0].double().clamp(-1, 1) + 1), self.n_sites
        place = (n + 1) * rng.uniform(len(rate), self.sweeps * (n + 1))
        bond = place.long()
        chance = place - bond
        padded = torch.nn.functional.pad(state.occupied, (1, 1))
        padded[:, 0] = 1.0
        hops = torch.zeros_like(state.hops)
        for attempt in range(bond.shape[1]):
            at = bond[:, attempt : attempt + 1]
            limit = torch.where(at == 0, rate[:, :1], torch.where(at == n, rate[:, 1:], 1.0))
            free = padded.gather(1, at) * (1 - padded.gather(1, at + 1))
            hop = free * (chance[:, attempt : attempt + 1] < limit)
            padded = padded.scatter_add(1, at, -hop).scatter_add(1, at + 1, hop)
            padded[:, 0], padded[:, -1] = 1.0, 0.0
            hops = hops + hop
        return GatesState(padded[:, 1:-1].contiguous(), hops / bond.shape[1], rate)

    def invariants(self, state: GatesState) -> dict[str, Tensor]:
        """Density next to the gate and of the whole chain, and the gate's rate in the last step.

        Of particles for the entry, of holes for the exit.
        """
        first = state.occupied[:, : self.depth].mean(-1)
        last = 1 - state.occupied[:, -self.depth :].mean(-1)
        mean = state.occupied.mean(-1)
        return {
            "near": torch.stack([first, last], -1),
            "all": torch.stack([mean, 1 - mean], -1),
            "rate": state.rate,
        }

    def loss(self, state: GatesState, action: Tensor, next_state: GatesState) -> Tensor:
        shared = self.cost * next_state.rate.sum(-1, keepdim=True) - next_state.hops
        return shared.expand(-1, 2)

    def metrics(
        self, state: GatesState, action: Tensor, next_state: GatesState
    ) -> dict[str, Tensor]:
        """Hops per bond and sweep, the part of the sites that are taken, and the two rates."""
        alpha, beta = next_state.rate.unbind(-1)
        density = next_state.occupied.mean(-1)
        return {"current": next_state.hops[:, 0], "density": density, "alpha": alpha, "beta": beta}

    def symmetries(self, state: GatesState, rng: Rng) -> Iterator[Symmetry]:
        n = self.n_sites + 1
        agents = torch.tensor([[1, 0]], device=state.rate.device).expand(len(state.rate), -1)
        holes = GatesState(1 - state.occupied.flip(-1), state.hops, state.rate.flip(-1))

        def noise(uniform: Tensor) -> Tensor:
            place = n * uniform
            return (n - 1 - place.long() + (place - place.long())) / n

        yield Symmetry("particles to holes", holes, agents, noise=noise)

    def scene(self, state: GatesState) -> Scene:
        """The chain after its last steps, the present at the bottom."""
        alpha, beta = state.rate[0].tolist()
        return diagram(state.occupied, f"alpha {alpha:.2f}, beta {beta:.2f}")

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"optimum": self._best}

    def kernel(self, worlds: int) -> Kernel:
        from .step import GATES_PARAMETERS, observe_gates, step_gates

        parameters = parameter_record(
            GATES_PARAMETERS, sweeps=self.sweeps, depth=self.depth, cost=self.cost
        )
        return Kernel(step_gates, observe_gates, parameters)

    def _best(self, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
        from .exact import best_gates

        alpha, beta, _ = best_gates(self.n_sites, self.cost)
        near = invariants["near"]
        rates = [2 * alpha - 1, 2 * beta - 1]
        action = torch.tensor(rates, dtype=torch.float64, device=near.device)
        return action.expand(near.shape)[..., None]
