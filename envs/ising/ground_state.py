"""Ground states of small tori, exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.kernels.compiling import compiled
from ..core.types import Range
from ..core.validation import require_number

GROUND_SIZE = 6  # side up to which ground states are found
_SAME = 1e-9  # energy per spin, below any difference between levels
_compile = compiled(error_model="numpy")


def require_annealing(final_temperature: float, temperature: Range, size: int) -> None:
    """Raise ValueError unless a torus of this side can cool from one temperature to another."""
    require_number("final_temperature", final_temperature, 0, strict=True)
    if isinstance(temperature, tuple):
        raise ValueError(f"temperature={temperature!r} must be a number with a final_temperature")
    if final_temperature > temperature:
        raise ValueError(
            f"final_temperature={final_temperature} must be at most temperature={temperature}"
        )
    if size > GROUND_SIZE:
        raise ValueError(
            f"lattice_size={size} must be at most {GROUND_SIZE} "
            "with a final_temperature: ground states are found up to there"
        )


def ground_energy(coupling: Tensor, field: Tensor, size: int) -> Tensor:
    """Lowest energies per spin [worlds, 1], exact, of tori of a side of at most 6."""
    pairs = zip(coupling.cpu().numpy(), field[:, 0].tolist(), strict=True)
    energies = [lowest_energy(bonds, h, size) for bonds, h in pairs]
    return torch.tensor(energies, dtype=torch.float64, device=field.device)[:, None]


def above_ground(energy: Tensor, ground: Tensor) -> dict[str, Tensor]:
    """How far energies per spin [..., worlds] lie above the lowest [worlds, 1]."""
    excess = energy - ground[:, 0]
    return {"residual_energy": excess, "solved": (excess < _SAME).double()}


@_compile
def lowest_energy(coupling: Any, field: float, size: Any) -> float:
    """Lowest energy per spin of one world, adding spin by spin (dynamic programming on the torus).

    coupling [1] or [2 L^2]. The lowest energy is kept for every state of the last L spins and of
    the first row, so the work is 4^L L^2.
    """
    rows, n = 1 << size, size * size
    lowest, fresh = np.empty(rows), np.empty(rows)
    best = np.inf
    for start in range(rows):
        lowest[:] = np.inf
        energy = 0.0
        for c in range(size):
            same = ((start >> c) ^ (start >> ((c + 1) % size))) & 1 == 0
            j = coupling[0] if len(coupling) == 1 else coupling[c]
            energy -= (j if same else -j) + (field if (start >> c) & 1 else -field)
        lowest[start] = energy
        for i in range(size, n):
            c = i % size
            above = coupling[0] if len(coupling) == 1 else coupling[n + i - size]
            left = coupling[0] if len(coupling) == 1 else coupling[i - 1]
            around = coupling[0] if len(coupling) == 1 else coupling[i]
            bit = 1 << c
            for a in range(rows):
                up = (a >> c) & 1
                own = -field if up else field
                if c > 0:
                    own -= left if (a >> (c - 1)) & 1 == up else -left
                if c == size - 1:
                    own -= around if a & 1 == up else -around
                like, unlike = lowest[a] - above, lowest[a ^ bit] + above
                fresh[a] = min(like, unlike) + own
            lowest, fresh = fresh, lowest
        for a in range(rows):
            energy = lowest[a]
            for c in range(size):
                j = coupling[0] if len(coupling) == 1 else coupling[n + (size - 1) * size + c]
                energy -= j if ((a ^ start) >> c) & 1 == 0 else -j
            best = min(best, energy)
    return best / n
