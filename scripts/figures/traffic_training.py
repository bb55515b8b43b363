"""Train the drivers of traffic by an evolution strategy, inside the guard.

    python -m invariantzoo.figures.traffic_training [--out runs/traffic] [--seeds 5]
        [--first-seed 0] [--generations 60] [--ship FILE]

Every generation plays one crossing and one street with all candidates: two networks each, one for
who starts on the road and one for who starts on a pavement. Weights and all that a training goes on
from lie in `<out>/<seed>.npz`, written every 10 generations. Prints the scores of every seed on
worlds that are kept for choosing; --ship writes the one with the most flow there to FILE.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo import driver_search
from invariantzoo.agents.baselines.learned import N_WEIGHTS
from invariantzoo.agents.baselines.traffic_guard import GuardedTraffic
from invariantzoo.agents.baselines.traffic_learned import NETWORKS, learned_traffic
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

SEARCH = Search(pairs=12, std=0.08, std_final=0.04)
CHOICE_SEED = 9_100_000  # of the worlds that settings and seeds are chosen on
_EVERY = 10  # generations between checkpoints
_SIZE = len(NETWORKS) * N_WEIGHTS


def play(system: Any, weights: np.ndarray, *, seed: int, first_world: int, worlds: int) -> Any:
    """The worlds at their end, of candidates [candidates, size]; see `driver_search`."""
    networks = weights.reshape(-1, len(NETWORKS), N_WEIGHTS)
    policy = GuardedTraffic(learned_traffic(system, networks, "learned"))
    return driver_search.play(
        policy, system, len(weights), seed=seed, first_world=first_world, worlds=worlds
    )


def fitness(env: VectorEnv) -> np.ndarray:
    """How well worlds went [worlds]: arrivals, times, and how long the last one took."""
    state = env.state
    system: Any = env.system
    arrived, whole = state.arrival_time >= 0, system.horizon * system.dt
    spent = np.where(arrived, state.arrival_time, whole)
    left = np.linalg.norm(state.goal - state.position, axis=-1)
    score = 2.0 * arrived - 2 * spent / whole - 0.3 * left * ~arrived
    score -= 0.002 * state.effort * system.dt / spent
    return score.mean(1) - 2 * spent.max(1) / whole


def generation(progress: Progress, seed: int, generations: int) -> Progress:
    """One generation: a crossing and a street."""
    from invariantzoo import make_system

    number = int(progress.generation[0])

    def outcomes(rng: np.random.Generator, candidates: np.ndarray) -> list[np.ndarray]:
        scores = []
        for layout in ("crossing", "street"):
            n_cars, n_pedestrians = int(rng.integers(4, 9)), int(rng.integers(6, 13))
            system = make_system(
                "particles-traffic-v0", layout=layout, n_cars=n_cars, n_pedestrians=n_pedestrians
            )
            env = play(system, candidates, seed=seed, first_world=number, worlds=1)
            scores.append(fitness(env))
        return scores

    return next_generation(progress, outcomes, SEARCH, seed=seed, share=number / generations)


def train(seed: int, generations: int, path: Path) -> np.ndarray:
    """Weights [2 N_WEIGHTS] of a seed; goes on from `path` if it is there."""
    progress = stored_progress(path, seed, _SIZE)
    while progress.generation[0] < generations:
        progress = generation(progress, seed, generations)
        if progress.generation[0] % _EVERY == 0:
            save_arrays(path, progress._asdict())
    return progress.weights


def choice_scores(weights: np.ndarray, worlds: int = 20) -> dict[str, float]:
    """Scores on worlds that no table uses: by layout and metric."""
    from invariantzoo import make_system

    scores = {}
    for layout in ("crossing", "street"):
        system = make_system("particles-traffic-v0", layout=layout)
        env = play(system, weights[None], seed=CHOICE_SEED, first_world=0, worlds=worlds)
        metrics = env.episode_metrics()
        for name in ("ok", "flow", "contact", "over_limit", "time_ratio"):
            scores[f"{layout} {name}"] = float(np.nanmean(metrics[name]))
    return scores


def main() -> None:
    """Train what is missing, print how each seed does, and ship the best."""
    import torch

    parser = figure_parser(__doc__, out=Path("runs/traffic"), seeds=5, generations=60)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--ship", type=Path, help="write the seed that does best there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    trained = {}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        start = time.process_time()
        weights = train(seed, args.generations, args.out / f"{seed}.npz")
        scores = choice_scores(weights)
        trained[seed] = scores["crossing flow"] + scores["street flow"], weights
        shown = {name: round(value, 4) for name, value in scores.items()}
        print(seed, f"{time.process_time() - start:.0f} CPU s", shown, flush=True)
    if args.ship:
        best = max(trained, key=lambda seed: trained[seed][0])
        ship(args.ship, trained[best][1].reshape(len(NETWORKS), N_WEIGHTS), best)


if __name__ == "__main__":
    main()
