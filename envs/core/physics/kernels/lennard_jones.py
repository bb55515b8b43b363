"""The Lennard-Jones law of a pair in reduced units, compiled; `../lennard_jones.py` in torch."""

from __future__ import annotations

from typing import Any

from ...kernels.compiling import compiled_part


@compiled_part(error_model="numpy", nogil=True, forceinline=True)
def lennard_jones(square_distance: float) -> Any:
    """Energy 4 (r^-12 - r^-6), and r . F = 24 (2 r^-12 - r^-6)."""
    inverse = 1.0 / square_distance
    s6 = inverse * inverse * inverse
    return 4.0 * s6 * (s6 - 1.0), 24.0 * s6 * (2.0 * s6 - 1.0)
