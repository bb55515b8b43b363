"""Two waters in four frames, and the files that programs write of them, for tests of readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.envs.core.physics.units import HARTREE, HARTREE_PER_BOHR

DATA = dict(np.load(Path(__file__).parent / "data" / "water2.npz"))
POSITIONS = DATA["positions"].astype(float).round(8)
FORCES = DATA["forces"].astype(float).round(8)
SYMBOLS = ["O", "O", "H", "H", "H", "H"]
SIDE = 7.826
CELL = SIDE * np.eye(3)
ENERGIES = -925.0 - 0.25 * np.arange(4)

LATTICE = f'Lattice="{SIDE} 0 0 0 {SIDE} 0 0 0 {SIDE}"'
PROPERTIES = "Properties=species:S:1:pos:R:3:forces:R:3"


def row(k: int, atom: int, label: str | None = None) -> str:
    """Species, position and force of an atom."""
    numbers = [*POSITIONS[k, atom], *FORCES[k, atom]]
    return f"{label or SYMBOLS[atom]} " + " ".join(f"{v:.8f}" for v in numbers)


def frame(comment: str, k: int = 0) -> str:
    """A frame of extended XYZ; %E in the comment is replaced by the energy."""
    rows = "".join(row(k, atom) + "\n" for atom in range(6))
    return f"6\n{comment.replace('%E', str(ENERGIES[k]))}\n{rows}"


def extended(comment: str) -> str:
    """A file of four frames with one comment."""
    return "".join(frame(comment, k) for k in range(4))


def cp2k_block(values: np.ndarray, title: str, symbols: list[str] | None = None) -> str:
    """A frame as CP2K writes it."""
    rows = zip(symbols or SYMBOLS, values, strict=True)
    lines = [f"  {s} " + "".join(f"{v:20.10f}" for v in x) for s, x in rows]
    return "\n".join([f"{len(lines):8d}", title, *lines, ""])


def title(step: int, energy: float | None = None) -> str:
    """The title of a frame of molecular dynamics."""
    energy = ENERGIES[step % 4] / HARTREE if energy is None else energy
    return f" i = {step:8d}, time = {0.5 * step:12.3f}, E = {energy:20.10f}"


def pos(k: int, head: str | None = None, scale: float = 1.0) -> str:
    """Positions of a frame."""
    return cp2k_block(POSITIONS[k] * scale, title(k) if head is None else head)


def frc(k: int, head: str | None = None, scale: float = 1 / HARTREE_PER_BOHR) -> str:
    """Forces of a frame."""
    return cp2k_block(FORCES[k] * scale, title(k) if head is None else head)


def deck(cell: str, before: str = "", motion: str = "") -> str:
    """An input with what stands in its &CELL."""
    lines = "\n".join(f"      {line}" for line in cell.split("\n"))
    return (
        f"{before}\n{motion}\n&FORCE_EVAL\n  METHOD FIST\n  &SUBSYS\n    &CELL\n{lines}\n"
        "    &END CELL\n    &COORD\n      O 0 0 0\n    &END\n  &END SUBSYS\n&END FORCE_EVAL\n"
    )


def run(folder: Path, files: dict[str, Any] | None = None) -> Path:
    """The folder of a CP2K run of four frames; files: others in it, None for one left out."""
    folder.mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {
        "w.inp": deck(f"ABC {SIDE} {SIDE} {SIDE}"),
        "w-pos-1.xyz": "".join(pos(k) for k in range(4)),
        "w-frc-1.xyz": "".join(frc(k) for k in range(4)),
    }
    for name, text in (usual | (files or {})).items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder
