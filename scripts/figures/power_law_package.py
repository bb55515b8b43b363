"""Exponents of truncated power laws, by `fit_power_law` and by the package `powerlaw`.

    pip install powerlaw && python -m invariantzoo.figures.power_law_package [--seeds 5]

Samples have density x^-k between 1 and 100 exactly. Prints the table of docs/criticality.md.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.report import table

LOW, HIGH, N = 1.0, 100.0, 20_000
EXPONENTS = (0.5, 1.0, 1.5, 2.0, 2.5)


def truncated(k: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Samples [n] of density proportional to x^-k between `LOW` and `HIGH`, by their quantiles."""
    u = rng.random(n)
    if k == 1.0:
        return np.asarray(LOW * (HIGH / LOW) ** u)
    low, high = LOW ** (1 - k), HIGH ** (1 - k)
    return np.asarray((low + u * (high - low)) ** (1 / (1 - k)))


def by_package(samples: np.ndarray, high: float | None) -> float:
    """The exponent that the package gives, told the lower end, and the upper or not."""
    import powerlaw

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit: Any = powerlaw.Fit(samples, xmin=LOW, xmax=high, verbose=False)
        return float(fit.power_law.alpha)


def main() -> None:
    """Print the table, mean and standard error over seeds."""
    from invariantzoo.report import figure_parser

    seeds = figure_parser(__doc__, seeds=5).parse_args().seeds
    if importlib.util.find_spec("powerlaw") is None:
        raise SystemExit("powerlaw is not installed: pip install powerlaw")
    rows = []
    for k in EXPONENTS:
        fits = []
        for seed in range(seeds):
            samples = truncated(k, N, np.random.default_rng(seed))
            ours = invariantzoo.fit_power_law(samples, LOW, HIGH).exponent
            fits.append([ours, by_package(samples, HIGH), by_package(samples, None)])
        means, errors = np.mean(fits, 0), np.std(fits, 0, ddof=1) / seeds**0.5
        rows.append([f"{k}", *(f"{m:.3f} ± {e:.3f}" for m, e in zip(means, errors, strict=True))])
    print(table(["exact", "fit_power_law", "powerlaw, xmax given", "powerlaw, no xmax"], rows))


if __name__ == "__main__":
    main()
