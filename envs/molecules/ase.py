"""Inferred losses as a calculator of ASE, the Atomic Simulation Environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from .files import load_model
from .forces import Forces, bonds_of, cutoff_of, make_forces


class LossCalculator(Calculator):
    """`atoms.calc = LossCalculator("water-angular")`: energies in eV and forces in eV/Angstrom.

    model: a model file, or the name of a model that ships.  owner [hydrogens]: the atoms that
    hydrogens are bonded to, for the wall on bonds; None leaves it out.
    Cells must be at least two cutoffs wide.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces"]  # noqa: RUF012

    def __init__(self, model: str | Path, *, owner: np.ndarray | None = None) -> None:
        super().__init__()
        self.model = load_model(model).model
        self._owner = owner
        self._forces: Forces | None = None
        self._key: tuple[bytes, bytes] | None = None

    @property
    def cutoff(self) -> float:
        """Angstrom."""
        return cutoff_of(self.model)

    def calculate(
        self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        held: Any = self.atoms
        numbers, cell = held.numbers, np.array(held.cell, np.float64)
        if not (held.pbc.all() or not held.pbc.any()):
            raise ValueError(f"pbc={held.pbc.tolist()} must be all True or all False")
        cell = cell if held.pbc.all() else np.zeros((3, 3))
        if held.pbc.all() and abs(np.linalg.det(cell)) < 1e-9:
            raise ValueError(f"pbc is True but the cell {cell.tolist()} spans no volume")
        if not np.isfinite(held.positions).all():
            raise ValueError("positions are not finite")
        key = numbers.tobytes(), cell.tobytes()
        if key != self._key or self._forces is None:
            bonds = bonds_of(numbers, self._owner)
            self._forces = make_forces(self.model, cell[None], numbers, bonds=bonds)
            self._key = key
        force, loss = self._forces(np.array(held.positions, np.float64)[None])
        self.results = {
            "energy": float(loss.sum()),
            "free_energy": float(loss.sum()),
            "energies": loss[0],
            "forces": force[0],
        }
