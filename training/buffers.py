"""Rollout and replay buffers that leave out rows whose agent did not act.

A slot of `SystemVecEnv` whose agent is gone, or not active in a system that updates one at a time,
still gives a row at every step; a learner that used it would count the entropy of actions that
nobody took. Call `watch(vec_env)` once; without it, or where everybody acts, all rows count.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples, RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from .vec_env import SystemVecEnv


class MaskedRolloutBuffer(RolloutBuffer):
    """Rows [buffer_size, n_envs] of one rollout; minibatches hold those whose agent acted.

    Between two actions of an agent its rewards count, discounted, towards the first of them; values
    at steps where it could not act are not used. What an agent does last before it leaves for good
    is followed by value 0.
    """

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        self.rng = np.random.default_rng(seed)
        self._watched: SystemVecEnv | None = None
        super().__init__(*args, **kwargs)

    def watch(self, env: VecEnv) -> None:
        """Ask `env`, a SystemVecEnv or a wrapper of one, who acted."""
        self._watched = _system_vec_env(env)

    def reset(self) -> None:
        super().reset()
        self.acted = np.ones((self.buffer_size, self.n_envs), bool)
        self.terminated = np.zeros((self.buffer_size, self.n_envs), bool)

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Store a row per slot; to be called after the environment's step, as SB3 does."""
        if self._watched is not None:
            self.acted[self.pos] = self._watched.acted
            self.terminated[self.pos] = self._watched.terminated
        super().add(*args, **kwargs)

    def compute_returns_and_advantage(self, last_values: Tensor, dones: np.ndarray) -> None:
        """Generalized advantage estimation (Schulman et al. 2016) from action to action."""
        following = last_values.detach().cpu().numpy().reshape(-1)  # value of what follows
        gain = np.zeros_like(following)  # advantage of what follows
        over = dones
        for step in reversed(range(self.buffer_size)):
            goes_on = self.gamma * ~(np.asarray(over, bool) | self.terminated[step])
            goes_on = goes_on.astype(np.float32)
            target = self.rewards[step] + goes_on * following
            carried = goes_on * gain
            value, acted = self.values[step], self.acted[step]
            advantage = target - value + self.gae_lambda * carried
            self.advantages[step] = advantage
            following = np.where(acted, value, target)
            gain = np.where(acted, advantage, carried)
            over = self.episode_starts[step]
        self.returns = self.advantages + self.values

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Minibatches of the rows whose agent acted, in random order."""
        kept = np.flatnonzero(self.acted)
        rows = torch.from_numpy(self.rng.permutation(kept))
        table = (
            self.observations,
            self.actions.astype(np.float32, copy=False),
            self.values,
            self.log_probs,
            self.advantages,
            self.returns,
        )
        flat = [torch.from_numpy(part.reshape(-1, *part.shape[2:])) for part in table]
        for batch in rows.split(batch_size or max(len(rows), 1)):
            parts = [part.index_select(0, batch).to(self.device) for part in flat]
            yield RolloutBufferSamples(*parts)


class MaskedReplayBuffer(ReplayBuffer):
    """Transitions [buffer_size, n_envs]; samples are of those whose agent acted.

    The transition in which an agent leaves for good counts as its last one.
    """

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rng = np.random.default_rng(seed)
        self.acted = np.ones((self.buffer_size, self.n_envs), bool)
        self._watched: SystemVecEnv | None = None
        self._kept: np.ndarray | None = None

    def watch(self, env: VecEnv) -> None:
        """Ask `env`, a SystemVecEnv or a wrapper of one, who acted."""
        self._watched = _system_vec_env(env)

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store a transition per slot; to be called after the environment's step, as SB3 does."""
        if self._watched is not None:
            self.acted[self.pos] = self._watched.acted
            done = done | self._watched.terminated
        self._kept = None
        super().add(obs, next_obs, action, reward, done, infos)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Transitions of agents that acted, drawn with replacement."""
        if self._kept is None:
            self._kept = np.flatnonzero(self.acted[: self.size()])
        chosen = self._kept[self.rng.integers(0, len(self._kept), batch_size)]
        at = np.divmod(chosen, self.n_envs)
        ended = self.dones[at] * (1 - self.timeouts[at])
        parts: tuple[Any, ...] = (
            self._normalize_obs(self.observations[at], env),
            self.actions[at],
            self._normalize_obs(self.next_observations[at], env),
            ended.reshape(-1, 1),
            self._normalize_reward(self.rewards[at].reshape(-1, 1), env),
        )
        return ReplayBufferSamples(*(self.to_torch(part) for part in parts))

    def save(self) -> dict[str, Any]:
        """Everything that `restore` needs: whole numbers and arrays of the rows in use."""
        rows = {name: getattr(self, name)[: self.size()] for name in _TRANSITION}
        return {**rows, "pos": self.pos, "full": self.full}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to what `save` returned."""
        self.pos, self.full, self._kept = saved["pos"], saved["full"], None
        for name in _TRANSITION:
            getattr(self, name)[: self.size()] = saved[name]


_TRANSITION = (
    "observations",
    "next_observations",
    "actions",
    "rewards",
    "dones",
    "timeouts",
    "acted",
)


def _system_vec_env(env: VecEnv) -> SystemVecEnv:
    bare = env.unwrapped
    if not isinstance(bare, SystemVecEnv):
        raise ValueError(f"{type(bare).__name__} does not say who acted; use a SystemVecEnv")
    return bare
