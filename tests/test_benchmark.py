"""`invariantzoo benchmark`: units that are run folders, who runs them, and their scores."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import refused

import invariantzoo
from invariantzoo.__main__ import Parser, main
from invariantzoo.benchmark_page import page, write
from invariantzoo.commands import train
from invariantzoo.commands.benchmark import _distinct, _of_others
from invariantzoo.envs.core.files import IN_USE, LOCK
from invariantzoo.envs.core.registry import ScoreScale, spec
from invariantzoo.training.benchmark import engines, results, scoring, units
from invariantzoo.training.benchmark.units import Unit

ID = "quadratic-regimes-v0"
WORDS = ["benchmark", "--ids", ID, "--algos", "ppo", "--seeds", "2", "--steps", "3000"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of two runs; the first was killed at its start, and went on to its end."""
    out = tmp_path_factory.mktemp("benchmark")
    unit = Unit(ID, "ppo", "adam", 0, 3000)
    assert "--resume" not in unit.words(out)
    process = engines.start(unit, out)
    while not (out / unit.name / "config.json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not unit.done(out)
    assert "--resume" in unit.words(out)
    assert main([*WORDS, "--out", str(out)]) == 0
    assert unit.done(out)
    return out


def test_a_folder_whose_name_begins_with_a_dash_is_an_out() -> None:
    parser = Parser()
    train.add_arguments(parser)
    words = Unit(ID, "ppo", "adam", 0, 3000).words(Path("-runs"))
    asked = parser.parse_args([word for word in words[1:] if word not in ("--seed", "0")])
    assert asked.out == Path("-runs") / ID / "ppo-adam-0"


def test_a_benchmark_leaves_runs_results_a_page_and_pictures(done: Path) -> None:
    document = json.loads((done / "benchmark.json").read_text())
    assert [run["seed"] for run in document["runs"]] == [0, 1]
    for run in document["runs"]:
        scores = json.loads((done / ID / f"ppo-adam-{run['seed']}" / "scores.json").read_text())
        mean = scores["scores"]["trained"]["return"]["mean"]
        scale = spec(ID).score
        assert scale is not None
        assert run["return"] == mean
        assert run["score"] == pytest.approx((mean - scale.random) / (scale.best - scale.random))
        assert list(scores["scores"]) == ["trained"]
    assert document["aggregates"]["ppo adam"]["runs"] == 2
    page = (done / "benchmark.md").read_text()
    assert f"| {ID} |" in page
    for name in ("scores.png", "profiles.png", "curves.png"):
        assert (done / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in page


def test_curves_are_read_from_progress(tmp_path: Path) -> None:
    scale = results.scale(ID)
    unit = Unit(ID, "es", "cgd", 1, 10)
    folder = tmp_path / unit.name
    folder.mkdir(parents=True)
    scores = {"trained": {"return": {"mean": -1.0}}}
    report = {"steps": 30, "seconds": 2.5, "cpu_seconds": 1.5, "scores": scores}
    (folder / "scores.json").write_text(json.dumps(report))
    (folder / "progress.csv").write_text(
        "steps,seconds,cpu_seconds,loss,return\n10,1,0.5,3,\n"
        f"20,2,1,3,{scale.random}\n30,2.5,1.5,3,{scale.best}\n"
    )
    document = results.collect([unit, Unit(ID, "es", "cgd", 2, 10)], {}, tmp_path, suite="quick")
    (run,) = document["runs"]
    assert run["curve"] == [[20, 1.0, 0.0], [30, 1.5, 1.0]]
    assert run["cpu_seconds"] == 1.5


def test_what_is_done_is_not_done_again(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "start", lambda unit, out: pytest.fail(f"{unit} was done"))
    assert main([*WORDS, "--out", str(done)]) == 0


def test_a_run_of_other_steps_is_not_taken_for_what_is_asked(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither one that is done nor one that was begun, whose schedule was another."""
    said = refused(capsys, *WORDS[:-1], "2000", "--out", str(done))
    assert "ppo-adam-0 is a run of 3000 agent-steps, not 2000" in said


def test_a_run_of_other_settings_is_not_taken_for_what_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of another version; in an array also where another job has the share that it is of."""
    first, second = (Unit(ID, "ppo", "adam", seed, 3000) for seed in (0, 1))
    settings = units.hyperparameters(ID, "ppo", "adam")
    plain = units.plain_hyperparameters("ppo")
    assert settings["max_grad_norm"] == plain["max_grad_norm"]
    former = {name: value for name, value in settings.items() if name != "max_grad_norm"}
    for unit, made in ((first, {**former, "device": "cuda"}), (second, {**settings, "gamma": 0.5})):
        (tmp_path / unit.name).mkdir(parents=True)
        config = {"steps": 3000, "hyperparameters": made}
        (tmp_path / unit.name / "config.json").write_text(json.dumps(config))
    units.require_same_settings([first], tmp_path)
    del former["n_epochs"]  # which has been read, and trained with, as the algorithm's own
    config = {"steps": 3000, "hyperparameters": former}
    (tmp_path / first.name / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"n_epochs={plain['n_epochs']}, not 2"):
        units.require_same_settings([first], tmp_path)
    (tmp_path / first.name / "config.json").unlink()
    for name, value in (("ID", 1), ("MIN", 1), ("MAX", 2)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    said = refused(capsys, *WORDS, "--engine", "array", "--out", str(tmp_path))
    assert "ppo-adam-1 is a run with gamma=0.5, not " in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"parameters": {"noise": 1.0, "horizon": 7}}, "horizon=7, not 400"),
        (
            {"parameters": {"rate": 0.1}, "curriculum": {"rate": [0.1, 0.2]}},
            r"rate=\[0.1, 0.2\], not",
        ),
    ],
)
def test_a_run_of_other_parameters_is_not_taken_for_what_is_asked(
    more: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """As of an id of one's own that is still changed, or of a training by hand."""
    unit = Unit(ID, "ppo", "adam", 0, 3000)
    folder = tmp_path / unit.name
    folder.mkdir(parents=True)
    config = {"steps": 3000, "hyperparameters": units.hyperparameters(ID, "ppo", "adam")}
    same = {"parameters": {"noise": 1.0, "horizon": 400}}
    (folder / "config.json").write_text(json.dumps({**config, **same}))
    units.require_same_settings([unit], tmp_path)
    (folder / "config.json").write_text(json.dumps({**config, **more}))
    with pytest.raises(ValueError, match=f"is a run with {said}.* which {ID} has now"):
        units.require_same_settings([unit], tmp_path)


def test_seeds_begin_with_the_one_that_is_given() -> None:
    planned, _ = units.plan([ID], ["ppo"], ["adam"], 2, most_steps=10, first_seed=7)
    assert [unit.seed for unit in planned] == [7, 8]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"scores": {}}', '{"scores": {"trained": {"return": {"mean": null}}}}'],
)
def test_a_damaged_report_is_named_and_the_others_are_kept(text: str, tmp_path: Path) -> None:
    good, bad = (Unit(ID, "es", "adam", seed, 10) for seed in range(2))
    report = {"steps": 9, "seconds": 1, "scores": {"trained": {"return": {"mean": -1.0}}}}
    for unit, content in ((good, json.dumps(report)), (bad, text)):
        (tmp_path / unit.name).mkdir(parents=True)
        (tmp_path / unit.name / "scores.json").write_text(content)
    whole, ((unit, reason),) = results.readable([good, bad], tmp_path)
    assert (whole, unit) == ([good], bad)
    assert str(tmp_path / bad.name / "scores.json") in reason


