"""What does not fit CGD: one error that names the parameter, before anything moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from invariantzoo.training.optim import kernel
from invariantzoo.training.optim.cgd import CGD
from invariantzoo.training.optim.metrics import coefficients

METRICS: list[dict[str, Any]] = [
    {},
    {"fused": False},
    {"metric": "full", "refresh": 3},
    {"metric": "block"},
    {"metric": "block", "blocks": "row", "refresh": 3},
    {"metric": "lowrank", "rank": 4},
]
metrics = pytest.mark.parametrize("settings", METRICS, ids=str)


def trained(shapes: Any, make: Any = CGD, steps: int = 3, **settings: Any) -> tuple[Any, Any]:
    """Parameters of some shapes, and an optimizer that has made some steps."""
    params = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = make(params, lr=0.1, **settings)
    for t in range(steps):
        for p in params:
            p.grad = torch.arange(p.numel(), dtype=p.dtype).view(p.shape) + t
        optimizer.step()
    return params, optimizer


def unmoved(params: Any, optimizer: Any, act: Callable[[], Any], said: str) -> None:
    """An act raises one line that says something, and changes neither places nor moments."""
    places = [p.detach().clone() for p in params]
    state = copy.deepcopy(optimizer.state_dict()["state"])
    with pytest.raises(ValueError, match=said) as error:
        act()
    assert "\n" not in str(error.value)
    for p, place in zip(params, places, strict=True):
        assert p.detach().equal(place)
    assert str(optimizer.state_dict()["state"]) == str(state)


@metrics
@pytest.mark.parametrize("others", [[(2, 3), (5,)], [(2, 3), (50,)], [(3, 2), (4,)]], ids=str)
def test_a_state_of_other_sizes(settings: dict[str, Any], others: Any) -> None:
    if settings.get("metric") in ("full", "block") and others == [(3, 2), (4,)]:
        others = [(3, 3), (4,)]  # 2 x 3 and 3 x 2 have one matrix
    if settings.get("metric") == "lowrank" and others == [(3, 2), (4,)]:
        others = [(3, 3), (4,)]
    _, optimizer = trained([(2, 3), (4,)], **settings)
    params, own = trained(others, **settings)
    what = r"the state of parameter \d \(.*needs"
    unmoved(params, own, lambda: own.load_state_dict(optimizer.state_dict()), what)


@pytest.mark.parametrize("make", [CGD, torch.optim.Adam])
def test_a_state_of_another_optimizer(make: Any) -> None:
    other = torch.optim.Adam if make is CGD else CGD
    _, optimizer = trained([(3,)], other)
    params, own = trained([(3,)], CGD)
    if make is CGD:
        what = "group 0 of the state has no 'tau1': it is not a state of CGD"
        unmoved(params, own, lambda: own.load_state_dict(optimizer.state_dict()), what)


@metrics
@pytest.mark.parametrize("shape", [(2000,), (2,), (4, 1)], ids=str)
def test_a_tensor_that_was_replaced(settings: dict[str, Any], shape: Any) -> None:
    """By a longer one, a shorter one, and one of another shape."""
    if shape == (4, 1) and settings.get("metric") in ("full", "block", "lowrank"):
        shape = (5, 1)
    params, optimizer = trained([(2, 3), (4,)], **settings)
    params[1].data = torch.ones(shape)
    params[1].grad = torch.ones(shape)
    unmoved(params, optimizer, optimizer.step, r"the state of parameter \d")


@metrics
def test_a_tensor_of_another_precision(settings: dict[str, Any]) -> None:
    params, optimizer = trained([(2, 3), (4,)], **settings)
    for p in params:
        p.data = p.data.double()
        p.grad = torch.ones_like(p)
    if settings.get("metric") in ("full", "block"):  # whose moments are double anyway
        optimizer.step()
    else:
        unmoved(params, optimizer, optimizer.step, "the state of parameter 0 .* of float32")


@metrics
def test_a_gradient_of_another_size(settings: dict[str, Any]) -> None:
    params, optimizer = trained([(2, 3), (4,)], **settings)
    kept = params[1].data
    params[1].data = torch.ones(9)
    params[1].grad = torch.ones(9)
    params[1].data = kept
    unmoved(params, optimizer, optimizer.step, r"gradient of parameter 1 \(4,\) is \[9\]")


@metrics
@pytest.mark.parametrize("how", ["shorter", "single", "whole", "gone", "text"])
def test_a_hook_that_breaks_the_state(settings: dict[str, Any], how: str) -> None:
    """After loading, and before a step."""
    params, optimizer = trained([(6,), (4,)], **settings)
    name = "gradients" if settings.get("metric") == "lowrank" else "second_moment"

    def spoil(own: Any, *_: Any) -> None:
        moments = own.state[own.param_groups[0]["params"][0]]
        value = moments[name]
        moments[name] = {
            "shorter": value[..., :-1].clone(),
            "single": value.half(),
            "whole": value.long(),
            "gone": None,
            "text": "moment",
        }[how]

    optimizer.register_load_state_dict_post_hook(spoil)
    optimizer.load_state_dict(optimizer.state_dict())
    for p in params:
        p.grad = torch.ones_like(p)
    unmoved(params, optimizer, optimizer.step, r"the state of parameter 0 \(6,\) has .*" + name)
    params, optimizer = trained([(6,), (4,)], **settings)
    handle = optimizer.register_step_pre_hook(spoil)
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="the state of parameter 0"):
        optimizer.step()
    handle.remove()


@pytest.mark.parametrize("fused", [None, False])
def test_moments_that_are_not_contiguous(fused: bool | None) -> None:
    (p,), optimizer = trained([(4, 3)], fused=fused)
    (q,), other = trained([(4, 3)], fused=fused)
    for name in ("first_moment", "second_moment"):
        moment = other.state[q][name]
        other.state[q][name] = moment.T.contiguous().T
    optimizer.step()
    other.step()
    torch.testing.assert_close(p, q)


CHANGES: list[tuple[dict[str, Any], str, Any, str]] = [
    ({"tau1": 0.0}, "tau1", 9.0, "has no 'first_moment'"),
    ({"alpha": 0.0}, "alpha", 0.5, "has no 'second_moment'"),
    ({}, "centered", "mean", "has no 'mean'"),
    ({}, "metric", "full", "has moments of its own"),
    ({}, "metric", "block", "needs"),
    ({}, "metric", "lowrank", "has moments of its own"),
    ({"metric": "full"}, "metric", "diagonal", "needs"),
    ({"metric": "full"}, "metric", "block", "needs"),
    ({"metric": "lowrank"}, "rank", 5, "needs"),
    ({"metric": "lowrank"}, "metric", "diagonal", "has no"),
    ({"metric": "block"}, "blocks", "row", "needs"),
    ({"metric": "block", "blocks": "row"}, "blocks", "tensor", "needs"),
    ({}, "metric", "ful", "did you mean 'full'"),
    ({}, "refresh", 0, "refresh=0 must be"),
    ({}, "tau2", -1.0, "tau2=-1.0 must be"),
    ({}, "tau2", float("nan"), "tau2=nan must be"),
    ({}, "tau2", "long", "tau2='long' must be"),
    ({"metric": "full"}, "tau2", -1.0, "tau2=-1.0 must be"),
    ({}, "lr", -1, "lr=-1 must be"),
    ({}, "lr", -1e-9, "lr=-1e-09 must be"),
    ({"metric": "lowrank"}, "lr", torch.tensor(-1.0), r"lr=-1.0 must be"),
    ({}, "lr", float("inf"), "lr=inf must be"),
    ({}, "lr", "fast", "lr='fast' must be"),
    ({}, "lr", float("nan"), "lr=nan must be"),
    ({}, "lr", torch.tensor([0.1, 0.1]), "Tensor lr must be 1-element"),
]


@pytest.mark.parametrize(("settings", "name", "value", "said"), CHANGES, ids=str)
def test_settings_changed_to_what_does_not_fit(
    settings: dict[str, Any], name: str, value: Any, said: str
) -> None:
    params, optimizer = trained([(2, 3), (4,)], **settings)
    optimizer.param_groups[0][name] = value
    unmoved(params, optimizer, optimizer.step, said)


@pytest.mark.parametrize("metric", ["full", "lowrank"])
def test_a_group_that_moves_as_a_whole_is_asked_before_others_move(metric: str) -> None:
    params = [nn.Parameter(torch.ones(3)) for _ in range(3)]
    optimizer = CGD([{"params": params[:1]}, {"params": params[1:], "metric": metric}], 0.1)
    params[0].grad, params[1].grad = torch.ones(3), torch.ones(3)
    unmoved(params, optimizer, optimizer.step, r"parameter 1 \(3,\) has no gradient")


@metrics
def test_refresh_may_be_changed(settings: dict[str, Any]) -> None:
    (p, _), optimizer = trained([(2, 3), (4,)], **settings)
    for refresh in (1, 10, 2, 1, 5):
        optimizer.param_groups[0]["refresh"] = refresh
        for _ in range(3):
            optimizer.step()
    assert bool(p.isfinite().all())


def test_a_memory_switched_off_goes_on_being_averaged() -> None:
    """tau1 9, 0, 9 and alpha 1/2, 0, 1/2: as betas of Adam may be changed and changed back."""
    (p,), optimizer = trained([(4,)], fused=False)
    (q,), adam = trained([(4,)], torch.optim.Adam)
    for tau1 in (0.0, 9.0, 0.0, 9.0):
        optimizer.param_groups[0]["tau1"] = tau1
        adam.param_groups[0]["betas"] = (tau1 / (1 + tau1), 0.999)
        for t in range(3):
            p.grad = q.grad = torch.arange(4.0) - t
            optimizer.step()
            adam.step()
    torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_states_of_former_versions_load() -> None:
    """With a kept inverse, a low-rank force of all gradients, and settings that are missing."""
    for settings in ({"metric": "full", "refresh": 10}, {"metric": "lowrank", "rank": 3}):
        params, optimizer = trained([(2, 3), (4,)], **settings)
        state = optimizer.state_dict()
        moments = state["state"][0]
        for name in ("basis", "power", "renewed"):
            moments.pop(name, None)
        if settings["metric"] == "full":
            moments["inverse_metric"] = torch.eye(10, dtype=torch.float64)[None]
        else:
            moments["first_moment"] = torch.zeros(10)
        for name in ("maximize", "check_finite", "fused"):
            del state["param_groups"][0][name]
        optimizer.load_state_dict(state)
        optimizer.step()
        assert bool(params[0].isfinite().all())
        assert not {"inverse_metric"} & set(optimizer.state[params[0]])
        assert optimizer.param_groups[0]["maximize"] is False


def numbers_of_a_step() -> np.ndarray:
    (group,) = CGD([torch.nn.Parameter(torch.ones(3))]).param_groups
    return kernel.parameter_record(group, coefficients(group, 1), True, 1.0, np.dtype(np.float64))


@pytest.mark.parametrize("wrong", range(3))
def test_the_kernel_looks_at_sizes(wrong: int) -> None:
    arrays = [np.ones(4) for _ in range(4)]
    arrays[wrong + 1] = np.ones(3)
    with pytest.raises(ValueError, match="must have the size of the parameters"):
        kernel.step(*arrays, numbers_of_a_step())
    assert (arrays[0] == 1).all()


@pytest.mark.parametrize("wrong", range(6))
def test_the_dense_kernel_looks_at_sizes(wrong: int) -> None:
    """Gradients, first and second moments, powers, eigenvectors, and where the step goes."""
    shapes = [(2, 3), (2, 3), (2, 3, 3), (2, 3), (2, 3, 3), (2, 3)]
    arrays = [np.ones(shape) for shape in shapes]
    arrays[wrong] = np.ones([n + 1 for n in shapes[wrong]])
    with pytest.raises(ValueError, match="must have the size of the gradients"):
        kernel.step_in_basis(*arrays, numbers_of_a_step())
    assert all((array == 1).all() for array in arrays)
