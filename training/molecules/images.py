"""Frames from ASE: its Atoms with calculators, and the formats that it reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .raw import Frame, Raw, assembled, atomic_numbers, energy_name, periodic_cell
from .units import OURS, Units

_CHUNK = 1 << 20  # bytes read at once
_PACKED = (".gz", ".bz2", ".xz")
_STYLES = {  # of units of LAMMPS
    "metal": OURS,
    "real": Units("angstrom", "kcal", "angstrom"),
    "electron": Units("bohr", "hartree", "bohr"),
}


def is_extended_xyz(path: Path) -> bool:
    """Whether a file is (extended) XYZ, by its name or, where that says nothing, its contents."""
    from ase.io.formats import UnknownFileTypeError, filetype, open_with_compression

    names = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _PACKED]
    if names and names[-1] in (".xyz", ".extxyz", ".exyz"):
        return True
    try:
        with open_with_compression(str(path), "rb") as file:
            start = file.read(4096)
        if re.match(rb"(\xef\xbb\xbf)?\s*[0-9]+[ \t]*\r?[\r\n].*\bProperties\s*=", start):
            return True
        return filetype(str(path)) in ("xyz", "extxyz")
    except (UnknownFileTypeError, OSError, EOFError, ValueError):
        return False


def read_with_ase(path: Path, forces_key: str | None = None, units: Units | None = None) -> Raw:
    """Frames of any other format that ASE reads, with the forces and energies in the file.

    units: of the numbers, instead of what a dump of LAMMPS says.
    """
    from ase.io import read
    from ase.io.formats import filetype

    stated = None
    try:
        is_dump = filetype(str(path)).startswith("lammps-dump")
        if is_dump:
            style = _style_of_dump(path)
            stated = None if units is not None or style is None else _units_of_style(style)
        images: list[Any] = list(read(str(path), ":", do_not_split_by_at_sign=True))
    except ValueError as error:
        raise ValueError(f"{path}: {_one_line(error)}") from None
    except Exception as error:  # the readers of ASE raise whatever goes wrong in them
        what = _one_line(error) or type(error).__name__
        raise ValueError(
            f"{path} is no .npz, extended XYZ or folder of a CP2K run, and not read by ASE: {what}"
        ) from None
    frames = []
    for k, atoms in enumerate(images):
        try:
            frame = _stored(atoms, forces_key)
            frames.append(frame._replace(energy=np.nan) if is_dump else frame)  # ASE says 0
        except ValueError as error:
            raise ValueError(f"{path}: frame {k} {error}") from None
    raw = assembled(frames, str(path), (path,))
    if stated is None:
        return raw
    length, _, force = stated.scales
    return raw._replace(
        positions=raw.positions * length,
        forces=raw.forces * force,
        cell=raw.cell * length,
        units=f"{stated} (by the dump)",
    )


def of_atoms(images: Sequence[Any]) -> Raw:
    """Frames from Atoms whose calculators are asked for forces and energies, constraints aside."""
    frames = []
    for k, atoms in enumerate(images):
        try:
            frames.append(_calculated(atoms))
        except ValueError as error:
            raise ValueError(f"atoms: frame {k} {error}") from None
    return assembled(frames, "atoms", ())


def _stored(atoms: Any, forces_key: str | None) -> Frame:
    """A frame with the forces that its file holds; nothing is computed."""
    results = {} if atoms.calc is None else atoms.calc.results
    if forces_key is None and "forces" in results:
        return _frame(atoms, results["forces"], results.get("energy"))
    has = [*results, *atoms.arrays]
    vectors = [key for key in atoms.arrays if np.shape(atoms.arrays[key]) == (len(atoms), 3)]
    if forces_key is not None and (forces_key in vectors or forces_key in results):
        key = energy_name(forces_key)
        forces = atoms.arrays.get(forces_key, results.get(forces_key))
        return _frame(atoms, forces, results.get(key, atoms.info.get(key)))
    if forces_key is not None:
        raise ValueError(f"has no --forces-key {forces_key} (has {', '.join(has)})")
    raise ValueError(f"has no forces (has {', '.join(has)}); name others with --forces-key")


def _calculated(atoms: Any) -> Frame:
    """A frame with what its calculator says, as the forces of constrained atoms are."""
    from ase.calculators.calculator import PropertyNotImplementedError

    if atoms.calc is None:
        raise ValueError("has no calculator, so no forces")
    try:
        forces = atoms.get_forces(apply_constraint=False)
    except PropertyNotImplementedError:
        raise ValueError(
            "has no forces: its calculator has none, or was left behind by its positions"
        ) from None
    try:
        energy = atoms.get_potential_energy(apply_constraint=False)
    except PropertyNotImplementedError:
        energy = None
    return _frame(atoms, forces, energy)


def _frame(atoms: Any, forces: Any, energy: Any) -> Frame:
    forces = np.asarray(forces, float)
    if forces.shape != (len(atoms), 3):
        raise ValueError(f"has forces of shape {forces.shape} for {len(atoms)} atoms")
    known = energy is not None and np.ndim(energy) == 0
    return Frame(
        atomic_numbers(atoms.numbers),
        np.array(atoms.positions, float),
        forces,
        periodic_cell(np.array(atoms.cell), list(atoms.pbc)),
        float(energy) if known else np.nan,
    )


def _style_of_dump(path: Path) -> str | None:
    """The style of units that a LAMMPS dump says it is in; None where it says nothing.

    Raises ValueError for atoms that are numbered types, which ASE takes for H, He, ..., and for a
    file that ends within a line, whose last number would be another.
    """
    from ase.io.formats import open_with_compression

    style, named, last = None, False, b""
    with open_with_compression(str(path), "rb") as file:
        for line in file:
            if line.startswith(b"ITEM: UNITS"):  # once, above the first frame
                style = next(file, b"").decode(errors="replace").strip()
            if line.startswith(b"ITEM: ATOMS"):
                named = b"element" in line.split()
                break
        while more := file.read(_CHUNK):
            last = more
    if not named:
        raise ValueError("a LAMMPS dump needs the column `element`")
    if not last.endswith(b"\n"):
        raise ValueError("ends within a line: the file is cut off")
    return style


def _units_of_style(style: str) -> Units:
    if style not in _STYLES:
        known = ", ".join(_STYLES)
        raise ValueError(f"units {style!r} of LAMMPS are none of {known}: give them with --units")
    return _STYLES[style]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
