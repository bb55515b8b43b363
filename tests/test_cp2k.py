"""Runs of CP2K are read as CP2K meant them, or refused in one line with file and line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frame_texts import (
    CELL,
    ENERGIES,
    FORCES,
    LATTICE,
    POSITIONS,
    SIDE,
    cp2k_block,
    deck,
    frc,
    pos,
    run,
    title,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invariantzoo.envs.core.physics.units import BOHR, HARTREE, HARTREE_PER_BOHR
from invariantzoo.training.molecules.cp2k_facts import cell_and_elements
from invariantzoo.training.molecules.cp2k_input import read_input, unit
from invariantzoo.training.molecules.frames import Frames, describe, read_frames

OPEN = np.zeros((3, 3))


def cell_in(folder: Path, text: str, before: str = "", files: dict[str, str] | None = None) -> Any:
    """The cell of an input."""
    for name, content in (files or {}).items():
        (folder / name).write_text(content)
    path = folder / "w.inp"
    path.write_text(deck(text, before))
    cell, _ = cell_and_elements(read_input(path), folder)
    assert cell is not None
    return cell.vectors


# what stands in &CELL, what stands before -> the cell that CP2K 2023.1 printed for it
CELLS: dict[str, tuple[str, str, Any]] = {
    "plain": ("ABC 7.826 7.826 7.826", "", [7.826, 7.826, 7.826]),
    "small letters": ("abc 7 8 9", "", [7, 8, 9]),
    "one unit": ("ABC [pm] 782.6 782.6 782.6", "", [7.826, 7.826, 7.826]),
    "units that change": ("ABC [pm] 782.6 [angstrom] 7 [bohr] 14", "", [7.826, 7, 7.4085]),
    "a unit for the last": ("ABC 7 8 [bohr] 9", "", [7, 8, 4.7626]),
    "nanometres": ("ABC [nm] .7 .8 .9", "", [7, 8, 9]),
    "metres": ("ABC [m] 7e-10 8e-10 9e-10", "", [7, 8, 9]),
    "atomic units": ("ABC [au_l] 14 14 14", "", [7.4085, 7.4085, 7.4085]),
    "capitals": ("ABC [ANGSTROM] 7 8 9", "", [7, 8, 9]),
    "product of units": ("ABC [angstrom*angstrom/angstrom] 7 8 9", "", [7, 8, 9]),
    "fraction": ("ABC 15.652/2 7.826 7.826", "", [7.826, 7.826, 7.826]),
    "product": ("ABC 2*3.5 7 7", "", [7, 7, 7]),
    "fractions": ("ABC 14/2.0 8 18/2/1", "", [7, 8, 9]),
    "Fortran": ("ABC 0.78D+01 78D-1 7.8", "", [7.8, 7.8, 7.8]),
    "small Fortran": ("ABC 0.78d+01 78e-1 .78E1", "", [7.8, 7.8, 7.8]),
    "fraction in Fortran": ("ABC 1.4D1/2d0 8 9", "", [7, 8, 9]),
    "signs and points": ("ABC 7E0 8.D0 +9", "", [7, 8, 9]),
    "commas": ("ABC 7,8,9", "", [7, 8, 9]),
    "equals sign": ("ABC = 7 8 9", "", [7, 8, 9]),
    "colons": ("ABC: 7;8:9", "", [7, 8, 9]),
    "quotes": ('ABC "7" 8 9', "", [7, 8, 9]),
    "tabs": ("\tABC\t7\t8\t9", "", [7, 8, 9]),
    "comments": ("! [bohr]\nABC 7 8 9 ! [bohr]\n# ABC 1 1 1", "", [7, 8, 9]),
    "continued": ("ABC 7 \\\n 8 9", "", [7, 8, 9]),
    "continued with comments": ("ABC 7 8 \\ ! more\n# c\n 9", "", [7, 8, 9]),
    "ABC before A, B, C": ("ABC 7 8 9\nA 1 0 0\nB 0 1 0\nC 0 0 1", "", [7, 8, 9]),
    "angles": (
        "ABC 7 8 9\nALPHA_BETA_GAMMA 70 80 100",
        "",
        [[7, 0, 0], [-1.3892, 7.8785, 0], [1.5628, 3.4012, 8.185]],
    ),
    "angles first, in radian": (
        "ANGLES [rad] 1.2 1.3 1.4\nABC 7 8 9",
        "",
        [[7, 0, 0], [1.36, 7.884, 0], [2.407, 2.894, 8.175]],
    ),
    "hexagonal": (
        "ABC 7 7 9\nALPHA_BETA_GAMMA 90 90 120",
        "",
        [[7, 0, 0], [-3.5, 6.0622, 0], [0, 0, 9]],
    ),
    "vectors": ("A 1 7 0\nB 0 8 1\nC 1 0 9", "", [[1, 7, 0], [0, 8, 1], [1, 0, 9]]),
    "small vectors": ("a 7 0 0\nb 0 8 0\nc 0 0 9", "", [7, 8, 9]),
    "vectors and units": ("A [pm] 700 0 0\nB 0 8 0\nC 0 0 [nm] 0.9", "", [7, 8, 9]),
    "angles without lengths": ("A 7 0 0\nB 0 8 0\nC 0 0 9\nANGLES 80 80 80", "", [7, 8, 9]),
    "multiple": ("ABC 7 8 9\nMULTIPLE_UNIT_CELL 2 1 1", "", [14, 8, 9]),
    "reference first": ("&CELL_REF\n  ABC 8.5 8.5 8.5\n&END CELL_REF\nABC 7 8 9", "", [7, 8, 9]),
    "reference last": ("ABC 7 8 9\n&CELL_REF\n  ABC 8.5 8.5 8.5\n&END", "", [7, 8, 9]),
    "periodic": ("ABC 7 8 9\nPERIODIC xyz", "", [7, 8, 9]),
    "not periodic": ("PERIODIC none\nABC 7 8 9", "", [0, 0, 0]),
    "symmetry of the cell": ("ABC 7 8 9\nSYMMETRY ORTHORHOMBIC", "", [7, 8, 9]),
    "cubic": ("ABC 7 7 7\nSYMMETRY cubic", "", [7, 7, 7]),
    "hexagonal of 60": (
        "ABC 7 7 9\nALPHA_BETA_GAMMA 90 90 60\nSYMMETRY HEXAGONAL",
        "",
        [[7, 0, 0], [3.5, 6.0622, 0], [0, 0, 9]],
    ),
    "monoclinic": (
        "ABC 7 8 9\nANGLES 90 100 90\nSYMMETRY MONOCLINIC",
        "",
        [[7, 0, 0], [0, 8, 0], [-1.5628, 0, 8.8633]],
    ),
    "variable": ("ABC ${L} $L ${L}", "@SET L 7.5", [7.5, 7.5, 7.5]),
    "variable of three": ("ABC ${L}", "@SET L 7.5 8.5 9.5", [7.5, 8.5, 9.5]),
    "variable in a product": ("ABC 2*${L} ${L}/2 9", "@SET L 7.5", [15, 3.75, 9]),
    "variable of a variable": ("ABC ${M} 8 9", "@SET L 7.5\n@SET M ${L}*2", [15, 8, 9]),
    "variable set again": ("ABC ${L} 8 9", "@SET L 7.5\n@set L 8", [8, 8, 9]),
    "default of a variable": ("ABC ${L-7.25} 8 9", "", [7.25, 8, 9]),
    "set within": ("   @SET L 7\nABC ${L} 8 9", "", [7, 8, 9]),
    "if not": ("@IF 0\nABC 1 1 1\n@ENDIF\nABC 7 8 9", "", [7, 8, 9]),
    "if": ("@IF 1\nABC 7 8 9\n@ENDIF", "", [7, 8, 9]),
    "if equal": (
        "@IF (${L} == 7)\nABC 7 8 9\n@ENDIF\n@IF ( ${L} /= 7 )\nABC 6 6 6\n@ENDIF",
        "@SET L 7",
        [7, 8, 9],
    ),
    "if in if": ("@IF 0\n@IF 0\nABC 1 1 1\n@ENDIF\nABC 7 8 9\n@ENDIF", "", [7, 8, 9]),
}

# what stands in &CELL, what stands before -> words of the refusal
CELLS_REFUSED: dict[str, tuple[str, str, str]] = {
    "two directions": ("ABC 7 8 9\nPERIODIC XY", "", "line 8: PERIODIC XY: periodic in some dir"),
    "no directions": (
        "ABC 7 8 9\nPERIODIC ZYX",
        "",
        r"PERIODIC ZYX is not understood \(XYZ or NONE",
    ),
    "unknown keyword": (
        "ABC 7 8 9\nFOO 3",
        "",
        r"line 8: FOO 3 is not understood .*known: ABC, ALPHA",
    ),
    "unknown section": ("ABC 7 8 9\n&FOO\n&END", "", "line 8: &FOO is not understood in &CELL"),
    "nothing": ("PERIODIC XYZ", "", "line 6: &CELL has neither ABC nor A, B and C nor CELL_FILE"),
    "two vectors": ("A 7 0 0\nB 0 8 0", "", "needs all of A, B and C"),
    "two lengths": ("ABC 7 8", "", "line 7: ABC 7 8: 3 numbers are needed"),
    "four lengths": ("ABC 7 8 9 10", "", "3 numbers are needed"),
    "given twice": ("ABC 7 8 9\nABC 7 8 9", "", "line 8: ABC is given twice in &CELL"),
    "angles twice": ("ABC 7 8 9\nANGLES 90 90 90\nALPHA_BETA_GAMMA 90 90 80", "", "given as well"),
    "letters": ("ABC a b c", "", "line 7: ABC a b c: 'a' is no number, product or fraction"),
    "brackets": ("ABC (14/2) 8 9", "", "is no number"),
    "function": ("ABC SQRT(49) 8 9", "", "is no number"),
    "infinite": ("ABC inf 8 9", "", "is no number"),
    "by zero": ("ABC 7/0 8 9", "", "'7/0' divides by zero"),
    "two commas": ("ABC 7,,8 9", "", "stray ,"),
    "single quotes": ("ABC '7' 8 9", "", "is no number"),
    "unit unknown": ("ABC [A] 7 8 9", "", r"unit 'A' is not known \(of length: angstrom, bohr"),
    "unit of another kind": ("ABC [K_e] 7 8 9", "", "none of length"),
    "unit with spaces": ("ABC [ pm ] 7 8 9", "", "is no number"),
    "unit at the end": ("ABC 7 8 9 [pm]", "", "3 numbers are needed"),
    "flat": ("A 7 0 0\nB 14 0 0\nC 0 0 9", "", "line 6: the vectors of &CELL span no volume"),
    "impossible angles": ("ABC 7 8 9\nANGLES 10 10 170", "", "line 8: angles .* span no cell"),
    "angle of zero": ("ABC 7 8 9\nANGLES 90 90 0", "", "between 0 and 180"),
    "multiple of none": ("ABC 7 8 9\nMULTIPLE_UNIT_CELL 2 1 0", "", "whole numbers of at least 1"),
    "another symmetry": ("ABC 7 8 9\nSYMMETRY CUBIC", "", "line 8: SYMMETRY CUBIC is not that of"),
    "hexagonal of 120": ("ABC 7 7 9\nANGLES 90 90 120\nSYMMETRY HEXAGONAL", "", "is not that of"),
    "unknown symmetry": (
        "ABC 7 8 9\nSYMMETRY ROUND",
        "",
        r"not understood \(known: NONE, TRICLINIC",
    ),
    "variable not set": ("ABC ${L} 8 9", "@SET l 7", "line 7: ABC .*: the variable is not set"),
    "variable not closed": ("ABC ${L 8 9", "@SET L 7", "} is missing"),
    "variable without value": ("ABC ${L} 8 9", "@SET L", "line 1: @SET needs a name and a value"),
    "comment in a variable": ("ABC ${L} 8 9", "@SET L 7 ! side", "3 numbers are needed"),
    "condition not closed": ("@IF 0\nABC 7 8 9", "", "line 7: @IF has no @ENDIF in its file"),
    "condition not set": ("@IF ${L}\nABC 7 8 9\n@ENDIF", "", "the variable is not set"),
    "dropped by CP2K": ("ABC 7 8 9\nPERIODIC NONE ! me@home", "", "line 8: .*dropped by CP2K"),
    "include missing": ("@INCLUDE cell.inc\nABC 7 8 9", "", "line 7: the included file cell.inc"),
    "include at the top": ("ABC 7 8 9", "@INCLUDE more.inc", "line 1: the included file more.inc"),
    "wrong end": ("ABC 7 8 9\n&END SUBSYS", "", "line 8: &END SUBSYS closes &CELL"),
    "never ends": ("ABC 7 8 9\n&CELL_REF\nABC 7 8 9", "", "ends inside &|&END"),
    "cell file missing": (
        "CELL_FILE_NAME a.cell",
        "",
        "line 7: CELL_FILE_NAME a.cell: there is no",
    ),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells_are_those_that_cp2k_prints(tmp_path: Path, case: str) -> None:
    text, before, expected = CELLS[case]
    expected = np.array(expected, float)
    expected = np.diag(expected) if expected.ndim == 1 else expected
    assert np.allclose(cell_in(tmp_path, text, before), expected, atol=6e-4)


@pytest.mark.parametrize("case", CELLS_REFUSED)
def test_cells_that_are_not_understood_are_refused(tmp_path: Path, case: str) -> None:
    text, before, words = CELLS_REFUSED[case]
    with pytest.raises(ValueError, match=words) as caught:
        cell_in(tmp_path, text, before)
    assert str(caught.value).startswith(f"{tmp_path / 'w.inp'}")
    assert "\n" not in str(caught.value)


def test_included_files(tmp_path: Path) -> None:
    files = {"a.inc": "@SET L 7\n@INCLUDE 'b.inc'\n", "b.inc": "ABC ${L} 8 9\n"}
    assert np.allclose(cell_in(tmp_path, "@include a.inc", "", files), np.diag([7, 8, 9]))
    files = {"a.inc": "@INCLUDE a.inc\n"}
    with pytest.raises(ValueError, match=r"a.inc: line 1: a.inc includes itself"):
        cell_in(tmp_path, "@INCLUDE a.inc", "", files)


def test_cells_of_files(tmp_path: Path) -> None:
    rows = "# Step Time Ax ...\n 0 0.0 6 0 0 0 6 0 0 0 6 216\n 5 2.5 7 0 0 0 8 0 0 0 9 504\n"
    assert np.allclose(
        cell_in(tmp_path, "CELL_FILE_NAME a.cell", "", {"a.cell": rows}), np.diag([7, 8, 9])
    )
    xsc = {"a.xsc": "1 7 0 0 0 8 0 0 0 9\n"}
    text = "CELL_FILE_NAME a.xsc\nCELL_FILE_FORMAT XSC"
    assert np.allclose(cell_in(tmp_path, text, "", xsc), np.diag([7, 8, 9]))
    with pytest.raises(ValueError, match="CELL_FILE_FORMAT CIF: cells in this format are not read"):
        cell_in(tmp_path, "CELL_FILE_NAME a.xsc\nCELL_FILE_FORMAT CIF", "", xsc)
    with pytest.raises(ValueError, match="holds no nine numbers"):
        cell_in(tmp_path, "CELL_FILE_NAME a.xsc", "", {"a.xsc": "nothing\n"})


def test_units_of_forces() -> None:
    for text, value in {
        "hartree*bohr^-1": HARTREE_PER_BOHR,
        "hartree/bohr": HARTREE_PER_BOHR,
        "eV*angstrom^-1": 1.0,
        "angstrom^-1*ev": 1.0,
        "kcalmol*angstrom^-1": 1 / 23.0605,
        "kjmol/nm": 1 / 964.853,
        "au_f": HARTREE_PER_BOHR,
        "newton": 6.241509e8,
        "Ry*bohr^-1": HARTREE_PER_BOHR / 2,
    }.items():
        assert np.isclose(unit(text, "force"), value, rtol=1e-5), text
    for text in ("hartree", "hartree*bohr", "bohr", "internal_cp2k", "", "hartree*bohr^-1.0"):
        with pytest.raises(ValueError, match="unit"):
            unit(text, "force")


# ---------------------------------------------------------------------------------- folders


def meant(frames: Frames, steps: list[int] | None = None, cell: Any = CELL) -> None:
    """Compare frames with the two waters at some steps."""
    steps = [0, 1, 2, 3] if steps is None else steps
    at = np.array(steps) % 4
    assert np.allclose(frames.positions, POSITIONS[at], atol=1e-6)
    assert np.allclose(frames.forces, FORCES[at], atol=1e-6)
    assert np.allclose(frames.energy, ENERGIES[at], atol=1e-6)
    assert np.allclose(frames.cell, cell, atol=1e-6)
    assert frames.numbers.tolist() == [8, 8, 1, 1, 1, 1]


P = [pos(k) for k in range(4)]
F = [frc(k) for k in range(4)]
ALL_P, ALL_F = "".join(P), "".join(F)


def printed(section: str) -> str:
    """A &MOTION with a print section."""
    return f"&MOTION\n  &PRINT\n    {section}\n  &END PRINT\n&END MOTION"


def ensemble(name: str) -> str:
    """A &MOTION of an ensemble."""
    return f"&MOTION\n  &MD\n    ENSEMBLE {name}\n  &END MD\n&END MOTION"


def cells(*sizes: float) -> str:
    """A *.cell file."""
    rows = [
        f"{k:8d}{0.5 * k:12.3f} {s} 0 0 0 {s} 0 0 0 {s} {s**3:.6f}" for k, s in enumerate(sizes)
    ]
    return "\n".join(["#   Step   Time [fs]       Ax [Angstrom] ...", *rows, ""])


def ext(k: int, values: np.ndarray, name: str = "pos", more: str = "") -> str:
    """A frame as CP2K writes it with FORMAT EXTXYZ."""
    energy = ENERGIES[k] / HARTREE
    head = (
        f'{LATTICE} Properties=species:S:1:{name}:R:3 pbc="T T T" Step={k} Time={0.5 * k:.3f} '
        f"Energy={energy:.10f}{more}"
    )
    return cp2k_block(values, head)


ABC = f"ABC {SIDE} {SIDE} {SIDE}"
EXT_P = "".join(ext(k, POSITIONS[k]) for k in range(4))
EXT_F = "".join(ext(k, FORCES[k] / HARTREE_PER_BOHR, "force") for k in range(4))

# files in the folder -> steps that are read, and what is said
RUNS: dict[str, tuple[dict[str, Any], list[int], str]] = {
    "plain": ({}, [0, 1, 2, 3], "energies"),
    "no newline at the end": ({"w-pos-1.xyz": ALL_P[:-1]}, [0, 1, 2, 3], "energies"),
    "torn at the end": (
        {"w-pos-1.xyz": ALL_P[:-90], "w-frc-1.xyz": "".join(F[:3])},
        [0, 1, 2],
        "1 frame left out (1 torn)",
    ),
    "torn number at the end": ({"w-frc-1.xyz": ALL_F[:-4]}, [0, 1, 2], "2 frames left out (1 torn"),
    "torn, then gone on": (
        {"w-pos-1.xyz": P[0] + P[1][:200] + "\n" + P[1] + P[2] + P[3]},
        [0, 1, 2, 3],
        "1 torn",
    ),
    "torn without newline, then gone on": (
        {"w-pos-1.xyz": P[0] + P[1][:200] + P[1] + P[2] + P[3]},
        [0, 1, 2, 3],
        "1 torn",
    ),
    "torn in a title": (
        {"w-pos-1.xyz": P[0] + "       6\n i =\n" + P[1] + P[2] + P[3]},
        [0, 1, 2, 3],
        "1 torn",
    ),
    "blank lines": (
        {"w-pos-1.xyz": "\n" + "\n".join(P), "w-frc-1.xyz": "\n\n".join(F)},
        [0, 1, 2, 3],
        "energies",
    ),
    "zeros of a crash": (
        {"w-pos-1.xyz": P[0] + "\0" * 40 + "\n" + "".join(P[1:])},
        [0, 1, 2, 3],
        "1 torn",
    ),
    "stars in a column": (
        {"w-frc-1.xyz": F[0] + F[1].replace(F[1].split()[-1], "*" * 10) + F[2] + F[3]},
        [0, 2, 3],
        "2 frames left out (1 torn, 1 positions without forces)",
    ),
    "stars in an energy": (
        {"w-pos-1.xyz": "".join(pos(k, title(k)) for k in range(4))},
        [0, 1, 2, 3],
        "energies",
    ),
    "forces every other step": (
        {"w-frc-1.xyz": F[0] + F[2]},
        [0, 2],
        "2 frames left out (2 positions without forces)",
    ),
    "positions every other step": (
        {"w-pos-1.xyz": P[1] + P[3]},
        [1, 3],
        "2 frames left out (2 forces without positions)",
    ),
    "steps of their own": (
        {"w-pos-1.xyz": P[0] + P[1] + P[3], "w-frc-1.xyz": F[1] + F[2] + F[3]},
        [1, 3],
        "2 frames left out (1 positions without forces, 1 forces without positions)",
    ),
    "no time": (
        {
            "w-pos-1.xyz": "".join(
                pos(k, f" i = {k}, E = {ENERGIES[k] / HARTREE:.10f}") for k in range(4)
            ),
            "w-frc-1.xyz": "".join(
                frc(k, f" i = {k}, E = {ENERGIES[k] / HARTREE:.10f}") for k in range(4)
            ),
        },
        [0, 1, 2, 3],
        "energies",
    ),
    "kinds": (
        {
            "w-pos-1.xyz": ALL_P.replace(" O ", " O1 ").replace(" H ", " Hw "),
            "w-frc-1.xyz": ALL_F.replace(" O ", " O1 ").replace(" H ", " Hw "),
            "w.inp": deck(ABC).replace(
                "    &COORD", "    &KIND HW\n      ELEMENT H\n    &END\n    &COORD"
            ),
        },
        [0, 1, 2, 3],
        "energies",
    ),
    "extended XYZ": (
        {"w-pos-1.xyz": EXT_P, "w-frc-1.xyz": EXT_F, "w.inp": None},
        [0, 1, 2, 3],
        "Hartree/bohr (assumed)",
    ),
    "extended XYZ by its suffix": (
        {
            "w-pos-1.xyz": None,
            "w-frc-1.xyz": None,
            "w-pos-1.extxyz": EXT_P,
            "w-frc-1.extxyz": EXT_F,
        },
        [0, 1, 2, 3],
        "(by w.inp)",
    ),
    "extended XYZ every other step": (
        {"w-pos-1.xyz": EXT_P, "w-frc-1.xyz": F[0] + F[2]},
        [0, 2],
        "2 positions without forces",
    ),
    "positions in bohr": (
        {
            "w-pos-1.xyz": "".join(pos(k, scale=1 / BOHR) for k in range(4)),
            "w.inp": deck(ABC, motion=printed("&TRAJECTORY\n      UNIT bohr\n    &END")),
        },
        [0, 1, 2, 3],
        "in bohr, Hartree/bohr (by w.inp)",
    ),
    "forces in eV": (
        {
            "w-frc-1.xyz": "".join(frc(k, scale=1.0) for k in range(4)),
            "w.inp": deck(ABC, motion=printed("&forces\n      unit ev*angstrom^-1\n    &end")),
        },
        [0, 1, 2, 3],
        "in Angstrom, ev*angstrom^-1 (by w.inp)",
    ),
    "print of the cell before": (
        {
            "w.inp": deck(
                ABC, motion=printed("&CELL\n      &EACH\n        MD 1\n      &END\n    &END")
            )
        },
        [0, 1, 2, 3],
        "energies",
    ),
    "restart file only": ({"w.inp": None, "w-1.restart": deck(ABC)}, [0, 1, 2, 3], "w-1.restart"),
    "a part of an input": ({"w.inp": f"&CELL\n  {ABC}\n&END CELL\n"}, [0, 1, 2, 3], "energies"),
    "inputs of other programs": ({"x.inp": "! PBE\n* xyz 0 1\n"}, [0, 1, 2, 3], "energies"),
    "inputs of other projects": (
        {
            "w.inp": deck(ABC, "&GLOBAL\n PROJECT w\n&END"),
            "b.inp": deck("ABC 9 9 9", "&GLOBAL\n PROJECT b\n&END"),
        },
        [0, 1, 2, 3],
        "energies",
    ),
    "two force evaluations": ({"w.inp": deck(ABC) + deck(ABC)}, [0, 1, 2, 3], "energies"),
    "sections that are not known": (
        {"w.inp": "&GLOBAL\n  NEW_THING 3\n  &NEWER\n  &END\n&END\n" + deck(ABC)},
        [0, 1, 2, 3],
        "energies",
    ),
}

# files in the folder -> words of the refusal
RUNS_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no forces": ({"w-frc-1.xyz": None}, "has no w-frc-1.xyz: set &MOTION / &PRINT / &FORCES"),
    "no positions": ({"w-pos-1.xyz": None}, "not the folder of a CP2K run"),
    "no input": ({"w.inp": None}, r"has no input \(\*.inp\) or restart file with a &CELL"),
    "no cell": ({"w.inp": "&FORCE_EVAL\n&END\n"}, "has no input .* with a &CELL"),
    "DCD": (
        {"w-pos-1.xyz": None, "w-pos-1.dcd": "x"},
        "w-pos-1.dcd is in a format that is not read",
    ),
    "two runs": ({"v-pos-1.xyz": ALL_P}, r"more than one run \(v-pos-1.xyz, w-pos-1.xyz\)"),
    "no common step": (
        {"w-pos-1.xyz": P[0], "w-frc-1.xyz": F[1]},
        "no frame with positions and fo",
    ),
    "all torn": ({"w-pos-1.xyz": P[0][:-60]}, "w-pos-1.xyz holds no whole frame"),
    "other atoms": ({"w-frc-1.xyz": ALL_F.replace(" O ", " N ")}, "step 0 has other atoms"),
    "unknown kinds": (
        {"w-pos-1.xyz": ALL_P.replace(" O ", " Ow "), "w-frc-1.xyz": ALL_F.replace(" O ", " Ow ")},
        "w-pos-1.xyz: species 'Ow' is no element up to Bi .&KIND Ow / ELEMENT",
    ),
    "changing cell": (
        {"w.inp": deck(ABC, motion=ensemble("NPT_I"))},
        "w.inp: the cell .* w-1.cell is",
    ),
    "optimised cell": (
        {"w.inp": deck(ABC, "&GLOBAL\n  RUN_TYPE CELL_OPT\n&END")},
        "the cell of this run changes",
    ),
    "format": (
        {"w.inp": deck(ABC, motion=printed("&TRAJECTORY\n      FORMAT DCD\n    &END"))},
        r"w.inp: line 5: FORMAT DCD is not read \(XMOL, XYZ, EXTXYZ are\)",
    ),
    "unit": (
        {"w.inp": deck(ABC, motion=printed("&TRAJECTORY\n      UNIT parsec\n    &END"))},
        "w.inp: line 5: UNIT parsec: the unit 'parsec' is not known",
    ),
    "unit of another kind": (
        {"w.inp": deck(ABC, motion=printed("&FORCES\n      UNIT bohr\n    &END"))},
        "w.inp: line 5: UNIT bohr: the unit 'bohr' is none of force",
    ),
    "print keyword": (
        {"w.inp": deck(ABC, motion=printed("&TRAJECTORY\n      SCALED T\n    &END"))},
        "w.inp: line 5: SCALED is not understood in &TRAJECTORY",
    ),
    "inputs that differ": (
        {"w.inp": None, "a.inp": deck(ABC), "b.inp": deck("ABC 9 9 9")},
        r"a.inp and .*b.inp have different cells: keep the input of this run",
    ),
    "cell of the restart": (
        {"w-1.restart": deck("ABC 9 9 9")},
        r"w.inp and .*w-1.restart have different cells",
    ),
    "force evaluations that differ": (
        {"w.inp": deck(ABC) + deck("ABC 9 9 9")},
        "this &FORCE_EVAL has another cell than the first",
    ),
    "cell from a restart that is gone": (
        {"w.inp": deck(ABC, "&EXT_RESTART\n  RESTART_FILE_NAME v-1.restart\n&END")},
        "line 2: the run took its cell from v-1.restart, which is not in",
    ),
    "cell from another restart": (
        {
            "w.inp": deck(ABC, "&EXT_RESTART\n  RESTART_FILE_NAME v-1.restart\n&END"),
            "v-1.restart": deck("ABC 9 9 9"),
        },
        "this cell is not that of the run, which took the one of .*v-1.restart",
    ),
    "partly periodic titles": (
        {"w-pos-1.xyz": EXT_P.replace("T T T", "T T F"), "w-frc-1.xyz": EXT_F},
        "w-pos-1.xyz: line 2 is periodic in some directions only",
    ),
    "titles without steps": (
        {
            "w-pos-1.xyz": "".join(pos(k, "water") for k in range(4)),
            "w-frc-1.xyz": "".join(frc(k, "water") for k in (0, 2)),
        },
        "has 4 frames and w-frc-1.xyz 2, and their titles hold no step",
    ),
    "torn without steps": (
        {
            "w-pos-1.xyz": "".join(pos(k, "water") for k in range(4))[:-60],
            "w-frc-1.xyz": "".join(frc(k, "water") for k in range(4)),
        },
        "w-pos-1.xyz: frame 3 .* no step|ends inside frame 3",
    ),
    "positions in bohr unsaid": (
        {"w-pos-1.xyz": "".join(pos(k, scale=1 / BOHR) for k in range(4))},
        "perhaps positions are in bohr",
    ),
}


@pytest.mark.parametrize("case", RUNS)
def test_runs_are_read_as_they_were_written(tmp_path: Path, case: str) -> None:
    files, steps, said = RUNS[case]
    frames = read_frames(run(tmp_path / "r", files))
    meant(frames, steps)
    assert said in describe(frames)
    assert ("left out" in describe(frames)) == ("torn" in said or "without" in said)


@pytest.mark.parametrize("case", RUNS_REFUSED)
def test_runs_that_are_not_understood_are_refused(tmp_path: Path, case: str) -> None:
    files, words = RUNS_REFUSED[case]
    with pytest.raises(ValueError, match=words) as caught:
        read_frames(run(tmp_path / "r", files))
    assert str(tmp_path / "r") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_titles_without_steps_are_paired_where_there_are_as_many(tmp_path: Path) -> None:
    files = {
        "w-pos-1.xyz": "".join(pos(k, "water") for k in range(4)),
        "w-frc-1.xyz": "".join(frc(k, "water") for k in range(4)),
    }
    frames = read_frames(run(tmp_path / "r", files))
    assert np.allclose(frames.forces, FORCES, atol=1e-6)
    assert np.isnan(frames.energy).all()


def test_a_run_by_the_name_of_its_positions(tmp_path: Path) -> None:
    folder = run(tmp_path / "r", {"v-pos-1.xyz": ALL_P, "v-frc-1.xyz": ALL_F})
    meant(read_frames(folder / "w-pos-1.xyz"))
    with pytest.raises(ValueError, match="is a CP2K run, with forces of its own"):
        read_frames(folder / "w-pos-1.xyz", forces_key="forces")


@pytest.mark.parametrize("word", ["NONE", "none"])
def test_a_run_in_open_space(tmp_path: Path, word: str) -> None:
    frames = read_frames(run(tmp_path / "r", {"w.inp": deck(f"ABC 20 20 20\nPERIODIC {word}")}))
    meant(frames, cell=OPEN)
    assert "open space" in describe(frames)


@pytest.mark.parametrize("constant", [1, 2])
def test_parts_of_two_runs_are_never_paired(tmp_path: Path, constant: int) -> None:
    """The first run wrote positions of steps 0 to 2 and forces to 1, the second both of 1 to 3."""
    energy = None if constant == 1 else -34.0
    again = POSITIONS + 0.03, FORCES * 1.01
    first_p = [cp2k_block(POSITIONS[k], title(k, energy)) for k in (0, 1, 2)]
    first_f = [cp2k_block(FORCES[k] / HARTREE_PER_BOHR, title(k, energy)) for k in (0, 1)]
    later = None if energy is None else energy
    second_p = [cp2k_block(again[0][k], title(k, later)) for k in (1, 2, 3)]
    second_f = [cp2k_block(again[1][k] / HARTREE_PER_BOHR, title(k, later)) for k in (1, 2, 3)]
    files = {
        "w-pos-1.xyz": "".join(first_p + second_p),
        "w-frc-1.xyz": "".join(first_f + second_f),
    }
    frames = read_frames(run(tmp_path / "r", files))
    assert len(frames.positions) == 4
    for x, f in zip(frames.positions, frames.forces, strict=True):
        pairs = [(POSITIONS, FORCES), again]
        whose = [any(np.allclose(x, p, atol=1e-6) for p in places) for places, _ in pairs]
        pulls = [any(np.allclose(f, q, atol=1e-6) for q in forces) for _, forces in pairs]
        assert whose == pulls
    assert "left out" in describe(frames)


def test_forces_that_may_be_of_either_run_are_left_out(tmp_path: Path) -> None:
    """Positions of two runs, forces whose parts cannot be told apart."""
    p = [cp2k_block(POSITIONS[k], title(k, -34.0)) for k in (0, 1, 2, 1, 2, 3)]
    f = [cp2k_block(FORCES[k] / HARTREE_PER_BOHR, title(k, -34.0)) for k in (0, 1, 2, 3)]
    frames = read_frames(
        run(tmp_path / "r", {"w-pos-1.xyz": "".join(p), "w-frc-1.xyz": "".join(f)})
    )
    assert np.allclose(frames.positions, POSITIONS[[0, 3]], atol=1e-6)
    assert "4 of unclear run" in describe(frames)


def test_energies_tell_runs_apart(tmp_path: Path) -> None:
    """The forces of step 1 are those of the second run, by their energy."""
    p = [pos(0), pos(1, title(1, -34.1)), cp2k_block(POSITIONS[2], title(1, -34.2)), pos(3)]
    f = [frc(0), cp2k_block(FORCES[2] / HARTREE_PER_BOHR, title(1, -34.2)), frc(3)]
    frames = read_frames(
        run(tmp_path / "r", {"w-pos-1.xyz": "".join(p), "w-frc-1.xyz": "".join(f)})
    )
    assert np.allclose(frames.positions, POSITIONS[[0, 2, 3]], atol=1e-6)
    assert np.allclose(frames.forces, FORCES[[0, 2, 3]], atol=1e-6)


@pytest.mark.parametrize("named", [True, False])
def test_cells_of_every_frame(tmp_path: Path, named: bool) -> None:
    files: dict[str, Any] = {"w-1.cell": cells(SIDE, 8.0, 8.1, 8.2)}
    if named:
        files["w.inp"] = deck(ABC, motion=ensemble("NPT_I"))
    frames = read_frames(run(tmp_path / "r", files))
    assert frames.cell[:, 2, 2].tolist() == [SIDE, 8.0, 8.1, 8.2]
    assert "changing" in describe(frames)
    torn = cells(SIDE, 8.0, 8.1, 8.2)[:-30]
    frames = read_frames(run(tmp_path / "s", {**files, "w-1.cell": torn}))
    assert frames.cell[:, 2, 2].tolist() == [SIDE, 8.0, 8.1]
    assert "1 without a cell" in describe(frames)
    lattices = [LATTICE.replace(str(SIDE), str(size)) for size in (SIDE, 8.0, 8.1, 8.2)]
    text = "".join(
        ext(k, POSITIONS[k]).replace(LATTICE, lattice) for k, lattice in enumerate(lattices)
    )
    frames = read_frames(run(tmp_path / "t", {"w-pos-1.xyz": text}))
    assert frames.cell[:, 0, 0].tolist() == [SIDE, 8.0, 8.1, 8.2]


def test_units_instead_of_those_of_the_input(tmp_path: Path) -> None:
    files = {"w-pos-1.xyz": "".join(pos(k, scale=1 / BOHR) for k in range(4))}
    meant(read_frames(run(tmp_path / "r", files), units="bohr-hartree"))


# --------------------------------------------------------------------------------- fuzzing

RANDOM = bool(os.environ.get("INVARIANTZOO_FUZZ"))
FUZZED = settings(
    max_examples=5000 if RANDOM else 500,
    derandomize=not RANDOM,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
CELL_LINES = """ABC 7 8 9;ABC;A 7 0 0;B 0 8 0;C 0 0 9;PERIODIC NONE;&CELL_REF;&END;@SET L 7;@IF 0
@IF ${L};@IF $L == 7;@ENDIF;@INCLUDE w.inp;@INCLUDE x;ABC ${L} $L 9;ABC [pm] 7 8 9;ABC 7 8 \\;&
ANGLES 90 90 120;SYMMETRY CUBIC;\\;";# x;&END CELL;&CELL;ABC 7/2 1D0 9;MULTIPLE_UNIT_CELL 2 2 2;@"""
pieces = st.sampled_from(CELL_LINES.replace("\n", ";").split(";"))
line = st.one_of(pieces, st.text("ABC789.${}[]\\\"'&@!#/*=,; \tLdeE-+", max_size=14))


