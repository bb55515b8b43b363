"""The compiled form of a system: one class for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple, final

import numpy as np

from .kernels.binding import address_record


class Episode(NamedTuple):
    """What a batch keeps beside its state; compiled steps find it as the group `episode`."""

    seed: np.ndarray  # [1] uint64
    world: np.ndarray  # [worlds] index of each world
    clock: np.ndarray  # [worlds] steps since seeding
    age: np.ndarray  # [worlds] steps in the episode
    reward: np.ndarray  # [worlds, agents]; the loss until the step ends
    metric: np.ndarray  # [worlds, names] of this step
    totals: np.ndarray  # [worlds, names] over the episode
    reduction: np.ndarray  # [names] codes of kernels/reductions.py
    warm_up: np.ndarray  # [1] steps that the metrics leave out


class Empty(NamedTuple):
    """A group without arrays."""


@final
@dataclass(eq=False)
class Kernel:
    """Compiled twin of transition, invariants, loss and metrics, in place.

    step: compiled (arrays, parameters, action, observation) -> -1 once all worlds have made a step,
        or the flat index of an agent whose action is not allowed, in which case nothing changes. It
        fills the observation and ends with `accumulate_metrics`.
    look: compiled (arrays, parameters, worlds, observation): writes the observations of the worlds
        whose indices are given.
    parameters: a structured array [1]; compiled code reads them by name.
    tables: a NamedTuple of arrays that no step changes.
    bounded: whether `step` itself refuses actions outside their box. If not, whoever runs it does.
    scratch: a NamedTuple of arrays that hold nothing from one step to the next, unless the kernel's
        own module says so.

    `arrays` is the `address_record` of the groups `state`, `tables`, `scratch` and `episode`.
    """

    step: Callable[..., int]
    look: Callable[..., None]
    parameters: np.ndarray
    _: KW_ONLY
    tables: Any = Empty()  # noqa: RUF009 -- a NamedTuple cannot change
    scratch: Any = Empty()  # noqa: RUF009
    bounded: bool = True

    def bind(self, state: Any, episode: Episode) -> Callable[[np.ndarray, np.ndarray], int]:
        """`step` as a function of (action, observation) on a batch that keeps its memory."""
        self._held = state, episode  # the record does not keep them alive
        self._arrays = address_record(
            state=state, tables=self.tables, scratch=self.scratch, episode=episode
        )
        return partial(self.step, self._arrays, self.parameters)

    def observe(self, worlds: np.ndarray, observation: np.ndarray) -> None:
        """Write observations [worlds, agents, size] of the worlds of the batch it is bound to."""
        self.look(self._arrays, self.parameters, worlds, observation)


def parameter_record(layout: np.dtype, **values: Any) -> np.ndarray:
    """A structured array [1] with exactly the fields of `layout`."""
    record = np.zeros(1, layout)
    if set(values) != set(layout.names or ()):
        raise ValueError(f"parameters {sorted(values)} are not those of {layout.names}")
    for name, value in values.items():
        record[name] = value
    return record
