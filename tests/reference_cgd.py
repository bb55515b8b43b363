"""Covariant gradient descent as it is written down, one vector of parameters, nothing saved."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def average(values: list[Tensor], tau: float) -> Tensor:
    """<f>(t) = f(t) / (1 + tau) + tau / (1 + tau) <f>(t - 1), from zero, over all values."""
    found = torch.zeros_like(values[0])
    for value in values:
        found = value / (1 + tau) + tau / (1 + tau) * found
    return found


def direction(
    gradients: list[Tensor],
    *,
    tau1: float,
    tau2: float,
    alpha: float,
    eps: float,
    zeta: float = 0.0,
    full: bool = False,
    centered: str = "none",
    bias_correction: bool = True,
) -> Tensor:
    """G^{-1} F after the gradients [n] of all steps so far."""
    t = len(gradients)
    force = average(gradients, tau1)
    seen = gradients
    if centered == "residual":
        seen = [g - average(gradients[: i + 1], tau1) for i, g in enumerate(gradients)]
    second = average([torch.outer(g, g) for g in seen], tau2)
    if centered == "mean":
        mean = average(gradients, tau2)
        second = second - torch.outer(mean, mean)
    if bias_correction:
        force = force / (1 - (tau1 / (1 + tau1)) ** t)
        second = second / (1 - (tau2 / (1 + tau2)) ** t)
    if not full:
        c = second.diagonal().clamp(min=0)
        return force / (c**alpha + eps + zeta * c)
    values, vectors = torch.linalg.eigh(second)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    return vectors @ ((vectors.T @ force) / (values**alpha + eps + zeta * values))


def descend(
    start: Tensor,
    gradient: Callable[[Tensor], Tensor],
    steps: int,
    *,
    lr: float,
    **settings: object,
) -> Tensor:
    """Where `steps` steps lead from `start` [n]."""
    q, gradients = start.clone(), []
    for _ in range(steps):
        gradients.append(gradient(q))
        q = q - lr * direction(gradients, **settings)  # type: ignore[arg-type]
    return q
