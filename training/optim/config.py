"""The optimizer of a training run, chosen by its hyper-parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from ...envs.core.validation import require_choice, require_count, require_number, shown

OPTIMIZERS = ("", "adam", "cgd")
METRICS = ("diagonal", "full", "block", "row", "lowrank")
_NUMBERS = ("tau1", "tau2", "eps", "zeta", "weight_decay")
_ARGUMENTS = (*_NUMBERS, "alpha", "centered", "refresh", "rank")


def hyper(default: Any, help: str) -> Any:
    """A field of a configuration: a hyper-parameter with its default, and one line on it."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer lowers the loss; `cgd` is covariant gradient descent."""

    default_optimizer: ClassVar[str] = "adam"  # what an empty `optimizer` stands for

    optimizer: str = hyper(
        "", '"adam" or "cgd"; empty: adam, and for a2c what SB3 gives it (rmsprop)'
    )
    metric: str = hyper(
        "diagonal", 'of cgd: "diagonal", "full", "block" (tensors), "row", "lowrank"'
    )
    cgd_alpha: float = hyper(0.5, "exponent of the metric")
    cgd_tau1: float = hyper(9.0, "steps that the force remembers")
    cgd_tau2: float = hyper(999.0, "steps that the metric remembers")
    cgd_eps: float = hyper(1e-5, "added to the metric")
    cgd_zeta: float = hyper(0.0, "weight of the second moment itself in the metric")
    cgd_centered: str = hyper("none", '"none", "mean" or "residual"')
    cgd_weight_decay: float = hyper(0.0, "decoupled")
    cgd_refresh: int = hyper(10, "largest number of steps between eigendecompositions")
    cgd_rank: int = hyper(20, 'gradients that "lowrank" keeps')
    regimes: int = hyper(
        0, "steps of the window of regime numbers in progress.csv (8 or more); 0: none"
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # those of every algorithm, too
            value = getattr(self, field.name)
            for kind, wanted in ((bool, "True or False"), (str, "a text")):
                if isinstance(field.default, kind) and not isinstance(value, kind):
                    raise ValueError(f"{field.name}={shown(value)} must be {wanted}")
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_choice("metric", self.metric, METRICS)
        require_choice("cgd_centered", self.cgd_centered, ("none", "mean", "residual"))
        require_number("cgd_alpha", self.cgd_alpha)
        for name in _NUMBERS:
            require_number(f"cgd_{name}", getattr(self, f"cgd_{name}"), 0)
        for name in ("cgd_refresh", "cgd_rank"):
            require_count(name, getattr(self, name))
        if self.regimes:
            require_count("regimes", self.regimes, 8)
        given = [name for name in OF_CGD if getattr(self, name) != getattr(OptimizerConfig, name)]
        if given and self.optimizer != "cgd":
            raise ValueError(
                f"{given[0]}={getattr(self, given[0])!r} needs optimizer='cgd', "
                f"not {self.optimizer!r}"
            )


OF_CGD = tuple(  # hyper-parameters that only covariant descent has
    field.name
    for field in dataclasses.fields(OptimizerConfig)
    if field.name not in ("optimizer", "regimes")
)


def choose(config: OptimizerConfig) -> tuple[Any, dict[str, Any]]:
    """Class and arguments (beside parameters and lr) of a configuration's optimizer."""
    import torch

    from .cgd import CGD

    if config.optimizer != "cgd":
        return torch.optim.Adam, {}
    settings = dataclasses.asdict(config)
    arguments = {name: settings[f"cgd_{name}"] for name in _ARGUMENTS}
    if config.metric == "row":
        return CGD, {**arguments, "metric": "block", "blocks": "row"}
    return CGD, {**arguments, "metric": config.metric}


def title(config: OptimizerConfig) -> str:
    """What a configuration's optimizer is called."""
    if config.optimizer == "cgd":
        return f"cgd, {config.metric} metric"
    return config.optimizer or config.default_optimizer
