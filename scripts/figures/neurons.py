"""Rates that neurons learn to choose, beside the best constant rate and the exact filter.

    python -m invariantzoo.figures.neurons [--out docs]

PPO and descent, five seeds each, on neurons-v0 with default parameters. Writes neurons.md, its
picture and json; runs that are in the json are not made again.
"""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import (
    figure_parser,
    page_figure,
    page_legend,
    recorded,
    save_figure,
    table,
    write_text,
)

ID, SEEDS = "neurons-v0", (0, 1, 2, 3, 4)
STEPS = {"ppo": 3_000_000, "descent": 200_000}  # agent-steps of a training
EXACT = ("sgd", "constant", "kalman")
WORLDS = 20_000  # of a course over the steps of an episode


def main() -> None:
    """Train what is missing, then print and write the page."""
    import torch

    args = figure_parser(__doc__, out=Path("docs")).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "neurons.json"
    exact = {name: recorded(store, name, partial(built_in, name)) for name in EXACT}
    learned = {
        algo: [
            recorded(store, f"{algo} {STEPS[algo]}, seed {seed}", partial(trained, algo, seed))
            for seed in SEEDS
        ]
        for algo in STEPS
    }
    _picture(args.out / "images" / "neurons.png", exact, learned)
    page = _page(exact, learned)
    print(page)
    write_text(args.out / "neurons.md", page)


def built_in(name: str) -> dict[str, Any]:
    """What an exact policy scores, and its course."""
    import invariantzoo
    from invariantzoo.agents.policy import make_policy

    system = invariantzoo.make_system(ID)
    return measured(system, make_policy(name, system))


def trained(algo: str, seed: int) -> dict[str, Any]:
    """The same of a policy after training; and CPU seconds that it took."""
    import invariantzoo
    from invariantzoo.training.rl.algorithms import make_config, make_trainer

    system = invariantzoo.make_system(ID)
    trainer = make_trainer(algo, system, make_config(ID, algo, {}), seed=seed, steps=STEPS[algo])
    start = time.process_time()
    for _ in trainer:
        pass
    seconds = time.process_time() - start
    return {**measured(system, trainer.policy()), "seconds": round(seconds, 1)}


def measured(system: Any, policy: Any) -> dict[str, Any]:
    """Means over episodes, and mean w^2 and step factor after every step of one."""
    from invariantzoo.agents.player import Player
    from invariantzoo.envs.core.vector import VectorEnv

    env = VectorEnv(system, WORLDS, seed=1000, autoreset=False)
    player, seen = Player(env, policy, deterministic=True), env.reset()
    squared, factor, total = [], [], 0.0
    for _ in range(system.horizon):
        action = player.act(seen)
        step = env.step(action, unbounded=player.unbounded)
        seen = step.observation
        factor.append(float(np.exp(action).mean()))
        squared.append(float(np.square(env.state.weight).mean()))
        total += float(step.reward.mean())
    half = step.metrics["weight_squared"]
    return {
        "return": total,
        "settled": float(half.mean()),
        "error": float(half.std() / math.sqrt(WORLDS)),
        "squared": [float(f"{value:.4g}") for value in squared],
        "factor": [float(f"{value:.4g}") for value in factor],
    }


def _page(exact: dict[str, Any], learned: dict[str, list[dict[str, Any]]]) -> str:
    from invariantzoo.envs.neurons.exact import (
        best_constant_rate,
        mean_variance,
        stationary_variance,
    )

    low, high, start, steps = 0.2 / math.e, 0.2 * math.e, 25.0, 200
    best = best_constant_rate(low, high, start, steps)
    floor, settled = stationary_variance(low), stationary_variance(best)
    rows: list[list[Any]] = [[name, of["return"], of["settled"], ""] for name, of in exact.items()]
    for algo, runs in learned.items():
        for seed, run in zip(SEEDS, runs, strict=True):
            seconds = f"{run['seconds']:.0f}"
            rows.append([f"{algo}, seed {seed}", run["return"], run["settled"], seconds])
    runs = [run for of in learned.values() for run in of]
    below = sum(run["settled"] < settled for run in runs)
    better = sum(run["return"] > exact["constant"]["return"] for run in runs)
    means = {algo: np.mean([run["settled"] for run in of]) for algo, of in learned.items()}
    shares = " and ".join(f"{settled / mean:.1f} ({algo})" for algo, mean in means.items())
    mean_course = {algo: np.mean([run["factor"] for run in of], 0) for algo, of in learned.items()}
    ends = {algo: course[[0, -1]] for algo, course in mean_course.items()}
    courses = " and ".join(f"from {a:.2f} to {b:.2f} ({algo})" for algo, (a, b) in ends.items())
    title = f"Neurons learn to choose rates: {below} of {len(runs)} runs settle lower"
    return f"""# {title} than the best constant rate

[`{ID}`](environments/{ID}.md) with default parameters: a linear neuron on Gaussian data, whose
weight starts {start**0.5:g} (standard deviation) from its best value 0 and has {steps} steps. Its
agent chooses the factor of every step, from 1/e to e times the rate 0.2; it sees a sample, neither
time nor weight.

The constant rate of the highest return is {best:.4f}, exactly (mean w^2 of an episode
{mean_variance(best, start, steps):.4f}); it settles at w^2 = {settled:.4f}. Trained agents settle
lower, by a factor of {shares} in the mean, and {better} of {len(runs)} have
the higher return too. No constant rate they could choose settles below {floor:.4f}, and that one is
slow: its w^2 has the mean {mean_variance(low, start, steps):.4f} over an episode.

What they learn depends on the sample more than on how late it is. The mean factor goes
{courses} from the first step of an episode to the last: those of
descent settle lower than the best constant rate although their mean step is longer.

![weight and step over an episode](images/neurons.png)

{table(["policy", "return", "settled w^2", "CPU s of training"], rows)}
`return` is that of whole episodes, mean of {WORLDS:,}; `settled w^2` is the mean over the second
half of them (1 is the variance of the target; the loss is (1 + w^2) / 2). `kalman` takes the exact
rates of the filter of Kalman, beyond what agents may choose: no rates do better.
PPO has {STEPS["ppo"]:,} agent-steps, descent {STEPS["descent"]:,}.

To reproduce: `python -m invariantzoo.figures.neurons`.
"""


def _picture(path: Path, exact: dict[str, Any], learned: dict[str, list[dict[str, Any]]]) -> None:
    """w^2 and the step factor over an episode, of exact policies and of every trained one."""
    figure, axes = page_figure(1, 2, 3.4)
    colours = {"ppo": "tab:red", "descent": "tab:blue"}
    for axis, of, title in zip(
        axes[0], ("squared", "factor"), ("mean w^2", "factor of the step"), strict=True
    ):
        for name, look in zip(EXACT, ("-", "--", ":"), strict=True):
            axis.plot(exact[name][of], look, color="black", lw=1.2, label=name)
        for algo, runs in learned.items():
            for k, run in enumerate(runs):
                axis.plot(run[of], color=colours[algo], lw=0.8, label=None if k else algo)
        axis.set(yscale="log", xlabel="step of an episode", title=title)
    page_legend(figure, 5, axes[0, 0])
    save_figure(figure, path)


if __name__ == "__main__":
    main()
