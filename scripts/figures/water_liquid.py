"""The liquid of agents: its structure and diffusion, what failed, and how it scales.

    python -m invariantzoo.figures.water_liquid DATA [--runs FOLDER] [--out docs]

DATA: the frames, as in `fit`.  FOLDER: holds the simulations named in RUNS, whose commands stand on
the page; those that are missing are left out. Writes water-liquid.md, pictures and json.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import figure_parser, recorded, save_figure, table, write_text
from invariantzoo.tables import plus_minus

RUNS = {
    "angular-330": "water-angular, 330 K, constant temperature",
    "angular-300": "water-angular, 300 K, constant temperature",
    "angular-330-nve": "water-angular, from 330 K, constant energy",
    "angular-300-nve": "water-angular, from 300 K, constant energy",
    "pair-330": "water-pair with its walls, 330 K, constant temperature",
    "best-330": "water-best, 330 K, constant temperature (float32)",
    "best-330-nve": "water-best, from 330 K, constant energy (float32)",
}
WATERS = (64, 512, 4096, 32768)
PS = 5.0
# loss, forces, walls
TRIALS = (
    ("pair", "own", False),
    ("pair", "total", False),
    ("pair", "total", True),
    ("quadratic", "total", False),
    ("quadratic", "total", True),
    ("angular", "total", False),
)


def summary(folder: Path) -> dict[str, Any]:
    """What the page needs of a run, but for its start: 5 ps, or a block of a run below 20 ps."""
    from invariantzoo.options import plain
    from invariantzoo.training.molecules.observables import observe
    from invariantzoo.training.molecules.simulate import final_state, read_config

    plan = read_config(folder)["plan"]
    length = final_state(folder)["clock"][0] * plan["dt"] / 1e3
    whole = plan["thermostat"] == "none" or length <= 2
    drop = 0.0 if whole else 5.0 if length >= 20 else 1.0
    observables = observe(folder, drop=drop)
    del observables["trace"], observables["model"]
    for name, pair_rdf in observables["structure"].items():
        if name != "r":
            pair_rdf["error"] = np.round(pair_rdf["error"], 4)
            pair_rdf["g"] = np.round(pair_rdf["g"], 4)
            pair_rdf["reference"] = np.round(pair_rdf["reference"].astype(float), 4)
    observables["structure"]["r"] = np.round(observables["structure"]["r"], 4)
    vibrations = observables["vibrations"]
    if vibrations:
        keep = vibrations["wavenumber"] < 4600
        vibrations["wavenumber"] = np.round(vibrations["wavenumber"][keep], 2)
        density = vibrations["density"].items()
        vibrations["density"] = {k: np.round(1e6 * v[keep], 1) for k, v in density}
    result: dict[str, Any] = plain(observables)
    return result


@functools.cache
def fitted(data: Path, loss: str, forces: str) -> Any:
    """Losses as `fit` finds them."""
    from invariantzoo.training.molecules.fit_linear import fit_losses
    from invariantzoo.training.molecules.frames import read_frames

    return fit_losses(read_frames(data), loss=loss, shared=forces == "total").model


def trial(data: Path, loss: str, forces: str, walls: bool) -> dict[str, Any]:
    """How long three worlds at 330 K stay within what the data know, at most PS."""
    from invariantzoo.commands import fit as command
    from invariantzoo.envs.molecules.files import Saved, load_model
    from invariantzoo.envs.molecules.linear import no_walls
    from invariantzoo.training.molecules.errors import force_errors
    from invariantzoo.training.molecules.frames import chosen, read_frames
    from invariantzoo.training.molecules.simulate import OutOfDomain, Plan, simulate

    frames = read_frames(data)
    model: Any = (
        load_model("water-angular").model if loss == "angular" else fitted(data, loss, forces)
    )
    val = force_errors(model, chosen(frames, "val"))["rmse_mev_per_angstrom"]["all"]
    model = model if walls else model._replace(walls=no_walls(2))
    saved = Saved(model, {"limits": command.limits(model, frames)})
    sample = command.sample_of(frames)
    ends, how = [], ""
    for seed in range(3):
        bath = "csvr" if forces == "own" else "nose-hoover"
        plan = Plan(330.0, bath, 100.0, 0.5, round(1e3 * PS / 0.5), 1e3, seed, 1, "float64")
        with tempfile.TemporaryDirectory() as folder:
            try:
                simulate(Path(folder) / "run", saved, sample, plan, {})
                ends.append(PS)
            except OutOfDomain as alarm:
                ends.append(alarm.step * plan.dt / 1e3)
                how = how or alarm.what
    return {"ps": ends, "how": how, "val": val}


def scale(waters: int) -> dict[str, float]:
    """CPU microseconds per atom and step in a repeated box, neighbour lists included."""
    from invariantzoo.envs.molecules.files import load_model
    from invariantzoo.envs.molecules.linear import LossForces
    from invariantzoo.envs.molecules.molecular_dynamics import advance, start_md
    from invariantzoo.training.molecules.simulate import Plan, World, draw_velocity, repeated

    saved = load_model("water-angular")
    cell: Any = saved.sample
    side = round((waters / 64) ** (1 / 3))
    sample = repeated(cell, (side,) * 3)
    plan = Plan(330.0, "none", 100.0, 0.5, 1, 1e3, 0, 1, "float64")
    world = World(saved, sample, plan)
    bodies = start_md(sample.position[None], draw_velocity(sample, plan), world.forces)
    steps = {64: 200, 512: 100, 4096: 40}.get(waters, 20)
    advance(bodies, world.forces, world.mass, 0.5, 5, freedom=world.freedom)
    assert isinstance(world.forces, LossForces)
    neighbours = world.forces.neighbours
    builds, start = neighbours.builds, time.process_time()
    advance(bodies, world.forces, world.mass, 0.5, steps, freedom=world.freedom)
    spent = time.process_time() - start
    return {
        "microseconds": 1e6 * spent / steps / len(sample.numbers),
        "builds": neighbours.builds - builds,
        "steps": steps,
    }


def threads() -> dict[str, float]:
    """Wall seconds of 20 steps of 64 replicas by one and by two threads, in turns."""
    from invariantzoo.envs.molecules.files import load_model
    from invariantzoo.envs.molecules.molecular_dynamics import advance, start_md
    from invariantzoo.training.molecules.simulate import Plan, World, draw_velocity

    saved = load_model("water-angular")
    sample: Any = saved.sample
    plan = Plan(330.0, "none", 100.0, 0.5, 1, 1e3, 0, 64, "float64")
    worlds = {n: World(saved, sample, plan, n) for n in (1, 2)}
    start = np.repeat(sample.position[None], 64, 0), draw_velocity(sample, plan)
    spent: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(4):
        for n, world in worlds.items():
            bodies = start_md(*start, world.forces)
            began = time.perf_counter()
            advance(bodies, world.forces, world.mass, 0.5, 20, freedom=world.freedom)
            spent[n].append(time.perf_counter() - began)
    return {f"{n}": float(np.median(times[1:])) for n, times in spent.items()}


def main() -> None:
    """Compute what is missing, then print and write the page."""
    parser = figure_parser(__doc__, runs=Path("runs"), out=Path("docs"))
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    store = args.out / "results" / "water-liquid.json"
    stored = store.read_text(encoding="utf-8") if store.exists() else ""
    runs = {
        name: recorded(store, name, partial(summary, args.runs / name))
        for name in RUNS
        if (args.runs / name).is_dir() or f'"{name}"' in stored
    }
    trials = []
    for loss_walls in TRIALS:
        key = f"trial {' '.join(map(str, loss_walls))}"
        trials.append((loss_walls, recorded(store, key, partial(trial, args.data, *loss_walls))))
    scales = {n: recorded(store, f"scale {n}", partial(scale, n)) for n in WATERS}
    pair = recorded(store, "threads", threads)
    cp2k = json.loads((args.out / "results" / "cp2k-speed.json").read_text(encoding="utf-8"))
    page = _page(runs, trials, scales, pair, cp2k)
    print(page)
    write_text(args.out / "water-liquid.md", page)
    save_figure(_structure(runs), args.out / "images" / "water-structure.png")
    save_figure(_vibrations(runs), args.out / "images" / "water-vibrations.png")


def _page(runs: Any, trials: Any, scales: Any, pair: Any, cp2k: Any) -> str:
    rows, drifts = [], []
    for name, run in runs.items():
        title = RUNS[name]
        length = f"{run['worlds']} x {run['length_ps']:g}"
        if name.endswith("nve"):
            drift = ", ".join(f"{d:+.3f}" for d in run["drift_mev_per_atom_per_ps"])
            drifts.append([title, length, f"{run['temperature'][0]:.1f}", drift])
            continue
        rdf = [run["structure"][pair] for pair in ("O-O", "O-H", "H-H")]
        differences = [f"{pair_rdf['difference']:.3f}" for pair_rdf in rdf]
        distance, height = rdf[0]["first_maximum"]
        top = f"{distance:.2f} Å, {plus_minus(height, rdf[0]['height_error'], 2)}"
        d = run["diffusion"]
        moved = f"{plus_minus(d['value'], d['error'], 3)}; {d['corrected']:.3f}" if d else ""
        mean, error = run["temperature"]
        kelvin = plus_minus(mean, error, 1)
        span = ", ".join(f"{r:.2f}" for r in run["range_mev_per_atom"])
        rows.append([title, length, kelvin, *differences, top, moved, span])
    heads = ["run", "ps", "K", "Δg OO", "Δg OH", "Δg HH", "first O–O maximum"]
    heads += ["D; with finite size (Å²/ps)", "range of conserved (meV/atom)"]
    failed = []
    for (loss, forces, walls), outcome in trials:
        ends = ", ".join(f"{PS:g}+" if t >= PS else f"{t:.2f}" for t in outcome["ps"])
        kind = "yes" if walls else "no"
        failed.append([loss, forces, kind, f"{outcome['val']:.1f}", ends, outcome["how"]])
    first = scales[512]["microseconds"]
    sizes = [
        [f"{n:,}", f"{s['microseconds']:.2f}", f"{s['microseconds'] / first:.2f}", s["steps"]]
        for n, s in scales.items()
    ]
    ours = 1e-6 * scales[64]["microseconds"] * 192
    costs = [["angular loss, float64", f"{1e3 * ours:.2f} ms", "", ""]]
    for timing in cp2k["runs"]:
        seconds = timing["seconds_per_step"]
        costs.append([f"CP2K {timing['method']}", f"{seconds:g} s", f"{seconds / ours:,.0f}"])
        costs[-1].append(f"{timing['date']}: {timing['note']}")
    bands = ""
    if "angular-330" in runs and runs["angular-330"]["vibrations"]:
        centres = runs["angular-330"]["vibrations"]["band_centres"]
        bands = ", ".join(f"{name} {value:.0f} cm⁻¹" for name, value in centres.items())
    return f"""# A liquid of inferred losses runs 100 ps and stays near its data

