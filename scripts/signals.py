"""Ctrl-C and SIGTERM: while a command is imported, and where it must first save its work."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Handler of Ctrl-C where there is nothing to save: one line, exit code 130."""
    os.write(2, b"invariantzoo: interrupted\n")
    os._exit(130)


def end_at_once_while_importing() -> None:
    """In a process that is the command line, let Ctrl-C end it quietly until `main` begins.

    Importing the libraries takes a moment, in which Python would show where it was.
    """
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # what Python calls it until it has found the module
        ours = "invariantzoo" in sys.orig_argv
    else:  # not in a process that a command starts, which has its name but other words
        ours = os.path.basename(program) == "invariantzoo" and program in sys.orig_argv
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, if `end_at_once_while_importing` has changed that."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Terminated(KeyboardInterrupt):
    """SIGTERM, obeyed at once."""


@contextmanager
def obeying_termination() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`, so that what Ctrl-C ends well it does too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interruptions:
    """Notes Ctrl-C and SIGTERM within a `with` block; a second Ctrl-C is obeyed at once.

    number: of the signal that was noted, else None.  message: what is said between a signal and its
    effect, on standard error where that is no terminal; there a bar shows `notice`.
    """

    def __init__(self, message: str) -> None:
        self.number: int | None = None
        self._message = message
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
        if not os.isatty(2):
            os.write(2, f"\n{self.notice}\n".encode())

    @property
    def notice(self) -> str:
        """The message once a signal was noted, else nothing."""
        return "" if self.number is None else self._message
