"""The checkers of PettingZoo, Gymnasium and Stable-Baselines3, run on one environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils import parallel_to_aec

from .contract import Report, describe
from .replay import Actor, MakeEnv

_CYCLES = 200

# Findings of ours that the checkers would only repeat in other words.
_CONTRACT = (
    "action-mask",
    "actions-mutated",
    "agent",
    "close",
    "construction",
    "extra-keys",
    "flag-type",
    "info-type",
    "metadata",
    "missing-keys",
    "no-agents",
    "observation-",
    "possible-agents",
    "render-",
    "reset-",
    "return-type",
    "reward-",
    "space-",
    "state-",
    "step-raised",
)
_CHANCE = ("global-generator", "seed-ignored", "shared-state", "state-leak", "unseeded-noise")
_ALIASES = ("actions-", "infos-", "observations-", "rewards-")
_EXPLAINED: dict[str, tuple[str, ...]] = {
    "pettingzoo-parallel-api": (),
    "pettingzoo-api": (),
    "pettingzoo-seed": _CHANCE,
    "pettingzoo-state": (),
    "gymnasium": _CHANCE + _ALIASES,
    "stable-baselines3": _CHANCE + _ALIASES,
}


def run_checkers(
    make_env: MakeEnv, env: ParallelEnv, masked: bool, steps: int, report: Report
) -> None:
    """Call the checkers that apply; a failure is a finding, unless one of ours explains it.

    env: one at the start of an episode.  masked: whether it masks actions; few checkers heed that.
    """
    if report.has_prefix(_CONTRACT):
        return
    for name, check in _checkers(make_env, env, masked, min(steps, _CYCLES)):
        if report.has_prefix(_EXPLAINED[name]):
            continue
        try:
            check()
        except Exception as error:
            report.add(name, describe(error))


def _checkers(
    make_env: MakeEnv, env: ParallelEnv, masked: bool, cycles: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    from pettingzoo import test

    agents = env.possible_agents
    plain = all(isinstance(env.observation_space(agent), spaces.Box) for agent in agents)
    simple = all(_simple(env.action_space(agent)) for agent in agents)
    if not masked:
        yield (
            "pettingzoo-parallel-api",
            lambda: test.parallel_api_test(make_env(), num_cycles=cycles),
        )
        yield "pettingzoo-seed", lambda: test.parallel_seed_test(make_env, num_cycles=cycles)
    if plain and simple:  # it asks every observation for its dtype, and takes 0 as an action
        cycles = max(cycles // len(agents), 2)
        yield "pettingzoo-api", lambda: test.api_test(parallel_to_aec(make_env()), cycles)
    if not masked and _has_state(env):
        yield (
            "pettingzoo-state",
            lambda: test.state_test(parallel_to_aec(make_env()), make_env(), num_cycles=5),
        )
    if not masked and plain and simple and set(env.agents) == set(agents):
        yield "gymnasium", lambda: _check_gymnasium(make_env)
        yield "stable-baselines3", lambda: _check_sb3(make_env)


def _has_state(env: ParallelEnv) -> bool:
    try:
        env.state()
    except Exception:
        return False
    return isinstance(getattr(env, "state_space", None), spaces.Space)


def _simple(space: spaces.Space) -> bool:
    """Whether 0 is a legal action and SB3 can give it."""
    if isinstance(space, spaces.Box):
        bounded = space.is_bounded() and np.issubdtype(space.dtype, np.floating)
        return bounded and len(space.shape) == 1 and space.contains(np.zeros_like(space.low))
    return isinstance(space, spaces.Discrete) and space.start == 0


def _check_gymnasium(make_env: MakeEnv) -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(OneAgent(make_env()), skip_render_check=True)


def _check_sb3(make_env: MakeEnv) -> None:
    from stable_baselines3.common.env_checker import check_env

    check_env(OneAgent(make_env()), warn=False, skip_render_check=True)


class OneAgent(gymnasium.Env):
    """The environment as its first agent sees it; the others act at random.

    The episode ends with that agent's.
    """

    def __init__(self, env: ParallelEnv) -> None:
        self._env = env
        self._agent = env.possible_agents[0]
        self._others = Actor(env, 0)
        self.observation_space = env.observation_space(self._agent)
        self.action_space = env.action_space(self._agent)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and the others' random actions with it."""
        super().reset(seed=seed)
        self._others = Actor(self._env, 0)
        observations, infos = self._env.reset(seed=seed, options=options)
        return observations[self._agent], infos[self._agent]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of all agents."""
        others = [agent for agent in self._env.agents if agent != self._agent]
        actions = {**self._others.act(others, {}, False), self._agent: action}
        results = self._env.step(actions)
        observation, reward, terminated, truncated, info = (
            by_agent[self._agent] for by_agent in results
        )
        return observation, float(reward), terminated, truncated, info

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
