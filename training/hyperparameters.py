"""What can be chosen of every way to train, read from the source without importing it.

The dataclasses that `ALGORITHMS` names are the command line: a field is a hyper-parameter and the
comment behind it is its help.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ALGORITHMS = {  # name -> module of this folder, dataclass
    "ppo": ("sb3", "PPOConfig"),
    "a2c": ("sb3", "A2CConfig"),
    "sac": ("sb3", "SACConfig"),
    "descent": ("descent", "DescentConfig"),
}
_FIELD = re.compile(r"    (\w+): \w+ = (.+?)  # (.+)")


class Parameter(NamedTuple):
    """A hyper-parameter: its default as it is written, and one line on it."""

    name: str
    default: str
    help: str


def hyperparameters(algo: str) -> list[Parameter]:
    """The hyper-parameters of one of ALGORITHMS."""
    return [Parameter(*match.groups()) for match in map(_FIELD.fullmatch, _source(algo)) if match]


def title(algo: str) -> str:
    """The first line that its dataclass says of itself."""
    return _source(algo)[1].strip().strip('"')


def _source(algo: str) -> list[str]:
    """The lines of the dataclass, from `class` on."""
    module, name = ALGORITHMS[algo]
    text = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return text.splitlines()[node.lineno - 1 : node.end_lineno]
    raise LookupError(f"{module}.py has no {name}")
