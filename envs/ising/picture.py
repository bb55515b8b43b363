"""Pictures of spins on a square torus."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.scene import Chart, LegendEntry, Scene

_LEGEND = (LegendEntry("spin up", "cell", 1.0), LegendEntry("spin down", "cell", 0.0))
_BROKEN_BOND = LegendEntry("bond not satisfied", "segment")


def torus(
    spin: Tensor,
    size: int,
    caption: tuple[str, ...],
    charts: tuple[Chart, ...],
    broken_bonds: np.ndarray | None = None,
) -> Scene:
    """The first world's spins, those up bright, with `broken_bonds` if given."""
    return Scene(
        view=(0.0, 0.0, float(size), float(size)),
        cells=(0.5 * (1 + spin[0])).reshape(size, size).numpy(),
        segments=broken_bonds,
        caption=caption,
        charts=charts,
        legend=_LEGEND if broken_bonds is None else (*_LEGEND, _BROKEN_BOND),
    )


def broken_bonds(spin: Tensor, coupling: Tensor, size: int) -> np.ndarray:
    """Strokes [n, 4] across the border between two cells whose bond is not satisfied.

    coupling [worlds, 2 size^2]: of bonds to the right, then down.
    """
    grid = spin[0].view(size, size)
    right, down = coupling[0].view(2, size, size)
    row, column = (right * grid * grid.roll(-1, 1) < 0).nonzero().double().unbind(1)
    beside = torch.stack([column + 0.7, size - row - 0.5, column + 1.3, size - row - 0.5], 1)
    row, column = (down * grid * grid.roll(-1, 0) < 0).nonzero().double().unbind(1)
    below = torch.stack([column + 0.5, size - row - 0.7, column + 0.5, size - row - 1.3], 1)
    return torch.cat([beside, below]).numpy()
