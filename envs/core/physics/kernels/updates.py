"""Compiled forms of `physics/updates.py`: whose turn is next, and chances to change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...kernels.compiling import compiled
from ...kernels.philox import uniform_pair

SEQUENTIAL, CHECKERBOARD, PARALLEL = 0, 1, 2  # places in UPDATES
_compile = compiled(error_model="numpy")


@_compile
def drawn_turn(seed: Any, world: Any, clock: Any, n: Any) -> Any:
    """Which of n agents acts next in a world, one of them being drawn."""
    first, _ = uniform_pair(seed, world, clock, 0, 0)
    return np.int64(n * first)


@_compile
def heat_bath_chance(change: float) -> float:
    """Chance of what adds `change` T to the energy, in a heat bath."""
    return 1.0 / (1.0 + math.exp(min(change, 700.0)))


@_compile
def metropolis_chance(change: float) -> float:
    """Chance of what adds `change` T to the energy, after Metropolis."""
    return math.exp(-max(change, 0.0))
