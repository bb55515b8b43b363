"""Discs that act on each other by a field: pair law, conservation, retardation, superposition."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.particles.discs import State as DiscsState
from invariantzoo.envs.particles.field import FieldDiscs, State
from invariantzoo.envs.particles.field_grid import field_momentum, taps

BOX, WIDTH = 16.0, 0.5  # side of the torus, and standard deviation of a cloud
# K1 of its argument, from a table (Abramowitz and Stegun, 9.8).
K1_AT_1, K1_AT_3, K1_AT_4 = 0.6019072302, 0.0401564311, 0.0124834989


def torus(n: int = 2, cells: int = 64, **parameters: Any) -> FieldDiscs:
    """n discs on a torus of side 16."""
    given: dict[str, Any] = {"charge": 1.0, "speed": 0.3, "dt": 0.01} | parameters
    return FieldDiscs(n_agents=n, density=n / BOX**2, cells=cells, **given)


def placed(system: FieldDiscs, position: Tensor, charge: Tensor) -> State:
    """Discs at rest at `position` [worlds, agents, 2] in the field that they make."""
    still, flat = torch.zeros_like(position), torch.full_like(charge, system.radius)
    box = torch.full_like(charge[:, :1], BOX)
    start = DiscsState(position, still, still + 0.1, flat, box)
    return system.at_rest(start, charge, torch.ones_like(box))


def pairs(distance: float, worlds: int = 24) -> Tensor:
    """Places [worlds, 2, 2] of two discs so far apart, at random on the grid and turned."""
    rng = Rng.single(5, worlds)
    first = BOX * rng.uniform(worlds, 2)
    angle = 2 * math.pi * rng.uniform(worlds)
    apart = distance * torch.stack([angle.cos(), angle.sin()], -1)
    return torch.stack([first, (first + apart) % BOX], 1)


def forces(system: FieldDiscs, position: Tensor, charge: Tensor | None = None) -> Tensor:
    """q grad phi [worlds, agents, 2] in the field at rest."""
    charge = torch.ones_like(position[..., 0]) if charge is None else charge
    state = placed(system, position, charge)
    return charge.unsqueeze(-1) * system.reading(state).gradient


def direction(position: Tensor) -> Tensor:
    """From the first disc to the nearest image of the second [worlds, 2]."""
    r = position[:, 1] - position[:, 0]
    r = r - BOX * (r / BOX).round()
    return r / r.norm(dim=-1, keepdim=True)


def law_error(system: FieldDiscs, position: Tensor, exact: Tensor) -> float:
    """Root mean square of the force on the first disc less `exact` [worlds, 2], relative."""
    off = forces(system, position)[:, 0] - exact
    return float((off.square().sum(-1).mean() / exact.square().sum(-1).mean()).sqrt())


def series(position: Tensor, width: float, waves: int = 40) -> Tensor:
    """The force on the first of two clouds of unit charge, by its Fourier series [worlds, 2]."""
    k = 2 * math.pi / BOX * torch.arange(-waves, waves + 1, dtype=torch.float64)
    kx, ky = torch.meshgrid(k, k, indexing="ij")
    k2 = kx**2 + ky**2
    strength = torch.exp(-k2 * width**2) / (k2 + 1) / BOX**2
    r = position[:, 0] - position[:, 1]
    phase = kx * r[:, 0, None, None] + ky * r[:, 1, None, None]
    pull = -strength * phase.sin()
    return torch.stack([(kx * pull).sum((1, 2)), (ky * pull).sum((1, 2))], -1)


def test_weights_of_the_nodes() -> None:
    """They add up to 1, have their mean at the place, and the variance of spline and passes."""
    for order, passes, form in ((1, 0, "energy"), (2, 3, "energy"), (3, 8, "momentum")):
        weights = taps(order, passes, form)
        for f in (0.0, 0.3, 0.9):
            powers = f ** np.arange(order + 1)
            value, slope = weights.value @ powers, weights.slope @ powers
            node = np.arange(len(value)) + weights.first
            away = node - (f - weights.shift)
            spread = passes / 2 + (order + 1) / 12
            assert value.sum() == pytest.approx(1, abs=1e-14)
            assert (value * away).sum() == pytest.approx(0, abs=1e-13)
            assert (slope.sum(), (slope * node).sum()) == pytest.approx((0, 1), abs=1e-13)
            if order > 1:
                assert (value * away**2).sum() == pytest.approx(spread, rel=1e-13)


# The force between two discs


@pytest.mark.parametrize(
    ("distance", "k1", "most"), [(1.0, K1_AT_1, 0.04), (3.0, K1_AT_3, 0.03), (4.0, K1_AT_4, 0.03)]
)
def test_point_charges_attract_with_k1(distance: float, k1: float, most: float) -> None:
    """q q' m K1(m r) / 2 pi; the next image of the torus adds less than 1 % at a distance of 4."""
    position = pairs(distance)
    nearest = k1 / (2 * math.pi)
    exact = nearest * direction(position)
    errors = [
        law_error(torus(cells=cells, form="momentum", order=1, passes=0), position, exact)
        for cells in (32, 64, 128)
    ]
    assert errors[1] < most
    assert errors[2] < 0.015
    assert 2.5 < errors[0] / errors[1] < 6


