"""Simulations of inferred losses: going on bit for bit, alarms, observables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invariantzoo.__main__ import main
from invariantzoo.agents.dynamics import advance, make_bodies
from invariantzoo.agents.lennard_jones import LennardJonesForces
from invariantzoo.agents.losses import no_walls
from invariantzoo.agents.model_file import Sample, load_model, save_model
from invariantzoo.envs.core import registry
from invariantzoo.envs.core.cell import replicate
from invariantzoo.envs.core.units import HARTREE, HARTREE_PER_BOHR, WAVENUMBER
from invariantzoo.training import observables, simulation
from invariantzoo.training.fit import fit_losses
from invariantzoo.training.frames import Frames, read_frames
from invariantzoo.training.simulation import Intervals, Plan
from invariantzoo.training.structure import (
    BIN,
    difference,
    distribution,
    first_maximum,
    first_minimum,
    radii,
)

SIGMA, EPSILON = 3.4, 0.0103  # argon: Angstrom, eV


def argon(seed: int, jitter: float) -> tuple[np.ndarray, np.ndarray]:
    """A shaken crystal of 32 atoms."""
    edge = 5.6
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * edge
    x, cell = replicate(basis, edge * np.eye(3), (2, 2, 2))
    return x + np.random.default_rng(seed).normal(0, jitter, x.shape), cell


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pair losses of argon inferred from Lennard-Jones forces."""
    positions = np.array([argon(seed, 0.05 + 0.02 * (seed % 15))[0] for seed in range(40)])
    cell = argon(0, 0)[1]
    cells = np.repeat(cell[None], 40, 0)
    lj = LennardJonesForces(cells / SIGMA, 32, cutoff=5.59 / SIGMA)
    forces = lj(positions / SIGMA)[0] * EPSILON / SIGMA
    numbers = np.full(32, 18)
    split = np.where(np.arange(40) < 30, "train", "val")
    nothing = np.full(40, np.nan)
    frames = Frames(positions, forces, numbers, cells, nothing, split, None, "argon", "0" * 64)
    fit = fit_losses(frames, loss="pair", shared=True, pair_cutoff=5.59)
    path = tmp_path_factory.mktemp("model") / "argon.npz"
    about = {"digest": "0" * 64, "limits": {"18-18": {"nearest": 2.6, "bond": 0.0}}}
    sample = Sample(argon(1, 0.1)[0], cell, numbers, None)
    structure = distribution(positions, cell, numbers)
    save_model(path, fit.model, about, sample=sample, structure=structure)
    return path


def words(model: Path | str, out: Path, steps: int, *more: str) -> list[str]:
    start = ["simulate", str(model), "--steps", str(steps), "--out", str(out), "--dt", "4"]
    return [*start, "--temperature", "60", "--replicas", "2", "--frames", "400", *more]


