"""Fused runs of the heat bath on a checkerboard: a byte per spin and sublattice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.kernels.compiling import compiled
from ..core.kernels.philox import MASK
from ..core.kernels.splitmix import seed_of, threshold
from ..core.physics.kernels.updates import heat_bath_chance
from .rollout_bytes import write_record

_compile = compiled(error_model="numpy")
_U8, _U32, _U64, _F64 = np.uint8, np.uint32, np.uint64, np.float64


@_compile
def up_table(temperature: float, field: float, coupling: float, table: Any) -> None:
    """Thresholds [5] uint32 of the heat bath's chance to be up among 0..4 neighbours up."""
    for n in range(5):
        change = -2.0 * (coupling * (2 * n - 4) + field) / temperature
        table[n] = _U32(min(threshold(heat_bath_chance(change)), MASK))


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
        if turn == 0:  # compiled twice, with a constant colour: small lattices gain a tenth
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
    write_record(_F64(bonds), _F64(2 * ups - n), field, coupling, n, row)


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
        for colour in (black, white):
            colour[r, 0], colour[r, half + 1] = colour[r, half], colour[r, 1]


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
def run_colours(state: Any, plan: Any) -> None:
    """A rollout of the heat bath on a checkerboard with equal bonds, world by world.

    state: the arrays `Spins`; plan: a RolloutPlan.
    """
    spin, field, coupling, turn = state.spin, state.field, state.coupling, state.turn
    steps, every = plan.steps, plan.every
    worlds, n = spin.shape
    size = np.int64(math.sqrt(n) + 0.5)
    black = np.empty((size, size // 2 + 2), np.uint8)
    white = np.empty((size, size // 2 + 2), np.uint8)
    lanes = np.empty((2, size // 2), np.uint32)
    table = np.empty(5, np.uint32)
    for w in range(worlds):
        start_lanes(plan.seed, plan.world[w], plan.clock[w], lanes)
        up_table(state.temperature[w, 0], field[w, 0], coupling[w, 0], table)
        pack_colours(spin[w], black, white)
        done = 0
        while done < steps:
            ahead = min(every - done % every, steps - done)
            turn[w, 0] = colour_steps(black, white, table, lanes, ahead, turn[w, 0])
            done += ahead
            if done % every == 0:
                row = plan.records[done // every - 1, w]
                measure_colours(black, white, field[w, 0], coupling[w, 0], row)
        unpack_colours(black, white, spin[w])
