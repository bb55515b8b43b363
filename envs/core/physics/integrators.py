"""Integrators of Newton's equations and thermostats, batched: the readable twin of the kernels.

Positions, velocities and forces are [worlds, atoms, 3]; masses [atoms, 1]; temperatures kT and
other numbers per world are [worlds]. `Units` says how forces, masses and energies fit together.
References: Swope et al., J. Chem. Phys. 76, 637 (1982); Martyna et al., J. Chem. Phys. 97, 2635
(1992); Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34; Bussi et al., J. Chem. Phys.
126, 014101 (2007).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..rng import Rng
from .units import ACCELERATION, KINETIC

LINKS = 3  # of the Nose-Hoover chain


class Units(NamedTuple):
    """acceleration: of a unit force on a unit mass.  kinetic: energy of a unit mass and speed."""

    acceleration: float
    kinetic: float


REDUCED = Units(1.0, 1.0)
ATOMIC = Units(ACCELERATION, KINETIC)  # eV, Angstrom, fs, amu

Forces = Callable[[Tensor], Tensor]


class Motion(NamedTuple):
    """A batch of worlds in motion; `force` is that of `position`."""

    position: Tensor  # [worlds, atoms, 3]
    velocity: Tensor  # [worlds, atoms, 3]
    force: Tensor  # [worlds, atoms, 3]
    chain: Tensor  # [worlds, 2, links] xi and its velocity, of the Nose-Hoover chain
    heat: Tensor  # [worlds] energy that a stochastic thermostat has put in


def start(position: Tensor, velocity: Tensor, force: Tensor) -> Motion:
    """Motion with thermostats at rest."""
    worlds = len(position)
    return Motion(
        position,
        velocity,
        force,
        position.new_zeros(worlds, 2, LINKS),
        position.new_zeros(worlds),
    )


def kinetic(velocity: Tensor, mass: Tensor, units: Units = ATOMIC) -> Tensor:
    """Kinetic energy [worlds]."""
    return 0.5 * units.kinetic * (mass * velocity * velocity).sum((1, 2))


def verlet(
    motion: Motion, forces: Forces, mass: Tensor, dt: float, units: Units = ATOMIC
) -> Motion:
    """Velocity Verlet: half kick, drift, half kick. Order 2, symplectic, reversible."""
    half = 0.5 * dt * units.acceleration / mass
    velocity = motion.velocity + half * motion.force
    position = motion.position + dt * velocity
    force = forces(position)
    return motion._replace(position=position, velocity=velocity + half * force, force=force)


def chain_half(
    motion: Motion,
    mass: Tensor,
    dt: float,
    kt: Tensor,
    tau: float,
    freedom: int,
    units: Units = ATOMIC,
) -> Motion:
    """Half a step of a Nose-Hoover chain of three links: before and after a Verlet step.

    Q_1 = freedom kT tau^2, Q_k = kT tau^2. kT [worlds] in units of energy, tau in units of time.
    """
    h = 0.5 * dt
    q = [freedom * kt * tau * tau] + [kt * tau * tau] * (LINKS - 1)
    xi, v = list(motion.chain[:, 0].unbind(-1)), list(motion.chain[:, 1].unbind(-1))
    twice = 2 * kinetic(motion.velocity, mass, units)

    def pull(k: int) -> None:
        g = (twice - freedom * kt) / q[0] if k == 0 else (q[k - 1] * v[k - 1] ** 2 - kt) / q[k]
        if k == LINKS - 1:
            v[k] = v[k] + 0.5 * h * g
        else:
            damp = torch.exp(-0.25 * h * v[k + 1])
            v[k] = damp * (damp * v[k] + 0.5 * h * g)

    for k in reversed(range(LINKS)):
        pull(k)
    shrink = torch.exp(-h * v[0])
    twice = twice * shrink * shrink
    xi = [x + h * y for x, y in zip(xi, v, strict=True)]
    for k in range(LINKS):
        pull(k)
    chain = torch.stack([torch.stack(xi, -1), torch.stack(v, -1)], 1)
    return motion._replace(velocity=motion.velocity * shrink[:, None, None], chain=chain)


def chain_energy(chain: Tensor, kt: Tensor, tau: float, freedom: int) -> Tensor:
    """What the chain [worlds, 2, links] adds to the conserved quantity [worlds]."""
    xi, v = chain.unbind(1)
    first = 0.5 * freedom * kt * tau**2 * v[:, 0] ** 2 + freedom * kt * xi[:, 0]
    rest = 0.5 * (kt * tau**2)[:, None] * v[:, 1:] ** 2 + kt[:, None] * xi[:, 1:]
    return first + rest.sum(-1)


def baoab(
    motion: Motion,
    forces: Forces,
    mass: Tensor,
    dt: float,
    kt: Tensor,
    friction: float,
    rng: Rng,
    units: Units = ATOMIC,
) -> Motion:
    """Langevin dynamics: kick, drift, exact noise, drift, kick."""
    half = 0.5 * dt * units.acceleration / mass
    velocity = motion.velocity + half * motion.force
    position = motion.position + 0.5 * dt * velocity
    before = kinetic(velocity, mass, units)
    keep = torch.exp(torch.tensor(-friction * dt, dtype=velocity.dtype))
    spread = ((1 - keep * keep) * kt[:, None, None] / (units.kinetic * mass)).sqrt()
    velocity = keep * velocity + spread * rng.normal(*velocity.shape)
    heat = motion.heat + kinetic(velocity, mass, units) - before
    position = position + 0.5 * dt * velocity
    force = forces(position)
    velocity = velocity + half * force
    return motion._replace(position=position, velocity=velocity, force=force, heat=heat)


def rescale(
    motion: Motion,
    mass: Tensor,
    dt: float,
    kt: Tensor,
    tau: float,
    freedom: int,
    rng: Rng,
    units: Units = ATOMIC,
) -> Motion:
    """Stochastic velocity rescaling (CSVR), after a Verlet step."""
    energy = kinetic(motion.velocity, mass, units)
    noise = rng.normal(len(energy), freedom)
    factor = rescale_factor(energy, noise, kt, freedom, dt / tau)
    velocity = motion.velocity * factor.sqrt()[:, None, None]
    return motion._replace(velocity=velocity, heat=motion.heat + (factor - 1) * energy)


def rescale_factor(energy: Tensor, noise: Tensor, kt: Tensor, freedom: int, ratio: float) -> Tensor:
    """alpha^2 [worlds] from kinetic energies, normal numbers [worlds, freedom] and dt / tau."""
    c = torch.exp(torch.tensor(-ratio, dtype=energy.dtype))
    share = 0.5 * kt / energy * (1 - c)
    first = noise[:, 0]
    return c + share * (noise * noise).sum(-1) + 2 * first * (c * share).sqrt()
