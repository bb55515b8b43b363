"""Gymnasium's vector environments: its own wrappers, autoreset modes and errors."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

import invariantzoo
from invariantzoo.envs.core.interfaces.gymnasium import AUTORESET_MODES, SystemEnv, SystemVectorEnv
from invariantzoo.envs.core.observation import is_discrete, parameters
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.vector import VectorEnv

IDS = invariantzoo.ids()
MODES = list(AUTORESET_MODES)
BRIEF = {
    "horizon": 4,
    "n_sweeps": 2,
    "burn_in": 0,
    "lattice_size": 2,
    "n_sites": 5,
    "n_particles": 2,
    "sweeps": 3,
}


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def brief(id: str) -> dict[str, Any]:
    known = parameters(invariantzoo.make_system(id))
    settings = {name: value for name, value in BRIEF.items() if name in known}
    if "n_agents" in known and id.startswith("particles-crowd"):
        settings["n_agents"] = 3
    return settings


def make(id: str, worlds: int = 2, **more: Any) -> Any:
    settings = {**brief(id), **more}
    chosen = {
        name: value for name, value in settings.items() if name in BRIEF or name == "n_agents"
    }
    n = invariantzoo.make_system(id, **chosen).n_agents
    return gymnasium.make_vec(f"invariantzoo/{id}", num_envs=worlds * n, **settings)


class Clip:
    """In place of moviepy's: it keeps the frames."""

    films: list[list[np.ndarray]] = []  # noqa: RUF012

    def __init__(self, frames: list[np.ndarray], fps: int) -> None:
        self.films.append(frames)

    def write_videofile(self, path: str, logger: Any) -> None:
        Path(path).touch()


