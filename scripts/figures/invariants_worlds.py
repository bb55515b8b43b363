"""Worlds whose agents see what invariants are made of, beside those of the package.

Discs see velocities, goals and neighbours as x and y, nearest first, and act along x and y; spins
of a glass see spins and bonds. Dynamics, losses and widths of networks are those of the package;
`figures/invariants_gain.py` trains both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

import invariantzoo
from invariantzoo.envs.core.kernel import Kernel
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.types import Bound, Neighbourhood
from invariantzoo.envs.ising.equilibrium import Ising
from invariantzoo.envs.ising.equilibrium import State as SpinState
from invariantzoo.envs.particles.control import Control
from invariantzoo.envs.particles.crowd import Crowd
from invariantzoo.envs.particles.discs import Discs
from invariantzoo.envs.particles.discs import State as DiscState
from invariantzoo.envs.particles.encounter import Encounter
from invariantzoo.envs.particles.goal_geometry import shortened
from invariantzoo.envs.particles.goal_state import State as GoalState
from invariantzoo.envs.particles.goals import Goals
from invariantzoo.envs.particles.sight import Pairs, Sight
from invariantzoo.figures.brute_force import LaboratoryControl

# A mixin: fields of `Discs` must not stand before those of the scenarios.
if TYPE_CHECKING:
    _Discs = Discs
else:
    _Discs = object
_NEIGHBOURS = ("r_x", "r_y", "u_x", "u_y", "present")


def _columns(**vectors: Tensor) -> dict[str, Tensor]:
    """Vectors [..., 2] by name as their parts, name_x and name_y."""
    return {
        f"{name}_{axis}": vector[..., m]
        for name, vector in vectors.items()
        for m, axis in enumerate("xy")
    }


def _bounds(limits: dict[str, float], size: int | None = None) -> dict[str, Bound]:
    """Limits of vectors by name, as those of their parts."""
    axis = "" if size is None else "neighbours"
    return {
        f"{name}_{part}": Bound(-limit, limit, size, axis)
        for name, limit in limits.items()
        for part in "xy"
    }


@dataclass(frozen=True)
class FrameControl(LaboratoryControl):
    """The same action, for agents that see neighbours as x and y."""

    def bounds(self, sight: Sight) -> tuple[dict[str, Bound], dict[str, Bound]]:
        u = sight.speed_limit
        there = {"present": Bound(0, 1, sight.k, "neighbours")}
        near = _bounds({"r": sight.cutoff, "u": u}, sight.k)
        return _bounds({"v": u, "w": u}), near | there

    def invariants(self, sight: Sight, pairs: Pairs, p: Tensor) -> dict[str, Tensor]:
        return {**_columns(r=pairs.r, u=pairs.u), "present": pairs.present.to(p.dtype)}

    def parity(self, sight: Sight) -> list[float]:
        return [-1.0, 1.0]


class _FrameDiscs(_Discs):
    """Discs that see their own and their desired velocity, r and u as x and y, and act so."""

    @property
    def control(self) -> Control:
        return FrameControl(self.max_acceleration)

    @property
    def bounds(self) -> dict[str, Bound]:
        own, neighbours = self.control.bounds(self.sight)
        return own | neighbours

    @property
    def neighbourhood(self) -> Neighbourhood:
        scales = (self.cutoff / 2, self.cutoff / 2, 1.0, 1.0, 1.0)
        return Neighbourhood(_NEIGHBOURS, (), partial(_scaled, scales=scales), _present)

    @property
    def baselines(self) -> tuple[str, ...]:
        return ()

    def invariants(self, state: DiscState) -> dict[str, Tensor]:
        p = state.desired - state.velocity
        own = _columns(v=state.velocity, w=state.desired)
        return own | self.control.invariants(self.sight, self.pairs(state), p)

    def kernel(self, worlds: int) -> Kernel | None:
        return None


@dataclass(frozen=True)
class FrameEncounter(_FrameDiscs, Encounter):
    """The encounter in x and y."""


@dataclass(frozen=True)
class FrameCrowd(_FrameDiscs, Crowd):
    """The crowd in x and y."""


@dataclass(frozen=True)
class FrameGoals(Goals):
    """Discs with goals that see all in x and y, and ask for a velocity in x and y."""

    networks: ClassVar[tuple[str, ...]] = ()

    @property
    def bounds(self) -> dict[str, Bound]:
        u, k = self.speed_limit, self.k
        flag = Bound(0, 1, k, "neighbours")
        return {
            **_bounds({"goal": self._distance_limit, "c": u}),
            "arrived": Bound(0, 1),
            **_bounds({"r": self.cutoff, "u": u}, k),
            "present": flag,
            "neighbour_arrived": flag,
        }

    @property
    def neighbourhood(self) -> Neighbourhood:
        scales = (1.0,) * len(_NEIGHBOURS)
        return Neighbourhood(_NEIGHBOURS, (), partial(_scaled, scales=scales), _present)

    @property
    def baselines(self) -> tuple[str, ...]:
        return ()

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

    def acceleration(self, state: GoalState, action: Tensor) -> Tensor:
        c = state.velocity - state.goal_velocity
        wanted = shortened(self.speed * action, self.speed)
        return shortened((wanted - c) / self.dt, self.max_acceleration)

    def invariants(self, state: GoalState) -> dict[str, Tensor]:
        pairs = self.pairs(state)
        goal, c = state.goal - state.position, state.velocity - state.goal_velocity
        arrived = state.arrival_time >= 0
        worlds = torch.arange(len(arrived), device=arrived.device)[:, None, None]
        there = arrived[worlds, pairs.neighbour] & pairs.present
        return {
            **_columns(goal=goal, c=c),
            "arrived": arrived.to(c.dtype),
            **_columns(r=pairs.r, u=pairs.u),
            "present": pairs.present.to(c.dtype),
            "neighbour_arrived": there.to(c.dtype),
        }

    def kernel(self, worlds: int) -> Kernel | None:
        return None


@dataclass(frozen=True)
class BareSpins(Ising):
    """Spins of a glass that see themselves, their neighbours, the bonds to these, and 1 / T."""

    @property
    def bounds(self) -> dict[str, Bound]:
        bond = super().bounds["alignment"].high / 4
        return {
            "spin": Bound(-1, 1),
            "inverse_temperature": super().bounds["inverse_temperature"],
            "neighbour_spin": Bound(-1, 1, 4, "neighbours"),
            "bond": Bound(-bond, bond, 4, "neighbours"),
        }

    @property
    def neighbourhood(self) -> Neighbourhood:
        names = ("neighbour_spin", "bond")
        return Neighbourhood(
            names,
            (),
            lambda seen: torch.stack([seen[name] for name in names], -1),
            lambda seen: torch.ones_like(seen["bond"]),
        )

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {}

    def invariants(self, state: SpinState) -> dict[str, Tensor]:
        torus, spin = self.lattice, state.spin
        right, down = state.coupling.chunk(2, 1)
        spins = [torus.ahead(spin, axis, way) for axis in (1, 0) for way in (1, -1)]
        bonds = [right, torus.ahead(right, 1, -1), down, torus.ahead(down, 0, -1)]
        return {
            "spin": spin,
            "inverse_temperature": (1 / state.temperature).expand_as(spin),
            "neighbour_spin": torch.stack(spins, -1),
            "bond": torch.stack(bonds, -1),
        }

    def kernel(self, worlds: int) -> Kernel | None:
        return None


def _scaled(seen: dict[str, Tensor], scales: tuple[float, ...]) -> Tensor:
    """What is seen of neighbours, of order one [..., k, names]."""
    return torch.stack([seen[n] / s for n, s in zip(_NEIGHBOURS, scales, strict=True)], -1)


def _present(seen: dict[str, Tensor]) -> Tensor:
    return seen["present"]


class World(NamedTuple):
    """Worlds that agents are trained in.

    id: whose worlds they are.  bare: its class, and id, for agents that see no invariants.
    steps: agent-steps of a run.  episodes: that scores are of.  parameters: of both classes.
    turns: parameters that fresh worlds have in place of those that were trained in.
    variants: what agents see -> (whether no invariants, network); the first and the last are those
    that are compared in words.  changes: how else worlds are seen -> what they are called then.
    start: a policy that acts as untrained networks do.
    """

    id: str
    bare: type[System]
    name: str
    steps: int
    episodes: int
    parameters: dict[str, Any]
    turns: dict[str, Any]
    variants: dict[str, tuple[bool, str]]
    changes: dict[str, str]
    start: str

    @property
    def ours(self) -> str:
        """Invariants with the network that the id has."""
        return next(iter(self.variants))

    @property
    def usual(self) -> str:
        """What they are made of, with a plain network."""
        return list(self.variants)[-1]


_DISCS: dict[str, Any] = {
    "variants": {
        "invariants, shared by neighbours": (False, ""),
        "invariants, plain network": (False, "mlp"),
        "x and y, shared by neighbours": (True, "set"),
        "x and y, plain network": (True, "mlp"),
    },
    "changes": {"rotation": "turned", "reflection": "mirrored", "relabel": "renumbered"},
    "start": "straight",
}
_SPINS: dict[str, Any] = {
    "variants": {
        "invariants, plain network": (False, ""),
        "spins and bonds, shared by neighbours": (True, "set"),
        "spins and bonds, plain network": (True, "mlp"),
    },
    "changes": {"flip": "all flipped", "gauge": "some renamed"},
    "start": "random",
}
_ENCOUNTER = ("particles-encounter-v0", FrameEncounter, "x-and-y-encounter-v0", 600_000, 256)
_LINE = {"orientation": 0.0}, {"orientation": (0.0, 2 * np.pi)}
WORLDS = {
    "encounter": World(*_ENCOUNTER, {}, {}, **_DISCS),
    "encounter on one line": World(*_ENCOUNTER, *_LINE, **_DISCS),
    "crowd": World(
        "particles-crowd-v0", FrameCrowd, "x-and-y-crowd-v0", 600_000, 32, {}, {}, **_DISCS
    ),
    "goals": World(
        "particles-goals-v0", FrameGoals, "x-and-y-goals-v0", 800_000, 8, {}, {}, **_DISCS
    ),
    "spin glass": World(
        "ising-anneal-v0", BareSpins, "bare-spins-v0", 4_000_000, 128, {}, {}, **_SPINS
    ),
}


def register() -> None:
    """Register what sees no invariants, with the settings of the ids whose worlds they are."""
    for world in WORLDS.values():
        of = invariantzoo.spec(world.id)
        settings: dict[str, Any] = {"parameters": of.parameters, "training": of.training}
        invariantzoo.register(world.name, world.bare, **settings)
