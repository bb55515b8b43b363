"""Klein-Gordon fields against what is known exactly."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invariantzoo
from invariantzoo import Player, VectorEnv, evaluate, make_policy
from invariantzoo.envs.core.physics.lattice import largest_step
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.klein_gordon import boundary, field, rollout
from invariantzoo.envs.klein_gordon.absorber import KleinGordonAbsorber
from invariantzoo.envs.klein_gordon.force import FieldState, KleinGordonForce, exact_kick
from invariantzoo.figures import klein_gordon_absorber as learning

SIZES = {1: 64, 2: 32, 3: 16}
FORCE = "klein-gordon-force-v0"


def moved(system: KleinGordonForce, state: FieldState, steps: int) -> FieldState:
    """The state so many exact steps later."""
    return system.rollout(state, "leapfrog", steps, Rng.single(0, len(state.phi)), steps)[0]


def system_of(**parameters: Any) -> KleinGordonForce:
    made = invariantzoo.make_system(FORCE, **parameters)
    assert isinstance(made, KleinGordonForce)
    return made


# The lattice


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_plane_waves_stay_plane(dimension: int) -> None:
    """They turn by the frequency that the dispersion relation of the step says."""
    mass, dt, size, steps = 0.5, 0.25, SIZES[dimension], 2000
    system = system_of(dimensions=dimension, lattice_size=size, mass=mass, dt=dt)
    whole = torch.tensor([3, 5, 2][:dimension])
    k = 2 * math.pi * whole.double() / size
    w = field.frequency(k, mass, 1.0, dt)
    place = system.lattice.coordinates().double() @ k

    def wave(n: int) -> Tensor:
        return torch.cos(place - w * n * dt)[None]

    state = system.initial(Rng.single(0, 1), 1)._replace(
        phi=wave(0), momentum=(wave(0) - wave(-1)) / dt
    )
    after = moved(system, state, steps)
    assert (after.phi - wave(steps)).abs().max() < 5e-12
    wrong = torch.cos(place - (k.square().sum() + mass**2).sqrt() * steps * dt)
    assert (after.phi - wrong).abs().max() > 0.01  # the continuum's frequency does not do


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_step_is_stable_up_to_its_limit(dimension: int) -> None:
    limit = largest_step(0.5, 1.0, dimension)
    assert limit == pytest.approx([0.9701, 0.6963, 0.5714][dimension - 1], abs=5e-5)
    with pytest.raises(ValueError, match="where the waves blow up"):
        system_of(dimensions=dimension, dt=limit)
    system = system_of(dimensions=dimension, lattice_size=8)
    start = system.initial(Rng.single(0, 1), 1)
    for factor, grows in ((0.999, False), (1.001, True)):
        state = start._replace(dt=torch.full((1, 1), factor * limit, dtype=torch.float64))
        largest = moved(system, state, 3000).phi.abs().max()
        assert largest > 1e50 if grows else largest < 1e2


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_light_cones_are_round_as_the_lattice_becomes_fine(dimension: int) -> None:
    """The error of w^2 = k^2 + m^2 is -sum k^4 / 12, sixteen times less at half the k."""

    def error(k: float) -> float:
        number = torch.full((dimension,), k, dtype=torch.float64)
        w = float(field.frequency(number, 0.5, 1.0, 1e-5))
        return (w**2 - dimension * k**2 - 0.25) / (-dimension * k**4 / 12)

    assert 0.99 < error(0.4) < 1.0
    assert 15.9 < 16 * error(0.4) / error(0.2) < 16.0


def test_massless_waves_move_a_site_a_step_where_the_step_is_the_spacing() -> None:
    system = system_of(lattice_size=40, mass=0.0)
    shape = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 40)))
    state = system.initial(Rng.single(0, 1), 1)._replace(
        phi=shape, momentum=shape - shape.roll(-1, 1), dt=torch.ones(1, 1, dtype=torch.float64)
    )
    assert (moved(system, state, 7).phi - shape.roll(7, 1)).abs().max() < 1e-13
    assert (moved(system, state, 40).phi - shape).abs().max() < 1e-12


def test_time_can_be_turned_round() -> None:
    system = system_of(dimensions=2, lattice_size=12)
    start = system.initial(Rng.single(0, 2), 2)
    there = moved(system, start, 400)
    turned = there._replace(phi=there.phi - there.dt * there.momentum, momentum=-there.momentum)
    back = moved(system, turned, 400)
    assert (back.phi - back.dt * back.momentum - start.phi).abs().max() < 1e-12
    assert (there.phi - start.phi).abs().max() > 0.1


@pytest.mark.parametrize(("precision", "most"), [("float64", 1e-13), ("float32", 5e-5)])
def test_the_exact_policy_conserves_q(precision: str, most: float) -> None:
    """The figures that `evaluate` prints are those of the state's precision."""
    system = system_of(horizon=10_000, precision=precision)
    scores = evaluate(
        system, make_policy("leapfrog", system), episodes=2, seeds=1, deterministic=False
    )
    assert scores["band"].max() < most
    assert scores["drift"].max() < most
    assert scores["loss"].max() == 0.0
    env = VectorEnv(system, 2, seed=2**31)  # step by step, by actions
    player, observation = Player(env, make_policy("leapfrog", system)), env.reset()
    for _ in range(100):
        observation = player.step(observation).observation
    assert env.episode_metrics()["band"].max() < most


