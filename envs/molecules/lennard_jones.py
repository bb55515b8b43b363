"""The Lennard-Jones force law 4 (r^-12 - r^-6) in reduced units, compiled and differentiable."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.physics.cell import nearest_image, require_cutoff
from ..core.physics.kernels.neighbours import NeighbourList
from ..core.physics.lennard_jones import lennard_jones_energy
from .kernels.lennard_jones import lennard_jones

MINIMUM_FCC = -8.6102001  # epsilon per atom of the fcc crystal, at nearest neighbours 1.0901730


class LennardJonesForces:
    """Forces of a batch of worlds: positions [worlds, n, 3] -> forces and losses [worlds, n].

    An agent's loss is half the energy of its pairs. cell [worlds, 3, 3], zeros for open space;
    with `shifted` the pair energy is zero at the cutoff. `virial` [worlds] is the last sum of r.F.
    """

    def __init__(
        self,
        cell: np.ndarray,
        atoms: int,
        *,
        cutoff: float = 2.5,
        shifted: bool = True,
        skin: float = 0.35,
    ) -> None:
        for box in cell:
            if box.any():
                require_cutoff(cutoff, box)
        self.neighbours = NeighbourList(cell, atoms, cutoff, skin)
        self.shift = 4 * (cutoff**-12 - cutoff**-6) if shifted else 0.0
        self.virial = np.zeros(len(cell))

    def __call__(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        near = self.neighbours
        near.update(position)
        force, loss = np.empty_like(position), np.empty(position.shape[:2])
        lennard_jones(position, near.arrays, near.cutoff, self.shift, force, loss, self.virial)
        return force, loss

    def forget(self) -> None:
        """Build the neighbour lists anew next time, so that a resumed run is the same run."""
        self.neighbours.forget()


def lennard_jones_losses(
    position: Tensor, cell: Tensor, cutoff: float, *, shifted: bool = True
) -> Tensor:
    """Losses [worlds, n] at positions [worlds, n, 3], by all pairs; differentiable."""
    r = nearest_image(position.unsqueeze(1) - position.unsqueeze(2), cell[:, None, None])
    own = torch.eye(position.shape[1], dtype=torch.bool)
    d2 = torch.where(own, torch.full_like(r[..., 0], 1e6), (r * r).sum(-1))
    shift = 4 * (cutoff**-12 - cutoff**-6) if shifted else 0.0
    energy = torch.where(d2 < cutoff**2, lennard_jones_energy(d2) - shift, torch.zeros_like(d2))
    return 0.5 * energy.sum(-1)
