"""The entropy of the open exclusion process's bulk passes for its current by F alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import xlogy

from invariantzoo.envs.tasep import exact


def test_the_negative_entropy_of_the_bulk_is_the_current_within_what_f_can_tell() -> None:
    axes = [0.05 + 0.9 * (np.arange(n) + 0.5) / n for n in (200, 201)]  # off the shock line
    alpha, beta = np.meshgrid(*axes)
    gates = np.stack([alpha.ravel(), beta.ravel()])

    def negative_entropy(gates: np.ndarray) -> np.ndarray:
        density = exact.limit_density(*gates)
        return np.asarray(xlogy(density, density) + xlogy(1 - density, 1 - density))

    def slope(values: np.ndarray) -> np.ndarray:
        return np.asarray(values[0] - values[1]) / 2e-7

    potential, current = negative_entropy(gates), exact.limit_current(*gates)
    design = np.column_stack([potential, np.ones(len(potential)), *gates])
    fit = np.linalg.lstsq(design, current, rcond=None)[0]
    assert np.sqrt(np.mean((current - design @ fit) ** 2)) == pytest.approx(0.0031, abs=1e-3)
    for i in range(2):
        step = 1e-7 * np.eye(2)[i][:, None]
        around = (gates + step, gates - step)
        by_gate = slope(np.array([exact.limit_current(*g) for g in around]))
        of_potential = slope(np.array([negative_entropy(g) for g in around]))
        off = by_gate - fit[0] * of_potential - fit[2 + i]
        assert np.sqrt(np.mean(off**2)) == pytest.approx(0.0572, abs=1e-3)
