"""A small diffusion model that ships, as a deterministic map from latents to images.

Data x_0 and noise z are mixed to x = x_0 cos(phi) + z sin(phi), 0 <= phi <= pi/2 (variance
preserving, cosine schedule). The network learns the velocity dx/dphi, v = z cos(phi) - x_0 sin(phi)
(Salimans and Ho, arXiv 2202.00512). DDIM without noise (Song et al., arXiv 2010.02502) is then a
rotation, from x = z at pi/2 to an image at 0 in `SAMPLING_STEPS` equal steps d:

    x <- x cos(d) - v(x, phi) sin(d)

Images have mean 0 and numbers from -1 to 1. The classifier's last hidden layer, each number divided
by its standard deviation over the data, are the features of an image.
"""

from __future__ import annotations

import copy
import math
from importlib import resources
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softmax

from ...envs.core.files import load_arrays
from ...envs.core.validation import require_choice
from .fields import as_array
from .statistics import mlp

MODELS = ("digits",)
SAMPLING_STEPS = 50
PIXELS, CLASSES = 64, 10
_WIDTH, _BLOCKS, _WAVES = 256, 3, 16
_FEATURES = 16


@final
class VelocityNet(nn.Module):
    """v(x, phi): residual blocks of two layers of a width, each told the angle."""

    def __init__(self, width: int = _WIDTH) -> None:
        super().__init__()
        self.enter = nn.Linear(PIXELS, width)
        self.angle = nn.Linear(2 * _WAVES, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), mlp([width, width, width])) for _ in range(_BLOCKS)
        )
        self.leave = nn.Linear(width, PIXELS)

    def forward(self, x: Tensor, phi: Tensor) -> Tensor:
        """Velocities [m, pixels] of x [m, pixels] at angles phi [m], or [1] for all."""
        waves = phi[:, None] * torch.arange(1, _WAVES + 1, dtype=x.dtype, device=x.device)
        told = self.angle(torch.cat([waves.sin(), waves.cos()], -1))
        h = self.enter(x)
        for block in self.blocks:
            h = h + block(h + told)
        return self.leave(h)


def make_classifier() -> nn.Sequential:
    """Images [m, pixels] to logits [m, classes]; all but its last layer gives features."""
    return nn.Sequential(mlp([PIXELS, 64, _FEATURES]), nn.SiLU(), nn.Linear(_FEATURES, CLASSES))


@final
class DiffusionModel:
    """A diffusion model and a classifier of its images.

    Called with latents [m, pixels] it gives images [m, pixels]. Arrays give arrays, tensors tensors
    on their device; all is computed in the floating type `dtype`.
    """

    def __init__(
        self, net: nn.Module, classifier: nn.Sequential, scale: Tensor, dtype: torch.dtype
    ) -> None:
        self._net = net.to(dtype).requires_grad_(False)
        self._classifier = classifier.to(dtype).requires_grad_(False)
        self._scale, self._dtype = scale.to(dtype), dtype

    def __call__(self, latents: Any) -> Any:
        """Images [m, pixels] of latents [m, pixels]."""
        return self._applied(self._images, "latents", latents)

    def features(self, images: Any) -> Any:
        """Features [m, 16] of images [m, pixels], of unit variance over the data."""
        return self._applied(lambda x: self._hidden(x) / self._scale, "images", images)

    def embedding(self, images: Any) -> Any:
        """The last hidden layer [m, 16] of images [m, pixels], at unit length."""
        return self._applied(lambda x: normalize(self._hidden(x), dim=-1), "images", images)

    def logits(self, images: Any) -> Any:
        """Logits [m, classes] of images [m, pixels]."""
        return self._applied(self._classifier, "images", images)

    def probabilities(self, images: Any) -> Any:
        """Probabilities [m, classes] of images [m, pixels]."""
        return self._applied(lambda x: softmax(self._classifier(x), -1), "images", images)

    def classify(self, images: Any) -> Any:
        """The most probable class [m] of images [m, pixels]."""
        return self._applied(lambda x: self._classifier(x).argmax(-1), "images", images)

    def with_network(self, net: nn.Module) -> DiffusionModel:
        """Another network of velocities with this classifier."""
        return DiffusionModel(net, copy.deepcopy(self._classifier), self._scale, self._dtype)

    def _images(self, x: Tensor) -> Tensor:
        step = math.pi / 2 / SAMPLING_STEPS
        for k in range(SAMPLING_STEPS, 0, -1):
            velocity = self._net(x, torch.full((1,), k * step, dtype=x.dtype, device=x.device))
            x = x * math.cos(step) - velocity * math.sin(step)
        return x

    def _hidden(self, x: Tensor) -> Tensor:
        return self._classifier[1](self._classifier[0](x))

    def _applied(self, function: Any, name: str, rows: Any) -> Any:
        """A function of tensors, applied to tensors or arrays and given back as those are."""
        of_tensors = isinstance(rows, torch.Tensor)
        given = rows if of_tensors else torch.from_numpy(as_array(name, rows))
        if given.ndim != 2 or given.shape[1] != PIXELS:
            raise ValueError(f"{name} have shape {tuple(given.shape)}; they must be [m, {PIXELS}]")
        if of_tensors and given.device != self._scale.device:
            self._net.to(given.device), self._classifier.to(given.device)
            self._scale = self._scale.to(given.device)
        result = function(given.to(self._dtype))
        return result if of_tensors else result.numpy()


def load_diffusion(name: str = "digits", *, dtype: str = "float64") -> DiffusionModel:
    """A diffusion model that ships with its classifier: "digits", 8 x 8, latents [m, 64].

    dtype: "float64", for zooms and derivatives, or "float32", which takes half the time.
    """
    require_choice("name", name, MODELS)
    require_choice("dtype", dtype, ("float32", "float64"))
    with resources.as_file(resources.files(f"{__package__}.data") / f"{name}-model.npz") as path:
        arrays = {key: torch.from_numpy(value) for key, value in load_arrays(path).items()}
    net, classifier = VelocityNet(), make_classifier()
    for module, prefix in ((net, "net."), (classifier, "classifier.")):
        state = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        module.load_state_dict(state)
    return DiffusionModel(net, classifier, arrays["scale"].float(), getattr(torch, dtype))


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits that ship: images [1797, 64] from -1 to 1, and labels [1797]."""
    with resources.as_file(resources.files(f"{__package__}.data") / "digits.npz") as path:
        arrays = load_arrays(path)
    return arrays["images"] / 8.0 - 1, arrays["labels"].astype(int)
