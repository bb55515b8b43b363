"""Slices of other diffusion networks of the digits, and of the one that ships under other metrics.

Every network is trained with one thread in about 5 CPU minutes on the digits that the shipped one
was trained on, and has the shipped classifier. `invariantzoo.figures.diffusion` makes the page.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from invariantzoo import load_diffusion
from invariantzoo.figures.diffusion_training import split
from invariantzoo.training.geometry.diffusion import DiffusionModel, VelocityNet
from invariantzoo.training.geometry.diffusion_training import fit_velocities, velocity_error
from invariantzoo.training.geometry.survey import is_clear, summary, survey

SLICES = 5
CHECKED, CHECK_SEED = 4000, 5  # mixtures of images and noise on which losses are compared


class Network(NamedTuple):
    """A velocity network: how it is made and trained."""

    make: Callable[[], nn.Module]
    steps: int
    batch: int


NETWORKS = {"twice as wide": Network(partial(VelocityNet, 512), 6000, 256)}


def losses(net: nn.Module) -> list[float]:
    """Mean squared errors of velocities of the digits trained on, and of those held back."""
    trained_on, _, held, _ = split()
    with torch.no_grad():
        return [
            float(velocity_error(net, images, CHECKED, torch.Generator().manual_seed(CHECK_SEED)))
            for images in (trained_on, held)
        ]


@cache
def trained(name: str) -> tuple[nn.Module, float]:
    """A network of `NETWORKS` in float32, and the CPU seconds that its training took."""
    torch.set_num_threads(1)
    network = NETWORKS[name]
    start = time.process_time()
    net = fit_velocities(split()[0], steps=network.steps, batch=network.batch, make=network.make)
    return net, time.process_time() - start


def model_of(name: str) -> DiffusionModel:
    """A network of `NETWORKS` in float32, with the shipped classifier."""
    return load_diffusion("digits", dtype="float32").with_network(trained(name)[0])


def described(name: str) -> dict[str, Any]:
    """CPU seconds of the training, losses, parameters, and the first seeds of clear slices."""
    net, seconds = trained(name)
    of_losses = losses(net)
    model = model_of(name)
    seeds = list(islice((seed for seed in count() if is_clear(model, seed)), SLICES))
    size = sum(p.numel() for p in net.parameters())
    return {"seconds": round(seconds), "losses": of_losses, "seeds": seeds, "size": size}


def surveyed_under(model: DiffusionModel, seed: int, metric: str, pairs: int) -> dict[str, Any]:
    """Figures of a slice under a metric, without slopes, which it does not change; CPU seconds."""
    start = time.process_time()
    result = summary(survey(model, seed, metric=metric, crossings=0, pairs=pairs))
    del result["slopes"], result["plateau"]
    result["digits"] = np.asarray(result["digits"]).astype(int).tolist()
    return {**result, "seconds": round(time.process_time() - start, 1)}
