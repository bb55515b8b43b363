"""What `bench --device NAME` measures: torch on a device beside the same on one core of the CPU.

Seconds are those of the clock on the wall, and every piece of work ends with a synchronisation.
Compiled steps and the fits of molecules compute on the CPU alone; here is what a device can do.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import invariantzoo
from invariantzoo.bench.interfaces import CROWD, batched
from invariantzoo.bench.measure import Case, Result, Work, measure

if TYPE_CHECKING:
    import torch

LONGEST = 300.0  # seconds after which no further case is begun
WORLDS = (64, 1024)
PARAMETERS = (10_000, 1_000_000)
DENSE = 256  # parameters under a full metric
STEPS = 8  # between two synchronisations
ISING, WAVES = "ising-equilibrium-v0", "klein-gordon-force-v0"
NOTE = (
    "Wall seconds, each side after its own synchronisation; the CPU computes in one thread. The "
    "torch form is the readable one, in double precision; the compiled step is `VectorEnv`."
)


def cases(device: str) -> Iterator[Case]:
    """Everything that is measured on a device, the large cases slow."""
    few = WORLDS[0]
    for worlds in WORLDS:
        steps = functools.partial(torch_steps, CROWD, worlds, n_agents=10)
        name = f"torch form, {worlds:,} worlds of 10 discs"
        yield _against_itself(name, steps, device, slow=worlds > few)
    compiled = functools.partial(batched, CROWD, WORLDS[-1], n_agents=10)
    yield Case(
        f"torch form on {device}, {WORLDS[-1]:,} worlds of 10 discs",
        functools.partial(torch_steps, CROWD, WORLDS[-1], device=device, n_agents=10),
        "the compiled step on the CPU",
        compiled,
        slow=WORLDS[-1] > few,
        wall=True,
    )
    spins = functools.partial(torch_steps, ISING, few, lattice_size=32, update="checkerboard")
    yield _against_itself(f"torch form, {few} worlds of 1,024 spins", spins, device)
    waves = functools.partial(torch_steps, WAVES, few, dimensions=2, lattice_size=64)
    yield _against_itself(f"torch form, {few} worlds of 4,096 sites of a field", waves, device)
    for worlds in WORLDS:
        descent = functools.partial(descend_dynamics, worlds)
        name = f"descent through {STEPS} steps of {worlds:,} worlds of 10 discs"
        yield _against_itself(name, descent, device, slow=worlds > few)
    ppo = functools.partial(ppo_learn, few)
    yield _against_itself(f"PPO learn() of SB3, {few} worlds of 10 discs", ppo, device)
    for n in PARAMETERS:
        adam = functools.partial(optimise, n, None)
        yield _against_itself(f"Adam, {n:,} parameters", adam, device, unit="steps/s")
        cgd = functools.partial(optimise, n, {})
        yield _against_itself(f"CGD, {n:,} parameters", cgd, device, unit="steps/s")
    full = functools.partial(optimise, DENSE, {"metric": "full", "refresh": 10})
    yield _against_itself(f"CGD full, 10, {DENSE} parameters", full, device, unit="steps/s")
    fit = functools.partial(fit_classifier, 256)
    yield _against_itself("fit of a network of 256 units to digits", fit, device, unit="images/s")


def run(
    device: str, *, quick: bool, only: str | None, say: Callable[[str], object]
) -> tuple[list[Result], list[str]]:
    """Results, and the names of cases for which there was no time.

    Raises ValueError if torch cannot compute on the device, or if no case is named so.
    """
    from invariantzoo.training.rl.descent import computing_device

    computing_device(device)
    named = [case for case in cases(device) if only is None or only in case.name]
    if not named:
        raise ValueError(f"--only {only!r} is in the name of no case of --device")
    results: list[Result] = []
    left = []
    start = time.monotonic()
    for case in named:
        if case.slow and quick:
            continue
        if time.monotonic() - start > LONGEST:
            left.append(case.name)
            continue
        say(f"measuring: {case.name}")
        results.append(measure(case, peers=False, quick=quick))
    return results, left


def name_of(device: str) -> str:
    """What the maker calls a device: of a GPU its card."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return device


def _against_itself(
    name: str,
    make: Callable[..., Work],
    device: str,
    *,
    unit: str = "agent-steps/s",
    slow: bool = False,
) -> Case:
    here, there = functools.partial(make, device="cpu"), functools.partial(make, device=device)
    return Case(name, there, "the same on the CPU", here, unit=unit, slow=slow, wall=True)


