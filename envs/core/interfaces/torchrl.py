"""Many worlds as a batched TorchRL environment: tensors in and out, no dictionaries of agents.

All agents are one group, "agents", as TorchRL's and BenchMARL's multi-agent code expects it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from ..observation import is_discrete, observation_space
from ..registry import make_system
from ..rng import Rng, fresh_seed
from ..seeds import require_seed
from ..system import System
from ..vector import ILLEGAL, VectorEnv

GROUP = "agents"
_FLAGS = ("done", "terminated", "truncated")


class SystemTorchEnv(EnvBase):
    """`n_worlds` worlds of one system: batch size [worlds], the group's is [worlds, agents].

    ("agents", "observation") [worlds, agents, size], ("agents", "action") and ("agents", "reward")
    [worlds, agents, 1] are what agents see, do and get; "done", "terminated" and "truncated"
    [worlds, 1] are those of worlds: terminated once all agents have left. Where agents may leave,
    the group has these three too. Where not all act in every step, ("agents", "mask") [worlds,
    agents] says who acts in the next one; where actions may be illegal, ("agents", "action_mask")
    [worlds, agents, n] holds the legal ones. "metrics" [worlds, names] is NaN but at the end of an
    episode; `metric_names` says what stands in its columns. "state" [worlds, size], for centralised
    critics, is there with `with_state=True`.

    Worlds are those of `VectorEnv` with the same seed. They are computed on the CPU, and tensors
    are moved to `device`.
    """

    def __init__(
        self,
        system: System,
        n_worlds: int = 1,
        *,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        with_state: bool = False,
    ) -> None:
        env = VectorEnv(system, n_worlds, seed=seed, autoreset=False)
        super().__init__(device=torch.device(device), batch_size=torch.Size([n_worlds]))
        self.system = system
        names = [f"{system.agent_name}_{agent}" for agent in range(system.n_agents)]
        self.group_map = {GROUP: names}
        self._env = env
        self._n_actions = int(getattr(system.action_space, "n", 0))
        self._next_seed: int | None = None
        with torch.no_grad():
            probe = system.initial(Rng.single(0, 1), 1)
            self._leaves = system.terminated(probe) is not None
            self._has_legal = system.action_mask(probe) is not None
        self.metric_names = (*system.reductions, *([ILLEGAL] if self._has_legal else []))
        self._turns = self._leaves or system.one_at_a_time
        self._state_size = sum(array[0].numel() for array in probe) if with_state else 0
        self._make_specs()

    def _make_specs(self) -> None:
        worlds = self._env.n_worlds, self._env.n_agents
        seen = observation_space(self.system)
        size = seen.shape[0]
        low, high = torch.from_numpy(seen.low), torch.from_numpy(seen.high)
        limits = low.expand(*worlds, size), high.expand(*worlds, size)
        group: dict[str, Any] = {"observation": Bounded(*limits, (*worlds, size))}
        if self._turns:
            group["mask"] = Categorical(2, worlds, dtype=torch.bool)
        if self._has_legal:
            shape = (*worlds, self._n_actions)
            group["action_mask"] = Binary(shape=shape, dtype=torch.bool)
        whole: dict[str, Any] = {}
        if self.metric_names:
            whole["metrics"] = Unbounded((worlds[0], len(self.metric_names)), dtype=torch.float32)
        if self._state_size:
            whole["state"] = Unbounded((worlds[0], self._state_size), dtype=torch.float32)
        self.observation_spec = self._composite(group, whole)
        self.action_spec = self._composite({"action": self._action_spec_of_agents(worlds)})
        self.reward_spec = self._composite({"reward": Unbounded((*worlds, 1))})
        flags = {name: Categorical(2, (worlds[0], 1), dtype=torch.bool) for name in _FLAGS}
        own = {name: Categorical(2, (*worlds, 1), dtype=torch.bool) for name in _FLAGS}
        self.done_spec = self._composite(own if self._leaves else {}, flags)

    def _action_spec_of_agents(self, worlds: tuple[int, int]) -> Any:
        if is_discrete(self.system):
            return Categorical(self._n_actions, worlds)
        return Bounded(
            -1, 1, (*worlds, *(self.system.action_space.shape or ())), dtype=torch.float32
        )

    def _composite(self, group: dict[str, Any], whole: dict[str, Any] | None = None) -> Composite:
        """What agents have, and what worlds have."""
        shape = (self._env.n_worlds, self._env.n_agents)
        parts = {GROUP: Composite(group, shape=shape)} if group else {}
        return Composite({**parts, **(whole or {})}, shape=shape[:1]).to(self.device)

    def _reset(
        self,
        tensordict: TensorDictBase | None = None,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> TensorDictBase:
        """Start all worlds anew, or those that "_reset" [worlds, 1] flags.

        seed, options: as `VectorEnv.reset` has them; the seed goes before that of `set_seed`.
        """
        flags = None if tensordict is None else tensordict.get("_reset", None)
        chosen = None
        if flags is not None:
            chosen = flags.reshape(self._env.n_worlds).cpu().numpy()
        if chosen is None or chosen.all():
            seed, chosen = self._next_seed if seed is None else seed, None
        observation = self._env.reset(seed, worlds=chosen, options=options)
        if chosen is None:
            self._next_seed = None
        left = ~self._env.alive
        nobody = np.zeros_like(left)
        return self._tensors(observation, left, nobody, nobody[:, 0], {}, {})

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        action = tensordict.get((GROUP, "action")).detach().cpu().numpy()
        step = self._env.step(action)
        reward = {"reward": torch.from_numpy(step.reward.astype(np.float32)[..., None])}
        flags = step.terminated, step.truncated, step.done
        return self._tensors(step.observation, *flags, step.metrics, reward)

    def _tensors(
        self,
        observation: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        done: np.ndarray,
        metrics: dict[str, np.ndarray],
        group: dict[str, Tensor],
    ) -> TensorDict:
        """What worlds are after a reset or step; `group` holds what else agents get."""
        n_worlds, n_agents = self._env.n_worlds, self._env.n_agents
        device = self.device
        group["observation"] = torch.from_numpy(observation)
        whole: dict[str, Any] = {"done": torch.from_numpy(done[:, None])}
        if self._leaves:
            group |= _flags(terminated[..., None], truncated[..., None])
            over = done & terminated.all(1)
            whole |= _flags(over[:, None], (done & ~over)[:, None])
        else:
            whole["terminated"] = torch.zeros(n_worlds, 1, dtype=torch.bool)
            whole["truncated"] = whole["done"].clone()
        if self._turns:
            group["mask"] = torch.from_numpy(self._env.active())
        if self._has_legal:
            group["action_mask"] = torch.from_numpy(self._env.legal_actions())
        if self.metric_names:
            whole["metrics"] = self._metrics(done, metrics)
        if self._state_size:
            parts = [torch.from_numpy(array).reshape(n_worlds, -1) for array in self._env.state]
            whole["state"] = torch.cat([part.float() for part in parts], -1)
        whole[GROUP] = TensorDict(group, batch_size=(n_worlds, n_agents), device=device)
        return TensorDict(whole, batch_size=(n_worlds,), device=device)

    def _metrics(self, done: np.ndarray, metrics: dict[str, np.ndarray]) -> Tensor:
        """Metrics [worlds, names] of the worlds that are done, NaN elsewhere."""
        table = np.full((len(done), len(self.metric_names)), np.nan, np.float32)
        if metrics:
            rows = np.stack([metrics[name] for name in self.metric_names], -1)
            table[done] = rows[done]
        return torch.from_numpy(table)

    def _set_seed(self, seed: int | None) -> None:
        """Choose the seed of the next reset of all worlds."""
        if seed is not None:
            require_seed("seed", seed)
        self._next_seed = fresh_seed() if seed is None else int(seed)


def _flags(terminated: np.ndarray, truncated: np.ndarray) -> dict[str, Tensor]:
    flags = {"done": terminated | truncated, "terminated": terminated, "truncated": truncated}
    return {name: torch.from_numpy(flag) for name, flag in flags.items()}


def make_torchrl_env(
    id: str,
    *,
    n_worlds: int = 1,
    seed: int | None = None,
    device: torch.device | str = "cpu",
    with_state: bool = False,
    **parameters: Any,
) -> SystemTorchEnv:
    """TorchRL's environment of an id; `parameters` are those of its system."""
    system = make_system(id, **parameters)
    return SystemTorchEnv(system, n_worlds, seed=seed, device=device, with_state=with_state)
