"""The drivers of discs with goals, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .goal_driving import GoalSystem, SocialForce, Straight
from .guard import buffered_voronoi
from .learned import learned, learned_smooth, learned_unguarded
from .orca import Orca, right_hand_orca, tuned_orca

DRIVERS: dict[str, Callable[[GoalSystem], Any]] = {
    "buffered-voronoi": buffered_voronoi,
    "learned": learned,
    "learned-smooth": learned_smooth,
    "learned-unguarded": learned_unguarded,
    "orca": Orca,
    "orca-right-hand": right_hand_orca,
    "orca-tuned": tuned_orca,
    "social-force": SocialForce,
    "straight": Straight,
}
