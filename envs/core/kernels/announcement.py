"""A line for who waits for the compiler. Nothing is compiled or imported here: it costs nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COMPILING = "compiling for this machine, once: the next start is quick ..."
PATIENCE = 2.0  # seconds of compiling that nobody needs to hear of


class Announcement:
    """Says once that functions are compiled, when that has taken `patience` seconds in all.

    It speaks from another thread, for the one that compiles is busy.
    """

    def __init__(self, say: Callable[[], object], patience: float = PATIENCE) -> None:
        self._say, self.patience = say, patience
        self._depth, self._since, self._spoken = 0, 0.0, False
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A function is being compiled; those that it calls may be compiled within."""
        with self._lock:
            self._depth += 1
            if self._depth == 1 and not self._spoken:
                self._since = time.monotonic()
                self._timer = threading.Timer(self.patience, self._speak)
                self._timer.daemon = True
                self._timer.start()

    def end(self) -> None:
        """A function is compiled."""
        with self._lock:
            self._depth = max(self._depth - 1, 0)
            if self._depth == 0 and self._timer is not None:
                self.hush()
                self.patience = max(self.patience - (time.monotonic() - self._since), 0.0)

    def hush(self) -> None:
        """Say nothing of what is being compiled now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wait(self, seconds: float) -> None:
        """Wait, at most so long, until it has spoken of what is being compiled now."""
        if self._timer is not None:
            self._timer.join(seconds)

    def _speak(self) -> None:
        with self._lock:
            spoken, self._spoken = self._spoken, True
        if not spoken:
            self._say()


_current: list[Announcement] = []  # the innermost block's is the last


def current() -> Announcement | None:
    """Whom the compiler tells what it does."""
    return _current[-1] if _current else None


@contextmanager
def announced(say: Callable[[], object], patience: float = PATIENCE) -> Iterator[None]:
    """Call `say` once if compiling takes more than `patience` seconds within the block."""
    announcement = Announcement(say, patience)
    _current.append(announcement)
    try:
        yield
    finally:
        _current.remove(announcement)
        announcement.hush()


def announce_to_standard_error() -> None:
    """Print a line if compiling takes long in this process, unless a block says so itself."""
    if not _current:
        _current.append(Announcement(say_compiling))


def say_compiling() -> None:
    """One line on standard error."""
    print(COMPILING, file=sys.stderr, flush=True)
