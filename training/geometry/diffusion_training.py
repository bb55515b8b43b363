"""How the diffusion model that ships was trained: mean squared errors of velocities and of classes.

Weights are kept as a moving average over the steps. Whole epochs are never counted: every batch is
drawn with replacement, with its own angles and noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .diffusion import VelocityNet, make_classifier
from .statistics import seeded

_AVERAGE = 0.998  # of the weights, a step


def fit_velocities(
    images: Tensor,
    *,
    steps: int,
    batch: int = 256,
    seed: int = 0,
    make: Callable[[], nn.Module] = VelocityNet,
) -> Any:
    """A net that has learned the velocities of images [n, pixels]; make: one that has not."""
    draws = torch.Generator().manual_seed(seed)

    def loss(net: nn.Module) -> Tensor:
        return velocity_error(net, images, batch, draws)

    return _averaged(seeded(make, seed), loss, steps, 2e-3)


def velocity_error(net: nn.Module, images: Tensor, n: int, draws: torch.Generator) -> Tensor:
    """The mean squared error of velocities of n mixtures of images [m, pixels] with noise."""
    x = images[torch.randint(len(images), (n,), generator=draws)]
    phi = math.pi / 2 * torch.rand(n, generator=draws)
    noise = torch.randn(x.shape, generator=draws)
    cos, sin = phi.cos()[:, None], phi.sin()[:, None]
    return (net(x * cos + noise * sin, phi) - (noise * cos - x * sin)).square().mean()


def fit_classifier(
    images: Tensor, labels: Tensor, *, steps: int, batch: int = 128, seed: int = 0
) -> nn.Sequential:
    """A classifier of images [n, pixels], shown with a little noise, by labels [n]."""
    draws = torch.Generator().manual_seed(seed)

    def loss(net: nn.Module) -> Tensor:
        i = torch.randint(len(images), (batch,), generator=draws)
        shown = images[i] + 0.1 * torch.randn((batch, images.shape[1]), generator=draws)
        return cross_entropy(net(shown), labels[i])

    return _averaged(seeded(make_classifier, seed), loss, steps, 3e-3)


def feature_scale(classifier: nn.Sequential, images: Tensor) -> Tensor:
    """Standard deviations [features] of the classifier's features over images [n, pixels]."""
    with torch.no_grad():
        return classifier[1](classifier[0](images)).std(0)


def _averaged(net: Any, loss: Callable[[nn.Module], Tensor], steps: int, rate: float) -> Any:
    """The net after Adam with one cycle of the rate, with its averaged weights."""
    optimizer = torch.optim.Adam(net.parameters(), rate)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    mean = [p.detach().clone() for p in net.parameters()]
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        rates.step()
        torch._foreach_lerp_(mean, list(net.parameters()), 1 - _AVERAGE)
    with torch.no_grad():
        for p, average in zip(net.parameters(), mean, strict=True):
            p.copy_(average)
    return net.eval()
