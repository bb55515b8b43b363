"""The command line: `invariantzoo COMMAND …`, also `python -m invariantzoo COMMAND …`.

A command is a module of this package: the first line of its docstring is its help,
`add_arguments(parser)` declares what it takes beside `--seed` and `--json`, and `run(args)`
does it and returns the exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import select
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

import invariantzoo
from invariantzoo import options

COMMANDS = (
    "list",
    "train",
    "evaluate",
    "rollout",
    "regimes",
    "reference",
    "fit",
    "forces",
    "simulate",
    "observe",
    "bench",
    "check",
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises ValueError with one line instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the words given, or with those of the process.

    Returns 0, 1 for a negative verdict, 2 for bad input, 130 after Ctrl-C, 141 if the reader of
    standard output left.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # --help
        return int(done.code or 0)
    except KeyboardInterrupt:
        print("invariantzoo: interrupted", file=sys.stderr)
        return 130
    except (ValueError, KeyError, OSError, ModuleNotFoundError) as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return 141
        if sys.flags.dev_mode:
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"invariantzoo: error: {' '.join(str(text).split())}", file=sys.stderr)
        return 2


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"invariantzoo {invariantzoo.__version__}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        from invariantzoo.envs.core.system import nearest

        hint = nearest(name, COMMANDS)
        raise ValueError(f"unknown command {name!r}{hint} (has {', '.join(COMMANDS)})")
    command = _module(name)
    args = _parse(command, name, words[1:])
    args.stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        return command.run(args)


def _parse(command: ModuleType, name: str, words: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog=f"invariantzoo {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--seed",
        type=options.count_from_zero,
        default=0,
        metavar="K",
        help="seed of everything random (default: 0)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object on standard output; all else goes to standard error",
    )
    command.add_arguments(parser)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        from invariantzoo.envs.core.system import nearest

        hint = nearest(unknown[0], parser._option_string_actions)
        parser.error(f"unknown argument {unknown[0]!r}{hint}")
    return args


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"invariantzoo.{name}")


def _reader_left() -> bool:
    """Whether standard output is what broke; if so nothing more is written to it."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    left = any(event & select.POLLERR for _, event in poll.poll(0))
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left


def _help() -> str:
    lines = []
    for name in COMMANDS:
        summary = (_module(name).__doc__ or "").partition("\n")[0]
        lines.append(f"  {name:<10}{summary}")
    return "\n".join(
        [
            "usage: invariantzoo COMMAND [arguments]",
            "",
            (invariantzoo.__doc__ or "").partition("\n")[0],
            "",
            *lines,
            "",
            "invariantzoo COMMAND --help    what a command takes",
            "invariantzoo --version",
            "python -X dev -m invariantzoo  shows where an error comes from",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
