"""Ctrl-C and SIGTERM that a command obeys at the next moment at which it can save its work."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class Interruptions:
    """Notes Ctrl-C and SIGTERM within a `with` block; a second Ctrl-C is obeyed at once.

    number: of the signal that was noted, else None.  message: written to standard error then.
    """

    def __init__(self, message: str) -> None:
        self.number: int | None = None
        self._message = f"\n{message}\n".encode()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        os.write(2, self._message)
