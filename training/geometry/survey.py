"""What a slice of a diffusion model looks like: phases, metric, walls, shortest paths.

A slice is the plane of three latents drawn from a standard normal law; the square between its
corners z0, z1, z2 is mapped on a grid. A node is on a boundary if a neighbour has another label.
The metric is one of `METRICS`, of what splines between the nodes give:

    "features"   pull-back of the classifier's last hidden layer, each number over its spread
    "embedding"  pull-back of the same at unit length, as embeddings of images are compared
    "logits"     pull-back of the classifier's logits
    "posterior"  Fisher metric of the classifier's chances, which tells digits apart, nothing else
    "pixels"     pull-back of the images themselves
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...envs.core.validation import require_choice
from .diffusion import DiffusionModel
from .fields import FeatureTable, PosteriorTable
from .geodesics import Path, geodesic
from .ideal_diffusion import IdealModel
from .latent_slice import LatentSlice

METRICS = ("features", "embedding", "logits", "posterior", "pixels")
CONFIDENT = 0.95  # probability of the digit at a corner
WIDTHS = 10.0 ** -np.arange(1, 8)
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
_SEGMENTS = 80  # of a path
_CHORDS = 0.25, 0.6  # lengths of pairs whose paths are measured


class Survey(NamedTuple):
    """A slice as surveyed.

    labels [n, n], metric [n, n, 2, 2], boundary [n, n], images [n, n, 64]: on the grid of `axis`
    [n] by itself.  crossings [k, 2]: points of walls; slopes [k, widths]: the largest near them.
    same, other: shortest paths between pairs of one label all along, and of two labels.
    """

    axis: np.ndarray
    labels: np.ndarray
    metric: np.ndarray
    boundary: np.ndarray
    images: np.ndarray
    crossings: np.ndarray
    slopes: np.ndarray
    same: Path | None
    other: Path | None


def corners_of(seed: int) -> np.ndarray:
    """The latents [3, 64] of a slice."""
    return np.random.default_rng(seed).normal(size=(3, 64))


def make_slice(model: DiffusionModel | IdealModel, seed: int) -> LatentSlice:
    """The slice of a seed, with the model's digits, or images, as labels."""
    return LatentSlice(model, *corners_of(seed), classify=model.classify)


def is_clear(model: DiffusionModel, seed: int) -> bool:
    """Whether the corners are three different digits of which the classifier is confident."""
    odds = model.probabilities(make_slice(model, seed).image(_CORNERS))
    return len(set(odds.argmax(1))) == 3 and bool((odds.max(1) > CONFIDENT).all())


def survey(
    model: DiffusionModel | IdealModel,
    seed: int,
    *,
    metric: str = "features",
    nodes: int = 65,
    crossings: int = 4,
    pairs: int = 20,
) -> Survey:
    """Survey the slice of a seed. For crossings the model must compute in float64.

    metric: one of `METRICS`; the ideal denoiser, which has no classifier, has that of pixels only.
    """
    require_choice("metric", metric, METRICS)
    rng = np.random.default_rng(seed)
    chart = make_slice(model, seed)
    axis = np.linspace(0, 1, nodes)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    images = chart.image(points.reshape(-1, 2))
    labels = model.classify(images).reshape(nodes, nodes)
    table = _field(model, metric, axis, images)
    metrics = table(points.reshape(-1, 2)).reshape(nodes, nodes, 2, 2)
    images = images.reshape(nodes, nodes, -1)
    walls = []
    across = np.zeros((nodes, nodes), bool)
    for i, shift in enumerate(np.eye(2, dtype=int)):
        here, there = (slice(None, -s or None) for s in shift), (slice(s, None) for s in shift)
        before, after = tuple(here), tuple(there)
        change = labels[before] != labels[after]
        across[before] |= change
        across[after] |= change
        walls += [(points[tuple(at)], points[tuple(at + shift)], i) for at in np.argwhere(change)]
    chosen = rng.permutation(len(walls))[:crossings]
    where = [chart.crossing(*walls[k][:2]) for k in chosen]
    along = [np.eye(2)[walls[k][2]] for k in chosen]
    slopes = [chart.zoom(at, way, WIDTHS) for at, way in zip(where, along, strict=True)]
    paths = [_paths(table, labels, axis, rng, pairs, same) for same in (True, False)]
    return Survey(
        *(axis, labels, metrics, across, images),
        np.reshape(where, (-1, 2)),
        np.reshape(slopes, (-1, len(WIDTHS))),
        *paths,
    )