64 waters of agents that follow the losses [inferred from ab-initio frames](water-fit.md), 0.5 fs,
Nosé–Hoover chain with a time constant of 100 fs,
the first 5 ps left out (1 ps of runs below 20).
Δg is the mean |g - g of the data| in bins of 0.05 Å, from 2.0 (OO), 1.25 (OH), 1.9 (HH) to 6 Å;
the two halves of the data differ by 0.032, 0.017 and 0.022. Its first O–O maximum: 2.75 Å, 2.94.
Errors are those between pieces of 10 ps (g, temperature) or 20 ps (diffusion).

{table(heads, rows)}
![radial distribution functions](images/water-structure.png)

Diffusion in the data is not known: its frames have no times. That of real water at 298 K is 0.230.
The finite-size correction takes real water's viscosity at the temperature; that of the model's
water, which may differ, is not known. At constant energy, begun where the runs above ended:

{table(["run", "ps", "mean K", "drift of each world (meV/atom/ps)"], drifts)}
![vibrations](images/water-vibrations.png)

Centres of the bands at 330 K: {bands}. The marks are bands of real water.

With pair losses it is the walls that hold the liquid together, and its structure is two to four
times as far from the data's.

A run stops by itself where a distance leaves the sampled range by a tenth, where a molecule breaks,
or where the conserved quantity is off by 1 meV/atom. None of the runs above did. `water-best` needs
0.5 fs: at 1 fs, from the same start, its conserved quantity was off by 1.9 meV/atom after 7.8 ps.

