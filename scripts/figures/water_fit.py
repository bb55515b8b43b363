"""Losses of oxygen and hydrogen inferred from ab-initio water: how good, from how much, which.

    python -m invariantzoo.figures.water_fit DATA [--net REPORT] [--out docs]

DATA: the frames, as in `fit`.  REPORT: what `fit --loss net --json` printed.
Writes water-fit.md, its pictures and water-fit.json.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import figure_parser, recorded, save_figure, table, write_text

LINEAR = (
    ("pair", "own"),
    ("pair", "total"),
    ("quadratic", "own"),
    ("quadratic", "total"),
    ("angular", "total"),
)
RIDGE = {"angular": 1e-4}  # chosen for stability: the validation error is flat up to there
OPTIMIZERS = (("adam", "diagonal"), ("cgd", "diagonal"), ("cgd", "row"))
RATES, TRIAL, SEEDS = (
    (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    101,
    (0, 1, 2),
)  # rates are chosen on the seed TRIAL
EPOCHS, CHANNELS, EVERY = 12, 8, 4  # of the race; of the training frames
SILENT = (1.14, 1.33)  # Angstrom, O-H distances that the data lack
PLACES = (0.95, 0.98, 1.0, 1.05, 1.5, 1.8, 2.0, 2.3, 2.6, 3.0, 3.8)


def linear(data: Path, loss: str, forces: str) -> dict[str, Any]:
    """One linear fit: errors, learning curve, seconds, sensitivities."""
    import time

    from invariantzoo.training.molecules.errors import force_errors
    from invariantzoo.training.molecules.fit_linear import fit_losses
    from invariantzoo.training.molecules.frames import chosen, read_frames

    frames = read_frames(data)
    start = time.process_time()
    fit = fit_losses(frames, loss=loss, shared=forces == "total", ridge=RIDGE.get(loss))
    seconds = time.process_time() - start
    lines = {}
    if loss == "pair":
        from invariantzoo.envs.molecules.linear import pair_force

        names = {1: "H", 8: "O"}
        r = np.linspace(0.86, 5.0, 400)
        for s, a in enumerate(fit.model.numbers):
            for t, b in enumerate(fit.model.numbers):
                force = pair_force(fit.model, s, t, r)
                inside = r > fit.model.walls.nearest[s, t] * 1.02
                lines[f"{names[a]} by {names[b]}"] = np.where(inside, force, np.nan).tolist()
        lines["r"] = r.tolist()
    return {
        "parameters": fit.parameters,
        "ridge": fit.ridge,
        "seconds": seconds,
        "curve": [[n, 1e3 * error] for n, error in fit.curve],
        "train": 1e3 * fit.ridges[-1][1] if len(fit.ridges) == 1 else None,
        "val": force_errors(fit.model, chosen(frames, "val")),
        "lines": lines,
    }


def descended(
    data: Path, optimizer: str, metric: str, lr: float, seed: int
) -> list[list[float | None]]:
    """A short fit of a small net: (epoch, training RMSE, validation RMSE) in meV/Angstrom.

    Errors that are no numbers any more are None.
    """
    import torch

    from invariantzoo.training.molecules.fit_network import fit_net
    from invariantzoo.training.molecules.frames import read_frames
    from invariantzoo.training.optim.config import OptimizerConfig

    torch.set_num_threads(1)
    config = OptimizerConfig(optimizer=optimizer, metric=metric)
    frames = read_frames(data)
    chosen = [np.flatnonzero(frames.split == name)[::EVERY] for name in ("train", "val")]
    frames = frames.part(np.concatenate(chosen))
    done = fit_net(frames, epochs=EPOCHS, channels=CHANNELS, lr=lr, optimizer=config, seed=seed)
    rows = [(e, 1e3 * a, 1e3 * b) for e, a, b in done.history if b is not None]
    return [[value if np.isfinite(value) else None for value in row] for row in rows]


def race(store: Path, data: Path) -> list[list[Any]]:
    """Rows: optimizer, metric, its best learning rate, last training and validation errors."""

    def last(optimizer: str, metric: str, lr: float, seed: int) -> list[float]:
        key = f"race {optimizer} {metric} {lr:g} {seed}"
        run = partial(descended, data, optimizer, metric, lr, seed)
        return [np.inf if value is None else value for value in recorded(store, key, run)[-1]]

    rows = []
    for optimizer, metric in OPTIMIZERS:
        tried = {lr: last(optimizer, metric, lr, TRIAL)[2] for lr in RATES}
        best = min(tried, key=lambda lr: tried[lr])
        ends = [last(optimizer, metric, best, seed) for seed in SEEDS]
        trained, judged = (", ".join(f"{end[k]:.1f}" for end in ends) for k in (1, 2))
        every = ", ".join(f"{error:.1f}" for error in tried.values())
        rows.append([optimizer, metric, every, f"{best:g}", trained, judged])
    return rows


def main() -> None:
    """Compute what is missing, then print and write the page."""
    parser = figure_parser(__doc__, out=Path("docs"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--net", type=Path)
    args = parser.parse_args()
    store = args.out / "results" / "water-fit.json"
    fits = {
        (loss, forces): recorded(
            store, f"{loss} {forces}", partial(linear, args.data, loss, forces)
        )
        for loss, forces in LINEAR
    }
    net = recorded(store, "net", lambda: _net(json.loads(args.net.read_text(encoding="utf-8"))))
    compared = race(store, args.data)
    page = _page(fits, net, compared)
    print(page)
    write_text(args.out / "water-fit.md", page)
    save_figure(_lines(fits), args.out / "images" / "water-sensitivities.png")
    save_figure(_curves(fits, net), args.out / "images" / "water-learning.png")


def _net(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "parameters": report["parameters"],
        "val": report["validation"],
        "history": [[p["epoch"], p["train"], p["val"]] for p in report["history"]],
    }


def _row(name: str, forces: str, fit: dict[str, Any]) -> list[Any]:
    val = fit["val"]
    rmse = val["rmse_mev_per_angstrom"]
    errors = [f"{rmse[kind]:.1f}" for kind in ("all", "O", "H")]
    relative = f"{val['relative']:.3f}", f"{val['correlation']:.4f}", f"{val['net_force']:.2g}"
    seconds = f"{fit['seconds']:.0f}" if "seconds" in fit else ""
    return [name, forces, fit["parameters"], *errors, *relative, seconds]


def _page(fits: Any, net: Any, compared: list[list[Any]]) -> str:
    rows = [_row(loss, forces, fit) for (loss, forces), fit in fits.items()]
    rows.append(_row("network", "total", net))
    heads = ["loss", "forces", "coefficients", "all", "O", "H", "relative", "correlation"]
    heads += ["net force (eV/Å)", "CPU s"]
    own = fits["pair", "own"]["lines"]
    names = [name for name in own if name != "r"]
    lines = []
    for r in PLACES:
        at = int(np.argmin(np.abs(np.array(own["r"]) - r)))
        values = [own[name][at] for name in names]
        lines.append([f"{r:.2f}", *("" if np.isnan(v) else f"{v:+.2f}" for v in values)])
    curve = [
        [
            n,
            *(
                f"{dict(map(tuple, fits[key]['curve']))[n]:.1f}"
                for key in fits
                if key[1] == "total"
            ),
        ]
        for n, _ in fits["pair", "total"]["curve"]
    ]
    return f"""# Losses from ab-initio water: 223 meV/Å of pairs, 47 with angles, 15 a network

