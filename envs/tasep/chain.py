"""Particles that hop to the right and exclude each other (TASEP): open chain, ring, gates.

State      sites, each empty or taken by one particle; rates of the world; whose turn it is
Dynamics   a particle hops one site on if that is empty.  update = "sequential": one agent drawn at
           random may act; "parallel": all at once, by what is free before
Agents     open chain: its N + 1 bonds, the first of which lets particles in and the last lets them
           out. Ring: its particles. Gates: the two ends of an open chain
Action     0 wait, 1 hop; of a gate, its rate
Loss       a bond: -1 for a hop over it. A particle: -1 for a hop, the cost of a crash for an
           attempt at a taken site. Gates share -J + c (alpha + beta), J the hops per bond and sweep
Reference  with agents that hop at their rates: matrix product (Derrida, Evans, Hakim and Pasquier
           1993) on the open chain, equal weights on the ring, random sequential; closed forms for
           long systems that act all at once (Schreckenberg et al. 1995)

The current is counted in hops per bond and sweep, a sweep being an attempt per agent on average.
Seen in a mirror, the holes move right as the particles did: alpha and beta change places, and so do
the two gates. The crash and its cost, the sites that a particle sees ahead, and what a gate sees of
the chain are our choice.

The policy "hop" is the textbook model: it attempts with the chance that is the agent's rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.rng import Rng
from ..core.scene import LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Knob, Range, Symmetry
from ..core.validation import require_choice, require_count, require_number, require_range

SCENARIOS = {
    "tasep-open-v0": {
        "system": "Open",
        "summary": "bonds of an open chain over which particles hop, exactly solved",
        "training": {"ppo": {"gamma": 0.0}},
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
    },
    "tasep-ring-v0": {
        "system": "Ring",
        "summary": "particles on a ring that gain by a hop and lose by a crash",
        "training": {"ppo": {"gamma": 0.0}},
        "film": {
            "parameters": {"update": "parallel", "hop_probability": 0.7},
            "policy": "hop",
            "skip": 47,
            "steps": 80,
            "size": 240,
        },
    },
    "tasep-gates-v0": {
        "system": "Gates",
        "summary": "two gates of a chain that want much current for little opening",
        "training": {
            "ppo": {"gamma": 0.9, "n_steps": 32, "batch_size": 1024, "reward_scale": 10.0}
        },
        "film": {
            "parameters": {"sweeps": 1, "horizon": 120},
            "policy": "optimum",
            "skip": 47,
            "steps": 60,
            "size": 240,
        },
    },
}

UPDATES = ("sequential", "parallel")
_KEPT_ROWS = 48  # of a space-time diagram
_LEGEND = (
    LegendEntry("particle", "cell", 1.0),
    LegendEntry("empty site", "cell", 0.0),
    LegendEntry("time runs down", "none"),
)


class Chain(NamedTuple):
    occupied: Tensor  # [worlds, sites] 0.0 or 1.0
    alpha: Tensor  # [worlds, 1] chance of an attempt at the entry
    beta: Tensor  # [worlds, 1] the same at the exit
    turn: Tensor  # [worlds, 1] int64: the bond that acts next; 0 in parallel


@dataclass(frozen=True)
class Open(System):
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
    knobs: ClassVar[dict[str, Knob]] = {
        "alpha": Knob(0.05, 0.0, 1.0),
        "beta": Knob(0.05, 0.0, 1.0),
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
        _require_update(self)

    @property
    def n_agents(self) -> int:  # type: ignore[override]
        return self.n_sites + 1

    @property
    def sweep(self) -> int:  # type: ignore[override]
        return self.n_agents if self.update == "sequential" else 1

    @property
    def horizon(self) -> int:  # type: ignore[override]
        return self.n_sweeps * self.sweep

    @property
    def warm_up(self) -> int:  # type: ignore[override]
        return self.burn_in * self.sweep

    @property
    def one_at_a_time(self) -> bool:  # type: ignore[override]
        return self.update == "sequential"

    @property
    def bounds(self) -> dict[str, Bound]:
        return {"free": Bound(0.0, 1.0), "filling": Bound(-1.0, 1.0), "rate": Bound(0.0, 1.0)}

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def initial(self, rng: Rng, worlds: int) -> Chain:
        """Every site taken with chance 1 / 2."""
        occupied = (rng.uniform(worlds, self.n_sites) < 0.5).double()
        alpha, beta = rng.draw(self.alpha, worlds), rng.draw(self.beta, worlds)
        turn = torch.zeros(worlds, 1, dtype=torch.int64, device=occupied.device)
        if self.update == "sequential":
            turn = (self.n_agents * rng.uniform(worlds, 1)).long()
        return Chain(occupied, alpha, beta, turn)

    def transition(self, state: Chain, action: Tensor, rng: Rng) -> Chain:
        """`action` [worlds, agents]: 0 wait, 1 hop; a hop that is not free does nothing."""
        hops, turn = self._hops(state, action), state.turn
        if self.update == "sequential":
            turn = (self.n_agents * rng.uniform(len(turn), 1)).long()
        return state._replace(occupied=state.occupied + hops[:, :-1] - hops[:, 1:], turn=turn)

    def active(self, state: Chain) -> Tensor | None:
        if self.update == "parallel":
            return None
        return torch.arange(self.n_agents, device=state.turn.device) == state.turn

    def invariants(self, state: Chain) -> dict[str, Tensor]:
        """Whether a hop over the bond is free; and if not, full (1) or empty (-1); and its rate."""
        behind, ahead = _ends(state.occupied)
        rate = torch.full_like(behind, self.hop_probability)
        rate[:, :1], rate[:, -1:] = state.alpha, state.beta
        return {"free": behind * (1 - ahead), "filling": behind + ahead - 1, "rate": rate}

    def loss(self, state: Chain, action: Tensor, next_state: Chain) -> Tensor:
        return -self._hops(state, action)

    def metrics(self, state: Chain, action: Tensor, next_state: Chain) -> dict[str, Tensor]:
        """Hops per bond and sweep, and the part of the sites that are taken."""
        current = self._hops(state, action).sum(-1) * self.sweep / self.n_agents
        return {"current": current, "density": next_state.occupied.mean(-1)}

    def symmetries(self, state: Chain, rng: Rng) -> Iterator[Symmetry]:
        n = self.n_agents
        mirrored = torch.arange(n - 1, -1, -1, device=state.turn.device).expand(len(state.turn), -1)
        turn = n - 1 - state.turn if self.update == "sequential" else state.turn
        holes = Chain(1 - state.occupied.flip(-1), state.beta, state.alpha, turn)

        def noise(uniform: Tensor) -> Tensor:
            return (n - 1 - (n * uniform).long() + 0.5) / n

        yield Symmetry("particles to holes", holes, mirrored, {"filling": -1.0}, noise)

    def scene(self, state: Chain) -> Scene:
        """The chain at its last times, the present at the bottom."""
        said = f"alpha {float(state.alpha[0]):.2f}, beta {float(state.beta[0]):.2f}"
        return _diagram(state.occupied, said)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"hop": _hop}

    def references(self) -> dict[str, float]:
        """Means under the policy "hop" at rest, exact; sequential update, fixed gates."""
        from .exact import current, profile

        if self.update != "sequential" or isinstance(self.alpha, tuple):
            return {}
        if isinstance(self.beta, tuple):
            return {}
        p = self.hop_probability
        gates = (self.alpha / p, self.beta / p)
        density = profile(self.n_sites, *gates).mean()
        return {
            "current": float(p * current(self.n_sites, *gates)),
            "density": float(density),
        }

    def rollout(
        self, state: Chain, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[Chain, dict[str, Tensor]]:
        """Fused; a byte per site, or for 32 worlds a word."""
        from .rollout import fused_open

        after = Chain(*(part.clone() for part in state))
        rows = fused_open(self, _arrays(after), steps, rng.seed, rng.world, rng.clock, every)
        return after, _records(rows, self.sweep / self.n_agents)

    def kernel(self, worlds: int) -> Kernel:
        from .rollout import OPEN_PARAMETERS, see_open, step_open

        parameters = parameter_record(
            OPEN_PARAMETERS,
            parallel=self.update == "parallel",
            hop_probability=self.hop_probability,
            sweep=self.sweep,
        )
        return Kernel(step_open, see_open, parameters)

    def _hops(self, state: Chain, action: Tensor) -> Tensor:
        """1.0 for every bond over which a particle hops [worlds, agents]."""
        behind, ahead = _ends(state.occupied)
        hops = behind * (1 - ahead) * action
        active = self.active(state)
        return hops if active is None else hops * active


class Traffic(NamedTuple):
    position: Tensor  # [worlds, agents] int64 site, agent i + 1 ahead of agent i
    turn: Tensor  # [worlds, 1] int64: the particle that acts next; 0 in parallel


@dataclass(frozen=True)
class Ring(System):
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
        _require_update(self)

    @property
    def n_agents(self) -> int:  # type: ignore[override]
        return self.n_particles

    @property
    def sweep(self) -> int:  # type: ignore[override]
        return self.n_agents if self.update == "sequential" else 1

    @property
    def horizon(self) -> int:  # type: ignore[override]
        return self.n_sweeps * self.sweep

    @property
    def warm_up(self) -> int:  # type: ignore[override]
        return self.burn_in * self.sweep

    @property
    def one_at_a_time(self) -> bool:  # type: ignore[override]
        return self.update == "sequential"

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

    def initial(self, rng: Rng, worlds: int) -> Traffic:
        """Any places with equal chance."""
        order = rng.uniform(worlds, self.n_sites).argsort(-1)
        position = order[:, : self.n_particles].sort(-1).values
        turn = torch.zeros(worlds, 1, dtype=torch.int64, device=position.device)
        if self.update == "sequential":
            turn = (self.n_agents * rng.uniform(worlds, 1)).long()
        return Traffic(position, turn)

    def transition(self, state: Traffic, action: Tensor, rng: Rng) -> Traffic:
        """`action` [worlds, agents]: 0 wait, 1 hop; at a taken site a hop is a crash: no move."""
        hops, turn = self._attempts(state, action) * (self.gaps(state) > 0), state.turn
        if self.update == "sequential":
            turn = (self.n_agents * rng.uniform(len(turn), 1)).long()
        return Traffic((state.position + hops.long()) % self.n_sites, turn)

    def active(self, state: Traffic) -> Tensor | None:
        if self.update == "parallel":
            return None
        return torch.arange(self.n_agents, device=state.turn.device) == state.turn

    def invariants(self, state: Traffic) -> dict[str, Tensor]:
        """Empty sites ahead, as far as seen; particles per site; the rate of the textbook model."""
        gap = self.gaps(state).double().clamp(max=self.sight)
        density = torch.full_like(gap, self.n_particles / self.n_sites)
        rate = torch.full_like(gap, self.hop_probability)
        return {"gap": gap, "density": density, "rate": rate}

    def loss(self, state: Traffic, action: Tensor, next_state: Traffic) -> Tensor:
        free = (self.gaps(state) > 0).double()
        return self._attempts(state, action) * (self.crash_cost * (1 - free) - free)

    def metrics(self, state: Traffic, action: Tensor, next_state: Traffic) -> dict[str, Tensor]:
        """Hops per bond and sweep; crashes per bond and sweep."""
        attempts, free = self._attempts(state, action), self.gaps(state) > 0
        scale = self.sweep / self.n_sites
        hops, crashes = (attempts * free).sum(-1), (attempts * ~free).sum(-1)
        return {"current": scale * hops, "crashes": scale * crashes}

    def symmetries(self, state: Traffic, rng: Rng) -> Iterator[Symmetry]:
        worlds, n = state.position.shape
        shift = (self.n_sites * rng.uniform(worlds, 1)).long()
        moved = (state.position + shift) % self.n_sites
        yield Symmetry("translation", state._replace(position=moved), noise=lambda u: u)
        if n == 1:
            return
        first = (n * rng.uniform(worlds, 1)).long()
        agents = (torch.arange(n, device=first.device) + first) % n
        turn = (state.turn - first) % n if self.update == "sequential" else state.turn

        def noise(uniform: Tensor) -> Tensor:
            return (((n * uniform).long() - first) % n + 0.5) / n

        renamed = Traffic(state.position.gather(1, agents), turn)
        yield Symmetry("other first particle", renamed, agents, noise=noise)

    def scene(self, state: Traffic) -> Scene:
        """The ring at its last times, cut open, the present at the bottom."""
        occupied = torch.zeros(1, self.n_sites, dtype=torch.float64)
        occupied[0, state.position[0]] = 1.0
        return _diagram(occupied, f"{self.n_particles} particles, {self.n_sites} sites")

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"hop": _hop_blindly if self.sight == 0 else _hop_ahead}

    def references(self) -> dict[str, float]:
        """Means under the policy "hop", exact; sequential update."""
        from .exact import ring_current

        if self.update != "sequential":
            return {}
        current = ring_current(self.n_sites, self.n_particles, self.hop_probability)
        attempts = self.hop_probability * self.n_particles / self.n_sites
        return {"current": current, "crashes": 0.0 if self.sight else attempts - current}

    def rollout(
        self, state: Traffic, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[Traffic, dict[str, Tensor]]:
        """Fused; a whole number per particle."""
        from .rollout import fused_ring

        after = Traffic(*(part.clone() for part in state))
        rows = fused_ring(self, _arrays(after), steps, rng.seed, rng.world, rng.clock, every)
        hops, crashes = torch.from_numpy(rows).unbind(-1)
        crashes = crashes if self.sight == 0 else torch.zeros_like(crashes)
        scale = self.sweep / self.n_sites
        loss = (self.crash_cost * crashes - hops) / self.n_agents
        return after, {"current": scale * hops, "crashes": scale * crashes, "loss": loss}

    def kernel(self, worlds: int) -> Kernel:
        from .rollout import RING_PARAMETERS, see_ring, step_ring

        parameters = parameter_record(
            RING_PARAMETERS,
            parallel=self.update == "parallel",
            n_sites=self.n_sites,
            sight=self.sight,
            hop_probability=self.hop_probability,
            crash_cost=self.crash_cost,
            per_site=self.sweep / self.n_sites,
        )
        return Kernel(step_ring, see_ring, parameters)

    def gaps(self, state: Traffic) -> Tensor:
        """Empty sites ahead of every particle [worlds, agents] int64."""
        if self.n_agents == 1:
            return torch.full_like(state.position, self.n_sites - 1)
        return (state.position.roll(-1, 1) - state.position - 1) % self.n_sites

    def _attempts(self, state: Traffic, action: Tensor) -> Tensor:
        """1.0 for everyone who hops or crashes [worlds, agents]."""
        active = self.active(state)
        return (action if active is None else action * active).double()


class Guarded(NamedTuple):
    occupied: Tensor  # [worlds, sites] 0.0 or 1.0
    hops: Tensor  # [worlds, 1] hops per bond and sweep in the last step
    rate: Tensor  # [worlds, 2] alpha and beta of the last step


@dataclass(frozen=True)
class Gates(System):
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

    def initial(self, rng: Rng, worlds: int) -> Guarded:
        """Every site taken with chance 1 / 2; both gates half open."""
        occupied = (rng.uniform(worlds, self.n_sites) < 0.5).double()
        hops = torch.zeros(worlds, 1, dtype=torch.float64, device=occupied.device)
        return Guarded(occupied, hops, (hops + 0.5).expand(-1, 2).clone())

    def transition(self, state: Guarded, action: Tensor, rng: Rng) -> Guarded:
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
        return Guarded(padded[:, 1:-1].contiguous(), hops / bond.shape[1], rate)

    def invariants(self, state: Guarded) -> dict[str, Tensor]:
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

    def loss(self, state: Guarded, action: Tensor, next_state: Guarded) -> Tensor:
        shared = self.cost * next_state.rate.sum(-1, keepdim=True) - next_state.hops
        return shared.expand(-1, 2)

    def metrics(self, state: Guarded, action: Tensor, next_state: Guarded) -> dict[str, Tensor]:
        """Hops per bond and sweep, the part of the sites that are taken, and the two rates."""
        alpha, beta = next_state.rate.unbind(-1)
        density = next_state.occupied.mean(-1)
        return {"current": next_state.hops[:, 0], "density": density, "alpha": alpha, "beta": beta}

    def symmetries(self, state: Guarded, rng: Rng) -> Iterator[Symmetry]:
        n = self.n_sites + 1
        agents = torch.tensor([[1, 0]], device=state.rate.device).expand(len(state.rate), -1)
        holes = Guarded(1 - state.occupied.flip(-1), state.hops, state.rate.flip(-1))

        def noise(uniform: Tensor) -> Tensor:
            place = n * uniform
            return (n - 1 - place.long() + (place - place.long())) / n

        yield Symmetry("particles to holes", holes, agents, noise=noise)

    def scene(self, state: Guarded) -> Scene:
        """The chain after its last steps, the present at the bottom."""
        alpha, beta = state.rate[0].tolist()
        return _diagram(state.occupied, f"alpha {alpha:.2f}, beta {beta:.2f}")

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"optimum": self._best}

    def kernel(self, worlds: int) -> Kernel:
        from .rollout import GATES_PARAMETERS, see_gates, step_gates

        parameters = parameter_record(
            GATES_PARAMETERS, sweeps=self.sweeps, depth=self.depth, cost=self.cost
        )
        return Kernel(step_gates, see_gates, parameters)

    def _best(self, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
        from .exact import best_gates

        alpha, beta, _ = best_gates(self.n_sites, self.cost)
        shape = invariants["near"].shape
        action = torch.tensor([2 * alpha - 1, 2 * beta - 1], dtype=torch.float64)
        return action.expand(shape)[..., None]


def _require_update(system: Open | Ring) -> None:
    require_choice("update", system.update, UPDATES)
    require_count("n_sweeps", system.n_sweeps)
    require_count("burn_in", system.burn_in, 0)
    if system.burn_in >= system.n_sweeps:
        raise ValueError(f"burn_in={system.burn_in} must be below n_sweeps={system.n_sweeps}")


def _ends(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """What lies behind and ahead of every bond [worlds, sites + 1]: full and empty at the ends."""
    behind = torch.nn.functional.pad(occupied, (1, 0), value=1.0)
    return behind, torch.nn.functional.pad(occupied, (0, 1))


def _diagram(occupied: Tensor, said: str) -> Scene:
    n = float(occupied.shape[1])
    cells = occupied[:1].numpy()
    view = (0.0, 0.0, n, n)
    return Scene(view=view, cells=cells, kept_rows=_KEPT_ROWS, caption=(said,), legend=_LEGEND)


def _arrays(state: Any) -> Any:
    return type(state)(*(part.numpy() for part in state))


def _records(rows: np.ndarray, scale: float) -> dict[str, Tensor]:
    """From hops per step, density and loss [records, worlds, 3]."""
    hops, density, loss = torch.from_numpy(rows).unbind(-1)
    return {"current": scale * hops, "density": density, "loss": loss}


def _attempt(chance: Tensor, rng: Rng) -> Tensor:
    return (rng.uniform(*chance.shape) < chance).long()


def _hop(invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    return _attempt(invariants["rate"] * invariants["free"], rng)


def _hop_ahead(invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    return _attempt(invariants["rate"] * (invariants["gap"] > 0), rng)


def _hop_blindly(invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    return _attempt(invariants["rate"], rng)
