"""Networks that share their weights among neighbours, whatever their number and order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...envs.core.observation import by_columns, observation_columns
from ...envs.core.system import System
from ...envs.core.types import Neighbourhood
from .layers import PreparedNetwork, action_size, mlp


class PairNetwork(PreparedNetwork):
    """The covariant pair policy: one net from a neighbour's invariants to its coefficients.

    skip_empty: evaluate the net once for all places that look like an empty one. Same numbers, less
        work, on the CPU; its layers are then not called, and torch.func.vmap cannot map it. Where a
        gradient by the observation is asked for, all places are evaluated.
    """

    skip_empty = False

    def __init__(self, system: System, width: int) -> None:
        super().__init__()
        self.system = system
        self.neighbourhood = _neighbourhood(system)
        self.columns = observation_columns(system)
        names, coefficients = self.neighbourhood.names, self.neighbourhood.coefficients
        self.net = mlp(len(names), width, len(coefficients))
        n_own = action_size(system) - _of_neighbours(system, self.neighbourhood)
        self.own = nn.Parameter(torch.tensor([0.5, *[0.0] * (n_own - 1)]))

    @property
    def heads(self) -> list[Any]:
        """Layers that give the action."""
        return [self.net[-1]]

    def inputs(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Features [..., k, names]; with `skip_empty` also which places are filled [..., k]."""
        seen = by_columns(self.columns, observation)
        features = self.neighbourhood.features(seen)
        if not self.skip_empty:
            return (features,)
        weightless = (self.neighbourhood.window(seen) == 0).flatten().nonzero()
        if not len(weightless):
            return features, torch.ones_like(features[..., 0], dtype=torch.bool)
        empty = features.flatten(0, -2)[weightless[0, 0]]
        return features, (features != empty).any(-1)

    def output(self, features: Tensor, filled: Tensor | None = None) -> Tensor:
        """Actions from `inputs`."""
        few = filled is not None and self.skip_empty and not features.requires_grad
        if few and features.device.type == "cpu":
            assert filled is not None
            from .places import OfPlaces  # compiled: numba is imported where it is used

            k, names = features.shape[-2:]
            places = features.reshape(-1, k, names), filled.reshape(-1, k)
            action: Tensor = OfPlaces.apply(*places, self.own, *self.net.parameters())
            return action.view(*features.shape[:-2], -1)
        per_neighbour = self.net(features).transpose(-1, -2).flatten(-2)
        own = self.own.expand(*features.shape[:-2], -1).to(features.dtype)
        return torch.cat([per_neighbour, own], -1)


class SetNetwork(PreparedNetwork):
    """Embeds neighbours, pools them under the window, and acts on the pool."""

    def __init__(self, system: System, width: int) -> None:
        super().__init__()
        self.system = system
        self.neighbourhood = _neighbourhood(system)
        self.columns = observation_columns(system)
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

    def inputs(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Of neighbours [..., k, names], their weights [..., k], and of the agent [..., own]."""
        seen = by_columns(self.columns, observation)
        more = [seen[name].unsqueeze(-1) for name in self.more]
        features = torch.cat([self.neighbourhood.features(seen), *more], -1)
        own = torch.stack([torch.asinh(seen[name]) for name in self.own_names], -1)
        return features, self.neighbourhood.window(seen), own

    def output(self, features: Tensor, window: Tensor, own: Tensor) -> Tensor:
        """Actions from `inputs`."""
        embedded = self.embed(features)
        pooled = (window.unsqueeze(-1) * embedded).sum(-2)
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
