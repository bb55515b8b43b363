"""`invariantzoo search`: trials that are shared, stopped, killed and gone on with."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import full_disk, refused

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core import registry
from invariantzoo.envs.core.seeds import HELD_OUT
from invariantzoo.training.benchmark import hyperparameter_search as searches
from invariantzoo.training.benchmark.hyperparameter_search import Search
from invariantzoo.training.rl.algorithms import make_config
from invariantzoo.training.rl.hyperparameters import ALGORITHMS

pytest.importorskip("optuna", reason='Optuna is not installed: pip install "invariantzoo[search]"')

ID = "quadratic-regimes-v0"
BRIEF = {"horizon": 20}
SMALL = {"n_worlds": 4, "checkpoint_every": 1, "batch_size": 64, "n_epochs": 1, "n_steps": 8}


def search(**more: Any) -> Search:
    """A search whose trials are short."""
    return Search(
        ID, "ppo", **{"steps": 600, "episodes": 4, "parameters": BRIEF, "fixed": SMALL, **more}
    )


def made(folder: Path, of: Search, trials: int) -> list[searches.Trial]:
    """All trials of a search that nothing disturbs."""
    searches.begin(folder, of)
    assert searches.work(folder, of, trials)
    return searches.read_trials(folder)


def test_a_search_that_was_stopped_finds_what_it_would_have_found(tmp_path: Path) -> None:
    """In the midst of trainings, again and again; even what was sampled is the same."""
    whole = made(tmp_path / "whole", search(seeds=2), 8)
    assert [trial.number for trial in whole] == list(range(8))
    assert {trial.state for trial in whole} == {"complete", "pruned"}
    folder, sessions = tmp_path / "stopped", 0
    searches.begin(folder, search(seeds=2))
    while True:
        asked = itertools.count()
        if searches.work(folder, search(seeds=2), 8, stopped=lambda: next(asked) >= 25):  # noqa: B023
            break
        sessions += 1
        assert [trial.state for trial in searches.read_trials(folder)].count("running") <= 1
    assert sessions > 1
    assert searches.read_trials(folder) == whole
    assert searches.work(folder, search(seeds=2), 8)  # nothing is left to do
    assert len(searches.read_trials(folder)) == 8


def test_every_seed_of_a_command_samples(tmp_path: Path) -> None:
    """The largest one too, which is beyond those of the sampler's generator."""
    tried = [
        made(tmp_path / str(seed), search(seed=seed, steps=64, episodes=1), 2)[1].settings
        for seed in (HELD_OUT - 1, HELD_OUT - 2)
    ]
    assert tried[0] != tried[1]


