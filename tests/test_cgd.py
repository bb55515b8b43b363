"""CGD: the optimizers it contains, the formula, exact properties, and manners of torch.optim."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference_cgd import descend, direction
from torch import Tensor, nn

from invariantzoo.figures import descent_valley
from invariantzoo.training.optim.cgd import CGD

F64 = torch.float64


def network(seed: int = 0, dtype: torch.dtype = F64) -> nn.Sequential:
    """An MLP 3-8-1."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=dtype) / 2)
    return net


def batches(steps: int, dtype: torch.dtype = F64, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(steps):
        x = torch.randn(16, 3, generator=generator, dtype=dtype)
        found.append((x, x[:, :1] * x[:, 1:2] + x[:, 2:]))
    return found


def backward(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    net.zero_grad()
    loss = (net(x) - y).square().mean()
    loss.backward()
    return loss


def train(net: nn.Module, optimizer: Any, data: list[tuple[Tensor, Tensor]]) -> Tensor:
    for batch in data:
        backward(net, batch)
        optimizer.step()
    return flat(net.parameters())


def flat(params: Any) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in params])


class AdaBelief(torch.optim.Optimizer):
    """As published, without eps in the average."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})
        self.t = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.t += 1
        for group in self.param_groups:
            for p in group["params"]:
                s = self.state[p]
                if not s:
                    s["m"], s["s"] = torch.zeros_like(p), torch.zeros_like(p)
                s["m"] = 0.9 * s["m"] + 0.1 * p.grad
                s["s"] = 0.999 * s["s"] + (1 - 0.999) * (p.grad - s["m"]) ** 2
                m, v = s["m"] / (1 - 0.9**self.t), s["s"] / (1 - 0.999**self.t)
                p.sub_(group["lr"] * m / (v.sqrt() + 1e-16))


TWINS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sgd": (lambda p: CGD.sgd(p, lr=0.05), lambda p: torch.optim.SGD(p, lr=0.05)),
    "momentum": (
        lambda p: CGD.momentum(p, lr=0.01, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    ),
    "dampened": (
        lambda p: CGD.momentum(p, lr=0.05, momentum=0.9, dampening=0.9),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.9),
    ),
    "rmsprop": (lambda p: CGD.rmsprop(p), lambda p: torch.optim.RMSprop(p)),
    "centered rmsprop": (
        lambda p: CGD.rmsprop(p, centered=True),
        lambda p: torch.optim.RMSprop(p, centered=True),
    ),
    "adam": (lambda p: CGD.adam(p, lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    "adam up": (
        lambda p: CGD.adam(p, maximize=True),
        lambda p: torch.optim.Adam(p, maximize=True),
    ),
    "adamw": (
        lambda p: CGD.adamw(p, lr=0.01, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    ),
    "adabelief": (lambda p: CGD.adabelief(p, lr=0.01), lambda p: AdaBelief(p, lr=0.01)),
}


@pytest.fixture(params=[True, False], ids=["kernel", "foreach"])
def kernel(request: pytest.FixtureRequest) -> bool:
    return request.param


def ours(name: str, params: Any, kernel: bool) -> CGD:
    optimizer = TWINS[name][0](params)
    for group in optimizer.param_groups:
        group["fused"] = None if kernel else False
    return optimizer


@pytest.mark.parametrize("name", TWINS)
def test_trajectories_of_twins(name: str, kernel: bool) -> None:
    one, other = network(), network()
    start = flat(one.parameters())
    data = batches(200)
    here = train(one, ours(name, one.parameters(), kernel), data)
    there = train(other, TWINS[name][1](other.parameters()), data)
    assert float((here - start).abs().max()) > 0.1
    torch.testing.assert_close(here, there, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TWINS)
def test_one_step_of_twins_from_equal_state(name: str, kernel: bool) -> None:
    """After 1, 2 and 30 common steps."""
    for before in (1, 2, 30):
        *warm, last = batches(before)
        one, other = network(), network()
        mine, theirs = ours(name, one.parameters(), kernel), TWINS[name][1](other.parameters())
        for batch in warm:  # the same weights at every step, so that the states are equal
            for net, optimizer in ((one, mine), (other, theirs)):
                backward(net, batch)
                optimizer.step()
            one.load_state_dict(other.state_dict())
        here, there = train(one, mine, [last]), train(other, theirs, [last])
        assert float((here - there).norm() / there.norm()) < 1e-14


@pytest.mark.parametrize("name", ["adam", "adabelief", "rmsprop", "momentum"])
def test_twins_in_single_precision(name: str, kernel: bool) -> None:
    one, other = network(dtype=torch.float32), network(dtype=torch.float32)
    data = batches(200, torch.float32)
    here = train(one, ours(name, one.parameters(), kernel), data)
    there = train(other, TWINS[name][1](other.parameters()), data)
    torch.testing.assert_close(here, there, rtol=0, atol=1e-5)


def test_adabelief_is_a_variance_of_uncorrected_moments() -> None:
    """With one beta and no eps: C = M2 - M1^2 at the step lr / sqrt(beta)."""
    tau, beta, data = 9.0, 0.9, batches(100)
    one, other = network(), network()
    plain = {"tau1": tau, "tau2": tau, "eps": 0.0, "bias_correction": False}
    here = train(one, CGD(one.parameters(), 1e-3, centered="residual", **plain), data)
    mean = CGD(other.parameters(), 1e-3 / beta**0.5, centered="mean", **plain)
    torch.testing.assert_close(here, train(other, mean, data), rtol=0, atol=1e-12)


SETTINGS: list[dict[str, Any]] = [
    {"tau1": 9.0, "tau2": 9.0, "alpha": 0.5, "eps": 1e-8},
    {"tau1": 4.0, "tau2": 99.0, "alpha": 1.0, "eps": 1e-3},
    {"tau1": 0.0, "tau2": 9.0, "alpha": 0.25, "eps": 0.1, "zeta": 0.3},
    {"tau1": 9.0, "tau2": 99.0, "alpha": 0.75, "eps": 1e-2, "centered": "residual"},
    {"tau1": 9.0, "tau2": 4.0, "alpha": 0.5, "eps": 1e-2, "centered": "mean"},
    {"tau1": 9.0, "tau2": 9.0, "alpha": -0.5, "eps": 0.5},
    {"tau1": 9.0, "tau2": 19.0, "alpha": 0.5, "eps": 1e-3, "bias_correction": False},
]


def valley() -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A start [6] and the gradient of a stretched, coupled quartic, with noise of its own."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(6, 6, generator=generator, dtype=F64)
    form = mix @ torch.diag(torch.logspace(-1, 1, 6, dtype=F64)) @ mix.T
    start = torch.randn(6, generator=generator, dtype=F64)
    kicks = iter(noise(6, 30))
    return start, lambda q: form @ q + q**3 + next(kicks)


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_formula(settings: dict[str, Any], full: bool, kernel: bool) -> None:
    start, gradient = valley()
    expected = descend(start, gradient, 30, lr=0.01, full=full, **settings)
    start, gradient = valley()
    q = nn.Parameter(start.clone())
    metric = "full" if full else "diagonal"
    optimizer = CGD([q], 0.01, metric=metric, fused=None if kernel else False, **settings)
    for _ in range(30):
        q.grad = gradient(q.detach())
        optimizer.step()
    assert float((expected - start).abs().max()) > 1e-3
    torch.testing.assert_close(q.detach(), expected, rtol=1e-9, atol=1e-9)


def steps(gradients: list[Tensor], **settings: Any) -> Tensor:
    """The last direction that CGD takes along given gradients [n]."""
    q = nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = CGD([q], 1.0, **settings)
    for g in gradients:
        before, q.grad = q.detach().clone(), g
        optimizer.step()
    return before - q.detach()


def noise(n: int, count: int, seed: int = 0, rank: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(rank or n, n, generator=generator, dtype=F64)
    return [torch.randn(rank or n, generator=generator, dtype=F64) @ mix for _ in range(count)]


@pytest.mark.parametrize(("tau1", "tau2", "bound"), [(9.0, 9.0, 1.0), (9.0, 999.0, 7.270)])
def test_step_bound(tau1: float, tau2: float, bound: float) -> None:
    """|d| <= B under a full metric, and per coordinate under a diagonal one; gradients that agree
    after a long silence come close to it.
    """
    b1, b2 = tau1 / (1 + tau1), tau2 / (1 + tau2)
    exact = math.sqrt((1 - b1) ** 2 / ((1 - b2) * (1 - b1**2 / b2)))
    assert exact == pytest.approx(bound, abs=1e-3)
    plain = {"tau1": tau1, "tau2": tau2, "eps": 0.0, "bias_correction": False}
    n, largest = 20, 0.0
    aligned = [torch.ones(n, dtype=F64) * (b1 / b2) ** -t for t in range(80)]
    for gradients in (noise(n, 60), aligned, noise(n, 40, rank=2)):
        for count in (1, 5, len(gradients)):
            full = steps(gradients[:count], metric="full", **plain)
            each = steps(gradients[:count], **plain)
            largest = max(largest, float(full.norm()))
            assert float(full.norm()) <= exact * (1 + 1e-9)
            assert float(each.abs().max()) <= exact * (1 + 1e-9)
    assert largest > 0.95 * exact


def transformations(n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    signs = 2.0 * torch.randint(0, 2, (n,), generator=generator).double() - 1
    general = torch.randn(n, n, generator=generator, dtype=F64)
    return {
        "signed permutation": torch.eye(n, dtype=F64)[torch.randperm(n, generator=generator)]
        * signs,
        "rotation": torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=F64))[0],
        "axis scaling": torch.diag(torch.logspace(-1, 1, n, dtype=F64)),
        "general": general,
    }


COVARIANT = {
    "diagonal": {
        0.0: ("signed permutation", "rotation"),
        0.5: ("signed permutation",),
        1.0: ("signed permutation", "axis scaling"),
    },
    "full": {
        0.0: ("signed permutation", "rotation"),
        0.5: ("signed permutation", "rotation"),
        1.0: ("signed permutation", "rotation", "axis scaling", "general"),
    },
}


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("metric", ["diagonal", "full"])
@pytest.mark.parametrize("name", list(transformations(5)))
def test_covariance(metric: str, alpha: float, name: str) -> None:
    """x = A z: gradients in z are A^T times those in x, and steps in x should be A times in z."""
    a = transformations(5)[name]
    gradients = noise(5, 30)
    settings: dict[str, Any] = {"metric": metric, "alpha": alpha, "tau2": 99.0, "eps": 0.0}
    here = steps(gradients, **settings)
    there = a @ steps([a.T @ g for g in gradients], **settings)
    error = float((here - there).norm() / here.norm())
    if name in COVARIANT[metric][alpha]:
        assert error < 1e-11
    else:
        assert error > 0.1


@pytest.mark.parametrize("metric", ["diagonal", "full", "block", "lowrank"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_scale_of_the_loss(metric: str, alpha: float) -> None:
    """d goes as c^(1 - 2 alpha)."""
    gradients, c = noise(4, 12), 37.0
    settings: dict[str, Any] = {"metric": metric, "alpha": alpha, "eps": 0.0}
    one, scaled = steps(gradients, **settings), steps([c * g for g in gradients], **settings)
    torch.testing.assert_close(scaled, c ** (1 - 2 * alpha) * one, rtol=1e-9, atol=0)


@pytest.mark.parametrize("centered", ["none", "residual"])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_low_rank_is_dense_while_it_remembers_all(alpha: float, centered: str) -> None:
    gradients = noise(30, 12)
    settings: dict[str, Any] = {"alpha": alpha, "eps": 0.0, "centered": centered, "tau2": 99.0}
    for count in (1, 2, 12):
        dense = steps(gradients[:count], metric="full", **settings)
        low = steps(gradients[:count], metric="lowrank", rank=12, **settings)
        assert float((dense - low).norm() / dense.norm()) < 1e-9
    low = steps(gradients, metric="lowrank", rank=11, **settings)
    assert float((dense - low).norm() / dense.norm()) > 1e-3


def test_low_rank_forgets_the_oldest() -> None:
    """Beyond `rank` steps: the reference on the last gradients, with the force of all of them."""
    gradients, rank = noise(9, 20), 6
    last = gradients[-rank:]
    found = steps(gradients, metric="lowrank", rank=rank, tau1=0.0, tau2=9.0)
    expected = direction(last, tau1=0.0, tau2=9.0, alpha=0.5, eps=1e-8, full=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_blocks_are_full_where_gradients_are_independent_by_block() -> None:
    """Gradients of two tensors never at once: no covariance between them."""
    one, other = (nn.ParameterList([torch.zeros(3, dtype=F64)] * 2) for _ in range(2))
    optimizers = [
        CGD(one.parameters(), 0.1, metric="block"),
        CGD(other.parameters(), 0.1, metric="full"),
    ]
    for t, g in enumerate(noise(3, 40)):
        for net in (one, other):
            for i, p in enumerate(net):
                p.grad = g * (t % 2 == i)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(flat(one), flat(other), rtol=1e-9, atol=1e-12)


def test_rows_are_blocks_of_their_own() -> None:
    """A matrix by rows is its rows apart, and a vector by rows has a diagonal metric."""
    whole = nn.Parameter(torch.zeros(4, 3, dtype=F64))
    apart = [nn.Parameter(torch.zeros(3, dtype=F64)) for _ in range(4)]
    bias, plain = (nn.Parameter(torch.zeros(4, dtype=F64)) for _ in range(2))
    rows = CGD([whole, bias], 0.1, metric="block", blocks="row")
    dense, diagonal = CGD(apart, 0.1, metric="block"), CGD([plain], 0.1)
    for g, b in zip(noise(12, 25), noise(4, 25, seed=2), strict=True):
        whole.grad, bias.grad, plain.grad = g.view(4, 3), b, b.clone()
        for p, row in zip(apart, whole.grad, strict=True):
            p.grad = row.clone()
        for optimizer in (rows, dense, diagonal):
            optimizer.step()
    torch.testing.assert_close(whole.detach(), torch.stack([p.detach() for p in apart]))
    torch.testing.assert_close(bias.detach(), plain.detach())


def test_groups_have_metrics_of_their_own() -> None:
    """A group per agent is an optimizer per agent."""
    together = [nn.Parameter(torch.zeros(4, dtype=F64)) for _ in range(3)]
    apart = [nn.Parameter(torch.zeros(4, dtype=F64)) for _ in range(3)]
    optimizer = CGD([{"params": [p]} for p in together], 0.1, metric="full")
    others = [CGD([p], 0.1, metric="full") for p in apart]
    for g in noise(12, 20):
        for p, q, part in zip(together, apart, g.split(4), strict=True):
            p.grad, q.grad = part.clone(), part.clone()
        optimizer.step()
        for other in others:
            other.step()
    assert flat(together).equal(flat(apart))


def test_a_kept_basis_has_the_powers_of_now_along_it() -> None:
    """Eigenvectors of the last renewal, and the average of squares along them up to this step."""
    settings: dict[str, Any] = {"tau1": 0.0, "tau2": 99.0, "eps": 1e-3, "bias_correction": False}
    gradients = noise(5, 43)
    found = steps(gradients, metric="full", refresh=4, **settings)  # every 4 from step 40 on
    weights = [0.01 * 0.99 ** (42 - i) for i in range(43)]
    then = sum(w * torch.outer(g, g) for w, g in zip(weights[:40], gradients, strict=False))
    now = sum(w * torch.outer(g, g) for w, g in zip(weights, gradients, strict=True))
    assert isinstance(then, Tensor)
    vectors = torch.linalg.eigh(then)[1]
    power = (vectors.T @ now @ vectors).diagonal()
    expected = vectors @ ((vectors.T @ gradients[-1]) / (power.sqrt() + 1e-3))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("centered", ["none", "mean", "residual"])
def test_a_young_or_forgetful_basis_is_never_kept(centered: str) -> None:
    """Before ten steps, and with a memory of ten, every refresh is 1."""
    settings: dict[str, Any] = {"centered": centered, "eps": 1e-3}
    for count, tau2 in ((10, 999.0), (40, 9.0)):
        kept, fresh = (
            steps(noise(5, count), metric="full", refresh=refresh, tau2=tau2, **settings)
            for refresh in (100, 1)
        )
        torch.testing.assert_close(kept, fresh, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("metric", ["diagonal", "full", "block"])
@pytest.mark.parametrize("centered", ["mean", "residual"])
@pytest.mark.parametrize("taus", [(9.0, 99.0), (99.0, 4.0)])
def test_centring_gives_no_nan(metric: str, centered: str, taus: tuple[float, float]) -> None:
    constant = [torch.ones(3, dtype=F64) + 1e-9 * g for g in noise(3, 50)]
    for count in (1, 2, 50):
        found = steps(
            constant[:count], tau1=taus[0], tau2=taus[1], metric=metric, centered=centered
        )
        assert bool(found.isfinite().all())


def test_full_metric_in_the_valley() -> None:
    """Rosenbrock from 64 starts, tau (9, 9), each at its best learning rate."""
    cases = (("full (9, 9)", 0.010), ("diagonal (9, 9)", 0.0075))
    full, diagonal = (
        descent_valley.settled(descent_valley.descend(name, lr)[0]) for name, lr in cases
    )
    assert int((full <= descent_valley.STEPS).sum()) == 64
    assert float(np.median(full) / np.median(diagonal)) <= 0.85


def test_a_parameter_that_never_had_a_gradient_but_zero_stays() -> None:
    zero = [torch.zeros(3, dtype=F64)] * 3
    for metric in ("diagonal", "full", "block", "lowrank"):
        assert not steps(zero, metric=metric, eps=0.0).any()


# Manners of a torch optimizer.

METRICS: list[dict[str, Any]] = [
    {},
    {"fused": False},
    {"metric": "full", "refresh": 3},
    {"metric": "block"},
    {"metric": "block", "blocks": "row", "refresh": 2},
    {"metric": "lowrank", "rank": 4},
    {"centered": "residual"},
    {"centered": "mean", "tau1": 0.0},
]
metrics = pytest.mark.parametrize("settings", METRICS, ids=str)


@metrics
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
@pytest.mark.parametrize("how", ["state_dict", "file", "deepcopy", "pickle"])
def test_continues_exactly(settings: dict[str, Any], dtype: torch.dtype, how: str) -> None:
    data = batches(15, dtype)
    net = network(dtype=dtype)
    optimizer = CGD(net.parameters(), 0.01, **settings)
    train(net, optimizer, data[:8])
    again = copy.deepcopy(net)
    if how == "deepcopy":
        again, other = copy.deepcopy((net, optimizer))
    elif how == "pickle":
        again, other = pickle.loads(pickle.dumps((net, optimizer)))
    else:
        state = optimizer.state_dict()
        if how == "file":
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
        other = CGD(again.parameters(), 0.01)
        other.load_state_dict(state)
    assert train(net, optimizer, data[8:]).equal(train(again, other, data[8:]))


@metrics
def test_learns_in_every_precision(settings: dict[str, Any]) -> None:
    for dtype in (torch.float32, F64, torch.bfloat16):
        net, data = network(dtype=dtype), batches(25, dtype)
        before = sum(float(backward(net, batch).detach()) for batch in data)
        train(net, CGD(net.parameters(), 0.03, **settings), data * 2)
        after = sum(float(backward(net, batch).detach()) for batch in data)
        assert after < 0.7 * before
        assert {p.dtype for p in net.parameters()} == {dtype}


def test_moments_of_narrow_parameters_are_wide() -> None:
    net = network(dtype=torch.bfloat16)
    optimizer = CGD(net.parameters())
    train(net, optimizer, batches(1, torch.bfloat16))
    assert {s["second_moment"].dtype for s in optimizer.state.values()} == {torch.float32}


def test_memory_is_that_of_adam() -> None:
    def bytes_of(optimizer: Any) -> int:
        parts = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        return sum(part.numel() * part.element_size() for part in parts)

    sizes = {}
    for make in (torch.optim.Adam, CGD, CGD.rmsprop, CGD.sgd):
        net = network(dtype=torch.float32)
        optimizer = make(net.parameters())
        train(net, optimizer, batches(1, torch.float32))
        sizes[make] = bytes_of(optimizer)
    assert sizes[CGD] <= sizes[torch.optim.Adam]
    assert sizes[CGD.rmsprop] == sizes[CGD] // 2
    assert sizes[CGD.sgd] == 0


@metrics
def test_schedulers_and_groups(settings: dict[str, Any]) -> None:
    """lr zero leaves parameters alone while moments are collected; groups have their own lr."""
    net = network()
    first, second = list(net[0].parameters()), list(net[2].parameters())
    optimizer = CGD([{"params": first, "lr": 0.0}, {"params": second}], 0.1, **settings)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.0)
    before = flat(first), flat(second)
    for batch in batches(5):
        backward(net, batch)
        optimizer.step()
        schedule.step()
    assert flat(first).equal(before[0])
    assert not flat(second).equal(before[1])
    before = flat(first), flat(second)
    train(net, optimizer, batches(2))
    assert flat(second).equal(before[1])


def test_closure_and_added_group() -> None:
    net = network()
    optimizer = CGD(net[0].parameters(), 0.01, metric="full")
    optimizer.add_param_group({"params": net[2].parameters(), "metric": "lowrank"})
    data = batches(1)[0]
    losses = [float(optimizer.step(lambda: backward(net, data)).detach()) for _ in range(100)]
    assert losses[-1] < 0.5 * losses[0]


def test_missing_gradients() -> None:
    one, other = (nn.Parameter(torch.ones(3)) for _ in range(2))
    one.grad = torch.ones(3)
    for metric in ("diagonal", "block"):
        CGD([one, other], metric=metric).step()
        assert bool((other == 1).all())
    for metric in ("full", "lowrank"):
        with pytest.raises(ValueError, match=r"parameter 1 \(3,\) has no gradient"):
            CGD([one, other], metric=metric).step()
        CGD([other], metric=metric).step()
        frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        CGD([one, frozen], metric=metric).step()


def test_a_late_parameter_has_its_own_age() -> None:
    one, other, twin = (nn.Parameter(torch.ones(3)) for _ in range(3))
    optimizer, adam = CGD.adam([one, other]), torch.optim.Adam([twin])
    for t in range(6):
        one.grad = torch.ones(3)
        other.grad = twin.grad = torch.arange(3.0) if t > 2 else None
        optimizer.step()
        adam.step()
    torch.testing.assert_close(other, twin, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@metrics
def test_gradients_that_are_not_finite(settings: dict[str, Any], bad: float) -> None:
    net = network()
    optimizer = CGD(net.named_parameters(), 0.01, check_finite=True, **settings)
    train(net, optimizer, batches(3))
    before = flat(net.parameters()), copy.deepcopy(optimizer.state_dict()["state"])
    backward(net, batches(1)[0])
    assert net[2].weight.grad is not None
    net[2].weight.grad[0, 3] = bad
    with pytest.raises(ValueError, match=r"parameter '2.weight' \(1, 8\) is not finite in 1 of 8"):
        optimizer.step()
    assert flat(net.parameters()).equal(before[0])
    torch.testing.assert_close(optimizer.state_dict()["state"], before[1], rtol=0, atol=0)


def test_large_but_finite_gradients_pass() -> None:
    q = nn.Parameter(torch.ones(4))
    q.grad = torch.full((4,), 3e38)
    CGD([q], check_finite=True).step()


def test_sparse_gradients_are_refused() -> None:
    q = nn.Parameter(torch.ones(4))
    q.grad = torch.sparse_coo_tensor([[1]], [1.0], (4,), check_invariants=True)
    with pytest.raises(ValueError, match=r"the gradient of parameter 0 .* is sparse"):
        CGD([q]).step()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_numbers_that_are_not_real_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="only real floats"):
        CGD([torch.zeros(3, dtype=dtype)])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr": -1.0}, "lr=-1.0 must be"),
        ({"tau1": math.inf}, "tau1=inf must be"),
        ({"alpha": "half"}, "alpha='half' must be"),
        ({"eps": -1e-8}, "eps=-1e-08 must be"),
        ({"metric": "ful"}, "did you mean 'full'"),
        ({"blocks": "neuron"}, "must be one of tensor, row"),
        ({"refresh": 0}, "refresh=0 must be"),
        ({"rank": 1.5}, "rank=1.5 must be"),
        ({"centered": "residual", "tau1": 0.0}, "needs tau1 above 0"),
        ({"centered": "mean", "tau2": 0.0}, "needs tau2 above 0"),
        ({"start": "gradient"}, "give bias_correction=False"),
        (
            {"start": "gradient", "bias_correction": False, "centered": "mean"},
            "centered='mean' needs start='zero'",
        ),
        (
            {"start": "gradient", "bias_correction": False, "centered": "residual"},
            "centered='residual' needs start='zero'",
        ),
        ({"metric": "lowrank", "centered": "mean"}, "cannot be centered='mean'"),
        ({"metric": "lowrank", "start": "gradient", "bias_correction": False}, "start='zero'"),
        ({"fused": True, "metric": "full"}, "fused=True needs"),
    ],
    ids=str,
)
def test_bad_settings(settings: dict[str, Any], said: str) -> None:
    q = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=said) as error:
        CGD([q], **settings)
    assert "\n" not in str(error.value)
    optimizer = CGD([q])
    with pytest.raises(ValueError, match=said):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], **settings})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"metric": "full"},
            r"a group of n = 3000 .* 0.072 GB .* metric='block', metric='lowrank'",
        ),
        ({"metric": "block"}, r"parameter 0 \(3, 1000\) of n = 3000 .* blocks='row'"),
    ],
)
def test_large_blocks_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CGD([nn.Parameter(torch.zeros(3, 1000))], **settings)
    CGD([nn.Parameter(torch.zeros(3, 1000))], metric="block", blocks="row")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: CGD.adam(p, betas=(0.9, 1.0)), r"betas\[1\]=1.0 must be below 1"),
        (lambda p: CGD.momentum(p, momentum=1.2), "momentum=1.2 must be"),
        (lambda p: CGD.momentum(p, momentum=1.0), "momentum=1.0 must be below 1"),
        (lambda p: CGD.momentum(p, momentum=0.9, dampening=0.5), "dampening=0.5 must be"),
        (lambda p: CGD.rmsprop(p, alpha=-0.1), "alpha=-0.1 must be"),
    ],
)
def test_bad_settings_of_constructors(make: Callable[..., Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make([nn.Parameter(torch.ones(2))])


def test_kernel_equals_torch_operations() -> None:
    options = itertools.product((0.5, 1.0), ("none", "residual"), (0.0, 0.3), (False, True))
    for alpha, centered, zeta, maximize in options:
        settings: dict[str, Any] = {"alpha": alpha, "centered": centered, "zeta": zeta}
        settings |= {"maximize": maximize, "weight_decay": 0.1, "eps": 1e-3}
        one, other = network(), network()
        data = batches(10)
        here = train(one, CGD(one.parameters(), 0.01, fused=True, **settings), data)
        there = train(other, CGD(other.parameters(), 0.01, fused=False, **settings), data)
        torch.testing.assert_close(here, there, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("metric", ["full", "block", "row"])
def test_kernel_equals_torch_operations_along_a_kept_basis(metric: str) -> None:
    """At refresh 7, once second moments have full rank: before, eigenvectors are not unique."""
    options: list[tuple[float, str, float, bool]] = [
        (0.5, "none", 0.0, False),
        (0.5, "residual", 0.0, True),
        (0.5, "none", 0.3, True),
        (1.0, "none", 0.0, False),
        (1.0, "residual", 0.3, False),
        (0.25, "none", 0.3, True),
    ]
    shape = {"metric": "block", "blocks": "row"} if metric == "row" else {"metric": metric}
    for alpha, centered, zeta, maximize in options:
        settings: dict[str, Any] = {"alpha": alpha, "centered": centered, "zeta": zeta, **shape}
        settings |= {"maximize": maximize, "weight_decay": 0.1, "eps": 1e-3, "tau2": 99.0}
        found = []
        for fused in (None, False):
            params = [nn.Parameter(torch.zeros(size, dtype=F64)) for size in ((4, 3), (4,))]
            optimizer = CGD(params, 0.1, fused=fused, **settings)
            for t, g in enumerate(noise(16, 40)):
                optimizer.param_groups[0]["refresh"] = 7 if t > 25 else 1
                for p, part in zip(params, g.split([12, 4]), strict=True):
                    p.grad = part.view(p.shape)
                optimizer.step()
            renewed = [optimizer.state[p].get("renewed", 0) for p in params]
            assert 0 < max(renewed) < 40  # the last step is one along a kept basis
            found.append(flat(params))
        torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)


def test_tensors_the_kernel_cannot_take() -> None:
    """Transposed memory and another dtype beside a plain tensor."""
    start = [torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) for _ in range(3)]
    one = [nn.Parameter(start[0].T), nn.Parameter(start[1]), nn.Parameter(start[2].bfloat16())]
    other = copy.deepcopy(one)
    for params, fused in ((one, None), (other, False)):
        optimizer = CGD(params, 0.1, fused=fused)
        for _ in range(3):
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.step()
    for p, q in zip(one, other, strict=True):
        torch.testing.assert_close(p, q)


def test_compiles() -> None:
    one, other = network(), network()
    mine, same = CGD(one.parameters(), 0.01), CGD(other.parameters(), 0.01)
    step = torch.compile(mine.step, backend="eager")
    for batch in batches(5):
        backward(one, batch)
        step()
        backward(other, batch)
        same.step()
    torch.testing.assert_close(flat(one.parameters()), flat(other.parameters()))


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
FULL_RANK = 50  # steps; then the 41 parameters of `network` have gradients in all directions


def train_on(device: str, net: nn.Module, optimizer: Any, steps: range, refresh: int) -> Tensor:
    """Steps of a run of 70 on a device; eigenvectors are kept once no mode is empty.

    Of empty modes any basis is one of eigenvectors, and rounding decides which.
    """
    data = batches(70)
    for t in steps:
        optimizer.param_groups[0]["refresh"] = refresh if t >= FULL_RANK else 1
        x, y = data[t]
        backward(net, (x.to(device), y.to(device)))
        optimizer.step()
    return flat(net.parameters()).cpu()


@gpu
@metrics
def test_a_gpu_makes_the_same_steps(settings: dict[str, Any]) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        net = network().to(device)
        optimizer = CGD(net.parameters(), 0.01, **settings)
        ends.append(train_on(device, net, optimizer, range(70), settings.get("refresh", 1)))
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-9)


@gpu
@metrics
@pytest.mark.parametrize("way", [("cpu", "cuda"), ("cuda", "cpu")], ids="-".join)
def test_a_state_goes_to_another_device(settings: dict[str, Any], way: tuple[str, str]) -> None:
    whole, refresh = network(), settings.get("refresh", 1)
    optimizer = CGD(whole.parameters(), 0.01, **settings)
    expected = train_on("cpu", whole, optimizer, range(70), refresh)
    first, second = way
    begun, resumed = network().to(first), network().to(second)
    optimizer = CGD(begun.parameters(), 0.01, **settings)
    train_on(first, begun, optimizer, range(62), refresh)
    resumed.load_state_dict(begun.state_dict())
    other = CGD(resumed.parameters(), 0.01, **settings)
    other.load_state_dict(optimizer.state_dict())
    tensors = [v for kept in other.state.values() for v in kept.values() if isinstance(v, Tensor)]
    assert tensors
    assert all(tensor.device.type == second for tensor in tensors)
    end = train_on(second, resumed, other, range(62, 70), refresh)
    torch.testing.assert_close(end, expected, rtol=1e-9, atol=1e-9)
