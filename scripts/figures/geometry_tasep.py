"""Current and Fisher metric of the open exclusion process from samples, beside the exact ones.

    python -m invariantzoo.figures.geometry_tasep [--root .]

Writes docs/geometry-tasep.md and docs/results/geometry-tasep.json.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.tasep import exact
from invariantzoo.report import figure_parser, recorded, table, write_text
from invariantzoo.training.geometry.moments import local_information

SITES, WORLDS, PER_WORLD, BURN_IN, MORE = 256, 6000, 8, 2000, 200
LOW, HIGH = 0.02, 0.98  # of both gates of the long chain
DEGREES, FOLDS = range(2, 13), 10
SHORT, POINTS, PER_POINT, NEAREST = 12, 3000, 200, 600
SEEDS, METRIC_SEEDS = range(3), range(5)
KEYS = ("f", "by_alpha", "by_beta")
TEXT = """# The current of the exclusion process and its Fisher metric, from samples

## Current of a long chain

Open chains of {sites} sites, {worlds:,} pairs of gates (alpha, beta) in [{low}, {high}],
{per_world} states of each after {burn_in:,} sweeps, {more} sweeps apart. A statistic of a state is
regressed on polynomials of the gates. Their degree, among 2 to 12, is the least whose error in
chains that were left out (a tenth at a time) exceeds the best by no more than one standard error of
the difference; F is the current, and is compared with that of the infinitely long chain on
[.05, .95]^2, as its derivatives by the gates are (root mean squares).

`10 on (min, max)`: how often a hole follows a particle, on the smaller and the larger gate, which
the mirror (particles to holes) leaves alone. `10 on the gates`: the same on alpha and beta.
`mean on the gates`: the density rho, of which rho (1 - rho) is taken after the regression.
`square on (min, max)`: rho (1 - rho) of every state, on the smaller and the larger gate.

{currents}
Where two halves of the chains chose the degree of lowest error for each other, one seed of three
got a degree so high that the derivatives by `10 on (min, max)` were twice as far off.

{ratios}
The metric of the long chain is not known exactly; what F alone can tell is little:
the Fisher potential of this process is the negative entropy of its bulk and not its current, yet
after a scale and an affine fit the two differ by .0031 only, and .057 in the derivatives (a test
holds these figures).

## Metric of a chain of {short} sites

Exact states (matrix product) at {points:,} pairs of gates in [.1, .9]^2, {per_point} of each; their
mirror images at exchanged gates are states too. The statistic is every occupation, the number of
neighbours both taken and the square of the number of particles; mean and covariance are fitted
among the {nearest} nearest points alone (`local_information`). Errors relative to the exact metric
at 49 points of [.2, .8]^2; scale is the median ratio of the traces. Statistic, number of states and
of nearest points were chosen looking at seed 0; the other seeds were not looked at.

