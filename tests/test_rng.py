"""Random numbers: the published generator, the same in numba and torch and at any batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from numba import njit

from invariantzoo.envs.core import rng as rng_module
from invariantzoo.envs.core.kernels import philox
from invariantzoo.envs.core.rng import INITIAL, POLICY, TRANSITION, Rng

ONES = 0xFFFFFFFF
KNOWN = [  # counter, key, output: the known-answer vectors of Random123 (Salmon et al., SC 2011)
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (ONES, ONES, ONES, ONES),
        (ONES, ONES),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def make(seed: int, worlds: int, clock: int = 0, first: int = 0, purpose: int = TRANSITION) -> Rng:
    world = torch.arange(first, first + worlds)
    return Rng(seed, world, torch.full_like(world, clock), purpose)


@njit
def words_of(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    return philox.philox(c0, c1, c2, c3, k0, k1)


def test_what_compiled_code_alone_calls_says_so() -> None:
    """Whether it has been compiled already or not."""
    for _ in range(2):
        with pytest.raises(TypeError, match="philox works in compiled code only"):
            philox.philox(*(np.uint64(0) for _ in range(6)))
        words_of(*(np.uint64(0) for _ in range(6)))


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], output: tuple[int, ...]
) -> None:
    words = words_of(*(np.uint64(word) for word in (*counter, *key)))
    assert tuple(map(int, words)) == output
    assert reference.philox(counter, key) == output


@pytest.mark.parametrize("seed", [0, 1, 0x243F6A8885A308D3, 2**64 - 1])
@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (3, 2)])
def test_layout_of_the_counter(seed: int, shape: tuple[int, ...]) -> None:
    """Key: the seed. Counter: (pair of numbers, draw, clock, world)."""
    rng = make(seed, 3, clock=2**31, first=5, purpose=POLICY)
    rng.uniform(3, 4)
    found = rng.uniform(3, *shape).reshape(3, -1)
    for world, element in np.ndindex(*found.shape):
        counter = (element // 2, (POLICY << 24) + 1, 2**31, 5 + world)
        words = reference.philox(counter, (seed % 2**32, seed >> 32))
        high, low = words[2 * (element % 2) :][:2]
        expected = ((high >> 5) * 2**26 + (low >> 6)) / 2**53
        assert float(found[world, element]) == expected


def test_numba_and_torch_draw_the_same() -> None:
    world, clock = torch.tensor([0, 3, 2**32 - 1, 12345]), torch.tensor([0, 2**40 + 7, 5, 1])
    for seed in (0, 7, 2**63 + 11):
        for draw in (0, 1, (3 << 24) + 9):
            for n in (1, 2, 33):
                key = (np.uint64(seed), world.numpy(), clock.numpy(), draw)
                uniform, normal = np.empty((4, n)), np.empty((4, n))
                philox.fill_uniform(*key, uniform)
                philox.fill_normal(*key, normal)
                twin = rng_module._torch_uniform(seed, world, clock, draw, n).numpy()
                assert twin.tobytes() == uniform.tobytes()
                twin = rng_module._torch_normal(seed, world, clock, draw, n).numpy()
                np.testing.assert_allclose(twin, normal, rtol=1e-14, atol=1e-15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same() -> None:
    on_cpu, on_gpu = Rng.single(5, 9), Rng.single(5, 9, device="cuda")
    assert torch.equal(on_gpu.uniform(9, 31).cpu(), on_cpu.uniform(9, 31))
    torch.testing.assert_close(
        on_gpu.normal(9, 31).cpu(), on_cpu.normal(9, 31), rtol=1e-14, atol=1e-14
    )


def test_a_world_draws_the_same_in_any_batch() -> None:
    large = make(11, 4096, clock=4)
    numbers, bell = large.uniform(4096, 5), large.normal(4096, 3, 2)
    for worlds, first in ((1, 0), (1, 4095), (7, 50), (64, 4000)):
        small = make(11, worlds, clock=4, first=first)
        assert torch.equal(small.uniform(worlds, 5), numbers[first : first + worlds])
        assert torch.equal(small.normal(worlds, 3, 2), bell[first : first + worlds])


def test_draws_of_different_origin_differ() -> None:
    streams = [
        make(seed, 2, clock=clock, purpose=purpose).uniform(2, 8)
        for seed in (0, 1, 2**32)
        for clock in (0, 1)
        for purpose in (TRANSITION, INITIAL, POLICY)
    ]
    first = make(0, 2)
    streams += [first.uniform(2, 8), first.uniform(2, 8)][1:]
    rows = torch.cat(streams)
    assert len(rows.flatten().unique()) == rows.numel()


def test_uniform_numbers_are_uniform() -> None:
    n = 2**20
    u = make(3, 1024).uniform(1024, n // 1024).numpy()
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.bincount((u.ravel() * 256).astype(int), minlength=256)
    chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi2 - 255) < 5 * np.sqrt(2 * 255)
    for power in (1, 2, 3):
        se = np.sqrt((1 / (2 * power + 1) - 1 / (power + 1) ** 2) / n)
        assert abs((u**power).mean() - 1 / (power + 1)) < 4 * se
    for a, b in ((u[:, 1:], u[:, :-1]), (u[1:], u[:-1])):  # elements, worlds
        correlation = ((a - 0.5) * (b - 0.5)).mean() * 12
        assert abs(correlation) < 4 / np.sqrt(a.size)
    by_clock = np.stack([make(3, 1, clock=t).uniform(1, 64).numpy()[0] for t in range(512)])
    correlation = ((by_clock[1:] - 0.5) * (by_clock[:-1] - 0.5)).mean() * 12
    assert abs(correlation) < 4 / np.sqrt(by_clock.size)


def test_normal_numbers_are_normal() -> None:
    x = make(4, 1024).normal(1024, 1024).numpy().ravel()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - mean) < 4 * np.sqrt(variance / x.size)
    assert abs((x[::2] * x[1::2]).mean()) < 4 / np.sqrt(x.size / 2)
    assert abs((x > 1.959963984540054).mean() - 0.025) < 4 * np.sqrt(0.025 / x.size)


def test_ranges_are_drawn_once_per_world() -> None:
    rng = make(5, 4096)
    fixed, ranged = rng.draw(2.5, 4096), rng.draw((-1.0, 3.0), 4096)
    assert fixed.shape == ranged.shape == (4096, 1)
    assert (fixed == 2.5).all()
    assert ranged.min() >= -1
    assert ranged.max() < 3
    assert abs(float(ranged.mean()) - 1) < 4 * 4 / np.sqrt(12 * 4096)


def test_a_shape_must_start_with_the_worlds() -> None:
    with pytest.raises(ValueError, match="number of worlds 3"):
        make(0, 3).uniform(2, 3)
