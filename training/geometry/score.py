"""What one fit says of the Fisher metric: the score of its recipe, and both ways from it to g.

For a statistic h(x) with mean m(t) and covariance C(t) over p(x | t), the combination of h that
best predicts small changes of t has the weights W(t), and with it

    score            s(x, t) = W(t)^T (h(x) - m(t)),  the derivative of log p(x | t) by t
    covariance       g = Cov(s) = W^T C W
    derivative       g = W^T dm/dt, in natural coordinates the Hessian of log Z

    recipe "moments"     W = C^-1 dm/dt; coordinates may be any. g is at most the metric of the
                         samples, and is it where s is a combination of h ("linear" information)
    recipe "posterior"   W = d eta/dt of the in-batch posterior phi(x) . eta(t) + a(t), h = phi
    recipe "chain"       W = d eta/dt of a posterior on a grid; log Z is a polynomial that is fitted
                         to these posteriors, for natural coordinates (`log_partition`)
    recipe "swap"        W constant, for natural coordinates: two samples x, x' at t, t' are told
                         from swapped ones by sigmoid((t' - t) . W^T (h(x') - h(x))), in which
                         log Z cancels: a convex fit, whose scale is right

Points t [m, d] are standardised: the window of the parameters is the cube from -1 to 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .fields import MetricTable
from .moments import Moments, Products

RECIPES = ("moments", "posterior", "swap", "chain")


class Member(NamedTuple):
    """One fit: what the weights W of its recipe are made of, beside the moments.

    other: moments of the other half of the points.  eta: the map of "posterior" and "chain".
    log_z: that of "chain".  near: covariances of the score from near points, standardised.
    """

    moments: Moments
    other: Moments
    eta: nn.Module | None = None
    log_z: Products | None = None
    near: MetricTable | None = None


def covariance_of(member: Member, t: Tensor, recipe: str) -> Tensor:
    """Cov(s) [m, d, d] in standardised coordinates."""
    root = member.moments(t)[1]
    if recipe == "moments":
        slope = root @ slope_of(member.moments.mean, t)
    elif member.eta is not None:
        slope = _whitening(root, slope_of(member.eta, t))
    else:
        slope = _whitening(root, torch.eye(t.shape[1], dtype=t.dtype).expand(len(t), -1, -1))
    return slope.transpose(1, 2) @ slope


def hessian_of(member: Member, t: Tensor, recipe: str) -> Tensor:
    """W^T dm/dt [m, d, d], W of one half of the points and m of the other; symmetric part.

    Where log Z was fitted, its second derivatives.
    """
    if member.log_z is not None:
        t = t.clone().requires_grad_()
        slope = slope_of(member.log_z, t)[:, 0]
        return slope_of(lambda _: slope, t)
    change = slope_of(member.other.mean, t)
    if recipe == "moments":
        root = member.moments(t)[1]
        weights = root.transpose(1, 2) @ (root @ slope_of(member.moments.mean, t))
        value = weights.transpose(1, 2) @ change
    elif member.eta is not None:
        value = slope_of(member.eta, t).transpose(1, 2) @ change
    else:
        value = change
    return (value + value.transpose(1, 2)) / 2


def covariance_with_gradient(
    member: Member, t: Tensor, recipe: str
) -> tuple[np.ndarray, np.ndarray]:
    """Cov(s) [m, d, d] and its derivatives [m, d, d, d] in standardised coordinates."""
    if member.near is not None:
        return member.near.with_gradient(t.detach().numpy())
    d = t.shape[1]
    value = covariance_of(member, t, recipe)
    slopes = torch.empty(len(t), d, d, d, dtype=t.dtype)
    for i, j in itertools.combinations_with_replacement(range(d), 2):
        (slope,) = torch.autograd.grad(value[:, i, j].sum(), t, retain_graph=True)
        slopes[:, i, j] = slopes[:, j, i] = slope
    return value.detach().numpy(), slopes.numpy()


def slope_of(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Derivatives [m, features, d] of a function [m, d] -> [m, features]."""
    if not t.requires_grad:
        t = t.clone().requires_grad_()
    rows = [
        torch.autograd.grad(column.sum(), t, create_graph=True)[0]
        for column in function(t).unbind(1)
    ]
    return torch.stack(rows, 1)


def _whitening(root: Tensor, weights: Tensor) -> Tensor:
    """U^-T W [m, features, d], whose square is W^T C W."""
    return torch.linalg.solve_triangular(root.transpose(1, 2), weights, upper=True)
