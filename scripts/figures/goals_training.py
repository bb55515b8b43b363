"""Train drivers of discs with goals by an evolution strategy, on worlds of at most 16 discs.

    python -m invariantzoo.figures.goals_training [--out runs/drivers] [--recipe full] [--seeds 5]

Every generation plays one world of each kind of scene with all candidates: squares of cover 0.05,
0.2, 0.35 (two) and from 0.35 to 0.44, and a circle of 2 to 16 discs, most often exact. Weights and
all that a training goes on from lie in `<out>/<recipe>-<seed>.npz`, written every 20 generations;
what is complete is not done again. Prints how each driver does on worlds of 64 discs that were kept
for choosing, and with --ship FILE writes the best driver there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from invariantzoo.agents.baselines.learned import (
    EVERYTHING,
    N_WEIGHTS,
    Learned,
    used_without,
)
from invariantzoo.envs.core.files import write_atomically
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.report import figure_parser

PAIRS, STD, STD_FINAL, LR = 20, 0.08, 0.03, 0.05
CHOICE_SEED = 9_000_000  # of the worlds that seeds and settings are chosen on
GOAL_RELATIVE = ("r_along", "r_across", "u_along", "u_across")
HANDED = ("I4", "r_across", "u_across", "r_perp", "u_perp", "c_across", "e_perp")
_EVERY = 20  # generations between checkpoints


class Recipe(NamedTuple):
    """What a training changes.

    without: inputs and vectors that the network may not use, see `used_without`.
    effort: price of the mean square of the acceleration.  guarded: whether inside the guard.
    acceleration: that the guard lets discs use.
    covers: of the squares of a generation; 0 stands for one from 0.35 to 0.44.
    """

    without: tuple[str, ...] = ()
    effort: float = 0.0
    guarded: bool = True
    acceleration: float = 20.0
    generations: int = 500
    covers: tuple[float, ...] = (0.05, 0.2, 0.35, 0.35, 0.0)


RECIPES = {
    "full": Recipe(),
    "braking": Recipe(acceleration=8.0),
    "smooth": Recipe(effort=0.02, acceleration=3.0),
    "unguarded": Recipe(guarded=False, covers=(0.05, 0.05, 0.1, 0.2, 0.2)),
    "four": Recipe(GOAL_RELATIVE, generations=120),
    "four-without-I1": Recipe((*GOAL_RELATIVE, "gap"), generations=120),
    "four-without-I2": Recipe((*GOAL_RELATIVE, "I2"), generations=120),
    "four-without-I3": Recipe((*GOAL_RELATIVE, "I3"), generations=120),
    "four-without-I4": Recipe((*GOAL_RELATIVE, "I4"), generations=120),
    "full-short": Recipe(generations=120),
    "mirror-even": Recipe(HANDED, generations=120),
}


def used_by(recipe: Recipe) -> np.ndarray:
    """What the network of a recipe may use."""
    return used_without(*recipe.without) if recipe.without else EVERYTHING


def scenes(recipe: Recipe, rng: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ids and parameters of the worlds of a generation.

    Squares have no more than four times the time that crossing takes, as large ones have.
    """
    for kind in recipe.covers:
        cover = kind or float(rng.uniform(0.35, 0.44))
        n_agents = int(rng.integers(14, 17))
        side = math.sqrt(n_agents * math.pi * 0.2**2 / cover)
        horizon = math.ceil(4 * side / 0.1)
        yield "particles-goals-v0", {"n_agents": n_agents, "cover": cover, "horizon": horizon}
    shift = 0.0 if rng.random() < 0.6 else 0.05
    yield "particles-circle-v0", {"n_agents": int(rng.integers(2, 17)), "shift": shift}


def play(
    system: Any, weights: np.ndarray, recipe: Recipe, *, seed: int, first_world: int, worlds: int
) -> tuple[VectorEnv, np.ndarray]:
    """Whole episodes of every candidate in the same worlds; row c worlds + w is world w of c.

    weights [candidates, N_WEIGHTS]. Returns the worlds at their end and returns per agent [rows].
    """
    import torch

    from invariantzoo.agents.baselines.guard import Guarded
    from invariantzoo.envs.core.rng import POLICY

    env = VectorEnv(system, len(weights) * worlds, seed=seed, autoreset=False, dtype=np.float64)
    original = VectorEnv(system, worlds, seed=seed, first_world=first_world, dtype=np.float64)
    original.reset()
    saved = {
        name: np.tile(value, (len(weights), *[1] * (value.ndim - 1)))
        if isinstance(value, np.ndarray)
        else value
        for name, value in original.save().items()
    }
    observation = env.restore(saved)
    driver: Any = Learned(system, weights=weights, used=used_by(recipe))
    if recipe.guarded:
        driver = Guarded(driver, max_acceleration=recipe.acceleration)
    total = np.zeros(len(observation))
    for _ in range(system.horizon):
        action = driver(torch.from_numpy(observation), env.rng(POLICY))
        observation, reward = env.advance(action.numpy())
        total += reward.mean(1)
        if not env.alive.any():
            break
    return env, total


