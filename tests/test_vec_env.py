"""The Stable-Baselines3 VecEnv: its contract, over every registered id."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecMonitor,
    VecNormalize,
)

import invariantzoo
from invariantzoo.envs.core.interfaces.stable_baselines3 import Dones, SystemVecEnv
from invariantzoo.envs.core.observation import parameters
from invariantzoo.envs.core.vector import VectorEnv

# VecMonitor says so of our `episode`, which it overwrites.
MONITORED = pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`")
BRIEF = {"horizon": 7, "n_sweeps": 2, "burn_in": 0, "lattice_size": 3}
SPECIAL: dict[str, dict[str, Any]] = {
    "particles-crowd-v0": {"n_agents": 5},
    "particles-encounter-v0": {"horizon": 25},  # long enough to meet
    "test-leave-v0": {"horizon": 25},
}
WORLDS = 3


@pytest.fixture(params=invariantzoo.ids())
def id(request: pytest.FixtureRequest) -> str:
    return request.param


def small(id: str, n_worlds: int = WORLDS, **more: Any) -> SystemVecEnv:
    known = parameters(invariantzoo.make_system(id))
    brief = {name: value for name, value in BRIEF.items() if name in known}
    settings = {**brief, **SPECIAL.get(id, {}), **more}
    return invariantzoo.vec_env(id, n_worlds=n_worlds, seed=5, **settings)


def draw(env: VecEnv, rng: np.random.Generator) -> np.ndarray:
    """Actions [num_envs, ...] as SB3 hands them in."""
    if env.action_space.shape:
        size = (env.num_envs, *env.action_space.shape)
        return rng.uniform(-1, 1, size).astype(np.float32)
    return rng.integers(env.action_space.n, size=env.num_envs)


def play(env: VecEnv, steps: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, list[Any]]]:
    rng = np.random.default_rng(0)
    first = env.reset()
    rows = [(first, np.zeros(env.num_envs), np.zeros(env.num_envs, bool), [])]
    return rows + [env.step(draw(env, rng)) for _ in range(steps)]


def horizon(env: SystemVecEnv) -> int:
    return env.system.horizon


def test_shapes_and_types(id: str) -> None:
    env = small(id)
    n = WORLDS * env.system.n_agents
    assert env.num_envs == n
    for observation, reward, done, infos in play(env, 2 * horizon(env))[1:]:
        assert observation.shape == (n, *env.observation_space.shape)
        assert observation.dtype == np.float32
        assert reward.shape == done.shape == (n,)
        assert reward.dtype == np.float32
        assert done.dtype == bool
        assert len(infos) == n
        assert all(env.observation_space.contains(row) for row in observation)


def test_is_the_vector_env_slot_by_slot(id: str) -> None:
    env = small(id)
    worlds = VectorEnv(env.system, WORLDS, seed=5)
    n, size = env.system.n_agents, env.observation_space.shape[0]
    assert np.array_equal(env.reset().reshape(WORLDS, n, size), worlds.reset())
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(2 * horizon(env) + 1):
        action = draw(env, rng)
        observation, reward, done, infos = env.step(action)
        step = worlds.step(action.reshape(WORLDS, n, *action.shape[1:]))
        assert np.array_equal(observation.reshape(step.observation.shape), step.observation)
        assert np.array_equal(reward.reshape(WORLDS, n), step.reward.astype(np.float32))
        assert np.array_equal(done.reshape(WORLDS, n), np.repeat(step.done[:, None], n, 1))
        assert np.array_equal(env.acted.reshape(WORLDS, n), worlds.acted)
        assert np.array_equal(env.terminated.reshape(WORLDS, n), step.terminated)
        for slot, info in enumerate(infos):
            world, agent = divmod(slot, n)
            if not done[slot]:
                assert {*info} <= {"action_mask"}
                continue
            ended += 1
            assert step.final_observation is not None
            final = step.final_observation[world, agent]
            assert np.array_equal(info["terminal_observation"], final)
            assert info["TimeLimit.truncated"] is bool(step.truncated[world, agent])
            scores = {name: value[world] for name, value in step.metrics.items()}
            assert info["metrics"] == pytest.approx(scores, nan_ok=True)
    assert ended


def test_terminal_observation_is_what_a_longer_episode_shows() -> None:
    short, long = small("particles-crowd-v0"), small("particles-crowd-v0", horizon=100)
    _, _, done, infos = play(short, 7)[-1]
    shown = play(long, 7)[-1][0]
    assert done.all()
    assert np.array_equal(np.stack([info["terminal_observation"] for info in infos]), shown)


def test_episode_sums(id: str) -> None:
    env = small(id)
    rewards, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
    rows = play(env, 3 * horizon(env))
    episodes = 0
    for _, reward, done, infos in rows[1:]:
        rewards += reward
        lengths += 1
        for slot in np.flatnonzero(done):
            episode = infos[slot]["episode"]
            assert episode["r"] == pytest.approx(rewards[slot], rel=1e-4, abs=1e-5)
            assert episode["l"] <= lengths[slot]
            if env.system.terminated(env.worlds.tensors) is None:
                assert episode["l"] == lengths[slot]
            assert 0 <= episode["t"] < time.time()
            episodes += 1
        rewards[done], lengths[done] = 0, 0
    assert episodes


def test_nothing_is_handed_out_twice(id: str) -> None:
    env = small(id)
    rows = play(env, 2 * horizon(env))
    arrays = [part for observation, reward, done, _ in rows for part in (observation, reward, done)]
    before = [part.copy() for part in arrays]
    infos = [info for row in rows for info in row[3]]
    for i, part in enumerate(arrays):
        assert not any(np.shares_memory(part, other) for other in arrays[i + 1 : i + 7])
    assert all(a is not b for i, a in enumerate(infos) for b in infos[i + 1 : i + 99])
    play(env, horizon(env))
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def test_what_a_caller_writes_does_not_come_back(id: str) -> None:
    plain, scribbled = small(id), small(id)
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    plain.reset()
    scribbled.reset()[:] = 7
    for _ in range(2 * horizon(plain)):
        action = draw(scribbled, same)
        mine = plain.step(draw(plain, rng))
        theirs = scribbled.step(action)
        for a, b in zip(mine[:3], theirs[:3], strict=True):
            assert np.array_equal(a, b)
            b[:] = 1
        for a, b in zip(mine[3], theirs[3], strict=True):
            assert a.keys() == b.keys()
            if "action_mask" in b:
                assert np.array_equal(a["action_mask"], b["action_mask"])
                b["action_mask"][:] = 9
            if "episode" in b:
                assert np.array_equal(a["terminal_observation"], b["terminal_observation"])
                b["terminal_observation"][:] = 9
                b["metrics"].clear()
                b["episode"].clear()
        action[:] = 0


def test_seeding(id: str) -> None:
    env = small(id)
    assert env.seed(11) == [11] * env.num_envs
    first = play(env, 15)
    env.seed(11)
    again = play(env, 15)
    env.seed(12)
    other = play(env, 15)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first, other, strict=True))
    following = play(env, 15)  # without a seed: the next episodes
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(following, other, strict=True))
    made = invariantzoo.vec_env("test-hold-v0", n_worlds=2, seed=11)
    reseeded = invariantzoo.vec_env("test-hold-v0", n_worlds=2, seed=3)
    reseeded.seed(11)
    assert np.array_equal(made.reset(), reseeded.reset())
    fresh = [invariantzoo.vec_env("test-hold-v0").reset() for _ in range(2)]
    assert not np.array_equal(*fresh)


_OTHER_PROCESS = """
import numpy as np, invariantzoo
env = invariantzoo.vec_env("particles-crowd-v0", n_worlds=3, seed=5, n_agents=5, horizon=7)
rng = np.random.default_rng(0)
total = [env.reset()]
for _ in range(20):
    total.append(env.step(rng.uniform(-1, 1, (15, *env.action_space.shape)).astype(np.float32))[0])
