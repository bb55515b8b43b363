"""What a scene holds beside its shapes: a legend of colours, and numbers drawn against time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class LegendEntry(NamedTuple):
    """What a colour or a shape of a scene stands for.

    shape: "disc", "cell", "arrow", "segment", "scale" (the colours of discs from calm to alarmed),
        "fill" or "line" (of a `Plot`), or "none".
    value: its colour, as the scene gives it, in [0, 1].  size: of a disc, 1 for the largest.
    """

    label: str
    shape: str
    value: float = 0.0
    size: float = 1.0


class Chart(NamedTuple):
    """Numbers of a world that are drawn against the steps of its episode.

    series: values now by name.  metrics: names of the episode's metrics that are drawn as well.
    levels: values by name that stay, drawn dashed.
    low, high: of the vertical axis; what lies beyond is drawn at its edge.
    length: steps that the horizontal axis spans; 0: so many as there are.
    colours: of the series, as discs have them, in [0, 1]; empty: the painter's own.
    """

    low: float
    high: float
    series: Mapping[str, float] = MappingProxyType({})
    metrics: tuple[str, ...] = ()
    levels: Mapping[str, float] = MappingProxyType({})
    length: int = 0
    colours: tuple[float, ...] = ()
