"""Every id is accepted by the checkers and wrappers of PettingZoo, Gymnasium, SB3 and TorchRL."""

from __future__ import annotations

import importlib
import math
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import pytest
from pettingzoo.utils import aec_to_parallel
from pettingzoo.utils.wrappers import TerminateIllegalWrapper

import invariantzoo
from invariantzoo.envs.core import registry
from invariantzoo.envs.core.interfaces.gymnasium import SystemVectorEnv
from invariantzoo.envs.core.observation import parameters
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.vector import VectorEnv

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
pytestmark = [  # zeros are what a walker that has left sees, and the state where all have left
    pytest.mark.filterwarnings("ignore:Observation numpy array is all zeros:UserWarning"),
    pytest.mark.filterwarnings("ignore:State numpy array is all zeros:UserWarning"),
]


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
        """Through the ends of several episodes."""
        api_test(invariantzoo.env(id, **short(id)), num_cycles=60)
        assert "Passed" in capsys.readouterr().out

    def test_seeds(self, id: str) -> None:
        parallel_seed_test(lambda: invariantzoo.parallel_env(id), num_cycles=20)
        seed_test(lambda: invariantzoo.env(id), num_cycles=20)

    @pytest.mark.parametrize("seed", [0, 5300])  # with 5300 all walkers leave: a state of zeros
    def test_states(self, id: str, seed: int) -> None:
        env = invariantzoo.env(id)
        for i, agent in enumerate(env.possible_agents):
            env.action_space(agent).seed(seed + i)
        state_test(env, invariantzoo.parallel_env(id), num_cycles=5)

    def test_spaces_by_name(self, id: str) -> None:
        for env in (invariantzoo.parallel_env(id), invariantzoo.env(id)):
            agent = env.possible_agents[-1]
            assert list(env.observation_spaces) == list(env.action_spaces) == env.possible_agents
            assert env.observation_spaces[agent] is env.observation_space(agent)
            assert env.action_spaces[agent] is env.action_space(agent)

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

    def test_max_cycles_is_the_length_of_the_task(self, id: str) -> None:
        if "horizon" in parameters(registry.system_class(id)):
            short = invariantzoo.parallel_env(id, max_cycles=7)
            assert short.unwrapped.system == invariantzoo.make_system(id, horizon=7)

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


def short(id: str) -> dict[str, Any]:
    """Parameters of episodes that end soon."""
    known = parameters(invariantzoo.make_system(id))
    brief = {"horizon": 6, "n_sweeps": 2, "burn_in": 0, "lattice_size": 2, "sweeps": 3}
    brief |= {"n_sites": 5, "n_particles": 2}
    return {name: value for name, value in brief.items() if name in known}


def draw(space: Any, rng: np.random.Generator) -> Any:
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(rng.integers(space.n))
    return rng.uniform(-1, 1, space.shape).astype(np.float32)


def play(env: Any, rng: np.random.Generator) -> list[tuple]:
    """What the steps of an episode give, after the reset."""
    space = env.action_space(env.possible_agents[0])
    steps = []
    while env.agents:
        steps.append(env.step({agent: draw(space, rng) for agent in env.agents}))
    return steps


VARIANTS = [
    *((id, {}) for id in IDS),
    *(("ising-equilibrium-v0", {"update": update}) for update in ("checkerboard", "parallel")),
    ("tasep-open-v0", {"update": "parallel"}),
    ("tasep-ring-v0", {"update": "parallel"}),
    ("test-relay-v0", {}),
    ("test-relay-v0", {"turns": False}),
]


@pytest.fixture
def _relay() -> Iterator[None]:
    before = dict(registry._SPECS)
    invariantzoo.register("test-relay-v0", "systems:Relay")
    yield
    registry._SPECS.clear()
    registry._SPECS.update(before)


@pytest.mark.usefixtures("_relay")
@pytest.mark.parametrize(("id", "more"), VARIANTS)
def test_parallelizable_is_what_pettingzoo_can_make_parallel(id: str, more: Any) -> None:
    """Where it says so, PettingZoo's wrapper gives the episode of our own parallel face."""
    settings = {**short(id), **more}
    aec = invariantzoo.env(id, **settings)
    parallel = invariantzoo.parallel_env(id, **settings)
    assert parallel.metadata["is_parallelizable"] is True
    if not aec.metadata["is_parallelizable"]:
        assert parallel.system.one_at_a_time
        aec.metadata["is_parallelizable"] = True
        theirs = aec_to_parallel(aec)
        theirs.reset(seed=0)
        with pytest.raises((AssertionError, KeyError)):
            play(theirs, np.random.default_rng(0))
        return
    theirs = aec_to_parallel(aec)
    for seed in range(3):
        expected, _ = parallel.reset(seed=seed)
        seen, _ = theirs.reset(seed=seed)
        assert all(np.array_equal(seen[agent], expected[agent]) for agent in parallel.agents)
        ours, other = (play(env, np.random.default_rng(seed)) for env in (parallel, theirs))
        assert len(ours) == len(other) > 1
        for mine, step in zip(ours, other, strict=True):
            for agent, observation in mine[0].items():
                assert np.array_equal(step[0][agent], observation)
            assert mine[1] == {agent: step[1][agent] for agent in mine[1]}
            assert mine[2:4] == step[2:4]


