"""Where discs start and where they go: random places that keep a distance, compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.kernels.compiling import compiled
from ..core.kernels.splitmix import advance, mixed

_TWO64 = 2.0**64


@compiled()
def place_apart(seeds: Any, side: Any, apart: float, out: Any) -> None:
    """Fill `out` [worlds, n, 2] with random places in squares around the origin.

    seeds [worlds] uint64, one generator each; side [worlds] of the squares; apart: least distance
    between two places of a world. One after another is drawn until it is far enough from all
    before it; cells of that distance over the root of two hold one place each.
    """
    n = out.shape[1]
    for w in range(len(seeds)):
        state, length = seeds[w], side[w]
        cells = max(int(length / (apart / math.sqrt(2.0))), 1)
        scale = cells / length
        who = np.full((cells + 4, cells + 4), -1, np.int32)  # two empty rows around
        for i in range(n):
            free = False
            while not free:
                state = advance(state)
                x = mixed(state) / _TWO64 * length
                state = advance(state)
                y = mixed(state) / _TWO64 * length
                cx, cy = min(int(x * scale), cells - 1) + 2, min(int(y * scale), cells - 1) + 2
                free = who[cy, cx] < 0
                for oy in range(-2, 3):
                    for ox in range(-2, 3):
                        j = who[cy + oy, cx + ox]
                        if j >= 0:
                            dx, dy = out[w, j, 0] - x, out[w, j, 1] - y
                            free &= dx * dx + dy * dy >= apart * apart
            out[w, i, 0], out[w, i, 1] = x, y
            who[cy, cx] = i
        for i in range(n):
            out[w, i, 0] -= 0.5 * length
            out[w, i, 1] -= 0.5 * length