def test_forms_of_a_rollout_are_one_law() -> None:
    """Steps one by one, slab by slab, several in a sweep, and many lattices side by side."""
    rng = np.random.default_rng(1)
    for dimension, size in ((1, 32), (2, 20), (3, 17)):
        system = system_of(dimensions=dimension, lattice_size=size, mass=(0.0, 1.0))
        state = system.initial(Rng.single(3, 20), 20)
        many = moved(system, state, 9).phi
        one = moved(system, type(state)(*(part[4:5] for part in state)), 9).phi
        assert (many[4:5] - one).abs().max() < 1e-14
        plain = type(state)(*(part[4:5] for part in state))
        for _ in range(9):
            kick = exact_kick(plain, system.lattice).unsqueeze(-1)
            plain = system.transition(plain, kick, Rng.single(0, 1))
        assert (plain.phi - one).abs().max() < 1e-13
        if dimension > 1:
            rows = size ** (dimension - 2)
            start = rng.normal(size=(2, size * rows, size))
            sweeps = []
            for depth in (1, 2, 4):
                phi, momentum = start.copy()
                kept = rollout.kept_rows(rows, size, depth, phi.dtype)
                rollout.sweep(phi, momentum, kept, dimension, 0.1, 0.5, 0.2, 9, depth)
                sweeps.append(np.concatenate([phi, momentum]))
            assert np.array_equal(sweeps[0], sweeps[1])
            assert np.array_equal(sweeps[0], sweeps[2])


@pytest.mark.parametrize("worlds", [1, 70])
@pytest.mark.parametrize(("dimension", "size"), [(1, 33), (2, 21), (3, 9)])
def test_a_rollout_weighs_what_it_has_made(worlds: int, dimension: int, size: int) -> None:
    """Q, in one lattice by rows and in many side by side."""
    system = system_of(dimensions=dimension, lattice_size=size, mass=(0.2, 1.0), spacing=0.8)
    start = system.initial(Rng.single(1, worlds), worlds)
    after = type(start)(*(part.clone() for part in start))
    arrays = type(start)(*(part.numpy() for part in after))
    energy = rollout.advance(arrays, size, dimension, 1.0, 7)
    pull = field.force(after.phi, after.mass, after.spacing, system.lattice)
    wanted = field.conserved_energy(after.phi, after.momentum, pull, after.dt)
    assert np.allclose(energy, wanted[:, 0], rtol=1e-12, atol=0)
    assert (after.phi - start.phi).abs().max() > 0.01


# The loss


