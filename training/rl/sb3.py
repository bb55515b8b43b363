"""Training with Stable-Baselines3: PPO, A2C and SAC on `SystemVecEnv` with our networks.

The dataclasses below are the hyper-parameters; the comment behind a field is its help on the
command line. Steps are agent-steps: one per slot and step of the vectorised environment.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from ...agents.networks.choose import network_names
from ...agents.policy import Policy
from ...envs.core.interfaces.stable_baselines3 import SystemVecEnv
from ...envs.core.memory import require_memory
from ...envs.core.system import System
from ...envs.core.validation import require_choice, require_count, require_number
from ...envs.core.vector import VectorEnv
from ..geometry.regimes import Steps
from ..optim.config import OptimizerConfig, choose
from .buffers import MaskedReplayBuffer, MaskedRolloutBuffer
from .episode_loss import EpisodeLoss
from .policies import NetworkPolicy, NetworkSACPolicy, as_policy, network_of
from .trainer import Update


@dataclass(frozen=True)
class PPOConfig(OptimizerConfig):
    """Hyper-parameters of proximal policy optimization (Schulman et al. 2017)."""

    n_worlds: int = 64  # worlds stepped together
    n_steps: int = 32  # steps of every world per update
    batch_size: int = 4096  # rows per gradient step
    n_epochs: int = 4  # passes over the rows of an update
    lr: float = 1e-3  # learning rate at the start; it falls to zero linearly
    gamma: float = 0.95  # discount per step
    gae_lambda: float = 0.95  # mixing of advantage estimates
    clip_range: float = 0.2  # how far the ratio of probabilities may move
    normalize_advantage: bool = True  # per batch; False: ent_coef stays a temperature
    ent_coef: float = 0.0  # weight of the entropy bonus
    vf_coef: float = 0.5  # weight of the value's loss
    max_grad_norm: float = 0.5  # the gradient is shortened to this length
    reward_scale: float = 0.1  # rewards are multiplied by it before they are learned from
    log_std_init: float = -1.5  # log of the actions' standard deviation at the start
    network: str = ""  # "pair", "set" or "mlp"; empty: the best suited
    width: int = 32  # hidden units per layer of the network
    critic_width: int = 64  # the same of the value's network
    checkpoint_every: int = 20  # updates between checkpoints

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self)
        for name in ("n_epochs", "batch_size"):
            require_count(name, getattr(self, name), 2 if name == "batch_size" else 1)
        require_number("clip_range", self.clip_range, 0, strict=True)


@dataclass(frozen=True)
class A2CConfig(OptimizerConfig):
    """Hyper-parameters of advantage actor-critic (Mnih et al. 2016), without parallel workers."""

    n_worlds: int = 64  # worlds stepped together
    n_steps: int = 8  # steps of every world per update
    lr: float = 2e-3  # learning rate at the start; it falls to zero linearly
    gamma: float = 0.95  # discount per step
    gae_lambda: float = 0.95  # mixing of advantage estimates
    ent_coef: float = 0.0  # weight of the entropy bonus
    vf_coef: float = 0.5  # weight of the value's loss
    max_grad_norm: float = 0.5  # the gradient is shortened to this length
    reward_scale: float = 0.1  # rewards are multiplied by it before they are learned from
    log_std_init: float = -1.5  # log of the actions' standard deviation at the start
    network: str = ""  # "pair", "set" or "mlp"; empty: the best suited
    width: int = 32  # hidden units per layer of the network
    critic_width: int = 64  # the same of the value's network
    checkpoint_every: int = 100  # updates between checkpoints

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self)


@dataclass(frozen=True)
class SACConfig(OptimizerConfig):
    """Hyper-parameters of soft actor-critic (Haarnoja et al. 2018); continuous actions only."""

    n_worlds: int = 16  # worlds stepped together
    n_steps: int = 32  # steps of every world per update (a row of progress.csv)
    train_freq: int = 4  # steps of every world between rounds of gradient steps
    gradient_steps: int = 4  # gradient steps per round
    batch_size: int = 1024  # rows per gradient step
    buffer_size: int = 200_000  # rows of the replay buffer
    learning_starts: int = 10_000  # agent-steps with random actions before learning
    lr: float = 1e-3  # learning rate at the start; it falls to zero linearly
    gamma: float = 0.95  # discount per step
    tau: float = 0.02  # how fast the target networks follow
    reward_scale: float = 1.0  # rewards are multiplied by it before they are learned from
    target_entropy: float = -1.0  # wanted entropy of the policy, per component of the action
    log_std_init: float = -1.5  # log of the actions' standard deviation at the start
    network: str = ""  # "pair", "set" or "mlp"; empty: the best suited
    width: int = 32  # hidden units per layer of the network
    critic_width: int = 64  # the same of the critics
    checkpoint_every: int = 20  # updates between checkpoints

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self)
        for name in ("train_freq", "gradient_steps", "batch_size", "buffer_size"):
            require_count(name, getattr(self, name))
        require_count("learning_starts", self.learning_starts, 0)
        require_number("tau", self.tau, 0, 1, strict=True)
        require_number("target_entropy", self.target_entropy)


Config = PPOConfig | A2CConfig | SACConfig


def _require(config: Config) -> None:
    """Check what the three have in common."""
    for name in ("n_worlds", "n_steps", "width", "critic_width", "checkpoint_every"):
        require_count(name, getattr(config, name))
    for name in ("lr", "reward_scale"):
        require_number(name, getattr(config, name), 0, strict=True)
    require_number("gamma", config.gamma, 0, 1)
    require_number("log_std_init", config.log_std_init, -10, 2)
    if not isinstance(config, SACConfig):
        require_number("gae_lambda", config.gae_lambda, 0, 1)
        for name in ("ent_coef", "vf_coef"):
            require_number(name, getattr(config, name), 0)
        require_number("max_grad_norm", config.max_grad_norm, 0, strict=True)


class Trainer:
    """A training run of one of the three; `state_dict` holds all that continuing it needs.

    The learner is seeded here and draws from generators of its own, so that a run that was
    interrupted after an update and continued equals one that was not.
    """

    def __init__(self, system: System, config: Config, *, seed: int, steps: int) -> None:
        require_count("steps", steps)
        self.config, self.total = config, steps
        self.env = SystemVecEnv(system, config.n_worlds, seed=seed)
        self.model = make_model(self.env, config, seed=seed)
        self.model.set_logger(Logger(folder=None, output_formats=[]))
        self._episodes = EpisodeLoss(config.n_worlds, system.horizon)
        self._watch = Watch(config.reward_scale, self._episodes)
        self._regimes = Steps(config.regimes) if config.regimes else None
        if self._regimes is not None:
            self.watch(self._regimes)

    @property
    def steps(self) -> int:
        """Agent-steps made so far."""
        return int(self.model.num_timesteps)

    @property
    def per_update(self) -> int:
        """Agent-steps of an update."""
        steps = self.config.n_steps
        if isinstance(self.config, SACConfig):
            steps = -(-steps // self.config.train_freq) * self.config.train_freq
        return steps * self.env.num_envs

    def policy(self) -> Policy:
        """The policy as it is now."""
        return as_policy(self.model.policy)  # type: ignore[arg-type]

    def save_policy(self, path: Path) -> None:
        """Write the model for `PPO.load` (or A2C, SAC)."""
        self.model.save(path)

    def __iter__(self) -> Iterator[Update]:
        """Run the updates that are left, one at a time."""
        while self.steps < self.total:
            yield self._update()

    def _update(self) -> Update:
        model, watch = self.model, self._watch
        model.learning_rate = self.config.lr * (1 - self.steps / self.total)
        model._setup_lr_schedule()
        watch.clear()
        rows = self.config.n_steps * self.env.num_envs
        model.learn(rows, callback=watch, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
        learned = {
            name.removeprefix("train/"): float(value)
            for name, value in model.logger.name_to_value.items()
            if name.startswith("train/") and name not in _LEFT_OUT
        }
        regimes = self._regimes.row() if self._regimes is not None else {}
        return Update(self.steps, {**watch.row(), **learned, **regimes}, watch.loss)

    def watch(self, steps: Steps) -> None:
        """Let `steps` see every step of the policy's optimizer (SAC: the actor's) from now on."""
        optimizer = next(iter(_optimizers(self.model).values()))
        steps.attach(optimizer, self.model.policy.named_parameters())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers from which `load_state_dict` continues."""
        model = self.model
        found = {
            "policy": model.policy.state_dict(),
            "optimizers": {name: part.state_dict() for name, part in _optimizers(model).items()},
            "steps": self.steps,
            "updates": model._n_updates,
            "env": _tensors(self.env.save()) if self.env.worlds.state is not None else {},
            "generators": {name: part.get_state() for name, part in self._generators().items()},
            "numpy_generators": self._numpy_states(),
            "episode_loss": self._episodes.state_dict(),
        }
        if self._regimes is not None:
            found["regimes"] = self._regimes.state_dict()
        if model._last_obs is not None:
            assert isinstance(model._last_obs, np.ndarray)
            found["last"] = _tensors(
                {"observation": model._last_obs, "starts": model._last_episode_starts}
            )
        if isinstance(model, SAC):
            assert isinstance(model.replay_buffer, MaskedReplayBuffer)
            found["log_ent_coef"] = model.log_ent_coef
            found["replay"] = _tensors(model.replay_buffer.save())
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        model = self.model
        for name in ("steps", "updates"):
            require_count(name, state[name], 0)
        if not isinstance(state["env"], dict):
            raise ValueError(f"env is a {type(state['env']).__name__}, not the arrays of worlds")
        model.policy.load_state_dict(state["policy"])
        for name, optimizer in _optimizers(model).items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self._regimes is not None:
            self._regimes.load_state_dict(state["regimes"])
        model.num_timesteps, model._n_updates = state["steps"], state["updates"]
        if state["env"]:
            self.env.restore(_arrays(state["env"]))
        if "episode_loss" in state:
            self._episodes.load_state_dict(state["episode_loss"])
        else:  # of a version that did not keep it
            self._episodes.start_within(self.env.worlds.age)
        for name, generator in self._generators().items():
            generator.set_state(state["generators"][name])
        for name, numpy_generator in self._numpy_generators().items():
            numpy_generator.bit_generator.state = state["numpy_generators"][name]
        if "last" in state:
            last = _arrays(state["last"])
            slots = self.env.num_envs
            if last["observation"].shape != (slots, *(self.env.observation_space.shape or ())):
                raise ValueError(f"observations have shape {last['observation'].shape}")
            if last["starts"].shape != (slots,):
                raise ValueError(f"starts have shape {last['starts'].shape}, not ({slots},)")
            model._last_obs, model._last_episode_starts = last["observation"], last["starts"]
        if isinstance(model, SAC):
            assert isinstance(model.replay_buffer, MaskedReplayBuffer)
            assert model.log_ent_coef is not None
            with torch.no_grad():
                model.log_ent_coef.copy_(state["log_ent_coef"])
            model.replay_buffer.restore(_arrays(state["replay"]))

    def _generators(self) -> dict[str, torch.Generator]:
        policy = self.model.policy
        sampler = policy.actor if isinstance(policy, NetworkSACPolicy) else policy
        return {"actions": sampler.generator}  # type: ignore[dict-item]

    def _numpy_generators(self) -> dict[str, np.random.Generator]:
        model = self.model
        buffer: Any = model.replay_buffer if isinstance(model, SAC) else model.rollout_buffer  # type: ignore[attr-defined]
        return {"rows": buffer.rng, "first_actions": model.action_space.np_random}

    def _numpy_states(self) -> dict[str, Any]:
        return {name: part.bit_generator.state for name, part in self._numpy_generators().items()}


