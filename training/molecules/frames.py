"""Reference data: frames of positions and forces, read, checked and made ready for a fit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...envs.core.physics.cell import copies_for, half_width, nearest_image_array, replicate
from ...envs.core.physics.units import SYMBOLS
from . import units as unit_checks
from .raw import Raw

_GUARD = 0.02  # part of the frames left out between training and validation
_VALIDATION = 0.2
_LONGEST_BOND = 2.5  # Angstrom, of hydrogen, with room for any


class Frames(NamedTuple):
    """Frames of one set of atoms.

    positions, forces [frames, atoms, 3] in Angstrom and eV/Angstrom; numbers [atoms];
    cell [frames, 3, 3], rows are the lattice vectors, zeros for open space; energy [frames] in eV,
    NaN where unknown; split [frames]: names such as "train" and "val".
    owner [hydrogens]: index of the atom that each hydrogen belongs to, or None.
    source: where they come from; digest: SHA-256 of what was read.
    units: what they were read from.  remarks: what else a reader should know, such as frames that
    were left out.
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
    units: str = "Angstrom, eV/Angstrom"
    remarks: tuple[str, ...] = ()

    def part(self, chosen: np.ndarray) -> Frames:
        """Some of the frames, by flags or indices."""
        return self._replace(
            positions=self.positions[chosen],
            forces=self.forces[chosen],
            cell=self.cell[chosen],
            energy=self.energy[chosen],
            split=self.split[chosen],
        )


def read_frames(
    path: str | Path, *, forces_key: str | None = None, units: str | None = None
) -> Frames:
    """Frames from an `.npz`, an extended XYZ file, a CP2K run folder, or whatever ASE reads.

    forces_key: the column or array of forces, where there is more than one; the energy goes with it
    (REF_energy with REF_forces).  units: LENGTH-ENERGY or LENGTH-ENERGY-LENGTH of forces, such as
    "bohr-hartree"; None or "auto" for what the file says, else Angstrom and eV, which the numbers
    are held against.
    Without a split of its own the last fifth of the frames becomes "val", the 2 % before it
    "guard", and the others "train".
    Raises FileNotFoundError, and ValueError for what is not understood or cannot be fitted to.
    """
    path = Path(path)
    given = None if units is None else unit_checks.parse_units(units)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    return _frames(_raw(path, forces_key, given), given)


def _raw(path: Path, forces_key: str | None, units: unit_checks.Units | None) -> Raw:
    from . import cp2k_run, extended_xyz, images, npz

    if path.is_dir() or cp2k_run.is_trajectory(path):
        if forces_key is not None:
            raise ValueError(
                f"--forces-key {forces_key}: {path} is a CP2K run, with forces of its own"
            )
        return cp2k_run.read_cp2k(path, units)
    if path.suffix.lower() == ".npz":
        return npz.read_npz(path, forces_key)
    if images.is_extended_xyz(path):
        return extended_xyz.read_extended_xyz(path, forces_key)
    return images.read_with_ase(path, forces_key, units)


def describe(frames: Frames) -> str:
    """What was read, in a line: frames, atoms, cell, units, energies and what was left out."""
    count, atoms = frames.positions.shape[:2]
    elements, repeats = np.unique(frames.numbers, return_counts=True)
    formula = " ".join(
        f"{SYMBOLS[number]}{repeat if repeat > 1 else ''}"
        for number, repeat in zip(elements, repeats, strict=True)
    )
    known = int(np.isfinite(frames.energy).sum())
    energies = "energies" if known == count else "no energies"
    if 0 < known < count:
        energies = f"energies in {known} of them"
    parts = [
        f"{count} frame{'s' if count > 1 else ''} of {atoms} atoms ({formula})",
        _cell_text(frames.cell),
        f"in {frames.units}",
        energies,
        *frames.remarks,
    ]
    return f"{frames.source}: {', '.join(parts)}"


def _cell_text(cell: np.ndarray) -> str:
    if not cell.any():
        return "open space"
    lengths = np.sqrt((cell**2).sum(-1))
    volume = abs(np.linalg.det(cell))
    size = " x ".join(f"{length:.4g}" for length in lengths[0])
    turned = not np.allclose(volume, lengths.prod(-1), rtol=1e-6)
    text = f"periodic in {size} Å" + (" (not orthogonal)" if turned else "")
    if not np.allclose(cell, cell[0]):
        low, high = volume.min(), volume.max()
        text += f" (changing, {low:.5g} to {high:.5g} Å³)"
    return text


def chosen(frames: Frames, split: str) -> Frames:
    """The frames of a split; ValueError if there are none."""
    flags = frames.split == split
    if not flags.any():
        names = ", ".join(sorted(set(map(str, frames.split))))
        raise ValueError(f"{frames.source} has no frame of split {split!r} (has {names})")
    return frames.part(flags)


