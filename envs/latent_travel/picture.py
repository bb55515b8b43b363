"""Pictures of a plane with a metric, of the way of an agent, and of what is where it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.scene import Chart, LegendEntry, Scene
from .chart import Charts, in_chart

_ROWS = 128  # cells along the plane
_GAP = 4
_PICTURE = 62  # cells along a picture
_LEGEND = (
    LegendEntry("steep", "cell", 1.0),
    LegendEntry("flat", "cell", 0.0),
    LegendEntry("shortest path", "segment"),
    LegendEntry("agent", "disc", 0.9),
    LegendEntry("target", "ring"),
)


def plane(charts: Charts, state: Any, horizon: int) -> Scene:
    """The first world: the metric's volume, the shortest path and the agent; at the right what is
    at the agent, and below at the target."""
    k = int(state.chart[0, 0])
    first = type(state)(*(value[:1] for value in state))
    places = [in_chart(first, end)[0].double().numpy() for end in (first.point, first.target)]
    path = in_chart(first, first.path)[0].double().numpy()
    cells = np.full((_ROWS, _ROWS + _GAP + _PICTURE), 0.0)
    cells[:, :_ROWS] = _map(charts.factor[k].numpy())
    for top, place in ((0, places[0]), (_ROWS - _PICTURE, places[1])):
        cells[top : top + _PICTURE, _ROWS + _GAP :] = _image(charts.images[k], place)
    width = cells.shape[1] / _ROWS
    travelled = float(state.travelled[0, 0] / state.shortest[0, 0])
    window = charts.windows[k]
    where = window[0] + (window[1] - window[0]) * places[0]
    names = ", ".join(f"{name} {x:.2f}" for name, x in zip(charts.axes, where, strict=True))
    return Scene(
        view=(0.0, 0.0, width, 1.0),
        discs=places[0][None],
        disc_radius=np.array([0.018]),
        disc_value=np.array([0.9]),
        rings=places[1][None],
        ring_radius=np.array([0.03]),
        ring_value=np.array([0.4]),
        segments=np.concatenate([path[:-1], path[1:]], 1),
        cells=cells,
        caption=(names, f"way {travelled:.2f} of the shortest"),
        charts=(Chart(0.0, 2.0, {"way / shortest": travelled}, levels={"1": 1.0}, length=horizon),),
        legend=_LEGEND,
    )


def _map(factor: np.ndarray) -> np.ndarray:
    """Logarithm of the trace of a metric [n, n, 3], in [0, 1], first coordinate to the right."""
    a, b, c = np.exp(factor[..., 0]), factor[..., 1], np.exp(factor[..., 2])
    level = np.log(a * a + b * b + c * c)
    low, high = np.quantile(level, [0.02, 0.995])
    level = ((level - low) / max(high - low, 1e-9)).clip(0, 1)
    index = np.rint(np.linspace(0, len(level) - 1, _ROWS)).astype(int)
    return np.asarray(level[np.ix_(index, index)].T[::-1])


def _image(images: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The picture [cells, cells] at a place, between those of the nodes [m, m, h, w] around it."""
    at = place * (len(images) - 1)
    i, j = np.minimum(at.astype(int), len(images) - 2)
    x, y = at - (i, j)
    near = (1 - y) * images[i, j] + y * images[i, j + 1]
    far = (1 - y) * images[i + 1, j] + y * images[i + 1, j + 1]
    picture = ((1 - x) * near + x * far) / 255
    rows, columns = (np.arange(_PICTURE) * size // _PICTURE for size in picture.shape)
    return np.asarray(picture[np.ix_(rows, columns)])
