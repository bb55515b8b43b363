"""Lennard-Jones clusters: known minima, counted calls, and the energy that is lowered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.clusters.relaxation import GLOBAL_MINIMA, all_pairs, pair_energy
from invariantzoo.envs.clusters.step import energy_and_gradient
from invariantzoo.envs.core.rng import Rng
from invariantzoo.training.search import Attempts, hopping, quench, restarts, starts, with_policy

ID = "cluster-relaxation-v0"


def clusters(n: int) -> Any:
    return invariantzoo.make_system(ID, n_agents=n)


def truncated_octahedron() -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), -1).reshape(-1, 3)
    chosen = (grid.sum(1) % 2 == 1) & ((grid**2).sum(1) <= 5)
    return grid[chosen] * 1.1 / np.sqrt(2)


def icosahedral(shells: int) -> np.ndarray:
    golden = (1 + 5**0.5) / 2
    rows = [(0, a, b) for a in (-1, 1) for b in (-golden, golden)]
    vertices = np.array([np.roll(row, k) for row in rows for k in range(3)], float)
    vertices *= 1.1 / 2
    parts = [np.zeros((1, 3)), vertices]
    if shells == 2:
        gap = np.linalg.norm(vertices[:, None] - vertices, axis=-1)
        pairs = np.argwhere(np.triu(np.isclose(gap, 1.1)))
        parts += [2 * vertices, vertices[pairs[:, 0]] + vertices[pairs[:, 1]]]
    return np.concatenate(parts)


@pytest.mark.parametrize("n", [n for n in GLOBAL_MINIMA if n <= 9])
def test_small_minima_are_found_and_nothing_below(n: int) -> None:
    found = [quench(x).energy for x in starts(clusters(n), 150)]
    assert min(found) == pytest.approx(GLOBAL_MINIMA[n], abs=1e-5)


@pytest.mark.parametrize(
    ("n", "position"),
    [(13, icosahedral(1)), (38, truncated_octahedron()), (55, icosahedral(2))],
)
def test_built_minima_have_the_published_energies(n: int, position: np.ndarray) -> None:
    assert len(position) == n
    assert quench(position).energy == pytest.approx(GLOBAL_MINIMA[n], abs=1e-5)


def test_the_loss_is_the_energy_and_its_gradient_that_of_the_kernel() -> None:
    system = clusters(13)
    shaken = quench(starts(system, 1)[0]).position
    shaken += np.random.default_rng(0).normal(0, 0.02, shaken.shape)
    x = torch.from_numpy(shaken).requires_grad_()
    energy = 0.5 * pair_energy(all_pairs(x[None]).distance).sum()
    energy.backward()
    gradient = np.empty((13, 3))
    found = energy_and_gradient(shaken, gradient)
    assert found == pytest.approx(energy.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-9)


def test_close_pairs_feel_a_tangent_without_a_kink() -> None:
    r = torch.tensor([0.9 - 1e-7, 0.9 + 1e-7], dtype=torch.float64, requires_grad=True)
    pair_energy(r).sum().backward()
    assert float(r.grad[0] - r.grad[1]) == pytest.approx(0, abs=1e-3)  # type: ignore[index]
    zero = pair_energy(torch.zeros(1, dtype=torch.float64))
    assert torch.isfinite(zero).all()


def test_no_atom_moves_farther_than_it_may() -> None:
    system = clusters(7)
    state = system.initial(Rng.single(0, 20), 20)
    action = 2 * Rng.single(1, 20).uniform(20, 7, 9) - 1
    after = system.transition(state, action, None)
    moved = torch.linalg.vector_norm(after.position - state.position, dim=-1)
    assert moved.max() <= system.max_move * (1 + 1e-12)
    assert moved.max() > 0.99 * system.max_move


def test_the_steps_of_a_policy_are_counted() -> None:
    system = clusters(5)
    made = with_policy(system, make_policy("soft", system), 30)
    assert (made.calls > system.horizon).all()
    alone = restarts(system, 30)
    assert 0 < alone.calls.min() < 100


def test_failures_are_counted() -> None:
    found = Attempts(np.array([10.0, 30.0, 20.0]), np.array([True, False, True]))
    assert found.calls_per_hit == 30
    assert Attempts(np.ones(3), np.zeros(3, bool)).calls_per_hit == float("inf")


def test_a_broad_force_hits_more_often_than_restarts() -> None:
    system = clusters(13)
    soft = with_policy(system, make_policy("soft", system), 100)
    assert soft.calls_per_hit < 0.5 * restarts(system, 100).calls_per_hit


def test_hopping_ends_at_a_hit() -> None:
    found = hopping(clusters(7), 5, most=500)
    assert found.hit.all()
    never = hopping(clusters(38), 1, most=2)
    assert not never.hit.any()