_LEFT_OUT = ("train/loss", "train/n_updates", "train/clip_range")


class Watch(BaseCallback):
    """Sums and scales rewards, keeps scores of ended episodes, values all cut-off ends in one call.

    SB3 would otherwise ask the value's network about every slot whose episode was truncated, one
    at a time.
    """

    def __init__(self, reward_scale: float = 1.0, episodes: EpisodeLoss | None = None) -> None:
        super().__init__()
        self.reward_scale, self.episodes = reward_scale, episodes
        self.clear()

    def clear(self) -> None:
        """Forget what was seen, save the steps of the last episodes."""
        self.summed_loss, self.present = 0.0, 0
        self.ended: list[dict[str, float]] = []

    @property
    def loss(self) -> float:
        """Per agent and step, of what was seen."""
        return self.summed_loss / max(self.present, 1)

    def row(self) -> dict[str, float]:
        """Loss per agent and step; return and metrics if episodes ended: means over them.

        loss: over as many of the latest steps as an episode has, so that it does not depend on how
        far episodes are.  running_loss: in its place before the first of them ended, of the steps
        that were seen.
        """
        whole = self.episodes.mean() if self.episodes is not None else None
        found = {"running_loss": self.loss} if whole is None else {"loss": whole}
        for name in self.ended[0] if self.ended else ():
            found[name] = float(np.mean([scores[name] for scores in self.ended]))
        return found

    def _on_training_start(self) -> None:
        env: Any = self.training_env.unwrapped
        self.worlds: VectorEnv = env.worlds
        self._there = int(self.worlds.alive.sum())

    def _on_step(self) -> bool:
        here = self.locals
        rewards, dones, infos = here["rewards"], here["dones"], here["infos"]
        loss = -float(rewards.sum(dtype=np.float64))
        ended = dones[:: self.worlds.n_agents]
        if self.episodes is not None:
            self.episodes.add(loss, self._there, ended)
        self.summed_loss += loss
        self.present += self._there
        self._there = int(self.worlds.alive.sum())
        rewards *= self.reward_scale
        if ended.any():
            self._finish(rewards, np.flatnonzero(dones).tolist(), infos)
        elif not isinstance(self.model, SAC):
            infos.clear()  # all empty; SB3 would look into every one
        return True

    def _finish(self, rewards: np.ndarray, ended: list[int], infos: list[dict[str, Any]]) -> None:
        n = self.worlds.n_agents
        for first in ended[::n]:
            total = sum(infos[slot]["episode"]["r"] for slot in range(first, first + n))
            self.ended.append({"return": total / n, **infos[first]["metrics"]})
        cut = [slot for slot in ended if infos[slot]["TimeLimit.truncated"]]
        if isinstance(self.model, SAC) or not cut:
            return
        final = np.stack([infos[slot].pop("terminal_observation") for slot in cut])
        with torch.no_grad():
            value = self.model.policy.predict_values(torch.from_numpy(final))  # type: ignore[operator]
        rewards[cut] += self.model.gamma * value.numpy().reshape(-1)  # type: ignore[attr-defined]


