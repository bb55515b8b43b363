"""Active learning against a reference that is known exactly."""

from __future__ import annotations

import numpy as np

from invariantzoo.envs.core.physics.cell import replicate
from invariantzoo.envs.molecules.lennard_jones import LennardJonesForces
from invariantzoo.training.molecules.active import asked, explore, fit_ensemble, spread_of
from invariantzoo.training.molecules.errors import force_errors
from invariantzoo.training.molecules.frames import Frames, chosen

SIGMA, EPSILON = 3.4, 0.0103  # argon: Angstrom, eV
EDGE = 5.6
SETTINGS = {"loss": "pair", "shared": True, "pair_cutoff": 5.59, "ridge": 1e-6}


def test_asking_where_losses_disagree_helps() -> None:
    """From cold frames alone the losses do not know what hot atoms meet; they say so, and learn."""
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * EDGE
    crystal, cell = replicate(basis, EDGE * np.eye(3), (2, 2, 2))
    lj = LennardJonesForces(cell[None] / SIGMA, 32, cutoff=5.59 / SIGMA)

    def reference(x: np.ndarray) -> tuple[np.ndarray, float]:
        force, energy = lj(x[None] / SIGMA)
        return force[0] * EPSILON / SIGMA, float(energy.sum() * EPSILON)

    def shaken(seed: int, count: int, size: float) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return crystal + rng.normal(0, size, (count, 32, 3))

    hot = shaken(1, 10, 0.25)
    answers = [reference(x) for x in hot]
    frames = Frames(
        hot,
        np.array([f for f, _ in answers]),
        np.full(32, 18),
        np.repeat(cell[None], 10, 0),
        np.array([e for _, e in answers]),
        np.full(10, "val", dtype="<U5"),
        None,
        "argon",
        "",
    )
    frames = asked(frames, shaken(2, 8, 0.05), reference)
    assert (frames.split == "train").sum() == 8
    errors, found = [], 0
    for number in range(3):
        models = fit_ensemble(frames, size=3, seed=number, **SETTINGS)
        errors.append(force_errors(models[0], chosen(frames, "val"))["relative"])
        known = frames.positions[frames.split == "train"][-1]
        spread = spread_of(models, cell, frames.numbers)
        if number == 0:
            assert spread(hot[0]).max() > 5 * spread(known).max()
        seen = explore(
            models,
            crystal,
            frames,
            temperature=300.0,
            limit=2 * float(spread(known).max()),
            ruin=10.0,
            steps=2000,
            keep=6,
            seed=number,
            dt=4.0,
        )
        assert len(seen.uncertain) <= 6
        assert (np.diff(seen.spread) <= 0).all()
        found += len(seen.uncertain)
        frames = asked(frames, seen.uncertain, reference)
    assert found > 0
    assert errors[-1] < 0.5 * errors[0]