def _field(
    model: DiffusionModel | IdealModel, metric: str, axis: np.ndarray, images: np.ndarray
) -> FeatureTable | PosteriorTable:
    """The metric of a name, of images [nodes * nodes, pixels] on the grid of `axis` by itself."""
    axes, shape = [axis, axis], (len(axis), len(axis), -1)
    if metric == "pixels":
        return FeatureTable(axes, images.reshape(shape))
    if metric == "features":
        return FeatureTable(axes, model.features(images).reshape(shape))
    if not isinstance(model, DiffusionModel):
        raise ValueError(f"metric={metric!r} is of a model with a classifier; this one has none")
    if metric == "posterior":
        return PosteriorTable(axes, model.logits(images).reshape(shape))
    values = model.embedding(images) if metric == "embedding" else model.logits(images)
    return FeatureTable(axes, values.reshape(shape))


def _paths(
    table: FeatureTable | PosteriorTable,
    labels: np.ndarray,
    axis: np.ndarray,
    rng: np.random.Generator,
    pairs: int,
    same: bool,
) -> Path | None:
    """Shortest paths between nodes drawn until there are so many pairs; None if there are none."""
    ends: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(20_000 if pairs else 0):
        cell = rng.integers(0, len(axis), (2, 2))
        a, b = axis[cell]
        if not _CHORDS[0] <= np.linalg.norm(b - a) <= _CHORDS[1]:
            continue
        way = np.rint(np.linspace(cell[0], cell[1], 2 * len(axis))).astype(int)
        seen = labels[way[:, 0], way[:, 1]]
        if (seen == seen[0]).all() if same else seen[0] != seen[-1]:
            ends.append((a, b))
        if len(ends) == pairs:
            break
    if not ends:
        return None
    first, last = (np.array(side) for side in zip(*ends, strict=True))
    return geodesic(table, first, last, basis="points", order=_SEGMENTS, grid=len(axis))


def summary(surveyed: Survey) -> dict[str, Any]:
    """Figures of a survey, by name; all numbers are plain."""
    edge = surveyed.boundary
    root = np.sqrt(np.maximum(np.linalg.det(surveyed.metric), 0))
    trace = np.trace(surveyed.metric, axis1=2, axis2=3)
    result: dict[str, Any] = {
        "digits": np.unique(surveyed.labels).tolist(),
        "boundary_share": float(edge.mean()),
        "slopes": surveyed.slopes.tolist(),
        "plateau": float(np.abs(surveyed.slopes[:, 2] / surveyed.slopes[:, 6] - 1).max(initial=0)),
    }
    for name, field in (("volume", root), ("trace", trace)):
        result[name] = {
            "mean": float(field[edge].mean() / field[~edge].mean()),
            "median": float(np.median(field[edge]) / np.median(field[~edge])),
            "share": float(field[edge].sum() / field.sum()),
        }
    for name, path in (("one_digit", surveyed.same), ("two_digits", surveyed.other)):
        if path is not None:
            result[name] = {
                "pairs": len(path.ratio),
                "ratio": float(np.median(path.ratio)),
                "lowest": float(np.min(path.ratio)),
                "highest": float(np.max(path.ratio)),
                "bend": float(np.median(path.bend)),
                "converged": float(np.mean(path.converged)),
            }
    return result
