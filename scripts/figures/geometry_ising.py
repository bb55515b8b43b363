"""The Fisher metric and log Z of large Ising tori from samples, beside the exact ones.

    python -m invariantzoo.figures.geometry_ising [--root .]

Writes docs/geometry-ising.md, its picture and docs/results/geometry-ising.json.
"""

from __future__ import annotations

import time
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.ising import exact as torus
from invariantzoo.figures import ising_paths
from invariantzoo.report import (
    figure_parser,
    page_figure,
    recorded,
    save_figure,
    table,
    write_text,
)
from invariantzoo.training.geometry import statistics
from invariantzoo.training.geometry.convolution import convolved, read_windows
from invariantzoo.training.geometry.moments import (
    Degrees,
    fit_moments,
    local_covariance,
    summed_up,
)
from invariantzoo.training.geometry.sampling import draw_samples
from invariantzoo.training.geometry.swaps import near_pairs, swap_posterior

LOW, HIGH = np.array([1.0, 0.0]), np.array([5.0, 2.0])  # of temperature and field
POINTS, PER_POINT, SWEEPS, MORE = 6000, 8, 250, 25
WIDTH = 13  # of the exact strip
DEGREE = 10  # of the mean over the window
NEAREST = 120  # points that a covariance is averaged over
FLOOR = 0.05  # norm of the exact metric per spin below which its relative error says nothing
RUNS = ((64, 0), (64, 1), (64, 2), (128, 0), (128, 1), (128, 2))
TOOL: tuple[tuple[str, dict[str, Any]], ...] = (  # coordinates and options of `estimate_metric`
    ("T, h", {"nearest": 200}),
    ("1/T, h/T", {"nearest": 120, "recipe": "swap", "statistic": "convolution"}),
    ("1/T, h/T", {"nearest": 120, "recipe": "chain"}),
)
PATH_SEEDS = range(3)  # of pairs, and of the samples that their metric is learned from
ASKED = 0.35  # ratio across h = 0 that a plain grid suggests
SMALL, SMALL_LOW, SMALL_HIGH = 8, (2.5, 0.1), (5.0, 1.0)  # a torus with exact sums, its window
SMALL_POINTS, SMALL_SEEDS = 3000, range(3)
SMALL_TOOL: tuple[dict[str, Any], ...] = (
    {"recipe": "swap"},
    {"recipe": "swap", "statistic": "convolution"},
    {"recipe": "chain"},
)
USUAL = {"recipe": "moments", "statistic": "patterns", "nearest": "-"}
BONDS = np.array([4, 0, 0, -4, 0, 4]) / 2  # per site, of the six patterns
MEAN = np.array([-1, -0.5, 0, 0, 0.5, 1])
TEXT = """# The Fisher metric of Ising spins from samples is right within {worst}%

Tori of 64 x 64 and 128 x 128 spins at {points:,} temperatures in [1, 5] and fields in [0, 2], drawn
by heat-bath kernels from all spins up: {per_point} states each, the first after {sweeps} sweeps and
the others {more} sweeps apart. The other sign of the field follows by symmetry. From these states
and their (1 / T, h / T) alone, pairs that may have been swapped tell the weights of a statistic
(`swap_posterior`); the mean of the weighted statistic is the gradient of log Z, summed up to
F = log Z / spins, and its covariance is the Fisher metric, averaged over the {nearest} nearest
points after a smooth fit has whitened it (`local_covariance`).

The exact values are those of an infinitely long strip, {width} spins around. F is known up to an
affine function of (1 / T, h / T), which is taken out over both signs of the field (1,600 points and
their mirror images); the slope in the field is 0 at h = 0 above 2.8. Errors of F and of its
derivatives are root mean squares; a constant has {constant}. The error of the metric is the median
over {scored} of 60 points of the window, those where its norm per spin is above {floor}; its scale
is the median ratio of the traces.

{errors}
The pair (m, m^2) brings F to {square_f:.3f} with a metric that is {square_metric:.0%} wrong:
F alone is no judge. `mean` and `pca-vae` are the baselines, in the same pipeline; PCA-VAE sees one
state per point. `convolution` is what a network learned from the
raw spins of 64 x 64, by pairs of states that may have been swapped; each half of the points has the
network of the other half.

The number of points and states, the degree of the polynomials ({degree}) and the {nearest} nearest
points were chosen looking at seed 0 of 64 x 64, whose row is therefore no test of them. The other
seeds and 128 x 128 were not looked at when they were chosen. The network, too, was chosen
looking at seed 0.

{ratios}

Weights against the exact statistic (bonds and magnetization; 1 and 0 would be exact), and CPU
seconds of the states and of the fits of each run:

{weights}
## The tool by itself

`estimate_metric` of the same spins, on one seed, with two members and the options of the table,
else its defaults: the error of its metric, which is the covariance of the score, and that of its
Hessian, each with its scale, against the exact metric in the same coordinates at the same points;
CPU seconds. `chain` is the way of *Hessian Geometry of Latent Space in Generative Models*:
posteriors over a grid, and a log Z that is fitted to them.

{tool}
On tori of 8 x 8 spins, {small_points:,} points with T in [2.5, 5] and h in [.1, 1], against exact
sums at 40 points inside, in (1/T, h/T):

{small}
The Hessian of a fitted log Z is the weaker estimate. Posteriors of 8 x 8 spins are wide: the window
cuts them off, and a fit to whole posteriors does not see their curvature alone. Those of 64 x 64
spins are much narrower than the steps of the 33 x 33 grid, and what is narrower than the grid has
no scale. Nor has the covariance then, whose weights come from the same posteriors. Pairs of near
samples have one at either size.

Somebody's own lattices in an .npz get this from `invariantzoo geometry samples.npz --nearest 200
--out results`.

## Shortest paths

Is a straight line in (T, h) the shortest way? Tori of 8 x 8, where the exact metric is known, and
the same pipeline on {drawn:,} points of {states} exact samples each, drawn evenly in T and in
u = asinh(h / {bend}), a field in which the wall at h = 0 is no narrower than anything else. Median
and least of the length of the shortest path over that of the straight line, {pairs} pairs a group;
every seed draws pairs and samples of its own:

{lengths}
![the exact metric and the learned one](images/geometry-ising.png)

The logarithm of the volume sqrt(det g) in (T, u), exact and learned, 8 x 8; bright is large. In the
corner of low T and high field hardly any spin of any sample turns, and what is learned there is far
too large; so paths within the ordered phase are less straight than they should be.

Within the ordered phase the straight line is as good as the shortest. Across the first-order line
it is longer, but not by much, and it cannot be: no path between two laws is shorter than the great
circle between their square roots, 2 arccos(sum of sqrt(p q)). That is pi for phases that have no
state in common, {least_share:.0%} of the straight line's length at the median of the seed where it
is least; so no ratio of {asked:g} can be had. The shortest path found has at
least {excess:.3f} times that bound in every pair across. A table on a plain grid of {coarse} fields
cannot see this: the wall, of width 2 T / spins, falls between two nodes, is as wide as their
distance where it is hit, and paths slip past it. Ratios of 0.15 to 0.5 there are an artefact of the
grid. The medians of both metrics agree within {apart:.3f}. {seconds:.0f} CPU s.

Made by `python -m invariantzoo.figures.geometry_ising`.
"""


