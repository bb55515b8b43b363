"""Two autonomous particles that meet in open space, the exact head-on case included.

State      position x_i, velocity v_i, desired velocity w_i, radius R_i; no torus
Start      `separation` apart along a random line, with an impact parameter and an angle between
           the lines of motion
Reference  discs in straight motion: `time_to_collision`

What moves, what is seen, what an action means and what is lost is that of all discs: see
`envs/particles/discs.py`. Layout and numbers are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..core.physics.plane import rotate_quarter
from ..core.rng import Rng
from ..core.types import Range
from ..core.validation import require_number, require_range
from .discs import Discs, State

SCENARIOS = {
    "particles-encounter-v0": {
        "system": "Encounter",
        "summary": "two discs that meet in open space, the exact head-on case included",
        "training": {
            "ppo": {"steps": 2_000_000, "n_worlds": 128, "lr": 3e-3},
            "es": {"steps": 2_000_000},
        },
        "film": {
            "policy": "social-force",
            "n_worlds": 4,
            "steps": 50,
            "training": {"algo": "descent", "steps": 160_000, "n_worlds": 8},
        },
        "variants": [
            {"seen": ("I1", "I2", "I3")},
            {"seen": ("I1",), "actions": "heading"},
            {"actions": "heading", "speed": (0.5, 1.5)},
            {"impact": 0.0, "angle": 0.0, "orientation": 0.0},
        ],
        "score": {
            "random": -14.63,
            "best": -0.197,
            "policy": "ppo",
            "origin": "random: docs/scores.md; best: two runs of docs/results/benchmark.json",
        },
    },
}


@dataclass(frozen=True)
class Encounter(Discs):
    """Parameters besides those of all discs, of which there are two.

    separation: distance at the start, where `impact` is 0.  impact: the impact parameter, length.
    angle: between the lines of motion, radians.  orientation: of the first line, radians.
    """

    n_agents: int = 2
    horizon: int = 60
    collision_weight: float = 15.0
    margin: float = 1.3
    speed_weight: float = 0.25
    separation: float = 3.6
    impact: Range = (-0.6, 0.6)
    angle: Range = (-0.3, 0.3)
    orientation: Range = (0.0, 2 * math.pi)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("separation", self.separation, 0, strict=True)
        for name in ("impact", "angle", "orientation"):
            require_range(name, getattr(self, name))
        if self.n_agents != 2:
            raise ValueError(f"n_agents={self.n_agents} must be 2 for an encounter")
        if self.separation <= 2 * self.radius:
            raise ValueError(
                f"separation={self.separation} must be above 2 radius={2 * self.radius}"
            )

    @property
    def half_width(self) -> float:
        return self.separation

    def initial(self, rng: Rng, worlds: int) -> State:
        """Two discs `separation` apart that drive towards each other, centred at the origin."""
        impact, angle = rng.draw(self.impact, worlds), rng.draw(self.angle, worlds)
        turn, speed = rng.draw(self.orientation, worlds), rng.draw(self.speed, worlds)
        half = torch.cat([torch.full_like(impact, -0.5 * self.separation), 0.5 * impact], -1)
        position = torch.stack([half, -half], 1)
        across = torch.cat([angle.sin(), -angle.sin() * 0], -1)
        along = torch.cat([angle.cos(), torch.full_like(angle, -1.0)], -1)
        desired = speed.unsqueeze(-1) * torch.stack([along, across], -1)
        c, s = turn.cos().unsqueeze(-1), turn.sin().unsqueeze(-1)
        position, desired = (c * v + s * rotate_quarter(v) for v in (position, desired))
        radius = torch.full_like(position[..., 0], self.radius)
        return State(position, desired.clone(), desired, radius, torch.zeros_like(impact))
