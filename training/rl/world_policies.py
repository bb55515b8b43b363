"""Policies of SB3 that see whole worlds: a critic of all agents, weights of each agent's own.

Rows are agents of whole worlds, in the order of `SystemVecEnv`; minibatches are `WorldRows`. A
critic of all agents is that of multi-agent PPO (Yu et al. 2022): it helps to train, and is not
needed to act. It is a network of a set: agents are embedded, and each is valued by its own
embedding and the mean of all, so that their numbering does not matter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from ...agents.networks.agents import AgentNetworks, groups_of, make_networks, seeds_of
from ...agents.networks.layers import initialise
from ...envs.core.system import System
from .policies import NetworkPolicy, Scaled, value_network


class WorldRows(NamedTuple):
    """Observations of whole worlds [worlds, agents, size], and which of their agents are meant.

    rows: places [rows] in worlds * agents.
    """

    worlds: Tensor
    rows: Tensor


class CentralCritic(nn.Module):
    """Values [..., agents, 1] of observations [..., agents, size], each of which hangs on all."""

    def __init__(self, space: spaces.Box, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            Scaled(space),
            nn.Linear(space.shape[0], width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.value = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, observation: Tensor) -> Tensor:
        embedded = self.embed(observation)
        pooled = embedded.mean(-2, keepdim=True).expand_as(embedded)
        return self.value(torch.cat([embedded, pooled], -1))


class WorldPolicy(NetworkPolicy):
    """A NetworkPolicy whose critic sees all agents (`central`), or whose agents do not share all.

    share: "all", "type" or "none"; see `AgentNetworks`. A critic that is not central is shared
    as the policy is.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        central: bool,
        share: str,
        **settings: Any,
    ) -> None:
        self.central, self.share = central, share
        super().__init__(observation_space, action_space, lr_schedule, **settings)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"central": self.central, "share": self.share}
        return {**super()._get_constructor_parameters(), **own}

    def _build(self, lr_schedule: Schedule) -> None:
        system: System = self.network["system"]
        self.n_agents = system.n_agents
        groups = groups_of(self.share, system)
        own = None if groups is None else torch.tensor(groups)
        self.groups: Tensor | None
        self.register_buffer("groups", own, persistent=False)
        super()._build(lr_schedule)

    def _make_actor(self) -> nn.Module:
        made = self.network
        return make_networks(
            made["network"], made["system"], made["seed"], width=made["width"], share=self.share
        )

    def _spread_shape(self) -> tuple[int, ...]:
        several = () if self.groups is None else (int(self.groups.max()) + 1,)
        return (*several, *super()._spread_shape())

    def _make_critic(self) -> nn.Module:
        width, seed = self.network["critic_width"], self.network["seed"] + 1
        if self.central:
            assert isinstance(self.observation_space, spaces.Box)
            critic: nn.Module = CentralCritic(self.observation_space, width)
            initialise(critic, seed)
            return critic
        assert self.groups is not None
        groups = self.groups.tolist()
        critics = []
        for own_seed in seeds_of(groups, seed):
            critics.append(value_network(self.observation_space, width))
            initialise(critics[-1], own_seed)
        return AgentNetworks(critics, groups)

    def _noted_inputs(self, observation: Tensor) -> Any:
        return observation

    def heads(self, observation: Any) -> tuple[Tensor, Tensor]:
        worlds, rows = self._world_rows(observation)
        return self._output(worlds, rows), self._chosen(self.critic(worlds), rows)

    def output(self, observation: Any) -> Tensor:
        return self._output(*self._world_rows(observation))

    def spread(self, observation: Any) -> Tensor:
        if self.groups is None:
            return self.log_std
        _, rows = self._world_rows(observation)
        return self.agent_spread[rows % self.n_agents]

    @property
    def agent_spread(self) -> Tensor:
        return self.log_std if self.groups is None else self.log_std[self.groups]

    def _output(self, worlds: Tensor, rows: Tensor) -> Tensor:
        if isinstance(self.actor, AgentNetworks):
            return self._chosen(self.actor(worlds), rows)
        return self.actor(self._chosen(worlds, rows))  # of others nothing is computed

    def _chosen(self, values: Tensor, rows: Tensor) -> Tensor:
        """Of values [worlds, agents, size] those of the rows [rows, size]."""
        return values.flatten(0, 1).index_select(0, rows)

    def _world_rows(self, observation: Any) -> WorldRows:
        """All rows of whole worlds unless it is told which; ValueError for a part of a world."""
        if isinstance(observation, WorldRows):
            return observation
        number = len(observation)
        if number % self.n_agents:
            raise ValueError(
                f"{number} observations are not those of whole worlds of {self.n_agents} agents"
            )
        worlds = observation.reshape(-1, self.n_agents, observation.shape[-1])
        return WorldRows(worlds, torch.arange(number, device=observation.device))
