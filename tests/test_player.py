"""Policies on the state: its own precision, no limits, a memory per world, in every runner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from systems import Hold, Point, Relay, Stations
from torch import Tensor

import invariantzoo
from invariantzoo.agents.player import Player
from invariantzoo.agents.policy import make_policy, policy_names
from invariantzoo.commands.rollout import Session
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.types import StatePolicy
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.training.rl.score import evaluate
from invariantzoo.training.runs.video import record_video


@dataclass(frozen=True)
class Placed(Hold):
    """A point that "third" puts at 1/3 with its first step, and there to 1/3 + (steps made)."""

    horizon: int = 5
    noise: float = 0.0

    def transition(self, state: Point, action: Tensor, rng: Rng) -> Point:
        return Point(state.x + action[..., 0], state.v)

    def metrics(self, state: Point, action: Tensor, next_state: Point) -> dict[str, Tensor]:
        return {"distance": next_state.x[:, 0].abs(), "farthest": (next_state.x - 1 / 3)[:, 0]}

    def state_policies(self) -> dict[str, StatePolicy]:
        def start(state: Point) -> tuple[Tensor, ...]:
            return torch.zeros(len(state.x), 1, dtype=torch.float64), state.x

        def act(state: Point, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
            steps, first = memory
            return (1 / 3 + 10 * steps - state.x).unsqueeze(-1), (steps + 1, first)

        return {"third": StatePolicy(act, start)}


@pytest.fixture
def played() -> tuple[VectorEnv, Player]:
    system = Placed()
    env = VectorEnv(system, 3, seed=1)
    return env, Player(env, make_policy("third", system))


def test_actions_are_neither_rounded_nor_limited(played: tuple[VectorEnv, Player]) -> None:
    env, player = played
    observation = env.reset()
    for step in range(4):
        observation = player.step(observation).observation
        assert np.abs(env.state.x - 1 / 3 - 10 * step).max() < 1e-14  # actions of 10
    with pytest.raises(ValueError, match="actions must be finite and in"):
        env.step(np.full((3, 1, 1), 10.0))
    with pytest.raises(ValueError, match=r"actions must be finite$"):
        env.step(np.full((3, 1, 1), np.nan), unbounded=True)


def test_a_world_that_starts_anew_is_forgotten(played: tuple[VectorEnv, Player]) -> None:
    env, player = played
    observation = env.reset()
    for _ in range(2):
        observation = player.step(observation).observation
    observation = env.reset(worlds=np.array([1]))
    player.step(observation)
    np.testing.assert_allclose(env.state.x[:, 0], [20 + 1 / 3, 1 / 3, 20 + 1 / 3])
    for _ in range(3):  # worlds 0 and 2 end by the horizon and begin again
        player.step(observation)
    np.testing.assert_allclose(env.state.x[:, 0], [1 / 3, 30 + 1 / 3, 1 / 3])
    env.reset(seed=4)
    player.step(observation)
    np.testing.assert_allclose(env.state.x[:, 0], 1 / 3)


def test_what_is_kept_is_the_policys_own(played: tuple[VectorEnv, Player]) -> None:
    env, player = played
    first = env.state.x.copy() if env.reset() is not None else None
    for _ in range(3):
        player.step(env.observe())
    np.testing.assert_array_equal(player.save()["memory.1"], first)


def test_a_saved_player_goes_on(played: tuple[VectorEnv, Player]) -> None:
    env, player = played
    observation = env.reset()
    for _ in range(2):
        observation = player.step(observation).observation
    saved = player.save()
    expected = player.step(observation).reward
    other = VectorEnv(env.system, 3, seed=7)
    other.reset()
    again = Player(other, make_policy("third", env.system))
    np.testing.assert_array_equal(again.step(again.restore(saved)).reward, expected)
    saved["memory.0"] = saved["memory.0"][:2]
    with pytest.raises(ValueError, match="memory of shapes"):
        again.restore(saved)


def test_runners_ask_it(played: tuple[VectorEnv, Player], tmp_path: Path) -> None:
    system = played[0].system
    policy = make_policy("third", system)
    scores = evaluate(system, policy, episodes=3, seeds=1, deterministic=True)
    np.testing.assert_allclose(scores["farthest"], 40, atol=1e-13)
    session = Session(VectorEnv(system, 1, seed=0, autoreset=False), policy, False)
    for _ in range(5):
        session.step()
    assert abs(session.results()["farthest"] - 40) < 1e-13
    record_video(system, policy, tmp_path / "third.gif", n_steps=3, size=64)
    assert (tmp_path / "third.gif").stat().st_size > 0


def test_observations_are_not_enough(played: tuple[VectorEnv, Player]) -> None:
    env, _ = played
    assert "third" in policy_names(env.system)
    with pytest.raises(ValueError, match="'third' acts on the state, not on observations"):
        make_policy("third", env.system)(torch.from_numpy(env.reset()), None)
    with pytest.raises(KeyError, match="did you mean 'third'"):
        make_policy("thirdd", env.system)


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_policies_on_the_state_follow_the_world(id: str) -> None:
    """An action depends on its own world alone, and no policy has the name of another kind."""
    system = invariantzoo.make_system(id)
    assert not set(system.state_policies()) & {"random", *system.policies(), *system.baselines}
    for name in system.state_policies():
        envs = [VectorEnv(system, 3, seed=2), VectorEnv(system, 1, seed=2, first_world=2)]
        players = [Player(env, make_policy(name, system)) for env in envs]
        seen = [env.reset() for env in envs]
        for _ in range(3):
            batch, alone = (p.act(o) for p, o in zip(players, seen, strict=True))
            assert batch.dtype == np.float64
            assert batch.shape[1:] == alone.shape[1:]
            np.testing.assert_allclose(batch[2:], alone, rtol=1e-12, atol=1e-14)
            steps = (
                env.step(a, unbounded=True) for env, a in zip(envs, (batch, alone), strict=True)
            )
            seen = [step.observation for step in steps]


@pytest.mark.parametrize(
    ("attribute", "sees"),
    [
        ({"also_sees": "active"}, "active"),
        ({"also_sees": "legal_actions"}, "legal_actions"),
        ({"heeds_masks": True}, "legal_actions"),  # what it was called in 1.0
    ],
)
def test_a_policy_is_handed_what_it_also_sees(attribute: dict[str, Any], sees: str) -> None:
    env = VectorEnv(invariantzoo.make_system("ising-equilibrium-v0"), 2, seed=3)
    handed = []

    def policy(observation: Tensor, rng: Rng | None, also: Tensor) -> Tensor:
        handed.append(also)
        return torch.zeros(observation.shape[:2], dtype=torch.int64)

    for name, value in attribute.items():
        setattr(policy, name, value)
    observation = env.reset()
    Player(env, policy).act(observation)  # type: ignore[arg-type]
    assert (handed[0].numpy() == getattr(env, sees)()).all()


@dataclass(frozen=True)
class Scored(Relay):
    """Runners whose loss and metrics can be of another form."""

    turns: bool = False
    form: str = "right"

    reductions: ClassVar[dict[str, str]] = {"one": "last", "two": "last"}

    def loss(self, state: Stations, action: Tensor, next_state: Stations) -> Tensor:
        each = super().loss(state, action, next_state)
        return each.mean(-1) if self.form == "of worlds" else each

    def metrics(self, state: Stations, action: Tensor, after: Stations) -> dict[str, Tensor]:
        one = torch.ones(len(after.x))
        if self.form == "of agents":
            one = after.x
        names = {"two": 2 * torch.ones(len(after.x)), "one": one}
        return {"two": names["two"]} if self.form == "too few" else names


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 1, (2,)), spaces.Box(-1, 1, (1, 2)), spaces.Discrete(3, start=1)]
)
def test_other_spaces_of_actions_are_refused(
    space: spaces.Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actions below 0 were once taken where the space began there."""
    monkeypatch.setattr(Relay, "action_space", space)
    with pytest.raises(ValueError, match=r"^Relay\.action_space is .*; it must be Box\(-1, 1"):
        VectorEnv(Relay())