def test_a_rollout_without_kicks_loses_what_its_steps_do() -> None:
    """Also where a record stands for several steps: then it is the loss of the last of them."""
    system = system_of(dimensions=2, lattice_size=6, mass=(0.2, 1.0), dt=(0.1, 0.3), horizon=6)
    env = VectorEnv(system, 3, seed=7)
    player, observation, losses = Player(env, make_policy("none", system)), env.reset(), []
    for _ in range(6):
        step = player.step(observation)
        observation = step.observation
        losses.append(-step.reward.mean(1))
    for every in (1, 3):
        env.reset(7)
        found = env.rollout("none", 6, every=every)["loss"]
        np.testing.assert_allclose(found, losses[every - 1 :: every], rtol=1e-11)


def random_state(system: KleinGordonForce) -> FieldState:
    return system.initial(Rng.single(5, 3), 3)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_gradient_of_the_local_loss_is_the_force(dimension: int) -> None:
    system = system_of(dimensions=dimension, lattice_size=6, spacing=0.8)
    state = random_state(system)
    phi = state.phi.clone().requires_grad_()
    losses = field.local_loss(phi, state.mass, state.spacing, system.lattice)
    force = field.force(state.phi, state.mass, state.spacing, system.lattice)
    for site in (0, 3):
        (gradient,) = torch.autograd.grad(losses[:, site].sum(), phi, retain_graph=True)
        assert (gradient[:, site] + force[:, site]).abs().max() < 1e-13


def test_the_regret_is_the_probe_of_the_local_loss_and_the_exact_kick_has_none() -> None:
    """a dV/dphi + a^2 / 2 dt less its least value; no other kick has less."""
    system = system_of(dt=(0.1, 0.3))
    state = random_state(system)
    exact = exact_kick(state, system.lattice)
    rng = np.random.default_rng(0)
    for size in (0.0, 1e-3, 0.1):
        kick = exact + size * torch.from_numpy(rng.normal(size=exact.shape))
        after = system.transition(state, kick.unsqueeze(-1), Rng.single(0, 3))
        regret = system.loss(state, kick.unsqueeze(-1), after)
        slope = -exact / state.dt
        probe = kick * slope + kick**2 / (2 * state.dt)
        least = exact * slope + exact**2 / (2 * state.dt)
        assert (regret - (probe - least)).abs().max() < 1e-13
        assert (regret.min() > 0) == (size > 0)


def test_without_the_least_value_pumping_energy_would_pay() -> None:
    """The sum of a dV/dphi + a^2 / 2 dt falls as agents push along with the momentum."""
    system = system_of(mass=0.5, dt=0.2)
    sums = []
    for share in (0.0, 0.01, 0.05, 0.1):
        state, probes, regrets = random_state(system), 0.0, 0.0
        for _ in range(200):
            exact = exact_kick(state, system.lattice)
            kick = exact + share * state.dt * state.momentum
            probes += float((kick * (kick / 2 - exact) / state.dt).mean())
            after = system.transition(state, kick.unsqueeze(-1), Rng.single(0, 3))
            regrets += float(system.loss(state, kick.unsqueeze(-1), after).mean())
            state = after
        sums.append((probes, regrets))
    probes, regrets = zip(*sums, strict=True)
    assert all(later < 1.05 * before for before, later in itertools.pairwise(probes))
    assert probes[3] < 5 * probes[0] < 0  # so at a discount of 1 the trap is deep
    assert regrets[0] == 0.0
    assert all(0 <= before < later for before, later in itertools.pairwise(regrets))


# Boundaries

ABSORBER = "klein-gordon-absorber-v0"
SHORT = {"length": 60, "packets": 3, "horizon": 200}


def absorber_of(**parameters: Any) -> KleinGordonAbsorber:
    made = invariantzoo.make_system(ABSORBER, **parameters)
    assert isinstance(made, KleinGordonAbsorber)
    return made


