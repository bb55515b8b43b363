"""Fused runs of long open chains under the policy "hop": 32 worlds to a word, a bit each.

A chain and its reservoir are bent into a ring, and in every world the ring starts at another place.
An attempt draws two places: a random half of the worlds act at the one, the others at the other.
Again and again a random half of the worlds turn by a random angle. So every world sees bonds that
are independent and equally likely, and so are those that two worlds see at one attempt. What two
worlds can share is how far apart the bonds of two attempts lie, where they act at one place in both
and neither turned between; the variance of a mean over worlds is then that of independent worlds
within a few per cent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.philox import MASK
from ..core.kernels.splitmix import TWO32, advance, below, mixed, seed_of, threshold

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")
_U32, _U64 = np.uint32, np.uint64
_ONE = np.uint64(1)
WORD = 32  # worlds to a word
TURNS = 32
LONG = 64  # sites from which chains come in words


@_part
def _turn(ring: Any, out: Any, offset: Any, bits: Any) -> None:
    """`ring` with the worlds of the lower 32 bits turned, by as much as the upper 32 say."""
    bonds = _U64(len(ring))  # unsigned, so that no index counts from the end and loops vectorise
    angle = below(bits, bonds - _ONE) + _ONE
    rest, mask = bonds - angle, _U32(bits)
    for k in range(angle):
        kept = ring[k]
        out[k] = kept ^ ((kept ^ ring[rest + k]) & mask)
    for k in range(rest):
        kept = ring[angle + k]
        out[angle + k] = kept ^ ((kept ^ ring[k]) & mask)
    for b in range(WORD):
        place = offset[b] + np.int32((bits >> _U64(b)) & _ONE) * np.int32(angle)
        offset[b] = place - np.int32(bonds) * np.int32(place >= np.int32(bonds))


@_compile
def word_attempts(
    ring: Any, spare: Any, offset: Any, limit: Any, exits: Any, steps: int, state: Any
) -> Any:
    """The bare kernel of 32 worlds: `steps` attempts each; the two rings as they lie then.

    ring, spare [bonds] uint32: bit b of place offset[b] + j is site j of world b, and of place
    offset[b] its reservoir, which is kept 0. offset [32] int32; limit [2, 32] uint64 as in
    `attempts`, of entry and exit; exits [32] counts who leaves.
    """
    x, bonds = state[0], len(ring)
    first, following = np.full(bonds, -1, np.int16), np.empty(WORD, np.int16)
    block, done, size = max(1, bonds // TURNS), 0, _U64(bonds)
    while done < steps:
        for b in range(WORD):
            first[offset[b]] = -1
        x = advance(x)
        _turn(ring, spare, offset, mixed(x))
        ring, spare = spare, ring
        for b in range(WORD):
            following[b] = first[offset[b]]
            first[offset[b]] = b
        for _ in range(min(block, steps - done)):
            x = advance(x)
            bits = mixed(x)
            x = advance(x)
            acting = mixed(x)
            for _ in range(2):
                i = below(bits, bonds)
                j = (i + _ONE) * _U64(i + _ONE < size)
                here, there = _U64(ring[i]), _U64(ring[j])
                entering, leaving, closed = first[i], first[j], _U64(0)
                while leaving >= 0:
                    bit = _ONE << _U64(leaving)
                    closed |= bit
                    if here & bit & acting:
                        x = advance(x)
                        if (mixed(x) & MASK) < limit[1, leaving]:
                            here ^= bit
                            exits[leaving] += 1
                    leaving = following[leaving]
                hop = here & ~(there | closed) & acting
                here ^= hop
                there ^= hop
                while entering >= 0:
                    bit = _ONE << _U64(entering)
                    if ~there & bit & acting:
                        x = advance(x)
                        if (mixed(x) & MASK) < limit[0, entering]:
                            there ^= bit
                    entering = following[entering]
                ring[i], ring[j] = _U32(here), _U32(there)
                bits <<= _U64(32)
                acting = ~acting
        done += min(block, steps - done)
    state[0] = x
    return ring, spare


@_part
def _count_particles(ring: Any, offset: Any, filled: Any, moment: Any) -> None:
    """Particles of every world, and the sum of their sites [32]."""
    bonds = np.int32(len(ring))
    filled[:] = 0
    moment[:] = 0
    for i in range(len(ring)):
        word = ring[i]
        for b in range(WORD):
            taken = np.int32((word >> _U32(b)) & _U32(1))
            site = np.int32(i) - offset[b]
            site += bonds * np.int32(site < 0)
            filled[b] += taken
            moment[b] += taken * site


@_part
def _attempt_own(taken: Any, bond: int, alpha: float, beta: float, chance: float) -> int:
    """One attempt of one world of float sites; its hops."""
    n = len(taken)
    behind = bond == 0 or taken[bond - 1] > 0.0
    free = bond == n or taken[bond] == 0.0
    rate = alpha if bond == 0 else (beta if bond == n else 1.0)
    if not (behind and free and chance < rate):
        return 0
    if bond > 0:
        taken[bond - 1] = 0.0
    if bond < n:
        taken[bond] = 1.0
    return 1


@_compile
def run_words(chain: Any, plan: Any) -> None:
    """A rollout of one attempt at a time, 32 worlds by 32; hops inside at rate 1.

    The first attempt is at the bond whose turn it is. Hops follow from who left and where the
    others are: one hop moves the sum of the sites by 1, or by 1 less the number of bonds.
    chain: the arrays `OpenArrays`; plan: a RolloutPlan. Records hops per step, density and loss.
    """
    occupied, alpha, beta, turn = chain.occupied, chain.alpha, chain.beta, chain.turn
    every, records = plan.every, plan.records
    worlds, n = occupied.shape
    bonds = n + 1
    limit, state = np.empty((2, WORD), np.uint64), np.empty(1, np.uint64)
    offset, counts = np.empty(WORD, np.int32), np.empty((4, WORD), np.int64)
    exits, filled, before, after = counts[0], counts[1], counts[2], counts[3]
    ring, spare = np.empty(bonds, np.uint32), np.empty(bonds, np.uint32)
    for low in range(0, worlds, WORD):
        x = seed_of(plan.seed, plan.world[low], plan.clock[low], 0)
        ring[:] = 0
        exits[:] = 0
        for b in range(WORD):
            taken = occupied[low + b]
            limit[0, b], limit[1, b] = threshold(alpha[low + b, 0]), threshold(beta[low + b, 0])
            x = advance(x)
            bits = mixed(x)
            offset[b] = below(bits, bonds)
            at, a, z = turn[low + b, 0], alpha[low + b, 0], beta[low + b, 0]
            before[b] = 0
            for j in range(n):
                before[b] += (j + 1) * np.int64(taken[j])
            hop = _attempt_own(taken, at, a, z, (bits & MASK) / TWO32)
            exits[b] += hop if at == n else 0
            for j in range(n):
                place = offset[b] + j + 1
                place -= bonds if place >= bonds else 0
                ring[place] |= _U32(np.int64(taken[j]) << b)
        state[0] = x
        for r in range(len(records)):
            ring, spare = word_attempts(ring, spare, offset, limit, exits, every - (r == 0), state)
            _count_particles(ring, offset, filled, after)
            for b in range(WORD):
                hops = after[b] - before[b] + bonds * exits[b]
                row = records[r, low + b]
                row[0] = hops / every
                row[1] = filled[b] / n
                row[2] = -hops / every / bonds
            for b in range(WORD):
                before[b], exits[b] = after[b], 0
        x = state[0]
        for b in range(WORD):
            for j in range(n):
                place = offset[b] + j + 1
                place -= bonds if place >= bonds else 0
                occupied[low + b, j] = (ring[place] >> _U32(b)) & _U32(1)
            x = advance(x)
            turn[low + b, 0] = np.int64(below(mixed(x), bonds))


def in_words(worlds: int, n_sites: int, hop_probability: float) -> bool:
    """Whether sequential rollouts of so many worlds take 32 at a time."""
    return worlds % WORD == 0 and n_sites >= LONG and hop_probability == 1.0
