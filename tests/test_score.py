"""Scores: whole episodes counted right, and summaries against what is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.agents.networks.choose import make_network
from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.observation import parameters
from invariantzoo.envs.core.rng import POLICY
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.training.rl import categorical, choice_table, score


def brief(id: str) -> System:
    """The system of an id with short episodes, whatever it calls their length."""
    known = parameters(invariantzoo.make_system(id))
    lengths = {"horizon": 20, "n_sweeps": 3, "burn_in": 1}
    return invariantzoo.make_system(id, **{k: v for k, v in lengths.items() if k in known})


def test_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    assert score.iqm(np.array([100.0, 1, 2, -50])) == 1.5
    assert score.iqm(np.arange(8.0)[::-1]) == 3.5
    assert score.iqm(np.array([0.0, 1, 2, 3, 1000])) == 2
    assert score.iqm(np.array([7.0])) == 7
    assert score.iqm(np.array([1.0, 2, 6])) == 3  # a quarter of three is less than one
    rows = np.array([[4.0, 1, 2, 9], [0, 0, 8, 8]])
    assert score.iqm(rows).tolist() == [3, 4]


def test_interquartile_mean_of_something_undefined_is_undefined() -> None:
    assert np.isnan(score.iqm(np.array([1.0, 2, 3, np.nan])))


def test_summary_in_closed_form() -> None:
    values = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    found = score.summary(values)
    assert found["mean"] == 4.5
    assert found["se"] == pytest.approx(np.sqrt(6.0 / 8), rel=1e-15)  # variance 42 / 7
    assert found["iqm"] == 4.5
    assert found["per_seed"] == [2.5, 6.5]
    assert found["ci95"][0] < 4.5 < found["ci95"][1]
    assert found == score.summary(values)


def test_bootstrap_keeps_to_the_strata() -> None:
    """Seeds far apart do not widen the interval; without strata they would."""
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.normal(size=(2, 50))
    low, high = score.summary(np.array([[0.0], [100.0]]) + noise)["ci95"]
    assert high - low < 0.02


@pytest.mark.parametrize("shape", [(3, 40), (120, 1), (40, 2)])
def test_interval_covers_the_truth_19_times_in_20(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    trials = 300
    covered = 0
    for trial in range(trials):
        low, high = score.summary(rng.normal(3.0, 2.0, shape), seed=trial)["ci95"]
        covered += low <= 3.0 <= high
    # Four standard errors below; a percentile interval of 120 numbers is slightly too short.
    assert 0.90 <= covered / trials <= 0.995


def test_an_episode_without_a_metric_leaves_its_run_in() -> None:
    runs = [{"ratio": np.array([[1.0, np.nan, 3.0]])}, {"ratio": np.array([[4.0, 4.0, 4.0]])}]
    found = score.over_runs(runs)["ratio"]
    assert found["per_seed"] == [2.0, 4.0]
    assert found["mean"] == 3.0


def test_interval_over_runs_sees_runs_and_not_episodes() -> None:
    runs = [{"return": np.full((2, 500), float(value))} for value in range(8)]
    found = score.over_runs(runs)["return"]
    assert found["per_seed"] == list(range(8))
    assert found["iqm"] == found["mean"] == 3.5
    assert found["se"] == pytest.approx(np.sqrt(6.0 / 8), rel=1e-15)
    assert found["ci95"][1] - found["ci95"][0] > 2


def test_one_number_has_neither_error_nor_interval() -> None:
    found = score.summary(np.array([[2.0]]))
    assert np.isnan([found["se"], *found["ci95"]]).all()


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_scores_do_not_depend_on_the_batch(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system = brief(id)
    policy = make_policy("random", system)
    together = score.evaluate(system, policy, episodes=5, seeds=2, deterministic=False)
    monkeypatch.setattr(score, "_CHUNK", 1)
    alone = score.evaluate(system, policy, episodes=5, seeds=2, deterministic=False)
    for name, values in together.items():
        np.testing.assert_array_equal(values, alone[name], err_msg=name)
    assert len(np.unique(together["return"])) > 1


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_scores_count_an_episode_as_the_environment_does(id: str) -> None:
    system = brief(id)
    policy = make_policy("random", system)
    scores = score.evaluate(system, policy, episodes=3, seeds=1, deterministic=False, first_seed=4)
    for world in range(3):
        env = VectorEnv(system, seed=score.HELD_OUT + 4, first_world=world, autoreset=False)
        observation, total, present, done = env.reset(), 0.0, 0, False
        while not done:
            action = policy(torch.from_numpy(observation), env.rng(POLICY)).numpy()
            action = action.astype(np.float32) if action.dtype.kind == "f" else action
            present += int(env.alive.sum())
            step = env.step(action)
            total += float(step.reward.sum())
            observation, done = step.observation, bool(step.done[0])
        assert scores["return"][0, world] == pytest.approx(total / system.n_agents, rel=1e-12)
        assert scores["loss"][0, world] == pytest.approx(-total / present, rel=1e-12)
        for name, value in step.metrics.items():
            np.testing.assert_equal(scores[name][0, world], value[0])  # NaN equals NaN


def test_evaluation_seeds_are_no_training_seeds() -> None:
    """Learners take seeds below 2**32, so none of theirs can be met here."""
    assert score.HELD_OUT >= 2**32


def test_wrong_counts_are_refused() -> None:
    system = invariantzoo.make_system("particles-crowd-v0")
    policy = make_policy("random", system)
    for wrong in ({"episodes": 0, "seeds": 1}, {"episodes": 1, "seeds": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            score.evaluate(system, policy, deterministic=True, **wrong)


@pytest.mark.parametrize(("steps", "kernel"), [(None, True), (100, True), (None, False)])
@pytest.mark.parametrize("id", ["tasep-open-v0", "tasep-ring-v0", "ising-equilibrium-v0"])
def test_a_table_chooses_what_its_policy_does(
    id: str, steps: int | None, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit; and the network is asked of each observation once, until they are many."""
    system, asked = invariantzoo.make_system(id, n_sweeps=12, burn_in=3), []
    network = make_network("mlp", system, 0)
    with torch.no_grad():
        network.heads[0].weight.mul_(50.0)  # untrained ones hardly prefer anything

    def logits(observation: torch.Tensor) -> torch.Tensor:
        asked.append(len(observation))
        return network(observation)

    policy = categorical.CategoricalPolicy(logits)

    def played() -> score.Scores:
        asked.clear()
        env = VectorEnv(system, 3, seed=5, autoreset=False, kernel=kernel)
        return score.run_episodes(env, policy, deterministic=False, steps=steps, by_table=True)

    by_table = played()
    assert 1 < len(asked) < 40
    monkeypatch.setattr(choice_table, "_MOST", 1)
    of_one_row = played()
    assert len(asked) > 90
    monkeypatch.setattr(score, "is_tabled", lambda policy, env: False)
    plain = played()
    assert len(asked) == (system.horizon if steps is None else steps)
    np.testing.assert_equal(by_table, plain)
    np.testing.assert_equal(of_one_row, plain)


@pytest.mark.parametrize(
    ("id", "parameters"),
    [
        ("resampling-neutral-v0", {}),
        ("ising-equilibrium-v0", {"update": "checkerboard"}),
        ("ising-equilibrium-v0", {"update": "parallel"}),
        ("test-leave-v0", {}),
    ],
)
def test_where_several_act_there_is_no_table(id: str, parameters: dict[str, str]) -> None:
    env = VectorEnv(invariantzoo.make_system(id, **parameters), 1, seed=0)
    env.reset()
    assert not choice_table.is_tabled(categorical.CategoricalPolicy(torch.zeros_like), env)
