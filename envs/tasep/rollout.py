"""Compiled twins of `envs/tasep/chain.py`, and fused runs under the policy "hop".

The twins make one step of every world from the actions they are given. A fused run draws the
attempts itself: a byte per site between two that stand for the reservoirs, or a whole number per
particle of a ring. Every world has a generator of its own, also for the choice of the bond: worlds
that shared it would become alike.

Open chains of 64 sites or more come 32 worlds to a word, a bit each. A chain and its reservoir are
bent into a ring, and in every world the ring starts at another place. An attempt draws two places:
a random half of the worlds act at the one, the others at the other. Again and again a random half
of the worlds turn by a random angle. So every world sees bonds that are independent and equally
likely, and so are those that two worlds see at one attempt. What two worlds can share is how far
apart the bonds of two attempts lie, where they act at one place in both and neither turned between;
the variance of a mean over worlds is then that of independent worlds within a few per cent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.kernel import Episode
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled
from ..core.kernels.philox import MASK, uniform_pair
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.kernels.splitmix import TWO32, advance, below, mixed, seed_of, threshold

if TYPE_CHECKING:
    from .chain import Chain, Open, Ring, Traffic

_compile = compiled(error_model="numpy")
_U8, _U32, _U64 = np.uint8, np.uint32, np.uint64
_ONE = np.uint64(1)
WORD = 32  # worlds to a word
TURNS = 32
LONG = 64


# Open chain


@_compile
def _see_bond(taken: Any, bond: int, rate: float, row: Any) -> None:
    behind = taken[bond - 1] if bond > 0 else 1.0
    ahead = taken[bond] if bond < len(taken) else 0.0
    row[0] = behind * (1.0 - ahead)
    row[1] = behind + ahead - 1.0
    row[2] = min(rate, 1.0)


class OpenArrays(NamedTuple):
    """The state of open chains, in the order of its fields."""

    occupied: Any
    alpha: Any
    beta: Any
    turn: Any


OPEN_PARAMETERS = np.dtype([("parallel", np.bool_), ("hop_probability", float), ("sweep", float)])


@_compile
def _see_bonds(taken: Any, alpha: float, beta: float, p: Any, rows: Any) -> None:
    n = len(taken)
    for bond in range(n + 1):
        rate = alpha if bond == 0 else (beta if bond == n else p.hop_probability)
        _see_bond(taken, bond, rate, rows[bond])


@_compile
def see_open(arrays: Any, parameters: Any, worlds: Any, seen: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state, p = arrays_at(arrays[0].state, OpenArrays), parameters[0]
    for w in worlds:
        _see_bonds(state.occupied[w], state.alpha[w, 0], state.beta[w, 0], p, seen[w])


@_compile
def _bad_choice(action: Any) -> int:
    """The flat index of an action that is neither 0 nor 1, or -1."""
    flat = action.reshape(-1)
    for m in range(len(flat)):
        if not (flat[m] == 0 or flat[m] == 1):
            return m
    return -1


@_compile
def step_open(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = _bad_choice(action)
    if bad >= 0:
        return bad
    state, p = arrays_at(arrays[0].state, OpenArrays), parameters[0]
    episode, turn = arrays_at(arrays[0].episode, Episode), state.turn
    worlds, n = state.occupied.shape
    for w in range(worlds):
        taken, hops = state.occupied[w], 0.0
        ahead = 1.0  # what lay behind the bond before the step
        for bond in range(n + 1):
            behind = ahead
            ahead = taken[bond] if bond < n else 0.0
            acts = p.parallel or bond == turn[w, 0]
            hop = behind * (1.0 - ahead) if acts and action[w, bond] == 1 else 0.0
            episode.reward[w, bond] = -hop
            hops += hop
            if hop > 0.0:
                if bond > 0:
                    taken[bond - 1] = 0.0
                if bond < n:
                    taken[bond] = 1.0
        if not p.parallel:
            first, _ = uniform_pair(episode.seed[0], episode.world[w], episode.clock[w], 0, 0)
            turn[w, 0] = np.int64((n + 1) * first)
        episode.metric[w, 0] = hops * p.sweep / (n + 1)
        episode.metric[w, 1] = taken.sum() / n
        _see_bonds(taken, state.alpha[w, 0], state.beta[w, 0], p, observation[w])
    accumulate_metrics(episode)
    return -1


@_compile
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


@_compile
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
def run_open(
    occupied: Any,
    alpha: Any,
    beta: Any,
    turn: Any,
    p: float,
    parallel: bool,
    steps: int,
    every: int,
    seed: Any,
    world: Any,
    clock: Any,
    records: Any,
) -> None:
    """A fused run, world by world."""
    worlds, n = occupied.shape
    taken, limit = np.empty(n + 2, np.uint8), np.empty(n + 1, np.uint64)
    state = np.empty(1, np.uint64)
    for w in range(worlds):
        state[0] = seed_of(seed, world[w], clock[w], 0)
        limit[:] = threshold(p)
        limit[0], limit[n] = threshold(alpha[w, 0]), threshold(beta[w, 0])
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
            row = records[done // every, w]
            row[0] = hops / ahead
            row[1] = filled / n
            row[2] = -hops / ahead / (n + 1)
            done += ahead
        for i in range(n):
            occupied[w, i] = taken[i + 1]


@_compile
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


@_compile
def _weigh(ring: Any, offset: Any, filled: Any, moment: Any) -> None:
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


@_compile
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
def run_words(
    occupied: Any,
    alpha: Any,
    beta: Any,
    turn: Any,
    steps: int,
    every: int,
    seed: Any,
    world: Any,
    clock: Any,
    records: Any,
) -> None:
    """A fused run of one attempt at a time, 32 worlds by 32; hops inside at rate 1.

    The first attempt is at the bond whose turn it is. Hops follow from who left and where the
    others are: one hop moves the sum of the sites by 1, or by 1 less the number of bonds.
    """
    worlds, n = occupied.shape
    bonds = n + 1
    limit, state = np.empty((2, WORD), np.uint64), np.empty(1, np.uint64)
    offset, counts = np.empty(WORD, np.int32), np.empty((4, WORD), np.int64)
    exits, filled, before, after = counts[0], counts[1], counts[2], counts[3]
    ring, spare = np.empty(bonds, np.uint32), np.empty(bonds, np.uint32)
    for low in range(0, worlds, WORD):
        x = seed_of(seed, world[low], clock[low], 0)
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
            _weigh(ring, offset, filled, after)
            for b in range(WORD):
                hops = after[b] - before[b] + bonds * exits[b]
                row = records[r, low + b]
                row[0] = hops / every
                row[1] = filled[b] / n
                row[2] = -hops / every / bonds
            before[:] = after
            exits[:] = 0
        x = state[0]
        for b in range(WORD):
            for j in range(n):
                place = offset[b] + j + 1
                place -= bonds if place >= bonds else 0
                occupied[low + b, j] = (ring[place] >> _U32(b)) & _U32(1)
            x = advance(x)
            turn[low + b, 0] = np.int64(below(mixed(x), bonds))


def fused_open(
    system: Open, state: Chain, steps: int, seed: int, world: Any, clock: Any, every: int
) -> np.ndarray:
    """Move a state of arrays on, in place: hops per step, density, loss [records, worlds, 3]."""
    records = np.empty((steps // every, len(state.occupied), 3))
    parallel = system.update == "parallel"
    place = (np.uint64(seed), np.asarray(world), np.asarray(clock), records)
    compiled: Callable[..., None] = run_open
    if in_words(system, len(state.occupied)):
        compiled = run_words
        compiled(*state, steps, every, *place)
    else:
        compiled(*state, system.hop_probability, parallel, steps, every, *place)
    return records


def in_words(system: Open, worlds: int) -> bool:
    """Whether a fused run takes 32 worlds at a time."""
    whole = worlds % WORD == 0 and system.n_sites >= LONG
    return whole and system.update == "sequential" and system.hop_probability == 1.0


# Ring


@_compile
def _gap(x: Any, i: int, sites: int) -> int:
    """Empty sites ahead of particle i."""
    n = len(x)
    if n == 1:
        return sites - 1
    found = x[i + 1 if i + 1 < n else 0] - x[i] - 1
    return found if found >= 0 else found + sites


class RingArrays(NamedTuple):
    """The state of rings, in the order of its fields."""

    position: Any
    turn: Any


RING_PARAMETERS = np.dtype(
    [
        ("parallel", np.bool_),
        ("n_sites", np.int64),
        ("sight", np.int64),
        ("hop_probability", float),
        ("crash_cost", float),
        ("per_site", float),  # from a count per step to one per site and sweep
    ]
)


@_compile
def _see_particles(x: Any, p: Any, rows: Any) -> None:
    for i in range(len(x)):
        rows[i, 0] = min(_gap(x, i, p.n_sites), p.sight)
        rows[i, 1] = len(x) / p.n_sites
        rows[i, 2] = p.hop_probability


@_compile
def see_ring(arrays: Any, parameters: Any, worlds: Any, seen: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, RingArrays)
    for w in worlds:
        _see_particles(state.position[w], parameters[0], seen[w])


@_compile
def step_ring(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = _bad_choice(action)
    if bad >= 0:
        return bad
    state, p = arrays_at(arrays[0].state, RingArrays), parameters[0]
    episode, turn = arrays_at(arrays[0].episode, Episode), state.turn
    loss, sites = episode.reward, p.n_sites
    worlds, n = state.position.shape
    for w in range(worlds):
        x, hops, crashes = state.position[w], 0.0, 0.0
        for i in range(n):  # losses first: they count what is free before the step
            loss[w, i] = 0.0
            if action[w, i] == 1 and (p.parallel or i == turn[w, 0]):
                free = _gap(x, i, sites) > 0
                loss[w, i] = -1.0 if free else p.crash_cost
                hops += free
                crashes += not free
        for i in range(n):
            if loss[w, i] < 0.0:
                x[i] = x[i] + 1 if x[i] + 1 < sites else 0
        if not p.parallel:
            first, _ = uniform_pair(episode.seed[0], episode.world[w], episode.clock[w], 0, 0)
            turn[w, 0] = np.int64(n * first)
        episode.metric[w, 0] = p.per_site * hops
        episode.metric[w, 1] = p.per_site * crashes
        _see_particles(x, p, observation[w])
    accumulate_metrics(episode)
    return -1


@_compile
def run_ring(
    position: Any,
    turn: Any,
    sites: int,
    p: float,
    parallel: bool,
    steps: int,
    every: int,
    seed: Any,
    world: Any,
    clock: Any,
    records: Any,
) -> None:
    """A fused run, world by world."""
    worlds, n = position.shape
    limit = threshold(p)
    free = np.empty(n, np.bool_)
    for w in range(worlds):
        state = seed_of(seed, world[w], clock[w], 0)
        x, acts = position[w], turn[w, 0]
        for r in range(len(records)):
            hops, crashes = 0, 0
            for _ in range(every):
                if parallel:
                    for i in range(n):
                        free[i] = _gap(x, i, sites) > 0
                for j in range(n if parallel else 1):
                    i = j if parallel else acts
                    state = advance(state)
                    bits = mixed(state)
                    if (bits & MASK) < limit:
                        if free[i] if parallel else _gap(x, i, sites) > 0:
                            x[i] = x[i] + 1 if x[i] + 1 < sites else 0
                            hops += 1
                        else:
                            crashes += 1
                    if not parallel:
                        acts = np.int64(below(bits, n))
            records[r, w, 0] = hops / every
            records[r, w, 1] = crashes / every
        turn[w, 0] = acts


def fused_ring(
    system: Ring, state: Traffic, steps: int, seed: int, world: Any, clock: Any, every: int
) -> np.ndarray:
    """Move a state of arrays on, in place: hops and blocked tries per step [records, worlds, 2]."""
    records = np.empty((steps // every, len(state.position), 2))
    parallel = system.update == "parallel"
    place = (np.uint64(seed), np.asarray(world), np.asarray(clock), records)
    compiled: Callable[..., None] = run_ring
    compiled(*state, system.n_sites, system.hop_probability, parallel, steps, every, *place)
    return records


# Gates


@_compile
def _see_gates(taken: Any, rate: Any, depth: int, rows: Any) -> None:
    n = len(taken)
    first, last, total = 0.0, 0.0, 0.0
    for i in range(n):
        total += taken[i]
        first += taken[i] if i < depth else 0.0
        last += taken[i] if i >= n - depth else 0.0
    rows[0, 0], rows[1, 0] = first / depth, 1.0 - last / depth
    rows[0, 1], rows[1, 1] = total / n, 1.0 - total / n
    rows[0, 2], rows[1, 2] = rate[0], rate[1]


class GatesArrays(NamedTuple):
    """The state of chains between two gates, in the order of its fields."""

    occupied: Any
    hops: Any
    rate: Any


GATES_PARAMETERS = np.dtype([("sweeps", np.int64), ("depth", np.int64), ("cost", float)])


@_compile
def see_gates(arrays: Any, parameters: Any, worlds: Any, seen: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, GatesArrays)
    for w in worlds:
        _see_gates(state.occupied[w], state.rate[w], parameters[0].depth, seen[w])


@_compile
def step_gates(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    state, p = arrays_at(arrays[0].state, GatesArrays), parameters[0]
    episode, rate = arrays_at(arrays[0].episode, Episode), state.rate
    worlds, n = state.occupied.shape
    tries = p.sweeps * (n + 1)
    for w in range(worlds):
        taken, moved = state.occupied[w], 0
        for i in range(2):
            rate[w, i] = 0.5 * (min(max(np.float64(action[w, i, 0]), -1.0), 1.0) + 1.0)
        for block in range((tries + 1) // 2):
            first, second = uniform_pair(
                episode.seed[0], episode.world[w], episode.clock[w], 0, block
            )
            for k in range(2 if 2 * block + 1 < tries else 1):
                drawn = (n + 1) * (first if k == 0 else second)
                bond = np.int64(drawn)
                limit = rate[w, 0] if bond == 0 else (rate[w, 1] if bond == n else 1.0)
                full = bond == 0 or taken[bond - 1] > 0.0
                empty = bond == n or taken[bond] == 0.0
                if full and empty and drawn - bond < limit:
                    if bond > 0:
                        taken[bond - 1] = 0.0
                    if bond < n:
                        taken[bond] = 1.0
                    moved += 1
        hops = moved / tries
        state.hops[w, 0] = hops
        shared = p.cost * (rate[w, 0] + rate[w, 1]) - hops
        episode.reward[w, 0], episode.reward[w, 1] = shared, shared
        episode.metric[w, 0], episode.metric[w, 1] = hops, taken.sum() / n
        episode.metric[w, 2], episode.metric[w, 3] = rate[w, 0], rate[w, 1]
        _see_gates(taken, rate[w], p.depth, observation[w])
    accumulate_metrics(episode)
    return -1
