"""Worlds as a batched TorchRL environment: its own checks, and the worlds of `VectorEnv`."""

from __future__ import annotations

import importlib.util
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from systems import Still

import invariantzoo
from invariantzoo.envs.core.vector import VectorEnv

if importlib.util.find_spec("torchrl") is None:
    pytest.skip("TorchRL is not installed", allow_module_level=True)

IDS = invariantzoo.ids()
pytestmark = pytest.mark.filterwarnings("ignore")  # of TorchRL's own
MASKED = "test-leave-v0"  # agents leave, act in turn, and have actions that are illegal


def short(id: str) -> dict[str, Any]:
    """A length of episodes that a test can wait for, where the system has it as a parameter."""
    system: Any = invariantzoo.make_system(id)
    return {"horizon": 5} if "horizon" in getattr(system, "__dataclass_fields__", {}) else {}


@pytest.mark.parametrize("id", IDS)
def test_torchrl_finds_no_fault(id: str) -> None:
    from torchrl.envs.utils import check_env_specs

    env = invariantzoo.torchrl_env(id, n_worlds=3, seed=0, with_state=True, **short(id))
    check_env_specs(env, seed=1)
    agents = env.full_observation_spec_unbatched["agents"]  # of one world, as BenchMARL asks
    assert agents.shape == (env.system.n_agents,)
    assert agents["observation"].shape == env.observation_spec["agents", "observation"].shape[1:]


@pytest.mark.parametrize("id", [*IDS])
def test_worlds_are_those_of_the_arrays(id: str) -> None:
    """Through ends of episodes, at which TorchRL resets those worlds that ended, and no others."""
    env = invariantzoo.torchrl_env(id, n_worlds=3, seed=7, **short(id))
    worlds = VectorEnv(invariantzoo.make_system(id, **short(id)), 3, seed=7)
    now = env.reset()
    assert np.array_equal(now["agents", "observation"], worlds.reset())
    torch.manual_seed(0)
    for _ in range(8):
        env.rand_action(now)
        made, now = env.step_and_maybe_reset(now)
        step = worlds.step(made["agents", "action"].numpy())
        last = step.observation if step.final_observation is None else step.final_observation
        assert np.array_equal(made["next", "agents", "observation"], last)
        assert np.array_equal(now["agents", "observation"], step.observation)
        assert np.array_equal(made["next", "agents", "reward"][..., 0], np.float32(step.reward))
        assert np.array_equal(made["next", "done"][:, 0], step.done)
        for i, name in enumerate(env.metric_names):
            told = made["next", "metrics"][:, i].numpy()
            expected = step.metrics.get(name, np.full(3, np.nan))
            assert np.allclose(told[step.done], expected[step.done], equal_nan=True)
            assert np.isnan(told[~step.done]).all()


def test_illegal_actions_are_reported() -> None:
    env = invariantzoo.torchrl_env(MASKED, n_worlds=3, seed=0, horizon=6)
    state, worlds = env.reset(), VectorEnv(env.system, 3, seed=0, autoreset=False)
    worlds.reset()
    assert env.metric_names == (*env.system.reductions, "illegal_actions")
    for _ in range(6):
        state["agents", "action"] = torch.ones(3, 4, dtype=torch.int64)
        state = env.step(state)["next"]
        step = worlds.step(np.ones((3, 4), np.int64))
    assert step.metrics["illegal_actions"].min() > 0
    assert state["metrics"][:, -1].tolist() == step.metrics["illegal_actions"].tolist()


