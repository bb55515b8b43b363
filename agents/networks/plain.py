"""The network that knows no symmetry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...envs.core.observation import observation_limits
from ...envs.core.system import System
from .layers import action_size, mlp


class PlainNetwork(nn.Module):
    """Two hidden layers on the observation scaled to [-1, 1]."""

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

    def hidden(self, observation: Tensor) -> Tensor:
        """What the last hidden layer gives [..., width]."""
        span = (self.high - self.low).clamp(min=1e-6)
        return self.net[:-1](4 * (observation - self.low) / span - 2)

    def forward(self, observation: Tensor) -> Tensor:
        return self.net[-1](self.hidden(observation))