def main() -> None:
    """Draw, fit, compare, write."""
    import torch

    root = figure_parser(__doc__, root=Path(".")).parse_args().root
    torch.set_num_threads(1)
    path = root / "docs/results/geometry-ising.json"
    exact = recorded(path, "exact", reference)
    runs = {
        (side, seed): recorded(path, f"{side} {seed}", partial(measured, side, seed, exact))
        for side, seed in RUNS
    }
    paths = {
        seed: recorded(path, f"paths 8 {seed}", partial(ising_paths.lengths, seed))
        for seed in PATH_SEEDS
    }
    small = [recorded(path, f"{SMALL} {seed}", partial(small_rows, seed)) for seed in SMALL_SEEDS]
    text = page(exact, runs, paths, small)
    write_text(root / "docs/geometry-ising.md", text)
    save_figure(maps(paths[0]["maps"]), root / "docs/images/geometry-ising.png")
    print(text)


def maps(volumes: dict[str, Any]) -> Any:
    """Both metrics' volumes side by side."""
    figure, panels = page_figure(1, 2, 3.2)
    top = float(np.arcsinh(HIGH[1] / ising_paths.BEND))
    for axes, (name, volume) in zip(panels[0], volumes.items(), strict=True):
        image = axes.imshow(
            np.array(volume).T,
            origin="lower",
            aspect="auto",
            extent=(LOW[0], HIGH[0], 0, top),
            vmin=-4,
            vmax=float(np.max(volumes["exact"])),
        )
        axes.set(title=name, xlabel="T", ylabel="h")
        fields = (0, 0.01, 0.03, 0.1, 0.3, 1, 2)
        axes.set_yticks(np.arcsinh(np.array(fields) / ising_paths.BEND), map(str, fields))
    figure.colorbar(image, ax=panels[0].tolist(), label="log10 of the volume")
    return figure


