"""Commands as a shell would give them, run in this process."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator

import pytest

from invariantzoo.__main__ import main


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Within the block no file can grow beyond `size` bytes: a disk that any user can fill."""
    limits, bytecode = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python would leave cut files of it
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = bytecode


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    """The one line with which a command refuses."""
    capsys.readouterr()
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("invariantzoo: error: ")
    assert err.count("\n") == 1
    return err
