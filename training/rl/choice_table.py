"""Episodes in which one agent acts at a time, by a table of what a policy chooses.

A site of a lattice sees a few numbers that take a few values. Where one agent acts in a step, all
of a network's work but one row would be thrown away, and that row has mostly been met before: its
chances are kept, and found again by compiled code. Draws and choices are those of the policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np
import torch

from ...agents.policy import Policy
from ...envs.core.kernels.compiling import compiled
from ...envs.core.kernels.philox import uniform_pair
from ...envs.core.physics.updates import SEQUENTIAL, ScheduledSystem
from ...envs.core.rng import POLICY
from ...envs.core.vector import VectorEnv
from .categorical import CategoricalPolicy, cumulated

_MOST = 1000  # rows of a table
_WATCHED = 256  # steps between two calls of `watch`


def is_tabled(policy: Policy, env: VectorEnv) -> TypeGuard[CategoricalPolicy]:
    """Whether `steps_by_table` can play for `policy` in the worlds of `env`, which was reset."""
    system = env.system
    return (
        isinstance(policy, CategoricalPolicy)
        and isinstance(system, ScheduledSystem)
        and type(system).active is ScheduledSystem.active
        and system.schedule.order == SEQUENTIAL
        and not env.may_leave
        and env.action_mask() is None
    )


def steps_by_table(
    policy: CategoricalPolicy,
    env: VectorEnv,
    observation: np.ndarray,
    steps: int,
    total: np.ndarray,
    watch: Callable[[int], object],
) -> tuple[int, np.ndarray]:
    """Make `steps` steps from `observation`; returns how many were made, and what is seen then.

    They are fewer where more than 1000 different observations are met. No world may end before.
    total [worlds]: rewards of all agents are added to it.  watch: called with the steps made, from
    time to time.
    """
    seen, rng = observation.copy(), env.rng(POLICY)
    worlds, agents, size = seen.shape
    n_actions = policy.probabilities(torch.from_numpy(seen[:1, :1])).shape[-1]
    rows, below = np.empty((_MOST, size), seen.dtype), np.empty((_MOST, n_actions))
    last, known = np.empty(_MOST, np.int64), 0
    action = np.zeros((worlds, agents), np.int64)
    drawn: Any = (np.uint64(rng.seed), rng.world.numpy(), rng.clock.numpy(), rng.draw_number)
    made = 0
    while made < steps:
        turn = env.state.turn
        world = choose(seen, turn, *drawn, rows[:known], below, last, action)
        if world >= 0:
            if known == _MOST:
                break
            agent = turn[world, 0]
            rows[known] = seen[world, agent]
            with torch.no_grad():
                sums, most = cumulated(policy.probabilities(torch.from_numpy(seen)))
            below[known], last[known] = sums[world, agent].numpy(), most[world, agent]
            known += 1
            continue
        total += env.run(action, seen).sum(1)
        made += 1
        if made % _WATCHED == 0:
            watch(made)
    return made, seen


@compiled()
def choose(
    observation: np.ndarray,
    turn: np.ndarray,
    seed: np.uint64,
    world: np.ndarray,
    clock: np.ndarray,
    draw: int,
    rows: np.ndarray,
    below: np.ndarray,
    last: np.ndarray,
    action: np.ndarray,
) -> int:
    """Fill `action` [worlds, agents] of the agents whose turn [worlds, 1] it is, 0 of the others.

    rows [rows, size], below [rows, n], last [rows]: the table; what is seen, the sums of chances up
    to each of n actions, and the last action that has a chance. Numbers are those that
    `Rng.uniform(worlds, agents, 1)` draws. Returns -1, or a world whose agent sees no row.
    """
    worlds, _, size = observation.shape
    for w in range(worlds):
        i, row = turn[w, 0], 0
        while row < len(rows):
            j = 0
            while j < size and rows[row, j] == observation[w, i, j]:
                j += 1
            if j == size:
                break
            row += 1
        if row == len(rows):
            return w
        first, second = uniform_pair(seed, world[w], clock[w], draw, i // 2)
        number = second if i % 2 else first
        chosen = 0
        while chosen < last[row] and below[row, chosen] <= number:
            chosen += 1
        action[w, :] = 0
        action[w, i] = chosen
    return -1
