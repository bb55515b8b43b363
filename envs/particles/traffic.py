"""Traffic: cars and pedestrians among buildings and signs, on a crossing and on a two-way street.

State      position, velocity, goal, kind and heading of every agent; the road: its velocity V,
           buildings (thick segments, or discs) and signs, which move with it as goals do; what an
           episode has seen so far: arrivals, contacts of every pair, effort, speeding
Start      drivers at rest in queues in the lanes that lead in, pedestrians on the pavements; see
           `envs/particles/traffic_layout.py`
Dynamics   v_i += a_i dt, x_i += v_i dt, |v_i - V| <= speed of the kind, |a_i| <= max_acceleration;
           discs pass through each other and through buildings; who comes within `arrival` of its
           goal leaves
Own invariants: distance to the goal; c = v_i - V along and across the direction e to it; code of
           the kind; near a sign that holds for it, I3 = c.c and the limit
Invariants of another, or of the nearest point of a building, at r with velocity u towards it:
           I1 = r.r, I2 = r.u, I3 = u.u, I4 = r x u; r and u along and across e; |r| at contact;
           code of its kind; the part of the gap that the observer has to give
Mask       of all that, an observer sees what is relevant to a pair of its kind and that one; the
           rest reads 0
Action     coefficients A..D of r, u, r_perp, u_perp per other, then alpha and beta of e, e_perp:
           speed (alpha e + beta e_perp) + gain sum_j window(r) [A r + B u + C r_perp + D u_perp]
           is the velocity that is wanted
Loss       distance_weight d / scale + absence_weight d^2 / (d^2 + R_i^2) + effort_weight |a_i|^2,
           and for every other what the table of kinds says of that ordered pair; near a sign
           weight max(0, I3 - limit^2); at the new places

The table of kinds is `envs/particles/traffic_kinds.py`; a kind more is a subclass with another
table and a parameter for their number. Particles of many kinds are those of Andrejic and Vanchurin,
"Autonomous particles" (arXiv 2301.10077), of which only the abstract was available: kinds, losses,
layouts, all numbers, and that agents leave at their goals, as drivers drive on, are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel
from ..core.physics.invariants import galilean_pair
from ..core.physics.plane import cross, dot, positive, rotate_quarter
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.system import System
from ..core.types import Bound, Neighbourhood, Symmetry
from ..core.validation import (
    FARTHEST,
    require_choice,
    require_codes,
    require_count,
    require_fields,
    require_number,
)
from . import traffic_layout as places
from .goal_geometry import direction, distance_along, shortened
from .traffic_geometry import Pairs, of_kind, overlaps, pairs_of, strictest_limit
from .traffic_kinds import OBSERVED, TRAFFIC, Kind, Kinds, Tables
from .traffic_picture import picture
from .traffic_scores import SOFTENING, TOLERANCE, costs, scores
from .traffic_sight import bounds_of, neighbourhood_of
from .traffic_state import State, at_rest, seen_by_others

SCENARIOS = {
    "particles-traffic-v0": {
        "system": "Traffic",
        "summary": "cars and pedestrians among houses and signs, on a crossing or a street",
        "training": {
            "ppo": {
                "steps": 3_000_000,
                "n_worlds": 32,
                "n_steps": 64,
                "n_epochs": 1,
                "lr": 3e-3,
                "gamma": 0.98,
                "log_std_init": -2.5,
            },
        },
        "film": {"policy": "buffered-voronoi", "steps": 240},
        "variants": [
            {"layout": "street"},
            {"n_cars": 1, "n_pedestrians": 1},
            {"n_cars": 9, "n_pedestrians": 0, "right_of_way": "side"},
            {"n_cars": 0, "n_pedestrians": 12, "layout": "street", "n_neighbours": 3},
            {"n_cars": 3, "n_pedestrians": 4, "n_buildings": 1, "max_acceleration": 2.0},
        ],
        "score": {
            "random": -1778.0,
            "best": -162.1,
            "policy": "orca",
            "origin": "100 episodes of every driver",
        },
    },
}


@dataclass(frozen=True)
class Traffic(System):
    """Parameters with their units.

    n_cars, n_pedestrians: how many there are.  layout: "crossing" or "street".
    right_of_way: "main": on a crossing one road is the main one; "side": who comes from the right
        goes first everywhere.
    length: of an arm of the road.  max_acceleration: limit of |a|; 2 speed / dt reaches any
        velocity within a step.
    dt: time step.  arrival: distance from the goal at which one has arrived.
    time_limit: of an episode, in times that the longest way takes at full speed.
    horizon: steps of an episode; 0: as many as `time_limit` says.
    n_neighbours, n_buildings: how many of them are seen at most.  cutoff: how far.
    reach: how far actions reach.  gain: of the coefficients A..D.
    distance_weight, absence_weight, effort_weight: terms of the loss.
    """

    n_cars: int = 6
    n_pedestrians: int = 10
    layout: str = "crossing"
    right_of_way: str = "main"
    length: float = 6.0
    max_acceleration: float = 20.0
    dt: float = 0.1
    arrival: float = 0.2
    time_limit: float = 3.0
    horizon: int = 0
    n_neighbours: int = 8
    n_buildings: int = 3
    cutoff: float = 4.0
    reach: float = 2.0
    gain: float = 4.0
    distance_weight: float = 1.0
    absence_weight: float = 1.0
    effort_weight: float = 0.002

    agent_name: ClassVar[str] = "user"
    baseline_family: ClassVar[str] = "traffic"
    kinds: ClassVar[Kinds] = TRAFFIC
    control: ClassVar[str] = "velocity"  # what an action asks for
    building: ClassVar[str] = "building"  # the kinds that the layouts are made of
    sign: ClassVar[str] = "sign"

    def __post_init__(self) -> None:
        require_choice("layout", self.layout, places.LAYOUTS)
        require_choice("right_of_way", self.right_of_way, ("main", "side"))
        for name in ("n_neighbours", "n_buildings"):
            require_count(name, getattr(self, name))
        lengths = ("length", "arrival", "cutoff", "reach")
        for name in (*lengths, "max_acceleration", "dt", "time_limit", "gain"):
            require_number(name, getattr(self, name), 0, strict=True)
        for name in ("distance", "absence", "effort"):
            require_number(f"{name}_weight", getattr(self, f"{name}_weight"), 0)
        for kind in self.kinds.acting:
            require_count(kind.number, getattr(self, kind.number), 0)
        everybody = {kind: self._count(kind) for kind in self.kinds.acting}
        places.require_room(self._layout, self.length, everybody)
        require_count("horizon", self.horizon, 0)
        time = self.time_limit * self._longest_time
        object.__setattr__(self, "horizon", self.horizon or math.ceil(round(time / self.dt, 9)))

    def _count(self, kind: Kind) -> int:
        return int(getattr(self, kind.number))

    @property
    def _layout(self) -> places.Layout:
        return places.LAYOUTS[self.layout]

    @property
    def present(self) -> tuple[Kind, ...]:
        """Kinds of which there are agents."""
        return tuple(kind for kind in self.kinds.acting if self._count(kind))

    @property
    def n_agents(self) -> int:
        """Agents of a world."""
        return sum(self._count(kind) for kind in self.kinds.acting)

    @property
    def _longest_way(self) -> float:
        n = sum(self._count(kind) for kind in self.kinds.acting if kind.place == "road")
        return self.length + places.longest_queue(self._layout, self.length, n)

    @property
    def _longest_time(self) -> float:
        """That anybody takes for the longest way at full speed."""
        ways = {"road": self._longest_way, "pavement": self.length}
        return max(ways[kind.place] / kind.speed for kind in self.present)

    @property
    def k(self) -> int:
        """Agents and buildings in the observation."""
        return self.n_others + min(self.n_buildings, self.n_walls)

    @property
    def n_walls(self) -> int:
        """Buildings of a world."""
        return places.n_buildings(self._layout)

    @property
    def n_others(self) -> int:
        """Agents in the observation."""
        return min(self.n_neighbours, self.n_agents - 1)

    @property
    def speed(self) -> float:
        """The largest of any agent."""
        return max(kind.speed for kind in self.present)

    @property
    def largest_radius(self) -> float:
        """The largest of any agent."""
        return max(kind.radius for kind in self.present)

    @property
    def sign_kind(self) -> Kind:
        """The kind of signs."""
        return self.kinds.kinds[self.kinds.code(self.sign) - 1]

    @property
    def sight(self) -> float:
        """How far a sign is seen: nobody comes into its range from farther away within a step."""
        return self.sign_kind.range + self.speed * self.dt

    @property
    def speed_limit(self) -> float:
        """Where velocities are clipped in the observation."""
        return 4 * self.speed

    @property
    def bounds(self) -> dict[str, Bound]:
        return bounds_of(
            self.k, self.cutoff, self.speed_limit, self.largest_radius, self.distance_limit
        )

    @property
    def distance_limit(self) -> float:
        """Nobody comes farther from its goal."""
        return 2 * self._longest_way + self.speed * self.dt * self.horizon

    @property
    def neighbourhood(self) -> Neighbourhood | None:
        return neighbourhood_of(self.largest_radius, self.reach)

    @property
    def baselines(self) -> tuple[str, ...]:
        free = self.max_acceleration * self.dt >= 2 * self.speed  # which the guard needs
        guarded = ("buffered-voronoi", "learned") if free else ()
        return (*guarded, "orca", "orca-right-hand", "orca-tuned", "social-force", "straight")

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (4 * self.k + 2,), np.float32)

    @property
    def contacts(self) -> dict[str, tuple[int, int, int]]:
        """Metrics of contacts by name: codes of two kinds, and how many pairs there are."""
        numbers = {kind.name: self._count(kind) for kind in self.present}
        return self.kinds.contacts(numbers, self.building, self.n_walls)

    @property
    def agent_types(self) -> tuple[int, ...]:
        """Kinds that are there, in the order of the table."""
        return tuple(i for i, kind in enumerate(self.present) for _ in range(self._count(kind)))

    @property
    def reductions(self) -> dict[str, str]:
        flows = [f"flow_{kind.name}" for kind in self.present]
        names = ("ok", "all_ok", "hit", "arrived", "flow", *flows, "time_ratio", "over_limit")
        names += ("deepest_overlap", "effort", "contact", *self.contacts)
        return dict.fromkeys(names, "last")

    def initial(self, rng: Rng, worlds: int) -> State:
        """Queues at the ends of the arms and people on the pavements; the middle at the origin."""
        numbers = {kind: self._count(kind) for kind in self.present}
        main = self.right_of_way == "main"
        starts = places.start(rng, self._layout, self.length, worlds, numbers, main)
        codes = [self.kinds.code(kind.name) for kind, n in numbers.items() for _ in range(n)]
        built = places.built(self._layout, self.length)
        return at_rest(starts, codes, built, self.sign_kind.limit, 2 * self.length)

    def terminated(self, state: State) -> Tensor:
        """Who has arrived has left."""
        return state.arrival_time >= 0

    def require_state(self, state: State) -> None:
        require_fields(
            state,
            ("position", "velocity", "goal", "road_velocity", "building", "sign"),
            -FARTHEST,
            FARTHEST,
        )
        codes = tuple(float(self.kinds.code(kind.name)) for kind in self.present)
        require_codes(state, ("kind",), codes)
        require_codes(state, ("rank", "touched", "struck"), (0, 1))
        require_codes(state, ("hand",), (-1, 1))
        sums = ("effort", "watched", "over", "steps")
        require_fields(state, ("thickness", "limit", "distance", "deepest", *sums), 0)
        require_fields(state, ("scale",), 0, strict=True)

    def transition(self, state: State, action: Tensor, rng: Rng | None) -> State:
        """`action` [worlds, agents, 4 k + 2]: A_1..A_k, B.., C.., D.., alpha, beta."""
        here = state.arrival_time < 0
        shown, drift = here.unsqueeze(-1), self.dt * state.road_velocity
        a, goal = self.acceleration(state, action), state.goal + drift
        velocity = torch.where(shown, state.velocity + self.dt * a, state.road_velocity)
        position = state.position + self.dt * velocity
        steps = state.steps + here.any(-1, keepdim=True)
        arrives = here & ((goal - position).norm(dim=-1) <= self.arrival)
        after = state._replace(
            position=position,
            velocity=velocity,
            goal=goal,
            building=state.building + drift.unsqueeze(2),
            sign=state.sign + drift,
            arrival_time=torch.where(arrives, steps * self.dt, state.arrival_time),
            effort=state.effort + (dot(a, a) * here).detach(),
            steps=steps,
        )
        depth, into = overlaps(state, after, self.tables, drift)
        deepest = torch.cat([depth, into], -1).amax(-1).clamp(min=0)
        limit = strictest_limit(after, self.sign_kind.range)
        watches = here & self._heeds(state) & limit.isfinite()
        c = (velocity - state.road_velocity).detach()
        too_fast = watches & (dot(c, c).sqrt() > limit + TOLERANCE)
        return after._replace(
            touched=torch.maximum(state.touched, (depth > TOLERANCE).to(depth.dtype)),
            struck=torch.maximum(state.struck, (into > TOLERANCE).to(into.dtype)),
            deepest=torch.maximum(state.deepest, deepest),
            watched=state.watched + watches,
            over=state.over + too_fast,
        )

    @property
    def tables(self) -> Tables:
        """The table of kinds as arrays."""
        return self.kinds.tables()

    def _heeds(self, state: State) -> Tensor:
        """Whether signs hold for each agent [worlds, agents]."""
        seen = self.tables.mask[:, self.kinds.code(self.sign) - 1, OBSERVED.index("I3")]
        return of_kind(seen, state) > 0

    def _speed(self, state: State) -> Tensor:
        return of_kind(self.tables.speed, state)

    def acceleration(self, state: State, action: Tensor) -> Tensor:
        """The acceleration [worlds, agents, 2] that an action stands for, limited."""
        pairs, k = self.pairs(state), self.k
        e, speed = direction(state.goal - state.position), self._speed(state).unsqueeze(-1)
        c = state.velocity - state.road_velocity
        wanted = speed * (action[..., -2:-1] * e + action[..., -1:] * rotate_quarter(e))
        window = self.gain * (1 - dot(pairs.r, pairs.r) / self.reach**2).clamp(min=0) ** 2
        vectors = (pairs.r, pairs.u, rotate_quarter(pairs.r), rotate_quarter(pairs.u))
        for m, vector in enumerate(vectors):
            coefficient = window * action[..., m * k : (m + 1) * k]
            wanted = wanted + (coefficient.unsqueeze(-1) * vector).sum(-2)
        too_long = positive(dot(wanted, wanted)).unsqueeze(-1).sqrt() / speed
        a = (wanted / too_long.clamp(min=1.0) - c) / self.dt
        return shortened(a, self.max_acceleration)

    def pairs(self, state: State) -> Pairs:
        """What each agent has around it."""
        building = self.kinds.code(self.building)
        n_buildings = self.k - self.n_others
        return pairs_of(state, self.tables, self.cutoff, self.n_others, n_buildings, building)

    def invariants(self, state: State) -> dict[str, Tensor]:
        pairs = self.pairs(state)
        g = state.goal - state.position
        e, c = direction(g), state.velocity - state.road_velocity
        limit = strictest_limit(state, self.sight)
        watches = self._heeds(state) & limit.isfinite()
        along = e.unsqueeze(-2)
        vectors = {
            **galilean_pair(pairs.r, pairs.u),
            "r_along": dot(pairs.r, along),
            "r_across": cross(along, pairs.r),
            "u_along": dot(pairs.u, along),
            "u_across": cross(along, pairs.u),
        }
        seen = {name: vectors[name] * pairs.mask[..., m] for m, name in enumerate(OBSERVED)}
        absent = torch.full_like(pairs.contact, self.cutoff**2)
        seen["I1"] = seen["I1"].where(pairs.present, absent)
        return {
            "goal_distance": distance_along(g),
            "c_along": dot(e, c),
            "c_across": cross(e, c),
            "kind": state.kind.to(g.dtype),
            "sign_I3": dot(c, c).where(watches, 0.0),
            "sign_limit": limit.where(watches, 0.0),
            **seen,
            "contact": pairs.contact,
            "neighbour_kind": pairs.kind.to(g.dtype),
            "give": pairs.give,
        }

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        s, tables = next_state, self.tables
        g, c = s.goal - s.position, s.velocity - s.road_velocity
        a = (s.velocity - state.velocity) / self.dt
        d2, radius = dot(g, g), of_kind(tables.radius, state)
        too_fast = (dot(c, c) - strictest_limit(s, self.sign_kind.range) ** 2).clamp(min=0)
        warned = of_kind(tables.weight[:, self.kinds.code(self.sign) - 1], state)
        loss = (
            self.distance_weight * (d2 + SOFTENING).sqrt() / s.scale
            + self.absence_weight * d2 / (d2 + radius**2)
            + self.effort_weight * dot(a, a)
            + costs(self.pairs(s), state.kind, tables).sum(-1)
            + warned * too_fast.where(self._heeds(state), 0.0)
        )
        return loss.where(state.arrival_time < 0, 0.0)

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """Of the episode so far.

        ok: share that has arrived and never touched anything.  all_ok: 1 if all are.
        hit: share that ever overlapped another or a building by more than 1 mm.
        arrived: share that has left at its goal.  flow: arrivals per time, of all and of each kind,
        up to its last arrival once all have arrived.
        time_ratio: times of arrival over straight times at full speed, sums over who is ok; NaN
        where nobody is.  over_limit: share of steps near signs that were too fast; NaN without any.
        deepest_overlap: length.  effort: root mean square of the acceleration, on the road.
        contact, contact_a_b: share of ordered pairs (of kinds a, b) that ever overlapped so.
        """
        flows = {f"flow_{kind.name}": self.kinds.code(kind.name) for kind in self.present}
        building = self.kinds.code(self.building)
        return scores(next_state, self._speed(state), self.dt, flows, self.contacts, building)

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        return seen_by_others(state, rng, self.k)

    def scene(self, state: State) -> Scene:
        """Everybody in colour and form of its kind, houses, trees, signs, ways, who gives way."""
        first = State(*(field[:1] for field in state))
        return picture(first, self.kinds, self.present, self.sign_kind, self.length, self.dt)

    def kernel(self, worlds: int) -> Kernel | None:
        """The compiled form; None for laws of its own."""
        laws = ("acceleration", "pairs")
        if any(getattr(type(self), name) is not getattr(Traffic, name) for name in laws):
            return None
        from .traffic_step import twin

        return twin(self, worlds)
