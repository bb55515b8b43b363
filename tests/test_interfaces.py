"""Every id is accepted by the checkers and wrappers of PettingZoo, Gymnasium, SB3 and TorchRL."""

from __future__ import annotations

import importlib
import types
import warnings
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import pytest

import invariantzoo
from invariantzoo.envs.core.rng import Rng

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pettingzoo.test import (
        api_test,
        max_cycles_test,
        parallel_api_test,
        parallel_seed_test,
        render_test,
        seed_test,
    )
    from pettingzoo.test.state_test import state_test

IDS = invariantzoo.ids()
SINGLE = [id for id in IDS if invariantzoo.make_system(id).n_agents == 1]
pytestmark = pytest.mark.filterwarnings("ignore:Observation numpy array is all zeros:UserWarning")


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def all_at_once(id: str) -> bool:
    return not invariantzoo.make_system(id).one_at_a_time


@pytest.mark.parametrize("id", IDS)
class TestPettingZoo:
    def test_parallel_api(self, id: str) -> None:
        parallel_api_test(invariantzoo.parallel_env(id), num_cycles=250)

    def test_aec_api(self, id: str, capsys: pytest.CaptureFixture[str]) -> None:
        api_test(invariantzoo.env(id), num_cycles=250)
        assert "Passed" in capsys.readouterr().out

    def test_seeds(self, id: str) -> None:
        parallel_seed_test(lambda: invariantzoo.parallel_env(id), num_cycles=60)
        seed_test(lambda: invariantzoo.env(id), num_cycles=60)

    def test_states(self, id: str) -> None:
        state_test(invariantzoo.env(id), invariantzoo.parallel_env(id), num_cycles=5)

    def test_pictures(self, id: str) -> None:
        render_test(lambda **kwargs: invariantzoo.env(id, **kwargs))

    def test_length(self, id: str) -> None:
        if not all_at_once(id) or id.startswith("test-leave"):
            pytest.skip("agents do not all act until the end")
        module = types.SimpleNamespace(
            parallel_env=lambda max_cycles: invariantzoo.parallel_env(id, horizon=max_cycles),
            env=lambda max_cycles: invariantzoo.env(id, horizon=max_cycles),
        )
        max_cycles_test(module)

    def test_make(self, id: str) -> None:
        parallel = pettingzoo.make("parallel", f"invariantzoo/{id}")
        assert parallel.metadata["name"] == id
        assert isinstance(pettingzoo.make("aec", f"invariantzoo/{id}"), pettingzoo.AECEnv)
        parallel.reset(seed=0)
        steps = 0
        short = pettingzoo.make("parallel", f"invariantzoo/{id}", max_cycles=3)
        short.reset(seed=0)
        while short.agents:
            short.step({agent: short.action_space(agent).sample() for agent in short.agents})
            steps += 1
        assert steps <= 3

    def test_aec_obeys_the_law_of_the_parallel_face(self, id: str) -> None:
        """The same seed and the same actions give the same rewards in both faces."""
        parallel, aec = invariantzoo.parallel_env(id), invariantzoo.env(id)
        _, infos = parallel.reset(seed=5)
        aec.reset(seed=5)
        rng = np.random.default_rng(0)
        space = parallel.action_space(parallel.possible_agents[0])
        for _ in range(12):
            if not parallel.agents:
                break
            actions: dict[str, Any] = {
                agent: rng.integers(space.n)  # type: ignore[attr-defined]
                if isinstance(space, gymnasium.spaces.Discrete)
                else rng.uniform(-1, 1, space.shape).astype(np.float32)  # type: ignore[arg-type]
                for agent in parallel.agents
            }
            turn = [agent for agent in parallel.agents if infos[agent].get("active", True)]
            _, rewards, _, _, infos = parallel.step(actions)
            for expected in turn or parallel.possible_agents[:0]:
                assert aec.agent_selection == expected
                aec.step(actions[expected])
            assert {agent: aec.rewards[agent] for agent in rewards} == rewards
            while aec.agents and aec.terminations[aec.agent_selection]:
                aec.step(None)


@pytest.mark.parametrize("id", IDS)
class TestGymnasium:
    def test_make_vec(self, id: str) -> None:
        system = invariantzoo.make_system(id)
        n = system.n_agents
        env = gymnasium.make_vec(f"invariantzoo/{id}", num_envs=2 * n)
        assert env.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
        observation, _ = env.reset(seed=3)
        env.action_space.seed(0)
        assert env.observation_space.contains(observation)
        for _ in range(system.horizon if system.horizon < 500 else 50):
            before = env.step(env.action_space.sample())
        observation, reward, terminated, truncated, infos = before
        assert observation.shape == (2 * n, *env.single_observation_space.shape)
        assert reward.shape == terminated.shape == truncated.shape == (2 * n,)
        if system.horizon < 500 and all_at_once(id):
            assert truncated.all()
            assert infos["_final_obs"].all()
            assert infos["final_obs"][0].shape == env.single_observation_space.shape
        env.close()

    def test_slots_come_by_worlds(self, id: str) -> None:
        n = invariantzoo.make_system(id).n_agents
        if n == 1:
            pytest.skip("any number of slots fits one agent")
        with pytest.raises(ValueError, match=f"multiple of the {n} agents"):
            gymnasium.make_vec(f"invariantzoo/{id}", num_envs=n + 1)

    def test_make(self, id: str) -> None:
        if id not in SINGLE:
            with pytest.raises(ValueError, match=r"make_vec or invariantzoo\.parallel_env"):
                gymnasium.make(f"invariantzoo/{id}")
            return
        from gymnasium.utils.env_checker import check_env

        env = gymnasium.make(f"invariantzoo/{id}", render_mode="rgb_array")
        check_env(env.unwrapped, skip_render_check=False)
        env.close()


@pytest.mark.parametrize("id", SINGLE)
def test_stable_baselines_accepts_single_controllers(id: str) -> None:
    from stable_baselines3.common.env_checker import check_env

    check_env(gymnasium.make(f"invariantzoo/{id}").unwrapped)


@pytest.mark.parametrize("id", IDS)
def test_torchrl_accepts(id: str) -> None:
    pytest.importorskip("torchrl", reason="TorchRL is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrappers = importlib.import_module("torchrl.envs.libs.pettingzoo")
        checks = importlib.import_module("torchrl.envs.utils")
        system = invariantzoo.make_system(id)
        leaves = system.gone(system.initial(Rng.single(0, 1), 1)) is not None
        env = wrappers.PettingZooWrapper(invariantzoo.parallel_env(id), use_mask=leaves)
        checks.check_env_specs(env)


@pytest.mark.parametrize("id", IDS)
def test_rllib_accepts(id: str) -> None:
    pytest.importorskip("ray.rllib", reason="RLlib is not installed")
    from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv

    env = ParallelPettingZooEnv(invariantzoo.parallel_env(id))
    env.reset(seed=0)
    env.step({agent: env.get_action_space(agent).sample() for agent in env.agents})
