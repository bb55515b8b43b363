"""Autonomous particles: discs that keep their desired velocity and do not touch, on a torus.

State      position x_i, velocity v_i, desired velocity w_i, radius R_i; side L of the torus
Start      random cells of a square lattice, jittered; v_i = w_i, of one speed in random directions
Reference  straight driving: collisions per particle and time close to those of a gas,
           (N - 1) / (2 L^2) 4 R (4 / pi) speed

What moves, what is seen, what an action means and what is lost is that of all discs: see
`envs/particles/discs.py`. Layout and numbers are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.rng import Rng
from ..core.types import Range
from ..core.validation import ends_of, require_range
from .discs import Discs, State

SCENARIOS = {
    "particles-crowd-v0": {
        "system": "Crowd",
        "summary": "discs with desired velocities in random directions on a torus",
        "training": {
            "ppo": {
                "steps": 4_000_000,
                "n_steps": 8,
                "lr": 3e-3,
                "gamma": 0.9,
                "clip_range": 0.4,
                "width": 24,
            },
            "es": {"steps": 50_000_000},
        },
        "film": {
            "policy": "social-force",
            "steps": 60,
            "training": {"algo": "descent", "steps": 1_920_000, "n_worlds": 8},
        },
        "variants": [
            {"n_agents": 2},
            {"n_agents": 3, "seen": ("I1",)},
            {"n_agents": 24, "density": (0.1, 0.3), "speed": (0.5, 1.5)},
            {"n_agents": 24, "seen": ("I1", "I2", "I3"), "n_neighbours": 3},
            {"n_agents": 12, "actions": "heading"},
            {"n_agents": 3, "actions": "heading", "seen": ("I1",)},
            {"n_agents": 150, "seen": ("I2", "I4"), "n_neighbours": 5},
            {"n_agents": 150, "actions": "heading", "seen": ("I1", "I3")},
        ],
        "score": {
            "random": -627.7,
            "best": -9.443,
            "policy": "ppo",
            "origin": "5 trained runs of docs/scores.md",
        },
    },
}

_SPACING = 1.5  # cells of the initial placement, in diameters


@dataclass(frozen=True)
class Crowd(Discs):
    """Parameters besides those of all discs.

    density: discs per area of the torus.
    """

    density: Range = 0.24

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("density", self.density, 0, strict=True)
        self._require_room()

    def _require_room(self) -> None:
        """Discs start on cells of a square lattice: refuse what does not fit there."""
        root = math.ceil(math.sqrt(self.n_agents))
        if self._least_side / root < 2 * self.radius:
            limit = self.n_agents / (2 * self.radius * root) ** 2
            raise ValueError(
                f"n_agents={self.n_agents} discs of radius={self.radius} cannot be placed at "
                f"density={ends_of(self.density)[1]:g}; at most {limit:.4g} is possible"
            )

    @property
    def half_width(self) -> float:
        return 0.5 * math.sqrt(self.n_agents / ends_of(self.density)[0])

    @property
    def _least_side(self) -> float:
        return math.sqrt(self.n_agents / ends_of(self.density)[1])

    def initial(self, rng: Rng, worlds: int) -> State:
        """Random cells of a lattice, jittered so that no discs overlap.

        By numpy, which takes a third of the time of torch for the few discs of a world.
        """
        n = self.n_agents
        box = np.sqrt(n / rng.draw(self.density, worlds).cpu().numpy())
        root = math.ceil(math.sqrt(n))
        # The finest lattice that keeps cells wide, the same for all worlds of a batch.
        rows = max(min(int(self._least_side / (2 * _SPACING * self.radius)), 2 * root), root)
        cell = np.argsort(rng.uniform(worlds, rows * rows).cpu().numpy(), -1)[:, :n]
        spacing = (box / rows)[:, :, None]
        slack = (1 - 2 * self.radius / spacing) * (1 - 1e-9)
        jitter = rng.uniform(worlds, n, 2).cpu().numpy()
        jitter -= 0.5
        jitter *= slack
        jitter += 0.5
        jitter[..., 0] += cell % rows
        jitter[..., 1] += cell // rows
        box2 = box[:, :, None]
        position = jitter * spacing + rng.uniform(worlds, 1, 2).cpu().numpy() * box2
        position -= box2 * np.floor(position / box2)
        direction = 2 * math.pi * rng.uniform(worlds, n).cpu().numpy()
        desired = np.empty((worlds, n, 2))
        speed = rng.draw(self.speed, worlds).cpu().numpy()
        desired[..., 0] = speed * np.cos(direction)
        desired[..., 1] = speed * np.sin(direction)
        fields = position, desired.copy(), desired, np.full((worlds, n), self.radius), box
        return State(*(torch.from_numpy(field).to(rng.world.device) for field in fields))


def gas_collision_rate(system: Crowd) -> float:
    """Collisions per particle and time of straight driving, from the kinetic theory of gases.

    Raises ValueError for a range of densities or speeds.
    """
    density: Any = system.density
    speed: Any = system.speed
    if isinstance(density, tuple) or isinstance(speed, tuple):
        raise ValueError("density and speed must be numbers")
    n = system.n_agents
    area = n / density
    return 0.5 * (n - 1) / area * 4 * system.radius * (4 / math.pi) * speed
