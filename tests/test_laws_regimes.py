"""Exact laws of the systems for regimes of learning: quadratic loss, neutral resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import invariantzoo
from invariantzoo.envs.core.rng import TRANSITION, Rng
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.quadratic.optimum import best_return
from invariantzoo.envs.quadratic.regimes import EXPONENTS, Quadratic, State, relaxation_steps
from invariantzoo.envs.quadratic.regimes import stationary_loss as exact_loss
from invariantzoo.envs.resampling import Resampling, inverse_fisher
from invariantzoo.envs.resampling import State as Population
from invariantzoo.training.geometry.regimes import alpha_of_metric, estimate_alpha

F64 = torch.float64


def start(system: Quadratic, worlds: int, q: float, alpha: float) -> State:
    """All coordinates at height q, with an exponent."""
    state = system.initial(Rng.single(0, worlds), worlds)
    return state._replace(q=q / state.curvature.sqrt(), exponent=torch.full_like(state.q, alpha))


def run(system: Quadratic, state: State, steps: int, every: int = 1) -> list[Tensor]:
    """Places [worlds, agents] after every `every` steps, at the exponent of the state."""
    action = (2 * state.exponent - 1).unsqueeze(-1)
    world = torch.arange(len(state.q))
    seen = []
    for t in range(1, steps + 1):
        state = system.transition(state, action, Rng(1, world, torch.full_like(world, t)))
        if t % every == 0:
            seen.append(state.q)
    return seen


@pytest.mark.parametrize(
    ("alpha", "total", "slowest", "fastest"),
    [(0.0, 0.043, 1000, 10), (0.5, 0.066, 100, 10), (1.0, 0.158, 10, 10)],
)
def test_loss_against_speed(alpha: float, total: float, slowest: float, fastest: float) -> None:
    """D: stationary loss of every coordinate and relaxation steps, within 2 %."""
    system = Quadratic()
    exact = exact_loss(start(system, 1, 0.0, alpha))[0]
    steps = relaxation_steps(start(system, 1, 0.0, alpha))[0]
    assert float(exact.sum()) == pytest.approx(total, abs=6e-4)
    assert [float(steps[0]), float(steps[-1])] == pytest.approx([slowest, fastest])
    if alpha == 1.0:  # equipartition
        torch.testing.assert_close(exact, torch.full_like(exact, 0.0263), atol=1e-4, rtol=0)
    # From the stationary law itself the loss stays, and would not if the law were another.
    begin = start(system, 4000, 1.0, alpha)
    noise = torch.randn(begin.q.shape, generator=torch.Generator().manual_seed(3), dtype=F64)
    begin = begin._replace(q=noise * (2 * exact / begin.curvature[0]).sqrt())
    seen = torch.stack(run(system, begin, 1200, every=4))
    found = 0.5 * begin.curvature[0] * seen.square().mean((0, 1))
    assert float((found / exact - 1).abs().max()) < 0.02
    # Far from the minimum the mean decays at the rate of each coordinate.
    far = start(system, 1000, 100.0, alpha)
    later = run(system, far, 10)[-1].mean(0) / far.q[0]
    times = -10 / later.log()
    expected = -1 / torch.log1p(-1 / steps)
    assert float((times / expected - 1).abs().max()) < 0.02


def test_condition_number_is_raised_to_one_minus_alpha() -> None:
    for alpha in (0.0, 0.3, 0.5, 1.0):
        steps = relaxation_steps(start(Quadratic(), 1, 0.0, alpha))[0]
        assert float(steps[0] / steps[-1]) == pytest.approx(100 ** (1 - alpha))


def test_policies_and_references() -> None:
    """Metrics of whole episodes under "efficient" agree with the exact law."""
    system = Quadratic(horizon=2000)
    env = VectorEnv(system, 1600, seed=5)
    env.reset()
    for _ in range(system.horizon):
        step = env.step(torch.zeros(1600, 6, 1).numpy())
    for name, value in system.references().items():
        assert float(step.metrics[name].mean()) == pytest.approx(value, rel=0.04), name
    policies = system.policies()
    seen = {"height": torch.tensor([[3.0, 0.05]])}
    rng = Rng.single(0, 1)
    for name, alpha in EXPONENTS.items():
        assert policies[name](seen, rng)[..., 0].tolist() == [[2 * alpha - 1] * 2]
    assert policies["annealed"](seen, rng)[..., 0].tolist() == [[1.0, -1.0]]


def test_choosing_the_exponent_pays() -> None:
    """Annealed agents lose less from far away than any constant exponent."""
    system, losses = Quadratic(), {}
    for name, policy in system.policies().items():
        state = start(system, 200, 3.0, 0.5)
        world, total = torch.arange(200), 0.0
        for t in range(400):
            action = policy(system.invariants(state), Rng.single(0, 200))
            after = system.transition(state, action, Rng(2, world, torch.full_like(world, t)))
            total += float(system.loss(state, action, after).mean())
            state = after
        losses[name] = total
    constant = min(losses[name] for name in EXPONENTS)
    assert losses["adaptive"] < losses["annealed"] < 0.9 * constant


def test_best_return_of_one_step_is_the_closed_one() -> None:
    """Of the height x the best share is x^2 / (x^2 + noise), as far as exponents reach."""
    system = Quadratic(n_agents=2, softest=0.1, noise=0.4, rate=0.3, start=1.5, horizon=1)
    x = system.start * np.linspace(-8, 8, 40_001)
    density = np.exp(-((x / system.start) ** 2) / 2)
    least = []
    for curvature in (0.1, 1.0):
        share = (x**2 / (x**2 + system.noise)).clip(0.3 * curvature, 0.3 / system.noise)
        loss = ((1 - share) ** 2 * x**2 + share**2 * system.noise) / 2
        least.append(loss @ density / density.sum())
    best = best_return(system, heights=2000, rates=200)
    assert best == pytest.approx(-np.mean(least), rel=1e-4)


def test_the_best_return_is_that_of_dynamic_programming() -> None:
    id = "quadratic-regimes-v0"
    system, scale = invariantzoo.make_system(id), invariantzoo.spec(id).score
    assert isinstance(system, Quadratic)
    assert scale is not None
    assert scale.best == pytest.approx(best_return(system), rel=3e-3)
    policy = invariantzoo.make_policy("adaptive", system)
    scores = invariantzoo.evaluate(system, policy, episodes=1000, seeds=1, deterministic=False)
    error = scores["return"].std() / 1000**0.5
    assert abs(scores["return"].mean() - scale.best) < 3 * error + 0.01 * abs(scale.best)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_exponent_that_agents_chose_is_found(alpha: float) -> None:
    """The estimator on the system's own gradients and updates."""
    system = Quadratic(n_agents=8, rate=0.01)
    begin = start(system, 40, 0.0, alpha)
    q = torch.stack(run(system, begin, 500))
    updates = q.diff(dim=0).flatten(0, 1)
    g = begin.noise[0] ** alpha
    gradients = -updates * g / 0.01
    found = estimate_alpha(gradients, updates)
    assert found.alpha == pytest.approx(alpha, abs=0.01)


