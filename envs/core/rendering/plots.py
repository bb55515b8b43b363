"""Small plots with axes below a scene: functions (`Plot`), and numbers over time (`Chart`)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..scene import Chart, Plot
from . import pygame, text
from . import raster as kernel
from .colours import DISC_PALETTE, FAINT_TEXT, FILL, LEVEL, LINE, PANEL, SERIES

Box = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels

_GAP = 6  # pixels, as all that follow
_LINE_WIDTH = 1.8
_DASH = 5
_LEAST_TITLE = 11
_MOST = 4096  # values of a series that are kept
_SHORTEST = 20  # steps that an axis spans at least
_OPEN = np.zeros(2)


class History:
    """What was drawn at earlier steps of an episode: values by name."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: dict[str, list[float]] = {}

    def forget(self) -> None:
        """Begin another episode."""
        self.steps.clear()
        self.values.clear()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values of a step; those of a step that was kept before are renewed."""
        if self.steps and (step < self.steps[-1] or values.keys() != self.values.keys()):
            self.forget()
        if self.steps and step == self.steps[-1]:
            for name, value in values.items():
                self.values[name][-1] = value
            return
        self.steps.append(step)
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)
        if len(self.steps) > _MOST:  # half as many, twice as far apart
            self.steps = self.steps[::2]
            self.values = {name: series[::2] for name, series in self.values.items()}


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most so many round numbers between two, the same distance apart."""
    if not high > low or most < 1:
        return []
    step = 10.0 ** math.floor(math.log10(high - low) - 1)
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50, 100, 200, 250, 500):
        width = factor * step
        first, last = math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9)
        if last - first + 1 <= most:
            return [k * width + 0.0 for k in range(first, last + 1)]
    return []


def draw_plot(image: np.ndarray, surface: pygame.Surface, box: Box, plot: Plot) -> None:
    """Fields side by side: filled functions, and lines over them."""
    size = _text_size(box)
    fields = len(plot.y)
    margin = _number_width((0.0, plot.top), box, size)
    wide = (box[2] - box[0] - margin - _GAP) // fields
    for k, (y, usual) in enumerate(zip(plot.y, plot.usual, strict=True)):
        left = box[0] + margin + k * wide
        title = [(plot.labels[k], FAINT_TEXT)]
        around = (left, box[1], left + wide - _GAP, box[3])
        area = _axes(
            image, surface, around, size, title, (float(plot.x[0]), float(plot.x[-1])), plot.axis
        )
        if area is None:
            return
        _fill(image, area, plot, y, usual)
        if k == 0:
            _numbers(surface, area, box[0], size, (0.0, plot.top))


def draw_chart(
    image: np.ndarray,
    surface: pygame.Surface,
    box: Box,
    chart: Chart,
    history: History,
    time: str,
) -> None:
    """Series over `time`, the steps of an episode, with levels that stay."""
    names = [name for name in (*chart.series, *chart.metrics) if name in history.values]
    if not history.steps:
        return
    size = _text_size(box)
    colours = _series_colours(chart, len(names))
    last = chart.length or max(history.steps[-1], chart.latest or _SHORTEST)
    first = last - chart.latest if chart.latest else 0
    begin = bisect.bisect_left(history.steps, first)
    series = {name: np.array(history.values[name][begin:]) for name in names}
    limits = _limits(chart, series)
    title = [
        (f"{name} {_said(series[name][-1], limits)}", colour)
        for name, colour in zip(names, colours, strict=True)
    ]
    title += [(f"- - {name} {_said(value, limits)}", LEVEL) for name, value in chart.levels.items()]
    margin = _number_width(limits, box, size)
    around = (box[0] + margin, box[1], box[2] - _GAP, box[3])
    area = _axes(image, surface, around, size, title, (float(first), float(last)), time)
    if area is None:
        return
    _numbers(surface, area, box[0], size, limits)
    left, _, right, _ = area
    for value in chart.levels.values():
        row = _row(area, limits, np.array([value]))[0]
        for x in range(left, right, 2 * _DASH):
            _stroke(image, area, np.array([x, x + _DASH]), np.array([row, row]), LEVEL, 1.0)
    steps = np.array(history.steps[begin:])
    chosen = _thinned(len(steps), right - left)
    column = left + (steps[chosen] - first) / (last - first) * (right - left - 1)
    for name, colour in zip(names, colours, strict=True):
        value = series[name][chosen]
        there = np.isfinite(value)
        row = _row(area, limits, value[there])
        _stroke(image, area, column[there], row, colour, _LINE_WIDTH)


