"""Losses inferred from forces of our own, by CP2K.

    python -m invariantzoo.figures.water_cp2k [--out docs] [--runs runs/water-cp2k] [--make]

Fits losses to docs/data/water16-cp2k and judges them on its last frames. With --make, first makes
data sets from scratch with CP2K, which must be installed: GFN1-xTB, 16 waters, 2,000 steps (about
ten minutes), and the first steps of the DFT set (--dft-steps, about 6 s each). It writes
water-cp2k.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from invariantzoo.figures.records import recorded, table, write_text

EVERY = 10  # of the frames that are fitted and judged: neighbours are nearly copies
LOSSES = ("pair", "angular")
KELVIN, STEPS, WATERS, DROP = 350, 40_000, 128, 5.0  # simulation; ps left out


def command(*words: str) -> dict[str, Any]:
    """What a command of this package prints as JSON; it may end with a verdict of 1."""
    line = [sys.executable, "-m", "invariantzoo", *words, "--json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    if done.returncode > 1:
        raise OSError(f"{' '.join(words)} failed with exit code {done.returncode}")
    return json.loads(done.stdout)


def thinned(data: Path, runs: Path) -> Path:
    """Every tenth frame of the set, with its split."""
    import numpy as np

    with np.load(data, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    count = len(arrays["positions"])
    fixed = ("cell", "numbers", "h_owner")
    path = runs / "thinned.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {k: v if k in fixed or len(v) != count else v[::EVERY] for k, v in arrays.items()}
    np.savez(path, **kept)  # type: ignore[arg-type]
    return path


def fitted(data: Path, runs: Path, loss: str) -> dict[str, Any]:
    """The errors on the validation frames of a loss that is fitted to the others."""
    model = runs / f"{loss}.npz"
    command("fit", str(data), "--loss", loss, "--out", str(model))
    found = command("forces", str(model), str(data), "--split", "val")
    return {name: found[name] for name in ("rmse_mev_per_angstrom", "relative", "correlation")}


def structure(data: Path) -> dict[str, list[float]]:
    """g(r) of O-O, O-H and H-H, molecules' own pairs left out, on the bins of `compared`."""
    import numpy as np

    from invariantzoo.training.frames import owners, read_frames

    frames = read_frames(data)
    return of_positions(
        frames.positions, np.asarray(frames.cell[0]), frames.numbers, owners(frames)
    )


def of_positions(x: Any, cell: Any, numbers: Any, owner: Any) -> dict[str, list[float]]:
    """The same of positions [frames, atoms, 3] in an orthorhombic cell, up to 3.9 Angstrom."""
    import numpy as np

    side, molecule = np.diag(cell), np.arange(len(numbers))
    molecule[numbers == 1] = owner
    edges = np.linspace(1.3, 3.9, 53)
    found = {}
    for name, (a, b) in {"OO": (8, 8), "OH": (8, 1), "HH": (1, 1)}.items():
        i, j = np.flatnonzero(numbers == a), np.flatnonzero(numbers == b)
        other = molecule[i][:, None] != molecule[j]
        counts = np.zeros(len(edges) - 1)
        for one in x:
            r = one[i][:, None] - one[j]
            r -= side * np.round(r / side)
            counts += np.histogram(np.sqrt((r**2).sum(-1))[other], edges)[0]
        shell = 4 / 3 * np.pi * np.diff(edges**3)
        pairs = len(x) * len(i) * len(j) / side.prod()
        found[name] = (counts / (pairs * shell)).tolist()
    return found


def simulated(runs: Path) -> dict[str, Any]:
    """The same of a liquid of the angular loss in the cell repeated, and how its run went."""
    from itertools import islice

    import numpy as np
    from ase.io import iread

    words = ["--temperature", str(KELVIN), "--waters", str(WATERS), "--steps", str(STEPS)]
    folder = runs / "liquid"
    found = command("simulate", str(runs / "angular.npz"), *words, "--out", str(folder))
    first = round(1e3 * DROP / 100)  # a frame every 100 fs
    frames: list[Any] = list(islice(iread(folder / "trajectory-0.xyz"), first, None))
    x = np.stack([one.positions for one in frames])
    numbers = frames[0].numbers
    cell = np.asarray(frames[0].cell)
    side = np.diag(cell)
    oxygen = np.flatnonzero(numbers == 8)
    r = x[0][numbers == 1][:, None] - x[0][oxygen]
    r -= side * np.round(r / side)
    owner = oxygen[np.linalg.norm(r, axis=-1).argmin(1)]
    kept = ("temperature", "drift_mev_per_atom_per_ps", "length_ps", "stopped")
    return {"g": of_positions(x, cell, numbers, owner), **{name: found[name] for name in kept}}


