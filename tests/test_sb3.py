"""Masked buffers, our networks as SB3 policies, and training that can be interrupted."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)
from systems import Leave, Relay
from torch import Tensor

import invariantzoo
from invariantzoo.agents.networks.choose import make_network, network_names
from invariantzoo.envs.core.interfaces.stable_baselines3 import Dones, SystemVecEnv
from invariantzoo.envs.core.observation import is_discrete, observation_space, parameters
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.training.rl import descent, sb3
from invariantzoo.training.rl.algorithms import config_class, load_policy, make_config, make_trainer
from invariantzoo.training.rl.buffers import MaskedReplayBuffer, MaskedRolloutBuffer
from invariantzoo.training.rl.configs import EXTRAS
from invariantzoo.training.rl.hyperparameters import ALGORITHMS, hyperparameters
from invariantzoo.training.rl.policies import GaussianDensity

TINY = {
    "ppo": {"n_worlds": 3, "n_steps": 6, "batch_size": 16, "n_epochs": 2},
    "mappo": {"n_worlds": 3, "n_steps": 6, "batch_size": 16, "n_epochs": 2},
    "a2c": {"n_worlds": 3, "n_steps": 4},
    "sac": {
        "n_worlds": 3,
        "n_steps": 8,
        "train_freq": 2,
        "gradient_steps": 2,
        "batch_size": 16,
        "learning_starts": 20,
        "buffer_size": 500,
    },
    "descent": {"n_worlds": 2, "rollout": 3},
    "es": {"n_worlds": 2, "pairs": 2, "rollout": 2},
    "maskable_ppo": {"n_worlds": 3, "n_steps": 6, "batch_size": 16, "n_epochs": 2},
}
BRIEF = {
    "horizon": 5,
    "n_sweeps": 2,
    "burn_in": 0,
    "lattice_size": 2,
    "n_sites": 5,
    "n_particles": 2,
}


@pytest.fixture(params=invariantzoo.ids())
def id(request: pytest.FixtureRequest) -> str:
    return request.param


def brief(id: str, **more: Any) -> System:
    known = parameters(invariantzoo.make_system(id))
    settings = {name: value for name, value in BRIEF.items() if name in known}
    if id == "particles-crowd-v0":
        settings["n_agents"] = 4
    return invariantzoo.make_system(id, **{**settings, **more})


def weights(model: BaseAlgorithm) -> list[Tensor]:
    return [part.clone() for part in model.policy.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def fits(id: str, algo: str) -> bool:
    system = invariantzoo.make_system(id)
    if algo == "descent" and not system.differentiable:
        return False
    if algo == "maskable_ppo":
        return is_discrete(system) and importlib.util.find_spec("sb3_contrib") is not None
    return not (is_discrete(system) and algo in ("sac", "descent"))


# Buffers


def fill(buffer: RolloutBuffer, seed: int) -> tuple[Tensor, np.ndarray]:
    """Random rows; returns the last values and dones."""
    rng = np.random.default_rng(seed)
    n = buffer.n_envs
    buffer.reset()
    for _ in range(buffer.buffer_size):
        buffer.add(
            rng.normal(size=(n, 3)).astype(np.float32),
            rng.normal(size=(n, 2)).astype(np.float32),
            rng.normal(size=n).astype(np.float32),
            rng.random(n) < 0.2,
            torch.from_numpy(rng.normal(size=(n, 1)).astype(np.float32)),
            torch.from_numpy(rng.normal(size=n).astype(np.float32)),
        )
    return torch.from_numpy(rng.normal(size=(n, 1)).astype(np.float32)), rng.random(n) < 0.3


def rollout_buffer(kind: type[RolloutBuffer], size: int = 7, n: int = 5) -> Any:
    return kind(size, Box(-9, 9, (3,)), Box(-1, 1, (2,)), "cpu", 0.9, 0.95, n)


def test_rollout_buffer_where_all_act_is_the_original() -> None:
    ours, theirs = rollout_buffer(MaskedRolloutBuffer), rollout_buffer(RolloutBuffer)
    for buffer in (ours, theirs):
        last, dones = fill(buffer, 0)
        buffer.compute_returns_and_advantage(last, dones)
    assert np.allclose(ours.advantages, theirs.advantages, rtol=1e-6, atol=1e-6)
    assert np.allclose(ours.returns, theirs.returns, rtol=1e-6, atol=1e-6)

    def rows(buffer: RolloutBuffer, batch: int | None) -> list[list[float]]:
        table = [torch.cat([p.reshape(len(p), -1) for p in b], 1) for b in buffer.get(batch)]
        assert all(len(part) == (batch or 35) for part in table[:-1])
        return sorted(torch.cat(table).double().round(decimals=4).tolist())

    for batch in (None, 8):
        assert rows(ours, batch) == rows(theirs, batch)


def advantage_by_hand(buffer: Any, last: np.ndarray, dones: np.ndarray, slot: int) -> list[float]:
    """Each acting row: the lambda-mixture of discounted rewards up to the next acting rows."""
    gamma, lam, size = buffer.gamma, buffer.gae_lambda, buffer.buffer_size
    acting = [t for t in range(size) if buffer.acted[t, slot]]
    found: dict[int, float] = {}
    for t in reversed(acting):
        total, discount, step = 0.0, 1.0, t
        while True:
            total += discount * buffer.rewards[step, slot]
            over = dones[slot] if step == size - 1 else buffer.episode_starts[step + 1, slot]
            if over or buffer.terminated[step, slot]:
                following = 0.0
                break
            discount *= gamma
            step += 1
            if step == size:
                following = discount * last[slot]
                break
            if buffer.acted[step, slot]:
                following = discount * (buffer.values[step, slot] + lam * found[step])
                break
        found[t] = total + following - buffer.values[t, slot]
    return [found[t] for t in acting]


def test_advantages_go_from_action_to_action() -> None:
    for seed in range(20):
        buffer = rollout_buffer(MaskedRolloutBuffer, 11, 3)
        last, dones = fill(buffer, seed)
        rng = np.random.default_rng(seed)
        buffer.acted = rng.random((11, 3)) < 0.5
        buffer.terminated = rng.random((11, 3)) < 0.1
        buffer.compute_returns_and_advantage(last, dones)
        for slot in range(3):
            kept = buffer.advantages[buffer.acted[:, slot], slot]
            by_hand = advantage_by_hand(buffer, last.numpy().ravel(), dones, slot)
            assert np.allclose(kept, by_hand, rtol=1e-4, atol=1e-5)
        total = sum(len(batch.advantages) for batch in buffer.get(4))
        assert total == buffer.acted.sum()


def leaving(seed: int = 0) -> SystemVecEnv:
    system = invariantzoo.make_system("test-leave-v0", horizon=30)
    return SystemVecEnv(system, 4, seed=seed)


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_dropped_rows_move_no_weight(algorithm: type[PPO | A2C]) -> None:
    """Whatever stands in rows of agents that did not act, the weights become the same."""
    results = []
    for spoilt in (False, True):
        env = leaving()
        config = sb3.PPOConfig(n_worlds=4, n_steps=40, batch_size=32)
        if algorithm is A2C:
            config = sb3.A2CConfig(n_worlds=4, n_steps=40)  # type: ignore[assignment]
        model: Any = sb3.make_model(env, config, seed=0)
        buffer = model.rollout_buffer
        before = weights(model)
        train = model.train

        def spoil(buffer: Any = buffer, train: Any = train, spoilt: bool = spoilt) -> None:
            dropped = ~buffer.acted
            assert 0.5 < dropped.mean() < 0.95
            if spoilt:
                for name in ("observations", "values", "log_probs", "advantages", "returns"):
                    getattr(buffer, name)[dropped] = 1e6
                buffer.actions[dropped] = 1
            train()

        model.train = spoil
        model.learn(160)
        results.append(weights(model))
        assert not same(before, results[-1])
    assert same(*results)


def test_rows_of_the_gone_change_no_advantage() -> None:
    """Rewards and values of slots whose agent has left do not reach what it did before."""
    env = leaving()
    model: Any = sb3.make_model(env, sb3.PPOConfig(n_worlds=4, n_steps=60), seed=0)
    model.learn(240)
    buffer = model.rollout_buffer
    acted = buffer.acted
    gone = np.zeros_like(acted)
    for t in range(1, 60):
        starts = buffer.episode_starts[t].astype(bool)
        gone[t] = (gone[t - 1] | buffer.terminated[t - 1]) & ~starts
    assert gone.sum() > 20
    assert not (gone & acted).any()
    assert not buffer.rewards[gone].any()
    last, dones = torch.zeros(16), np.zeros(16, bool)
    buffer.compute_returns_and_advantage(last, dones)
    before = buffer.advantages[acted].copy()
    buffer.rewards[gone] = 1e6
    buffer.values[gone] = -1e6
    buffer.compute_returns_and_advantage(last, dones)
    assert np.array_equal(buffer.advantages[acted], before)


@pytest.mark.parametrize("algo", ["ppo", "mappo"])
def test_what_values_explain_is_told_of_who_acted(algo: str) -> None:
    system = invariantzoo.make_system("test-leave-v0", horizon=30)
    config = config_class(algo)(n_worlds=4, n_steps=40, batch_size=32)
    trainer: Any = make_trainer(algo, system, config, seed=0, steps=1)
    update = next(iter(trainer))
    buffer = trainer.model.rollout_buffer
    value, wanted = buffer.values[buffer.acted], buffer.returns[buffer.acted]
    told = update.row["explained_variance"]
    assert told == pytest.approx(1 - (wanted - value).var() / wanted.var(), rel=1e-4)
    assert told != pytest.approx(
        1 - (buffer.returns - buffer.values).var() / buffer.returns.var(), rel=0.01
    )


def test_a_rollout_in_which_nobody_acts_teaches_nothing() -> None:
    """The mean over no rows is NaN, and weights would be."""
    buffer = rollout_buffer(MaskedRolloutBuffer, 3, 2)
    last, dones = fill(buffer, 0)
    buffer.acted[:] = False
    with pytest.raises(ValueError, match="nobody acted in 3 steps of 2 slots"):
        buffer.compute_returns_and_advantage(last, dones)


def replay_of_leaving(kind: type[ReplayBuffer]) -> tuple[Any, np.ndarray]:
    env = leaving()
    more = {"seed": 0} if kind is MaskedReplayBuffer else {}
    buffer: Any = kind(2000, env.observation_space, env.action_space, n_envs=16, **more)
    if kind is MaskedReplayBuffer:
        buffer.watch(env)
    rng = np.random.default_rng(0)
    observation, left = env.reset(), []
    for _ in range(100):
        action = rng.integers(2, size=16)
        after, reward, done, infos = env.step(action)
        buffer.add(observation, after, action, reward, done, infos)
        left.append(env.terminated & env.acted)
        observation = after
    return buffer, np.array(left)


def test_replay_buffer_samples_only_who_acted() -> None:
    buffer, left = replay_of_leaving(MaskedReplayBuffer)
    dropped = ~buffer.acted[: buffer.size()]
    assert dropped.mean() > 0.5
    for name in ("observations", "next_observations", "rewards"):
        getattr(buffer, name)[: buffer.size()][dropped] = 1e6
    sample = buffer.sample(20_000)
    assert sample.observations.abs().max() < 100
    assert sample.next_observations.abs().max() < 100
    assert sample.rewards.abs().max() < 100
    assert left.any()
    assert buffer.dones[: len(left)][left].all()  # leaving ends the agent's episode
    assert not buffer.timeouts[: len(left)][left].any()


def test_replay_buffer_where_all_act_is_the_original() -> None:
    system = brief("particles-crowd-v0")
    env = SystemVecEnv(system, 2, seed=0)
    buffers = [
        kind(400, env.observation_space, env.action_space, n_envs=8)
        for kind in (MaskedReplayBuffer, ReplayBuffer)
    ]
    buffers[0].watch(env)  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    observation = env.reset()
    for _ in range(70):  # more than the 50 rows that fit
        action = rng.uniform(-1, 1, (8, *env.action_space.shape)).astype(np.float32)
        after, reward, done, infos = env.step(action)
        for buffer in buffers:
            buffer.add(observation, after, action, reward, done, infos)
        observation = after
    ours, theirs = buffers
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    known = {tuple(row) for row in theirs.observations.reshape(400, -1).tolist()}
    sample = ours.sample(6000)
    drawn = {tuple(row) for row in sample.observations.tolist()}
    assert drawn == known  # each with the same chance: missing one of 400 has odds of 1e-4
    assert (sample.dones == 0).all()  # only time limits here


@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`")
def test_watch_wants_our_vec_env() -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    env = leaving()
    buffer = MaskedRolloutBuffer(4, env.observation_space, env.action_space, n_envs=16)
    buffer.watch(VecMonitor(env))
    import gymnasium

    with pytest.raises(ValueError, match="DummyVecEnv"):
        buffer.watch(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")]))


class Recorded(SystemVecEnv):
    """Keeps who acted and who had left at every step, asked of the worlds themselves."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows: list[tuple[np.ndarray, np.ndarray]] = []

    def step_wait(self) -> Any:
        step = super().step_wait()
        self.rows.append((self.worlds.acted.reshape(-1).copy(), self.terminated.copy()))
        return step