def reflected(system: KleinGordonAbsorber, name: str) -> tuple[float, float]:
    """Mean and largest over the packets of one world."""
    scores = evaluate(system, make_policy(name, system), episodes=1, seeds=1, deterministic=False)
    return float(scores["reflected"].mean()), float(scores["reflected_worst"].mean())


@pytest.mark.parametrize(
    "parameters",
    [{"mass": 0.0}, {"mass": 0.5}, {"dimensions": 2, "width": 6, "length": 30, "horizon": 120}],
)
def test_the_exact_memory_is_the_open_lattice(parameters: dict[str, Any]) -> None:
    """Nothing comes back but rounding, and nothing else is as good."""
    system = absorber_of(**{**SHORT, **parameters})
    scores = evaluate(
        system, make_policy("kernel", system), episodes=2, seeds=1, deterministic=False
    )
    assert scores["reflected_worst"].max() < 1e-25
    assert scores["loss"].max() < 1e-28
    for other in ("taps", "higdon", "mur", "pml", "sponge", "wall"):
        assert reflected(system, other)[0] > 1e-12
    state = system.initial(Rng.single(2, 2), 2)
    exact = (system.open_values(state) - system.mur_values(state)) / system.reach
    for size in (1e-6, 1e-2):
        off = size * torch.from_numpy(np.random.default_rng(0).normal(size=exact.shape))
        action = (exact + off).unsqueeze(-1)
        after = system.transition(state, action, Rng.single(2, 2))
        worse = system.loss(state, action, after)
        assert (worse - (system.reach * off) ** 2).abs().max() < 1e-12 * size + 1e-16


def test_massless_waves_at_a_site_a_step_need_one_tap() -> None:
    memory = boundary.exact_memory(np.zeros(1), 1.0, 50)[:, 0]
    assert memory[0] == 1.0
    assert np.abs(memory[1:]).max() == 0.0


@pytest.mark.parametrize(
    ("mass", "law", "mean", "largest"),
    [
        (0.0, "mur", 1.5e-3, 5.9e-3),
        (0.0, "higdon", 6.1e-6, 3.7e-5),
        (0.5, "mur", 4.0e-2, 2.2e-1),
        (0.5, "higdon", 7.0e-3, 5.9e-2),
    ],
)
def test_known_laws_reflect_what_is_known(
    mass: float, law: str, mean: float, largest: float
) -> None:
    """Simulated, and by the formula for R over the spectrum of the packets."""
    system = absorber_of(mass=mass)
    found = reflected(system, law)
    assert found == pytest.approx((mean, largest), rel=0.2)
    if mass == 0.0:  # all waves reach the boundary
        taps = boundary.mur(0.5) if law == "mur" else boundary.higdon((1.0, 1.0), 0.5)
        k = np.linspace(0.01, 2.0, 800)
        squared = np.abs(boundary.reflection(taps, k, np.zeros_like(k), 0.5)) ** 2
        means = []
        for centre in np.linspace(0.2, 1.2, 11):
            weight = (np.sin(k / 2) * np.exp(-0.5 * (12.0 * (k - centre)) ** 2)) ** 2
            means.append((weight * squared).sum() / weight.sum())
        assert found[0] == pytest.approx(np.mean(means), rel=0.03)


@pytest.mark.parametrize(("mass", "mean"), [(0.0, 2e-9), (0.5, 2e-4)])
def test_the_best_taps_are_stable_and_best(mass: float, mean: float) -> None:
    taps = np.array(boundary.best_taps(mass, 0.5, False))
    assert boundary.growth(taps, np.array([mass**2]), 0.5) <= 1 + 1e-9
    closed = boundary.closed_step(taps, mass**2, 0.5)
    assert np.abs(np.linalg.matrix_power(closed, 100_000)).max() < 10  # nothing grows
    system = absorber_of(mass=mass)
    assert reflected(system, "taps")[0] < mean
    rng = np.random.default_rng(0)
    k, squared = boundary.sampled_waves(mass, False)
    least = np.mean(np.abs(boundary.reflection(taps, k, squared, 0.5)) ** 2)
    for size in (1e-4, 1e-2):
        other = taps + size * rng.normal(size=taps.shape)
        assert np.mean(np.abs(boundary.reflection(other, k, squared, 0.5)) ** 2) > least


