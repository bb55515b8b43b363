"""log Z from posteriors on a grid, as in "Hessian Geometry of Latent Space in Generative Models".

A bundle of samples at t has a posterior over the points of a grid, which a classifier learns. That
of an exponential family is on average near exp(-n D) for n samples, with Bregman's divergence
D = F(t') - F(t) - grad F(t) . (t' - t) of F = log Z. F is a polynomial whose divergences are fitted
to the posteriors (Jensen-Shannon); its Hessian is the metric. A posterior that is narrower than the
grid, or than what the classifier was shown, tells no scale.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .moments import powers

SIDES = {1: 129, 2: 33}  # points along a side of the grid, by the number of parameters
_ETA_DEGREE = 3  # of eta; only what does not depend on the samples may bend more
_MOST_BUNDLES = 1000
_STEPS = 100


def grid_nodes(d: int) -> np.ndarray:
    """The grid [nodes, d] over [-1, 1]^d; ValueError where d is more than two."""
    if d not in SIDES:
        raise ValueError(f"recipe='chain' has a grid over 1 or 2 parameters; these are {d}")
    axis = np.linspace(-1, 1, SIDES[d])
    return np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)


def products(t: np.ndarray, degree: int) -> np.ndarray:
    """Products of Legendre polynomials [m, terms] at t [m, d], in the order of `powers`."""
    return _products(t, degree, range(0))[0]


def _products(t: np.ndarray, degree: int, along: range) -> list[np.ndarray]:
    """The products, then their derivatives by the parameters `along`."""
    exponents = np.array(powers(t.shape[1], degree))
    tables = [np.polynomial.legendre.legvander(column, degree) for column in t.T]
    slopes = np.zeros((degree + 1, degree + 1))
    for k in range(1, degree + 1):
        slopes[:k, k] = np.polynomial.legendre.legder(np.eye(k + 1)[k])
    results = []
    for by in (None, *along):
        value = np.ones((len(t), len(exponents)))
        for i, table in enumerate(tables):
            value *= (table @ slopes if i == by else table)[:, exponents[:, i]]
        results.append(value)
    return results


def grid_posterior(
    features: np.ndarray, t: np.ndarray, nodes: np.ndarray, degree: int
) -> np.ndarray:
    """Weights [terms, 1 + features] of a classifier of bundles, features [bundles, features] at t.

    Its odds of a node t' are products(t') @ weights @ (1, features): a convex fit to normal laws
    around t on the nodes, half a step of the grid wide. Features have weights up to degree 3.
    """
    d = t.shape[1]
    width = 1 / (SIDES[d] - 1)
    away = ((t[:, None] - nodes) ** 2).sum(-1)
    target = np.exp(-(away - away.min(1, keepdims=True)) / (2 * width**2))
    target /= target.sum(1, keepdims=True)
    basis = products(nodes, degree)
    h = np.column_stack([np.ones(len(features)), features])
    wanted = basis.T @ (target.T @ h)
    free = np.ones(wanted.shape)
    free[len(powers(d, _ETA_DEGREE)) :, 1:] = 0

    def value(w: np.ndarray) -> tuple[float, np.ndarray]:
        weights = w.reshape(wanted.shape)
        odds = h @ (basis @ weights).T
        odds -= odds.max(1, keepdims=True)
        chances = np.exp(odds)
        total = chances.sum(1, keepdims=True)
        chances /= total
        loss = np.log(total).sum() - (target * odds).sum()
        slope = free * (basis.T @ (chances.T @ h) - wanted)
        return float(loss) / len(h), slope.ravel() / len(h)

    return _lowered(value, np.zeros(wanted.size)).reshape(wanted.shape)


def posteriors(
    weights: np.ndarray, features: np.ndarray, nodes: np.ndarray, degree: int
) -> np.ndarray:
    """Posteriors [bundles, nodes] of a classifier."""
    odds = (
        np.column_stack([np.ones(len(features)), features]) @ (products(nodes, degree) @ weights).T
    )
    chances = np.exp(odds - odds.max(1, keepdims=True))
    return np.asarray(chances / chances.sum(1, keepdims=True))


def fit_log_partition(
    posterior: np.ndarray, t: np.ndarray, nodes: np.ndarray, count: int, degree: int
) -> np.ndarray:
    """Weights [terms] of the F whose exp(-count D) are nearest to posteriors [bundles, nodes] of t.

    First by the relative entropy, which is convex, then by Jensen and Shannon's divergence. Terms
    that are affine stay 0.
    """
    basis = products(nodes, degree)
    here, *slopes = _products(t, degree, range(t.shape[1]))
    affine = 1 + t.shape[1]
    far = np.stack(slopes, 1)  # [bundles, d, terms]
    p = np.maximum(posterior, 1e-300)

    def odds(c: np.ndarray) -> np.ndarray:
        """log q [bundles, nodes]."""
        slope = far @ c
        at = here @ c - (slope * t).sum(1)
        value = -count * (basis @ c - at[:, None] - slope @ nodes.T)
        value -= value.max(1, keepdims=True)
        return np.asarray(value - np.log(np.exp(value).sum(1, keepdims=True)))

    def backwards(by_odds: np.ndarray) -> np.ndarray:
        """The derivative by c; rows of by_odds add up to 0."""
        moved = np.einsum("nd,ndk->k", by_odds @ nodes, far)
        gradient = -count * (basis.T @ by_odds.sum(0) - moved) / len(t)
        gradient[:affine] = 0
        return np.asarray(gradient)

    def entropy(c: np.ndarray) -> tuple[float, np.ndarray]:
        log_q = odds(c)
        return -float((p * log_q).sum()) / len(t), backwards(np.exp(log_q) - p)

    def divergence(c: np.ndarray) -> tuple[float, np.ndarray]:
        log_q = odds(c)
        q = np.exp(log_q)
        log_middle = np.log((p + q) / 2)
        by_q = (log_q - log_middle) / 2
        value = (q * by_q).sum() + (p * (np.log(p) - log_middle)).sum() / 2
        return float(value) / len(t), backwards(q * (by_q - (q * by_q).sum(1, keepdims=True)))

    return _lowered(divergence, _lowered(entropy, np.zeros(basis.shape[1])))


def chosen_bundles(points: np.ndarray) -> np.ndarray:
    """Those of the points that bundles are made of: as many as the fits need, evenly."""
    return points[:: -(-len(points) // _MOST_BUNDLES)]


def _lowered(value: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray) -> np.ndarray:
    from scipy.optimize import minimize

    found = minimize(
        value, x, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "maxcor": 30}
    )
    return np.asarray(found.x)
