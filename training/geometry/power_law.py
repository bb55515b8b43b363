"""Power laws judged honestly: the exponent on a window, its error, and whether there is one at all.

A density P(q) ~ q^-k on [a, b] has, with y = ln(q / a), L = ln(b / a) and t = k - 1, the density
t exp(-t y) / (1 - exp(-t L)) of y; the likelihood of samples is largest where

    1 / t - L / (exp(t L) - 1) = mean y

and its curvature there is n times the variance of y, 1 / t^2 - L^2 exp(t L) / (exp(t L) - 1)^2.
(A likelihood for a tail without end, applied to a window, is off by its truncation.)

A straight line on logarithmic scales is not enough: what bends slowly looks straight over a decade.
A power law is claimed only where the exponents of successive parts of the window agree and the
distance of Kolmogorov and Smirnov from the fitted law is what chance explains. Chance explains more
where samples come in groups that go together, as gradients of many parameters do: `in_groups`.
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
_DRAWS, _BINS = 200, 256  # of a bootstrap, and of the window where its distances are read
_GROUPS = 4096  # of samples, that are counted at once


class PowerLaw(NamedTuple):
    """What samples say of P(q) ~ q^-k on a window.

    exponent, error: k and its standard error.  ks: the largest distance between the distributions
    of samples and law.  decades: exponents of successive parts of the window, a decade each where
    it has three, from below; NaN where fewer than 50 samples lie.  n: samples inside.  low, high:
    the window.  bound: what chance explains of ks.
    """

    exponent: float
    error: float
    ks: float
    decades: tuple[float, ...]
    n: int
    low: float
    high: float
    bound: float

    @property
    def is_power_law(self) -> bool:
        """Whether the parts agree within 0.1 and the distance is within what chance explains."""
        spread = float(np.ptp(self.decades))  # NaN if one of them is: a part without samples
        return spread <= AGREE and self.ks < self.bound

    @property
    def verdict(self) -> str:
        """In words, with the exponents that run where there is no law."""
        if self.is_power_law:
            return f"power law, k = {self.exponent:.3f} ± {self.error:.2g}"
        running = ", ".join(f"{k:.2f}" for k in self.decades)
        return f"no power law: k = {running} from below"


def fit_power_law(samples: Any, low: float, high: float) -> PowerLaw:
    """Fit P(q) ~ q^-k to samples (any shape) on the window [low, high] and judge the fit.

    Samples outside the window are dropped. The others are taken for independent: chance explains
    distances up to 1.4 / sqrt(n) (`in_groups` is for others). Raises ValueError if fewer than 50
    lie inside, or if samples are NaN.
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
        CHANCE / math.sqrt(len(y)),
    )


def in_groups(law: PowerLaw, samples: Any) -> PowerLaw:
    """A fit to samples [groups, ...], of which only the groups are independent, with other chances.

    The error sums up by group what pulls at the exponent. The bound is 1.4 times the distance that
    19 of 20 draws of as many groups, with replacement, do not exceed (a bootstrap of the distance,
    fitted anew); for independent samples that distance is about 1 / sqrt(n). Neither gets smaller.
    """
    table = np.asarray(samples, float).reshape(len(samples), -1)
    length, bins = math.log(law.high / law.low), np.arange(1, _BINS + 1) / _BINS
    rng = np.random.default_rng(0)
    below, total = np.zeros((1 + _DRAWS, _BINS)), np.zeros(1 + _DRAWS)
    counts, sums = [], []
    for part in np.array_split(table, math.ceil(len(table) / _GROUPS)):
        inside = (part >= law.low) & (part <= law.high)
        y = np.log(np.where(inside, part, law.low) / law.low)
        counts.append(inside.sum(1))
        sums.append(y.sum(1))
        place = np.minimum((y * (_BINS / length)).astype(int), _BINS - 1)
        place += _BINS * np.arange(len(part))[:, None]
        binned = np.bincount(place[inside], minlength=_BINS * len(part)).reshape(-1, _BINS)
        times = rng.poisson(1.0, (1 + _DRAWS, len(part))).astype(float)
        times[0] = 1.0  # as they are
        below += times @ binned.cumsum(1)
        total += times @ sums[-1]
    count, size = np.concatenate(counts), np.concatenate(sums)
    pull = size - count * (size.sum() / count.sum())
    variance = _variance(law.exponent - 1, length)
    error = math.sqrt((pull**2).sum()) / (count.sum() * variance)
    filled = below[:, -1] > 0
    n = below[filled, -1]
    rates = [_rate(float(mean), length) for mean in total[filled] / n]
    laws = np.array([_share_below(length * bins, rate, length) for rate in rates])
    away = below[filled] / n[:, None] - laws
    distance = float(np.quantile(np.abs(away[1:] - away[0]).max(1), 0.95))
    return law._replace(error=max(law.error, error), bound=max(law.bound, CHANCE * distance))


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
    law = _share_below(y, t, length)
    steps = np.arange(len(y) + 1) / len(y)
    return float(max(np.abs(law - steps[1:]).max(), np.abs(law - steps[:-1]).max()))


def _share_below(y: np.ndarray, t: float, length: float) -> np.ndarray:
    """The distribution of the law at y [n]."""
    x = t * length
    if abs(x) < 1e-9:
        return y / length
    if x > 0:
        return np.asarray(np.expm1(-t * y) / math.expm1(-x))
    # the same, from the other end, where powers are small
    return np.asarray(np.exp(t * (length - y)) * np.expm1(t * y) / math.expm1(x))
