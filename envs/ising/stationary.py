"""Laws of Ising spins at rest: exact means, and the law that a chain of single flips keeps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .exact import MOST_COLUMNS, moments

ENUMERATED = 16  # spins up to which a law is summed state by state
_STILL, _CYCLES, _STEPS = 1e-10, 500, 10  # change of a law in its last cycle, most cycles, steps
_LEAST = 1e-300  # chance of a state that is not 0


def configurations(n: int) -> Tensor:
    """All states of n spins [2**n, n]: bit i of the index says whether spin i is up."""
    code = torch.arange(2**n)[:, None]
    return 2.0 * (code >> torch.arange(n) & 1).double() - 1


def means(law: Tensor, values: dict[str, Tensor]) -> dict[str, float]:
    """Means of values [states] under a law [states]."""
    return {name: float(law @ value) for name, value in values.items()}


def relative_entropy(law: Tensor, other: Tensor) -> float:
    """Kullback-Leibler divergence of a law [states] from another."""
    return float((torch.special.xlogy(law, law) - torch.special.xlogy(law, other)).sum())


def law_of_flips(flip: Tensor, law: Tensor) -> Tensor | None:
    """The law [states] that a chain of single flips keeps; None if it is not one, or not found.

    flip [states, sites]: chance that a spin flips when it is drawn; bit i of a state is spin i.
    law [states]: a guess. States with as many spins up that it takes for equally likely are a
    group. Each cycle finds what the chain of groups keeps, exactly, and then makes some steps of
    all states: cold spins hardly ever change their group, and within it they mix soon (iterative
    aggregation and disaggregation, Koury, McAllister and Stewart, SIAM J. Alg. Disc. Meth. 5, 164
    (1984)).
    """
    n = flip.shape[1]
    partner = torch.arange(len(law))[:, None] ^ (1 << torch.arange(n))
    leaves = flip / n
    arrives, stays = leaves[partner, torch.arange(n)], 1 - leaves.sum(1)
    law = law.clamp_min(_LEAST)
    kinds = torch.stack([configurations(n).sum(1), law.log().round(decimals=6)])
    group = torch.unique(kinds, dim=1, return_inverse=True)[1]
    groups = int(group.max()) + 1
    passage = (group[:, None] * groups + group[partner]).flatten()
    for _ in range(_CYCLES):
        within = law / law.new_zeros(groups).index_add(0, group, law)[group]
        flow = law.new_zeros(groups**2).index_add(0, passage, (within[:, None] * leaves).flatten())
        among = _law_of_chain(flow.reshape(groups, groups).numpy())
        if among is None:
            return None
        before, law = law, within * torch.from_numpy(among)[group]
        for _ in range(_STEPS):
            law = law * stays + (law[partner] * arrives).sum(1)
        law = (law / law.sum()).clamp_min(_LEAST)
        if float((law - before).abs().sum()) < _STILL:
            return law
    return None


def _law_of_chain(rates: np.ndarray) -> np.ndarray | None:
    """What a chain with rates [from, to] keeps; None if there is more than one such law.

    Nothing is subtracted, so that the smallest rates count (Grassmann, Taksar and Heyman, Oper.
    Res. 33, 1107 (1985)); the diagonal is not used.
    """
    rates = rates.copy()
    for last in range(len(rates) - 1, 0, -1):
        away = rates[last, :last].sum()
        if not away > 0:
            return None
        rates[:last, last] /= away
        rates[:last, :last] += np.outer(rates[:last, last], rates[last, :last])
    law = np.ones(len(rates))
    for place in range(1, len(rates)):
        law[place] = law[:place] @ rates[:place, place]
    return np.asarray(law / law.sum())


def torus_means(size: int, temperature: float, field: float, coupling: float) -> dict[str, float]:
    """Energy and magnetization per spin at equilibrium, by transfer matrix; {} for large tori."""
    if size > MOST_COLUMNS:
        return {}
    bonds, m = moments(size, coupling / temperature, field / temperature).mean / size**2
    return {"energy": float(-coupling * bonds - field * m), "magnetization": float(m)}
