"""Pictures of traffic."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..core.physics.plane import rotate_quarter
from ..core.scene import LegendEntry, Scene
from .traffic_kinds import Kind, Kinds
from .traffic_state import State
from .yielding import look_ahead, straight_on, yields

_TREE = 0.35  # colour, as discs have them
_SIGN_RADIUS = 0.12


def picture(
    state: State, kinds: Kinds, present: tuple[Kind, ...], sign: Kind, length: float, dt: float
) -> Scene:
    """The first world: agents in colours and forms of their kinds, houses, trees, signs, goals.

    Forms with corners point where they go, and links tell who gives way to whom.
    present: kinds that there are.  length: of an arm of the road.  dt: time step.
    """
    here = (state.arrival_time[0] < 0).numpy()
    code = state.kind[0].numpy() - 1
    x, goal = state.position[0].numpy()[here], state.goal[0].numpy()[here]
    radius = np.array([kind.radius for kind in kinds.kinds])[code][here]
    speed = np.array([kind.speed for kind in kinds.kinds])[code][here]
    value = np.array([kind.value for kind in kinds.kinds])[code][here]
    corners = np.array([kind.corners for kind in kinds.kinds])[code][here]
    velocity = state.velocity[0].numpy()[here] - state.road_velocity[0].numpy()
    start, end = (state.building[0, :, m] for m in range(2))
    thick = state.thickness[0].numpy()
    trees = ((start - end) ** 2).sum(-1).numpy() == 0
    signs = state.sign[0].numpy()
    discs = np.concatenate([x, start.numpy()[trees], signs])
    sizes = np.concatenate([radius, thick[trees], np.full(len(signs), _SIGN_RADIUS)])
    values = np.concatenate([value, np.full(trees.sum(), _TREE), np.full(len(signs), sign.value)])
    still = len(discs) - len(x)
    agents = np.concatenate([np.flatnonzero(here), np.full(still, -1)])
    forms = np.concatenate([corners, np.zeros(trees.sum()), np.full(len(signs), sign.corners)])
    turn = np.concatenate([_front(velocity, goal - x, corners), np.full(still, math.pi / 8)])
    largest = float(sizes.max())
    middle = state.sign[0].mean(0).numpy()
    half = length + 1.5
    return Scene(
        view=(middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half),
        discs=discs,
        disc_radius=sizes,
        disc_value=values,
        disc_corners=forms,
        disc_turn=turn,
        agents=agents,
        links=_giving_way(x, goal, velocity, radius, speed, dt),
        arrows=np.concatenate([x, state.velocity[0].numpy()[here] * 0.5], -1),
        segments=np.concatenate([_outlines(start, end, state.thickness[0]), _dashes(x, goal)]),
        legend=(
            *(
                LegendEntry(
                    kind.name, "disc", kind.value, kind.radius / largest, corners=kind.corners
                )
                for kind in present
            ),
            LegendEntry("tree", "disc", _TREE, float(thick[trees].max(initial=0)) / largest),
            LegendEntry(
                f"sign: limit {sign.limit:g}",
                "disc",
                sign.value,
                _SIGN_RADIUS / largest,
                corners=sign.corners,
            ),
            LegendEntry("velocity", "arrow"),
            LegendEntry("thick end gives way to thin end", "link"),
            LegendEntry("house; way to a goal", "segment"),
        ),
    )


def _front(velocity: np.ndarray, way: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Directions of a corner [n], so that a side is in front; those at rest look to their goals."""
    moves = np.hypot(*velocity.T) > 1e-3
    ahead = np.where(moves[:, None], velocity, way)
    return np.arctan2(ahead[:, 1], ahead[:, 0]) + math.pi / np.maximum(corners, 1)


def _giving_way(
    x: np.ndarray,
    goal: np.ndarray,
    velocity: np.ndarray,
    radius: np.ndarray,
    speed: np.ndarray,
    dt: float,
) -> np.ndarray:
    """Pairs [m, 2] of who gives way to whom, of agents at x [n, 2] with velocities on the road."""
    n = len(x)
    others = np.arange(n)[None].repeat(n, 0)[~np.eye(n, dtype=bool)].reshape(n, n - 1 if n else 0)
    way = goal - x
    return yields(
        velocity,
        straight_on(way, speed[:, None], dt),
        others,
        x[others] - x[:, None],
        radius[others] + radius[:, None],
        np.ones(others.shape, bool),
        look_ahead(way, radius, speed),
        speed,
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
