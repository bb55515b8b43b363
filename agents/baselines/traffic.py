"""The drivers of traffic, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ...envs.particles.traffic import Traffic
from .goal_driving import SocialForce, Straight
from .orca import Orca
from .traffic_driving import TrafficDriver
from .traffic_guard import GuardedTraffic
from .traffic_learned import learned

_JITTER = 0.01


def buffered_voronoi(system: Traffic) -> GuardedTraffic:
    """Straight towards the goal inside the guard, with ORCA's noise."""
    straight = TrafficDriver(system, "straight", partial(Straight, jitter=_JITTER), _JITTER)
    return GuardedTraffic(straight, name="buffered-voronoi")


def straight(system: Traffic) -> TrafficDriver:
    """Straight towards the goal, at no more than the limit of a sign."""
    return TrafficDriver(system, "straight", Straight)


def social_force(system: Traffic) -> TrafficDriver:
    """Forces from agents and from the nearest points of buildings."""
    return TrafficDriver(system, "social-force", SocialForce, _JITTER)


def orca(system: Traffic) -> TrafficDriver:
    """ORCA with the library's settings; buildings are discs that make no part of a change."""
    return TrafficDriver(system, "orca", partial(Orca, neighbours=system.k), _JITTER, True)


def tuned_orca(system: Traffic) -> TrafficDriver:
    """ORCA with the horizon that has the most flow, chosen on scenes of their own."""
    make = partial(Orca, neighbours=system.k, horizon=0.5)
    return TrafficDriver(system, "orca-tuned", make, _JITTER, True)


def right_hand_orca(system: Traffic) -> TrafficDriver:
    """ORCA that turns to the right of who is ahead: horizon and angle chosen as for `tuned_orca`.

    Buildings are in the way as agents are, so that larger angles drive into them.
    """
    make = partial(Orca, neighbours=system.k, horizon=1.0, right_hand=0.1)
    return TrafficDriver(system, "orca-right-hand", make, _JITTER, True)


DRIVERS: dict[str, Callable[[Traffic], Any]] = {
    "buffered-voronoi": buffered_voronoi,
    "learned": learned,
    "orca": orca,
    "orca-right-hand": right_hand_orca,
    "orca-tuned": tuned_orca,
    "social-force": social_force,
    "straight": straight,
}
