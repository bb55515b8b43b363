"""Rollout and replay buffers that leave out rows whose agent did not act.

A slot of `SystemVecEnv` whose agent is gone, or not active in a system that updates one at a time,
still gives a row at every step; a learner that used it would count the entropy of actions that
nobody took. Every step of a `SystemVecEnv` says who acted, in the flags that SB3 hands to buffers
(`Dones` in vec_env.py): buffers hold no environment, so that loading, saving and `set_env` are as
with any buffer. Where the flags say nothing, as those of other environments, all rows count.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, cast

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples, RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from ...envs.core.interfaces.stable_baselines3 import Dones, SystemVecEnv
from .policies import NetworkActorCritic, PolicyInputs
from .processes import GradientSum, Share
from .world_policies import WorldRows

_AT_ONCE = 65_536  # rows that are on a device together


class SharedRows:
    """Rows of a rollout that several processes made: which of a minibatch of all are whose.

    A process that has none of a minibatch computes with one of its own, whose gradient counts
    nothing: `gradients` adds up those of all, each with its share of the rows.
    """

    def __init__(self, share: Share, gradients: GradientSum, *, normalize: bool) -> None:
        self.share, self.gradients, self.normalize = share, gradients, normalize
        self.acted = np.zeros((0, 0), bool)  # [steps, slots of all]
        self._advantages = torch.zeros(0)  # [steps * slots of all]
        self._rows = torch.zeros(0, dtype=torch.int64)  # of the minibatch, of all

    def gather(self, acted: np.ndarray, advantages: np.ndarray) -> None:
        """Learn from the others what they have."""
        self.acted = self.share.whole(acted, 1)
        self._own_acted = torch.from_numpy(acted.reshape(-1).copy())
        self._advantages = torch.from_numpy(self.share.whole(advantages, 1).reshape(-1))

    def own_rows(self, rows: Tensor) -> Tensor:
        """Of rows of all those of this process, as it counts them."""
        own = self._own(rows, self.acted.shape[1])
        self._rows = rows
        self.gradients.weight = len(own) / len(rows)
        return own if len(own) else self._own_acted.nonzero()[0]

    def own_worlds(self, places: Tensor, n_agents: int) -> Tensor:
        """The same of worlds at a step."""
        acted = torch.from_numpy(self.acted.reshape(-1, n_agents))
        own = self._own(places, self.acted.shape[1] // n_agents)
        row = places[:, None] * n_agents + torch.arange(n_agents)
        self._rows = row[acted[places]]
        here = self._own_acted.reshape(-1, n_agents)
        self.gradients.weight = int(here[own].sum()) / len(self._rows)
        return own if len(own) else here.any(1).nonzero()[0]

    def normalized(self, advantages: Tensor) -> Tensor:
        """Of this process's rows, by mean and deviation over those of all."""
        if not self.normalize or len(self._rows) < 2:
            return advantages
        every = self._advantages[self._rows].to(advantages.device)
        return (advantages - every.mean()) / (every.std() + 1e-8)

    def _own(self, units: Tensor, width: int) -> Tensor:
        """Units [steps * width] of all that are this process's, as it counts them."""
        step, place = units // width, units % width
        each = width // self.share.size
        own = place // each == self.share.rank
        return step[own] * each + place[own] % each


