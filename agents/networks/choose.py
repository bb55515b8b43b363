"""Networks from a flat observation [..., size] to an action (its mean, or logits) [..., actions].

"pair"  the covariant pair policy: one small net, shared by all neighbours, from that neighbour's
        invariants to its coefficients A..D, and one learned number E for the agent's own p
"set"   permutation-invariant: neighbours are embedded, pooled under the window, and the pool goes
        with each neighbour's embedding to its coefficients (or alone to a joint action)
"mlp"   a plain network on the whole observation: the reference that knows no symmetry
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ...envs.core.observation import by_name, is_discrete, observation_limits
from ...envs.core.system import System
from ...envs.core.types import Neighbourhood
from ...envs.core.validation import nearest

# Untrained agents hardly act: loud ones throw each other off any course worth learning.
_QUIET = 0.1


def network_names(system: System) -> list[str]:
    """Networks that fit a system, best suited first."""
    neighbourhood = system.neighbourhood
    if neighbourhood is None:
        return ["mlp"]
    return ["pair", "set", "mlp"] if neighbourhood.coefficients else ["set", "mlp"]


def make_network(name: str, system: System, seed: int = 0, *, width: int = 24) -> nn.Module:
    """A freshly initialised network for a system; raises KeyError for one that does not fit."""
    known = network_names(system)
    if name not in known:
        hint = nearest(name, known)
        raise KeyError(f"unknown network {name!r}{hint} (this environment has {', '.join(known)})")
    build: dict[str, Any] = {"pair": PairNetwork, "set": SetNetwork, "mlp": PlainNetwork}
    network = build[name](system, width)
    initialise(network, seed)
    with torch.no_grad():
        for head in network.heads:
            head.weight.mul_(_QUIET)
            head.bias.mul_(_QUIET)
    return network


def initialise(network: nn.Module, seed: int) -> None:
    """Draw all weights from one seed: uniform in +-1/sqrt(fan-in), as torch's default."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            limit = layer.in_features**-0.5
            with torch.no_grad():
                layer.weight.uniform_(-limit, limit, generator=generator)
                layer.bias.uniform_(-limit, limit, generator=generator)


class PairNetwork(nn.Module):
    """The covariant pair policy: one net from a neighbour's invariants to its coefficients."""

    def __init__(self, system: System, width: int) -> None:
        super().__init__()
        self.system = system
        self.neighbourhood = _neighbourhood(system)
        names, coefficients = self.neighbourhood.names, self.neighbourhood.coefficients
        self.net = _mlp(len(names), width, len(coefficients))
        self.own = nn.Parameter(torch.full((1,), 0.5))

    @property
    def heads(self) -> list[Any]:
        """Layers that give the action."""
        return [self.net[-1]]

    def forward(self, observation: Tensor) -> Tensor:
        seen = by_name(self.system, observation)
        pair = self.net(self.neighbourhood.features(seen))
        per_neighbour = pair.transpose(-1, -2).flatten(-2)
        own = self.own.expand(*observation.shape[:-1], 1).to(observation.dtype)
        return torch.cat([per_neighbour, own], -1)


class SetNetwork(nn.Module):
    """Embeds neighbours, pools them under the window, and acts on the pool."""

    def __init__(self, system: System, width: int) -> None:
        super().__init__()
        self.system = system
        self.neighbourhood = _neighbourhood(system)
        names, coefficients = self.neighbourhood.names, self.neighbourhood.coefficients
        self.per_pair = bool(coefficients)
        bounds = system.bounds
        self.own_names = [name for name, bound in bounds.items() if bound.size is None]
        self.more = [  # of neighbours too, and of order one already
            name
            for name, bound in bounds.items()
            if bound.axis == "neighbours" and name not in names
        ]
        self.embed = _mlp(len(names) + len(self.more), width, width)
        joint = 1 if self.per_pair else action_size(system)
        self.pool = _mlp(width + len(self.own_names), width, joint)
        if self.per_pair:
            self.each = _mlp(2 * width, width, len(coefficients))

    @property
    def heads(self) -> list[Any]:
        """Layers that give the action."""
        return [self.pool[-1], self.each[-1]] if self.per_pair else [self.pool[-1]]

    def forward(self, observation: Tensor) -> Tensor:
        seen = by_name(self.system, observation)
        more = [seen[name].unsqueeze(-1) for name in self.more]
        embedded = self.embed(torch.cat([self.neighbourhood.features(seen), *more], -1))
        pooled = (self.neighbourhood.window(seen).unsqueeze(-1) * embedded).sum(-2)
        own = torch.stack([torch.asinh(seen[name]) for name in self.own_names], -1)
        together = self.pool(torch.cat([pooled, own], -1))
        if not self.per_pair:
            return together
        context = pooled.unsqueeze(-2).expand_as(embedded)
        pair = self.each(torch.cat([embedded, context], -1))
        return torch.cat([pair.transpose(-1, -2).flatten(-2), together], -1)


class PlainNetwork(nn.Module):
    """Two hidden layers on the observation scaled to [-1, 1]."""

    low: Tensor
    high: Tensor

    def __init__(self, system: System, width: int) -> None:
        super().__init__()
        low, high = observation_limits(system)
        self.register_buffer("low", torch.from_numpy(low), persistent=False)
        self.register_buffer("high", torch.from_numpy(high), persistent=False)
        self.net = _mlp(len(low), width, action_size(system))

    @property
    def heads(self) -> list[Any]:
        """Layers that give the action."""
        return [self.net[-1]]

    def hidden(self, observation: Tensor) -> Tensor:
        """What the last hidden layer gives [..., width]."""
        span = (self.high - self.low).clamp(min=1e-6)
        return self.net[:-1](4 * (observation - self.low) / span - 2)

    def forward(self, observation: Tensor) -> Tensor:
        return self.net[-1](self.hidden(observation))


def action_size(system: System) -> int:
    """Number of outputs: components of a Box, or choices of a Discrete."""
    space = system.action_space
    if is_discrete(system):
        assert isinstance(space, spaces.Discrete)
        return int(space.n)
    assert space.shape is not None
    return int(space.shape[0])


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.Tanh(),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Linear(width, outputs),
    )


def _neighbourhood(system: System) -> Neighbourhood:
    neighbourhood = system.neighbourhood
    assert neighbourhood is not None  # network_names has asked
    return neighbourhood
