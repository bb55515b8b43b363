"""Networks that take the whole observation at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...envs.core.observation import observation_limits
from ...envs.core.system import System
from .layers import PreparedNetwork, action_size, mlp

_LOUDNESS = 0.03  # largest weight of a linear network at the start


class PlainNetwork(PreparedNetwork):
    """Two hidden layers on the observation scaled to [-2, 2]."""

    low: Tensor
    high: Tensor

    def __init__(self, system: System, width: int) -> None:
        super().__init__()
        low, high = observation_limits(system)
        self.register_buffer("low", torch.from_numpy(low), persistent=False)
        self.register_buffer("high", torch.from_numpy(high), persistent=False)
        self.net = mlp(len(low), width, action_size(system))

    @property
    def heads(self) -> list[Any]:
        """Layers that give the action."""
        return [self.net[-1]]

    def inputs(self, observation: Tensor) -> tuple[Tensor, ...]:
        """The scaled observation [..., size]."""
        span = (self.high - self.low).clamp(min=1e-6)
        return (4 * (observation - self.low) / span - 2,)

    def hidden(self, scaled: Tensor) -> Tensor:
        """What the last hidden layer gives [..., width] for `inputs`."""
        first, bend, second, bend_again, _ = self.net
        hidden: Tensor = bend_again(second(bend(first(scaled))))
        return hidden

    def output(self, scaled: Tensor) -> Tensor:
        """Actions from `inputs`."""
        return self.net[-1](self.hidden(scaled))


class LinearNetwork(nn.Module):
    """Weights on the observation and no bias: it changes sign with what is seen, exactly."""

    def __init__(self, system: System, width: int) -> None:
        """`width` is not used: nothing is hidden."""
        super().__init__()
        inputs = sum(bound.width for bound in system.bounds.values())
        self.net = nn.Linear(inputs, action_size(system), bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights: it begins quietly by itself."""
        with torch.no_grad():
            self.net.weight.uniform_(-_LOUDNESS, _LOUDNESS, generator=generator)

    heads: tuple[Any, ...] = ()

    def forward(self, observation: Tensor) -> Tensor:
        return self.net(observation)
