"""A world is (seed, index): bit for bit the same in any batch, after any interruption, anywhere."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import (
    SEED,
    Trace,
    action_table,
    bits,
    continue_elsewhere,
    part_of,
    record,
)

import invariantzoo
from invariantzoo.envs.core.observation import by_name
from invariantzoo.envs.core.observation import parameters as parameters_of
from invariantzoo.envs.core.registry import system_class
from invariantzoo.envs.core.rng import POLICY
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.vector import VectorEnv

STEPS = 7
TWO_WATERS = str(Path(__file__).parent / "data" / "water2.npz")
SHORT: dict[str, list[dict[str, Any]]] = {  # episodes that end within STEPS, where that is possible
    "particles-crowd-v0": [
        {"horizon": 3, "n_agents": 3},
        {"horizon": 3, "n_agents": 7, "density": (0.1, 0.3), "speed": (0.5, 1.5)},
        {"horizon": 3, "n_agents": 5, "actions": "heading", "seen": ("I1", "I4")},
        {"horizon": 3, "n_agents": 3, "actions": "heading"},
    ],
    "particles-encounter-v0": [{"horizon": 3}, {"horizon": 3, "actions": "heading"}],
    "particles-field-v0": [{"horizon": 3, "n_agents": 3, "cells": 8, "order": 1, "passes": 0}],
    "particles-traffic-v0": [
        {"horizon": 3, "layout": "street", "n_cars": 2, "n_pedestrians": 1},
    ],
    "ising-equilibrium-v0": [
        {"lattice_size": 2, "n_sweeps": 1, "burn_in": 0, "temperature": (1.0, 4.0)},
        {"lattice_size": 4, "n_sweeps": 2, "burn_in": 0, "update": "checkerboard"},
        {
            "lattice_size": 3,
            "n_sweeps": 3,
            "burn_in": 1,
            "update": "parallel",
            "coupling": (-1.0, 1.0),
            "field": (-1.0, 1.0),
        },
    ],
    "tasep-gates-v0": [{"horizon": 3, "sweeps": 2}],  # 102 attempts in a step instead of 1,020
    "cluster-relaxation-v0": [{"horizon": 3, "n_agents": 6}],
    "water-inference-v0": [{"horizon": 3, "data": TWO_WATERS}],
    "water-dynamics-v0": [{"horizon": 3, "data": TWO_WATERS, "temperature": (300.0, 400.0)}],
    "dirac-steer-v0": [{"horizon": 3, "side": 12, "width": 1.5, "task": "random"}],
    "klein-gordon-absorber-v0": [
        {"horizon": 3, "length": 16, "packets": 2},
        {"horizon": 3, "dimensions": 2, "length": 8, "width": 3, "packets": 2, "mass": 0.5},
    ],
    "test-hold-v0": [{"horizon": 3}],
    "test-leave-v0": [{"horizon": 5, "n_agents": 2, "length": 2}],
}


MANY = 4096  # worlds of a large batch of a compiled form
MANY_TORCH = 1024  # beyond, torch computes in the same way in one thread
FEWER = {"particles-goals-v0": 256, "particles-circle-v0": 256}  # as a step takes all pairs


def cases() -> list[Any]:
    """Every registered id, with and without its kernel if it has one."""
    found: list[Any] = []
    for id in invariantzoo.ids():
        plain = {"horizon": 3} if "horizon" in parameters_of(system_class(id)) else {}
        for number, parameters in enumerate(SHORT.get(id, [plain])):
            system = invariantzoo.make_system(id, **parameters)
            found.append(pytest.param(system, False, id=f"{id}-{number}-torch"))
            if system.kernel(1) is not None:
                found.append(pytest.param(system, True, id=f"{id}-{number}-kernel"))
    return found


def many_worlds(case: Any) -> Any:
    """The case, and how many worlds of it a large batch has."""
    id, _, form = case.id.rsplit("-", 2)
    worlds = FEWER.get(id, MANY_TORCH if form == "torch" else MANY)
    return pytest.param(*case.values, worlds, id=case.id)


def start(system: System, worlds: int, kernel: bool, first: int = 0, seed: int = SEED) -> VectorEnv:
    env = VectorEnv(system, worlds, seed=seed, first_world=first, kernel=kernel)
    env.reset()
    return env


def require_same(found: Trace, expected: Trace) -> None:
    assert len(found) == len(expected)
    for (where, one), (_, other) in zip(bits(found), bits(expected), strict=True):
        assert one == other, where


@pytest.mark.parametrize(("system", "kernel", "many"), [many_worlds(case) for case in cases()])
def test_a_world_is_the_same_in_any_batch(system: System, kernel: bool, many: int) -> None:
    actions = action_table(system, STEPS, many)
    everything = record(start(system, many, kernel), actions)
    assert system.horizon > STEPS or any(step["done"].any() for step in everything)
    middle = many // 4 - 24
    for worlds, first in ((64, 0), (7, 0), (1, 0), (1, 6), (1, 63), (7, middle), (1, many - 1)):
        part = slice(first, first + worlds)
        alone = record(start(system, worlds, kernel, first), actions[:, part])
        require_same(alone, part_of(everything, part))


@pytest.mark.parametrize(("system", "kernel"), cases())
def test_the_first_observation_is_the_same_in_any_batch(system: System, kernel: bool) -> None:
    everything = VectorEnv(system, 4096, seed=SEED, kernel=kernel).reset()
    for worlds, first in ((64, 0), (7, 1000), (1, 4095)):
        env = VectorEnv(system, worlds, seed=SEED, first_world=first, kernel=kernel)
        assert env.reset().tobytes() == everything[first : first + worlds].tobytes()


@pytest.mark.parametrize(("system", "kernel"), cases())
def test_resetting_some_worlds_leaves_the_others(system: System, kernel: bool) -> None:
    """Worlds 1 and 4 are reset between steps: alone they do the same, the rest never notices."""
    actions = action_table(system, 2 * STEPS, 7)
    batch, untouched = start(system, 7, kernel), start(system, 7, kernel)
    before = record(batch, actions[:2])
    flags = np.isin(np.arange(7), [1, 4])
    seen = batch.observe()
    assert batch.reset(worlds=flags & False).tobytes() == seen.tobytes()
    shown = batch.reset(worlds=flags)
    after = record(batch, actions[2:])
    for world in (0, 1, 4):  # the others are those of an untouched batch, below
        one = slice(world, world + 1)
        alone = start(system, 1, kernel, world)
        require_same(record(alone, actions[:2, one]), part_of(before, one))
        if flags[world]:
            assert alone.reset(worlds=np.array([0])).tobytes() == shown[one].tobytes()
        require_same(record(alone, actions[2:, one]), part_of(after, one))
    rest = record(untouched, actions)
    for world in np.flatnonzero(~flags):
        one = slice(world, world + 1)
        require_same(part_of(before + after, one), part_of(rest, one))


@pytest.mark.parametrize("dtype", [np.int32, np.float16, bool])
def test_observations_are_of_one_of_two_precisions(dtype: Any) -> None:
    """Whole numbers were once what was left of them."""
    with pytest.raises(ValueError, match=r"^dtype=.* must be np\.float32 or np\.float64$"):
        VectorEnv(invariantzoo.make_system("neurons-v0"), dtype=dtype)


@pytest.mark.parametrize(
    ("worlds", "message"),
    [
        (np.ones((4, 3), bool), r"worlds are flags of shape \(4, 3\); they must be \(4,\)"),
        (np.array([True, False]), r"worlds are flags of shape \(2,\); they must be \(4,\)"),
        (np.array([1.5]), r"worlds=array\(\[1\.5\]\) must be flags, or indices between 0 and 3"),
        (np.array([[1, 2]]), "must be flags, or indices between 0 and 3"),
        (2, "worlds=2 must be flags, or indices between 0 and 3"),
        ([0, 4], r"worlds=\[0, 4\] must be flags, or indices between 0 and 3"),
    ],
)
def test_which_worlds_to_reset_is_never_guessed(worlds: Any, message: str) -> None:
    """Flags of agents, such as a step's `terminated`, were once taken for indices of worlds."""
    system = invariantzoo.make_system("particles-crowd-v0", n_agents=3)
    env = VectorEnv(system, 4, seed=SEED)
    before = env.reset()
    with pytest.raises(ValueError, match=message):
        env.reset(worlds=worlds)
    assert np.array_equal(env.observe(), before)
    env.reset(worlds=[])
    assert np.array_equal(env.observe(), before)


