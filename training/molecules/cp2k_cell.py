"""The cell that a &CELL of a CP2K input describes, turned as CP2K turns it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .cp2k_input import (
    COMMENTS,
    Keyword,
    Section,
    is_true,
    number,
    numbers_of,
    quoted,
    word_of,
    words_of,
)

_SYMMETRIES = {  # lengths that are equal, and angles
    "TRICLINIC": ((), (None, None, None)),
    "MONOCLINIC": ((), (90, None, 90)),
    "MONOCLINIC_GAMMA_AB": ((0, 1), (90, 90, None)),
    "ORTHORHOMBIC": ((), (90, 90, 90)),
    "TETRAGONAL": ((0, 1), (90, 90, 90)),
    "TETRAGONAL_AB": ((0, 1), (90, 90, 90)),
    "TETRAGONAL_AC": ((0, 2), (90, 90, 90)),
    "TETRAGONAL_BC": ((1, 2), (90, 90, 90)),
    "RHOMBOHEDRAL": ((0, 1, 2), (None, None, None)),
    "HEXAGONAL": ((0, 1), (90, 90, 60)),
    "HEXAGONAL_GAMMA_60": ((0, 1), (90, 90, 60)),
    "HEXAGONAL_GAMMA_120": ((0, 1), (90, 90, 120)),
    "CUBIC": ((0, 1, 2), (90, 90, 90)),
}
_CELL_KEYWORDS = (
    "ABC",
    "ALPHA_BETA_GAMMA",
    "ANGLES",
    "A",
    "B",
    "C",
    "PERIODIC",
    "MULTIPLE_UNIT_CELL",
    "SYMMETRY",
    "CELL_FILE_NAME",
    "CELL_FILE_FORMAT",
    "CANONICALIZE",
)
_PERIODIC = ("X", "Y", "Z", "XY", "XZ", "YZ", "XYZ", "NONE")


class Cell(NamedTuple):
    """The cell [3, 3] of an input, zeros for open space, and where it stands."""

    vectors: np.ndarray
    where: str


def cell_of(section: Section, folder: Path) -> Cell:
    """The cell of a &CELL; ValueError, with file and line, for what is not understood of it."""
    for keyword in section.keywords:
        if keyword.name not in _CELL_KEYWORDS and not keyword.name.startswith("@"):
            raise ValueError(
                f"{quoted(keyword)} is not understood in &CELL (known: {', '.join(_CELL_KEYWORDS)})"
            )
    for inner in section.sections:
        if inner.name != "CELL_REF":
            raise ValueError(f"{inner.where}: &{inner.name} is not understood in &CELL")
    if section.parameter:
        raise ValueError(f"{section.where}: &CELL {section.parameter} is not understood")
    given = {name: section.value(name) for name in _CELL_KEYWORDS}
    vectors = _vectors(section, given, folder)
    times = given["MULTIPLE_UNIT_CELL"]
    if times is not None:
        repeats = numbers_of(times, 3, "count")
        if (repeats != np.round(repeats)).any() or (repeats < 1).any():
            raise ValueError(f"{quoted(times)}: three whole numbers of at least 1 are needed")
        vectors = vectors * repeats[:, None]
    if abs(np.linalg.det(vectors)) < 1e-9:
        raise ValueError(f"{section.where}: the vectors of &CELL span no volume")
    vectors = _oriented(vectors, given["SYMMETRY"], given["CANONICALIZE"])
    if not _is_periodic(given["PERIODIC"]):
        vectors = np.zeros((3, 3))
    return Cell(vectors, section.where)


def _vectors(section: Section, given: dict[str, Keyword | None], folder: Path) -> np.ndarray:
    """Cell vectors as rows: from a file, else lengths and angles, else vectors, as in CP2K."""
    if given["CELL_FILE_NAME"] is not None:
        return _cell_file(given["CELL_FILE_NAME"], given["CELL_FILE_FORMAT"], folder)
    lengths, angles = given["ABC"], given["ALPHA_BETA_GAMMA"] or given["ANGLES"]
    if given["ALPHA_BETA_GAMMA"] is not None and given["ANGLES"] is not None:
        raise ValueError(f"{quoted(given['ANGLES'])}: ALPHA_BETA_GAMMA is given as well")
    if lengths is not None:
        degrees = np.full(3, 90.0) if angles is None else numbers_of(angles, 3, "angle")
        sizes = numbers_of(lengths, 3, "length")
        try:
            return from_parameters(sizes, degrees)
        except ValueError as error:
            raise ValueError(f"{(angles or lengths).where}: {error}") from None
    rows = [given[name] for name in "ABC"]
    if all(row is None for row in rows):
        raise ValueError(
            f"{section.where}: &CELL has neither ABC nor A, B and C nor CELL_FILE_NAME"
        )
    if any(row is None for row in rows):
        raise ValueError(f"{section.where}: &CELL needs all of A, B and C")
    return np.stack([numbers_of(row, 3, "length") for row in rows if row is not None])


def from_parameters(lengths: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Cell vectors [3, 3] of lengths and angles (b c, a c, a b): a along x, b in the x y plane."""
    if (degrees <= 0).any() or (degrees >= 180).any():
        raise ValueError(f"angles {degrees.tolist()} must lie between 0 and 180 degrees")
    right = np.isclose(degrees, 90, rtol=0, atol=1e-12)
    cos = np.where(right, 0.0, np.cos(np.radians(degrees)))
    sin = 1.0 if right[2] else float(np.sin(np.radians(degrees[2])))
    x, y = cos[1], (cos[0] - cos[2] * cos[1]) / sin
    z2 = 1 - x * x - y * y
    if not z2 > 0:
        raise ValueError(f"angles {degrees.tolist()} span no cell")
    return np.array([[1, 0, 0], [cos[2], sin, 0], [x, y, np.sqrt(z2)]]) * lengths[:, None]


