"""The Fisher metric of laws in closed form from samples, with many seeds.

    python -m invariantzoo.figures.geometry_laws [--root .]

Writes docs/geometry-laws.md and docs/results/geometry-laws.json.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.report import figure_parser, recorded, table, write_text

SEEDS, POINTS, PER_POINT = range(20), 4000, 8
LAWS = ("normal", "coins")
TEXT = """# The Fisher metric of two laws in closed form, twenty times over

`estimate_metric` with its defaults, of {points:,} points of {per_point} samples; nothing is told of
the law. `normal`: one number of a normal law, in mean [-1, 1] and scale [.5, 2], whose metric is
1 / scale^2 and 2 / scale^2. `coins`: two independent coins, in their chances [.1, .9], whose metric
is 1 / (p (1 - p)). Relative errors at 200 points inside the window (90 % of each side); scale is
the median ratio of the traces; the stated error is the median of `covariance_error` over the
metric, both as norms. Over {seeds} seeds of the samples and the fits, least, median and most:

{rows}
The stated error is the spread of four fits on halves of the points, so it knows of chance and not
of what all four have in common, such as degrees that are too low.

Made by `python -m invariantzoo.figures.geometry_laws`.
"""
COLUMNS = ("median", "largest", "scale", "stated", "cpu")


def main() -> None:
    """Draw, fit, compare, write."""
    import torch

    root = figure_parser(__doc__, root=Path(".")).parse_args().root
    torch.set_num_threads(1)
    path = root / "docs/results/geometry-laws.json"
    results = {
        law: [recorded(path, f"{law} {seed}", partial(measured, law, seed)) for seed in SEEDS]
        for law in LAWS
    }
    text = page(results)
    write_text(root / "docs/geometry-laws.md", text)
    print(text)


def page(results: dict[str, list[dict[str, float]]]) -> str:
    """The text with its table."""
    rows = []
    for law, runs in results.items():
        cells = []
        for name in COLUMNS:
            values = np.quantile([run[name] for run in runs], [0, 0.5, 1])
            form = ".1%" if name in ("median", "largest", "stated") else ".3f"
            form = ".1f" if name == "cpu" else form
            cells.append(" / ".join(f"{value:{form}}" for value in values))
        rows.append([law, *cells])
    names = ["law", "median error", "largest error", "scale", "stated error", "CPU s"]
    return TEXT.format(
        points=POINTS, per_point=PER_POINT, seeds=len(SEEDS), rows=table(names, rows)
    )


def drawn(law: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples [points, per point, numbers] and parameters [points, 2]."""
    rng = np.random.default_rng(seed)
    if law == "normal":
        t = rng.uniform([-1, 0.5], [1, 2], (POINTS, 2))
        return t[:, :1, None] + t[:, 1:, None] * rng.normal(size=(POINTS, PER_POINT, 1)), t
    t = rng.uniform(0.1, 0.9, (POINTS, 2))
    return (rng.uniform(size=(POINTS, PER_POINT, 2)) < t[:, None]).astype(float), t


def exact(law: str, points: np.ndarray) -> np.ndarray:
    """Metrics [m, 2, 2] at points [m, 2]."""
    if law == "normal":
        return np.diag([1.0, 2.0]) / points[:, 1, None, None] ** 2
    return np.eye(2) / (points * (1 - points))[:, None]


def measured(law: str, seed: int) -> dict[str, Any]:
    """Errors of one estimate, and CPU seconds."""
    samples, t = drawn(law, seed)
    start = time.process_time()
    metric = invariantzoo.estimate_metric(samples, t, seed=seed)
    cpu = time.process_time() - start
    low, high = (np.array([-0.9, 0.575]), np.array([0.9, 1.925]))
    if law == "coins":
        low, high = np.full(2, 0.14), np.full(2, 0.86)
    points = np.random.default_rng(1).uniform(low, high, (200, 2))
    value, true = metric(points), exact(law, points)
    norm = np.linalg.norm(true, axis=(1, 2))
    off = np.linalg.norm(value - true, axis=(1, 2)) / norm
    traces = np.trace(value, axis1=1, axis2=2) / np.trace(true, axis1=1, axis2=2)
    stated = np.linalg.norm(metric.covariance_error(points), axis=(1, 2)) / norm
    return {
        "median": float(np.median(off)),
        "largest": float(off.max()),
        "scale": float(np.median(traces)),
        "stated": float(np.median(stated)),
        "cpu": cpu,
    }


if __name__ == "__main__":
    main()