def test_an_id_that_is_named_in_two_ways_is_one() -> None:
    assert _distinct([ID, f"invariantzoo/{ID}"]) == (ID,)


def test_algorithms_that_cannot_train_an_id_are_a_dash() -> None:
    planned, refused = units.plan(["tasep-open-v0"], ["ppo", "sac"], ["adam"], 1, most_steps=10)
    assert [unit.algo for unit in planned] == ["ppo"]
    assert list(refused) == [("tasep-open-v0", "sac")]


class Ended:
    """A process that has ended."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode

    wait = poll


def test_a_unit_whose_folder_is_held_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a node is taken for lost whose process goes on."""
    unit, waits = Unit(ID, "ppo", "adam", 4, 3000), []
    (tmp_path / unit.name).mkdir(parents=True)
    monkeypatch.setattr(engines.time, "sleep", waits.append)

    def start(unit: Unit, out: Path) -> Ended:
        if len(waits) < 2:
            return Ended(IN_USE)
        (tmp_path / unit.name / "scores.json").touch()
        return Ended(0)

    monkeypatch.setattr(engines, "start", start)
    assert engines.run_unit(unit, tmp_path) == ""
    assert len(waits) == 2


def test_benchmarks_in_one_folder_share_its_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that another process holds is looked at again, and not begun if it is done then.

    Meanwhile it is said who holds it.
    """
    units, started = [Unit(ID, "ppo", "adam", seed, 9) for seed in range(3)], []
    held, begun = units[0], units[1]

    def start(unit: Unit, out: Path) -> Ended:
        started.append(unit.seed)
        (tmp_path / unit.name).mkdir(parents=True, exist_ok=True)
        if unit is held and started.count(0) < 3:
            (tmp_path / unit.name / LOCK).write_text("12 elsewhere")
            return Ended(IN_USE)
        (tmp_path / unit.name / "scores.json").touch()
        if unit is begun:
            (tmp_path / units[2].name).mkdir(parents=True)
            (tmp_path / units[2].name / "scores.json").touch()
        return Ended(0)

    monkeypatch.setattr(engines, "start", start)
    monkeypatch.setattr(engines, "_WAIT", 0.0)
    monkeypatch.setattr(engines, "_POLL", 0.0)
    heard: list[tuple[int, str]] = []

    def watch(*told: Any) -> None:
        heard.append(told)

    assert engines.local(units, tmp_path, jobs=1, watch=watch) == []
    assert sorted(started) == [0, 0, 0, 1]
    assert (0, f"{held.name} is held by process 12 on elsewhere") in heard
    assert heard[-1] == (3, "")


def test_termination_stops_the_runs_as_an_interrupt_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[bool] = []

    def local(*arguments: Any, **more: Any) -> list[Any]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            ended.append(True)
        return []

    monkeypatch.setattr(engines, "local", local)
    before = signal.getsignal(signal.SIGTERM)
    assert main([*WORDS, "--out", str(tmp_path / "new")]) == 128 + signal.SIGTERM
    assert ended
    assert signal.getsignal(signal.SIGTERM) is before
    assert "the same command goes on" in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scores.png").write_text("mine")
    said = refused(capsys, *WORDS, "--out", str(tmp_path))
    assert "holds a scores.png of something else" in said
    assert [path.name for path in tmp_path.iterdir()] == ["scores.png"]


def test_a_unit_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    folder = tmp_path / ID / "ppo-adam-0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    ((unit, reason),) = engines.local([Unit(ID, "ppo", "adam", 0, 10)], tmp_path, jobs=2)
    assert unit.seed == 0
    assert "is not a run" in reason


def test_a_unit_that_was_killed_is_not_explained_by_its_progress(tmp_path: Path) -> None:
    unit = Unit(ID, "ppo", "adam", 0, 10)
    (tmp_path / ID).mkdir()
    (tmp_path / f"{unit.name}.log").write_text(" 50 %  3000/s\n")
    assert engines.outcome(unit, tmp_path, -signal.SIGKILL) == "ended by signal 9 (Killed)"


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "6"}, 1),
        ({"SGE_TASK_ID": "1", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "4"}, 0),
        ({"LSB_JOBINDEX": "4", "LSB_JOBINDEX_END": "4"}, 3),
        (
            {
                "SLURM_ARRAY_TASK_ID": "4",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "7",
                "SLURM_ARRAY_TASK_STEP": "2",
                "SLURM_ARRAY_TASK_COUNT": "4",
            },
            2,
        ),
    ],
)
def test_jobs_of_an_array_share_the_units(environment: dict[str, str], share: int) -> None:
    every = [Unit(ID, "ppo", "adam", seed, 1) for seed in range(10)]
    assert engines.share_of_array(every, environment) == every[share::4]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SGE_TASK_ID": "undefined", "SGE_TASK_LAST": "undefined"}, "SGE_TASK_ID='undefined'"),
        ({"LSB_JOBINDEX": "0", "LSB_JOBINDEX_END": "0"}, "without gaps, not LSB_JOBINDEX=0"),
        ({"SGE_TASK_ID": "9", "SGE_TASK_LAST": "4"}, "without gaps"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_MAX": "7",
                "SLURM_ARRAY_TASK_COUNT": "3",
            },
            "without gaps",
        ),
    ],
)
def test_an_array_that_would_leave_units_out_is_refused(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        engines.share_of_array([Unit(ID, "ppo", "adam", 0, 1)], environment)


def test_an_array_that_is_none_is_refused() -> None:
    """Where one variable of two is there, the other is named."""
    with pytest.raises(ValueError, match="ARRAY_INDEX and ARRAY_LAST"):
        engines.share_of_array([], {"ARRAY_INDEX": "1"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "huge"], "--suite='huge' must be one of quick, standard"),
        (["--engine", "cloud"], "--engine='cloud'"),
        (["--algos", "ppo,dqn"], "algos='dqn'"),
        (["--optimizers", "sgd"], "optimizers='sgd'"),
        (["--ids", "nothing-v0"], "nothing-v0"),
        (["--against", "nowhere.json"], "nowhere.json cannot be read"),
        (["--ids", ""], "--ids='' must be names between commas"),
        (["--optimizers", ","], "--optimizers=',' must be names"),
    ],
)
def test_bad_input_is_refused_before_work(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "--out", str(tmp_path / "new"), *words]) == 2
    assert message in capsys.readouterr().err


def test_results_of_others_stand_beside_ours(done: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps({"runs": [{"id": ID, "algo": "mine", "score": 2.0}]}))
    assert main([*WORDS, "--out", str(done), "--against", str(theirs)]) == 0
    document = json.loads((done / "benchmark.json").read_text())
    assert document["aggregates"]["theirs mine"]["iqm"] == 2.0
    assert document["improvement"]["theirs mine"]["ppo adam"]["probability"] == 1.0


def test_results_of_files_with_one_name_are_not_mixed(tmp_path: Path) -> None:
    """Files of one name differ by their folders or by their ends, and may hold others' runs."""
    files = []
    for name, of in (("one.json", ""), ("one.txt", "theirs")):
        files.append(tmp_path / name)
        run = {"id": ID, "algo": "ppo", "score": 1.0, "of": of}
        files[-1].write_text(json.dumps({"runs": [run, {**run, "of": ""}]}))
    one, two = map(str, files)
    labels = [results.label(run) for run in _of_others(files)]
    assert labels == [f"{one} ppo", f"{one} ppo", f"{two} theirs ppo", f"{two} ppo"]
    with pytest.raises(ValueError, match="one file twice"):
        _of_others([files[0], files[0]])


