"""Reference data are read as they are meant, or refused in one line; nothing is read otherwise."""

from __future__ import annotations

import gzip
import math
import os
import warnings
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, Hookean
from frame_texts import (
    CELL,
    ENERGIES,
    FORCES,
    LATTICE,
    POSITIONS,
    PROPERTIES,
    SIDE,
    SYMBOLS,
    extended,
    frame,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invariantzoo.__main__ import main
from invariantzoo.envs.core.physics.units import BOHR, HARTREE, HARTREE_PER_BOHR
from invariantzoo.training.molecules.extended_xyz import key_values
from invariantzoo.training.molecules.frames import (
    Frames,
    describe,
    frames_of_atoms,
    minimum_image,
    read_frames,
)
from invariantzoo.training.molecules.units import ENERGIES as IN_EV
from invariantzoo.training.molecules.units import parse_units

FULL = f'{LATTICE} {PROPERTIES} energy=%E pbc="T T T"'
PLAIN = f"{LATTICE} {PROPERTIES}"
NINE = f"{SIDE} 0 0 0 {SIDE} 0 0 0 {SIDE}"


def meant(
    frames: Frames, *, cell: Any = CELL, energy: Any = ENERGIES, count: int = 4, rtol: float = 0
) -> None:
    """Compare frames with the two waters."""
    assert frames.positions.shape == (count, 6, 3)
    assert np.allclose(frames.positions, POSITIONS[:count], rtol=rtol, atol=1e-7)
    assert np.allclose(frames.forces, FORCES[:count], rtol=rtol, atol=1e-6)
    assert frames.numbers.tolist() == [8, 8, 1, 1, 1, 1]
    assert np.allclose(frames.cell, cell, atol=1e-6)
    known = np.full(count, np.nan) if energy is None else np.broadcast_to(energy, 4)[:count]
    assert np.allclose(frames.energy, known, atol=1e-6, equal_nan=True)


# ---------------------------------------------------------------------------- extended XYZ

OPEN = np.zeros((3, 3))

# comment line -> what it means: cell, energy
READ: dict[str, tuple[str, Any, Any]] = {
    "all keys": (FULL, CELL, ENERGIES),
    "no pbc": (PLAIN, CELL, None),
    "pbc F F F": (f'{PLAIN} pbc="F F F"', OPEN, None),
    "pbc F": (f"{PLAIN} pbc=F", OPEN, None),
    "pbc T": (f"{PLAIN} pbc=T", CELL, None),
    "pbc False words": (f'{PLAIN} pbc="False False False"', OPEN, None),
    "pbc 0 0 0": (f'{PLAIN} pbc="0 0 0"', OPEN, None),
    "pbc 1 1 1": (f'{PLAIN} pbc="1 1 1"', CELL, None),
    "pbc in brackets": (f"{PLAIN} pbc=[F, F, F]", OPEN, None),
    "pbc in braces": (f"{PLAIN} pbc={{F F F}}", OPEN, None),
    "pbc F F F without Lattice": (f'{PROPERTIES} pbc="F F F"', OPEN, None),
    "no Lattice": (PROPERTIES, OPEN, None),
    "Lattice of zeros": (f'Lattice="0 0 0 0 0 0 0 0 0" {PROPERTIES}', OPEN, None),
    "Lattice of zeros, pbc F": (
        f'Lattice="0 0 0 0 0 0 0 0 0" {PROPERTIES} pbc="F F F"',
        OPEN,
        None,
    ),
    "flat Lattice, pbc F": (f'Lattice="7 0 0 0 8 0 0 0 0" {PROPERTIES} pbc="F F F"', OPEN, None),
    "single quotes": (f"Lattice='{NINE}' {PROPERTIES} pbc='T T T'", CELL, None),
    "braces": (f"Lattice={{{NINE}}} {PROPERTIES}", CELL, None),
    "brackets": (f"Lattice=[{NINE}] {PROPERTIES}", CELL, None),
    "commas": (f'Lattice="{NINE.replace(" ", ", ")}" {PROPERTIES}', CELL, None),
    "spaces around =": (f'Lattice = "{NINE}" {PROPERTIES} energy = %E', CELL, ENERGIES),
    "tabs": (FULL.replace(" ", "\t"), CELL, ENERGIES),
    "form feed": (f"{FULL} note=a\x0cb", CELL, ENERGIES),
    "line separator": (f"{FULL} note=a\u2028b", CELL, ENERGIES),
    "no-break space": (f"{LATTICE}\u00a0{PROPERTIES}\u00a0energy=%E", CELL, ENERGIES),
    "quoted Properties": (f'{LATTICE} Properties="{PROPERTIES[11:]}"', CELL, None),
    "Properties last": (f"{LATTICE} energy=%E {PROPERTIES}", CELL, ENERGIES),
    "energy quoted": (f'{PLAIN} energy="%E"', CELL, ENERGIES),
    "energy None": (f"{PLAIN} energy=None", CELL, None),
    "energy nan": (f"{PLAIN} energy=nan", CELL, None),
    "energy whole": (f"{PLAIN} energy=-925", CELL, -925.0),
    "energy with an exponent": (f"{PLAIN} energy=-9.25e2", CELL, -925.0),
    "Energy": (f"{PLAIN} Energy=%E", CELL, ENERGIES),
    "d-energy beside": (f"{PLAIN} d-energy=3.0 energy=%E", CELL, ENERGIES),
    "energy beside Energy": (f"{PLAIN} energy=%E Energy=3", CELL, ENERGIES),
    "free_energy beside": (f"{PLAIN} free_energy=3 energy=%E", CELL, ENERGIES),
    "a text that holds a key": (f'{PLAIN} note="energy=yes pbc=F"', CELL, None),
    "a flag": (f"{PLAIN} relaxed energy=%E", CELL, ENERGIES),
    "words": (f"made by a program {PLAIN}", CELL, None),
    "escaped quote": (f'{PLAIN} note="a \\" b" energy=%E', CELL, ENERGIES),
    "JSON": (f'{PLAIN} info="_JSON {{\\"a\\": 1}}" energy=%E', CELL, ENERGIES),
    "equals sign in a value": (f"{PLAIN} uid=a=b energy=%E", CELL, ENERGIES),
    "other keys": (f'{FULL} virial="1 0 0 0 1 0 0 0 1" step=3 dipole="1 2 3"', CELL, ENERGIES),
    "cell beside Lattice": (f'{FULL} cell="1 1 1"', CELL, ENERGIES),
    "number of another alphabet": (f"{FULL} énergie=3", CELL, ENERGIES),
    "force": (f"{LATTICE} Properties=species:S:1:pos:R:3:force:R:3", CELL, None),
    "REF_forces": (
        f"{LATTICE} Properties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=%E energy=3",
        CELL,
        ENERGIES,
    ),
    "REF_forces, other energy": (
        f"{LATTICE} Properties=species:S:1:pos:R:3:REF_forces:R:3 energy=%E",
        CELL,
        None,
    ),
    "positions by name": (f"{LATTICE} Properties=species:S:1:positions:R:3:forces:R:3", CELL, None),
    "triclinic": (
        f'Lattice="{SIDE} 0 0 1.5 {SIDE} 0 0.5 -1 {SIDE}" {PROPERTIES}',
        np.array([[SIDE, 0, 0], [1.5, SIDE, 0], [0.5, -1, SIDE]]),
        None,
    ),
}

# comment line -> words of the refusal
REFUSED: dict[str, tuple[str, str]] = {
    "pbc T T F": (f'{PLAIN} pbc="T T F"', r"some directions only .*T T F.* are understood"),
    "pbc F F T": (f'{PLAIN} pbc="F F T"', "some directions only"),
    "pbc 1 1 0": (f'{PLAIN} pbc="1 1 0"', "some directions only"),
    "pbc t t t": (f'{PLAIN} pbc="t t t"', "pbc='t t t', not three of T and F"),
    "pbc yes": (f"{PLAIN} pbc=yes", "not three of T and F"),
    "pbc of two": (f'{PLAIN} pbc="T T"', "not read by ASE|not three of T and F"),
    "pbc 2": (f"{PLAIN} pbc=2", "not three of T and F"),
    "pbc without a value": (f"{PLAIN} pbc", "gives pbc without a value"),
    "pbc at the end": (f"{PLAIN} pbc=", "no value for 'pbc'"),
    "PBC": (f'{PLAIN} PBC="F F F"', "'PBC', which is not understood: is pbc meant"),
    "pbc without Lattice": (f'{PROPERTIES} pbc="T T T"', "periodic but has no lattice vectors"),
    "Lattice of zeros, pbc T": (
        f'Lattice="0 0 0 0 0 0 0 0 0" {PROPERTIES} pbc=T',
        "periodic but has no lattice vectors",
    ),
    "flat Lattice": (f'Lattice="7 0 0 0 8 0 0 0 0" {PROPERTIES}', "span no volume"),
    "Lattice of eight": (f'Lattice="7 0 0 0 7 0 0 0" {PROPERTIES}', "9-long"),
    "Lattice of three": (f'Lattice="7 7 7" {PROPERTIES}', "9-long"),
    "Lattice with nan": (f'Lattice="7 0 0 0 7 0 0 0 nan" {PROPERTIES}', "not finite"),
    "Lattice of words": (f'Lattice="a b c d e f g h i" {PROPERTIES}', "9-long"),
    "list of lists": (f"Lattice=[[7,0,0],[0,7,0],[0,0,7]] {PROPERTIES}", "goes on behind"),
    "lattice": (f'lattice="{NINE}" {PROPERTIES}', "'lattice', which is not understood: is Lattice"),
    "cell": (f'cell="{NINE}" {PROPERTIES}', "is Lattice meant"),
    "properties": (f"{LATTICE} properties=species:S:1:pos:R:3:forces:R:3", "is Properties meant"),
    "Lattice twice": (f"{LATTICE} {LATTICE} {PROPERTIES}", "gives Lattice twice"),
    "pbc twice": (f"{PLAIN} pbc=T pbc=F", "gives pbc twice"),
    "Properties twice": (f"{PLAIN} {PROPERTIES}", "gives Properties twice"),
    "open quote": (f'Lattice="{NINE} {PROPERTIES}', 'leaves " open'),
    "open quote behind": (f'{PLAIN} note="abc', 'leaves " open'),
    "apostrophe": (f"{PLAIN} note=it's pbc='F F F'", "has ' within a word"),
    "quotes that touch": (f'Lattice="{NINE}"pbc="F F F" {PROPERTIES}', "goes on behind"),
    "no key": (f'{PLAIN} ="3"', "a value without a key"),
    "energy without a value": (f"{LATTICE} energy= {PROPERTIES}", "no value for 'energy'"),
    "empty value": (f'{PLAIN} note="" energy=%E', "an empty value for .note."),
    "equals signs at the end": (f"{PLAIN} uid=a== energy=%E", "of 'uid' that ends in ="),
    "energy alone": (f"{PLAIN} energy", "energy='True', which is no number"),
    "energy of two": (f'{PLAIN} energy="1 2"', "which is no number"),
    "energy with a unit": (f"{PLAIN} energy=-1.5eV", "energy='-1.5eV', which is no number"),
    "energy in Fortran": (f"{PLAIN} energy=-1.5D0", "which is no number"),
    "energy twice": (f"{PLAIN} energy=-1 energy=-2", "more than one energy"),
    "energies of other cases": (f"{PLAIN} Energy=-1 ENERGY=-2", "more than one energy"),
    "energy infinite": (f"{PLAIN} energy=1e400", "not finite"),
    "JSON that is none": (f'{PLAIN} x="_JSON {{a"', "not read by ASE"),
    "stress of three": (f'{PLAIN} stress="1 2 3"', "not read by ASE"),
    "no forces": (
        f"{LATTICE} Properties=species:S:1:pos:R:3:velo:R:3",
        r"looked for a column forces, force, REF_forces, REF_force \(has species, pos, velo",
    ),
    "DFT_forces": (
        f"{LATTICE} Properties=species:S:1:pos:R:3:DFT_forces:R:3",
        "has no forces: looked for .* say --forces-key DFT_forces",
    ),
    "no comment": ("", "7 columns, not the 4|has no forces"),
    "pos twice": (f"{LATTICE} Properties=species:S:1:pos:R:3:pos:R:3", "'pos' twice"),
    "forces twice": (
        f"{LATTICE} Properties=species:S:1:forces:R:3:forces:R:3",
        "'forces' twice: name other columns of forces otherwise",
    ),
    "no positions": (
        f"{LATTICE} Properties=species:S:1:x:R:3:forces:R:3",
        "needs one property pos",
    ),
    "no species": (f"{LATTICE} Properties=name:S:1:pos:R:3:forces:R:3", "species:S:1 or Z:I:1"),
    "positions of text": (f"{LATTICE} Properties=species:S:1:pos:S:3:forces:R:3", "pos:R:3"),
    "forces of text": (f"{LATTICE} Properties=species:S:1:pos:R:3:forces:S:3", "has no forces"),
    "forces of two": (
        f"{LATTICE} Properties=species:S:1:pos:R:3:forces:R:2:x:R:1",
        "has no forces",
    ),
    "fx, fy, fz": (
        f"{LATTICE} Properties=species:S:1:pos:R:3:fx:R:1:fy:R:1:fz:R:1",
        "has no forces",
    ),
    "type X": (f"{LATTICE} Properties=species:S:1:pos:X:3:forces:R:3", "types R, I, S, L"),
    "small types": (f"{LATTICE} Properties=species:s:1:pos:r:3:forces:r:3", "types R, I, S, L"),
    "cut Properties": (f"{LATTICE} Properties=species:S:1:pos:R", "not name:type:count"),
    "count of letters": (f"{LATTICE} Properties=species:S:1:pos:R:x:forces:R:3", "name:type:count"),
    "too few columns": (f"{PLAIN}:charge:R:1", "has line 3 with 7 columns, not the 8"),
    "too many columns": (
        f"{LATTICE} Properties=species:S:1:forces:R:3",
        "needs one property pos:R:3",
    ),
    "Z of symbols": (
        f"{LATTICE} Properties=Z:I:1:pos:R:3:forces:R:3",
        "'O', no whole number, in Z",
    ),
    "forces in the comment": (
        f'{PLAIN} REF_forces="{" ".join(["1"] * 18)}"',
        "holds 2 columns of forces .* --forces-key forces",
    ),
}


def outcome(path: Path) -> Frames | str:
    """Frames of a file, or the words of its refusal."""
    try:
        return read_frames(path)
    except ValueError as error:
        return str(error)


def read_text(folder: Path, text: str, name: str = "a.xyz", **how: Any) -> Frames:
    """Frames of a text."""
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return read_frames(path, **how)


@pytest.mark.parametrize("case", READ)
def test_comments_are_read_as_they_are_meant(tmp_path: Path, case: str) -> None:
    comment, cell, energy = READ[case]
    meant(read_text(tmp_path, extended(comment)), cell=cell, energy=energy)


@pytest.mark.parametrize("case", REFUSED)
def test_comments_that_mean_something_else_are_refused(tmp_path: Path, case: str) -> None:
    comment, words = REFUSED[case]
    with pytest.raises(ValueError, match=words) as caught:
        read_text(tmp_path, extended(comment))
    said = str(caught.value)
    assert "\n" not in said
    assert str(tmp_path / "a.xyz") in said
    assert "frame 0 (line 2)" in said


@pytest.mark.parametrize("case", READ)
def test_comments_mean_what_ase_reads(tmp_path: Path, case: str) -> None:
    comment, _, energy = READ[case]
    ours = read_text(tmp_path, extended(comment))
    for k, atoms in enumerate(ase.io.read(tmp_path / "a.xyz", ":", format="extxyz")):
        assert np.array_equal(atoms.positions, ours.positions[k])
        assert atoms.numbers.tolist() == ours.numbers.tolist()
        periodic = atoms.pbc.all() and np.asarray(atoms.cell).any()
        assert np.allclose(np.asarray(atoms.cell) if periodic else OPEN, ours.cell[k])
        results = {} if atoms.calc is None else atoms.calc.results
        if "forces" in results:
            assert np.array_equal(results["forces"], ours.forces[k])
        if energy is not None and "energy" in results and "REF" not in comment:
            assert float(results["energy"]) == ours.energy[k]


# whole texts -> number of frames, or words of the refusal
WHOLE = extended(FULL)
ONE = frame(FULL)
TEXTS: dict[str, tuple[str, int | str]] = {
    "blank line between": (frame(FULL, 0) + "\n" + frame(FULL, 1), 2),
    "blank lines everywhere": ("\n \n" + frame(FULL, 0) + "\n\t\n\n" + frame(FULL, 1) + "\n\n", 2),
    "no newline at the end": (WHOLE[:-1], 4),
    "Windows": (WHOLE.replace("\n", "\r\n"), 4),
    "old Macintosh": (WHOLE.replace("\n", "\r"), 4),
    "byte order mark": ("\ufeff" + WHOLE, 4),
    "spaces around the count": (WHOLE.replace("6\nLattice", "  6 \nLattice"), 4),
    "small letters": (WHOLE.replace("\nO ", "\no ").replace("\nH ", "\nh "), 4),
    "numbers for symbols": (
        WHOLE.replace("species:S", "Z:I").replace("\nO ", "\n8 ").replace("\nH ", "\n1 "),
        4,
    ),
    "numbers beside symbols": (
        WHOLE.replace("species:S:1", "species:S:1:Z:I:1")
        .replace("\nO ", "\nO 8 ")
        .replace("\nH ", "\nH 1 "),
        4,
    ),
    "numbers against symbols": (
        WHOLE.replace("species:S:1", "species:S:1:Z:I:1")
        .replace("\nO ", "\nO 8 ")
        .replace("\nH ", "\nH 2 "),
        "line 5 with species H of atomic number 2",
    ),
    "a lone count": (WHOLE + "6\n", "ends inside frame 4, which begins in line 33"),
    "a lone count without newline": (WHOLE + "6", "ends inside frame 4"),
    "a count and a comment": (WHOLE + "6\n" + FULL + "\n", "ends inside frame 4"),
    "a torn frame": (WHOLE[: WHOLE.rindex("H ")], "ends inside frame 3"),
    "a torn row": (WHOLE[: WHOLE.rindex(" ")], "line 32 with 6 columns, not the 7"),
    "a torn number": (WHOLE[:-4], "ends inside frame 3"),
    "a torn frame, then blanks": (WHOLE[: WHOLE.rindex("H ")] + "\n\n\n", "ends inside frame 3"),
    "words between frames": (ONE + "hello\n" + ONE, "line 9 must hold the number of atoms"),
    "words at the end": (WHOLE + "# end\n", "line 33 must hold the number of atoms"),
    "zeros of a crash": (WHOLE + "\0\0\0\n", "line 33 must hold the number of atoms"),
    "VEC lines": (ONE + "VEC1 7 0 0\nVEC2 0 7 0\nVEC3 0 0 7\n", "must hold the number of atoms"),
    "count too small": (
        WHOLE.replace("6\nLattice", "5\nLattice", 1),
        "line 8 must hold the number",
    ),
    "count too large": (WHOLE.replace("6\nLattice", "7\nLattice", 1), "has line 9 with 1 columns"),
    "count and words": (WHOLE.replace("6\nLattice", "6 atoms\nLattice", 1), "line 1 must hold"),
    "count of a fraction": (WHOLE.replace("6\nLattice", "6.0\nLattice", 1), "line 1 must hold"),
    "count below zero": ("-1\n" + WHOLE, "line 1 must hold"),
    "count of another alphabet": (WHOLE.replace("6\nLattice", "٦\nLattice", 1), "line 1 must hold"),
    "huge count": (WHOLE.replace("6\nLattice", "999999999\nLattice", 1), "ends inside frame 0"),
    "no atoms": ("0\n\n" + WHOLE, "frame 0 has no atoms"),
    "nothing": ("", "holds no frame"),
    "blanks": ("\n\n", "holds no frame"),
    "stars": (WHOLE.replace(" 1.39645398", " ********", 1), "'[*]+', no number, in forces"),
    "Fortran exponent": (WHOLE.replace(" 1.39645398", " 1.39D0", 1), "'1.39D0', no number"),
    "nan": (WHOLE.replace(" 1.39645398", " nan", 1), "forces of frame 0 are not finite"),
    "renamed atoms": (WHOLE.replace("\nO ", "\nO1 "), "line 3 with species 'O1', no element"),
    "deuterium": (WHOLE.replace("\nH ", "\nD "), "species 'D', no element up to Bi"),
    "columns beyond": (WHOLE.replace("\nO ", "\nO 0 "), "line 3 with 8 columns, not the 7"),
    "atoms that change places": (
        ONE + ONE.replace("\nO ", "\nX ", 1).replace("\nH ", "\nO ", 1).replace("\nX ", "\nH "),
        "atoms of frame 1 are in another order",
    ),
    "forces of other names": (
        ONE + ONE.replace(":forces:", ":force:"),
        "frame 1 .* has its forces in force, frame 0 in forces",
    ),
    "forces in some": (
        ONE + ONE.replace(":forces:", ":velo:"),
        r"frame 1 \(line 10\) has no forces",
    ),
}


def test_the_texts_hold_what_they_replace() -> None:
    assert " 1.39645398" in WHOLE
    for case, (text, _) in TEXTS.items():
        assert text != WHOLE, case


@pytest.mark.parametrize("case", TEXTS)
def test_texts_are_read_whole_or_refused(tmp_path: Path, case: str) -> None:
    text, expected = TEXTS[case]
    if isinstance(expected, int):
        meant(read_text(tmp_path, text), count=expected)
        return
    with pytest.raises(ValueError, match=expected) as caught:
        read_text(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'a.xyz'}")
    assert "\n" not in str(caught.value)


def test_energies_of_some_frames(tmp_path: Path) -> None:
    text = frame(FULL, 0) + frame(PLAIN, 1) + frame(FULL, 2) + frame(f"{PLAIN} energy=None", 3)
    frames = read_text(tmp_path, text)
    assert np.isfinite(frames.energy).tolist() == [True, False, True, False]
    assert "energies in 2 of them" in describe(frames)


def test_cells_of_every_frame(tmp_path: Path) -> None:
    sizes = [SIDE, 8.0, 8.1, 8.2]
    text = "".join(
        frame(f'Lattice="{s} 0 0 0 {s} 0 0 0 {s}" {PROPERTIES}', k) for k, s in enumerate(sizes)
    )
    frames = read_text(tmp_path, text)
    assert frames.cell[:, 1, 1].tolist() == sizes
    assert "changing" in describe(frames)


@pytest.mark.parametrize("name", ["a.extxyz", "a.XYZ", "a.xyz.gz", "a.dat", "a"])
def test_names_and_packing(tmp_path: Path, name: str) -> None:
    data = WHOLE.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    meant(read_frames(tmp_path / name))
    torn = data[: len(data) * 2 // 5]
    (tmp_path / name).write_bytes(gzip.compress(torn) if name.endswith("gz") else torn)
    with pytest.raises(ValueError, match=r"ends inside frame|columns, not the"):
        read_frames(tmp_path / name)


def test_what_is_no_text_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(WHOLE.encode().replace(b"energy", b"\xe9nergy", 1))
    with pytest.raises(ValueError, match="line 2 is no text in UTF-8"):
        read_frames(tmp_path / "a.xyz")
    (tmp_path / "a.xyz").write_bytes(WHOLE.encode("utf-16"))
    with pytest.raises(ValueError, match="line 1 is no text in UTF-8"):
        read_frames(tmp_path / "a.xyz")
    (tmp_path / "a.xyz.gz").write_bytes(gzip.compress(WHOLE.encode())[:-20])
    with pytest.raises(ValueError, match="cannot be read"):
        read_frames(tmp_path / "a.xyz.gz")


# ----------------------------------------------------------------------------- forces' key


def two_columns(first: str, second: str, more: str = "") -> str:
    """Four frames with two columns of forces, the second one negative."""
    lines = extended(f"{LATTICE} Properties=species:S:1:pos:R:3:{first}:R:3:{second}:R:3{more}")
    out = []
    for line in lines.split("\n"):
        words = line.split()
        more_words = [f"{-float(v):.8f}" for v in words[4:]] if len(words) == 7 else []
        is_row = len(words) == 7 and words[0] in "OH"
        out.append(" ".join([*words, *more_words]) if is_row else line)
    return "\n".join(out)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("forces", "REF_forces"),
        ("REF_forces", "forces"),
        ("forces", "force"),
        ("a_force", "forces"),
    ],
)
def test_two_columns_of_forces_are_refused_until_one_is_named(
    tmp_path: Path, first: str, second: str
) -> None:
    text = two_columns(first, second)
    with pytest.raises(
        ValueError, match=rf"2 columns of forces \({first}, {second}\).*--forces-key"
    ):
        read_text(tmp_path, text)
    meant(read_text(tmp_path, text, forces_key=first), energy=None)
    assert np.allclose(read_frames(tmp_path / "a.xyz", forces_key=second).forces, -FORCES)


