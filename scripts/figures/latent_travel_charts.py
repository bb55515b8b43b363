"""Charts of latent-travel-v0: tables of metrics, pictures, and pairs with their shortest paths.

Run as `python -m invariantzoo.figures.latent_travel_charts NAME ...`; it writes the files that ship
in `envs/latent_travel/data` and says how good they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import torch

from invariantzoo.envs.core.files import write_atomically
from invariantzoo.envs.ising.exact import moments, sample_rows
from invariantzoo.envs.latent_travel import chart
from invariantzoo.envs.tasep.exact import log_z, profile
from invariantzoo.report import figure_parser
from invariantzoo.training.geometry.diffusion import load_diffusion
from invariantzoo.training.geometry.grid_paths import grid_paths
from invariantzoo.training.geometry.latent_slice import LatentSlice

NODES = 97  # of a chart along each axis
PICTURES = 33  # the same, of its pictures
PAIRS, HELD_OUT = 256, 128  # of a chart, to train on and to test on
SLICES = 2  # of digits
STEEPEST = 5e4  # eigenvalue of a metric that the nodes resolve; a steeper slice is left out
FLOOR = 1e-5  # of the mean trace of a metric, added to it: features hardly change inside a digit
SEGMENTS = 40  # of a shortest path
SIDEWAYS = 0.012 * 0.75 ** np.arange(14)  # by which its points are moved, in turn
FINE = 0.0015  # and below which they are not spread along it anew
PARTS = 8  # in which edges and segments are measured during the search
SHORTEST_LINE = 0.35  # of a pair, in sides of the window


class Plane(NamedTuple):
    """A window [2, 2] (lowest, highest), its metrics [n, n, 2, 2] in coordinates of the unit
    square, pictures [m, m, height, width] in [0, 1] and phases: points [k, 2] -> labels [k]."""

    window: np.ndarray
    metrics: np.ndarray
    pictures: np.ndarray
    phases: Callable[[np.ndarray], np.ndarray]


def ising() -> list[Plane]:
    """The 6 x 6 torus in T and h, exact; pictures are samples with the same random numbers.

    Its wall at h = 0, about 2 T / spins wide, is six nodes wide at the lowest T. A larger torus or
    a lower T would have one that this grid does not resolve.
    """
    window = np.array([[1.8, -0.8], [4.0, 0.8]])
    uniform = np.random.default_rng(0).random((1, 6))

    def metric(t: float, h: float) -> np.ndarray:
        jacobian = np.array([[-1 / t**2, 0], [-h / t**2, 1 / t]])  # of (1 / T, h / T) in (T, h)
        return jacobian.T @ moments(6, 1 / t, h / t).covariance @ jacobian

    def picture(t: float, h: float) -> np.ndarray:
        return 0.5 + 0.5 * sample_rows(6, 1 / t, h / t, uniform).reshape(6, 6)

    metrics = _over(window, NODES, metric, mirror=True)
    return [Plane(window, metrics, _over(window, PICTURES, picture), lambda p: p[:, 1] > 0)]


def tasep() -> list[Plane]:
    """The open chain of 12 sites in alpha and beta, exact; pictures are the mean occupations."""
    window, step = np.array([[0.05, 0.05], [0.95, 0.95]]), 1e-4

    def metric(alpha: float, beta: float) -> np.ndarray:
        change = [
            np.sqrt(stationary_law(12, alpha + a * step, beta + b * step))
            - np.sqrt(stationary_law(12, alpha - a * step, beta - b * step))
            for a, b in ((1, 0), (0, 1))
        ]
        slopes = np.stack(change) / (2 * step)
        return 4 * slopes @ slopes.T

    def picture(alpha: float, beta: float) -> np.ndarray:
        return np.repeat(profile(12, alpha, beta)[None], 12, 0)

    def phases(points: np.ndarray) -> np.ndarray:
        low = np.where(points[:, 0] < points[:, 1], 1, 2)
        return np.where(points.min(1) >= 0.5, 0, low)

    return [Plane(window, _over(window, NODES, metric), _over(window, PICTURES, picture), phases)]


def digits() -> list[Plane]:
    """Slices of the latent space of the digits that ship, with the pull-back of features.

    The seeds are the first whose three corners are three digits, each with a probability of 0.9.
    The metric is taken from differences of features at nodes twice as fine.
    """
    model = load_diffusion("digits", dtype="float32")
    planes: list[Plane] = []
    for seed in itertools.count():
        corners = np.random.default_rng(seed).normal(size=(3, 64))
        plane = LatentSlice(model, *corners)
        chances = model.probabilities(plane.image(np.array([[0.0, 0], [1, 0], [0, 1]])))
        if len(planes) == SLICES:
            return planes
        if chances.max(1).min() < 0.9 or len(set(chances.argmax(1).tolist())) < 3:
            continue
        fine = np.linspace(0, 1, 2 * NODES - 1)
        grid = np.stack(np.meshgrid(fine, fine, indexing="ij"), -1)
        images = plane.image(grid.reshape(-1, 2))
        features = model.features(images).reshape(*grid.shape[:2], -1).astype(float)
        slopes = np.stack([_slopes(features, axis) for axis in (0, 1)], -1)[::2, ::2]
        metrics = np.einsum("xyfi,xyfj->xyij", slopes, slopes)
        metrics = metrics + FLOOR * np.trace(metrics, axis1=2, axis2=3).mean() * np.eye(2)
        if np.linalg.eigvalsh(metrics).max() > STEEPEST:
            continue
        step = 2 * (NODES - 1) // (PICTURES - 1)
        pictures = (0.5 + 0.5 * images).clip(0, 1).reshape(*grid.shape[:2], 8, 8)[::step, ::step]
        labels = model.classify(images).reshape(grid.shape[:2])
        planes.append(
            Plane(np.array([[0.0, 0.0], [1.0, 1.0]]), metrics, pictures, partial(_nearest, labels))
        )
    return planes


def _slopes(values: np.ndarray, axis: int) -> np.ndarray:
    """Derivatives along an axis from 0 to 1, by differences of fourth order, at its ends second."""
    values = np.moveaxis(values, axis, 0)
    slopes = np.gradient(values, axis=0, edge_order=2)
    far, near = values[4:] - values[:-4], values[3:-1] - values[1:-3]
    slopes[2:-2] = (8 * near - far) / 12
    return np.moveaxis(slopes, 0, axis) * (len(values) - 1)


def _nearest(labels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Labels of the nodes of a grid [n, n] over the unit square that are nearest to points."""
    row, column = np.rint(points * (len(labels) - 1)).astype(int).T
    return np.asarray(labels[row, column])


