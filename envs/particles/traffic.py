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
table and a parameter that says how many there are. Particles of many kinds are those of Andrejic
and Vanchurin, "Autonomous particles" (arXiv 2301.10077), of which only the abstract was available:
kinds, losses, layouts and all numbers are ours. That agents leave at their goals is our choice,
too: drivers drive on and out of the picture.
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

from ..core.kernel import Kernel, parameter_record
from ..core.physics.invariants import galilean_pair
from ..core.physics.plane import cross, dot, rotate_quarter
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.system import System
from ..core.types import Bound, Neighbourhood, Symmetry
from ..core.validation import require_choice, require_count, require_number
from . import traffic_layout as places
from .goal_geometry import direction, shortened
from .traffic_geometry import Pairs, of_kind, overlaps, pairs_of, strictest_limit
from .traffic_kinds import MOST_KINDS, OBSERVED, TRAFFIC, Kind, Kinds, Tables
from .traffic_picture import picture
from .traffic_scores import SOFTENING, TOLERANCE, costs, scores
from .traffic_state import State, seen_by_others

SCENARIOS = {
    "particles-traffic-v0": {
        "system": "Traffic",
        "summary": "cars and pedestrians among houses and signs, on a crossing or a street",
        "film": {"policy": "buffered-voronoi", "steps": 240},
        "variants": [
            {"layout": "street"},
            {"n_cars": 1, "n_pedestrians": 1},
            {"n_cars": 9, "n_pedestrians": 0, "right_of_way": "side"},
            {"n_cars": 0, "n_pedestrians": 12, "layout": "street", "n_neighbours": 3},
            {"n_cars": 3, "n_pedestrians": 4, "n_buildings": 1, "max_acceleration": 2.0},
        ],
    },
}