@pytest.mark.parametrize(
    ("key", "energy"),
    [
        ("forces", "energy"),
        ("REF_forces", "REF_energy"),
        ("DFT_forces", "DFT_energy"),
        ("dft_force", "dft_energy"),
        ("forces_pbe", "energy_pbe"),
        ("FORCES", "ENERGY"),
    ],
)
def test_the_energy_goes_with_the_forces(tmp_path: Path, key: str, energy: str) -> None:
    more = f" {energy}=%E other_energy=7"
    text = extended(f"{LATTICE} Properties=species:S:1:pos:R:3:{key}:R:3{more}")
    frames = read_text(tmp_path, text, forces_key=key)
    meant(frames)
    assert (key == "forces") == (f"energies from {energy}" not in describe(frames))


@pytest.mark.parametrize("key", ["dipole", "pos", "species", "note", ""])
def test_a_key_that_is_no_column_of_forces(tmp_path: Path, key: str) -> None:
    with pytest.raises(
        ValueError, match=rf"--forces-key {key} is no column .*species, pos, forces"
    ):
        read_text(tmp_path, extended(f"{FULL} note=3"), forces_key=key)


# --------------------------------------------------------------------------------- fuzzing

# the same cases in every run; INVARIANTZOO_FUZZ=1 draws others, and ten times as many
RANDOM = bool(os.environ.get("INVARIANTZOO_FUZZ"))
FUZZED = settings(
    max_examples=12000 if RANDOM else 1200,
    derandomize=not RANDOM,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
words = st.text("abcTFLP=\"'{}[] \\,:\t017.-_é\x0c", max_size=12)
keys = st.sampled_from(
    [
        "Lattice",
        "lattice",
        "pbc",
        "PBC",
        "Properties",
        "energy",
        "Energy",
        "note",
        "REF_forces",
        "a-b",
    ]
)
values = st.one_of(
    words,
    st.sampled_from(
        [
            f'"{NINE}"',
            f"{{{NINE}}}",
            '"T T T"',
            '"F F F"',
            "F",
            "species:S:1:pos:R:3:forces:R:3",
            "species:S:1:pos:R:3:forces:R:3:q:R:1",
            "-1.5",
            "None",
            '"_JSON [1]"',
        ]
    ),
)
items = st.tuples(keys, st.sampled_from(["=", " = ", " ", "= "]), values).map("".join)
comments = st.lists(st.one_of(items, words), max_size=5).map(" ".join)


@FUZZED
@given(comment=comments, with_columns=st.booleans())
def test_any_comment_is_refused_in_a_line_or_means_what_ase_reads(
    tmp_path_factory: pytest.TempPathFactory, comment: str, with_columns: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.xyz"
    comment = f"{comment} {PROPERTIES}" if with_columns else comment
    path.write_bytes(frame(comment.replace("\n", " ")).encode())
    frames = outcome(path)
    if isinstance(frames, str):
        assert frames.startswith(str(path))
        assert "\n" not in frames
        return
    atoms = ase.io.read(path, ":", format="extxyz")[0]
    assert np.array_equal(frames.positions[0], atoms.positions)
    assert np.array_equal(frames.forces[0], atoms.calc.results["forces"])
    periodic = atoms.pbc.all() and np.asarray(atoms.cell).any()
    assert periodic == bool(frames.cell.any())
    assert not periodic or np.array_equal(frames.cell[0], np.asarray(atoms.cell))
    energy = atoms.calc.results.get("energy", atoms.info.get("Energy"))
    if isinstance(energy, str) or energy is None:
        assert np.isnan(frames.energy[0])
    else:
        assert np.array_equal(frames.energy[0], float(energy), equal_nan=True)


@settings(FUZZED, max_examples=20000 if RANDOM else 2000)
@given(comment=comments)
def test_values_are_those_of_ase(comment: str) -> None:
    from ase.io.extxyz import key_val_str_to_dict

    try:
        pairs = key_values(comment)
    except ValueError:
        return
    try:
        info = key_val_str_to_dict(comment) if comment.strip() else {}
    except ValueError:
        return
    if {key for key, _ in pairs} != set(info):
        return  # the reader refuses it as ambiguous
    for key, value in dict(pairs).items():
        text = "T" if value is None else value.replace("\\", "\\\\").replace('"', '\\"')
        alone = key_val_str_to_dict(f'key="{text}"') if key not in ("Lattice", "uid") else None
        assert alone is None or str(alone.get("key")) == str(info[key])


@settings(FUZZED, max_examples=3000 if RANDOM else 300)
@given(data=st.data())
def test_a_cut_or_spoilt_file_is_refused_or_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.xyz"
    end = data.draw(st.integers(0, len(WHOLE)))
    path.write_bytes(WHOLE[:end].encode())
    boundaries = {len(WHOLE), len(WHOLE) - 1}
    at = 0
    for k in range(4):
        at += len(frame(FULL, k))
        boundaries |= {at, at - 1}
    frames = outcome(path)
    if isinstance(frames, str):
        assert frames.startswith(str(path))
        return
    assert end in boundaries
    meant(frames, count=len(frames.positions))


# --------------------------------------------------------------------------------------- ASE


def images(pbc: Any = True, energy: float | None = -1.0, fixed: bool = False) -> list[ase.Atoms]:
    """The two waters as ASE's Atoms."""
    out = []
    for x, f in zip(POSITIONS, FORCES, strict=True):
        atoms = ase.Atoms(SYMBOLS, positions=x, cell=CELL, pbc=pbc)
        known = {} if energy is None else {"energy": energy}
        atoms.calc = SinglePointCalculator(atoms, forces=f.copy(), **known)
        if fixed:
            atoms.set_constraint([FixAtoms([0, 2, 3]), Hookean(a1=1, a2=4, rt=0.5, k=5.0)])
        out.append(atoms)
    return out


@pytest.mark.parametrize("name", ["a.traj", "a.json", "a.db", "a.extxyz"])
def test_formats_of_ase(tmp_path: Path, name: str) -> None:
    ase.io.write(tmp_path / name, images())
    meant(read_frames(tmp_path / name), energy=-1.0)


@pytest.mark.parametrize("name", ["a.traj", "a.extxyz"])
def test_constraints_do_not_change_forces_or_energies(tmp_path: Path, name: str) -> None:
    constrained = images(fixed=True)
    assert not constrained[0].get_forces()[0].any()  # what ASE says of them
    assert constrained[0].get_potential_energy() > -1.0
    if name == "a.extxyz":
        constrained = [atoms.copy() for atoms in constrained]
        for atoms, held in zip(constrained, images(), strict=True):
            atoms.set_constraint(FixAtoms([0, 2, 3]))
            atoms.calc = SinglePointCalculator(
                atoms, energy=-1.0, forces=held.calc.results["forces"]
            )
    ase.io.write(tmp_path / name, constrained)
    meant(read_frames(tmp_path / name), energy=-1.0)
    meant(frames_of_atoms(constrained), energy=-1.0)


def test_frames_without_an_energy(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.traj", images(energy=None))
    meant(read_frames(tmp_path / "a.traj"), energy=None)
    meant(frames_of_atoms(images(energy=None)), energy=None)


@pytest.mark.parametrize("pbc", [[True, True, False], [False, False, True]])
def test_partly_periodic_atoms_are_refused(tmp_path: Path, pbc: list[bool]) -> None:
    ase.io.write(tmp_path / "a.traj", images(pbc))
    for read in (lambda: read_frames(tmp_path / "a.traj"), lambda: frames_of_atoms(images(pbc))):
        with pytest.raises(ValueError, match="frame 0 is periodic in some directions only"):
            read()


def test_atoms_in_open_space() -> None:
    meant(frames_of_atoms(images(False)), cell=OPEN, energy=-1.0)


def test_atoms_whose_forces_are_not_known() -> None:
    moved, bare = images(), images()
    moved[2].positions += 0.1
    bare[1].calc = None
    with pytest.raises(ValueError, match="frame 2 has no forces"):
        frames_of_atoms(moved)
    with pytest.raises(ValueError, match="frame 1 has no calculator"):
        frames_of_atoms(bare)
    with pytest.raises(ValueError, match="holds no frame"):
        frames_of_atoms([])


def test_files_of_ase_without_forces(tmp_path: Path) -> None:
    plain = images()
    for atoms in plain:
        atoms.calc = None
    ase.io.write(tmp_path / "a.traj", plain)
    with pytest.raises(ValueError, match=r"frame 0 has no forces \(has numbers, positions\)"):
        read_frames(tmp_path / "a.traj")
    with pytest.raises(
        ValueError, match=r"has no --forces-key DFT_forces \(has numbers, positions"
    ):
        read_frames(tmp_path / "a.traj", forces_key="DFT_forces")


def lammps(columns: str, length: float = 1.0, force: float = 1.0) -> str:
    """A dump of LAMMPS in units of so many Angstrom and eV/Angstrom."""
    places, pulls = POSITIONS[0] / length, FORCES[0] / force
    rows = "".join(
        f"{k + 1} {1 if s == 'O' else 2} {s} {' '.join(map(str, x))} {' '.join(map(str, f))}\n"
        for k, (s, x, f) in enumerate(zip(SYMBOLS, places, pulls, strict=True))
    )
    if "element" not in columns:
        rows = rows.replace(" O ", " ").replace(" H ", " ")
    box = f"0 {SIDE / length}\n" * 3
    return (
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n6\nITEM: BOX BOUNDS pp pp pp\n"
        f"{box}ITEM: ATOMS id type {columns}x y z fx fy fz\n{rows}"
    )


def test_a_dump_of_lammps_needs_elements(tmp_path: Path) -> None:
    meant(read_text(tmp_path, lammps("element "), "a.lammpstrj"), energy=None, count=1)
    with pytest.raises(ValueError, match="needs the column `element`"):
        read_text(tmp_path, lammps(""), "a.lammpstrj")


@pytest.mark.parametrize(
    ("style", "length", "force"),
    [("metal", 1, 1), ("real", 1, IN_EV["kcal"]), ("electron", BOHR, HARTREE_PER_BOHR)],
)
def test_a_dump_of_lammps_may_say_its_units(
    tmp_path: Path, style: str, length: float, force: float
) -> None:
    text = f"ITEM: UNITS\n{style}\n{lammps('element ', length, force)}"
    frames = read_text(tmp_path, text, "a.lammpstrj")
    meant(frames, energy=None, count=1)
    assert frames.units.endswith("(by the dump)")
    asked = read_text(tmp_path, text, "b.lammpstrj", units="angstrom-ev")
    assert np.allclose(asked.forces * force, frames.forces)  # what is asked for holds


def test_a_dump_of_lammps_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """What is left of its last number would be read as a number."""
    for left in (-1, -3, -60):
        with pytest.raises(ValueError, match="ends within a line: the file is cut"):
            read_text(tmp_path, lammps("element ")[:left], "a.lammpstrj")


def test_a_dump_of_lammps_in_units_of_no_length_is_refused(tmp_path: Path) -> None:
    text = f"ITEM: UNITS\nlj\n{lammps('element ')}"
    with pytest.raises(ValueError, match="units 'lj' of LAMMPS are none of metal, real, electron"):
        read_text(tmp_path, text, "a.lammpstrj")
    meant(read_text(tmp_path, text, "a.lammpstrj", units="angstrom-ev"), energy=None, count=1)


@pytest.mark.parametrize("name", ["a.pdf", "a.traj", "a.json", "OUTCAR", "a.cif", "a.db"])
@pytest.mark.parametrize("data", [b"", b"\x00\x01\x02" * 50, b"hello\n"])
def test_other_files_are_refused_in_a_line(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=name) as caught:
            read_frames(tmp_path / name)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------- .npz

BASE: dict[str, Any] = {
    "positions": POSITIONS,
    "forces": FORCES,
    "numbers": np.array([8, 8, 1, 1, 1, 1]),
    "cell": CELL,
    "energy": ENERGIES,
}

# The same crystal by vectors so oblique that rounding by them misses the nearest image of a bond.
OBLIQUE = np.array([[1, 0, 0], [0, 1, 0], [6, -7, 1.0]])

# arrays instead of the usual ones -> cell, energy
ARRAYS_READ: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "plain": ({}, CELL, ENERGIES),
    "single precision": ({"positions": POSITIONS.astype("f4")}, CELL, ENERGIES),
    "other byte order": ({"forces": FORCES.astype(">f8")}, CELL, ENERGIES),
    "Fortran order": ({"positions": np.asfortranarray(POSITIONS)}, CELL, ENERGIES),
    "energies as a column": ({"energy": ENERGIES[:, None]}, CELL, ENERGIES),
    "no energy": ({"energy": None}, CELL, None),
    "some energies": ({"energy": np.where([1, 0, 1, 0], ENERGIES, np.nan)}, CELL, "some"),
    "cells of every frame": ({"cell": np.repeat(CELL[None], 4, 0)}, CELL, ENERGIES),
    "three lengths": ({"cell": np.full(3, SIDE)}, CELL, ENERGIES),
    "open space": ({"cell": np.zeros((3, 3))}, OPEN, ENERGIES),
    "pbc F": ({"pbc": np.array([False] * 3)}, OPEN, ENERGIES),
    "pbc T": ({"pbc": np.array(True)}, CELL, ENERGIES),
    "small numbers": ({"numbers": np.array([8, 8, 1, 1, 1, 1], np.int8)}, CELL, ENERGIES),
    "whole floats": ({"numbers": np.array([8.0, 8, 1, 1, 1, 1])}, CELL, ENERGIES),
    "numbers of every frame": ({"numbers": np.tile([8, 8, 1, 1, 1, 1], (4, 1))}, CELL, ENERGIES),
    "owners": ({"h_owner": np.array([0, 0, 1, 1])}, CELL, ENERGIES),
    "owners in an oblique cell": (
        {"h_owner": np.array([0, 0, 1, 1]), "cell": OBLIQUE @ CELL},
        OBLIQUE @ CELL,
        ENERGIES,
    ),
}

ARRAYS_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no forces": ({"forces": None}, "has no 'forces': needed .--forces-key names another array"),
    "no cell": (
        {"cell": None},
        r"has no 'cell': needed \(has energy, forces, numbers, positions\)",
    ),
    "no frames": ({"positions": np.zeros((0, 6, 3))}, r"holds no frame: .* \(0, 6, 3\)"),
    "one frame flat": ({"positions": POSITIONS[0]}, r"positions have shape \(6, 3\), not \[frames"),
    "two dimensions": ({"positions": POSITIONS[..., :2]}, "positions have shape"),
    "a number": ({"positions": np.array(3.0)}, r"positions have shape \(\), not"),
    "fewer forces": ({"forces": FORCES[:3]}, r"forces have shape \(3, 6, 3\) for positions"),
    "forces of text": ({"forces": FORCES.astype(str)}, "forces holds <U.* not real numbers"),
    "complex forces": ({"forces": FORCES + 0j}, "not real numbers"),
    "truth values": ({"positions": POSITIONS > 0}, "not real numbers"),
    "objects": ({"forces": FORCES.astype(object)}, "is no .npz of plain arrays"),
    "infinite forces": ({"forces": np.where(FORCES == FORCES.max(), np.inf, FORCES)}, "not finite"),
    "all forces zero": ({"forces": 0 * FORCES}, "all forces are zero"),
    "fewer numbers": ({"numbers": np.array([8, 1, 1])}, r"numbers have shape \(3,\), not \[6\]"),
    "numbers below zero": ({"numbers": np.array([-8, 8, 1, 1, 1, 1])}, "atomic number -8 is none"),
    "number zero": ({"numbers": np.array([0, 8, 1, 1, 1, 1])}, "atomic number 0 is none of 1"),
    "number 100": ({"numbers": np.array([100, 8, 1, 1, 1, 1])}, r"number 100 is none .* 83 \(Bi\)"),
    "fractions": ({"numbers": np.array([8.5, 8, 1, 1, 1, 1])}, "numbers must be whole numbers"),
    "symbols": ({"numbers": np.array(SYMBOLS)}, "numbers holds <U1, not real numbers"),
    "numbers that change": ({"numbers": np.arange(24).reshape(4, 6) % 8 + 1}, "numbers have shape"),
    "six parameters": ({"cell": np.array([7, 7, 7, 90, 90, 90.0])}, r"cell has shape \(6,\)"),
    "lengths of frames": ({"cell": np.full((4, 3), SIDE)}, r"cell has shape \(4, 3\)"),
    "fewer cells": ({"cell": np.repeat(CELL[None], 3, 0)}, r"cell has shape \(3, 3, 3\)"),
    "a flat cell": ({"cell": np.diag([7.0, 7.0, 0.0])}, "frame 0 has lattice vectors that span no"),
    "cell with nan": ({"cell": np.full((3, 3), np.nan)}, "frame 0 its lattice vectors are not"),
    "pbc T T F": ({"pbc": np.array([True, True, False])}, "some directions only"),
    "pbc of words": ({"pbc": np.array(["T", "T", "T"])}, "pbc must be one or three truth values"),
    "pbc without cell": ({"pbc": np.array(True), "cell": np.zeros((3, 3))}, "no lattice vectors"),
    "fewer energies": ({"energy": ENERGIES[:3]}, r"energy has shape \(3,\), not \[4\]"),
    "one energy": ({"energy": np.array(-1.0)}, r"energy has shape \(\), not \[4\]"),
    "two energies each": ({"energy": np.ones((4, 2))}, r"energy has shape \(4, 2\)"),
    "infinite energy": ({"energy": np.array([1, 2, np.inf, 3])}, "energy of frame 2 is not finite"),
    "energies of text": ({"energy": ENERGIES.astype(str)}, "energy holds <U"),
    "splits of numbers": ({"split": np.arange(4)}, "split has shape .* of int64, not .4. names"),
    "fewer splits": ({"split": np.array(["train", "val"])}, r"split has shape \(2,\)"),
    "pbc of every frame": (
        {"pbc": np.ones((4, 3), bool)},
        r"pbc must be one or three truth values, not \[\[True, True, True\], ",
    ),
    "order with nan": (
        {"order": np.array([0, 1, np.nan, 3])},
        "order of frame 2 is not finite",
    ),
    "periodic and open frames": (
        {"cell": np.stack([CELL, CELL, 0 * CELL, CELL])},
        "frame 0 is periodic and frame 2 is in open space",
    ),
    "an owner of its own": (
        {"h_owner": np.array([0, 0, 1, 5])},
        "h_owner bonds hydrogen 5 to atom 5, 0 Angstrom away",
    ),
    "owners far away": (
        {"h_owner": np.array([1, 1, 0, 0])},
        "h_owner bonds hydrogen 2 to atom 1, .* at most 2.5 away",
    ),
    "fewer orders": ({"order": np.arange(3)}, r"order has shape \(3,\), not \[4\]"),
    "owners beyond": ({"h_owner": np.array([0, 0, 3, 9])}, "h_owner must hold 4 numbers of atoms"),
    "fewer owners": ({"h_owner": np.array([0, 0])}, "h_owner must hold 4 numbers of atoms"),
    "one atom": (
        {"positions": POSITIONS[:, :1], "forces": FORCES[:, :1], "numbers": np.array([8])},
        "a lone atom has no neighbour",
    ),
}


def write_arrays(path: Path, change: dict[str, Any]) -> Path:
    """The two waters with some arrays changed; None leaves one out."""
    arrays = {k: v for k, v in (BASE | change).items() if v is not None}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("case", ARRAYS_READ)
def test_arrays_are_read_as_they_are_meant(tmp_path: Path, case: str) -> None:
    change, cell, energy = ARRAYS_READ[case]
    frames = read_frames(write_arrays(tmp_path / "a.npz", change))
    if isinstance(energy, str):
        energy = change["energy"]
    meant(frames, cell=cell, energy=energy)


@pytest.mark.parametrize("vectors", [OBLIQUE, OBLIQUE[::-1], -OBLIQUE, np.eye(3)])
def test_the_nearest_image_is_found_however_oblique_the_cell(vectors: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    bond = rng.normal(size=(200, 3))
    bond /= np.linalg.norm(bond, axis=-1, keepdims=True)
    turns = rng.integers(-3, 4, bond.shape) @ CELL
    assert np.allclose(minimum_image(bond + turns, vectors @ CELL), bond, atol=1e-9)


@pytest.mark.parametrize("case", ARRAYS_REFUSED)
def test_other_arrays_are_refused_in_a_line(tmp_path: Path, case: str) -> None:
    change, words = ARRAYS_REFUSED[case]
    path = write_arrays(tmp_path / "a.npz", change)
    with pytest.raises(ValueError, match=words) as caught:
        read_frames(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_arrays_of_other_names(tmp_path: Path) -> None:
    change = {"forces": None, "energy": 7 + ENERGIES, "REF_forces": FORCES, "REF_energy": ENERGIES}
    path = write_arrays(tmp_path / "a.npz", change)
    meant(read_frames(path, forces_key="REF_forces"))
    with pytest.raises(ValueError, match="has no 'forces'"):
        read_frames(path)


def test_the_order_of_arrays(tmp_path: Path) -> None:
    order = np.array([2, 0, 3, 1])
    change = {
        "positions": POSITIONS[order],
        "forces": FORCES[order],
        "energy": ENERGIES[order],
        "order": order,
        "split": np.array(["train", "val"] * 2)[order],
    }
    frames = read_frames(write_arrays(tmp_path / "a.npz", change))
    meant(frames)
    assert frames.split.tolist() == ["train", "val"] * 2


def test_damaged_arrays_are_refused_or_read_as_they_were(tmp_path: Path) -> None:
    whole = write_arrays(tmp_path / "a.npz", {}).read_bytes()
    rng = np.random.default_rng(3)
    path = tmp_path / "b.npz"
    refused = 0
    for at in rng.integers(0, len(whole), 200):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.integers(8))]) + whole[at + 1 :])
        frames = outcome(path)
        if isinstance(frames, str):
            assert frames.startswith(str(path))
            refused += 1
        else:
            meant(frames)
    assert refused > 100
    for end in rng.integers(0, len(whole), 50):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"is no .npz of plain arrays"):
            read_frames(path)