def parameters(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and angles in degrees of cell vectors [3, 3]."""
    lengths = np.linalg.norm(vectors, axis=1)
    unit_vectors = vectors / lengths[:, None]
    cos = [unit_vectors[a] @ unit_vectors[b] for a, b in ((1, 2), (0, 2), (0, 1))]
    return lengths, np.degrees(np.arccos(np.clip(cos, -1, 1)))


def _oriented(
    vectors: np.ndarray, symmetry: Keyword | None, canonicalize: Keyword | None
) -> np.ndarray:
    """The vectors as CP2K turns them; ValueError where a symmetry would change them."""
    if canonicalize is not None and canonicalize.text.upper() != "AUTO":
        if is_true(canonicalize, False):
            vectors = from_parameters(*parameters(vectors))
    if symmetry is None or word_of(symmetry) in ("NONE", "TRICLINIC"):
        return vectors
    name = word_of(symmetry)
    if name not in _SYMMETRIES:
        known = ", ".join(("NONE", *_SYMMETRIES))
        raise ValueError(f"{quoted(symmetry)} is not understood (known: {known})")
    equal, degrees = _SYMMETRIES[name]
    lengths, angles = parameters(vectors)
    wanted = np.array([angles[k] if d is None else d for k, d in enumerate(degrees)], float)
    if name == "RHOMBOHEDRAL":
        wanted[:] = angles.mean()
    sizes = lengths.copy()
    if equal:
        sizes[list(equal)] = lengths[list(equal)].mean()
    if not np.allclose(from_parameters(sizes, wanted), vectors, rtol=0, atol=1e-6 * lengths.max()):
        raise ValueError(
            f"{quoted(symmetry)} is not that of the cell, and CP2K would change it: give the cell "
            f"that it prints"
        )
    return vectors


def _is_periodic(keyword: Keyword | None) -> bool:
    if keyword is None:
        return True
    word = word_of(keyword)
    if word == "XYZ":
        return True
    if word == "NONE":
        return False
    if word in _PERIODIC:
        raise ValueError(
            f"{quoted(keyword)}: periodic in some directions only; XYZ and NONE are understood"
        )
    raise ValueError(f"{quoted(keyword)} is not understood (XYZ or NONE)")


def _cell_file(name: Keyword, form: Keyword | None, folder: Path) -> np.ndarray:
    kind = "CP2K" if form is None else word_of(form)
    words = words_of(name)
    if len(words) != 1:
        raise ValueError(f"{quoted(name)}: one file is needed")
    path = folder / words[0]
    if not path.is_file():
        raise ValueError(f"{quoted(name)}: there is no file {path}")
    where = f"{name.where}: {path}"
    if kind in ("CP2K", "XSC"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        rows = [line.split() for line in lines if line.strip() and line.strip()[0] not in COMMENTS]
        row = rows[-1 if kind == "CP2K" else 0][2 if kind == "CP2K" else 1 :] if rows else []
        try:
            return np.array([number(word) for word in row[:9]]).reshape(3, 3)
        except ValueError:
            raise ValueError(f"{where} holds no nine numbers of a cell ({kind})") from None
    raise ValueError(
        f"{quoted(form) if form else where}: cells in this format are not read; CP2K and XSC are"
    )
