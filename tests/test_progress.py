"""What commands say while they work and when they are done: lines, tables, counts, paths."""

from __future__ import annotations

import argparse
import io
import json
import math
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba.core import event
from rich.console import Console

import invariantzoo
from invariantzoo.__main__ import COMMANDS, main
from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.kernels.announcement import COMPILING, announced, current
from invariantzoo.options import parse_settings, whole_number
from invariantzoo.progress import Pace, progress
from invariantzoo.tables import number, print_table, with_error
from invariantzoo.training.rl import score
from invariantzoo.training.runs import run as runs

CROWD = "particles-crowd-v0"
SMALL = {"n_agents": 4, "n_neighbours": 3, "horizon": 8, "density": 0.1, "n_worlds": 2}
LEARNER = {"n_steps": 5, "batch_size": 20, "n_epochs": 1}


def train(out: Path, *more: str, **settings: Any) -> list[str]:
    pairs = {**SMALL, **LEARNER, **settings}.items()
    words = [word for name, value in pairs for word in ("--set", f"{name}={value}")]
    return ["train", CROWD, "--out", str(out), *words, *more]


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariantzoo.commands.train.EPISODES", 2)
    monkeypatch.setattr("invariantzoo.commands.train.FRAMES", 3)


# Counts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("1_000_000", 1_000_000),
        ("1e6", 1_000_000),
        ("1E6", 1_000_000),
        ("1e+6", 1_000_000),
        ("2.5e5", 250_000),
        ("1.20e1", 12),
        ("2.0", 2),
        ("99999999999999999999999", 99999999999999999999999),
        ("1.5", None),
        ("1.25e1", None),
        ("1e-3", None),
        ("-5", None),
        ("1__0", None),
        ("_1", None),
        ("1e", None),
        ("e5", None),
        ("1e99", None),
        ("inf", None),
        ("nan", None),
        ("ten", None),
        ("", None),
    ],
)
def test_counts_as_people_write_them(
    text: str, value: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert whole_number(text) == value
    if value is None:
        assert main(train(tmp_path / "run", f"--steps={text}")) == 2
        assert "must be a whole number" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_counts_among_settings() -> None:
    found = parse_settings(["a=1e3", "b=1e-3", "c=2.5e5", "d=1e5x", "e=1.5", "f=e5"])
    assert found == {"a": 1000, "b": 0.001, "c": 250_000, "d": "1e5x", "e": 1.5, "f": "e5"}
    assert isinstance(found["a"], int)


def test_more_steps_than_asked_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(train(out, "--steps", "5e1", "--json")) == 0
    printed, said = capsys.readouterr()
    assert "80 agent-steps in 2 updates of 40; --steps 50 rounded up" in said
    assert said.index("rounded up") < said.index("scoring")
    report, config = json.loads(printed), json.loads((out / "config.json").read_text())
    assert report["steps"] == config["total_steps"] == 80
    assert config["steps"] == 50
    assert report["steps_per_second"] == pytest.approx(80 / report["seconds"])
    assert main(train(out, "--resume", "--steps", "120")) == 0
    said = capsys.readouterr().err
    assert "120 agent-steps in 3 updates" in said
    assert "rounded" not in said
    assert "goes on from 80" in said
    assert main(train(out, "--resume", "--steps", "81")) == 0  # an update that is begun is whole
    assert main(train(out, "--resume", "--steps", "80")) == 2
    assert "has made 120 agent-steps already, more than --steps 80" in capsys.readouterr().err
    assert json.loads((out / "config.json").read_text())["steps"] == 81


# Lines that can be pasted


@pytest.mark.parametrize("name", ["plain", "with a space", "it's [bold]:smile: odd", "l" * 90])
def test_the_hint_to_resume_is_a_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / name
    monkeypatch.setenv("COLUMNS", "40")
    add = runs.Recorder.add

    def interrupted(self: runs.Recorder, update: Any) -> None:
        add(self, update)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Recorder, "add", interrupted)
        assert main(train(folder, "--steps", "80")) == 130
    hint = capsys.readouterr().err.splitlines()[-1]
    program, *words = shlex.split(hint)
    assert program == "invariantzoo"
    assert words == ["train", CROWD, "--out", str(folder), "--resume"]
    assert main(words) == 0
    assert f"in {folder}\n" in capsys.readouterr().err


