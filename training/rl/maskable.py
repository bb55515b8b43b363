"""PPO that never chooses what a mask forbids, by sb3-contrib on our networks and buffers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer, MaskableRolloutBufferSamples
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from .buffers import MaskedRolloutBuffer
from .categorical import legal_logits
from .policies import NetworkActorCritic

__all__ = ["LegalRolloutBuffer", "MaskableNetworkPolicy", "MaskablePPO"]


class LegalRolloutBuffer(MaskedRolloutBuffer, MaskableRolloutBuffer):
    """Rows of agents that acted, with the mask that each had chosen under."""

    samples: ClassVar[Any] = MaskableRolloutBufferSamples

    def add(self, *args: Any, action_masks: np.ndarray | None = None, **kwargs: Any) -> None:
        """Store a row per slot with its masks [n_envs, n]; None: all actions are legal."""
        if action_masks is not None:
            self.action_masks[self.pos] = action_masks.reshape(self.n_envs, self.mask_dims)
        super().add(*args, **kwargs)

    def _columns(self) -> tuple[np.ndarray, ...]:
        return (*super()._columns(), self.action_masks)


class _Base(MaskableActorCriticPolicy):
    """sb3-contrib's, which knows no standard deviation: its actions are discrete."""

    def __init__(self, *args: Any, log_std_init: float = 0.0, **settings: Any) -> None:
        super().__init__(*args, **settings)


class MaskableNetworkPolicy(NetworkActorCritic, _Base):
    """One of our networks, whose output is the logits of legal actions."""

    heeds_masks: ClassVar[bool] = True

    def forward(
        self, obs: Tensor, deterministic: bool = False, action_masks: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        output, value = self.heads(self._noted_inputs(obs))
        output = legal_logits(output, action_masks)
        action = self._choose(obs, output, deterministic)
        return action, value, self._log_prob(obs, output, action)

    def evaluate_actions(
        self, obs: Any, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        output, value = self.heads(obs)
        return self._evaluate(obs, legal_logits(output, action_masks), value, actions)

    def get_distribution(self, obs: PyTorchObs, action_masks: np.ndarray | None = None) -> Any:
        assert isinstance(obs, Tensor)
        distribution = self.action_dist.proba_distribution(self.heads(obs)[0])
        if action_masks is not None:
            distribution.apply_masking(action_masks)
        return distribution

    def _predict(
        self,
        observation: PyTorchObs,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> Tensor:
        assert isinstance(observation, Tensor)
        output = legal_logits(self.output(observation), action_masks)
        return self._choose(observation, output, deterministic)
