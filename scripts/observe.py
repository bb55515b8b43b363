"""What a simulation shows: structure, diffusion, vibrations, temperature and energy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo import options

# First maxima of real water near 298 K: Skinner et al., J. Chem. Phys. 138, 074506 (2013), for O-O;
# neutron work, which varies by a tenth between analyses, for the others.
EXPERIMENT = {"O-O": (2.80, 2.57), "O-H": (1.86, 1.25), "H-H": (2.4, 1.25)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `observe` takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a simulation")
    parser.add_argument("--drop", type=float, default=5.0, metavar="PS", help="left out first (5)")
    parser.add_argument("--data", metavar="DATA", help="compare with these frames' structure")


def run(args: argparse.Namespace) -> int:
    """Print a table, and write observables.json and pictures into the folder."""
    from invariantzoo.training.observables import observe

    if not args.drop >= 0:
        raise ValueError(f"--drop {args.drop:g} must be at least 0")
    reference = None
    if args.data is not None:
        from invariantzoo.fit import structure_of
        from invariantzoo.training.frames import read_frames

        reference = structure_of(read_frames(args.data))
        if reference is None:
            raise ValueError(f"--data {args.data}: its frames have no cell, or a changing one")
    show(args, observe(args.run, drop=args.drop, reference=reference), args.run)
    return 0


def show(args: argparse.Namespace, found: dict[str, Any], folder: Path) -> None:
    """Table or JSON; observables.json and pictures go to the folder."""
    import json

    from invariantzoo.figures.records import write_text

    text = json.dumps(options.plain(found), allow_nan=False)
    write_text(folder / "observables.json", text + "\n")
    if "structure" in found:
        draw_structure(found, folder / "structure.png")
    draw_traces(found, folder / "traces.png")
    if found.get("vibrations"):
        draw_vibrations(found, folder / "vibrations.png")
    if args.json:
        options.print_json(args, found)
        return
    from rich.table import Table

    table = Table(title=f"{found['length_ps']:g} ps of {found['atoms']} atoms, {found['worlds']} x")
    for head in ("quantity", "value"):
        table.add_column(head)
    for name, value in lines(found):
        table.add_row(name, value)
    options.console(args).print(table)


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Quantities and values for people."""
    rows = [
        ("temperature", f"{_mean(found['temperature'], 1)} K, set {found['temperature_set']:g}"),
        ("potential energy", f"{_mean(found['potential_ev_per_atom'], 4)} eV/atom"),
        ("drift", f"{_list(found['drift_mev_per_atom_per_ps'], 4)} meV/atom/ps"),
        ("range of the conserved", f"{_list(found['range_mev_per_atom'], 3)} meV/atom"),
    ]
    if any(found["heat_ev_per_atom_per_ps"]):
        text = f"{_list(found['heat_ev_per_atom_per_ps'], 5)} eV/atom/ps"
        rows.append(("heat from the thermostat", text))
    for name, value in found["least_distance"].items():
        rows.append((f"smallest {name}", f"{value:.2f} Å"))
    rows.append(("longest bond", f"{found['longest_bond']:.2f} Å"))
    for name, part in found.get("structure", {}).items():
        if name == "r" or "first_maximum" not in part:
            continue
        place, height = part["first_maximum"]
        text = f"{place:.2f} Å, {_pm(height, part['height_error'], 2)}"
        if "reference_maximum" in part:
            text += " (data {:.2f} Å, {:.2f})".format(*part["reference_maximum"])
        rows.append((f"g {name}, first maximum", text))
        if "difference" in part:
            rows.append((f"g {name}, mean |Δ|", f"{part['difference']:.3f}"))
    d = found.get("diffusion")
    if d:
        text = f"{_pm(d['value'], d['error'], 3)} Å²/ps, {d['corrected']:.3f} with finite size"
        rows.append(("diffusion", text))
    if found.get("vibrations"):
        for name, value in found["vibrations"]["band_centres"].items():
            rows.append((f"{name} band", f"{value:.0f} cm⁻¹"))
    return rows


def _mean(pair: tuple[float, float | None], digits: int) -> str:
    return _pm(pair[0], pair[1], digits)


def _pm(value: float, error: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _list(values: list[float], digits: int) -> str:
    return ", ".join(f"{v:.{digits}f}" for v in values)


def draw_structure(found: dict[str, Any], path: Path) -> None:
    """Radial distribution functions beside the data's and the experiment's first maxima."""
    plt = _pyplot()
    structure = found["structure"]
    names = [name for name in structure if name != "r"]
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.2), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        part, r = structure[name], structure["r"]
        axis.plot(r, _smooth(part["g"]), lw=1.2, label="agents")
        low, high = part["g"] - 2 * part["error"], part["g"] + 2 * part["error"]
        axis.fill_between(r, low, high, alpha=0.3, lw=0)
        if "reference" in part:
            other = _smooth(part["reference"])
            axis.plot(r[: len(other)], other, "k--", lw=0.8, label="data")
        if name in EXPERIMENT:
            axis.plot(*EXPERIMENT[name], "r+", ms=10, label="experiment, first maximum")
        axis.set_xlim(0.8, min(r[-1], 6.3))
        axis.set_ylim(0, 3.4)
        axis.axhline(1, color="0.8", lw=0.6)
        axis.set_xlabel("distance (Å)")
        axis.set_title(f"g, {name}")
    axes[0, 0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Means over 0.05 A, for the eye."""
    return np.convolve(values, np.ones(5) / 5, "same")


def draw_traces(found: dict[str, Any], path: Path) -> None:
    """Temperature and conserved quantity."""
    plt = _pyplot()
    trace = found["trace"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8))
    axes[0].plot(trace["ps"], trace["temperature"], lw=0.5)
    axes[0].set_ylabel("temperature (K)")
    axes[1].plot(trace["ps"], trace["conserved_mev_per_atom"], lw=0.8)
    axes[1].set_ylabel("conserved, change (meV/atom)")
    for axis in axes:
        axis.set_xlabel("time (ps)")
    figure.tight_layout()
    _save(figure, path)


def draw_vibrations(found: dict[str, Any], path: Path) -> None:
    """Vibrational density of states, with the bands of water."""
    plt = _pyplot()
    part = found["vibrations"]
    figure, axis = plt.subplots(figsize=(6, 2.8))
    for name, density in part["density"].items():
        axis.plot(part["wavenumber"], np.asarray(density) * 1e3, lw=1, label=name)
    for wave in (190, 650, 1645, 3400):
        axis.axvline(wave, color="0.8", lw=0.8, zorder=0)
    axis.set_xlim(0, 4500)
    axis.set_xlabel("wavenumber (1/cm); grey: bands of real water")
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

    from invariantzoo.figures.records import save_figure

    save_figure(figure, path)
    plt.close(figure)
