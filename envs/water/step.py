"""Compiled forms of water: pairs of atoms once for forces, once for what is seen."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernel import Episode, Kernel
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.physics.kernels.neighbours import image

_compile = compiled(error_model="numpy", fastmath={"contract"})


class FrameArrays(NamedTuple):
    """A frame of the data, in the order of its state's fields."""

    position: Any
    force: Any
    oxygen: Any
    cell: Any
    error: Any
    residual: Any


class MotionArrays(NamedTuple):
    """A liquid in motion, in the order of its state's fields."""

    position: Any
    velocity: Any
    oxygen: Any
    cell: Any
    mean: Any
    histogram: Any
    kt: Any
    age: Any


class Shapes(NamedTuple):
    """What both systems know of radial functions."""

    radial: np.ndarray  # [3, kinds of pairs, functions] centre, half width and gain
    broad: np.ndarray  # [2, 2] centre and half width of what is seen of angles
    limits: np.ndarray  # [2, size] of the observations


class MotionTables(NamedTuple):
    """The same, and what a liquid in motion is compared with."""

    radial: np.ndarray
    broad: np.ndarray
    limits: np.ndarray
    usual: np.ndarray  # [2, functions] mean neighbourhood of oxygen and hydrogen in the data
    structure: np.ndarray  # [3, bins] g(r) of the data
    between: np.ndarray  # [3, bins] flags of distances between molecules


class Scratch(NamedTuple):
    """Memory for one world."""

    force: np.ndarray  # [agents, 3]
    radial: np.ndarray  # [agents, 2 functions]
    first: np.ndarray  # [agents, 4, 3]
    second: np.ndarray  # [agents, 4, 6]
    bond: np.ndarray  # [agents] distance from every hydrogen to its nearest oxygen
    no_count: np.ndarray  # [0, 0]


FRAME_PARAMETERS = np.dtype([("reach", float), ("mean_square", float)])
MOTION_PARAMETERS = np.dtype(
    [
        ("reach", float),
        ("dt", float),
        ("oxygen_mass", float),
        ("hydrogen_mass", float),
        ("kinetic", float),  # energy of a unit mass and speed
        ("acceleration", float),  # of a unit mass and force
        ("push", float),
        ("memory", float),  # steps
        ("bin_width", float),
        ("bonded", float),  # longest bond
    ]
)


def make_scratch(n_agents: int, n_functions: int) -> Scratch:
    """Memory for worlds of `n_agents` atoms."""
    return Scratch(
        np.empty((n_agents, 3)),
        np.empty((n_agents, 2 * n_functions)),
        np.empty((n_agents, 4, 3)),
        np.empty((n_agents, 4, 6)),
        np.empty(n_agents),
        np.zeros((0, 0)),
    )


def frame_kernel(n_agents: int, tables: Shapes, parameters: np.ndarray) -> Kernel:
    """The kernel of frames whose forces are inferred."""
    scratch = make_scratch(n_agents, tables.radial.shape[2])
    return Kernel(step_frame, observe_frame, parameters, tables=tables, scratch=scratch)


def motion_kernel(n_agents: int, tables: MotionTables, parameters: np.ndarray) -> Kernel:
    """The kernel of a liquid in motion."""
    scratch = make_scratch(n_agents, tables.radial.shape[2])
    return Kernel(step_motion, observe_motion, parameters, tables=tables, scratch=scratch)


@_compile
def _inverted(h: Any, inv: Any) -> float:
    """Write the inverse of a cell [3, 3] and return its volume."""
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        for j in range(3):
            c, d = (j + 1) % 3, (j + 2) % 3
            inv[j, i] = h[a, c] * h[b, d] - h[a, d] * h[b, c]
    det = h[0, 0] * inv[0, 0] + h[0, 1] * inv[1, 0] + h[0, 2] * inv[2, 0]
    for i in range(3):
        for j in range(3):
            inv[i, j] /= det
    return abs(det)


