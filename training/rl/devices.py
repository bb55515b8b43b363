"""Where torch computes."""

from __future__ import annotations

import torch


def computing_device(name: str) -> torch.device:
    """The torch device of that name; ValueError unless it can compute in double precision here."""
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float64, device=device).item()  # "meta" has no values
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device={name!r} cannot compute here: {reason}") from None
    return device
