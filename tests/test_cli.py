"""The command line: one line for what is wrong, one JSON object for programs, quick to start."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import refused

import invariantzoo
from invariantzoo import options, signals
from invariantzoo.__main__ import COMMANDS, UNSEEDED, main
from invariantzoo.agents.policy import make_policy
from invariantzoo.commands.bench import titled, with_section
from invariantzoo.commands.evaluate import Entry
from invariantzoo.commands.evaluate import _entry as entry_of
from invariantzoo.commands.evaluate import _groups as groups_of
from invariantzoo.training.rl.algorithms import make_config, make_trainer
from invariantzoo.training.rl.score import HELD_OUT
from invariantzoo.training.runs import run as runs

CROWD = "particles-crowd-v0"
SMALL = {"n_agents": 4, "n_neighbours": 3, "horizon": 5, "density": 0.1}
SETTINGS = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]


def shell(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "invariantzoo", *words]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON object that a command prints."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short runs that differ in their seed."""
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("runs") / f"seed{seed}"
        system = invariantzoo.make_system(CROWD, **SMALL)
        config = make_config(CROWD, "descent", {"n_worlds": 2, "rollout": 4})
        trainer = make_trainer("descent", system, config, seed=seed, steps=1)
        about = runs.describe(CROWD, "descent", system, config, steps=1, seed=seed)
        runs.write_config(folder, about)
        with runs.recording(folder) as recorder:
            runs.train(trainer, recorder, checkpoint_every=1)
        folders.append(folder)
    return folders


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert ("--seed" in out) == (command not in UNSEEDED)
    assert "--json" in out
    assert err == ""


