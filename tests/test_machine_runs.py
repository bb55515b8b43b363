"""Run folders that are damaged: one line, never a traceback, and never another policy."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import invariantzoo
from invariantzoo.training.rl.algorithms import make_config, make_trainer
from invariantzoo.training.runs import run as runs

CROWD = "particles-crowd-v0"
SYSTEM = {"n_agents": 3, "n_neighbours": 2, "horizon": 4, "density": 0.1}
LEARNERS = {
    "ppo": {"n_worlds": 2, "n_steps": 4, "batch_size": 8, "n_epochs": 1},
    "descent": {"n_worlds": 2, "rollout": 2},
    "es": {"n_worlds": 2, "pairs": 2, "rollout": 2},
}


@pytest.fixture(scope="module", params=LEARNERS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run."""
    algo = request.param
    folder = tmp_path_factory.mktemp("runs") / algo
    system = invariantzoo.make_system(CROWD, **SYSTEM)
    config = make_config(CROWD, algo, LEARNERS[algo])
    trainer = make_trainer(algo, system, config, seed=0, steps=24)
    runs.write_config(folder, runs.describe(CROWD, algo, system, config, steps=24, seed=0))
    with runs.recording(folder) as recorder:
        runs.train(trainer, recorder, checkpoint_every=1)
    return folder


@pytest.fixture
def damaged(trained: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[]",
        "[1, 2",
        "null",
        '"text"',
        "{",
        "\x00",
        "[" * 100_000,
        '{"schema": NaN}',
        '{"schema": "1"}',
        '{"schema": true}',
        '{"schema": [1]}',
        '{"schema": ' + "9" * 5000 + "}",
    ],
)
def test_what_is_no_config(text: str, damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (damaged / "config.json").write_text(text, encoding="utf-8")
    for words in (
        ["evaluate", str(damaged)],
        ["rollout", CROWD, "--policy", str(damaged)],
        ["regimes", str(damaged)],
        ["train", CROWD, "--out", str(damaged), "--resume"],
    ):
        assert len(refused(capsys, *words)) < 500


WRONG: list[tuple[str, Any]] = [
    ("steps", -5),
    ("steps", 0),
    ("steps", "24"),
    ("steps", 1.5),
    ("steps", None),
    ("steps", True),
    ("seed", -1),
    ("seed", "0"),
    ("seed", []),
    ("id", 3),
    ("id", ""),
    ("id", "..:x"),
    ("id", ":"),
    ("algo", ["ppo"]),
    ("algo", "dqn"),
    ("network", "transformer"),
    ("network", 1),
    ("network", "mlp"),
    ("parameters", []),
    ("parameters", {"n_agents": "three"}),
    ("parameters", {"n_agents": -1}),
    ("parameters", {"n_agents": 10**30}),
    ("parameters", {"id": 1}),
    ("hyperparameters", 4),
    ("hyperparameters", {"lr": float("nan")}),
    ("hyperparameters", {"width": 0}),
    ("hyperparameters", {"network": {}}),
    ("version", None),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_entries_of_another_kind(
    name: str, value: Any, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((damaged / "config.json").read_text(encoding="utf-8"))
    (damaged / "config.json").write_text(json.dumps({**config, name: value}), encoding="utf-8")
    refused(capsys, "evaluate", str(damaged), "--episodes", "1", "--seeds", "1")
    refused(capsys, "train", CROWD, "--out", str(damaged), "--resume")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_entry_is_read_as_it_was_or_refused(data: st.DataObject, damaged: Path) -> None:
    path = damaged / "config.json"
    whole = path.read_text(encoding="utf-8")
    config = json.loads(whole)
    changed = copy.deepcopy(config)
    place = data.draw(st.sampled_from(["", "parameters", "hyperparameters"]))
    entries = changed[place] if place else changed
    entries[data.draw(st.sampled_from(sorted(entries)))] = data.draw(JSON)
    path.write_text(json.dumps(changed), encoding="utf-8")
    try:
        system, hyper = runs.rebuild(damaged, runs.read_config(damaged))
    except (ValueError, FileNotFoundError):  # anything else fails the test
        return
    finally:
        path.write_text(whole, encoding="utf-8")
    again = runs.describe(
        changed["id"], changed["algo"], system, hyper, steps=changed["steps"], seed=changed["seed"]
    )
    for name, value in {**changed["parameters"], **changed["hyperparameters"]}.items():
        read = {**again["parameters"], **again["hyperparameters"]}[name]
        assert json.loads(json.dumps(read)) == value


def weights_of(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return state["policy"] if "policy" in state else state["network"]


def test_weights_that_are_not_finite(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = runs.read_checkpoint(damaged)
    next(iter(weights_of(state).values())).view(-1)[0] = float("nan")
    torch.save(state, damaged / "checkpoint.pt")
    assert "not finite" in refused(capsys, "evaluate", str(damaged))
    resumed = ["train", CROWD, "--out", str(damaged), "--resume"]
    assert "not finite" in refused(capsys, *resumed)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_checkpoint(share: float, damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damaged / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "cannot be read" in refused(capsys, "evaluate", str(damaged))


def test_parts_of_a_checkpoint_that_are_missing_or_of_another_shape(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = runs.read_checkpoint(damaged)
    for name in whole:
        for value in (None, "text", [], {}, -1, torch.zeros(2)):
            torch.save({**whole, name: value}, damaged / "checkpoint.pt")
            config = runs.read_config(damaged)
            system, hyper = runs.rebuild(damaged, config)
            trainer = make_trainer(config["algo"], system, hyper, seed=0, steps=24)
            if name == "env" and value == {}:
                continue  # as before the first reset
            if isinstance(value, dict) and whole[name] == {}:
                continue
            with pytest.raises(ValueError, match=r"does not fit config\.json"):
                runs.restore(damaged, trainer)
    weights = weights_of(whole)
    first = next(iter(weights))
    weights[first] = torch.zeros(7, 7)
    torch.save(whole, damaged / "checkpoint.pt")
    assert "does not fit" in refused(capsys, "evaluate", str(damaged))


@pytest.mark.parametrize(
    "text",
    [
        "steps,loss\n1,x\n",
        "steps,loss\n1\n",
        "loss\n2\n",
        "steps\nnan\n",
        "steps\n\x00\n",
        'steps,"loss\n1,2\n',
        "steps\ninf\n",
    ],
)
def test_progress_that_is_no_table(
    text: str, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (damaged / "progress.csv").write_text(text, encoding="utf-8")
    said = refused(capsys, "train", CROWD, "--out", str(damaged), "--resume", "--steps", "99")
    assert "progress.csv, line " in said


@pytest.mark.parametrize("text", ["", "steps,loss\n"])
def test_progress_without_rows(text: str, damaged: Path) -> None:
    (damaged / "progress.csv").write_text(text, encoding="utf-8")
    assert runs.read_progress(damaged) == []
