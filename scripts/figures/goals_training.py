"""Train drivers of discs with goals by an evolution strategy, on worlds of at most 16 discs.

    python -m invariantzoo.figures.goals_training [--out runs/drivers] [--recipe full] [--seeds 5]

Every generation plays one world of each kind of scene with all candidates: squares of cover 0.05,
0.2, 0.35 (two) and from 0.35 to 0.44, and two circles of 2 to 16 discs, most often exact. Weights
and all that a training goes on from lie in `<out>/<recipe>-<seed>.npz`, written every 20
generations; what is complete is not done again. Prints how each driver does on worlds of 64 discs
that were kept for choosing, and with --ship FILE writes the best driver there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from invariantzoo import driver_search
from invariantzoo.agents.baselines.learned import (
    EVERYTHING,
    N_WEIGHTS,
    Learned,
    used_without,
)
from invariantzoo.driver_search import (
    Progress,
    Search,
    next_generation,
    save_arrays,
    ship,
    stored_progress,
)
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.report import figure_parser

SEARCH = Search(pairs=20, std=0.08, std_final=0.03)
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
    circles: of a generation.
    """

    without: tuple[str, ...] = ()
    effort: float = 0.0
    guarded: bool = True
    acceleration: float = 8.0
    generations: int = 500
    covers: tuple[float, ...] = (0.05, 0.2, 0.35, 0.35, 0.0)
    circles: int = 2


_SHORT: dict[str, Any] = {"generations": 120, "covers": (0.05, 0.2, 0.35, 0.35), "circles": 1}
RECIPES = {
    "full": Recipe(),
    "smooth": Recipe(effort=0.02, acceleration=2.7),
    "free": Recipe(acceleration=20.0),
    "four": Recipe(GOAL_RELATIVE, **_SHORT),
    "four-without-I1": Recipe((*GOAL_RELATIVE, "gap"), **_SHORT),
    "four-without-I2": Recipe((*GOAL_RELATIVE, "I2"), **_SHORT),
    "four-without-I3": Recipe((*GOAL_RELATIVE, "I3"), **_SHORT),
    "four-without-I4": Recipe((*GOAL_RELATIVE, "I4"), **_SHORT),
    "full-short": Recipe(**_SHORT),
    "mirror-even": Recipe(HANDED, **_SHORT),
}


def used_by(recipe: Recipe) -> np.ndarray:
    """What the network of a recipe may use."""
    return used_without(*recipe.without) if recipe.without else EVERYTHING


def scenes(recipe: Recipe, rng: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ids and parameters of the worlds of a generation.

    Squares have no more than four times the time that crossing takes, as large ones have.
    """
    dense = float(rng.uniform(0.35, 0.44))
    for cover in (kind or dense for kind in recipe.covers):
        n_agents = int(rng.integers(14, 17))
        side = math.sqrt(n_agents * math.pi * 0.2**2 / cover)
        horizon = math.ceil(4 * side / 0.1)
        yield "particles-goals-v0", {"n_agents": n_agents, "cover": cover, "horizon": horizon}
    for _ in range(recipe.circles):
        shift = 0.0 if rng.random() < 0.6 else 0.05
        yield "particles-circle-v0", {"n_agents": int(rng.integers(2, 17)), "shift": shift}


def play(
    system: Any, weights: np.ndarray, recipe: Recipe, *, seed: int, first_world: int, worlds: int
) -> VectorEnv:
    """The worlds of drivers with weights [candidates, N_WEIGHTS] at their end; `driver_search`."""
    from invariantzoo.agents.baselines.guard import Guarded

    driver: Any = Learned(system, weights=weights, used=used_by(recipe))
    if recipe.guarded:
        driver = Guarded(driver, max_acceleration=recipe.acceleration)
    return driver_search.play(
        driver, system, len(weights), seed=seed, first_world=first_world, worlds=worlds
    )


def fitness(env: VectorEnv, recipe: Recipe) -> np.ndarray:
    """How well the worlds of `env` went [worlds], by what an episode has left in its state."""
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


def generation(progress: Progress, recipe: Recipe, seed: int) -> Progress:
    """One generation of a recipe: a world of each of its scenes."""
    from invariantzoo import make_system

    number = int(progress.generation[0])

    def outcomes(rng: np.random.Generator, candidates: np.ndarray) -> list[np.ndarray]:
        scores = []
        for id, parameters in scenes(recipe, rng):
            system = make_system(id, **parameters)
            env = play(system, candidates, recipe, seed=seed, first_world=number, worlds=1)
            scores.append(fitness(env, recipe))
        return scores

    share = number / recipe.generations
    return next_generation(progress, outcomes, SEARCH, seed=seed, share=share)


def train(recipe: Recipe, seed: int, path: Path) -> np.ndarray:
    """Weights [N_WEIGHTS] of a recipe and a seed; goes on from `path` if it is there."""
    progress = stored_progress(path, seed, N_WEIGHTS)
    while progress.generation[0] < recipe.generations:
        progress = generation(progress, recipe, seed)
        if progress.generation[0] % _EVERY == 0:
            save_arrays(path, progress._asdict())
    return progress.weights


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
        env = play(system, weights[None], recipe, seed=CHOICE_SEED, first_world=0, worlds=worlds)
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
        ship(args.ship, trained[best][1], best)


if __name__ == "__main__":
    main()