Atoms are agents that lower a loss of invariants of their neighbours. Here the losses are inferred
from forces on 64 waters by density-functional theory (very likely PBE0+TS; origin and licence are
on [the page about the paper and the data](water-paper.md)). Errors in meV/Å over force components
of the validation block, 55 frames that follow the 235 training frames and a gap of 5; forces are
820 rms.
"own": an agent follows the gradient of its own loss alone; "total": of the sum of all losses.

{table(heads, rows)}
Linear fits are one solve of the normal equations, which are summed frame by frame. The ridge is the
largest whose validation error is within 2 % of the best (1e-4 for angular losses), for the sake
of a stable [liquid](water-liquid.md). With own losses the forces of a frame do not add up to zero.
Shared losses matter where the loss is not a sum over pairs: what a move does to a neighbour's
invariants counts.

## How many frames are needed

Validation error by number of training frames, spread over the block; for the network by epoch (on
every fifth validation frame until the last epoch, then on all: hence the step at the end).

{table(["frames", "pair", "quadratic", "angular"], curve)}
![errors by number of frames and by epoch](images/water-learning.png)

## What agents are sensitive to

Force along the line between two atoms in eV/Å, + pushed away, of the pair losses with own forces:
oxygen's loss and hydrogen's are inferred separately.

{table(["r (Å)", *names], lines)}
![forces inferred for both directions of a pair](images/water-sensitivities.png)

