"""Lennard-Jones clusters in open space: the compiled form of `relaxation.py`, and energies."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernel import Episode, Kernel
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled
from ..core.kernels.reductions import accumulate_metrics, bad_action

_compile = compiled(error_model="numpy", fastmath={"contract"})
_LEAST = 1e-4  # squared distance below which atoms count as this far apart


@compiled(error_model="numpy")
def energy_and_gradient(position, gradient):  # type: ignore[no-untyped-def]
    """The energy at `position` [n, 3]; its gradient is written to `gradient` [n, 3]."""
    energy = 0.0
    gradient[:] = 0.0
    for i in range(position.shape[0]):
        for j in range(i):
            x = position[i, 0] - position[j, 0]
            y = position[i, 1] - position[j, 1]
            z = position[i, 2] - position[j, 2]
            inverse = 1.0 / max(x * x + y * y + z * z, _LEAST)
            s6 = inverse * inverse * inverse
            energy += 4.0 * s6 * (s6 - 1.0)
            slope = -24.0 * s6 * (2.0 * s6 - 1.0) * inverse
            gradient[i, 0] += slope * x
            gradient[i, 1] += slope * y
            gradient[i, 2] += slope * z
            gradient[j, 0] -= slope * x
            gradient[j, 1] -= slope * y
            gradient[j, 2] -= slope * z
    return energy


class Atoms(NamedTuple):
    """The state, in the order of its fields."""

    position: Any
    move: Any
    age: Any


class Tables(NamedTuple):
    """Numbers that define the observation."""

    channels: np.ndarray  # [3, channels] centre, half width and gain
    broad: np.ndarray  # [2, 3] centre and half width
    limits: np.ndarray  # [2, size] of the observations


class Scratch(NamedTuple):
    """Memory for one world."""

    radial: np.ndarray  # [agents, channels]
    first: np.ndarray  # [agents, 3, 3]
    second: np.ndarray  # [agents, 3, 6]
    towards: np.ndarray  # [agents, 3]
    energy: np.ndarray  # [agents]


PARAMETERS = np.dtype([("horizon", float), ("max_move", float), ("tangent", float)])


def make_kernel(n_agents: int, tables: Tables, parameters: np.ndarray) -> Kernel:
    """The kernel for worlds of `n_agents` atoms."""
    scratch = Scratch(
        np.empty((n_agents, tables.channels.shape[1])),
        np.empty((n_agents, 3, 3)),
        np.empty((n_agents, 3, 6)),
        np.empty((n_agents, 3)),
        np.empty(n_agents),
    )
    return Kernel(step, observe, parameters, tables=tables, scratch=scratch)


@_compile
def _pull(x: Any, channels: Any, weight: Any, towards: Any) -> None:
    """Sums [n, 3] over neighbours of the channels' vectors times gains and weights."""
    towards[:] = 0.0
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            rx, ry, rz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
            d = math.sqrt(max(rx * rx + ry * ry + rz * rz, 1e-12))
            on_i, on_j = 0.0, 0.0
            for k in range(channels.shape[1]):
                u = (d - channels[0, k]) / channels[1, k]
                window = 1 - u * u
                if window > 0:
                    b = window * window * channels[2, k]
                    on_i += weight[i, k] * b
                    on_j += weight[j, k] * b
            on_i /= d
            on_j /= d
            towards[i, 0] += on_i * rx
            towards[i, 1] += on_i * ry
            towards[i, 2] += on_i * rz
            towards[j, 0] -= on_j * rx
            towards[j, 1] -= on_j * ry
            towards[j, 2] -= on_j * rz


