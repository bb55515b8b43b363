"""Policies that choose one of n actions at random, by the logits of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...envs.core.rng import Rng

_NEVER = -1e8  # a logit that has no chance, and whose entropy is 0 and not NaN


@dataclass(frozen=True)
class CategoricalPolicy:
    """Draws one of n actions; the likeliest without a generator.

    logits: from observations [..., size] to [..., n].
    """

    logits: Callable[[Tensor], Tensor]

    def probabilities(self, observation: Tensor) -> Tensor:
        """Chance of every action [..., n] at observations [..., size]."""
        return self.logits(observation.float()).softmax(-1)

    def __call__(self, observation: Tensor, rng: Rng | None) -> Tensor:
        return _chosen(self.logits(observation.float()), rng)


@dataclass(frozen=True)
class MaskedPolicy(CategoricalPolicy):
    """The same among the legal actions [..., n], where they are given."""

    also_sees: ClassVar[str] = "legal_actions"

    def __call__(self, observation: Tensor, rng: Rng | None, mask: Tensor | None = None) -> Tensor:
        return _chosen(legal_logits(self.logits(observation.float()), mask), rng)


def legal_logits(logits: Tensor, mask: Any) -> Tensor:
    """Logits [..., n] without a chance for what flags [..., n], an array or a tensor, forbid."""
    if mask is None:
        return logits
    legal = torch.as_tensor(mask, device=logits.device).bool().view(logits.shape)
    return logits.masked_fill(~legal, _NEVER)


def _chosen(logits: Tensor, rng: Rng | None) -> Tensor:
    if rng is None:
        return logits.argmax(-1)
    below, last = cumulated(logits.softmax(-1))
    return torch.minimum((below <= rng.uniform(*below.shape[:-1], 1)).sum(-1), last)


def cumulated(chances: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the chances [..., n] up to each action, and the last one that has a chance [...]."""
    last = chances.shape[-1] - 1 - (chances > 0).flip(-1).long().argmax(-1)
    return chances.cumsum(-1), last
