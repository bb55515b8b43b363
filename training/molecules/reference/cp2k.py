"""Reference trajectories of water made by other programs: CP2K, or tblite through ASE.

A run is a folder. CP2K's holds its deck, the start and what CP2K writes; tblite's holds state.npz.
Both end with frames.npz, which `read_frames` takes: positions, forces, numbers, cell, energy, step.
A folder that is there goes on where it stopped, with tblite bit for bit; one process at a time
works in it. Units: Angstrom, fs, eV, K.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....envs.core.files import LOCK, claim, write_atomically
from ....envs.core.memory import require_memory
from ....envs.core.physics.units import ATOMIC_WEIGHTS, BOLTZMANN, SYMBOLS
from ....envs.core.validation import require_choice, require_count, require_number
from ..measurements import read_arrays, write_arrays

ENGINES = ("cp2k", "tblite")
METHODS = ("xtb", "dft")
PROJECT = "water"
_PROGRAMS = ("cp2k.psmp", "cp2k.ssmp", "cp2k.popt", "cp2k.sopt", "cp2k")
_VOLUME = 29.96  # Angstrom^3 of a molecule at 0.997 g/cm^3
_SITES = {
    "sc": ((0.5, 0.5, 0.5),),
    "bcc": ((0.25, 0.25, 0.25), (0.75, 0.75, 0.75)),
    "fcc": ((0.25, 0.25, 0.25), (0.25, 0.75, 0.75), (0.75, 0.25, 0.75), (0.75, 0.75, 0.25)),
}
_BOND, _ANGLE = 0.97, math.radians(104.5)
_BLOCK = 20  # steps of tblite between two saves; each begins with a fresh wave function
_WATER = 500  # bytes of memory that a molecule takes at least

XTB = """    &QS
      METHOD xTB
      &XTB
        DO_EWALD T
      &END XTB
    &END QS
    &SCF
      SCF_GUESS MOPAC
      EPS_SCF 1.0E-6
      MAX_SCF 50
      &OT
        MINIMIZER DIIS
        PRECONDITIONER FULL_SINGLE_INVERSE
      &END OT
      &OUTER_SCF
        MAX_SCF 10
        EPS_SCF 1.0E-6
      &END OUTER_SCF
      &PRINT
        &RESTART OFF
        &END RESTART
      &END PRINT
    &END SCF
"""
DFT = """    BASIS_SET_FILE_NAME GTH_BASIS_SETS
    POTENTIAL_FILE_NAME GTH_POTENTIALS
    &MGRID
      CUTOFF 280
      REL_CUTOFF 40
    &END MGRID
    &QS
      EPS_DEFAULT 1.0E-10
      EXTRAPOLATION ASPC
      EXTRAPOLATION_ORDER 3
    &END QS
    &SCF
      SCF_GUESS ATOMIC
      EPS_SCF 1.0E-6
      MAX_SCF 30
      &OT
        MINIMIZER DIIS
        PRECONDITIONER FULL_SINGLE_INVERSE
      &END OT
      &OUTER_SCF
        MAX_SCF 10
        EPS_SCF 1.0E-6
      &END OUTER_SCF
      &PRINT
        &RESTART OFF
        &END RESTART
      &END PRINT
    &END SCF
    &XC
      &XC_FUNCTIONAL
        &PBE
          PARAMETRIZATION REVPBE
        &END PBE
      &END XC_FUNCTIONAL
      &VDW_POTENTIAL
        POTENTIAL_TYPE PAIR_POTENTIAL
        &PAIR_POTENTIAL
          TYPE DFTD3
          PARAMETER_FILE_NAME dftd3.dat
          REFERENCE_FUNCTIONAL revPBE
          R_CUTOFF [angstrom] 12
        &END PAIR_POTENTIAL
      &END VDW_POTENTIAL
    &END XC
"""
_KINDS = """    &KIND O
      BASIS_SET DZVP-GTH
      POTENTIAL GTH-PBE-q6
    &END KIND
    &KIND H
      BASIS_SET DZVP-GTH
      POTENTIAL GTH-PBE-q1
    &END KIND
