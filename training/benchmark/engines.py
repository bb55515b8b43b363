"""Who runs the units of a benchmark: processes here, tasks of Ray, or one job of an array.

A unit is the command `invariantzoo train` in a folder. It may run wherever the folder is seen, be
killed at any time and be given again: it goes on from its last checkpoint. Engines need nothing
else and keep no state.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...envs.core.extras import require_packages
from ...envs.core.files import IN_USE, holder
from ...envs.core.validation import require_choice
from .units import Unit

ENGINES = ("local", "ray", "array")
LOG = ".log"  # what a unit says is beside its folder: that holds a run alone
RETRIES = 3  # of a task of Ray whose node is lost
_POLL = 0.1  # seconds
_WAIT = 5.0  # seconds, for a folder that another process holds

# How schedulers tell jobs of an array their index, the first one, the last one, what lies between
# two of them, and how many there are.
_SCHEDULERS = (
    tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT")),
    ("SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE", ""),
    ("LSB_JOBINDEX", "", "LSB_JOBINDEX_END", "LSB_JOBINDEX_STEP", ""),
    ("ARRAY_INDEX", "", "ARRAY_LAST", "", ""),
)


def require_engine(name: str) -> None:
    """Raise ValueError for an unknown engine and ModuleNotFoundError for one not installed."""
    require_choice("--engine", name, ENGINES)
    if name == "ray":
        require_packages("ray", "ray", "Ray")


class Failed(NamedTuple):
    """A unit that did not end well, and the last line that it said."""

    unit: Unit
    reason: str


class Held(NamedTuple):
    """A unit's folder that another process holds: which one, and until when to leave it alone."""

    by: str
    until: float  # by the monotonic clock


def run_unit(unit: Unit, out: Path) -> str:
    """Train a unit to its end in a process of its own; what went wrong, or nothing.

    Interrupting this process interrupts that one, which then keeps what it has. A folder that
    another process holds, as that of a task that was lost and yet lives, is waited for.
    """
    while True:
        process = start(unit, out)
        try:
            process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        if process.returncode != IN_USE:
            return outcome(unit, out, process.returncode)
        time.sleep(_WAIT)


def start(unit: Unit, out: Path) -> subprocess.Popen[bytes]:
    """The process of a unit, which says what it has to say to its log."""
    log = _log(unit, out)
    log.parent.mkdir(parents=True, exist_ok=True)
    return start_command(unit.words(out), log)


def start_command(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """`invariantzoo` with `words` in a process of its own, on one core, which speaks to `log`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "invariantzoo", *words],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches it through us, once
        )


def outcome(unit: Unit, out: Path, code: int) -> str:
    """What went wrong with a unit whose process ended with `code`; empty if nothing."""
    if code == 0 and unit.done(out):
        return ""
    lines = _log(unit, out).read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    if code < 0:  # what it said before is no reason
        return f"ended by signal {-code} ({signal.strsignal(-code)})"
    return said[-1] if said else f"ended with code {code}"


def local(
    units: Sequence[Unit],
    out: Path,
    *,
    jobs: int,
    watch: Callable[[int, str], object] = lambda done, waits: None,
) -> list[Failed]:
    """Run units in `jobs` processes at a time; `watch` hears how many have ended, and who waits.

    A unit whose folder another process holds is waited for while others run, so that several
    benchmarks in one folder share its units.
    After KeyboardInterrupt every unit that runs has saved what it has.
    """
    waiting, running = list(units), dict[Unit, subprocess.Popen[bytes]]()
    held: dict[Unit, Held] = {}
    failed: list[Failed] = []
    try:
        while waiting or running:
            now = time.monotonic()
            ready = [unit for unit in waiting if unit not in held or held[unit].until <= now]
            for unit in ready[: jobs - len(running)]:
                waiting.remove(unit)
                held.pop(unit, None)
                if not unit.done(out):
                    running[unit] = start(unit, out)
            for unit, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[unit]
                if process.returncode == IN_USE:
                    held[unit] = Held(holder(out / unit.name), time.monotonic() + _WAIT)
                    waiting.append(unit)
                elif reason := outcome(unit, out, process.returncode):
                    failed.append(Failed(unit, reason))
            waits = next((f"{unit.name} is held by {other.by}" for unit, other in held.items()), "")
            watch(len(units) - len(waiting) - len(running), waits)
            time.sleep(_POLL)
    finally:
        for process in running.values():
            process.send_signal(signal.SIGINT)
        for process in running.values():
            process.wait()
    return failed


def ray(
    units: Sequence[Unit],
    out: Path,
    *,
    watch: Callable[[int, str], object] = lambda done, waits: None,
) -> list[Failed]:
    """Run units as tasks of Ray, on the cluster of RAY_ADDRESS or one on this machine.

    A task whose node is lost begins anew elsewhere and goes on from the unit's last checkpoint.
    Raises ModuleNotFoundError where Ray is not installed.
    """
    require_engine("ray")
    import ray as cluster

    cluster.init(ignore_reinit_error=True, log_to_driver=False)
    task = cluster.remote(num_cpus=1, max_retries=RETRIES)(run_unit)
    pending = {task.remote(unit, out.resolve()): unit for unit in units}
    failed: list[Failed] = []
    while pending:
        ended, _ = cluster.wait(list(pending), num_returns=1)
        for reference in ended:
            unit = pending.pop(reference)
            try:
                reason = cluster.get(reference)
            except Exception as error:  # whatever a cluster loses must not lose the other units
                reason = str(error).strip().partition("\n")[0]
            if reason:
                failed.append(Failed(unit, reason))
        watch(len(units) - len(pending), "")
    return failed


def share_of_array(
    units: Sequence[Unit], environment: Mapping[str, str] = os.environ
) -> list[Unit]:
    """The units of this job of an array, by the index and number that the scheduler tells.

    Raises ValueError where it tells none, and for an array with gaps: units would be left out.
    """
    for names in _SCHEDULERS:
        if names[0] in environment and names[2] in environment:
            told = [_whole(name, environment.get(name, "1")) for name in names]
            index, first, last, step, count = told
            number = (last - first) // max(step, 1) + 1
            place, aside = divmod(index - first, max(step, 1))
            if not 0 <= place < number or aside or (count != number and names[4] in environment):
                said = ", ".join(
                    f"{name}={environment[name]}" for name in names if name in environment
                )
                raise ValueError(f"--engine array needs an array of jobs without gaps, not {said}")
            return list(units[place::number])
    raise ValueError(
        "--engine array found no index and number of jobs: run it as a job of an array "
        f"({', or '.join(f'{names[0]} and {names[2]}' for names in _SCHEDULERS)})"
    )


def _whole(name: str, text: str) -> int:
    """The whole number of an environment variable."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--engine array: {name}={text!r} must be a whole number") from None


def _log(unit: Unit, out: Path) -> Path:
    folder = out / unit.name
    return folder.with_name(folder.name + LOG)
