"""CGD beside Adam in reinforcement learning: tuned on some tasks, frozen, reported on others.

    python -m invariantzoo.figures.descent_agents [--out docs]

Every optimizer multiplies the learning rate that its task has for Adam by one factor for all tasks.
The factor is chosen on the tuning tasks (two seeds), then frozen and reported with five fresh seeds
on the other tasks. Writes descent-agents.md, its picture and json.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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

FACTORS = (0.3, 1.0, 3.0, 10.0, 30.0)
TUNING_SEEDS, SEEDS = (100, 101), (0, 1, 2, 3, 4)


class Task(NamedTuple):
    """An id, how it is trained, and for how many updates."""

    id: str
    algo: str
    updates: int
    settings: dict[str, Any]
    system: dict[str, Any]


PPO = {"n_worlds": 32, "batch_size": 1024}
CROWD = {"n_agents": 12}
# An id is in one half only. Left out: resampling-neutral-v0, whose loss falls to zero whatever its
# agents do, and descent where hops or flips are drawn, through which no gradient flows.
TUNING = (
    Task("particles-crowd-v0", "ppo", 30, {**PPO, "n_worlds": 16}, CROWD),
    Task("particles-crowd-v0", "descent", 40, {}, CROWD),
    Task("ising-equilibrium-v0", "ppo", 25, PPO, {}),
    Task("ising-transport-v0", "ppo", 40, PPO, {}),
    Task("ising-transport-v0", "descent", 60, {}, {}),
    Task("tasep-ring-v0", "ppo", 40, PPO, {}),
)
REPORTED = (
    Task("particles-encounter-v0", "ppo", 60, {**PPO, "n_worlds": 64}, {}),
    Task("particles-encounter-v0", "descent", 60, {}, {}),
    Task("quadratic-regimes-v0", "ppo", 60, PPO, {}),
    Task("quadratic-regimes-v0", "descent", 80, {}, {}),
    Task("cluster-relaxation-v0", "ppo", 40, PPO, {}),
    Task("cluster-relaxation-v0", "descent", 40, {}, {}),
    Task("ising-anneal-v0", "ppo", 60, PPO, {}),
    Task("tasep-gates-v0", "ppo", 60, PPO, {}),
    Task("tasep-open-v0", "ppo", 60, PPO, {}),
)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {},
    "CGD diagonal (9, 99)": {"optimizer": "cgd", "cgd_tau2": 99.0},
    "CGD row (9, 99)": {"optimizer": "cgd", "metric": "row", "cgd_tau2": 99.0},
    "CGD lowrank (9, 99)": {"optimizer": "cgd", "metric": "lowrank", "cgd_tau2": 99.0},
}


def name_of(task: Task) -> str:
    """What a task is called."""
    return f"{task.id}, {task.algo}"


def run(task: Task, optimizer: str, factor: float, seed: int) -> dict[str, list[float]]:
    """Loss per agent and step, agent-steps and CPU seconds after every update."""
    import invariantzoo
    from invariantzoo.training.rl.algorithms import make_config, make_trainer

    system = invariantzoo.make_system(task.id, **task.system)
    usual = make_config(task.id, task.algo, task.settings).lr
    settings = {**task.settings, **OPTIMIZERS[optimizer], "lr": factor * usual}
    config = make_config(task.id, task.algo, settings)
    rows = make_trainer(task.algo, system, config, seed=seed, steps=1).per_update
    trainer = make_trainer(task.algo, system, config, seed=seed, steps=rows * task.updates)
    start = time.process_time()
    loss, steps, seconds = [], [], []
    for update in trainer:
        loss.append(float(f"{update.loss:.5g}"))
        steps.append(float(update.steps))
        seconds.append(round(time.process_time() - start, 3))
    return {"loss": loss, "steps": steps, "seconds": seconds}


def final(history: dict[str, list[float]]) -> float:
    """Mean loss of the last fifth of the updates; a run that broke counts as one that stood still.

    The first update's loss is that of an untrained policy.
    """
    loss = np.array(history["loss"])
    value = float(loss[-len(loss) // 5 :].mean())
    return value if np.isfinite(value) else float(loss[0])


def gain(history: dict[str, list[float]], reference: float, first: float) -> float:
    """Share of the way from the first loss to Adam's final one at its usual rate, at least -1."""
    return max((first - final(history)) / (first - reference), -1.0)


