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
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ...envs.core import renamed
from ...envs.core.validation import require_number
from .fitting import (
    check_settings,
    ready,
    require_finite,
    require_loadable,
    require_settings,
    restore,
)
from .metrics import UPDATES


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
        tau1 = _tau("momentum", momentum)
        return cls(
            params,
            lr if dampening else lr / (1 - momentum),
            tau1=tau1,
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

    @torch.no_grad()  # torch declares two forms of `step`, whose types differ by `closure`
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
            UPDATES[group["metric"]](optimizer.state, group, params)


_move_uncompiled = torch.compiler.disable(_move_all)


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


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
