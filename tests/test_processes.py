"""One training in several processes, by torchrun: what one process learns from all worlds."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import train_together
from commands import refused
from torch import Tensor

from invariantzoo.__main__ import main
from invariantzoo.training.runs.folder import read_progress

TOGETHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """States that two processes left."""
    folder = tmp_path_factory.mktemp("together")
    script = str(HERE / "train_together.py")
    subprocess.run([*TOGETHER, script, str(folder)], check=True, env=ENVIRONMENT, timeout=300)
    return folder


def assert_close(a: Any, b: Any, where: str) -> None:
    """The same numbers, to the error of sums in another order."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_close(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_close(x, y, f"{where}.{i}")
    elif isinstance(a, Tensor):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text: f"{where}: {text}")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5), where
    else:
        assert a == b, where


@pytest.mark.parametrize("name", train_together.CASES)
def test_two_processes_learn_what_one_does(name: str, together: Path) -> None:
    """Weights, optimizer, worlds, generators, and so all that follows."""
    ours, row = train_together.trained(name)
    theirs, their_row = torch.load(together / f"{name}.pt", weights_only=False)
    assert_close(ours, theirs, name)
    for column in ("loss", "return", "running_loss"):
        if column in row:
            assert their_row[column] == pytest.approx(row[column], rel=1e-3)
    assert row.keys() == their_row.keys()


def test_one_process_goes_on_where_two_stopped(together: Path) -> None:
    ours, theirs = train_together.trainer("ppo"), train_together.trainer("ppo")
    ours.load_state_dict(train_together.trained("ppo")[0])
    theirs.load_state_dict(torch.load(together / "ppo.pt", weights_only=False)[0])
    list(ours)
    list(theirs)
    assert_close(ours.state_dict(), theirs.state_dict(), "ppo")


def test_a_metric_that_one_process_has_not_is_that_of_the_others() -> None:
    class Two(train_together.processes.Share):
        def objects(self, value: Any) -> list[Any]:
            return [value, ({"ratio": 0.9, "loss": 2.0, "none": math.nan}, 3.0)]

    row = {"ratio": math.nan, "loss": 1.0, "none": math.nan}
    means = train_together.processes.mean_rows(Two(0, 2), row, 1.0)
    assert means["ratio"] == pytest.approx(0.9)
    assert means["loss"] == pytest.approx(1.75)
    assert math.isnan(means["none"])


def test_choices_are_drawn_as_torch_draws_them() -> None:
    """Of several processes each draws for all and takes its part."""
    chances = torch.rand(4001, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    theirs = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(7))
    waiting = torch.empty_like(chances).exponential_(generator=torch.Generator().manual_seed(7))
    assert torch.equal((chances / waiting).argmax(-1), theirs.squeeze(-1))


def test_the_command_by_torchrun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Leaves one run, which one process goes on with."""
    run = tmp_path / "run"
    words = ["train", "particles-encounter-v0", "--steps", "1000", "--no-baselines", "--no-film"]
    words += ["--set", "horizon=10", "--set", "n_worlds=8", "--set", "n_steps=10"]
    command = [*TOGETHER, "-m", "invariantzoo", *words, "--out", str(run)]
    done = subprocess.run(command, env=ENVIRONMENT, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("particles-encounter-v0") == 1  # one of them speaks
    rows = read_progress(run)
    assert [row["steps"] for row in rows] == [160 * k for k in range(1, 8)]
    alone = tmp_path / "alone"
    assert main([*words, "--out", str(alone)]) == 0
    for row, theirs in zip(rows, read_progress(alone), strict=True):
        assert row.keys() == theirs.keys()
        for name in ("loss", "return", "progress"):
            assert row[name] == pytest.approx(theirs[name], rel=1e-3)
    scores = [json.loads((folder / "scores.json").read_text()) for folder in (run, alone)]
    first, second = (each["scores"]["trained"]["return"]["mean"] for each in scores)
    assert first == pytest.approx(second, rel=1e-2)
    go_on = ["train", "particles-encounter-v0", "--resume", "--steps", "1500", "--out", str(run)]
    assert main([*go_on, "--no-baselines", "--no-film"]) == 0


def test_what_cannot_be_shared_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    words = ("train", "particles-encounter-v0", "--out", str(tmp_path / "run"))
    said = refused(capsys, *words, "--algo", "es")
    assert "algo='es' trains in one process; torchrun is for ppo, mappo, a2c" in said
    monkeypatch.setattr(
        "invariantzoo.training.rl.processes.joined",
        lambda: train_together.processes.Share(0, 3),
    )
    said = refused(capsys, *words, "--set", "n_worlds=8")
    assert "n_worlds=8 must be a multiple of 3, the processes" in said
