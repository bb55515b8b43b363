"""Evolution strategy over the weights of a policy."""

from __future__ import annotations

from pathlib import Path

from ....agents.policy import Policy
from .. import sb3
from ..configs import ESConfig as Config
from ..es import Trainer, load_policy

__all__ = ["Config", "Trainer", "load_policy", "load_zip"]


def load_zip(path: Path) -> Policy:
    """The policy of the model that `save_policy` wrote; unpickles what the file holds."""
    return sb3.load_zip("ppo", path)
