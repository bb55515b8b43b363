"""Atoms of liquid water that infer their forces from frames of ab-initio data.

State      positions x_i of oxygens and hydrogens in a periodic cell, and forces of the data
Dynamics   a frame of the data, which nothing moves
Invariants radial q_a = sum_j b_a(r_ij) by species of the neighbours; dot products A_a.A_b of broad
           vectors A_a = sum_j b_a(r_ij) n_ij, and their like with (n_ij.n_im)^2
Action     F_i = sum_a gain_a w_a A_a, the most general pairwise own force
Loss       |F_i - F_ref|^2 over the mean of |F_ref|^2
Reference  with w that depends on the species alone the least loss is a linear least-squares
           problem, `optimum`; its weights are the policy "least-squares"

Lengths in Angstrom, forces in eV/Angstrom.

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
from ..core.rng import Rng
from ..core.scene import Chart, LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Symmetry
from ..core.validation import FARTHEST, require_codes, require_count, require_fields
from .descriptors import (
    CUTOFF,
    N_FUNCTIONS,
    all_pairs,
    atom_descriptors,
    descriptor_bounds,
    forces,
    kernel_tables,
    symmetry_operations,
)
from .frames import drawn_frames, mean_square, read
from .least_squares import Optimum, by_species, optimum
from .picture import LEGEND, molecules_scene

SCENARIOS = {
    "water-inference-v0": {
        "system": "WaterInference",
        "summary": "atoms of water that infer their own forces from frames of ab-initio data",
        "training": {
            "ppo": {
                "steps": 4_000_000,
                "n_steps": 4,
                "n_epochs": 8,
                "lr": 1e-3,
                "gamma": 0.0,
                "log_std_init": -3.0,
            },
            "descent": {"n_worlds": 8, "rollout": 1, "lr": 2e-2},
        },
        "film": {
            "parameters": {"horizon": 20},
            "policy": "least-squares",
            "size": 272,
            "learning": 45,
        },
        "variants": [
            {"split": "val", "horizon": 3},
        ],
        "score": {
            "random": -48.29,
            "best": -0.08691,
            "policy": "descent",
            "origin": "5 trained runs of docs/scores.md",
        },
    },
}

_ARROW = 0.9  # Angstrom, of an arrow that stands for a force of the usual size


class InferenceState(NamedTuple):
    """A frame of the data, and how far its agents were off."""

    position: Tensor  # [worlds, agents, 3]
    force: Tensor  # [worlds, agents, 3] of the data
    oxygen: Tensor  # [worlds, agents] 1, or 0 for hydrogen
    cell: Tensor  # [worlds, 3, 3] rows are the lattice vectors
    error: Tensor  # [worlds, agents] loss of the last step
    residual: Tensor  # [worlds, agents, 3] force of the last step less that of the data


@dataclass(frozen=True)
class WaterInference(System):
    """Parameters with their units.

    data: "water16", "water64", or an .npz with positions, forces, numbers (8 and 1) and cell.
    split: the frames of the data that are used, "train" or "val"; empty: all.
    horizon: steps of an episode, all on one frame; Gymnasium's checks refuse episodes of one.
    """

    data: str = "water16"
    split: str = ""
    horizon: int = 2

    agent_name: ClassVar[str] = "atom"
    reductions: ClassVar[dict[str, str]] = {
        "unexplained": "mean",
        "oxygen": "mean",
        "hydrogen": "mean",
        "net_force": "mean",
    }

    def __post_init__(self) -> None:
        require_count("horizon", self.horizon)
        read(self.data, self.split)

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
        return descriptor_bounds(self.n_agents)

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2 * N_FUNCTIONS,), np.float32)

    def initial(self, rng: Rng, worlds: int) -> InferenceState:
        position, force, oxygen, cell = drawn_frames(read(self.data, self.split), rng, worlds)
        residual = torch.zeros_like(force)
        return InferenceState(position, force, oxygen, cell, residual[..., 0], residual)

    def require_state(self, state: InferenceState) -> None:
        require_fields(state, ("position",), -FARTHEST, FARTHEST)
        require_codes(state, ("oxygen",), (0, 1))

    def transition(self, state: InferenceState, action: Tensor, rng: Rng | None) -> InferenceState:
        """`action` [worlds, agents, 20]: w of the functions of oxygens, then of hydrogens."""
        force = forces(all_pairs(state.position, state.oxygen, state.cell), action)
        residual = force - state.force
        scale = mean_square(self.data, self.split)
        return state._replace(error=dot(residual, residual) / scale, residual=residual)

    def invariants(self, state: InferenceState) -> dict[str, Tensor]:
        """Of every atom.

        oxygen: 1, or 0 for hydrogen.  radial: log(1 + q_a), ten of oxygens and ten of hydrogens.
        along: asinh of A_a.A_b, a <= b, of two broad vectors to oxygens and two to hydrogens.
        angular: the same with the squared cosine of the two neighbours.
        """
        pairs = all_pairs(state.position, state.oxygen, state.cell)
        return atom_descriptors(state.oxygen, pairs)[0]

    def loss(self, state: InferenceState, action: Tensor, next_state: InferenceState) -> Tensor:
        return next_state.error

    def metrics(
        self, state: InferenceState, action: Tensor, next_state: InferenceState
    ) -> dict[str, Tensor]:
        """unexplained: mean loss of the atoms.  oxygen, hydrogen: the same of one species.

        net_force: mean force on an atom, eV/Angstrom; nothing imposes the third law.
        """
        error, o = next_state.error, next_state.oxygen
        net = (next_state.residual + next_state.force).mean(1)
        return {
            "unexplained": error.mean(-1),
            "oxygen": (error * o).sum(-1) / o.sum(-1),
            "hydrogen": (error * (1 - o)).sum(-1) / (1 - o).sum(-1),
            "net_force": dot(net, net).sqrt(),
        }

    def symmetries(self, state: InferenceState, rng: Rng) -> Iterator[Symmetry]:
        for name, operation in symmetry_operations(state.position, state.cell, rng):
            moved = InferenceState(
                position=operation.vectors(state.position) + operation.shift,
                force=operation.vectors(state.force),
                oxygen=operation.relabel(state.oxygen),
                cell=operation.rotate(state.cell),
                error=operation.relabel(state.error),
                residual=operation.vectors(state.residual),
            )
            yield Symmetry(name, moved, operation.agents)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"least-squares": functools.partial(by_species, self._optimum().weights)}

    def references(self) -> dict[str, float]:
        """The least mean loss of weights that depend on the species alone."""
        best = self._optimum()
        return {"unexplained": best.loss, "oxygen": best.oxygen, "hydrogen": best.hydrogen}

    def _optimum(self) -> Optimum:
        return optimum(self.data, self.split)

    def kernel(self, worlds: int) -> Kernel:
        from .step import INFERENCE_PARAMETERS, InferenceTables, inference_kernel

        square = mean_square(self.data, self.split)
        parameters = parameter_record(INFERENCE_PARAMETERS, cutoff=CUTOFF, mean_square=square)
        return inference_kernel(self.n_agents, InferenceTables(*kernel_tables(self)), parameters)

    def scene(self, state: InferenceState) -> Scene:
        """Balls and bonds; arrows: the force that is not explained; colour: its square, the loss.

        Before the first step that is the whole force of the data.
        """
        scale = mean_square(self.data, self.split)
        residual, error = state.residual[0], state.error[0]
        if not residual.any():
            residual, error = -state.force[0], dot(state.force[0], state.force[0]) / scale
        mean = float(error.mean())
        best = self._optimum().loss
        levels = {"least of fixed weights": best}
        return replace(
            molecules_scene(state.position, state.oxygen, state.cell, 2 * error),
            ball_arrows=(-_ARROW / math.sqrt(scale) * residual).numpy(),
            caption=(f"unexplained part of the force squared: {mean:.3f}",),
            charts=(Chart(0.0, 1.0, {"unexplained": mean}, levels=levels),),
            legend=(*LEGEND, LegendEntry("force that is not explained", "arrow")),
        )
