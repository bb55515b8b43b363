"""Exact laws of neurons that learn: a linear one on Gaussian data, and trained ones on labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invariantzoo
from invariantzoo import fit_power_law
from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.neurons import exact
from invariantzoo.envs.neurons.rates import Neurons, State
from invariantzoo.training.rl.score import evaluate

F64 = torch.float64


def weights(
    rate: float, worlds: int, first: int, steps: int, every: int, seed: int
) -> tuple[float, np.ndarray]:
    """Mean of w^2 over steps after the first ones, and |w| after every so many of them."""
    env = VectorEnv(Neurons(rate=rate, start=1.0, horizon=10_000), worlds, seed=seed)
    seen = env.reset()
    action, squared, size = np.zeros((worlds, 1, 1)), 0.0, []
    for t in range(first + steps):
        env.run(action, seen)
        if t >= first:
            w = env.state.weight.ravel()
            squared += float(w @ w) / (worlds * steps)
            if (t - first + 1) % every == 0:
                size.append(np.abs(w))
    return squared, np.concatenate(size)


@pytest.mark.parametrize(("rate", "worlds", "steps"), [(0.2, 20_000, 60), (0.5, 50_000, 120)])
def test_the_variance(rate: float, worlds: int, steps: int) -> None:
    found, _ = weights(rate, worlds, 40, steps, steps, seed=4)
    assert found == pytest.approx(rate / (2 - 3 * rate), rel=0.02)


@pytest.mark.parametrize(("rate", "exponent"), [(0.6, 3.302), (0.7, 2.871)])
def test_the_tail_of_kesten(rate: float, exponent: float) -> None:
    """A power law from data without one, its exponent set by the rate."""
    assert exact.kesten_exponent(rate) == pytest.approx(exponent, abs=6e-4)
    _, w = weights(rate, 50_000, 40, 100, 5, seed=5)
    low = float(np.quantile(w, 0.997))
    law = fit_power_law(w, low, 100 * low)
    assert law.n > 2_900
    assert law.exponent == pytest.approx(exponent, abs=0.1)
    assert law.ks < 1.4 / math.sqrt(law.n)
    _, quiet = weights(0.2, 20_000, 40, 20, 10, seed=5)
    assert np.quantile(quiet, 0.9999) < 0.2 * np.quantile(w, 0.9999)


def test_kesten_where_it_is_known() -> None:
    """The second and the fourth moment are kept exactly at rates that algebra gives."""
    assert exact.kesten_exponent(2 / 3) == pytest.approx(3, abs=1e-6)
    # <(1 - r x^2)^4> = 1 - 4 r + 18 r^2 - 60 r^3 + 105 r^4
    roots = np.roots([105, -60, 18, -4])
    (rate,) = (float(root.real) for root in roots if abs(root.imag) < 1e-12)
    assert exact.kesten_exponent(rate) == pytest.approx(5, abs=1e-6)
    with pytest.raises(ValueError, match=r"rate=0\.01 has no exponent below 60"):
        exact.kesten_exponent(0.01)
    with pytest.raises(ValueError, match="rate=5 has no exponent below 60"):
        exact.kesten_exponent(5.0)


def test_the_stationary_law() -> None:
    """The whole distribution of |w| that the film draws, and its tail."""
    edge, beyond = exact.stationary_tail(0.7)
    _, w = weights(0.7, 50_000, 60, 20, 20, seed=6)
    for at in (0.1, 0.5, 1.0, 3.0, 10.0):
        share = float(np.interp(at, edge, beyond))
        assert (w > at).mean() == pytest.approx(share, abs=0.006), at
    first, last = np.searchsorted(edge, [20, 200])
    slope = np.log(beyond[last] / beyond[first]) / np.log(edge[last] / edge[first])
    assert 1 - slope == pytest.approx(exact.kesten_exponent(0.7), abs=0.01)


def test_policies_and_references() -> None:
    system = Neurons(horizon=400)
    scores = evaluate(system, make_policy("sgd", system), episodes=400, seeds=5, deterministic=True)
    for name, value in system.references().items():
        assert scores[name].mean() == pytest.approx(value, rel=0.02), name
    assert Neurons(rate=0.7).references() == {}
    assert Neurons(hidden=2).references() == {}
    assert set(Neurons(hidden=2).policies()) == {"sgd"}
    assert set(Neurons(rate=(0.1, 0.2)).policies()) == {"sgd"}
    assert Neurons(decay=0.1).state_policies() == {}


def test_the_best_constant_rate() -> None:
    """The mean of an episode is as simulated, least at the rate that is said to be best."""
    best = exact.best_constant_rate(0.2 / math.e, 0.2 * math.e, 25.0, 200)
    least = exact.mean_variance(best, 25.0, 200)
    rates = np.geomspace(0.2 / math.e, 0.5, 200)
    assert least <= min(exact.mean_variance(rate, 25.0, 200) for rate in rates) + 1e-12
    assert exact.best_constant_rate(0.1, 0.2, 25.0, 10**6) == pytest.approx(0.1, abs=1e-4)
    squared, _ = weights(best, 50_000, 0, 20, 20, seed=1)
    assert squared == pytest.approx(exact.mean_variance(best, 1.0, 20), rel=0.02)


def test_the_filter_leaves_weights_that_are_known() -> None:
    """Those that start at the best weight, 0, stay there."""
    system = Neurons(start=0.0, horizon=4)
    policy = make_policy("kalman", system)
    scores = evaluate(system, policy, episodes=3, seeds=1, deterministic=True)
    assert (scores["weight_squared"] == 0).all()


def test_no_rates_do_better_than_those_of_the_filter() -> None:
    system = Neurons()
    means = {
        name: evaluate(system, make_policy(name, system), episodes=500, seeds=2, deterministic=True)
        for name in ("sgd", "constant", "kalman")
    }
    returns = {name: scores["return"].mean() for name, scores in means.items()}
    assert returns["kalman"] > returns["constant"] + 20
    assert returns["constant"] > returns["sgd"] - 0.5  # the best rate is near that of the id
    assert means["kalman"]["weight_squared"].mean() < 0.1 * means["sgd"]["weight_squared"].mean()
    # Ridge regression on all samples is the same filter.
    x, t = torch.randn(2, 1, 30, generator=torch.Generator().manual_seed(0), dtype=F64)
    state = system.initial(Rng.single(0, 1), 1)._replace(weight=torch.zeros(1, 1, 1, dtype=F64))
    policy = system.state_policies()["kalman"]
    memory = policy.start(state)
    for k in range(30):
        state = state._replace(x=x[:, k : k + 1], t=t[:, k : k + 1])
        action, memory = policy.act(state, memory, Rng.single(0, 1))
        state = system.transition(state, action, Rng.single(k, 1))
    ridge = (x * t).sum() / (x.square().sum() + 1 / 25)
    torch.testing.assert_close(state.weight[0, 0, 0], ridge, rtol=1e-10, atol=0)


NETS: list[dict[str, Any]] = [
    {"activation": "softsign"},
    {"hidden": 3, "activation": "tanh"},
    {"hidden": 2, "activation": "softsign", "data": "uniform", "scale": 2.0},
    {"activation": "sigmoid", "data": "exponential"},
    {"hidden": 2, "activation": "tanh", "data": "uniform", "loss_of_output": "cross-entropy"},
]
SHAPES = {
    "linear": lambda z: z,
    "tanh": torch.tanh,
    "softsign": torch.nn.functional.softsign,
    "sigmoid": torch.sigmoid,
}


def plain_loss(system: Neurons, state: State, weight: Tensor, bias: Tensor) -> Tensor:
    """Losses of networks one by one, in words of torch [worlds, networks]."""
    activate, size = SHAPES[system.activation], system.hidden + 1
    rows = []
    for k in range(system.n_networks):
        w, b = weight[:, k * size : (k + 1) * size], bias[:, k * size : (k + 1) * size]
        x, t = state.x[:, k], state.t[:, k]
        seen = [activate(w[:, j, 0] * x + b[:, j]) for j in range(system.hidden)] or [x]
        z = sum(w[:, -1, m] * h for m, h in enumerate(seen)) + b[:, -1]
        if system.loss_of_output == "cross-entropy":
            rows.append(torch.nn.functional.softplus(-t * z))
        else:
            goal = (1 + t) / 2 if system.activation == "sigmoid" else t
            rows.append((activate(z) - goal) ** 2 / 2)
    return torch.stack(rows, -1)


@pytest.mark.parametrize("parameters", NETS, ids=str)
def test_gradients_are_those_of_the_loss(parameters: dict[str, Any]) -> None:
    system = Neurons(n_networks=2, bias=True, start=1.0, **parameters)
    state = system.initial(Rng.single(3, 4), 4)
    weight, bias = state.weight.clone().requires_grad_(), state.bias.clone().requires_grad_()
    loss = plain_loss(system, state, weight, bias)
    expected = torch.autograd.grad(loss.sum(), (weight, bias))
    torch.testing.assert_close(system.gradients(state), expected, rtol=1e-10, atol=1e-12)
    still = torch.zeros(4, system.n_agents, 1, dtype=F64)
    own = system.loss(state, still, state).unflatten(1, (2, -1))
    torch.testing.assert_close(own[..., -1], loss.detach())
    after = system.transition(state, still, Rng.single(4, 4))
    moved = state.weight - state.rate.unsqueeze(-1) * expected[0]
    torch.testing.assert_close(after.weight, moved)


def trained(system: Neurons) -> State:
    """A world whose networks share the weight of least loss over all of their samples."""
    state = system.initial(Rng.single(7, 1), 1)
    weight = torch.full((1, 1, 1), 1.0, dtype=F64, requires_grad=True)
    still = torch.zeros(1, 1, 1, dtype=F64)
    exactly = {"tolerance_grad": 1e-11, "tolerance_change": 0.0, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([weight], max_iter=30, **exactly)

    def closure() -> Tensor:
        optimizer.zero_grad()
        shared = state._replace(weight=weight.expand_as(state.weight))
        loss = system.metrics(state, still, shared)["output_loss"].sum()
        loss = loss + 0.5 * system.decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert weight.grad is not None
    assert float(weight.grad.abs()) < 1e-8
    return state._replace(weight=weight.detach().expand_as(state.weight).contiguous())


Row = tuple[str, str, str, float, float, str, float, float]
ROWS: dict[str, Row] = {  # activation, loss, data, scale, decay, gradient of, window
    "CE": ("linear", "cross-entropy", "uniform", 40.0, 1e-3, "bias", 1e-12, 1e-3),
    "sigmoid": ("sigmoid", "mse", "uniform", 40.0, 1e-3, "bias", 1e-20, 1e-5),
    "tanh": ("tanh", "mse", "uniform", 40.0, 1e-3, "bias", 1e-30, 1e-5),
    "softsign, bias": ("softsign", "mse", "uniform", 1e4, 1e-6, "bias", 1e-11, 1e-5),
    "softsign, weight": ("softsign", "mse", "uniform", 1e4, 1e-6, "weight", 1e-8, 1e-6),
    "exponential, CE": ("linear", "cross-entropy", "exponential", 1.0, 1e-3, "bias", 1e-15, 1e-3),
    "exponential, sigmoid": ("sigmoid", "mse", "exponential", 2.0, 1e-3, "bias", 1e-20, 1e-5),
    "exponential, tanh": ("tanh", "mse", "exponential", 1.0, 1e-3, "bias", 1e-25, 1e-5),
}


@pytest.mark.parametrize("row", ROWS)
def test_gradients_of_a_trained_neuron_have_the_exponents_of_the_table(row: str) -> None:
    activation, loss, data, scale, decay, of, low, high = ROWS[row]
    system = Neurons(
        n_networks=1_000_000,
        activation=activation,
        loss_of_output=loss,
        data=data,
        scale=scale,
        decay=decay,
    )
    state = trained(system)
    by_weight, by_bias = system.gradients(state)
    w = float(state.weight[0, 0, 0])
    expected = exact.gradient_exponents(activation, loss, data, scale, w)[of]
    law = fit_power_law((by_bias if of == "bias" else by_weight).abs(), low, high)
    assert law.n > 30_000
    assert law.exponent == pytest.approx(expected, abs=0.01)
    assert law.is_power_law


def test_descent_by_samples_settles_where_training_does() -> None:
    """The mean weight of many networks after steps of a small rate, and that of least loss."""
    given: dict[str, Any] = {
        "loss_of_output": "cross-entropy",
        "data": "exponential",
        "decay": 0.01,
    }
    weight = float(trained(Neurons(n_networks=200_000, **given)).weight[0, 0, 0])
    env = VectorEnv(Neurons(rate=0.05, start=0.0, horizon=10**6, **given), 500, seed=0)
    seen, action = env.reset(), np.zeros((500, 1, 1))
    means = []
    for t in range(8000):
        env.run(action, seen)
        if t >= 4000:
            means.append(env.state.weight.mean())
    assert np.mean(means) == pytest.approx(weight, rel=0.02)
    assert exact.gradient_exponents("linear", "cross-entropy", "gaussian", 1.0, weight) == {}


def test_nothing_of_the_tail_is_lost() -> None:
    """1 - f(z) from a rounded f is 0 from a margin of 37 on; the gradient is not."""
    for activation, loss, expected in (
        ("sigmoid", "mse", math.exp(-120.0)),
        ("tanh", "mse", 8 * math.exp(-240.0)),
        ("linear", "cross-entropy", math.exp(-60.0)),
    ):
        system = Neurons(activation=activation, loss_of_output=loss, data="uniform")
        state = system.initial(Rng.single(0, 1), 1)
        one = torch.ones(1, 1, dtype=F64)
        state = state._replace(weight=60 * one.unsqueeze(-1), x=one, t=one)
        _, by_bias = system.gradients(state)
        assert -float(by_bias) == pytest.approx(expected, rel=1e-9), activation


def test_parameters_are_refused() -> None:
    for parameters, message in (
        ({"loss_of_output": "cross-entropy"}, "needs labels"),
        ({"activation": "sigmoid"}, "needs labels and no hidden"),
        ({"activation": "sigmoid", "data": "uniform", "hidden": 2}, "needs labels and no hidden"),
        ({"activation": "relu"}, "activation='relu' must be one of linear, tanh"),
        ({"rate": 0.0}, "rate=0.0 must be"),
        ({"bias": "maybe"}, "bias='maybe' must be True or False"),
        ({"bias": 2}, "bias=2 must be True or False"),
        ({"hidden": -1}, "hidden=-1 must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            invariantzoo.make_system("neurons-v0", **parameters)


def test_hidden_neurons_can_be_renamed_and_turned() -> None:
    system = Neurons(hidden=2, n_networks=2, activation="tanh")
    state = system.initial(Rng.single(0, 3), 3)
    names = {symmetry.name for symmetry in system.symmetries(state, Rng.single(1, 3))}
    assert names == {
        "flip",
        "relabel networks",
        "relabel hidden neurons",
        "sign of hidden neurons",
    }
