"""Damping layers beyond a boundary, which a policy simulates and keeps in its own memory.

On a layer of sites with damping s(x), from 0 at the boundary to `strength` at its end:
sponge   phi_tt + s phi_t = Laplacian phi - m^2 phi
matched  phi_tt + s phi_t + A (phi + s r) = d q / dx,  q_t + s q = (d phi / dx)_t,  r_t = phi, with
         A = m^2 - the second difference along the boundary (Berenger 1994): in the continuum
         waves of any angle enter it without reflection
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ENDS = 2


@dataclass(frozen=True)
class Layer:
    """A layer of so many sites.

    strength: damping at its outer end, per time.  power: of its growth with the depth.
    matched: whether waves enter it without reflection.
    """

    sites: int
    strength: float
    power: float
    squared_mass: float
    dt: float
    width: int
    matched: bool

    def start(self, packets: int, state: Any) -> tuple[Tensor, ...]:
        """At rest: the layer now and before, q on its links, and r, at both boundaries."""
        shape = (len(state.phi), packets, _ENDS, self.sites, self.width)
        zero = torch.zeros(shape, dtype=torch.float64)
        link = torch.zeros(*shape[:3], self.sites + 1, self.width, dtype=torch.float64)
        return zero, zero, link, zero

    def step(
        self, edge: Tensor, edge_before: Tensor, inwards: Tensor, memory: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The boundary's next value, and the memory then.

        edge, edge_before, inwards [worlds, packets, 2, width]: the boundary at the last complete
        step and the one before it, and the site beside it; memory as at the last complete step.
        """
        phi, before, q, r = memory
        dt, inner = self.dt, self._damping(0.0)
        outer = torch.nn.functional.pad(phi, (0, 0, 0, 1))
        closer = torch.cat([edge.unsqueeze(3), phi], 3)
        gradient = outer - closer  # on the links, from the boundary to the end, where phi is 0
        flow = q if self.matched else gradient
        value = (
            2 * edge
            - edge_before
            + dt**2 * (flow[:, :, :, 0] - (edge - inwards) - self._along(edge))
        )
        pull = flow.diff(dim=3) - self._along(phi + (inner * r if self.matched else 0.0))
        half = 0.5 * dt * inner
        after = (2 * phi - (1 - half) * before + dt**2 * pull) / (1 + half)
        if self.matched:
            wide = torch.nn.functional.pad(after, (0, 0, 0, 1))
            later = wide - torch.cat([value.unsqueeze(3), after], 3)
            between = 0.5 * dt * self._damping(-0.5, 1)
            q = ((1 - between) * q + later - gradient) / (1 + between)
            r = r + 0.5 * dt * (after + phi)
        return value, (after, phi, q, r)

    def _along(self, phi: Tensor) -> Tensor:
        """(m^2 - second difference along the boundary) phi."""
        pull = self.squared_mass * phi
        if self.width > 1:
            pull = pull - (phi.roll(1, -1) + phi.roll(-1, -1) - 2 * phi)
        return pull

    def _damping(self, shift: float, more: int = 0) -> Tensor:
        """s [sites + more, 1] of the sites, or of the links before them."""
        depth = (torch.arange(1, self.sites + 1 + more).double() + shift) / (self.sites + 0.5)
        return (self.strength * depth**self.power).unsqueeze(-1)


def sponge(squared_mass: float, dt: float, width: int) -> Layer:
    """20 sites."""
    return Layer(20, 0.6, 2.0, squared_mass, dt, width, False)


def matched(squared_mass: float, dt: float, width: int) -> Layer:
    """10 sites."""
    return Layer(10, 2.5, 3.0, squared_mass, dt, width, True)
