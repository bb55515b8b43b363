"""`export --hub`: a policy as a folder to share, which acts as the run does, to the bit."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import full_disk, refused

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core.rng import Rng
from invariantzoo.training.rl.algorithms import make_config, make_trainer
from invariantzoo.training.runs.hub import card
from invariantzoo.training.runs.run import (
    describe,
    on_the_side,
    read_config,
    read_progress,
    recording,
    train,
    write_config,
    write_json,
    write_progress,
)

ENCOUNTER, LEAVE = "particles-encounter-v0", "test-leave-v0"
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"n_worlds": 2, "n_steps": 8, "batch_size": 8},
    "a2c": {"n_worlds": 2},
    "sac": {"n_worlds": 2},
    "descent": {"n_worlds": 2, "rollout": 3},
    "es": {"n_worlds": 1, "pairs": 2},
}
needs_safetensors = pytest.mark.skipif(
    importlib.util.find_spec("safetensors") is None, reason="safetensors is not installed"
)


def make_run(folder: Path, id: str, algo: str) -> None:
    """A run of one update or so, with scores."""
    system = invariantzoo.make_system(id, horizon=10)
    config = make_config(id, algo, SETTINGS[algo])
    told = describe(id, algo, system, config, steps=64, seed=1)
    write_config(folder, told)
    trainer = make_trainer(algo, system, config, seed=1, steps=64)
    with recording(folder) as recorder:
        assert train(trainer, recorder, checkpoint_every=10)
    summary = {"mean": -1.25, "se": 0.5, "iqm": -1.2, "ci95": [-2, -1], "per_seed": [-1.25]}
    write_json(folder / "scores.json", {"scores": {"trained": {"return": summary}}})


def test_no_module_is_imported_for_the_sake_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's folder may hold a module, and Python looks where it is started."""
    make_run(tmp_path, ENCOUNTER, "es")
    config = json.loads((tmp_path / "config.json").read_text())
    write_config(tmp_path, {**config, "id": f"stranger:{ENCOUNTER}"})
    (tmp_path / "stranger.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    with pytest.raises(ValueError, match="needs the module 'stranger', which is not imported"):
        invariantzoo.load_run(".")
    monkeypatch.setitem(sys.modules, "stranger", types.ModuleType("stranger"))
    assert invariantzoo.load_run(".").config["id"] == f"stranger:{ENCOUNTER}"


@needs_safetensors
def test_a_full_disk_leaves_no_part_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run", ENCOUNTER, "es")
    words = ["export", str(tmp_path / "run"), "--hub", str(tmp_path / "shared")]
    with full_disk(500):
        said = refused(capsys, *words)
    assert said.endswith("shared could not be written: File too large\n")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert main(words) == 0


@needs_safetensors
@pytest.mark.parametrize(
    ("algo", "id"),
    [
        ("ppo", ENCOUNTER),
        ("a2c", LEAVE),
        ("sac", ENCOUNTER),
        ("descent", ENCOUNTER),
        ("es", ENCOUNTER),
    ],
)
def test_actions_are_the_same_after_reload(
    algo: str, id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, shared = tmp_path / "run", tmp_path / "shared"
    make_run(run, id, algo)
    capsys.readouterr()
    assert main(["export", str(run), "--hub", str(shared), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(told["files"]) == sorted(os.listdir(shared))
    assert set(told["files"]) == {"README.md", "config.json", "model.safetensors"}
    mine, theirs = invariantzoo.load_run(run), invariantzoo.load_run(shared)
    assert theirs.config == mine.config
    env = invariantzoo.VectorEnv(mine.system, 3, seed=5)
    observation = torch.from_numpy(env.reset())
    with torch.no_grad():
        likely = [run.policy(observation, None) for run in (mine, theirs)]
        drawn = [run.policy(observation, Rng.single(4, 3)) for run in (mine, theirs)]
    assert torch.equal(*likely)
    assert torch.equal(*drawn)
    words = [id, "--n-steps", "4", "--json"]
    played = []
    for folder in (run, shared):
        assert main(["rollout", *words, "--policy", str(folder)]) == 0
        played.append(json.loads(capsys.readouterr().out)["return"])
    assert played[0] == played[1]


@needs_safetensors
def test_the_card_tells_what_was_made_and_what_is_not_defined(tmp_path: Path) -> None:
    """Fewer steps than were asked for, and a metric that no episode had, or one alone."""
    run, shared = tmp_path / "run", tmp_path / "shared"
    make_run(run, ENCOUNTER, "es")
    config = json.loads((run / "config.json").read_text())
    write_config(run, {**config, "steps": 10**6})
    made = read_progress(run)[-1]["steps"]
    nothing, alone = {"mean": None, "se": None}, {"mean": 2.0, "se": None}
    write_json(run / "scores.json", {"scores": {"trained": {"return": nothing, "hits": alone}}})
    assert main(["export", str(run), "--hub", str(shared)]) == 0
    text = (shared / "README.md").read_text(encoding="utf-8")
    assert f"Trained for {made:,} agent-steps" in text
    assert "| trained | – | 2 |" in text
    assert "mean_reward" not in text


@needs_safetensors
@pytest.mark.parametrize(
    "text", ["[]", '{"a', '{"scores": 1}', '{"scores": {"x": {"return": {"mean": "a"}}}}']
)
def test_scores_that_are_none_are_named(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run", ENCOUNTER, "es")
    (tmp_path / "run" / "scores.json").write_text(text)
    said = refused(capsys, "export", str(tmp_path / "run"), "--hub", str(tmp_path / "shared"))
    assert "scores.json cannot be read" in said
    assert not (tmp_path / "shared").exists()


@needs_safetensors
@pytest.mark.parametrize("algo", ["ppo", "es"])
def test_the_card_is_of_the_weights_that_are_shared(algo: str, tmp_path: Path) -> None:
    """Rows of a process that was killed before its checkpoint, and scores of a shorter training."""
    run = tmp_path / "run"
    make_run(run, ENCOUNTER, algo)
    rows = read_progress(run)
    made = rows[-1]["steps"]
    write_progress(run, [*rows, {**rows[-1], "steps": made + 512}])
    (run / "rollout.mp4").write_bytes(b"a film")
    report = json.loads((run / "scores.json").read_text())
    for steps, whole in ((made, True), (made - 1, False)):
        write_json(run / "scores.json", {**report, "steps": steps})
        shared = tmp_path / f"shared-{steps}"
        assert main(["export", str(run), "--hub", str(shared)]) == 0
        text = (shared / "README.md").read_text(encoding="utf-8")
        assert f"Trained for {made:,} agent-steps" in text
        assert ("-1.25" in text) == whole
        assert (shared / "replay.mp4").exists() == whole


def test_the_card_plays_a_policy_as_it_was_scored() -> None:
    known = {"algo": "es", "version": "1", "network": "mlp", "steps": 1, "seed": 0}
    known |= {"parameters": {}, "hyperparameters": {}}
    for id, likely in ((ENCOUNTER, True), ("ising-equilibrium-v0", False)):
        assert f"deterministic={likely})" in card({**known, "id": id}, {})


def test_what_the_end_of_a_shorter_training_wrote_goes_when_it_goes_on(tmp_path: Path) -> None:
    make_run(tmp_path, ENCOUNTER, "es")
    ends = [tmp_path / name for name in ("scores.json", "learning_curve.png", "rollout.mp4")]
    for path in ends[1:]:
        path.write_bytes(b"a picture")
    trainer = on_the_side(tmp_path, read_config(tmp_path), updates=2)
    with recording(tmp_path, since=trainer.steps) as recorder:
        recorder.save(trainer)
        assert all(path.exists() for path in ends), "nothing was learned since"
        assert not train(trainer, recorder, checkpoint_every=1, watch=lambda update: False)
    assert not any(path.exists() for path in ends)


@needs_safetensors
def test_the_card_is_read_by_hubs_and_people(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    run, shared = tmp_path / "run", tmp_path / "shared"
    make_run(run, ENCOUNTER, "ppo")
    (run / "rollout.mp4").write_bytes(b"a film")
    assert main(["export", str(run), "--hub", str(shared)]) == 0
    assert (shared / "replay.mp4").read_bytes() == b"a film"
    text = (shared / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["library_name"] == "invariantzoo"
    assert {"reinforcement-learning", ENCOUNTER, "ppo"} <= set(told["tags"])
    (result,) = told["model-index"][0]["results"]
    assert result["dataset"] == {"name": ENCOUNTER, "type": ENCOUNTER}
    assert result["metrics"] == [
        {"type": "mean_reward", "value": "-1.25 +/- 0.5", "name": "return"}
    ]
    assert "| trained | -1.25 ± 0.5 |" in body
    assert "| `n_steps` | `8` |" in body
    code = body.split("```python\n")[1].split("```")[0]
    before = os.getcwd()
    os.chdir(shared)
    try:
        exec(compile(code, "README.md", "exec"), {})
    finally:
        os.chdir(before)


@needs_safetensors
def test_what_is_no_run_or_no_weights_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, shared = tmp_path / "run", tmp_path / "shared"
    make_run(run, ENCOUNTER, "ppo")
    assert "is not a run" in refused(capsys, "export", str(tmp_path), "--hub", str(shared))
    assert main(["export", str(run), "--hub", str(shared)]) == 0
    assert "holds files already" in refused(capsys, "export", str(run), "--hub", str(shared))
    words = refused(capsys, "train", ENCOUNTER, "--resume", "--out", str(shared))
    assert "holds weights to share" in words
    assert "is a folder, not an id" in refused(capsys, "train", "--resume", str(shared))
    weights = shared / "model.safetensors"
    whole = weights.read_bytes()
    from safetensors.torch import load, save_file

    tensors = load(whole)
    for damage, words in (
        (whole[: len(whole) // 2], "cannot be read"),
        (b"", "cannot be read"),
    ):
        weights.write_bytes(damage)
        with pytest.raises(ValueError, match=words):
            invariantzoo.load_run(shared)
    first = next(iter(tensors))
    for name, value, words in (
        ("other.weight", torch.zeros(3), "no weight of a policy"),
        (first, tensors[first] * float("nan"), "not finite"),
        (first, torch.zeros(3, 3, 3), r"model\.safetensors does not fit"),
    ):
        save_file({**tensors, name: value}, weights)
        with pytest.raises(ValueError, match=words):
            invariantzoo.load_run(shared)


def test_without_safetensors_a_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    make_run(run, ENCOUNTER, "ppo")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "safetensors" else find(name)
    )
    line = refused(capsys, "export", str(run), "--hub", str(tmp_path / "shared"))
    assert 'pip install "invariantzoo[hub]"' in line
    assert not (tmp_path / "shared").exists()
