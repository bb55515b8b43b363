"""What a run shows: structure, diffusion, vibrations, temperature and energy, with errors.

Errors are those of the mean over blocks (of 10 ps, of diffusion 20 ps) of all worlds.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...envs.core.physics.cell import widths
from ...envs.core.physics.kernels.neighbours import NeighbourList
from ...envs.core.physics.units import ATOMIC_WEIGHTS, BOLTZMANN, SYMBOLS, WAVENUMBER
from .measurements import read_blocks
from .plan import Intervals, Plan
from .rdf import COMPARED, difference, first_maximum, first_minimum, normalised, radii
from .simulate import final_state, read_alarm, read_config

_SLOW = 10.0  # ps
_DROP = 5.0  # ps left out at the start
_FIT = (2.0, 10.0)  # ps, where the mean square displacement is fitted
_BANDS = {"stretch": (3000.0, 4000.0), "bend": (1450.0, 1850.0), "libration": (300.0, 1100.0)}
_BOND = 1.3  # Angstrom, of a water molecule
_LIQUID = (273.15, 373.15)  # K, where the formula of water's viscosity holds
_DENSITY = (0.9, 1.1)  # g/cm^3 of liquid water at these
_GRAM = 1.66053907  # g/cm^3 of 1 amu/Angstrom^3
_JOULE = 1.602176634e-19  # of 1 eV

Block = dict[str, np.ndarray]


class Run(NamedTuple):
    """A run as far as it was measured.

    blocks: those that count.  numbers [atoms]; cell [3, 3]; known: atomic numbers, rising.
    water: whether the atoms are water molecules and nothing else.
    """

    config: dict[str, Any]
    plan: Plan
    blocks: list[Block]
    numbers: np.ndarray
    cell: np.ndarray
    known: list[int]
    water: bool

    @property
    def interval(self) -> Intervals:
        """Steps between what is recorded."""
        return Intervals.of(self.plan)


def observe(
    folder: str | Path,
    *,
    drop: float | None = None,
    reference: np.ndarray | None = None,
    viscosity: float | None = None,
) -> dict[str, Any]:
    """Observables of a run by name, the first `drop` ps left out; None: 5, if that leaves any.

    reference [kinds, kinds, bins]: radial distribution functions to compare with, else those of
    the data that the model was fitted to, where it is at hand.
    viscosity: of this liquid in mPa s, for the finite-size correction of the diffusion.
    Raises ValueError if nothing is left.
    """
    folder = Path(folder)
    run, length = _read(folder)
    if not run.blocks:
        alarm = read_alarm(folder)
        why = f": it stopped at {alarm}" if alarm else " yet"
        raise ValueError(f"{folder} has measured nothing{why}")
    dropped = _DROP if drop is None else drop
    left = _without(run, dropped)
    if not left.blocks and drop is None:
        left, dropped = run, 0.0
    if not left.blocks:
        raise ValueError(f"--drop {drop:g} ps leaves nothing of {length:g} ps")
    return _observed(folder, left, length, dropped, reference, viscosity)


def _without(run: Run, drop: float) -> Run:
    """The run without the blocks that begin in the first `drop` ps."""
    ps = run.plan.dt / 1e3
    blocks = [block for block in run.blocks if drop == 0 or block["step"][0] * ps > drop]
    return run._replace(blocks=blocks)


def unmeasured(folder: str | Path) -> dict[str, Any]:
    """The same names, without values, for a run that stopped before anything was measured."""
    run, length = _read(Path(folder))
    return _observed(Path(folder), run._replace(blocks=[]), length, 0.0, None, None)


def _read(folder: Path) -> tuple[Run, float]:
    """The run and its length in ps."""
    config = read_config(folder)
    plan = Plan(**config["plan"])
    numbers, cell = np.array(config["numbers"]), np.array(config["cell"], float)
    every = Intervals.of(plan)
    measured = read_blocks(folder, block=every.block, sample=every.sample)
    blocks = [block for block in measured if len(block["step"])]
    length = float(blocks[-1]["step"][-1] * plan.dt / 1e3) if blocks else 0.0
    known = sorted(set(map(int, numbers)))
    water = set(known) == {1, 8} and is_water(numbers, _position(folder), cell)
    return Run(config, plan, blocks, numbers, cell, known, water), length


def _position(folder: Path) -> np.ndarray | None:
    """Positions [atoms, 3] of the first world where the run was saved last, if it was."""
    try:
        position: np.ndarray = final_state(folder)["position"][0]
    except FileNotFoundError:
        return None
    return position


def _observed(
    folder: Path,
    run: Run,
    length: float,
    drop: float,
    reference: np.ndarray | None,
    viscosity: float | None,
) -> dict[str, Any]:
    plan, alarm = run.plan, read_alarm(folder)
    observables: dict[str, Any] = {
        "model": run.config.get("model"),
        "temperature_set": plan.temperature if plan.thermostat != "none" else None,
        "thermostat": plan.thermostat,
        "atoms": len(run.numbers),
        "worlds": plan.worlds,
        "length_ps": length,
        "dropped_ps": drop,
        "water": run.water,
    }
    observables |= _traces(run)
    observables["least_distance"] = _least_distances(run)
    longest = max((float(block["longest"].max()) for block in run.blocks), default=0.0)
    observables["longest_bond"] = longest or None
    observables["structure"] = observables["diffusion"] = None
    if run.cell.any() and run.blocks:
        observables["structure"] = _structure(run, _reference(run, reference))
        observables["diffusion"] = _diffusion(run, observables["temperature"][0], viscosity)
    observables["vibrations"] = _vibrations(run)
    observables["stopped"] = None
    if alarm is not None:
        observables["stopped"] = {"step": alarm.step, "world": alarm.world, "what": alarm.what}
    return observables


def mean_error(values: np.ndarray) -> tuple[float, float | None]:
    """The mean of independent values and its standard error; None for fewer than two."""
    values = np.asarray(values, float).ravel()
    if not len(values):
        return math.nan, None
    if len(values) < 2:
        return float(values.mean()), None
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _groups(run: Run) -> list[list[Block]]:
    """The blocks in pieces of about 10 ps; all of them where there are fewer."""
    per = max(1, round(1e3 * _SLOW / run.plan.dt / run.interval.block))
    pieces = max(1, len(run.blocks) // per)
    split = np.array_split(np.arange(len(run.blocks)), pieces)
    return [[run.blocks[k] for k in piece] for piece in split if len(piece)]


def _mean(run: Run, name: str, scale: float = 1.0) -> tuple[float, float | None]:
    """The mean of a trace [samples, worlds] and its error from pieces of 10 ps of all worlds."""
    if not run.blocks:
        return math.nan, None
    means = [np.concatenate([b[name] for b in piece]).mean(0) for piece in _groups(run)]
    value = float(np.concatenate([b[name] for b in run.blocks]).mean())
    error = mean_error(np.array(means))[1]
    return scale * value, None if error is None else scale * error


def _traces(run: Run) -> dict[str, Any]:
    atoms, worlds = len(run.numbers), run.plan.worlds

    def all_of(name: str) -> np.ndarray:
        empty: np.ndarray = np.zeros((0,) if name == "step" else (0, worlds))
        return np.concatenate([block[name] for block in run.blocks] or [empty])

    energy, heat = 1e3 * all_of("conserved") / atoms, all_of("heat") / atoms  # [samples, worlds]
    ps, temperature = all_of("step") * run.plan.dt / 1e3, all_of("temperature")
    nothing = np.full(worlds, np.nan)
    many = len(ps) > 1
    drift = np.polyfit(ps - ps.mean(), energy - energy[0], 1)[0] if len(ps) > 2 else nothing
    shown = slice(None, None, max(1, len(ps) // 500))
    return {
        "temperature": _mean(run, "temperature"),
        "temperature_fluctuation": float(temperature.std(0).mean()) if many else None,
        "potential_ev_per_atom": _mean(run, "potential", 1 / atoms),
        "drift_mev_per_atom_per_ps": drift.tolist(),
        "range_mev_per_atom": (np.ptp(energy, axis=0) if many else nothing).tolist(),
        "heat_ev_per_atom_per_ps": (
            (heat[-1] - heat[0]) / (ps[-1] - ps[0]) if many else nothing
        ).tolist(),
        "trace": {
            "ps": ps[shown],
            "temperature": temperature[shown],
            "conserved_mev_per_atom": (energy - energy[:1])[shown],
        },
    }


def _pairs(run: Run) -> list[tuple[int, int, str]]:
    """Positions of two species among the known, and the name of the pair."""
    return [
        (i, j, f"{SYMBOLS[run.known[j]]}-{SYMBOLS[run.known[i]]}")
        for i in range(len(run.known))
        for j in range(i, len(run.known))
    ]


def _least_distances(run: Run) -> dict[str, float | None]:
    """Least distances in Angstrom by pair of species; None where none was seen."""
    kinds = len(run.known)
    none: np.ndarray = np.full((kinds, kinds), np.inf)
    least = np.min([none, *(block["least"].min(0) for block in run.blocks)], 0)
    return {
        name: float(least[i, j]) if np.isfinite(least[i, j]) else None for i, j, name in _pairs(run)
    }


def _reference(run: Run, given: np.ndarray | None) -> np.ndarray | None:
    """What the structure [kinds, kinds, bins] is compared with."""
    from ...envs.molecules.files import load_model
    from ...envs.molecules.linear import LossModel

    kinds = len(run.known)
    if given is not None:
        if given.shape[:2] != (kinds, kinds):
            raise ValueError(f"the reference knows {len(given)} species, the run {kinds}")
        return given
    try:
        saved = load_model(run.config.get("model", ""))
    except (OSError, ValueError):
        return None
    model = saved.model
    numbers = model.numbers if isinstance(model, LossModel) else model.net.numbers
    fits = saved.about.get("digest") == run.config.get("digest") and set(run.known) <= set(numbers)
    if saved.structure is None or len(saved.structure) != len(numbers) or not fits:
        return None
    own = [list(numbers).index(number) for number in run.known]
    return saved.structure[np.ix_(own, own)]


def _structure(run: Run, reference: np.ndarray | None) -> dict[str, Any]:
    cell, numbers, worlds = run.cell, run.numbers, run.plan.worlds
    samples = sum(len(block["step"]) for block in run.blocks)
    counts = np.sum([block["counts"] for block in run.blocks], 0)  # [worlds, kinds, kinds, bins]
    everything = normalised(counts.sum(0), samples * worlds, cell, numbers)
    by_world = [normalised(counts[w], samples, cell, numbers) for w in range(worlds)]
    by_group = []
    for piece in _groups(run):
        total = np.sum([block["counts"] for block in piece], 0)
        many = sum(len(block["step"]) for block in piece)
        by_group += [normalised(total[w], many, cell, numbers) for w in range(worlds)]
    rdfs: dict[str, Any] = {"r": radii(everything.shape[-1])}
    for i, j, name in _pairs(run):
        g = everything[i, j]
        start = COMPARED.get((run.known[i], run.known[j]), 0.0)
        pair = rdfs[name] = {"g": g, "error": np.full(len(g), np.nan)}
        if len(by_group) > 1:
            spread = np.std([h[i, j] for h in by_group], axis=0)
            pair["error"] = spread / np.sqrt(len(by_group) - 1)
        top = first_maximum(g, start)
        if top is not None:
            tops = [first_maximum(h[i, j], start) for h in by_group]
            heights = np.array([maximum.value for maximum in tops if maximum is not None])
            pair |= {"first_maximum": top, "first_minimum": first_minimum(g, top)}
            pair["height_error"] = mean_error(heights)[1]
        if reference is not None:
            other = reference[i, j]
            pair["reference"] = other[: len(g)]
            pair["difference"] = difference(g, other, start)
            pair["difference_by_world"] = [difference(h[i, j], other, start) for h in by_world]
            pair["reference_maximum"] = first_maximum(other, start)
    return rdfs


def _diffusion(run: Run, temperature: float, viscosity: float | None) -> dict[str, Any] | None:
    """Self-diffusion of the heavy atoms, Angstrom^2/ps; None for runs below 12 ps.

    Slope of the mean square displacement between 2 and 10 ps over 6, windows of all origins; the
    error is that between pieces of 20 ps of all worlds. Finite size: D + xi kT / (6 pi eta L), see
    `finite_size`, where the viscosity eta of the liquid is known: given, or that of real water if
    the liquid is water. Else "corrected" is None, and "reason" says why.
    """
    plan = run.plan
    places = [block["place"] for block in run.blocks if block["place"].ndim == 4]
    positions = np.concatenate(places) if places else np.zeros((0, 1, 1, 3))
    between = run.interval.place * plan.dt / 1e3
    need = round(20.0 / between) if len(positions) * between >= 40 else len(positions)
    if len(positions) * between < 1.2 * _FIT[1]:
        return None
    pieces = [positions[k : k + need] for k in range(0, len(positions) - need + 1, need)]
    lags = np.unique(np.round(np.linspace(_FIT[0], _FIT[1], 17) / between).astype(int))
    slopes = []
    for piece in pieces:
        for w in range(plan.worlds):
            x = piece[:, w].astype(float)
            square = [((x[lag:] - x[:-lag]) ** 2).sum(-1).mean() for lag in lags]
            slopes.append(np.polyfit(lags * between, square, 1)[0] / 6)
    value, error = mean_error(np.array(slopes))
    kelvin = plan.temperature if plan.thermostat != "none" else temperature
    reason = None if viscosity is not None else _no_viscosity(run, kelvin)
    source = "given" if viscosity is not None else "water" if reason is None else None
    if source == "water":
        viscosity = water_viscosity(kelvin)
    correction = None if viscosity is None else finite_size(run.cell, kelvin, viscosity)
    return {
        "value": value,
        "error": error,
        "pieces": len(slopes),
        "correction": correction,
        "corrected": None if correction is None else value + correction,
        "viscosity_mpa_s": viscosity,
        "viscosity_from": source,
        "reason": reason,
    }


def _no_viscosity(run: Run, kelvin: float) -> str | None:
    """Why the viscosity of real water at one atmosphere is not that of the liquid, if it is not."""
    ask = "give it with --viscosity"
    if not run.water:
        return f"the viscosity of this liquid is not known; {ask}"
    low, high = _LIQUID
    if not low <= kelvin <= high:
        return f"the viscosity of water is known here from {low:g} to {high:g} K; {ask}"
    mass = np.array(ATOMIC_WEIGHTS)[run.numbers].sum()
    density = float(_GRAM * mass / abs(np.linalg.det(run.cell)))
    if not _DENSITY[0] <= density <= _DENSITY[1]:
        return f"the viscosity of water of {density:.3g} g/cm^3 is not known; {ask}"
    return None


def water_viscosity(kelvin: float) -> float:
    """Of liquid water at one atmosphere in mPa s: 0.02414 * 10^(247.8 / (T - 140)).

    Within 3 % of tables from 273 to 373 K; ValueError beyond.
    """
    low, high = _LIQUID
    if not low <= kelvin <= high:
        raise ValueError(f"kelvin={kelvin:g} must be from {low:g} to {high:g}")
    return float(0.02414 * 10 ** (247.8 / (kelvin - 140)))


def finite_size(cell: np.ndarray, kelvin: float, viscosity: float) -> float:
    """What a periodic cell takes from the diffusion, Angstrom^2/ps; viscosity in mPa s.

    xi kT / (6 pi eta L), L^3 the volume (Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004)). The
    mean over directions of Oseen's tensor is 1 / r, so xi is that of a charge in its own lattice.
    """
    length = abs(np.linalg.det(cell)) ** (1 / 3)
    joule = BOLTZMANN * kelvin * _JOULE
    metres = 6 * np.pi * viscosity * 1e-3 * length * 1e-10
    return float(lattice_constant(cell) * joule / metres * 1e8)


def lattice_constant(cell: np.ndarray) -> float:
    """xi of `finite_size`: 2.837297 for a cube; by Ewald's sums."""
    cell = np.asarray(cell, float)
    cell = cell / abs(np.linalg.det(cell)) ** (1 / 3)
    alpha, reach = math.sqrt(math.pi), 6.0
    r = np.linalg.norm(_lattice(cell, reach / alpha), axis=1)
    k = np.linalg.norm(_lattice(2 * np.pi * np.linalg.inv(cell).T, 2 * alpha * reach), axis=1)
    near = sum(math.erfc(alpha * d) / d for d in r)
    far = (4 * np.pi / k**2 * np.exp(-(k**2) / (4 * alpha**2))).sum()
    return float(math.pi / alpha**2 + 2 * alpha / math.sqrt(math.pi) - near - far)


