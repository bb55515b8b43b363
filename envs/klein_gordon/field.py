"""The lattice Klein-Gordon field: force, conserved energy and dispersion, in torch.

A field phi with momentum pi on a torus of spacing a obeys d pi / dt = -K phi, d phi / dt = pi, with
K = m^2 - laplacian; a step kicks pi by -dt K phi and then moves phi by dt pi (symplectic Euler).
That step conserves Q = sum (pi^2 + phi K phi - dt pi K phi) / 2, and a plane wave turns by w with
sin(w dt / 2) = dt / 2 sqrt(m^2 + sum_j (2 / a sin(k_j a / 2))^2): stable below 2 / dt.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..core.physics.lattice import Torus

_FITTED = 2  # points that a straight line needs


def laplacian(phi: Tensor, spacing: Tensor, lattice: Torus) -> Tensor:
    """Second differences [worlds, sites] of values of sites, in their own precision."""
    apart = lattice.neighbour_sum(phi) - 2 * lattice.dimension * phi
    return (1 / spacing**2).to(phi.dtype) * apart


def force(phi: Tensor, mass: Tensor, spacing: Tensor, lattice: Torus) -> Tensor:
    """-K phi [worlds, sites]; mass and spacing [worlds, 1]."""
    return laplacian(phi, spacing, lattice) - (mass**2).to(phi.dtype) * phi


def conserved_energy(phi: Tensor, momentum: Tensor, pull: Tensor, dt: Tensor) -> Tensor:
    """Q of every world [worlds, 1] float64; `pull` is the force on `phi`, dt [worlds, 1]."""
    phi, momentum, pull = phi.double(), momentum.double(), pull.double()
    return 0.5 * (momentum**2 + pull * (dt * momentum - phi)).sum(-1, keepdim=True)


def local_loss(phi: Tensor, mass: Tensor, spacing: Tensor, lattice: Torus) -> Tensor:
    """m^2 phi_i^2 / 2 + sum over the site's bonds of (phi_i - phi_j)^2 / 2 a^2 [worlds, sites].

    Each bond counts at both ends, so that minus its gradient in phi_i is the whole force.
    """
    loss = 0.5 * mass**2 * phi**2
    for axis in range(lattice.dimension):
        for steps in (1, -1):
            loss = loss + 0.5 * ((phi - lattice.ahead(phi, axis, steps)) / spacing) ** 2
    return loss


def frequency(wave_number: Tensor, mass: float, spacing: float, dt: float) -> Tensor:
    """The frequency [...] of plane waves of the step; wave_number [..., dimension].

    NaN where the step is unstable.
    """
    squared = mass**2 + ((2 / spacing * torch.sin(wave_number * spacing / 2)) ** 2).sum(-1)
    return 2 / dt * torch.asin(dt / 2 * squared.sqrt())


def drift(course: Tensor) -> Tensor:
    """How far a least-squares line through Q / Q0 moved over the steps made [worlds], >= 0."""
    n, _, total, moment = course.unbind(-1)
    rise = 12 * (moment - 0.5 * (n + 1) * total) / (n**2 - 1)
    return torch.where(n < _FITTED, torch.zeros_like(n), rise.abs())


@cache
def neighbour_table(lattice: Torus) -> Any:
    """Sites beside every site [sites, 2 dimension] int64 array: behind and ahead by axis."""
    sites = torch.arange(lattice.n_sites)[None]
    axes = range(lattice.dimension)
    beside = [lattice.ahead(sites, axis, step)[0] for axis in axes for step in (-1, 1)]
    return torch.stack(beside, -1).contiguous().numpy()
