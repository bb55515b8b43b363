"""`rollout --minari`: a dataset that Minari loads, with the same steps and returns."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import full_disk, refused

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.observation import observation_space
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.training.runs import minari_dataset

CROWD, LEAVE = "particles-crowd-v0", "test-leave-v0"
KINDS = (CROWD, LEAVE, "systems:test-hold-v0", "ising-equilibrium-v0", "water-inference-v0")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Minari's own
needs_minari = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("minari", "h5py")),
    reason="Minari is not installed",
)


def rollout(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["rollout", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def load(folder: Path) -> Any:
    import minari

    return minari.MinariDataset(folder / "data")


@needs_minari
@pytest.mark.parametrize("id", KINDS)
def test_every_kind_of_system_makes_a_dataset(
    id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an episode that the end of the data cuts off."""
    rollout(capsys, id, "--n-steps", 2, "--minari", tmp_path / "a")
    data, system = load(tmp_path / "a"), invariantzoo.make_system(id)
    assert data.total_episodes == system.n_agents
    assert data.spec.namespace == f"invariantzoo/{id.rpartition(':')[2]}"
    episode = data[0]
    assert data.observation_space == observation_space(system)
    assert data.action_space == system.action_space
    assert all(row in data.observation_space for row in episode.observations)
    assert all(row in data.action_space for row in episode.actions)
    assert len(episode.observations) == len(episode.rewards) + 1
    assert episode.terminations[-1] or episode.truncations[-1]


@needs_minari
def test_observations_are_those_of_the_space_however_precise_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--set", "n_agents=3", "--policy", "straight", "--n-steps", 2]
    rollout(capsys, "particles-circle-v0", *words, "--minari", tmp_path / "a")
    data = load(tmp_path / "a")
    assert all(row in data.observation_space for row in data[0].observations)


@needs_minari
def test_a_full_disk_is_said_before_it_is_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is asked of the disk is enough; the name is relative, as people give it."""
    monkeypatch.chdir(tmp_path)
    words = ["rollout", "test-hold-v0", "--n-steps", "3", "--minari", "a"]
    with full_disk(10_000):
        said = refused(capsys, *words)
    assert said.endswith("a could not be written: File too large\n")
    assert list(tmp_path.iterdir()) == []
    asked: list[int] = []
    plain = minari_dataset.write_folder

    def noted(path: Path, write: Any, *, size: int) -> None:
        asked.append(size)
        plain(path, write, size=size)

    monkeypatch.setattr(minari_dataset, "write_folder", noted)
    assert main(words) == 0
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) < asked[0]


@needs_minari
def test_a_relative_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rollout(capsys, CROWD, "--n-steps", 2, "--minari", "data")
    assert load(tmp_path / "data").total_episodes == invariantzoo.make_system(CROWD).n_agents


@needs_minari
def test_returns_are_those_of_the_rollout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two episodes of two worlds, and the same steps made anew, last observations among them."""
    n, horizon = 4, 7
    folder = tmp_path / f"invariantzoo/{CROWD}/rollout-v0"
    folder.parent.mkdir(parents=True)
    settings = ["--set", f"horizon={horizon}", "--set", f"n_agents={n}"]
    words = [CROWD, *settings, "--n-worlds", 2, "--n-steps", 2 * horizon, "--seed", 3]
    printed = rollout(capsys, *words, "--policy", "brake", "--minari", folder)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    import minari
    import torch

    data = minari.load_dataset(f"invariantzoo/{CROWD}/rollout-v0")
    assert (data.total_episodes, data.total_steps) == (2 * 2 * n, 2 * 2 * n * horizon)
    returns = [episode.rewards.sum() for episode in data]
    assert np.mean(returns) == pytest.approx(printed["return"], rel=1e-12)
    env = VectorEnv(invariantzoo.make_system(CROWD, horizon=horizon, n_agents=n), 2, seed=3)
    seen, steps = [env.reset()], []
    policy = make_policy("brake", env.system)
    for _ in range(2 * horizon):
        steps.append(env.step(policy(torch.from_numpy(seen[-1]), None).numpy()))
        seen.append(steps[-1].observation)
    metadata = list(data.storage.get_episode_metadata(range(data.total_episodes)))
    for episode, told in zip(data, metadata, strict=True):
        world, agent, k = (int(told["options"][name]) for name in ("world", "agent", "episode"))
        rows = range(k * horizon, (k + 1) * horizon)
        rewards = [steps[row].reward[world, agent] for row in rows]
        last = steps[rows[-1]].final_observation
        assert last is not None
        assert np.array_equal(episode.rewards, rewards)
        assert np.array_equal(episode.observations[:-1], [seen[r][world, agent] for r in rows])
        assert np.array_equal(episode.observations[-1], last[world, agent])
        assert not episode.terminations.any()
        assert episode.truncations.tolist() == [False] * (horizon - 1) + [True]
        assert told["seed"] == 3
    assert data.storage.metadata["rollout"]["parameters"]["n_agents"] == n