def test_a_boundary_that_gives_back_more_than_it_got_grows() -> None:
    """The radius of the closed problem says so, and so does the simulation."""
    taps = boundary.mur(0.5) + np.array([0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert boundary.growth(taps, np.zeros(1), 0.5) > 1.01
    assert np.abs(np.linalg.matrix_power(boundary.closed_step(taps, 0.0, 0.5), 5000)).max() > 1e6
    assert boundary.growth(boundary.mur(0.5), np.zeros(1), 0.5) < 1 + 1e-9


def test_two_units_in_turn_are_a_law_that_nothing_grows_under() -> None:
    """Those of Mur's law are Higdon's but for the leak, without which a constant would grow."""
    r = (0.5 - 1) / (0.5 + 1)
    law = learning.two_units(np.array([r, -r, r, -r]))
    assert np.abs(law - boundary.higdon((1.0, 1.0), 0.5)).max() < 5 * learning.LEAK
    squared = boundary.along(8)[1]
    assert boundary.growth(law, squared, 0.5) < 1 - 1e-4
    still = boundary.closed_step(law, 0.0, 0.5)
    assert np.abs(np.linalg.matrix_power(still, 100_000)).max() < 1e-6
    leaky = boundary.closed_step(boundary.higdon((1.0, 1.0), 0.5), 0.0, 0.5)
    assert np.abs(np.linalg.matrix_power(leaky, 100_000)).max() > 1e3


def test_two_units_learn_a_plane_from_their_losses_alone() -> None:
    """They come from anywhere to the same law, and reflect less than Higdon's."""
    system = absorber_of(dimensions=2, length=24, width=8, packets=4, horizon=70)
    laws = [learning.two_units(learning.train_units(system, seed)) for seed in (0, 1)]
    assert np.abs(laws[0] - laws[1]).max() < 0.1
    weights = torch.from_numpy(laws[0] - boundary.mur(0.5)) / system.reach
    scores = evaluate(system, learning.Linear(weights), episodes=1, seeds=1, deterministic=True)
    for other in ("higdon", "mur"):
        assert scores["reflected"].mean() < reflected(system, other)[0]


def test_a_press_plucks_and_keeps_the_energy_exact() -> None:
    """In the first world only; Q counts from there."""
    system = KleinGordonForce(dimensions=2, lattice_size=12, horizon=200)
    env = VectorEnv(system, 2, seed=0)
    player, observation = Player(env, make_policy("leapfrog", system)), env.reset()
    for _ in range(20):
        observation = player.step(observation).observation
    before = env.state.phi.copy()
    env.press(77)
    change = env.state.phi - before
    assert (change[1] == 0).all()
    assert change[0].argmax() == 77
    observation = env.observe()
    for _ in range(150):
        observation = player.step(observation).observation
    assert (env.episode_metrics()["band"] < 1e-12).all()


def test_what_is_conserved_follows_a_parameter_that_is_adjusted() -> None:
    """And the time step stays where waves are stable."""
    system = KleinGordonForce(spacing=0.5, dt=0.2, horizon=400)
    env = VectorEnv(system, 1, seed=0)
    player, observation = Player(env, make_policy("leapfrog", system)), env.reset()
    for name, clicks in (("mass", 4), ("dt", 50), ("mass", 50), ("dt", -50)):
        env.adjust(name, clicks)
        observation = env.observe()
        for _ in range(50):
            observation = player.step(observation).observation
    assert (env.episode_metrics()["band"] < 1e-11).all()
    assert 0 < env.state.dt[0, 0] <= 0.02
    with pytest.raises(ValueError, match="must be below"):
        KleinGordonForce(spacing=0.5, dt=system.live_parameters["dt"].high / 0.94, mass=1.0)
