"""The standard streams: letters that their encoding lacks, and what cannot be written to them."""

from __future__ import annotations

import codecs
import io
import os
import re
import select
import sys


def take_every_letter() -> None:
    """Let standard output and error take every text, whatever their encoding."""
    codecs.register_error("invariantzoo", _spelt_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="invariantzoo")


def reader_left() -> bool:
    """Whether standard output is a pipe without a reader; if so nothing more is written to it."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    left = any(event & select.POLLERR for _, event in poll.poll(0))
    if left:
        _close_standard_output()
    return left


def flush() -> None:
    """Write what standard output still holds; OSError, in words, if it cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _close_standard_output()
        raise OSError(f"standard output could not be written: {error.strerror}") from error


def _close_standard_output() -> None:
    """What is still buffered goes nowhere, or Python would try to write it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _spelt_out(error: UnicodeError) -> tuple[str, int]:
    """What stands for letters that an encoding lacks: "+-" for a plus or minus, for instance."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    plain = _RAISED.sub(lambda match: "^" + match[0].translate(_LOWERED), text).translate(_SPELT)
    return plain.encode("ascii", "replace").decode("ascii"), error.end


_RAISED = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_SPELT = str.maketrans({"±": "+-", "Å": "A", "–": "-", "…": "...", "←": "<-", "Δ": "D", "·": "*"})
