"""A neutral population: individuals of several types copy each other, with no type preferred.

State      type c_i of each of M individuals, among K types
Dynamics   all that resample draw a parent at random among all individuals and take its type, at
           once; the others keep theirs. If all do, this is the Wright-Fisher model without mutation
Invariants how common the own type is, p_{c_i}; the diversity 1 - sum p^2; and how many types are
           left, as a share of K
Action     0 keep, 1 resample
Loss       L_i = 1 - p_{c_i}: the chance that a random individual differs; its mean is the diversity
Reference  if all resample, <diversity> falls by 1 - 1 / M per step, and frequencies change with
           M Cov(dp) = diag p - p p^T, the inverse Fisher metric

Changes whose covariance is the inverse metric are the quantum regime, alpha = 1, of "Geometric
Learning Dynamics" (Vanchurin, arXiv 2504.14728), whatever one expects of drift: see
`invariantzoo.training.geometry.regimes.alpha_of_metric`.
The system, its loss and all numbers are ours; the
model is that of Fisher (1930) and Wright (1931).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import one_hot

from .core.rng import Rng
from .core.scene import Chart, LegendEntry, Scene
from .core.system import System
from .core.types import Bound, Symmetry
from .core.validation import require_count, require_fields

SCENARIOS = {
    "resampling-neutral-v0": {
        "system": "Resampling",
        "summary": "a population of types that copy each other, none preferred",
        "training": {"ppo": {"gamma": 0.9}},
        "film": {
            "parameters": {"n_agents": 49, "horizon": 60},
            "policy": "resample",
            "size": 240,
        },
        "variants": [
            {"n_agents": 5, "n_types": 2},
            {"n_agents": 40, "n_types": 7},
        ],
        "score": {
            "random": -13.27,
            "best": -1.671,
            "policy": "ppo",
            "origin": "the best run of docs/results/benchmark.json",
        },
    },
}

_NAMED_TYPES = 8  # that a picture tells apart


class State(NamedTuple):
    type: Tensor  # [worlds, agents] int64, 0 to n_types - 1


@dataclass(frozen=True)
class Resampling(System):
    """Parameters.

    n_agents: individuals.  n_types: types at the start, equally many of each as far as that goes.
    horizon: generations of an episode.
    """

    n_agents: int = 16
    n_types: int = 4
    horizon: int = 50

    agent_name: ClassVar[str] = "individual"
    stochastic: ClassVar[bool] = True
    reductions: ClassVar[dict[str, str]] = {
        "diversity": "mean",
        "types_left": "last",
        "fixed": "last",
    }

    def __post_init__(self) -> None:
        require_count("n_agents", self.n_agents, 2)
        require_count("n_types", self.n_types, 2)
        require_count("horizon", self.horizon)

    @property
    def bounds(self) -> dict[str, Bound]:
        return {
            "own_share": Bound(0.0, 1.0),
            "diversity": Bound(0.0, 1.0),
            "types_left": Bound(0.0, 1.0),
        }

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def initial(self, rng: Rng, worlds: int) -> State:
        """Types in turn, in random order."""
        order = rng.uniform(worlds, self.n_agents).argsort(-1)
        return State(order % self.n_types)

    def world_bytes(self) -> int:
        """Every individual beside every type, from which shares are counted."""
        return 8 * self.n_agents * self.n_types

    def require_state(self, state: State) -> None:
        require_fields(state, ("type",), 0, self.n_types - 1)

    def transition(self, state: State, action: Tensor, rng: Rng) -> State:
        """`action` [worlds, agents]: 0 keep, 1 take the type of a random individual."""
        parent = (self.n_agents * rng.uniform(*state.type.shape)).long()
        return State(torch.where(action == 1, state.type.gather(1, parent), state.type))

    def invariants(self, state: State) -> dict[str, Tensor]:
        """The share of the own type, and what all see alike: diversity and types that are left."""
        p = self.shares(state)
        own = p.gather(1, state.type)
        left = (p > 0).double().mean(-1, keepdim=True)
        return {
            "own_share": own,
            "diversity": (1 - p.square().sum(-1, keepdim=True)).expand_as(own),
            "types_left": left.expand_as(own),
        }

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return 1 - self.shares(next_state).gather(1, next_state.type)

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """Diversity 1 - sum p^2, types that are left, and whether it is one."""
        p = self.shares(next_state)
        left = (p > 0).double().sum(-1)
        return {
            "diversity": 1 - p.square().sum(-1),
            "types_left": left,
            "fixed": (left == 1).double(),
        }

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        shift = 1 + (rng.uniform(len(state.type), 1) * (self.n_types - 1)).long()
        yield Symmetry("relabelled types", State((state.type + shift) % self.n_types))
        order = rng.uniform(*state.type.shape).argsort(-1)
        place, n = order.argsort(-1), self.n_agents

        def noise(uniform: Tensor) -> Tensor:
            parent = (n * uniform.gather(1, order)).long()
            return (place.gather(1, parent) + 0.5) / n

        yield Symmetry("permutation", State(state.type.gather(1, order)), order, noise=noise)

    def scene(self, state: State) -> Scene:
        """Individuals in a square, coloured by type, and the shares of the types over time."""
        side = int(self.n_agents**0.5 + 0.999)
        place = torch.arange(self.n_agents)
        discs = torch.stack([place % side + 0.5, side - (place // side) - 0.5], -1).double()
        p = self.shares(state)[0]
        colour = torch.linspace(0, 1, self.n_types, dtype=torch.float64).tolist()
        names = [f"type {k}" for k in range(self.n_types)]
        chart = Chart(
            low=0.0,
            high=1.0,
            series=dict(zip(names, p.tolist(), strict=True)),
            length=self.horizon,
            colours=tuple(colour),
        )
        shown = zip(names, colour, strict=True) if self.n_types <= _NAMED_TYPES else ()
        return Scene(
            view=(0.0, 0.0, float(side), float(side)),
            discs=discs.numpy(),
            disc_radius=torch.full((self.n_agents,), 0.42, dtype=torch.float64).numpy(),
            disc_value=(state.type[0].double() / (self.n_types - 1)).numpy(),
            caption=(f"diversity {float(1 - p.square().sum()):.3f}",),
            charts=(chart,) if self.n_types <= _NAMED_TYPES else (),
            legend=tuple(LegendEntry(name, "disc", value) for name, value in shown),
        )

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"resample": partial(_always, 1), "keep": partial(_always, 0)}

    def references(self) -> dict[str, float]:
        """Mean diversity over an episode under "resample", exact."""
        counts = torch.arange(self.n_agents).remainder(self.n_types).bincount()
        start = 1 - float((counts.double() / self.n_agents).square().sum())
        kept = 1 - 1 / self.n_agents
        total = sum(kept**step for step in range(1, self.horizon + 1))
        return {"diversity": start * total / self.horizon}

    def shares(self, state: State) -> Tensor:
        """Frequencies p [worlds, types]."""
        return one_hot(state.type, self.n_types).double().mean(1)


def inverse_fisher(shares: Tensor) -> Tensor:
    """diag p - p p^T [types, types] of frequencies p [types]."""
    return torch.diag(shares) - torch.outer(shares, shares)


def _always(action: int, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    return torch.full_like(invariants["own_share"], action, dtype=torch.int64)
