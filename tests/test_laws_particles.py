"""Autonomous particles: pairs, head-on encounters, the gas of straight drivers, first states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from invariantzoo import make_system
from invariantzoo.envs.core.physics.invariants import galilean_pair, time_to_collision
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.particles.crowd import Crowd, gas_collision_rate
from invariantzoo.envs.particles.discs import Discs, State
from invariantzoo.envs.particles.encounter import Encounter
from invariantzoo.figures.brute_force import LaboratoryCrowd, RawCrowd

HEAD_ON: dict[str, Any] = {
    "impact": 0.0,
    "angle": 0.0,
    "orientation": 0.0,
}


def random_pairs(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    rng = Rng.single(seed, n)
    return 3 * rng.normal(n, 2), rng.normal(n, 2)


def settle(system: Discs, worlds: int, seed: int = 3) -> State:
    """A state in which velocities differ from the desired ones."""
    rng = Rng.single(seed, worlds)
    state = system.initial(rng, worlds)
    return state._replace(velocity=state.velocity + 0.3 * rng.normal(*state.velocity.shape))


def coefficients(system: Discs, worlds: int, **values: float) -> Tensor:
    """The action that sets some of A, B, C, D, E, the same for all agents and neighbours."""
    rows = [torch.full((system.k,), values.get(name, 0.0)) for name in system.sight.coefficients]
    row = torch.cat([*rows, torch.tensor([values.get("E", 0.0)])]).double()
    return row.expand(worlds, system.n_agents, -1)


# Invariants of a pair


def test_the_relation_between_the_four() -> None:
    found = galilean_pair(*random_pairs(10000))
    i1, i2, i3, i4 = found.values()
    assert list(found) == ["I1", "I2", "I3", "I4"]
    assert float(((i4**2 - (i1 * i3 - i2**2)) / (i1 * i3)).abs().max()) < 1e-14


def test_the_four_change_as_they_say() -> None:
    """Rotation leaves all, reflection turns I4, exchange of the two discs leaves all."""
    r, u = random_pairs(100)
    before = galilean_pair(r, u)
    angle = torch.tensor(0.7, dtype=torch.float64)
    c, s = angle.cos(), angle.sin()
    turn, mirror = torch.stack([c, -s, s, c]).reshape(2, 2), torch.tensor([1.0, -1.0]).double()
    for after, sign in (
        (galilean_pair(r @ turn.T, u @ turn.T), 1),
        (galilean_pair(r * mirror, u * mirror), -1),
        (galilean_pair(-r, -u), 1),
    ):
        for name, value in before.items():
            expected = sign * value if name == "I4" else value
            torch.testing.assert_close(after[name], expected, rtol=1e-12, atol=1e-12)


def test_time_to_collision_against_motion() -> None:
    """2000 random pairs in straight motion, watched at short intervals."""
    contact, until, steps = 0.5, 40.0, 8000
    r, u = random_pairs(2000)
    outside = (r**2).sum(-1).sqrt() > contact
    r, u = r[outside], u[outside]
    predicted = time_to_collision(*galilean_pair(r, u).values(), contact).numpy()
    times = np.linspace(0, until, steps + 1)
    met = np.full(len(r), np.inf)
    nearest = np.full(len(r), np.inf)
    for t in times:
        distance = np.linalg.norm(r.numpy() + t * u.numpy(), axis=1)
        nearest = np.minimum(nearest, distance)
        met = np.where((distance < contact) & np.isinf(met), t, met)
    speed = np.linalg.norm(u.numpy(), axis=1)
    graze = np.abs(nearest - contact) < speed * until / steps
    hit = np.isfinite(predicted) & (predicted < until)
    assert 100 < hit.sum() < 1900
    assert ((hit == np.isfinite(met)) | graze).all()
    both = hit & np.isfinite(met) & ~graze
    assert (met[both] - predicted[both] >= -1e-9).all()
    assert (met[both] - predicted[both] <= until / steps + 1e-9).all()
    at = r.numpy()[hit] + predicted[hit, None] * u.numpy()[hit]
    np.testing.assert_allclose(np.linalg.norm(at, axis=1), contact, rtol=1e-9)


def test_time_to_collision_against_the_environment() -> None:
    """Straight drivers that meet touch if, and only if, the formula says so."""
    worlds = 2000
    system = Encounter(dt=0.01, horizon=500)
    env = VectorEnv(system, worlds, seed=4)
    env.reset()
    state = env.tensors
    r, u = (part[:, 1] - part[:, 0] for part in (state.position, state.velocity))
    four = galilean_pair(r, u)
    expected = time_to_collision(*four.values(), 2 * system.radius).isfinite().numpy()
    miss = (four["I4"].abs() / four["I3"].sqrt() - 2 * system.radius).abs().numpy()
    action = np.zeros((worlds, 2, *system.action_space.shape), np.float32)
    for _ in range(system.horizon):
        out = env.step(action)
    contact = out.metrics["contact"] > 0
    assert 0.5 < contact.mean() < 0.8
    assert ((contact == expected) | (miss < 1e-3)).all()
    assert (miss < 1e-3).mean() < 0.02


# What the fourth is for


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("seen", [("I1",), ("I1", "I2", "I3")])
def test_without_the_fourth_a_head_on_pair_stays_on_its_line(
    seen: tuple[str, ...], kernel: bool
) -> None:
    """Whatever the coefficients are: not off by a single bit."""
    system = Encounter(**HEAD_ON, seen=seen)
    env = VectorEnv(system, 64, seed=1, kernel=kernel)
    env.reset()
    generator = np.random.default_rng(2)
    for _ in range(40):
        action = generator.uniform(-1, 1, (64, 2, *system.action_space.shape))
        env.step(action.astype(np.float32))
        assert not env.state.position[..., 1].any()
        assert not env.state.velocity[..., 1].any()


@pytest.mark.parametrize("coefficient", ["C", "D"])
def test_with_the_fourth_it_leaves_it(coefficient: str) -> None:
    system = Encounter(**HEAD_ON)
    env = VectorEnv(system, 1, seed=1)
    env.reset()
    for _ in range(20):
        env.step(coefficients(system, 1, **{coefficient: 0.5}).numpy().astype(np.float32))
    off = env.state.position[0, :, 1]
    assert abs(off).min() > 1e-2
    assert off[0] == -off[1]  # both keep to the same hand


def test_along_any_line() -> None:
    """The same in a turned world, to rounding."""
    turned = {**HEAD_ON, "orientation": (0.0, 2 * math.pi)}
    system = Encounter(**turned, seen=("I1", "I2", "I3"))
    env = VectorEnv(system, 64, seed=1)
    env.reset()
    line = env.state.desired[:, 0] / np.linalg.norm(env.state.desired[:, 0], axis=-1)[:, None]
    generator = np.random.default_rng(2)
    for _ in range(40):
        action = generator.uniform(-1, 1, (64, 2, *system.action_space.shape))
        env.step(action.astype(np.float32))
        x = env.state.position
        off = x[..., 0] * line[:, None, 1] - x[..., 1] * line[:, None, 0]
        assert abs(off).max() < 1e-9


# Straight driving


def test_straight_drivers_collide_like_a_gas() -> None:
    system = Crowd(n_agents=24, horizon=200)
    env = VectorEnv(system, 128, seed=6)
    env.reset()
    action = np.zeros((128, 24, *system.action_space.shape), np.float32)
    for _ in range(system.horizon):
        out = env.step(action)
    rate = out.metrics["collisions"]
    assert abs(gas_collision_rate(system) - 0.1464) < 2e-4 * 5
    assert abs(rate.mean() / gas_collision_rate(system) - 1) < 0.1
    assert rate.std(ddof=1) / np.sqrt(128) < 0.02 * rate.mean()
    np.testing.assert_allclose(out.metrics["progress"], 1, rtol=1e-12)


def test_no_action_is_straight_motion() -> None:
    system = Crowd(n_agents=9)
    start = system.initial(Rng.single(1, 3), 3)
    state = start
    for _ in range(5):
        state = system.transition(state, coefficients(system, 3, A=0.0), None)
    assert torch.equal(state.velocity, start.desired)
    travelled = start.position + 0.5 * start.desired
    box = start.box[..., None]
    torch.testing.assert_close(state.position, travelled % box, rtol=0, atol=1e-12)
    assert not system.invariants(state)["speed_error"].any()


# Forces


def test_acceleration_is_limited() -> None:
    for actions in ("pair", "heading"):
        system = Crowd(n_agents=24, actions=actions)
        state = settle(system, 16)
        size = system.action_space.shape[0]
        for scale in (0.01, 1.0):
            action = scale * (2 * Rng.single(1, 16).uniform(16, 24, size) - 1).sign()
            a = system.acceleration(state, action).norm(dim=-1)
            assert float(a.max()) <= system.max_acceleration * (1 + 1e-12)
        assert float(a.max()) > 0.9 * system.max_acceleration


def test_equal_coefficients_obey_the_third_law_and_others_need_not() -> None:
    """Momentum is kept if all agents choose alike and nobody is pulled to its own velocity."""
    system = Crowd(n_agents=8, n_neighbours=7, gain=0.5, max_acceleration=100.0)
    state = settle(system, 16)
    alike = coefficients(system, 16, A=0.3, B=-0.7, C=0.2, D=0.9)
    assert float(system.acceleration(state, alike).abs().max()) > 0.1
    assert float(system.acceleration(state, alike).sum(1).abs().max()) < 1e-13
    one_sided = alike.clone()
    one_sided[:, 0] = 0.0
    for action in (one_sided, coefficients(system, 16, A=0.3, E=0.5)):
        assert float(system.acceleration(state, action).sum(1).abs().max()) > 1e-2


def test_the_desired_velocity_is_restored_at_the_stated_rate() -> None:
    system = Crowd(n_agents=2, density=0.01, max_acceleration=100.0)
    state = settle(system, 8)
    p = state.desired - state.velocity
    a = system.acceleration(state, coefficients(system, 8, E=0.5))
    torch.testing.assert_close(a, 0.5 * system.relaxation * p, rtol=1e-12, atol=1e-12)


def test_forces_fade_at_the_cutoff() -> None:
    """A neighbour that comes into sight changes the acceleration by nothing at first."""
    system = Encounter()
    state = system.initial(Rng.single(1, 1), 1)
    action = coefficients(system, 1, A=1.0, B=1.0, C=1.0, D=1.0)
    sizes = []
    for gap in (0.5, 1e-3, -1e-3):
        place = torch.tensor([[[0.0, 0.0], [system.cutoff - gap, 0.0]]], dtype=torch.float64)
        apart = state._replace(position=place)
        sizes.append(float(system.acceleration(apart, action).abs().max()))
        seen = system.invariants(apart)
        if gap < 0:
            assert seen["I1"].flatten().tolist() == [system.cutoff**2] * 2
            assert not any(seen[name].any() for name in ("I2", "I3", "I4"))
    assert sizes[0] > 0.1
    assert 0 < sizes[1] < 1e-3
    assert sizes[2] == 0


@pytest.mark.parametrize("seen", [("I1", "I2", "I3", "I4"), ("I1",)])
def test_moving_while_the_goal_stands_is_noticed(seen: tuple[str, ...]) -> None:
    """A boost of the velocities but not of the desired ones is no symmetry."""
    system = Crowd(n_agents=6, seen=seen)
    state = settle(system, 4)
    boost = torch.tensor([0.7, -0.2], dtype=torch.float64)
    before = system.invariants(state)
    after = system.invariants(state._replace(velocity=state.velocity + boost))
    assert float((after["speed_error"] - before["speed_error"]).abs().max()) > 0.1
    for name in seen:
        torch.testing.assert_close(after[name], before[name], rtol=1e-12, atol=1e-12)


# Where they start


def closest(position: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The smallest distance of two discs in every world."""
    r = position[:, None] - position[:, :, None]
    box = side[:, :, None, None]
    r = np.where(box > 0, r - box * np.round(r / np.where(box > 0, box, 1)), r)
    distance = np.linalg.norm(r, axis=-1)
    distance[:, np.arange(position.shape[1]), np.arange(position.shape[1])] = np.inf
    return distance.min((1, 2))


