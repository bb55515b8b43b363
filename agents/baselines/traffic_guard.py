"""A guard round any policy in traffic: guarded agents never touch each other nor a building.

Let r lead to another agent, or to the nearest point of a building, D be |r| at contact, n = r/|r|,
g the part of the gap that this one has to give, w the full speed of the other one's kind, 0 for a
building. Each agent keeps

    v.n <= max((1 - g) (|r| - D), |r| - D - w dt, 0) / dt,      |v| <= what it is allowed.

Two agents come closer by at most |r| - D along n in a step, at every moment of it, since their g
add to 1: either both use up no more than their own part, or one of them leaves what the other can
use up at full speed. A building is convex and lies behind the line through its nearest point at
right angles to n, and does not move in the road's frame; the agent may use up all of the gap. v = 0
obeys all, so there is always a velocity, and of these the one nearest to the desired is taken.

Who is not seen is no nearer than the last agent, or the last building, that is, or than the cutoff:
|v| dt is at most that distance less the largest D and what the fastest can use up, in every
direction.

Any velocity must be reached within a step: max_acceleration dt >= 2 speed. All agents must be
guarded; where some are not, the guarded ones still never touch one another nor a building.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from ...envs.core.rng import Rng
from ...envs.particles.traffic import Traffic
from .guard import Guarded
from .half_planes import best_velocity, driver_code
from .traffic_driving import (
    C_ACROSS,
    C_ALONG,
    CODE,
    CONTACT,
    GIVE,
    KIND,
    OWN,
    R_ACROSS,
    R_ALONG,
    U_ACROSS,
    U_ALONG,
    TrafficDriver,
    action_of,
    allowed_speeds,
    own_speeds,
)

_ROUNDING = 1e-13  # of velocities


def can_guard(system: Traffic) -> bool:
    """Whether any velocity can be reached within a step."""
    return system.max_acceleration * system.dt >= 2 * system.speed * (1 - 1e-12)


class GuardedTraffic(Guarded):
    """A policy whose desired velocity is moved to the nearest one that the guard allows.

    policy: a callable (observation, generator) -> action of the system, with any coefficients.
    Raises ValueError where velocities cannot be reached within a step, or slack is negative.
    """

    system: Any
    _driver = TrafficDriver

    def __init__(
        self,
        policy: Callable[[Tensor, Rng | None], Tensor],
        slack: float = 0.0,
        system: Traffic | None = None,
        name: str = "",
    ) -> None:
        super().__init__(policy, slack, system, name)
        if not can_guard(self.system):
            raise ValueError(
                f"max_acceleration={self.system.max_acceleration} must be at least "
                f"{2 * self.system.speed / self.system.dt:g} for the guard: twice the speed "
                "within a step"
            )

    def _decode(self, seen: np.ndarray, action: np.ndarray) -> np.ndarray:
        return desired_velocity(self.system, seen, action)

    def _guard(self, seen: np.ndarray, velocity: np.ndarray) -> None:
        guard_velocity(self.system, seen, velocity, self.slack)

    def _action(self, velocity: np.ndarray, observation: Tensor) -> Tensor:
        return action_of(self.system, velocity, observation)


def desired_velocity(system: Traffic, seen: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The desired velocities [rows, 2], along and across e, of actions [rows, 4 k + 2]."""
    velocity = np.empty((len(seen), 2))
    numbers = np.array([system.gain, system.reach, system.kinds.code(system.building)])
    _desired(seen, action, system.k, numbers, own_speeds(system, seen), velocity)
    return velocity


