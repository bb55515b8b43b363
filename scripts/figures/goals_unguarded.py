"""Train drivers of discs that need no guard: they imitate the guarded driver on their own ways.

    python -m invariantzoo.figures.goals_unguarded [--out runs/drivers] [--seeds 5] [--ship FILE]

A round plays the driver as it is, without a guard, on worlds of at most 16 discs, asks the teacher
(the weights that ship as `learned`) for the velocity that its guard would have let pass in each of
those states, and takes steps of Adam on

    mean |v - v_teacher|^2 + PRICE mean sum_j max(0, v.n_j - gap_j / (2 dt) + MARGIN)^2,

the second sum over the half-planes of the guard: what is learned is not to cross them. Weights and
all that a training goes on from lie in `<out>/learned-unguarded-<seed>.npz`, written every round.
Prints how each driver does on worlds of 64 discs that were kept for choosing, and with --ship FILE
writes there the driver that touches least.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invariantzoo.agents.baselines.learned import N_WEIGHTS, Learned, shipped
from invariantzoo.agents.networks.driver import DriverNetwork
from invariantzoo.driver_search import save_arrays, ship
from invariantzoo.envs.core.files import load_arrays
from invariantzoo.envs.core.observation import by_name
from invariantzoo.figures.goals_training import Recipe, choice_scores
from invariantzoo.report import figure_parser

ROUNDS, STEPS, BATCH, WORLDS = 30, 300, 4096, 16
LR, LR_FINAL = 2e-3, 1e-4
PRICE, MARGIN = 60.0, 0.2  # of crossing a half-plane; what is kept from it, as a velocity
SLACK = 0.005  # length that the guard of the teacher keeps
COVERS = (0.05, 0.1, 0.2, 0.2, 0.3, 0.35)
_STATES = 0.5  # share of the steps whose states are learned from


def systems(rng: np.random.Generator) -> Iterator[Any]:
    """Worlds of a round: squares of several covers and a circle."""
    from invariantzoo import make_system

    for cover in COVERS:
        horizon = math.ceil(4 * math.sqrt(16 * math.pi * 0.2**2 / cover) / 0.1)
        yield make_system("particles-goals-v0", n_agents=16, cover=cover, horizon=horizon)
    shift = 0.0 if rng.random() < 0.6 else 0.05
    yield make_system("particles-circle-v0", n_agents=16, shift=shift)


def visited(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Observations [rows, size] of states on the driver's own ways."""
    from invariantzoo.envs.core.rng import POLICY
    from invariantzoo.envs.core.vector import VectorEnv

    rows = []
    for system in systems(rng):
        env = VectorEnv(system, WORLDS, seed=int(rng.integers(2**31)), dtype=np.float64)
        driver, observation = Learned(system, weights=weights[None]), env.reset()
        for _ in range(system.horizon):
            if rng.random() < _STATES:
                rows.append(observation.reshape(-1, observation.shape[-1]).copy())
            action = driver(torch.from_numpy(observation), env.rng(POLICY))
            observation, _ = env.advance(action.numpy())
            if not env.alive.any():
                break
    return np.concatenate(rows)


def taught(system: Any, teacher: np.ndarray, observation: np.ndarray) -> np.ndarray:
    """Velocities [rows, 2] of the guarded teacher, without noise."""
    from invariantzoo.agents.baselines.guard import guard_velocity

    driver = Learned(system, weights=teacher[None], jitter=0.0)
    velocity = driver.velocity(observation, np.empty((0, 2)))
    guard_velocity(system, observation, velocity, SLACK)
    return velocity


def crossing(system: Any, observation: Tensor, velocity: Tensor) -> Tensor:
    """By how much each velocity [rows, 2] crosses the half-planes of its neighbours [rows, k]."""
    seen = by_name(system, observation)
    distance = seen["I1"].clamp(min=1e-12).sqrt()
    along, across = velocity[:, :1], velocity[:, 1:]
    closing = (along * seen["r_along"] + across * seen["r_across"]) / distance
    allowed = (distance - seen["contact"]) / (2 * system.dt)
    return (closing - allowed + MARGIN).relu() * (seen["contact"] > 0)


def train(teacher: np.ndarray, seed: int, path: Path, rounds: int = ROUNDS) -> np.ndarray:
    """Weights [N_WEIGHTS] after all rounds; goes on from `path` if it is there."""
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

    from invariantzoo import make_system

    system = make_system("particles-goals-v0", n_agents=16)
    network = DriverNetwork(system, 0)
    zeros = np.zeros(N_WEIGHTS)
    progress = {"weights": teacher, "mean": zeros, "square": zeros, "round": np.zeros(1, int)}
    if path.exists():
        progress = load_arrays(path)
    vector_to_parameters(torch.from_numpy(progress["weights"]).float(), network.parameters())
    mean, square = (torch.from_numpy(progress[name]) for name in ("mean", "square"))
    for number in range(int(progress["round"][0]), rounds):
        rng = np.random.default_rng([seed, number])
        weights = parameters_to_vector(network.parameters()).detach()
        observation = visited(weights.double().numpy(), rng)
        wanted = torch.from_numpy(taught(system, teacher, observation)).float()
        rows = torch.from_numpy(observation).float()
        lr = LR + (LR_FINAL - LR) * number / rounds
        for step in range(number * STEPS + 1, (number + 1) * STEPS + 1):
            batch = torch.from_numpy(rng.integers(0, len(rows), BATCH))
            velocity = network(rows[batch])[:, -2:]
            away = ((velocity - wanted[batch]) ** 2).sum(-1).mean()
            crossed = (crossing(system, rows[batch], velocity) ** 2).sum(-1).mean()
            slopes = torch.autograd.grad(away + PRICE * crossed, tuple(network.parameters()))
            slope = parameters_to_vector(slopes).double()
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope**2
            scale = (square / (1 - 0.999**step)).sqrt() + 1e-8
            weights = weights - (lr * mean / (1 - 0.9**step) / scale).float()
            vector_to_parameters(weights, network.parameters())
        progress = {
            "weights": weights.double().numpy(),
            "mean": mean.numpy(),
            "square": square.numpy(),
            "round": np.array([number + 1]),
        }
        save_arrays(path, progress)
    return progress["weights"]


def main() -> None:
    """Train what is missing, print how each seed does, and ship the one that touches least."""
    parser = figure_parser(__doc__, out=Path("runs/drivers"), seeds=5)
    parser.add_argument("--ship", type=Path, help="write the seed that does best there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    teacher, trained = shipped("learned")[0], {}
    for seed in range(args.seeds):
        start = time.process_time()
        weights = train(teacher, seed, args.out / f"learned-unguarded-{seed}.npz")
        scores = choice_scores(weights, Recipe(guarded=False))
        trained[seed] = scores["0.05 hit"] + scores["0.2 hit"], weights
        shown = {name: round(value, 4) for name, value in scores.items()}
        print(seed, f"{time.process_time() - start:.0f} CPU s", shown, flush=True)
    if args.ship:
        best = min(trained, key=lambda seed: trained[seed][0])
        ship(args.ship, trained[best][1], best)


if __name__ == "__main__":
    main()