def recorded(algorithm: type[BaseAlgorithm], seed: int = 0) -> Recorded:
    """Agents that act in turns and leave, with the actions that an algorithm can give."""
    system = Leave(horizon=30) if algorithm is DQN else Relay()
    return Recorded(system, 3, seed=seed)


def bare(env: VecEnv) -> VecEnv:
    return env


def wrapped(env: VecEnv) -> VecEnv:
    return VecNormalize(VecFrameStack(VecMonitor(VecCheckNan(env)), 3))


def masked_model(algorithm: type[BaseAlgorithm], env: VecEnv) -> Any:
    brief: dict[str, Any] = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [4]}}
    if issubclass(algorithm, OffPolicyAlgorithm):
        brief |= {"replay_buffer_class": MaskedReplayBuffer, "buffer_size": 12 * 25}
        brief |= {"learning_starts": 24, "batch_size": 8, "train_freq": 3}
    else:
        brief |= {"rollout_buffer_class": MaskedRolloutBuffer, "n_steps": 7}
    if algorithm is PPO:
        brief |= {"batch_size": 12}
    return algorithm("MlpPolicy", env, **brief)  # type: ignore[call-arg]


def require_truth(model: Any, rows: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The buffer of `model` knows who acted in the last steps, which were `rows`."""
    acted = np.array([row[0] for row in rows])
    assert 0.05 < acted.mean() < 0.6
    if isinstance(model, OffPolicyAlgorithm):
        buffer: Any = model.replay_buffer
        at = np.arange(buffer.pos - len(rows), buffer.pos) % buffer.buffer_size
        assert np.array_equal(buffer.acted[at], acted)
        left = np.array([row[1] for row in rows])
        assert buffer.dones[at][left].all()
        return
    buffer = model.rollout_buffer  # type: ignore[attr-defined]
    size = buffer.buffer_size
    assert np.array_equal(buffer.acted, acted[-size:])
    assert np.array_equal(buffer.terminated, np.array([row[1] for row in rows[-size:]]))


def learn(model: Any, env: Recorded, wrap: Callable[[VecEnv], VecEnv]) -> None:
    """Learn a while, with another environment stepped in between, and look at the buffer."""
    env.rows.clear()
    other = wrap(recorded(type(model), 9))
    callback = EvalCallback(other, n_eval_episodes=1, eval_freq=9, verbose=0, warn=False)
    model.learn(12 * 14, reset_num_timesteps=False, callback=callback)
    rows = env.rows[-12:] if isinstance(model, OffPolicyAlgorithm) else env.rows
    require_truth(model, rows)


def save_and_load(model: Any, env: VecEnv, folder: Path) -> Any:
    model.save(folder / "model")
    if not isinstance(model, OffPolicyAlgorithm):
        return type(model).load(folder / "model", env=env, device="cpu")
    model.save_replay_buffer(folder / "buffer.pkl")
    loaded = type(model).load(folder / "model", env=env, device="cpu")
    loaded.load_replay_buffer(folder / "buffer.pkl")
    assert np.array_equal(loaded.replay_buffer.acted, model.replay_buffer.acted)  # type: ignore[attr-defined]
    return loaded


def set_env(model: Any, env: VecEnv, folder: Path) -> Any:
    model.set_env(env)
    return model


def copy_buffer(model: Any, env: VecEnv, folder: Path) -> Any:
    name = "replay_buffer" if isinstance(model, OffPolicyAlgorithm) else "rollout_buffer"
    copied = copy.deepcopy(getattr(model, name))
    setattr(model, name, pickle.loads(pickle.dumps(copied)))
    model.set_env(env)
    return model


def watch(model: Any, env: VecEnv, folder: Path) -> Any:
    buffer = getattr(model, "replay_buffer", None) or model.rollout_buffer
    buffer.watch(env)
    model.set_env(env)
    return model


CHANGES = {"load": save_and_load, "set_env": set_env, "copy": copy_buffer, "watch": watch}


@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`")
@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
@pytest.mark.parametrize(
    ("wrap", "changes"),
    [(bare, ["load", "set_env", "load"]), (wrapped, ["watch", "set_env", "copy", "load"])],
)
@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN, SAC, TD3])
def test_buffers_know_who_acted_whatever_is_loaded_or_set(
    algorithm: type[BaseAlgorithm], wrap: Any, changes: list[str], tmp_path: Path
) -> None:
    env = recorded(algorithm)
    model = masked_model(algorithm, wrap(env))
    learn(model, env, wrap)
    for seed, change in enumerate(changes, 1):
        env = recorded(algorithm, seed)
        model = CHANGES[change](model, wrap(env), tmp_path)
        learn(model, env, wrap)


@pytest.mark.parametrize("algorithm", [DQN, SAC])
def test_a_saved_replay_buffer_holds_no_environment(
    algorithm: type[BaseAlgorithm], tmp_path: Path
) -> None:
    model = masked_model(algorithm, recorded(algorithm))
    model.replay_buffer.watch(model.env)
    model.learn(12 * 10)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    assert b"vec_env" not in (tmp_path / "buffer.pkl").read_bytes()
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert b"vec_env" not in archive.read("data")


def test_a_replay_buffer_saved_with_its_environment_can_be_loaded() -> None:
    buffer, _ = replay_of_leaving(MaskedReplayBuffer)
    state = {**buffer.__dict__, "_watched": leaving()}
    old = MaskedReplayBuffer.__new__(MaskedReplayBuffer)
    old.__setstate__(state)
    assert old._watched is True
    assert np.array_equal(old.acted, buffer.acted)


def test_rows_are_counted_again_when_places_are_used_again() -> None:
    """A place of a row that did not act is one of a row that did, when the buffer is full."""
    buffer = MaskedReplayBuffer(8, Box(-9, 9, (1,)), Box(-1, 1, (1,)), n_envs=4)
    zeros = np.zeros((4, 1), np.float32)
    for acted in (np.array([True, False, False, False]), None, None):
        done = np.zeros(4, bool).view(Dones)
        done.acted = acted
        buffer.add(zeros, zeros, zeros, zeros[:, 0], done, [{}] * 4)
    assert buffer.acted.all()


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_a_watched_buffer_refuses_flags_that_say_nothing(algorithm: type[BaseAlgorithm]) -> None:
    class Mute(VecEnvWrapper):
        def reset(self) -> Any:
            return self.venv.reset()

        def step_wait(self) -> Any:
            observation, reward, done, infos = self.venv.step_wait()
            return observation, reward, np.array(done.tolist()), infos

    model = masked_model(algorithm, Mute(recorded(algorithm)))
    buffer = getattr(model, "replay_buffer", None) or model.rollout_buffer
    buffer.watch(model.env)
    with pytest.raises(ValueError, match="do not say who acted"):
        model.learn(12 * 10)


@pytest.mark.parametrize("algorithm", [DQN, SAC])
def test_saving_memory_is_refused(algorithm: type[BaseAlgorithm]) -> None:
    with pytest.raises(ValueError, match=r"^optimize_memory_usage=True must be False"):
        algorithm(  # type: ignore[call-arg]
            "MlpPolicy",
            recorded(algorithm),
            replay_buffer_class=MaskedReplayBuffer,
            replay_buffer_kwargs={"handle_timeout_termination": False},
            optimize_memory_usage=True,
        )


# Policies and training


# A2C has the policies, networks and buffers of PPO: an id of every kind is enough for it.
SOME = ["test-hold-v0", "test-leave-v0", "particles-crowd-v0", "ising-anneal-v0"]
TRAINED = [(id, algo) for id in invariantzoo.ids() for algo in ("ppo", "sac")]
TRAINED += [(id, "a2c") for id in SOME]


@pytest.mark.parametrize(("id", "algo"), TRAINED)
def test_trains_saves_and_loads(id: str, algo: str, tmp_path: Path) -> None:
    system = brief(id)
    config = config_class(algo)(**TINY[algo])
    if not fits(id, algo):
        with pytest.raises(ValueError, match="continuous"):
            make_trainer(algo, system, config, seed=0, steps=10)
        return
    steps = max(200, 20 * system.n_agents)  # some episodes end
    trainer = sb3.Trainer(system, config, seed=0, steps=steps)
    before = weights(trainer.model)
    updates = list(trainer)
    assert trainer.steps == updates[-1].steps >= steps
    assert all(np.isfinite(update.loss) for update in updates)
    assert all(("loss" in update.row) != ("running_loss" in update.row) for update in updates)
    names = {name for update in updates for name in update.row}
    assert {"return", *system.reductions} <= names
    assert not same(before, weights(trainer.model))
    path = tmp_path / "policy.zip"
    trainer.save_policy(path)
    loaded: Any = {"ppo": PPO, "a2c": A2C, "sac": SAC}[algo].load(path)
    assert same(weights(trainer.model), weights(loaded))
    observation = trainer.env.reset()
    ours, _ = trainer.model.predict(observation, deterministic=True)
    theirs, _ = loaded.predict(observation, deterministic=True)
    assert np.array_equal(ours, theirs)
    assert trainer.env.action_space.contains(ours[0])
    loaded.set_env(trainer.env)
    loaded.learn(trainer.env.num_envs * 8)  # goes on with plain SB3


@pytest.mark.parametrize("density", [0.01, 0.2, 2.4])
def test_a_pair_network_may_see_all_empty_places_as_one(density: float) -> None:
    """Actions and gradients are the same, with few neighbours, some empty places, and none."""
    system = invariantzoo.make_system("particles-crowd-v0", n_agents=10, density=density)
    observation = (
        torch.from_numpy(invariantzoo.VectorEnv(system, 8, seed=3).reset()[0])
        .double()
        .flatten(0, 1)
    )
    network: Any = make_network("pair", system).double()
    actions, gradients = [], []
    for network.skip_empty in (False, True):
        network.zero_grad()
        action = network(observation)
        (action * torch.arange(action.numel()).reshape(action.shape).cos()).sum().backward()
        actions.append(action.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(actions[1], actions[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["pair", "set", "mlp"])
def test_inputs_are_all_that_hangs_on_no_weight(name: str) -> None:
    """A policy gives the same, and the same gradients, of inputs that were made before."""
    env = SystemVecEnv(brief("particles-crowd-v0"), 4, seed=0)
    model: Any = sb3.make_model(env, sb3.PPOConfig(n_worlds=4, network=name), seed=0)
    policy, observation = model.policy, torch.from_numpy(env.reset())
    rows = torch.arange(0, len(observation), 2)
    inputs = policy.inputs(observation).rows(rows)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
        actions = policy(observation)[0][rows]
    gradients = []
    for seen in (observation[rows], inputs):
        policy.zero_grad()
        value, density, _ = policy.evaluate_actions(seen, actions)
        (value.squeeze(-1) + density).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("noted", [True, False])
def test_minibatches_bring_what_the_policy_makes_of_their_observations(noted: bool) -> None:
    """As it was while the policy acted, or made afterwards where that is not known."""
    env = SystemVecEnv(brief("particles-crowd-v0"), 4, seed=0)
    config = sb3.PPOConfig(n_worlds=4, n_steps=3, network="pair")
    model: Any = sb3.make_model(env, config, seed=0)
    buffer, policy = model.rollout_buffer, model.policy
    if not noted:
        policy.noted_inputs = lambda observation: None
    made, inputs = [], policy.inputs
    policy.inputs = lambda observation: made.append(len(observation)) or inputs(observation)
    model.learn(1)
    assert made.count(len(env.reset()) * 3) == (not noted)
    buffer.rng = np.random.default_rng(1)
    batches = list(buffer.get(16))
    buffer.rng, buffer.policy = np.random.default_rng(1), None
    for batch, plain in zip(batches, buffer.get(16), strict=True):
        (features, filled), (scaled,) = batch.observations
        expected = policy.inputs(plain.observations)
        torch.testing.assert_close(features, expected.actor[0])
        assert torch.equal(filled, expected.actor[1])
        torch.testing.assert_close(scaled, expected.critic[0])
        assert torch.equal(batch.actions, plain.actions)


@pytest.mark.parametrize("rows", [0, 5])
def test_the_density_of_a_gaussian_and_its_gradients(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (5, 3), (5, 3), (rows, 3) if rows else (3,)
    action, mean, log_std = (
        torch.randn(each, generator=generator, dtype=torch.float64) for each in shape
    )
    ours, theirs = [], []
    for density, gradients in ((GaussianDensity.apply, ours), (_normal, theirs)):
        leaves = [part.clone().requires_grad_() for part in (action, mean, log_std)]
        value: Any = density(*leaves)
        value.square().sum().backward()
        gradients += [value.detach(), *(leaf.grad for leaf in leaves)]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def _normal(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(-1)


@pytest.mark.parametrize("name", ["pair", "set", "mlp"])
@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_every_network(name: str, algo: str) -> None:
    system = brief("particles-crowd-v0")
    config = config_class(algo)(network=name, **TINY[algo])
    trainer = sb3.Trainer(system, config, seed=0, steps=200)
    actor = sb3.network_of(trainer.model.policy)  # type: ignore[arg-type]
    before = [part.clone() for part in actor.parameters()]
    list(trainer)
    assert not any(torch.equal(a, b) for a, b in zip(before, actor.parameters(), strict=True))
    fresh = make_network(name, system, 0, width=config.width)
    assert same(before, [part.detach() for part in fresh.parameters()])


def test_unknown_network_and_bad_values() -> None:
    system = brief("particles-crowd-v0")
    with pytest.raises(ValueError, match="did you mean 'pair'"):
        make_trainer("ppo", system, sb3.PPOConfig(network="pairs"), seed=0, steps=10)
    assert network_names(brief("test-hold-v0")) == ["mlp"]
    with pytest.raises(ValueError, match="gamma=2"):
        sb3.PPOConfig(gamma=2)
    with pytest.raises(ValueError, match="n_steps=0"):
        sb3.A2CConfig(n_steps=0)
    with pytest.raises(ValueError, match="tau=0"):
        sb3.SACConfig(tau=0)
    with pytest.raises(ValueError, match="did you mean 'gamma'"):
        make_config("test-hold-v0", "ppo", {"gama": 0.9})
    with pytest.raises(ValueError, match="did you mean 'ppo'"):
        config_class("pppo")


@pytest.mark.parametrize(
    ("algo", "settings"), [("ppo", {}), ("a2c", {"normalize_advantage": True}), ("a2c", {})]
)
def test_updates_of_one_step_leave_a_policy(algo: str, settings: dict[str, Any]) -> None:
    """Of one agent: what holds the policy of a run needs no more rows than the run had."""
    system = brief("test-hold-v0")
    config = config_class(algo)(n_worlds=4, n_steps=1, network="mlp", **settings)
    trainer = make_trainer(algo, system, config, seed=0, steps=8)
    list(trainer)
    policy = load_policy(algo, system, config, trainer.state_dict())
    worlds = torch.from_numpy(trainer.env.reset()).reshape(4, system.n_agents, -1)
    with torch.no_grad():
        assert torch.equal(policy(worlds, None), trainer.policy()(worlds, None))


def test_one_advantage_has_no_spread() -> None:
    system = brief("test-hold-v0")
    for config in (sb3.PPOConfig, sb3.MAPPOConfig):
        with pytest.raises(ValueError, match="n_steps=1 times 1 slot"):
            make_trainer("ppo", system, config(n_worlds=1, n_steps=1), seed=0, steps=1)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_hyperparameter_is_listed_with_its_default_and_help(algo: str) -> None:
    import ast
    import dataclasses

    listed = hyperparameters(algo)
    fields = dataclasses.fields(config_class(algo))
    assert len(listed) == len(fields)
    defaults = {field.name: field.default for field in fields}
    assert {one.name: ast.literal_eval(one.default) for one in listed} == defaults
    assert all(len(one.help) > 5 for one in listed)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_way_to_train_is_a_module_of_one_shape(algo: str) -> None:
    module = importlib.import_module(f"invariantzoo.training.rl.algorithms.{algo}")
    assert module.Config is config_class(algo)
    if algo in EXTRAS:
        pytest.importorskip(EXTRAS[algo].replace("-", "_"))
    system = brief("ising-equilibrium-v0" if algo == "maskable_ppo" else "particles-crowd-v0")
    config = module.Config(**TINY[algo])
    trainer = module.Trainer(system, config, seed=0, steps=1)
    policy = module.load_policy(system, config, trainer.state_dict())
    observation = torch.zeros(1, system.n_agents, *(observation_space(system).shape or ()))
    assert torch.equal(policy(observation, None), trainer.policy()(observation, None))


def test_overrides_of_registered_ids_are_valid(id: str) -> None:
    for algo in ALGORITHMS:
        make_config(id, algo, {})
    assert set(invariantzoo.spec(id).training) <= set(ALGORITHMS)


def test_a_gaussian_policy_is_one() -> None:
    """Densities and entropy of our policy are those that SB3's distribution has."""
    system = brief("particles-crowd-v0")
    model: Any = sb3.make_model(SystemVecEnv(system, 2, seed=0), sb3.PPOConfig(), seed=0)
    policy = model.policy
    with torch.no_grad():
        policy.log_std.uniform_(-2, 1, generator=torch.Generator().manual_seed(0))
        observation = torch.from_numpy(model.env.reset())
        action, value, log_prob = policy(observation)
        theirs = policy.get_distribution(observation)
        again, density, entropy = policy.evaluate_actions(observation, action)
        assert torch.allclose(theirs.log_prob(action), log_prob, rtol=1e-4, atol=1e-4)
        assert torch.allclose(density, log_prob, rtol=1e-4, atol=1e-4)
        assert torch.allclose(theirs.entropy(), entropy, rtol=1e-5)
        assert torch.equal(again, value)
        draws = torch.stack([policy(observation)[0] for _ in range(2000)])
    spread = draws.std(0) / policy.log_std.exp()
    assert (spread - 1).abs().max() < 0.1
    offset = (draws.mean(0) - policy.actor(observation)) / policy.log_std.exp()
    assert offset.abs().max() < 0.12


def test_a_categorical_policy_is_one() -> None:
    system = brief("ising-equilibrium-v0")
    model: Any = sb3.make_model(SystemVecEnv(system, 2, seed=0), sb3.PPOConfig(), seed=0)
    observation = torch.from_numpy(model.env.reset())
    with torch.no_grad():
        action, _, log_prob = model.policy(observation)
        theirs = model.policy.get_distribution(observation)
        _, density, entropy = model.policy.evaluate_actions(observation, action)
        assert torch.allclose(theirs.log_prob(action), log_prob, atol=1e-6)
        assert torch.allclose(density, log_prob, atol=1e-6)
        assert torch.allclose(theirs.entropy(), entropy, atol=1e-6)
        chance = theirs.distribution.probs
        draws = torch.stack([model.policy(observation)[0] for _ in range(4000)]).double()
        assert (draws.mean(0) - chance[:, 1]).abs().max() < 0.04
        choose = sb3.as_policy(model.policy)
        worlds = observation.reshape(2, system.n_agents, -1)
        clock = torch.arange(4000)
        rng = Rng(0, torch.zeros(4000, dtype=torch.int64), clock)
        ours = choose(worlds[:1].expand(4000, -1, -1), rng).double()
    assert (ours.mean(0) - chance[: system.n_agents, 1]).abs().max() < 0.04


def test_sac_density_is_that_of_a_squashed_gaussian() -> None:
    system = brief("particles-crowd-v0")
    model: Any = sb3.make_model(SystemVecEnv(system, 2, seed=0), sb3.SACConfig(), seed=0)
    actor = model.policy.actor
    observation = torch.from_numpy(model.env.reset())
    with torch.no_grad():
        action, log_prob = actor.action_log_prob(observation)
        mean, log_std, _ = actor.get_action_dist_params(observation)
        raw = torch.distributions.Normal(mean.double(), log_std.double().exp())
        squashed = torch.distributions.TransformedDistribution(
            raw, [torch.distributions.transforms.TanhTransform()]
        )
        expected = squashed.log_prob(action.double().clamp(-1 + 1e-7, 1 - 1e-7)).sum(-1)
    assert torch.allclose(log_prob.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_policy_function_is_the_model(algo: str) -> None:
    system = brief("particles-crowd-v0")
    trainer = sb3.Trainer(system, config_class(algo)(**TINY[algo]), seed=3, steps=50)
    list(trainer)
    observation = trainer.env.reset()
    worlds = torch.from_numpy(observation).reshape(3, 4, -1)
    theirs, _ = trainer.model.predict(observation, deterministic=True)
    with torch.no_grad():
        ours = trainer.policy()(worlds, None)
        drawn = [trainer.policy()(worlds, Rng.single(s, 3)) for s in (0, 0, 1)]
    assert np.allclose(ours.reshape(theirs.shape), theirs, atol=1e-6)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert all(part.abs().max() <= 1 for part in drawn)


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("name", ["particles-crowd-v0", "test-leave-v0", "ising-equilibrium-v0"])
def test_continued_equals_uninterrupted(algo: str, name: str, tmp_path: Path) -> None:
    """Bit for bit, and without the global generators."""
    if not fits(name, algo):
        return
    system, config = brief(name), config_class(algo)(**TINY[algo])
    whole = make_trainer(algo, system, config, seed=0, steps=400)
    list(whole)
    first = make_trainer(algo, system, config, seed=0, steps=400)
    stop = 200
    for update in first:
        if update.steps >= stop:
            break
    torch.save(first.state_dict(), tmp_path / "checkpoint.pt")
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second = make_trainer(algo, system, config, seed=0, steps=400)
    second.load_state_dict(saved)
    assert second.steps == first.steps
    list(second)
    assert second.steps == whole.steps
    assert_equal(second.state_dict(), whole.state_dict())


def assert_equal(a: Any, b: Any, where: str = "state") -> None:
    """The same numbers and tensors at the same places."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}.{i}")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_seed_decides_all(algo: str) -> None:
    system, config = brief("particles-crowd-v0"), config_class(algo)(**TINY[algo])
    found = []
    for seed in (0, 0, 1):
        trainer = sb3.Trainer(system, config, seed=seed, steps=150)
        list(trainer)
        found.append(weights(trainer.model))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_global_generators_are_left_alone() -> None:
    def states() -> list[Any]:
        return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002

    before = states()
    for algo in ("ppo", "sac"):
        config = config_class(algo)(**TINY[algo])
        trainer = sb3.Trainer(brief("particles-crowd-v0"), config, seed=0, steps=100)
        made = states()
        list(trainer)
        assert states() == made
    assert before[0] == states()[0]


def test_cut_off_ends_are_valued_in_one_call_as_sb3_does_one_by_one() -> None:
    """The same weights come out with SB3's own loop over truncated slots."""

    class Plain(sb3.RewardScalingCallback):
        def _on_step(self) -> bool:
            return True

    found = []
    for kind in (sb3.RewardScalingCallback, Plain):
        env = SystemVecEnv(brief("particles-crowd-v0"), 3, seed=0)
        config = sb3.PPOConfig(n_worlds=3, n_steps=12, reward_scale=1.0)
        model: Any = sb3.make_model(env, config, seed=0)
        model.learn(144, callback=kind(1.0))
        found.append((model.rollout_buffer.returns.copy(), weights(model)))
    assert np.allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("float64", [False, True])
def test_descent_takes_a_step_on_every_id_that_it_fits(id: str, float64: bool) -> None:
    if not fits(id, "descent"):
        return
    config = make_config(id, "descent", {"rollout": 2, "n_worlds": 2, "float64": float64})
    (update,) = descent.Trainer(brief(id), config, 0, 1)
    assert np.isfinite(update.loss)
    assert 0 <= update.grad_norm < np.inf


def test_a_linear_network_changes_sign_with_what_it_sees() -> None:
    system = brief("klein-gordon-absorber-v0")
    network = make_network(network_names(system)[0], system, 0)
    seen = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(-seen), -network(seen))
    assert network(seen).abs().min() > 0