def main() -> None:
    """Compute what is missing, then print and write the page."""
    import torch

    args = figure_parser(__doc__, out=Path("docs")).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "descent-agents.json"

    def known(task: Task, optimizer: str, factor: float, seed: int) -> dict[str, list[float]]:
        key = f"{name_of(task)} {task.updates}, {optimizer}, x{factor:g}, seed {seed}"
        return recorded(store, key, partial(run, task, optimizer, factor, seed))

    tuning = {
        optimizer: {
            factor: _gains(known, TUNING, optimizer, factor, TUNING_SEEDS) for factor in FACTORS
        }
        for optimizer in OPTIMIZERS
    }
    best = {
        name: max(FACTORS, key=lambda f: float(np.mean(tuning[name][f]))) for name in OPTIMIZERS
    }
    print(best, flush=True)
    runs = {
        name: {
            name_of(task): [known(task, name, best[name], seed) for seed in SEEDS]
            for task in REPORTED
        }
        for name in OPTIMIZERS
    }
    gains = {name: _gains(known, REPORTED, name, best[name], SEEDS) for name in OPTIMIZERS}
    page = _page(tuning, best, runs, gains)
    print(page)
    write_text(args.out / "descent-agents.md", page)
    save_figure(_figure(runs), args.out / "images" / "descent-agents.png")


def _gains(known: Any, tasks: Any, optimizer: str, factor: float, seeds: Any) -> np.ndarray:
    """Gains [tasks, seeds] of an optimizer over Adam at its usual learning rate."""
    gains = []
    for task in tasks:
        usual = [known(task, "Adam", 1.0, seed) for seed in seeds]
        reference = float(np.mean([final(history) for history in usual]))
        first = float(np.mean([history["loss"][0] for history in usual]))
        gains.append([gain(known(task, optimizer, factor, s), reference, first) for s in seeds])
    return np.array(gains)


def _interval(values: np.ndarray) -> str:
    """Interquartile mean and its 95 % interval; seeds are drawn anew within each task."""
    from invariantzoo.training.rl.score import summary

    scores = summary(values)
    return f"{scores['iqm']:.4g} [{scores['ci95'][0]:.4g}, {scores['ci95'][1]:.4g}]"


def _page(tuning: Any, best: Any, runs: Any, gains: dict[str, np.ndarray]) -> str:
    tuned = [
        [
            name,
            *(f"{np.mean(by[factor]):.3f}" for factor in FACTORS),
            f"x{best[name]:g}" + " (edge)" * (best[name] in (FACTORS[0], FACTORS[-1])),
        ]
        for name, by in tuning.items()
    ]
    whole = []
    for name, values in gains.items():
        seconds = [
            np.mean([history["seconds"][-1] for history in runs[name][name_of(task)]])
            / np.mean([history["seconds"][-1] for history in runs["Adam"][name_of(task)]])
            for task in REPORTED
        ]
        same = _same_time(runs, name)
        whole.append([name, _interval(values), _interval(same), f"{np.mean(seconds):.2f}"])
    each = [
        [
            name_of(task),
            task.updates,
            *(_interval(_losses(runs[name][name_of(task)])) for name in OPTIMIZERS),
        ]
        for task in REPORTED
    ]
    return f"""# In reinforcement learning the diagonal metric is as good as Adam

PPO and descent through the dynamics with Adam and with CGD. Every optimizer multiplies the learning
rate that the task has for Adam by one factor, chosen on the tuning tasks and then frozen. A gain is
the share of the way from the untrained loss to Adam's final loss at its usual learning rate: 1 is
as good as Adam there. Final is the mean loss of the last fifth of the updates. Budgets are small:
the updates of every task stand in the tables. An id is either for tuning or for the verdict. Left
out are `resampling-neutral-v0`, whose loss falls to zero whatever its agents do, and descent where
hops or flips are drawn, through which no gradient flows.

CPU times of "row" and "lowrank" were taken on another day, on a busier machine, than those of the
other two: read their ratios as upper limits.

## Tuning

Mean gain over the tuning tasks, seeds {TUNING_SEEDS[0]} and {TUNING_SEEDS[1]}; a choice at an end
of the grid is marked.

{table(["tuning task", "updates"], [[name_of(task), task.updates] for task in TUNING])}

{table(["optimizer", *(f"x{factor:g}" for factor in FACTORS), "chosen"], tuned)}
## Verdict on the other tasks, five fresh seeds

Interquartile means with 95 % intervals (seeds drawn anew within each task).

{table(["optimizer", "gain, same samples", "gain, same CPU time", "CPU time / Adam's"], whole)}
{_verdict(gains)}

The gain hides what single tasks say; final loss per agent and step:

{table(["task", "updates", *OPTIMIZERS], each)}
With two thirds of the tasks a tie, the plain advice is: the diagonal metric is Adam with another
memory and can replace it; row and low-rank metrics are no default for reinforcement learning. At
ten and thirty times the learning rate both are better than Adam on gates, and the row metric in PPO
on clusters; the low-rank one is worse in PPO on encounters. The annealing of spins gives no
verdict: both lie below Adam until the worlds start anew, hot, within the last fifth that the mean
is of. Nor does descent on quadratic-regimes-v0: all optimizers end it with the same loss, digit for
digit, which counts as a tie above.
Single runs of Adam break too (descent on clusters).

![loss against agent-steps](images/descent-agents.png)

Lines are medians over the seeds; the bands, from the best to the worst, may leave a panel.

CPU seconds are those of whole training on a busy machine. "Same CPU time" takes every run as far as
the quickest optimizer of its task and seed had come.

To reproduce: `python -m invariantzoo.figures.descent_agents`.
"""


