"""Parameters that move over a training: their values, worlds that go on, runs that go on."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.training.rl.algorithms import config_class, make_trainer
from invariantzoo.training.rl.curriculum import Curriculum, Move, parse_move
from invariantzoo.training.runs import run as runs

ENCOUNTER = invariantzoo.make_system("particles-encounter-v0", horizon=20)
SMALL: dict[str, dict[str, Any]] = {
    "ppo": {"n_worlds": 3, "n_steps": 6, "batch_size": 16, "n_epochs": 2},
    "sac": {
        "n_worlds": 3,
        "n_steps": 8,
        "batch_size": 16,
        "learning_starts": 20,
        "buffer_size": 500,
    },
    "descent": {"n_worlds": 2, "rollout": 3},
    "es": {"n_worlds": 2, "pairs": 2, "rollout": 2},
}


def test_values_on_the_way() -> None:
    system = invariantzoo.make_system("neurons-v0", rate=(0.2, 0.4))
    moves = {"rate": Move((0.1, 0.1), (0.2, 0.4)), "decay": Move(0.5, 0.0)}
    curriculum = Curriculum(system, moves, 100)
    start = curriculum.at(0)
    assert (start.rate, start.decay) == ((0.1, 0.1), 0.5)  # type: ignore[attr-defined]
    assert curriculum.at(50).rate == pytest.approx((0.15, 0.25))  # type: ignore[attr-defined]
    assert curriculum.at(100) == dataclasses.replace(system, decay=0.0)  # type: ignore[type-var]
    assert curriculum.at(1000) == curriculum.at(100)
    assert curriculum.row(0) == {
        "parameter_rate_low": 0.1,
        "parameter_rate_high": 0.1,
        "parameter_decay": 0.5,
    }


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("0..0.2", ("0", "0.2")),
        ("(0, 1)..(0.5, 2)", ("(0, 1)", "(0.5, 2)")),
        ("0.5", None),
        ("0..", None),
        ("..", None),
        ("data/../x.npz", None),
        (".../x.npz", None),
    ],
)
def test_how_it_is_written(text: str, ends: tuple[str, str] | None) -> None:
    assert parse_move(text) == ends


def test_an_end_that_can_be_read_in_two_ways_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'1\.\.\.5' must be first\.\.last"):
        parse_move("1...5")


def test_worlds_go_on_under_other_parameters() -> None:
    """As worlds do that were made with them and brought to the same state."""
    other = dataclasses.replace(ENCOUNTER, radius=0.3)  # type: ignore[type-var]
    env, made = VectorEnv(ENCOUNTER, 5, seed=0), VectorEnv(other, 5, seed=1)
    assert env.use(ENCOUNTER) is None
    env.reset()
    rng, of_worlds = np.random.default_rng(0), (2, *ENCOUNTER.action_space.shape)  # type: ignore[misc]
    actions = rng.uniform(-1, 1, (40, 5, *of_worlds)).astype(np.float32)
    for action in actions[:15]:
        env.step(action)
    expected, seen = made.restore(env.save()), env.use(other)
    assert seen is not None
    assert np.array_equal(seen, expected)
    for action in actions[15:]:  # through the end of the episode
        before, after = env.step(action), made.step(action)
        assert np.array_equal(before.observation, after.observation)
        assert np.array_equal(before.reward, after.reward)
        for name, value in before.metrics.items():
            assert np.array_equal(value, after.metrics[name], equal_nan=True)


@pytest.mark.parametrize("algo", SMALL)
def test_a_run_that_was_continued_is_the_same(algo: str, tmp_path: Path) -> None:
    states, tables = [], []
    for stops in ((), (3, 4)):
        folder = tmp_path / f"{len(stops)}"
        folder.mkdir()
        config = config_class(algo)(**SMALL[algo])
        for part in range(len(stops) + 1):
            trainer = make_trainer(algo, ENCOUNTER, config, seed=0, steps=500)
            curriculum = Curriculum(ENCOUNTER, {"radius": Move(0.05, 0.2)}, 400)
            if part:
                runs.restore(folder, trainer)
            left = [*stops, 10**6][part]

            def watch(update: Any, left: list[int] = [left]) -> bool:  # noqa: B006
                left[0] -= 1
                return left[0] > 0

            with runs.recording(folder, since=trainer.steps) as recorder:
                runs.train(
                    trainer, recorder, checkpoint_every=100, watch=watch, curriculum=curriculum
                )
        states.append(trainer.state_dict())
        rows = recorder.rows
        tables.append([row["parameter_radius"] for row in rows])
    assert tables[1] == pytest.approx(tables[0])  # progress.csv rounds
    assert tables[0][0] == 0.05
    assert tables[0][-1] == 0.2
    assert tables[0] == sorted(tables[0])
    name = "network" if "network" in states[0] else "policy"
    assert all(torch.equal(states[1][name][key], value) for key, value in states[0][name].items())


def test_what_goes_on_aside_has_the_parameters_of_its_checkpoint(tmp_path: Path) -> None:
    """`regimes` of a run that was stopped on its way watched it under the last ones."""
    config = config_class("ppo")(**SMALL["ppo"])
    trainer = make_trainer("ppo", ENCOUNTER, config, seed=0, steps=500)
    id = "particles-encounter-v0"
    told = runs.describe(id, "ppo", ENCOUNTER, config, steps=500, seed=0)
    told |= {"total_steps": 504, "curriculum": {"radius": [0.05, 0.2]}}
    runs.write_config(tmp_path, told)
    way = runs.curriculum_of(tmp_path, told, ENCOUNTER, trainer)
    assert way is not None
    with runs.recording(tmp_path) as recorder:
        runs.train(trainer, recorder, checkpoint_every=1, watch=lambda _: False, curriculum=way)
    aside: Any = runs.on_the_side(tmp_path, runs.read_config(tmp_path), 5)
    assert aside.steps == trainer.steps == 36
    assert aside.env.system == way.at(36)
    assert 0.05 < aside.env.system.radius < 0.1


@pytest.mark.parametrize(
    ("id", "more", "name", "ends"),
    [
        ("ising-equilibrium-v0", {"n_sweeps": 40, "burn_in": 1}, "temperature", (1.0, 3.0)),
        ("ising-equilibrium-v0", {"n_sweeps": 40, "burn_in": 1}, "field", (2.0, 0.0)),
        ("klein-gordon-force-v0", {"horizon": 40}, "mass", (2.0, 0.5)),
        ("klein-gordon-force-v0", {"horizon": 40, "dt": 0.1}, "spacing", (0.5, 1.0)),
    ],
)
def test_worlds_beyond_what_the_last_system_shows_go_on(
    id: str, more: dict[str, Any], name: str, ends: tuple[float, float]
) -> None:
    """They were once refused where a run was continued: a reset may not be given such."""
    system = invariantzoo.make_system(id, lattice_size=2, **{**more, name: ends[1]})
    start = dataclasses.replace(system, **{name: ends[0]})  # type: ignore[type-var]
    env = VectorEnv(start, 3, seed=0)
    env.reset()
    again = VectorEnv(system, 3, seed=1)
    seen = again.restore(env.save())
    assert np.array_equal(seen, env.use(system))
    assert np.array_equal(getattr(again.state, name), np.full((3, 1), ends[0]))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["train", "particles-encounter-v0", "--out", str(run), "--no-film", "--no-baselines"]
    for name, value in SMALL["ppo"].items():
        words += ["--set", f"{name}={value}"]
    words += ["--set", "horizon=20", "--set", "radius=0.05..0.2"]
    assert main([*words, "--steps", "360"]) == 0
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["curriculum"] == {"radius": [0.05, 0.2]}
    assert config["parameters"]["radius"] == 0.2
    assert invariantzoo.load_run(run).system.radius == 0.2  # type: ignore[attr-defined]
    with (run / "progress.csv").open(encoding="utf-8") as file:
        radius = [float(row["parameter_radius"]) for row in csv.DictReader(file)]
    assert radius == pytest.approx(np.linspace(0.05, 0.2, 10), rel=1e-4)
    resume = [*words, "--resume", "--steps", "720"]
    assert main(resume) == 0  # it goes back a little: the way is twice as long
    capsys.readouterr()
    resume[resume.index("radius=0.05..0.2")] = "radius=0.2"
    assert main(resume) == 2
    assert "was made with radius=0.05..0.2, not 0.2" in capsys.readouterr().err
    resume[resume.index("radius=0.2")] = "dt=0.05..0.1"
    assert main(resume) == 2
    assert "was made with dt=0.1, not '0.05..0.1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("n_agents=2..4", "n_agents cannot move over a training: it is no fraction and no range"),
        ("radius=0.1..x", "radius='x' must be a finite number"),
        ("radius=0.1..(0.1, 0.2)", "radius=(0.1, 0.2) must be a finite number"),
        ("radius=-1..0.2", "radius=-1"),
        ("radius=0.1..nan", "radius"),
        ("lr=1e-3..1e-4", "lr='1e-3..1e-4' must be"),
        ("nonsense=0..1", "no parameter of particles-crowd-v0"),
    ],
)
def test_what_cannot_move_is_refused(
    setting: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["train", "particles-crowd-v0", "--out", str(run), "--set", setting]
    assert main([*words, "--steps", "1000"]) == 2
    told = capsys.readouterr().err
    assert text in told
    assert len(told.strip().splitlines()) == 1
    assert not run.exists() or not any(run.iterdir())


def test_other_commands_take_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "neurons-v0", "--policy", "sgd", "--set", "rate=0.1..0.2"]
    assert main(words) == 2
    assert "rate='0.1..0.2' must be a finite number" in capsys.readouterr().err


def test_a_damaged_curriculum_is_refused() -> None:
    config = {"curriculum": {"radius": [1, 2, 3]}, "total_steps": 10}
    trainer = make_trainer("ppo", ENCOUNTER, config_class("ppo")(**SMALL["ppo"]), seed=0, steps=9)
    with pytest.raises(ValueError, match="'curriculum' cannot be used"):
        runs.curriculum_of(Path("run"), config, ENCOUNTER, trainer)
