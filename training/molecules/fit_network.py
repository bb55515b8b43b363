"""A network loss inferred from forces by gradient descent, Adam or covariant."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...envs.core.files import save_tensors
from ...envs.molecules.network import Graph, MessageNet, blocks, join
from ..optim.config import OptimizerConfig, choose
from .fit_linear import torch_threads
from .frames import Frames, chosen

_WARM_UP = 200  # steps, or a tenth of a shorter fit
_LAST = 0.002  # of the learning rate, at the end of the cosine
_MEMORY = 0.998  # of the averaged weights


_LEAST, _BEYOND = 0.9, 2.7  # Angstrom: of cutoffs, and where coarse Gaussians begin
_JUDGED = 5  # epochs between looks at the validation frames


class NetFit(NamedTuple):
    """An averaged net, how good it is, and how it was found.

    error: its validation RMSE, eV/Angstrom.  epochs: that were made for it.
    history: (epoch, training RMSE, validation RMSE or None) in eV/Angstrom.
    """

    net: MessageNet
    error: float
    epochs: float
    history: list[tuple[int, float, float | None]]


class Interrupted(KeyboardInterrupt):
    """A fit was interrupted; `fit` is the best that it had come to."""

    def __init__(self, fit: NetFit) -> None:
        super().__init__("the fit was interrupted")
        self.fit = fit


class Prepared(NamedTuple):
    """Frames as the net takes them."""

    position: Tensor  # [frames, atoms, 3]
    force: Tensor  # [frames, given atoms, 3]
    graphs: list[Graph]


def radial_centres(cutoff: float) -> tuple[Tensor, Tensor]:
    """Centres and widths of the Gaussians: fine where bonds vary, coarse beyond.

    Raises ValueError for a cutoff that leaves no two of them.
    """
    if not _LEAST < cutoff < math.inf:
        raise ValueError(f"cutoff={cutoff:g} of a net must be above {_LEAST:g} Angstrom and finite")
    near = np.concatenate([np.linspace(0.8, 1.3, 9), np.linspace(1.4, 2.5, 9)])
    beyond = np.linspace(_BEYOND, cutoff, 8) if cutoff > _BEYOND + 0.1 else np.zeros(0)
    centres = np.concatenate([near[near < cutoff], beyond])
    widths = 0.9 * np.gradient(centres)
    return torch.tensor(centres, dtype=torch.float32), torch.tensor(widths, dtype=torch.float32)


def make_net(numbers: np.ndarray, *, cutoff: float, channels: int, seed: int) -> MessageNet:
    """A net with fresh weights for the species of `numbers`."""
    centres, widths = radial_centres(cutoff)
    known = tuple(sorted(set(map(int, numbers))))
    sizes: dict[str, Any] = {"cutoff": cutoff, "channels": channels, "hidden": 4 * channels}
    return MessageNet(known, **sizes, centres=centres, widths=widths, seed=seed)


@dataclass
class Course:
    """Where a fit stands.

    average: of the weights.  best: (validation RMSE, epochs, averaged weights) so far.
    """

    average: dict[str, Tensor]
    epoch: int = 0
    step: int = 0
    best: tuple[float, float, dict[str, Tensor]] | None = None
    history: list[tuple[int, float, float | None]] = field(default_factory=list)


def fit_net(
    frames: Frames,
    *,
    cutoff: float = 4.5,
    channels: int = 16,
    epochs: int = 140,
    lr: float = 3e-3,
    optimizer: OptimizerConfig,
    seed: int = 0,
    threads: int = 1,
    checkpoint: Path | None = None,
    report: Callable[[int, float, float | None], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NetFit:
    """Train on the split "train"; the file `checkpoint` lets an interrupted fit go on.

    Loss: mean square of the force error, one frame a step; cosine schedule after a warm-up;
    gradients are clipped to norm 1; the result is an exponential average of the weights.
    report: told epoch, training and validation RMSE.  progress: told steps made and in all.
    Raises Interrupted, with the best net so far, where it is interrupted after a first step, and
    ValueError for the checkpoint of another fit.
    """
    with torch_threads(threads):
        net = make_net(frames.numbers, cutoff=cutoff, channels=channels, seed=seed)
        train, val = prepare(chosen(frames, "train"), net), prepare(chosen(frames, "val"), net)
        if not any(block.present.any() for graph in train.graphs for block in graph.values()):
            raise ValueError(f"cutoff={cutoff:g} holds no two atoms of the training frames")
        cls, arguments = choose(optimizer)
        descent = cls(net.parameters(), lr=lr, **arguments)
        course = Course({key: value.clone() for key, value in net.state_dict().items()})
        settings: dict[str, Any] = {"cutoff": cutoff, "channels": channels, "epochs": epochs}
        settings |= {"lr": lr, "optimizer": str(optimizer), "seed": seed, "data": frames.digest}
        settings |= {
            "forces": hashlib.sha256(frames.forces.tobytes()).hexdigest(),
            "units": frames.units,
        }
        if checkpoint is not None and checkpoint.exists():
            course = _resumed(checkpoint, settings, net, descent)
        count = len(train.position)
        try:
            for epoch in range(course.epoch, epochs):
                order = np.random.default_rng([seed, epoch]).permutation(count)
                total = 0.0
                for frame in order:
                    rate = lr * schedule(course.step, epochs * count)
                    total += _descend(net, descent, rate, train, int(frame))
                    course.step += 1
                    _follow(course, net)
                    if progress is not None:
                        progress(course.step, epochs * count)
                course.epoch = epoch + 1
                judged = None
                if course.epoch % _JUDGED == 0 or course.epoch == epochs:
                    judged = _judge(course, net, val, float(course.epoch))
                course.history.append((course.epoch, math.sqrt(total / count), judged))
                if report is not None:
                    report(*course.history[-1])
                if checkpoint is not None:
                    state = {"net": net.state_dict(), "optimizer": descent.state_dict()}
                    state |= {"settings": settings, "course": vars(course)}
                    save_tensors(checkpoint, state)
        except KeyboardInterrupt:
            if not course.step:
                raise
            _judge(course, net, val, course.step / count)
            assert course.best is not None
            error, made, weights = course.best
            net.load_state_dict(weights)
            raise Interrupted(NetFit(net.double(), error, made, course.history)) from None
        last = course.history[-1][2]
        net.load_state_dict(course.average)
        return NetFit(net.double(), math.nan if last is None else last, epochs, course.history)


def _descend(
    net: MessageNet, descent: torch.optim.Optimizer, rate: float, train: Prepared, frame: int
) -> float:
    """Make one step and return the loss."""
    for group in descent.param_groups:
        group["lr"] = rate
    error = forces(net, train, [frame], True) - train.force[frame]
    loss = (error * error).mean()
    descent.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    descent.step()
    return float(loss.detach())


def _follow(course: Course, net: MessageNet) -> None:
    """Let the average follow the weights."""
    keep = min(_MEMORY, (1 + course.step) / (10 + course.step))
    with torch.no_grad():
        for key, value in net.state_dict().items():
            course.average[key].lerp_(value, 1 - keep)


def _resumed(
    checkpoint: Path, settings: dict[str, Any], net: MessageNet, descent: torch.optim.Optimizer
) -> Course:
    """Load what a checkpoint holds; ValueError if it is of another fit."""
    saved = torch.load(checkpoint, weights_only=True)
    was = saved.get("settings", {})
    other = [
        f"{key}={was.get(key)}, not {value}"
        for key, value in settings.items()
        if was.get(key, value) != value  # a version before did not keep all of them
    ]
    if other:
        raise ValueError(
            f"{checkpoint} is of another fit ({'; '.join(other)}): remove it or write elsewhere"
        )
    net.load_state_dict(saved["net"])
    descent.load_state_dict(saved["optimizer"])
    course = Course(**saved["course"])
    course.history = [(epoch, train, val) for epoch, train, val in course.history]
    return course


def schedule(step: int, steps: int) -> float:
    """Part of the learning rate at a step."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / min(_WARM_UP, 1 + steps // 10)) * (_LAST + (1 - _LAST) * cosine)


