"""A Scene painted: as an image, and in a window.

The shapes are painted by `raster.py` straight into the array that is returned, because
reading a pygame surface back alone takes longer than that. pygame writes the text and owns the
window; no display is needed for images.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from .. import renamed
from ..scene import Chart, LegendEntry, Scene
from . import flat, legend, plots, pygame, text
from . import raster as kernel
from . import spheres as solid
from .colours import ARROW, BACKGROUND, CELL_PALETTE, PANEL, SEGMENT, TEXT, disc_colours
from .lens import CLOSE, Lens, agent_under
from .panel import MARGIN, panel_height, write_panel
from .window import Window, surface_of

RING = (255, 255, 255, 1.0)
RING_ON_CELLS = (255, 40, 110, 1.0)  # unlike every colour of cells
SHADE = (*BACKGROUND, 1.0)  # around rings

_ARROW_WIDTH = (2.4, 1.0)  # pixels, as all that follow
_SEGMENT_WIDTH = (2.0, 2.0)
_RING_WIDTH = 2.0
_RING_RIM = 1.6  # on both sides of a ring
_RING_GAP = 3.0
_LEAST_RING = 7.0  # inner radius
_LARGE_CELL = 40.0  # inside which a ring fits
_STICK = (150.0, 166.0, 182.0)  # colour of a bond
_THIN_STICK = 0.22  # of a ball's radius
_EYE = 3.5  # distance of the eye from the centre, in half views
_FOG = 0.55  # at the farthest
_STRIP = 0.3  # of the height, for plots
_LEAST_STRIP = 56
_MOST_CAPTION, _MOST_LEGEND = 0.45, 0.25  # of the height: without them where they would take more
_LARGEST_KEY = 17
_TURN = 0.01  # radians per pixel of a drag
_TILT = (0.5, 0.35)  # turn to begin with, radians about the upright and the level axis

_OPEN = np.zeros(2)


class Layout(NamedTuple):
    """Rows of pixels at which the parts of a picture begin: captions lie above the scene.

    caption, caption_size: rows of text and their size.  legend, legend_size: the same.
    scene, strip, key, end: where the scene, plots and the legend begin, and where that ends.
    """

    caption: tuple[str, ...]
    caption_size: int
    legend: tuple[legend.Row, ...]
    legend_size: int
    scene: int
    strip: int
    key: int
    end: int


class Painter:
    """Paints scenes, one after the other.

    size: (width, height) of the picture in pixels.  human: also show it in a window.
    panel: width of a strip for text at its right.  trail: how many earlier places of every disc are
    drawn as its fading trail; without one nothing of earlier scenes is kept: no rows of cells and
    no charts.  legend: whether a scene's legend is drawn below it.  time: what charts count.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] = (640, 640),
        human: bool = False,
        title: str = "InvariantZoo",
        panel: int = 0,
        trail: int = 0,
        fps: int = 20,
        legend: bool = False,
        time: str = "step",
    ) -> None:
        self.legend, self._time = legend, time
        self._past: deque[np.ndarray] = deque(maxlen=trail + 1)
        self._rows: list[np.ndarray] = []
        self._row_step: int | None = None
        self._history = plots.History()
        self._followed: int | None = None
        self._followed_history = plots.History()
        self._caption_size = text.LARGEST  # of this episode: text that shrank does not grow again
        self._human, self._title, self._fps = human, title, fps
        self._yaw, self._pitch = _TILT
        self._lens = Lens((0.0, 0.0, 1.0, 1.0), size)
        self._ball = np.zeros((0, 4))  # x, y, depth and radius in pixels of the balls drawn last
        self._window: Window | None = None
        self.resize(size, panel)

    def resize(self, size: tuple[int, int], panel: int = 0) -> None:
        """Paint pictures of another size from now on."""
        if min(size) < 1:
            raise ValueError(f"size={size!r} must be (width, height) of at least 1 pixel")
        self.size, self.panel = size, panel
        self._blank = np.empty((size[1], size[0] + panel, 3), np.uint8)
        self._blank[:, : size[0]] = BACKGROUND
        self._blank[:, size[0] :] = PANEL
        self._caption_size = text.LARGEST

    def draw(
        self,
        scene: Scene,
        *,
        follow: int | None = None,
        lines: Sequence[str | LegendEntry] = (),
        step: int | None = None,
        metrics: Mapping[str, float] = MappingProxyType({}),
        charts: Sequence[Chart] = (),
    ) -> np.ndarray:
        """A fresh picture [height, width + panel, 3] uint8.

        follow: the agent that gets a ring.  lines: for the panel: text, of which what stands after
        a tab is brighter, in a second column, and entries of a legend.
        step, metrics: of the episode, for charts; without a step there are none.
        charts: of the agent that is followed, for the panel, where its text leaves room for them;
        they begin anew with another agent.
        """
        image = self._blank.copy()
        layout = self.layout(scene, charts=step is not None)
        lens = self._look(scene, layout)
        if scene.cells is not None:
            kernel.cells(image, self._cells(scene, step), CELL_PALETTE, lens.clip)
        if scene.segments is not None:
            ends = scene.segments[:, 2:] - scene.segments[:, :2]
            _strokes(image, lens, _OPEN, scene.segments[:, :2], ends, _SEGMENT_WIDTH, SEGMENT)
        period = lens.extent if scene.periodic else _OPEN
        if scene.rings is not None and len(scene.rings):
            flat.paint_rings(image, lens, period, scene)
        if scene.discs is not None and len(scene.discs):
            self._discs(image, lens, period, scene)
        if scene.balls is not None:
            self._solid(image, lens, scene)
        if scene.arrows is not None:
            start, displacement = scene.arrows[:, :2], scene.arrows[:, 2:]
            _strokes(image, lens, period, start, displacement, _ARROW_WIDTH, ARROW)
        if follow is not None:
            self._ring(image, lens, period, scene, follow)
        if step is not None:
            self._remember(scene, step, metrics)
            self._remember_followed(follow, charts, step)
        if layout.caption or layout.strip < layout.end or lines:
            self._write(image, scene, layout, lines, step)
            self._panel(image, lines, charts if step is not None else ())
        if self._human:
            self._show(image)
        return image

    def layout(self, scene: Scene, *, charts: bool = False) -> Layout:
        """Where the parts of a picture of this scene lie."""
        width, height = self.size
        rows, size = self._fit_caption(scene.caption)
        top = len(rows) * text.line_height(size) + size // 2 if rows else 0
        if top > _MOST_CAPTION * height:
            rows, top = (), 0
        key_size = _key_size(width)
        shown: list[legend.Row] = []
        if self.legend and scene.legend:
            shown = legend.flow(scene.legend, width - MARGIN, key_size)
        below = len(shown) * text.line_height(key_size) + key_size // 2 if shown else 0
        if below > _MOST_LEGEND * height:
            shown, below = [], 0
        drawn = scene.plot is not None or (charts and bool(scene.charts) and self._keeps)
        strip = round(_STRIP * height) if drawn else 0
        strip = strip if strip >= _LEAST_STRIP else 0
        key = height - below
        return Layout(rows, size, tuple(shown), key_size, top, key - strip, key, height)

    def key(self, scene: Scene) -> np.ndarray | None:
        """The legend of a scene alone [height, width, 3], or None where it has none."""
        size = _key_size(self.size[0])
        rows = legend.flow(scene.legend, self.size[0] - MARGIN, size)
        if not rows:
            return None
        high = len(rows) * text.line_height(size) + size // 2
        image = np.empty((high, self.size[0], 3), np.uint8)
        image[:] = BACKGROUND
        self._write_legend(image, tuple(rows), size, 0)
        return image

    def notice(self, said: str, picture: np.ndarray | None = None) -> np.ndarray:
        """A picture with one text in the middle, over another one or over none."""
        image = self._blank.copy() if picture is None else picture.copy()
        height, width, _ = image.shape
        size = text.largest_fit([said], width - 2 * MARGIN)
        rows = text.wrapped(said, width - 2 * MARGIN, size)
        line = text.line_height(size)
        top = (height - len(rows) * line) // 2
        image[max(top - line // 2, 0) : top + len(rows) * line + line // 2] = PANEL
        surface = surface_of(image)
        for k, row in enumerate(rows):
            corner = ((width - text.width(row, size)) // 2, top + k * line)
            text.write(surface, row, corner, size, TEXT)
        return image

    def height_for(self, scene: Scene, room: int) -> int:
        """How high a picture must be in which the scene itself takes `room` rows of pixels."""
        width, _ = self.size
        trial = Painter(size=(width, 4 * width), trail=1, legend=self.legend)
        layout = trial.layout(scene, charts=self._keeps)
        other = layout.scene + layout.end - layout.key
        strip = _STRIP if layout.strip < layout.key else 0.0
        return math.ceil((room + other) / (1 - strip))

    @property
    def _keeps(self) -> bool:
        """Whether anything of earlier scenes is drawn."""
        return self._past.maxlen != 1

    def _fit_caption(self, caption: Sequence[str]) -> tuple[tuple[str, ...], int]:
        """Rows of text that fit into the width, and their size."""
        if not caption:
            return (), text.LARGEST
        room = self.size[0] - MARGIN
        start = min(max(self.size[0] // 14, text.SMALLEST), self._caption_size)
        size = text.largest_fit(caption, room, largest=start)
        if self._keeps:
            self._caption_size = size
        rows = [row for line in caption for row in text.wrapped(line, room, size)]
        return tuple(rows), size

    def _look(self, scene: Scene, layout: Layout) -> Lens:
        room = (self.size[0], max(layout.strip - layout.scene, 1))
        if (scene.view, room, layout.scene) != (self._lens.view, self._lens.size, self._lens.top):
            self._lens = Lens(scene.view, room, layout.scene)
        return self._lens

    def _remember(self, scene: Scene, step: int, metrics: Mapping[str, float]) -> None:
        """Keep what the charts of a scene draw."""
        if not self._keeps:
            return
        values: dict[str, float] = {}
        for chart in scene.charts:
            values |= chart.series
            values |= {name: float(metrics.get(name, math.nan)) for name in chart.metrics}
        self._history.add(step, values)

    def _remember_followed(self, follow: int | None, charts: Sequence[Chart], step: int) -> None:
        """Keep what the charts in the panel draw, of one agent."""
        if follow != self._followed:
            self._followed_history.forget()
            self._followed = follow
        if charts:
            series = {name: value for chart in charts for name, value in chart.series.items()}
            self._followed_history.add(step, series)

    def turn(self, yaw: float, pitch: float) -> None:
        """Turn what is drawn with depth, radians about the upright and the level axis."""
        self._yaw += yaw
        self._pitch = min(max(self._pitch + pitch, -0.5 * math.pi), 0.5 * math.pi)

    def drag(self, event: pygame.event.Event) -> None:
        """Turn by what the mouse has moved with its left button down; other events do nothing."""
        if event.type == pygame.MOUSEMOTION and event.buttons[0]:
            across, down = event.rel
            self.turn(_TURN * across, _TURN * down)

    def forget(self) -> None:
        """Drop the trails, earlier rows and charts: what is drawn next is another episode."""
        self._past.clear()
        self._rows.clear()
        self._history.forget()
        self._followed_history.forget()
        self._caption_size = text.LARGEST

    def agent_at(self, scene: Scene, pixel: tuple[int, int]) -> int | None:
        """The agent at a pixel of a picture of this scene, drawn with charts, or None."""
        if scene.balls is not None:
            return self._ball_at(pixel) if len(self._ball) == len(scene.balls) else None
        return agent_under(scene, self._look(scene, self.layout(scene, charts=True)), pixel)

    def _ball_at(self, pixel: tuple[int, int]) -> int | None:
        """The nearest to the viewer of the balls at a pixel, else the closest within a few."""
        gap = np.hypot(*(self._ball[:, :2] - (pixel[0] + 0.5, pixel[1] + 0.5)).T)
        gap -= self._ball[:, 3]
        hit = np.flatnonzero(gap <= 0)
        if len(hit):
            return int(hit[self._ball[hit, 2].argmax()])
        nearest = int(gap.argmin())
        return nearest if gap[nearest] <= CLOSE else None

    def _cells(self, scene: Scene, step: int | None) -> np.ndarray:
        """The cells of a scene below those that it keeps of earlier ones.

        Another step has a row of its own; without a step, other cells have.
        """
        cells = scene.cells
        assert cells is not None
        if not scene.kept_rows or not self._keeps:
            return cells
        if self._rows and self._rows[-1].shape != cells[-1].shape:
            self._rows.clear()
        same = np.array_equal(self._rows[-1], cells[-1]) if self._rows else False
        if not same or step != self._row_step:
            self._row_step = step
            self._rows = [*self._rows, *np.array(cells)][-scene.kept_rows :]
        empty = np.zeros((scene.kept_rows - len(self._rows), cells.shape[1]))
        return np.concatenate([empty, *(row[None] for row in self._rows)])

    def close(self) -> None:
        """Close the window, if there is one; `draw` goes on without."""
        self._human = False
        if self._window is not None:
            self._window.close()

    def _discs(self, image: np.ndarray, lens: Lens, period: np.ndarray, scene: Scene) -> None:
        discs = flat.flat_discs(scene)
        if self._keeps:
            flat.paint_trails(image, lens, scene, discs, self._past)
        flat.paint_discs(image, lens, period, scene, discs)

    def _turned(
        self, lens: Lens, scene: Scene, position: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places [n, 3] in space as pixels and depth [n, 3], and how much nearer they look [n]."""
        c, s, cp, sp = (f(a) for a in (self._yaw, self._pitch) for f in (math.cos, math.sin))
        turned = np.array([[c, 0, s], [sp * s, cp, -sp * c], [-cp * s, sp, cp * c]])
        left, bottom, right, top = scene.view
        half = 0.5 * (right - left)
        position = position @ turned.T / half
        near = _EYE / (_EYE - position[:, 2].clip(max=0.8 * _EYE))
        seen = np.empty((len(position), 3))
        middle = 0.5 * np.array([left + right, bottom + top])
        seen[:, :2] = lens.pixels(middle + half * position[:, :2] * near[:, None])
        seen[:, 2] = lens.scale * half * position[:, 2]
        return seen, near

    def _solid(self, image: np.ndarray, lens: Lens, scene: Scene) -> None:
        """Balls and bonds in perspective, nearer ones in front and farther ones in fog."""
        assert scene.balls is not None
        n = len(scene.balls)
        value = np.zeros(n) if scene.disc_value is None else scene.disc_value
        radius = np.full(n, 1.0) if scene.disc_radius is None else scene.disc_radius
        seen, near = self._turned(lens, scene, scene.balls)
        ball = np.empty((n, 4))
        ball[:, :3] = seen
        ball[:, 3] = np.maximum(lens.scale * radius * near, 1.0)
        fog = np.empty((n, 4))
        fog[:, :3] = BACKGROUND
        half = 0.5 * (scene.view[2] - scene.view[0])
        fog[:, 3] = _FOG * (0.5 - 0.5 * seen[:, 2] / (lens.scale * half)).clip(0, 1)
        depth = np.full(image.shape[:2], -np.inf)
        colour = disc_colours(scene.palette, value)[:, :3]
        if scene.bonds is not None and len(scene.bonds):
            a, b = scene.bonds.T
            thick = _THIN_STICK * 0.5 * (ball[a, 3] + ball[b, 3])
            haze = 0.5 * (fog[a] + fog[b])
            ends = ball[a, :3], ball[b, :3]
            solid.sticks(image, depth, *ends, thick, np.array(_STICK), haze, lens.clip)
        solid.balls(image, depth, ball, colour, fog, lens.clip)
        if scene.ball_arrows is not None:
            tip = self._turned(lens, scene, scene.balls + scene.ball_arrows)[0]
            line = np.column_stack([ball[:, :2], tip[:, :2] - ball[:, :2]])
            wide, shade = np.full((n, 2), _ARROW_WIDTH), np.full((n, 4), ARROW)
            kernel.lines(image, line, wide, shade, lens.clip, _OPEN, BACKGROUND, False)
        if scene.marks:
            self._marks(image, lens, scene.marks, ball, depth)
        self._ball = ball

    def _marks(
        self,
        image: np.ndarray,
        lens: Lens,
        marks: Sequence[str],
        ball: np.ndarray,
        depth: np.ndarray,
    ) -> None:
        """Letters on the balls that are large enough and whose middle nothing hides."""
        surface = surface_of(image)
        left, top, right, bottom = lens.clip
        for mark, (x, y, z, radius) in zip(marks, ball, strict=True):
            size = min(int(1.5 * radius), 2 * text.LARGEST)
            wide, high = text.font(size).size(mark) if size >= text.SMALLEST else (0, 0)
            inside = left <= x - radius and x + radius < right
            inside = inside and top <= y - radius and y + radius < bottom
            if not wide or not inside or depth[int(y), int(x)] > z + radius + 1:
                continue
            corner = round(x - 0.5 * wide), round(y - 0.5 * high)
            text.write(surface, mark, corner, size, BACKGROUND)

    def _ring(
        self, image: np.ndarray, lens: Lens, period: np.ndarray, scene: Scene, agent: int
    ) -> None:
        """Mark an agent's disc or ball, or its cell where a lattice is all there is."""
        colour = RING
        if scene.discs is not None:
            index = np.arange(len(scene.discs)) if scene.agents is None else scene.agents
            own = np.flatnonzero(index == agent)
            centre = lens.pixels(scene.discs[own])
            size = lens.scale * flat.flat_discs(scene).radius[own]
            if scene.rings is not None and len(scene.rings) == len(index):  # where it goes to
                goal = lens.pixels(scene.rings[own])
                way = np.column_stack([centre, goal - centre])
                widths, shades = np.ones((len(own), 2)), np.full((len(own), 4), SEGMENT)
                kernel.lines(image, way, widths, shades, lens.clip, period, BACKGROUND, False)
                centre, size = np.concatenate([centre, goal]), np.tile(size, 2)
        elif scene.balls is not None:
            own = np.flatnonzero(np.arange(len(scene.balls)) == agent)
            centre, size = self._ball[own, :2], self._ball[own, 3]
        elif scene.cells is not None and not scene.kept_rows and agent < scene.cells.size:
            rows, columns = scene.cells.shape
            row, column = divmod(agent, columns)
            left, top, right, bottom = lens.clip
            width, height = (right - left) / columns, (bottom - top) / rows
            centre = np.array([[left + (column + 0.5) * width, top + (row + 0.5) * height]])
            if min(width, height) > _LARGE_CELL:  # inside a cell that has room for it
                size = np.array([0.36 * min(width, height) - _RING_GAP])
            else:
                size = np.array([0.5 * math.hypot(width, height)])
            colour = RING_ON_CELLS
        else:
            return
        inner = np.maximum(size + _RING_GAP, _LEAST_RING)
        for wider, shade in ((_RING_RIM, SHADE), (0.0, colour)):
            ring = np.column_stack([centre, inner + _RING_WIDTH + wider, inner - wider])
            kernel.discs(image, ring, np.full((len(ring), 4), shade), lens.clip, period)

    def _write(
        self,
        image: np.ndarray,
        scene: Scene,
        layout: Layout,
        lines: Sequence[str | LegendEntry],
        step: int | None,
    ) -> None:
        """Everything with text: the caption above, plots and the legend below, the panel."""
        surface = surface_of(image)
        line = text.line_height(layout.caption_size)
        for k, row in enumerate(layout.caption):
            corner = (MARGIN // 2, layout.caption_size // 4 + k * line)
            text.write(surface, row, corner, layout.caption_size, TEXT)
        if layout.strip < layout.key:
            self._plots(image, surface, scene, layout, step)
        self._write_legend(image, layout.legend, layout.legend_size, layout.key)

    def _panel(
        self, image: np.ndarray, lines: Sequence[str | LegendEntry], charts: Sequence[Chart]
    ) -> None:
        """Text, and charts two by two below it, if they leave it its room."""
        if not lines or not self.panel:
            return
        (width, height), surface = self.size, surface_of(image)
        rows = -(-len(charts) // 2)
        tall = min(round(0.5 * _STRIP * height), (height - panel_height(lines)) // max(rows, 1))
        top = height - rows * tall
        if not charts or tall < _LEAST_STRIP:
            write_panel(image, surface, lines, start=width)
            return
        write_panel(image[:top], surface, lines, start=width)
        wide = (self.panel - MARGIN) // 2
        for k, chart in enumerate(charts):
            left, high = width + MARGIN // 2 + k % 2 * wide, top + k // 2 * tall
            box = (left, high + 2, left + wide, high + tall - 2)
            plots.draw_chart(image, surface, box, chart, self._followed_history, self._time)

    def _write_legend(
        self, image: np.ndarray, rows: Sequence[legend.Row], size: int, top: int
    ) -> None:
        surface = surface_of(image)
        for k, row in enumerate(rows):
            down = top + size // 4 + k * text.line_height(size)
            for entry, left in zip(row.entries, row.left, strict=True):
                corner = (MARGIN // 2 + left, down)
                legend.draw_entry(image, surface, entry, corner, size, self.size[0] - corner[0])

    def _plots(
        self,
        image: np.ndarray,
        surface: pygame.Surface,
        scene: Scene,
        layout: Layout,
        step: int | None,
    ) -> None:
        """The plot and the charts of a scene, side by side."""
        charts = scene.charts if step is not None and self._keeps else ()
        drawn = ([] if scene.plot is None else [scene.plot]) + list(charts)
        wide = (self.size[0] - 2) // len(drawn)
        top, bottom = layout.strip + 4, layout.key - 2
        for k, plot in enumerate(drawn):
            box = (2 + k * wide, top, (k + 1) * wide, bottom)
            if isinstance(plot, Chart):
                plots.draw_chart(image, surface, box, plot, self._history, self._time)
            else:
                plots.draw_plot(image, surface, box, plot)

    def _show(self, image: np.ndarray) -> None:
        if self._window is None:
            height, width, _ = image.shape
            self._window = Window((width, height), title=self._title, fps=self._fps)
        try:
            self._window.show(image)
        except OSError:  # somebody shut pygame down, and now there is no display
            self.close()
        for event in self._window.events():
            self.drag(event)
            if event.type == pygame.QUIT:
                self.close()
                return
        if self._window.size != self.size:
            self.resize(self._window.size)


def _strokes(
    image: np.ndarray,
    lens: Lens,
    period: np.ndarray,
    start: np.ndarray,
    displacement: np.ndarray,
    width: tuple[float, float],
    colour: tuple[float, float, float, float],
) -> None:
    n = len(start)
    line = np.empty((n, 4))
    line[:, :2] = lens.pixels(start)
    line[:, 2:] = displacement * (lens.scale, -lens.scale)
    widths, colours = np.full((n, 2), width), np.full((n, 4), colour)
    kernel.lines(image, line, widths, colours, lens.clip, period, BACKGROUND, False)


def _key_size(wide: int) -> int:
    """Size of a legend's text in a picture so wide."""
    return min(max(wide // 20, text.SMALLEST), _LARGEST_KEY)


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
