"""Every driver of discs with goals is a covariant function of the state, in float64."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from invariantzoo.agents.baselines.goals import DRIVERS
from invariantzoo.agents.baselines.guard import Guarded
from invariantzoo.agents.baselines.learned import N_WEIGHTS, Learned
from invariantzoo.agents.baselines.orca import Orca
from invariantzoo.agents.networks.choose import make_network
from invariantzoo.envs.core.observation import flatten
from invariantzoo.envs.core.rng import POLICY, TEST, Rng
from invariantzoo.envs.particles.goal_discs import GoalDiscs
from invariantzoo.envs.particles.goal_state import State
from invariantzoo.envs.particles.goals import Goals

WORLDS = 6


def loud(system: GoalDiscs) -> Any:
    """A learned driver with large random weights: nothing in it is small by training."""
    weights = np.random.default_rng(0).normal(size=(1, N_WEIGHTS))
    return Guarded(Learned(system, weights=weights))


MAKERS = {**DRIVERS, "loud": loud}


@pytest.fixture(scope="module")
def system() -> GoalDiscs:
    return Goals(n_agents=14, cover=0.25)


def moving(system: GoalDiscs) -> State:
    """Discs on their way, some of them at their goals."""
    rng = Rng.single(5, WORLDS)
    state = system.initial(rng, WORLDS)
    velocity = 0.5 * rng.normal(*state.velocity.shape)
    goal = torch.where(
        rng.uniform(WORLDS, system.n_agents, 1) < 0.2, state.position + 0.03, state.goal
    )
    arrival_time = torch.where(rng.uniform(WORLDS, system.n_agents) < 0.3, 1.0, -1.0).double()
    return state._replace(velocity=velocity, goal=goal, arrival_time=arrival_time)


def accelerations(system: GoalDiscs, driver: Any, state: State, noise: bool) -> Tensor:
    observation = flatten(system, system.invariants(state))
    rng = Rng.single(3, WORLDS, POLICY) if noise else None
    return system.acceleration(state, driver(observation, rng))


def quiet(driver: Any) -> Any:
    """The right-hand rule is one of the left hand in a mirror."""
    if isinstance(driver, Orca):
        return dataclasses.replace(driver, right_hand=-driver.right_hand)
    return driver


@pytest.mark.parametrize("name", MAKERS)
def test_drivers_are_covariant(system: GoalDiscs, name: str) -> None:
    state, driver = moving(system), MAKERS[name](system)
    before = accelerations(system, driver, state, noise=True)
    assert float(before.abs().max()) > 1
    for symmetry in system.symmetries(state, Rng.single(8, WORLDS, TEST)):
        seen = symmetry.state
        if symmetry.name == "reflection":
            if name == "loud" or name.startswith("learned"):  # left and right differ
                continue
            after = accelerations(system, quiet(driver), seen, noise=False)
            before = accelerations(system, driver, state, noise=False)
            expected = before * torch.tensor([-1.0, 1.0], dtype=torch.float64)
        elif symmetry.agents is not None:
            after = accelerations(system, driver, seen, noise=False)
            still = accelerations(system, driver, state, noise=False)
            expected = still.gather(1, symmetry.agents[..., None].expand(-1, -1, 2))
        else:
            after = accelerations(system, driver, seen, noise=True)
            expected = before
            if symmetry.name == "rotation":
                expected = turned(state, seen, before)
        limit = 1e-8 if symmetry.name == "boost" else 1e-11  # over dt, of velocities
        error = float((after - expected).abs().max())
        assert error < limit, symmetry.name


def turned(state: State, seen: State, vectors: Tensor) -> Tensor:
    """Vectors [worlds, agents, 2] turned as the positions of the first disc were."""
    a, b = state.position[:, 0], seen.position[:, 0]
    angle = torch.atan2(b[:, 1], b[:, 0]) - torch.atan2(a[:, 1], a[:, 0])
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    x, y = vectors.unbind(-1)
    return torch.stack([c * x - s * y, s * x + c * y], -1)


def test_observations_in_float32_change_little(system: GoalDiscs) -> None:
    state = moving(system)
    observation = flatten(system, system.invariants(state))
    for name, make in MAKERS.items():
        driver = make(system)
        exact, rounded = driver(observation, None), driver(observation.float(), None)
        assert rounded.dtype == torch.float32
        error = (exact - rounded).abs().flatten()
        # a binding half-plane may change with the last digit; nothing else jumps
        assert float(error.quantile(0.99)) < 1e-5 * math.sqrt(system.k), name


def test_the_network_and_its_compiled_form_are_the_same(system: GoalDiscs) -> None:
    """And both are the driver of the same weights; gradients flow to every weight."""
    network: Any = make_network("driver", system, seed=3)
    state = moving(system)
    observation = flatten(system, system.invariants(state))
    parameters = torch.nn.utils.parameters_to_vector(network.parameters()).detach().double()
    network.double()
    slow = network(observation)
    quick = network.population_forward(parameters[None], observation)
    assert float((slow.detach() - quick).abs().max()) < 1e-12
    driver = Learned(system, weights=parameters[None].numpy())
    assert torch.equal(driver(observation, None), quick)
    slow.square().sum().backward()
    assert all(float(weight.grad.abs().max()) > 0 for weight in network.parameters())
