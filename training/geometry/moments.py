"""Mean and covariance of a statistic over parameters, fitted together as those of a normal law.

With per point the mean h and the scatter S of n samples, minus the logarithm of the likelihood of
one sample is  1/2 |U (h - m)|^2 + 1/2 tr(U S U^T) - log det U,  C^-1 = U^T U. m and U (its diagonal
by its logarithm) are combinations of functions of the parameters: of products of Legendre
polynomials up to a degree, or of what a network makes. Which, held-out points decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .statistics import Schedule, mlp, seeded, trained

MOST_DEGREES = (10, 6, 3)
_WIDTH = 64
_SWEEPS = 10
_NOISE = 0.05  # variance added to the statistic's, which is 1 on average
_PER_WEIGHT = (
    2.0  # of log-likelihood that a weight must bring; Akaike's 1 holds for normal features
)
_LEAST_Z2 = 7.0  # square of a coefficient of a mean over its variance, below which it is left out

_LEAST_WORTH = 5  # independent samples to one more than the numbers whose covariance they tell
_LEAST_REST = 1e-9  # of the variance of near samples, added where some numbers never vary


class Degrees(NamedTuple):
    """Of the polynomials of m, of log diag U, and of the rest of U over its diagonal."""

    mean: int
    diagonal: int
    rest: int


class Products(nn.Module):
    """Combinations of products of Legendre polynomials up to a degree, [m, d] -> [m, outputs]."""

    powers: Tensor  # [terms, d]

    def __init__(self, d: int, degree: int, outputs: int) -> None:
        super().__init__()
        exponents = torch.tensor(powers(d, degree))
        self.degree = degree
        self.weights = nn.Parameter(torch.zeros(len(exponents), outputs, dtype=torch.float64))
        self.register_buffer("powers", exponents, persistent=False)

    @classmethod
    def of(cls, weights: Tensor, d: int) -> Products:
        """Those of given weights [terms, outputs]."""
        degree = next(k for k in range(len(weights)) if len(powers(d, k)) == len(weights))
        net = cls(d, degree, weights.shape[1])
        with torch.no_grad():
            net.weights.copy_(weights)
        return net

    def forward(self, t: Tensor) -> Tensor:
        """Values [m, outputs] at t [m, d]."""
        return products(t, self.powers, self.degree) @ self.weights


def products(t: Tensor, powers: Tensor, degree: int) -> Tensor:
    """Products [m, terms] of Legendre polynomials at t [m, d] of powers [terms, d]."""
    columns = [torch.ones_like(t), t]
    for n in range(1, degree):
        columns.append(((2 * n + 1) * t * columns[n] - n * columns[n - 1]) / (n + 1))
    table = torch.stack(columns)  # [powers, m, d]
    product = table[powers[:, 0], :, 0]
    for i in range(1, t.shape[1]):
        product = product * table[powers[:, i], :, i]
    return product.T


class Moments(nn.Module):
    """Means m and inverse covariances U^T U of `features` numbers at parameters [..., d].

    Parameters are of about [-1, 1].  bent: whether a network is added to polynomials.
    """

    used: Tensor  # [terms, features] coefficients of the mean that are not 0
    powers: Tensor  # [terms, d]
    places: Tensor  # of what is below the diagonal, in a flattened matrix

    def __init__(self, d: int, features: int, degrees: Degrees, bent: bool = False) -> None:
        super().__init__()
        self.d, self.features, self.degrees = d, features, degrees
        exponents = powers(d, max(degrees))
        terms = [sum(sum(row) <= degree for row in exponents) for degree in degrees]
        size = features * (features + 1) // 2
        weights = [
            nn.Parameter(torch.zeros(n, k, dtype=torch.float64))
            for n, k in zip(terms, (features, features, size - features), strict=True)
        ]
        self.mean_weights, self.diagonal_weights, self.rest_weights = weights
        self.register_buffer("used", torch.ones(terms[0], features, dtype=torch.bool))
        self.register_buffer("powers", torch.tensor(exponents), persistent=False)
        rows, columns = torch.tril_indices(features, features, -1)
        self.register_buffer("places", rows * features + columns, persistent=False)
        self.bent = mlp([d, _WIDTH, _WIDTH, features + size]).double() if bent else None
        if self.bent is not None:
            last = self.bent[-1]
            assert isinstance(last, nn.Linear)
            with torch.no_grad():
                last.weight.mul_(0.1)
                last.bias.zero_()

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """m [m, features], U [m, features, features] and log det U [m] at t [m, d]."""
        basis, n = self.basis(t), self.features
        weights = (self.mean_weights * self.used, self.diagonal_weights, self.rest_weights)
        mean, log, rest = (basis[:, : len(w)] @ w for w in weights)
        if self.bent is not None:
            more = self.bent(t)
            mean, log = mean + more[:, :n], log + more[:, n : 2 * n]
            rest = rest + more[:, 2 * n :]
        log = log.clamp(max=50)
        unit = torch.eye(n, dtype=t.dtype).flatten().expand(len(t), -1)
        unit = unit.scatter(1, self.places.expand(len(t), -1), rest).reshape(len(t), n, n)
        return mean, log.exp()[..., None] * unit, log.sum(1)

    def basis(self, t: Tensor) -> Tensor:
        """Products of Legendre polynomials [m, terms]."""
        return products(t, self.powers, max(self.degrees))

    def mean(self, t: Tensor) -> Tensor:
        """Means [m, features] at t [m, d]."""
        return self(t)[0]


class Data(NamedTuple):
    """Of points: t [points, d], means [points, features], scatters [points, features, features]."""

    t: Tensor
    mean: Tensor
    scatter: Tensor

    def part(self, chosen: np.ndarray) -> Data:
        """Some of the points."""
        return Data(*(array[torch.from_numpy(chosen)] for array in self))


def summed_up(h: np.ndarray, t: np.ndarray) -> Data:
    """What the fit needs of a statistic [points, per point, features] at t [points, d]."""
    mean = h.mean(1)
    away = h - mean[:, None]
    scatter = np.einsum("pki,pkj->pij", away, away) / h.shape[1]
    return Data(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (t, mean, scatter)))


def fit_moments(data: Data, degrees: Degrees, used: np.ndarray | None = None) -> Moments:
    """The moments of given degrees that make the data likeliest.

    used: flags [terms, features] of the coefficients of the mean that are not 0.
    Each part has an exact or a Newton step with the others as they are: least squares for the mean
    and for every feature on those before it, a convex fit of the logarithm of what then is left.
    """
    net = Moments(data.t.shape[1], data.mean.shape[1], degrees)
    with torch.no_grad():
        basis = net.basis(data.t).numpy()
    mean, scatter, n = data.mean.numpy(), data.scatter.numpy(), net.features
    columns = [
        basis[:, : len(w)] for w in (net.mean_weights, net.diagonal_weights, net.rest_weights)
    ]
    on_mean, on_log, on_rest = columns
    used = np.ones((on_mean.shape[1], n), bool) if used is None else used
    mean_weights = np.zeros((on_mean.shape[1], n))
    for j in range(n):  # each feature on its own terms
        mean_weights[used[:, j], j] = np.linalg.lstsq(
            on_mean[:, used[:, j]], mean[:, j], rcond=None
        )[0]
    log_weights = np.zeros((on_log.shape[1], n))
    rest_weights = [np.zeros((on_rest.shape[1], j)) for j in range(n)]
    last = np.inf
    for sweep in range(_SWEEPS):
        away = mean - on_mean @ mean_weights
        square = scatter + away[:, :, None] * away[:, None]
        root = np.zeros_like(square)
        value = 0.0
        for j in range(n):
            before, along, own = square[:, :j, :j], square[:, :j, j], square[:, j, j]
            if j:
                weight = np.exp(2 * on_log @ log_weights[:, j]) if sweep else np.ones(len(mean))
                rest_weights[j] = _regression(on_rest, weight, before, along)
            regression = on_rest @ rest_weights[j]
            left = own + 2 * (regression * along).sum(1)
            left = left + np.einsum("pk,pkl,pl->p", regression, before, regression)
            left = np.maximum(left, 1e-12 * own.mean())
            if not sweep:
                log_weights[0, j] = -0.5 * np.log(left.mean())
            log_weights[:, j] = _log_fit(on_log, left, log_weights[:, j])
            log = on_log @ log_weights[:, j]
            root[:, j, :j], root[:, j, j] = np.exp(log)[:, None] * regression, np.exp(log)
            value += float((0.5 * np.exp(2 * log) * left - log).mean())
        mean_weights = _weighted_means(on_mean, mean, root, used)
        if last - value < 1e-6:
            break
        last = value
    with torch.no_grad():
        net.used.copy_(torch.from_numpy(used))
        net.mean_weights.copy_(torch.from_numpy(mean_weights))
        net.diagonal_weights.copy_(torch.from_numpy(log_weights))
        if n > 1:
            net.rest_weights.copy_(torch.from_numpy(np.concatenate(rest_weights, 1)))
    return net


def _regression(
    basis: np.ndarray, weight: np.ndarray, before: np.ndarray, along: np.ndarray
) -> np.ndarray:
    """Coefficients [terms, j] of least weighted squares of a feature plus those before it."""
    matrix = information(basis, weight[:, None, None] * before)
    matrix[np.diag_indices(len(matrix))] += 1e-9 * np.trace(matrix) / len(matrix)
    return -np.linalg.solve(matrix, ((basis * weight[:, None]).T @ along).ravel()).reshape(
        basis.shape[1], -1
    )


def _log_fit(basis: np.ndarray, left: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Coefficients [terms] of the l that minimises the sum of exp(2 l) left / 2 - l."""

    def total(w: np.ndarray) -> float:
        log = np.minimum(basis @ w, 300)
        return float((0.5 * np.exp(2 * log) * left - log).sum())

    value = total(w)
    constant = np.zeros_like(w)
    constant[0] = -0.5 * np.log(left.mean())
    if total(constant) < value:  # no Newton step leads back from where exp(2 l) left is about 0
        value, w = total(constant), constant
    for _ in range(20):
        size = np.exp(2 * (basis @ w)) * left
        hessian = 2 * (basis * size[:, None]).T @ basis
        hessian[np.diag_indices(len(w))] += 1e-9 * np.trace(hessian) / len(w)
        step = -np.linalg.solve(hessian, basis.T @ (size - 1))
        gain, factor = 0.0, 1.0
        while factor > 1e-3:
            new = total(w + factor * step)
            if new <= value:
                gain, value, w = value - new, new, w + factor * step
                break
            factor /= 2
        if gain < 1e-8 * len(left):
            break
    return w


