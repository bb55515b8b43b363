"""What can be chosen of every way to train, read from the source without importing it.

The dataclasses that `ALGORITHMS` names are the command line: a field is a hyper-parameter and the
comment behind it is its help.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ALGORITHMS = {  # name -> module of `training`, dataclass
    "ppo": ("rl.sb3", "PPOConfig"),
    "a2c": ("rl.sb3", "A2CConfig"),
    "sac": ("rl.sb3", "SACConfig"),
    "descent": ("rl.descent", "DescentConfig"),
}
_OPTIMIZER = ("optim.config", "OptimizerConfig")  # what they all have too
_FIELD = re.compile(r"    (\w+): \w+ = (.+?)  # (.+)")


class Parameter(NamedTuple):
    """A hyper-parameter: its default as it is written, and one line on it."""

    name: str
    default: str
    help: str


def hyperparameters(algo: str) -> list[Parameter]:
    """All hyper-parameters of one of ALGORITHMS: its own, and those of its optimizer."""
    return [*own_hyperparameters(algo), *optimizer_hyperparameters()]


def own_hyperparameters(algo: str) -> list[Parameter]:
    """Those that its dataclass adds to the optimizer's."""
    return _fields(_source(*ALGORITHMS[algo]))


def optimizer_hyperparameters() -> list[Parameter]:
    """Those that choose the optimizer, the same for every algorithm."""
    return _fields(_source(*_OPTIMIZER))


def title(algo: str) -> str:
    """The first line that its dataclass says of itself."""
    return _source(*ALGORITHMS[algo])[1].strip().strip('"')


def _fields(lines: list[str]) -> list[Parameter]:
    return [Parameter(*match.groups()) for match in map(_FIELD.fullmatch, lines) if match]


def _source(module: str, name: str) -> list[str]:
    """The lines of a dataclass, from `class` on."""
    path = Path(__file__).resolve().parent.parent.joinpath(*module.split(".")).with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return text.splitlines()[node.lineno - 1 : node.end_lineno]
    raise LookupError(f"{path.name} has no {name}")
