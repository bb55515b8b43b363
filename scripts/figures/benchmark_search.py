"""The same search of settings for every id of the benchmark, and what it found.

    python -m invariantzoo.figures.benchmark_search --runs DIR [--algo ppo] [--ids ID …]
        [--trials 10] [--share 0.2] [--jobs 2] [--out docs]

Each id is searched by `invariantzoo search` with as many trials, each of a share of the
agent-steps of the benchmark, on seeds from 10,000 on. The optimizer is Adam, and what decides the
cost of a gradient step (`COSTS`) stays as the id has it. What is found was chosen by few episodes
of short trainings: where its score is better by more than CANDIDATE, it is trained with at full
length on two seeds that no benchmark has, beside the runs of results/benchmark.json, which have the
settings of now. DIR holds a folder a search and a run, and the same command goes on with those that
were stopped. Results go to results/benchmark-search.json, which the page of the benchmark shows.
What is there is not searched again: settings may have followed it, and be those of then no more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from invariantzoo.report import json_text, write_text

RECORD = "benchmark-search.json"
COSTS = ("batch_size", "gradient_steps", "n_epochs", "train_freq")
CANDIDATE = 0.02  # of score
SEEDS = (20, 21)
EPISODES = 5, 20  # of a score, least and most: between them, half the agent-steps of a training


def main() -> None:
    """Search what has not been, print and write what was found."""
    from invariantzoo import ids, spec
    from invariantzoo.training.benchmark.units import standard_steps

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--algo", default="ppo")
    parser.add_argument("--ids", nargs="+", metavar="ID")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()

    record = json.loads((args.out / "results/benchmark.json").read_text(encoding="utf-8"))

    def search(id: str) -> tuple[str, dict[str, Any]]:
        steps = round(args.share * standard_steps(id, args.algo))
        cell = searched(id, args.algo, steps, args.trials, args.runs)
        if cell["present"] is None or cell["best"] > cell["present"] + CANDIDATE:
            cell["published"] = published(record, id, args.algo)
            cell["full"] = full_length(id, args.algo, cell["found"], args.runs)
        return id, cell

    path = args.out / "results" / RECORD
    cells = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    wanted = args.ids or [id for id in ids() if spec(id).score is not None]
    chosen = [id for id in wanted if f"{id}, {args.algo}" not in cells]
    with ThreadPoolExecutor(args.jobs) as pool:
        for id, cell in pool.map(search, chosen):
            print(id, args.algo, cell, flush=True)
            cells[f"{id}, {args.algo}"] = cell
            write_text(path, json_text(cells))


def searched(id: str, algo: str, steps: int, trials: int, folder: Path) -> dict[str, Any]:
    """A search by the command, and its end: scores of the present settings and of the best."""
    from invariantzoo import make_system
    from invariantzoo.training.rl.algorithms import make_config

    system = make_system(id)
    as_training = steps // 2 // (system.horizon * system.n_agents)
    episodes = min(max(as_training, EPISODES[0]), EPISODES[1])
    present = make_config(id, algo, {"optimizer": "adam"})
    fixed = {name: getattr(present, name) for name in COSTS if hasattr(present, name)}
    out = folder / f"{id}-{algo}"
    words = ["search", id, "--algo", algo, "--trials", str(trials), "--steps", str(steps)]
    words += ["--episodes", str(episodes)]
    words += ["--set", "optimizer=adam", "--json", f"--out={out}"]
    words += [w for name, value in fixed.items() for w in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "invariantzoo", *words]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return summary(json.loads(ended.stdout), present)


def summary(report: dict[str, Any], present: Any) -> dict[str, Any]:
    """What a search found, of what the command reports: scores, and settings that differ."""
    from invariantzoo.training.benchmark.results import scale

    trials, best = report["trials"], report["best"]
    score = scale(report["id"]).score
    now = trials[0]["value"] if trials[0]["state"] == "complete" else None
    return {
        "steps": report["steps"],
        "trials": len(trials),
        "pruned": sum(trial["state"] == "pruned" for trial in trials),
        "failed": sum(trial["state"] == "failed" for trial in trials),
        "present": None if now is None else round(float(score(now)), 4),
        "best": round(float(score(best["value"])), 4),
        "found": {
            name: value
            for name, value in best["settings"].items()
            if value != getattr(present, name)
        },
    }


def published(record: dict[str, Any], id: str, algo: str) -> list[float]:
    """Scores of the record's runs with Adam, by seed."""
    kind = (id, algo, "adam")
    runs = [run for run in record["runs"] if (run["id"], run["algo"], run["optimizer"]) == kind]
    return [round(run["score"], 4) for run in sorted(runs, key=lambda run: run["seed"])]


def full_length(id: str, algo: str, found: dict[str, Any], folder: Path) -> list[float]:
    """Scores of trainings with what was found, of the steps of the benchmark, on `SEEDS`."""
    from invariantzoo.training.benchmark.results import scale
    from invariantzoo.training.benchmark.units import read_report, standard_steps

    scores = []
    for seed in SEEDS:
        out = folder / f"{id}-{algo}-full-{seed}"
        words = ["train", id, "--algo", algo, "--steps", str(standard_steps(id, algo))]
        words += ["--seed", str(seed), "--optimizer", "adam", "--no-baselines", "--no-film"]
        words += [f"--out={out}", *(["--resume"] if (out / "config.json").exists() else [])]
        words += [w for name, value in found.items() for w in ("--set", f"{name}={value}")]
        if not (out / "scores.json").exists():
            command = [sys.executable, "-m", "invariantzoo", *words]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        report = read_report(out)["scores"]["trained"]["return"]["mean"]
        scores.append(round(float(scale(id).score(report)), 4))
    return scores


if __name__ == "__main__":
    main()
