"""The metrics of covariant gradient descent, and a step under each; see `cgd.py` for the equations.

A step takes the state of an optimizer, the settings of a group and its parameters that have a
gradient, averages the moments that the metric is made of, and moves the parameters.
"""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .fitting import (
    KERNEL_EXPONENTS,
    WIDE,
    blocks_of,
    dense_shapes,
    has_metric,
    lowrank_layout,
    moment_dtype,
    moments_needed,
)

RENEWED = 0.1  # share of new gradients in C at which a kept basis is renewed before `refresh`


class Coefficients(NamedTuple):
    """Numbers of one step: weights of old and new, then q -= gain root F / G(C).

    F and C are without bias correction: it is folded into gain, root, eps and zeta; weight1 and
    weight2 are what F and C would be divided by.
    """

    keep1: float
    take1: float
    keep2: float
    take2: float
    gain: float
    root: float
    eps: float
    zeta: float
    weight1: float
    weight2: float


def coefficients(group: dict[str, Any], step: int, *, seen: int | None = None) -> Coefficients:
    """The numbers of step `step` = 1, 2, …; `seen`: gradients in F and C, if not all of them."""
    tau1, tau2 = group["tau1"], group["tau2"]
    first = step == 1 and group["start"] == "gradient"
    keep1, take1 = (0.0, 1.0) if first else (tau1 / (1 + tau1), 1 / (1 + tau1))
    keep2, take2 = (0.0, 1.0) if first else (tau2 / (1 + tau2), 1 / (1 + tau2))
    weight1 = weight2 = 1.0
    if group["bias_correction"]:
        remembered = step if seen is None else seen
        weight1, weight2 = _weight(tau1, remembered), _weight(tau2, remembered)
    root = weight2 ** group["alpha"]
    return Coefficients(
        keep1=keep1,
        take1=take1,
        keep2=keep2,
        take2=take2,
        gain=_rate(group) / weight1,
        root=root,
        eps=group["eps"] * root,
        zeta=group["zeta"] * root / weight2,
        weight1=weight1,
        weight2=weight2,
    )


def longest(tau1: float, tau2: float, n: int) -> float:
    """The largest |C^-1/2 F| that a kept basis of n directions may give before it is renewed.

    B = (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) bounds it for the metric of now; along kept
    directions only each component is bounded by B, so that 3 sqrt(n) is allowed where it is more.
    At alpha 1/2 this is the length of a step over lr. Infinite where b1^2 is not below b2.
    """
    b1, b2 = tau1 / (1 + tau1), tau2 / (1 + tau2)
    if b1 * b1 >= b2:
        return math.inf
    return max(3 * math.sqrt(n), (1 - b1) / math.sqrt((1 - b2) * (1 - b1 * b1 / b2)))


def scale(values: Tensor, alpha: float, eps: float, zeta: float) -> Tensor:
    """The metric G of eigenvalues or diagonal entries of the second moment, entry by entry."""
    power = values.sqrt() if alpha == 0.5 else values**alpha
    return power + eps + zeta * values if zeta else power + eps


def inverse_metric(second: Tensor, alpha: float, eps: float, zeta: float) -> Tensor:
    """Pseudo-inverse [..., n, n] of G(C) for second moments C [..., n, n].

    Eigenvalues below n times the rounding of the largest count as zero; their modes do not move.
    """
    if second.shape[-1] == 1:
        return _inverse(second, second <= 0, alpha, eps, zeta)
    values, vectors = modes(second)
    factor = _inverse(values, _negligible(values), alpha, eps, zeta)
    return (vectors * factor.unsqueeze(-2)) @ vectors.mT


