"""`--set device=…`: where networks compute while they train, are scored and are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import refused

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core.interfaces.stable_baselines3 import SystemVecEnv
from invariantzoo.training.rl import sb3
from invariantzoo.training.rl.algorithms import config_class, load_policy, make_trainer
from invariantzoo.training.rl.hyperparameters import ALGORITHMS
from invariantzoo.training.rl.world_policies import WorldRows

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
CROWD, SPINS = "particles-crowd-v0", "ising-equilibrium-v0"
BRIEF: dict[str, dict[str, Any]] = {
    CROWD: {"n_agents": 4, "horizon": 5},
    SPINS: {"lattice_size": 2, "n_sweeps": 2, "burn_in": 0},
}
TINY: dict[str, dict[str, Any]] = {
    "ppo": {"n_worlds": 3, "n_steps": 6, "batch_size": 16},
    "sac": {"n_worlds": 3, "n_steps": 8, "learning_starts": 20, "buffer_size": 500},
    "descent": {"n_worlds": 2, "rollout": 3},
    "es": {"n_worlds": 2, "pairs": 2, "rollout": 2},
}
TINY |= {"mappo": TINY["ppo"], "a2c": {"n_worlds": 3, "n_steps": 6}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of few steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", CROWD, "--steps", "60", "--no-baselines", "--no-film", "--out", str(folder)]
    settings = {**BRIEF[CROWD], "n_worlds": 3, "n_steps": 5}
    words += [word for item in settings.items() for word in ("--set", "{}={}".format(*item))]
    assert main(words) == 0
    return folder


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_device_that_is_not_there_is_refused_in_a_line(
    algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cuda:99", "meta"):
        words = ("train", CROWD, "--algo", algo, "--set", f"device={name}")
        said = refused(capsys, *words, "--out", str(tmp_path / "run"))
        assert f"device='{name}' cannot compute here: " in said
    assert not list(tmp_path.iterdir())


def test_so_it_is_where_policies_are_scored_and_shown(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["evaluate", str(run)], ["rollout", CROWD, "--policy", str(run)]):
        said = refused(capsys, *words, "--set", "device=cuda:99")
        assert "device='cuda:99' cannot compute here: " in said
    words = ["evaluate", str(run), "--episodes", "1", "--seeds", "1", "--set", "device=cpu"]
    assert main(words) == 0


def test_policies_by_name_act_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("invariantzoo.training.rl.devices.computing_device", torch.device)
    said = refused(capsys, "evaluate", CROWD, "--policy", "brake", "--set", "device=cuda")
    assert "device='cuda': brake is no trained policy; it acts on the CPU" in said


@no_gpu
def test_a_run_of_another_device_is_read_here_and_gone_on_with_if_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((run / "config.json").read_text())
    config["hyperparameters"]["device"] = "cuda"
    (run / "config.json").write_text(json.dumps(config))
    invariantzoo.load_run(str(run))
    words = ("train", CROWD, "--resume", "--steps", "130", "--out", str(run))
    words += ("--no-baselines", "--no-film")
    assert "device='cuda' cannot compute here: " in refused(capsys, *words)
    assert main([*words, "--set", "device=cpu"]) == 0
    config = json.loads((run / "config.json").read_text())
    assert config["hyperparameters"]["device"] == "cpu"
    assert config["steps"] == 130


@pytest.mark.parametrize("id", [CROWD, SPINS])
@pytest.mark.parametrize(("algo", "share"), [("ppo", "all"), ("ppo", "none"), ("mappo", "all")])
def test_nothing_of_a_policy_is_left_on_the_cpu(id: str, algo: str, share: str) -> None:
    """On "meta", which has shapes but no numbers: what mixes it with the CPU fails on a GPU too."""
    system = invariantzoo.make_system(id, **BRIEF[id])
    network = "set" if id == CROWD else ""  # "pair" looks at numbers: which places are empty
    config = config_class(algo)(**TINY[algo], share=share, network=network)
    env = SystemVecEnv(system, 3, seed=0)
    policy: Any = sb3.make_model(env, config, seed=0).policy
    rows = torch.from_numpy(env.reset())
    policy.to("meta")
    output, value = policy.heads(rows.to("meta"))
    assert {output.device.type, value.device.type} == {"meta"}
    actions = output.argmax(-1) if policy.discrete else output
    seen: Any = rows.to("meta")
    if algo == "mappo" or share != "all":
        worlds = seen.reshape(3, system.n_agents, -1)
        seen = WorldRows(worlds, torch.arange(5, device="meta"))
        actions = actions[:5]
    for part in policy.evaluate_actions(seen, actions):
        assert part.device.type == "meta"
    if not policy.discrete:
        drawn = policy._choose(rows.to("meta"), output, False)
        assert drawn.device.type == "meta"


def test_nothing_of_a_squashed_policy_is_left_on_the_cpu() -> None:
    system = invariantzoo.make_system(CROWD, **BRIEF[CROWD])
    env = SystemVecEnv(system, 3, seed=0)
    policy: Any = sb3.make_model(env, config_class("sac")(**TINY["sac"]), seed=0).policy
    rows = torch.from_numpy(env.reset()).to("meta")
    policy.to("meta")
    for part in policy.actor.action_log_prob(rows):
        assert part.device.type == "meta"


@gpu
@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("id", [CROWD, SPINS])
def test_a_gpu_trains_as_the_cpu_does(algo: str, id: str) -> None:
    if id == SPINS and algo in ("sac", "descent"):
        return
    system = invariantzoo.make_system(id, **BRIEF[id])
    first = {}
    for device in ("cpu", "cuda"):
        config = config_class(algo)(**TINY[algo], device=device)
        trainer = make_trainer(algo, system, config, seed=0, steps=10**6)
        updates = iter(trainer)
        first[device] = [next(updates).loss for _ in range(2)]
        weights = trainer.state_dict()["network" if algo in ("descent", "es") else "policy"]
        assert {weight.device.type for weight in weights.values()} == {device}
    assert first["cpu"] == pytest.approx(first["cuda"], rel=1e-3)
    observation = torch.from_numpy(SystemVecEnv(system, 2, seed=0).reset())
    observation = observation.reshape(2, system.n_agents, -1)
    there, here = (
        load_policy(algo, system, config, trainer.state_dict(), device)(observation, None)
        for device in ("cuda", "cpu")
    )
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)
