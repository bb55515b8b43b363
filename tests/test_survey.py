"""Slices of the shipped diffusion model: the survey, its figures, its picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.training.geometry import survey as module
from invariantzoo.training.geometry.ideal_diffusion import IdealModel


def test_a_survey_agrees_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = invariantzoo.load_diffusion()
    small = module.survey(model, 0, nodes=49, crossings=1, pairs=5)
    chart = module.make_slice(model, 0)
    points = np.random.default_rng(0).integers(3, 46, (12, 2))
    exact = chart.metric(small.axis[points], model.features)
    given = small.metric[points[:, 0], points[:, 1]]
    errors = np.linalg.norm(given - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
    assert np.median(errors) < 0.02
    assert (chart.label(small.axis[points]) == small.labels[points[:, 0], points[:, 1]]).all()
    report = module.summary(small)
    assert report["trace"]["mean"] > 3
    assert report["plateau"] < 0.1
    assert 0.9 < report["one_digit"]["ratio"]
    assert max(report[name]["highest"] for name in ("one_digit", "two_digits")) <= 1 + 1e-12
    assert small.other is not None
    path = small.other.points[0]
    steps = np.diff(model.features(chart.image(path)), axis=0)
    assert np.linalg.norm(steps, axis=1).sum() == pytest.approx(small.other.length[0], rel=0.1)

    monkeypatch.setattr(module, "survey", lambda model, seed, metric: small)
    assert main(["geometry", "digits", "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trace"] == report["trace"]
    assert (tmp_path / "out" / "slice.png").stat().st_size > 10_000
    assert main(["geometry", "digits", "--out", str(tmp_path / "two")]) == 0


def test_clear_corners() -> None:
    model = invariantzoo.load_diffusion(dtype="float32")
    assert [seed for seed in range(10) if module.is_clear(model, seed)] == [0, 5, 9]


@pytest.mark.parametrize("metric", ["embedding", "logits", "posterior", "pixels"])
def test_metrics_are_pull_backs(metric: str) -> None:
    model = invariantzoo.load_diffusion()
    features = {
        "embedding": model.embedding,
        "logits": model.logits,
        "posterior": lambda x: 2 * np.sqrt(model.probabilities(x)),
        "pixels": lambda x: x,
    }
    small = module.survey(model, 13, metric=metric, nodes=25, crossings=0, pairs=0)
    points = np.random.default_rng(0).integers(2, 23, (8, 2))
    exact = module.make_slice(model, 13).metric(small.axis[points], features[metric])
    given = small.metric[points[:, 0], points[:, 1]]
    errors = np.linalg.norm(given - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
    assert np.median(errors) < 0.01
    report = module.summary(small)
    assert report["plateau"] == 0
    assert "one_digit" not in report


def test_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "a")]
    assert main(["geometry", "digits", *out, "--set", "x=1"]) == 2
    assert main(["geometry", "digits", *out, "--metric", "chances"]) == 2
    assert "metric='chances' must be" in capsys.readouterr().err
    assert main(["geometry", "ising-anneal-v0", *out, "--metric", "posterior"]) == 2
    assert "--metric posterior is of a diffusion model" in capsys.readouterr().err
    images = np.random.default_rng(0).normal(size=(5, 64))
    with pytest.raises(ValueError, match="metric='logits' is of a model with a classifier"):
        module.survey(IdealModel(images, 1.0), 0, metric="logits", nodes=9)