def test_metrics_go_by_name_whatever_their_order() -> None:
    env = VectorEnv(Scored(horizon=1), 4, seed=0)
    env.reset()
    step = env.step(np.zeros((4, 4, 2), np.float32))
    assert {name: value.tolist() for name, value in step.metrics.items()} == {
        "one": [1.0] * 4,
        "two": [2.0] * 4,
    }


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("of worlds", r"Scored\.loss has shape \(4,\); it must be \[worlds, agents\], \(4, 4\)"),
        ("of agents", r"metric 'one' of Scored has shape \(4, 4\); it must be \[worlds\], \(4,\)"),
        ("too few", "Scored.metrics gives two, but its reductions are those of one, two"),
    ],
)
def test_scores_of_another_form_are_refused(form: str, message: str) -> None:
    """A loss of each of four worlds was once that of each of four agents."""
    env = VectorEnv(Scored(form=form), 4, seed=0)
    before = env.reset()
    with pytest.raises(ValueError, match=f"^{message}$"):
        env.step(np.ones((4, 4, 2), np.float32))
    assert np.array_equal(env.observe(), before)


def test_who_acts_next_is_said_in_flags_that_stay_as_they_are() -> None:
    env = VectorEnv(Relay(turns=False), 8, seed=3, autoreset=False)
    env.reset()
    first = env.active()
    assert first.all()
    while env.alive.all():
        env.step(np.ones((8, 4, 2), np.float32))
    assert first.all()
    assert np.array_equal(env.active(), env.alive)


def test_a_policy_may_answer_in_numpy() -> None:
    def still(observation: Tensor, rng: Rng | None) -> Any:
        return np.full((*observation.shape[:2], 1), 0.5, np.float32)

    def as_tensor(observation: Tensor, rng: Rng | None) -> Tensor:
        return torch.from_numpy(still(observation, rng))

    found, expected = (
        evaluate(Placed(), policy, episodes=2, seeds=1, deterministic=True)
        for policy in (still, as_tensor)
    )
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("policy", ["third", None])
def test_what_is_no_policy_is_refused(policy: Any) -> None:
    with pytest.raises(ValueError, match=r"^policy=.* is no function of observations"):
        evaluate(Placed(), policy, episodes=1, seeds=1, deterministic=True)


def test_a_name_in_place_of_a_system_is_refused() -> None:
    name: Any = "particles-crowd-v0"
    policy = make_policy("third", Placed())
    asked: list[Callable[[], object]] = [
        lambda: evaluate(name, policy, episodes=1, seeds=1, deterministic=True),
        lambda: VectorEnv(name, 2),
        lambda: make_policy("straight", name),
        lambda: policy_names(name),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match=r"^system='particles-crowd-v0' is a name"):
            ask()
