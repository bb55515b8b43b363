"""The Fisher metric from samples: closed forms, covariance under linear maps, files, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.training.geometry import statistics
from invariantzoo.training.geometry.metric import Metric, standard_error
from invariantzoo.training.geometry.swaps import near_pairs, swap_posterior

QUICK: dict[str, Any] = {"members": 2, "statistic": "polynomial", "steps": 200}


def coins(points: int, per_point: int = 8, d: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Independent Bernoulli variables and their chances."""
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.1, 0.9, (points, d))
    flips = rng.uniform(size=(points, per_point, d)) < chances[:, None]
    return flips.astype(float), chances


def normal_samples(points: int, per_point: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of normal laws and (mean, scale)."""
    rng = np.random.default_rng(seed)
    law = rng.uniform([-1, 0.5], [1, 2], (points, 2))
    return law[:, :1] + law[:, 1:] * rng.normal(size=(points, per_point)), law


def relative_error(value: np.ndarray, exact: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(exact, axis=(1, 2))
    return np.asarray(np.linalg.norm(value - exact, axis=(1, 2)) / norm)


@pytest.fixture(scope="module")
def of_coins() -> Metric:
    return invariantzoo.estimate_metric(*coins(2000), **QUICK)


def test_bernoulli_both_ways_and_their_errors(of_coins: Metric) -> None:
    p = np.random.default_rng(1).uniform(0.15, 0.85, (200, 2))
    exact = np.eye(2) / (p * (1 - p))[:, None]
    for way, error in (
        (of_coins.covariance, of_coins.covariance_error),
        (of_coins.hessian, of_coins.hessian_error),
    ):
        assert np.median(relative_error(way(p), exact)) < 0.1
        stated = np.linalg.norm(error(p), axis=(1, 2))
        off = np.linalg.norm(way(p) - exact, axis=(1, 2))
        assert 0.2 < np.median(off) / np.median(stated) < 5
    np.testing.assert_array_equal(of_coins(p), of_coins.covariance(p))


@pytest.mark.parametrize("members", [2, 4, 5])
def test_the_error_of_members_on_halves_of_the_points(members: int) -> None:
    """It is that of their mean, however many there are: here of means of independent numbers."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(5000, 40))
    splits = [rng.permutation(40).reshape(2, 20) for _ in range((members + 1) // 2)]
    halves = [half for split in splits for half in split][:members]
    means = np.stack([data[:, half].mean(1) for half in halves])
    stated = np.sqrt((standard_error(means) ** 2).mean())
    assert stated == pytest.approx(40**-0.5, rel=0.04)


@pytest.mark.parametrize("seed", range(5))
def test_the_normal_law_in_mean_and_scale(seed: int) -> None:
    metric = invariantzoo.estimate_metric(*normal_samples(4000, seed=seed), seed=seed)
    assert metric.statistic == "polynomial"
    points = np.random.default_rng(1).uniform([-0.9, 0.55], [0.9, 1.9], (200, 2))
    exact = np.diag([1.0, 2.0]) / points[:, 1, None, None] ** 2
    assert np.median(relative_error(metric(points), exact)) < 0.1


def test_labels_of_categories_are_no_numbers() -> None:
    """Five of them: their first two moments would see two of four directions."""
    rng = np.random.default_rng(0)
    chances = np.clip(rng.dirichlet(np.full(5, 4.0), 2000), 0.05, None)
    chances /= chances.sum(1, keepdims=True)
    labels = (rng.random((2000, 8, 1)) > chances.cumsum(1)[:, None]).sum(-1)
    metric = invariantzoo.estimate_metric(labels, chances[:, :4], members=2)
    assert metric.statistic == "polynomial+labels"
    p = chances[::20]
    exact = np.eye(4) / p[:, None, :4] + 1 / p[:, 4, None, None]
    assert np.median(relative_error(metric(p[:, :4]), exact)) < 0.15


def test_the_scale_of_many_numbers_is_seen() -> None:
    """Their means tell nothing of it."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2, (1000, 1))
    samples = scale[:, None] * rng.normal(size=(1000, 4, 8))
    metric = invariantzoo.estimate_metric(samples, scale, members=2, steps=200)
    at = np.linspace(0.7, 1.8, 12)[:, None]
    assert np.median(relative_error(metric(at), 16 / at[..., None] ** 2)) < 0.2


def test_all_members_have_the_statistic_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a network helps the first and not the second, it is left out of both."""
    rng = np.random.default_rng(0)
    place = rng.uniform(-1, 1, (200, 1))
    samples = place[:, None] + rng.normal(size=(200, 2, 12))
    metrics = []
    for answers in ([True, False], [False]):
        told = iter(answers)
        asked = "invariantzoo.training.geometry.members.tells_more"
        monkeypatch.setattr(asked, lambda *_, told=told: next(told))
        metrics.append(invariantzoo.estimate_metric(samples, place, members=2, steps=30))
        assert metrics[-1].statistic == "linear"
        assert next(told, None) is None
    np.testing.assert_array_equal(metrics[0](place[:5]), metrics[1](place[:5]))


def test_labels_that_are_told_apart() -> None:
    """Of 4 to 12 values; for as many numbers as there is room for."""
    values = np.random.default_rng(0).integers(0, 5, (50, 4, 6))
    told = statistics.labels(values[..., :1])
    np.testing.assert_array_equal(told, values[..., :1] == np.arange(4))
    assert not statistics.labels(np.minimum(values, 2)).size
    assert not statistics.labels(np.arange(200.0).reshape(50, 4, 1)).size
    assert statistics.labels(values).shape == (50, 4, 12)  # 39 with products


def test_fewer_numbers_than_parameters_are_refused() -> None:
    """Their metric is singular, whatever the samples are."""
    rng = np.random.default_rng(0)
    law = rng.uniform(0.5, 2, (100, 3))
    samples = rng.gamma(law[:, :1], law[:, 1:2], (100, 8)) + law[:, 2:]
    with pytest.raises(ValueError, match=r"has 2 independent numbers, fewer than .* \(3\)"):
        invariantzoo.estimate_metric(samples, law)
    with pytest.raises(ValueError, match=r"has 1 independent numbers, fewer than .* \(3\)"):
        invariantzoo.estimate_metric(samples, law, statistic="mean")


def test_derivatives_and_geodesics_of_an_estimate(of_coins: Metric) -> None:
    points = np.random.default_rng(1).uniform(0.2, 0.8, (20, 2))
    value, slopes = of_coins.with_gradient(points)
    np.testing.assert_allclose(value, of_coins(points), rtol=1e-12)
    for i, step in enumerate(1e-6 * np.eye(2)):
        change = (of_coins(points + step) - of_coins(points - step)) / 2e-6
        np.testing.assert_allclose(slopes[..., i], change, rtol=1e-5, atol=1e-5)
    path = invariantzoo.geodesic(of_coins, [0.15, 0.2], [0.85, 0.7])
    angles = 2 * np.arcsin(np.sqrt([[0.15, 0.2], [0.85, 0.7]]))
    assert path.length == pytest.approx(np.linalg.norm(angles[1] - angles[0]), rel=0.05)


def test_an_estimate_is_the_same_again_and_from_its_file(of_coins: Metric, tmp_path: Path) -> None:
    points = np.random.default_rng(1).uniform(0.2, 0.8, (5, 2))
    of_coins.save(tmp_path / "coins.npz")
    loaded = invariantzoo.load_metric(tmp_path / "coins.npz")
    np.testing.assert_array_equal(loaded(points), of_coins(points))
    np.testing.assert_array_equal(loaded.hessian(points), of_coins.hessian(points))
    samples, chances = coins(2000)
    again = invariantzoo.estimate_metric(
        torch.from_numpy(samples), torch.from_numpy(chances), **QUICK
    )
    np.testing.assert_allclose(again(points), of_coins(points), rtol=1e-9)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"is no metric that Metric\.save wrote"):
        invariantzoo.load_metric(tmp_path / "other.npz")


@pytest.mark.parametrize("recipe", ["posterior", "swap"])
def test_other_recipes_and_their_files(recipe: str, tmp_path: Path) -> None:
    samples, chances = coins(2000, d=1)
    natural = np.log(chances / (1 - chances))
    metric = invariantzoo.estimate_metric(
        samples, natural, members=2, steps=150, recipe=recipe, statistic="polynomial"
    )
    points = np.linspace(-1.5, 1.5, 20)[:, None]
    p = 1 / (1 + np.exp(-points))
    exact = (p * (1 - p))[:, :, None]
    assert np.median(relative_error(metric(points), exact)) < 0.15
    assert np.median(relative_error(metric.hessian(points), exact)) < 0.15
    metric.save(tmp_path / "metric.npz")
    loaded = invariantzoo.load_metric(tmp_path / "metric.npz")
    np.testing.assert_array_equal(loaded(points), metric(points))
    if recipe == "swap":
        # log Z = log(1 + e^t), up to an affine function.
        line = np.column_stack([np.ones(20), points])
        off = metric.log_z(points) - np.log1p(np.exp(points[:, 0]))
        rest = off - line @ np.linalg.lstsq(line, off, rcond=None)[0]
        assert np.abs(rest).max() < 0.01
    else:
        with pytest.raises(ValueError, match="recipe='posterior' has no log Z"):
            metric.log_z(points)


def test_swaps_give_the_scale_and_follow_linear_maps_of_the_statistic() -> None:
    rng = np.random.default_rng(0)
    natural = rng.uniform(-1, 1, (3000, 2))
    samples = natural[:, None] + rng.normal(size=(3000, 4, 2))  # exp(x . t - |t|^2 / 2)
    features = np.concatenate([samples, samples[..., :1] ** 2], -1)
    pairs = near_pairs(natural, np.arange(3000))
    weights = swap_posterior(features, natural, *pairs)
    np.testing.assert_allclose(weights, [[1, 0], [0, 1], [0, 0]], atol=0.15)
    change = np.array([[2.0, 1, 0], [0, 1, 3], [1, 0, 1]])
    turned = swap_posterior(features @ change.T, natural, *pairs)
    np.testing.assert_allclose(change.T @ turned, weights, atol=1e-5)


def test_swaps_of_large_samples_are_told_by_the_near_pairs_alone() -> None:
    rng = np.random.default_rng(0)
    size = 4096  # numbers in a sample, of which the mean is seen
    natural = rng.uniform(-1, 1, (2000, 2))
    means = natural[:, None] + rng.normal(size=(2000, 4, 2)) / size**0.5
    weights = swap_posterior(means, natural, *near_pairs(natural, np.arange(2000)))
    np.testing.assert_allclose(weights / size, np.eye(2), atol=0.1)


def test_pairs_are_near_and_far() -> None:
    points = np.random.default_rng(0).uniform(size=(1100, 2))
    first, second = near_pairs(points, np.arange(1100))
    ranks = [1, 3, 9, 27, 34, 68, 137, 274, 549, 1099]
    np.testing.assert_array_equal(first, np.repeat(np.arange(1100), len(ranks)))
    away = np.linalg.norm(points[:, None] - points, axis=-1)
    np.testing.assert_array_equal(second.reshape(1100, -1), away.argsort(1)[:, ranks])
    doubled = near_pairs(points[[0, 0, 1, 2]], np.arange(4))
    assert (points[[0, 0, 1, 2]][doubled[0]] != points[[0, 0, 1, 2]][doubled[1]]).any(1).all()


def test_swaps_that_are_all_sure_are_refused() -> None:
    natural = np.linspace(-1, 1, 50)[:, None]
    samples = np.repeat(natural[:, None], 4, 1)
    with pytest.raises(ValueError, match="apart for sure: bring points nearer"):
        swap_posterior(samples, natural, *near_pairs(natural, np.arange(50)))


def test_patterns_of_two_by_two_sites() -> None:
    torus = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])[None, None]
    counted = 16 * statistics.patterns(torus)[0, 0]
    slow = [0] * 6
    for i in range(4):
        for j in range(4):
            a, b = torus[0, 0, i, j], torus[0, 0, i, (j + 1) % 4]
            c, d = torus[0, 0, (i + 1) % 4, j], torus[0, 0, (i + 1) % 4, (j + 1) % 4]
            n = a + b + c + d
            slow[[0, 1, 3 if a == d else 2, 4, 5][n]] += 1
    np.testing.assert_allclose(counted, slow)


