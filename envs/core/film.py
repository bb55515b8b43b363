"""What a window or a film of an id opens with, where that is not what the id is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Film:
    """Settings that show what an id is about; they change no default of the id.

    parameters: over the id's own.  policy: who acts, by name; empty: whoever acts without it.
    n_worlds: worlds side by side.  steps: how many are filmed; 0: one episode.
    skip: steps that are made before the first picture.  size: width of the pictures in pixels.
    every: steps from a picture to the next in the film that ships.
    training: the film that ships shows a policy that `train` made with these settings ("algo",
        "steps" and hyper-parameters by name); empty: it shows `policy`.
    learning: that film shows so many updates of descent on one world instead, a picture each.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    policy: str = ""
    n_worlds: int = 1
    steps: int = 0
    skip: int = 0
    every: int = 1
    size: int = 288
    training: dict[str, Any] = field(default_factory=dict)
    learning: int = 0


def film_of(given: dict[str, Any]) -> Film:
    """A Film of its fields by name; raises ValueError for one that it has not."""
    known = [field.name for field in fields(Film)]
    for name in given:
        if name not in known:
            raise ValueError(f"film: unknown {name!r} (has {', '.join(known)})")
    return Film(**given)
