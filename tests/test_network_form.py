"""A network that activates and learns is a field: equal to it to the last digits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from invariantzoo import Torus
from invariantzoo.envs.core.physics.network_form import (
    dirac_network,
    klein_gordon_network,
    klein_gordon_weights,
)
from invariantzoo.envs.dirac import wilson

STEPS = 200
PAGE = Path(__file__).parent.parent / "docs" / "fields-from-learning.md"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64,), (16, 16), (8, 8, 8)])
def test_a_klein_gordon_field_is_a_network(shape: tuple[int, ...]) -> None:
    """Activation, autograd and SGD at rate 1 beside the stencil of symplectic Euler."""
    lattice, mass, dt = Torus(shape), 0.5, 0.25
    phi, momentum = normal(2, lattice.n_sites).unbind(0)
    network = klein_gordon_network(klein_gordon_weights(lattice, mass), dt)
    neurons, bias = phi, momentum
    for _ in range(STEPS):
        neurons, bias = network.step(neurons, bias)
        phi = phi + dt * momentum
        laplacian = lattice.neighbour_sum(phi[None])[0] - 2 * lattice.dimension * phi
        momentum = momentum - dt * (mass**2 * phi - laplacian)
    scale = float(phi.abs().max())
    assert float((neurons - phi).abs().max()) < 1e-12 * scale
    assert float((bias - momentum).abs().max()) < 1e-12 * scale


@pytest.mark.parametrize("shape", [(12,), (4, 5), (3, 4, 5)])
def test_the_weights_of_a_klein_gordon_field_are_symmetric(shape: tuple[int, ...]) -> None:
    weights = klein_gordon_weights(Torus(shape), 0.5, 0.5)
    assert torch.equal(weights, weights.T)
    assert float(torch.linalg.eigvalsh(weights)[0]) == pytest.approx(0.25)


def moved(field: Tensor, mass: float, term: float) -> Tensor:
    """The Dirac generator on (a, b) [2, sites] by its stencil."""
    half = [0.5 * (f.roll(-1) - f.roll(1)) for f in field]
    masses = [(mass + term) * f - 0.5 * term * (f.roll(-1) + f.roll(1)) for f in field]
    return torch.stack([masses[1] - half[0], half[1] - masses[0]])


@pytest.mark.parametrize("term", [0.0, 1.0])
def test_a_dirac_field_is_a_network(term: float) -> None:
    """x + b goes by the generator; learning brings in W where the gradient has -W^T."""
    sites, mass, dt = 16, 0.3, 0.2
    weights = torch.from_numpy(wilson.dirac_generator(sites, mass, term))
    assert torch.equal(weights, -weights.T)
    network = dirac_network(weights, dt)
    neurons, trainable = normal(2, 2 * sites).unbind(0)
    x, b = neurons.view(2, sites), trainable.view(2, sites)
    for _ in range(STEPS):
        neurons, trainable = network.step(neurons, trainable)
        x = x + dt * moved(b, mass, term)
        b = b + dt * moved(x, mass, term)
    scale = float(x.abs().max())
    assert float((neurons - x.flatten()).abs().max()) < 1e-12 * scale
    assert float((trainable - b.flatten()).abs().max()) < 1e-12 * scale


def test_with_a_symmetric_factor_the_network_is_no_dirac_field() -> None:
    """Then learning goes against the equation, and the equation itself loses the norm."""
    sites, dt = 16, 0.2
    weights = torch.from_numpy(wilson.dirac_generator(sites, 0.3, symmetric_mass=True))
    network = dirac_network(weights, dt)
    neurons, trainable = normal(2, 2 * sites).unbind(0)
    x, b = neurons, trainable
    first = float(x @ x + b @ b)
    for _ in range(100):
        neurons, trainable = network.step(neurons, trainable)
        x = x + dt * weights @ b
        b = b + dt * weights @ x
    assert float(x @ x + b @ b) > 10 * first
    assert float((neurons - x).abs().max()) > 1
    assert float(neurons @ neurons + trainable @ trainable) < 2 * first


def test_the_page_says_what_its_code_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Its blocks run one after the other; the table of the gauge field is what they print."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    scope: dict[str, object] = {"__name__": "__main__"}
    printed = []
    for code in blocks:
        exec(compile(code, PAGE.name, "exec"), scope)
        printed.append(capsys.readouterr().out)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert printed[3] == shown
    reached = [float(line.split()[1]) for line in printed[4].splitlines()]
    assert reached == sorted(reached)
    assert reached[-1] > 0.9
