"""Shortest paths of small Ising tori under the Fisher metric learned from samples, and the exact.

    python -m invariantzoo.figures.ising_paths [--out envs/ising/data]

Writes the table of the learned metric that ships. The lengths are on the page of
`invariantzoo.figures.geometry_ising`, which calls `lengths`.

Fields are stretched: u = asinh(h / BEND), so that the wall at h = 0, which is about 2 T / spins
wide at low T, is as wide as anything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo import MetricTable, geodesic
from invariantzoo.envs.core.files import write_atomically
from invariantzoo.envs.ising.exact import log_z, moments, sample_rows
from invariantzoo.report import figure_parser
from invariantzoo.training.geometry.moments import (
    Degrees,
    fit_moments,
    local_covariance,
    summed_up,
)
from invariantzoo.training.geometry.statistics import patterns
from invariantzoo.training.geometry.swaps import near_pairs, swap_posterior

LOW, HIGH = np.array([1.0, -2.0]), np.array([5.0, 2.0])  # of T and h
BEND = 0.01
TOP = float(np.arcsinh(HIGH[1] / BEND))  # of the stretched field
NODES = (33, 61)  # of the tables along T and u
COARSE = 41  # nodes along h, if not stretched
PAIRS, APART = 24, 0.5
POINTS, PER_POINT, FOR_WEIGHTS, NEAREST = 3000, 128, 8, 120
FLIPPED = [5, 4, 2, 3, 1, 0]  # the six patterns with all spins turned
FLOOR = 1e-9  # added to a learned metric: where no spin of any sample turned it is singular
SHIPPED_SIDE = 6
SHIPPED = np.array([0.7, 0.3])  # highest 1 / T and h / T of the table that ships
GROUPS = {
    "inside the + phase, T < 2, h > .3": lambda p: (p[:, 0] < 2).all() and (p[:, 1] > 0.3).all(),
    "across h = 0, T < 2": lambda p: (p[:, 0] < 2).all() and p[0, 1] > 0 > p[1, 1],
    "disordered, T > 3.2": lambda p: (p[:, 0] > 3.2).all(),
}
Places = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Write the metric of a torus of 6 x 6 at nodes over (1 / T, h / T), learned from samples."""
    out = figure_parser(__doc__, out=Path("envs/ising/data")).parse_args().out
    xs, ys = np.linspace(0, SHIPPED[0], 36), np.linspace(-SHIPPED[1], SHIPPED[1], 51)
    half = ys[len(ys) // 2 :]
    metric = learned(SHIPPED_SIDE, SHIPPED * [0, 1], SHIPPED, lambda place: place)
    nodes = np.stack(np.meshgrid(xs, half, indexing="ij"), -1).reshape(-1, 2)
    values = _mirrored(metric(nodes).reshape(len(xs), len(half), 2, 2))
    table = np.stack([values[..., 0, 0], values[..., 0, 1], values[..., 1, 1]]).swapaxes(1, 2)
    exact = np.array([moments(SHIPPED_SIDE, *node).covariance for node in nodes[::7]])
    off = np.linalg.norm(metric(nodes[::7]) - exact, axis=(1, 2)) / np.linalg.norm(
        exact, axis=(1, 2)
    )
    print(f"relative error of the metric: median {np.median(off):.1%}, largest {off.max():.1%}")
    arrays = {"xs": xs, "ys": ys, "table": table.astype(np.float32)}
    write_atomically(out / "learned.npz", partial(_save, arrays))


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    savez: Any = np.savez_compressed
    savez(path, **arrays)


def learned(side: int, low: np.ndarray, high: np.ndarray, natural: Places, seed: int = 0) -> Places:
    """The Fisher metric in (1 / T, h / T) of a torus, at places [m, 2] of a window, from samples.

    natural: places -> (1 / T, h / T); fields have the sign of the second coordinate, from 0 to
    `high`; those below 0 follow by turning all spins.
    """
    rng = np.random.default_rng(seed)
    places = rng.uniform([low[0], 0], high, (POINTS, 2))
    spins = np.stack(
        [sample_rows(side, x, y, rng.random((PER_POINT, side))) for x, y in natural(places)]
    )
    h = patterns(spins.reshape(POINTS, PER_POINT, side, side).astype(np.int8))
    h = np.concatenate([h, h[..., FLIPPED]])[..., :5]  # the sixth is what is left
    places = np.concatenate([places, places * [1, -1]])
    span = np.array([(high[0] - low[0]) / 2, high[1]])

    def scaled(places: np.ndarray) -> np.ndarray:
        return (places - [(low[0] + high[0]) / 2, 0]) / span

    t = scaled(places)
    pairs = near_pairs(t, np.arange(len(t)))
    weights = swap_posterior(h[:, :FOR_WEIGHTS], natural(places), *pairs)
    seen = h @ weights
    size = seen.std((0, 1))
    net = fit_moments(summed_up(seen / size, t), Degrees(10, 6, 3))

    def metric(points: np.ndarray) -> np.ndarray:
        local = local_covariance(net, seen / size, t, scaled(points), NEAREST)
        return np.asarray(local * np.outer(size, size) + FLOOR * np.eye(2))

    return metric


def stretched(points: np.ndarray) -> np.ndarray:
    """(T, u) [..., 2] of (T, h)."""
    return np.stack([points[..., 0], np.arcsinh(points[..., 1] / BEND)], -1)


def natural_of_stretched(places: np.ndarray) -> np.ndarray:
    """(1 / T, h / T) [m, 2] of (T, u)."""
    t, u = places.T
    return np.column_stack([1 / t, BEND * np.sinh(u) / t])


def _pulled_back(metrics: np.ndarray, t: np.ndarray, h: np.ndarray, slope: Any) -> np.ndarray:
    """Metrics [m, 2, 2] in (T, v) of those in (1 / T, h / T); slope: of h by v."""
    jacobian = np.zeros_like(metrics)
    jacobian[:, 0, 0], jacobian[:, 1, 0], jacobian[:, 1, 1] = -1 / t**2, -h / t**2, slope / t
    return np.asarray(jacobian.swapaxes(1, 2) @ metrics @ jacobian)


def _mirrored(metrics: np.ndarray) -> np.ndarray:
    """Metrics [n, 2 m - 1, 2, 2] over both signs of the second coordinate from those above 0."""
    return np.concatenate([(metrics * [[1, -1], [-1, 1]])[:, :0:-1], metrics], 1)


def _table(metric: Places, highest: float, nodes: int, bend: float) -> MetricTable:
    """A metric in (1 / T, h / T) as one over T and v, h = bend sinh(v), or v itself for bend 0.

    metric: of places (T, v).  highest, nodes: of v, whose nodes lie on both sides of 0.
    """
    ts, v = np.linspace(LOW[0], HIGH[0], NODES[0]), np.linspace(0, highest, nodes // 2 + 1)
    places = np.stack(np.meshgrid(ts, v, indexing="ij"), -1).reshape(-1, 2)
    h = bend * np.sinh(places[:, 1]) if bend else places[:, 1]
    slope = bend * np.cosh(places[:, 1]) if bend else 1.0
    metrics = _pulled_back(metric(places), places[:, 0], h, slope)
    whole = _mirrored(metrics.reshape(len(ts), len(v), 2, 2))
    return MetricTable((ts, np.concatenate([-v[:0:-1], v])), whole)


@cache
def exact_tables(side: int) -> dict[str, MetricTable]:
    """The exact metric in (T, u), and in (T, h) at the nodes of a plain grid."""

    def exact(theta: np.ndarray) -> np.ndarray:
        return np.array([moments(side, *at).covariance for at in theta])

    def plain(places: np.ndarray) -> np.ndarray:
        return exact(np.column_stack([1 / places[:, 0], places[:, 1] / places[:, 0]]))

    return {
        "exact": _table(lambda p: exact(natural_of_stretched(p)), TOP, NODES[1], BEND),
        "plain": _table(plain, HIGH[1], COARSE, 0),
    }


def learned_table(side: int, seed: int) -> MetricTable:
    """The metric in (T, u) that is learned from samples of a seed."""
    metric = learned(side, LOW * [1, 0], np.array([HIGH[0], TOP]), natural_of_stretched, seed)
    return _table(metric, TOP, NODES[1], BEND)


def pairs_of(inside: Callable[[np.ndarray], bool], seed: int) -> np.ndarray:
    """Ends [PAIRS, 2, 2] in (T, h) in a group, at least APART."""
    rng = np.random.default_rng(seed)
    ends: list[np.ndarray] = []
    while len(ends) < PAIRS:
        pair = rng.uniform(LOW, HIGH, (2, 2))
        if np.linalg.norm(pair[1] - pair[0]) > APART and inside(pair):
            ends.append(pair)
    return np.stack(ends)


def straight_lengths(table: MetricTable, ends: np.ndarray, parts: int = 4000) -> np.ndarray:
    """Lengths [pairs] of lines that are straight in (T, h), under a metric in (T, u)."""
    s = (np.arange(parts) + 0.5) / parts
    change = ends[:, 1] - ends[:, 0]
    points = ends[:, :1] + s[:, None] * change[:, None]
    steps = np.stack(
        [
            np.broadcast_to(change[:, :1], points.shape[:2]),
            change[:, 1:] / np.sqrt(points[..., 1] ** 2 + BEND**2),
        ],
        -1,
    )
    metrics = table(stretched(points).reshape(-1, 2)).reshape(*points.shape[:2], 2, 2)
    return np.asarray(np.sqrt(np.einsum("pni,pnij,pnj->pn", steps, metrics, steps)).mean(1))


def least_lengths(side: int, ends: np.ndarray) -> np.ndarray:
    """No path is shorter [pairs]: the great circle between both laws, 2 arccos(sum sqrt(p q))."""
    theta = np.stack([1 / ends[..., 0], ends[..., 1] / ends[..., 0]], -1)
    first, middle, last = (
        np.array([log_z(side, *at) for at in points])
        for points in (theta[:, 0], theta.mean(1), theta[:, 1])
    )
    return np.asarray(2 * np.arccos(np.exp(middle - (first + last) / 2).clip(max=1)))


def lengths(seed: int, side: int = 8) -> dict[str, Any]:
    """Median and least ratio of the shortest over the straight way, of groups of pairs.

    seed: of the samples that the metric is learned from, and of the pairs.
    maps: log10 of the volume sqrt(det g) in (T, u) at the nodes with u >= 0, [T, u].
    """
    start = time.process_time()
    metrics = {**exact_tables(side), "learned": learned_table(side, seed)}
    groups = {}
    for name, inside in GROUPS.items():
        ends = pairs_of(inside, seed)
        result: dict[str, Any] = {}
        for kind, table in metrics.items():
            plain = kind == "plain"
            a, b = (ends if plain else stretched(ends)).swapaxes(0, 1)
            path = geodesic(table, a, b, basis="points", order=32, grid=61, steps=60)
            straight = path.length / path.ratio if plain else straight_lengths(table, ends)
            ratio = np.minimum(path.length / straight, 1)
            result[kind] = [float(np.median(ratio)), float(ratio.min())]
            if kind == "exact":
                least = least_lengths(side, ends)
                result["straight"] = float(np.median(straight))
                result["least"] = [float(np.median(least)), float(np.median(least / straight))]
                result["excess"] = float((path.length / least).min())
        groups[name] = result
    maps = {}
    for kind in ("exact", "learned"):
        volume = 0.5 * np.log10(np.linalg.det(metrics[kind].metrics[:, NODES[1] // 2 :]))
        maps[kind] = np.round(volume, 2).tolist()
    seconds = round(time.process_time() - start, 1)
    return {"groups": groups, "maps": maps, "seconds": seconds}


if __name__ == "__main__":
    main()
