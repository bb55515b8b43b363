"""Drivers of discs that have places to go: what they read, what they return, and the plain ones.

A driver is a policy of one system: a callable (observation [worlds, agents, size], generator) ->
action [worlds, agents, 4 k + 2] with a `system` and a `name`. It works out a desired velocity in
the frame of each agent, (along, across) the direction e from the agent to its goal, relative to
the goal's own velocity; the action then asks for it by its last two numbers, and holds 0 for every
neighbour. Rows are agents of all worlds. A row of the observation is

    d = |g|, arrived, e.c, e x c, and then k columns each of
    I1..I4, e.r, e x r, e.u, e x u, arrived, contact distance

with g = goal - position, c = own velocity - goal velocity; absent neighbours have contact 0.
Observations of float64 give actions of float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ...envs.core.rng import Rng
from .half_planes import driver_code, driver_part

# First columns of the blocks of k that follow the own scalars, in units of k, and those scalars.
DISTANCE, C_ALONG, C_ACROSS, OWN = 0, 2, 3, 4
R_ALONG, R_ACROSS, U_ALONG, U_ACROSS, CONTACT = 4, 5, 6, 7, 9
_NO_NOISE = np.empty((0, 2))


class GoalSystem(Protocol):
    """What drivers know of a system of discs with goals."""

    @property
    def n_agents(self) -> int:
        """Discs of a world."""

    @property
    def k(self) -> int:
        """Neighbours in the observation."""

    @property
    def largest_radius(self) -> float:
        """Of all discs."""

    @property
    def speed(self) -> float:
        """Limit of the desired velocity."""

    @property
    def dt(self) -> float:
        """Time step."""

    @property
    def max_acceleration(self) -> float:
        """Limit of |a|."""

    @property
    def cutoff(self) -> float:
        """How far neighbours are seen."""

    @property
    def reach(self) -> float:
        """Where the window of the action's pair terms ends."""

    @property
    def gain(self) -> float:
        """Velocity per unit of the action's coefficients times vector."""

    @property
    def control(self) -> str:
        """What an action asks for: "velocity" or "acceleration"."""


def rows(observation: Tensor) -> np.ndarray:
    """Observations [worlds * agents, size] as an array in a row, of their own precision."""
    flat = observation.detach().reshape(-1, observation.shape[-1])
    return flat.cpu().contiguous().numpy()


def action_of_velocity(system: GoalSystem, velocity: np.ndarray, observation: Tensor) -> Tensor:
    """The action [worlds, agents, 4 k + 2] that asks for velocities [worlds * agents, 2].

    With control of the acceleration it asks for what comes nearest to them in a step, along the way
    from the present velocity.
    """
    worlds, agents = observation.shape[:2]
    number = torch.empty(0, dtype=observation.dtype).numpy().dtype
    # Zeros of numpy are four times as fast as those of torch: their memory comes in larger pages.
    action = torch.from_numpy(np.zeros((worlds, agents, 4 * system.k + 2), number))
    if system.control == "acceleration":
        change = velocity - rows(observation)[:, C_ALONG : C_ACROSS + 1]
        scaled = change / (system.max_acceleration * system.dt)
        scaled /= np.maximum(np.hypot(scaled[:, 0], scaled[:, 1]), 1.0)[:, None]
    else:
        scaled = np.clip(velocity / system.speed, -1.0, 1.0)
    action[..., -2:] = torch.from_numpy(scaled).reshape(worlds, agents, 2)
    return action.to(observation.device)


@driver_part
def preferred_speed(distance: float, speed: float, dt: float) -> float:
    """Full speed towards the goal, and the last step no farther than it."""
    return speed if distance > speed * dt else distance / dt


@driver_part
def add_noise(noise: Any, row: int, jitter: float, x: float, y: float) -> Any:
    """(x, y) moved in a uniform direction by a uniform length up to `jitter`.

    noise [rows, 2] holds uniform numbers; none if it has no rows.
    """
    if len(noise) == 0:
        return x, y
    length, angle = jitter * noise[row, 0], 2.0 * math.pi * noise[row, 1]
    return x + length * math.cos(angle), y + length * math.sin(angle)


