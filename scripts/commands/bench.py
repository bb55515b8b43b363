"""Measure the speed of every interface, and of the peers that are installed.

Speeds are per CPU second of one thread: medians of repeats in which the sides take turns, so that
a ratio compares what was measured side by side in one run.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import importlib.util
import math
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import invariantzoo
from invariantzoo import options
from invariantzoo.report import table, write_text
from invariantzoo.tables import print_table

Work = Callable[[], int]  # does a little and returns how many agent-steps (or frames) that was

CROWD = "particles-crowd-v0"
ISING = "ising-equilibrium-v0"
IMPORT_SECONDS = 0.4
NOT_IMPORTED = ("torch", "stable_baselines3", "numba", "pygame")
MEMORY = ((4096, 32), (1, 100_000))  # worlds, agents
VERSIONS = (
    "numpy",
    "numba",
    "torch",
    "stable-baselines3",
    "pettingzoo",
    "mpe2",
    "vmas",
    "supersuit",
    "mcising",
    "openmm",
    "ase",
    "tblite",
)


class Case(NamedTuple):
    """Something to measure; the functions prepare it and return the work that is timed.

    needs: modules without which the peer is skipped.  at_least: of ours over theirs.
    floor: of ours alone.  slow: left out by --quick.  wall: per second of the clock on the wall.
    """

    name: str
    ours: Callable[[], Work]
    peer: str = ""
    theirs: Callable[[], Work] | None = None
    needs: tuple[str, ...] = ()
    at_least: float | None = None
    floor: float | None = None
    unit: str = "agent-steps/s"
    slow: bool = False
    wall: bool = False


class Result(NamedTuple):
    """A measured case; the last four are None without a peer or a goal."""

    case: str
    unit: str
    speed: float
    floor: float | None
    peer: str
    peer_speed: float | None
    ratio: float | None
    at_least: float | None
    met: bool | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `bench` takes."""
    parser.add_argument(
        "--peers", action="store_true", help="measure mpe2, vmas and supersuit too, where installed"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short repeat, without what takes minutes"
    )
    parser.add_argument("--only", metavar="TEXT", help="only the cases whose names contain TEXT")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the tables to FILE in Markdown"
    )


def run(args: argparse.Namespace) -> int:
    """Measure everything and print it."""
    options.require_output_file("--write", args.write)
    _one_thread()
    log = options.messages()
    named = [case for case in cases() if args.only is None or args.only in case.name]
    if not named:
        raise ValueError(f"--only {args.only!r} is in no case's name; see docs/speed.md for them")
    chosen = [case for case in named if not (case.slow and args.quick)]
    missing = sorted({name for case in chosen for name in case.needs if not _installed(name)})
    if args.peers and missing:
        log.print(f"not installed, skipped: {', '.join(missing)}")
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        for case in chosen:
            log.print(f"measuring: {case.name}")
            results.append(measure(case, peers=args.peers, quick=args.quick))
    report: dict[str, Any] = {
        "machine": machine(),
        "cases": [result._asdict() for result in results],
        "import": import_time(repeats=1 if args.quick else 5),
        "memory": [memory(worlds, agents) for worlds, agents in MEMORY],
        "missing": missing if args.peers else [],
    }
    if args.json:
        options.print_json(args, report)
    else:
        console = options.console(args)
        print_table(console, "speed per CPU second", HEADER, [_row(result) for result in results])
        for line in _remarks(report):
            options.print_line(console, line)
    if args.write:
        write_text(args.write, markdown(report, results))
    return 0


