"""Discs that start at random places and go to random places, in the open plane.

Start      uniform in a square of side sqrt(N pi R^2 / cover), at rest; starts, and goals, are at
           least 2.12 R apart from each other
Reference  a disc alone takes its distance over the speed

Rule, loss, actions and what is seen are those of `envs/particles/goal_discs.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..core.rng import Rng
from ..core.types import Range
from ..core.validation import ends_of, require_range
from .goal_discs import GoalDiscs, State

SCENARIOS = {
    "particles-goals-v0": {
        "system": "Goals",
        "summary": "discs that cross a square to goals of their own without touching",
        "training": {
            "es": {"steps": 30_000_000, "n_worlds": 4, "std": 0.08, "std_final": 0.03, "lr": 0.05},
            "ppo": {"n_steps": 20, "n_worlds": 32, "lr": 3e-3, "gamma": 0.97},
            "sac": {"gamma": 0.97},
        },
        "film": {"policy": "learned", "parameters": {"cover": 0.35}, "steps": 124, "every": 4},
        "variants": [
            {"n_agents": 2},
            {"n_agents": 9, "cover": (0.05, 0.35)},
            {"n_agents": 5, "control": "acceleration", "max_acceleration": 2.0},
            {"n_agents": 12, "n_neighbours": 3, "cutoff": 1.0, "cover": 0.3},
            {"n_agents": 150, "cover": 0.2},
        ],
        "score": {
            "random": -1829.0,
            "best": -103.3,
            "policy": "learned-smooth",
            "origin": "20 episodes of every driver",
        },
    },
}

APART = 2.12  # least distance of two starts and of two goals, in radii
_DENSEST = 0.45  # cover up to which random places can be had one after another


@dataclass(frozen=True)
class Goals(GoalDiscs):
    """Parameters besides those of all discs with goals.

    cover: share of the square that discs cover.
    """

    cover: Range = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("cover", self.cover, 0, _DENSEST, strict=True)
        self._set_horizon()

    def _side(self, cover: float) -> float:
        return math.sqrt(self.n_agents * math.pi * self.radius**2 / cover)

    @property
    def longest_scale(self) -> float:
        return self._side(ends_of(self.cover)[0])

    def initial(self, rng: Rng, worlds: int) -> State:
        """Random starts and goals in the square, its middle at the origin."""
        from .placement import place_apart

        cover = rng.draw(self.cover, worlds)
        side = (self.n_agents * math.pi * self.radius**2 / cover).sqrt()
        places = torch.empty(2, worlds, self.n_agents, 2, dtype=torch.float64)
        for where in places:
            seeds = (rng.uniform(worlds) * 2.0**53).long().cpu().numpy().astype("uint64")
            place_apart(seeds, side[:, 0].cpu().numpy(), APART * self.radius, where.numpy())
        start, goal = places.to(rng.world.device)
        return self.start(start, goal, side)
