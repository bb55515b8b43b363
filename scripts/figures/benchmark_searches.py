"""New settings for a poor cell of the published benchmark, beside those of its record.

    python -m invariantzoo.figures.benchmark_searches RUN … [--search DIR] [--out docs]

RUN are folders of trainings of one id and algorithm with new settings and the standard steps, on
seeds that no benchmark has; the record results/benchmark.json still holds runs with the former
settings. What differs, and the scores of both, are added to results/benchmark-searches.json, which
the page of the benchmark shows. DIR is the folder of `invariantzoo search`, if that found them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import json_text, write_text

RECORD = "benchmark-searches.json"


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--search", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    record = json.loads((args.out / "results/benchmark.json").read_text(encoding="utf-8"))
    name, entry = compared(args.runs, record, _trials(args.search))
    print(name, entry)
    path = args.out / "results" / RECORD
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_text(path, json_text({**entries, name: entry}))


def compared(
    runs: Sequence[Path], record: Mapping[str, Any], trials: int
) -> tuple[str, dict[str, Any]]:
    """The cell's name, and its scores with the settings of the record and of these runs.

    Raises ValueError for runs of several cells or settings, and for one that the record has not.
    """
    from invariantzoo.training.benchmark.results import scale
    from invariantzoo.training.benchmark.units import read_report
    from invariantzoo.training.runs.folder import read_config

    configs = [read_config(run) for run in runs]
    kinds = [(config["id"], config["algo"], _settings(config)) for config in configs]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError("the runs must have the same id, algorithm, settings and steps")
    id, algo, settings = kinds[0]

    def of_cell(row: Mapping[str, Any]) -> bool:
        return bool((row["id"], row["algo"], row["optimizer"]) == (id, algo, settings["optimizer"]))

    former = {run["seed"]: scale(id).score(run["return"]) for run in record["runs"] if of_cell(run)}
    if not former:
        raise ValueError(f"the record has no runs of {algo} on {id}")
    row = next(row for row in record["settings"] if of_cell(row))
    then = {**row["hyperparameters"], "steps": row["steps"]}
    found = [f"{name}={value}" for name, value in settings.items() if value != then.get(name)]
    scores = {
        config["seed"]: scale(id).score(read_report(run)["scores"]["trained"]["return"]["mean"])
        for config, run in zip(configs, runs, strict=True)
    }
    kept = np.mean(list(scores.values())) > np.mean(list(former.values()))
    return f"{id}, {algo}", {
        "trials": trials,
        "found": ", ".join(found),
        "before": _told(former),
        "after": _told(scores),
        "kept": "yes" if kept else "no",
    }


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that a run's result depends on but for its seed; its optimizer by name."""
    optimizer = config["optimizer"]["name"]
    return {**config["hyperparameters"], "optimizer": optimizer, "steps": config["steps"]}


def _told(scores: Mapping[int, float]) -> str:
    """The mean of scores by seed, their range, and the seeds."""
    values = np.array(list(scores.values()))
    seeds = ", ".join(map(str, sorted(scores)))
    if len(values) == 1:
        return f"{values[0]:.3f} (seed {seeds})"
    return f"{values.mean():.3f}, {values.min():.3f} to {values.max():.3f} (seeds {seeds})"


def _trials(search: Path | None) -> int:
    if search is None:
        return 0
    from invariantzoo.training.benchmark.hyperparameter_search import read_trials

    return len(read_trials(search))


if __name__ == "__main__":
    main()
