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
    parser.add_argument("--seeds", type=options.count, metavar="N", help="runs of each")
    parser.add_argument(
        "--steps", type=options.count, metavar="N", help="agent-steps of a run at most"
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
    import invariantzoo
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
    ids = _listed(args.ids) or suite.ids or _with_scales()
    for id in ids:
        results.scale(invariantzoo.spec(id).id)
    others = [_of_others(path) for path in args.against]
    planned, refused = units.plan(
        ids,
        _listed(args.algos) or suite.algos,
        _listed(args.optimizers),
        args.seeds or suite.seeds,
        most_steps=args.steps or suite.most_steps,
    )
    mine = engines.share_of_array(planned) if args.engine == "array" else planned
    left = units.left(mine, args.out)
    say(f"{len(planned)} runs, {len(left)} to do, in {args.out}")
    try:
        with obeying_termination():
            failed = _run_all(args, left)
    except KeyboardInterrupt as stop:
        say("stopped; every run has saved what it has: the same command goes on")
        return 143 if isinstance(stop, Terminated) else 130
    for unit, reason in failed:
        say(f"{unit.name} failed: {reason}")
    document = results.collect(planned, refused, args.out, suite=args.suite)
    document["runs"] += [run for runs in others for run in runs]
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
    return 1 if failed else 0


def _run_all(args: argparse.Namespace, left: Sequence[Any]) -> list[Any]:
    from invariantzoo.training.benchmark import engines

    if not left:
        return []
    with progress(options.messages(), len(left), name="runs") as show:
        if args.engine == "ray":
            return engines.ray(left, args.out, watch=show)
        return engines.local(left, args.out, jobs=args.jobs, watch=show)


def _of_others(path: Path) -> list[dict[str, Any]]:
    """Runs of another's results, called after their file."""
    from invariantzoo.training.benchmark import results

    return [{**run, "of": path.stem} for run in results.read(path)["runs"]]


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in (text or "").replace(" ", "").split(",") if word))


def _with_scales() -> tuple[str, ...]:
    import invariantzoo

    return tuple(id for id in invariantzoo.ids() if invariantzoo.spec(id).score is not None)