def made_again(runs: Path, dft_steps: int) -> None:
    """Data sets from scratch by CP2K."""
    for method, steps, every in (("xtb", 2000, 10), ("dft", dft_steps, 1)):
        words = ["--engine", "cp2k", "--method", method, "--waters", "16", "--steps", str(steps)]
        out = str(runs / f"cp2k-{method}")
        command("reference", *words, "--temperature", "350", "--every", str(every), "--out", out)


def main() -> None:
    """Compute what is missing, then print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--runs", type=Path, default=Path("runs/water-cp2k"))
    parser.add_argument("--make", action="store_true", help="make data with CP2K first")
    parser.add_argument("--dft-steps", type=int, default=100)
    args = parser.parse_args()
    if args.make:
        made_again(args.runs, args.dft_steps)
    data = thinned(args.out / "data" / "water16-cp2k" / "frames.npz", args.runs)
    store = args.out / "results" / "water-cp2k.json"
    losses = {
        name: recorded(store, name, partial(fitted, data, args.runs, name)) for name in LOSSES
    }
    reference = recorded(store, "structure", partial(structure, data))
    liquid = recorded(store, "liquid", partial(simulated, args.runs))
    page = _page(losses, reference, liquid)
    print(page)
    write_text(args.out / "water-cp2k.md", page)


def _page(losses: dict[str, Any], reference: dict[str, list[float]], liquid: Any) -> str:
    import numpy as np

    rows = []
    for name, one in losses.items():
        rmse = one["rmse_mev_per_angstrom"]
        rows.append([name, rmse["all"], rmse["O"], rmse["H"], one["relative"], one["correlation"]])
    headers = ["loss", "all", "O", "H", "relative", "correlation"]
    tops = []
    for name, g in reference.items():
        ours = liquid["g"][name]
        places = [[max(one), 1.325 + 0.05 * one.index(max(one))] for one in (g, ours)]
        off = float(np.abs(np.subtract(g, ours)).mean())
        tops.append([name, *places[0], *places[1], f"{off:.3f}"])
    heads = ["pair", "CP2K: height", "at, Å", "losses: height", "at, Å", "mean difference"]
    stopped = liquid["stopped"]
    ended = "No alarm stopped it." if stopped is None else f"It was stopped: {stopped['what']}."
    drift = liquid["drift_mev_per_atom_per_ps"][0]
    return f"""# Water by CP2K: forces of our own

All numbers of this page come from `docs/data/water16-cp2k`: 16 waters, revPBE-D3 by CP2K 2023.1 at
350 K, 2,726 frames, [described beside the file](data/water16-cp2k/README.md). They are not those of
the 64 waters of the other pages.

Losses are fitted to every tenth training frame, in a cell repeated so that it is two cutoffs
wide, with the regularisation chosen on validation; errors are of every tenth frame of the last
fifth of run C, which was not fitted to, in meV/Å per component.

{table(headers, rows)}
The angular loss then moves {WATERS} waters, the cell repeated, for {liquid["length_ps"]:g} ps at
{KELVIN} K ({liquid["temperature"][0]:.0f} K measured, drift of the conserved quantity {drift:+.4f}
meV/atom/ps). {ended} Highest value of g(r) from 1.3 to 3.9 Å, half the box of the reference, pairs
within a molecule left out, the first {DROP:g} ps of the simulation too, and the mean of
|g - g of CP2K|:

{table(heads, tops)}
The reference is 1.4 ps of 16 molecules: its heights are uncertain by more than those of the 64
waters, and its frames start far from equilibrium, so that the last column is no error of the losses
alone.

From nothing: `invariantzoo reference --engine cp2k --method dft --out RUN` writes a deck with the
same functional and basis, runs CP2K, and goes on where it stopped; `--method xtb` is the one that
takes minutes. `invariantzoo fit RUN --out MODEL` and `invariantzoo simulate MODEL` follow. Reprint
with `python -m invariantzoo.figures.water_cp2k`; `--make` makes both kinds of data first.
"""


if __name__ == "__main__":
    main()
