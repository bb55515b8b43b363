"""Shortest paths against closed forms: two free spins, the normal law; tables, walls, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.figures.ising_paths import least_lengths
from invariantzoo.training.geometry.fields import Field
from invariantzoo.training.geometry.grid_paths import grid_paths


def free_spins(points: Any) -> np.ndarray:
    """Two spins in fields x and y: g = diag(sech^2 x, sech^2 y)."""
    return np.eye(2) / np.cosh(points)[:, None] ** 2


def free_spins_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    flat = [2 * np.arctan(np.tanh(end / 2)) for end in (a, b)]
    return np.linalg.norm(flat[1] - flat[0], axis=-1)


def normal_law(points: np.ndarray) -> np.ndarray:
    """In (mean, scale): diag(1, 2) / scale^2."""
    return np.diag([1.0, 2.0]) / points[:, 1, None, None] ** 2


def normal_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rao 1945: a hyperbolic plane of curvature -1/2."""
    square = ((a - b)[..., 0] ** 2 / 2 + (a - b)[..., 1] ** 2) / (2 * a[..., 1] * b[..., 1])
    return np.sqrt(2) * np.arccosh(1 + square)


def normal_pairs(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform([-1, 0.3], [1, 2.0], (2, n, 2))


class KnownField(Field):
    """Free spins with their own derivatives."""

    def __call__(self, points: Any) -> np.ndarray:
        return free_spins(points)

    def with_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slopes = np.zeros((len(points), 2, 2, 2))
        for i in range(2):
            slopes[:, i, i, i] = -2 * np.tanh(points[:, i]) / np.cosh(points[:, i]) ** 2
        return free_spins(points), slopes


@pytest.mark.parametrize("metric", [free_spins, KnownField()], ids=["differences", "derivatives"])
def test_free_spins(metric: Any) -> None:
    a, b = np.random.default_rng(0).uniform(-2.5, 2.5, (2, 20, 2))
    path = invariantzoo.geodesic(metric, a, b)
    np.testing.assert_allclose(path.length, free_spins_distance(a, b), rtol=1e-9)
    assert path.converged.all()
    assert (path.ratio < 1).all()
    assert path.points.shape == (20, 101, 2)


def test_the_normal_law_and_its_path() -> None:
    a, b = normal_pairs(20)
    path = invariantzoo.geodesic(normal_law, a, b)
    np.testing.assert_allclose(path.length, normal_distance(a, b), rtol=1e-12)
    middle = path.points[:, 50]
    np.testing.assert_allclose(normal_distance(a, middle), path.length / 2, rtol=1e-7)
    np.testing.assert_allclose(normal_distance(middle, b), path.length / 2, rtol=1e-7)


def test_a_polyline_comes_near_from_above() -> None:
    a, b = normal_pairs(5)
    exact = normal_distance(a, b)
    errors = [
        invariantzoo.geodesic(normal_law, a, b, basis="points", order=order).length / exact - 1
        for order in (10, 20)
    ]
    assert (errors[1] > 0).all()
    assert (errors[1] < 5e-3).all()
    np.testing.assert_allclose(errors[0] / errors[1], 4, rtol=0.3)


def test_one_pair_gives_plain_numbers_and_tensors_are_taken() -> None:
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])
    path = invariantzoo.geodesic(normal_law, a, b, n_points=11)
    assert isinstance(path.length, float)
    assert path.length == pytest.approx(normal_distance(a.numpy(), b.numpy()), rel=1e-7)
    assert path.points.shape == (11, 2)
    assert path.points[0].tolist() == [0, 1]
    assert path.points[-1].tolist() == [1, 1]
    assert 0 < path.bend < 0.5
    assert path.ratio == pytest.approx(path.length / 1.0, rel=1e-9)


def test_a_flat_metric_has_straight_paths_in_one_and_three_dimensions() -> None:
    for d in (1, 3):
        a, b = np.random.default_rng(1).normal(size=(2, 4, d))
        metric = np.eye(d) * 3 + 1
        path = invariantzoo.geodesic(lambda x, g=metric: np.repeat(g[None], len(x), 0), a, b)
        exact = np.sqrt(np.einsum("pi,ij,pj->p", b - a, metric, b - a))
        np.testing.assert_allclose(path.length, exact, rtol=1e-12)
        np.testing.assert_allclose(path.ratio, 1, rtol=1e-12)
        np.testing.assert_allclose(path.bend, 0, atol=1e-9)


def test_a_path_from_a_point_to_itself_has_no_length() -> None:
    path = invariantzoo.geodesic(normal_law, [0.0, 1.0], [0.0, 1.0])
    assert (path.length, path.bend, path.ratio) == (0, 0, 1)


