"""Tables: what they hold on their grid and between, on square grids and on others."""

from __future__ import annotations

import numpy as np
import pytest

from invariantzoo.training.geometry.fields import FeatureTable, Field, MetricTable

A = np.linspace(0.0, 1.0, 24)


def features(points: np.ndarray) -> np.ndarray:
    """Three functions [..., 3] of points [..., 2]; no symmetry between the axes."""
    x, y = np.moveaxis(points, -1, 0)
    return np.stack([np.sin(2 * x), x * y + y**2, np.cos(x - 2 * y)], -1)


def pulled_back(points: np.ndarray) -> np.ndarray:
    """J^T J [m, 2, 2] of `features`."""
    x, y = points.T
    zero, sine = np.zeros_like(x), np.sin(x - 2 * y)
    along = np.stack([2 * np.cos(2 * x), y, -sine], -1)
    across = np.stack([zero, x + 2 * y, 2 * sine], -1)
    jacobian = np.stack([along, across], -1)
    return np.einsum("mki,mkj->mij", jacobian, jacobian)


def grid(b: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(A, b, indexing="ij"), -1)


def tables(n: int) -> list[Field]:
    b = np.linspace(0.0, 1.0, n)
    metric = pulled_back(grid(b).reshape(-1, 2)).reshape(len(A), n, 2, 2) + np.eye(2)
    return [MetricTable([A, b], metric), FeatureTable([A, b], features(grid(b)))]


@pytest.mark.parametrize("n", [24, 30])
def test_tables_hold_what_they_were_given(n: int) -> None:
    points = np.random.default_rng(0).uniform(0.05, 0.95, (50, 2))
    of_metrics, of_features = tables(n)
    assert of_metrics(points) == pytest.approx(pulled_back(points) + np.eye(2), abs=1e-3)
    assert of_features(points) == pytest.approx(pulled_back(points), abs=1e-3)


@pytest.mark.parametrize("n", [24, 30])
def test_gradients_are_those_of_the_table(n: int) -> None:
    points = np.random.default_rng(1).uniform(0.05, 0.95, (50, 2))
    for table in tables(n):
        metric, slopes = table.with_gradient(points)
        assert metric == pytest.approx(table(points), abs=1e-12)
        for i, step in enumerate(1e-6 * np.eye(2)):
            change = (table(points + step) - table(points - step)) / 2e-6
            assert slopes[..., i] == pytest.approx(change, abs=1e-5)


@pytest.mark.parametrize(
    ("axes", "values", "told"),
    [
        ([A, A[::-1]], np.ones((24, 24, 3)), "axis 1 must be"),
        ([A, A], np.ones((24, 23, 3)), "features have shape"),
        ([A, A], np.ones((24, 24, 1)), "features have shape"),
        ([A, A], np.full((24, 24, 2), np.nan), r"features\[0, 0, 0\] is nan"),
    ],
)
def test_refusals(axes: list[np.ndarray], values: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        FeatureTable(axes, values)
