"""Linear fits of losses: the design matrix, the solution, and settings and data at the edges."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_inference import SHEARED, frames_with, truth, waters

from invariantzoo.__main__ import main
from invariantzoo.envs.core.physics.kernels.neighbours import periodic_neighbours
from invariantzoo.envs.molecules.forces import forces_of_frame
from invariantzoo.envs.molecules.linear import no_walls
from invariantzoo.progress import progress
from invariantzoo.training.molecules import fit_linear as fitting
from invariantzoo.training.molecules.fit_linear import (
    Columns,
    NormalEquations,
    Range,
    fit_losses,
    make_radial,
    radial_centres,
    sampled_ranges,
)
from invariantzoo.training.molecules.frames import Frames, chosen

NARROW = {
    "two cutoffs": 9.2 * np.eye(3),
    "less than two": np.diag([6.1, 7.0, 9.5]),
    "less than one": np.array([[3.3, 0.0, 0.0], [0.7, 3.2, 0.0], [-0.4, 0.6, 3.6]]),
    "sheared": 0.7 * SHEARED,
    "open": np.zeros((3, 3)),
}


@pytest.mark.parametrize("cell", NARROW.values(), ids=NARROW)
def test_all_images_within_the_cutoff_are_neighbours(cell: np.ndarray) -> None:
    x = np.random.default_rng(0).uniform(-9, 9, (7, 3))
    near = periodic_neighbours(x, cell, 4.0)
    turns = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3, indexing="ij"), -1).reshape(-1, 3)
    moves = turns @ cell if cell.any() else np.zeros((1, 3))
    for i in range(7):
        r = (x[:, None] + moves - x[i]).reshape(-1, 3)
        d = np.sqrt((r * r).sum(1))
        expected = r[(d < 4.0) & (d > 1e-9)]
        rows = slice(near.start[i], near.start[i + 1])
        assert (np.diff(near.neighbour[rows]) >= 0).all()
        found = x[near.neighbour[rows]] + near.shift[rows] - x[i]
        assert len(found) == len(expected)
        assert np.allclose(_sorted(found), _sorted(expected), rtol=0, atol=1e-12)


def _sorted(r: np.ndarray) -> np.ndarray:
    return r[np.lexsort(r.round(6).T)]


def columns_of(frames: Frames, order: int, shared: bool, cutoffs: tuple[float, float]) -> Columns:
    known = tuple(sorted(set(map(int, frames.numbers))))
    ranges = sampled_ranges(frames, known, cutoffs[0])
    pair = make_radial(ranges, cutoffs[0], fitting.PAIR, 0.75, 0.4)
    spacing = fitting.QUADRATIC if order == 0 else fitting.ANGULAR
    return Columns(pair, make_radial(ranges, cutoffs[1], spacing, 0.75, 0.4), order, shared, known)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("order", [-1, 0, 2, 3])
@pytest.mark.parametrize("cell", NARROW.values(), ids=NARROW)
def test_the_design_matrix_gives_the_forces_of_the_repeated_cell(
    cell: np.ndarray, order: int, shared: bool
) -> None:
    """`forces_of_frame` repeats narrow cells and has kernels of its own."""
    molecules = 1 if cell.any() and np.linalg.det(cell) < 60 else 8
    x = waters(1, 1, cell if cell.any() else 6.0 * np.eye(3), molecules)
    frames = frames_with(np.zeros_like(x), x, cell)
    columns = columns_of(frames, order, shared, (4.4, 4.0))
    design = np.full((x[0].size, columns.layout.size + 1), np.nan)
    columns.fill(frames, 0, design)
    for seed in range(2):
        weights = np.random.default_rng(seed).normal(size=columns.layout.size)
        model = columns.model(weights, no_walls(2))
        expected = forces_of_frame(model, x[0], cell, frames.numbers)[0].ravel()
        found = design[:, :-1] @ weights
        assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("shared", [True, False])
def test_a_fit_is_the_regularised_least_squares_solution(shared: bool) -> None:
    cell = 6.6 * np.eye(3)
    x = waters(2, 30, cell)
    frames = frames_with(np.random.default_rng(3).normal(size=x.shape), x, cell)
    settings: dict[str, Any] = {"pair_cutoff": 4.4, "angular_cutoff": 4.0, "order": 1}
    fit = fit_losses(frames, loss="angular", shared=shared, ridge=1e-3, fineness=0.4, **settings)
    columns = columns_of(chosen(frames, "train"), 1, shared, (4.4, 4.0))
    design, force = [], []
    for frame in range(len(x)):
        rows = np.empty((x[0].size, columns.layout.size + 1))
        columns.fill(frames, frame, rows)
        design.append(rows[:, :-1])
        force.append(rows[:, -1])
    train = frames.split == "train"
    rows, wanted = np.concatenate(design)[: train.sum() * x[0].size], np.concatenate(force)
    weight = (rows**2).sum(0)
    scale = 1 / np.sqrt(weight + 0.1 * np.median(weight))
    # Rows sqrt(ridge) beneath the scaled ones make the ridge without squaring the condition.
    stacked = np.concatenate([rows * scale, np.sqrt(1e-3) * np.eye(len(scale))])
    right = np.concatenate([wanted[: len(rows)], np.zeros(len(scale))])
    expected = scale * np.linalg.lstsq(stacked, right, rcond=None)[0]
    again = columns.model(expected, no_walls(2))
    for frame in (0, 29):
        mine = forces_of_frame(
            fit.model._replace(walls=no_walls(2)), x[frame], cell, frames.numbers
        )
        theirs = forces_of_frame(again, x[frame], cell, frames.numbers)
        assert np.abs(mine[0] - theirs[0]).max() < 1e-8 * np.abs(theirs[0]).max()
    errors = [np.concatenate(design) @ expected - wanted]
    held = errors[0][len(rows) :]
    ((_, training, validation),) = fit.ridges
    assert np.isclose(training, np.sqrt((errors[0][: len(rows)] ** 2).mean()), rtol=1e-8)
    assert np.isclose(validation, np.sqrt((held**2).mean()), rtol=1e-8)
    assert fit.curve[-1] == (24, validation)


@pytest.mark.parametrize("loss", ["pair", "angular"])
def test_threads_change_no_bit(loss: str) -> None:
    cell = 6.6 * np.eye(3)
    _, frames = truth(waters(4, 20, cell), cell, 1, True)
    fits = [
        fit_losses(frames, loss=loss, shared=True, fineness=0.6, order=2, threads=threads)
        for threads in (1, 2, 3)
    ]
    for other in fits[1:]:
        assert other.ridges == fits[0].ridges
        assert other.curve == fits[0].curve
        for mine, theirs in zip(fits[0].model.matrices, other.model.matrices, strict=True):
            assert np.array_equal(mine, theirs)


# ------------------------------------------------------------------------- settings and data


@pytest.mark.parametrize("spacing", [fitting.PAIR, fitting.QUADRATIC, fitting.ANGULAR])
def test_centres_rise_whatever_the_cutoff(spacing: fitting.Spacing) -> None:
    for cutoff in [*np.arange(1.0, 8.01, 0.05), 2.4001, 2.5, 2.5001, 3.5, 3.5001, 3.509, 3.511]:
        for fineness in (0.1, 0.5, 1.0, 1.7, 3.0):
            for seen in (Range(0.93, 1.11), Range(1.4, 0.0), Range(2.39, 0.0), Range(3.495, 0.0)):
                centres = radial_centres(seen, cutoff, spacing, fineness)
                if seen.nearest >= cutoff:
                    assert not len(centres)
                    continue
                assert len(centres) != 1
                assert (np.diff(centres) > 1e-3).all() or cutoff - seen.nearest < 0.02
                assert (np.diff(centres) > 0).all()
                assert (centres < cutoff).all()


@pytest.mark.parametrize("loss", ["pair", "quadratic", "angular"])
def test_every_cutoff_is_fitted_or_refused_by_its_name(loss: str) -> None:
    cell = 7.0 * np.eye(3)
    x = waters(5, 8, cell)
    frames = frames_with(np.random.default_rng(6).normal(size=x.shape), x, cell)
    name = "angular" if loss == "angular" else "pair"
    known = sampled_ranges(chosen(frames, "train"), (1, 8), 3.0)
    nearest = min(seen.nearest for seen in known.values())
    for cutoff in (
        0.5,
        nearest - 0.01,
        nearest + 0.02,
        1.0,
        1.5,
        2.0,
        2.4,
        2.5,
        3.0,
        3.5,
        4.0,
        5.0,
    ):
        for fineness in (0.5, 1.0):
            settings: dict[str, Any] = {f"{name}_cutoff": cutoff, "order": 1, "fineness": fineness}
            if cutoff < nearest:
                with pytest.raises(ValueError, match=f"^{name} cutoff {cutoff:g} holds no two"):
                    fit_losses(frames, loss=loss, shared=True, **settings)
                continue
            fit = fit_losses(frames, loss=loss, shared=True, **settings)
            assert len(fit.ridges) == len(fitting.RIDGES)
            assert all(np.isfinite(v) for row in fit.ridges for v in row)


def argon(seed: int, count: int, cell: np.ndarray, atoms: int = 8) -> Frames:
    """Frames of argon, about 4 Angstrom apart, with forces that push apart."""
    side = round(atoms ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    x = 4.0 * grid + np.random.default_rng(seed).normal(0, 0.2, (count, atoms, 3))
    r = x[:, None] - x[:, :, None]
    d2 = (r * r).sum(-1) + 100 * np.eye(atoms)
    force = -(r * np.exp(3.4 - np.sqrt(d2))[..., None]).sum(2)
    cells = np.broadcast_to(cell, (count, 3, 3)).copy()
    split = np.where(np.arange(count) < count - max(1, count // 4), "train", "val")
    energy = np.full(count, np.nan)
    return Frames(x, force, np.full(atoms, 18), cells, energy, split, None, "argon", "")


@pytest.mark.parametrize("loss", ["pair", "quadratic", "angular"])
@pytest.mark.parametrize("cell", [8.0 * np.eye(3), np.zeros((3, 3))])
def test_one_species_without_bonds_is_fitted(loss: str, cell: np.ndarray) -> None:
    frames = argon(0, 12, cell)
    fit = fit_losses(frames, loss=loss, shared=True, order=1)
    assert fit.model.numbers == (18,)
    assert fit.model.walls.pull == 0
    rms = np.sqrt((frames.forces**2).mean())
    assert fit.ridges[-1][1] < (rms if cell.any() else 0.2 * rms)
    assert np.isfinite(fit.ridges).all()
    with pytest.raises(ValueError, match="pair cutoff 2 holds no two atoms: the nearest"):
        fit_losses(frames, loss=loss, shared=True, pair_cutoff=2.0)


@pytest.mark.parametrize("count", [2, 3])
def test_few_frames_are_fitted(count: int) -> None:
    frames = argon(1, count, 8.0 * np.eye(3))
    fit = fit_losses(frames, loss="angular", shared=True, order=1)
    assert fit.curve[-1][0] == (frames.split == "train").sum()
    assert np.isfinite(fit.ridges).all()


def test_forces_that_are_zero_or_all_alike_are_no_trouble() -> None:
    frames = argon(2, 6, 8.0 * np.eye(3))
    still = fit_losses(frames._replace(forces=0 * frames.forces), loss="pair", shared=True)
    assert not any(weights.any() for row in still.model.pair_weights for weights in row)
    alike = fit_losses(frames._replace(forces=0 * frames.forces + 0.3), loss="pair", shared=True)
    assert abs(alike.ridges[-1][2] - 0.3) < 0.05  # no loss pushes all atoms one way


def test_data_that_no_loss_can_move_are_refused() -> None:
    for cell in (np.zeros((3, 3)), 5.0 * np.eye(3)):
        with pytest.raises(ValueError, match="holds one atom"):
            fit_losses(argon(3, 4, cell, atoms=1), loss="pair", shared=True)
    pairs = argon(3, 4, np.diag([30.0, 30.0, 3.5]))
    pairs = pairs._replace(
        positions=pairs.positions[:, [0, 2]] * [1, 5, 0],
        forces=pairs.forces[:, [0, 2]],
        numbers=pairs.numbers[:2],
    )
    with pytest.raises(ValueError, match="no coefficient of these losses moves an atom"):
        fit_losses(pairs, loss="pair", shared=True, pair_cutoff=4.0)
    frames = argon(3, 4, 8.0 * np.eye(3))
    frames.positions[1, 3] = frames.positions[1, 5]
    with pytest.raises(ValueError, match="frame 1 of split 'train': two atoms stand at one place"):
        fit_losses(frames, loss="pair", shared=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pair_cutoff": 0.0}, "pair_cutoff=0.0 must be above 0"),
        ({"angular_cutoff": np.nan}, "angular_cutoff=nan must be above 0"),
        ({"fineness": -1.0}, "fineness=-1.0 must be above 0"),
        ({"ridge": 0.0}, "ridge=0.0 must be above 0"),
        ({"fineness": 1e4}, "a fit of .* coefficients needs at least"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_losses(argon(4, 3, 8.0 * np.eye(3)), loss="angular", shared=True, **settings)


# --------------------------------------------------------------------------------- commands


def write(path: Path, frames: Frames) -> None:
    given = frames._asdict()
    names = ("positions", "forces", "numbers", "cell", "split")
    np.savez(path, **{name: given[name] for name in names})


def test_the_number_of_threads_is_no_matter_of_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, frames = truth(waters(8, 12, SHEARED), SHEARED, -1, True)
    write(tmp_path / "data.npz", frames)
    models = []
    for threads in ("1", "2"):
        model = tmp_path / f"{threads}.npz"
        words = ["fit", str(tmp_path / "data.npz"), "--loss", "pair", "--pair-cutoff", "4.5"]
        assert main([*words, "--threads", threads, "--out", str(model), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["threads"] == int(threads)
        assert 0 < report["wall_seconds"]
        assert 0 < report["seconds"]
        models.append(report["sha256"])
    assert models[0] == models[1]


def test_progress_is_a_line_every_ten_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off a terminal; every call of the clock takes 3 s here."""
    _, frames = truth(waters(8, 60, SHEARED), SHEARED, -1, True)
    write(tmp_path / "data.npz", frames)
    times = iter(np.arange(0.0, 1e6, 3.0))
    clock = partial(next, times)
    monkeypatch.setattr("invariantzoo.commands.fit.progress", partial(progress, clock=clock))
    words = ["fit", str(tmp_path / "data.npz"), "--loss", "pair", "--pair-cutoff", "4.5"]
    assert main([*words, "--out", str(tmp_path / "model.npz")]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fitting")]
    assert len(told) > 5, told
    assert all(re.fullmatch(r"fitting +\d+ %  \d+:\d\d:\d\d left", line) for line in told), told
    shares = [int(line.split()[1]) for line in told]
    assert shares == sorted(shares)
    assert shares[-1] > 90


def test_an_interrupted_fit_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, frames = truth(waters(8, 12, SHEARED), SHEARED, -1, True)
    write(tmp_path / "data.npz", frames)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(NormalEquations, "solve", stop)
    words = ["fit", str(tmp_path / "data.npz"), "--loss", "pair", "--threads", "2"]
    assert main([*words, "--out", str(tmp_path / "model.npz")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--picture", "p.foo"], "--picture 'p.foo' must end in .png or .svg or .pdf"),
        (["--loss", "net", "--picture", "p.png"], "--picture: a net has no sensitivities"),
        (["--loss", "pair", "--epochs", "7"], "--epochs 7 is of --loss net"),
        (["--loss", "pair", "--order", "3"], "--order 3 is of --loss angular"),
        (["--loss", "net", "--ridge", "1"], "--ridge 1.0 is of linear losses"),
        (["--loss", "net", "--pair-cutoff", "4"], "--pair-cutoff 4.0 is of linear losses"),
        (["--loss", "pair", "--cutoff", "4"], "--cutoff 4.0 is of angles and nets"),
    ],
)
def test_an_option_of_another_loss_is_refused_before_data_are_read(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "nowhere.npz", "--out", "m.npz", *words]) == 2
    assert said in capsys.readouterr().err
