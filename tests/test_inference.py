"""Losses inferred from forces: an exact fit, files, commands, and refusals of bad data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from numba import njit

from invariantzoo.__main__ import main
from invariantzoo.commands.fit import sample_of
from invariantzoo.envs.core.physics.kernels.simd import sum_products, sum_rows
from invariantzoo.envs.core.physics.units import HARTREE, HARTREE_PER_BOHR
from invariantzoo.envs.molecules.files import SHIPPED, NetModel, load_model, save_model
from invariantzoo.envs.molecules.forces import bonds_of, forces_of_frame, make_forces
from invariantzoo.envs.molecules.linear import LossModel, agent_losses, no_walls
from invariantzoo.training.molecules import fit_linear as fitting
from invariantzoo.training.molecules.errors import force_errors
from invariantzoo.training.molecules.fit_linear import (
    Columns,
    fit_losses,
    make_radial,
    sampled_ranges,
    walls_alone,
)
from invariantzoo.training.molecules.frames import Frames, chosen, owners, read_frames

CP2K = Path(__file__).parent / "data" / "cp2k"
SHEARED = np.array([[9.4, 0.0, 0.0], [1.5, 9.2, 0.0], [-1.0, 0.5, 9.6]])


def waters(seed: int, frames: int, cell: np.ndarray, molecules: int = 8) -> np.ndarray:
    """Molecules on a jittered grid, turned at random: positions [frames, 3 molecules, 3]."""
    rng = np.random.default_rng(seed)
    side = round(molecules ** (1 / 3))
    grid = (np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3) + 0.5) / side
    found = []
    for _ in range(frames):
        atoms = []
        for at in grid @ cell + rng.normal(0, 0.15, (molecules, 3)):
            turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            bonds = np.array([[0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]]) @ turn
            atoms += [at, *(at + bonds + rng.normal(0, 0.03, (2, 3)))]
        found.append(atoms)
    return np.array(found)


def frames_with(force: np.ndarray, x: np.ndarray, cell: np.ndarray) -> Frames:
    count, n = x.shape[:2]
    split = np.where(np.arange(count) < 0.8 * count, "train", "val")
    numbers = np.tile([8, 1, 1], n // 3)
    cells = np.broadcast_to(cell, (count, 3, 3)).copy()
    return Frames(x, force, numbers, cells, np.full(count, np.nan), split, None, "test", "0")


def truth(x: np.ndarray, cell: np.ndarray, order: int, shared: bool) -> tuple[LossModel, Frames]:
    """Frames whose forces come from random losses of the form that is fitted."""
    frames = frames_with(np.zeros_like(x), x, cell)
    ranges = sampled_ranges(chosen(frames, "train"), (1, 8), 4.5)
    pair = make_radial(ranges, 4.5, fitting.PAIR, 0.75, 0.4)
    far = fitting.QUADRATIC if order == 0 else fitting.ANGULAR
    channels = make_radial(ranges, 4.5 if order == 0 else 4.0, far, 0.75, 0.4)
    work = Columns(pair, channels, order, shared, (1, 8))
    weights = np.random.default_rng(3).normal(0, 0.05, work.layout.size)
    model = work.model(weights, no_walls(2))
    found = [forces_of_frame(model, one, cell, frames.numbers)[0] for one in x]
    return model, frames._replace(forces=np.array(found))


@pytest.mark.parametrize(
    ("loss", "shared"), [("pair", False), ("pair", True), ("quadratic", True), ("angular", False)]
)
def test_losses_of_the_fitted_form_are_found_exactly(loss: str, shared: bool) -> None:
    order = {"pair": -1, "quadratic": 0, "angular": 1}[loss]
    _, frames = truth(waters(0, 15, SHEARED), SHEARED, order, shared)
    fit = fit_losses(
        frames,
        loss=loss,
        shared=shared,
        pair_cutoff=4.5,
        angular_cutoff=4.0,
        order=order,
        fineness=0.4,
        ridge=1e-12,
    )
    assert fit.ridges[0][2] < 1e-4 * np.sqrt((frames.forces**2).mean())
    free = fit.model._replace(walls=no_walls(2))
    held = force_errors(free, chosen(frames, "val"))
    assert held["rmse_mev_per_angstrom"]["all"] < 1e3 * fit.ridges[0][2] + 1e-3
    assert (held["net_force"] < 1e-10) == shared


@pytest.mark.parametrize("cell", [9.2 * np.eye(3), SHEARED])
@pytest.mark.parametrize("order", [-1, 0, 2, 3])
def test_compiled_forces_are_the_gradient_of_the_readable_losses(
    cell: np.ndarray, order: int
) -> None:
    x = waters(1, 2, cell)
    model, frames = truth(x, cell, order, True)
    cells = np.stack([cell, cell])
    force, loss = make_forces(model, cells, frames.numbers)(x)
    position = torch.from_numpy(x).requires_grad_()
    expected = agent_losses(model, position, torch.from_numpy(cells), frames.numbers)
    gradient = torch.autograd.grad(expected.sum(), position)[0].numpy()
    assert np.abs(force + gradient).max() < 1e-10 * np.abs(gradient).max()
    assert np.allclose(loss.sum(1), expected.sum(1).detach().numpy(), rtol=1e-10, atol=1e-10)
    own, loss = make_forces(model._replace(shared=False), cells, frames.numbers)(x)
    assert np.allclose(loss, expected.detach().numpy(), rtol=1e-10, atol=1e-10)
    agent = torch.autograd.grad(
        agent_losses(model, position, torch.from_numpy(cells), frames.numbers)[:, 5].sum(), position
    )[0].numpy()
    assert np.abs(own[:, 5] + agent[:, 5]).max() < 1e-10 * np.abs(gradient).max()
    assert np.abs(force.sum(1)).max() < 1e-12 * np.abs(force).max()
    assert np.abs(own.sum(1)).max() > 1e-3 * np.abs(own).max()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_world_of_a_batch_is_the_world_alone(name: str) -> None:
    model = load_model(name).model
    cell = 12.4 * np.eye(3)
    x, numbers = waters(10, 3, cell, 27), np.tile([8, 1, 1], 27)
    force, loss = make_forces(model, np.stack([cell] * 3), numbers)(x)
    shared, again = make_forces(model, np.stack([cell] * 3), numbers, threads=2)(x)
    alone, one = make_forces(model, cell[None], numbers)(x[2:])
    assert np.array_equal(force[2], alone[0])
    assert np.array_equal(loss[2], one[0])
    assert np.array_equal(force, shared)
    assert np.array_equal(loss, again)
    single = make_forces(model, np.stack([cell] * 3), numbers, dtype=np.float32)(x)[0]
    assert np.abs(single - force).max() < 1e-4 * np.abs(force).max()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("wide", [4, 12, 20])
def test_sums_of_rows(dtype: type, wide: int) -> None:
    rng = np.random.default_rng(11)
    weight, rows = rng.normal(size=(30, 7)).astype(dtype), rng.normal(size=(40, wide)).astype(dtype)
    matrix, out = rng.normal(size=(9, 11, wide)).astype(dtype), np.full((5, wide), 7, dtype)
    width = (0,) * wide
    _sums(weight, rows, matrix, out, width)
    tolerance = 1e-13 if dtype is np.float64 else 1e-5
    assert np.abs(out[2] - weight[:20, 3] @ rows[5:25]).max() < tolerance
    assert np.abs(out[1] - (matrix[3] * rows[4:15]).sum(0)).max() < tolerance
    assert not out[0].any()  # a sum of nothing
    assert (out[3:] == 7).all()


@njit
def _sums(weight: Any, rows: Any, matrix: Any, out: Any, width: Any) -> None:
    sum_rows(weight, rows, out, (3, 7, 5, 2), 20, width)
    sum_rows(weight, rows, out, (3, 7, 5, 0), 0, width)
    sum_products(matrix, rows, out, (33, 4, 1), 11, width)


@pytest.mark.parametrize("name", SHIPPED)
def test_losses_do_not_see_how_the_world_is_turned(name: str) -> None:
    model = load_model(name).model
    cell = 12.4 * np.eye(3)
    x = waters(2, 1, cell, 27)[0]
    numbers = np.tile([8, 1, 1], 27)
    force, loss = forces_of_frame(model, x, cell, numbers)
    assert np.abs(force.sum(0)).max() < 1e-11
    scale = np.abs(force).max()
    turn = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]) @ np.diag([-1.0, 1, 1])
    swap = np.arange(len(x))
    swap[[0, 3]], swap[[1, 5]] = [3, 0], [5, 1]
    for moved, back in (
        (x + np.array([3.3, -20.0, 0.7]), force),
        (x @ turn, force @ turn),
        (x[swap], force[swap]),
    ):
        again, losses = forces_of_frame(model, moved, cell, numbers)
        assert np.abs(again - back).max() < 1e-10 * scale
        assert abs(losses.sum() - loss.sum()) < 1e-10 * max(1.0, abs(loss.sum()))


def test_narrow_cells_are_repeated_which_is_exact() -> None:
    from invariantzoo.envs.core.physics.cell import replicate

    model = load_model("water-angular").model
    cell = 6.3 * np.eye(3)
    x = waters(4, 1, cell)[0]
    numbers = np.tile([8, 1, 1], 8)
    force, loss = forces_of_frame(model, x, cell, numbers)
    wide, wider = replicate(x, cell, (2, 2, 2))
    all_force, all_loss = make_forces(model, wider[None], np.tile(numbers, 8))(wide[None])
    assert np.abs(all_force[0].reshape(8, 24, 3) - force).max() < 1e-10 * np.abs(force).max()
    assert np.allclose(all_loss[0].reshape(8, 24), loss, rtol=1e-10)


def test_the_walls_stand_outside_the_data() -> None:
    x = waters(5, 10, SHEARED)
    frames = frames_with(np.ones_like(x), x, SHEARED)
    model = walls_alone(frames)
    cells, numbers = frames.cell[:8], frames.numbers
    bonds = np.stack([np.flatnonzero(numbers == 1), owners(frames)], 1)
    force, loss = make_forces(model, cells, numbers, bonds=bonds)(x[:8])
    assert not force.any()
    assert not loss.any()
    x[0, 1] = x[0, 0] + [0.5, 0, 0]
    x[1, 1] = x[1, 0] + [0, 1.9, 0]
    force, _ = make_forces(model, cells, numbers, bonds=bonds)(x[:8])
    assert force[0, 1, 0] > 10
    assert force[1, 1, 1] < -10


def molecules_of(name: str) -> Frames:
    """Frames of a molecule in open space, with springs between all of its atoms."""
    atoms = molecule(name)
    x = atoms.positions + np.random.default_rng(1).normal(0, 0.04, (40, len(atoms), 3))
    r = x[:, :, None] - x[:, None]
    d = np.linalg.norm(r, axis=-1, keepdims=True) + np.eye(len(atoms))[..., None]
    force = (20 * r * (atoms.get_all_distances()[..., None] - d) / d).sum(2)
    split = np.where(np.arange(40) < 32, "train", "val")
    cell, energy = np.zeros((40, 3, 3)), np.full(40, np.nan)
    return Frames(x, force, atoms.numbers, cell, energy, split, None, "test", "0")


def test_hydrogens_of_carbon_are_not_bonds_of_oxygen() -> None:
    frames = molecules_of("CH3CH2OH")
    own = owners(frames)
    assert own is not None
    near = molecule("CH3CH2OH").get_all_distances()[frames.numbers == 1]
    assert np.allclose(near[np.arange(6), own], 1.03, rtol=0, atol=0.1)
    assert (frames.numbers[own] == 6).sum() == 5
    far = frames._replace(positions=frames.positions + 9.0 * (np.arange(9) == 8)[:, None])
    assert frames.numbers[8] == 1
    assert owners(far)[-1] in range(8)
    model = fit_losses(frames, loss="pair", shared=True).model
    assert model.walls.pull
    bonds = bonds_of(frames.numbers, own)
    held, _ = make_forces(model, frames.cell[:1], frames.numbers, bonds=bonds)(frames.positions[:1])
    free, _ = make_forces(model, frames.cell[:1], frames.numbers)(frames.positions[:1])
    assert len(bonds) == 1
    assert np.array_equal(held, free)


def test_molecules_of_the_frame_to_start_from_are_its_own() -> None:
    """A proton that has hopped since the first frame is bonded to where it is."""
    x = waters(9, 10, SHEARED)
    x[5:, [1, 4]] = x[5:, [4, 1]]
    frames = frames_with(np.ones_like(x), x, SHEARED)
    sample = sample_of(frames)
    assert sample.owner[:4].tolist() == [3, 0, 0, 3]
    assert owners(frames)[:4].tolist() == [0, 0, 3, 3]


def test_hydrogens_may_be_bonded_where_there_is_no_oxygen() -> None:
    ammonia = molecules_of("NH3")._replace(owner=np.zeros(3, np.int64))
    assert not fit_losses(ammonia, loss="pair", shared=True).model.walls.pull


# ---------------------------------------------------------------------------------- files


def test_a_model_file_is_the_model(tmp_path: Path) -> None:
    x = waters(7, 5, SHEARED)
    model, frames = truth(x, SHEARED, 2, True)
    save_model(tmp_path / "m.npz", model, {"loss": "angular", "digest": "abc"})
    saved = load_model(tmp_path / "m.npz")
    assert saved.about["digest"] == "abc"
    assert saved.about["units"].startswith("Angstrom")
    for mine, theirs in zip(
        forces_of_frame(model, x[0], SHEARED, frames.numbers),
        forces_of_frame(saved.model, x[0], SHEARED, frames.numbers),
        strict=True,
    ):
        assert np.array_equal(mine, theirs)
    (tmp_path / "text.npz").write_text("no model")
    with pytest.raises(ValueError, match="no model file"):
        load_model(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError, match="did you mean 'water-pair'"):
        load_model("water-par")


def test_nothing_in_a_model_file_is_run(tmp_path: Path) -> None:
    poison = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "m.npz", head=poison, allow_pickle=True)
    with pytest.raises(ValueError, match="no model file"):
        load_model(tmp_path / "m.npz")


@pytest.mark.parametrize("name", SHIPPED)
def test_models_that_ship_know_where_they_come_from(name: str) -> None:
    saved = load_model(name)
    assert len(saved.about["digest"]) == 64
    assert saved.about["rmse_mev_per_angstrom"]["all"] < 230
    known = saved.model.net.numbers if isinstance(saved.model, NetModel) else saved.model.numbers
    assert known == (1, 8)


def test_a_cp2k_folder_is_read() -> None:
    frames = read_frames(CP2K)
    assert frames.positions.shape == (3, 48, 3)
    assert np.allclose(frames.positions[0, 0], [-3.6774698979, -1.5852647203, 5.0400859628])
    assert abs(frames.energy[0] / HARTREE + 275.8866028082) < 1e-9
    first = (CP2K / "water16-frc-1.xyz").read_text().splitlines()[2].split()
    assert np.allclose(frames.forces[0, 0] / HARTREE_PER_BOHR, [float(v) for v in first[1:]])
    assert np.allclose(frames.cell, 7.826 * np.eye(3))
    assert frames.numbers[:3].tolist() == [8, 1, 1]
    assert owners(frames)[:4].tolist() == [0, 0, 3, 3]


def test_every_format_tells_the_same(tmp_path: Path) -> None:
    frames = read_frames(CP2K)
    np.savez(
        tmp_path / "a.npz",
        positions=frames.positions,
        forces=frames.forces,
        numbers=frames.numbers,
        cell=frames.cell[0],
        energy=frames.energy,
    )
    write_xyz(tmp_path / "a.xyz", frames)
    for file in ("a.npz", "a.xyz"):
        again = read_frames(tmp_path / file)
        assert np.allclose(again.positions, frames.positions)
        assert np.allclose(again.forces, frames.forces)
        assert np.allclose(again.cell, frames.cell)
        assert np.allclose(again.energy, frames.energy)
        assert again.numbers.tolist() == frames.numbers.tolist()


def write_xyz(path: Path, frames: Frames, forces: bool = True, atoms: tuple[int, ...] = ()) -> None:
    lines = []
    for k, (x, f) in enumerate(zip(frames.positions, frames.forces, strict=True)):
        n = atoms[k] if atoms else len(x)
        lattice = " ".join(map(str, frames.cell[k].ravel()))
        more = ":forces:R:3" if forces else ""
        lines += [
            str(n),
            f'Lattice="{lattice}" Properties=species:S:1:pos:R:3{more} energy={frames.energy[k]}',
        ]
        for number, place, pull in zip(frames.numbers[:n], x, f, strict=False):
            values = [*place, *(pull if forces else ())]
            lines.append(("O" if number == 8 else "H") + "".join(f" {v:.10f}" for v in values))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forces": lambda f: f / HARTREE_PER_BOHR}, "perhaps they are in Hartree/bohr"),
        ({"forces": lambda f: f * 23.06}, "perhaps they are in kcal"),
        ({"forces": lambda f: np.where(f == f[1, 2, 0], np.nan, f)}, "forces of frame 1 are not"),
        ({"positions": lambda x: x / 10, "cell": lambda c: c / 10}, "in nanometres"),
        ({"forces": lambda f: f[:, :5]}, "forces have shape"),
        ({"forces": lambda f: f * 0}, "all forces are zero"),
        ({"forces": None}, "no 'forces'"),
    ],
)
def test_bad_frames_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    frames = read_frames(CP2K)
    data: dict[str, Any] = {
        "positions": frames.positions,
        "forces": frames.forces,
        "numbers": frames.numbers,
        "cell": frames.cell[0],
    }
    for name, turn in change.items():
        data[name] = None if turn is None else turn(data[name])
    np.savez(tmp_path / "a.npz", **{k: v for k, v in data.items() if v is not None})
    assert main(["fit", str(tmp_path / "a.npz"), "--out", str(tmp_path / "m.npz")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_bad_files_are_refused(tmp_path: Path) -> None:
    frames = read_frames(CP2K)
    write_xyz(tmp_path / "few.xyz", frames, atoms=(48, 45, 48))
    with pytest.raises(ValueError, match="frame 1 has 45 atoms, frame 0 has 48"):
        read_frames(tmp_path / "few.xyz")
    write_xyz(tmp_path / "none.xyz", frames, forces=False)
    with pytest.raises(ValueError, match="has no forces"):
        read_frames(tmp_path / "none.xyz")
    shutil.copytree(CP2K, tmp_path / "run")
    (tmp_path / "run" / "water16-frc-1.xyz").unlink()
    with pytest.raises(ValueError, match=r"has no water16-frc-1.xyz: set &MOTION"):
        read_frames(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="not the folder of a CP2K run"):
        read_frames(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        read_frames(tmp_path / "missing.npz")


# ------------------------------------------------------------------------------- commands


def test_fit_and_forces_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = waters(8, 12, SHEARED)
    _, frames = truth(x, SHEARED, -1, True)
    data, model = tmp_path / "data.npz", tmp_path / "model.npz"
    np.savez(
        data,
        positions=x,
        forces=frames.forces,
        numbers=frames.numbers,
        cell=SHEARED,
        split=frames.split,
    )
    words = ["fit", str(data), "--loss", "pair", "--forces", "total", "--out", str(model)]
    assert main([*words, "--pair-cutoff", "4.5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["validation"]["frames"] == 2
    assert report["learning_curve"][-1]["frames"] == 10
    assert {(row["agent"], row["neighbour"]) for row in report["sensitivities"]} >= {("H", "O")}
    assert main(["forces", str(model), str(data), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["frames"] == 12
    assert set(judged["rmse_mev_per_angstrom"]) == {"all", "O", "H"}
    assert main(["forces", str(model), str(data), "--split", "val", "--json"]) == 0
    part = json.loads(capsys.readouterr().out)
    assert part["rmse_mev_per_angstrom"] == report["validation"]["rmse_mev_per_angstrom"]
    assert main(["forces", str(model), str(data), "--split", "test"]) == 2
    assert "no frame of split 'test'" in capsys.readouterr().err
    assert main(["forces", "water-angular", str(CP2K), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["correlation"] > 0.9
    assert main([*words[:3], "net", "--forces", "own", "--out", str(model)]) == 2


def test_the_calculator_of_ase(tmp_path: Path) -> None:
    ase = pytest.importorskip("ase")
    from invariantzoo.envs.molecules.ase import LossCalculator
    from invariantzoo.training.molecules.frames import frames_of_atoms

    cell = 12.4 * np.eye(3)
    x = waters(9, 4, cell, 27)
    numbers = np.tile([8, 1, 1], 27)
    images = [ase.Atoms(numbers, one, cell=cell, pbc=True) for one in x]
    for atoms in images:
        atoms.calc = LossCalculator("water-angular")
    expected = forces_of_frame(load_model("water-angular").model, x[2], cell, numbers)
    assert np.allclose(images[2].get_forces(), expected[0], atol=1e-12)
    assert np.isclose(images[2].get_potential_energy(), expected[1].sum())
    frames = frames_of_atoms(images)
    assert frames.positions.shape == (4, 81, 3)
    assert np.allclose(frames.forces[2], expected[0], atol=1e-12)
    from ase.io import write

    write(tmp_path / "a.traj", images)
    again = read_frames(tmp_path / "a.traj")
    assert np.allclose(again.forces, frames.forces)
