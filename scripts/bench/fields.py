"""What `bench` measures of Klein-Gordon fields, beside numpy and torch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.bench.interfaces import batched
from invariantzoo.bench.measure import Case, Work

FORCE, ABSORBER = "klein-gordon-force-v0", "klein-gordon-absorber-v0"
NOTES = {
    "Klein-Gordon": """Waves: loops over rows without their ends leave some
sites to a scalar loop, and arrays that do not begin at a cache line cost up to half of the speed;
rows that are kept with their periodic neighbours at whole lines have neither. Four steps a sweep
also gain where a lattice lies in the second cache. What did not gain: kicking a row and moving the
one behind it in place, for which no vectors come out; pieces of 256 to 1,024 columns; places of
the arrays that avoid equal low bits of addresses; 8 steps a sweep on 512 x 512. On 2,048 x 2,048 a
single step a sweep is slower than in place, so the gain of several is less than its ratio says:
about 1.5 over the former sweep in place. A record costs one pass for the energy and two copies of
the state, which is what a rollout with few steps a record pays.
The host gives this machine more or less of its time: the same command gave 1.2 to 2.4 updates per
ns on 512 x 512 and 1.0 to 2.2 on small lattices.""",
    "Dirac walk": """The walk is not bound by memory: a step stays below what the same memory
gives, in two dimensions by much. What did not gain there: loops split so that each writes to few
places, with the ends of rows apart; they gave the same numbers at two thirds of the speed.""",
}
C, D, DT = 0.04, 0.17, 0.2  # dt / a^2, dt (4 / a^2 + m^2) and dt, each small enough to be stable


def cases() -> Iterator[Case]:
    """Fused rollouts of a plane, kernels alone, many small lattices, and steps by actions."""
    plane = partial(fused, 512, 1, 128)
    unit = "site updates/s"
    name = "Klein-Gordon, 512 x 512, float32, 128 steps a call"
    in_place = partial(numpy_in_place, 512)
    yield Case(name, plane, "numpy, in place", in_place, (), 4, 2e9, unit)
    yield Case(name, plane, "numpy, roll", partial(numpy_roll, 512), (), 4, None, unit)
    yield Case(name, plane, "torch, roll", partial(torch_roll, 512), (), 6, None, unit)
    bare = partial(swept, 512, 4, 32)
    rollout = f"{name}, fused rollout"
    yield Case(rollout, plane, "the bare kernel", bare, (), 1 / 1.5, None, unit)
    large, plain = partial(swept, 2048, 8, 8), partial(swept, 2048, 1, 8)
    name = "Klein-Gordon, 2,048 x 2,048, float32, 8 steps a sweep"
    yield Case(name, large, "a step a sweep", plain, (), 1.4, None, unit)
    limit = partial(traffic, 2048)
    yield Case(name, large, "the same memory read and written once a step", limit, unit=unit)
    for size in (8, 16):
        name = f"Klein-Gordon, 4,096 lattices of {size} x {size}, float32, 128 steps a call"
        small, side_by_side = (partial(work, size, 4096, 128) for work in (fused, lanes))
        yield Case(name, small, "the bare kernel", side_by_side, (), 1 / 1.5, 1.5e9, unit)
    yield Case(
        "window, Klein-Gordon, 512 x 512, a step a picture, clicks and knobs",
        partial(live, 512),
        floor=30,
        unit="frames/s",
    )
    yield Case(
        "batched step, external actions, 64 worlds of 1,024 sites of a field",
        partial(batched, FORCE, 64, lattice_size=32, dimensions=2),
    )
    yield Case(
        "batched step, external actions, 16 worlds of 22 boundary sites of a field",
        partial(batched, ABSORBER, 16),
    )


def fused(size: int, worlds: int, steps: int) -> Work:
    """The environment's rollout under the exact policy, with one record at the end of a call."""
    from invariantzoo.envs.core.vector import VectorEnv

    system: Any = invariantzoo.make_system(
        FORCE, dimensions=2, lattice_size=size, precision="float32"
    )
    env = VectorEnv(system, worlds, seed=0)
    env.reset()

    def work() -> int:
        env.rollout("leapfrog", steps, every=steps)
        return worlds * size * size * steps

    return work


def swept(size: int, depth: int, steps: int) -> Work:
    """The kernel of one plane, so many steps in a sweep."""
    from invariantzoo.envs.klein_gordon import rollout

    phi, momentum = _fields(size, size)
    kept = rollout.kept_rows(1, size, depth, phi.dtype)
    c, d, dt = (np.float32(value) for value in (C, D, DT))

    def work() -> int:
        rollout.sweep(phi, momentum, kept, 2, c, d, dt, steps, depth)
        return size * size * steps

    return work