@pytest.fixture
def _films(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for moviepy and OpenCV, which the wrappers of pictures import."""
    import pygame.surfarray  # noqa: F401

    parts = ["moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip"]
    for name in parts:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[parts[-1]].ImageSequenceClip = Clip  # type: ignore[attr-defined]
    vision = ModuleType("cv2")
    vision.resize = lambda frame, size: np.resize(frame, (size[1], size[0], 3))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", vision)
    monkeypatch.setattr(Clip, "films", [])


def half(x: Any) -> Any:
    return 0.5 * x


def bounded(env: Any) -> Any:
    return wrappers.RescaleAction(env, np.float32(-2), np.float32(2))


def box(env: Any, low: float, high: float) -> spaces.Box:
    return spaces.Box(low, high, env.single_observation_space.shape, np.float32)


OBSERVATIONS: dict[str, Callable[[Any], Any]] = {
    "TransformObservation": lambda env: wrappers.TransformObservation(env, half),
    "VectorizeTransformObservation": lambda env: wrappers.VectorizeTransformObservation(
        env, gymnasium.wrappers.TransformObservation, func=half, observation_space=None
    ),
    "FlattenObservation": wrappers.FlattenObservation,
    "ReshapeObservation": lambda env: wrappers.ReshapeObservation(
        env, (1, *env.single_observation_space.shape)
    ),
    "RescaleObservation": lambda env: wrappers.RescaleObservation(
        env, np.float32(-1), np.float32(1)
    ),
    "DtypeObservation": lambda env: wrappers.DtypeObservation(env, np.float64),
    "NormalizeObservation": wrappers.NormalizeObservation,
}
ACTIONS: dict[str, Callable[[Any], Any]] = {
    "TransformAction": lambda env: wrappers.TransformAction(env, lambda action: action),
    "VectorizeTransformAction": lambda env: wrappers.VectorizeTransformAction(
        env,
        gymnasium.wrappers.TransformAction,
        func=lambda action: action,
        action_space=env.single_action_space,
    ),
    "ClipAction": wrappers.ClipAction,
    "RescaleAction": bounded,
}
OTHERS: dict[str, Callable[[Any], Any]] = {
    "TransformReward": lambda env: wrappers.TransformReward(env, half),
    "VectorizeTransformReward": lambda env: wrappers.VectorizeTransformReward(
        env, gymnasium.wrappers.TransformReward, func=half
    ),
    "ClipReward": lambda env: wrappers.ClipReward(env, -1.0, 1.0),
    "NormalizeReward": wrappers.NormalizeReward,
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "DictInfoToList": wrappers.DictInfoToList,
    "NumpyToTorch": lambda env: wrappers.NumpyToTorch(env),
    "ArrayConversion": lambda env: wrappers.ArrayConversion(env, np, np),
    "HumanRendering": lambda env: wrappers.HumanRendering(env, (64, 64)),
    "RecordVideo": lambda env: wrappers.RecordVideo(env, "films"),
}
OF_OBSERVATIONS = ("next_step", "disabled")
TAKEN = {  # modes, where Gymnasium's wrapper does not take all
    **dict.fromkeys(OBSERVATIONS, OF_OBSERVATIONS),
    "NormalizeObservation": ("next_step",),
}
IN_ALL_MODES = ["test-hold-v0", "test-leave-v0", "particles-crowd-v0"]


def kind(id: str) -> tuple[bool, ...]:
    """All that tells ids apart for a wrapper, which meets spaces, flags, infos and modes."""
    system = invariantzoo.make_system(id)
    own = [getattr(type(system), name) is not getattr(System, name) for name in OWN]
    return (is_discrete(system), system.n_agents == 1, system.one_at_a_time, *own)


OWN = ("action_mask", "active", "terminated", "warm_up")
OF_EVERY_KIND = list({kind(id): id for id in IDS}.values())
ARRAYS = ("NumpyToTorch", "ArrayConversion")
HAS_ARRAY_API = importlib.util.find_spec("array_api_compat") is not None
UNFIT = {  # for pictures, dictionaries, or JAX
    "FilterObservation",
    "GrayscaleObservation",
    "ResizeObservation",
    "JaxToNumpy",
    "JaxToTorch",
}


def test_every_wrapper_is_tried() -> None:
    assert {*OBSERVATIONS, *ACTIONS, *OTHERS} == {*wrappers.__all__} - UNFIT


@pytest.mark.usefixtures("_films")
@pytest.mark.filterwarnings("ignore:.*Recorded episodes will not contain the last frame.*")
@pytest.mark.filterwarnings("ignore:.*Overwriting existing videos.*")
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of Gymnasium's Box
@pytest.mark.parametrize(
    ("id", "mode"),
    [(id, "next_step") for id in sorted({*IN_ALL_MODES, *OF_EVERY_KIND})]
    + [(id, mode) for id in IN_ALL_MODES for mode in ("same_step", "disabled")],
)
def test_wrappers_work(id: str, mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every wrapper of Gymnasium over some episodes, or as it refuses Gymnasium's own too."""
    monkeypatch.chdir(tmp_path)
    bare = make(id, autoreset_mode=mode)
    pictured = make(id, 1, autoreset_mode=mode, render_mode="rgb_array")
    discrete = isinstance(bare.single_action_space, spaces.Discrete)
    for name, wrap in {**OBSERVATIONS, **ACTIONS, **OTHERS}.items():
        pictures = name in ("RecordVideo", "HumanRendering")
        if discrete and name in ("ClipAction", "RescaleAction"):
            continue
        if name in ARRAYS and (mode == "same_step" or not HAS_ARRAY_API):
            continue  # their arrays cannot hold `final_obs`, of Gymnasium's own either
        if mode not in TAKEN.get(name, MODES):
            with pytest.raises((ValueError, AssertionError)) as refused:  # a bare assert before 1.3
                wrap(bare)
            assert "autoreset_mode" in str(refused.getrepr())
            continue
        env = wrap(pictured if pictures else bare)
        run(env, 3 if pictures else 9, name in ARRAYS)
        if pictures:
            env.close()
    assert Clip.films
    for film in Clip.films:
        assert len({frame.shape for frame in film}) == 1


def run(env: Any, steps: int, arrays: bool) -> None:
    """Make random steps, and resets where the mode leaves them to the caller."""
    import torch

    env.reset(seed=1)
    env.action_space.seed(0)
    for _ in range(steps):
        action = env.action_space.sample()
        step = env.step(torch.as_tensor(action) if arrays else action)
        done = np.asarray(step[2] | step[3])
        if env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and done.any():
            env.reset(options={"reset_mask": done})


@pytest.mark.parametrize("id", IDS)
def test_a_frame_for_every_slot(id: str) -> None:
    env = make(id, 2, render_mode="rgb_array")
    env.reset(seed=3)
    frames = env.render()
    n = env.num_envs // 2
    assert len(frames) == env.num_envs
    assert all(frame.dtype == np.uint8 and frame.shape == frames[0].shape for frame in frames)
    for world in (0, 1):
        alone = invariantzoo.parallel_env(id, render_mode="rgb_array", **brief(id))
        alone.reset(seed=3, options={"world": world})
        expected = alone.render()
        for frame in frames[world * n : (world + 1) * n]:
            assert np.array_equal(frame, expected)
    assert make(id).render() is None
    env.close()


class World(gymnasium.Wrapper):
    """World `index` of a seed as an environment of its own, which goes on by itself."""

    def __init__(self, env: gymnasium.Env, index: int) -> None:
        super().__init__(env)
        self.index: int | None = index

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self.index is not None:
            index, self.index = self.index, None
            return self.env.reset(seed=7, options={"world": index})
        return self.env.reset()


def same(ours: Any, theirs: Any, where: str) -> None:
    """Equal to the bit, and of the same layout; ours may hold more by name."""
    if isinstance(theirs, dict):
        assert {*theirs} <= {*ours}, where
        for name, value in theirs.items():
            same(ours[name], value, f"{where} {name}")
    elif theirs.dtype == object:
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine is None) == (other is None), where
            if mine is not None:
                same(mine, other, where)
    else:
        assert ours.dtype == theirs.dtype, where
        assert ours.shape == theirs.shape, where
        np.testing.assert_array_equal(ours, theirs, where)  # NaN equals NaN


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_those_of_gymnasium(mode: str) -> None:
    """Bit for bit what Gymnasium's own vector environment makes of single worlds."""
    lengths = (3, 5)  # ends at different steps
    system = invariantzoo.make_system("test-hold-v0", horizon=4)
    ours = SystemVectorEnv(system, 3, autoreset_mode=mode)
    theirs = SyncVectorEnv(
        [lambda i=i: World(SystemEnv(system), i) for i in range(3)],  # type: ignore[misc]
        autoreset_mode=AUTORESET_MODES[mode],
    )
    rng = np.random.default_rng(0)
    same(ours.reset(seed=7)[0], theirs.reset()[0], "reset")
    flags = np.zeros(3, bool)
    ends = 0
    for t in range(40):
        # Worlds are put out of step by resets of some of them.
        early = np.array([t == lengths[0], t == lengths[1], False]) | (
            flags if mode == "disabled" else False
        )
        if early.any():
            mask = {"reset_mask": early.copy()}
            same(ours.reset(options=dict(mask))[0], theirs.reset(options=mask)[0], f"reset {t}")
        action = rng.uniform(-1, 1, (3, 1)).astype(np.float32)
        mine, other = ours.step(action), theirs.step(action)
        for name, a, b in zip(("obs", "reward", "terminated", "truncated"), mine, other):  # noqa: B905
            same(a, b, f"step {t}: {name}")
        same(mine[4], other[4], f"step {t}: infos")
        flags = mine[2] | mine[3]
        ends += flags.sum()
        assert mine[4].keys() == other[4].keys()
    assert ends > 20


