"""Small types of the contract: bounds of invariants, symmetries, what turns while a world runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from . import renamed

if TYPE_CHECKING:
    from .rng import Rng

Range = float | tuple[float, float]  # a number, or (low, high) drawn once per world
State = Any  # a NamedTuple of Tensors [worlds, ...], one type per system


class Bound(NamedTuple):
    """Finite limits of an invariant; `size` is its entries per agent, None for a scalar.

    axis: what the entries belong to: "neighbours", nearest first, or nothing in particular.
    """

    low: float
    high: float
    size: int | None = None
    axis: str = ""

    @property
    def width(self) -> int:
        """Places in the flat observation."""
        return 1 if self.size is None else self.size


class Neighbourhood(NamedTuple):
    """What networks and hand-written policies may know of a system whose agents see neighbours.

    names: invariants of neighbours that `features` brings to order one [..., k, names].
    coefficients: the action is a number per neighbour for each of these vectors, then those of the
        agent itself; empty: the action belongs to no neighbour.
    window: the weight of each neighbour [..., k], 0 where there is none.
    """

    names: tuple[str, ...]
    coefficients: tuple[str, ...]
    features: Callable[[dict[str, Tensor]], Tensor]
    window: Callable[[dict[str, Tensor]], Tensor]


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


def _nothing(state: State) -> tuple[Tensor, ...]:
    return ()


class StatePolicy(NamedTuple):
    """A policy that acts on the state, in the state's own precision, and may remember.

    act: (state, memory, generator) -> (action, memory after it). The action is as `transition`
        takes it, float64, and gets there as it is: no limit of the action space is asked for.
    start: state of worlds whose episode begins -> their memory, a tuple of tensors [worlds, ...].
    """

    act: Callable[[State, Any, Rng], tuple[Tensor, Any]]
    start: Callable[[State], Any] = _nothing


class LiveParameter(NamedTuple):
    """How a field [worlds, 1] of the state may be changed while it runs."""

    step: float
    low: float
    high: float


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