def torch_steps(id: str, worlds: int, *, device: str, **parameters: Any) -> Work:
    """Steps of the torch form with losses and invariants, under random actions."""
    import torch

    from invariantzoo.envs.core.rng import INITIAL, TRANSITION, Rng

    system = invariantzoo.make_system(id, **parameters)
    world = torch.arange(worlds, device=device)
    clock = torch.zeros_like(world)
    state = system.initial(Rng(0, world, clock, INITIAL), worlds)
    action = _actions(system, worlds).to(device)

    def work() -> int:
        nonlocal state, clock
        for _ in range(STEPS):
            clock = clock + 1
            after = system.transition(state, action, Rng(0, world, clock, TRANSITION))
            system.loss(state, action, after)
            system.invariants(after)
            state = after
        _finish(device)
        return STEPS * worlds * system.n_agents

    return work


def _actions(system: Any, worlds: int) -> torch.Tensor:
    """Random actions [worlds, agents, size], or whole numbers [worlds, agents]."""
    import torch

    from invariantzoo.envs.core.observation import is_discrete

    generator = torch.Generator().manual_seed(0)
    shape = (worlds, system.n_agents)
    if is_discrete(system):
        return torch.randint(int(system.action_space.n), shape, generator=generator)
    size = (*shape, *system.action_space.shape)
    return 2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1


def descend_dynamics(worlds: int, *, device: str) -> Work:
    """Updates of descent: a rollout in torch, its gradient, a step."""
    from invariantzoo.training.rl.algorithms import make_config, make_trainer

    system = invariantzoo.make_system(CROWD, n_agents=10)
    settings = {"n_worlds": worlds, "rollout": STEPS, "device": device}
    trainer = make_trainer(
        "descent", system, make_config(CROWD, "descent", settings), seed=0, steps=10**12
    )
    updates = iter(trainer)

    def work() -> int:
        before = trainer.steps
        next(updates)
        _finish(device)
        return trainer.steps - before

    return work


def ppo_learn(worlds: int, *, device: str) -> Work:
    """A rollout of compiled steps and its gradient steps, with the network on the device."""
    from stable_baselines3 import PPO

    env = invariantzoo.vec_env(CROWD, n_worlds=worlds, seed=0, n_agents=10)
    steps = 32 * env.num_envs
    settings: dict[str, Any] = {"n_steps": 32, "batch_size": min(2048, steps), "n_epochs": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that SB3 finds networks like this quicker on the CPU
        model = PPO("MlpPolicy", env, device=device, seed=0, **settings)

    def work() -> int:
        model.learn(steps)
        _finish(device)
        return steps

    return work


def optimise(n: int, settings: dict[str, Any] | None, *, device: str) -> Work:
    """Steps of CGD with these settings, or of Adam, on a network of about n parameters."""
    import torch

    from invariantzoo.bench.learning import network
    from invariantzoo.training.optim.cgd import CGD

    net, rows = network(n)
    net.to(device)
    net(rows.to(device)).square().mean().backward()
    optimizer: torch.optim.Optimizer
    if settings is None:
        optimizer = torch.optim.Adam(net.parameters(), foreach=True)
    else:
        optimizer = CGD(net.parameters(), **settings)

    def work() -> int:
        for _ in range(STEPS):
            optimizer.step()
        _finish(device)
        return STEPS

    return work


def fit_classifier(width: int, *, device: str) -> Work:
    """Gradient steps of a classifier of the digits that ship, all images at a time."""
    import torch

    from invariantzoo.agents.networks.choose import initialise
    from invariantzoo.training.geometry.diffusion import read_digits

    images, labels = read_digits()
    pixels = torch.as_tensor(images, dtype=torch.float32).to(device)
    classes = torch.as_tensor(labels, dtype=torch.int64).to(device)
    net = torch.nn.Sequential(
        torch.nn.Linear(pixels.shape[1], width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, 10),
    )
    initialise(net, 0)
    net.to(device)
    optimizer = torch.optim.Adam(net.parameters(), foreach=True)

    def work() -> int:
        for _ in range(STEPS):
            optimizer.zero_grad()
            torch.autograd.backward(torch.nn.functional.cross_entropy(net(pixels), classes))
            optimizer.step()
        _finish(device)
        return STEPS * len(pixels)

    return work


def _finish(device: str) -> None:
    """Wait for what the device still computes."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