@pytest.mark.parametrize("id", IDS)
def test_modes_show_the_same_episodes(id: str) -> None:
    """Worlds, rewards and metrics do not depend on the mode; flags and observations as it says."""
    settings = brief(id)
    system = invariantzoo.make_system(id, **settings)
    worlds, n = 2, system.n_agents
    envs = {mode: SystemVectorEnv(system, worlds * n, autoreset_mode=mode) for mode in MODES}
    first = {mode: env.reset(seed=2)[0] for mode, env in envs.items()}
    space = system.action_space
    rng = np.random.default_rng(1)

    def action() -> np.ndarray:
        if isinstance(space, spaces.Discrete):
            return rng.integers(space.n, size=worlds * n)
        return rng.uniform(-1, 1, (worlds * n, *space.shape)).astype(np.float32)

    assert all(np.array_equal(first[mode], first["same_step"]) for mode in MODES)
    ended = 0
    for _ in range(3 * min(system.horizon, 40)):
        given = action()
        steps = {mode: env.step(given) for mode, env in envs.items()}
        here = steps["same_step"]
        done = here[2] | here[3]
        for mode in ("next_step", "disabled"):
            for a, b in zip(steps[mode][1:4], here[1:4], strict=True):
                assert np.array_equal(a, b)
        assert np.array_equal(steps["next_step"][0], steps["disabled"][0])
        assert np.array_equal(steps["next_step"][0][~done], here[0][~done])
        if not done.any():
            assert all(not without_masks(step[4]) for step in steps.values())
            continue
        ended += 1
        final = here[4]["final_obs"]
        assert all(np.array_equal(steps["disabled"][0][i], final[i]) for i in np.flatnonzero(done))
        metrics = here[4]["final_info"]["metrics"]
        for mode in ("next_step", "disabled"):
            same(without_masks(steps[mode][4]), {"metrics": metrics, "_metrics": done}, mode)
        assert {*system.reductions} <= {*here[4]["final_info"]}  # by name, as ever
        fresh = envs["disabled"].reset(options={"reset_mask": done})[0]
        assert np.array_equal(fresh[done], here[0][done])
        if not done.all():
            # The others must not be a step ahead in one of them.
            break
        observation, reward, terminated, truncated, infos = envs["next_step"].step(given)
        assert np.array_equal(observation, here[0])
        assert not reward.any()
        assert not (terminated | truncated).any()
        assert not without_masks(infos)
    assert ended


