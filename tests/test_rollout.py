"""The rollout command: runs, films, trajectories, and what it refuses before work starts."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo import options
from invariantzoo.__main__ import main
from invariantzoo.agents.policy import make_policy
from invariantzoo.commands.rollout import Session
from invariantzoo.envs.core.rendering.painter import Painter
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.training.rl.algorithms import make_config, make_trainer
from invariantzoo.training.runs.run import describe, recording, train, write_config
from invariantzoo.training.runs.video import Camera, film, record_video

CROWD, ENCOUNTER, ISING = "particles-crowd-v0", "particles-encounter-v0", "ising-equilibrium-v0"


def rollout(*words: object) -> int:
    return main(["rollout", *map(str, words)])


def report(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert rollout(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert rollout(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def frames(path: Path) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # imageio leaves ffmpeg's pipes open
        with imageio.get_reader(path) as reader:
            found = [np.asarray(frame) for frame in reader]
        del reader
        gc.collect()
    return found


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_every_id_runs(id: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, id, "--n-steps", 5, "--n-worlds", 3)
    system = invariantzoo.make_system(id)
    assert (found["id"], found["policy"], found["n_worlds"]) == (id, "random", 3)
    assert found["n_steps"] == 5
    counted = {"illegal_actions"} if id == "test-leave-v0" else set()  # its actions may be illegal
    assert set(found["metrics"]) == set(system.reductions) | counted
    assert np.isfinite(found["return"])
    assert found["interrupted"] is False


def test_means_are_over_whole_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(
        capsys, CROWD, "--policy", "brake", "--set", "horizon=7", "--n-steps", 17, "--n-worlds", 2
    )
    assert found["episodes"] == 4
    env = VectorEnv(invariantzoo.make_system(CROWD, horizon=7), 2, seed=0)
    brake, total, metrics = make_policy("brake", env.system), 0.0, []
    session = Session(env, brake, deterministic=True)
    for _ in range(14):
        step = session.step()
        total += step.reward.sum() / env.n_agents
        metrics += step.metrics.get("progress", np.empty(0)).tolist()
    assert found["return"] == pytest.approx(total / 4)
    assert found["metrics"]["progress"] == pytest.approx(np.mean(metrics))


def test_one_episode_is_kept_to_its_last_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.npz"
    found = report(
        capsys, CROWD, "--policy", "straight", "--set", "horizon=7", "--n-worlds", 2, "--npz", path
    )
    assert (found["n_steps"], found["episodes"]) == (7, 2)
    with np.load(path) as file:
        kept = dict(file)
    assert not kept["episode"].any()
    system = invariantzoo.make_system(CROWD)  # no disc feels the others' places if it drives on
    moved = kept["state.position"][7] - kept["state.position"][0]
    side = kept["state.box"][0, 0, 0]
    straight = 7 * system.dt * kept["state.velocity"][0]  # type: ignore[attr-defined]
    np.testing.assert_allclose((moved - straight + side / 2) % side, side / 2, atol=1e-9)
    assert found["return"] == pytest.approx(kept["reward"].sum() / (2 * 24))


def test_worlds_that_end_early_count_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--policy", "random", "--n-worlds", 6)
    found = report(capsys, "test-leave-v0", *words, "--set", "n_agents=2", "--set", "length=3")
    assert found["episodes"] == 6
    assert found["metrics"]["left"] == 1.0
    assert found["n_steps"] < 60


def test_a_seed_is_a_trajectory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (ISING, "--policy", "heat-bath", "--n-steps", 30, "--n-worlds", 2)
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        report(capsys, *words, "--seed", seed, "--npz", tmp_path / f"{name}.npz")
    spin = {name: np.load(tmp_path / f"{name}.npz")["state.spin"] for name in "abc"}
    np.testing.assert_array_equal(spin["a"], spin["b"])
    assert (spin["a"] != spin["c"]).any()


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_a_trajectory_can_be_read_back_and_replayed(
    id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.npz"
    printed = report(capsys, id, "--n-steps", 9, "--n-worlds", 2, "--seed", 3, "--npz", path)
    with np.load(path, allow_pickle=False) as file:
        kept = dict(file)
    config = json.loads(str(kept["config"]))
    assert config == printed
    assert os.listdir(tmp_path) == ["run.npz"]
    system = invariantzoo.make_system(id)
    env = VectorEnv(system, 2, seed=3)
    np.testing.assert_array_equal(kept["observation"][0], env.reset())
    assert len(kept["action"]) == len(kept["reward"]) == 9
    for t in range(9):
        for name, part in env.state._asdict().items():
            np.testing.assert_array_equal(kept[f"state.{name}"][t], part)
        step = env.step(kept["action"][t])
        np.testing.assert_array_equal(kept["reward"][t], step.reward)
        np.testing.assert_array_equal(kept["observation"][t + 1], step.observation)
    for name, part in env.state._asdict().items():
        assert kept[f"state.{name}"].shape == (10, *part.shape)
        np.testing.assert_array_equal(kept[f"state.{name}"][9], part)


def test_a_trajectory_counts_its_episodes() -> None:
    env = VectorEnv(invariantzoo.make_system(CROWD, horizon=3), 2, seed=0)
    session = Session(env, make_policy("straight", env.system), deterministic=True, keep=True)
    for _ in range(4):
        session.step()
    session.reset()
    session.step()
    kept = session.trajectory()
    assert kept["episode"][:, 0].tolist() == [0, 0, 0, 1, 2, 2]
    assert len(kept["state.position"]) == 6
    assert len(kept["action"]) == 5
    np.testing.assert_array_equal(kept["state.position"][5], env.state.position)
    assert session.scores["return"][0] == pytest.approx(kept["reward"][:3, 0].sum() / 24)


def test_a_trained_policy_brings_its_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    system = invariantzoo.make_system(ENCOUNTER, margin=1.4, speed=0.9)
    hyper = make_config(ENCOUNTER, "descent", {"n_worlds": 2, "rollout": 5})
    write_config(run, describe(ENCOUNTER, "descent", system, hyper, steps=20, seed=0))
    with recording(run) as recorder:
        trainer = make_trainer("descent", system, hyper, seed=0, steps=20)
        train(trainer, recorder, checkpoint_every=1)
    found = report(capsys, ENCOUNTER, "--policy", run, "--n-steps", 3, "--set", "speed=1.1")
    assert (found["parameters"]["margin"], found["parameters"]["speed"]) == (1.4, 1.1)
    assert found["deterministic"] is True
    assert report(capsys, ENCOUNTER, "--policy", run, "--stochastic")["deterministic"] is False
    other = report(capsys, CROWD, "--policy", run, "--set", "n_neighbours=1", "--n-steps", 2)
    assert other["parameters"]["margin"] != 1.4
    assert "does not fit" in refusal(capsys, CROWD, "--policy", run)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize(("worlds", "size"), [(1, (672, 640)), (3, (672, 640)), (5, (448, 624))])
def test_a_film_has_a_frame_per_state(
    suffix: str, worlds: int, size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / f"film{suffix}"
    assert rollout(ENCOUNTER, "--n-steps", 4, "--n-worlds", worlds, "--video", path) == 0
    film = frames(path)
    assert len(film) == 5
    assert {frame.shape[:2] for frame in film} == {size}
    assert (film[0] != film[-1]).any()
    assert os.listdir(tmp_path) == [path.name]


class Precise:
    """A policy that asks for what is not rounded, as the drivers of discs with goals do."""

    dtype = np.float64

    def __init__(self) -> None:
        self.seen: set[torch.dtype] = set()

    def __call__(self, observation: torch.Tensor, rng: Any) -> torch.Tensor:
        self.seen.add(observation.dtype)
        return torch.zeros(*observation.shape[:2], 5)


def test_a_policy_sees_in_the_precision_that_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that rollouts and films show what `evaluate` scores."""
    policy = Precise()
    monkeypatch.setattr(options, "load_policy", lambda *words, **more: policy)
    assert rollout(ENCOUNTER, "--policy", "brake", "--n-steps", 2) == 0
    record_video(invariantzoo.make_system(ENCOUNTER), policy, tmp_path / "a.gif", n_steps=2)
    assert policy.seen == {torch.float64}


