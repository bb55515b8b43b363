"""Randomness: one seed gives one stream per world, the same at any batch size.

Numbers come from a counter-based generator (`kernels/philox.py`): the key is the seed; the counter
is (element, draw, clock, world). World i of a batch of 4096 therefore draws what world i draws
alone, in numba and in torch, on any device: uniform numbers to the last bit, normal ones to the
rounding of logarithm, sine and cosine there. The state of the generator is just the clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .kernels import philox
from .seeds import require_seed

TRANSITION, INITIAL, POLICY, TEST, SEARCH = 0, 1, 2, 3, 4
_MASK = 0xFFFFFFFF


def fresh_seed() -> int:
    """A seed from the operating system's entropy."""
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))


class Rng:
    """Draws for a batch of worlds; a call's first dimension is the world.

    seed: whole number in [0, 2**64), else ValueError.  world, clock [worlds]: index of each world
    and the number of steps it has made.  purpose: keeps apart the draws of the initial state, the
    transition and the policy at the same clock, and those of a search over weights.
    """

    def __init__(self, seed: int, world: Tensor, clock: Tensor, purpose: int = TRANSITION) -> None:
        require_seed("seed", seed)
        self.seed = int(seed)
        self.world = world
        self.clock = clock
        self.draw_number = purpose << 24

    @classmethod
    def single(
        cls, seed: int, worlds: int, purpose: int = TEST, device: str | torch.device = "cpu"
    ) -> Rng:
        """A generator for `worlds` worlds at clock 0."""
        index = torch.arange(worlds, device=device)
        return cls(seed, index, torch.zeros_like(index), purpose)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), float64 `shape` = [worlds, ...]."""
        return self._numbers(shape, philox.fill_uniform, _torch_uniform)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float64 `shape` = [worlds, ...]."""
        return self._numbers(shape, philox.fill_normal, _torch_normal)

    def draw(self, value: float | tuple[float, float], worlds: int) -> Tensor:
        """One number per world [worlds, 1]: `value` itself, or uniform between (low, high)."""
        if isinstance(value, tuple):
            low, high = value
            return low + (high - low) * self.uniform(worlds, 1)
        self.draw_number += 1  # so that a fixed value leaves all later numbers as they are
        return torch.full((worlds, 1), float(value), dtype=torch.float64, device=self.world.device)

    def _numbers(
        self,
        shape: tuple[int, ...],
        fill: Callable[..., None],
        on_device: Callable[[int, Tensor, Tensor, int, int], Tensor],
    ) -> Tensor:
        if shape[0] != len(self.world):
            raise ValueError(
                f"shape {shape} must start with the number of worlds {len(self.world)}"
            )
        draw, self.draw_number = self.draw_number, self.draw_number + 1
        n = math.prod(shape[1:])
        if self.world.device.type == "cpu":
            out = np.empty((shape[0], n))
            fill(np.uint64(self.seed), self.world.numpy(), self.clock.numpy(), draw, out)
            return torch.from_numpy(out).reshape(shape)
        return on_device(self.seed, self.world, self.clock, draw, n).reshape(shape)


def _torch_words(seed: int, world: Tensor, clock: Tensor, draw: int, n: int) -> list[Tensor]:
    """Philox4x32-10 in int64 arithmetic (which wraps like uint64): four words [worlds, blocks]."""
    block = torch.arange((n + 1) // 2, device=world.device)[None, :]
    c = [block.expand(len(world), -1), torch.full_like(block, draw & _MASK)]
    c += [(clock & _MASK)[:, None], (world & _MASK)[:, None]]
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            ((p1 >> 32) & _MASK) ^ c[1] ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c[3] ^ k1,
            p0 & _MASK,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c


def _torch_pairs(seed: int, world: Tensor, clock: Tensor, draw: int, n: int) -> Tensor:
    """Two numbers in [0, 1) for every block: [worlds, blocks, 2]."""
    c = _torch_words(seed, world, clock, draw, n)
    high = torch.stack([c[0] >> 5, c[2] >> 5], -1).double()
    low = torch.stack([c[1] >> 6, c[3] >> 6], -1).double()
    return (high * 67108864.0 + low) / 9007199254740992.0


def _torch_uniform(seed: int, world: Tensor, clock: Tensor, draw: int, n: int) -> Tensor:
    return _torch_pairs(seed, world, clock, draw, n).flatten(1)[:, :n]


def _torch_normal(seed: int, world: Tensor, clock: Tensor, draw: int, n: int) -> Tensor:
    a, b = _torch_pairs(seed, world, clock, draw, n).unbind(-1)
    radius = (-2 * (1 - a).log()).sqrt()
    angle = 2 * math.pi * b
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten(1)[:, :n]
