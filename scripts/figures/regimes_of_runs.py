"""Which regime of learning each layer of a policy is in: PPO on a crowd, several optimizers.

    python -m invariantzoo.figures.regimes_of_runs [--out docs] [--seeds 5]

A policy is trained for 25 updates; the optimizer's next 400 steps then give the exponent of every
tensor. Writes regimes.md, its pictures and json.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import figure_parser, recorded, table, write_text

ID, BEFORE, WINDOW = "particles-crowd-v0", 25, 400
SYSTEM = {"n_agents": 12}
SETTINGS = {"n_worlds": 16, "batch_size": 512, "width": 16, "critic_width": 16}
CGD = {"optimizer": "cgd", "cgd_tau2": 99.0}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain descent, averaged (alpha 0)": {"optimizer": "cgd", "cgd_alpha": 0.0, "lr": 0.03},
    "Adam": {},
    "CGD diagonal, alpha 1/4": {**CGD, "cgd_alpha": 0.25, "lr": 3e-3},
    "CGD row, alpha 1/2": {**CGD, "metric": "row", "lr": 3e-4},
    "CGD full, alpha 1/2": {**CGD, "metric": "full", "lr": 3e-3},
    "CGD full, alpha 1": {**CGD, "metric": "full", "cgd_alpha": 1.0, "cgd_eps": 1e-4, "lr": 3e-4},
}


def watch(optimizer: str, seed: int) -> dict[str, Any]:
    """Per tensor the exponent with its error, and the loss before the window."""
    import invariantzoo
    from invariantzoo.commands.regimes import described, estimates
    from invariantzoo.training.geometry.regimes import StepRecorder
    from invariantzoo.training.rl.algorithms import make_config, make_trainer

    system = invariantzoo.make_system(ID, **SYSTEM)
    config = make_config(ID, "ppo", {**SETTINGS, **OPTIMIZERS[optimizer]})
    rows = config.n_worlds * config.n_steps * system.n_agents
    trainer = make_trainer("ppo", system, config, seed=seed, steps=100 * rows)
    updates = iter(trainer)
    losses = [next(updates).loss for _ in range(BEFORE)]
    steps = StepRecorder(WINDOW)
    trainer.watch(steps)
    while len(steps) < WINDOW:
        next(updates)
    exponents = estimates(steps)
    points = {
        name: [estimate.variances.log10().tolist(), estimate.powers.log10().tolist()]
        for name, estimate in exponents.items()
    }
    return {
        "loss": [losses[0], losses[-1]],
        "parts": described(steps, exponents),
        "points": points,
    }


def main() -> None:
    """Compute what is missing, then print and write the page."""
    import torch

    args = figure_parser(__doc__, out=Path("docs"), seeds=5).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "regimes.json"
    runs = {
        name: [
            recorded(store, f"{name}, seed {k}", partial(watch, name, k)) for k in range(args.seeds)
        ]
        for name in OPTIMIZERS
    }
    page = _page(runs)
    print(page)
    write_text(args.out / "regimes.md", page)
    _draw(runs, args.out / "images" / "regimes-of-runs.png")


def _alpha(runs: list[dict[str, Any]], layer: str) -> tuple[float, float, list[str]]:
    """Mean exponent of a part over seeds, its error, and the verdicts."""
    rows = [row for run in runs for row in run["parts"] if row["part"] == layer and "alpha" in row]
    if not rows:
        return np.nan, np.nan, ["undecided"]
    alphas = [row["alpha"] for row in rows]
    errors = [row["alpha_error"] for row in rows]
    error = max(
        float(np.sqrt(np.mean(np.square(errors)) / len(rows))),
        float(np.std(alphas) / np.sqrt(len(rows))),
    )
    return float(np.mean(alphas)), error, [row["regime"] for row in rows]


def _parts(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    first = next(iter(runs.values()))[0]
    return [row["part"] for row in first["parts"]]


def _page(results: dict[str, list[dict[str, Any]]]) -> str:
    parts = _parts(results)
    rows = []
    for layer in parts:
        row = [f"`{layer}`"]
        for runs in results.values():
            alpha, error, _ = _alpha(runs, layer)
            row.append("" if np.isnan(alpha) else f"{alpha:.2f} ± {error:.2f}")
        rows.append(row)
    losses = [
        [name, *(f"{np.mean([run['loss'][k] for run in runs]):.3f}" for k in (0, 1))]
        for name, runs in results.items()
    ]
    ranks = [
        [name, *(f"{_rank(runs, layer):.1f}" for layer in parts)] for name, runs in results.items()
    ]
    return f"""# Regimes of learning: Adam's layers lie between equilibration and efficient

With kappa the covariance of gradients, a learner whose metric is g = kappa^alpha makes updates with
covariance kappa^(1 - 2 alpha). In the eigenbasis of kappa, the variances of updates therefore have
slope 1 - 2 alpha against its eigenvalues on logarithmic scales, and alpha can be read off.

| alpha | regime | example | noise of updates |
| --- | --- | --- | --- |
| 0 | equilibration | plain descent | as that of gradients |
| 1/2 | efficient learning | Adam's family | the same in all directions |
| 1 | quantum | natural gradient | the inverse metric |

