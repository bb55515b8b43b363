"""Shortest paths along the edges of a grid: none is overlooked, so they start the smooth ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .fields import Window

_NEAR = [[1, 0], [0, 1], [1, 1], [1, -1], [2, 1], [1, 2], [2, -1], [1, -2]]
_FAR = [[3, 1], [1, 3], [3, -1], [1, -3], [3, 2], [2, 3], [3, -2], [2, -3]]
_EDGES = {16: np.array(_NEAR), 32: np.array(_NEAR + _FAR)}  # half of them: each edge once
_NODE, _WEIGHT = np.polynomial.legendre.leggauss(4)


def grid_paths(
    metric: Callable[[np.ndarray], np.ndarray],
    first: np.ndarray,
    last: np.ndarray,
    window: Window,
    nodes: int,
    s: np.ndarray,
    neighbours: int = 16,
) -> np.ndarray:
    """Points [pairs, len(s), 2] at shares s of the length of the shortest paths along a grid.

    first, last [pairs, 2]: the ends; paths run between the nodes nearest to them.
    nodes: along each side of the window.  neighbours: of those around it that each is joined to,
        16 or 32.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    low, high = window
    step = (high - low) / (nodes - 1)
    index = np.arange(nodes**2).reshape(nodes, nodes)
    cells = np.stack(np.unravel_index(index.ravel(), index.shape), -1)
    tails, heads, lengths = [], [], []
    for edge in _EDGES[neighbours]:
        there = cells + edge
        kept = ((there >= 0) & (there < nodes)).all(1)
        tails.append(index.ravel()[kept])
        heads.append(index[tuple(there[kept].T)])
        lengths.append(_edge_lengths(metric, low + cells[kept] * step, edge * step))
    tail, head, length = (np.concatenate(parts) for parts in (tails, heads, lengths))
    graph = coo_matrix((length, (tail, head)), shape=(nodes**2, nodes**2)).tocsr()
    near = [np.rint((end - low) / step).astype(int) for end in (first, last)]
    begin, end = (index[tuple(cell.T)] for cell in near)
    distances, before = dijkstra(graph, directed=False, indices=begin, return_predecessors=True)
    points = np.empty((len(first), len(s), 2))
    for i in range(len(first)):
        route = [end[i]]
        while route[-1] != begin[i]:
            route.append(before[i, route[-1]])
        way = low + cells[route[::-1]] * step
        passed = distances[i, route[::-1]]
        way[0], way[-1] = first[i], last[i]
        share = passed / passed[-1] if len(way) > 1 else passed
        points[i] = np.stack([np.interp(s, share, column) for column in way.T], -1)
    return points


def _edge_lengths(
    metric: Callable[[np.ndarray], np.ndarray], tails: np.ndarray, edge: np.ndarray
) -> Any:
    """Lengths [m] of edges from tails [m, 2]."""
    places = tails[:, None] + (_NODE[:, None] + 1) / 2 * edge
    metrics = metric(places.reshape(-1, 2)).reshape(len(tails), -1, 2, 2)
    squares = np.einsum("i,mqij,j->mq", edge, metrics, edge)
    return np.sqrt(np.maximum(squares, 1e-300)) @ (_WEIGHT / 2)
