"""Windows that show pictures: any number side by side, whatever else uses pygame."""

from __future__ import annotations

import os
import time
from weakref import WeakSet

import numpy as np

from . import pygame

_FRAME = (16, 80)  # what a window's frame and the desktop's bar take

_OPEN_WINDOWS: WeakSet[Window] = WeakSet()
_HANDED_BACK = 256  # events of windows that are not ours, in case nobody ever takes them
_quit_display = pygame.display.quit


class Window:
    """A window that shows pictures; the user may change its size. OSError if there is no display.

    Any number of them, of any sizes, stay open side by side, and beside the one window of
    `pygame.display`. If somebody shuts pygame or its display down, `show` opens it anew.
    """

    def __init__(self, size: tuple[int, int], *, title: str, fps: int) -> None:
        self._size, self._title = size, title
        self._frame = 1 / fps
        self._shown = time.perf_counter()
        self._events: list[pygame.event.Event] = []
        self._window: pygame.Window | None = self._opened()

    @property
    def is_open(self) -> bool:
        """Whether it can be seen now."""
        self._forget_if_freed()
        return self._window is not None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as the user has made them."""
        self._forget_if_freed()
        if self._window is not None:
            self._size = self._window.size
        return self._size

    def show(self, image: np.ndarray) -> float:
        """Show a picture [height, width, 3] and wait for its turn; the seconds that took."""
        self._forget_if_freed()
        if self._window is None:
            self._window = self._opened()
        self._window.get_surface().blit(surface_of(image), (0, 0))
        self._window.flip()
        # Not by pygame's clock: it starts anew with SDL, and would then wait as long as it had run.
        before = self._shown
        time.sleep(max(before + self._frame - time.perf_counter(), 0))
        self._shown = time.perf_counter()
        return self._shown - before

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
            size = _within_desktop(self._size)
            window = pygame.Window(self._title, size, resizable=True)
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


def _within_desktop(size: tuple[int, int]) -> tuple[int, int]:
    """A size that leaves room on the screen for a window's frame and a bar."""
    wide, high = pygame.display.get_desktop_sizes()[0]
    return max(min(size[0], wide - _FRAME[0]), 1), max(min(size[1], high - _FRAME[1]), 1)


def surface_of(image: np.ndarray) -> pygame.Surface:
    """A surface that writes into an image [height, width, 3]."""
    return pygame.image.frombuffer(image.data, image.shape[1::-1], "RGB")
