"""Reference data: frames of positions and forces, read, checked and made ready for a fit."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..envs.core.cell import copies_for, half_width, replicate
from ..envs.core.units import BOHR, HARTREE, HARTREE_PER_BOHR, SYMBOLS, atomic_number

_GUARD = 0.02  # part of the frames left out between training and validation
_VALIDATION = 0.2
_FORCES = (0.1, 8.0)  # eV/Angstrom, rms component where atoms are bonded, near 300 K
_WEAK = 0.005  # where they are not, as in liquid argon
_BOND = 1.7  # Angstrom


class Frames(NamedTuple):
    """Frames of one set of atoms.

    positions, forces [frames, atoms, 3] in Angstrom and eV/Angstrom; numbers [atoms];
    cell [frames, 3, 3], rows are the lattice vectors, zeros for open space; energy [frames] in eV,
    NaN where unknown; split [frames]: names such as "train" and "val".
    owner [hydrogens]: index of the atom that each hydrogen belongs to, or None.
    source: where they come from; digest: SHA-256 of what was read.
    """

    positions: np.ndarray
    forces: np.ndarray
    numbers: np.ndarray
    cell: np.ndarray
    energy: np.ndarray
    split: np.ndarray
    owner: np.ndarray | None
    source: str
    digest: str

    def part(self, chosen: np.ndarray) -> Frames:
        """Some of the frames, by flags or indices."""
        return self._replace(
            positions=self.positions[chosen],
            forces=self.forces[chosen],
            cell=self.cell[chosen],
            energy=self.energy[chosen],
            split=self.split[chosen],
        )


def read_frames(path: str | Path) -> Frames:
    """Frames from an `.npz`, an extended XYZ file, a CP2K run folder, or whatever ASE reads.

    Without a split of its own the last fifth of the frames becomes "val", the 2 % before it
    "guard", and the others "train".
    Raises FileNotFoundError, and ValueError for what cannot be fitted to.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.is_dir():
        frames = _read_cp2k(path)
    elif path.suffix == ".npz":
        frames = _read_npz(path)
    elif path.suffix in (".xyz", ".extxyz"):
        frames = _read_xyz(path)
    else:
        frames = _read_ase(path)
    return _checked(frames)


def chosen(frames: Frames, split: str) -> Frames:
    """The frames of a split; ValueError if there are none."""
    flags = frames.split == split
    if not flags.any():
        names = ", ".join(sorted(set(map(str, frames.split))))
        raise ValueError(f"{frames.source} has no frame of split {split!r} (has {names})")
    return frames.part(flags)


def owners(frames: Frames) -> np.ndarray | None:
    """Index of the atom that each hydrogen is bonded to, the nearest oxygen; None without these."""
    if frames.owner is not None:
        return frames.owner
    hydrogens, oxygens = np.flatnonzero(frames.numbers == 1), np.flatnonzero(frames.numbers == 8)
    if not len(hydrogens) or not len(oxygens):
        return None
    r = frames.positions[0, hydrogens][:, None] - frames.positions[0, oxygens]
    d2 = (minimum_image(r, frames.cell[0]) ** 2).sum(-1)
    return oxygens[d2.argmin(1)]