def stationary_law(n: int, alpha: float, beta: float) -> np.ndarray:
    """Chances [2^n] of the states of the open chain, exact; the first site is the highest bit."""
    size = n + 2
    corner = (alpha + beta - 1) / (alpha * beta)
    d, e = np.eye(size), np.eye(size)
    d[0, 0], e[0, 0] = 1 / beta, 1 / alpha
    d += np.diag([corner, *[1.0] * (size - 2)], 1)
    e += np.diag(np.ones(size - 1), -1)
    left = np.eye(1, size)
    for _ in range(n):
        left = np.stack([left @ e, left @ d], 1).reshape(-1, size)
    return left[:, 0] / np.exp(log_z(n, alpha, beta))


def _over(
    window: np.ndarray, n: int, function: Callable[..., np.ndarray], mirror: bool = False
) -> np.ndarray:
    """A function of both coordinates at n x n nodes of a window, metrics scaled to its sides.

    mirror: whether it is even in the second coordinate, but for the metric's off-diagonal.
    """
    xs, ys = (np.linspace(window[0, i], window[1, i], n) for i in range(2))
    half = n // 2 + 1 if mirror else n
    values = np.stack([np.stack([function(x, y) for y in ys[-half:]]) for x in xs])
    if mirror:
        sign = np.array([[1, -1], [-1, 1]])
        values = np.concatenate([(values * sign)[:, :0:-1], values], 1)
    if values.shape[2:] == (2, 2):
        width = window[1] - window[0]
        values = values * np.outer(width, width)
    return values


MAKERS = {  # name -> planes, axes, first seed of pairs
    "digits": (digits, ("a", "b"), 2),
    "ising": (ising, ("T", "h"), 0),
    "tasep": (tasep, ("alpha", "beta"), 0),
}