def owners(frames: Frames) -> np.ndarray | None:
    """Index of the atom that each hydrogen is bonded to; None without hydrogens or oxygens.

    The one that it touches most, by covalent radii: the hydrogens of carbon are not those of an
    oxygen beside it.
    """
    if frames.owner is not None:
        return frames.owner
    numbers = frames.numbers
    hydrogens = np.flatnonzero(numbers == 1)
    if not len(hydrogens) or not (numbers == 8).any():
        return None
    from ase import Atoms
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    cell, place = frames.cell[0], frames.positions[0]
    atoms = Atoms(numbers, place, cell=cell, pbc=bool(cell.any()))
    first, second, distance = neighbor_list("ijd", atoms, _LONGEST_BOND)
    apart = distance / (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    order = np.lexsort((apart, first))
    order = order[first[order] != second[order]]
    owner: np.ndarray = np.full(len(numbers), -1, np.int64)
    owner[first[order][::-1]] = second[order][::-1]  # the nearest one last
    for alone in hydrogens[owner[hydrogens] < 0]:
        away = (minimum_image(place - place[alone], cell) ** 2).sum(-1)
        away[alone] = np.inf
        owner[alone] = away.argmin()
    return owner[hydrogens]


def minimum_image(r: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Displacements [..., 3] to the nearest image in a cell [3, 3], however oblique its vectors.

    Exact for what is closer than half the smallest width of the cell's most compact vectors.
    """
    if not cell.any():
        return r
    from ase.geometry import minkowski_reduce

    compact, _ = minkowski_reduce(cell)
    return nearest_image_array(r, compact)


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


def frames_of_atoms(images: Sequence[Any]) -> Frames:
    """Frames from ASE's Atoms, whose calculators are asked for forces and energies.

    Any calculator of ASE becomes a reference that agents are fitted to.
    """
    from .images import of_atoms

    frames = _frames(of_atoms(images), None)
    total = hashlib.sha256()
    for array in (frames.positions, frames.forces, frames.cell, frames.numbers):
        total.update(np.ascontiguousarray(array).tobytes())
    return frames._replace(digest=total.hexdigest())


def _frames(raw: Raw, units: unit_checks.Units | None) -> Frames:
    """Data in Angstrom and eV; ValueError for what cannot be fitted to.

    units: of the numbers, where the file does not say them.
    """
    for name in ("positions", "forces", "cell"):
        bad = ~np.isfinite(getattr(raw, name)).all((1, 2))
        if bad.any():
            raise ValueError(f"{raw.source}: {name} of frame {int(bad.argmax())} are not finite")
    if len(raw.numbers) < 2:
        raise ValueError(f"{raw.source}: a lone atom has no neighbour to infer forces from")
    length, energy, force = (units or unit_checks.OURS).scales if raw.units is None else (1, 1, 1)
    positions, forces, cell = raw.positions * length, raw.forces * force, raw.cell * length
    if not forces.any():
        raise ValueError(f"{raw.source}: all forces are zero")
    _require_one_space(raw.source, cell)
    seen = unit_checks.look(positions, forces, raw.numbers, cell)
    if units is None:
        unit_checks.require_plausible(raw.source, seen)
    if raw.owner is not None:
        _require_bonds(raw.source, positions[0], raw.numbers, cell[0], raw.owner)
    hint = unit_checks.sign_hint(seen)
    unit_names = raw.units or (f"{units}" if units else f"{unit_checks.OURS} (assumed)")
    return Frames(
        positions,
        forces,
        raw.numbers,
        cell,
        raw.energy * energy,
        _split(len(positions)) if raw.split is None else raw.split,
        raw.owner,
        raw.source,
        raw.digest,
        unit_names,
        (*raw.remarks, *(() if hint is None else (hint,))),
    )


def _require_one_space(source: str, cell: np.ndarray) -> None:
    """Raise ValueError unless all frames are periodic, or all in open space; cells [frames, 3, 3].

    All frames get the same copies of their cells, and atoms in open space have none.
    """
    periodic = cell.any((1, 2))
    if periodic.any() and not periodic.all():
        there, here = int(periodic.argmax()), int(periodic.argmin())
        raise ValueError(
            f"{source}: frame {there} is periodic and frame {here} is in open space; all frames "
            f"must be one or the other"
        )


def _require_bonds(
    source: str, position: np.ndarray, numbers: np.ndarray, cell: np.ndarray, owner: np.ndarray
) -> None:
    """Raise ValueError for a hydrogen that is bonded to itself or to an atom that is far away."""
    hydrogens = np.flatnonzero(numbers == 1)
    r = np.linalg.norm(minimum_image(position[hydrogens] - position[owner], cell), axis=-1)
    wrong = (hydrogens == owner) | (r > _LONGEST_BOND)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"{source}: h_owner bonds hydrogen {hydrogens[first]} to atom {owner[first]}, "
            f"{r[first]:.3g} Angstrom away in frame 0; it must be another, at most "
            f"{_LONGEST_BOND:g} away"
        )


def _split(count: int) -> np.ndarray:
    first = round(count * (1 - _VALIDATION))
    split = np.full(count, "train", dtype="<U5")
    split[max(1, first - round(_GUARD * count)) : first] = "guard"
    split[first:] = "val"
    return split


def symbols(numbers: np.ndarray) -> list[str]:
    """Chemical symbols of atomic numbers."""
    return [SYMBOLS[int(n)] for n in numbers]
