"""PPO with a critic that sees all agents (`mappo`) beside PPO, on two ids.

    python -m invariantzoo.figures.mappo [--out docs] [--runs runs/mappo] [--seeds 5]

Trains what is missing in --runs, as `invariantzoo benchmark` does, and writes results/mappo.json,
mappo.md and images/mappo.png.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import (
    TEXT_SIZE,
    figure_parser,
    page_figure,
    page_legend,
    recorded,
    save_figure,
    table,
    write_text,
)

IDS = {
    "particles-crowd-v0": "24 agents that cross each other's way",
    "particles-encounter-v0": "two agents that meet head-on",
}
ALGORITHMS = ("ppo", "mappo")
STEPS = 400_000
LINES = {"running_loss": ":", "loss": "-"}  # columns of progress.csv
_POINTS = 60  # of a curve
_PAGE = """# A critic that sees all agents

Multi-agent PPO (Yu et al. 2022, arXiv 2103.01955) is PPO whose critic sees what all agents see,
while each agent acts on its own invariants. Here `--algo mappo` embeds every agent, and values an
agent by its own embedding and the mean of all, so that the numbering of agents does not matter.
All else, settings too, is that of `ppo`: {steps:,} agent-steps a run, {seeds} seeds, and scores as
[benchmarks](benchmark.md) have them (0: random actions, 1: the best policy that is known).
Intervals are 95 % bootstrap intervals of the mean over runs.

{scores}
![Loss while training](images/mappo.png)

Lines are means over runs, thin ones runs. Dotted, before the first episode of every world has
ended, are losses of an update's own steps; drawn through, of as many steps as an episode has.

{verdict}

    python -m invariantzoo.figures.mappo

trains and draws all of it.
"""


def runs_of(folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Scores and losses of all runs, trained if they are not there."""
    from invariantzoo.training.benchmark import engines, results, units
    from invariantzoo.training.runs.folder import read_progress

    planned = [
        units.Unit(id, algo, "adam", seed, STEPS)
        for id in IDS
        for algo in ALGORITHMS
        for seed in range(seeds)
    ]
    for failed in engines.local(units.left(planned, folder), folder, jobs=1):
        raise RuntimeError(f"{failed.unit.name} failed: {failed.reason}")
    rows = results.collect(planned, {}, folder, suite="mappo")["runs"]
    for row in rows:
        unit = units.Unit(row["id"], row["algo"], "adam", row["seed"], STEPS)
        progress = read_progress(folder / unit.name)
        for column in LINES:
            those = [(step["steps"], step[column]) for step in progress if column in step]
            few = min(_POINTS, len(those))
            chosen = np.linspace(0, len(those) - 1, few).round().astype(int)
            row[column] = [[steps, round(loss, 5)] for steps, loss in (those[m] for m in chosen)]
        del row["curve"]
    return rows


def scores(runs: list[dict[str, Any]]) -> str:
    """A table of scores and CPU seconds."""
    from invariantzoo.training.benchmark.scoring import mean_interval

    rows = []
    for id in IDS:
        for algo in ALGORITHMS:
            those = [run for run in runs if (run["id"], run["algo"]) == (id, algo)]
            value = np.array([run["score"] for run in those])
            low, high = mean_interval(value)
            seconds = np.mean([run["cpu_seconds"] for run in those])
            score = f"{value.mean():.3f} [{low:.3f}, {high:.3f}]"
            rows.append([f"`{id}`", algo, score, f"{seconds:.1f}"])
    return table(["id", "algorithm", "score", "CPU s of a run"], rows)


def verdict(runs: list[dict[str, Any]]) -> str:
    """What can be said: on each id whether the intervals of the two differ, and the cost."""
    from invariantzoo.training.benchmark.scoring import probability_of_improvement

    said = []
    for id, what in IDS.items():
        values = {
            algo: {id: np.array([r["score"] for r in runs if (r["id"], r["algo"]) == (id, algo)])}
            for algo in ALGORITHMS
        }
        chance = probability_of_improvement(values["mappo"], values["ppo"])
        low, high = chance["ci95"]
        interval, known = "", "undecided"
        if low is not None:  # of single runs
            interval = f" [{low:.2f}, {high:.2f}]"
            known = "undecided" if low < 0.5 < high else "decided"
        said.append(
            f"On `{id}` ({what}) a run of `mappo` is better\nthan one of `ppo` with chance "
            f"{chance['probability']:.2f}{interval}: {known} by these runs."
        )
    seconds = {
        algo: sum(run["cpu_seconds"] for run in runs if run["algo"] == algo) for algo in ALGORITHMS
    }
    more = seconds["mappo"] / seconds["ppo"] - 1
    said.append(f"In all `mappo` takes {100 * more:.0f} % more CPU time.")
    return "\n\n".join(said)


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Loss against agent-steps: every run thin, the mean of an algorithm thick."""
    from matplotlib.ticker import EngFormatter

    figure, axes = page_figure(1, len(IDS), 2.9)
    for axis, id in zip(axes.ravel(), IDS, strict=True):
        for place, algo in enumerate(ALGORITHMS):
            mine = [run for run in runs if (run["id"], run["algo"]) == (id, algo)]
            for column, style in LINES.items():
                those = [np.array(run[column]) for run in mine]
                look: dict[str, Any] = {"color": f"C{place}", "ls": style}
                for losses in those:
                    axis.plot(*losses.T, lw=0.6, alpha=0.4, **look)
                mean = np.mean([losses[:, 1] for losses in those], 0)
                label = algo if column == "loss" else None
                axis.plot(those[0][:, 0], mean, lw=1.8, label=label, **look)
        axis.set_yscale("log")
        axis.set_title(id)
        axis.set_xlabel("agent-steps")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0, 0].set_ylabel("loss per agent and step", fontsize=TEXT_SIZE)
    page_legend(figure, 2, axes[0, 0])
    save_figure(figure, path)


def main() -> None:
    """Train what is missing, and write the page and its picture."""
    parser = figure_parser(__doc__, out=Path("docs"), runs=Path("runs/mappo"), seeds=5)
    args = parser.parse_args()
    store = args.out / "results" / "mappo.json"
    runs = recorded(store, "runs", lambda: runs_of(args.runs, args.seeds))
    draw(runs, args.out / "images" / "mappo.png")
    text = _PAGE.format(
        steps=STEPS,
        seeds=len({run["seed"] for run in runs}),
        scores=scores(runs),
        verdict=verdict(runs),
    )
    write_text(args.out / "mappo.md", text)


if __name__ == "__main__":
    main()
