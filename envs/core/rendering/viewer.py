"""A window in which a person watches worlds run: pause, step, speed, reset, follow an agent."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from ..observation import by_name
from ..scene import Chart, LegendEntry, Scene
from ..types import Bound
from ..vector import Step, VectorEnv
from . import pygame
from .lens import shows_agents
from .painter import Painter
from .window import Window

KEYS = (
    ("space", "pause, go on"),
    ("right, n", "one step"),
    ("+  -", "faster, slower"),
    ("r", "new episode"),
    ("click, tab", "follow an agent"),
    ("q, esc", "quit"),
)
QUIT_KEYS = (pygame.K_q, pygame.K_ESCAPE)
DRAG = ("drag", "turn")  # what has depth
COMPILING = "compiling the step, once: the next start is quick"
ADJUSTING_KEYS = (  # less, more: of the first live parameter, of the second
    ("[  ]", pygame.K_LEFTBRACKET, pygame.K_RIGHTBRACKET),
    (";  '", pygame.K_SEMICOLON, pygame.K_QUOTE),
)
SLOWEST, FASTEST = 0.25, 1024.0  # steps per second
_SIZE, _PANEL, _TRAIL, _FPS = 720, 330, 16, 60
_PANEL_SHARE, _LEAST_PANEL = 0.31, 170  # of the width of a window; what is narrower has no panel
_PATIENCE = 0.3  # seconds after which a window says what it waits for
_BUSY = 0.1  # seconds of steps between two pictures at most
_SHOWN = 4  # entries of an invariant
_LATEST = 100  # steps in charts of the agent that is followed
INVARIANTS = ("I1", "I2", "I3", "I4")  # of the nearest neighbour: drawn against time


T = TypeVar("T")


class Viewer:
    """Shows the first world of `env`, which `step` and `reset` move on.

    step: makes one step of all worlds, or returns None when there are no more.
    begin: makes `env` ready to be shown, once the window is open.
    rate: steps per second to begin with.
    """

    def __init__(
        self,
        env: VectorEnv,
        step: Callable[[], Step | None],
        reset: Callable[[], None],
        *,
        title: str,
        rate: float = 20.0,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.env, self._step, self._reset, self._begin = env, step, reset, begin
        self.title = title
        self.paused = False
        self.done = False
        self.rate = rate
        self.follow: int | None = None
        self.last: Step | None = None
        self._due = 0.0
        self._painter = Painter(size=(_SIZE, _SIZE), panel=_PANEL, trail=_TRAIL)

    def run(self) -> None:
        """Show the window until the user quits or there are no more steps.

        Raises OSError if there is no display.
        """
        window = Window((_SIZE + _PANEL, _SIZE), title=self.title, fps=_FPS)
        try:
            self._start(window)
            while not self.done:
                if window.size != self.window_size:
                    self.resize(window.size)
                seconds = window.show(self.frame())
                for event in window.events():
                    self.handle(event)
                self.advance(seconds)
        finally:
            window.close()

    def _start(self, window: Window) -> None:
        """The first picture and the first step, which are compiled while the window answers."""
        self.resize(window.size)
        first = self._wait(window, self._first_frame, self._notice(None))
        if first is not None:
            window.show(first)
            self._wait(window, self.step, self._notice(first))

    def _first_frame(self) -> np.ndarray:
        self._begin()
        return self.frame()

    def _wait(self, window: Window, work: Callable[[], T], notice: np.ndarray) -> T | None:
        """Do some work in a thread of its own, and meanwhile show a notice and hear the user.

        None if the user quits. The window is closed at once then, but the work is ended before this
        returns, as half of it would leave the worlds broken.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def guarded() -> None:
            try:
                results.append(work())
            except BaseException as error:  # raised again below, where somebody hears it
                errors.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        while thread.is_alive() and not self.done:
            window.show(notice)
            for event in window.events():
                pressed = event.key if event.type == pygame.KEYDOWN else None
                self.done = self.done or event.type == pygame.QUIT or pressed in QUIT_KEYS
        if self.done:
            window.close()
        thread.join()
        if errors:
            raise errors[0]
        return None if self.done else results[0]

    def _notice(self, picture: np.ndarray | None) -> np.ndarray:
        """What is shown while the step is compiled: over a picture, or over none."""
        return self._painter.notice(COMPILING, picture)

    @property
    def window_size(self) -> tuple[int, int]:
        """Width and height of the picture with its panel."""
        wide, high = self._painter.size
        return wide + self._painter.panel, high

    def resize(self, size: tuple[int, int]) -> None:
        """Fill a window of that size: a panel at the right, or a legend below if that is narrow."""
        panel = min(_PANEL, round(_PANEL_SHARE * size[0]))
        panel = panel if panel >= _LEAST_PANEL else 0
        self._painter.legend = panel == 0
        self._painter.resize((max(size[0] - panel, 1), max(size[1], 1)), panel)

    def handle(self, event: pygame.event.Event) -> None:
        """Do what a key, a click or the window's closing asks for."""
        if event.type == pygame.QUIT:
            self.done = True
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self.follow = self._agent_at(event.pos)
            if self.follow is not None:
                self.env.press(self.follow)
        elif event.type == pygame.MOUSEMOTION:
            self._painter.drag(event)
        elif event.type == pygame.KEYDOWN:
            self._key(event.key, bool(getattr(event, "mod", 0) & pygame.KMOD_SHIFT))

    def _agent_at(self, pixel: tuple[int, int]) -> int | None:
        """The agent that a click means: an only one wherever something is drawn."""
        scene, n_agents = self.scene(), self.env.n_agents
        found = self._painter.agent_at(scene, pixel)
        if found is None or shows_agents(scene, n_agents):
            return found if found is not None and found < n_agents else None
        return 0 if n_agents == 1 else None

    def advance(self, seconds: float) -> None:
        """Make the steps that fall due in that time."""
        if self.paused:
            return
        self._due += min(seconds, _BUSY) * self.rate
        start = pygame.time.get_ticks()
        while self._due >= 1 and not self.done:
            self._due -= 1
            self.step()
            if pygame.time.get_ticks() - start > 1000 * _BUSY:
                self._due = 0.0

    def step(self) -> None:
        """Make one step."""
        self.last = self._step()
        self.done = self.done or self.last is None

    def scene(self) -> Scene:
        """What is drawn now."""
        env = self.env
        scene = env.system.scene(type(env.state)(*(array[:1] for array in env.tensors)))
        if scene is None:
            raise ValueError(f"{self.title} has no picture")
        return scene

    def frame(self) -> np.ndarray:
        """The picture with its panel [height, width, 3] uint8."""
        env = self.env
        if env.age[0] == 0:
            self._painter.forget()
        metrics = {name: float(value[0]) for name, value in env.episode_metrics().items()}
        scene = self.scene()
        return self._painter.draw(
            scene,
            follow=self.follow if shows_agents(scene, env.n_agents) else None,
            lines=self.panel(scene) if self._painter.panel else (),
            step=int(env.age[0]),
            metrics=metrics,
            charts=self.charts(),
        )

    def charts(self) -> list[Chart]:
        """I1..I4 of the nearest neighbour of the agent that is followed, where agents see them."""
        env, agent = self.env, self.follow
        names = [name for name in INVARIANTS if name in env.system.bounds]
        if not names or agent is None or not env.alive[0, agent]:
            return []
        seen = by_name(env.system, torch.from_numpy(env.observe()[0, agent]))
        nearest = {name: float(seen[name].reshape(-1)[0]) for name in names}
        if nearest.get("I1", 0.0) >= env.system.bounds.get("I1", Bound(0, 1)).high:  # nobody near
            nearest = dict.fromkeys(names, math.nan)
        return [
            Chart(0.0, 0.0, {f"nearest {name}": nearest[name]}, latest=_LATEST) for name in names
        ]

    def panel(self, scene: Scene | None = None) -> list[str | LegendEntry]:
        """Lines: the episode, the agent that is followed, colours and keys; tabs make columns."""
        env, scene = self.env, scene or self.scene()
        rate = "paused" if self.paused else f"{self.rate:g} steps/s"
        lines: list[str | LegendEntry] = [self.title, ""]
        lines += [f"step\t{env.age[0]:,} of {env.system.horizon:,}", f"speed\t{rate}"]
        if env.age[0] > 0:
            for name, value in env.episode_metrics().items():
                waits = env.age[0] <= env.system.warm_up
                later = f"from step {env.system.warm_up + 1:,} on"
                lines.append(f"{name}\t{later if waits else _number(float(value[0]))}")
        lines.append("")
        lines += self._followed() if self.follow is not None else ["nobody is followed"]
        lines += ["", *scene.legend] if scene.legend else []
        keys = list(KEYS[:-1])
        keys += [("click", env.system.press)] if env.system.press else []
        keys += [DRAG] if scene.balls is not None else []
        keys.append(KEYS[-1])
        lines += ["", *(f"{key}\t{meaning}" for key, meaning in keys)]
        adjustable = zip(ADJUSTING_KEYS, env.system.live_parameters, strict=False)
        lines += [f"{keys}\tless, more {name}" for (keys, _, _), name in adjustable]
        return lines

    def _followed(self) -> list[str]:
        env, agent = self.env, self.follow
        assert agent is not None
        name = f"{env.system.agent_name}_{agent}"
        if not env.alive[0, agent]:
            return [name, "has left"]
        own = torch.from_numpy(env.observe()[0, agent])
        lines = [name]
        if self.last is not None and env.age[0] > 0:
            lines.append(f"loss\t{_number(-float(self.last.reward[0, agent]))}")
        for invariant, value in by_name(env.system, own).items():
            lines.append(f"{invariant}\t{_numbers(value.reshape(-1).tolist())}")
        return lines

    def _key(self, key: int, shift: bool) -> None:
        if key in QUIT_KEYS:
            self.done = True
        elif key == pygame.K_SPACE:
            self.paused = not self.paused
        elif key in (pygame.K_RIGHT, pygame.K_n):
            self.paused = True
            self.step()
        elif key in (pygame.K_PLUS, pygame.K_EQUALS, pygame.K_KP_PLUS, pygame.K_UP):
            self.rate = min(2 * self.rate, FASTEST)
        elif key in (pygame.K_MINUS, pygame.K_KP_MINUS, pygame.K_DOWN):
            self.rate = max(self.rate / 2, SLOWEST)
        elif key == pygame.K_r:
            self._reset()
            self.last = None
        elif key == pygame.K_TAB:
            self._follow_next(-1 if shift else 1)
        for (_, less, more), name in zip(
            ADJUSTING_KEYS, self.env.system.live_parameters, strict=False
        ):
            if key in (less, more):
                self.env.adjust(name, 1 if key == more else -1)

    def _follow_next(self, way: int) -> None:
        """Follow the next agent that is still there."""
        present = np.flatnonzero(self.env.alive[0])
        if not len(present):
            return
        if self.follow is None:
            self.follow = int(present[0 if way > 0 else -1])
            return
        ahead = (present - self.follow) * way
        ahead = np.where(ahead > 0, ahead, ahead + self.env.n_agents)
        self.follow = int(present[ahead.argmin()])


def _numbers(values: Sequence[float]) -> str:
    shown = "  ".join(_number(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown}  …"


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value + 0.0:.3g}" if abs(value) < 1000 else f"{value:.1e}"