@pytest.mark.parametrize("words", [["list"], ["regimes", "nowhere"]])
def test_a_seed_that_changes_nothing_is_told(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = f"`{words[0]}` has no random numbers of its own to choose: --seed 3 changes nothing"
    main(words)
    assert told not in capsys.readouterr().err
    main([*words, "--seed", "3"])
    assert told in capsys.readouterr().err


def test_no_command_reads_a_seed_that_it_is_not_to_have() -> None:
    for command in COMMANDS:
        source = inspect.getsource(importlib.import_module(f"invariantzoo.commands.{command}"))
        assert ("args.seed" in source) == (command not in UNSEEDED), command


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("given", ["systems:test-hold-v0", "invariantzoo/test-hold-v0"])
def test_a_runs_parameters_hold_however_its_id_was_written(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were the default ones where it was trained as module:id."""
    parameters = {"horizon": 4, "noise": 0.7}
    system = invariantzoo.make_system(given, **parameters)
    config = make_config(given, "es", {"n_worlds": 1, "pairs": 2})
    trainer = make_trainer("es", system, config, seed=0, steps=1)
    runs.write_config(tmp_path, runs.describe(given, "es", system, config, steps=1, seed=0))
    with runs.recording(tmp_path) as recorder:
        runs.train(trainer, recorder, checkpoint_every=1)
    for id in (given, "test-hold-v0"):
        assert answer(capsys, "rollout", id, "--policy", str(tmp_path))["parameters"] == parameters
        args = argparse.Namespace(set=[], trust=False, policy=str(tmp_path))
        assert entry_of(id, args).system == system
        args.policy = None
        assert entry_of(str(tmp_path), args).id == "test-hold-v0"


def test_only_a_process_of_its_own_looks_for_unused_objects_less_often() -> None:
    before = gc.get_threshold()
    assert main(["--version"]) == 0
    assert gc.get_threshold() == before
    code = "from invariantzoo.__main__ import main; main(); import gc; print(gc.get_threshold()[0])"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "10000"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"invariantzoo {invariantzoo.__version__}\n"


def test_what_is_misspelt_gets_its_nearest_match(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'evaluate'" in refused(capsys, "evalute")
    assert "'--episodes'" in refused(capsys, "evaluate", CROWD, "--episods", "3")
    assert f"'{CROWD}'" in refused(capsys, "evaluate", "particles-crwd-v0")
    assert "'straight'" in refused(capsys, "evaluate", CROWD, "--policy", "strait")
    line = refused(capsys, "evaluate", CROWD, "--policy", "straight", "--set", "radios=0.1")
    assert "'radius'" in line


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "-1"],
        ["--seed", "1.5"],
        ["--episodes", "0"],
        ["--seeds", "many"],
        ["--set", "radius"],
        ["--set", "radius=0.1", "--set", "radius=0.2"],
        ["--set", "radius=-1"],
        ["--set", "n_agents=2.5"],
        ["--set", "density=50"],
        ["--deterministic", "--stochastic"],
        ["--episodes"],
    ],
)
def test_bad_input_is_refused_before_work(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "evaluate", CROWD, "--policy", "straight", *words)


def test_an_id_needs_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert "social-force" in refused(capsys, "evaluate", CROWD)


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "evaluate", str(tmp_path / "missing"))
    refused(capsys, "evaluate", str(tmp_path))
    (tmp_path / "config.json").write_text("[1, 2")
    refused(capsys, "evaluate", str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["config.json"]


def test_refusal_without_traceback_in_a_process() -> None:
    done = shell("evaluate", "nothing-like-it-v0", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_interrupt_gives_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("invariantzoo.commands.list.run", interrupted)
    assert main(["list"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("how", ["module", "script", "library"])
def test_interrupt_while_the_libraries_are_imported(how: str, tmp_path: Path) -> None:
    """A command ends with one line; where others import the package it is for them to say."""
    (tmp_path / "gymnasium.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\nraise SystemExit('not interrupted')\n"
    )
    script = tmp_path / "invariantzoo"  # as pip makes it
    script.write_text("import sys\nfrom invariantzoo.__main__ import main\nsys.exit(main())\n")
    command = {
        "module": ["-m", "invariantzoo", "list"],
        "script": [str(script), "list"],
        "library": ["-c", "import invariantzoo", "invariantzoo"],
    }[how]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        # a shell may have ignored it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.stdout == ""
    if how == "library":
        assert done.returncode == -signal.SIGINT
        assert done.stderr.endswith("\nKeyboardInterrupt\n")
    else:
        assert done.returncode == 130
        assert done.stderr == "invariantzoo: interrupted\n"


def test_an_interrupt_is_raised_again_once_a_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "invariantzoo.commands.list.run", lambda args: seen.append(signal.getsignal(signal.SIGINT))
    )
    before = signal.signal(signal.SIGINT, signals.end_at_once)
    try:
        main(["list"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.default_int_handler]


def test_a_reader_that_leaves_hears_no_complaint() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        command = [sys.executable, "-m", "invariantzoo", "list"]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 141
    assert done.stderr == ""


def test_tables_and_progress_leave_a_reader_that_left_to_main(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    os.close(read)
    with contextlib.suppress(BrokenPipeError), os.fdopen(write, "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        with pytest.raises(BrokenPipeError):
            options.messages().print("a line")


def test_list_shows_every_id(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == invariantzoo.ids()
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)


def test_list_as_json_holds_the_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    found = {one["id"]: one for one in answer(capsys, "list")["environments"]}
    assert sorted(found) == invariantzoo.ids()
    crowd = found[CROWD]
    assert crowd["parameters"]["n_agents"] == invariantzoo.make_system(CROWD).n_agents
    assert {"random", "straight", "brake", "social-force"} <= set(crowd["policies"])


def test_list_imports_nothing_heavy() -> None:
    code = (
        "import sys; from invariantzoo.__main__ import main; main(['list']); "
        "print(*{'torch', 'numba', 'stable_baselines3', 'pygame'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_settings_are_read_as_python_and_else_as_text() -> None:
    found = options.parse_settings(
        ["a=1", "b=0.5", "c=(0.1, 2)", "d=[1, 2]", "e=parallel", "f=true", "g=None", "h=x=y"]
    )
    assert found == {
        "a": 1,
        "b": 0.5,
        "c": (0.1, 2),
        "d": (1, 2),
        "e": "parallel",
        "f": True,
        "g": None,
        "h": "x=y",
    }


def test_json_has_no_numbers_that_json_lacks() -> None:
    value = {"a": np.float64("nan"), "b": np.array([1, np.inf]), "c": (np.int32(3), Path("x"))}
    assert options.plain(value) == {"a": None, "b": [1, None], "c": [3, "x"]}


def test_evaluate_prints_summaries(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", CROWD, "--policy", "straight", "--episodes", "3", "--seeds", "2"]
    found = answer(capsys, *words, *SETTINGS)
    assert found.keys() == {"id", "policy", "metrics"}
    assert (found["id"], found["policy"]) == (CROWD, "straight")
    system = invariantzoo.make_system(CROWD)
    assert found["metrics"].keys() == {"return", "loss", *system.reductions}
    for one in found["metrics"].values():
        assert one.keys() == {"mean", "se", "iqm", "ci95", "per_seed"}
        assert len(one["per_seed"]) == 2
        assert one["ci95"][0] <= one["iqm"] <= one["ci95"][1]
    assert found["metrics"]["progress"]["mean"] == pytest.approx(1)  # it keeps its velocity


def test_evaluate_knows_the_law_of_learned_spins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("invariantzoo.commands.train.EPISODES", 2)
    monkeypatch.setattr("invariantzoo.commands.train.FRAMES", 2)
    run = str(tmp_path / "spins")
    brief = ["--set", "n_sweeps=8", "--set", "burn_in=0"]
    words = ["train", "ising-equilibrium-v0", "--algo", "a2c", "--steps", "1000", "--out", run]
    assert main([*words, *brief]) == 0
    capsys.readouterr()
    found = answer(capsys, "evaluate", run, "--episodes", "2", "--seeds", "1")
    assert found["exact"].keys() == {"kl", "energy", "magnetization", "abs_magnetization"}
    assert found["exact"]["kl"] > 0
    assert abs(found["exact"]["magnetization"]) < 1e-6


def test_evaluate_follows_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", CROWD, "--policy", "random", "--episodes", "2", "--seeds", "2", *SETTINGS]
    assert answer(capsys, *words) == answer(capsys, *words, "--seed", "0")
    later = answer(capsys, *words, "--seed", "1")["metrics"]["loss"]["per_seed"]
    assert later[0] == answer(capsys, *words)["metrics"]["loss"]["per_seed"][1]


def test_policies_by_name_stay_random(capsys: pytest.CaptureFixture[str]) -> None:
    """`--deterministic` is about what was learned: a frozen random policy would be another one."""
    words = ["evaluate", CROWD, "--policy", "random", "--episodes", "2", "--seeds", "1", *SETTINGS]
    assert answer(capsys, *words) == answer(capsys, *words, "--deterministic")


def test_evaluate_a_run(trained: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(trained[0]), "--episodes", "2", "--seeds", "2"]
    found = answer(capsys, *words)
    assert found["id"] == CROWD
    assert found["metrics"]["loss"]["mean"] > 0
    other = answer(capsys, *words, "--set", "n_agents=6")
    assert other["metrics"]["loss"] != found["metrics"]["loss"]
    straight = answer(capsys, *words, "--policy", "straight")
    assert straight["policy"] == "straight"
    by_id = ["evaluate", CROWD, "--policy", str(trained[0]), *words[2:], *SETTINGS]
    assert answer(capsys, *by_id)["metrics"] == found["metrics"]


def test_pickles_are_read_only_if_trusted(
    trained: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    words = ["evaluate", str(folder), "--episodes", "2", "--seeds", "1"]
    careful = answer(capsys, *words)["metrics"]
    trusting = answer(capsys, *words, "--trust")["metrics"]
    assert trusting["loss"]["mean"] == pytest.approx(careful["loss"]["mean"], rel=1e-4)
    (folder / "policy.zip").write_bytes(b"not what it says")
    assert answer(capsys, *words)["metrics"] == careful
    refused(capsys, *words, "--trust")


def test_a_run_that_does_not_fit_is_refused(
    trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not fit" in refused(capsys, "evaluate", str(trained[0]), "--set", "n_neighbours=2")
    line = refused(capsys, "evaluate", "ising-equilibrium-v0", "--policy", str(trained[0]))
    assert "does not fit" in line


def test_several_runs_are_put_together(
    trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "evaluate", *map(str, trained), "--episodes", "3", "--seeds", "1")
    means = [one["metrics"]["loss"]["mean"] for one in found["runs"]]
    assert means[0] != means[1]
    together = found["metrics"][CROWD]["loss"]
    assert together["per_seed"] == means
    assert together["mean"] == pytest.approx(np.mean(means))
    assert together["se"] == pytest.approx(abs(means[0] - means[1]) / 2)


def test_runs_of_different_algorithms_are_not_put_together() -> None:
    system = invariantzoo.make_system(CROWD)
    policy = make_policy("straight", system)
    algos = ["ppo", "sac", "", "ppo", "ppo"]
    ids = [CROWD, CROWD, "x-y-v0", "x-y-v0", "x-y-v0"]
    entries = [
        Entry(id, str(number), system, policy, algo, seed=number)
        for number, (id, algo) in enumerate(zip(ids, algos, strict=True))
    ]
    assert groups_of(entries) == {"x-y-v0": [3, 4]}
    assert groups_of([entries[3], entries[3]._replace(name="./3")]) == {}
    assert groups_of([entries[3], entries[4]._replace(settings="others")]) == {}
    assert groups_of([entries[3], entries[4]._replace(seed=entries[3].seed)]) == {}


def test_runs_of_other_settings_are_not_put_together(
    trained: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained[1], other)
    config = runs.read_config(other)
    words = ["evaluate", str(trained[0]), str(other), "--episodes", "1", "--seeds", "1"]
    runs.write_config(
        other, {**config, "curriculum": {"radius": [0.1, config["parameters"]["radius"]]}}
    )
    assert answer(capsys, *words)["metrics"] == {}
    config["hyperparameters"]["lr"] *= 2
    runs.write_config(other, config)
    assert answer(capsys, *words)["metrics"] == {}
    assert main(words) == 0
    assert "with other settings, steps or parameters" in capsys.readouterr().err


def test_a_run_is_scored_with_its_own_parameters(
    trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it is named alone or as the policy of its id."""
    few = ("--episodes", "2", "--seeds", "1")
    alone = answer(capsys, "evaluate", str(trained[0]), *few)
    assert answer(capsys, "evaluate", CROWD, "--policy", str(trained[0]), *few) == alone


def test_training_and_evaluation_do_not_share_worlds(trained: list[Path]) -> None:
    assert runs.read_config(trained[1])["seed"] < HELD_OUT


def test_tables_for_people_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", CROWD, "--policy", "straight", "--episodes", "1", "--seeds", "1"]
    assert main([*words, *SETTINGS]) == 0
    assert "progress" in capsys.readouterr().out


def test_bench_measures_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invariantzoo.commands.bench.MEMORY", ((2, 3),))
    page = tmp_path / "speed.md"
    found = answer(capsys, "bench", "--quick", "--write", str(page))
    assert found.keys() == {"machine", "cases", "import", "memory", "missing"}
    assert all(one["speed"] > 0 for one in found["cases"])
    assert not found["import"]["imported"]
    assert all(one["peak_mib"] >= one["imports_mib"] > 0 for one in found["memory"])
    text = page.read_text()
    assert all(one["case"] in text for one in found["cases"])
    refused(capsys, "bench", "--write", str(tmp_path / "nowhere" / "speed.md"))


def test_bench_of_a_device_can_be_tried_on_the_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invariantzoo.bench.device.WORLDS", (2,))
    monkeypatch.setattr("invariantzoo.bench.device.PARAMETERS", (100,))
    monkeypatch.setattr("invariantzoo.bench.device.DENSE", 40)
    page = tmp_path / "speed.md"
    page.write_text("# Speed\n\n## Others\n\nstay\n")
    words = ["bench", "--device", "cpu", "--quick", "--write", str(page)]
    measured = answer(capsys, *words)
    assert measured["machine"]["device"] == "cpu"
    assert measured["left_out"] == []
    assert len(measured["cases"]) == 10
    assert all(case["speed"] > 0 and case["peer_speed"] > 0 for case in measured["cases"])
    text = page.read_text()
    assert "\n## Others\n\nstay\n" in text
    assert "\n## On a device\n" in text
    assert ", device cpu" in text
    assert all(f"| {case['case']} |" in text for case in measured["cases"])
    monkeypatch.setattr("invariantzoo.bench.device.LONGEST", -1.0)
    assert len(answer(capsys, *words, "--only", "Adam")["left_out"]) == 1
    assert "No time was left for: Adam, 100 parameters." in page.read_text()
    assert "cannot compute here" in refused(capsys, "bench", "--device", "meta")
    assert "--only 'nothing'" in refused(capsys, "bench", "--device", "cpu", "--only", "nothing")


def test_a_section_of_the_page_of_speeds_is_renewed_alone() -> None:
    page = "# Speed\n\na\n"
    both = with_section(with_section(page, "One", "first\n"), "Two", "second\n")
    assert both == "# Speed\n\na\n\n## One\n\nfirst\n\n## Two\n\nsecond\n"
    renewed = with_section(both, "One", "third")
    assert renewed == both.replace("first", "third")
    assert with_section(both, "Two", "fourth") == both.replace("second", "fourth")


def test_the_heading_of_the_page_of_speeds_counts_the_goals_of_all_sections() -> None:
    page = "# Speed\n\n| a | yes |\n| b |  |\n\n## Two\n\n| c | no |\n| d | yes |\n"
    assert titled(page).startswith("# Speed of every interface: 2 of 3 goals met\n\n| a | yes |")
    published = (Path(__file__).parent.parent / "docs/speed.md").read_text(encoding="utf-8")
    assert titled(published) == published
