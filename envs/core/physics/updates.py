"""Who acts in a step of many agents, and with which chance they change at a temperature.

Whose turn it is belongs to a system's state, `turn` [worlds, 1] int64: the agent or the colour that
acts in the next step; 0 where all act.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from ..rng import Rng
from ..system import System
from ..types import State
from ..validation import require_choice, require_count, require_fields

SEQUENTIAL, CHECKERBOARD, PARALLEL = UPDATES = ("sequential", "checkerboard", "parallel")


@final
@dataclass(frozen=True)
class Update:
    """Who acts in which step.

    order: "sequential", one agent, drawn at random; "checkerboard", all of one colour, the colours
        in turn; "parallel", all.
    n_agents: how many there are.
    colours: for a checkerboard, gives the colour [agents] int64 of each agent, from 0.
    n_colours: how many of these there are.
    """

    order: str
    n_agents: int
    colours: Callable[[], Tensor] | None = None
    n_colours: int = 2

    @property
    def sweep(self) -> int:
        """Steps in which every agent acts once, on average."""
        return {SEQUENTIAL: self.n_agents, CHECKERBOARD: self.n_colours, PARALLEL: 1}[self.order]

    @property
    def code(self) -> int:
        """The number that stands for the order in compiled code, its place in `UPDATES`."""
        return UPDATES.index(self.order)

    def require_turn(self, state: State) -> None:
        """Raise ValueError for a state in which it is nobody's turn."""
        require_fields(state, ("turn",), 0, self.sweep - 1)

    def first_turn(self, rng: Rng, worlds: int) -> Tensor:
        """Who acts in the first step."""
        if self.order == SEQUENTIAL:
            return self._drawn(rng, worlds)
        return torch.zeros(worlds, 1, dtype=torch.int64, device=rng.world.device)

    def next_turn(self, turn: Tensor, rng: Rng) -> Tensor:
        """Who acts in the step after."""
        if self.order == SEQUENTIAL:
            return self._drawn(rng, len(turn))
        return (turn + 1) % self.n_colours if self.order == CHECKERBOARD else turn

    def active(self, turn: Tensor) -> Tensor | None:
        """Flags [worlds, agents] of who acts in the next step; None: all do."""
        if self.order == PARALLEL:
            return None
        if self.order == SEQUENTIAL:
            return torch.arange(self.n_agents, device=turn.device) == turn
        return self._colours(turn) == turn

    def used(self, action: Tensor, turn: Tensor) -> Tensor:
        """Actions [worlds, agents] of those who act; 0 of the others."""
        active = self.active(turn)
        return action if active is None else action * active

    def rearranged(
        self, turn: Tensor, agents: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Whose turn it is, and the map of the numbers drawn, when agents change places.

        New agent i is old agent `agents[world, i]`. The map is as in `Symmetry.noise`.
        """
        if self.order == PARALLEL:
            return turn, None
        if self.order == CHECKERBOARD:
            colour = self._colours(turn)
            acting = (colour[agents] == turn).int().argmax(-1, keepdim=True)
            return colour[acting], None
        n, place = self.n_agents, agents.argsort(-1)

        def noise(uniform: Tensor) -> Tensor:
            return (place.gather(1, (n * uniform).long()) + 0.5) / n

        return place.gather(1, turn), noise

    def _drawn(self, rng: Rng, worlds: int) -> Tensor:
        return (self.n_agents * rng.uniform(worlds, 1)).long()

    def _colours(self, turn: Tensor) -> Tensor:
        if self.colours is None:
            raise ValueError(f"order={self.order!r} needs the colours of the agents")
        return self.colours().to(turn.device)


class ScheduledSystem(System):
    """A system in whose steps agents act as its `schedule` says, and whose time counts in sweeps.

    Its state has the field `turn`; `update`, `n_sweeps` and `burn_in` are parameters of it.
    """

    update: str
    n_sweeps: int
    burn_in: int

    @cached_property
    def schedule(self) -> Update:
        """Who acts in which step; a checkerboard needs one that knows the colours."""
        return Update(self.update, self.n_agents)

    @property
    def sweep(self) -> int:
        return self.schedule.sweep

    @property
    def horizon(self) -> int:
        return self.n_sweeps * self.sweep

    @property
    def warm_up(self) -> int:
        return self.burn_in * self.sweep

    @property
    def one_at_a_time(self) -> bool:
        return self.update != PARALLEL

    def active(self, state: Any) -> Tensor | None:
        return self.schedule.active(state.turn)


def require_update(
    update: str, n_sweeps: int, burn_in: int, allowed: tuple[str, ...] = UPDATES
) -> None:
    """Raise ValueError unless these can be the parameters of a system that counts in sweeps."""
    require_choice("update", update, allowed)
    require_count("n_sweeps", n_sweeps)
    require_count("burn_in", burn_in, 0)
    if burn_in >= n_sweeps:
        raise ValueError(f"burn_in={burn_in} must be below n_sweeps={n_sweeps}")


def heat_bath_chance(change: Tensor) -> Tensor:
    """Chance of what adds `change` T to the energy, in a heat bath: it forgets what was before."""
    return 1 / (1 + change.exp())


def metropolis_chance(change: Tensor) -> Tensor:
    """Chance of what adds `change` T to the energy, after Metropolis: at most 1."""
    return (-change.clamp(min=0)).exp()