print(np.stack(total).tobytes().hex()[-4000:])
"""


def test_another_process_sees_the_same() -> None:
    words = [sys.executable, "-c", _OTHER_PROCESS]
    there = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    here = [row[0] for row in play(small("particles-crowd-v0"), 20)]
    assert np.stack(here).tobytes().hex()[-4000:] == there


def test_world_of_a_batch_is_the_world_alone(id: str) -> None:
    batch, alone = small(id), small(id, 1)
    n = batch.system.n_agents
    rng = np.random.default_rng(0)
    assert np.array_equal(batch.reset()[:n], alone.reset())
    for _ in range(2 * horizon(batch)):
        action = draw(batch, rng)
        assert np.array_equal(batch.step(action)[0][:n], alone.step(action[:n])[0])


def test_gone_agents_are_absorbed() -> None:
    env = invariantzoo.vec_env("test-leave-v0", n_worlds=16, seed=0, horizon=60)
    env.reset()
    gone = np.zeros(env.num_envs, bool)
    left = finished = 0
    for _ in range(130):
        observation, reward, done, infos = env.step(np.ones(env.num_envs, int))
        assert not observation[gone & ~done].any()
        assert not reward[gone].any()
        assert not env.acted[gone].any()
        ends = done.reshape(16, -1)
        assert (ends.all(1) == ends.any(1)).all()  # done with the world
        terminated = env.terminated
        left += int((terminated & ~gone & ~done).sum())
        for slot in np.flatnonzero(done):
            finished += 1
            assert infos[slot]["TimeLimit.truncated"] is not bool(terminated[slot])
            if gone[slot]:
                assert not infos[slot]["terminal_observation"].any()
        gone = terminated & ~done
    assert left > 20
    assert finished > 60


def test_save_and_restore(id: str) -> None:
    env = small(id)
    play(env, horizon(env) + 2)
    saved = env.save()
    rng = np.random.default_rng(1)
    actions = [draw(env, rng) for _ in range(horizon(env))]
    first = [env.step(action) for action in actions]
    other = small(id)
    other.restore(saved)
    for action, (observation, reward, done, infos) in zip(actions, first, strict=True):
        again = other.step(action)
        assert np.array_equal(again[0], observation)
        assert np.array_equal(again[1], reward)
        assert np.array_equal(again[2], done)
        for a, b in zip(again[3], infos, strict=True):
            assert ("episode" in a) == ("episode" in b)
            if "episode" in a:
                assert (a["episode"]["r"], a["episode"]["l"]) == (
                    b["episode"]["r"],
                    b["episode"]["l"],
                )


def test_what_others_saved_is_refused_and_nothing_changes() -> None:
    env = small("particles-crowd-v0")
    play(env, 3)
    before = env.save()
    more = invariantzoo.vec_env("particles-crowd-v0", n_worlds=4, n_agents=5, seed=0)
    more.reset()
    spins = invariantzoo.vec_env("ising-equilibrium-v0", n_worlds=3, seed=0)
    spins.reset()
    one_less = {name: value for name, value in before.items() if name != "clock"}
    for saved in (more.save(), spins.save(), one_less, {}, {"seed": 0}):
        with pytest.raises(ValueError, match=r"^saved "):
            env.restore(saved)
        after = env.save()
        assert all(np.array_equal(after[name], value) for name, value in before.items())
    action = draw(env, np.random.default_rng(2))
    assert len(env.step(action)[3]) == env.num_envs


def test_pickled_in_the_middle(id: str) -> None:
    env = small(id)
    play(env, 3)
    copy = pickle.loads(pickle.dumps(env))
    action = draw(env, np.random.default_rng(2))
    assert np.array_equal(env.step(action)[0], copy.step(action)[0])


def test_attributes_and_methods() -> None:
    env = small("particles-crowd-v0")
    assert env.get_attr("radius") == [0.25] * 15
    assert env.get_attr("world", [0, 7, -1]) == [0, 1, 2]
    assert env.get_attr("agent", 7) == [2]
    assert env.has_attr("n_agents")
    assert not env.has_attr("n_wheels")
    with pytest.raises(AttributeError):
        env.get_attr("n_wheels")
    env.set_attr("colour", "red", [1, 2])
    assert env.get_attr("colour", [2, 1]) == ["red", "red"]
    assert not env.has_attr("colour")
    with pytest.raises(ValueError, match="radius is a parameter"):
        env.set_attr("radius", 1.0)
    assert env.env_method("get_wrapper_attr", "agent", indices=[3, 4]) == [3, 4]
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * 15
    assert env.env_is_wrapped(gymnasium.Wrapper, [0]) == [False]
    with pytest.raises(IndexError):
        env.get_attr("agent", 15)
    env.close()


def test_action_masks() -> None:
    env = small("test-leave-v0")
    env.reset()
    masks = env.action_masks()
    assert masks.shape == (12, 2)
    assert masks[:, 0].all()
    assert not masks[:, 1].all()
    assert np.array_equal(np.stack(env.env_method("action_masks")), masks)
    assert small("ising-equilibrium-v0").num_envs == 27


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.5])
def test_wrong_actions_are_refused(wrong: float) -> None:
    env = small("particles-crowd-v0")
    env.reset()
    action = np.zeros((15, *env.action_space.shape), np.float32)
    action[7, 2] = wrong
    with pytest.raises(ValueError, match="particle_2 in world 1"):
        env.step(action)


def test_rows_that_do_not_act_are_ignored() -> None:
    system = invariantzoo.make_system("test-leave-v0")
    clean, littered = (VectorEnv(system, 4, seed=1, autoreset=False) for _ in range(2))
    clean.reset()
    littered.reset()
    with pytest.raises(ValueError, match="nan"):
        littered.step(np.where(littered.active(), np.nan, 0.0))
    for _ in range(20):
        action = np.ones((4, system.n_agents))
        garbage = np.where(clean.active(), action, np.nan)
        one, other = clean.step(action), littered.step(garbage)
        assert np.array_equal(one.observation, other.observation)
        assert np.array_equal(one.reward, other.reward)
    assert np.isnan(garbage).any()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="first_world=4294967295"):
        VectorEnv(invariantzoo.make_system("test-hold-v0"), 2, first_world=2**32 - 1)
    with pytest.raises(ValueError, match="render_mode='ascii'"):
        invariantzoo.vec_env("test-hold-v0", render_mode="ascii")
    with pytest.raises(ValueError, match="n_worlds=0"):
        invariantzoo.vec_env("test-hold-v0", n_worlds=0)
    with pytest.raises(ValueError, match="radius"):
        invariantzoo.vec_env("particles-crowd-v0", radus=0.2)


def test_pictures(id: str) -> None:
    env = small(id, 4)
    pictured = invariantzoo.vec_env(id, n_worlds=4, seed=5, render_mode="rgb_array")
    assert env.render_mode is None
    assert pictured.metadata["render_modes"] == ["human", "rgb_array"]
    pictured.reset()
    images = pictured.get_images()
    assert len(images) == 4
    tiled = pictured.render()
    assert tiled is not None
    assert tiled.dtype == np.uint8
    assert tiled.shape[0] == 2 * images[0].shape[0]
    assert np.array_equal(pictured.env_method("render", indices=[0])[0], images[0])
    assert not np.shares_memory(pictured.get_images()[0], images[0])
    pictured.close()


@MONITORED
@pytest.mark.parametrize("id", ["particles-crowd-v0", "test-leave-v0"])
def test_wrappers(id: str) -> None:
    bare = small(id)
    size = bare.observation_space.shape[0]
    env = VecCheckNan(VecNormalize(VecMonitor(bare)), raise_exception=True)
    assert env.render_mode is None
    checked = 0
    for observation, reward, done, infos in play(env, 4 * horizon(bare))[1:]:
        assert observation.shape == (env.num_envs, size)
        assert np.abs(observation).max() <= 10
        assert np.abs(reward).max() <= 10
        for slot in np.flatnonzero(done):
            info = infos[slot]
            assert info["terminal_observation"].shape == (size,)
            assert info["episode"]["l"] > 0
            checked += 1
    assert checked
    assert env.unwrapped is bare
    assert env.get_attr("n_agents", 0) == [bare.system.n_agents]


@MONITORED
def test_monitor_agrees_with_the_infos() -> None:
    plain, watched = small("particles-crowd-v0"), VecMonitor(small("particles-crowd-v0"))
    for mine, theirs in zip(play(plain, 7)[-1][3], play(watched, 7)[-1][3], strict=True):
        assert theirs["episode"]["r"] == pytest.approx(mine["episode"]["r"], rel=1e-5)
        assert theirs["episode"]["l"] == mine["episode"]["l"]


def test_video_recorder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder's frames; writing the file is moviepy's affair, which is no dependency."""
    from types import ModuleType

    from stable_baselines3.common.vec_env import VecVideoRecorder

    class Clip:
        def __init__(self, frames: list[np.ndarray], fps: int) -> None:
            seen.append((frames, fps))

        def write_videofile(self, path: str) -> None:
            seen.append(path)

    seen: list[Any] = []
    parts = ["moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip"]
    for name in parts:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[parts[-1]].ImageSequenceClip = Clip  # type: ignore[attr-defined]
    bare = invariantzoo.vec_env("test-leave-v0", n_worlds=2, seed=0, render_mode="rgb_array")
    env = VecVideoRecorder(bare, str(tmp_path), lambda step: step == 0, video_length=60)
    play(env, 70)
    frames, fps = seen[0]
    assert fps == 30
    assert len(frames) == 61
    assert all(frame.shape == frames[0].shape for frame in frames)
    assert not all(np.array_equal(frame, frames[0]) for frame in frames)
    env.close()


