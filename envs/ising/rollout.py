"""Compiled twin of `envs/ising/equilibrium.py`, and fused runs under its own policies.

The twin makes one step of every world from the actions it is given. A fused run makes many steps,
draws the policy's actions itself and packs the spins as suits it:

    one attempt after the other    a byte per spin; any update, any bonds
    colours                        a byte per spin and sublattice; heat bath on a checkerboard
    words                          a bit per spin, 64 worlds that share their parameters to a word

Words compare 24 random bits per spin with the chance to be up, most significant first, until all
worlds of a block are decided; every bit of the generator belongs to one world.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from ..core.kernel import Episode, Kernel
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled
from ..core.kernels.philox import MASK, uniform_pair
from ..core.kernels.reductions import accumulate_metrics
from ..core.kernels.splitmix import advance, below, fill, mixed, seed_of, threshold

if TYPE_CHECKING:
    from .equilibrium import Ising, State

SEQUENTIAL, CHECKERBOARD, PARALLEL = 0, 1, 2
HEAT_BATH, METROPOLIS, WOLFF = 0, 1, 2
UPDATES = ("sequential", "checkerboard", "parallel")
POLICIES = ("heat-bath", "metropolis", "wolff")
RECORDED = ("energy", "magnetization", "abs_magnetization", "loss")
WORD, MOST_WORDS = 64, 64  # worlds in a word, words that are updated together
THRESHOLD_BITS = 24

_compile = compiled(error_model="numpy")
_inline = njit(inline="always", error_model="numpy")
_U8, _U32, _U64, _F64 = np.uint8, np.uint32, np.uint64, np.float64
_ALL, _NONE, _ONE = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0), np.uint64(1)


class Spins(NamedTuple):
    """The state, in the order of its fields."""

    spin: Any
    temperature: Any
    field: Any
    coupling: Any
    turn: Any
    ground: Any


class Scratch(NamedTuple):
    """Memory for one world."""

    local: np.ndarray  # [agents] force of the neighbours


PARAMETERS = np.dtype(
    [
        ("update", np.int64),
        ("lattice_size", np.int64),
        ("solves", np.bool_),  # whether it is judged by the ground state
        ("most_aligned", float),  # limits of the observation
        ("most_field", float),
        ("coldest", float),
        ("cooling", float),  # factor of the temperature per step
    ]
)


def make_kernel(n_agents: int, parameters: np.ndarray) -> Kernel:
    """The kernel for worlds of `n_agents` spins."""
    return Kernel(step, observe, parameters, scratch=Scratch(np.empty(n_agents)))


# One step of given actions


@_compile
def _forces(spin: Any, coupling: Any, size: Any, local: Any) -> None:
    """J times the neighbours of every spin of one world [N]."""
    for r in range(size):
        up = (r - 1 if r > 0 else size - 1) * size
        down = (r + 1 if r < size - 1 else 0) * size
        row = r * size
        if len(coupling) == 1:
            j = coupling[0]
            for c in range(size):
                left = c - 1 if c > 0 else size - 1
                right = c + 1 if c < size - 1 else 0
                total = spin[up + c] + spin[down + c] + spin[row + left] + spin[row + right]
                local[row + c] = j * total
        else:
            n = size * size
            for c in range(size):
                left = c - 1 if c > 0 else size - 1
                right = c + 1 if c < size - 1 else 0
                local[row + c] = (
                    coupling[row + c] * spin[row + right]
                    + coupling[row + left] * spin[row + left]
                    + coupling[n + row + c] * spin[down + c]
                    + coupling[n + up + c] * spin[up + c]
                )


@_inline
def _clip(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


@_compile
def _write(
    spin: Any, temperature: float, field: float, local: Any, p: Any, observation: Any
) -> None:
    """Observations of one world whose forces are known."""
    cold = min(1.0 / temperature, p.coldest)
    for i in range(len(spin)):
        observation[i, 0] = _clip(spin[i] * local[i], p.most_aligned)
        observation[i, 1] = _clip(spin[i] * field, p.most_field)
        observation[i, 2] = cold


@_compile
def observe(arrays: Any, parameters: Any, worlds: Any, observation: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state, scratch = arrays_at(arrays[0].state, Spins), arrays_at(arrays[0].scratch, Scratch)
    p, local = parameters[0], scratch.local
    for w in worlds:
        s, heat, h = state.spin[w], state.temperature[w, 0], state.field[w, 0]
        _forces(s, state.coupling[w], p.lattice_size, local)
        _write(s, heat, h, local, p, observation[w])


@_compile
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    worlds, n = action.shape
    flat = action.reshape(-1)
    for m in range(len(flat)):
        if not (flat[m] == 0 or flat[m] == 1):
            return m
    state, scratch = arrays_at(arrays[0].state, Spins), arrays_at(arrays[0].scratch, Scratch)
    episode, p = arrays_at(arrays[0].episode, Episode), parameters[0]
    size, local, turn, metric = p.lattice_size, scratch.local, state.turn, episode.metric
    for w in range(worlds):
        s, h = state.spin[w], state.field[w, 0]
        _forces(s, state.coupling[w], size, local)
        acts = turn[w, 0]
        if p.update == SEQUENTIAL:
            if action[w, acts] == 1:
                s[acts] = -s[acts]
            first, _ = uniform_pair(episode.seed[0], episode.world[w], episode.clock[w], 0, 0)
            turn[w, 0] = np.int64(n * first)
        elif p.update == PARALLEL:
            for i in range(n):
                s[i] *= 1.0 - 2.0 * action[w, i]
        else:
            for r in range(size):
                for i in range(r * size + (r + acts) % 2, (r + 1) * size, 2):
                    s[i] *= 1.0 - 2.0 * action[w, i]
            turn[w, 0] = 1 - acts
        for i in range(n):
            episode.reward[w, i] = -s[i] * (local[i] + h)
        state.temperature[w, 0] *= p.cooling
        _forces(s, state.coupling[w], size, local)
        _write(s, state.temperature[w, 0], h, local, p, observation[w])
        energy, up = 0.0, 0.0
        for i in range(n):
            energy -= s[i] * (0.5 * local[i] + h)
            up += s[i]
        metric[w, 0] = energy / n
        metric[w, 1] = up / n
        metric[w, 2] = abs(up / n)
        if p.solves:
            excess = energy / n - state.ground[w, 0]
            metric[w, 3] = excess
            metric[w, 4] = 1.0 if excess < 1e-9 else 0.0
    accumulate_metrics(episode)
    return -1


# Fused: one attempt after the other


@_compile
def flip_table(policy: int, temperature: float, field: float, coupling: float, table: Any) -> None:
    """Thresholds [2, 9] uint64 of the chance to flip a spin down, up among a sum of -4..4."""
    for up in range(2):
        for n in range(-4, 5):
            change = 2.0 * (2 * up - 1) * (coupling * n + field) / temperature
            if policy == HEAT_BATH:
                chance = 1.0 / (1.0 + math.exp(min(change, 700.0)))
            else:
                chance = math.exp(-max(change, 0.0))
            table[up, n + 4] = threshold(chance)


@_inline
def _around(spin: Any, sign: Any, i: int, size: Any) -> int:
    """Sum of the four neighbours of spin i, each times the sign of its bond."""
    n = size * size
    c = i % size
    right = i + 1 if c < size - 1 else i + 1 - size
    left = i - 1 if c > 0 else i - 1 + size
    down = i + size if i < n - size else i + size - n
    up = i - size if i >= size else i - size + n
    if len(sign) == 0:
        return spin[right] + spin[left] + spin[down] + spin[up]
    return (
        sign[i] * spin[right]
        + sign[left] * spin[left]
        + sign[n + i] * spin[down]
        + sign[n + up] * spin[up]
    )


@_compile
def attempts(
    spin: Any, sign: Any, table: Any, size: Any, steps: int, turn: Any, stream: Any
) -> int:
    """`steps` attempts at spins drawn at random, the first at `turn`; returns whose turn is next.

    spin [N] int8; sign of the bonds to the right, then down [2N] int8, or empty if all are 1.
    """
    x, n = stream[0], size * size
    for _ in range(steps):
        x = advance(x)
        bits = mixed(x)
        s = spin[turn]
        around = _around(spin, sign, turn, size)
        if (bits & MASK) < table[(s + 1) >> 1, around + 4]:
            spin[turn] = -s
        turn = np.int64(below(bits, n))
    stream[0] = x
    return turn


@_compile
def sublattice(spin: Any, sign: Any, table: Any, size: Any, turn: Any, stream: Any) -> None:
    """One attempt at every spin of a sublattice."""
    x = stream[0]
    for r in range(size):
        for i in range(r * size + (r + turn) % 2, (r + 1) * size, 2):
            x = advance(x)
            s = spin[i]
            if (mixed(x) & MASK) < table[(s + 1) >> 1, _around(spin, sign, i, size) + 4]:
                spin[i] = -s
    stream[0] = x


@_compile
def all_at_once(spin: Any, before: Any, sign: Any, table: Any, size: Any, stream: Any) -> None:
    """One attempt at every spin, among the neighbours as they were; before [N] is scratch."""
    before[:] = spin
    x = stream[0]
    for i in range(size * size):
        x = advance(x)
        s = before[i]
        if (mixed(x) & MASK) < table[(s + 1) >> 1, _around(before, sign, i, size) + 4]:
            spin[i] = -s
    stream[0] = x


@_compile
def cluster(
    spin: Any,
    sign: Any,
    temperature: float,
    field: float,
    coupling: float,
    size: Any,
    member: Any,
    stack: Any,
    stream: Any,
) -> int:
    """One cluster (Wolff 1989), flipped if the field allows; returns its size.

    The cluster grows along satisfied bonds with chance 1 - exp(-2 |J| / T); a flip that costs
    energy in the field is accepted as Metropolis would. member [N] int8, zero, and stack [N] int64
    are scratch.
    """
    x, n = stream[0], size * size
    bond = threshold(1.0 - math.exp(-2.0 * abs(coupling) / temperature))
    side = 1 if coupling > 0.0 else -1
    x = advance(x)
    first = np.int64(below(mixed(x), n))
    stack[0], member[first], found, at = first, 1, 1, 0
    total = 0
    while at < found:
        i = stack[at]
        at += 1
        total += spin[i]
        c = i % size
        right = i + 1 if c < size - 1 else i + 1 - size
        left = i - 1 if c > 0 else i - 1 + size
        down = i + size if i < n - size else i + size - n
        up = i - size if i >= size else i - size + n
        for way in range(4):
            if way == 0:
                j, b = right, i
            elif way == 1:
                j, b = left, left
            elif way == 2:
                j, b = down, n + i
            else:
                j, b = up, n + up
            satisfied = side * spin[i] * spin[j] * (1 if len(sign) == 0 else sign[b])
            if member[j] == 0 and satisfied > 0:
                x = advance(x)
                if (mixed(x) & MASK) < bond:
                    member[j] = 1
                    stack[found] = j
                    found += 1
    x = advance(x)
    change = 2.0 * field * total / temperature
    flips = (mixed(x) & MASK) < threshold(math.exp(-max(change, 0.0)))
    for m in range(found):
        i = stack[m]
        member[i] = 0
        if flips:
            spin[i] = -spin[i]
    stream[0] = x
    return found


@_compile
def measure(spin: Any, sign: Any, field: float, coupling: float, size: Any, row: Any) -> None:
    """Energy, magnetization, its size and the mean loss at rest, per spin, of spins [N] int8."""
    n = size * size
    bonds: Any = 0
    m: Any = 0
    for i in range(n):
        bonds += spin[i] * _around(spin, sign, i, size)
        m += spin[i]
    _record(0.5 * bonds, float(m), field, coupling, n, row)


@_inline
def _record(bonds: float, m: float, field: float, coupling: float, n: Any, row: Any) -> None:
    row[0] = -(coupling * bonds + field * m) / n
    row[1] = m / n
    row[2] = abs(m) / n
    row[3] = -(2.0 * coupling * bonds + field * m) / n


@_compile
def run_one_by_one(
    spin: Any,
    temperature: Any,
    field: Any,
    coupling: Any,
    turn: Any,
    cooling: float,
    update: int,
    policy: int,
    steps: int,
    every: int,
    seed: Any,
    world: Any,
    clock: Any,
    records: Any,
) -> None:
    """A fused run of any update and any bonds, in place; records [records, worlds, 4]."""
    worlds, n = spin.shape
    size = np.int64(math.sqrt(n) + 0.5)
    small = np.empty(n, np.int8)
    before = np.zeros(n, np.int8)
    stack = np.empty(n if policy == WOLFF else 0, np.int64)
    sign = np.empty(0 if coupling.shape[1] == 1 else 2 * n, np.int8)
    table = np.empty((2, 9), np.uint64)
    stream = np.empty(1, np.uint64)
    sweep = n if update == SEQUENTIAL else 2 if update == CHECKERBOARD else 1
    for w in range(worlds):
        stream[0] = seed_of(seed, world[w], clock[w], 0)
        strength = abs(coupling[w, 0]) if len(sign) else coupling[w, 0]
        for b in range(len(sign)):
            sign[b] = 1 if coupling[w, b] > 0.0 else -1
        for i in range(n):
            small[i] = np.int8(spin[w, i])
        t, h = temperature[w, 0], field[w, 0]
        flip_table(policy, t, h, strength, table)
        done = 0
        while done < steps:
            ahead = min(every - done % every, steps - done)
            if cooling != 1.0:
                ahead = 1
            if policy == WOLFF:
                for moment in range(done, done + ahead):
                    if moment % sweep == 0:
                        cluster(small, sign, t, h, strength, size, before, stack, stream)
            elif update == SEQUENTIAL:
                turn[w, 0] = attempts(small, sign, table, size, ahead, turn[w, 0], stream)
            elif update == CHECKERBOARD:
                for _ in range(ahead):
                    sublattice(small, sign, table, size, turn[w, 0], stream)
                    turn[w, 0] = 1 - turn[w, 0]
            else:
                for _ in range(ahead):
                    all_at_once(small, before, sign, table, size, stream)
            if cooling != 1.0:
                t *= cooling
                flip_table(policy, t, h, strength, table)
            done += ahead
            if done % every == 0:
                measure(small, sign, h, strength, size, records[done // every - 1, w])
        temperature[w, 0] = t
        for i in range(n):
            spin[w, i] = small[i]


# Fused: colours


@_compile
def up_table(temperature: float, field: float, coupling: float, table: Any) -> None:
    """Thresholds [5] uint32 of the heat bath's chance to be up among 0..4 neighbours up."""
    for n in range(5):
        chance = 1.0 / (1.0 + math.exp(-2.0 * (coupling * (2 * n - 4) + field) / temperature))
        table[n] = _U32(min(threshold(chance), MASK))


