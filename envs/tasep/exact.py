"""Exact results on the totally asymmetric exclusion process: open chain, ring, parallel update.

The open chain of N sites, random sequential, hops inside at rate 1, entry alpha, exit beta, is
solved by a matrix product (Derrida, Evans, Hakim and Pasquier 1993; Schuetz and Domany 1993).
Rates are broadcast; all may lie above 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def log_z(n: int, alpha: Any, beta: Any) -> np.ndarray:
    """Logarithm of Z_N, the normalisation <W|(D + E)^N|V> of the matrix product."""
    alpha, beta = np.broadcast_arrays(np.asarray(alpha, float), np.asarray(beta, float))
    if n == 0:
        return np.zeros(alpha.shape)
    inner = np.zeros(alpha.shape)  # log of sum_q beta^-q alpha^-(p - q)
    total = np.full(alpha.shape, -np.inf)
    for p in range(1, n + 1):
        inner = np.logaddexp(-p * np.log(alpha), inner - np.log(beta))
        weight = math.lgamma(2 * n - p) - math.lgamma(n + 1) - math.lgamma(n - p + 1)
        total = np.logaddexp(total, math.log(p) + weight + inner)
    return total


def current(n: int, alpha: Any, beta: Any) -> np.ndarray:
    """J_N: hops per bond and unit of time on the open chain of n sites."""
    return np.exp(log_z(n - 1, alpha, beta) - log_z(n, alpha, beta))


def profile(n: int, alpha: float, beta: float) -> np.ndarray:
    """Mean occupation of every site [n] of the open chain.

    D and E are 1 + a shift and 1 + its transpose with corners of their own, cut off at n + 2, which
    changes nothing up to n sites.
    """
    size = n + 2
    corner = (alpha + beta - 1) / (alpha * beta)
    d, e = np.ones(size), np.ones(size)
    d[0], e[0] = 1 / beta, 1 / alpha
    up = np.ones(size - 1)  # of D, above the diagonal; E has ones below it
    up[0] = corner

    def apply_d(v: np.ndarray) -> np.ndarray:
        out = d * v
        out[:-1] += up * v[1:]
        return out

    def apply_c(v: np.ndarray) -> np.ndarray:
        out = apply_d(v) + e * v
        out[1:] += v[:-1]
        return out

    def apply_left(v: np.ndarray) -> np.ndarray:
        out = (d + e) * v
        out[1:] += up * v[:-1]
        out[:-1] += v[1:]
        return out

    lefts, rights = [np.eye(1, size)[0]], [np.eye(1, size)[0]]
    for _ in range(n - 1):
        left, right = apply_left(lefts[-1]), apply_c(rights[-1])
        lefts.append(left / np.abs(left).max())
        rights.append(right / np.abs(right).max())
    pairs = zip(lefts, reversed(rights), strict=True)
    return np.array([left @ apply_d(right) / (left @ apply_c(right)) for left, right in pairs])


def phase(alpha: float, beta: float) -> str:
    """ "low", "high", "maximal", or "shock" where low and high density coexist."""
    if min(alpha, beta) >= 0.5:
        return "maximal"
    return "shock" if alpha == beta else "low" if alpha < beta else "high"


def limit_current(alpha: Any, beta: Any) -> np.ndarray:
    """Current of the infinitely long open chain."""
    gate = np.minimum(np.minimum(alpha, beta), 0.5)
    return gate * (1 - gate)


def limit_density(alpha: Any, beta: Any) -> np.ndarray:
    """Density far from the ends of the infinitely long open chain; 1 / 2 on the shock line."""
    alpha, beta = np.minimum(alpha, 0.5), np.minimum(beta, 0.5)
    return np.where(alpha < beta, alpha, np.where(beta < alpha, 1 - beta, 0.5))


def ring_current(sites: int, particles: int, hop_probability: float = 1.0) -> float:
    """Hops per bond and sweep on a ring, random sequential: all states are equally likely."""
    if sites == 1:
        return 0.0
    return hop_probability * particles * (sites - particles) / (sites * (sites - 1))


def parallel_ring_current(density: Any, hop_probability: Any) -> np.ndarray:
    """Hops per bond and step on a long ring where all act at once (Schreckenberg et al. 1995)."""
    density = np.asarray(density, float)
    return (1 - np.sqrt(1 - 4 * hop_probability * density * (1 - density))) / 2


def parallel_limit_current(alpha: Any, beta: Any, hop_probability: Any) -> np.ndarray:
    """Current of a long open chain where all act at once (Evans, Rajewsky and Speer 1999).

    Up to gates of 1 - sqrt(1 - p) the narrower one limits it; from there on it is maximal.
    """
    p = np.asarray(hop_probability, float)
    gate = np.minimum(np.minimum(alpha, beta), 1 - np.sqrt(1 - p))
    below = gate * (p - gate) / np.where(gate**2 < p, p - gate**2, 1.0)
    return np.where(gate**2 < p, below, 0.5)


def best_gates(n: int, cost: float) -> tuple[float, float, float]:
    """alpha, beta in (0, 1] that maximise J_N - cost (alpha + beta), and that maximum.

    A grid of both gates that is refined around its best point.
    """
    low, high = np.full(2, 1e-3), np.ones(2)
    best = np.ones(2)
    for _ in range(12):
        axes = [np.linspace(low[i], high[i], 21) for i in range(2)]
        a, b = np.meshgrid(*axes, indexing="ij")
        value = current(n, a, b) - cost * (a + b)
        i, j = np.unravel_index(value.argmax(), value.shape)
        best = np.array([axes[0][i], axes[1][j]])
        step = (high - low) / 20
        low, high = np.clip(best - 2 * step, 1e-3, 1), np.clip(best + 2 * step, 1e-3, 1)
    value = float(current(n, *best) - cost * best.sum())
    return float(best[0]), float(best[1]), value