@_compile
def _pull(x: Any, oxygen: Any, h: Any, shapes: Any, reach: float, weight: Any, force: Any) -> None:
    """Forces [n, 3] at positions [n, 3] by weights [n, >= 2 * functions]."""
    n, many = x.shape[0], shapes.shape[2]
    inv = np.empty((3, 3))
    _inverted(h, inv)
    force[:] = 0.0
    for i in range(n):
        for j in range(i + 1, n):
            rx, ry, rz = image(x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2], h, inv)
            d2 = max(rx * rx + ry * ry + rz * rz, 1e-12)
            if d2 >= reach * reach:
                continue
            d = math.sqrt(d2)
            kind = int(2 - oxygen[i] - oxygen[j])
            of_i = many * int(1 - oxygen[i])  # where the functions of neighbours like i begin
            of_j = many * int(1 - oxygen[j])
            on_i, on_j = 0.0, 0.0
            for k in range(many):
                u = (d - shapes[0, kind, k]) / shapes[1, kind, k]
                window = 1 - u * u
                if window > 0:
                    b = window * window * shapes[2, kind, k]
                    on_i += weight[i, of_j + k] * b
                    on_j += weight[j, of_i + k] * b
            on_i /= d
            on_j /= d
            force[i, 0] -= on_i * rx
            force[i, 1] -= on_i * ry
            force[i, 2] -= on_i * rz
            force[j, 0] += on_j * rx
            force[j, 1] += on_j * ry
            force[j, 2] += on_j * rz


@_compile
def _look(
    x: Any, oxygen: Any, h: Any, tables: Any, reach: float, scratch: Any, count: Any, width: float
) -> float:
    """Radial sums, broad vectors and tensors of all atoms; the volume of the cell.

    count [3, bins], or [0, 0] for none: ordered pairs are added by kind and distance.
    """
    shapes, broad, bond = tables.radial, tables.broad, scratch.bond
    radial, first, second = scratch.radial, scratch.first, scratch.second
    n, many = x.shape[0], shapes.shape[2]
    inv = np.empty((3, 3))
    volume = _inverted(h, inv)
    radial[:] = 0.0
    first[:] = 0.0
    second[:] = 0.0
    bond[:] = 1e6
    for i in range(n):
        for j in range(i + 1, n):
            rx, ry, rz = image(x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2], h, inv)
            d2 = max(rx * rx + ry * ry + rz * rz, 1e-12)
            kind = int(2 - oxygen[i] - oxygen[j])
            d = math.sqrt(d2)
            if kind == 1:
                held = i if oxygen[i] == 0 else j
                bond[held] = min(bond[held], d)
            if d2 >= reach * reach:
                continue
            if len(count):
                at = int(d / width)
                if at < count.shape[1]:
                    count[kind, at] += 2
            si, sj = int(1 - oxygen[i]), int(1 - oxygen[j])
            for k in range(many):
                u = (d - shapes[0, kind, k]) / shapes[1, kind, k]
                window = 1 - u * u
                if window > 0:
                    b = window * window
                    radial[i, many * sj + k] += b
                    radial[j, many * si + k] += b
            nx, ny, nz = rx / d, ry / d, rz / d
            for k in range(2):
                u = (d - broad[k, 0]) / broad[k, 1]
                window = 1 - u * u
                if window <= 0:
                    continue
                b = window * window
                a, c = 2 * sj + k, 2 * si + k
                first[i, a, 0] += b * nx
                first[i, a, 1] += b * ny
                first[i, a, 2] += b * nz
                first[j, c, 0] -= b * nx
                first[j, c, 1] -= b * ny
                first[j, c, 2] -= b * nz
                for m, part in enumerate((nx * nx, ny * ny, nz * nz, nx * ny, nx * nz, ny * nz)):
                    second[i, a, m] += b * part
                    second[j, c, m] += b * part
    return volume


