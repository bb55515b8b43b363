"""A pair network on the CPU, quickly: empty places are seen once, and rows come in chunks.

What torch would do to all places, mostly to move numbers about, is done here to those that are
filled, and to one empty place for all others. The same numbers, to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...envs.core.kernels.compiling import compiled

_CHUNK = 4096  # rows whose hidden units stay in a core's cache


class OfPlaces(torch.autograd.Function):
    """Actions [rows, coefficients k + own] from features of places [rows, k, names].

    Two hidden layers of tanh, of weights w1..w3 and biases b1..b3, give the coefficients; `own`
    [own] are the same for all. `filled` [rows, k] are the places that do not look like an empty
    one; features of all others must be alike. Differentiable once, in the weights and `own`.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, filled: Tensor, own: Tensor, *weights: Tensor
    ) -> Tensor:
        rows, k, names = features.shape
        seen = features.new_empty(rows * k + 1, names)
        number = _gather(features.detach().numpy(), filled.numpy(), seen.numpy())
        pair, first, second = _layers(seen[:number], weights)
        action = pair.new_empty(rows, k * pair.shape[1] + len(own))
        _spread(pair.numpy(), own.detach().numpy(), filled.numpy(), action.numpy())
        ctx.save_for_backward(filled, seen[:number], first, second, *weights[::2])
        return action

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        filled, seen, first, second, *weights = ctx.saved_tensors
        k, coefficients = filled.shape[1], len(weights[2])
        of_pair = gradient.new_empty(len(seen), coefficients)
        of_own = gradient.new_empty(gradient.shape[1] - k * coefficients)
        _collect(gradient.contiguous().numpy(), filled.numpy(), of_pair.numpy(), of_own.numpy())
        return None, None, of_own, *_of_layers(of_pair, seen, first, second, weights)


def _layers(seen: Tensor, weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Output and both hidden layers [rows, …] of what is seen [rows, names]."""
    w1, b1, w2, b2, w3, b3 = weights
    rows = len(seen)
    first, second = seen.new_empty(rows, len(b1)), seen.new_empty(rows, len(b2))
    output = seen.new_empty(rows, len(b3))
    for start in range(0, rows, _CHUNK):
        of = slice(start, start + _CHUNK)
        torch.mm(seen[of], w1.t(), out=first[of]).add_(b1).tanh_()
        torch.mm(first[of], w2.t(), out=second[of]).add_(b2).tanh_()
        torch.mm(second[of], w3.t(), out=output[of]).add_(b3)
    return output, first, second


def _of_layers(
    of_output: Tensor, seen: Tensor, first: Tensor, second: Tensor, weights: list[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of the weights and biases, in their order, from that of the output."""
    slope = torch.ops.aten.tanh_backward.grad_input
    parts = [part for w in weights for part in (torch.zeros_like(w), w.new_zeros(len(w)))]
    of_w1, of_b1, of_w2, of_b2, of_w3, of_b3 = parts
    ones = seen.new_ones(min(len(seen), _CHUNK))
    for start in range(0, len(seen), _CHUNK):
        of = slice(start, start + _CHUNK)
        back = of_output[of]
        of_w3.addmm_(back.t(), second[of])
        of_b3.addmv_(back.t(), ones[: len(back)])
        back = back @ weights[2]
        slope(back, second[of], grad_input=back)
        of_w2.addmm_(back.t(), first[of])
        of_b2.addmv_(back.t(), ones[: len(back)])
        back = back @ weights[1]
        slope(back, first[of], grad_input=back)
        of_w1.addmm_(back.t(), seen[of])
        of_b1.addmv_(back.t(), ones[: len(back)])
    return tuple(parts)


@compiled(error_model="numpy")
def _gather(features: Any, filled: Any, seen: Any) -> int:
    """Write the features of filled places, then those of the first empty one; how many rows."""
    rows, k, names = features.shape
    number, empty = 0, -1
    for row in range(rows):
        for place in range(k):
            if filled[row, place]:
                for name in range(names):
                    seen[number, name] = features[row, place, name]
                number += 1
            elif empty < 0:
                empty = row * k + place
    if empty >= 0:
        for name in range(names):
            seen[number, name] = features[empty // k, empty % k, name]
        number += 1
    return number


@compiled(error_model="numpy")
def _spread(pair: Any, own: Any, filled: Any, action: Any) -> None:
    """The coefficients of every place, the first of all places first, then what is `own`."""
    rows, k = filled.shape
    number, coefficients = 0, pair.shape[1]
    empty = len(pair) - 1
    for row in range(rows):
        for place in range(k):
            source = empty
            if filled[row, place]:
                source = number
                number += 1
            for c in range(coefficients):
                action[row, c * k + place] = pair[source, c]
        for i in range(len(own)):
            action[row, k * coefficients + i] = own[i]


@compiled(error_model="numpy")
def _collect(gradient: Any, filled: Any, of_pair: Any, of_own: Any) -> None:
    """The reverse of `_spread` for gradients; sums are taken in double precision."""
    rows, k = filled.shape
    number, coefficients = 0, of_pair.shape[1]
    sums = np.zeros(coefficients + len(of_own))
    some_empty = False
    for row in range(rows):
        for place in range(k):
            if filled[row, place]:
                for c in range(coefficients):
                    of_pair[number, c] = gradient[row, c * k + place]
                number += 1
            else:
                some_empty = True
                for c in range(coefficients):
                    sums[c] += gradient[row, c * k + place]
        for i in range(len(of_own)):
            sums[coefficients + i] += gradient[row, k * coefficients + i]
    if some_empty:
        for c in range(coefficients):
            of_pair[number, c] = sums[c]
    for i in range(len(of_own)):
        of_own[i] = sums[coefficients + i]
