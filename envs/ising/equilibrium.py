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
runs fused only, as whole episodes do under the others. The policy "cold" is a heat bath at 0.3 of
the temperature. It is for the return, which is largest for aligned spins and not for those at the
temperature of the world: on the torus of 4 x 4, at 2.5, it gets 0.9995 of all that there can be.
Colder ones stay in stripes for long, warmer ones flip aligned spins too often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.observation import flatten
from ..core.physics.lattice import Isometry, Torus
from ..core.physics.updates import (
    PARALLEL,
    SEQUENTIAL,
    ScheduledSystem,
    Update,
    require_update,
)
from ..core.rng import Rng
from ..core.scene import Chart, Scene
from ..core.types import Bound, LiveParameter, Range, Symmetry
from ..core.validation import (
    ends_of,
    require_choice,
    require_codes,
    require_count,
    require_fields,
    require_range,
)
from . import picture, stationary
from .ground_state import above_ground, ground_energy, require_annealing
from .policies import cold, heat_bath, metropolis, sample

SCENARIOS = {
    "ising-equilibrium-v0": {
        "system": "Ising",
        "summary": "spins on a torus whose exact policy is the heat bath",
        "training": {
            "ppo": {
                "lr": 8.59e-3,
                "gamma": 0.995,
                "n_steps": 8,
                "ent_coef": 1e-4,
                "reward_scale": 0.0123,
            },
            "mappo": {"gamma": 0.0},
            "maskable_ppo": {"gamma": 0.0},
            "a2c": {"gamma": 0.0, "ent_coef": 2.5, "reward_scale": 1.0},
            "es": {"steps": 40_000_000, "rollout": 160},
        },
        "film": {
            "parameters": {"lattice_size": 256, "update": "checkerboard", "temperature": 1.5},
            "policy": "heat-bath",
            "steps": 60,
            "size": 256,
        },
        "variants": [
            {"lattice_size": 2},
            {"lattice_size": 3, "temperature": (1.0, 4.0)},
            {"field": (-1.0, 1.0), "coupling": (-1.0, 1.0)},
            {"update": "checkerboard", "field": 0.3, "burn_in": 0},
            {
                "update": "parallel",
                "lattice_size": 5,
                "temperature": (1.0, 4.0),
                "field": (-1.0, 1.0),
            },
            {"bonds": "random", "lattice_size": 5, "field": 0.2, "burn_in": 0},
            {"bonds": "random", "update": "checkerboard", "coupling": (0.5, 1.0)},
        ],
        "score": {
            "random": 87.39,
            "best": 640_000.0,
            "policy": "cold",
            "exact": True,
            "origin": "500 episodes of random actions; 4 per step while all spins are aligned",
        },
    },
}

BONDS = ("uniform", "random")
_HOTTEST = 10.0  # to which the window may go
_DRAWN_BONDS = 16  # side up to which a picture shows bonds
_MEANS = {"energy": "mean", "magnetization": "mean", "abs_magnetization": "mean"}


class State(NamedTuple):
    spin: Tensor  # [worlds, agents] -1.0 or 1.0, row by row
    temperature: Tensor  # [worlds, 1] energy
    field: Tensor  # [worlds, 1] energy
    coupling: Tensor  # [worlds, 1] energy; [worlds, 2 agents] to the right, then down, if random
    turn: Tensor  # [worlds, 1] int64: the spin or sublattice that acts next; 0 in parallel
    ground: Tensor  # [worlds, 1] lowest energy per spin, in an annealing; else 0


