"""Tables: what they hold on their grid and between, on square grids and on others."""

from __future__ import annotations

import numpy as np
import pytest

from invariantzoo.training.geometry.fields import (
    FeatureTable,
    Field,
    MetricTable,
    PosteriorTable,
)

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


def roots(points: np.ndarray) -> np.ndarray:
    """2 sqrt(p) [..., 3] of chances p = softmax(features); their pull-back is Fisher's metric."""
    odds = np.exp(features(points))
    return 2 * np.sqrt(odds / odds.sum(-1, keepdims=True))


def grid(b: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(A, b, indexing="ij"), -1)


def tables(n: int) -> list[Field]:
    b = np.linspace(0.0, 1.0, n)
    metric = pulled_back(grid(b).reshape(-1, 2)).reshape(len(A), n, 2, 2) + np.eye(2)
    values = features(grid(b))
    return [
        MetricTable([A, b], metric),
        FeatureTable([A, b], values),
        PosteriorTable([A, b], values),
    ]


@pytest.mark.parametrize("n", [24, 30])
def test_tables_hold_what_they_were_given(n: int) -> None:
    points = np.random.default_rng(0).uniform(0.05, 0.95, (50, 2))
    of_metrics, of_features, of_chances = tables(n)
    assert of_metrics(points) == pytest.approx(pulled_back(points) + np.eye(2), abs=1e-3)
    assert of_features(points) == pytest.approx(pulled_back(points), abs=1e-3)
    shifts = 1e-5 * np.eye(2)
    slopes = [(roots(points + step) - roots(points - step)) / 2e-5 for step in shifts]
    assert of_chances(points) == pytest.approx(np.einsum("imk,jmk->mij", slopes, slopes), abs=1e-3)


def test_chances_that_change_between_two_nodes_keep_their_length() -> None:
    """Of two classes the length of any way from one to the other is pi, however narrow the wall."""
    axes = [np.linspace(0, 1, 9), A]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1)[..., :1] - 0.4
    table = PosteriorTable(axes, np.concatenate([200 * x, -200 * x], -1))
    s = (np.arange(4000) + 0.5) / 4000
    along = table(np.stack([s, np.full(4000, 0.5)], -1))[:, 0, 0]
    assert np.sqrt(along).mean() == pytest.approx(np.pi, abs=1e-4)


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
