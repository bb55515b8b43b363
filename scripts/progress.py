"""What a long command says while it works: a bar on a terminal or lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 30.0  # between lines of a training, where there is no terminal
_MEMORY = 60.0  # seconds that a speed looks back on
_GRAIN = 0.5  # seconds between what is remembered


class Show(Protocol):
    """Shows what is done so far, and a text beside it."""

    def __call__(self, done: float, text: str = "") -> None: ...


class Pace:
    """How fast something goes and how long the rest will take, from the last minute of it.

    The first stretch, which may hold compilation, gives a speed only while there is no other, and
    never the time that the rest takes.
    """

    def __init__(self, total: float, start: float, clock: Callable[[], float]) -> None:
        self._total, self._clock = total, clock
        self._seen = deque([(clock(), start)])
        self._begun = False

    def note(self, done: float) -> None:
        """See what is done by now."""
        now = self._clock()
        if len(self._seen) > 1 and now - self._seen[-2][0] < _GRAIN:
            self._seen.pop()
        self._seen.append((now, done))
        if len(self._seen) > 2 and (not self._begun or now - self._seen[1][0] >= _MEMORY):
            self._begun = True
            self._seen.popleft()

    @property
    def speed(self) -> float:
        """Per second; 0 while nothing is known."""
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return (after - before) / (last - first) if last > first else 0.0

    @property
    def left(self) -> str:
        """The time that the rest takes at this speed, or nothing while that is not known."""
        if self.speed <= 0 or not self._begun:
            return ""
        seconds = round(max(self._total - self._seen[-1][1], 0) / self.speed)
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"


@contextmanager
def progress(
    log: Console,
    total: float,
    *,
    start: float = 0,
    name: str = "",
    unit: str = "",
    every: float = 10.0,
    tenths: bool = False,
    notice: Callable[[], str] = str,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Show]:
    """A function (done, text) that shows how far something is, to be called as often as one likes.

    On a terminal it moves a bar, with `text` below; a bar with a name goes when it is done.
    Elsewhere it prints a line, headed by the name, when `every` seconds have gone since the last
    one, and with `tenths` at every tenth of `total` too.
    unit: of what is counted, if its amount and speed are to be told.  notice: what a terminal shows
    in place of `text`, at any time, where it is not empty.
    """
    pace = Pace(total, start, clock)
    if log.is_terminal:
        with _bar(log, total, start, name, unit, pace, notice) as move:
            yield move
        return
    last, tenth = clock(), int(10 * start / total)

    def show(done: float, text: str = "") -> None:
        nonlocal last, tenth
        pace.note(done)
        if clock() - last < every and not (tenths and int(10 * done / total) > tenth):
            return
        last, tenth = clock(), int(10 * done / total)
        words = [name] if name else []
        words += [f"{done:>13,.0f}"] if unit else []
        words += [f"{100 * done / total:>3.0f} %"]
        words += [f"{pace.speed:>9,.0f}/s"] if unit else []
        say("  ".join([*words, pace.left, text]).rstrip())

    yield show


@contextmanager
def _bar(
    log: Console,
    total: float,
    start: float,
    name: str,
    unit: str,
    pace: Pace,
    notice: Callable[[], str],
) -> Iterator[Show]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    names = [TextColumn(name, markup=False)] if name else []
    rest = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(16), TaskProgressColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    bar = Progress(*names, *columns, rest)
    task = bar.add_task("", total=total)
    bar.update(task, completed=start)
    last, below = 0.0, ""

    def show(done: float, text: str = "") -> None:
        nonlocal last, below
        if done < total and time.monotonic() - last < 0.1:
            return
        last = time.monotonic()
        pace.note(done)
        speed = f"{pace.speed:,.0f} {unit}/s  " if unit and pace.speed else ""
        bar.update(task, completed=done, description=f"{speed}{pace.left}")
        below = text

    def drawn() -> Group:
        return Group(bar, Text(notice() or below)) if unit else Group(bar)

    with Live(console=log, get_renderable=drawn, transient=bool(name), refresh_per_second=5):
        yield show


def say(text: str) -> None:
    """Print a line on standard error as it is: never broken, no markup, so paths stay whole."""
    print(text, file=sys.stderr, flush=True)
