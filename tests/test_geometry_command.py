"""`invariantzoo geometry`: samples of a file or of an id to a metric, a map and a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import refused

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core.files import IN_USE, claim
from invariantzoo.envs.ising import exact
from invariantzoo.figures import geometry_epidemic
from invariantzoo.training.geometry.sampling import draw_samples

QUICK = ["--members", "2", "--json"]


def test_samples_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    law = rng.uniform([-1, 0.5], [1, 2], (1500, 2))
    samples = law[:, :1] + law[:, 1:] * rng.normal(size=(1500, 8))
    np.savez(tmp_path / "s.npz", samples=samples, parameters=law, names=["mean", "scale"])
    out = tmp_path / "out"
    words = [str(tmp_path / "s.npz"), "--out", str(out), "--statistic", "polynomial", *QUICK]
    assert main(["geometry", *words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["names"] == ["mean", "scale"]
    assert json.loads((out / "report.json").read_text()) == report
    assert (out / "metric.png").stat().st_size > 10_000
    metric = invariantzoo.load_metric(out / "metric.npz")
    for row in report["metric"]:
        exact_metric = np.diag([1.0, 2.0]) / row["at"][1] ** 2
        np.testing.assert_allclose(metric(np.array([row["at"]]))[0], row["covariance"])
        off = np.linalg.norm(np.array(row["covariance"]) - exact_metric)
        assert off < 0.4 * np.linalg.norm(exact_metric)
    assert all(0.7 < path["ratio"] < 1.001 for path in report["paths"])


def test_a_folder_of_others_and_one_in_use_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("[]")
    words = ["geometry", "tasep-ring-v0", "--out", str(out)]
    assert "holds a report.json of something else" in refused(capsys, *words)
    (out / "report.json").write_text('{"source": ""}')
    with claim(out):
        assert "is in use by" in refused(capsys, *words, code=IN_USE)
    assert [path.name for path in out.iterdir()] == ["report.json"]


def test_an_id_is_sampled_and_agrees_with_the_exact_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranges = ["temperature=(3.0, 5.0)", "field=(0.1, 0.6)", "update=checkerboard"]
    sets = [word for setting in ranges for word in ("--set", setting)]
    words = ["ising-equilibrium-v0", *sets, "--out", str(tmp_path / "out"), *QUICK]
    assert main(["geometry", *words, "--points", "3000", "--sweeps", "60"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["statistic"] == "patterns"
    assert report["names"] == ["temperature", "field"]
    errors = []
    for row in report["metric"]:
        t, h = row["at"]
        change = np.array([[-1 / t**2, 0], [-h / t**2, 1 / t]])  # of (1 / T, h / T) by (T, h)
        metric = change.T @ exact.moments(4, 1 / t, h / t).covariance @ change
        errors.append(np.linalg.norm(row["covariance"] - metric) / np.linalg.norm(metric))
    assert np.median(errors) < 0.3


def test_the_law_of_epidemics_is_that_of_their_simulation() -> None:
    law = geometry_epidemic.exact_law(1.5)
    assert law.sum((1, 2)) == pytest.approx(1.0, abs=1e-12)
    everyone = geometry_epidemic.PEOPLE - geometry_epidemic.INFECTED
    points = np.tile([[1.5, 0.0]], (5000, 1))
    ever, days = geometry_epidemic.simulate(points, np.random.default_rng(0)).reshape(-1, 2).T
    for drawn, chances in ((ever, law[everyone].sum(1)), (days, law[everyone].sum(0))):
        shares = np.bincount(drawn, minlength=len(chances)) / len(drawn)
        error = np.sqrt(chances * (1 - chances) / len(drawn))
        assert (np.abs(shares - chances) <= 5 * error + 1e-4).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quadratic-regimes-v0"], "has no policy that runs fused"),
        (["ising-equilibrium-v0"], "none of its live parameters"),
        (
            ["klein-gordon-force-v0", "--set", "mass=(0.2,0.8)", "--sweeps", "2", "--points", "9"],
            "KleinGordonForce: its state is no lattice of small whole numbers",
        ),
        (["s.npz", "--points", "9"], "--points 9 is of an id"),
        (["s.npz", "--set", "x=1"], "--set x=1 is of an id"),
        (["digits", "--per-point", "9"], "--per-point 9 is of an id"),
        (["digits", "--recipe", "swap"], "--recipe swap is of samples"),
        (["digits", "--nearest", "9"], "--nearest 9 is of samples"),
    ],
)
def test_bad_input_gets_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["geometry", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


@pytest.mark.parametrize(
    ("name", "said"), [("none.npz", "No such file"), ("folder.npz", "directory")]
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.npz").mkdir()
    words = ["geometry", str(tmp_path / name), "--out", str(tmp_path / "out")]
    line = refused(capsys, *words)
    assert f"{name} cannot be read" in line
    assert said in line


def test_a_file_without_the_arrays_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "s.npz", x=np.zeros(3))
    assert main(["geometry", str(tmp_path / "s.npz"), "--out", str(tmp_path / "out")]) == 2
    assert "has no array 'samples' (has x)" in capsys.readouterr().err
    for parameters in (np.float64(3), np.zeros((3, 2, 2))):
        np.savez(tmp_path / "s.npz", samples=np.zeros((3, 4)), parameters=parameters)
        assert main(["geometry", str(tmp_path / "s.npz"), "--out", str(tmp_path / "out")]) == 2
        assert "they must be [points, d]" in capsys.readouterr().err


def test_sites_are_sampled_where_agents_are_bonds() -> None:
    system = invariantzoo.make_system("tasep-open-v0", n_sites=6, alpha=(0.2, 0.8))
    samples = draw_samples(system, points=5, per_point=2, sweeps=3).samples
    assert samples.shape == (5, 2, 6)
    assert set(np.unique(samples)) == {0, 1}


def test_a_range_that_would_be_mixed_is_refused() -> None:
    system = invariantzoo.make_system(
        "ising-equilibrium-v0", temperature=(2.0, 3.0), coupling=(0.5, 1.5)
    )
    with pytest.raises(ValueError, match=r"coupling=\(0.5, 1.5\) is a range, which only its live"):
        draw_samples(system, points=5, per_point=2, sweeps=3)
