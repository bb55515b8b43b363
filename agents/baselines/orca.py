"""Optimal reciprocal collision avoidance (van den Berg, Guy, Lin and Manocha 2011), compiled.

Each neighbour forbids the relative velocities that bring contact within the horizon (a truncated
cone); the agent takes its share, one half, of the smallest change that leaves it: a half-plane of
its own velocities. Of these, the one nearest to the preferred velocity is chosen. The rules are
those of the authors' library RVO2, without its polygons: discs that do not move are neighbours with
velocity 0, for which the agent takes one half unless `share` says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .goal_driving import (
    C_ACROSS,
    C_ALONG,
    CONTACT,
    DISTANCE,
    OWN,
    R_ACROSS,
    R_ALONG,
    U_ACROSS,
    U_ALONG,
    GoalDriver,
    GoalSystem,
    add_noise,
    preferred_speed,
)
from .half_planes import best_velocity, driver_code, driver_part, least_violation

_PARAMETERS = np.dtype(
    [
        ("speed", np.float64),
        ("dt", np.float64),
        ("rate", np.float64),  # 1 / horizon
        ("rate_in_contact", np.float64),  # 1 / dt
        ("inflation", np.float64),
        ("range", np.float64),
        ("jitter", np.float64),
        ("right_hand", np.float64),
        ("right_hand_reach", np.float64),
        ("neighbours", np.int64),
    ]
)
_OWN_NAMES = ("inflation", "range", "jitter", "right_hand", "right_hand_reach", "neighbours")
_HALF = np.empty((0, 0))


@dataclass(frozen=True)
class Orca(GoalDriver):
    """ORCA with the settings of the library, and the right-hand rule if `right_hand` is not 0.

    horizon: time within which contact is avoided.  neighbours, range: how many and how far, at most
    those of the observation.  inflation: factor of all radii.
    right_hand: largest angle, rad, by which the preferred velocity is turned to the right: it is
        multiplied by the largest (1 - r^2/reach^2)^2 e.r^ of a neighbour ahead within
        `right_hand_reach`.
    """

    name: str = "orca"
    jitter: float = 0.01
    horizon: float = 2.0
    neighbours: int = 10
    range: float = 5.0
    inflation: float = 1.05
    right_hand: float = 0.0
    right_hand_reach: float = 2.0

    def velocity(
        self, observation: np.ndarray, noise: np.ndarray, share: np.ndarray = _HALF
    ) -> np.ndarray:
        """As of every driver; share [rows, k]: part of the change that the agent makes itself.

        Left out it is 1/2, which is right for a neighbour that makes the other half. A neighbour
        with 0 is none.
        """
        system, velocity = self.system, np.empty((len(observation), 2))
        planes = np.empty((2, 3, system.k))
        _orca(observation, system.k, self._record(), noise, share, planes, velocity)
        return velocity

    def _record(self) -> np.ndarray:
        record = np.zeros(1, _PARAMETERS)
        for name in ("speed", "dt"):
            record[name] = getattr(self.system, name)
        record["rate"], record["rate_in_contact"] = 1 / self.horizon, 1 / self.system.dt
        for name in _OWN_NAMES:
            record[name] = getattr(self, name)
        return record


def right_hand_orca(system: GoalSystem) -> Orca:
    """The best three numbers by hand: a short horizon, a wide berth, and everybody to the right."""
    return Orca(system, "orca-right-hand", horizon=0.5, inflation=1.15, right_hand=0.8)


def tuned_orca(system: GoalSystem) -> Orca:
    """ORCA without a rule of the road, with the settings that do best on scenes of their own.

    Of horizons 0.3 and 0.5, berths from 1.05 to 1.25 and noise of 0.01 and 0.1, on squares of 64
    discs at 5, 20 and 35 % and circles of 16 and 64: the most discs that are ok at 20 %, and nearly
    the most over all.
    """
    return Orca(system, "orca-tuned", horizon=0.3, inflation=1.15, jitter=0.1)


@driver_code
def _orca(
    observation: Any, k: int, parameters: Any, noise: Any, share: Any, planes: Any, velocity: Any
) -> None:
    p = parameters[0]
    shared, pairs = len(share) == 0, np.empty((6, k))
    for i in range(len(observation)):
        count = _reciprocal_planes(observation, i, k, p, share, shared, pairs, planes[0])
        x = preferred_speed(observation[i, DISTANCE], p.speed, p.dt)
        y = 0.0
        if p.right_hand != 0.0:
            angle = p.right_hand * _largest_ahead(observation, i, k, p.right_hand_reach)
            x, y = x * math.cos(angle), -x * math.sin(angle)
        x, y = add_noise(noise, i, p.jitter, x, y)
        obeyed, vx, vy = best_velocity(planes[0], count, p.speed, x, y, False)
        if obeyed < count:
            vx, vy = least_violation(planes[0], count, obeyed, p.speed, vx, vy, planes[1])
        velocity[i, 0], velocity[i, 1] = vx, vy


@driver_part
def _largest_ahead(observation: Any, i: int, k: int, reach: float) -> float:
    """The largest (1 - r^2/reach^2)^2 e.r^ of the neighbours of row i; 0 if none is ahead."""
    largest = 0.0
    for j in range(k):
        if observation[i, OWN + CONTACT * k + j] <= 0.0:
            break
        rx = observation[i, OWN + R_ALONG * k + j]
        ry = observation[i, OWN + R_ACROSS * k + j]
        d2 = rx * rx + ry * ry
        if d2 >= reach * reach:
            break  # nearest first
        if rx > 0.0:
            window = 1.0 - d2 / (reach * reach)
            largest = max(largest, window * window * rx / math.sqrt(d2))
    return largest


@driver_part
def _reciprocal_planes(
    observation: Any, i: int, k: int, p: Any, share: Any, shared: bool, pairs: Any, planes: Any
) -> int:
    """The half-planes of the neighbours of row i; how many they are.

    w is the own velocity relative to the neighbour, less the centre of the circle that truncates
    the cone; (nx, ny) points out of the cone, through the circle or through the leg on the `side`
    of w, and `change` is how far w must go along it. Without branches the loop is vectorised.
    """
    cx, cy = observation[i, C_ALONG], observation[i, C_ACROSS]
    count = 0
    for j in range(min(k, p.neighbours)):  # nearest first
        rx = observation[i, OWN + R_ALONG * k + j]
        ry = observation[i, OWN + R_ACROSS * k + j]
        present = observation[i, OWN + CONTACT * k + j] > 0.0
        if not present or rx * rx + ry * ry >= p.range * p.range:
            break
        pairs[0, j], pairs[1, j] = rx, ry
        pairs[2, j] = -observation[i, OWN + U_ALONG * k + j]
        pairs[3, j] = -observation[i, OWN + U_ACROSS * k + j]
        pairs[4, j] = observation[i, OWN + CONTACT * k + j] * p.inflation
        pairs[5, j] = 0.5 if shared else share[i, j]
        count += 1
    for j in range(count):
        rx, ry, vx, vy, contact = pairs[0, j], pairs[1, j], pairs[2, j], pairs[3, j], pairs[4, j]
        d2, contact2 = rx * rx + ry * ry, contact * contact
        apart = d2 > contact2
        rate = p.rate if apart else p.rate_in_contact
        wx, wy = vx - rx * rate, vy - ry * rate
        inward = wx * rx + wy * ry
        w2 = wx * wx + wy * wy
        by_circle = (not apart) | ((inward < 0.0) & (inward * inward > contact2 * w2))
        w = math.sqrt(w2)
        leg = math.sqrt(max(d2 - contact2, 0.0))
        leg = leg if rx * wy - ry * wx > 0.0 else -leg
        nx = wx if by_circle else -rx * contact - ry * leg
        ny = wy if by_circle else rx * leg - ry * contact
        length = w if by_circle else d2
        nx, ny = (nx, ny) if length > 0.0 else (-1.0, 0.0)
        inverse = 1.0 / (length if length > 0.0 else 1.0)
        nx, ny = nx * inverse, ny * inverse
        change = contact * rate - w if by_circle else -(vx * nx + vy * ny)
        bound = -(nx * cx + ny * cy + pairs[5, j] * change)
        planes[0, j], planes[1, j] = -nx, -ny
        planes[2, j] = bound if pairs[5, j] > 0.0 else math.inf  # inf: the other one sees to it
    return count
