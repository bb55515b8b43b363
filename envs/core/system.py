"""The contract: what a system says of itself, and nothing about the interfaces it is seen through.

A system is a frozen dataclass of numbers with pure functions of a batched state:

    state -> invariants -> (policy) -> action -> transition -> loss,        reward = -loss

State is a NamedTuple of arrays [worlds, ...]. Arrays with an agent axis are [worlds, agents, ...].
Everything that may differ between worlds (temperature, size of the box) is state too. `example`
code that follows this contract stands in docs/write-your-own-system.md and is a test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .kernel import Kernel
from .rng import Rng
from .scene import Chart, LegendEntry
from .validation import nearest as nearest
from .validation import require_choice as require_choice
from .validation import require_count as require_count
from .validation import require_number as require_number
from .validation import require_range as require_range

Range = float | tuple[float, float]  # a number, or (low, high) drawn once per world
State = Any  # a NamedTuple of Tensors [worlds, ...], one type per system


class Bound(NamedTuple):
    """Finite limits of an invariant; `size` is its entries per agent, None for a scalar."""

    low: float
    high: float
    size: int | None = None

    @property
    def width(self) -> int:
        """Places in the flat observation."""
        return 1 if self.size is None else self.size


class Symmetry(NamedTuple):
    """The same world as another observer sees it.

    agents: new agent i is old agent `agents[world, i]` [worlds, agents], or None.
    signs: what changes sign (or is otherwise scaled), by name of the invariant, or "action"
        (a number or a tensor [action size]).
    noise: how the generator's numbers [worlds, ...] change; None permutes the agent axis.
    """

    name: str
    state: State
    agents: Tensor | None = None
    signs: Mapping[str, float | Tensor] = MappingProxyType({})
    noise: Callable[[Tensor], Tensor] | None = None


class Plot(NamedTuple):
    """Functions drawn below a scene, each in a field of its own.

    x [n].  y [fields, n]: drawn filled.  usual [fields, n]: drawn as a line over it.
    labels: one per field.  top: the largest value that is shown; the least is 0.
    axis: what x is, with its unit.
    """

    x: np.ndarray
    y: np.ndarray
    usual: np.ndarray
    labels: tuple[str, ...]
    top: float
    axis: str = ""


@dataclass(frozen=True)
class Scene:
    """One world as it can be drawn; `render.py` paints it. Lengths are in the system's units.

    view: (left, bottom, right, top).
    discs, disc_radius, disc_value: [n, 2], [n], [n] in [0, 1] (colour: calm to alarmed).
    periodic: whether discs that cross the edge of `view` are drawn on both sides.
    arrows: [n, 4] start and displacement.  segments: [n, 4] start and end.
    cells: [rows, columns] in [0, 1], drawn as a lattice over `view`, row 0 at the top.
    kept_rows: if not 0, so many rows of cells are shown where trails are drawn: those of earlier
        scenes above these.
    agents: index of the agent behind each disc, or None if disc i is agent i.
    balls: [n, 3] around the centre of `view`, the third axis towards the viewer; radius and colour
        are those of the discs.  bonds: [m, 2] indices of balls that are joined.
    marks: a letter for each ball, where it is large enough.  ball_arrows: [n, 3] displacements.
    caption: lines of text above.  plot: drawn in a strip below.
    charts: drawn in that strip where earlier scenes are remembered.
    legend: what colours and shapes mean.
    """

    view: tuple[float, float, float, float]
    discs: np.ndarray | None = None
    disc_radius: np.ndarray | None = None
    disc_value: np.ndarray | None = None
    periodic: bool = False
    arrows: np.ndarray | None = None
    segments: np.ndarray | None = None
    cells: np.ndarray | None = None
    kept_rows: int = 0
    agents: np.ndarray | None = None
    balls: np.ndarray | None = None
    bonds: np.ndarray | None = None
    marks: tuple[str, ...] = ()
    ball_arrows: np.ndarray | None = None
    caption: tuple[str, ...] = ()
    plot: Plot | None = None
    charts: tuple[Chart, ...] = ()
    legend: tuple[LegendEntry, ...] = ()


class Knob(NamedTuple):
    """How a field [worlds, 1] of the state may be changed while it runs."""

    step: float
    low: float
    high: float


class System(ABC):
    """What every system offers. Optional parts have a default that says "none".

    Observations are the invariants in the order of `bounds`, clipped to them, as flat float32.
    The loss counts the other agents' places after the step unless a system says otherwise.
    """

    n_agents: int
    horizon: int  # steps after which an episode is truncated
    warm_up: int = 0  # steps at the start of an episode that the metrics leave out
    sweep: int = 1  # steps in which every agent acts once, on average
    agent_name: ClassVar[str] = "agent"
    reductions: ClassVar[dict[str, str]] = {}  # metric -> "mean", "sum", "max" or "last"
    stochastic: ClassVar[bool] = False  # whether policies are evaluated by sampling their actions
    differentiable: ClassVar[bool] = True  # False: events are drawn, no gradient of the loss flows
    knobs: ClassVar[dict[str, Knob]] = {}  # what a person may turn in the window while it runs
    one_at_a_time: ClassVar[bool] = False  # whether `active` restricts who acts
    fused: ClassVar[tuple[str, ...]] = ()  # own policies that `rollout` knows

    @property
    @abstractmethod
    def bounds(self) -> dict[str, Bound]:
        """Invariants by name with their finite limits."""

    @property
    @abstractmethod
    def action_space(self) -> spaces.Box | spaces.Discrete:
        """One agent's action: Box(-1, 1, (size,)) or Discrete(n)."""

    @abstractmethod
    def initial(self, rng: Rng, worlds: int) -> State:
        """A state of `worlds` worlds."""

    @abstractmethod
    def transition(self, state: State, action: Tensor, rng: Rng) -> State:
        """The next state; `action` is [worlds, agents, size] float64 or [worlds, agents] int64."""

    @abstractmethod
    def invariants(self, state: State) -> dict[str, Tensor]:
        """What an agent sees: name -> [worlds, agents] or [worlds, agents, size]."""

    @abstractmethod
    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        """[worlds, agents]."""

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """Scores that are not the loss, one number per world: the names of `reductions`."""
        return {}

    def active(self, state: State) -> Tensor | None:
        """Flags [worlds, agents] of who acts in the next transition; None: all do."""
        return None

    def gone(self, state: State) -> Tensor | None:
        """Flags [worlds, agents] of who has left for good; None: nobody leaves."""
        return None

    def action_mask(self, state: State) -> Tensor | None:
        """Flags [worlds, agents, n] of legal discrete actions; an illegal one does nothing."""
        return None

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        """The world as other observers see it."""
        return iter(())

    def scene(self, state: State) -> Scene | None:
        """A picture of the first world of `state`."""
        return None

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        """The system's own exact policies: (invariants by name, generator) -> action."""
        return {}

    def judge(self, probabilities: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """What is known exactly of a policy of discrete actions; {} where nothing is.

        probabilities: from observations [..., size] to the chances of the actions [..., n].
        """
        return {}

    def references(self) -> dict[str, float]:
        """Exact values of metrics under an exact policy, by name."""
        return {}

    def world_bytes(self) -> int:
        """What one world's state and a step of it need at least, beside what its agents see."""
        return 8 * self.n_agents

    def rollout(
        self, state: State, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[State, dict[str, Tensor]]:
        """`steps` steps under one of `fused` without Python between them, and its records.

        Obeys the law of `transition` under that policy with other random numbers. Records are
        "loss" (mean over agents) and the metrics, name -> [steps // every, worlds]: each stands for
        `every` steps, as their mean where a system counts events, else as the last of them.
        """
        raise NotImplementedError

    def kernel(self, worlds: int) -> Kernel | None:
        """A compiled twin for `worlds` worlds, or None."""
        return None


def observation_names(system: System) -> dict[str, slice]:
    """Where each invariant stands in the flat observation."""
    names, start = {}, 0
    for name, bound in system.bounds.items():
        names[name] = slice(start, start + bound.width)
        start += bound.width
    return names


def observation_space(system: System) -> spaces.Box:
    """The space of one agent's flat observation."""
    low, high = observation_limits(system)
    return spaces.Box(low, high, dtype=np.float32)


def observation_limits(system: System) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest observation, float32 [size]."""
    bounds = system.bounds.values()
    low = np.concatenate([np.full(b.width, b.low, np.float32) for b in bounds])
    high = np.concatenate([np.full(b.width, b.high, np.float32) for b in bounds])
    return low, high


def flatten(system: System, invariants: dict[str, Tensor]) -> Tensor:
    """Observations [worlds, agents, size] from invariants by name, clipped to their bounds."""
    parts = []
    for name, bound in system.bounds.items():
        value = invariants[name]
        value = value if value.ndim == 3 else value.unsqueeze(-1)
        parts.append(value.clamp(bound.low, bound.high))
    return torch.cat(parts, -1)


def by_name(system: System, observation: Tensor) -> dict[str, Tensor]:
    """Invariants by name from flat observations [..., size]; scalars lose the last axis."""
    bounds = system.bounds
    return {
        name: observation[..., part.start] if bounds[name].size is None else observation[..., part]
        for name, part in observation_names(system).items()
    }


def is_discrete(system: System) -> bool:
    """Whether agents choose among n actions."""
    return isinstance(system.action_space, spaces.Discrete)


def parameters(system: type[System] | System) -> dict[str, Any]:
    """Names and defaults of a system's parameters."""
    return {field.name: field.default for field in fields(system)}  # type: ignore[arg-type]
