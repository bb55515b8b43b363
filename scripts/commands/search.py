"""Search hyper-parameters of an algorithm for an id, in trainings that Optuna chooses."""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from invariantzoo import options
from invariantzoo.progress import LINE_SECONDS, progress, say
from invariantzoo.signals import Interruptions

if TYPE_CHECKING:
    from invariantzoo.training.benchmark.hyperparameter_search import Search, Trial

_POLL = 0.5  # seconds between looks at processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `search` takes."""
    parser.add_argument("id", metavar="ID", help="see `list`")
    parser.add_argument(
        "--algo",
        type=str.lower,
        default="ppo",
        metavar="NAME",
        help="an algorithm of `train` (default: ppo)",
    )
    parser.add_argument(
        "--trials",
        type=options.count,
        default=20,
        metavar="N",
        help="how many there shall be, those of before counted (default: 20)",
    )
    parser.add_argument(
        "--steps",
        type=options.count,
        metavar="N",
        help="agent-steps of a training (default: what suits the id)",
    )
    parser.add_argument(
        "--seeds", type=options.count, default=1, metavar="S", help="trainings of a trial"
    )
    parser.add_argument(
        "--episodes",
        type=options.count,
        default=20,
        metavar="E",
        help="that a training is scored by (default: 20)",
    )
    parser.add_argument(
        "--jobs", type=options.count, default=1, metavar="N", help="processes (default: 1)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the search (default: runs/search-ID-ALGO)",
    )
    options.add_settings(
        parser, "a parameter of the system, or a hyper-parameter that is not to be searched"
    )
    parser.epilog = (
        "The same command goes on with a search that was stopped or killed, and several at once "
        "share its trials. Trainings and scores have seeds of their own."
    )


def run(args: argparse.Namespace) -> int:
    """Make the trials that are missing, and print the best settings."""
    import invariantzoo
    from invariantzoo.commands.train import sorted_settings
    from invariantzoo.envs.core.extras import require_extra
    from invariantzoo.envs.core.validation import require_choice
    from invariantzoo.training.benchmark import hyperparameter_search as searches
    from invariantzoo.training.rl.algorithms import default_steps
    from invariantzoo.training.rl.hyperparameters import ALGORITHMS

    id = invariantzoo.spec(args.id).id
    require_choice("--algo", args.algo, ALGORITHMS)
    require_extra("optuna", "search", "Optuna")
    folder = args.out or Path("runs") / f"search-{id}-{args.algo}"
    options.require_output_folder("--out", folder)
    parameters, fixed = sorted_settings(args.id, args.algo, args.set)
    search = searches.Search(
        args.id,
        args.algo,
        steps=args.steps or default_steps(args.id, args.algo),
        seeds=args.seeds,
        episodes=args.episodes,
        seed=args.seed,
        parameters=parameters,
        fixed=fixed,
    )
    searches.require_possible(search)
    searches.begin(folder, search)
    done = sum(trial.state != "running" for trial in searches.read_trials(folder))
    say(f"{id}, {args.algo}: {args.trials} trials of {search.steps:,} agent-steps, {done} done")
    with Interruptions("stopping after this update ...") as stop:
        if args.jobs == 1:
            _work(args, folder, search, stop)
        else:
            _spread(args, folder, search, stop)
    trials = searches.read_trials(folder)
    if stop.number is not None:
        say("stopped, and all is saved: the same command goes on")
    _print(args, folder, search, trials)
    if stop.number is not None:
        return 128 + stop.number
    return 0 if searches.best_trial(trials) else 1


def _work(args: argparse.Namespace, folder: Path, search: Search, stop: Interruptions) -> None:
    """Make trials in this process."""
    import torch

    from invariantzoo.training.benchmark.hyperparameter_search import work

    torch.set_num_threads(1)
    with progress(
        options.messages(),
        args.trials,
        name="trials",
        every=LINE_SECONDS,
        notice=lambda: stop.notice,
    ) as show:
        work(folder, search, args.trials, stopped=lambda: stop.number is not None, watch=show)


def _spread(args: argparse.Namespace, folder: Path, search: Search, stop: Interruptions) -> None:
    """Make trials in processes that share the journal; ValueError if one of them fails."""
    from invariantzoo.training.benchmark.engines import start_command
    from invariantzoo.training.benchmark.hyperparameter_search import read_trials

    words = ["search", search.id, "--algo", search.algo]
    for name in ("trials", "steps", "seeds", "episodes", "seed"):
        words += [f"--{name}", str(getattr(search, name, args.trials))]
    words += [f"--out={folder}", *(word for text in args.set for word in ("--set", text))]
    logs = [folder / f"worker-{number}.log" for number in range(args.jobs)]
    processes = [start_command(words, log) for log in logs]
    try:
        with progress(options.messages(), args.trials, name="trials", every=LINE_SECONDS) as show:
            while stop.number is None and any(process.poll() is None for process in processes):
                time.sleep(_POLL)
                show(sum(trial.state != "running" for trial in read_trials(folder)))
    finally:
        if stop.number is not None:
            for process in processes:
                process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait()
    unfinished = sum(trial.state != "running" for trial in read_trials(folder)) < args.trials
    for process, log in zip(processes, logs, strict=True):
        fine = (0,) if unfinished else (0, 1)  # 1: no trial is complete, or an error
        if stop.number is None and process.returncode not in fine:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")
            raise ValueError(f"a process ended with code {process.returncode}: {lines[-1]}")


def _print(args: argparse.Namespace, folder: Path, search: Search, trials: list[Trial]) -> None:
    """The trials, best first, and the best settings as a literal."""
    from invariantzoo.tables import number, print_table
    from invariantzoo.training.benchmark.hyperparameter_search import (
        best_trial,
        is_present,
        registered,
    )

    best = best_trial(trials)
    literal = {} if best is None else {search.algo: registered(search, best.settings)}
    if args.json:
        report = {
            "id": search.id,
            "algo": search.algo,
            "out": str(folder),
            "steps": search.steps,
            "trials": [trial._asdict() for trial in trials],
            "best": None if best is None else best._asdict(),
            "training": literal,
        }
        options.print_json(args, report)
        return
    names = list(search.space())
    order = sorted(trials, key=lambda t: (t.state != "complete", -(t.value or 0), t.number))
    print_table(
        options.console(args),
        f"{search.id}, {search.algo}",
        ["trial", "return", "", *names],
        [
            [
                str(trial.number) + " (now)" * is_present(search, trial.settings),
                "" if trial.value is None else number(trial.value),
                "" if trial.state == "complete" else trial.reason or trial.state,
                *(str(trial.settings.get(name, "")) for name in names),
            ]
            for trial in order
        ],
        caption="Mean returns of trained policies, higher is better; of a trial that was pruned, "
        "that when it was. (now): the settings that the id has now.",
    )
    if best is None:
        print("no trial is complete yet")
        return
    if is_present(search, best.settings):
        print("no trial was better than the settings of now:")
    print(f'"training": {_literal(literal)}')


def _literal(value: object) -> str:
    """As the system's file would have it."""
    if isinstance(value, dict):
        return (
            f"{{{', '.join(f'{_literal(key)}: {_literal(item)}' for key, item in value.items())}}}"
        )
    return json.dumps(value) if isinstance(value, str) else repr(value)
