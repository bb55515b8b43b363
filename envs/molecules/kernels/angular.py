"""Compiled forces of losses of invariants (`linear.py` in torch), and Lennard-Jones forces.

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
from typing import Any

import numpy as np
from numba import njit

from ...core.kernels.compiling import compiled
from ...core.physics.kernels.neighbours import image
from ...core.physics.kernels.simd import sum_products, sum_rows

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_compile = compiled(error_model="numpy", nogil=True, fastmath=_FAST)
_inline = njit(inline="always", error_model="numpy", fastmath=_FAST)
ROOT2, ROOT3, ROOT6 = math.sqrt(2.0), math.sqrt(3.0), math.sqrt(6.0)


@_inline
def _straight_images(rx: Any, ry: Any, rz: Any, near: int, h: Any, inv: Any) -> None:
    """`image` in a cell with right angles, for the first `near` of three arrays."""
    lx, ly, lz, ix, iy, iz = h[0, 0], h[1, 1], h[2, 2], inv[0, 0], inv[1, 1], inv[2, 2]
    for m in range(near):
        rx[m] -= lx * np.rint(rx[m] * ix)
    for m in range(near):
        ry[m] -= ly * np.rint(ry[m] * iy)
    for m in range(near):
        rz[m] -= lz * np.rint(rz[m] * iz)


@_inline
def _lennard_jones_pairs(
    rx: Any, ry: Any, rz: Any, near: int, cut2: float, shift: float, pull: Any, half: Any
) -> Any:
    """Forces over distances and half energies of the first `near` pairs; their r . F in sum."""
    v, e = 0.0, 0.0
    for m in range(near):
        d2 = rx[m] * rx[m] + ry[m] * ry[m] + rz[m] * rz[m]
        inside = 1.0 if d2 < cut2 else 0.0
        s2 = 1.0 / d2
        s6 = s2 * s2 * s2
        g = inside * 24.0 * s6 * (2.0 * s6 - 1.0)
        pull[m] = g * s2
        half[m] = inside * (2.0 * s6 * (s6 - 1.0) - 0.5 * shift)
        v += g
        e += half[m]
    return e, v


@_compile
def lennard_jones(
    position: Any,
    cell: Any,
    inverse: Any,
    index: Any,
    count: Any,
    cutoff: float,
    shift: float,
    force: Any,
    energy: Any,
    virial: Any,
) -> None:
    """4 (r^-12 - r^-6) - shift within the cutoff, half of a pair's energy with each of the two.

    position, force [worlds, n, 3]; energy [worlds, n]; virial [worlds]: sum of r . F over pairs.
    """
    worlds, n, _ = position.shape
    cut2 = cutoff * cutoff
    room = index.shape[2]
    rx, ry, rz = np.empty(room), np.empty(room), np.empty(room)
    pull, half = np.empty(room), np.empty(room)
    for w in range(worlds):
        x, h, inv = position[w], cell[w], inverse[w]
        straight = h[0, 1] == h[0, 2] == h[1, 2] == h[1, 0] == h[2, 0] == h[2, 1] == 0.0
        total = 0.0
        for i in range(n):
            energy[w, i] = 0.0
            for axis in range(3):
                force[w, i, axis] = 0.0
        for i in range(n):
            row = index[w, i]
            start = count[w, i]
            while start > 0 and row[start - 1] > i:
                start -= 1
            near = count[w, i] - start
            x0, x1, x2 = x[i, 0], x[i, 1], x[i, 2]
            for m in range(near):
                j = np.uint32(row[start + m])  # unsigned: no check for negative ones
                rx[m], ry[m], rz[m] = x[j, 0] - x0, x[j, 1] - x1, x[j, 2] - x2
            if straight:
                _straight_images(rx, ry, rz, near, h, inv)
            else:
                for m in range(near):
                    rx[m], ry[m], rz[m] = image(rx[m], ry[m], rz[m], h, inv)
            e, v = _lennard_jones_pairs(rx, ry, rz, near, cut2, shift, pull, half)
            fx, fy, fz = 0.0, 0.0, 0.0
            for m in range(near):
                j, g = np.uint32(row[start + m]), pull[m]
                gx, gy, gz = g * rx[m], g * ry[m], g * rz[m]
                fx -= gx
                fy -= gy
                fz -= gz
                force[w, j, 0] += gx
                force[w, j, 1] += gy
                force[w, j, 2] += gz
                energy[w, j] += half[m]
            force[w, i, 0] += fx
            force[w, i, 1] += fy
            force[w, i, 2] += fz
            energy[w, i] += e
            total += v
        virial[w] = total


@_compile
def pair_losses(
    position: Any,
    cell: Any,
    inverse: Any,
    index: Any,
    count: Any,
    species: Any,
    table: Any,
    cutoff: float,
    shared: bool,
    force: Any,
    loss: Any,
) -> None:
    """Pair parts of the losses, from nothing.

    species [n]; table [species, species, intervals, 4]; force [worlds, n, 3]; loss [worlds, n].
    With `shared`, a pair's two losses are added and each agent is given half.
    """
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
                rx, ry, rz = image(x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2], h, inv)
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


@_inline
def monomials(x: Any, y: Any, z: Any, order: int, out: Any) -> None:
    """Weighted monomials of degree 0 to `order` of a unit vector."""
    out[0] = 1.0
    if order == 0:
        return
    out[1], out[2], out[3] = x, y, z
    if order == 1:
        return
    r2, r3, r6 = out.dtype.type(ROOT2), out.dtype.type(ROOT3), out.dtype.type(ROOT6)
    out[4], out[5], out[6] = x * x, y * y, z * z
    out[7], out[8], out[9] = r2 * x * y, r2 * y * z, r2 * z * x
    if order == 2:
        return
    out[10], out[11], out[12] = x * x * x, y * y * y, z * z * z
    out[13], out[14] = r3 * x * x * y, r3 * x * x * z
    out[15], out[16] = r3 * y * y * x, r3 * y * y * z
    out[17], out[18] = r3 * z * z * x, r3 * z * z * y
    out[19] = r6 * x * y * z


@_inline
def monomial_gradient(x: Any, y: Any, z: Any, order: int, p: Any) -> Any:
    """Gradient with respect to (x, y, z) of sum p . monomials."""
    gx, gy, gz = x * 0, x * 0, x * 0
    if order >= 1:
        gx, gy, gz = p[1], p[2], p[3]
    if order >= 2:
        r2 = p.dtype.type(ROOT2)
        gx += 2 * x * p[4] + r2 * (y * p[7] + z * p[9])
        gy += 2 * y * p[5] + r2 * (x * p[7] + z * p[8])
        gz += 2 * z * p[6] + r2 * (y * p[8] + x * p[9])
    if order >= 3:
        r3, r6 = p.dtype.type(ROOT3), p.dtype.type(ROOT6)
        xx, yy, zz = x * x, y * y, z * z
        xy, yz, zx = x * y, y * z, z * x
        gx += 3 * xx * p[10] + r3 * (2 * (xy * p[13] + zx * p[14]) + yy * p[15] + zz * p[17])
        gy += 3 * yy * p[11] + r3 * (xx * p[13] + 2 * (xy * p[15] + yz * p[16]) + zz * p[18])
        gz += 3 * zz * p[12] + r3 * (xx * p[14] + yy * p[16] + 2 * (zx * p[17] + yz * p[18]))
        gx += r6 * yz * p[19]
        gy += r6 * zx * p[19]
        gz += r6 * xy * p[19]
    return gx, gy, gz


@_compile
def angular_losses(
    position: Any,
    cell: Any,
    inverse: Any,
    index: Any,
    count: Any,
    species: Any,
    order: int,
    table: Any,
    offset: Any,
    matrix: Any,
    pad: Any,
    spread: Any,
    cutoff: float,
    shared: bool,
    force: Any,
    loss: Any,
) -> None:
    """Adds the quadratic parts of the losses.

    order: largest l.  table [species, species, intervals, 4, channels]: of the radial functions.
    offset [species, species + 1]: where the channels of each neighbour species start.
    matrix [species, channels, channels, monomials]: M^l spread over the monomials of its degree.
    pad, spread: tuples as long as the monomials and as the channels of a neighbour species, padded.
    The arithmetic on moments is done in the type of `table`.
    """
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
                    rx, ry, rz = image(
                        x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2], h, inv
                    )
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
                    sum_rows(power, 0, 1, table, at, 4, g, a, spread)
                    sum_rows(slope, 0, 1, table, at, 4, dg, a, spread)
                    nx, ny, nz = unit[a, 0], unit[a, 1], unit[a, 2]
                    monomials(kind.type(nx), kind.type(ny), kind.type(nz), order, y[a])
                near = first[t + 1] - first[t]
                for c in range(offset[s, t + 1] - offset[s, t]):
                    to = offset[s, t] + c
                    sum_rows(g, first[t] * many + c, many, y, first[t], near, moment, to, pad)
            e = 0.0
            for c in range(channels):
                sum_products(matrix, (s * size + c) * size, moment, 0, channels, pulled, c, pad)
                for m in range(width):
                    e += pulled[c, m] * moment[c, m]
            loss[w, i] += 0.5 * e
            sx, sy, sz = 0.0, 0.0, 0.0
            for t in range(kinds):
                start, have = offset[s, t], offset[s, t + 1] - offset[s, t]
                for a in range(first[t], first[t + 1]):
                    sum_rows(g, a * many, 1, pulled, start, have, p, 0, pad)
                    sum_rows(dg, a * many, 1, pulled, start, have, q, 0, pad)
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
    cell: Any,
    inverse: Any,
    bonds: Any,
    length: float,
    stiffness: float,
    force: Any,
    loss: Any,
) -> None:
    """Adds 1/2 k (r - length)^2 for bonds [m, 2] longer than `length`, half to each agent."""
    for w in range(len(position)):
        x = position[w]
        for m in range(len(bonds)):
            i, j = bonds[m, 0], bonds[m, 1]
            rx, ry, rz = image(
                x[j, 0] - x[i, 0],
                x[j, 1] - x[i, 1],
                x[j, 2] - x[i, 2],
                cell[w],
                inverse[w],
            )
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


@_compile
def pair_columns(
    x: Any,
    start: Any,
    index: Any,
    shift: Any,
    species: Any,
    table: Any,
    column: Any,
    cutoff: float,
    shared: bool,
    out: Any,
) -> bool:
    """Forces per unit coefficient of each pair function, added to `out` [n, 3, parameters].

    x [n, 3]; start, index, shift: as `PeriodicNeighbours`; table [species, species, intervals, 4,
    functions]; column [species, species, 2]: first column and number of functions.
    Whether it was done: not where two atoms stand at one place.
    """
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


@_compile
def angular_columns(
    x: Any,
    start: Any,
    index: Any,
    shift: Any,
    species: Any,
    order: int,
    table: Any,
    offset: Any,
    column: Any,
    cutoff: float,
    shared: bool,
    out: Any,
) -> None:
    """Forces per unit of M^l_ab = M^l_ba, a <= b, put into `out` [n, 3, columns].

    start, index, shift: as `PeriodicNeighbours`.  column [species, order + 1]: first column of
    each triangle of coefficients, row after row: (0, 0), (0, 1), ... (1, 1), ...
    Half of d(A_a . A_b) is dA_a . A_b. With A_b known that is linear in the radial function of A_a
    and its slope, for any channel a: so the sums over monomials are done once per neighbour.
    """
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
        channels = offset[s, kinds]
        pulled[:, :, :channels] = 0.0
        for i in range(n):
            if species[i] != s:
                continue
            own[:, :channels] = 0.0
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
                for c in range(channels):
                    for b in range(line):
                        pulled[i, axis, c, b] += own[axis, c, b]
        for i in range(n):
            for axis in range(3):
                for degree in range(degrees):
                    at = column[s, degree]
                    to = degree * size
                    for a in range(channels):
                        out[i, axis, at] = pulled[i, axis, a, to + a]
                        for b in range(a + 1, channels):
                            out[i, axis, at + b - a] = (
                                pulled[i, axis, a, to + b] + pulled[i, axis, b, to + a]
                            )
                        at += channels - a
