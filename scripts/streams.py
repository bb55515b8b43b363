"""The standard streams: letters that their encoding lacks, and what cannot be written to them."""

from __future__ import annotations

import codecs
import io
import os
import re
import select
import sys


def open_all() -> None:
    """Let what is written to a standard stream that the caller closed go nowhere.

    A file that is opened would take the place of one, and what others print would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest number that is free is taken
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)


def take_every_letter() -> None:
    """Let standard output and error take every text, whatever their encoding."""
    codecs.register_error("invariantzoo", _spelt_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="invariantzoo")


def reader_left() -> bool:
    """Whether standard output or error is a pipe without a reader; nothing more is written then."""
    left = False
    for number in (sys.stdout.fileno(), sys.stderr.fileno()):
        poll = select.poll()
        poll.register(number, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            left = True
            _lead_nowhere(number)
    return left


def flush() -> None:
    """Write what standard output still holds; OSError, in words, if it cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _lead_nowhere(sys.stdout.fileno())
        raise OSError(f"standard output could not be written: {error.strerror}") from error


def _lead_nowhere(number: int) -> None:
    """What is still buffered goes nowhere, or Python would try to write it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _spelt_out(error: UnicodeError) -> tuple[str, int]:
    """What stands for letters that an encoding lacks: "+-" for a plus or minus, for instance."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    plain = _RAISED.sub(lambda match: "^" + match[0].translate(_LOWERED), text).translate(_SPELT)
    return plain.encode("ascii", "replace").decode("ascii"), error.end


_RAISED = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_SPELT = str.maketrans({"±": "+-", "Å": "A", "–": "-", "…": "...", "←": "<-", "Δ": "D", "·": "*"})