@pytest.mark.usefixtures("_relay")
@pytest.mark.parametrize("id", [*IDS, "test-relay-v0"])
def test_the_last_infos_hold_the_metrics(id: str) -> None:
    """Of all agents that are there to the end, in both faces of PettingZoo and nowhere before."""
    parallel, aec = (
        make(id, **short(id)) for make in (invariantzoo.parallel_env, invariantzoo.env)
    )
    _, first = parallel.reset(seed=4)
    names = {name for info in first.values() for name in info}
    steps = play(parallel, np.random.default_rng(0))
    metrics = parallel.metrics()
    assert {*metrics} - {"illegal_actions"} == {*parallel.system.reductions}
    assert not any("metrics" in info for step in steps[:-1] for info in step[4].values())
    last = [*steps[-1][4].values()]
    assert last
    for info in last:
        np.testing.assert_equal(info["metrics"], metrics)  # NaN is a value
        assert not names or {*info} <= names  # no key that is new, where there are some
    last[0]["metrics"].clear()
    for info in last[1:]:
        np.testing.assert_equal(info["metrics"], metrics)

    aec.reset(seed=4)
    rng = np.random.default_rng(0)
    for agent in aec.agent_iter():
        *_, terminated, truncated, info = aec.last()
        over = terminated or truncated
        aec.step(None if over else draw(aec.action_space(agent), rng))
    np.testing.assert_equal(info["metrics"], aec.metrics())


@pytest.mark.parametrize("id", IDS)
def test_batches_give_the_metrics_of_single_worlds(id: str) -> None:
    """At the end of an episode, through Gymnasium and Stable-Baselines3."""
    system = invariantzoo.make_system(id, **short(id))
    n, space, rng = system.n_agents, system.action_space, np.random.default_rng(0)
    worlds = [VectorEnv(system, 1, seed=4, first_world=world, autoreset=False) for world in (0, 1)]
    envs = SystemVectorEnv(system, 2 * n, autoreset_mode="next_step")
    vec_env = invariantzoo.vec_env(id, n_worlds=2, seed=4, **short(id))
    for env in (*worlds, vec_env):
        env.reset()
    envs.reset(seed=4)
    done = np.zeros(2 * n, bool)
    while not done.any():
        action = np.array([draw(space, rng) for _ in range(2 * n)])
        rows = action.reshape(2, 1, n, *action.shape[1:])
        singly = [env.step(row) for env, row in zip(worlds, rows, strict=True)]
        _, _, done, infos = vec_env.step(action)
        of_gymnasium = envs.step(action)[4].get("metrics", {})
    for world, step in enumerate(singly):
        expected = {name: float(value[0]) for name, value in step.metrics.items()}
        for slot in range(world * n, (world + 1) * n if done[world * n] else 0):
            np.testing.assert_equal(infos[slot]["metrics"], expected)
            for name, value in expected.items():
                np.testing.assert_equal(of_gymnasium[name][slot], value)


@pytest.mark.parametrize("id", SINGLE)
def test_a_single_controllers_last_info_holds_the_metrics(id: str) -> None:
    env: Any = gymnasium.make(f"invariantzoo/{id}", max_episode_steps=None, **short(id))
    env.reset(seed=0)
    over = False
    while not over:
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        over = terminated or truncated
        assert ("metrics" in info) == over
    assert {*info["metrics"]} == {*env.unwrapped._env.system.reductions}


def wrong_actions(space: Any) -> list[Any]:
    if isinstance(space, gymnasium.spaces.Discrete):
        return [0.7, "1", math.nan, -1, int(space.n), [0], np.array([1]), 10**30, 1j, {}]
    good = np.zeros(space.shape, np.float32)
    outside, unknown, endless = good.copy(), good.copy(), good.copy()
    outside[-1], unknown[-1], endless[0] = 1.1, math.nan, -math.inf
    shapes = [good[:1], np.append(good, good), good[None], good[:, None], good[0], good[:0]]
    if len(good) == 1:
        shapes = shapes[1:]
    return [outside, unknown, endless, *shapes, 0.5, "1", good.astype(str), good + 1j, {}, 10**30]


