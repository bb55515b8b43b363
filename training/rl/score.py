"""What a policy scores: whole episodes on held-out seeds, and what can be said of them.

Every metric is a number per episode, [seeds, episodes]. A summary holds its mean and the standard
error of the mean, its interquartile mean (the mean without the lowest and the highest quarter) and
the 95 % percentile interval of the interquartile mean under a bootstrap that draws episodes anew
within each seed. Of few episodes per seed, n, that would be too narrow by sqrt(1 - 1 / n): they are
drawn from all seeds alike, as is the one number per training run, whose interval is over runs. One
number alone has neither error nor interval. Of a metric that is nearly always the same,
such as a rare contact, the interquartile mean sees nothing: read its mean. Episodes in which a
metric is NaN, because there is nothing that it could be taken of, are left out of its summary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from ...agents.player import Player
from ...agents.policy import OwnPolicy, Policy, seen_dtype
from ...envs.core.memory import require_memory
from ...envs.core.observation import observation_space
from ...envs.core.seeds import HELD_OUT, require_seed
from ...envs.core.system import System, require_system
from ...envs.core.validation import require_count
from ...envs.core.vector import VectorEnv
from .choice_table import is_tabled, steps_by_table

RESAMPLES = 2000
_CHUNK = 2**22  # numbers that a batch of observations or of resamples may hold
_FEW = 20  # episodes per seed below which they are not drawn within it
_SHORT = 2**13  # steps up to which each is recorded where policies run fused

Scores = dict[str, np.ndarray]  # metric -> [seeds, episodes]


class Summary(TypedDict):
    """One metric: ci95 is the interval of iqm, per_seed the mean of every seed or run."""

    mean: float
    se: float
    iqm: float
    ci95: list[float]
    per_seed: list[float]


def require_memory_of_scores(system: System, *, episodes: int, seeds: int) -> None:
    """Raise ValueError if the scores of so many episodes cannot be held."""
    numbers = 2 + len(system.reductions)
    require_memory(f"episodes={episodes} of seeds={seeds}", 8 * numbers * episodes * seeds)


def evaluate(
    system: System,
    policy: Policy,
    *,
    episodes: int,
    seeds: int,
    deterministic: bool,
    first_seed: int = 0,
    watch: Callable[[float], object] | None = None,
) -> Scores:
    """Scores of `episodes` whole episodes under each of `seeds` held-out seeds.

    `watch` is called with the share that is done, between 0 and 1, as often as that can be told.

    Own policies that a system fuses run fused; their "loss" is then a mean over records, one for
    every step or, in long episodes, every sweep. A policy with the attribute `dtype` np.float64
    sees observations, and acts, in that precision; one of the system's `state_policies` acts on the
    state itself.

    Metrics are those of the system, and "illegal_actions" where it has such; "return", the rewards
    of an episode summed, per agent; and "loss", the mean over the steps and agents that were there.
    Raises ValueError unless episodes and seeds are positive and first_seed is below HELD_OUT.
    """
    require_system(system)
    require_count("episodes", episodes)
    require_count("seeds", seeds)
    require_seed("first_seed", first_seed, HELD_OUT)
    require_memory_of_scores(system, episodes=episodes, seeds=seeds)
    fused = isinstance(policy, OwnPolicy) and policy.name in system.fused
    size = system.n_agents * (observation_space(system).shape or (1,))[0]
    if fused:
        size = max(size, 4 * (system.horizon // _recorded(system)))
    chunk = max(1, _CHUNK // size)
    dtype = seen_dtype(policy)
    whole, done = seeds * episodes * system.horizon, 0  # steps of worlds
    by_seed = []
    for seed in range(HELD_OUT + first_seed, HELD_OUT + first_seed + seeds):
        parts = []
        for first in range(0, episodes, chunk):
            worlds = min(chunk, episodes - first)

            def step(steps: int, worlds: int = worlds, done: int = done) -> None:
                if watch is not None:
                    watch((done + steps * worlds) / whole)

            env = VectorEnv(
                system, worlds, seed=seed, first_world=first, autoreset=False, dtype=dtype
            )
            if isinstance(policy, OwnPolicy) and fused:
                parts.append(_fused_episode(env, policy.name))
            else:
                parts.append(
                    run_episodes(
                        env, policy, deterministic=deterministic, watch=step, by_table=True
                    )
                )
            step(system.horizon)
            done += worlds * system.horizon
        by_seed.append(
            {
                name: np.concatenate([chunk_scores[name] for chunk_scores in parts])
                for name in parts[0]
            }
        )
    return {name: np.stack([scores[name] for scores in by_seed]) for name in by_seed[0]}


def run_episodes(
    env: VectorEnv,
    policy: Policy,
    *,
    deterministic: bool,
    watch: Callable[[int], object] = lambda steps: None,
    started: np.ndarray | None = None,
    steps: int | None = None,
    by_table: bool = False,
) -> Scores:
    """Metrics, "return" and "loss" [worlds] of one episode of every world, from a reset on.

    `watch` is called with the steps that were made, after each or, where they are quick, some.
    started: observations of worlds that have just started, in place of the reset.
    steps: how many to make at most; scores are then of these, where the episode goes on.
    by_table: use `steps_by_table` where it can; the policy must do the same in every world.
    """
    total, present = np.zeros(env.n_worlds), np.zeros(env.n_worlds)
    running = np.ones(env.n_worlds, bool)
    player = Player(env, policy, deterministic=deterministic)
    observation, made, over = env.reset() if started is None else started, 0, False
    scores = {name: np.empty(env.n_worlds) for name in ("return", "loss", *env.metric_names)}
    if by_table and not deterministic and is_tabled(policy, env):
        most = env.system.horizon if steps is None else min(steps, env.system.horizon)
        made, observation = steps_by_table(policy, env, observation, most - 1, total, watch)
        present += made * env.n_agents
    while not over:
        action = player.act(observation)
        if action.dtype.kind == "f" and env.dtype != np.float64 and not player.unbounded:
            action = action.astype(np.float32)
        present += running * (env.alive.sum(1) if env.may_leave else env.n_agents)
        step = env.step(action, unbounded=player.unbounded)
        total += running * step.reward.sum(1)
        if step.final_observation is not None:  # a world ended
            ended = step.done & running
            scores["return"][ended] = total[ended] / env.n_agents
            scores["loss"][ended] = -total[ended] / present[ended]
            for name, value in step.metrics.items():
                scores[name][ended] = value[ended]
            running &= ~step.done
            over = not running.any()
        observation = step.observation
        made += 1
        watch(made)
        if made == steps and not over:
            scores["return"][running] = total[running] / env.n_agents
            scores["loss"][running] = -total[running] / present[running]
            for name, value in env.episode_metrics().items():
                scores[name][running] = value[running]
            break
    return scores


def score_means(scores: Scores) -> dict[str, float]:
    """Means without NaNs, NaN of what has no other."""
    defined = {name: values[~np.isnan(values)] for name, values in scores.items()}
    return {
        name: float(values.mean()) if values.size else float("nan")
        for name, values in defined.items()
    }


def _recorded(system: System) -> int:
    """Steps of a fused episode that a record stands for: a sweep hides little of a long one."""
    return 1 if system.horizon <= _SHORT else system.sweep


def _fused_episode(env: VectorEnv, policy: str) -> Scores:
    """The same of one fused episode."""
    env.reset()
    loss = env.rollout(policy, env.system.horizon, every=_recorded(env.system))["loss"].mean(0)
    return {"return": -loss * env.system.horizon, "loss": loss, **env.episode_metrics()}


def summarise(scores: Scores) -> dict[str, Summary]:
    """Every metric's summary."""
    return {name: summary(values) for name, values in scores.items()}


