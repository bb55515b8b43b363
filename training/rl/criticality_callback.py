"""A callback of Stable-Baselines3 that judges whether gradients follow power laws."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback

from ...envs.core.validation import require_count
from ..geometry.criticality import SampleRecorder, Verdict, columns, require_samples_apart

_MOST = 40_000  # sizes of gradients of a part that are judged


class CriticalityCallback(BaseCallback):
    """Logs exponent, error, distance and verdict of every layer's gradients, sample by sample.

    every: rollouts between judgements.  window: samples that are judged, the first of a rollout's
    updates, or of as many rollouts as it takes.  The numbers go to the model's logger, and so to
    TensorBoard, progress.csv or what else it writes; `verdicts` has the latest of them with the
    samples themselves. Of every part about 40,000 sizes are judged, and the network is watched only
    while samples are gathered, so that all of it costs a small share of a training.
    """

    def __init__(self, every: int = 20, window: int = 2048) -> None:
        super().__init__()
        require_count("every", every)
        self.every = every
        self.samples = SampleRecorder(window, most=_MOST, once=True)
        self.verdicts: dict[str, Verdict] = {}
        self._rollouts = 0
        self._gathers = False

    def _init_callback(self) -> None:
        require_samples_apart(self.model.policy)

    def _on_rollout_start(self) -> None:
        if len(self.samples) >= self.samples.window:
            self.verdicts = self.samples.verdicts()
            for name, value in columns(self.verdicts).items():
                self.logger.record(name, value)
            self._stop()
            self.samples.clear()

    def _on_rollout_end(self) -> None:
        if self._rollouts % self.every == 0 and not self._gathers:
            self.samples.paused = False
            self.samples.attach(self.model.policy)
            self._gathers = True
        self._rollouts += 1

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        enough = len(self.samples) >= self.samples.window
        if enough or (len(self.samples) and not self.verdicts):
            self.verdicts = self.samples.verdicts()
        self._stop()

    def _stop(self) -> None:
        self.samples.detach()
        self._gathers = False
