"""The diffusion model that ships: what it makes, in which precision, and that training learns."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.training.geometry import diffusion
from invariantzoo.training.geometry.diffusion import read_digits
from invariantzoo.training.geometry.diffusion_training import fit_velocities


@cache
def samples() -> np.ndarray:
    """400 images of the shipped model."""
    z = np.random.default_rng(0).normal(size=(400, 64))
    return invariantzoo.load_diffusion("digits", dtype="float32")(z)


def test_samples_are_digits_of_every_class_and_no_copies() -> None:
    model = invariantzoo.load_diffusion("digits", dtype="float32")
    probabilities = model.probabilities(samples())
    assert probabilities.sum(-1) == pytest.approx(1.0, abs=1e-5)
    assert probabilities.max(-1).mean() > 0.93
    counts = np.bincount(model.classify(samples()), minlength=10)
    assert counts.min() >= 20
    assert counts.max() <= 65
    images, _ = read_digits()
    away = np.linalg.norm(samples()[:, None] - images[None], axis=-1)
    nearest = np.linalg.norm(images[:300, None] - images[None], axis=-1)
    nearest[np.arange(300), np.arange(300)] = np.inf
    assert away.min() > 0.8
    assert np.median(nearest.min(1)) < np.median(away.min(1)) < 1.5 * np.median(nearest.min(1))


def test_classifier_knows_the_digits() -> None:
    images, labels = read_digits()
    assert images.shape == (1797, 64)
    assert images.min() == -1
    assert images.max() == 1
    assert np.bincount(labels).min() > 170
    model = invariantzoo.load_diffusion()
    assert (model.classify(images) == labels).mean() > 0.98
    features, embedding = model.features(images), model.embedding(images)
    assert features.std(0) == pytest.approx(1.0, abs=0.05)
    assert np.linalg.norm(embedding, axis=1) == pytest.approx(1.0)
    scale = (embedding / features)[0] * (features[0, 0] / embedding[0, 0])
    assert embedding * (features[:, :1] / embedding[:, :1]) == pytest.approx(features * scale)
    odds = np.exp(model.logits(images))
    assert odds / odds.sum(1, keepdims=True) == pytest.approx(model.probabilities(images))


def test_another_network_has_the_same_classifier() -> None:
    model, images = invariantzoo.load_diffusion(dtype="float32"), read_digits()[0][:20]
    other = model.with_network(diffusion.VelocityNet(width=32))
    assert (other.probabilities(images) == model.probabilities(images)).all()
    z = np.random.default_rng(0).normal(size=(3, 64))
    assert other(z).shape == (3, 64)
    assert not np.allclose(other(z), model(z))


def test_precisions_agree_and_tensors_stay_tensors() -> None:
    z = np.random.default_rng(1).normal(size=(20, 64))
    exact = invariantzoo.load_diffusion()(z)
    assert exact.dtype == np.float64
    rough = invariantzoo.load_diffusion(dtype="float32")(z)
    assert rough.dtype == np.float32
    assert rough == pytest.approx(exact, abs=1e-3)
    tensors = invariantzoo.load_diffusion()(torch.from_numpy(z))
    assert torch.equal(tensors, torch.from_numpy(exact))
    assert invariantzoo.load_diffusion()(z[3:4]) == pytest.approx(exact[3:4], abs=1e-11)


def test_training_learns_a_law_of_one_image() -> None:
    """Data of one image x_0: the best velocity is x cot(phi) - x_0 / sin(phi)."""
    image = torch.linspace(-1, 1, 64)
    net = fit_velocities(image[None], steps=900, batch=64)
    draws = torch.Generator().manual_seed(1)
    errors = []
    for phi in (0.8, 1.2, 1.5):
        z = torch.randn((50, 64), generator=draws)
        x = image * math.cos(phi) + z * math.sin(phi)
        with torch.no_grad():
            v = net(x, torch.tensor([phi]))
        errors.append((v - (x / math.tan(phi) - image / math.sin(phi))).square().mean())
    assert max(errors) < 0.1  # of variance 1 and more


def test_the_map_is_a_rotation_by_velocities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data of a standard normal law: v = 0, and images are the latents times cos(d)^steps."""
    monkeypatch.setattr(diffusion.VelocityNet, "forward", lambda self, x, phi: torch.zeros_like(x))
    z = np.random.default_rng(1).normal(size=(4, 64))
    shrunk = math.cos(math.pi / 100) ** 50
    assert invariantzoo.load_diffusion()(z) == pytest.approx(shrunk * z, rel=1e-12)


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="name='digit' must be"):
        invariantzoo.load_diffusion("digit")
    with pytest.raises(ValueError, match="dtype='half' must be"):
        invariantzoo.load_diffusion(dtype="half")
    model = invariantzoo.load_diffusion()
    with pytest.raises(ValueError, match=r"latents have shape \(64,\)"):
        model(np.zeros(64))
    with pytest.raises(ValueError, match="images="):
        model.classify(["a"])
