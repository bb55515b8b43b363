"""Neurons that learn: the compiled form of `network.py` and `rates.py`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernel import Episode, Kernel, parameter_record
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.philox import uniform_pair
from ..core.kernels.reductions import accumulate_metrics, bad_action

LINEAR, TANH, SOFTSIGN, SIGMOID = 0, 1, 2, 3
GAUSSIAN, UNIFORM, EXPONENTIAL = 0, 1, 2
_SAMPLES = 0  # the first draw of a transition
_LAYOUT = np.dtype(
    [
        ("hidden", np.int64),
        ("activation", np.int64),
        ("cross_entropy", np.int64),
        ("data", np.int64),
        ("has_bias", np.int64),
        ("scale", float),
        ("decay", float),
        ("farthest", float),
    ]
)


class Networks(NamedTuple):
    """The state, in the order of its fields."""

    weight: Any
    bias: Any
    x: Any
    t: Any
    rate: Any


class Tables(NamedTuple):
    """Numbers that define the observation."""

    limits: np.ndarray  # [2, 5] of the observations


class Scratch(NamedTuple):
    """Of one network: what comes into its neurons, what goes out, and their back-signals."""

    z: np.ndarray  # [hidden + 1]
    h: np.ndarray
    back: np.ndarray


def make_kernel(limits: np.ndarray, hidden: int, **values: Any) -> Kernel:
    """The kernel for observations within `limits` [2, 5]; values: the rest of the parameters."""
    parameters = parameter_record(_LAYOUT, hidden=hidden, **values)
    scratch = Scratch(*np.empty((3, hidden + 1)))
    return Kernel(step, observe, parameters, tables=Tables(limits), scratch=scratch)


@compiled_part(error_model="numpy")
def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z))


@compiled_part(error_model="numpy")
def _activate(activation: int, z: float) -> float:
    if activation == TANH:
        return math.tanh(z)
    if activation == SOFTSIGN:
        return z / (1.0 + abs(z))
    return _sigmoid(z) if activation == SIGMOID else z


@compiled_part(error_model="numpy")
def _slope(activation: int, z: float) -> float:
    if activation == TANH:
        return 4.0 * _sigmoid(2.0 * z) * _sigmoid(-2.0 * z)
    if activation == SOFTSIGN:
        return (1.0 + abs(z)) ** -2
    return _sigmoid(z) * _sigmoid(-z) if activation == SIGMOID else 1.0


@compiled_part(error_model="numpy")
def _error(p: Any, z: float, t: float) -> float:
    """dL/dy of the output neuron."""
    s = t * z
    if p.cross_entropy:
        return -t * _sigmoid(-s)
    if p.data != GAUSSIAN and p.activation == TANH:
        return -2.0 * t * _sigmoid(-2.0 * s)
    if p.data != GAUSSIAN and p.activation == SIGMOID:
        return -t * _sigmoid(-s)
    if p.data != GAUSSIAN and p.activation == SOFTSIGN:
        return -t * (1.0 if s > 0 else 1.0 + 2.0 * abs(s)) / (1.0 + abs(s))
    return _activate(p.activation, z) - t


@compiled_part(error_model="numpy")
def _pass(p: Any, weight: Any, bias: Any, first: int, x: float, t: float, scratch: Any) -> float:
    """A sample through the network whose agents begin at `first`, and back; its loss."""
    z, h, back, hidden = scratch.z, scratch.h, scratch.back, p.hidden
    out = first + hidden
    z[hidden] = bias[out]
    if hidden == 0:
        z[0] += weight[out, 0] * x
    for j in range(hidden):
        z[j] = weight[first + j, 0] * x + bias[first + j]
        h[j] = _activate(p.activation, z[j])
        z[hidden] += weight[out, j] * h[j]
    error = _error(p, z[hidden], t)
    back[hidden] = error
    signal = error if p.cross_entropy else error * _slope(p.activation, z[hidden])
    for j in range(hidden):
        back[j] = signal * weight[out, j]
    if not p.cross_entropy:
        return 0.5 * error**2
    s = -t * z[hidden]
    return max(s, 0.0) + math.log1p(math.exp(-abs(s)))


@compiled_part(error_model="numpy")
def _slope_of(p: Any, j: int, z: float) -> float:
    return 1.0 if p.cross_entropy and j == p.hidden else _slope(p.activation, z)


@compiled_part(error_model="numpy")
def _clip(value: float, limits: Any, at: int) -> float:
    return min(max(value, limits[0, at]), limits[1, at])


@compiled_part(error_model="numpy")
def _write(
    p: Any,
    weight: Any,
    first: int,
    x: float,
    t: float,
    loss: float,
    scratch: Any,
    limits: Any,
    out: Any,
) -> None:
    """Observations of the neurons of one network after `_pass`."""
    z, h, back = scratch.z, scratch.h, scratch.back
    hidden, squared = p.hidden, 0.0
    for j in range(hidden):
        squared += h[j] ** 2
    for j in range(hidden + 1):
        i = first + j
        last = j == hidden
        outgoing = 1.0 if last else weight[first + hidden, j]
        side = 1.0 if z[j] > 0 else (-1.0 if z[j] < 0 else 0.0)
        seen = math.sqrt(squared) if last and hidden > 0 else abs(x)
        out[i, 0] = _clip(z[j] * outgoing * t, limits, 0)
        out[i, 1] = _clip(back[j] * side, limits, 1)
        out[i, 2] = _clip(_slope_of(p, j, z[j]), limits, 2)
        out[i, 3] = _clip(seen, limits, 3)
        out[i, 4] = _clip(loss if last else back[j] * h[j], limits, 4)


@compiled(error_model="numpy")
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state, tables = arrays_at(arrays[0].state, Networks), arrays_at(arrays[0].tables, Tables)
    scratch, p = arrays_at(arrays[0].scratch, Scratch), parameters[0]
    for w in worlds:
        weight, bias = state.weight[w], state.bias[w]
        for k in range(state.x.shape[1]):
            x, t, first = state.x[w, k], state.t[w, k], k * (p.hidden + 1)
            loss = _pass(p, weight, bias, first, x, t, scratch)
            _write(p, weight, first, x, t, loss, scratch, tables.limits, out[w])


@compiled_part(error_model="numpy")
def _descend(
    p: Any, weight: Any, bias: Any, first: int, x: float, rate: float, action: Any, scratch: Any
) -> float:
    """A step of all neurons of one network after `_pass`; the sum of their step factors."""
    hidden, factors = p.hidden, 0.0
    for j in range(hidden + 1):
        i = first + j
        factor = math.exp(np.float64(action[i, 0]))
        step = rate * factor
        factors += factor
        signal = scratch.back[j] * _slope_of(p, j, scratch.z[j])
        fan = hidden if j == hidden and hidden > 0 else 1
        for m in range(fan):
            seen = scratch.h[m] if j == hidden and hidden > 0 else x
            moved = weight[i, m] - step * (signal * seen + p.decay * weight[i, m])
            weight[i, m] = min(max(moved, -p.farthest), p.farthest)
        if p.has_bias:
            moved = bias[i] - step * (signal + p.decay * bias[i])
            bias[i] = min(max(moved, -p.farthest), p.farthest)
    return factors


@compiled(error_model="numpy")
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    state, tables = arrays_at(arrays[0].state, Networks), arrays_at(arrays[0].tables, Tables)
    scratch, episode = arrays_at(arrays[0].scratch, Scratch), arrays_at(arrays[0].episode, Episode)
    p, networks = parameters[0], state.x.shape[1]
    agents = p.hidden + 1
    for w in range(len(action)):
        weight, bias = state.weight[w], state.bias[w]
        squared, total, factors = 0.0, 0.0, 0.0
        for k in range(networks):
            first, out = k * agents, k * agents + p.hidden
            x, t = state.x[w, k], state.t[w, k]
            _pass(p, weight, bias, first, x, t, scratch)
            factors += _descend(p, weight, bias, first, x, state.rate[w, 0], action[w], scratch)
            a, b = uniform_pair(episode.seed[0], episode.world[w], episode.clock[w], _SAMPLES, k)
            if p.data == GAUSSIAN:
                radius, angle = math.sqrt(-2.0 * math.log(1.0 - a)), 2.0 * math.pi * b
                x, t = radius * math.cos(angle), radius * math.sin(angle)
            else:
                t = 1.0 if b < 0.5 else -1.0
                x = t * p.scale * (a if p.data == UNIFORM else -math.log(1.0 - a))
            state.x[w, k], state.t[w, k] = x, t
            loss = _pass(p, weight, bias, first, x, t, scratch)
            for j in range(agents):
                last = j == p.hidden
                episode.reward[w, first + j] = loss if last else scratch.back[j] * scratch.h[j]
            _write(p, weight, first, x, t, loss, scratch, tables.limits, observation[w])
            for m in range(weight.shape[1]):
                squared += weight[out, m] ** 2
            total += loss
        episode.metric[w, 0] = squared / networks
        episode.metric[w, 1] = total / networks
        episode.metric[w, 2] = factors / (networks * agents)
    accumulate_metrics(arrays[0].episode)
    return -1
