"""Dirac fields against what is known exactly: walks, generators, gauge invariance, control."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invariantzoo
from invariantzoo import Player, Rng, Torus, VectorEnv, make_policy
from invariantzoo.envs.core.observation import flatten
from invariantzoo.envs.dirac import wilson
from invariantzoo.envs.dirac.control import Steering, World, plan
from invariantzoo.envs.dirac.descent import differentiable_step
from invariantzoo.envs.dirac.state import as_spinor
from invariantzoo.envs.dirac.steer import DiracSteer
from invariantzoo.envs.dirac.walk import (
    Spinor,
    frequency,
    gauge_lines,
    gauge_transformed,
    packets,
    positive_branch,
    step_matrix,
    velocity,
    walk_step,
)

ANGLE = 0.3
SHAPES = pytest.mark.parametrize("shape", [(24,), (10, 12)])
SMALL: list[dict[str, Any]] = [
    {"side": 12, "width": 1.5, "task": "random", "horizon": 5},
    {"dimensions": 2, "side": 8, "width": 1.0, "task": "random", "horizon": 5},
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_field(lattice: Torus, seed: int = 0) -> Spinor:
    parts = normal(2, 2, 1, lattice.n_sites, seed=seed)
    return Spinor(*torch.complex(parts[0], parts[1]).unbind(0))


def random_links(lattice: Torus, seed: int = 1) -> Tensor:
    return normal(1, lattice.dimension * lattice.n_sites, seed=seed)


def norm(psi: Spinor) -> float:
    return float((psi.u.abs() ** 2 + psi.d.abs() ** 2).sum())


def distance(one: Spinor, other: Spinor) -> float:
    return max(float((one.u - other.u).abs().max()), float((one.d - other.d).abs().max()))


def wave(lattice: Torus, wave_number: np.ndarray, spinor: np.ndarray) -> Spinor:
    """spinor exp(i k x) on every site."""
    phase = np.exp(1j * lattice.coordinates().numpy() @ wave_number)
    return Spinor(*(torch.from_numpy(c * phase)[None] for c in spinor))


# The walk


@SHAPES
def test_the_norm_stays_one(shape: tuple[int, ...]) -> None:
    lattice = Torus(shape)
    psi, first = random_field(lattice), norm(random_field(lattice))
    for t in range(200):
        psi = walk_step(lattice, psi, random_links(lattice, t), ANGLE)
    assert abs(norm(psi) / first - 1) < 1e-12


@SHAPES
def test_nothing_outruns_light(shape: tuple[int, ...]) -> None:
    lattice, steps, start = Torus(shape), 4, 5
    u = torch.zeros(1, lattice.n_sites, dtype=torch.complex128)
    u[0, start] = 1
    psi = Spinor(u, u.clone())
    for t in range(steps):
        psi = walk_step(lattice, psi, random_links(lattice, t), ANGLE)
    side = torch.tensor(shape)
    away = (lattice.coordinates() - lattice.coordinates()[start] + side // 2) % side - side // 2
    outside = (away.abs() > steps).any(-1)
    assert outside.any()
    assert not psi.u[0, outside].any()
    assert not psi.d[0, outside].any()
    assert psi.u[0, ~outside].any()


@SHAPES
def test_dispersion_of_the_walk(shape: tuple[int, ...]) -> None:
    """Plane waves of the positive branch turn by the frequency of the closed form."""
    lattice = Torus(shape)
    k = 2 * np.pi * np.array([2, 3][: len(shape)]) / shape
    c, s = math.cos(ANGLE), math.sin(ANGLE)
    closed = c * np.cos(k).prod() + (s * np.sin(k).prod() if len(shape) == 2 else 0.0)
    assert math.cos(float(frequency(k, ANGLE))) == pytest.approx(closed, abs=1e-15)
    psi = wave(lattice, k, positive_branch(k, ANGLE) @ np.array([1.0, 0.4]))
    no_field = 0 * random_links(lattice)
    after = walk_step(lattice, psi, no_field, ANGLE)
    turn = np.exp(-1j * frequency(k, ANGLE))
    assert distance(after, Spinor(turn * psi.u, turn * psi.d)) < 1e-14


@pytest.mark.parametrize("dimension", [1, 2])
def test_long_waves_obey_the_dirac_equation(dimension: int) -> None:
    """w^2 = m^2 + k^2 where both are small, to fourth order; the cross term falls with theta."""
    for scale in (0.1, 0.05):
        k = scale * np.array([0.6, 0.8][:dimension])
        squared = float(frequency(k, 0.5 * scale)) ** 2
        error = squared / (0.25 * scale**2 + k @ k)
        assert abs(error - 1) < (0.3 * scale**2 if dimension == 1 else 0.6 * scale)


@SHAPES
def test_a_uniform_field_is_a_product_in_k_space(shape: tuple[int, ...]) -> None:
    """Psi(k) after all steps is the product of W(k - A(t)), an identity without a limit."""
    lattice = Torus(shape)
    force = np.array([0.05, -0.03][: len(shape)])
    psi = random_field(lattice)
    grid = [2 * np.pi * np.fft.fftfreq(side) for side in shape]
    k = np.stack(np.meshgrid(*grid, indexing="ij"), -1)
    axes = tuple(range(len(shape)))
    transformed = np.stack([np.fft.fftn(f.numpy().reshape(shape), axes=axes) for f in psi], -1)
    for t in range(100):
        field = (t + 1) * force
        link = torch.from_numpy(np.repeat(field, lattice.n_sites))[None]
        psi = walk_step(lattice, psi, link, ANGLE)
        transformed = (step_matrix(k - field, ANGLE) @ transformed[..., None])[..., 0]
    expected = [np.fft.ifftn(transformed[..., c], axes=axes).reshape(1, -1) for c in range(2)]
    assert distance(psi, Spinor(*map(torch.from_numpy, expected))) < 1e-12


def test_slow_fields_bring_a_packet_back() -> None:
    """Bloch: after one period a packet is where it was; faster ones leave it by Landau-Zener."""
    returned = []
    for period in (200, 40):
        lattice = Torus((128,))
        start = packets(lattice, ANGLE, 6.0, np.array([[64]]), np.zeros((1, 1)))[0]
        psi = Spinor(*(torch.from_numpy(part)[None] for part in start))
        for t in range(period):
            link = torch.full((1, 128), 2 * math.pi * (t + 1) / period, dtype=torch.float64)
            psi = walk_step(lattice, psi, link, ANGLE)
        product = start[0].conj() * psi.u.numpy()[0] + start[1].conj() * psi.d.numpy()[0]
        returned.append(abs(product.sum()) ** 2)
    assert returned[0] > 0.999
    assert returned[1] < 0.9


def test_zitterbewegung() -> None:
    """At k = 0, |u|^2 - |d|^2 = cos 2 theta t if all began as u."""
    lattice = Torus((8,))
    psi = wave(lattice, np.zeros(1), np.array([1.0, 0.0]))
    for t in range(1, 101):
        psi = walk_step(lattice, psi, torch.zeros(1, 8, dtype=torch.float64), ANGLE)
        difference = psi.u.abs() ** 2 - psi.d.abs() ** 2
        assert float((difference - math.cos(2 * ANGLE * t)).abs().max()) < 1e-12


def test_a_packet_moves_at_its_group_velocity() -> None:
    lattice, k = Torus((128,)), np.array([0.5])
    start = packets(lattice, ANGLE, 6.0, np.array([[40]]), k[None])[0]
    psi = Spinor(*(torch.from_numpy(part)[None] for part in start))
    site = torch.arange(128, dtype=torch.float64)
    places = []
    for _ in range(41):
        places.append(float((site * (psi.u.abs() ** 2 + psi.d.abs() ** 2)).sum()))
        psi = walk_step(lattice, psi, torch.zeros(1, 128, dtype=torch.float64), ANGLE)
    speed = (places[-1] - places[0]) / 40
    assert speed == pytest.approx(float(velocity(k, ANGLE)[0]), rel=0.01)
    assert np.diff(places).std() < 1e-6, "the negative branch would make it tremble"


# Gauge


@SHAPES
def test_the_walk_is_gauge_covariant_in_space_and_time(shape: tuple[int, ...]) -> None:
    lattice = Torus(shape)
    psi, link = random_field(lattice), random_links(lattice)
    chi = normal(12, 1, lattice.n_sites, seed=2)
    other, other_link = gauge_transformed(lattice, psi, link, chi[0])
    for t in range(10):
        potential = normal(1, lattice.n_sites, seed=10 + t)
        link = link + 0.1 * random_links(lattice, 30 + t)
        _, other_link = gauge_transformed(lattice, psi, link, chi[t])
        psi = walk_step(lattice, psi, link, ANGLE, potential)
        turned = potential + chi[t + 1] - chi[t]
        other = walk_step(lattice, other, other_link, ANGLE, turned)
        expected, _ = gauge_transformed(lattice, psi, link, chi[t + 1])
        assert distance(other, expected) < 1e-13


@SHAPES
def test_gauge_lines_lead_back_to_the_centre(shape: tuple[int, ...]) -> None:
    """There a pure gauge field is chi, less what it is at the centre."""
    lattice = Torus(shape)
    centre = torch.tensor([[3, 5][: len(shape)]])
    chi = normal(1, lattice.n_sites)
    _, pure = gauge_transformed(lattice, random_field(lattice), 0 * random_links(lattice), chi)
    here = chi[:, int(lattice.site(centre)[0])]
    assert float((gauge_lines(lattice, pure, centre) - chi + here).abs().max()) < 1e-13


def test_generators_are_gauge_covariant() -> None:
    sites, rng = 8, np.random.default_rng(0)
    time_part, space_part, chi = rng.normal(size=(3, sites))
    turn = np.kron(np.eye(2), np.diag(np.exp(1j * chi)))
    before = wilson.gauged_generator(time_part, space_part, 0.4, 1.0)
    after = wilson.gauged_generator(time_part, space_part + np.roll(chi, -1) - chi, 0.4, 1.0)
    assert np.abs(turn @ before @ turn.conj() - after).max() < 1e-13
    assert np.abs(before + before.conj().T).max() < 1e-15
    zero = np.zeros(sites)
    plain = wilson.dirac_generator(sites, 0.4, 1.0)
    assert np.abs(wilson.gauged_generator(zero, zero, 0.4, 1.0) - plain).max() == 0


def test_which_weight_carries_which_part_of_the_gauge_field() -> None:
    """A_t turns a neuron pair in itself; A_x turns what goes to and comes from a neighbour."""
    rows = wilson.gauge_components()
    by_part = {name: {row[1] for row in rows if row[0] == name} for name in ("A_t", "A_x")}
    assert by_part == {"A_t": {"site -> itself"}, "A_x": {"site -> ahead", "ahead -> site"}}
    assert {row[2] for row in rows} == {"a <- a", "b <- b"}, "without r both components keep apart"
    assert all(row[3].startswith("Im <- Re") for row in rows)
    mixing = {row[2] for row in wilson.gauge_components(1.0) if row[0] == "A_x"}
    assert mixing == {"a <- a", "a <- b", "b <- a", "b <- b"}


# The equation in continuous time


@pytest.mark.parametrize(("term", "modes"), [(0.0, 4), (1.0, 2)])
def test_spectrum_and_doublers(term: float, modes: int) -> None:
    found = np.sort(np.linalg.eigvals(wilson.dirac_generator(16, 0.3, term)).imag)
    exact = wilson.dirac_frequencies(16, 0.3, term)
    assert np.abs(found - exact).max() < 1e-12
    assert (np.abs(np.abs(found) - 0.3) < 1e-9).sum() == modes


def test_cayley_steps() -> None:
    """The norm stays, and waves turn by 2 atan(w dt / 2)."""
    field = normal(32).numpy()
    step = wilson.cayley_step(wilson.dirac_generator(16, 0.3, 1.0), 0.2)
    phases = np.sort(np.angle(np.linalg.eigvals(step)))
    exact = np.sort(wilson.cayley_phase(wilson.dirac_frequencies(16, 0.3, 1.0), 0.2))
    assert np.abs(phases - exact).max() < 1e-12
    first = np.linalg.norm(field)
    for _ in range(1000):
        field = step @ field
    assert abs(np.linalg.norm(field) / first - 1) < 1e-11


@pytest.mark.parametrize("term", [0.0, 1.0])
def test_a_symmetric_factor_breaks_the_norm(term: float) -> None:
    ratios = []
    for symmetric_mass in (False, True):
        generator = wilson.dirac_generator(32, 0.3, term, symmetric_mass=symmetric_mass)
        field = first = normal(64).numpy()
        step = wilson.cayley_step(generator, 0.2)
        for _ in range(100):
            field = step @ field
        ratios.append(np.linalg.norm(field) / np.linalg.norm(first))
    assert abs(ratios[0] - 1) < 1e-12
    assert ratios[1] > 10


# Steering


def start(system: DiracSteer, worlds: int = 1) -> Any:
    return system.initial(Rng.single(0, worlds), worlds)


@pytest.mark.parametrize("parameters", SMALL)
def test_the_gradient_of_control_is_that_of_torch(parameters: dict[str, Any]) -> None:
    system: Any = invariantzoo.make_system("dirac-steer-v0", **parameters)
    state = first = start(system)
    action = normal(5, system.n_agents).tanh().requires_grad_()
    total = torch.zeros(1, dtype=torch.float64)
    for t in range(5):
        chosen = action[t][None, :, None]
        after = system.transition(state, chosen, Rng.single(0, 1))
        total = total + system.loss(state, chosen, after)[:, 0]
        state = after
    (expected,) = torch.autograd.grad(total.sum(), action)
    world = World(*(array.numpy()[0] for array in first))
    value, gradient = Steering(system.problem, world).loss(action.detach().numpy())
    assert value == pytest.approx(float(total.detach()), abs=1e-14)
    assert np.abs(gradient - expected.numpy()).max() < 1e-14
    assert np.abs(gradient).max() > 1e-4


def test_the_compiled_gradient_of_a_step_is_that_of_torch() -> None:
    """Through observations, walk and links, over several steps of a policy that looks."""
    system: Any = invariantzoo.make_system("dirac-steer-v0", **SMALL[0])
    first, weights = start(system, 3), normal(4, 3, 12, 12, seed=4)
    found = []
    for compiled in (True, False):
        action = normal(4, 3, 12, 1, seed=3).tanh().requires_grad_()
        state, total = first, torch.zeros((), dtype=torch.float64)
        seen = flatten(system, system.invariants(state))
        for t in range(4):
            chosen = action[t] + 0.1 * seen.sum(-1, keepdim=True).tanh()
            if compiled:
                state, seen = differentiable_step(system, state, chosen)
            else:
                state = system.transition(state, chosen, Rng.single(0, 3))
                seen = flatten(system, system.invariants(state))
            total = total + (weights[t] * seen).sum()
        total = total + system.fidelity(state).sum()
        found.append((float(total.detach()), torch.autograd.grad(total, action)[0]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-12)
    assert float((found[0][1] - found[1][1]).abs().max()) < 1e-12
    assert float(found[1][1].abs().max()) > 0.1


@pytest.mark.parametrize("task", ["stop", "turn", "carry"])
def test_optimal_control_reaches_the_target(task: str) -> None:
    """Every richer set of fields does better, and fields in each link nearly reach it."""
    system: Any = invariantzoo.make_system("dirac-steer-v0", task=task)
    state, reached = start(system), {}
    for policy in system.fused:
        _, records = system.rollout(state, policy, 48, Rng.single(0, 1), 48)
        reached[policy] = float(records["fidelity"][0, 0])
        assert float(records["norm_error"][0, 0]) < 1e-12
    assert reached["grape"] >= 0.99
    assert reached["uniform"] >= 0.9
    assert reached["none"] <= reached["constant"] + 1e-9
    assert reached["constant"] < reached["uniform"] < reached["grape"]


def test_control_is_the_same_step_by_step_and_fused() -> None:
    """Whether the policy is asked in every step or the rollout is compiled; to 1e-12."""
    system: Any = invariantzoo.make_system("dirac-steer-v0", **SMALL[0])
    env, fused = (VectorEnv(system, 3, seed=5, autoreset=False) for _ in range(2))
    player, observation = Player(env, make_policy("grape", system)), env.reset()
    fused.reset()
    records, rewards = fused.rollout("grape", 5, every=1), []
    for _ in range(5):
        step = player.step(observation)
        observation = step.observation
        rewards.append(step.reward[:, 0])
    for name, value in env.state._asdict().items():
        np.testing.assert_allclose(value, getattr(fused.state, name), atol=1e-12)
    np.testing.assert_allclose(-np.array(rewards), records["loss"], atol=1e-12)
    for name, value in env.episode_metrics().items():
        np.testing.assert_allclose(value, fused.episode_metrics()[name], atol=1e-12)


def test_control_cannot_be_bettered_nearby() -> None:
    """No small change of all fields lowers the loss of optimal control by more than it left."""
    system: Any = invariantzoo.make_system("dirac-steer-v0", **SMALL[0])
    world = World(*(array.numpy()[0] for array in start(system)))
    action = plan(system.problem, start(system), "grape")[0]
    steering = Steering(system.problem, world)
    least, rng = steering.loss(action)[0], np.random.default_rng(0)
    for _ in range(20):
        changed = np.clip(action + 0.05 * rng.normal(size=action.shape), -1, 1)
        assert steering.loss(changed)[0] > least


def test_a_target_is_reached_by_who_stands_on_it() -> None:
    """The fidelity of a target with itself is 1, in any gauge."""
    for parameters in SMALL:
        system: Any = invariantzoo.make_system("dirac-steer-v0", **parameters)
        state = start(system, 2)
        state = state._replace(u=state.target_u, d=state.target_d)
        chi = normal(2, system.lattice.n_sites)
        psi, link = gauge_transformed(system.lattice, as_spinor(state), state.link, chi)
        u, d = torch.view_as_real(psi.u), torch.view_as_real(psi.d)
        for other in (state, state._replace(u=u, d=d, link=link)):
            assert float((system.fidelity(other) - 1).abs().max()) < 1e-13


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"side": 5}, "side=5 must be 0 or even"),
        ({"dimensions": 3}, "dimensions=3"),
        ({"task": "stopp"}, "did you mean 'stop'"),
        ({"angle": 0.0}, "angle=0.0"),
        ({"angle": math.pi / 2, "dimensions": 2}, "must be below pi / 2 in two dimensions"),
        ({"max_field": -1.0}, "max_field=-1.0"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        invariantzoo.make_system("dirac-steer-v0", **parameters)