def without_masks(infos: dict[str, Any]) -> dict[str, Any]:
    """Of a step, those that only the end of an episode brings."""
    return {name: value for name, value in infos.items() if "action_mask" not in name}


def test_a_next_step_that_is_refused_moves_nothing() -> None:
    system = invariantzoo.make_system("particles-crowd-v0", n_agents=3, horizon=4)
    env, other = (SystemVectorEnv(system, 6, autoreset_mode="next_step") for _ in range(2))
    zero = np.zeros((6, *system.action_space.shape), np.float32)  # type: ignore[misc]
    for one in (env, other):
        one.reset(seed=0)
        one.step(zero)
        one.reset(options={"reset_mask": np.arange(6) < 3})  # worlds end at different steps
        for _ in range(3):
            one.step(zero)
    bad = zero.copy()
    bad[0, 0] = 7.0
    bad[4, 0] = np.nan  # of the world that starts anew: whatever it is, it is not looked at
    with pytest.raises(ValueError, match=r"particle_0 in world 0 is \[7\.0"):
        env.step(bad)
    bad[0, 0] = 0.0
    for ours, theirs in zip(env.step(bad)[:4], other.step(zero)[:4], strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_agents_that_leave_end_with_their_world(mode: str) -> None:
    """So that a wrapper that counts episodes counts one of every slot and world."""
    system = invariantzoo.make_system("test-leave-v0", horizon=25)
    env = wrappers.RecordEpisodeStatistics(SystemVectorEnv(system, 40, autoreset_mode=mode))
    env.reset(seed=0)
    worlds = VectorEnv(system, 10, seed=0, autoreset=False)
    worlds.reset()
    left_before = 0
    ones = np.ones(40, np.int64)
    reward_sum = np.zeros(40)
    for _ in range(25):
        _, reward, terminated, truncated, infos = env.step(ones)
        step = worlds.step(ones.reshape(10, 4))
        alive = ~step.terminated.reshape(40)
        done = np.repeat(step.done, 4)
        reward_sum += reward
        left_before += int((~alive & ~done).sum())
        assert np.array_equal(terminated, ~alive & done)
        assert np.array_equal(truncated, alive & done)
        if done.any():
            assert infos["episode"]["r"][done] == pytest.approx(reward_sum[done])
            break
    assert left_before > 5


def test_modes_by_name() -> None:
    for mode, meant in AUTORESET_MODES.items():
        for given in (mode, meant, meant.name, meant.value):
            env = make("test-hold-v0", autoreset_mode=given)
            assert env.metadata["autoreset_mode"] is meant
            again = gymnasium.make_vec(env.spec)
            assert again.num_envs == 2
            assert again.metadata["autoreset_mode"] is meant
    assert make("test-hold-v0").metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    for wrong in ("next", None, True):
        with pytest.raises(ValueError, match="must be one of same_step, next_step, disabled"):
            make("test-hold-v0", autoreset_mode=wrong)


def test_a_disabled_world_must_be_reset() -> None:
    env = make("test-hold-v0", 3, autoreset_mode="disabled")
    env.reset(seed=0)
    env.step(np.zeros((3, 1), np.float32))
    env.reset(options={"reset_mask": np.array([False, True, False])})
    for _ in range(3):
        env.step(np.zeros((3, 1), np.float32))
    with pytest.raises(RuntimeError, match=r"episodes of slots \[0, 2\] have ended: call reset\("):
        env.step(np.zeros((3, 1), np.float32))
    env.reset(options={"reset_mask": np.array([True, False, True])})
    env.step(np.zeros((3, 1), np.float32))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True] * 8, "reset_mask is <class 'list'>; it must be an array of 8 bools"),
        (np.ones(8), r"reset_mask is float64 \(8,\); it must be an array of 8 bools"),
        (np.ones(2, bool), r"reset_mask is bool \(2,\); it must be an array of 8 bools"),
        (np.zeros(8, bool), "False everywhere"),
        (np.arange(8) < 5, "takes a part of slots 4 to 7, which are one world"),
    ],
)
def test_masks_of_another_form_are_refused(mask: Any, message: str) -> None:
    env = make("test-leave-v0")
    with pytest.raises(RuntimeError, match=r"^reset\(\) must be called before"):
        env.reset(options={"reset_mask": np.ones(8, bool)})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="leave out reset_mask"):
        env.reset(seed=1, options={"reset_mask": np.ones(8, bool)})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"num_envs": 4}, "num_envs=4 must be a multiple of the 3 agents"),
        ({"num_envs": 0}, "num_envs=0 must be a whole number"),
        ({"num_envs": "3"}, "num_envs='3' must be a whole number"),
        ({"radus": 0.1}, "unknown parameter 'radus' of particles-crowd-v0; did you mean 'radius'"),
        ({"render_mode": "human"}, "render_mode='human' must be None or 'rgb_array'"),
        ({"autoreset_mode": "samestep"}, "did you mean 'same_step'"),
        ({"vectorization_mode": "sync"}, "has 3 agents; use gymnasium.make_vec .* without vec"),
    ],
)
def test_what_make_vec_refuses(words: dict[str, Any], message: str) -> None:
    settings = {"num_envs": 3, "n_agents": 3, **words}
    with pytest.raises(ValueError, match=message):
        gymnasium.make_vec("invariantzoo/particles-crowd-v0", **settings)