def test_evaluate_policy(id: str) -> None:
    """Without a word about a missing Monitor, and with the episodes that a VecMonitor sees."""
    from stable_baselines3 import PPO

    env = small(id)
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=env.num_envs * 2, device="cpu")
    returns, lengths = evaluate_policy(model, env, 5, return_episode_rewards=True)
    assert len(returns) == len(lengths) >= 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monitored = VecMonitor(small(id))
    theirs = evaluate_policy(model, monitored, 5, return_episode_rewards=True)
    assert returns == pytest.approx(theirs[0], rel=1e-4, abs=1e-5)
    if not env.worlds.may_leave:
        assert lengths == theirs[1]


def test_says_that_infos_hold_episodes_and_nothing_else() -> None:
    env = small("particles-crowd-v0")
    assert env.env_is_wrapped(Monitor) == [True] * 15
    assert env.env_is_wrapped(Monitor, [3, 4]) == [True, True]
    assert env.env_is_wrapped(gymnasium.wrappers.TimeLimit, [0]) == [False]


@pytest.mark.parametrize("id", ["particles-crowd-v0", "test-leave-v0", "ising-equilibrium-v0"])
def test_flags_of_ends_say_who_acted(id: str) -> None:
    env = small(id)
    rows = play(env, 2 * horizon(env) + 1)[1:]
    told = 0
    for _, _, done, _ in rows:
        assert isinstance(done, Dones)
        told += done.acted is not None
    last = rows[-1][2]
    for copied in (last, last.copy(), last | last, deepcopy(last)):
        acted = np.ones(env.num_envs, bool) if copied.acted is None else copied.acted
        left = np.zeros(env.num_envs, bool) if copied.terminated is None else copied.terminated
        assert np.array_equal(acted, env.acted)
        assert np.array_equal(left, env.terminated)
    assert last[:2].acted is None  # no longer one flag per slot
    assert told == (0 if id == "particles-crowd-v0" else len(rows))
    loaded = pickle.loads(pickle.dumps(last))
    assert type(loaded) is np.ndarray  # so that a saved model needs nothing of ours
    assert np.array_equal(loaded, last)


