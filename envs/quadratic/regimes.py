"""Trainable coordinates on a quadratic loss, each free to choose the exponent of its own metric.

State      coordinate q_i with curvature h_i and gradient noise kappa_i; the exponent chosen last;
           the rate gamma of the world
Dynamics   g_i = kappa_i^{alpha_i};  q_i' = q_i - gamma (h_i q_i + kappa_i^{1/2} xi_i) / g_i, with
           xi_i standard normal: a step of stochastic gradient descent under the metric g
Invariants q_i h_i^{1/2} (its square is twice the loss), log10 h_i, log10 kappa_i
Action     the exponent: alpha_i = (1 + a_i) / 2, from 0 (equilibration) to 1 (quantum)
Loss       L_i = h_i q_i'^2 / 2
Reference  for constant alpha the coordinates are independent and stationary with
           <L_i> = gamma kappa_i / (2 g_i (2 - gamma h_i / g_i)), reached at the rate
           gamma h_i / g_i per step; with kappa_i = h_i that is nearly gamma h_i^{1 - alpha} / 4 at
           the rate gamma h_i^{1 - alpha}

A large exponent is quick on soft coordinates and noisy; a small one is slow and quiet. Far from the
minimum an agent should take a large one and near it a small one. What can be gained so at most is
the bound of the score: dynamic programming finds it for each coordinate alone. The metric
g = kappa^alpha and its three regimes are those of "Geometric Learning Dynamics" (Vanchurin, arXiv
2504.14728); this system, its loss and all numbers are ours.
"""

from __future__ import annotations

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
from ..core.rng import Rng
from ..core.scene import Chart, LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Range, Symmetry
from ..core.validation import require_count, require_fields, require_number, require_range

SCENARIOS = {
    "quadratic-regimes-v0": {
        "system": "Quadratic",
        "summary": "trainable coordinates under noise that choose the exponent of their metric",
        "training": {
            "ppo": {
                "steps": 8_000_000,
                "n_worlds": 16,
                "n_steps": 400,
                "n_epochs": 2,
                "lr": 3e-3,
                "gamma": 0.97,
                "reward_scale": 10.0,
                "log_std_init": -0.5,
            },
            "a2c": {
                "steps": 8_000_000,
                "n_worlds": 16,
                "n_steps": 400,
                "lr": 3e-3,
                "gamma": 0.97,
                "reward_scale": 10.0,
                "log_std_init": -0.5,
            },
            "sac": {"gamma": 0.97, "reward_scale": 10.0},
            "descent": {"steps": 1_600_000, "n_worlds": 4, "rollout": 400},
            "es": {"steps": 20_000_000},
        },
        "film": {"parameters": {"start": 2.0}, "policy": "annealed", "steps": 80},
        "variants": [
            {"n_agents": 2, "rate": (0.05, 0.2)},
            {"n_agents": 9, "softest": 0.001, "noise": 0.5},
        ],
        "score": {
            "random": -12.73,
            "best": -4.953,
            "policy": "adaptive",
            "origin": "mean of the best policy, by dynamic programming on each coordinate",
            "exact": True,
        },
    },
}

EXPONENTS = {"equilibration": 0.0, "efficient": 0.5, "quantum": 1.0}
_FARTHEST = 20.0
_LISTED = 8  # exponents in a caption at most
_LEGEND = (
    LegendEntry("coordinate, loss 0.01 to 100", "scale"),
    LegendEntry("band that noise fills", "segment"),
)


class State(NamedTuple):
    q: Tensor  # [worlds, agents]
    curvature: Tensor  # [worlds, agents] h
    noise: Tensor  # [worlds, agents] kappa, the variance of the gradient
    exponent: Tensor  # [worlds, agents] chosen last
    rate: Tensor  # [worlds, 1] gamma


