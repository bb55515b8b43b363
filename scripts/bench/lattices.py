"""What `bench` measures of lattices: spins and exclusion processes, beside mcising and numpy."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.bench.interfaces import batched, parallel_steps
from invariantzoo.bench.measure import Case, Work

ISING = "ising-equilibrium-v0"


def ising_cases() -> Iterator[Case]:
    """Ising spins through the environment's fused rollout, kernels alone, and dictionaries."""
    for size, goal in ((32, 3), (128, 5), (1024, 5)):
        yield Case(
            f"Ising, one {size} x {size} lattice, heat bath with field",
            functools.partial(ising_fused, size, 1, 2**26 // size**2),
            "mcising, Metropolis with field",
            functools.partial(mcising_sweeps, size),
            ("mcising",),
            goal,
            unit="attempts/s",
        )
        yield Case(
            f"Ising, fused rollout of one {size} x {size} lattice",
            functools.partial(ising_fused, size, 1, 2**26 // size**2),
            "the bare kernel",
            functools.partial(ising_bare, size),
            at_least=1 / 1.5,
            unit="attempts/s",
        )
    yield Case(
        "Ising, 4,096 replicas of 32 x 32, 24 bits per chance",
        functools.partial(ising_fused, 32, 4096, 500),
        "mcising, Metropolis with field",
        functools.partial(mcising_sweeps, 32),
        ("mcising",),
        25,
        unit="attempts/s",
    )
    yield Case(
        "PettingZoo parallel, 1,024 Ising spins",
        ising_parallel,
        "dictionaries alone",
        dictionaries,
        at_least=1 / 1.5,
    )
    yield Case(
        "batched step, external actions, 64 worlds of 1,024 Ising spins",
        functools.partial(batched, ISING, 64, lattice_size=32, update="checkerboard"),
    )


def tasep_cases() -> Iterator[Case]:
    """Exclusion processes through the environment's fused rollout."""
    tuned = "own numpy batch of 512 chains"
    for sites in (100, 1024, 16_384):
        for chains, count in ((512, "512 chains"), (1, "one chain")):
            both = sites == 1024 and chains > 1
            yield Case(
                f"TASEP, random sequential, {count} of {sites:,} sites",
                functools.partial(tasep_fused, sites, chains),
                tuned,
                functools.partial(tasep_numpy, sites),
                at_least=40 if both else None,
                floor=3e8 if sites == 1024 else None,
                unit="attempts/s",
            )
    yield Case(
        "TASEP, random sequential, 512 chains of 1,024 sites",
        functools.partial(tasep_fused, 1024, 512),
        f"{tuned}, random numbers attempt by attempt",
        functools.partial(tasep_numpy_plain, 1024),
        unit="attempts/s",
    )


def tasep_fused(sites: int, chains: int) -> Work:
    """Open chains under the textbook policy, with one record at the end of a call."""
    from invariantzoo.envs.core.vector import VectorEnv

    system: Any = invariantzoo.make_system("tasep-open-v0", n_sites=sites)
    env = VectorEnv(system, chains, seed=0)
    env.reset()
    steps = 2**24 if chains == 1 else 64 * system.sweep

    def work() -> int:
        env.rollout("hop", steps, every=steps)
        return chains * steps

    return work


def tasep_numpy_plain(sites: int) -> Work:
    """512 chains, one attempt each at a time, as one writes it first."""
    rng = np.random.default_rng(0)
    chains = 512
    taken = rng.random((chains, sites + 2)) < 0.5
    taken[:, 0], taken[:, -1] = True, False
    which, rate = np.arange(chains), np.ones(sites + 1)
    rate[0], rate[-1] = 0.6, 0.7

    def work() -> int:
        bond = rng.integers(sites + 1, size=chains)
        hop = taken[which, bond] & ~taken[which, bond + 1] & (rng.random(chains) < rate[bond])
        taken[which[hop], bond[hop]] = False
        taken[which[hop], bond[hop] + 1] = True
        taken[:, 0], taken[:, -1] = True, False
        return chains

    return work


def tasep_numpy(sites: int) -> Work:
    """The same with random numbers for 256 attempts at once and flat places: twice as fast."""
    rng = np.random.default_rng(0)
    chains, times = 512, 256
    taken = rng.random((chains, sites + 2)) < 0.5
    taken[:, 0], taken[:, -1] = True, False
    flat, start = taken.ravel(), np.arange(chains) * (sites + 2)
    rate = np.ones(sites + 1, np.float32)
    rate[0], rate[-1] = 0.6, 0.7

    def work() -> int:
        bond = rng.integers(0, sites + 1, (times, chains), dtype=np.int32)
        wants = rng.random((times, chains), dtype=np.float32) < rate[bond]
        for site, want in zip(bond + start, wants, strict=True):
            hop = flat[site] & ~flat[site + 1] & want
            flat[site] ^= hop
            flat[site + 1] ^= hop
            taken[:, 0], taken[:, -1] = True, False
        return chains * times

    return work


def ising_fused(size: int, worlds: int, sweeps: int) -> Work:
    """Heat-bath agents on a checkerboard, so many sweeps a call, with one record at its end."""
    from invariantzoo.envs.core.vector import VectorEnv

    system: Any = invariantzoo.make_system(
        ISING, lattice_size=size, update="checkerboard", field=0.1, temperature=2.269
    )
    env = VectorEnv(system, worlds, seed=0)
    env.reset()
    steps = sweeps * system.sweep

    def work() -> int:
        env.rollout("heat-bath", steps, every=steps)
        return worlds * size * size * sweeps

    return work


def ising_bare(size: int) -> Work:
    """The kernel under the fused rollout, on arrays that stay packed."""
    from invariantzoo.envs.ising import rollout_colours as ising

    rng = np.random.default_rng(0)
    spin = 2.0 * rng.integers(0, 2, size * size) - 1
    black, white = (np.empty((size, size // 2 + 2), np.uint8) for _ in range(2))
    lanes, chances = np.empty((2, size // 2), np.uint32), np.empty(5, np.uint32)
    ising.pack_colours(spin, black, white)
    ising.start_lanes(np.uint64(0), 0, 0, lanes)
    ising.up_table(2.269, 0.1, 1.0, chances)
    sweeps = 2**26 // size**2

    def work() -> int:
        ising.colour_steps(black, white, chances, lanes, 2 * sweeps, 0)
        return size * size * sweeps

    return work


def mcising_sweeps(size: int) -> Work:
    """mcising's engine at the same temperature and field."""
    from mcising._core import IsingSimulation

    engine = IsingSimulation(size, 1.0, 0.0, 0.0, 0.1, 42)
    sweeps = max(1, 2**22 // size**2)

    def work() -> int:
        engine.sweep(sweeps, temperature=2.269)
        return size * size * sweeps

    return work


def ising_parallel() -> Work:
    """A PettingZoo step of 1,024 spins that all act at once."""
    return parallel_steps(invariantzoo.parallel_env(ISING, lattice_size=32, update="parallel"))


def dictionaries() -> Work:
    """What any such step must build: the same keys, constant rows, actions read, fresh infos."""
    agents = [f"spin_{i}" for i in range(1024)]
    rows, rewards = list(np.zeros((1024, 3), np.float32)), [0.0] * 1024
    actions = [dict.fromkeys(agents, np.int64(turn % 2)) for turn in range(16)]

    def work() -> int:
        for action in actions:
            read = np.array([action[agent] for agent in agents])
            assert read.shape == (1024,)
            made: tuple[dict[str, Any], ...] = (
                dict(zip(agents, rows, strict=True)),
                dict(zip(agents, rewards, strict=True)),
                dict.fromkeys(agents, False),
                dict.fromkeys(agents, False),
                {agent: {} for agent in agents},
            )
            assert len(made) == 5
        return 1024 * len(actions)

    return work
