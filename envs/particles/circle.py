"""Discs on a circle, each of which has to go to the place opposite to it.

Start      evenly spaced on a circle of radius max(2, 0.143 N), turned at random, at rest; with
           `shift` each is displaced by up to so much in a random direction; goals are opposite to
           the starts
Reference  exact symmetry: a rule that knows no left and right meets in the middle

Rule, loss, actions and what is seen are those of `envs/particles/goal_discs.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..core.rng import Rng
from ..core.validation import require_number
from .goal_discs import GoalDiscs, State

SCENARIOS = {
    "particles-circle-v0": {
        "system": "Circle",
        "summary": "discs on a circle that all change sides through its middle",
        "training": {
            "es": {"steps": 30_000_000, "n_worlds": 4, "std": 0.08, "std_final": 0.03, "lr": 0.05},
            # With larger rewards the loss of the critic takes up most of the length that the
            # gradient is allowed, and with less noise discs do not always find the way around.
            # MAPPO has the same settings.
            "ppo": {
                "steps": 4_200_000,
                "n_worlds": 8,
                "n_steps": 64,
                "n_epochs": 1,
                "lr": 3e-3,
                "gamma": 0.95,
                "reward_scale": 0.01,
                "log_std_init": -1.0,
            },
            "sac": {"gamma": 0.97, "reward_scale": 0.3},
            "descent": {"n_worlds": 8, "rollout": 60},
        },
        "film": {"policy": "learned", "steps": 230, "every": 3},
        "variants": [
            {"n_agents": 2},
            {"n_agents": 16, "shift": 0.05},
            {"n_agents": 6, "control": "acceleration"},
        ],
        "score": {
            "random": -2567.0,
            "best": -316.5,
            "policy": "learned",
            "origin": "20 episodes of every driver",
        },
    },
}

_LEAST_RADIUS, _RADIUS_PER_DISC = 2.0, 0.143


@dataclass(frozen=True)
class Circle(GoalDiscs):
    """Parameters besides those of all discs with goals.

    shift: how far starts may be from their places on the circle, length; 0: exact symmetry.
    """

    shift: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("shift", self.shift, 0)
        spacing = 2 * self.circle_radius * math.sin(math.pi / self.n_agents)
        if spacing < 2 * (self.radius + self.shift):
            raise ValueError(
                f"radius={self.radius} and shift={self.shift} must leave room between "
                f"n_agents={self.n_agents} discs, which are {spacing:.4g} apart: their sum must be "
                f"at most {spacing / 2:.4g}"
            )
        self._set_horizon()

    @property
    def circle_radius(self) -> float:
        """Of the circle, length."""
        return max(_LEAST_RADIUS, _RADIUS_PER_DISC * self.n_agents)

    @property
    def longest_scale(self) -> float:
        return 2 * self.circle_radius

    def initial(self, rng: Rng, worlds: int) -> State:
        """Starts on the circle around the origin and goals opposite to them."""
        n = self.n_agents
        turn = 2 * math.pi * rng.uniform(worlds, 1)
        angle = turn + 2 * math.pi * torch.arange(n, device=turn.device) / n
        on_circle = self.circle_radius * torch.stack([angle.cos(), angle.sin()], -1)
        way = 2 * math.pi * rng.uniform(worlds, n)
        far = self.shift * rng.uniform(worlds, n, 1)
        start = on_circle + far * torch.stack([way.cos(), way.sin()], -1)
        scale = torch.full_like(turn, self.longest_scale)
        return self.start(start, -start, scale)
