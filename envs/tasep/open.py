"""Particles that hop to the right and exclude each other (TASEP) on an open chain.

State      sites, each empty or taken by one particle; rates of the world; whose turn it is
Dynamics   a particle hops one site on if that is empty.  update = "sequential": one bond drawn at
           random may act; "parallel": all at once, by what is free before
Agents     the N + 1 bonds, the first of which lets particles in and the last lets them out
Action     0 wait, 1 hop
Loss       -1 for a hop over the bond
Reference  with bonds that hop at their rates: matrix product (Derrida, Evans, Hakim and Pasquier
           1993), random sequential; closed forms for long systems that act all at once
           (Evans, Rajewsky and Speer 1999)

The current is counted in hops per bond and sweep, a sweep being an attempt per agent on average.
Seen in a mirror, the holes move right as the particles did: alpha and beta change places.

The policy "hop" is the textbook model: it attempts with the chance that is the agent's rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.physics.updates import PARALLEL, SEQUENTIAL, ScheduledSystem, require_update
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.types import Bound, LiveParameter, Range, Symmetry
from ..core.validation import (
    require_codes,
    require_count,
    require_fields,
    require_number,
    require_range,
)
from .picture import diagram
from .policies import hop

SCENARIOS = {
    "tasep-open-v0": {
        "system": "OpenTasep",
        "summary": "bonds of an open chain over which particles hop, exactly solved",
        "training": {
            "ppo": {"gamma": 0.0},
            "es": {
                "steps": 50_000_000,
                "rollout": 410,
                "std": 0.15,
                "std_final": 0.05,
                "lr": 0.15,
            },
        },
        "film": {
            "parameters": {
                "update": "parallel",
                "hop_probability": 0.5,
                "alpha": 0.25,
                "beta": 0.25,
            },
            "policy": "hop",
            "skip": 47,
            "steps": 80,
            "size": 240,
        },
        "variants": [
            {"n_sites": 1, "burn_in": 0},
            {"n_sites": 9, "alpha": (0.1, 1.0), "beta": (0.2, 0.9), "hop_probability": 0.7},
            {"n_sites": 12, "update": "parallel", "hop_probability": 0.5, "burn_in": 0},
        ],
        "score": {
            "random": 1297.0,
            "best": 2593.0,
            "policy": "ppo",
            "origin": "hops that are always tried: exact current (N + 2) / 2 (2 N + 1) at rest",
        },
    },
}


class OpenState(NamedTuple):
    occupied: Tensor  # [worlds, sites] 0.0 or 1.0
    alpha: Tensor  # [worlds, 1] chance of an attempt at the entry
    beta: Tensor  # [worlds, 1] the same at the exit
    turn: Tensor  # [worlds, 1] int64: the bond that acts next; 0 in parallel


@dataclass(frozen=True)
class OpenTasep(ScheduledSystem):
    """Parameters with their units.

    n_sites: length of the chain.  alpha, beta: chances of an attempt at the entry and at the exit;
        numbers, or (low, high) drawn once per world.
    hop_probability: the same at the bonds between.
    update: who acts in a step: "sequential" or "parallel".
    n_sweeps: length of an episode, in attempts per bond.  burn_in: sweeps left out of the metrics.
    """

    n_sites: int = 40
    alpha: Range = 0.6
    beta: Range = 0.7
    hop_probability: float = 1.0
    update: str = "sequential"
    n_sweeps: int = 10_000
    burn_in: int = 2_000

    agent_name: ClassVar[str] = "bond"
    live_parameters: ClassVar[dict[str, LiveParameter]] = {
        "alpha": LiveParameter(0.05, 0.0, 1.0),
        "beta": LiveParameter(0.05, 0.0, 1.0),
    }
    stochastic: ClassVar[bool] = True
    reductions: ClassVar[dict[str, str]] = {"current": "mean", "density": "mean"}
    fused: ClassVar[tuple[str, ...]] = ("hop",)

    def __post_init__(self) -> None:
        require_count("n_sites", self.n_sites)
        for name in ("alpha", "beta"):
            require_range(name, getattr(self, name), 0, strict=True)
            if np.max(getattr(self, name)) > 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at most 1")
        require_number("hop_probability", self.hop_probability, 0, 1, strict=True)
        require_update(self.update, self.n_sweeps, self.burn_in, (SEQUENTIAL, PARALLEL))

    @property
    def n_agents(self) -> int:
        return self.n_sites + 1

    @property
    def bounds(self) -> dict[str, Bound]:
        return {"free": Bound(0.0, 1.0), "filling": Bound(-1.0, 1.0), "rate": Bound(0.0, 1.0)}

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def initial(self, rng: Rng, worlds: int) -> OpenState:
        """Every site taken with chance 1 / 2."""
        occupied = (rng.uniform(worlds, self.n_sites) < 0.5).double()
        alpha, beta = rng.draw(self.alpha, worlds), rng.draw(self.beta, worlds)
        turn = self.schedule.first_turn(rng, worlds)
        return OpenState(occupied, alpha, beta, turn)

    def require_state(self, state: OpenState) -> None:
        require_codes(state, ("occupied",), (0, 1))
        require_fields(state, ("alpha", "beta"), 0, 1)
        self.schedule.require_turn(state)

    def transition(self, state: OpenState, action: Tensor, rng: Rng) -> OpenState:
        """`action` [worlds, agents]: 0 wait, 1 hop; a hop that is not free does nothing."""
        hops, turn = self._hops(state, action), self.schedule.next_turn(state.turn, rng)
        return state._replace(occupied=state.occupied + hops[:, :-1] - hops[:, 1:], turn=turn)

    def invariants(self, state: OpenState) -> dict[str, Tensor]:
        """Whether a hop over the bond is free; and if not, full (1) or empty (-1); and its rate."""
        behind, ahead = _ends(state.occupied)
        rate = torch.full_like(behind, self.hop_probability)
        rate[:, :1], rate[:, -1:] = state.alpha, state.beta
        return {"free": behind * (1 - ahead), "filling": behind + ahead - 1, "rate": rate}

    def loss(self, state: OpenState, action: Tensor, next_state: OpenState) -> Tensor:
        return -self._hops(state, action)

    def metrics(self, state: OpenState, action: Tensor, next_state: OpenState) -> dict[str, Tensor]:
        """Hops per bond and sweep, and the part of the sites that are taken."""
        current = self._hops(state, action).sum(-1) * self.sweep / self.n_agents
        return {"current": current, "density": next_state.occupied.mean(-1)}

    def symmetries(self, state: OpenState, rng: Rng) -> Iterator[Symmetry]:
        order = torch.arange(self.n_agents - 1, -1, -1, device=state.turn.device)
        bonds = order.expand(len(state.turn), -1)
        turn, noise = self.schedule.rearranged(state.turn, bonds)
        holes = OpenState(1 - state.occupied.flip(-1), state.beta, state.alpha, turn)
        yield Symmetry("particles to holes", holes, bonds, {"filling": -1.0}, noise)

    def scene(self, state: OpenState) -> Scene:
        """The chain at its last times, the present at the bottom."""
        caption = f"alpha {float(state.alpha[0]):.2f}, beta {float(state.beta[0]):.2f}"
        return diagram(state.occupied, caption)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"hop": hop}

    def references(self) -> dict[str, float]:
        """Means under the policy "hop" at rest, exact; sequential update, fixed gates."""
        from .exact import current, profile

        if isinstance(self.alpha, tuple) or isinstance(self.beta, tuple):
            return {}
        if self.update != SEQUENTIAL:
            return {}
        p = self.hop_probability
        gates = (self.alpha / p, self.beta / p)
        density = profile(self.n_sites, *gates).mean()
        return {"current": float(p * current(self.n_sites, *gates)), "density": float(density)}

    def rollout(
        self, state: OpenState, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[OpenState, dict[str, Tensor]]:
        """Fused; a byte per site, or for 32 worlds a word."""
        from ..core.kernels.rollouts import rollout_arrays, rollout_plan
        from .rollout_bytes import run_open
        from .rollout_words import in_words, run_words
        from .step import OpenArrays

        after, arrays = rollout_arrays(state, OpenArrays)
        plan = rollout_plan(steps, every, rng, 3)
        parallel = self.update == PARALLEL
        if not parallel and in_words(len(state.turn), self.n_sites, self.hop_probability):
            run_words(arrays, plan)
        else:
            run_open(arrays, plan, self.hop_probability, parallel)
        hops, density, loss = torch.from_numpy(plan.records).unbind(-1)
        current = self.sweep / self.n_agents * hops
        return after, {"current": current, "density": density, "loss": loss}

    def kernel(self, worlds: int) -> Kernel:
        from .step import OPEN_PARAMETERS, observe_open, step_open

        parameters = parameter_record(
            OPEN_PARAMETERS,
            parallel=self.update == PARALLEL,
            hop_probability=self.hop_probability,
            sweep=self.sweep,
        )
        return Kernel(step_open, observe_open, parameters)

    def _hops(self, state: OpenState, action: Tensor) -> Tensor:
        """1.0 for every bond over which a particle hops [worlds, agents]."""
        behind, ahead = _ends(state.occupied)
        return behind * (1 - ahead) * self.schedule.used(action, state.turn)


def _ends(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """What lies behind and ahead of every bond [worlds, sites + 1]: full and empty at the ends."""
    behind = torch.nn.functional.pad(occupied, (1, 0), value=1.0)
    return behind, torch.nn.functional.pad(occupied, (0, 1))
