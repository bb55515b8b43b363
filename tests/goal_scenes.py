"""Scenes of discs with goals for tests of drivers, written without the package."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

ARRIVED_WITHIN = 0.1


@dataclass(frozen=True)
class Discs:
    """What a driver knows of a system."""

    n_agents: int = 64
    k: int = 10
    largest_radius: float = 0.2
    speed: float = 1.0
    dt: float = 0.1
    max_acceleration: float = 20.0
    cutoff: float = 5.0
    reach: float = 2.0
    gain: float = 1.0
    control: str = "velocity"


@dataclass
class World:
    """Discs of any radii; arrays [n, 2] and [n]."""

    position: np.ndarray
    velocity: np.ndarray
    goal: np.ndarray
    radius: np.ndarray

    def moved(self, desired: np.ndarray, system: Any) -> World:
        """After a step: the velocity goes towards the desired one as fast as it may."""
        desired = desired * np.minimum(1, system.speed / np.maximum(norm(desired), 1e-300))[:, None]
        change = desired - self.velocity
        limit = system.max_acceleration * system.dt
        change *= np.minimum(1, limit / np.maximum(norm(change), 1e-300))[:, None]
        velocity = self.velocity + change
        return World(self.position + system.dt * velocity, velocity, self.goal, self.radius)


def norm(vectors: np.ndarray) -> np.ndarray:
    return np.hypot(vectors[..., 0], vectors[..., 1])


def directions(world: World) -> np.ndarray:
    """From every disc to its goal [n, 2]; (1, 0) for one that is there."""
    way = world.goal - world.position
    d = norm(way)[:, None]
    return np.where(d > 0, way / np.maximum(d, 1e-300), [1.0, 0.0])


def in_frame(e: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Components (along, across) e of vectors [n, (k,) 2]."""
    across = np.stack([-e[:, 1], e[:, 0]], -1)
    if vectors.ndim == 3:
        e, across = e[:, None], across[:, None]
    return np.stack([(vectors * e).sum(-1), (vectors * across).sum(-1)], -1)


def out_of_frame(e: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Vectors [n, 2] of components (along, across) e."""
    across = np.stack([-e[:, 1], e[:, 0]], -1)
    return components[:, :1] * e + components[:, 1:] * across


def observe(world: World, system: Any) -> np.ndarray:
    """Observations [n, 4 + 10 k]."""
    n, k = len(world.position), system.k
    e = directions(world)
    distance = norm(world.goal - world.position)
    own = in_frame(e, world.velocity)
    arrived = distance < ARRIVED_WITHIN
    observation = np.zeros((n, 4 + 10 * k))
    observation[:, 0], observation[:, 1], observation[:, 2:4] = distance, arrived, own
    r = world.position[None] - world.position[:, None]
    far = norm(r) + np.where(np.eye(n, dtype=bool), np.inf, 0)
    order = np.argsort(far, 1, kind="stable")[:, :k]
    row = np.arange(n)[:, None]
    r, u = r[row, order], world.velocity[order] - world.velocity[:, None]
    present = far[row, order] < system.cutoff
    r_frame, u_frame = in_frame(e, r), in_frame(e, u)
    columns = [
        (r * r).sum(-1),
        (r * u).sum(-1),
        (u * u).sum(-1),
        r[..., 0] * u[..., 1] - r[..., 1] * u[..., 0],
        *(r_frame[..., 0], r_frame[..., 1], u_frame[..., 0], u_frame[..., 1]),
        arrived[order].astype(float),
        world.radius[:, None] + world.radius[order],
    ]
    width = order.shape[1]
    for number, column in enumerate(columns):
        absent = system.cutoff**2 if number == 0 else 0.0
        block = observation[:, 4 + number * k : 4 + (number + 1) * k]
        block[:] = absent
        block[:, :width] = np.where(present, column, absent)
    return observation


def square(rng: np.random.Generator, n: int, cover: float, radius: float = 0.2) -> World:
    """Discs at rest in a square, starts and goals each at least 2.12 radii apart."""
    side = math.sqrt(n * math.pi * radius**2 / cover)
    start, goal = _apart(rng, n, side, 2.12 * radius), _apart(rng, n, side, 2.12 * radius)
    return World(start, np.zeros((n, 2)), goal, np.full(n, radius))


def circle(n: int, radius: float = 0.2) -> World:
    """Discs at rest on a circle, each opposite its goal."""
    angle = 2 * np.pi * np.arange(n) / n
    start = max(2.0, 0.143 * n) * np.stack([np.cos(angle), np.sin(angle)], -1)
    return World(start, np.zeros((n, 2)), -start, np.full(n, radius))


def _apart(rng: np.random.Generator, n: int, side: float, least: float) -> np.ndarray:
    places = np.empty((0, 2))
    while len(places) < n:
        place = side * rng.random(2)
        if np.all(norm(places - place) >= least):
            places = np.vstack([places, place])
    return places


def least_gap(before: World, after: World, who: np.ndarray, substeps: int = 10) -> float:
    """Smallest |r| - R_i - R_j of any two of `who` on the straight way to the next state."""
    smallest = math.inf
    upper = np.triu_indices(len(who), 1)
    contact = (before.radius[who][:, None] + before.radius[who])[upper]
    for part in np.linspace(0, 1, substeps + 1):
        x = ((1 - part) * before.position + part * after.position)[who]
        smallest = min(smallest, float((norm(x[:, None] - x[None])[upper] - contact).min()))
    return smallest
