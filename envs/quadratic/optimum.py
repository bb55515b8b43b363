"""The largest return that agents of the quadratic task can have, by dynamic programming."""

from __future__ import annotations

import numpy as np

from .regimes import Quadratic

_WIDTHS = 8.0  # of a normal law, that are worth a place on the grid
_QUADRATURE = 21  # points of the mean over noise


def best_return(system: Quadratic, *, heights: int = 200, rates: int = 17) -> float:
    """The largest mean return of an episode.

    Coordinates do not meet, so each has the least loss of its own curvature: that of the best
    choice at every height q h^{1/2} and step, on a grid of `heights` and of `rates` that exponents
    stand for. Raises ValueError for a `rate` that is drawn and not a number.
    """
    if isinstance(system.rate, tuple):
        raise ValueError(f"rate={system.rate!r} must be a number here")
    curvatures = np.geomspace(system.softest, system.stiffest, system.n_agents)
    return -float(
        np.mean([_least_loss(system, system.rate, h, heights, rates) for h in curvatures])
    )


def _least_loss(
    system: Quadratic, rate: float, curvature: float, heights: int, rates: int
) -> float:
    """The least mean loss of one coordinate.

    Its height becomes x' = (1 - s) x + s noise^{1/2} xi, where s lies between rate h and
    rate / noise; the mean over xi is by Gauss-Hermite quadrature.
    """
    grid = np.geomspace(1e-3, _WIDTHS * max(1.0, system.start), heights)
    grid = np.concatenate([[0.0], grid])
    share = np.geomspace(rate * curvature, rate / system.noise, rates)
    xi, weight = np.polynomial.hermite_e.hermegauss(_QUADRATURE)
    weight = weight / weight.sum()
    after = (1 - share)[:, None] * grid[:, None, None] + (share * system.noise**0.5)[:, None] * xi
    place = np.clip(np.searchsorted(grid, np.abs(after)) - 1, 0, grid.size - 2)
    part = (np.abs(after) - grid[place]) / np.diff(grid)[place]
    value, now = np.zeros(grid.size), (after**2 / 2) @ weight
    for _ in range(system.horizon):
        later = ((1 - part) * value[place] + part * value[place + 1]) @ weight
        value = (now + later).min(1)
    width = np.linspace(-_WIDTHS, _WIDTHS, 4001)
    density = np.exp(-(width**2) / 2)
    return float(np.interp(system.start * abs(width), grid, value) @ density / density.sum())