# ------------------------------------------------------------------------------------- units


def argon(density: float = 0.0213, count: int = 32) -> dict[str, Any]:
    """Frames of liquid argon with Lennard-Jones forces."""
    side = (count / density) ** (1 / 3)
    rng = np.random.default_rng(7)
    lattice = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lattice = lattice[lattice.sum(1) % 2 == 0]  # cubic, faces centred
    x = lattice * side / 4 + rng.normal(0, 0.2, (6, count, 3))
    r = x[:, :, None] - x[:, None]
    r -= side * np.round(r / side)
    d2 = (r**2).sum(-1) + np.eye(count) * 1e9
    s6 = (3.405**2 / d2) ** 3
    f = (24 * 0.0103 * (2 * s6 * s6 - s6) / d2)[..., None] * r
    return {
        "positions": x,
        "forces": f.sum(2),
        "numbers": np.full(count, 18),
        "cell": side * np.eye(3),
    }


WATER = {key: BASE[key] for key in ("positions", "forces", "numbers", "cell")}
IN_UNITS = [
    "bohr-hartree",
    "angstrom-hartree-bohr",
    "bohr-ev",
    "bohr-ev-angstrom",
    "angstrom-ev-bohr",
    "nm-kj",
    "angstrom-kj",
    "angstrom-kcal",
    "bohr-rydberg",
    "angstrom-rydberg-bohr",
    "angstrom-hartree",
]