@_compile
def colour_step(own: Any, other: Any, table: Any, lanes: Any, colour: int) -> None:
    """A heat bath of all spins of one colour; lanes [2, L / 2] uint32 are xoroshiro64*.

    own, other [L, 2 + L / 2] uint8 hold 1 for up, each row between copies of its last and first.
    """
    size, padded = own.shape
    half = padded - 2
    t0, t1, t2, t3, t4 = table[0], table[1], table[2], table[3], table[4]
    x, y = lanes[0], lanes[1]
    for r in range(size):
        side = 0 if (r + colour) % 2 == 0 else 2
        a = other[r - 1 if r > 0 else size - 1][1 : 1 + half]
        b = other[r + 1 if r < size - 1 else 0][1 : 1 + half]
        c = other[r][1 : 1 + half]
        d = other[r][side : side + half]
        mine = own[r][1 : 1 + half]
        for j in range(half):
            s0, s1 = x[j], y[j]
            bits = _U32(s0 * _U32(0x9E3779BB))
            s1 = s1 ^ s0
            x[j] = _U32(_U32(_U32(s0 << _U32(26)) | _U32(s0 >> _U32(6))) ^ s1 ^ _U32(s1 << _U32(9)))
            y[j] = _U32(_U32(s1 << _U32(13)) | _U32(s1 >> _U32(19)))
            n = a[j] + b[j] + c[j] + d[j]
            t = t4 if n == 4 else (t3 if n == 3 else (t2 if n == 2 else (t1 if n == 1 else t0)))
            mine[j] = _U8(bits < t)
        own[r, 0] = own[r, half]
        own[r, half + 1] = own[r, 1]