def _axes(
    image: np.ndarray,
    surface: pygame.Surface,
    around: Box,
    size: int,
    title: Sequence[tuple[str, tuple[int, int, int]]],
    across: tuple[float, float],
    axis: str,
) -> Box | None:
    """Paint the ground, the title above and the numbers below; where curves may be drawn.

    None if that would be nothing.
    """
    left, top, right, bottom = around
    line = text.font(size).get_linesize()
    words = [word for label, _ in title for word in label.split()]
    small = text.largest_fit(words, right - left, largest=size, smallest=_LEAST_TITLE)
    rows = _title_rows(title, right - left, small)
    area = (left, top + line * len(rows) + 2, right, bottom - line - 2)
    if area[2] - area[0] < 8 or area[3] - area[1] < 8:
        return None
    for k, row in enumerate(rows):
        at = left
        for label, colour in row:
            at += text.write(surface, label, (at, top + k * line), small, colour) + small // 2
    image[area[1] : area[3], area[0] : area[2]] = PANEL
    below = area[3] + 2
    end = right - text.width(axis, size)
    if end - left < 2 * size:
        end = right
    elif axis:
        text.write(surface, axis, (end, below), size, FAINT_TEXT)
    most = max((end - left) // (3 * size), 1)
    for value in ticks(*across, most):
        number = f"{value:g}"
        wide = text.width(number, size)
        column = left + (value - across[0]) / (across[1] - across[0]) * (right - left - 1)
        at = round(min(max(column - 0.5 * wide, left), right - wide))
        if at + wide <= end - 2:
            text.write(surface, number, (at, below), size, FAINT_TEXT)
    return area


def _title_rows(
    title: Sequence[tuple[str, tuple[int, int, int]]], room: int, size: int
) -> list[list[tuple[str, tuple[int, int, int]]]]:
    """Coloured texts in rows that fit."""
    rows: list[list[tuple[str, tuple[int, int, int]]]] = []
    at = room
    for words, colour in title:
        for line in text.wrapped(words, room, size):
            wide = text.width(line, size)
            if not rows or at + wide > room:
                rows.append([])
                at = 0
            rows[-1].append((line, colour))
            at += wide + size // 2
    return rows


def _numbers(
    surface: pygame.Surface, area: Box, left: int, size: int, limits: tuple[float, float]
) -> None:
    """Numbers of the vertical axis, left of the area."""
    line = text.font(size).get_linesize()
    for value in _levels(area[3] - area[1], limits, size):
        number = f"{value:g}"
        row = _row(area, limits, np.array([value]))[0]
        at = round(min(max(row - 0.5 * line, area[1]), area[3] - line))
        start = area[0] - 3 - text.width(number, size)
        text.write(surface, number, (max(start, left), at), size, FAINT_TEXT)


def _levels(tall: int, limits: tuple[float, float], size: int) -> list[float]:
    return ticks(*limits, max(min(tall // (2 * size), 5), 2))


def _number_width(limits: tuple[float, float], box: Box, size: int) -> int:
    """Pixels that the numbers of the vertical axis take."""
    levels = _levels(box[3] - box[1], limits, size)
    return max((text.width(f"{value:g}", size) for value in levels), default=0) + 6


def _text_size(box: Box) -> int:
    return min(max((box[3] - box[1]) // 7, text.SMALLEST), 16)


def _series_colours(chart: Chart, n: int) -> list[tuple[int, int, int]]:
    if chart.colours:
        shades = DISC_PALETTE[[int(255 * value) for value in chart.colours]].tolist()
        return [(shade[0], shade[1], shade[2]) for shade in shades]
    return [SERIES[k % len(SERIES)] for k in range(n)]


def _thinned(n: int, most: int) -> np.ndarray:
    """Indices of at most `most` of n values, the last among them."""
    if n <= most:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, most).round().astype(int))


def _row(area: Box, limits: tuple[float, float], value: np.ndarray) -> np.ndarray:
    """Rows of pixels at which values are drawn."""
    share = ((value - limits[0]) / (limits[1] - limits[0])).clip(0, 1)
    return area[3] - 1.0 - share * (area[3] - area[1] - 2)


def _stroke(
    image: np.ndarray,
    area: Box,
    column: np.ndarray,
    row: np.ndarray,
    colour: tuple[int, int, int],
    wide: float,
) -> None:
    """A line through points, in pixels; a dot where there is one alone."""
    n = len(column)
    if n == 0:
        return
    shade = np.array([[*map(float, colour), 1.0]])
    if n > 1:
        line = np.empty((n - 1, 4))
        line[:, 0], line[:, 1] = column[:-1] + 0.5, row[:-1]
        line[:, 2], line[:, 3] = np.diff(column), np.diff(row)
        both = np.full((n - 1, 2), wide)
        kernel.lines(image, line, both, shade.repeat(n - 1, 0), area, _OPEN, PANEL, True)
    if wide > 1:
        end = np.array([[column[-1] + 0.5, row[-1], 2.5, 0.0]])
        kernel.discs(image, end, shade, area, _OPEN)


def _fill(image: np.ndarray, area: Box, plot: Plot, y: np.ndarray, usual: np.ndarray) -> None:
    left, top, right, bottom = area
    ground = image[top:bottom, left:right]
    at = np.linspace(plot.x[0], plot.x[-1], right - left)
    level = np.arange(bottom - top, 0, -1)[:, None] - 0.5  # of rows, from the top
    scale = (bottom - top) / plot.top
    ground[level < scale * np.interp(at, plot.x, y)] = FILL
    line = scale * np.interp(at, plot.x, usual)
    low, high = np.minimum(line, np.roll(line, 1)), np.maximum(line, np.roll(line, 1))
    low[0] = high[0] = line[0]
    ground[(level > low - 1) & (level < high + 1) & (high > 0.5)] = LINE


def _limits(chart: Chart, series: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The ends of a chart's vertical axis."""
    if chart.low != chart.high:
        return chart.low, chart.high
    drawn = [0.0, *chart.levels.values()]
    drawn += [float(value) for values in series.values() for value in values[np.isfinite(values)]]
    low, high = min(drawn), max(drawn)
    return (low, high) if high > low else (0.0, 1.0)


def _said(value: float, limits: tuple[float, float]) -> str:
    """A value to about a hundredth of its axis, so that its text keeps its width."""
    if math.isnan(value):
        return ""
    decimals = 2 - math.floor(math.log10(abs(limits[1] - limits[0])))
    return f"{value + 0.0:.{min(max(decimals, 0), 6)}f}"
