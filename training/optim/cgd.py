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
to us. Our choices are: the family G(C), the mixed metric, eps outside the power, both bias
corrections, the two ways to centre, the pseudo-inverse (modes of C below rounding do not move), all
approximations of the full metric (blocks, rank, refresh) and every default.

Between two eigendecompositions of a dense metric its eigenvectors U stay, while the average of
(U^T r)^2 goes on at every step: it is the diagonal of U^T C U, the newest gradient included. (An
inverse kept whole knows nothing of that gradient: its smallest modes belong to a few early ones,
and a force that has left their span is divided by next to nothing.)

SGD, momentum, RMSprop, Adam, AdamW and AdaBelief are settings of the same class, see the
constructors. At equal lr a full metric moves n parameters up to sqrt(n) less than a diagonal one:
tune lr for each.
"""

from __future__ import annotations

import inspect
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from ...envs.core.validation import require_number
from .fitting import (
    KERNEL_EXPONENTS,
    WIDE,
    blocks_of,
    check_settings,
    dense_shapes,
    has_metric,
    lowrank_layout,
    moment_dtype,
    moments_needed,
    ready,
    require_finite,
    require_loadable,
    require_settings,
    restore,
)

RENEWED = 0.1  # share of new gradients in C at which a kept basis is renewed before `refresh`


class CGD(Optimizer):
    """Covariant gradient descent; see the head of this module for the equations.

    params: as for any torch optimizer; every argument may differ between groups of parameters.
    lr: step size, at least 0.  tau1, tau2: memory of force and metric, in steps.
    alpha: exponent of the metric.  eps, zeta: see G above, at least 0.
    metric: "diagonal", "full", "block" or "lowrank".  One group of parameters per agent makes
        "full" and "lowrank" metrics of the agents apart.
    blocks: of metric "block": "tensor", or "row" (the weights into one neuron; entries of a vector
        are blocks of one).
    refresh: largest number of steps between eigendecompositions of "full" and "block". They come
        sooner while more than a tenth of C is new (it is young, or tau2 is short), and whenever a
        step would be longer than `longest` allows. "lowrank" decomposes at every step.
    rank: gradients that "lowrank" keeps, for the force as for the metric.
    centered: "none", "mean" or "residual".  bias_correction: divide both moments by 1 - beta^t.
    start: moments before the first step: "zero", or "gradient", which is the first one itself.
    weight_decay: decoupled, q <- (1 - lr weight_decay) q before the step.
    maximize: go up.  check_finite: raise ValueError that names the tensor, before anything moves,
        if a gradient holds NaN or infinity.
    fused: compiled kernels, of diagonal steps and of dense ones along kept eigenvectors (None:
        where they can be used; True: a diagonal one must be); False: torch operations.

    Moments of dense metrics are kept in double precision, others in the precision of the parameter
    but at least float32. A parameter without gradient is left alone; in "full" and "lowrank" a
    group moves as a whole, so that all or none of its parameters must have one.

    lr may be a tensor of one element. Settings of a group may be changed between steps, as long as
    the moments that were kept serve the new ones. A second moment that cannot be decomposed (a
    gradient was not finite, or overflowed) warns, and its diagonal is the metric in its place.
    Under `torch.compile` a step runs as it is, between the compiled parts.

    Raises ValueError for a bad argument, for parameters that are not real floating-point numbers,
    for a dense block of more than 2,000 parameters, and, from `step` and `load_state_dict`
    before anything moves, for settings, moments and gradients that do not fit a parameter.

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
        lr: float | Tensor = 1e-3,
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
            check_settings(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in SETTINGS.items():
                group.setdefault(name, value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`, with the moments in the precision that they had.

        Raises ValueError that names the parameter, with nothing changed, for a state that is not
        one of these parameters under the settings that come with it.
        """
        loaded: dict[str, Any] = {}

        def check(optimizer: Optimizer, given: dict[str, Any]) -> None:
            require_loadable(optimizer, given, SETTINGS)
            loaded.update(given)

        def replace(optimizer: Optimizer) -> None:
            restore(optimizer, loaded)

        # The last hook before loading sees what other hooks made of the state, the first one after
        # it replaces what torch has cast to the precision of the parameters.
        hooks = (
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(replace, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; `closure`, if given, evaluates the loss and its gradients, and is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            _move_uncompiled(self)
        else:
            _move_all(self)
        return loss


# Every setting of a group beside the parameters and lr, and its default.
SETTINGS = {
    argument.name: argument.default
    for argument in inspect.signature(CGD.__init__).parameters.values()
    if argument.kind is argument.KEYWORD_ONLY
}


def _move_all(optimizer: Optimizer) -> None:
    """Move every parameter that has a gradient, once all that is needed for it is known to fit."""
    work = []
    checked = optimizer.__dict__.setdefault("_checked", {})
    for group in optimizer.param_groups:
        require_settings(group, SETTINGS, checked)
        work.append((group, ready(optimizer.state, group)))
    for group, params in work:
        if group["check_finite"]:
            require_finite(group, params)
    for group, params in work:
        if params:
            _UPDATES[group["metric"]](optimizer.state, group, params)


_move_uncompiled = torch.compiler.disable(_move_all)


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
            others = [not one for one in plain]
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
        for one in lowered:
            one.masked_fill_(one == 0, math.inf)
    if all(wide):
        torch._foreach_addcdiv_(params, force, lowered, -c.gain * c.root)
    else:
        for p, f, one in zip(params, force, lowered, strict=True):
            p.sub_(c.gain * c.root * f / one)


def _full(state: Any, group: dict[str, Any], params: list[Tensor]) -> None:
    """Update all tensors of a group under one dense metric."""
    flat = torch.cat([p.grad.reshape(-1) for p in params])  # type: ignore[union-attr]
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
    kept = lazy and "basis" in moments and step - moments["renewed"] < _patience(group, step)
    if (kept or n == 1) and _may_compile(group, moments, grad):
        direction = _compiled(moments, group, c, grad)
        if direction is not None:
            return direction
        kept, averages = (
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
    direction = _in_basis(moments, group, c, averages) if kept else None
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
    grad = torch.cat([p.grad.reshape(-1) for p in params])  # type: ignore[union-attr]
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


_UPDATES = {"diagonal": _diagonal, "full": _full, "block": _block, "lowrank": _lowrank}


def _move(group: dict[str, Any], params: list[Tensor], step: Tensor) -> None:
    """Take a flat step off tensors, after their decay."""
    if group["weight_decay"]:
        torch._foreach_mul_(params, _decay(group))
    for p, part in zip(params, step.split([p.numel() for p in params]), strict=True):
        p.sub_(part.view(p.shape))


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
