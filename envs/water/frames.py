"""Frames of ab-initio data: 20 of each of two liquids ship, more come from a file.

`water16` holds 16 waters of our own run of CP2K, `water64` 64 waters of the example of DeePMD-kit
(see the README beside them). Results are kept by the name of the data: do not write into them.
"""

from __future__ import annotations

import functools
import os
import zipfile
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.physics.cell import half_width
from ..core.rng import Rng
from ..core.validation import nearest, shown
from .descriptors import CUTOFF, Pairs, all_pairs, pair_histogram, radial_descriptor, rdf

SHIPPED = ("water16", "water64")


class Data(NamedTuple):
    """Frames of the data as numpy arrays, and what is compared with."""

    position: np.ndarray  # [frames, agents, 3]
    force: np.ndarray  # [frames, agents, 3]
    cell: np.ndarray  # [3, 3]
    oxygen: np.ndarray  # [agents]


def read(name: str, split: str = "") -> Data:
    """Frames of data that ship, or of a file.

    Raises ValueError for what is no name, for a file that is missing or no such data, and for an
    unknown split.
    """
    if not isinstance(name, str | os.PathLike):
        raise ValueError(f"data={shown(name)} must be the name of data that ship, or of a file")
    if not isinstance(split, str):
        raise ValueError(f"split={shown(split)} must be the name of one")
    return _read(name, split)


@functools.lru_cache(maxsize=16)
def _read(name: str, split: str) -> Data:
    path = Path(name)
    if name in SHIPPED:
        path = Path(str(resources.files(__package__) / "data" / f"{name}.npz"))
    if not path.is_file():
        known = ", ".join(SHIPPED)
        raise ValueError(f"data={name!r} is no file{nearest(name, SHIPPED)} (ship: {known})")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        numbers, cell = arrays["numbers"], arrays["cell"].astype(float)
        position, force = (arrays[key].astype(float) for key in ("positions", "forces"))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"data={name!r} is no such data: {error}") from None
    if set(numbers.ravel().tolist()) != {1, 8}:
        raise ValueError(f"data={name!r} must hold oxygen and hydrogen, numbers 8 and 1")
    shape = (max(len(position), 1), len(numbers), 3)
    if numbers.ndim != 1 or position.shape != shape or force.shape != shape:
        shapes = f"{position.shape} and {force.shape}, of {numbers.shape} numbers"
        raise ValueError(
            f"data={name!r} has positions and forces {shapes}; they must be [frames, atoms, 3]"
        )
    if cell.shape != (3, 3) or not _is_wide(cell):
        raise ValueError(f"data={name!r} must have one cell at least {2 * CUTOFF:g} Angstrom wide")
    if not (np.isfinite(position).all() and np.isfinite(force).all()):
        raise ValueError(f"data={name!r} must have finite positions and forces")
    if split:
        blocks = arrays.get("split", np.array([""] * len(position)))
        if blocks.shape != (len(position),):
            raise ValueError(f"data={name!r} must name the split of each of its frames")
        if split not in blocks:
            names = ", ".join(sorted(set(map(str, blocks)) - {""})) or "none"
            raise ValueError(f"split={split!r} must be one of those of the data: {names}")
        position, force = position[blocks == split], force[blocks == split]
    return Data(position, force, cell, (numbers == 8).astype(float))


def _is_wide(cell: np.ndarray) -> bool:
    """Whether nearest images are right in a cell [3, 3]; zeros are open space, which has none."""
    if not cell.any():
        return True
    spans = bool(np.isfinite(cell).all() and np.linalg.det(cell) != 0)
    return spans and half_width(cell) >= CUTOFF


@functools.lru_cache(maxsize=16)
def mean_square(name: str, split: str = "") -> float:
    """Mean squared force on an atom of the data, (eV/Angstrom)^2."""
    return float((read(name, split).force ** 2).sum(-1).mean())


@functools.lru_cache(maxsize=16)
def mean_neighbourhood(name: str, split: str = "") -> np.ndarray:
    """Mean radial invariants [2, 20] of oxygens and of hydrogens in the data."""
    data = read(name, split)
    q = np.stack(
        [radial_descriptor(pairs_of(data, f))[0].numpy() for f in range(len(data.position))]
    )
    return np.stack([q[:, data.oxygen == 1].mean((0, 1)), q[:, data.oxygen == 0].mean((0, 1))])


@functools.lru_cache(maxsize=16)
def reference_rdf(name: str, split: str = "") -> np.ndarray:
    """Radial distribution functions [3, bins] of the data: O-O, O-H, H-H."""
    data = read(name, split)
    frames = range(len(data.position))
    histogram = torch.stack([pair_histogram(pairs_of(data, frame)) for frame in frames]).sum(0)
    oxygen, cell = torch.from_numpy(data.oxygen)[None], torch.from_numpy(data.cell)[None]
    return (rdf(histogram, oxygen, cell)[0] / len(data.position)).numpy()


def pairs_of(data: Data, frame: int) -> Pairs:
    """All pairs of one frame, in a batch of one world."""
    arrays = data.position[frame], data.oxygen, data.cell
    return all_pairs(*(torch.from_numpy(array)[None] for array in arrays))


def drawn_frames(data: Data, rng: Rng, worlds: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions, forces, species and cells of frames drawn at random."""
    frame = (len(data.position) * rng.uniform(worlds)).long()
    device = frame.device
    x, f = (torch.from_numpy(array).to(device)[frame] for array in (data.position, data.force))
    oxygen = torch.from_numpy(data.oxygen).to(device).expand(worlds, -1).clone()
    return x, f, oxygen, torch.from_numpy(data.cell).to(device).expand(worlds, -1, -1).clone()