{metrics}
Made by `python -m invariantzoo.figures.geometry_tasep`.
"""


def main() -> None:
    """Draw, fit, compare, write."""
    root = figure_parser(__doc__, root=Path(".")).parse_args().root
    path = root / "docs/results/geometry-tasep.json"
    metrics = [recorded(path, f"metric {seed}", partial(metric_row, seed)) for seed in METRIC_SEEDS]
    currents = [recorded(path, f"current {seed}", partial(current_rows, seed)) for seed in SEEDS]
    text = page(currents, metrics)
    write_text(root / "docs/geometry-tasep.md", text)
    print(text)


def page(currents: list[dict[str, Any]], metrics: list[dict[str, float]]) -> str:
    """The text with its tables."""
    rows = [
        [f"{seed}", name, *(f"{row[key]:.4f}" for key in KEYS), f"{row['degree']}"]
        for seed, run in enumerate(currents)
        for name, row in run["statistics"].items()
    ]
    best = currents[0]["statistics"]["10 on (min, max)"]
    ratios = []
    for name in ("mean on the gates", "square on (min, max)"):
        shares = [currents[0]["statistics"][name][key] / best[key] for key in KEYS]
        ratios.append(f"`{name}` is worse by {' / '.join(f'{share:.1f}' for share in shares)}")
    seconds = ", ".join(f"{run['data']:.0f} + {run['fit']:.0f}" for run in currents)
    columns = ("median", "mean", "largest", "scale", "cpu")
    return TEXT.format(
        sites=SITES,
        worlds=WORLDS,
        low=LOW,
        high=HIGH,
        per_world=PER_WORLD,
        burn_in=BURN_IN,
        more=MORE,
        currents=table(["seed", "estimate", "F", "dF/dalpha", "dF/dbeta", "degree"], rows),
        ratios=f"{'; '.join(ratios)} (seed 0). CPU seconds of states + fits: {seconds}.\n",
        short=SHORT,
        points=POINTS,
        per_point=PER_POINT,
        nearest=NEAREST,
        metrics=table(
            ["seed", "median", "mean", "largest", "scale", "CPU s"],
            [
                [
                    f"{seed}",
                    *(f"{row[key]:.1%}" for key in columns[:3]),
                    f"{row['scale']:.3f}",
                    f"{row['cpu']:.0f}",
                ]
                for seed, row in enumerate(metrics)
            ],
        ),
    )


def current_rows(seed: int) -> dict[str, Any]:
    """Errors of every estimate of the current, and CPU seconds."""
    start = time.process_time()
    sites, gates = chains(seed)
    drawn, start = time.process_time() - start, time.process_time()
    follows = (sites[..., :-1] & ~sites[..., 1:]).mean(-1)
    density = sites.mean(-1)
    estimates = {
        "10 on (min, max)": errors(follows, gates, folded=True),
        "10 on the gates": errors(follows, gates),
        "mean on the gates": errors(density, gates, squared=True),
        "square on (min, max)": errors(density * (1 - density), gates, folded=True),
    }
    return {"statistics": estimates, "data": drawn, "fit": time.process_time() - start}


def chains(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sites [worlds, per world, sites] bool and gates [worlds, 2]."""
    system: Any = invariantzoo.make_system(
        "tasep-open-v0", n_sites=SITES, alpha=(LOW, HIGH), beta=(LOW, HIGH)
    )
    env = VectorEnv(system, WORLDS, seed=seed)
    env.reset()
    drawn = []
    for sample in range(PER_WORLD):
        steps = (MORE if sample else BURN_IN) * system.sweep
        env.rollout("hop", steps, every=steps)
        drawn.append(np.asarray(env.state.occupied) > 0.5)
    gates = np.concatenate([env.state.alpha, env.state.beta], 1)
    return np.stack(drawn, 1), np.asarray(gates)


def errors(
    values: np.ndarray, gates: np.ndarray, *, folded: bool = False, squared: bool = False
) -> dict[str, float]:
    """Of a current regressed from values [worlds, per world] at gates [worlds, 2].

    folded: on (min, max) of the gates.  squared: x (1 - x) of what is regressed.
    """
    mean, fold = values.mean(1), np.arange(len(values)) % FOLDS

    def fitted(degree: int, here: np.ndarray) -> np.ndarray:
        design = basis(gates[here], degree, folded)
        return np.asarray(np.linalg.lstsq(design, mean[here], rcond=None)[0])

    def missed(degree: int) -> np.ndarray:
        """Squared errors [worlds], each by a fit to the other folds."""
        squares = np.empty(len(mean))
        for k in range(FOLDS):
            guess = basis(gates[fold == k], degree, folded) @ fitted(degree, fold != k)
            squares[fold == k] = (guess - mean[fold == k]) ** 2
        return squares

    degree = least_sufficient({degree: missed(degree) for degree in DEGREES})
    weights = fitted(degree, np.ones(len(mean), bool))

    def current(points: np.ndarray) -> np.ndarray:
        value = basis(points, degree, folded) @ weights
        return np.asarray(value * (1 - value) if squared else value)

    axis = 0.05 + 0.9 * (np.arange(54) + 0.5) / 54
    # a little off the line of coexistence, where the infinite chain has no derivative
    grid = np.stack(np.meshgrid(axis, axis + 1e-3), -1).reshape(-1, 2)
    off: dict[str, float] = {"degree": degree}
    off["f"] = _size(current(grid) - exact.limit_current(*grid.T))
    for i, key in enumerate(KEYS[1:]):
        step = 1e-5 * np.eye(2)[i]
        slope = (current(grid + step) - current(grid - step)) / 2e-5
        true = exact.limit_current(*(grid + step).T) - exact.limit_current(*(grid - step).T)
        off[key] = _size(slope - true / 2e-5)
    return off