def guard_velocity(
    system: Traffic, seen: np.ndarray, velocity: np.ndarray, slack: float = 0.0
) -> None:
    """Move velocities [rows, 2] to the nearest ones that the guard allows, in place."""
    tables, n_others = system.tables, system.n_others
    other_agents = system.n_agents - 1 > n_others
    other_buildings = system.n_walls > system.k - n_others
    numbers = np.array([system.dt, slack, system.cutoff, system.largest_radius, system.speed])
    radius = np.concatenate([[0.0], tables.radius])
    speed = np.concatenate([[0.0], tables.speed])
    unseen = np.array([other_agents, other_buildings])
    allowed, planes = allowed_speeds(system, seen), np.empty((3, system.k))
    counts, kinds = (system.k, n_others), (radius, speed)
    _guard(seen, counts, numbers, unseen, kinds, allowed, planes, velocity)


@driver_code
def _desired(seen: Any, action: Any, k: int, numbers: Any, speeds: Any, velocity: Any) -> None:
    gain, reach, building = numbers[0], numbers[1], numbers[2]
    for i in range(len(seen)):
        speed = speeds[i]
        vx, vy = speed * action[i, 4 * k], speed * action[i, 4 * k + 1]
        for j in range(k):
            rx, ry = seen[i, OWN + R_ALONG * k + j], seen[i, OWN + R_ACROSS * k + j]
            inside = 1.0 - (rx * rx + ry * ry) / (reach * reach)
            if seen[i, OWN + CONTACT * k + j] <= 0.0 or inside <= 0.0:
                continue
            ux, uy = seen[i, OWN + U_ALONG * k + j], seen[i, OWN + U_ACROSS * k + j]
            if seen[i, OWN + CODE * k + j] == building:
                ux, uy = -seen[i, C_ALONG], -seen[i, C_ACROSS]
            a, b = action[i, j], action[i, k + j]
            c, d = action[i, 2 * k + j], action[i, 3 * k + j]
            window = gain * inside * inside
            vx += window * (a * rx + b * ux - c * ry - d * uy)
            vy += window * (a * ry + b * uy + c * rx + d * ux)
        scale = speed / max(math.sqrt(vx * vx + vy * vy), speed) if speed > 0.0 else 0.0
        velocity[i, 0], velocity[i, 1] = scale * vx, scale * vy


@driver_code
def _guard(
    seen: Any,
    counts: Any,
    numbers: Any,
    unseen: Any,
    kinds: Any,
    allowed: Any,
    planes: Any,
    velocity: Any,
) -> None:
    k, n_others = counts
    dt, slack, cutoff, largest, fastest = numbers
    radius, speed = kinds
    for i in range(len(seen)):
        own, limit = radius[int(seen[i, KIND])], allowed[i]
        count, last_agent, last_building = 0, cutoff, cutoff
        for j in range(k):
            contact = seen[i, OWN + CONTACT * k + j]
            if contact <= 0.0:
                continue
            rx, ry = seen[i, OWN + R_ALONG * k + j], seen[i, OWN + R_ACROSS * k + j]
            d = math.sqrt(rx * rx + ry * ry)
            if j == n_others - 1:
                last_agent = d
            elif j == k - 1:
                last_building = d
            gap, give = d - contact - slack, seen[i, OWN + GIVE * k + j]
            others = speed[int(seen[i, OWN + CODE * k + j])] * dt
            bound = max((1.0 - give) * gap, gap - others, 0.0) / dt
            if bound < limit and d > 0.0:
                planes[0, count], planes[1, count], planes[2, count] = rx / d, ry / d, bound
                count += 1
        room = limit * dt
        if unseen[0] or last_agent == cutoff:
            room = min(room, last_agent - own - largest - slack - fastest * dt)
        if unseen[1] or last_building == cutoff:
            room = min(room, last_building - own - slack)
        limit = max(room, 0.0) / dt
        _, vx, vy = best_velocity(planes, count, limit, velocity[i, 0], velocity[i, 1], False)
        scale = 1.0
        for m in range(count):  # what rounding left
            along = vx * planes[0, m] + vy * planes[1, m]
            if along > planes[2, m] + _ROUNDING:
                scale = min(scale, planes[2, m] / along)
        velocity[i, 0], velocity[i, 1] = scale * vx, scale * vy
