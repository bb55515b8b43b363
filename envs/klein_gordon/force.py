"""A Klein-Gordon field on a torus whose sites are agents that learn the force.

State      phi_i and pi_i of every site; mass m, time step dt and spacing a of the world
Dynamics   pi_i' = pi_i + a_i, the agent's kick, then phi_i' = phi_i + dt pi_i'
Local loss of site i: V_i = m^2 phi_i^2 / 2 + sum over its bonds of (phi_i - phi_j)^2 / 2 a^2
Invariants phi_i and its Laplacian, both odd in the field as the kick is; m and dt. With
           sees = "neighbours" each neighbour's value in place of the Laplacian
Action     the kick in units of `kick`
Loss       the regret (a_i - a_i*)^2 / 2 dt against the exact kick a_i* = -dt dV_i / dphi_i: up to
           what no action changes, a_i dV_i / dphi_i + a_i^2 / 2 dt
Reference  the policy "leapfrog" takes a_i*: then the step is symplectic Euler, and it conserves
           Q = sum (pi^2 + phi K phi - dt pi K phi) / 2, K = m^2 - Laplacian, exactly

The regret is least for the exact kick at every discount. The two terms that it stands for are not:
the exact kick brings them to -dt (dV_i / dphi_i)^2 / 2, so that at any discount above 0 it pays to
pump energy into the field first.

That a site is an agent whose bias is its momentum and whose learning step is the kick is Hamilton's
equations read as activation and learning (Emergent field theories from neural networks,
arXiv 2411.08138); the lattice, the loss as regret and what agents see are our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.physics.lattice import Isometry, Torus, largest_step
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.system import System
from ..core.types import Bound, LiveParameter, Range, StatePolicy, Symmetry
from ..core.validation import (
    ends_of,
    require_choice,
    require_count,
    require_fields,
    require_number,
    require_range,
)
from . import field, picture

SCENARIOS = {
    "klein-gordon-force-v0": {
        "system": "KleinGordonForce",
        "summary": "sites of a field that learn the force from their own loss",
        "training": {
            "descent": {"rollout": 4, "lr": 3e-3},
            "ppo": {
                "gamma": 0.0,
                "gae_lambda": 0.0,
                "n_steps": 4,
                "lr": 4e-4,
                "batch_size": 8192,
                "n_epochs": 8,
                "log_std_init": -3.5,
            },
            "a2c": {
                "steps": 20_000_000,
                "gamma": 0.0,
                "gae_lambda": 0.0,
                "n_steps": 4,
                "lr": 1e-3,
                "log_std_init": -3.5,
            },
            "sac": {"gamma": 0.0},
        },
        "score": {
            "random": -7.83e8,
            "best": 0.0,
            "policy": "leapfrog",
            "exact": True,
            "origin": "500 episodes of random actions, which heat the field without end",
            "resolution": 1e-4,  # every kick wrong by 2e-4
        },
        "film": {
            "parameters": {"dimensions": 2, "lattice_size": 128, "start": "pluck", "mass": 0.15},
            "policy": "leapfrog",
            "steps": 320,
            "every": 4,
            "size": 256,
        },
        "variants": [
            {"lattice_size": 2},
            {"dimensions": 2, "lattice_size": 4, "mass": (0.0, 1.0), "dt": (0.1, 0.3)},
            {"dimensions": 3, "lattice_size": 3, "spacing": (0.8, 1.2), "start": "pluck"},
            {"lattice_size": 8, "sees": "neighbours", "precision": "float32"},
        ],
    },
}

_STABLE = 0.95  # of the largest time step, to which the window may go
_FAINT = 1e-16  # height of a hill that is none: numbers near the smallest ones make steps slow
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
STARTS = ("random", "pluck")
SIGHTS = ("laplacian", "neighbours")


class FieldState(NamedTuple):
    phi: Tensor  # [worlds, sites] row by row, in the system's precision
    momentum: Tensor  # [worlds, sites] the same
    mass: Tensor  # [worlds, 1] 1 / length
    dt: Tensor  # [worlds, 1] time
    spacing: Tensor  # [worlds, 1] length
    energy: Tensor  # [worlds, 1] Q at the start
    course: Tensor  # [worlds, 4] steps n, Q / Q0 - 1 now, its sum, the sum of n times it


@dataclass(frozen=True)
class KleinGordonForce(System):
    """Parameters with their units.

    dimensions: axes of the torus, 1 to 3.  lattice_size: sites along each.
    mass: inverse of a length.  dt: time step.  spacing: length between two sites; each a number,
        or (low, high) drawn once per world. The speed of light is 1.
    amplitude: standard deviation of phi and pi at the start, or the height of a pluck.
    start: "random", or "pluck": a round hill at a random place, at rest.
    kick: change of momentum that an action of 1 makes.
    sees: "laplacian", or "neighbours", whose values are then seen one by one.
    horizon: steps of an episode.  precision: of the field, "float64" or "float32".
    """

    dimensions: int = 1
    lattice_size: int = 64
    mass: Range = 0.5
    dt: Range = 0.2
    spacing: Range = 1.0
    amplitude: float = 0.3
    start: str = "random"
    kick: float = 1.0
    sees: str = "laplacian"
    horizon: int = 1000
    precision: str = "float64"

    agent_name: ClassVar[str] = "site"
    reductions: ClassVar[dict[str, str]] = {"band": "max", "drift": "last"}
    fused: ClassVar[tuple[str, ...]] = ("leapfrog", "none")
    press: ClassVar[str] = "pluck the field"

    def __post_init__(self) -> None:
        require_count("dimensions", self.dimensions, 1, 3)
        require_count("lattice_size", self.lattice_size, 2)
        require_range("mass", self.mass, 0)
        require_range("dt", self.dt, 0, strict=True)
        require_range("spacing", self.spacing, 0, strict=True)
        require_number("amplitude", self.amplitude, 0, strict=True)
        require_choice("start", self.start, STARTS)
        require_number("kick", self.kick, 0, strict=True)
        require_choice("sees", self.sees, SIGHTS)
        require_count("horizon", self.horizon)
        require_choice("precision", self.precision, PRECISIONS)
        heaviest, closest = ends_of(self.mass)[-1], ends_of(self.spacing)[0]
        limit = largest_step(heaviest, closest, self.dimensions)
        if ends_of(self.dt)[-1] >= limit:
            raise ValueError(f"dt={self.dt} must be below {limit:.4g}, where the waves blow up")

    @cached_property
    def lattice(self) -> Torus:
        return Torus((self.lattice_size,) * self.dimensions)

    @property
    def n_agents(self) -> int:
        return self.lattice.n_sites

    @property
    def live_parameters(self) -> dict[str, LiveParameter]:
        """The mass, and a time step at which waves are stable at any of these masses."""
        closest, ends = ends_of(self.spacing)[0], ends_of(self.dt)
        shortest, longest = ends[0], ends[-1]
        heaviest = max(ends_of(self.mass)[-1], 1.0)
        if longest >= largest_step(heaviest, closest, self.dimensions):
            heaviest = ends_of(self.mass)[-1]
        stable = _STABLE * largest_step(heaviest, closest, self.dimensions)
        return {
            "mass": LiveParameter(0.05, 0.0, heaviest),
            "dt": LiveParameter(0.02, min(0.02, shortest), max(longest, min(0.5, stable))),
        }

    @property
    def bounds(self) -> dict[str, Bound]:
        most = 20 * self.amplitude
        curved = 2 * most / ends_of(self.spacing)[0] ** 2
        if self.sees == "neighbours":
            around = {"neighbours": Bound(-most, most, 2 * self.dimensions)}
        else:
            around = {"laplacian": Bound(-curved, curved)}
        heaviest, longest = ends_of(self.mass)[-1], ends_of(self.dt)[-1]
        worlds = {"mass": Bound(0.0, max(heaviest, 1.0)), "dt": Bound(0.0, max(longest, 1.0))}
        return {"phi": Bound(-most, most), **around, **worlds}

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))

    def world_bytes(self) -> int:
        return 4 * 8 * self.n_agents

    def initial(self, rng: Rng, worlds: int) -> FieldState:
        precision, shape = PRECISIONS[self.precision], (worlds, self.n_agents)
        mass, dt = rng.draw(self.mass, worlds), rng.draw(self.dt, worlds)
        spacing = rng.draw(self.spacing, worlds)
        if self.start == "pluck":
            place = (self.lattice_size * rng.uniform(worlds, self.dimensions)).long()
            phi = self.amplitude * self._hill(self.lattice.site(place))
            momentum = torch.zeros_like(phi)
        else:
            phi, momentum = self.amplitude * rng.normal(*shape), self.amplitude * rng.normal(*shape)
        phi, momentum = phi.to(precision), momentum.to(precision)
        pull = field.force(phi, mass, spacing, self.lattice)
        energy = field.conserved_energy(phi, momentum, pull, dt)
        return FieldState(phi, momentum, mass, dt, spacing, energy, energy.new_zeros(worlds, 4))

    def require_state(self, state: FieldState) -> None:
        require_fields(state, ("mass",), 0)
        require_fields(state, ("dt", "spacing"), 0, strict=True)

    def require_given(self, state: FieldState) -> None:
        for name in ("mass", "dt"):
            require_fields(state, (name,), 0, self.bounds[name].high)
        limit = largest_step(state.mass, state.spacing, self.dimensions)
        unstable = state.dt >= limit
        if unstable.any():
            dt, least = (part[unstable][0].item() for part in (state.dt, limit))
            raise ValueError(
                f"state field 'dt' has {dt:g}; at these 'mass' and 'spacing' it must be below "
                f"{least:.4g}, where the waves blow up"
            )

    def transition(self, state: FieldState, action: Tensor, rng: Rng) -> FieldState:
        """`action` [worlds, agents, 1]: kicks in units of `kick`."""
        momentum = state.momentum + self._kicks(state, action)
        phi = state.phi + state.dt.to(momentum.dtype) * momentum
        pull = field.force(phi, state.mass, state.spacing, self.lattice)
        excess = field.conserved_energy(phi, momentum, pull, state.dt) / state.energy - 1
        n, _, total, moment = state.course.unbind(-1)
        n, excess = n + 1, excess[:, 0]
        course = torch.stack([n, excess, total + excess, moment + n * excess], -1)
        return state._replace(phi=phi, momentum=momentum, course=course)

    def invariants(self, state: FieldState) -> dict[str, Tensor]:
        """The site's value, what surrounds it, and its world's mass and time step."""
        phi = state.phi
        if self.sees == "neighbours":
            axes = range(self.dimensions)
            values = [self.lattice.ahead(phi, axis, step) for axis in axes for step in (-1, 1)]
            around = {"neighbours": torch.stack(values, -1)}
        else:
            around = {"laplacian": field.laplacian(phi, state.spacing, self.lattice)}
        worlds = {"mass": state.mass.expand_as(phi), "dt": state.dt.expand_as(phi)}
        return {"phi": phi, **around, **worlds}

    def loss(self, state: FieldState, action: Tensor, next_state: FieldState) -> Tensor:
        exact = exact_kick(state, self.lattice)
        return (self._kicks(state, action).double() - exact.double()) ** 2 / (2 * state.dt)

    def metrics(
        self, state: FieldState, action: Tensor, next_state: FieldState
    ) -> dict[str, Tensor]:
        """band: largest |Q / Q0 - 1| of the episode.

        drift: how far the straight line through Q / Q0 has risen or fallen since the start.
        """
        return {"band": next_state.course[:, 1].abs(), "drift": field.drift(next_state.course)}

    def symmetries(self, state: FieldState, rng: Rng) -> Iterator[Symmetry]:
        worlds, lattice, device = len(state.phi), self.lattice, state.phi.device
        shift = (self.lattice_size * rng.uniform(worlds, self.dimensions)).long()
        yield self._moved("translation", state, lattice.shift(shift))
        if self.sees == "laplacian":
            yield self._moved("reflection", state, lattice.mirror(worlds, 0, device))
            for axis in range(1, self.dimensions):
                turned = lattice.turn(worlds, (0, axis), device)
                yield self._moved(f"rotation {axis}", state, turned)
        flipped = state._replace(phi=-state.phi, momentum=-state.momentum)
        signs = dict.fromkeys(("phi", self.sees, "action"), -1.0)
        yield Symmetry("sign", flipped, signs=signs)

    def scene(self, state: FieldState) -> Scene:
        """The field: a line against time in one dimension, a plane or a slice through the block."""
        size, n = self.lattice_size, float(state.course[0, 0])
        excess = float(state.course[0, 1])
        caption = (
            f"mass {float(state.mass[0, 0]):.2f}, time {n * float(state.dt[0, 0]):.1f}",
            f"Q / Q0 - 1 = {excess:+.1e}",
        )
        most = (1 if self.start == "pluck" else 3) * self.amplitude
        return picture.waves(state.phi[0], size, self.dimensions, most, caption)

    def pressed(self, state: FieldState, agent: int) -> FieldState:
        """The first world with a hill more, around that site; its energy counts from there."""
        sites = torch.full((len(state.phi),), agent)
        hill = 3 * self.amplitude * self._hill(sites).to(state.phi.dtype)
        phi = state.phi + hill * (torch.arange(len(hill)) == 0)[:, None]
        return self.adjusted(state._replace(phi=phi))

    def adjusted(self, state: FieldState) -> FieldState:
        """With the Q that the field, the mass and the time step have now as what is conserved."""
        pull = field.force(state.phi, state.mass, state.spacing, self.lattice)
        energy = field.conserved_energy(state.phi, state.momentum, pull, state.dt)
        return state._replace(energy=energy / (1 + state.course[:, 1:2]))

    def state_policies(self) -> dict[str, StatePolicy]:
        return {
            "leapfrog": StatePolicy(partial(_kicked, self)),
            "none": StatePolicy(_no_kick),
        }

    def references(self) -> dict[str, float]:
        """Of the policy "leapfrog"."""
        return {"band": 0.0, "drift": 0.0, "loss": 0.0}

    def rollout(
        self, state: FieldState, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[FieldState, dict[str, Tensor]]:
        """Fused; a record holds the last step's numbers."""
        from .rollout import run

        after, records = run(state, self.lattice_size, self.dimensions, policy, steps, every)
        excess, moved, loss = records
        return after, {"band": excess, "drift": moved, "loss": loss}

    def kernel(self, worlds: int) -> Kernel:
        from .step import PARAMETERS, Scratch, Sites, observe, step

        parameters = parameter_record(
            PARAMETERS,
            kick=self.kick,
            separate=self.sees == "neighbours",
            phi=self.bounds["phi"].high,
            around=self.bounds[self.sees].high,
        )
        return Kernel(
            step,
            observe,
            parameters,
            tables=Sites(field.neighbour_table(self.lattice)),
            scratch=Scratch(torch.empty(self.n_agents, dtype=PRECISIONS[self.precision]).numpy()),
            bounded=False,
        )

    def _kicks(self, state: FieldState, action: Tensor) -> Tensor:
        """Changes of momentum [worlds, sites] in the field's precision."""
        return (self.kick * action[..., 0]).to(state.phi.dtype)

    def _hill(self, site: Tensor) -> Tensor:
        """A round hill of height 1 around a site of each world [worlds, sites]."""
        size = self.lattice_size
        places = self.lattice.coordinates(site.device).double()
        away = (places - places[site][:, None]).abs()
        away = torch.minimum(away, size - away)
        width = max(1.5, size / 40)
        height = torch.exp(-(away**2).sum(-1) / (2 * width**2))
        return torch.where(height < _FAINT, torch.zeros_like(height), height)

    def _moved(self, name: str, state: FieldState, isometry: Isometry) -> Symmetry:
        phi, momentum = (self.lattice.moved(v, isometry) for v in (state.phi, state.momentum))
        return Symmetry(name, state._replace(phi=phi, momentum=momentum), isometry.sites)


def exact_kick(state: FieldState, lattice: Torus) -> Tensor:
    """-dt dV_i / dphi_i [worlds, sites] in the field's precision."""
    pull = field.force(state.phi, state.mass, state.spacing, lattice)
    return state.dt.to(pull.dtype) * pull


def _kicked(
    system: KleinGordonForce, state: FieldState, memory: Any, rng: Rng
) -> tuple[Tensor, Any]:
    """The exact kick."""
    kick = exact_kick(state, system.lattice).double() / system.kick
    return kick.unsqueeze(-1), memory


def _no_kick(state: FieldState, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
    """Every site moves on freely."""
    return torch.zeros(*state.phi.shape, 1, dtype=torch.float64), memory
