"""Bookkeeping after every step, in one compiled call: numpy would cost more than the physics."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiling import compiled

MEAN, SUM, MAX, LAST = 0, 1, 2, 3
_TOLERANCE = 1.0 + 1e-6  # of float32
CODES = {"mean": MEAN, "sum": SUM, "max": MAX, "last": LAST}


@compiled()
def accumulate_metrics(episode: Any) -> None:
    """Turn the loss that `episode.reward` [worlds, agents] holds into reward = -loss, in place.

    Reduces the step's metrics into the totals after the warm-up; advances clocks and ages.
    """
    reward, totals, reduction = episode.reward, episode.totals, episode.reduction
    worlds, n = reward.shape
    for w in range(worlds):
        for i in range(n):
            reward[w, i] = -reward[w, i]
        for m in range(len(reduction) if episode.age[w] >= episode.warm_up[0] else 0):
            value = episode.metric[w, m]
            if reduction[m] == MAX:
                totals[w, m] = max(totals[w, m], value)
            elif reduction[m] == LAST:
                totals[w, m] = value
            else:
                totals[w, m] += value
        episode.clock[w] += 1
        episode.age[w] += 1


@compiled()
def start_totals(episode: Any, worlds: Any) -> None:
    """Empty the running metrics of the worlds whose indices are given."""
    for w in worlds:
        for m in range(len(episode.reduction)):
            episode.totals[w, m] = -np.inf if episode.reduction[m] == MAX else 0.0


@compiled()
def bad_action(action: Any) -> int:
    """-1, or the flat index of an agent whose action [worlds, agents, size] is not in [-1, 1]."""
    flat, size = action.reshape(-1), action.shape[2]
    good = True
    for m in range(len(flat)):
        good &= abs(flat[m]) <= _TOLERANCE  # false for NaN
    if good:
        return -1
    for m in range(len(flat)):
        if not abs(flat[m]) <= _TOLERANCE:
            return m // size
    return -1
