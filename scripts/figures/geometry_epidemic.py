"""The Fisher metric of somebody else's simulation, here epidemics, beside the exact one.

    python -m invariantzoo.figures.geometry_epidemic [--root .]

Writes docs/geometry-epidemic.md, its picture and docs/results/geometry-epidemic.json.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.__main__ import main as command
from invariantzoo.report import figure_parser, recorded, table, write_text

PEOPLE, INFECTED = 30, 3
LOW, HIGH = np.array([0.6, 0.05]), np.array([3.0, 0.6])  # reproduction number, share immune
NAMES = ("reproduction number", "share immune")
POINTS, PER_POINT, SEEDS = 4000, 8, 3
SIDE = 7  # points along a side of the window at which the metric is compared
EDGE = 0.1  # of the window that is left out there
STEP = 1e-4  # of the differences that make the exact metric


def main() -> None:
    """Compute what is missing, then print and write the page."""
    args = figure_parser(__doc__, root=Path()).parse_args()
    store = args.root / "docs" / "results" / "geometry-epidemic.json"
    picture = args.root / "docs" / "images" / "geometry-epidemic.png"
    exact = np.array(recorded(store, "exact", lambda: exact_metric(places()).tolist()))
    runs = [
        recorded(store, f"seed {seed}", partial(estimated, seed, picture)) for seed in range(SEEDS)
    ]
    page = _page(exact, runs)
    print(page)
    write_text(args.root / "docs" / "geometry-epidemic.md", page)


def places() -> np.ndarray:
    """Points [SIDE^2, 2] of the window."""
    shares = np.linspace(EDGE, 1 - EDGE, SIDE)
    return LOW + (HIGH - LOW) * np.stack(np.meshgrid(shares, shares, indexing="ij"), -1).reshape(
        -1, 2
    )


def simulate(parameters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """People ever infected and days until the last: [points, PER_POINT, 2]."""
    spread, immune = (np.repeat(column[:, None], PER_POINT, 1) for column in parameters.T)
    healthy = rng.binomial(PEOPLE - INFECTED, 1 - immune)
    ill, ever, days = (np.full(healthy.shape, n) for n in (INFECTED, 0, 0))
    while ill.any():
        days += ill > 0
        ill = rng.binomial(healthy, 1 - np.exp(-spread * ill / PEOPLE))
        healthy, ever = healthy - ill, ever + ill
    return np.stack([ever, days], -1)


def exact_law(spread: float) -> np.ndarray:
    """Probabilities [healthy at first, ever infected, days] of the simulation."""
    from scipy.stats import binom

    n = PEOPLE - INFECTED + 1
    ill, healthy, new = np.ogrid[: PEOPLE + 1, :n, :n]
    chance = binom.pmf(new, healthy, 1 - np.exp(-spread * ill / PEOPLE))  # [ill, healthy, new]
    state = np.zeros((n, n, PEOPLE + 1))  # [at first, healthy, ill]
    state[np.arange(n), np.arange(n), INFECTED] = 1
    law = np.zeros((n, n, n + 1))
    for day in range(1, n + 1):
        arrived = np.einsum("fhi,ihk->fhk", state, chance)
        state = np.zeros_like(state)
        for k in range(n):
            state[:, : n - k, k] = arrived[:, k:, k]
        for first in range(n):
            law[first, : first + 1, day] = state[first, first::-1, 0]
        state[:, :, 0] = 0
    return law


def exact_metric(points: np.ndarray) -> np.ndarray:
    """The Fisher metric [m, 2, 2] at points [m, 2], by differences of the exact law."""
    from scipy.stats import binom

    n = PEOPLE - INFECTED
    laws = {s: exact_law(s) for r in set(points[:, 0]) for s in (r - STEP, r, r + STEP)}

    def law(spread: float, immune: float) -> np.ndarray:
        weights = binom.pmf(np.arange(n + 1), n, 1 - immune)
        return np.asarray(np.einsum("f,fed->ed", weights, laws[spread]).ravel())

    metrics = []
    for r, v in points:
        here = law(r, v)
        slopes = [law(r + STEP, v) - law(r - STEP, v), law(r, v + STEP) - law(r, v - STEP)]
        seen = here > 1e-300
        change = np.stack(slopes)[:, seen] / (2 * STEP)
        metrics.append((change / here[seen]) @ change.T)
    return np.array(metrics)


def estimated(seed: int, picture: Path) -> dict[str, Any]:
    """The metric at `places` by `invariantzoo geometry`, and CPU seconds; seed 0 is drawn."""
    start = time.process_time()
    rng = np.random.default_rng(seed)
    parameters = rng.uniform(LOW, HIGH, (POINTS, 2))
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "epidemics.npz", Path(folder) / "out"
        samples = simulate(parameters, rng)
        np.savez(file, samples=samples, parameters=parameters, names=NAMES)
        command(["geometry", str(file), "--out", str(out), "--seed", str(seed), "--json"])
        metric = invariantzoo.load_metric(out / "metric.npz")
        if seed == 0:
            shutil.copyfile(out / "metric.png", picture)
    value = metric(places())
    return {"metric": value.tolist(), "seconds": round(time.process_time() - start, 1)}


def _page(exact: np.ndarray, runs: list[dict[str, Any]]) -> str:
    size = np.linalg.norm(exact, axis=(1, 2))
    rows, maps = [], []
    for seed, run in enumerate(runs):
        metric = np.array(run["metric"])
        off = np.linalg.norm(metric - exact, axis=(1, 2)) / size
        maps.append(off.reshape(SIDE, SIDE))
        scale = np.median(np.trace(metric, axis1=1, axis2=2) / np.trace(exact, axis1=1, axis2=2))
        spread = f"{np.quantile(off, 0.9):.1%}"
        rows.append([seed, f"{np.median(off):.1%}", spread, f"{scale:.3f}", run["seconds"]])
    shares = np.linspace(EDGE, 1 - EDGE, SIDE)
    spreads, immune = (low + (high - low) * shares for low, high in zip(LOW, HIGH, strict=True))
    errors = [
        [f"{spread:.2f}", *(f"{off:.0%}" for off in row)]
        for spread, row in zip(spreads, np.median(maps, axis=0), strict=True)
    ]
    return f"""# A metric map of somebody else's simulation: epidemics in a group of {PEOPLE}