def _weighted_means(
    basis: np.ndarray, mean: np.ndarray, root: np.ndarray, used: np.ndarray
) -> np.ndarray:
    """Coefficients [terms, features] of the mean by least squares of what U whitens."""
    terms, n = basis.shape[1], mean.shape[1]
    precision = softened(root.swapaxes(1, 2) @ root)
    matrix = information(basis, precision)[used.ravel()][:, used.ravel()]
    matrix[np.diag_indices(len(matrix))] += 1e-10 * np.trace(matrix) / max(len(matrix), 1)
    target = (basis.T @ (precision @ mean[..., None])[..., 0]).ravel()
    weights = np.zeros(terms * n)
    weights[used.ravel()] = np.linalg.solve(matrix, target[used.ravel()])
    return weights.reshape(terms, n)


def softened(precision: np.ndarray) -> np.ndarray:
    """Precisions of the statistic with noise of its own beside.

    Where samples hardly vary their weights would otherwise bend the mean everywhere else.
    """
    noise = _NOISE * np.eye(precision.shape[1])
    return np.asarray(np.linalg.solve(np.eye(len(noise)) + precision @ noise, precision))


def information(basis: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Sum over points of basis x basis x precision, [terms * features, terms * features]."""
    points, terms = basis.shape
    n = precision.shape[1]
    pairs = (basis[:, :, None] * basis[:, None]).reshape(points, -1)
    matrix = (pairs.T @ precision.reshape(points, -1)).reshape(terms, terms, n, n)
    return matrix.transpose(0, 2, 1, 3).reshape(terms * n, terms * n)


def fit_bent(data: Data, seed: int, steps: int) -> Moments:
    """The moments of a network that make the data likeliest, for what no polynomial follows."""
    d, features = data.t.shape[1], data.mean.shape[1]
    net = seeded(lambda: Moments(d, features, Degrees(1, 0, 0), bent=True), seed)
    with torch.no_grad():
        net.mean_weights.copy_(torch.linalg.lstsq(net.basis(data.t), data.mean).solution)
    trained(
        list(net.parameters()),
        lambda batch: likelihood(net, Data(*(array[batch] for array in data))).mean(),
        len(data.t),
        Schedule(steps, 256, 4e-3),
        seed + 1,
    )
    return net


def needed(net: Moments, data: Data, per_point: int) -> np.ndarray:
    """Flags [terms, features] of the coefficients of the mean that are told from 0.

    One after the other the least certain is set to 0 and the others follow, as least squares with
    the covariances of the fit say.
    """
    with torch.no_grad():
        _, root, _ = net(data.t)
        basis = net.basis(data.t)[:, : len(net.mean_weights)]
        terms, features = net.mean_weights.shape
        precision = softened((root.transpose(1, 2) @ root).numpy())
        matrix = per_point * information(basis.numpy(), precision)
        matrix[np.diag_indices(len(matrix))] += 1e-10 * np.trace(matrix) / len(matrix)
        covariance = np.linalg.inv(matrix)
        w = net.mean_weights.flatten().numpy().copy()
    used = np.ones(len(w), bool)
    while used.any():
        variance = np.where(used, np.diag(covariance), 1.0)
        z2 = np.where(used, w**2 / np.maximum(variance, 1e-300), np.inf)
        i = int(z2.argmin())
        if z2[i] >= _LEAST_Z2:
            break
        column = covariance[:, i] / covariance[i, i]
        w = w - column * w[i]
        covariance = covariance - np.outer(column, covariance[i])
        used[i], w[i] = False, 0.0
    return used.reshape(terms, features)


def choose_degrees(data: Data, per_point: int) -> Degrees:
    """Degrees by Akaike's criterion, raised one by one while that lowers it."""
    d, n = data.t.shape[1], per_point * len(data.t)

    def criterion(degrees: Degrees) -> float:
        net = fit_moments(data, degrees)
        weights = sum(p.numel() for p in net.parameters())
        with torch.no_grad():
            return n * float(likelihood(net, data).mean()) + _PER_WEIGHT * weights

    degrees = Degrees(1, 0, 0)
    best, idle, which = criterion(degrees), 0, 0
    while idle < 3:
        idle += 1
        for more in (1, 2):  # even functions need two
            raised = Degrees(*(k + more * (i == which) for i, k in enumerate(degrees)))
            highest = any(k > most for k, most in zip(raised, MOST_DEGREES, strict=True))
            if highest or len(powers(d, max(raised))) > len(data.t) / 10:
                break
            value = criterion(raised)
            if value < best:
                best, degrees, idle = value, raised, 0
                break
        which = (which + 1) % 3
    return degrees


def likelihood(net: Moments, data: Data) -> Tensor:
    """Minus the logarithm of the likelihood of one sample at each point [points]."""
    mean, root, log = net(data.t)
    rest = (root @ (data.mean - mean)[..., None])[..., 0].square().sum(1)
    within = ((root @ data.scatter) * root).sum((1, 2))
    return 0.5 * (rest + within) - log


def powers(d: int, degree: int) -> list[tuple[int, ...]]:
    """Exponents [terms][d] of products up to a degree, lower degrees first."""
    return sorted(_powers(d, degree), key=lambda row: (sum(row), row))


def _powers(d: int, degree: int) -> list[tuple[int, ...]]:
    if d == 1:
        return [(k,) for k in range(degree + 1)]
    return [(k, *rest) for k in range(degree + 1) for rest in _powers(d - 1, degree - k)]


def _surroundings(
    t: np.ndarray, points: np.ndarray, nearest: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of every point: indices of the nearest t, their weights, and their powers up to squares.

    Weights fall to 0 at the last of them; the powers [nearest, 1 + d + d (d + 1) / 2] are those of
    the way from the point.
    """
    from scipy.spatial import cKDTree

    near = min(nearest, len(t))
    rows, columns = np.triu_indices(t.shape[1])
    for distance, at, point in zip(*cKDTree(t).query(points, near), points, strict=True):
        away = t[at] - point
        basis = np.column_stack([np.ones(near), away, away[:, rows] * away[:, columns]])
        yield at, 1 - (distance / max(distance[-1], 1e-300)) ** 2, basis


def local_covariance(
    net: Moments, h: np.ndarray, t: np.ndarray, points: np.ndarray, nearest: int
) -> np.ndarray:
    """Covariances [m, n, n] at points [m, d], of samples of the nearest t alone.

    h [points, per point, n], t [points, d].  net: moments that whiten the samples, so that their
    covariance hardly varies among `nearest` points; what is left of it is averaged there, around a
    mean that is quadratic there. It follows what no polynomial over the whole window does.
    """
    per_point, n = h.shape[1:]
    with torch.no_grad():
        root = net(torch.from_numpy(t))[1].numpy()
        inverse = np.linalg.inv(net(torch.from_numpy(points))[1].numpy())
    covariance = np.empty((len(points), n, n))
    for i, (at, weight, basis) in enumerate(_surroundings(t, points, nearest)):
        white = np.einsum("pij,pkj->pki", root[at], h[at])
        design = np.einsum("pij,pb->pibj", root[at], basis).reshape(len(at), n, -1)
        share = np.sqrt(weight)[:, None, None]
        target = (white.mean(1) * share[:, 0]).ravel()
        mean = np.linalg.lstsq((design * share).reshape(len(target), -1), target, rcond=None)[0]
        rest = white - (design @ mean)[:, None]
        square = np.einsum("p,pki,pkj->ij", weight, rest, rest)
        free = weight.sum() * per_point * (1 - basis.shape[1] / (len(at) * per_point))
        covariance[i] = inverse[i] @ (square / free) @ inverse[i].T
    return covariance


def local_information(h: np.ndarray, t: np.ndarray, points: np.ndarray, nearest: int) -> np.ndarray:
    """Fisher information [m, d, d] of a statistic at points [m, d], of samples of the nearest t.

    h [points, per point, n], t [points, d]. Among the `nearest` points the mean is quadratic in t
    and the covariance C that of what is left; with the mean's slope D this is D^T C^-1 D, less what
    the noise of D and of C adds to it on average. For that, residuals are taken for normal, and as
    many as their weights are worth. ValueError where the nearest points are too few.
    """
    (per_point, n), d = h.shape[1:], t.shape[1]
    least, near = 2 * (1 + d + d * (d + 1) // 2), min(nearest, len(t))
    if near < least:
        raise ValueError(f"nearest={near} must be at least {least} points")
    information = np.empty((len(points), d, d))
    for i, (at, weight, basis) in enumerate(_surroundings(t, points, nearest)):
        share = np.sqrt(weight)[:, None]
        solver = np.linalg.pinv(basis * share) * share.T
        mean = solver @ h[at].mean(1)
        rest = (h[at] - (basis @ mean)[:, None]) * share[..., None]
        rest = rest.reshape(-1, n)
        free = weight.sum() * per_point * (1 - basis.shape[1] / (len(at) * per_point))
        covariance = rest.T @ rest / free
        covariance[np.diag_indices(n)] += _LEAST_REST * np.trace(covariance) / n + 1e-300
        worth = per_point * weight.sum() ** 2 / (weight**2).sum() - basis.shape[1]
        if worth < _LEAST_WORTH * (n + 1):
            raise ValueError(
                f"the {near} nearest points of {per_point} samples are too few for a statistic of "
                f"{n} numbers: they tell a covariance as {worth:.0f} independent samples do, and "
                f"{_LEAST_WORTH * (n + 1)} are needed; take more points, or fewer numbers"
            )
        slope = mean[1 : 1 + d]
        noise = (solver @ solver.T)[1 : 1 + d, 1 : 1 + d] / per_point
        inverse = 1 - (n + 1) / worth  # C^-1 is larger than that of the law, by this on average
        information[i] = inverse * slope @ np.linalg.solve(covariance, slope.T) - n * noise
    return information
