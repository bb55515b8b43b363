"""Pairs of samples that may have been swapped, and the weights of a statistic that tell which."""

from __future__ import annotations

import numpy as np

_AT_ONCE = 500  # points whose distances to all others are held


def swap_posterior(
    features: np.ndarray, parameters: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Weights [features, d] of log p = t . (W^T h(x)) - log Z(t), from pairs of points.

    features [points, per point, n].  first, second: indices of the points of each pair; sample k of
    the one stands against sample k of the other. The odds that they are not swapped are
    exp((t' - t) . W^T (h' - h)): the logarithm of a likelihood without log Z, concave in W, which
    Newton steps bring to its maximum. Raises ValueError if samples tell the pairs apart for sure.
    """
    h = (features[second] - features[first]).reshape(-1, features.shape[2])
    t = np.repeat(parameters[second] - parameters[first], features.shape[1], 0)
    design = (h[:, :, None] * t[:, None]).reshape(len(h), -1)
    w = np.zeros(design.shape[1])
    size = np.sqrt((design**2).mean(0))
    design = design / np.where(size > 0, size, 1)
    logit = design @ w
    loss = float(np.logaddexp(0, -logit).sum())
    for _ in range(100):
        chance = 1 / (1 + np.exp(np.minimum(-logit, 500)))  # that they are not swapped
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design
        slope = design.T @ (1 - chance)
        ridge = 1e-9 * np.trace(curvature) / len(w) + 1e-12
        step = np.linalg.solve(curvature + ridge * np.eye(len(w)), slope)
        along, share, before = design @ step, 1.0, loss
        while share > 1e-9:
            loss = float(np.logaddexp(0, -logit - share * along).sum())
            if loss <= before:
                break
            share /= 2
        w, logit = w + share * step, logit + share * along
        if np.abs(step).max() < 1e-10 * max(np.abs(w).max(), 1e-10) or share <= 1e-9:
            break
    if loss < 1e-6 * len(design):
        raise ValueError("samples tell pairs of parameters apart for sure: bring points nearer")
    return (w / np.where(size > 0, size, 1)).reshape(features.shape[2], -1)


def near_pairs(parameters: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the points `chosen`, each about ten times, and of others near to and far from it.

    The nearest, the third, the ninth, ..., and the farthest, those half and a quarter as far, ...:
    pairs at some of these distances are neither told apart for sure nor not at all.
    """
    from scipy.spatial.distance import cdist

    points = parameters[chosen]
    most = len(points) - 1
    ranks = sorted({min(3**k, most) for k in range(4)} | {max(most >> k, 1) for k in range(6)})
    parts = np.array_split(points, -(-len(points) // _AT_ONCE))
    distances = (cdist(part, points, "sqeuclidean") for part in parts)
    near = [np.argpartition(square, ranks, axis=1)[:, ranks] for square in distances]
    first, second = np.repeat(np.arange(len(points)), len(ranks)), np.concatenate(near).ravel()
    different = (points[first] != points[second]).any(1)
    return chosen[first[different]], chosen[second[different]]
