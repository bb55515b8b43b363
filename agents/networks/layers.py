"""Layers that all networks are made of, and how they begin."""

from __future__ import annotations

from collections.abc import Callable

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ...envs.core.observation import is_discrete
from ...envs.core.system import System


class PreparedNetwork(nn.Module):
    """A network that splits off what does not hang on its weights.

    `inputs` gives tensors whose first axes are those of the observation; `output` takes them.
    """

    output: Callable[..., Tensor]

    def inputs(self, observation: Tensor) -> tuple[Tensor, ...]:
        """What the network makes of observations [..., size] before its weights come in."""
        raise NotImplementedError

    def forward(self, observation: Tensor) -> Tensor:
        return self.output(*self.inputs(observation))


def inputs_of(network: nn.Module, observation: Tensor) -> tuple[Tensor, ...]:
    """The inputs of any network; of one that splits nothing off, the observation."""
    return network.inputs(observation) if isinstance(network, PreparedNetwork) else (observation,)


def output_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """What it makes of them."""
    output: Tensor = (network.output if isinstance(network, PreparedNetwork) else network)(*inputs)
    return output


def initialise(network: nn.Module, seed: int) -> None:
    """Draw all weights from one seed: uniform in +-1/sqrt(fan-in), as torch's default.

    A network with a method `initialise` of its own is left to it.
    """
    generator = torch.Generator().manual_seed(seed)
    own: Callable[[torch.Generator], None] | None = getattr(network, "initialise", None)
    if own is not None:
        own(generator)
        return
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            limit = layer.in_features**-0.5
            with torch.no_grad():
                layer.weight.uniform_(-limit, limit, generator=generator)
                layer.bias.uniform_(-limit, limit, generator=generator)


def action_size(system: System) -> int:
    """Number of outputs: components of a Box, or choices of a Discrete."""
    space = system.action_space
    if is_discrete(system):
        assert isinstance(space, spaces.Discrete)
        return int(space.n)
    assert space.shape is not None
    return int(space.shape[0])


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of tanh."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.Tanh(),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Linear(width, outputs),
    )
