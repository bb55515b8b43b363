"""The Fisher metric of whatever made the samples, from samples and parameters alone.

For a statistic h(x) with mean m(t) and covariance C(t) over p(x | t), the combination of h that
best predicts small changes of t has the weights W(t), and with it

    score            s(x, t) = W(t)^T (h(x) - m(t)),  the derivative of log p(x | t) by t
    covariance       g = Cov(s) = W^T C W
    derivative       g = W^T dm/dt, in natural coordinates the Hessian of log Z

    recipe "moments"     W = C^-1 dm/dt; coordinates may be any. g is at most the metric of the
                         samples, and is it where s is a combination of h ("linear" information)
    recipe "posterior"   W = d eta/dt of the in-batch posterior phi(x) . eta(t) + a(t), h = phi
    recipe "chain"       W = d eta/dt of a posterior on a grid; log Z is a polynomial that is fitted
                         to these posteriors, for natural coordinates (`log_partition`)
    recipe "swap"        W constant, for natural coordinates: two samples x, x' at t, t' are told
                         from swapped ones by sigmoid((t' - t) . W^T (h(x') - h(x))), in which
                         log Z cancels: a convex fit, whose scale is right

m and C are fitted together as those of a normal law (`moments`) over the whole window, or around
each point of a grid from the nearest samples alone. Every member of an estimate stands
on its own half of the points, and learns its statistic from the other half, so that the same noise
is never counted twice; errors are those of the mean over members.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from ...envs.core.files import load_arrays, write_atomically
from ...envs.core.seeds import require_seed
from ...envs.core.validation import require_choice, require_count
from . import log_partition, statistics
from .convolution import Lattices, Windows, convolved, read_windows
from .fields import Field, MetricTable, Window, as_array, require_finite
from .moments import (
    Degrees,
    Moments,
    Products,
    choose_degrees,
    fit_bent,
    fit_moments,
    likelihood,
    local_covariance,
    local_information,
    needed,
    powers,
    summed_up,
)
from .statistics import Schedule, mlp
from .swaps import near_pairs, swap_posterior

RECIPES = ("moments", "posterior", "swap", "chain")
_FORMAT = "invariantzoo metric 1"
_LEAST_REST = 1e-5  # variance of a feature that is not a combination of those before it
_GAIN = 0.06  # part of the information that learned features must add to be kept
_IDLE = 0.004  # part of the information that a feature may take away with it
_STEEP = 6  # degree from which on a network is tried
_LOOKED_AT = 400  # points at which information is compared
_SIDES = {1: 65, 2: 33, 3: 11}  # of a grid of local covariances, by the number of parameters
_LEAST_SIZE = 1e-6  # of a metric from near points, in units of a typical one
_CHAIN_DEGREE = {1: 12, 2: 10}  # of the classifier and of log Z, by the number of parameters


class Member(NamedTuple):
    """One fit: what the weights W of its recipe are made of, beside the moments.

    other: moments of the other half of the points.  eta: the map of "posterior" and "chain".
    log_z: that of "chain".  near: covariances of the score from near points, standardised.
    """

    moments: Moments
    other: Moments
    eta: nn.Module | None = None
    log_z: Products | None = None
    near: MetricTable | None = None


@final
class Metric(Field):
    """A Fisher metric that was estimated from samples; called with points [m, d].

    recipe, statistic: how.  window: lowest [d] and highest [d] parameters of the samples.
    """

    window: Window

    def __init__(
        self,
        members: list[Member],
        window: Window,
        *,
        recipe: str,
        statistic: str,
    ) -> None:
        self.members, self.window = members, window
        self._spread = (window[1] - window[0]) / 2
        self.recipe, self.statistic = recipe, statistic

    def __call__(self, points: Any) -> np.ndarray:
        """The covariance of the score [m, d, d] at points [m, d]."""
        return self.covariance(points)

    def covariance(self, points: Any) -> np.ndarray:
        """The covariance of the score [m, d, d]: the mean over members."""
        return self._each(points, self._covariance_of).mean(0)

    def covariance_error(self, points: Any) -> np.ndarray:
        """Standard error [m, d, d] of `covariance`."""
        return _error(self._each(points, self._covariance_of))

    def hessian(self, points: Any) -> np.ndarray:
        """The derivative of the mean of the score [m, d, d]; it need not be positive."""
        return self._each(points, self._hessian_of).mean(0)

    def hessian_error(self, points: Any) -> np.ndarray:
        """Standard error [m, d, d] of `hessian`."""
        return _error(self._each(points, self._hessian_of))

    def log_z(self, points: Any) -> np.ndarray:
        """log Z [m] up to an affine function of the parameters, which samples do not tell.

        The mean of the natural statistic is its gradient, and is summed up from the middle of the
        window; recipe "chain" has fitted it. ValueError for the recipes that do not take the
        parameters as natural.
        """
        if self.recipe not in ("swap", "chain"):
            raise ValueError(f"recipe={self.recipe!r} has no log Z; recipe='swap' has")
        t = self._standardised(points)
        if self.recipe == "chain":
            values = [member.log_z(t)[:, 0] for member in self.members if member.log_z is not None]
            return np.asarray(torch.stack(values).mean(0).detach().numpy())
        node, weight = np.polynomial.legendre.leggauss(32)
        total = torch.zeros(len(t), dtype=torch.float64)
        with torch.no_grad():
            for member in self.members:
                for s, w in zip((node + 1) / 2, weight / 2, strict=True):
                    total += w * (member.moments.mean(float(s) * t) * t).sum(1)
        return total.numpy() / len(self.members)

    def with_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Field` says, by automatic derivatives."""
        t = self._standardised(points).requires_grad_()
        pairs = [_with_gradient(member, t, self.recipe) for member in self.members]
        value, slopes = (np.mean(part, 0) for part in zip(*pairs, strict=True))
        unit = np.outer(self._spread, self._spread)
        return value / unit, slopes / unit[..., None] / self._spread

    def save(self, path: str | Path) -> None:
        """Write an .npz of plain arrays, whole or not at all; `load_metric` reads it."""
        arrays: dict[str, Any] = {
            "format": np.array(_FORMAT),
            "recipe": np.array(self.recipe),
            "statistic": np.array(self.statistic),
            "window": np.stack(self.window),
            "members": np.array(len(self.members)),
        }
        for k, member in enumerate(self.members):
            for name, part in zip(Member._fields, member, strict=True):
                if isinstance(part, nn.Module):
                    for key, value in part.state_dict().items():
                        arrays[f"{k}.{name}.{key}"] = value.numpy()
                if isinstance(part, Moments):
                    arrays[f"{k}.{name}.degrees"] = np.array(part.degrees)
                if isinstance(part, MetricTable):
                    arrays[f"{k}.{name}.metrics"] = part.metrics

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)

        write_atomically(Path(path), write)

    def _covariance_of(self, member: Member, t: Tensor) -> np.ndarray:
        if member.near is not None:
            return member.near(t.numpy())
        return np.asarray(_covariance(member, t, self.recipe).detach().numpy())

    def _hessian_of(self, member: Member, t: Tensor) -> np.ndarray:
        return np.asarray(_hessian(member, t, self.recipe).detach().numpy())

    def _each(self, points: Any, way: Callable[[Member, Tensor], np.ndarray]) -> np.ndarray:
        """Metrics [members, m, d, d] at points, in their own coordinates."""
        t = self._standardised(points)
        values = [way(member, t) for member in self.members]
        return np.stack(values) / np.outer(self._spread, self._spread)

    def _standardised(self, points: Any) -> Tensor:
        array, d = as_array("points", points), len(self._spread)
        if array.ndim != 2 or array.shape[1] != d:
            raise ValueError(f"points have shape {array.shape}; they must be [m, {d}]")
        return torch.from_numpy((array - self.window[0]) / self._spread - 1)


