"""Networks of one form with weights of their own for every agent, or for every type of agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...envs.core.system import System
from ...envs.core.validation import require_choice
from . import SHARES
from .choose import make_network

_APART = 7919  # between seeds of the weights of groups


def groups_of(share: str, system: System) -> tuple[int, ...] | None:
    """Which weights each agent has; None: all the same.

    Raises ValueError for share="type" where agents are of one type.
    """
    require_choice("share", share, SHARES)
    if share == "all":
        return None
    if share == "none":
        return tuple(range(system.n_agents))
    types = system.agent_types
    if len(set(types)) < 2:
        name = type(system).__name__
        raise ValueError(f"share='type': all agents of {name} are of one type; use share='all'")
    return types


def make_networks(
    name: str, system: System, seed: int = 0, *, width: int = 24, share: str = "all"
) -> nn.Module:
    """A network of `make_network`, or several of them; ValueError where `share` does not fit."""
    groups = groups_of(share, system)
    if groups is None:
        return make_network(name, system, seed, width=width)
    seeds = seeds_of(groups, seed)
    return AgentNetworks([make_network(name, system, one, width=width) for one in seeds], groups)


def seeds_of(groups: Sequence[int], seed: int) -> list[int]:
    """A seed for the weights of each group."""
    return [seed + _APART * group for group in range(max(groups) + 1)]


class AgentNetworks(nn.Module):
    """From observations [..., agents, size] to outputs [..., agents, outputs], agent by agent.

    networks: of one form; agent i has the weights of `networks[groups[i]]`. Parameters are
    those of a network with an axis of networks before theirs.
    """

    def __init__(self, networks: Sequence[nn.Module], groups: Sequence[int]) -> None:
        super().__init__()
        self.groups: Tensor
        self.register_buffer("groups", torch.tensor(groups), persistent=False)
        self._form: Any = {"network": networks[0]}  # no part of this one: its weights are not used
        self._names = [name for name, _ in networks[0].named_parameters()]
        for name in self._names:
            weights = [network.get_parameter(name).detach() for network in networks]
            self.register_parameter(_plain(name), nn.Parameter(torch.stack(weights)))

    def _apply(self, fn: Any, recurse: bool = True) -> AgentNetworks:
        self._form["network"]._apply(fn, recurse)  # its limits of observations
        return super()._apply(fn, recurse)

    def forward(self, observation: Tensor) -> Tensor:
        """Raises ValueError for another number of agents."""
        n = len(self.groups)
        if observation.shape[-2] != n:
            raise ValueError(
                f"a policy of {n} agents with weights of their own cannot act for "
                f"{observation.shape[-2]}"
            )
        weights = {name: getattr(self, _plain(name))[self.groups] for name in self._names}
        form = self._form["network"]
        buffers = dict(form.named_buffers())

        def of_one(own: dict[str, Tensor], seen: Tensor) -> Tensor:
            return torch.func.functional_call(form, (own, buffers), (seen,))

        by_agent = observation.reshape(-1, n, observation.shape[-1]).transpose(0, 1)
        output = torch.func.vmap(of_one)(weights, by_agent).transpose(0, 1)
        return output.reshape(*observation.shape[:-1], -1)


def _plain(name: str) -> str:
    """A name that a parameter of a module may have."""
    return name.replace(".", "_")