def minimum_image(r: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Displacements [..., 3] to the nearest image in a cell [3, 3]."""
    if not cell.any():
        return r
    return r - np.round(r @ np.linalg.inv(cell)) @ cell


def widened(frames: Frames, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, cells and numbers, repeated so that every cell is two cutoffs wide.

    The given atoms come first. All frames get the same number of copies.
    """
    copies = (1, 1, 1)
    for cell in frames.cell:
        if cell.any() and half_width(cell) < cutoff:
            a, b, c = copies_for(cutoff, cell)
            copies = (max(a, copies[0]), max(b, copies[1]), max(c, copies[2]))
    if copies == (1, 1, 1):
        return frames.positions, frames.cell, frames.numbers
    pairs = zip(frames.positions, frames.cell, strict=True)
    both = [replicate(x, cell, copies) for x, cell in pairs]
    numbers = np.tile(frames.numbers, int(np.prod(copies)))
    return np.stack([x for x, _ in both]), np.stack([c for _, c in both]), numbers


def _read_npz(path: Path) -> Frames:
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz of plain arrays: {error}") from None
    for name in ("positions", "forces", "numbers", "cell"):
        if name not in data:
            hint = "frames need forces to be fitted to" if name == "forces" else "needed"
            raise ValueError(f"{path} has no {name!r}: {hint} (has {', '.join(sorted(data))})")
    positions = np.asarray(data["positions"], float)
    if positions.ndim != 3 or positions.shape[2:] != (3,):
        raise ValueError(f"{path}: positions have shape {positions.shape}, not [frames, atoms, 3]")
    count = len(positions)
    cell = np.broadcast_to(np.asarray(data["cell"], float), (count, 3, 3))
    energy = np.asarray(data.get("energy", np.full(count, np.nan)), float)
    order = np.argsort(data["order"], kind="stable") if "order" in data else np.arange(count)
    owner = np.asarray(data["h_owner"], np.int64) if "h_owner" in data else None
    split = np.asarray(data["split"]).astype(str) if "split" in data else _split(count)
    frames = Frames(
        positions,
        np.asarray(data["forces"], float),
        np.asarray(data["numbers"], np.int64),
        cell,
        energy,
        split,
        owner,
        str(path),
        _digest(path),
    )
    return frames if len(order) != count else frames.part(order)


def _read_xyz(path: Path) -> Frames:
    """Extended XYZ: species, pos and forces (or force) among the Properties, Lattice, energy."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = 0
    positions: list[Any] = []
    forces: list[Any] = []
    cells: list[Any] = []
    energies: list[float] = []
    species: list[list[str]] = []
    while at < len(lines) and lines[at].strip():
        if not lines[at].strip().isdecimal():
            raise ValueError(f"{path}: line {at + 1} must hold the number of atoms")
        n, comment = int(lines[at]), lines[at + 1]
        if at + 2 + n > len(lines):
            raise ValueError(f"{path}: frame {len(positions)} is cut off")
        table = [line.split() for line in lines[at + 2 : at + 2 + n]]
        columns = _columns(comment)
        if "forces" not in columns:
            raise ValueError(f"{path}: frame {len(positions)} has no forces among its Properties")
        species.append([row[columns["species"]] for row in table])
        pos, frc = columns["pos"], columns["forces"]
        positions.append([[float(v) for v in row[pos : pos + 3]] for row in table])
        forces.append([[float(v) for v in row[frc : frc + 3]] for row in table])
        lattice = re.search(r'Lattice="([^"]+)"', comment)
        cells.append([float(v) for v in lattice[1].split()] if lattice else [0.0] * 9)
        energy = re.search(r"\benergy=(\S+)", comment)
        energies.append(float(energy[1]) if energy else np.nan)
        at += 2 + n
    return _assembled(path, species, positions, forces, cells, energies)


def _columns(comment: str) -> dict[str, int]:
    """First column of every property of an extended XYZ comment."""
    found = re.search(r'Properties=(?:"([^"]+)"|(\S+))', comment)
    words = (found[1] or found[2]).split(":") if found else ["species", "S", "1", "pos", "R", "3"]
    columns, at = {}, 0
    for name, size in zip(words[::3], words[2::3], strict=True):
        columns["forces" if name in ("force", "forces", "REF_forces") else name] = at
        at += int(size)
    return columns


def _read_cp2k(folder: Path) -> Frames:
    """`*-pos-1.xyz` and `*-frc-1.xyz` of a CP2K run, and the cell of its input."""
    places = sorted(folder.glob("*-pos-1.xyz"))
    if not places:
        raise ValueError(f"{folder} holds no *-pos-1.xyz: not the folder of a CP2K run")
    place = places[0]
    pulls = place.with_name(place.name.replace("-pos-", "-frc-"))
    if not pulls.exists():
        raise ValueError(
            f"{folder} has no {pulls.name}: set &MOTION / &PRINT / &FORCES with the same EACH"
        )
    species, positions, steps, energies = _read_blocks(place)
    _, forces, at, _ = _read_blocks(pulls)
    both = [step for step in steps if step in set(at)]
    first = {step: k for k, step in reversed(list(enumerate(steps)))}
    second = {step: k for k, step in reversed(list(enumerate(at)))}
    if not both:
        raise ValueError(f"{folder}: positions and forces share no step")
    unique = sorted(set(both))
    cell = _cp2k_cell(folder)
    return _assembled(
        place,
        [species[first[step]] for step in unique],
        [positions[first[step]] for step in unique],
        [np.asarray(forces[second[step]]) * HARTREE_PER_BOHR for step in unique],
        [cell.ravel()] * len(unique),
        [energies[first[step]] * HARTREE for step in unique],
        source=str(folder),
        read=(place, pulls),
    )


def _read_blocks(path: Path) -> tuple[list[list[str]], list[Any], list[int], list[float]]:
    """Species, vectors, steps and energies (Hartree) of CP2K's XYZ blocks; a torn end is left."""
    lines = path.read_text(encoding="utf-8").splitlines()
    species: list[list[str]] = []
    vectors: list[Any] = []
    steps: list[int] = []
    energies: list[float] = []
    at = 0
    while at < len(lines) and lines[at].strip().isdecimal():
        n = int(lines[at])
        rows = [line.split() for line in lines[at + 2 : at + 2 + n]]
        if len(rows) < n or any(len(row) < 4 for row in rows):
            break
        species.append([row[0] for row in rows])
        vectors.append([[float(v) for v in row[1:4]] for row in rows])
        step = re.search(r"\bi =\s*(\d+)", lines[at + 1])
        energy = re.search(r"\bE =\s*([-+.\dEe]+)", lines[at + 1])
        steps.append(int(step[1]) if step else len(steps))
        energies.append(float(energy[1]) if energy else np.nan)
        at += 2 + n
    if not steps:
        raise ValueError(f"{path} holds no whole frame")
    return species, vectors, steps, energies


def _cp2k_cell(folder: Path) -> np.ndarray:
    """The first cell of an input or restart file, Angstrom."""
    for path in [*sorted(folder.glob("*.inp")), *sorted(folder.glob("*.restart"))]:
        text = path.read_text(encoding="utf-8")
        section = re.search(r"&CELL\b(.*?)&END", text, re.S | re.I)
        if not section:
            continue
        scale = BOHR if "[bohr]" in section[1].lower() else 1.0
        lengths = re.search(r"^\s*ABC\s+(?:\[\w+\]\s+)?(.+)$", section[1], re.M | re.I)
        if lengths:
            return scale * np.diag([float(v) for v in lengths[1].split()[:3]])
        rows = [
            re.search(rf"^\s*{axis}\s+(?:\[\w+\]\s+)?(\S+\s+\S+\s+\S+)", section[1], re.M)
            for axis in "ABC"
        ]
        if all(rows):
            return scale * np.array([[float(v) for v in row[1].split()] for row in rows if row])
    raise ValueError(f"{folder} has no input (*.inp) or restart file with a &CELL")


def _read_ase(path: Path) -> Frames:
    try:
        from ase.io import read
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} is neither .npz, .xyz nor a CP2K folder; other formats need `pip install ase`"
        ) from None
    images: list[Any] = list(read(path, ":"))
    for number, atoms in enumerate(images):
        if atoms.calc is None or "forces" not in atoms.calc.results:
            raise ValueError(f"{path}: frame {number} has no forces")
    return _of_atoms(images, path)


