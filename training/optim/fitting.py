"""What the settings, moments and gradients of covariant gradient descent must be so that they fit.

All of it is asked before anything moves. A moment of another tensor, or of other settings, would
otherwise be averaged with this one's in silence, or end a step when half of the tensors have moved.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ...envs.core.validation import require_choice, require_count, require_number

METRICS = ("diagonal", "full", "block", "lowrank")
BLOCKS = ("tensor", "row")
CENTERED = ("none", "mean", "residual")
STARTS = ("zero", "gradient")
LARGEST_BLOCK = 2000  # parameters that share one dense metric
KERNEL_EXPONENTS = (0.5, 1.0)
WIDE = (torch.float32, torch.float64)

Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]  # shape and dtype of moments by name


def moments_needed(group: dict[str, Any]) -> list[str]:
    """Names of the averages that a setting needs; others that there are go on being averaged."""
    names = ["first_moment"] if group["tau1"] else []
    if has_metric(group):
        names += ["second_moment", *(["mean"] if group["centered"] == "mean" else [])]
    return names


def has_metric(group: dict[str, Any]) -> bool:
    """Whether the metric is more than a number."""
    return bool(group["alpha"] or group["zeta"])


def moment_dtype(dtype: torch.dtype) -> torch.dtype:
    """Precision of the moments of parameters of a dtype."""
    return dtype if dtype in WIDE else torch.float32


def blocks_of(group: dict[str, Any], p: Tensor) -> tuple[int, int]:
    """Blocks that a tensor falls into, and the parameters in each."""
    if group["blocks"] == "row" and p.ndim:
        return p.shape[0], math.prod(p.shape[1:])
    return 1, p.numel()


def dense_shapes(blocks: int, n: int) -> dict[str, tuple[int, ...]]:
    """Shapes of what dense metrics keep."""
    vectors = dict.fromkeys(("first_moment", "mean", "power"), (blocks, n))
    return {**vectors, **dict.fromkeys(("second_moment", "basis"), (blocks, n, n))}


@functools.lru_cache(maxsize=256)
def _dense_layout(blocks: int, n: int) -> Layout:
    return {name: (shape, torch.float64) for name, shape in dense_shapes(blocks, n).items()}


def lowrank_layout(group: dict[str, Any], params: list[Tensor]) -> Layout:
    n, rank = sum(p.numel() for p in params), group["rank"]
    dtype = moment_dtype(functools.reduce(torch.promote_types, [p.dtype for p in params]))
    return {
        "first_moment": ((n,), dtype),
        "gradients": ((rank, n), dtype),
        "gram": ((rank, rank), torch.float64),
    }


def layout_of(group: dict[str, Any], params: list[Tensor]) -> tuple[Layout, list[str]]:
    """What the state of a tensor, or of a group that moves as a whole, may hold, and must hold."""
    if group["metric"] == "lowrank":
        needed = ["gradients", "gram", *(["first_moment"] * (group["centered"] == "residual"))]
        return lowrank_layout(group, params), needed
    if group["metric"] == "full":
        return _dense_layout(1, sum(p.numel() for p in params)), moments_needed(group)
    if group["metric"] == "block":
        return _dense_layout(*blocks_of(group, params[0])), moments_needed(group)
    moment = (tuple(params[0].shape), moment_dtype(params[0].dtype))
    layout = dict.fromkeys(("first_moment", "second_moment", "mean"), moment)
    return layout, moments_needed(group)


def check_settings(group: dict[str, Any]) -> None:
    """Raise ValueError for settings and parameters that make no sense."""
    _require_rate(group["lr"])
    for name in ("tau1", "tau2", "eps", "zeta", "weight_decay"):
        require_number(name, group[name], 0)
    require_number("alpha", group["alpha"])
    for name, allowed in (
        ("metric", METRICS),
        ("blocks", BLOCKS),
        ("centered", CENTERED),
        ("start", STARTS),
    ):
        require_choice(name, group[name], allowed)
    for name in ("refresh", "rank"):
        require_count(name, group[name])
    if group["centered"] == "residual" and not group["tau1"]:
        raise ValueError("centered='residual' needs tau1 above 0: there is no residual otherwise")
    if group["centered"] == "mean" and not group["tau2"]:
        raise ValueError("centered='mean' needs tau2 above 0: the mean is the gradient otherwise")
    if group["start"] == "gradient" and group["bias_correction"]:
        raise ValueError("start='gradient' has no bias to correct: give bias_correction=False")
    if (
        (group["start"], group["metric"]) == ("gradient", "diagonal")
        and group["centered"] != "none"
        and has_metric(group)
    ):
        raise ValueError(
            f"centered={group['centered']!r} needs start='zero' with a diagonal metric: the first "
            "gradient less itself leaves eps alone to divide by"
        )
    if group["metric"] == "lowrank" and group["centered"] == "mean":
        raise ValueError("metric='lowrank' cannot be centered='mean'; it can be 'residual'")
    if group["metric"] == "lowrank" and group["start"] == "gradient":
        raise ValueError("metric='lowrank' needs start='zero'")
    if group["fused"] and (
        group["metric"] != "diagonal"
        or group["centered"] == "mean"
        or group["alpha"] not in KERNEL_EXPONENTS
    ):
        raise ValueError("fused=True needs a diagonal metric, alpha 0.5 or 1 and no centred mean")
    for number, p in enumerate(group["params"]):
        if not p.is_floating_point():
            raise ValueError(
                f"{_name(group, number)} is {p.dtype}: only real floats can be optimised"
            )
    _require_fitting(group)


def _require_rate(lr: Any) -> None:
    """Raise ValueError for what is no learning rate."""
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element, not {lr.numel()}")
        lr = float(lr)
    require_number("lr", lr, 0)


def _require_fitting(group: dict[str, Any]) -> None:
    """Raise ValueError for dense metrics that are too large."""
    if group["metric"] == "full":
        sizes = [("a group", sum(p.numel() for p in group["params"]))]
    elif group["metric"] == "block":
        sizes = [
            (_name(group, number), blocks_of(group, p)[1])
            for number, p in enumerate(group["params"])
        ]
    else:
        return
    what, n = max(sizes, key=lambda pair: pair[1])
    if n > LARGEST_BLOCK:
        gigabytes = 8 * n * n / 1e9
        others = "blocks='row', " if group["metric"] != "full" and group["blocks"] != "row" else ""
        others += "metric='block', " if group["metric"] == "full" else ""
        raise ValueError(
            f"metric={group['metric']!r} on {what} of n = {n} parameters needs {gigabytes:.2g} GB "
            f"and n^3 operations; the limit is {LARGEST_BLOCK}: take {others}metric='lowrank' or "
            "metric='diagonal'"
        )


def require_settings(
    group: dict[str, Any], names: Iterable[str], checked: dict[int, tuple[Any, ...]]
) -> None:
    """Raise ValueError if settings of a group have been changed to what makes no sense.

    names: all settings beside lr, which a schedule changes at every step.  checked: their values
    when a group was last looked at, by its identity; what has not changed is not looked at again.
    """
    lr = group["lr"]
    if type(lr) is not float or not 0 <= lr < math.inf:
        _require_rate(lr)
    current = tuple(map(group.get, names))
    if checked.get(id(group)) != current:
        check_settings({**group, "lr": 0.0})
        checked[id(group)] = current


def ready(state: Any, group: dict[str, Any]) -> list[Tensor]:
    """The parameters that have a gradient; ValueError if it, or what is kept, does not fit one."""
    metric, needed = group["metric"], moments_needed(group)
    params: list[Tensor] = []
    for number, p in enumerate(group["params"]):
        grad = p.grad
        if grad is None:
            continue
        params.append(p)
        moments = state.get(p)
        if metric == "diagonal" and moments and _agree(p, grad, moments, needed):
            continue
        _require_gradient(group, number, p, grad)
        if metric in ("diagonal", "block"):
            _require_state(group, number, [p], moments)
    if metric in ("full", "lowrank") and params:
        _require_all(state, group, params)
        number = next(i for i, p in enumerate(group["params"]) if p is params[0])
        _require_state(group, number, params, state.get(params[0]))
    return params


def _agree(p: Tensor, grad: Tensor, moments: dict[str, Any], needed: list[str]) -> bool:
    """Whether a gradient and the moments of a diagonal metric surely fit: a look at every step."""
    shape, dtype, on_cpu = p.shape, p.dtype, p.is_cpu
    if grad.dtype is not dtype or grad.shape != shape or grad.layout is not torch.strided:
        return False
    if dtype not in WIDE:
        dtype = torch.float32
    for name in needed:
        value = moments.get(name)
        if type(value) is not Tensor or value.dtype is not dtype or value.shape != shape:
            return False
        if not value.is_cpu if on_cpu else value.device != p.device:
            return False
    if not grad.is_cpu if on_cpu else grad.device != p.device:
        return False
    return len(moments) == len(needed) + 1 and type(moments.get("step")) is int


def _require_gradient(group: dict[str, Any], number: int, p: Tensor, grad: Tensor) -> None:
    """Raise ValueError unless a gradient is dense, real and of the size of its parameter."""
    if grad.layout is not torch.strided:
        raise ValueError(f"the gradient of {_name(group, number)} is sparse; give a dense one")
    if grad.shape != p.shape or grad.device != p.device or not grad.is_floating_point():
        raise ValueError(
            f"the gradient of {_name(group, number)} is {_described(grad)} and does not fit "
            f"{_described(p)}"
        )


def _require_state(
    group: dict[str, Any], number: int, params: list[Tensor], moments: dict[str, Any] | None
) -> None:
    """Raise ValueError unless the moments kept with parameter `number` serve the settings.

    params: the tensors that they belong to, the first of them being that parameter.
    """
    if not moments:
        _require_fitting(group)
        return
    metric, step, device = group["metric"], moments.get("step"), params[0].device
    if type(step) is not int or step < 1:
        raise ValueError(
            f"{_whose(group, number)} has step={step!r}, which must be a whole number of at least 1"
        )
    layout, needed = layout_of(group, params)
    for name, (shape, dtype) in layout.items():
        value = moments.get(name)
        if value is None and name in needed:
            known = ", ".join(key for key in moments if key != "step") or "nothing"
            raise ValueError(
                f"{_whose(group, number)} has no {name!r} but {known}, and metric={metric!r} with "
                f"tau1={group['tau1']:g}, alpha={group['alpha']:g}, centered={group['centered']!r} "
                "needs it: were settings changed, or the state of another optimizer loaded?"
            )
        if value is not None and not (
            isinstance(value, Tensor)
            and value.shape == shape
            and value.dtype is dtype
            and value.device == device
        ):
            raise ValueError(
                f"{_whose(group, number)} has {name!r} {_described(value)}, and "
                f"metric={metric!r} needs "
                f"{_described(params[0], shape, dtype)}: its size, its precision or settings were "
                "changed, or the state of another network was loaded"
            )
    if metric in ("full", "block") and "basis" in moments:
        if not {"power", "renewed"} <= set(moments) or type(moments["renewed"]) is not int:
            raise ValueError(
                f"{_whose(group, number)} has 'basis' without 'power' and a whole number 'renewed'"
            )


def _described(
    value: Any, shape: tuple[int, ...] | None = None, dtype: torch.dtype | None = None
) -> str:
    """Shape, dtype and device of a tensor, or of one beside it that has another shape and dtype."""
    if not isinstance(value, Tensor):
        return f"= {value!r}"
    size = "x".join(map(str, value.shape if shape is None else shape)) or "a number"
    device = "" if value.is_cpu else f" on {value.device}"
    return f"[{size}] of {str(dtype or value.dtype).removeprefix('torch.')}{device}"


def require_loadable(optimizer: Optimizer, given: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise ValueError if a state dictionary holds what does not fit parameters and settings.

    defaults: of settings that the state has not, as one of a former version.
    """
    groups, states = given["param_groups"], given["state"]
    sizes = [len(group["params"]) for group in groups]
    if sizes != [len(group["params"]) for group in optimizer.param_groups]:
        return  # torch says so
    for index, (own, group) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        missing = [name for name in ("lr", "tau1", "tau2", "metric") if name not in group]
        if missing:
            raise ValueError(
                f"group {index} of the state has no {missing[0]!r}: it is not a state of CGD"
            )
        named = {"param_names": own["param_names"]} if "param_names" in own else {}
        settings = {**defaults, **group, "params": own["params"], **named}
        check_settings(settings)
        together = settings["metric"] in ("full", "lowrank")
        for number, (key, p) in enumerate(zip(group["params"], own["params"], strict=True)):
            moments = states.get(key)
            if not moments:
                continue
            params = [p]
            if together:
                params = _members(settings, number, moments)
            converted = {
                name: _converted(name, value, p, layout_of(settings, params)[0])
                for name, value in moments.items()
            }
            _require_state(settings, number, params, converted)


