"""Simulations of inferred losses: going on exactly, files, alarms, requests, and the guide."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import refused
from liquids import PLAN, argon, argon_model, argon_net, contents, differences, go

from invariantzoo.__main__ import main
from invariantzoo.envs.core import registry
from invariantzoo.envs.core.files import claim
from invariantzoo.envs.core.physics.units import HARTREE, HARTREE_PER_BOHR
from invariantzoo.envs.molecules.files import Sample, Saved, load_model, save_model
from invariantzoo.envs.molecules.linear import no_walls
from invariantzoo.envs.molecules.molecular_dynamics import advance, start_md
from invariantzoo.training.molecules import alarms, measurements
from invariantzoo.training.molecules import plan as planning
from invariantzoo.training.molecules import simulate as simulation
from invariantzoo.training.molecules.frames import read_frames
from invariantzoo.training.molecules.observables import observe
from invariantzoo.training.molecules.simulate import OutOfDomain, Plan

THERMOSTATS = ["nose-hoover", "langevin", "csvr", "none"]


@pytest.fixture(scope="module")
def saved() -> Saved:
    return argon_model()


@pytest.fixture(scope="module")
def model(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the model of argon."""
    path = tmp_path_factory.mktemp("model") / "argon.npz"
    save_model(path, saved.model, saved.about, sample=saved.sample, structure=saved.structure)
    return path


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 400 fs instead of 2 ps."""
    monkeypatch.setattr(planning, "_BLOCK", 400.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures."""
    for name in ("draw_structure", "draw_traces", "draw_vibrations"):
        monkeypatch.setattr(f"invariantzoo.commands.observe.{name}", lambda *_: None)


def words(model: Path | str, out: Path, steps: int, *more: str) -> list[str]:
    start = ["simulate", str(model), "--steps", str(steps), "--out", str(out), "--dt", "4"]
    return [*start, "--temperature", "60", "--replicas", "2", "--frames", "400", *more]


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int, how: Callable[[], Any]) -> None:
    """Let `how` happen within the run, after so many calls of `advance`."""
    calls = [0]

    def interrupted(*args: Any, **kwargs: Any) -> None:
        calls[0] += 1
        if calls[0] == after:
            how()
        advance(*args, **kwargs)

    monkeypatch.setattr(simulation, "advance", interrupted)


# ------------------------------------------------------------------------------------ going on


