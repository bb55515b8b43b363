"""The regimes of a learner's layers as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ...envs.core.files import write_atomically
from .regimes import REGIMES, Estimate, regime

_COLOURS = dict(zip(REGIMES, ("tab:blue", "tab:green", "tab:red"), strict=True))


def draw_regimes(found: Mapping[str, Estimate], path: Path, *, title: str = "") -> None:
    """Spectrum and slope of every part, and its exponent over the bands of the regimes.

    Left: variance of updates over variance of gradients, mode by mode, each axis over its
    geometric mean; lines are the slopes 1, 0 and -1 of the three regimes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 1.8 + 0.32 * max(len(found), 7)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    widest = 1.0
    for i, (name, estimate) in enumerate(found.items()):
        x, y = estimate.variances.log10(), estimate.powers.log10()
        x, y = x - x.mean(), y - y.mean()
        widest = max(widest, float(x.abs().max()))
        left.plot(x, y, "o", ms=3, c=f"C{i % 10}", alpha=0.8, label=name)
    for alpha, name in zip((0.0, 0.5, 1.0), REGIMES, strict=True):
        ends = [-widest, widest]
        line = [(1 - 2 * alpha) * end for end in ends]
        left.plot(ends, line, "--", lw=1, c=_COLOURS[name], label=name)
    left.set_xlabel("log10 variance of gradients (modes, centred)", fontsize=8)
    left.set_ylabel("log10 variance of updates (centred)", fontsize=8)
    left.legend(fontsize=6, frameon=False)
    for (low, high), name in zip(((-0.5, 0.25), (0.25, 0.75), (0.75, 1.5)), REGIMES, strict=True):
        right.axvspan(low, high, color=_COLOURS[name], alpha=0.12, lw=0)
        right.text((low + high) / 2, -0.9, name, ha="center", fontsize=8)
    for i, estimate in enumerate(found.values()):
        colour = _COLOURS.get(regime(estimate), "0.5")
        error = estimate.error if math.isfinite(estimate.error) else 0.0
        right.errorbar(estimate.alpha, i, xerr=2 * error, fmt="o", c=colour, capsize=2)
    right.set(xlim=(-0.5, 1.5), ylim=(len(found) - 0.4, -1.2), xlabel="alpha, two standard errors")
    right.set_yticks(range(len(found)), list(found), fontsize=7)
    for panel in (left, right):
        panel.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    write_atomically(path, lambda part: figure.savefig(part))
