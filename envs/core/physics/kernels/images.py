"""Nearest images in a periodic cell, whose rows are the lattice vectors; compiled.

A cell of zeros, with an inverse of zeros, is open space.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.compiling import compiled_part

_part = compiled_part(error_model="numpy", nogil=True, fastmath={"contract"}, forceinline=True)


@_part
def turns(rx: float, ry: float, rz: float, inverse: Any) -> Any:
    """The rounded numbers of lattice vectors that a vector contains."""
    a = np.rint(rx * inverse[0, 0] + ry * inverse[1, 0] + rz * inverse[2, 0])
    b = np.rint(rx * inverse[0, 1] + ry * inverse[1, 1] + rz * inverse[2, 1])
    c = np.rint(rx * inverse[0, 2] + ry * inverse[1, 2] + rz * inverse[2, 2])
    return a, b, c


@_part
def nearest_image(rx: float, ry: float, rz: float, cell: Any, inverse: Any) -> Any:
    """The vector less the rounded numbers of lattice vectors that it contains."""
    a, b, c = turns(rx, ry, rz, inverse)
    return (
        rx - (a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]),
        ry - (a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]),
        rz - (a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]),
    )


@_part
def vector_between(x: Any, i: int, j: int, cell: Any, inverse: Any) -> Any:
    """From atom i to the nearest image of atom j, of positions [n, 3]."""
    rx, ry, rz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
    return nearest_image(rx, ry, rz, cell, inverse)


@_part
def nearest_image_along(distance: float, side: float, inverse: float) -> float:
    """The same along one axis of a cell with right angles; inverse: 1 / side, 0 for open space."""
    return distance - side * np.rint(distance * inverse)


@_part
def invert_cell(cell: Any, inverse: Any) -> float:
    """Write the inverse of a cell [3, 3] and return its volume."""
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        for j in range(3):
            c, d = (j + 1) % 3, (j + 2) % 3
            inverse[j, i] = cell[a, c] * cell[b, d] - cell[a, d] * cell[b, c]
    volume = cell[0, 0] * inverse[0, 0] + cell[0, 1] * inverse[1, 0] + cell[0, 2] * inverse[2, 0]
    for i in range(3):
        for j in range(3):
            inverse[i, j] /= volume
    return abs(volume)
