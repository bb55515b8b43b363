"""Ways to train by name: their hyper-parameters, their trainers, and the policies they leave.

A trainer is iterated; every item is an `Update`, and between two items it can be saved. `--algo`
takes the names of ALGORITHMS; each is a module of this package, imported when it is used, that
offers what `Algorithm` says.
"""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any, cast

from ....agents.policy import Policy
from ....envs.core.registry import spec
from ....envs.core.seeds import HELD_OUT, require_seed
from ....envs.core.system import System
from ....envs.core.validation import nearest, require_choice
from ...optim.config import OF_CGD
from .. import processes
from ..configs import CONFIGS
from ..hyperparameters import ALGORITHMS
from ..trainer import Algorithm, Trainer

DEFAULT_STEPS = 1_000_000
_FORM_OF = {"mappo": "ppo", "maskable_ppo": "ppo"}  # which have the same hyper-parameters


def config_class(algo: str) -> type[Any]:
    """The dataclass of an algorithm's hyper-parameters; ValueError for an unknown name."""
    require_choice("algo", algo, ALGORITHMS)
    return CONFIGS[algo]


def make_config(id: str, algo: str, settings: dict[str, Any]) -> Any:
    """An algorithm's hyper-parameters: its defaults, what suits the id, and `settings` over both.

    What suits the id of `cgd` alone is left out where `settings` choose another optimizer.
    Raises ValueError for an unknown name or a bad value.
    """
    cls = config_class(algo)
    known = [field.name for field in dataclasses.fields(cls)]
    for name in settings:
        if name not in known:
            raise ValueError(f"unknown hyper-parameter {name!r} of {algo}{nearest(name, known)}")
    of_id = {name: value for name, value in suited(id, algo).items() if name != "steps"}
    if settings.get("optimizer", of_id.get("optimizer")) != of_id.get("optimizer"):
        of_id = {name: value for name, value in of_id.items() if name not in OF_CGD}
    return cls(**{**of_id, **settings})


def default_steps(id: str, algo: str) -> int:
    """Agent-steps that suit an id."""
    return int(suited(id, algo).get("steps", DEFAULT_STEPS))


def make_trainer(algo: str, system: System, config: Any, *, seed: int, steps: int) -> Trainer:
    """A trainer at its first step.

    Raises ValueError for a network that does not fit the system, and for a seed of evaluation.
    """
    require_seed("seed", seed, HELD_OUT)
    if processes.number() > 1 and algo not in processes.ALGORITHMS:
        known = ", ".join(processes.ALGORITHMS)
        raise ValueError(f"algo={algo!r} trains in one process; torchrun is for {known}")
    share = processes.joined()
    more: dict[str, Any] = {} if share is None else {"share": share}
    return _module(algo).Trainer(system, config, seed=seed, steps=steps, **more)


def load_policy(
    algo: str, system: System, config: Any, state: dict[str, Any], device: str = "cpu"
) -> Policy:
    """The policy in a trainer's `state_dict`, to compute on a device, wherever it was trained."""
    return _module(algo).load_policy(system, config, state, device)


def load_trusted(algo: str, path: Path) -> Policy:
    """The policy of a policy.zip, which can run any code that its writer put in."""
    return _module(algo).load_zip(path)


def _module(algo: str) -> Algorithm:
    """The module of an algorithm, imported now."""
    return cast(Algorithm, importlib.import_module(f".{algo}", __name__))


def suited(id: str, algo: str) -> dict[str, Any]:
    """What an id has under an algorithm in `training`, or under the one that it is a form of."""
    training = spec(id).training
    return training.get(algo, training.get(_FORM_OF.get(algo, algo), {}))