@pytest.mark.parametrize("id", IDS)
def test_wrong_actions_are_refused_by_name_and_nothing_moves(id: str) -> None:
    """Through both faces of PettingZoo, whichever agent's turn it is."""
    settings = short(id)
    parallel, aec = invariantzoo.parallel_env(id, **settings), invariantzoo.env(id, **settings)
    _, infos = parallel.reset(seed=1)
    aec.reset(seed=1)
    space = parallel.action_space(parallel.possible_agents[0])
    good = 0 if isinstance(space, gymnasium.spaces.Discrete) else np.zeros(space.shape, np.float32)
    turns = [agent for agent in parallel.agents if infos[agent].get("active", True)]
    before = parallel.state()
    for wrong in wrong_actions(space):
        agent = turns[-1]
        with pytest.raises(ValueError, match=f"^action of {agent} "):
            parallel.step({**dict.fromkeys(parallel.agents, good), agent: wrong})
        assert np.array_equal(parallel.state(), before)
        with pytest.raises(
            ValueError, match=f"^action of {turns[0]} is |^action of {turns[0]} has"
        ):
            aec.step(wrong)
        assert aec.agent_selection == turns[0]
        assert np.array_equal(aec.state(), before)
    for _ in turns[:-1]:
        aec.step(good)
    for wrong in wrong_actions(space):
        with pytest.raises(ValueError, match=f"^action of {turns[-1]} "):
            aec.step(wrong)
        assert np.array_equal(aec.state(), before)
    aec.step(good)
    assert parallel.step(dict.fromkeys(parallel.agents, good))[1] == aec.rewards
    assert np.array_equal(parallel.state(), aec.state())


@pytest.mark.parametrize("id", ["particles-crowd-v0", "ising-equilibrium-v0", "test-leave-v0"])
def test_usual_forms_of_actions_are_taken(id: str) -> None:
    """Whole numbers of any type, lists, float64, and torch's tensors."""
    import torch

    space = invariantzoo.make_system(id).action_space
    forms: list[Any]
    if isinstance(space, gymnasium.spaces.Discrete):
        forms = [1, np.int64(1), np.int32(1), np.array(1), 1.0, True, torch.tensor(1)]
    else:
        row = np.full(space.shape, 0.25)
        forms = [row, row.astype(np.float32), row.tolist(), torch.tensor(row), row.astype("f2")]
    results = set()
    for form in forms:
        parallel, aec = invariantzoo.parallel_env(id), invariantzoo.env(id)
        parallel.reset(seed=0)
        aec.reset(seed=0)
        rewards = parallel.step(dict.fromkeys(parallel.agents, form))[1]
        for _ in range(len(aec._queue)):
            aec.step(form)
        assert aec.rewards == rewards
        results.add(tuple(rewards.values()))
    assert len(results) == 1


@pytest.mark.parametrize("id", ["particles-crowd-v0", "ising-equilibrium-v0", "test-leave-v0"])
def test_actions_must_be_those_of_the_agents(id: str) -> None:
    env = invariantzoo.parallel_env(id)
    env.reset(seed=0)
    before = env.state()
    good = {agent: env.action_space(agent).sample() for agent in env.agents}
    first, second = env.agents[:2]
    missing = {agent: action for agent, action in good.items() if agent != second}
    for wrong, error, message in [
        (missing, KeyError, f"no action for agent '{second}'"),
        ({**good, "agent_0": good[first]}, KeyError, "unknown agent 'agent_0'"),
        ({**missing, f"{second}x": good[first]}, KeyError, f"did you mean '{second}'"),
        ({**good, 0: good[first]}, KeyError, "unknown agent 0"),
        ({}, KeyError, f"no action for agent '{first}'"),
        ([*good.values()], ValueError, "actions are a list; they must be a dictionary"),
        (np.zeros(3), ValueError, "actions are a ndarray"),
        (None, ValueError, "actions are a NoneType"),
    ]:
        with pytest.raises(error, match=message):
            env.step(wrong)
        assert np.array_equal(env.state(), before)
    for call in (env.action_space, env.observation_space, invariantzoo.env(id).action_space):
        with pytest.raises(KeyError, match="unknown agent 'nobody'; agents are"):
            call("nobody")