@pytest.mark.parametrize(("system", "kernel"), cases())
def test_a_seed_starts_anew(system: System, kernel: bool) -> None:
    actions = action_table(system, STEPS, 3)
    env = start(system, 3, kernel, seed=SEED)
    first = record(env, actions)
    env.reset()
    second = record(env, actions)
    assert bits(first) != bits(second), "the second episode repeats the first"
    env.reset(seed=SEED)
    require_same(record(env, actions), first)
    env.reset(seed=SEED + 1)
    assert bits(record(env, actions)) != bits(first), "the seed is ignored"


@pytest.mark.parametrize(("system", "kernel"), cases())
def test_saved_and_restored(system: System, kernel: bool) -> None:
    """Into the environment itself, into a fresh one, and through a file's bytes."""
    actions = action_table(system, 2 * STEPS, 5)
    env = start(system, 5, kernel)
    record(env, actions[:STEPS])
    saved = env.save()
    kept = pickle.dumps(saved)
    expected = record(env, actions[STEPS:])
    assert pickle.dumps(saved) == kept, "stepping on changes what was saved"
    shown = env.restore(saved)
    require_same(record(env, actions[STEPS:]), expected)
    for fresh in (
        VectorEnv(system, 5, seed=1, kernel=kernel),
        start(system, 5, kernel, first=70, seed=2),
    ):
        assert fresh.restore(pickle.loads(kept)).tobytes() == shown.tobytes()
        require_same(record(fresh, actions[STEPS:]), expected)
    assert pickle.dumps(saved) == kept, "restoring shares memory with what was saved"