def test_agents_that_leave_act_in_turn_and_may_not_do_all() -> None:
    from torchrl.envs import ActionMask, TransformedEnv

    plain = invariantzoo.torchrl_env(MASKED, n_worlds=4, seed=0)
    mask = ActionMask(action_key=("agents", "action"), mask_key=("agents", "action_mask"))
    env = TransformedEnv(plain, mask)
    torch.manual_seed(0)
    steps = env.rollout(200, break_when_any_done=False)
    agents, after = steps["agents"], steps["next", "agents"]
    assert agents["action_mask"].gather(-1, agents["action"][..., None]).all()
    assert (~agents["action_mask"]).any()
    going = ~steps["next", "done"][..., 0]
    assert (agents["mask"].sum(-1) == 1).all()
    left = after["terminated"][..., 0]
    assert (left.any(-1) & going).any()  # some leave before their world ends
    assert not (left & after["mask"])[going].any()
    ended = steps["next", "terminated"]
    assert ended.any()
    assert torch.equal(ended[..., 0], left.all(-1))
    assert torch.equal(after["done"], after["terminated"] | after["truncated"])
    assert not (steps["next", "terminated"] & steps["next", "truncated"]).any()
    sent_home = after["reward"][..., 0][agents["done"][..., 0]]
    assert len(sent_home) > 0
    assert (sent_home == 0).all()


def test_seeds() -> None:
    make = invariantzoo.torchrl_env
    env = make("particles-crowd-v0", n_worlds=2, seed=3, n_agents=4)
    first = env.reset()["agents", "observation"]
    again = env.reset()["agents", "observation"]
    assert not torch.equal(first, again)
    env.set_seed(3)
    assert torch.equal(env.reset()["agents", "observation"], first)
    assert torch.equal(env.reset()["agents", "observation"], again)
    env.set_seed(None)
    assert not torch.equal(env.reset()["agents", "observation"], first)
    with pytest.raises(ValueError, match="seed=-1"):
        env.set_seed(-1)


def test_a_reset_takes_a_seed_and_a_state() -> None:
    """Both were once taken and left aside."""
    make = partial(invariantzoo.torchrl_env, "particles-crowd-v0", n_worlds=2, n_agents=4)
    expected = make(seed=3).reset()["agents", "observation"]
    env = make(seed=0)
    env.set_seed(1)
    assert torch.equal(env.reset(seed=3)["agents", "observation"], expected)
    assert not torch.equal(env.reset()["agents", "observation"], expected)
    worlds = VectorEnv(env.system, 2, seed=3)
    worlds.reset()
    given = {"state": worlds.state._asdict()}
    assert torch.equal(env.reset(options=given)["agents", "observation"], expected)
    with pytest.raises(ValueError, match="seed=-1"):
        env.reset(seed=-1)
    with pytest.raises(TypeError, match="sed"):
        env.reset(sed=3)


def test_nobody_is_left_without_an_action() -> None:
    """Where a mask forbids all that agents do who cannot act: TorchRL could draw nothing."""
    from torchrl.envs import ActionMask, TransformedEnv

    from invariantzoo.envs.core.interfaces.torchrl import SystemTorchEnv

    mask = ActionMask(action_key=("agents", "action"), mask_key=("agents", "action_mask"))
    env = TransformedEnv(SystemTorchEnv(Still(), 4, seed=0), mask)
    assert env.rollout(20, break_when_any_done=False)["agents", "action_mask"].any(-1).all()


def test_a_part_of_the_worlds_can_be_reset() -> None:
    env = invariantzoo.torchrl_env("particles-crowd-v0", n_worlds=3, seed=3, n_agents=4)
    start = env.reset()
    before = start["agents", "observation"].clone()
    flags = torch.tensor([[False], [True], [False]])
    after = env.reset(start.set("_reset", flags))["agents", "observation"]
    changed = (before != after).reshape(3, -1).any(-1)
    assert changed.tolist() == [False, True, False]


def test_the_state_is_that_of_pettingzoo() -> None:
    env = invariantzoo.torchrl_env("particles-crowd-v0", seed=3, n_agents=4, with_state=True)
    parallel = invariantzoo.parallel_env("particles-crowd-v0", n_agents=4)
    parallel.reset(seed=3)
    assert np.array_equal(env.reset()["state"][0], np.float32(parallel.state()))


def test_actions_outside_their_space_are_refused() -> None:
    env = invariantzoo.torchrl_env("particles-crowd-v0", seed=3, n_agents=4)
    now = env.rand_action(env.reset())
    now["agents", "action"][0, 2] = 1.5
    with pytest.raises(ValueError, match="particle_2 in world 0"):
        env.step(now)


