"""Losses inferred from forces of our own, by CP2K.

    python -m invariantzoo.figures.water_cp2k [--out docs] [--runs runs/water-cp2k] [--dft-steps N]

Fits losses to docs/data/water16-cp2k, judges them on its last frames, and simulates with them. The
same for a set by GFN1-xTB that is made from scratch with CP2K, which must be installed (about 40
minutes, unless docs/results/water-cp2k.json has the result). With --dft-steps, the DFT set is begun
anew too, in the folder of --runs (6 s to 10 s a step). Writes water-cp2k.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from invariantzoo.report import figure_parser, recorded, table, write_text

EVERY = 10  # of the frames that are fitted and judged: neighbours are nearly copies
LOSSES = ("pair", "angular")
KELVIN, STEPS, WATERS, DROP = 350, 40_000, 128, 5.0  # simulation; ps left out
XTB = 6000, 10  # steps of the set from scratch, steps between its frames
XTB_DT = 0.25  # fs, of its liquid


def command(*words: str) -> dict[str, Any]:
    """What a command of this package prints as JSON; OSError with its last line if nothing."""
    line = [sys.executable, "-m", "invariantzoo", *words, "--json"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode > 1 or not done.stdout:
        raise OSError(done.stderr.strip().rpartition("\n")[2])
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
    selected: dict[str, Any] = {
        name: values if name in fixed or len(values) != count else values[::EVERY]
        for name, values in arrays.items()
    }
    np.savez(path, **selected)
    return path


def fitted(data: Path, runs: Path, loss: str) -> dict[str, Any]:
    """The errors on the validation frames of a loss that is fitted to the others."""
    model = runs / f"{loss}.npz"
    command("fit", str(data), "--loss", loss, "--out", str(model))
    errors = command("forces", str(model), str(data), "--split", "val")
    return {name: errors[name] for name in ("rmse_mev_per_angstrom", "relative", "correlation")}


def structure(data: Path) -> dict[str, list[float]]:
    """g(r) of O-O, O-H and H-H, molecules' own pairs left out, on the bins of `compared`."""
    import numpy as np

    from invariantzoo.training.molecules.frames import owners, read_frames

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
    rdf = {}
    for name, (a, b) in {"OO": (8, 8), "OH": (8, 1), "HH": (1, 1)}.items():
        i, j = np.flatnonzero(numbers == a), np.flatnonzero(numbers == b)
        other = molecule[i][:, None] != molecule[j]
        counts = np.zeros(len(edges) - 1)
        for frame in x:
            r = frame[i][:, None] - frame[j]
            r -= side * np.round(r / side)
            counts += np.histogram(np.sqrt((r**2).sum(-1))[other], edges)[0]
        shell = 4 / 3 * np.pi * np.diff(edges**3)
        pairs = len(x) * len(i) * len(j) / side.prod()
        rdf[name] = (counts / (pairs * shell)).tolist()
    return rdf


def simulated(model: Path, folder: Path, dt: float = 0.5) -> dict[str, Any]:
    """The same of a liquid of a loss in the cell repeated, and how its run went."""
    from itertools import islice

    import numpy as np
    from ase.io import iread

    words = ["--temperature", str(KELVIN), "--waters", str(WATERS), "--steps", str(STEPS)]
    words += ["--dt", str(dt)]
    try:
        observables = command("simulate", str(model), *words, "--out", str(folder))
    except OSError as error:  # too short for observables
        return {"stopped": {"what": str(error)}}
    first = round(1e3 * DROP / 100)  # a frame every 100 fs
    frames: list[Any] = list(islice(iread(folder / "trajectory-0.xyz"), first, None))
    x = np.stack([frame.positions for frame in frames])
    numbers = frames[0].numbers
    cell = np.asarray(frames[0].cell)
    side = np.diag(cell)
    oxygen = np.flatnonzero(numbers == 8)
    r = x[0][numbers == 1][:, None] - x[0][oxygen]
    r -= side * np.round(r / side)
    owner = oxygen[np.linalg.norm(r, axis=-1).argmin(1)]
    reported = ("temperature", "drift_mev_per_atom_per_ps", "length_ps", "stopped")
    return {
        "g": of_positions(x, cell, numbers, owner),
        **{name: observables[name] for name in reported},
    }


def made(runs: Path, method: str, steps: int, every: int) -> Path:
    """A data set from scratch by CP2K, or the rest of one that was begun."""
    words = ["--engine", "cp2k", "--method", method, "--waters", "16", "--steps", str(steps)]
    out = str(runs / f"cp2k-{method}")
    report = command(
        "reference", *words, "--temperature", "350", "--every", str(every), "--out", out
    )
    return Path(report["data"])


def from_scratch(runs: Path) -> dict[str, Any]:
    """Errors, structure and liquid of losses inferred from a set by GFN1-xTB."""
    data = made(runs, "xtb", *XTB)
    losses = {name: fitted(data, runs / "xtb", name) for name in LOSSES}
    liquid = simulated(runs / "xtb" / "angular.npz", runs / "xtb" / "liquid", XTB_DT)
    return {"losses": losses, "structure": structure(data), "liquid": liquid}


