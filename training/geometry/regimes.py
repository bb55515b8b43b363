"""Regimes of learning: how the metric of a learner depends on the noise of its gradients.

With kappa = Cov(gradients) (lower indices) and updates q' - q ~ -lr g^{-1} (gradient), a metric
g = kappa^alpha makes Cov(updates) ~ g^{-1} kappa g^{-1} = kappa^{1 - 2 alpha}: in the eigenbasis of
kappa the variances of updates have slope 1 - 2 alpha against its eigenvalues on logarithmic scales.

    alpha = 0    equilibration   all directions move alike (plain descent)
    alpha = 1/2  efficient       updates have the same noise in all directions (Adam's family)
    alpha = 1    quantum         the noise of updates is the inverse metric (natural gradient)

Source: the regimes and g = kappa^alpha are those of "Geometric Learning Dynamics" (Vanchurin,
arXiv 2504.14728), of which only the abstract and the introduction were available to us. Our choice
are the estimators, the tests, the mixed metric g = eps + kappa^1/2 + zeta kappa with its bands
(k < eps^2, between, k > zeta^-2), and where one regime ends and the next begins.

Arrays of gradients and updates are [samples, n]; modes are eigenvectors of kappa, largest first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...envs.core import renamed
from ...envs.core.validation import require_count, require_number

REGIMES = ("equilibration", "efficient", "quantum")
_FEWEST_MODES = 4
_ENOUGH = 15  # samples per mode from which all modes are trusted


class Estimate(NamedTuple):
    """What the slope says; fields in the order of `regimes` and of the columns of progress.csv.

    alpha, error: the exponent and its standard error (of the regression).  r2: share of the
    variance of log power that the slope explains; near 0 at alpha = 1/2, where the slope is 0.
    modes: how many were used.  variances, powers [modes]: of gradients and of updates.
    """

    alpha: float
    error: float
    slope: float
    r2: float
    modes: int
    variances: Tensor
    powers: Tensor


class Sphericity(NamedTuple):
    """Mauchly's statistic, its degrees of freedom, and the chance of a larger one if spherical."""

    statistic: float
    freedom: int
    p: float


class Mode(NamedTuple):
    """A mode of gradient noise under the mixed metric."""

    variance: float
    exponent: float
    regime: str


def covariance(samples: Tensor, groups: Tensor | None = None) -> Tensor:
    """Covariance [n, n] of samples [m, n], or of the means over groups [m] (episodes, agents)."""
    if groups is not None:
        samples = group_means(samples, groups)
    _require_samples("samples", samples, 2)
    centred = (samples - samples.mean(0)).double()
    return centred.T @ centred / (len(samples) - 1)


def group_means(samples: Tensor, groups: Tensor) -> Tensor:
    """Means [k, n] of samples [m, n] over those with equal label in `groups` [m], sorted."""
    if groups.shape != samples.shape[:1]:
        raise ValueError(f"groups has shape {tuple(groups.shape)}, not ({len(samples)},)")
    labels, index = groups.unique(return_inverse=True)
    sums = torch.zeros(len(labels), samples.shape[1], dtype=samples.dtype, device=samples.device)
    sums.index_add_(0, index, samples)
    return sums / index.bincount(minlength=len(labels))[:, None]


def sample_gradients(
    model: nn.Module, loss: Callable[[Tensor, Any], Tensor], inputs: Tensor, targets: Any
) -> Tensor:
    """Gradient of every sample's own loss at frozen weights, [samples, n] in the model's order.

    loss: (outputs [1, …], targets [1, …]) -> a number.  The covariance over samples, divided by
    the size of a batch, is the noise of its gradient; `group_means` gives episodes or agents.
    """
    params = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def one(weights: dict[str, Tensor], x: Tensor, y: Any) -> Tensor:
        output = torch.func.functional_call(model, (weights, buffers), (x.unsqueeze(0),))
        return loss(output, y.unsqueeze(0))

    each = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(params, inputs, targets)
    return torch.cat([each[name].flatten(1) for name in params], 1)