def densest(n: int, radius: float) -> float:
    """Discs per area if every one has its own square cell."""
    return n / (2 * radius * math.ceil(math.sqrt(n))) ** 2


@pytest.mark.parametrize("n", [2, 3, 24, 25, 150])
@pytest.mark.parametrize("crowded", [0.05, 0.5, 0.999999])
def test_discs_never_start_in_contact(n: int, crowded: float) -> None:
    radius = 0.25
    system = Crowd(n_agents=n, radius=radius, density=crowded * densest(n, radius))
    state = system.initial(Rng.single(7, 200), 200)
    assert (closest(state.position.numpy(), state.box.numpy()) >= 2 * radius).all()
    inside = (state.position >= 0) & (state.position <= state.box[..., None])
    assert bool(inside.all())
    area = state.box[:, 0] ** 2
    torch.testing.assert_close(n / area, torch.full_like(area, float(system.density)))  # type: ignore[arg-type]


def test_discs_never_start_in_contact_over_a_range() -> None:
    system = Crowd(n_agents=24, density=(0.05, 0.9 * densest(24, 0.25)))
    state = system.initial(Rng.single(8, 500), 500)
    assert (closest(state.position.numpy(), state.box.numpy()) >= 0.5).all()
    assert 24 / float(state.box.max()) ** 2 < 0.2
    assert 24 / float(state.box.min()) ** 2 > 0.7 * densest(24, 0.25)