## What failed

Force error is not stability. Three worlds of each loss at 330 K, until one of these alarms, at most
{PS:g} ps; the temperature looks normal where most of them end.

{table(["loss", "forces", "walls", "meV/Å", "ps until alarm", "what happened first"], failed)}
Walls act only where the data are silent: below 0.98 of the smallest sampled distance, and on a bond
beyond the longest that was sampled. Beyond that bond length every loss has a hole: nothing was
sampled between 1.14 and 1.33 Å, where a proton that leaves would be, and the inferred energy there
falls by up to 0.8 eV behind a barrier of 0.2 eV. A wall of 60 eV/Å² on the bond was too soft: two
of six worlds of the angular loss lost a proton within 2 ps, for a moment and with a jump of the
conserved quantity. 400 eV/Å² closes the hole.

## Size

Angular loss, float64, box repeated, one thread, neighbour lists included.

{table(["waters", "µs per atom and step", "over 512 waters", "steps"], sizes)}
64 replicas of 64 waters, 20 steps: {pair["1"]:.2f} s with one thread, {pair["2"]:.2f} s with two:
{pair["1"] / pair["2"]:.2f} times as fast on two cores.

## Cost beside quantum chemistry

CPU time of a step of 64 waters on one core.
{cp2k["build"]}: an optimised build is several times faster.
Neither method is the one of the data. See [Speed](speed.md) for tblite, OpenMM and ASE.