@pytest.mark.parametrize(("system", "kernel"), cases())
def test_pickled(system: System, kernel: bool) -> None:
    actions = action_table(system, 2 * STEPS, 5)
    unborn = pickle.loads(pickle.dumps(VectorEnv(system, 5, seed=SEED, kernel=kernel)))
    unborn.reset()
    env = start(system, 5, kernel)
    require_same(record(unborn, actions[:STEPS]), record(env, actions[:STEPS]))
    copy = pickle.loads(pickle.dumps(env))
    expected = record(env, actions[STEPS:])
    require_same(record(copy, actions[STEPS:]), expected)


def test_in_another_process() -> None:
    """A fresh interpreter finishes half-done runs of every system as this one does."""
    work, expected = [], []
    for case in cases():
        system, kernel = case.values
        actions = action_table(system, 2 * STEPS, 3)
        env = start(system, 3, kernel)
        record(env, actions[:STEPS])
        work.append((pickle.loads(pickle.dumps(env)), actions[STEPS:]))
        expected.append(bits(record(env, actions[STEPS:])))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(continue_elsewhere, (pickle.dumps(work),))
    for case, here, there in zip(cases(), expected, found, strict=True):
        assert here == there, case.id


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_the_systems_own_policies_follow_the_world(id: str) -> None:
    """Their random numbers come from the world's stream too, so a whole rollout can be repeated."""
    system = invariantzoo.make_system(id)
    for policy in system.policies().values():
        batch = start(system, 64, True)
        alone = start(system, 1, True, first=41)
        seen, seen_alone = batch.observe(), alone.observe()
        for _ in range(10):
            action = policy(by_name(system, torch.from_numpy(seen)), batch.rng(POLICY))
            one = policy(by_name(system, torch.from_numpy(seen_alone)), alone.rng(POLICY))
            assert torch.equal(action[41:42], one)
            seen = batch.step(action.numpy()).observation
            seen_alone = alone.step(one.numpy()).observation
