"""Densities of the gradients of single samples as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...envs.core.files import write_atomically
from .criticality import Verdict


def draw_criticality(verdicts: Mapping[str, Verdict], path: Path, *, title: str = "") -> None:
    """Log-log density of every part with the window of the fit and the fitted line."""
    from matplotlib.figure import Figure

    columns = min(3, max(len(verdicts), 1))
    rows = -(-max(len(verdicts), 1) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, verdict) in zip(axes, verdicts.items(), strict=False):
        _draw(axis, name, verdict)
    for axis in axes[len(verdicts) :]:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=10)
    write_atomically(path, lambda part: figure.savefig(part))


def _draw(axis: Any, name: str, verdict: Verdict) -> None:
    sizes = verdict.sizes.double().numpy()
    top = float(np.quantile(sizes, 0.999)) if len(sizes) else 1.0
    edges = top * 10.0 ** np.arange(-7, 1.01, 0.2)
    counts, _ = np.histogram(sizes, edges)
    density = counts / np.diff(edges) / max(len(sizes), 1)
    middle, seen = np.sqrt(edges[:-1] * edges[1:]), counts > 0
    axis.loglog(middle[seen], density[seen], ".", c="tab:blue", ms=4)
    law = verdict.law
    if law is not None and law.n:
        inside = (middle >= law.low) & (middle <= law.high) & seen
        if inside.any():
            level = np.exp(np.mean(np.log(density[inside] * middle[inside] ** law.exponent)))
            ends = np.array([law.low, law.high])
            colour = "tab:green" if law.is_power_law else "tab:red"
            axis.loglog(ends, level * ends**-law.exponent, "-", c=colour, lw=1.5)
            axis.axvspan(law.low, law.high, color="0.5", alpha=0.12, lw=0)
    axis.set_title(f"{name}\n{verdict.text}", fontsize=6)
    axis.tick_params(labelsize=6)
    axis.minorticks_off()  # a hundred of them in each part would take most of the time
