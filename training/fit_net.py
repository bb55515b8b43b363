"""A network loss inferred from forces by gradient descent, Adam or covariant."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..agents.message_net import Graph, MessageNet, blocks, join
from .frames import Frames, chosen, widened
from .optimizers import OptimizerConfig, choose

_WARM_UP = 200  # steps, or a tenth of a shorter fit
_LAST = 0.002  # of the learning rate, at the end of the cosine
_MEMORY = 0.998  # of the averaged weights


class NetFit(NamedTuple):
    """The averaged net, and (epoch, training RMSE, validation RMSE or None) in eV/Angstrom."""

    net: MessageNet
    history: list[tuple[int, float, float | None]]


class Prepared(NamedTuple):
    """Frames as the net takes them."""

    position: Tensor  # [frames, atoms, 3]
    force: Tensor  # [frames, given atoms, 3]
    graphs: list[Graph]


def radial_centres(cutoff: float) -> tuple[Tensor, Tensor]:
    """Centres and widths of the Gaussians: fine where bonds vary, coarse beyond."""
    parts = [np.linspace(0.8, 1.3, 9), np.linspace(1.4, 2.5, 9), np.linspace(2.7, cutoff, 8)]
    centres = np.concatenate(parts)
    widths = 0.9 * np.gradient(centres)
    return torch.tensor(centres, dtype=torch.float32), torch.tensor(widths, dtype=torch.float32)


def make_net(numbers: np.ndarray, *, cutoff: float, channels: int, seed: int) -> MessageNet:
    """A net with fresh weights for the species of `numbers`."""
    centres, widths = radial_centres(cutoff)
    known = tuple(sorted(set(map(int, numbers))))
    sizes: dict[str, Any] = {"cutoff": cutoff, "channels": channels, "hidden": 4 * channels}
    return MessageNet(known, **sizes, centres=centres, widths=widths, seed=seed)


def fit_net(
    frames: Frames,
    *,
    cutoff: float = 4.5,
    channels: int = 16,
    epochs: int = 140,
    lr: float = 3e-3,
    optimizer: OptimizerConfig,
    seed: int = 0,
    checkpoint: Path | None = None,
    report: Callable[[int, float, float | None], None] | None = None,
) -> NetFit:
    """Train on the split "train"; the file `checkpoint` lets an interrupted fit go on.

    Loss: mean square of the force error, one frame a step; cosine schedule after a warm-up;
    gradients are clipped to norm 1; the result is an exponential average of the weights.
    """
    net = make_net(frames.numbers, cutoff=cutoff, channels=channels, seed=seed)
    train, val = prepare(chosen(frames, "train"), net), prepare(chosen(frames, "val"), net)
    cls, arguments = choose(optimizer)
    descent = cls(net.parameters(), lr=lr, **arguments)
    average = {key: value.clone() for key, value in net.state_dict().items()}
    history: list[tuple[int, float, float | None]] = []
    first, step = 0, 0
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        descent.load_state_dict(saved["optimizer"])
        average, first, step = saved["average"], saved["epoch"], saved["step"]
        history = [tuple(row) for row in saved["history"]]
    count = len(train.position)
    for epoch in range(first, epochs):
        order = np.random.default_rng([seed, epoch]).permutation(count)
        total = 0.0
        for frame in order:
            for group in descent.param_groups:
                group["lr"] = lr * schedule(step, epochs * count)
            error = forces(net, train, [int(frame)], True) - train.force[int(frame)]
            loss = (error * error).mean()
            descent.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            descent.step()
            step += 1
            total += float(loss.detach())
            keep = min(_MEMORY, (1 + step) / (10 + step))
            with torch.no_grad():
                for key, value in net.state_dict().items():
                    average[key].lerp_(value, 1 - keep)
        judged = None
        if epoch % 5 == 4 or epoch == epochs - 1:
            judged = _judged(net, average, val)
        history.append((epoch + 1, math.sqrt(total / count), judged))
        if report is not None:
            report(*history[-1])
        if checkpoint is not None:
            state = {"net": net.state_dict(), "optimizer": descent.state_dict()}
            state |= {"average": average, "epoch": epoch + 1, "step": step, "history": history}
            part = checkpoint.with_name(checkpoint.name + ".part")
            torch.save(state, part)
            os.replace(part, checkpoint)
    net.load_state_dict(average)
    return NetFit(net.double(), history)


def schedule(step: int, steps: int) -> float:
    """Part of the learning rate at a step."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / min(_WARM_UP, 1 + steps // 10)) * (_LAST + (1 - _LAST) * cosine)


def prepare(frames: Frames, net: MessageNet) -> Prepared:
    """Neighbours of all frames; narrow cells are repeated."""
    position, cell, numbers = widened(frames, net.cutoff)
    graphs = [
        blocks(x, h, numbers, net.numbers, net.cutoff) for x, h in zip(position, cell, strict=True)
    ]
    force = torch.from_numpy(frames.forces).float()
    return Prepared(torch.from_numpy(position).float(), force, graphs)


def forces(net: MessageNet, data: Prepared, which: list[int], differentiable: bool) -> Tensor:
    """Forces [given atoms, 3] of the frames `which`, one after another."""
    atoms = data.position.shape[1]
    position = data.position[which].reshape(-1, 3).clone().requires_grad_()
    graph = join([data.graphs[k] for k in which], atoms, position.dtype)
    total = net(position, graph).sum()
    found = -torch.autograd.grad(total, position, create_graph=differentiable)[0]
    given = data.force.shape[1]
    return found.view(len(which), atoms, 3)[:, :given].reshape(-1, 3)


def _judged(net: MessageNet, average: dict[str, Tensor], data: Prepared) -> float:
    kept = {key: value.clone() for key, value in net.state_dict().items()}
    net.load_state_dict(average)
    total = 0.0
    for k in range(len(data.position)):
        total += float(((forces(net, data, [k], False).detach() - data.force[k]) ** 2).mean())
    net.load_state_dict(kept)
    return math.sqrt(total / len(data.position))
