"""Charts: planes with a Fisher metric, as tables that ship, and the lengths of lines in them.

A chart's points are in its window scaled to the unit square. Its metric g = L L^T is kept as
(log L_11, L_21, log L_22) at the nodes of a grid and is linear in these between them, so that it is
positive everywhere. Lengths are sums over the middles of equal parts of a line.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_LEAST = 1e-30  # square of a length, whose root has a gradient


class Charts(NamedTuple):
    """What ships of one kind of charts.

    axes: what the coordinates are.  windows [charts, 2, 2]: their lowest and highest values.
    factor [charts, n, n, 3]: the metric at nodes (i, j) / (n - 1), float32.
    images [charts, m, m, height, width]: what is at the nodes of a coarser grid, uint8.
    ends [charts, pairs, 2, 2]: starts and targets, each in another phase than the other.
    paths [charts, pairs, points, 2]: shortest paths between them, denser where steep.
    lengths [charts, pairs]: of these.  held_out: so many pairs, the last ones, are for tests.
    """

    axes: tuple[str, str]
    windows: np.ndarray
    factor: Tensor
    images: np.ndarray
    ends: Tensor
    paths: Tensor
    lengths: Tensor
    held_out: int


def file_of(name: str) -> str:
    """Where the charts of that name lie."""
    return str(resources.files(__package__) / "data" / f"{name}.npz")


@functools.lru_cache(maxsize=8)
def read(name: str) -> Charts:
    """The charts that ship under a name; do not write into them."""
    with np.load(file_of(name), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    first, second = arrays["axes"].tolist()
    return Charts(
        (first, second),
        arrays["windows"],
        torch.from_numpy(arrays["factor"]),
        arrays["images"],
        torch.from_numpy(arrays["ends"].astype(float)),
        torch.from_numpy(arrays["paths"].astype(float)),
        torch.from_numpy(arrays["lengths"].astype(float)),
        int(arrays["held_out"]),
    )


def factor_of(metrics: np.ndarray) -> np.ndarray:
    """(log L_11, L_21, log L_22) [..., 3] of metrics [..., 2, 2]."""
    lower = np.linalg.cholesky(metrics)
    return np.stack([np.log(lower[..., 0, 0]), lower[..., 1, 0], np.log(lower[..., 1, 1])], -1)


def factor_at(factor: Tensor, chart: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L_11, L_21 and L_22 [worlds, ...] at places [worlds, ..., 2] of the charts [worlds].

    factor [charts, n, n, 3]. Outside the unit square they are those of its nearest edge.
    """
    n = factor.shape[1]
    at = place.clamp(0, 1) * (n - 1)
    low = at.detach().floor().clamp(max=n - 2)
    x, y = (at - low).unbind(-1)
    row, column = low.long().unbind(-1)
    first = chart.view(-1, *[1] * (row.ndim - 1)) * n * n + row * n + column
    nodes = factor.view(-1, 3)
    corner = [nodes[first + step].to(place.dtype) for step in (0, 1, n, n + 1)]
    x, y = x[..., None], y[..., None]
    near, far = torch.lerp(corner[0], corner[1], y), torch.lerp(corner[2], corner[3], y)
    first_log, below, second_log = torch.lerp(near, far, x).unbind(-1)
    return first_log.exp(), below, second_log.exp()


def norm(factor: tuple[Tensor, Tensor, Tensor], step: Tensor) -> Tensor:
    """Lengths [...] of small steps [..., 2] where the metric has that factor."""
    a, b, c = factor
    along, across = a * step[..., 0] + b * step[..., 1], c * step[..., 1]
    return (along * along + across * across + _LEAST).sqrt()


def part_lengths(factor: Tensor, chart: Tensor, start: Tensor, end: Tensor, parts: int) -> Tensor:
    """Lengths [worlds, ..., parts] of equal parts of straight lines [worlds, ..., 2]."""
    middle = (torch.arange(parts, dtype=start.dtype, device=start.device) + 0.5) / parts
    way = (end - start)[..., None, :]
    places = start[..., None, :] + middle[:, None] * way
    return norm(factor_at(factor, chart, places), way / parts)


def line_length(factor: Tensor, chart: Tensor, start: Tensor, end: Tensor, parts: int) -> Tensor:
    """Lengths [worlds, ...] of straight lines from starts to ends [worlds, ..., 2]."""
    return part_lengths(factor, chart, start, end, parts).sum(-1)


def in_chart(state: Any, point: Tensor) -> Tensor:
    """Points [worlds, ..., 2] of the world's own coordinates in the unit square of its chart."""
    shape = (len(point), *[1] * (point.ndim - 2), 2)
    first, second = (state.axes[:, :, i].reshape(shape) for i in range(2))
    return state.origin.view(shape) + first * point[..., :1] + second * point[..., 1:]
