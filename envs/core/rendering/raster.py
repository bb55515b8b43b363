"""Painting of round shapes into an image, with soft edges at sub-pixel places.

An image is [height, width, 3] uint8 in red, green, blue. Places and widths are in pixels; the
centre of the first pixel is (0.5, 0.5). `clip` is (left, top, right, bottom) in whole pixels and
nothing outside is touched. With `period` (width, height) above 0 a shape that crosses the edge of
`clip` comes in again on the other side. A shape thinner than a pixel is drawn fainter instead.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..kernels.compiling import compiled

Clip = tuple[int, int, int, int]


class Stroke(NamedTuple):
    """A straight line: where it starts, its displacement, half its width at the start and end."""

    x: float
    y: float
    dx: float
    dy: float
    start: float
    end: float


class Ink(NamedTuple):
    """What a line is painted with: see `lines`."""

    colour: Any
    opacity: float
    ground: Any
    join: bool


_THIN = 0.5  # half of a pixel
_SHORT = 2.0  # pixels


@compiled(error_model="numpy", inline="always")
def _blend(image: np.ndarray, y: Any, x: Any, colour: Any, opacity: int) -> None:
    """`opacity` is a whole number from 0 to 256."""
    keep = 256 - opacity
    y, x = np.uintp(y), np.uintp(x)  # numba then skips the test for negative indices
    image[y, x, 0] = np.uint8((image[y, x, 0] * keep + colour[0] * opacity + 128) >> 8)
    image[y, x, 1] = np.uint8((image[y, x, 1] * keep + colour[1] * opacity + 128) >> 8)
    image[y, x, 2] = np.uint8((image[y, x, 2] * keep + colour[2] * opacity + 128) >> 8)


@compiled(error_model="numpy", inline="always")
def _lighten(image: np.ndarray, y: int, x: int, colour: Any, opacity: int, ground: Any) -> None:
    """Like `_blend` over `ground`, but only where that is lighter than what is there."""
    keep = 256 - opacity
    for c in range(3):
        mixed = np.uint8((ground[c] * keep + colour[c] * opacity + 128) >> 8)
        image[y, x, c] = max(image[y, x, c], mixed)


@compiled(error_model="numpy", inline="always")
def _whole(colour: np.ndarray) -> tuple[Any, Any, Any]:
    """Red, green and blue as whole numbers."""
    return np.int32(colour[0]), np.int32(colour[1]), np.int32(colour[2])


@compiled(error_model="numpy", inline="always")
def _pixels(low: float, high: float, first: int, last: int) -> tuple[int, int]:
    """From which to which pixel centres lie between low and high, within first >= 0 and last."""
    return min(max(int(low + 0.5), first), last), min(max(int(high + 0.5), first), last)


@compiled(error_model="numpy", inline="always")
def _copies(low: float, high: float, first: int, last: int, period: float) -> tuple[int, int]:
    """From which to which multiple of the period a shape has to be drawn."""
    if period <= 0:
        return 0, 1
    return -1 if high > last else 0, 2 if low < first else 1


@compiled(error_model="numpy")
def discs(
    image: np.ndarray, disc: np.ndarray, colour: np.ndarray, clip: Clip, period: np.ndarray
) -> None:
    """Paint rings `disc` [n, 4] (x, y, radius, inner radius; 0: full) in `colour` [n, 4].

    The columns of `colour` are red, green, blue (0 to 255) and opacity (0 to 1).
    """
    left, top, right, bottom = clip
    for i in range(disc.shape[0]):
        x, y, radius, inner = disc[i]
        shade, opacity = _whole(colour[i]), 256.0 * colour[i, 3]
        if radius < _THIN:
            opacity *= (radius / _THIN) ** 2
            radius = _THIN
        reach = radius + 0.5
        first_x, last_x = _copies(x - reach, x + reach, left, right, period[0])
        first_y, last_y = _copies(y - reach, y + reach, top, bottom, period[1])
        for row in range(first_y, last_y):
            for column in range(first_x, last_x):
                cx, cy = x + column * period[0], y + row * period[1]
                _disc(image, cx, cy, radius, inner, shade, opacity, clip)


@compiled(error_model="numpy")
def _disc(
    image: np.ndarray,
    cx: float,
    cy: float,
    radius: float,
    inner: float,
    colour: Any,
    opacity: float,
    clip: Clip,
) -> None:
    left, top, right, bottom = clip
    reach, solid = radius + 0.5, radius - 0.5
    full = np.int32(opacity + 0.5)
    first, last = _pixels(cy - reach, cy + reach, top, bottom)
    for y in range(first, last):
        dy2 = (y + 0.5 - cy) ** 2
        half = math.sqrt(max(reach * reach - dy2, 0.0))
        start, stop = _pixels(cx - half, cx + half, left, right)
        solid_start = solid_stop = stop
        if inner <= 0 and solid * solid > dy2:
            half = math.sqrt(solid * solid - dy2)
            solid_start, solid_stop = _pixels(cx - half, cx + half, start, stop)
            solid_stop = max(solid_start, solid_stop)
        for x in range(start, solid_start):
            _blend(image, y, x, colour, _ring(x, cx, dy2, reach, inner, opacity))
        if full == 256:
            for x in range(solid_start, solid_stop):
                image[np.uintp(y), np.uintp(x), 0] = colour[0]
                image[np.uintp(y), np.uintp(x), 1] = colour[1]
                image[np.uintp(y), np.uintp(x), 2] = colour[2]
        else:
            for x in range(solid_start, solid_stop):
                _blend(image, y, x, colour, full)
        for x in range(solid_stop, stop):
            _blend(image, y, x, colour, _ring(x, cx, dy2, reach, inner, opacity))


@compiled(error_model="numpy", inline="always")
def _ring(x: int, cx: float, dy2: float, reach: float, inner: float, opacity: float) -> Any:
    distance = math.sqrt((x + 0.5 - cx) ** 2 + dy2)
    cover = min(max(reach - distance, 0.0), 1.0)
    if inner > 0:
        cover = min(cover, max(distance - inner + 0.5, 0.0))
    return np.int32(opacity * cover + 0.5)


@compiled(error_model="numpy")
def polygons(
    image: np.ndarray, shape: np.ndarray, colour: np.ndarray, clip: Clip, period: np.ndarray
) -> None:
    """Paint regular polygons `shape` [n, 5] in `colour` [n, 4], as `discs` has it.

    The columns of `shape` are x, y, the distance of the corners from there, how many corners, and
    the direction of one of them in radians, anticlockwise from the right.
    """
    left, top, right, bottom = clip
    for i in range(shape.shape[0]):
        x, y, radius, corners, turn = shape[i]
        shade, opacity = _whole(colour[i]), 256.0 * colour[i, 3]
        reach, sector = radius + 0.5, 2 * math.pi / corners
        apothem = radius * math.cos(0.5 * sector)
        first_x, last_x = _copies(x - reach, x + reach, left, right, period[0])
        first_y, last_y = _copies(y - reach, y + reach, top, bottom, period[1])
        for row in range(first_y, last_y):
            for column in range(first_x, last_x):
                cx, cy = x + column * period[0], y + row * period[1]
                start, stop = _pixels(cx - reach, cx + reach, left, right)
                high, low = _pixels(cy - reach, cy + reach, top, bottom)
                for py in range(high, low):
                    for px in range(start, stop):
                        across, up = px + 0.5 - cx, cy - py - 0.5
                        angle = math.atan2(up, across) - turn
                        angle -= sector * (math.floor(angle / sector) + 0.5)
                        away = math.sqrt(across * across + up * up) * math.cos(angle) - apothem
                        cover = min(max(0.5 - away, 0.0), 1.0)
                        if cover > 0:
                            _blend(image, py, px, shade, np.int32(opacity * cover + 0.5))


@compiled(error_model="numpy")
def lines(
    image: np.ndarray,
    line: np.ndarray,
    width: np.ndarray,
    colour: np.ndarray,
    clip: Clip,
    period: np.ndarray,
    ground: Any,
    join: bool,
) -> None:
    """Paint strokes with round ends, `line` [n, 4] (start, displacement), in `colour` [n, 4].

    Single ones that are shorter than 2 pixels are left out.

    width [n, 2]: at the start and at the end.  join: strokes that overlap do not add up, so that a
    row of them looks like one; they are painted as if over the colour `ground`, which is dark.
    """
    left, top, right, bottom = clip
    for i in range(line.shape[0]):
        x, y, dx, dy = line[i]
        if not join and dx * dx + dy * dy < _SHORT**2:
            continue
        shade, opacity = _whole(colour[i]), 256.0 * colour[i, 3]
        start, end = 0.5 * width[i, 0], 0.5 * width[i, 1]
        if max(start, end) < _THIN:
            opacity *= max(start, end) / _THIN
            start, end = _THIN, _THIN
        pad = max(start, end) + 0.5
        low_x, high_x = min(x, x + dx) - pad, max(x, x + dx) + pad
        low_y, high_y = min(y, y + dy) - pad, max(y, y + dy) + pad
        first_x, last_x = _copies(low_x, high_x, left, right, period[0])
        first_y, last_y = _copies(low_y, high_y, top, bottom, period[1])
        for row in range(first_y, last_y):
            for column in range(first_x, last_x):
                cx, cy = x + column * period[0], y + row * period[1]
                stroke = Stroke(cx, cy, dx, dy, start, end)
                _line(image, stroke, Ink(shade, opacity, ground, join), clip)


@compiled(error_model="numpy")
def _line(image: np.ndarray, stroke: Stroke, ink: Ink, clip: Clip) -> None:
    x0, y0, dx, dy, start, end = stroke
    colour, opacity, ground, join = ink
    left, top, right, bottom = clip
    length2 = dx * dx + dy * dy
    if length2 == 0:
        return
    inverse, per_length = 1 / length2, 1 / math.sqrt(length2)
    pad = max(start, end) + 0.5
    first, last = _pixels(min(y0, y0 + dy) - pad, max(y0, y0 + dy) + pad, top, bottom)
    low, high = min(x0, x0 + dx) - pad, max(x0, x0 + dx) + pad
    steep = abs(dy) > 1e-9
    slope = dx / dy if steep else 0.0
    half = pad / (per_length * abs(dy)) if steep else high - low
    for y in range(first, last):
        py = y + 0.5 - y0
        middle = x0 + slope * py
        first_x, last_x = _pixels(max(low, middle - half), min(high, middle + half), left, right)
        for x in range(first_x, last_x):
            px = x + 0.5 - x0
            t = (px * dx + py * dy) * inverse
            if 0 <= t <= 1:
                distance = abs(px * dy - py * dx) * per_length
            else:
                t = min(max(t, 0.0), 1.0)
                distance = math.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2)
            cover = start + t * (end - start) + 0.5 - distance
            if cover > 0:
                strength = np.int32(opacity * min(cover, 1.0) + 0.5)
                if join:
                    _lighten(image, y, x, colour, strength, ground)
                else:
                    _blend(image, y, x, colour, strength)


@compiled(error_model="numpy")
def cells(image: np.ndarray, value: np.ndarray, palette: np.ndarray, clip: Clip) -> None:
    """Fill `clip` with the lattice `value` [rows, columns] in [0, 1], by nearest neighbour.

    palette [colours, 3] uint8.
    """
    left, top, right, bottom = clip
    rows, columns = value.shape
    last = len(palette) - 1
    column = (np.arange(right - left) * columns) // (right - left)
    flat = image.reshape(len(image), -1)
    before = -1
    for y in range(top, bottom):
        row = (y - top) * rows // (bottom - top)
        if row == before:
            for j in range(3 * left, 3 * right):
                flat[y, j] = flat[y - 1, j]
        else:
            for x in range(left, right):
                k = min(max(int(value[row, column[x - left]] * last + 0.5), 0), last)
                image[y, x, 0] = palette[k, 0]
                image[y, x, 1] = palette[k, 1]
                image[y, x, 2] = palette[k, 2]
        before = row
