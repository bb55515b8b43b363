"""Laws of Ising spins at rest: exact means, and the law that a chain of single flips keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from .exact import MOST_COLUMNS, moments

ENUMERATED = 16  # spins up to which a law is summed state by state
_STILL = 1e-10  # change of a law per step of power iteration at its end


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


def law_of_flips(flip: Tensor, law: Tensor) -> Tensor:
    """The law [states] that a chain of single flips keeps, by power iteration from `law`.

    flip [states, sites]: chance that a spin flips when it is drawn; bit i of a state is spin i.
    """
    n = flip.shape[1]
    partner = torch.arange(len(law))[:, None] ^ (1 << torch.arange(n))
    arrives, stays = flip[partner, torch.arange(n)] / n, 1 - flip.mean(1)
    for _ in range(20_000):
        after = law * stays + (law[partner] * arrives).sum(1)
        change, law = float((after - law).abs().sum()), after / after.sum()
        if change < _STILL:
            break
    return law


def torus_means(size: int, temperature: float, field: float, coupling: float) -> dict[str, float]:
    """Energy and magnetization per spin at equilibrium, by transfer matrix; {} for large tori."""
    if size > MOST_COLUMNS:
        return {}
    bonds, m = moments(size, coupling / temperature, field / temperature).mean / size**2
    return {"energy": float(-coupling * bonds - field * m), "magnetization": float(m)}
