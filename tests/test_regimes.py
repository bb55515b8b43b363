"""Regimes of learning: exponents that were set are found, by hand, closed loop, and in runs."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from invariantzoo.training.geometry import regimes
from invariantzoo.training.optim.cgd import CGD
from invariantzoo.training.optim.metrics import scale
from invariantzoo.training.rl.regime_callback import RegimeCallback

F64 = torch.float64
N = 12
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def spectrum() -> tuple[Tensor, Tensor]:
    """Eigenvalues 1e-2 … 1e2 [N] and a random rotation [N, N]."""
    generator = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(N, N, generator=generator, dtype=F64))[0]
    return torch.logspace(-2, 2, N, dtype=F64), rotation


def by_hand(alpha: float, steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gradients and updates [steps, N] by g = kappa^alpha; loss 0.025 |q|^2, noise N(0, kappa)."""
    values, rotation = spectrum()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(steps, N, generator=generator, dtype=F64) * values.sqrt() @ rotation.T
    inverse = rotation @ torch.diag(values**-alpha) @ rotation.T
    q, gradients, updates = torch.zeros(N, dtype=F64), [], []
    for kick in noise:
        gradients.append(0.05 * q + kick)
        updates.append(-1e-3 * inverse @ gradients[-1])
        q = q + updates[-1]
    return torch.stack(gradients), torch.stack(updates)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_alpha_that_was_set(alpha: float) -> None:
    """A: alpha, the slope 1 - 2 alpha, and g^{-1} = Cov(updates)^(alpha / (2 alpha - 1))."""
    gradients, updates = by_hand(alpha, 20_000)
    found = regimes.estimate_alpha(gradients, updates)
    assert found.modes == N
    assert found.alpha == pytest.approx(alpha, abs=0.01)
    assert found.slope == pytest.approx(1 - 2 * alpha, abs=0.02)
    assert abs(found.alpha - alpha) < 4 * found.error + 0.005
    assert found.r2 > 0.999 if alpha != 0.5 else found.r2 < 0.9
    if alpha not in (0.0, 0.5):
        values, vectors = torch.linalg.eigh(regimes.covariance(updates / 1e-3))
        raised = vectors @ torch.diag(values ** (alpha / (2 * alpha - 1))) @ vectors.T
        spread, rotation = spectrum()
        inverse = rotation @ torch.diag(spread**-alpha) @ rotation.T
        assert float((raised - inverse).norm() / inverse.norm()) < 0.05


def closed_loop(alpha: float, steps: int, **settings: Any) -> tuple[Tensor, Tensor]:
    """CGD that estimates its own metric, after 2000 gradients at rest."""
    values, rotation = spectrum()
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(2000 + steps, N, generator=generator, dtype=F64)
    q = nn.Parameter(torch.zeros(N, dtype=F64))
    given = {"metric": "full", "alpha": alpha, "tau1": 0.0, "eps": 0.0, "refresh": 10, **settings}
    optimizer = CGD([q], 0.0, **given)  # type: ignore[arg-type]
    watched = regimes.StepRecorder(steps).attach(optimizer, [("q", q)])
    for t, kick in enumerate(noise * values.sqrt() @ rotation.T):
        optimizer.param_groups[0]["lr"] = 1e-3 if t >= 2000 else 0.0
        q.grad = 0.05 * q.detach() + kick
        optimizer.step()
    return watched.tensors()["q"]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_alpha_of_a_closed_loop(alpha: float) -> None:
    """B."""
    found = regimes.estimate_alpha(*closed_loop(alpha, 5000))
    assert found.alpha == pytest.approx(alpha, abs=0.01)
    assert regimes.regime(found) == regimes.REGIMES[int(2 * alpha)]


def test_averaging_the_force_does_not_matter() -> None:
    found = regimes.estimate_alpha(*closed_loop(1.0, 5000, tau1=9.0))
    assert found.alpha == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_sphericity(alpha: float) -> None:
    """C: 400 updates are isotropic at alpha = 1/2 and nowhere else."""
    found = regimes.sphericity(by_hand(alpha, 400)[1])
    assert found.freedom == 77
    if alpha == 0.5:
        assert found.statistic < 98.5
        assert found.p > 0.05
    else:
        assert found.statistic > 1000
        assert found.p < 1e-6


