"""How two sides are compared: what a case is, and their speeds by turns."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

Work = Callable[[], int]  # does a little and returns how many agent-steps (or frames) that was


class Case(NamedTuple):
    """Something to measure; the functions prepare it and return the work that is timed.

    needs: modules without which the peer is skipped.  at_least: of ours over theirs.
    floor: of ours alone.  slow: left out by --quick.  wall: per second of the clock on the wall.
    turns: of both sides; 0: 3 where slow, else 5.
    """

    name: str
    ours: Callable[[], Work]
    peer: str = ""
    theirs: Callable[[], Work] | None = None
    needs: tuple[str, ...] = ()
    at_least: float | None = None
    floor: float | None = None
    unit: str = "agent-steps/s"
    slow: bool = False
    wall: bool = False
    turns: int = 0


class Result(NamedTuple):
    """A measured case; the last four are None without a peer or a goal."""

    case: str
    unit: str
    speed: float
    floor: float | None
    peer: str
    peer_speed: float | None
    ratio: float | None
    at_least: float | None
    met: bool | None


def measure(case: Case, *, peers: bool, quick: bool) -> Result:
    """Speeds of both sides by turns."""
    seconds, repeats = (0.02, 1) if quick else (0.3, case.turns or (3 if case.slow else 5))
    has_peer = case.theirs is not None and (peers or not case.needs)
    sides = [case.ours()]
    if has_peer and all(map(is_installed, case.needs)):
        assert case.theirs is not None
        sides.append(case.theirs())
    for work in sides:
        work()
    clock = time.perf_counter if case.wall else time.process_time
    turns = [[rate(work, seconds, clock) for work in sides] for _ in range(repeats)]
    speed = statistics.median(turn[0] for turn in turns)
    theirs = statistics.median(turn[1] for turn in turns) if len(sides) > 1 else None
    ratio = statistics.median(turn[0] / turn[1] for turn in turns) if theirs else None
    goals = [(speed, case.floor), (ratio, case.at_least)]
    verdicts = [value >= goal for value, goal in goals if value is not None and goal is not None]
    return Result(
        case.name,
        case.unit,
        speed,
        case.floor,
        case.peer if theirs else "",
        theirs,
        ratio,
        case.at_least if theirs else None,
        all(verdicts) if verdicts else None,
    )


def rate(work: Work, seconds: float, clock: Callable[[], float] = time.process_time) -> float:
    """Units of work per second of the clock, over at least so many seconds."""
    done, start = 0, clock()
    while True:
        done += work()
        spent = clock() - start
        if spent >= seconds:
            return done / spent


def is_installed(module: str) -> bool:
    """Whether a module can be imported."""
    return importlib.util.find_spec(module) is not None
