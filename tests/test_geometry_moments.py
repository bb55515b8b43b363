"""Moments of a statistic over parameters: covariances from near samples alone."""

from __future__ import annotations

import numpy as np

from invariantzoo.training.geometry.moments import (
    Degrees,
    fit_moments,
    local_covariance,
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
