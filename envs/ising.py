"""Ising spins on a square torus: every spin is an agent that keeps or flips itself.

State      spin s_i = +-1; temperature T, field h and coupling J of the world; whose turn it is
Dynamics   who acts may flip.  update = "sequential": one spin drawn at random; "checkerboard": the
           two sublattices in turn; "parallel": all at once
Invariants with n_i = J sum of the four neighbours: s_i n_i, s_i h, and 1 / T
Action     0 keep, 1 flip
Loss       L_i = -s_i' (n_i + h): the new spin among the neighbours it saw. A lone flip changes L_i
           by the change of the energy E = -sum_bonds J s_i s_j - h sum_i s_i
Reference  with heat-bath agents: exp(-E / T) if sequential or checkerboard (Metropolis agents too);
           parallel is exp(h sum s_i / T) prod_i 2 cosh((n_i + h) / T), another law (Peretto 1984).
           Exact by enumeration up to 4 x 4

One step is one attempt, one sublattice or all spins, by `update`; metrics are averages over the
steps after `burn_in` sweeps of an episode of `n_sweeps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from .core.rng import Rng
from .core.system import (
    Bound,
    Range,
    Scene,
    Symmetry,
    System,
    require_choice,
    require_count,
    require_range,
)

SCENARIOS = {
    "ising-equilibrium-v0": {
        "system": "Ising",
        "summary": "spins on a torus whose exact policy is the heat bath",
        "training": {
            "ppo": {"gamma": 0.0},
            "a2c": {"gamma": 0.0, "ent_coef": 2.5, "reward_scale": 1.0},
        },
    },
}

UPDATES = ("sequential", "checkerboard", "parallel")
_ENUMERATED = 16  # spins up to which the exact law is summed state by state


class State(NamedTuple):
    spin: Tensor  # [worlds, agents] -1.0 or 1.0, row by row
    temperature: Tensor  # [worlds, 1] energy
    field: Tensor  # [worlds, 1] energy
    coupling: Tensor  # [worlds, 1] energy
    turn: Tensor  # [worlds, 1] int64: the spin or sublattice that acts next; 0 in parallel


@dataclass(frozen=True)
class Ising(System):
    """Parameters with their units.

    lattice_size: spins along a side of the torus.  temperature, field, coupling: energies; numbers,
        or (low, high) drawn once per world.
    update: who acts in a step: "sequential", "checkerboard" (even sides only) or "parallel".
    n_sweeps: length of an episode, in attempts per spin.  burn_in: sweeps left out of the metrics.
    """

    lattice_size: int = 4
    temperature: Range = 2.5
    field: Range = 0.0
    coupling: Range = 1.0
    update: str = "sequential"
    n_sweeps: int = 200
    burn_in: int = 40

    agent_name: ClassVar[str] = "spin"
    stochastic: ClassVar[bool] = True
    reductions: ClassVar[dict[str, str]] = {
        "energy": "mean",
        "magnetization": "mean",
        "abs_magnetization": "mean",
    }

    def __post_init__(self) -> None:
        require_count("lattice_size", self.lattice_size, 2)
        require_range("temperature", self.temperature, 0, strict=True)
        require_range("field", self.field)
        require_range("coupling", self.coupling)
        require_choice("update", self.update, UPDATES)
        require_count("n_sweeps", self.n_sweeps)
        require_count("burn_in", self.burn_in, 0)
        if self.burn_in >= self.n_sweeps:
            raise ValueError(f"burn_in={self.burn_in} must be below n_sweeps={self.n_sweeps}")
        if self.update == "checkerboard" and self.lattice_size % 2:
            raise ValueError(f"lattice_size={self.lattice_size} must be even for a checkerboard")

    @property
    def n_agents(self) -> int:  # type: ignore[override]
        return self.lattice_size**2

    @property
    def sweep(self) -> int:
        """Steps in which every spin acts once, on average."""
        return {"sequential": self.n_agents, "checkerboard": 2, "parallel": 1}[self.update]

    @property
    def horizon(self) -> int:  # type: ignore[override]
        return self.n_sweeps * self.sweep

    @property
    def warm_up(self) -> int:  # type: ignore[override]
        return self.burn_in * self.sweep

    @property
    def one_at_a_time(self) -> bool:  # type: ignore[override]
        return self.update != "parallel"

    @property
    def bounds(self) -> dict[str, Bound]:
        coldest = self.temperature[0] if isinstance(self.temperature, tuple) else self.temperature
        bond, field = 4 * _largest(self.coupling), max(_largest(self.field), 1.0)
        return {
            "alignment": Bound(-max(bond, 1.0), max(bond, 1.0)),
            "field_alignment": Bound(-field, field),
            "inverse_temperature": Bound(0.0, 1 / coldest),
        }

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def initial(self, rng: Rng, worlds: int) -> State:
        """Every spin up or down with equal chance."""
        spin = 2 * (rng.uniform(worlds, self.n_agents) < 0.5).double() - 1
        temperature = rng.draw(self.temperature, worlds)
        field, coupling = rng.draw(self.field, worlds), rng.draw(self.coupling, worlds)
        first = torch.zeros_like(temperature, dtype=torch.int64)
        if self.update == "checkerboard":
            first = (2 * rng.uniform(worlds, 1)).long()
        elif self.update == "sequential":
            first = (self.n_agents * rng.uniform(worlds, 1)).long()
        return State(spin, temperature, field, coupling, first)

    def transition(self, state: State, action: Tensor, rng: Rng) -> State:
        """`action` [worlds, agents]: 0 keep, 1 flip; only the active ones count."""
        active = self.active(state)
        flips = action.double() if active is None else action * active
        turn = state.turn
        if self.update == "sequential":
            turn = (self.n_agents * rng.uniform(len(turn), 1)).long()
        elif self.update == "checkerboard":
            turn = 1 - turn
        return state._replace(spin=state.spin * (1 - 2 * flips), turn=turn)

    def active(self, state: State) -> Tensor | None:
        if self.update == "parallel":
            return None
        site = torch.arange(self.n_agents, device=state.turn.device)
        return (site if self.update == "sequential" else self._colour(site)) == state.turn

    def invariants(self, state: State) -> dict[str, Tensor]:
        """Of every spin, with the sign it has: its neighbours, the field; and the world's 1 / T."""
        return {
            "alignment": state.spin * self._neighbours(state),
            "field_alignment": state.spin * state.field,
            "inverse_temperature": (1 / state.temperature).expand_as(state.spin),
        }

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return -next_state.spin * (self._neighbours(state) + state.field)

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """Energy per spin, magnetization per spin and its size."""
        m = next_state.spin.mean(-1)
        return {"energy": self.energy(next_state), "magnetization": m, "abs_magnetization": m.abs()}

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        worlds, size = len(state.spin), self.lattice_size
        site = torch.arange(self.n_agents, device=state.spin.device)
        row, column = site // size, site % size
        shift = (size * rng.uniform(worlds, 2)).long()
        moved = (row + shift[:, :1]) % size * size + (column + shift[:, 1:]) % size
        yield self._rearranged("translation", state, moved)
        turned = column * size + (size - 1 - row)
        yield self._rearranged("rotation", state, turned.expand(worlds, -1))
        mirrored = row * size + (size - 1 - column)
        yield self._rearranged("reflection", state, mirrored.expand(worlds, -1))
        yield Symmetry("flip", state._replace(spin=-state.spin, field=-state.field))

    def scene(self, state: State) -> Scene:
        """The lattice, spins up bright."""
        size = self.lattice_size
        temperature, field = float(state.temperature[0, 0]), float(state.field[0, 0])
        m = float(state.spin[0].mean())
        return Scene(
            view=(0.0, 0.0, float(size), float(size)),
            cells=(0.5 * (1 + state.spin[0])).reshape(size, size).numpy(),
            caption=(f"T {temperature:.3f}  h {field:+.3f}", f"m {m:+.3f}"),
        )

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {
            "heat-bath": partial(_sample, heat_bath),
            "metropolis": partial(_sample, metropolis),
        }

    def references(self) -> dict[str, float]:
        """Means under heat-bath agents, exact; empty if a parameter is a range or N is above 16."""
        world = (self.temperature, self.field, self.coupling)
        if self.n_agents > _ENUMERATED or any(isinstance(value, tuple) for value in world):
            return {}
        code = torch.arange(2**self.n_agents)[:, None]
        spin = 2.0 * (code >> torch.arange(self.n_agents) & 1).double() - 1
        temperature, field, coupling = torch.tensor(world, dtype=torch.float64).reshape(3, 1, 1)
        state = State(spin, temperature, field, coupling, torch.zeros_like(code))
        law = self.log_weight(state).softmax(0)
        found = self.metrics(state, code, state)
        return {name: float(law @ value) for name, value in found.items()}

    def log_weight(self, state: State) -> Tensor:
        """Logarithm [worlds] of the unnormalised stationary law of heat-bath agents."""
        if self.update != "parallel":
            return -self.n_agents * self.energy(state) / state.temperature[:, 0]
        force = (self._neighbours(state) + state.field) / state.temperature
        cosh = torch.logaddexp(force, -force)
        return (cosh + state.field * state.spin / state.temperature).sum(-1)

    def energy(self, state: State) -> Tensor:
        """Energy per spin [worlds]; every bond counts once."""
        return -(state.spin * (0.5 * self._neighbours(state) + state.field)).mean(-1)

    def _neighbours(self, state: State) -> Tensor:
        """J times the sum of the four neighbours [worlds, agents]."""
        size = self.lattice_size
        grid = state.spin.view(-1, size, size)
        total = grid.roll(1, 1) + grid.roll(-1, 1) + grid.roll(1, 2) + grid.roll(-1, 2)
        return state.coupling * total.flatten(1)

    def _colour(self, site: Tensor) -> Tensor:
        """Sublattice 0 or 1 of a spin."""
        return (site // self.lattice_size + site % self.lattice_size) % 2

    def _rearranged(self, name: str, state: State, agents: Tensor) -> Symmetry:
        """New spin i is old spin `agents[world, i]`; whose turn it is moves along."""
        spin, n = state.spin.gather(1, agents), self.n_agents
        if self.update == "parallel":
            return Symmetry(name, state._replace(spin=spin), agents)
        if self.update == "checkerboard":
            turn = (state.turn + self._colour(agents[:, :1])) % 2
            return Symmetry(name, state._replace(spin=spin, turn=turn), agents)
        place = agents.argsort(-1)

        def noise(uniform: Tensor) -> Tensor:
            return (place.gather(1, (n * uniform).long()) + 0.5) / n

        turn = place.gather(1, state.turn)
        return Symmetry(name, state._replace(spin=spin, turn=turn), agents, noise=noise)


def heat_bath(invariants: dict[str, Tensor]) -> Tensor:
    """Chance to flip [worlds, agents] that forgets the old spin: 1 / (1 + exp(change / T))."""
    return 1 / (1 + _change(invariants).exp())


def metropolis(invariants: dict[str, Tensor]) -> Tensor:
    """Chance to flip [worlds, agents]: min(1, exp(-change / T))."""
    return (-_change(invariants).clamp(min=0)).exp()


def _change(invariants: dict[str, Tensor]) -> Tensor:
    """What a flip would add to the energy, over T."""
    local = invariants["alignment"] + invariants["field_alignment"]
    return 2 * local * invariants["inverse_temperature"]


def _sample(
    chance: Callable[[dict[str, Tensor]], Tensor], invariants: dict[str, Tensor], rng: Rng
) -> Tensor:
    flip = chance(invariants)
    return (rng.uniform(*flip.shape) < flip).long()


def _largest(value: Range) -> float:
    """Largest size that a parameter can take."""
    ends = value if isinstance(value, tuple) else (value,)
    return max(map(abs, ends))
