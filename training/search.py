"""Searches for the global minimum of a Lennard-Jones cluster, and what a hit costs.

An attempt ends with a quench, a local minimisation by SciPy's L-BFGS-B, and hits if its energy is
within TOLERANCE of the global minimum. Its cost is the number of times that energy or forces were
asked for, the quench and failures included; a step of a policy counts as one such call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..agents.policy import Policy
from ..envs.clusters.relaxation import GLOBAL_MINIMA, Clusters
from ..envs.clusters.step import energy_and_gradient
from ..envs.core.observation import flatten
from ..envs.core.rng import Rng
from ..envs.core.seeds import HELD_OUT

TOLERANCE = 1e-3  # epsilon
_FLAT = 1e-3  # largest component of the gradient at a minimum, epsilon / sigma
_RESAMPLES = 2000


class Quench(NamedTuple):
    """A local minimum: its energy, its positions [n, 3], and the calls that it took."""

    energy: float
    position: np.ndarray
    calls: int


@dataclass(frozen=True)
class Attempts:
    """Attempts at one cluster: calls [attempts], and which of them hit [attempts]."""

    calls: np.ndarray
    hit: np.ndarray

    @property
    def rate(self) -> float:
        """Part of the attempts that hit."""
        return float(self.hit.mean())

    @property
    def calls_per_hit(self) -> float:
        """All calls over all hits; inf without a hit."""
        return float(self.calls.sum() / self.hit.sum()) if self.hit.any() else float("inf")

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """The 95 % percentile interval of `calls_per_hit` over attempts drawn anew."""
        rng = np.random.default_rng(seed)
        n = len(self.calls)
        drawn = rng.integers(n, size=(_RESAMPLES, n))
        hits = self.hit[drawn].sum(1)
        with np.errstate(divide="ignore"):
            resampled = self.calls[drawn].sum(1) / hits
        low, high = np.quantile(resampled, [0.025, 0.975], method="nearest")
        return float(low), float(high)


def quench(position: np.ndarray) -> Quench:
    """The local minimum below `position` [n, 3]."""
    from scipy.optimize import minimize

    n = len(position)

    def fall(x: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = np.empty((n, 3))
        return energy_and_gradient(x.reshape(n, 3), gradient), gradient.ravel()

    options = {"gtol": _FLAT, "ftol": 1e-12, "maxiter": 5000, "maxfun": 10000}
    minimum = minimize(fall, position.ravel(), jac=True, method="L-BFGS-B", options=options)
    return Quench(float(minimum.fun), minimum.x.reshape(n, 3), int(minimum.nfev))


def starts(system: Clusters, attempts: int, *, first_seed: int = 0) -> np.ndarray:
    """The first positions [attempts, n, 3] of held-out worlds: the same for every search."""
    rng = Rng.single(HELD_OUT + first_seed, attempts)
    return system.initial(rng, attempts).position.numpy()


def restarts(system: Clusters, attempts: int, *, first_seed: int = 0) -> Attempts:
    """Quenches of the first positions."""
    quenches = [quench(x) for x in starts(system, attempts, first_seed=first_seed)]
    return _judge(system, quenches, 0)


def with_policy(
    system: Clusters, policy: Policy, attempts: int, *, first_seed: int = 0
) -> Attempts:
    """Whole episodes of a policy, and quenches of where they end."""
    state = system.initial(Rng.single(HELD_OUT + first_seed, attempts), attempts)
    with torch.no_grad():
        for _ in range(system.horizon):
            seen = flatten(system, system.invariants(state)).float()
            state = system.transition(state, policy(seen, None).double(), None)
    quenches = [quench(x) for x in state.position.numpy()]
    return _judge(system, quenches, system.horizon)


def hopping(
    system: Clusters,
    attempts: int,
    *,
    most: int,
    first_seed: int = 0,
    temperature: float = 0.8,
    stride: float = 0.4,
) -> Attempts:
    """Basin hopping from the first positions until it hits, for at most `most` quenches.

    Every atom moves by up to `stride` along each axis, and the quenched energy is accepted by
    Metropolis' rule at `temperature`, epsilon (Wales and Doye, J. Phys. Chem. A 101, 5111 (1997)).
    """
    rng = np.random.default_rng(HELD_OUT + first_seed)
    best = GLOBAL_MINIMA[system.n_agents]
    calls, hit = np.zeros(attempts), np.zeros(attempts, bool)
    for i, start in enumerate(starts(system, attempts, first_seed=first_seed)):
        here = quench(start)
        calls[i] = here.calls
        for _ in range(most - 1):
            if here.energy < best + TOLERANCE:
                break
            kick = stride * (2 * rng.random(here.position.shape) - 1)
            there = quench(here.position + kick)
            calls[i] += there.calls
            if rng.random() < np.exp(min(0.0, (here.energy - there.energy) / temperature)):
                here = there
        hit[i] = here.energy < best + TOLERANCE
    return Attempts(calls, hit)


def _judge(system: Clusters, quenches: list[Quench], steps: int) -> Attempts:
    best = GLOBAL_MINIMA[system.n_agents]
    calls = np.array([quenched.calls + steps for quenched in quenches], float)
    return Attempts(calls, np.array([quenched.energy < best + TOLERANCE for quenched in quenches]))
