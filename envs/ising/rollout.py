"""Compiled rollouts of Ising spins under their own policies.

A rollout makes many steps, draws the policy's actions itself and packs the spins as suits it:

    one attempt after the other    a byte per spin; any update, any bonds
    colours                        a byte per spin and sublattice; heat bath on a checkerboard
    words                          a bit per spin, 64 worlds that share their parameters to a word
"""

from __future__ import annotations

from ..core.kernels.rollouts import RolloutPlan
from ..core.physics.kernels.updates import CHECKERBOARD
from .rollout_bytes import run_one_by_one
from .rollout_colours import run_colours
from .rollout_words import in_words, run_words
from .step import Spins

POLICIES = ("heat-bath", "metropolis", "wolff", "cold")
RECORDED = ("energy", "magnetization", "abs_magnetization", "loss")


def compiled_rollout(
    state: Spins, plan: RolloutPlan, policy: str, update: int, cooling: float
) -> None:
    """Move arrays on, in place, and write the records [records, worlds, 4] named by RECORDED."""
    equal_bonds = state.coupling.shape[1] == 1
    if not (policy == "heat-bath" and update == CHECKERBOARD and equal_bonds and cooling == 1.0):
        run_one_by_one(state, plan, POLICIES.index(policy), update, cooling)
    elif in_words(state):
        run_words(state, plan)
    else:
        run_colours(state, plan)
