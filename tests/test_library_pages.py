"""Pages about other libraries: their code runs where the library is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import blocks

LIBRARIES = {"docs/torchrl.md": "torchrl"}  # page -> the module that it needs


@pytest.mark.parametrize("page", LIBRARIES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """From top to bottom in a process of its own, as libraries warn and keep what they have set."""
    module = LIBRARIES[page]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    code = "\n".join(blocks(page, "python"))
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    command = [sys.executable, "-W", "ignore", "page.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