def main() -> None:
    """Compute what is missing, then print and write the page."""
    parser = figure_parser(__doc__, out=Path("docs"), runs=Path("runs/water-cp2k"))
    parser.add_argument("--dft-steps", type=int, default=0, help="of a DFT set from scratch")
    args = parser.parse_args()
    if args.dft_steps:
        made(args.runs, "dft", args.dft_steps, 1)
    data = thinned(args.out / "data" / "water16-cp2k" / "frames.npz", args.runs)
    store = args.out / "results" / "water-cp2k.json"
    losses = {
        name: recorded(store, name, partial(fitted, data, args.runs, name)) for name in LOSSES
    }
    reference = recorded(store, "structure", partial(structure, data))
    model = args.runs / "angular.npz"
    liquid = recorded(store, "liquid", partial(simulated, model, args.runs / "liquid"))
    xtb = recorded(store, "xtb", partial(from_scratch, args.runs))
    page = _page(losses, reference, liquid, xtb)
    print(page)
    write_text(args.out / "water-cp2k.md", page)


def _errors(losses: dict[str, Any]) -> str:
    rows = []
    for name, errors in losses.items():
        rmse = errors["rmse_mev_per_angstrom"]
        rows.append(
            [name, rmse["all"], rmse["O"], rmse["H"], errors["relative"], errors["correlation"]]
        )
    return table(["loss", "all", "O", "H", "relative", "correlation"], rows)


def _tops(reference: dict[str, list[float]], liquid: Any) -> str:
    import numpy as np

    tops = []
    for name, g in reference.items():
        ours = liquid["g"][name]
        places = [[max(curve), 1.325 + 0.05 * curve.index(max(curve))] for curve in (g, ours)]
        off = float(np.abs(np.subtract(g, ours)).mean())
        tops.append([name, *places[0], *places[1], f"{off:.3f}"])
    heads = ["pair", "CP2K: height", "at, Å", "losses: height", "at, Å", "mean difference"]
    return table(heads, tops)


def _went(liquid: Any) -> str:
    stopped = liquid["stopped"]
    if "g" not in liquid:
        return f"The angular loss then moves {WATERS} waters, but not for long: {stopped['what']}."
    ended = "No alarm stopped it." if stopped is None else f"It was stopped: {stopped['what']}."
    drift = liquid["drift_mev_per_atom_per_ps"][0]
    return f"""The angular loss then moves {WATERS} waters, the cell repeated, for
{liquid["length_ps"]:g} ps at {KELVIN} K ({liquid["temperature"][0]:.0f} K measured, drift of the
conserved quantity {drift:+.4f} meV/atom/ps). {ended}"""


def _beside(xtb: Any) -> str:
    if "g" not in xtb["liquid"]:
        return ""
    length = XTB[0] * 5e-4
    introduction = (
        f"Compared as above, with the {length:g} ps of the set, which begin on the lattice:"
    )
    return f"{introduction}\n\n{_tops(xtb['structure'], xtb['liquid'])}"


def _page(losses: Any, reference: dict[str, list[float]], liquid: Any, xtb: Any) -> str:
    return f"""# Losses from CP2K runs of our own: 81 meV/Å for revPBE-D3, 35 for GFN1-xTB

Two data sets, and nothing of the 64 waters of the other pages. The first is
`docs/data/water16-cp2k`: 16 waters, revPBE-D3 by CP2K 2023.1 at {KELVIN} K, 2,726 frames,
[described beside the file](data/water16-cp2k/README.md).

Losses are fitted to every tenth training frame, in a cell repeated so that it is two cutoffs
wide, with the regularisation chosen on validation; errors are of every tenth frame of the last
fifth of run C, which was not fitted to, in meV/Å per component.

{_errors(losses)}
{_went(liquid)} Highest value of g(r) from 1.3 to 3.9 Å, half the box of the reference, pairs
within a molecule left out, the first {DROP:g} ps of the simulation too, and the mean of
|g - g of CP2K|:

{_tops(reference, liquid)}
The reference is 1.4 ps of 16 molecules: its heights are uncertain by more than those of the 64
waters, and its frames start far from equilibrium, so that the last column is no error of the losses
alone.

## From scratch, by GFN1-xTB

This script also makes a set from nothing: 16 waters on a lattice, {XTB[0]:,} steps of 0.5 fs by
GFN1-xTB in CP2K at {KELVIN} K, a frame every {XTB[1]} steps, the last fifth of them for validation.

{_errors(xtb["losses"])}
{_went(xtb["liquid"])}
Its time step is {XTB_DT:g} fs: the bonds in 3 ps of 16 molecules end at 1.04 Å, those of a larger
liquid go on and meet the wall there often, and at 0.5 fs its conserved quantity was off by
1.2 meV/atom after 1.2 ps, with any ridge.

{_beside(xtb)}
By hand: `invariantzoo reference --engine cp2k --method xtb --out RUN` writes the deck, runs CP2K,
and goes on where it stopped; `--method dft` is the one with the functional and basis of the first
set. `invariantzoo fit RUN --out MODEL` and `invariantzoo simulate MODEL` follow. To reproduce:
`python -m invariantzoo.figures.water_cp2k`; `--dft-steps N` begins a DFT set anew too.
"""


if __name__ == "__main__":
    main()
