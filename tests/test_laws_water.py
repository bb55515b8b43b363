"""Water: the linear optimum, the temperature, the counted structure, and data that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.observation import flatten
from invariantzoo.envs.core.physics.units import BOLTZMANN, KINETIC
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.water import descriptors, frames
from invariantzoo.envs.water.inference import InferenceState
from invariantzoo.envs.water.least_squares import by_species, optimum
from invariantzoo.training.molecules.rdf import distribution

SHIPPED = pytest.mark.parametrize("data", frames.SHIPPED)


def every_frame(data: str) -> InferenceState:
    """One world per frame of the data."""
    arrays = frames.read(data)
    n = len(arrays.position)
    x, f = torch.from_numpy(arrays.position), torch.from_numpy(arrays.force)
    oxygen = torch.from_numpy(arrays.oxygen).expand(n, -1)
    cell = torch.from_numpy(arrays.cell).expand(n, 3, 3)
    return InferenceState(x, f, oxygen, cell, torch.zeros_like(oxygen), torch.zeros_like(x))


def scored(system: Any, state: Any, policy: Any) -> dict[str, float]:
    seen = flatten(system, system.invariants(state))
    action = policy(seen, None)
    after = system.transition(state, action, None)
    found = system.metrics(state, action, after)
    return {name: float(value.mean()) for name, value in found.items()}


@SHIPPED
def test_what_ships_is_small(data: str) -> None:
    found = frames.read(data)
    assert len(found.position) == 20
    assert [len(frames.read(data, split).position) for split in ("train", "val")] == [15, 5]


@SHIPPED
def test_the_least_squares_policy_scores_the_known_optimum(data: str) -> None:
    system = invariantzoo.make_system("water-inference-v0", data=data)
    found = scored(system, every_frame(data), make_policy("least-squares", system))
    for name, value in system.references().items():
        assert found[name] == pytest.approx(value, rel=1e-6)
    assert 0.05 < found["unexplained"] < 0.1, "pair forces explain nine tenths"


def test_no_weights_near_the_optimum_are_better() -> None:
    system: Any = invariantzoo.make_system("water-inference-v0")
    state, best = every_frame("water16"), optimum("water16")
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(5):
            moved = (best.weights + size * rng.normal(size=best.weights.shape)).clip(-1, 1)
            action = by_species(moved, {"oxygen": state.oxygen}, Rng.single(0, 1))
            after = system.transition(state, action, None)
            assert float(after.error.mean()) > best.loss


def test_the_optimum_is_that_of_normal_equations() -> None:
    best = optimum("water16")
    assert np.abs(best.weights).max() < 1, "the limits of the action do not matter"
    data = frames.read("water16")
    design = np.concatenate(
        [
            descriptors.vectors(frames.pairs_of(data, frame))[0].numpy()
            for frame in range(len(data.position))
        ]
    )
    oxygen = np.tile(data.oxygen, len(data.position))
    off = 0.0
    for one in (1, 0):
        a = design[oxygen == one].transpose(0, 2, 1).reshape(-1, design.shape[1])
        b = data.force.reshape(-1, 3)[oxygen == one].reshape(-1)
        off += float(np.linalg.lstsq(a, b, rcond=None)[1].sum()) or float(
            ((a @ np.linalg.lstsq(a, b, rcond=None)[0] - b) ** 2).sum()
        )
    expected = off / len(oxygen) / frames.mean_square("water16")
    assert best.loss == pytest.approx(expected, rel=1e-6)


def test_forces_are_pairwise_and_of_the_shape_of_the_bumps() -> None:
    """Two waters' nearest pair: one unit weight gives gain times bump along the line."""
    data = frames.read("water16")
    pairs = frames.pairs_of(data, 0)
    i, j = 0, int(pairs.distance[0, 0].argmin())
    k = 2
    c, h, gain = descriptors.RADIAL[:, 1, k]
    r = float(pairs.distance[0, i, j])
    near = [
        (float(pairs.distance[0, i, m]), pairs.direction[0, i, m].numpy())
        for m in np.flatnonzero(data.oxygen == 0)
    ]
    expected = -sum(gain * max(0.0, 1 - ((d - c) / h) ** 2) ** 2 * n for d, n in near)
    assert r < 1.2
    force = descriptors.vectors(pairs)[0, i, 10 + k]
    np.testing.assert_allclose(force.numpy(), expected, atol=1e-12)


@SHIPPED
def test_the_structure_is_that_of_the_observables(data: str) -> None:
    found, numbers = frames.read(data), np.where(frames.read(data).oxygen == 1, 8, 1)
    fine = distribution(found.position, found.cell, numbers)  # by rising atomic number
    fine = np.stack([fine[1, 1], fine[1, 0], fine[0, 0]])
    bins = 38
    edge = 0.01 * np.arange(fine.shape[-1] + 1)
    shell = np.diff(edge**3)[: 10 * bins]
    counted = (fine[:, : 10 * bins] * shell).reshape(3, bins, 10).sum(-1)
    expected = counted / shell.reshape(bins, 10).sum(-1)
    np.testing.assert_allclose(frames.reference_rdf(data)[:, :bins], expected, atol=1e-6)


