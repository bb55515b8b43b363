"""Policies that choose one of n actions at random, by the logits of a network."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...agents.policy import Policy
from ...envs.core.rng import Rng
from ...envs.core.system import System

_NEVER = -1e8  # a logit that has no chance, and whose entropy is 0 and not NaN
_MOST = 1000  # observations that are remembered


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
    below, last = _cumulated(logits.softmax(-1))
    return torch.minimum((below <= rng.uniform(*below.shape[:-1], 1)).sum(-1), last)


def _cumulated(chances: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the chances [..., n] up to each action, and the last one that has a chance [...]."""
    last = chances.shape[-1] - 1 - (chances > 0).flip(-1).long().argmax(-1)
    return chances.cumsum(-1), last


@dataclass(frozen=True)
class RememberingPolicy:
    """The same choices where one agent acts at a time: each observation is asked about once.

    A lattice site sees a few numbers that take a few values; of agents that do not act now nothing
    is computed. Draws and choices are those of `policy`. Where there are more than 1000 different
    observations it is asked as ever.
    """

    policy: CategoricalPolicy
    also_sees: ClassVar[str] = "active"
    _known: dict[bytes, tuple[list[float], int]] = field(default_factory=dict, repr=False)

    def __call__(self, observation: Tensor, rng: Rng | None, active: Tensor) -> Tensor:
        """Actions [worlds, agents], 0 of agents that are not `active`, flags of the same shape."""
        if rng is None or len(self._known) > _MOST:
            return self.policy(observation, rng)
        drawn = rng.uniform(*active.shape, 1)[..., 0][active].tolist()
        keys = [row.tobytes() for row in observation[active].numpy()]
        if not all(key in self._known for key in keys):
            chances = self.policy.probabilities(observation)[active]
            laws = zip(*(part.tolist() for part in _cumulated(chances)), strict=True)
            self._known.update(zip(keys, laws, strict=True))
        chosen = [
            min(bisect_right(below, number), last)
            for number, (below, last) in zip(drawn, map(self._known.__getitem__, keys), strict=True)
        ]
        action = torch.zeros(active.shape, dtype=torch.int64)
        action[active] = torch.tensor(chosen, dtype=torch.int64)
        return action


def remembering(system: System, policy: Policy) -> Policy:
    """`policy`, or where one agent of `system` acts at a time what chooses the same, but faster."""
    if not system.one_at_a_time or not isinstance(policy, CategoricalPolicy):
        return policy
    if system.action_mask(system.initial(Rng.single(0, 1), 1)) is not None:
        return policy
    remembers: Any = RememberingPolicy(policy)  # asked in another way: see `Player`
    return remembers
