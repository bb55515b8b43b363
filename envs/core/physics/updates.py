"""Who acts in a step."""

from __future__ import annotations

from typing import Any

from ..validation import require_choice, require_count

UPDATES = ("sequential", "parallel")


def require_update(system: Any) -> None:
    require_choice("update", system.update, UPDATES)
    require_count("n_sweeps", system.n_sweeps)
    require_count("burn_in", system.burn_in, 0)
    if system.burn_in >= system.n_sweeps:
        raise ValueError(f"burn_in={system.burn_in} must be below n_sweeps={system.n_sweeps}")