@pytest.mark.parametrize("n", [2, 24, 150])
def test_more_than_fit_are_refused(n: int) -> None:
    most = densest(n, 0.25)
    Crowd(n_agents=n, density=most * (1 - 1e-9))
    for density in (most * 1.001, (0.1, most * 1.001), 1e6):
        with pytest.raises(ValueError, match="density") as caught:
            Crowd(n_agents=n, density=density)
        assert "\n" not in str(caught.value)
        assert str(n) in str(caught.value)


def test_a_crowd_fills_its_torus_evenly() -> None:
    system = Crowd(n_agents=24)
    state = system.initial(Rng.single(9, 2000), 2000)
    place = (state.position / state.box[..., None]).numpy().reshape(-1, 2)
    direction = torch.atan2(state.desired[..., 1], state.desired[..., 0]).numpy().ravel()
    for values, low, high in (
        (place[:, 0], 0, 1),
        (place[:, 1], 0, 1),
        (direction, -np.pi, np.pi),
    ):
        counts, _ = np.histogram(values, 12, (low, high))
        n = counts.sum()
        assert ((counts - n / 12) ** 2 / (n / 12)).sum() < 11 + 5 * np.sqrt(22)


def test_encounters_are_as_described() -> None:
    system = Encounter()
    state = system.initial(Rng.single(5, 1000), 1000)
    r, u = (part[:, 1] - part[:, 0] for part in (state.position, state.velocity))
    assert float(state.position.sum(1).abs().max()) < 1e-12
    four = galilean_pair(r, u)
    low, high = math.sqrt(3.6**2), math.sqrt(3.6**2 + 0.6**2)
    assert low - 1e-9 <= float(four["I1"].sqrt().min()) <= float(four["I1"].sqrt().max()) <= high
    assert bool((four["I2"] < 0).all())
    for part in state.velocity.unbind(1):
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(1000, dtype=torch.float64))
    between = torch.acos(-(state.velocity[:, 0] * state.velocity[:, 1]).sum(-1).clamp(-1, 1))
    assert float(between.max()) <= 0.3 + 1e-6
    assert float(between.max()) > 0.25
    exact = galilean_pair(
        *(p[:, 1] - p[:, 0] for p in Encounter(**HEAD_ON).initial(Rng.single(5, 3), 3)[:2])
    )
    assert not exact["I4"].any()
    assert exact["I1"].tolist() == [3.6**2] * 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"radius": -0.1}, "radius=-0.1 must be a finite number"),
        ({"n_agents": 1}, "n_agents=1 must be a whole number of at least 2"),
        ({"n_agents": 2.5}, "n_agents=2.5 must be a whole number"),
        ({"dt": 0.0}, "dt=0.0 must be a finite number"),
        ({"dt": float("nan")}, "dt=nan must be a finite number"),
        ({"density": 0.0}, "density=0.0 must be"),
        ({"speed": (2.0, 1.0)}, "speed=.*low <= high"),
        ({"seen": ("I5",)}, "seen='I5' must be one of I1, I2, I3, I4"),
        ({"seen": ()}, "must name at least one of"),
        ({"actions": "pairs"}, "did you mean 'pair'"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Crowd(**parameters)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_agents": 3}, "n_agents=3 must be 2"),
        ({"separation": 0.5}, "separation=0.5 must be above"),
    ],
)
def test_bad_encounters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encounter(**parameters)