@_compile
def colour_steps(black: Any, white: Any, table: Any, lanes: Any, steps: int, turn: Any) -> int:
    """The bare kernel: `steps` sublattices in turn; returns whose turn is next."""
    for _ in range(steps):
        if turn == 0:
            colour_step(black, white, table, lanes, 0)
        else:
            colour_step(white, black, table, lanes, 1)
        turn = 1 - turn
    return turn


@_compile
def start_lanes(seed: Any, world: Any, clock: Any, lanes: Any) -> None:
    """Seed lanes [2, n] uint32; none of them is all zeros."""
    for j in range(lanes.shape[1]):
        bits = seed_of(seed, world, clock, j)
        lanes[0, j] = _U32(bits & MASK)
        lanes[1, j] = _U32(bits >> _U64(32)) | _U32(1)


@_compile
def measure_colours(black: Any, white: Any, field: float, coupling: float, row: Any) -> None:
    """As `measure`; every bond has one black end."""
    size, padded = black.shape
    half = padded - 2
    bonds: Any = 0
    ups: Any = 0
    for r in range(size):
        side = 0 if r % 2 == 0 else 2
        a = white[r - 1 if r > 0 else size - 1][1 : 1 + half]
        b = white[r + 1 if r < size - 1 else 0][1 : 1 + half]
        c = white[r][1 : 1 + half]
        d = white[r][side : side + half]
        mine = black[r][1 : 1 + half]
        alike, up = _U32(0), _U32(0)
        for j in range(half):
            s = mine[j]
            alike += _U8(_U8(a[j] ^ s) + _U8(b[j] ^ s) + _U8(c[j] ^ s) + _U8(d[j] ^ s))
            up += _U8(s + c[j])
        bonds += 4 * half - 2 * np.int64(alike)
        ups += np.int64(up)
    n = size * size
    _record(_F64(bonds), _F64(2 * ups - n), field, coupling, n, row)


