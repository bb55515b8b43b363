"""Pages about other libraries: their code runs where the library is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import ROOT, blocks

from invariantzoo.site import pages

LIBRARIES = {  # page -> the modules that it needs
    "docs/pettingzoo.md": ("pettingzoo",),
    "docs/gymnasium.md": ("gymnasium",),
    "docs/stable-baselines3.md": ("stable_baselines3",),
    "docs/minari.md": ("minari", "h5py"),
    "docs/optuna.md": ("optuna",),
    "docs/torchrl.md": ("torchrl.collectors",),
    "docs/jax.md": ("jax",),
    "docs/rllib.md": ("ray.rllib", "tree", "ormsgpack"),  # Ray comes without what RLlib needs
    "docs/trackers.md": ("wandb", "mlflow"),
    "docs/skrl.md": ("skrl",),
    "docs/benchmarl.md": ("benchmarl",),
}


def is_there(module: str) -> bool:
    """Whether a module can be found; of a package that is not there none can."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_every_library_has_a_page_that_begins_with_code() -> None:
    assert set(LIBRARIES) == {f"docs/{name}.md" for name in pages.LIBRARIES}
    for page in LIBRARIES:
        text = (ROOT / page).read_text(encoding="utf-8")
        before, block, _ = text.partition("```")
        assert block
        assert len(before.splitlines()) <= 12
        assert text.partition("```")[2].startswith("python\n")


@pytest.mark.parametrize("page", LIBRARIES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """From top to bottom in a process of its own, as libraries warn and keep what they have set."""
    for module in LIBRARIES[page]:
        if not is_there(module):
            pytest.skip(f"{module} is not installed")
    code = "\n".join(blocks(page, "python"))
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    command = [sys.executable, "-W", "ignore", "page.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
