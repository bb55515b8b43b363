"""Exact results on the square Ising lattice: transfer matrix, Onsager, Kaufman.

An L x L torus has log Z = log tr V^L, where V [2^L, 2^L] adds a row:
V_ab = exp(x b(a, b) + y m(a)), x = J / T, y = h / T, with b the bonds of row a and those to row b,
m the sum of row a. Means and covariances of X = (bonds, M) are the gradient and the Hessian of
log Z in (x, y).
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import numpy as np

T_CRITICAL = 2 / math.log(1 + math.sqrt(2))
_PARTS = 8  # of a step of a path, along which the metric is averaged
_LARGEST = 600.0  # exponent of an element of V; products of some stay finite
MOST_COLUMNS = 8  # side up to which the transfer matrix of a torus is used here


class Moments(NamedTuple):
    """log Z, mean [2] and covariance [2, 2] of (sum of s_i s_j over bonds, sum of s_i)."""

    log_z: float
    mean: np.ndarray
    covariance: np.ndarray


@lru_cache(maxsize=8)
def _row(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bonds inside [2^L] and magnetization [2^L] of rows, bonds between two rows [2^L, 2^L]."""
    code = np.arange(2**size)
    s = 2.0 * (code[:, None] >> np.arange(size) & 1) - 1
    return (s * np.roll(s, -1, 1)).sum(1), s.sum(1), s @ s.T


def transfer_matrix(size: int, x: float, y: float) -> tuple[np.ndarray, float]:
    """V e^-c [2^L, 2^L], symmetric, of a row of `size` spins, and c, 0 where V needs none."""
    inside, m, between = _row(size)
    half = 0.5 * (x * inside + y * m)
    exponent = half[:, None] + half[None] + x * between
    c = max(0.0, float(exponent.max()) - _LARGEST)
    return np.exp(exponent - c), c


@lru_cache(maxsize=64)
def log_z(size: int, x: float, y: float) -> float:
    """log Z of the size x size torus at x = J / T, y = h / T."""
    v, c = transfer_matrix(size, x, y)
    values = np.linalg.eigvalsh(v)
    top = np.abs(values).max()
    return size * (math.log(top) + c) + math.log(np.sum((values / top) ** size))


def moments(size: int, x: float, y: float) -> Moments:
    """log Z, mean and covariance of (bonds, M) on the size x size torus, exact up to rounding.

    Row-row correlations come from the eigenvectors of V: with P = V^L / Z, second derivatives of
    log tr V^L are sums over pairs of eigenvalues (Daleckii and Krein).
    """
    inside, m, between = _row(size)
    v, c = transfer_matrix(size, x, y)
    values, vectors = np.linalg.eigh(v)
    top = np.abs(values).max()
    a = values / top
    z = np.sum(a**size)
    slopes = [
        v * (0.5 * (inside[:, None] + inside[None]) + between) / top,
        v * (0.5 * (m[:, None] + m[None])) / top,
    ]
    curves = [
        [slopes[0] * (0.5 * (inside[:, None] + inside[None]) + between)],
        [slopes[0] * (0.5 * (m[:, None] + m[None])), slopes[1] * (0.5 * (m[:, None] + m[None]))],
    ]
    power = a ** (size - 1)
    turned = [vectors.T @ slope @ vectors for slope in slopes]
    mean = np.array([size * np.sum(power * np.diag(t)) / z for t in turned])
    # sum over k + l = L - 2 of a_i^k a_j^l, without dividing by differences of eigenvalues
    pairs = sum(np.outer(a**k, a ** (size - 2 - k)) for k in range(size - 1))
    covariance = np.empty((2, 2))
    base = (vectors * power) @ vectors.T
    for i in range(2):
        for j in range(i + 1):
            second = size * np.sum(base * curves[i][j])
            second += size * np.sum(pairs * turned[i] * turned[j].T)
            covariance[i, j] = covariance[j, i] = second / z - mean[i] * mean[j]
    return Moments(float(size * (math.log(top) + c) + math.log(z)), mean, covariance)


