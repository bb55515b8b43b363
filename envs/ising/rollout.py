"""Fused runs under the policies of `envs/ising/equilibrium.py`.

A fused run makes many steps, draws the policy's actions itself and packs the spins as suits it:

    one attempt after the other    a byte per spin; any update, any bonds
    colours                        a byte per spin and sublattice; heat bath on a checkerboard
    words                          a bit per spin, 64 worlds that share their parameters to a word
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .rollout_bytes import run_one_by_one
from .rollout_colours import run_colours
from .rollout_words import in_words, run_words
from .step import UPDATES

if TYPE_CHECKING:
    from .equilibrium import Ising, State

POLICIES = ("heat-bath", "metropolis", "wolff")
RECORDED = ("energy", "magnetization", "abs_magnetization", "loss")


def fused_run(
    system: Ising,
    state: State,
    policy: str,
    steps: int,
    seed: int,
    world: Any,
    clock: Any,
    every: int,
) -> np.ndarray:
    """Move a state of arrays on, in place; records [records, worlds, 4], named by RECORDED."""
    records = np.empty((steps // every, len(state.spin), len(RECORDED)))
    place = (np.uint64(seed), np.asarray(world), np.asarray(clock), records)
    even = system.update == "checkerboard" and system.bonds == "uniform"
    run: Callable[..., None] = run_one_by_one
    if even and policy == "heat-bath" and system.cooling == 1.0:
        run = run_words if in_words(state) else run_colours
        run(*state[:5], steps, every, *place)
        return records
    code = (UPDATES.index(system.update), POLICIES.index(policy))
    run(*state[:5], system.cooling, *code, steps, every, *place)
    return records