def page(
    exact: dict[str, Any],
    runs: dict[tuple[int, int], dict[str, Any]],
    paths: dict[int, dict[str, Any]],
    small: list[list[dict[str, float]]],
) -> str:
    """The text with its tables."""
    rows, weights, tool = [], [], []
    for (side, seed), run in runs.items():
        for name, row in run["statistics"].items():
            derivatives = [f"{row[key]:.4f}" for key in ("f", "by_t", "by_h")]
            metric = [f"{row['metric']:.1%}", f"{row['scale']:.3f}"]
            rows.append([f"{side}", f"{seed}", name, *derivatives, *metric])
        for (coordinates, options), row in zip(TOOL, run.get("tool", ()), strict=False):
            names = [options.get(name, usual) for name, usual in USUAL.items()]
            tool.append([f"{side}", f"{seed}", coordinates, *names, *_shown(row)])
        values = " ".join(f"{w:.3f}" for w in np.ravel(run["weights"]))
        weights.append([f"{side}", f"{seed}", values, f"{run['data']:.0f}", f"{run['fit']:.0f}"])
    first = runs[64, 0]["statistics"]
    ratios = []
    for name in ("mean", "pca-vae"):
        shares = [first[name][key] / first["patterns"][key] for key in ("f", "by_t", "by_h")]
        ratios.append(f"`{name}` is worse by {' / '.join(f'{share:.0f}' for share in shares)}")
    norm = np.linalg.norm(exact["metric"], axis=(1, 2))
    kinds = ("exact", "learned", "plain")
    groups = [(name, seed) for name in ising_paths.GROUPS for seed in paths]
    of_group = {(name, seed): paths[seed]["groups"][name] for name, seed in groups}
    lengths = [
        [
            name,
            f"{seed}",
            *("{:.3f} ({:.3f})".format(*group[kind]) for kind in kinds),
            *(f"{length:.2f}" for length in (group["straight"], group["least"][0])),
        ]
        for (name, seed), group in of_group.items()
    ]
    across = [group for (name, _), group in of_group.items() if "across" in name]
    short = list(USUAL)[:2]
    return TEXT.format(
        drawn=ising_paths.POINTS,
        states=ising_paths.PER_POINT,
        bend=ising_paths.BEND,
        pairs=ising_paths.PAIRS,
        coarse=ising_paths.COARSE,
        lengths=table(
            [
                "pairs",
                "seed",
                "exact",
                "learned",
                "exact, plain grid",
                "straight line",
                "no path is below",
            ],
            lengths,
        ),
        least_share=min(group["least"][1] for group in across),
        asked=ASKED,
        excess=min(group["excess"] for group in across),
        apart=max(abs(group["exact"][0] - group["learned"][0]) for group in of_group.values()),
        seconds=sum(run["seconds"] for run in paths.values()),
        worst=ceil(100 * max(run["statistics"]["patterns"]["metric"] for run in runs.values())),
        points=POINTS,
        per_point=PER_POINT,
        sweeps=SWEEPS,
        more=MORE,
        nearest=NEAREST,
        degree=DEGREE,
        width=WIDTH,
        constant=" / ".join(f"{value:.3f}" for value in exact["constant"]),
        scored=int((norm > FLOOR).sum()),
        floor=FLOOR,
        errors=table(["side", "seed", "statistic", "F", "dF/dT", "dF/dH", "metric", "scale"], rows),
        square_f=first["mean and square"]["f"],
        square_metric=first["mean and square"]["metric"],
        ratios="; ".join(ratios) + " (F / dF/dT / dF/dH, seed 0).",
        small_points=SMALL_POINTS,
        small=table(
            ["seed", "recipe", "statistic", "metric, scale", "Hessian, scale", "CPU s"],
            [
                [f"{seed}", *(options.get(name, USUAL[name]) for name in short), *_shown(row)]
                for seed, rows_here in enumerate(small)
                for options, row in zip(SMALL_TOOL, rows_here, strict=True)
            ],
        ),
        tool=table(
            ["side", "seed", "coordinates", *USUAL, "metric, scale", "Hessian, scale", "CPU s"],
            tool,
        ),
        weights=table(["side", "seed", "weights", "states", "fits"], weights),
    )


