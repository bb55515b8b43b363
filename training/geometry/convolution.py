"""A statistic of lattices that a network learns from their sites, by pairs that may be swapped.

A sample x has the statistic f(x): the sum over all sites of what a small network makes of the 3 x 3
window around the site, on a torus, averaged over turned and mirrored windows. That is a convolution
with two hidden layers. Two samples x, x' at t, t' are told from swapped ones by
sigmoid((eta(t') - eta(t)) . (f(x') - f(x))), in which log Z cancels; eta is t itself where the
parameters are natural, else a second network.

Sites of few values make few different windows: then the network is evaluated once for each of them,
weighted by how often it occurs, which is the same sum and takes a hundredth of the time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .statistics import Schedule, few_values, mlp, seeded, trained
from .swaps import near_pairs

_WIDTH = 16
_VALUES = 4  # different numbers among the sites, up to which windows are counted
_MOST_COUNTS = 20_000_000  # samples times windows that are held
_DECAY = 0.1  # of weights, in units of one pair's loss
_LEAST_ROUNDS, _ROUND = 3, 10  # of steps, before held-out pairs may end the training
_PAIRS = 64  # in a batch, where windows are not counted
_AT_ONCE = 1_000_000  # sites


class Windows(NamedTuple):
    """The different windows of samples, up to turns and mirrors.

    images [8, windows, 9]: numbers of each in all its positions, standardised.
    counts [points, per point, windows]: how often each occurs.
    """

    images: Tensor
    counts: Tensor


class Lattices(NamedTuple):
    """Samples whose windows are too many to be counted.

    sites [points, per point, rows, columns]: standardised.
    """

    sites: Tensor


def read_windows(samples: np.ndarray) -> Windows | Lattices:
    """What a network may see of samples [points, per point, rows, columns].

    Raises ValueError for samples of another shape.
    """
    if samples.ndim != 4 or min(samples.shape[2:]) < 3:
        raise ValueError(
            "statistic='convolution' needs samples [points, per point, rows, columns] of 3 x 3 "
            f"sites or more; these are {list(samples.shape)}"
        )
    centre, spread = float(samples.mean()), float(samples.std())
    values = few_values(samples, _VALUES)
    counted = None if values is None else _counted(samples, values)
    if values is not None and counted is not None:
        images, counts = counted
        numbers = (values[images] - centre) / spread
        return Windows(torch.from_numpy(numbers), torch.from_numpy(counts))
    return Lattices(torch.from_numpy((samples - centre) / spread).float())


def _counted(samples: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Places among the values [8, windows, 9] of the windows, and counts; None: too many."""
    points, per_point, rows, columns = samples.shape
    base = len(values)
    at_once = max(1, _AT_ONCE // (per_point * rows * columns))
    steps = range(0, points, at_once)
    parts = [
        _codes(np.searchsorted(values, samples[k : k + at_once]).astype(np.int32), base)
        for k in steps
    ]
    seen = np.flatnonzero(sum(np.bincount(part.ravel(), minlength=base**9) for part in parts))
    codes = (_images(seen, base) * base ** np.arange(9)).sum(-1)
    first, which = np.unique(codes.min(0), return_inverse=True)
    n = len(first)
    if points * per_point * n > _MOST_COUNTS:
        return None
    orbit = np.zeros(base**9, int)
    orbit[seen] = which
    counts = np.empty((points, per_point, n))
    for k, part in zip(steps, parts, strict=True):
        here = orbit[part].reshape(-1, rows * columns)
        here += n * np.arange(len(here))[:, None]
        total = np.bincount(here.ravel(), minlength=n * len(here))
        counts[k : k + at_once] = total.reshape(-1, per_point, n)
    return _images(first, base), counts


def _codes(digits: np.ndarray, base: int) -> np.ndarray:
    """The window around every site as one number, its first digit the upper left one's."""
    codes = np.zeros(digits.shape, np.int32)
    for k in range(9):
        row, column = divmod(k, 3)
        codes += np.roll(digits, (1 - row, 1 - column), (-2, -1)) * base**k
    return codes.astype(np.int16) if base <= 3 else codes


def _images(codes: np.ndarray, base: int) -> np.ndarray:
    """Digits [8, windows, 9] of windows, turned and mirrored."""
    digits = (codes[:, None] // base ** np.arange(9) % base).reshape(-1, 3, 3)
    both = (digits, digits[:, :, ::-1])
    turned = [np.rot90(one, k, (1, 2)) for one in both for k in range(4)]
    return np.stack(turned).reshape(8, -1, 9)


class _Net(nn.Module):
    """What each window adds to the statistic, and eta."""

    def __init__(self, d: int, features: int | None) -> None:
        super().__init__()
        self.seen = mlp([9, _WIDTH, _WIDTH, features or d])
        self.eta = None if features is None else mlp([d, 32, 32, features])
        self.line = None if features is None else nn.Linear(d, features)

    def natural(self, t: Tensor) -> Tensor:
        """eta [m, features] at t [m, d]."""
        if self.eta is None or self.line is None:
            return t
        value: Tensor = self.eta(t) + self.line(t)
        return value

    def of_windows(self, windows: Windows) -> Tensor:
        """f [points, per point, features]."""
        value: Tensor = windows.counts @ self.seen(windows.images).mean(0)
        return value

    def of_sites(self, sites: Tensor, turn: int, mirror: bool) -> Tensor:
        """f [samples, features] of [samples, rows, columns], seen from one of eight sides."""
        sites = torch.rot90(sites.flip(-1) if mirror else sites, turn, (-2, -1))
        around = [
            torch.roll(sites, (1 - row, 1 - column), (-2, -1))
            for row in range(3)
            for column in range(3)
        ]
        value: Tensor = self.seen(torch.stack(around, -1)).sum((1, 2))
        return value


def convolved(
    windows: Windows | Lattices,
    parameters: np.ndarray,
    chosen: np.ndarray,
    features: int | None,
    steps: int,
    seed: int,
) -> np.ndarray:
    """f [points, per point, features] of all samples, learned from the points `chosen`.

    parameters [points, d], standardised; natural ones if `features` is None, and then f has d.
    A fifth of the points tells when to stop.
    """
    order = np.random.default_rng(seed).permutation(chosen)
    fifth = len(order) // 5
    pairs = [near_pairs(parameters, part) for part in (order[fifth:], order[:fifth])]
    t = torch.from_numpy(parameters)
    net = seeded(lambda: _Net(parameters.shape[1], features), seed).double()
    if isinstance(windows, Windows):
        _fit_windows(net, windows, t, pairs, steps)
        with torch.no_grad():
            return net.of_windows(windows).numpy()
    net.float()
    _fit_lattices(net, windows.sites, t.float(), pairs[0], Schedule(steps, _PAIRS, 3e-3), seed)
    return _of_lattices(net, windows.sites)


def _fit_windows(
    net: _Net,
    windows: Windows,
    t: Tensor,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    steps: int,
) -> None:
    """All pairs at once, until held-out ones are told worse; at most `steps` steps."""
    losses = [_pairs_loss(net, windows, t, *ends) for ends in pairs]
    weights = list(net.parameters())
    least = (np.inf, copy.deepcopy(net.state_dict()))
    size = len(pairs[0][0]) * windows.counts.shape[1]
    optimizer = torch.optim.LBFGS(
        weights, max_iter=_ROUND, history_size=30, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        ridge = torch.stack([weight.square().sum() for weight in weights]).sum()
        value = losses[0]() + _DECAY / size * ridge
        value.backward()
        return value

    worse = 0
    for k in range(max(1, steps // _ROUND)):
        optimizer.step(closure)
        with torch.no_grad():
            held_out = float(losses[1]())
        if held_out < least[0]:
            worse, least = 0, (held_out, copy.deepcopy(net.state_dict()))
        elif k >= _LEAST_ROUNDS:
            worse += 1
            if worse == 2:
                break
    net.load_state_dict(least[1])


def _pairs_loss(
    net: _Net, windows: Windows, t: Tensor, first: np.ndarray, second: np.ndarray
) -> Callable[[], Tensor]:
    """Minus the mean log-likelihood of pairs, as a function of the net."""
    points, at = np.unique(np.concatenate([first, second]), return_inverse=True)
    here = torch.from_numpy(points)
    part, t = Windows(windows.images, windows.counts[here]), t[here]
    a, b = torch.from_numpy(at).chunk(2)

    def loss() -> Tensor:
        f, eta = net.of_windows(part), net.natural(t)
        odds = ((f[b] - f[a]) * (eta[b] - eta[a])[:, None]).sum(-1)
        return nn.functional.softplus(-odds).mean()

    return loss


def _fit_lattices(
    net: _Net,
    sites: Tensor,
    t: Tensor,
    pairs: tuple[np.ndarray, np.ndarray],
    schedule: Schedule,
    seed: int,
) -> None:
    """Batches of pairs, each seen from one of eight sides."""
    first, second = (torch.from_numpy(end) for end in pairs)
    generator = torch.Generator().manual_seed(seed + 1)

    def loss(batch: Tensor) -> Tensor:
        a, b = first[batch], second[batch]
        turn, mirror, which = (
            int(torch.randint(high, (1,), generator=generator)) for high in (4, 2, sites.shape[1])
        )
        f = net.of_sites(torch.cat([sites[a, which], sites[b, which]]), turn, bool(mirror))
        change = f[len(a) :] - f[: len(a)]
        return nn.functional.softplus(
            -(change * (net.natural(t[b]) - net.natural(t[a]))).sum(-1)
        ).mean()

    trained(list(net.parameters()), loss, len(first), schedule, seed + 2)


def _of_lattices(net: _Net, sites: Tensor) -> np.ndarray:
    """f [points, per point, features], the mean over the eight sides."""
    points, per_point, rows, columns = sites.shape
    flat = sites.reshape(-1, rows, columns)
    with torch.no_grad():
        parts = [
            torch.stack([net.of_sites(part, turn, m) for turn in range(4) for m in (False, True)])
            .double()
            .mean(0)
            for part in flat.split(max(1, _AT_ONCE // (8 * rows * columns)))
        ]
    return torch.cat(parts).reshape(points, per_point, -1).numpy()
