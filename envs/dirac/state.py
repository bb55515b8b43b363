"""The state of steered packets, and what compiled code, control and pictures ask of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.physics.lattice import Torus
from .walk import Spinor, gauge_lines


class SteerState(NamedTuple):
    u: Tensor  # [worlds, sites, 2] real and imaginary part
    d: Tensor  # [worlds, sites, 2]
    link: Tensor  # [worlds, links] gauge field, radians
    target_u: Tensor  # [worlds, sites, 2]
    target_d: Tensor  # [worlds, sites, 2]
    centre: Tensor  # [worlds, dimensions] int64 site of the target
    wave_number: Tensor  # [worlds, dimensions] of the target, radians per site
    time: Tensor  # [worlds, 1] int64 steps made


@dataclass(frozen=True)
class Problem:
    """What control is about: the lattice and numbers of `DiracSteer`, by its names."""

    lattice: Torus
    horizon: int
    angle: float
    width: float
    max_field: float
    effort: float

    @property
    def links(self) -> int:
        return self.lattice.dimension * self.lattice.n_sites

    @property
    def rows_and_columns(self) -> tuple[int, int]:
        """Sides of the lattice; a ring is one row."""
        side = self.lattice.shape[0]
        return (1 if self.lattice.dimension == 1 else side, side)

    @property
    def peak_volume(self) -> float:
        """Sites over which a packet of its peak density would spread."""
        return (math.sqrt(2 * math.pi) * self.width) ** self.lattice.dimension


def as_spinor(state: SteerState) -> Spinor:
    """The field as complex numbers."""
    return Spinor(torch.view_as_complex(state.u), torch.view_as_complex(state.d))


def target_overlap(
    lattice: Torus,
    u: Tensor,
    d: Tensor,
    link: Tensor,
    target_u: Tensor,
    target_d: Tensor,
    centre: Tensor,
) -> Tensor:
    """<target|psi> [worlds], complex, the field taken into the gauge of the target's centre.

    Fields are [worlds, sites, 2], real and imaginary part.
    """
    psi, target = (
        Spinor(torch.view_as_complex(a), torch.view_as_complex(b))
        for a, b in ((u, d), (target_u, target_d))
    )
    chi = gauge_lines(lattice, link, centre)
    product = target.u.conj() * psi.u + target.d.conj() * psi.d
    return (product * torch.polar(torch.ones_like(chi), -chi)).sum(-1)


def translated(lattice: Torus, state: SteerState, steps: Tensor) -> tuple[SteerState, Tensor]:
    """The worlds as seen from so many sites ahead [worlds, dimensions], and the old links.

    The latter [worlds, links] say which old link each new one is.
    """
    isometry = lattice.shift(steps)
    u, d, target_u, target_d = (
        lattice.moved(field, isometry)
        for field in (state.u, state.d, state.target_u, state.target_d)
    )
    axes = torch.arange(lattice.dimension, device=steps.device)[:, None]
    links = (axes * lattice.n_sites + isometry.sites[:, None]).flatten(1)
    moved = state._replace(
        u=u,
        d=d,
        link=state.link.gather(1, links),
        target_u=target_u,
        target_d=target_d,
        centre=(state.centre - steps) % lattice.shape[0],
    )
    return moved, links
