"""Moments of a statistic over parameters: covariances from near samples alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invariantzoo.training.geometry.moments import (
    Degrees,
    fit_moments,
    local_covariance,
    local_information,
    summed_up,
)


def test_near_samples_tell_a_covariance_that_no_polynomial_follows() -> None:
    rng = np.random.default_rng(0)
    t = rng.uniform(-1, 1, (3000, 2))

    def covariance(t: np.ndarray) -> np.ndarray:
        scale = 1 + 4 * np.exp(-20 * np.abs(t[:, 0]))
        return scale[:, None, None] * np.array([[1.0, 0.5], [0.5, 1.0]])

    noise = rng.normal(size=(3000, 8, 2))
    h = np.sin(2 * t)[:, None] + np.einsum("pij,pkj->pki", np.linalg.cholesky(covariance(t)), noise)
    net = fit_moments(summed_up(h, t), Degrees(2, 2, 0))
    points = rng.uniform(-0.9, 0.9, (200, 2))
    exact = covariance(points)
    size = np.linalg.norm(exact, axis=(1, 2))
    local = local_covariance(net, h, t, points, 60)
    off = np.linalg.norm(local - exact, axis=(1, 2)) / size
    assert np.median(off) < 0.1
    cusp = np.abs(points[:, 0]) < 0.05
    assert np.median(off[cusp]) < 0.2


def test_the_covariance_is_right_though_the_mean_starts_far_off() -> None:
    rng = np.random.default_rng(0)
    t = rng.uniform(-1, 1, (2000, 1)) + 1e-5 * rng.normal(size=(2000, 2))
    h = 1000 * t.sum(1)[:, None, None] + rng.normal(size=(2000, 8, 1))
    data, degrees = summed_up(h, t), Degrees(1, 1, 0)
    without_the_second = np.array([[True], [True], [False]])
    net = fit_moments(data, degrees, without_the_second)
    with torch.no_grad():
        root = net(torch.from_numpy(t[:50]))[1].numpy()
    assert np.allclose(root, 1, atol=0.1)


def test_the_information_of_near_samples_is_that_of_a_normal_law() -> None:
    rng = np.random.default_rng(0)
    t = rng.uniform(-1, 1, (4000, 2))
    covariance = np.array([[1.0, 0.5], [0.5, 2.0]])
    noise = rng.normal(size=(4000, 8, 2)) @ np.linalg.cholesky(covariance).T
    h = (3 * t + np.stack([t[:, 1] ** 2, 0 * t[:, 0]], 1))[:, None] + noise
    points = rng.uniform(-0.7, 0.7, (200, 2))
    slope = np.tile(3 * np.eye(2), (200, 1, 1))
    slope[:, 0, 1] = 2 * points[:, 1]  # of the first number by the second parameter
    exact = np.swapaxes(slope, 1, 2) @ np.linalg.solve(covariance, slope)
    off = np.linalg.norm(local_information(h, t, points, 600) - exact, axis=(1, 2))
    assert np.median(off / np.linalg.norm(exact, axis=(1, 2))) < 0.1
    few = local_information(h, t, points, 60)  # noise adds a third where it is left in
    traces = np.trace(few, axis1=1, axis2=2) / np.trace(exact, axis1=1, axis2=2)
    assert abs(traces.mean() - 1) < 0.1
    with pytest.raises(ValueError, match="nearest=5 must be at least 12 points"):
        local_information(h, t, points, 5)


def test_the_information_of_many_numbers_of_few_samples_is_not_too_large() -> None:
    """The inverse of a covariance of few samples is; where they are too few, that is said."""
    rng = np.random.default_rng(0)
    n, slope = 24, 3.0
    t = rng.uniform(-1, 1, (8000, 2))
    h = rng.normal(size=(8000, 4, n))
    h[..., :2] += slope * t[:, None]
    points = rng.uniform(-0.8, 0.8, (300, 2))
    traces = np.trace(local_information(h, t, points, 100), axis1=1, axis2=2) / (2 * slope**2)
    assert abs(traces.mean() - 1) < 0.06  # 1.14 with the inverse as it is
    with pytest.raises(ValueError, match="the 100 nearest points of 1 samples are too few for a"):
        local_information(h[:, :1], t, points, 100)
