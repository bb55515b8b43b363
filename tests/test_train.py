"""Run folders and the `train` command: what is left, refused, and lost in an interruption."""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import refused
from stable_baselines3 import PPO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.commands import train
from invariantzoo.commands.train import sorted_settings
from invariantzoo.envs.core.observation import parameters as parameters_of
from invariantzoo.envs.core.registry import make_system, system_class
from invariantzoo.training.rl import score
from invariantzoo.training.rl.algorithms import make_config, make_trainer
from invariantzoo.training.rl.hyperparameters import ALGORITHMS, hyperparameters
from invariantzoo.training.runs import run as runs

CROWD = "particles-crowd-v0"
SYSTEM = {"n_agents": 4, "n_neighbours": 3, "horizon": 8, "density": 0.1}
LEARNER = {"n_worlds": 2, "n_steps": 5, "batch_size": 20, "n_epochs": 2, "checkpoint_every": 2}
DESCENT = {"n_worlds": 2, "rollout": 4, "checkpoint_every": 2}
ES = {"n_worlds": 2, "pairs": 2, "checkpoint_every": 2}
TEXTS = ["config.json", "progress.csv", "scores.json"]


def words(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def command(out: Path, *more: str, algo: str = "ppo", steps: int = 200) -> list[str]:
    learner = {"descent": DESCENT, "es": ES}.get(algo, LEARNER)
    if algo in ("a2c", "sac"):
        learner = {name: LEARNER[name] for name in ("n_worlds", "n_steps", "checkpoint_every")}
    start = ["train", CROWD, "--out", str(out), "--algo", algo, "--steps", str(steps)]
    return [*start, *words({**SYSTEM, **learner}), *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariantzoo.commands.train.EPISODES", 2)
    monkeypatch.setattr("invariantzoo.commands.train.FRAMES", 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run by PPO."""
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    assert main(command(folder)) == 0
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_leaves_every_file_whole(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {*runs.FILES}
    assert (trained / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
    assert b"ftyp" in (trained / "rollout.mp4").read_bytes()[:16]
    config = json.loads((trained / "config.json").read_text())
    assert config["schema"] == runs.SCHEMA
    assert config["version"] == invariantzoo.__version__
    assert (config["id"], config["algo"], config["steps"], config["seed"]) == (CROWD, "ppo", 200, 0)
    assert SYSTEM.items() <= config["parameters"].items()
    assert LEARNER.items() <= config["hyperparameters"].items()
    assert config["network"] == "pair"
    scores = json.loads((trained / "scores.json").read_text())["scores"]
    assert {"trained", "straight", "random"} <= scores.keys()
    assert {"return", "loss", "collisions", "progress", "contact"} == scores["trained"].keys()
    assert len(scores["trained"]["return"]["per_seed"]) == 5


def test_runs_of_former_parameters_are_scored_and_go_on(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What config.json held when crowd and encounter were one class."""
    score = ["evaluate", str(copied), "--episodes", "2", "--seeds", "1", "--json"]
    capsys.readouterr()
    assert main(score) == 0
    expected = json.loads(capsys.readouterr().out)
    path = copied / "config.json"
    config = json.loads(path.read_text())
    config["parameters"] |= {"layout": "crowd", "view": "invariants", "separation": 3.6}
    config["parameters"] |= {"impact": [-0.6, 0.6], "angle": [-0.3, 0.3], "orientation": [0.0, 6.3]}
    path.write_text(json.dumps(config))
    assert main(score) == 0
    assert json.loads(capsys.readouterr().out) == expected
    resumed = ["train", CROWD, "--out", str(copied), "--resume", "--steps", "240"]
    assert main(resumed) == 0
    assert int(rows(copied)[-1]["steps"]) == 240
    config["parameters"]["layout"] = "encounter"
    path.write_text(json.dumps(config))
    capsys.readouterr()
    assert main(score) == 2
    assert "layout='encounter' of particles-crowd-v0 must be 'crowd'" in capsys.readouterr().err


def test_progress(trained: Path) -> None:
    table = rows(trained)
    assert [int(row["steps"]) for row in table] == [40, 80, 120, 160, 200]
    assert [bool(row["return"]) for row in table] == [False, True, False, True, True]
    assert [bool(row["loss"]) for row in table] == [False, True, True, True, True]
    assert [bool(row["running_loss"]) for row in table] == [True, False, False, False, False]
    losses = [float(row["loss"]) for row in table[1:]]
    assert all(loss > 0 for loss in losses)
    board = EventAccumulator(str(trained / "tb"))
    board.Reload()
    logged = [(event.step, event.value) for event in board.Scalars("loss")]
    assert [step for step, _ in logged] == [80, 120, 160, 200]
    assert np.allclose([value for _, value in logged], losses, rtol=1e-4)


def test_the_scores_are_those_of_the_policy_that_is_kept(trained: Path) -> None:
    run = runs.load_run(trained)
    found = score.evaluate(run.system, run.policy, episodes=20, seeds=5, deterministic=True)
    kept = json.loads((trained / "scores.json").read_text())["scores"]["trained"]
    assert kept["return"]["mean"] == pytest.approx(found["return"].mean(), rel=1e-12)
    assert run.config["id"] == CROWD
    assert run.system == invariantzoo.make_system(CROWD, **SYSTEM)


@pytest.mark.parametrize(
    ("id", "steps", "episodes"),
    [
        (CROWD, 1000, (5, 20)),
        ("ising-anneal-v0", 1000, (5, 20)),
        ("tasep-open-v0", 1000, (1, 5)),
        ("tasep-open-v0", 200_000_000, (1, 11)),
    ],
)
def test_scoring_takes_no_longer_than_training(
    id: str, steps: int, episodes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "EPISODES", 20)
    assert train._scored_episodes(make_system(id), steps) == episodes


def test_policy_zip_is_the_same_policy(trained: Path) -> None:
    model = PPO.load(trained / "policy.zip")
    run, trusted = runs.load_run(trained), runs.load_run(trained, trust=True)
    env = invariantzoo.vec_env(CROWD, n_worlds=3, seed=0, **SYSTEM)
    observation = env.reset()
    action, _ = model.predict(observation, deterministic=True)
    worlds = torch.from_numpy(observation).reshape(3, 4, -1)
    with torch.no_grad():
        for policy in (run.policy, trusted.policy):
            assert np.allclose(policy(worlds, None).reshape(action.shape), action, atol=1e-6)


@pytest.mark.parametrize("algo", ["a2c", "sac", "descent", "es"])
def test_other_algorithms(algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / algo
    extra = ["--set", "learning_starts=40"] if algo == "sac" else []
    assert main(command(folder, "--json", *extra, algo=algo)) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["algo"] == algo
    assert report["steps"] >= 200
    assert "scoring trained" in err
    assert {path.name for path in folder.iterdir()} == {*runs.FILES}
    runs.load_run(folder)
    runs.load_run(folder, trust=True)


def test_discrete_actions(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run"), "--steps", "100"]
    more = words({"n_worlds": 2, "n_steps": 10, "batch_size": 20})
    assert main(["train", "test-leave-v0", *out, *more]) == 0
    report = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert report["scores"]["trained"].keys() == {
        "return",
        "loss",
        "left",
        "steps",
        "illegal_actions",
    }


# Refusals


def test_a_run_is_never_overwritten(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copied)
    assert "--resume" in refused(capsys, *command(copied))
    for more, said in (
        (["--seed", "3"], "--seed 0"),
        (["--algo", "a2c"], "ppo, not by a2c"),
        (["--set", "n_epochs=3"], "n_epochs=2, not 3"),
        (["--set", "radius=0.2"], "radius=0.25, not 0.2"),
    ):
        line = ["train", CROWD, "--out", str(copied), "--resume", *more]
        assert said in refused(capsys, *line)
    other = ["train", "test-hold-v0", "--out", str(copied), "--resume"]
    assert f"run of {CROWD}, not of test-hold-v0" in refused(capsys, *other)
    assert contents(copied) == before
    path = copied / runs.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 5}))
    line = ["train", CROWD, "--out", str(copied), "--resume", "--seed", "0"]
    assert "--seed 5, not 0" in refused(capsys, *line)


def test_a_folder_with_results_of_others_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scores.json").write_text("mine")
    assert "already holds scores.json" in refused(capsys, *command(tmp_path))
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(capsys, *command(tmp_path / "file"))
    assert {path.name for path in tmp_path.iterdir()} == {"scores.json", "file"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["particles-crowd-v1"], "did you mean 'particles-crowd-v0'"),
        ([CROWD, "--algo", "pppo"], "did you mean 'ppo'"),
        ([CROWD, "--set", "gama=0.9"], "did you mean 'gamma'"),
        ([CROWD, "--set", "radus=0.9"], "did you mean 'radius'"),
        ([CROWD, "--set", "learning_rate=0.1"], "did you mean 'lr'"),
        ([CROWD, "--set", "radius=-1"], "radius=-1"),
        ([CROWD, "--set", "gamma=2"], "gamma=2"),
        ([CROWD, "--set", "network=pairs"], "did you mean 'pair'"),
        ([CROWD, "--set", "n_agents=24", "--set", "density=9"], "cannot be placed"),
        ([CROWD, "--steps", "0"], "at least 1"),
        ([CROWD, "--step", "5"], "did you mean '--steps'"),
        (["ising-equilibrium-v0", "--algo", "sac"], "continuous"),
        (["test-hold-v0", "--set", "network=pair"], "network='pair'"),
        ([CROWD, "--resume"], "does not exist"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    line: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "train", *line, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_a_setting_of_both_the_world_and_the_learner_is_never_guessed(id: str) -> None:
    """Bare it is refused; with its owner it is what that says, alone and together."""
    world = parameters_of(system_class(id))
    for algo in ALGORITHMS:
        learner = [parameter.name for parameter in hyperparameters(algo)]
        for name in {*world, *learner}:
            if name not in world or name not in learner:
                expected = ({name: 1}, {}) if name in world else ({}, {name: 1})
                assert sorted_settings(id, algo, [f"{name}=1"]) == expected
                continue
            with pytest.raises(ValueError, match=f"both have it; say system.{name} or {algo}"):
                sorted_settings(id, algo, [f"{name}=1"])
            both = [f"system.{name}=1", f"{algo}.{name}=2"]
            assert sorted_settings(id, algo, both) == ({name: 1}, {name: 2})
    with pytest.raises(ValueError, match="--set wheels: no parameter of system"):
        sorted_settings(id, "es", ["system.wheels=4"])
    with pytest.raises(ValueError, match="--set lr is given twice"):
        sorted_settings(id, "es", ["lr=1", "es.lr=2"])


def test_a_setting_of_the_world_is_trained_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    small = {"system.width": 2.0, "es.width": 3, "side": 12, "horizon": 5, "pairs": 1}
    words = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    words += ["--steps", "1", "--no-film", "--no-baselines", "--out", str(folder)]
    assert main(["train", "dirac-steer-v0", "--algo", "es", *words]) == 0
    config = runs.read_config(folder)
    assert config["parameters"]["width"] == 2.0
    assert config["hyperparameters"]["width"] == 3


def spoil(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


class Bomb:
    """Pickles to code that would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_what_is_not_a_run_of_this_version(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for folder, said in ((tmp_path / "none", "does not exist"), (tmp_path / "empty", "not a run")):
        with pytest.raises((FileNotFoundError, ValueError), match=said):
            runs.load_run(folder)
    config = (copied / "config.json").read_text()
    for changes, said in (
        ({"schema": 2}, "schema 2; this version reads 1"),
        ({"id": "particles-crowd-v1"}, "did you mean 'particles-crowd-v0'"),
        ({"algo": "dqn"}, "'dqn'"),
        ({"parameters": {"wheels": 4}}, "wheels"),
        ({"hyperparameters": {"wheels": 4}}, "wheels"),
        ({"parameters": {**SYSTEM, "n_neighbours": 2, "seen": ["I1"]}}, "does not fit"),
    ):
        spoil(copied, **changes)
        with pytest.raises(ValueError, match=said) as error:
            runs.load_run(copied)
        assert "\n" not in str(error.value)
        before = contents(copied)
        refused(capsys, "train", CROWD, "--out", str(copied), "--resume")
        assert contents(copied) == before
        (copied / "config.json").write_text(config)
    for text, said in (("{", "cannot be read"), ("{}", "no schema"), ('{"schema": 1}', "no 'vers")):
        (copied / "config.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            runs.load_run(copied)


def test_a_checkpoint_is_only_tensors(copied: Path, tmp_path: Path) -> None:
    path = copied / "checkpoint.pt"
    whole = path.read_bytes()
    for spoilt, why in ((whole[: len(whole) // 2], "."), (b"", "it is empty"), (b"no", ".")):
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=f"cannot be read: {why}"):
            runs.load_run(copied)
    trap = tmp_path / "trap"
    torch.save({"policy": Bomb(trap)}, path)
    with pytest.raises(ValueError, match="cannot be read"):
        runs.load_run(copied)
    path.write_bytes(pickle.dumps(Bomb(trap)))
    with pytest.raises(ValueError, match="cannot be read"):
        runs.load_run(copied)
    assert not trap.exists()
    path.unlink()
    with pytest.raises(ValueError, match="no checkpoint"):
        runs.load_run(copied)


def test_policy_zip_is_not_read_unless_trusted(copied: Path) -> None:
    (copied / "policy.zip").write_bytes(b"not a zip")
    runs.load_run(copied)
    (copied / "policy.zip").unlink()
    with pytest.raises(ValueError, match=r"no policy\.zip"):
        runs.load_run(copied, trust=True)


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"

    def half(part: Path) -> None:
        part.write_text("half")
        raise RuntimeError("lost power")

    with pytest.raises(RuntimeError, match="lost power"):
        runs.write_atomically(path, half)
    assert not list(tmp_path.iterdir())
    runs.write_atomically(path, lambda part: part.write_text("whole"))
    with pytest.raises(RuntimeError, match="lost power"):
        runs.write_atomically(path, half)
    assert path.read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 1


# Interruptions


def uninterrupted(folder: Path, steps: int) -> dict[str, Any]:
    """The state after `steps` of a run like that in `folder` which nobody stopped."""
    config = runs.read_config(folder)
    system, hyper = runs.rebuild(folder, config)
    trainer = make_trainer(
        config["algo"], system, hyper, seed=config["seed"], steps=config["steps"]
    )
    for update in trainer:
        if update.steps == steps:
            return trainer.state_dict()
    raise AssertionError(f"no update ends at {steps}")


def flat(state: Any, where: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        parts = [flat(value, f"{where}.{name}") for name, value in state.items()]
        return {name: value for part in parts for name, value in part.items()}
    return {where: state.tolist() if isinstance(state, torch.Tensor) else state}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_and_continued(how: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    algo = "descent" if how == signal.SIGTERM else "ppo"
    line = [sys.executable, "-m", "invariantzoo", *command(folder, algo=algo, steps=4_000_000)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "policy.zip").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate(timeout=120)
    if how == signal.SIGKILL:
        assert process.returncode == -how
    else:
        assert process.returncode == 128 + how
        assert f"--out {folder} --resume" in said.replace("\n", "")
    state = runs.read_checkpoint(folder)
    done = make_done(folder, state)
    table = [int(row["steps"]) for row in rows(folder)]
    assert done in table
    assert flat(state) == flat(uninterrupted(folder, done))
    if how == signal.SIGKILL:  # what it may leave: half a file, and progress after the checkpoint
        (folder / ".checkpoint.1.tmp.pt").write_bytes(b"half")
        later = [{**row, "steps": done + 1} for row in runs.read_progress(folder)[-1:]]
        runs.write_progress(folder, runs.read_progress(folder) + later)
    goal = done + 200
    again = ["train", CROWD, "--out", str(folder), "--resume", "--steps", str(goal)]
    assert main(again) == 0
    after = [int(row["steps"]) for row in rows(folder)]
    assert done in after
    assert done + 1 not in after
    assert after == sorted(set(after))
    assert goal <= after[-1] < goal + after[0]
    seconds = [float(row["seconds"]) for row in rows(folder)]
    assert seconds == sorted(seconds)
    assert {path.name for path in folder.iterdir()} == {*runs.FILES}


def make_done(folder: Path, state: dict[str, Any]) -> int:
    """Agent-steps of a checkpoint."""
    config = runs.read_config(folder)
    system, hyper = runs.rebuild(folder, config)
    trainer = make_trainer(config["algo"], system, hyper, seed=0, steps=1)
    trainer.load_state_dict(state)
    return trainer.steps


def test_ctrl_c_while_scoring_keeps_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(score, "evaluate", stop)
        assert main(command(folder)) == 130
    assert f"evaluate {folder}" in capsys.readouterr().err.replace("\n", "")
    runs.load_run(folder)
    assert not (folder / "scores.json").exists()
    before = (folder / "progress.csv").read_text()
    assert main(["train", CROWD, "--out", str(folder), "--resume"]) == 0
    assert (folder / "progress.csv").read_text() == before
    assert (folder / "scores.json").exists()


def test_checkpoints_are_made_on_the_way(tmp_path: Path) -> None:
    system = invariantzoo.make_system(CROWD, **SYSTEM)
    config = make_config(CROWD, "ppo", LEARNER)
    trainer = make_trainer("ppo", system, config, seed=0, steps=400)
    runs.write_config(tmp_path, runs.describe(CROWD, "ppo", system, config, steps=400, seed=0))
    seen = []
    with runs.recording(tmp_path) as recorder:

        def watch(update: Any) -> bool:
            path = tmp_path / "checkpoint.pt"
            seen.append(runs.read_checkpoint(tmp_path)["steps"] if path.exists() else 0)
            return len(seen) < 5

        assert not runs.train(trainer, recorder, checkpoint_every=2, watch=watch)
    assert seen == [0, 0, 80, 80, 160]
    assert runs.read_checkpoint(tmp_path)["steps"] == 200
    assert len(runs.read_progress(tmp_path)) == 5


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["train", "test-hold-v0", "--steps", "40", *words({"n_worlds": 2, "n_steps": 10})]
    assert main(line) == 0
    assert os.listdir("runs") == ["test-hold-v0"]
