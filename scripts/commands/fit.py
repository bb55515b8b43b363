"""Infer the losses of atoms from reference forces."""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo import options
from invariantzoo.progress import progress, say

LOSSES = ("pair", "quadratic", "angular", "net")
TIMED_STEPS = 10  # of a net, from which the time of all is told
PICTURES = (".png", ".svg", ".pdf")
NET_DEFAULTS = {
    "epochs": 140,
    "channels": 16,
    "lr": 3e-3,
    "optimizer": "adam",
    "metric": "diagonal",
}
CUTOFFS = {"pair_cutoff": 6.0, "cutoff": 4.5}  # Angstrom
METRICS = ("diagonal", "block", "row", "lowrank")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `fit` takes."""
    parser.add_argument(
        "data", help="extended XYZ, .npz, the folder of a CP2K run, or what ASE reads"
    )
    options.add_reading(parser)
    parser.add_argument("--loss", choices=LOSSES, default="angular", help="default: angular")
    parser.add_argument(
        "--forces",
        choices=("own", "total"),
        default="total",
        help="whether an agent follows its own loss or the sum of all (default: total)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="MODEL", help="a .npz file")
    parser.add_argument(
        "--ridge", type=float, metavar="L", help="regularisation; default: chosen on validation"
    )
    parser.add_argument("--order", type=int, choices=(1, 2, 3), help="largest l of angular losses")
    parser.add_argument(
        "--pair-cutoff", type=float, metavar="A", help="of linear losses, Angstrom (default: 6)"
    )
    parser.add_argument(
        "--cutoff", type=float, metavar="A", help="of angles and nets, Angstrom (default: 4.5)"
    )
    parser.add_argument("--epochs", type=options.count, help="of a net (default: 140)")
    parser.add_argument("--channels", type=options.count, help="of a net (default: 16)")
    parser.add_argument("--lr", type=float, help="of a net (default: 0.003)")
    parser.add_argument("--optimizer", choices=("adam", "cgd"), help="of a net (default: adam)")
    parser.add_argument("--metric", choices=METRICS, help="of --optimizer cgd (default: diagonal)")
    parser.add_argument(
        "--threads",
        type=options.count,
        default=1,
        metavar="N",
        help="that share the work (default: 1)",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the sensitivities")


def run(args: argparse.Namespace) -> int:
    """Fit, write the model, and say how good it is."""
    from invariantzoo.envs.molecules.files import save_model
    from invariantzoo.training.molecules.errors import force_errors
    from invariantzoo.training.molecules.frames import chosen

    for name in ("pair_cutoff", "cutoff", "lr", "ridge"):
        value = getattr(args, name)
        if value is not None and not 0 < value < np.inf:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} {value} must be above 0 and finite")
    if args.loss == "net" and args.forces == "own":
        raise ValueError("--forces own: a net is fitted to shared losses; leave it out")
    _require_options_of(args)
    options.fill_in(args, NET_DEFAULTS | CUTOFFS)
    options.require_output_file("--out", args.out, (".npz",))
    if args.loss == "net" and args.picture is not None:
        raise ValueError("--picture: a net has no sensitivities to draw; leave it out")
    options.require_output_file("--picture", args.picture, PICTURES)
    frames = options.read_data(args, args.data, ("train", "val"))
    started, began = time.process_time(), time.perf_counter()
    model, report = (_net if args.loss == "net" else _linear)(args, frames)
    report["seconds"] = time.process_time() - started  # of the CPU
    report["wall_seconds"] = time.perf_counter() - began
    report["threads"] = args.threads
    report["training"] = force_errors(model, chosen(frames, "train").part(_few(frames)))
    report["validation"] = force_errors(model, chosen(frames, "val"))
    about = {
        "loss": args.loss,
        "forces": args.forces,
        "data": Path(args.data).name,
        "digest": frames.digest,
        "limits": limits(model, frames),
        "rmse_mev_per_angstrom": report["validation"]["rmse_mev_per_angstrom"],
    }
    sample, structure = sample_of(frames), structure_of(frames)
    save_model(args.out, model, about, sample=sample, structure=structure)
    if args.loss == "net" and not report["interrupted"]:
        args.out.with_suffix(".checkpoint").unlink(missing_ok=True)
    digest = hashlib.sha256(args.out.read_bytes()).hexdigest()
    report = {"model": str(args.out), "sha256": digest, "loss": args.loss, **report}
    if args.loss != "net":
        report["sensitivities"] = sensitivities(model)
        if args.picture:
            draw_sensitivities(model, args.picture)
    if args.json:
        options.print_json(args, report)
    else:
        _print(args, report)
    if report.get("interrupted"):
        validation_error = report["validation"]["rmse_mev_per_angstrom"]["all"]
        say(
            f"interrupted: {args.out} is the net after {report['epochs']:.3g} of {args.epochs} "
            f"epochs, validation error {validation_error:.1f} meV/A; the same command goes on"
        )
        return 130
    return 0


def _require_options_of(args: argparse.Namespace) -> None:
    """Raise ValueError for an option that is given and of another loss."""
    if args.loss != "net":
        options.require_not_given(args, NET_DEFAULTS, f"--loss net, not of {args.loss}")
    if args.metric not in (None, "diagonal") and args.optimizer != "cgd":
        raise ValueError(f"--metric {args.metric} needs --optimizer cgd")
    if args.loss != "angular":
        options.require_not_given(args, ["order"], f"--loss angular, not of {args.loss}")
    if args.loss not in ("angular", "net"):
        whose = f"angles and nets, not of --loss {args.loss}"
        options.require_not_given(args, ["cutoff"], whose)
    if args.loss == "net":
        options.require_not_given(args, ["ridge", "pair_cutoff"], "linear losses, not of a net")


def _few(frames: Any) -> np.ndarray:
    """At most 20 frames spread over the training block."""
    count = int((frames.split == "train").sum())
    return np.unique(np.linspace(0, count - 1, min(count, 20)).astype(int))


def _linear(args: argparse.Namespace, frames: Any) -> tuple[Any, dict[str, Any]]:
    from invariantzoo.training.molecules.fit_linear import fit_losses

    with progress(options.messages(), 1, name="fitting") as show:
        fit = fit_losses(
            frames,
            loss=args.loss,
            shared=args.forces == "total",
            pair_cutoff=args.pair_cutoff,
            angular_cutoff=args.cutoff,
            order=args.order,
            ridge=args.ridge,
            threads=args.threads,
            progress=show,
        )
    model = fit.model._replace(constant=constant(fit.model, frames))
    ridges = [
        {"ridge": ridge, "train": 1e3 * train, "val": 1e3 * val} for ridge, train, val in fit.ridges
    ]
    curve = [{"frames": count, "val": 1e3 * error} for count, error in fit.curve]
    return model, {
        "parameters": fit.parameters,
        "ridge": fit.ridge,
        "ridges": ridges,
        "learning_curve": curve,
    }


def _net(args: argparse.Namespace, frames: Any) -> tuple[Any, dict[str, Any]]:
    from invariantzoo.envs.molecules.files import NetModel
    from invariantzoo.training.molecules.fit_linear import walls_alone
    from invariantzoo.training.molecules.fit_network import Interrupted, fit_net
    from invariantzoo.training.molecules.frames import chosen
    from invariantzoo.training.optim.config import OptimizerConfig

    total = args.epochs * len(chosen(frames, "train").positions)
    progress_line, first = "", (0, 0.0)
    interrupted = False

    def follow(done: int, _: int) -> None:
        nonlocal first
        if not first[0]:
            first = done, time.perf_counter()
        if done == first[0] + TIMED_STEPS:
            left = (total - first[0]) * (time.perf_counter() - first[1]) / TIMED_STEPS
            say(f"about {duration(left)} for {total - first[0]:,} steps of one frame")
        show(done, progress_line)

    def told(epoch: int, train: float, val: float | None) -> None:
        nonlocal progress_line
        if not np.isfinite(train):
            raise ValueError(f"--lr {args.lr:g} is too large: the weights ran away")
        judged = "" if val is None else f", validation {1e3 * val:.1f}"
        progress_line = f"epoch {epoch} of {args.epochs}: training {1e3 * train:.1f}{judged} meV/A"
        if val is not None:
            say(progress_line)

    checkpoint = args.out.with_suffix(".checkpoint")
    with progress(options.messages(), total, name="fitting", unit="frames") as show:
        try:
            fit = fit_net(
                frames,
                cutoff=args.cutoff,
                channels=args.channels,
                epochs=args.epochs,
                lr=args.lr,
                optimizer=OptimizerConfig(optimizer=args.optimizer, metric=args.metric),
                seed=args.seed,
                threads=args.threads,
                checkpoint=checkpoint,
                report=told,
                progress=follow,
            )
        except Interrupted as stopped:
            fit, interrupted = stopped.fit, True
    model = NetModel(fit.net, walls_alone(frames))
    model = model._replace(constant=constant(model, frames))
    curve = [
        {"epoch": epoch, "train": 1e3 * train, "val": None if val is None else 1e3 * val}
        for epoch, train, val in fit.history
    ]
    parameters = sum(p.numel() for p in fit.net.parameters())
    report = {"parameters": parameters, "optimizer": args.optimizer, "history": curve}
    return model, report | {"epochs": fit.epochs, "interrupted": interrupted}


def duration(seconds: float) -> str:
    """Time for people: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def sample_of(frames: Any) -> Any:
    """The last training frame, from which simulations start."""
    from invariantzoo.envs.molecules.files import Sample
    from invariantzoo.training.molecules.frames import owners

    at = int(np.flatnonzero(frames.split == "train")[-1])
    last = frames.part(np.array([at]))
    return Sample(last.positions[0], last.cell[0], last.numbers, owners(last))


