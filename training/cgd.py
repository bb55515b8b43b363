"""Covariant gradient descent: a step along the gradient raised by a metric made of its moments.

With the gradient g_t, averages over time constants tau (beta = tau / (1 + tau)) and step t

    F_t = beta1 F_{t-1} + (1 - beta1) g_t                         the force: first moment
    C_t = beta2 C_{t-1} + (1 - beta2) r_t r_t^T                   the second moment
    q_t = q_{t-1} - lr G(C_t)^{-1} F_t,    G(C) = C^alpha + eps + zeta C

    symbol   argument                    meaning
    lr       lr                          step size; the parameters q move by lr times the direction
    tau1     tau1                        steps that the force remembers; 0: the gradient itself
    tau2     tau2                        steps that the metric remembers; 0: the gradient itself
    alpha    alpha                       0 plain descent, 1/2 Adam's family, 1 natural gradient
    eps      eps                         added to the metric, outside the power
    zeta     zeta                        weight of C itself: the mixed metric
    r        centered                    "none": r = g; "residual": r = g - F_t (AdaBelief);
                                         "mean": C less the outer square of the mean over tau2
    C        metric                      "diagonal": only its diagonal; "full": all of it, a group
                                         of parameters together; "block": one per tensor or per
                                         row; "lowrank": what the last `rank` gradients span

Source: dq/dt = -gamma g^{mu nu} F_nu, the averages and the roles of the moments are those of
"Covariant Gradient Descent" (Guskov and Vanchurin, arXiv 2504.05279), whose body was not available
to us. Our choice are: the family G(C), the mixed metric, eps outside the power, both bias
corrections, the two ways to centre, the pseudo-inverse (modes of C below rounding do not move), all
approximations of the full metric (blocks, rank, refresh) and every default.

SGD, momentum, RMSprop, Adam, AdamW and AdaBelief are settings of the same class, see the
constructors. At equal lr a full metric moves n parameters up to sqrt(n) less than a diagonal one:
tune lr for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..envs.core.system import require_choice, require_count, require_number

METRICS = ("diagonal", "full", "block", "lowrank")
BLOCKS = ("tensor", "row")
CENTERED = ("none", "mean", "residual")
STARTS = ("zero", "gradient")
LARGEST_BLOCK = 2000  # parameters that share one dense metric
_KERNEL_EXPONENTS = (0.5, 1.0)
_WIDE = (torch.float32, torch.float64)


class CGD(Optimizer):
    """Covariant gradient descent; see the head of this module for the equations.

    params: as for any torch optimizer; every argument may differ between groups of parameters.
    lr: step size, at least 0.  tau1, tau2: memory of force and metric, in steps.
    alpha: exponent of the metric.  eps, zeta: see G above, at least 0.
    metric: "diagonal", "full", "block" or "lowrank".  One group of parameters per agent makes
        "full" and "lowrank" metrics of the agents apart.
    blocks: of metric "block": "tensor", or "row" (the weights into one neuron; entries of a vector
        are blocks of one).  refresh: steps between eigendecompositions of "full" and "block".
    rank: gradients that "lowrank" keeps.
    centered: "none", "mean" or "residual".  bias_correction: divide both moments by 1 - beta^t.
    start: moments before the first step: "zero", or "gradient", which is the first one itself.
    weight_decay: decoupled, q <- (1 - lr weight_decay) q before the step.
    maximize: go up.  check_finite: raise ValueError that names the tensor, before anything moves,
        if a gradient holds NaN or infinity.
    fused: compiled kernel (None: where it can be used); False: torch operations over lists.

    Moments of dense metrics are kept in double precision, others in the precision of the parameter
    but at least float32. A parameter without gradient is left alone; in "full" and "lowrank" a
    group moves as a whole, so that all or none of its parameters must have one.

    Raises ValueError for a bad argument, for parameters that are not real floating-point numbers,
    and for a dense block of more than LARGEST_BLOCK parameters.

    >>> import torch
    >>> q = torch.nn.Parameter(torch.tensor([3.0, -1.0]))
    >>> optimizer = CGD([q], lr=0.1, metric="full")
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     (q[0] ** 2 + 100 * q[1] ** 2).backward()
    ...     _ = optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        tau1: float = 9.0,
        tau2: float = 999.0,
        alpha: float = 0.5,
        eps: float = 1e-8,
        zeta: float = 0.0,
        metric: str = "diagonal",
        blocks: str = "tensor",
        refresh: int = 1,
        rank: int = 20,
        centered: str = "none",
        bias_correction: bool = True,
        start: str = "zero",
        weight_decay: float = 0.0,
        maximize: bool = False,
        check_finite: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "tau1": tau1,
                "tau2": tau2,
                "alpha": alpha,
                "eps": eps,
                "zeta": zeta,
                "metric": metric,
                "blocks": blocks,
                "refresh": refresh,
                "rank": rank,
                "centered": centered,
                "bias_correction": bias_correction,
                "start": start,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "check_finite": check_finite,
                "fused": fused,
            },
        )

    @classmethod
    def sgd(cls, params: Any, lr: float = 1e-3, *, maximize: bool = False) -> CGD:
        """torch.optim.SGD(params, lr) without momentum."""
        return cls(params, lr, tau1=0, alpha=0, eps=0, bias_correction=False, maximize=maximize)

    @classmethod
    def momentum(
        cls,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.9,
        dampening: float = 0.0,
        *,
        maximize: bool = False,
    ) -> CGD:
        """torch.optim.SGD(params, lr, momentum, dampening), whose step is lr / (1 - momentum) here.

        dampening is 0, or equal to `momentum`; then the force starts at the first gradient.
        """
        if dampening not in (0, momentum):
            raise ValueError(f"dampening={dampening!r} must be 0 or equal to momentum={momentum!r}")
        return cls(
            params,
            lr if dampening else lr / (1 - momentum),
            tau1=_tau("momentum", momentum),
            alpha=0,
            eps=0,
            bias_correction=False,
            start="gradient" if dampening else "zero",
            maximize=maximize,
        )

    @classmethod
    def rmsprop(
        cls,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        *,
        centered: bool = False,
        maximize: bool = False,
    ) -> CGD:
        """torch.optim.RMSprop(params, lr, alpha, eps) without momentum."""
        return cls(
            params,
            lr,
            tau1=0,
            tau2=_tau("alpha", alpha),
            eps=eps,
            centered="mean" if centered else "none",
            bias_correction=False,
            maximize=maximize,
        )

    @classmethod
    def adam(
        cls,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        maximize: bool = False,
    ) -> CGD:
        """torch.optim.Adam(params, lr, betas, eps)."""
        tau1, tau2 = _taus(betas)
        return cls(params, lr, tau1=tau1, tau2=tau2, eps=eps, maximize=maximize)

    @classmethod
    def adamw(
        cls,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
    ) -> CGD:
        """torch.optim.AdamW(params, lr, betas, eps, weight_decay)."""
        tau1, tau2 = _taus(betas)
        return cls(
            params,
            lr,
            tau1=tau1,
            tau2=tau2,
            eps=eps,
            weight_decay=weight_decay,
            maximize=maximize,
        )

    @classmethod
    def adabelief(
        cls,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        *,
        maximize: bool = False,
    ) -> CGD:
        """AdaBelief (Zhuang et al. 2020) without the eps that its code adds to the average."""
        tau1, tau2 = _taus(betas)
        return cls(
            params, lr, tau1=tau1, tau2=tau2, eps=eps, centered="residual", maximize=maximize
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; ValueError for what it cannot optimise."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`, with the moments in the precision that they had."""
        super().load_state_dict(state_dict)
        saved = (p for group in state_dict["param_groups"] for p in group["params"])
        own = (p for group in self.param_groups for p in group["params"])
        for number, p in zip(saved, own, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor):
                    # torch casts to the parameter's dtype, and may keep the tensor of the caller.
                    self.state[p][name] = value.detach().clone().to(p.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; `closure`, if given, evaluates the loss and its gradients, and is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(group, _with_gradient(group)) for group in self.param_groups]
        for group, params in work:
            if group["check_finite"]:
                _require_finite(group, params)
        for group, params in work:
            if params:
                _UPDATES[group["metric"]](self.state, group, params)
        return loss


class Coefficients(NamedTuple):
    """Numbers of one step: weights of old and new, then q -= gain root F / G(C).

    F and C are without bias correction: it is folded into gain, root, eps and zeta.
    """

    keep1: float
    take1: float
    keep2: float
    take2: float
    gain: float
    root: float
    eps: float
    zeta: float


def coefficients(group: dict[str, Any], step: int, *, seen: int | None = None) -> Coefficients:
    """The numbers of step `step` = 1, 2, …; `seen`: gradients in C, if not all of them."""
    tau1, tau2 = group["tau1"], group["tau2"]
    first = step == 1 and group["start"] == "gradient"
    keep1, take1 = (0.0, 1.0) if first else (tau1 / (1 + tau1), 1 / (1 + tau1))
    keep2, take2 = (0.0, 1.0) if first else (tau2 / (1 + tau2), 1 / (1 + tau2))
    weight1 = weight2 = 1.0
    if group["bias_correction"]:
        weight1, weight2 = _weight(tau1, step), _weight(tau2, step if seen is None else seen)
    root = weight2 ** group["alpha"]
    return Coefficients(
        keep1=keep1,
        take1=take1,
        keep2=keep2,
        take2=take2,
        gain=group["lr"] / weight1,
        root=root,
        eps=group["eps"] * root,
        zeta=group["zeta"] * root / weight2,
    )


def scale(values: Tensor, alpha: float, eps: float, zeta: float) -> Tensor:
    """The metric G of eigenvalues or diagonal entries of the second moment, entry by entry."""
    power = values.sqrt() if alpha == 0.5 else values**alpha
    return power + eps + zeta * values if zeta else power + eps


def inverse_metric(second: Tensor, alpha: float, eps: float, zeta: float) -> Tensor:
    """Pseudo-inverse [..., n, n] of G(C) for second moments C [..., n, n].

    Eigenvalues below n times the rounding of the largest count as zero; their modes do not move.
    """
    if second.shape[-1] == 1:
        kept = second > 0
        return kept / scale(second.masked_fill(~kept, 1), alpha, eps, zeta)
    values, vectors = torch.linalg.eigh(second)
    largest = values[..., -1:].clamp(min=0)
    kept = values > values.shape[-1] * torch.finfo(values.dtype).eps * largest
    factor = kept / scale(values.masked_fill(~kept, 1), alpha, eps, zeta)
    return (vectors * factor.unsqueeze(-2)) @ vectors.mT


def _diagonal(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Update tensors that all have a gradient, those of equal age together."""
    ages: dict[int, list[Tensor]] = {}
    for p in params:
        moments = state[p]
        if not moments:
            dtype = p.dtype if p.dtype in _WIDE else torch.float32
            moments["step"] = 0
            for name in _moments_kept(group):
                moments[name] = torch.zeros_like(p, dtype=dtype)
        moments["step"] += 1
        ages.setdefault(moments["step"], []).append(p)
    for age, found in ages.items():
        c = coefficients(group, age)
        plain = found
        if _may_fuse(group):
            from .kernels import cgd as kernel

            fused = [p for p in found if _is_plain(p)]
            for p in fused:
                kernel.update(group, c, p, state[p])
            plain = [p for p in found if not _is_plain(p)] if len(fused) < len(found) else []
        if plain:
            _foreach(group, c, plain, [state[p] for p in plain])


def _foreach(
    group: dict[str, Any], c: Coefficients, params: list[Tensor], states: list[dict[str, Any]]
) -> None:
    """The diagonal step as torch operations over lists of tensors."""
    grads = [p.grad for p in params if p.grad is not None]
    if group["maximize"]:
        grads = list(torch._foreach_neg(grads))
    wide = [p.dtype in _WIDE for p in params]
    if not all(wide):
        grads = [g if w else g.float() for g, w in zip(grads, wide, strict=True)]
    if group["weight_decay"]:
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
    force = grads
    if group["tau1"]:
        force = [s["first_moment"] for s in states]
        torch._foreach_lerp_(force, grads, c.take1)
    if not _has_metric(group):
        gain = c.gain / (1 + c.eps)
        if all(wide):
            torch._foreach_add_(params, force, alpha=-gain)
        else:
            for p, f in zip(params, force, strict=True):
                p.sub_(gain * f)
        return
    residual = grads
    if group["centered"] == "residual":
        residual = list(torch._foreach_sub(grads, force))
    second = [s["second_moment"] for s in states]
    torch._foreach_mul_(second, c.keep2)
    torch._foreach_addcmul_(second, residual, residual, c.take2)
    if group["centered"] == "mean":
        mean = [s["mean"] for s in states]
        torch._foreach_lerp_(mean, grads, c.take2)
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
        for one in lowered:
            one.masked_fill_(one == 0, math.inf)
    if all(wide):
        torch._foreach_addcdiv_(params, force, lowered, -c.gain * c.root)
    else:
        for p, f, one in zip(params, force, lowered, strict=True):
            p.sub_(c.gain * c.root * f / one)


def _full(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Update all tensors of a group under one dense metric."""
    _require_all(group, params)
    flat = torch.cat([p.grad.reshape(-1) for p in params])  # type: ignore[union-attr]
    step = _dense(state[params[0]], group, flat[None])[0]
    _move(group, params, step)


def _block(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Update tensors under dense metrics of their own, or of their rows."""
    for p in params:
        assert p.grad is not None
        grad = p.grad.reshape(_rows(group, p), -1)
        _move(group, [p], _dense(state[p], group, grad).reshape(-1))


def _dense(moments: dict[str, Any], group: dict[str, Any], grad: Tensor) -> Tensor:
    """gain G^{-1} F for gradients [blocks, n] under one dense metric per block."""
    blocks, n = grad.shape
    if not moments:
        moments["step"] = 0
        for name in _moments_kept(group):
            shape = (blocks, n, n) if name == "second_moment" else (blocks, n)
            moments[name] = grad.new_zeros(shape, dtype=torch.float64)
    moments["step"] += 1
    c = coefficients(group, moments["step"])
    grad = -grad.double() if group["maximize"] else grad.double()
    force = moments["first_moment"].lerp_(grad, c.take1) if group["tau1"] else grad
    if not _has_metric(group):
        return c.gain / (1 + c.eps) * force
    residual = grad - force if group["centered"] == "residual" else grad
    column, row = (c.take2 * residual).unsqueeze(-1), residual.unsqueeze(-2)
    second = moments["second_moment"].mul_(c.keep2)
    second += column * row
    if group["centered"] == "mean":
        mean = moments["mean"].lerp_(grad, c.take2)
        second = second - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    inverse = moments.get("inverse_metric")
    if inverse is None or (moments["step"] - 1) % group["refresh"] == 0:
        inverse = c.root * inverse_metric(second, group["alpha"], c.eps, c.zeta)
    if group["refresh"] > 1:
        moments["inverse_metric"] = inverse
    return c.gain * (inverse @ force.unsqueeze(-1)).squeeze(-1)


def _lowrank(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Update a group under the metric of its last `rank` gradients, by their Gram matrix.

    With the kept gradients as columns of R and their weights W, the second moment is R W R^T; its
    eigenvectors are U = R W^1/2 E lambda^-1/2, E and lambda those of W^1/2 R^T R W^1/2. What is
    outside their span does not move.
    """
    _require_all(group, params)
    grad = torch.cat([p.grad.reshape(-1) for p in params])  # type: ignore[union-attr]
    if grad.dtype not in _WIDE:
        grad = grad.float()
    if group["maximize"]:
        grad = -grad
    moments, rank = state[params[0]], group["rank"]
    if not moments:
        moments["step"] = 0
        moments["first_moment"] = torch.zeros_like(grad)
        moments["gradients"] = grad.new_zeros((rank, grad.numel()))
        moments["gram"] = grad.new_zeros((rank, rank), dtype=torch.float64)
    moments["step"] += 1
    step = moments["step"]
    c = coefficients(group, step, seen=min(step, rank))
    force = moments["first_moment"].lerp_(grad, c.take1) if group["tau1"] else grad
    rows, gram = moments["gradients"], moments["gram"]
    place = (step - 1) % rank
    rows[place] = grad - force if group["centered"] == "residual" else grad
    products = (rows @ rows[place]).double()
    gram[place], gram[:, place] = products, products
    age = (place - torch.arange(rank, device=grad.device)) % rank
    root = (c.take2 * c.keep2 ** age.double()).sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * gram * root)
    kept = values > rank * torch.finfo(rows.dtype).eps * values[-1].clamp(min=0)
    safe = values.masked_fill(~kept, 1)
    factor = kept / (safe * scale(safe, group["alpha"], c.eps, c.zeta))
    along = vectors.T @ (root * (rows @ force).double())
    weights = root * (vectors @ (factor * along))
    _move(group, params, c.gain * c.root * (weights.to(rows.dtype) @ rows))


_UPDATES = {"diagonal": _diagonal, "full": _full, "block": _block, "lowrank": _lowrank}


def _move(group: dict[str, Any], params: list[Tensor], step: Tensor) -> None:
    """Take a flat step off tensors, after their decay."""
    if group["weight_decay"]:
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
    for p, part in zip(params, step.split([p.numel() for p in params]), strict=True):
        p.sub_(part.view(p.shape))


def _moments_kept(group: dict[str, Any]) -> list[str]:
    """Names of the averages that a setting needs."""
    names = ["first_moment"] if group["tau1"] else []
    if _has_metric(group):
        names += ["second_moment", *(["mean"] if group["centered"] == "mean" else [])]
    return names


def _has_metric(group: dict[str, Any]) -> bool:
    """Whether the metric is more than a number."""
    return bool(group["alpha"] or group["zeta"])


def _may_fuse(group: dict[str, Any]) -> bool:
    """Whether the compiled kernel knows a setting."""
    if group["fused"] is False or torch.compiler.is_compiling():
        return False
    return group["alpha"] in _KERNEL_EXPONENTS and group["centered"] != "mean"


def _is_plain(p: Tensor) -> bool:
    """Whether a kernel can work on the memory of a tensor and its gradient."""
    grad = p.grad
    assert grad is not None
    return (
        p.is_cpu
        and p.dtype in _WIDE
        and grad.dtype == p.dtype
        and p.is_contiguous()
        and grad.is_contiguous()
    )


def _rows(group: dict[str, Any], p: Tensor) -> int:
    """Blocks that a tensor falls into."""
    return p.shape[0] if group["blocks"] == "row" and p.ndim else 1


def _weight(tau: float, step: int) -> float:
    """1 - beta^step, exact where beta is near 1."""
    return -math.expm1(-step * math.log1p(1 / tau)) if tau else 1.0


def _tau(name: str, beta: Any) -> float:
    """The time constant of an average that keeps `beta` of the old."""
    require_number(name, beta, 0, 1)
    if beta == 1:
        raise ValueError(f"{name}={beta!r} must be below 1")
    return beta / (1 - beta)


def _taus(betas: tuple[float, float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise ValueError(f"betas={betas!r} must be two numbers from 0 to below 1")
    return _tau("betas[0]", betas[0]), _tau("betas[1]", betas[1])


def _check(group: dict[str, Any]) -> None:
    """Raise ValueError for settings and parameters that make no sense."""
    for name in ("lr", "tau1", "tau2", "eps", "zeta", "weight_decay"):
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
    if group["start"] == "gradient" and group["bias_correction"]:
        raise ValueError("start='gradient' has no bias to correct: give bias_correction=False")
    if group["metric"] == "lowrank" and group["centered"] == "mean":
        raise ValueError("metric='lowrank' cannot be centered='mean'; it can be 'residual'")
    if group["metric"] == "lowrank" and group["start"] == "gradient":
        raise ValueError("metric='lowrank' needs start='zero'")
    if group["fused"] and (
        group["metric"] != "diagonal"
        or group["centered"] == "mean"
        or group["alpha"] not in _KERNEL_EXPONENTS
    ):
        raise ValueError("fused=True needs a diagonal metric, alpha 0.5 or 1 and no centred mean")
    for number, p in enumerate(group["params"]):
        if not p.is_floating_point():
            raise ValueError(
                f"{_name(group, number)} is {p.dtype}: only real floats can be optimised"
            )
    _require_fitting(group)


def _require_fitting(group: dict[str, Any]) -> None:
    """Raise ValueError for dense metrics that are too large."""
    if group["metric"] == "full":
        found = [("a group", sum(p.numel() for p in group["params"]))]
    elif group["metric"] == "block":
        found = [
            (_name(group, number), p.numel() // max(_rows(group, p), 1))
            for number, p in enumerate(group["params"])
        ]
    else:
        return
    what, n = max(found, key=lambda pair: pair[1])
    if n > LARGEST_BLOCK:
        gigabytes = 8 * n * n / 1e9
        others = "blocks='row', " if group["metric"] != "full" and group["blocks"] != "row" else ""
        others += "metric='block', " if group["metric"] == "full" else ""
        raise ValueError(
            f"metric={group['metric']!r} on {what} of n = {n} parameters needs {gigabytes:.2g} GB "
            f"and n^3 operations; the limit is {LARGEST_BLOCK}: take {others}metric='lowrank' or "
            "metric='diagonal'"
        )


def _with_gradient(group: dict[str, Any]) -> list[Tensor]:
    """The parameters that have a gradient; ValueError if one is sparse."""
    found = [p for p in group["params"] if p.grad is not None]
    for p in found:
        if p.grad.is_sparse:
            number = next(i for i, one in enumerate(group["params"]) if one is p)
            raise ValueError(f"the gradient of {_name(group, number)} is sparse; give a dense one")
    return found


def _require_finite(group: dict[str, Any], params: Iterable[Tensor]) -> None:
    """Raise ValueError that names the first tensor whose gradient holds NaN or infinity."""
    grads = [p.grad for p in params]
    if not grads or bool(torch.stack(torch._foreach_norm(grads, 1)).isfinite().all()):  # type: ignore[arg-type]
        return
    for number, p in enumerate(group["params"]):
        if p.grad is not None and not bool(p.grad.isfinite().all()):
            bad = int((~p.grad.isfinite()).sum())
            raise ValueError(
                f"the gradient of {_name(group, number)} is not finite in {bad} of {p.numel()} "
                "entries; nothing was changed"
            )


def _require_all(group: dict[str, Any], params: list[Tensor]) -> None:
    """Raise ValueError if only some parameters of a group have gradients."""
    wanted = [p for p in group["params"] if p.requires_grad]
    if len(params) < len(wanted):
        number = next(
            i for i, p in enumerate(group["params"]) if p.requires_grad and p.grad is None
        )
        raise ValueError(
            f"metric={group['metric']!r} moves a group as a whole, but {_name(group, number)} has "
            "no gradient: put it into a group of its own"
        )


def _name(group: dict[str, Any], number: int) -> str:
    """What a parameter is called in messages."""
    shape = tuple(group["params"][number].shape)
    named = group.get("param_names")
    return f"parameter {named[number]!r} {shape}" if named else f"parameter {number} {shape}"
