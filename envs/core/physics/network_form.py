"""A field as a network that learns: one activation and one step of gradient descent per time step.

Neurons x, trainable numbers b, weights W (dense), time step dt. In every step

    activation    x -> f(x, b)
    learning      b -> b - dL(f(x, b)) / db        stochastic gradient descent at rate 1

    Klein-Gordon  x = phi, b = its momentum; f = x + dt b, L = x W x / 2, W = m^2 - Laplacian
    Dirac         x, b = both halves of a field; f = x + dt W b, L = x x / 2, W antisymmetric

The first is symplectic Euler for phi'' = -W phi. In the second learning brings in minus the
transpose of W, which is W again if it is antisymmetric: then x + b moves by the generator W and
x - b by -W, as a Dirac field does forwards and backwards in time. That learning and activation are
the two halves of Hamilton's equations is the claim of arXiv 2411.08138; this form of it, in which
equality with the field can be tested to the last digit, is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

import torch
from torch import Tensor

from .lattice import Torus


@final
class NetworkField(NamedTuple):
    """A network whose steps are those of a field.

    activation: (neurons, trainable) -> neurons.  loss: neurons -> a number.
    """

    activation: Callable[[Tensor, Tensor], Tensor]
    loss: Callable[[Tensor], Tensor]

    def step(self, neurons: Tensor, trainable: Tensor) -> tuple[Tensor, Tensor]:
        """Neurons and trainable numbers [sites] after an activation and a learning step."""
        with torch.enable_grad():
            trainable = torch.nn.Parameter(trainable.detach().clone())
            optimizer = torch.optim.SGD([trainable], lr=1.0)
            neurons = self.activation(neurons, trainable)
            torch.autograd.backward(self.loss(neurons))
        optimizer.step()
        return neurons.detach(), trainable.detach()


def klein_gordon_network(weights: Tensor, dt: float) -> NetworkField:
    """The network of a Klein-Gordon field; weights [sites, sites], symmetric."""
    return NetworkField(lambda x, b: x + dt * b, lambda x: 0.5 * x @ weights @ x)


def dirac_network(weights: Tensor, dt: float) -> NetworkField:
    """The network of a Dirac field; weights [components, components], antisymmetric."""
    return NetworkField(lambda x, b: x + dt * weights @ b, lambda x: 0.5 * x @ x)


def klein_gordon_weights(lattice: Torus, mass: float, spacing: float = 1.0) -> Tensor:
    """m^2 - Laplacian as a dense matrix [sites, sites]."""
    unit = torch.eye(lattice.n_sites, dtype=torch.float64)
    laplacian = lattice.neighbour_sum(unit) - 2 * lattice.dimension * unit
    return mass**2 * unit - laplacian / spacing**2