@dataclass(frozen=True)
class GoalDriver(ABC):
    """A policy that works out a desired velocity for every row."""

    system: GoalSystem
    name: str
    jitter: float = 0.0  # largest noise of the preferred velocity, length / time

    dtype: ClassVar[type[np.floating]] = np.float64  # of the observations it is to be given

    @abstractmethod
    def velocity(self, observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Desired velocities [rows, 2]; noise: uniform numbers [rows, 2], or none [0, 2]."""

    def desired_velocity(self, observation: Tensor, rng: Rng | None) -> np.ndarray:
        """Desired velocities [worlds * agents, 2]; without a generator there is no noise."""
        noise = _NO_NOISE
        if rng is not None and self.jitter > 0:
            noise = rng.uniform(*observation.shape[:2], 2).cpu().numpy().reshape(-1, 2)
        return self.velocity(rows(observation), noise)

    def __call__(self, observation: Tensor, rng: Rng | None) -> Tensor:
        velocity = self.desired_velocity(observation, rng)
        return action_of_velocity(self.system, velocity, observation)


@dataclass(frozen=True)
class Straight(GoalDriver):
    """Full speed towards the goal, whoever is there."""

    name: str = "straight"

    def velocity(self, observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
        velocity = np.empty((len(observation), 2))
        _straight(observation, self.system.speed, self.system.dt, self.jitter, noise, velocity)
        return velocity


@dataclass(frozen=True)
class SocialForce(GoalDriver):
    """Helbing and Molnar, "Social force model for pedestrian dynamics" (1995), with round bodies.

    a = (preferred - c) / relaxation_time - sum_j strength exp((D - |r|) / length) sight r^, with
    sight 1 for neighbours ahead and `behind` for the others; the desired velocity is c + a dt.
    """

    name: str = "social-force"
    jitter: float = 0.01
    relaxation_time: float = 0.5
    strength: float = 5.0  # acceleration at contact
    length: float = 0.2  # over which it falls by e
    behind: float = 0.5

    def velocity(self, observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
        velocity = np.empty((len(observation), 2))
        system = self.system
        force = (self.relaxation_time, self.strength, self.length, self.behind)
        numbers = np.array([system.speed, system.dt, self.jitter, *force])
        _social_force(observation, system.k, numbers, noise, velocity)
        return velocity


@driver_code
def _straight(
    observation: Any, speed: float, dt: float, jitter: float, noise: Any, velocity: Any
) -> None:
    for i in range(len(observation)):
        x = preferred_speed(observation[i, DISTANCE], speed, dt)
        velocity[i, 0], velocity[i, 1] = add_noise(noise, i, jitter, x, 0.0)


@driver_code
def _social_force(observation: Any, k: int, numbers: Any, noise: Any, velocity: Any) -> None:
    speed, dt, jitter = numbers[0], numbers[1], numbers[2]
    relaxation_time, strength, length, behind = numbers[3], numbers[4], numbers[5], numbers[6]
    for i in range(len(observation)):
        cx, cy = observation[i, C_ALONG], observation[i, C_ACROSS]
        x = preferred_speed(observation[i, DISTANCE], speed, dt)
        x, y = add_noise(noise, i, jitter, x, 0.0)
        ax, ay = (x - cx) / relaxation_time, (y - cy) / relaxation_time
        for j in range(k):
            contact = observation[i, OWN + CONTACT * k + j]
            if contact <= 0.0:
                break
            rx = observation[i, OWN + R_ALONG * k + j]
            ry = observation[i, OWN + R_ACROSS * k + j]
            distance = max(math.sqrt(rx * rx + ry * ry), 1e-9)
            push = strength * math.exp((contact - distance) / length) / distance
            push *= 1.0 if rx > 0.0 else behind
            ax, ay = ax - push * rx, ay - push * ry
        vx, vy = cx + ax * dt, cy + ay * dt
        scale = speed / max(math.sqrt(vx * vx + vy * vy), speed)
        velocity[i, 0], velocity[i, 1] = vx * scale, vy * scale
