"""Train many ids by many algorithms, and say how good each is, on scales from 0 to 1."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invariantzoo import options
from invariantzoo.progress import progress, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `benchmark` takes."""
    parser.add_argument("--suite", default="quick", metavar="NAME", help="quick or standard")
    parser.add_argument("--ids", metavar="ID,…", help="ids in place of the suite's")
    parser.add_argument("--algos", metavar="NAME,…", help="algorithms in place of the suite's")
    parser.add_argument("--optimizers", default="adam", metavar="NAME,…", help="adam, cgd or both")
    parser.add_argument(
        "--seeds", type=options.count, metavar="N", help="runs of each, with seeds from --seed on"
    )
    parser.add_argument(
        "--steps",
        type=options.count,
        metavar="N",
        help="agent-steps of a run at most, but for whole updates",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of all runs")
    parser.add_argument(
        "--engine",
        default="local",
        metavar="NAME",
        help="local, ray (a cluster), or array (a job of a scheduler's array)",
    )
    parser.add_argument(
        "--jobs", type=options.count, default=1, metavar="N", help="processes at a time, if local"
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="results to compare with",
    )


def run(args: argparse.Namespace) -> int:
    """Train what is not done, then write the results, a page and its pictures."""
    from invariantzoo import benchmark_page as page
    from invariantzoo.envs.core.files import write_together
    from invariantzoo.envs.core.validation import require_choice
    from invariantzoo.signals import Terminated, obeying_termination
    from invariantzoo.training.benchmark import engines, results, units

    require_choice("--suite", args.suite, units.SUITES)
    engines.require_engine(args.engine)
    options.require_output_folder("--out", args.out)
    options.require_own_files("--out", args.out, page.RESULTS, "schema", page.FILES)
    suite = units.SUITES[args.suite]
    ids = _distinct(_listed("--ids", args.ids)) or suite.ids or _with_scales()
    for id in ids:
        results.scale(id)
    others = _of_others(args.against)
    planned, refused = units.plan(
        ids,
        _listed("--algos", args.algos) or suite.algos,
        _listed("--optimizers", args.optimizers),
        args.seeds or suite.seeds,
        most_steps=args.steps or suite.most_steps,
        first_seed=args.seed,
    )
    mine = engines.share_of_array(planned) if args.engine == "array" else planned
    units.require_same_settings(planned, args.out)
    left = units.left(mine, args.out)
    say(f"{len(planned)} runs, {len(left)} to do, in {args.out}")
    try:
        with obeying_termination():
            failed = _run_all(args, left)
    except KeyboardInterrupt as stop:
        say("stopped; every run has saved what it has: the same command goes on")
        return 143 if isinstance(stop, Terminated) else 130
    whole, damaged = results.readable(planned, args.out)
    for unit, reason in [*failed, *damaged]:
        say(f"{unit.name} failed: {reason}")
    document = results.collect(whole, refused, args.out, suite=args.suite)
    for unit, run in zip(whole, document["runs"], strict=True):
        if 5 * run["steps"] > 6 * unit.steps and unit.seed == args.seed:
            say(
                f"{unit.id} by {unit.algo}: {run['steps']:,} agent-steps in place of "
                f"{unit.steps:,}, for an update has no fewer"
            )
    document["runs"] += others
    document |= results.summaries(document)
    document["scales"] |= {
        run["id"]: results.scale(run["id"])._asdict() for run in document["runs"]
    }
    write_together(args.out, lambda folder: page.write(document, folder))
    if args.json:
        options.print_json(args, document)
    else:
        print(page.page(document))
    say(f"wrote {', '.join(page.written(document))} in {args.out}")
    return 1 if failed or damaged else 0


def _run_all(args: argparse.Namespace, left: Sequence[Any]) -> list[Any]:
    from invariantzoo.training.benchmark import engines

    if not left:
        return []
    with progress(options.messages(), len(left), name="runs") as show:
        if args.engine == "ray":
            return engines.ray(left, args.out, watch=show)
        return engines.local(left, args.out, jobs=args.jobs, watch=show)


def _of_others(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Runs of others' results, called after their files: by the whole path where names are equal.

    Raises ValueError for a file that is given twice.
    """
    from invariantzoo.training.benchmark import results

    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("--against names one file twice")
    stems, runs = [path.stem for path in paths], []
    for path in paths:
        name = path.stem if stems.count(path.stem) == 1 else str(path)
        for run in results.read(path)["runs"]:
            runs.append({**run, "of": " ".join(filter(None, (name, run.get("of"))))})
    return runs


def _listed(option: str, text: str | None) -> tuple[str, ...]:
    """Words between commas; none where the option is not given, ValueError where it names none."""
    words = tuple(dict.fromkeys((text or "").replace(" ", "").split(",")))
    if text is not None and not all(words):
        raise ValueError(f"{option}={text!r} must be names between commas")
    return words if text is not None else ()


def _distinct(ids: Sequence[str]) -> tuple[str, ...]:
    """Each id once, with its module where one was given."""
    import invariantzoo

    return tuple(
        {invariantzoo.spec(id).id: id.removeprefix("invariantzoo/") for id in ids}.values()
    )


def _with_scales() -> tuple[str, ...]:
    import invariantzoo

    return tuple(id for id in invariantzoo.ids() if invariantzoo.spec(id).score is not None)
