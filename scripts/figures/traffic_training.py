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
from typing import Any, NamedTuple

import numpy as np

from invariantzoo.agents.baselines.learned import N_WEIGHTS
from invariantzoo.agents.baselines.traffic_guard import GuardedTraffic
from invariantzoo.agents.baselines.traffic_learned import NETWORKS, learned_traffic
from invariantzoo.envs.core.files import write_atomically
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.report import figure_parser

PAIRS, STD, STD_FINAL, LR = 12, 0.08, 0.04, 0.05
CHOICE_SEED = 9_100_000  # of the worlds that settings and seeds are chosen on
_EVERY = 10  # generations between checkpoints
_SIZE = len(NETWORKS) * N_WEIGHTS


class Progress(NamedTuple):
    """Where a training stands: weights, moments of Adam, generations [1]."""

    weights: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    generation: np.ndarray


def play(system: Any, weights: np.ndarray, *, seed: int, first_world: int, worlds: int) -> Any:
    """Whole episodes of every candidate [candidates, size] in the same worlds."""
    import torch

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
    networks = weights.reshape(-1, len(NETWORKS), N_WEIGHTS)
    policy = GuardedTraffic(learned_traffic(system, networks, "learned"))
    for _ in range(system.horizon):
        action = policy(torch.from_numpy(observation), env.rng(POLICY))
        observation, _ = env.advance(action.numpy())
        if not env.alive.any():
            break
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
    """One generation: antithetic candidates, ranks per world, a step of Adam."""
    import torch

    from invariantzoo import make_system
    from invariantzoo.training.rl.es import centred_ranks, gradient_estimate

    number = int(progress.generation[0])
    rng = np.random.default_rng([seed, number])
    share = number / generations
    std = STD * (STD_FINAL / STD) ** share
    noise = rng.normal(size=(PAIRS, _SIZE))
    candidates = progress.weights + std * np.concatenate([noise, -noise])
    outcomes = []
    for layout in ("crossing", "street"):
        n_cars, n_pedestrians = int(rng.integers(4, 9)), int(rng.integers(6, 13))
        system = make_system(
            "particles-traffic-v0", layout=layout, n_cars=n_cars, n_pedestrians=n_pedestrians
        )
        env = play(system, candidates, seed=seed, first_world=number, worlds=1)
        outcomes.append(fitness(env))
    ranks = torch.from_numpy(centred_ranks(np.stack(outcomes, -1)))
    slope = gradient_estimate(torch.from_numpy(noise), ranks, std).numpy()
    mean = 0.9 * progress.mean + 0.1 * slope
    square = 0.999 * progress.square + 0.001 * slope**2
    step = (mean / (1 - 0.9 ** (number + 1))) / (
        np.sqrt(square / (1 - 0.999 ** (number + 1))) + 1e-8
    )
    weights = progress.weights + LR * (1 - 0.9 * share) * step
    return Progress(weights, mean, square, progress.generation + 1)


def save(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


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
    if path.exists():
        with np.load(path) as stored:
            progress = Progress(**stored)
    else:
        first = 0.1 * np.random.default_rng([args.seed, 2**31]).normal(size=_SIZE)
        progress = Progress(first, np.zeros(_SIZE), np.zeros(_SIZE), np.zeros(1, np.int64))
    while progress.generation[0] < args.generations:
        progress = generation(progress, args.seed, args.generations)
        if progress.generation[0] % _EVERY == 0:
            save(path, progress._asdict())
            print(int(progress.generation[0]), f"{time.process_time() - start:.0f} s", flush=True)
    for layout in ("crossing", "street"):
        system = make_system("particles-traffic-v0", layout=layout)
        env = play(system, progress.weights[None], seed=CHOICE_SEED, first_world=0, worlds=20)
        with np.errstate(all="ignore"):
            shown = {name: float(np.nanmean(m)) for name, m in env.episode_metrics().items()}
        print(layout, {name: round(value, 4) for name, value in shown.items()}, flush=True)
    if args.ship:
        weights = progress.weights.reshape(len(NETWORKS), N_WEIGHTS).astype(np.float32)
        save(args.ship, {"weights": weights, "seed": np.array(args.seed)})


if __name__ == "__main__":
    main()