def test_lengths_do_not_depend_on_the_coordinates() -> None:
    a, b = normal_pairs(10)

    def in_variances(points: np.ndarray) -> np.ndarray:  # (mean / 2, log variance)
        scale = np.exp(points[:, 1] / 2)
        change = np.zeros((len(points), 2, 2))
        change[:, 0, 0], change[:, 1, 1] = 2.0, scale / 2
        g = normal_law(np.stack([2 * points[:, 0], scale], 1))
        return change.swapaxes(1, 2) @ g @ change

    there = [np.stack([end[:, 0] / 2, 2 * np.log(end[:, 1])], 1) for end in (a, b)]
    here = invariantzoo.geodesic(normal_law, a, b).length
    np.testing.assert_allclose(invariantzoo.geodesic(in_variances, *there).length, here, rtol=1e-9)


def test_a_table_is_interpolated_positively_and_gives_the_same_paths() -> None:
    axes = np.linspace(-1.2, 1.2, 25), np.linspace(0.25, 2.2, 40)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    table = invariantzoo.MetricTable(axes, normal_law(grid).reshape(25, 40, 2, 2))
    a, b = normal_pairs(10)
    path = invariantzoo.geodesic(table, a, b)
    np.testing.assert_allclose(path.length, normal_distance(a, b), rtol=1e-5)
    points = np.random.default_rng(2).uniform([-1, 0.3], [1, 2.1], (30, 2))
    value, slopes = table.with_gradient(points)
    np.testing.assert_array_equal(value, table(points))
    for i, step in enumerate(1e-5 * np.eye(2)):
        change = (table(points + step) - table(points - step)) / 2e-5
        np.testing.assert_allclose(slopes[..., i], change, atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 9), (9, 13)])
def test_table_keeps_its_axes_apart(shape: tuple[int, int]) -> None:
    """On a square grid too: cubic metrics are those of the formula, not of swapped coordinates."""
    axes = [np.linspace(0, 1, n) for n in shape]
    x, y = np.meshgrid(*axes, indexing="ij")
    metrics = np.zeros((*shape, 2, 2))
    metrics[..., 0, 0], metrics[..., 1, 1] = np.exp(2 * x), np.exp(4 * y**3)
    found = invariantzoo.MetricTable(axes, metrics)(np.array([[0.3, 0.8]]))[0]
    np.testing.assert_allclose(found, np.diag(np.exp([0.6, 4 * 0.8**3])), rtol=1e-10, atol=1e-12)


def test_a_window_holds_the_path_back() -> None:
    a, b = np.array([-1.0, 0.5]), np.array([1.0, 0.5])
    free = invariantzoo.geodesic(normal_law, a, b)
    assert free.points[:, 1].max() > 0.8
    walls = ([-2.0, 0.2], [2.0, 0.7])
    path = invariantzoo.geodesic(normal_law, a, b, window=walls, basis="points")
    assert path.points[:, 1].max() <= 0.7
    assert path.outside > 0.1
    # The shortest way below the wall: up to it and along it.
    assert free.length < path.length < 2 / 0.5
    x = np.linspace(-0.9, 0, 40)
    up = invariantzoo.geodesic(normal_law, a, np.stack([x, np.full(40, 0.7)], 1)).length
    exact = 2 * (up - x / 0.7).min()
    assert path.length == pytest.approx(exact, rel=5e-3)


def test_bent_starts_find_the_other_way_round() -> None:
    def hill(points: np.ndarray) -> np.ndarray:
        height = 1 + 30 * np.exp(-8 * (points[:, 0] ** 2 + (points[:, 1] - 0.03) ** 2))
        return height[:, None, None] * np.eye(2)

    a, b = [-1.0, 0.0], [1.0, 0.0]
    straight = invariantzoo.geodesic(hill, a, b, steps=1)
    bent = invariantzoo.geodesic(hill, a, b, starts=3)
    assert bent.length < 0.8 * straight.length / straight.ratio
    lower = invariantzoo.geodesic(hill, a, b).points[50, 1] < 0
    assert bent.length <= invariantzoo.geodesic(hill, a, b).length
    assert lower or bent.points[50, 1] < 0  # the way below is the shorter one


def wall(points: np.ndarray) -> np.ndarray:
    """A wall at x = 0 with a gap round y = 0.8."""
    x, y = points.T
    closed = 1 - np.exp(-(((y - 0.8) / 0.1) ** 2))
    return (1 + 400 * closed * np.exp(-((x / 0.05) ** 2)))[:, None, None] * np.eye(2)


def test_a_start_on_a_grid_finds_the_gap_of_a_wall() -> None:
    a, b, box = [-1.0, 0.0], [1.0, 0.0], ([-1.0, -1.0], [1.0, 1.0])
    ways: dict[str, Any] = {"basis": "points", "order": 40, "window": box}
    through = invariantzoo.geodesic(wall, a, b, **ways)
    round_it = invariantzoo.geodesic(wall, a, b, grid=41, **ways)
    assert through.length > 1.2 * round_it.length
    assert 2 * np.hypot(1, 0.7) < round_it.length < 2 * np.hypot(1, 0.85)
    assert abs(round_it.points[50, 1] - 0.8) < 0.2


