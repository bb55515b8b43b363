"""What can be chosen of every way to train, without importing what it takes to train."""

from __future__ import annotations

import dataclasses
import json
from typing import NamedTuple

from ..optim.config import OptimizerConfig
from .configs import CONFIGS, EXTRAS

ALGORITHMS = tuple(CONFIGS)
PLAIN = tuple(algo for algo in ALGORITHMS if algo not in EXTRAS)  # that need nothing installed


class Parameter(NamedTuple):
    """A hyper-parameter: its default as it may be written, and one line on it."""

    name: str
    default: str
    help: str


def hyperparameters(algo: str) -> list[Parameter]:
    """All hyper-parameters of one of ALGORITHMS: its own, and those of its optimizer."""
    return [*own_hyperparameters(algo), *optimizer_hyperparameters()]


def own_hyperparameters(algo: str) -> list[Parameter]:
    """Those that its configuration adds to the optimizer's."""
    of_optimizer = {field.name for field in dataclasses.fields(OptimizerConfig)}
    return [field for field in _fields(CONFIGS[algo]) if field.name not in of_optimizer]


def optimizer_hyperparameters() -> list[Parameter]:
    """Those that choose the optimizer, the same for every algorithm."""
    return _fields(OptimizerConfig)


def title(algo: str) -> str:
    """The first line that its configuration says of itself."""
    return (CONFIGS[algo].__doc__ or "").partition("\n")[0]


def _fields(config: type[OptimizerConfig]) -> list[Parameter]:
    return [
        Parameter(field.name, _written(field.default), field.metadata["help"])
        for field in dataclasses.fields(config)
    ]


def _written(default: object) -> str:
    return json.dumps(default) if isinstance(default, str) else repr(default)
