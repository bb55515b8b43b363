"""What a simulation shows: structure, diffusion, vibrations, temperature and energy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo import options
from invariantzoo.tables import plus_minus

# First maxima of real water near 298 K: Skinner et al., J. Chem. Phys. 138, 074506 (2013), for O-O;
# neutron work, which varies by a tenth between analyses, for the others.
EXPERIMENT = {"O-O": (2.80, 2.57), "O-H": (1.86, 1.25), "H-H": (2.4, 1.25)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `observe` takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a simulation")
    parser.add_argument(
        "--drop",
        type=float,
        metavar="PS",
        help="left out at the start (5, or nothing of a run that is shorter)",
    )
    parser.add_argument("--data", metavar="DATA", help="compare with these frames' structure")
    options.add_viscosity(parser)
    options.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print a table, and write observables.json and pictures into the folder."""
    from invariantzoo.training.molecules.observables import observe

    if args.drop is not None and not args.drop >= 0:
        raise ValueError(f"--drop {args.drop:g} must be at least 0")
    options.require_positive("viscosity", args.viscosity)
    if args.run.is_dir():
        options.require_output_folder("RUN", args.run)
    reference = None if args.data is None else _structure_of_data(args)
    observables = observe(args.run, drop=args.drop, reference=reference, viscosity=args.viscosity)
    show(args, observables, args.run)
    return 0


def _structure_of_data(args: argparse.Namespace) -> np.ndarray:
    """Radial distribution functions of the frames in `--data`, which are of the run's species."""
    from invariantzoo.commands.fit import structure_of
    from invariantzoo.training.molecules.frames import symbols
    from invariantzoo.training.molecules.simulate import read_config

    own = sorted(set(read_config(args.run)["numbers"]))
    frames = options.read_data(args, args.data)
    others = sorted(set(map(int, frames.numbers)))
    if others != own:
        names = [", ".join(symbols(np.array(numbers))) for numbers in (others, own)]
        raise ValueError(f"--data {args.data} is of {names[0]}, the run of {names[1]}")
    reference = structure_of(frames)
    if reference is None:
        raise ValueError(f"--data {args.data}: its frames have no cell, or a changing one")
    return reference


def show(args: argparse.Namespace, observables: dict[str, Any], folder: Path) -> None:
    """Table or JSON; observables.json and pictures go to the folder."""
    import json

    from invariantzoo.report import write_text

    text = json.dumps(options.plain(observables), allow_nan=False)
    write_text(folder / "observables.json", text + "\n")
    if observables["structure"]:
        draw_structure(observables, folder / "structure.png")
    draw_traces(observables, folder / "traces.png")
    if observables["vibrations"]:
        draw_vibrations(observables, folder / "vibrations.png")
    if args.json:
        options.print_json(args, observables)
        return
    from rich.table import Table

    worlds = f" in {observables['worlds']} worlds" if observables["worlds"] > 1 else ""
    table = Table(title=f"{observables['length_ps']:g} ps of {observables['atoms']} atoms{worlds}")
    for head in ("quantity", "value"):
        table.add_column(head)
    for name, value in lines(observables):
        table.add_row(name, value)
    options.console(args).print(table)


def lines(observables: dict[str, Any]) -> list[tuple[str, str]]:
    """Quantities and values for people."""
    temperature = f"{_mean(observables['temperature'], 1)} K"
    if observables["temperature_set"] is not None:
        temperature += f", set {observables['temperature_set']:g}"
    rows = [
        ("temperature", temperature),
        ("potential energy", f"{_mean(observables['potential_ev_per_atom'], 4)} eV/atom"),
    ]
    for name, key, digits, unit in (
        ("drift", "drift_mev_per_atom_per_ps", 4, "meV/atom/ps"),
        ("range of the conserved", "range_mev_per_atom", 3, "meV/atom"),
        ("heat from the thermostat", "heat_ev_per_atom_per_ps", 5, "eV/atom/ps"),
    ):
        values = observables[key]
        if np.isfinite(values).all() and (any(values) or not key.startswith("heat")):
            rows.append((name, f"{_list(values, digits)} {unit}"))
    for name, value in observables["least_distance"].items():
        if value is not None:
            rows.append((f"smallest {name}", f"{value:.2f} Å"))
    if observables["longest_bond"] is not None:
        rows.append(("longest bond", f"{observables['longest_bond']:.2f} Å"))
    rows += _structure_lines(observables["structure"] or {})
    if observables["diffusion"]:
        rows += _diffusion_lines(observables["diffusion"])
    if observables["vibrations"]:
        for name, value in observables["vibrations"]["band_centres"].items():
            rows.append((f"{name} band", f"{value:.0f} cm⁻¹"))
    return rows


