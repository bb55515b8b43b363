"""Frames in an .npz of plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...envs.core.files import load_arrays
from .raw import Raw, atomic_numbers, digest, energy_name, periodic_cell

NEEDED = ("positions", "forces", "numbers", "cell")


def read_npz(path: Path, forces_key: str | None = None) -> Raw:
    """positions, forces [frames, atoms, 3], numbers [atoms], cell [3, 3] or [frames, 3, 3].

    A cell of zeros is open space; three lengths [3] are an orthorhombic one.  May hold: energy
    [frames]; pbc, three truth values; split [frames]; order [frames], by which frames are sorted;
    h_owner [hydrogens], atoms that the hydrogens are bonded to.
    Raises ValueError that names the array for another shape or kind of number.
    """
    data = load_arrays(path)
    name = forces_key or "forces"
    for key in NEEDED:
        key = name if key == "forces" else key
        if key not in data:
            hint = " (--forces-key names another array)" if key == name else ""
            has = ", ".join(sorted(data)) or "nothing"
            raise ValueError(f"{path} has no {key!r}: needed{hint} (has {has})")
    positions = _real(path, data, "positions")
    if positions.ndim != 3 or positions.shape[2:] != (3,):
        raise ValueError(f"{path}: positions have shape {positions.shape}, not [frames, atoms, 3]")
    count, atoms = positions.shape[:2]
    if not count:
        raise ValueError(f"{path} holds no frame: positions have shape {positions.shape}")
    forces = _real(path, data, name)
    if forces.shape != positions.shape:
        shapes = f"{forces.shape} for positions {positions.shape}"
        raise ValueError(f"{path}: {name} have shape {shapes}")
    frames = Raw(
        positions,
        forces,
        _numbers(path, data, count, atoms),
        _cells(path, data, count),
        _energy(path, data, energy_name(name), count),
        str(path),
        digest((path,)),
        _split(path, data, count),
        None,
    )
    frames = frames._replace(owner=_owner(path, data, frames.numbers))
    order = _order(path, data, count)
    return frames._replace(
        positions=frames.positions[order],
        forces=frames.forces[order],
        cell=frames.cell[order],
        energy=frames.energy[order],
        split=None if frames.split is None else frames.split[order],
    )


def _real(path: Path, data: dict[str, np.ndarray], key: str) -> np.ndarray:
    if data[key].dtype.kind not in "iuf":
        raise ValueError(f"{path}: {key} holds {data[key].dtype}, not real numbers")
    return np.asarray(data[key], float)


def _whole(path: Path, data: dict[str, np.ndarray], key: str) -> np.ndarray:
    values = _real(path, data, key)
    if not (np.isfinite(values) & (values == np.round(values)) & (abs(values) < 2**31)).all():
        raise ValueError(f"{path}: {key} must be whole numbers")
    return values.astype(np.int64)


def _numbers(path: Path, data: dict[str, np.ndarray], count: int, atoms: int) -> np.ndarray:
    numbers = _whole(path, data, "numbers")
    if numbers.shape == (count, atoms) and (numbers == numbers[0]).all():
        numbers = numbers[0]
    if numbers.shape != (atoms,):
        raise ValueError(f"{path}: numbers have shape {numbers.shape}, not [{atoms}], one per atom")
    try:
        return atomic_numbers(numbers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _cells(path: Path, data: dict[str, np.ndarray], count: int) -> np.ndarray:
    cell = _real(path, data, "cell")
    if cell.shape == (3,):
        cell = np.diag(cell)
    if cell.shape not in ((3, 3), (count, 3, 3)):
        raise ValueError(
            f"{path}: cell has shape {cell.shape}, not [3, 3], [frames, 3, 3] or three lengths [3]"
        )
    pbc = None
    if "pbc" in data:
        flags = data["pbc"]
        if (
            flags.dtype.kind not in "bi"
            or flags.shape not in ((), (3,))
            or set(flags.flat) - {0, 1}
        ):
            given = f"{flags.tolist()!r:.60}"
            raise ValueError(f"{path}: pbc must be one or three truth values, not {given}")
        pbc = [bool(flag) for flag in np.broadcast_to(flags, 3)]
    cells = np.broadcast_to(cell, (count, 3, 3))
    out = np.empty((count, 3, 3))
    for k, lattice in enumerate(cells):
        try:
            out[k] = periodic_cell(lattice, pbc)
        except ValueError as error:
            raise ValueError(f"{path}: frame {k} {error}") from None
    return out


def _energy(path: Path, data: dict[str, np.ndarray], key: str, count: int) -> np.ndarray:
    if key not in data:
        return np.full(count, np.nan)
    energy = _real(path, data, key)
    if energy.shape == (count, 1):
        energy = energy[:, 0]
    if energy.shape != (count,):
        raise ValueError(f"{path}: {key} has shape {energy.shape}, not [{count}], one per frame")
    if np.isinf(energy).any():
        raise ValueError(f"{path}: {key} of frame {int(np.isinf(energy).argmax())} is not finite")
    return energy


def _split(path: Path, data: dict[str, np.ndarray], count: int) -> np.ndarray | None:
    if "split" not in data:
        return None
    split = data["split"]
    if split.dtype.kind not in "US" or split.shape != (count,):
        raise ValueError(
            f"{path}: split has shape {split.shape} of {split.dtype}, not [{count}] names"
        )
    return split.astype(str)


def _order(path: Path, data: dict[str, np.ndarray], count: int) -> np.ndarray:
    if "order" not in data:
        return np.arange(count)
    order = _real(path, data, "order")
    if order.shape != (count,):
        raise ValueError(f"{path}: order has shape {order.shape}, not [{count}], one per frame")
    if not np.isfinite(order).all():
        frame = int((~np.isfinite(order)).argmax())
        raise ValueError(f"{path}: order of frame {frame} is not finite")
    return np.argsort(order, kind="stable")


def _owner(path: Path, data: dict[str, np.ndarray], numbers: np.ndarray) -> np.ndarray | None:
    if "h_owner" not in data:
        return None
    owner, hydrogens = _whole(path, data, "h_owner"), int((numbers == 1).sum())
    if owner.shape != (hydrogens,) or ((owner < 0) | (owner >= len(numbers))).any():
        raise ValueError(
            f"{path}: h_owner must hold {hydrogens} numbers of atoms, one per hydrogen"
        )
    return owner