@dataclass(frozen=True)
class Quadratic(System):
    """Parameters.

    n_agents: coordinates; their curvatures are spread evenly in the logarithm.
    softest, stiffest: curvatures at the ends.  noise: kappa_i = noise h_i.
    rate: gamma, at most `noise`, so that no step overshoots; a number, or (low, high) drawn once
        per world.
    start: size of q_i h_i^{1/2} at the start.
    horizon: steps of an episode; the metrics leave out the first half.
    """

    n_agents: int = 6
    softest: float = 1e-2
    stiffest: float = 1.0
    noise: float = 1.0
    rate: Range = 0.1
    start: float = 1.0
    horizon: int = 400

    agent_name: ClassVar[str] = "coordinate"
    reductions: ClassVar[dict[str, str]] = {
        "total_loss": "mean",
        "softest_loss": "mean",
        "stiffest_loss": "mean",
        "exponent": "mean",
    }

    def __post_init__(self) -> None:
        require_count("n_agents", self.n_agents, 2)
        require_count("horizon", self.horizon)
        require_number("softest", self.softest, 0, strict=True)
        require_number("stiffest", self.stiffest, self.softest, 1)
        require_number("noise", self.noise, 0, 1, strict=True)
        require_range("rate", self.rate, 0, self.noise, strict=True)
        require_number("start", self.start, 0, 10)

    @property
    def warm_up(self) -> int:
        return self.horizon // 2

    @property
    def bounds(self) -> dict[str, Bound]:
        lowest = [math.floor(math.log10(k)) for k in (self.softest, self.softest * self.noise)]
        return {
            "height": Bound(-_FARTHEST, _FARTHEST),
            "log_curvature": Bound(lowest[0] - 1, 1.0),
            "log_noise": Bound(lowest[1] - 1, 1.0),
        }

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (1,))

    def initial(self, rng: Rng, worlds: int) -> State:
        """Coordinates whose loss is `start`^2 / 2 on average, exponent 1/2."""
        low, high = math.log10(self.softest), math.log10(self.stiffest)
        h = torch.logspace(low, high, self.n_agents, dtype=torch.float64)
        curvature = h.expand(worlds, -1).clone().to(rng.world.device)
        q = self.start * rng.normal(worlds, self.n_agents) / curvature.sqrt()
        half = torch.full_like(q, 0.5)
        return State(q, curvature, self.noise * curvature, half, rng.draw(self.rate, worlds))

    def require_state(self, state: State) -> None:
        require_fields(state, ("curvature", "noise", "rate"), 0, strict=True)
        require_fields(state, ("exponent",), 0, 1)

    def transition(self, state: State, action: Tensor, rng: Rng) -> State:
        """`action` [worlds, agents, 1]: the exponent 0 at -1, 1/2 at 0 and 1 at 1."""
        alpha = 0.5 * (1 + action[..., 0])
        kick = state.noise.sqrt() * rng.normal(*state.q.shape)
        moved = state.rate * (state.curvature * state.q + kick) / _metric(state.noise, alpha)
        return state._replace(q=state.q - moved, exponent=alpha)

    def invariants(self, state: State) -> dict[str, Tensor]:
        """Of every coordinate: its distance from the minimum in units of loss, and what it is."""
        return {
            "height": state.q * state.curvature.sqrt(),
            "log_curvature": state.curvature.log10(),
            "log_noise": state.noise.log10(),
        }

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return 0.5 * next_state.curvature * next_state.q**2

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """The loss of all coordinates together, of the softest and the stiffest; mean exponent."""
        loss = self.loss(state, action, next_state)
        first, last = state.curvature.argmin(-1), state.curvature.argmax(-1)
        return {
            "total_loss": loss.sum(-1),
            "softest_loss": loss.gather(1, first[:, None])[:, 0],
            "stiffest_loss": loss.gather(1, last[:, None])[:, 0],
            "exponent": next_state.exponent.mean(-1),
        }

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        yield Symmetry(
            "reflection", state._replace(q=-state.q), signs={"height": -1.0}, noise=torch.neg
        )
        order = rng.uniform(*state.q.shape).argsort(-1)
        q, curvature, noise, exponent = (part.gather(1, order) for part in state[:4])
        moved = State(q, curvature, noise, exponent, state.rate)
        yield Symmetry("permutation", moved, order)

    def kernel(self, worlds: int) -> Kernel:
        from .step import make_kernel

        return make_kernel(np.stack(observation_limits(self)).astype(float))

    def scene(self, state: State) -> Scene:
        """Coordinates from soft (left) to stiff, each in its well, over the band that noise fills.

        Up is the height q h^{1/2}; the band is two standard deviations of the stationary law at
        the exponent chosen last.
        """
        n = self.n_agents
        place = torch.arange(n) + 0.5
        height = (state.q[0] * state.curvature[0].sqrt()).clamp(-3, 3)
        band = 2 * (2 * stationary_loss(state)[0]).sqrt()
        rail = torch.stack([place, torch.full((n,), -3.0), 0 * place, torch.full((n,), 6.0)], -1)
        width = torch.full((n,), 0.3)
        ends = [
            torch.stack([place - width, side * band, 2 * width, 0 * place], -1)
            for side in (-1.0, 1.0)
        ]
        segments = torch.cat([rail, *ends])
        segments[:, 2:] += segments[:, :2]
        scale = n / 6.4
        segments[:, 1::2] *= scale
        loss = 0.5 * state.curvature[0] * state.q[0] ** 2
        total, mean = float(loss.sum()), float(state.exponent[0].mean())
        chosen = f"mean exponent {mean:.2f}"
        if n <= _LISTED:
            listed = " ".join(f"{alpha:.1f}" for alpha in state.exponent[0].tolist())
            chosen = f"exponents {listed}"
        charts = (
            Chart(-3.0, 1.0, {"log10 loss": math.log10(max(total, 1e-9))}),
            Chart(0.0, 1.0, {"exponent": mean}),
        )
        return Scene(
            view=(0.0, -n / 2, float(n), n / 2),
            discs=torch.stack([place, scale * height], -1).double().numpy(),
            disc_radius=torch.full((n,), 0.16, dtype=torch.float64).numpy(),
            disc_value=(0.5 + 0.25 * loss.clamp(min=1e-4).log10()).clamp(0, 1).numpy(),
            segments=segments.double().numpy(),
            caption=(f"loss {total:.3f}", chosen),
            charts=charts,
            legend=_LEGEND,
        )

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        policies: dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]
        policies = {name: partial(_constant, alpha) for name, alpha in EXPONENTS.items()}
        policies["annealed"] = _annealed
        if not isinstance(self.rate, tuple):
            policies["adaptive"] = partial(_adaptive, self.rate)
        return policies

    def references(self) -> dict[str, float]:
        """Means under "efficient", after the warm-up and without what is left of the start."""
        if isinstance(self.rate, tuple):
            return {}
        state = self.initial(Rng.single(0, 1), 1)
        loss = stationary_loss(state)[0]
        return {
            "total_loss": float(loss.sum()),
            "softest_loss": float(loss[0]),
            "stiffest_loss": float(loss[-1]),
            "exponent": 0.5,
        }