def in_units(data: dict[str, Any], units: str) -> dict[str, Any]:
    """The same data with their numbers in other units."""
    parsed = parse_units(units)
    assert parsed is not None
    length, energy, force = parsed.scales
    out = data | {
        "positions": data["positions"] / length,
        "cell": data["cell"] / length,
        "forces": data["forces"] / force,
    }
    return out | ({"energy": data["energy"] / energy} if "energy" in data else {})


def test_scales_of_units() -> None:
    parsed = parse_units("bohr-hartree")
    assert parsed is not None
    assert np.allclose(parsed.scales, (BOHR, HARTREE, HARTREE_PER_BOHR), rtol=1e-7)
    parsed = parse_units("angstrom-kcal")
    assert parsed is not None
    assert np.allclose(parsed.scales, (1, 1 / 23.0605, 1 / 23.0605), rtol=1e-5)
    parsed = parse_units("nm-kj")
    assert parsed is not None
    assert np.allclose(parsed.scales, (10, 1 / 96.4853, 1 / 964.853), rtol=1e-5)
    assert parse_units("auto") is None


@pytest.mark.parametrize("units", IN_UNITS)
def test_water_in_other_units_is_refused_until_they_are_said(tmp_path: Path, units: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **in_units(WATER | {"energy": ENERGIES}, units))
    with pytest.raises(ValueError, match=r"a.npz: .*perhaps .*; say --units") as caught:
        read_frames(path)
    assert units in str(caught.value) or "would do" in str(caught.value)
    frames = read_frames(path, units=units)
    meant(frames)
    assert "assumed" not in describe(frames)


