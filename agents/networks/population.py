"""One network under many sets of weights at once: how a search over weights runs its candidates.

A set of weights is a vector [n_parameters], the network's parameters in their own order, each
flattened. A network that knows a faster way than the general one offers it as the method
`population_forward` of `PopulationNetwork`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

PopulationForward = Callable[[Tensor], Tensor]
"""observation [candidates * m, agents, size] -> output [candidates * m, agents, actions]."""


@runtime_checkable
class PopulationNetwork(Protocol):
    """A network with a way of its own to run many sets of weights."""

    def population_forward(self, parameters: Tensor, observation: Tensor) -> Tensor:
        """What the network gives under many sets of weights.

        parameters [candidates, n_parameters] float64.
        observation [candidates * m, agents, size] of any float type, contiguous; rows c m to
            (c + 1) m - 1 are seen by candidate c. How many rows m a candidate has and how many
            agents are in one may change from call to call; agents are seen one by one.
        Returns [candidates * m, agents, actions]: means of actions, which are clipped to [-1, 1] by
        who calls it, or logits. No gradient is asked for.
        """
        ...


def population_forward(network: nn.Module, parameters: Tensor) -> PopulationForward:
    """The network as a function of the observations of all candidates at once.

    parameters [candidates, n_parameters] float64. The general way computes in the network's own
    precision, all candidates in one batch of products of matrices.
    """
    if isinstance(network, PopulationNetwork):
        method = network.population_forward
        return lambda observation: method(parameters, observation)
    stacked, start = {}, 0
    for name, weight in network.named_parameters():
        stop = start + weight.numel()
        stacked[name] = parameters[:, start:stop].to(weight.dtype).reshape(-1, *weight.shape)
        start = stop
    buffers = dict(network.named_buffers())
    dtype = next(network.parameters()).dtype

    def forward_one(weights: dict[str, Tensor], observation: Tensor) -> Tensor:
        return torch.func.functional_call(network, (weights, buffers), (observation,))

    together = torch.func.vmap(forward_one)

    def forward(observation: Tensor) -> Tensor:
        candidates = len(parameters)
        each = observation.to(dtype).reshape(candidates, -1, *observation.shape[1:])
        return together(stacked, each).flatten(0, 1)

    return forward
