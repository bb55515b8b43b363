"""The diagonal step of covariant gradient descent, in one pass over memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ...envs.core.kernels.compiling import compiled


@compiled(error_model="numpy")
def step(  # type: ignore[no-untyped-def]
    q, g, first, second, numbers, sign, decay, averaged, residual, linear
) -> None:
    """Move q [n] in place by gradients g [n]; first and second [n] are its moments.

    numbers: the fields of `cgd.Coefficients`, in q's precision.
    averaged: whether there is a first moment.  residual: whether the second one is centred by it.
    linear: alpha is 1 rather than 1/2.

    Raises ValueError, with nothing moved, unless all four arrays are of one size.
    """
    if g.size != q.size or first.size != q.size or second.size != q.size:
        raise ValueError("gradient and moments must have the size of the parameters")
    take1, keep2, take2 = numbers[1], numbers[2], numbers[3]
    gain, eps, zeta = numbers[4] * numbers[5], numbers[6], numbers[7]
    for i in range(q.size):
        gradient = sign * g[i]
        force = gradient
        if averaged:
            force = first[i] + take1 * (gradient - first[i])
            first[i] = force
        r = gradient - force if residual else gradient
        c = keep2 * second[i] + take2 * r * r
        second[i] = c
        down = (c if linear else np.sqrt(c)) + eps + zeta * c
        moved = force / down if down > 0 else force * 0
        q[i] = decay * q[i] - gain * moved


def update(
    group: dict[str, Any], c: Any, params: list[Tensor], states: list[dict[str, Any]]
) -> None:
    """One step of tensors by their gradients; all, and their moments, contiguous and on the CPU."""
    sign = -1 if group["maximize"] else 1
    decay = 1 - float(group["lr"]) * group["weight_decay"]
    residual, linear = group["centered"] == "residual", group["alpha"] == 1
    averaged = "first_moment" in states[0]
    numbers = {
        size: (np.array(c, precision), precision(sign), precision(decay))
        for size, precision in ((4, np.float32), (8, np.float64))
    }
    for q, moments in zip(params, states, strict=True):
        assert q.grad is not None
        second = moments["second_moment"].numpy().reshape(-1)
        first = moments["first_moment"].numpy().reshape(-1) if averaged else second
        place = q.detach().numpy().reshape(-1)
        gradient = q.grad.detach().numpy().reshape(-1)
        step(place, gradient, first, second, *numbers[place.itemsize], averaged, residual, linear)