def cases() -> Iterator[Case]:
    """Everything that is measured."""
    mpe = "MPE2 simple_spread"
    for n, goal in ((3, 40), (10, 120), (30, 400)):
        yield Case(
            f"PettingZoo parallel, crowd of {n}",
            functools.partial(parallel, n),
            mpe,
            functools.partial(mpe_parallel, n),
            ("mpe2",),
            goal,
        )
    for worlds, n, goal in ((4096, 3, 3), (4096, 10, 10), (64, 30, 100)):
        yield Case(
            f"batched step, {worlds} worlds of {n}",
            functools.partial(batched, CROWD, worlds, n_agents=n),
            "VMAS simple_spread",
            functools.partial(vmas_batched, worlds, n),
            ("vmas",),
            goal,
        )
    yield Case(
        "SB3 PPO learn(), crowd of 10, our settings, plain network",
        functools.partial(learn, "mlp"),
        "SuperSuit + MPE2, the same settings",
        supersuit_learn,
        ("supersuit", "mpe2"),
        20,
        slow=True,
    )
    yield Case(
        "SB3 PPO learn(), crowd of 10, SB3's defaults",
        learn_plainly,
        "SuperSuit + MPE2, SB3's defaults",
        supersuit_learn_plainly,
        ("supersuit", "mpe2"),
        slow=True,
    )
    yield Case(
        "SB3 PPO learn(), crowd of 10, our settings, pair network",
        functools.partial(learn, "pair"),
        slow=True,
    )
    for n in (1000, 10_000, 100_000):
        yield Case(
            f"one world of {n:,} particles",
            functools.partial(batched, CROWD, 1, n_agents=n),
            "own search of all pairs, without the step",
            functools.partial(all_pairs, n),
            floor=8e5,
            slow=n > 10_000,
        )
    yield Case(
        "one world of 100,000 particles",
        functools.partial(batched, CROWD, 1, n_agents=100_000),
        "one world of 1,000",
        functools.partial(batched, CROWD, 1, n_agents=1000),
        at_least=0.5,
    )
    yield Case(
        "rgb_array 640 x 640, 100 particles",
        functools.partial(render, 100),
        "MPE2, 100 agents and 100 landmarks",
        functools.partial(mpe_render, 100),
        ("mpe2",),
        10,
        unit="frames/s",
    )
    yield Case("AEC, crowd of 10", functools.partial(aec, 10))
    yield Case("SB3 VecEnv, 64 worlds of 10", functools.partial(vec_env, 64, 10))
    yield Case("Gymnasium vector, 64 worlds of 10", functools.partial(gym_vector, 64, 10))
    yield Case(
        "torch form, 64 worlds of 10",
        functools.partial(batched, CROWD, 64, kernel=False, n_agents=10),
    )
    yield from optimizers()
    yield from ising_cases()
    yield from tasep_cases()
    from invariantzoo.bench import molecules

    yield from molecules.cases()
    for id in invariantzoo.ids():
        yield Case(f"batched step, 256 worlds of {id}", functools.partial(batched, id, 256))


def optimizers() -> Iterator[Case]:
    """CGD beside Adam, and dense metrics beside the backward pass that they follow."""
    for n in (10_000, 100_000, 1_000_000):
        for name, settings in (("CGD", {}), ("CGD without its kernel", {"fused": False})):
            yield Case(
                f"{name}, {n:,} parameters",
                functools.partial(descend, n, **settings),
                "torch Adam(foreach=True)",
                functools.partial(adam, n, foreach=True),
                at_least=1.0,
                unit="steps/s",
            )
        yield Case(
            f"CGD, {n:,} parameters",
            functools.partial(descend, n),
            "torch Adam(fused=True)",
            functools.partial(adam, n, fused=True),
            unit="steps/s",
        )
    yield Case(
        "CGD that looks for NaN, 100,000 parameters",
        functools.partial(descend, 100_000, check_finite=True),
        "torch Adam(foreach=True)",
        functools.partial(adam, 100_000, foreach=True),
        unit="steps/s",
    )
    metrics: list[dict[str, Any]] = [
        {"metric": "block"},
        {"metric": "block", "refresh": 10},
        {"metric": "block", "blocks": "row", "refresh": 10},
        {"metric": "full", "refresh": 10},
        {"metric": "lowrank", "rank": 20},
    ]
    for n in (256, 1000):
        for settings in metrics:
            words = ", ".join(str(value) for value in settings.values())
            yield Case(
                f"CGD {words}, {n:,} parameters",
                functools.partial(descend, n, **settings),
                "forward and backward of 256 rows",
                functools.partial(backward, n),
                unit="steps/s",
                slow=n > 256,
            )


def descend(n: int, **settings: Any) -> Work:
    """Steps of our optimizer on a network of about n parameters, with gradients as they are."""
    from invariantzoo.training.optim.cgd import CGD

    return _optimizing(n, lambda params: CGD(params, **settings))


def adam(n: int, **settings: Any) -> Work:
    """Steps of torch's Adam."""
    import torch

    return _optimizing(n, lambda params: torch.optim.Adam(params, **settings))


def _optimizing(n: int, make: Callable[[Any], Any]) -> Work:
    net, batch = _network(n)
    net(batch).square().mean().backward()
    optimizer = make(net.parameters())

    def work() -> int:
        optimizer.step()
        return 1

    return work


def backward(n: int) -> Work:
    """Forward and backward passes of a network of about n parameters."""
    net, batch = _network(n)

    def work() -> int:
        for p in net.parameters():
            p.grad = None
        net(batch).square().mean().backward()
        return 1

    return work