def test_killed_and_gone_on_with_by_two_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "search"
    words = ["search", ID, "--steps", "600", "--episodes", "4", "--out", str(folder)]
    words += [word for item in (BRIEF | SMALL).items() for word in ("--set", "{}={}".format(*item))]
    process = subprocess.Popen([sys.executable, "-m", "invariantzoo", *words, "--trials", "300"])
    while not list(folder.glob("trial-0001/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = searches.read_trials(folder)
    assert before[-1].state == "running"
    total = len(before) + 3
    assert main([*words, "--trials", str(total), "--jobs", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [trial["number"] for trial in report["trials"]] == list(range(total))
    assert {trial["state"] for trial in report["trials"]} <= {"complete", "pruned"}
    kept = len(before) - 1
    assert [trial["value"] for trial in report["trials"][:kept]] == [t.value for t in before[:kept]]
    assert not list(folder.glob("trial-*/*/checkpoint.pt"))  # of trainings that have ended


def test_the_best_settings_fit_the_file_of_the_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed makes the very configuration that was trained."""
    folder = tmp_path / "search"
    words = ["search", ID, "--steps", "300", "--episodes", "2", "--out", str(folder)]
    words += [
        "--trials",
        "3",
        "--set",
        "horizon=20",
        "--set",
        "n_worlds=2",
        "--set",
        "batch_size=16",
    ]
    assert main(words) == 0
    line = capsys.readouterr().out.strip().split("\n")[-1]
    literal = ast.literal_eval(f"{{{line}}}")["training"]["ppo"]
    best = searches.best_trial(searches.read_trials(folder))
    assert best is not None
    literal.pop("steps", None)  # which is of the id, not of the algorithm
    fixed = {"n_worlds": 2, "batch_size": 16}
    trained = make_config(ID, "ppo", {**fixed, **best.settings})
    assert type(trained)(**literal) == trained
    first = searches.read_trials(folder)[0]  # of the settings of now
    assert make_config(ID, "ppo", {**fixed, **first.settings}) == make_config(ID, "ppo", fixed)
    assert main([*words, "--steps", "400"]) == 2
    assert "holds a search with steps=300, not 400" in capsys.readouterr().err


def test_trials_of_other_settings_are_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after the id got others: what is searched may be new, what is not would not compare."""
    words = ["search", ID, "--steps", "64", "--episodes", "1", "--trials", "1"]
    words += ["--set", "horizon=20", "--out", str(tmp_path)]
    known = invariantzoo.spec(ID)
    training = {"n_worlds": 4, "n_steps": 8, "batch_size": 32, "n_epochs": 2, "gamma": 0.9}

    def have(**more: Any) -> None:
        now = dataclasses.replace(known, training={"ppo": {**training, **more}})
        monkeypatch.setitem(registry._SPECS, ID, now)

    have()
    assert main(words) == 0
    assert "0 (now)" in capsys.readouterr().out
    have(gamma=0.95)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "(now) " not in out
    assert "no trial was better" not in out
    have(n_worlds=8)
    assert main(words) == 2
    assert "holds a search with n_worlds=4, not 8" in capsys.readouterr().err


def test_a_full_disk_spoils_no_journal(tmp_path: Path) -> None:
    """Neither at the start nor in the midst of a line; what was cut short is left out."""
    with full_disk(100), pytest.raises(OSError, match=r"journal\.log could not be written: File"):
        searches.begin(tmp_path, search())
    searches.begin(tmp_path, search())
    study, path = searches._study(tmp_path), tmp_path / "journal.log"
    study.set_user_attr("before", 1)
    with full_disk(path.stat().st_size + 50), pytest.raises(OSError, match="File too large"):
        study.set_user_attr("lost", "x" * 100)
    assert not path.read_bytes().endswith(b"\n")
    study.set_user_attr("after", 1)
    assert searches._study(tmp_path).user_attrs == {"before": 1, "after": 1}
    searches.begin(tmp_path, search())
    assert len(searches._study(tmp_path).get_trials()) == 1


@pytest.mark.parametrize(
    "line", ["[1]", '{"op_code": 99}', '{"op_code": 4, "wor', '{"op_code": 5}', "\0\0\0\0"]
)
def test_a_journal_that_is_damaged_in_its_midst_is_named(line: str, tmp_path: Path) -> None:
    searches.begin(tmp_path, search())
    path = tmp_path / "journal.log"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], line, *lines[1:]]))
    with pytest.raises(ValueError, match=r"journal\.log is damaged"):
        searches.begin(tmp_path, search())


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    """As where the journal was lost, and a trial of the same number tries something else."""
    whole = made(tmp_path / "whole", search(), 1)
    folder, asked = tmp_path / "other", itertools.count()
    searches.begin(folder, search())
    assert not searches.work(folder, search(), 1, stopped=lambda: next(asked) >= 2)
    run = folder / "trial-0000" / "run-0"
    assert (run / "checkpoint.pt").exists()
    (run / "checkpoint.pt").write_bytes(b"of other settings")
    config = json.loads((run / "config.json").read_text())
    config["hyperparameters"]["gamma"] = 0.123
    (run / "config.json").write_text(json.dumps(config))
    assert searches.work(folder, search(), 1)
    assert searches.read_trials(folder) == whole


@pytest.mark.parametrize(
    ("name", "text"),
    [("search.json", "mine"), ("search.json", "[1]"), ("journal.log", "mine\n")],
)
def test_files_of_something_else_are_left_alone(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} (cannot be read|is of something else)"):
        searches.begin(tmp_path, search())
    assert (tmp_path / name).read_text() == text
    assert {path.name for path in tmp_path.iterdir()} <= {name, "journal.log"}


