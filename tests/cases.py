"""Which systems the tests of the contract run on, and runs that they compare."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invariantzoo
from invariantzoo.envs.core.observation import is_discrete
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.vector import VectorEnv

SEED = 20
Case = tuple[str, dict[str, Any]]


def cases() -> list[Any]:
    """Every registered id as it is, and the variants that it names."""
    found: list[Any] = []
    for id in invariantzoo.ids():
        for parameters in [{}, *invariantzoo.spec(id).variants]:
            words = [f"{name}={value}".replace(" ", "") for name, value in parameters.items()]
            found.append(pytest.param(id, parameters, id=",".join([id, *words])))
    return found


def random_action(system: System, rng: Rng, worlds: int) -> Tensor:
    """Actions as `transition` takes them: float64 [worlds, agents, size] or int64."""
    if is_discrete(system):
        return (int(system.action_space.n) * rng.uniform(worlds, system.n_agents)).long()  # type: ignore[union-attr]
    shape = (worlds, system.n_agents, *system.action_space.shape)
    return 2 * rng.uniform(*shape) - 1


def action_table(system: System, steps: int, worlds: int) -> np.ndarray:
    """Actions [steps, worlds, ...] of worlds 0, 1, …; a world's row does not depend on `worlds`."""
    world = torch.arange(worlds)
    rows = [
        random_action(system, Rng(SEED + 1, world, torch.full_like(world, t)), worlds).numpy()
        for t in range(steps)
    ]
    table = np.stack(rows)
    return table if is_discrete(system) else table.astype(np.float32)


Trace = list[dict[str, np.ndarray]]


def record(env: VectorEnv, actions: np.ndarray) -> Trace:
    """Step through `actions` [steps, worlds, ...]; all that a step gives or leaves behind."""
    trace = []
    for action in actions:
        out = env.step(action)
        ended = {"final": np.zeros_like(out.observation)}
        if out.final_observation is not None:
            ended["final"][out.done] = out.final_observation[out.done]
        for name in env.system.reductions:
            ended[f"metric {name}"] = np.zeros(env.n_worlds)
            if out.done.any():
                ended[f"metric {name}"][out.done] = out.metrics[name][out.done]
        state = {f"state {name}": part.copy() for name, part in env.state._asdict().items()}
        flags = {"alive": env.alive.copy(), "acted": env.acted.copy(), "active": env.active()}
        steps = {name: getattr(out, name) for name in ("observation", "reward", "done")}
        ends = {name: getattr(out, name) for name in ("terminated", "truncated")}
        trace.append({**steps, **ends, **ended, **flags, **state})
    return trace


def part_of(trace: Trace, worlds: slice) -> Trace:
    """The same record of some worlds only."""
    return [{name: value[worlds] for name, value in step.items()} for step in trace]


def bits(trace: Trace) -> list[tuple[str, bytes]]:
    """A record as bytes: equal means equal to the last bit, signs of zeros included."""
    return [
        (f"step {t}: {name}", np.ascontiguousarray(value).tobytes())
        for t, step in enumerate(trace)
        for name, value in step.items()
    ]


def continue_elsewhere(work: bytes) -> list[Any]:
    """For another process: finish pickled (environment, actions) and say how it went, in bits."""
    return [bits(record(env, actions)) for env, actions in pickle.loads(work)]