def test_the_hint_to_score_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "with a space"
    with monkeypatch.context() as patch:
        patch.setattr(score, "evaluate", stop)
        assert main(train(folder, "--steps", "40")) == 130
    program, *words = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert program == "invariantzoo"
    assert words == ["evaluate", str(folder)]


# Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(capsys: pytest.CaptureFixture[str], seconds: float, **how: Any) -> list[str]:
    """What 1,000 steps say that take so long, after 100 that took a minute."""
    clock = Clock()
    with progress(Console(file=io.StringIO()), 1100, unit="steps", clock=clock, **how) as show:
        for done in range(100, 1101, 10):
            clock.now = 60 + (done - 100) * seconds / 1000
            show(done, "loss 3")
    return capsys.readouterr().err.splitlines()


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    quick = lines(capsys, 20, every=30, tenths=True)
    assert len(quick) >= 10
    assert quick[-1].split() == ["1,100", "100", "%", "50/s", "0:00:00", "left", "loss", "3"]
    slow = lines(capsys, 3000, every=30, tenths=True)
    assert len(slow) == pytest.approx(100, abs=3)
    assert "550" in slow[45]
    assert "0:27:30 left" in slow[45]  # 550 steps at 1/3 a second
    few = lines(capsys, 20, every=10)
    assert len(few) == 3


def test_speed_is_that_of_the_last_minute_and_not_of_the_beginning() -> None:
    clock = Clock()
    pace = Pace(10_000, 0, clock)
    assert (pace.speed, pace.left) == (0, "")
    clock.now = 50  # compiling, perhaps
    pace.note(10)
    assert pace.speed == pytest.approx(0.2)
    assert pace.left == ""  # 14 hours would be wrong by a factor of 50
    for second in range(51, 151):
        clock.now = second
        pace.note(10 + 10 * (second - 50))
        assert pace.speed == pytest.approx(10)
    for second in range(151, 301):
        clock.now = second
        pace.note(1010 + 40 * (second - 150))
    assert pace.speed == pytest.approx(40)
    assert pace.left == "0:01:15 left"


