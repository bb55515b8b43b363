"""Dense and low-rank metrics of CGD: how long their steps are, whatever gradients do in between."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invariantzoo.training.optim.cgd import CGD
from invariantzoo.training.optim.metrics import longest

METRICS: list[dict[str, Any]] = [
    {"metric": "full"},
    {"metric": "block"},
    {"metric": "block", "blocks": "row"},
    {"metric": "lowrank"},
    {"metric": "lowrank", "rank": 2},
]
metrics = pytest.mark.parametrize("settings", METRICS, ids=str)


SEEDS, SIZES = 8, ((10, 3), (10,), (1, 10), (1,))


class Regression:
    """Nets 3-10-1, each drawn from a seed, on 64 points of its own: all, or a batch at every step.

    `groups` holds the parameters of every net apart.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.generators = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
        self.groups: list[list[nn.Parameter]] = []
        points = []
        for g in self.generators:
            drawn = [torch.rand(size, generator=g) - 0.5 for size in SIZES]
            self.groups.append([nn.Parameter(q) for q in drawn])
            points.append(torch.randn(64, 3, generator=g))
        self.points = torch.stack(points)

    def losses(self, whole: bool = False) -> Tensor:
        """Mean squares [seeds]."""
        w1, b1, w2, b2 = (torch.stack(same) for same in zip(*self.groups, strict=True))
        x = self.points
        if self.batch and not whole:
            rows = [torch.randint(0, 64, (self.batch,), generator=g) for g in self.generators]
            x = torch.stack([part[row] for part, row in zip(x, rows, strict=True)])
        hidden = torch.tanh(x @ w1.mT + b1.unsqueeze(1))
        found = hidden @ w2.mT + b2.unsqueeze(1)
        return (found - x.prod(2, keepdim=True)).square().mean((1, 2))


def flat(groups: list[list[nn.Parameter]]) -> Tensor:
    """All parameters [groups, parameters]."""
    return torch.stack([torch.cat([p.detach().flatten() for p in group]) for group in groups])


