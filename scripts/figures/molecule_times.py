"""CPU time of every step from reference frames to a liquid, as docs/molecules.md tells it.

    python -m invariantzoo.figures.molecule_times [--data docs/data/water16-cp2k/frames.npz]

Prints a table: whole commands, their start included, on one thread.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import figure_parser, table

FEW, MORE, EPOCHS, STEPS = 171, 400, 140, 500  # frames, epochs of a net, steps of a simulation
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def seconds(folder: Path, *words: str) -> float:
    """CPU seconds of a command of this package; RuntimeError with its last line if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-m", "invariantzoo", *words]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip().rpartition(chr(10))[2]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def thinned(data: Path, count: int, out: Path) -> None:
    """Write `count` frames that are spread over the set."""
    with np.load(data, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    frames = len(arrays["positions"])
    which = np.linspace(0, frames - 1, count).round().astype(int)
    selected: dict[str, Any] = {
        name: values[which] if len(values) == frames else values for name, values in arrays.items()
    }
    np.savez(out, **selected)


def main() -> None:
    """Time and print."""
    default = Path("docs/data/water16-cp2k/frames.npz")
    data = figure_parser(__doc__, data=default).parse_args().data.resolve()
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def timed(what: str, *words: str) -> float:
            spent = seconds(folder, *words)
            rows.append((what, f"{spent:.0f} s"))
            print(rows[-1], file=sys.stderr, flush=True)
            return spent

        for count in (FEW, MORE):
            thinned(data, count, folder / f"{count}.npz")
        few = f"{FEW}.npz"
        seconds(folder, "fit", few, "--out", "model.npz")  # compiles what is not compiled yet
        for loss in ("pair", "quadratic", "angular"):
            words = ("fit", few, "--loss", loss, "--out", f"{loss}.npz")
            timed(f"fit --loss {loss}, {FEW} frames", *words)
        timed(f"fit --loss angular, {MORE} frames", "fit", f"{MORE}.npz", "--out", "model.npz")
        with np.load(data, allow_pickle=False) as file:
            frames = len(file["positions"])
        timed(f"fit --loss angular, all {frames:,} frames", "fit", str(data), "--out", "model.npz")
        net = ("fit", few, "--loss", "net", "--out", "net.npz", "--epochs")
        start = seconds(folder, *net, "1")
        epoch = seconds(folder, *net, "2") - start
        minutes = (start + (EPOCHS - 1) * epoch) / 60
        rows.append(
            (f"fit --loss net, {FEW} frames: {EPOCHS} epochs, from two", f"{minutes:.0f} min")
        )
        timed(f"forces, {FEW} frames", "forces", "model.npz", few)
        liquid = ("simulate", "model.npz", "--steps", str(STEPS), "--out", "liquid")
        timed(f"simulate, {STEPS} steps", *liquid)
        timed("observe", "observe", "liquid", "--data", few)
    print(table(["step", "CPU time"], rows), end="")


if __name__ == "__main__":
    main()
