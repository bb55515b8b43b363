"""Steps of covariant gradient descent: diagonal, and dense along eigenvectors that are kept."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...envs.core.kernels.compiling import compiled

ROUNDING = float(np.finfo(np.float64).eps)


@cache
def _layout(precision: np.dtype, coefficients: tuple[str, ...]) -> np.dtype:
    """The type of a record: one object for all steps, by which numba finds it quickly."""
    numbers = (*coefficients, "sign", "decay", "alpha", "limit")
    flags = ("averaged", "residual", "linear")
    return np.dtype([(n, precision) for n in numbers] + [(n, np.bool_) for n in flags])


def parameter_record(
    group: dict[str, Any], c: Any, averaged: bool, limit: float, precision: np.dtype
) -> np.ndarray:
    """The numbers of a step by name [1].

    c: Coefficients.  averaged: whether there is a first moment.  limit: of |C^{-1/2} F|.
    Besides: sign of the gradients, decay of the parameters, alpha; residual: whether second
    moments are centred by the first.  linear: alpha is 1 rather than 1/2.
    """
    record = np.empty(1, _layout(precision, c._fields))
    record[0] = (
        *c,
        -1 if group["maximize"] else 1,
        1 - float(group["lr"]) * group["weight_decay"],
        group["alpha"],
        limit,
        averaged,
        group["centered"] == "residual",
        group["alpha"] == 1,
    )
    return record


@compiled(error_model="numpy")
def step(q: Any, g: Any, first: Any, second: Any, parameters: Any) -> None:
    """Move q [n] in place by gradients g [n]; first and second [n] are its moments.

    parameters: a `parameter_record` in q's precision.

    Raises ValueError, with nothing moved, unless all four arrays are of one size.
    """
    p = parameters[0]
    if g.size != q.size or first.size != q.size or second.size != q.size:
        raise ValueError("gradient and moments must have the size of the parameters")
    take1, keep2, take2 = p.take1, p.keep2, p.take2
    gain, eps, zeta = p.gain * p.root, p.eps, p.zeta
    for i in range(q.size):
        gradient = p.sign * g[i]
        force = gradient
        if p.averaged:
            force = first[i] + take1 * (gradient - first[i])
            first[i] = force
        r = gradient - force if p.residual else gradient
        c = keep2 * second[i] + take2 * r * r
        second[i] = c
        down = (c if p.linear else np.sqrt(c)) + eps + zeta * c
        moved = force / down if down > 0 else force * 0
        q[i] = p.decay * q[i] - gain * moved


def update(
    group: dict[str, Any], c: Any, params: list[Tensor], states: list[dict[str, Any]]
) -> None:
    """One step of tensors by their gradients; all, and their moments, contiguous and on the CPU."""
    averaged = "first_moment" in states[0]
    parameters = {
        precision: parameter_record(group, c, averaged, np.inf, precision)
        for precision in (np.dtype(np.float32), np.dtype(np.float64))
    }
    for q, moments in zip(params, states, strict=True):
        assert q.grad is not None
        second = moments["second_moment"].numpy().reshape(-1)
        first = moments["first_moment"].numpy().reshape(-1) if averaged else second
        place = q.detach().numpy().reshape(-1)
        gradient = q.grad.detach().numpy().reshape(-1)
        step(place, gradient, first, second, parameters[place.dtype])


@compiled(error_model="numpy", fastmath={"contract", "reassoc"})
def step_in_basis(
    g: Any, first: Any, second: Any, power: Any, basis: Any, direction: Any, parameters: Any
) -> bool:
    """Average all moments of dense metrics on by gradients g [blocks, n]; the step along a basis.

    first [blocks, n], second [blocks, n, n]: moments.  basis [blocks, n, n], power [blocks, n]:
    eigenvectors of the second moment of some steps ago, and the second moment along them.
    parameters: a `parameter_record` in double precision.

    Writes gain root G^{-1} F to direction [blocks, n] and returns True; or returns False, with only
    the moments moved, if |C^{-1/2} F| of a block exceeds the limit. All arrays are double
    precision.

    Raises ValueError, with nothing moved, unless all arrays have these sizes.
    """
    blocks, n = g.shape
    if (
        first.shape != g.shape
        or power.shape != g.shape
        or direction.shape != g.shape
        or second.shape != (blocks, n, n)
        or basis.shape != second.shape
    ):
        raise ValueError("moments must have the size of the gradients")
    p = parameters[0]
    take1, keep2, take2, alpha = p.take1, p.keep2, p.take2, p.alpha
    gain, eps, zeta = p.gain * p.root, p.eps, p.zeta
    to_length = np.sqrt(p.weight2) / p.weight1
    if alpha == 0.5 and zeta == 0:  # then it is the step itself, with its eps
        to_length = p.root / p.weight1
    r, force, along, push = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    bounded = True
    for b in range(blocks):
        for i in range(n):
            gradient = g[b, i]
            force[i] = gradient
            if p.averaged:
                force[i] = first[b, i] + take1 * (gradient - first[b, i])
                first[b, i] = force[i]
            r[i] = gradient - force[i] if p.residual else gradient
            along[i] = 0.0
            push[i] = 0.0
        for i in range(n):
            r_i, force_i = r[i], force[i]
            for j in range(n):
                second[b, i, j] = keep2 * second[b, i, j] + take2 * r_i * r[j]
                along[j] += r_i * basis[b, i, j]
                push[j] += force_i * basis[b, i, j]
        largest = 0.0
        for j in range(n):
            power[b, j] = keep2 * power[b, j] + take2 * along[j] * along[j]
            if power[b, j] > largest or power[b, j] != power[b, j]:
                largest = power[b, j]
        negligible, length = n * ROUNDING * largest, 0.0
        for j in range(n):
            c = power[b, j]
            direction[b, j] = 0.0
            if not c <= negligible:
                root = np.sqrt(c)
                direction[b, j] = push[j] / ((root if alpha == 0.5 else c**alpha) + eps + zeta * c)
                far = direction[b, j] if alpha == 0.5 and zeta == 0 else push[j] / root
                length += far * far
        bounded = bounded and not to_length * np.sqrt(length) > p.limit
    if not bounded:
        return False
    for b in range(blocks):
        for j in range(n):
            push[j] = direction[b, j]
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += basis[b, i, j] * push[j]
            direction[b, i] = gain * total
    return True


def direction_in_basis(
    group: dict[str, Any],
    c: Any,
    grad: Tensor,
    moments: dict[str, Any],
    basis: Tensor,
    power: Tensor,
    limit: float,
) -> Tensor | None:
    """The step [blocks, n] along a basis, moments and power averaged on; None if it is too long.

    All tensors contiguous, in double precision and on the CPU; see `step_in_basis`.
    """
    direction, gradient = np.empty(grad.shape), grad.numpy()
    averaged = "first_moment" in moments
    bounded = step_in_basis(
        gradient,
        moments["first_moment"].numpy() if averaged else gradient,
        moments["second_moment"].numpy(),
        power.numpy(),
        basis.numpy(),
        direction,
        parameter_record(group, c, averaged, limit, np.dtype(np.float64)),
    )
    return torch.from_numpy(direction) if bounded else None