def descend(
    groups: list[list[nn.Parameter]], losses: Callable[[], Tensor], steps: int, **settings: Any
) -> Tensor:
    """Length of the longest step of every group over lr."""
    optimizer = CGD([{"params": group} for group in groups], **settings)
    far = torch.zeros(len(groups), dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        losses().sum().backward()  # type: ignore[no-untyped-call]
        before = flat(groups)
        optimizer.step()
        far = torch.maximum(far, (flat(groups) - before).double().norm(dim=1) / settings["lr"])
    return far


def allowed(params: list[nn.Parameter], settings: dict[str, Any]) -> float:
    """lr max(3 sqrt(n), B sqrt(blocks)) over lr, B of (9, 999)."""
    blocks = 1
    if settings["metric"] == "block":
        rows = settings.get("blocks") == "row"
        blocks = sum(p.shape[0] if rows else 1 for p in params)
    return max(3 * math.sqrt(sum(p.numel() for p in params)), 7.271 * math.sqrt(blocks))


@metrics
@pytest.mark.parametrize("batch", [0, 8])
def test_steps_on_a_regression(settings: dict[str, Any], batch: int) -> None:
    """No step is too long, and the loss ends no more than a tenth above that of refresh 1.

    A low-rank metric has no refresh: it is decomposed at every step.
    """
    ends: dict[int, Tensor] = {}
    for refresh in (1,) if settings["metric"] == "lowrank" else (1, 10):
        task = Regression(batch)
        far = descend(task.groups, task.losses, 40, lr=0.01, refresh=refresh, **settings)
        assert float(far.amax()) <= allowed(task.groups[0], settings)
        ends[refresh] = task.losses(whole=True).detach()
    if 10 in ends:
        assert float((ends[10] / ends[1]).log().mean()) < math.log(1.1)


@pytest.mark.parametrize(("tau2", "lr"), [(9.0, 0.01), (999.0, 0.02)])
def test_steps_in_rosenbrocks_valley(tau2: float, lr: float) -> None:
    """From eight starts, each a group with a metric of its own."""
    ends = []
    for refresh in (1, 10):
        generators = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
        starts = [4 * torch.rand(2, generator=g, dtype=torch.float64) - 2 for g in generators]
        groups = [[nn.Parameter(q)] for q in starts]
        settings: dict[str, Any] = {"metric": "full", "refresh": refresh, "tau2": tau2}

        def losses(groups: list[list[nn.Parameter]] = groups) -> Tensor:
            return valley(torch.stack([q for (q,) in groups]))

        assert float(descend(groups, losses, 80, lr=lr, **settings).amax()) <= 3 * math.sqrt(2)
        ends.append(losses().detach())
    assert float((ends[1] / ends[0]).log().mean()) < math.log(1.1)


def valley(q: Tensor) -> Tensor:
    """Rosenbrock's function at points [starts, 2]."""
    return (1 - q[:, 0]) ** 2 + 100 * (q[:, 1] - q[:, 0] ** 2) ** 2


def silence(n: int, count: int) -> list[Tensor]:
    """Gradients that are zero for a long time, then all at once large along every axis."""
    generator = torch.Generator().manual_seed(0)
    loud = torch.randn(n, generator=generator, dtype=torch.float64)
    return [torch.zeros(n, dtype=torch.float64)] * (count - 12) + [loud * 1.3**k for k in range(12)]


@pytest.mark.parametrize("settings", METRICS[:2], ids=str)
@pytest.mark.parametrize("alpha", [0.5, 0.25])
def test_a_force_that_left_the_span(settings: dict[str, Any], alpha: float) -> None:
    """A basis that is kept for 10,000 steps is renewed where the step would be too long."""
    n = 30
    q = nn.Parameter(torch.zeros(n, dtype=torch.float64))
    optimizer = CGD([q], 1.0, refresh=10_000, alpha=alpha, eps=0.0, **settings)
    for g in silence(n, 2000):
        before, q.grad = q.detach().clone(), g
        optimizer.step()
        if alpha == 0.5:
            assert float((q.detach() - before).norm()) <= longest(9.0, 999.0, n) * (1 + 1e-9)
    if alpha != 0.5:  # the same directions were looked at, whatever the exponent
        assert optimizer.state[q]["renewed"] > 1980


@pytest.mark.parametrize("rank", [2, 5])
def test_a_low_rank_force_that_left_the_span(rank: int) -> None:
    """Gradients of one kind for a long time, then nearly parallel ones of another."""
    generator = torch.Generator().manual_seed(0)
    q = nn.Parameter(torch.zeros(9, dtype=torch.float64))
    optimizer = CGD([q], 1.0, metric="lowrank", rank=rank, eps=0.0)
    kick, other = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    for t in range(60):
        noise = 1e-6 * torch.randn(9, generator=generator, dtype=torch.float64)
        before, q.grad = q.detach().clone(), (kick if t < 40 else other) + noise
        optimizer.step()
        assert float((q.detach() - before).norm()) <= longest(9.0, 999.0, 1)


def test_the_limit() -> None:
    assert longest(9.0, 999.0, 1) == pytest.approx(7.270, abs=1e-3)
    assert longest(9.0, 999.0, 100) == 30
    assert longest(9.0, 4.0, 100) == math.inf


@metrics
@pytest.mark.parametrize("refresh", [1, 10])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_a_metric_that_cannot_be_decomposed_ends_no_run(
    settings: dict[str, Any], refresh: int, bad: float
) -> None:
    q = nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    optimizer = CGD([q], 0.1, refresh=refresh, **settings)
    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for step in range(30):
            q.grad = torch.randn(4, 3, generator=generator, dtype=torch.float64)
            if step == 12:
                q.grad[1, 2] = bad
            optimizer.step()
    finite = q.detach().isfinite()
    if bad == 1e200:  # as with Adam, what has overflowed stands still
        assert bool(finite.all())
    if settings.get("blocks") == "row":
        assert bool(finite[[0, 2, 3]].all())
        assert bool((q.detach()[[0, 2, 3]] != 0).all())


@pytest.mark.parametrize("settings", METRICS, ids=str)
def test_a_decomposition_that_fails_is_said(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise torch.linalg.LinAlgError("no convergence")

    q = nn.Parameter(torch.zeros(4, 3))
    plain = nn.Parameter(torch.zeros(4, 3))
    optimizer, diagonal = CGD([q], 0.1, **settings), CGD([plain], 0.1)
    q.grad = plain.grad = torch.arange(12.0).view(4, 3) + 1
    monkeypatch.setattr(torch.linalg, "eigh", fail)
    with pytest.warns(RuntimeWarning, match="cannot be decomposed"):
        optimizer.step()
    diagonal.step()
    if settings["metric"] != "lowrank":
        torch.testing.assert_close(q, plain)
    assert bool(q.isfinite().all())
