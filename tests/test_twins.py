"""Two forms of one step: torch and the compiled kernel agree, and torch has the right gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import reference
import torch
from cases import SEED, action_table, cases
from torch import Tensor

import invariantzoo
from invariantzoo.envs.core.observation import is_discrete
from invariantzoo.envs.core.physics.kernels.discs import GRID_FROM, nearest_discs
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.particles.crowd import Crowd
from invariantzoo.envs.particles.discs import State
from invariantzoo.envs.particles.encounter import Encounter

ONE_STEP = 1e-12
FLOAT32 = 2**-23  # one unit in the last place, relative
WORLDS, STEPS = 6, 8


def with_kernel() -> list[Any]:
    found = []
    for case in cases():
        id, parameters = case.values
        if invariantzoo.make_system(id, **parameters).kernel(1) is not None:
            found.append(case)
    return found


def twins(system: System, worlds: int = WORLDS) -> tuple[VectorEnv, VectorEnv]:
    """The compiled and the torch form in the same state."""
    fast, plain = (VectorEnv(system, worlds, seed=SEED, kernel=kernel) for kernel in (True, False))
    require_close("first sight", fast.reset(), plain.reset(), FLOAT32)
    for name, value in fast.state._asdict().items():
        require_close(f"first {name}", value, getattr(plain.state, name), ONE_STEP)
    return fast, plain


def require_close(what: str, found: Any, expected: Any, tolerance: float) -> None:
    undefined = np.isnan(expected)  # metrics of a world that is warming up
    assert np.array_equal(np.isnan(found), undefined), what
    found, expected = np.where(undefined, 0, found), np.where(undefined, 0, expected)
    # What is a difference of numbers of order 1 is known to their rounding.
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-2)
    error = float(np.abs(np.asarray(found, float) - expected).max(initial=0.0))
    assert error <= tolerance * scale, f"{what} is off by {error / scale:.1e}"


@pytest.mark.parametrize(("id", "parameters"), with_kernel())
def test_one_step_is_the_same(id: str, parameters: dict[str, Any]) -> None:
    """Both forms start every step from the same state."""
    system = invariantzoo.make_system(id, **parameters)
    fast, plain = twins(system)
    for t, action in enumerate(action_table(system, STEPS, WORLDS)):
        one, other = fast.step(action), plain.step(action)
        for name, value in fast.state._asdict().items():
            require_close(f"step {t}: {name}", value, getattr(plain.state, name), ONE_STEP)
        require_close(f"step {t}: reward", one.reward, other.reward, ONE_STEP)
        require_close(f"step {t}: seen", one.observation, other.observation, FLOAT32)
        totals = fast.episode_metrics(), plain.episode_metrics()
        for name, value in totals[0].items():
            require_close(f"step {t}: {name}", value, totals[1][name], ONE_STEP)
        plain.restore(fast.save())


@pytest.mark.parametrize(("id", "parameters"), with_kernel())
def test_nothing_saturates(id: str, parameters: dict[str, Any]) -> None:
    """Extreme actions, whose acceleration is limited, and none at all."""
    system = invariantzoo.make_system(id, **parameters)
    if is_discrete(system):
        pytest.skip("whole numbers have no extremes")
    shape = (WORLDS, system.n_agents, *system.action_space.shape)
    for value in (-1.0, 0.0, 1.0):
        fast, plain = twins(system)
        action = np.full(shape, value, np.float32)
        rewards = fast.step(action).reward, plain.step(action).reward
        require_close(f"reward of {value}", *rewards, ONE_STEP)


@pytest.mark.parametrize(("id", "parameters"), cases())
@pytest.mark.parametrize("kernel", [True, False])
def test_a_bad_action_is_refused_and_changes_nothing(
    id: str, parameters: dict[str, Any], kernel: bool
) -> None:
    system = invariantzoo.make_system(id, **parameters)
    env = VectorEnv(system, 2, seed=SEED, kernel=kernel)
    env.reset()
    good = action_table(system, 1, 2)[0]
    if is_discrete(system):
        bad_values: list[float] = [-1, system.action_space.n, 10**6]  # type: ignore[union-attr]
    else:
        bad_values = [np.nan, np.inf, -np.inf, 1.01, -1.01]
    before = env.save()
    last = np.flatnonzero(env.active()[1])[-1]  # actions of those who do not act are ignored
    name = f"{system.agent_name}_{last} in world 1"
    for value in bad_values:
        action = good.copy()
        action[1, last] = value
        with pytest.raises(ValueError, match=f"{name}.*must be finite and") as caught:
            env.step(action)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"actions have shape .* they must be"):
        env.step(good[:1])
    after = env.save()
    for key, value in before.items():
        assert np.array_equal(value, after[key]), key
    env.step(good)


def test_a_whole_number_is_wanted_where_actions_are_discrete() -> None:
    env = VectorEnv(invariantzoo.make_system("ising-equilibrium-v0"), 1, seed=0)
    env.reset()
    env.step(np.ones((1, 16)))
    for wrong in (0.5, np.nan):
        with pytest.raises(ValueError, match="whole numbers 0 to 1"):
            env.step(np.full((1, 16), wrong))


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("id", invariantzoo.ids())
def test_the_callers_actions_are_left_alone(id: str, kernel: bool) -> None:
    system = invariantzoo.make_system(id)
    env = VectorEnv(system, 3, seed=SEED, kernel=kernel)
    env.reset()
    for action in action_table(system, 5, 3):
        given = action.copy()
        given.flags.writeable = True
        env.step(given)
        assert given.tobytes() == action.tobytes()


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("id", invariantzoo.ids())
def test_actions_may_lie_in_memory_as_they_like(id: str, kernel: bool) -> None:
    """Read-only, strided, in other types, or as lists."""
    system = invariantzoo.make_system(id)
    action = np.sign(action_table(system, 1, 3)[0])
    locked = action.copy()
    locked.flags.writeable = False
    shapes = [np.asfortranarray(action), np.repeat(action, 2, 0)[::2], locked, action.tolist()]
    shapes += [action.astype(kind) for kind in (np.int8, np.int32, np.float16, np.float64)]
    found = []
    for given in (action, *shapes):
        env = VectorEnv(system, 3, seed=SEED, kernel=kernel)
        env.reset()
        found.append(env.step(given).reward.tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("id", invariantzoo.ids())
def test_no_buffer_is_handed_out_twice(id: str, kernel: bool) -> None:
    system = invariantzoo.make_system(id)
    env = VectorEnv(system, 2, seed=SEED, kernel=kernel)
    shown = [env.reset()]
    rewards = []
    for action in action_table(system, 4, 2):
        out = env.step(action)
        shown.append(out.observation)
        rewards.append(out.reward)
    for arrays in (shown, rewards):
        for i, one in enumerate(arrays):
            assert not any(np.shares_memory(one, other) for other in arrays[:i])


@pytest.mark.parametrize("n", [2, 9, GRID_FROM - 1, GRID_FROM, 400])
@pytest.mark.parametrize("side", [0.0, 3.0, 6.1, 12.0])
@pytest.mark.parametrize("k", [1, 6])
def test_neighbours_are_those_of_looking_at_all(n: int, side: float, k: int) -> None:
    """Open space and torus, below and above the cell list, with few and many cells."""
    generator = np.random.default_rng(n)
    x = generator.uniform(0, side or 8.0, (1, n, 2))
    x[0, : n // 4] = np.nextafter(x[0, : n // 4] * 0 + (side or 8.0), 0)  # piled up in a corner
    x[0, : n // 4] -= generator.uniform(0, 0.3, (n // 4, 2))
    index = nearest_discs(x, np.array([[side]]), 2.0, k)
    for i, expected in enumerate(reference.neighbours(x[0], side, 2.0, k)):
        found = [int(j) for j in index[0, i] if j >= 0]
        assert found == expected, i
        assert (index[0, i, len(found) :] == -1).all()


def test_the_cell_list_does_not_change_the_physics() -> None:
    """A crowd just above the threshold against the torch form with all pairs sorted."""
    system = Crowd(n_agents=GRID_FROM + 3, n_neighbours=5)
    fast, _ = twins(system, 2)
    action = action_table(system, 1, 2)[0]
    fast.step(action)
    for world in range(2):
        x, side = fast.state.position[world], float(fast.state.box[world, 0])
        expected = reference.neighbours(x, side, system.cutoff, 5)
        pairs = system.pairs(fast.tensors)
        for i, row in enumerate(expected):
            assert pairs.neighbour[world, i, : len(row)].tolist() == row


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_contacts_are_seen_where_the_loss_sees_none(margin: float) -> None:
    """Two discs head on, until they overlap by a fifth of their diameter."""
    metrics = []
    for kernel in (True, False):
        straight = {"impact": 0.0, "angle": 0.0, "orientation": 0.0}
        env = VectorEnv(Encounter(margin=margin, horizon=40, **straight), 1, seed=0, kernel=kernel)
        env.reset()
        action = np.zeros((1, 2, *env.system.action_space.shape), np.float32)
        while env.age[0] < 39:
            env.step(action)
        metrics.append({name: float(value[0]) for name, value in env.episode_metrics().items()})
    assert metrics[0] == pytest.approx(metrics[1])
    assert metrics[0]["contact"] == 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_agents": 3, "density": 0.5},
        {"n_agents": 3, "density": 0.5, "actions": "heading", "seen": ("I1", "I4")},
        {"separation": 1.0},
    ],
    ids=str,
)
def test_gradients_flow_through_the_dynamics(parameters: dict[str, Any]) -> None:
    """d loss, d invariants / d (position, velocity, desired velocity, action), by differences."""
    cls: Any = Encounter if "separation" in parameters else Crowd
    system = cls(horizon=3, max_acceleration=20.0, margin=2.0, **parameters)
    start = system.initial(Rng.single(SEED, 1), 1)
    rng = Rng.single(SEED + 1, 1)
    velocity = start.velocity + 0.3 * rng.normal(*start.velocity.shape)
    size = system.action_space.shape[0]
    action = 0.5 * (2 * rng.uniform(1, system.n_agents, size) - 1)

    def two_steps(position: Tensor, velocity: Tensor, desired: Tensor, action: Tensor) -> Any:
        state = State(position, velocity, desired, start.radius, start.box)
        first = system.transition(state, action, None)
        second = system.transition(first, action, None)
        seen = torch.cat([part.flatten() for part in system.invariants(second).values()])
        return system.loss(first, action, second), seen

    parts = (start.position, velocity, start.desired, action)
    inputs = tuple(part.clone().requires_grad_() for part in parts)
    loss, _ = two_steps(*inputs)
    grads = torch.autograd.grad(loss.sum(), inputs)
    assert all(bool((grad != 0).any()) for grad in grads)
    assert torch.autograd.gradcheck(two_steps, inputs)


def with_twice_the_loss(system: System) -> System:
    base: Any = type(system)

    def loss(self: Any, state: Any, action: Tensor, next_state: Any) -> Any:
        return 2 * base.loss(self, state, action, next_state)

    fields = [field.name for field in dataclasses.fields(base) if field.init]
    dearer: Any = type("Dearer", (base,), {"loss": loss})
    made: System = dearer(**{name: getattr(system, name) for name in fields})
    return made


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_other_laws_inherit_nothing_compiled(id: str) -> None:
    dearer = with_twice_the_loss(invariantzoo.make_system(id))
    assert dearer.kernel(1) is None
    assert dearer.fused == ()


@pytest.mark.parametrize("id", ["tasep-gates-v0", "quadratic-regimes-v0"])
def test_another_loss_is_what_agents_get(id: str) -> None:
    plain = invariantzoo.make_system(id)
    action = np.full((2, plain.n_agents, *plain.action_space.shape), 0.3, np.float32)
    rewards = []
    for system in (plain, with_twice_the_loss(plain)):
        env = VectorEnv(system, 2, seed=SEED)
        env.reset()
        rewards.append(env.step(action).reward)
    np.testing.assert_allclose(rewards[1], 2 * rewards[0], rtol=1e-10)


def test_a_mixin_says_itself_what_is_compiled() -> None:
    class Slower:
        def kernel(self, worlds: int) -> None:
            return None

    class Slow(Slower, type(invariantzoo.make_system("tasep-gates-v0"))):  # type: ignore[misc]
        def loss(self, *step: Any) -> Any:
            return 2 * super().loss(*step)

    assert Slow().kernel(1) is None
    assert Slow().fused == ()
