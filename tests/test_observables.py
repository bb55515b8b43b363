"""What a simulation shows: structure, diffusion and its finite size, vibrations, lines and keys."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from liquids import PLAN, argon, argon_model, go

from invariantzoo.__main__ import main
from invariantzoo.envs.core.physics.units import WAVENUMBER
from invariantzoo.envs.molecules.files import Sample, Saved, load_model, save_model
from invariantzoo.training.molecules import measurements, observables
from invariantzoo.training.molecules import plan as planning
from invariantzoo.training.molecules import simulate as simulation
from invariantzoo.training.molecules.observables import Run
from invariantzoo.training.molecules.rdf import (
    BIN,
    difference,
    distribution,
    first_maximum,
    first_minimum,
    radii,
)
from invariantzoo.training.molecules.simulate import Intervals, Plan

WATER = Plan(300.0, "nose-hoover", 100.0, 0.5, 1, 100.0, 0, 4, "float64")
SIDE = 12.44  # Angstrom, of 64 waters


@pytest.fixture(scope="module")
def saved() -> Saved:
    return argon_model()


@pytest.fixture(scope="module")
def liquid(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12.8 ps of argon."""
    folder = tmp_path_factory.mktemp("run") / "argon"
    go(saved, folder, 3200, PLAN._replace(thermostat="csvr", temperature=94.0, worlds=1))
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures."""
    for name in ("draw_structure", "draw_traces", "draw_vibrations"):
        monkeypatch.setattr(f"invariantzoo.commands.observe.{name}", lambda *_: None)


# ------------------------------------------------------------------------------------ structure


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
    assert top is not None
    assert abs(top.radius - r[curve.argmax()]) < 0.006
    assert abs(top.value - curve.max()) < 0.02
    bottom = first_minimum(curve, top)
    assert bottom is not None
    assert abs(bottom.radius - 3.4) < 0.12
    assert first_minimum(curve[:391], top) == bottom  # of a cell as narrow as that of 16 waters
    shift = difference(curve, curve + 0.25, 2.0)
    assert shift is not None
    assert abs(shift - 0.25) < 1e-12


def test_curves_that_end_early_have_no_extrema() -> None:
    curve = np.where(radii(110) < 1.05, 20.0, 0.0)  # a bond, and nothing beyond
    assert first_maximum(curve, 1.25) is None
    assert first_maximum(curve, 1.07) is None
    top = first_maximum(np.linspace(0, 1, 110), 0.0)
    assert top is not None
    assert first_minimum(np.linspace(0, 1, 110), top._replace(radius=1.2)) is None
    assert difference(curve, curve, 2.0) is None


def test_a_shorter_last_block_counts_for_what_it_is(liquid: Path, saved: Saved) -> None:
    """The mean over all samples, however they fall into blocks."""
    seen = observables.observe(liquid, drop=0)
    every = Intervals.of(Plan(**simulation.read_config(liquid)["plan"]))
    blocks = measurements.read_blocks(liquid, block=every.block, sample=every.sample)
    assert len(blocks) == 7
    assert len(blocks[6]["step"]) < len(blocks[0]["step"])
    for name, key, atoms in (
        ("temperature", "temperature", 1),
        ("potential", "potential_ev_per_atom", 32),
    ):
        mean = np.concatenate([block[name] for block in blocks]).mean() / atoms
        assert abs(seen[key][0] - mean) < 1e-12 * abs(mean)


# -------------------------------------------------------------------------------- diffusion


def walk(plan: Plan, cell: np.ndarray, water: bool, speed: float = 0.2) -> Run:
    """A run of 64 random walkers of diffusion `speed` in Angstrom^2/ps; 80 ps."""
    between = Intervals.of(plan).place * plan.dt / 1e3
    rng = np.random.default_rng(1)
    steps = rng.normal(0, math.sqrt(2 * speed * between), (1600, plan.worlds, 64, 3))
    numbers = np.repeat([8, 1], [64, 128])
    return Run({}, plan, [{"place": steps.cumsum(0)}], numbers, cell, [1, 8], water)


def diffusion(run: Run, kelvin: float = 300.0, viscosity: float | None = None) -> dict[str, Any]:
    found = observables._diffusion(run, kelvin, viscosity)
    assert found is not None
    return found


def test_a_random_walk_diffuses_as_it_must() -> None:
    found = diffusion(walk(WATER, SIDE * np.eye(3), True))
    assert found["pieces"] == 16
    assert abs(found["value"] - 0.2) < 4 * found["error"]
    assert found["error"] < 0.01


def test_the_finite_size_of_water_is_that_of_yeh_and_hummer() -> None:
    at_298 = diffusion(walk(WATER._replace(temperature=298.0), SIDE * np.eye(3), True))
    assert abs(at_298["correction"] - 0.056) < 0.002
    assert at_298["corrected"] == at_298["value"] + at_298["correction"]
    assert at_298["viscosity_from"] == "water"
    assert at_298["reason"] is None
    for kelvin, mpa_s in ((298.15, 0.890), (273.15, 1.792), (333.15, 0.4664), (373.15, 0.2818)):
        assert abs(observables.water_viscosity(kelvin) / mpa_s - 1) < 0.03


@pytest.mark.parametrize(
    ("plan", "side", "water", "reason"),
    [
        (WATER, SIDE, False, "the viscosity of this liquid is not known"),
        (WATER._replace(temperature=140.0), SIDE, True, "from 273.15 to 373.15 K"),
        (WATER._replace(temperature=3000.0), SIDE, True, "from 273.15 to 373.15 K"),
        (WATER._replace(thermostat="none"), SIDE, True, "from 273.15 to 373.15 K"),
        (WATER, 15.0, True, "of water of 0.567 g/cm^3 is not known"),
    ],
)
def test_without_a_known_viscosity_there_is_no_correction(
    plan: Plan, side: float, water: bool, reason: str
) -> None:
    """Whatever the temperature: that of the run where energy is constant."""
    run = walk(plan, side * np.eye(3), water)
    kelvin = 100.0 if plan.thermostat == "none" else 300.0
    found = diffusion(run, kelvin)
    assert found["value"] > 0
    for key in ("correction", "corrected", "viscosity_mpa_s", "viscosity_from"):
        assert found[key] is None
    assert reason in found["reason"]
    assert "give it with --viscosity" in found["reason"]
    given = diffusion(run, kelvin, 0.5)
    assert given["viscosity_from"] == "given"
    assert given["reason"] is None
    kelvin = plan.temperature if plan.thermostat != "none" else kelvin
    joule, metres = 1.380649e-23 * kelvin, 6 * math.pi * 0.5e-3 * side * 1e-10
    expected = 2.837297 * joule / metres * 1e8
    assert abs(given["corrected"] - given["value"] - expected) < 1e-5 * expected


def test_the_constant_of_other_cells_is_that_of_a_charge_in_its_lattice() -> None:
    """Cube, body- and face-centred cells (Wigner's crystals), and cells written otherwise."""
    sphere = (3 / (4 * math.pi)) ** (1 / 3)
    bcc = np.ones((3, 3)) - 2 * np.eye(3)
    fcc = np.ones((3, 3)) - np.eye(3)
    for cell, wigner in ((np.eye(3), 1.760119), (bcc, 1.791858), (fcc, 1.791747)):
        for scale in (1.0, 12.44):
            assert abs(observables.lattice_constant(scale * cell) * sphere - wigner) < 2e-6
    skewed = np.array([[1.0, 0, 0], [1, 1, 0], [0, -2, 1]])  # the same lattice as the cube
    assert abs(observables.lattice_constant(skewed) - 2.837297) < 1e-6
    long = observables.lattice_constant(np.diag([1.0, 1.0, 4.0]))
    assert long < 2.0


def test_water_is_known_by_its_bonds() -> None:
    sample: Any = load_model("water-angular").sample
    x, cell, numbers = sample.position, sample.cell, sample.numbers
    assert observables.is_water(numbers, x, cell)
    assert observables.is_water(numbers, x + cell[0] * np.arange(len(x))[:, None], cell)
    assert not observables.is_water(numbers, None, cell)
    far = x.copy()
    far[64] += 2.0  # a hydrogen leaves
    assert not observables.is_water(numbers, far, cell)
    peroxide = np.array([8, 8, 1, 1, 1, 1])
    rows = np.array([[0, 0, 0], [1.2, 0, 0], [0, 1, 0], [1.2, 1, 0], [0, -1, 0], [1.2, -1, 0]])
    assert not observables.is_water(peroxide, rows, 20 * np.eye(3))
    assert not observables.is_water(np.array([16, 1, 1]), rows[:3], 20 * np.eye(3))
    assert observables.is_water(np.array([8, 1, 1]), rows[[0, 2, 4]], np.zeros((3, 3)))


def test_argon_has_no_viscosity_but_a_given_one(
    quick: None, liquid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["observe", str(liquid), "--drop", "0"]) == 0
    out = capsys.readouterr().out
    assert "left out: the viscosity of this liquid" in out
    assert "band" not in out
    assert "bond" not in out
    command = ["observe", str(liquid), "--drop", "0", "--viscosity", "0.28", "--json"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["diffusion"]["corrected"] > report["diffusion"]["value"]
    assert report["diffusion"]["viscosity_mpa_s"] == 0.28
    assert report["water"] is False
    assert report["longest_bond"] is None
    assert report["vibrations"]["band_centres"] == {}


# ------------------------------------------------------------------------------- vibrations


def test_an_oscillator_rings_at_its_frequency() -> None:
    numbers = np.repeat([8, 1], [64, 128])
    t = 2.0 * np.arange(1000)
    wave = np.cos(2 * np.pi * 3600 * WAVENUMBER * t)
    velocity = np.zeros((1000, 1, 192, 3), np.float32)
    velocity[:, 0, 64:, 1] = wave[:, None]
    spectrum = measurements.spectrum(velocity, numbers, [1, 8])
    plan = WATER._replace(worlds=1)
    run = Run({}, plan, [{"spectrum": spectrum}], numbers, SIDE * np.eye(3), [1, 8], True)
    found = observables._vibrations(run)
    assert found is not None
    hydrogen = found["density"]["H"]
    assert abs(found["wavenumber"][hydrogen.argmax()] - 3600) < 10
    assert not found["density"]["O"].any()
    width = found["wavenumber"][1]
    assert abs(hydrogen.sum() * width - 1) < 1e-6
    assert abs(found["band_centres"]["stretch"] - 3600) < 10
    still = Run({}, plan, [{"spectrum": 0 * spectrum}], numbers, SIDE * np.eye(3), [1, 8], True)
    assert observables._vibrations(still) is None


@pytest.mark.parametrize("order", ["molecules", "species"])
def test_of_many_atoms_every_species_is_followed_by_its_share(order: str) -> None:
    numbers = np.tile([8, 1, 1], 1000) if order == "molecules" else np.repeat([8, 1], [1000, 2000])
    chosen = numbers[measurements.followed_atoms(numbers)]
    assert (chosen == 8).sum() == 200
    assert (chosen == 1).sum() == 400
    rare = np.r_[numbers, 11]
    assert (rare[measurements.followed_atoms(rare)] == 11).sum() == 1
    few = np.arange(1, 60)
    assert np.array_equal(measurements.followed_atoms(few), np.arange(59))


# --------------------------------------------------------------------------------- the command


def test_constant_energy_has_no_set_temperature(
    quick: None, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(saved, tmp_path / "none", 20, PLAN._replace(thermostat="none"))
    go(saved, tmp_path / "csvr", 20, PLAN._replace(thermostat="csvr"))
    assert main(["observe", str(tmp_path / "none")]) == 0
    assert "set" not in capsys.readouterr().out
    assert main(["observe", str(tmp_path / "csvr")]) == 0
    assert "K, set 60" in capsys.readouterr().out
    assert main(["observe", str(tmp_path / "none"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["temperature_set"] is None


def test_what_is_left_out_at_the_start(
    quick: None, liquid: Path, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """5 ps, and nothing of a run that is shorter."""
    go(saved, tmp_path / "short", 20)
    for run, more, ps in (
        (liquid, [], 5.0),
        (tmp_path / "short", [], 0.0),
        (liquid, ["--drop", "0"], 0.0),
    ):
        assert main(["observe", str(run), *more, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["dropped_ps"] == ps
    for drop, message in (
        ("13", "--drop 13 ps leaves nothing of 12.8 ps"),
        ("inf", "--drop inf ps leaves nothing"),
        ("-1", "--drop -1 must be at least 0"),
        ("nan", "--drop nan must be at least 0"),
    ):
        assert main(["observe", str(liquid), "--drop", drop]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert err.count("\n") == 1


def test_a_run_in_progress_shows_its_whole_blocks(
    quick: None,
    saved: Saved,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file that is being written is none of them."""
    monkeypatch.setattr(planning, "_BLOCK", 400.0)
    lengths: list[float] = []

    def look(now: Any) -> None:
        if now.steps == 50:
            assert main(["observe", str(tmp_path / "run")]) == 2
            assert "has measured nothing yet" in capsys.readouterr().err
        if now.steps in (150, 250):
            (tmp_path / "run" / "blocks" / ".000009.1.tmp.npz").write_bytes(b"half")
            assert main(["observe", str(tmp_path / "run"), "--drop", "0", "--json"]) == 0
            lengths.append(json.loads(capsys.readouterr().out)["length_ps"])

    go(saved, tmp_path / "run", 300, report=look)
    assert lengths == [0.4, 0.8]


def test_data_of_other_species_are_no_reference(
    quick: None, liquid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, cell = argon(0, 0.1)
    frames = {"positions": x[None], "forces": 0.1 * np.sin(x)[None], "cell": cell}
    for number, code, message in (
        (36, 2, "is of Kr, the run of Ar"),
        (18, 0, "1 frame of 32 atoms (Ar32)"),
    ):
        np.savez(tmp_path / "frames.npz", numbers=np.full(32, number), **frames)
        assert main(["observe", str(liquid), "--data", str(tmp_path / "frames.npz")]) == code
        assert message in capsys.readouterr().err


def test_a_model_that_was_replaced_is_no_reference(
    quick: None, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.npz"
    save_model(path, saved.model, saved.about, sample=saved.sample, structure=saved.structure)
    command = ["simulate", str(path), "--steps", "4", "--dt", "4", "--out", str(tmp_path / "run")]
    assert main([*command, "--json"]) == 0
    assert "reference" in json.loads(capsys.readouterr().out)["structure"]["Ar-Ar"]
    about = {**saved.about, "digest": "another"}
    save_model(path, saved.model, about, sample=saved.sample, structure=saved.structure)
    assert main(["observe", str(tmp_path / "run"), "--json"]) == 0
    assert "reference" not in json.loads(capsys.readouterr().out)["structure"]["Ar-Ar"]


def test_species_without_pairs_have_no_distance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A single water in a large cell: no O-O pair, and O-H pairs within the molecule alone."""
    saved = load_model("water-angular")
    sample: Any = saved.sample
    first = np.r_[0, 64 + np.flatnonzero(sample.owner == 0)]
    one = Sample(sample.position[first], 16 * np.eye(3), sample.numbers[first], np.zeros(2, int))
    save_model(tmp_path / "one.npz", saved.model, saved.about, sample=one)
    command = ["simulate", str(tmp_path / "one.npz"), "--steps", "40", "--thermostat", "csvr"]
    assert main([*command, "--out", str(tmp_path / "run"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["least_distance"]["O-O"] is None
    assert "first_maximum" not in report["structure"]["O-H"]
    assert report["water"] is True
    assert main(["observe", str(tmp_path / "run")]) == 0
    assert "O-O" not in capsys.readouterr().out


def test_pictures_say_what_their_axes_are(liquid: Path, tmp_path: Path) -> None:
    """Read from the figures: labels with units, and marks of water for water alone."""
    from invariantzoo.commands import observe as command

    found = observables.observe(liquid)
    figures: dict[str, Any] = {}

    def keep(figure: Any, path: Path) -> None:
        figures[path.stem] = figure

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(command, "_save", keep)
        command.draw_structure(found, tmp_path / "structure.png")
        command.draw_traces(found, tmp_path / "traces.png")
        command.draw_vibrations(found, tmp_path / "vibrations.png")
    labels = {
        name: [axis.get_xlabel() + "|" + axis.get_ylabel() for axis in figure.axes]
        for name, figure in figures.items()
    }
    assert labels["structure"] == ["distance (Å)|g, Ar-Ar"]
    assert labels["traces"] == [
        "time (ps)|temperature (K)",
        "time (ps)|conserved quantity,\nchange (meV/atom)",
    ]
    assert labels["vibrations"] == ["wavenumber (cm⁻¹)|density of states (10⁻³ cm)"]
    assert figures["vibrations"].axes[0].get_xlim()[1] < 500  # argon has no bands beyond
    assert all(figure.get_size_inches()[0] <= 9 for figure in figures.values())
    import matplotlib.pyplot as plt

    plt.close("all")
