"""Which invariants it takes to pass each other: the encounter with I1, with I1..I3 and with all.

    python -m invariantzoo.figures.encounter [--out docs] [--seeds 5]

Trains the pair policy by descent through the dynamics (250 updates of 48 worlds, 45 steps) with
three sets of invariants and five seeds each, tests every policy on 500 random and 100 exactly
head-on encounters of 60 steps, and writes encounter.md, its picture and encounter.json.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from invariantzoo.report import (
    figure_parser,
    page_figure,
    page_legend,
    recorded,
    save_figure,
    table,
    write_text,
)

SETS = {"I1": ("I1",), "I1..I3": ("I1", "I2", "I3"), "I1..I4": ("I1", "I2", "I3", "I4")}
HEAD_ON = {"impact": 0.0, "angle": 0.0}
METRICS = ("contact", "progress", "loss")
UPDATES = 250


def run(seen: tuple[str, ...] | None, seed: int) -> dict[str, float]:
    """Scores of one trained policy on both tests; `seen` None drives straight."""
    from invariantzoo import make_system
    from invariantzoo.agents.policy import make_policy, network_policy
    from invariantzoo.training.rl.descent import DescentConfig, Trainer
    from invariantzoo.training.rl.score import evaluate

    id = "particles-encounter-v0"
    if seen is None:
        policy = make_policy("straight", make_system(id))
    else:
        config = DescentConfig(n_worlds=48, rollout=45, lr=1e-2)
        trainer = Trainer(make_system(id, seen=seen), config, seed, UPDATES)
        for _ in trainer:
            pass
        policy = network_policy(trainer.network)
    test_scores: dict[str, float] = {}
    for test, episodes, parameters in (("random", 500, {}), ("head-on", 100, HEAD_ON)):
        system = make_system(id, **({"seen": seen} if seen else {}), **parameters)
        scores = evaluate(system, policy, episodes=episodes, seeds=1, deterministic=True)
        test_scores |= {f"{test} {name}": float(scores[name].mean()) for name in METRICS}
    return test_scores


def main() -> None:
    """Compute what is missing, then print and write the page."""
    import torch

    args = figure_parser(__doc__, out=Path("docs"), seeds=5).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "encounter.json"
    results = {"straight": [recorded(store, "straight", lambda: run(None, 0))]}
    for name, seen in SETS.items():
        results[name] = [
            recorded(store, f"{name} seed {seed}", partial(run, seen, seed))
            for seed in range(args.seeds)
        ]
    page = _page(results)
    print(page)
    write_text(args.out / "encounter.md", page)
    save_figure(_figure(results), args.out / "images" / "encounter.png")


def _page(results: dict[str, list[dict[str, float]]]) -> str:
    columns = [f"{test} {name}" for test in ("random", "head-on") for name in METRICS]
    rows: list[list[Any]] = []
    for name, runs in results.items():
        rows.append([name, *(" ".join(f"{scores[c]:.3f}" for scores in runs) for c in columns)])
    return f"""# Four invariants pass an exact head-on meeting; three collide, one stops

`particles-encounter-v0`: two discs meet in open space. The pair policy sees only the named
invariants and has only the vectors that go with them (r with I1, u with I2 and I3, and the
perpendicular ones with I4). Every number of every seed is shown: contact is the share of encounters
in which the discs touch, progress the mean of v.w / w.w, loss the mean loss per agent and step.

{table(["seen", *columns], rows)}
![contact and progress on exactly head-on encounters](images/encounter.png)

Without the pseudo-scalar I4 a policy is mirror-symmetric: an exactly head-on pair stays on its line
and can only collide or, with I1 alone, stop. With I4 both agents keep to one side.

Training: descent through the dynamics, {UPDATES} updates of 48 worlds and 45 steps, Adam, learning
rate 0.01 falling as a cosine, seeds 0 to {len(results["I1"]) - 1}; tests: 500 random encounters and
100 exactly head-on ones in random directions, 60 steps, on held-out seeds. The claim is the one of
"Autonomous particles" (arXiv 2301.10077); set-up and numbers are ours. To reproduce:
`python -m invariantzoo.figures.encounter`.
"""


def _figure(results: dict[str, list[dict[str, float]]]) -> Any:
    figure, panels = page_figure(1, 2, 3.2)
    for axes, metric in zip(panels[0], ("contact", "progress"), strict=True):
        for column, runs in enumerate(results.values()):
            for offset, test in ((-0.12, "random"), (0.12, "head-on")):
                values = [scores[f"{test} {metric}"] for scores in runs]
                colour = "tab:blue" if test == "random" else "tab:red"
                axes.plot([column + offset] * len(values), values, "o", ms=5, alpha=0.6, c=colour)
        axes.set_xticks(range(len(results)), list(results))
        axes.set_ylabel(metric)
        axes.set_ylim(-0.05, 1.1)
    axes.plot([], [], "o", c="tab:blue", label="random meetings")
    axes.plot([], [], "o", c="tab:red", label="exactly head-on")
    page_legend(figure, 2)
    return figure


if __name__ == "__main__":
    main()
