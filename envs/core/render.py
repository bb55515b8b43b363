"""A Scene painted: as an image, and in a window.

The shapes are painted by `kernels/render.py` straight into the array that is returned, because
reading a pygame surface back alone takes longer than that. pygame writes the text and owns the
window; no display is needed for images.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Sequence
from weakref import WeakSet

import numpy as np

from ..kernels import balls as solid
from ..kernels import render as kernel
from .system import Plot, Scene

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
import pygame

BACKGROUND = (14, 19, 28)
PANEL = (20, 27, 38)
TEXT = (222, 229, 236)
FAINT_TEXT = (126, 140, 156)
ARROW = (226, 236, 244, 0.75)
SEGMENT = (150, 166, 182, 0.9)
RING = (255, 255, 255, 1.0)
SHADE = (*BACKGROUND, 0.7)  # behind rings

# Lightness, green-red and blue-yellow of OKLab (B. Ottosson, 2020), between which colours run.
_CALM_TO_ALARMED = (
    (0.70, -0.085, -0.065),
    (0.83, -0.045, 0.05),
    (0.77, 0.06, 0.125),
    (0.63, 0.20, 0.10),
)
_LOW_TO_HIGH = (
    (0.27, -0.01, -0.055),
    (0.48, -0.055, -0.045),
    (0.72, -0.05, 0.03),
    (0.92, 0.01, 0.06),
)

_ARROW_WIDTH = (2.4, 1.0)  # pixels, as all that follow
_SEGMENT_WIDTH = (2.0, 2.0)
_RING_WIDTH = 1.8
_RING_GAP = 3.0
_CLOSE = 8.0  # from its rim within which a click means a disc
_MARGIN = 14
_STICK = (150.0, 166.0, 182.0)  # colour of a bond
_THIN_STICK = 0.22  # of a ball's radius
_EYE = 3.5  # distance of the eye from the centre, in half views
_FOG = 0.55  # at the farthest
_STRIP = 0.26  # of the height, for plots
_FILL = (58, 104, 128)
_LINE = (238, 190, 110)
_TURN = 0.01  # radians per pixel of a drag
_TILT = (0.5, 0.35)  # turn to begin with, radians about the upright and the level axis
_FONT_SIZE = 19
_LINE_HEIGHT = 19


def _oklab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """[n, 3] in [0, 255]."""
    to_cone = [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728]]
    to_cone += [[1, -0.0894841775, -1.2914855480]]
    to_rgb = [[4.0767416621, -3.3077115913, 0.2309699292]]
    to_rgb += [[-1.2684380046, 2.6097574011, -0.3413193965]]
    to_rgb += [[-0.0041960863, -0.7034186147, 1.7076147010]]
    linear = (lab @ np.array(to_cone).T) ** 3 @ np.array(to_rgb).T
    linear = linear.clip(0, 1)
    curved = 1.055 * linear ** (1 / 2.4) - 0.055
    return 255 * np.where(linear > 0.0031308, curved, 12.92 * linear)


def _palette(anchors: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """256 colours [256, 3] uint8 that run through the anchors at equal steps."""
    at = np.linspace(0, len(anchors) - 1, 256)
    lab = [np.interp(at, range(len(anchors)), part) for part in zip(*anchors, strict=True)]
    return np.rint(_oklab_to_rgb(np.stack(lab, -1))).astype(np.uint8)


DISC_PALETTE = _palette(_CALM_TO_ALARMED)
CELL_PALETTE = _palette(_LOW_TO_HIGH)
_DISC_COLOUR = np.column_stack([DISC_PALETTE, np.ones(256)])  # opaque
_OPEN = np.zeros(2)


class Lens:
    """Where a scene lies on a picture of `size` (width, height): undistorted and centred.

    scale: pixels per length.  clip: left, top, right, bottom of the view in whole pixels.
    """

    def __init__(self, view: tuple[float, float, float, float], size: tuple[int, int]) -> None:
        self.view, self.size = view, size
        left, bottom, right, top = view
        width, height = right - left, top - bottom
        self.scale = min(size[0] / width, size[1] / height)
        x = 0.5 * (size[0] - width * self.scale)
        y = 0.5 * (size[1] - height * self.scale)
        self._corner = np.array([left, top])
        self._place = np.array([x, y])
        self._flip = np.array([self.scale, -self.scale])
        self.extent = np.array([width * self.scale, height * self.scale])
        self.clip = (round(x), round(y), round(x + self.extent[0]), round(y + self.extent[1]))

    def pixels(self, position: np.ndarray) -> np.ndarray:
        """Pixels [n, 2] of positions [n, 2]; the second axis points down."""
        return (position - self._corner) * self._flip + self._place

    def positions(self, pixel: np.ndarray) -> np.ndarray:
        """Positions [n, 2] at pixels [n, 2]."""
        return (pixel - self._place) / self._flip + self._corner


class Painter:
    """Paints scenes, one after the other.

    size: (width, height) of the picture in pixels.  human: also show it in a window.
    panel: width of a strip for text at its right.  trail: how many earlier places of every disc are
    drawn as its fading trail; without one earlier rows of cells are not kept either.
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
    ) -> None:
        if min(size) < 1:
            raise ValueError(f"size={size!r} must be (width, height) of at least 1 pixel")
        self.size = size
        self._blank = np.empty((size[1], size[0] + panel, 3), np.uint8)
        self._blank[:, : size[0]] = BACKGROUND
        self._blank[:, size[0] :] = PANEL
        self._past: deque[np.ndarray] = deque(maxlen=trail + 1)
        self._rows: list[np.ndarray] = []
        self._strip = round(_STRIP * size[1])
        self._human, self._title, self._fps = human, title, fps
        self._yaw, self._pitch = _TILT
        self._lens = Lens((0.0, 0.0, 1.0, 1.0), size)
        self._window: Window | None = None
        self._font: pygame.font.Font | None = None

    def draw(
        self, scene: Scene, *, follow: int | None = None, lines: Sequence[str] = ()
    ) -> np.ndarray:
        """A fresh picture [height, width + panel, 3] uint8.

        follow: the agent that gets a ring.  lines: text for the panel; what stands after a tab is
        brighter, in a second column.
        """
        image = self._blank.copy()
        room = self.size if scene.plot is None else (self.size[0], self.size[1] - self._strip)
        if scene.view != self._lens.view or room != self._lens.size:
            self._lens = Lens(scene.view, room)
        lens = self._lens
        if scene.cells is not None:
            kernel.cells(image, self._cells(scene), CELL_PALETTE, lens.clip)
        if scene.segments is not None:
            ends = scene.segments[:, 2:] - scene.segments[:, :2]
            _strokes(image, lens, _OPEN, scene.segments[:, :2], ends, _SEGMENT_WIDTH, SEGMENT)
        period = lens.extent if scene.periodic else _OPEN
        if scene.discs is not None and len(scene.discs):
            self._discs(image, lens, period, scene)
        if scene.balls is not None:
            self._solid(image, lens, scene)
        if scene.arrows is not None:
            start, displacement = scene.arrows[:, :2], scene.arrows[:, 2:]
            _strokes(image, lens, period, start, displacement, _ARROW_WIDTH, ARROW)
        if follow is not None:
            _ring(image, lens, period, scene, follow)
        if scene.plot is not None:
            self._plot(image, scene.plot)
        if scene.caption or lines:
            self._write(image, scene.caption, lines)
        if self._human:
            self._show(image)
        return image

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
        """Drop the trails and earlier rows: what is drawn next is another episode."""
        self._past.clear()
        self._rows.clear()

    def _cells(self, scene: Scene) -> np.ndarray:
        """The cells of a scene below those that it keeps of earlier ones."""
        cells = scene.cells
        assert cells is not None
        if not scene.kept_rows or self._past.maxlen == 1:
            return cells
        if self._rows and self._rows[-1].shape != cells[-1].shape:
            self._rows.clear()
        if not self._rows or not np.array_equal(self._rows[-1], cells[-1]):
            self._rows = [*self._rows, *np.array(cells)][-scene.kept_rows :]
        empty = np.zeros((scene.kept_rows - len(self._rows), cells.shape[1]))
        return np.concatenate([empty, *(row[None] for row in self._rows)])

    def close(self) -> None:
        """Close the window, if there is one; `draw` goes on without."""
        self._human = False
        if self._window is not None:
            self._window.close()

    def _discs(self, image: np.ndarray, lens: Lens, period: np.ndarray, scene: Scene) -> None:
        assert scene.discs is not None
        n = len(scene.discs)
        value = np.zeros(n) if scene.disc_value is None else scene.disc_value
        radius = np.full(n, 1.0) if scene.disc_radius is None else scene.disc_radius
        colour = _DISC_COLOUR.take((255 * value).astype(np.intp), 0, mode="clip")
        if self._past.maxlen != 1:
            self._trails(image, lens, scene, colour, radius)
        disc = np.zeros((n, 4))
        disc[:, :2] = lens.pixels(scene.discs)
        disc[:, 2] = lens.scale * radius
        kernel.discs(image, disc, colour, lens.clip, period)

    def _solid(self, image: np.ndarray, lens: Lens, scene: Scene) -> None:
        """Balls and bonds in perspective, nearer ones in front and farther ones in fog."""
        assert scene.balls is not None
        n = len(scene.balls)
        value = np.zeros(n) if scene.disc_value is None else scene.disc_value
        radius = np.full(n, 1.0) if scene.disc_radius is None else scene.disc_radius
        c, s, cp, sp = (f(a) for a in (self._yaw, self._pitch) for f in (math.cos, math.sin))
        turned = np.array([[c, 0, s], [sp * s, cp, -sp * c], [-cp * s, sp, cp * c]])
        left, bottom, right, top = scene.view
        half = 0.5 * (right - left)
        place = scene.balls @ turned.T / half
        near = _EYE / (_EYE - place[:, 2].clip(max=0.8 * _EYE))
        ball = np.empty((n, 4))
        middle = 0.5 * np.array([left + right, bottom + top])
        ball[:, :2] = lens.pixels(middle + half * place[:, :2] * near[:, None])
        ball[:, 2] = lens.scale * half * place[:, 2]
        ball[:, 3] = np.maximum(lens.scale * radius * near, 1.0)
        fog = np.empty((n, 4))
        fog[:, :3] = BACKGROUND
        fog[:, 3] = _FOG * (0.5 - 0.5 * place[:, 2]).clip(0, 1)
        depth = np.full(image.shape[:2], -np.inf)
        colour = DISC_PALETTE[(255 * value).astype(np.intp).clip(0, 255)].astype(float)
        if scene.bonds is not None and len(scene.bonds):
            a, b = scene.bonds.T
            thick = _THIN_STICK * 0.5 * (ball[a, 3] + ball[b, 3])
            haze = 0.5 * (fog[a] + fog[b])
            ends = ball[a, :3], ball[b, :3]
            solid.sticks(image, depth, *ends, thick, np.array(_STICK), haze, lens.clip)
        solid.balls(image, depth, ball, colour, fog, lens.clip)

    def _plot(self, image: np.ndarray, plot: Plot) -> None:
        """Fields side by side below the scene: filled functions, and lines over them."""
        fields = len(plot.y)
        gap = _MARGIN // 2
        width = (self.size[0] - gap) // fields - gap
        bottom = self.size[1] - gap
        height = self._strip - 2 * gap
        if width < 2 or height < 2:
            return
        at = np.linspace(plot.x[0], plot.x[-1], width)
        level = np.arange(height, 0, -1)[:, None] - 0.5  # of rows, from the top
        scale = height / plot.top
        for k, (y, usual) in enumerate(zip(plot.y, plot.usual, strict=True)):
            left = gap + k * (width + gap)
            part = image[bottom - height : bottom, left : left + width]
            part[:] = PANEL
            part[level < scale * np.interp(at, plot.x, y)] = _FILL
            line = scale * np.interp(at, plot.x, usual)
            low, high = np.minimum(line, np.roll(line, 1)), np.maximum(line, np.roll(line, 1))
            low[0] = high[0] = line[0]
            part[(level > low - 1) & (level < high + 1) & (high > 0.5)] = _LINE
        if height > 3 * _LINE_HEIGHT:
            surface = pygame.image.frombuffer(image.data, image.shape[1::-1], "RGB")
            for k, label in enumerate(plot.labels):
                place = (gap + k * (width + gap) + 6, bottom - height + 4)
                _text(surface, self._ready_font(), label, place, FAINT_TEXT)

    def _trails(
        self,
        image: np.ndarray,
        lens: Lens,
        scene: Scene,
        colour: np.ndarray,
        radius: np.ndarray,
    ) -> None:
        past = self._past
        if past and past[-1].shape != scene.discs.shape:  # type: ignore[union-attr]
            past.clear()
        if not past or not np.array_equal(past[-1], scene.discs):  # type: ignore[arg-type]
            past.append(np.array(scene.discs))
        if len(past) < 2:
            return
        sides = lens.extent / lens.scale if scene.periodic else _OPEN
        places = np.stack(past)
        back = places[:-1] - places[1:]
        if scene.periodic:
            back -= sides * np.round(back / sides)
        age = np.arange(len(past), 0, -1.0) - 1  # of the places, in frames
        fade = (1 - age / past.maxlen)[:, None].repeat(len(radius), 1)  # type: ignore[operator]
        thick = 1.0 * lens.scale * radius * fade
        shade = np.broadcast_to(colour, (len(past) - 1, *colour.shape)).copy()
        shade[..., 3] = 0.45 * fade[:-1]
        width = np.stack([thick[1:], thick[:-1]], -1)
        line = np.empty((*back.shape[:2], 4))
        line[..., :2] = lens.pixels(places[1:])
        line[..., 2:] = lens.scale * back * (1, -1)
        period = lens.extent if scene.periodic else _OPEN
        line, width, shade = (part.reshape(-1, part.shape[-1]) for part in (line, width, shade))
        kernel.lines(image, line, width, shade, lens.clip, period, BACKGROUND, True)

    def _write(self, image: np.ndarray, caption: Sequence[str], lines: Sequence[str]) -> None:
        font = self._ready_font()
        height, width, _ = image.shape
        surface = pygame.image.frombuffer(image.data, (width, height), "RGB")
        for row, text in enumerate(caption):
            x, y = _MARGIN, _MARGIN + row * _LINE_HEIGHT
            wide = font.size(text)[0]
            behind = image[y - 4 : y + _LINE_HEIGHT - 4, x - 6 : x + wide + 6]
            behind[:] = behind // 4 + np.array(BACKGROUND, np.uint8) * 3 // 4
            _text(surface, font, text, (x, y), TEXT)
        left = self.size[0] + _MARGIN
        labels = [font.size(line.partition("\t")[0])[0] for line in lines if "\t" in line]
        second = left + max(labels, default=0) + _MARGIN
        for row, line in enumerate(lines):
            label, _, value = line.partition("\t")
            y = _MARGIN + row * _LINE_HEIGHT
            _text(surface, font, label, (left, y), FAINT_TEXT)
            _text(surface, font, value, (second, y), TEXT)

    def _ready_font(self) -> pygame.font.Font:
        """pygame's own font, anew if somebody has shut pygame down since."""
        try:
            if self._font is not None and self._font.get_height():
                return self._font
        except pygame.error:
            pass
        pygame.font.init()
        self._font = pygame.font.Font(None, _FONT_SIZE)
        return self._font

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


