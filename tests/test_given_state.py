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
SPINS, CROWD = "ising-equilibrium-v0", "particles-crowd-v0"


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
    env.reset(options={"state": {"temperature": torch.tensor([[2.5], [3.0], [4.0]])}})
    np.testing.assert_array_equal(env.state.spin, plain.state.spin)
    np.testing.assert_array_equal(env.state.temperature[:, 0], [2.5, 3, 4])
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


@pytest.mark.parametrize(
    ("id", "field", "value", "message"),
    [
        (SPINS, "spin", 7, "'spin' has 7; it must be -1 or 1"),
        (SPINS, "turn", 10**9, r"'turn' has 1e\+09; it must be from 0 to 15"),
        (SPINS, "temperature", 0, "'temperature' has 0; it must be above 0"),
        ("particles-traffic-v0", "kind", 10**8, r"'kind' has 1e\+08; it must be 1 or 2"),
        ("particles-crowd-v0", "radius", -1, "'radius' has -1; it must be above 0"),
        ("particles-crowd-v0", "position", 1e10, r"'position' has 1e\+10; it must be from -1e\+09"),
        ("resampling-neutral-v0", "type", 4, "'type' has 4; it must be from 0 to 3"),
        ("tasep-open-v0", "occupied", 0.5, "'occupied' has 0.5; it must be 0 or 1"),
        ("tasep-ring-v0", "position", 3, "'position' must be sites in the order"),
        ("dirac-steer-v0", "u", 1, "'u' and 'd' have the norm"),
        ("water-dynamics-v0", "oxygen", 2, "'oxygen' has 2; it must be 0 or 1"),
        ("klein-gordon-force-v0", "dt", 0, "'dt' has 0; it must be above 0"),
        ("latent-travel-v0", "chart", 2, "'chart' has 2; it must be from 0 to 1"),
        ("neurons-v0", "rate", 0, "'rate' has 0; it must be above 0"),
    ],
)
def test_what_compiled_code_relies_on_is_asked_of_a_state(
    id: str, field: str, value: float, message: str
) -> None:
    """By a reset and by `restore`, and nothing has changed."""
    env = walked(id, {}, 2)
    before = env.save()
    given = np.full_like(getattr(env.state, field), value)
    with pytest.raises(ValueError, match=message):
        env.reset(seed=9, options={"state": {field: given}})
    with pytest.raises(ValueError, match=message):
        env.restore(before | {f"state.{field}": given})
    for name, now in env.save().items():
        np.testing.assert_array_equal(now, before[name])


@pytest.mark.parametrize(
    ("id", "field", "value", "message"),
    [
        (SPINS, "temperature", 2, "'temperature' has 2; it must be from 2.5"),  # seen as 2.5
        (SPINS, "field", -3, "'field' has -3; it must be from -1 to 1"),
        ("klein-gordon-force-v0", "mass", 3, "'mass' has 3; it must be from 0 to 1"),
        ("klein-gordon-force-v0", "dt", 2, "'dt' has 2; it must be from 0 to 1"),
        ("klein-gordon-force-v0", "dt", 0.98, r"'dt' has 0\.98; .* must be below 0\.9701"),
        ("klein-gordon-force-v0", "spacing", 0.1, r"'dt' has 0\.2; .* must be below 0\.09997"),
        ("particles-field-v0", "box", 5, r"have 5 and 1: dt=0\.1 must be below 0\.0883"),
        ("particles-field-v0", "mass", 20, r"and 20: dt=0\.1 must be below 0\.087"),
    ],
)
def test_what_agents_would_not_see_is_asked_of_a_given_state_alone(
    id: str, field: str, value: float, message: str
) -> None:
    """By a reset; worlds that are restored may have it from a curriculum."""
    env = walked(id, {}, 2)
    given = np.full_like(getattr(env.state, field), value)
    with pytest.raises(ValueError, match=message):
        env.reset(options={"state": {field: given}})
    env.restore(env.save() | {f"state.{field}": given})
    np.testing.assert_array_equal(getattr(env.state, field), given)