def make_model(env: SystemVecEnv, config: Config, *, seed: int) -> BaseAlgorithm:
    """SB3's model for a configuration, with buffers that leave out who did not act.

    Raises ValueError for a network that does not fit, and for SAC with discrete actions.
    """
    known = network_names(env.system)
    network = config.network or known[0]
    require_choice("network", network, known)
    policy: dict[str, Any] = {
        "system": env.system,
        "network": network,
        "width": config.width,
        "critic_width": config.critic_width,
        "log_std_init": config.log_std_init,
        "seed": seed,
    }
    if config.optimizer:
        policy["optimizer_class"], policy["optimizer_kwargs"] = choose(config)
    common: dict[str, Any] = {"learning_rate": config.lr, "gamma": config.gamma, "device": "cpu"}
    common |= {"policy_kwargs": policy}
    _require_memory(env, config)
    if isinstance(config, SACConfig):
        return _sac(env, config, common, seed)
    common |= {
        "n_steps": config.n_steps,
        "gae_lambda": config.gae_lambda,
        "ent_coef": config.ent_coef,
        "vf_coef": config.vf_coef,
        "max_grad_norm": config.max_grad_norm,
        "rollout_buffer_class": MaskedRolloutBuffer,
        "rollout_buffer_kwargs": {"seed": seed},
    }
    with warnings.catch_warnings():
        # SB3 warns of a last minibatch that is smaller than the others.
        warnings.filterwarnings("ignore", "You have specified a mini-batch size", UserWarning)
        if isinstance(config, A2CConfig):
            model: PPO | A2C = A2C(NetworkPolicy, env, **common)
        else:
            if config.optimizer != "cgd":
                policy["optimizer_kwargs"] = {"eps": 1e-5, "fused": True}
            model = PPO(
                NetworkPolicy,
                env,
                batch_size=config.batch_size,
                n_epochs=config.n_epochs,
                clip_range=config.clip_range,
                normalize_advantage=config.normalize_advantage,
                **common,
            )
    assert isinstance(model.rollout_buffer, MaskedRolloutBuffer)
    model.rollout_buffer.watch(env)
    env.action_space.seed(seed)
    return model


