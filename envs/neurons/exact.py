"""What is known exactly of neurons that learn by stochastic gradient descent.

A linear neuron that sees x, standard normal, and should give t, standard normal too and independent
of x, makes the step w' = (1 - eta x^2) w + eta x t of a rate eta. Hence <w'^2> = rho <w^2> + eta^2
with rho = 1 - 2 eta + 3 eta^2, stationary at eta / (2 - 3 eta); and by Kesten (Acta Math. 131,
1973) the density of w falls like |w|^-k with <|1 - eta x^2|^(k - 1)> = 1.

With one rate for every step there is a best one; with any the smallest possible variance P is that
of the filter of Kalman (1960), eta = P / (1 + P x^2), P' = P / (1 + P x^2).

Where |x| of the samples of a class has a density that is uniform, or exponential with mean m, the
gradients q of one trained neuron have the density q^-k: k = 1 - 1 / (n m |w|), where q ~ exp(-n z)
in the tail, and 1 for a uniform density; softsign, whose tail is a power, gives 4/3 for the bias
and 3/2 for the weight.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

DECAYS = {("cross-entropy", ""): 1.0, ("mse", "sigmoid"): 2.0, ("mse", "tanh"): 4.0}  # n


def stationary_variance(rate: float) -> float:
    """<w^2> of the linear neuron; infinite from a rate of 2/3 on."""
    return rate / (2 - 3 * rate) if rate < 2 / 3 else math.inf


def mean_variance(rate: float, start: float, steps: int) -> float:
    """<w^2> averaged over the steps 1, 2, … from <w^2> = start; the rate must be below 2/3."""
    kept, settled = 1 - 2 * rate + 3 * rate**2, stationary_variance(rate)
    return settled + (start - settled) * kept * (1 - kept**steps) / (1 - kept) / steps


def best_constant_rate(low: float, high: float, start: float, steps: int) -> float:
    """The rate in [low, high] of the least `mean_variance`."""
    from scipy.optimize import minimize_scalar

    high = min(high, 0.66)  # beyond, no variance is finite for long
    if low >= high:
        return low
    of = (start, steps)
    least = minimize_scalar(mean_variance, bounds=(low, high), args=of, method="bounded")
    return float(least.x)


def kesten_exponent(rate: float) -> float:
    """k > 1 with <|1 - rate x^2|^(k - 1)> = 1; ValueError if there is none below 60.

    Rates that are too small have tails that nobody could see; those that are too large, none.
    """
    from scipy.optimize import brentq

    # ln|1 - rate x^2| is singular at the root of 1 - rate x^2: nodes gather there on both sides.
    root = rate**-0.5
    node, weight = np.polynomial.legendre.leggauss(400)
    u, half = 0.5 * (node + 1), 0.5 * weight
    below, above = root * (1 - u**3), root + (20 + root) * u**3
    x = np.concatenate([below, above])
    area = np.concatenate([root * 3 * u**2 * half, (20 + root) * 3 * u**2 * half])
    density = 2 * area * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    log_factor = np.log(np.abs(1 - rate * x**2))

    def excess(alpha: float) -> float:
        return float(density @ np.exp(alpha * log_factor)) - 1

    if float(density @ log_factor) >= 0 or excess(59.0) < 0:
        raise ValueError(f"rate={rate:g} has no exponent below 60")
    return 1 + float(brentq(excess, 1e-3, 59.0))


@lru_cache(maxsize=8)
def stationary_tail(rate: float) -> tuple[np.ndarray, np.ndarray]:
    """The stationary law of |w| of the linear neuron: w [bins] and the share of neurons beyond it.

    From the chances of a step between bins of |w|, equal in the logarithm, to percents.
    """
    from scipy.special import ndtr

    edge = np.geomspace(1e-3, 1e4, 351)
    middle = np.sqrt(edge[1:] * edge[:-1])
    node, weight = np.polynomial.legendre.leggauss(160)
    x, area = 3.5 * (node + 1), 3.5 * weight
    density = 2 * area * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    below = np.zeros((len(middle), len(edge)))  # chance that |w'| is below an edge
    for sample, share in zip(x, density / density.sum(), strict=True):
        mean, spread = ((1 - rate * sample**2) * middle)[:, None], rate * sample
        below += share * (ndtr((edge - mean) / spread) - ndtr((-edge - mean) / spread))
    below[:, 0], below[:, -1] = 0.0, 1.0
    law = np.linalg.matrix_power(np.diff(below, axis=1), 4096)[0]
    return edge[:-1], np.cumsum(law[::-1])[::-1] / law.sum()


def gradient_exponents(
    activation: str, loss: str, data: str, scale: float, weight: float
) -> dict[str, float]:
    """k of the density q^-k of the gradients of one neuron, by its bias and by its weight.

    activation, loss, data, scale: as parameters of the system.  weight: the trained one.
    Empty where no exponent is known.
    """
    if activation == "softsign" and loss == "mse":
        return {"bias": 4 / 3, "weight": 3 / 2} if data == "uniform" else {}
    n = DECAYS.get((loss, activation if loss == "mse" else ""))
    if n is None or data == "gaussian":
        return {}
    k = 1.0 if data == "uniform" else 1 - 1 / (n * scale * abs(weight))
    return {"bias": k, "weight": k}  # that of the weight up to logarithms