def _network(n: int) -> Any:
    """Two hidden layers with n parameters or a little less, and 256 rows for it."""
    import torch

    from invariantzoo.agents.networks.choose import initialise

    width = int((math.sqrt(11**2 + 4 * (n - 1)) - 11) / 2)  # 8 w + w + w^2 + w + w + 1
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(8, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, 1),
    )
    initialise(net, 0)
    return net, torch.randn(256, 8, generator=generator)


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
        for chains, said in ((512, "512 chains"), (1, "one chain")):
            both = sites == 1024 and chains > 1
            yield Case(
                f"TASEP, random sequential, {said} of {sites:,} sites",
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
        for place, want in zip(bond + start, wants, strict=True):
            hop = flat[place] & ~flat[place + 1] & want
            flat[place] ^= hop
            flat[place + 1] ^= hop
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
    return _parallel_steps(invariantzoo.parallel_env(ISING, lattice_size=32, update="parallel"))


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


def parallel(n: int) -> Work:
    """Our PettingZoo parallel environment with n agents."""
    return _parallel_steps(invariantzoo.parallel_env(CROWD, n_agents=n))


def mpe_parallel(n: int) -> Work:
    """MPE2's simple_spread with n agents, with episodes as long as ours."""
    from mpe2 import simple_spread_v3

    return _parallel_steps(
        simple_spread_v3.parallel_env(N=n, continuous_actions=True, max_cycles=200)
    )


def _parallel_steps(env: Any) -> Work:
    env.reset(seed=0)
    agents, n = list(env.agents), len(env.agents)
    for i, agent in enumerate(agents):
        env.action_space(agent).seed(i)
    actions = [{agent: env.action_space(agent).sample() for agent in agents} for _ in range(16)]

    def work() -> int:
        for action in actions:
            env.step(action)
            if not env.agents:
                env.reset()
        return n * len(actions)

    return work


def aec(n: int) -> Work:
    """Our AEC environment with n agents, observed and stepped one by one."""
    env = invariantzoo.env(CROWD, n_agents=n)
    env.reset(seed=0)
    space = env.action_space(env.agents[0])
    space.seed(0)
    actions = [space.sample() for _ in range(16)]

    def work() -> int:
        acted = 0
        for action in actions:
            _, _, terminated, truncated, _ = env.last()
            left = terminated or truncated
            env.step(None if left else action)
            acted += not left
            if not env.agents:
                env.reset()
        return acted

    return work


def batched(id: str, worlds: int, *, kernel: bool = True, **parameters: Any) -> Work:
    """The arrays under every interface, `worlds` at a time, resets included."""
    from invariantzoo.envs.core.vector import VectorEnv

    system = invariantzoo.make_system(id, **parameters)
    env = VectorEnv(system, worlds, seed=0, kernel=kernel)
    env.reset()
    action = _actions(system.action_space, (worlds, system.n_agents))

    def work() -> int:
        env.step(action)
        return worlds * system.n_agents

    return work


def vec_env(worlds: int, n: int) -> Work:
    """Our Stable-Baselines3 VecEnv."""
    env = invariantzoo.vec_env(CROWD, n_worlds=worlds, seed=0, n_agents=n)
    env.reset()
    action = _actions(env.action_space, (env.num_envs,))

    def work() -> int:
        env.step(action)
        return env.num_envs

    return work


def gym_vector(worlds: int, n: int) -> Work:
    """Our Gymnasium vector environment."""
    import gymnasium

    env = gymnasium.make_vec(f"invariantzoo/{CROWD}", num_envs=worlds * n, n_agents=n)
    env.reset(seed=0)
    action = _actions(env.single_action_space, (env.num_envs,))

    def work() -> int:
        env.step(action)
        return env.num_envs

    return work


def vmas_batched(worlds: int, n: int) -> Work:
    """VMAS's simple_spread; its worlds are never reset, which favours it."""
    import torch
    import vmas

    env = vmas.make_env("simple_spread", num_envs=worlds, n_agents=n, seed=0)
    env.reset()
    generator = torch.Generator().manual_seed(0)
    action = [2 * torch.rand(worlds, 2, generator=generator) - 1 for _ in range(n)]

    def work() -> int:
        env.step(action)
        return worlds * n

    return work


def all_pairs(n: int) -> Work:
    """The search for neighbours alone, by comparing all pairs of one world of n particles."""
    from invariantzoo.envs.core.physics.kernels.discs import rows_of, search_all
    from invariantzoo.envs.core.vector import VectorEnv

    system: Any = invariantzoo.make_system(CROWD, n_agents=n)
    env = VectorEnv(system, 1, seed=0)
    env.reset()
    position, box = env.state.position, env.state.box
    rows, index = rows_of(n), np.empty((1, n, system.k), np.int32)

    def work() -> int:
        search_all(position, box, system.cutoff, rows, index)
        return n

    return work


def render(n: int) -> Work:
    """Our pictures of n particles."""
    return _frames(invariantzoo.parallel_env(CROWD, n_agents=n, render_mode="rgb_array"))


def mpe_render(n: int) -> Work:
    """MPE2's pictures of n agents and n landmarks."""
    from mpe2 import simple_spread_v3

    return _frames(simple_spread_v3.parallel_env(N=n, render_mode="rgb_array"))


def _frames(env: Any) -> Work:
    env.reset(seed=0)

    def work() -> int:
        env.render()
        return 1

    return work


def learn(network: str) -> Work:
    """PPO as `train` runs it, for updates that go through the end of an episode."""
    from invariantzoo.training.rl.sb3 import PPOConfig, Trainer

    system = invariantzoo.make_system(CROWD, n_agents=10)
    trainer = Trainer(system, PPOConfig(network=network), seed=0, steps=10**12)
    updates = iter(trainer)
    needed = math.ceil(system.horizon / trainer.config.n_steps)

    def work() -> int:
        before = trainer.steps
        for _ in range(needed):
            next(updates)
        return trainer.steps - before

    return work


def supersuit_learn() -> Work:
    """PPO with the settings and the size of network of `learn`, on MPE2 through SuperSuit."""
    from invariantzoo.training.rl.sb3 import PPOConfig

    ours = PPOConfig()
    settings = {
        "n_steps": ours.n_steps,
        "batch_size": ours.batch_size,
        "n_epochs": ours.n_epochs,
        "learning_rate": ours.lr,
        "gamma": ours.gamma,
        "gae_lambda": ours.gae_lambda,
        "policy_kwargs": {"net_arch": [ours.width, ours.width]},
    }
    return _learning(_supersuit(ours.n_worlds), settings)


def learn_plainly() -> Work:
    """SB3's PPO with its defaults on our VecEnv of one world."""
    return _learning(invariantzoo.vec_env(CROWD, seed=0, n_agents=10), {})


def supersuit_learn_plainly() -> Work:
    """SB3's PPO with its defaults on one world of MPE2 through SuperSuit."""
    return _learning(_supersuit(1), {})


def _supersuit(worlds: int) -> Any:
    import supersuit
    from mpe2 import simple_spread_v3

    env = simple_spread_v3.parallel_env(N=10, continuous_actions=True, max_cycles=200)
    slots = supersuit.pettingzoo_env_to_vec_env_v1(env)
    return supersuit.concat_vec_envs_v1(slots, worlds, base_class="stable_baselines3")


def _learning(env: Any, settings: dict[str, Any]) -> Work:
    """One rollout and its gradient steps at a time."""
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", env, device="cpu", **settings)
    steps = model.n_steps * env.num_envs

    def work() -> int:
        model.learn(steps)
        return steps

    return work


def _actions(space: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Random actions [*shape, size], or whole numbers [*shape]."""
    rng = np.random.default_rng(0)
    if space.shape:
        return rng.uniform(-1, 1, (*shape, *space.shape)).astype(np.float32)
    return rng.integers(space.n, size=shape)


def measure(case: Case, *, peers: bool, quick: bool) -> Result:
    """Speeds of both sides by turns."""
    seconds, repeats = (0.02, 1) if quick else (0.3, 3 if case.slow else 5)
    has_peer = case.theirs is not None and (peers or not case.needs)
    sides = [case.ours()]
    if has_peer and all(map(_installed, case.needs)):
        assert case.theirs is not None
        sides.append(case.theirs())
    for work in sides:
        work()
    clock = time.perf_counter if case.wall else time.process_time
    turns = [[rate(work, seconds, clock) for work in sides] for _ in range(repeats)]
    speed = statistics.median(turn[0] for turn in turns)
    theirs = statistics.median(turn[1] for turn in turns) if len(sides) > 1 else None
    ratio = statistics.median(turn[0] / turn[1] for turn in turns) if theirs else None
    goals = [(speed, case.floor), (ratio, case.at_least)]
    verdicts = [value >= goal for value, goal in goals if value is not None and goal is not None]
    return Result(
        case.name,
        case.unit,
        speed,
        case.floor,
        case.peer if theirs else "",
        theirs,
        ratio,
        case.at_least if theirs else None,
        all(verdicts) if verdicts else None,
    )


def rate(work: Work, seconds: float, clock: Callable[[], float] = time.process_time) -> float:
    """Units of work per second of the clock, over at least so many seconds."""
    done, start = 0, clock()
    while True:
        done += work()
        spent = clock() - start
        if spent >= seconds:
            return done / spent


def import_time(repeats: int) -> dict[str, Any]:
    """CPU seconds of `import invariantzoo` in a fresh interpreter, and what came along."""
    code = (
        "import sys, time; start = time.process_time(); import invariantzoo; "
        "print(time.process_time() - start, *sys.modules)"
    )
    seconds, modules = [], set()
    for _ in range(repeats):
        first, *names = _fresh(code).split()
        seconds.append(float(first))
        modules.update(names)
    spent = statistics.median(seconds)
    heavy = [name for name in NOT_IMPORTED if name in modules]
    return {
        "cpu_s": spent,
        "at_most": IMPORT_SECONDS,
        "imported": heavy,
        "met": spent <= IMPORT_SECONDS and not heavy,
    }


def memory(worlds: int, agents: int) -> dict[str, Any]:
    """Peak memory in MiB of a fresh process before and after ten steps of a batch."""
    code = f"from invariantzoo.commands import bench; print(*bench.peak_of({worlds}, {agents}))"
    before, after = map(float, _fresh(code).split())
    return {"worlds": worlds, "agents": agents, "imports_mib": before, "peak_mib": after}


def peak_of(worlds: int, agents: int) -> tuple[float, float]:
    """Peak memory of this process in MiB, before and after ten steps of a batch."""
    _one_thread()
    batched(CROWD, 1, n_agents=2)()
    before = _peak()
    work = batched(CROWD, worlds, n_agents=agents)
    for _ in range(10):
        work()
    return before, _peak()


def _peak() -> float:
    """Largest resident size of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def machine() -> dict[str, str]:
    """When, on what and with which versions this was measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = {
        "date": datetime.date.today().isoformat(),
        "cpu": models[0] if models else platform.processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "invariantzoo": invariantzoo.__version__,
    }
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


HEADER = ("case", "ours", "peer", "its speed", "ratio", "at least", "met")


def _row(result: Result) -> tuple[str, ...]:
    goals = []
    if result.at_least is not None:
        goals.append(f"{result.at_least:g}x")
    if result.floor is not None:
        goals.append(_speed(result.floor, result.unit))
    return (
        result.case,
        _speed(result.speed, result.unit),
        result.peer,
        "" if result.peer_speed is None else _speed(result.peer_speed, result.unit),
        "" if result.ratio is None else f"{result.ratio:.3g}x",
        ", ".join(goals),
        {None: "", True: "yes", False: "no"}[result.met],
    )


def _speed(value: float, unit: str) -> str:
    for size, prefix in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{prefix} {unit}"
    return f"{value:.3g} {unit}"


def _remarks(report: dict[str, Any]) -> list[str]:
    loaded = report["import"]
    names = ", ".join(NOT_IMPORTED)
    verdict = f"imported too: {', '.join(loaded['imported'])}" if loaded["imported"] else "not"
    lines = [
        f"`import invariantzoo`: {loaded['cpu_s']:.2f} CPU s (at most {loaded['at_most']}); "
        f"{names}: {verdict} imported"
    ]
    for row in report["memory"]:
        lines.append(
            f"peak memory, {row['worlds']} x {row['agents']:,}: {row['peak_mib']:.0f} MiB, "
            f"of which {row['imports_mib']:.0f} MiB are Python, torch and numba"
        )
    return lines


def _title(results: list[Result]) -> str:
    bars = [result for result in results if result.met is not None]
    met = sum(bool(result.met) for result in bars)
    return f"# Speed of every interface: {met} of {len(bars)} goals against peers met"


def markdown(report: dict[str, Any], results: list[Result]) -> str:
    """The page docs/speed.md."""
    return "\n".join(
        [
            _title(results),
            "",
            "Written by `invariantzoo bench --peers --write docs/speed.md`.",
            "One thread and per CPU second, unless a case says otherwise; medians of repeats in",
            "which both sides take turns; a ratio is the median of the repeats' ratios. Random",
            "actions; our episodes of 200 steps are reset within the measured time. The peers'",
            "simple_spread is another task: it is the one among theirs that has as many agents as",
            "one likes.",
            "",
            table(HEADER, map(_row, results)),
            *(f"- {line}" for line in _remarks(report)),
            "",
            ", ".join(f"{name} {value}" for name, value in report["machine"].items()),
            "",
        ]
    )
