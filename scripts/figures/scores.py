"""What every policy scores on every id: built-in policies, and trained ones where there are runs.

    python -m invariantzoo.figures.scores [--out docs] [--runs docs/runs] [--episodes 100]
        [--seeds 5]

Writes scores.md, and results/scores.json with the tables that are done: a run that was interrupted
goes on, and an id is scored anew where its table there is deleted. Run folders are looked for below
`--runs`; runs of one id and algorithm are one row, with the interval over training seeds.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import invariantzoo
from invariantzoo.report import figure_parser, recorded, table, write_text


def main() -> None:
    """Score everything, then print and write the page."""
    import torch

    args = figure_parser(
        __doc__, out=Path("docs"), runs=Path("docs/runs"), episodes=100, seeds=5
    ).parse_args()
    torch.set_num_threads(1)
    runs = _runs(args.runs)
    store = args.out / "results" / "scores.json"
    parts = [
        (id, recorded(store, id, partial(_section, id, runs, args.episodes, args.seeds)))
        for id in invariantzoo.ids()
    ]
    page = _page(parts, args.episodes, args.seeds)
    print(page)
    write_text(args.out / "scores.md", page)


def _runs(folder: Path) -> dict[str, dict[str, list[Any]]]:
    """Runs below a folder, by id and algorithm."""
    from invariantzoo.training.runs.run import load_run

    runs: dict[str, dict[str, list[Any]]] = {}
    for config in sorted(folder.glob("**/config.json")):
        run = load_run(config.parent)
        algorithms = runs.setdefault(run.config["id"], {})
        algorithms.setdefault(run.config["algo"], []).append(run)
    return runs


def _section(id: str, runs: dict[str, dict[str, list[Any]]], episodes: int, seeds: int) -> str:
    """The table of an id."""
    from invariantzoo.agents.policy import make_policy, policy_names
    from invariantzoo.training.rl.score import evaluate, over_runs, summarise

    system = invariantzoo.make_system(id)
    names = ["return", "loss", *system.reductions]
    rows: list[list[str]] = []
    for name in policy_names(system):
        policy = make_policy(name, system)
        # Built-in policies are as random as they are meant to be.
        scores = evaluate(system, policy, episodes=episodes, seeds=seeds, deterministic=False)
        rows.append([name, *_cells(summarise(scores), names)])
    for algo, group in runs.get(id, {}).items():
        seed_scores = [
            evaluate(
                run.system,
                run.policy,
                episodes=episodes,
                seeds=seeds,
                deterministic=not run.system.stochastic,
            )
            for run in group
        ]
        summary = over_runs(seed_scores) if len(seed_scores) > 1 else summarise(seed_scores[0])
        counted = f"{len(seed_scores)} runs" if len(seed_scores) > 1 else "1 run"
        rows.append([f"{algo}, {counted}", *_cells(summary, names)])
    exact = system.references()
    if exact:
        known = [f"{round(exact[n], 9) + 0.0:.4g}" if n in exact else "" for n in names]
        rows.append(["exact mean", *known])
    return table(["policy", *names], rows)


def _cells(summary: dict[str, Any], names: list[str]) -> list[str]:
    """Interquartile mean, its interval, and the mean below."""
    cells = []
    for name in names:
        metric = summary[name]
        low, high = metric["ci95"]
        cells.append(f"{metric['iqm']:.4g} [{low:.4g}, {high:.4g}]<br>{metric['mean']:.4g}")
    return cells


def _page(parts: list[tuple[str, str]], episodes: int, seeds: int) -> str:
    sections = "\n".join(f"## {id}\n\n{_readable(text)}" for id, text in parts)
    return f"""# Scores of every policy on every id

Every policy on every id, {seeds} held-out seeds of {episodes} whole episodes each, with default
parameters. A cell holds the interquartile mean of the episodes with its 95 % interval (percentile
bootstrap that draws episodes anew within each seed; over training seeds where several runs are put
together); a number alone is one whose interval has no width in the digits shown. The interquartile
mean leaves out the lowest and the highest quarter, so it does not see rare events such as a single
contact: the means below each table do. `return` is the sum of an episode's rewards per agent,
`loss` the mean loss per agent and step; the other columns are explained on the page of each id.
"exact mean" is known without simulation. Other result pages judge some of these policies in longer
or other episodes, and say in which: numbers of the two are not to be compared.

To reproduce: `python -m invariantzoo.figures.scores`; one line of it with `invariantzoo evaluate ID
--policy NAME --episodes {episodes} --seeds {seeds}`.

{sections}"""


def _readable(text: str) -> str:
    """A table with one number and interval in a cell, and the means in a table of their own."""
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.split("\n")]
    head, _, *body = [row for row in rows if len(row) > 1]
    first = [[_interval(cell.partition("<br>")[0]) for cell in row] for row in body]
    means = [[name, *(cell.rpartition("<br>")[2] for cell in cells)] for name, *cells in body]
    fold = f"<details><summary>Means</summary>\n\n{table(head, means)}\n</details>\n"
    return f"{table(head, first)}\n{fold}"


def _interval(cell: str) -> str:
    """A number and its interval; the number alone where both ends are the same number."""
    number, _, ends = cell.partition(" [")
    low, _, high = ends.rstrip("]").partition(", ")
    return number if low == high == number else cell


if __name__ == "__main__":
    main()
