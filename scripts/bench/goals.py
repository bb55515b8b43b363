"""What `bench` measures of discs with goals: drivers with their worlds, beside the ORCA library."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.bench.measure import Case, Work

GOALS = "particles-goals-v0"
NOTES = {
    "one world of 100,000 discs": """Discs: a large world compares 3 x 3 cells at once, bounded by
who was near before, and looks for overlaps among the nearest alone; with the former search by
rings of cells the same run gave three quarters of the speed. What did not gain: visiting discs
cell by cell in the other loops too, as rows of actions and observations then come in any order,
and the bound in the search by rings. Drivers are given observations in double precision, as
`evaluate` does. The processor is shared: five runs of the same command within half an hour
gave 0.64 to 0.98 M agent-steps/s for ORCA, 0.32 to 0.50 M for the learned driver in the guard,
and in the large world 0.57 to 0.81 M for straight and 0.25 to 0.42 M for learned."""
}
COVER = 0.2


def cases() -> Iterator[Case]:
    """Drivers in batches and in one large world."""
    yield Case(
        "orca with its worlds, 64 of 64 discs",
        functools.partial(driven, "orca", 64, 64),
        "pyrvo, do_step alone, 64 discs",
        functools.partial(pyrvo_steps, 64),
        ("pyrvo",),
        2,
        8e5,
    )
    yield Case(
        "learned driver in the guard with its worlds, 64 of 64 discs",
        functools.partial(driven, "learned", 64, 64),
        floor=4e5,
    )
    for name, floor in (("straight", 8e5), ("learned", 3e5)):
        yield Case(
            f"one world of 100,000 discs with goals, {name}",
            functools.partial(driven, name, 1, 100_000),
            "one world of 1,000",
            functools.partial(driven, name, 1, 1000),
            at_least=0.5,
            floor=floor,
            slow=True,
        )


def driven(name: str, worlds: int, n: int) -> Work:
    """Steps of worlds under a driver, resets included."""
    import torch

    from invariantzoo.envs.core.rng import POLICY
    from invariantzoo.envs.core.vector import VectorEnv

    system = invariantzoo.make_system(GOALS, n_agents=n, cover=COVER)
    env = VectorEnv(system, worlds, seed=0, dtype=np.float64)
    policy = invariantzoo.make_policy(name, system)
    observation = env.reset()

    def work() -> int:
        nonlocal observation
        action = policy(torch.from_numpy(observation), env.rng(POLICY))
        observation = env.step(action.numpy()).observation
        return worlds * n

    return work


def pyrvo_steps(n: int) -> Work:
    """The library's own step of one world that is as dense, put back to its start now and then."""
    import pyrvo

    system: Any = invariantzoo.make_system(GOALS, n_agents=n, cover=COVER)
    state = system.initial(invariantzoo.Rng.single(0, 1), 1)
    starts = state.position[0].numpy()
    ways = state.goal[0].numpy() - starts
    ways /= np.linalg.norm(ways, axis=-1, keepdims=True)
    simulator = pyrvo.RVOSimulator(system.dt, 5.0, 10, 2.0, 2.0, 1.05 * system.radius, system.speed)
    for start, way in zip(starts, ways, strict=True):
        simulator.set_agent_pref_velocity(simulator.add_agent(tuple(start)), tuple(way))
    steps = 0

    def work() -> int:
        nonlocal steps
        steps += 1
        if steps % 40 == 0:
            for agent, start in enumerate(starts):
                simulator.set_agent_position(agent, tuple(start))
        simulator.do_step()
        return n

    return work
