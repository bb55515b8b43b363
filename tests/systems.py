"""Two small systems that prove the contract: one controller, and agents that leave in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.scene import Scene
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.types import Bound, Symmetry


class Point(NamedTuple):
    x: Tensor  # [worlds, 1]
    v: Tensor  # [worlds, 1]


@dataclass(frozen=True)
class Hold(System):
    """One controller holds a point, kicked at random, at the origin of a line."""

    horizon: int = 30
    noise: float = 0.2

    n_agents = 1
    agent_name: ClassVar[str] = "controller"
    reductions: ClassVar[dict[str, str]] = {"distance": "mean", "farthest": "max"}

    @property
    def bounds(self) -> dict[str, Bound]:
        return {"x": Bound(-5, 5), "energy": Bound(0, 50)}

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (1,))

    def initial(self, rng: Rng, worlds: int) -> Point:
        x = 2 * rng.uniform(worlds, 1) - 1
        return Point(x, torch.zeros_like(x))

    def transition(self, state: Point, action: Tensor, rng: Rng) -> Point:
        v = state.v + 0.2 * action[..., 0] + self.noise * rng.normal(*state.v.shape)
        return Point(state.x + 0.2 * v, v)

    def invariants(self, state: Point) -> dict[str, Tensor]:
        return {"x": state.x, "energy": 0.5 * (state.x**2 + state.v**2)}

    def loss(self, state: Point, action: Tensor, next_state: Point) -> Tensor:
        return next_state.x**2 + 0.1 * action[..., 0] ** 2

    def metrics(self, state: Point, action: Tensor, next_state: Point) -> dict[str, Tensor]:
        return {"distance": next_state.x[:, 0].abs(), "farthest": next_state.x[:, 0].abs()}

    def symmetries(self, state: Point, rng: Rng) -> Iterator[Symmetry]:
        signs = {"x": -1.0, "action": -1.0}
        yield Symmetry("reflection", Point(-state.x, -state.v), signs=signs, noise=torch.neg)

    def scene(self, state: Point) -> Scene:
        place = torch.stack([state.x[0], 0 * state.x[0]], -1).numpy()
        return Scene(view=(-2.0, -2.0, 2.0, 2.0), discs=place, disc_radius=place[:, 1] + 0.1)


class Stations(NamedTuple):
    x: Tensor  # [worlds, agents]
    turn: Tensor  # [worlds, 1] int64: who may move


@dataclass(frozen=True)
class Relay(System):
    """Agents on a line that steer one at a time, in random turns, and leave where it ends.

    With `turns` False all steer at once.
    """

    n_agents: int = 4
    horizon: int = 40
    reach: float = 2.0
    turns: bool = True

    agent_name: ClassVar[str] = "runner"
    reductions: ClassVar[dict[str, str]] = {"reached": "last"}

    @property
    def one_at_a_time(self) -> bool:  # type: ignore[override]
        return self.turns

    @property
    def bounds(self) -> dict[str, Bound]:
        return {"x": Bound(-self.reach - 1, self.reach + 1)}

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (2,))

    def initial(self, rng: Rng, worlds: int) -> Stations:
        x = 2 * rng.uniform(worlds, self.n_agents) - 1
        return Stations(x, self._turn(x, rng))

    def transition(self, state: Stations, action: Tensor, rng: Rng) -> Stations:
        x = state.x + 0.6 * action.mean(-1) * self._moves(state) * ~self.terminated(state)
        return Stations(x, self._turn(x, rng))

    def invariants(self, state: Stations) -> dict[str, Tensor]:
        return {"x": state.x}

    def loss(self, state: Stations, action: Tensor, next_state: Stations) -> Tensor:
        return (self.reach - next_state.x).clamp(min=0)

    def metrics(self, state: Stations, action: Tensor, after: Stations) -> dict[str, Tensor]:
        return {"reached": self.terminated(after).double().mean(-1)}

    def active(self, state: Stations) -> Tensor:
        return self._moves(state) & ~self.terminated(state)

    def terminated(self, state: Stations) -> Tensor:
        return state.x.abs() >= self.reach

    def _moves(self, state: Stations) -> Tensor:
        number = torch.arange(self.n_agents, device=state.turn.device)
        return (number == state.turn) | (not self.turns)

    def _turn(self, x: Tensor, rng: Rng) -> Tensor:
        """One of those who are still there [worlds, 1]."""
        present = x.abs() < self.reach
        return rng.uniform(*x.shape).where(present, -1.0).argmax(-1, keepdim=True)


class Corridor(NamedTuple):
    cell: Tensor  # [worlds, agents] cells to the door; 0 has left
    turn: Tensor  # [worlds, 1] int64: who may step


@dataclass(frozen=True)
class Leave(System):
    """Walkers leave a corridor one step at a time, in random turns, and cannot overtake."""

    n_agents: int = 4
    length: int = 6
    horizon: int = 60

    agent_name: ClassVar[str] = "walker"
    one_at_a_time: ClassVar[bool] = True
    reductions: ClassVar[dict[str, str]] = {"left": "last", "steps": "sum"}

    @property
    def bounds(self) -> dict[str, Bound]:
        return {"cell": Bound(0, self.length), "free": Bound(0, 1)}

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def initial(self, rng: Rng, worlds: int) -> Corridor:
        cell = torch.argsort(rng.uniform(worlds, self.length), -1)[:, : self.n_agents] + 1.0
        return Corridor(cell.double(), self._turn(cell, rng))

    def transition(self, state: Corridor, action: Tensor, rng: Rng) -> Corridor:
        cell = state.cell - (action * self.active(state) * self._free(state))
        return Corridor(cell, self._turn(cell, rng))

    def invariants(self, state: Corridor) -> dict[str, Tensor]:
        return {"cell": state.cell, "free": self._free(state).double()}

    def loss(self, state: Corridor, action: Tensor, next_state: Corridor) -> Tensor:
        return next_state.cell / self.length

    def metrics(self, state: Corridor, action: Tensor, after: Corridor) -> dict[str, Tensor]:
        steps = (state.cell - after.cell).sum(-1)
        return {"left": self.terminated(after).double().mean(-1), "steps": steps}

    def active(self, state: Corridor) -> Tensor:
        number = torch.arange(self.n_agents, device=state.turn.device)
        return (number == state.turn) & ~self.terminated(state)

    def terminated(self, state: Corridor) -> Tensor:
        return state.cell <= 0

    def action_mask(self, state: Corridor) -> Tensor:
        free = self._free(state)
        return torch.stack([torch.ones_like(free), free], -1)

    def symmetries(self, state: Corridor, rng: Rng) -> Iterator[Symmetry]:
        order = torch.argsort(rng.uniform(*state.cell.shape), -1)
        turn = order.argsort(-1).gather(1, state.turn)
        yield Symmetry("relabel", Corridor(state.cell.gather(1, order), turn), order)

    def scene(self, state: Corridor) -> Scene:
        cells = (torch.arange(1, self.length + 1) == state.cell[0, :, None]).any(0)
        return Scene(view=(0.0, 0.0, float(self.length), 1.0), cells=cells[None].double().numpy())

    def _free(self, state: Corridor) -> Tensor:
        """Whether nobody stands on the cell before one's own [worlds, agents]; the door is free."""
        ahead = (state.cell[:, :, None] - 1 == state.cell[:, None, :]).any(-1)
        return (~ahead | (state.cell == 1)) & (state.cell > 0)

    def _turn(self, cell: Tensor, rng: Rng) -> Tensor:
        """One of those who are still there [worlds, 1]."""
        return rng.uniform(*cell.shape).where(cell > 0, -1.0).argmax(-1, keepdim=True)


@dataclass(frozen=True)
class Still(Leave):
    """Walkers to whom nothing is legal unless it is their turn."""

    def action_mask(self, state: Corridor) -> Tensor:
        return super().action_mask(state) & self.active(state).unsqueeze(-1)