def load_metric(path: str | Path) -> Metric:
    """A metric that `Metric.save` wrote; nothing in the file is executed.

    Raises ValueError for another file.
    """
    arrays = load_arrays(path)
    if str(arrays.get("format")) != _FORMAT:
        raise ValueError(f"{path} is no metric that Metric.save wrote")
    d = arrays["window"].shape[1]
    members = []
    for k in range(int(arrays["members"])):
        moments, other, eta, log_z, near = (
            _states(arrays, f"{k}.{name}.") for name in Member._fields
        )
        member = Member(
            _moments_of(moments, d),
            _moments_of(other, d),
            _eta_of(eta, d),
            Products.of(log_z["weights"], d) if log_z else None,
            _table(near["metrics"].numpy(), d) if near else None,
        )
        members.append(member)
    return Metric(
        members,
        (arrays["window"][0], arrays["window"][1]),
        recipe=str(arrays["recipe"]),
        statistic=str(arrays["statistic"]),
    )


def _moments_of(state: dict[str, Tensor], d: int) -> Moments:
    degrees = Degrees(*state.pop("degrees").tolist())
    bent = any(name.startswith("bent.") for name in state)
    net = Moments(d, state["mean_weights"].shape[1], degrees, bent).double()
    net.load_state_dict(state)
    return net


