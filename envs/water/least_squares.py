"""The best forces whose weights depend on the species alone: a linear least-squares problem."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.rng import Rng
from .descriptors import N_FUNCTIONS, vectors
from .frames import mean_square, pairs_of, read


class Optimum(NamedTuple):
    """weights [2, 20] of oxygens and hydrogens; mean losses of all atoms and of each species."""

    weights: np.ndarray
    loss: float
    oxygen: float
    hydrogen: float


@functools.lru_cache(maxsize=16)
def optimum(name: str, split: str = "") -> Optimum:
    """The weights in [-1, 1] by species that leave the least squared error of the forces."""
    from scipy.optimize import lsq_linear

    data = read(name, split)
    columns = []
    for frame in range(len(data.position)):
        pairs = pairs_of(data, frame)
        columns.append(vectors(pairs)[0].numpy())
    design = np.stack(columns)
    scale = mean_square(name, split)
    weights, losses = [], []
    for chosen in (data.oxygen == 1, data.oxygen == 0):
        a = design[:, chosen].transpose(0, 1, 3, 2).reshape(-1, 2 * N_FUNCTIONS)
        b = data.force[:, chosen].reshape(-1)
        seen = np.abs(a).max(0) > 0
        w = np.zeros(2 * N_FUNCTIONS)
        w[seen] = lsq_linear(a[:, seen], b, (-1, 1), tol=1e-12, lsq_solver="exact").x
        weights.append(w)
        losses.append(float(((a @ w - b) ** 2).sum() / (len(b) / 3) / scale))
    share = float(data.oxygen.mean())
    whole = share * losses[0] + (1 - share) * losses[1]
    return Optimum(np.stack(weights), whole, losses[0], losses[1])


def by_species(weights: np.ndarray, seen: dict[str, Tensor], rng: Rng) -> Tensor:
    """The policy of constant weights [2, size] of oxygens and hydrogens."""
    own = seen["oxygen"].unsqueeze(-1)
    first, second = torch.from_numpy(weights).to(own)
    return second + own * (first - second)