def _structure_lines(structure: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, pair in structure.items():
        if name == "r":
            continue
        if "first_maximum" in pair:
            distance, height = pair["first_maximum"]
            text = f"{distance:.2f} Å, {plus_minus(height, pair['height_error'], 2)}"
            if pair.get("reference_maximum"):
                text += " (data {:.2f} Å, {:.2f})".format(*pair["reference_maximum"])
            rows.append((f"g {name}, first maximum", text))
        if pair.get("difference") is not None:
            rows.append((f"g {name}, mean |Δ|", f"{pair['difference']:.3f}"))
    return rows


def _diffusion_lines(diffusion: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("diffusion", f"{plus_minus(diffusion['value'], diffusion['error'], 3)} Å²/ps")]
    if diffusion["corrected"] is None:
        return [*rows, ("with finite size", f"left out: {diffusion['reason']}")]
    of = "real water's" if diffusion["viscosity_from"] == "water" else "the given"
    text = f"{diffusion['corrected']:.3f} Å²/ps, by {of} {diffusion['viscosity_mpa_s']:.3g} mPa s"
    return [*rows, ("with finite size", text)]


def _mean(pair: tuple[float, float | None], digits: int) -> str:
    return plus_minus(pair[0], pair[1], digits)


def _list(values: list[float], digits: int) -> str:
    return ", ".join(f"{v:.{digits}f}" for v in values)


def draw_structure(observables: dict[str, Any], path: Path) -> None:
    """Radial distribution functions beside the data's and, for water, the experiment's maxima."""
    plt = _pyplot()
    structure = observables["structure"]
    names = [name for name in structure if name != "r"]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    size = (max(4.0, 3.0 * columns), 2.8 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        pair, r = structure[name], structure["r"]
        axis.plot(r, smoothed(pair["g"]), lw=1.2, label="agents")
        low, high = pair["g"] - 2 * pair["error"], pair["g"] + 2 * pair["error"]
        axis.fill_between(r, low, high, alpha=0.3, lw=0)
        tallest = pair["first_maximum"][1] if "first_maximum" in pair else 1.0
        if "reference" in pair:
            other = smoothed(pair["reference"])
            axis.plot(r[: len(other)], other, "k--", lw=0.8, label="data")
            if pair["reference_maximum"]:
                tallest = max(tallest, pair["reference_maximum"][1])
        if observables["water"] and name in EXPERIMENT:
            axis.plot(*EXPERIMENT[name], "r+", ms=10, label="experiment, first maximum")
        axis.set_xlim(0.8, r[-1])
        axis.set_ylim(0, 1.25 * max(tallest, 1.6))
        axis.axhline(1, color="0.8", lw=0.6)
        axis.set_xlabel("distance (Å)")
        axis.set_ylabel(f"g, {name}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.26 / size[1], 1, 1))
    _save(figure, path)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Means over 0.05 A, for the eye; fewer bins at the ends."""
    window = np.ones(5)
    weight = np.convolve(np.ones(len(values)), window, "same")
    return np.convolve(values, window, "same") / weight


def draw_traces(observables: dict[str, Any], path: Path) -> None:
    """Temperature and conserved quantity of every world."""
    plt = _pyplot()
    trace = observables["trace"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8))
    alone = "." if len(trace["ps"]) < 2 else ""
    axes[0].plot(trace["ps"], trace["temperature"], alone, lw=0.6)
    axes[0].set_ylabel("temperature (K)")
    axes[1].plot(trace["ps"], trace["conserved_mev_per_atom"], alone, lw=0.8)
    axes[1].set_ylabel("conserved quantity,\nchange (meV/atom)")
    if 1 < observables["worlds"] <= 6:
        axes[0].legend(
            [f"world {w}" for w in range(observables["worlds"])], frameon=False, fontsize=8
        )
    for axis in axes:
        axis.set_xlabel("time (ps)")
        axis.ticklabel_format(useOffset=False)
    figure.tight_layout()
    _save(figure, path)


def draw_vibrations(observables: dict[str, Any], path: Path) -> None:
    """Vibrational density of states, with the bands of water where it is water."""
    plt = _pyplot()
    vibrations = observables["vibrations"]
    figure, axis = plt.subplots(figsize=(7, 3.2))
    wave, total = vibrations["wavenumber"], np.sum(list(vibrations["density"].values()), 0)
    for name, density in vibrations["density"].items():
        axis.plot(wave, np.asarray(density) * 1e3, lw=1, label=name)
    label = "wavenumber (cm⁻¹)"
    if observables["water"]:
        for band in (190, 650, 1645, 3400):
            axis.axvline(band, color="0.8", lw=0.8, zorder=0)
        label += "; grey: bands of real water"
    most = wave[np.searchsorted(np.cumsum(total), 0.99 * total.sum())]
    axis.set_xlim(0, max(1.2 * most, wave[1]))
    axis.set_ylim(bottom=0)
    axis.set_xlabel(label)
    axis.set_ylabel("density of states (10⁻³ cm)")
    axis.legend(frameon=False)
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    from invariantzoo.report import save_figure

    save_figure(figure, path)
    plt.close(figure)
