"""One training in several processes, started by `torchrun`: each steps its share of the worlds.

All processes hold the same weights and draw the same random numbers, of which each uses its share;
gradients are added up before each step. What is learned is what one process learns from all
worlds, to the error of sums in another order, and a checkpoint is the same file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

ALGORITHMS = ("ppo", "mappo", "a2c")  # that can be trained so


def number() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return number() == 1 or os.environ.get("RANK", "0") == "0"


class Share(NamedTuple):
    """The place of this process among several."""

    rank: int
    size: int

    def of(self, name: str, total: int) -> int:
        """An equal part of `total`; ValueError if there is none."""
        if total % self.size:
            raise ValueError(f"{name}={total} must be a multiple of {self.size}, the processes")
        return total // self.size

    def part(self, values: Any, axis: int = 0) -> Any:
        """This process's part of an array or tensor of all."""
        each = values.shape[axis] // self.size
        places = slice(self.rank * each, (self.rank + 1) * each)
        return values[(slice(None),) * axis + (places,)]

    def whole(self, values: np.ndarray, axis: int = 0) -> np.ndarray:
        """The arrays of all processes, one after another along an axis."""
        return np.concatenate(self.objects(values), axis)

    def objects(self, value: Any) -> list[Any]:
        """What every process has."""
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of them."""
        return any(self.objects(flag))


def joined() -> Share | None:
    """The share of this process, which joins the others; None where there are none."""
    if number() == 1:
        return None
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return Share(distributed.get_rank(), distributed.get_world_size())


def leave() -> None:
    """Part from the other processes, if there are any."""
    if number() > 1:
        from torch import distributed

        distributed.destroy_process_group()


def agreed(flag: bool) -> bool:
    """Whether a flag is set in any process, of one or of several."""
    share = joined()
    return flag if share is None else share.any(flag)


class GradientSum:
    """Adds up the gradients of all processes as soon as the last of them is known here.

    weight: of this process's gradient in the next sum: its share of the rows.
    """

    def __init__(self, parameters: Iterable[Any], optimizer: Any) -> None:
        self.weight = 1.0
        self._parameters = list(parameters)
        self._known = 0
        for parameter in self._parameters:
            parameter.register_post_accumulate_grad_hook(self._note)
        optimizer.register_step_pre_hook(self._require_all)

    def _require_all(self, *step: Any) -> None:
        if self._known:
            raise RuntimeError(f"{self._known} of {len(self._parameters)} gradients are known")

    def _note(self, parameter: Any) -> None:
        self._known += 1
        if self._known < len(self._parameters):
            return
        self._known = 0
        import torch
        from torch import distributed

        flat = torch.cat([parameter.grad.flatten() for parameter in self._parameters])
        flat *= self.weight
        distributed.all_reduce(flat)
        start = 0
        for parameter in self._parameters:
            stop = start + parameter.numel()
            parameter.grad.copy_(flat[start:stop].view_as(parameter))
            start = stop


def mean_rows(share: Share, row: dict[str, float], weight: float) -> dict[str, float]:
    """Numbers by name as means over processes, weighted, without NaNs where there are others."""
    rows = share.objects((row, weight))
    means = {}
    for name in dict.fromkeys(name for each, _ in rows for name in each):
        every = [(each[name], w) for each, w in rows if name in each]
        those = [(value, w) for value, w in every if not math.isnan(value)] or every
        total = sum(w for _, w in those)
        means[name] = sum(value * w for value, w in those) / total if total else those[0][0]
    return means
