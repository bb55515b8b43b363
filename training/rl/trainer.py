"""What every way to train offers: the module of an algorithm, and its trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...agents.policy import Policy
from ...envs.core.system import System
from ..geometry.regimes import StepRecorder


class Update(NamedTuple):
    """Agent-steps so far, the numbers of one row of progress.csv, and what was learned from.

    The row's "loss", "return" and metrics are of whole episodes; before the first of them ends,
    "running_loss" stands in place of "loss".  loss: per agent and step, of the update's own steps,
    which may be early or late ones of their episodes.
    """

    steps: int
    row: dict[str, float]
    loss: float


class Trainer(Protocol):
    """What every way to train offers."""

    @property
    def steps(self) -> int:
        """Agent-steps made so far."""
        ...

    @property
    def per_update(self) -> int:
        """Agent-steps of an update."""
        ...

    def __iter__(self) -> Iterator[Update]: ...

    def policy(self) -> Policy:
        """The policy as it is now."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers from which `load_state_dict` continues."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        ...

    def save_policy(self, path: Path) -> None:
        """Write the policy for `PPO.load` (A2C, SAC)."""
        ...

    def use(self, system: System) -> None:
        """Learn from the next update on in worlds under these parameters (see `curriculum.py`)."""
        ...

    def watch(self, steps: StepRecorder) -> None:
        """Let `steps` see every step of the optimizer from now on."""
        ...


class Algorithm(Protocol):
    """What the module of an algorithm offers, beside the dataclass `Config` of `configs.py`."""

    def Trainer(self, system: System, config: Any, *, seed: int, steps: int) -> Trainer:
        """A trainer at its first step."""
        ...

    def load_policy(
        self, system: System, config: Any, state: dict[str, Any], device: str = "cpu"
    ) -> Policy:
        """The policy in a trainer's `state_dict`, to compute on a device."""
        ...

    def load_zip(self, path: Path) -> Policy:
        """The policy of what `save_policy` wrote; unpickles what the file holds."""
        ...
