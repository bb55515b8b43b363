"""Compiled columns of linear least-squares problems: forces per unit of each coefficient.

Of the losses that `angular.py` tells.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ...core.kernels.compiling import compiled
from .monomials import monomial_gradient, monomials

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_compile = compiled(error_model="numpy", nogil=True, fastmath=_FAST)


@_compile
def pair_columns(
    x: Any,
    near: Any,
    species: Any,
    table: Any,
    column: Any,
    cutoff: float,
    shared: bool,
    out: Any,
) -> bool:
    """Forces per unit coefficient of each pair function, added to `out` [n, 3, parameters].

    x [n, 3]; near: `PeriodicNeighbours`; table [species, species, intervals, 4, functions];
    column [species, species, 2]: first column and number of functions.
    Whether it was done: not where two atoms stand at one place.
    """
    start, index, shift = near
    n = len(x)
    intervals = table.shape[2]
    fine = intervals / cutoff
    for i in range(n):
        s = species[i]
        for m in range(start[i], start[i + 1]):
            j = index[m]
            rx = x[j, 0] + shift[m, 0] - x[i, 0]
            ry = x[j, 1] + shift[m, 1] - x[i, 1]
            rz = x[j, 2] + shift[m, 2] - x[i, 2]
            d = math.sqrt(rx * rx + ry * ry + rz * rz)
            if d >= cutoff:
                continue
            if d == 0.0:
                return False
            t = species[j]
            u = d * fine
            at = min(int(u), intervals - 1)
            u -= at
            first, many = column[s, t, 0], column[s, t, 1]
            row = table[s, t, at]
            for c in range(many):
                g = (row[1, c] + u * (2.0 * row[2, c] + 3.0 * u * row[3, c])) * fine / d
                out[i, 0, first + c] += g * rx
                out[i, 1, first + c] += g * ry
                out[i, 2, first + c] += g * rz
                if shared:
                    out[j, 0, first + c] -= g * rx
                    out[j, 1, first + c] -= g * ry
                    out[j, 2, first + c] -= g * rz
    return True


class ChannelColumns(NamedTuple):
    """Radial functions of a quadratic loss, and where the columns of its coefficients begin.

    order: largest l.  table [species, species, intervals, 4, channels]; offset [species, species +
    1]: where the channels of each neighbour species start.  column [species, order + 1]: first
    column of each triangle of coefficients, row after row: (0, 0), (0, 1), ... (1, 1), ...
    """

    order: int
    table: np.ndarray
    offset: np.ndarray
    column: np.ndarray
    cutoff: float


@_compile
def angular_columns(x: Any, near: Any, species: Any, channels: Any, shared: bool, out: Any) -> None:
    """Forces per unit of M^l_ab = M^l_ba, a <= b, put into `out` [n, 3, columns].

    near: `PeriodicNeighbours`.  channels: `ChannelColumns`.
    Half of d(A_a . A_b) is dA_a . A_b. With A_b known that is linear in the radial function of A_a
    and its slope, for any channel a: so the sums over monomials are done once per neighbour.
    """
    start, index, shift = near
    order, table, offset, column, cutoff = channels
    n = len(x)
    intervals = table.shape[2]
    kinds = table.shape[0]
    fine = intervals / cutoff
    size = 0
    for s in range(kinds):
        size = max(size, offset[s, kinds])
    size = 8 * ((size + 7) // 8)  # the innermost loops run over whole registers
    begins = (0, 1, 4, 10, 20)
    width = begins[order + 1]
    room, most = len(index), table.shape[4]
    last = np.empty(n, np.int64)
    other = np.empty(room, np.int64)
    unit = np.empty((room, 3))
    y = np.empty((room, width))
    turn = np.empty((room, 3, width))
    g = np.empty((room, most))
    dg = np.empty((room, most))
    moment = np.zeros((n, width, size))
    basis = np.zeros(width)
    for i in range(n):
        s = species[i]
        a = start[i]
        for m in range(start[i], start[i + 1]):
            j = index[m]
            rx = x[j, 0] + shift[m, 0] - x[i, 0]
            ry = x[j, 1] + shift[m, 1] - x[i, 1]
            rz = x[j, 2] + shift[m, 2] - x[i, 2]
            d = math.sqrt(rx * rx + ry * ry + rz * rz)
            if d >= cutoff:
                continue
            t = species[j]
            other[a] = j
            nx, ny, nz = rx / d, ry / d, rz / d
            unit[a, 0], unit[a, 1], unit[a, 2] = nx, ny, nz
            u = d * fine
            at = min(int(u), intervals - 1)
            u -= at
            row = table[s, t, at]
            first = offset[s, t]
            monomials(nx, ny, nz, order, y[a])
            for c in range(offset[s, t + 1] - first):
                g[a, c] = row[0, c] + u * (row[1, c] + u * (row[2, c] + u * row[3, c]))
                dg[a, c] = fine * (row[1, c] + u * (2.0 * row[2, c] + 3.0 * u * row[3, c]))
                for k in range(width):
                    moment[i, k, first + c] += g[a, c] * y[a, k]
            for k in range(width):
                basis[:] = 0.0
                basis[k] = 1.0
                gx, gy, gz = monomial_gradient(nx, ny, nz, order, basis)
                dot = gx * nx + gy * ny + gz * nz
                turn[a, 0, k] = (gx - dot * nx) / d
                turn[a, 1, k] = (gy - dot * ny) / d
                turn[a, 2, k] = (gz - dot * nz) / d
            a += 1
        last[i] = a
    degrees = order + 1
    line = degrees * size
    along = np.empty(line)
    across = np.empty((3, line))
    own = np.empty((3, size, line))
    pulled = np.empty((n, 3, size, line))
    for s in range(kinds):
        many = offset[s, kinds]
        pulled[:, :, :many] = 0.0
        for i in range(n):
            if species[i] != s:
                continue
            own[:, :many] = 0.0
            for a in range(start[i], last[i]):
                j = other[a]
                along[:] = 0.0
                across[:] = 0.0
                for degree in range(degrees):
                    at = degree * size
                    for k in range(begins[degree], begins[degree + 1]):
                        value = y[a, k]
                        tx, ty, tz = turn[a, 0, k], turn[a, 1, k], turn[a, 2, k]
                        for b in range(size):
                            along[at + b] += value * moment[i, k, b]
                            across[0, at + b] += tx * moment[i, k, b]
                            across[1, at + b] += ty * moment[i, k, b]
                            across[2, at + b] += tz * moment[i, k, b]
                t = species[j]
                first = offset[s, t]
                for c in range(offset[s, t + 1] - first):
                    value = g[a, c]
                    for axis in range(3):
                        slope = dg[a, c] * unit[a, axis]
                        if shared:
                            for b in range(line):
                                pull = slope * along[b] + value * across[axis, b]
                                own[axis, first + c, b] += pull
                                pulled[j, axis, first + c, b] -= pull
                        else:
                            for b in range(line):
                                pull = slope * along[b] + value * across[axis, b]
                                own[axis, first + c, b] += pull
            for axis in range(3):
                for c in range(many):
                    for b in range(line):
                        pulled[i, axis, c, b] += own[axis, c, b]
        for i in range(n):
            for axis in range(3):
                for degree in range(degrees):
                    at = column[s, degree]
                    to = degree * size
                    for a in range(many):
                        out[i, axis, at] = pulled[i, axis, a, to + a]
                        for b in range(a + 1, many):
                            out[i, axis, at + b - a] = (
                                pulled[i, axis, a, to + b] + pulled[i, axis, b, to + a]
                            )
                        at += many - a