def test_what_is_in_atomic_units_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **in_units(WATER, "bohr-hartree"))
    with pytest.raises(ValueError, match=r"in bohr; say --units \(bohr-hartree would do\)"):
        read_frames(path)
    np.savez(path, **in_units(WATER, "angstrom-hartree-bohr"))
    with pytest.raises(
        ValueError, match=r"Hartree/bohr .* --units \(angstrom-hartree-bohr would do"
    ):
        read_frames(path)


@pytest.mark.parametrize("units", ["", "angstrom", "ev", "bohr-ev-ev", "angstrom-joule", "a-b-c-d"])
def test_units_that_are_none(tmp_path: Path, units: str) -> None:
    path = write_arrays(tmp_path / "a.npz", {})
    with pytest.raises(
        ValueError, match=r"units .* must be auto, LENGTH-ENERGY or LENGTH-ENERGY-L"
    ):
        read_frames(path, units=units)


def test_liquid_argon_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **argon())
    assert "no energies" in describe(read_frames(tmp_path / "a.npz"))
    for units in ("bohr-hartree", "angstrom-hartree-bohr", "bohr-ev", "bohr-ev-angstrom", "nm-kj"):
        np.savez(tmp_path / "b.npz", **in_units(argon(), units))
        with pytest.raises(ValueError, match="say --units"):
            read_frames(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("symbol", "structure", "side"),
    [
        ("Cu", "fcc", 3.61),
        ("Na", "bcc", 4.23),
        ("Cs", "bcc", 6.14),
        ("Si", "diamond", 5.43),
        ("NaCl", "rocksalt", 5.64),
        ("W", "bcc", 3.16),
        ("Pb", "fcc", 4.95),
        ("C", "diamond", 3.57),
    ],
)
def test_solids_are_read_and_their_bohr_refused(
    tmp_path: Path, symbol: str, structure: str, side: float
) -> None:
    from ase.build import bulk

    atoms = bulk(symbol, structure, a=side) * (2, 2, 1)
    rng = np.random.default_rng(0)
    x = atoms.positions + rng.normal(0, 0.06, (5, len(atoms), 3))
    data = {
        "positions": x,
        "forces": rng.normal(0, 0.5, x.shape),
        "numbers": atoms.numbers,
        "cell": np.asarray(atoms.cell),
    }
    np.savez(tmp_path / "a.npz", **data)
    assert len(read_frames(tmp_path / "a.npz").positions) == 5
    np.savez(tmp_path / "b.npz", **in_units(data, "bohr-hartree"))
    with pytest.raises(ValueError, match="perhaps positions are in bohr; say --units"):
        read_frames(tmp_path / "b.npz")