def test_clouds_attract_as_their_fourier_series_says() -> None:
    position = pairs(3.0)
    exact = series(position, WIDTH)
    errors = []
    for cells in (32, 64, 128):
        passes = round(2 * (WIDTH * cells / BOX) ** 2)
        errors.append(law_error(torus(cells=cells, passes=passes), position, exact))
    assert errors[1] < 0.03
    for coarse, fine in pairwise(errors):
        assert 2.5 < coarse / fine < 6


def test_outside_its_cloud_a_charge_looks_larger() -> None:
    """By exp(m^2 w^2 / 2) for each of the two clouds."""
    width, position = 0.35, pairs(3.0)
    cells = 128
    passes = round(2 * (width * cells / BOX) ** 2)
    width2 = (passes / 2 + 1 / 3) * (BOX / cells) ** 2
    exact = series(position, 1e-6, 150)
    system = torus(cells=cells, passes=passes)
    along = (forces(system, position)[:, 0] * direction(position)).sum(-1)
    bare = (exact * direction(position)).sum(-1)
    assert float((along / bare).mean()) == pytest.approx(math.exp(width2), rel=0.02)


def test_like_charges_attract_and_unlike_ones_repel() -> None:
    position = pairs(2.0)
    unlike = torch.tensor([1.0, -1.0], dtype=torch.float64).expand(len(position), -1)
    for charge, sign in ((torch.ones_like(unlike), 1), (unlike, -1)):
        along = (forces(torus(), position, charge)[:, 0] * direction(position)).sum(-1)
        assert bool((sign * along > 0).all())


def test_self_force() -> None:
    """None in the momentum form, a hundredth of the pair force in the energy form."""
    position = pairs(3.0)
    for form, most in (("momentum", 1e-12), ("energy", 1e-2)):
        system = torus(form=form)
        pair = forces(system, position)
        scale = float(pair[:, 0].norm(dim=-1).mean())
        alone = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(position), -1)
        own = forces(system, position, alone)[:, 0]
        assert float(own.norm(dim=-1).max()) < most * scale
        unbalanced = pair.sum(1).norm(dim=-1)
        assert float(unbalanced.max()) < max(3 * most, 1e-12) * scale


def test_the_trap_of_point_charges() -> None:
    """Without a cloud the self force of the energy form grows as 1 / a; the other has none."""
    position, alone = pairs(3.0), torch.tensor([1.0, 0.0], dtype=torch.float64)
    largest = {}
    for form in ("energy", "momentum"):
        for cells in (32, 64, 128):
            system = torus(cells=cells, order=2, passes=0, form=form)
            own = forces(system, position, alone.expand(len(position), -1))[:, 0]
            largest[form, cells] = float(own.square().sum(-1).mean().sqrt())
    pair = K1_AT_4 / (2 * math.pi)
    assert largest["energy", 32] > pair  # coarse as it is, it is more than what a neighbour does
    assert largest["energy", 64] / largest["energy", 32] == pytest.approx(2, rel=0.2)
    assert largest["energy", 128] / largest["energy", 64] == pytest.approx(2, rel=0.2)
    assert max(largest["momentum", cells] for cells in (32, 64, 128)) < 1e-12


def test_superposition() -> None:
    """The force by three others is the sum of their forces."""
    rng = Rng.single(6, 8)
    position = BOX * rng.uniform(8, 4, 2)
    system, all_of_them = torus(4), torch.ones(8, 4, dtype=torch.float64)
    charge = all_of_them.clone()
    together = system.reading(placed(system, position, charge)).gradient[:, 0]
    apart = torch.zeros_like(together)
    for j in range(4):
        one = torch.zeros_like(charge)
        one[:, j] = 1.0
        apart += system.reading(placed(system, position, one)).gradient[:, 0]
    assert float((together - apart).abs().max()) < 1e-14


