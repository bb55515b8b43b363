"""Statistics of samples: what the Fisher metric is read from.

A statistic h(x) maps samples [points, per point, ...] to [points, per point, features]. The metric
seen through h is at most that of the samples, and equal to it where the derivatives of log p(x | t)
by t are combinations of h and 1.

    "polynomial"   x_i and x_i x_j
    "network"      phi of the in-batch posterior: softmax over j of phi(x_i) . eta(t_j) + a(t_j)
    "convolution"  what a network of 3 x 3 windows of a torus learns from pairs that may have been
                   swapped, summed over sites and averaged over the group (`convolution`)
    "patterns"     how often each pattern of 2 x 2 two-valued sites occurs on a torus, turned and
                   mirrored ones together: a convolution with any non-linearity, and a mean
    "mean"         the mean of all numbers of a sample
    "pca-vae"      two means of a variational autoencoder behind 16 principal components
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

STATISTICS = ("auto", "polynomial", "network", "convolution", "patterns", "mean", "pca-vae")
MOST_FEATURES = 40
_SQUARES = 6  # numbers of a sample up to which their products are taken by default
_LINEAR = 24  # and up to which they are taken themselves
_LABELS = 12  # values of a number up to which they are told apart
_AT_ONCE = 1_000_000  # sites


_Net = TypeVar("_Net", bound=nn.Module)


class Schedule(NamedTuple):
    """Adam with a learning rate that rises and falls once."""

    steps: int
    batch: int
    rate: float
    decay: float = 1e-4


def mlp(sizes: list[int]) -> nn.Sequential:
    """Layers of these sizes with SiLU between them."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.Linear(fan_in, fan_out)] + ([nn.SiLU()] if i < len(sizes) - 2 else [])
    return nn.Sequential(*layers)


def seeded(make: Callable[[], _Net], seed: int) -> _Net:
    """A network with initial weights of a seed; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return make()


def trained(
    parameters: list[nn.Parameter],
    loss: Callable[[Tensor], Tensor],
    n: int,
    schedule: Schedule,
    seed: int,
) -> None:
    """Lower `loss` of drawn indices [batch] below n."""
    steps = schedule.steps
    optimizer = torch.optim.AdamW(parameters, schedule.rate, weight_decay=schedule.decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.rate, steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(seed)
    batch = min(schedule.batch, n)
    order = torch.randperm(n, generator=generator)
    at = 0
    for _ in range(steps):
        if at + batch > n:
            order, at = torch.randperm(n, generator=generator), 0
        value = loss(order[at : at + batch])
        at += batch
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        rates.step()


def few_values(samples: np.ndarray, most: int) -> np.ndarray | None:
    """The different numbers among the samples, increasing; None if there are more than `most`."""
    highest = samples.max()
    values = [samples.min()]
    while values[-1] < highest:
        if len(values) == most:
            return None
        values.append(np.min(samples, where=samples > values[-1], initial=highest))
    return np.array(values)


def flat(samples: np.ndarray) -> np.ndarray:
    """Samples as [points, per point, numbers]."""
    return samples.reshape(*samples.shape[:2], -1)


def polynomial(samples: np.ndarray, degree: int = 2) -> np.ndarray:
    """x_i, and for degree 2 also x_i x_j with i <= j, of standardised x."""
    x = flat(samples)
    spread = x.std((0, 1))
    x = (x - x.mean((0, 1))) / np.where(spread > 0, spread, 1)
    if degree == 1:
        return x
    rows, columns = np.triu_indices(x.shape[2])
    return np.concatenate([x, x[..., rows] * x[..., columns]], -1)


def patterns(samples: np.ndarray) -> np.ndarray:
    """Parts [points, per point, 6] of the 2 x 2 patterns of two-valued tori [..., rows, columns].

    None, one, two beside each other, two across, three, or four of the sites have the higher value.
    Raises ValueError for samples of another kind.
    """
    if samples.ndim != 4 or min(samples.shape[2:]) < 2 or few_values(samples, 2) is None:
        raise ValueError(
            "statistic='patterns' needs two-valued samples [points, per point, rows, columns]; "
            f"these are {list(samples.shape)} with {len(np.unique(samples))} values"
        )
    highest = samples.max()
    at_once = max(1, _AT_ONCE // int(np.prod(samples.shape[1:])))
    parts = [samples[k : k + at_once] == highest for k in range(0, len(samples), at_once)]
    return np.concatenate([_patterns(up) for up in parts])


def _patterns(up: np.ndarray) -> np.ndarray:
    """Those of flags."""
    right, down = np.roll(up, -1, -1), np.roll(up, -1, -2)
    across = np.roll(right, -1, -2)
    count = up.astype(np.int8) + right + down + across
    diagonal = (count == 2) & (up == across)
    masks = [count == 0, count == 1, (count == 2) & ~diagonal, diagonal, count == 3, count == 4]
    return np.stack([mask.mean((-2, -1)) for mask in masks], -1)


def mean(samples: np.ndarray) -> np.ndarray:
    """The mean of all numbers of a sample, [points, per point, 1]."""
    return flat(samples).mean(-1, keepdims=True)


def labels(samples: np.ndarray) -> np.ndarray:
    """Which of 4 to 12 values a number has, but for the last of them [points, per point, features].

    Of as many numbers as there is room for beside products, which tell all of three values or less.
    """
    x = flat(samples)
    size = x.shape[2]
    room = MOST_FEATURES - size - size * (size + 1) // 2
    columns: list[np.ndarray] = []
    for number in x.reshape(-1, size).T:
        values = few_values(number, _LABELS)
        if values is not None and 4 <= len(values) <= room - len(columns) + 1:
            columns += [number == value for value in values[:-1]]
    if not columns:
        return np.empty((*x.shape[:2], 0))
    return np.stack(columns, -1).astype(float).reshape(*x.shape[:2], -1)


def statistic_by_name(samples: np.ndarray, name: str) -> list[str]:
    """The statistics that "auto" stands for with such samples; others stand for themselves."""
    if name != "auto":
        return [name]
    size = flat(samples).shape[2]
    if samples.ndim == 4 and min(samples.shape[2:]) >= 3 and few_values(samples, 2) is not None:
        return ["patterns"]
    if size <= _SQUARES:
        return ["polynomial"]
    return ["linear" if size <= _LINEAR else "mean", "network"]


def fixed(samples: np.ndarray, names: list[str]) -> np.ndarray:
    """Those of the named statistics that are not learned, beside each other."""
    known: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "polynomial": polynomial,
        "linear": lambda x: polynomial(x, 1),
        "patterns": patterns,
        "mean": mean,
    }
    chosen = [known[name](samples) for name in names if name in known]
    return np.concatenate(chosen, -1) if chosen else np.empty((*samples.shape[:2], 0))


class Posterior(nn.Module):
    """phi(x) . eta(t) + a(t): the logarithm of p(x | t) up to what depends on x alone."""

    def __init__(self, size: int, d: int, features: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        if len(shape) == 2:
            self.phi: nn.Module = Convolutions(shape, features)
        else:
            self.phi = mlp([size, 96, 96, features])
        self.eta = mlp([d, 64, 64, features])
        self.a = mlp([d, 64, 1])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits [samples, parameters] of samples [samples, size] at parameters [parameters, d]."""
        return self.phi(x) @ self.eta(t).T + self.a(t)[:, 0]