@needs_minari
@pytest.mark.parametrize(("id", "policy"), [(CROWD, "random"), ("particles-circle-v0", "orca")])
def test_actions_are_those_that_were_made(
    id: str, policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the bit, though policies give more digits: made anew they lead to the same rewards."""
    system = invariantzoo.make_system(id, horizon=20)
    words = ["--set", "horizon=20", "--seed", 3, "--minari", tmp_path / "a"]
    rollout(capsys, id, "--policy", policy, *words)
    data = load(tmp_path / "a")
    env = VectorEnv(system, 1, seed=3)
    env.reset()
    actions = np.stack([episode.actions for episode in data], 1)[:, None]
    rewards = np.stack([env.step(action).reward[0] for action in actions])
    assert np.array_equal(np.stack([episode.rewards for episode in data], 1), rewards)


@needs_minari
def test_who_leaves_is_terminated_and_acts_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout(capsys, LEAVE, "--n-worlds", 3, "--n-steps", 300, "--minari", tmp_path / "a")
    data = load(tmp_path / "a")
    told = list(data.storage.get_episode_metadata(range(data.total_episodes)))
    lengths: dict[tuple[int, int], list[int]] = {}
    for episode, metadata in zip(data, told, strict=True):
        options = metadata["options"]
        key = (int(options["world"]), int(options["episode"]))
        lengths.setdefault(key, []).append(len(episode.rewards))
        if episode.terminations[-1]:
            assert episode.observations[-1][0] == 0  # the door
        assert not episode.terminations[:-1].any()
        assert episode.terminations[-1] != episode.truncations[-1]
        assert set(np.unique(episode.infos["acted"])) <= {False, True}
    assert len(lengths) > 3
    assert any(len(set(of_world)) > 1 for of_world in lengths.values())
    acted = sum(episode.infos["acted"].sum() for episode in data)
    assert acted == sum(max(of_world) for of_world in lengths.values())  # one in every step


@needs_minari
def test_worlds_that_end_for_good_have_one_episode_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout(capsys, LEAVE, "--n-worlds", 5, "--minari", tmp_path / "a")
    assert load(tmp_path / "a").total_episodes == 5 * 4


@needs_minari
def test_nothing_is_overwritten_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine", encoding="utf-8")
    words = ["rollout", CROWD, "--n-steps", "3", "--minari"]
    assert "is there already" in refused(capsys, *words, str(tmp_path / "full"))
    assert "there is no folder" in refused(capsys, *words, str(tmp_path / "no" / "a"))
    assert os.listdir(tmp_path) == ["full"]


def test_without_minari_a_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "minari" else find(name)
    )
    line = refused(capsys, "rollout", CROWD, "--minari", str(tmp_path / "a"))
    assert 'pip install "invariantzoo[minari]"' in line
