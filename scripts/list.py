"""List the ids with one line each."""

from __future__ import annotations

import argparse
from typing import Any

import invariantzoo
from invariantzoo import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`list` takes nothing of its own."""


def run(args: argparse.Namespace) -> int:
    """Print the ids; with --json also the parameters and their defaults."""
    if args.json:
        options.print_json(args, {"environments": [describe(id) for id in invariantzoo.ids()]})
        return 0
    width = max(map(len, invariantzoo.ids()), default=0)
    for id in invariantzoo.ids():
        print(f"{id:<{width}}  {invariantzoo.spec(id).summary}".rstrip())
    return 0


def describe(id: str) -> dict[str, Any]:
    """One id for --json: summary, class, parameters with their defaults, policies."""
    from invariantzoo.agents.policy import policy_names
    from invariantzoo.envs.core.system import parameters

    spec, system = invariantzoo.spec(id), invariantzoo.make_system(id)
    return {
        "id": id,
        "summary": spec.summary,
        "system": spec.entry_point.rpartition(":")[2],
        "parameters": {**parameters(type(system)), **spec.parameters},
        "policies": policy_names(system),
    }
