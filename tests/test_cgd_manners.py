"""CGD where torch's own optimizers have manners: every test runs on Adam and on CGD alike."""

from __future__ import annotations

import copy
import io
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from invariantzoo.training.optim.cgd import CGD


def made(**settings: Any) -> Callable[..., Any]:
    return lambda params, **given: CGD(params, **{"lr": 0.01, **settings, **given})


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "Adam": lambda params, **given: torch.optim.Adam(params, **{"lr": 0.01, **given}),
    "CGD": made(),
    "without its kernel": made(fused=False),
    "full": made(metric="full", refresh=3),
    "block": made(metric="block"),
    "row": made(metric="block", blocks="row", refresh=10),
    "lowrank": made(metric="lowrank", rank=5),
    "residual": made(centered="residual"),
}


@pytest.fixture(params=OPTIMIZERS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return OPTIMIZERS[request.param]


def parts(contiguous: bool = True, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """A weight (10, 5) and a bias (10,)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 5, 2, generator=generator, dtype=dtype)[..., 0]
    bias = torch.randn(10, 2, generator=generator, dtype=dtype)[..., 0]
    return [nn.Parameter(p.contiguous() if contiguous else p) for p in (weight, bias)]


def loss_of(params: list[nn.Parameter]) -> Tensor:
    x = torch.linspace(-1, 1, 5, dtype=params[0].dtype)
    return (params[0] @ x + params[1]).square().sum()


def descend(params: list[nn.Parameter], optimizer: Any, steps: int = 20) -> tuple[float, float]:
    """Loss before and after."""
    before = float(loss_of(params).detach())
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(params).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return before, float(loss_of(params).detach())


SCHEDULES: list[Callable[[Any], Any]] = [
    lambda o: lr_scheduler.StepLR(o, gamma=0.9, step_size=10),
    lambda o: lr_scheduler.ExponentialLR(o, 0.95),
    lambda o: lr_scheduler.LinearLR(o, 0.5),
    lambda o: lr_scheduler.ReduceLROnPlateau(o),
]


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("maximize", [True, False])
def test_the_right_direction(make: Any, contiguous: bool, maximize: bool) -> None:
    params = parts(contiguous)
    before, after = descend(params, make(params, maximize=maximize))
    assert (after > before) is maximize


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_of_groups(make: Any, schedule: Any, tensor: bool) -> None:
    params = parts()
    lr = torch.tensor(0.02) if tensor else 0.02
    optimizer = make([{"params": params[:1]}, {"params": params[1:], "lr": lr}])
    plan = schedule(optimizer)
    before = float(loss_of(params).detach())
    for _ in range(20):

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(params)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        loss = optimizer.step(closure)
        plan.step(loss.detach()) if hasattr(plan, "patience") else plan.step()
    assert float(loss_of(params).detach()) < before
    assert isinstance(optimizer.param_groups[1]["lr"], Tensor) is tensor


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_rate_that_is_a_tensor(make: Any, shape: tuple[int, ...]) -> None:
    one, other = parts(), parts()
    rate = torch.full(shape, 0.03, dtype=torch.float64)
    descend(one, make(one, lr=0.03))
    optimizer = make(other, lr=rate.squeeze() if make is OPTIMIZERS["Adam"] else rate)
    descend(other, optimizer)
    torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="Tensor lr must be 1-element"):
        make(other, lr=torch.tensor([0.1, 0.1]))


def test_groups_have_rates_and_decay_of_their_own(make: Any) -> None:
    params, idle = parts(), nn.Parameter(torch.ones(2))
    groups = [{"params": params, "lr": 0.01, "weight_decay": 0.1}, {"params": [idle]}]
    optimizer = make(groups, lr=1e-28)
    for _ in range(20):
        idle.grad = torch.ones(2)
        loss_of(params).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for p in params:
            p.grad = None
    assert idle.equal(torch.ones(2))
    assert float(loss_of(params).detach()) < float(loss_of(parts()).detach())


def test_nothing_moves_without_gradients_or_with_zero_ones(make: Any) -> None:
    params = [torch.ones(2, 3), torch.ones(4)]
    optimizer = make(params)
    assert optimizer.step(lambda: torch.tensor([1.0])) == 1
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert all(bool((p == 1).all()) for p in params)
    assert "Parameter Group 0" in repr(optimizer)


@pytest.mark.parametrize(("named", "named_again"), list(itertools.product([True, False], repeat=2)))
def test_a_state_is_deterministic(make: Any, named: bool, named_again: bool) -> None:
    def given(params: Any, names: bool) -> Any:
        return [(f"name{i}", p) for i, p in enumerate(params)] if names else params

    one = parts()
    optimizer = make(given(one, named))
    descend(one, optimizer, 10)
    other = copy.deepcopy(one)
    again = make(given(other, named_again))
    saved = optimizer.state_dict()
    again.load_state_dict(copy.deepcopy(saved))  # Adam shares its steps with what it is given
    for _ in range(10):
        descend(one, optimizer, 1)
        descend(other, again, 1)
        assert all(p.equal(q) for p, q in zip(one, other, strict=True))
    states = [o.state_dict() for o in (optimizer, again)]
    for group in (*states[0]["param_groups"], *states[1]["param_groups"]):
        group.pop("param_names", None)
    assert str(states[0]) == str(states[1])
    if named or named_again:
        assert again.state_dict()["param_groups"][0]["param_names"] == ["name0", "name1"]
    again.param_groups.extend(again.param_groups)
    groups = again.state_dict()["param_groups"]
    assert groups[0]["params"] == groups[-1]["params"]


def test_older_and_stored_states_load(make: Any) -> None:
    """Settings that came later are missing; a file; steps that are tensors or numbers."""
    params = parts()
    optimizer = make(params)
    descend(params, optimizer, 3)
    state = copy.deepcopy(optimizer.state_dict())
    for name in ("maximize", "fused", "foreach", "capturable"):
        state["param_groups"][0].pop(name, None)
    optimizer.load_state_dict(state)
    descend(params, optimizer, 1)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert str(state) == str(optimizer.state_dict())
    for change in (float, torch.tensor):
        for moments in state["state"].values():
            moments["step"] = change(float(moments["step"]))  # type: ignore[operator]
        optimizer.load_state_dict(state)
        before, after = descend(params, optimizer, 2)
        assert after < before


def test_hooks_of_the_state(make: Any) -> None:
    params = parts()
    optimizer = make(params)
    descend(params, optimizer, 2)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.register_state_dict_pre_hook(lambda o: o.state.__setitem__("seen", 1))
    assert optimizer.state_dict()["state"]["seen"] == 1

    def leave_out(o: Any, given: dict[str, Any]) -> dict[str, Any]:
        given["state"].pop("seen")
        return given

    optimizer.register_state_dict_post_hook(leave_out)
    assert "seen" not in optimizer.state_dict()["state"]
    order = []

    def slower(o: Any, given: dict[str, Any]) -> None:
        order.append("second")
        given["param_groups"][0]["lr"] = 0.002

    def zeroed(o: Any, given: dict[str, Any]) -> dict[str, Any]:
        """A hook that returns another state: it is that which counts."""
        order.append("first")
        changed = copy.deepcopy(given)
        for moments in changed["state"].values():
            for name, value in moments.items():
                if isinstance(value, Tensor) and name != "step":
                    value.zero_()
        return changed

    def after(o: Any) -> None:
        order.append("after")
        o.state["sum"] = sum(
            float(value.double().abs().sum())
            for p in params
            for name, value in o.state.get(p, {}).items()
            if isinstance(value, Tensor) and name != "step"
        )

    optimizer.register_load_state_dict_pre_hook(slower)
    optimizer.register_load_state_dict_pre_hook(zeroed, prepend=True)
    optimizer.register_load_state_dict_post_hook(after)
    optimizer.load_state_dict(state)
    assert order == ["first", "second", "after"]
    assert optimizer.param_groups[0]["lr"] == 0.002
    assert optimizer.state["sum"] == 0
    descend(params, optimizer, 2)


def test_hooks_of_a_step(make: Any) -> None:
    params, order = parts(), []
    optimizer = make(params)
    handles = [
        register_optimizer_step_pre_hook(lambda *_: order.append("all before")),
        register_optimizer_step_post_hook(lambda *_: order.append("all after")),
        optimizer.register_step_pre_hook(lambda *_: order.append("before")),
        optimizer.register_step_post_hook(lambda *_: order.append("after")),
    ]
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert order in (
        ["all before", "before", "after", "all after"],
        ["all before", "before", "all after", "after"],
        ["before", "all before", "after", "all after"],
    )


def test_deepcopy_copies_public_attributes(make: Any) -> None:
    params = parts()
    optimizer = make(params)
    descend(params, optimizer, 2)

    def public(o: Any) -> set[str]:
        return {name for name in vars(o) if not name.startswith("_")}

    assert public(optimizer) == public(copy.deepcopy(optimizer))


def test_parameters_of_several_precisions(make: Any) -> None:
    dtypes = (torch.float32, torch.float64, torch.bfloat16)
    params = [nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in dtypes]
    optimizer = make(params)
    for _ in range(3):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert [p.dtype for p in params] == list(dtypes)
    assert all(bool((p < 1).all()) for p in params)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)], ids=str)
def test_parameters_of_no_size(make: Any, shape: tuple[int, ...]) -> None:
    empty, other = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.ones(2))
    for params in ([empty], [empty, other]):
        optimizer = make(params)
        for _ in range(4):
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
    assert bool((other < 1).all())


def test_what_torch_refuses(make: Any) -> None:
    p, q = (nn.Parameter(torch.ones(1, 1)) for _ in range(2))
    with pytest.raises(TypeError, match="should be an iterable"):
        make(p)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        make([p, p])
    with pytest.raises(ValueError, match="more than one parameter group"):
        make([{"params": p}, {"params": p}])
    with pytest.raises(ValueError, match="with/without names"):
        make([("weight", p), q])
    with pytest.raises(ValueError, match="different number of parameter groups"):
        make([p]).load_state_dict(make([{"params": p}, {"params": q}]).state_dict())
    with pytest.raises(ValueError, match="doesn't match the size"):
        make([p]).load_state_dict(make([p, q]).state_dict())


def test_a_graph_that_saved_a_moved_tensor_is_refused(make: Any) -> None:
    w, x = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = make([w, x])
    loss = (w * x).sum()
    loss.backward(retain_graph=True)
    version = w._version
    optimizer.step()
    assert w._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("kind", ["step", "with a tensor rate", "a whole training step"])
def test_a_compiled_step_is_not_compiled_again(make: Any, kind: str) -> None:
    torch._dynamo.reset()
    one, other = parts(), parts()
    lr = torch.tensor(0.02) if "tensor" in kind else 0.02
    mine, same = make(one, lr=lr), make(other, lr=0.02)

    def whole() -> None:
        mine.zero_grad()
        loss_of(one).backward()  # type: ignore[no-untyped-call]
        mine.step()

    compiled = torch.compile(whole if "whole" in kind else mine.step, backend="eager")

    def steps(count: int) -> None:
        for _ in range(count):
            if "whole" not in kind:
                mine.zero_grad()
                loss_of(one).backward()  # type: ignore[no-untyped-call]
            compiled()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps(4)
        with torch._dynamo.config.patch(error_on_recompile=True):
            steps(8)
    descend(other, same, 12)
    torch.testing.assert_close(one, other)


def test_settings_may_change_on_the_way() -> None:
    """CGD.adam stays Adam through other rates, memories, eps and signs."""
    one, other = parts(dtype=torch.float64), parts(dtype=torch.float64)
    mine, adam = CGD.adam(one, 0.01), torch.optim.Adam(other, 0.01)
    changes: list[dict[str, Any]] = [
        {"lr": 0.03},
        {"lr": torch.tensor(0.02, dtype=torch.float64)},
        {"eps": 1e-3},
        {"betas": (0.5, 0.99)},
        {"maximize": True},
        {"maximize": False, "betas": (0.0, 0.999)},
        {"betas": (0.9, 0.999)},
    ]
    for change in changes:
        adam.param_groups[0].update(change)
        own = dict(change)
        if "betas" in own:
            beta1, beta2 = own.pop("betas")
            own |= {"tau1": beta1 / (1 - beta1), "tau2": beta2 / (1 - beta2)}
        mine.param_groups[0].update(own)
        descend(one, mine, 5)
        descend(other, adam, 5)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