def test_a_terminal_gets_one_bar(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    with progress(console, 100, unit="steps") as show:
        show(40, "loss 0.5  return -3")
        show(100, "loss 0.1  return -1")
    shown = file.getvalue()
    assert "100 %" in shown
    assert "loss 0.1  return -1" in shown
    assert capsys.readouterr().err == ""


def test_scoring_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    system = invariantzoo.make_system("test-leave-v0", horizon=15)
    for chunk in (score._CHUNK, 1):
        monkeypatch.setattr(score, "_CHUNK", chunk)
        shares: list[float] = []
        policy = make_policy("random", system)
        how = {"episodes": 3, "seeds": 2, "deterministic": False}
        seen = score.evaluate(system, policy, **how, watch=shares.append)
        unseen = score.evaluate(system, policy, **how)
        assert all(np.array_equal(seen[name], unseen[name]) for name in unseen)
        assert shares == sorted(shares)
        assert shares[0] > 0
        assert shares[-1] == 1
        assert len(shares) >= 2 * 15


def compile_anew() -> None:
    """Have numba compile a function that it does not know."""

    @njit
    def twice(x: float) -> float:
        return 2 * x

    assert twice(1.5) == 3.0


def test_slow_compilation_is_announced_once_while_it_goes_on() -> None:
    said: list[str] = []
    told = threading.Event()

    def say() -> None:
        said.append("compiling")
        told.set()

    with announced(say, patience=0.02):
        assert said == []
        with event.trigger_event("numba:compile"):  # what numba says of itself
            with event.trigger_event("numba:compile"):
                assert told.wait(60)
        with event.trigger_event("numba:compile"):
            assert said == ["compiling"]
        compile_anew()
    assert said == ["compiling"]


def test_many_short_compilations_are_announced_together() -> None:
    told = threading.Event()
    with announced(told.set, patience=0.3):
        for _ in range(10_000):
            with event.trigger_event("numba:compile"):
                if told.wait(0.01):
                    break
    assert told.is_set()


def test_what_compiles_quickly_and_what_is_compiled_is_not_announced() -> None:
    said: list[str] = []

    @njit
    def twice(x: float) -> float:
        return 2 * x

    with announced(lambda: said.append("first"), patience=600):
        twice(1.5)
    with announced(lambda: said.append("known"), patience=0):
        twice(2.5)
    compile_anew()  # nobody listens any more
    assert said == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_that_it_compiles_slowly(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: argparse.Namespace) -> int:
        announcement = current()
        assert announcement is not None
        announcement.patience = 0.0
        for _ in range(2):
            with event.trigger_event("numba:compile"):
                announcement.wait(60)
        return 0

    monkeypatch.setattr(f"invariantzoo.commands.{name}.run", run)
    parsed = argparse.Namespace(json=False)
    monkeypatch.setattr("invariantzoo.__main__._parse", lambda *_: parsed)
    assert main([name]) == 0
    assert capsys.readouterr().err.count(COMPILING) == 1


def test_a_window_of_python_says_that_it_compiles_slowly() -> None:
    code = (
        "import invariantzoo as iz\n"
        "from numba.core import event\n"
        "from invariantzoo.envs.core.kernels import announcement\n"
        "for make in (iz.parallel_env, iz.vec_env):\n"
        "    make('ising-equilibrium-v0', render_mode='human')\n"
        "announcement.current().patience = 0.0\n"
        "for _ in range(2):\n"
        "    with event.trigger_event('numba:compile'):\n"
        "        announcement.current().wait(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count(COMPILING) == 1


# Tables


def printed(width: int | None, *table: Any, **more: Any) -> str:
    file = io.StringIO()
    print_table(Console(file=file, force_terminal=bool(width), width=width), *table, **more)
    return file.getvalue()


ROWS = [
    ["trained", "-12.3±0.4", "0.0252±0.0003", "0.475±0.002", "0.0263±0.0008", "0.98835±0.00002"],
    ["equilibration", "-53±4", "0.46±0.04", "0.28±0.03", "(1.20±0.03)e-7", "–"],
]
HEAD = ["policy", "return", "total loss", "softest\nloss", "stiffest loss", "exponent"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_tables_fit_the_terminal_and_lose_nothing(width: int) -> None:
    shown = Console(file=io.StringIO(), width=width)
    text = printed(width, "quadratic-regimes-v0", HEAD, ROWS, emphasized="trained")
    from rich.text import Text

    plain = Text.from_ansi(text).plain
    assert max(map(len, plain.splitlines())) <= shown.width
    assert "…" not in plain
    for row in ROWS:
        for cell in row:
            assert cell in plain


def test_tables_that_nobody_looks_at_are_whole() -> None:
    text = printed(None, "quadratic-regimes-v0", HEAD, ROWS, caption="words " * 30)
    assert all(any(all(cell in line for cell in row) for line in text.splitlines()) for row in ROWS)
    assert ("words " * 30).strip() in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("mean", "se", "text"),
    [
        (0.475, 0.002, "0.475±0.002"),
        (0.4751, 1e-5, "0.475100±0.000010"),
        (0.005, 0.0097, "0.0050±0.0097"),
        (-4.331, 0.51, "-4.3±0.5"),
        (-4.331, 0.14, "-4.33±0.14"),
        (-123456.7, 33, "-123,457±33"),
        (1.2e-7, 3e-9, "(1.20±0.03)e-7"),
        (0.475, 1e-9, "0.475±1e-9"),
        (1, 0, "1±0"),
        (2, math.nan, "2±–"),
        (math.nan, math.nan, "–"),
        (math.inf, math.nan, "inf"),
    ],
)
def test_means_with_their_errors(mean: float, se: float, text: str) -> None:
    assert with_error(mean, se) == text


def test_numbers() -> None:
    values = (0.123456, 12345.6, 1e-9, math.nan, -0.0)
    assert [number(value) for value in values] == ["0.1235", "12,346", "1e-9", "–", "-0"]


def test_one_episode_has_no_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["evaluate", "test-hold-v0", "--policy", "random", *"--seeds 1 --episodes 1".split()])
        == 0
    )
    out, err = capsys.readouterr()
    assert "nan" not in out
    assert "–" in out
    assert "interquartile" in out
    assert "1 x 1 episodes of 30 steps" in err


def test_the_score_table_says_what_ranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train(tmp_path / "run", "--steps", "40")) == 0
    out, _ = capsys.readouterr()
    assert "return ranks" in out
    assert "…" not in out
