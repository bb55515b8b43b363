"""Networks of losses: images as copies, fits that are interrupted, cutoffs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_fit import argon, write
from test_inference import SHEARED, frames_with, truth, waters

from invariantzoo.__main__ import main
from invariantzoo.envs.core.physics.cell import copies_for, replicate
from invariantzoo.envs.molecules.files import NetModel, load_model
from invariantzoo.envs.molecules.forces import forces_of_frame
from invariantzoo.envs.molecules.network import blocks, monomials, squares
from invariantzoo.training.molecules import fit_network as fitting
from invariantzoo.training.molecules.errors import predicted
from invariantzoo.training.molecules.fit_linear import walls_alone
from invariantzoo.training.molecules.fit_network import (
    Interrupted,
    fit_net,
    make_net,
    radial_centres,
)
from invariantzoo.training.molecules.frames import Frames, chosen
from invariantzoo.training.optim.config import OptimizerConfig

SMALL: dict[str, Any] = {"cutoff": 4.0, "channels": 4, "lr": 0.01, "optimizer": OptimizerConfig()}


def test_monomials_have_powers_of_the_dot_product() -> None:
    n, m = torch.randn(2, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    products = monomials(n) * monomials(m)
    dot = (n * m).sum(-1)
    for degree, (first, last) in enumerate([(0, 1), (1, 4), (4, 10), (10, 20)]):
        assert torch.allclose(products[:, first:last].sum(-1), dot**degree, rtol=1e-12, atol=1e-12)
    assert torch.equal(squares(n), monomials(n)[:, 4:10])


@pytest.mark.parametrize(
    "cell",
    [6.3 * np.eye(3), 0.6 * SHEARED, np.diag([3.9, 4.4, 12.0])],
    ids=["cubic", "sheared", "less than a cutoff"],
)
def test_a_net_sees_images_as_it_sees_copies(cell: np.ndarray) -> None:
    x = waters(1, 1, cell, 8 if cell[0, 0] > 5 else 1)[0]
    numbers = np.tile([8, 1, 1], len(x) // 3)
    net = make_net(numbers, cutoff=4.5, channels=8, seed=0).double()
    copies = copies_for(4.5, cell)
    wide, wider = replicate(x, cell, copies)
    assert len(wide) > len(x)
    found = []
    for position, box in ((x, cell), (wide, wider)):
        repeats = len(position) // len(x)
        leaf = torch.from_numpy(position).requires_grad_()
        graph = blocks(position, box, np.tile(numbers, repeats), net.numbers, net.cutoff)
        loss = net(leaf, graph)
        force = torch.autograd.grad(loss.sum(), leaf)[0]
        found.append((loss.detach()[: len(x)], force[: len(x)]))
    (loss, force), (all_loss, all_force) = found
    assert (force - all_force).abs().max() < 1e-10 * all_force.abs().max()
    assert torch.allclose(loss, all_loss, rtol=1e-10, atol=1e-10)
    model = NetModel(net, walls_alone(frames_with(np.ones((5, *x.shape)), x[None][[0] * 5], cell)))
    frames = frames_with(np.zeros((1, *x.shape)), x[None], cell)
    expected = forces_of_frame(model, x, cell, numbers)
    judged = predicted(model, frames)
    assert np.abs(judged[0][0] - expected[0]).max() < 1e-10 * np.abs(expected[0]).max()
    assert np.isclose(judged[1][0], expected[1].sum(), rtol=1e-10)


@pytest.mark.parametrize("cell", [SHEARED, np.zeros((3, 3))], ids=["periodic", "open"])
def test_a_net_learns_the_same_far_away(cell: np.ndarray) -> None:
    """It learns in float32, which does not resolve a bond where coordinates are 100,000 A."""
    x = waters(2, 1, SHEARED)
    away = np.random.default_rng(0).integers(-10_000, 10_000, (1, x.shape[1], 3)) @ cell
    away = away if cell.any() else np.full(3, 1e5)
    net = make_net(np.tile([8, 1, 1], 8), cutoff=4.0, channels=4, seed=0)
    here, there = (
        fitting.forces(net, fitting.prepare(frames_with(x, y, cell), net), [0], False).detach()
        for y in (x, x + away)
    )
    assert (here - there).abs().max() < 1e-3 * here.abs().max()


def learnable(count: int = 10) -> Frames:
    """Waters whose forces follow from losses of angles."""
    _, frames = truth(waters(6, count, SHEARED), SHEARED, 1, True)
    return frames


def test_a_net_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    frames = learnable()
    whole = fit_net(frames, epochs=8, **SMALL)
    assert whole.history[-1][1] < 0.6 * whole.history[0][1]
    assert whole.error == whole.history[-1][2]
    assert whole.epochs == 8
    file = tmp_path / "net.checkpoint"

    def stop(epoch: int, train: float, val: float | None) -> None:
        if epoch == 6:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        fit_net(frames, epochs=8, checkpoint=file, report=stop, **SMALL)
    best = stopped.value.fit
    assert best.epochs in (5, 6)
    assert best.error <= stopped.value.fit.history[4][2]  # type: ignore[operator]
    assert np.isclose(_error(best.net, frames), best.error, rtol=1e-5)
    again = fit_net(frames, epochs=8, checkpoint=file, **SMALL)
    for mine, theirs in zip(whole.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(ValueError, match=r"is of another fit \(lr=0.01, not 0.02\): remove it"):
        fit_net(frames, epochs=8, checkpoint=file, **{**SMALL, "lr": 0.02})
    with pytest.raises(ValueError, match=r"is of another fit \(data=0, not 1\)"):
        fit_net(frames._replace(digest="1"), epochs=8, checkpoint=file, **SMALL)
    with pytest.raises(ValueError, match=r"is of another fit \(forces="):
        fit_net(frames._replace(forces=0.5 * frames.forces), epochs=8, checkpoint=file, **SMALL)
    with pytest.raises(ValueError, match=r"is of another fit \(units="):
        fit_net(frames._replace(units="others"), epochs=8, checkpoint=file, **SMALL)


def _error(net: Any, frames: Frames) -> float:
    val = chosen(frames, "val")
    force = predicted(NetModel(net, walls_alone(frames)), val)[0]
    return float(np.sqrt(((force - val.forces) ** 2).mean()))


def test_the_best_net_is_kept_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are spoilt after epoch 5, which is judged."""
    frames = learnable()
    judged = []

    def stop(epoch: int, train: float, val: float | None) -> None:
        judged.append(val)
        if epoch == 7:
            raise KeyboardInterrupt

    def wild(step: int, steps: int) -> float:
        return 1.0 if step < 5 * 8 else 300.0

    monkeypatch.setattr(fitting, "schedule", wild)
    with pytest.raises(Interrupted) as stopped:
        fit_net(frames, epochs=12, report=stop, **SMALL)
    assert stopped.value.fit.epochs == 5
    assert stopped.value.fit.error == judged[4]


