"""Fused runs under the policy "hop", world by world: a byte per site, or a number per particle.

A run draws the attempts itself. Every world has a generator of its own, also for the choice of the
bond: worlds that shared it would become alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.philox import MASK
from ..core.kernels.splitmix import advance, below, mixed, seed_of, threshold
from .step import gap

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")
_U8 = np.uint8


# Open chain: a byte per site between two that stand for the reservoirs


@_part
def attempts(taken: Any, limit: Any, steps: int, turn: Any, state: Any) -> Any:
    """The bare kernel: `steps` attempts, the first at bond `turn`; hops and whose turn is next.

    taken [sites + 2] uint8 with a full and an empty reservoir at its ends; limit [bonds] uint64: 32
    random bits below it hop; state [1] uint64 of the generator.
    """
    x, bonds, hops = state[0], len(limit), 0
    last = bonds
    for _ in range(steps):
        x = advance(x)
        bits = mixed(x)
        hop = taken[turn] & (taken[turn + 1] ^ _U8(1)) & _U8((bits & MASK) < limit[turn])
        taken[turn] ^= hop
        taken[turn + 1] ^= hop
        taken[0] = 1
        taken[last] = 0
        hops += hop
        turn = np.int64(below(bits, bonds))
    state[0] = x
    return hops, turn


@_part
def sweeps_at_once(taken: Any, limit: Any, steps: int, state: Any) -> int:
    """The same of `steps` steps in which all bonds act; returns the hops."""
    x, bonds, hops = state[0], len(limit), 0
    for _ in range(steps):
        behind = _U8(1)
        for bond in range(bonds):
            x = advance(x)
            ahead = taken[bond + 1]
            hop = behind & (ahead ^ _U8(1)) & _U8((mixed(x) & MASK) < limit[bond])
            taken[bond] ^= hop
            taken[bond + 1] ^= hop
            behind = ahead
            hops += hop
        taken[0] = 1
        taken[bonds] = 0
    state[0] = x
    return hops


@_compile
def run_open(chain: Any, plan: Any, hop_probability: float, parallel: bool) -> None:
    """A rollout of open chains, world by world; records hops per step, density and loss.

    chain: the arrays `OpenArrays`; plan: a RolloutPlan.
    """
    occupied, turn, steps, every = chain.occupied, chain.turn, plan.steps, plan.every
    worlds, n = occupied.shape
    taken, limit = np.empty(n + 2, np.uint8), np.empty(n + 1, np.uint64)
    state = np.empty(1, np.uint64)
    for w in range(worlds):
        state[0] = seed_of(plan.seed, plan.world[w], plan.clock[w], 0)
        limit[:] = threshold(hop_probability)
        limit[0], limit[n] = threshold(chain.alpha[w, 0]), threshold(chain.beta[w, 0])
        taken[0], taken[n + 1] = 1, 0
        for i in range(n):
            taken[i + 1] = _U8(occupied[w, i])
        done = 0
        while done < steps:
            ahead = min(every, steps - done)
            if parallel:
                hops = sweeps_at_once(taken, limit, ahead, state)
            else:
                hops, turn[w, 0] = attempts(taken, limit, ahead, turn[w, 0], state)
            filled = 0
            for i in range(n):
                filled += taken[i + 1]
            row = plan.records[done // every, w]
            row[0] = hops / ahead
            row[1] = filled / n
            row[2] = -hops / ahead / (n + 1)
            done += ahead
        for i in range(n):
            occupied[w, i] = taken[i + 1]


# Ring: a whole number per particle


@_compile
def run_ring(particles: Any, plan: Any, sites: int, hop_probability: float, parallel: bool) -> None:
    """A rollout of rings, world by world; records hops and blocked attempts per step.

    particles: the arrays `RingArrays`; plan: a RolloutPlan.
    """
    position, turn, every, records = particles.position, particles.turn, plan.every, plan.records
    worlds, n = position.shape
    limit = threshold(hop_probability)
    free = np.empty(n, np.bool_)
    for w in range(worlds):
        state = seed_of(plan.seed, plan.world[w], plan.clock[w], 0)
        x, acts = position[w], turn[w, 0]
        for r in range(len(records)):
            hops, crashes = 0, 0
            for _ in range(every):
                if parallel:
                    for i in range(n):
                        free[i] = gap(x, i, sites) > 0
                for j in range(n if parallel else 1):
                    i = j if parallel else acts
                    state = advance(state)
                    bits = mixed(state)
                    if (bits & MASK) < limit:
                        if free[i] if parallel else gap(x, i, sites) > 0:
                            x[i] = x[i] + 1 if x[i] + 1 < sites else 0
                            hops += 1
                        else:
                            crashes += 1
                    if not parallel:
                        acts = np.int64(below(bits, n))
            records[r, w, 0] = hops / every
            records[r, w, 1] = crashes / every
        turn[w, 0] = acts