def test_pickled_worlds_go_on() -> None:
    env = invariantzoo.torchrl_env("particles-crowd-v0", n_worlds=2, seed=3, n_agents=4)
    now = env.rand_action(env.reset())
    copy = pickle.loads(pickle.dumps(env))
    there = copy.step(now.clone())["next", "agents", "observation"]
    assert torch.equal(there, env.step(now)["next", "agents", "observation"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_tensors_lie_on_the_device_that_was_asked_for() -> None:
    env = invariantzoo.torchrl_env(
        "particles-crowd-v0", n_worlds=2, n_agents=4, device="cuda", with_state=True
    )
    steps = env.rollout(4)
    assert {value.device.type for value in steps.values(True, True)} == {"cuda"}
    assert {spec.device.type for spec in env.specs.values(True, True)} == {"cuda"}


def test_without_torchrl_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torchrl" else find(name)
    )
    line = r'^TorchRL is not installed: pip install "invariantzoo\[torchrl\]"$'
    with pytest.raises(ModuleNotFoundError, match=line):
        invariantzoo.torchrl_env("particles-crowd-v0")


def test_a_policy_is_trained_on_them() -> None:
    """A few updates of PPO by TorchRL's own parts, with one policy for all agents."""
    from tensordict.nn import TensorDictModule, TensorDictSequential
    from torchrl.collectors import Collector
    from torchrl.modules import MultiAgentMLP, ProbabilisticActor, TanhNormal, ValueOperator
    from torchrl.modules.distributions import NormalParamExtractor
    from torchrl.objectives import ClipPPOLoss

    torch.manual_seed(0)
    env = invariantzoo.torchrl_env("particles-encounter-v0", n_worlds=4, seed=0, horizon=10)
    spec = env.full_action_spec["agents", "action"]
    size = env.observation_spec["agents", "observation"].shape[-1]
    n_agents, seen = len(env.group_map["agents"]), ("agents", "observation")
    shared = {
        "n_agents": n_agents,
        "centralized": False,
        "share_params": True,
        "depth": 1,
        "num_cells": 16,
    }
    body = MultiAgentMLP(size, 2 * spec.shape[-1], **shared)
    head = TensorDictModule(
        torch.nn.Sequential(body, NormalParamExtractor()),
        [seen],
        [("agents", "loc"), ("agents", "scale")],
    )
    actor = ProbabilisticActor(
        TensorDictSequential(head),
        spec=spec,
        in_keys=[("agents", "loc"), ("agents", "scale")],
        out_keys=[("agents", "action")],
        distribution_class=TanhNormal,
        return_log_prob=True,
        log_prob_key=("agents", "sample_log_prob"),
    )
    critic = ValueOperator(
        MultiAgentMLP(size, 1, **shared), [seen], out_keys=[("agents", "state_value")]
    )
    loss = ClipPPOLoss(actor, critic)
    loss.set_keys(
        reward=("agents", "reward"),
        action=("agents", "action"),
        value=("agents", "state_value"),
        done=("agents", "done"),
        terminated=("agents", "terminated"),
        sample_log_prob=("agents", "sample_log_prob"),
    )
    loss.make_value_estimator()
    optimizer = torch.optim.Adam(loss.parameters(), 1e-3)
    before = [parameter.detach().clone() for parameter in actor.parameters()]
    collector = Collector(env, actor, frames_per_batch=80, total_frames=160)
    for batch in collector:
        for name in ("done", "terminated"):
            flag = batch["next", name][..., None]
            reward = batch["next", "agents", "reward"]
            batch["next", "agents", name] = flag.expand(reward.shape)
        with torch.no_grad():
            loss.value_estimator(batch)
        losses = loss(batch.reshape(-1))
        total = sum(value for name, value in losses.items() if name.startswith("loss_"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    collector.shutdown()
    assert any((a != b).any() for a, b in zip(before, actor.parameters(), strict=True))
