"""Bookkeeping after every step: the loss becomes a reward, metrics are reduced over the episode."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .binding import arrays_at
from .compiling import compiled_part

MEAN, SUM, MAX, LAST = 0, 1, 2, 3
ACTION_LIMIT = 1 + 1e-6  # of a component: rounding may carry it over the edge of its box
CODES = {"mean": MEAN, "sum": SUM, "max": MAX, "last": LAST}


class Totals(NamedTuple):
    """Of an episode, what is kept up to date after a step; see Episode in core/kernel.py."""

    clock: Any
    age: Any
    reward: Any
    metric: Any
    totals: Any
    reduction: Any
    warm_up: Any


@compiled_part()
def accumulate_metrics(group: Any) -> None:
    """Turn the loss that `reward` [worlds, agents] holds into reward = -loss, in place.

    Reduces the step's metrics into the totals after the warm-up; advances clocks and ages.
    group: the group `episode` of an `address_record`. One compiled loop: numpy would cost more
    than the physics of a small world.
    """
    clock, age, reward, metric, totals, reduction, warm_up = arrays_at(group, Totals)
    worlds, n = reward.shape
    for w in range(worlds):
        for i in range(n):
            reward[w, i] = -reward[w, i]
        for m in range(len(reduction) if age[w] >= warm_up[0] else 0):
            value = metric[w, m]
            if reduction[m] == MAX:
                totals[w, m] = max(totals[w, m], value)
            elif reduction[m] == LAST:
                totals[w, m] = value
            else:
                totals[w, m] += value
        clock[w] += 1
        age[w] += 1


def accumulate_plainly(episode: Any) -> None:
    """`accumulate_metrics` for systems without a compiled form, on the arrays of an Episode."""
    np.negative(episode.reward, out=episode.reward)
    counted = episode.age >= episode.warm_up[0]
    for m, code in enumerate(episode.reduction):
        total, value = episode.totals[:, m], episode.metric[:, m]
        if code == MAX:
            np.maximum(total, value, out=total, where=counted)
        elif code == LAST:
            np.copyto(total, value, where=counted)
        else:
            np.add(total, value, out=total, where=counted)
    episode.clock[:] += 1
    episode.age[:] += 1


def start_totals(episode: Any, worlds: np.ndarray) -> None:
    """Empty the running metrics of the worlds whose indices are given."""
    episode.totals[worlds] = np.where(episode.reduction == MAX, -np.inf, 0.0)


@compiled_part()
def bad_action(action: Any) -> int:
    """-1, or the flat index of an agent whose action [worlds, agents, size] is not in [-1, 1]."""
    worlds, n, size = action.shape
    good = True
    for w in range(worlds):
        for i in range(n):
            for m in range(size):
                good &= abs(action[w, i, m]) <= ACTION_LIMIT  # false for NaN
    if good:
        return -1
    for w in range(worlds):
        for i in range(n):
            for m in range(size):
                if not abs(action[w, i, m]) <= ACTION_LIMIT:
                    return w * n + i
    return -1
