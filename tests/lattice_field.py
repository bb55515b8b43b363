"""A scalar field on a torus in one to three dimensions: what a system on a lattice looks like.

State      value and momentum of every site; the mass of the world; whose turn it is
Dynamics   leapfrog of d2 phi / dt2 = neighbours - 2 d phi - m^2 phi, and kicks by who acts
Loss       L_i = pi_i^2 / 2 + sum over bonds of (phi_i - phi_j)^2 / 4 + m^2 phi_i^2 / 2
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

from gymnasium import spaces
from torch import Tensor

from invariantzoo.envs.core.physics.lattice import Isometry, Torus
from invariantzoo.envs.core.physics.updates import Update
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.types import Bound, Range, Symmetry


class FieldState(NamedTuple):
    phi: Tensor  # [worlds, sites]
    momentum: Tensor  # [worlds, sites]
    mass: Tensor  # [worlds, 1]
    turn: Tensor  # [worlds, 1] int64


@dataclass(frozen=True)
class Field(System):
    """A field whose sites are kicked towards rest.

    shape: sites along each axis.  mass: a number, or (low, high).  update: who may kick.
    """

    shape: tuple[int, ...] = (4, 4)
    mass: Range = (0.5, 1.0)
    update: str = "parallel"
    dt: float = 0.05
    horizon: int = 100

    agent_name: ClassVar[str] = "site"

    @property
    def n_agents(self) -> int:  # type: ignore[override]
        return self.lattice.n_sites

    @property
    def one_at_a_time(self) -> bool:  # type: ignore[override]
        return self.update != "parallel"

    @cached_property
    def lattice(self) -> Torus:
        return Torus(self.shape)

    @cached_property
    def schedule(self) -> Update:
        return Update(self.update, self.lattice.n_sites, self.lattice.colours)

    @property
    def bounds(self) -> dict[str, Bound]:
        limits = Bound(-100.0, 100.0)
        return {"phi_force": limits, "momentum_force": limits, "mass": Bound(0.0, 10.0)}

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (1,))

    def initial(self, rng: Rng, worlds: int) -> FieldState:
        phi, momentum = rng.normal(worlds, self.n_agents), rng.normal(worlds, self.n_agents)
        mass = rng.draw(self.mass, worlds)
        return FieldState(phi, momentum, mass, self.schedule.first_turn(rng, worlds))

    def transition(self, state: FieldState, action: Tensor, rng: Rng) -> FieldState:
        kick = self.schedule.used(action[..., 0], state.turn)
        force = self.force(state.phi, state.mass)
        half = state.momentum + self.dt * (0.5 * force + kick * force.sign())
        phi = state.phi + self.dt * half
        momentum = half + 0.5 * self.dt * self.force(phi, state.mass)
        return FieldState(phi, momentum, state.mass, self.schedule.next_turn(state.turn, rng))

    def active(self, state: FieldState) -> Tensor | None:
        return self.schedule.active(state.turn)

    def invariants(self, state: FieldState) -> dict[str, Tensor]:
        force = self.force(state.phi, state.mass)
        mass = state.mass.expand_as(force)
        return {
            "phi_force": state.phi * force,
            "momentum_force": state.momentum * force,
            "mass": mass,
        }

    def loss(self, state: FieldState, action: Tensor, next_state: FieldState) -> Tensor:
        return self.energy(next_state)

    def symmetries(self, state: FieldState, rng: Rng) -> Iterator[Symmetry]:
        worlds, lattice = len(state.phi), self.lattice
        steps = (7 * rng.uniform(worlds, lattice.dimension)).long()
        yield self._moved("translation", state, lattice.shift(steps))
        yield self._moved("reflection", state, lattice.mirror(worlds, 0))
        if len(set(self.shape)) == 1 and lattice.dimension > 1:
            yield self._moved("rotation", state, lattice.turn(worlds, (0, lattice.dimension - 1)))
        flipped = state._replace(phi=-state.phi, momentum=-state.momentum)
        yield Symmetry("sign", flipped)

    def force(self, phi: Tensor, mass: Tensor) -> Tensor:
        """Second derivative of the field in time [worlds, sites]."""
        curvature = self.lattice.neighbour_sum(phi) - 2 * self.lattice.dimension * phi
        return curvature - mass**2 * phi

    def energy(self, state: FieldState) -> Tensor:
        """What each site holds [worlds, sites]."""
        energy = 0.5 * state.momentum**2 + 0.5 * state.mass**2 * state.phi**2
        for axis in range(self.lattice.dimension):
            for steps in (1, -1):
                energy = energy + (self.lattice.ahead(state.phi, axis, steps) - state.phi) ** 2 / 4
        return energy

    def _moved(self, name: str, state: FieldState, isometry: Isometry) -> Symmetry:
        turn, noise = self.schedule.rearranged(state.turn, isometry.sites)
        phi, momentum = (self.lattice.moved(v, isometry) for v in (state.phi, state.momentum))
        moved = FieldState(phi, momentum, state.mass, turn)
        return Symmetry(name, moved, isometry.sites, noise=noise)
