"""A guard round any policy of discs with goals: two guarded discs never touch, whatever others do.

Let r be the vector to a neighbour, D the sum of the radii, n = r / |r| and s the part of the gap
that this disc may use up; the parts of a pair add to 1, and are 1/2 each unless said otherwise.

Free acceleration (max_acceleration dt >= 2 speed: any velocity within one step). Each disc keeps

    v.n <= s (|r| - D - slack) / dt,        or 0 if that is negative.

Along n the two come closer by at most |r| - D - slack in the step, at every moment of it: buffered
Voronoi cells (Zhou, Wang, Bandyopadhyay and Schwager 2017). v = 0 obeys all of it, so there is
always a velocity, and of these the nearest to the desired one is taken.

Limited acceleration. A disc of velocity c that brakes at once has, after k steps, the velocity
c - k max_acceleration dt along c, until it stands; it then has covered the segment from x to
x + B(|c|) c/|c|, with

    B(c) = dt sum_{k >= 1} max(0, c - k max_acceleration dt).

A plan is one step at a new velocity v and then braking: a segment along v of length
L(|v|) = |v| dt + B(|v|). It contains the way of this step, and what the disc covers if it brakes at
once in the next. Braking now is the plan of length B(|c|) along c, since L(c - max_acceleration dt)
= B(c). For a pair let p, q be the closest points of their two segments of braking now, delta =
|q - p| and m = (q - p) / delta. As segments are convex, that of the first lies where
(y - p).m <= 0 and that of the second where (y - q).m >= 0. Each disc chooses v with
|v - c| <= max_acceleration dt and

    (x + L(|v|) v/|v| - p).m <= s (delta - D - slack),        or 0 if that is negative,

and its plan lies there whole, as both ends do. If delta >= D, the plans of the two therefore stay D
apart: they do not touch in this step, and the segments of braking now are again D apart after it.
Discs at rest that do not overlap start so. Braking at once obeys all of it, so there is always a
velocity. With B = 0 these are the conditions of free acceleration.

A pair agrees on p.m, q.m and delta, even if its segments are parallel and p, q are not unique:
q - p is the one shortest vector between two convex sets.

In both cases a disc may use up at least what is left of the gap if the other goes at full speed:
|r| - D - slack - speed dt, and delta - D - slack - L(speed). That matters where s < 1/2.

Discs that are not seen. With k neighbours seen no other disc is nearer than the k-th, and else none
nearer than the cutoff. With that distance for |r|, the largest D, and every direction for n:
|v| <= (|r| - D - slack) / (2 dt). With limited acceleration delta >= |r| - B(|c|) - B(speed), and
the end of the plan is within (delta - D - slack) / 2 of x, or of the end of braking now. Where B is
as long as the distance of the k-th neighbour that leaves braking alone: see more of them then.

What is proved is pairwise and asks nothing of third discs: where some discs are not guarded, the
guarded ones still never touch one another; those others can run into anybody. Needed are: no
overlap at the start, everybody's goal velocity the same (velocities are taken in that frame), and
observations that are not rounded: with float32 gaps are exact to about 1e-6 of the distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from ...envs.core.rng import Rng
from ...envs.core.validation import require_number
from .goal_driving import (
    C_ACROSS,
    C_ALONG,
    CONTACT,
    OWN,
    R_ACROSS,
    R_ALONG,
    U_ACROSS,
    U_ALONG,
    GoalDriver,
    GoalSystem,
    Straight,
    action_of_velocity,
    rows,
)
from .half_planes import best_velocity, driver_code, driver_part

_HALVINGS = 24  # of the way from braking at once to what is wanted
_ROUNDING = 1e-13  # of velocities
_HALF = np.empty((0, 0))
_PARAMETERS = np.dtype(
    [
        ("speed", np.float64),
        ("dt", np.float64),
        ("max_acceleration", np.float64),
        ("slack", np.float64),
        ("cutoff", np.float64),
        ("largest_contact", np.float64),
        ("all_seen", np.bool_),  # whether no disc stands behind the k-th neighbour
    ]
)


class Guarded:
    """A policy whose desired velocity is moved to the nearest one that the guard allows.

    policy: a callable (observation, generator) -> action of the system, with any coefficients.
    slack: length that is kept between discs beside their radii.
    system: that of the policy unless given.
    max_acceleration: that the discs may use, at most the system's, which it is unless given.
    Raises ValueError if the system is not known, slack is negative or max_acceleration not allowed.
    """

    dtype = np.float64  # of the observations it is to be given
    _driver: type[Any] = GoalDriver  # who knows its desired velocity without an action

    def __init__(
        self,
        policy: Callable[[Tensor, Rng | None], Tensor],
        slack: float = 0.0,
        system: Any = None,
        name: str = "",
        *,
        max_acceleration: float | None = None,
    ) -> None:
        require_number("slack", slack, 0)
        system = system or getattr(policy, "system", None)
        if system is None:
            raise ValueError(f"system=None must be given: policy={policy!r} has none")
        if max_acceleration is not None:
            limit = system.max_acceleration
            require_number("max_acceleration", max_acceleration, 0, limit, strict=True)
        self.policy, self.slack, self.system = policy, float(slack), system
        self.max_acceleration = max_acceleration or system.max_acceleration
        self.name = name or f"{getattr(policy, 'name', type(policy).__name__)} (guarded)"

    def __call__(self, observation: Tensor, rng: Rng | None) -> Tensor:
        seen = rows(observation)
        if isinstance(self.policy, self._driver):
            velocity = self.policy.desired_velocity(observation, rng)
        else:
            velocity = self._decode(seen, rows(self.policy(observation, rng)))
        self._guard(seen, velocity)
        return self._action(velocity, observation)

    def _decode(self, seen: np.ndarray, action: np.ndarray) -> np.ndarray:
        return desired_velocity(self.system, seen, action)

    def _guard(self, seen: np.ndarray, velocity: np.ndarray) -> None:
        guard_velocity(self.system, seen, velocity, self.slack, planned=self.max_acceleration)

    def _action(self, velocity: np.ndarray, observation: Tensor) -> Tensor:
        return action_of_velocity(self.system, velocity, observation)


def buffered_voronoi(system: GoalSystem) -> Guarded:
    """Straight towards the goal inside the guard, without a rule of the road, with ORCA's noise."""
    return Guarded(Straight(system, jitter=0.01), name="buffered-voronoi")