@pytest.mark.parametrize("call", ["render", "get_images", "save", "action_masks", "step", "masks"])
def test_calls_before_reset(call: str) -> None:
    env = invariantzoo.vec_env("test-leave-v0", n_worlds=2, render_mode="rgb_array")
    calls: dict[str, Any] = {
        "step": lambda: env.step(np.zeros(8, int)),
        "masks": lambda: env.env_method("action_masks"),
    }
    with pytest.raises(RuntimeError, match=r"^reset\(\) must be called before "):
        calls.get(call, getattr(env, call, None))()


def test_masks_where_nothing_is_masked() -> None:
    env = small("ising-equilibrium-v0")
    env.reset()
    assert np.stack(env.env_method("action_masks")).all()
    assert np.stack(env.env_method("action_masks", indices=[0, 5])).shape == (2, 2)
    with pytest.raises(ValueError, match="continuous actions"):
        small("particles-crowd-v0").action_masks()


@pytest.mark.parametrize(
    "other",
    [np.transpose, np.ravel, lambda a: a[None], lambda a: a[:, :1], lambda a: a[1:]],
    ids=["transposed", "flat", "one more axis", "one number each", "one row less"],
)
def test_actions_of_another_shape_are_refused(other: Callable[[np.ndarray], np.ndarray]) -> None:
    """Also where they hold as many numbers, which would go to other agents."""
    env = small("particles-crowd-v0")
    env.reset()
    before = env.save()
    with pytest.raises(ValueError, match="they must be"):
        env.step(other(np.zeros((15, *env.action_space.shape), np.float32)))
    assert all(np.array_equal(value, env.save()[name]) for name, value in before.items())


@pytest.mark.parametrize("id", ["ising-transport-v0", "neurons-v0", "particles-encounter-v0"])
def test_actions_are_taken_however_they_lie_in_memory(id: str) -> None:
    system, seen = invariantzoo.make_system(id), []
    shape = (1, system.n_agents, *system.action_space.shape)  # type: ignore[misc]
    action = np.linspace(-0.9, 0.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    for layout in (action, action[:, ::-1].copy()[:, ::-1], action[..., ::-1].copy()[..., ::-1]):
        env = VectorEnv(system, 1, seed=0)
        env.reset()
        seen.append(env.step(layout).observation)
    for other in seen[1:]:
        np.testing.assert_array_equal(other, seen[0])


def test_words_are_no_actions() -> None:
    env = small("test-leave-v0")
    env.reset()
    for wrong in (np.full(12, "1"), np.array([None] * 12), np.full(12, 1j)):
        with pytest.raises(ValueError, match="they must be numbers"):
            env.step(wrong)