def test_the_temperature_is_kept_and_no_momentum_made() -> None:
    system: Any = invariantzoo.make_system("water-dynamics-v0", temperature=(200.0, 400.0))
    state = system.initial(Rng.single(0, 4), 4)
    action = 2 * Rng.single(1, 4).uniform(4, 48, 21) - 1
    for _ in range(3):
        state = system.transition(state, action, None)
        mass = descriptors.masses(state.oxygen).unsqueeze(-1)
        assert float((mass * state.velocity).sum(1).abs().max()) < 1e-12
        twice = KINETIC * (mass * state.velocity**2).sum((1, 2))
        kelvin = twice / (3 * 48 - 3) / BOLTZMANN
        torch.testing.assert_close(kelvin, state.kt[:, 0] / BOLTZMANN)
    assert float(kelvin.max() - kelvin.min()) > 1


def test_inferred_forces_hold_molecules_together_and_none_lets_them_go() -> None:
    system: Any = invariantzoo.make_system("water-dynamics-v0")
    found = {}
    for name in ("least-squares", "free"):
        policy, state = make_policy(name, system), system.initial(Rng.single(0, 4), 4)
        for _ in range(60):
            action = policy(flatten(system, system.invariants(state)), None)
            after = system.transition(state, action, None)
            metrics = system.metrics(state, action, after)
            state = after
        found[name] = {key: float(value.mean()) for key, value in metrics.items()}
    assert found["least-squares"]["broken"] == 0
    assert found["free"]["broken"] > 0.2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": "water46"}, "data='water46' is no file; did you mean 'water64'"),
        ({"split": "test"}, "split='test' must be one of those of the data: train, val"),
    ],
)
def test_bad_data_are_one_clear_line(given: dict[str, str], said: str) -> None:
    for id in ("water-inference-v0", "water-dynamics-v0"):
        with pytest.raises(ValueError, match=said) as caught:
            invariantzoo.make_system(id, **given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kernel", [False, True])
def test_one_molecule_has_a_structure(kernel: bool, tmp_path: Path) -> None:
    """It has no pair of oxygens, of which nothing is off."""
    x = np.array([[4.0, 4.0, 4.0], [4.76, 4.59, 4.0], [3.24, 4.59, 4.0]])[None]
    cell, numbers = 8.0 * np.eye(3), np.array([8, 1, 1])
    np.savez(tmp_path / "one.npz", positions=x, forces=x, numbers=numbers, cell=cell)
    system = invariantzoo.make_system(
        "water-dynamics-v0", data=str(tmp_path / "one.npz"), horizon=1
    )
    env = invariantzoo.VectorEnv(system, 1, kernel=kernel)
    env.reset()
    step = env.step(np.zeros((1, 3, 21), np.float32))
    assert 0 <= step.metrics["structure"][0] < 100


def test_files_are_checked(tmp_path: Path) -> None:
    good = {
        "positions": np.zeros((1, 3, 3)),
        "forces": np.zeros((1, 3, 3)),
        "numbers": np.array([8, 1, 1]),
        "cell": 8.0 * np.eye(3),
    }
    wrong = [
        ({"numbers": np.array([8, 1, 7])}, "numbers 8 and 1"),
        ({"cell": 7.0 * np.eye(3)}, "at least 7.8 Angstrom wide"),
        ({"cell": np.full((3, 3), np.nan)}, "at least 7.8 Angstrom wide"),
        ({"cell": 9.0 * np.diag([1.0, 1.0, 0.0])}, "at least 7.8 Angstrom wide"),
        ({"cell": np.ones((3, 3))}, "at least 7.8 Angstrom wide"),
        ({"forces": np.full((1, 3, 3), np.nan)}, "finite"),
        ({"forces": np.zeros((1, 2, 3))}, r"\(1, 3, 3\) and \(1, 2, 3\), of \(3,\) numbers"),
        ({"numbers": np.array([8, 1])}, r"of \(2,\) numbers; they must be \[frames, atoms, 3\]"),
        ({"positions": np.zeros((0, 3, 3)), "forces": np.zeros((0, 3, 3))}, "they must be"),
    ]
    for k, (change, said) in enumerate(wrong):
        path = tmp_path / f"{k}.npz"
        arrays: dict[str, Any] = good | change
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=said):
            frames.read(str(path))
    np.savez(tmp_path / "open.npz", **(good | {"cell": np.zeros((3, 3))}))
    frames.read(str(tmp_path / "open.npz"))  # forces can be inferred there
    with pytest.raises(ValueError, match="in open space: a liquid has a cell"):
        invariantzoo.make_system("water-dynamics-v0", data=str(tmp_path / "open.npz"))
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    with pytest.raises(ValueError, match="no such data"):
        frames.read(str(text))
