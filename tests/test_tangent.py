"""The map from data to what is trained, and the noise that SGD settles into."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import invariantzoo
from invariantzoo.training.geometry.regimes import covariance, sample_gradients
from invariantzoo.training.geometry.tangent import (
    loss_hessian,
    relative_error,
    stationary_covariance,
    tangent_map,
)

DECAY = 0.1


def clouds(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two Gaussian classes in the plane, and their labels 0 and 1 as numbers [n]."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 2
    spread = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return spread + 2.0 * (2 * label - 1)[:, None] * torch.tensor([1.0, 0.3]), label.double()


def small_net(seed: int = 0, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), activation(), nn.Linear(3, 1)).double()


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Of outputs [m, 1] and targets [m], mean."""
    return nn.functional.binary_cross_entropy_with_logits(output[:, 0], target)


def settled(network: nn.Module, data: tuple[Tensor, Tensor]) -> nn.Module:
    """Trained to where the mean gradient, decay included, is 0."""
    x, y = data
    optimizer = torch.optim.LBFGS(
        network.parameters(),
        max_iter=500,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(network(x), y)
        for p in network.parameters():
            loss = loss + 0.5 * DECAY * p.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return network


def test_a_linear_neuron_by_hand() -> None:
    """(w x - t)^2 / 2: the gradient (w x - t) x changes by 2 w x - t."""
    network = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        network.weight.fill_(1.5)
    x = torch.tensor([[1.0], [-2.0], [0.5], [3.0]], dtype=torch.float64)
    t = torch.tensor([1.0, 0.0, 2.0, -1.0], dtype=torch.float64)
    found = tangent_map(network, lambda y, t: 0.5 * (y[:, 0] - t).square().sum(), (x, t))
    expected = 3 * x[:, 0] - t
    torch.testing.assert_close(found.gradients[:, 0], (1.5 * x[:, 0] - t) * x[:, 0])
    torch.testing.assert_close(found.jacobians[:, 0, 0], expected)
    torch.testing.assert_close(found.predicted(0.1)[0, 0], 0.01 * expected.square().mean())
    assert found.labels.tolist() == [1, 0, 1, 0]


def test_noise_of_any_precision_is_taken() -> None:
    """A covariance of samples is in float64, of networks in float32 too."""
    inputs, labels = clouds(40)
    found = tangent_map(small_net().float(), cross_entropy, (inputs.float(), labels.float()))
    same = found.predicted(0.3**2 * torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(found.predicted(0.3), same)
    assert found.predicted(covariance(inputs)).shape == (13, 13)


def test_predicted_and_measured_around_every_sample() -> None:
    """Noise of .03 on the data: the map holds to a few per cent; at 1 it does not."""
    data = clouds(200)
    network = settled(small_net(), data)
    here = tangent_map(network, cross_entropy, data)
    errors = {}
    for noise in (0.03, 1.5):
        # Four points around every sample that have the covariance of the noise exactly.
        ways = noise * 2**0.5 * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        changes = [
            sample_gradients(network, cross_entropy, data[0] + way, data[1]) - here.gradients
            for way in ways.double()
        ]
        change = torch.cat(changes)
        errors[noise] = relative_error(change.T @ change / len(change), here.predicted(noise))
    assert errors[0.03] < 0.02
    assert errors[1.5] > 0.2


def test_one_point_for_a_class_fails_where_the_net_bends() -> None:
    data = clouds(400)
    network = settled(small_net(), data)
    found = tangent_map(network, cross_entropy, data)
    assert relative_error(found.predicted_of_class(1), found.measured(1)) > 0.3
    linear = nn.Linear(2, 1).double()
    with torch.no_grad():
        linear.weight.fill_(0.3)
        linear.bias.fill_(0.0)
    flat = tangent_map(linear, lambda y, t: (y[:, 0] * 1.0).sum(), data)
    torch.testing.assert_close(flat.predicted_of_class(1), flat.measured(1))
    with pytest.raises(ValueError, match=r"label=7 must be a class .* of \[0, 1\]"):
        found.measured(7)


def test_the_hessian_of_least_squares() -> None:
    x, t = clouds(50)
    network = nn.Linear(2, 1, bias=False).double()
    found = loss_hessian(network, lambda y, t: 0.5 * (y[:, 0] - t).square().sum(), (x, t))
    torch.testing.assert_close(found, x.T @ x / 50)


def test_the_lyapunov_equation() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(5, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    hessian, noise = a @ a.T / 5 + torch.eye(5), b @ b.T
    found = stationary_covariance(hessian, noise, 0.1, 4)
    step = torch.eye(5) - 0.1 * hessian
    torch.testing.assert_close(found, step @ found @ step.T + 0.01 * noise / 4)
    one = torch.ones(1, 1, dtype=torch.float64)
    assert float(stationary_covariance(one, one, 0.5)) == pytest.approx(0.25 / 0.75)
    with pytest.raises(ValueError, match="rate=3 must be below 2: the Hessian has eigenvalues"):
        stationary_covariance(one, one, 3.0)
    with pytest.raises(ValueError, match=r"rate=0\.1 must be below 0: the Hessian"):
        stationary_covariance(-one, one, 0.1)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid])
def test_what_a_run_of_sgd_does(activation: type[nn.Module]) -> None:
    """Trace of the covariance, five seeds: .93 to 1.05 of the prediction.

    600 chains have an error of 1.4 %, and 250 steps forget the start to 2 %. Sigmoid has one seed:
    it is the same code.
    """
    rate, batch, chains, steps = 0.1, 8, 600, 500
    for seed in range(5 if activation is nn.Tanh else 1):
        x, y = data = clouds(200, seed)
        network = settled(small_net(seed, activation), data)
        noise = covariance(sample_gradients(network, cross_entropy, x, y))
        hessian = loss_hessian(network, cross_entropy, data) + DECAY * torch.eye(len(noise))
        expected = stationary_covariance(hessian, noise, rate, batch)
        weights = {
            name: p.detach().expand(chains, *p.shape).clone()
            for name, p in network.named_parameters()
        }

        def value(own: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(torch.func.functional_call(network, own, (x,)), y)  # noqa: B023

        slopes = torch.func.vmap(torch.func.grad(value))
        generator, trace = torch.Generator().manual_seed(seed), []
        start = torch.cat([p.flatten(1) for p in weights.values()], 1)[:1]
        for step in range(steps):
            chosen = torch.randint(200, (chains, batch), generator=generator)
            slope = slopes(weights, x[chosen], y[chosen])
            weights = {name: p - rate * (slope[name] + DECAY * p) for name, p in weights.items()}
            if step >= steps // 2 and step % 10 == 0:
                moved = torch.cat([p.flatten(1) for p in weights.values()], 1) - start
                trace.append(float(moved.square().sum(1).mean()))
        ratio = sum(trace) / len(trace) / float(expected.trace())
        assert 0.93 < ratio < 1.05, seed


def test_it_is_public() -> None:
    assert invariantzoo.tangent_map is tangent_map