def test_actions_of_agents_that_have_left_are_not_looked_at() -> None:
    env = invariantzoo.parallel_env("test-leave-v0")
    env.reset(seed=0)
    while len(env.agents) == 4:
        env.step(dict.fromkeys(env.possible_agents, 1))
    left = next(agent for agent in env.possible_agents if agent not in env.agents)
    env.step({**dict.fromkeys(env.agents, 1), left: None})
    with pytest.raises(ValueError, match=f"^action of {env.agents[-1]} "):
        env.step({**dict.fromkeys(env.agents, 1), env.agents[-1]: [1, 1]})


def test_an_illegal_action_does_nothing_through_every_door() -> None:
    """A masked action is that of standing still: the same worlds, rewards and metrics follow."""
    n = 4
    for seed in range(6):
        worlds = [VectorEnv(invariantzoo.make_system("test-leave-v0"), 2, seed=seed) for _ in "ab"]
        for env in worlds:
            env.reset()
        mask = worlds[0].action_mask()
        assert mask is not None
        given = [np.ones((2, n), np.int64), mask[..., 1].astype(np.int64)]  # with and without
        steps = [env.step(action) for env, action in zip(worlds, given, strict=True)]
        assert (given[0] != given[1]).any()
        assert np.array_equal(steps[0].observation, steps[1].observation)
        assert np.array_equal(steps[0].reward, steps[1].reward)
        envs = gymnasium.make_vec("invariantzoo/test-leave-v0", num_envs=2 * n)
        vec_env = invariantzoo.vec_env("test-leave-v0", n_worlds=2, seed=seed)
        parallel, aec = (
            invariantzoo.parallel_env("test-leave-v0"),
            invariantzoo.env("test-leave-v0"),
        )
        for env in (envs, parallel, aec):
            env.reset(seed=seed)
        vec_env.reset()
        flat = steps[1].observation.reshape(2 * n, -1)
        assert np.array_equal(envs.step(given[0].ravel())[0], flat)
        assert np.array_equal(vec_env.step(given[0].ravel())[0], flat)
        seen = parallel.step(dict.fromkeys(parallel.agents, 1))[0]
        aec.step(1)
        for i, agent in enumerate(parallel.possible_agents):
            assert np.array_equal(seen[agent], flat[i])
            assert np.array_equal(aec.observe(agent), flat[i])


@pytest.mark.parametrize("id", ["particles-crowd-v0", "ising-equilibrium-v0", "test-hold-v0"])
def test_calls_before_reset(id: str) -> None:
    parallel = invariantzoo.parallel_env(id, render_mode="rgb_array")
    aec = invariantzoo.env(id, render_mode="rgb_array")
    worlds = VectorEnv(invariantzoo.make_system(id), 2)
    agent = parallel.possible_agents[0]
    space = parallel.action_space(agent)
    action = np.zeros((2, len(parallel.possible_agents), *(space.shape or ())), space.dtype)
    calls: list[Callable[[], Any]] = [
        *(env.render for env in (parallel, aec)),
        *(env.state for env in (parallel, aec)),
        *(env.metrics for env in (parallel, aec)),
        lambda: parallel.step({agent: space.sample()}),
        lambda: aec.step(space.sample()),
        aec.last,
        lambda: aec.last(observe=False),
        aec.agent_iter,
        lambda: aec.observe(agent),
        lambda: worlds.step(action),
        worlds.observe,
        worlds.active,
        worlds.action_mask,
        worlds.episode_metrics,
        worlds.save,
        lambda: worlds.tensors,
        lambda: worlds.adjust("temperature", 1),
        lambda: worlds.rollout("random", 1, every=1),
    ]
    if id == "test-hold-v0":
        env = gymnasium.make(f"invariantzoo/{id}", render_mode="rgb_array")
        calls += [env.render, lambda: env.step(env.action_space.sample())]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"^reset\(\) must be called before "):
            call()


def test_max_cycles_goes_before_the_systems_own_length() -> None:
    env = invariantzoo.parallel_env("particles-encounter-v0", max_cycles=2, horizon=9)
    env.reset(seed=0)
    steps = 0
    while env.agents:
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
        steps += 1
    assert steps == 2


def test_a_long_action_is_refused_in_a_line() -> None:
    env = invariantzoo.parallel_env("particles-crowd-v0", n_agents=12)
    env.reset(seed=0)
    shape = env.action_space(env.agents[0]).shape
    with pytest.raises(ValueError, match=r"^action of particle_0 is array\(\[0\.") as caught:
        env.step({agent: np.zeros(shape, complex) for agent in env.agents})
    assert "\n" not in str(caught.value)


