"""Training with Stable-Baselines3: PPO, MAPPO, masked PPO, A2C and SAC on `SystemVecEnv`.

Steps are agent-steps: one per slot and step of the vectorised environment.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor, nn

from ...agents.networks.agents import groups_of
from ...agents.networks.choose import network_names
from ...agents.policy import Policy
from ...envs.core import renamed
from ...envs.core.extras import require_extra
from ...envs.core.interfaces.stable_baselines3 import SystemVecEnv
from ...envs.core.memory import require_memory
from ...envs.core.observation import is_discrete
from ...envs.core.system import System
from ...envs.core.validation import require_choice, require_count
from ...envs.core.vector import VectorEnv
from ..geometry.regimes import StepRecorder
from ..optim.config import choose
from .buffers import MaskedReplayBuffer, MaskedRolloutBuffer, SharedRows, WorldRolloutBuffer
from .configs import (
    A2CConfig,
    MAPPOConfig,
    MaskablePPOConfig,
    OnPolicyConfig,
    PPOConfig,
    SACConfig,
    SB3Config,
)
from .devices import computing_device
from .episode_loss import EpisodeLoss
from .policies import (
    NetworkActorCritic,
    NetworkPolicy,
    NetworkSACPolicy,
    as_policy,
    network_of,
)
from .processes import GradientSum, Share, mean_rows
from .score import score_means
from .trainer import Update
from .world_policies import WorldPolicy


class Trainer:
    """A training run of one of these; `state_dict` holds all that continuing it needs.

    The learner is seeded here and draws from generators of its own, so that a run that was
    interrupted after an update and continued equals one that was not.
    """

    def __init__(
        self,
        system: System,
        config: SB3Config,
        *,
        seed: int,
        steps: int,
        share: Share | None = None,
    ) -> None:
        """share: of this process, where several train together (see processes.py)."""
        require_count("steps", steps)
        self.config, self.total = config, steps
        self._share = share
        n_worlds, first = config.n_worlds, 0
        if self._share is not None:
            n_worlds = self._share.of("n_worlds", n_worlds)
            first = self._share.rank * n_worlds
        self.env = SystemVecEnv(system, n_worlds, seed=seed, first_world=first)
        self.model = make_model(self.env, config, seed=seed)
        if self._share is not None:
            _learn_together(self.model, self._share)
        self.model.set_logger(Logger(folder=None, output_formats=[]))
        self._episodes = EpisodeLoss(n_worlds, system.horizon)
        self._watch = RewardScalingCallback(config.reward_scale, self._episodes)
        self._regimes = StepRecorder(config.regimes) if config.regimes else None
        if self._regimes is not None:
            self.watch(self._regimes)

    @property
    def steps(self) -> int:
        """Agent-steps made so far."""
        return int(self.model.num_timesteps) * self._processes

    @property
    def _processes(self) -> int:
        return 1 if self._share is None else self._share.size

    @property
    def per_update(self) -> int:
        """Agent-steps of an update."""
        return self.config.steps_per_update * self.env.num_envs * self._processes

    def policy(self) -> Policy:
        """The policy as it is now."""
        return as_policy(_own_policy(self.model))

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
        # None: never, which SB3 takes and does not declare.
        learn: Any = model.learn
        learn(rows, callback=watch, log_interval=None, reset_num_timesteps=False)
        learned = {
            name.removeprefix("train/"): float(value)
            for name, value in model.logger.name_to_value.items()
            if name.startswith("train/") and name not in _LEFT_OUT
        }
        if "explained_variance" in learned:  # SB3's counts rows that nothing is learned from
            learned["explained_variance"] = _rollout_buffer(model).explained_variance()
        regimes = self._regimes.row() if self._regimes is not None else {}
        row, loss = {**watch.row(), **learned, **regimes}, watch.loss
        if self._share is not None:
            present = mean_rows(self._share, {**row, "here": loss}, watch.present)
            ended = mean_rows(self._share, watch.episodes_ended(), len(watch.ended))
            loss, row = present.pop("here"), {**present, **ended}
        return Update(self.steps, row, loss)

    def use(self, system: System) -> None:
        """Go on in the same worlds under other parameters."""
        if system == self.env.system:
            return
        observation = self.env.use(system)
        if self.model._last_obs is not None:
            self.model._last_obs = observation

    def watch(self, steps: StepRecorder) -> None:
        """Let `steps` see every step of the policy's optimizer (SAC: the actor's) from now on."""
        optimizer = next(iter(_optimizers(self.model).values()))
        steps.attach(optimizer, self.model.policy.named_parameters())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers from which `load_state_dict` continues."""
        model = self.model
        state = {
            "policy": model.policy.state_dict(),
            "optimizers": {
                name: optimizer.state_dict() for name, optimizer in _optimizers(model).items()
            },
            "steps": self.steps,
            "updates": model._n_updates,
            "env": _tensors(self._whole(self.env.save()))
            if self.env.worlds.state is not None
            else {},
            "generators": {
                name: generator.get_state() for name, generator in self._generators().items()
            },
            "numpy_generators": self._numpy_states(),
            "episode_loss": self._episodes_of_all(),
        }
        if self._regimes is not None:
            state["regimes"] = self._regimes.state_dict()
        if model._last_obs is not None:
            assert isinstance(model._last_obs, np.ndarray)
            last = {"observation": model._last_obs, "starts": model._last_episode_starts}
            state["last"] = _tensors(self._whole(last))
        if isinstance(model, SAC):
            state["log_ent_coef"] = model.log_ent_coef
            state["replay"] = _tensors(_replay_buffer(model).save())
        return state

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
        model.num_timesteps = state["steps"] // self._processes
        model._n_updates = state["updates"]
        if state["env"]:
            self.env.restore(self._part(_arrays(state["env"])))
        if "episode_loss" in state:
            episodes = _arrays(state["episode_loss"])
            if self._share is not None:  # steps are added up again
                episodes["steps"] = episodes["steps"] / self._share.size
                episodes |= self._part({name: episodes[name] for name in ("age", "length")})
            self._episodes.load_state_dict(_tensors(episodes))
        else:  # of a version that did not keep it
            self._episodes.start_within(self.env.worlds.age)
        for name, generator in self._generators().items():
            generator.set_state(state["generators"][name])
        for name, numpy_generator in self._numpy_generators().items():
            numpy_generator.bit_generator.state = state["numpy_generators"][name]
        if "last" in state:
            last = self._part(_arrays(state["last"]))
            slots = self.env.num_envs
            if last["observation"].shape != (slots, *(self.env.observation_space.shape or ())):
                raise ValueError(f"observations have shape {last['observation'].shape}")
            if last["starts"].shape != (slots,):
                raise ValueError(f"starts have shape {last['starts'].shape}, not ({slots},)")
            model._last_obs, model._last_episode_starts = last["observation"], last["starts"]
        if isinstance(model, SAC):
            assert model.log_ent_coef is not None
            with torch.no_grad():
                model.log_ent_coef.copy_(state["log_ent_coef"])
            _replay_buffer(model).restore(_arrays(state["replay"]))

    def _whole(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Arrays of all processes, whose first axis is of worlds or slots; others are alike."""
        if self._share is None:
            return parts
        return {
            name: self._share.whole(value) if isinstance(value, np.ndarray) else value
            for name, value in parts.items()
        }

    def _part(self, whole: dict[str, Any]) -> dict[str, Any]:
        """The reverse of `_whole`."""
        if self._share is None:
            return whole
        return {
            name: self._share.part(value) if isinstance(value, np.ndarray) and value.ndim else value
            for name, value in whole.items()
        }

    def _episodes_of_all(self) -> dict[str, Tensor]:
        state = self._episodes.state_dict()
        if self._share is None:
            return state
        arrays = _arrays(state)
        steps = np.sum(self._share.objects(arrays["steps"]), 0)
        worlds = self._whole({name: arrays[name] for name in ("age", "length")})
        return _tensors({"steps": steps, **worlds})

    def _generators(self) -> dict[str, torch.Generator]:
        policy = _own_policy(self.model)
        sampler = policy.actor if isinstance(policy, NetworkSACPolicy) else policy
        return {"actions": sampler.generator}

    def _numpy_generators(self) -> dict[str, np.random.Generator]:
        model = self.model
        buffer = _replay_buffer(model) if isinstance(model, SAC) else _rollout_buffer(model)
        return {"rows": buffer.rng, "first_actions": model.action_space.np_random}

    def _numpy_states(self) -> dict[str, Any]:
        return {
            name: generator.bit_generator.state
            for name, generator in self._numpy_generators().items()
        }


def _learn_together(model: BaseAlgorithm, share: Share) -> None:
    """Let a model draw, choose minibatches and step as one with those of the other processes."""
    policy, buffer = _own_policy(model), _rollout_buffer(model)
    assert isinstance(policy, NetworkPolicy)
    policy.processes = share
    normalize = model.normalize_advantage  # type: ignore[attr-defined]
    gradients = GradientSum(policy.parameters(), policy.optimizer)
    buffer.shared = SharedRows(share, gradients, normalize=normalize)
    model.normalize_advantage = False  # type: ignore[attr-defined]


_LEFT_OUT = ("train/loss", "train/n_updates", "train/clip_range")


class RewardScalingCallback(BaseCallback):
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
        scores = {"running_loss": self.loss} if whole is None else {"loss": whole}
        return {**scores, **self.episodes_ended()}

    def episodes_ended(self) -> dict[str, float]:
        """Return and metrics, means over the episodes that ended; empty if none did."""
        names = self.ended[0] if self.ended else ()
        return score_means({name: np.array([each[name] for each in self.ended]) for name in names})

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
        model = _on_policy(self.model)
        asked = ended if isinstance(model.policy, WorldPolicy) else cut  # it sees whole worlds
        final = np.stack([infos[slot].pop("terminal_observation") for slot in asked])
        with torch.no_grad():
            predicted = model.policy.predict_values(torch.from_numpy(final).to(model.device))
        value = predicted.cpu().numpy().reshape(-1)
        rewards[cut] += model.gamma * (value if asked is cut else value[np.isin(asked, cut)])


def make_model(env: SystemVecEnv, config: SB3Config, *, seed: int) -> BaseAlgorithm:
    """SB3's model for a configuration, with buffers that leave out who did not act.

    Raises ValueError for a network that does not fit, and for SAC with discrete actions.
    """
    device = computing_device(config.device)
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
    if _sees_worlds(config):
        policy |= {"central": isinstance(config, MAPPOConfig), "share": config.share}
        groups_of(config.share, env.system)
    common = {"learning_rate": config.lr, "gamma": config.gamma, "device": device}
    model = _MAKERS[type(config)](env, config, {**common, "policy_kwargs": policy}, seed)
    env.action_space.seed(seed)
    return model


def _sees_worlds(config: SB3Config) -> TypeGuard[OnPolicyConfig]:
    """Whether its policy is a WorldPolicy."""
    if not isinstance(config, OnPolicyConfig):
        return False
    return config.share != "all" or isinstance(config, MAPPOConfig)


def _ppo(env: SystemVecEnv, config: PPOConfig, common: dict[str, Any], seed: int) -> PPO:
    policy = WorldPolicy if _sees_worlds(config) else NetworkPolicy
    return _made_ppo(PPO, policy, env, config, common, seed)


def _made_ppo(
    model_class: Any,
    policy: Any,
    env: SystemVecEnv,
    config: PPOConfig,
    common: dict[str, Any],
    seed: int,
    **more: Any,
) -> Any:
    """A model of SB3's PPO, or of one that takes the same."""
    if config.normalize_advantage and config.n_steps * env.num_envs < 2:
        raise ValueError(
            f"normalize_advantage=True needs n_steps={config.n_steps} times {env.num_envs} slot to "
            "be at least 2: one advantage has no spread"
        )
    if config.optimizer != "cgd":
        common["policy_kwargs"]["optimizer_kwargs"] = {"eps": 1e-5, "fused": True}
    common |= _on_policy_arguments(env, config, seed) | more
    with warnings.catch_warnings():
        # SB3 warns of a last minibatch that is smaller than the others.
        warnings.filterwarnings("ignore", "You have specified a mini-batch size", UserWarning)
        model = model_class(
            policy,
            env,
            batch_size=config.batch_size,
            n_epochs=config.n_epochs,
            clip_range=config.clip_range,
            normalize_advantage=config.normalize_advantage,
            **common,
        )
    buffer = _rollout_buffer(model)
    buffer.watch(env)
    if not _sees_worlds(config):
        buffer.policy = model.policy
    return model


def _maskable_ppo(
    env: SystemVecEnv, config: MaskablePPOConfig, common: dict[str, Any], seed: int
) -> OnPolicyAlgorithm:
    if not is_discrete(env.system):
        raise ValueError("maskable_ppo needs discrete actions; use ppo, a2c or sac here")
    maskable = _maskable()
    return _made_ppo(
        maskable.MaskablePPO,
        maskable.MaskableNetworkPolicy,
        env,
        config,
        common,
        seed,
        rollout_buffer_class=maskable.LegalRolloutBuffer,
    )


def _maskable() -> Any:
    """Our part of sb3-contrib; ModuleNotFoundError where that is not installed."""
    require_extra("sb3_contrib", "contrib", "sb3-contrib")
    from . import maskable

    return maskable


def _a2c(env: SystemVecEnv, config: A2CConfig, common: dict[str, Any], seed: int) -> A2C:
    policy = WorldPolicy if _sees_worlds(config) else NetworkPolicy
    common |= _on_policy_arguments(env, config, seed)
    model = A2C(policy, env, normalize_advantage=config.normalize_advantage, **common)
    _rollout_buffer(model).watch(env)
    return model


def _on_policy_arguments(env: SystemVecEnv, config: OnPolicyConfig, seed: int) -> dict[str, Any]:
    """What SB3's PPO and A2C are both told."""
    rows, worlds = config.n_steps * env.num_envs, _sees_worlds(config)
    observations = 1 if worlds else 5  # with what networks make of them, of steps and together
    _require_memory(f"n_steps={config.n_steps}", env, rows, observations=observations, numbers=6)
    more = {"n_agents": env.system.n_agents} if worlds else {}
    return {
        "n_steps": config.n_steps,
        "gae_lambda": config.gae_lambda,
        "ent_coef": config.ent_coef,
        "vf_coef": config.vf_coef,
        "max_grad_norm": config.max_grad_norm,
        "rollout_buffer_class": WorldRolloutBuffer if worlds else MaskedRolloutBuffer,
        "rollout_buffer_kwargs": {"seed": seed, **more},
    }


def _sac(env: SystemVecEnv, config: SACConfig, common: dict[str, Any], seed: int) -> SAC:
    rows = config.buffer_size
    _require_memory(f"buffer_size={rows}", env, rows, observations=2, numbers=4)
    space = env.action_space
    if not space.shape:
        raise ValueError("sac needs continuous actions; use ppo or a2c here")
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
    _replay_buffer(model).watch(env)
    return model


# The model of each class of settings.
_MAKERS: dict[type[SB3Config], Callable[[SystemVecEnv, Any, dict[str, Any], int], BaseAlgorithm]]
_MAKERS = {
    PPOConfig: _ppo,
    MAPPOConfig: _ppo,
    MaskablePPOConfig: _maskable_ppo,
    A2CConfig: _a2c,
    SACConfig: _sac,
}


def _require_memory(
    setting: str, env: SystemVecEnv, rows: int, *, observations: int, numbers: int
) -> None:
    """Raise ValueError if the rows that are learned from cannot be held, in single precision.

    setting: the hyper-parameter that is to blame, with its value.  A row is so many observations,
    an action, and so many numbers.
    """
    size = math.prod(env.observation_space.shape or ())
    action = math.prod(env.action_space.shape or ())
    row = observations * size + action + numbers
    require_memory(f"{setting} with {env.num_envs} slots", 4 * rows * row)


def load_policy(
    system: System, config: SB3Config, state: dict[str, Any], device: str = "cpu"
) -> Policy:
    """The policy of a `state_dict`, to compute on a device, wherever it was trained."""
    smallest = dataclasses.replace(config.smallest(system.n_agents), device=device)
    trainer = Trainer(system, smallest, seed=0, steps=1)
    trainer.model.policy.load_state_dict(state["policy"])
    trainer.model.policy.requires_grad_(False)  # so that actions have a .numpy(), as any policy's
    return trainer.policy()


def load_zip(algo: str, path: Path) -> Policy:
    """The policy of a model that SB3 saved; unpickles what the file holds."""
    models: dict[str, Any] = {"a2c": A2C, "sac": SAC, "ppo": PPO, "mappo": PPO}
    if algo == "maskable_ppo":
        models[algo] = _maskable().MaskablePPO
    model = models[algo].load(path, device="cpu")
    if not isinstance(model.policy, NetworkActorCritic | NetworkSACPolicy):
        raise ValueError(f"{path} has no policy of ours but a {type(model.policy).__name__}")
    model.policy.requires_grad_(False)
    return as_policy(model.policy)


def export(
    system: System, network: nn.Module, name: str, width: int, path: Path, *, share: str = "all"
) -> None:
    """Write a trained network as the actor of an untrained PPO, for `PPO.load`."""
    config = PPOConfig(n_worlds=1, network=name, width=width, share=share)
    model = make_model(SystemVecEnv(system, 1, seed=0), config, seed=0)
    network_of(_own_policy(model)).load_state_dict(network.state_dict())
    model.save(path)


def _own_policy(model: BaseAlgorithm) -> NetworkActorCritic | NetworkSACPolicy:
    policy = model.policy
    assert isinstance(policy, NetworkActorCritic | NetworkSACPolicy)
    return policy


def _on_policy(model: BaseAlgorithm) -> OnPolicyAlgorithm:
    assert isinstance(model, OnPolicyAlgorithm)
    return model


def _rollout_buffer(model: BaseAlgorithm) -> MaskedRolloutBuffer:
    buffer = _on_policy(model).rollout_buffer
    assert isinstance(buffer, MaskedRolloutBuffer)
    return buffer


def _replay_buffer(model: SAC) -> MaskedReplayBuffer:
    assert isinstance(model.replay_buffer, MaskedReplayBuffer)
    return model.replay_buffer


def _optimizers(model: BaseAlgorithm) -> dict[str, torch.optim.Optimizer]:
    if not isinstance(model, SAC):
        return {"policy": model.policy.optimizer}
    assert model.ent_coef_optimizer is not None
    return {
        "actor": model.actor.optimizer,
        "critic": model.critic.optimizer,
        "ent_coef": model.ent_coef_optimizer,
    }


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


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
