"""An estimate of the Fisher metric: called with points, with its errors, and kept in a file.

The mean over its members, each a fit of its own (`score`); errors are those of that mean.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from ...envs.core.files import load_arrays, write_atomically
from .fields import Field, MetricTable, Window, as_array
from .moments import Degrees, Moments, Products
from .score import Member, covariance_of, covariance_with_gradient, hessian_of
from .statistics import mlp

_FORMAT = "invariantzoo metric 1"


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
        return standard_error(self._each(points, self._covariance_of))

    def hessian(self, points: Any) -> np.ndarray:
        """The derivative of the mean of the score [m, d, d]; it need not be positive."""
        return self._each(points, self._hessian_of).mean(0)

    def hessian_error(self, points: Any) -> np.ndarray:
        """Standard error [m, d, d] of `hessian`."""
        return standard_error(self._each(points, self._hessian_of))

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
        pairs = [covariance_with_gradient(member, t, self.recipe) for member in self.members]
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
        return np.asarray(covariance_of(member, t, self.recipe).detach().numpy())

    def _hessian_of(self, member: Member, t: Tensor) -> np.ndarray:
        return np.asarray(hessian_of(member, t, self.recipe).detach().numpy())

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
            window_table(near["metrics"].numpy()) if near else None,
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


def window_table(metrics: np.ndarray) -> MetricTable:
    """Metrics [side, ..., side, d, d] at even steps over the whole window, standardised."""
    return MetricTable([np.linspace(-1, 1, side) for side in metrics.shape[:-2]], metrics)


def standard_error(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over members [members, ...].

    Each two of them have all points, a half each: they are independent, and their mean is as good
    as one fit of all. Others share points, so the spread of all is too small.
    """
    pairs = values[: len(values) // 2 * 2].reshape(-1, 2, *values.shape[1:])
    return np.asarray(np.sqrt(((pairs[:, 0] - pairs[:, 1]) ** 2).mean(0)) / 2)


def _states(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
