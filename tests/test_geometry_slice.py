"""Planes through a latent space: exact maps, straight and fractal boundaries, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtr

import invariantzoo

AXES = np.eye(2)


def plane(classify: Any, image: Any = lambda z: z) -> invariantzoo.LatentSlice:
    """Points of the plane as they are."""
    return invariantzoo.LatentSlice(image, np.zeros(2), *AXES, classify=classify, normalise=False)


def mixture_flow(width: float, noise: np.ndarray) -> np.ndarray:
    """Where the flow of diffusion takes noise [m], for two Gaussians at +-1: equal quantiles."""
    fading = math.exp(-8.0)
    spread = math.sqrt(fading * width**2 + 1 - fading)

    def below(x: np.ndarray, mean: float, scale: float) -> np.ndarray:
        return np.asarray((ndtr((x - mean) / scale) + ndtr((x + mean) / scale)) / 2)

    wanted = below(noise, math.sqrt(fading), spread)
    low, high = np.full_like(noise, -9.0), np.full_like(noise, 9.0)
    for _ in range(80):
        middle = (low + high) / 2
        less = below(middle, 1.0, width) < wanted
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return (low + high) / 2


@pytest.mark.parametrize("width", [0.8, 0.5, 0.3])
def test_slope_of_a_mixture_of_two(width: float) -> None:
    """log Lip = 1/(2 s^2) - mu_T^2 / (2 s_T^2) + ln(s / s_T), b = 1, T = 8."""
    fading = math.exp(-8.0)
    spread2 = fading * width**2 + 1 - fading
    exact = 1 / (2 * width**2) - fading / (2 * spread2) + math.log(width / math.sqrt(spread2))
    chart = plane(lambda x: x[:, 0] > 0, lambda z: mixture_flow(width, z[:, 0])[:, None])
    where = chart.crossing([-0.7, 0.2], [0.4, 0.2])
    assert where == pytest.approx([0.0, 0.2], abs=1e-15)
    slopes = chart.zoom(where, [2.0, 0.0], [1e-4, 1e-5])
    assert np.log(slopes) == pytest.approx(exact, abs=1e-6)
    metric = chart.metric([where], step=1e-5)[0]
    assert np.log(metric[0, 0]) / 2 == pytest.approx(exact, abs=1e-6)
    assert metric[1, 1] == metric[0, 1] == 0


def test_latents_have_unit_spread() -> None:
    z = np.random.default_rng(0).normal(size=(3, 50))
    chart = invariantzoo.LatentSlice(lambda latents: latents, *z)
    t = np.array([[0.0, 0.0], [1.0, 0.0], [0.3, -2.0]])
    assert chart.image(t).std(-1) == pytest.approx(1.0)
    assert np.allclose(chart.latent(t)[:2], z[:2] / z[:2].std(-1, keepdims=True))


def test_tensors_are_mapped_as_tensors() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 4).double()
    z = torch.randn(3, 6, dtype=torch.float64)
    chart = invariantzoo.LatentSlice(layer, *z, classify=lambda x: x.argmax(-1), normalise=False)
    jacobian = (layer.weight @ (z[1:] - z[0]).T).detach().numpy()
    assert np.allclose(chart.metric(np.zeros((5, 2))), jacobian.T @ jacobian, rtol=1e-9)
    halved = chart.metric(np.zeros((1, 2)), lambda x: x / 2)
    assert np.allclose(4 * halved, jacobian.T @ jacobian, rtol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, 1.2])
@pytest.mark.parametrize("offset", [-0.1, 0.0137])
def test_straight_boundaries_have_dimension_one(angle: float, offset: float) -> None:
    normal = np.array([math.cos(angle), math.sin(angle)])
    chart = plane(lambda x: x @ normal > offset)
    result = chart.box_dimension([0.0, 0.0], 1.0)
    assert result.dimension == pytest.approx(1.0, abs=0.03)
    along = np.linspace(-1, 1, 20001)[:, None] * [-normal[1], normal[0]] + offset * normal
    chord = 2 * (np.abs(along) < 0.5).all(-1).mean()
    assert result.counts[0] == pytest.approx(256 * chord * np.abs(normal).sum(), rel=0.02)


def snowflake(level: int) -> np.ndarray:
    """Corners [n, 2] of Koch's curve on a triangle, of dimension log 4 / log 3."""
    corners = np.exp(2j * np.pi * np.arange(4) / -3)
    for _ in range(level):
        start, side = corners[:-1, None], np.diff(corners)[:, None]
        tip = 0.5 + 0.5j / math.sqrt(3)
        corners = np.append((start + side * np.array([0, 1 / 3, tip, 2 / 3])).ravel(), corners[-1])
    return np.stack([corners.real, corners.imag], -1)


def test_a_fractal_boundary_has_its_dimension() -> None:
    from matplotlib.path import Path

    inside = Path(snowflake(6)).contains_points
    result = plane(inside).box_dimension([0.0, 0.0], 2.2, resolution=512)
    assert result.dimension == pytest.approx(math.log(4) / math.log(3), abs=0.04)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda s: s.image([0.0, 1.0]), r"t has shape \(2,\)"),
        (lambda s: s.crossing([0.1, 0], [0.2, 0]), "have label 1"),
        (lambda s: s.box_dimension([5.0, 0.0], 1.0), "all of the square of width 1 has label 1"),
        (lambda s: s.box_dimension([0.52, 0.0], 1.0, resolution=64), "has label"),
        (lambda s: s.box_dimension([0.0, 0.0], 1.0, resolution=20), "resolution=20"),
        (lambda s: s.zoom([0, 0], [0, 0], [1.0]), "direction="),
        (lambda s: s.zoom([0, math.nan], [0, 1], [1.0]), r"centre\[1\] is nan"),
        (lambda s: s.metric([[0, 0]], step=0), "step=0"),
        (lambda s: plane(None).label([[0, 0]]), "classify="),
        (lambda s: plane(lambda x: x).label([[0, 0]]), "one label an image"),
        (lambda s: plane(None, lambda z: z[:1]).image([[0, 0], [0, 1]]), "for 2 latents"),
        (
            lambda s: invariantzoo.LatentSlice(abs, *np.ones((3, 4))).image([[0, 0]]),
            "cannot be normalised",
        ),
        (lambda s: invariantzoo.LatentSlice(abs, np.ones(3), *np.ones((2, 4))), r"z1 has shape"),
    ],
)
def test_refusals_name_what_is_wrong(ask: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ask(plane(lambda x: x[:, 0] > 0))