def frames_of_atoms(images: Sequence[Any]) -> Frames:
    """Frames from ASE's Atoms, whose calculators are asked for forces and energies.

    Any calculator of ASE becomes a reference that agents are fitted to.
    """
    frames = _of_atoms(images, None)
    found = hashlib.sha256()
    for array in (frames.positions, frames.forces, frames.cell, frames.numbers):
        found.update(np.ascontiguousarray(array).tobytes())
    return _checked(frames._replace(digest=found.hexdigest()))


def _of_atoms(images: Sequence[Any], path: Path | None) -> Frames:
    return _assembled(
        path or Path("atoms"),
        [a.get_chemical_symbols() for a in images],
        [a.positions for a in images],
        [a.get_forces() for a in images],
        [np.asarray(a.cell) if a.pbc.all() else np.zeros((3, 3)) for a in images],
        [a.get_potential_energy() for a in images],
        read=() if path is None else (path,),
    )


def _assembled(  # type: ignore[no-untyped-def]
    path: Path, species, positions, forces, cells, energies, source: str = "", read=None
) -> Frames:
    """Frames from lists; ValueError if the atoms change."""
    if not positions:
        raise ValueError(f"{path} holds no frame")
    for number, names in enumerate(species):
        if len(names) != len(species[0]):
            raise ValueError(
                f"{path}: frame {number} has {len(names)} atoms, frame 0 has {len(species[0])}"
            )
        if names != species[0]:
            raise ValueError(f"{path}: the atoms of frame {number} are in another order")
    count = len(positions)
    return Frames(
        np.array(positions, float),
        np.array(forces, float),
        np.array([atomic_number(name) for name in species[0]], np.int64),
        np.array(cells, float).reshape(count, 3, 3),
        np.array(energies, float),
        _split(count),
        None,
        source or str(path),
        _digest(*((path,) if read is None else read)),
    )