def test_molecules_stretched_apart_are_read(tmp_path: Path) -> None:
    d = np.linspace(0.9, 4.0, 40)
    x = np.zeros((40, 2, 3))
    x[:, 1, 0] = d
    f = np.zeros_like(x)
    f[:, 1, 0] = -9.8 * (1 - np.exp(-2.7 * (d - 1.1))) * np.exp(-2.7 * (d - 1.1)) * 5.4
    f[:, 0] = -f[:, 1]
    np.savez(tmp_path / "a.npz", positions=x, forces=f.clip(-8, 8), numbers=[7, 7], cell=OPEN)
    assert read_frames(tmp_path / "a.npz").positions.shape == (40, 2, 3)


def test_forces_with_the_sign_of_a_gradient_get_a_hint(tmp_path: Path) -> None:
    meant(read_frames(write_arrays(tmp_path / "a.npz", {})))
    assert "gradient" not in describe(read_frames(tmp_path / "a.npz"))
    frames = read_frames(write_arrays(tmp_path / "b.npz", {"forces": -FORCES}))
    assert np.array_equal(frames.forces, -FORCES)
    assert "forces have the sign of a gradient" in describe(frames)


def test_two_atoms_at_one_place(tmp_path: Path) -> None:
    x = POSITIONS.copy()
    x[:, 5] = x[:, 4] + 0.01
    with pytest.raises(ValueError, match=r"two atoms are 0.0173 Angstrom apart"):
        read_frames(write_arrays(tmp_path / "a.npz", {"positions": x}))


