"""The structure of a liquid: radial distribution functions, counted and compared.

g_st(r) = (pairs at r) / (samples N_s (N_t - [s = t]) / V * shell volume), which is 1 in an ideal
gas of as many atoms. Bins are 0.01 Angstrom wide, up to half the width of the cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...envs.core.physics.cell import half_width
from ...envs.core.physics.kernels.distances import count_distances
from ...envs.core.physics.kernels.neighbours import NeighbourList
from ...envs.molecules.linear import species_index

BIN = 0.01  # Angstrom
FARTHEST = 8.0  # Angstrom
COMPARED = {(8, 8): 2.0, (1, 8): 1.25, (1, 1): 1.9}  # from where functions are compared, water
COMPARED_TO = 6.0
_COARSE = 0.05  # Angstrom, bins of a comparison


class Counter:
    """Counts pairs of a batch of worlds by distance; see the module.

    counts [worlds, kinds, kinds, bins]; samples; least [worlds, kinds, kinds] distance seen.
    """

    def __init__(self, cell: np.ndarray, numbers: np.ndarray) -> None:
        self.known = tuple(sorted(set(map(int, numbers))))
        self._species = species_index(numbers, self.known)
        reach = min([FARTHEST, *(half_width(vectors) for vectors in cell)])
        self._near = NeighbourList(cell, len(numbers), reach, 0.0)
        kinds = len(self.known)
        self.counts = np.zeros((len(cell), kinds, kinds, int(reach / BIN)), np.int64)
        self.least = np.full((len(cell), kinds, kinds), np.inf)
        self.samples = 0

    def add(self, position: np.ndarray) -> None:
        """One sample, positions [worlds, atoms, 3]."""
        near = self._near
        near.forget()
        near.update(position)
        count_distances(position, near.arrays, self._species, 1 / BIN, self.counts, self.least)
        self.samples += 1


def normalised(
    counts: np.ndarray, samples: int, cell: np.ndarray, numbers: np.ndarray
) -> np.ndarray:
    """Radial distribution functions [..., kinds, kinds, bins] from counts of as many samples."""
    known = sorted(set(map(int, numbers)))
    many = np.array([(numbers == number).sum() for number in known], float)
    pairs = many[:, None] * (many - np.eye(len(known)))
    edges = BIN * np.arange(counts.shape[-1] + 1)
    shell = 4 / 3 * np.pi * np.diff(edges**3)
    volume = abs(np.linalg.det(cell))
    return counts / (samples * np.maximum(pairs, 1)[..., None] / volume * shell)


def distribution(position: np.ndarray, cell: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Radial distribution functions [kinds, kinds, bins] of frames [frames, atoms, 3]."""
    counter = Counter(cell[None], numbers)
    for x in position:
        counter.add(np.ascontiguousarray(x[None], float))
    return normalised(counter.counts[0], counter.samples, cell, numbers)


def radii(bins: int) -> np.ndarray:
    """Centres of the bins, Angstrom."""
    return BIN * (np.arange(bins) + 0.5)


def difference(
    g: np.ndarray, other: np.ndarray, start: float, end: float = COMPARED_TO
) -> float | None:
    """Mean |g - other| between two distances, in bins of 0.05 A; None where there are none."""
    bins = min(len(g), len(other), round(end / BIN))
    group = round(_COARSE / BIN)
    first = -(-round(start / BIN) // group)
    last = bins // group
    if first >= last:
        return None
    coarse = [curve[: last * group].reshape(last, group).mean(1) for curve in (g, other)]
    return float(np.abs(coarse[0] - coarse[1])[first:].mean())


class Extremum(NamedTuple):
    """Where a function is largest or least, and its value there."""

    radius: float
    value: float


def first_maximum(g: np.ndarray, start: float) -> Extremum | None:
    """The first maximum beyond `start`, from a parabola through the points around it.

    The highest bin within 1 A of where g first exceeds a third of its largest value; the parabola
    takes the bins within 0.1 A. None where g is zero beyond `start`.
    """
    r = radii(len(g))
    inside = r > start
    if not (g[inside] > 0).any():
        return None
    above = np.flatnonzero(inside & (g > g[inside].max() / 3))[0]
    window = slice(above, above + round(1.0 / BIN))
    return _parabola(r, g, above + int(np.argmax(g[window])))


def first_minimum(g: np.ndarray, maximum: Extremum) -> Extremum | None:
    """The least value within 1.2 A beyond a maximum; None where g ends there."""
    r = radii(len(g))
    inside = np.flatnonzero((r > maximum.radius) & (r < maximum.radius + 1.2))
    if not len(inside):
        return None
    window = np.ones(9)
    bins = np.convolve(np.ones(len(g)), window, "same")  # fewer at the ends
    smooth = np.convolve(g, window, "same") / bins
    return _parabola(r, g, int(inside[np.argmin(smooth[inside])]))


def _parabola(r: np.ndarray, g: np.ndarray, at: int) -> Extremum:
    reach = round(0.1 / BIN)
    window = slice(max(0, at - reach), at + reach + 1)
    a, b, c = np.polyfit(r[window] - r[at], g[window], 2)
    shift = float(np.clip(-b / (2 * a), -0.1, 0.1)) if a else 0.0
    return Extremum(float(r[at] + shift), float(c + shift * (b + a * shift)))