def _checked(frames: Frames) -> Frames:
    source = frames.source
    if frames.forces.shape != frames.positions.shape:
        shapes = f"{frames.forces.shape} for positions {frames.positions.shape}"
        raise ValueError(f"{source}: forces have shape {shapes}")
    if len(frames.numbers) != frames.positions.shape[1]:
        raise ValueError(
            f"{source}: {len(frames.numbers)} numbers for {frames.positions.shape[1]} atoms"
        )
    for name in ("positions", "forces", "cell"):
        bad = ~np.isfinite(getattr(frames, name)).all((1, 2))
        if bad.any():
            raise ValueError(f"{source}: {name} of frame {int(bad.argmax())} are not finite")
    nearest = _nearest_distance(frames)
    if not 0.3 < nearest < 8:
        raise ValueError(
            f"{source}: the smallest distance is {nearest:.3g} Angstrom: perhaps positions are in "
            f"{'nanometres' if nearest <= 0.3 else 'other units'}"
        )
    rms = float(np.sqrt((frames.forces**2).mean()))
    if rms == 0:
        raise ValueError(f"{source}: all forces are zero")
    low, high = (_FORCES[0] if nearest < _BOND else _WEAK), _FORCES[1]
    if not low <= rms <= high:
        hint = "Hartree/bohr (multiply by 51.422)" if rms < low else "kcal/mol or kJ/mol per A"
        raise ValueError(
            f"{source}: forces have an rms of {rms:.3g} eV/Angstrom per component, outside "
            f"{low:g} to {high:g}: perhaps they are in {hint}"
        )
    return frames


def _nearest_distance(frames: Frames) -> float:
    x = frames.positions[0]
    d2 = (minimum_image(x[:, None] - x, frames.cell[0]) ** 2).sum(-1)
    np.fill_diagonal(d2, np.inf)
    return float(np.sqrt(d2.min()))


def _split(count: int) -> np.ndarray:
    first = round(count * (1 - _VALIDATION))
    split = np.full(count, "train", dtype="<U5")
    split[max(1, first - round(_GUARD * count)) : first] = "guard"
    split[first:] = "val"
    return split


def _digest(*paths: Path) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()


def symbols(numbers: np.ndarray) -> list[str]:
    """Chemical symbols of atomic numbers."""
    return [SYMBOLS[int(n)] for n in numbers]