def effective_rank(covariance: Tensor) -> float:
    """(Tr C)^2 / Tr C^2 of a covariance [n, n]: 1 for one mode, n for equal ones; 0 for none."""
    squares = float(covariance.square().sum())
    return float(covariance.trace()) ** 2 / squares if squares > 0 else 0.0


def estimate_alpha(gradients: Tensor, updates: Tensor, *, modes: int | None = None) -> Estimate:
    """The exponent alpha of a learner, from gradients [m, n] and its updates [k, n].

    modes: leading modes to use; by default all that stand above rounding if there are many more
    samples than modes, and otherwise the effective rank of the gradients' covariance, at least 4.
    Updates should be noise rather than drift; averaging the force does not matter.
    Raises ValueError if there are fewer than three modes.
    """
    _require_samples("gradients", gradients, 3)
    _require_samples("updates", updates, 3)
    if gradients.shape[1] != updates.shape[1]:
        raise ValueError(
            f"gradients have {gradients.shape[1]} components, updates {updates.shape[1]}"
        )
    directions, variances = principal(gradients)
    rank = _rank(variances)
    known = int((variances > 1e-12 * variances[0]).sum()) if len(variances) else 0
    if modes is None:
        plenty = min(len(gradients), len(updates)) >= _ENOUGH * gradients.shape[1]
        modes = known if plenty else max(_FEWEST_MODES, math.ceil(rank))
    require_count("modes", modes, 3)
    modes = min(modes, known)
    powers = (updates.double() @ directions[:, :modes]).var(0)
    noisy = powers > 0
    if int(noisy.sum()) < 3:
        raise ValueError(f"only {int(noisy.sum())} modes have noise: a slope needs three")
    variances, powers = variances[:modes][noisy], powers[noisy]
    slope, error, r2 = _line(variances.log(), powers.log())
    return Estimate((1 - slope) / 2, error / 2, slope, r2, len(powers), variances, powers)


def alpha_of_metric(inverse_metric: Tensor, updates: Tensor) -> Estimate:
    """The exponent from a known inverse metric [n, n] and updates [k, n] of a population.

    Cov(updates) ~ (g^{-1})^s with s = (2 alpha - 1) / alpha, so that alpha = 1 / (2 - s): 1 if the
    covariance of updates is the inverse metric itself, 1/2 if it is isotropic.
    """
    values, vectors = torch.linalg.eigh(inverse_metric.double())
    nonzero = values > 1e-9 * values[-1]
    powers = (updates.double() @ vectors[:, nonzero]).var(0)
    slope, error, r2 = _line(values[nonzero].log(), powers.log())
    alpha = 1 / (2 - slope)
    return Estimate(alpha, error * alpha**2, slope, r2, len(powers), values[nonzero], powers)


