"""What a run shows: structure, diffusion, vibrations, temperature and energy, with errors.

Errors are those of the mean over blocks (of 2 ps, or 10 ps for slow quantities) of all worlds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..envs.core.units import BOLTZMANN, SYMBOLS, WAVENUMBER
from .simulation import Intervals, Plan, blocks, read_config
from .structure import COMPARED, difference, first_maximum, first_minimum, normalised, radii

_SLOW = 10.0  # ps
_FIT = (2.0, 10.0)  # ps, where the mean square displacement is fitted
_YEH_HUMMER = 2.837297
_BANDS = {"stretch": (3000.0, 4000.0), "bend": (1450.0, 1850.0), "libration": (300.0, 1100.0)}


def observe(folder: str | Path, *, drop: float = 5.0, reference: np.ndarray | None = None) -> Any:
    """A dictionary of observables of a run, the first `drop` ps left out.

    reference [kinds, kinds, bins]: radial distribution functions to compare with, else those of
    the data that the model was fitted to, where it is at hand.
    Raises ValueError if nothing is left.
    """
    folder = Path(folder)
    config = read_config(folder)
    plan = Plan(**config["plan"])
    numbers, cell = np.array(config["numbers"]), np.array(config["cell"])
    whole = list(blocks(folder))
    if not whole:
        raise ValueError(f"{folder} has no whole block yet")
    kept = [b for b in whole if b["step"][0] * plan.dt / 1e3 > drop]
    if not kept:
        length = whole[-1]["step"][-1] * plan.dt / 1e3
        raise ValueError(f"--drop {drop:g} ps leaves nothing of {length:g} ps")
    known = sorted(set(map(int, numbers)))
    found: dict[str, Any] = {
        "model": config["model"],
        "temperature_set": plan.temperature,
        "thermostat": plan.thermostat,
        "atoms": len(numbers),
        "worlds": plan.worlds,
        "length_ps": float(whole[-1]["step"][-1] * plan.dt / 1e3),
        "dropped_ps": drop,
    }
    found |= _traces(kept, plan, len(numbers))
    least = np.min([b["least"].min(0) for b in kept], 0)
    found["least_distance"] = {
        f"{SYMBOLS[b]}-{SYMBOLS[a]}": float(least[i, j])
        for i, a in enumerate(known)
        for j, b in enumerate(known)
        if i <= j
    }
    found["longest_bond"] = float(max(b["longest"].max() for b in kept))
    if cell.any():
        if reference is None:
            reference = _reference(config)
        found["structure"] = _structure(kept, plan, numbers, cell, reference)
        found["diffusion"] = _diffusion(kept, plan, cell, found["temperature"][0])
    found["vibrations"] = _vibrations(kept, plan, known)
    return found


def mean_error(values: np.ndarray) -> tuple[float, float | None]:
    """The mean of independent values and its standard error."""
    values = np.asarray(values, float).ravel()
    if len(values) < 2:
        return float(values.mean()), None
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _grouped(values: np.ndarray, plan: Plan) -> np.ndarray:
    """Means over 10 ps of values [blocks, worlds]; all blocks where there are fewer."""
    per = max(1, round(1e3 * _SLOW / plan.dt / Intervals.of(plan).block))
    groups = max(1, len(values) // per)
    return np.array([part.mean(0) for part in np.array_split(values, groups)])


def _traces(kept: list[dict[str, np.ndarray]], plan: Plan, atoms: int) -> dict[str, Any]:
    temperature = np.array([b["temperature"].mean(0) for b in kept])
    potential = np.array([b["potential"].mean(0) for b in kept]) / atoms
    energy = np.concatenate([b["conserved"] for b in kept]) / atoms  # [samples, worlds]
    heat = np.concatenate([b["heat"] for b in kept]) / atoms
    ps = np.concatenate([b["step"] for b in kept]) * plan.dt / 1e3
    drift = np.polyfit(ps - ps.mean(), 1e3 * (energy - energy[0]), 1)[0] if len(ps) > 2 else [0.0]
    return {
        "temperature": mean_error(_grouped(temperature, plan)),
        "temperature_fluctuation": float(
            np.std(np.concatenate([b["temperature"] for b in kept]), axis=0).mean()
        ),
        "potential_ev_per_atom": mean_error(_grouped(potential, plan)),
        "drift_mev_per_atom_per_ps": [float(d) for d in drift],
        "range_mev_per_atom": [float(r) for r in 1e3 * np.ptp(energy, axis=0)],
        "heat_ev_per_atom_per_ps": [
            float(d) for d in (heat[-1] - heat[0]) / max(ps[-1] - ps[0], 1e-9)
        ],
        "trace": {
            "ps": ps[:: max(1, len(ps) // 500)],
            "temperature": np.concatenate([b["temperature"] for b in kept])[
                :: max(1, len(ps) // 500)
            ],
            "conserved_mev_per_atom": 1e3 * (energy - energy[0])[:: max(1, len(ps) // 500)],
        },
    }


def _reference(config: dict[str, Any]) -> np.ndarray | None:
    from ..agents.model_file import load_model

    try:
        return load_model(config["model"]).structure
    except (FileNotFoundError, ValueError):
        return None


def _structure(
    kept: list[dict[str, np.ndarray]],
    plan: Plan,
    numbers: np.ndarray,
    cell: np.ndarray,
    reference: np.ndarray | None,
) -> dict[str, Any]:
    known = sorted(set(map(int, numbers)))
    samples = np.array([len(b["step"]) for b in kept])
    counts = np.array([b["counts"] for b in kept])  # [blocks, worlds, kinds, kinds, bins]
    everything = normalised(counts.sum((0, 1)), samples.sum() * plan.worlds, cell, numbers)
    by_world = [
        normalised(counts[:, w].sum(0), samples.sum(), cell, numbers) for w in range(plan.worlds)
    ]
    groups = _grouped(counts.astype(float), plan)  # mean counts of a block
    per_block = samples.mean()
    by_group = [normalised(g, per_block, cell, numbers) for part in groups for g in part]
    found: dict[str, Any] = {"r": radii(everything.shape[-1])}
    for i, a in enumerate(known):
        for j, b in enumerate(known):
            if i > j:
                continue
            g = everything[i, j]
            start = COMPARED.get((a, b), 0.0)
            name = f"{SYMBOLS[b]}-{SYMBOLS[a]}"
            found[name] = {"g": g, "error": np.std([h[i, j] for h in by_group], axis=0)}
            found[name]["error"] = found[name]["error"] / np.sqrt(max(1, len(by_group) - 1))
            if (g > 0).any():
                top = first_maximum(g, start)
                found[name]["first_maximum"] = top
                found[name]["first_minimum"] = first_minimum(g, top)
                heights = [first_maximum(h[i, j], start).value for h in by_group]
                found[name]["height_error"] = mean_error(np.array(heights))[1]
            if reference is not None:
                other = reference[i, j]
                found[name]["reference"] = other[: len(g)]
                found[name]["difference"] = difference(g, other, start)
                found[name]["difference_by_world"] = [
                    difference(h[i, j], other, start) for h in by_world
                ]
                found[name]["reference_maximum"] = first_maximum(other, start)
    return found


def _diffusion(
    kept: list[dict[str, np.ndarray]], plan: Plan, cell: np.ndarray, temperature: float
) -> dict[str, Any] | None:
    """Self-diffusion of the heavy atoms, Angstrom^2/ps; None for runs below 12 ps.

    Slope of the mean square displacement between 2 and 10 ps over 6, windows of all origins; the
    error is that between pieces of 20 ps of all worlds. Finite size: D + 2.837297 kT / (6 pi eta L)
    (Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004)) with the viscosity of real water at the
    temperature, since that of the model is not known.
    """
    places = [b["place"] for b in kept if b["place"].ndim == 4]
    place = np.concatenate(places) if places else np.zeros((0, 1, 1, 3))
    between = Intervals.of(plan).place * plan.dt / 1e3
    need = round(20.0 / between) if len(place) * between >= 40 else len(place)
    if len(place) * between < 1.2 * _FIT[1]:
        return None
    pieces = [place[k : k + need] for k in range(0, len(place) - need + 1, need)]
    lags = np.unique(np.round(np.linspace(_FIT[0], _FIT[1], 17) / between).astype(int))
    slopes = []
    for piece in pieces:
        for w in range(plan.worlds):
            x = piece[:, w].astype(float)
            square = [((x[lag:] - x[:-lag]) ** 2).sum(-1).mean() for lag in lags]
            slopes.append(np.polyfit(lags * between, square, 1)[0] / 6)
    value, error = mean_error(np.array(slopes))
    kelvin = plan.temperature if plan.thermostat != "none" else temperature
    eta = viscosity(kelvin)  # mPa s
    length = abs(np.linalg.det(cell)) ** (1 / 3)
    joule = BOLTZMANN * kelvin * 1.602176634e-19
    correction = _YEH_HUMMER * joule / (6 * np.pi * eta * 1e-3 * length * 1e-10) * 1e8
    return {
        "value": value,
        "error": error,
        "pieces": len(slopes),
        "correction": correction,
        "corrected": value + correction,
        "viscosity_mpa_s": eta,
    }


def viscosity(kelvin: float) -> float:
    """Of water at one atmosphere, mPa s: 0.02414 * 10^(247.8 / (T - 140)); within 3 % of tables."""
    return float(0.02414 * 10 ** (247.8 / (kelvin - 140)))


def _vibrations(
    kept: list[dict[str, np.ndarray]], plan: Plan, known: list[int]
) -> dict[str, Any] | None:
    """Vibrational density of states [kinds, frequencies], normalised to one, and where it peaks."""
    spectra = np.array([b["spectrum"] for b in kept if b["spectrum"].size], float)
    if not len(spectra):
        return None
    every = Intervals.of(plan)
    times = every.block // every.velocity
    wave = np.fft.rfftfreq(times, every.velocity * plan.dt) / WAVENUMBER
    power = spectra.sum((0, 1))
    total = power.sum(0)
    density = power / (total.sum() * (wave[1] - wave[0]))
    peaks = {}
    for name, (low, high) in _BANDS.items():
        inside = (wave >= low) & (wave <= high)
        if inside.any() and total[inside].any():
            peaks[name] = float((wave * total)[inside].sum() / total[inside].sum())
    return {
        "wavenumber": wave,
        "density": {SYMBOLS[z]: density[k] for k, z in enumerate(known)},
        "windows": int(spectra.shape[0] * spectra.shape[1]),
        "band_centres": peaks,
    }
