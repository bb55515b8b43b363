"""Coordinates on a quadratic loss: the compiled form of `regimes.py`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernel import Episode, Kernel
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled
from ..core.kernels.philox import uniform_pair
from ..core.kernels.reductions import accumulate_metrics, bad_action

_FIRST_DRAW = 0  # of a transition


class Coordinates(NamedTuple):
    """The state, in the order of its fields."""

    q: Any
    curvature: Any
    noise: Any
    exponent: Any
    rate: Any


class Tables(NamedTuple):
    """Numbers that define the observation."""

    limits: np.ndarray  # [2, 3] of the observations


def make_kernel(limits: np.ndarray) -> Kernel:
    """The kernel for observations within `limits` [2, 3]."""
    return Kernel(step, observe, np.zeros(1, np.dtype([("none", float)])), tables=Tables(limits))


@compiled(error_model="numpy")
def _clip(value: float, limits: Any, at: int) -> float:
    return min(max(value, limits[0, at]), limits[1, at])


@compiled(error_model="numpy")
def _write(q: Any, curvature: Any, noise: Any, limits: Any, out: Any) -> None:
    """Observations [n, 3] of one world."""
    for i in range(len(q)):
        out[i, 0] = _clip(q[i] * math.sqrt(curvature[i]), limits, 0)
        out[i, 1] = _clip(math.log10(curvature[i]), limits, 1)
        out[i, 2] = _clip(math.log10(noise[i]), limits, 2)


@compiled(error_model="numpy")
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, Coordinates)
    limits = arrays_at(arrays[0].tables, Tables).limits
    for w in worlds:
        _write(state.q[w], state.curvature[w], state.noise[w], limits, out[w])


@compiled(error_model="numpy")
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    state = arrays_at(arrays[0].state, Coordinates)
    limits = arrays_at(arrays[0].tables, Tables).limits
    episode = arrays_at(arrays[0].episode, Episode)
    n = action.shape[1]
    for w in range(len(action)):
        q, h, noise, alpha = state.q[w], state.curvature[w], state.noise[w], state.exponent[w]
        total, mean, softest, stiffest, radius, angle = 0.0, 0.0, 0, 0, 0.0, 0.0
        for i in range(n):
            if i % 2 == 0:
                a, b = uniform_pair(
                    episode.seed[0], episode.world[w], episode.clock[w], _FIRST_DRAW, i // 2
                )
                radius, angle = math.sqrt(-2.0 * math.log(1.0 - a)), 2.0 * math.pi * b
                kick = radius * math.cos(angle)
            else:
                kick = radius * math.sin(angle)
            alpha[i] = 0.5 * (1.0 + action[w, i, 0])
            slope = h[i] * q[i] + math.sqrt(noise[i]) * kick
            q[i] -= state.rate[w, 0] * slope / math.exp(alpha[i] * math.log(noise[i]))
            loss = 0.5 * h[i] * q[i] ** 2
            episode.reward[w, i] = loss
            total += loss
            mean += alpha[i] / n
            softest = i if h[i] < h[softest] else softest
            stiffest = i if h[i] > h[stiffest] else stiffest
        episode.metric[w, 0] = total
        episode.metric[w, 1] = episode.reward[w, softest]
        episode.metric[w, 2] = episode.reward[w, stiffest]
        episode.metric[w, 3] = mean
        _write(q, h, noise, limits, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1
