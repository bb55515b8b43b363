"""Pictures of waves."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..core.scene import LegendEntry, Scene

_ROWS = 96  # of a space-time diagram
_LEGEND = (
    LegendEntry("field up", "cell", 1.0),
    LegendEntry("at rest", "cell", 0.5),
    LegendEntry("field down", "cell", 0.0),
)
_OPEN = (*_LEGEND[::2], LegendEntry("second: without boundary", "none"))
_TIME = LegendEntry("time runs down", "none")


def waves(phi: Tensor, size: int, dimensions: int, most: float, caption: tuple[str, ...]) -> Scene:
    """A field [sites] whose values up to `most` are told apart; of a block its middle slice."""
    value = colours(phi.numpy(), most)
    view = (0.0, 0.0, float(size), float(size))
    if dimensions == 1:
        legend, cells = (*_LEGEND, _TIME), value[None]
        return Scene(view=view, cells=cells, kept_rows=_ROWS, caption=caption, legend=legend)
    grid = value.reshape((size,) * dimensions)
    cells = grid if dimensions == 2 else grid[size // 2]
    return Scene(view=view, cells=cells, caption=caption, legend=_LEGEND)


def colours(phi: np.ndarray, most: float) -> np.ndarray:
    """Values in [0, 1], 0.5 at rest; roots, so that weak waves are seen beside strong ones."""
    share = np.clip(phi / most, -1.0, 1.0)
    return 0.5 + 0.5 * np.sign(share) * np.sqrt(np.abs(share))


def beside_open(
    inside: np.ndarray, around: np.ndarray, beyond: int, caption: tuple[str, ...]
) -> Scene:
    """A field [length, sites] and, below, the open lattice, so many sites longer at both ends.

    In one dimension both are rows of diagrams against time, side by side.
    """
    wide = np.full_like(around, np.nan)
    wide[beyond : beyond + len(inside)] = inside
    both = []
    for value in (wide, around):
        shade = colours(np.nan_to_num(value), 1.0)
        shade[np.isnan(value)] = 0.0
        shade[[beyond - 1, beyond + len(inside)]] = 1.0 if beyond else shade[[0, -1]]
        both.append(shade)
    if inside.shape[1] == 1:
        cells = np.concatenate([shade[:, 0] for shade in both])[None]
        view = (0.0, 0.0, float(cells.shape[1]), float(cells.shape[1]))
        return Scene(view=view, cells=cells, kept_rows=_ROWS, caption=caption, legend=_OPEN)
    cells = np.concatenate([shade.T for shade in both])
    view = (0.0, 0.0, float(cells.shape[1]), float(cells.shape[0]))
    return Scene(view=view, cells=cells, caption=caption, legend=_OPEN)