def strip(x: float, y: float) -> tuple[float, float, float]:
    """log Z, bonds and magnetization per spin of an infinite strip at x = 1 / T, y = h / T.

    The row to row transfer matrix [2^WIDTH, 2^WIDTH] is a product of two smaller ones and a
    diagonal, so that it is never made; derivatives are means over its first eigenvector.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    low = WIDTH // 2
    high = WIDTH - low
    s = _spins(WIDTH)
    inside, m = (s * np.roll(s, -1, 1)).sum(1), s.sum(1)
    between = [_spins(n) @ _spins(n).T for n in (high, low)]
    upper, lower = (np.exp(x * (b - n)) for b, n in zip(between, (high, low), strict=True))
    half = np.exp(0.5 * (x * (inside - WIDTH) + y * (m - WIDTH)))

    def apply(v: np.ndarray) -> np.ndarray:
        return np.asarray(half * (upper @ (half * v).reshape(2**high, -1) @ lower).ravel())

    operator = LinearOperator((len(half), len(half)), matvec=apply, dtype=np.float64)
    values, vectors = eigsh(operator, k=1, v0=half, tol=1e-10, ncv=12)
    top, v = float(values[0]), vectors[:, 0]
    u = (half * v).reshape(2**high, -1)
    bonds = (upper * between[0]) @ u @ lower + upper @ u @ (lower * between[1])
    energy = float((u * bonds).sum() / top + v**2 @ inside) / WIDTH
    return float(np.log(top)) / WIDTH + 2 * x + y, energy, float(v**2 @ m) / WIDTH


def _spins(n: int) -> np.ndarray:
    return 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1


def reference() -> dict[str, Any]:
    """Exact F and gradient on a grid, metrics per spin at 60 points, and a constant's errors."""
    axes = np.linspace(LOW[0], HIGH[0], 40), np.linspace(HIGH[1] / 80, HIGH[1], 40)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    values = np.array([strip(*theta) for theta in natural(grid)])
    points = np.random.default_rng(7).uniform(LOW, HIGH, (60, 2))
    metrics, step = [], 1e-4
    for x, y in natural(points):
        ends = step * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        gradient = np.array([strip(x + a, y + b)[1:] for a, b in ends])
        slope = (gradient[::2] - gradient[1::2]) / (2 * step)
        metrics.append((slope + slope.T) / 2)
    zero = np.zeros(len(grid))
    constant = potential_errors(grid, values, zero, np.zeros((len(grid), 2)))
    return {
        "grid": grid.tolist(),
        "values": values.tolist(),
        "points": points.tolist(),
        "metric": np.array(metrics).tolist(),
        "constant": constant,
    }


def natural(points: np.ndarray) -> np.ndarray:
    """(1 / T, h / T) [m, 2] of (T, h) [m, 2]; its own inverse."""
    return np.column_stack([1 / points[:, 0], points[:, 1] / points[:, 0]])


