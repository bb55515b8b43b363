"""Compiled twin of `force.py`: one step of every world from given kicks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.reductions import accumulate_metrics
from ..core.physics.kernels.updates import Scores

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")

PARAMETERS = np.dtype(
    [
        ("kick", float),
        ("separate", np.bool_),  # whether neighbours are seen one by one
        ("phi", float),  # limits of what is seen
        ("around", float),
    ]
)


class Sites(NamedTuple):
    """Who stands beside whom."""

    beside: Any  # [sites, 2 dimensions]: behind and ahead along each axis


class Field(NamedTuple):
    """The state, in the order of its fields."""

    phi: Any
    momentum: Any
    mass: Any
    dt: Any
    spacing: Any
    energy: Any
    course: Any


@_part
def _curvature(phi: Any, w: int, i: int, beside: Any, scale: Any) -> Any:
    """Second differences of the field of a world at a site, added up as `Torus` does."""
    sides = beside.shape[1]
    total = phi[w, beside[i, sides - 1]] + phi[w, beside[i, sides - 2]]
    for axis in range(sides // 2 - 2, -1, -1):
        total = total + phi[w, beside[i, 2 * axis + 1]]
        total = total + phi[w, beside[i, 2 * axis]]
    return scale * (total - phi.dtype.type(sides) * phi[w, i])


@_part
def _clipped(value: float, most: float) -> float:
    return min(max(value, -most), most)


@_part
def _observe(state: Any, beside: Any, p: Any, w: int, rows: Any) -> None:
    """Observations of one world."""
    phi, number = state.phi, state.phi.dtype.type
    scale, sides = number(1.0 / state.spacing[w, 0] ** 2), beside.shape[1]
    last = sides + 1 if p.separate else 2
    for i in range(phi.shape[1]):
        rows[i, 0] = _clipped(phi[w, i], p.phi)
        if p.separate:
            for k in range(sides):
                rows[i, 1 + k] = _clipped(phi[w, beside[i, k]], p.around)
        else:
            rows[i, 1] = _clipped(_curvature(phi, w, i, beside, scale), p.around)
        rows[i, last] = state.mass[w, 0]
        rows[i, last + 1] = state.dt[w, 0]


@_compile
def observe(arrays: Any, parameters: Any, worlds: Any, observation: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state, tables = arrays_at(arrays[0].state, Field), arrays_at(arrays[0].tables, Sites)
    for w in worlds:
        _observe(state, tables.beside, parameters[0], w, observation[w])


@_part
def _kick_all(state: Any, beside: Any, p: Any, w: int, action: Any, loss: Any) -> None:
    """Kick the momenta of a world, and note everybody's regret."""
    phi, momentum, number = state.phi, state.momentum, state.phi.dtype.type
    scale, square = number(1.0 / state.spacing[w, 0] ** 2), number(state.mass[w, 0] ** 2)
    dt = state.dt[w, 0]
    for i in range(phi.shape[1]):
        pull = _curvature(phi, w, i, beside, scale) - square * phi[w, i]
        kick = number(p.kick * action[w, i, 0])
        off = np.float64(kick) - np.float64(number(dt) * pull)
        loss[w, i] = off * off / (2.0 * dt)
        momentum[w, i] += kick


@_part
def conserved_energy(state: Any, beside: Any, w: int) -> float:
    """Q of one world."""
    phi, momentum, number = state.phi, state.momentum, state.phi.dtype.type
    scale, square = number(1.0 / state.spacing[w, 0] ** 2), number(state.mass[w, 0] ** 2)
    dt, total = state.dt[w, 0], 0.0
    for i in range(phi.shape[1]):
        pull = np.float64(_curvature(phi, w, i, beside, scale) - square * phi[w, i])
        speed = np.float64(momentum[w, i])
        total += speed * speed + pull * (dt * speed - np.float64(phi[w, i]))
    return 0.5 * total


@_part
def note_energy(course: Any, w: int, excess: float, steps: int) -> None:
    """Count so many steps, at the end of which Q / Q0 - 1 is `excess`."""
    course[w, 0] += steps
    course[w, 1] = excess
    course[w, 2] += excess * steps
    course[w, 3] += excess * steps * (course[w, 0] - 0.5 * (steps - 1))


@_part
def drift(course: Any, w: int) -> float:
    """How far a least-squares line through Q / Q0 moved over the steps made, >= 0."""
    n = course[w, 0]
    if n < 2.0:
        return 0.0
    return abs(12.0 * (course[w, 3] - 0.5 * (n + 1.0) * course[w, 2]) / (n * n - 1.0))


@_compile
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place, whatever the actions; returns -1."""
    state, p = arrays_at(arrays[0].state, Field), parameters[0]
    beside = arrays_at(arrays[0].tables, Sites).beside
    episode = arrays_at(arrays[0].episode, Scores)
    phi, momentum = state.phi, state.momentum
    for w in range(phi.shape[0]):
        _kick_all(state, beside, p, w, action, episode.reward)
        dt = phi.dtype.type(state.dt[w, 0])
        for i in range(phi.shape[1]):
            phi[w, i] += dt * momentum[w, i]
        excess = conserved_energy(state, beside, w) / state.energy[w, 0] - 1.0
        note_energy(state.course, w, excess, 1)
        episode.metric[w, 0] = abs(excess)
        episode.metric[w, 1] = drift(state.course, w)
        _observe(state, beside, p, w, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1