def contents(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".npz":
            with np.load(path) as file:
                found |= {f"{path.name}/{name}": file[name].tobytes() for name in file.files}
        elif path.suffix == ".xyz":
            found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize("thermostat", ["nose-hoover", "langevin", "csvr", "none"])
def test_a_run_that_stopped_goes_on_bit_for_bit(
    thermostat: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--thermostat", thermostat)
    assert main(words(model, tmp_path / "whole", 1300, *more)) == 0
    part = tmp_path / "part"
    for _ in range(3):  # of one block each, the last torn in the middle
        assert main(words(model, part, 1300, *more, "--minutes", "1e-9")) == 0
        if len(list((part / "blocks").iterdir())) == 1:
            tear(part, words(model, part, 1300, *more), monkeypatch)
    assert len(list((part / "blocks").iterdir())) == 3
    assert contents(part) == contents(tmp_path / "whole")


def tear(part: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the second block after it has written frames."""
    advance, calls = simulation.advance, [0]

    def interrupted(*args: Any, **kwargs: Any) -> None:
        calls[0] += 1
        if calls[0] > 300:
            raise KeyboardInterrupt
        advance(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(simulation, "advance", interrupted)
        assert main(command) == 130


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--temperature", "61"), "temperature is 60.0, not 61.0;"),
        (("--waters", "33"), "--waters 33 must be a multiple of the sample's 32"),
        (("--tau", "0"), "--tau 0 must be above 0"),
        (("--dt", "25"), "--dt 25 fs is too long"),
    ],
)
def test_bad_requests_are_refused_in_one_line(
    change: tuple[str, str],
    message: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(model, tmp_path / "run", 500)) == 0
    capsys.readouterr()
    assert main(words(model, tmp_path / "run", 500, *change)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_other_folders_are_left_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(words(model, tmp_path, 500)) == 2
    assert "is not empty and holds no simulation" in capsys.readouterr().err
    assert main(["observe", str(tmp_path)]) == 2
    assert main(["observe", str(tmp_path / "nothing")]) == 2


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


def test_threads_change_nothing(model: Path, tmp_path: Path) -> None:
    assert main(words(model, tmp_path / "one", 300)) == 0
    assert main(words(model, tmp_path / "two", 300, "--threads", "2")) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


# ------------------------------------------------------------------------------------ alarms


def water(out: Path, *more: str, model: str = "water-pair") -> list[str]:
    return ["simulate", model, "--waters", "64", "--steps", "8000", "--out", str(out), *more]


def test_pair_losses_explode_and_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = load_model("water-pair")
    bare = saved.model._replace(walls=no_walls(2))
    save_model(tmp_path / "bare.npz", bare, saved.about, sample=saved.sample)
    assert main(water(tmp_path / "run", model=str(tmp_path / "bare.npz"))) == 1
    out, err = capsys.readouterr()
    assert out == "" or "ps of 192 atoms" in out
    assert "stopped at step " in err
    assert "world 0: " in err
    frames = (tmp_path / "run" / "trajectory-0.xyz").read_text()
    assert frames.count("Lattice") >= 1


def test_geometry_alarms(tmp_path: Path) -> None:
    saved = load_model("water-angular")
    sample = saved.sample
    assert sample is not None
    plan = Plan(330.0, "nose-hoover", 100.0, 0.5, 40, 100.0, 0, 1, "float64")

    def go(name: str, x: np.ndarray) -> str:
        with pytest.raises(simulation.Alarm) as caught:
            simulation.simulate(tmp_path / name, saved, sample._replace(position=x), plan, {})
        return str(caught.value)

    hydrogen, oxygen = 64, int(sample.owner[0])
    near = sample.position.copy()
    near[hydrogen] = near[oxygen] + 0.5 * _unit(near[hydrogen] - near[oxygen], sample.cell)
    assert go("near", near).startswith("step 0, world 0: O-H distance 0.50 A left the sampled")
    torn = sample.position.copy()
    torn[hydrogen] = torn[oxygen] + 1.6 * _unit(torn[hydrogen] - torn[oxygen], sample.cell)
    assert "a molecule is broken: a bond of 1.60 A" in go("torn", torn)


def test_the_conserved_quantity_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = load_model("water-angular")
    plan = Plan(330.0, "nose-hoover", 100.0, 0.5, 40, 100.0, 0, 1, "float64")
    monkeypatch.setattr(simulation, "DRIFT", 1e-7)
    with pytest.raises(simulation.Alarm, match="conserved quantity left its start by"):
        simulation.simulate(tmp_path / "a", saved, saved.sample, plan, {})


def test_own_losses_report_their_heat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


# ------------------------------------------------------------------------------- observables


def test_an_ideal_gas_has_no_structure() -> None:
    rng = np.random.default_rng(0)
    cell = np.array([[9.0, 0, 0], [2.0, 9.0, 0], [0, 1.0, 10.0]])
    x = rng.uniform(0, 1, (400, 60, 3)) @ cell
    g = distribution(x, cell, np.repeat([1, 8], 30))
    near = radii(g.shape[-1]) > 2.0
    for pair in ((0, 0), (0, 1), (1, 1)):
        assert abs(np.average(g[pair][near], weights=radii(g.shape[-1])[near] ** 2) - 1) < 0.01


def test_a_crystal_is_counted_exactly() -> None:
    x, cell = argon(0, 0)
    g = distribution(x[None], cell, np.full(32, 18))[0, 0]
    r = 5.6 / math.sqrt(2)
    at = int(r / BIN)
    shell = 4 / 3 * math.pi * ((at + 1) ** 3 - at**3) * BIN**3
    assert np.isclose(g[at] * 31 / np.linalg.det(cell) * shell, 12)
    assert not g[: at - 1].any()


def test_extrema_and_differences_of_curves() -> None:
    r = radii(620)
    curve = 1 + 2 * np.exp(-((r - 2.763) ** 2) / 0.08) - 0.4 * np.exp(-((r - 3.4) ** 2) / 0.3)
    top = first_maximum(curve, 2.0)
    assert abs(top.place - r[curve.argmax()]) < 0.006
    assert abs(top.value - curve.max()) < 0.02
    assert abs(first_minimum(curve, top).place - 3.4) < 0.12
    assert abs(difference(curve, curve + 0.25, 2.0) - 0.25) < 1e-12


def test_a_random_walk_diffuses_as_it_must() -> None:
    plan = Plan(300.0, "nose-hoover", 100.0, 0.5, 1, 100.0, 0, 4, "float64")
    between = Intervals.of(plan).place * plan.dt / 1e3
    steps = np.random.default_rng(1).normal(0, math.sqrt(2 * 0.2 * between), (1600, 4, 64, 3))
    found = observables._diffusion([{"place": steps.cumsum(0)}], plan, 12.44 * np.eye(3), 300.0)
    assert found is not None
    assert found["pieces"] == 16
    assert abs(found["value"] - 0.2) < 4 * found["error"]
    assert found["error"] < 0.01
    at_298 = observables._diffusion(
        [{"place": steps.cumsum(0)}], plan._replace(temperature=298.0), 12.44 * np.eye(3), 298.0
    )
    assert at_298 is not None
    assert abs(at_298["correction"] - 0.056) < 0.002
    assert abs(observables.viscosity(298.15) / 0.890 - 1) < 0.03


def test_an_oscillator_rings_at_its_frequency() -> None:
    saved = load_model("water-angular")
    plan = Plan(330.0, "none", 100.0, 0.5, 4000, 100.0, 0, 1, "float64")
    world = simulation.World(saved, saved.sample, plan)
    t = 2.0 * np.arange(1000)
    wave = np.cos(2 * np.pi * 3600 * WAVENUMBER * t)
    velocity = np.zeros((1000, 1, 192, 3), np.float32)
    velocity[:, 0, 64:, 1] = wave[:, None]
    spectrum = simulation._spectrum(velocity, world, 192)
    block = {"spectrum": spectrum}
    found = observables._vibrations([block], plan, [1, 8])
    assert found is not None
    hydrogen = found["density"]["H"]
    assert abs(found["wavenumber"][hydrogen.argmax()] - 3600) < 10
    assert not found["density"]["O"].any()
    width = found["wavenumber"][1]
    assert abs(hydrogen.sum() * width - 1) < 1e-6
    assert abs(found["band_centres"]["stretch"] - 3600) < 10


# ------------------------------------------------------------------------------------ guide


@pytest.fixture(scope="module")
def cp2k_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CP2K run of 64 waters, as CP2K would write it, with agents' forces."""
    saved = load_model("water-angular")
    sample: Any = saved.sample
    plan = Plan(330.0, "csvr", 50.0, 0.5, 1, 1e3, 0, 1, "float64")
    world = simulation.World(saved, sample, plan)
    velocity = simulation.draw_velocity(sample, plan)
    bodies = make_bodies(sample.position[None], velocity, world.forces)
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
