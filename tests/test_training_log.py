"""What training logs: numbers of whole episodes, whatever the age at which an update ends."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from matplotlib.figure import Figure
from torch import Tensor

from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.types import Bound
from invariantzoo.training.rl import score
from invariantzoo.training.rl.algorithms import config_class, make_trainer
from invariantzoo.training.rl.episode_log import logged_updates
from invariantzoo.training.rl.episode_loss import EpisodeLoss
from invariantzoo.training.runs.learning_curve import draw_learning_curve


class Age(NamedTuple):
    age: Tensor  # [worlds, 1]


@dataclass(frozen=True)
class Aging(System):
    """The loss of an agent is a function of its age, whatever anybody does; all may leave early."""

    n_agents: int = 3
    horizon: int = 12
    leaves: int = 0  # the age at which agent 0 leaves, and every other one a step later; 0: none

    reductions: ClassVar[dict[str, str]] = {"oldest": "max"}

    @property
    def bounds(self) -> dict[str, Bound]:
        return {"age": Bound(0, 100)}

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (1,))

    def initial(self, rng: Rng, worlds: int) -> Age:
        return Age(torch.zeros(worlds, 1, dtype=torch.float64))

    def transition(self, state: Age, action: Tensor, rng: Rng) -> Age:
        return Age(state.age + 1)

    def invariants(self, state: Age) -> dict[str, Tensor]:
        return {"age": state.age.expand(-1, self.n_agents)}

    def loss(self, state: Age, action: Tensor, next_state: Age) -> Tensor:
        return 5 / (1 + state.age) + 0 * action[..., 0]

    def metrics(self, state: Age, action: Tensor, next_state: Age) -> dict[str, Tensor]:
        return {"oldest": next_state.age[:, 0]}

    def terminated(self, state: Age) -> Tensor | None:
        if not self.leaves:
            return None
        return state.age >= self.leaves + torch.arange(self.n_agents)


LEARNERS: dict[str, dict[str, Any]] = {
    "ppo": {"n_worlds": 2, "n_steps": 5, "batch_size": 30, "n_epochs": 1},
    "a2c": {"n_worlds": 2, "n_steps": 5},
    "sac": {"n_worlds": 2, "n_steps": 6, "train_freq": 3, "batch_size": 8, "learning_starts": 50},
    "descent": {"n_worlds": 2, "rollout": 5},
    "es": {"n_worlds": 2, "pairs": 2},
}


def whole(system: System) -> float:
    """The loss per agent and step of a whole episode, as it is scored."""
    policy = make_policy("random", system)
    scores = score.evaluate(system, policy, episodes=2, seeds=1, deterministic=False)
    return float(scores["loss"].mean())


@pytest.mark.parametrize("algo", LEARNERS)
def test_the_logged_loss_does_not_depend_on_the_age(
    algo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = Aging()
    config = config_class(algo)(**LEARNERS[algo])
    monkeypatch.setattr("invariantzoo.training.rl.episode_log._SHARE", 2)  # for more of them, soon
    updates = list(make_trainer(algo, system, config, seed=0, steps=900))
    losses = [update.row["loss"] for update in updates if "loss" in update.row]
    assert len(losses) >= (4 if algo == "descent" else len(updates) - 2)
    assert np.allclose(losses, whole(system), rtol=1e-6, atol=0)
    assert np.ptp(losses) < 1e-12 * losses[0]
    for update in updates:
        if "return" in update.row:
            assert update.row["return"] == pytest.approx(-12 * losses[0], rel=1e-6)
            assert update.row["oldest"] == 12
    if algo not in ("descent", "es"):  # whose updates are all the first steps, or all whole
        assert np.ptp([update.loss for update in updates]) > 0.5


def test_an_update_that_is_no_whole_episode_is_logged_beside_it() -> None:
    system = Aging()
    config = config_class("descent")(**LEARNERS["descent"])
    updates = list(make_trainer("descent", system, config, seed=0, steps=2000))
    first = np.mean([5 / (1 + age) for age in range(5)])
    assert all(np.isclose(update.row["rollout_loss"], first) for update in updates)
    assert "loss" in updates[0].row
    assert "loss" in updates[-1].row


@pytest.mark.parametrize("updates", [1, 2, 3, 66, 261, 2605, 10**6])
@pytest.mark.parametrize(("rollout", "horizon"), [(40, 40), (40, 400), (1, 2), (5, 1)])
def test_the_episodes_of_the_log_are_at_most_a_fiftieth_of_the_steps(
    updates: int, rollout: int, horizon: int
) -> None:
    """Beyond the first and the last update, which are always logged."""
    logged = sorted(logged_updates(updates, rollout, horizon))
    assert logged[0] == 1
    assert logged[-1] == updates
    steps = updates * rollout
    if len(logged) > 2:
        assert 50 * len(logged) * horizon <= steps
        assert np.ptp(np.diff(logged)) <= 1
        assert len(logged) == 22 or 50 * (len(logged) + 1) * horizon > steps


def test_what_is_learned_does_not_depend_on_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    system = Aging()
    config = config_class("descent")(**LEARNERS["descent"])
    states = []
    for points in (2, 22):
        monkeypatch.setattr("invariantzoo.training.rl.episode_log._LEAST_POINTS", points)
        trainer = make_trainer("descent", system, config, seed=0, steps=900)
        assert sum("loss" in update.row for update in trainer) == points
        states.append(trainer.state_dict()["network"])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_worlds_whose_agents_leave_count_who_is_there() -> None:
    system = Aging(leaves=4)
    config = config_class("ppo")(**LEARNERS["ppo"])
    updates = list(make_trainer("ppo", system, config, seed=0, steps=1000))
    losses = [update.row["loss"] for update in updates if "loss" in update.row]
    assert len(losses) == len(updates) - 1
    assert np.allclose(losses, whole(system), rtol=1e-6, atol=0)


def test_before_an_episode_ended_there_are_numbers_too() -> None:
    system = Aging(horizon=160_000)
    config = config_class("ppo")(**LEARNERS["ppo"])
    updates = list(make_trainer("ppo", system, config, seed=0, steps=120))
    assert [set(update.row) & {"loss", "running_loss", "return"} for update in updates] == [
        {"running_loss"}
    ] * 4
    ages = np.arange(20).reshape(4, 5)
    running = [update.row["running_loss"] for update in updates]
    assert np.allclose(running, (5 / (1 + ages)).mean(1))


def test_a_run_that_goes_on_logs_the_same() -> None:
    system = Aging()
    config = config_class("ppo")(**LEARNERS["ppo"])
    one, other = (make_trainer("ppo", system, config, seed=3, steps=600) for _ in range(2))
    updates = iter(one)
    for _ in range(4):
        next(updates)
    state = copy.deepcopy(one.state_dict())
    other.load_state_dict(state)
    assert [update.row for update in updates] == [update.row for update in other]
    state.pop("episode_loss")  # as of a version that did not keep it
    late = make_trainer("ppo", system, config, seed=3, steps=600)
    late.load_state_dict(state)
    losses = [update.row.get("loss") for update in late]
    assert losses[:2] == [None, None]  # until 12 steps in a row are known
    assert np.allclose(losses[2:], whole(system))


def test_an_update_is_as_long_as_is_said() -> None:
    system = Aging()
    for algo, settings in LEARNERS.items():
        for more in ({}, {"rollout" if algo in ("descent", "es") else "n_steps": 7}):
            config = config_class(algo)(**{**settings, **more})
            trainer = make_trainer(algo, system, config, seed=0, steps=300)
            assert [update.steps for update in trainer] == [
                trainer.per_update * count for count in range(1, -(-300 // trainer.per_update) + 1)
            ]


def test_the_mean_over_an_episode_counts_every_step_once() -> None:
    """Against the plain sum over the latest steps, in a ring that has turned round."""
    rng = np.random.default_rng(0)
    length, horizon = 7, 9
    loss = EpisodeLoss(2, horizon)
    noted = []
    for step in range(1, 100):
        noted.append((float(rng.normal()), float(rng.integers(1, 5))))
        loss.add(*noted[-1], np.full(2, step % length == 0))
        summed, present = np.sum(noted[-length:], 0)
        mean = loss.mean()
        assert (mean is None) == (step < length)
        assert mean is None or mean == pytest.approx(summed / present, rel=1e-12)
        if step == 50:
            again = EpisodeLoss(2, horizon)
            again.load_state_dict(loss.state_dict())
            loss = again


@pytest.mark.parametrize("ended", [0, 3])
def test_the_curve_is_that_of_whole_episodes(
    ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Black: the column "loss", which the line of a score can be held against; grey: the others."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path: figures.append(self))
    monkeypatch.setattr(
        "invariantzoo.training.runs.learning_curve.write_atomically",
        lambda path, write: write(path),
    )
    rows: list[dict[str, float]] = [
        {"steps": 10, "running_loss": 5.0},
        {"steps": 20, "running_loss": 0.1},
    ]
    rows += [{"steps": 30 + 10 * i, "loss": 2.0, "oldest": 12.0} for i in range(ended)]
    scores = {"trained": {"loss": 2.0, "oldest": 12.0}}
    draw_learning_curve(
        rows, tmp_path / "curve.png", metrics=("oldest",), scores=scores, exploring=True
    )
    loss, *others = [axes for axes in figures[0].axes if axes.get_visible()]
    drawn = {str(line.get_label()): line for line in loss.get_lines()}
    assert np.all(np.asarray(drawn["trained"].get_ydata()) == 2)
    assert list(np.asarray(drawn["first episode, as it runs"].get_ydata())) == [5.0, 0.1]
    assert ("in training, exploring" in drawn) == bool(ended)
    assert len(others) == bool(ended)
    if ended:
        assert list(np.asarray(drawn["in training, exploring"].get_ydata())) == [2.0] * 3