@pytest.mark.parametrize("thermostat", THERMOSTATS)
@pytest.mark.parametrize("dt", [4.0, 0.7])
def test_any_split_measures_what_one_run_measures(
    dt: float, thermostat: str, saved: Saved, tmp_path: Path, short_blocks: None
) -> None:
    """Goes that end at odd steps, between samples, within, at and after the end of a block."""
    plan = PLAN._replace(thermostat=thermostat, dt=dt, frames=41.0)
    goes = [1, 2, 33, 99, 100, 101, 357, 401] if dt == 4 else [7, 571, 572, 573, 1000, 1301]
    go(saved, tmp_path / "one", goes[-1], plan)
    for steps in goes:
        assert go(saved, tmp_path / "many", steps, plan) == steps
    assert differences(tmp_path / "one", tmp_path / "many") == []
    names = contents(tmp_path / "one")
    every = simulation.Intervals.of(plan)
    assert sum(name.endswith("/spectrum") for name in names) == -(-goes[-1] // every.block)
    seen = [json.dumps(observed(tmp_path / run)) for run in ("one", "many")]
    assert seen[0] == seen[1]


def observed(folder: Path, **how: Any) -> Any:
    """What `observe --json` prints."""
    from invariantzoo.options import plain

    return plain(observe(folder, **{"drop": 0.0, **how}))


def test_every_observable_is_that_of_one_run(saved: Saved, tmp_path: Path) -> None:
    """Diffusion, spectra and structure of 14 ps of three worlds, in goes of odd lengths."""
    plan = PLAN._replace(worlds=3, thermostat="csvr", temperature=90.0)
    go(saved, tmp_path / "one", 3501, plan)
    for steps in (499, 777, 1500, 2003, 3333, 3501):
        go(saved, tmp_path / "many", steps, plan, threads=2)
    assert differences(tmp_path / "one", tmp_path / "many") == []
    one, many = observed(tmp_path / "one"), observed(tmp_path / "many")
    assert one == many
    assert one["diffusion"]["value"] > 0
    assert one["vibrations"]["windows"] == 21
    assert one["length_ps"] == 3501 * 4 / 1e3


def test_a_network_goes_on_with_the_neighbours_that_it_had(saved: Saved, tmp_path: Path) -> None:
    """The width of its lists decides the last bits of its sums."""
    net = argon_net(saved)
    with torch.no_grad():
        for weights in net.model.net.judge.parameters():
            weights.mul_(3.0)
    plan = PLAN._replace(worlds=2, temperature=200.0)
    go(net, tmp_path / "one", 170, plan)
    for steps in (91, 170):
        go(net, tmp_path / "many", steps, plan, threads=2)
    assert differences(tmp_path / "one", tmp_path / "many") == []


def test_whole_blocks_in_a_given_time(
    model: Path, saved: Saved, tmp_path: Path, short_blocks: None, quick: None
) -> None:
    go(saved, tmp_path / "one", 250)
    for made in (100, 200, 250):
        assert main(words(model, tmp_path / "many", 250, "--minutes", "1e-9")) == 0
        state = simulation.final_state(tmp_path / "many")
        assert state["clock"][0] == made
    assert differences(tmp_path / "one", tmp_path / "many") == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_saved_and_goes_on(
    number: signal.Signals,
    code: int,
    model: Path,
    saved: Saved,
    tmp_path: Path,
    short_blocks: None,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "interrupted"
    with monkeypatch.context() as patched:
        interrupt(patched, 133, lambda: os.kill(os.getpid(), number))
        assert main(words(model, run, 250, "--json")) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "stopped after 133 of 250 steps; the same command goes on" in err
    assert simulation.final_state(run)["clock"][0] == 133
    go(saved, run, 250)
    go(saved, tmp_path / "one", 250)
    assert differences(tmp_path / "one", run) == []


def test_a_run_torn_anywhere_goes_on(
    saved: Saved, tmp_path: Path, short_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the middle of a block, and saves within blocks before it."""

    class Torn(Exception):
        pass

    def tear() -> None:
        raise Torn

    plan = PLAN._replace(frames=40.0)
    go(saved, tmp_path / "one", 250, plan)
    for at, save in ((57, 300.0), (64, 0.0), (33, 300.0), (99, 0.0)):
        with monkeypatch.context() as patched:
            patched.setattr(simulation, "_SAVE", save)
            interrupt(patched, at, tear)
            with pytest.raises(Torn):
                go(saved, tmp_path / "many", 250, plan)
    assert simulation.final_state(tmp_path / "many")["clock"][0] == 63 + 98
    go(saved, tmp_path / "many", 250, plan)
    assert differences(tmp_path / "one", tmp_path / "many") == []


KILLED = """
import os, signal, sys
from invariantzoo.__main__ import main
from invariantzoo.training.molecules import plan as planning
from invariantzoo.training.molecules import simulate as simulation
planning._BLOCK = 400.0
advance, calls = simulation.advance, [0]
def killed(*args, **kwargs):
    calls[0] += 1
    if calls[0] == 177:
        os.kill(os.getpid(), signal.SIGKILL)
    advance(*args, **kwargs)
simulation.advance = killed
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on(
    model: Path, saved: Saved, tmp_path: Path, short_blocks: None
) -> None:
    run = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, *words(model, run, 250, "--frames", "40")]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    plan = PLAN._replace(frames=40.0)
    written = (run / "trajectory-0.xyz").stat().st_size
    kept = simulation.final_state(run)["sizes"][0]
    assert written > kept > 0  # frames of the block that is lost; the lock is free again
    go(saved, run, 250, plan)
    go(saved, tmp_path / "one", 250, plan)
    assert differences(tmp_path / "one", run) == []


def test_a_run_can_be_longer_and_another_begins_where_it_ended(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(words(model, first, 500)) == 0
    assert main(words(model, first, 1000)) == 0
    capsys.readouterr()
    more = ("--after", str(first), "--thermostat", "none", "--json")
    assert main(words(model, second, 1500, *more)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["length_ps"] == 6.0
    assert report["worlds"] == 2
    assert max(map(abs, report["drift_mev_per_atom_per_ps"])) < 0.01
    assert report["stopped"] is None
    start = simulation.final_state(first)
    frames = read_frames(second / "trajectory-1.xyz")
    assert frames.positions.shape == (15, 32, 3)
    assert np.abs(frames.positions[0] - start["position"][1]).max() < 1.0
    assert (second / "structure.png").stat().st_size > 5000
    assert main(["observe", str(first), "--drop", "1", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert 30 < again["temperature"][0] < 90
    assert again["structure"]["Ar-Ar"]["difference"] < 0.5
    assert main(["observe", str(first), "--drop", "50"]) == 2
    assert "leaves nothing of 4 ps" in capsys.readouterr().err


def test_what_begins_after_noise_has_its_centre_of_mass_at_rest(
    model: Path, tmp_path: Path, quick: None
) -> None:
    """Else the kinetic energy of the whole counts as temperature, of 3 n - 3 degrees of freedom."""
    noise, more = ("--thermostat", "langevin", "--tau", "100"), ("--after", str(tmp_path / "a"))
    assert main(words(model, tmp_path / "a", 30, *noise)) == 0
    for name, thermostat in (("b", "none"), ("c", "langevin")):
        assert main(words(model, tmp_path / name, 5, *more, "--thermostat", thermostat)) == 0
    drift = {
        name: np.abs(simulation.final_state(tmp_path / name)["velocity"].mean(1)).max()
        for name in "abc"
    }
    assert drift["a"] > 1e-5
    assert drift["b"] < 1e-15
    assert drift["c"] > 1e-5


@pytest.mark.parametrize("thermostat", ["langevin", "csvr"])
def test_a_run_after_another_does_not_hear_its_noise_again(
    thermostat: str, saved: Saved, tmp_path: Path
) -> None:
    """With equal noise what starts differently grows alike, and a solid repeats itself."""
    plan = PLAN._replace(thermostat=thermostat)
    assert saved.sample is not None
    velocity = planning.draw_velocity(saved.sample, plan)
    go(saved, tmp_path / "first", 20, plan)
    go(saved, tmp_path / "after", 20, plan, velocity=velocity)
    places = [simulation.final_state(tmp_path / name)["position"] for name in ("first", "after")]
    assert np.abs(places[0] - places[1]).max() > 1e-4
    for steps in (7, 20):
        go(saved, tmp_path / "goes", steps, plan, velocity=velocity)
    assert differences(tmp_path / "after", tmp_path / "goes") == []


def test_fewer_steps_than_made_change_nothing(
    model: Path, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(model, tmp_path / "run", 90)) == 0
    before = contents(tmp_path / "run"), (tmp_path / "run" / "config.json").read_text()
    assert main(words(model, tmp_path / "run", 30)) == 0
    assert "has 90 steps already, more than --steps 30" in capsys.readouterr().err
    assert (contents(tmp_path / "run"), (tmp_path / "run" / "config.json").read_text()) == before


def test_a_run_shorter_than_the_interval_between_samples(
    model: Path, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(model, tmp_path / "run", 1, "--json")) == 0
    out, err = capsys.readouterr()
    assert "shorter than the 2 steps between two samples" in err
    report = json.loads(out)
    assert report["length_ps"] == 0.004
    assert report["temperature_fluctuation"] is None
    assert report["drift_mev_per_atom_per_ps"] == [None, None]
    assert main(["simulate", str(model), "--steps", "0", "--out", str(tmp_path / "none")]) == 2


def test_seeds_of_any_size_are_seeds(saved: Saved, tmp_path: Path) -> None:
    plan = PLAN._replace(thermostat="langevin")
    for seed in (1, 2**63, 10**23):
        go(saved, tmp_path / f"{seed}", 4, plan._replace(seed=seed))
    assert "000001.npz/temperature" in differences(tmp_path / "1", tmp_path / f"{10**23}")


def test_threads_change_nothing(saved: Saved, tmp_path: Path) -> None:
    go(saved, tmp_path / "one", 300)
    go(saved, tmp_path / "two", 300, threads=2)
    assert differences(tmp_path / "one", tmp_path / "two") == []


# ----------------------------------------------------------------------- runs of other versions


def as_of_schema_one(folder: Path) -> None:
    """Make a run folder what the first version wrote."""
    config = json.loads((folder / "config.json").read_text())
    del config["start"]
    (folder / "config.json").write_text(json.dumps({**config, "schema": 1}))
    with np.load(folder / "checkpoint.npz") as file:
        old = (*simulation.MDState._fields, "sizes", "start")
        state = {name: file[name] for name in old}
    np.savez(folder / "checkpoint.npz", **state)


def test_a_run_of_schema_one_goes_on_from_whole_blocks(
    model: Path, saved: Saved, tmp_path: Path, short_blocks: None, quick: None
) -> None:
    run = tmp_path / "old"
    assert main(words(model, run, 200)) == 0
    as_of_schema_one(run)
    assert observed(run)["length_ps"] == 0.8
    assert main(words(model, run, 250)) == 0
    go(saved, tmp_path / "one", 250)
    assert differences(tmp_path / "one", run) == []


def test_a_run_of_schema_one_that_stopped_within_a_block_is_refused(
    model: Path,
    tmp_path: Path,
    short_blocks: None,
    quick: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "old"
    assert main(words(model, run, 151)) == 0
    as_of_schema_one(run)
    before = contents(run)
    assert "left within a block by an earlier version" in refused(capsys, *words(model, run, 250))
    assert contents(run) == before
    assert main(words(model, run, 151)) == 0  # as far as it is
    # What that version did when it went on: the second part took the place of the first.
    with np.load(run / "blocks" / "000002.npz") as file:
        block = {name: file[name] for name in file.files}
    late = block["step"] > 120
    np.savez(
        run / "blocks" / "000002.npz",
        **{k: v[late] if k in measurements.TRACES else v for k, v in block.items()},
    )
    assert "of steps 100 to 151 is incomplete" in refused(capsys, *["observe", str(run)])


def test_a_lost_block_is_not_taken_for_none(
    saved: Saved, tmp_path: Path, short_blocks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    go(saved, tmp_path / "run", 350)
    (tmp_path / "run" / "blocks" / "000002.npz").unlink()
    assert "has no 000002.npz" in refused(capsys, *["observe", str(tmp_path / "run")])
    (tmp_path / "run" / "blocks" / "000002.npz").write_bytes(b"PK\x03\x04torn")
    assert "000002.npz cannot be read" in refused(capsys, *["observe", str(tmp_path / "run")])


# ------------------------------------------------------------------------------- trajectories


@pytest.fixture
def made(saved: Saved, tmp_path: Path) -> Path:
    """A run of 100 steps with 10 frames."""
    go(saved, tmp_path / "run", 100, PLAN._replace(frames=40.0))
    return tmp_path / "run"


def longer(model: Path, run: Path) -> list[str]:
    return words(model, run, 150, "--frames", "40")


def test_a_trajectory_that_was_moved_away_begins_anew(
    model: Path, made: Path, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    trajectory = made / "trajectory-0.xyz"
    before = trajectory.read_bytes()
    trajectory.rename(tmp_path / "elsewhere.xyz")
    assert main(longer(model, made)) == 0
    assert f"{trajectory} was moved away: a new one begins at step 100" in capsys.readouterr().err
    new = trajectory.read_bytes()
    assert b"\0" not in new
    assert new.count(b"Properties") == 5
    assert len(read_frames(trajectory).positions) == 5
    whole = made / "trajectory-1.xyz"
    assert whole.read_bytes().count(b"Properties") == 15
    assert (before + new).count(b"time=") == 15
    assert main(words(model, made, 160, "--frames", "40")) == 0  # now it fits again
    assert trajectory.read_bytes().startswith(new)


def shorten(data: bytes) -> bytes:
    return data[: len(data) // 2]


def a_byte_less(data: bytes) -> bytes:
    return data[:-1]


def change(data: bytes) -> bytes:
    return data.replace(b"Ar", b"Kr", 1)


def append_a_frame(data: bytes) -> bytes:
    return data + data[: data.index(b"32\n", 3)]


def append_words(data: bytes) -> bytes:
    return data + b"mine\n"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (shorten, "bytes of the"),
        (a_byte_less, "bytes of the"),
        (change, "was changed since the run wrote it"),
        (append_a_frame, "holds more than the run wrote"),
        (append_words, "holds more than the run wrote"),
        (lambda data: b"", "has 0 bytes of the"),
    ],
)
def test_a_trajectory_that_is_not_as_the_run_left_it_is_refused(
    edit: Callable[[bytes], bytes],
    message: str,
    model: Path,
    made: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trajectory = made / "trajectory-1.xyz"
    trajectory.write_bytes(edit(trajectory.read_bytes()))
    before = contents(made)
    line = refused(capsys, *longer(model, made))
    assert message in line
    assert "put the file back as it was, or move it away" in line
    assert contents(made) == before


def test_frames_that_a_dead_process_left_are_made_again(
    saved: Saved, made: Path, tmp_path: Path
) -> None:
    plan = PLAN._replace(frames=40.0)
    go(saved, tmp_path / "one", 150, plan)
    later = (tmp_path / "one" / "trajectory-0.xyz").read_bytes()
    here = (made / "trajectory-0.xyz").read_bytes()
    for end in (1, 50, 3000, 7000):
        (made / "trajectory-0.xyz").write_bytes(later[: len(here) + end])
        assert go(saved, made, 100 + end % 7, plan)
        here = (made / "trajectory-0.xyz").read_bytes()
    go(saved, made, 150, plan)
    assert (made / "trajectory-0.xyz").read_bytes() == later


# ------------------------------------------------------------------------------------ alarms


def water(out: Path, *more: str, model: str = "water-pair") -> list[str]:
    return ["simulate", model, "--waters", "64", "--steps", "8000", "--out", str(out), *more]


HOT = ("--temperature", "3000", "--thermostat", "langevin", "--tau", "10", "--json")


def test_an_alarm_writes_the_block_that_it_came_in(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run of `--json` says where, shows what it measured, and does not go on."""
    run = tmp_path / "hot"
    assert main(water(run, *HOT)) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    stopped = report["stopped"]
    assert set(stopped) == {"step", "world", "what"}
    assert stopped["step"] < 4000  # within the first block
    assert f"stopped at step {stopped['step']}, world 0: {stopped['what']}" in err
    assert f"what was measured until then is in {run}" in err
    with np.load(run / "blocks" / "000001.npz") as file:
        steps = file["step"]
    assert steps.tolist() == list(range(20, stopped["step"] + 1, 20))
    assert report["length_ps"] == steps[-1] * 0.5 / 1e3
    assert report["temperature"][0] > 330
    assert main(["observe", str(run), "--drop", "0", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == report
    before = contents(run)
    for steps_asked in ("8000", "9000"):
        assert main([*water(run, *HOT), "--steps", steps_asked]) == 1
        out, err = capsys.readouterr()
        assert json.loads(out)["stopped"] == stopped
        assert "the run does not go on" in err
    assert contents(run) == before


def test_an_alarm_at_the_start_shows_the_start(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = load_model("water-pair")
    sample: Any = saved.sample
    near = sample.position.copy()
    near[64] = near[sample.owner[0]] + 0.1
    moved = sample._replace(position=near)
    save_model(tmp_path / "near.npz", saved.model, saved.about, sample=moved)
    run = tmp_path / "run"
    assert main(water(run, "--json", model=str(tmp_path / "near.npz"))) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["stopped"]["step"] == 0
    assert report["length_ps"] == 0
    assert report["least_distance"]["O-H"] < 0.2
    assert main(["observe", str(run), "--drop", "0"]) == 0


def test_an_alarm_before_anything_was_measured(
    saved: Saved,
    model: Path,
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All names of `--json` without values."""
    lost = np.zeros((2, 32, 3))
    lost[1, 3] = np.nan
    with monkeypatch.context() as patched:
        patched.setattr(simulation, "draw_velocity", lambda *_: lost)
        assert main(words(model, tmp_path / "lost", 100, "--json")) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["stopped"]["world"] == 1
    assert report["temperature"] == [None, None]
    assert report["length_ps"] == 0
    assert "nothing had been measured" in err
    line = refused(capsys, *["observe", str(tmp_path / "lost")])
    assert "has measured nothing: it stopped at step 0, world 1: " in line
    assert main(words(model, tmp_path / "whole", 100, "--json")) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(report)


def test_the_world_and_step_of_a_position_that_is_lost(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PLAN._replace(worlds=3, thermostat="none")
    velocity = simulation.draw_velocity(saved.sample, plan)
    advanced = simulation.advance

    def lose(bodies: Any, *args: Any, **kwargs: Any) -> None:
        if bodies.clock[0] == 7:
            bodies.velocity[2, 5] = np.inf
        advanced(bodies, *args, **kwargs)

    for threads in (1, 3):
        with monkeypatch.context() as patched:
            patched.setattr(simulation, "advance", lose)
            with pytest.raises(OutOfDomain) as caught:
                go(saved, tmp_path / f"{threads}", 100, plan, velocity=velocity, threads=threads)
        assert str(caught.value) == "step 8, world 2: a position is not a finite number"
        assert observed(tmp_path / f"{threads}")["stopped"]["step"] == 8
    velocity[1, 7] = 1e200  # the energy is not finite, positions still are
    with pytest.raises(OutOfDomain, match="step 0, world 1: a position or the energy is not"):
        go(saved, tmp_path / "energy", 100, plan, velocity=velocity)


def test_atoms_that_meet_beyond_the_reach_of_molecules_are_seen(
    saved: Saved, tmp_path: Path
) -> None:
    """Argon was sampled from 3.1 A on: 2.75 A is an alarm, whatever the run did before."""
    about = {**saved.about, "limits": {"18-18": {"nearest": 3.1, "bond": 0.0}}}
    sample: Any = saved.sample
    x = argon(0, 0)[0]
    x[1] += (x[0] - x[1]) * (1 - 2.75 / np.linalg.norm(x[0] - x[1]))
    near = saved._replace(about=about, sample=sample._replace(position=x))
    with pytest.raises(
        OutOfDomain, match=r"Ar-Ar distance 2.75 A left the sampled range \(below 2.79\)"
    ):
        go(near, tmp_path / "run", 10)


def test_pair_losses_explode_and_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = load_model("water-pair")
    bare = saved.model._replace(walls=no_walls(2))
    save_model(tmp_path / "bare.npz", bare, saved.about, sample=saved.sample)
    assert main(water(tmp_path / "run", model=str(tmp_path / "bare.npz"))) == 1
    out, err = capsys.readouterr()
    assert "ps of 192 atoms" in out
    assert "stopped at step " in err
    assert "world 0: " in err
    frames = (tmp_path / "run" / "trajectory-0.xyz").read_text()
    assert frames.count("Lattice") >= 1


def test_geometry_alarms(tmp_path: Path) -> None:
    saved = load_model("water-angular")
    sample = saved.sample
    assert sample is not None
    plan = Plan(330.0, "nose-hoover", 100.0, 0.5, 40, 100.0, 0, 1, "float64")

    def alarm_of(name: str, x: np.ndarray) -> str:
        with pytest.raises(simulation.OutOfDomain) as caught:
            simulation.simulate(tmp_path / name, saved, sample._replace(position=x), plan, {})
        return str(caught.value)

    hydrogen, oxygen = 64, int(sample.owner[0])
    near = sample.position.copy()
    near[hydrogen] = near[oxygen] + 0.5 * _unit(near[hydrogen] - near[oxygen], sample.cell)
    assert alarm_of("near", near).startswith(
        "step 0, world 0: O-H distance 0.50 A left the sampled"
    )
    torn = sample.position.copy()
    torn[hydrogen] = torn[oxygen] + 1.6 * _unit(torn[hydrogen] - torn[oxygen], sample.cell)
    assert "a molecule is broken: a bond of 1.60 A" in alarm_of("torn", torn)


def test_hydrogens_that_are_not_bound_to_oxygen_break_nothing() -> None:
    """Hydrogens of methane in water belong to no oxygen."""
    saved = load_model("water-angular")
    about = {**saved.about, "limits": {**saved.about["limits"], "1-8": {"nearest": 0.8, "bond": 3}}}
    world = simulation.World(saved._replace(about=about), saved.sample, PLAN._replace(worlds=1))
    assert len(world.bonds) == 0


def test_the_conserved_quantity_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = load_model("water-angular")
    plan = Plan(330.0, "nose-hoover", 100.0, 0.5, 40, 100.0, 0, 1, "float64")
    monkeypatch.setattr(alarms, "DRIFT", 1e-7)
    with pytest.raises(simulation.OutOfDomain, match="conserved quantity left its start by"):
        simulation.simulate(tmp_path / "a", saved, saved.sample, plan, {})


def test_own_losses_report_their_heat(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = load_model("water-angular")
    own = saved.model._replace(shared=False)
    save_model(tmp_path / "own.npz", own, {"digest": "1"}, sample=saved.sample)
    more = ("--steps", "40", "--thermostat", "csvr", "--tau", "20", "--json")
    assert main(water(tmp_path / "run", *more, model=str(tmp_path / "own.npz"))) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["heat_ev_per_atom_per_ps"][0] != 0


def _unit(r: np.ndarray, cell: np.ndarray) -> np.ndarray:
    length = cell[0, 0]
    r = r - length * np.round(r / length)
    return r / np.linalg.norm(r)


# ----------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--temperature", "61"), "temperature is 60.0, not 61.0;"),
        (("--thermostat", "csvr"), "thermostat is nose-hoover, not csvr;"),
        (("--seed", "1"), "seed is 0, not 1;"),
        (("--waters", "64"), "number of atoms is 32, not 64;"),
        (("--waters", "33"), "--waters 33 must be a multiple of the sample's 32"),
        (
            ("--waters", "3200000000"),
            "--waters 3200000000 (2 x 3,200,000,000 atoms) needs at least",
        ),
        (("--replicas", "1000000000"), "--replicas 1000000000 (1,000,000,000 x 32 atoms) needs at"),
        (("--tau", "0"), "--tau 0 must be above 0"),
        (("--temperature", "1e9"), "--temperature 1e+09 must be at most 100000"),
        (("--viscosity", "-1"), "--viscosity -1 must be above 0"),
        (("--frames", "1e300"), "--frames 1e+300 must be at most"),
        (("--dt", "25"), "--dt 25 fs is too long"),
        (("--dt", "1e-300"), "--dt 1e-300 fs is too short"),
        (("--steps", "0"), "'0' must be a whole number of at least 1"),
    ],
)
def test_bad_requests_are_refused_in_one_line(
    change: tuple[str, str],
    message: str,
    model: Path,
    saved: Saved,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    go(saved, tmp_path / "run", 4)
    before = contents(tmp_path / "run")
    assert message in refused(capsys, *words(model, tmp_path / "run", 500, *change))
    assert contents(tmp_path / "run") == before


def test_a_model_fitted_anew_is_another_model(
    model: Path, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if it was fitted to the same data."""
    go(saved, tmp_path / "run", 5)
    weights = tuple(tuple(1.01 * w for w in row) for row in saved.model.pair_weights)
    other = saved.model._replace(pair_weights=weights)
    save_model(tmp_path / "other.npz", other, saved.about, sample=saved.sample)
    line = refused(capsys, *words(tmp_path / "other.npz", tmp_path / "run", 10))
    assert "was made with another model" in line


def test_other_folders_are_left_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "is not empty and holds no simulation" in refused(capsys, *words(model, tmp_path, 5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt"]
    assert main(["observe", str(tmp_path)]) == 2
    assert main(["observe", str(tmp_path / "nothing")]) == 2
    line = refused(capsys, *words(model, tmp_path / "mine.txt", 5))
    assert "mine.txt could not be made" in line
    line = refused(capsys, *words(model, Path("/proc/no/run"), 5))
    assert "/proc/no/run could not be made" in line
    for text in ("{", "[]", '{"schema": 7}', '{"schema": 2, "plan": {}}'):
        (tmp_path / "config.json").write_text(text)
        assert str(tmp_path / "config.json") in refused(capsys, *words(model, tmp_path, 5))
        assert str(tmp_path / "config.json") in refused(capsys, *["observe", str(tmp_path)])


@pytest.mark.usefixtures("short_blocks", "quick")
def test_what_was_measured_is_not_lost_with_the_checkpoint(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(words(model, folder, 250)) == 0
    blocks = {path.name: path.read_bytes() for path in (folder / "blocks").iterdir()}
    assert len(blocks) > 1
    (folder / "checkpoint.npz").unlink()
    said = refused(capsys, *words(model, folder, 300))
    assert f"has measured {len(blocks)} blocks but lost its checkpoint.npz" in said
    assert {path.name: path.read_bytes() for path in (folder / "blocks").iterdir()} == blocks


def test_a_folder_takes_one_process(
    model: Path, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with claim(tmp_path / "run"):
        assert "in use by process" in refused(capsys, *words(model, tmp_path / "run", 5), code=75)
    assert main(words(model, tmp_path / "run", 5)) == 0


def test_what_repeats_the_frame_is_said(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """16 waters in a box of 7.8 A become 128."""
    saved = load_model("water-pair")
    sample: Any = saved.sample
    some = np.concatenate([np.arange(16), np.flatnonzero(sample.owner < 16) + 64])
    owner = sample.owner[sample.owner < 16]
    cell = np.eye(3) * 7.826
    small = Sample(sample.position[some], cell, sample.numbers[some], owner)
    save_model(tmp_path / "small.npz", saved.model, saved.about, sample=small)
    command = ["simulate", str(tmp_path / "small.npz"), "--steps", "2", "--out"]
    main([*command, str(tmp_path / "run")])
    _, err = capsys.readouterr()
    atoms = 3 * len(owner) // 2
    assert (
        f"the frame of {len(some)} atoms is repeated 2 x 2 x 2 times, to {8 * len(some)}: "
        f"a cell must be two cutoffs, 12 A, wide" in err
    )
    assert atoms
    main(["simulate", "water-pair", "--steps", "2", "--out", str(tmp_path / "wide")])
    assert "is repeated" not in capsys.readouterr().err


def test_a_frame_in_open_space_is_not_repeated(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = Sample(argon(0, 0.1)[0], np.zeros((3, 3)), np.full(32, 18), None)
    save_model(tmp_path / "drop.npz", saved.model, saved.about, sample=sample)
    line = refused(capsys, *words(tmp_path / "drop.npz", tmp_path / "run", 5, "--waters", "64"))
    assert "without a cell the frame cannot be repeated" in line


def test_waters_do_not_go_with_another_run(
    model: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--after", str(made), "--waters", "64")
    assert "--waters 64 does not go with --after" in refused(
        capsys, *words(model, tmp_path / "b", 5, *more)
    )


# ---------------------------------------------------------------------------------- full disks


def test_a_full_disk_leaves_the_run_intact(
    model: Path,
    saved: Saved,
    tmp_path: Path,
    short_blocks: None,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever file it is that finds no room."""
    plan = PLAN._replace(frames=40.0)
    go(saved, tmp_path / "one", 250, plan)
    run = tmp_path / "run"
    go(saved, run, 103, plan)
    command = words(model, run, 250, "--frames", "40")

    def no_room(name: str) -> Callable[..., None]:
        savez = np.savez

        def write(path: Path, **arrays: Any) -> None:
            if name in str(path):
                Path(path).write_bytes(b"half")
                raise OSError(28, "No space left on device")
            savez(path, **arrays)

        return write

    for name in ("000002", "checkpoint"):
        with monkeypatch.context() as patched:
            patched.setattr(np, "savez", no_room(name))
            line = refused(capsys, *command)
        assert f"{name}.npz could not be written: No space left on device" in line
        assert f"{run} is intact up to step 103" in line
        assert observed(run)["stopped"] is None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = int(simulation.final_state(run)["sizes"][0]) + 700
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        line = refused(capsys, *command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "trajectory-0.xyz could not be written: File too large" in line
    assert "is intact up to step 103" in line
    go(saved, run, 250, plan)
    assert differences(tmp_path / "one", run) == []
    assert not list(run.rglob(".*"))


# ------------------------------------------------------------------------------------- worlds


def test_a_repeated_liquid_is_the_liquid() -> None:
    saved = load_model("water-angular")
    sample: Any = saved.sample
    big = simulation.repeated(sample, (2, 1, 1))
    assert big.cell[0, 0] == 2 * sample.cell[0, 0]
    plan = Plan(330.0, "none", 100.0, 0.5, 1, 1e3, 0, 1, "float64")
    one, two = (simulation.World(saved, part, plan) for part in (sample, big))
    force, loss = one.forces(sample.position[None])
    wide, more = two.forces(big.position[None])
    assert np.abs(wide[0].reshape(2, 192, 3) - force).max() < 1e-9
    assert abs(more.sum() - 2 * loss.sum()) < 1e-8 * abs(loss.sum())
    bond = big.position[big.numbers == 1] - big.position[big.owner]
    assert np.linalg.norm(bond, axis=1).max() < 1.2


@pytest.mark.parametrize("thermostat", THERMOSTATS)
def test_one_atom_and_open_space(
    thermostat: str,
    saved: Saved,
    tmp_path: Path,
    quick: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A drop without a cell, and an atom alone, which moves only where noise moves it."""
    for count in (32, 1):
        sample = Sample(argon(0, 0.1)[0][:count], np.zeros((3, 3)), np.full(count, 18), None)
        path = tmp_path / f"{count}.npz"
        save_model(path, saved.model, saved.about, sample=sample)
        command = words(path, tmp_path / f"{count}", 30, "--thermostat", thermostat, "--json")
        if count == 1 and thermostat != "langevin":
            assert "1 atom beside its own centre of mass does not move" in refused(capsys, *command)
            continue
        assert main(command) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["structure"] is None
        assert report["diffusion"] is None
        assert report["temperature"][0] > 0


# ------------------------------------------------------------------------------------ guide


def test_no_world_of_one_seed_begins_as_one_of_another() -> None:
    saved = argon_model()
    sample: Any = saved.sample
    drawn = [planning.draw_velocity(sample, PLAN._replace(seed=s, worlds=4)) for s in range(4)]
    assert len(np.unique(np.concatenate(drawn).reshape(16, -1), axis=0)) == 16
    alone = planning.draw_velocity(sample, PLAN._replace(seed=2, worlds=1))
    np.testing.assert_array_equal(alone, drawn[2][:1])


@pytest.fixture(scope="module")
def cp2k_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CP2K run of 64 waters, as CP2K would write it, with agents' forces."""
    saved = load_model("water-angular")
    sample: Any = saved.sample
    plan = Plan(330.0, "csvr", 50.0, 0.5, 1, 1e3, 0, 1, "float64")
    world = simulation.World(saved, sample, plan)
    velocity = simulation.draw_velocity(sample, plan)
    bodies = start_md(sample.position[None], velocity, world.forces)
    folder = tmp_path_factory.mktemp("cp2k") / "my-run"
    folder.mkdir()
    side = sample.cell[0, 0]
    (folder / "water.inp").write_text(f"&CELL\n  ABC {side} {side} {side}\n&END CELL\n")
    places, pulls = [], []
    for step in range(15):
        advance(bodies, world.forces, world.mass, 0.5, 30, thermostat=world.bath, freedom=573)
        energy = bodies.loss.sum() / HARTREE
        head = f"     192\n i = {step}, time = {15 * step:.3f}, E = {energy:.10f}\n"
        names = np.where(sample.numbers == 8, "O", "H")
        for lines, rows in (
            (places, bodies.position[0]),
            (pulls, bodies.force[0] / HARTREE_PER_BOHR),
        ):
            body = "".join(
                f"  {n} {a:.10f} {b:.10f} {c:.10f}\n"
                for n, (a, b, c) in zip(names, rows, strict=True)
            )
            lines.append(head + body)
    (folder / "water-pos-1.xyz").write_text("".join(places))
    (folder / "water-frc-1.xyz").write_text("".join(pulls))
    return folder


def test_the_five_commands_of_the_guide(
    cp2k_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(cp2k_run.parent)
    page = (Path(__file__).parents[1] / "docs" / "molecules.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("invariantzoo ")]
    assert len(lines) == 5
    for line in lines:
        command = line.split()[1:]
        if "--steps" in command:
            command[command.index("--steps") + 1] = "200"
        if command[0] == "observe":
            command += ["--drop", "0"]
        assert main(command) == 0, line
        out, err = capsys.readouterr()
        assert out
        assert "stopped" not in err
    for name in ("structure.png", "traces.png", "observables.json"):
        assert (Path("liquid") / name).stat().st_size > 1000
    for part in page.split("```python\n")[1:]:
        exec(compile(part.partition("```")[0], "molecules.md", "exec"), {})
    registry._SPECS.pop("water-learned-v0")