@pytest.mark.parametrize("form", ["energy", "momentum"])
def test_the_gradient_that_is_read(form: str) -> None:
    """That of what is read in the energy form; about that in the other."""
    system = torus(form=form)
    state = placed(system, pairs(1.5, 6), torch.ones(6, 2, dtype=torch.float64))
    gradient, h = system.reading(state).gradient, 1e-5
    for axis in range(2):
        step = h * torch.eye(2, dtype=torch.float64)[axis]
        ahead, behind = (
            system.reading(state._replace(position=state.position + sign * step)).value
            for sign in (1, -1)
        )
        change = (ahead - behind) / (2 * h)
        scale = float(gradient.abs().max())
        error = float((change - gradient[..., axis]).abs().max()) / scale
        assert error < 1e-7 if form == "energy" else 1e-7 < error < 0.05


# Motion


def free_motion(system: FieldDiscs, time: float) -> dict[str, float]:
    """Metrics of a run in which nobody acts, the larger of two worlds."""
    env = VectorEnv(system, 2, seed=2, autoreset=False)
    env.reset()
    still = np.zeros((2, system.n_agents, 4), np.float32)
    for _ in range(round(time / system.dt)):
        env.step(still)
    return {name: float(value.max()) for name, value in env.episode_metrics().items()}


def test_energy_is_conserved_to_second_order() -> None:
    """In the energy form, over a time of 100; without a cloud it is not."""
    usual: dict[str, Any] = {"charge": 0.5, "speed": 0.5}
    errors = {dt: free_motion(torus(8, dt=dt, **usual), 100)["energy_error"] for dt in (0.1, 0.05)}
    assert errors[0.05] < 5e-5
    assert 3 < errors[0.1] / errors[0.05] < 5
    points = torus(8, dt=0.1, form="momentum", order=1, passes=0, **usual)
    assert free_motion(points, 25)["energy_error"] > 1e-2


def test_momentum_of_discs_and_field() -> None:
    """The momentum form keeps it to rounding, the energy form to a thousandth or so."""
    assert free_motion(torus(8, dt=0.05, form="momentum"), 20)["momentum"] < 1e-13
    assert 1e-7 < free_motion(torus(8, dt=0.05), 20)["momentum"] < 3e-3


@pytest.mark.parametrize("form", ["energy", "momentum"])
def test_actions_are_accounted_for(form: str) -> None:
    """Energy and momentum change by work and impulse of the actions."""
    system = torus(8, dt=0.01, form=form)
    env = VectorEnv(system, 4, seed=2, autoreset=False)
    env.reset()
    before = env.tensors.energy.clone()
    generator = np.random.default_rng(1)
    held = generator.uniform(-1, 1, (4, 8, 4)).astype(np.float32)
    for _ in range(100):
        env.step(held)
    kinetic = 0.5 * system.inertia * 8 * 0.3**2
    assert float((env.tensors.energy - before).abs().min()) > 0.05 * kinetic
    scores = env.episode_metrics()
    assert scores["momentum"].max() < (1e-13 if form == "momentum" else 3e-3)
    if form == "energy":
        assert scores["energy_error"].max() < 2e-3


def test_time_runs_backwards_as_well() -> None:
    """Velocities and rates reversed, all goes back to where it was."""
    system, worlds = torus(8, dt=0.05), 2
    state = start = system.initial(Rng.single(3, worlds), worlds)
    still = torch.zeros(worlds, 8, 4, dtype=torch.float64)
    for way in range(2):
        for _ in range(50):
            state = system.transition(state, still, None)
        state = state._replace(velocity=-state.velocity, rate=-state.rate)
        moved = float((state.field - start.field).abs().max())
        assert moved > 1e-3 if way == 0 else moved < 1e-12
    off = state.position - start.position
    assert float((off - BOX * (off / BOX).round()).abs().max()) < 1e-11
    assert float((state.field - start.field).abs().max()) < 1e-12