@_compile
def _clip(value: float, limits: Any, at: int) -> float:
    return min(max(value, limits[0, at]), limits[1, at])


@_compile
def _write(oxygen: Any, limits: Any, scratch: Any, out: Any) -> None:
    """Observations [n, size] that do not ask for velocities."""
    radial, first, second = scratch.radial, scratch.first, scratch.second
    many = radial.shape[1]
    for i in range(len(oxygen)):
        out[i, 0] = oxygen[i]
        for k in range(many):
            out[i, 1 + k] = _clip(math.log1p(radial[i, k]), limits, 1 + k)
        at = 1 + many
        for a in range(4):
            for b in range(a, 4):
                along, angular = 0.0, 0.0
                for m in range(3):
                    along += first[i, a, m] * first[i, b, m]
                    angular += second[i, a, m] * second[i, b, m]
                for m in range(3, 6):
                    angular += 2 * second[i, a, m] * second[i, b, m]
                out[i, at] = _clip(math.asinh(along), limits, at)
                out[i, at + 10] = _clip(math.asinh(angular), limits, at + 10)
                at += 1


@_compile
def _write_motion(
    velocity: Any, kt: float, mass: Any, kinetic: float, limits: Any, first: Any, out: Any
) -> None:
    """Observations [n, size] that ask for velocities."""
    at = out.shape[1] - 5
    for i in range(len(velocity)):
        v2 = 0.0
        for m in range(3):
            v2 += velocity[i, m] * velocity[i, m]
        energy = 0.5 * kinetic * mass[i] * v2
        out[i, at] = _clip(math.log1p(energy / kt), limits, at)
        slow = math.sqrt(kt / (kinetic * mass[i]))
        for a in range(4):
            climb = 0.0
            for m in range(3):
                climb += first[i, a, m] * velocity[i, m]
            out[i, at + 1 + a] = _clip(math.asinh(climb / slow), limits, at + 1 + a)


@_compile
def _masses(oxygen: Any, p: Any) -> Any:
    return p.hydrogen_mass + (p.oxygen_mass - p.hydrogen_mass) * oxygen


