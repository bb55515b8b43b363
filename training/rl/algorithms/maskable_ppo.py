"""Proximal policy optimization among legal actions, by sb3-contrib."""

from __future__ import annotations

from pathlib import Path

from ....agents.policy import Policy
from .. import sb3
from ..configs import MaskablePPOConfig as Config
from ..sb3 import Trainer, load_policy

__all__ = ["Config", "Trainer", "load_policy", "load_zip"]


def load_zip(path: Path) -> Policy:
    """The policy of a model that SB3 saved; unpickles what the file holds."""
    return sb3.load_zip("maskable_ppo", path)