# What the scenarios share


@dataclass(frozen=True)
class Heavier(Crowd):
    """A scenario with a loss of its own."""

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return 2 * super().loss(state, action, next_state)


def test_a_scenario_with_laws_of_its_own_takes_no_compiled_form_of_others() -> None:
    system, plain = Heavier(n_agents=3), Crowd(n_agents=3)
    assert system.kernel(1) is None
    assert plain.kernel(1) is not None
    action = np.zeros((2, 3, *plain.action_space.shape), np.float32)
    action[..., -1] = 0.7
    rewards = []
    for world in (system, plain):
        env = VectorEnv(world, 2, seed=4)
        env.reset()
        env.state.velocity[:] += 0.3
        rewards.append(env.step(action).reward.copy())
    np.testing.assert_allclose(rewards[0], 2 * rewards[1], rtol=1e-6)
    assert (rewards[1] < -0.01).all()


def test_former_parameters_of_the_ids_are_taken_where_nothing_changes() -> None:
    crowd = make_system("particles-crowd-v0", layout="crowd", view="invariants", separation=3.0)
    assert crowd == make_system("particles-crowd-v0")
    encounter = make_system("particles-encounter-v0", layout="encounter", density=0.24)
    assert encounter == make_system("particles-encounter-v0")
    with pytest.raises(ValueError, match="view='raw' of particles-crowd-v0 must be 'invariants'"):
        make_system("particles-crowd-v0", view="raw", actions="heading")
    with pytest.raises(ValueError, match="actions='lab' must be one of pair, heading"):
        make_system("particles-crowd-v0", actions="lab")


@pytest.mark.parametrize("cls", [LaboratoryCrowd, RawCrowd])
def test_laboratory_crowds_are_the_crowd_in_other_coordinates(cls: type[Crowd]) -> None:
    """The same worlds and the same step as with a heading, if the accelerations are the same."""
    system, plain = cls(n_agents=6), Crowd(n_agents=6, actions="heading")
    state = settle(system, 5)
    for left, right in zip(state, settle(plain, 5), strict=True):
        assert torch.equal(left, right)
    rng = Rng.single(9, 5)
    action = 0.5 * (2 * rng.uniform(5, 6, 2) - 1)
    a = plain.acceleration(state, action) / system.max_acceleration
    after, expected = system.transition(state, a, None), plain.transition(state, action, None)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        system.loss(state, a, after), plain.loss(state, action, expected), rtol=1e-12, atol=0
    )
    seen = system.invariants(state)
    assert list(seen) == list(system.bounds)
    assert system.kernel(1) is None