def _members(group: dict[str, Any], number: int, moments: dict[str, Any]) -> list[Tensor]:
    """The tensors that the moments kept with parameter `number` are of, where a group moves whole.

    All from it on, without those that do not learn, unless the moments are as long as all.
    """
    following = group["params"][number:]
    learning = [p for p in following if p.requires_grad] or following
    lengths = {
        value.shape[-1] for value in moments.values() if isinstance(value, Tensor) and value.ndim
    }
    return following if sum(p.numel() for p in following) in lengths else learning


def _converted(name: str, value: Any, p: Tensor, layout: Layout) -> Any:
    """What a saved moment becomes for a parameter: a copy on its device, in the precision due."""
    if name in ("step", "renewed"):
        number = isinstance(value, float) or (isinstance(value, Tensor) and value.numel() == 1)
        return int(value) if number and float(value).is_integer() else value
    if not isinstance(value, Tensor):
        return value
    wanted = layout[name][1] if name in layout and value.is_floating_point() else value.dtype
    return value.detach().clone().to(p.device, wanted)


def restore(optimizer: Optimizer, given: dict[str, Any]) -> None:
    """Put the moments of a state dictionary in place of what torch has cast them to."""
    for own, saved in zip(optimizer.param_groups, given["param_groups"], strict=True):
        for number, (key, p) in enumerate(zip(saved["params"], own["params"], strict=True)):
            moments = given["state"].get(key)
            if moments:
                params = [p]
                if own["metric"] in ("full", "lowrank"):
                    params = _members(own, number, moments)
                layout = layout_of(own, params)[0]
                for name, value in moments.items():
                    optimizer.state[p][name] = _converted(name, value, p, layout)