def test_a_film_shows_what_the_painter_paints(tmp_path: Path) -> None:
    system = invariantzoo.make_system(ENCOUNTER)
    path = tmp_path / "film.mp4"
    record_video(system, make_policy("straight", system), path, n_steps=3, seed=5, size=320)
    env = VectorEnv(system, 1, seed=5)
    env.reset()
    expected = Painter(size=(320, 320)).draw(system.scene(env.tensors))  # type: ignore[arg-type]
    assert np.abs(frames(path)[0][:320].astype(int) - expected).mean() < 2


def test_a_grid_of_worlds_shows_each_of_them() -> None:
    system = invariantzoo.make_system(CROWD)
    env = VectorEnv(system, 11, seed=0)
    env.reset()
    image = Camera(env, size=480).frame()
    assert image.shape == (512, 480, 3), "what the colours mean stands below"
    for i in range(9):
        row, column = divmod(i, 3)
        alone = VectorEnv(system, 1, seed=0, first_world=i)
        alone.reset()
        tile = Camera(alone, size=160).frame()
        shown = image[160 * row : 160 * (row + 1), 160 * column : 160 * (column + 1)]
        np.testing.assert_array_equal(shown[1:, 1:], tile[1:160, 1:])


def test_a_film_opens_with_what_the_id_says_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.gif"
    usual = report(capsys, ISING, "--n-steps", 2)
    assert (usual["policy"], usual["parameters"]["lattice_size"]) == ("random", 4)
    assert report(capsys, ISING, "--n-steps", 2, "--video", path)["parameters"] == {
        **usual["parameters"],
        **invariantzoo.spec(ISING).film.parameters,
    }
    assert rollout(ISING, "--n-steps", 2, "--video", path) == 0
    lines = capsys.readouterr().err.splitlines()
    (said,) = [line for line in lines if "is shown with" in line]
    assert "lattice_size=256" in said
    assert "policy heat-bath" in said
    settings = ("--set", "lattice_size=8", "--policy", "metropolis", "--n-worlds", 2)
    shown = report(capsys, ISING, "--n-steps", 2, "--video", path, *settings)
    assert (shown["policy"], shown["n_worlds"]) == ("metropolis", 2)
    assert shown["parameters"]["lattice_size"] == 8
    assert shown["parameters"]["update"] == "checkerboard"


