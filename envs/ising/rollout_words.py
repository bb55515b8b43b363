"""Fused runs of the heat bath on a checkerboard: a bit per spin, 64 worlds to a word.

Words compare 24 random bits per spin with the chance to be up, most significant first, until all
worlds of a block are decided; every bit of the generator belongs to one world.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.splitmix import fill
from ..core.physics.kernels.updates import heat_bath_chance
from .rollout_bytes import write_record

WORD, MOST_WORDS = 64, 64  # worlds in a word, words that are updated together
THRESHOLD_BITS = 24

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")
_U64, _F64 = np.uint64, np.float64
_ALL, _NONE, _ONE = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0), np.uint64(1)


@_compile
def word_table(temperature: float, field: float, coupling: float, table: Any) -> None:
    """Bits [24, 5] of the chances to be up, most significant first, as `_decide` combines them."""
    chance = np.empty(5, np.int64)
    for n in range(5):
        up = heat_bath_chance(-2.0 * (coupling * (2 * n - 4) + field) / temperature)
        chance[n] = np.int64(min(np.rint(up * (1 << THRESHOLD_BITS)), (1 << THRESHOLD_BITS) - 1))
    for k in range(THRESHOLD_BITS):
        for n in range(5):
            bit = (chance[n] >> (THRESHOLD_BITS - 1 - k)) & 1
            table[k, n] = _ALL if bit else _NONE
        table[k, 1] ^= table[k, 0]
        table[k, 3] ^= table[k, 2]


# One buffer with parts at fixed distances, so that the loop over words needs no check for overlap.
_X, _Y, _OPEN, _UP = 0, MOST_WORDS, 2 * MOST_WORDS, 3 * MOST_WORDS
_ONES, _TWOS, _FOURS = 4 * MOST_WORDS, 5 * MOST_WORDS, 6 * MOST_WORDS
BUFFER = 7 * MOST_WORDS


@_part
def _decide(q: Any, table: Any, words: int) -> None:
    """Draw bits (xorshift128+, Vigna 2017) until every spin is known to be up or not."""
    for k in range(THRESHOLD_BITS):
        t0, t01, t2, t23, t4 = table[k, 0], table[k, 1], table[k, 2], table[k, 3], table[k, 4]
        left = _NONE
        for w in range(words):
            s1, s0 = q[_X + w], q[_Y + w]
            bits = s1 + s0
            q[_X + w] = s0
            s1 ^= s1 << _U64(23)
            q[_Y + w] = s1 ^ s0 ^ (s1 >> _U64(18)) ^ (s0 >> _U64(5))
            low = t0 ^ (q[_ONES + w] & t01)
            high = t2 ^ (q[_ONES + w] & t23)
            chance = low ^ (q[_TWOS + w] & (low ^ high))
            chance ^= q[_FOURS + w] & (chance ^ t4)
            undecided = q[_OPEN + w]
            q[_UP + w] |= undecided & chance & ~bits
            undecided &= ~(bits ^ chance)
            q[_OPEN + w] = undecided
            left |= undecided
        if left == _NONE:
            break


@_compile
def word_step(spins: Any, q: Any, table: Any, colour: int) -> None:
    """A heat bath of one colour in spins [L, L, words] uint64; q [BUFFER] holds the generators."""
    size, _, words = spins.shape
    for r in range(size):
        up = r - 1 if r > 0 else size - 1
        down = r + 1 if r < size - 1 else 0
        for c in range((r + colour) % 2, size, 2):
            a, b = spins[up, c], spins[down, c]
            d, e = spins[r, c - 1 if c > 0 else size - 1], spins[r, c + 1 if c < size - 1 else 0]
            for w in range(words):
                first, second = a[w] ^ b[w], d[w] ^ e[w]
                both, other = a[w] & b[w], d[w] & e[w]
                q[_ONES + w] = first ^ second
                q[_TWOS + w] = both ^ other ^ (first & second)
                q[_FOURS + w] = both & other
                q[_OPEN + w] = _ALL
                q[_UP + w] = _NONE
            _decide(q, table, words)
            mine = spins[r, c]
            for w in range(words):
                mine[w] = q[_UP + w]


@_compile
def word_steps(spins: Any, q: Any, table: Any, steps: int, turn: Any) -> int:
    """The bare kernel: `steps` sublattices in turn; returns whose turn is next."""
    for _ in range(steps):
        word_step(spins, q, table, turn)
        turn = 1 - turn
    return turn


@_compile
def start_words(seed: Any, world: Any, clock: Any, q: Any) -> None:
    """Seed the generators of one block from its first world."""
    fill(seed, world, clock, q[: 2 * MOST_WORDS])
    for w in range(MOST_WORDS):
        q[w] |= _ONE


@_compile
def pack_words(spin: Any, spins: Any) -> None:
    """Spins [worlds, N] of +-1 to bits [L, L, words]; world 64 w + b is bit b of word w."""
    size, _, words = spins.shape
    spins[:] = 0
    for w in range(words):
        for b in range(WORD):
            world = spin[w * WORD + b]
            for i in range(size * size):
                if world[i] > 0.0:
                    spins[i // size, i % size, w] |= _ONE << _U64(b)


@_compile
def unpack_words(spins: Any, spin: Any) -> None:
    """The reverse of `pack_words`."""
    size, _, words = spins.shape
    for w in range(words):
        for b in range(WORD):
            world = spin[w * WORD + b]
            for i in range(size * size):
                up = (spins[i // size, i % size, w] >> _U64(b)) & _ONE
                world[i] = 2.0 * up - 1.0


@_part
def _count(bits: Any, planes: Any) -> None:
    """Add one bit per world to counters that hold one binary digit per word [digits] uint64."""
    k = 0
    while bits != _NONE:
        carry = planes[k] & bits
        planes[k] ^= bits
        bits = carry
        k += 1


@_compile
def measure_words(spins: Any, field: float, coupling: float, planes: Any, rows: Any) -> None:
    """As `measure`, of every world; planes [2, 48] uint64 is scratch, rows [worlds, 4]."""
    size, _, words = spins.shape
    n = size * size
    for w in range(words):
        planes[:] = 0
        unlike, ups = planes[0], planes[1]
        for r in range(size):
            down = r + 1 if r < size - 1 else 0
            for c in range(size):
                s = spins[r, c, w]
                _count(s ^ spins[down, c, w], unlike)
                _count(s ^ spins[r, c + 1 if c < size - 1 else 0, w], unlike)
                _count(s, ups)
        for b in range(WORD):
            bonds, m = 2 * n, -n
            for k in range(planes.shape[1]):
                bonds -= np.int64((unlike[k] >> _U64(b)) & _ONE) << (k + 1)
                m += np.int64((ups[k] >> _U64(b)) & _ONE) << (k + 1)
            write_record(_F64(bonds), _F64(m), field, coupling, n, rows[w * WORD + b])


@_compile
def run_words(state: Any, plan: Any) -> None:
    """A rollout of blocks of 64 worlds that share their parameters and whose turn it is.

    state: the arrays `Spins`; plan: a RolloutPlan.
    """
    spin, turn, steps, every = state.spin, state.turn, plan.steps, plan.every
    worlds, n = spin.shape
    size = np.int64(math.sqrt(n) + 0.5)
    q = np.empty(BUFFER, np.uint64)
    table = np.empty((THRESHOLD_BITS, 5), np.uint64)
    planes = np.empty((2, 48), np.uint64)
    first = 0
    while first < worlds:
        last = first + WORD
        while last < worlds and last < first + WORD * MOST_WORDS and _alike(state, first, last):
            last += WORD
        t, h, j = state.temperature[first, 0], state.field[first, 0], state.coupling[first, 0]
        word_table(t, h, j, table)
        start_words(plan.seed, plan.world[first], plan.clock[first], q)
        spins = np.empty((size, size, (last - first) // WORD), np.uint64)
        pack_words(spin[first:last], spins)
        done, acts = 0, turn[first, 0]
        while done < steps:
            ahead = min(every - done % every, steps - done)
            acts = word_steps(spins, q, table, ahead, acts)
            done += ahead
            if done % every == 0:
                rows = plan.records[done // every - 1, first:last]
                measure_words(spins, h, j, planes, rows)
        unpack_words(spins, spin[first:last])
        turn[first:last, 0] = acts
        first = last


@_part
def _alike(state: Any, first: int, second: int) -> bool:
    return (
        state.temperature[first, 0] == state.temperature[second, 0]
        and state.field[first, 0] == state.field[second, 0]
        and state.coupling[first, 0] == state.coupling[second, 0]
        and state.turn[first, 0] == state.turn[second, 0]
    )


def in_words(state: Any) -> bool:
    """Whether worlds come in blocks of 64 that share their parameters and whose turn it is."""
    worlds = len(state.spin)
    if worlds % WORD:
        return False
    shared = (state.temperature, state.field, state.coupling, state.turn)
    blocks = [values.reshape(-1, WORD) for values in shared]
    return all((block == block[:, :1]).all() for block in blocks)
