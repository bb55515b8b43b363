"""From fluctuations of data to fluctuations of what is trained, and the noise that SGD settles in.

At an equilibrium of learning the mean gradient is 0 and every sample pulls with its own gradient
g(x). A fluctuation dx of a sample changes its pull by dg = J dx, J = dg / dx, so that

    Cov(dg) = mean of J Cov(dx) J^T           fluctuations around every sample
    Cov(g | class) = J Cov(x | class) J^T     all of a class seen from one point, J at its mean

SGD of a rate eta on batches of size b then fluctuates with the covariance S of

    S = (1 - eta H) S (1 - eta H)^T + eta^2 C / b,        H the Hessian, C = Cov(g)

The map is that of "Dataset-learning duality and emergent criticality" (arXiv 2405.17391), of which
only the abstract and the introduction were available; the equations above are derived, not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...envs.core.validation import require_count, require_number
from .regimes import covariance, sample_gradients

SampleLoss = Callable[[Tensor, Any], Tensor]  # (outputs [1, …], targets [1, …]) -> a number


class TangentMap(NamedTuple):
    """The map at the weights of a network, in the order of its parameters (n numbers).

    gradients [m, n]: of every sample's loss.  jacobians [m, n, d]: of these by the inputs.
    inputs [m, d].  labels [m]: the classes, as whole numbers.
    """

    gradients: Tensor
    jacobians: Tensor
    inputs: Tensor
    labels: Tensor

    def predicted(self, noise: float | Tensor) -> Tensor:
        """Cov(dg) [n, n] for noise of the inputs: a standard deviation, or a covariance [d, d]."""
        j = self.jacobians.double()
        if isinstance(noise, Tensor):
            return (j @ noise.double() @ j.mT).mean(0)
        require_number("noise", noise, 0)
        return noise**2 * (j @ j.mT).mean(0)

    def measured(self, label: int | None = None) -> Tensor:
        """Cov(g) [n, n] over all samples, or those of one class."""
        return covariance(self.gradients if label is None else self.gradients[self._of(label)])

    def predicted_of_class(self, label: int, jacobian: Tensor | None = None) -> Tensor:
        """J Cov(x | class) J^T [n, n]; J [n, d] is the class's mean of J unless given."""
        chosen = self._of(label)
        j = self.jacobians[chosen].mean(0) if jacobian is None else jacobian
        return (j.double() @ covariance(self.inputs[chosen])) @ j.double().T

    def _of(self, label: int) -> Tensor:
        chosen = self.labels == label
        if int(chosen.sum()) < 2:
            known = sorted(set(self.labels.tolist()))
            raise ValueError(f"label={label} must be a class with two samples or more, of {known}")
        return chosen


def tangent_map(network: nn.Module, loss: SampleLoss, data: tuple[Tensor, Tensor]) -> TangentMap:
    """The Jacobian from a fluctuation of a sample to that of its gradient, sample by sample.

    data: (inputs [m, d], targets [m, …]); targets of whole numbers are the classes, as are the
    columns of one-hot ones and the signs of others.
    loss: (outputs [1, …], targets [1, …]) -> a number.
    """
    inputs, targets = data
    if inputs.ndim != 2 or len(inputs) != len(targets):
        shapes = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"data has shapes {shapes}; it must be inputs [m, d] and targets [m, …]")
    weights = {name: p.detach() for name, p in network.named_parameters()}
    buffers = dict(network.named_buffers())

    def value(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        output = torch.func.functional_call(network, (parameters, buffers), (x.unsqueeze(0),))
        return loss(output, y.unsqueeze(0))

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        each = torch.func.grad(value)(weights, x, y)
        return torch.cat([each[name].flatten() for name in weights])

    jacobians = torch.func.vmap(torch.func.jacrev(gradient))(inputs, targets)
    gradients = sample_gradients(network, loss, inputs, targets)
    return TangentMap(gradients, jacobians, inputs, _classes(targets))


def _classes(targets: Tensor) -> Tensor:
    if targets.ndim > 1 and targets.shape[-1] > 1:
        return targets.flatten(1).argmax(1)
    flat = targets.reshape(len(targets), -1)[:, 0]
    return (flat > 0).long() if targets.is_floating_point() else flat.long()


def loss_hessian(network: nn.Module, loss: SampleLoss, data: tuple[Tensor, Tensor]) -> Tensor:
    """Hessian [n, n] of the mean loss over data, in the order of the network's parameters."""
    inputs, targets = data
    weights = {name: p.detach() for name, p in network.named_parameters()}
    sizes = [p.numel() for p in weights.values()]
    buffers = dict(network.named_buffers())

    def mean_loss(flat: Tensor) -> Tensor:
        pieces = flat.split(sizes)
        parameters = {
            name: piece.view_as(p) for (name, p), piece in zip(weights.items(), pieces, strict=True)
        }

        def one(x: Tensor, y: Tensor) -> Tensor:
            output = torch.func.functional_call(network, (parameters, buffers), (x.unsqueeze(0),))
            return loss(output, y.unsqueeze(0))

        return torch.func.vmap(one)(inputs, targets).mean()

    flat = torch.cat([p.flatten() for p in weights.values()])
    hessian: Tensor = torch.func.jacrev(torch.func.grad(mean_loss))(flat)
    return hessian


def stationary_covariance(hessian: Tensor, noise: Tensor, rate: float, batch: int = 1) -> Tensor:
    """The covariance [n, n] that SGD settles into, by the discrete Lyapunov equation.

    hessian [n, n] symmetric; noise [n, n]: covariance of the gradients of single samples.
    Raises ValueError where a step does not contract: the covariance is infinite.
    """
    require_number("rate", rate, 0, strict=True)
    require_count("batch", batch)
    values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.T).double())
    keeps = 1 - rate * values
    if bool((keeps.abs() >= 1).any()):
        limit = 2 / float(values[-1]) if float(values[0]) > 0 else 0.0
        raise ValueError(
            f"rate={rate:g} must be below {limit:.4g}: the Hessian has eigenvalues from "
            f"{float(values[0]):.3g} to {float(values[-1]):.3g}"
        )
    turned = vectors.T @ noise.double() @ vectors
    settled = rate**2 / batch * turned / (1 - keeps[:, None] * keeps[None, :])
    return vectors @ settled @ vectors.T


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Frobenius norm of the difference over that of `expected`."""
    return float((found - expected).norm() / expected.norm())
