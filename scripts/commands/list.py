"""List the ids with one line each."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import Any

import invariantzoo
from invariantzoo import options
from invariantzoo.envs.core.registry import broken_plugins


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`list` takes nothing of its own."""


def run(args: argparse.Namespace) -> int:
    """Print the ids; with --json also the parameters and their defaults."""
    broken = broken_plugins()
    unusable = {(plugin.id, plugin.package) for plugin in broken}
    sound = [id for id in invariantzoo.ids() if (id, invariantzoo.spec(id).package) not in unusable]
    if args.json:
        listed = {"environments": [describe(id) for id in sound]}
        options.print_json(args, {**listed, "broken": [plugin._asdict() for plugin in broken]})
        return 0
    rows = [(id, invariantzoo.spec(id).summary) for id in sound]
    rows += [(plugin.id, f"broken ({plugin.package}): {plugin.error}") for plugin in broken]
    width = max((len(id) for id, _ in rows), default=0)
    columns = max(shutil.get_terminal_size().columns, 20) if sys.stdout.isatty() else 0
    indent = " " * (width + 2 if columns > 2 * width else 2)
    for id, summary in rows:
        line = f"{id:<{width}}  {summary}".rstrip()
        if columns:
            line = textwrap.fill(line, columns, subsequent_indent=indent, break_on_hyphens=False)
        print(line)
    return 0


def describe(id: str) -> dict[str, Any]:
    """One id for --json: summary, class, parameters with their defaults, policies."""
    from invariantzoo.agents.policy import policy_names
    from invariantzoo.envs.core.observation import parameters

    spec, system = invariantzoo.spec(id), invariantzoo.make_system(id)
    return {
        "id": id,
        "summary": spec.summary,
        "system": spec.entry_point.rpartition(":")[2],
        "parameters": {**parameters(type(system)), **spec.parameters},
        "policies": policy_names(system),
    }
