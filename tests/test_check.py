"""The conformance checks find planted defects, and find nothing in sound environments."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted_defects as planted
import pytest
import torch
from pettingzoo import ParallelEnv

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core.conformance.check import check_parallel, check_processes
from invariantzoo.envs.core.conformance.contract import Finding
from invariantzoo.envs.core.interfaces.pettingzoo import make_parallel
from invariantzoo.figures.conformance import CHECKS

TWO_WATERS = str(Path(__file__).parent / "data" / "water2.npz")
SMALL: dict[str, dict[str, Any]] = {  # few agents, whom the checks meet one by one, and ends
    "particles-crowd-v0": {"n_agents": 6, "n_neighbours": 3, "horizon": 9},
    "particles-goals-v0": {"n_agents": 8},
    "particles-circle-v0": {"n_agents": 8},
    "ising-equilibrium-v0": {"lattice_size": 3, "n_sweeps": 3, "burn_in": 1},
    "dirac-steer-v0": {"side": 12, "width": 1.5},
    "klein-gordon-force-v0": {"lattice_size": 12},
    "water-inference-v0": {"data": TWO_WATERS},
    "water-dynamics-v0": {"data": TWO_WATERS},
    "test-hold-v0": {"horizon": 9},
    "test-leave-v0": {"n_agents": 2, "length": 3},
}


def name_of(value: Any) -> str | None:
    return getattr(value, "__name__", None)


@pytest.mark.parametrize("make_env", planted.HEALTHY, ids=name_of)
def test_sound_environments_pass(make_env: Callable[..., ParallelEnv]) -> None:
    assert check_parallel(make_env, steps=45) == []


@pytest.mark.parametrize(("name", "make_env"), planted.DEFECTS, ids=name_of)
def test_each_defect_is_found_and_nothing_else(
    name: str, make_env: Callable[..., ParallelEnv]
) -> None:
    check = check_processes if name == "process-dependent" else check_parallel
    assert [finding.name for finding in check(make_env, steps=45)] == [name]


@pytest.mark.parametrize("update", ["sequential", "checkerboard", "parallel"])
def test_every_update_order_of_ising_passes(update: str) -> None:
    make = functools.partial(
        make_parallel, "ising-equilibrium-v0", lattice_size=2, n_sweeps=3, burn_in=1
    )
    assert check_parallel(functools.partial(make, update=update), steps=30) == []


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_every_id_passes(id: str) -> None:
    make = functools.partial(make_parallel, id, **SMALL.get(id, {}))
    assert check_parallel(make, steps=20) == []


def test_sound_environments_agree_across_processes() -> None:
    assert check_processes(planted.Walkers, steps=30) == []


def test_a_factory_that_cannot_be_pickled_is_not_run_elsewhere() -> None:
    assert check_processes(lambda: planted.HashOrder(), steps=30) == []


def test_another_seed_finds_the_same() -> None:
    assert check_parallel(planted.Leavers, seed=12345, steps=60) == []
    found = check_parallel(planted.LateNoise, seed=12345, steps=60)
    assert [finding.name for finding in found] == ["unseeded-noise"]


def test_findings_say_where() -> None:
    (found,) = check_parallel(planted.Nan, steps=30)
    text = "the observation of 'walker_0' at step 13 after reset(seed=0) holds NaN at index (1,)"
    assert found.message == text


def test_every_finding_is_documented() -> None:
    documented = {name for names in CHECKS for name in names.split()}
    assert {name for name, _ in planted.DEFECTS} <= documented
    page = (Path(__file__).parent.parent / "docs/conformance.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in documented)


def test_what_is_no_parallel_environment_is_said_to_be_none() -> None:
    env = invariantzoo.env("particles-encounter-v0")
    (found,) = check_parallel(lambda: env)
    assert found.name == "not-parallel"


def test_the_callers_process_is_left_as_it_was() -> None:
    def state() -> tuple:
        legacy = np.random.get_state()  # noqa: NPY002
        generators = (random.getstate(), legacy[1].tolist(), torch.get_rng_state().tolist())
        return (*generators, np.geterr(), torch.get_default_dtype())

    before = state()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for make_env in (planted.GlobalSeed, planted.Settings, planted.GlobalTorch):
            check_parallel(make_env, steps=20)
    assert state() == before
    assert out.getvalue() == ""


def test_the_pettingzoo_checker_is_heard() -> None:
    class Fixed(planted.Walkers):
        """PettingZoo's checker sets max_cycles."""

        @property
        def max_cycles(self) -> int:
            return self.horizon

    (found,) = check_parallel(Fixed, steps=30)
    assert found.name == "pettingzoo-parallel-api"


@pytest.fixture
def in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)


@pytest.mark.usefixtures("in_tests")
def test_the_command_tells_sound_from_broken(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--steps", "30"]
    assert main(["check", "planted_defects:Alone", *words]) == 0
    assert capsys.readouterr().out == "planted_defects:Alone: nothing found\n"
    assert main(["check", "planted_defects:NumpyFlags", *words]) == 1
    assert capsys.readouterr().out.splitlines()[0].startswith("flag-type: ")
    assert main(["check", "planted_defects:HashOrder", *words]) == 1
    assert capsys.readouterr().out.splitlines()[0].startswith("process-dependent: ")


@pytest.mark.usefixtures("in_tests")
def test_json_is_all_there_is_on_standard_output() -> None:
    words = ["check", "planted_defects:Talks", "--steps", "20", "--json"]
    command = [sys.executable, "-m", "invariantzoo", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["target"] == "planted_defects:Talks"
    assert found["passed"] is False
    assert [finding["check"] for finding in found["findings"]] == ["reward-array"]
    assert set(found) == {"target", "passed", "findings"}


def test_the_command_takes_ids_and_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    id = "ising-equilibrium-v0"
    words = [
        "--set",
        "lattice_size=2",
        "--set",
        "n_sweeps=3",
        "--set",
        "burn_in=1",
        "--steps",
        "20",
        "--seed",
        "3",
    ]
    assert main(["check", f"invariantzoo/{id}", *words]) == 0  # other processes know the name too
    capsys.readouterr()
    checked: list[str] = []

    def elsewhere(make_env: Callable[[], ParallelEnv], **plan: int) -> list[Finding]:
        checked.append(make_env().metadata["name"])
        return []

    monkeypatch.setattr("invariantzoo.envs.core.conformance.check.check_processes", elsewhere)
    assert main(["check", id, *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"target": id, "passed": True, "findings": []}
    assert checked == [id]


@pytest.mark.usefixtures("in_tests")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["particles-croud-v0"], "particles-crowd-v0"),
        (["no_such_module:make"], "no_such_module"),
        (["planted_defects:Walker"], "Walkers"),
        (["planted_defects:HEALTHY"], "no factory 'HEALTHY'"),
        (["planted_defects:Failing"], "RuntimeError: not today"),
        (["planted_defects:Walkers", "--set", "colour=red"], "colour"),
        (["particles-crowd-v0", "--set", "n_agent=3"], "n_agents"),
        (["particles-crowd-v0", "--set", "radius=-1"], "radius"),
        (["particles-crowd-v0", "--steps", "0"], "--steps"),
        ([], "TARGET"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