@dataclass(frozen=True)
class Ising(ScheduledSystem):
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

    def __post_init__(self) -> None:
        require_count("lattice_size", self.lattice_size, 2)
        require_range("temperature", self.temperature, 0, strict=True)
        require_range("field", self.field)
        require_range("coupling", self.coupling)
        require_update(self.update, self.n_sweeps, self.burn_in)
        if self.update == "checkerboard" and self.lattice_size % 2:
            raise ValueError(f"lattice_size={self.lattice_size} must be even for a checkerboard")
        require_choice("bonds", self.bonds, BONDS)
        if self.final_temperature is not None:
            require_annealing(self.final_temperature, self.temperature, self.lattice_size)

    @property
    def n_agents(self) -> int:
        return self.lattice_size**2

    @cached_property
    def lattice(self) -> Torus:
        return Torus((self.lattice_size, self.lattice_size))

    @cached_property
    def schedule(self) -> Update:
        """Who acts in which step."""
        return Update(self.update, self.n_agents, self.lattice.colours)

    @property
    def cooling(self) -> float:
        """The factor by which the temperature changes in a step."""
        if self.final_temperature is None:
            return 1.0
        assert not isinstance(self.temperature, tuple)
        return float((self.final_temperature / self.temperature) ** (1 / self.horizon))

    @property
    def reductions(self) -> dict[str, str]:
        if self.final_temperature is None:
            return _MEANS
        return {**_MEANS, "residual_energy": "last", "solved": "max"}

    @property
    def fused(self) -> tuple[str, ...]:
        cluster = ("wolff",) if self.final_temperature is None else ()
        return (*self.policies(), *cluster)

    @property
    def live_parameters(self) -> dict[str, LiveParameter]:
        """Within what agents see: nothing colder than the coldest of this system."""
        field = self._strongest_field
        hottest = max(ends_of(self.temperature)[-1], _HOTTEST)
        return {
            "temperature": LiveParameter(0.05, self._coldest, hottest),
            "field": LiveParameter(0.05, -field, field),
        }

    @property
    def _coldest(self) -> float:
        temperature = ends_of(self.temperature)[0]
        if self.final_temperature is None:
            return float(temperature)
        return min(float(temperature), self.final_temperature)

    @property
    def _strongest_field(self) -> float:
        return max(float(np.abs(self.field).max()), 1.0)

    @property
    def bounds(self) -> dict[str, Bound]:
        bond = 4 * float(np.abs(self.coupling).max())
        field = self._strongest_field
        return {
            "alignment": Bound(-max(bond, 1.0), max(bond, 1.0)),
            "field_alignment": Bound(-field, field),
            "inverse_temperature": Bound(0.0, 1 / self._coldest),
        }

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def initial(self, rng: Rng, worlds: int) -> State:
        """Every spin up or down with equal chance."""
        spin = 2 * (rng.uniform(worlds, self.n_agents) < 0.5).double() - 1
        temperature = rng.draw(self.temperature, worlds)
        field, coupling = rng.draw(self.field, worlds), rng.draw(self.coupling, worlds)
        turn = self.schedule.first_turn(rng, worlds)
        if self.bonds == "random":
            up = rng.uniform(worlds, 2 * self.n_agents) < 0.5
            coupling = coupling * (2 * up.double() - 1)
        ground = torch.zeros_like(temperature)
        if self.final_temperature is not None:
            ground = ground_energy(coupling, field, self.lattice_size)
        return State(spin, temperature, field, coupling, turn, ground)

    def require_state(self, state: State) -> None:
        require_codes(state, ("spin",), (-1, 1))
        require_fields(state, ("temperature",), 0, strict=True)
        self.schedule.require_turn(state)
        strength = state.coupling.abs()
        if not (strength == strength[:, :1]).all():
            raise ValueError(
                "state field 'coupling' has bonds of more than one strength in a world"
            )

    def require_given(self, state: State) -> None:
        if self.final_temperature is None:
            require_fields(state, ("temperature",), self._coldest)
        require_fields(state, ("field",), -self._strongest_field, self._strongest_field)

    def transition(self, state: State, action: Tensor, rng: Rng) -> State:
        """`action` [worlds, agents]: 0 keep, 1 flip; only the active ones count."""
        flips = self.schedule.used(action, state.turn).double()
        turn = self.schedule.next_turn(state.turn, rng)
        temperature = state.temperature * self.cooling
        return state._replace(spin=state.spin * (1 - 2 * flips), temperature=temperature, turn=turn)

    def invariants(self, state: State) -> dict[str, Tensor]:
        """Of every spin, with the sign it has: its neighbours, the field; and the world's 1 / T."""
        return {
            "alignment": state.spin * self._neighbour_sum(state),
            "field_alignment": state.spin * state.field,
            "inverse_temperature": (1 / state.temperature).expand_as(state.spin),
        }

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return -next_state.spin * (self._neighbour_sum(state) + state.field)

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """Energy per spin, magnetization per spin and its size.

        When the temperature falls, also the energy per spin above that of the ground state at the
        end, and whether a ground state was seen.
        """
        m, energy = next_state.spin.mean(-1), self.energy(next_state)
        means = {"energy": energy, "magnetization": m, "abs_magnetization": m.abs()}
        if self.final_temperature is None:
            return means
        return {**means, **above_ground(energy, next_state.ground)}

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        worlds, lattice, device = len(state.spin), self.lattice, state.spin.device
        shift = (self.lattice_size * rng.uniform(worlds, 2)).long()
        yield self._rearranged("translation", state, lattice.shift(shift))
        yield self._rearranged("rotation", state, lattice.turn(worlds, device=device))
        yield self._rearranged("reflection", state, lattice.mirror(worlds, device=device))
        yield Symmetry("flip", state._replace(spin=-state.spin, field=-state.field))
        if self.bonds == "random" and self.field == 0:
            side = 2 * (rng.uniform(worlds, self.n_agents) < 0.5).double() - 1
            bonds = torch.cat([side * lattice.ahead(side, 1), side * lattice.ahead(side, 0)], 1)
            gauged = state._replace(spin=side * state.spin, coupling=bonds * state.coupling)
            yield Symmetry("gauge", gauged)

    def scene(self, state: State) -> Scene:
        """The lattice, spins up bright; of random bonds those that are not satisfied.

        While it cools, also the energy per spin against that of the ground state.
        """
        size, temperature = self.lattice_size, float(state.temperature[0, 0])
        caption = f"m {float(state.spin[0].mean()):+.3f}"
        charts: tuple[Chart, ...] = ()
        if self.final_temperature is not None:
            energy, ground = float(self.energy(state)[0]), float(state.ground[0, 0])
            caption = f"{energy - ground:.3f} above ground"
            levels = {"ground state": ground}
            charts = (Chart(1.1 * ground, 0.0, {"energy": energy}, (), levels, self.horizon),)
        drawn = self.bonds == "random" and size <= _DRAWN_BONDS
        captions = (f"T {temperature:.2f}, h {float(state.field[0, 0]):+.2f}", caption)
        bonds = picture.broken_bonds(state.spin, state.coupling, size) if drawn else None
        return picture.torus(state.spin, size, captions, charts, bonds)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        chances = {"heat-bath": heat_bath, "metropolis": metropolis}
        if self.final_temperature is None:
            chances["cold"] = cold
        return {name: partial(sample, chance) for name, chance in chances.items()}

    def references(self) -> dict[str, float]:
        """Means under heat-bath agents at rest, exact, where they are known without simulation.

        Of all metrics up to 16 spins. Of energy and magnetization up to a side of 8, unless spins
        act all at once. Parameters must be numbers, equal bonds, and a temperature that stays.
        """
        if not self._is_one_world:
            return {}
        if self.n_agents > stationary.ENUMERATED:
            if self.update == "parallel":
                return {}
            return stationary.torus_means(self.lattice_size, *self._world)
        state = self._every_state()
        law = self.log_weight(state).softmax(0)
        return stationary.means(law, self.metrics(state, state.turn, state))

    def exact_evaluation(self, probabilities: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Of the stationary law of a policy's own chain on the 4 x 4 torus.

        The chain flips spins drawn at random. kl: relative entropy of its law from Gibbs's.
        energy, magnetization, abs_magnetization: its means.
        Known for equal bonds and parameters that are numbers, where one spin acts at a time, and
        if there is one such law: spins that never flip some way may have several.
        """
        known = self.update == SEQUENTIAL and self._is_one_world
        if not known or self.n_agents > stationary.ENUMERATED:
            return {}
        state = self._every_state()
        flip = probabilities(flatten(self, self.invariants(state)))[..., 1].double()
        gibbs = self.log_weight(state).softmax(0)
        law = stationary.law_of_flips(flip, gibbs)
        if law is None:
            return {}
        means = stationary.means(law, self.metrics(state, state.turn, state))
        return {"kl": stationary.relative_entropy(law, gibbs), **means}

    @property
    def _world(self) -> tuple[Any, Any, Any]:
        return self.temperature, self.field, self.coupling

    @property
    def _is_one_world(self) -> bool:
        """Whether all worlds have the same parameters at all times."""
        fixed = self.bonds == "uniform" and self.final_temperature is None
        return fixed and not any(isinstance(value, tuple) for value in self._world)

    def _every_state(self) -> State:
        """All configurations, one per world."""
        spin = stationary.configurations(self.n_agents)
        given = torch.tensor(self._world, dtype=torch.float64).reshape(3, 1, 1)
        temperature, field, coupling = given.expand(3, len(spin), 1)
        turn = torch.zeros(len(spin), 1, dtype=torch.int64)
        return State(spin, temperature, field, coupling, turn, turn.double())

    def rollout(
        self, state: State, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[State, dict[str, Tensor]]:
        """Fused; worlds in blocks of 64 that share their parameters go a bit each.

        The loss is that of the last step where there is a record of every step, or all spins act at
        once; else that of the spins among their neighbours as they are, the same at rest.
        """
        from ..core.kernels.rollouts import rollout_arrays, rollout_plan
        from .rollout import RECORDED, compiled_rollout
        from .step import Spins

        after, arrays = rollout_arrays(state, Spins)
        plan = rollout_plan(steps, every, rng, len(RECORDED))
        compiled_rollout(arrays, plan, policy, self.schedule.code, self.cooling)
        records = dict(zip(RECORDED, torch.from_numpy(plan.records).unbind(-1), strict=True))
        if every == 1 and self.update != PARALLEL and policy != "wolff":
            energy, m = (
                torch.cat([now[None], records[name][:-1]])  # before each step
                for name, now in (
                    ("energy", self.energy(state)),
                    ("magnetization", state.spin.mean(-1)),
                )
            )
            # No two neighbours act in a step: half of the bonds are those before, half those after.
            records["loss"] = energy + state.field[:, 0] * m + records["energy"]
        if self.final_temperature is not None:
            records |= above_ground(records["energy"], state.ground)
        return after, records

    def kernel(self, worlds: int) -> Kernel | None:
        from .step import PARAMETERS, make_kernel

        bounds = self.bounds
        parameters = parameter_record(
            PARAMETERS,
            update=self.schedule.code,
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
        force = (self._neighbour_sum(state) + state.field) / state.temperature
        cosh = torch.logaddexp(force, -force)
        return (cosh + state.field * state.spin / state.temperature).sum(-1)

    def energy(self, state: State) -> Tensor:
        """Energy per spin [worlds]; every bond counts once."""
        return -(state.spin * (0.5 * self._neighbour_sum(state) + state.field)).mean(-1)

    def _neighbour_sum(self, state: State) -> Tensor:
        """Sum over the four neighbours, each times its bond [worlds, agents]."""
        if self.bonds == "uniform":
            return state.coupling * self.lattice.neighbour_sum(state.spin)
        right, down = state.coupling.chunk(2, 1)
        return self.lattice.neighbour_sum(state.spin, (down, right))

    def _rearranged(self, name: str, state: State, isometry: Isometry) -> Symmetry:
        """Spins, bonds and whose turn it is move along."""
        if self.bonds == "random":
            right, down = state.coupling.chunk(2, 1)
            down, right = self.lattice.moved_bonds((down, right), isometry)
            state = state._replace(coupling=torch.cat([right, down], 1))
        turn, noise = self.schedule.rearranged(state.turn, isometry.sites)
        spin = self.lattice.moved(state.spin, isometry)
        moved = state._replace(spin=spin, turn=turn)
        return Symmetry(name, moved, isometry.sites, noise=noise)
