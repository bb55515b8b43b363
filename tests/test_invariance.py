"""Invariance is a contract: other observers of a world see the same invariants and loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cases import SEED, cases, random_action
from systems import Hold, Point
from torch import Tensor

import invariantzoo
from invariantzoo.envs.core.physics.plane import dot
from invariantzoo.envs.core.rng import TEST, TRANSITION, Rng
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.types import State, Symmetry
from invariantzoo.envs.ising.equilibrium import Ising
from invariantzoo.envs.particles.crowd import Crowd

WORLDS, STEPS, BEFORE = 5, 5, 4
ONE_STEP, MANY_STEPS = 1e-12, 1e-8  # relative, in float64


class Transformed(Rng):
    """A generator whose numbers are those that the other observer's world draws."""

    def __init__(self, rng: Rng, symmetry: Symmetry) -> None:
        self.rng, self.symmetry = rng, symmetry

    def uniform(self, *shape: int) -> Tensor:
        return self._seen(self.rng.uniform(*shape))

    def normal(self, *shape: int) -> Tensor:
        return self._seen(self.rng.normal(*shape))

    def _seen(self, noise: Tensor) -> Tensor:
        if self.symmetry.noise is not None:
            return self.symmetry.noise(noise)
        return permuted(noise, self.symmetry)


def permuted(value: Tensor, symmetry: Symmetry) -> Tensor:
    """`value` [worlds, agents, ...] as the other observer numbers the agents."""
    if symmetry.agents is None:
        return value
    return value[torch.arange(len(value))[:, None], symmetry.agents]


def world_rng(clock: int, purpose: int = TRANSITION) -> Rng:
    index = torch.arange(WORLDS)
    return Rng(SEED, index, torch.full_like(index, clock), purpose)