def test_neutral_resampling_has_the_inverse_fisher_metric() -> None:
    """E: M Cov(dp) = diag p - p p^T, so that alpha is found to be 1, not 0."""
    system, worlds = Resampling(n_agents=60, n_types=4), 60_000
    counts = [30, 18, 9, 3]
    one = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    state = Population(one.expand(worlds, -1).clone())
    rng = Rng(7, torch.arange(worlds), torch.zeros(worlds, dtype=torch.int64), TRANSITION)
    after = system.transition(state, torch.ones(worlds, 60, dtype=torch.int64), rng)
    p = torch.tensor(counts, dtype=F64) / 60
    change = system.shares(after) - p
    expected = inverse_fisher(p)
    found = 60 * torch.cov(change.T)
    assert float((found - expected).norm() / expected.norm()) < 0.02
    assert float(change.mean(0).abs().max()) < 1e-3
    estimate = alpha_of_metric(expected, change)
    assert estimate.modes == 3
    assert estimate.alpha == pytest.approx(1.0, abs=0.02)


def test_decay_of_diversity() -> None:
    """(1 - 1 / M)^t, on average, and nothing if nobody resamples."""
    system, worlds = Resampling(), 4000
    env = VectorEnv(system, worlds, seed=1)
    for action, expected in ((1, system.references()["diversity"]), (0, 0.75)):
        env.reset()
        for _ in range(system.horizon):
            step = env.step(torch.full((worlds, 16), action).numpy())
        assert float(step.metrics["diversity"].mean()) == pytest.approx(expected, rel=0.02)
    assert math.isclose(system.references()["diversity"], 0.2160722, rel_tol=1e-6)
