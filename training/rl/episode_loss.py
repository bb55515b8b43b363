"""The loss of whole episodes while they run, in worlds that may all be of one age.

Worlds that start together stay together where episodes have one length. The loss of a few steps is
then that of a few ages, early or late, and says little of the policy. A mean over as many of the
latest steps as an episode is long counts every age once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class EpisodeLoss:
    """Loss per agent and step, over the latest steps of all worlds, as many as an episode has.

    An episode's length is that of the last one of each world, on average. `mean` is None until
    every world has ended one.
    """

    def __init__(self, n_worlds: int, horizon: int) -> None:
        self._horizon = horizon
        self._steps = np.zeros((0, 2))  # summed loss and agents there, a ring of up to `horizon`
        self._count = 0  # steps noted so far
        self._age = np.zeros(n_worlds, np.int64)
        self._length = np.zeros(n_worlds, np.int64)  # of the last episode; 0: none has ended

    def add(self, loss: float, present: float, ended: np.ndarray) -> None:
        """Note a step: loss summed over all agents, how many were there, who ended [worlds]."""
        size = len(self._steps)
        if self._count == size < self._horizon:
            grown = np.zeros((min(max(2 * size, 64), self._horizon), 2))
            grown[:size] = self._steps
            self._steps = grown
        self._steps[self._count % self._horizon] = loss, present
        self._count += 1
        self._age += 1
        if ended.any():
            self._length[ended] = self._age[ended]
            self._age[ended] = 0

    def mean(self) -> float | None:
        """The mean over the latest episode length, or None while that many are not known."""
        steps = round(float(self._length.mean()))
        if not self._length.all() or steps > min(self._count, self._horizon):
            return None
        loss, present = self._latest(steps).sum(0)
        return float(loss / max(present, 1.0))

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which `load_state_dict` continues."""
        steps = self._latest(min(self._count, self._horizon))
        parts = {"steps": steps, "age": self._age, "length": self._length}
        return {name: torch.tensor(array) for name, array in parts.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict`."""
        self._steps = state["steps"].numpy().copy()
        self._count = len(self._steps)
        self._age[:], self._length[:] = state["age"].numpy(), state["length"].numpy()

    def start_within(self, age: np.ndarray) -> None:
        """Begin in the midst of episodes of which nothing is known but their age [worlds]."""
        self._count = 0
        self._age[:], self._length[:] = age, 0

    def _latest(self, steps: int) -> np.ndarray:
        """The last steps [steps, 2], in order."""
        return self._steps[np.arange(self._count - steps, self._count) % self._horizon]
