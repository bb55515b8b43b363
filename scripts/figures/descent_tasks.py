"""What the optimizers of `descent_compared` are tried on: a task is drawn from a seed.

Rosenbrock's function stands in `descent_valley`. Every task here has fresh noise in its gradients,
data to choose the learning rate by, and other data to report.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Task(NamedTuple):
    """A model, its loss at a step (as a function of the model's weights), and how it is judged.

    error: what is reported, with the data "validation" or "test"; the table shows log10 of it.
    """

    model: nn.Module
    loss: Callable[[int], Tensor]
    error: Callable[[str], float]
    steps: int


def multiplication(seed: int) -> Task:
    """y = x1 x2 on [-1, 1]^2 by a network 2-10-1 (41 weights), fresh batches of 32."""
    generator = torch.Generator().manual_seed(seed)
    model = _network((2, 10, 1), generator)
    data = 2 * torch.rand(1500, 32, 2, generator=generator, dtype=torch.float64) - 1

    def error(split: str) -> float:
        n = 15 if split == "test" else 12
        line = torch.linspace(-1, 1, n, dtype=torch.float64)
        x = torch.cartesian_prod(line, line)
        return float((model(x)[:, 0] - x.prod(1)).square().mean())

    def loss(step: int) -> Tensor:
        x = data[step]
        return (model(x)[:, 0] - x.prod(1)).square().mean()

    return Task(model, loss, error, len(data))


class Springs(nn.Module):
    """A square net of 5 x 5 nodes, its border fixed to walls, with 60 springs of unknown stiffness.

    Displacements across the net under loads [..., 25] are K^{-1} loads, K the stiffness matrix.
    """

    edges: Tensor

    def __init__(self, side: int = 5) -> None:
        super().__init__()
        number = torch.arange(side * side).view(side, side)
        inner = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:])]
        wall = torch.full((side,), side * side)
        border = [
            (number[:, 0], wall),
            (number[:, -1], wall),
            (number[0], wall),
            (number[-1], wall),
        ]
        pairs = [torch.stack([a.flatten(), b.flatten()], 1) for a, b in [*inner, *border]]
        ends = torch.cat(pairs)
        incidence = torch.zeros(len(ends), side * side + 1, dtype=torch.float64)
        row = torch.arange(len(ends))
        incidence[row, ends[:, 0]] = 1
        incidence[row, ends[:, 1]] = -1
        self.register_buffer("edges", incidence[:, :-1])
        self.log_stiffness = nn.Parameter(torch.zeros(len(ends), dtype=torch.float64))

    def forward(self, loads: Tensor) -> Tensor:
        matrix = self.edges.T @ (self.log_stiffness.exp()[:, None] * self.edges)
        return torch.linalg.solve(matrix, loads.mT).mT


def springs(seed: int) -> Task:
    """Stiffnesses spread over three decades, from displacements under random loads with noise."""
    generator = torch.Generator().manual_seed(seed)
    truth, model = Springs(), Springs()
    with torch.no_grad():
        spread = torch.rand(truth.log_stiffness.shape, generator=generator, dtype=torch.float64)
        truth.log_stiffness.copy_((3 * spread - 1.5) * torch.log(torch.tensor(10.0)))
        loads = torch.randn(1000, 25, generator=generator, dtype=torch.float64)
        seen = truth(loads)
        size = seen.square().mean()
        noise = torch.randn(seen.shape, generator=generator, dtype=torch.float64)
        noisy = seen + 0.01 * size.sqrt() * noise
    batches = torch.randint(0, 400, (1000, 16), generator=generator)

    def loss(step: int) -> Tensor:
        rows = batches[step]
        return (model(loads[rows]) - noisy[rows]).square().mean() / size

    def error(split: str) -> float:
        rows = slice(400, 600) if split == "validation" else slice(600, 1000)
        return float((model(loads[rows]) - seen[rows]).square().mean() / size)

    return Task(model, loss, error, len(batches))


def digits(seed: int) -> Task:
    """Handwritten digits of 8 x 8 pixels (scikit-learn), a network 64-32-10; cross-entropy."""
    pixels, labels = _digits()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    parts = {"validation": order[1000:1300], "test": order[1300:]}
    model = _network((64, 32, 10), generator)
    batches = torch.randint(0, 1000, (500, 64), generator=generator)

    def loss(step: int) -> Tensor:
        rows = order[batches[step]]
        return nn.functional.cross_entropy(model(pixels[rows]), labels[rows])

    def error(split: str) -> float:
        rows = parts[split]
        return float(nn.functional.cross_entropy(model(pixels[rows]), labels[rows]))

    return Task(model, loss, error, len(batches))


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images: Any = load_digits()
    return torch.from_numpy(images.data / 8 - 1), torch.from_numpy(images.target).long()


def _network(sizes: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    """Layers with tanh between them in double precision, drawn as torch does."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layer = nn.Linear(inputs, outputs, dtype=torch.float64)
        with torch.no_grad():
            for p in layer.parameters():
                p.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
        layers += [nn.Tanh(), layer] if i else [layer]
    return nn.Sequential(*layers)


TASKS: dict[str, Callable[[int], Task]] = {
    "multiplication": multiplication,
    "springs": springs,
    "digits": digits,
}
