"""Whole episodes beside a training that learns from parts of them, for its log."""

from __future__ import annotations

from ...agents.policy import Policy
from ...envs.core.system import System
from ...envs.core.vector import VectorEnv
from .score import run_episodes, score_means

_CURVE_POINTS = 22  # times that whole episodes are run for the log, at most
_LEAST_POINTS = 2  # and at least: after the first update and after the last
_SHARE = 50  # steps that are learned from for each step of those episodes, where there are more


def logged_updates(updates: int, rollout: int, horizon: int) -> frozenset[int]:
    """The updates of a run after which whole episodes are run: the first, the last, others.

    They are evenly spaced, and as many as keep the steps of the episodes within a fiftieth of the
    steps that are learned from, per world; this keeps the log within 2 % of the work. A count, and
    no time: a run is logged alike everywhere.
    """
    affordable = updates * rollout // (_SHARE * horizon)
    points = min(max(affordable, _LEAST_POINTS), _CURVE_POINTS)
    return frozenset(1 + round(k * (updates - 1) / (points - 1)) for k in range(points))


class EpisodeLog:
    """Scores of whole episodes after some of the updates of a run (see `logged_updates`)."""

    def __init__(
        self, system: System, *, updates: int, rollout: int, n_worlds: int, seed: int
    ) -> None:
        """n_worlds: of an update, of which as many worlds are scored."""
        self.system, self.n_worlds, self.seed = system, n_worlds, seed
        self.updates = logged_updates(updates, rollout, system.horizon)

    def row(self, update: int, policy: Policy) -> dict[str, float]:
        """Loss, return and metrics of a policy after an update, means over new worlds; or {}.

        The worlds are those of the next update.
        """
        if update not in self.updates:
            return {}
        n_worlds = self.n_worlds
        if len(self.updates) <= _LEAST_POINTS:  # of a short run: half the worlds will do
            n_worlds = -(-n_worlds // 2)
        first = update * self.n_worlds
        env = VectorEnv(self.system, n_worlds, seed=self.seed, first_world=first, autoreset=False)
        likely = not self.system.stochastic
        scores = run_episodes(env, policy, deterministic=likely, by_table=True)
        return score_means(scores)
