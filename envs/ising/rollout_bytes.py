"""Fused runs of one attempt after the other: a byte per spin; any update, any bonds."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.philox import MASK
from ..core.kernels.splitmix import advance, below, mixed, seed_of, threshold
from ..core.physics.kernels.updates import (
    CHECKERBOARD,
    PARALLEL,
    SEQUENTIAL,
    heat_bath_chance,
    metropolis_chance,
)
from .policies import COLD

HEAT_BATH, METROPOLIS, WOLFF, COLD_BATH = 0, 1, 2, 3

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")


class WorldParameters(NamedTuple):
    """Of one world: energies."""

    temperature: float
    field: float
    coupling: float


@_part
def flip_table(policy: int, temperature: float, field: float, coupling: float, table: Any) -> None:
    """Thresholds [2, 9] uint64 of the chance to flip a spin down, up among a sum of -4..4."""
    for up in range(2):
        for n in range(-4, 5):
            change = 2.0 * (2 * up - 1) * (coupling * n + field) / temperature
            if policy == METROPOLIS:
                chance = metropolis_chance(change)
            else:
                chance = heat_bath_chance(change / COLD if policy == COLD_BATH else change)
            table[up, n + 4] = threshold(chance)


@compiled_part(error_model="numpy", forceinline=True)
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


@_part
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


@_part
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


@_part
def all_at_once(spin: Any, before: Any, sign: Any, table: Any, size: Any, stream: Any) -> int:
    """One attempt at every spin, among the neighbours as they were; before [N] is scratch.

    Returns the sum over spins, as they are now, times their neighbours, as they were.
    """
    for i in range(len(spin)):
        before[i] = spin[i]
    x = stream[0]
    total: Any = 0
    for i in range(size * size):
        x = advance(x)
        s, around = before[i], _around(before, sign, i, size)
        if (mixed(x) & MASK) < table[(s + 1) >> 1, around + 4]:
            spin[i] = -s
        total += spin[i] * around
    stream[0] = x
    return total


@_compile
def cluster(
    spin: Any, sign: Any, world: WorldParameters, size: Any, member: Any, stack: Any, stream: Any
) -> int:
    """One cluster (Wolff 1989), flipped if the field allows; returns its size.

    The cluster grows along satisfied bonds with chance 1 - exp(-2 |J| / T); a flip that costs
    energy in the field is accepted as Metropolis would. member [N] int8, zero, and stack [N] int64
    are scratch.
    """
    x, n = stream[0], size * size
    bond = threshold(1.0 - math.exp(-2.0 * abs(world.coupling) / world.temperature))
    side = 1 if world.coupling > 0.0 else -1
    x = advance(x)
    first = np.int64(below(mixed(x), n))
    stack[0], member[first], members, at = first, 1, 1, 0
    total = 0
    while at < members:
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
                    stack[members] = j
                    members += 1
    x = advance(x)
    change = 2.0 * world.field * total / world.temperature
    flips = (mixed(x) & MASK) < threshold(metropolis_chance(change))
    for m in range(members):
        i = stack[m]
        member[i] = 0
        if flips:
            spin[i] = -spin[i]
    stream[0] = x
    return members


@_part
def measure(spin: Any, sign: Any, field: float, coupling: float, size: Any, row: Any) -> None:
    """Energy, magnetization, its size and the mean loss at rest, per spin, of spins [N] int8."""
    n = size * size
    bonds: Any = 0
    m: Any = 0
    for r in range(size):
        start, down = r * size, (r + 1 if r < size - 1 else 0) * size
        for c in range(size):
            i = start + c
            s, s_right, s_down = spin[i], spin[i + 1 if c < size - 1 else start], spin[down + c]
            if len(sign) == 0:
                bonds += s * (s_right + s_down)
            else:
                bonds += s * (sign[i] * s_right + sign[n + i] * s_down)
            m += s
    write_record(float(bonds), float(m), field, coupling, n, row)


@_part
def write_record(bonds: float, m: float, field: float, coupling: float, n: Any, row: Any) -> None:
    row[0] = -(coupling * bonds + field * m) / n
    row[1] = m / n
    row[2] = abs(m) / n
    row[3] = -(2.0 * coupling * bonds + field * m) / n


@_compile
def run_one_by_one(state: Any, plan: Any, policy: int, update: int, cooling: float) -> None:
    """A rollout of any update and any bonds, in place; records [records, worlds, 4].

    state: the arrays `Spins`; plan: a RolloutPlan.
    """
    spin, coupling, turn, records = state.spin, state.coupling, state.turn, plan.records
    steps, every = plan.steps, plan.every
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
        stream[0] = seed_of(plan.seed, plan.world[w], plan.clock[w], 0)
        strength = abs(coupling[w, 0]) if len(sign) else coupling[w, 0]
        for b in range(len(sign)):
            sign[b] = 1 if coupling[w, b] > 0.0 else -1
        for i in range(n):
            small[i] = np.int8(spin[w, i])
        t, h = state.temperature[w, 0], state.field[w, 0]
        flip_table(policy, t, h, strength, table)
        done, met = 0, 0
        while done < steps:
            ahead = min(every - done % every, steps - done)
            if cooling != 1.0:
                ahead = 1
            if policy == WOLFF:
                world = WorldParameters(t, h, strength)
                for _ in range(done + -done % sweep, done + ahead, sweep):
                    cluster(small, sign, world, size, before, stack, stream)
            elif update == SEQUENTIAL:
                turn[w, 0] = attempts(small, sign, table, size, ahead, turn[w, 0], stream)
            elif update == CHECKERBOARD:
                for _ in range(ahead):
                    sublattice(small, sign, table, size, turn[w, 0], stream)
                    turn[w, 0] = 1 - turn[w, 0]
            else:
                for _ in range(ahead):
                    met = all_at_once(small, before, sign, table, size, stream)
            if cooling != 1.0:
                t *= cooling
                flip_table(policy, t, h, strength, table)
            done += ahead
            if done % every == 0:
                row = records[done // every - 1, w]
                measure(small, sign, h, strength, size, row)
                if update == PARALLEL and policy != WOLFF:  # neighbours have moved since
                    row[3] = -(strength * met / n + h * row[1])
        state.temperature[w, 0] = t
        for i in range(n):
            spin[w, i] = small[i]
