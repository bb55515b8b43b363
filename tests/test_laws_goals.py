"""Discs with places to go: the rule of arrival, contacts on the way, starts, neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from invariantzoo import make_system
from invariantzoo.envs.core.physics.kernels.discs import rows_of
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.particles.circle import Circle
from invariantzoo.envs.particles.goal_discs import GoalDiscs
from invariantzoo.envs.particles.goal_geometry import overlaps
from invariantzoo.envs.particles.goal_search import (
    _overlaps,
    _overlaps_by_cells,
    _search,
    _search_by_cells,
    nearest_in_plane,
    overlaps_on_the_way,
)
from invariantzoo.envs.particles.goals import APART, Goals


def act(system: GoalDiscs, worlds: int, along: Any, across: Any = 0.0) -> np.ndarray:
    """The action of discs that want to go along and across the direction to their goals."""
    action = np.zeros((worlds, system.n_agents, 4 * system.k + 2))
    action[..., -2], action[..., -1] = along, across
    return action


def placed(system: GoalDiscs, position: Any, goal: Any) -> VectorEnv:
    """One world with discs at `position` [agents, 2] that have `goal` to go to."""
    env = VectorEnv(system, 1, seed=0, autoreset=False, dtype=np.float64)
    env.reset()
    places = [torch.tensor([rows], dtype=torch.float64) for rows in (position, goal)]
    state = system.start(*places, torch.full((1, 1), 10.0, dtype=torch.float64))
    saved = env.save()
    saved |= {f"state.{name}": array.numpy() for name, array in state._asdict().items()}
    env.restore(saved)
    return env


def test_a_disc_alone_takes_its_distance_over_the_speed() -> None:
    system = Goals(n_agents=2, horizon=200, speed=0.5)
    env = placed(system, [[0.0, 0.0], [0.0, 5.0]], [[3.0, 0.0], [4.0, 5.0]])
    while env.alive.all() and env.age[0] < system.horizon:
        env.step(act(system, 1, 1.0))
    time = env.state.arrival_time[0]
    # arrival counts from `arrival` before the goal on, at whole steps
    assert time == pytest.approx([math.ceil((3 - 0.1) / 0.05) * 0.1, 3.9 / 0.5], abs=0.101)
    metrics = env.episode_metrics()
    assert metrics["ok"] == metrics["all_ok"] == 1
    assert metrics["hit"] == 0
    assert metrics["time_ratio"] == pytest.approx(time.sum() / (7 / 0.5))


@pytest.mark.parametrize("impact", [0.0, 0.3, 0.396, 0.3995, 0.401, 0.6])
def test_passage_of_two_discs(impact: float) -> None:
    """Straight drivers that meet overlap by D less the impact parameter, between steps too."""
    system = Goals(n_agents=2, horizon=100, collision_weight=0.0)
    env = placed(system, [[-1.037, 0.0], [1.0, impact]], [[50.0, 0.0], [-50.0, impact]])
    for _ in range(30):
        env.step(act(system, 1, 1.0))
    depth = max(0.4 - impact, 0.0)
    assert env.state.deepest[0] == pytest.approx([depth, depth], abs=2e-5)  # goals: nearly parallel
    assert (env.state.hit[0] == (depth > 1e-3)).all()
    assert env.episode_metrics()["deepest_overlap"] == pytest.approx(depth, abs=2e-5)


def test_a_passage_faster_than_steps_is_seen() -> None:
    """Two discs jump through each other within one step: at its ends they are far apart."""
    system = Goals(n_agents=2, horizon=20, dt=2.0, max_acceleration=10.0)
    env = placed(system, [[-1.0, 0.1], [1.0, 0.0]], [[30.0, 0.1], [-30.0, 0.0]])
    env.step(act(system, 1, 1.0))
    assert np.abs(env.state.position[0, 0] - env.state.position[0, 1]).max() > 1.9
    assert env.state.hit.all()


def test_touch_and_leave_scores_nothing() -> None:
    """The rule can not be gamed: an arrival is undone by leaving by more than a radius."""
    system = Goals(n_agents=2, horizon=60)
    env = placed(system, [[0.0, 0.0], [0.0, 5.0]], [[1.0, 0.0], [9.0, 5.0]])
    for step in range(60):
        first = 1.0 if step < 12 else -1.0
        env.step(act(system, 1, [first, 1.0]))
        if step == 11:
            assert env.state.arrival_time[0, 0] > 0
    metrics = env.episode_metrics()
    assert metrics["ok"] == 0
    assert metrics["settled"] == 0
    assert np.isnan(metrics["time_ratio"])


def test_a_push_within_a_radius_keeps_the_arrival() -> None:
    system = Goals(n_agents=2, horizon=60)
    env = placed(system, [[0.0, 0.0], [0.0, 5.0]], [[0.55, 0.0], [9.0, 5.0]])
    for along in (1.0, 1.0, 1.0, 1.0, 1.0):
        env.step(act(system, 1, [along, 0.0]))
    arrived = float(env.state.arrival_time[0, 0])
    assert arrived == pytest.approx(0.5)
    env.step(act(system, 1, [-1.0, 0.0]))  # 0.15 from the goal: outside `arrival`, within a radius
    assert env.state.arrival_time[0, 0] == arrived
    env.step(act(system, 1, [-1.0, 0.0]))
    assert env.state.arrival_time[0, 0] == -1


def test_a_world_is_over_when_all_are_there_at_once() -> None:
    system = Goals(n_agents=2, horizon=60)
    env = placed(system, [[0.0, 0.0], [0.0, 5.0]], [[0.5, 0.0], [0.95, 5.0]])
    steps = 0
    while env.alive.any():
        distance = np.hypot(*(env.state.goal - env.state.position)[0].T)
        step = env.step(act(system, 1, np.minimum(distance / 0.1, 1.0)))
        steps += 1
    assert steps == 9
    assert step.terminated.all()
    assert not step.truncated.any()
    before = [array.copy() for array in env.state]
    env.advance(act(system, 1, 1.0))
    for old, new in zip(before, env.state, strict=True):
        assert np.array_equal(old, new)


def test_goals_may_move() -> None:
    """Speeds and arrivals are those in the frame of the goals."""
    system = Goals(n_agents=2, horizon=60)
    runs = []
    for boost in (np.zeros(2), np.array([3.0, -1.0])):
        env = placed(system, [[0.0, 0.0], [0.3, 0.5]], [[2.0, 0.0], [0.0, 2.0]])
        env.state.velocity[:] += boost
        env.state.goal_velocity[:] += boost
        env.observe()
        for step in range(30):
            env.step(act(system, 1, 0.9, 0.3 * math.sin(step)))
        runs.append((env.state.arrival_time.copy(), env.state.deepest.copy(), env.state.effort))
    for still, moving in zip(*runs, strict=True):
        assert moving == pytest.approx(still, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("cover", [0.05, 0.35, 0.45])
def test_starts_and_goals_keep_apart(cover: float) -> None:
    system = Goals(n_agents=40, cover=cover)
    state = system.initial(Rng.single(3, 5), 5)
    half = 0.5 * math.sqrt(40 * math.pi * 0.04 / cover)
    for places in (state.position, state.goal):
        apart = torch.cdist(places, places) + torch.eye(40) * 9
        assert float(apart.min()) >= APART * 0.2
        assert float(places.abs().max()) <= half
    assert float((state.position - state.goal).norm(dim=-1).mean()) > 0.5 * half
    # uniform: mean square of a coordinate is side^2 / 12
    square = float((state.position**2).mean())
    assert square == pytest.approx(half**2 / 3, rel=0.15)


def test_the_circle() -> None:
    system = Circle(n_agents=20)
    assert system.circle_radius == pytest.approx(2.86)
    state = system.initial(Rng.single(1, 3), 3)
    assert torch.allclose(state.goal, -state.position)
    assert torch.allclose(state.position.norm(dim=-1), torch.full((3, 20), 2.86).double())
    shifted = Circle(n_agents=20, shift=0.05).initial(Rng.single(1, 3), 3)
    moved = (shifted.position - state.position).norm(dim=-1)
    assert 0.01 < float(moved.max()) <= 0.05
    with pytest.raises(ValueError, match=r"shift=0\.4"):
        Circle(n_agents=64, shift=0.4)


def test_the_time_of_an_episode() -> None:
    side = math.sqrt(64 * math.pi * 0.04 / 0.05)
    assert make_system("particles-goals-v0").horizon == math.ceil(40 * side)
    assert make_system("particles-goals-v0", n_agents=2).horizon == 200
    assert make_system("particles-circle-v0").horizon == math.ceil(40 * 2 * 0.143 * 64)
    assert make_system("particles-goals-v0", horizon=7).horizon == 7


def brute_neighbours(x: np.ndarray, cutoff: float, k: int) -> list[list[int]]:
    lists = []
    for i in range(len(x)):
        distance = np.hypot(*(x - x[i]).T)
        distance[i] = np.inf
        order = np.argsort(distance, kind="stable")[:k]
        lists.append([int(j) if distance[j] < cutoff else -1 for j in order])
    return lists


@pytest.mark.parametrize("layout", ["square", "line", "clumps", "far"])
@pytest.mark.parametrize("n", [40, 300])
def test_neighbours_are_the_nearest(n: int, layout: str) -> None:
    rng = np.random.default_rng(n)
    x = 8 * rng.random((n, 2))
    if layout == "line":
        x[:, 1] = 1e-3 * x[:, 1]
    if layout == "clumps":
        x += 100 * rng.integers(0, 3, (n, 1))
    if layout == "far":
        x[0] = 1e4, -1e4
    for cutoff in (0.7, 5.0):
        index = nearest_in_plane(x[None], cutoff, 10)[0]
        assert index.tolist() == brute_neighbours(x, cutoff, 10)


@pytest.mark.parametrize("n", [30, 300])
def test_remembered_neighbours_do_not_matter(n: int) -> None:
    """Lists that were written for other places bound the search but change nothing."""
    system = Goals(n_agents=n, cover=0.3)
    env = VectorEnv(system, 2, seed=5, dtype=np.float64)
    rng = np.random.default_rng(0)
    env.reset()
    for _ in range(20):
        step = env.step(rng.uniform(-1, 1, (2, n, 4 * system.k + 2)))
    fresh = VectorEnv(system, 2, seed=5, dtype=np.float64)
    fresh.reset()
    assert np.array_equal(fresh.restore(env.save()), step.observation)


def test_neighbours_of_a_crystal_that_melts() -> None:
    """Cells, with lists of other places or without, and all pairs agree, in equal distances too."""
    rng = np.random.default_rng(1)
    crystal = np.stack(np.meshgrid(*2 * [np.arange(20.0)]), -1).reshape(1, -1, 2)
    index = np.full((1, 400, 10), -1, np.int32)
    for warmth in (0.0, 0.02, 0.3, 2.0, 0.0):
        x = crystal + warmth * rng.normal(size=crystal.shape)
        _search_by_cells(x, 5.0, rows_of(400), index)
        every = np.full((1, 400, 10), -1, np.int32)
        _search(x, 5.0, rows_of(400), every)
        assert np.array_equal(index, every)
        assert np.array_equal(index, nearest_in_plane(x, 5.0, 10))


@pytest.mark.parametrize("k", [1, 10])
def test_large_worlds_find_overlaps_wherever_neighbours_end(k: int) -> None:
    """Of more discs than are seen, too."""
    system = Goals(n_agents=200, cover=0.3, n_neighbours=k)
    env = VectorEnv(system, 1, seed=2, dtype=np.float64)
    env.reset()
    action = np.zeros((1, 200, 4 * system.k + 2))
    action[..., -2] = 1.0
    deepest = np.zeros((1, 200))
    for _ in range(60):
        before = env.state.position.copy()
        env.step(action)
        after = env.state.position
        deepest = np.maximum(deepest, overlaps_on_the_way(before, after, env.state.radius))
        assert np.allclose(deepest, env.state.deepest, atol=1e-14)
    assert deepest.max() > 0.1


@pytest.mark.parametrize("n", [30, 200])
def test_overlaps_on_the_way(n: int) -> None:
    """Compiled, by cells and all pairs, against torch and against fine steps."""
    rng = np.random.default_rng(n)
    before = 6 * rng.random((2, n, 2))
    after = before + 0.2 * rng.normal(size=before.shape)
    radius = rng.uniform(0.1, 0.25, (2, n))
    depths = []
    for search in (_overlaps, _overlaps_by_cells):
        depths.append(np.zeros((2, n)))
        search(before, after, radius, depths[-1])
    assert np.allclose(*depths, atol=1e-14)
    fine = np.zeros((2, n))
    for share in np.linspace(0, 1, 401):
        x = before + share * (after - before)
        apart = np.linalg.norm(x[:, None] - x[:, :, None], axis=-1)
        deep = radius[:, None] + radius[:, :, None] - apart
        deep[:, np.arange(n), np.arange(n)] = 0
        fine = np.maximum(fine, deep.max(-1))
    assert np.abs(depths[0] - fine).max() < 2e-3
    plain: list[Tensor] = [torch.from_numpy(array) for array in (before, after, radius)]
    assert np.allclose(overlaps(*plain).numpy(), depths[0])


def test_refusals_name_what_is_wrong() -> None:
    for given, told in (
        ({"cover": 0.5}, "cover=0.5"),
        ({"cover": (0.3, 0.1)}, r"cover=\(0.3, 0.1\)"),
        ({"arrival": 0.3}, "arrival=0.3"),
        ({"control": "heading"}, "control='heading'"),
        ({"n_agents": 1}, "n_agents=1"),
        ({"time_limit": 0}, "time_limit=0"),
    ):
        with pytest.raises(ValueError, match=told):
            make_system("particles-goals-v0", **given)


@pytest.mark.parametrize("away", [0.0, 1e-17, 1e-8, 0.3])
def test_gradients_are_finite_at_a_goal(away: float) -> None:
    """Drivers land on their goals to rounding, and descent goes through hundreds of such steps."""
    system = Goals(n_agents=2)
    state = system.initial(Rng.single(0, 1), 1)
    position = (state.goal + torch.tensor([away, 0.0])).requires_grad_()
    seen = system.invariants(state._replace(position=position))
    (slope,) = torch.autograd.grad(sum(value.sum() for value in seen.values()), position)
    assert slope.isfinite().all()
    assert slope.abs().max() < 1e3