def test_a_film_leaves_its_settings_where_they_do_not_go_with_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--set", "final_temperature=0.5", "--n-steps", 2)
    shown = report(capsys, ISING, "--video", tmp_path / "a.gif", *settings)
    assert shown["parameters"]["lattice_size"] == 4
    assert shown["parameters"]["final_temperature"] == 0.5


def test_a_film_is_as_long_as_the_id_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.gif"
    found = report(capsys, "tasep-gates-v0", "--video", path)
    film_of_it = invariantzoo.spec("tasep-gates-v0").film
    assert found["n_steps"] == film_of_it.skip + film_of_it.steps
    assert len(frames(path)) == film_of_it.steps + 1


def test_a_film_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("the old one")
    frame = np.zeros((32, 32, 3), np.uint8)

    def fail() -> None:
        with film(tmp_path / "film.mp4") as add:
            add(frame)
            raise RuntimeError("here")

    with pytest.raises(RuntimeError, match="here"):
        fail()
    assert os.listdir(tmp_path) == ["film.mp4"]
    assert (tmp_path / "film.mp4").read_text() == "the old one"


def test_json_is_all_there_is_on_standard_output(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "invariantzoo", "rollout", CROWD, "--json", "--n-steps", "3"]
    command += ["--video", str(tmp_path / "a.mp4"), "--npz", str(tmp_path / "a.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["n_steps"] == 3
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "a.npz"]


def test_people_get_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert rollout(CROWD, "--policy", "straight", "--n-steps", 3) == 0
    said = capsys.readouterr().out
    assert "straight" in said
    assert "progress" in said
    assert "return" in said


def test_interrupt_keeps_what_there_is(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it\n"
        "from invariantzoo.commands import rollout\n"
        "from invariantzoo.__main__ import main\n"
        "step = rollout.Session.step\n"
        "def stop(self):\n"
        "    if self.n_steps == 6:\n"
        "        os.killpg(0, signal.SIGINT)\n"
        "    return step(self)\n"
        "rollout.Session.step = stop\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["rollout", CROWD, "--json", "--n-steps", "100000"]
    words += ["--video", str(tmp_path / "a.mp4"), "--npz", str(tmp_path / "a.npz")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert found["interrupted"] is True
    with np.load(tmp_path / "a.npz") as file:
        made = len(file["action"])
        assert len(file["state.position"]) == made + 1
    assert 6 <= made <= 7
    assert abs(len(frames(tmp_path / "a.mp4")) - made) <= 1
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "a.npz"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["particles-croud-v0"], "did you mean 'particles-crowd-v0'"),
        ([CROWD, "--policy", "strait"], "did you mean 'straight'"),
        ([CROWD, "--policy", "./nothing"], "nothing"),
        ([CROWD, "--set", "radius=-1"], "radius=-1"),
        ([CROWD, "--set", "radios=1"], "did you mean 'radius'"),
        ([CROWD, "--n-worlds", "0"], "'0' must be a whole number"),
        ([CROWD, "--n-steps", "-3"], "'-3' must be a whole number"),
        ([CROWD, "--video", "a.avi"], "must end in .mp4 or .gif"),
        ([CROWD, "--video", "a"], "must end in .mp4 or .gif"),
        ([CROWD, "--npz", "a.npy"], "must end in .npz"),
        ([CROWD, "--npz", "nowhere/a.npz"], "there is no folder 'nowhere'"),
        ([CROWD, "--deterministic", "--stochastic"], "not allowed with"),
        ([CROWD, "--vidio", "a.mp4"], "did you mean '--video'"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    words: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reason in refusal(capsys, *words)
    assert os.listdir(tmp_path) == []


def test_a_folder_is_no_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").mkdir()
    assert "is a folder" in refusal(capsys, CROWD, "--video", tmp_path / "a.mp4")


def test_what_has_no_picture_is_not_filmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("invariantzoo.envs.particles.discs.Discs.scene", System.scene)
    assert "has no picture" in refusal(capsys, CROWD, "--video", tmp_path / "a.mp4")
    assert os.listdir(tmp_path) == []


def test_without_a_display_nothing_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonesuch")
    assert "no window" in refusal(capsys, CROWD, "--human", "--video", tmp_path / "a.mp4")
    assert os.listdir(tmp_path) == []


def test_a_window_closes_after_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    path = tmp_path / "a.npz"
    found = report(capsys, ENCOUNTER, "--human", "--n-steps", 3, "--npz", path)
    assert found["n_steps"] == 3
    with np.load(path) as file:
        assert len(file["action"]) == 3