def pairs_of(plane: Plane, seed: int, n: int) -> np.ndarray:
    """Starts and targets [n, 2, 2] in the unit square, in two phases, not too close."""
    rng = np.random.default_rng(seed)
    width = plane.window[1] - plane.window[0]
    ends = np.empty((0, 2, 2))
    while len(ends) < n:
        trial = rng.uniform(0.02, 0.98, (1024, 2, 2))
        label = plane.phases((plane.window[0] + width * trial).reshape(-1, 2)).reshape(-1, 2)
        far = np.linalg.norm(trial[:, 1] - trial[:, 0], axis=1) > SHORTEST_LINE
        ends = np.concatenate([ends, trial[far & (label[:, 0] != label[:, 1])]])
    return ends[:n]


def charts_of(planes: list[Plane], axes: tuple[str, str], first_seed: int) -> dict[str, np.ndarray]:
    """The arrays that ship of planes, with the shortest paths of the same splines of the metric."""
    rows = []
    for number, plane in enumerate(planes):
        seeds = ((first_seed + 2 * number, PAIRS), (first_seed + 2 * number + 1, HELD_OUT))
        ends = np.concatenate([pairs_of(plane, seed, size) for seed, size in seeds])
        factor = chart.factor_of(plane.metrics).astype(np.float32)
        rows.append((factor, ends, *shortest_paths(factor, ends)))
    factor, ends, paths, lengths = (np.stack(arrays) for arrays in zip(*rows, strict=True))
    return {
        "axes": np.array(axes),
        "windows": np.stack([plane.window for plane in planes]),
        "factor": factor,
        "images": np.rint(255 * np.stack([plane.pictures for plane in planes])).astype(np.uint8),
        "ends": ends,
        "paths": paths.astype(np.float32),
        "lengths": lengths,
        "held_out": np.array(HELD_OUT),
    }