@_compile
def _look(x: Any, tables: Any, tangent: float, scratch: Any) -> None:
    """Radial sums, vectors and tensors of the broad channels, and energies of all atoms."""
    channels, broad, own = tables.channels, tables.broad, scratch.energy
    radial, first, second = scratch.radial, scratch.first, scratch.second
    radial[:] = 0.0
    first[:] = 0.0
    second[:] = 0.0
    own[:] = 0.0
    slope = -24 * (2 * tangent**-13 - tangent**-7)
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            rx, ry, rz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
            d = math.sqrt(max(rx * rx + ry * ry + rz * rz, 1e-12))
            inverse = 1 / max(d, tangent) ** 2
            s6 = inverse * inverse * inverse
            energy = 4 * s6 * (s6 - 1) + slope * min(d - tangent, 0.0)
            own[i] += 0.5 * energy
            own[j] += 0.5 * energy
            for k in range(channels.shape[1]):
                u = (d - channels[0, k]) / channels[1, k]
                window = 1 - u * u
                if window > 0:
                    radial[i, k] += window * window
                    radial[j, k] += window * window
            nx, ny, nz = rx / d, ry / d, rz / d
            for k in range(broad.shape[1]):
                u = (d - broad[0, k]) / broad[1, k]
                window = 1 - u * u
                if window <= 0:
                    continue
                b = window * window
                for m, part in enumerate((nx, ny, nz)):
                    first[i, k, m] += b * part
                    first[j, k, m] -= b * part
                for m, part in enumerate((nx * nx, ny * ny, nz * nz, nx * ny, nx * nz, ny * nz)):
                    second[i, k, m] += b * part
                    second[j, k, m] += b * part


@_compile
def _clip(value: float, limits: Any, at: int) -> float:
    return min(max(value, limits[0, at]), limits[1, at])


@_compile
def _write(move: Any, age: float, horizon: float, limits: Any, scratch: Any, out: Any) -> None:
    """Observations [n, size]."""
    radial, first, second = scratch.radial, scratch.first, scratch.second
    many, wide = radial.shape[1], first.shape[1]
    products = wide * (wide + 1) // 2
    for i in range(len(move)):
        for k in range(many):
            out[i, k] = _clip(math.log1p(radial[i, k]), limits, k)
        at = many
        for a in range(wide):
            for b in range(a, wide):
                along, angular = 0.0, 0.0
                for m in range(3):
                    along += first[i, a, m] * first[i, b, m]
                    angular += second[i, a, m] * second[i, b, m]
                for m in range(3, 6):
                    angular += 2 * second[i, a, m] * second[i, b, m]
                out[i, at] = _clip(math.asinh(along), limits, at)
                out[i, at + products] = _clip(math.asinh(angular), limits, at + products)
                at += 1
        at += products
        speed = 0.0
        for m in range(3):
            speed += move[i, m] * move[i, m]
        out[i, at] = _clip(speed, limits, at)
        for a in range(wide):
            climb = 0.0
            for m in range(3):
                climb += first[i, a, m] * move[i, m]
            out[i, at + 1 + a] = _clip(climb, limits, at + 1 + a)
        at += 1 + wide
        out[i, at] = _clip(1 - age / horizon, limits, at)


@_compile
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    atoms, tables = arrays_at(arrays[0].state, Atoms), arrays_at(arrays[0].tables, Tables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    for w in worlds:
        _look(atoms.position[w], tables, p.tangent, scratch)
        _write(atoms.move[w], atoms.age[w, 0], p.horizon, tables.limits, scratch, out[w])


@_compile
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    atoms, tables = arrays_at(arrays[0].state, Atoms), arrays_at(arrays[0].tables, Tables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    episode = arrays_at(arrays[0].episode, Episode)
    towards, n, inertia = scratch.towards, action.shape[1], tables.channels.shape[1]
    for w in range(len(action)):
        x, last = atoms.position[w], atoms.move[w]
        _pull(x, tables.channels, action[w], towards)
        middle = np.zeros(3)
        for i in range(n):
            length = 0.0
            for m in range(3):
                last[i, m] = towards[i, m] + action[w, i, inertia] * last[i, m]
                length += last[i, m] * last[i, m]
            shorter = min(p.max_move / math.sqrt(max(length, 1e-24)), 1.0)
            for m in range(3):
                last[i, m] *= shorter
                x[i, m] += last[i, m]
                middle[m] += x[i, m] / n
        atoms.age[w, 0] += 1
        _look(x, tables, p.tangent, scratch)
        energy, spread = 0.0, 0.0
        for i in range(n):
            episode.reward[w, i] = scratch.energy[i]
            energy += scratch.energy[i]
            for m in range(3):
                spread += (x[i, m] - middle[m]) ** 2
        episode.metric[w, 0] = energy
        episode.metric[w, 1] = math.sqrt(spread / n)
        _write(last, atoms.age[w, 0], p.horizon, tables.limits, scratch, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1
