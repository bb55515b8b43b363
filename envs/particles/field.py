"""Discs that make a field and feel it: what one knows of another is what the field carries.

State      position x_i, velocity v_i, desired velocity w_i, radius R_i, charge q_i; side L of the
           torus; field phi and its rate pi on a grid, their mass m; energy and momentum that the
           world should have
Energy     H = sum M v^2 / 2 + sum a^2 [pi^2 + |grad phi|^2 + m^2 phi^2] / 2 - sum_i q_i phi(x_i);
           waves run with speed 1 and a field at rest falls off over 1 / m
Dynamics   leapfrog of all of it: half a drift, a kick, half a drift; in the kick
           v_i += (q_i grad phi(x_i) / M + a_i) dt, pi += (lap phi - m^2 phi + source) dt
Invariants of the field at the own place, with s the sign of the charge: s phi, s dphi/dt, |grad
           phi|, s v.grad phi, s v x grad phi; v.v; p.p with p = w_i - v_i
Action     (V, G, H, E): a_i = relaxation V v + gain s |q| [G grad phi + H grad_perp phi] +
           relaxation E p, shortened to max_acceleration
Loss       L_i = collision_weight sum_j max(0, margin (R_i + R_j) - |r|)^2 + speed_weight |p|^2
           + effort_weight |a_i|^2, at everybody's new places
Reference  like charges attract with q^2 m K1(m r) / 2 pi, averaged over their clouds; without
           actions H is conserved to O(dt^2)

How a charge is spread over the grid and how the field is read there: see `field_grid.py`.
The field of a start is that of discs at rest. Layout, loss and numbers are ours; the picture of
particles whose interactions are carried by a field is that of Andrejic and Vanchurin, "Autonomous
particles" (arXiv 2301.10077), of which only the abstract was available.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.physics.lattice import largest_step
from ..core.physics.plane import cross, dot, rotate_quarter, wrap
from ..core.rng import Rng
from ..core.scene import LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Range, Symmetry
from ..core.validation import (
    FARTHEST,
    ends_of,
    require_choice,
    require_count,
    require_fields,
    require_number,
    require_range,
)
from .crowd import Crowd
from .discs import State as DiscsState
from .field_grid import (
    FORMS,
    Footprint,
    Reading,
    Taps,
    deposit,
    field_energy,
    field_momentum,
    footprint,
    laplacian,
    read,
    static_field,
    taps,
)

SCENARIOS = {
    "particles-field-v0": {
        "system": "FieldDiscs",
        "summary": "discs that make a field and know of each other by it alone",
        "training": {
            "ppo": {
                "steps": 7_000_000,
                "n_steps": 50,
                "n_epochs": 2,
                "lr": 3e-3,
                "gamma": 0.97,
                "log_std_init": -0.5,
                "width": 24,
            },
            "es": {"steps": 20_000_000},
        },
        "film": {"policy": "social-force", "steps": 117, "every": 3},
        "variants": [
            {"n_agents": 2, "cells": 12, "horizon": 5},
            {
                "n_agents": 5,
                "cells": 16,
                "form": "momentum",
                "order": 2,
                "passes": 2,
                "mass": (0.5, 2.0),
            },
            {
                "n_agents": 7,
                "cells": 20,
                "charge": (0.2, 1.0),
                "negative": 0.5,
                "order": 1,
                "passes": 0,
            },
            {"n_agents": 130, "cells": 40, "passes": 1, "density": (0.2, 0.3)},
        ],
        "score": {
            "random": -333.9,
            "best": -25.03,
            "policy": "descent",
            "origin": "random: docs/scores.md; best: two runs of docs/results/benchmark.json",
        },
    },
}

ACTIONS = ("V", "G", "H", "E")
_RELAXES = 0.7  # E of the two drivers
_BRAKES = -0.3  # V of the social force, without which discs run away from their own cloud
_AHEAD = 1.0  # time that an arrow of a picture stands for
_LEVELS = 16  # of the field in a picture, as a map shows heights
_FINE = 4  # pixels of a picture to a cell of the grid, along each axis
_CONTACTS = 6.0  # most of what is seen of the field, in discs at one place
_FASTEST = 2.0  # the same of velocities, in desired ones
_LEGEND = (
    LegendEntry("strong field", "cell", 0.8),
    LegendEntry("weak field", "cell", 0.1),
    LegendEntry("far from others, to within the margin of one", "scale"),
    LegendEntry("velocity", "arrow"),
)


class State(NamedTuple):
    position: Tensor  # [worlds, agents, 2] length
    velocity: Tensor  # [worlds, agents, 2] length / time
    desired: Tensor  # [worlds, agents, 2] length / time
    radius: Tensor  # [worlds, agents] length
    box: Tensor  # [worlds, 1] length
    charge: Tensor  # [worlds, agents]
    mass: Tensor  # [worlds, 1] of the field, 1 / length
    field: Tensor  # [worlds, cells, cells] along x, then y
    rate: Tensor  # [worlds, cells, cells]
    energy: Tensor  # [worlds, 1] at the start, and the work of all actions since
    momentum: Tensor  # [worlds, 2] at the start, and the impulse of all actions since


@dataclass(frozen=True)
class FieldDiscs(System):
    """Parameters with their units; waves have speed 1.

    n_agents: number of discs.  horizon: steps of an episode.  dt: time step.
    radius: of a disc.  speed: |w|.  density: discs per area of the torus.
    cells: of the grid along each axis.  mass: of the field, 1 / length.
    charge: of a disc.  negative: share of discs whose charge is negative.  inertia: M of a disc.
    order: of the spline, 1 to 3.  passes: by which it is smoothed.  form: "energy" or "momentum",
        which of them the forces on discs conserve.
    max_acceleration: limit of |a|.  gain: acceleration per unit of G or H times |q| grad phi.
    relaxation: rate at which E = 1 restores the desired velocity and V = -1 brakes, 1 / time.
    collision_weight, speed_weight, effort_weight: terms of the loss.  margin: reach of the first
        of them, in sums of radii.
    """

    n_agents: int = 24
    horizon: int = 200
    dt: float = 0.1
    radius: float = 0.25
    speed: Range = 0.5
    density: Range = 0.24
    cells: int = 40
    mass: Range = 1.0
    charge: Range = 0.5
    negative: float = 0.0
    inertia: float = 1.0
    order: int = 3
    passes: int = 8
    form: str = "energy"
    max_acceleration: float = 2.0
    gain: float = 20.0
    relaxation: float = 2.0
    collision_weight: float = 30.0
    margin: float = 1.5
    speed_weight: float = 0.5
    effort_weight: float = 0.01

    agent_name: ClassVar[str] = "particle"
    reductions: ClassVar[dict[str, str]] = {
        "energy_error": "max",
        "contacts": "mean",
        "progress": "mean",
        "momentum": "max",
    }

    def __post_init__(self) -> None:
        for name in ("cells", "order"):
            require_count(name, getattr(self, name))
        require_count("order", self.order, 1, 3)
        require_count("passes", self.passes, 0, 64)
        for name in ("mass", "charge"):
            require_range(name, getattr(self, name), 0, strict=True)
        require_number("negative", self.negative, 0, 1)
        for name in ("radius", "inertia", "gain", "relaxation", "max_acceleration"):
            require_number(name, getattr(self, name), 0, strict=True)
        for name in ("effort_weight", "margin"):
            require_number(name, getattr(self, name), 0)
        require_choice("form", self.form, FORMS)
        finest = self.discs.half_width * 2 / self.cells
        finest *= math.sqrt(ends_of(self.density)[0] / ends_of(self.density)[1])
        limit = largest_step(ends_of(self.mass)[1], finest, 2)
        if self.dt >= limit:
            raise ValueError(
                f"dt={self.dt} must be below {limit:.4g}: waves on a grid with nodes {finest:.4g} "
                "apart grow without bound beyond"
            )

    @cached_property
    def discs(self) -> Crowd:
        """The discs without the field: where they start, and when they are too close."""
        return Crowd(
            n_agents=self.n_agents,
            horizon=self.horizon,
            dt=self.dt,
            radius=self.radius,
            speed=self.speed,
            density=self.density,
            cutoff=2 * self.radius * max(self.margin, 1.0) + 1e-9,
            collision_weight=self.collision_weight,
            speed_weight=self.speed_weight,
            effort_weight=0.0,
            margin=self.margin,
        )

    @cached_property
    def weights(self) -> Taps:
        """Of the nodes around a disc."""
        return taps(self.order, self.passes, self.form)

    @property
    def bounds(self) -> dict[str, Bound]:
        u = _FASTEST * ends_of(self.speed)[1]
        value = _CONTACTS * ends_of(self.charge)[1] / (2 * math.pi)
        slope = value / (8 * self.radius)
        return {
            "field": Bound(-value, value),
            "field_rate": Bound(-slope, slope),
            "slope": Bound(0, slope),
            "rise": Bound(-slope * u, slope * u),
            "drift": Bound(-slope * u, slope * u),
            "speed2": Bound(0, u * u),
            "speed_error": Bound(0, u * u),
        }

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (len(ACTIONS),), np.float32)

    def initial(self, rng: Rng, worlds: int) -> State:
        """Discs as those of the crowd start, and the field of discs that rest there."""
        start = self.discs.initial(rng, worlds)
        size = rng.draw(self.charge, worlds)
        sign = torch.where(rng.uniform(worlds, self.n_agents) < self.negative, -1.0, 1.0)
        return self.at_rest(start, (size * sign).to(size), rng.draw(self.mass, worlds))

    def at_rest(self, start: DiscsState, charge: Tensor, mass: Tensor) -> State:
        """Discs with `charge` [worlds, agents] in the field that they would make at rest."""
        spacing = start.box / self.cells
        at = footprint(start.position, spacing, self.cells, self.weights)
        field = static_field(deposit(charge, at, spacing, self.cells), mass, spacing)
        nothing = torch.zeros_like(start.box)
        still = State(
            start.position,
            start.velocity,
            start.desired,
            start.radius,
            start.box,
            charge,
            mass,
            field,
            torch.zeros_like(field),
            nothing,
            nothing.expand(-1, 2).clone(),
        )
        return still._replace(energy=self.total_energy(still), momentum=self.total_momentum(still))

    def require_state(self, state: State) -> None:
        require_fields(state, ("position", "velocity", "desired"), -FARTHEST, FARTHEST)
        require_fields(state, ("radius", "box"), 0, strict=True)
        require_fields(state, ("mass",), 0)

    def require_given(self, state: State) -> None:
        limit = largest_step(state.mass, state.box / self.cells, 2)
        unstable = limit <= self.dt
        if unstable.any():
            box, mass, least = (part[unstable][0].item() for part in (state.box, state.mass, limit))
            raise ValueError(
                f"state fields 'box' and 'mass' have {box:g} and {mass:g}: dt={self.dt} must be "
                f"below {least:.4g}, where waves on the grid grow without bound"
            )

    def settled(self, state: State) -> State:
        return state._replace(position=wrap(state.position, state.box[..., None]))

    def transition(self, state: State, action: Tensor, rng: Rng | None) -> State:
        """`action` [worlds, agents, 4]: V, G, H, E."""
        half, spacing = 0.5 * self.dt, state.box / self.cells
        pushed = self.acceleration(state, action)
        position = state.position + half * state.velocity
        field = state.field + half * state.rate
        at = footprint(position, spacing, self.cells, self.weights)
        charge = state.charge.unsqueeze(-1)
        pull = charge * read(field, state.rate, at).gradient / self.inertia
        source = deposit(state.charge, at, spacing, self.cells)
        heavy = (state.mass**2).unsqueeze(-1)
        rate = state.rate + self.dt * (laplacian(field, spacing) - heavy * field + source)
        passive = state.velocity + self.dt * pull
        velocity = passive + self.dt * pushed
        impulse = self.inertia * self.dt * pushed
        work = dot(impulse, 0.5 * (passive + velocity)).sum(-1, keepdim=True)
        return state._replace(
            position=wrap(position + half * velocity, state.box.unsqueeze(-1)),
            velocity=velocity,
            field=field + half * rate,
            rate=rate,
            energy=state.energy + work,
            momentum=state.momentum + impulse.sum(1),
        )

    def acceleration(self, state: State, action: Tensor) -> Tensor:
        """The acceleration [worlds, agents, 2] that an action stands for, limited."""
        v, g = state.velocity, self._gradient(state, self.reading(state))
        p, g = state.desired - v, self.gain * state.charge.abs().unsqueeze(-1) * g
        a = self.relaxation * (action[..., :1] * v + action[..., 3:] * p)
        a = a + action[..., 1:2] * g + action[..., 2:3] * rotate_quarter(g)
        limit = self.max_acceleration
        return a * limit / dot(a, a).clamp(min=limit**2).sqrt().unsqueeze(-1)

    def invariants(self, state: State) -> dict[str, Tensor]:
        """Of every agent, with s the sign of its charge.

        field: s phi.  field_rate: s dphi/dt.  slope: |grad phi|.  rise, drift: s v.grad phi and
        s v x grad phi.  speed2: v.v.  speed_error: p.p.
        """
        local = self.reading(state)
        sign, g = state.charge.sign(), self._gradient(state, local)
        v, p = state.velocity, state.desired - state.velocity
        return {
            "field": sign * local.value,
            "field_rate": sign * local.rate,
            "slope": (dot(g, g) + 1e-30).sqrt(),
            "rise": dot(v, g),
            "drift": cross(v, g),
            "speed2": dot(v, v),
            "speed_error": dot(p, p),
        }

    def reading(self, state: State) -> Reading:
        """The field at the places of the discs."""
        return read(state.field, state.rate, self.footprint(state))

    def footprint(self, state: State) -> Footprint:
        """The nodes around the discs."""
        return footprint(state.position, state.box / self.cells, self.cells, self.weights)

    def _gradient(self, state: State, local: Reading) -> Tensor:
        """s grad phi [worlds, agents, 2]."""
        return state.charge.sign().unsqueeze(-1) * local.gradient

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        a = self.acceleration(state, action)
        before, after = self._plain(state), self._plain(next_state)
        return self.discs.loss(before, action, after) + self.effort_weight * dot(a, a)

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """energy_error: of the energy, beside the work of the actions, over sum M w^2 / 2.

        contacts: new overlaps per particle and time (each pair counts once).
        progress: mean of v.w / w.w.
        momentum: length of what discs and field have too much beside the impulse of the actions,
        over sum M |w|; form "momentum" keeps it 0.
        """
        plain = self.discs.metrics(self._plain(state), action, self._plain(next_state))
        w2 = dot(next_state.desired, next_state.desired)
        energy = self.total_energy(next_state) - next_state.energy
        momentum = self.total_momentum(next_state) - next_state.momentum
        return {
            "energy_error": energy[:, 0].abs() / (0.5 * self.inertia * w2.sum(-1)),
            "contacts": plain["collisions"],
            "progress": plain["progress"],
            "momentum": momentum.norm(dim=-1) / (self.inertia * w2.sqrt().sum(-1)),
        }

    def total_energy(self, state: State) -> Tensor:
        """H [worlds, 1]."""
        moving = 0.5 * self.inertia * dot(state.velocity, state.velocity).sum(-1)
        bound = (state.charge * self.reading(state).value).sum(-1)
        own = field_energy(state.field, state.rate, state.mass, state.box / self.cells)
        return (moving + own - bound).unsqueeze(-1)

    def total_momentum(self, state: State) -> Tensor:
        """Of discs and field [worlds, 2]."""
        waves = field_momentum(state.field, state.rate, state.box / self.cells)
        return self.inertia * state.velocity.sum(1) + waves

    @staticmethod
    def _plain(state: State) -> DiscsState:
        return DiscsState(*state[:5])

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        worlds, n = state.radius.shape
        order = torch.argsort(rng.uniform(worlds, n), -1)
        per_vector = order.unsqueeze(-1).expand(-1, -1, 2)
        x, v, w = (vector.gather(1, per_vector) for vector in state[:3])
        radius, charge = (value.gather(1, order) for value in (state.radius, state.charge))
        mixed = state._replace(position=x, velocity=v, desired=w, radius=radius, charge=charge)
        yield Symmetry("relabel", mixed, order)
        opposite = {name: -getattr(state, name) for name in ("charge", "field", "rate")}
        yield Symmetry("charge", state._replace(**opposite))
        yield Symmetry("translation", self._shifted(state, 1 + self.cells // 3))
        yield Symmetry("rotation", self._turned(state))
        signs: dict[str, float | Tensor] = {"action": state.box.new_tensor([1.0, 1.0, -1.0, 1.0])}
        yield Symmetry("reflection", self._mirrored(state), signs=signs | {"drift": -1.0})

    def _shifted(self, state: State, step: int) -> State:
        """All of it so many nodes along x."""
        shift = state.box.new_tensor([1.0, 0.0]) * (step * state.box / self.cells).unsqueeze(-1)
        return state._replace(
            position=wrap(state.position + shift, state.box.unsqueeze(-1)),
            field=state.field.roll(step, 1),
            rate=state.rate.roll(step, 1),
        )

    def _turned(self, state: State) -> State:
        """A quarter to the left about the first node."""

        def turn(grid: Tensor) -> Tensor:
            return grid.transpose(1, 2).flip(1).roll(1, 1)  # new (i, j) is old (j, -i)

        x, v, w = (rotate_quarter(vector) for vector in state[:3])
        return state._replace(
            position=wrap(x, state.box.unsqueeze(-1)),
            velocity=v,
            desired=w,
            field=turn(state.field),
            rate=turn(state.rate),
            momentum=rotate_quarter(state.momentum),
        )

    def _mirrored(self, state: State) -> State:
        """Left and right exchanged about the first node."""
        mirror = state.box.new_tensor([-1.0, 1.0])
        x, v, w = (mirror * vector for vector in state[:3])
        return state._replace(
            position=wrap(x, state.box.unsqueeze(-1)),
            velocity=v,
            desired=w,
            field=state.field.flip(1).roll(1, 1),
            rate=state.rate.flip(1).roll(1, 1),
            momentum=mirror * state.momentum,
        )

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {
            "none": self._none,
            "straight": self._straight,
            "social-force": self._social_force,
            "yield": self._yield,
        }

    def _none(self, seen: dict[str, Tensor], rng: Rng) -> Tensor:
        """No acceleration: discs and field are left to themselves."""
        return self._constant(seen, 0.0, 0.0, 0.0)

    def _straight(self, seen: dict[str, Tensor], rng: Rng) -> Tensor:
        """Make up for the pull of the field, and keep the desired velocity."""
        return self._constant(seen, 0.0, -1 / (self.gain * self.inertia), _RELAXES)

    def _social_force(self, seen: dict[str, Tensor], rng: Rng) -> Tensor:
        """Down the slope of the field as hard as it goes, and back to the desired velocity."""
        return self._constant(seen, _BRAKES, -1.0, _RELAXES)

    def _yield(self, seen: dict[str, Tensor], rng: Rng) -> Tensor:
        """Out of everybody's way, and else at rest: cheap while speed_weight is small."""
        return self._constant(seen, -1.0, -1.0, 0.0)

    @staticmethod
    def _constant(seen: dict[str, Tensor], along: float, up: float, back: float) -> Tensor:
        nothing = torch.zeros_like(seen["field"])
        parts = (nothing + along, nothing + up, nothing, nothing + back)
        return torch.stack(parts, -1).clamp(-1, 1)

    def scene(self, state: State) -> Scene:
        """Discs and velocities over the field that they make."""
        picture, x = self.discs.scene(self._plain(state)), state.position[0].numpy()
        return Scene(
            view=picture.view,
            periodic=True,
            discs=x,
            disc_radius=picture.disc_radius,
            disc_value=picture.disc_value,
            arrows=np.concatenate([x, _AHEAD * state.velocity[0].numpy()], -1),
            cells=self._picture(state.field[0].numpy()),
            legend=_LEGEND,
        )

    def _picture(self, field: np.ndarray) -> np.ndarray:
        """The field [cells, cells] as colours [rows, columns] in [0, 1], several to a cell."""
        fine = _FINE * self.cells
        wave = 2 * np.pi * np.fft.fftfreq(self.cells) * 0.5 / _FINE  # to the middle of a pixel
        waves = np.fft.fft2(field) * np.exp(1j * (wave[:, None] + wave))
        padded = np.zeros((fine, fine), complex)
        half = self.cells // 2
        where = np.r_[0 : self.cells - half, fine - half : fine]
        padded[np.ix_(where, where)] = waves
        value = np.fft.ifft2(padded).real * _FINE**2 / (0.5 * self.bounds["field"].high)
        if self.negative:
            value = 0.5 + 0.5 * value
        return np.round(value.T[::-1].clip(0, 1) * _LEVELS) / _LEVELS

    def kernel(self, worlds: int) -> Kernel | None:
        from ..core.physics.kernels.discs import GRID_FROM
        from . import field_step

        by_cells = self.n_agents >= GRID_FROM
        limits = list(self.bounds.values())
        return Kernel(
            field_step.step_by_cells if by_cells else field_step.step,
            field_step.observe,
            parameter_record(
                field_step.PARAMETERS,
                cutoff=self.discs.cutoff,
                shift=self.weights.shift,
                first=self.weights.first,
                **{name: getattr(self, name) for name in field_step.OWN_NAMES},
            ),
            tables=field_step.Tables(
                np.ascontiguousarray(self.weights.value.T),
                np.ascontiguousarray(self.weights.slope.T),
                np.array([bound.low for bound in limits], float),
                np.array([bound.high for bound in limits], float),
            ),
            scratch=field_step.scratch(
                worlds, self.n_agents, self.discs.k, self.cells, len(self.weights.value)
            ),
        )
