"""Power laws judged honestly: the exponent on a window, its error, and whether there is one at all.

A density P(q) ~ q^-k on [a, b] has, with y = ln(q / a), L = ln(b / a) and t = k - 1, the density
t exp(-t y) / (1 - exp(-t L)) of y; the likelihood of samples is largest where

    1 / t - L / (exp(t L) - 1) = mean y

and its curvature there is n times the variance of y, 1 / t^2 - L^2 exp(t L) / (exp(t L) - 1)^2.
(A likelihood for a tail without end, applied to a window, is off by its truncation.)

A straight line on logarithmic scales is not enough: what bends slowly looks straight over a decade.
A power law is claimed only where the exponents of successive parts of the window agree and the
distance of Kolmogorov and Smirnov from the fitted law is what chance explains.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ...envs.core.validation import require_number

FEWEST = 50  # samples of a fit
PARTS = 3  # of a window that have to agree, each a decade where it is long enough
AGREE = 0.1  # by how much exponents of parts may differ
CHANCE = 1.4  # times 1 / sqrt(n): larger distances of Kolmogorov and Smirnov are no chance


class PowerLaw(NamedTuple):
    """What samples say of P(q) ~ q^-k on a window.

    exponent, error: k and its standard error.  ks: the largest distance between the distributions
    of samples and law.  decades: exponents of successive parts of the window, a decade each where
    it has three, from below; NaN where fewer than 50 samples lie.  n: samples inside.
    """

    exponent: float
    error: float
    ks: float
    decades: tuple[float, ...]
    n: int
    low: float
    high: float

    @property
    def is_power_law(self) -> bool:
        """Whether the parts agree within 0.1 and the distance is below 1.4 / sqrt(n)."""
        spread = float(np.ptp(self.decades))  # NaN if one of them is: a part without samples
        return spread <= AGREE and self.ks < CHANCE / math.sqrt(self.n)

    @property
    def verdict(self) -> str:
        """In words, with the exponents that run where there is no law."""
        if self.is_power_law:
            return f"power law, k = {self.exponent:.3f} ± {self.error:.2g}"
        running = ", ".join(f"{k:.2f}" for k in self.decades)
        return f"no power law: k = {running} from below"


def fit_power_law(samples: Any, low: float, high: float) -> PowerLaw:
    """Fit P(q) ~ q^-k to samples (any shape) on the window [low, high] and judge the fit.

    Samples outside the window are dropped. Raises ValueError if fewer than 50 lie inside, or if
    samples are NaN.
    """
    require_number("low", low, 0, strict=True)
    require_number("high", high, low, strict=True)
    values = _plain(samples)
    inside = values[(values >= low) & (values <= high)]
    if len(inside) < FEWEST:
        raise ValueError(
            f"samples: {len(inside)} of {len(values)} lie in [{low:g}, {high:g}]; a fit needs "
            f"{FEWEST}"
        )
    y, length = np.sort(np.log(inside / low)), math.log(high / low)
    t = _rate(float(y.mean()), length)
    return PowerLaw(
        1 + t,
        1 / math.sqrt(len(y) * _variance(t, length)),
        _distance(y, t, length),
        _by_part(y, length),
        len(y),
        low,
        high,
    )


def error_by_rows(samples: Any, law: PowerLaw) -> float:
    """Standard error of an exponent where only rows of samples [rows, ...] are independent.

    What pulls at the exponent is summed up by row, as sizes of one row may be large together.
    """
    table = np.asarray(samples, float).reshape(len(samples), -1)
    inside = (table >= law.low) & (table <= law.high)
    y = np.log(np.where(inside, table, law.low) / law.low)
    pull = np.where(inside, y - y.sum() / inside.sum(), 0).sum(1)
    variance = _variance(law.exponent - 1, math.log(law.high / law.low))
    return float(np.sqrt((pull**2).sum()) / (inside.sum() * variance))


def running_exponents(samples: Any, low: float, high: float) -> tuple[float, ...]:
    """Exponents of successive parts of a window, equal in the logarithm: whole decades, or thirds.

    NaN where fewer than 50 samples lie.
    """
    values = _plain(samples)
    inside = values[(values >= low) & (values <= high)]
    return _by_part(np.sort(np.log(inside / low)), math.log(high / low))


def _by_part(y: np.ndarray, length: float) -> tuple[float, ...]:
    """Exponents of successive parts of [0, length], of sorted y [n]."""
    parts = max(PARTS, math.floor(length / math.log(10) + 1e-9))
    each = length / parts
    pieces = np.split(y, np.searchsorted(y, each * np.arange(1, parts)))
    return tuple(
        1 + _rate(float(piece.mean()) - m * each, each) if len(piece) >= FEWEST else math.nan
        for m, piece in enumerate(pieces)
    )


def top_window(samples: Any, decades: float = 3.0, below: float = 1.0) -> tuple[float, float]:
    """A window of so many decades, whose upper end is `below` decades below the 99.9 % quantile.

    Raises ValueError where that quantile is 0.
    """
    require_number("decades", decades, 0, strict=True)
    values = _plain(samples)
    if not len(values):
        raise ValueError("samples: there are none")
    with np.errstate(invalid="ignore"):  # between infinite ones
        top = float(np.quantile(values, 0.999))
    if not 0 < top < math.inf:
        raise ValueError(
            f"samples: their 99.9 % quantile is {top:g}; it must be above 0 and finite"
        )
    high = top * 10**-below
    return high * 10**-decades, high


def _plain(samples: Any) -> np.ndarray:
    """Samples as one row of float64, none of them NaN."""
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu()
        samples = (samples if samples.is_complex() else samples.double()).numpy()
    if np.iscomplexobj(samples):
        raise ValueError("samples are complex; they must be real numbers")
    values = np.asarray(samples, float).ravel()
    missing = int(np.isnan(values).sum())
    if missing:
        raise ValueError(f"samples: {missing} of {len(values)} are NaN")
    return values


def _mean(x: float) -> float:
    """Mean of y / L for x = t L: 1 / x - 1 / (e^x - 1)."""
    if abs(x) < 1e-3:
        return 0.5 - x / 12 + x**3 / 720
    if x < 0:
        return 1 - _mean(-x)
    return 1 / x - 1 / math.expm1(min(x, 700.0))


def _variance(t: float, length: float) -> float:
    """Variance of y."""
    x = abs(t * length)
    if x < 1e-2:
        return length**2 * (1 / 12 - x**2 / 240)
    return length**2 * (1 / x**2 - 0.25 / math.sinh(0.5 * min(x, 700.0)) ** 2)


def _rate(mean: float, length: float) -> float:
    """t with that mean of y, by halving of an interval: the mean falls with t."""
    low, high = -1e4 / length, 1e4 / length
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if length * _mean(middle * length) > mean else (low, middle)
    return 0.5 * (low + high)


def _distance(y: np.ndarray, t: float, length: float) -> float:
    """The largest distance between the distributions of sorted y [n] and of the law."""
    x = t * length
    if abs(x) < 1e-9:
        law = y / length
    elif x > 0:
        law = np.expm1(-t * y) / math.expm1(-x)
    else:  # the same, from the other end, where powers are small
        law = np.exp(t * (length - y)) * np.expm1(t * y) / math.expm1(x)
    steps = np.arange(len(y) + 1) / len(y)
    return float(max(np.abs(law - steps[1:]).max(), np.abs(law - steps[:-1]).max()))
