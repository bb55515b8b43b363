"""Sums over neighbours that atoms observe, compiled; `../descriptors.py` in torch.

Of broad channels a = 1, 2, ... with bumps b_a: vectors first[i, a] = sum_j b_a(r_ij) n_ij, and
tensors second[i, a] = sum_j b_a(r_ij) (xx, yy, zz, xy, xz, yz of n_ij).
"""

from __future__ import annotations

import math
from typing import Any

from ...kernels.compiling import compiled_part

_part = compiled_part(error_model="numpy", nogil=True, fastmath={"contract"}, forceinline=True)


@_part
def bump_root(distance: float, centre: float, inverse_half_width: float) -> float:
    """1 - ((r - c) / h)^2: where positive, its square is the bump at c; elsewhere the bump is 0.

    The root, because callers test it: most pairs lie outside of most bumps.
    """
    u = (distance - centre) * inverse_half_width
    return 1 - u * u


@_part
def add_neighbour(first: Any, second: Any, i: int, a: int, weight: float, direction: Any) -> None:
    """One neighbour in a direction (x, y, z) with the given weight in channel a of atom i."""
    x, y, z = direction
    first[i, a, 0] += weight * x
    first[i, a, 1] += weight * y
    first[i, a, 2] += weight * z
    second[i, a, 0] += weight * (x * x)
    second[i, a, 1] += weight * (y * y)
    second[i, a, 2] += weight * (z * z)
    second[i, a, 3] += weight * (x * y)
    second[i, a, 4] += weight * (x * z)
    second[i, a, 5] += weight * (y * z)


@_part
def clip(value: float, limits: Any, column: int) -> float:
    """The value within limits [2, size] of a column of the observations."""
    return min(max(value, limits[0, column]), limits[1, column])


@_part
def write_products(
    first: Any, second: Any, i: int, channels: int, limits: Any, column: int, out: Any
) -> None:
    """asinh of the products of two vectors, then of two tensors, of atom i from `column` on.

    Of all channels a <= b, row after row. out [atoms, size].
    """
    tensors = channels * (channels + 1) // 2
    for a in range(channels):
        for b in range(a, channels):
            along, angular = 0.0, 0.0
            for m in range(3):
                along += first[i, a, m] * first[i, b, m]
                angular += second[i, a, m] * second[i, b, m]
            for m in range(3, 6):
                angular += 2 * second[i, a, m] * second[i, b, m]
            out[i, column] = clip(math.asinh(along), limits, column)
            out[i, column + tensors] = clip(math.asinh(angular), limits, column + tensors)
            column += 1
