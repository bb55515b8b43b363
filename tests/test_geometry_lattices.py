"""Metrics of lattices: what a network learns of windows, near samples alone, log Z on a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.envs.ising import exact
from invariantzoo.training.geometry import convolution, log_partition
from invariantzoo.training.geometry.sampling import draw_samples


class Torus(NamedTuple):
    """8 x 8 spins [points, 8, 8, 8]; natural parameters; exact metrics [40, 2, 2] at points."""

    spins: np.ndarray
    natural: np.ndarray
    points: np.ndarray
    metric: np.ndarray


def natural(of: np.ndarray) -> np.ndarray:
    return np.column_stack([1 / of[:, 0], of[:, 1] / of[:, 0]])


@pytest.fixture(scope="module")
def torus() -> Torus:
    system = invariantzoo.make_system(
        "ising-equilibrium-v0",
        lattice_size=8,
        temperature=(2.5, 5.0),
        field=(0.1, 1.0),
        update="checkerboard",
    )
    drawn = draw_samples(system, points=2000, per_point=8, sweeps=100)
    points = natural(np.random.default_rng(1).uniform([2.7, 0.2], [4.8, 0.9], (40, 2)))
    metric = np.array([exact.moments(8, *point).covariance for point in points])
    return Torus(drawn.samples, natural(drawn.parameters), points, metric)


def relative_error(value: np.ndarray, exact: np.ndarray) -> float:
    norm = np.linalg.norm(exact, axis=(1, 2))
    return float(np.median(np.linalg.norm(value - exact, axis=(1, 2)) / norm))


def scale(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.median(np.trace(value, axis1=1, axis2=2) / np.trace(exact, axis1=1, axis2=2)))


def test_a_network_learns_the_statistic_of_spins_and_its_scale(torus: Torus) -> None:
    metric = invariantzoo.estimate_metric(
        torus.spins, torus.natural, recipe="swap", statistic="convolution", members=2
    )
    assert metric.statistic == "convolution"
    assert relative_error(metric(torus.points), torus.metric) < 0.12
    assert abs(scale(metric(torus.points), torus.metric) - 1) < 0.1


def test_a_network_learns_in_coordinates_that_are_not_natural(torus: Torus) -> None:
    turned = np.exp(torus.natural)
    metric = invariantzoo.estimate_metric(torus.spins, turned, statistic="convolution", members=2)
    change = np.eye(2) / np.exp(torus.points)[:, None]  # of natural parameters by these
    exact_metric = np.swapaxes(change, 1, 2) @ torus.metric @ change
    assert relative_error(metric(np.exp(torus.points)), exact_metric) < 0.2


def test_windows_that_are_counted_make_the_sum_over_sites() -> None:
    spins = np.random.default_rng(0).integers(0, 2, (30, 3, 5, 7))
    windows = convolution.read_windows(spins)
    assert isinstance(windows, convolution.Windows)
    assert windows.counts.shape[2] <= 102  # of 512, up to turns and mirrors
    np.testing.assert_array_equal(windows.counts.sum(2).numpy(), np.full((30, 3), 35))
    torch.manual_seed(0)
    net = convolution._Net(2, None).double()
    sites = torch.from_numpy((spins - spins.mean()) / spins.std()).reshape(-1, 5, 7)
    with torch.no_grad():
        sides = [net.of_sites(sites, turn, m) for turn in range(4) for m in (False, True)]
        slow = torch.stack(sides).mean(0).reshape(30, 3, 2)
        np.testing.assert_allclose(net.of_windows(windows), slow, rtol=1e-10)


def test_sites_of_many_values_are_seen_as_they_are() -> None:
    rng = np.random.default_rng(0)
    mean = rng.uniform(-0.5, 0.5, (1500, 1))
    sites = mean[:, :, None, None] + rng.normal(size=(1500, 4, 4, 4))  # exp(t sum x - 8 t^2)
    metric = invariantzoo.estimate_metric(
        sites, mean, recipe="swap", statistic="convolution", members=2, steps=200
    )
    points = np.linspace(-0.4, 0.4, 9)[:, None]
    assert relative_error(metric(points), np.full((9, 1, 1), 16.0)) < 0.2


@pytest.mark.parametrize("recipe", ["moments", "swap"])
def test_near_samples_alone(torus: Torus, tmp_path: Path, recipe: str) -> None:
    metric = invariantzoo.estimate_metric(
        torus.spins, torus.natural, recipe=recipe, nearest=300, members=2
    )
    value = metric(torus.points)
    assert relative_error(value, torus.metric) < 0.15
    metric.save(tmp_path / "metric.npz")
    loaded = invariantzoo.load_metric(tmp_path / "metric.npz")
    np.testing.assert_array_equal(loaded(torus.points), value)
    for i, step in enumerate(1e-6 * np.eye(2)):
        slopes = metric.with_gradient(torus.points)[1][..., i]
        change = (metric(torus.points + step) - metric(torus.points - step)) / 2e-6
        np.testing.assert_allclose(slopes, change, rtol=1e-4, atol=1e-2)


def test_log_z_of_posteriors_that_are_exact() -> None:
    nodes = log_partition.grid_nodes(2)
    t = np.random.default_rng(0).uniform(-0.9, 0.9, (400, 2))

    def potential(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = t.T
        slopes = np.stack([3 * x + y + x**2, 2 * y + x + y**3], -1)
        return 1.5 * x**2 + x * y + y**2 + x**3 / 3 + y**4 / 4, slopes

    value, slope = potential(t)
    way = nodes - t[:, None]
    divergence = potential(nodes)[0] - value[:, None] - (way * slope[:, None]).sum(-1)
    posterior = np.exp(-8 * divergence)
    posterior /= posterior.sum(1, keepdims=True)
    weights = log_partition.fit_log_partition(posterior, t, nodes, 8, 4)
    off = log_partition.products(t, 4) @ weights - value
    line = np.column_stack([np.ones(len(t)), t])
    rest = off - line @ np.linalg.lstsq(line, off, rcond=None)[0]
    assert np.abs(rest).max() < 0.01


def test_the_chain_of_posteriors_and_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    odds = rng.uniform(-2, 2, (2000, 1))
    coins = (rng.uniform(size=(2000, 8, 1)) < 1 / (1 + np.exp(-odds))[:, None]).astype(float)
    metric = invariantzoo.estimate_metric(coins, odds, recipe="chain", members=2)
    points = np.linspace(-1.5, 1.5, 20)[:, None]
    chance = 1 / (1 + np.exp(-points))
    exact_metric = (chance * (1 - chance))[:, :, None]
    assert relative_error(metric(points), exact_metric) < 0.15
    assert relative_error(metric.hessian(points), exact_metric) < 0.3
    line = np.column_stack([np.ones(20), points])
    off = metric.log_z(points) - np.log1p(np.exp(points[:, 0]))
    assert np.abs(off - line @ np.linalg.lstsq(line, off, rcond=None)[0]).max() < 0.05
    metric.save(tmp_path / "metric.npz")
    loaded = invariantzoo.load_metric(tmp_path / "metric.npz")
    for way in ("covariance", "hessian", "log_z"):
        np.testing.assert_array_equal(getattr(loaded, way)(points), getattr(metric, way)(points))


@pytest.mark.parametrize(
    ("d", "options", "message"),
    [
        (1, {"nearest": 3}, "nearest=3 must be from 12 to 60 points"),
        (1, {"nearest": 61}, "nearest=61 must be from 12 to 60 points"),
        (4, {"nearest": 60}, "nearest=60 has a grid over 1 to 3 parameters; these are 4"),
        (3, {"recipe": "chain"}, "recipe='chain' has a grid over 1 or 2 parameters; these are 3"),
        (1, {"statistic": "convolution"}, "statistic='convolution' needs samples"),
    ],
)
def test_what_is_refused(d: int, options: dict[str, Any], message: str) -> None:
    rng = np.random.default_rng(0)
    parameters = rng.uniform(size=(60, d))
    with pytest.raises(ValueError, match=message):
        invariantzoo.estimate_metric(rng.normal(size=(60, 4, d)), parameters, **options)