@_compile
def observe_frame(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state, tables = arrays_at(arrays[0].state, FrameArrays), arrays_at(arrays[0].tables, Shapes)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    for w in worlds:
        x, oxygen, cell = state.position[w], state.oxygen[w], state.cell[w]
        _look(x, oxygen, cell, tables, p.reach, scratch, scratch.no_count, 1.0)
        _write(oxygen, tables.limits, scratch, out[w])


@_compile
def step_frame(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of inference in all worlds; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    state, tables = arrays_at(arrays[0].state, FrameArrays), arrays_at(arrays[0].tables, Shapes)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    episode = arrays_at(arrays[0].episode, Episode)
    n, force = action.shape[1], scratch.force
    for w in range(len(action)):
        x, oxygen, cell = state.position[w], state.oxygen[w], state.cell[w]
        _pull(x, oxygen, cell, tables.radial, p.reach, action[w], force)
        sums, net, count = np.zeros(2), np.zeros(3), 0.0
        for i in range(n):
            off = 0.0
            for m in range(3):
                state.residual[w, i, m] = force[i, m] - state.force[w, i, m]
                off += state.residual[w, i, m] * state.residual[w, i, m]
                net[m] += force[i, m]
            state.error[w, i] = off / p.mean_square
            episode.reward[w, i] = state.error[w, i]
            sums[int(1 - oxygen[i])] += state.error[w, i]
            count += oxygen[i]
        episode.metric[w, 0] = (sums[0] + sums[1]) / n
        episode.metric[w, 1] = sums[0] / count
        episode.metric[w, 2] = sums[1] / (n - count)
        episode.metric[w, 3] = math.sqrt(net[0] ** 2 + net[1] ** 2 + net[2] ** 2) / n
        _look(x, oxygen, cell, tables, p.reach, scratch, scratch.no_count, 1.0)
        _write(oxygen, tables.limits, scratch, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1


@_compile
def _thermal(velocity: Any, mass: Any, kinetic: float, kt: float) -> None:
    """Take momentum out, and scale to the temperature."""
    n = len(velocity)
    whole, twice = 0.0, 0.0
    drift = np.zeros(3)
    for i in range(n):
        whole += mass[i]
        for m in range(3):
            drift[m] += mass[i] * velocity[i, m]
    for i in range(n):
        for m in range(3):
            velocity[i, m] -= drift[m] / whole
            twice += mass[i] * velocity[i, m] * velocity[i, m]
    factor = math.sqrt((3 * n - 3) * kt / max(kinetic * twice, 1e-12))
    for i in range(n):
        for m in range(3):
            velocity[i, m] *= factor


@_compile
def observe_motion(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, MotionArrays)
    tables = arrays_at(arrays[0].tables, MotionTables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    for w in worlds:
        x, oxygen, cell = state.position[w], state.oxygen[w], state.cell[w]
        _look(x, oxygen, cell, tables, p.reach, scratch, scratch.no_count, 1.0)
        _write(oxygen, tables.limits, scratch, out[w])
        mass, v, kt = _masses(oxygen, p), state.velocity[w], state.kt[w, 0]
        _write_motion(v, kt, mass, p.kinetic, tables.limits, scratch.first, out[w])


@_compile
def step_motion(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of dynamics in all worlds; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    state = arrays_at(arrays[0].state, MotionArrays)
    tables = arrays_at(arrays[0].tables, MotionTables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    episode = arrays_at(arrays[0].episode, Episode)
    n, bins = action.shape[1], state.histogram.shape[2]
    force, radial, last = scratch.force, scratch.radial, action.shape[2] - 1
    for w in range(len(action)):
        x, v, oxygen, cell = state.position[w], state.velocity[w], state.oxygen[w], state.cell[w]
        mass, kt = _masses(oxygen, p), state.kt[w, 0]
        _pull(x, oxygen, cell, tables.radial, p.reach, action[w], force)
        for i in range(n):
            along = p.push * action[w, i, last]
            for m in range(3):
                v[i, m] += p.dt * (p.acceleration * force[i, m] / mass[i] + along * v[i, m])
        _thermal(v, mass, p.kinetic, kt)
        for i in range(n):
            for m in range(3):
                x[i, m] += p.dt * v[i, m]
        state.age[w, 0] += 1
        age, count = state.age[w, 0], state.histogram[w]
        volume = _look(x, oxygen, cell, tables, p.reach, scratch, count, p.bin_width)
        steps = min(age, p.memory)
        o, broken = 0.0, 0.0
        for i in range(n):
            usual = tables.usual[int(1 - oxygen[i])]
            off, size = 0.0, 0.0
            for k in range(radial.shape[1]):
                state.mean[w, i, k] += (radial[i, k] - state.mean[w, i, k]) / steps
                off += (state.mean[w, i, k] - usual[k]) ** 2
                size += usual[k] ** 2
            episode.reward[w, i] = off / size
            o += oxygen[i]
            broken += (1 - oxygen[i]) * (scratch.bond[i] > p.bonded)
        pairs = (o * (o - 1), 2 * o * (n - o), (n - o) * (n - o - 1))
        off, size = 0.0, 0.0
        for kind in range(3):
            for at in range(bins):
                low, high = p.bin_width * at, p.bin_width * (at + 1)
                shell = 4 / 3 * math.pi * (high**3 - low**3)
                g = count[kind, at] * (volume / pairs[kind]) / shell / age
                off += abs(g - tables.structure[kind, at]) * tables.between[kind, at]
                size += tables.between[kind, at]
        episode.metric[w, 0] = off / size
        episode.metric[w, 1] = broken / (n - o)
        _write(oxygen, tables.limits, scratch, observation[w])
        _write_motion(v, kt, mass, p.kinetic, tables.limits, scratch.first, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1
