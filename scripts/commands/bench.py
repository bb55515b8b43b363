"""Measure the speed of every interface, and of the peers that are installed.

Speeds are per CPU second of one thread: medians of repeats in which the sides take turns, so that
a ratio compares what was measured side by side in one run.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from invariantzoo import options
from invariantzoo.bench import (
    device,
    dirac,
    doors,
    fields,
    goals,
    interfaces,
    lattices,
    learning,
    molecules,
)
from invariantzoo.bench.measure import Case, Result, is_installed, measure
from invariantzoo.bench.process import NOT_IMPORTED, import_time, machine, memory, one_thread
from invariantzoo.report import table, write_text
from invariantzoo.tables import print_table

MEMORY = ((4096, 32), (1, 100_000))  # worlds, agents
HEADER = ("case", "ours", "peer", "its speed", "ratio", "at least", "met")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `bench` takes."""
    parser.add_argument(
        "--peers", action="store_true", help="measure mpe2, vmas and supersuit too, where installed"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short repeat, without what takes long"
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="measure torch on a device (cuda, cuda:1, …) beside the CPU instead, in 6 minutes at "
        "most; cpu tries it out",
    )
    parser.add_argument("--only", metavar="TEXT", help="only the cases whose names contain TEXT")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="write the tables to FILE in Markdown; with --only as a section of it, if it is there",
    )


def run(args: argparse.Namespace) -> int:
    """Measure everything and print it."""
    options.require_output_file("--write", args.write)
    one_thread()
    log = options.messages()
    if args.device is not None:
        return _run_on_device(args, log)
    named = [case for case in cases() if args.only is None or args.only in case.name]
    if not named:
        raise ValueError(f"--only {args.only!r} is in no case's name; see docs/speed.md for them")
    chosen = [case for case in named if not (case.slow and args.quick)]
    missing = sorted({name for case in chosen for name in case.needs if not is_installed(name)})
    if args.peers and missing:
        log.print(f"not installed, skipped: {', '.join(missing)}")
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        for case in chosen:
            log.print(f"measuring: {case.name}")
            results.append(measure(case, peers=args.peers, quick=args.quick))
    report: dict[str, Any] = {
        "machine": machine(),
        "cases": [result._asdict() for result in results],
        "import": import_time(repeats=1 if args.quick else 5),
        "memory": [memory(worlds, agents) for worlds, agents in MEMORY],
        "missing": missing if args.peers else [],
    }
    if args.json:
        options.print_json(args, report)
    else:
        console = options.console(args)
        print_table(console, "speed per CPU second", HEADER, [_row(result) for result in results])
        for line in _remarks(report):
            options.print_line(console, line)
    if args.write:
        if args.only and args.write.exists():
            before = args.write.read_text(encoding="utf-8")
            text = with_section(before, args.only, section(report, results))
        else:
            text = markdown(report, results)
        write_text(args.write, titled(text))
    return 0


def _run_on_device(args: argparse.Namespace, log: Console) -> int:
    """Measure a device beside the CPU and print it; a page gets a section of its own for it."""
    results, left = device.run(args.device, quick=args.quick, only=args.only, say=log.print)
    name = device.name_of(args.device)
    about = {**machine(), "device": name}
    if args.json:
        rows = [result._asdict() for result in results]
        options.print_json(args, {"machine": about, "cases": rows, "left_out": left})
    else:
        print_table(options.console(args), f"on {name}", HEADER, [_row(r) for r in results])
    for case in left:
        log.print(f"no time was left for: {case}")
    if args.write:
        page = args.write.read_text(encoding="utf-8") if args.write.exists() else "# Speed\n"
        text = "\n".join(
            [
                table(HEADER, map(_row, results)),
                f"{device.NOTE}\n",
                *(f"No time was left for: {case}.\n" for case in left),
                _machine({"machine": about}),
            ]
        )
        write_text(args.write, titled(with_section(page, "On a device", text)))
    return 0


def cases() -> Iterator[Case]:
    """Everything that is measured."""
    yield from interfaces.step_cases()
    yield from learning.ppo_cases()
    yield from interfaces.world_cases()
    yield from doors.cases()
    yield from learning.optimizer_cases()
    yield from lattices.ising_cases()
    yield from lattices.tasep_cases()
    yield from dirac.cases()
    yield from fields.cases()
    yield from molecules.cases()
    yield from goals.cases()
    yield from interfaces.id_cases()


def _row(result: Result) -> tuple[str, ...]:
    goals = []
    if result.at_least is not None:
        goals.append(f"{result.at_least:g}x")
    if result.floor is not None:
        goals.append(_speed(result.floor, result.unit))
    return (
        result.case,
        _speed(result.speed, result.unit),
        result.peer,
        "" if result.peer_speed is None else _speed(result.peer_speed, result.unit),
        "" if result.ratio is None else f"{result.ratio:.3g}x",
        ", ".join(goals),
        {None: "", True: "yes", False: "no"}[result.met],
    )


def _speed(value: float, unit: str) -> str:
    for size, prefix in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{prefix} {unit}"
    return f"{value:.3g} {unit}"


def _remarks(report: dict[str, Any]) -> list[str]:
    loaded = report["import"]
    names = ", ".join(NOT_IMPORTED)
    verdict = f"imported too: {', '.join(loaded['imported'])}" if loaded["imported"] else "not"
    lines = [
        f"`import invariantzoo`: {loaded['cpu_s']:.2f} CPU s (at most {loaded['at_most']}); "
        f"{names}: {verdict} imported"
    ]
    for row in report["memory"]:
        lines.append(
            f"peak memory, {row['worlds']} x {row['agents']:,}: {row['peak_mib']:.0f} MiB, "
            f"of which {row['imports_mib']:.0f} MiB are Python, torch and numba"
        )
    return lines


def section(report: dict[str, Any], results: list[Result]) -> str:
    """The results, what is to be said of them and the machine, as a section of the page."""
    notes = [
        text
        for start, text in (doors.NOTES | fields.NOTES | goals.NOTES).items()
        if any(start in row.case for row in results)
    ]
    lines = [table(HEADER, map(_row, results)), *(f"{note}\n" for note in notes), _machine(report)]
    return "\n".join(lines)


def with_section(page: str, title: str, text: str) -> str:
    """The page with the section of that title renewed, or added at its end."""
    before, _, after = page.partition(f"\n## {title}\n")
    _, mark, others = after.partition("\n## ")
    return f"{before}\n## {title}\n\n{text.strip()}\n{mark}{others}"


def titled(page: str) -> str:
    """The page under a heading that counts the goals of all its tables."""
    _, _, rest = page.partition("\n")
    met, missed = (page.count(f"| {word} |\n") for word in ("yes", "no"))
    return f"# Speed of every interface: {met} of {met + missed} goals met\n{rest}"


def _machine(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in report["machine"].items())


def markdown(report: dict[str, Any], results: list[Result]) -> str:
    """The page docs/speed.md."""
    return "\n".join(
        [
            "# Speed",
            "",
            "Written by `invariantzoo bench --peers --write docs/speed.md`.",
            "One thread and per CPU second, unless a case says otherwise; medians of repeats in",
            "which both sides take turns; a ratio is the median of the repeats' ratios. Random",
            "actions; our episodes of 200 steps are reset within the measured time. The peers'",
            "simple_spread is another task: it is the one among theirs that has as many agents as",
            "one likes.",
            "",
            section(report, results),
            "",
            *(f"- {line}" for line in _remarks(report)),
            "",
        ]
    )
