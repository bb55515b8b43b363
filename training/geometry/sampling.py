"""Samples with their parameters: of a file, or drawn by worlds that differ in parameters."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...envs.core.files import load_arrays
from ...envs.core.physics.lattice import Torus
from ...envs.core.system import System
from ...envs.core.validation import require_count
from ...envs.core.vector import VectorEnv


class Samples(NamedTuple):
    """samples [points, per point, ...]; parameters [points, d] and their names."""

    samples: np.ndarray
    parameters: np.ndarray
    names: tuple[str, ...]


def read_samples(path: str | Path) -> Samples:
    """Arrays `samples` and `parameters` of an .npz, and `names` if it has them.

    Raises ValueError for another file; what the arrays hold is left to whoever uses them.
    """
    arrays = load_arrays(path)
    for name in ("samples", "parameters"):
        if name not in arrays:
            held = ", ".join(sorted(arrays)) or "nothing"
            raise ValueError(f"{path} has no array {name!r} (has {held})")
    parameters = arrays["parameters"]
    if parameters.ndim not in (1, 2):
        shape = list(parameters.shape)
        raise ValueError(f"{path}: parameters have shape {shape}; they must be [points, d]")
    parameters = parameters.reshape(len(parameters), -1)
    width = parameters.shape[1]
    names = tuple(map(str, arrays.get("names", [f"parameter {i}" for i in range(width)])))
    if len(names) != width:
        raise ValueError(f"{path}: {len(names)} names for {width} parameters")
    return Samples(arrays["samples"], parameters, names)


def ranged(system: System) -> tuple[str, ...]:
    """Live parameters of a system that are ranges, so that worlds differ in them."""
    values = {name: getattr(system, name, None) for name in system.live_parameters}
    return tuple(name for name, value in values.items() if isinstance(value, tuple))


def draw_samples(
    system: System, *, points: int, per_point: int, sweeps: int, seed: int = 0
) -> Samples:
    """States of many worlds under the first policy that the system runs fused.

    The first field of the state, as a lattice where there is one, after `sweeps` attempts per agent
    and after every tenth of as many again. Raises ValueError for a system that has no such policy,
    none of whose live parameters is a range, or another one of whose parameters is: samples would
    be of its values mixed.
    """
    for name, count in (("points", points), ("per_point", per_point), ("sweeps", sweeps)):
        require_count(name, count)
    names = ranged(system)
    title = type(system).__name__
    if not system.fused:
        raise ValueError(f"{title} has no policy that runs fused: bring samples of your own")
    if not names:
        live = ", ".join(system.live_parameters) or "none"
        raise ValueError(
            f"{title}: none of its live parameters ({live}) is a range such as (1.0, 5.0)"
        )
    env = VectorEnv(system, points, seed=seed)
    env.reset()
    mixed = [name for name in env.state._fields if isinstance(getattr(system, name, None), tuple)]
    for name in set(mixed) - set(names):
        raise ValueError(
            f"{title}: {name}={getattr(system, name)!r} is a range, which only its live parameters "
            f"({', '.join(system.live_parameters)}) may be: give it a number"
        )
    steps = max(1, round(sweeps * system.horizon / getattr(system, "n_sweeps", system.horizon)))
    lattice = getattr(system, "lattice", None)
    sites = env.state[0].shape[1:]
    shape = lattice.shape if isinstance(lattice, Torus) else sites
    states = []
    for k in range(per_point):
        more = steps if k == 0 else max(1, steps // 10)
        env.rollout(system.fused[0], more, every=more)
        states.append(_small_numbers(title, env.state[0]).reshape(points, *shape))
    parameters = np.concatenate([getattr(env.state, name) for name in names], 1)
    return Samples(np.stack(states, 1), parameters, names)


def _small_numbers(title: str, field: np.ndarray) -> np.ndarray:
    """A field of a state as int8; ValueError where it holds anything else."""
    small = field.astype(np.int8)
    if not np.array_equal(small, field):
        raise ValueError(
            f"{title}: its state is no lattice of small whole numbers: bring samples of your own"
        )
    return small
