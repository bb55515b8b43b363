"""Score trained runs, or policies by name, on held-out seeds.

A metric's mean, standard error, interquartile mean (without the lowest and the highest quarter) and
the 95 % bootstrap interval of the latter are over episodes. Several runs of one id and algorithm
are also put together: there every run counts as one number, its mean, and the interval is over
training seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from invariantzoo import options
from invariantzoo.progress import progress, say

if TYPE_CHECKING:
    from rich.console import Console

    from invariantzoo.agents.policy import Policy
    from invariantzoo.envs.core.system import System
    from invariantzoo.training.rl.score import Summary


class Entry(NamedTuple):
    """What is scored: a policy on a system; `algo` trained it, or is empty for one by name.

    settings: of its training and of the system, as JSON: what several runs must share.
    seed: of its training, in which they must differ.
    """

    id: str
    name: str
    system: System
    policy: Policy
    algo: str
    settings: str = ""
    seed: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `evaluate` takes."""
    parser.add_argument("target", nargs="+", metavar="RUN_OR_ID", help="run folders, or ids")
    parser.add_argument(
        "--policy", metavar="NAME_OR_RUN", help="who acts; needed for an id (see `list --json`)"
    )
    options.add_settings(
        parser, "a parameter of the system, or the device on which a trained policy computes"
    )
    parser.add_argument(
        "--episodes", type=options.count, default=100, metavar="E", help="per seed (default: 100)"
    )
    parser.add_argument(
        "--seeds", type=options.count, default=5, metavar="S", help="how many (default: 5)"
    )
    options.add_deterministic(parser)
    options.add_trust(parser)


def run(args: argparse.Namespace) -> int:
    """Score every target and print the summaries."""
    import invariantzoo

    for target in args.target:
        if not options.is_run(target):
            invariantzoo.spec(target)  # the module that it names is imported before runs are read
    options.require_runs(*args.target, args.policy)
    import torch

    from invariantzoo.training.rl.score import (
        evaluate,
        over_runs,
        require_memory_of_scores,
        summarise,
    )

    torch.set_num_threads(1)
    entries = [_entry(target, args) for target in args.target]
    for entry in entries:
        require_memory_of_scores(entry.system, episodes=args.episodes, seeds=args.seeds)
    log, seed_scores = options.messages(), []
    for entry in entries:
        steps = f"{entry.system.horizon:,} steps"
        say(f"{entry.id}, {entry.name}: {args.seeds} x {args.episodes} episodes of {steps}")
        sampled = not entry.algo or (
            entry.system.stochastic if args.deterministic is None else not args.deterministic
        )
        with progress(log, 1, name="scoring") as show:
            seed_scores.append(
                evaluate(
                    entry.system,
                    entry.policy,
                    episodes=args.episodes,
                    seeds=args.seeds,
                    deterministic=not sampled,
                    first_seed=args.seed,
                    watch=show,
                )
            )
    reports: list[dict[str, Any]] = [
        {"id": entry.id, "policy": entry.name, "metrics": summarise(scores)}
        for entry, scores in zip(entries, seed_scores, strict=True)
    ]
    for entry, report in zip(entries, reports, strict=True):
        if exact := _exact(entry):
            report["exact"] = exact
    groups = _groups(entries)
    together = {id: over_runs([seed_scores[i] for i in rows]) for id, rows in groups.items()}
    if args.json:
        several = {"runs": reports, "metrics": together}
        options.print_json(args, reports[0] if len(reports) == 1 else several)
        return 0
    console = options.console(args)
    for report in reports:
        _print(console, f"{report['id']}, {report['policy']}", report["metrics"], "seed")
        for name, value in report.get("exact", {}).items():
            console.print(f"{name} of the policy's own stationary law: {value:.6g}")
    for id, metrics in together.items():
        _print(console, f"{id}, over {len(groups[id])} runs", metrics, "run")
    return 0


def _exact(entry: Entry) -> dict[str, float]:
    """What the system knows of the policy without simulation."""
    import torch

    probabilities = getattr(entry.policy, "probabilities", None)
    with torch.no_grad():
        return {} if probabilities is None else entry.system.exact_evaluation(probabilities)


def _groups(entries: list[Entry]) -> dict[str, list[int]]:
    """Places of the runs of every id that has several, all of the same algorithm and settings."""
    groups: dict[str, list[int]] = {}
    for i, entry in enumerate(entries):
        if entry.algo:
            groups.setdefault(entry.id, []).append(i)
    for id in [id for id, rows in groups.items() if len(rows) == 1]:
        del groups[id]
    for id in list(groups):
        algos = sorted({entries[i].algo for i in groups[id]})
        if len(algos) > 1:
            say(f"runs of {id} by {', '.join(algos)} are not put together")
            del groups[id]
        elif len({Path(entries[i].name).resolve() for i in groups[id]}) < len(groups[id]):
            say(f"runs of {id} are not put together: one of them is given twice")
            del groups[id]
        elif len({entries[i].seed for i in groups[id]}) < len(groups[id]):
            say(f"runs of {id} are not put together: some have the same --seed")
            del groups[id]
        elif len({entries[i].settings for i in groups[id]}) > 1:
            say(f"runs of {id} with other settings, steps or parameters are not put together")
            del groups[id]
    return groups


def _entry(target: str, args: argparse.Namespace) -> Entry:
    """Everything that can be wrong with a target is found here."""
    import invariantzoo
    from invariantzoo.agents.policy import policy_names
    from invariantzoo.envs.core.observation import parameter_values
    from invariantzoo.training.runs.run import read_config

    settings = options.parse_settings(args.set)
    device = options.device_of(settings)
    if options.is_run(target):
        run = options.read_run(target, trust=args.trust)
        id, system = run.id, run.system_with(settings)
        name = args.policy or target
    else:
        id, run = invariantzoo.spec(target).id, None
        if args.policy is not None and options.is_run(args.policy):
            run = options.read_run(args.policy, trust=args.trust)
        if run is not None and run.id == id:
            system = run.system_with(settings)
        else:
            system = invariantzoo.make_system(target, **settings)
        if args.policy is None:
            known = ", ".join(policy_names(system))
            raise ValueError(f"say which --policy acts in {id}: {known}, or a run folder")
        name = args.policy
    policy = options.load_policy(name, system, trust=args.trust, device=device)
    if not options.is_run(name):
        return Entry(id, name, system, policy, "")
    config = read_config(Path(name))
    hyper = {**config["hyperparameters"], "device": None}
    made = [hyper, config["steps"], config.get("curriculum"), parameter_values(system)]
    settings_of_run = json.dumps(made, sort_keys=True)
    return Entry(id, name, system, policy, config["algo"], settings_of_run, config["seed"])


def _print(console: Console, title: str, metrics: dict[str, Summary], each: str) -> None:
    """A table of summaries; `each` names what `per_seed` is one number of."""
    from invariantzoo.tables import number, print_table

    head = ["metric", "mean", "standard\nerror", "interquartile\nmean", "its 95 %\ninterval"]
    rows = []
    for name, summary in metrics.items():
        low, high = summary["ci95"]
        interval = f"{number(low)} to {number(high)}" if low <= high else number(low)
        row = [name, number(summary["mean"]), number(summary["se"], 2), number(summary["iqm"])]
        rows.append([*row, interval, "  ".join(map(number, summary["per_seed"]))])
    print_table(console, title, [*head, f"mean of each {each}"], rows)