def lanes(size: int, worlds: int, steps: int) -> Work:
    """The kernel of many small lattices, with their energies at the end."""
    from invariantzoo.envs.core.physics.lattice import Torus
    from invariantzoo.envs.klein_gordon import field, rollout

    phi, momentum = _fields(worlds, size * size)
    beside, sums = field.neighbour_table(Torus((size, size))), np.zeros(worlds)
    factors = np.repeat(np.array([[C], [D], [DT], [1.0], [0.25]], np.float32), worlds, 1)

    def work() -> int:
        rollout.move_lanes(phi, momentum, factors, beside, steps, sums)
        return worlds * size * size * steps

    return work


def live(size: int) -> Work:
    """The loop of a window that nobody sees, in which somebody plucks and turns the mass."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    from invariantzoo import Player, VectorEnv, make_policy
    from invariantzoo.envs.core.rendering import pygame
    from invariantzoo.envs.core.rendering.viewer import Viewer
    from invariantzoo.envs.core.rendering.window import Window

    system = invariantzoo.make_system(
        FORCE, dimensions=2, lattice_size=size, start="pluck", precision="float32"
    )
    env = VectorEnv(system, 1, seed=0)
    player, observation = Player(env, make_policy("leapfrog", system)), env.reset()

    def step() -> Any:
        nonlocal observation
        made = player.step(observation)
        observation = made.observation
        return made

    viewer = Viewer(env, step, lambda: None, title=FORCE)
    window = Window(viewer.window_size, title=FORCE, fps=100_000)  # as fast as it goes
    place, rng = min(viewer.window_size), np.random.default_rng(0)
    keys = itertools.cycle((pygame.K_RIGHTBRACKET, pygame.K_LEFTBRACKET))

    def work() -> int:
        pos = tuple(rng.integers(place // 4, place // 2, 2).tolist())
        pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=pos))
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=next(keys)))
        for _ in range(10):
            window.show(viewer.frame())
            for event in window.events():
                viewer.handle(event)
            viewer.advance(1 / viewer.rate)
        return 10

    return work


def numpy_roll(size: int) -> Work:
    """As one writes it first."""
    phi, momentum = _fields(size, size)

    def work() -> int:
        nonlocal phi, momentum
        around = np.roll(phi, 1, 0) + np.roll(phi, -1, 0) + np.roll(phi, 1, 1) + np.roll(phi, -1, 1)
        momentum = momentum + np.float32(C) * around - np.float32(D) * phi
        phi = phi + np.float32(DT) * momentum
        return size * size

    return work


def numpy_in_place(size: int) -> Work:
    """With a frame of ghost sites and no new arrays: the best of several that were tried."""
    inner, momentum = _fields(size, size)
    phi = np.pad(inner, 1, mode="wrap")
    middle, total = phi[1:-1, 1:-1], np.empty_like(inner)

    def work() -> int:
        np.add(phi[:-2, 1:-1], phi[2:, 1:-1], out=total)
        np.add(total, phi[1:-1, :-2], out=total)
        np.add(total, phi[1:-1, 2:], out=total)
        np.multiply(total, np.float32(C), out=total)
        np.add(momentum, total, out=momentum)
        np.multiply(middle, np.float32(D), out=total)
        np.subtract(momentum, total, out=momentum)
        np.multiply(momentum, np.float32(DT), out=total)
        np.add(middle, total, out=middle)
        phi[0], phi[-1] = phi[-2], phi[1]
        phi[:, 0], phi[:, -1] = phi[:, -2], phi[:, 1]
        return size * size

    return work


def torch_roll(size: int) -> Work:
    """The same in torch, in place where it can be."""
    import torch

    phi, momentum = (torch.from_numpy(part) for part in _fields(size, size))

    def work() -> int:
        around = phi.roll(1, 0) + phi.roll(-1, 0) + phi.roll(1, 1) + phi.roll(-1, 1)
        momentum.add_(around, alpha=C).add_(phi, alpha=-D)
        phi.add_(momentum, alpha=DT)
        return size * size

    return work


def traffic(size: int) -> Work:
    """Both arrays read and written once a step and nothing else."""
    phi, momentum = _fields(size, size)
    from invariantzoo.envs.core.kernels.compiling import compiled

    @compiled(error_model="numpy")
    def pass_over(first: Any, second: Any, share: Any) -> None:
        for i in range(first.shape[0]):
            for j in range(first.shape[1]):
                value, other = first[i, j], second[i, j]
                first[i, j] = value + share * other
                second[i, j] = other - share * value

    def work() -> int:
        pass_over(phi, momentum, np.float32(1e-4))
        return size * size

    return work


def _fields(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    both = rng.normal(size=(2, rows, columns)).astype(np.float32)
    return aligned(both[0]), aligned(both[1])


def aligned(values: np.ndarray) -> np.ndarray:
    """A copy that begins at a whole cache line, as tensors do and numpy's arrays do not."""
    import torch

    return torch.from_numpy(values).clone().numpy()
