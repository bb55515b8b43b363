"""Bookkeeping after every step, in one compiled call: numpy would cost more than the physics."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.kernels.compiling import compiled

MEAN, SUM, MAX, LAST = 0, 1, 2, 3
_TOLERANCE = 1.0 + 1e-6  # of float32
CODES = {"mean": MEAN, "sum": SUM, "max": MAX, "last": LAST}


@compiled()
def tally(
    reward: Any, metric: Any, totals: Any, how: Any, warm_up: int, clock: Any, age: Any
) -> None:
    """Turn the loss that `reward` [worlds, agents] holds into reward = -loss, in place.

    Reduces metrics [worlds, names] into `totals` after the warm-up; advances clocks and ages.
    """
    worlds, n = reward.shape
    for w in range(worlds):
        for i in range(n):
            reward[w, i] = -reward[w, i]
        for m in range(len(how) if age[w] >= warm_up else 0):
            value = metric[w, m]
            if how[m] == MAX:
                totals[w, m] = max(totals[w, m], value)
            elif how[m] == LAST:
                totals[w, m] = value
            else:
                totals[w, m] += value
        clock[w] += 1
        age[w] += 1


@compiled()
def accumulate_metrics(episode: Any) -> None:
    """The same of an `Episode`'s arrays."""
    tally(
        episode.reward,
        episode.metric,
        episode.totals,
        episode.reduction,
        episode.warm_up[0],
        episode.clock,
        episode.age,
    )


@compiled()
def start_totals(totals: Any, how: Any, worlds: Any) -> None:
    """Empty the running metrics of the worlds whose indices are given."""
    for w in worlds:
        for m in range(len(how)):
            totals[w, m] = -np.inf if how[m] == MAX else 0.0


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