def test_a_step_after_the_end() -> None:
    aec = invariantzoo.env("test-hold-v0", max_cycles=1)
    aec.reset(seed=0)
    aec.step(aec.action_space("controller_0").sample())
    aec.step(None)
    assert not aec.agents
    with pytest.raises(RuntimeError, match="the episode is over: reset"):
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
    """Also the end of an episode, at which infos hold more than in the step before."""
    pytest.importorskip("torchrl", reason="TorchRL is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrappers = importlib.import_module("torchrl.envs.libs.pettingzoo")
        checks = importlib.import_module("torchrl.envs.utils")
        system = invariantzoo.make_system(id, **short(id))
        leaves = system.terminated(system.initial(Rng.single(0, 1), 1)) is not None
        ours = invariantzoo.parallel_env(id, **short(id))
        env = wrappers.PettingZooWrapper(ours, use_mask=leaves)
        checks.check_env_specs(env)
        env.set_seed(0)
        steps = env.rollout(1000)
    assert len(steps) == system.horizon or leaves
    info = steps["next"].get((system.agent_name, "info"), None)
    if info is not None:  # where infos have keys at the start, metrics are one
        rows = info["metrics"][-1]
        expected = [*ours.metrics().values()]
        assert any(np.allclose(row, expected, equal_nan=True) for row in rows.numpy())


@pytest.mark.parametrize("id", IDS)
def test_rllib_accepts(id: str) -> None:
    pytest.importorskip("ray.rllib", reason="RLlib is not installed")
    from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv

    env = ParallelPettingZooEnv(invariantzoo.parallel_env(id))
    env.reset(seed=0)
    env.step({agent: env.get_action_space(agent).sample() for agent in env.agents})


@pytest.mark.parametrize("make", [invariantzoo.parallel_env, invariantzoo.env])
def test_wrappers_draw_by_the_seed_without_moving_the_world(make: Any) -> None:
    """`np_random` begins anew with a seed, goes on without one, and is not the world's own."""
    env, other = (make("ising-equilibrium-v0", lattice_size=3) for _ in range(2))
    env.reset(seed=5)
    other.reset(seed=5)
    first = env.np_random.random(3)
    assert np.array_equal(env.state(), other.state())
    env.reset()
    other.reset()
    assert np.array_equal(env.state(), other.state())
    later = env.np_random.random(3)
    assert not np.array_equal(first, later)
    assert np.array_equal(other.np_random.random(6), [*first, *later])
    env.reset(seed=5, options={"world": 1})
    assert np.array_equal(env.np_random.random(3), first)
    with pytest.raises(ValueError, match="seed"):
        env.reset(seed=-1)
    assert np.array_equal(env.np_random.random(3), later)


def test_supersuit_skips_frames() -> None:
    supersuit = pytest.importorskip("supersuit", reason="SuperSuit is not installed")
    plain = invariantzoo.parallel_env("particles-crowd-v0", n_agents=4, horizon=6)
    skipping = supersuit.frame_skip_v0(
        invariantzoo.parallel_env("particles-crowd-v0", n_agents=4, horizon=6), 3
    )
    plain.reset(seed=0)
    skipping.reset(seed=0)
    for last in (False, True):
        actions = {agent: plain.action_space(agent).sample() for agent in plain.agents}
        steps = [plain.step(actions) for _ in range(3)]
        seen, rewards, _, truncations, _ = skipping.step(actions)
        for agent, action in actions.items():
            assert np.array_equal(seen[agent], steps[-1][0][agent]), action
            assert rewards[agent] == sum(step[1][agent] for step in steps)
            assert truncations[agent] is last


def test_pettingzoo_ends_an_episode_at_what_a_mask_forbids() -> None:
    wrapped = TerminateIllegalWrapper(invariantzoo.env("test-leave-v0"), illegal_reward=-7.0)
    plain = invariantzoo.env("test-leave-v0")
    plain.reset(seed=0)
    wrapped.reset(seed=0)
    for agent in plain.agent_iter():  # nothing illegal: nothing is different
        assert wrapped.agent_selection == agent
        seen, *rest, info = plain.last()
        again, *others, _ = wrapped.last()
        assert np.array_equal(seen, again)
        assert rest == others
        action = None if rest[1] or rest[2] else int(info["action_mask"][1])
        plain.step(action)
        wrapped.step(action)
    wrapped.reset(seed=0)
    offender, rewards = "", {}
    for agent in wrapped.agent_iter():
        _, reward, terminated, truncated, info = wrapped.last()
        if terminated or truncated:
            rewards[agent] = reward
            wrapped.step(None)
            continue
        offender = "" if info["action_mask"][1] else agent
        wrapped.step(1)
    assert wrapped.agents == []
    assert rewards[offender] == -7.0
    assert len(rewards) == 4
