"""The Fisher metric of whatever made the samples, from samples and parameters alone.

What is given is looked at, a statistic is chosen, every member is fitted (`members`) with the score
of its recipe (`score`); the estimate is `metric.Metric`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from ...envs.core.seeds import require_seed
from ...envs.core.validation import require_choice, require_count
from . import log_partition, statistics
from .convolution import read_windows
from .fields import as_array, require_finite
from .information import independent, without_idle
from .members import SIDES, MemberFits
from .metric import Metric
from .score import RECIPES, Member
from .statistics import Schedule


def estimate_metric(
    samples: Any,
    parameters: Any,
    *,
    recipe: str = "moments",
    statistic: str | Callable[[np.ndarray], Any] = "auto",
    nearest: int | None = None,
    members: int = 4,
    steps: int = 500,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Metric:
    """The Fisher metric in the coordinates of `parameters`, from samples at many of their values.

    samples [points, per point, ...]: per point 1 or more, of any numeric kind.
    parameters [points, d], numpy or torch; [points] for d = 1.
    recipe: how the score is found; see `score`. "swap" and "chain" take the parameters as
        natural ones, "chain" at most two.
    statistic: a name of `STATISTICS`, or a function of samples [points, per point, ...] that gives
        [points, per point, features]. "auto": products of up to 6 numbers, with indicators of
        labels where there are fewer of those than parameters; patterns of two-valued lattices;
        else up to 24 numbers themselves, or the mean, with what a network learns where that tells
        more.
    nearest: points, of all, whose samples alone tell the covariance at a place, for metrics that no
        polynomial follows, such as those of large lattices; of at most three parameters.
    members: fits, in pairs on halves of the points.  steps: of every fit.
    progress: called with the steps done and all there are.
    Raises ValueError for what no metric can be read from: numbers that are not finite, parameters
    or samples that do not vary, samples that follow from the parameters without chance, a
    statistic of fewer numbers than there are parameters.
    """
    require_choice("recipe", recipe, RECIPES)
    if isinstance(statistic, str):
        require_choice("statistic", statistic, statistics.STATISTICS)
    require_count("members", members, 2)
    require_count("steps", steps)
    require_seed("seed", seed)
    x, t = _checked(samples, parameters, bytes_stay=isinstance(statistic, str))
    if nearest is not None:
        _require_nearest(nearest, t)
    if recipe == "chain":
        log_partition.grid_nodes(t.shape[1])
    window = t.min(0), t.max(0)
    t = 2 * (t - window[0]) / (window[1] - window[0]) - 1
    names = ["given"]
    if recipe == "posterior":
        names = ["network"]
    elif isinstance(statistic, str):
        names = statistics.statistic_by_name(x, statistic)
    rng = np.random.default_rng(seed)
    splits = [np.array_split(rng.permutation(len(x)), 2) for _ in range((members + 1) // 2)]
    fitted = MemberFits(t, x.shape[1], recipe, steps, nearest)
    learns = "network" in names
    windows = read_windows(x) if names == ["convolution"] else None
    given = None
    if windows is None and names != ["network"]:
        given = independent(_given(x, names, statistic, seed), t)
        if statistic == "auto" and names == ["polynomial"] and given.shape[2] < t.shape[1]:
            given = independent(np.concatenate([given, statistics.labels(x)], -1), t)
            names = ["polynomial", "labels"]
        if not learns and given.shape[2] < t.shape[1]:
            raise ValueError(
                f"the statistic has {given.shape[2]} independent numbers, fewer than there are "
                f"parameters ({t.shape[1]}): the metric would be singular; statistic= takes a "
                "function that sees more of a sample"
            )
    if given is not None and recipe == "moments":
        given = without_idle(given, t, splits[0])
    total = members * (2 + learns)
    fits: list[Member] = []

    def report() -> None:
        if progress is not None:
            progress(len(fits) * (2 + learns), total)

    while len(fits) < members:
        k = len(fits)
        report()
        here, there = splits[k // 2][k % 2], splits[k // 2][1 - k % 2]
        statistic_here, eta = given, None
        if windows is not None:
            statistic_here = fitted.with_convolution(windows, there, seed + 1000 * k)
        if learns:
            schedule = Schedule(steps, 256, 3e-3)
            features = min(2 * t.shape[1] + 2, 12)
            net = statistics.learned(x, t, there, features, schedule, seed + 1000 * k)
            statistic_here, gained = fitted.with_learned(given, net.features, here)
            if not gained:  # for none, then: a metric is of one statistic
                names, learns, statistic_here = names[:-1], False, given
                if fits:
                    fits.clear()
                    continue
            elif recipe == "posterior":
                eta = _combined(net, statistic_here)
        assert statistic_here is not None
        fits.append(fitted.member(statistic_here, eta, here, there, seed + 1000 * k))
    if progress is not None:
        progress(total, total)
    return Metric(fits, window, recipe=recipe, statistic="+".join(names))


def _combined(net: statistics.Learned, features: np.ndarray) -> nn.Sequential:
    """eta for features that the learned ones are combinations of."""
    rows = features.reshape(-1, features.shape[2])
    target = net.features.reshape(len(rows), -1)
    change = np.linalg.lstsq(rows - rows.mean(0), target - target.mean(0), rcond=None)[0]
    last = net.eta[-1]
    assert isinstance(last, nn.Linear)
    mixed = nn.Linear(last.in_features, features.shape[2], dtype=torch.float64)
    with torch.no_grad():
        mixed.weight.copy_(torch.from_numpy(change) @ last.weight)
        mixed.bias.copy_(torch.from_numpy(change) @ last.bias)
    return nn.Sequential(*list(net.eta)[:-1], mixed)


def _given(
    x: np.ndarray,
    names: list[str],
    statistic: str | Callable[[np.ndarray], Any],
    seed: int,
) -> np.ndarray:
    """What need not be learned by the members [points, per point, features]."""
    if not isinstance(statistic, str):
        h = as_array("statistic(samples)", statistic(x))
        if h.ndim == 2:
            h = h[..., None]
        if h.ndim != 3 or h.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"statistic(samples) has shape {h.shape}; it must be "
                f"[{x.shape[0]}, {x.shape[1]}, features]"
            )
        require_finite("statistic(samples)", h)
        return h
    if "pca-vae" in names:
        return statistics.pca_vae(x, seed)
    return statistics.fixed(x, names)


def _checked(samples: Any, parameters: Any, *, bytes_stay: bool) -> tuple[np.ndarray, np.ndarray]:
    """Samples [points, per point, ...] and parameters [points, d] that can be learned from."""
    x = as_array("samples", samples, bytes_stay=bytes_stay)
    t = as_array("parameters", parameters)
    if t.ndim == 1:
        t = t[:, None]
    if x.ndim < 2 or t.ndim != 2 or len(x) != len(t) or not x.size or not t.size:
        raise ValueError(
            f"samples have shape {x.shape}, parameters {t.shape}; they must be "
            "[points, per point, ...] and [points, d]"
        )
    x = x[..., None] if x.ndim == 2 else x
    if len(x) < 16:
        raise ValueError(f"there are {len(x)} points; 16 at least are needed")
    require_finite("samples", x)
    require_finite("parameters", t)
    for i in np.flatnonzero(t.std(0) <= 1e-12 * np.abs(t).max(0)):
        raise ValueError(f"parameter {i} has the same value {t[0, i]} at all points; it must vary")
    if (x == x.reshape(-1)[0]).all():
        raise ValueError(f"all samples are {x.reshape(-1)[0]}: no metric can be read from them")
    return x, t


def _require_nearest(nearest: Any, t: np.ndarray) -> None:
    d = t.shape[1]
    require_count("nearest", nearest)
    if d not in SIDES:
        raise ValueError(f"nearest={nearest} has a grid over 1 to 3 parameters; these are {d}")
    least = 4 * (1 + d + d * (d + 1) // 2)
    if not least <= nearest <= len(t):
        raise ValueError(f"nearest={nearest} must be from {least} to {len(t)} points")