def shortest_paths(factor: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paths [pairs, points, 2] between ends [pairs, 2, 2] in the unit square; lengths [pairs].

    Each is the shortest of two, that of the graph of the nodes and the straight line, after both
    have been relaxed; it is then relaxed once more.
    """
    straight = np.linspace(ends[:, 0], ends[:, 1], SEGMENTS + 1, axis=1)
    starts = np.stack([relaxed(factor, start) for start in (graph_paths(factor, ends), straight)])
    lengths = np.stack([polyline_lengths(factor, paths) for paths in starts])
    paths = relaxed(factor, starts[lengths.argmin(0), np.arange(len(ends))])
    return paths, polyline_lengths(factor, paths)


def graph_paths(factor: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Paths [pairs, points, 2] along the edges of the grid of nodes, each to 32 neighbours."""
    table, only = torch.from_numpy(factor)[None], torch.zeros(1, dtype=torch.int64)

    def metric(places: np.ndarray) -> np.ndarray:
        a, b, c = (
            x[0].numpy() for x in chart.factor_at(table, only, torch.from_numpy(places)[None])
        )
        return np.stack([a * a, a * b, a * b, b * b + c * c], -1).reshape(-1, 2, 2)

    window, share = (np.zeros(2), np.ones(2)), np.linspace(0, 1, 4 * SEGMENTS + 1)
    paths = grid_paths(metric, ends[:, 0], ends[:, 1], window, len(factor), share, neighbours=32)
    return np.stack([spread(factor, path) for path in paths])


def spread(factor: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Points [SEGMENTS + 1, 2] along a polyline, at equal steps of length under the metric and
    length in the square, each over its sum: steep places get many, and flat ones some."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    lines = itertools.pairwise(path)
    lengths = np.array([_line_length(factor, start, end, PARTS) for start, end in lines])
    way = np.concatenate([[0], np.cumsum(lengths / lengths.sum() + steps / steps.sum())])
    at = np.linspace(0, way[-1], SEGMENTS + 1)
    return np.stack([np.interp(at, way, path[:, axis]) for axis in range(2)], -1)


def relaxed(factor: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """Paths [pairs, points, 2] after moves by less and less, spread anew while these are large."""
    for width in SIDEWAYS:
        paths = moved(factor, paths, width)
        if width > FINE:
            paths = np.stack([spread(factor, path) for path in paths])
    return paths


def moved(factor: np.ndarray, paths: np.ndarray, width: float) -> np.ndarray:
    """The shortest paths [pairs, points, 2] of all that have each inner point of the given ones
    moved across by -2, -1, 0, 1 or 2 widths."""
    way = paths[:, 2:] - paths[:, :-2]
    across = np.zeros_like(paths)
    across[:, 1:-1] = np.stack([-way[..., 1], way[..., 0]], -1)
    across /= np.linalg.norm(across, axis=-1, keepdims=True).clip(min=1e-12)
    shift = width * np.arange(-2.0, 3.0)
    trials = (paths[:, :, None] + shift[:, None] * across[:, :, None]).clip(0, 1)
    chosen = _shortest_choice(factor, trials, PARTS)
    return np.take_along_axis(trials, chosen[:, :, None, None], 2)[:, :, 0]


@numba.njit  # type: ignore[untyped-decorator]
def _shortest_choice(factor: np.ndarray, trials: np.ndarray, parts: int) -> np.ndarray:
    """Which of trials [pairs, points, choices, 2] to take for the shortest ways [pairs, points], by
    dynamic programming from point to point."""
    pairs, points, choices, _ = trials.shape
    chosen = np.zeros((pairs, points), np.int64)
    before = np.zeros((points, choices), np.int64)
    for pair in range(pairs):
        so_far = np.zeros(choices)
        for point in range(1, points):
            best = np.full(choices, np.inf)
            for i in range(choices):
                for j in range(choices):
                    start, end = trials[pair, point - 1, i], trials[pair, point, j]
                    total = so_far[i] + _line_length(factor, start, end, parts)
                    if total < best[j]:
                        best[j], before[point, j] = total, i
            so_far = best
        chosen[pair, -1] = np.argmin(so_far)
        for point in range(points - 1, 0, -1):
            chosen[pair, point - 1] = before[point, chosen[pair, point]]
    return chosen


@numba.njit  # type: ignore[untyped-decorator]
def _line_length(factor: np.ndarray, start: np.ndarray, end: np.ndarray, parts: int) -> float:
    """The same as `chart.line_length`, of one line in the unit square."""
    n = len(factor)
    dx, dy = (end[0] - start[0]) / parts, (end[1] - start[1]) / parts
    total = 0.0
    for part in range(parts):
        x = (start[0] + (part + 0.5) * dx) * (n - 1)
        y = (start[1] + (part + 0.5) * dy) * (n - 1)
        i, j = min(int(x), n - 2), min(int(y), n - 2)
        x, y = x - i, y - j
        w00, w01, w10, w11 = (1 - x) * (1 - y), (1 - x) * y, x * (1 - y), x * y
        near, far = factor[i], factor[i + 1]
        first = w00 * near[j, 0] + w01 * near[j + 1, 0] + w10 * far[j, 0] + w11 * far[j + 1, 0]
        below = w00 * near[j, 1] + w01 * near[j + 1, 1] + w10 * far[j, 1] + w11 * far[j + 1, 1]
        second = w00 * near[j, 2] + w01 * near[j + 1, 2] + w10 * far[j, 2] + w11 * far[j + 1, 2]
        along, across = math.exp(first) * dx + below * dy, math.exp(second) * dy
        total += math.sqrt(along * along + across * across)
    return total


def polyline_lengths(factor: np.ndarray, paths: np.ndarray, parts: int = 32) -> np.ndarray:
    """Lengths [pairs] of polylines [pairs, points, 2] as the system measures them."""
    points = torch.from_numpy(paths)[None]
    table, only = torch.from_numpy(factor)[None], torch.zeros(1, dtype=torch.int64)
    lengths = chart.line_length(table, only, points[:, :, :-1], points[:, :, 1:], parts)
    return lengths.sum(-1)[0].numpy()


def main() -> None:
    """Write the charts that are asked for, or all."""
    parser = figure_parser(__doc__, out=Path("envs/latent_travel/data"))
    parser.add_argument("names", nargs="*", default=list(MAKERS), help="of charts")
    args = parser.parse_args()
    for name in args.names:
        make, axes, first_seed = MAKERS[name]
        arrays = charts_of(make(), axes, first_seed)
        write_atomically(args.out / f"{name}.npz", partial(_save, arrays))


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    savez: Any = np.savez_compressed
    savez(path, **arrays)


if __name__ == "__main__":
    main()