def _require_memory(env: SystemVecEnv, config: Config) -> None:
    """Raise ValueError if the rows that are learned from cannot be held.

    A row is an observation (SAC: two), an action and at least four numbers, in single precision.
    """
    size = math.prod(env.observation_space.shape or ())
    action = math.prod(env.action_space.shape or ())
    if isinstance(config, SACConfig):
        what, rows, row = "buffer_size", config.buffer_size, 2 * size + action + 4
    else:
        what, rows, row = "n_steps", config.n_steps * env.num_envs, size + action + 6
    require_memory(f"{what}={getattr(config, what)} with {env.num_envs} slots", 4 * rows * row)


def _sac(env: SystemVecEnv, config: SACConfig, common: dict[str, Any], seed: int) -> SAC:
    space = env.action_space
    if not space.shape:
        raise ValueError("sac needs continuous actions; use ppo or a2c here")
    env.action_space.seed(seed)
    model = SAC(
        NetworkSACPolicy,
        env,
        train_freq=config.train_freq,
        gradient_steps=config.gradient_steps,
        batch_size=config.batch_size,
        buffer_size=config.buffer_size,
        learning_starts=config.learning_starts,
        tau=config.tau,
        target_entropy=config.target_entropy * space.shape[0],
        ent_coef="auto_0.1",
        replay_buffer_class=MaskedReplayBuffer,
        replay_buffer_kwargs={"seed": seed},
        **common,
    )
    assert isinstance(model.replay_buffer, MaskedReplayBuffer)
    model.replay_buffer.watch(env)
    return model


