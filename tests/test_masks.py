"""Legal actions through every door, what becomes of illegal ones, and PPO that heeds masks."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from commands import refused
from stable_baselines3.common.vec_env import VecNormalize
from systems import Leave, Still

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core.interfaces.gymnasium import SystemEnv
from invariantzoo.envs.core.interfaces.pettingzoo import AecEnv, ParallelEnv
from invariantzoo.envs.core.observation import is_discrete
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.training.benchmark.units import plan
from invariantzoo.training.rl.algorithms import config_class, make_trainer
from invariantzoo.training.rl.score import evaluate, run_episodes

DISCRETE = [id for id in invariantzoo.ids() if is_discrete(invariantzoo.make_system(id))]
SMALL = {"n_worlds": 4, "n_steps": 10, "batch_size": 40, "n_epochs": 2}


def test_infos_of_every_door_hold_the_same_masks() -> None:
    worlds = VectorEnv(Leave(), 2, seed=3)
    worlds.reset()
    vec_env = invariantzoo.vec_env("test-leave-v0", n_worlds=2, seed=3)
    vec_env.reset()
    envs: Any = gymnasium.make_vec("invariantzoo/test-leave-v0", num_envs=8)
    infos = envs.reset(seed=3)[1]
    parallel = invariantzoo.parallel_env("test-leave-v0")
    agent_infos = parallel.reset(seed=3)[1]
    slots: Any = vec_env.reset_infos
    for _ in range(200):  # through the end of several episodes
        expected = worlds.legal_actions().reshape(8, 2)
        assert np.array_equal(infos["action_mask"], expected)
        assert infos["action_mask"].dtype == np.int8
        assert infos["_action_mask"].all()
        assert np.array_equal(envs.unwrapped.action_masks(), expected)
        assert np.array_equal([info["action_mask"] for info in slots], expected)
        assert np.array_equal(vec_env.env_method("action_masks"), expected)
        assert np.array_equal(vec_env.env_method("action_masks", indices=[5]), expected[5:6])
        for i, agent in enumerate(parallel.possible_agents):
            if agent in parallel.agents:
                assert np.array_equal(agent_infos[agent]["action_mask"], expected[i])
        action = expected[:, 1].astype(np.int64)
        worlds.step(action.reshape(2, 4))
        slots = vec_env.step(action)[-1]
        infos = envs.step(action)[-1]
        if parallel.agents:
            chosen = dict(zip(parallel.possible_agents, action, strict=False))
            agent_infos = parallel.step({agent: chosen[agent] for agent in parallel.agents})[-1]


def test_whom_a_mask_leaves_nothing_may_do_anything_through_every_door() -> None:
    """What is done there does nothing, and networks cannot choose among no actions."""
    worlds = VectorEnv(Still(), 1, seed=3)
    worlds.reset()
    mask, expected = worlds.action_mask(), worlds.legal_actions()[0]
    assert mask is not None
    assert (~mask.any(-1)).sum() == 3
    for env in (ParallelEnv(Still(), name="still"), AecEnv(Still(), name="still")):
        env.reset(seed=3)
        infos = env.reset(seed=3)[1] if isinstance(env, ParallelEnv) else env.infos
        assert np.array_equal([info["action_mask"] for info in infos.values()], expected)


def test_a_single_agent_has_a_mask_too() -> None:
    env = SystemEnv(Leave(n_agents=1))
    info = env.reset(seed=0)[1]
    assert info["action_mask"].tolist() == env.action_masks().tolist() == [1, 1]
    assert env.step(1)[-1]["action_mask"].dtype == np.int8
    assert "action_mask" not in SystemEnv(invariantzoo.make_system("neurons-v0")).reset(seed=0)[1]


@pytest.mark.parametrize("id", DISCRETE)
def test_every_id_with_discrete_actions_gives_a_mask(id: str) -> None:
    vec_env = invariantzoo.vec_env(id, seed=0)
    vec_env.reset()
    masks = np.stack(vec_env.env_method("action_masks"))
    assert masks.shape == (vec_env.num_envs, vec_env.action_space.n)  # type: ignore[attr-defined]
    assert masks.any(1).all()
    envs: Any = gymnasium.make_vec(f"invariantzoo/{id}", num_envs=vec_env.num_envs)
    envs.reset(seed=0)
    assert np.array_equal(envs.unwrapped.action_masks(), masks)


def test_continuous_actions_have_none() -> None:
    envs: Any = gymnasium.make_vec("invariantzoo/neurons-v0", num_envs=2)
    _, infos = envs.reset(seed=0)
    assert infos == {}
    with pytest.raises(ValueError, match="Neurons has continuous actions, without masks"):
        envs.unwrapped.action_masks()


def illegal_choices(env: VectorEnv, steps: int) -> np.ndarray:
    """What `env` should have counted while all agents want to step."""
    wanted = np.ones((env.n_worlds, env.n_agents), np.int64)
    counted = np.zeros(env.n_worlds, int)
    for _ in range(steps):
        mask = env.action_mask()
        assert mask is not None
        counted += (env.active() & ~mask[..., 1]).sum(1)
        env.step(wanted)
    return counted


def test_illegal_actions_are_counted() -> None:
    env = VectorEnv(Leave(), 16, seed=0)
    env.reset()
    assert env.metric_names == ("left", "steps", "illegal_actions")
    expected = illegal_choices(env, 5)
    assert expected.sum() > 5
    assert np.array_equal(env.episode_metrics()["illegal_actions"], expected)
    saved = env.save()
    again = VectorEnv(Leave(), 16, seed=1)
    again.restore(saved)
    assert np.array_equal(again.episode_metrics()["illegal_actions"], expected)
    del saved["illegal"]  # as a version that did not count them had it
    again.restore(saved)
    with pytest.raises(ValueError, match="action of walker_1 in world 0 is 2"):
        env.step(np.full((16, 4), 2) * (np.arange(4) == env.active().argmax(1)[:, None]) * 1)
    assert np.array_equal(env.episode_metrics()["illegal_actions"], expected)
    env.reset()
    assert not env.episode_metrics()["illegal_actions"].any()
    assert VectorEnv(invariantzoo.make_system("tasep-gates-v0"), 1).metric_names == (
        *invariantzoo.make_system("tasep-gates-v0").reductions,
    )


def test_illegal_actions_are_reported_through_every_door() -> None:
    system = Leave(horizon=6)
    envs: Any = gymnasium.make_vec("invariantzoo/test-leave-v0", num_envs=4, horizon=6)
    envs.reset(seed=0)
    vec_env = invariantzoo.vec_env("test-leave-v0", n_worlds=1, seed=0, horizon=6)
    vec_env.reset()
    parallel = invariantzoo.parallel_env("test-leave-v0", horizon=6)
    parallel.reset(seed=0)
    aec = invariantzoo.env("test-leave-v0", horizon=6)
    aec.reset(seed=0)
    infos: Any = {}
    for _ in range(6):
        vector_infos = envs.step(np.ones(4, np.int64))[-1]
        slots = vec_env.step(np.ones(4, np.int64))[-1]
        infos = parallel.step(dict.fromkeys(parallel.agents, 1))[-1] or infos
        ended = aec.last()[2] or aec.last()[3]
        aec.step(None if ended else 1)
    env = VectorEnv(system, 1, seed=0, autoreset=False)
    env.reset()
    expected = illegal_choices(env, 6)[0]
    assert expected > 0
    assert vector_infos["final_info"]["metrics"]["illegal_actions"].tolist() == [expected] * 4
    assert slots[0]["metrics"]["illegal_actions"] == expected
    assert {info["metrics"]["illegal_actions"] for info in infos.values()} == {expected}
    assert aec.metrics()["illegal_actions"] == expected
    scores = evaluate(
        system,
        lambda seen, rng: torch.ones(seen.shape[:2]).long(),
        episodes=3,
        seeds=2,
        deterministic=True,
    )
    assert scores["illegal_actions"].shape == (2, 3)
    assert scores["illegal_actions"].min() > 0


def test_without_masks_it_is_ppo() -> None:
    """The same weights to the bit: nothing but what is illegal makes a difference."""
    pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")
    system = invariantzoo.make_system("ising-equilibrium-v0", lattice_size=3, n_sweeps=4, burn_in=0)
    policies = []
    for algo in ("ppo", "maskable_ppo"):
        trainer: Any = make_trainer(algo, system, config_class(algo)(**SMALL), seed=0, steps=800)
        list(trainer)
        policies.append(trainer.model.policy.state_dict())
    assert all(torch.equal(policies[0][name], value) for name, value in policies[1].items())


def test_it_never_chooses_what_is_illegal(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")
    run, words = str(tmp_path / "run"), []
    for name, value in SMALL.items():
        words += ["--set", f"{name}={value}"]
    train = ["train", "test-leave-v0", "--algo", "maskable_ppo", "--out", run, *words]
    train += ["--no-film", "--no-baselines", "--json"]
    assert main([*train, "--steps", "3000", "--set", "lr=0.01"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores["trained"]["illegal_actions"]["mean"] == 0
    assert scores["trained"]["left"]["mean"] == 1
    rows = (tmp_path / "run" / "progress.csv").read_text().splitlines()
    column = rows[0].split(",").index("illegal_actions")
    told = {row.split(",")[column] for row in rows[1:]} - {""}
    assert {float(count) for count in told} == {0}
    policy = invariantzoo.load_run(run).policy
    env = VectorEnv(Leave(), 8, seed=0, autoreset=False)
    assert not run_episodes(env, policy, deterministic=False)["illegal_actions"].any()
    seen = torch.from_numpy(env.reset())
    mask = torch.zeros(8, 4, 2, dtype=torch.bool)
    mask[..., 0] = True
    legal: Any = policy
    assert not legal(seen, None, mask).any()
    assert not legal(seen, env.rng(0), mask).any()
    trusted: Any = invariantzoo.load_run(run, trust=True).policy
    assert torch.equal(trusted(seen, None, ~mask), legal(seen, None, ~mask))


def test_a_run_that_was_continued_is_the_same() -> None:
    pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")
    config = config_class("maskable_ppo")(**SMALL)
    whole: Any = make_trainer("maskable_ppo", Leave(), config, seed=0, steps=1600)
    buffer, updates = io.BytesIO(), 0
    for _ in whole:
        updates += 1
        if updates == 4:
            torch.save(whole.state_dict(), buffer)
    assert updates == 10
    buffer.seek(0)
    again: Any = make_trainer("maskable_ppo", Leave(), config, seed=0, steps=1600)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    list(again)
    for name, value in whole.model.policy.state_dict().items():
        assert torch.equal(again.model.policy.state_dict()[name], value), name


def test_sb3_contrib_s_own_model_on_our_doors() -> None:
    contrib = pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")
    env = VecNormalize(invariantzoo.vec_env("test-leave-v0", n_worlds=4, seed=0))
    model = contrib.MaskablePPO("MlpPolicy", env, n_steps=16, batch_size=64, n_epochs=1, seed=0)
    model.learn(16 * 16 * 4)
    assert model.rollout_buffer.action_masks.min() == 0
    single = contrib.MaskablePPO(
        "MlpPolicy", SystemEnv(Leave(n_agents=1)), n_steps=32, batch_size=32
    )
    single.learn(32)


def test_what_it_cannot_train_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An algorithm that does not apply is another thing than one that is not installed."""
    config = config_class("maskable_ppo")(**SMALL)
    neurons = invariantzoo.make_system("neurons-v0")
    with pytest.raises(ValueError, match="maskable_ppo needs discrete actions; use ppo"):
        make_trainer("maskable_ppo", neurons, config, seed=0, steps=10)
    assert list(plan(["neurons-v0"], ["maskable_ppo"], ["adam"], 1, most_steps=1)[1]) == [
        ("neurons-v0", "maskable_ppo")
    ]
    plain = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "sb3_contrib" else plain(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    line = 'sb3-contrib is not installed: pip install "invariantzoo[contrib]"'
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(line)}$"):
        make_trainer("maskable_ppo", Leave(), config, seed=0, steps=10)
    words = ["--ids", "ising-equilibrium-v0", "--algos", "maskable_ppo"]
    assert line in refused(capsys, "benchmark", *words, "--out", str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []
