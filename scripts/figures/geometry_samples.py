"""How many samples the metric of a small lattice needs, and what the stated errors are worth.

    python -m invariantzoo.figures.geometry_samples [--out docs] [--seeds 5]

Spins of 4 x 4 tori at temperatures in [3, 5] and fields in [0.1, 0.6], drawn from the exact law of
all 65,536 states, and their metric by `estimate_metric` as it is; the exact metric is by transfer
matrix. Writes geometry-samples.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import invariantzoo
from invariantzoo.envs.ising.exact import moments
from invariantzoo.envs.ising.stationary import configurations
from invariantzoo.report import figure_parser, table, write_text

SIDE = 4
WINDOW = np.array([[3.0, 0.1], [5.0, 0.6]])  # temperature and field, from and to
CASES = ((2000, 4), (2000, 16), (4000, 16), (4000, 64))  # points, samples at each
PLACES = np.stack(np.meshgrid([3.4, 4.0, 4.6], [0.2, 0.35, 0.5], indexing="ij"), -1).reshape(-1, 2)


def main() -> None:
    """Estimate, print and write the table."""
    args = figure_parser(__doc__, out=Path("docs"), seeds=5).parse_args()
    exact = np.stack([exact_metric(*place) for place in PLACES])
    rows = []
    for points, per_point in CASES:
        errors, stated = [], []
        for seed in range(args.seeds):
            metric = invariantzoo.estimate_metric(*samples(points, per_point, seed))
            found = metric(PLACES)
            errors.append(relative(found - exact, exact))
            stated.append(relative(metric.covariance_error(PLACES), found))
        far, said = np.array(errors), np.array(stated)
        row = [
            f"{points:,}",
            str(per_point),
            *(f"{np.quantile(far, q):.0%}" for q in (0.5, 0.9, 1)),
        ]
        row += [f"{np.median(said):.0%}", f"{(far > 2 * said).mean():.0%}"]
        rows.append(row)
        print(row, flush=True)
    write_text(args.out / "geometry-samples.md", page(rows, args.seeds))


def relative(difference: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Norms [places] of matrices over those of others."""
    norms = np.linalg.norm(difference, axis=(1, 2)) / np.linalg.norm(whole, axis=(1, 2))
    return np.asarray(norms)


def exact_metric(temperature: float, field: float) -> np.ndarray:
    """Fisher's [2, 2], in temperature and field."""
    natural = moments(SIDE, 1 / temperature, field / temperature).covariance
    change = np.array([[-1 / temperature**2, 0], [-field / temperature**2, 1 / temperature]])
    return np.asarray(change.T @ natural @ change)


def samples(points: int, per_point: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples [points, per_point, side, side] of the law, and their parameters [points, 2]."""
    spin = configurations(SIDE**2).numpy()
    grid = spin.reshape(-1, SIDE, SIDE)
    bonds = sum((grid * np.roll(grid, 1, axis)).sum((1, 2)) for axis in (1, 2))
    statistic = np.stack([bonds, spin.sum(1)])
    rng = np.random.default_rng(seed)
    places = rng.uniform(WINDOW[0], WINDOW[1], (points, 2))

    def drawn(temperature: float, field: float) -> np.ndarray:
        weight = np.array([1.0, field]) @ statistic / temperature
        chance = np.exp(weight - weight.max())
        return rng.choice(len(spin), per_point, p=chance / chance.sum())

    states = [drawn(*place) for place in places]
    return spin[states].reshape(points, per_point, SIDE, SIDE), places


def page(rows: list[list[str]], seeds: int) -> str:
    """The Markdown page."""
    head = ["points", "samples at each", "error: median", "9 of 10", "largest", "stated: median"]
    head += ["error above twice the stated"]
    good = rows[CASES.index((4000, 16))]
    return f"""# The metric of 16 spins needs some 64,000 samples to be right to {good[2]}

Spins of {SIDE} x {SIDE} tori at temperatures in [3, 5] and fields in [0.1, 0.6], drawn from the
exact law, and their Fisher metric by `estimate_metric` as it is. Errors are norms of the difference
from the exact metric over its own, at {len(PLACES)} places in the window and with {seeds} seeds:
the median of all, what nine of ten keep below, and the largest.

{table(head, rows)}
The stated error is the spread of fits to halves of the samples, and far too small here: at four
places of ten the error is more than twice what is stated, with few samples as with many. All the
fits take polynomials of the parameters that are too plain, since no more of the curvature stands
out from chance, and what they leave out together is no spread. Do not rely on it: give more
samples, of an id by `--points` and `--per-point`, and see whether the metric stays.

Made by `python -m invariantzoo.figures.geometry_samples`.
"""


if __name__ == "__main__":
    main()
