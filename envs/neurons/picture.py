"""The law of the weights of many networks: each is a disc in a plot of its tail."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from ..core.scene import LegendEntry, Scene
from . import exact

_LEFT, _RIGHT, _BOTTOM = -1.0, 3.0, -4.0  # decades of |w| and of the share beyond
_MARGIN, _TICK = 0.25, 0.06
_LEGEND = (
    LegendEntry("network, colour by its loss", "scale"),
    LegendEntry("exact stationary law", "segment"),
)


def tail(
    size: Tensor, loss: Tensor, rate: float, linear: bool, agents: int, caption: tuple[str, ...]
) -> Scene:
    """Networks by |w| (across, tenfold from 0.1 to 1000) and the share of networks beyond (up).

    size, loss [networks].  linear: whether the exact law of linear neurons is drawn.
    agents: of a network; its last one stands behind its disc.
    """
    order = np.argsort(-size.numpy())
    order = order[: max(1, int((size >= 10**_LEFT).sum()))]
    across = np.log10(size.numpy()[order].clip(10**_LEFT, 10**_RIGHT))
    up = np.log10((np.arange(len(order)) + 0.5) / len(size)).clip(_BOTTOM, 0)
    lines = [_axes()]
    if linear:
        w, share = exact.stationary_tail(rate)
        shown = (w >= 10**_LEFT) & (w <= 10**_RIGHT) & (share >= 10**_BOTTOM)
        course = np.log10(np.stack([w[shown], share[shown]], -1))
        lines.append(np.concatenate([course[:-1], course[1:]], -1))
    return Scene(
        view=(_LEFT - _MARGIN, _BOTTOM - _MARGIN, _RIGHT + _MARGIN, _MARGIN),
        discs=np.stack([across, up], -1),
        disc_radius=np.full(len(order), 0.035 if len(order) > 1 else 0.1),
        disc_value=(0.5 + 0.25 * np.log10(loss.numpy()[order].clip(1e-4))).clip(0, 1),
        agents=agents * order + agents - 1,
        segments=np.concatenate(lines),
        caption=caption,
        legend=_LEGEND if linear else _LEGEND[:1],
    )


def _axes() -> np.ndarray:
    """Axes with a tick at every factor of ten [n, 4]."""
    lines = [(_LEFT, _BOTTOM, _RIGHT, _BOTTOM), (_LEFT, _BOTTOM, _LEFT, 0.0)]
    for decade in range(math.ceil(_LEFT), math.floor(_RIGHT) + 1):
        lines.append((decade, _BOTTOM, decade, _BOTTOM + _TICK))
    for decade in range(math.ceil(_BOTTOM), 1):
        lines.append((_LEFT, decade, _LEFT + _TICK, decade))
    return np.array(lines)