def test_returns_of_others_are_scored_on_the_scale_of_here(tmp_path: Path) -> None:
    path, scale = tmp_path / "theirs.json", spec(ID).score
    assert scale is not None
    run = {"id": f"invariantzoo/{ID}", "algo": "x", "return": scale.best, "score": 0.1}
    path.write_text(json.dumps({"runs": [run]}))
    (read,) = results.read(path)["runs"]
    assert (read["id"], read["score"]) == (ID, 1.0)


@pytest.mark.parametrize("given", [("return",), ()])
@pytest.mark.parametrize("resolution", [0.0, 1e-3])
def test_curves_of_others_are_on_the_scale_of_here(
    given: tuple[str, ...], resolution: float, tmp_path: Path
) -> None:
    """A curve ends where its run's score is, though the other's scale had another best."""
    path, here = tmp_path / "theirs.json", results.scale(ID)
    there = here._replace(best=here.best + 1, resolution=resolution)
    middle = (here.random + here.best) / 2
    score = there.score(middle)
    run = {"id": ID, "algo": "x", "score": score, "steps": 3, "curve": [[3, None, score]]}
    run |= dict.fromkeys(given, middle)
    path.write_text(json.dumps({"scales": {ID: there._asdict()}, "runs": [run]}))
    (read,) = results.read(path)["runs"]
    assert read["score"] == pytest.approx(0.5)
    assert read["curve"] == [[3, None, pytest.approx(0.5)]]