def states(side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spins [points, per point, side, side] int8, and (T, h) [points, 2]."""
    system = invariantzoo.make_system(
        "ising-equilibrium-v0",
        lattice_size=side,
        update="checkerboard",
        temperature=(LOW[0], HIGH[0]),
        field=(LOW[1], HIGH[1]),
    )
    spins, parameters = [], []
    for k in range(POINTS // 1000):
        env = VectorEnv(system, 1000, seed=1000 * seed + k)
        env.reset(options={"state": {"spin": np.ones((1000, side * side))}})
        drawn = []
        for sample in range(PER_POINT):
            steps = 2 * (SWEEPS if sample == 0 else MORE)
            env.rollout("heat-bath", steps, every=steps)
            drawn.append(np.asarray(env.state.spin).reshape(-1, side, side).astype(np.int8))
        spins.append(np.stack(drawn, 1))
        parameters.append(np.concatenate([env.state.temperature, env.state.field], 1))
    return np.concatenate(spins), np.concatenate(parameters)


def measured(side: int, seed: int, exact: dict[str, Any]) -> dict[str, Any]:
    """Errors of every statistic, weights of the patterns, and CPU seconds."""
    start = time.process_time()
    spins, parameters = states(side, seed)
    data = time.process_time() - start
    patterns = statistics.patterns(spins)
    m = patterns @ MEAN[:, None]
    whole = np.arange(POINTS)
    features = {
        "patterns": [(patterns[..., :5], whole)],  # the sixth is what is left
        "mean": [(m, whole)],
        "mean and square": [(np.concatenate([m, m**2], -1), whole)],
    }
    if side == 64:
        features["convolution"] = learned(spins, parameters, seed)
    if side == 64:
        vae = statistics.pca_vae(spins[:, :1].astype(np.float32), seed)
        features["pca-vae"] = [(vae, whole)]
    start = time.process_time()
    results = {}
    for name, parts in features.items():
        results[name], weights = compared(parts, parameters, side**2, exact)
        if name == "patterns":
            fit = time.process_time() - start
            sufficient = np.stack([BONDS, MEAN], 1)
            change = sufficient[:5] - sufficient[5]
            against = np.linalg.lstsq(change, weights, rcond=None)[0]
    tool = [
        by_the_tool(spins, parameters, coordinates == "T, h", options, exact)
        for coordinates, options in TOOL
        if (side, seed) == (64, 0)
    ]
    more = {"tool": tool} if tool else {}
    return {
        "statistics": results,
        "weights": against.tolist(),
        "data": data,
        "fit": fit,
        **more,
    }


def learned(
    spins: np.ndarray, parameters: np.ndarray, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What networks learned [points, per point, 2] from the other half of the points, and these."""
    theta = natural(parameters)
    scaled = 2 * (theta - theta.min(0)) / np.ptp(theta, axis=0) - 1
    windows = read_windows(spins)
    first, second = np.array_split(np.random.default_rng(seed).permutation(len(theta)), 2)
    return [
        (convolved(windows, scaled, there, None, 500, seed + k) / spins.shape[2] ** 2, here)
        for k, (here, there) in enumerate(((first, second), (second, first)))
    ]


def by_the_tool(
    spins: np.ndarray,
    parameters: np.ndarray,
    plain: bool,
    options: dict[str, Any],
    exact: dict[str, Any],
) -> dict[str, float]:
    """Errors of `estimate_metric` in (T, h), or else (1 / T, h / T), and CPU seconds."""
    points, true = np.array(exact["points"]), np.array(exact["metric"])
    norm = np.linalg.norm(true, axis=(1, 2))
    at, given = (points, parameters) if plain else (natural(points), natural(parameters))
    if plain:
        t, h = points.T
        change = np.stack([-1 / t**2, 0 * t, -h / t**2, 1 / t], -1).reshape(-1, 2, 2)
        true = np.swapaxes(change, 1, 2) @ true @ change
    return estimated(spins, given, options, at, true * spins.shape[2] ** 2, norm > FLOOR)


def small_rows(seed: int) -> list[dict[str, float]]:
    """Errors of `estimate_metric` on the small torus, with exact sums."""
    low, high = np.array(SMALL_LOW), np.array(SMALL_HIGH)
    system = invariantzoo.make_system(
        "ising-equilibrium-v0",
        lattice_size=SMALL,
        update="checkerboard",
        temperature=(low[0], high[0]),
        field=(low[1], high[1]),
    )
    edge = np.array([0.2, 0.1])
    drawn = draw_samples(system, points=SMALL_POINTS, per_point=PER_POINT, sweeps=100, seed=seed)
    inside = np.random.default_rng(1).uniform(low + edge, high - edge, (40, 2))
    at, theta = natural(inside), natural(drawn.parameters)
    true = np.array([torus.moments(SMALL, *point).covariance for point in at])
    scored = np.ones(len(at), bool)
    return [estimated(drawn.samples, theta, options, at, true, scored) for options in SMALL_TOOL]


def estimated(
    spins: np.ndarray,
    given: np.ndarray,
    options: dict[str, Any],
    at: np.ndarray,
    true: np.ndarray,
    scored: np.ndarray,
) -> dict[str, float]:
    """Errors of `estimate_metric` at points where metrics are known, and CPU seconds."""
    start = time.process_time()
    metric = invariantzoo.estimate_metric(spins, given, members=2, **options)
    row = {"cpu": time.process_time() - start}
    for name, value in (("metric", metric(at)), ("hessian", metric.hessian(at))):
        row |= _errors(name, value, true, scored)
    return row


def _shown(row: dict[str, float]) -> list[str]:
    numbers = [f"{row[way]:.1%}, {row[way + ' scale']:.3f}" for way in ("metric", "hessian")]
    return [*numbers, f"{row['cpu']:.0f}"]


def _errors(name: str, value: np.ndarray, true: np.ndarray, scored: np.ndarray) -> dict[str, float]:
    """Median relative error of metrics where they are scored, and median ratio of traces."""
    off = np.linalg.norm(value - true, axis=(1, 2)) / np.linalg.norm(true, axis=(1, 2))
    traces = np.trace(value, axis1=1, axis2=2) / np.trace(true, axis1=1, axis2=2)
    scale = float(np.median(traces[scored]))
    return {name: float(np.median(off[scored])), f"{name} scale": scale}


def compared(
    parts: list[tuple[np.ndarray, np.ndarray]],
    parameters: np.ndarray,
    spins: int,
    exact: dict[str, Any],
) -> tuple[dict[str, float], np.ndarray]:
    """Errors with a statistic [points, per point, features], and its weights per spin.

    parts: of statistics of their own, each with the points that are read with it; the metric and
    the gradient of log Z are the means over parts, the weights those of the first.
    """
    true, points = np.array(exact["metric"]), np.array(exact["points"])
    centre, half = (HIGH + LOW) / 2, (HIGH - LOW) / 2
    metric, mean, all_weights = np.zeros_like(true), np.zeros(1), []
    for whole, here in parts:
        h, theta, t = whole[here], natural(parameters[here]), (parameters[here] - centre) / half
        scaled = (theta - theta.min(0)) / np.ptp(theta, axis=0)
        weights = swap_posterior(h, theta, *near_pairs(scaled, np.arange(len(theta)))) / spins
        seen, turned = (h, weights) if h.shape[2] == 1 else (h @ weights, np.eye(2))
        size = seen.std((0, 1))
        net = fit_moments(summed_up(seen / size, t), Degrees(DEGREE, 6, 3))
        nearest = NEAREST // len(parts)
        local = local_covariance(net, seen / size, t, (points - centre) / half, nearest)
        metric += spins * turned.T @ (local * np.outer(size, size)) @ turned / len(parts)
        now = np.linalg.lstsq(_basis(parameters[here]), (h @ weights).mean(1), rcond=None)[0]
        mean = mean + now / len(parts)
        all_weights.append(weights)

    hot = np.column_stack([np.linspace(2.8, 5, 30), np.zeros(30)])
    shift = np.array([0.0, (_basis(hot) @ mean)[:, 1].mean()])
    grid = np.array(exact["grid"])
    middle, theta = np.array([0.6, 0.5]), natural(grid)
    total = np.zeros(len(grid))
    for node, weight in zip(*np.polynomial.legendre.leggauss(24), strict=True):
        at = natural(middle + (node + 1) / 2 * (theta - middle))
        gradient = _basis(at) @ mean - shift
        total += weight / 2 * ((theta - middle) * gradient).sum(1)
    errors = potential_errors(grid, np.array(exact["values"]), total, _basis(grid) @ mean - shift)
    scored = np.linalg.norm(true, axis=(1, 2)) > FLOOR
    row = _errors("metric", metric, true, scored)
    return {
        **dict(zip(("f", "by_t", "by_h"), errors, strict=True)),
        "metric": row["metric"],
        "scale": row["metric scale"],
    }, all_weights[0]


def _basis(points: np.ndarray) -> np.ndarray:
    """Products of Legendre polynomials of (T, h) up to DEGREE, [m, terms]."""
    along = (points - (HIGH + LOW) / 2) / ((HIGH - LOW) / 2)
    first, second = (np.polynomial.legendre.legvander(along[:, i], DEGREE) for i in range(2))
    return np.stack(
        [first[:, i] * second[:, j] for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)], 1
    )


def potential_errors(
    grid: np.ndarray, exact: np.ndarray, value: np.ndarray, gradient: np.ndarray
) -> list[float]:
    """Root mean squares of F, dF/dT and dF/dH over both signs of the field, less an affine part.

    grid [m, 2] of (T, h); exact [m, 3]: F and its gradient by (1 / T, h / T).
    """
    theta = natural(grid)
    line = np.column_stack([np.ones(len(grid)), theta])
    off = value - exact[:, 0]
    both = np.concatenate([line, line * [1, 1, -1]])
    affine = np.linalg.lstsq(both, np.concatenate([off, off]), rcond=None)[0]
    slope = gradient - exact[:, 1:] - affine[1:]
    x = theta[:, 0]
    by_t, by_h = -(x**2) * (slope[:, 0] + grid[:, 1] * slope[:, 1]), x * slope[:, 1]
    return [float(np.sqrt(np.mean(e**2))) for e in (off - line @ affine, by_t, by_h)]


if __name__ == "__main__":
    main()
