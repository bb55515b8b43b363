"""Which features of a statistic tell something of the parameters that the others do not.

Information is the metric that features give, g = D^T C^-1 D with D the derivative of their mean by
the parameters t [points, d] and C their covariance; two halves of the points give it twice.
"""

from __future__ import annotations

import numpy as np
import torch

from .moments import Degrees, fit_moments, powers, summed_up
from .score import slope_of
from .statistics import MOST_FEATURES

_LEAST_REST = 1e-5  # variance of a feature that is not a combination of those before it
_GAIN = 0.06  # part of the information that learned features must add to be kept
_IDLE = 0.004  # part of the information that a feature may take away with it
_LOOKED_AT = 400  # points at which information is compared


def independent(h: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Features of unit variance around a linear fit at t, each without those before it.

    What is a combination of others is left out. Raises ValueError if nothing is left, or if what is
    left has no chance in it.
    """
    rows = h.reshape(-1, h.shape[2])
    size = rows.std(0)
    varies = size > 1e-12 * np.maximum(np.abs(rows).max(0), 1e-300)
    if not varies.any():
        raise ValueError("the statistic is the same for all samples: no metric can be read from it")
    h = (h[..., varies] - rows.mean(0)[varies]) / size[varies]
    corner, column = np.triu_indices(t.shape[1])
    line = np.column_stack([np.ones(len(t)), t, t[:, corner] * t[:, column]])
    fit = line @ np.linalg.lstsq(line, h.mean(1), rcond=None)[0]
    away = (h - fit[:, None]).reshape(-1, h.shape[2])
    covariance = away.T @ away / len(away)
    used: list[int] = []
    for j in range(len(covariance)):
        among = covariance[np.ix_(used, used)]
        along = covariance[used, j]
        rest = covariance[j, j] - (along @ np.linalg.solve(among, along) if used else 0.0)
        if rest > _LEAST_REST and len(used) < MOST_FEATURES:
            used.append(j)
    if not used:
        raise ValueError("the samples follow from the parameters without chance: no finite metric")
    factor = np.linalg.cholesky(covariance[np.ix_(used, used)])
    return np.asarray(np.linalg.solve(factor, h[..., used].reshape(-1, len(used)).T).T).reshape(
        *h.shape[:2], len(used)
    )


def without_idle(h: np.ndarray, t: np.ndarray, halves: list[np.ndarray]) -> np.ndarray:
    """The statistic without the features that tell nothing of the parameters."""
    d = t.shape[1]
    if h.shape[2] <= d:
        return h
    a, b, precision = _information(h, t, *halves)
    weights = [precision @ a, precision @ b]
    metric = np.linalg.inv(_symmetric((a + b) / 2, precision))
    left = list(range(h.shape[2]))
    while len(left) > d:
        loss = np.einsum("tij,tfi,tfj->tf", metric, *weights).real
        loss = (loss / np.diagonal(precision, axis1=1, axis2=2)).mean(0) / d
        f = int(loss.argmin())
        if loss[f] > _IDLE:
            break
        column = precision[:, :, f] / precision[:, f, f][:, None]
        rest = np.delete(np.arange(len(left)), f)
        weights = [(w - column[:, :, None] * w[:, f][:, None])[:, rest] for w in weights]
        precision = precision - column[:, :, None] * precision[:, f][:, None]
        precision = precision[:, rest][:, :, rest]
        del left[f]
    return h[..., left]


def tells_more(
    given: np.ndarray, both: np.ndarray, t: np.ndarray, halves: list[np.ndarray]
) -> bool:
    """Whether both features together tell enough more than the given ones."""
    before, after = _information(given, t, *halves), _information(both, t, *halves)
    base = _symmetric((before[0] + before[1]) / 2, before[2])
    change = _cross(*after) - _cross(*before)
    gain = np.einsum("tij,tji->t", np.linalg.inv(base), change).mean() / t.shape[1]
    return bool(gain >= _GAIN)


def _information(
    h: np.ndarray, t: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dm/dt of two halves [looked at, features, d], and the inverse covariance between."""
    d = t.shape[1]
    degrees = Degrees(3 if len(powers(d, 3)) < len(first) / 10 else 1, 2, 1)
    if h.shape[2] * d > 60:
        degrees = Degrees(degrees.mean, 2 if d <= 3 else 0, 0)
    at = torch.from_numpy(t[:: max(1, len(t) // _LOOKED_AT)])
    slopes, precisions = [], []
    for half in (first, second):
        net = fit_moments(summed_up(h[half], t[half]), degrees)
        slopes.append(slope_of(net.mean, at).detach().numpy())
        root = net(at)[1].detach()
        precisions.append((root.transpose(1, 2) @ root).numpy())
    return slopes[0], slopes[1], (precisions[0] + precisions[1]) / 2


def _symmetric(slope: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """slope^T precision slope [t, d, d], made regular."""
    value = np.swapaxes(slope, 1, 2) @ precision @ slope
    trace = np.trace(value, axis1=1, axis2=2)[:, None, None]
    return value + 1e-6 * (trace + 1e-12) * np.eye(value.shape[1])


def _cross(first: np.ndarray, second: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """The metric [t, d, d] from slopes of two halves, whose noise does not add up."""
    value = np.swapaxes(first, 1, 2) @ precision @ second
    return (value + np.swapaxes(value, 1, 2)) / 2
