"""Train the drivers of traffic by an evolution strategy, inside the guard.

    python -m invariantzoo.figures.traffic_training [--out runs/traffic] [--seed 0]
        [--generations 60] [--ship FILE]

Every generation plays one crossing and one street with all candidates: two networks each, one for
who starts on the road and one for who starts on a pavement. Weights and all that a training goes on
from lie in `<out>/<seed>.npz`, written every 10 generations. Prints scores on worlds that are kept
for choosing; --ship writes the weights to FILE.
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
    env, _ = driver_search.play(
        policy, system, len(weights), seed=seed, first_world=first_world, worlds=worlds
    )
    return env


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


def main() -> None:
    """Train, print scores, and ship the weights."""
    import torch

    from invariantzoo import make_system

    parser = figure_parser(__doc__, out=Path("runs/traffic"), generations=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ship", type=Path, help="write the weights there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path, start = args.out / f"{args.seed}.npz", time.process_time()
    progress = stored_progress(path, args.seed, _SIZE)
    while progress.generation[0] < args.generations:
        progress = generation(progress, args.seed, args.generations)
        if progress.generation[0] % _EVERY == 0:
            save_arrays(path, progress._asdict())
            print(int(progress.generation[0]), f"{time.process_time() - start:.0f} s", flush=True)
    for layout in ("crossing", "street"):
        system = make_system("particles-traffic-v0", layout=layout)
        env = play(system, progress.weights[None], seed=CHOICE_SEED, first_world=0, worlds=20)
        with np.errstate(all="ignore"):
            shown = {name: float(np.nanmean(m)) for name, m in env.episode_metrics().items()}
        print(layout, {name: round(value, 4) for name, value in shown.items()}, flush=True)
    if args.ship:
        weights = progress.weights.reshape(len(NETWORKS), N_WEIGHTS).astype(np.float32)
        save_arrays(args.ship, {"weights": weights, "seed": np.array(args.seed)})


if __name__ == "__main__":
    main()
