"""Check a PettingZoo parallel environment: one of ours or anybody's.

TARGET is an id (see `invariantzoo list`) or module:factory. The module is looked for in the
working directory too; factory(**settings) returns a new environment, and takes `render_mode` if
pictures are to be checked. Exit code 0: sound; 1: something was found; 2: it could not be made.
What the checks are is told in docs/conformance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import invariantzoo
from invariantzoo import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `check` takes."""
    parser.add_argument("target", metavar="TARGET", help="an id, or module:factory")
    parser.add_argument(
        "--steps",
        type=options.count,
        default=1000,
        metavar="N",
        help="length of each run, which holds as many episodes as fit (default: 1000)",
    )
    options.add_settings(parser, "an argument of the factory")


def run(args: argparse.Namespace) -> int:
    """Print what was found; returns 1 if anything was."""
    make_env = factory(args.target, options.parse_settings(args.set))
    from invariantzoo.envs.core.conformance.check import check_parallel, check_processes

    findings = check_parallel(make_env, seed=args.seed, steps=args.steps)
    if not findings:
        findings = check_processes(make_env, seed=args.seed, steps=min(args.steps, 200))
    if args.json:
        finding_rows = [{"check": name, "message": message} for name, message in findings]
        passed = not findings
        options.print_json(
            args, {"target": args.target, "passed": passed, "findings": finding_rows}
        )
        return int(not passed)
    for name, message in findings:
        print(f"{name}: {message}")
    verdict = f"{len(findings)} found" if findings else "nothing found"
    print(f"{args.target}: {verdict}")
    return int(bool(findings))


def factory(target: str, settings: dict[str, Any]) -> Callable[..., Any]:
    """What makes the environments of a target, tried once.

    Raises KeyError for an unknown id and ValueError, in one line, for a module or a factory that
    cannot be had or that fails.
    """
    module, _, name = target.rpartition(":")
    if module and name.isidentifier():
        made = _attribute(module, name)
    else:
        from invariantzoo.envs.core.interfaces.pettingzoo import make_parallel

        invariantzoo.spec(target)
        made = functools.partial(make_parallel, target)
        invariantzoo.make_system(target, **settings)  # says in its own words what is wrong
    if settings:
        made = functools.partial(made, **settings)
    try:
        env = made()
    except Exception as error:
        raise ValueError(f"{target} could not make an environment: {_line(error)}") from error
    with contextlib.suppress(Exception):  # what is wrong with it is for the checks to say
        env.close()
    return made


def _attribute(module: str, name: str) -> Callable[..., Any]:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        attribute = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise ValueError(f"module {module!r} could not be imported: {_line(error)}") from error
    if not callable(attribute):
        from invariantzoo.envs.core.validation import nearest

        known = [n for n, value in vars(sys.modules[module]).items() if callable(value)]
        raise ValueError(f"module {module!r} has no factory {name!r}{nearest(name, known)}")
    return attribute


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