def test_news_travels_a_cell_a_step() -> None:
    """A disc without charge feels exactly nothing of one that appears, until it is reached."""
    system = torus(cells=64, order=1, passes=1, dt=0.1)
    spacing, cells_between = BOX / 64, 20
    position = torch.tensor([[[4.0, 4.0], [4.0 + cells_between * spacing, 4.0]]]).double()
    state = placed(system, position, torch.tensor([[1.0, 0.0]]).double())
    state = state._replace(field=torch.zeros_like(state.field))
    still = torch.zeros(1, 2, 4, dtype=torch.float64)
    # Smoothed once, each of them covers one node to either side of its own.
    reach = cells_between - 1 - 1
    for step in range(1, reach + 4):
        state = state._replace(position=position, velocity=torch.zeros_like(position))
        state = system.transition(state, still, None)
        felt = system.reading(state._replace(position=position)).gradient[0, 1]
        assert bool(felt.any()) == (step > reach), step


def test_the_force_arrives_with_the_speed_of_waves() -> None:
    """Next to nothing at half the time, most of it when the distance is covered."""
    system = torus(cells=128, passes=2, dt=0.05)
    position = torch.tensor([[[4.0, 4.0], [8.0, 4.0]]]).double()
    charge = torch.tensor([[1.0, 0.0]]).double()
    rest = placed(system, position, charge)
    full = float(system.reading(rest).gradient[0, 1].norm())
    state = rest._replace(field=torch.zeros_like(rest.field))
    still, felt = torch.zeros(1, 2, 4, dtype=torch.float64), {}
    for step in range(1, 101):
        state = state._replace(position=position, velocity=torch.zeros_like(position))
        state = system.transition(state, still, None)
        felt[round(step * system.dt, 6)] = float(system.reading(state).gradient[0, 1].norm()) / full
    assert felt[2.0] < 1e-6
    assert felt[3.0] < 0.1
    assert max(felt.values()) > 1
    assert 3.7 < max(felt, key=lambda time: felt[time]) < 4.6


def test_the_field_of_discs_at_rest_stays() -> None:
    """Held in their places, they leave their field as it is."""
    system = torus()
    position = pairs(2.0, 3)
    state = placed(system, position, torch.ones(3, 2, dtype=torch.float64))
    first = state.field.clone()
    still = torch.zeros(3, 2, 4, dtype=torch.float64)
    for _ in range(50):
        state = state._replace(position=position, velocity=torch.zeros_like(position))
        state = system.transition(state, still, None)
    assert float((state.field - first).abs().max()) < 1e-12
    assert not field_momentum(first, torch.zeros_like(first), state.box).any()


# Agents


def driven(name: str, system: FieldDiscs, steps: int) -> VectorEnv:
    """Worlds after so many steps under a policy."""
    env = VectorEnv(system, 4, seed=5, autoreset=False)
    policy, seen = make_policy(name, system), env.reset()
    for _ in range(steps):
        seen = env.step(policy(torch.from_numpy(seen), None).numpy()).observation
    return env


def test_straight_makes_up_for_the_field() -> None:
    """Its discs keep their velocity, those that do nothing do not."""
    errors = {}
    for name in ("none", "straight"):
        state = driven(name, FieldDiscs(), 50).tensors
        errors[name] = float((state.velocity - state.desired).norm(dim=-1).max())
    assert errors["straight"] < 0.02 < 0.1 < errors["none"]


def test_a_social_force_collides_less() -> None:
    system = FieldDiscs()
    straight, social = (
        driven(name, system, 150).episode_metrics()["contacts"].mean()
        for name in ("straight", "social-force")
    )
    assert social < 0.5 * straight


def test_a_narrow_field_is_better_to_drive_by() -> None:
    """Of range 1/3 in small clouds, it keeps the same driver from others, and as fast."""
    narrow = FieldDiscs(cells=30, passes=1, mass=3.0, gain=45.0)
    near, wide = (
        driven("social-force", system, 150).episode_metrics() for system in (narrow, FieldDiscs())
    )
    assert near["contacts"].mean() < 0.4 * wide["contacts"].mean()
    assert near["progress"].mean() > 0.8 * wide["progress"].mean()


def test_yielding_discs_stand_apart() -> None:
    scores = driven("yield", FieldDiscs(), 150).episode_metrics()
    assert scores["contacts"].mean() < 2e-3
    assert abs(scores["progress"].mean()) < 0.1


def test_a_step_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dt=0.2 must be below 0\.17.*: waves on a grid"):
        FieldDiscs(dt=0.2)
    with pytest.raises(ValueError, match="order=4 must be a whole number from 1 to 3"):
        FieldDiscs(order=4)
    with pytest.raises(ValueError, match="form='enrgy' must be one of energy, momentum; did you"):
        FieldDiscs(form="enrgy")
