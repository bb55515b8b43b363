"""Ising spins on a square torus: every spin is an agent that keeps or flips itself.

State      spin s_i = +-1; temperature T, field h, coupling J_ij of the world; whose turn it is
Dynamics   who acts may flip.  update = "sequential": one spin drawn at random; "checkerboard": the
           two sublattices in turn; "parallel": all at once
Bonds      J_ij = J, of either sign, or J times +-1 with equal chance ("random": a spin glass)
Invariants with n_i = sum_j J_ij s_j over the four neighbours: s_i n_i, s_i h, and 1 / T
Action     0 keep, 1 flip
Loss       L_i = -s_i' (n_i + h): the new spin among the neighbours it saw. A lone flip changes L_i
           by the change of the energy E = -sum_bonds J_ij s_i s_j - h sum_i s_i
Reference  with heat-bath agents: exp(-E / T) if sequential or checkerboard (Metropolis agents too);
           parallel is exp(h sum s_i / T) prod_i 2 cosh((n_i + h) / T), another law (Peretto 1984).
           Exact by enumeration up to 4 x 4, by transfer matrix up to 8 x 8

One step is one attempt, one sublattice or all spins, by `update`; metrics are averages over the
steps after `burn_in` sweeps of an episode of `n_sweeps`. With a `final_temperature` T falls by the
same factor at every step, so that heat-bath and Metropolis agents are simulated annealing.

The policy "wolff" flips clusters (Wolff 1989), one per sweep, a move that no lone spin can make: it
runs fused only, as whole episodes do under the other two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.observation import flatten
from ..core.physics.lattice import around
from ..core.rng import Rng
from ..core.scene import Chart, LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Knob, Range, Symmetry
from ..core.validation import require_choice, require_count, require_number, require_range
from .ground_state import ground_energy
from .policies import heat_bath, metropolis, sample
from .stationary import stationary

SCENARIOS = {
    "ising-equilibrium-v0": {
        "system": "Ising",
        "summary": "spins on a torus whose exact policy is the heat bath",
        "training": {
            "ppo": {"gamma": 0.0},
            "a2c": {"gamma": 0.0, "ent_coef": 2.5, "reward_scale": 1.0},
        },
        "film": {
            "parameters": {"lattice_size": 256, "update": "checkerboard", "temperature": 1.5},
            "policy": "heat-bath",
            "steps": 60,
            "size": 256,
        },
    },
    "ising-anneal-v0": {
        "system": "Ising",
        "summary": "a spin glass that cools towards its ground state, which is known",
        "parameters": {
            "lattice_size": 6,
            "bonds": "random",
            "temperature": 3.0,
            "final_temperature": 0.2,
            "n_sweeps": 50,
            "burn_in": 0,
        },
        "training": {
            "ppo": {
                "steps": 40_000_000,
                "n_worlds": 128,
                "batch_size": 8192,
                "lr": 3e-3,
                "gamma": 0.98,
            }
        },
        "film": {
            "parameters": {"update": "checkerboard", "n_sweeps": 30},
            "policy": "heat-bath",
            "n_worlds": 4,
            "size": 320,
        },
    },
}

UPDATES = ("sequential", "checkerboard", "parallel")
BONDS = ("uniform", "random")
GROUND_SIZE = 6  # side up to which ground states are found
_DRAWN_BONDS = 16  # side up to which a picture shows bonds
_LEGEND = (LegendEntry("spin up", "cell", 1.0), LegendEntry("spin down", "cell", 0.0))
_SAME = 1e-9  # energy per spin, below any difference between levels
_ENUMERATED = 16  # spins up to which the exact law is summed state by state
_MEANS = {"energy": "mean", "magnetization": "mean", "abs_magnetization": "mean"}


class State(NamedTuple):
    spin: Tensor  # [worlds, agents] -1.0 or 1.0, row by row
    temperature: Tensor  # [worlds, 1] energy
    field: Tensor  # [worlds, 1] energy
    coupling: Tensor  # [worlds, 1] energy; [worlds, 2 agents] to the right, then down, if random
    turn: Tensor  # [worlds, 1] int64: the spin or sublattice that acts next; 0 in parallel
    ground: Tensor  # [worlds, 1] lowest energy per spin, in an annealing; else 0


@dataclass(frozen=True)
class Ising(System):
    """Parameters with their units.

    lattice_size: spins along a side of the torus.  temperature, field, coupling: energies; numbers,
        or (low, high) drawn once per world.
    update: who acts in a step: "sequential", "checkerboard" (even sides only) or "parallel".
    n_sweeps: length of an episode, in attempts per spin.  burn_in: sweeps left out of the metrics.
    bonds: "uniform", or "random": the coupling times +1 or -1 with equal chance, per world.
    final_temperature: energy that the temperature, then a number, falls to; None: it stays. Sides
        of at most 6.
    """

    lattice_size: int = 4
    temperature: Range = 2.5
    field: Range = 0.0
    coupling: Range = 1.0
    update: str = "sequential"
    n_sweeps: int = 10_000
    burn_in: int = 2_000
    bonds: str = "uniform"
    final_temperature: float | None = None

    agent_name: ClassVar[str] = "spin"
    stochastic: ClassVar[bool] = True
    knobs: ClassVar[dict[str, Knob]] = {
        "temperature": Knob(0.05, 0.05, 10.0),
        "field": Knob(0.05, -2.0, 2.0),
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
        require_choice("bonds", self.bonds, BONDS)
        if self.final_temperature is not None:
            self._check_annealing(self.final_temperature)

    def _check_annealing(self, final: float) -> None:
        require_number("final_temperature", final, 0, strict=True)
        if isinstance(self.temperature, tuple):
            raise ValueError(
                f"temperature={self.temperature!r} must be a number with a final_temperature"
            )
        if self.lattice_size > GROUND_SIZE:
            raise ValueError(
                f"lattice_size={self.lattice_size} must be at most {GROUND_SIZE} "
                "with a final_temperature: ground states are found up to there"
            )

    @property
    def n_agents(self) -> int:  # type: ignore[override]
        return self.lattice_size**2

    @property
    def sweep(self) -> int:  # type: ignore[override]
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
    def cooling(self) -> float:
        """The factor by which the temperature changes in a step."""
        if self.final_temperature is None:
            return 1.0
        assert not isinstance(self.temperature, tuple)
        return float((self.final_temperature / self.temperature) ** (1 / self.horizon))

    @property
    def reductions(self) -> dict[str, str]:  # type: ignore[override]
        if self.final_temperature is None:
            return _MEANS
        return {**_MEANS, "residual_energy": "last", "solved": "max"}

    @property
    def fused(self) -> tuple[str, ...]:  # type: ignore[override]
        cluster = ("wolff",) if self.final_temperature is None else ()
        return (*self.policies(), *cluster)

    @property
    def bounds(self) -> dict[str, Bound]:
        coldest = self.temperature[0] if isinstance(self.temperature, tuple) else self.temperature
        if self.final_temperature is not None:
            coldest = min(coldest, self.final_temperature)
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
        if self.update == "sequential":
            first = (self.n_agents * rng.uniform(worlds, 1)).long()
        if self.bonds == "random":
            up = rng.uniform(worlds, 2 * self.n_agents) < 0.5
            coupling = coupling * (2 * up.double() - 1)
        ground = torch.zeros_like(temperature)
        if self.final_temperature is not None:
            ground = ground_energy(coupling, field, self.lattice_size)
        return State(spin, temperature, field, coupling, first, ground)

    def transition(self, state: State, action: Tensor, rng: Rng) -> State:
        """`action` [worlds, agents]: 0 keep, 1 flip; only the active ones count."""
        active = self.active(state)
        flips = action.double() if active is None else action * active
        turn = state.turn
        if self.update == "sequential":
            turn = (self.n_agents * rng.uniform(len(turn), 1)).long()
        elif self.update == "checkerboard":
            turn = 1 - turn
        temperature = state.temperature * self.cooling
        return state._replace(spin=state.spin * (1 - 2 * flips), temperature=temperature, turn=turn)

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
        """Energy per spin, magnetization per spin and its size.

        When the temperature falls, also the energy per spin above that of the ground state at the
        end, and whether a ground state was seen.
        """
        m, energy = next_state.spin.mean(-1), self.energy(next_state)
        found = {"energy": energy, "magnetization": m, "abs_magnetization": m.abs()}
        return found if self.final_temperature is None else {**found, **_above(next_state, energy)}

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        worlds, size = len(state.spin), self.lattice_size
        site = torch.arange(self.n_agents, device=state.spin.device)
        row, column = site // size, site % size
        shift = (size * rng.uniform(worlds, 2)).long()
        moved = (row + shift[:, :1]) % size * size + (column + shift[:, 1:]) % size
        yield self._rearranged("translation", state, moved)
        turned = (column * size + (size - 1 - row)).expand(worlds, -1)
        yield self._rearranged("rotation", state, turned)
        mirrored = (row * size + (size - 1 - column)).expand(worlds, -1)
        yield self._rearranged("reflection", state, mirrored)
        yield Symmetry("flip", state._replace(spin=-state.spin, field=-state.field))
        if self.bonds == "random" and self.field == 0:
            side = 2 * (rng.uniform(worlds, self.n_agents) < 0.5).double() - 1
            bonds = torch.cat(
                [side * side[:, self._beside(0, 1)], side * side[:, self._beside(1, 0)]], 1
            )
            gauged = state._replace(spin=side * state.spin, coupling=bonds * state.coupling)
            yield Symmetry("gauge", gauged)

    def scene(self, state: State) -> Scene:
        """The lattice, spins up bright; of random bonds those that are not satisfied.

        While it cools, also the energy per spin against that of the ground state.
        """
        size = self.lattice_size
        temperature, field = float(state.temperature[0, 0]), float(state.field[0, 0])
        said = f"m {float(state.spin[0].mean()):+.3f}"
        charts: tuple[Chart, ...] = ()
        if self.final_temperature is not None:
            energy, ground = float(self.energy(state)[0]), float(state.ground[0, 0])
            said = f"{energy - ground:.3f} above ground"
            levels = {"ground state": ground}
            charts = (Chart(1.1 * ground, 0.0, {"energy": energy}, (), levels, self.horizon),)
        drawn = self.bonds == "random" and size <= _DRAWN_BONDS
        return Scene(
            view=(0.0, 0.0, float(size), float(size)),
            cells=(0.5 * (1 + state.spin[0])).reshape(size, size).numpy(),
            segments=self._unsatisfied(state) if drawn else None,
            caption=(f"T {temperature:.2f}, h {field:+.2f}", said),
            charts=charts,
            legend=(*_LEGEND, LegendEntry("bond not satisfied", "segment")) if drawn else _LEGEND,
        )

    def _unsatisfied(self, state: State) -> np.ndarray:
        """Strokes [n, 4] across the border between two cells whose bond is not satisfied."""
        size = self.lattice_size
        grid = state.spin[0].view(size, size)
        right, down = state.coupling[0].view(2, size, size)
        row, column = (right * grid * grid.roll(-1, 1) < 0).nonzero().double().unbind(1)
        beside = torch.stack([column + 0.7, size - row - 0.5, column + 1.3, size - row - 0.5], 1)
        row, column = (down * grid * grid.roll(-1, 0) < 0).nonzero().double().unbind(1)
        below = torch.stack([column + 0.5, size - row - 0.7, column + 0.5, size - row - 1.3], 1)
        return torch.cat([beside, below]).numpy()

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {
            "heat-bath": partial(sample, heat_bath),
            "metropolis": partial(sample, metropolis),
        }

    def references(self) -> dict[str, float]:
        """Means under heat-bath agents at rest, exact, where they are known without simulation.

        Of all metrics up to 16 spins. Of energy and magnetization up to a side of 8, unless spins
        act all at once. Parameters must be numbers, equal bonds, and a temperature that stays.
        """
        world = (self.temperature, self.field, self.coupling)
        varies = self.bonds == "random" or self.final_temperature is not None
        if varies or any(isinstance(value, tuple) for value in world):
            return {}
        if self.n_agents > _ENUMERATED:
            return self._by_transfer() if self.update != "parallel" else {}
        state = self._every_state()
        law = self.log_weight(state).softmax(0)
        found = self.metrics(state, torch.zeros_like(state.turn), state)
        return {name: float(law @ value) for name, value in found.items()}

    def judge(self, probabilities: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Of the stationary law of a policy's own chain on the 4 x 4 torus, by power iteration.

        The chain flips spins drawn at random. kl: relative entropy of its law from Gibbs's.
        energy, magnetization, abs_magnetization: its means.
        Known for equal bonds and parameters that are numbers.
        """
        world = (self.temperature, self.field, self.coupling)
        varies = self.bonds == "random" or self.final_temperature is not None
        if varies or self.n_agents > _ENUMERATED or any(isinstance(v, tuple) for v in world):
            return {}
        state = self._every_state()
        flip = probabilities(flatten(self, self.invariants(state)))[..., 1].double()
        gibbs = self.log_weight(state).softmax(0)
        law = stationary(flip, gibbs)
        found = self.metrics(state, torch.zeros_like(state.turn), state)
        kl = (torch.special.xlogy(law, law) - torch.special.xlogy(law, gibbs)).sum()
        return {"kl": float(kl), **{name: float(law @ value) for name, value in found.items()}}

    def _every_state(self) -> State:
        """All configurations, one per world."""
        code = torch.arange(2**self.n_agents)[:, None]
        spin = 2.0 * (code >> torch.arange(self.n_agents) & 1).double() - 1
        world = (self.temperature, self.field, self.coupling)
        given = torch.tensor(world, dtype=torch.float64).reshape(3, 1, 1)
        temperature, field, coupling = given.expand(3, len(code), 1)
        turn = torch.zeros_like(code)
        return State(spin, temperature, field, coupling, turn, turn.double())

    def _by_transfer(self) -> dict[str, float]:
        from .exact import MOST_COLUMNS, moments

        if self.lattice_size > MOST_COLUMNS:
            return {}
        world: tuple[Any, ...] = (self.temperature, self.field, self.coupling)
        temperature, field, coupling = world
        found = moments(self.lattice_size, coupling / temperature, field / temperature)
        bonds, m = found.mean / self.n_agents
        return {"energy": float(-coupling * bonds - field * m), "magnetization": float(m)}

    def rollout(
        self, state: State, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[State, dict[str, Tensor]]:
        """Fused; worlds in blocks of 64 that share their parameters go a bit each."""
        from .rollout import fused_run

        after = State(*(part.clone() for part in state))
        arrays = State(*(part.numpy() for part in after))  # type: ignore[arg-type]
        rows = fused_run(self, arrays, policy, steps, rng.seed, rng.world, rng.clock, every)
        table = torch.from_numpy(rows)
        found = dict(zip((*_MEANS, "loss"), table.unbind(-1), strict=True))
        if self.final_temperature is not None:
            found |= _above(state, found["energy"])
        return after, found

    def kernel(self, worlds: int) -> Kernel:
        from .step import PARAMETERS, UPDATES, make_kernel

        bounds = self.bounds
        parameters = parameter_record(
            PARAMETERS,
            update=UPDATES.index(self.update),
            lattice_size=self.lattice_size,
            solves="solved" in self.reductions,
            most_aligned=bounds["alignment"].high,
            most_field=bounds["field_alignment"].high,
            coldest=bounds["inverse_temperature"].high,
            cooling=self.cooling,
        )
        return make_kernel(self.n_agents, parameters)

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
        """Sum over the four neighbours, each times its bond [worlds, agents]."""
        size = self.lattice_size
        grid = state.spin.view(-1, size, size)
        if self.bonds == "uniform":
            return state.coupling * around(state.spin, size)
        right, down = state.coupling.view(-1, 2, size, size).unbind(1)
        total = right * grid.roll(-1, 2) + (right * grid).roll(1, 2)
        total = total + down * grid.roll(-1, 1) + (down * grid).roll(1, 1)
        return total.flatten(1)

    def _beside(self, rows: int, columns: int) -> Tensor:
        """For every spin the one so many rows and columns on [agents]."""
        size = self.lattice_size
        site = torch.arange(self.n_agents)
        return (site // size + rows) % size * size + (site % size + columns) % size

    def _colour(self, site: Tensor) -> Tensor:
        """Sublattice 0 or 1 of a spin."""
        return (site // self.lattice_size + site % self.lattice_size) % 2

    def _moved_bonds(self, name: str, coupling: Tensor, agents: Tensor) -> Tensor:
        """Bonds to the right and down when new spin i is old spin `agents[world, i]`."""
        right, down = coupling.chunk(2, 1)
        if name == "rotation":
            below = agents[:, self._beside(1, 0)]
            return torch.cat([down.gather(1, agents), right.gather(1, below)], 1)
        if name == "reflection":
            beside = agents[:, self._beside(0, 1)]
            return torch.cat([right.gather(1, beside), down.gather(1, agents)], 1)
        return torch.cat([right.gather(1, agents), down.gather(1, agents)], 1)

    def _rearranged(self, name: str, state: State, agents: Tensor) -> Symmetry:
        """New spin i is old spin `agents[world, i]`; bonds and whose turn it is move along."""
        spin, n = state.spin.gather(1, agents), self.n_agents
        if self.bonds == "random":
            state = state._replace(coupling=self._moved_bonds(name, state.coupling, agents))
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


def _above(state: State, energy: Tensor) -> dict[str, Tensor]:
    """How far energies per spin [..., worlds] lie above the ground state."""
    excess = energy - state.ground[:, 0]
    return {"residual_energy": excess, "solved": (excess < _SAME).double()}


def _largest(value: Range) -> float:
    """Largest size that a parameter can take."""
    ends = value if isinstance(value, tuple) else (value,)
    return max(map(abs, ends))
