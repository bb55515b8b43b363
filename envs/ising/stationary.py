"""The law that a chain of single flips keeps."""

from __future__ import annotations

import torch
from torch import Tensor

_STILL = 1e-10  # change of a law per step of power iteration at its end


def stationary(flip: Tensor, law: Tensor) -> Tensor:
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
