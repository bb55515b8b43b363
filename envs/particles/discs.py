"""Autonomous particles: discs that keep their desired velocity and do not touch.

State      position x_i, velocity v_i, desired velocity w_i, radius R_i; torus side L (0: open)
Dynamics   v_i += a_i dt, x_i += v_i dt, |a_i| <= max_acceleration; discs pass through each other
Invariants of a neighbour j, with r = x_j - x_i and u = v_j - v_i:
           I1 = r.r, I2 = r.u, I3 = u.u, I4 = r x u;  own: p.p with p = w_i - v_i
Action     a_i = gain sum_j window(r) [A r + B u + C r_perp + D u_perp] + relaxation E p, the most
           general pair-additive Galilean-covariant acceleration: A..D per neighbour, and E
Loss       L_i = collision_weight sum_j max(0, margin (R_i + R_j) - |r|)^2 + speed_weight |p|^2
           + effort_weight |a_i|^2, at everybody's new places
Reference  straight driving on a torus: collisions per particle and time close to those of a gas,
           (N - 1) / (2 L^2) 4 R (4 / pi) speed; two discs in straight motion: `time_to_collision`

The idea, that four invariants suffice to drive without collisions, is from Andrejic and Vanchurin,
"Autonomous particles" (arXiv 2301.10077). Only its abstract was available: the choice of the four,
the loss, the window and all numbers here are ours.

Neighbours are the `n_neighbours` nearest discs within `cutoff` (half the torus if that is less),
by distance; a missing one reads I1 = cutoff^2 and 0 elsewhere, and window(r) =
(1 - r^2/cutoff^2)^2 is 0 there. `seen` chooses among I1..I4 and with it the vectors that the action
has: r always, u with any of I2..I4, and the perpendicular ones with I4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel
from ..core.physics.invariants import galilean_pair
from ..core.physics.plane import cross, dot, nearest_image, rotate_quarter, wrap
from ..core.rng import Rng
from ..core.scene import LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Range, Symmetry
from ..core.validation import require_choice, require_count, require_number, require_range

SCENARIOS = {
    "particles-crowd-v0": {
        "system": "Particles",
        "summary": "discs with desired velocities in random directions on a torus",
        "parameters": {"layout": "crowd"},
        "training": {
            "ppo": {
                "steps": 4_000_000,
                "n_steps": 8,
                "lr": 3e-3,
                "gamma": 0.9,
                "clip_range": 0.4,
                "width": 24,
            },
        },
        "film": {
            "policy": "social-force",
            "steps": 60,
            "training": {"algo": "descent", "steps": 1_920_000, "n_worlds": 8},
        },
    },
    "particles-encounter-v0": {
        "system": "Particles",
        "summary": "two discs that meet in open space, the exact head-on case included",
        "parameters": {
            "layout": "encounter",
            "n_agents": 2,
            "horizon": 60,
            "collision_weight": 15.0,
            "margin": 1.3,
            "speed_weight": 0.25,
        },
        "training": {"ppo": {"steps": 2_000_000, "n_worlds": 128, "lr": 3e-3}},
        "film": {
            "policy": "social-force",
            "n_worlds": 4,
            "steps": 50,
            "training": {"algo": "descent", "steps": 160_000, "n_worlds": 8},
        },
    },
}

_LEGEND = (
    LegendEntry("far from others, to within the margin of one", "scale"),
    LegendEntry("velocity", "arrow"),
)
INVARIANTS = ("I1", "I2", "I3", "I4")
_SOFTENING = 0.1  # speed below which the heading fades out
_SPACING = 1.5  # cells of the initial placement, in diameters


class State(NamedTuple):
    position: Tensor  # [worlds, agents, 2] length
    velocity: Tensor  # [worlds, agents, 2] length / time
    desired: Tensor  # [worlds, agents, 2] length / time
    radius: Tensor  # [worlds, agents] length
    box: Tensor  # [worlds, 1] length, 0 for open space


class Pairs(NamedTuple):
    """Neighbours of every agent, nearest first."""

    neighbour: Tensor  # [worlds, agents, k] index of the agent, its own where absent
    present: Tensor  # [worlds, agents, k]
    r: Tensor  # [worlds, agents, k, 2], 0 where absent
    u: Tensor  # [worlds, agents, k, 2], 0 where absent
    i1: Tensor  # [worlds, agents, k], cutoff^2 where absent
    window: Tensor  # [worlds, agents, k]


@dataclass(frozen=True)
class Particles(System):
    """Parameters with their units.

    n_agents: number of discs.  horizon: steps of an episode.  dt: time step.
    layout: "crowd" on a torus or "encounter" of two in open space.
    radius: of a disc.  density: discs per area of the torus.  speed: |w|.
    max_acceleration: limit of |a|.  gain: acceleration per unit of A..D times vector.
    relaxation: rate at which E = 1 restores the desired velocity, 1 / time.
    n_neighbours: how many are seen at most.  cutoff: how far.  seen: which of I1..I4.
    actions: "pair" (coefficients A..E), "heading" (along and across a covariant heading) or "lab"
        (x and y of the laboratory; not covariant, for comparison).
    view: "invariants", or "raw" positions and velocities in the laboratory (for comparison).
    collision_weight, speed_weight, effort_weight: terms of the loss.  margin: reach of the first
        of them, in sums of radii.
    separation: distance at the start of an encounter.  impact: its impact parameter.
    angle: between its lines of motion, radians.  orientation: of the first line, radians.
    """

    n_agents: int = 24
    horizon: int = 200
    dt: float = 0.1
    layout: str = "crowd"
    radius: float = 0.25
    density: Range = 0.24
    speed: Range = 1.0
    max_acceleration: float = 2.0
    gain: float = 10.0
    relaxation: float = 2.0
    n_neighbours: int = 8
    cutoff: float = 2.5
    seen: tuple[str, ...] = INVARIANTS
    actions: str = "pair"
    view: str = "invariants"
    collision_weight: float = 30.0
    margin: float = 1.5
    speed_weight: float = 0.5
    effort_weight: float = 0.01
    separation: float = 3.6
    impact: Range = (-0.6, 0.6)
    angle: Range = (-0.3, 0.3)
    orientation: Range = (0.0, 2 * math.pi)

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
        for name in (
            "dt",
            "radius",
            "max_acceleration",
            "gain",
            "relaxation",
            "cutoff",
            "separation",
        ):
            require_number(name, getattr(self, name), 0, strict=True)
        for name in ("collision_weight", "speed_weight", "effort_weight", "margin"):
            require_number(name, getattr(self, name), 0)
        require_range("density", self.density, 0, strict=True)
        require_range("speed", self.speed, 0, strict=True)
        for name in ("impact", "angle", "orientation"):
            require_range(name, getattr(self, name))
        require_choice("layout", self.layout, ("crowd", "encounter"))
        require_choice("actions", self.actions, ("pair", "heading", "lab"))
        require_choice("view", self.view, ("invariants", "raw"))
        names = (self.seen,) if isinstance(self.seen, str) else tuple(self.seen)
        object.__setattr__(self, "seen", tuple(sorted(set(names))))
        for name in self.seen:
            require_choice("seen", name, INVARIANTS)
        if not self.seen:
            raise ValueError("seen=() must name at least one of I1, I2, I3, I4")
        if self.view == "raw" and self.actions != "lab":
            raise ValueError(f"view='raw' needs actions='lab', not {self.actions!r}")
        if self.layout == "encounter" and self.n_agents != 2:
            raise ValueError(f"n_agents={self.n_agents} must be 2 for layout='encounter'")
        if self.layout == "encounter" and self.separation <= 2 * self.radius:
            raise ValueError(
                f"separation={self.separation} must be above 2 radius={2 * self.radius}"
            )
        if self.layout == "crowd":
            self._require_room()

    def _require_room(self) -> None:
        """Discs start on cells of a square lattice: refuse what does not fit there."""
        densest = self.density[1] if isinstance(self.density, tuple) else self.density
        side = math.sqrt(self.n_agents / densest)
        if side / math.ceil(math.sqrt(self.n_agents)) < 2 * self.radius:
            limit = self.n_agents / (2 * self.radius * math.ceil(math.sqrt(self.n_agents))) ** 2
            raise ValueError(
                f"n_agents={self.n_agents} discs of radius={self.radius} cannot be placed at "
                f"density={densest:g}; at most {limit:.4g} is possible"
            )

    @property
    def k(self) -> int:
        """Number of neighbours in the observation."""
        return min(self.n_neighbours, self.n_agents - 1)

    @property
    def sees_motion(self) -> bool:
        """Whether relative velocities are seen."""
        return self.seen != ("I1",)

    @property
    def coefficients(self) -> tuple[str, ...]:
        """The pair coefficients that the action has, of A, B, C, D."""
        motion, handed = self.sees_motion, "I4" in self.seen
        return ("A", *("B" * motion), *("C" * handed), *("D" * (handed and motion)))

    @property
    def speed_limit(self) -> float:
        """Where relative velocities are clipped in the observation."""
        return 4 * (self.speed[1] if isinstance(self.speed, tuple) else self.speed)

    @property
    def bounds(self) -> dict[str, Bound]:
        k, c, u = self.k, self.cutoff, self.speed_limit
        if self.view == "raw":
            least = self.density[0] if isinstance(self.density, tuple) else self.density
            far = (
                math.sqrt(self.n_agents / least) if self.layout == "crowd" else 4 * self.separation
            )
            return {"own": Bound(-far - u, far + u, 6), "others": Bound(-far - u, far + u, 4 * k)}
        limits = {"I1": (0, c * c), "I2": (-c * u, c * u), "I3": (0, u * u), "I4": (-c * u, c * u)}
        found = {"speed_error": Bound(0, u * u)}
        if self.actions == "heading":
            found |= {name: Bound(-u, u) for name in ("p_along", "p_across")}
        found |= {name: Bound(*limits[name], k) for name in self.seen}
        if self.actions == "heading":
            found |= {name: Bound(-c, c, k) for name in ("r_along", "r_across")}
            if self.sees_motion:
                found |= {name: Bound(-u, u, k) for name in ("u_along", "u_across")}
        return found

    @property
    def action_space(self) -> spaces.Box:
        size = len(self.coefficients) * self.k + 1 if self.actions == "pair" else 2
        return spaces.Box(-1.0, 1.0, (size,), np.float32)

    def initial(self, rng: Rng, worlds: int) -> State:
        place = {"crowd": self._crowd, "encounter": self._encounter}[self.layout]
        position, desired, box = place(rng, worlds)
        radius = torch.full_like(position[..., 0], self.radius)
        return State(position, desired.clone(), desired, radius, box)

    def transition(self, state: State, action: Tensor, rng: Rng | None) -> State:
        """`action` [worlds, agents, size]: (A_1..A_k, B.., C.., D.., E), or two components."""
        a = self.acceleration(state, action)
        velocity = state.velocity + self.dt * a
        position = wrap(state.position + self.dt * velocity, state.box[..., None])
        return state._replace(position=position, velocity=velocity)

    def invariants(self, state: State) -> dict[str, Tensor]:
        """Of every agent: `speed_error` p.p, and I1..I4 of its neighbours, nearest first."""
        pairs = self.pairs(state)
        p = state.desired - state.velocity
        if self.view == "raw":
            return self._raw(state, pairs)
        four = galilean_pair(pairs.r, pairs.u)
        four["I1"] = pairs.i1
        found = {"speed_error": dot(p, p), **{name: four[name] for name in self.seen}}
        if self.actions == "heading":
            e = heading(p, pairs)
            found |= {"p_along": dot(p, e), "p_across": cross(e, p)}
            along = e.unsqueeze(-2)
            found |= {"r_along": dot(pairs.r, along), "r_across": cross(along, pairs.r)}
            found |= {"u_along": dot(pairs.u, along), "u_across": cross(along, pairs.u)}
        return found

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
        contact: 1 if any two discs overlap.
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
        x, v, w = (part.gather(1, per_vector) for part in state[:3])
        mixed = State(x, v, w, state.radius.gather(1, order), state.box)
        yield Symmetry("relabel", mixed, order)
        if self.view == "raw" or self.actions == "lab":
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
        x, v, w = (c * part + s * rotate_quarter(part) for part in state[:3])
        turned = State(wrap(x, box), v, w, state.radius, state.box)
        yield Symmetry("rotation", turned)
        mirror = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        x, v, w = (mirror * part for part in state[:3])
        flipped = State(wrap(x, box), v, w, state.radius, state.box)
        signs: dict[str, float | Tensor] = {"action": self._parity()}
        signs |= {name: -1.0 for name in ("I4", "p_across", "r_across", "u_across")}
        yield Symmetry("reflection", flipped, signs=signs)

    def scene(self, state: State) -> Scene:
        """Discs and velocities; red within the margin of a neighbour, blue beyond twice that."""
        from .step import search

        x, v = state.position[0].numpy(), state.velocity[0].numpy()
        radius, side = state.radius[0].numpy(), float(state.box[0, 0])
        nearest = np.empty((1, len(x), 1), np.int32)
        search(state.position[:1].numpy(), state.box[:1].numpy(), self.cutoff, nearest)
        other = nearest[0, :, 0]
        r = x[other] - x
        if side > 0:
            r -= side * np.round(r / side)
        reach = self.margin * (radius + radius[other])
        closeness = (2 - np.hypot(r[:, 0], r[:, 1]) / reach).clip(0, 1)
        half = self.separation
        return Scene(
            view=(0.0, 0.0, side, side) if side > 0 else (-half, -half, half, half),
            periodic=side > 0,
            discs=x,
            disc_radius=radius,
            disc_value=np.where(other < 0, 0.0, closeness),
            arrows=np.concatenate([x, v * 0.5], -1),
            legend=_LEGEND,
        )

    def kernel(self, worlds: int) -> Kernel:
        from .step import make_kernel

        return make_kernel(self, worlds)

    def acceleration(self, state: State, action: Tensor) -> Tensor:
        """The covariant acceleration [worlds, agents, 2] that an action stands for, limited."""
        if self.actions == "lab":
            a = self.max_acceleration * action
        else:
            pairs = self.pairs(state)
            p = state.desired - state.velocity
            if self.actions == "heading":
                e = heading(p, pairs)
                a = action[..., :1] * e + action[..., 1:] * rotate_quarter(e)
                a = self.max_acceleration * a
            else:
                a = self._pair_sum(pairs, p, action)
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
            from .step import search

            worlds, n, _ = position.shape
            nearest = np.empty((worlds, n, self.k), np.int32)
            search(position.numpy(), state.box.numpy(), self.cutoff, nearest)
            found = torch.from_numpy(nearest).long()
            present = found >= 0
            own = torch.arange(n)[None, :, None]
            return torch.where(present, found, own), present
        r = position.unsqueeze(1) - position.unsqueeze(2)
        r = nearest_image(r, state.box[..., None, None])
        d2 = dot(r, r)
        d2.diagonal(dim1=1, dim2=2).fill_(math.inf)
        near, index = d2.sort(stable=True, dim=-1)
        return index[..., : self.k], (near < cut2)[..., : self.k]

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

    def _pair_sum(self, pairs: Pairs, p: Tensor, action: Tensor) -> Tensor:
        vectors = {
            "A": pairs.r,
            "B": pairs.u,
            "C": rotate_quarter(pairs.r),
            "D": rotate_quarter(pairs.u),
        }
        a = torch.zeros_like(p)
        for m, name in enumerate(self.coefficients):
            part = action[..., m * self.k : (m + 1) * self.k]
            a = a + ((pairs.window * part).unsqueeze(-1) * vectors[name]).sum(-2)
        return self.gain * a + self.relaxation * action[..., -1:] * p

    def _parity(self) -> Tensor:
        """Signs of the action's components under reflection."""
        if self.actions == "heading":
            return torch.tensor([1.0, -1.0], dtype=torch.float64)
        signs = [-1.0 if name in "CD" else 1.0 for name in self.coefficients]
        return torch.tensor([*np.repeat(signs, self.k), 1.0], dtype=torch.float64)

    def _raw(self, state: State, pairs: Pairs) -> dict[str, Tensor]:
        worlds = torch.arange(len(pairs.neighbour), device=pairs.neighbour.device)[:, None, None]
        everything = torch.cat([state.position, state.velocity], -1)
        others = everything[worlds, pairs.neighbour].where(pairs.present.unsqueeze(-1), 0.0)
        own = torch.cat([everything, state.desired], -1)
        return {"own": own, "others": others.flatten(2)}

    @property
    def rows(self) -> int:
        """Side of the finest lattice that keeps cells wide, the same for all worlds of a batch."""
        densest = self.density[1] if isinstance(self.density, tuple) else self.density
        side = math.sqrt(self.n_agents / densest)
        root = math.ceil(math.sqrt(self.n_agents))
        return max(min(int(side / (2 * _SPACING * self.radius)), 2 * root), root)

    def _crowd(self, rng: Rng, worlds: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random cells of a lattice on the torus, jittered so that no two discs overlap."""
        n = self.n_agents
        box = (n / rng.draw(self.density, worlds)).sqrt()
        rows = self.rows
        cell = torch.argsort(rng.uniform(worlds, rows * rows), -1)[:, :n]
        spacing = (box / rows).unsqueeze(-1)
        corner = torch.stack([cell % rows, cell // rows], -1).double()
        slack = (1 - 2 * self.radius / spacing) * (1 - 1e-9)
        jitter = 0.5 + slack * (rng.uniform(worlds, n, 2) - 0.5)
        position = (corner + jitter) * spacing + rng.uniform(worlds, 1, 2) * box.unsqueeze(-1)
        direction = 2 * math.pi * rng.uniform(worlds, n)
        speed = rng.draw(self.speed, worlds)
        desired = torch.stack([speed * direction.cos(), speed * direction.sin()], -1)
        return wrap(position, box.unsqueeze(-1)), desired, box

    def _encounter(self, rng: Rng, worlds: int) -> tuple[Tensor, Tensor, Tensor]:
        """Two discs `separation` apart that drive towards each other, centred at the origin."""
        impact, angle = rng.draw(self.impact, worlds), rng.draw(self.angle, worlds)
        turn, speed = rng.draw(self.orientation, worlds), rng.draw(self.speed, worlds)
        half = torch.cat([torch.full_like(impact, -0.5 * self.separation), 0.5 * impact], -1)
        position = torch.stack([half, -half], 1)
        across = torch.cat([angle.sin(), -angle.sin() * 0], -1)
        along = torch.cat([angle.cos(), torch.full_like(angle, -1.0)], -1)
        desired = speed.unsqueeze(-1) * torch.stack([along, across], -1)
        c, s = turn.cos().unsqueeze(-1), turn.sin().unsqueeze(-1)
        turned = [c * part + s * rotate_quarter(part) for part in (position, desired)]
        return turned[0], turned[1], torch.zeros_like(impact)


def heading(p: Tensor, pairs: Pairs) -> Tensor:
    """A covariant direction [worlds, agents, 2] of length below 1: where the agent wants to go.

    It is the desired velocity seen from the mean motion of the neighbours, weighted by the window.
    """
    window = pairs.window.unsqueeze(-1)
    h = p - (window * pairs.u).sum(-2) / (1 + window.sum(-2))
    return h / (dot(h, h) + _SOFTENING**2).sqrt().unsqueeze(-1)


def gas_collision_rate(system: Particles) -> float:
    """Collisions per particle and time of straight driving, from the kinetic theory of gases."""
    density: Any = system.density
    area = system.n_agents / density
    n = system.n_agents
    return 0.5 * (n - 1) / area * 4 * system.radius * (4 / math.pi) * float(system.speed)  # type: ignore[arg-type]