@_compile
def pack_colours(spin: Any, black: Any, white: Any) -> None:
    """Spins [N] of +-1 to bytes by colour."""
    size, padded = black.shape
    half = padded - 2
    for r in range(size):
        odd = r % 2
        for j in range(half):
            black[r, j + 1] = _U8(spin[r * size + 2 * j + odd] > 0.0)
            white[r, j + 1] = _U8(spin[r * size + 2 * j + 1 - odd] > 0.0)
        for part in (black, white):
            part[r, 0], part[r, half + 1] = part[r, half], part[r, 1]


@_compile
def unpack_colours(black: Any, white: Any, spin: Any) -> None:
    """The reverse of `pack_colours`."""
    size, padded = black.shape
    half = padded - 2
    for r in range(size):
        odd = r % 2
        for j in range(half):
            spin[r * size + 2 * j + odd] = 2.0 * black[r, j + 1] - 1.0
            spin[r * size + 2 * j + 1 - odd] = 2.0 * white[r, j + 1] - 1.0


@_compile
def run_colours(
    spin: Any,
    temperature: Any,
    field: Any,
    coupling: Any,
    turn: Any,
    steps: int,
    every: int,
    seed: Any,
    world: Any,
    clock: Any,
    records: Any,
) -> None:
    """A fused run of the heat bath on a checkerboard with equal bonds, world by world."""
    worlds, n = spin.shape
    size = np.int64(math.sqrt(n) + 0.5)
    black = np.empty((size, size // 2 + 2), np.uint8)
    white = np.empty((size, size // 2 + 2), np.uint8)
    lanes = np.empty((2, size // 2), np.uint32)
    table = np.empty(5, np.uint32)
    for w in range(worlds):
        start_lanes(seed, world[w], clock[w], lanes)
        up_table(temperature[w, 0], field[w, 0], coupling[w, 0], table)
        pack_colours(spin[w], black, white)
        done = 0
        while done < steps:
            ahead = min(every - done % every, steps - done)
            turn[w, 0] = colour_steps(black, white, table, lanes, ahead, turn[w, 0])
            done += ahead
            if done % every == 0:
                row = records[done // every - 1, w]
                measure_colours(black, white, field[w, 0], coupling[w, 0], row)
        unpack_colours(black, white, spin[w])


# Fused: words


@_compile
def word_table(temperature: float, field: float, coupling: float, table: Any) -> None:
    """Bits [24, 5] of the chances to be up, most significant first, as `_decide` combines them."""
    chance = np.empty(5, np.int64)
    for n in range(5):
        up = 1.0 / (1.0 + math.exp(-2.0 * (coupling * (2 * n - 4) + field) / temperature))
        chance[n] = np.int64(min(np.rint(up * (1 << THRESHOLD_BITS)), (1 << THRESHOLD_BITS) - 1))
    for k in range(THRESHOLD_BITS):
        for n in range(5):
            one = (chance[n] >> (THRESHOLD_BITS - 1 - k)) & 1
            table[k, n] = _ALL if one else _NONE
        table[k, 1] ^= table[k, 0]
        table[k, 3] ^= table[k, 2]


# One buffer with parts at fixed distances, so that the loop over words needs no check for overlap.
_X, _Y, _OPEN, _UP = 0, MOST_WORDS, 2 * MOST_WORDS, 3 * MOST_WORDS
_ONES, _TWOS, _FOURS = 4 * MOST_WORDS, 5 * MOST_WORDS, 6 * MOST_WORDS
BUFFER = 7 * MOST_WORDS


@_compile
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


@_inline
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
            _record(_F64(bonds), _F64(m), field, coupling, n, rows[w * WORD + b])


@_compile
def run_words(
    spin: Any,
    temperature: Any,
    field: Any,
    coupling: Any,
    turn: Any,
    steps: int,
    every: int,
    seed: Any,
    world: Any,
    clock: Any,
    records: Any,
) -> None:
    """A fused run of blocks of 64 worlds that share their parameters and whose turn it is."""
    worlds, n = spin.shape
    size = np.int64(math.sqrt(n) + 0.5)
    q = np.empty(BUFFER, np.uint64)
    table = np.empty((THRESHOLD_BITS, 5), np.uint64)
    planes = np.empty((2, 48), np.uint64)
    first = 0
    while first < worlds:
        last = first + WORD
        while (
            last < worlds
            and last < first + WORD * MOST_WORDS
            and _alike(temperature, field, coupling, turn, first, last)
        ):
            last += WORD
        t, h, j = temperature[first, 0], field[first, 0], coupling[first, 0]
        word_table(t, h, j, table)
        start_words(seed, world[first], clock[first], q)
        spins = np.empty((size, size, (last - first) // WORD), np.uint64)
        pack_words(spin[first:last], spins)
        done, acts = 0, turn[first, 0]
        while done < steps:
            ahead = min(every - done % every, steps - done)
            acts = word_steps(spins, q, table, ahead, acts)
            done += ahead
            if done % every == 0:
                measure_words(spins, h, j, planes, records[done // every - 1, first:last])
        unpack_words(spins, spin[first:last])
        turn[first:last, 0] = acts
        first = last


@_compile
def _alike(temperature: Any, field: Any, coupling: Any, turn: Any, one: int, other: int) -> bool:
    return (
        temperature[one, 0] == temperature[other, 0]
        and field[one, 0] == field[other, 0]
        and coupling[one, 0] == coupling[other, 0]
        and turn[one, 0] == turn[other, 0]
    )


def fused_run(
    system: Ising,
    state: State,
    policy: str,
    steps: int,
    seed: int,
    world: Any,
    clock: Any,
    every: int,
) -> np.ndarray:
    """Move a state of arrays on, in place; records [records, worlds, 4], named by RECORDED."""
    records = np.empty((steps // every, len(state.spin), len(RECORDED)))
    place = (np.uint64(seed), np.asarray(world), np.asarray(clock), records)
    even = system.update == "checkerboard" and system.bonds == "uniform"
    run: Callable[..., None] = run_one_by_one
    if even and policy == "heat-bath" and system.cooling == 1.0:
        run = run_words if in_words(state) else run_colours
        run(*state[:5], steps, every, *place)
        return records
    code = (UPDATES.index(system.update), POLICIES.index(policy))
    run(*state[:5], system.cooling, *code, steps, every, *place)
    return records


def in_words(state: State) -> bool:
    """Whether worlds come in blocks of 64 that share their parameters and whose turn it is."""
    worlds = len(state.spin)
    if worlds % WORD:
        return False
    parts: tuple[Any, ...] = (state.temperature, state.field, state.coupling, state.turn)
    blocks = [part.reshape(-1, WORD) for part in parts]
    return all((block == block[:, :1]).all() for block in blocks)


# Ground states


@_compile
def ground_energy(coupling: Any, field: float, size: Any) -> float:
    """Lowest energy per spin of one world, adding spin by spin (dynamic programming on the torus).

    coupling [1] or [2 L^2]. The lowest energy is kept for every state of the last L spins and of
    the first row, so the work is 4^L L^2.
    """
    rows, n = 1 << size, size * size
    lowest, fresh = np.empty(rows), np.empty(rows)
    best = np.inf
    for start in range(rows):
        lowest[:] = np.inf
        energy = 0.0
        for c in range(size):
            same = ((start >> c) ^ (start >> ((c + 1) % size))) & 1 == 0
            j = coupling[0] if len(coupling) == 1 else coupling[c]
            energy -= (j if same else -j) + (field if (start >> c) & 1 else -field)
        lowest[start] = energy
        for i in range(size, n):
            c = i % size
            above = coupling[0] if len(coupling) == 1 else coupling[n + i - size]
            left = coupling[0] if len(coupling) == 1 else coupling[i - 1]
            around = coupling[0] if len(coupling) == 1 else coupling[i]
            bit = 1 << c
            for a in range(rows):
                up = (a >> c) & 1
                own = -field if up else field
                if c > 0:
                    own -= left if (a >> (c - 1)) & 1 == up else -left
                if c == size - 1:
                    own -= around if a & 1 == up else -around
                like, unlike = lowest[a] - above, lowest[a ^ bit] + above
                fresh[a] = min(like, unlike) + own
            lowest, fresh = fresh, lowest
        for a in range(rows):
            energy = lowest[a]
            for c in range(size):
                j = coupling[0] if len(coupling) == 1 else coupling[n + (size - 1) * size + c]
                energy -= j if ((a ^ start) >> c) & 1 == 0 else -j
            best = min(best, energy)
    return best / n