{table(["", "a step", "times ours", "recorded"], costs)}
## Commands

```
invariantzoo simulate water-angular --waters 64 --temperature 330 --steps 200000 --replicas 3 \\
    --out runs/angular-330
invariantzoo simulate water-angular --temperature 330 --thermostat none --steps 40000 \\
    --replicas 3 --after runs/angular-330 --out runs/angular-330-nve
# the same with --temperature 300
invariantzoo simulate water-pair --temperature 330 --steps 20000 --out runs/pair-330
invariantzoo simulate water-best --temperature 330 --precision float32 --steps 40000 \\
    --out runs/best-330
invariantzoo simulate water-best --temperature 330 --thermostat none --precision float32 \\
    --steps 40000 --after runs/best-330 --out runs/best-330-nve
python -m invariantzoo.figures.water_liquid DATA --runs runs
```
"""


def _structure(runs: Any) -> Any:
    from matplotlib.figure import Figure

    from invariantzoo.commands.observe import EXPERIMENT, smoothed

    figure = Figure(figsize=(12, 3.4))
    axes = figure.subplots(1, 3)
    shown = [name for name in runs if not name.endswith("nve")]
    for axis, pair in zip(axes, ("O-O", "O-H", "H-H"), strict=True):
        for name in shown:
            structure = runs[name]["structure"]
            pair_rdf, r = structure[pair], structure["r"]
            axis.plot(r, smoothed(pair_rdf["g"]), lw=1.2, label=RUNS[name].partition(", const")[0])
            if name == shown[-1]:
                axis.plot(r, smoothed(pair_rdf["reference"]), "k--", lw=0.9, label="data")
        axis.plot(*EXPERIMENT[pair], "r+", ms=10, label="experiment, 298 K")
        axis.set_xlim(1.2 if pair != "O-O" else 2.2, 6.2)
        axis.set_ylim(0, 3.3 if pair == "O-O" else 2)
        axis.set_title(f"g, {pair}")
        axis.set_xlabel("distance (Å)")
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def _vibrations(runs: Any) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3))
    axis = figure.subplots()
    for name, observables in runs.items():
        if name.endswith("nve") or name.startswith("pair") or not observables["vibrations"]:
            continue
        vibrations = observables["vibrations"]
        total = np.sum([np.array(d) for d in vibrations["density"].values()], 0) * 1e-3
        axis.plot(vibrations["wavenumber"], total, lw=1, label=RUNS[name].partition(", const")[0])
    for wave in (190, 650, 1645, 3400):
        axis.axvline(wave, color="0.8", lw=0.8, zorder=0)
    axis.set_xlim(0, 4400)
    axis.set_xlabel("wavenumber (1/cm)")
    axis.set_ylabel("density of states (10⁻³ cm)")
    axis.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
