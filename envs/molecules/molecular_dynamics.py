"""Molecular dynamics of agents that follow their losses: a batch of worlds moved by kernels.

The steps are those of `envs/core/physics/integrators.py`, in place and compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core import renamed
from ..core.physics.integrators import ATOMIC, LINKS, Units
from ..core.physics.kernels import integrators as kernels
from ..core.validation import nearest
from .forces import ThreadedForces

Forces = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # positions -> forces, losses
THERMOSTATS = ("none", "nose-hoover", "langevin", "csvr")
_DRAW = 0


class Thermostat(NamedTuple):
    """kt [worlds]: in units of energy.  tau: time constant, 1 / friction for "langevin"."""

    name: str
    kt: np.ndarray
    tau: float


class NotFinite(FloatingPointError):
    """A position stopped being a finite number: in which step and in which world."""

    def __init__(self, step: int, world: int) -> None:
        super().__init__(f"step {step}, world {world}: a position is not finite")
        self.step, self.world = step, world


class MDState(NamedTuple):
    """State of a batch, changed in place; all that a bit-for-bit continuation needs.

    position, velocity, force [worlds, n, 3]; loss [worlds, n]; chain [worlds, 2, links];
    heat [worlds]; clock [1] steps made.
    """

    position: np.ndarray
    velocity: np.ndarray
    force: np.ndarray
    loss: np.ndarray
    chain: np.ndarray
    heat: np.ndarray
    clock: np.ndarray


def start_md(position: np.ndarray, velocity: np.ndarray, forces: Forces) -> MDState:
    """A batch at its start: positions and velocities [worlds, n, 3] are copied."""
    x, v = np.array(position, float), np.array(velocity, float)
    force, loss = forces(x)
    worlds = len(x)
    return MDState(
        x, v, force, loss, np.zeros((worlds, 2, LINKS)), np.zeros(worlds), np.zeros(1, np.int64)
    )


def maxwell(
    rng: np.random.Generator, worlds: int, mass: np.ndarray, kt: float, units: Units = ATOMIC
) -> np.ndarray:
    """Velocities [worlds, n, 3] of temperature kT without total momentum."""
    spread = np.sqrt(kt / (units.kinetic * mass))
    return at_rest(rng.normal(size=(worlds, len(mass), 3)) * spread[:, None], mass)


def at_rest(velocity: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Velocities [worlds, n, 3] less that of the centre of mass."""
    centre: np.ndarray = (mass[:, None] * velocity).sum(1, keepdims=True) / mass.sum()
    return velocity - centre


def require_thermostat(name: str) -> None:
    """Raise ValueError for an unknown thermostat."""
    if name not in THERMOSTATS:
        hint = nearest(name, THERMOSTATS)
        raise ValueError(f"thermostat={name!r} must be one of {', '.join(THERMOSTATS)}{hint}")


def advance(
    state: MDState,
    forces: Forces,
    mass: np.ndarray,
    dt: float,
    steps: int,
    *,
    thermostat: Thermostat | None = None,
    freedom: int,
    seed: int = 0,
    units: Units = ATOMIC,
) -> None:
    """Make `steps` steps in place. mass [n]; freedom: degrees of freedom of a world.

    Raises NotFinite where forces are asked for positions that are not finite.
    """
    name = thermostat.name if thermostat is not None else "none"
    require_thermostat(name)
    kt = np.zeros(len(state.position)) if thermostat is None else np.asarray(thermostat.kt, float)
    bath = Thermostat(name, kt, 1.0 if thermostat is None else thermostat.tau)
    settings = _Settings(mass, dt, steps, freedom, np.uint64(seed % 2**64), units)
    if isinstance(forces, ThreadedForces):
        # Worlds do not meet: each thread makes all steps of its own.
        forces.each(lambda share, worlds: _advance(state, share, worlds, bath, settings))
    else:
        _advance(state, forces, slice(0, len(kt)), bath, settings)
    state.clock[0] += steps


class _Settings(NamedTuple):
    mass: np.ndarray
    dt: float
    steps: int
    freedom: int
    key: np.uint64
    units: Units


def _advance(
    state: MDState, forces: Forces, worlds: slice, thermostat: Thermostat, settings: _Settings
) -> None:
    """Move some of the worlds; the clock is left alone."""
    x, v, f, loss, chain, heat = (array[worlds] for array in state[:6])
    mass, dt, steps, freedom, key, units = settings
    name, kt, tau = thermostat.name, thermostat.kt[worlds], thermostat.tau
    scale = 0.5 * dt * units.acceleration / mass
    world, bath = np.arange(worlds.start, worlds.stop), kernels.Bath(kt, heat)
    for step in range(steps):
        times = np.full(len(x), state.clock[0] + step)
        if name == "langevin":
            kernels.kick(v, f, scale)
            keep = math.exp(-dt / tau)
            noise = kernels.Noise(key, world, times, _DRAW)
            kernels.drift_noise_drift(x, v, mass, units.kinetic, dt, keep, bath, noise)
        else:
            if name == "nose-hoover":
                kernels.chain_half(v, chain, mass, units.kinetic, dt, kt, tau, freedom)
            kernels.kick_drift(x, v, f, scale, dt)
        try:
            f[:], loss[:] = forces(x)
        except FloatingPointError:
            lost = ~np.isfinite(x).all((1, 2))
            if not lost.any():
                raise
            at = int(worlds.start) + int(lost.argmax())
            raise NotFinite(int(state.clock[0]) + step + 1, at) from None
        kernels.kick(v, f, scale)
        if name == "nose-hoover":
            kernels.chain_half(v, chain, mass, units.kinetic, dt, kt, tau, freedom)
        elif name == "csvr":
            noise = kernels.Noise(key, world, times, _DRAW)
            kernels.rescale(v, mass, units.kinetic, dt / tau, freedom, bath, noise)


def kinetic(state: MDState, mass: np.ndarray, units: Units = ATOMIC) -> np.ndarray:
    """Kinetic energies [worlds]."""
    out = np.empty(len(state.velocity))
    kernels.kinetic(state.velocity, mass, units.kinetic, out)
    return out


def conserved(
    state: MDState,
    mass: np.ndarray,
    thermostat: Thermostat | None,
    freedom: int,
    units: Units = ATOMIC,
) -> np.ndarray:
    """Energy [worlds] with what the thermostat holds, or has put in; constant up to the step."""
    total = kinetic(state, mass, units) + state.loss.sum(1) - state.heat
    if thermostat is None or thermostat.name != "nose-hoover":
        return total
    kt, tau = thermostat.kt, thermostat.tau
    xi, v = state.chain[:, 0], state.chain[:, 1]
    total = total + freedom * kt * (0.5 * tau**2 * v[:, 0] ** 2 + xi[:, 0])
    return total + (kt[:, None] * (0.5 * tau**2 * v[:, 1:] ** 2 + xi[:, 1:])).sum(1)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return renamed.former_name(__name__, name)
