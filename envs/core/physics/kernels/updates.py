"""Compiled forms of `physics/updates.py`: whose turn is next, and chances to change."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ...kernels.compiling import compiled, compiled_part
from ...kernels.philox import uniform_pair

SEQUENTIAL, CHECKERBOARD, PARALLEL = 0, 1, 2  # places in UPDATES
_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")


class Scores(NamedTuple):
    """Of an episode, what a step reads and fills; see Episode in core/kernel.py."""

    seed: Any
    world: Any
    clock: Any
    reward: Any
    metric: Any


@_part
def drawn_turn(seed: Any, world: Any, clock: Any, n: Any) -> Any:
    """Which of n agents acts next in a world, one of them being drawn."""
    first, _ = uniform_pair(seed, world, clock, 0, 0)
    return np.int64(n * first)


@_part
def bad_choice(action: Any) -> int:
    """-1, or the flat index of an agent whose action [worlds, agents] is neither 0 nor 1."""
    worlds, n = action.shape
    for w in range(worlds):
        for i in range(n):
            if not (action[w, i] == 0 or action[w, i] == 1):
                return w * n + i
    return -1


@_compile
def heat_bath_chance(change: float) -> float:
    """Chance of what adds `change` T to the energy, in a heat bath."""
    return 1.0 / (1.0 + math.exp(min(change, 700.0)))


@_compile
def metropolis_chance(change: float) -> float:
    """Chance of what adds `change` T to the energy, after Metropolis."""
    return math.exp(-max(change, 0.0))