def fitness(env: VectorEnv, returns: np.ndarray, recipe: Recipe) -> np.ndarray:
    """How well the worlds of `env` went [worlds], by what an episode has left in its state.

    Without a guard that is the return, in which overlaps weigh by depth and time.
    """
    if not recipe.guarded:
        return returns
    state = env.state
    system: Any = env.system
    arrived, hit = state.arrival_time >= 0, state.hit > 0
    ok = arrived & ~hit
    whole = system.horizon * system.dt
    time = np.where(arrived, state.arrival_time, whole)
    straight = np.maximum(state.distance, system.radius) / system.speed
    left = np.linalg.norm(state.goal - state.position, axis=-1)
    score = (
        2 * ok
        + np.where(ok, straight / np.maximum(time, straight), 0)
        - 3 * hit
        - 0.3 * left
        - 0.5 * time / whole
        - recipe.effort * state.effort / state.steps
    )
    return score.mean(1)


class Progress(NamedTuple):
    """Where a training stands: weights, moments of Adam [N_WEIGHTS], generations."""

    weights: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    generation: np.ndarray  # [1]


def generation(progress: Progress, recipe: Recipe, seed: int) -> Progress:
    """One generation: antithetic candidates, ranks per world, a step of Adam."""
    import torch

    from invariantzoo import make_system
    from invariantzoo.training.rl.es import centred_ranks, gradient_estimate

    number = int(progress.generation[0])
    rng = np.random.default_rng([seed, number])
    share = number / recipe.generations
    std = STD * (STD_FINAL / STD) ** share
    noise = rng.normal(size=(PAIRS, N_WEIGHTS))
    candidates = progress.weights + std * np.concatenate([noise, -noise])
    outcomes = []
    for id, parameters in scenes(recipe, rng):
        env, returns = play(
            make_system(id, **parameters),
            candidates,
            recipe,
            seed=seed,
            first_world=number,
            worlds=1,
        )
        outcomes.append(fitness(env, returns, recipe))
    ranks = torch.from_numpy(centred_ranks(np.stack(outcomes, -1)))
    slope = gradient_estimate(torch.from_numpy(noise), ranks, std).numpy()
    mean = 0.9 * progress.mean + 0.1 * slope
    square = 0.999 * progress.square + 0.001 * slope**2
    step = (mean / (1 - 0.9 ** (number + 1))) / (
        np.sqrt(square / (1 - 0.999 ** (number + 1))) + 1e-8
    )
    weights = progress.weights + LR * (1 - 0.9 * share) * step
    return Progress(weights, mean, square, progress.generation + 1)


def train(recipe: Recipe, seed: int, path: Path) -> np.ndarray:
    """Weights [N_WEIGHTS] of a recipe and a seed; goes on from `path` if it is there."""
    if path.exists():
        with np.load(path) as stored:
            progress = Progress(**stored)
    else:
        start = 0.1 * np.random.default_rng([seed, 2**31]).normal(size=N_WEIGHTS)
        nothing = np.zeros(N_WEIGHTS)
        progress = Progress(start, nothing, nothing, np.zeros(1, np.int64))
    while progress.generation[0] < recipe.generations:
        progress = generation(progress, recipe, seed)
        if progress.generation[0] % _EVERY == 0:
            save(path, progress._asdict())
    return progress.weights


def save(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def choice_scores(weights: np.ndarray, recipe: Recipe, worlds: int = 10) -> dict[str, float]:
    """Scores on worlds of 64 discs that no table uses: by kind of scene and metric."""
    from invariantzoo import make_system

    scores = {}
    squares = {
        str(cover): make_system("particles-goals-v0", n_agents=64, cover=cover)
        for cover in (0.05, 0.2, 0.35)
    }
    circles = {
        f"circle {n}": make_system("particles-circle-v0", n_agents=n) for n in (8, 16, 32, 64)
    }
    for name, system in {**squares, **circles}.items():
        env, _ = play(system, weights[None], recipe, seed=CHOICE_SEED, first_world=0, worlds=worlds)
        metrics = env.episode_metrics()
        for metric in ("ok", "hit", "time_ratio", "effort"):
            with np.errstate(all="ignore"):
                scores[f"{name} {metric}"] = float(np.mean(metrics[metric]))
    return scores


def main() -> None:
    """Train what is missing, print how each seed does, and ship the best."""
    import torch

    parser = figure_parser(__doc__, out=Path("runs/drivers"), seeds=5, recipe="full")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--ship", type=Path, help="write the seed that does best there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe, trained = RECIPES[args.recipe], {}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        start = time.process_time()
        weights = train(recipe, seed, args.out / f"{args.recipe}-{seed}.npz")
        scores = choice_scores(weights, recipe)
        trained[seed] = sum(scores[name] for name in scores if name.endswith("ok")), weights
        shown = {name: round(value, 4) for name, value in scores.items()}
        print(args.recipe, seed, f"{time.process_time() - start:.0f} CPU s", shown, flush=True)
    if args.ship:
        best = max(trained, key=lambda seed: trained[seed][0])
        save(args.ship, {"weights": trained[best][1].astype(np.float32), "seed": np.array(best)})
        print(f"seed {best} is in {args.ship}")


if __name__ == "__main__":
    main()
