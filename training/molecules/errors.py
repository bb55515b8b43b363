"""How well a model's forces meet those of reference data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...envs.core import renamed
from ...envs.molecules.files import NetModel
from ...envs.molecules.forces import cutoff_of, make_forces
from ...envs.molecules.linear import LossModel
from ...envs.molecules.network import blocks
from .frames import Frames, symbols, widened


def predicted(model: LossModel | NetModel, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Forces [frames, atoms, 3] and losses summed over the agents [frames]."""
    if isinstance(model, NetModel):
        return _predicted_by_net(model, frames)
    position, cell, numbers = widened(frames, cutoff_of(model))
    atoms = len(frames.numbers)
    predicted_forces, energy = np.empty_like(frames.forces), np.empty(len(position))
    forces, last = None, None
    for k, x in enumerate(position):
        if forces is None or last is None or not np.array_equal(cell[k], last):
            forces, last = make_forces(model, cell[k : k + 1], numbers), cell[k]
        forces.forget()
        force, loss = forces(x[None])
        predicted_forces[k], energy[k] = force[0, :atoms], loss[0, :atoms].sum()
    return predicted_forces, energy


def _predicted_by_net(model: NetModel, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """A net takes cells of any size as they are; only its walls are repeated."""
    force, energy = predicted(model.walls, frames)
    net = model.net.double()
    for k, x in enumerate(frames.positions):
        position = torch.from_numpy(np.array(x, float)).requires_grad_()
        graph = blocks(x, frames.cell[k], frames.numbers, net.numbers, net.cutoff)
        total = net(position, graph).sum()
        force[k] -= torch.autograd.grad(total, position)[0].numpy()
        energy[k] += float(total.detach()) + model.constant * len(frames.numbers)
    return force, energy


def force_errors(model: LossModel | NetModel, frames: Frames) -> dict[str, Any]:
    """Root mean square errors in meV/Angstrom over all components and by species.

    relative: over the rms force; correlation: of components; heat: eV/Angstrom, rms of the net
    force of a frame, which is zero for shared losses.  energy_mev_per_atom: spread of energy
    errors, one constant removed, where the data have energies.
    """
    forces, energy = predicted(model, frames)
    error = forces - frames.forces
    parts = {"all": np.ones(len(frames.numbers), bool)}
    for number in sorted(set(map(int, frames.numbers)), reverse=True):
        parts[symbols(np.array([number]))[0]] = frames.numbers == number
    spread = (energy - frames.energy)[np.isfinite(frames.energy)]
    return {
        "frames": len(frames.positions),
        "rmse_mev_per_angstrom": {
            name: 1e3 * float(np.sqrt((error[:, which] ** 2).mean()))
            for name, which in parts.items()
        },
        "relative": float(np.sqrt((error**2).mean() / (frames.forces**2).mean())),
        "correlation": float(np.corrcoef(forces.ravel(), frames.forces.ravel())[0, 1]),
        "net_force": float(np.sqrt((forces.sum(1) ** 2).mean())),
        "energy_mev_per_atom": (
            1e3 * float(spread.std()) / len(frames.numbers) if len(spread) > 1 else None
        ),
    }


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