def prepare(frames: Frames, net: MessageNet) -> Prepared:
    """Neighbours of all frames."""
    pairs = zip(frames.positions, frames.cell, strict=True)
    places = np.stack([_at_home(x, h) for x, h in pairs])
    graphs = [
        blocks(x, h, frames.numbers, net.numbers, net.cutoff)
        for x, h in zip(places, frames.cell, strict=True)
    ]
    position = torch.from_numpy(places).float()
    return Prepared(position, torch.from_numpy(frames.forces).float(), graphs)


def _at_home(x: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Positions [atoms, 3] in their cell, or around zero: far from it float32 loses digits."""
    away = np.floor(x @ np.linalg.inv(cell)) @ cell if cell.any() else np.round(x.mean(0))
    return np.asarray(x - away)


def forces(net: MessageNet, data: Prepared, which: list[int], differentiable: bool) -> Tensor:
    """Forces [given atoms, 3] of the frames `which`, one after another."""
    atoms = data.position.shape[1]
    position = data.position[which].reshape(-1, 3).clone().requires_grad_()
    graph = join([data.graphs[k] for k in which], atoms, position.dtype)
    total = net(position, graph).sum()
    found = -torch.autograd.grad(total, position, create_graph=differentiable)[0]
    given = data.force.shape[1]
    return found.view(len(which), atoms, 3)[:, :given].reshape(-1, 3)


def _judge(course: Course, net: MessageNet, data: Prepared, epochs: float) -> float:
    """The validation error of the averaged weights, which become the best if they are."""
    kept = {key: value.clone() for key, value in net.state_dict().items()}
    net.load_state_dict(course.average)
    total = 0.0
    for k in range(len(data.position)):
        total += float(((forces(net, data, [k], False).detach() - data.force[k]) ** 2).mean())
    net.load_state_dict(kept)
    error = math.sqrt(total / len(data.position))
    if course.best is None or error < course.best[0]:
        average = {key: value.clone() for key, value in course.average.items()}
        course.best = (error, epochs, average)
    return error
