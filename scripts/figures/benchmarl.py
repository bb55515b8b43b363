"""MAPPO by BenchMARL on two discs that meet, beside policies that need no training.

    python -m invariantzoo.figures.benchmarl [--out docs] [--seeds 2] [--frames 72000]

Writes results/benchmarl.json and the last section of benchmarl.md. Needs
`pip install benchmarl "torchrl<0.12"`; what is recorded is not run again.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import invariantzoo
from invariantzoo.agents.policy import make_policy
from invariantzoo.commands.bench import with_section
from invariantzoo.report import figure_parser, recorded, table, write_text
from invariantzoo.training.rl.score import evaluate, summarise

ID, UNTRAINED = "particles-encounter-v0", ("random", "straight", "brake")
WORLDS, HORIZON = 40, 60  # a batch is one episode of every world
SETTINGS = {
    "lr": 3e-4,
    "on_policy_collected_frames_per_batch": WORLDS * HORIZON,
    "on_policy_n_envs_per_worker": WORLDS,
    "on_policy_n_minibatch_iters": 10,
    "on_policy_minibatch_size": 400,
    "evaluation": False,
    "loggers": [],
}
METRICS = ("progress", "collisions")


def main() -> None:
    """Train what is not recorded yet, and write the section."""
    args = figure_parser(__doc__, out=Path("docs"), seeds=2, frames=72_000).parse_args()
    path = args.out / "results/benchmarl.json"
    scores = {name: recorded(path, name, partial(score, name)) for name in UNTRAINED}
    runs = [
        recorded(
            path, f"mappo, {args.frames} frames, seed {seed}", partial(train, seed, args.frames)
        )
        for seed in range(args.seeds)
    ]
    page = args.out / "benchmarl.md"
    text = section(scores, runs, args.frames)
    write_text(page, with_section(page.read_text(encoding="utf-8"), "A result", text))


def score(policy: str) -> dict[str, float]:
    """Means of a policy without training, over held-out episodes."""
    system = invariantzoo.make_system(ID, horizon=HORIZON)
    scores = evaluate(
        system, make_policy(policy, system), episodes=200, seeds=1, deterministic=False
    )
    summary = summarise(scores)
    return {name: float(summary[name]["mean"]) for name in ("return", *METRICS)}


def train(seed: int, frames: int) -> dict[str, float]:
    """Means over the episodes of the last five batches of MAPPO, and its speed."""
    from benchmarl.algorithms import MappoConfig
    from benchmarl.experiment import Callback, Experiment, ExperimentConfig
    from benchmarl.models.mlp import MlpConfig

    batches: list[dict[str, float]] = []

    class Keep(Callback):
        """Keeps means over the episodes of a batch."""

        def __reduce__(self) -> Any:  # BenchMARL pickles its callbacks, and this class is local
            return dict, ()

        def on_batch_collected(self, batch: Any) -> None:
            after = batch["next"]
            ended = after["done"].squeeze(-1)
            names = experiment.test_env.metric_names
            values = after["metrics"][ended].mean(0).tolist()
            rewards = after["agents", "reward"]  # [..., agents, 1]
            total = float(rewards.sum() / ended.sum() / rewards.shape[-2])
            batches.append({"return": total, **dict(zip(names, values, strict=True))})

    settings = ExperimentConfig.get_from_yaml()
    with tempfile.TemporaryDirectory() as folder:
        for name, value in {**SETTINGS, "max_n_frames": frames, "save_folder": folder}.items():
            setattr(settings, name, value)
        experiment = Experiment(
            task=invariantzoo.benchmarl_task(ID, horizon=HORIZON),
            algorithm_config=MappoConfig.get_from_yaml(),
            model_config=MlpConfig.get_from_yaml(),
            critic_model_config=MlpConfig.get_from_yaml(),
            seed=seed,
            config=settings,
            callbacks=[Keep()],
        )
        start = time.process_time()
        experiment.run()
        spent = time.process_time() - start
    n_agents = len(experiment.group_map["agents"])
    means = {
        name: statistics.fmean(batch[name] for batch in batches[-5:])
        for name in ("return", *METRICS)
    }
    return {**means, "first": batches[0]["return"], "speed": n_agents * frames / spent}


def section(scores: dict[str, Any], runs: list[dict[str, Any]], frames: int) -> str:
    """The table, and how it was made."""
    names = ("return", *METRICS)
    rows = [[f"`{policy}`", *(means[name] for name in names)] for policy, means in scores.items()]
    trained = [_mean_of([run[name] for run in runs]) for name in names]
    rows.append([f"MAPPO, {frames:,} frames", *trained])
    speed = statistics.median(run["speed"] for run in runs)
    first = statistics.fmean(run["first"] for run in runs)
    return (
        f"`{ID}`, episodes of {HORIZON} steps, return per agent. MAPPO with BenchMARL's defaults "
        f"but for batches of {WORLDS * HORIZON:,} frames of {WORLDS} worlds, 10 epochs of "
        f"minibatches of 400, and a learning rate of {SETTINGS['lr']:g}: means "
        f"over {_seeds(len(runs))} of the last five batches, whose actions are drawn. The first "
        f"batch had a return of {first:.4g}. It made {speed:,.0f} agent-steps per CPU second, "
        f"learning included.\n\n{table(['policy', *names], rows)}\n"
        "Made by `python -m invariantzoo.figures.benchmarl`."
    )


def _seeds(count: int) -> str:
    return "one seed," if count == 1 else f"{count} seeds, with standard errors,"


def _mean_of(values: list[float]) -> str:
    """Mean and, of several, standard error."""
    mean = f"{statistics.fmean(values):.4g}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.2g}"


if __name__ == "__main__":
    main()
