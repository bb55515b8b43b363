"""Diffusion whose velocities are known: two Gaussians on a line, and the ideal denoiser of images.

Two Gaussians at +-1 of width s, under dx = -x/2 dt + dW for a time T = 8, stay two Gaussians:
mu = exp(-t/2), variance S^2 = exp(-t) s^2 + 1 - exp(-t). The flow dx/dt = -(x + score)/2, run back,
carries p_T to p_0; its slope is p_T(z) / p_0(x), and steepest at 0:

    log slope = 1/(2 s^2) - mu_T^2 / (2 S_T^2) + log(s / S_T)

The ideal denoiser knows that data are images x_i, each a Gaussian of width s. With the angles of
`diffusion` its velocity is (x cos(phi) - E[x_0 | x]) / sin(phi), exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_TIME = 8.0
_TOLERANCE = 1e-12
_BLOCK = 1024  # latents at once


def _moments(width: float, t: float) -> tuple[float, float]:
    """Mean of the right Gaussian at time t, and the variance of both."""
    fading = math.exp(-t)
    return math.sqrt(fading), fading * width**2 + 1 - fading


def mixture_log_slope(width: float) -> float:
    """Logarithm of the largest slope of the flow of two Gaussians, in closed form."""
    mean, variance = _moments(width, _TIME)
    steepest = 1 / (2 * width**2) - mean**2 / (2 * variance)
    return steepest + math.log(width) - math.log(variance) / 2


def mixture_log_density(width: float, t: float, x: float) -> float:
    """Logarithm of the density at x of the two Gaussians at time t."""
    mean, variance = _moments(width, t)
    near = -((x - np.array([mean, -mean])) ** 2) / (2 * variance)
    return float(np.logaddexp(*near)) - math.log(8 * math.pi * variance) / 2


def integrate_mixture(width: float, noise: float) -> tuple[float, float]:
    """Where the flow takes noise, and the logarithm of its slope, by the variational equation."""
    from scipy.integrate import solve_ivp

    def rates(t: float, state: np.ndarray) -> list[float]:
        mean, variance = _moments(width, t)
        side = math.tanh(mean * state[0] / variance)
        score = (mean * side - state[0]) / variance
        slope = (mean**2 * (1 - side**2) / variance - 1) / variance
        return [-(state[0] + score) / 2, -(1 + slope) / 2]

    tolerances = {"rtol": _TOLERANCE, "atol": _TOLERANCE / 100}
    end = solve_ivp(rates, (_TIME, 0.0), [noise, 0.0], method="DOP853", **tolerances).y[:, -1]
    return float(end[0]), float(end[1])


def ideal_denoiser(
    images: np.ndarray, width: float, *, steps: int = 160
) -> Callable[[np.ndarray], np.ndarray]:
    """The map of latents [m, pixels] to images of the ideal denoiser of images [n, pixels]."""
    step = math.pi / 2 / steps
    squares = (images**2).sum(1)

    def denoised(x: np.ndarray) -> np.ndarray:
        for k in range(steps, 0, -1):
            cos, sin = math.cos(k * step), math.sin(k * step)
            variance = (width * cos) ** 2 + sin**2
            odds = (cos * (x @ images.T) - cos**2 * squares / 2) / variance
            odds = np.exp(odds - odds.max(1, keepdims=True))
            mean = odds @ images / odds.sum(1, keepdims=True)
            mean += width**2 * cos / variance * (x - cos * mean)
            x = x * math.cos(step) - (x * cos - mean) / sin * math.sin(step)
        return x

    return lambda z: np.concatenate([denoised(z[i : i + _BLOCK]) for i in range(0, len(z), _BLOCK)])


def nearest_image(images: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Labels [m] of what [m, pixels] is nearest to, of images [n, pixels]."""
    squares = (images**2).sum(1)
    return lambda x: (squares - 2 * x @ images.T).argmin(1)


class IdealModel:
    """The ideal denoiser of images [n, pixels] as a model: labels are images, features pixels."""

    def __init__(self, images: np.ndarray, width: float, *, steps: int = 160) -> None:
        self._map = ideal_denoiser(images, width, steps=steps)
        self.classify = nearest_image(images)

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """Images [m, pixels] of latents [m, pixels]."""
        return self._map(latents)

    def features(self, images: np.ndarray) -> np.ndarray:
        """The images themselves [m, pixels]."""
        return images
