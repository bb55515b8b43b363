"""Discs in the open plane that have places to go: what all scenarios with goals share.

State      position x_i, velocity v_i, goal g_i, velocity V of the goals, radius R_i, and what an
           episode has seen so far: arrivals, overlaps, effort
Dynamics   v_i += a_i dt, x_i += v_i dt, |v_i - V| <= speed, |a_i| <= max_acceleration; discs pass
           through each other
Own invariants: distance d to the goal, whether it has arrived, and c = v_i - V along and across the
           direction e to the goal
Invariants of a neighbour j, with r = x_j - x_i and u = v_j - v_i:
           I1 = r.r, I2 = r.u, I3 = u.u, I4 = r x u; r and u along and across e; whether j has
           arrived; R_i + R_j
Action     coefficients A..D of r, u, r_perp, u_perp per neighbour, then alpha and beta of e and
           e_perp: speed (alpha e + beta e_perp) + gain sum_j window(r) [A r + B u + C r_perp +
           D u_perp], no longer than speed, is the velocity that is wanted (control="velocity"),
           or over speed the acceleration in units of the largest (control="acceleration")
Loss       L_i = distance_weight d / scale + absence_weight d^2 / (d^2 + R_i^2) + effort_weight
           |a_i|^2 + collision_weight sum_j max(0, margin (R_i + R_j) - |r|)^2, at the new places
Rule       who comes within `arrival` of its goal has arrived, until it is farther than its radius
           from it; arrived discs stay and may go on; a world is over when all have arrived at once.
           A disc is ok if it has arrived at the end and never overlapped another by more than 1 mm,
           on the straight ways between steps neither

Particles with goals and kinds are those of Andrejic and Vanchurin, "Autonomous particles" (arXiv
2301.10077); only its abstract was available: the rule, the loss, layouts and all numbers are ours.
Neighbours are the `n_neighbours` nearest within `cutoff`; a missing one reads I1 = cutoff^2 and 0
elsewhere. window(r) = (1 - r^2 / reach^2)^2 within `reach`, 0 beyond.
"""

from __future__ import annotations

import math
from abc import abstractmethod
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
from ..core.validation import (
    FARTHEST,
    require_choice,
    require_codes,
    require_count,
    require_fields,
    require_number,
)
from .goal_geometry import Pairs, direction, distance_along, nearest, overlaps, shortened
from .goal_picture import picture
from .goal_state import SETTLED, TOLERANCE, State, seen_by_others
from .sight import frame_limits, pair_limits

CONTROLS = ("velocity", "acceleration")
OBSERVED = ("I1", "I2", "I3", "I4", "r_along", "r_across", "u_along", "u_across")
_LEAST_TIME = 20.0  # of an episode


