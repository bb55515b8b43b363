"""Policies by name: (observation [worlds, agents, size], generator or None) -> action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from ..envs.core.observation import by_name
from ..envs.core.rng import Rng
from ..envs.core.system import System, require_system
from ..envs.core.types import StatePolicy
from ..envs.core.validation import nearest
from .baselines import driving

Policy = Callable[[Tensor, Rng | None], Tensor]


def _acceleration_baseline(name: str, system: Any) -> Policy:
    drivers = {
        "straight": driving.straight,
        "brake": driving.brake,
        "social-force": driving.social_force,
    }
    driver = drivers[name]
    return lambda observation, rng: driver(system, by_name(system, observation))


def _goal_baseline(name: str, system: Any) -> Policy:
    from .baselines.goals import DRIVERS  # compiled: numba is imported where it is used

    return DRIVERS[name](system)


def _traffic_baseline(name: str, system: Any) -> Policy:
    from .baselines.traffic import DRIVERS

    return DRIVERS[name](system)


_BASELINES: dict[str, Callable[[str, Any], Policy]] = {  # by the family that a system names
    "acceleration": _acceleration_baseline,
    "goals": _goal_baseline,
    "traffic": _traffic_baseline,
}


@dataclass(frozen=True)
class OwnPolicy:
    """One of a system's own exact policies, under its name.

    Fused runs go by the name; a policy that is fused only has no actions of single agents. One that
    acts on the state cannot be asked with observations: `Player` asks it.
    """

    system: System
    name: str

    @property
    def of_state(self) -> StatePolicy | None:
        """What it is on the state, if that is what it acts on."""
        return self.system.state_policies().get(self.name)

    def __call__(self, observation: Tensor, rng: Rng | None) -> Tensor:
        own = self.system.policies()
        if self.of_state is not None:
            raise ValueError(
                f"policy {self.name!r} acts on the state, not on observations: "
                "run it by Player(env, policy), evaluate or rollout"
            )
        if self.name not in own:
            raise ValueError(
                f"policy {self.name!r} moves many agents as one: it runs only fused, "
                "over whole episodes"
            )
        return own[self.name](by_name(self.system, observation), _given(rng, observation))


def policy_names(system: System) -> list[str]:
    """Policies that need no training: the system's own exact ones and classical baselines."""
    require_system(system)
    own = {*system.policies(), *system.state_policies(), *system.fused}
    return sorted({"random", *own, *system.baselines})


def make_policy(name: str, system: System) -> Policy:
    """The policy of that name for a system.

    A stochastic policy draws from the generator it is given; without one, from seed 0.
    Raises KeyError with the nearest known name.
    """
    require_system(system)
    if name == "random":
        return lambda observation, rng: _random(system, observation, rng)
    if name in {*system.policies(), *system.state_policies(), *system.fused}:
        return OwnPolicy(system, name)
    if name in system.baselines:
        return _BASELINES[system.baseline_family](name, system)
    known = policy_names(system)
    hint = nearest(name, known)
    raise KeyError(f"unknown policy {name!r}{hint} (this environment has {', '.join(known)})")


def seen_dtype(policy: Policy) -> type[np.floating]:
    """The precision of the observations that a policy asks for, by its attribute `dtype`."""
    return getattr(policy, "dtype", np.float32)


def computing(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """A network as a function of observations, wherever its weights are.

    It computes there, in the precision of its weights, and what it gives is where observations are.
    """
    weights = next(network.parameters())

    def output(observation: Tensor) -> Tensor:
        return network(observation.to(weights.device, weights.dtype)).to(observation.device)

    return output


def network_policy(network: nn.Module) -> Policy:
    """The deterministic policy of a network for continuous actions, wherever its weights are."""
    output = computing(network)
    return lambda observation, rng: output(observation).clamp(-1, 1)


def _given(rng: Rng | None, observation: Tensor) -> Rng:
    return rng if rng is not None else Rng.single(0, len(observation), device=observation.device)


def _random(system: System, observation: Tensor, rng: Rng | None) -> Tensor:
    """Uniform over the action space."""
    rng = _given(rng, observation)
    worlds, n = observation.shape[:2]
    space = system.action_space
    if isinstance(space, spaces.Discrete):
        return (rng.uniform(worlds, n) * int(space.n)).long()
    return 2 * rng.uniform(worlds, n, *space.shape) - 1
