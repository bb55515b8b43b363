"""Space-time diagrams of particles on a line."""

from __future__ import annotations

from torch import Tensor

from ..core.scene import LegendEntry, Scene

_KEPT_ROWS = 48  # of a space-time diagram
_LEGEND = (
    LegendEntry("particle", "cell", 1.0),
    LegendEntry("empty site", "cell", 0.0),
    LegendEntry("time runs down", "none"),
)


def diagram(occupied: Tensor, caption: str) -> Scene:
    n = float(occupied.shape[1])
    cells = occupied[:1].numpy()
    view = (0.0, 0.0, n, n)
    return Scene(view=view, cells=cells, kept_rows=_KEPT_ROWS, caption=(caption,), legend=_LEGEND)