def desired_velocity(system: GoalSystem, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The desired velocities [rows, 2], along and across e, of actions [rows, 4 k + 2]."""
    velocity = np.empty((len(observation), 2))
    accelerates = system.control == "acceleration"
    change = system.max_acceleration * system.dt if accelerates else 0.0
    numbers = np.array([system.speed, system.gain, system.reach, change])
    _desired(observation, action, system.k, numbers, velocity)
    return velocity


def guard_velocity(
    system: GoalSystem,
    observation: np.ndarray,
    velocity: np.ndarray,
    slack: float = 0.0,
    share: np.ndarray = _HALF,
    *,
    planned: float | None = None,
) -> None:
    """Move velocities [rows, 2] to the nearest ones that the guard allows, in place.

    share [rows, k]: the part of the gap that this disc may use up; 1 - that of the other. Left out
    it is 1/2.  planned: the acceleration that discs may use; the system's unless given.
    """
    record = np.zeros(1, _PARAMETERS)
    for name in ("speed", "dt", "cutoff"):
        record[name] = getattr(system, name)
    acceleration = planned or system.max_acceleration
    record["max_acceleration"], record["slack"] = acceleration, slack
    record["largest_contact"] = 2 * system.largest_radius
    record["all_seen"] = system.n_agents - 1 <= system.k
    free = acceleration * system.dt >= 2 * system.speed
    guard = _guard_free if free else _guard_braking
    guard(observation, system.k, record, share, np.empty((3, system.k)), velocity)


@driver_code
def _desired(observation: Any, action: Any, k: int, numbers: Any, velocity: Any) -> None:
    speed, gain, reach, change = numbers[0], numbers[1], numbers[2], numbers[3]
    for i in range(len(observation)):
        vx, vy = speed * action[i, 4 * k], speed * action[i, 4 * k + 1]
        for j in range(k):
            rx = observation[i, OWN + R_ALONG * k + j]
            ry = observation[i, OWN + R_ACROSS * k + j]
            inside = 1.0 - (rx * rx + ry * ry) / (reach * reach)
            if observation[i, OWN + CONTACT * k + j] <= 0.0 or inside <= 0.0:
                break  # nearest first
            ux = observation[i, OWN + U_ALONG * k + j]
            uy = observation[i, OWN + U_ACROSS * k + j]
            a, b, c, d = (
                action[i, j],
                action[i, k + j],
                action[i, 2 * k + j],
                action[i, 3 * k + j],
            )
            window = gain * inside * inside
            vx += window * (a * rx + b * ux - c * ry - d * uy)
            vy += window * (a * ry + b * uy + c * rx + d * ux)
        vx, vy = _shortened(vx, vy, speed)
        if change > 0.0:  # of the velocity per step, by control of the acceleration
            vx = observation[i, C_ALONG] + change / speed * vx
            vy = observation[i, C_ACROSS] + change / speed * vy
            vx, vy = _shortened(vx, vy, speed)
        velocity[i, 0], velocity[i, 1] = vx, vy


@driver_part
def _shortened(x: float, y: float, limit: float) -> Any:
    scale = limit / max(math.sqrt(x * x + y * y), limit)
    return scale * x, scale * y


@driver_part
def _nearest_unseen(observation: Any, i: int, k: int, p: Any) -> float:
    """A distance within which row i sees every disc."""
    last = k - 1
    if observation[i, OWN + CONTACT * k + last] <= 0.0:
        return p.cutoff
    if p.all_seen:
        return math.inf
    rx = observation[i, OWN + R_ALONG * k + last]
    ry = observation[i, OWN + R_ACROSS * k + last]
    return math.sqrt(rx * rx + ry * ry)


@driver_code
def _guard_free(
    observation: Any, k: int, parameters: Any, share: Any, planes: Any, velocity: Any
) -> None:
    p = parameters[0]
    halved = len(share) == 0
    others = p.speed * p.dt  # what another one can use up at most
    for i in range(len(observation)):
        unseen = _nearest_unseen(observation, i, k, p) - p.largest_contact - p.slack
        unseen = max(0.5 * unseen if halved else 0.0, unseen - others)
        limit = min(p.speed, max(unseen, 0.0) / p.dt)
        count = 0
        for j in range(k):
            contact = observation[i, OWN + CONTACT * k + j]
            if contact <= 0.0:
                break
            rx = observation[i, OWN + R_ALONG * k + j]
            ry = observation[i, OWN + R_ACROSS * k + j]
            d = math.sqrt(rx * rx + ry * ry)
            gap = d - contact - p.slack
            part = 0.5 if halved else share[i, j]
            bound = max(part * gap, gap - others, 0.0) / p.dt
            if bound < limit and d > 0.0:
                planes[0, count], planes[1, count], planes[2, count] = rx / d, ry / d, bound
                count += 1
        _, vx, vy = best_velocity(planes, count, limit, velocity[i, 0], velocity[i, 1], False)
        scale = 1.0
        for m in range(count):  # what rounding left
            along = vx * planes[0, m] + vy * planes[1, m]
            if along > planes[2, m] + _ROUNDING:
                scale = min(scale, planes[2, m] / along)
        velocity[i, 0], velocity[i, 1] = scale * vx, scale * vy


@driver_part
def _braking(speed: float, p: Any) -> float:
    """B: the length that a disc of this speed covers if it brakes at once."""
    change = p.max_acceleration * p.dt
    steps = math.floor(speed / change)
    return p.dt * steps * (speed - 0.5 * change * (steps + 1.0))


@driver_part
def _nearest_on(sx: float, sy: float, x: float, y: float) -> Any:
    """The point of the segment from 0 to (s_x, s_y) nearest to (x, y)."""
    length2 = sx * sx + sy * sy
    part = (x * sx + y * sy) / length2 if length2 > 0.0 else 0.0
    part = min(max(part, 0.0), 1.0)
    return part * sx, part * sy


@driver_part
def _nearer(px: float, py: float, qx: float, qy: float, best: Any) -> Any:
    """The nearer of two pairs of points; a pair is (p_x, p_y, r_x, r_y) with r from p to q."""
    rx, ry = qx - px, qy - py
    if rx * rx + ry * ry < best[2] * best[2] + best[3] * best[3]:
        return px, py, rx, ry
    return best


@driver_part
def _shortest_way(ax: float, ay: float, rx: float, ry: float, bx: float, by: float) -> Any:
    """Closest points of the segments 0 to a and r to r + b that do not cross: p, and q - p."""
    best = (0.0, 0.0, rx, ry)
    px, py = _nearest_on(ax, ay, rx, ry)
    best = _nearer(px, py, rx, ry, best)
    px, py = _nearest_on(ax, ay, rx + bx, ry + by)
    best = _nearer(px, py, rx + bx, ry + by, best)
    qx, qy = _nearest_on(bx, by, -rx, -ry)
    best = _nearer(0.0, 0.0, rx + qx, ry + qy, best)
    qx, qy = _nearest_on(bx, by, ax - rx, ay - ry)
    return _nearer(ax, ay, rx + qx, ry + qy, best)


@driver_part
def _crosses(ax: float, ay: float, rx: float, ry: float, bx: float, by: float) -> bool:
    """Whether the segments 0 to a and r to r + b cross or touch."""
    cross = ax * by - ay * bx
    if cross == 0.0:
        return False  # parallel: an end is nearest
    s, t = (rx * by - ry * bx) / cross, (rx * ay - ry * ax) / cross
    return 0.0 <= s <= 1.0 and 0.0 <= t <= 1.0


@driver_code
def _guard_braking(
    observation: Any, k: int, parameters: Any, share: Any, planes: Any, velocity: Any
) -> None:
    p = parameters[0]
    halved = len(share) == 0
    change = p.max_acceleration * p.dt
    all_braking = _braking(p.speed, p)
    others = p.speed * p.dt + all_braking  # what another one can use up at most
    for i in range(len(observation)):
        cx, cy = observation[i, C_ALONG], observation[i, C_ACROSS]
        c = math.sqrt(cx * cx + cy * cy)
        length = _braking(c, p)
        ax, ay = (length * cx / c, length * cy / c) if c > 0.0 else (0.0, 0.0)
        slower = max(0.0, 1.0 - change / c) if c > 0.0 else 0.0
        bx, by = slower * cx, slower * cy  # braking at once
        top = min(p.speed, c + change)
        longest = top * p.dt + _braking(top, p)
        slope = longest / top  # L(v) <= slope v
        unseen = _nearest_unseen(observation, i, k, p) - length - all_braking
        unseen -= p.largest_contact + p.slack
        unseen = max(0.5 * unseen if halved else 0.0, unseen - others, 0.0)
        count, free = 0, True
        far = length + all_braking + p.slack + 2.0 * longest
        for j in range(k):
            contact = observation[i, OWN + CONTACT * k + j]
            if contact <= 0.0:
                break
            rx = observation[i, OWN + R_ALONG * k + j]
            ry = observation[i, OWN + R_ACROSS * k + j]
            if halved and rx * rx + ry * ry >= (far + contact) ** 2:
                continue  # the whole plan fits into this disc's part of the gap
            ox, oy = (
                cx + observation[i, OWN + U_ALONG * k + j],
                cy + observation[i, OWN + U_ACROSS * k + j],
            )
            o = math.sqrt(ox * ox + oy * oy)
            other = _braking(o, p) / o if o > 0.0 else 0.0
            ox, oy = other * ox, other * oy
            if _crosses(ax, ay, rx, ry, ox, oy):
                free = False
                break
            px, py, mx, my = _shortest_way(ax, ay, rx, ry, ox, oy)
            delta = math.sqrt(mx * mx + my * my)
            if delta < _ROUNDING:
                free = False
                break
            mx, my = mx / delta, my / delta
            part = 0.5 if halved else share[i, j]
            gap = delta - contact - p.slack
            room = max(part * gap, gap - others, 0.0) + max(px * mx + py * my, 0.0)
            if room < longest:
                planes[0, count], planes[1, count] = mx, my
                planes[2, count] = room / slope - mx * cx - my * cy  # of v - c
                count += 1
        if free:
            vx, vy = velocity[i, 0] - cx, velocity[i, 1] - cy
            _, vx, vy = best_velocity(planes, count, change, vx, vy, False)
            for m in range(count):  # from here on of the end of the plan
                planes[2, m] = slope * (planes[2, m] + planes[0, m] * cx + planes[1, m] * cy)
            vx, vy = cx + vx, cy + vy
            if not _kept(planes, count, vx, vy, ax, ay, unseen, p):
                low, high = 0.0, 1.0
                for _ in range(_HALVINGS):
                    middle = 0.5 * (low + high)
                    x, y = bx + middle * (vx - bx), by + middle * (vy - by)
                    if _kept(planes, count, x, y, ax, ay, unseen, p):
                        low = middle
                    else:
                        high = middle
                vx, vy = bx + low * (vx - bx), by + low * (vy - by)
            bx, by = vx, vy
        velocity[i, 0], velocity[i, 1] = bx, by


@driver_part
def _kept(
    planes: Any, count: int, vx: float, vy: float, ax: float, ay: float, unseen: float, p: Any
) -> bool:
    """Whether the plan of velocity v obeys the guard; a is the end of braking at once."""
    v = math.sqrt(vx * vx + vy * vy)
    if v > p.speed + _ROUNDING:
        return False
    length = v * p.dt + _braking(v, p)
    ex, ey = (length * vx / v, length * vy / v) if v > 0.0 else (0.0, 0.0)
    if length > unseen and (ex - ax) ** 2 + (ey - ay) ** 2 > unseen * unseen:
        return False
    for m in range(count):
        if ex * planes[0, m] + ey * planes[1, m] > planes[2, m] + _ROUNDING:
            return False
    return True
