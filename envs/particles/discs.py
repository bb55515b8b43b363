"""Discs in the plane that drive themselves: what all their scenarios share.

State      position x_i, velocity v_i, desired velocity w_i, radius R_i; torus side L (0: open)
Dynamics   v_i += a_i dt, x_i += v_i dt, |a_i| <= max_acceleration; discs pass through each other
Invariants of a neighbour j, with r = x_j - x_i and u = v_j - v_i:
           I1 = r.r, I2 = r.u, I3 = u.u, I4 = r x u;  own: p.p with p = w_i - v_i
Action     a_i = gain sum_j window(r) [A r + B u + C r_perp + D u_perp] + relaxation E p, the most
           general pair-additive Galilean-covariant acceleration: A..D per neighbour, and E
Loss       L_i = collision_weight sum_j max(0, margin (R_i + R_j) - |r|)^2 + speed_weight |p|^2
           + effort_weight |a_i|^2, at everybody's new places

The idea, that four invariants suffice to drive without collisions, is from Andrejic and Vanchurin,
"Autonomous particles" (arXiv 2301.10077). Only its abstract was available: the choice of the four,
the loss, the window and all numbers here are ours.

Neighbours are the `n_neighbours` nearest discs within `cutoff` (half the torus if that is less),
by distance; a missing one reads I1 = cutoff^2 and 0 elsewhere, and window(r) =
(1 - r^2/cutoff^2)^2 is 0 there. `seen` chooses among I1..I4 and with it the vectors that the action
has: r always, u with any of I2..I4, and the perpendicular ones with I4.

A scenario is a class derived from Discs that says where discs start (`initial`) and how wide the
picture is (`half_width`); it may override loss and metrics, and then runs in its torch form.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.physics.plane import dot, nearest_image, rotate_quarter, wrap
from ..core.rng import Rng
from ..core.scene import LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Neighbourhood, Range, Symmetry
from ..core.validation import (
    FARTHEST,
    ends_of,
    require_choice,
    require_count,
    require_fields,
    require_number,
    require_range,
)
from .control import Control, HeadingControl, PairControl
from .sight import INVARIANTS, Pairs, Sight

CONTROLS = ("pair", "heading")
_LEGEND = (
    LegendEntry("far from others, to within the margin of one", "scale"),
    LegendEntry("velocity", "arrow"),
)


class State(NamedTuple):
    position: Tensor  # [worlds, agents, 2] length
    velocity: Tensor  # [worlds, agents, 2] length / time
    desired: Tensor  # [worlds, agents, 2] length / time
    radius: Tensor  # [worlds, agents] length
    box: Tensor  # [worlds, 1] length, 0 for open space


@dataclass(frozen=True)
class Discs(System):
    """Parameters with their units.

    n_agents: number of discs.  horizon: steps of an episode.  dt: time step.
    radius: of a disc.  speed: |w|.
    max_acceleration: limit of |a|.  gain: acceleration per unit of A..D times vector.
    relaxation: rate at which E = 1 restores the desired velocity, 1 / time.
    n_neighbours: how many are seen at most, and may be touched: contacts and the penalty of the
        loss count among those.  cutoff: how far.  seen: which of I1..I4.
    actions: "pair" (coefficients A..E) or "heading" (along and across a covariant heading).
    collision_weight, speed_weight, effort_weight: terms of the loss.  margin: reach of the first
        of them, in sums of radii.
    """

    n_agents: int = 24
    horizon: int = 200
    dt: float = 0.1
    radius: float = 0.25
    speed: Range = 1.0
    max_acceleration: float = 2.0
    gain: float = 10.0
    relaxation: float = 2.0
    n_neighbours: int = 8
    cutoff: float = 2.5
    seen: tuple[str, ...] = INVARIANTS
    actions: str = "pair"
    collision_weight: float = 30.0
    margin: float = 1.5
    speed_weight: float = 0.5
    effort_weight: float = 0.01

    agent_name: ClassVar[str] = "particle"
    reductions: ClassVar[dict[str, str]] = {
        "collisions": "mean",
        "progress": "mean",
        "contact": "max",
    }

    def __post_init__(self) -> None:
        for name in ("horizon", "n_neighbours"):
            require_count(name, getattr(self, name))
        require_count("n_agents", self.n_agents, 2)
        for name in ("dt", "radius", "max_acceleration", "gain", "relaxation", "cutoff"):
            require_number(name, getattr(self, name), 0, strict=True)
        for name in ("collision_weight", "speed_weight", "effort_weight", "margin"):
            require_number(name, getattr(self, name), 0)
        require_range("speed", self.speed, 0, strict=True)
        require_choice("actions", self.actions, CONTROLS)
        seen = self.seen
        names = tuple(seen) if isinstance(seen, tuple | list | set | frozenset) else (seen,)
        for name in names:
            require_choice("seen", name, INVARIANTS)
        object.__setattr__(self, "seen", tuple(sorted(set(names))))
        if not self.seen:
            raise ValueError("seen=() must name at least one of I1, I2, I3, I4")

    @property
    @abstractmethod
    def half_width(self) -> float:
        """Half of what a picture of open space shows, length."""

    @property
    def k(self) -> int:
        """Number of neighbours in the observation."""
        return min(self.n_neighbours, self.n_agents - 1)

    @property
    def speed_limit(self) -> float:
        """Where relative velocities are clipped in the observation."""
        return 4 * ends_of(self.speed)[1]

    @property
    def sight(self) -> Sight:
        """What is seen of neighbours."""
        return Sight(self.k, self.cutoff, self.speed_limit, self.seen)

    @property
    def control(self) -> Control:
        """What an action means."""
        if self.actions == "heading":
            return HeadingControl(self.max_acceleration)
        return PairControl(self.gain, self.relaxation)

    @property
    def bounds(self) -> dict[str, Bound]:
        own, neighbours = self.control.bounds(self.sight)
        speed_error = {"speed_error": Bound(0, self.speed_limit**2)}
        return speed_error | own | self.sight.bounds | neighbours

    @property
    def neighbourhood(self) -> Neighbourhood | None:
        sight = self.sight
        per_neighbour = sight.coefficients if self.actions == "pair" else ()
        return Neighbourhood(self.seen, per_neighbour, sight.features, sight.window)

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("straight", "brake", "social-force") if "I1" in self.seen else ()

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self.control.size(self.sight),), np.float32)

    def require_state(self, state: State) -> None:
        require_fields(state, ("position", "velocity", "desired"), -FARTHEST, FARTHEST)
        require_fields(state, ("radius",), 0, strict=True)
        require_fields(state, ("box",), 0)

    def settled(self, state: State) -> State:
        return state._replace(position=wrap(state.position, state.box[..., None]))

    def transition(self, state: State, action: Tensor, rng: Rng | None) -> State:
        """`action` [worlds, agents, size]: (A_1..A_k, B.., C.., D.., E), or along and across."""
        a = self.acceleration(state, action)
        velocity = state.velocity + self.dt * a
        position = wrap(state.position + self.dt * velocity, state.box[..., None])
        return state._replace(position=position, velocity=velocity)

    def invariants(self, state: State) -> dict[str, Tensor]:
        """Of every agent: `speed_error` p.p, and I1..I4 of its neighbours, nearest first."""
        pairs = self.pairs(state)
        p = state.desired - state.velocity
        seen = self.sight.invariants(pairs)
        return {"speed_error": dot(p, p), **seen, **self.control.invariants(self.sight, pairs, p)}

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        pairs = self.pairs(next_state)
        reach = self.margin * self._contact(next_state, pairs.neighbour)
        overlap = (reach - pairs.i1.sqrt()).clamp(min=0).where(pairs.present, 0.0)
        p = next_state.desired - next_state.velocity
        a = (next_state.velocity - state.velocity) / self.dt
        return (
            self.collision_weight * (overlap**2).sum(-1)
            + self.speed_weight * dot(p, p)
            + self.effort_weight * dot(a, a)
        )

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """collisions: new contacts per particle and time (each pair counts once).

        progress: mean of v.w / w.w, which no collision lowers: it ranks no policies.
        contact: 1 if any disc overlaps one that it sees.
        """
        pairs = self.pairs(next_state)
        contact = self._contact(next_state, pairs.neighbour)
        touching = pairs.present & (pairs.i1 < contact**2)
        before = self._displacement(state, state.position, pairs.neighbour)
        new = touching & (dot(before, before) >= contact**2)
        w = next_state.desired
        return {
            "collisions": new.sum((1, 2)).double() / (2 * self.n_agents * self.dt),
            "progress": (dot(next_state.velocity, w) / dot(w, w)).mean(-1),
            "contact": touching.any(-1).any(-1).double(),
        }

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        worlds, n = state.radius.shape
        order = torch.argsort(rng.uniform(worlds, n), -1)
        per_vector = order.unsqueeze(-1).expand(-1, -1, 2)
        x, v, w = (vector.gather(1, per_vector) for vector in state[:3])
        mixed = State(x, v, w, state.radius.gather(1, order), state.box)
        yield Symmetry("relabel", mixed, order)
        if not self.control.covariant:
            return
        box = state.box[..., None]
        shift = (2 * rng.uniform(worlds, 1, 2) - 1) * torch.where(box > 0, box, 10.0)
        yield Symmetry("translation", state._replace(position=wrap(state.position + shift, box)))
        boost = 2 * rng.uniform(worlds, 1, 2) - 1
        moving = state._replace(velocity=state.velocity + boost, desired=state.desired + boost)
        yield Symmetry("boost", moving)
        quarter = 0.5 * math.pi * (1 + (3 * rng.uniform(worlds, 1)).floor())
        angle = torch.where(state.box > 0, quarter, 2 * math.pi * rng.uniform(worlds, 1))
        c, s = angle.cos()[..., None], angle.sin()[..., None]
        x, v, w = (c * vector + s * rotate_quarter(vector) for vector in state[:3])
        turned = State(wrap(x, box), v, w, state.radius, state.box)
        yield Symmetry("rotation", turned)
        mirror = box.new_tensor([-1.0, 1.0])
        x, v, w = (mirror * vector for vector in state[:3])
        flipped = State(wrap(x, box), v, w, state.radius, state.box)
        parity = box.new_tensor(self.control.parity(self.sight))
        signs: dict[str, float | Tensor] = {"action": parity}
        signs |= {name: -1.0 for name in ("I4", "p_across", "r_across", "u_across")}
        yield Symmetry("reflection", flipped, signs=signs)

    def scene(self, state: State) -> Scene:
        """Discs and velocities; red within the margin of a neighbour, blue beyond twice that."""
        from ..core.physics.kernels.discs import nearest_discs

        x, v = state.position[0].numpy(), state.velocity[0].numpy()
        radius, side = state.radius[0].numpy(), float(state.box[0, 0])
        here = (state.position[:1].numpy(), state.box[:1].numpy())
        other = nearest_discs(*here, self.cutoff, 1)[0, :, 0]
        r = x[other] - x
        if side > 0:
            r -= side * np.round(r / side)
        reach = self.margin * (radius + radius[other])
        closeness = (2 - np.hypot(r[:, 0], r[:, 1]) / reach).clip(0, 1)
        half = self.half_width
        return Scene(
            view=(0.0, 0.0, side, side) if side > 0 else (-half, -half, half, half),
            periodic=side > 0,
            discs=x,
            disc_radius=radius,
            disc_value=np.where(other < 0, 0.0, closeness),
            arrows=np.concatenate([x, v * 0.5], -1),
            legend=_LEGEND,
        )

    def kernel(self, worlds: int) -> Kernel | None:
        """The compiled form; None for a scenario with laws of its own."""
        laws = ("acceleration", "control")
        if any(getattr(type(self), name) is not getattr(Discs, name) for name in laws):
            return None
        from ..core.physics.kernels.discs import GRID_FROM
        from . import step

        control, by_cells = self.actions == "pair", self.n_agents >= GRID_FROM
        return Kernel(
            step.step_by_cells if by_cells else step.step,
            step.observe_by_cells if by_cells else step.observe,
            parameter_record(
                step.PARAMETERS,
                heading=not control,
                sees_motion=self.sight.sees_motion,
                **{f"sees_i{m}": f"I{m}" in self.seen for m in (1, 2, 3, 4)},
                gain=self.gain if control else self.max_acceleration,
                relaxation=self.relaxation / self.gain,
                speed_limit=self.speed_limit,
                **{name: getattr(self, name) for name in step.OWN_NAMES},
            ),
            scratch=step.scratch(worlds, self.n_agents, self.k),
        )

    def acceleration(self, state: State, action: Tensor) -> Tensor:
        """The acceleration [worlds, agents, 2] that an action stands for, limited."""
        p = state.desired - state.velocity
        a = self.control.acceleration(self.sight, self.pairs(state), p, action)
        limit = self.max_acceleration
        return a * limit / dot(a, a).clamp(min=limit**2).sqrt().unsqueeze(-1)

    def pairs(self, state: State) -> Pairs:
        """Each agent's neighbours, nearest first."""
        cut2 = self._cutoff(state) ** 2
        index, present = self._search(state, cut2)
        mask = present.unsqueeze(-1)
        r = self._displacement(state, state.position, index).where(mask, 0.0)
        worlds = torch.arange(len(index), device=index.device)[:, None, None]
        u = (state.velocity[worlds, index] - state.velocity.unsqueeze(2)).where(mask, 0.0)
        i1 = dot(r, r).where(present, torch.full_like(r[..., 0], self.cutoff**2))
        window = ((1 - dot(r, r) / cut2) ** 2).where(present, 0.0)
        return Pairs(index, present, r, u, i1, window)

    def _search(self, state: State, cut2: Tensor) -> tuple[Tensor, Tensor]:
        """Index and presence [worlds, agents, k] of the k nearest within the cutoff."""
        position = state.position.detach()
        if position.device.type == "cpu":
            from ..core.physics.kernels.discs import nearest_discs

            here = (position.numpy(), state.box.numpy())
            nearest = torch.from_numpy(nearest_discs(*here, self.cutoff, self.k)).long()
            present = nearest >= 0
            own = torch.arange(position.shape[1])[None, :, None]
            return torch.where(present, nearest, own), present
        r = position.unsqueeze(1) - position.unsqueeze(2)
        r = nearest_image(r, state.box[..., None, None])
        d2 = dot(r, r)
        d2.diagonal(dim1=1, dim2=2).fill_(math.inf)
        near, index = d2.sort(stable=True, dim=-1)
        present = (near < cut2)[..., : self.k]
        own = torch.arange(position.shape[1], device=position.device)[None, :, None]
        return torch.where(present, index[..., : self.k], own), present

    def _displacement(self, state: State, x: Tensor, index: Tensor) -> Tensor:
        worlds = torch.arange(len(index), device=index.device)[:, None, None]
        return nearest_image(x[worlds, index] - x.unsqueeze(2), state.box[..., None, None])

    def _contact(self, state: State, index: Tensor) -> Tensor:
        worlds = torch.arange(len(index), device=index.device)[:, None, None]
        return state.radius[worlds, index] + state.radius.unsqueeze(2)

    def _cutoff(self, state: State) -> Tensor:
        """The cutoff, or half the torus if that is less [worlds, 1, 1]."""
        open_space = torch.full_like(state.box, self.cutoff)
        half = torch.where(state.box > 0, 0.5 * state.box, open_space)
        return half.clamp(max=self.cutoff).unsqueeze(-1)