def require_finite(group: dict[str, Any], params: Iterable[Tensor]) -> None:
    """Raise ValueError that names the first tensor whose gradient holds NaN or infinity."""
    grads = [p.grad for p in params if p.grad is not None]
    if not grads or bool(torch.stack(list(torch._foreach_norm(grads, 1))).isfinite().all()):
        return
    for number, p in enumerate(group["params"]):
        if p.grad is not None and not bool(p.grad.isfinite().all()):
            bad = int((~p.grad.isfinite()).sum())
            raise ValueError(
                f"the gradient of {_name(group, number)} is not finite in {bad} of {p.numel()} "
                "entries; nothing was changed"
            )


def _require_all(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Raise ValueError if a group that moves as a whole cannot: gradients, devices, moments."""
    first = params[0]
    for number, p in enumerate(group["params"]):
        if p.requires_grad and p.grad is None:
            raise ValueError(
                f"metric={group['metric']!r} moves a group as a whole, but {_name(group, number)} "
                "has no gradient: put it into a group of its own"
            )
        if p.device != first.device:
            raise ValueError(
                f"metric={group['metric']!r} moves a group as a whole, but {_name(group, number)} "
                f"is on {p.device} and others are on {first.device}"
            )
        if p is not first and state.get(p):
            raise ValueError(
                f"{_name(group, number)} has moments of its own, but metric={group['metric']!r} "
                "keeps those of a group with its first parameter that has a gradient: settings "
                "were changed, or parameters were frozen"
            )


def _whose(group: dict[str, Any], number: int) -> str:
    """What the state of a parameter is called in messages."""
    return f"the state of {_name(group, number)}"


def _name(group: dict[str, Any], number: int) -> str:
    """What a parameter is called in messages."""
    shape = tuple(group["params"][number].shape)
    named = group.get("param_names")
    return f"parameter {named[number]!r} {shape}" if named else f"parameter {number} {shape}"
