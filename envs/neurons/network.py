"""What neurons compute: activations, losses, back-signals and gradients of one sample.

A network is a row of hidden neurons, which may be empty, and an output neuron behind them:

    z_j = w_j x + b_j, h_j = f(z_j);     z = sum_j v_j h_j + b (without hidden neurons: w x + b)
    "mse":            y = f(z), L = (y - t)^2 / 2       (t of a sigmoid: 0 and 1 for -1 and 1)
    "cross-entropy":  y = z,    L = ln(1 + exp(-t z))

The back-signal of the output neuron is e = dL/dy, that of a hidden one e f'(z) v_j; a neuron's
gradient is its back-signal times its slope f' times what comes in. What is left of a label, f(z) -
t, is written with sigmoid(-2 t z) and the like: the difference itself loses the tail to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

ACTIVATIONS = ("linear", "tanh", "softsign", "sigmoid")
LOSSES = ("mse", "cross-entropy")


class Signals(NamedTuple):
    """Of every neuron of networks [..., hidden + 1], the output neuron last.

    z, slope: what comes in, weighed, and f' there.  back: dL/dh.  incoming: what the weights see
    [..., hidden + 1, fan].  outgoing: the weight of its output, 1 of the output neuron.
    loss [...]: of the network.
    """

    z: Tensor
    h: Tensor
    slope: Tensor
    back: Tensor
    incoming: Tensor
    outgoing: Tensor
    loss: Tensor


def signals(
    weight: Tensor, bias: Tensor, x: Tensor, t: Tensor, activation: str, loss: str, labels: bool
) -> Signals:
    """One sample through networks and back.

    weight [..., hidden + 1, fan], bias [..., hidden + 1]: a hidden neuron has its weight first.
    x, t [...]: what is seen and what should come out; t is 1 or -1 where there are `labels`.
    """
    hidden = bias.shape[-1] - 1
    activate, slope_of = _ACTIVATIONS[activation]
    if hidden:
        z_hidden = weight[..., :-1, 0] * x.unsqueeze(-1) + bias[..., :-1]
        h_hidden, into_output = activate(z_hidden), weight[..., -1, :]
        z_output = (into_output * h_hidden).sum(-1) + bias[..., -1]
        seen = torch.zeros_like(weight)
        seen[..., :-1, 0] = x.unsqueeze(-1)
        seen[..., -1, :] = h_hidden
    else:
        z_output, seen = weight[..., 0, 0] * x + bias[..., 0], x[..., None, None]
    shape = "linear" if loss == "cross-entropy" else activation
    activate_output, slope_of_output = _ACTIVATIONS[shape]
    error, value = _judged(z_output, t, activation, loss, labels)
    slope_output = slope_of_output(z_output)
    z, h = z_output.unsqueeze(-1), activate_output(z_output).unsqueeze(-1)
    slope, back, outgoing = slope_output.unsqueeze(-1), error.unsqueeze(-1), torch.ones_like(z)
    if hidden:
        into_hidden = (error * slope_output).unsqueeze(-1) * into_output
        z, h = torch.cat([z_hidden, z], -1), torch.cat([h_hidden, h], -1)
        slope = torch.cat([slope_of(z_hidden), slope], -1)
        back = torch.cat([into_hidden, back], -1)
        outgoing = torch.cat([into_output, outgoing], -1)
    return Signals(z, h, slope, back, seen, outgoing, value)


def _judged(
    z: Tensor, t: Tensor, activation: str, loss: str, labels: bool
) -> tuple[Tensor, Tensor]:
    """dL/dy of the output neuron, and L."""
    if loss == "cross-entropy":
        return -t * torch.sigmoid(-t * z), torch.nn.functional.softplus(-t * z)
    if labels and activation != "linear":
        error = -t * _LEFT[activation](t * z)
    else:
        error = _ACTIVATIONS[activation][0](z) - t
    return error, 0.5 * error**2


def _unit_slope(z: Tensor) -> Tensor:
    return torch.ones_like(z)


def _same(z: Tensor) -> Tensor:
    return z


def _softsign(z: Tensor) -> Tensor:
    return z / (1 + z.abs())


def _sigmoid_slope(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _tanh_slope(z: Tensor) -> Tensor:
    return 4 * _sigmoid_slope(2 * z)


def _softsign_slope(z: Tensor) -> Tensor:
    return (1 + z.abs()) ** -2


def _sigmoid_left(s: Tensor) -> Tensor:
    return torch.sigmoid(-s)


def _tanh_left(s: Tensor) -> Tensor:
    return 2 * torch.sigmoid(-2 * s)


def _softsign_left(s: Tensor) -> Tensor:
    """1 - softsign(s)."""
    return torch.where(s > 0, 1.0, 1 + 2 * s.abs()) / (1 + s.abs())


_Function = Callable[[Tensor], Tensor]
_ACTIVATIONS: dict[str, tuple[_Function, _Function]] = {  # f and its slope
    "linear": (_same, _unit_slope),
    "tanh": (torch.tanh, _tanh_slope),
    "softsign": (_softsign, _softsign_slope),
    "sigmoid": (torch.sigmoid, _sigmoid_slope),
}
_LEFT: dict[str, _Function] = {  # of a margin: how far the output is from its label
    "tanh": _tanh_left,
    "softsign": _softsign_left,
    "sigmoid": _sigmoid_left,
}
