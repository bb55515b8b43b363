"""The fits that an estimate of the metric is the mean of.

m and C are fitted together as those of a normal law (`moments`) over the whole window, or around
each point of a grid from the nearest samples alone. Every member of an estimate stands
on its own half of the points, and learns its statistic from the other half, so that the same noise
is never counted twice.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from . import log_partition
from .convolution import Lattices, Windows, convolved
from .fields import MetricTable
from .information import independent, tells_more, without_idle
from .metric import window_table
from .moments import (
    Degrees,
    Moments,
    Products,
    choose_degrees,
    fit_bent,
    fit_moments,
    likelihood,
    local_covariance,
    local_information,
    needed,
    summed_up,
)
from .score import Member, slope_of
from .swaps import near_pairs, swap_posterior

SIDES = {1: 65, 2: 33, 3: 11}  # of a grid of local covariances, by the number of parameters
_STEEP = 6  # degree from which on a network is tried
_LEAST_SIZE = 1e-6  # of a metric from near points, in units of a typical one
_CHAIN_DEGREE = {1: 12, 2: 10}  # of the classifier and of log Z, by the number of parameters


class MemberFits:
    """Fits of moments at t [points, d] that share their form, which the first of them chooses."""

    def __init__(
        self, t: np.ndarray, per_point: int, recipe: str, steps: int, nearest: int | None
    ) -> None:
        self.t, self.per_point, self.recipe = t, per_point, recipe
        self.steps, self.nearest = steps, nearest
        self.degrees: dict[int, Degrees] = {}  # by the number of features
        self.bent: dict[int, bool] = {}

    def member(
        self,
        h: np.ndarray,
        eta: nn.Module | None,
        here: np.ndarray,
        there: np.ndarray,
        seed: int,
    ) -> Member:
        """Moments of a statistic [points, per point, features] on both halves of the points."""
        if self.recipe == "swap":
            h = h @ swap_posterior(h, self.t, *near_pairs(self.t, here))
        log_z = None
        if self.recipe == "chain":
            eta, log_z = self.chain(h, here, there)
        moments = self.moments(h, here, there, seed), self.moments(h, there, here, seed)
        member = Member(*moments, eta, log_z)
        if self.nearest is None:
            return member
        return member._replace(near=self.near(member, h, here))

    def chain(
        self, h: np.ndarray, here: np.ndarray, there: np.ndarray
    ) -> tuple[Products, Products]:
        """eta of a posterior that is learned on points `there`, log Z of those of points `here`."""
        d, n = self.t.shape[1], self.per_point
        degree, nodes = _CHAIN_DEGREE[d], log_partition.grid_nodes(d)
        there, here = log_partition.chosen_bundles(there), log_partition.chosen_bundles(here)
        bundles = h.mean(1)
        weights = log_partition.grid_posterior(bundles[there], self.t[there], nodes, degree)
        posterior = log_partition.posteriors(weights, bundles[here], nodes, degree)
        log_z = log_partition.fit_log_partition(posterior, self.t[here], nodes, n, degree)
        return (
            Products.of(torch.from_numpy(weights[:, 1:] / n), d),
            Products.of(torch.from_numpy(log_z[:, None]), d),
        )

    def near(self, member: Member, h: np.ndarray, here: np.ndarray) -> MetricTable:
        """Covariances of the score on a grid, each of samples of the nearest points `here`."""
        d = self.t.shape[1]
        axis = np.linspace(-1, 1, SIDES[d])
        grid = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
        assert self.nearest is not None
        near = self.nearest // 2, h[here], self.t[here]
        grid = _reached(grid, near[2], near[0])
        if self.recipe == "moments":
            value = local_information(near[1], near[2], grid, near[0])
        else:
            value = local_covariance(member.moments, near[1], near[2], grid, near[0])
            if member.eta is not None:
                slope = slope_of(member.eta, torch.from_numpy(grid)).detach().numpy()
                value = np.swapaxes(slope, 1, 2) @ value @ slope
        sizes, axes = np.linalg.eigh(value)
        sizes = np.maximum(sizes, _LEAST_SIZE * np.median(sizes[:, -1]))
        value = (axes * sizes[:, None]) @ np.swapaxes(axes, 1, 2)
        return window_table(value.reshape(*[len(axis)] * d, d, d))

    def with_convolution(
        self, windows: Windows | Lattices, there: np.ndarray, seed: int
    ) -> np.ndarray:
        """What a network of windows has learned from points `there`, for all points."""
        features = None if self.recipe in ("swap", "chain") else 2 * self.t.shape[1]
        return independent(convolved(windows, self.t, there, features, self.steps, seed), self.t)

    def moments(self, h: np.ndarray, here: np.ndarray, there: np.ndarray, seed: int) -> Moments:
        """The moments on the points `here`, of the form that suits those `there`."""
        data, n = summed_up(h[here], self.t[here]), h.shape[2]
        if n not in self.degrees:
            self.degrees[n] = choose_degrees(summed_up(h, self.t), self.per_point)
            self.bent[n] = False
            if max(self.degrees[n]) >= _STEEP and self.nearest is None:
                smooth, bent = fit_moments(data, self.degrees[n]), fit_bent(data, seed, self.steps)
                rest = summed_up(h[there], self.t[there])
                with torch.no_grad():
                    gain = likelihood(smooth, rest) - likelihood(bent, rest)
                self.bent[n] = bool(gain.mean() > 3 * gain.std() / len(gain) ** 0.5)
        if self.bent[n]:
            return fit_bent(data, seed, self.steps)
        net = fit_moments(data, self.degrees[n])
        return fit_moments(data, self.degrees[n], needed(net, data, self.per_point))

    def with_learned(
        self, given: np.ndarray | None, learned: np.ndarray, here: np.ndarray
    ) -> tuple[np.ndarray, bool]:
        """Given and learned features together, and whether the latter add information `here`."""
        halves = [here[::2], here[1::2]]
        if given is None:
            alone = independent(learned, self.t)
            if self.recipe != "posterior":
                alone = without_idle(alone, self.t, halves)
            return alone, True
        both = independent(np.concatenate([given, learned], -1), self.t)
        if not tells_more(given, both, self.t, halves):
            return given, False
        return without_idle(both, self.t, halves), True


def _reached(grid: np.ndarray, t: np.ndarray, nearest: int) -> np.ndarray:
    """Points [nodes, d] of a grid, those outside of where t [points, d] are moved to the nearest t.

    Outside is what has none as near as the points' own neighbours are.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(t)
    distance, at = tree.query(grid)
    reach = np.median(tree.query(t, min(nearest, len(t)))[0][:, -1])
    return np.where((distance > reach / 2)[:, None], t[at], grid)
