"""Descent of the loss through the dynamics, counted in agent-steps and logged as the others are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....agents.policy import Policy, network_policy
from ....envs.core.system import System
from ....envs.core.validation import require_count
from ...geometry.regimes import StepRecorder
from .. import descent, sb3
from ..configs import DescentConfig as Config
from ..episode_log import EpisodeLog
from ..trainer import Update


class Trainer:
    """`descent.Trainer`, which counts updates, counted in agent-steps.

    Whole episodes are run beside it after some updates (see `EpisodeLog`), on new worlds.
    """

    def __init__(self, system: System, config: Any, *, seed: int, steps: int) -> None:
        require_count("steps", steps)
        self.system = system
        self.per_update = config.n_worlds * config.rollout * system.n_agents
        self._updates = -(-steps // self.per_update)
        self._trainer = descent.Trainer(system, config, seed, self._updates)
        self._log = EpisodeLog(
            system,
            updates=self._updates,
            rollout=config.rollout,
            n_worlds=config.n_worlds,
            seed=seed,
        )
        self._regimes = StepRecorder(config.regimes) if config.regimes else None
        if self._regimes is not None:
            self.watch(self._regimes)

    @property
    def steps(self) -> int:
        """Agent-steps made so far."""
        return self._trainer.update * self.per_update

    def policy(self) -> Policy:
        """The policy as it is now."""
        return network_policy(self._trainer.network)

    @property
    def network(self) -> Any:
        """The network that learns, a module of torch."""
        return self._trainer.network

    def __iter__(self) -> Iterator[Update]:
        for update in self._trainer:
            row = self._log.row(update.update, self.policy())
            row |= {"rollout_loss": update.loss, "grad_norm": update.grad_norm}
            regimes = self._regimes.row() if self._regimes is not None else {}
            yield Update(self.steps, {**row, **regimes}, update.loss)

    def use(self, system: System) -> None:
        """Roll out from the next update on under other parameters."""
        self._trainer.system = self._log.system = system

    def watch(self, steps: StepRecorder) -> None:
        """Let `steps` see every step of the optimizer from now on."""
        steps.attach(self._trainer.optimizer, self._trainer.network.named_parameters())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers from which `load_state_dict` continues."""
        window = {"regimes": self._regimes.state_dict()} if self._regimes is not None else {}
        return {**self._trainer.state_dict(), **window}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._trainer.load_state_dict(state)
        if self._regimes is not None:
            self._regimes.load_state_dict(state["regimes"])

    def save_policy(self, path: Path) -> None:
        """Write the network as the actor of a model for `PPO.load`."""
        config = self._trainer.config
        network = self._trainer.network
        sb3.export(self.system, network, config.network, config.width, path, share=config.share)


def load_policy(
    system: System, config: Config, state: dict[str, Any], device: str = "cpu"
) -> Policy:
    """The policy in a trainer's `state_dict`, to compute on a device, wherever it was trained."""
    trainer = Trainer(system, dataclasses.replace(config, device=device), seed=0, steps=1)
    trainer.network.load_state_dict(state["network"])
    trainer.network.requires_grad_(False)
    return trainer.policy()


def load_zip(path: Path) -> Policy:
    """The policy of the model that `save_policy` wrote; unpickles what the file holds."""
    return sb3.load_zip("ppo", path)