def _losses(histories: list[dict[str, list[float]]]) -> np.ndarray:
    return np.array([[final(history)] for history in histories])


def _same_time(runs: Any, name: str) -> np.ndarray:
    """Gains [tasks, seeds] when every run stops at the CPU time of the quickest one."""
    gains = []
    for task in REPORTED:
        adam = runs["Adam"][name_of(task)]
        reference = float(np.mean([final(history) for history in adam]))
        first = float(np.mean([history["loss"][0] for history in adam]))
        row = []
        for i, history in enumerate(runs[name][name_of(task)]):
            stop = min(runs[other][name_of(task)][i]["seconds"][-1] for other in OPTIMIZERS)
            n = max(1, int(np.searchsorted(history["seconds"], stop, "right")))
            row.append(gain({key: series[:n] for key, series in history.items()}, reference, first))
        gains.append(row)
    return np.array(gains)


def _verdict(gains: dict[str, np.ndarray]) -> str:
    from invariantzoo.training.rl.score import summary

    adam = summary(gains["Adam"])
    verdicts = []
    for name, values in gains.items():
        if name == "Adam":
            continue
        scores = summary(values)
        if scores["ci95"][0] > adam["ci95"][1]:
            verdicts.append(f"{name} is better than Adam")
        elif scores["ci95"][1] < adam["ci95"][0]:
            verdicts.append(f"{name} is worse than Adam")
        else:
            verdicts.append(f"{name} cannot be told from Adam")
    return f"At equal samples: {'; '.join(verdicts)} (by non-overlapping intervals)."


def _figure(runs: Any) -> Any:
    columns = 3
    figure, grid = page_figure(-(-len(REPORTED) // columns), columns, 7.2)
    for axes, task in zip(grid.ravel(), REPORTED, strict=False):
        medians = []
        for i, name in enumerate(OPTIMIZERS):
            histories = runs[name][name_of(task)]
            x = np.mean([history["steps"] for history in histories], 0) / 1000
            losses = np.array([history["loss"] for history in histories])
            medians.append(np.median(losses, 0))
            axes.plot(x, medians[-1], c=f"C{i}", lw=1.1, label=name)
            axes.fill_between(x, losses.min(0), losses.max(0), color=f"C{i}", alpha=0.12, lw=0)
        low, high = np.quantile(medians, (0.0, 0.985))  # bands may leave the panel
        axes.set_ylim(low - 0.08 * (high - low), high + 0.12 * (high - low))
        axes.set_title(name_of(task).replace("-v0", ""), fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("thousand agent-steps")
    for axes in grid[:, 0]:
        axes.set_ylabel("loss")
    for axes in grid.ravel()[len(REPORTED) :]:
        axes.set_axis_off()
    page_legend(figure, 4, grid[0, 0])
    return figure


if __name__ == "__main__":
    main()
