"""Pictures of traffic."""

from __future__ import annotations

import numpy as np
import torch

from ..core.physics.plane import rotate_quarter
from ..core.scene import LegendEntry, Scene
from .traffic_kinds import Kind, Kinds
from .traffic_state import State

_TREE = 0.35  # colour, as discs have them
_SIGN_RADIUS = 0.12


def picture(
    state: State, kinds: Kinds, present: tuple[Kind, ...], sign: Kind, length: float
) -> Scene:
    """The first world: agents in the colours of their kinds, houses, trees, signs, goals.

    present: kinds that there are.  length: of an arm of the road.
    """
    here = (state.arrival_time[0] < 0).numpy()
    code = state.kind[0].numpy() - 1
    x, goal = state.position[0].numpy()[here], state.goal[0].numpy()[here]
    radius = np.array([kind.radius for kind in kinds.kinds])[code][here]
    value = np.array([kind.value for kind in kinds.kinds])[code][here]
    start, end = (state.building[0, :, m] for m in range(2))
    thick = state.thickness[0].numpy()
    trees = ((start - end) ** 2).sum(-1).numpy() == 0
    signs = state.sign[0].numpy()
    discs = np.concatenate([x, start.numpy()[trees], signs])
    sizes = np.concatenate([radius, thick[trees], np.full(len(signs), _SIGN_RADIUS)])
    values = np.concatenate([value, np.full(trees.sum(), _TREE), np.full(len(signs), sign.value)])
    agents = np.concatenate([np.flatnonzero(here), np.full(len(discs) - len(x), -1)])
    largest = float(sizes.max())
    middle = state.sign[0].mean(0).numpy()
    half = length + 1.5
    return Scene(
        view=(middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half),
        discs=discs,
        disc_radius=sizes,
        disc_value=values,
        agents=agents,
        arrows=np.concatenate([x, state.velocity[0].numpy()[here] * 0.5], -1),
        segments=np.concatenate([_outlines(start, end, state.thickness[0]), _dashes(x, goal)]),
        legend=(
            *(
                LegendEntry(kind.name, "disc", kind.value, kind.radius / largest)
                for kind in present
            ),
            LegendEntry("tree", "disc", _TREE, float(thick[trees].max(initial=0)) / largest),
            LegendEntry(f"sign: limit {sign.limit:g}", "disc", sign.value, _SIGN_RADIUS / largest),
            LegendEntry("velocity", "arrow"),
            LegendEntry("house; way to a goal", "segment"),
        ),
    )


def _outlines(start: torch.Tensor, end: torch.Tensor, thickness: torch.Tensor) -> np.ndarray:
    """Both faces and the ends of segments that are not discs [faces, 4]."""
    long = ((start - end) ** 2).sum(-1) > 0
    start, end, thickness = start[long], end[long], thickness[long].unsqueeze(-1)
    along = (end - start) / ((end - start) ** 2).sum(-1, keepdim=True).sqrt()
    side, tip = thickness * rotate_quarter(along), thickness * along
    corners = [start - tip + side, end + tip + side, end + tip - side, start - tip - side]
    faces = [torch.cat([corners[m - 1], corners[m]], -1) for m in range(4)]
    return torch.cat(faces).numpy()


def _dashes(x: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """A short line at the beginning of every way to a goal [agents, 4]."""
    way = goal - x
    far = np.maximum(np.hypot(way[:, 0], way[:, 1])[:, None], 1e-9)
    return np.concatenate([x, x + way * np.minimum(1.0, 1.2 / far)], -1)
