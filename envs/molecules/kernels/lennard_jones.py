"""Compiled Lennard-Jones forces of a batch of worlds, from neighbour lists."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.kernels.compiling import compiled, compiled_part
from ...core.physics.kernels import lennard_jones as law
from ...core.physics.kernels.images import nearest_image, nearest_image_along

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_compile = compiled(error_model="numpy", nogil=True, fastmath=_FAST)
_part = compiled_part(error_model="numpy", nogil=True, fastmath=_FAST, forceinline=True)
_law = law.lennard_jones


@_part
def _nearest_images(vectors: Any, near: int, h: Any, inv: Any, straight: bool) -> None:
    """The first `near` vectors of three arrays become those to nearest images.

    straight: whether the cell has right angles; its three loops vectorise.
    """
    rx, ry, rz = vectors
    if straight:
        lx, ly, lz, ix, iy, iz = h[0, 0], h[1, 1], h[2, 2], inv[0, 0], inv[1, 1], inv[2, 2]
        for m in range(near):
            rx[m] = nearest_image_along(rx[m], lx, ix)
        for m in range(near):
            ry[m] = nearest_image_along(ry[m], ly, iy)
        for m in range(near):
            rz[m] = nearest_image_along(rz[m], lz, iz)
    else:
        for m in range(near):
            rx[m], ry[m], rz[m] = nearest_image(rx[m], ry[m], rz[m], h, inv)


@_part
def _pair_forces(vectors: Any, near: int, cut2: float, shift: float, pull: Any, half: Any) -> Any:
    """Forces over distances and half energies of the first `near` pairs; their sums of e, r . F.

    vectors: three arrays, of x, y and z.
    """
    rx, ry, rz = vectors
    total, virial = 0.0, 0.0
    for m in range(near):
        d2 = rx[m] * rx[m] + ry[m] * ry[m] + rz[m] * rz[m]
        inside = 1.0 if d2 < cut2 else 0.0
        energy, g = _law(d2)
        g *= inside
        pull[m] = g * (1.0 / d2)
        half[m] = inside * (0.5 * energy - 0.5 * shift)
        virial += g
        total += half[m]
    return total, virial


@_compile
def lennard_jones(
    position: Any, near: Any, cutoff: float, shift: float, force: Any, energy: Any, virial: Any
) -> None:
    """4 (r^-12 - r^-6) - shift within the cutoff, half of a pair's energy with each of the two.

    near: `Neighbours`.  position, force [worlds, n, 3]; energy [worlds, n]; virial [worlds]: sum of
    r . F over pairs.
    """
    cell, inverse, index, count = near
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
            later = count[w, i] - start
            x0, x1, x2 = x[i, 0], x[i, 1], x[i, 2]
            for m in range(later):
                j = np.uint32(row[start + m])  # unsigned: no check for negative ones
                rx[m], ry[m], rz[m] = x[j, 0] - x0, x[j, 1] - x1, x[j, 2] - x2
            _nearest_images((rx, ry, rz), later, h, inv, straight)
            e, v = _pair_forces((rx, ry, rz), later, cut2, shift, pull, half)
            fx, fy, fz = 0.0, 0.0, 0.0
            for m in range(later):
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
