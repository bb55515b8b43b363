"""Diffusion with known velocities: two Gaussians in closed form, the ideal denoiser of images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from invariantzoo.training.geometry import ideal_diffusion as ideal


@pytest.mark.parametrize("width", [0.8, 0.3, 0.1])
def test_log_slope_of_two_gaussians(width: float) -> None:
    end, log_slope = ideal.integrate_mixture(width, 0.0)
    assert end == 0
    assert log_slope == pytest.approx(ideal.mixture_log_slope(width), abs=1e-9)


def test_slopes_are_ratios_of_densities() -> None:
    end, log_slope = ideal.integrate_mixture(0.5, 0.7)
    noisy, clean = (ideal.mixture_log_density(0.5, *at) for at in ((8.0, 0.7), (0.0, end)))
    assert log_slope == pytest.approx(noisy - clean, abs=1e-10)


def test_one_image_is_a_law_in_closed_form() -> None:
    """Data N(m, s^2): the flow takes z to m + s z; the steps' error falls with their size."""
    image = np.linspace(-1, 1, 5)[None]
    z = np.random.default_rng(0).normal(size=(6, 5))
    for width in (0.3, 1.0):
        errors = [
            np.abs(ideal.ideal_denoiser(image, width, steps=n)(z) - image - width * z).max()
            for n in (200, 800)
        ]
        assert errors[1] < max(0.4 * errors[0], 1e-10)
        assert errors[1] < 0.01


def test_images_far_apart_attract() -> None:
    images = np.eye(3) * 4
    ends = ideal.ideal_denoiser(images, 0.01)(np.random.default_rng(0).normal(size=(50, 3)))
    labels = ideal.nearest_image(images)(ends)
    assert set(labels) == {0, 1, 2}
    assert np.linalg.norm(ends - images[labels], axis=1).max() < 0.5
    assert math.isfinite(ends.sum())
