"""A model file as a system: the same motion as a simulation, invariant, in every interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_invariance import check_symmetry, states_and_symmetries

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core import registry
from invariantzoo.envs.core.observation import is_discrete
from invariantzoo.envs.core.physics.units import ATOMIC_WEIGHTS
from invariantzoo.envs.core.rng import INITIAL, TRANSITION, Rng
from invariantzoo.envs.molecules.files import Sample, load_model, save_model
from invariantzoo.envs.molecules.forces import make_forces
from invariantzoo.envs.molecules.molecular_dynamics import advance, start_md
from invariantzoo.envs.molecules.system import LossSystem


def rng(worlds: int, clock: int, purpose: int) -> Rng:
    index = torch.arange(worlds)
    return Rng(3, index, torch.full_like(index, clock), purpose)


def moved(system: LossSystem, steps: int, action: tuple[float, float]) -> list:
    state = system.initial(rng(2, 0, INITIAL), 2)
    states = [state]
    for t in range(steps):
        acts = torch.tensor(action, dtype=torch.float64).expand(2, system.n_agents, 2)
        state = system.transition(state, acts, rng(2, t + 1, TRANSITION))
        states.append(state)
    return states


def test_without_action_it_is_the_simulation() -> None:
    system = LossSystem("water-angular")
    first, *_, last = moved(system, 20, (0.0, 0.0))
    saved = load_model("water-angular")
    assert saved.sample is not None
    cells = np.repeat(saved.sample.cell[None], 2, 0)
    forces = make_forces(saved.model, cells, saved.sample.numbers)
    bodies = start_md(first.position.numpy(), first.velocity.numpy(), forces)
    mass = np.array(ATOMIC_WEIGHTS)[saved.sample.numbers]
    advance(bodies, forces, mass, 0.5, 20, freedom=573, seed=0)
    assert np.abs(bodies.position - last.position.numpy()).max() < 1e-10
    assert np.abs(bodies.velocity - last.velocity.numpy()).max() < 1e-10
    energies = [
        system.metrics(first, first.per_atom_energy, one)["energy"] for one in (first, last)
    ]
    assert torch.allclose(*energies, rtol=0, atol=1e-3)


def test_friction_cools_and_driving_heats() -> None:
    system = LossSystem("water-pair", temperature=300.0)

    def after(push: float) -> float:
        last = moved(system, 10, (0.0, push))[-1]
        return float(system.metrics(last, last.per_atom_energy, last)["temperature"].mean())

    assert after(-1.0) < 0.95 * after(0.0) < 0.9 * after(1.0)


def test_observers_agree() -> None:
    names = set()
    for state, symmetry in states_and_symmetries(LossSystem("water-pair", dt=0.1)):
        names.add(symmetry.name)
        check_symmetry(LossSystem("water-pair", dt=0.1), state, symmetry)
    assert names == {"relabel", "translation", "rotation or reflection"}


def test_an_id_of_ones_own_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file, registered, goes through the checkers of every interface.

    Its frame holds the first eight waters alone, in the cell of all 64.
    """
    saved = load_model("water-pair")
    assert saved.sample is not None
    assert saved.sample.owner is not None
    few = np.isin(np.arange(192), np.flatnonzero(saved.sample.numbers == 8)[:8])
    hydrogens = np.flatnonzero(saved.sample.numbers == 1)
    ours = few[saved.sample.owner]
    few[hydrogens[ours]] = True
    place = np.cumsum(few) - 1
    sample = Sample(
        saved.sample.position[few],
        saved.sample.cell,
        saved.sample.numbers[few],
        place[saved.sample.owner[ours]],
    )
    path = tmp_path / "mine.npz"
    save_model(path, saved.model, saved.about, sample=sample)
    invariantzoo.register("mine-liquid-v0", LossSystem, parameters={"model": str(path)})
    try:
        assert main(["check", "mine-liquid-v0", "--steps", "12"]) == 0, capsys.readouterr().out
        system = invariantzoo.make_system("mine-liquid-v0")
        assert not is_discrete(system)
        assert system.n_agents == 24
        assert system.scene(system.initial(rng(1, 0, INITIAL), 1)) is not None
    finally:
        registry._SPECS.pop("mine-liquid-v0")


def test_networks_are_systems_too() -> None:
    first, last = moved(LossSystem("water-best"), 1, (0.0, 0.0))
    assert torch.isfinite(last.force).all()
    assert not torch.equal(first.position, last.position)


def test_bad_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="water-angular"):
        LossSystem("water-angula")
    saved = load_model("water-pair")
    path = tmp_path / "bare.npz"
    save_model(path, saved.model, saved.about)
    with pytest.raises(ValueError, match="must hold a frame"):
        LossSystem(str(path))
    with pytest.raises(ValueError, match="dt=-1"):
        LossSystem(dt=-1)
