"""What version 0.1 left on disk still loads: run folders of three algorithms, and a fitted model.

`data/former` was made by the code of that time: `ppo`, `descent` and `pair.npz` before modules and
classes moved, `es` when the algorithm was new. `actions.npz` and `forces.json` are what that code
made of them.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core import renamed
from invariantzoo.training.runs import run as runs

DATA = Path(__file__).parent / "data"
FORMER = DATA / "former"
ALGOS = ("ppo", "descent", "es")


@pytest.fixture
def forgotten() -> Iterator[None]:
    """No module is known by a former name, before and after: a second import does not warn."""
    forget()
    yield
    forget()


def forget() -> None:
    for former in renamed.MODULES:
        sys.modules.pop(f"invariantzoo.{former}", None)


def require_former_actions(policy: invariantzoo.StatePolicy, algo: str) -> None:
    with np.load(FORMER / algo / "actions.npz") as former:
        action = policy(torch.from_numpy(former["observation"]), None)
        np.testing.assert_allclose(action.numpy(), former["action"], rtol=0, atol=1e-6)
        assert np.abs(former["action"]).max() > 1e-3


@pytest.mark.parametrize("algo", ALGOS)
def test_a_run_acts_as_it_did(algo: str) -> None:
    run = invariantzoo.load_run(FORMER / algo)
    assert run.config["version"] == "0.1.0"
    require_former_actions(run.policy, algo)


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("algo", ALGOS)
def test_a_trusted_policy_acts_as_it_did(algo: str) -> None:
    """Its pickle names modules and classes by their places at that time, which warn."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run = invariantzoo.load_run(FORMER / algo, trust=True)
    assert {warning.category for warning in warned} <= {DeprecationWarning}
    assert bool(warned) == (algo != "es")
    require_former_actions(run.policy, algo)


@pytest.mark.parametrize("algo", ALGOS)
def test_a_run_goes_on(
    algo: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("invariantzoo.commands.train.EPISODES", 2)
    monkeypatch.setattr("invariantzoo.commands.train.SEEDS", 1)
    folder = tmp_path / algo
    shutil.copytree(FORMER / algo, folder)
    config = runs.read_config(folder)
    before = [row["steps"] for row in runs.read_progress(folder)]
    words = ["train", config["id"], "--out", str(folder), "--resume", "--no-baselines", "--no-film"]
    goal = int(before[-1]) + 1
    assert main([*words, "--steps", str(goal), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] >= goal
    after = [row["steps"] for row in runs.read_progress(folder)]
    assert after[: len(before)] == before
    assert after[-1] >= goal
    runs.load_run(folder)


def test_a_model_file_gives_the_forces_that_it_gave(capsys: pytest.CaptureFixture[str]) -> None:
    former = json.loads((FORMER / "forces.json").read_text())
    assert main(["forces", str(FORMER / "pair.npz"), str(DATA / "water2.npz"), "--json"]) == 0
    now = json.loads(capsys.readouterr().out)
    for name in ("frames", "relative", "correlation"):
        assert now[name] == pytest.approx(former[name], rel=1e-9)
    rmse, before = now["rmse_mev_per_angstrom"], former["rmse_mev_per_angstrom"]
    assert rmse == pytest.approx(before, rel=1e-9)