def test_no_module_is_imported_for_the_sake_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text("raise SystemExit('it ran')")
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({"runs": [{"id": f"stranger:{ID}", "algo": "x", "return": 1}]}))
    with pytest.raises(ValueError, match=r"theirs\.json: 'stranger:.*' needs the module"):
        results.read(path)


_RUN = {"id": ID, "algo": "x", "score": 1.0}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"runs": 3},
        {"runs": [{"id": ID}]},
        {"runs": [{"id": ID, "algo": "x", "score": True}]},
        {"schema": 9, "runs": []},
        {"runs": [{**_RUN, "id": "nothing-v0"}]},
        {"runs": [{**_RUN, "score": float("nan")}]},
        {"runs": [{**_RUN, "seconds": float("nan")}]},
        {"runs": [{**_RUN, "return": float("-inf")}]},
        {"runs": [{**_RUN, "score": 10**400}]},
        {"runs": [{**_RUN, "score": 1e308}]},
        {"runs": [{**_RUN, "score": "1"}]},
        {"runs": [{**_RUN, "algo": "a\nb"}]},
        {"runs": [{**_RUN, "algo": "\ud800"}]},
        {"runs": [{**_RUN, "optimizer": 3}]},
        {"runs": [{**_RUN, "seed": []}]},
        {"runs": [{**_RUN, "seed": 1}, {**_RUN, "seed": 1, "score": 2.0}]},
        {"runs": [{**_RUN, "curve": 3}]},
        {"runs": [{**_RUN, "curve": [[1, 2, 3]]}]},
        {"runs": [{**_RUN, "steps": 3, "curve": [[1, None]]}]},
        {"runs": [{**_RUN, "steps": 3, "curve": [[2, None, 0.1], [1, None, 0.1]]}]},
        {"runs": [_RUN], "scales": {ID: 3}},
        {"runs": [_RUN], "scales": {ID: {"random": 1.0, "best": 1.0}}},
        {
            "runs": [{**_RUN, "score": -1e9}],
            "scales": {ID: {"random": -1.0, "best": 0.0, "resolution": 0.1}},
        },
    ],
)
def test_what_is_no_result_is_refused(document: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"results\.json"):
        results.read(path)