def _eta_of(state: dict[str, Tensor], d: int) -> nn.Module | None:
    if not state:
        return None
    if "weights" in state:
        return Products.of(state["weights"], d)
    eta = mlp([d, 64, 64, len(state["4.bias"])]).double()
    eta.load_state_dict(state)
    return eta


def _table(metrics: np.ndarray, d: int) -> MetricTable:
    """Metrics [side, ..., d, d] over the whole window, standardised."""
    return MetricTable([np.linspace(-1, 1, _SIDES[d])] * d, metrics)


def estimate_metric(
    samples: Any,
    parameters: Any,
    *,
    recipe: str = "moments",
    statistic: str | Callable[[np.ndarray], Any] = "auto",
    nearest: int | None = None,
    members: int = 4,
    steps: int = 500,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Metric:
    """The Fisher metric in the coordinates of `parameters`, from samples at many of their values.

    samples [points, per point, ...]: per point 1 or more, of any numeric kind.
    parameters [points, d], numpy or torch; [points] for d = 1.
    recipe: how the score is found; see the module. "swap" and "chain" take the parameters as
        natural ones, "chain" at most two.
    statistic: a name of `STATISTICS`, or a function of samples [points, per point, ...] that gives
        [points, per point, features]. "auto": products of up to 6 numbers, up to 24 numbers
        themselves, patterns of two-valued lattices, else the mean and what a network learns.
    nearest: points, of all, whose samples alone tell the covariance at a place, for metrics that no
        polynomial follows, such as those of large lattices; of at most three parameters.
    members: fits, in pairs on halves of the points.  steps: of every fit.
    progress: called with the steps done and all there are.
    Raises ValueError for what no metric can be read from: numbers that are not finite, parameters
    or samples that do not vary, samples that follow from the parameters without chance.
    """
    require_choice("recipe", recipe, RECIPES)
    if isinstance(statistic, str):
        require_choice("statistic", statistic, statistics.STATISTICS)
    require_count("members", members, 2)
    require_count("steps", steps)
    require_seed("seed", seed)
    x, t = _checked(samples, parameters, bytes_stay=isinstance(statistic, str))
    if nearest is not None:
        _require_nearest(nearest, t)
    if recipe == "chain":
        log_partition.grid_nodes(t.shape[1])
    window = t.min(0), t.max(0)
    t = 2 * (t - window[0]) / (window[1] - window[0]) - 1
    names = ["given"]
    if recipe == "posterior":
        names = ["network"]
    elif isinstance(statistic, str):
        names = statistics.statistic_by_name(x, statistic)
    rng = np.random.default_rng(seed)
    splits = [np.array_split(rng.permutation(len(x)), 2) for _ in range((members + 1) // 2)]
    work = _Work(t, x.shape[1], recipe, steps, nearest)
    learns = "network" in names
    windows = read_windows(x) if names == ["convolution"] else None
    given = None
    if windows is None and names != ["network"]:
        given = independent(_given(x, names, statistic, seed), t)
    if given is not None and recipe == "moments":
        given = work.without_idle(given, splits[0])
    total = members * (2 + learns)
    fits: list[Member] = []

    def report() -> None:
        if progress is not None:
            progress(len(fits) * (2 + learns), total)

    for k in range(members):
        report()
        here, there = splits[k // 2][k % 2], splits[k // 2][1 - k % 2]
        statistic_here, eta = given, None
        if windows is not None:
            statistic_here = work.with_convolution(windows, there, seed + 1000 * k)
        if learns:
            schedule = Schedule(steps, 256, 3e-3)
            features = min(2 * t.shape[1] + 2, 12)
            net = statistics.learned(x, t, there, features, schedule, seed + 1000 * k)
            statistic_here, gained = work.with_learned(given, net.features, here)
            if not gained:
                names, learns, statistic_here = names[:-1], False, given
            elif recipe == "posterior":
                eta = _combined(net, statistic_here)
        assert statistic_here is not None
        fits.append(work.member(statistic_here, eta, here, there, seed + 1000 * k))
    if progress is not None:
        progress(total, total)
    return Metric(fits, window, recipe=recipe, statistic="+".join(names))


class _Work:
    """Fits of moments at t [points, d] that share their form, which the first of them chooses."""

    def __init__(
        self, t: np.ndarray, per_point: int, recipe: str, steps: int, nearest: int | None
    ) -> None:
        self.t, self.per_point, self.recipe = t, per_point, recipe
        self.steps, self.nearest = steps, nearest
        self.degrees: dict[int, Degrees] = {}  # by the number of features
        self.bent: dict[int, bool] = {}

    def member(
        self,
        h: np.ndarray,
        eta: nn.Module | None,
        here: np.ndarray,
        there: np.ndarray,
        seed: int,
    ) -> Member:
        """Moments of a statistic [points, per point, features] on both halves of the points."""
        if self.recipe == "swap":
            h = h @ swap_posterior(h, self.t, *near_pairs(self.t, here))
        log_z = None
        if self.recipe == "chain":
            eta, log_z = self.chain(h, here, there)
        moments = self.moments(h, here, there, seed), self.moments(h, there, here, seed)
        member = Member(*moments, eta, log_z)
        if self.nearest is None:
            return member
        return member._replace(near=self.near(member, h, here))

    def chain(
        self, h: np.ndarray, here: np.ndarray, there: np.ndarray
    ) -> tuple[Products, Products]:
        """eta of a posterior that is learned on points `there`, log Z of those of points `here`."""
        d, n = self.t.shape[1], self.per_point
        degree, nodes = _CHAIN_DEGREE[d], log_partition.grid_nodes(d)
        there, here = log_partition.chosen_bundles(there), log_partition.chosen_bundles(here)
        bundles = h.mean(1)
        weights = log_partition.grid_posterior(bundles[there], self.t[there], nodes, degree)
        posterior = log_partition.posteriors(weights, bundles[here], nodes, degree)
        log_z = log_partition.fit_log_partition(posterior, self.t[here], nodes, n, degree)
        return (
            Products.of(torch.from_numpy(weights[:, 1:] / n), d),
            Products.of(torch.from_numpy(log_z[:, None]), d),
        )

    def near(self, member: Member, h: np.ndarray, here: np.ndarray) -> MetricTable:
        """Covariances of the score on a grid, each of samples of the nearest points `here`."""
        d = self.t.shape[1]
        axis = np.linspace(-1, 1, _SIDES[d])
        grid = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
        assert self.nearest is not None
        near = self.nearest // 2, h[here], self.t[here]
        grid = _reached(grid, near[2], near[0])
        if self.recipe == "moments":
            value = local_information(near[1], near[2], grid, near[0])
        else:
            value = local_covariance(member.moments, near[1], near[2], grid, near[0])
            if member.eta is not None:
                slope = _slope(member.eta, torch.from_numpy(grid)).detach().numpy()
                value = np.swapaxes(slope, 1, 2) @ value @ slope
        sizes, axes = np.linalg.eigh(value)
        sizes = np.maximum(sizes, _LEAST_SIZE * np.median(sizes[:, -1]))
        value = (axes * sizes[:, None]) @ np.swapaxes(axes, 1, 2)
        return _table(value.reshape(*[len(axis)] * d, d, d), d)

    def with_convolution(
        self, windows: Windows | Lattices, there: np.ndarray, seed: int
    ) -> np.ndarray:
        """What a network of windows has learned from points `there`, for all points."""
        features = None if self.recipe in ("swap", "chain") else 2 * self.t.shape[1]
        return independent(convolved(windows, self.t, there, features, self.steps, seed), self.t)

    def moments(self, h: np.ndarray, here: np.ndarray, there: np.ndarray, seed: int) -> Moments:
        """The moments on the points `here`, of the form that suits those `there`."""
        data, n = summed_up(h[here], self.t[here]), h.shape[2]
        if n not in self.degrees:
            self.degrees[n] = choose_degrees(summed_up(h, self.t), self.per_point)
            self.bent[n] = False
            if max(self.degrees[n]) >= _STEEP and self.nearest is None:
                smooth, bent = fit_moments(data, self.degrees[n]), fit_bent(data, seed, self.steps)
                rest = summed_up(h[there], self.t[there])
                with torch.no_grad():
                    gain = likelihood(smooth, rest) - likelihood(bent, rest)
                self.bent[n] = bool(gain.mean() > 3 * gain.std() / len(gain) ** 0.5)
        if self.bent[n]:
            return fit_bent(data, seed, self.steps)
        net = fit_moments(data, self.degrees[n])
        return fit_moments(data, self.degrees[n], needed(net, data, self.per_point))

    def without_idle(self, h: np.ndarray, halves: list[np.ndarray]) -> np.ndarray:
        """The statistic without the features that tell nothing of the parameters."""
        d = self.t.shape[1]
        if h.shape[2] <= d:
            return h
        a, b, precision = self._information(h, *halves)
        weights = [precision @ a, precision @ b]
        metric = np.linalg.inv(_symmetric((a + b) / 2, precision))
        left = list(range(h.shape[2]))
        while len(left) > d:
            loss = np.einsum("tij,tfi,tfj->tf", metric, *weights).real
            loss = (loss / np.diagonal(precision, axis1=1, axis2=2)).mean(0) / d
            f = int(loss.argmin())
            if loss[f] > _IDLE:
                break
            column = precision[:, :, f] / precision[:, f, f][:, None]
            rest = np.delete(np.arange(len(left)), f)
            weights = [(w - column[:, :, None] * w[:, f][:, None])[:, rest] for w in weights]
            precision = precision - column[:, :, None] * precision[:, f][:, None]
            precision = precision[:, rest][:, :, rest]
            del left[f]
        return h[..., left]

    def with_learned(
        self, given: np.ndarray | None, learned: np.ndarray, here: np.ndarray
    ) -> tuple[np.ndarray, bool]:
        """Given and learned features together, and whether the latter add information `here`."""
        halves = [here[::2], here[1::2]]
        if given is None:
            alone = independent(learned, self.t)
            return alone if self.recipe == "posterior" else self.without_idle(alone, halves), True
        both = independent(np.concatenate([given, learned], -1), self.t)
        before, after = self._information(given, *halves), self._information(both, *halves)
        base = _symmetric((before[0] + before[1]) / 2, before[2])
        change = _cross(*after) - _cross(*before)
        gain = np.einsum("tij,tji->t", np.linalg.inv(base), change).mean() / self.t.shape[1]
        if gain < _GAIN:
            return given, False
        return self.without_idle(both, halves), True

    def _information(
        self, h: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """dm/dt of two halves [looked at, features, d], and the inverse covariance between."""
        d = self.t.shape[1]
        degrees = Degrees(3 if len(powers(d, 3)) < len(first) / 10 else 1, 2, 1)
        if h.shape[2] * d > 60:
            degrees = Degrees(degrees.mean, 2 if d <= 3 else 0, 0)
        at = torch.from_numpy(self.t[:: max(1, len(self.t) // _LOOKED_AT)])
        slopes, precisions = [], []
        for half in (first, second):
            net = fit_moments(summed_up(h[half], self.t[half]), degrees)
            slopes.append(_slope(net.mean, at).detach().numpy())
            root = net(at)[1].detach()
            precisions.append((root.transpose(1, 2) @ root).numpy())
        return slopes[0], slopes[1], (precisions[0] + precisions[1]) / 2


def _combined(net: statistics.Learned, features: np.ndarray) -> nn.Sequential:
    """eta for features that the learned ones are combinations of."""
    rows = features.reshape(-1, features.shape[2])
    target = net.features.reshape(len(rows), -1)
    change = np.linalg.lstsq(rows - rows.mean(0), target - target.mean(0), rcond=None)[0]
    last = net.eta[-1]
    assert isinstance(last, nn.Linear)
    mixed = nn.Linear(last.in_features, features.shape[2], dtype=torch.float64)
    with torch.no_grad():
        mixed.weight.copy_(torch.from_numpy(change) @ last.weight)
        mixed.bias.copy_(torch.from_numpy(change) @ last.bias)
    return nn.Sequential(*list(net.eta)[:-1], mixed)


def _symmetric(slope: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """slope^T precision slope [t, d, d], made regular."""
    value = np.swapaxes(slope, 1, 2) @ precision @ slope
    trace = np.trace(value, axis1=1, axis2=2)[:, None, None]
    return value + 1e-6 * (trace + 1e-12) * np.eye(value.shape[1])


def _cross(first: np.ndarray, second: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """The metric [t, d, d] from slopes of two halves, whose noise does not add up."""
    value = np.swapaxes(first, 1, 2) @ precision @ second
    return (value + np.swapaxes(value, 1, 2)) / 2


def independent(h: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Features of unit variance around a linear fit at t, each without those before it.

    What is a combination of others is left out. Raises ValueError if nothing is left, or if what is
    left has no chance in it.
    """
    rows = h.reshape(-1, h.shape[2])
    size = rows.std(0)
    varies = size > 1e-12 * np.maximum(np.abs(rows).max(0), 1e-300)
    if not varies.any():
        raise ValueError("the statistic is the same for all samples: no metric can be read from it")
    h = (h[..., varies] - rows.mean(0)[varies]) / size[varies]
    corner, column = np.triu_indices(t.shape[1])
    line = np.column_stack([np.ones(len(t)), t, t[:, corner] * t[:, column]])
    fit = line @ np.linalg.lstsq(line, h.mean(1), rcond=None)[0]
    away = (h - fit[:, None]).reshape(-1, h.shape[2])
    covariance = away.T @ away / len(away)
    used: list[int] = []
    for j in range(len(covariance)):
        among = covariance[np.ix_(used, used)]
        along = covariance[used, j]
        rest = covariance[j, j] - (along @ np.linalg.solve(among, along) if used else 0.0)
        if rest > _LEAST_REST and len(used) < statistics.MOST_FEATURES:
            used.append(j)
    if not used:
        raise ValueError("the samples follow from the parameters without chance: no finite metric")
    factor = np.linalg.cholesky(covariance[np.ix_(used, used)])
    return np.asarray(np.linalg.solve(factor, h[..., used].reshape(-1, len(used)).T).T).reshape(
        *h.shape[:2], len(used)
    )


def _given(
    x: np.ndarray,
    names: list[str],
    statistic: str | Callable[[np.ndarray], Any],
    seed: int,
) -> np.ndarray:
    """What need not be learned by the members [points, per point, features]."""
    if not isinstance(statistic, str):
        h = as_array("statistic(samples)", statistic(x))
        if h.ndim == 2:
            h = h[..., None]
        if h.ndim != 3 or h.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"statistic(samples) has shape {h.shape}; it must be "
                f"[{x.shape[0]}, {x.shape[1]}, features]"
            )
        require_finite("statistic(samples)", h)
        return h
    if "pca-vae" in names:
        return statistics.pca_vae(x, seed)
    return statistics.fixed(x, names)


def _checked(samples: Any, parameters: Any, *, bytes_stay: bool) -> tuple[np.ndarray, np.ndarray]:
    """Samples [points, per point, ...] and parameters [points, d] that can be learned from."""
    x = as_array("samples", samples, bytes_stay=bytes_stay)
    t = as_array("parameters", parameters)
    if t.ndim == 1:
        t = t[:, None]
    if x.ndim < 2 or t.ndim != 2 or len(x) != len(t) or not x.size or not t.size:
        raise ValueError(
            f"samples have shape {x.shape}, parameters {t.shape}; they must be "
            "[points, per point, ...] and [points, d]"
        )
    x = x[..., None] if x.ndim == 2 else x
    if len(x) < 16:
        raise ValueError(f"there are {len(x)} points; 16 at least are needed")
    require_finite("samples", x)
    require_finite("parameters", t)
    for i in np.flatnonzero(t.std(0) <= 1e-12 * np.abs(t).max(0)):
        raise ValueError(f"parameter {i} has the same value {t[0, i]} at all points; it must vary")
    if (x == x.reshape(-1)[0]).all():
        raise ValueError(f"all samples are {x.reshape(-1)[0]}: no metric can be read from them")
    return x, t


def _require_nearest(nearest: Any, t: np.ndarray) -> None:
    d = t.shape[1]
    require_count("nearest", nearest)
    if d not in _SIDES:
        raise ValueError(f"nearest={nearest} has a grid over 1 to 3 parameters; these are {d}")
    least = 4 * (1 + d + d * (d + 1) // 2)
    if not least <= nearest <= len(t):
        raise ValueError(f"nearest={nearest} must be from {least} to {len(t)} points")


def _reached(grid: np.ndarray, t: np.ndarray, nearest: int) -> np.ndarray:
    """Points [nodes, d] of a grid, those outside of where t [points, d] are moved to the nearest t.

    Outside is what has none as near as the points' own neighbours are.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(t)
    distance, at = tree.query(grid)
    reach = np.median(tree.query(t, min(nearest, len(t)))[0][:, -1])
    return np.where((distance > reach / 2)[:, None], t[at], grid)


def _with_gradient(member: Member, t: Tensor, recipe: str) -> tuple[np.ndarray, np.ndarray]:
    """Cov(s) [m, d, d] and its derivatives [m, d, d, d] in standardised coordinates."""
    if member.near is not None:
        return member.near.with_gradient(t.detach().numpy())
    d = t.shape[1]
    value = _covariance(member, t, recipe)
    slopes = torch.empty(len(t), d, d, d, dtype=t.dtype)
    for i, j in itertools.combinations_with_replacement(range(d), 2):
        (slope,) = torch.autograd.grad(value[:, i, j].sum(), t, retain_graph=True)
        slopes[:, i, j] = slopes[:, j, i] = slope
    return value.detach().numpy(), slopes.numpy()


def _covariance(member: Member, t: Tensor, recipe: str) -> Tensor:
    """Cov(s) [m, d, d] in standardised coordinates."""
    root = member.moments(t)[1]
    if recipe == "moments":
        slope = root @ _slope(member.moments.mean, t)
    elif member.eta is not None:
        slope = _whitening(root, _slope(member.eta, t))
    else:
        slope = _whitening(root, torch.eye(t.shape[1], dtype=t.dtype).expand(len(t), -1, -1))
    return slope.transpose(1, 2) @ slope


def _hessian(member: Member, t: Tensor, recipe: str) -> Tensor:
    """W^T dm/dt [m, d, d], W of one half of the points and m of the other; symmetric part.

    Where log Z was fitted, its second derivatives.
    """
    if member.log_z is not None:
        t = t.clone().requires_grad_()
        slope = _slope(member.log_z, t)[:, 0]
        return _slope(lambda _: slope, t)
    change = _slope(member.other.mean, t)
    if recipe == "moments":
        root = member.moments(t)[1]
        weights = root.transpose(1, 2) @ (root @ _slope(member.moments.mean, t))
        value = weights.transpose(1, 2) @ change
    elif member.eta is not None:
        value = _slope(member.eta, t).transpose(1, 2) @ change
    else:
        value = change
    return (value + value.transpose(1, 2)) / 2


def _whitening(root: Tensor, weights: Tensor) -> Tensor:
    """U^-T W [m, features, d], whose square is W^T C W."""
    return torch.linalg.solve_triangular(root.transpose(1, 2), weights, upper=True)


def _slope(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Derivatives [m, features, d] of a function [m, d] -> [m, features]."""
    if not t.requires_grad:
        t = t.clone().requires_grad_()
    rows = [
        torch.autograd.grad(column.sum(), t, create_graph=True)[0]
        for column in function(t).unbind(1)
    ]
    return torch.stack(rows, 1)


def _error(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over members, which in pairs share all points."""
    return values.std(0, ddof=1) / np.sqrt(2)


def _states(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
