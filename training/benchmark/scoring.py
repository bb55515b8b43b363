"""What is made of the scores of a benchmark's runs: aggregates with intervals, and curves.

The estimates are those of Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep reinforcement
learning at the edge of the statistical precipice" (arXiv 2108.13264): the interquartile mean over
all runs of all ids, with a bootstrap that draws the runs of each id anew; the share of runs above a
score; and the chance that a run of one is better than a run of another on the same id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..rl.score import iqm

RESAMPLES = 2000
LEVELS = np.linspace(-0.5, 1.5, 81)  # scores at which profiles are taken

Runs = Mapping[str, np.ndarray]  # by id: scores of runs [runs]


def interquartile_mean(runs: Runs, *, seed: int = 0) -> dict[str, Any]:
    """Interquartile mean over all runs of all ids, and its 95 % interval.

    No interval where an id has one run: to draw that anew says nothing of how runs differ.
    """
    scores = [values for values in runs.values() if len(values)]
    if not scores:
        return {"iqm": None, "ci95": [None, None]}
    middle = float(iqm(np.concatenate(scores)))
    if any(len(values) < 2 for values in scores):
        return {"iqm": middle, "ci95": [None, None]}
    resampled = iqm(np.concatenate(_drawn(scores, seed), -1))
    return {"iqm": middle, "ci95": _middle_95(resampled)}


def profile(runs: Runs, *, seed: int = 0) -> dict[str, list[float]]:
    """Share of runs with a score above each of `LEVELS`, and its 95 % interval.

    No interval, low and high of no length, where an id has one run.
    """
    scores = [values for values in runs.values() if len(values)]
    above = (np.concatenate(scores)[:, None] > LEVELS).mean(0)
    if any(len(values) < 2 for values in scores):
        return {"share": above.tolist(), "low": [], "high": []}
    drawn = (np.concatenate(_drawn(scores, seed), -1)[..., None] > LEVELS).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {"share": above.tolist(), "low": low.tolist(), "high": high.tolist()}


def probability_of_improvement(of: Runs, over: Runs, *, seed: int = 0) -> dict[str, Any]:
    """Chance that a run of one is better than a run of the other, ties one half, mean over ids.

    Only ids that both have count; None where there are none. No interval where an id has one run.
    """
    both = [id for id in of if id in over and len(of[id]) and len(over[id])]
    if not both:
        return {"probability": None, "ci95": [None, None], "ids": 0}
    ours, theirs = [of[id] for id in both], [over[id] for id in both]
    value = np.mean([float(_better(x, y)) for x, y in zip(ours, theirs, strict=True)])
    known = {"probability": float(value), "ids": len(both)}
    if any(len(values) < 2 for values in (*ours, *theirs)):
        return {**known, "ci95": [None, None]}
    drawn = np.mean(
        [_better(x, y) for x, y in zip(_drawn(ours, seed), _drawn(theirs, seed + 1), strict=True)],
        0,
    )
    return {**known, "ci95": _middle_95(drawn)}


def mean_interval(values: np.ndarray, *, seed: int = 0) -> list[float]:
    """95 % interval of the mean over runs [runs]."""
    return _middle_95(_drawn([values], seed)[0].mean(-1))


def curve(rows: Sequence[Sequence[tuple[float, float]]], points: np.ndarray) -> list[float | None]:
    """Mean over runs of the last score before each of `points`; None before the first of any run.

    rows: of each run, (steps or seconds, score), rising.
    """
    values = np.full((len(rows), len(points)), np.nan)
    for run, of in enumerate(rows):
        at = np.array([point for point, _ in of])
        score = np.array([value for _, value in of])
        index = np.searchsorted(at, points, side="right") - 1
        here = index >= 0
        values[run, here] = score[index[here]]
    whole = ~np.isnan(values).any(0)
    return [float(values[:, m].mean()) if whole[m] else None for m in range(len(points))]


def _middle_95(drawn: np.ndarray) -> list[float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [float(low), float(high)]


def _drawn(scores: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """The runs of each id drawn anew [resamples, runs]."""
    rng = np.random.default_rng(seed)
    return [values[rng.integers(len(values), size=(RESAMPLES, len(values)))] for values in scores]


def _better(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of pairs in which x [..., n] exceeds y [..., m], ties one half."""
    larger, equal = x[..., :, None] > y[..., None, :], x[..., :, None] == y[..., None, :]
    return (larger + 0.5 * equal).mean((-2, -1))