class Convolutions(nn.Module):
    """Means over a torus of what two layers of 3 x 3 windows see, and combinations of them."""

    def __init__(self, shape: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.shape = shape
        self.seen = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, padding_mode="circular"),
            nn.SiLU(),
            nn.Conv2d(16, 16, 1),
            nn.SiLU(),
        )
        self.combined = nn.Linear(16, features)

    def forward(self, x: Tensor) -> Tensor:
        """Features [samples, features] of samples [samples, rows * columns]."""
        seen = self.seen(x.reshape(-1, 1, *self.shape)).mean((2, 3))
        return self.combined(seen)


class Learned(NamedTuple):
    """features [points, per point, features]: phi of all samples; eta [d] -> [features]."""

    features: np.ndarray
    eta: nn.Sequential


def learned(
    samples: np.ndarray,
    parameters: np.ndarray,
    chosen: np.ndarray,
    features: int,
    schedule: Schedule,
    seed: int,
) -> Learned:
    """phi of all samples and eta, trained on the points `chosen`; parameters standardised."""
    x = flat(samples)
    centre, spread = x.mean((0, 1)), x.std((0, 1))
    whole = torch.from_numpy((x - centre) / np.where(spread > 0, spread, 1)).float()
    t = torch.from_numpy(parameters).float()
    index = torch.from_numpy(chosen)
    shape = samples.shape[2:] if samples.ndim == 4 else ()
    net = seeded(lambda: Posterior(x.shape[2], t.shape[1], features, shape), seed)
    generator = torch.Generator().manual_seed(seed + 1)

    def loss(batch: Tensor) -> Tensor:
        at = index[batch]
        which = torch.randint(whole.shape[1], (len(at),), generator=generator)
        return nn.functional.cross_entropy(net(whole[at, which], t[at]), torch.arange(len(at)))

    trained(list(net.parameters()), loss, len(chosen), schedule, seed + 2)
    with torch.no_grad():
        phi = torch.stack([net.phi(part) for part in whole.unbind(1)], 1).double().numpy()
    return Learned(phi, net.eta.double())


def _principal(rows: np.ndarray, components: int) -> tuple[float, np.ndarray]:
    """The largest variance of rows [n, numbers], and the vectors [numbers, components] of most."""
    if rows.shape[1] <= 1000:
        values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
        return float(values[-1]), vectors[:, ::-1][:, :components]
    from scipy.sparse.linalg import svds

    _, sizes, turned = svds(rows, components, v0=np.ones(min(rows.shape)))
    return float(sizes[-1]) ** 2 / len(rows), turned[::-1].T


def pca_vae(samples: np.ndarray, seed: int, components: int = 16, latents: int = 2) -> np.ndarray:
    """Means [points, per point, latents] of a variational autoencoder of principal components."""
    x = flat(samples)
    rows = x.reshape(-1, x.shape[2])
    rows = rows - rows.mean(0)
    components = min(components, x.shape[2])
    variance, vectors = _principal(rows, components)
    data = torch.from_numpy(rows @ vectors / max(float(np.sqrt(variance)), 1e-12)).float()

    encoder = seeded(lambda: mlp([components, 64, 2 * latents]), seed)
    decoder = seeded(lambda: mlp([latents, 64, components]), seed + 3)
    generator = torch.Generator().manual_seed(seed + 1)

    def loss(batch: Tensor) -> Tensor:
        mean, log = encoder(data[batch]).chunk(2, 1)
        noise = torch.randn(mean.shape, generator=generator)
        error = (decoder(mean + noise * (log / 2).exp()) - data[batch]).square().sum(1)
        divergence = 0.5 * (mean.square() + log.exp() - log - 1).sum(1)
        return (error / 0.02 + divergence).mean()

    weights = [*encoder.parameters(), *decoder.parameters()]
    trained(weights, loss, len(data), Schedule(1500, 256, 2e-3), seed + 2)
    with torch.no_grad():
        mean, _ = encoder(data).chunk(2, 1)
    return mean.double().numpy().reshape(*x.shape[:2], latents)
