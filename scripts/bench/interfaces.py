"""What `bench` measures of every interface: agent-steps and pictures, beside MPE2's and VMAS's."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.bench.measure import Case, Work

CROWD = "particles-crowd-v0"


def step_cases() -> Iterator[Case]:
    """Steps through PettingZoo and of arrays, beside the tasks of others."""
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


def world_cases() -> Iterator[Case]:
    """Large worlds, pictures, and the interfaces that no peer has."""
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


def id_cases() -> Iterator[Case]:
    """A batch of every id."""
    for id in invariantzoo.ids():
        yield Case(f"batched step, 256 worlds of {id}", functools.partial(batched, id, 256))


def parallel(n: int) -> Work:
    """Our PettingZoo parallel environment with n agents."""
    return parallel_steps(invariantzoo.parallel_env(CROWD, n_agents=n))


def mpe_parallel(n: int) -> Work:
    """MPE2's simple_spread with n agents, with episodes as long as ours."""
    from mpe2 import simple_spread_v3

    return parallel_steps(
        simple_spread_v3.parallel_env(N=n, continuous_actions=True, max_cycles=200)
    )


def parallel_steps(env: Any) -> Work:
    """Steps of a PettingZoo parallel environment under random actions, resets included."""
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


def _actions(space: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Random actions [*shape, size], or whole numbers [*shape]."""
    rng = np.random.default_rng(0)
    if space.shape:
        return rng.uniform(-1, 1, (*shape, *space.shape)).astype(np.float32)
    return rng.integers(space.n, size=shape)