def test_few_values_of_samples() -> None:
    samples = np.array([[3, -1], [-1, 2]], np.int8)
    np.testing.assert_array_equal(statistics.few_values(samples, 3), [-1, 2, 3])
    np.testing.assert_array_equal(statistics.few_values(samples / 2, 4), [-0.5, 1, 1.5])
    assert statistics.few_values(samples, 2) is None


def test_bytes_are_estimated_as_floats_are() -> None:
    spins = np.random.default_rng(0).integers(0, 2, (64, 4, 3, 3)) * 2 - 1
    t = np.linspace(0, 1, 64)
    metrics = [
        invariantzoo.estimate_metric(spins.astype(kind), t, members=2, steps=50)
        for kind in (np.int8, float)
    ]
    points = np.array([[0.3], [0.6]])
    np.testing.assert_array_equal(metrics[0](points), metrics[1](points))


def test_a_function_of_ones_own() -> None:
    samples, chances = coins(1000)
    metric = invariantzoo.estimate_metric(
        samples, chances, members=2, statistic=lambda x: x @ np.array([[1.0, 1], [1, -1]])
    )
    p = np.full((1, 2), 0.5)
    assert relative_error(metric(p), 4 * np.eye(2)[None])[0] < 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": np.full((100, 2), 0.5)}, "parameter 0 has the same value 0.5"),
        ({"samples": np.ones((100, 8, 2))}, r"all samples are 1\.0"),
        ({"samples": np.full((100, 8, 2), np.nan)}, r"samples\[0, 0, 0\] is nan"),
        ({"parameters": np.full((100, 2), np.inf)}, r"parameters\[0, 0\] is inf"),
        ({"samples": np.ones((99, 8, 2))}, "samples have shape"),
        ({"samples": np.ones(100)}, "samples have shape"),
        ({"statistic": lambda x: np.ones((100, 8, 1))}, "the statistic is the same"),
        ({"statistic": lambda x: np.ones(3)}, "has shape"),
        ({"statistic": "median"}, "statistic='median' must be one of"),
        ({"statistic": "patterns"}, "needs two-valued samples"),
        ({"recipe": "guess"}, "recipe='guess' must be one of"),
        ({"members": 1}, "members=1 must be a whole number"),
    ],
)
def test_bad_input_gets_one_line(change: dict[str, Any], message: str) -> None:
    samples, chances = coins(100)
    given = {"samples": samples, "parameters": chances, **change}
    with pytest.raises(ValueError, match=message) as error:
        invariantzoo.estimate_metric(**given)
    assert "\n" not in str(error.value)


def test_samples_without_chance_have_no_metric() -> None:
    chances = np.random.default_rng(0).uniform(size=(100, 1))
    samples = np.repeat(chances[:, None], 4, 1)
    with pytest.raises(ValueError, match="without chance"):
        invariantzoo.estimate_metric(samples, chances, statistic="polynomial")