def principal(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors [n, r] and eigenvalues [r] of the samples' covariance, largest first."""
    centred = (samples - samples.mean(0)).double()
    if len(samples) > samples.shape[1]:
        values, vectors = torch.linalg.eigh(centred.T @ centred / (len(samples) - 1))
        return vectors.flip(1), values.flip(0).clamp(min=0)
    gram, vectors = torch.linalg.eigh(centred @ centred.T / (len(samples) - 1))
    nonzero = gram > 1e-12 * gram[-1]
    values, vectors = gram[nonzero].flip(0), vectors[:, nonzero].flip(1)
    return centred.T @ vectors / (values * (len(samples) - 1)).sqrt(), values


def sphericity(updates: Tensor) -> Sphericity:
    """Mauchly's test that Cov(updates [m, n]) is a multiple of the identity, as at alpha = 1/2.

    T = -c (ln det S - n ln(tr S / n)) with Bartlett's c = m - 1 - (2 n^2 + n + 2) / (6 n) is nearly
    chi-squared with n (n + 1) / 2 - 1 degrees of freedom; take m of 15 n or more.
    Raises ValueError unless m > n > 1.
    """
    m, n = updates.shape
    if not m > n > 1:
        raise ValueError(f"updates [{m}, {n}]: sphericity needs more samples than components")
    s = covariance(updates)
    c = m - 1 - (2 * n**2 + n + 2) / (6 * n)
    log_det = float(torch.linalg.slogdet(s)[1])
    statistic = (
        -c * (log_det - n * math.log(float(s.trace()) / n)) if log_det > -1e300 else math.inf
    )
    freedom = n * (n + 1) // 2 - 1
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    p = 0.0 if math.isinf(statistic) else float(torch.special.gammaincc(half[0], half[1]))
    return Sphericity(statistic, freedom, p)


def exponent(variance: Tensor, eps: float, zeta: float) -> Tensor:
    """Local exponent d log g / d log k of the mixed metric eps + k^1/2 + zeta k."""
    root = variance.sqrt()
    return (0.5 * root + zeta * variance) / (eps + root + zeta * variance)


def plateau(eps: float, zeta: float, low: float = 0.4, high: float = 0.6) -> float:
    """Decades of variance in which the mixed metric's exponent lies between `low` and `high`."""
    for name, value in (("eps", eps), ("zeta", zeta)):
        require_number(name, value, 0, strict=True)
    first, last = (_variance_at(level, eps, zeta) for level in (low, high))
    return math.log10(last / first)


def _variance_at(level: float, eps: float, zeta: float) -> float:
    """Where the exponent, which grows, has a value: zeta (1 - a) x^2 + (1/2 - a) x - a eps = 0."""
    a, b, c = zeta * (1 - level), 0.5 - level, -level * eps
    root = math.sqrt(b * b - 4 * a * c)
    x = (root - b) / (2 * a) if b <= 0 else 2 * -c / (b + root)
    return x * x


def modes(covariance: Tensor, eps: float, zeta: float) -> list[Mode]:
    """The regime of every mode of a gradient covariance [n, n] under the mixed metric."""
    values = torch.linalg.eigvalsh(covariance.double()).flip(0).clamp(min=0)
    exponents = exponent(values, eps, zeta)
    return [
        Mode(k, a, band(k, eps, zeta))
        for k, a in zip(values.tolist(), exponents.tolist(), strict=True)
    ]


def band(variance: float, eps: float, zeta: float) -> str:
    """Regime of a variance k: k < eps^2, eps^2 < k < zeta^-2, k > zeta^-2.

    Where eps zeta > 1 there is no efficient band: the metric eps + zeta k turns at k = eps / zeta.
    """
    low, high = eps**2, zeta**-2 if zeta else math.inf
    if low > high:
        low = high = eps / zeta
    return REGIMES[0] if variance < low else REGIMES[1] if variance < high else REGIMES[2]


def regime(estimate: Estimate, *, least: float = 0.12) -> str:
    """The regime nearest to an estimate (bounds 1/4 and 3/4), or "undecided" if its error exceeds
    `least`.
    """
    if not estimate.error <= least:
        return "undecided"
    return REGIMES[0] if estimate.alpha < 0.25 else REGIMES[1 if estimate.alpha < 0.75 else 2]


class StepRecorder:
    """The last gradients and updates of an optimizer's parameters, tensor by tensor.

    Attach it; it watches every step from then on. What was given to the optimizer is what counts:
    gradients after clipping. `state_dict` keeps the window.
    """

    def __init__(self, window: int) -> None:
        require_count("window", window, 8)
        self.window = window
        self._rows: dict[str, deque[tuple[Tensor, Tensor]]] = {}
        self._hooks: tuple[Any, ...] = ()

    def attach(
        self, optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, nn.Parameter]]
    ) -> StepRecorder:
        """Watch the parameters of an optimizer under their names; returns itself.

        What it was attached to before, if only once more the same, is watched no longer.
        """
        names = {p: name for name, p in named}
        params = [p for group in optimizer.param_groups for p in group["params"] if p in names]
        before: list[Tensor] = []

        def note(*_: Any) -> None:
            before[:] = [p.detach().clone() for p in params]

        def keep(*_: Any) -> None:
            for p, old in zip(params, before, strict=True):
                if p.grad is not None:
                    rows = self._rows.setdefault(names[p], deque(maxlen=self.window))
                    moved = (p.detach() - old).flatten().cpu()
                    rows.append((p.grad.detach().flatten().cpu().clone(), moved))

        for hook in self._hooks:
            hook.remove()
        self._hooks = (
            optimizer.register_step_pre_hook(note),
            optimizer.register_step_post_hook(keep),
        )
        return self

    def __len__(self) -> int:
        return max((len(rows) for rows in self._rows.values()), default=0)

    def tensors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Gradients and updates [steps, n] by name."""
        return {
            name: (torch.stack([g for g, _ in rows]), torch.stack([u for _, u in rows]))
            for name, rows in self._rows.items()
        }

    def together(self) -> tuple[Tensor, Tensor]:
        """Gradients and updates [steps, all parameters]."""
        windows = self.tensors().values()
        length = min(len(g) for g, _ in windows)
        return (
            torch.cat([g[-length:] for g, _ in windows], 1),
            torch.cat([u[-length:] for _, u in windows], 1),
        )

    def numbers(self) -> dict[str, float]:
        """One row for a log: alpha, its error, R^2, effective rank, sphericity per freedom."""
        if len(self) < 8:
            return {}
        return summarise(*self.together())

    def row(self) -> dict[str, float]:
        """The same as columns of progress.csv."""
        return {f"regimes/{name}": value for name, value in self.numbers().items()}

    def state_dict(self) -> dict[str, Any]:
        """The window as tensors."""
        return {name: list(window) for name, window in self.tensors().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the window of `state_dict`."""
        self._rows = {
            name: deque(zip(gradients, updates, strict=True), maxlen=self.window)
            for name, (gradients, updates) in state.items()
        }


