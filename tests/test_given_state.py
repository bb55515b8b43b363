"""Worlds that start from a given state, through every interface, for every id."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from cases import cases

import invariantzoo
from invariantzoo.envs.core.vector import VectorEnv

IDS = invariantzoo.ids()
SPINS = "ising-equilibrium-v0"


def walked(id: str, parameters: dict[str, Any], n_worlds: int) -> VectorEnv:
    """Worlds after a reset with a seed that the tests use nowhere else."""
    env = VectorEnv(invariantzoo.make_system(id, **parameters), n_worlds, seed=77)
    env.reset()
    return env


def fields(env: VectorEnv) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in env.state._asdict().items()}


@pytest.mark.parametrize(("id", "parameters"), cases())
def test_worlds_start_from_the_state_of_others(id: str, parameters: dict[str, Any]) -> None:
    source = walked(id, parameters, 2)
    env = VectorEnv(source.system, 2, seed=5)
    observation = env.reset(options={"state": fields(source)})
    np.testing.assert_array_equal(observation, source.observe())
    for name, array in fields(source).items():
        np.testing.assert_array_equal(getattr(env.state, name), array)
    np.testing.assert_array_equal(env.alive, source.alive)


@pytest.mark.parametrize("id", IDS)
def test_every_interface_starts_from_a_given_state(id: str) -> None:
    source = walked(id, {}, 1)
    state, expected = fields(source), source.observe()[0]
    rows = {name: array[0] for name, array in state.items()}
    parallel = invariantzoo.parallel_env(id)
    for given in (state, rows):  # the axis of the worlds may be left out
        observations, _ = parallel.reset(seed=3, options={"state": given})
        for agent, seen in observations.items():
            row = expected[int(agent.rsplit("_", 1)[1])]
            np.testing.assert_array_equal(seen, row)
    slots = invariantzoo.vec_env(id, seed=3)
    slots.set_options({"state": state})
    np.testing.assert_array_equal(slots.reset(), expected)
    vector = gymnasium.make_vec(f"invariantzoo/{id}", num_envs=source.n_agents)
    np.testing.assert_array_equal(vector.reset(seed=3, options={"state": state})[0], expected)
    if source.n_agents == 1:
        single = gymnasium.make(f"invariantzoo/{id}", disable_env_checker=True)
        np.testing.assert_array_equal(single.reset(seed=3, options={"state": rows})[0], expected[0])
    for env in (parallel, slots, vector):
        env.close()


def test_the_agent_environment_starts_from_a_given_state() -> None:
    spin = -np.ones((1, 16))
    env = invariantzoo.env(SPINS)
    env.reset(seed=1, options={"state": {"spin": spin}})
    assert env.observe("spin_3")[0] == 4.0  # aligned with all four neighbours


def test_fields_that_are_not_given_are_drawn_as_ever_and_options_hold_once() -> None:
    plain = VectorEnv(invariantzoo.make_system(SPINS), 3, seed=1)
    plain.reset()
    env = VectorEnv(plain.system, 3, seed=1)
    env.reset(options={"state": {"temperature": torch.tensor([[1.0], [2.0], [3.0]])}})
    np.testing.assert_array_equal(env.state.spin, plain.state.spin)
    np.testing.assert_array_equal(env.state.temperature[:, 0], [1, 2, 3])
    slots = invariantzoo.vec_env(SPINS, seed=1)
    slots.set_options({"state": {"spin": np.ones((1, 16))}})
    slots.reset()
    assert slots.worlds.state.spin.all()
    slots.reset()
    assert (slots.worlds.state.spin < 0).any()


def test_some_of_the_worlds_start_from_a_given_state() -> None:
    env = walked(SPINS, {}, 3)
    before = fields(env)
    env.reset(worlds=np.array([0, 2]), options={"state": {"spin": np.ones((2, 16))}})
    np.testing.assert_array_equal(env.state.spin[1], before["spin"][1])
    assert (env.state.spin[[0, 2]] == 1).all()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"spins": np.ones((2, 16))}, "no field 'spins'; did you mean 'spin'"),
        ({"spin": np.ones((2, 15))}, r"'spin' has shape \(2, 15\); it must be \(2, 16\)"),
        ({"spin": np.ones(16)}, r"'spin' has shape \(16,\)"),
        ({"spin": np.full((2, 16), np.nan)}, "'spin' is not finite"),
        ({"spin": np.full((2, 16), "up")}, "'spin' is str"),
        ({"turn": np.full((2, 1), 0.5)}, "'turn' has values that are no int64"),
        (np.ones((2, 16)), "must be a dictionary"),
    ],
)
def test_a_state_that_cannot_be_is_refused_and_nothing_has_changed(
    state: Any, message: str
) -> None:
    env = walked(SPINS, {}, 2)
    before = env.save()
    with pytest.raises(ValueError, match=message) as error:
        env.reset(seed=9, options={"state": state})
    assert "\n" not in str(error.value)
    for name, value in env.save().items():
        np.testing.assert_array_equal(value, before[name])


def test_options_of_another_form_are_refused_through_every_door() -> None:
    batch = gymnasium.make_vec(f"invariantzoo/{SPINS}", num_envs=16)
    doors = (invariantzoo.parallel_env(SPINS), invariantzoo.env(SPINS), batch, walked(SPINS, {}, 1))
    for door in doors:
        with pytest.raises(ValueError, match=r"^options=\[1\] must be a dictionary$"):
            door.reset(options=[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only a world alone takes one"):
        batch.reset(options={"world": 1})


def test_slots_of_a_vec_env_share_their_options() -> None:
    slots = invariantzoo.vec_env(SPINS, seed=1)
    slots.set_options([{"state": {}}] + [{} for _ in range(15)])
    with pytest.raises(ValueError, match="one dictionary, for all worlds together"):
        slots.reset()
