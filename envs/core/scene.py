"""What a scene holds beside its shapes: a legend of colours, and numbers drawn against time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class LegendEntry(NamedTuple):
    """What a colour or a shape of a scene stands for.

    shape: "disc", "ring", "cell", "arrow", "link", "segment", "scale" (all colours of discs),
        "fill" or "line" (of a `Plot`), or "none".
    value: its colour, as the scene gives it, in [0, 1].  size: of a disc, 1 for the largest.
    palette, corners, core: of a disc, as the scene has them.
    """

    label: str
    shape: str
    value: float = 0.0
    size: float = 1.0
    palette: str = "alarm"
    corners: int = 0
    core: int = 0


class Chart(NamedTuple):
    """Numbers of a world that are drawn against the steps of its episode.

    series: values now by name.  metrics: names of the episode's metrics that are drawn as well.
    levels: values by name that stay, drawn dashed.
    low, high: of the vertical axis; what lies beyond is drawn at its edge.  Where they are the
        same, the axis spans all that is drawn, and 0.
    length: steps that the horizontal axis spans; 0: so many as there are.
    latest: if not 0, so many steps up to now are drawn, and none before.
    colours: of the series, as discs have them, in [0, 1]; empty: the painter's own.
    """

    low: float
    high: float
    series: Mapping[str, float] = MappingProxyType({})
    metrics: tuple[str, ...] = ()
    levels: Mapping[str, float] = MappingProxyType({})
    length: int = 0
    latest: int = 0
    colours: tuple[float, ...] = ()


class Plot(NamedTuple):
    """Functions drawn below a scene, each in a field of its own.

    x [n].  y [fields, n]: drawn filled.  usual [fields, n]: drawn as a line over it.
    labels: one per field.  top: the largest value that is shown; the least is 0.
    axis: what x is, with its unit.
    """

    x: np.ndarray
    y: np.ndarray
    usual: np.ndarray
    labels: tuple[str, ...]
    top: float
    axis: str = ""


@dataclass(frozen=True)
class Scene:
    """One world as it can be drawn, by `rendering/painter.py`. Lengths are in the system's units.

    view: (left, bottom, right, top).
    discs, disc_radius, disc_value: [n, 2], [n], [n] in [0, 1] (colour: of `palette`).
    palette: "alarm" (from calm blue to alarmed red) or "wheel" (all hues and back to the first).
    disc_corners, disc_turn: [n], [n]. A disc that has corners is drawn as the regular polygon with
        so many inside its rim, so that none overlap on the picture that do not overlap; one corner
        points to `disc_turn`, radians anticlockwise from the right (None: all upwards). Corners
        0: round. Kinds of agents are told apart by them.
    disc_core: [n]. A dot in the middle of a disc: 1 bright, -1 dark, 0 none.
    rings, ring_radius, ring_value: [m, 2], [m], [m] in [0, 1], drawn below the discs with their
        colours. If there are as many as discs, ring i is the place that disc i has to go to, and is
        marked too when that disc is followed.
    links: [m, 2] indices of discs; a thin line over the discs, broad at the first of the two.
    periodic: whether discs that cross the edge of `view` are drawn on both sides.
    arrows: [n, 4] start and displacement.  segments: [n, 4] start and end.
    cells: [rows, columns] in [0, 1], drawn as a lattice over `view`, row 0 at the top.
    kept_rows: if not 0, so many rows of cells are shown where trails are drawn: those of earlier
        scenes above these.
    agents: index of the agent behind each disc, or None if disc i is agent i.
    balls: [n, 3] around the centre of `view`, the third axis towards the viewer; radius and colour
        are those of the discs.  bonds: [m, 2] indices of balls that are joined.
    marks: a letter for each ball, where it is large enough.  ball_arrows: [n, 3] displacements.
    caption: lines of text above.  plot: drawn in a strip below.
    charts: drawn in that strip where earlier scenes are remembered.
    legend: what colours and shapes mean.
    """

    view: tuple[float, float, float, float]
    discs: np.ndarray | None = None
    disc_radius: np.ndarray | None = None
    disc_value: np.ndarray | None = None
    palette: str = "alarm"
    disc_corners: np.ndarray | None = None
    disc_turn: np.ndarray | None = None
    disc_core: np.ndarray | None = None
    rings: np.ndarray | None = None
    ring_radius: np.ndarray | None = None
    ring_value: np.ndarray | None = None
    links: np.ndarray | None = None
    periodic: bool = False
    arrows: np.ndarray | None = None
    segments: np.ndarray | None = None
    cells: np.ndarray | None = None
    kept_rows: int = 0
    agents: np.ndarray | None = None
    balls: np.ndarray | None = None
    bonds: np.ndarray | None = None
    marks: tuple[str, ...] = ()
    ball_arrows: np.ndarray | None = None
    caption: tuple[str, ...] = ()
    plot: Plot | None = None
    charts: tuple[Chart, ...] = ()
    legend: tuple[LegendEntry, ...] = ()
