"""Compiled twin of `envs/core/physics/integrators.py`: one call per half step, in place."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ...kernels.compiling import compiled
from ...kernels.philox import uniform_pair

_compile = compiled(error_model="numpy", nogil=True)


class Bath(NamedTuple):
    """kt [worlds] of a stochastic thermostat; heat [worlds]: energy that it has put in."""

    kt: np.ndarray
    heat: np.ndarray


class Noise(NamedTuple):
    """Which random numbers to draw: seed; world, clock [worlds]; draw, as in `philox.py`."""

    seed: np.uint64
    world: np.ndarray
    clock: np.ndarray
    draw: int


@_compile
def kick(velocity: Any, force: Any, scale: Any) -> None:
    """v += scale F; velocity, force [worlds, n, 3]; scale [n]."""
    for w in range(len(velocity)):
        for i in range(velocity.shape[1]):
            for axis in range(3):
                velocity[w, i, axis] += scale[i] * force[w, i, axis]


@_compile
def kick_drift(position: Any, velocity: Any, force: Any, scale: Any, dt: float) -> None:
    """v += scale F, then x += dt v."""
    for w in range(len(velocity)):
        for i in range(velocity.shape[1]):
            for axis in range(3):
                v = velocity[w, i, axis] + scale[i] * force[w, i, axis]
                velocity[w, i, axis] = v
                position[w, i, axis] += dt * v


@_compile
def kinetic(velocity: Any, mass: Any, unit: float, out: Any) -> None:
    """Kinetic energies [worlds]."""
    for w in range(len(velocity)):
        total = 0.0
        for i in range(velocity.shape[1]):
            square = 0.0
            for axis in range(3):
                square += velocity[w, i, axis] * velocity[w, i, axis]
            total += mass[i] * square
        out[w] = 0.5 * unit * total


@_compile
def chain_half(
    velocity: Any, chain: Any, mass: Any, unit: float, dt: float, kt: Any, tau: float, freedom: int
) -> None:
    """Half a step of the Nose-Hoover chain [worlds, 2, links]."""
    links = chain.shape[2]
    energy = np.empty(len(velocity))
    kinetic(velocity, mass, unit, energy)
    h = 0.5 * dt
    for w in range(len(velocity)):
        xi, v = chain[w, 0], chain[w, 1]
        twice = 2.0 * energy[w]
        first, other = freedom * kt[w] * tau * tau, kt[w] * tau * tau
        for sweep in range(2):
            for step in range(links):
                k = step if sweep else links - 1 - step
                if k == 0:
                    g = (twice - freedom * kt[w]) / first
                else:
                    before = first if k == 1 else other
                    g = (before * v[k - 1] * v[k - 1] - kt[w]) / other
                if k == links - 1:
                    v[k] += 0.5 * h * g
                else:
                    damp = math.exp(-0.25 * h * v[k + 1])
                    v[k] = damp * (damp * v[k] + 0.5 * h * g)
            if sweep == 0:
                shrink = math.exp(-h * v[0])
                twice *= shrink * shrink
                for k in range(links):
                    xi[k] += h * v[k]
                for i in range(velocity.shape[1]):
                    for axis in range(3):
                        velocity[w, i, axis] *= shrink


@_compile
def drift_noise_drift(
    position: Any,
    velocity: Any,
    mass: Any,
    unit: float,
    dt: float,
    keep: float,
    bath: Any,
    noise: Any,
) -> None:
    """The middle of a BAOAB step: half drift, exact noise, half drift; adds to the bath's heat."""
    (kt, heat), (seed, world, clock, draw) = bath, noise
    n = velocity.shape[1]
    for w in range(len(velocity)):
        x, v = position[w].reshape(-1), velocity[w].reshape(-1)
        gained = 0.0
        for block in range((3 * n + 1) // 2):
            a, b = uniform_pair(seed, world[w], clock[w], draw, block)
            radius = math.sqrt(-2.0 * math.log(1.0 - a))
            for parity in range(2):
                m = 2 * block + parity
                if m < 3 * n:
                    turn = 2.0 * math.pi * b
                    noise = radius * (math.cos(turn) if parity == 0 else math.sin(turn))
                    spread = math.sqrt((1.0 - keep * keep) * kt[w] / (unit * mass[m // 3]))
                    old = v[m]
                    new = keep * old + spread * noise
                    gained += mass[m // 3] * (new * new - old * old)
                    x[m] += 0.5 * dt * old
                    x[m] += 0.5 * dt * new
                    v[m] = new
        heat[w] += 0.5 * unit * gained


@_compile
def rescale(
    velocity: Any, mass: Any, unit: float, ratio: float, freedom: int, bath: Any, noise: Any
) -> None:
    """Stochastic velocity rescaling; adds to the bath's heat."""
    (kt, heat), (seed, world, clock, draw) = bath, noise
    energy = np.empty(len(velocity))
    kinetic(velocity, mass, unit, energy)
    c = math.exp(-ratio)
    for w in range(len(velocity)):
        first, square = 0.0, 0.0
        for block in range((freedom + 1) // 2):
            a, b = uniform_pair(seed, world[w], clock[w], draw, block)
            radius = math.sqrt(-2.0 * math.log(1.0 - a))
            turn = 2.0 * math.pi * b
            even, odd = radius * math.cos(turn), radius * math.sin(turn)
            if block == 0:
                first = even
            square += even * even
            if 2 * block + 1 < freedom:
                square += odd * odd
        gain = 0.5 * kt[w] / energy[w] * (1.0 - c)
        factor = c + gain * square + 2.0 * first * math.sqrt(c * gain)
        shrink = math.sqrt(factor)
        for i in range(velocity.shape[1]):
            for axis in range(3):
                velocity[w, i, axis] *= shrink
        heat[w] += (factor - 1.0) * energy[w]
