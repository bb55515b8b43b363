"""Dense and low-rank metrics of CGD: how long their steps are, whatever gradients do in between."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invariantzoo.training.optim.cgd import CGD, longest

METRICS: list[dict[str, Any]] = [
    {"metric": "full"},
    {"metric": "block"},
    {"metric": "block", "blocks": "row"},
    {"metric": "lowrank"},
    {"metric": "lowrank", "rank": 2},
]
metrics = pytest.mark.parametrize("settings", METRICS, ids=str)


def regression(seed: int, batch: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A net 3-16-1 on 64 points, and its loss on all of them or on a batch."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(-0.5, 0.5, generator=generator)
    x = torch.randn(64, 3, generator=generator)
    y = x.prod(1, keepdim=True)

    def loss() -> Tensor:
        rows = torch.randint(0, 64, (batch,), generator=generator) if batch else slice(None)
        return (net(x[rows]) - y[rows]).square().mean()

    return net, loss


def descend(params: list[Any], loss: Callable[[], Tensor], steps: int, **settings: Any) -> float:
    """Length of the longest step over lr."""
    optimizer, far = CGD(params, **settings), 0.0
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        before = [p.detach().clone() for p in params]
        optimizer.step()
        moved = torch.cat([(p.detach() - q).flatten() for p, q in zip(params, before, strict=True)])
        far = max(far, float(moved.double().norm()) / settings["lr"])
    return far


def allowed(params: list[Any], settings: dict[str, Any]) -> float:
    """lr max(3 sqrt(n), B sqrt(blocks)) over lr, B of (9, 999)."""
    blocks = 1
    if settings["metric"] == "block":
        rows = settings.get("blocks") == "row"
        blocks = sum(p.shape[0] if rows else 1 for p in params)
    return max(3 * math.sqrt(sum(p.numel() for p in params)), 7.271 * math.sqrt(blocks))


@metrics
@pytest.mark.parametrize("batch", [0, 8])
def test_steps_on_a_regression(settings: dict[str, Any], batch: int) -> None:
    """No step is too long, and the loss ends no more than a tenth above that of refresh 1."""
    ends: dict[int, list[float]] = {}
    for refresh in (1, 10):
        for seed in range(8):
            net, loss = regression(seed, batch)
            params = list(net.parameters())
            far = descend(params, loss, 40, lr=0.01, refresh=refresh, **settings)
            assert far <= allowed(params, settings)
            with torch.no_grad():
                ends.setdefault(refresh, []).append(
                    sum(float(loss()) for _ in range(1 if batch == 0 else 20))
                )
    logs = [math.log(a / b) for a, b in zip(ends[10], ends[1], strict=True)]
    assert sum(logs) / len(logs) < math.log(1.1)


@pytest.mark.parametrize(("tau2", "lr"), [(9.0, 0.01), (999.0, 0.02)])
def test_steps_in_rosenbrocks_valley(tau2: float, lr: float) -> None:
    ends: dict[int, list[float]] = {}
    for refresh in (1, 10):
        for seed in range(8):
            generator = torch.Generator().manual_seed(seed)
            q = nn.Parameter(4 * torch.rand(2, generator=generator, dtype=torch.float64) - 2)

            def loss(q: Tensor = q) -> Tensor:
                return (1 - q[0]) ** 2 + 100 * (q[1] - q[0] ** 2) ** 2

            settings = {"metric": "full", "refresh": refresh, "tau2": tau2}
            assert descend([q], loss, 80, lr=lr, **settings) <= 3 * math.sqrt(2)
            ends.setdefault(refresh, []).append(float(loss().detach()))
    logs = [math.log(a / b) for a, b in zip(ends[10], ends[1], strict=True)]
    assert sum(logs) / len(logs) < math.log(1.1)


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
