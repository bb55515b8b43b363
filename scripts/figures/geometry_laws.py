"""The Fisher metric of laws in closed form from samples, with many seeds.

    python -m invariantzoo.figures.geometry_laws [--root .]

Writes docs/geometry-laws.md and docs/results/geometry-laws.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import i0e, i1e, polygamma
from scipy.stats import norm

import invariantzoo
from invariantzoo.report import figure_parser, recorded, table, write_text

POINTS, PER_POINT = 4000, 8
Array = np.ndarray


class Law(NamedTuple):
    """Samples in closed form: `draw(rng, t)` gives [points, per point, numbers], `exact` metrics.

    `low`, `high`: the window of parameters [d].  `words`: law and parameters, for the page.
    """

    draw: Callable[[np.random.Generator, Array], Array]
    exact: Callable[[Array], Array]
    low: tuple[float, ...]
    high: tuple[float, ...]
    words: tuple[str, str]
    statistic: Callable[[Array], Array] | None = None


def main() -> None:
    """Draw, fit, compare, write."""
    import torch

    root = figure_parser(__doc__, root=Path(".")).parse_args().root
    torch.set_num_threads(1)
    path = root / "docs/results/geometry-laws.json"
    results = {
        name: [recorded(path, f"{name} {seed}", partial(measured, law, seed)) for seed in seeds]
        for laws, seeds in ((LAWS, SEEDS), (OTHERS, FEW))
        for name, law in laws.items()
    }
    text = page(results)
    write_text(root / "docs/geometry-laws.md", text)
    print(text)


def page(results: dict[str, list[dict[str, float]]]) -> str:
    """The text with its tables."""
    names = ["law", "median error", "largest error", "scale", "stated error", "CPU s"]
    rows = [[name, *_cells(results[name])] for name in LAWS]
    others = [[*law.words, *_cells(results[name])] for name, law in OTHERS.items()]
    return TEXT.format(
        points=POINTS,
        per_point=PER_POINT,
        seeds=len(SEEDS),
        few=len(FEW),
        rows=table(names, rows),
        others=table(["law", "parameters", *names[1:]], others),
    )


def _cells(runs: list[dict[str, float]]) -> list[str]:
    cells = []
    for name in COLUMNS:
        values = np.quantile([run[name] for run in runs], [0, 0.5, 1])
        form = ".1%" if name in ("median", "largest", "stated") else ".3f"
        form = ".1f" if name == "cpu" else form
        cells.append(" / ".join(f"{value:{form}}" for value in values))
    return cells


def measured(law: Law, seed: int) -> dict[str, Any]:
    """Errors of one estimate, and CPU seconds."""
    rng = np.random.default_rng(seed)
    low, high = np.array(law.low), np.array(law.high)
    t = rng.uniform(low, high, (POINTS, len(low)))
    samples = law.draw(rng, t)
    start = time.process_time()
    told: dict[str, Any] = {} if law.statistic is None else {"statistic": law.statistic}
    metric = invariantzoo.estimate_metric(samples, t, seed=seed, **told)
    cpu = time.process_time() - start
    margin = 0.05 * (high - low)
    points = np.random.default_rng(1).uniform(low + margin, high - margin, (200, len(low)))
    value, true = metric(points), law.exact(points)
    norm = np.linalg.norm(true, axis=(1, 2))
    off = np.linalg.norm(value - true, axis=(1, 2)) / norm
    traces = np.trace(value, axis1=1, axis2=2) / np.trace(true, axis1=1, axis2=2)
    size = np.linalg.norm(value, axis=(1, 2))
    spread = np.linalg.norm(metric.covariance_error(points), axis=(1, 2))
    stated = np.divide(spread, size, out=np.zeros_like(spread), where=size > 0)
    return {
        "median": float(np.median(off)),
        "largest": float(off.max()),
        "scale": float(np.median(traces)),
        "stated": float(np.median(stated)),
        "cpu": cpu,
    }


def _diagonal(*entries: Array) -> Array:
    """Metrics [m, d, d] of d entries [m] each."""
    return np.stack(entries, -1)[:, :, None] * np.eye(len(entries))


def _normal(rng: np.random.Generator, t: Array) -> Array:
    return t[:, :1, None] + t[:, 1:, None] * rng.normal(size=(len(t), PER_POINT, 1))


def _coins(rng: np.random.Generator, t: Array) -> Array:
    return (rng.uniform(size=(len(t), PER_POINT, 2)) < t[:, None]).astype(float)


def _poisson(rng: np.random.Generator, t: Array) -> Array:
    return rng.poisson(t, (len(t), PER_POINT))[..., None]


def _gamma(rng: np.random.Generator, t: Array) -> Array:
    return rng.gamma(t[:, :1], t[:, 1:], (len(t), PER_POINT))[..., None]


def _gamma_exact(t: Array) -> Array:
    shape, scale = t.T
    metric = _diagonal(polygamma(1, shape), shape / scale**2)
    metric[:, 0, 1] = metric[:, 1, 0] = 1 / scale
    return metric


def _labels(rng: np.random.Generator, t: Array) -> Array:
    chances = np.concatenate([t, 1 - t.sum(1, keepdims=True)], 1)
    drawn = rng.random((len(t), PER_POINT, 1)) > chances.cumsum(1)[:, None]
    return drawn.sum(-1)[..., None].clip(0, 4)


def _indicators(rng: np.random.Generator, t: Array) -> Array:
    return np.eye(5)[_labels(rng, t)[..., 0]]


def _labels_exact(t: Array) -> Array:
    return _diagonal(*(1 / t).T) + (1 / (1 - t.sum(1)))[:, None, None]


def _mixture(rng: np.random.Generator, t: Array) -> Array:
    shape = (len(t), PER_POINT)
    first = rng.random(shape) < t
    return np.where(first, rng.normal(-1.5, 1, shape), rng.normal(1.5, 0.5, shape))[..., None]


def _mixture_exact(t: Array) -> Array:
    x = np.linspace(-8, 6, 4001)
    first, second = norm.pdf(x, -1.5, 1), norm.pdf(x, 1.5, 0.5)
    density = t * first + (1 - t) * second
    return np.trapezoid((first - second) ** 2 / density, x, axis=1)[:, None, None]


def _angles(rng: np.random.Generator, t: Array) -> Array:
    return rng.vonmises(t[:, :1], t[:, 1:], (len(t), PER_POINT))[..., None]


def _angles_exact(t: Array) -> Array:
    k = t[:, 1]
    mean = i1e(k) / i0e(k)  # length of the mean direction
    return _diagonal(k * mean, 1 - mean**2 - mean / k)


def _directions(x: Any) -> Any:
    return np.concatenate([np.cos(x), np.sin(x)], -1)


def _dirichlet(rng: np.random.Generator, t: Array) -> Array:
    x = rng.gamma(np.repeat(t[:, None], PER_POINT, 1))
    return x / x.sum(-1, keepdims=True)


def _dirichlet_exact(t: Array) -> Array:
    return _diagonal(*polygamma(1, t).T) - polygamma(1, t.sum(1))[:, None, None]


def _laplace(rng: np.random.Generator, t: Array) -> Array:
    return rng.laplace(t[:, :1], t[:, 1:], (len(t), PER_POINT))[..., None]


def _cauchy(rng: np.random.Generator, t: Array) -> Array:
    return (t + rng.standard_cauchy((len(t), PER_POINT)))[..., None]


SEEDS, FEW = range(20), range(3)
LAWS = {
    "normal": Law(
        _normal,
        lambda t: np.diag([1.0, 2.0]) / t[:, 1, None, None] ** 2,
        (-1, 0.5),
        (1, 2),
        ("a normal law", "mean, scale"),
    ),
    "coins": Law(
        _coins,
        lambda t: np.eye(2) / (t * (1 - t))[:, None],
        (0.1, 0.1),
        (0.9, 0.9),
        ("two coins", "chances"),
    ),
}
OTHERS = {
    "Poisson": Law(
        _poisson, lambda t: 1 / t[:, :, None], (0.5,), (20,), ("Poisson", "rate .5 to 20")
    ),
    "gamma": Law(
        _gamma,
        _gamma_exact,
        (0.5, 0.5),
        (5, 2),
        ("gamma", "shape .5 to 5, scale .5 to 2"),
    ),
    "label": Law(
        _labels,
        _labels_exact,
        (0.1,) * 4,
        (0.22,) * 4,
        ("label of five, a whole number", "four chances .1 to .22"),
    ),
    "indicators": Law(
        _indicators,
        _labels_exact,
        (0.1,) * 4,
        (0.22,) * 4,
        ("label of five, five numbers 0 or 1", "four chances .1 to .22"),
    ),
    "mixture": Law(
        _mixture, _mixture_exact, (0.1,), (0.9,), ("two normal laws, mixed", "weight .1 to .9")
    ),
    "von Mises": Law(
        _angles,
        _angles_exact,
        (-1, 0.5),
        (1, 5),
        ("von Mises", "angle -1 to 1, concentration .5 to 5"),
    ),
    "von Mises, directions": Law(
        _angles,
        _angles_exact,
        (-1, 0.5),
        (1, 5),
        ("von Mises, told of cosine and sine", "the same"),
        _directions,
    ),
    "Dirichlet": Law(
        _dirichlet,
        _dirichlet_exact,
        (0.5,) * 3,
        (4,) * 3,
        ("Dirichlet, three numbers", ".5 to 4 each"),
    ),
    "Laplace": Law(
        _laplace,
        lambda t: np.eye(2) / t[:, 1, None, None] ** 2,
        (-2, 0.5),
        (2, 2),
        ("Laplace", "place -2 to 2, scale .5 to 2"),
    ),
    "Cauchy": Law(
        _cauchy,
        lambda t: np.full((len(t), 1, 1), 0.5),
        (-2,),
        (2,),
        ("Cauchy", "place -2 to 2"),
    ),
}
COLUMNS = ("median", "largest", "scale", "stated", "cpu")
TEXT = """# The Fisher metric of laws in closed form, many times over

`estimate_metric` with its defaults, of {points:,} points of {per_point} samples; nothing is told of
the law. `normal`: one number of a normal law, in mean [-1, 1] and scale [.5, 2], whose metric is
1 / scale^2 and 2 / scale^2. `coins`: two independent coins, in their chances [.1, .9], whose metric
is 1 / (p (1 - p)). Relative errors at 200 points inside the window (90 % of each side); scale is
the median ratio of the traces; the stated error is the median of `covariance_error` over the
estimate, both as norms. Over {seeds} seeds of the samples and the fits, least, median and most:

{rows}
The stated error is the spread of four fits on halves of the points, so it knows of chance and not
of what all four have in common, such as degrees that are too low.

## Laws that it sees less well

The same of laws whose scores are other functions than sums of products of numbers, over {few}
seeds:

{others}
What the statistic does not see the stated error cannot know of: [what is not
seen](geometry.md#what-is-not-seen).

Made by `python -m invariantzoo.figures.geometry_laws`.
"""


if __name__ == "__main__":
    main()