RIGHTS_OF_WAY = ("main", "side")


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
        require_choice("right_of_way", self.right_of_way, RIGHTS_OF_WAY)
        for name in ("n_neighbours", "n_buildings"):
            require_count(name, getattr(self, name))
        for name in ("length", "max_acceleration", "dt", "arrival", "time_limit"):
            require_number(name, getattr(self, name), 0, strict=True)
        for name in ("cutoff", "reach", "gain"):
            require_number(name, getattr(self, name), 0, strict=True)
        for name in ("distance", "absence", "effort"):
            require_number(f"{name}_weight", getattr(self, f"{name}_weight"), 0)
        for kind in self.kinds.acting:
            require_count(kind.number, self._count(kind), 0)
            if self._count(kind) and kind.radius > places.widest(kind):
                raise ValueError(
                    f"radius={kind.radius} of {kind.name} must be at most "
                    f"{places.widest(kind):g}: it starts on the {kind.place}"
                )
        if self.n_agents < 1:
            names = " + ".join(kind.number for kind in self.kinds.acting)
            raise ValueError(f"{names}=0 must be at least 1")
        slots = places.pavement_slots(self._layout, self.length)
        if self._starting("pavement") > slots:
            raise ValueError(
                f"n_pedestrians={self._starting('pavement')} must be at most {slots}: so many find "
                f"a place on pavements of length={self.length}"
            )
        require_count("horizon", self.horizon, 0)
        time = self.time_limit * self._longest_time
        object.__setattr__(self, "horizon", self.horizon or math.ceil(round(time / self.dt, 9)))

    def _count(self, kind: Kind) -> int:
        return int(getattr(self, kind.number))

    def _starting(self, place: str) -> int:
        return sum(self._count(kind) for kind in self.kinds.acting if kind.place == place)

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
        return self.length + places.longest_queue(self._layout, self.length, self._starting("road"))

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
        """Buildings of a world: a row of houses and a tree on both sides of every arm."""
        return 4 * len(self._layout.arms)

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
    def _sign(self) -> Kind:
        return self.kinds.kinds[self.kinds.code(self.sign) - 1]

    @property
    def sight(self) -> float:
        """How far a sign is seen: nobody comes into its range from farther away within a step."""
        return self._sign.range + self.speed * self.dt

    @property
    def _speed_limit(self) -> float:
        return 4 * self.speed

    @property
    def bounds(self) -> dict[str, Bound]:
        c, u, k = self.cutoff, self._speed_limit, self.k
        limits = {
            "I1": (0, c * c),
            "I2": (-c * u, c * u),
            "I3": (0, u * u),
            "I4": (-c * u, c * u),
            "r_along": (-c, c),
            "r_across": (-c, c),
            "u_along": (-u, u),
            "u_across": (-u, u),
            "contact": (0, 2 * self.largest_radius),
            "neighbour_kind": (0, MOST_KINDS),
            "give": (0, 1),
        }
        return {
            "goal_distance": Bound(0, self._distance_limit),
            "c_along": Bound(-u, u),
            "c_across": Bound(-u, u),
            "kind": Bound(0, MOST_KINDS),
            "sign_I3": Bound(0, u * u),
            "sign_limit": Bound(0, u),
            **{name: Bound(*limits[name], k, "neighbours") for name in limits},
        }

    @property
    def _distance_limit(self) -> float:
        """Nobody comes farther from its goal."""
        return 2 * self._longest_way + self.speed * self.dt * self.horizon

    @property
    def neighbourhood(self) -> Neighbourhood | None:
        names = (*OBSERVED, "contact", "give")
        return Neighbourhood(names, ("A", "B", "C", "D"), self._features, self._window)

    def _features(self, seen: dict[str, Tensor]) -> Tensor:
        """What is seen of others, brought to order one [..., k, 10]."""
        near = seen["I1"].clamp(min=1e-12).sqrt()
        scaled = [near - 1, *(torch.asinh(seen[name]) for name in ("I2", "I3", "I4"))]
        e = seen["goal_distance"] / (seen["goal_distance"] ** 2 + self.largest_radius**2).sqrt()
        scaled += [e.unsqueeze(-1) * seen[name] for name in OBSERVED[4:]]
        return torch.stack([*scaled, seen["contact"], seen["give"]], -1)

    def _window(self, seen: dict[str, Tensor]) -> Tensor:
        near = (1 - seen["I1"] / self.reach**2).clamp(min=0) ** 2
        return near.where(seen["contact"] > 0, 0.0)

    @property
    def baselines(self) -> tuple[str, ...]:
        free = self.max_acceleration * self.dt >= 2 * self.speed  # which the guard needs
        guarded = ("buffered-voronoi",) if free else ()
        return (*guarded, "orca", "orca-tuned", "social-force", "straight")

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (4 * self.k + 2,), np.float32)

    @property
    def contacts(self) -> dict[str, tuple[int, int]]:
        """Metrics of contacts: the codes of the pair by name, for pairs that there can be."""
        names, found = [kind.name for kind in self.present], {}
        for m, one in enumerate(names):
            for other in [*names[m:], self.building]:
                if one != other or self._count(self.present[m]) > 1:
                    codes = self.kinds.code(one), self.kinds.code(other)
                    found[f"contact_{one}_{other}"] = codes
        return found

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
        ends, thickness = places.buildings(self._layout, self.length)
        signs = places.signs(self._layout)
        limit = torch.full(signs.shape[:1], self._sign.limit, dtype=signs.dtype)
        device = rng.world.device
        ends, thickness, signs, limit, kind = (
            part.to(device).expand(worlds, *part.shape).clone()
            for part in (ends, thickness, signs, limit, torch.tensor(codes))
        )
        nothing = torch.zeros_like(starts.rank)
        one = torch.ones_like(nothing[:, :1])
        return State(
            position=starts.position,
            velocity=torch.zeros_like(starts.position),
            goal=starts.goal,
            heading=direction(starts.goal - starts.position),
            road_velocity=torch.zeros_like(starts.position[:, :1]),
            kind=kind,
            rank=starts.rank,
            hand=one,
            building=ends,
            thickness=thickness,
            sign=signs,
            limit=limit,
            distance=(starts.goal - starts.position).norm(dim=-1),
            scale=2 * self.length * one,
            arrival_time=torch.full_like(nothing, -1.0),
            touched=nothing.unsqueeze(-1).repeat(1, 1, self.n_agents),
            struck=nothing.unsqueeze(-1).repeat(1, 1, thickness.shape[1]),
            deepest=nothing,
            effort=nothing.clone(),
            watched=nothing.clone(),
            over=nothing.clone(),
            steps=torch.zeros_like(one),
        )

    def terminated(self, state: State) -> Tensor:
        """Who has arrived has left."""
        return state.arrival_time >= 0

    def transition(self, state: State, action: Tensor, rng: Rng | None) -> State:
        """`action` [worlds, agents, 4 k + 2]: A_1..A_k, B.., C.., D.., alpha, beta."""
        here = state.arrival_time < 0
        shown, drift = here.unsqueeze(-1), self.dt * state.road_velocity
        a = self.acceleration(state, action)
        velocity = torch.where(shown, state.velocity + self.dt * a, state.road_velocity)
        position = state.position + self.dt * velocity
        goal = state.goal + drift
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
        limit = strictest_limit(after, self._sign.range)
        watches = here & self._heeds(state) & limit.isfinite()
        c = (velocity - state.road_velocity).detach()
        return after._replace(
            touched=torch.maximum(state.touched, (depth > TOLERANCE).to(depth.dtype)),
            struck=torch.maximum(state.struck, (into > TOLERANCE).to(into.dtype)),
            deepest=torch.maximum(state.deepest, deepest),
            watched=state.watched + watches,
            over=state.over + (watches & (dot(c, c).sqrt() > limit + TOLERANCE)),
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
        too_long = dot(wanted, wanted).unsqueeze(-1).clamp(min=1e-300).sqrt() / speed
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
            "goal_distance": dot(g, g).sqrt(),
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
        pairs, tables, here = self.pairs(next_state), self.tables, state.arrival_time < 0
        g = next_state.goal - next_state.position
        d2, radius = dot(g, g), of_kind(tables.radius, state)
        a = (next_state.velocity - state.velocity) / self.dt
        c = next_state.velocity - next_state.road_velocity
        limit = strictest_limit(next_state, self._sign.range)
        too_fast = (dot(c, c) - limit**2).clamp(min=0).where(self._heeds(state), 0.0)
        warned = of_kind(tables.weight[:, self.kinds.code(self.sign) - 1], state)
        loss = (
            self.distance_weight * (d2 + SOFTENING).sqrt() / next_state.scale
            + self.absence_weight * d2 / (d2 + radius**2)
            + self.effort_weight * dot(a, a)
            + costs(pairs, state.kind, tables).sum(-1)
            + warned * too_fast
        )
        return loss.where(here, 0.0)

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """Of the episode so far; at its end they are its scores.

        ok: share that has arrived and never touched anything.  all_ok: 1 if all are.
        hit: share that ever overlapped another or a building by more than 1 mm.
        arrived: share that has left at its goal.  flow: arrivals per time, of all and of each kind,
        up to its last arrival once all have arrived.
        time_ratio: times of arrival over straight times at full speed, sums over who is ok; NaN
        where nobody is.  over_limit: share of steps within the range of signs in which those for
        whom they hold were faster; NaN where nobody came near one.
        deepest_overlap: length.  effort: root mean square of the acceleration, on the road.
        contact: share of ordered pairs that ever overlapped by more than 1 mm; contact_a_b: of one
        of each of those kinds.
        """
        flows = {f"flow_{kind.name}": self.kinds.code(kind.name) for kind in self.present}
        building = self.kinds.code(self.building)
        return scores(next_state, self._speed(state), self.dt, flows, self.contacts, building)

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        return seen_by_others(state, rng, self.k)

    def scene(self, state: State) -> Scene:
        """Everybody in the colour of its kind, houses, trees, signs and ways to the goals."""
        first = State(*(field[:1] for field in state))
        return picture(first, self.kinds, self.present, self._sign, self.length)

    def kernel(self, worlds: int) -> Kernel | None:
        """The compiled form; None for a system with laws of its own."""
        laws = ("transition", "acceleration", "invariants", "loss", "metrics", "bounds", "pairs")
        if any(getattr(type(self), name) is not getattr(Traffic, name) for name in laws):
            return None
        from . import traffic_step

        own = ("dt", "max_acceleration", "arrival", "cutoff", "reach", "gain", "sight")
        weights = ("distance_weight", "absence_weight", "effort_weight")
        return Kernel(
            traffic_step.step,
            traffic_step.observe,
            parameter_record(
                traffic_step.PARAMETERS,
                building=self.kinds.code(self.building),
                range=self._sign.range,
                speed_limit=self._speed_limit,
                distance_limit=self._distance_limit,
                largest_contact=2 * self.largest_radius,
                **{name: getattr(self, name) for name in (*own, *weights)},
            ),
            tables=traffic_step.fixed(
                self.tables,
                self.kinds.code(self.sign),
                [self.kinds.code(kind.name) for kind in self.present],
                self.contacts,
                [self._pairs(*codes) for codes in self.contacts.values()],
            ),
            scratch=traffic_step.scratch(
                worlds, self.n_agents, self.n_others, self.k - self.n_others, len(self.kinds.kinds)
            ),
        )

    def _pairs(self, one: int, other: int) -> int:
        """Ordered pairs of one of each of these kinds that a world has."""
        numbers = [self._count(kind) if kind.place else 0 for kind in self.kinds.kinds]
        numbers[self.kinds.code(self.building) - 1] = self.n_walls
        return numbers[one - 1] * (numbers[other - 1] - (one == other))
