"""A callback of Stable-Baselines3 that logs the regime of learning."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from ..geometry.regimes import StepRecorder


class RegimeCallback(BaseCallback):
    """Logs regimes/alpha, its error and R^2, the effective rank and the sphericity of a window.

    window: optimizer steps that are looked back on.  The numbers go to the model's logger with each
    rollout, and so to TensorBoard, progress.csv or what else it writes. Watched is the policy's
    optimizer, or the critic's where actor and critic have their own and `part` is "critic".
    """

    def __init__(self, window: int = 100, *, part: str = "actor") -> None:
        super().__init__()
        self.steps = StepRecorder(window)
        self.part = part

    def _init_callback(self) -> None:
        holder: Any = getattr(self.model, self.part, None) or self.model.policy
        if getattr(holder, "optimizer", None) is None:
            holder = self.model.policy
        self.steps.attach(holder.optimizer, self.model.policy.named_parameters())

    def _on_rollout_start(self) -> None:
        for name, value in self.steps.row().items():
            self.logger.record(name, value)

    def _on_step(self) -> bool:
        return True