def over_runs(runs: Sequence[Scores]) -> dict[str, Summary]:
    """Summaries over training runs, each of which counts as one number: its mean without NaNs."""
    means = [score_means(run) for run in runs]
    return {name: summary(np.array([[mean[name]] for mean in means])) for name in means[0]}


def summary(values: np.ndarray, *, seed: int = 0) -> Summary:
    """The summary of a metric's values [seeds, episodes]; `seed` is the bootstrap's.

    NaNs are left out. Where there are some, the bootstrap draws from all seeds alike.
    """
    defined = ~np.isnan(values)
    per_seed = [
        float(row[of].mean()) if of.any() else float("nan")
        for row, of in zip(values, defined, strict=True)
    ]
    if not defined.all():
        values = values[defined][None]
    n, nothing = values.size, float("nan")
    if n == 0:
        return {
            "mean": nothing,
            "se": nothing,
            "iqm": nothing,
            "ci95": [nothing, nothing],
            "per_seed": per_seed,
        }
    ci95 = [nothing, nothing]
    if n > 1:
        ci95 = np.quantile(_bootstrap(values, seed), [0.025, 0.975]).tolist()
    return {
        "mean": float(values.mean()),
        "se": float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else nothing,
        "iqm": float(iqm(values.ravel())),
        "ci95": ci95,
        "per_seed": per_seed,
    }


def iqm(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis [..., n] without the floor(n / 4) lowest and as many highest."""
    n = values.shape[-1]
    cut = n // 4
    middle = np.partition(values, (cut, n - 1 - cut), -1)[..., cut : n - cut].mean(-1)
    return np.where(np.isnan(values).any(-1), np.nan, middle)


def _bootstrap(values: np.ndarray, seed: int) -> np.ndarray:
    """Interquartile means [resamples] of values [strata, n] drawn anew within each stratum."""
    strata = values if values.shape[1] >= _FEW else values.reshape(1, -1)
    rows, n = strata.shape
    rng = np.random.default_rng(seed)
    resampled, row = np.empty(RESAMPLES), np.arange(rows)[:, None]
    chunk = max(1, _CHUNK // strata.size)
    for first in range(0, RESAMPLES, chunk):
        drawn = rng.integers(n, size=(min(chunk, RESAMPLES - first), rows, n))
        resampled[first : first + chunk] = iqm(strata[row, drawn].reshape(len(drawn), -1))
    return resampled
