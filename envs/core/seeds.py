"""Seeds: which there are, and which are kept for evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from .validation import shown

HELD_OUT = 2**40  # evaluation seed k is the worlds' seed HELD_OUT + k; training seeds are below
LARGEST = 2**64 - 1  # the key of a generator has 64 bits


def require_seed(name: str, value: Any, below: int = LARGEST + 1) -> None:
    """Raise ValueError unless `value` is a whole number of at least 0 and less than `below`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 0 <= value < below:
        raise ValueError(f"{name}={shown(value)} must be a whole number from 0 to {below - 1}")