def modes(second: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [..., n], ascending, and eigenvectors [..., n, n] of second moments [..., n, n].

    A matrix that is not finite, or whose decomposition fails, warns and gives its diagonal and the
    axes.
    """
    # What is not finite in gradients, or overflows, is on the diagonal of their second moment.
    if math.isfinite(second.diagonal(dim1=-2, dim2=-1).sum()):
        try:
            values, vectors = torch.linalg.eigh(second)
            if math.isfinite(values.sum()):
                return values, vectors
        except torch.linalg.LinAlgError:
            pass
    if second.ndim > 2 and len(second) > 1:
        each = [modes(block) for block in second]
        return torch.stack([pair[0] for pair in each]), torch.stack([pair[1] for pair in each])
    n = second.shape[-1]
    warnings.warn(
        f"a second moment of {n} parameters cannot be decomposed: a gradient was not finite or "
        "overflowed; its diagonal is used",
        RuntimeWarning,
        stacklevel=2,
    )
    axes = torch.eye(n, dtype=second.dtype, device=second.device)
    return second.diagonal(dim1=-2, dim2=-1).clone(), axes.expand(second.shape).clone()


def _negligible(values: Tensor) -> Tensor:
    """Which eigenvalues [..., n], ascending or not, are zero but for rounding."""
    if not values.shape[-1]:
        return values > 0
    rounding = values.shape[-1] * torch.finfo(values.dtype).eps
    return values <= rounding * values.amax(-1, keepdim=True).clamp_(min=0)


def _inverse(values: Tensor, negligible: Tensor, alpha: float, eps: float, zeta: float) -> Tensor:
    """1 / G of eigenvalues, zero where they are negligible; what is not a number stays so."""
    return ~negligible / scale(values.masked_fill(negligible, 1), alpha, eps, zeta)


def _diagonal(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Update tensors that all have a gradient, those of equal age and moments together."""
    alike: dict[tuple[Any, ...], tuple[list[Tensor], list[dict[str, Any]]]] = {}
    for p in params:
        moments = state[p]
        if not moments:
            moments["step"] = 0
            for name in moments_needed(group):
                moments[name] = torch.zeros_like(p, dtype=moment_dtype(p.dtype))
        moments["step"] += 1
        tensors, states = alike.setdefault((moments["step"], *moments), ([], []))
        tensors.append(p)
        states.append(moments)
    for tensors, states in alike.values():
        c = coefficients(group, states[0]["step"])
        if _may_fuse(group):
            from . import kernel

            plain = [_is_plain(p, moments) for p, moments in zip(tensors, states, strict=True)]
            fused = list(itertools.compress(tensors, plain))
            if fused:
                kernel.update(group, c, fused, list(itertools.compress(states, plain)))
                # Written to behind torch's back: graphs that saved these tensors must notice.
                torch.autograd.graph.increment_version(fused)
            others = [not is_plain for is_plain in plain]
            tensors = list(itertools.compress(tensors, others))
            states = list(itertools.compress(states, others))
        if tensors:
            _foreach(group, c, tensors, states)


def _foreach(
    group: dict[str, Any], c: Coefficients, params: list[Tensor], states: list[dict[str, Any]]
) -> None:
    """The diagonal step as torch operations over lists of tensors."""
    grads = [p.grad for p in params if p.grad is not None]
    if group["maximize"]:
        grads = list(torch._foreach_neg(grads))
    wide = [p.dtype in WIDE and p.dtype is g.dtype for p, g in zip(params, grads, strict=True)]
    if not all(wide):
        grads = [g.to(moment_dtype(p.dtype)) for g, p in zip(grads, params, strict=True)]
    if group["weight_decay"]:
        torch._foreach_mul_(params, _decay(group))
    force = grads
    if "first_moment" in states[0]:
        force = [s["first_moment"] for s in states]
        torch._foreach_lerp_(force, grads, c.take1)
    residual = grads
    if group["centered"] == "residual":
        residual = list(torch._foreach_sub(grads, force))
    second: list[Tensor] = []
    if "second_moment" in states[0]:
        second = [s["second_moment"] for s in states]
        torch._foreach_mul_(second, c.keep2)
        torch._foreach_addcmul_(second, residual, residual, c.take2)
    mean: list[Tensor] = []
    if "mean" in states[0]:
        mean = [s["mean"] for s in states]
        torch._foreach_lerp_(mean, grads, c.take2)
    if not has_metric(group):
        gain = c.gain / (1 + c.eps)
        if all(wide):
            torch._foreach_add_(params, force, alpha=-gain)
        else:
            for p, f in zip(params, force, strict=True):
                p.sub_(gain * f)
        return
    if group["centered"] == "mean":
        second = list(torch._foreach_addcmul(second, mean, mean, -1))
        torch._foreach_clamp_min_(second, 0)
    if group["alpha"] == 0.5:
        lowered = torch._foreach_sqrt(second)
    else:
        lowered = torch._foreach_pow(second, group["alpha"])
    if c.zeta:
        torch._foreach_add_(lowered, second, alpha=c.zeta)
    if c.eps:
        torch._foreach_add_(lowered, c.eps)
    else:  # where nothing was ever seen there is no force either: 0 / 0 is 0
        for divisor in lowered:
            divisor.masked_fill_(divisor == 0, math.inf)
    if all(wide):
        torch._foreach_addcdiv_(params, force, lowered, -c.gain * c.root)
    else:
        for p, f, divisor in zip(params, force, lowered, strict=True):
            p.sub_(c.gain * c.root * f / divisor)


def _full(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Update all tensors of a group under one dense metric."""
    flat = _flat_gradient(params)
    step = _dense(state[params[0]], group, flat[None])[0]
    _move(group, params, step)


def _block(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Update tensors under dense metrics of their own, or of their rows."""
    for p in params:
        assert p.grad is not None
        step = _dense(state[p], group, p.grad.reshape(blocks_of(group, p)))
        if group["weight_decay"]:
            p.mul_(_decay(group))
        p.sub_(step.view(p.shape))


def _dense(moments: dict[str, Any], group: dict[str, Any], grad: Tensor) -> Tensor:
    """gain G^{-1} F for gradients [blocks, n] under one dense metric per block."""
    if not moments:
        moments["step"] = 0
        shapes = dense_shapes(*grad.shape)
        for name in moments_needed(group):
            moments[name] = grad.new_zeros(shapes[name], dtype=torch.float64)
    moments["step"] += 1
    step, n = moments["step"], grad.shape[-1]
    c = coefficients(group, step)
    grad = -grad.double() if group["maximize"] else grad.double()
    lazy = n > 1 and group["refresh"] > 1 and has_metric(group)
    if not lazy:
        _drop_basis(moments)
    keeps_basis = lazy and "basis" in moments and step - moments["renewed"] < _patience(group, step)
    if (keeps_basis or n == 1) and _may_compile(group, moments, grad):
        direction = _compiled(moments, group, c, grad)
        if direction is not None:
            return direction
        keeps_basis, averages = (
            False,
            Averages(moments.get("first_moment", grad), moments["second_moment"]),
        )
    else:
        averages = _average(moments, group, c, grad)
    if averages.second is None or not has_metric(group):
        return c.gain / (1 + c.eps) * averages.force
    if not lazy:
        inverse = c.root * inverse_metric(averages.centred(), group["alpha"], c.eps, c.zeta)
        return c.gain * (inverse @ averages.force.unsqueeze(-1)).squeeze(-1)
    direction = _in_basis(moments, group, c, averages) if keeps_basis else None
    if direction is None:
        direction = _in_new_basis(moments, group, c, averages)
    return c.gain * c.root * direction


class Averages(NamedTuple):
    """Moments of dense metrics after a step, without bias correction.

    force [blocks, n]; second [blocks, n, n], not centred, or None; mean [blocks, n], by which it is
    to be centred, or None; residual [blocks, n], which it has just taken up.
    """

    force: Tensor
    second: Tensor | None
    mean: Tensor | None = None
    residual: Tensor | None = None

    def centred(self) -> Tensor:
        """The second moment that the metric is made of."""
        assert self.second is not None
        if self.mean is None:
            return self.second
        return self.second - self.mean.unsqueeze(-1) * self.mean.unsqueeze(-2)


def _average(
    moments: dict[str, Any], group: dict[str, Any], c: Coefficients, grad: Tensor
) -> Averages:
    """Average the moments on by gradients [blocks, n]."""
    force = moments["first_moment"].lerp_(grad, c.take1) if "first_moment" in moments else grad
    residual = grad - force if group["centered"] == "residual" else grad
    second = moments.get("second_moment")
    if second is not None:
        column, row = residual.unsqueeze(-1), residual.unsqueeze(-2)
        second.baddbmm_(column, row, beta=c.keep2, alpha=c.take2)
    mean = moments["mean"].lerp_(grad, c.take2) if "mean" in moments else None
    return Averages(force, second, mean if group["centered"] == "mean" else None, residual)


def _may_compile(group: dict[str, Any], moments: dict[str, Any], grad: Tensor) -> bool:
    """Whether the compiled kernel can make a dense step."""
    return (
        group["fused"] is not False
        and has_metric(group)
        and "mean" not in moments
        and grad.is_cpu
        and grad.is_contiguous()
        and all(
            moments[name].is_contiguous()
            for name in ("first_moment", "second_moment", "basis", "power")
            if name in moments
        )
    )


def _compiled(
    moments: dict[str, Any], group: dict[str, Any], c: Coefficients, grad: Tensor
) -> Tensor | None:
    """gain G^{-1} F [blocks, n] along a kept basis by the kernel; None if it is too long.

    A block of one parameter has no other basis.
    """
    from . import kernel

    if grad.shape[-1] == 1:
        second = moments["second_moment"]
        power = second.squeeze(-1).clone()
        return kernel.direction_in_basis(
            group, c, grad, moments, torch.ones_like(second), power, math.inf
        )
    limit, basis = _limit(group, grad.shape[-1]), moments["basis"]
    return kernel.direction_in_basis(group, c, grad, moments, basis, moments["power"], limit)


def _in_basis(
    moments: dict[str, Any], group: dict[str, Any], c: Coefficients, averages: Averages
) -> Tensor | None:
    """G^{-1} F [blocks, n] by eigenvectors of some steps ago; None if it is too long.

    State: "basis" [blocks, n, n], the eigenvectors; "power" [blocks, n], the second moment along
    them, not centred; "renewed", the step at which they were found.
    """
    force, _, mean, residual = averages
    assert residual is not None
    aside = [residual, force] if mean is None else [residual, force, mean]
    along, push, *middle = (torch.stack(aside, -2) @ moments["basis"]).unbind(-2)
    power = moments["power"].mul_(c.keep2).addcmul_(along, along, value=c.take2)
    if middle:
        power = (power - middle[0].square()).clamp_(min=0)
    moved = push / scale(power, group["alpha"], c.eps, c.zeta)
    moved.masked_fill_(_negligible(power), 0)
    if _too_long(group, c, power, push, moved):
        return None
    return (moments["basis"] @ moved.unsqueeze(-1)).squeeze(-1)


def _in_new_basis(
    moments: dict[str, Any], group: dict[str, Any], c: Coefficients, averages: Averages
) -> Tensor:
    """G^{-1} F [blocks, n] by the eigenvectors of now, which are kept."""
    power, basis = modes(averages.centred())
    moments.pop("inverse_metric", None)
    moments.update(basis=basis.contiguous(), power=power.clamp(min=0), renewed=moments["step"])
    push = (averages.force.unsqueeze(-2) @ basis).squeeze(-2)
    if averages.mean is not None:
        moments["power"] += (averages.mean.unsqueeze(-2) @ basis).squeeze(-2).square()
    moved = push * _inverse(power, _negligible(power), group["alpha"], c.eps, c.zeta)
    return (basis @ moved.unsqueeze(-1)).squeeze(-1)


def _patience(group: dict[str, Any], step: int) -> float:
    """Steps for which a basis is kept: `refresh`, less while more than a share of C is new."""
    return min(group["refresh"], RENEWED * min(step, 1 + group["tau2"]))


def _limit(group: dict[str, Any], n: int) -> float:
    """The largest |C^-1/2 F| along a kept basis of n directions."""
    return math.inf if group["centered"] != "none" else longest(group["tau1"], group["tau2"], n)


def _too_long(
    group: dict[str, Any], c: Coefficients, power: Tensor, push: Tensor, moved: Tensor
) -> bool:
    """Whether the metric of now cannot give so long a step: powers, forces, steps [blocks, n]."""
    limit = _limit(group, power.shape[-1])
    if math.isinf(limit):
        return False
    if group["alpha"] != 0.5 or group["zeta"]:
        moved = (push / power.sqrt()).masked_fill_(moved == 0, 0)
        scaling = c.weight2**0.5 / c.weight1
    else:
        scaling = c.root / c.weight1
    return scaling * float(torch.linalg.vector_norm(moved, dim=-1).amax()) > limit


def _drop_basis(moments: dict[str, Any]) -> None:
    """Forget a kept basis, and the kept inverse that states of former versions hold."""
    for name in ("basis", "power", "renewed", "inverse_metric"):
        moments.pop(name, None)


def _lowrank(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Update a group under the metric of its last `rank` gradients, by their Gram matrix.

    With the kept gradients as columns of R and their weights W, the second moment is R W R^T; its
    eigenvectors are U = R W^1/2 E lambda^-1/2, E and lambda those of W^1/2 R^T R W^1/2. What is
    outside their span does not move. The force is averaged over the kept gradients too, so that it
    lies in the span (a longer memory would reach into modes that the kept ones hardly have). Only
    a residual metric has the force of all gradients, of which it is the residual.
    """
    grad = _flat_gradient(params)
    if grad.dtype not in WIDE:
        grad = grad.float()
    if group["maximize"]:
        grad = -grad
    moments, rank = state[params[0]], group["rank"]
    if not moments:
        moments["step"] = 0
        for name, (shape, dtype) in lowrank_layout(group, params).items():
            if name != "first_moment" or group["centered"] == "residual":
                moments[name] = grad.new_zeros(shape, dtype=dtype)
    moments["step"] += 1
    step = moments["step"]
    c = coefficients(group, step, seen=min(step, rank))
    rows, gram = moments["gradients"], moments["gram"]
    place = (step - 1) % rank
    force = None
    if group["centered"] == "residual":
        force = moments["first_moment"].lerp_(grad, c.take1)
        c = c._replace(gain=coefficients(group, step).gain)
    else:
        moments.pop("first_moment", None)
    rows[place] = grad if force is None else grad - force
    products = (rows @ rows[place]).double()
    gram[place], gram[:, place] = products, products
    age = ((place - torch.arange(rank, device=grad.device)) % rank).double()
    root = (c.take2 * c.keep2**age).sqrt()
    inner = gram @ (c.take1 * c.keep1**age) if force is None else (rows @ force).double()
    values, vectors = modes(root[:, None] * gram * root)
    largest = values.amax().clamp(min=0)
    negligible = values <= rank * torch.finfo(rows.dtype).eps * largest
    factor = _inverse(values, negligible, group["alpha"], c.eps, c.zeta)
    along = vectors.T @ (root * inner)
    weights = root * (vectors @ (factor / values.masked_fill(negligible, 1) * along))
    weights.nan_to_num_(0, 0, 0)  # products that overflowed; gradients that are NaN show as such
    _move(group, params, c.gain * c.root * (weights.to(rows.dtype) @ rows))


UPDATES = {"diagonal": _diagonal, "full": _full, "block": _block, "lowrank": _lowrank}


def _move(group: dict[str, Any], params: list[Tensor], step: Tensor) -> None:
    """Take a flat step off tensors, after their decay."""
    if group["weight_decay"]:
        torch._foreach_mul_(params, _decay(group))
    for p, change in zip(params, step.split([p.numel() for p in params]), strict=True):
        p.sub_(change.view(p.shape))


def _may_fuse(group: dict[str, Any]) -> bool:
    """Whether the compiled kernel knows a setting."""
    return (
        group["fused"] is not False
        and group["alpha"] in KERNEL_EXPONENTS
        and group["centered"] != "mean"
    )


def _is_plain(p: Tensor, moments: dict[str, Any]) -> bool:
    """Whether a kernel can work on the memory of a tensor, its gradient and its moments."""
    grad, dtype = p.grad, p.dtype
    assert grad is not None
    return (
        p.is_cpu
        and dtype in WIDE
        and grad.dtype is dtype
        and p.is_contiguous()
        and grad.is_contiguous()
        and moments["second_moment"].is_contiguous()
        and ("first_moment" not in moments or moments["first_moment"].is_contiguous())
        and "mean" not in moments
    )


def _rate(group: dict[str, Any]) -> float:
    """The learning rate of a group, which may be a tensor."""
    return float(group["lr"])


def _decay(group: dict[str, Any]) -> float:
    """What decoupled weight decay leaves of a parameter in a step."""
    return 1 - _rate(group) * group["weight_decay"]


def _weight(tau: float, step: int) -> float:
    """1 - beta^step, exact where beta is near 1."""
    return -math.expm1(-step * math.log1p(1 / tau)) if tau else 1.0


def _flat_gradient(params: list[Tensor]) -> Tensor:
    """The gradients of tensors, which all have one, in one row."""
    return torch.cat([p.grad.reshape(-1) for p in params if p.grad is not None])
