"""CGD inside Stable-Baselines3 and behind `train`: what is saved continues exactly."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed
from test_docs import blocks, run

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.figures.descent_refresh import measured
from invariantzoo.training.geometry import regimes
from invariantzoo.training.optim.cgd import CGD
from invariantzoo.training.rl.algorithms import make_config, make_trainer
from invariantzoo.training.runs import run as runs
from invariantzoo.training.runs.run import read_checkpoint

OFF = {"learning_starts": 20, "train_freq": 4, "batch_size": 16, "buffer_size": 200}
MODELS: list[tuple[Any, str, dict[str, Any]]] = [
    (PPO, "Pendulum-v1", {"n_steps": 32, "batch_size": 16, "n_epochs": 2}),
    (A2C, "Pendulum-v1", {"n_steps": 16}),
    (SAC, "Pendulum-v1", OFF),
    (TD3, "Pendulum-v1", OFF),
    (DQN, "CartPole-v1", OFF),
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"metric": "block", "blocks": "row", "refresh": 3},
    {"metric": "lowrank", "rank": 5},
    {"centered": "residual"},
]


def optimizers(model: Any) -> list[Any]:
    holders = (model.policy, model.actor, model.critic) if hasattr(model, "critic") else ()
    found = [part.optimizer for part in holders or (model.policy,) if hasattr(part, "optimizer")]
    return [one for one in found if one is not None]


def weights(model: Any) -> torch.Tensor:
    return torch.cat([value.reshape(-1).double() for value in model.policy.state_dict().values()])


def update(model: Any) -> torch.Tensor:
    """One more update on what the model has collected; the weights after it."""
    set_random_seed(5)
    if hasattr(model, "replay_buffer"):
        model.train(3, 16)
    else:
        model.train()
    return weights(model)


def test_another_optimizer_leaves_out_what_suits_cgd() -> None:
    """The absorber descends by the full metric; Adam, when asked for, has no metric."""
    of_id = make_config("klein-gordon-absorber-v0", "descent", {})
    assert (of_id.optimizer, of_id.metric) == ("cgd", "full")
    adam = make_config("klein-gordon-absorber-v0", "descent", {"optimizer": "adam"})
    assert (adam.network, adam.lr, adam.metric) == ("linear", of_id.lr, "diagonal")


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("make", "env", "given"), MODELS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_loaded_model_continues_exactly(
    make: Any, env: str, given: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    policy = {"net_arch": [8, 8], "optimizer_class": CGD, "optimizer_kwargs": settings}
    model = make("MlpPolicy", env, policy_kwargs=policy, seed=0, device="cpu", **given)
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.learn(64, log_interval=None)
    assert optimizers(model)
    assert all(type(one) is CGD for one in optimizers(model))
    model.save(tmp_path / "model.zip")
    again = make.load(tmp_path / "model.zip", device="cpu")
    again.set_logger(Logger(folder=None, output_formats=[]))
    if hasattr(model, "replay_buffer"):
        again.replay_buffer = copy.deepcopy(model.replay_buffer)
    else:
        again.rollout_buffer = copy.deepcopy(model.rollout_buffer)
    before = weights(model)
    assert weights(again).equal(before)
    after = update(model)
    assert not after.equal(before)
    assert update(again).equal(after)


def test_a_named_constructor_is_adam() -> None:
    """PPO by CGD.adam makes the weights that it makes by Adam."""
    found = []
    for optimizer in (CGD.adam, torch.optim.Adam):
        policy = {"optimizer_class": optimizer, "optimizer_kwargs": {"eps": 1e-5}}
        policy |= {"net_arch": [8]}
        given = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 0, "device": "cpu"}
        model = PPO("MlpPolicy", "Pendulum-v1", policy_kwargs=policy, **given)
        model.learn(96)
        found.append(weights(model))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


CROWD = "particles-crowd-v0"
SYSTEM = {"n_agents": 3, "n_neighbours": 2, "horizon": 8, "density": 0.1}
LEARNERS: dict[str, dict[str, Any]] = {
    "ppo": {"n_worlds": 2, "n_steps": 4, "batch_size": 12, "n_epochs": 2, "critic_width": 8},
    "a2c": {"n_worlds": 2, "n_steps": 4, "critic_width": 8},
    "sac": {"n_worlds": 2, "n_steps": 4, "learning_starts": 0, "batch_size": 8, "critic_width": 8},
    "descent": {"n_worlds": 2, "rollout": 4},
    "es": {"n_worlds": 2, "pairs": 2, "rollout": 2},
}
METRICS = ("diagonal", "full", "block", "row", "lowrank")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("algo", LEARNERS)
def test_a_run_continues_exactly(algo: str, metric: str) -> None:
    """A trainer at every metric, saved and continued, against one that was not interrupted."""
    settings = {**LEARNERS[algo], "optimizer": "cgd", "metric": metric, "width": 8}
    system = invariantzoo.make_system(CROWD, **SYSTEM)
    config = make_config(CROWD, algo, settings)

    def trainer() -> Any:
        return make_trainer(algo, system, config, seed=3, steps=200)

    one, other = trainer(), trainer()
    updates = iter(one)
    for _ in range(3):
        next(updates)
    state = copy.deepcopy(one.state_dict())
    other.load_state_dict(state)
    for _ in range(2):
        next(updates)
    rest = iter(other)
    for _ in range(2):
        next(rest)
    here, there = one.state_dict(), other.state_dict()
    name = "network" if algo in ("descent", "es") else "policy"
    for key, value in here[name].items():
        assert value.equal(there[name][key])
        assert bool(value.isfinite().all())


@pytest.mark.parametrize("algo", LEARNERS)
def test_regime_numbers_continue_exactly(algo: str) -> None:
    """Rows of progress.csv with a window of steps, in a run that goes on after an interruption."""
    settings = {**LEARNERS[algo], "width": 8, "regimes": 10}
    system = invariantzoo.make_system(CROWD, **SYSTEM)
    config = make_config(CROWD, algo, settings)
    one, other = (make_trainer(algo, system, config, seed=3, steps=10_000) for _ in range(2))
    updates = iter(one)
    for _ in range(12):
        next(updates)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    here, there = next(updates).row, next(iter(other)).row
    assert {"regimes/alpha", "regimes/effective_rank", "regimes/sphericity"} <= set(here)
    assert {k: v for k, v in here.items() if k in there} == there


def test_descent_through_a_system_with_noise() -> None:
    system = invariantzoo.make_system("quadratic-regimes-v0")
    config = make_config("quadratic-regimes-v0", "descent", {"n_worlds": 4, "rollout": 10})
    losses = [u.loss for u in make_trainer("descent", system, config, seed=0, steps=7200)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize(
    ("id", "said"), [("tasep-gates-v0", "gradient"), ("ising-anneal-v0", "continuous")]
)
def test_descent_refuses_a_loss_without_gradient(id: str, said: str) -> None:
    system = invariantzoo.make_system(id)
    with pytest.raises(ValueError, match=f"descent needs .*{said}"):
        make_trainer("descent", system, make_config(id, "descent", {}), seed=0, steps=10)


def test_on_the_side_there_is_room_for_all_updates(tmp_path: Path) -> None:
    """Those of an evolution strategy are long: 40 episodes of 30 steps."""
    system = invariantzoo.make_system("test-hold-v0")
    config = make_config("test-hold-v0", "es", {"pairs": 20, "n_worlds": 1, "width": 4})
    trainer: Any = make_trainer("es", system, config, seed=0, steps=1)
    list(trainer)
    described = runs.describe("test-hold-v0", "es", system, config, steps=1, seed=0)
    runs.write_config(tmp_path, described)
    with runs.recording(tmp_path) as recorder:
        recorder.save(trainer)
    side: Any = runs.on_the_side(tmp_path, runs.read_config(tmp_path), 40)
    assert side.update == 1
    assert side.updates - side.update >= 40


@pytest.mark.parametrize("algo", ["ppo", "descent"])
def test_regimes_command(
    algo: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A table, a picture, JSON, and a run folder that is otherwise as it was."""
    monkeypatch.setattr(
        "invariantzoo.training.runs.learning_curve.draw_learning_curve", lambda *_, **__: None
    )
    monkeypatch.setattr("invariantzoo.commands.train.EPISODES", 2)
    monkeypatch.setattr("invariantzoo.commands.train.FRAMES", 2)
    run = str(tmp_path / "run")
    given = {**SYSTEM, **LEARNERS[algo], "width": 8}
    words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    assert main(["train", CROWD, "--out", run, "--steps", "60", "--algo", algo, *words]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    capsys.readouterr()
    assert main(["regimes", run, "--window", "40", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["window"] == 40
    parts = {row["part"]: row for row in report["parts"]}
    prefix = "" if algo == "descent" else "actor."
    assert parts[f"{prefix}net.0.weight"]["parameters"] == 32
    assert -1 < parts["all together"]["alpha"] < 2
    assert {row["regime"] for row in report["parts"]} <= {*regimes.REGIMES, "undecided"}
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    assert after.pop("regimes.png").startswith(b"\x89PNG")
    assert after == before
    if algo == "descent":
        assert main(["regimes", run, "--window", "30"]) == 0
        assert "all together" in capsys.readouterr().out
    for bad, said in (
        (["regimes", run, "--window", "20"], "must be at least 30"),
        (["regimes", run, "--out", "x.gif"], "must end in .png"),
        (["regimes", str(tmp_path)], "is not a run"),
    ):
        assert main(bad) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("algo", ["ppo", "descent"])
def test_train_command(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariantzoo.commands.train.EPISODES", 2)
    monkeypatch.setattr("invariantzoo.commands.train.FRAMES", 2)
    given = {**SYSTEM, **LEARNERS[algo], "width": 8, "cgd_tau2": 99.0, "cgd_refresh": 2}
    words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    out = ["--out", str(tmp_path / "run"), "--steps", "100", "--algo", algo]
    line = ["train", CROWD, *out, "--optimizer", "cgd", "--metric", "full", *words]
    assert main(line) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["optimizer"]["name"] == "cgd, full metric"
    state = read_checkpoint(tmp_path / "run")
    optimizer = state["optimizer"] if algo == "descent" else state["optimizers"]["policy"]
    group = optimizer["param_groups"][0]
    assert (group["metric"], group["tau2"], group["refresh"]) == ("full", 99.0, 2)
    n = sum(np.prod(part["first_moment"].shape) for part in optimizer["state"].values())
    assert optimizer["state"][0]["second_moment"].shape == (1, n, n)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--optimizer", "cdg"], "did you mean 'cgd'"),
        (["--optimizer", "cgd", "--metric", "rows"], "did you mean 'row'"),
        (["--metric", "full"], "metric='full' needs optimizer='cgd'"),
        (["--optimizer", "cgd", "--set", "cgd_tau1=-1"], "cgd_tau1=-1 must be"),
        (["--optimizer", "cgd", "--set", "optimizer=adam"], "optimizer is given twice"),
        (["--optimizer", "cgd", "--metric", "full"], "metric='lowrank'"),
    ],
)
def test_bad_words(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", CROWD, "--out", str(tmp_path / "run"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


PAGE = "docs/optimizer.md"


@pytest.mark.parametrize("code", blocks(PAGE, "python"), ids=["torch", "Stable-Baselines3"])
def test_steps_of_the_recommended_code(code: str) -> None:
    """The code of the page, and more of the same: no step is longer than max(3 sqrt(n), B) lr."""
    if "PPO" in code:
        code += "\nmodel.learn(256)\n"  # four more rollouts of ten optimizer steps
    with measured() as seen:
        run(code, PAGE)
    assert 0 < seen["longest"] <= seen["allowed"]


def test_steps_of_the_recommended_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariantzoo.commands.train.EPISODES", 2)
    monkeypatch.setattr("invariantzoo.commands.train.FRAMES", 2)
    (line,) = [block for block in blocks(PAGE, "") if block.startswith("invariantzoo train")]
    short = ["--steps", "24000", "--out", str(tmp_path / "run")]
    with measured() as seen:
        assert main([*line.split()[1:], *short]) == 0
    assert 0 < seen["longest"] <= seen["allowed"]
    state = read_checkpoint(tmp_path / "run")["optimizers"]["policy"]
    assert max(part["renewed"] for part in state["state"].values() if "renewed" in part) > 10