class MaskedRolloutBuffer(RolloutBuffer):
    """Rows [buffer_size, n_envs] of one rollout; minibatches hold those whose agent acted.

    Between two actions of an agent its rewards count, discounted, towards the first of them; values
    at steps where it could not act are not used, save that after the last step of the rollout,
    which stands for all that follows, whoever acts then. What an agent does last before it leaves
    for good is followed by value 0.
    """

    samples: ClassVar[Any] = RolloutBufferSamples

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        self.rng = np.random.default_rng(seed)
        self._watched = False
        self.policy: NetworkActorCritic | None = None  # that makes inputs of rows for all passes
        self.shared: SharedRows | None = None
        super().__init__(*args, **kwargs)

    def watch(self, env: VecEnv) -> None:
        """Insist from now on that every step says who acted, as those of `env` do.

        Raises ValueError unless `env` is a SystemVecEnv or a wrapper of one.
        """
        _require_system_vec_env(env)
        self._watched = True

    def reset(self) -> None:
        super().reset()
        self.acted = np.ones((self.buffer_size, self.n_envs), bool)
        self.terminated = np.zeros((self.buffer_size, self.n_envs), bool)
        self._made: PolicyInputs | None = None
        self._noted: list[PolicyInputs] = []  # of the steps so far

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        """Store a row per slot; `episode_start` are the flags that the step before ended with."""
        if self.pos > 0:
            if self._watched:
                _require_told(episode_start)
            self._hear(self.pos - 1, episode_start)
        noted = None if self.policy is None else self.policy.noted_inputs(obs)
        if noted is not None:
            self._noted.append(noted)
        super().add(obs, action, reward, episode_start, value, log_prob)

    def _hear(self, row: int, dones: np.ndarray) -> None:
        """Note who acted in a row from the flags that its step ended with."""
        acted, terminated = getattr(dones, "acted", None), getattr(dones, "terminated", None)
        if acted is not None:
            self.acted[row] = acted
        if terminated is not None:
            self.terminated[row] = terminated

    def compute_returns_and_advantage(self, last_values: Tensor, dones: np.ndarray) -> None:
        """Generalized advantage estimation (Schulman et al. 2016) from action to action."""
        self._hear(self.pos - 1, dones)
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
        if self.shared is not None:
            self.shared.gather(self.acted, self.advantages)
        if not self._all_acted().any():
            raise ValueError(
                f"nobody acted in {self.buffer_size} steps of {self.n_envs} slots: there is "
                "nothing to learn from; take more n_steps or n_worlds"
            )

    def explained_variance(self) -> float:
        """Share of the variance of returns that values explain, over the rows of who acted."""
        value, wanted = self.values[self.acted], self.returns[self.acted]
        if self.shared is not None:
            value, wanted = self.shared.share.whole(value), self.shared.share.whole(wanted)
        return float(explained_variance(value, wanted))

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Minibatches of the rows whose agent acted, in random order."""
        rows = torch.from_numpy(self.rng.permutation(np.flatnonzero(self._all_acted())))
        table = self._columns()
        flat = [torch.from_numpy(array.reshape(-1, *array.shape[2:])) for array in table]
        seen: Tensor | PolicyInputs = flat[0] if self.policy is None else self._inputs(flat[0])
        for batch in rows.split(batch_size or max(len(rows), 1)):
            own = batch if self.shared is None else self.shared.own_rows(batch)
            parts = [column.index_select(0, own).to(self.device) for column in flat[1:]]
            some: Any = (
                seen.rows(own) if isinstance(seen, PolicyInputs) else seen.index_select(0, own)
            )
            yield self._normalized(self.samples(some.to(self.device), *parts))

    def _inputs(self, observations: Tensor) -> PolicyInputs:
        """What the policy makes of the rollout's observations [rows, size], once for all passes."""
        alike = len({tuple(map(len, inputs)) for inputs in self._noted}) == 1
        if self._made is None and alike and len(self._noted) == self.buffer_size:
            self._made = PolicyInputs.joined(self._noted)
            self._noted = []
        if self._made is None:
            assert self.policy is not None
            with torch.no_grad():
                parts = [
                    self.policy.inputs(some.to(self.device)).to(observations.device)
                    for some in observations.split(_AT_ONCE)
                ]
            self._made = PolicyInputs.joined(parts)
        return self._made

    def _columns(self) -> tuple[np.ndarray, ...]:
        """What a sample has, each [buffer_size, n_envs, …]."""
        return (
            self.observations,
            self.actions.astype(np.float32, copy=False),
            self.values,
            self.log_probs,
            self.advantages,
            self.returns,
        )

    def _all_acted(self) -> np.ndarray:
        """Who acted [buffer_size, n_envs]; of several processes, in the worlds of all."""
        return self.acted if self.shared is None else self.shared.acted

    def _normalized(self, samples: RolloutBufferSamples) -> RolloutBufferSamples:
        """Advantages as the minibatch of all processes has them, if there are several."""
        if self.shared is None:
            return samples
        return samples._replace(advantages=self.shared.normalized(samples.advantages))