Nothing imposes that action equals reaction, and yet the bond and the hydrogen bond come out alike
from both sides: Newton's third law is learned. Both species feel their bonds most and then the
hydrogen bond; oxygen feels other oxygens, hydrogen is nearly blind to hydrogens of other molecules.

## Adam and covariant gradient descent

A race of small networks: {CHANNELS} channels, {EPOCHS} epochs over every fourth training frame,
seeds {", ".join(map(str, SEEDS))}, at the learning rate that was best on another seed ({TRIAL})
among {", ".join(f"{lr:g}" for lr in RATES)}, whose validation errors stand in "tried" (inf:
it diverged). Errors are those of the last epoch in training, and of the averaged weights on every
fourth validation frame.

{table(["optimizer", "metric", "tried", "learning rate", "training", "validation"], compared)}
{_race_verdict(compared)}

The network that ships ({net["parameters"]:,} parameters) was trained with
`invariantzoo fit DATA --loss net` as it stands: Adam, 140 epochs, about two hours on one core.

To reproduce: `python -m invariantzoo.figures.water_fit DATA`.
"""


def _race_verdict(compared: list[list[Any]]) -> str:
    """What the row metric gains on Adam at equal epochs, seed by seed."""
    adam, row = ([float(x) for x in compared[place][-1].split(", ")] for place in (0, 2))
    ratios = [100 * (1 - mine / other) for mine, other in zip(row, adam, strict=True)]
    return (
        "At equal epochs (not equal time: a step of the row metric costs more) the row metric's "
        f"validation\nerrors lie {min(ratios):.0f} to {max(ratios):.0f} % below Adam's, seed by "
        "seed."
    )


def _lines(fits: Any) -> Any:
    from matplotlib.figure import Figure

    own = fits["pair", "own"]["lines"]
    figure = Figure(figsize=(10, 3.2))
    groups = (("O by H", "H by O"), ("O by O",), ("H by H",))
    for axis, group in zip(figure.subplots(1, 3), groups, strict=True):
        for name, style in zip(group, ("-", "--"), strict=False):
            axis.plot(own["r"], own[name], style, label=f"on {name}")
        axis.axhline(0, color="0.8", lw=0.8)
        axis.set_ylim(-4, 4)
        axis.set_xlabel("distance (Å)")
        if group[0] == "O by H":
            axis.axvspan(*SILENT, color="0.85", label="never sampled")
            axis.set_ylabel("force, + pushed away (eV/Å)")
        axis.legend(frameon=False)
    figure.tight_layout()
    return figure


def _curves(fits: Any, net: Any) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2))
    left, right = figure.subplots(1, 2)
    for (loss, forces), fit in fits.items():
        if forces == "total":
            left.loglog(*zip(*fit["curve"], strict=True), "o-", label=loss)
    left.set_xlabel("training frames")
    left.set_ylabel("validation error (meV/Å)")
    left.legend(frameon=False)
    history = [row for row in net["history"] if row[2] is not None]
    right.semilogy([r[0] for r in net["history"]], [r[1] for r in net["history"]], label="training")
    right.semilogy([r[0] for r in history], [r[2] for r in history], "o-", ms=3, label="validation")
    right.set_xlabel("epoch of the network")
    right.set_ylim(10, 120)
    right.legend(frameon=False)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
