"""What scripts that train drivers share: episodes of all candidates, generations, progress.

The estimate of the gradient and the ranks are those of `training/rl/es.py`; beyond that trainer a
script plays several kinds of worlds in a generation and scores them by what episodes leave.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from invariantzoo.envs.core.files import load_arrays, write_atomically
from invariantzoo.envs.core.vector import VectorEnv


class Search(NamedTuple):
    """Antithetic pairs of a generation, noise at the start and the end, and learning rate."""

    pairs: int
    std: float
    std_final: float
    lr: float = 0.05


class Progress(NamedTuple):
    """Where a training stands: weights, moments of Adam [size], generations [1]."""

    weights: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    generation: np.ndarray


def stored_progress(path: Path, seed: int, size: int) -> Progress:
    """What `path` holds, or the start of a training of `size` weights if it is not there."""
    if path.exists():
        return Progress(**load_arrays(path))
    start = 0.1 * np.random.default_rng([seed, 2**31]).normal(size=size)
    nothing = np.zeros(size)
    return Progress(start, nothing, nothing, np.zeros(1, np.int64))


def play(
    policy: Any, system: Any, candidates: int, *, seed: int, first_world: int, worlds: int
) -> VectorEnv:
    """The ends of episodes of every candidate in the same worlds; row c worlds + w is w of c."""
    import torch

    from invariantzoo.envs.core.rng import POLICY
    from invariantzoo.training.rl.es import SameWorlds

    same = SameWorlds(system, candidates, worlds, seed, dtype=np.float64)
    env, observation = same.env, same.start(first_world)
    for _ in range(system.horizon):
        action = policy(torch.from_numpy(observation), env.rng(POLICY))
        observation, _ = env.advance(action.numpy())
        if not env.alive.any():
            break
    return env


def next_generation(
    progress: Progress,
    outcomes: Callable[[np.random.Generator, np.ndarray], list[np.ndarray]],
    search: Search,
    *,
    seed: int,
    share: float,
) -> Progress:
    """One generation: antithetic candidates, ranks per world, a step of Adam.

    outcomes: from a generator and candidates [2 pairs, size] to how well each did, a vector [2
    pairs] for every world.  share: of the training that is done.
    """
    import torch

    from invariantzoo.training.rl.es import centred_ranks, gradient_estimate

    number = int(progress.generation[0])
    rng = np.random.default_rng([seed, number])
    std = search.std * (search.std_final / search.std) ** share
    noise = rng.normal(size=(search.pairs, progress.weights.size))
    candidates = progress.weights + std * np.concatenate([noise, -noise])
    ranks = torch.from_numpy(centred_ranks(np.stack(outcomes(rng, candidates), -1)))
    slope = gradient_estimate(torch.from_numpy(noise), ranks, std).numpy()
    mean = 0.9 * progress.mean + 0.1 * slope
    square = 0.999 * progress.square + 0.001 * slope**2
    step = (mean / (1 - 0.9 ** (number + 1))) / (
        np.sqrt(square / (1 - 0.999 ** (number + 1))) + 1e-8
    )
    weights = progress.weights + search.lr * (1 - 0.9 * share) * step
    return Progress(weights, mean, square, progress.generation + 1)


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write an .npz whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def ship(path: Path, weights: np.ndarray, seed: int) -> None:
    """Write weights that are to ship, in single precision, with the seed that made them."""
    save_arrays(path, {"weights": weights.astype(np.float32), "seed": np.array(seed)})
    print(f"seed {seed} is in {path}")
