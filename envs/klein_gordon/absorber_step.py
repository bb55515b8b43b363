"""Compiled twin of `absorber.py`: one step of every world from given boundary values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.reductions import accumulate_metrics
from ..core.physics.kernels.updates import Scores

_compile = compiled(error_model="numpy", fastmath={"contract"})
_part = compiled_part(error_model="numpy", fastmath={"contract"})

PARAMETERS = np.dtype(
    [
        ("squared_mass", float),
        ("squared_step", float),
        ("dt", float),
        ("reach", float),
        ("mur", float),  # r of Mur's law
        ("pad", np.int64),
        ("most", float),  # limit of what is seen
    ]
)


class Memory(NamedTuple):
    """The exact law of the open boundary."""

    law: Any  # [delays, modes]
    modes: Any  # [modes, sites]


class Scratch(NamedTuple):
    """Memory for one lattice."""

    line: Any  # [length with what lies beyond, sites]
    wave: Any  # [modes]


class Lattices(NamedTuple):
    """The state, in the order of its fields."""

    phi: Any
    before: Any
    earlier: Any
    memory: Any
    open: Any
    open_before: Any
    energy: Any
    worst: Any
    step: Any


@_part
def _tap(s: Any, w: int, p: int, end: int, m: int, sites: int, steps: int) -> float:
    """The field so many sites inwards and steps before."""
    if steps == 2:
        return s.earlier[w, p, end, sites, m]
    place = sites if end == 0 else s.phi.shape[2] - 1 - sites
    return s.phi[w, p, place, m] if steps == 0 else s.before[w, p, place, m]


@_part
def _observe(s: Any, w: int, most: float, rows: Any) -> None:
    """Eight taps of every agent of a world, those of one step after the other."""
    packets, sites, i = s.phi.shape[1], s.phi.shape[3], 0
    for p in range(packets):
        for end in range(2):
            for m in range(sites):
                column = 0
                for steps in range(3):
                    for depth in range(1 if steps == 0 else 0, 3):
                        value = _tap(s, w, p, end, m, depth, steps)
                        rows[i, column] = min(max(value, -most), most)
                        column += 1
                i += 1


@_compile
def observe(arrays: Any, parameters: Any, worlds: Any, observation: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, Lattices)
    for w in worlds:
        _observe(state, w, parameters[0].most, observation[w])


@_part
def _open_value(s: Any, tables: Any, scratch: Any, w: int, p: int, end: int) -> None:
    """Write into scratch.wave what the exact law says of every mode of a boundary."""
    memory, delays = s.memory, tables.law.shape[0]
    latest = s.step[w, 0] % delays
    for q in range(tables.law.shape[1]):
        scratch.wave[q] = 0.0
    for delay in range(delays):
        slot = latest - delay
        slot = slot if slot >= 0 else slot + delays
        for q in range(tables.law.shape[1]):
            scratch.wave[q] += tables.law[delay, q] * memory[w, p, end, slot, q]


@_part
def _decide(s: Any, tables: Any, scratch: Any, par: Any, w: int, action: Any, loss: Any) -> None:
    """Set the boundaries of a world as its agents say, and note their losses."""
    packets, n, sites = s.phi.shape[1], s.phi.shape[2], s.phi.shape[3]
    for p in range(packets):
        for end in range(2):
            _open_value(s, tables, scratch, w, p, end)
            edge = 0 if end == 0 else n - 1
            for m in range(sites):
                i = (p * 2 + end) * sites + m
                beside = _tap(s, w, p, end, m, 1, 0) - _tap(s, w, p, end, m, 0, 1)
                value = _tap(s, w, p, end, m, 1, 1) + par.mur * beside
                value += par.reach * action[w, i, 0]
                right = 0.0
                for q in range(sites):
                    right += scratch.wave[q] * tables.modes[q, m]
                loss[w, i] = (value - right) ** 2
                s.phi[w, p, edge, m] = value


@_part
def _advance(now: Any, before: Any, par: Any, w: int, p: int, free: bool, line: Any) -> None:
    """Leapfrog: `now` becomes the next step and `before` what `now` was.

    free: whether 0 lies beyond the ends; else these stay as they are.
    """
    n, sites = now.shape[2], now.shape[3]
    along = 4.0 if sites > 1 else 2.0
    own = 2.0 - par.squared_step * (along + par.squared_mass)
    for j in range(n):
        behind, ahead = j > 0, j < n - 1
        if not free and not (behind and ahead):
            for m in range(sites):
                line[j, m] = now[w, p, j, m]
            continue
        for m in range(sites):
            total = now[w, p, j - 1, m] if behind else 0.0
            total += now[w, p, j + 1, m] if ahead else 0.0
            if sites > 1:
                total += now[w, p, j, m - 1 if m > 0 else sites - 1]
                total += now[w, p, j, m + 1 if m < sites - 1 else 0]
            value = own * now[w, p, j, m] - before[w, p, j, m]
            line[j, m] = value + par.squared_step * total
    for j in range(n):
        for m in range(sites):
            before[w, p, j, m] = now[w, p, j, m]
            now[w, p, j, m] = line[j, m]


@_part
def _off_energy(s: Any, par: Any, w: int, p: int) -> float:
    """Energy of the difference from the open lattice, of the last two complete steps."""
    n, sites, pad, total = s.phi.shape[2], s.phi.shape[3], par.pad, 0.0
    phi, before, wide, narrow = s.phi, s.before, s.open, s.open_before
    for j in range(n):
        for m in range(sites):
            off = phi[w, p, j, m] - wide[w, p, pad + j, m]
            was = before[w, p, j, m] - narrow[w, p, pad + j, m]
            speed = (off - was) / par.dt
            total += speed * speed + par.squared_mass * off * was
            if j < n - 1:
                step = phi[w, p, j + 1, m] - wide[w, p, pad + j + 1, m] - off
                step_was = before[w, p, j + 1, m] - narrow[w, p, pad + j + 1, m] - was
                total += step * step_was
            if sites > 1:
                k = m + 1 if m < sites - 1 else 0
                step = phi[w, p, j, k] - wide[w, p, pad + j, k] - off
                step_was = before[w, p, j, k] - narrow[w, p, pad + j, k] - was
                total += step * step_was
    return 0.5 * total


@_part
def _remember(s: Any, tables: Any, w: int, p: int) -> None:
    """Note the waves beside both boundaries at the last complete step."""
    n, sites = s.before.shape[2], s.before.shape[3]
    slot = s.step[w, 0] % tables.law.shape[0]
    for end in range(2):
        place = 1 if end == 0 else n - 2
        for q in range(sites):
            total = 0.0
            for m in range(sites):
                total += tables.modes[q, m] * s.before[w, p, place, m]
            s.memory[w, p, end, slot, q] = total


@_compile
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place, whatever the actions; returns -1."""
    s, par = arrays_at(arrays[0].state, Lattices), parameters[0]
    tables = arrays_at(arrays[0].tables, Memory)
    scratch = arrays_at(arrays[0].scratch, Scratch)
    episode = arrays_at(arrays[0].episode, Scores)
    worlds, packets, n, sites = s.phi.shape
    for w in range(worlds):
        _decide(s, tables, scratch, par, w, action, episode.reward)
        mean, most = 0.0, 0.0
        for p in range(packets):
            share = _off_energy(s, par, w, p) / s.energy[w, p]
            s.worst[w, p] = max(s.worst[w, p], share)
            mean += s.worst[w, p] / packets
            most = max(most, s.worst[w, p])
            for end in range(2):
                for depth in range(3):
                    place = depth if end == 0 else n - 1 - depth
                    for m in range(sites):
                        s.earlier[w, p, end, depth, m] = s.before[w, p, place, m]
            _advance(s.phi, s.before, par, w, p, False, scratch.line)
            _advance(s.open, s.open_before, par, w, p, True, scratch.line)
        s.step[w, 0] += 1
        for p in range(packets):
            _remember(s, tables, w, p)
        episode.metric[w, 0], episode.metric[w, 1] = mean, most
        _observe(s, w, par.most, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1
