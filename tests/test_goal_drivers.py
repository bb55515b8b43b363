"""Drivers of discs with goals: ORCA beside its library, the guard, and what they keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goal_scenes import (
    Discs,
    World,
    circle,
    directions,
    in_frame,
    least_gap,
    norm,
    observe,
    out_of_frame,
    square,
)

from invariantzoo.agents.baselines.goal_driving import SocialForce, Straight
from invariantzoo.agents.baselines.goals import DRIVERS
from invariantzoo.agents.baselines.guard import Guarded, desired_velocity, guard_velocity
from invariantzoo.agents.baselines.half_planes import nearest_velocities
from invariantzoo.agents.baselines.orca import Orca, right_hand_orca
from invariantzoo.agents.policy import make_policy, policy_names
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.particles.goal_discs import GoalDiscs
from invariantzoo.envs.particles.goals import Goals
from invariantzoo.training.rl.score import evaluate

RECORDED = Path(__file__).parent / "data" / "rvo2_velocities.npz"
NO_NOISE = np.empty((0, 2))


def test_orca_chooses_the_velocities_of_the_library() -> None:
    recorded = np.load(RECORDED)
    driver, errors = Orca(Discs()), []
    for scene in range(len(recorded["position"])):
        position, velocity, goal, chosen = (
            recorded[name][scene].astype(float)
            for name in ("position", "velocity", "goal", "next_velocity")
        )
        world = World(position, velocity, goal, np.full(len(position), 0.2))
        ours = driver.velocity(observe(world, Discs()), NO_NOISE)
        errors.append(np.abs(out_of_frame(directions(world), ours) - chosen).max(-1))
    assert np.size(errors) >= 3000
    assert np.max(errors) < 5e-4


# ------------------------------------------------------------------------------- half-planes


def corners(planes: np.ndarray, limit: float, preferred: np.ndarray) -> np.ndarray:
    """Every velocity that can be the nearest: on the disc, on an edge, or where two edges meet."""
    candidates = [preferred, preferred * limit / norm(preferred)]
    for i, (*n, b) in enumerate(planes):
        edge = np.array([-n[1], n[0]])
        candidates.append(b * np.array(n) + (preferred @ edge) * edge)
        if abs(b) < limit:
            candidates += [b * np.array(n) + s * np.sqrt(limit**2 - b**2) * edge for s in (-1, 1)]
        for j in range(i):
            if abs(np.linalg.det(planes[[i, j], :2])) > 1e-12:
                candidates.append(np.linalg.solve(planes[[i, j], :2], planes[[i, j], 2]))
    return np.array(candidates)


def random_planes(rng: np.random.Generator, rows: int, low: float) -> np.ndarray:
    angle = 2 * np.pi * rng.random((rows, 6))
    bound = low + (1 - low) * rng.random((rows, 6))
    return np.stack([np.cos(angle), np.sin(angle), bound], -1)


def test_nearest_velocity_is_the_best_of_all_corners() -> None:
    rng = np.random.default_rng(0)
    planes, preferred = random_planes(rng, 300, -0.3), 2 * rng.standard_normal((300, 2))
    velocity = np.empty((300, 2))
    nearest_velocities(planes.transpose(0, 2, 1).copy(), 1.0, preferred, velocity)
    feasible = 0
    for half_planes, wish, ours in zip(planes, preferred, velocity, strict=True):
        points = corners(half_planes, 1.0, wish)
        obeys = (points @ half_planes[:, :2].T <= half_planes[:, 2] + 1e-9).all(-1)
        points = points[obeys & (norm(points) <= 1 + 1e-9)]
        if len(points):
            feasible += 1
            best = points[norm(points - wish).argmin()]
            np.testing.assert_allclose(ours, best, atol=1e-8)
    assert 50 < feasible < 300  # both kinds were there


def test_where_no_velocity_obeys_the_largest_violation_is_least() -> None:
    rng = np.random.default_rng(1)
    planes, preferred = random_planes(rng, 60, -0.9), rng.standard_normal((60, 2))
    velocity = np.empty((60, 2))
    nearest_velocities(planes.transpose(0, 2, 1).copy(), 1.0, preferred, velocity)
    angle, length = np.meshgrid(np.linspace(0, 2 * np.pi, 181), np.linspace(0, 1, 61))
    grid = np.stack([length * np.cos(angle), length * np.sin(angle)], -1).reshape(-1, 2)
    contradictory = 0
    for half_planes, ours in zip(planes, velocity, strict=True):
        least = (grid @ half_planes[:, :2].T - half_planes[:, 2]).max(-1).min()
        if least > 0.01:
            contradictory += 1
            assert norm(ours) <= 1 + 1e-9
            assert (half_planes[:, :2] @ ours - half_planes[:, 2]).max() <= least + 1e-9
    assert contradictory > 20


# ------------------------------------------------------------------------------- symmetries


def on_their_way(cover: float, steps: int, seed: int = 0) -> World:
    """A square after some steps of ORCA with noise."""
    rng = np.random.default_rng(seed)
    world, driver = square(rng, 32, cover), Orca(Discs())
    for _ in range(steps):
        velocity = driver.velocity(observe(world, Discs()), rng.random((32, 2)))
        world = world.moved(out_of_frame(directions(world), velocity), Discs())
    return world


def desired(name: str, world: World, system: Discs, **changes: float) -> np.ndarray:
    """Desired velocities in the plane."""
    driver = DRIVERS[name](system)
    driver = replace(driver, **changes) if changes else driver
    observation = torch.from_numpy(observe(world, system))[None]
    action = driver(observation, None)[0].numpy()
    assert not action[:, :-2].any()
    return out_of_frame(directions(world), system.speed * action[:, -2:])


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("max_acceleration", [20.0, 2.0])
def test_drivers_are_covariant(name: str, max_acceleration: float) -> None:
    system, world = Discs(max_acceleration=max_acceleration), on_their_way(0.2, 30)
    before = desired(name, world, system)
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, s], [-s, c]])
    order = np.random.default_rng(5).permutation(32)
    turned = World(
        *(x[order] @ turn + shift for x, shift in ((world.position, 3.0), (world.velocity, 0.0))),
        world.goal[order] @ turn + 3.0,
        world.radius[order],
    )
    np.testing.assert_allclose(desired(name, turned, system), before[order] @ turn, atol=1e-12)


HAND_WRITTEN = [name for name in DRIVERS if not name.startswith("learned")]  # a side is learned


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_drivers_seen_in_a_mirror(name: str) -> None:
    """The same mirrored, with the rule of the road turned to the other side."""
    world, mirror = on_their_way(0.2, 30), np.array([1.0, -1.0])
    before = desired(name, world, Discs())
    vectors = (world.position, world.velocity, world.goal)
    mirrored = World(*(mirror * vector for vector in vectors), world.radius)
    changes = {"right_hand": -0.8} if name == "orca-right-hand" else {}
    after = desired(name, mirrored, Discs(), **changes)
    np.testing.assert_allclose(after, mirror * before, atol=1e-12)
    if changes:
        assert np.abs(desired(name, mirrored, Discs()) - mirror * before).max() > 0.01


def test_right_hand_rule_turns_to_the_right_of_whoever_is_ahead() -> None:
    world = circle(2)
    driver = right_hand_orca(Discs(n_agents=2, k=1))
    for _ in range(16):
        observation = observe(world, driver.system)
        velocity = driver.velocity(observation, NO_NOISE)
        world = world.moved(out_of_frame(directions(world), velocity), driver.system)
    assert velocity[0, 1] < -0.1
    np.testing.assert_allclose(velocity[1], velocity[0], atol=1e-9)


def test_the_last_step_ends_at_the_goal() -> None:
    world = World(np.zeros((1, 2)), np.zeros((1, 2)), np.array([[0.3, 0.04]]), np.array([0.2]))
    system = Discs(n_agents=2, k=1)
    for _ in range(4):
        velocity = Straight(system).velocity(observe(world, system), NO_NOISE)
        world = world.moved(out_of_frame(directions(world), velocity), system)
    np.testing.assert_allclose(world.position, world.goal, atol=1e-15)


def test_social_force_pushes_apart_by_the_formula() -> None:
    system = Discs(n_agents=2, k=1)
    position, goal = np.array([[0.0, 0.0], [0.3, 0.4]]), np.array([[3.0, 0.0], [-3.0, 0.4]])
    world = World(position, np.zeros((2, 2)), goal, np.full(2, 0.2))
    push = 5.0 * np.exp((0.4 - 0.5) / 0.2)
    expected = 0.1 * (np.array([1.0, 0.0]) / 0.5 - push * np.array([0.6, 0.8]))
    velocity = SocialForce(system).velocity(observe(world, system), NO_NOISE)
    np.testing.assert_allclose(velocity[0], expected, atol=1e-12)


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drivers_by_name(name: str, dtype: torch.dtype) -> None:
    system, world = Discs(n_agents=32), on_their_way(0.2, 20)
    driver = DRIVERS[name](system)
    assert driver.name == name
    assert driver.system is system
    observation = torch.from_numpy(np.stack(3 * [observe(world, system)])).to(dtype)
    action = driver(observation, Rng.single(4, 3))
    assert (action.shape, action.dtype) == ((3, 32, 42), dtype)
    assert (action.abs() <= 1).all()
    assert torch.equal(action, driver(observation, Rng.single(4, 3)))
    assert torch.equal(driver(observation, None)[0], driver(observation, None)[2])
    assert torch.equal(action[0], action[1]) == (name == "straight")  # noise is drawn per disc


def test_who_takes_no_share_keeps_its_way() -> None:
    """In ORCA: share 0 leaves the preferred velocity; share 1 beside 0 is enough for the other."""
    world, system = circle(2), Discs(n_agents=2, k=1)
    world = replace(world, position=world.position + np.array([[0.0, 0.1], [0.0, 0.0]]))
    share, driver, gap = np.array([[0.0], [1.0]]), Orca(system, jitter=0.0), np.inf
    for _ in range(40):
        velocity = driver.velocity(observe(world, system), NO_NOISE, share)
        assert abs(velocity[0, 1]) < 1e-12
        after = world.moved(out_of_frame(directions(world), velocity), system)
        gap, world = min(gap, least_gap(world, after, np.arange(2))), after
    assert 0 < gap < 0.1
    assert norm(world.position - world.goal).max() < 0.5


# ------------------------------------------------------------------------------------ guard

WISHES = ("towards goals", "anywhere", "into the middle")


def wish(kind: str, world: World, rng: np.random.Generator, system: Discs) -> np.ndarray:
    """Reckless desired velocities [n, 2] in the frames of the discs."""
    e = directions(world)
    if kind == "towards goals":
        way = in_frame(e, world.goal - world.position)
    elif kind == "anywhere":
        way = rng.standard_normal(world.position.shape)
    else:
        way = in_frame(e, world.position.mean(0) - world.position)
    length = np.maximum(norm(way), 1e-300)[:, None]
    return way / length * np.minimum(system.speed, length / system.dt)


def least_gap_of(
    world: World,
    system: Discs,
    seed: int,
    kind: str,
    steps: int = 25,
    guarded: np.ndarray | None = None,
    slack: float = 0.0,
    share: np.ndarray | None = None,
    among: np.ndarray | None = None,
) -> tuple[float, float]:
    """Smallest gap of two guarded discs over a run, and the mean speed.

    share [n, n]: of pairs.  among: indices of the discs to look at instead of the guarded ones.
    """
    rng = np.random.default_rng(seed)
    n = len(world.position)
    guarded = np.ones(n, bool) if guarded is None else guarded
    among = np.flatnonzero(guarded) if among is None else among
    smallest, speeds = np.inf, []
    for step in range(steps):
        if kind != "anywhere" or step % 8 == 0:
            aim = wish(kind, world, rng, system)
        observation, velocity = observe(world, system), aim.copy()
        parts: tuple[np.ndarray, ...] = ()
        if share is not None:
            r = world.position[None] - world.position[:, None]
            far = norm(r) + np.where(np.eye(n, dtype=bool), np.inf, 0)
            order = np.argsort(far, 1, kind="stable")[:, : system.k]
            parts = (np.take_along_axis(share, order, 1),)
        guard_velocity(system, observation, velocity, slack, *parts)
        velocity[~guarded] = aim[~guarded]
        after = world.moved(out_of_frame(directions(world), velocity), system)
        smallest = min(smallest, least_gap(world, after, among))
        speeds.append(norm(after.velocity).mean())
        world = after
    return smallest, float(np.mean(speeds))


@pytest.mark.parametrize("max_acceleration", [20.0, 12.0, 4.0, 1.5, 0.6])
@pytest.mark.parametrize("kind", WISHES)
def test_guarded_discs_never_touch(kind: str, max_acceleration: float) -> None:
    """By separate code, at ten places within every step."""
    moved = 0.0
    for seed in range(16):
        rng = np.random.default_rng(seed)
        k = (1, 5, 11)[seed % 3]  # with few seen, others come from where nobody looks
        system = Discs(n_agents=12, k=k, max_acceleration=max_acceleration)
        world = square(rng, 12, (0.2, 0.35)[seed % 2])
        gap, speed = least_gap_of(world, system, seed, kind)
        assert gap > -1e-11
        moved += speed / 16
    assert moved > 0.02


@pytest.mark.parametrize("max_acceleration", [20.0, 3.0])
def test_slack_is_kept_between_discs(max_acceleration: float) -> None:
    system = Discs(n_agents=12, k=11, max_acceleration=max_acceleration)
    world = square(np.random.default_rng(3), 12, 0.2)
    world = replace(world, radius=np.full(12, 0.19))
    gap, _ = least_gap_of(world, system, 3, "into the middle", slack=0.02)
    assert 0.02 - 1e-11 < gap < 0.03


@pytest.mark.parametrize("max_acceleration", [20.0, 3.0])
def test_guarded_discs_never_touch_among_unguarded_ones(max_acceleration: float) -> None:
    system = Discs(n_agents=12, k=8, max_acceleration=max_acceleration)
    guarded, everybody = np.arange(12) < 7, np.inf
    for seed in range(12):
        world = square(np.random.default_rng(seed), 12, 0.35)
        for kind in WISHES:
            gap, _ = least_gap_of(world, system, seed, kind, guarded=guarded)
            assert gap > -1e-11
        gap, _ = least_gap_of(world, system, seed, WISHES[2], guarded=guarded, among=np.arange(12))
        everybody = min(everybody, gap)
    assert everybody < -0.1  # the others do run into them


@pytest.mark.parametrize("max_acceleration", [20.0, 3.0])
def test_parts_of_a_gap_that_add_to_one_are_safe(max_acceleration: float) -> None:
    system = Discs(n_agents=12, k=11, max_acceleration=max_acceleration)
    unsafe = np.inf
    for seed in range(8):
        rng = np.random.default_rng(seed)
        world = square(rng, 12, 0.35)
        share = np.triu(rng.choice([0.0, 0.3, 1.0], (12, 12)), 1)
        share += np.tril(1 - share.T, -1)
        gap, speed = least_gap_of(world, system, seed, "into the middle", share=share)
        assert gap > -1e-11
        assert speed > 0.005
        both = np.ones((12, 12))
        unsafe = min(unsafe, least_gap_of(world, system, seed, WISHES[2], share=both)[0])
    assert unsafe < -0.01  # two that both use up the whole gap


def test_who_may_use_up_the_gap_keeps_its_way_to_the_bit() -> None:
    system = Discs(n_agents=2, k=1)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        world = square(rng, 2, 0.1)
        aim = wish("towards goals", world, rng, system)
        gap = norm(world.position[1] - world.position[0]) - 0.4
        velocity = aim.copy()
        share = np.array([[1.0], [0.0]])
        guard_velocity(system, observe(world, system), velocity, 0.0, share)
        if gap > system.speed * system.dt:
            np.testing.assert_array_equal(velocity[0], aim[0])


def test_guard_takes_the_nearest_velocity() -> None:
    world, system = square(np.random.default_rng(2), 24, 0.35), Discs(n_agents=24, k=10)
    rng = np.random.default_rng(7)
    aim = wish("anywhere", world, rng, system)
    velocity, observation = aim.copy(), observe(world, system)
    guard_velocity(system, observation, velocity)
    for own, ours, seen in zip(aim, velocity, observation, strict=True):
        r = seen[4 + 4 * 10 : 4 + 6 * 10].reshape(2, 10).T
        d, contact = norm(r), seen[4 + 9 * 10 :]
        planes = np.concatenate([r / d[:, None], ((d - contact) / 0.2)[:, None]], -1)
        points = corners(planes, 1.0, own)
        obeys = (points @ planes[:, :2].T <= planes[:, 2] + 1e-9).all(-1)
        points = points[obeys & (norm(points) <= 1 + 1e-9)]
        np.testing.assert_allclose(ours, points[norm(points - own).argmin()], atol=1e-8)


def test_guard_that_brakes_leaves_free_discs_alone() -> None:
    """What is desired and can be reached within a step is done where nobody is near."""
    system = Discs(n_agents=3, k=2, max_acceleration=3.0)
    position = np.array([[0.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
    velocity = np.array([[0.5, 0.2], [0.0, -0.9], [0.6, 0.0]])
    world = World(position, velocity, position + np.array([3.0, 1.0]), np.full(3, 0.2))
    change = np.array([[0.1, 0.05], [-0.2, 0.1], [0.0, -0.2]])
    aim = in_frame(directions(world), velocity) + change
    guarded = aim.copy()
    guard_velocity(system, observe(world, system), guarded)
    np.testing.assert_allclose(guarded, aim, atol=1e-12)
    world = replace(world, position=np.array([[0.0, 0.0], [0.1, 1.0], [0.6, 0.1]]))
    guard_velocity(system, observe(world, system), guarded)
    assert norm(guarded - aim).min() > 1e-3


def test_guard_decodes_actions_as_the_system_does() -> None:
    system, world = Discs(n_agents=32, gain=0.7), on_their_way(0.2, 20)
    observation = observe(world, system)
    action = np.random.default_rng(0).uniform(-1, 1, (32, 42))
    action[:, -2:] *= 0.3
    ours = desired_velocity(system, observation, action)
    for seen, given, velocity in zip(observation, action, ours, strict=True):
        total = np.array(given[-2:])
        for j in range(10):
            r, u = seen[[44 + j, 54 + j]], seen[[64 + j, 74 + j]]
            window = max(0.0, 1 - r @ r / 4) ** 2
            quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
            vectors = np.array([r, u, quarter @ r, quarter @ u])
            total = total + 0.7 * window * given[[j, 10 + j, 20 + j, 30 + j]] @ vectors
        expected = total / max(1.0, norm(total))
        np.testing.assert_allclose(velocity, expected, atol=1e-12)


def desired_by(system: GoalDiscs, state: Any, action: torch.Tensor) -> np.ndarray:
    """What the system makes of an action within a step of free acceleration [agents, 2]."""
    free = replace(system, max_acceleration=1e6) if system.control == "velocity" else system
    following = free.transition(state, action, None)
    return following.velocity[0].numpy()


@pytest.mark.parametrize("control", ["velocity", "acceleration"])
def test_observations_and_actions_are_those_of_the_system(control: str) -> None:
    system = Goals(n_agents=24, cover=0.3, control=control, max_acceleration=3.0)
    env = VectorEnv(system, 1, seed=3, dtype=np.float64)
    policy = make_policy("orca", system)
    observation = env.reset()
    for _ in range(25):
        action = policy(torch.from_numpy(observation), Rng.single(0, 1)).numpy()
        observation = env.step(action).observation
    state = env.tensors
    position, velocity, goal, radius = (
        field[0].numpy() for field in (state.position, state.velocity, state.goal, state.radius)
    )
    world = World(position, velocity, goal, radius)
    np.testing.assert_allclose(observe(world, system), observation[0], atol=1e-12)
    action = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 24, 42)))
    ours = desired_velocity(system, observation[0], action[0].numpy())
    ours = out_of_frame(directions(world), ours)
    np.testing.assert_allclose(desired_by(system, state, action), ours, atol=1e-9)


@pytest.mark.parametrize("control", ["velocity", "acceleration"])
@pytest.mark.parametrize("max_acceleration", [20.0, 3.0])
def test_guarded_policies_never_overlap_in_the_system(
    control: str, max_acceleration: float
) -> None:
    system = Goals(
        n_agents=24, cover=0.35, control=control, max_acceleration=max_acceleration, horizon=60
    )
    for inner in (make_policy("straight", system), make_policy("random", system)):
        guarded = Guarded(inner, system=system)
        scores = evaluate(system, guarded, episodes=2, seeds=1, deterministic=False)
        assert scores["deepest_overlap"].max() < 1e-10
        free = evaluate(system, inner, episodes=2, seeds=1, deterministic=False)
        assert free["deepest_overlap"].min() > 0.01


def test_named_drivers_of_goal_systems() -> None:
    system = Goals(n_agents=4)
    assert set(policy_names(system)) >= set(DRIVERS)
    for name in system.baselines:
        policy: Any = make_policy(name, system)
        assert (policy.name, policy.system, policy.dtype) == (name, system, np.float64)
    with pytest.raises(KeyError, match="unknown policy 'orka'; did you mean 'orca'"):
        make_policy("orka", system)


def test_guard_round_a_policy_that_is_no_driver() -> None:
    system, world = Discs(n_agents=32), on_their_way(0.35, 20)
    observation = torch.from_numpy(observe(world, system))[None]
    straight = Straight(system)
    inside = Guarded(straight)
    outside = Guarded(lambda seen, rng: straight(seen, rng), system=system)
    assert inside.name == "straight (guarded)"
    assert torch.equal(inside(observation, None), outside(observation, None))
    assert not torch.equal(inside(observation, None), straight(observation, None))


def test_guard_refuses_what_it_cannot_keep() -> None:
    with pytest.raises(ValueError, match=r"system=None must be given: policy=.* has none"):
        Guarded(lambda observation, rng: observation)
    with pytest.raises(ValueError, match=r"slack=-0\.1 must be"):
        Guarded(Straight(Discs()), slack=-0.1)


SHIPPED = {  # name: least ok, most hit, most effort, on worlds of 16 discs at 20 %
    "learned": (0.97, 0.0, 9.0),
    "learned-smooth": (0.97, 0.0, 3.0),
    "learned-unguarded": (0.9, 0.05, 12.0),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_drivers_that_ship_arrive_and_do_not_hit(name: str) -> None:
    """Who drives straight on hits most of the time there."""
    system = Goals(n_agents=16, cover=0.2, time_limit=3)
    policy = make_policy(name, system)
    scores = evaluate(system, policy, episodes=10, seeds=1, deterministic=False)
    ok, hit, effort = (float(scores[metric].mean()) for metric in ("ok", "hit", "effort"))
    least, most, hardest = SHIPPED[name]
    assert ok >= least
    assert hit <= most
    assert effort <= hardest
