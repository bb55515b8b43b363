"""Sequential generators for fused runs: one short state per world, lane or word, for speed.

A fused run is another realisation of the law that the step by step form obeys. Its generators are
seeded from Philox, by (seed, world, clock at entry, purpose). Of lattices whose worlds go a bit
each, the 64 of a word share one, so that there a run depends on which worlds are beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiling import compiled, compiled_part
from .philox import MASK, philox

FUSED = 4 << 24  # the draw number of Philox that seeds fused runs
_GOLDEN, _M1, _M2 = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
TWO32 = 4294967296.0


@compiled_part(forceinline=True)
def advance(x: Any) -> Any:
    """The next state of a splitmix64 generator (Steele, Lea and Flood 2014)."""
    return x + _GOLDEN


@compiled_part(forceinline=True)
def mixed(x: Any) -> Any:
    """The 64 random bits that belong to a state."""
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@compiled_part(forceinline=True)
def below(bits: Any, n: Any) -> Any:
    """A whole number in [0, n) from the upper 32 of 64 bits (Lemire 2019, without rejection)."""
    return ((bits >> _S32) * np.uint64(n)) >> _S32


@compiled()
def seed_of(seed: Any, world: Any, clock: Any, block: Any) -> Any:
    """64 bits that start stream `block` of a world at a clock."""
    key = np.uint64(seed)
    w0, w1, _, _ = philox(
        np.uint64(block) & MASK,
        np.uint64(FUSED),
        np.uint64(clock) & MASK,
        np.uint64(world) & MASK,
        key & MASK,
        key >> _S32,
    )
    return (w0 << _S32) | w1


@compiled()
def fill(seed: Any, world: Any, clock: Any, out: Any) -> None:
    """Start as many streams [n] uint64 of one world as `out` has places."""
    for block in range(len(out)):
        out[block] = seed_of(seed, world, clock, block)


@compiled()
def threshold(chance: float) -> Any:
    """The number below which 32 random bits lie with that chance."""
    return np.uint64(min(max(np.rint(chance * TWO32), 0.0), TWO32))
