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


class Scratch(NamedTuple):
    """Memory of a step."""

    curved: Any  # [sites] second differences of the field of a world, in its precision


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
def _curve(phi: Any, w: int, beside: Any, scale: Any, curved: Any) -> None:
    """Second differences of the field of a world, added up as `Torus` does."""
    sides = beside.shape[1]
    number = phi.dtype.type(sides)
    for i in range(phi.shape[1]):
        total = phi[w, beside[i, sides - 1]] + phi[w, beside[i, sides - 2]]
        for axis in range(sides // 2 - 2, -1, -1):
            total = total + phi[w, beside[i, 2 * axis + 1]]
            total = total + phi[w, beside[i, 2 * axis]]
        curved[i] = scale * (total - number * phi[w, i])


@_part
def _clipped(value: float, most: float) -> float:
    return min(max(value, -most), most)


@_part
def _observe(state: Any, beside: Any, p: Any, w: int, curved: Any, rows: Any) -> None:
    """Observations of one world, whose field is curved so."""
    phi, sides = state.phi, beside.shape[1]
    last = sides + 1 if p.separate else 2
    mass, dt, most, around = state.mass[w, 0], state.dt[w, 0], p.phi, p.around
    if p.separate:
        for i in range(phi.shape[1]):
            for k in range(sides):
                rows[i, 1 + k] = _clipped(phi[w, beside[i, k]], around)
    else:
        for i in range(phi.shape[1]):
            rows[i, 1] = _clipped(curved[i], around)
    for i in range(phi.shape[1]):
        rows[i, 0] = _clipped(phi[w, i], most)
        rows[i, last] = mass
        rows[i, last + 1] = dt


@_compile
def observe(arrays: Any, parameters: Any, worlds: Any, observation: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state, beside = arrays_at(arrays[0].state, Field), arrays_at(arrays[0].tables, Sites).beside
    curved = arrays_at(arrays[0].scratch, Scratch).curved
    for w in worlds:
        _curve(state.phi, w, beside, _scale(state, w), curved)
        _observe(state, beside, parameters[0], w, curved, observation[w])


@_part
def _scale(state: Any, w: int) -> Any:
    return state.phi.dtype.type(1.0 / state.spacing[w, 0] ** 2)


@_part
def _kick_all(state: Any, p: Any, w: int, curved: Any, action: Any, loss: Any) -> None:
    """Kick the momenta of a world, and note everybody's regret."""
    phi, momentum, number = state.phi, state.momentum, state.phi.dtype.type
    square, dt, kick = number(state.mass[w, 0] ** 2), state.dt[w, 0], p.kick
    exact = number(dt)
    for i in range(phi.shape[1]):
        pull = curved[i] - square * phi[w, i]
        pushed = number(kick * action[w, i, 0])
        off = np.float64(pushed) - np.float64(exact * pull)
        loss[w, i] = off * off / (2.0 * dt)
        momentum[w, i] += pushed


@_part
def conserved_energy(state: Any, w: int, curved: Any) -> float:
    """Q of one world, whose field is curved so."""
    phi, momentum, number = state.phi, state.momentum, state.phi.dtype.type
    square, dt, total = number(state.mass[w, 0] ** 2), state.dt[w, 0], 0.0
    for i in range(phi.shape[1]):
        pull = np.float64(curved[i] - square * phi[w, i])
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
    curved = arrays_at(arrays[0].scratch, Scratch).curved
    episode = arrays_at(arrays[0].episode, Scores)
    phi, momentum = state.phi, state.momentum
    for w in range(phi.shape[0]):
        scale, dt = _scale(state, w), phi.dtype.type(state.dt[w, 0])
        _curve(phi, w, beside, scale, curved)
        _kick_all(state, p, w, curved, action, episode.reward)
        for i in range(phi.shape[1]):
            phi[w, i] += dt * momentum[w, i]
        _curve(phi, w, beside, scale, curved)
        excess = conserved_energy(state, w, curved) / state.energy[w, 0] - 1.0
        note_energy(state.course, w, excess, 1)
        episode.metric[w, 0] = abs(excess)
        episode.metric[w, 1] = drift(state.course, w)
        _observe(state, beside, p, w, curved, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1
