"""The command line: `invariantzoo COMMAND …`, also `python -m invariantzoo COMMAND …`.

A command is a module of `invariantzoo.commands`: the first line of its docstring is its help,
`add_arguments(parser)` declares what it takes beside `--seed` and `--json`, and `run(args)`
does it and returns the exit code.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import importlib
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

import invariantzoo
from invariantzoo import options, signals, streams
from invariantzoo.envs.core.files import IN_USE, InUseError

COMMANDS = (
    "list",
    "train",
    "evaluate",
    "rollout",
    "export",
    "benchmark",
    "search",
    "regimes",
    "criticality",
    "geometry",
    "reference",
    "fit",
    "forces",
    "simulate",
    "observe",
    "bench",
    "check",
)


# Commands without random numbers of their own. 1.0 took their --seed in silence; it is still read.
UNSEEDED = ("list", "export", "regimes", "criticality", "forces", "observe", "bench")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises ValueError with one line instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the words given, or with those of the process.

    Returns 0, 1 for a negative verdict, 2 for bad input, 75 where another process holds the folder,
    130 after Ctrl-C, 141 if the reader of standard output left.
    """
    if argv is None:
        _collect_rarely()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        signals.raise_again()
        streams.open_all()
        streams.take_every_letter()
        code = _dispatch(words)
        streams.flush()
        _say_what_is_not_kept()
        return code
    except SystemExit as done:  # --help
        return int(done.code or 0)
    except KeyboardInterrupt:
        print("invariantzoo: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and streams.reader_left():
            return 141
        text = _in_words(error)
        if text is None or sys.flags.dev_mode:
            raise
        with contextlib.suppress(OSError):
            streams.flush()
        print(f"invariantzoo: error: {' '.join(text.split())}", file=sys.stderr)
        return IN_USE if isinstance(error, InUseError) else 2


def _collect_rarely() -> None:
    """Look for unused objects less often, and not at the end of the process.

    While libraries are imported, and when all is over, there are hundreds of thousands of objects
    that are in use or go anyway: looking through them takes about 1 CPU s of every command.
    """
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"invariantzoo {invariantzoo.__version__}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        from invariantzoo.envs.core.validation import nearest

        hint = nearest(name, COMMANDS)
        raise ValueError(f"unknown command {name!r}{hint} (has {', '.join(COMMANDS)})")
    command = _module(name)
    args = _parse(command, name, words[1:])
    args.stdout = sys.stdout
    from invariantzoo.envs.core.kernels.announcement import announced, say_compiling
    from invariantzoo.envs.core.memory import within_what_is_free

    aside = contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext()
    with within_what_is_free(), aside, announced(say_compiling):
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
        type=options.seed,
        default=None if name in UNSEEDED else 0,
        metavar="K",
        help=argparse.SUPPRESS if name in UNSEEDED else "seed of everything random (default: 0)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object on standard output; all else goes to standard error",
    )
    command.add_arguments(parser)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        from invariantzoo.envs.core.validation import nearest

        hint = nearest(unknown[0], parser._option_string_actions)
        parser.error(f"unknown argument {unknown[0]!r}{hint}")
    if name in UNSEEDED and args.seed is not None:
        print(
            f"invariantzoo: `{name}` has no random numbers of its own to choose: "
            f"--seed {args.seed} changes nothing, and 2.0 will refuse it",
            file=sys.stderr,
        )
    return args


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"invariantzoo.commands.{name}")


def _in_words(error: Exception) -> str | None:
    """What an error says of the input or the machine; None for a fault of the program.

    Memory that cannot be had is a MemoryError for Python, numpy and numba, and for torch a
    RuntimeError like all its others.
    """
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.strerror:
        name = "input or output" if error.filename is None else os.fsdecode(error.filename)
        return f"{name}: {error.strerror}"
    if isinstance(error, ValueError | KeyError | OSError | ModuleNotFoundError):
        return str(error)
    if isinstance(error, OverflowError):
        return f"a number is too large: {error}"
    text = str(error).partition("\n")[0]
    if isinstance(error, MemoryError):
        return f"there is not enough memory: {text or 'a request failed'}"
    if isinstance(error, RuntimeError):
        if _NO_MEMORY.search(text):
            return f"there is not enough memory: {text}"
        if "can't start new thread" in text:
            return "the machine gives this process no further thread"
    return None


_NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|not enough memory|bad_alloc|"
    r"Storage size calculation overflowed|multiplication overflow"
)


def _say_what_is_not_kept() -> None:
    """Name the remedy where compiled code was lost with the process."""
    compiling = sys.modules.get("invariantzoo.envs.core.kernels.compiling")
    if compiling is not None and (reason := compiling.not_kept()):
        print(
            f"invariantzoo: compiled code was not kept ({reason}), so it is compiled anew each "
            "time: set NUMBA_CACHE_DIR to a folder that can be written",
            file=sys.stderr,
        )


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = []
    for name in COMMANDS:
        summary = (_module(name).__doc__ or "").partition("\n")[0]
        lines.append(f"  {name:<{width}}  {summary}")
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
