"""A learned driver: one small network over invariants, shared by all discs, and its weights.

Of every neighbour within `REACH` a pair net sees its invariants, and of the disc itself an own net
sees its own ones and what the pair net pooled. With window w = (1 - r^2 / REACH^2)^2 and the
softened direction s e, s = d / sqrt(d^2 + SOFT^2), the desired velocity is

    p (alpha e + beta e_perp) + sum_j w_j (A r^ + B r^_perp + C u + D u_perp),
    p = min(speed, d / dt)

Pair net, 11 inputs: gap |r| - D, r^.u, I3, I4 / |r|, s e.r^, s e x r^, s e.u, s e x u, whether the
neighbour has arrived, d / (1 + d), whether the disc has; 12 hidden; outputs A..D and 4 numbers that
are summed with w_j over the neighbours. Own net, 9 inputs: d / (1 + d), s e.c, s e x c, |c|,
whether it has arrived, the 4 sums; 10 hidden; outputs alpha - 1 and beta. Hidden units are
softsigns. The form is ours, after measurements with evolution strategies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
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
    preferred_speed,
)
from .guard import Guarded
from .half_planes import driver_code, driver_part

REACH, SOFT = 2.0, 0.05
PAIR_INPUTS, PAIR_HIDDEN, PAIR_OUTPUTS = 11, 12, 8
OWN_INPUTS, OWN_HIDDEN, OWN_OUTPUTS = 9, 10, 2
POOLED = 4
ARRIVED, NEIGHBOUR_ARRIVED = 1, 8
SIZES = (
    PAIR_INPUTS * PAIR_HIDDEN,
    PAIR_HIDDEN,
    PAIR_HIDDEN * PAIR_OUTPUTS,
    PAIR_OUTPUTS,
    OWN_INPUTS * OWN_HIDDEN,
    OWN_HIDDEN,
    OWN_HIDDEN * OWN_OUTPUTS,
    OWN_OUTPUTS,
)
N_WEIGHTS = sum(SIZES)
PAIR_NAMES = (
    *("gap", "I2", "I3", "I4", "r_along", "r_across", "u_along", "u_across"),
    *("neighbour_arrived", "goal_distance", "arrived"),
)
VECTORS = ("r", "r_perp", "u", "u_perp")
OWN_NAMES = ("goal_distance", "c_along", "c_across", "speed", "arrived")
EVERYTHING = np.ones(PAIR_INPUTS + len(VECTORS) + len(OWN_NAMES) + 1)


@dataclass(frozen=True)
class Learned(GoalDriver):
    """The network with its weights, of one candidate or of many.

    weights [candidates, N_WEIGHTS]: rows of an observation belong to candidates in equal blocks.
    used: 1 for what the network may use, else 0: `PAIR_NAMES`, `VECTORS`, `OWN_NAMES`, e_perp.
    """

    name: str = "learned-unguarded"
    jitter: float = 0.01
    weights: np.ndarray = field(default_factory=lambda: np.zeros((1, N_WEIGHTS)))
    used: np.ndarray = field(default_factory=lambda: EVERYTHING)

    def velocity(self, observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
        velocity = np.empty((len(observation), 2))
        system = self.system
        numbers = np.array([system.speed, system.dt, self.jitter])
        _drive(self.weights, self.used, observation, system.k, numbers, noise, velocity)
        return velocity


def learned(system: GoalSystem) -> Guarded:
    """The driver that ships, inside the guard that it was trained in."""
    return _guarded(system, "learned", 8.0)


def learned_smooth(system: GoalSystem) -> Guarded:
    """One that accelerates about a third as hard, and takes longer where it is crowded."""
    return _guarded(system, "learned-smooth", 2.7)


def learned_unguarded(system: GoalSystem) -> Learned:
    """One without a guard: it has learned not to touch, from what a guard would have done."""
    return Learned(system, weights=shipped("learned-unguarded"))


def _guarded(system: GoalSystem, name: str, acceleration: float) -> Guarded:
    acceleration = min(acceleration, system.max_acceleration)
    driver = Learned(system, weights=shipped(name))
    return Guarded(driver, name=name, max_acceleration=acceleration)


@cache
def shipped(name: str) -> np.ndarray:
    """Weights [1, N_WEIGHTS] that ship, of `figures/goals_training.py` and `goals_unguarded.py`."""
    file = resources.files(f"{__package__}.data") / f"{name}.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        return stored["weights"].astype(float)[None]


def used_without(*names: str) -> np.ndarray:
    """`Learned.used` without the inputs and vectors of these names."""
    every = (*PAIR_NAMES, *VECTORS, *OWN_NAMES, "e_perp")
    for name in names:
        if name not in every:
            raise ValueError(f"names: {name!r} must be one of {', '.join(dict.fromkeys(every))}")
    return np.array([0.0 if name in names else 1.0 for name in every])


@driver_part
def _softsign(x: float) -> float:
    return x / (1.0 + abs(x))


@driver_code
def _drive(
    weights: Any,
    used: Any,
    observation: Any,
    k: int,
    numbers: Any,
    noise: Any,
    velocity: Any,
) -> None:
    speed, dt, jitter = numbers[0], numbers[1], numbers[2]
    block = len(observation) // len(weights)
    seen, hidden, out = np.empty(PAIR_INPUTS), np.empty(PAIR_HIDDEN), np.empty(PAIR_OUTPUTS)
    own, own_hidden = np.empty(OWN_INPUTS), np.empty(OWN_HIDDEN)
    for i in range(len(observation)):
        theta = weights[i // block]
        d, arrived = observation[i, DISTANCE], observation[i, ARRIVED]
        cx, cy = observation[i, C_ALONG], observation[i, C_ACROSS]
        near, soft = d / (1.0 + d), d / math.sqrt(d * d + SOFT * SOFT)
        vx, vy = 0.0, 0.0
        for m in range(POOLED):
            own[5 + m] = 0.0
        for j in range(k):
            contact = observation[i, OWN + CONTACT * k + j]
            rx = observation[i, OWN + R_ALONG * k + j]
            ry = observation[i, OWN + R_ACROSS * k + j]
            r2 = rx * rx + ry * ry
            if contact <= 0.0 or r2 >= REACH * REACH:
                break  # nearest first
            r = max(math.sqrt(r2), 1e-9)
            rx /= r
            ry /= r
            ux = observation[i, OWN + U_ALONG * k + j]
            uy = observation[i, OWN + U_ACROSS * k + j]
            window = (1.0 - r2 / (REACH * REACH)) ** 2
            seen[0] = r - contact
            seen[1] = rx * ux + ry * uy
            seen[2] = ux * ux + uy * uy
            seen[3] = rx * uy - ry * ux
            seen[4] = soft * rx
            seen[5] = soft * ry
            seen[6] = soft * ux
            seen[7] = soft * uy
            seen[8] = observation[i, OWN + NEIGHBOUR_ARRIVED * k + j]
            seen[9] = near
            seen[10] = arrived
            at = PAIR_INPUTS * PAIR_HIDDEN
            for h in range(PAIR_HIDDEN):
                hidden[h] = theta[at + h]
            for m in range(PAIR_INPUTS):
                value = used[m] * seen[m]
                for h in range(PAIR_HIDDEN):
                    hidden[h] += value * theta[m * PAIR_HIDDEN + h]
            at += PAIR_HIDDEN
            for o in range(PAIR_OUTPUTS):
                out[o] = theta[at + PAIR_HIDDEN * PAIR_OUTPUTS + o]
            for h in range(PAIR_HIDDEN):
                value = _softsign(hidden[h])
                for o in range(PAIR_OUTPUTS):
                    out[o] += value * theta[at + h * PAIR_OUTPUTS + o]
            a, b = used[11] * window * out[0], used[12] * window * out[1]
            c, e = used[13] * window * out[2], used[14] * window * out[3]
            vx += a * rx - b * ry + c * ux - e * uy
            vy += a * ry + b * rx + c * uy + e * ux
            for m in range(POOLED):
                own[5 + m] += window * out[4 + m]
        own[0] = used[15] * near
        own[1] = used[16] * soft * cx
        own[2] = used[17] * soft * cy
        own[3] = used[18] * math.sqrt(cx * cx + cy * cy)
        own[4] = used[19] * arrived
        at = PAIR_INPUTS * PAIR_HIDDEN + PAIR_HIDDEN + PAIR_HIDDEN * PAIR_OUTPUTS + PAIR_OUTPUTS
        bias = at + OWN_INPUTS * OWN_HIDDEN
        for h in range(OWN_HIDDEN):
            own_hidden[h] = theta[bias + h]
        for m in range(OWN_INPUTS):
            for h in range(OWN_HIDDEN):
                own_hidden[h] += own[m] * theta[at + m * OWN_HIDDEN + h]
        at = bias + OWN_HIDDEN
        alpha = 1.0 + theta[at + OWN_HIDDEN * OWN_OUTPUTS]
        beta = theta[at + OWN_HIDDEN * OWN_OUTPUTS + 1]
        for h in range(OWN_HIDDEN):
            value = _softsign(own_hidden[h])
            alpha += value * theta[at + h * OWN_OUTPUTS]
            beta += value * theta[at + h * OWN_OUTPUTS + 1]
        towards = preferred_speed(d, speed, dt)
        vx += towards * alpha
        vy += towards * used[20] * beta
        if len(noise) > 0:
            length, angle = jitter * noise[i, 0], 2.0 * math.pi * noise[i, 1]
            vx += length * math.cos(angle)
            vy += length * math.sin(angle)
        scale = speed / max(math.sqrt(vx * vx + vy * vy), speed)
        velocity[i, 0], velocity[i, 1] = vx * scale, vy * scale
