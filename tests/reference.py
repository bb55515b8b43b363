"""Slow and obvious third versions of formulas that the package computes fast."""

from __future__ import annotations

import itertools
import math

import numpy as np


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Philox4x32-10 in Python's own whole numbers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def neighbours(x: np.ndarray, side: float, cutoff: float, k: int) -> list[list[int]]:
    """The k nearest within the cutoff of every point of x [n, 2], among all; side 0 is open."""
    cut = min(cutoff, side / 2) if side > 0 else cutoff
    shifts = (-side, 0.0, side) if side > 0 else (0.0,)
    found = []
    for i in range(len(x)):
        images = [x - x[i] + np.array(shift) for shift in itertools.product(shifts, shifts)]
        d = np.min([np.hypot(r[:, 0], r[:, 1]) for r in images], 0)
        d[i] = math.inf
        found.append([int(j) for j in np.argsort(d)[:k] if d[j] < cut])
    return found


def spins(size: int) -> np.ndarray:
    """All states of a size x size lattice [2**(size**2), size**2]."""
    return np.array(list(itertools.product((-1, 1), repeat=size * size)), np.int8)


def bonds(s: np.ndarray) -> np.ndarray:
    """Sum of s_i s_j over the 2N bonds of the torus, of states [states, N]."""
    size = math.isqrt(s.shape[1])
    total = np.zeros(len(s), np.int64)
    for row, column in np.ndindex(size, size):
        here = s[:, row * size + column].astype(np.int64)
        total += here * s[:, (row + 1) % size * size + column]
        total += here * s[:, row * size + (column + 1) % size]
    return total


def neighbour_sum(s: np.ndarray) -> np.ndarray:
    """Sum of the four neighbours of every spin, of states [states, N]."""
    size = math.isqrt(s.shape[1])
    total = np.zeros(s.shape, np.int64)
    for row, column in np.ndindex(size, size):
        for r, c in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            total[:, row * size + column] += s[:, r % size * size + c % size]
    return total


def gibbs(s: np.ndarray, temperature: float, field: float) -> tuple[np.ndarray, float]:
    """Probabilities of the states and log Z."""
    exponent = (bonds(s) + field * s.sum(1)) / temperature
    log_z = float(np.logaddexp.reduce(exponent))
    return np.exp(exponent - log_z), log_z


def all_at_once(s: np.ndarray, temperature: float, field: float) -> np.ndarray:
    """The stationary law of heat baths that act all at once."""
    weight = np.exp(field * s.sum(1) / temperature)
    weight *= np.prod(2 * np.cosh((neighbour_sum(s) + field) / temperature), 1)
    return weight / weight.sum()


def chain(flip: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Transition matrix in which the spins of one group, drawn at random, flip independently.

    flip [states, N]: chance of spin i to flip in each state, states in the order of `spins`.
    """
    states, n = flip.shape
    matrix = np.zeros((states, states))
    for group in groups:
        for choice in itertools.product((0, 1), repeat=len(group)):
            chance = np.ones(states)
            target = np.arange(states)
            for i, flips in zip(group, choice, strict=True):
                chance *= flip[:, i] if flips else 1 - flip[:, i]
                target ^= flips << (n - 1 - i)
            matrix[np.arange(states), target] += chance / len(groups)
    return matrix