def stationary_loss(state: State) -> Tensor:
    """Exact mean loss [worlds, agents] if every coordinate keeps its exponent."""
    g = _metric(state.noise, state.exponent)
    return state.rate * state.noise / (2 * g * (2 - state.rate * state.curvature / g))


def relaxation_steps(state: State) -> Tensor:
    """Steps [worlds, agents] in which the mean of q falls by a factor e, nearly: g / (gamma h)."""
    return _metric(state.noise, state.exponent) / (state.rate * state.curvature)


def _metric(noise: Tensor, exponent: Tensor) -> Tensor:
    """noise^exponent; torch's own power depends on the size of the batch in the last bit."""
    return (exponent * noise.log()).exp()


def _constant(alpha: float, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    """The same exponent always."""
    return torch.full_like(invariants["height"], 2 * alpha - 1).unsqueeze(-1)


def _annealed(invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    """Exponent 1 far from the minimum, 0 at a height of less than 0.1."""
    height = invariants["height"].abs()
    return (2 * (height > 0.1).to(height.dtype) - 1).unsqueeze(-1)


def _adaptive(rate: float, invariants: dict[str, Tensor], rng: Rng) -> Tensor:
    """The step of twice the share s that makes the next loss the least on average.

    q' = (1 - s) q - s (kappa / h^2)^{1/2} xi with s = rate h / g, whose mean loss is least at
    s = x^2 / (x^2 + kappa / h), x = q h^{1/2}. Twice that share loses 0.5 % more than what is
    optimal, which dynamic programming finds; once, 3 % more.
    """
    height, curvature = invariants["height"].double(), 10 ** invariants["log_curvature"].double()
    log_noise = math.log(10) * invariants["log_noise"].double()
    squared = height**2
    share = 2 * squared / (squared + log_noise.exp() / curvature)
    log_metric = (rate * curvature / share.clamp(min=1e-300)).log()
    alpha = (log_metric / log_noise.clamp(max=-1e-9)).clamp(0, 1)
    return (2 * alpha - 1).to(invariants["height"].dtype).unsqueeze(-1)
