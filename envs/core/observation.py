"""The flat observation of a system: where each invariant stands in it, and its bounds."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .system import System


def observation_names(system: System) -> dict[str, slice]:
    """Where each invariant stands in the flat observation."""
    names, start = {}, 0
    for name, bound in system.bounds.items():
        names[name] = slice(start, start + bound.width)
        start += bound.width
    return names


def observation_space(system: System) -> spaces.Box:
    """The space of one agent's flat observation."""
    low, high = observation_limits(system)
    return spaces.Box(low, high, dtype=np.float32)


def observation_limits(system: System) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest observation, float32 [size]."""
    bounds = system.bounds.values()
    low = np.concatenate([np.full(b.width, b.low, np.float32) for b in bounds])
    high = np.concatenate([np.full(b.width, b.high, np.float32) for b in bounds])
    return low, high


def flatten(system: System, invariants: dict[str, Tensor]) -> Tensor:
    """Observations [worlds, agents, size] from invariants by name, clipped to their bounds."""
    parts = []
    for name, bound in system.bounds.items():
        value = invariants[name]
        value = value if value.ndim == 3 else value.unsqueeze(-1)
        parts.append(value.clamp(bound.low, bound.high))
    return torch.cat(parts, -1)


def observation_columns(system: System) -> dict[str, int | slice]:
    """The same, as indices of the last axis: a scalar has a whole number."""
    bounds = system.bounds
    return {
        name: columns.start if bounds[name].size is None else columns
        for name, columns in observation_names(system).items()
    }


def by_name(system: System, observation: Tensor) -> dict[str, Tensor]:
    """Invariants by name from flat observations [..., size]; scalars lose the last axis."""
    return by_columns(observation_columns(system), observation)


def by_columns(columns: dict[str, int | slice], observation: Tensor) -> dict[str, Tensor]:
    """The same, where the columns are known."""
    return {name: observation[..., at] for name, at in columns.items()}


def is_discrete(system: System) -> bool:
    """Whether agents choose among n actions."""
    return isinstance(system.action_space, spaces.Discrete)


def parameter_values(system: System) -> dict[str, Any]:
    """Parameters by name, as this system has them."""
    return {name: getattr(system, name) for name in parameters(system)}


def parameters(system: type[System] | System) -> dict[str, Any]:
    """Names and defaults of a system's parameters."""
    assert is_dataclass(system)  # which an abstract base class cannot promise
    return {field.name: field.default for field in fields(system)}
