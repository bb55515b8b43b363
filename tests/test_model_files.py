"""A model file is the model that was saved, or refused in one line; never another model."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest

from invariantzoo.__main__ import main
from invariantzoo.envs.molecules import files as model_file
from invariantzoo.envs.molecules.ase import LossCalculator
from invariantzoo.envs.molecules.files import NetModel, Saved, load_model
from invariantzoo.envs.molecules.linear import LossModel

MODELS = Path(model_file.__file__).parent / "models"


def arrays_of(name: str) -> dict[str, np.ndarray]:
    """The arrays of a model that ships."""
    with np.load(MODELS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


ANGULAR, NET = arrays_of("water-angular"), arrays_of("water-best")


def with_head(**changes: Any) -> np.ndarray:
    """A head with some entries changed; None takes one out."""
    head = json.loads(str(ANGULAR["head"])) | changes
    return np.array(json.dumps({key: value for key, value in head.items() if value is not None}))


# arrays of water-angular that are changed (None: missing) -> words of the refusal
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no head": ({"head": None}, "it has no head"),
    "head of numbers": ({"head": np.arange(3)}, "its head is no JSON|no object|not an object"),
    "head of a list": ({"head": np.array("[1]")}, "its head is list, not an object"),
    "head that is cut": ({"head": np.array('{"format": ')}, "its head is no JSON"),
    "head of brackets": ({"head": np.array("[" * 100_000)}, "its head is no JSON"),
    "another version": (
        {"head": with_head(version=2)},
        "holds invariantzoo-losses 2; this version",
    ),
    "another format": ({"head": with_head(format="x")}, "holds x 1; this version reads"),
    "another kind": ({"head": with_head(kind="tree")}, "kind 'tree'"),
    "no kind": ({"head": with_head(kind=None)}, "kind None"),
    "a net without weights": ({"head": with_head(kind="net")}, "it has no 'size_numbers'"),
    "other units": (
        {"head": with_head(units="bohr, Hartree")},
        "in 'bohr, Hartree'; net and losses",
    ),
    "limits of text": ({"head": with_head(limits="none")}, "its limits are not"),
    "limits without bonds": ({"head": with_head(limits={"1-1": {"nearest": 1}})}, "limits are not"),
    "no matrix": ({"matrix_1": None}, "it has no 'matrix_1'"),
    "no weights of a pair": ({"pair_0_1": None}, "it has no 'pair_0_1'"),
    "no functions": ({"channel_radial_1_0": None}, "it has no 'channel_radial_1_0'"),
    "no numbers": ({"numbers": None}, "it has no 'numbers'"),
    "no constant": ({"constant": None}, "it has no 'constant'"),
    "no cutoffs": ({"cutoffs": None}, "it has no 'cutoffs'"),
    "fewer weights": ({"pair_0_1": ANGULAR["pair_0_1"][:-1]}, r"'pair_0_1' has shape \(35,\)"),
    "turned matrix": ({"matrix_0": ANGULAR["matrix_0"][:2]}, r"'matrix_0' has shape \(2, 24, 24\)"),
    "matrix of another": ({"matrix_0": ANGULAR["matrix_1"]}, r"'matrix_0' has shape \(4, 21, 21\)"),
    "nan": ({"pair_1_1": ANGULAR["pair_1_1"] * np.nan}, "'pair_1_1' is not finite"),
    "infinite wall": (
        {"wall_stiffness": np.full((2, 2), np.inf)},
        "'wall_stiffness' is not finite",
    ),
    "text": ({"pair_1_1": ANGULAR["pair_1_1"].astype(str)}, "'pair_1_1' has shape .* of <U"),
    "widths of zero": ({"pair_radial_1_1": ANGULAR["pair_radial_1_1"] * 0}, "widths or the cutoff"),
    "cutoffs below zero": ({"cutoffs": np.array([-6.0, 4.5])}, "the cutoff of its pair functions"),
    "order of seven": ({"order": np.array(7)}, "'order' is 7, none of -1 to 3"),
    "order of half": ({"order": np.array(0.5)}, "'order' has shape"),
    "numbers that fall": ({"numbers": np.array([8, 1])}, r"'numbers' \[8, 1\] are no rising"),
    "numbers twice": ({"numbers": np.array([1, 1])}, "are no rising atomic numbers"),
    "number 0": ({"numbers": np.array([0, 8])}, "are no rising atomic numbers"),
    "number 100": ({"numbers": np.array([1, 100])}, "go beyond 83"),
    "three species": ({"numbers": np.array([1, 6, 8])}, "it has no|has shape"),
    "one species": ({"numbers": np.array([1])}, "has shape"),
    "shared of text": ({"shared": np.array("yes")}, "'shared' has shape"),
    "sample without a cell": ({"sample_cell": None}, "it has no 'sample_cell'"),
    "flat sample": ({"sample_cell": np.diag([9.0, 9.0, 0.0])}, "'sample_cell' spans no volume"),
    "sample of others": (
        {"sample_position": np.zeros((3, 3))},
        r"'sample_position' has shape \(3, 3",
    ),
    "owners beyond": ({"sample_owner": np.full(128, 999)}, "'sample_owner' names atoms"),
    "structure of others": (
        {"structure": np.zeros((3, 3, 5))},
        r"'structure' has shape \(3, 3, 5\)",
    ),
}

# arrays of water-best that are changed -> words of the refusal
NETS_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no weights": ({"weight_carry": None}, "it has no 'weight_carry'"),
    "no bias": ({"weight_talk.0.0.bias": None}, "its weights do not fit its sizes"),
    "nan": ({"weight_carry": NET["weight_carry"] * np.nan}, "'weight_carry' is not finite"),
    "other channels": ({"size_channels": np.array(8)}, r"'weight_carry' has shape \(4, 16, 16\)"),
    "huge hidden": ({"size_hidden": np.array(10**12)}, r"'weight_talk.0.0.weight' has shape"),
    "huge channels": ({"size_channels": np.array(10**9)}, "'weight_carry' has shape"),
    "no cutoff": ({"size_cutoff": np.array(0.0)}, "'size_cutoff' is 0, not above 0"),
    "widths": ({"weight_widths": NET["weight_widths"][:3]}, "'weight_widths' has shape"),
    "more weights": ({"weight_more": np.ones(3)}, "its weights do not fit its sizes"),
    "other numbers": ({"size_numbers": np.array([1, 6, 8])}, "its weights do not fit its sizes"),
}


def write(path: Path, arrays: dict[str, np.ndarray], change: dict[str, Any]) -> Path:
    """A model file with some arrays changed."""
    with path.open("wb") as file:
        np.savez_compressed(file, **{k: v for k, v in (arrays | change).items() if v is not None})
    return path


def outcome(path: Path) -> Saved | str:
    """The model of a file, or the words of its refusal."""
    try:
        return load_model(path)
    except ValueError as error:
        return str(error)


def plain(saved: Saved) -> list[Any]:
    """All numbers of a model, in order."""
    model: Any = saved.model
    if isinstance(model, NetModel):
        weights = [value.numpy() for value in model.net.state_dict().values()]
        return [*weights, model.constant, model.net.cutoff, json.dumps(saved.about)]
    assert isinstance(model, LossModel)
    parts: list[Any] = [model.numbers, model.shared, model.order, model.constant, *model.walls]
    for radial in (model.pair, model.channels):
        parts += [radial.cutoff, *sum(radial.centres, ()), *sum(radial.widths, ())]
    sample = [part for part in saved.sample or () if part is not None]
    weights = [*sum(model.pair_weights, ()), *model.matrices]
    return [*parts, *weights, *sample, saved.structure, json.dumps(saved.about)]


def same(first: Saved, second: Saved) -> bool:
    """Whether two models are the same to the last bit."""
    pairs = zip(plain(first), plain(second), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


@pytest.mark.parametrize("case", REFUSED)
def test_other_arrays_are_refused_in_a_line(tmp_path: Path, case: str) -> None:
    change, words = REFUSED[case]
    path = write(tmp_path / "m.npz", ANGULAR, change)
    with pytest.raises(ValueError, match=words) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path} is no model file: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", NETS_REFUSED)
def test_other_nets_are_refused_in_a_line(tmp_path: Path, case: str) -> None:
    change, words = NETS_REFUSED[case]
    path = write(tmp_path / "m.npz", NET, change)
    with pytest.raises(ValueError, match=words) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    whole = (MODELS / "water-angular.npz").read_bytes()
    texts = [b"", b"PK", b"hello", b"\x80\x04K\x01.", whole[:1000], whole[1000:]]
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    texts += [buffer.getvalue(), (tmp_path / "text.zip").read_bytes()]
    for text in texts:
        path.write_bytes(text)
        with pytest.raises(ValueError, match=r"m.npz is no model file: "):
            load_model(path)


def test_an_array_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m.npz", ANGULAR, {})
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)}
    )
    with zipfile.ZipFile(tmp_path / "m.npz", "a") as archive:
        archive.writestr("huge.npy", buffer.getvalue() + b"\0" * 64)
    with pytest.raises(ValueError, match=r"m.npz is no model file: "):
        load_model(tmp_path / "m.npz")


@pytest.mark.parametrize("name", ["water-pair", "water-best"])
def test_a_damaged_file_is_refused_or_the_same_model(tmp_path: Path, name: str) -> None:
    whole = (MODELS / f"{name}.npz").read_bytes()
    rng, path = np.random.default_rng(1), tmp_path / "m.npz"
    expected, refused = load_model(name), 0
    for at in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.integers(8))]) + whole[at + 1 :])
        found = outcome(path)
        if isinstance(found, str):
            assert found.startswith(str(path))
            assert "\n" not in found
            refused += 1
        else:
            assert same(found, expected)
    assert refused > 30


def test_a_damaged_model_is_one_line_in_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "m.npz", ANGULAR, {"matrix_0": None})
    data = str(Path(__file__).parent / "data" / "water2.npz")
    assert main(["forces", str(path), data, "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "it has no 'matrix_0'" in err


def test_the_calculator_refuses_what_it_cannot_compute() -> None:
    def water(**how: Any) -> ase.Atoms:
        atoms = ase.Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], **how)
        atoms.calc = LossCalculator("water-pair")
        return atoms

    assert np.isfinite(water().get_potential_energy())
    with pytest.raises(ValueError, match="must be all True or all False"):
        water(cell=[12.0] * 3, pbc=[True, True, False]).get_forces()
    with pytest.raises(ValueError, match="spans no volume"):
        water(pbc=True).get_forces()
    atoms = water()
    atoms.positions[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        atoms.get_forces()
    atoms = water()
    atoms.symbols[0] = "N"
    with pytest.raises(ValueError, match=r"7|N"):
        atoms.get_forces()
