"""A quadratic loss with noise: the regimes of learning, exactly."""

from __future__ import annotations

from typing import Any

from ..core import renamed


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
