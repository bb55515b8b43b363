"""Compiled twins of `envs/water.py`: pairs of atoms once for forces, once for what is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.kernels.compiling import compiled
from .neighbours import image
from .tally import bad_action, tally

if TYPE_CHECKING:
    from ..core.rng import Rng
    from ..core.system import Buffers, State

_compile = compiled(error_model="numpy", fastmath={"contract"})


class WaterKernel:
    """Kernel of one batch: constants and scratch as arrays. See `Kernel` in core/system.py.

    shapes [3, functions by kind, 3]: centre, half width and gain of the radial functions.
    broad [2, 2]: centre and half width of what is seen of angles.
    limits [2, size]: of the observations.  real: reach and the system's numbers.
    tables: further arrays that `move` takes, in its order.
    """

    initial: Callable[[Rng], tuple[np.ndarray, ...]] | None = None

    def __init__(
        self,
        moving: bool,
        agents: int,
        shapes: np.ndarray,
        broad: np.ndarray,
        limits: np.ndarray,
        real: np.ndarray,
        tables: tuple[np.ndarray, ...],
    ) -> None:
        self._step = step_motion if moving else step_frame
        self._moving = moving
        self._shared = shapes, broad, limits, real
        self._tables = tables
        self._first = np.empty((agents, 4, 3))
        self._second = np.empty((agents, 4, 6))
        self._radial = np.empty((agents, 2 * shapes.shape[2]))
        self._force = np.empty((agents, 3))

    def observe(self, state: State, worlds: np.ndarray, observation: np.ndarray) -> None:
        scratch = self._radial, self._first, self._second
        still = np.zeros((0, 0, 0)), np.zeros((0, 0))
        velocity, kt = (state.velocity, state.kt) if self._moving else still
        observe(
            state.position,
            state.oxygen,
            state.cell,
            velocity,
            kt,
            worlds,
            *self._shared,
            *scratch,
            observation,
        )

    def bind(self, buffers: Buffers) -> Callable[[np.ndarray, np.ndarray], int]:
        compiled: Callable[..., int] = self._step
        return partial(
            compiled,
            *buffers.state,
            *self._shared,
            *self._tables,
            self._force,
            self._radial,
            self._first,
            self._second,
            buffers.reward,
            buffers.metric,
            buffers.totals,
            buffers.how,
            buffers.warm_up,
            buffers.clock,
            buffers.age,
        )


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
    x: Any, oxygen: Any, h: Any, shapes: Any, broad: Any, reach: float,
    radial: Any, first: Any, second: Any, count: Any, bond: Any, width: float,
) -> float:  # fmt: skip
    """Radial sums, broad vectors and tensors of all atoms; the volume of the cell.

    count [3, bins], or [0, 0] for none: ordered pairs are added by kind and distance.
    bond [n]: distance from every hydrogen to its nearest oxygen.
    """
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
def _write(oxygen: Any, limits: Any, radial: Any, first: Any, second: Any, out: Any) -> None:
    """Observations [n, size] that do not ask for velocities."""
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
def _masses(oxygen: Any, real: Any) -> Any:
    return real[3] + (real[2] - real[3]) * oxygen


@_compile
def observe(
    position: Any, oxygen: Any, cell: Any, velocity: Any, kt: Any, worlds: Any,
    shapes: Any, broad: Any, limits: Any, real: Any,
    radial: Any, first: Any, second: Any, out: Any,
) -> None:  # fmt: skip
    """Observations of the worlds whose indices are given."""
    none, bond = np.zeros((0, 0)), np.empty(position.shape[1])
    for row in range(len(worlds)):
        w = worlds[row]
        _look(
            position[w], oxygen[w], cell[w], shapes, broad, real[0],
            radial, first, second, none, bond, 1.0,
        )  # fmt: skip
        _write(oxygen[w], limits, radial, first, second, out[w])
        if len(velocity):
            mass = _masses(oxygen[w], real)
            _write_motion(velocity[w], kt[w, 0], mass, real[4], limits, first, out[w])


@_compile
def step_frame(
    position: Any, force: Any, oxygen: Any, cell: Any, error: Any, residual: Any,
    shapes: Any, broad: Any, limits: Any, real: Any,
    found: Any, radial: Any, first: Any, second: Any,
    loss: Any, metric: Any, totals: Any, how: Any, warm_up: int, clock: Any, age: Any,
    action: Any, observation: Any,
) -> int:  # fmt: skip
    """One step of inference in all worlds, in place. real: reach, mean square of the forces."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    n = position.shape[1]
    none, bond = np.zeros((0, 0)), np.empty(n)
    for w in range(len(position)):
        _pull(position[w], oxygen[w], cell[w], shapes, real[0], action[w], found)
        sums, net, count = np.zeros(2), np.zeros(3), 0.0
        for i in range(n):
            off = 0.0
            for m in range(3):
                residual[w, i, m] = found[i, m] - force[w, i, m]
                off += residual[w, i, m] * residual[w, i, m]
                net[m] += found[i, m]
            error[w, i] = off / real[1]
            loss[w, i] = error[w, i]
            sums[int(1 - oxygen[w, i])] += error[w, i]
            count += oxygen[w, i]
        metric[w, 0] = (sums[0] + sums[1]) / n
        metric[w, 1] = sums[0] / count
        metric[w, 2] = sums[1] / (n - count)
        metric[w, 3] = math.sqrt(net[0] ** 2 + net[1] ** 2 + net[2] ** 2) / n
        _look(
            position[w], oxygen[w], cell[w], shapes, broad, real[0],
            radial, first, second, none, bond, 1.0,
        )  # fmt: skip
        _write(oxygen[w], limits, radial, first, second, observation[w])
    tally(loss, metric, totals, how, warm_up, clock, age)
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
def step_motion(
    position: Any, velocity: Any, oxygen: Any, cell: Any, mean: Any, histogram: Any, kt: Any,
    made: Any,
    shapes: Any, broad: Any, limits: Any, real: Any,
    usual: Any, structure: Any, between: Any,
    found: Any, radial: Any, first: Any, second: Any,
    loss: Any, metric: Any, totals: Any, how: Any, warm_up: int, clock: Any, age: Any,
    action: Any, observation: Any,
) -> int:  # fmt: skip
    """One step of dynamics in all worlds, in place.

    real: reach, time step, masses of oxygen and hydrogen, kinetic energy of a unit mass and speed,
    acceleration of a unit force, push, memory in steps, width of a bin, longest bond.
    usual [2, functions], structure [3, bins] of the data, between [3, bins] flags.
    """
    bad = bad_action(action)
    if bad >= 0:
        return bad
    n, bins = position.shape[1], histogram.shape[2]
    bond = np.empty(n)
    dt, push = real[1], real[6]
    for w in range(len(position)):
        x, v = position[w], velocity[w]
        mass = _masses(oxygen[w], real)
        _pull(x, oxygen[w], cell[w], shapes, real[0], action[w], found)
        for i in range(n):
            along = push * action[w, i, action.shape[2] - 1]
            for m in range(3):
                v[i, m] += dt * (real[5] * found[i, m] / mass[i] + along * v[i, m])
        _thermal(v, mass, real[4], kt[w, 0])
        for i in range(n):
            for m in range(3):
                x[i, m] += dt * v[i, m]
        made[w, 0] += 1
        volume = _look(
            x, oxygen[w], cell[w], shapes, broad, real[0],
            radial, first, second, histogram[w], bond, real[8],
        )  # fmt: skip
        keep = min(made[w, 0], real[7])
        o, broken = 0.0, 0.0
        for i in range(n):
            own = usual[int(1 - oxygen[w, i])]
            off, size = 0.0, 0.0
            for k in range(radial.shape[1]):
                mean[w, i, k] += (radial[i, k] - mean[w, i, k]) / keep
                off += (mean[w, i, k] - own[k]) ** 2
                size += own[k] ** 2
            loss[w, i] = off / size
            o += oxygen[w, i]
            broken += (1 - oxygen[w, i]) * (bond[i] > real[9])
        pairs = (o * (o - 1), 2 * o * (n - o), (n - o) * (n - o - 1))
        off, size = 0.0, 0.0
        for kind in range(3):
            for at in range(bins):
                low, high = real[8] * at, real[8] * (at + 1)
                shell = 4 / 3 * math.pi * (high**3 - low**3)
                g = histogram[w, kind, at] * (volume / pairs[kind]) / shell / made[w, 0]
                off += abs(g - structure[kind, at]) * between[kind, at]
                size += between[kind, at]
        metric[w, 0] = off / size
        metric[w, 1] = broken / (n - o)
        _write(oxygen[w], limits, radial, first, second, observation[w])
        _write_motion(v, kt[w, 0], mass, real[4], limits, first, observation[w])
    tally(loss, metric, totals, how, warm_up, clock, age)
    return -1