The regimes are those of "Geometric Learning Dynamics" (Vanchurin,
[arXiv 2504.14728](https://arxiv.org/abs/2504.14728)), of which the abstract and the introduction
were available to us; estimators, tests and bounds (1/4 and 3/4) are ours.

## Measure it

```python
from stable_baselines3 import PPO

from invariantzoo import RegimeCallback

model = PPO("MlpPolicy", "Pendulum-v1", n_steps=256, seed=0)
model.learn(1024, callback=RegimeCallback(window=100))
```

logs `regimes/alpha`, its error and R², the effective rank (Tr C)²/Tr C² of gradients, and Mauchly's
sphericity over its degrees of freedom (about 1 at alpha = 1/2). `train ID --set regimes=100` writes
the same to `progress.csv`, and

```
invariantzoo regimes runs/crowd
```

says it of every layer of a run, with a picture. In Python, of any gradients and updates:

```python
import torch

from invariantzoo import estimate_alpha, regime, sphericity

generator = torch.Generator().manual_seed(0)
gradients = torch.randn(2000, 6, generator=generator) * torch.logspace(-1, 1, 6)
updates = gradients / gradients.std(0)  # alpha = 1/2 by hand
found = estimate_alpha(gradients, updates)
print(round(found.alpha, 2), regime(found), sphericity(updates).p > 0.05)
```

R² is small at alpha = 1/2, where there is no slope to explain; trust the standard error. All modes
are used where there are 15 samples per parameter, otherwise the leading ones (as many as the
effective rank, at least four). Updates must be noise rather than drift: take a stretch of training
where the loss hardly falls.

What tests hold exactly: exponents 0, 1/4, 1/2, 3/4, 1 set by hand are found within 0.01, and 0,
1/2, 1 closed loop through `CGD`, which estimates its own metric; sphericity is accepted at 1/2
and rejected elsewhere; stationary loss and relaxation of `quadratic-regimes-v0` within 2 %; the
plateau of the mixed metric eps + kappa^1/2 + zeta kappa; and neutral resampling,
`resampling-neutral-v0`, comes out at alpha = 1 although drift is often counted as equilibration.

## A real run, layer by layer

PPO on `{ID}` with 12 discs, pair network: {BEFORE} updates of training, then {WINDOW} steps of the
optimizer. Gradients are those of minibatches after clipping. Exponents are means over
{len(next(iter(results.values())))} seeds; the error is the larger of the regression's and of the
scatter over seeds.

{table(["part", *results], rows)}
![exponents of every part](images/regimes-of-runs.png)

{_verdicts(results)}

Loss per agent and step in the first update, and in the last one before the window:

{table(["optimizer", "first", "last"], losses)}
Effective rank of the gradients:

{table(["optimizer", *parts], ranks)}
To reproduce: `python -m invariantzoo.figures.regimes_of_runs`.
"""


def _verdicts(results: dict[str, list[dict[str, Any]]]) -> str:
    verdict_lines = []
    for name, runs in results.items():
        verdicts = [v for layer in _parts(results)[:-1] for v in _alpha(runs, layer)[2]]
        counts = {v: verdicts.count(v) for v in dict.fromkeys(verdicts)}
        shares = ", ".join(f"{100 * n / len(verdicts):.0f} % {v}" for v, n in counts.items())
        verdict_lines.append(f"- {name}: {shares}")
    return "Verdicts over layers and seeds:\n\n" + "\n".join(verdict_lines)


def _rank(runs: list[dict[str, Any]], layer: str) -> float:
    return float(
        np.mean(
            [row["effective_rank"] for run in runs for row in run["parts"] if row["part"] == layer]
        )
    )


def _draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    from invariantzoo.report import page_figure, save_figure

    parts = _parts(results)
    figure, grid = page_figure(3, 2, 10.4)
    bands = (
        ("equilibration", 0.0, "tab:blue"),
        ("efficient", 0.5, "tab:green"),
        ("quantum", 1.0, "tab:red"),
    )
    estimates = {
        name: [_alpha(runs, layer)[:2] for layer in parts] for name, runs in results.items()
    }
    ends = [
        alpha + side * 2 * error
        for of in estimates.values()
        for alpha, error in of
        for side in (-1, 1)
        if np.isfinite(alpha + error)
    ]
    for axes, (name, of) in zip(grid.ravel(), estimates.items(), strict=True):
        for label, middle, colour in bands:
            axes.axvspan(middle - 0.25, middle + 0.25, color=colour, alpha=0.12, lw=0)
            axes.text(middle, -1.1, label, ha="center", va="center", fontsize=7)
        for i, (alpha, error) in enumerate(of):
            axes.errorbar(alpha, i, xerr=2 * error, fmt="o", ms=4, c="k", capsize=2, lw=1)
        axes.set(xlim=(min(ends) - 0.1, max(*ends, 1.3) + 0.1), ylim=(len(parts) - 0.4, -1.9))
        axes.set_yticks(range(len(parts)), parts, fontsize=8)
        axes.set_title(name)
        axes.set_xlabel("alpha, two standard errors")
    for axes in grid[:, 1]:
        axes.set_yticklabels([])
    save_figure(figure, path)


if __name__ == "__main__":
    main()
