"""Atoms of liquid water that live by their forces and must keep the structure of the liquid.

State      positions x_i and velocities v_i of oxygens and hydrogens in a periodic cell; what an
           atom has seen of its neighbourhood on average; distances counted since the start
Dynamics   m_i a_i = F_i by leap-frog, momentum taken out and speeds scaled to the temperature after
           every kick
Invariants radial q_a = sum_j b_a(r_ij) by species of the neighbours; dot products A_a.A_b of broad
           vectors A_a = sum_j b_a(r_ij) n_ij, and their like with (n_ij.n_im)^2; the own kinetic
           energy and v.A_a
Action     F_i = sum_a gain_a w_a A_a, the most general pairwise own force, and a push along v
Loss       the squared distance of the mean q over the last 20 steps from that of the data,
           relative; it counts everybody's new places

Lengths in Angstrom, forces in eV/Angstrom, times in fs, masses in amu, temperatures in K.

Radial functions b_a(r) = (1 - ((r - c) / h)^2)^2 within h of the centre c, else 0, depend on both
species; all vanish beyond 3.9 Angstrom. The data that ship are 20 frames each: `water16`, 16 waters
of our own run of CP2K, and `water64`, 64 waters of the example of DeePMD-kit; more come from a
file. Idea: Gusev and Vanchurin, "Molecular Learning Dynamics" (arXiv 2504.10560), of which only the
abstract was available: radial functions, losses and numbers are ours.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.physics.plane import dot
from ..core.physics.units import ACCELERATION, BOLTZMANN, KINETIC
from ..core.rng import Rng
from ..core.scene import LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Range, Symmetry
from ..core.validation import (
    FARTHEST,
    require_codes,
    require_count,
    require_fields,
    require_number,
    require_range,
)
from .descriptors import (
    BIN,
    BINS,
    BONDED,
    BROAD,
    CUTOFF,
    MASS,
    N_FUNCTIONS,
    all_pairs,
    atom_descriptors,
    between_molecules,
    descriptor_bounds,
    forces,
    kernel_tables,
    masses,
    pair_histogram,
    radial_descriptor,
    rdf,
    symmetry_operations,
)
from .frames import drawn_frames, mean_neighbourhood, read, reference_rdf
from .least_squares import by_species, optimum
from .picture import LEGEND, molecules_scene, rdf_plot

SCENARIOS = {
    "water-dynamics-v0": {
        "system": "WaterDynamics",
        "summary": "atoms of water whose forces must keep the structure of the liquid",
        "training": {
            "ppo": {
                "steps": 10_000_000,
                "n_steps": 25,
                "n_epochs": 8,
                "lr": 3e-4,
                "log_std_init": -1.0,
            },
            "a2c": {
                "steps": 4_000_000,
                "n_worlds": 8,
                "n_steps": 10,
                "lr": 1e-3,
                "log_std_init": -1.0,
            },
            "descent": {"n_worlds": 4, "rollout": 20, "lr": 5e-3},
        },
        "film": {
            "parameters": {"data": "water64"},
            "policy": "least-squares",
            "steps": 45,
            "size": 272,
        },
        "variants": [
            {"dt": 1.0, "temperature": (300.0, 400.0), "horizon": 3},
        ],
        "score": {
            "random": -15.26,
            "best": -9.932,
            "policy": "descent",
            "origin": "5 trained runs of docs/scores.md",
        },
    },
}

_MEMORY = 20  # steps that the mean neighbourhood goes back
_PUSH = 0.05  # 1/fs along the own velocity


class DynamicsState(NamedTuple):
    """A liquid in motion."""

    position: Tensor  # [worlds, agents, 3]
    velocity: Tensor  # [worlds, agents, 3]
    oxygen: Tensor  # [worlds, agents]
    cell: Tensor  # [worlds, 3, 3]
    mean: Tensor  # [worlds, agents, 20] of the radial invariants, lately
    histogram: Tensor  # [worlds, 3, bins] distances seen since the start, each twice
    kt: Tensor  # [worlds, 1] eV
    age: Tensor  # [worlds, 1] steps


@dataclass(frozen=True)
class WaterDynamics(System):
    """Parameters with their units.

    data: "water16", "water64", or an .npz with positions, forces, numbers (8 and 1) and cell.
    split: the frames of the data that are used, "train" or "val"; empty: all.
    horizon: steps of an episode.  dt: time step, fs.  temperature: K.
    """

    data: str = "water16"
    split: str = ""
    horizon: int = 100
    dt: float = 0.5
    temperature: Range = 350.0

    agent_name: ClassVar[str] = "atom"
    reductions: ClassVar[dict[str, str]] = {"structure": "last", "broken": "last"}

    def __post_init__(self) -> None:
        require_count("horizon", self.horizon)
        require_number("dt", self.dt, 0, 5, strict=True)
        require_range("temperature", self.temperature, 0, strict=True)
        if not read(self.data, self.split).cell.any():
            raise ValueError(f"data={self.data!r} is in open space: a liquid has a cell")

    @property
    def n_agents(self) -> int:
        """Atoms of the data."""
        return len(read(self.data, self.split).oxygen)

    @property
    def agent_types(self) -> tuple[int, ...]:
        """Oxygens, then hydrogens."""
        return tuple(int(not oxygen) for oxygen in read(self.data, self.split).oxygen)

    @property
    def bounds(self) -> dict[str, Bound]:
        along = math.asinh(10.0 * self.n_agents)
        own = {"speed": Bound(0, 6), "climb": Bound(-along, along, 2 * len(BROAD))}
        return descriptor_bounds(self.n_agents) | own

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2 * N_FUNCTIONS + 1,), np.float32)

    def initial(self, rng: Rng, worlds: int) -> DynamicsState:
        """A frame of the data with velocities of the temperature."""
        position, force, oxygen, cell = drawn_frames(read(self.data, self.split), rng, worlds)
        kt = BOLTZMANN * rng.draw(self.temperature, worlds)
        velocity = rng.normal(*force.shape) / masses(oxygen).sqrt().unsqueeze(-1)
        mean = torch.zeros_like(oxygen).unsqueeze(-1).repeat(1, 1, 2 * N_FUNCTIONS)
        histogram = position.new_zeros(worlds, 3, BINS)
        velocity = thermal(velocity, oxygen, kt)
        age = torch.zeros_like(kt)
        return DynamicsState(position, velocity, oxygen, cell, mean, histogram, kt, age)

    def require_state(self, state: DynamicsState) -> None:
        require_fields(state, ("position", "velocity"), -FARTHEST, FARTHEST)
        require_codes(state, ("oxygen",), (0, 1))
        require_fields(state, ("kt", "age", "histogram"), 0)

    def transition(self, state: DynamicsState, action: Tensor, rng: Rng | None) -> DynamicsState:
        """`action` [worlds, agents, 21]: w of the functions of oxygens, of hydrogens, along v."""
        pairs = all_pairs(state.position, state.oxygen, state.cell)
        force = forces(pairs, action[..., :-1])
        kick = ACCELERATION * force / masses(state.oxygen).unsqueeze(-1)
        velocity = state.velocity + self.dt * (kick + _PUSH * action[..., -1:] * state.velocity)
        velocity = thermal(velocity, state.oxygen, state.kt)
        position = state.position + self.dt * velocity
        after = all_pairs(position, state.oxygen, state.cell)
        age = state.age + 1
        steps = age.clamp(max=_MEMORY).unsqueeze(-1)
        mean = state.mean + (radial_descriptor(after) - state.mean) / steps
        histogram = state.histogram + pair_histogram(after)
        return state._replace(
            position=position, velocity=velocity, mean=mean, histogram=histogram, age=age
        )

    def invariants(self, state: DynamicsState) -> dict[str, Tensor]:
        """Of every atom.

        oxygen: 1, or 0 for hydrogen.  radial: log(1 + q_a), ten of oxygens and ten of hydrogens.
        along: asinh of A_a.A_b, a <= b, of two broad vectors to oxygens and two to hydrogens.
        angular: the same with the squared cosine of the two neighbours.
        speed: log(1 + own kinetic energy / kT).  climb: asinh of v.A_a over the thermal speed.
        """
        pairs = all_pairs(state.position, state.oxygen, state.cell)
        descriptors, first = atom_descriptors(state.oxygen, pairs)
        mass = masses(state.oxygen)
        kinetic = 0.5 * KINETIC * mass * dot(state.velocity, state.velocity)
        thermal_speed = (state.kt / (KINETIC * mass)).sqrt().unsqueeze(-1)
        climb = dot(first, state.velocity.unsqueeze(-2)) / thermal_speed
        return descriptors | {"speed": torch.log1p(kinetic / state.kt), "climb": torch.asinh(climb)}

    def loss(self, state: DynamicsState, action: Tensor, next_state: DynamicsState) -> Tensor:
        return self._deviation(next_state)

    def _deviation(self, state: DynamicsState) -> Tensor:
        """Relative squared distance [worlds, agents] of the mean neighbourhood from the data's."""
        mean = state.mean
        by_species = torch.from_numpy(mean_neighbourhood(self.data, self.split)).to(mean)
        reference = by_species[(1 - state.oxygen).long()]
        difference = mean - reference
        return dot(difference, difference) / dot(reference, reference)

    def metrics(
        self, state: DynamicsState, action: Tensor, next_state: DynamicsState
    ) -> dict[str, Tensor]:
        """structure: mean |g - g of the data| between molecules, over kinds and distances.

        broken: part of the hydrogens that have no oxygen within 1.3 Angstrom.
        """
        steps = next_state.age[..., None].clamp(min=1)
        g = rdf(next_state.histogram, next_state.oxygen, next_state.cell) / steps
        reference = torch.from_numpy(reference_rdf(self.data, self.split)).to(g)
        between = torch.from_numpy(between_molecules()).to(g)
        pairs = all_pairs(next_state.position, next_state.oxygen, next_state.cell)
        bond = torch.where(pairs.kind == 1, pairs.distance, 1e6).amin(-1)
        hydrogen = 1 - next_state.oxygen
        free = hydrogen * (bond > BONDED)
        return {
            "structure": ((g - reference).abs() * between).sum((1, 2)) / between.sum(),
            "broken": free.sum(-1) / hydrogen.sum(-1),
        }

    def symmetries(self, state: DynamicsState, rng: Rng) -> Iterator[Symmetry]:
        for name, operation in symmetry_operations(state.position, state.cell, rng):
            moved = state._replace(
                position=operation.vectors(state.position) + operation.shift,
                velocity=operation.vectors(state.velocity),
                oxygen=operation.relabel(state.oxygen),
                cell=operation.rotate(state.cell),
                mean=operation.relabel(state.mean),
            )
            yield Symmetry(name, moved, operation.agents)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        weights = optimum(self.data, self.split).weights
        no_push = np.zeros((2, 1))
        return {
            "least-squares": functools.partial(by_species, np.append(weights, no_push, 1)),
            "free": functools.partial(by_species, np.zeros((2, 2 * N_FUNCTIONS + 1))),
        }

    def kernel(self, worlds: int) -> Kernel:
        from .step import DYNAMICS_PARAMETERS, DynamicsTables, dynamics_kernel

        tables = DynamicsTables(
            *kernel_tables(self),
            np.ascontiguousarray(mean_neighbourhood(self.data, self.split)),
            np.ascontiguousarray(reference_rdf(self.data, self.split)),
            np.ascontiguousarray(between_molecules()),
        )
        parameters = parameter_record(
            DYNAMICS_PARAMETERS,
            cutoff=CUTOFF,
            dt=self.dt,
            oxygen_mass=MASS[True],
            hydrogen_mass=MASS[False],
            kinetic=KINETIC,
            acceleration=ACCELERATION,
            push=_PUSH,
            memory=_MEMORY,
            bin_width=BIN,
            bonded=BONDED,
        )
        return dynamics_kernel(self.n_agents, tables, parameters)

    def scene(self, state: DynamicsState) -> Scene:
        """Balls and bonds; colour: the loss, alarmed from 0.5 up; g(r) since the start."""
        age = float(state.age[0, 0])
        g = rdf(state.histogram[:1], state.oxygen[:1], state.cell[:1])[0].numpy() / max(age, 1)
        first_world = type(state)(*(field[:1] for field in state))
        deviation = self._deviation(first_world)[0] * min(age, 1.0)
        return replace(
            molecules_scene(state.position, state.oxygen, state.cell, 2 * deviation),
            caption=(f"{self.dt * age:.1f} fs",),
            plot=rdf_plot(g, self.data, self.split),
            legend=(
                *LEGEND,
                LegendEntry("g(r) of this world", "fill"),
                LegendEntry("g(r) of the data", "line"),
            ),
        )


def thermal(velocity: Tensor, oxygen: Tensor, kt: Tensor) -> Tensor:
    """Velocities without momentum, scaled to the kinetic energy that `kt` [worlds, 1] gives."""
    mass = masses(oxygen).unsqueeze(-1)
    velocity = velocity - (mass * velocity).sum(1, keepdim=True) / mass.sum(1, keepdim=True)
    twice = KINETIC * (mass * velocity**2).sum((1, 2)).clamp(min=1e-12)
    aim = (3 * velocity.shape[1] - 3) * kt[:, 0]
    return velocity * (aim / twice).sqrt()[:, None, None]