def test_what_cannot_be_trained_is_a_trial_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        searches.SPACES, "ppo", {"n_steps": searches.Choice((10**15,)), "lr": searches.Choice((1,))}
    )
    trials = made(tmp_path, search(fixed={"n_worlds": 4}), 4)
    failed = [trial for trial in trials if trial.state == "failed"]
    assert failed
    assert all("needs at least" in trial.reason for trial in failed)
    best = searches.best_trial(trials)
    assert best is not None
    assert best.settings["n_steps"] != 10**15


def test_a_training_that_diverges_is_a_trial_that_failed(tmp_path: Path) -> None:
    """Of discrete actions too; and by the command with several processes."""
    fixed = ["--set", "lr=1e20", "--set", "n_worlds=2", "--set", "n_steps=64"]
    words = ["search", "tasep-open-v0", "--algo", "ppo", "--steps", "9000", "--trials", "1"]
    assert main([*words, *fixed, "--episodes", "1", "--out", str(tmp_path / "found")]) == 1
    (trial,) = searches.read_trials(tmp_path / "found")
    assert trial.state == "failed"
    assert "the training has diverged" in trial.reason


def test_workers_that_crash_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(words: list[str], log: Path) -> subprocess.Popen[bytes]:
        log.write_text("working\nRuntimeError: crashed\n")
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])

    monkeypatch.setattr("invariantzoo.training.benchmark.engines.start_command", crash)
    words = ["search", "particles-encounter-v0", "--algo", "es", "--trials", "2", "--jobs", "2"]
    assert main([*words, "--out", str(tmp_path / "found")]) == 2
    assert "a process ended with code 1: RuntimeError: crashed" in capsys.readouterr().err


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_space_of_every_algorithm_holds_settings(algo: str) -> None:
    for id in ("particles-encounter-v0", "ising-transport-v0", "cluster-relaxation-v0"):
        space, present = Search(id, algo, steps=1).space(), make_config(id, algo, {})
        assert len(space) >= 4
        for name, values in space.items():
            value = getattr(present, name)
            if isinstance(values, searches.Choice):
                assert value in values.values
            else:
                assert values.low <= value <= values.high
    for name in searches.SPACES[algo]:
        getattr(present, name)


def test_seeds_are_not_those_of_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    make, evaluate = searches.make_trainer, searches.evaluate

    def made_with(*args: Any, seed: int, **kwargs: Any) -> Any:
        seen.append(("training", seed))
        return make(*args, seed=seed, **kwargs)

    def evaluated(*args: Any, first_seed: int, **kwargs: Any) -> Any:
        seen.append(("score", first_seed))
        return evaluate(*args, first_seed=first_seed, **kwargs)

    monkeypatch.setattr(searches, "make_trainer", made_with)
    monkeypatch.setattr(searches, "evaluate", evaluated)
    made(tmp_path, search(steps=200), 1)
    assert {what for what, _ in seen} == {"training", "score"}
    assert min(seed for _, seed in seen) >= 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--algo", "pppo"], "did you mean 'ppo'"),
        (["--set", "lrr=1"], "did you mean 'lr'"),
        (["--trials", "0"], "at least 1"),
        (["--algo", "descent", "--set", "lr=-1"], "lr=-1"),
    ],
)
def test_bad_input_is_refused_before_work(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "search"
    assert message in refused(capsys, "search", ID, "--out", str(folder), *words)
    assert not folder.exists()


def test_an_algorithm_that_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "search")
    said = refused(capsys, "search", "tasep-open-v0", "--algo", "sac", "--out", out)
    assert "sac needs continuous actions" in said


def test_without_optuna_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    said = refused(capsys, "search", ID, "--out", str(tmp_path / "search"))
    assert 'pip install "invariantzoo[search]"' in said


def test_the_literal_keeps_what_the_id_has() -> None:
    of = Search("cluster-relaxation-v0", "ppo", steps=10)
    assert invariantzoo.spec(of.id).training["ppo"]["n_steps"] == 20
    literal = searches.registered(of, {"gamma": 0.95, "n_steps": 16})
    assert literal == {"steps": 2_000_000, "n_steps": 16}
