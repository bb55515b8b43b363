"""Distances between species, counted and bounded, from neighbour lists."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...kernels.compiling import compiled
from .images import vector_between

_compile = compiled(error_model="numpy")


@_compile
def count_distances(
    position: Any, near: Any, species: Any, fine: float, counts: Any, least: Any
) -> None:
    """Adds to `counts` [worlds, kinds, kinds, bins]; lowers `least` [worlds, kinds, kinds].

    near: `Neighbours`.  Bin k holds distances from k / fine to (k + 1) / fine; both orders of a
    pair are counted.
    """
    cell, inverse, index, count = near
    bins = counts.shape[3]
    for w in range(len(position)):
        x, h, inv = position[w], cell[w], inverse[w]
        for i in range(len(x)):
            s = species[i]
            for m in range(count[w, i]):
                j = index[w, i, m]
                rx, ry, rz = vector_between(x, i, j, h, inv)
                d = math.sqrt(rx * rx + ry * ry + rz * rz)
                at = int(d * fine)
                if at < bins:
                    counts[w, s, species[j], at] += 1
                least[w, s, species[j]] = min(least[w, s, species[j]], d)


@_compile
def bond_lengths(
    position: Any, cell: Any, inverse: Any, bonds: Any, rivals: Any, out: Any, torn: Any
) -> None:
    """Longest bond [worlds] of bonds [m, 2], and how many of their first atoms changed owner.

    torn [worlds]: bonds (a, b) for which one of the other `rivals` [k] is nearer to a than b.
    """
    for w in range(len(position)):
        x, h, inv = position[w], cell[w], inverse[w]
        longest, broken = 0.0, 0
        for m in range(len(bonds)):
            i, j = bonds[m, 0], bonds[m, 1]
            rx, ry, rz = vector_between(x, i, j, h, inv)
            own = rx * rx + ry * ry + rz * rz
            longest = max(longest, own)
            if own < 1.44:
                continue  # Angstrom^2: nothing else comes nearer than that
            for k in rivals:
                rx, ry, rz = vector_between(x, i, k, h, inv)
                if k != j and rx * rx + ry * ry + rz * rz < own:
                    broken += 1
                    break
        out[w] = np.sqrt(longest)
        torn[w] = broken