def test_no_path_is_longer_than_the_straight_line() -> None:
    """The energy of four segments, taken at their middles, overlooks the wall; the length not."""
    ends = np.array([[-0.9, -0.3], [-0.7, 0.2]])
    a, b = np.array([ends[0], ends[1]]), -np.array([ends[0], ends[1]])
    path = invariantzoo.geodesic(wall, a, b, basis="points", order=4)
    assert (path.ratio <= 1 + 1e-12).all()


@pytest.mark.parametrize(
    ("metric", "a", "b", "options", "message"),
    [
        (normal_law, [0, 1], [1, 1, 1], {}, "no pairs of points"),
        (normal_law, [0, np.nan], [1, 1], {}, r"a\[1\] is nan"),
        (normal_law, [0, 0], [1, 1], {}, "must be positive"),
        (lambda x: np.zeros((len(x), 2, 2)), [0, 0], [1, 1], {}, "is singular"),
        (lambda x: np.ones((len(x), 2, 2)), [0, 0], [1, 1], {}, "is singular"),
        (lambda x: np.full((len(x), 2, 2), np.nan), [0, 0], [1, 1], {}, "is not finite"),
        (lambda x: np.eye(2), [0, 0], [1, 1], {}, "has shape"),
        (normal_law, [0, 1], [1, 1], {"window": ([0, 0.5], [0.5, 2])}, "b=.* outside the window"),
        (normal_law, [0, 1], [1, 1], {"window": ([1, 0], [0, 1])}, "lowest and highest"),
        (normal_law, [0, 1], [1, 1], {"basis": "sines"}, "basis='sines' must be one of"),
        (normal_law, [0, 1], [1, 1], {"grid": 20}, "grid=20 needs a window of two"),
        (normal_law, [0, 1], [1, 1], {"grid": 3}, "grid=3 must be"),
        (normal_law, [0, 1], [1, 1], {"order": 0}, "order=0 must be a whole number"),
        (normal_law, "here", [1, 1], {}, "a='here' must be an array of numbers"),
    ],
)
def test_bad_input_gets_one_line(
    metric: Any, a: Any, b: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        invariantzoo.geodesic(metric, a, b, **options)
    assert "\n" not in str(error.value)


def test_a_table_says_what_is_wrong_with_it() -> None:
    axis = np.linspace(0, 1, 5)
    good = np.repeat(np.eye(1)[None], 5, 0)
    with pytest.raises(ValueError, match="axis 0 must be at least four increasing numbers"):
        invariantzoo.MetricTable([axis[::-1]], good)
    with pytest.raises(ValueError, match="metrics have shape"):
        invariantzoo.MetricTable([axis], good[:4])
    with pytest.raises(ValueError, match="is singular"):
        invariantzoo.MetricTable([axis], 0 * good)


def test_a_grid_with_more_neighbours_has_more_straight_lines() -> None:
    """In a flat plane: from (0, 0) to (3, 1) there is an edge only with 32 neighbours."""
    window, share = (np.zeros(2), np.full(2, 8.0)), np.linspace(0, 1, 33)
    ends = np.array([[0.0, 0.0]]), np.array([[6.0, 2.0]])

    def flat(points: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.eye(2), (len(points), 2, 2))

    lengths = []
    for neighbours in (16, 32):
        points = grid_paths(flat, *ends, window, 9, share, neighbours)[0]
        lengths.append(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    assert lengths[1] == pytest.approx(40**0.5, rel=1e-12)
    assert lengths[0] > 1.01 * lengths[1]


def test_no_path_between_laws_is_shorter_than_the_great_circle() -> None:
    """The bound on lengths between tori, by enumeration of all states of 2 x 2 spins."""
    ends = np.array([[[1.5, 0.4], [1.9, -0.3]], [[3.0, 0.1], [2.0, 1.0]]])
    code = np.arange(16)
    spins = (2.0 * (code[:, None] >> np.arange(4) & 1) - 1).reshape(-1, 2, 2)
    bonds = sum((spins * np.roll(spins, 1, axis)).sum((1, 2)) for axis in (1, 2))
    weight = np.exp((bonds + ends[..., 1:] * spins.sum((1, 2))) / ends[..., :1])
    law = weight / weight.sum(-1, keepdims=True)
    circle = 2 * np.arccos(np.sqrt(law[:, 0] * law[:, 1]).sum(-1))
    np.testing.assert_allclose(least_lengths(2, ends), circle, rtol=1e-9)
