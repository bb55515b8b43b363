"""Fields of metrics over parameters: what paths are measured with.

A field is called with points [m, d] and gives symmetric positive matrices [m, d, d].
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from ...envs.core.validation import shown

Window = tuple[np.ndarray, np.ndarray]  # lowest [d] and highest [d] coordinates


class Field(ABC):
    """A field that knows its derivatives and where it may be asked.

    window: lowest [d] and highest [d] coordinates, or None where it holds everywhere.
    """

    window: Window | None = None

    @abstractmethod
    def __call__(self, points: Any) -> np.ndarray:
        """Metrics [m, d, d] at points [m, d]."""

    @abstractmethod
    def with_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Metrics [m, d, d] at points [m, d], and their derivatives [m, d, d, d] by the last."""


@final
class MetricTable(Field):
    """Cubic splines through metrics on a grid.

    Logarithms of the diagonal of the Cholesky factor are interpolated, and its other entries, so
    that the metric is positive between the points of the grid too.
    axes: d increasing coordinates, each of at least four points.  metrics [n_1, ..., n_d, d, d].
    """

    def __init__(self, axes: Sequence[Any], metrics: Any) -> None:
        grid = [np.asarray(axis, float) for axis in axes]
        metrics = np.asarray(metrics, float)
        d = len(grid)
        for i, axis in enumerate(grid):
            if axis.ndim != 1 or len(axis) < 4 or not (np.diff(axis) > 0).all():
                raise ValueError(f"axis {i} must be at least four increasing numbers")
        shape = (*map(len, grid), d, d)
        if metrics.shape != shape:
            raise ValueError(f"metrics have shape {metrics.shape}; these axes need {shape}")
        require_positive(
            metrics.reshape(-1, d, d),
            np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, d),
        )
        self.axes = tuple(grid)
        self.metrics = metrics
        self.window = np.array([axis[0] for axis in grid]), np.array([axis[-1] for axis in grid])
        self._rows, self._columns = np.tril_indices(d)
        self._diagonal = self._rows == self._columns
        factor = np.linalg.cholesky(metrics)[..., self._rows, self._columns]
        factor[..., self._diagonal] = np.log(factor[..., self._diagonal])
        self._spline = _spline(grid, factor)

    def __call__(self, points: Any) -> np.ndarray:
        """Metrics [m, d, d] at points [m, d]; outside the grid those of its nearest edge."""
        factor = self._factor(self._inside(np.asarray(points, float)))
        return factor @ np.swapaxes(factor, -1, -2)

    def with_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Field` says; outside the grid nothing changes across its edge."""
        inside = self._inside(points)
        factor = self._factor(inside)
        d = inside.shape[1]
        slopes = np.empty((*factor.shape, d))
        for i in range(d):
            entries = self._spline(inside, nu=tuple(int(k == i) for k in range(d)))
            diagonal = np.diagonal(factor, axis1=1, axis2=2)
            entries[:, self._diagonal] *= diagonal
            slope = np.zeros_like(factor)
            slope[:, self._rows, self._columns] = entries
            slopes[..., i] = slope * (inside == points)[:, i, None, None]
        half = np.einsum("mikc,mjk->mijc", slopes, factor)
        return factor @ np.swapaxes(factor, -1, -2), half + np.swapaxes(half, 1, 2)

    def _inside(self, points: np.ndarray) -> np.ndarray:
        assert self.window is not None
        return np.clip(points, *self.window)

    def _factor(self, inside: np.ndarray) -> np.ndarray:
        entries = self._spline(inside)
        entries[:, self._diagonal] = np.exp(entries[:, self._diagonal])
        factor = np.zeros((len(inside), inside.shape[1], inside.shape[1]))
        factor[:, self._rows, self._columns] = entries
        return factor


@final
class FeatureTable(Field):
    """The pull-back J^T J of features on a grid, between whose points they are cubic splines.

    A wall is as high between the points of the grid as at them: features must go from one value to
    the other, where an interpolated metric may fall in between.
    axes: d increasing coordinates, each of at least four points.
    features [n_1, ..., n_d, features], at least as many as there are axes.
    """

    def __init__(self, axes: Sequence[Any], features: Any) -> None:
        self._splines = _Splines("features", axes, features)
        self.axes, self.window = self._splines.axes, self._splines.window

    def __call__(self, points: Any) -> np.ndarray:
        """Metrics [m, d, d] at points [m, d]; outside the grid those of its nearest edge."""
        jacobian = self._splines.slopes(self._splines.inside(points))
        return np.einsum("mki,mkj->mij", jacobian, jacobian)

    def with_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Field` says; outside the grid nothing changes across its edge."""
        inside = self._splines.inside(points)
        jacobian = self._splines.slopes(inside)
        half = _contracted(self._splines.bends(inside), jacobian)
        half = half * (inside == points)[:, None, None]
        return np.swapaxes(jacobian, 1, 2) @ jacobian, half + np.swapaxes(half, 1, 2)


@final
class PosteriorTable(Field):
    """The Fisher metric of chances p = softmax(z) whose logits z are cubic splines on a grid.

    With slopes a_k of the logits and their mean over p taken off, w_k = a_k - sum_l p_l a_l,

        g = sum_k p_k w_k w_k^T,

    the pull-back of 2 sqrt(p). Splines of the chances themselves would miss walls that are narrower
    than the steps of the grid, across which logits go evenly.
    axes: d increasing coordinates, each of at least four points.
    logits [n_1, ..., n_d, classes], of more classes than there are axes.
    """

    def __init__(self, axes: Sequence[Any], logits: Any) -> None:
        self._splines = _Splines("logits", axes, logits)
        self.axes, self.window = self._splines.axes, self._splines.window

    def __call__(self, points: Any) -> np.ndarray:
        """Metrics [m, d, d] at points [m, d]; outside the grid those of its nearest edge."""
        p, w = self._chances(self._splines.inside(points))
        return np.einsum("mk,mki,mkj->mij", p, w, w)

    def with_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Field` says; outside the grid nothing changes across its edge."""
        inside = self._splines.inside(points)
        p, w = self._chances(inside)
        shares = p[:, :, None] * w
        half = _contracted(self._splines.bends(inside), shares)
        squares = w[:, :, :, None] * w[:, :, None]
        slopes = half + np.swapaxes(half, 1, 2) + _contracted(squares, shares)
        return np.swapaxes(shares, 1, 2) @ w, slopes * (inside == points)[:, None, None]

    def _chances(self, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p [m, classes] and w [m, classes, d]."""
        z, a = self._splines.values(inside), self._splines.slopes(inside)
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return p, a - np.einsum("mk,mki->mi", p, a)[:, None]


@final
class _Splines:
    """Cubic splines through values [n_1, ..., n_d, k] over d axes, and where they hold."""

    def __init__(self, name: str, axes: Sequence[Any], values: Any) -> None:
        grid = [np.asarray(axis, float) for axis in axes]
        values = np.asarray(values, float)
        for i, axis in enumerate(grid):
            if axis.ndim != 1 or len(axis) < 4 or not (np.diff(axis) > 0).all():
                raise ValueError(f"axis {i} must be at least four increasing numbers")
        shape = tuple(map(len, grid))
        if values.shape[:-1] != shape or values.shape[-1] < len(grid):
            raise ValueError(f"{name} have shape {values.shape}; these axes need {shape} and more")
        require_finite(name, values)
        self.axes = tuple(grid)
        self.window = np.array([axis[0] for axis in grid]), np.array([axis[-1] for axis in grid])
        self._spline = _spline(grid, values)

    def inside(self, points: Any) -> np.ndarray:
        """Points [m, d], those outside laid on the edge."""
        return np.clip(np.asarray(points, float), *self.window)

    def values(self, inside: np.ndarray) -> np.ndarray:
        """Values [m, k]."""
        return np.asarray(self._spline(inside))

    def slopes(self, inside: np.ndarray) -> np.ndarray:
        """Jacobians [m, k, d]."""
        steps = np.eye(inside.shape[1], dtype=int)
        return np.stack([self._spline(inside, nu=tuple(nu)) for nu in steps], -1)

    def bends(self, inside: np.ndarray) -> np.ndarray:
        """Second derivatives [m, k, d, d]."""
        d = inside.shape[1]
        steps = np.eye(d, dtype=int)
        upper = {
            (i, k): self._spline(inside, nu=tuple(steps[i] + steps[k]))
            for i, k in itertools.combinations_with_replacement(range(d), 2)
        }
        rows = [[upper[min(i, k), max(i, k)] for k in range(d)] for i in range(d)]
        return np.stack([np.stack(row, -1) for row in rows], -2)


@final
class DifferenceField(Field):
    """Any function [m, d] -> [m, d, d] of float64 arrays, its derivatives by differences.

    steps [d]: of the differences, whose error falls with their fourth power.
    """

    def __init__(
        self, metric: Callable[[Any], Any], steps: np.ndarray, window: Window | None = None
    ) -> None:
        self._metric, self._steps, self.window = metric, steps, window

    def __call__(self, points: Any) -> np.ndarray:
        return evaluated(self._metric, points)

    def with_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All in one call; within two steps of a wall the derivative is that two steps inside."""
        m, d = points.shape
        centre = points
        if self.window is not None:
            low, high = self.window[0] + 2 * self._steps, self.window[1] - 2 * self._steps
            centre = np.clip(points, np.minimum(low, high), np.maximum(low, high))
        around = [
            centre + k * self._steps[i] * np.eye(d)[i]
            for i, k in itertools.product(range(d), (-2, -1, 1, 2))
        ]
        values = evaluated(self._metric, np.concatenate([points, *around]))
        value, *rest = values.reshape(1 + 4 * d, m, d, d)
        slopes = [
            (rest[4 * i] - rest[4 * i + 3] + 8 * (rest[4 * i + 2] - rest[4 * i + 1])) / (12 * step)
            for i, step in enumerate(self._steps)
        ]
        return value, np.stack(slopes, -1)


def evaluated(metric: Callable[[Any], Any], points: np.ndarray) -> np.ndarray:
    """Metrics [m, d, d] that a function gives at points [m, d]; ValueError for another shape."""
    with np.errstate(all="ignore"):
        value = as_array("metric(points)", metric(points))
    m, d = points.shape
    if value.shape != (m, d, d):
        raise ValueError(f"metric(points [{m}, {d}]) has shape {value.shape}, not ({m}, {d}, {d})")
    return value


def _contracted(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The sum over k of left [m, k, i, c] and right [m, k, j]: [m, i, j, c]."""
    m, k, d, _ = left.shape
    total = np.swapaxes(right, 1, 2) @ left.reshape(m, k, d * d)
    return np.swapaxes(total.reshape(m, -1, d, d), 1, 2)


def _spline(grid: Sequence[np.ndarray], values: np.ndarray) -> Any:
    """Cubic splines through values [n_1, ..., n_d, more]."""
    from scipy.interpolate import NdBSpline, make_interp_spline

    knots = []
    for i, axis in enumerate(grid):
        spline = make_interp_spline(axis, values, k=3, axis=i)
        knots.append(spline.t)
        values = np.moveaxis(spline.c, 0, i)  # coefficients of an axis come first
    return NdBSpline(tuple(knots), values, k=3)


def as_array(name: str, value: Any, *, bytes_stay: bool = False) -> np.ndarray:
    """A float64 array of numbers or of a torch tensor; ValueError for what holds no numbers.

    bytes_stay: whether integers of one byte, such as spins, stay what they are.
    """
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(f"{name}={shown(value)} must be an array of numbers") from None
    if bytes_stay and array.dtype.kind in "iu" and array.dtype.itemsize == 1:
        return array
    return array.astype(np.float64)


def require_finite(name: str, array: np.ndarray) -> None:
    """Raise ValueError, naming the first place, unless all numbers are finite."""
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = ", ".join(map(str, bad[0]))
        raise ValueError(f"{name}[{place}] is {array[tuple(bad[0])]}; all must be finite")


def require_positive(metrics: np.ndarray, points: np.ndarray) -> None:
    """Raise ValueError, naming the first point, unless all metrics are positive."""
    finite = np.isfinite(metrics).all((1, 2))
    values = np.linalg.eigvalsh(np.where(finite[:, None, None], metrics, 1.0))
    bad = ~finite | (values[:, 0] <= 1e-15 * values[:, -1]) | (values[:, -1] <= 0)
    for i in np.flatnonzero(bad):
        what = f"is singular (eigenvalues {values[i].tolist()})" if finite[i] else "is not finite"
        raise ValueError(f"the metric at {points[i].tolist()} {what}; it must be positive")
