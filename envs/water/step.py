"""Compiled forms of water: pairs of atoms once for forces, once for what is observed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernel import Episode, Kernel
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.physics.kernels.descriptors import add_neighbour, bump_root, clip, write_products
from ..core.physics.kernels.images import invert_cell, vector_between

_compile = compiled(error_model="numpy", fastmath={"contract"})
_part = compiled_part(error_model="numpy", fastmath={"contract"})
_NEAREST_SQUARE = 1e-12  # Angstrom^2: atoms are at least that far apart
_FAR = 1e6


class Frame(NamedTuple):
    """Views of the atoms of one world."""

    position: Any  # [agents, 3]
    oxygen: Any  # [agents]
    cell: Any  # [3, 3]


class InferenceArrays(NamedTuple):
    """A frame of the data, in the order of its state's fields."""

    position: Any
    force: Any
    oxygen: Any
    cell: Any
    error: Any
    residual: Any


class DynamicsArrays(NamedTuple):
    """A liquid in motion, in the order of its state's fields."""

    position: Any
    velocity: Any
    oxygen: Any
    cell: Any
    mean: Any
    histogram: Any
    kt: Any
    age: Any


class InferenceTables(NamedTuple):
    """What both systems know of radial functions."""

    radial: np.ndarray  # [3, kinds of pairs, functions] centre, 1 / half width and gain
    broad: np.ndarray  # [2, 2] centre and 1 / half width of what is seen of angles
    limits: np.ndarray  # [2, size] of the observations


class DynamicsTables(NamedTuple):
    """The same, and what a liquid in motion is compared with."""

    radial: np.ndarray
    broad: np.ndarray
    limits: np.ndarray
    neighbourhood: np.ndarray  # [2, 2 functions] mean of oxygens and of hydrogens in the data
    rdf: np.ndarray  # [3, bins] g(r) of the data
    between: np.ndarray  # [3, bins] flags of distances between molecules


class Scratch(NamedTuple):
    """Memory for one world."""

    force: np.ndarray  # [agents, 3]
    radial: np.ndarray  # [agents, 2 functions]
    first: np.ndarray  # [agents, 4, 3]
    second: np.ndarray  # [agents, 4, 6]
    bond: np.ndarray  # [agents] distance from every hydrogen to its nearest oxygen
    inverse: np.ndarray  # [3, 3] of the cell, written before pairs are looked at
    no_histogram: np.ndarray  # [0, 0]


