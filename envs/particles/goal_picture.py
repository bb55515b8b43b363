"""Pictures of discs that have places to go."""

from __future__ import annotations

import math

import numpy as np

from ..core.scene import LegendEntry, Scene
from .goal_geometry import Pairs
from .goal_state import State
from .yielding import look_ahead, straight_on, yields

_LEGEND = (
    LegendEntry("colour: on which side its goal lies", "scale", palette="wheel"),
    LegendEntry("its goal", "ring", 0.6, palette="wheel"),
    LegendEntry("has arrived", "disc", 0.6, palette="wheel", core=1),
    LegendEntry("has hit another", "disc", 0.6, palette="wheel", core=-1),
    LegendEntry("thick end gives way to thin end", "link"),
)


def picture(state: State, pairs: Pairs, speed: float, dt: float, middle: np.ndarray) -> Scene:
    """Discs of the first world around `middle` [2] and their goals, and who gives way to whom.

    Colours are those of a wheel around the middle, by the direction in which the goal lies.
    speed: the largest.  dt: time step.
    """
    x, goal = state.position[0].numpy(), state.goal[0].numpy()
    frame, radius = state.goal_velocity[0].numpy(), state.radius[0].numpy()
    side = goal - middle
    hue = np.arctan2(side[:, 1], side[:, 0]) / (2 * math.pi) % 1.0
    half = 0.5 * float(state.scale[0, 0]) + 3 * float(radius.max())
    core = np.where(state.arrival_time[0].numpy() >= 0, 1, 0)
    return Scene(
        view=(middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half),
        discs=x,
        disc_radius=radius,
        disc_value=hue,
        palette="wheel",
        disc_core=np.where(state.hit[0].numpy() > 0, -1, core),
        rings=goal,
        ring_radius=radius,
        ring_value=hue,
        links=yields(
            state.velocity[0].numpy() - frame,
            straight_on(goal - x, speed, dt),
            pairs.neighbour[0].numpy(),
            pairs.r[0].numpy(),
            pairs.contact[0].numpy(),
            pairs.present[0].numpy(),
            look_ahead(goal - x, radius, speed),
            speed,
        ),
        legend=_LEGEND,
    )
