"""Philox4x32-10, a counter-based generator (Salmon et al., SC 2011), for numba kernels.

The counter is (block, draw, clock, world) and the key is the seed, so a number depends on who
asks for it and not on how many others are asked for in the same call.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .compiling import compiled, compiled_part

MASK = np.uint64(0xFFFFFFFF)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_S32, _S5, _S6 = np.uint64(32), np.uint64(5), np.uint64(6)
_TWO26, _TWO53 = 67108864.0, 9007199254740992.0


@compiled_part(forceinline=True)
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Four random 32-bit words (held in uint64) for a counter of four words and a key of two."""
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (
            (p1 >> _S32) ^ c1 ^ k0,
            p1 & MASK,
            (p0 >> _S32) ^ c3 ^ k1,
            p0 & MASK,
        )
        k0 = (k0 + _W0) & MASK
        k1 = (k1 + _W1) & MASK
    return c0, c1, c2, c3


@compiled_part(forceinline=True)
def uniform_pair(seed: Any, world: Any, clock: Any, draw: Any, block: Any) -> Any:
    """Two numbers in [0, 1) with 53 random bits; all arguments are whole numbers."""
    key = np.uint64(seed)
    w0, w1, w2, w3 = philox(
        np.uint64(block) & MASK,
        np.uint64(draw) & MASK,
        np.uint64(clock) & MASK,
        np.uint64(world) & MASK,
        key & MASK,
        key >> _S32,
    )
    a = (np.float64(w0 >> _S5) * _TWO26 + np.float64(w1 >> _S6)) / _TWO53
    b = (np.float64(w2 >> _S5) * _TWO26 + np.float64(w3 >> _S6)) / _TWO53
    return a, b


@compiled()
def fill_uniform(
    seed: np.uint64, world: np.ndarray, clock: np.ndarray, draw: int, out: np.ndarray
) -> None:
    """Fill `out` [worlds, n] with numbers in [0, 1)."""
    worlds, n = out.shape
    for w in range(worlds):
        for block in range((n + 1) // 2):
            a, b = uniform_pair(seed, world[w], clock[w], draw, block)
            out[w, 2 * block] = a
            if 2 * block + 1 < n:
                out[w, 2 * block + 1] = b


@compiled()
def fill_normal(
    seed: np.uint64, world: np.ndarray, clock: np.ndarray, draw: int, out: np.ndarray
) -> None:
    """Fill `out` [worlds, n] with standard normal numbers (Box and Muller 1958)."""
    worlds, n = out.shape
    for w in range(worlds):
        for block in range((n + 1) // 2):
            a, b = uniform_pair(seed, world[w], clock[w], draw, block)
            radius = math.sqrt(-2.0 * math.log(1.0 - a))
            out[w, 2 * block] = radius * math.cos(2.0 * math.pi * b)
            if 2 * block + 1 < n:
                out[w, 2 * block + 1] = radius * math.sin(2.0 * math.pi * b)