def test_size_of_the_sphericity_test() -> None:
    """True hypotheses are rejected as often as they should be: 5 %."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1000, 15 * 6, 6, generator=generator, dtype=F64)
    rejected = sum(regimes.sphericity(one).p < 0.05 for one in noise)
    assert 25 < rejected < 75
    assert float(torch.tensor([regimes.sphericity(one).p for one in noise]).mean()) == (
        pytest.approx(0.5, abs=0.04)
    )


@pytest.mark.parametrize(
    ("product", "decades"), [(1e-4, 5.60), (1e-2, 1.91), (1.0, 0.53), (100.0, 0.37)]
)
def test_plateau_of_the_mixed_metric(product: float, decades: float) -> None:
    """Width of 0.4 < alpha < 0.6, by formula and by the metric that CGD uses."""
    for eps in (0.01, 1.0):
        zeta = product / eps
        assert regimes.plateau(eps, zeta) == pytest.approx(decades, abs=0.006)
        log_k = torch.linspace(-30, 30, 200_001, dtype=F64)
        slope = scale(log_k.exp(), 0.5, eps, zeta).log().diff() / log_k.diff()
        inside = int(((slope > 0.4) & (slope < 0.6)).sum())
        assert inside * 60 / 200_000 / math.log(10) == pytest.approx(decades, abs=0.006)


def test_exponents_of_the_mixed_metric() -> None:
    """1/4 at eps^2, 3/4 at zeta^-2, 1/2 at eps / zeta; and the bands between them."""
    eps, zeta = 1e-3, 1e-2
    k = torch.tensor([eps**2, eps / zeta, zeta**-2], dtype=F64)
    found = regimes.exponent(k, eps, zeta)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.5, 0.75], dtype=F64), atol=1e-4, rtol=0)
    report = regimes.modes(torch.diag(torch.tensor([1e-8, 1.0, 1e6], dtype=F64)), eps, zeta)
    assert [one.regime for one in report] == list(regimes.REGIMES[::-1])
    assert [round(one.exponent, 1) for one in report] == [1.0, 0.5, 0.0]
    assert {regimes.band(k, 10.0, 10.0) for k in (0.5, 2.0)} == {"equilibration", "quantum"}
    assert regimes.band(1e9, 1e-3, 0.0) == "efficient"


def test_effective_rank() -> None:
    """n for equal modes, and zeta(s)^2 / zeta(2 s) for a spectrum k^-s."""
    assert regimes.effective_rank(torch.eye(7)) == pytest.approx(7)
    assert regimes.effective_rank(torch.zeros(3, 3)) == 0
    k = torch.arange(1, 3000, dtype=F64)
    exact = (math.pi**2 / 6) ** 2 / (math.pi**4 / 90)
    assert regimes.effective_rank(torch.diag(k**-2)) == pytest.approx(exact, rel=1e-3)


def test_few_samples_of_many_parameters() -> None:
    """100 steps of 4000 parameters whose noise lives in six directions."""
    generator = torch.Generator().manual_seed(4)
    axes = torch.linalg.qr(torch.randn(4000, 6, generator=generator, dtype=F64))[0]
    size = torch.logspace(0, 2, 6, dtype=F64)
    for alpha in (0.0, 0.5, 1.0):
        noise = torch.randn(100, 6, generator=generator, dtype=F64)
        noise = torch.linalg.qr(noise - noise.mean(0))[0]  # exactly uncorrelated
        gradients = noise * size.sqrt() @ axes.T
        updates = noise * size ** (0.5 - alpha) @ axes.T
        found = regimes.estimate_alpha(gradients, updates, modes=6)
        assert found.alpha == pytest.approx(alpha, abs=1e-6)
        assert regimes.regime(found) == regimes.REGIMES[int(2 * alpha)]


def test_gradients_of_samples_episodes_and_agents() -> None:
    generator = torch.Generator().manual_seed(6)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(10, 3, generator=generator, dtype=F64)
    y = torch.randn(10, 1, generator=generator, dtype=F64)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()

    found = regimes.sample_gradients(net, loss, x, y)
    for i in range(10):
        net.zero_grad()
        loss(net(x[i : i + 1]), y[i : i + 1]).backward()  # type: ignore[no-untyped-call]
        one = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        torch.testing.assert_close(found[i], one)
    episodes = torch.tensor([3, 3, 1, 1, 1, 0, 0, 0, 0, 3])
    means = torch.stack([found[episodes == k].mean(0) for k in (0, 1, 3)])
    torch.testing.assert_close(regimes.group_means(found, episodes), means)
    torch.testing.assert_close(regimes.covariance(found, episodes), torch.cov(means.T))
    with pytest.raises(ValueError, match=r"groups has shape \(3,\), not \(10,\)"):
        regimes.group_means(found, episodes[:3])


def test_errors_are_one_line() -> None:
    noise = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    for bad, said in (
        (lambda: regimes.estimate_alpha(noise[:2], noise), r"gradients has shape \(2, 5\)"),
        (lambda: regimes.estimate_alpha(noise, noise[:, :4]), "5 components, updates 4"),
        (lambda: regimes.estimate_alpha(noise, noise, modes=2), "modes=2 must be"),
        (lambda: regimes.estimate_alpha(noise, 0 * noise), "only 0 modes"),
        (lambda: regimes.sphericity(noise[:5]), "more samples than components"),
        (lambda: regimes.StepRecorder(3), "window=3 must be"),
        (lambda: regimes.plateau(0.0, 1.0), r"eps=0.0 must be"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            bad()
        assert "\n" not in str(error.value)


def test_undecided() -> None:
    """Where variances of updates have nothing to do with those of gradients."""
    gradients, _ = by_hand(0.5, 1000)
    rotation = spectrum()[1]
    wild = torch.tensor([1.0, 1e6], dtype=F64).repeat(N // 2)
    generator = torch.Generator().manual_seed(3)
    updates = torch.randn(1000, N, generator=generator, dtype=F64) * wild.sqrt() @ rotation.T
    assert regimes.regime(regimes.estimate_alpha(gradients, updates)) == "undecided"


OFF = {"learning_starts": 20, "train_freq": 4, "batch_size": 16, "buffer_size": 200}


@pytest.mark.parametrize(
    ("make", "env", "given"),
    [
        (PPO, "Pendulum-v1", {"n_steps": 64, "batch_size": 8, "n_epochs": 2}),
        (SAC, "Pendulum-v1", OFF),
        (DQN, "CartPole-v1", OFF),
    ],
)
def test_callback(make: Any, env: str, given: dict[str, Any], tmp_path: Path) -> None:
    """The numbers reach progress.csv and TensorBoard, and describe what the optimizer did."""
    model = make("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu", **given)
    model.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    callback = RegimeCallback(window=40)
    model.learn(260, callback=callback, log_interval=1)
    model.logger.close()
    with (tmp_path / "progress.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    names = ("alpha", "alpha_error", "alpha_r2", "effective_rank", "sphericity")
    numbers = [float(last[f"regimes/{name}"]) for name in names]
    assert all(map(math.isfinite, numbers))
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert {f"regimes/{name}" for name in names} <= set(board.Tags()["scalars"])
    assert len(callback.steps) == 40
    gradients, updates = callback.steps.together()
    assert gradients.shape == updates.shape
    assert regimes.summarise(gradients, updates).keys() == set(names)


def test_a_callback_of_several_trainings_sees_each_step_once() -> None:
    """SB3 makes callbacks ready at every `learn`."""
    settings: dict[str, Any] = {"n_steps": 64, "batch_size": 8, "n_epochs": 1}
    settings["policy_kwargs"] = {"net_arch": [2]}
    model = PPO("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", **settings)
    callback = RegimeCallback(window=100)
    for times in (1, 2):
        model.learn(64, callback=callback, reset_num_timesteps=False)
        assert len(callback.steps) == 8 * times
    _, updates = callback.steps.together()
    assert len(updates.unique(dim=0)) == len(updates) == 16