def summarise(gradients: Tensor, updates: Tensor) -> dict[str, float]:
    """Numbers of a window [steps, n] for a log; those that are not defined are left out.

    sphericity: Mauchly's statistic over its degrees of freedom, in the modes that alpha is
    estimated on; about 1 where their noise is the same in all directions.
    """
    directions, variances = principal(gradients)
    numbers = {"effective_rank": _rank(variances)}
    try:
        estimate = estimate_alpha(gradients, updates)
        test = sphericity(updates.double() @ directions[:, : estimate.modes])
    except ValueError:
        return numbers
    numbers = {
        "alpha": estimate.alpha,
        "alpha_error": estimate.error,
        "alpha_r2": estimate.r2,
        **numbers,
    }
    return {**numbers, "sphericity": test.statistic / test.freedom}


def _rank(values: Tensor) -> float:
    squares = float(values.square().sum())
    return float(values.sum()) ** 2 / squares if squares > 0 else 0.0


def _line(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Slope of y over x [k], its standard error, and R^2, by least squares."""
    dx, dy = x - x.mean(), y - y.mean()
    spread, total = float(dx.square().sum()), float(dy.square().sum())
    if spread == 0:
        return math.nan, math.inf, 0.0
    slope = float(dx @ dy) / spread
    rest = float((dy - slope * dx).square().sum())
    error = math.sqrt(rest / max(len(x) - 2, 1) / spread)
    return slope, error, 1 - rest / total if total > 0 else 1.0


def _require_samples(name: str, samples: Tensor, low: int) -> None:
    if samples.ndim != 2 or len(samples) < low:
        raise ValueError(f"{name} has shape {tuple(samples.shape)}: must be [{low} or more, n]")


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