Any simulation that writes its samples with their parameters gets a metric map by one command. This
one is fifteen lines of numpy (`simulate` in the script below). Of {PEOPLE} people {INFECTED} are
ill, and a share of the others is immune; each day everybody who is ill infects each of the rest
with probability 1 - exp(-R / {PEOPLE}), and recovers. All that is kept of an epidemic are two
numbers: how many it infected, and how many days it took. {POINTS:,} points (R, share immune), with
{PER_POINT} epidemics at each, go into an .npz, and

```
invariantzoo geometry epidemics.npz --out results
```

draws the Fisher metric with shortest paths:

![the metric of epidemics](images/geometry-epidemic.png)

The law of the two numbers can also be summed up exactly, day by day, and so can its metric. Errors
relative to it, and traces over its trace, at {SIDE} x {SIDE} points of the inner {1 - 2 * EDGE:.0%}
of the window along each side:

{table(["seed", "median error", "nine tenths below", "trace, median ratio", "CPU s"], rows)}
Where the error is, by R (down) and share immune (across), median of the seeds:

{table(["R", *(f"{v:.2f}" for v in immune)], errors)}
Where most epidemics die at once (small R, many immune) the two parameters act nearly as one, few
samples say anything, and the estimate is poor. At the left rim of the picture it is far too large.

To reproduce: `python -m invariantzoo.figures.geometry_epidemic`.
"""


if __name__ == "__main__":
    main()
