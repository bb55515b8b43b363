"""An agent moves through a plane of latents from one picture to another, as cheaply as it can.

State      point x and target of a chart: a plane with a Fisher metric g(x), known at nodes of a
           grid; both in coordinates u of the world's own, x = origin + axes u
Dynamics   x' = x + stride (cos(pi a) e + sin(pi a) f), e the unit vector to the target, f across,
           to its left in the coordinates u; the window's edge holds it. Within `delta` of the
           target it arrives, and the episode ends
Action     a in [-1, 1], the heading in half turns off the target
Loss       length of the step under g; at the time limit the length of the straight line that is
           left, and `miss`; both over the length of the shortest path from start to target
Invariants distance to the target; the metric in the frame (e, f): its norm of e over the mean along
           the straight line, of f over that of e, the cosine between both; how the line's length
           is spread over its quarters; what part of that line the ways by waypoints save that lie
           aside of it, left and right, as half their sum and half their difference
Reference  the shortest path, as computed when the charts were made: the shortest of a graph of all
           nodes, relaxed. The policy "geodesic" follows it

Nothing an agent sees or pays depends on coordinates: any affine map of them leaves it as it is.
The charts: "digits", slices of the latent space of the diffusion model that ships, with the metric
of its features; "ising", temperature and field of 6 x 6 spins, T in [1.8, 4], h in [-0.8, 0.8];
"tasep", both gates of an open chain of 12 sites.
"Hessian Geometry of Latent Space in Generative Models" (arXiv 2506.10632) finds such metrics and
their shortest paths; an agent in them, its loss and what it sees are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from ..core.rng import Rng
from ..core.scene import Scene
from ..core.system import System
from ..core.types import Bound, StatePolicy, Symmetry
from ..core.validation import (
    require_choice,
    require_count,
    require_fields,
    require_flag,
    require_number,
)
from . import chart, picture

SCENARIOS = {
    "latent-travel-v0": {
        "system": "LatentTravel",
        "summary": "an agent moves through latent space from one digit to another, cheaply",
        "training": {
            "ppo": {
                "steps": 600_000,
                "n_worlds": 128,
                "n_steps": 32,
                "batch_size": 1024,
                "gamma": 1.0,
                "gae_lambda": 0.95,
                "lr": 2e-3,
                "reward_scale": 3.0,
                "log_std_init": -2.0,
            },
            "descent": {"steps": 400_000, "n_worlds": 64, "rollout": 60, "lr": 1e-2},
        },
        "film": {"policy": "geodesic"},
        "score": {
            "random": -6.54,
            "best": -1.0,
            "policy": "geodesic",
            "origin": "500 episodes; 1 is the length of the shortest paths that ship",
        },
        "variants": [
            {"horizon": 12},
            {"metric": "tasep", "held_out": True, "stride": 0.1, "delta": 0.05},
        ],
    },
}

METRICS = ("digits", "ising", "tasep")
ALONG = (0.2, 0.5)  # of the way to the target, where waypoints are
ASIDE = (0.15, 0.4, 0.8)  # and how far to the left and to the right, over that way
_PARTS = 8  # in which the length of a step is taken
_LINE, _LEG = 32, 16  # the same of the straight line to the target, and of each leg of a detour
_QUARTERS = 4
_TINY = 1e-12
_FINE = 8  # parts of each segment of a path between which it is followed


class TravelState(NamedTuple):
    point: Tensor  # [worlds, 2] in the world's own coordinates, as the next
    target: Tensor  # [worlds, 2]
    path: Tensor  # [worlds, points, 2] the shortest from the start to the target
    shortest: Tensor  # [worlds, 1] its length
    travelled: Tensor  # [worlds, 1] length of the way so far
    axes: Tensor  # [worlds, 2, 2] of the coordinates: x = origin + axes u
    origin: Tensor  # [worlds, 2]
    chart: Tensor  # [worlds, 1] int64
    time: Tensor  # [worlds, 1] int64 steps made


class _View(NamedTuple):
    """Of an agent, in the unit square: all [worlds, 2] but distance [worlds] and chart [worlds]."""

    place: Tensor
    target: Tensor
    ahead: Tensor
    across: Tensor
    distance: Tensor
    chart: Tensor


@dataclass(frozen=True)
class LatentTravel(System):
    """Lengths of `stride` and `delta` are in sides of the chart's window.

    metric: charts, "digits", "ising" or "tasep".  held_out: whether pairs are those kept for tests.
    stride: of a step.  delta: how near to the target an agent arrives.  horizon: steps of an
    episode.  miss: loss of one who has not arrived then, in lengths of the shortest path, beside
    the length of the straight line that is left.
    """

    metric: str = "digits"
    held_out: bool = False
    stride: float = 0.05
    delta: float = 0.03
    horizon: int = 60
    miss: float = 1.0

    n_agents = 1
    agent_name: ClassVar[str] = "traveller"
    reductions: ClassVar[dict[str, str]] = {"ratio": "sum", "failures": "last"}

    def __post_init__(self) -> None:
        require_choice("metric", self.metric, METRICS)
        require_flag("held_out", self.held_out)
        require_number("stride", self.stride, 0, 1, strict=True)
        require_number("delta", self.delta, self.stride / 2, 1)
        require_count("horizon", self.horizon)
        require_number("miss", self.miss, 0)

    @property
    def charts(self) -> chart.Charts:
        return chart.read(self.metric)

    @property
    def bounds(self) -> dict[str, Bound]:
        size = len(ALONG) * len(ASIDE)
        return {
            "distance": Bound(0.0, 1.5),
            "remaining": Bound(0.0, 1.0),
            "steepness": Bound(-8.0, 4.0),
            "stretch": Bound(-8.0, 8.0),
            "skew": Bound(-1.0, 1.0),
            "profile": Bound(0.0, 1.0, _QUARTERS),
            "savings": Bound(0.0, 0.5, size),
            "sides": Bound(-0.25, 0.25, size),
        }

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))

    def initial(self, rng: Rng, worlds: int) -> TravelState:
        """A pair of a chart, either way."""
        charts, device = self.charts, rng.world.device
        n_charts, n_pairs = charts.lengths.shape
        known = n_pairs - charts.held_out
        first, n = (known, charts.held_out) if self.held_out else (0, known)
        draw = rng.uniform(worlds, 3).cpu()
        number = (n_charts * draw[:, 0]).long()
        pair = first + (n * draw[:, 1]).long()
        back = (draw[:, 2] < 0.5)[:, None, None]
        ends, path = charts.ends[number, pair], charts.paths[number, pair]
        ends, path = torch.where(back, ends.flip(1), ends), torch.where(back, path.flip(1), path)
        shortest = charts.lengths[number, pair][:, None].to(device)
        axes = torch.eye(2, dtype=torch.float64, device=device).repeat(worlds, 1, 1)
        still = torch.zeros(worlds, 1, dtype=torch.int64, device=device)
        return TravelState(
            point=ends[:, 0].contiguous().to(device),
            target=ends[:, 1].contiguous().to(device),
            path=path.to(device),
            shortest=shortest,
            travelled=torch.zeros_like(shortest),
            axes=axes,
            origin=torch.zeros(worlds, 2, dtype=torch.float64, device=device),
            chart=number[:, None].to(device),
            time=still,
        )

    def require_state(self, state: TravelState) -> None:
        require_fields(state, ("time", "travelled"), 0)
        require_fields(state, ("shortest",), 0, strict=True)
        require_fields(state, ("chart",), 0, len(self.charts.factor) - 1)

    def transition(self, state: TravelState, action: Tensor, rng: Rng) -> TravelState:
        """`action` [worlds, 1, 1]: half turns to the left of the target."""
        view = _view(state)
        angle = math.pi * action[:, 0]
        way = angle.cos() * view.ahead + angle.sin() * view.across
        place = (view.place + self.stride * way).clamp(0, 1)
        gap = view.target - place
        near = (_length(gap) <= self.delta)[:, None] | self.arrived(state)
        place = torch.where(near, view.target, place)
        factor = self._factor(place)
        step = chart.line_length(factor, view.chart, view.place, place, _PARTS)[:, None]
        step = torch.where(self.arrived(state), 0.0, step)
        point = torch.where(near, state.target, _own(state, place))
        return state._replace(point=point, travelled=state.travelled + step, time=state.time + 1)

    def arrived(self, state: TravelState) -> Tensor:
        """Flags [worlds, 1]."""
        return (state.point == state.target).all(-1, keepdim=True)

    def terminated(self, state: TravelState) -> Tensor:
        return self.arrived(state)

    def invariants(self, state: TravelState) -> dict[str, Tensor]:
        """See the module; ratios of norms are logarithms. Who would lose by a way saves 0 there,
        and who has arrived sees zeros."""
        moving = ~self.arrived(state)[:, 0]
        if moving.all():
            return self._seen(state)
        seen = self._seen(type(state)(*(value[moving] for value in state)))
        return {
            name: value.new_zeros(len(moving), *value.shape[1:]).index_put((moving,), value)
            for name, value in seen.items()
        }

    def _seen(self, state: TravelState) -> dict[str, Tensor]:
        """`invariants` of worlds where nobody has arrived."""
        view = _view(state)
        factor = self._factor(view.place)
        here = chart.factor_at(factor, view.chart, view.place)
        a, b, c = here
        ahead, across = chart.norm(here, view.ahead), chart.norm(here, view.across)
        skew = (a * view.ahead[:, 0] + b * view.ahead[:, 1]) * (
            a * view.across[:, 0] + b * view.across[:, 1]
        ) + c * c * view.ahead[:, 1] * view.across[:, 1]
        parts = chart.part_lengths(factor, view.chart, view.place, view.target, _LINE)
        line = parts.sum(-1, keepdim=True) + _TINY
        left, right = (1 - self._detours(view) / line[..., None]).clamp(min=0).unbind(-1)
        mean = line[:, 0] / (view.distance + _TINY)
        return {
            "distance": view.distance[:, None],
            "remaining": 1 - state.time / self.horizon,
            "steepness": (ahead / mean).log()[:, None],
            "stretch": (across / ahead).log()[:, None],
            "skew": (skew / (ahead * across))[:, None],
            "profile": (parts.view(-1, _QUARTERS, _LINE // _QUARTERS).sum(-1) / line)[:, None],
            "savings": 0.5 * (left + right)[:, None],
            "sides": 0.5 * (left - right)[:, None],
        }

    def _detours(self, view: _View) -> Tensor:
        """Lengths [worlds, waypoints, 2] of ways by waypoints to the left and to the right."""
        along, aside = _waypoints(view.distance)
        span = view.distance[:, None, None, None]
        way = (
            along[..., None] * view.ahead[:, None, None]
            + aside[..., None] * (view.across[:, None, None])
        )
        point = (view.place[:, None, None] + span * way).clamp(0, 1)
        factor = self._factor(point)
        first, last = (end[:, None, None].expand_as(point) for end in (view.place, view.target))
        return chart.line_length(factor, view.chart, first, point, _LEG) + chart.line_length(
            factor, view.chart, point, last, _LEG
        )

    def loss(self, state: TravelState, action: Tensor, next_state: TravelState) -> Tensor:
        return self._ratio(state, next_state) + self.miss * self._missed(next_state)

    def metrics(
        self, state: TravelState, action: Tensor, next_state: TravelState
    ) -> dict[str, Tensor]:
        """ratio: length of the way over that of the shortest, a rest that is left by the straight
        line.  failures: whether the agent has not arrived."""
        failed = 1 - self.arrived(next_state).double()
        return {"ratio": self._ratio(state, next_state)[:, 0], "failures": failed[:, 0]}

    def _ratio(self, state: TravelState, next_state: TravelState) -> Tensor:
        """Length of a step, and of what is left at the time limit, over the shortest path's."""
        step, missed = next_state.travelled - state.travelled, self._missed(next_state)
        if missed.any():
            view = _view(next_state)
            factor = self._factor(view.place)
            rest = chart.line_length(factor, view.chart, view.place, view.target, 4 * _LINE)
            step = step + missed * rest[:, None]
        return step / state.shortest

    def _missed(self, state: TravelState) -> Tensor:
        """Flags [worlds, 1], as numbers, of who has not arrived at the time limit."""
        late = (state.time == self.horizon) & ~self.arrived(state)
        return late.to(state.point.dtype)

    def _factor(self, like: Tensor) -> Tensor:
        return self.charts.factor.to(like.device)

    def symmetries(self, state: TravelState, rng: Rng) -> Iterator[Symmetry]:
        """Other coordinates, turned and sheared; mirrored ones; another unit of length."""
        worlds = len(state.point)
        draw = 2 * rng.uniform(worlds, 2, 2) - 1
        shear = torch.eye(2, dtype=draw.dtype, device=draw.device) + 0.4 * draw
        turn = shear @ torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=draw.dtype, device=draw.device)
        shift = 2 * rng.uniform(worlds, 2) - 1
        yield Symmetry("affine map", _in_other_coordinates(state, turn, shift))
        mirror = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=draw.dtype, device=draw.device)
        signs = {"skew": -1.0, "sides": -1.0, "action": -1.0}
        yield Symmetry("mirror", _in_other_coordinates(state, shear @ mirror, shift), signs=signs)

    def scene(self, state: TravelState) -> Scene:
        return picture.plane(self.charts, state, self.horizon)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"straight": _straight, "gradient": _gradient, "detour": _detour}

    def state_policies(self) -> dict[str, StatePolicy]:
        return {"geodesic": StatePolicy(self._geodesic)}

    def _geodesic(self, state: TravelState, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
        """To the point of the shortest path, after the nearest one, that is a stride away."""
        view = _view(state)
        path = chart.in_chart(state, state.path)
        part = torch.arange(_FINE, dtype=path.dtype, device=path.device)[:, None] / _FINE
        fine = path[:, :-1, None] + part * path.diff(dim=1)[:, :, None]
        fine = torch.cat([fine.flatten(1, 2), path[:, -1:]], 1)
        gap = _length(fine - view.place[:, None])
        index = torch.arange(fine.shape[1], device=gap.device)
        beyond = (index > gap.argmin(-1, keepdim=True)) & (gap >= self.stride)
        first = torch.where(beyond.any(-1), beyond.double().argmax(-1), fine.shape[1] - 1)
        way = fine[torch.arange(len(fine), device=gap.device), first] - view.place
        angle = torch.atan2((way * view.across).sum(-1), (way * view.ahead).sum(-1))
        return (angle / math.pi)[:, None, None], memory


def _straight(seen: dict[str, Tensor], rng: Rng) -> Tensor:
    """To the target."""
    return torch.zeros_like(seen["skew"]).unsqueeze(-1)


def _gradient(seen: dict[str, Tensor], rng: Rng) -> Tensor:
    """Down the gradient of the distance under the metric, g^-1 e: along walls, not through them."""
    skew, stretch = (seen[name].double() for name in ("skew", "stretch"))
    angle = torch.atan2(-skew, stretch.exp()) / math.pi
    return angle.to(seen["skew"].dtype).unsqueeze(-1)


def _detour(seen: dict[str, Tensor], rng: Rng) -> Tensor:
    """To the waypoint by which the most is saved, or straight on."""
    even, odd = seen["savings"], seen["sides"]
    gain = torch.cat([torch.zeros_like(even[..., :1]), even + odd, even - odd], -1)
    along, aside = (value.flatten(-2) for value in _waypoints(even))
    angle = torch.atan2(aside, along)  # left and right by turns
    angle = torch.cat([0 * angle[:1], angle[0::2], angle[1::2]]) / math.pi
    return angle[gain.argmax(-1)].unsqueeze(-1)


def _waypoints(like: Tensor) -> tuple[Tensor, Tensor]:
    """How far along the way and to its left waypoints are [waypoints, 2], left and right."""
    along = torch.tensor(ALONG, dtype=like.dtype, device=like.device)
    aside = torch.tensor(ASIDE, dtype=like.dtype, device=like.device)
    first = along.repeat_interleave(len(ASIDE))
    second = aside.repeat(len(ALONG))
    return torch.stack([first, first], -1), torch.stack([second, -second], -1)


def _length(vector: Tensor) -> Tensor:
    """[...] of [..., 2]; it has a gradient at 0."""
    return (vector[..., 0] ** 2 + vector[..., 1] ** 2 + _TINY**2).sqrt()


def _view(state: TravelState) -> _View:
    place, target = chart.in_chart(state, state.point), chart.in_chart(state, state.target)
    gap = target - place
    distance = _length(gap)
    ahead = gap / distance[:, None]
    axes = state.axes
    side = (axes[:, 0, 0] * axes[:, 1, 1] - axes[:, 0, 1] * axes[:, 1, 0]).sign()[:, None]
    across = side * torch.stack([-ahead[:, 1], ahead[:, 0]], -1)
    return _View(place, target, ahead, across, distance, state.chart[:, 0])


def _own(state: TravelState, place: Tensor) -> Tensor:
    """Places [worlds, ..., 2] of the unit square in the world's own coordinates."""
    shape = (len(place), *[1] * (place.ndim - 2))
    a, b, c, d = (state.axes[:, i, j].view(shape) for i in (0, 1) for j in (0, 1))
    x, y = (place - state.origin.view(*shape, 2)).unbind(-1)
    size = a * d - b * c
    return torch.stack([d * x - b * y, a * y - c * x], -1) / size[..., None]


def _in_other_coordinates(state: TravelState, axes: Tensor, origin: Tensor) -> TravelState:
    """The same world in coordinates that give its own as origin + axes u."""
    change = state._replace(axes=axes, origin=origin)
    point, target, path = (_own(change, value) for value in (state.point, state.target, state.path))
    point = torch.where((state.point == state.target).all(-1, keepdim=True), target, point)
    return state._replace(
        point=point,
        target=target,
        path=path,
        axes=state.axes @ axes,
        origin=chart.in_chart(state, origin),
    )