# ------------------------------------------------------------------------------------ scores


LONG = 2_000_000  # agent-steps of an episode


def _is_exact(id: str) -> bool:
    scale = spec(id).score
    return scale is not None and scale.exact


@pytest.mark.parametrize("id", [id for id in invariantzoo.ids() if spec(id).score is not None])
def test_both_ends_of_a_scale_hold(id: str) -> None:
    """By fresh episodes, where a policy by name stands for the end."""
    scale = spec(id).score
    assert scale is not None
    system = invariantzoo.make_system(id)
    if system.n_agents * system.horizon > LONG:
        pytest.skip("its episodes are long: docs/scores.md judges them")
    for policy, value in (("random", scale.random), (scale.policy, scale.best)):
        if policy not in invariantzoo.policy_names(system):
            continue
        scores = invariantzoo.evaluate(
            system,
            invariantzoo.make_policy(policy, system),
            episodes=10,
            seeds=1,
            deterministic=False,
            first_seed=50,
        )["return"].ravel()
        error = max(scores.std(ddof=1) / np.sqrt(scores.size), 1e-9 * abs(value))
        assert abs(scores.mean() - value) < 5 * error + 0.02 * (scale.best - scale.random)


@pytest.mark.parametrize("id", [id for id in invariantzoo.ids() if _is_exact(id)])
def test_no_policy_exceeds_what_is_exactly_optimal(id: str) -> None:
    """Nor does any episode, where chance does not make some of them easier than others."""
    system, scale = invariantzoo.make_system(id), spec(id).score
    assert scale is not None
    long = system.n_agents * system.horizon > LONG
    for name in system.fused if long else invariantzoo.policy_names(system):
        policy = invariantzoo.make_policy(name, system)
        returns = invariantzoo.evaluate(
            system,
            policy,
            episodes=200 if id == ID else 4,
            seeds=1,
            first_seed=60,
            deterministic=False,
        )["return"]
        by_chance = returns.std() / returns.size**0.5
        highest = returns.mean() - 2 * by_chance if id == ID else returns.max()
        assert highest <= scale.best


def test_a_scale_must_rise() -> None:
    with pytest.raises(ValueError, match=r"best=0\.0 must exceed random=1\.0"):
        invariantzoo.register(
            "quadratic-scale-v0",
            spec(ID).entry_point,
            replace=True,
            score={"random": 1.0, "best": 0.0, "policy": "x", "origin": "nowhere"},
        )


def test_returns_of_many_magnitudes_are_scored_by_their_logarithm() -> None:
    scale = ScoreScale(-1e8, 1.0, "best", "here", resolution=1e-4)
    assert scale.score(-1e8) == pytest.approx(0)
    assert scale.score(1.0) == scale.score(1.1) == 1
    scores = scale.score(np.array([1 - 1e-4, 1 - 1e-2, 1 - 1e2, -1e8, -1e9]))
    assert scores == pytest.approx([0.975, 0.833, 0.5, 0.0, -0.083], abs=0.001)
    assert isinstance(scale.score(0.0), float)
    for known in (scale, scale._replace(resolution=0.0)):
        for value in (-1e9, -1e8, -10.0, 1.0):
            assert known.mean_return(known.score(value)) == pytest.approx(value)
    with pytest.raises(ValueError, match=r"resolution=-1.0 must be 0 or more"):
        invariantzoo.register(
            "quadratic-scale-v0",
            spec(ID).entry_point,
            score={**spec(ID).score._asdict(), "resolution": -1.0},  # type: ignore[union-attr]
        )


