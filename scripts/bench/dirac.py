"""What `bench` measures of Dirac fields: steps of the walk beside the traffic of their memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.bench.measure import Case, Work

ID = "dirac-steer-v0"
ANGLE = 0.3


def cases() -> Iterator[Case]:
    """The walk on a ring and on a torus, and the id's fused rollouts."""
    for name, dimension, side in (
        ("a ring of 4,096 sites", 1, 4096),
        ("a torus of 512 x 512 sites", 2, 512),
    ):
        yield Case(
            f"Dirac walk, {name}",
            partial(bare, dimension, side),
            "reading and writing the same memory alone",
            partial(traffic, dimension, side),
            unit="site updates/s",
        )
        yield Case(
            f"Dirac walk, fused rollout of {name}",
            partial(fused, dimension, side),
            "the bare kernel",
            partial(bare, dimension, side),
            at_least=1 / 1.5,
            unit="site updates/s",
        )
    yield Case(
        "Dirac walk, a ring of 4,096 sites, against torch",
        partial(bare, 1, 4096),
        "the torch form",
        torch_form,
        unit="site updates/s",
    )


def bare(dimension: int, side: int) -> Work:
    """The kernel alone, on links whose phases stay."""
    from invariantzoo.envs.dirac.propagation import propagate

    u, d, phase, row, spare = _arrays(dimension, side)
    link, control = np.zeros(len(phase)), np.zeros((0, len(phase)))
    steps, shape = _steps(dimension), (1 if dimension == 1 else side, side)
    c, s = float(np.cos(ANGLE)), float(np.sin(ANGLE))

    def work() -> int:
        propagate(u, d, link, phase, control, 0, steps, c, s, shape, row, spare)
        return steps * len(u)

    return work


def traffic(dimension: int, side: int) -> Work:
    """What a step must read and write, with one addition per number: the limit by memory."""
    from invariantzoo.envs.core.kernels.compiling import compiled

    @compiled(error_model="numpy")
    def added(one: Any, other: Any, to: Any) -> None:
        for i in range(len(one)):
            to[i] = one[i] + other[i]

    def copied(u: Any, d: Any, phase: Any, to_u: Any, to_d: Any) -> None:
        added(u.ravel(), phase[: len(u)].ravel(), to_u.ravel())
        added(d.ravel(), phase[-len(u) :].ravel(), to_d.ravel())

    u, d, phase, _, spare = _arrays(dimension, side)
    steps = _steps(dimension)

    def work() -> int:
        for _ in range(steps // 2):
            copied(u, d, phase, spare[0], spare[1])
            copied(spare[0], spare[1], phase, u, d)
        return steps * len(u)

    return work


def fused(dimension: int, side: int) -> Work:
    """The environment's rollout without control, with one record at the end of a call."""
    from invariantzoo.envs.core.vector import VectorEnv

    system: Any = invariantzoo.make_system(ID, dimensions=dimension, side=side)
    env = VectorEnv(system, 1, seed=0)
    env.reset()
    steps = _steps(dimension)

    def work() -> int:
        env.rollout("none", steps, every=steps)
        return steps * side**dimension

    return work


def torch_form() -> Work:
    """The readable form on the same ring."""
    import torch

    from invariantzoo import Torus
    from invariantzoo.envs.dirac.walk import Spinor, walk_step

    lattice, link = Torus((4096,)), torch.zeros(1, 4096, dtype=torch.float64)
    u, d, *_ = _arrays(1, 4096)
    psi = Spinor(*(torch.view_as_complex(torch.from_numpy(part))[None] for part in (u, d)))

    def work() -> int:
        walk_step(lattice, psi, link, ANGLE)
        return 4096

    return work


def _steps(dimension: int) -> int:
    return 2000 if dimension == 1 else 20


def _arrays(dimension: int, side: int) -> tuple[np.ndarray, ...]:
    """Fields u, d, phases of the links, and the kernel's memory."""
    rng = np.random.default_rng(0)
    sites = side**dimension
    u, d = rng.normal(size=(2, sites, 2)) / (2 * sites**0.5)
    angle = rng.uniform(-np.pi, np.pi, dimension * sites)
    phase = np.stack([np.cos(angle), np.sin(angle)], -1)
    return u, d, phase, np.empty((2, side, 2)), np.empty((2, sites, 2))
