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
    """
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


def update(group: dict[str, Any], c: Any, q: Tensor, moments: dict[str, Any]) -> None:
    """One step of a contiguous tensor of the CPU by its gradient."""
    number = np.float32 if q.element_size() == 4 else np.float64
    grad = q.grad
    assert grad is not None
    g = grad.detach().view(-1).numpy()
    second = moments["second_moment"].view(-1).numpy()
    averaged = bool(group["tau1"])
    step(
        q.detach().view(-1).numpy(),
        g,
        moments["first_moment"].view(-1).numpy() if averaged else second,
        second,
        np.array(c, number),
        number(-1 if group["maximize"] else 1),
        number(1 - group["lr"] * group["weight_decay"]),
        averaged,
        group["centered"] == "residual",
        group["alpha"] == 1,
    )