def load_policy(system: System, config: Config, state: dict[str, Any]) -> Policy:
    """The policy of a `state_dict`."""
    small: dict[str, Any] = {"n_worlds": 1}
    if isinstance(config, SACConfig):
        small["buffer_size"] = system.n_agents
    trainer = Trainer(system, dataclasses.replace(config, **small), seed=0, steps=1)
    trainer.model.policy.load_state_dict(state["policy"])
    return trainer.policy()


def load_zip(algo: str, path: Path) -> Policy:
    """The policy of a model that SB3 saved; unpickles what the file holds."""
    models: dict[str, type[PPO | A2C | SAC]] = {"ppo": PPO, "a2c": A2C, "sac": SAC}
    model = models[algo].load(path, device="cpu")
    if not isinstance(model.policy, NetworkPolicy | NetworkSACPolicy):
        raise ValueError(f"{path} has no policy of ours but a {type(model.policy).__name__}")
    return as_policy(model.policy)


def export(system: System, network: nn.Module, name: str, width: int, path: Path) -> None:
    """Write a trained network as the actor of an untrained PPO, for `PPO.load`."""
    config = PPOConfig(n_worlds=1, network=name, width=width)
    model = make_model(SystemVecEnv(system, 1, seed=0), config, seed=0)
    network_of(model.policy).load_state_dict(network.state_dict())  # type: ignore[arg-type]
    model.save(path)


def _optimizers(model: BaseAlgorithm) -> dict[str, torch.optim.Optimizer]:
    if not isinstance(model, SAC):
        return {"policy": model.policy.optimizer}
    assert model.ent_coef_optimizer is not None
    found = {"actor": model.actor.optimizer, "critic": model.critic.optimizer}
    return {**found, "ent_coef": model.ent_coef_optimizer}


def _tensors(saved: dict[str, Any]) -> dict[str, Any]:
    """Arrays as tensors that share their memory; whole numbers stay."""
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in saved.items()
    }


def _arrays(saved: dict[str, Any]) -> dict[str, Any]:
    """The reverse of `_tensors`."""
    return {
        name: value.numpy() if isinstance(value, Tensor) else value for name, value in saved.items()
    }
