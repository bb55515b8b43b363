"""Arguments that are checked: one line that names the argument, its value and what is allowed."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np

FARTHEST = 1e9  # a place or velocity that a state may be given
LARGEST = 2**63 - 1  # a whole number that compiled code and tensors can hold


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean …?" or an empty string; capitals do not count."""
    plain = {candidate.casefold(): candidate for candidate in known if candidate}
    match = difflib.get_close_matches(name.casefold(), list(plain), n=1, cutoff=0.5)
    return f"; did you mean {plain[match[0]]!r}?" if match else ""


def require_count(name: str, value: Any, low: int = 1, high: int = LARGEST) -> None:
    """Raise ValueError unless `value` is a whole number in [low, high]."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        allowed = f"of at least {low}" if not whole or value < low else f"from {low} to {high}"
        raise ValueError(f"{name}={shown(value)} must be a whole number {allowed}")


def require_flag(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={shown(value)} must be True or False")


def require_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, strict: bool = False
) -> None:
    """Raise ValueError unless `value` is a finite number in [low, high] (above low if strict)."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (number and _finite(value) and low <= value <= high and (value > low or not strict)):
        above = f"above {low:g}" if strict else f"from {low:g}"
        limits = "any number" if low == -math.inf else f"{above} to {high:g}"
        raise ValueError(f"{name}={shown(value)} must be a finite number: {limits}")


def ends_of(value: Any) -> tuple[Any, ...]:
    """The ends (low, high) of a range, which may be one number."""
    return value if isinstance(value, tuple) else (value, value)


def require_range(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, strict: bool = False
) -> None:
    """Raise ValueError unless `value` is a number, or (low, high) in order, within limits."""
    ends = ends_of(value)
    if len(ends) != 2:
        raise ValueError(f"{name}={shown(value)} must be a number or (low, high)")
    for end in ends:
        require_number(name, end, low, high, strict)
    if ends[0] > ends[1]:
        raise ValueError(f"{name}={shown(value)} must be (low, high) with low <= high")


def require_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of the names; an empty one stands for a default."""
    allowed = list(allowed)
    if value not in allowed:
        hint = nearest(value, allowed) if isinstance(value, str) else ""
        names = ", ".join(choice for choice in allowed if choice)
        raise ValueError(f"{name}={shown(value)} must be one of {names}{hint}")


def shown(value: Any) -> str:
    """A value as a message shows it, shortened in its middle if it is long."""
    try:
        return _REPR.repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"a {type(value).__name__} of more than 4,300 digits"


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (OverflowError, TypeError):  # a whole number beyond any float; a complex one
        return False


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100


def require_fields(
    state: Any,
    names: tuple[str, ...],
    low: float,
    high: float = math.inf,
    *,
    strict: bool = False,
) -> None:
    """Raise ValueError unless fields of a state lie in [low, high] (above low if strict)."""
    for name in names:
        values = getattr(state, name)
        outside = ~((values >= low) & (values <= high) & ((values > low) | (not strict)))
        if outside.any():
            above = f"above {low:g}" if strict else f"from {low:g}"
            limits = above if high == math.inf else f"{above} to {high:g}"
            raise ValueError(
                f"state field {name!r} has {values[outside][0].item():g}; it must be {limits}"
            )


def require_codes(state: Any, names: tuple[str, ...], codes: tuple[float, ...]) -> None:
    """Raise ValueError unless fields of a state have no other numbers than these."""
    for name in names:
        values = getattr(state, name)
        other = (values.unsqueeze(-1) != values.new_tensor(codes)).all(-1)
        if other.any():
            listed = " or ".join(f"{code:g}" for code in codes)
            raise ValueError(
                f"state field {name!r} has {values[other][0].item():g}; it must be {listed}"
            )


def require_shape(actions: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `actions` has that shape."""
    if np.shape(actions) != shape:
        raise ValueError(f"actions have shape {np.shape(actions)}; they must be {shape}")