@FUZZED
@given(lines=st.lists(line, max_size=7))
def test_any_cell_is_read_or_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    said = ""
    try:
        vectors = cell_in(folder, "\n".join(lines))
    except ValueError as error:
        said = str(error)
    if said:
        assert said.startswith(str(folder / "w.inp"))
        assert "\n" not in said
        return
    assert np.isfinite(vectors).all()
    assert not vectors.any() or abs(np.linalg.det(vectors)) > 0


@settings(FUZZED, max_examples=2000 if RANDOM else 200)
@given(data=st.data())
def test_any_cut_of_a_run_leaves_whole_frames(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """What is read of files that were cut, and perhaps gone on with, are frames of the run."""
    folder = tmp_path_factory.getbasetemp() / "cut"
    texts = {}
    for name, blocks in (("w-pos-1.xyz", P), ("w-frc-1.xyz", F)):
        whole = "".join(blocks)
        cut = whole[: data.draw(st.integers(0, len(whole)))]
        again = data.draw(st.sampled_from([None, 0, 1, 2, 3]))
        texts[name] = cut + ("" if again is None else "".join(blocks[again:]))
    said = ""
    try:
        frames = read_frames(run(folder, texts))
    except ValueError as error:
        said = str(error)
    if said:
        assert str(folder) in said
        return
    steps = [int(np.argmin(abs(POSITIONS - x).max((1, 2)))) for x in frames.positions]
    meant(frames, steps)
    assert steps == sorted(set(steps))