class WorldRolloutBuffer(MaskedRolloutBuffer):
    """The same whose minibatches are of whole worlds, about as many rows of who acted in each.

    Their observations are `WorldRows`.
    """

    def __init__(self, *args: Any, n_agents: int, **kwargs: Any) -> None:
        self.n_agents = n_agents
        super().__init__(*args, **kwargs)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Minibatches of worlds at one step in which somebody acted, in random order."""
        acted = self.acted.reshape(-1, self.n_agents)  # of a world at a step
        all_acted = self._all_acted().reshape(-1, self.n_agents)
        rows = self.observations.reshape(*acted.shape, -1)
        places = torch.from_numpy(self.rng.permutation(np.flatnonzero(all_acted.any(1))))
        each = max(all_acted.sum() / max(len(places), 1), 1.0)  # rows that act in one of them
        size = len(places) if batch_size is None else max(round(batch_size / each), 1)
        table = (self.values, self.log_probs, self.advantages, self.returns)
        actions = self.actions.reshape(acted.size, *self.actions.shape[2:])
        numbers = [torch.from_numpy(array.reshape(-1)) for array in table]
        whole = torch.from_numpy(actions.astype(np.float32, copy=False))
        worlds, acts = torch.from_numpy(rows), torch.from_numpy(acted)
        for every in places.split(max(size, 1)):
            batch = every
            if self.shared is not None:
                batch = self.shared.own_worlds(every, self.n_agents)
            meant = acts[batch].flatten().nonzero().squeeze(1)
            flat = batch[meant // self.n_agents] * self.n_agents + meant % self.n_agents
            seen = WorldRows(worlds[batch].to(self.device), meant.to(self.device))
            parts = [column.index_select(0, flat).to(self.device) for column in (whole, *numbers)]
            # SB3 hands observations on to the policy as they are.
            yield self._normalized(RolloutBufferSamples(cast(Tensor, seen), *parts))


class MaskedReplayBuffer(ReplayBuffer):
    """Transitions [buffer_size, n_envs]; samples are of those whose agent acted.

    The transition in which an agent leaves for good counts as its last one. Rows are of single
    steps: what an agent gets between two actions of its own is left out.
    Raises ValueError for `optimize_memory_usage=True`.
    """

    def __init__(
        self, *args: Any, seed: int = 0, optimize_memory_usage: bool = False, **kwargs: Any
    ) -> None:
        if optimize_memory_usage:
            raise ValueError(
                "optimize_memory_usage=True must be False: the next observation of a row is kept "
                "beside it"
            )
        super().__init__(*args, **kwargs)
        self.rng = np.random.default_rng(seed)
        self.acted = np.ones((self.buffer_size, self.n_envs), bool)
        self._watched = False
        self._kept: np.ndarray | None = None

    def watch(self, env: VecEnv) -> None:
        """Insist from now on that every step says who acted, as those of `env` do.

        Raises ValueError unless `env` is a SystemVecEnv or a wrapper of one.
        """
        _require_system_vec_env(env)
        self._watched = True

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store a transition per slot; `done` are the flags that the step ended with."""
        if self._watched:
            _require_told(done)
        acted, terminated = getattr(done, "acted", None), getattr(done, "terminated", None)
        self.acted[self.pos] = True if acted is None else acted
        if terminated is not None:
            done = done | terminated
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
        return ReplayBufferSamples(*(self.to_torch(array) for array in parts))

    def __setstate__(self, state: dict[str, Any]) -> None:
        watched = state.get("_watched") not in (None, False)  # once it was an environment
        self.__dict__.update({**state, "_watched": watched})

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


def _require_system_vec_env(env: VecEnv) -> None:
    bare = env.unwrapped
    if not isinstance(bare, SystemVecEnv):
        raise ValueError(f"{type(bare).__name__} does not say who acted; use a SystemVecEnv")


def _require_told(dones: np.ndarray) -> None:
    if not isinstance(dones, Dones):
        raise ValueError(
            "the flags of ended episodes do not say who acted; a wrapper must hand on those of the "
            "SystemVecEnv, or a copy of them"
        )