def structure_of(frames: Any) -> np.ndarray | None:
    """Radial distribution functions of all frames; None where a cell is missing or changes."""
    from invariantzoo.training.molecules.rdf import distribution

    cell = frames.cell[0]
    if not cell.any() or not np.allclose(frames.cell, cell):
        return None
    return distribution(frames.positions, cell, frames.numbers)


def constant(model: Any, frames: Any) -> float:
    """eV per agent that makes the losses add up to the energies of the data; 0 without these."""
    from invariantzoo.training.molecules.errors import predicted

    known = frames.part(
        np.flatnonzero(np.isfinite(frames.energy))[:: max(1, len(frames.energy) // 10)]
    )
    if not len(known.energy):
        return 0.0
    return float((known.energy - predicted(model, known)[1]).mean()) / len(frames.numbers)


def limits(model: Any, frames: Any) -> dict[str, Any]:
    """What the data sampled: least distances and longest bond (Angstrom), by atomic numbers."""
    from invariantzoo.training.molecules.fit_linear import sampled_ranges

    known = tuple(sorted(set(map(int, frames.numbers))))
    seen = sampled_ranges(frames, known, 6.0)
    return {
        f"{a}-{b}": {"nearest": seen[a, b].nearest, "bond": seen[a, b].bond}
        for a in known
        for b in known
        if a <= b
    }


def sensitivities(model: Any) -> list[dict[str, Any]]:
    """Force along the line that agents infer from each other, eV/Angstrom, + pushed away."""
    from invariantzoo.envs.molecules.linear import pair_force
    from invariantzoo.training.molecules.frames import symbols

    r = np.array([0.9, 0.95, 0.98, 1.0, 1.05, 1.5, 1.8, 2.0, 2.3, 2.6, 3.0, 3.8])
    rows = []
    for s, a in enumerate(model.numbers):
        for t, b in enumerate(model.numbers):
            inside = r >= model.walls.nearest[s, t]
            force = np.where(inside, pair_force(model, s, t, r), np.nan)
            agent, other = symbols(np.array([a, b]))
            rows.append({"agent": agent, "neighbour": other, "r": r, "force": force})
    return rows


def draw_sensitivities(model: Any, path: Path) -> None:
    """The same as a picture: both directions of a pair on one axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from invariantzoo.envs.molecules.linear import pair_force
    from invariantzoo.report import save_figure
    from invariantzoo.training.molecules.frames import symbols

    names = symbols(np.array(model.numbers))
    pairs = [(s, t) for s in range(len(names)) for t in range(s, len(names))]
    figure, axes = plt.subplots(1, len(pairs), figsize=(4 * len(pairs), 3.4), squeeze=False)
    for axis, (s, t) in zip(axes[0], pairs, strict=True):
        r = np.linspace(max(model.walls.nearest[s, t], 0.5) * 1.02, model.pair.cutoff, 500)
        axis.plot(r, pair_force(model, s, t, r), label=f"on {names[s]} by {names[t]}")
        if s != t:
            axis.plot(r, pair_force(model, t, s, r), "--", label=f"on {names[t]} by {names[s]}")
        axis.axhline(0, color="0.7", lw=0.8)
        axis.set_xlabel("distance (Å)")
        axis.set_ylim(-4, 4)
        axis.legend(frameon=False)
    axes[0, 0].set_ylabel("force, + pushed away (eV/Å)")
    save_figure(figure, path)
    plt.close(figure)


def _print(args: argparse.Namespace, report: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"{args.loss} losses, {report['parameters']} coefficients")
    names = list(report["validation"]["rmse_mev_per_angstrom"])
    for head in ("frames", *(f"{name} (meV/Å)" for name in names), "relative", "correlation"):
        table.add_column(head, justify="right")
    for split in ("training", "validation"):
        errors = report[split]
        rmse = [f"{errors['rmse_mev_per_angstrom'][name]:.1f}" for name in names]
        table.add_row(
            f"{split}, {errors['frames']}",
            *rmse,
            f"{errors['relative']:.4f}",
            f"{errors['correlation']:.4f}",
        )
    console = options.console(args)
    console.print(table)
    if "learning_curve" in report:
        curve = ", ".join(f"{p['frames']}: {p['val']:.1f}" for p in report["learning_curve"])
        console.print(f"ridge {report['ridge']:g}; error by number of frames: {curve}")
        lines = Table(title="force along the line, eV/Å, + pushed away (pair part)")
        rows = report["sensitivities"]
        for head in ("r (Å)", *(f"{row['agent']} ← {row['neighbour']}" for row in rows)):
            lines.add_column(head, justify="right")
        for k, r in enumerate(rows[0]["r"]):
            cells = ["" if np.isnan(row["force"][k]) else f"{row['force'][k]:+.2f}" for row in rows]
            lines.add_row(f"{r:.2f}", *cells)
        console.print(lines)
    spent = f"{report['seconds']:.1f} s of CPU, {report['wall_seconds']:.1f} s of wall time"
    console.print(f"{spent}; wrote {report['model']}")