def _lattice(cell: np.ndarray, reach: float) -> np.ndarray:
    """Vectors [n, 3] of the lattice, without zero, as far as `reach` and some beyond."""
    import torch

    many = np.ceil(reach / widths(torch.from_numpy(cell)).numpy()).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in many), indexing="ij"), -1)
    grid = grid.reshape(-1, 3)
    return grid[grid.any(1)] @ cell


def is_water(numbers: np.ndarray, position: np.ndarray | None, cell: np.ndarray) -> bool:
    """Whether atoms at [atoms, 3] are H2O by bonds: each O with two H, each H with one O alone."""
    if position is None or 2 * (numbers == 8).sum() != (numbers == 1).sum():
        return False
    if set(map(int, numbers)) != {1, 8}:
        return False
    near = NeighbourList(cell[None], len(numbers), _BOND, 0.0)
    near.update(np.ascontiguousarray(position[None], float))
    columns = np.arange(near.index.shape[2]) < near.count[0][:, None]
    others = np.where(columns, numbers[near.index[0]], 0)
    oxygens, hydrogens = (others == 8).sum(1), (others == 1).sum(1)
    is_oxygen = numbers == 8
    return bool(
        (hydrogens[is_oxygen] == 2).all()
        and (oxygens[~is_oxygen] == 1).all()
        and not oxygens[is_oxygen].any()
    )


def _vibrations(run: Run) -> dict[str, Any] | None:
    """Vibrational density of states [kinds, frequencies], normalised to one, and where it peaks.

    None for less than a whole block. The centres of bands are those of water molecules.
    """
    spectra = np.array([b["spectrum"] for b in run.blocks if b["spectrum"].size], float)
    if not spectra.any():
        return None
    every = run.interval
    times = every.block // every.velocity
    wave = np.fft.rfftfreq(times, every.velocity * run.plan.dt) / WAVENUMBER
    power = spectra.sum((0, 1))
    total = power.sum(0)
    density = power / (total.sum() * (wave[1] - wave[0]))
    centres = {}
    for name, (low, high) in _BANDS.items() if run.water else ():
        inside = (wave >= low) & (wave <= high)
        if inside.any() and total[inside].any():
            centres[name] = float((wave * total)[inside].sum() / total[inside].sum())
    return {
        "wavenumber": wave,
        "density": {SYMBOLS[z]: density[k] for k, z in enumerate(run.known)},
        "windows": int(spectra.shape[0] * spectra.shape[1]),
        "band_centres": centres,
    }