@pytest.mark.parametrize("n_agents", [24, 150])
def test_places_beside_the_box_are_those_in_it(n_agents: int) -> None:
    env = walked("particles-crowd-v0", {"n_agents": n_agents}, 2)
    expected, state = env.observe(), fields(env)
    turns = np.random.default_rng(0).integers(-2, 3, state["position"].shape)
    state["position"] = state["position"] + turns * state["box"][:, None]
    observation = env.reset(options={"state": state})
    np.testing.assert_allclose(observation, expected, rtol=1e-5, atol=1e-5)
    assert (env.state.position >= 0).all()
    assert (env.state.position <= env.state.box[:, None]).all()


@pytest.mark.parametrize("id", IDS)
def test_what_the_window_may_adjust_stays_in_sight(id: str) -> None:
    """At the ends of their ranges, parameters are observed as they are, and steps are numbers."""
    system = invariantzoo.make_system(id)
    for name in system.live_parameters:
        for clicks in (-1000, 1000):
            env = walked(id, {}, 2)
            env.adjust(name, clicks)
            found = system.invariants(env.tensors)
            for invariant, bound in system.bounds.items():
                if invariant in (name, "inverse_temperature", "field_alignment", "rate"):
                    assert found[invariant].min() >= bound.low, (name, clicks)
                    assert found[invariant].max() <= bound.high, (name, clicks)
            action = np.zeros((2, env.n_agents, *(system.action_space.shape or ())), int)
            step = env.step(action)
            assert np.isfinite(step.reward).all(), (name, clicks)
            system.require_state(env.tensors)
            system.require_given(env.tensors)


def test_options_of_another_form_are_refused_through_every_door() -> None:
    batch = gymnasium.make_vec(f"invariantzoo/{SPINS}", num_envs=32)
    slots = invariantzoo.vec_env(SPINS, n_worlds=2)
    slots.set_options({"world": 1})
    doors = (invariantzoo.parallel_env(SPINS), invariantzoo.env(SPINS), batch, walked(SPINS, {}, 1))
    for door in doors:
        with pytest.raises(ValueError, match=r"^options=\[1\] must be a dictionary$"):
            door.reset(options=[1])  # type: ignore[arg-type]
    message = "^world=1: only a world alone can become another, not one of 2$"
    with pytest.raises(ValueError, match=message):
        batch.reset(options={"world": 1})
    with pytest.raises(ValueError, match=message):
        slots.reset()
    with pytest.raises(ValueError, match=message):
        VectorEnv(invariantzoo.make_system(SPINS), 2).reset(options={"world": 1})


def test_a_world_alone_becomes_any_world_of_a_batch_through_every_door() -> None:
    system = invariantzoo.make_system(CROWD, n_agents=3)
    expected = VectorEnv(system, 5, seed=9).reset()[4]
    options = {"world": 4}
    parallel, aec = (
        make(CROWD, n_agents=3) for make in (invariantzoo.parallel_env, invariantzoo.env)
    )
    aec.reset(seed=9, options=options)
    slots = invariantzoo.vec_env(CROWD, seed=9, n_agents=3)
    slots.set_options(options)
    vector = gymnasium.make_vec(f"invariantzoo/{CROWD}", num_envs=3, n_agents=3)
    doors: list[Any] = [
        VectorEnv(system, 1).reset(9, options=options)[0],
        list(parallel.reset(seed=9, options=options)[0].values()),
        [aec.observe(agent) for agent in aec.agents],
        slots.reset(),
        vector.reset(seed=9, options=options)[0],
    ]
    for seen in doors:
        np.testing.assert_array_equal(seen, expected)


def test_another_world_without_a_seed_goes_on_with_the_one_it_has() -> None:
    """And not with one from the operating system: what follows a seed can be made again."""
    runs: list[Any] = []
    for _ in range(2):
        env = invariantzoo.parallel_env(CROWD, n_agents=3)
        env.reset(seed=9)
        runs.append([env.reset(options={"world": k})[0]["particle_0"] for k in (4, 4, 2)])
    np.testing.assert_array_equal(*runs)
    assert len(np.unique(runs[0], axis=0)) == 3  # episodes of their own, as after any reset


def test_slots_of_a_vec_env_share_their_options() -> None:
    slots = invariantzoo.vec_env(SPINS, seed=1)
    slots.set_options([{"state": {}}] + [{} for _ in range(15)])
    with pytest.raises(ValueError, match="one dictionary, for all worlds together"):
        slots.reset()