def sample_rows(size: int, x: float, y: float, uniform: np.ndarray) -> np.ndarray:
    """Independent exact samples of the torus, spins [n, size^2] of +-1, from uniform [n, size].

    Row by row: a row given the first and the one before has weight V[before, row] V^k[row, first].
    """
    v, _ = transfer_matrix(size, x, y)
    v /= v.max()
    powers = [np.eye(len(v))]
    for _ in range(size):
        powers.append(powers[-1] @ v)
        powers[-1] /= powers[-1].max()
    n = len(uniform)
    rows = np.empty((n, size), np.int64)
    rows[:, 0] = _draw(np.diag(powers[size])[None].repeat(n, 0), uniform[:, 0])
    for r in range(1, size):
        weight = v[rows[:, r - 1]] * powers[size - r][:, rows[:, 0]].T
        rows[:, r] = _draw(weight, uniform[:, r])
    spin = 2.0 * (rows[:, :, None] >> np.arange(size) & 1) - 1
    return spin.reshape(n, size * size)


def _draw(weight: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Column [n] drawn by weight [n, m]."""
    total = weight.cumsum(1)
    return (total < uniform[:, None] * total[:, -1:]).sum(1)


def onsager(temperature: float) -> tuple[float, float, float, float]:
    """f, u, c and m per spin of the infinite lattice with J = 1, h = 0 (Onsager 1944, Yang 1952).

    The integral is a mean over equal steps of a periodic function: exact to rounding away from T_c.
    """
    k = 1 / temperature
    angle = (np.arange(2**16) + 0.5) * (math.pi / 2**16)

    def log_z_per_spin(k: float) -> float:
        cosh, sinh = math.cosh(2 * k), math.sinh(2 * k)
        modulus = 2 * sinh / cosh**2
        root = np.sqrt(1 - (modulus * np.sin(angle)) ** 2)
        return math.log(2 * cosh) + float(np.log((1 + root) / 2).mean()) / 2

    cosh, sinh = math.cosh(2 * k), math.sinh(2 * k)
    odd = 2 * math.tanh(2 * k) ** 2 - 1
    first, second = elliptic(odd * odd)
    u = -cosh / sinh * (1 + 2 / math.pi * odd * first)
    bracket = 2 * first - 2 * second - (1 - odd) * (math.pi / 2 + odd * first)
    c = 2 / math.pi * (k * cosh / sinh) ** 2 * bracket
    m = (1 - sinh**-4) ** 0.125 if temperature < T_CRITICAL else 0.0
    return -temperature * log_z_per_spin(k), u, c, m


def elliptic(rest: float) -> tuple[float, float]:
    """Complete elliptic integrals K and E of parameter 1 - rest, by arithmetic-geometric means."""
    a, b, weight, total = 1.0, math.sqrt(rest), 0.5, 0.5 * (1 - rest)
    while abs(a - b) > 1e-15 * a:
        a, b, c = 0.5 * (a + b), math.sqrt(a * b), 0.5 * (a - b)
        weight *= 2
        total += weight * c * c
    first = math.pi / (2 * a)
    return first, first * (1 - total)


def kaufman(size: int, temperature: float) -> float:
    """log Z of the size x size torus with J = 1, h = 0 (Kaufman 1949)."""
    k, n = 1 / temperature, size

    def gamma(r: np.ndarray) -> np.ndarray:
        cosh = math.cosh(2 * k) / math.tanh(2 * k) - np.cos(math.pi * r / n)
        return np.arccosh(cosh)

    odd = gamma(2.0 * np.arange(n) + 1)
    even = gamma(2.0 * np.arange(n))
    even[0] = 2 * k + math.log(math.tanh(k))
    terms = []
    for values in (odd, even):
        size_of = np.abs(n * values / 2)
        terms.append((1.0, float(np.sum(np.logaddexp(size_of, -size_of)))))
        sign = float(np.prod(np.sign(values)))
        with np.errstate(divide="ignore"):
            magnitude = float(np.sum(size_of + np.log(-np.expm1(-2 * size_of))))
        terms.append((sign, magnitude))
    top = max(value for _, value in terms)
    total = sum(sign * math.exp(value - top) for sign, value in terms)
    return -math.log(2) + 0.5 * n * n * math.log(2 * math.sinh(2 * k)) + top + math.log(total)


@lru_cache(maxsize=4)
def geodesic(
    size: int, start: tuple[float, float], end: tuple[float, float], n_steps: int
) -> np.ndarray:
    """Points [n_steps + 1, 2] of a shortest path in (x, y) under the metric Cov(bonds, M).

    The metric is exact on a grid and linear in between.
    """
    xs = np.linspace(0.0, max(start[0], end[0]) + 0.2, 36)
    most = max(abs(start[1]), abs(end[1])) + 0.1
    ys = np.linspace(-most, most, 51)
    table = np.empty((3, len(ys), len(xs)))
    for j, x in enumerate(xs):
        for i, y in enumerate(ys[: len(ys) // 2 + 1]):
            g = moments(size, x, y).covariance
            table[:, i, j] = g[0, 0], g[0, 1], g[1, 1]
            table[:, -1 - i, j] = g[0, 0], -g[0, 1], g[1, 1]
    return shortest_path(xs, ys, table, start, end, n_steps)


@lru_cache(maxsize=4)
def learned_geodesic(
    start: tuple[float, float], end: tuple[float, float], n_steps: int
) -> np.ndarray:
    """The same under the metric of 6 x 6 spins that was learned from samples and ships.

    Beyond its window, 1 / T up to 0.7 and h / T up to 0.3, the metric is that of the nearest edge.
    """
    with np.load(str(resources.files(__package__) / "data" / "learned.npz")) as file:
        return shortest_path(
            file["xs"], file["ys"], file["table"].astype(float), start, end, n_steps
        )


def shortest_path(
    xs: np.ndarray,
    ys: np.ndarray,
    table: np.ndarray,
    start: tuple[float, float],
    end: tuple[float, float],
    n_steps: int,
) -> np.ndarray:
    """Points [n_steps + 1, 2] of a shortest path under metrics (g_xx, g_xy, g_yy) [3, ys, xs].

    Minimises the sum of (change, mean metric along it, change) over the points between, which also
    spaces them evenly in length. The mean is over several places, so that no step jumps a wall.
    """
    import torch
    from torch.nn.functional import grid_sample

    metric = torch.from_numpy(table)[None]
    low = torch.tensor([xs[0], ys[0]])
    width = torch.tensor([xs[-1] - xs[0], ys[-1] - ys[0]])

    share = ((torch.arange(_PARTS, dtype=torch.float64) + 0.5) / _PARTS)[:, None]

    def energy(points: torch.Tensor) -> torch.Tensor:
        change = points.diff(dim=0)
        within = points[:-1, None] + share * change[:, None]
        place = (2 * (within - low) / width - 1)[None]
        g = grid_sample(metric, place, "bilinear", "border", align_corners=True)[0].mean(-1)
        dx, dy = change.unbind(-1)
        return n_steps * (g[0] * dx * dx + 2 * g[1] * dx * dy + g[2] * dy * dy).sum()

    first, last = torch.tensor([start, end], dtype=torch.float64)
    progress = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)[:, None]
    bow = 4 * progress * (1 - progress) * torch.tensor([[1.0, 0.0]])
    paths: list[tuple[float, np.ndarray]] = []
    for away in (0.0, -0.4):  # straight on, and around the critical point
        inner = (first + (last - first) * progress + away * bow)[1:-1].clone().requires_grad_()
        search = torch.optim.LBFGS(
            [inner], max_iter=500, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
        )

        def close() -> torch.Tensor:
            search.zero_grad()  # noqa: B023
            value = energy(torch.cat([first[None], inner, last[None]]))  # noqa: B023
            value.backward()
            return value

        search.step(close)
        with torch.no_grad():
            points = torch.cat([first[None], inner, last[None]])
            paths.append((float(energy(points)), points.numpy()))
    return min(paths, key=lambda path: path[0])[1]
