"""What a unit of a benchmark asks of the file systems: files, bytes, and calls, counted by strace.

    python -m invariantzoo.figures.benchmark_footprint [--out docs/results] [--steps 300000]

Writes benchmark_footprint.json. The unit is a PPO run of quadratic-regimes-v0 with one checkpoint,
once to warm the caches, and once counted. Calls are those that name a path (open, stat, rename, …):
the ones that a shared file system's metadata server sees.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from invariantzoo.report import figure_parser, table
from invariantzoo.training.benchmark.units import Unit
from invariantzoo.training.runs.folder import write_json

ID = "quadratic-regimes-v0"
_CALL = re.compile(r"^\d+ +\w+\(")


def main() -> None:
    """Count, print and write."""
    args = figure_parser(__doc__, out=Path("docs/results"), steps=300_000).parse_args()
    if shutil.which("strace") is None:
        raise SystemExit("this needs strace, a package of your system")
    with tempfile.TemporaryDirectory() as folder:
        numbers = footprint(Path(folder).resolve(), args.steps)
    print(table(["what", "count"], [[name, str(value)] for name, value in numbers.items()]))
    write_json(args.out / "benchmark_footprint.json", numbers)


def footprint(out: Path, steps: int) -> dict[str, Any]:
    """Files and bytes of a unit's folder, calls on it and elsewhere, CPU seconds of the whole."""
    first, second = (Unit(ID, "ppo", "adam", seed, steps) for seed in (0, 1))
    _run([], first, out)
    calls = out / "calls"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    _run([], Unit(ID, "ppo", "adam", 2, 1), out)
    shortest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    _run(["strace", "-f", "-e", "trace=%file", "-o", str(calls)], second, out)
    folder = out / second.name
    named = [line for line in calls.read_text(errors="replace").split("\n") if _CALL.match(line)]
    own = [line for line in named if str(folder) in line]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "files of a run folder": len(files),
        "bytes of a run folder": sum(path.stat().st_size for path in files),
        "calls that name a path in the run folder": len(own),
        "calls that name another path (Python, libraries, caches)": len(named) - len(own),
        "CPU seconds of a unit of one update": round(shortest, 1),
    }


def _run(before: list[str], unit: Unit, out: Path) -> None:
    words = [*before, sys.executable, "-m", "invariantzoo", *unit.words(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    subprocess.run(words, check=True, capture_output=True, env=environment)


if __name__ == "__main__":
    main()
