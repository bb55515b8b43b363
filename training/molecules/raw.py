"""Frames as a file says them, and what every format must agree on before they become data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...envs.core.physics.units import SYMBOLS

FORCE_COLUMNS = ("forces", "force", "REF_forces", "REF_force")


class Raw(NamedTuple):
    """Frames in the units of their file.

    positions, forces [frames, atoms, 3]; numbers [atoms]; cell [frames, 3, 3], zeros for open
    space; energy [frames], NaN where unknown.  split [frames] and owner [hydrogens]: where the file
    holds them.  units: what the file says of them, None where it says nothing.  remarks: what a
    reader should be told, such as frames that were left out.
    """

    positions: np.ndarray
    forces: np.ndarray
    numbers: np.ndarray
    cell: np.ndarray
    energy: np.ndarray
    source: str
    digest: str
    split: np.ndarray | None = None
    owner: np.ndarray | None = None
    units: str | None = None
    remarks: tuple[str, ...] = ()


class Frame(NamedTuple):
    """One frame: atomic numbers [atoms], positions and forces [atoms, 3], cell [3, 3], energy."""

    numbers: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    cell: np.ndarray
    energy: float


def assembled(
    frames: Sequence[Frame], source: str, read: Iterable[Path], remarks: tuple[str, ...] = ()
) -> Raw:
    """Frames of one set of atoms together; ValueError if there are none or the atoms change."""
    if not frames:
        raise ValueError(f"{source} holds no frame")
    first = frames[0].numbers
    for k, frame in enumerate(frames):
        if len(frame.numbers) != len(first):
            raise ValueError(
                f"{source}: frame {k} has {len(frame.numbers)} atoms, frame 0 has {len(first)}"
            )
        if not np.array_equal(frame.numbers, first):
            raise ValueError(f"{source}: the atoms of frame {k} are in another order")
    return Raw(
        np.array([frame.positions for frame in frames], float),
        np.array([frame.forces for frame in frames], float),
        np.array(first, np.int64),
        np.array([frame.cell for frame in frames], float),
        np.array([frame.energy for frame in frames], float),
        source,
        digest(read),
        remarks=remarks,
    )


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 of files, one after the other."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def periodic_cell(lattice: np.ndarray | None, pbc: Sequence[bool] | None) -> np.ndarray:
    """The cell [3, 3] of a frame, zeros for open space.

    lattice [3, 3]: its vectors as rows, or None.  pbc: periodicity in the three directions, None
    where it is not said: then a frame with lattice vectors is periodic.
    Raises ValueError for what is neither open nor periodic in all directions.
    """
    periodic = [bool(flag) for flag in pbc] if pbc is not None else None
    if lattice is not None and not np.isfinite(lattice).all():
        raise ValueError("its lattice vectors are not finite")
    if periodic is not None and any(periodic) and not all(periodic):
        flags = " ".join("T" if flag else "F" for flag in periodic)
        raise ValueError(
            f'is periodic in some directions only (pbc="{flags}"); all three ("T T T") or none '
            f'("F F F") are understood'
        )
    if periodic is not None and not any(periodic):
        return np.zeros((3, 3))
    if lattice is None or not lattice.any():
        if periodic is None:
            return np.zeros((3, 3))
        raise ValueError("is periodic but has no lattice vectors")
    volume = abs(float(np.linalg.det(lattice)))
    if volume < 1e-6 * float(np.prod(np.linalg.norm(lattice, axis=1))) or volume == 0:
        raise ValueError(f"has lattice vectors that span no volume: {np.asarray(lattice).tolist()}")
    return np.array(lattice, float)


def forces_column(names: Sequence[str], forces_key: str | None, has: Sequence[str]) -> str:
    """Which of the columns of three real numbers holds the forces.

    names: these columns; has: all that a frame holds, to be named in a refusal.
    Raises ValueError where there is none, or where more than one might be meant.
    """
    listed = ", ".join(has) or "nothing"
    if forces_key is not None:
        if forces_key not in names:
            raise ValueError(
                f"--forces-key {forces_key} is no column of three real numbers (has {listed})"
            )
        return forces_key
    alike = [name for name in names if "forc" in name.lower() or name.lower() in ("frc", "f")]
    if len(alike) > 1:
        raise ValueError(
            f"holds {len(alike)} columns of forces ({', '.join(alike)}): name one with "
            f"--forces-key {alike[0]}"
        )
    usual = [name for name in alike if name.lower() in map(str.lower, FORCE_COLUMNS)]
    if usual:
        return usual[0]
    hint = f"; if {alike[0]} are forces, say --forces-key {alike[0]}" if alike else ""
    raise ValueError(
        f"has no forces: looked for a column {', '.join(FORCE_COLUMNS)} (has {listed}){hint}"
    )


def energy_name(forces_key: str) -> str:
    """The energy that goes with forces: energy for forces, REF_energy for REF_forces, ..."""
    lower = forces_key.lower()
    for word in ("forces", "force"):
        at = lower.find(word)
        if at >= 0:
            given = forces_key[at : at + len(word)]
            energy = "ENERGY" if given.isupper() else "Energy" if given[0].isupper() else "energy"
            return forces_key[:at] + energy + forces_key[at + len(word) :]
    return "energy"


def atomic_numbers(values: Iterable[int]) -> np.ndarray:
    """Atomic numbers [atoms] as integers; ValueError for what is no element up to Bi."""
    numbers = np.array([int(value) for value in values], np.int64)
    wrong = numbers[(numbers < 1) | (numbers >= len(SYMBOLS))]
    if len(wrong):
        raise ValueError(f"atomic number {wrong[0]} is none of 1 (H) to {len(SYMBOLS) - 1} (Bi)")
    return numbers


def text_of(path: Path) -> str:
    """A text file, perhaps compressed, with line ends of every system turned to newlines.

    Raises ValueError, which names the line, for what is no text.
    """
    from ase.io.formats import open_with_compression

    try:
        with open_with_compression(str(path), "rb") as file:
            data = file.read()
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line} is no text in UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_cut(text: str, rows: Sequence[str]) -> bool:
    """Whether a text ends within the last number of `rows`, its last lines.

    A file that was cut has no newline at its end, and fewer decimals there than in the rows before.
    """
    if text.endswith("\n") or len(rows) < 2:
        return False
    decimals = [_decimals(row) for row in rows]
    return decimals[-1] < decimals[-2] and len(set(decimals[:-1])) == 1


def _decimals(row: str) -> int:
    last = row.split()[-1] if row.split() else ""
    return len(last.partition(".")[2])
