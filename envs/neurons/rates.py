"""Neurons that learn from one sample a step, each free to choose how far its step goes.

State      weights w and bias b of every neuron; the sample (x, t) drawn last; the rate eta of the
           world. A network is an output neuron, and hidden ones before it if there are any
Dynamics   w' = w - eta e^a (g_w + decay w), and b alike, with the gradients g of the sample
           that was seen; then another sample is drawn
Data       "gaussian": x and t standard normal and independent, so that the best weight is 0;
           "uniform", "exponential": labels t = 1, -1 and x = t |x|, with |x| of that density
Invariants margin t z (of hidden neurons times the weight of their output), residual sign(z) dL/dh,
           slope f'(z), size of what comes in, own loss
Action     a in [-1, 1], the logarithm of a factor of the step
Loss       L of the sample drawn next (output), back-signal times activation of it (hidden)
Reference  "sgd" is a = 0. One linear neuron, gaussian data: <w^2> = eta / (2 - 3 eta), and the
           density of w falls like |w|^-k, <|1 - eta x^2|^(k - 1)> = 1; see `exact.py`

Nothing is critical about the data, and yet the trained weight has a power law, whose exponent the
rate sets: what "Dataset-learning duality and emergent criticality" (arXiv 2405.17391) claims, in
the smallest case. The system, its losses and all numbers are ours.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel
from ..core.observation import observation_limits
from ..core.physics.plane import positive
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.system import System
from ..core.types import Bound, LiveParameter, Range, StatePolicy, Symmetry
from ..core.validation import (
    require_choice,
    require_count,
    require_fields,
    require_flag,
    require_number,
    require_range,
)
from . import exact, picture
from .network import ACTIVATIONS, LOSSES, Signals, signals

SCENARIOS = {
    "neurons-v0": {
        "system": "Neurons",
        "summary": "neurons that choose the size of their steps; a linear one makes a power law",
        "score": {
            "random": -163.7,
            "best": -106.6,
            "policy": "kalman",
            "origin": "2500 episodes of docs/scores.md",
        },
        "training": {
            "ppo": {"n_worlds": 256, "n_steps": 50, "gamma": 0.9, "reward_scale": 0.02},
            "a2c": {"steps": 2_100_000, "n_steps": 10, "gamma": 0.9, "reward_scale": 0.02},
        },
        "film": {
            "parameters": {"n_networks": 10_000, "rate": 0.7, "start": 0.3, "horizon": 400},
            "policy": "sgd",
            "steps": 72,
            "every": 2,
        },
        "variants": [
            {"n_networks": 3, "rate": (0.1, 0.3), "bias": True, "decay": 0.01},
            {"loss_of_output": "cross-entropy", "data": "exponential", "bias": True},
            {"hidden": 3, "activation": "tanh", "data": "uniform", "scale": 2.0, "n_networks": 2},
            {"hidden": 2, "activation": "softsign", "bias": True},
        ],
    },
}

DATA = ("gaussian", "uniform", "exponential")
_FARTHEST = 1e6  # of a weight; no stable rate comes near
_SEEN = 20.0  # of margins and residuals


class State(NamedTuple):
    weight: Tensor  # [worlds, agents, fan]; of a hidden neuron the first counts
    bias: Tensor  # [worlds, agents]
    x: Tensor  # [worlds, networks]
    t: Tensor  # [worlds, networks]
    rate: Tensor  # [worlds, 1] eta


@dataclass(frozen=True)
class Neurons(System):
    """Parameters.

    n_networks: independent networks of a world, each with samples of its own.
    hidden: hidden neurons of a network; agents of a network are these and the output neuron.
    activation: "linear", "tanh", "softsign" or "sigmoid", of all neurons; the last only where
        there are labels and no hidden neurons.
    loss_of_output: "mse", or "cross-entropy" of the output's z, which needs labels.
    data: "gaussian", or with labels "uniform" or "exponential".
    scale: largest |x| of uniform data, mean |x| of exponential data.
    bias: whether neurons have one.  decay: of the weights and biases.
    rate: eta, a number, or (low, high) drawn once per world.
    start: standard deviation of the weights at the start.
    horizon: steps of an episode; the metrics leave out the first half.
    """

    n_networks: int = 1
    hidden: int = 0
    activation: str = "linear"
    loss_of_output: str = "mse"
    data: str = "gaussian"
    scale: float = 1.0
    bias: bool = False
    decay: float = 0.0
    rate: Range = 0.2
    start: float = 5.0
    horizon: int = 200

    agent_name: ClassVar[str] = "neuron"
    reductions: ClassVar[dict[str, str]] = {
        "weight_squared": "mean",
        "output_loss": "mean",
        "step_factor": "mean",
    }
    live_parameters: ClassVar[dict[str, LiveParameter]] = {"rate": LiveParameter(0.05, 0.05, 1.0)}

    def __post_init__(self) -> None:
        require_count("n_networks", self.n_networks)
        require_count("hidden", self.hidden, 0)
        require_choice("activation", self.activation, ACTIVATIONS)
        require_choice("loss_of_output", self.loss_of_output, LOSSES)
        require_choice("data", self.data, DATA)
        require_number("scale", self.scale, 0, strict=True)
        require_flag("bias", self.bias)
        require_number("decay", self.decay, 0, 1)
        require_range("rate", self.rate, 0, 1, strict=True)
        require_number("start", self.start, 0)
        require_count("horizon", self.horizon)
        if self.data == "gaussian" and self.loss_of_output == "cross-entropy":
            raise ValueError("loss_of_output='cross-entropy' needs labels: data of another kind")
        if self.activation == "sigmoid" and (self.hidden or self.data == "gaussian"):
            raise ValueError("activation='sigmoid' needs labels and no hidden neurons")

    @property
    def n_agents(self) -> int:
        return self.n_networks * (self.hidden + 1)

    @property
    def warm_up(self) -> int:
        return self.horizon // 2

    @property
    def bounds(self) -> dict[str, Bound]:
        return {
            "margin": Bound(-_SEEN, _SEEN),
            "residual": Bound(-_SEEN, _SEEN),
            "slope": Bound(0.0, 1.0),
            "incoming": Bound(0.0, _SEEN),
            "own_loss": Bound(-10 * _SEEN, 10 * _SEEN),
        }

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))

    def world_bytes(self) -> int:
        return 8 * self.n_agents * (self._fan + 4)

    def initial(self, rng: Rng, worlds: int) -> State:
        """Weights and biases of the size `start`, divided by the root of what a neuron adds up."""
        fan, agents = self._fan, self.n_agents
        weight = rng.normal(worlds, agents, fan + 1).unflatten(1, (self.n_networks, -1))
        weight = self.start * weight
        weight[:, :, :-1, 1:fan] = 0.0
        weight[:, :, -1] /= math.sqrt(fan)
        bias = weight[..., fan] * float(self.bias)
        x, t = self._sample(rng, worlds)
        rate = rng.draw(self.rate, worlds)
        return State(weight[..., :fan].flatten(1, 2), bias.flatten(1), x, t, rate)

    def require_state(self, state: State) -> None:
        require_fields(state, ("rate",), 0, strict=True)

    def transition(self, state: State, action: Tensor, rng: Rng) -> State:
        """`action` [worlds, agents, 1]: logarithms of factors of the step."""
        step = (state.rate.unsqueeze(-1) * action.exp()).clone()
        by_weight, by_bias = self.gradients(state)
        weight = state.weight - step * (by_weight + self.decay * state.weight)
        bias = state.bias - step[..., 0] * (by_bias + self.decay * state.bias) * float(self.bias)
        weight, bias = weight.clamp(-_FARTHEST, _FARTHEST), bias.clamp(-_FARTHEST, _FARTHEST)
        x, t = self._sample(rng, len(state.x))
        return State(weight, bias, x, t, state.rate)

    def gradients(self, state: State) -> tuple[Tensor, Tensor]:
        """Of the sample, by weights [worlds, agents, fan] and by biases [worlds, agents]."""
        passed = self._pass(state)
        signal = (passed.back * passed.slope).flatten(1)
        return signal.unsqueeze(-1) * passed.incoming.flatten(1, 2), signal

    def invariants(self, state: State) -> dict[str, Tensor]:
        """How right a neuron is, which way its output should go, and how much it can learn."""
        passed = self._pass(state)
        seen = {
            "margin": passed.z * passed.outgoing * state.t.unsqueeze(-1),
            "residual": passed.back * passed.z.sign(),
            "slope": passed.slope,
            "incoming": passed.incoming.norm(dim=-1),
            "own_loss": self._own_loss(passed),
        }
        return {name: value.flatten(1) for name, value in seen.items()}

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return self._own_loss(self._pass(next_state)).flatten(1)

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """Means over networks: w^2 of the output neuron, its loss; mean factor of the steps."""
        return {
            "weight_squared": self._size_squared(next_state).mean(-1),
            "output_loss": self._pass(next_state).loss.mean(-1),
            "step_factor": action.exp().mean((1, 2)),
        }

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        turned = state._replace(bias=-state.bias, x=-state.x, t=-state.t)
        yield Symmetry("flip", turned, noise=self._flipped)
        worlds, size = len(state.x), self.hidden + 1
        if self.n_networks > 1:
            order = rng.uniform(worlds, self.n_networks).argsort(-1)
            agents = (size * order.unsqueeze(-1) + _numbers(size, order)).flatten(1)
            moved = State(
                state.weight.take_along_dim(agents.unsqueeze(-1), 1),
                state.bias.take_along_dim(agents, 1),
                state.x.take_along_dim(order, 1),
                state.t.take_along_dim(order, 1),
                state.rate,
            )
            row = order.unsqueeze(-1)
            yield Symmetry("relabel networks", moved, agents, noise=partial(_rearranged, row))
        if self.hidden:
            order = rng.uniform(worlds, self.n_networks, self.hidden).argsort(-1)
            within = torch.cat([order, torch.full_like(order[..., :1], self.hidden)], -1)
            first = size * _numbers(self.n_networks, order).unsqueeze(-1)
            weight = state.weight.unflatten(1, (self.n_networks, size)).clone()
            weight[:, :, -1] = weight[:, :, -1].take_along_dim(order, -1)
            weight = weight.take_along_dim(within.unsqueeze(-1), 2).flatten(1, 2)
            agents = (first + within).flatten(1)
            moved = state._replace(weight=weight, bias=state.bias.take_along_dim(agents, 1))
            yield Symmetry("relabel hidden neurons", moved, agents, noise=_unchanged)
            sign = torch.where(rng.uniform(worlds, self.n_networks, self.hidden) < 0.5, -1.0, 1.0)
            sign[:, 0, 0] = -1.0
            signs = torch.cat([sign, torch.ones_like(sign[..., :1])], -1)
            weight = state.weight.unflatten(1, (self.n_networks, size)) * signs.unsqueeze(-1)
            weight[:, :, -1] = weight[:, :, -1] * sign
            turned = state._replace(weight=weight.flatten(1, 2), bias=state.bias * signs.flatten(1))
            yield Symmetry("sign of hidden neurons", turned, noise=_unchanged)

    def kernel(self, worlds: int) -> Kernel:
        from .step import make_kernel

        return make_kernel(
            np.stack(observation_limits(self)).astype(float),
            self.hidden,
            activation=ACTIVATIONS.index(self.activation),
            cross_entropy=self.loss_of_output == "cross-entropy",
            data=DATA.index(self.data),
            has_bias=self.bias,
            scale=self.scale,
            decay=self.decay,
            farthest=_FARTHEST,
        )

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        policies: dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]
        policies = {"sgd": partial(_constant, 0.0)}
        if self._is_solved and not isinstance(self.rate, tuple):
            low, high = self.rate / math.e, self.rate * math.e
            best = exact.best_constant_rate(low, high, self.start**2, self.horizon)
            policies["constant"] = partial(_constant, math.log(best / self.rate))
        return policies

    def state_policies(self) -> dict[str, StatePolicy]:
        if not self._is_solved:
            return {}
        return {"kalman": StatePolicy(_filtered, partial(_variances, self.start**2))}

    def references(self) -> dict[str, float]:
        """Means under "sgd" where they exist, without what is left of the start."""
        if not self._is_solved or isinstance(self.rate, tuple) or self.rate >= 2 / 3:
            return {}
        variance = exact.stationary_variance(self.rate)
        return {
            "weight_squared": variance,
            "output_loss": 0.5 * (1 + variance),
            "step_factor": 1.0,
        }

    def scene(self, state: State) -> Scene:
        """The share of networks whose weight is larger, beside the exact law of linear neurons."""
        rate, size = float(state.rate[0, 0]), self._size_squared(state)[0].sqrt()
        text = f"rate {rate:.3g}"
        if self._is_solved:
            with contextlib.suppress(ValueError):  # no tail that could be seen
                text += f", density |w|^-{exact.kesten_exponent(rate):.2f} in the tail"
        caption = (text, "log10: |w| from -1 to 3, share beyond from 0 to -4")
        loss, agents = self._pass(state).loss[0], self.hidden + 1
        return picture.tail(size, loss, rate, self._is_solved, agents, caption)

    @property
    def _fan(self) -> int:
        return max(self.hidden, 1)

    @property
    def _is_solved(self) -> bool:
        """Whether networks are linear neurons without bias on gaussian data."""
        plain = self.activation == "linear" and self.data == "gaussian"
        return plain and not (self.hidden or self.bias or self.decay)

    def _sample(self, rng: Rng, worlds: int) -> tuple[Tensor, Tensor]:
        """x and t [worlds, networks]."""
        shape = (worlds, self.n_networks, 2)
        if self.data == "gaussian":
            x, t = rng.normal(*shape).unbind(-1)
            return x, t
        a, b = rng.uniform(*shape).unbind(-1)
        t = torch.where(b < 0.5, 1.0, -1.0).to(a.dtype)
        return t * self.scale * (a if self.data == "uniform" else -(1 - a).log()), t

    def _flipped(self, noise: Tensor) -> Tensor:
        """The numbers behind samples whose x and t have the other sign."""
        if self.data == "gaussian":
            return -noise
        return torch.stack([noise[..., 0], (noise[..., 1] + 0.5) % 1.0], -1)

    def _pass(self, state: State) -> Signals:
        """The sample through all networks, arrays [worlds, networks, hidden + 1, …]."""
        size = (self.n_networks, self.hidden + 1)
        weight, bias = state.weight.unflatten(1, size), state.bias.unflatten(1, size)
        labels = self.data != "gaussian"
        given = self.activation, self.loss_of_output, labels
        return signals(weight, bias, state.x, state.t, *given)

    def _own_loss(self, passed: Signals) -> Tensor:
        """[worlds, networks, hidden + 1]."""
        hidden = (passed.back * passed.h)[..., :-1]
        return torch.cat([hidden, passed.loss.unsqueeze(-1)], -1)

    def _size_squared(self, state: State) -> Tensor:
        """w^2 of the output neurons [worlds, networks]."""
        output = state.weight.unflatten(1, (self.n_networks, self.hidden + 1))[:, :, -1]
        return output.square().sum(-1)


def _constant(log_factor: float, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    """The same factor always."""
    return torch.full_like(invariants["margin"], log_factor).unsqueeze(-1)


def _variances(start: float, state: State) -> tuple[Tensor]:
    """What is not known yet of every weight [worlds, agents]."""
    return (torch.full_like(state.bias, start),)


def _filtered(state: State, memory: tuple[Tensor], rng: Rng) -> tuple[Tensor, tuple[Tensor]]:
    """Kalman's rates, the best there are: P / (1 + P x^2), with the variance P of the weight."""
    best = memory[0] / (1 + memory[0] * state.x**2)
    return (positive(best) / state.rate).log().unsqueeze(-1), (best,)  # 0 from a start of 0


def _numbers(n: int, like: Tensor) -> Tensor:
    return torch.arange(n, device=like.device)


def _rearranged(order: Tensor, noise: Tensor) -> Tensor:
    """Numbers [worlds, networks, 2] of networks that stand in another order."""
    return noise.take_along_dim(order, 1)


def _unchanged(noise: Tensor) -> Tensor:
    return noise