"""


@dataclass(frozen=True)
class ReferenceConfig:
    """What is made.

    method: "xtb" (GFN1-xTB) or "dft" (revPBE-D3, DZVP-GTH; CP2K alone).  waters: molecules.
    temperature: K, by stochastic velocity rescaling.  dt: fs.  every: steps between frames.
    warm_up: steps at the start whose frames are left out.
    """

    engine: str
    method: str = "xtb"
    waters: int = 16
    temperature: float = 330.0
    dt: float = 0.5
    every: int = 10
    warm_up: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("engine", self.engine, ENGINES)
        require_choice("method", self.method, METHODS)
        require_count("waters", self.waters)
        require_count("every", self.every)
        require_count("warm_up", self.warm_up, 0)
        require_number("temperature", self.temperature, 0, strict=True)
        require_number("dt", self.dt, 0, strict=True)
        if self.engine == "tblite" and self.method != "xtb":
            raise ValueError(f"method={self.method!r} must be xtb with engine='tblite'")


def make_reference(
    config: ReferenceConfig, out: Path, steps: int, told: Callable[[str], None] = print
) -> Path:
    """Run until `steps` steps are made and return the file of frames.

    Raises ModuleNotFoundError if the engine is not installed, ValueError for a folder that holds a
    run of another kind or is held by another process, and OSError if the program fails.
    """
    require_count("steps", steps)
    if steps < config.warm_up + config.every:
        raise ValueError(f"steps={steps} must be at least warm_up + every")
    run = {"cp2k": _run_cp2k, "tblite": _run_tblite}[config.engine]
    ready = {"cp2k": _cp2k_program, "tblite": _tblite_calculator}[config.engine]
    require_memory(f"waters={config.waters}", _WATER * config.waters)
    ready()
    with claim(out):
        _settle(config, out)
        run(config, out, steps, told)
    return out / "frames.npz"


def lattice_start(waters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Molecules in random directions on a cubic lattice: positions [3 waters, 3], cell [3, 3].

    Of the simple, body- and face-centred lattices the one with the fewest empty sites is taken.
    """
    rng = np.random.default_rng(seed)
    side = (_VOLUME * waters) ** (1 / 3)
    counts = {name: math.ceil((waters / len(s)) ** (1 / 3) - 1e-9) for name, s in _SITES.items()}
    name = min(_SITES, key=lambda n: len(_SITES[n]) * counts[n] ** 3)
    k = counts[name]
    corners = np.stack(np.meshgrid(*[np.arange(k)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    sites = ((corners + np.array(_SITES[name])).reshape(-1, 3) / k * side)[:waters]
    half = 0.5 * _ANGLE
    along, across = _BOND * math.cos(half), _BOND * math.sin(half)
    bonds = np.array([[across, along, 0.0], [-across, along, 0.0]])
    atoms = []
    for site in sites:
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        atoms += [site, *(site + bonds @ turn)]
    return np.array(atoms), np.eye(3) * side


def deck(config: ReferenceConfig, side: float, steps: int, *, restart: bool = False) -> str:
    """The input of CP2K for `steps` steps; with `restart` it goes on from its restart file."""
    force = DFT if config.method == "dft" else XTB
    kinds = _KINDS if config.method == "dft" else ""
    onward = f"&EXT_RESTART\n  RESTART_FILE_NAME {PROJECT}-1.restart\n&END EXT_RESTART\n"
    each = f"&EACH\n        MD {config.every}\n      &END EACH"
    return f"""{onward if restart else ""}&GLOBAL
  PROJECT {PROJECT}
  RUN_TYPE MD
  PRINT_LEVEL LOW
  SEED {config.seed % (2**31 - 2) + 1}
&END GLOBAL
&MOTION
  &MD
    ENSEMBLE NVT
    STEPS {steps}
    TIMESTEP {config.dt}
    TEMPERATURE {config.temperature}
    &THERMOSTAT
      TYPE CSVR
      &CSVR
        TIMECON 50
      &END CSVR
    &END THERMOSTAT
  &END MD
  &PRINT
    &TRAJECTORY
      {each}
    &END TRAJECTORY
    &FORCES
      {each}
    &END FORCES
    &RESTART
      &EACH
        MD {config.every}
      &END EACH
      BACKUP_COPIES 1
    &END RESTART
    &RESTART_HISTORY OFF
    &END RESTART_HISTORY
  &END PRINT
&END MOTION
&FORCE_EVAL
  METHOD QUICKSTEP
  &DFT
{force}  &END DFT
  &SUBSYS
    &CELL
      ABC {side:.6f} {side:.6f} {side:.6f}
    &END CELL
    &TOPOLOGY
      COORD_FILE_FORMAT XYZ
      COORD_FILE_NAME start.xyz
    &END TOPOLOGY
{kinds}  &END SUBSYS
&END FORCE_EVAL
"""


def _settle(config: ReferenceConfig, out: Path) -> None:
    """See that the folder is empty, or belongs to this config."""
    path = out / "config.json"
    if not path.exists():
        if any(other.name != LOCK for other in out.iterdir()):
            raise ValueError(f"{out} is not empty and holds no reference run; choose another --out")
        _write(path, json.dumps(asdict(config), indent=1) + "\n")
        return
    try:
        was = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(was, dict) or was.get("engine") not in ENGINES:
        raise ValueError(f"{out} holds no reference run; choose another --out")
    for name, value in asdict(config).items():
        if was.get(name) != value:
            raise ValueError(f"{out} holds a run with {name}={was.get(name)!r}, not {value!r}")


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _cp2k_program() -> str:
    for name in _PROGRAMS:
        program = shutil.which(name)
        if program:
            return program
    raise ModuleNotFoundError(
        "CP2K is not installed (no cp2k.psmp on the path): on Debian and Ubuntu, apt install cp2k"
    )


def _tblite_calculator() -> Any:
    try:
        from tblite.ase import TBLite
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'tblite is not installed: pip install "invariantzoo[molecules]"'
        ) from None
    return TBLite(method="GFN1-xTB", verbosity=0)


def _numbers(waters: int) -> np.ndarray:
    return np.tile([8, 1, 1], waters)


def _run_cp2k(config: ReferenceConfig, out: Path, steps: int, told: Callable[[str], None]) -> None:
    from ..frames import read_frames

    program = _cp2k_program()
    position, cell = lattice_start(config.waters, config.seed)
    start = out / "start.xyz"
    if not start.exists():
        rows = zip(_numbers(config.waters), position, strict=True)
        lines = [f"{SYMBOLS[n]} {x:.8f} {y:.8f} {z:.8f}" for n, (x, y, z) in rows]
        _write(start, f"{len(lines)}\nmolecules on a lattice\n" + "\n".join(lines) + "\n")
    made = _cp2k_steps(out)
    if made < steps:
        told(f"{program}: steps {made} to {steps} in {out}")
        text = deck(config, float(cell[0, 0]), steps - made, restart=made > 0)
        _write(out / f"{PROJECT}.inp", text)
        command = [program, "-i", f"{PROJECT}.inp", "-o", f"{PROJECT}.out"]
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        done = subprocess.run(
            command, cwd=out, env={**os.environ, **threads}, capture_output=True, text=True
        )
        if done.returncode or _cp2k_steps(out) < steps:
            raise OSError(
                f"{program} stopped at step {_cp2k_steps(out)} of {steps} "
                f"(exit code {done.returncode}): see {out / PROJECT}.out"
            )
    frames, step = read_frames(out), _cp2k_frame_steps(out)
    if len(step) != len(frames.positions):
        raise ValueError(f"{out}: {len(frames.positions)} frames, but steps of {len(step)}")
    _save(config, out, frames.positions, frames.forces, frames.cell[0], frames.energy, step)


def _cp2k_frame_steps(out: Path) -> np.ndarray:
    """The step of every frame that `read_frames` finds: frames may be torn, or missing."""
    from .. import cp2k_run

    position_file, force_file = (out / f"{PROJECT}-{what}-1.xyz" for what in ("pos", "frc"))
    both = cp2k_run._read_blocks(position_file), cp2k_run._read_blocks(force_file)
    pairs, _ = cp2k_run._paired(*both, position_file, force_file)
    return np.array([block.step for block, _ in pairs])


def _cp2k_steps(out: Path) -> int:
    """Steps up to CP2K's last whole restart file, from where it goes on; 0 if there is none.

    A file that CP2K was writing when it was killed is replaced by the one before.
    """
    path = out / f"{PROJECT}-1.restart"
    backup = path.with_name(path.name + ".bak-1")
    if not path.exists() and not backup.exists():
        return 0
    if not _is_whole(path):
        if not _is_whole(backup):
            raise ValueError(f"{path} is torn, and there is none before it: begin another run")
        os.replace(backup, path)
    start_step = re.search(r"STEP_START_VAL\s+(\d+)", path.read_text(encoding="utf-8"))
    return int(start_step[1]) if start_step else 0


def _is_whole(path: Path) -> bool:
    """Whether a restart file ends all of its sections."""
    if not path.exists():
        return False
    text = path.read_text(encoding="utf-8")
    opened = len(re.findall(r"^\s*&(?!END\b)\w", text, re.M))
    return bool(text.strip()) and opened == len(re.findall(r"^\s*&END\b", text, re.M))


def _run_tblite(
    config: ReferenceConfig, out: Path, steps: int, told: Callable[[str], None]
) -> None:
    from ase import Atoms

    from ....envs.molecules.molecular_dynamics import (
        MDState,
        Thermostat,
        advance,
        maxwell,
        start_md,
    )

    numbers = _numbers(config.waters)
    position, cell = lattice_start(config.waters, config.seed)
    atoms = Atoms(numbers=numbers, positions=position, cell=cell, pbc=True)
    atoms.calc = _tblite_calculator()

    def forces(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        atoms.positions = x[0]
        share = atoms.get_potential_energy() / len(numbers)
        return atoms.get_forces()[None], np.full((1, len(numbers)), share)

    mass = np.array([ATOMIC_WEIGHTS[n] for n in numbers])
    kt = BOLTZMANN * config.temperature
    path = out / "state.npz"
    names = ("positions", "forces", "energy")
    recorded: dict[str, list[Any]] = {name: [] for name in names}
    if path.exists():
        state = read_arrays(path)
        missing = {*MDState._fields, *(f"frame_{name}" for name in names)} - set(state)
        if missing:
            raise ValueError(f"{path} has no {min(missing)!r}: not the state of a reference run")
        bodies = MDState(*(state[name] for name in MDState._fields))
        recorded = {name: list(state[f"frame_{name}"]) for name in names}
    else:
        velocity = maxwell(np.random.default_rng(config.seed), 1, mass, kt)
        bodies = start_md(position[None], velocity, forces)
    made = int(bodies.clock[0])
    told(f"tblite: steps {made} to {steps} in {out}")
    thermostat = Thermostat("csvr", np.array([kt]), 50.0)
    while made < steps:
        if made % _BLOCK == 0:
            # What a wave function begins from decides the last bits: here, in any number of goes.
            atoms.calc = _tblite_calculator()
        ahead = min(config.every - made % config.every, _BLOCK - made % _BLOCK, steps - made)
        advance(
            bodies,
            forces,
            mass,
            config.dt,
            ahead,
            thermostat=thermostat,
            freedom=3 * len(numbers) - 3,
            seed=config.seed,
        )
        made = int(bodies.clock[0])
        if made % config.every == 0:
            now = (bodies.position[0], bodies.force[0], bodies.loss[0].sum())
            for name, value in zip(names, now, strict=True):
                recorded[name].append(np.array(value))
        if made % _BLOCK == 0:
            frames = {f"frame_{name}": np.array(value) for name, value in recorded.items()}
            write_arrays(path, {**bodies._asdict(), **frames})
    arrays = [np.array(recorded[name]) for name in names]
    step = (np.arange(len(arrays[0])) + 1) * config.every
    _save(config, out, arrays[0], arrays[1], cell, arrays[2], step)


def _save(
    config: ReferenceConfig,
    out: Path,
    positions: np.ndarray,
    forces: np.ndarray,
    cell: np.ndarray,
    energy: np.ndarray,
    step: np.ndarray,
) -> None:
    """Write frames.npz, of the steps after the warm-up."""
    keep = step >= config.warm_up
    write_arrays(
        out / "frames.npz",
        {
            "positions": positions[keep].astype(np.float32),
            "forces": forces[keep].astype(np.float32),
            "energy": energy[keep],
            "cell": cell,
            "numbers": _numbers(config.waters).astype(np.int8),
            "step": step[keep],
        },
    )
