"""Particles that hop to the right and exclude each other (TASEP) on a ring.

State      the site of every particle; whose turn it is
Dynamics   a particle hops one site on if that is empty.  update = "sequential": one particle drawn
           at random may act; "parallel": all at once, by what is free before
Agents     the particles
Action     0 wait, 1 hop
Loss       -1 for a hop, the cost of a crash for an attempt at a taken site
Reference  with particles that hop at their rate: equal weights, random sequential; a closed form
           for long rings that act all at once (Schreckenberg et al. 1995)

The current is counted in hops per bond and sweep, a sweep being an attempt per agent on average.
The crash and its cost, and the sites that a particle sees ahead, are our choice.

The policy "hop" is the textbook model: it attempts with the chance that is the agent's rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.physics.updates import PARALLEL, SEQUENTIAL, ScheduledSystem, require_update
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.types import Bound, Symmetry
from ..core.validation import require_count, require_fields, require_number
from .picture import diagram
from .policies import hop_ahead, hop_blindly

SCENARIOS = {
    "tasep-ring-v0": {
        "system": "RingTasep",
        "summary": "particles on a ring that gain by a hop and lose by a crash",
        "training": {"ppo": {"gamma": 0.0}, "es": {"steps": 64_000_000, "rollout": 200}},
        "film": {
            "parameters": {"update": "parallel", "hop_probability": 0.7},
            "policy": "hop",
            "skip": 47,
            "steps": 80,
            "size": 240,
        },
        "variants": [
            {"n_sites": 5, "n_particles": 1},
            {"n_sites": 9, "n_particles": 4, "sight": 0, "hop_probability": 0.6, "burn_in": 0},
            {"update": "parallel", "crash_cost": 0.3, "burn_in": 0},
            {"n_sites": 6, "n_particles": 6, "update": "parallel"},
        ],
        "score": {
            "random": 128.2,
            "best": 5136.0,
            "policy": "maskable_ppo",
            "origin": "random: docs/scores.md; best: a run of docs/results/benchmark.json",
        },
    },
}


class RingState(NamedTuple):
    position: Tensor  # [worlds, agents] int64 site, agent i + 1 ahead of agent i
    turn: Tensor  # [worlds, 1] int64: the particle that acts next; 0 in parallel


@dataclass(frozen=True)
class RingTasep(ScheduledSystem):
    """Parameters with their units.

    n_sites: length of the ring.  n_particles: how many go round, at most one per site.
    hop_probability: chance of an attempt under the policy "hop".
    update: who acts in a step: "sequential" or "parallel".
    sight: sites ahead that a particle sees; with 0 it sees none, and "hop" attempts blindly.
    crash_cost: loss of an attempt at a taken site, in hops.
    n_sweeps: length of an episode, in attempts per particle.  burn_in: sweeps that the metrics
        leave out.
    """

    n_sites: int = 40
    n_particles: int = 20
    hop_probability: float = 1.0
    update: str = "sequential"
    sight: int = 3
    crash_cost: float = 1.0
    n_sweeps: int = 10_000
    burn_in: int = 2_000

    agent_name: ClassVar[str] = "particle"
    stochastic: ClassVar[bool] = True
    reductions: ClassVar[dict[str, str]] = {"current": "mean", "crashes": "mean"}
    fused: ClassVar[tuple[str, ...]] = ("hop",)

    def __post_init__(self) -> None:
        require_count("n_sites", self.n_sites)
        require_count("n_particles", self.n_particles)
        if self.n_particles > self.n_sites:
            raise ValueError(f"n_particles={self.n_particles} must be at most n_sites")
        require_number("hop_probability", self.hop_probability, 0, 1, strict=True)
        require_count("sight", self.sight, 0)
        require_number("crash_cost", self.crash_cost, 0)
        require_update(self.update, self.n_sweeps, self.burn_in, (SEQUENTIAL, PARALLEL))

    @property
    def n_agents(self) -> int:
        return self.n_particles

    @property
    def bounds(self) -> dict[str, Bound]:
        return {
            "gap": Bound(0.0, float(max(self.sight, 1))),
            "density": Bound(0.0, 1.0),
            "rate": Bound(0.0, 1.0),
        }

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def world_bytes(self) -> int:
        """Every site of the ring."""
        return 8 * self.n_sites

    def initial(self, rng: Rng, worlds: int) -> RingState:
        """Any places with equal chance."""
        order = rng.uniform(worlds, self.n_sites).argsort(-1)
        position = order[:, : self.n_particles].sort(-1).values
        turn = self.schedule.first_turn(rng, worlds)
        return RingState(position, turn)

    def require_state(self, state: RingState) -> None:
        require_fields(state, ("position",), 0, self.n_sites - 1)
        ahead = (state.position.roll(-1, -1) - state.position) % self.n_sites
        if self.n_particles > 1 and ((ahead == 0).any() or (ahead.sum(-1) != self.n_sites).any()):
            raise ValueError("state field 'position' must be sites in the order of the particles")
        self.schedule.require_turn(state)

    def transition(self, state: RingState, action: Tensor, rng: Rng) -> RingState:
        """`action` [worlds, agents]: 0 wait, 1 hop; at a taken site a hop is a crash: no move."""
        hops = self._attempts(state, action) * (self.gaps(state) > 0)
        turn = self.schedule.next_turn(state.turn, rng)
        return RingState((state.position + hops.long()) % self.n_sites, turn)

    def invariants(self, state: RingState) -> dict[str, Tensor]:
        """Empty sites ahead, as far as seen; particles per site; the rate of the textbook model."""
        gap = self.gaps(state).double().clamp(max=self.sight)
        density = torch.full_like(gap, self.n_particles / self.n_sites)
        rate = torch.full_like(gap, self.hop_probability)
        return {"gap": gap, "density": density, "rate": rate}

    def loss(self, state: RingState, action: Tensor, next_state: RingState) -> Tensor:
        free = (self.gaps(state) > 0).double()
        return self._attempts(state, action) * (self.crash_cost * (1 - free) - free)

    def metrics(self, state: RingState, action: Tensor, next_state: RingState) -> dict[str, Tensor]:
        """Hops per bond and sweep; crashes per bond and sweep."""
        attempts, free = self._attempts(state, action), self.gaps(state) > 0
        scale = self.sweep / self.n_sites
        hops, crashes = (attempts * free).sum(-1), (attempts * ~free).sum(-1)
        return {"current": scale * hops, "crashes": scale * crashes}

    def symmetries(self, state: RingState, rng: Rng) -> Iterator[Symmetry]:
        worlds, n = state.position.shape
        shift = (self.n_sites * rng.uniform(worlds, 1)).long()
        moved = (state.position + shift) % self.n_sites
        yield Symmetry("translation", state._replace(position=moved), noise=lambda u: u)
        if n == 1:
            return
        first = (n * rng.uniform(worlds, 1)).long()
        agents = (torch.arange(n, device=first.device) + first) % n
        turn, noise = self.schedule.rearranged(state.turn, agents)
        renamed = RingState(state.position.gather(1, agents), turn)
        yield Symmetry("other first particle", renamed, agents, noise=noise)

    def scene(self, state: RingState) -> Scene:
        """The ring at its last times, cut open, the present at the bottom."""
        occupied = torch.zeros(1, self.n_sites, dtype=torch.float64)
        occupied[0, state.position[0]] = 1.0
        return diagram(occupied, f"{self.n_particles} particles, {self.n_sites} sites")

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"hop": hop_blindly if self.sight == 0 else hop_ahead}

    def references(self) -> dict[str, float]:
        """Means under the policy "hop", exact; sequential update."""
        from .exact import ring_current

        if self.update != "sequential":
            return {}
        current = ring_current(self.n_sites, self.n_particles, self.hop_probability)
        attempts = self.hop_probability * self.n_particles / self.n_sites
        return {"current": current, "crashes": 0.0 if self.sight else attempts - current}

    def rollout(
        self, state: RingState, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[RingState, dict[str, Tensor]]:
        """Fused; a whole number per particle."""
        from ..core.kernels.rollouts import rollout_arrays, rollout_plan
        from .rollout_bytes import run_ring
        from .step import RingArrays

        after, arrays = rollout_arrays(state, RingArrays)
        plan = rollout_plan(steps, every, rng, 2)
        run_ring(arrays, plan, self.n_sites, self.hop_probability, self.update == PARALLEL)
        hops, crashes = torch.from_numpy(plan.records).unbind(-1)
        crashes = crashes if self.sight == 0 else torch.zeros_like(crashes)
        scale = self.sweep / self.n_sites
        loss = (self.crash_cost * crashes - hops) / self.n_agents
        return after, {"current": scale * hops, "crashes": scale * crashes, "loss": loss}

    def kernel(self, worlds: int) -> Kernel:
        from .step import RING_PARAMETERS, observe_ring, step_ring

        parameters = parameter_record(
            RING_PARAMETERS,
            parallel=self.update == PARALLEL,
            n_sites=self.n_sites,
            sight=self.sight,
            hop_probability=self.hop_probability,
            crash_cost=self.crash_cost,
            per_site=self.sweep / self.n_sites,
        )
        return Kernel(step_ring, observe_ring, parameters)

    def gaps(self, state: RingState) -> Tensor:
        """Empty sites ahead of every particle [worlds, agents] int64."""
        if self.n_agents == 1:
            return torch.full_like(state.position, self.n_sites - 1)
        return (state.position.roll(-1, 1) - state.position - 1) % self.n_sites

    def _attempts(self, state: RingState, action: Tensor) -> Tensor:
        """1.0 for everyone who hops or crashes [worlds, agents]."""
        return self.schedule.used(action, state.turn).double()