def test_single_controllers_in_gymnasiums_own_vector_environments() -> None:
    env = gymnasium.make_vec("invariantzoo/test-hold-v0", num_envs=2, vectorization_mode="sync")
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[0].shape == (2, 2)
    env.close()


@pytest.mark.parametrize("seed", [[1, 2], "1", -1, 1.5])
def test_seeds(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed="):
        make("test-hold-v0").reset(seed=seed)


def test_actions_of_another_shape_are_refused() -> None:
    env = make("particles-crowd-v0")
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    for wrong in (action.T, action.ravel(), action[None], action[:, :1]):
        with pytest.raises(ValueError, match="they must be"):
            env.step(wrong)
    with pytest.raises(ValueError, match="they must be numbers"):
        env.step(action.astype(str))


def test_calls_before_reset() -> None:
    env = make("test-hold-v0", render_mode="rgb_array")
    for call in (env.render, lambda: env.step(np.zeros((2, 1), np.float32))):
        with pytest.raises(RuntimeError, match=r"^reset\(\) must be called before"):
            call()


def test_pickled_in_the_middle() -> None:
    env = make("particles-crowd-v0", render_mode="rgb_array")
    env.reset(seed=0)
    env.render()
    copied = pickle.loads(pickle.dumps(env))
    action = np.zeros(env.action_space.shape, np.float32)
    assert np.array_equal(env.step(action)[0], copied.step(action)[0])
    assert np.array_equal(env.render()[0], copied.render()[0])


def test_the_passive_checker_has_nothing_to_say() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(
            "invariantzoo/test-hold-v0", disable_env_checker=False, render_mode="rgb_array"
        )
        env.reset(seed=0)
        for _ in range(31):
            env.step(env.action_space.sample())
        env.render()
        env.close()


def test_what_could_not_be_made_can_be_closed() -> None:
    """Gymnasium closes every environment when it goes, also one whose making was refused."""
    env = object.__new__(SystemVectorEnv)
    env.close_extras()
