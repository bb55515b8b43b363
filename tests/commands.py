"""Commands as a shell would give them, run in this process."""

from __future__ import annotations

import pytest

from invariantzoo.__main__ import main


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which a command refuses."""
    capsys.readouterr()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("invariantzoo: error: ")
    assert err.count("\n") == 1
    return err
