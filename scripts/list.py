"""List the ids with one line each."""

from __future__ import annotations

import argparse
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
    width = max(map(len, [*sound, *(plugin.id for plugin in broken)]), default=0)
    for id in sound:
        print(f"{id:<{width}}  {invariantzoo.spec(id).summary}".rstrip())
    for plugin in broken:
        print(f"{plugin.id:<{width}}  broken ({plugin.package}): {plugin.error}")
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
