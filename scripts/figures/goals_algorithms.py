"""Drivers of discs with goals by evolution strategy, PPO and descent, at equal CPU time.

    python -m invariantzoo.figures.goals_algorithms [--out docs] [--seconds 60] [--seeds 3]

All train the network `driver` on the reward, without a guard, on the worlds of the tutorial (14
discs, covers from 0.1 to 0.35); a short run first tells how many agent-steps an algorithm makes in
--seconds of CPU time. Writes results/goals-algorithms.json, of which `figures/goals.py` makes a
table; only what is missing there is computed.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import figure_parser, recorded

ID = "particles-goals-v0"
ALGORITHMS = ("es", "ppo", "descent")
PARAMETERS: dict[str, Any] = {"n_agents": 14, "cover": (0.1, 0.35), "horizon": 100}
COVERS = (0.05, 0.2)
EPISODES, SECONDS = 30, 60
_PROBE = 10.0  # CPU seconds


def trainer(algo: str, *, seed: int, steps: int) -> Any:
    """A trainer of the network `driver` with the settings of its id."""
    from invariantzoo import make_system
    from invariantzoo.training.rl.algorithms import make_trainer

    system = make_system(ID, **PARAMETERS)
    return make_trainer(algo, system, _config(algo), seed=seed, steps=steps)


def _config(algo: str) -> Any:
    from invariantzoo.training.rl.algorithms import make_config

    return make_config(ID, algo, {"network": "driver"})


def rate(algo: str) -> float:
    """Agent-steps per CPU second, from updates of about `_PROBE` seconds."""
    updates = iter(trainer(algo, seed=0, steps=10**9))
    first = next(updates).steps  # compiles
    start, steps = time.process_time(), first
    while time.process_time() - start < _PROBE:
        steps = next(updates).steps
    return (steps - first) / (time.process_time() - start)


def trained(algo: str, seed: int, seconds: float, steps_per_second: float) -> dict[str, Any]:
    """Scores of a driver after so much CPU time, bare and inside the guard."""
    from invariantzoo import Guarded, evaluate, make_system, summarise
    from invariantzoo.training.rl.algorithms import load_policy

    start = time.process_time()
    run = trainer(algo, seed=seed, steps=max(1, int(seconds * steps_per_second)))
    for _ in run:
        pass
    scores: dict[str, Any] = {"CPU s": round(time.process_time() - start), "steps": run.steps}
    for cover in COVERS:
        system = make_system("particles-goals-v0", n_agents=64, cover=cover)
        policy = load_policy(algo, system, _config(algo), run.state_dict())
        drivers: dict[str, Any] = {"bare": policy, "guarded": Guarded(policy, system=system)}
        for name, driver in drivers.items():
            results = summarise(
                evaluate(system, driver, episodes=EPISODES, seeds=1, deterministic=True)
            )
            for metric in ("ok", "hit", "time_ratio"):
                value = results[metric]["mean"] if metric in results else np.nan
                scores[f"{name} {cover} {metric}"] = round(float(value), 4)
    return scores


def main() -> None:
    """Train and score what is missing."""
    import torch

    parser = figure_parser(__doc__, out=Path("docs"), seconds=SECONDS, seeds=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "goals-algorithms.json"
    for algo in ALGORITHMS:
        speed = recorded(store, f"{algo}: agent-steps per CPU s", partial(rate, algo))
        for seed in range(args.seeds):
            compute = partial(trained, algo, seed, args.seconds, speed)
            print(algo, seed, recorded(store, f"{algo} {seed}", compute), flush=True)


if __name__ == "__main__":
    main()