_OPEN_WINDOWS: WeakSet[Window] = WeakSet()
_HANDED_BACK = 256  # events of windows that are not ours, in case nobody ever takes them
_quit_display = pygame.display.quit


class Window:
    """A window that shows pictures of one size. Raises OSError if there is no display.

    Any number of them, of any sizes, stay open side by side, and beside the one window of
    `pygame.display`. If somebody shuts pygame or its display down, `show` opens it anew.
    """

    def __init__(self, size: tuple[int, int], *, title: str, fps: int) -> None:
        self._size, self._title = size, title
        self._clock = pygame.time.Clock()
        self._fps = fps
        self._events: list[pygame.event.Event] = []
        self._window: pygame.Window | None = self._opened()

    @property
    def is_open(self) -> bool:
        """Whether it can be seen now."""
        self._forget_if_freed()
        return self._window is not None

    def show(self, image: np.ndarray) -> float:
        """Show a picture [height, width, 3] and wait for its turn; the seconds that took."""
        self._forget_if_freed()
        if self._window is None:
            self._window = self._opened()
        picture = pygame.image.frombuffer(image.data, self._size, "RGB")
        self._window.get_surface().blit(picture, (0, 0))
        self._window.flip()
        return self._clock.tick(self._fps) / 1000

    def events(self) -> list[pygame.event.Event]:
        """What the user has done in this window since the last call; QUIT closes it."""
        self._forget_if_freed()
        if self._window is not None:
            _deal_out_events()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Close this window and no other; `show` would open it again."""
        self._forget_if_freed()
        window, self._window = self._window, None
        _OPEN_WINDOWS.discard(self)
        if window is not None:
            window.destroy()
        if not _OPEN_WINDOWS and pygame.display.quit is _quit_display_and_windows:
            pygame.display.quit = _quit_display

    def take(self, event: pygame.event.Event) -> bool:
        """Keep an event for `events` unless it belongs to another window; whether it was kept."""
        owner = getattr(event, "window", self._window)
        if owner is not self._window:
            return False
        if event.type == pygame.WINDOWCLOSE:
            event = pygame.event.Event(pygame.QUIT)
        self._events.append(event)
        return True

    def _forget_if_freed(self) -> None:
        if not pygame.display.get_init():  # shut down past `_quit_display_and_windows`
            self._window = None

    def _opened(self) -> pygame.Window:
        started = pygame.display.get_init()
        try:
            pygame.display.init()
            window = pygame.Window(self._title, self._size)
        except pygame.error as error:
            raise OSError(f"no window can be opened: {error}") from None
        if pygame.display.get_driver() == "offscreen" and "SDL_VIDEODRIVER" not in os.environ:
            # What SDL falls back to without a display: a window that nobody could ever close.
            window.destroy()
            if not started:
                pygame.display.quit()
            raise OSError("no window can be opened: there is no display")
        _OPEN_WINDOWS.add(self)
        pygame.display.quit = _quit_display_and_windows
        return window


def _quit_display_and_windows() -> None:
    """What stands for `pygame.display.quit` while a window of ours is open.

    pygame itself (`pygame.quit` as well) would free the memory of our windows without telling them,
    and the next picture would end the process.
    """
    for window in list(_OPEN_WINDOWS):
        window.close()
    pygame.display.quit = _quit_display
    _quit_display()


def _deal_out_events() -> None:
    """Give every waiting event to its window; those of windows that are not ours go back."""
    others = []
    for event in pygame.event.get():
        taken = [window.take(event) for window in list(_OPEN_WINDOWS)]
        if not any(taken) and (event.window or pygame.display.get_surface()):
            others.append(event)
    for event in others[-_HANDED_BACK:]:
        pygame.event.post(event)


def agent_at(scene: Scene, size: tuple[int, int], pixel: tuple[int, int]) -> int | None:
    """The agent drawn at a pixel of a picture of `size`: the nearest disc, or the cell; or None."""
    lens = Lens(scene.view, size)
    left, top, right, bottom = lens.clip
    x, y = pixel
    if not (left <= x < right and top <= y < bottom):
        return None
    if scene.discs is not None and len(scene.discs):
        away = lens.pixels(scene.discs) - (x + 0.5, y + 0.5)
        if scene.periodic:
            away -= lens.extent * np.round(away / lens.extent)
        radius = 1.0 if scene.disc_radius is None else scene.disc_radius
        gap = np.hypot(*away.T) - lens.scale * radius
        found = int(gap.argmin())
        if gap[found] > _CLOSE:
            return None
        return found if scene.agents is None else int(scene.agents[found])
    if scene.cells is not None:
        rows, columns = scene.cells.shape
        row, column = (y - top) * rows // (bottom - top), (x - left) * columns // (right - left)
        return row * columns + column
    return None


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


def _ring(image: np.ndarray, lens: Lens, period: np.ndarray, scene: Scene, agent: int) -> None:
    """Mark an agent's disc, or its cell where a lattice is all there is."""
    if scene.discs is not None:
        index = np.arange(len(scene.discs)) if scene.agents is None else scene.agents
        own = np.flatnonzero(index == agent)
        place = lens.pixels(scene.discs[own])
        radius = np.ones(len(index)) if scene.disc_radius is None else scene.disc_radius
        size = lens.scale * radius[own]
    elif scene.cells is not None:
        rows, columns = scene.cells.shape
        row, column = divmod(agent, columns)
        left, top, right, bottom = lens.clip
        width, height = (right - left) / columns, (bottom - top) / rows
        place = np.array([[left + (column + 0.5) * width, top + (row + 0.5) * height]])
        size = np.array([0.5 * math.hypot(width, height)])
    else:
        return
    inner = size + _RING_GAP
    for wider, colour in ((1.0, SHADE), (0.0, RING)):
        ring = np.column_stack([place, inner + _RING_WIDTH + wider, inner - wider])
        kernel.discs(image, ring, np.full((len(ring), 4), colour), lens.clip, period)


def _text(
    surface: pygame.Surface,
    font: pygame.font.Font,
    text: str,
    place: tuple[int, int],
    colour: tuple[int, int, int],
) -> None:
    if text:
        surface.blit(font.render(text, True, colour), place)
