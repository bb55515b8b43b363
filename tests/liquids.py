"""Small liquids for the tests of simulations, and how their runs are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.envs.core.physics.cell import replicate
from invariantzoo.envs.molecules.files import NetModel, Sample, Saved
from invariantzoo.envs.molecules.lennard_jones import LennardJonesForces
from invariantzoo.envs.molecules.linear import no_walls
from invariantzoo.envs.molecules.network import MessageNet
from invariantzoo.training.molecules import simulate as simulation
from invariantzoo.training.molecules.fit_linear import fit_losses
from invariantzoo.training.molecules.frames import Frames
from invariantzoo.training.molecules.rdf import distribution
from invariantzoo.training.molecules.simulate import Plan

SIGMA, EPSILON = 3.4, 0.0103  # argon: Angstrom, eV
PLAN = Plan(60.0, "nose-hoover", 100.0, 4.0, 100, 400.0, 0, 2, "float64")


def argon(seed: int, jitter: float) -> tuple[np.ndarray, np.ndarray]:
    """A shaken crystal of 32 atoms."""
    edge = 5.6
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * edge
    x, cell = replicate(basis, edge * np.eye(3), (2, 2, 2))
    return x + np.random.default_rng(seed).normal(0, jitter, x.shape), cell


def argon_model() -> Saved:
    """Pair losses of argon inferred from Lennard-Jones forces."""
    positions = np.array([argon(seed, 0.05 + 0.02 * (seed % 15))[0] for seed in range(40)])
    cell = argon(0, 0)[1]
    cells = np.repeat(cell[None], 40, 0)
    lj = LennardJonesForces(cells / SIGMA, 32, cutoff=5.59 / SIGMA)
    forces = lj(positions / SIGMA)[0] * EPSILON / SIGMA
    numbers = np.full(32, 18)
    split = np.where(np.arange(40) < 30, "train", "val")
    nothing = np.full(40, np.nan)
    frames = Frames(positions, forces, numbers, cells, nothing, split, None, "argon", "0" * 64)
    fit = fit_losses(frames, loss="pair", shared=True, pair_cutoff=5.59)
    about = {"digest": "0" * 64, "limits": {"18-18": {"nearest": 2.6, "bond": 0.0}}}
    sample = Sample(argon(1, 0.1)[0], cell, numbers, None)
    return Saved(fit.model, about, sample, distribution(positions, cell, numbers))


def argon_net(pairs: Saved) -> Saved:
    """The same with a small network, of random weights, in place of the pair losses' weights."""
    import torch

    centres = torch.linspace(2.5, 5.0, 6)
    net = MessageNet(
        (18,), cutoff=5.0, channels=3, hidden=8, centres=centres, widths=centres * 0.1, seed=0
    )
    weightless = tuple(tuple(0 * w for w in row) for row in pairs.model.pair_weights)
    walls = pairs.model._replace(pair_weights=weightless, walls=no_walls(1))
    return Saved(NetModel(net.double(), walls), {"digest": "1" * 64}, pairs.sample, None)


def go(saved: Saved, folder: Path, steps: int, plan: Plan = PLAN, **more: Any) -> int:
    """Simulate to so many steps."""
    threads = more.pop("threads", 1)
    plan = plan._replace(steps=steps)
    about = {"model": "argon", "digest": saved.about["digest"], "start": "model"}
    return simulation.simulate(folder, saved, saved.sample, plan, about, threads=threads, **more)


def contents(folder: Path) -> dict[str, Any]:
    """All that a run measured and wrote, but for pictures and what was asked for."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".npz":
            with np.load(path) as file:
                for name in file.files:
                    found[f"{path.name}/{name}"] = (file[name].shape, file[name].tobytes())
        elif path.suffix == ".xyz":
            found[path.name] = path.read_bytes()
    return found


def differences(first: Path, second: Path) -> list[str]:
    """Names of what two runs have not in common."""
    a, b = contents(first), contents(second)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
