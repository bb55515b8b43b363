"""Lennard-Jones clusters in open space: the compiled form of `relaxation.py`, and energies."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernel import Episode, Kernel
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.physics.kernels.descriptors import add_neighbour, bump_root, clip, write_products
from ..core.physics.kernels.lennard_jones import lennard_jones

_compile = compiled(error_model="numpy", fastmath={"contract"})
_part = compiled_part(error_model="numpy", fastmath={"contract"})
_LEAST = 1e-4  # squared distance below which atoms count as this far apart


@compiled(error_model="numpy")
def energy_and_gradient(position: Any, gradient: Any) -> float:
    """The energy at `position` [n, 3]; its gradient is written to `gradient` [n, 3]."""
    energy = 0.0
    gradient[:] = 0.0
    for i in range(position.shape[0]):
        for j in range(i):
            x = position[i, 0] - position[j, 0]
            y = position[i, 1] - position[j, 1]
            z = position[i, 2] - position[j, 2]
            square = max(x * x + y * y + z * z, _LEAST)
            pair_energy, virial = lennard_jones(square)
            energy += pair_energy
            slope = -virial * (1.0 / square)
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

    channels: np.ndarray  # [3, channels] centre, 1 / half width and gain
    broad: np.ndarray  # [2, 3] centre and 1 / half width
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


@_part
def _sum_channels(x: Any, channels: Any, weight: Any, towards: Any) -> None:
    """Sums [n, 3] over neighbours of the channels' vectors times gains and weights."""
    n = len(towards)
    for i in range(n):
        for m in range(3):
            towards[i, m] = 0.0
    for i in range(n):
        for j in range(i + 1, n):
            rx, ry, rz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
            d = math.sqrt(max(rx * rx + ry * ry + rz * rz, 1e-12))
            on_i, on_j = 0.0, 0.0
            for k in range(channels.shape[1]):
                root = bump_root(d, channels[0, k], channels[1, k])
                if root > 0:
                    b = root * root * channels[2, k]
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


@_part
def _compute_descriptors(x: Any, tables: Any, tangent: float, scratch: Any) -> None:
    """Radial sums, vectors and tensors of the broad channels, and energies of all atoms."""
    channels, broad, energy = tables.channels, tables.broad, scratch.energy
    radial, first, second = scratch.radial, scratch.first, scratch.second
    n = len(energy)
    for i in range(n):
        energy[i] = 0.0
        for k in range(radial.shape[1]):
            radial[i, k] = 0.0
        for k in range(first.shape[1]):
            for m in range(3):
                first[i, k, m] = 0.0
            for m in range(6):
                second[i, k, m] = 0.0
    _, virial = lennard_jones(tangent * tangent)
    slope = -virial / tangent
    for i in range(n):
        for j in range(i + 1, n):
            rx, ry, rz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
            d = math.sqrt(max(rx * rx + ry * ry + rz * rz, 1e-12))
            outside = max(d, tangent)
            pair_energy, _ = lennard_jones(outside * outside)
            pair_energy += slope * min(d - tangent, 0.0)
            energy[i] += 0.5 * pair_energy
            energy[j] += 0.5 * pair_energy
            for k in range(channels.shape[1]):
                root = bump_root(d, channels[0, k], channels[1, k])
                if root > 0:
                    b = root * root
                    radial[i, k] += b
                    radial[j, k] += b
            nx, ny, nz = rx / d, ry / d, rz / d
            for k in range(broad.shape[1]):
                root = bump_root(d, broad[0, k], broad[1, k])
                if root > 0:
                    b = root * root
                    add_neighbour(first, second, i, k, b, (nx, ny, nz))
                    add_neighbour(first, second, j, k, b, (-nx, -ny, -nz))


@_part
def _write(move: Any, time_left: float, limits: Any, scratch: Any, out: Any) -> None:
    """Observations [agents, size]."""
    radial, first = scratch.radial, scratch.first
    channels, wide = radial.shape[1], first.shape[1]
    for i in range(len(radial)):
        for k in range(channels):
            out[i, k] = clip(math.log1p(radial[i, k]), limits, k)
        write_products(first, scratch.second, i, wide, limits, channels, out)
        column = channels + wide * (wide + 1)
        square = 0.0
        for m in range(3):
            square += move[i, m] * move[i, m]
        out[i, column] = clip(square, limits, column)
        for a in range(wide):
            projection = 0.0
            for m in range(3):
                projection += first[i, a, m] * move[i, m]
            out[i, column + 1 + a] = clip(projection, limits, column + 1 + a)
        column += 1 + wide
        out[i, column] = clip(time_left, limits, column)


@_compile
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    atoms, tables = arrays_at(arrays[0].state, Atoms), arrays_at(arrays[0].tables, Tables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    for w in worlds:
        _compute_descriptors(atoms.position[w], tables, p.tangent, scratch)
        left = 1 - atoms.age[w, 0] / p.horizon
        _write(atoms.move[w], left, tables.limits, scratch, out[w])


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
        x, move, weight = atoms.position[w], atoms.move[w], action[w]
        _sum_channels(x, tables.channels, weight, towards)
        cx, cy, cz = 0.0, 0.0, 0.0
        for i in range(n):
            square = 0.0
            for m in range(3):
                move[i, m] = towards[i, m] + weight[i, inertia] * move[i, m]
                square += move[i, m] * move[i, m]
            shorter = min(p.max_move / math.sqrt(max(square, 1e-24)), 1.0)
            for m in range(3):
                move[i, m] *= shorter
                x[i, m] += move[i, m]
            cx, cy, cz = cx + x[i, 0] / n, cy + x[i, 1] / n, cz + x[i, 2] / n
        atoms.age[w, 0] += 1
        _compute_descriptors(x, tables, p.tangent, scratch)
        energy, spread = 0.0, 0.0
        for i in range(n):
            episode.reward[w, i] = scratch.energy[i]
            energy += scratch.energy[i]
            dx, dy, dz = x[i, 0] - cx, x[i, 1] - cy, x[i, 2] - cz
            spread += dx * dx + dy * dy + dz * dz
        episode.metric[w, 0] = energy
        episode.metric[w, 1] = math.sqrt(spread / n)
        left = 1 - atoms.age[w, 0] / p.horizon
        _write(move, left, tables.limits, scratch, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1
