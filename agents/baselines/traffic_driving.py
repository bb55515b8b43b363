"""Drivers of traffic: those of discs with goals, told of kinds, limits, buildings and shares.

A row of the observation of traffic is

    d, e.c, e x c, kind, I3 near a sign, its limit, and then k columns each of
    I1..I4, e.r, e x r, e.u, e x u, |r| at contact, kind, part of the gap to give

Before a driver of discs with goals sees it, agents and buildings are put into one list, nearest
first, in the columns that such a driver reads (`goal_driving.py`); what a building hides because
it follows from the own velocity, u = -c, is put back, and the column of those that have arrived
holds the part of the gap to give. The speed of a row is that of its kind, or the limit of a sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...envs.core.rng import Rng
from ...envs.particles.traffic import Traffic
from . import goal_driving as goals
from .half_planes import driver_code

DISTANCE, C_ALONG, C_ACROSS, KIND, LIMIT, OWN = 0, 1, 2, 3, 5, 6
R_ALONG, R_ACROSS, U_ALONG, U_ACROSS, CONTACT, CODE, GIVE = 4, 5, 6, 7, 8, 9, 10
_GOAL_OWN, _GOAL_GIVE, _GOAL_CONTACT = goals.OWN, 8, goals.CONTACT  # of rows of discs


@dataclass(frozen=True)
class View:
    """What a driver of discs knows of traffic, with the speed that one row may have."""

    n_agents: int
    k: int
    largest_radius: float
    speed: float
    dt: float
    max_acceleration: float
    cutoff: float
    reach: float
    gain: float
    control: str = "velocity"


@dataclass(frozen=True)
class TrafficDriver:
    """A driver of discs in traffic.

    make: the driver that rows of one speed have.  jitter: largest noise of the preferred velocity.
    shares: whether the driver is told which part of a change it makes itself: half with agents and
    all with buildings.
    """

    system: Traffic
    name: str
    make: Callable[[View], Any]
    jitter: float = 0.0
    shares: bool = False

    dtype = np.float64  # of the observations it is to be given

    def desired_velocity(self, observation: Tensor, rng: Rng | None) -> np.ndarray:
        """Desired velocities [worlds * agents, 2], along and across e, in the road's frame."""
        seen = goals.rows(observation)
        noise = np.empty((0, 2))
        if rng is not None and self.jitter > 0:
            noise = rng.uniform(*observation.shape[:2], 2).cpu().numpy().reshape(-1, 2)
        listed, share = as_goal_rows(self.system, seen)
        allowed, velocity = allowed_speeds(self.system, seen), np.zeros((len(seen), 2))
        for speed in np.unique(allowed[allowed > 0]):
            chosen = np.flatnonzero(allowed == speed)
            driver = self.make(view(self.system, float(speed)))
            shares = (share[chosen],) if self.shares else ()
            part = noise[chosen] if len(noise) else noise
            velocity[chosen] = driver.velocity(listed[chosen], part, *shares)
        return velocity

    def __call__(self, observation: Tensor, rng: Rng | None) -> Tensor:
        return action_of(self.system, self.desired_velocity(observation, rng), observation)


def view(system: Traffic, speed: float) -> View:
    """Traffic as discs of one speed."""
    return View(
        system.n_agents,
        system.k,
        system.largest_radius,
        speed,
        system.dt,
        system.max_acceleration,
        system.cutoff,
        system.reach,
        system.gain,
    )


def own_speeds(system: Traffic, seen: np.ndarray) -> np.ndarray:
    """Full speeds [rows] of the kinds of the rows; 0 for who has left."""
    by_code = np.concatenate([[0.0], system.tables.speed])
    return by_code[seen[:, KIND].astype(np.int64)]


def allowed_speeds(system: Traffic, seen: np.ndarray) -> np.ndarray:
    """The same, or the limit of a sign that is lower."""
    speed, limit = own_speeds(system, seen), seen[:, LIMIT].astype(float)
    return np.where(limit > 0, np.minimum(speed, limit), speed)


def action_of(system: Traffic, velocity: np.ndarray, observation: Tensor) -> Tensor:
    """The action [worlds, agents, 4 k + 2] that asks for velocities [worlds * agents, 2]."""
    seen = goals.rows(observation)
    speed = np.maximum(own_speeds(system, seen), 1e-300)[:, None]
    worlds, agents = observation.shape[:2]
    action = torch.zeros((worlds, agents, 4 * system.k + 2), dtype=observation.dtype)
    scaled = np.where(seen[:, KIND, None] > 0, np.clip(velocity / speed, -1.0, 1.0), 0.0)
    action[..., -2:] = torch.from_numpy(scaled).reshape(worlds, agents, 2)
    return action.to(observation.device)


def as_goal_rows(system: Traffic, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as drivers of discs read them [rows, 4 + 10 k], and shares [rows, k].

    Shares are 1/2 for agents and 1 for buildings.
    """
    listed = np.zeros((len(seen), _GOAL_OWN + 10 * system.k))
    share = np.zeros((len(seen), system.k))
    building = system.kinds.code(system.building)
    _list(seen, system.k, building, np.empty(system.k), listed, share)
    return listed, share


@driver_code
def _list(seen: Any, k: int, building: int, near: Any, listed: Any, share: Any) -> None:
    """`as_goal_rows`; near [k] is overwritten."""
    for i in range(len(seen)):
        listed[i, 0] = seen[i, DISTANCE]
        listed[i, 2], listed[i, 3] = seen[i, C_ALONG], seen[i, C_ACROSS]
        for j in range(k):
            x, y = seen[i, OWN + R_ALONG * k + j], seen[i, OWN + R_ACROSS * k + j]
            near[j] = x * x + y * y if seen[i, OWN + CONTACT * k + j] > 0.0 else np.inf
        for j in range(k):
            if near[j] == np.inf:
                continue
            place = 0
            for other in range(k):
                place += near[other] < near[j] or (near[other] == near[j] and other < j)
            at, still = _GOAL_OWN + place, seen[i, OWN + CODE * k + j] == building
            for column in range(4):
                listed[i, at + column * k] = seen[i, OWN + column * k + j]
            listed[i, at + goals.R_ALONG * k] = seen[i, OWN + R_ALONG * k + j]
            listed[i, at + goals.R_ACROSS * k] = seen[i, OWN + R_ACROSS * k + j]
            u_along, u_across = seen[i, OWN + U_ALONG * k + j], seen[i, OWN + U_ACROSS * k + j]
            listed[i, at + goals.U_ALONG * k] = -seen[i, C_ALONG] if still else u_along
            listed[i, at + goals.U_ACROSS * k] = -seen[i, C_ACROSS] if still else u_across
            listed[i, at + _GOAL_GIVE * k] = seen[i, OWN + GIVE * k + j]
            listed[i, at + _GOAL_CONTACT * k] = seen[i, OWN + CONTACT * k + j]
            share[i, place] = 1.0 if still else 0.5