@dataclass(frozen=True)
class GoalDiscs(System):
    """Parameters with their units.

    n_agents: number of discs.  radius: of a disc.  speed: the largest, towards the goals' frame.
    max_acceleration: limit of |a|; 2 speed / dt reaches any velocity within a step.
    dt: time step.  arrival: distance from the goal at which a disc has arrived.
    time_limit: of an episode, in times that the scene takes at full speed; at least 20 time units.
    horizon: steps of an episode; 0: as many as `time_limit` says.
    control: "velocity" or "acceleration", what an action asks for.
    n_neighbours: how many are seen at most.  cutoff: how far.  reach: how far actions reach.
    gain: of the coefficients A..D.
    distance_weight, absence_weight, collision_weight, effort_weight: terms of the loss.
    margin: reach of the third of them, in sums of radii.
    """

    n_agents: int = 64
    radius: float = 0.2
    speed: float = 1.0
    max_acceleration: float = 20.0
    dt: float = 0.1
    arrival: float = 0.1
    time_limit: float = 4.0
    horizon: int = 0
    control: str = "velocity"
    n_neighbours: int = 10
    cutoff: float = 5.0
    reach: float = 2.0
    gain: float = 4.0
    distance_weight: float = 1.0
    absence_weight: float = 1.0
    collision_weight: float = 300.0
    effort_weight: float = 0.002
    margin: float = 1.1

    agent_name: ClassVar[str] = "particle"
    baseline_family: ClassVar[str] = "goals"
    networks: ClassVar[tuple[str, ...]] = ("driver",)
    reductions: ClassVar[dict[str, str]] = {
        "ok": "last",
        "all_ok": "last",
        "hit": "last",
        "settled": "last",
        "time_ratio": "last",
        "deepest_overlap": "last",
        "effort": "last",
    }

    def __post_init__(self) -> None:
        require_count("n_agents", self.n_agents, 2)
        require_count("n_neighbours", self.n_neighbours)
        for name in ("radius", "speed", "max_acceleration", "dt", "arrival", "time_limit"):
            require_number(name, getattr(self, name), 0, strict=True)
        for name in ("cutoff", "reach", "gain"):
            require_number(name, getattr(self, name), 0, strict=True)
        for name in ("distance", "absence", "collision", "effort"):
            require_number(f"{name}_weight", getattr(self, f"{name}_weight"), 0)
        require_number("margin", self.margin, 0)
        require_choice("control", self.control, CONTROLS)
        if self.arrival > self.radius:
            raise ValueError(
                f"arrival={self.arrival} must be at most radius={self.radius}: an arrival is "
                "undone by leaving the goal by more than a radius"
            )
        require_count("horizon", self.horizon, 0)

    def _set_horizon(self) -> None:
        """Give `horizon` its number of steps, if it has none."""
        time = max(self.time_limit * self.longest_scale / self.speed, _LEAST_TIME)
        steps = self.horizon or math.ceil(round(time / self.dt, 9))
        object.__setattr__(self, "horizon", steps)

    @property
    @abstractmethod
    def longest_scale(self) -> float:
        """The largest `scale` of a world, length: what the time of an episode is measured by."""

    @property
    def k(self) -> int:
        """Number of neighbours in the observation."""
        return min(self.n_neighbours, self.n_agents - 1)

    @property
    def speed_limit(self) -> float:
        """Where velocities are clipped in the observation: no two discs differ by more."""
        return 4 * self.speed

    @property
    def bounds(self) -> dict[str, Bound]:
        u, k = self.speed_limit, self.k
        limits = {
            **pair_limits(self.cutoff, u),
            **frame_limits(self.cutoff, u),
            "neighbour_arrived": (0, 1),
            "contact": (0, 2 * self.largest_radius),
        }
        return {
            "goal_distance": Bound(0, self._distance_limit),
            "arrived": Bound(0, 1),
            "c_along": Bound(-u, u),
            "c_across": Bound(-u, u),
            **{name: Bound(*limits[name], k, "neighbours") for name in limits},
        }

    @property
    def largest_radius(self) -> float:
        """Of all discs, length."""
        return self.radius

    @property
    def _distance_limit(self) -> float:
        """No disc comes farther from its goal."""
        return 2 * self.longest_scale + self.speed * self.dt * self.horizon

    @property
    def neighbourhood(self) -> Neighbourhood | None:
        return Neighbourhood(
            ("I1", "I2", "I3", "I4", "r_along", "r_across", "u_along", "u_across"),
            ("A", "B", "C", "D"),
            self._features,
            self._window,
        )

    def _features(self, seen: dict[str, Tensor]) -> Tensor:
        """What is seen of neighbours, brought to order one [..., k, 8]."""
        near = seen["I1"].clamp(min=1e-12).sqrt()
        scaled = [near - 1, *(torch.asinh(seen[name]) for name in ("I2", "I3", "I4"))]
        e = seen["goal_distance"] / (seen["goal_distance"] ** 2 + self.radius**2).sqrt()
        scaled += [e.unsqueeze(-1) * seen[name] for name in OBSERVED[4:]]
        return torch.stack(scaled, -1)

    def _window(self, seen: dict[str, Tensor]) -> Tensor:
        return (1 - seen["I1"] / self.reach**2).clamp(min=0) ** 2

    @property
    def baselines(self) -> tuple[str, ...]:
        return (
            "buffered-voronoi",
            "learned",
            "learned-smooth",
            "learned-unguarded",
            "orca",
            "orca-right-hand",
            "orca-tuned",
            "social-force",
            "straight",
        )

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (4 * self.k + 2,), np.float32)

    def start(self, position: Tensor, goal: Tensor, scale: Tensor) -> State:
        """Discs at rest at `position` [worlds, agents, 2] that have `goal` to go to.

        scale [worlds, 1]: length of the scene.
        """
        nothing = torch.zeros_like(position[..., 0])
        return State(
            position,
            torch.zeros_like(position),
            goal,
            torch.zeros_like(position),
            torch.full_like(nothing, self.radius),
            (goal - position).norm(dim=-1),
            scale,
            torch.full_like(nothing, -1.0),
            nothing,
            nothing.clone(),
            nothing.clone(),
            torch.zeros_like(scale),
        )

    def terminated(self, state: State) -> Tensor:
        """All of a world leave together, when all have arrived."""
        return self._over(state).expand_as(state.hit)

    def _over(self, state: State) -> Tensor:
        return (state.arrival_time >= 0).all(-1, keepdim=True)

    def require_state(self, state: State) -> None:
        require_fields(
            state, ("position", "velocity", "goal", "goal_velocity"), -FARTHEST, FARTHEST
        )
        require_fields(state, ("radius", "scale"), 0, strict=True)
        require_codes(state, ("hit",), (0, 1))
        require_fields(state, ("distance", "deepest", "effort", "steps"), 0)

    def transition(self, state: State, action: Tensor, rng: Rng | None) -> State:
        """`action` [worlds, agents, 4 k + 2]: A_1..A_k, B.., C.., D.., alpha, beta."""
        a = self.acceleration(state, action)
        velocity = state.velocity + self.dt * a
        position = state.position + self.dt * velocity
        goal = state.goal + self.dt * state.goal_velocity
        steps = state.steps + 1
        away = (goal - position).norm(dim=-1)
        arrives = (away <= self.arrival) & (state.arrival_time < 0)
        arrival_time = torch.where(arrives, steps * self.dt, state.arrival_time)
        never = torch.full_like(arrival_time, -1.0)
        arrival_time = torch.where(away > state.radius, never, arrival_time)
        deepest = torch.maximum(state.deepest, overlaps(state.position, position, state.radius))
        following = state._replace(
            position=position,
            velocity=velocity,
            goal=goal,
            arrival_time=arrival_time,
            hit=(deepest > TOLERANCE).to(state.hit.dtype),
            deepest=deepest,
            effort=state.effort + dot(a, a).detach(),
            steps=steps,
        )
        over = self._over(state)
        if not over.any():
            return following
        return State(
            *(
                torch.where(over.reshape(-1, *[1] * (new.ndim - 1)), old, new)
                for old, new in zip(state, following, strict=True)
            )
        )

    def acceleration(self, state: State, action: Tensor) -> Tensor:
        """The acceleration [worlds, agents, 2] that an action stands for, limited."""
        pairs, k = self.pairs(state), self.k
        e = direction(state.goal - state.position)
        c = state.velocity - state.goal_velocity
        wanted = self.speed * (action[..., -2:-1] * e + action[..., -1:] * rotate_quarter(e))
        window = self.gain * (1 - dot(pairs.r, pairs.r) / self.reach**2).clamp(min=0) ** 2
        vectors = (pairs.r, pairs.u, rotate_quarter(pairs.r), rotate_quarter(pairs.u))
        for m, vector in enumerate(vectors):
            coefficient = window * action[..., m * k : (m + 1) * k]
            wanted = wanted + (coefficient.unsqueeze(-1) * vector).sum(-2)
        if self.control == "acceleration":
            wanted = c + self.dt * self.max_acceleration * shortened(wanted / self.speed, 1.0)
        a = (shortened(wanted, self.speed) - c) / self.dt
        return shortened(a, self.max_acceleration)

    def invariants(self, state: State) -> dict[str, Tensor]:
        pairs = self.pairs(state)
        g = state.goal - state.position
        e, c = direction(g), state.velocity - state.goal_velocity
        absent = torch.full_like(pairs.contact, self.cutoff**2)
        four = galilean_pair(pairs.r, pairs.u)
        four["I1"] = four["I1"].where(pairs.present, absent)
        arrived = state.arrival_time >= 0
        worlds = torch.arange(len(arrived), device=arrived.device)[:, None, None]
        there = arrived[worlds, pairs.neighbour] & pairs.present
        along = e.unsqueeze(-2)
        return {
            "goal_distance": distance_along(g),
            "arrived": arrived.to(g.dtype),
            "c_along": dot(e, c),
            "c_across": cross(e, c),
            **four,
            "r_along": dot(pairs.r, along),
            "r_across": cross(along, pairs.r),
            "u_along": dot(pairs.u, along),
            "u_across": cross(along, pairs.u),
            "neighbour_arrived": there.to(g.dtype),
            "contact": pairs.contact,
        }

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        pairs = self.pairs(next_state)
        g = next_state.goal - next_state.position
        d2 = dot(g, g)
        a = (next_state.velocity - state.velocity) / self.dt
        distance = torch.where(pairs.present, dot(pairs.r, pairs.r), 1.0).sqrt()
        overlap = (self.margin * pairs.contact - distance).clamp(min=0).where(pairs.present, 0.0)
        loss = (
            self.distance_weight * (d2 + 1e-30).sqrt() / next_state.scale
            + self.absence_weight * d2 / (d2 + next_state.radius**2)
            + self.collision_weight * (overlap**2).sum(-1)
            + self.effort_weight * dot(a, a)
        )
        return loss.where(~self._over(state), 0.0)

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """Of the episode so far; at its end they are its scores.

        ok: share of discs that have arrived and never hit another.  all_ok: 1 if all are.
        hit: share that ever overlapped another by more than 1 mm.  settled: within 0.3 of the goal.
        time_ratio: times of arrival over straight times at full speed, sums over who is ok; NaN
        where nobody is.  deepest_overlap: length.  effort: root mean square of the acceleration.
        """
        s, hit = next_state, next_state.hit > 0
        ok = (s.arrival_time >= 0) & ~hit
        away = (s.goal - s.position).norm(dim=-1)
        took = s.arrival_time.where(ok, 0.0).sum(-1)
        way = s.distance.where(ok, 0.0).sum(-1)
        return {
            "ok": ok.double().mean(-1),
            "all_ok": ok.all(-1).double(),
            "hit": hit.double().mean(-1),
            "settled": (away <= SETTLED).double().mean(-1),
            "time_ratio": took * self.speed / way,
            "deepest_overlap": s.deepest.amax(-1),
            "effort": (s.effort.mean(-1) / s.steps[:, 0]).sqrt(),
        }

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        return seen_by_others(state, rng, self.k)

    def pairs(self, state: State) -> Pairs:
        """Each agent's neighbours, nearest first."""
        index, present = nearest(state.position.detach(), self.cutoff, self.k)
        mask = present.unsqueeze(-1)
        worlds = torch.arange(len(index), device=index.device)[:, None, None]
        r = (state.position[worlds, index] - state.position.unsqueeze(2)).where(mask, 0.0)
        u = (state.velocity[worlds, index] - state.velocity.unsqueeze(2)).where(mask, 0.0)
        contact = (state.radius[worlds, index] + state.radius.unsqueeze(2)).where(present, 0.0)
        return Pairs(index, present, r, u, contact)

    def scene(self, state: State) -> Scene:
        """Discs and goals in colours of where these lie, and who gives way to whom."""
        first = State(*(field[:1] for field in state))
        middle = state.goal_velocity[0, 0].numpy() * self.dt * float(state.steps[0, 0])
        return picture(first, self.pairs(first), self.speed, self.dt, middle)

    def kernel(self, worlds: int) -> Kernel | None:
        """The compiled form; None for a scenario with laws of its own."""
        laws = ("acceleration", "pairs")
        if any(getattr(type(self), name) is not getattr(GoalDiscs, name) for name in laws):
            return None
        from ..core.physics.kernels.discs import GRID_FROM
        from . import goal_step

        by_cells = self.n_agents >= GRID_FROM
        own = ("dt", "speed", "max_acceleration", "arrival", "cutoff", "reach", "gain", "margin")
        weights = ("distance_weight", "absence_weight", "collision_weight", "effort_weight")
        return Kernel(
            goal_step.step_by_cells if by_cells else goal_step.step,
            goal_step.observe_by_cells if by_cells else goal_step.observe,
            parameter_record(
                goal_step.PARAMETERS,
                accelerates=self.control == "acceleration",
                speed_limit=self.speed_limit,
                distance_limit=self._distance_limit,
                **{name: getattr(self, name) for name in (*own, *weights)},
            ),
            scratch=goal_step.scratch(worlds, self.n_agents, self.k),
        )
