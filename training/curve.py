"""The learning curve of a run as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ..envs.core.files import write_atomically

Scores = Mapping[str, Mapping[str, float]]  # policy -> metric -> mean
_WIDTH = 3.4  # inches of a panel


def draw_learning_curve(
    rows: list[dict[str, float]], path: Path, *, metrics: tuple[str, ...], scores: Scores
) -> None:
    """Loss and metrics over agent-steps, with the scores of other policies as lines.

    Training explores, so its curve may end away from what the finished policy scores: the first
    of `scores`, drawn through.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    names = [name for name in ("loss", *metrics) if any(name in row for row in rows)]
    columns = min(len(names), 2) or 1
    lines = math.ceil(len(names) / columns)
    size = (_WIDTH * columns + 1.4, 2.5 * lines)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        drawn = [(row["steps"], row[name]) for row in rows if name in row]
        panel.plot(*zip(*drawn, strict=True), color="black", linewidth=1.2, label="exploring")
        for i, (policy, means) in enumerate(scores.items()):
            style = "--" if i else "-"
            if name in means:
                panel.axhline(means[name], color=f"C{i}", linestyle=style, lw=1, label=policy)
        panel.set_title(name.replace("_", " "), fontsize=9)
        panel.set_xlabel("agent-steps", fontsize=8)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
        high = max(value for _, value in drawn)
        if name == "loss" and min(value for _, value in drawn) > 0 and high < math.inf:
            panel.set_yscale("log")
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7, frameon=False)
    write_atomically(path, lambda part: figure.savefig(part))
