"""Pictures of discs that have places to go."""

from __future__ import annotations

import numpy as np

from ..core.scene import LegendEntry, Scene
from .goal_geometry import Pairs
from .goal_state import State

_LEGEND = (
    LegendEntry("on its way; red where it nearly touches", "scale"),
    LegendEntry("velocity", "arrow"),
    LegendEntry("to its goal", "segment"),
)


def picture(state: State, pairs: Pairs, margin: float, middle: np.ndarray) -> Scene:
    """Discs, velocities and ways to the goals of the first world around `middle` [2].

    Red within the margin of a neighbour, blue beyond twice that.
    """
    x, goal = state.position[0].numpy(), state.goal[0].numpy()
    distance = pairs.r[0, :, 0].norm(dim=-1)
    near = (distance / (margin * pairs.contact[0, :, 0].clamp(min=1e-9))).numpy()
    closeness = np.where(pairs.present[0, :, 0].numpy(), (2 - near).clip(0, 1), 0.0)
    radius = state.radius[0].numpy()
    half = 0.5 * float(state.scale[0, 0]) + 2 * float(radius.max())
    return Scene(
        view=(middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half),
        discs=x,
        disc_radius=radius,
        disc_value=closeness,
        arrows=np.concatenate([x, state.velocity[0].numpy() * 0.5], -1),
        segments=np.concatenate([x, goal], -1),
        legend=_LEGEND,
    )
