"""Descent of the loss through the dynamics, counted in agent-steps and logged as the others are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....agents.policy import Policy, network_policy
from ....envs.core.system import System
from ....envs.core.validation import require_count
from ....envs.core.vector import VectorEnv
from ...geometry.regimes import StepRecorder
from .. import descent, sb3
from ..configs import DescentConfig as Config
from ..score import run_episodes
from ..trainer import Update

_CURVE_POINTS = 22  # times that descent runs whole episodes for its log, at most
_LEAST_POINTS = 2  # and at least: after the first update and after the last
_SHARE = 50  # steps that descent learns from for each step of those episodes, where there are more


def logged_updates(updates: int, rollout: int, horizon: int) -> frozenset[int]:
    """The updates of a descent run after which whole episodes are run: the first, the last, others.

    They are evenly spaced, and as many as keep the steps of the episodes within a fiftieth of the
    steps that are learned from; a step without a gradient costs less than one with it, so this
    keeps the log within 2 % of the work. A count, and no time: a run is logged alike everywhere.
    """
    affordable = updates * rollout // (_SHARE * horizon)
    points = min(max(affordable, _LEAST_POINTS), _CURVE_POINTS)
    return frozenset(1 + round(k * (updates - 1) / (points - 1)) for k in range(points))


class Trainer:
    """`descent.Trainer`, which counts updates, counted in agent-steps.

    Whole episodes are run beside it after some updates (see `logged_updates`), on new worlds.
    """

    def __init__(self, system: System, config: Any, *, seed: int, steps: int) -> None:
        require_count("steps", steps)
        self.system = system
        self.per_update = config.n_worlds * config.rollout * system.n_agents
        self._updates = -(-steps // self.per_update)
        self._trainer = descent.Trainer(system, config, seed, self._updates)
        self._logged = logged_updates(self._updates, config.rollout, system.horizon)
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

    def __iter__(self) -> Iterator[Update]:
        for update in self._trainer:
            row = {"rollout_loss": update.loss, "grad_norm": update.grad_norm}
            if update.update in self._logged:
                row = {**self._whole_episodes(), **row}
            regimes = self._regimes.row() if self._regimes is not None else {}
            yield Update(self.steps, {**row, **regimes}, update.loss)

    def _whole_episodes(self) -> dict[str, float]:
        """Loss, return and metrics of the policy as it is now, means over new worlds."""
        done, n_worlds = self._trainer, self._trainer.config.n_worlds
        first = done.update * n_worlds
        if len(self._logged) <= _LEAST_POINTS:  # of a short run: half the worlds will do
            n_worlds = -(-n_worlds // 2)
        env = VectorEnv(self.system, n_worlds, seed=done.seed, first_world=first, autoreset=False)
        scores = run_episodes(env, self.policy(), deterministic=True)
        return {name: float(values.mean()) for name, values in scores.items()}

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
        sb3.export(self.system, self._trainer.network, config.network, config.width, path)


def load_policy(system: System, config: Config, state: dict[str, Any]) -> Policy:
    """The policy in a trainer's `state_dict`."""
    trainer = Trainer(system, config, seed=0, steps=1)
    trainer.load_state_dict(state)
    return trainer.policy()


def load_zip(path: Path) -> Policy:
    """The policy of the model that `save_policy` wrote; unpickles what the file holds."""
    return sb3.load_zip("ppo", path)
