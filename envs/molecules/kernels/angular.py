"""Compiled forces of losses of invariants; `../linear.py` in torch.

Radial functions are cubic Hermite splines on a uniform grid from 0 to the cutoff, given by their
four coefficients per interval; forces are the exact gradients of the splined losses.

The loss of agent i of species s over neighbours j of species t:

    L_i = sum_j p_st(r_ij) + 1/2 sum_l sum_ab M^l_s,ab A^l_ia . A^l_ib
    A^l_ia = sum_j g_st,a(r_ij) Y^l(n_ij)

with Y^l the weighted monomials of degree l, for which Y^l(n) . Y^l(m) = (n . m)^l. Channels a run
over the neighbours' species one after another. Shared forces are -d(sum L)/dx_i, own forces
-dL_i/dx_i. Moments are laid out [channel, monomial], so that the innermost loops run over the
monomials (padded to a multiple of four) and vectorise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ...core.kernels.compiling import compiled
from ...core.physics.kernels.images import vector_between
from ...core.physics.kernels.simd import sum_products, sum_rows
from .monomials import monomial_gradient, monomials

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_compile = compiled(error_model="numpy", nogil=True, fastmath=_FAST)


@_compile
def pair_losses(
    position: Any,
    near: Any,
    species: Any,
    table: Any,
    cutoff: float,
    shared: bool,
    force: Any,
    loss: Any,
) -> None:
    """Pair parts of the losses, from nothing.

    near: `Neighbours`.  species [n]; table [species, species, intervals, 4]; force [worlds, n, 3];
    loss [worlds, n].
    With `shared`, a pair's two losses are added and each agent is given half.
    """
    cell, inverse, index, count = near
    worlds, n, _ = position.shape
    intervals = table.shape[2]
    fine = intervals / cutoff
    cut2 = cutoff * cutoff
    for w in range(worlds):
        x, h, inv = position[w], cell[w], inverse[w]
        for i in range(n):
            loss[w, i] = 0.0
            for axis in range(3):
                force[w, i, axis] = 0.0
        for i in range(n):
            fx, fy, fz, e = 0.0, 0.0, 0.0, 0.0
            s = species[i]
            for m in range(count[w, i] - 1, -1, -1):
                j = np.uint32(index[w, i, m])
                if j < i:
                    break
                rx, ry, rz = vector_between(x, i, j, h, inv)
                d2 = rx * rx + ry * ry + rz * rz
                if d2 >= cut2:
                    continue
                d = math.sqrt(d2)
                u = d * fine
                at = min(int(u), intervals - 1)
                u -= at
                q = table[s, species[j], at]
                g = (q[1] + u * (2.0 * q[2] + 3.0 * u * q[3])) * fine / d
                a = q[0] + u * (q[1] + u * (q[2] + u * q[3]))
                q = table[species[j], s, at]
                g2 = (q[1] + u * (2.0 * q[2] + 3.0 * u * q[3])) * fine / d
                a2 = q[0] + u * (q[1] + u * (q[2] + u * q[3]))
                if shared:
                    g += g2
                    g2 = g
                    a = 0.5 * (a + a2)
                    a2 = a
                e += a
                loss[w, j] += a2
                fx += g * rx
                fy += g * ry
                fz += g * rz
                force[w, j, 0] -= g2 * rx
                force[w, j, 1] -= g2 * ry
                force[w, j, 2] -= g2 * rz
            loss[w, i] += e
            force[w, i, 0] += fx
            force[w, i, 1] += fy
            force[w, i, 2] += fz


class Channels(NamedTuple):
    """A quadratic loss as `angular_losses` takes it.

    order: largest l.  table [species, species, intervals, 4, channels]: of the radial functions.
    offset [species, species + 1]: where the channels of each neighbour species start.
    matrix [species, channels, channels, monomials]: M^l spread over the monomials of its degree.
    pad, spread: tuples as long as the monomials and as the channels of a neighbour species, padded.
    """

    order: int
    table: np.ndarray
    offset: np.ndarray
    matrix: np.ndarray
    pad: tuple[int, ...]
    spread: tuple[int, ...]
    cutoff: float


@_compile
def angular_losses(
    position: Any,
    near: Any,
    species: Any,
    model: Any,
    shared: bool,
    force: Any,
    loss: Any,
) -> None:
    """Adds the quadratic parts of the losses.

    near: `Neighbours`.  model: `Channels`, in the type of whose table moments are calculated.
    """
    cell, inverse, index, count = near
    order, table, offset, matrix, pad, spread, cutoff = model
    worlds, n, _ = position.shape
    intervals = table.shape[2]
    kinds = table.shape[0]
    size, width, many = matrix.shape[1], len(pad), len(spread)
    fine = intervals / cutoff
    cut2 = cutoff * cutoff
    room = index.shape[2]
    kind = table.dtype
    step = kind.type(fine)
    unit = np.empty((room, 4))
    other = np.empty(room, np.int64)
    first = np.empty(kinds + 1, np.int64)
    y = np.zeros((room, width), kind)
    g = np.zeros((room, many), kind)
    dg = np.zeros((room, many), kind)
    moment = np.zeros((size, width), kind)
    pulled = np.zeros((size, width), kind)
    p = np.zeros(width, kind)
    q = np.zeros(width, kind)
    power = np.ones(4, kind)
    slope = np.zeros(4, kind)
    for w in range(worlds):
        x, h, inv = position[w], cell[w], inverse[w]
        for i in range(n):
            s = species[i]
            total = 0
            for t in range(kinds):
                first[t] = total
                for m in range(count[w, i]):
                    j = np.uint32(index[w, i, m])
                    if species[j] != t:
                        continue
                    rx, ry, rz = vector_between(x, i, j, h, inv)
                    d2 = rx * rx + ry * ry + rz * rz
                    if d2 < cut2:
                        d = math.sqrt(d2)
                        unit[total, 0], unit[total, 1], unit[total, 2] = rx / d, ry / d, rz / d
                        unit[total, 3] = d
                        other[total] = j
                        total += 1
            first[kinds] = total
            channels = offset[s, kinds]
            for t in range(kinds):
                for a in range(first[t], first[t + 1]):
                    u = unit[a, 3] * fine
                    at = min(int(u), intervals - 1)
                    f = kind.type(u - at)
                    power[1], power[2], power[3] = f, f * f, f * f * f
                    slope[1], slope[2], slope[3] = step, 2 * step * f, 3 * step * f * f
                    at = 4 * ((s * kinds + t) * intervals + at)
                    sum_rows(power, table, g, (0, 1, at, a), 4, spread)
                    sum_rows(slope, table, dg, (0, 1, at, a), 4, spread)
                    nx, ny, nz = unit[a, 0], unit[a, 1], unit[a, 2]
                    monomials(kind.type(nx), kind.type(ny), kind.type(nz), order, y[a])
                many_near = first[t + 1] - first[t]
                for c in range(offset[s, t + 1] - offset[s, t]):
                    to = offset[s, t] + c
                    sum_rows(
                        g, y, moment, (first[t] * many + c, many, first[t], to), many_near, pad
                    )
            e = 0.0
            for c in range(channels):
                sum_products(matrix, moment, pulled, ((s * size + c) * size, 0, c), channels, pad)
                for m in range(width):
                    e += pulled[c, m] * moment[c, m]
            loss[w, i] += 0.5 * e
            sx, sy, sz = 0.0, 0.0, 0.0
            for t in range(kinds):
                start, have = offset[s, t], offset[s, t + 1] - offset[s, t]
                for a in range(first[t], first[t + 1]):
                    sum_rows(g, pulled, p, (a * many, 1, start, 0), have, pad)
                    sum_rows(dg, pulled, q, (a * many, 1, start, 0), have, pad)
                    along = kind.type(0.0)
                    for m in range(width):
                        along += q[m] * y[a, m]
                    nx, ny, nz = (
                        kind.type(unit[a, 0]),
                        kind.type(unit[a, 1]),
                        kind.type(unit[a, 2]),
                    )
                    gx, gy, gz = monomial_gradient(nx, ny, nz, order, p)
                    over = kind.type(1.0 / unit[a, 3])
                    along -= over * (gx * nx + gy * ny + gz * nz)
                    vx = np.float64(over * gx + along * nx)
                    vy = np.float64(over * gy + along * ny)
                    vz = np.float64(over * gz + along * nz)
                    sx += vx
                    sy += vy
                    sz += vz
                    if shared:
                        j = other[a]
                        force[w, j, 0] -= vx
                        force[w, j, 1] -= vy
                        force[w, j, 2] -= vz
            force[w, i, 0] += sx
            force[w, i, 1] += sy
            force[w, i, 2] += sz


@_compile
def bond_walls(
    position: Any,
    near: Any,
    bonds: Any,
    length: float,
    stiffness: float,
    force: Any,
    loss: Any,
) -> None:
    """Adds 1/2 k (r - length)^2 for bonds [m, 2] longer than `length`, half to each agent."""
    cell, inverse, _, _ = near
    for w in range(len(position)):
        x = position[w]
        for m in range(len(bonds)):
            i, j = bonds[m, 0], bonds[m, 1]
            rx, ry, rz = vector_between(x, i, j, cell[w], inverse[w])
            d = math.sqrt(rx * rx + ry * ry + rz * rz)
            if d > length:
                over = d - length
                g = stiffness * over / d
                for axis, r in enumerate((rx, ry, rz)):
                    force[w, i, axis] += g * r
                    force[w, j, axis] -= g * r
                e = 0.25 * stiffness * over * over
                loss[w, i] += e
                loss[w, j] += e
