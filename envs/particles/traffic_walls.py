"""Buildings as thick segments: their nearest points, and distances on the way; compiled."""

from __future__ import annotations

import math
from typing import Any

from ..core.physics.kernels.discs import disc_part


@disc_part
def way_to_segment(x: float, y: float, ax: float, ay: float, bx: float, by: float) -> Any:
    """From a point to the nearest point of the segment a b."""
    sx, sy = bx - ax, by - ay
    t = ((x - ax) * sx + (y - ay) * sy) / max(sx * sx + sy * sy, 1e-300)
    t = min(max(t, 0.0), 1.0)
    return ax + t * sx - x, ay + t * sy - y


@disc_part
def select_walls(
    position: Any,
    building: Any,
    thickness: Any,
    w: int,
    i: int,
    cutoff: float,
    wall: Any,
    way: Any,
) -> None:
    """The nearest buildings of agent i of world w within the cutoff: wall[w, i], else -1.

    way[w, i] leads to the nearest points of their surfaces; 0 for who is inside.
    """
    x, y = position[w, i, 0], position[w, i, 1]
    last, before = -1.0, -1  # squared distance and index of the one chosen before
    for m in range(wall.shape[2]):
        least, chosen = cutoff * cutoff, -1
        for b in range(building.shape[1]):
            start, end = building[w, b, 0], building[w, b, 1]
            rx, ry = way_to_segment(x, y, start[0], start[1], end[0], end[1])
            shrink = max(1.0 - thickness[w, b] / math.sqrt(rx * rx + ry * ry + 1e-300), 0.0)
            rx, ry = shrink * rx, shrink * ry
            d2 = rx * rx + ry * ry
            if d2 < least and (d2 > last or (d2 == last and b > before)):
                least, chosen = d2, b
                way[w, i, m, 0], way[w, i, m, 1] = rx, ry
        wall[w, i, m] = chosen
        last, before = least, chosen


@disc_part
def segment_gap(
    ax: float, ay: float, bx: float, by: float, building: Any, w: int, wall: int
) -> float:
    """Distance of the segment a b from the axis of a building; 0 where they cross."""
    px, py = building[w, wall, 0, 0], building[w, wall, 0, 1]
    qx, qy = building[w, wall, 1, 0], building[w, wall, 1, 1]
    dx, dy, ex, ey, fx, fy = bx - ax, by - ay, qx - px, qy - py, px - ax, py - ay
    turn = dx * ey - dy * ex
    if turn != 0.0:
        s, t = (fx * ey - fy * ex) / turn, (fx * dy - fy * dx) / turn
        if 0.0 <= s <= 1.0 and 0.0 <= t <= 1.0:
            return 0.0
    rx, ry = way_to_segment(ax, ay, px, py, qx, qy)
    least = rx * rx + ry * ry
    rx, ry = way_to_segment(bx, by, px, py, qx, qy)
    least = min(least, rx * rx + ry * ry)
    rx, ry = way_to_segment(px, py, ax, ay, bx, by)
    least = min(least, rx * rx + ry * ry)
    rx, ry = way_to_segment(qx, qy, ax, ay, bx, by)
    return math.sqrt(min(least, rx * rx + ry * ry))