def require_equal(what: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Raise AssertionError unless equal, relative to the largest `expected` of the batch."""
    assert found.shape == expected.shape, f"{what} has shape {tuple(found.shape)}"
    if found.dtype in (torch.bool, torch.int64):
        assert torch.equal(found, expected), what
        return
    error = float((found - expected).abs().max())
    scale = max(float(expected.abs().max()), 1e-3)
    assert error <= tolerance * scale, f"{what} is off by {error / scale:.1e}"


def seen(system: System, state: State) -> dict[str, Tensor]:
    """What must look the same in a state, by name; flags of agents included."""
    found = {f"invariant {name}": value for name, value in system.invariants(state).items()}
    flags = {
        "active": system.active(state),
        "terminated": system.terminated(state),
        "action mask": system.action_mask(state),
    }
    return found | {name: value for name, value in flags.items() if value is not None}


def check_symmetry(system: System, state: State, symmetry: Symmetry) -> None:
    """Run a world and the same world as another observer sees it; AssertionError if unlike."""
    mine, other = state, symmetry.state
    changed = [
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(mine, other, strict=True)
    ]
    assert any(changed), f"{symmetry.name} leaves the world as it is"
    signs = {f"invariant {name}": sign for name, sign in symmetry.signs.items()}

    def compare(mine: State, other: State, when: str, tolerance: float) -> None:
        theirs = seen(system, other)
        for name, value in seen(system, mine).items():
            expected = permuted(value, symmetry)
            if name in signs:
                expected = expected * signs[name]
            require_equal(f"{symmetry.name}, {when}: {name}", theirs[name], expected, tolerance)

    compare(mine, other, "at once", ONE_STEP)
    for t in range(STEPS):
        tolerance = ONE_STEP if t == 0 else MANY_STEPS
        action = random_action(system, world_rng(BEFORE + t, TEST), WORLDS)
        same = permuted(action, symmetry)
        if "action" in symmetry.signs:
            same = same * symmetry.signs["action"]
        clock = BEFORE + t
        after = system.transition(mine, action, world_rng(clock))
        other_after = system.transition(other, same, Transformed(world_rng(clock), symmetry))
        loss = permuted(system.loss(mine, action, after), symmetry)
        other_loss = system.loss(other, same, other_after)
        when = f"step {t + 1}"
        require_equal(f"{symmetry.name}, {when}: loss", other_loss, loss, tolerance)
        compare(after, other_after, when, tolerance)
        mine, other = after, other_after


def states_and_symmetries(system: System) -> Iterator[tuple[State, Symmetry]]:
    """A world after a few random steps, and what the system says of it."""
    state = system.initial(world_rng(0), WORLDS)
    for t in range(BEFORE):
        action = random_action(system, world_rng(t, TEST), WORLDS)
        state = system.transition(state, action, world_rng(t))
    for symmetry in system.symmetries(state, world_rng(99, TEST)):
        yield state, symmetry


@pytest.mark.parametrize(("id", "parameters"), cases())
def test_every_observer_sees_the_same(id: str, parameters: dict[str, Any]) -> None:
    system = invariantzoo.make_system(id, **parameters)
    names = []
    for state, symmetry in states_and_symmetries(system):
        check_symmetry(system, state, symmetry)
        names.append(symmetry.name)
    assert names, f"{id} lists no symmetry"
    assert len(set(names)) == len(names)


def test_particles_list_the_galilean_group() -> None:
    system = Crowd(n_agents=5)
    names = {symmetry.name for _, symmetry in states_and_symmetries(system)}
    assert names == {"relabel", "translation", "boost", "rotation", "reflection"}


def test_spins_list_the_lattice_group() -> None:
    for update in ("sequential", "checkerboard", "parallel"):
        names = {symmetry.name for _, symmetry in states_and_symmetries(Ising(update=update))}
        assert names == {"translation", "rotation", "reflection", "flip"}


@dataclass(frozen=True)
class SeesSpeed(Crowd):
    """Wrong: its own speed in the laboratory."""

    def invariants(self, state: Any) -> dict[str, Tensor]:
        return super().invariants(state) | {"speed_error": dot(state.velocity, state.velocity)}


@dataclass(frozen=True)
class SeesALittleSpeed(Crowd):
    """Wrong in the eleventh digit."""

    def invariants(self, state: Any) -> dict[str, Tensor]:
        found = super().invariants(state)
        found["speed_error"] = found["speed_error"] * (1 + 1e-10 * state.velocity[..., 0])
        return found


@dataclass(frozen=True)
class SeesPlace(Crowd):
    """Wrong: where it stands on the torus."""

    def invariants(self, state: Any) -> dict[str, Tensor]:
        found = super().invariants(state)
        found["I1"] = found["I1"] + 1e-6 * state.position[..., :1]
        return found


@dataclass(frozen=True)
class SeesHandedness(Crowd):
    """Wrong: a pseudo-scalar passed off as a scalar."""

    def invariants(self, state: Any) -> dict[str, Tensor]:
        found = super().invariants(state)
        return found | {"I2": found["I4"]}


@dataclass(frozen=True)
class SeesNumber(Crowd):
    """Wrong: the number that the agent happens to have."""

    def invariants(self, state: Any) -> dict[str, Tensor]:
        found = super().invariants(state)
        number = torch.arange(self.n_agents, dtype=torch.float64)
        return found | {"speed_error": found["speed_error"] + 1e-6 * number}


@dataclass(frozen=True)
class LosesByPlace(Crowd):
    """Wrong: a loss that depends on where the laboratory is."""

    def loss(self, state: Any, action: Tensor, next_state: Any) -> Tensor:
        return super().loss(state, action, next_state) + 1e-6 * next_state.position[..., 1]


@dataclass(frozen=True)
class FallsDown(Crowd):
    """Wrong: an invariant loss and view, and an acceleration that turns with nothing."""

    def acceleration(self, state: Any, action: Tensor) -> Tensor:
        down = torch.tensor([0.0, -1e-6], dtype=torch.float64) * state.desired[..., :1]
        return super().acceleration(state, action) + down


class KickedOneWay(Hold):
    """Wrong: forgets that its noise is seen mirrored."""

    def symmetries(self, state: Point, rng: Rng) -> Iterator[Symmetry]:
        for symmetry in super().symmetries(state, rng):
            yield symmetry._replace(noise=None)


class TurnsStay(Ising):
    """Wrong: forgets that whose turn it is moves with the spins."""

    def symmetries(self, state: Any, rng: Rng) -> Iterator[Symmetry]:
        for symmetry in super().symmetries(state, rng):
            yield symmetry._replace(state=symmetry.state._replace(turn=state.turn))


WRONG = [
    (SeesSpeed(n_agents=5), "boost, at once: invariant speed_error"),
    (SeesALittleSpeed(n_agents=5), "boost, at once: invariant speed_error"),
    (SeesPlace(n_agents=5), "translation, at once: invariant I1"),
    (SeesHandedness(n_agents=5), "reflection, at once: invariant I2"),
    (SeesNumber(n_agents=5), "relabel, at once: invariant speed_error"),
    (LosesByPlace(n_agents=5), "translation, step 1: loss"),
    (FallsDown(n_agents=5), "rotation, step 1: "),
    (KickedOneWay(), "reflection, step 1: "),
    (TurnsStay(), "translation, at once: active"),
]


@pytest.mark.parametrize(("system", "message"), WRONG, ids=lambda each: type(each).__name__)
def test_a_wrong_invariant_is_caught(system: System, message: str) -> None:
    failures = []
    for state, symmetry in states_and_symmetries(system):
        try:
            check_symmetry(system, state, symmetry)
        except AssertionError as error:
            failures.append(str(error))
    assert any(failure.startswith(message) for failure in failures), failures
