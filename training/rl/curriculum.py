"""Curricula: parameters of a system that move over a training.

A parameter moves from a first value to a last one, in proportion to the agent-steps made, in steps
of an update. Worlds go on as they are; what a system draws at the start of an episode follows with
the next. A policy scales what it sees by the limits of the last system. Nothing of it is kept: the
values are a function of the steps, so that a run that was continued moves them as one that was
never interrupted.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from ...envs.core.observation import parameter_values, parameters
from ...envs.core.system import System
from ...envs.core.validation import require_count

MOVED = "parameter_"  # before the name of a parameter in progress.csv


class Move(NamedTuple):
    """A parameter's first and last value: numbers, or pairs of numbers."""

    first: Any
    last: Any

    def at(self, share: float) -> Any:
        """The value when so much of the training is done, between 0 and 1."""
        if share >= 1:
            return self.last
        if isinstance(self.last, tuple):
            ends = zip(self.first, self.last, strict=True)
            return tuple(low + share * (high - low) for low, high in ends)
        return self.first + share * (self.last - self.first)


class Curriculum:
    """Moves of parameters by name over `steps` agent-steps, at whose end `system` is reached.

    Raises ValueError for parameters that cannot move: names, sizes and counts, and such as change
    what agents see, do or how many they are; and for values that the system refuses.
    """

    def __init__(self, system: System, moves: dict[str, Move], steps: int) -> None:
        require_count("steps", steps)
        self.system, self.moves, self.steps = system, moves, steps
        known, values = parameters(system), parameter_values(system)
        for name, move in moves.items():
            if name not in known:
                raise ValueError(f"{name} is no parameter of {type(system).__name__}")
            for value in move:
                _require_movable(name, value, values[name])
            if _pairs(move.first) != _pairs(move.last):
                raise ValueError(f"{name}={text_of(move)} must move from number to number, or pair")
        for share in (0.0, 0.5):
            self._require_same_form(self.at_share(share))

    def at(self, steps: int) -> System:
        """The system after so many agent-steps."""
        return self.at_share(min(steps / self.steps, 1.0))

    def at_share(self, share: float) -> System:
        """The same after a share of the training."""
        return dataclasses.replace(self.system, **self.values(share))  # type: ignore[type-var]

    def values(self, share: float) -> dict[str, Any]:
        """The parameters that move, by name."""
        return {name: move.at(share) for name, move in self.moves.items()}

    def row(self, steps: int) -> dict[str, float]:
        """The same after so many agent-steps, as numbers for progress.csv; pairs give two."""
        cells: dict[str, float] = {}
        for name, value in self.values(min(steps / self.steps, 1.0)).items():
            parts = (
                {"": value}
                if not isinstance(value, tuple)
                else dict(zip(_ENDS, value, strict=True))
            )
            cells |= {f"{MOVED}{name}{end}": float(part) for end, part in parts.items()}
        return cells

    def _require_same_form(self, other: System) -> None:
        """Raise ValueError if a system on the way has other agents, spaces or episodes."""
        for name, (there, here) in {
            "number of agents": (other.n_agents, self.system.n_agents),
            "observations": (_widths(other), _widths(self.system)),
            "actions": (other.action_space, self.system.action_space),
            "length of an episode": (other.horizon, self.system.horizon),
            "warm-up": (other.warm_up, self.system.warm_up),
            "metrics": (other.reductions, self.system.reductions),
        }.items():
            if there != here:
                moving = ", ".join(f"{key}={text_of(move)}" for key, move in self.moves.items())
                raise ValueError(f"{moving} changes the {name}, which must stay while training")


_ENDS = ("_low", "_high")


def _widths(system: System) -> dict[str, int]:
    """Numbers that an agent sees of every invariant; their limits may move."""
    return {name: bound.width for name, bound in system.bounds.items()}


def parse_move(text: str) -> tuple[str, str] | None:
    """First and last value of "0..0.2", as text; None for anything else, such as a path.

    Raises ValueError for "1...5", which could end at 5 or at .5.
    """
    if "/" in text or "\\" in text:
        return None
    if "..." in text:
        raise ValueError(f"{text!r} must be first..last, with a digit before each point")
    first, dots, last = text.partition("..")
    return (first.strip(), last.strip()) if dots and first.strip() and last.strip() else None


def text_of(move: Move) -> str:
    """As it is written."""
    return f"{move.first}..{move.last}"


def _pairs(value: Any) -> int:
    return len(value) if isinstance(value, tuple) else 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_movable(name: str, value: Any, usual: Any) -> None:
    """Raise ValueError unless both are fractions, or pairs of numbers."""
    numbers = value if isinstance(value, tuple) else (value,)
    if not isinstance(usual, float | tuple):
        raise ValueError(f"{name} cannot move over a training: it is no fraction and no range")
    if not all(map(_is_number, numbers)) or _pairs(value) not in (0, 2):
        raise ValueError(f"{name} moves over a training between numbers, or pairs, not {value!r}")
