"""The velocity nearest to a preferred one inside half-planes and a disc of speeds.

The linear programme in two dimensions of van den Berg, Guy, Lin and Manocha, "Reciprocal n-body
collision avoidance" (2011): half-planes are added one by one; where the best velocity so far lies
outside the new one, the best lies on its edge. Where no velocity obeys them all, the one whose
largest violation is smallest is sought in the same way (their linear programme in three
dimensions).

A half-plane is the set n.v <= b with |n| = 1: `planes` [3, count] holds n_x, n_y and b.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...envs.core.kernels.compiling import compiled, compiled_part

driver_code = compiled(error_model="numpy", fastmath={"contract"})
driver_part = compiled_part(error_model="numpy", fastmath={"contract"})

_ROUNDING = 1e-11  # edges that are parallel, and conditions that contradict, to within this


@driver_part
def _best_on_edge(planes: Any, m: int, limit: float, x: float, y: float, linear: bool) -> Any:
    """The best velocity on the edge of half-plane m that those before it allow: (exists, v_x, v_y).

    The best is the nearest to (x, y), or if `linear` the farthest in the direction (x, y).
    """
    nx, ny, b = planes[0, m], planes[1, m], planes[2, m]
    room = limit * limit - b * b
    if room < 0.0:
        return False, 0.0, 0.0
    high = math.sqrt(room)
    low = -high
    for j in range(m):
        slope = planes[1, j] * nx - planes[0, j] * ny  # of n_j.v along the edge
        rest = planes[2, j] - b * (planes[0, j] * nx + planes[1, j] * ny)
        if abs(slope) <= _ROUNDING:
            if rest < -_ROUNDING:
                return False, 0.0, 0.0
        else:
            end = rest / slope
            if slope > 0.0:
                high = min(high, end)
            else:
                low = max(low, end)
            if low > high + _ROUNDING:
                return False, 0.0, 0.0
    along = y * nx - x * ny
    if linear:
        along = high if along > 0.0 else low
    else:
        along = min(max(along, low), high)
    return True, b * nx - along * ny, b * ny + along * nx


@driver_part
def best_velocity(planes: Any, count: int, limit: float, x: float, y: float, linear: bool) -> Any:
    """The best velocity inside the first `count` half-planes, |v| <= limit: (obeyed, v_x, v_y).

    The best is the nearest to (x, y), or if `linear` the farthest in the unit direction (x, y).
    obeyed < count: the half-plane of that index contradicts those before, and the velocity is the
    best for those before.
    """
    length = math.sqrt(x * x + y * y)
    vx, vy = x, y
    if linear:
        vx, vy = x * limit, y * limit
    elif length > limit:
        vx, vy = x * limit / length, y * limit / length
    for m in range(count):
        if planes[0, m] * vx + planes[1, m] * vy > planes[2, m]:
            exists, ex, ey = _best_on_edge(planes, m, limit, x, y, linear)
            if not exists:
                return m, vx, vy
            vx, vy = ex, ey
    return count, vx, vy


@driver_part
def least_violation(
    planes: Any, count: int, first: int, limit: float, vx: float, vy: float, scratch: Any
) -> Any:
    """The velocity (v_x, v_y), |v| <= limit, whose largest violation max(n.v - b) is smallest.

    first, (vx, vy): what `best_velocity` gave.  scratch [3, count] is overwritten.
    """
    worst = 0.0
    for m in range(first, count):
        nx, ny, b = planes[0, m], planes[1, m], planes[2, m]
        if nx * vx + ny * vy - b <= worst:
            continue
        pairs = 0
        for j in range(m):  # where half-plane j is violated no more than half-plane m
            x, y = planes[0, j] - nx, planes[1, j] - ny
            length = math.sqrt(x * x + y * y)
            if length > _ROUNDING:
                scratch[0, pairs], scratch[1, pairs] = x / length, y / length
                scratch[2, pairs] = (planes[2, j] - b) / length
                pairs += 1
        obeyed, ex, ey = best_velocity(scratch, pairs, limit, -nx, -ny, True)
        if obeyed == pairs:  # else by rounding alone: the present one is as good
            vx, vy = ex, ey
        worst = nx * vx + ny * vy - b
    return vx, vy


@driver_code
def nearest_velocities(planes: Any, limit: float, preferred: Any, velocity: Any) -> None:
    """For every row the best velocity, or that of least violation where none obeys, in place.

    planes [rows, 3, count], preferred and velocity [rows, 2].
    """
    rows, count = planes.shape[0], planes.shape[2]
    scratch = np.empty((3, count))
    for i in range(rows):
        x, y = preferred[i, 0], preferred[i, 1]
        obeyed, vx, vy = best_velocity(planes[i], count, limit, x, y, False)
        if obeyed < count:
            vx, vy = least_violation(planes[i], count, obeyed, limit, vx, vy, scratch)
        velocity[i, 0], velocity[i, 1] = vx, vy
