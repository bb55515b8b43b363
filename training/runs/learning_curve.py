"""The learning curve of a run as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ...envs.core.files import write_atomically

Scores = Mapping[str, Mapping[str, float]]  # policy -> metric -> mean
_WIDTH = 3.4  # inches of a panel
_FEW = 40  # points of a line that are marked
_BESIDE = {  # columns that are drawn with the loss, thinly: they are not of whole episodes
    "running_loss": "first episode, as it runs",
    "rollout_loss": "first steps, learned from",
}


def draw_learning_curve(
    rows: list[dict[str, float]],
    path: Path,
    *,
    metrics: tuple[str, ...],
    scores: Scores,
    exploring: bool,
) -> None:
    """Loss and metrics over agent-steps, with the scores of other policies as lines.

    All are of whole episodes, save what a thin grey line shows. exploring: whether actions were
    drawn in training and are not in the scores; its curve then ends away from what the finished
    policy scores: the first of `scores`, drawn through.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    training = "in training" + ", exploring" * exploring
    names = ["loss", *(name for name in metrics if any(name in row for row in rows))]
    columns = min(len(names), 2)
    lines = math.ceil(len(names) / columns)
    size = (_WIDTH * columns + 1.6, 2.5 * lines)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        heights = []
        beside = _BESIDE if name == "loss" else {}
        for column, label in {name: training, **beside}.items():
            drawn = [(row["steps"], row[column]) for row in rows if column in row]
            if not drawn:
                continue
            main = column == name
            panel.plot(
                *zip(*drawn, strict=True),
                color="black" if main else "0.6",
                linewidth=1.2 if main else 0.8,
                marker="." if len(drawn) < _FEW else "",
                label=label,
            )
            heights += [value for _, value in drawn]
        for i, (policy, means) in enumerate(scores.items()):
            style = "--" if i else "-"
            if name in means:
                panel.axhline(means[name], color=f"C{i}", linestyle=style, lw=1, label=policy)
                heights.append(means[name])
        panel.set_title(name.replace("_", " "), fontsize=9)
        panel.set_xlabel("agent-steps", fontsize=8)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.tick_params(which="both", labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
        if name == "loss" and heights and 0 < min(heights) and max(heights) < math.inf:
            panel.set_yscale("log")
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7, frameon=False)
    write_atomically(path, lambda part: figure.savefig(part))