def test_an_interrupted_command_leaves_a_net_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data.npz", learnable())
    out = tmp_path / "net.npz"
    words = ["fit", str(tmp_path / "data.npz"), "--units", "angstrom-ev", "--loss", "net"]
    words += ["--channels", "4", "--epochs", "3", "--cutoff", "4", "--json"]
    assert main([*words, "--out", str(tmp_path / "whole.npz")]) == 0
    read = capsys.readouterr()
    whole = json.loads(read.out)
    assert re.search(r"about \d+ s for 23 steps of one frame", read.err)
    assert not whole["interrupted"]
    follow, steps = fitting._follow, []

    def stop(*given: Any) -> None:
        follow(*given)
        steps.append(1)
        if len(steps) == 18:
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "_follow", stop)
    assert main([*words, "--out", str(out)]) == 130
    read = capsys.readouterr()
    report = json.loads(read.out)
    assert report["interrupted"]
    assert report["epochs"] == 18 / 8
    assert "is the net after 2.25 of 3 epochs, validation error" in read.err
    saved = load_model(out)
    assert saved.about["rmse_mev_per_angstrom"] == report["validation"]["rmse_mev_per_angstrom"]
    assert main([*words, "--out", str(out)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["validation"] == whole["validation"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "net.npz", "whole.npz"]


def test_weights_that_run_away_end_the_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "data.npz", learnable())
    words = ["fit", str(tmp_path / "data.npz"), "--units", "angstrom-ev", "--loss", "net"]
    words += ["--channels", "2", "--cutoff", "3", "--lr", "1e30"]
    assert main([*words, "--out", str(tmp_path / "net.npz")]) == 2
    assert "--lr 1e+30 is too large" in capsys.readouterr().err
    assert not (tmp_path / "net.npz").exists()


def test_centres_rise_whatever_the_cutoff() -> None:
    for cutoff in [*np.arange(0.95, 8, 0.05), 2.7, 2.7001]:
        centres, widths = radial_centres(cutoff)
        assert (np.diff(centres) > 0).all()
        assert (widths > 0.005).all()
        assert (centres <= np.float32(cutoff)).all()
    for cutoff in (0.9, np.inf, np.nan):
        with pytest.raises(ValueError, match="of a net must be above"):
            radial_centres(cutoff)


def test_a_net_that_sees_no_atom_is_refused() -> None:
    frames = argon(0, 4, 8.0 * np.eye(3))
    with pytest.raises(ValueError, match="cutoff=2 holds no two atoms"):
        fit_net(frames, **{**SMALL, "cutoff": 2.0})
    fit = fit_net(frames, epochs=1, **{**SMALL, "cutoff": 4.5})
    assert np.isfinite(fit.error)
