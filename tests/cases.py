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
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "particles-crowd-v0": [
        {"n_agents": 2},
        {"n_agents": 3, "seen": ("I1",)},
        {"n_agents": 24, "density": (0.1, 0.3), "speed": (0.5, 1.5)},
        {"n_agents": 24, "seen": ("I1", "I2", "I3"), "n_neighbours": 3},
        {"n_agents": 12, "actions": "heading"},
        {"n_agents": 3, "actions": "heading", "seen": ("I1",)},
        {"n_agents": 150, "seen": ("I2", "I4"), "n_neighbours": 5},
        {"n_agents": 150, "actions": "heading", "seen": ("I1", "I3")},
    ],
    "particles-encounter-v0": [
        {},
        {"seen": ("I1", "I2", "I3")},
        {"seen": ("I1",), "actions": "heading"},
        {"actions": "heading", "speed": (0.5, 1.5)},
        {"impact": 0.0, "angle": 0.0, "orientation": 0.0},
    ],
    "ising-equilibrium-v0": [
        {"lattice_size": 2},
        {"lattice_size": 3, "temperature": (1.0, 4.0)},
        {"field": (-1.0, 1.0), "coupling": (-1.0, 1.0)},
        {"update": "checkerboard", "field": 0.3, "burn_in": 0},
        {"update": "parallel", "lattice_size": 5, "temperature": (1.0, 4.0), "field": (-1.0, 1.0)},
        {"bonds": "random", "lattice_size": 5, "field": 0.2, "burn_in": 0},
        {"bonds": "random", "update": "checkerboard", "coupling": (0.5, 1.0)},
    ],
    "ising-anneal-v0": [
        {"lattice_size": 3, "update": "parallel"},
        {"lattice_size": 4, "update": "checkerboard", "field": 0.1},
        {"lattice_size": 4, "bonds": "uniform"},
    ],
    "tasep-open-v0": [
        {"n_sites": 1, "burn_in": 0},
        {"n_sites": 9, "alpha": (0.1, 1.0), "beta": (0.2, 0.9), "hop_probability": 0.7},
        {"n_sites": 12, "update": "parallel", "hop_probability": 0.5, "burn_in": 0},
    ],
    "tasep-ring-v0": [
        {"n_sites": 5, "n_particles": 1},
        {"n_sites": 9, "n_particles": 4, "sight": 0, "hop_probability": 0.6, "burn_in": 0},
        {"update": "parallel", "crash_cost": 0.3, "burn_in": 0},
        {"n_sites": 6, "n_particles": 6, "update": "parallel"},
    ],
    "tasep-gates-v0": [{"n_sites": 7, "sweeps": 3, "depth": 2}],
    "quadratic-regimes-v0": [
        {"n_agents": 2, "rate": (0.05, 0.2)},
        {"n_agents": 9, "softest": 1e-3, "noise": 0.5},
    ],
    "cluster-relaxation-v0": [{"n_agents": 2}, {"n_agents": 6, "horizon": 3}],
    "water-inference-v0": [{"split": "val", "horizon": 3}],
    "water-dynamics-v0": [{"dt": 1.0, "temperature": (300.0, 400.0), "horizon": 3}],
    "resampling-neutral-v0": [
        {"n_agents": 5, "n_types": 2},
        {"n_agents": 40, "n_types": 7},
    ],
}
Case = tuple[str, dict[str, Any]]


def cases() -> list[Any]:
    """Every registered id as it is, and its variants above."""
    found: list[Any] = []
    for id in invariantzoo.ids():
        for parameters in [{}, *(v for v in VARIANTS.get(id, []) if v)]:
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