def test_the_force_of_a_field_has_a_scale_that_tells_policies_apart() -> None:
    """By its measured returns: no kick, kicks of a trained network, and exact ones."""
    scale = spec("klein-gordon-force-v0").score
    assert scale is not None
    idle, trained, exact = scale.score(np.array([-8.4e5, -0.0044, 0.0]))
    assert idle < 0.3
    assert 0.8 < trained < 0.9
    assert exact == 1


def test_a_score_is_linear_between_random_and_best() -> None:
    scale = ScoreScale(-4.0, 6.0, "best", "here")
    np.testing.assert_allclose(scale.score(np.array([-4.0, 1.0, 6.0, 7.0])), [0, 0.5, 1, 1.1])


def test_the_interquartile_mean_leaves_out_both_quarters() -> None:
    runs = {"a": np.array([0.0, 1.0, 2.0, 100.0]), "b": np.array([-50.0, 1.0, 3.0, 4.0])}
    summary = scoring.interquartile_mean(runs)
    assert summary["iqm"] == pytest.approx(np.mean([1.0, 1.0, 2.0, 3.0]))
    low, high = summary["ci95"]
    assert low < summary["iqm"] < high


def test_the_interval_of_an_interquartile_mean_covers_the_truth() -> None:
    """Of normal runs, whose interquartile mean is their mean: about 95 % of the time."""
    rng, hits = np.random.default_rng(0), 0
    for trial in range(60):
        runs = {id: rng.normal(size=12) for id in "abc"}
        low, high = scoring.interquartile_mean(runs, seed=trial)["ci95"]
        hits += low < 0 < high
    assert 48 <= hits <= 60


def test_the_chance_of_improvement_counts_pairs() -> None:
    ours = {"a": np.array([1.0, 2.0]), "b": np.array([5.0])}
    theirs = {"a": np.array([1.0, 0.0]), "b": np.array([9.0]), "c": np.array([0.0])}
    summary = scoring.probability_of_improvement(ours, theirs)
    assert summary["ids"] == 2
    assert summary["probability"] == pytest.approx((3.5 / 4 + 0) / 2)


def test_single_runs_have_no_interval() -> None:
    """One run drawn anew is itself: an interval without width would be a false one."""
    one, two = {"a": np.array([1.0]), "b": np.array([2.0, 3.0])}, {"a": np.array([0.0, 2.0])}
    assert scoring.interquartile_mean(one)["ci95"] == [None, None]
    assert scoring.profile(one)["low"] == scoring.profile(one)["high"] == []
    assert scoring.probability_of_improvement(one, two)["ci95"] == [None, None]
    assert scoring.probability_of_improvement(two, two)["ci95"] == [0.0, 1.0]
    document = {"runs": [{"id": ID, "algo": "x", "score": 1.5}], "scales": {}, "dashes": []}
    assert "| x | 1.500 | 1 | 1 |" in page({**document, **results.summaries(document)})


def test_labels_of_others_are_shown_as_they_are(tmp_path: Path) -> None:
    runs = [{"id": ID, "algo": algo, "score": 1.5} for algo in ("a|b", "$x_$", "_y", r"$\frac$")]
    scales = {ID: results.scale(ID)._replace(origin="where |x| = 1")._asdict()}
    document = {"runs": runs, "scales": scales, "dashes": []}
    write({**document, **results.summaries(document)}, tmp_path)
    lines = (tmp_path / "benchmark.md").read_text().split("\n")
    assert r"| id | a\|b | $x_$ | _y | $\frac$ | 0 | 1 | score 1 is |" in lines
    assert any(line.endswith(r"where \|x\| = 1 |") for line in lines)
    assert (tmp_path / "scores.png").exists()


def test_profiles_count_runs_above_a_level() -> None:
    profile = scoring.profile({"a": np.array([0.2, 0.9]), "b": np.array([-1.0, 2.0])})
    at = int(np.argmin(np.abs(scoring.LEVELS - 0.5)))
    assert profile["share"][at] == 0.5
    assert profile["low"][at] <= 0.5 <= profile["high"][at]


def test_curves_hold_the_last_score_before_a_point() -> None:
    rows = [[(1.0, 0.0), (3.0, 1.0)], [(2.0, 4.0)]]
    mean = scoring.curve(rows, np.array([1.0, 2.0, 3.5]))
    assert mean == [None, 2.0, 2.5]
