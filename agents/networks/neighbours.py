"""Networks that share their weights among neighbours, whatever their number and order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...envs.core.observation import by_name
from ...envs.core.system import System
from ...envs.core.types import Neighbourhood
from .layers import action_size, mlp


class PairNetwork(nn.Module):
    """The covariant pair policy: one net from a neighbour's invariants to its coefficients.

    skip_empty: evaluate the net once for all places that look like an empty one. Same numbers, less
        work; its layers then see places, not observations, and torch.func.vmap
        cannot map it.
    """

    skip_empty = False

    def __init__(self, system: System, width: int) -> None:
        super().__init__()
        self.system = system
        self.neighbourhood = _neighbourhood(system)
        names, coefficients = self.neighbourhood.names, self.neighbourhood.coefficients
        self.net = mlp(len(names), width, len(coefficients))
        n_own = action_size(system) - _of_neighbours(system, self.neighbourhood)
        self.own = nn.Parameter(torch.tensor([0.5, *[0.0] * (n_own - 1)]))

    @property
    def heads(self) -> list[Any]:
        """Layers that give the action."""
        return [self.net[-1]]

    def forward(self, observation: Tensor) -> Tensor:
        seen = by_name(self.system, observation)
        features = self.neighbourhood.features(seen)
        pair = self._of_places(seen, features) if self.skip_empty else self.net(features)
        per_neighbour = pair.transpose(-1, -2).flatten(-2)
        own = self.own.expand(*observation.shape[:-1], -1).to(observation.dtype)
        return torch.cat([per_neighbour, own], -1)

    def _of_places(self, seen: dict[str, Tensor], features: Tensor) -> Tensor:
        """Coefficients [..., k, coefficients], of all places like the first without weight once."""
        weightless = (self.neighbourhood.window(seen) == 0).flatten().nonzero()
        if not len(weightless):
            return self.net(features)
        rows = features.flatten(0, -2)
        first = weightless[:1, 0]
        others = (rows != rows[first]).any(-1).nonzero().squeeze(-1)
        places = torch.cat([others, first])
        pair = self.net(rows[places])
        spread = pair[-1].expand(len(rows), -1).index_copy(0, places, pair)
        return spread.unflatten(0, features.shape[:-1])


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
        self.embed = mlp(len(names) + len(self.more), width, width)
        joint = action_size(system) - _of_neighbours(system, self.neighbourhood)
        self.pool = mlp(width + len(self.own_names), width, joint)
        if self.per_pair:
            self.each = mlp(2 * width, width, len(coefficients))

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


def _of_neighbours(system: System, neighbourhood: Neighbourhood) -> int:
    """Numbers of an action that belong to neighbours."""
    if not neighbourhood.coefficients:
        return 0
    k = next(bound.width for bound in system.bounds.values() if bound.axis == "neighbours")
    return k * len(neighbourhood.coefficients)


def _neighbourhood(system: System) -> Neighbourhood:
    neighbourhood = system.neighbourhood
    assert neighbourhood is not None  # network_names has asked
    return neighbourhood
