"""A benchmark's page and its three pictures: scores by id, profiles, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import save_figure, table, write_text
from invariantzoo.training.benchmark import results, scoring
from invariantzoo.training.runs.folder import write_json

PAGE, RESULTS = "benchmark.md", "benchmark.json"
PICTURES = {"scores.png": "Scores by id", "profiles.png": "Profiles", "curves.png": "Curves"}
FILES = (RESULTS, PAGE, *PICTURES)
_SHARES = 40  # points of curves


def write(document: dict[str, Any], folder: Path) -> None:
    """Write the results, the page and its pictures to a folder."""
    write_json(folder / RESULTS, document)
    write_text(folder / PAGE, page(document))
    if document["runs"]:
        _draw(document, folder)


def written(document: dict[str, Any]) -> tuple[str, ...]:
    """Names of the files that `write` writes."""
    return FILES if document["runs"] else (RESULTS, PAGE)


def page(document: dict[str, Any]) -> str:
    """The page as Markdown."""
    groups = results.by_label(document["runs"])
    labels = list(groups)
    lines = [
        "# Benchmark",
        "",
        "A score of 0 is the mean return of random actions, a score of 1 that of the best policy",
        "that is known, or that there can be. Cells hold the mean over runs and its 95 % interval;",
        "one run has none. A dash stands for what cannot be trained in that way, or was not.",
        "",
        table(
            ["id", *map(_cell_text, labels), "0", "1", "score 1 is"],
            [_row(id, groups, document["scales"]) for id in document["scales"]],
        ),
        "## All ids together",
        "",
        "Interquartile mean over all runs, with its 95 % interval: runs are drawn anew within ids,",
        "of which each then needs two. Intervals of few runs are too narrow.",
        "Algorithms that cannot train every id are put together over fewer ids.",
        "",
        table(
            ["algorithm", "interquartile mean", "runs", "ids"],
            [
                [
                    _cell_text(name),
                    _interval(of["iqm"], of["ci95"]),
                    str(of["runs"]),
                    str(of["ids"]),
                ]
                for name, of in document["aggregates"].items()
            ],
        ),
        "## Chance that a run of the first is better than one of the second, on the same id",
        "",
        table(
            ["", *map(_cell_text, labels)],
            [
                [
                    _cell_text(one),
                    *(_chance(document["improvement"][one], other) for other in labels),
                ]
                for one in labels
            ],
        ),
    ]
    if document["runs"]:
        for name, title in PICTURES.items():
            lines += [f"![{title}]({name})", ""]
    return "\n".join(lines)


def _row(id: str, groups: dict[str, dict[str, np.ndarray]], scales: dict[str, Any]) -> list[str]:
    cells = [_cell(group.get(id)) for group in groups.values()]
    scale = scales[id]
    kind = "exact" if scale["exact"] else "best known"
    return [
        id,
        *cells,
        f"{scale['random']:.4g}",
        f"{scale['best']:.4g}",
        _cell_text(f"`{scale['policy']}`, {kind}: {scale['origin']}"),
    ]


def _cell(values: np.ndarray | None) -> str:
    if values is None:
        return "-"
    few = len(values) < 2
    return _interval(float(values.mean()), (None, None) if few else scoring.mean_interval(values))


def _cell_text(text: str) -> str:
    return text.replace("|", "\\|")


def _legend_text(label: str) -> str:
    """As matplotlib shows it: no formula, and never hidden, as what begins with _ is."""
    return f" {label}".replace("$", r"\$") if label[:1] == "_" else label.replace("$", r"\$")


def _interval(value: float | None, ci95: Sequence[float | None]) -> str:
    low, high = ci95
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _chance(row: dict[str, Any], other: str) -> str:
    of = row.get(other)
    return _interval(of["probability"], of["ci95"]) if of else ""


def _draw(document: dict[str, Any], folder: Path) -> None:
    """Paint the three pictures."""
    from matplotlib.figure import Figure

    groups = results.by_label(document["runs"])
    ids = list(document["scales"])
    figure = Figure(figsize=(8, 0.5 * len(ids) + 1.5), layout="constrained")
    axes = figure.subplots()
    for m, (name, group) in enumerate(groups.items()):
        here = [id for id in ids if id in group]
        means = np.array([group[id].mean() for id in here])
        bounds = np.array([scoring.mean_interval(group[id]) for id in here]).reshape(-1, 2)
        height = np.array([ids.index(id) for id in here]) + 0.12 * (m - len(groups) / 2)
        error = np.abs(bounds - means[:, None]).T
        axes.errorbar(means, height, xerr=error, fmt="o", markersize=4, label=_legend_text(name))
    axes.set_yticks(range(len(ids)), ids)
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set_xlabel("score: 0 random, 1 best known")
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    save_figure(figure, folder / "scores.png")

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, group in groups.items():
        profile = scoring.profile(group)
        axes.plot(scoring.LEVELS, profile["share"], label=_legend_text(name))
        if profile["low"]:
            axes.fill_between(scoring.LEVELS, profile["low"], profile["high"], alpha=0.2)
    axes.set_xlabel("score")
    axes.set_ylabel("share of runs above it")
    axes.legend(fontsize=8)
    save_figure(figure, folder / "profiles.png")

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, column, what in zip(
        figure.subplots(1, 2, sharey=True),
        (0, 1),
        ("share of agent-steps", "CPU seconds"),
        strict=True,
    ):
        for name in groups:
            runs = [run for run in document["runs"] if results.label(run) == name]
            x, y = _mean_curve(runs, column)
            axes.plot(x, y, label=_legend_text(name))
        axes.set_xlabel(what)
        axes.set_ylabel("score while training, mean over runs")
    axes.legend(fontsize=8)
    save_figure(figure, folder / "curves.png")


def _mean_curve(runs: list[dict[str, Any]], column: int) -> tuple[np.ndarray, list[float | None]]:
    """Mean score over runs against the share of their steps, or against seconds."""
    rows = []
    for run in runs:
        if run.get("curve"):
            whole = run["steps"] if column == 0 else 1.0
            points = [point for point in run["curve"] if point[column] is not None]
            rows.append([(point[column] / whole, point[2]) for point in points])
    if not all(rows) or not rows:
        return np.empty(0), []
    last = min(row[-1][0] for row in rows)
    shares = np.linspace(0, last, _SHARES + 1)[1:]
    return shares, scoring.curve(rows, shares)
