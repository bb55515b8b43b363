"""What compiled rollouts share: how far to go, with which numbers, and where to write."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class RolloutPlan(NamedTuple):
    """What a compiled rollout is told beside the state, which it moves on in place."""

    steps: Any  # how many to make
    every: Any  # how many a record stands for
    seed: Any  # uint64
    world: Any  # [worlds] index of each world
    clock: Any  # [worlds] steps made since seeding
    records: Any  # [steps // every, worlds, values], to be written


def rollout_arrays(state: Any, kind: Any) -> tuple[Any, Any]:
    """A copy of a state of tensors, and its memory as the NamedTuple of arrays `kind`."""
    after = type(state)(*(tensor.clone() for tensor in state))
    return after, kind(*(tensor.numpy() for tensor in after))


def rollout_plan(steps: int, every: int, rng: Any, values: int) -> RolloutPlan:
    """A plan with empty records of so many values for the worlds of a generator, an `Rng`."""
    world, clock = np.asarray(rng.world), np.asarray(rng.clock)
    records = np.empty((steps // every, len(world), values))
    return RolloutPlan(steps, every, np.uint64(rng.seed), world, clock, records)
