"""What a simulation of molecules is asked for, and what follows from that alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...envs.core.physics.units import ATOMIC_WEIGHTS, BOLTZMANN
from ...envs.molecules.files import Sample
from ...envs.molecules.molecular_dynamics import maxwell

_VELOCITY, _SAMPLE, _PLACE, _BLOCK = 2.0, 10.0, 50.0, 2000.0  # fs


class Plan(NamedTuple):
    """What is asked for. temperature: K.  tau, dt: fs.  frames: fs between trajectory frames."""

    temperature: float
    thermostat: str
    tau: float
    dt: float
    steps: int
    frames: float
    seed: int
    worlds: int
    precision: str


class Intervals(NamedTuple):
    """Steps between what is recorded, each a multiple of the first."""

    velocity: int
    sample: int
    place: int
    frame: int
    block: int

    @classmethod
    def of(cls, plan: Plan) -> Intervals:
        """The intervals of a plan."""
        stride = max(1, int(_VELOCITY / plan.dt + 1e-9))

        def multiple(fs: float) -> int:
            return stride * max(1, round(fs / plan.dt / stride))

        sample, place, frame = multiple(_SAMPLE), multiple(_PLACE), multiple(plan.frames)
        return cls(stride, sample, place, frame, multiple(_BLOCK))

    def is_sampled(self, step: int) -> bool:
        """Whether a sample is due: at its interval, and at the end of a block."""
        return step % self.sample == 0 or step % self.block == 0


def degrees_of_freedom(plan: Plan, atoms: int) -> int:
    """Of a world; the centre of mass rests unless noise moves it."""
    return 3 * atoms - (0 if plan.thermostat == "langevin" else 3)


def require_degrees(plan: Plan, atoms: int) -> None:
    """Raise ValueError if nothing can move."""
    if degrees_of_freedom(plan, atoms) < 1:
        raise ValueError(
            f"{atoms} atom beside its own centre of mass does not move with thermostat "
            f"{plan.thermostat!r}: take langevin, or more atoms"
        )


def draw_velocity(sample: Sample, plan: Plan) -> np.ndarray:
    """Velocities [worlds, n, 3] of the plan's temperature, of a stream for each seed and world."""
    mass = np.array(ATOMIC_WEIGHTS)[np.asarray(sample.numbers)]
    kt = BOLTZMANN * plan.temperature
    streams = [np.random.default_rng([plan.seed, world]) for world in range(plan.worlds)]
    return np.concatenate([maxwell(stream, 1, mass, kt) for stream in streams])
