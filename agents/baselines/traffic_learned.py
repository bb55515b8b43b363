"""Learned drivers of traffic: the network of `learned.py`, once for each place that users start at.

Its input for "has arrived" of a neighbour is the part of the gap to give; all else is as for discs.
Kinds that start on the road share one network, those of the pavement another. The desired velocity
is cut to what signs allow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from torch import Tensor

from ...envs.core.rng import Rng
from ...envs.particles.traffic import Traffic
from . import goal_driving as goals
from .learned import N_WEIGHTS, Learned
from .traffic_driving import KIND, TrafficDriver, allowed_speeds, as_goal_rows, view
from .traffic_guard import GuardedTraffic

NETWORKS = ("road", "pavement")


def _untrained() -> np.ndarray:
    return np.zeros((1, len(NETWORKS), N_WEIGHTS))


@dataclass(frozen=True)
class LearnedTraffic(TrafficDriver):
    """Networks with their weights, of one candidate or of many.

    weights [candidates, 2, N_WEIGHTS]: worlds of an observation belong to candidates in equal
    blocks; with many, everybody of a column is of one kind.
    """

    weights: np.ndarray = field(default_factory=_untrained)

    def desired_velocity(self, observation: Tensor, rng: Rng | None) -> np.ndarray:
        seen = goals.rows(observation)
        worlds, agents = observation.shape[:2]
        noise = np.empty((0, 2))
        if rng is not None and self.jitter > 0:
            noise = rng.uniform(worlds, agents, 2).cpu().numpy().reshape(-1, 2)
        listed, _ = as_goal_rows(self.system, seen)
        code = seen[:, KIND].astype(np.int64)
        if len(self.weights) > 1:
            code = np.tile(code.reshape(worlds, agents).max(0), worlds)
        velocity = np.zeros((len(seen), 2))
        for kind in self.system.present:
            chosen = np.flatnonzero(code == self.system.kinds.code(kind.name))
            if len(chosen) == 0:
                continue
            weights = np.ascontiguousarray(self.weights[:, NETWORKS.index(kind.place)])
            driver = Learned(view(self.system, kind.speed), jitter=self.jitter, weights=weights)
            part = noise[chosen] if len(noise) else noise
            velocity[chosen] = driver.velocity(listed[chosen], part)
        speed = np.maximum(np.hypot(velocity[:, 0], velocity[:, 1]), 1e-300)
        return velocity * np.minimum(1.0, allowed_speeds(self.system, seen) / speed)[:, None]


def learned_traffic(system: Traffic, weights: np.ndarray, name: str) -> LearnedTraffic:
    """The driver with weights [candidates, 2, N_WEIGHTS]."""
    make: Any = Learned
    return LearnedTraffic(system, name, make, 0.01, weights=weights)


@cache
def shipped() -> np.ndarray:
    """Weights [1, 2, N_WEIGHTS] that ship, made by `figures/traffic_training.py`."""
    file = resources.files(f"{__package__}.data") / "traffic.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        return stored["weights"].astype(float)[None]


def learned(system: Traffic) -> GuardedTraffic:
    """The driver that ships, inside the guard that it was trained in."""
    return GuardedTraffic(learned_traffic(system, shipped(), "learned"), name="learned")
