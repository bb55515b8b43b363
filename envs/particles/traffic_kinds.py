"""Who takes part in traffic: kinds, and what each kind makes of every other, as one table.

A pair (observer, seen) has a `Regard`: which invariants of it are relevant, what it costs to come
near, and which part of the gap the observer has to give. It need not be mutual: a car gives all to
a pedestrian, who gives nothing, and loses five times as much. Only the parts add to 1. A pair that
is not in the table sees nothing of each other and costs nothing.

The table is data. `TRAFFIC.plus(...)` is a table with one more kind; codes of the others, and every
number of worlds without it, stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..core.validation import require_choice, require_number

PLACES = ("road", "pavement", "")
OBSERVED = ("I1", "I2", "I3", "I4", "r_along", "r_across", "u_along", "u_across")
MOST_KINDS = 15  # codes go from 1 to this; 0 is nobody


class Kind(NamedTuple):
    """What all of one kind have in common.

    place: where it starts, "road" or "pavement"; "" for what does not act.
    number: the parameter of the system that says how many there are.
    radius: of its body, length.  speed: its largest in the road's frame.
    limit, range: of a sign, the speed that it allows and how far its limit holds.
    value, corners: its colour and its form in pictures, as discs have them.
    """

    name: str
    place: str = ""
    number: str = ""
    radius: float = 0.0
    speed: float = 0.0
    limit: float = 0.0
    range: float = 0.0
    value: float = 0.0
    corners: int = 0


class Regard(NamedTuple):
    """What an observer makes of one kind that it sees.

    seen: the relevant invariants; all others of such a pair read 0.
    weight: of weight max(0, margin D - |r|)^2, D the sum of the radii.
    foresight: time T; where they come closer and pass within t < T, the distance |I4| / sqrt(I3)
        at which they would pass counts in the same way, times (1 - t/T)^2.
    give: part of the gap that the observer has to give.
    by_road: of two whose parts this decides, who is on the main road gives nothing, else who comes
        from the right (the left where traffic keeps left); `give` is for all others.
    """

    seen: tuple[str, ...] = ()
    weight: float = 0.0
    margin: float = 1.0
    foresight: float = 0.0
    give: float = 0.5
    by_road: bool = False


class Tables(NamedTuple):
    """Kinds and regards as arrays; rows are observers, columns what is seen, by code - 1."""

    radius: np.ndarray  # [kinds]
    speed: np.ndarray  # [kinds]
    mask: np.ndarray  # [kinds, kinds, 8] 1 for what is seen of `OBSERVED`
    weight: np.ndarray  # [kinds, kinds]
    margin: np.ndarray
    foresight: np.ndarray
    give: np.ndarray
    by_road: np.ndarray


@dataclass(frozen=True)
class Kinds:
    """A table of kinds; the first two of its kinds that do not act are buildings and signs.

    Raises ValueError for regards of unknown kinds, and for two that act whose parts of the gap do
    not add to 1.
    """

    kinds: tuple[Kind, ...]
    regards: Mapping[tuple[str, str], Regard]

    def __post_init__(self) -> None:
        object.__setattr__(self, "regards", MappingProxyType(dict(self.regards)))
        names = [kind.name for kind in self.kinds]
        if len(set(names)) < len(names) or len(names) > MOST_KINDS:
            raise ValueError(f"kinds={names} must be at most {MOST_KINDS} different names")
        for kind in self.kinds:
            require_choice(f"place of {kind.name}", kind.place, PLACES)
            if kind.place:
                require_number(f"radius of {kind.name}", kind.radius, 0, strict=True)
                require_number(f"speed of {kind.name}", kind.speed, 0, strict=True)
        acting = [kind.name for kind in self.acting]
        for (one, other), regard in self.regards.items():
            require_choice("observer", one, acting)
            require_choice("seen", other, names)
            for name in regard.seen:
                require_choice(f"seen by {one} of {other}", name, OBSERVED)
            if other in acting:
                back = self.regards.get((other, one), Regard())
                if abs(regard.give + back.give - 1) > 1e-12 or regard.by_road != back.by_road:
                    raise ValueError(
                        f"give={regard.give} of {one} to {other} and give={back.give} of {other} "
                        f"to {one} must add to 1, and `by_road` must be the same"
                    )

    def __reduce__(self) -> tuple[Any, ...]:
        return Kinds, (self.kinds, dict(self.regards))

    def __hash__(self) -> int:
        return hash(self.kinds)

    def plus(self, kind: Kind, regards: Mapping[tuple[str, str], Regard]) -> Kinds:
        """A table with one more kind and what it and the others make of each other."""
        return Kinds((*self.kinds, kind), {**self.regards, **regards})

    def code(self, name: str) -> int:
        """The number, from 1, by which observations name a kind."""
        return 1 + [kind.name for kind in self.kinds].index(name)

    @property
    def acting(self) -> tuple[Kind, ...]:
        """Those that move."""
        return tuple(kind for kind in self.kinds if kind.place)

    def regard(self, one: str, other: str) -> Regard:
        """What `one` makes of `other`."""
        return self.regards.get((one, other), Regard())

    def contacts(
        self, numbers: Mapping[str, int], building: str, n_walls: int
    ) -> dict[str, tuple[int, int, int]]:
        """Metrics of contacts by name: codes of two kinds, and how many ordered pairs there are.

        numbers: agents of each kind, without kinds that have none.
        """
        names, found = list(numbers), {}
        for m, one in enumerate(names):
            for other in [*names[m:], building]:
                many = n_walls if other == building else numbers[other] - (one == other)
                if many:
                    pairs = numbers[one] * many
                    found[f"contact_{one}_{other}"] = self.code(one), self.code(other), pairs
        return found

    def tables(self) -> Tables:
        """The same as arrays."""
        names = [kind.name for kind in self.kinds]
        rows = [[self.regard(one, other) for other in names] for one in names]

        def table(get: Any) -> np.ndarray:
            return np.array([[get(regard) for regard in row] for row in rows], float)

        return Tables(
            np.array([kind.radius for kind in self.kinds]),
            np.array([kind.speed for kind in self.kinds]),
            table(lambda regard: [name in regard.seen for name in OBSERVED]),
            *(
                table(lambda regard, name=name: getattr(regard, name))
                for name in ("weight", "margin", "foresight", "give", "by_road")
            ),
        )


# Lengths in 5 m, times in 0.6 s: cars of 4 m at 30 km/h, pedestrians at a brisk 1.3 times walking.
TRAFFIC = Kinds(
    (
        Kind("car", "road", "n_cars", radius=0.4, speed=1.0, value=0.15, corners=4),
        Kind("pedestrian", "pavement", "n_pedestrians", radius=0.15, speed=0.4, value=0.8),
        Kind("building"),
        Kind("sign", limit=0.6, range=2.0, value=1.0, corners=8),
    ),
    {
        ("car", "car"): Regard(OBSERVED, 30.0, 1.1, 3.0, 0.5, True),
        ("car", "pedestrian"): Regard(OBSERVED, 150.0, 1.3, 3.0, 1.0),
        ("pedestrian", "car"): Regard(OBSERVED, 30.0, 1.1, 3.0, 0.0),
        ("pedestrian", "pedestrian"): Regard(OBSERVED, 30.0, 1.05, 0.0, 0.5),
        ("car", "building"): Regard(("I1", "I2", "I4", "r_along", "r_across"), 30.0, 1.1, 0.0, 1.0),
        ("pedestrian", "building"): Regard(
            ("I1", "I2", "I4", "r_along", "r_across"), 30.0, 1.05, 0.0, 1.0
        ),
        ("car", "sign"): Regard(("I3",), 10.0),
    },
)