INFERENCE_PARAMETERS = np.dtype([("cutoff", float), ("mean_square", float)])
DYNAMICS_PARAMETERS = np.dtype(
    [
        ("cutoff", float),
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


def make_scratch(n: int, n_functions: int) -> Scratch:
    """Memory for worlds of `n` atoms."""
    first, second = np.empty((n, 4, 3)), np.empty((n, 4, 6))
    force, radial = np.empty((n, 3)), np.empty((n, 2 * n_functions))
    return Scratch(force, radial, first, second, np.empty(n), np.empty((3, 3)), np.zeros((0, 0)))


def inference_kernel(n_agents: int, tables: InferenceTables, parameters: np.ndarray) -> Kernel:
    """The kernel of frames whose forces are inferred."""
    scratch = make_scratch(n_agents, tables.radial.shape[2])
    return Kernel(step_inference, observe_inference, parameters, tables=tables, scratch=scratch)


def dynamics_kernel(n_agents: int, tables: DynamicsTables, parameters: np.ndarray) -> Kernel:
    """The kernel of a liquid in motion."""
    scratch = make_scratch(n_agents, tables.radial.shape[2])
    return Kernel(step_dynamics, observe_dynamics, parameters, tables=tables, scratch=scratch)


@_part
def _compute_forces(frame: Any, tables: Any, cutoff: float, weight: Any, scratch: Any) -> None:
    """Forces on all atoms by weights [agents, >= 2 * functions]."""
    x, oxygen, cell = frame
    table, force, inverse = tables.radial, scratch.force, scratch.inverse
    n, functions = len(force), table.shape[2]
    for i in range(n):
        for m in range(3):
            force[i, m] = 0.0
    for i in range(n):
        for j in range(i + 1, n):
            rx, ry, rz = vector_between(x, i, j, cell, inverse)
            d2 = max(rx * rx + ry * ry + rz * rz, _NEAREST_SQUARE)
            if d2 >= cutoff * cutoff:
                continue
            d = math.sqrt(d2)
            kind = int(2 - oxygen[i] - oxygen[j])
            of_i = functions * int(1 - oxygen[i])  # where functions of neighbours like i begin
            of_j = functions * int(1 - oxygen[j])
            on_i, on_j = 0.0, 0.0
            for k in range(functions):
                root = bump_root(d, table[0, kind, k], table[1, kind, k])
                if root > 0:
                    b = root * root * table[2, kind, k]
                    on_i += weight[i, of_j + k] * b
                    on_j += weight[j, of_i + k] * b
            on_i, on_j = on_i / d, on_j / d
            force[i, 0] -= on_i * rx
            force[i, 1] -= on_i * ry
            force[i, 2] -= on_i * rz
            force[j, 0] += on_j * rx
            force[j, 1] += on_j * ry
            force[j, 2] += on_j * rz


@_part
def _compute_descriptors(
    frame: Any, tables: Any, cutoff: float, scratch: Any, histogram: Any, bin_width: float
) -> None:
    """Radial sums, broad vectors and tensors of all atoms.

    histogram [3, bins]: ordered pairs are added by kind and distance; [0, 0] for none.
    """
    x, oxygen, cell = frame
    table, broad, bond, inverse = tables.radial, tables.broad, scratch.bond, scratch.inverse
    radial, first, second = scratch.radial, scratch.first, scratch.second
    n, functions = len(radial), table.shape[2]
    for i in range(n):
        bond[i] = _FAR
        for k in range(2 * functions):
            radial[i, k] = 0.0
        for a in range(4):
            for m in range(6):
                second[i, a, m] = 0.0
                first[i, a, m // 2] = 0.0
    for i in range(n):
        for j in range(i + 1, n):
            rx, ry, rz = vector_between(x, i, j, cell, inverse)
            d2 = max(rx * rx + ry * ry + rz * rz, _NEAREST_SQUARE)
            kind = int(2 - oxygen[i] - oxygen[j])
            d = math.sqrt(d2)
            if kind == 1:
                hydrogen = i if oxygen[i] == 0 else j
                bond[hydrogen] = min(bond[hydrogen], d)
            if d2 >= cutoff * cutoff:
                continue
            if len(histogram):
                bin_index = int(d / bin_width)
                if bin_index < histogram.shape[1]:
                    histogram[kind, bin_index] += 2
            si, sj = int(1 - oxygen[i]), int(1 - oxygen[j])
            for k in range(functions):
                root = bump_root(d, table[0, kind, k], table[1, kind, k])
                if root > 0:
                    b = root * root
                    radial[i, functions * sj + k] += b
                    radial[j, functions * si + k] += b
            nx, ny, nz = rx / d, ry / d, rz / d
            for k in range(2):
                root = bump_root(d, broad[0, k], broad[1, k])
                if root > 0:
                    b = root * root
                    add_neighbour(first, second, i, 2 * sj + k, b, (nx, ny, nz))
                    add_neighbour(first, second, j, 2 * si + k, b, (-nx, -ny, -nz))


@_part
def _write(oxygen: Any, limits: Any, scratch: Any, out: Any) -> None:
    """Observations [agents, size] that do not ask for velocities."""
    radial, sums = scratch.radial, scratch.radial.shape[1]
    for i in range(len(radial)):
        out[i, 0] = oxygen[i]
        for k in range(sums):
            out[i, 1 + k] = clip(math.log1p(radial[i, k]), limits, 1 + k)
        write_products(scratch.first, scratch.second, i, 4, limits, 1 + sums, out)


@_compile
def observe_inference(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, InferenceArrays)
    tables = arrays_at(arrays[0].tables, InferenceTables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    for w in worlds:
        frame = Frame(state.position[w], state.oxygen[w], state.cell[w])
        invert_cell(frame.cell, scratch.inverse)
        _compute_descriptors(frame, tables, p.cutoff, scratch, scratch.no_histogram, 1.0)
        _write(frame.oxygen, tables.limits, scratch, out[w])


@_compile
def step_inference(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of inference in all worlds; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    state = arrays_at(arrays[0].state, InferenceArrays)
    tables = arrays_at(arrays[0].tables, InferenceTables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    episode = arrays_at(arrays[0].episode, Episode)
    n, force, metric = action.shape[1], scratch.force, episode.metric
    for w in range(len(action)):
        frame = Frame(state.position[w], state.oxygen[w], state.cell[w])
        invert_cell(frame.cell, scratch.inverse)
        _compute_forces(frame, tables, p.cutoff, action[w], scratch)
        of_oxygen, of_hydrogen, oxygens, nx, ny, nz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            square = 0.0
            for m in range(3):
                residual = force[i, m] - state.force[w, i, m]
                state.residual[w, i, m] = residual
                square += residual * residual
            error = square / p.mean_square
            state.error[w, i] = episode.reward[w, i] = error
            nx, ny, nz = nx + force[i, 0], ny + force[i, 1], nz + force[i, 2]
            if state.oxygen[w, i] > 0:
                of_oxygen += error
                oxygens += 1
            else:
                of_hydrogen += error
        metric[w, 0] = (of_oxygen + of_hydrogen) / n
        metric[w, 1], metric[w, 2] = of_oxygen / oxygens, of_hydrogen / (n - oxygens)
        metric[w, 3] = math.sqrt(nx * nx + ny * ny + nz * nz) / n
        _compute_descriptors(frame, tables, p.cutoff, scratch, scratch.no_histogram, 1.0)
        _write(frame.oxygen, tables.limits, scratch, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1


@_part
def _mass(oxygen: float, p: Any) -> float:
    return p.oxygen_mass if oxygen > 0 else p.hydrogen_mass


@_part
def _write_velocities(state: Any, w: int, tables: Any, p: Any, scratch: Any, out: Any) -> None:
    """Observations [worlds, agents, size] of world w that ask for velocities."""
    velocity, first, limits, kt = state.velocity, scratch.first, tables.limits, state.kt[w, 0]
    column = out.shape[2] - 5
    for i in range(len(first)):
        inertia = p.kinetic * _mass(state.oxygen[w, i], p)
        v2 = 0.0
        for m in range(3):
            v2 += velocity[w, i, m] * velocity[w, i, m]
        out[w, i, column] = clip(math.log1p(0.5 * inertia * v2 / kt), limits, column)
        thermal_speed = math.sqrt(kt / inertia)
        for a in range(4):
            projection = 0.0
            for m in range(3):
                projection += first[i, a, m] * velocity[w, i, m]
            value = math.asinh(projection / thermal_speed)
            out[w, i, column + 1 + a] = clip(value, limits, column + 1 + a)


@_part
def _thermalise(state: Any, w: int, p: Any) -> None:
    """Take the momentum of world w out, and scale its velocities to its temperature."""
    v, oxygen = state.velocity, state.oxygen
    n = v.shape[1]
    total, twice, px, py, pz = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        mass = _mass(oxygen[w, i], p)
        total += mass
        px, py, pz = px + mass * v[w, i, 0], py + mass * v[w, i, 1], pz + mass * v[w, i, 2]
    for i in range(n):
        mass = _mass(oxygen[w, i], p)
        v[w, i, 0] -= px / total
        v[w, i, 1] -= py / total
        v[w, i, 2] -= pz / total
        for m in range(3):
            twice += mass * v[w, i, m] * v[w, i, m]
    factor = math.sqrt((3 * n - 3) * state.kt[w, 0] / max(p.kinetic * twice, 1e-12))
    for i in range(n):
        for m in range(3):
            v[w, i, m] *= factor


@_compile
def observe_dynamics(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, DynamicsArrays)
    tables = arrays_at(arrays[0].tables, DynamicsTables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    for w in worlds:
        frame = Frame(state.position[w], state.oxygen[w], state.cell[w])
        invert_cell(frame.cell, scratch.inverse)
        _compute_descriptors(frame, tables, p.cutoff, scratch, scratch.no_histogram, 1.0)
        _write(frame.oxygen, tables.limits, scratch, out[w])
        _write_velocities(state, w, tables, p, scratch, out)


@_compile
def step_dynamics(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of dynamics in all worlds; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    state = arrays_at(arrays[0].state, DynamicsArrays)
    tables = arrays_at(arrays[0].tables, DynamicsTables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    episode = arrays_at(arrays[0].episode, Episode)
    n, force, last = action.shape[1], scratch.force, action.shape[2] - 1
    x, v = state.position, state.velocity
    for w in range(len(action)):
        frame = Frame(state.position[w], state.oxygen[w], state.cell[w])
        volume = invert_cell(frame.cell, scratch.inverse)
        _compute_forces(frame, tables, p.cutoff, action[w], scratch)
        for i in range(n):
            push = p.push * action[w, i, last]
            kick = p.acceleration / _mass(state.oxygen[w, i], p)
            for m in range(3):
                v[w, i, m] += p.dt * (kick * force[i, m] + push * v[w, i, m])
        _thermalise(state, w, p)
        for i in range(n):
            for m in range(3):
                x[w, i, m] += p.dt * v[w, i, m]
        state.age[w, 0] += 1
        histogram = state.histogram[w]
        _compute_descriptors(frame, tables, p.cutoff, scratch, histogram, p.bin_width)
        _measure(state, w, tables, p, scratch, episode, volume)
        _write(frame.oxygen, tables.limits, scratch, observation[w])
        _write_velocities(state, w, tables, p, scratch, observation)
    accumulate_metrics(arrays[0].episode)
    return -1


@_part
def _measure(
    state: Any, w: int, tables: Any, p: Any, scratch: Any, episode: Any, volume: float
) -> None:
    """Losses of the atoms of world w, from mean neighbourhoods, and its metrics."""
    radial, mean, age = scratch.radial, state.mean, state.age[w, 0]
    n, steps = len(radial), min(state.age[w, 0], p.memory)
    oxygens, broken = 0.0, 0.0
    for i in range(n):
        species = int(1 - state.oxygen[w, i])
        square, size = 0.0, 0.0
        for k in range(radial.shape[1]):
            reference = tables.neighbourhood[species, k]
            mean[w, i, k] += (radial[i, k] - mean[w, i, k]) / steps
            deviation = mean[w, i, k] - reference
            square += deviation * deviation
            size += reference * reference
        episode.reward[w, i] = square / size
        oxygens += state.oxygen[w, i]
        if state.oxygen[w, i] == 0 and scratch.bond[i] > p.bonded:
            broken += 1
    hydrogens = n - oxygens
    pairs = (oxygens * (oxygens - 1), 2 * oxygens * hydrogens, hydrogens * (hydrogens - 1))
    difference, size = 0.0, 0.0
    for kind in range(3):
        for at in range(state.histogram.shape[2]):
            low, high = p.bin_width * at, p.bin_width * (at + 1)
            shell = 4 / 3 * math.pi * (high * high * high - low * low * low)
            g = state.histogram[w, kind, at] * (volume / max(pairs[kind], 1.0)) / shell / age
            difference += abs(g - tables.rdf[kind, at]) * tables.between[kind, at]
            size += tables.between[kind, at]
    episode.metric[w, 0], episode.metric[w, 1] = difference / size, broken / hydrogens
