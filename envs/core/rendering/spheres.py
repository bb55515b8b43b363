"""Painting of balls and the sticks between them, lit from the viewer's upper left, with depth.

An image is [height, width, 3] uint8; `depth` [height, width] holds what is nearest so far, larger
being nearer, and decides what is seen. Places are pixels, the third axis points to the viewer.
"""

from __future__ import annotations

import math

import numpy as np

from ..kernels.compiling import compiled
from .raster import Clip

_LIGHT = (-0.42, -0.56, 0.714)
_AMBIENT, _SHINE = 0.35, 0.35


@compiled(error_model="numpy", inline="always")
def _paint(
    image: np.ndarray,
    y: int,
    x: int,
    colour: np.ndarray,
    nx: float,
    ny: float,
    nz: float,
    fog: np.ndarray,
) -> None:
    lit = max(nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2], 0.0)
    shine = _SHINE * lit**24
    for c in range(3):
        bright = colour[c] * (_AMBIENT + (1 - _AMBIENT) * lit)
        bright = bright + (255 - bright) * shine
        image[y, x, c] = np.uint8(bright * (1 - fog[3]) + fog[c] * fog[3])


@compiled(error_model="numpy")
def balls(
    image: np.ndarray,
    depth: np.ndarray,
    ball: np.ndarray,
    colour: np.ndarray,
    fog: np.ndarray,
    clip: Clip,
) -> None:
    """`ball` [n, 4] (x, y, z, radius), `colour` [n, 3], `fog` [n, 4] (colour and how thick)."""
    left, top, right, bottom = clip
    for i in range(ball.shape[0]):
        cx, cy, cz, radius = ball[i]
        for y in range(max(int(cy - radius), top), min(int(cy + radius) + 1, bottom)):
            for x in range(max(int(cx - radius), left), min(int(cx + radius) + 1, right)):
                dx, dy = (x + 0.5 - cx) / radius, (y + 0.5 - cy) / radius
                d2 = dx * dx + dy * dy
                if d2 < 1.0:
                    dz = math.sqrt(1.0 - d2)
                    z = cz + radius * dz
                    if z > depth[y, x]:
                        depth[y, x] = z
                        _paint(image, y, x, colour[i], dx, dy, dz, fog[i])


@compiled(error_model="numpy")
def sticks(
    image: np.ndarray,
    depth: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    radius: np.ndarray,
    colour: np.ndarray,
    fog: np.ndarray,
    clip: Clip,
) -> None:
    """Cylinders from `start` to `stop` [n, 3] of `radius` [n] in one `colour` [3]; `fog` [n, 4]."""
    left, top, right, bottom = clip
    for i in range(start.shape[0]):
        ax, ay, az = start[i]
        ux, uy, uz = stop[i] - start[i]
        length2 = max(ux * ux + uy * uy, 1e-9)
        length, r = math.sqrt(length2), radius[i]
        low_y, high_y = min(ay, ay + uy) - r, max(ay, ay + uy) + r
        low_x, high_x = min(ax, ax + ux) - r, max(ax, ax + ux) + r
        for y in range(max(int(low_y), top), min(int(high_y) + 1, bottom)):
            for x in range(max(int(low_x), left), min(int(high_x) + 1, right)):
                px, py = x + 0.5 - ax, y + 0.5 - ay
                along = (px * ux + py * uy) / length2
                across = (px * uy - py * ux) / length
                if 0.0 <= along <= 1.0 and abs(across) < r:
                    side = across / r
                    face = math.sqrt(1.0 - side * side)
                    z = az + along * uz + r * face
                    if z > depth[y, x]:
                        depth[y, x] = z
                        nx, ny = side * uy / length, -side * ux / length
                        _paint(image, y, x, colour, nx, ny, face, fog[i])