# ---------------------------------------------------------------------------------- commands


def test_what_was_read_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    (tmp_path / "a.xyz").write_text(two_columns("forces", "REF_forces", " REF_energy=%E"))
    command = ["forces", "water-pair", str(tmp_path / "a.xyz"), "--forces-key", "REF_forces"]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["frames"] == 4
    assert err.count("\n") == 1
    for word in (
        "4 frames of 6 atoms (H4 O2)",
        "periodic in 7.826 x 7.826 x 7.826 Å",
        "in Angstrom, eV/Angstrom (assumed)",
        "energies",
        "forces from REF_forces, energies from REF_energy",
    ):
        assert word in err


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        (WHOLE + "6\n", [], "ends inside frame 4"),
        (two_columns("forces", "REF_forces"), [], "--forces-key forces"),
        (WHOLE, ["--forces-key", "x"], "--forces-key x is no column"),
        (WHOLE, ["--units", "x"], "units 'x' must be auto"),
        (ONE, ["--split", "val"], "has no frame of split 'val' (has train)"),
        (WHOLE, ["--units", "bohr-ev-parsec"], "units 'bohr-ev-parsec' must be auto"),
    ],
)
@pytest.mark.parametrize("command", ["forces", "fit"])
def test_a_refusal_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    text: str,
    more: list[str],
    words: str,
) -> None:
    (tmp_path / "a.xyz").write_text(text)
    line = {
        "forces": ["forces", "water-pair", str(tmp_path / "a.xyz"), "--json"],
        "fit": ["fit", str(tmp_path / "a.xyz"), "--out", str(tmp_path / "m.npz"), "--json"],
    }
    if command == "fit" and "--split" in more:
        more = []
    assert main([*line[command], *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "m.npz").exists()


def test_forces_of_a_file_in_bohr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    np.savez(tmp_path / "a.npz", **WATER)
    np.savez(tmp_path / "b.npz", **in_units(WATER, "bohr-hartree"))
    reports = []
    for name, more in (("a", []), ("b", ["--units", "bohr-hartree"])):
        assert main(["forces", "water-pair", str(tmp_path / f"{name}.npz"), "--json", *more]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    first, second = (report["rmse_mev_per_angstrom"]["all"] for report in reports)
    assert math.isclose(first, second, rel_tol=1e-6)