def least_sufficient(missed: dict[int, np.ndarray]) -> int:
    """The least degree that is not worse than the best by more than one standard error.

    missed: squared errors [worlds] by degree, compared world by world.
    """
    best = min(missed.values(), key=np.mean)

    def worse(squares: np.ndarray) -> bool:
        more = squares - best
        return bool(more.mean() > more.std(ddof=1) / np.sqrt(more.size))

    return min(degree for degree, squares in missed.items() if not worse(squares))


def basis(gates: np.ndarray, degree: int, folded: bool) -> np.ndarray:
    """Products of Legendre polynomials [m, terms] of the gates [m, 2]."""
    along = 2 * (np.sort(gates, 1) if folded else gates) - 1
    first, second = (np.polynomial.legendre.legvander(along[:, i], degree) for i in range(2))
    return np.stack(
        [first[:, i] * second[:, j] for i in range(degree + 1) for j in range(degree + 1 - i)], 1
    )


def metric_row(seed: int) -> dict[str, float]:
    """Errors of the metric of the short chain from samples, and CPU seconds."""
    axis = np.linspace(0.2, 0.8, 7)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    true = np.array([exact_metric(*gates) for gates in points])
    start = time.process_time()
    rng = np.random.default_rng(seed)
    gates = rng.uniform(0.1, 0.9, (POINTS, 2))
    states = np.arange(2**SHORT)[:, None] >> np.arange(SHORT)[::-1] & 1
    drawn = np.empty((POINTS, PER_POINT, SHORT))
    for i, pair in enumerate(gates):
        total = np.cumsum(law(*pair))
        drawn[i] = states[np.searchsorted(total / total[-1], rng.random(PER_POINT), "right")]
    drawn = np.concatenate([drawn, 1 - drawn[..., ::-1]])
    gates = np.concatenate([gates, gates[:, ::-1]])
    both = (drawn[..., 1:] * drawn[..., :-1]).sum(-1, keepdims=True)
    h = np.concatenate([drawn, both, drawn.sum(-1, keepdims=True) ** 2], -1)
    metric = local_information(h, gates, points, NEAREST)
    off = np.linalg.norm(metric - true, axis=(1, 2)) / np.linalg.norm(true, axis=(1, 2))
    traces = np.trace(metric, axis1=1, axis2=2) / np.trace(true, axis1=1, axis2=2)
    return {
        "median": float(np.median(off)),
        "mean": float(off.mean()),
        "largest": float(off.max()),
        "scale": float(np.median(traces)),
        "cpu": time.process_time() - start,
    }


def law(alpha: float, beta: float) -> np.ndarray:
    """Exact chances [2^SHORT] of the states of the short chain, the first site slowest."""
    size = SHORT + 2
    taken, empty = (np.eye(size) + np.eye(size, k=k) for k in (1, -1))
    taken[0, 0], empty[0, 0] = 1 / beta, 1 / alpha
    taken[0, 1] = (alpha + beta - 1) / (alpha * beta)
    row = np.eye(1, size)
    for _ in range(SHORT):
        row = np.stack([row @ empty, row @ taken], 1).reshape(-1, size)
    return np.asarray(row[:, 0] / row[:, 0].sum())


def exact_metric(alpha: float, beta: float) -> np.ndarray:
    """Fisher metric [2, 2] of the short chain, by enumeration."""
    step, here = 1e-4, law(alpha, beta)
    by_alpha = law(alpha + step, beta) - law(alpha - step, beta)
    by_beta = law(alpha, beta + step) - law(alpha, beta - step)
    slope = np.stack([by_alpha, by_beta]) / (2 * step)
    return np.asarray((slope / here) @ slope.T)


def _size(off: np.ndarray) -> float:
    return float(np.sqrt(np.mean(off**2)))


if __name__ == "__main__":
    main()
