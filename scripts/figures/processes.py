"""Speed of one training in two processes, beside one process and beside two separate trainings.

    python -m invariantzoo.figures.processes [--out docs] [--rounds 2]

Two separate trainings at once share nothing but the machine: what they make together is the most
that two processes could. All three take turns in one run. Writes processes.md. Wants two cores
with nothing else on them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from invariantzoo.report import figure_parser, table, write_text
from invariantzoo.training.runs.folder import read_progress


class Case(NamedTuple):
    """A training, and agent-steps enough for several updates."""

    id: str
    settings: dict[str, int]
    steps: int


CASES = (
    Case("particles-crowd-v0", {"n_worlds": 1024, "batch_size": 32768}, 740_000),
    Case("particles-crowd-v0", {"n_worlds": 256, "batch_size": 4096}, 500_000),
    Case("particles-encounter-v0", {"n_worlds": 256}, 250_000),
)
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def main() -> int:
    """Measure, print and write the table."""
    args = figure_parser(__doc__, out=Path("docs"), rounds=2).parse_args()
    rows = []
    for case in CASES:
        speeds = [measured(case) for _ in range(args.rounds)]
        row = [case.id, settings(case), *map(statistics.median, zip(*speeds, strict=True))]
        together = [two / one for one, two, _ in speeds]
        most = [separate / one for one, _, separate in speeds]
        row += [statistics.median(together), statistics.median(most)]
        rows.append(row)
        print(row, flush=True)
    write_text(args.out / "processes.md", page(rows, args.rounds))
    return 0


def measured(case: Case) -> tuple[float, float, float]:
    """Agent-steps per second of one process, of two together, and of two separate trainings."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder, name) for name in ("one", "two", "first", "second")]
        try:
            _wait(_start(case, runs[0]))
            _wait(_start(case, runs[1], *TWO))
            _wait(_start(case, runs[2]), _start(case, runs[3]))
        except RuntimeError:
            for log in Path(folder).glob("*.log"):
                print(log.read_text(encoding="utf-8", errors="replace")[-4000:])
            raise
        one, two, first, second = map(speed, runs)
    return one, two, first + second


def _start(case: Case, out: Path, *launcher: str) -> subprocess.Popen[bytes]:
    words = ["train", case.id, "--no-baselines", "--no-film", "--out", str(out)]
    words += ["--steps", str(case.steps)]
    for name, value in case.settings.items():
        words += ["--set", f"{name}={value}"]
    command = [sys.executable, *launcher, "-m", "invariantzoo", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def _wait(*trainings: subprocess.Popen[bytes]) -> None:
    codes = [training.wait() for training in trainings]
    if any(codes):
        raise RuntimeError(f"a training ended with code {max(codes)}")


def speed(run: Path) -> float:
    """Agent-steps per second after the first update, which holds what is done once."""
    first, *_, last = read_progress(run)
    return (last["steps"] - first["steps"]) / (last["seconds"] - first["seconds"])


def settings(case: Case) -> str:
    """As they stand in a cell of the table."""
    return ", ".join(f"`{name}={value}`" for name, value in case.settings.items())


def page(rows: list[list[str | float]], rounds: int) -> str:
    """The Markdown page."""
    headers = ["id", "settings", "one process", "two by `torchrun`", "two separate trainings"]
    headers += ["torchrun / one", "separate / one"]
    lines = [[*row[:2], *(f"{value:,.0f}" for value in row[2:5]), *row[5:]] for row in rows]
    best = max(rows, key=lambda row: row[5])
    return f"""# A training in two processes is up to {best[5]:.2f} times as fast as in one

Agent-steps per second of PPO by the clock, without the first update; medians of {rounds} rounds, in
each of which the three took turns. Two separate trainings at once, of a run each, share nothing but
the machine: their sum is the most that two processes could make of it.

{table(headers, lines)}
To reproduce: `python -m invariantzoo.figures.processes`, on two cores with nothing else to do.
[Training](training.md) says how to start such a training, and which algorithms can.
"""


if __name__ == "__main__":
    sys.exit(main())
