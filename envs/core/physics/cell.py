"""Periodic cells whose rows are the lattice vectors; a cell of zeros is open space.

Functions take torch tensors; `cell` is [..., 3, 3] and broadcasts against vectors [..., 3].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .plane import dot


def inverse(cell: Tensor) -> Tensor:
    """The inverse [..., 3, 3]; zeros for open space."""
    open_space = (cell == 0).all(-1).all(-1)[..., None, None]
    safe = torch.where(open_space, torch.eye(3, dtype=cell.dtype, device=cell.device), cell)
    return torch.where(open_space, torch.zeros_like(cell), torch.linalg.inv(safe))


def nearest_image(r: Tensor, cell: Tensor) -> Tensor:
    """Displacements `r` [..., 3] less the rounded number of lattice vectors that they contain.

    For a pair closer than half the smallest width of the cell this is the nearest image. Unchanged
    in open space. Differentiable in `r`.
    """
    turns = dot(r.unsqueeze(-2), inverse(cell).mT).round().detach()
    return r - dot(turns.unsqueeze(-2), cell.mT)


def nearest_image_array(r: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """`nearest_image` of displacements [..., 3] in a cell [3, 3], of numpy arrays."""
    vectors, rows = (torch.from_numpy(np.asarray(array, float)) for array in (r, cell))
    return nearest_image(vectors, rows).numpy()


def widths(cell: Tensor) -> Tensor:
    """Distances [..., 3] between opposite faces: V / |a x b| and so on; inf for open space."""
    rows = inverse(cell).mT
    return 1 / torch.linalg.vector_norm(rows, dim=-1)


def half_width(cell: np.ndarray) -> float:
    """The largest cutoff that nearest images allow in the cell [3, 3]; inf for open space."""
    return 0.5 * float(widths(torch.from_numpy(np.asarray(cell, float))).min())


def require_cutoff(cutoff: float, cell: np.ndarray) -> None:
    """Raise ValueError if a cell [3, 3] is narrower than twice the cutoff."""
    half = half_width(cell)
    if cutoff > half * (1 + 1e-12):
        raise ValueError(
            f"cutoff={cutoff:g} must be at most half the smallest width of the cell, {half:.4g}: "
            f"replicate the cell"
        )


def copies_for(cutoff: float, cell: np.ndarray) -> tuple[int, int, int]:
    """How often a cell [3, 3] must be repeated along each vector to be two cutoffs wide."""
    needed = np.ceil(2 * cutoff / widths(torch.from_numpy(np.asarray(cell, float))).numpy() - 1e-12)
    a, b, c = (max(1, int(n)) for n in needed)
    return a, b, c


def replicate(
    position: np.ndarray, cell: np.ndarray, copies: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Positions [..., copies * atoms, 3], copy after copy (the given one first), and the cell."""
    grid = np.stack(np.meshgrid(*map(np.arange, copies), indexing="ij"), -1).reshape(-1, 3)
    moved = position[..., None, :, :] + (grid @ cell)[:, None, :]
    return moved.reshape(*position.shape[:-2], -1, 3), cell * np.array(copies)[:, None]
