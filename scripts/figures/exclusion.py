"""Exclusion processes: the phase diagram measured over the exact one, and gates that learn.

    python -m invariantzoo.figures.exclusion [--root .]

Writes docs/exclusion.md, docs/images/exclusion.png and docs/results/exclusion.json.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.tasep import exact
from invariantzoo.report import PAGE_WIDTH, figure_parser, recorded, save_figure, table, write_text

SITES, SWEEPS, BURN_IN, GRID = 100, 4000, 2000, 15
GATES, STEPS, SEEDS, HELD_OUT = "tasep-gates-v0", 120_000, 5, 2**40
TEXT = """# Hopping particles agree with exact results; learned gates reach 98 % of the best

![Space-time diagram, currents and profiles](images/exclusion.png)

Above left: an open chain of {sites} sites on the line where low and high density coexist, time
downwards, a row per sweep. Above right: current of {points} worlds with gates of their own (dots)
over the exact current of {sites} sites, and the limits of the phases of the infinite chain
(dashed); over all worlds the current is off by {off:.1e} (root mean square), {z:.2f} of the
standard errors that 20 blocks give. Below: profiles of 4,000 chains of 40 sites, one snapshot each
(dots), over the matrix product.

## Gates that learn

PPO with the settings of `{gates}`, {steps:,} agent-steps, judged by the exact current at the
mean action of 64 held-out episodes. Reward of a policy: J - 0.1 (alpha + beta). Its exact maximum
is {best:.5f} at alpha = beta = {alpha:.3f}; both gates open give {opened:.5f}.

{table}
Made by `python -m invariantzoo.figures.exclusion`.
"""


def main() -> None:
    """Measure, train, draw, write."""
    import torch

    root = figure_parser(__doc__, root=Path(".")).parse_args().root
    torch.set_num_threads(1)
    path = root / "docs/results/exclusion.json"
    diagram = recorded(path, "diagram", measured)
    alpha, _, best = exact.best_gates(50, 0.1)
    rows = []
    for seed in range(SEEDS):
        gates = recorded(path, f"gates {seed}", partial(trained, seed))
        value = float(exact.current(50, *gates) - 0.1 * sum(gates))
        rows.append([seed, *gates, value, value / best])
    draw(root / "docs/images/exclusion.png", diagram)
    known = exact.current(SITES, diagram["alpha"], diagram["beta"])
    error = np.array(diagram["current"]) - known
    text = TEXT.format(
        sites=SITES,
        points=len(known),
        off=np.sqrt(np.mean(error**2)),
        z=np.sqrt(np.mean((error / np.array(diagram["error"])) ** 2)),
        gates=GATES,
        steps=STEPS,
        best=best,
        alpha=alpha,
        opened=float(exact.current(50, 1, 1)) - 0.2,
        table=table(["seed", "alpha", "beta", "reward", "of the maximum"], rows),
    )
    write_text(root / "docs/exclusion.md", text)
    print(text)


def measured() -> dict[str, list[float]]:
    """Gates, mean current, its error from 20 blocks, and density of a batch of worlds."""
    system: Any = invariantzoo.make_system(
        "tasep-open-v0", n_sites=SITES, alpha=(0.05, 1.0), beta=(0.05, 1.0)
    )
    env = VectorEnv(system, GRID**2, seed=0)
    env.reset()
    env.rollout("hop", BURN_IN * system.sweep, every=BURN_IN * system.sweep)
    series = env.rollout("hop", SWEEPS * system.sweep, every=10 * system.sweep)
    blocks = series["current"].reshape(20, -1, GRID**2).mean(1)
    return {
        "alpha": env.state.alpha[:, 0].tolist(),
        "beta": env.state.beta[:, 0].tolist(),
        "current": blocks.mean(0).tolist(),
        "error": (blocks.std(0, ddof=1) / np.sqrt(20)).tolist(),
        "density": series["density"].mean(0).tolist(),
    }


def trained(seed: int) -> list[float]:
    """Mean alpha and beta of a trained policy's most likely actions."""
    from invariantzoo.training.rl import algorithms as trainer
    from invariantzoo.training.rl.score import evaluate

    system = invariantzoo.make_system(GATES)
    hyper = trainer.make_config(GATES, "ppo", {})
    run: Any = trainer.make_trainer("ppo", system, hyper, seed=seed, steps=STEPS)
    for _ in run:
        pass
    scores = evaluate(system, run.policy(), episodes=64, seeds=1, deterministic=True)
    return [float(scores["alpha"].mean()), float(scores["beta"].mean())]


def draw(path: Path, diagram: dict[str, list[float]]) -> None:
    """The three panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE_WIDTH, 6.2), layout="constrained")
    named = figure.subplot_mosaic([["diagram", "current"], ["density", "density"]])
    axes = [named[name] for name in ("diagram", "current", "density")]
    axes[0].imshow(space_time(), cmap="bone_r", aspect="auto", interpolation="nearest")
    axes[0].set(title="alpha = beta = 0.25", xlabel="site", ylabel="sweep")
    alpha, beta = np.array(diagram["alpha"]), np.array(diagram["beta"])
    line = np.linspace(0.01, 1, 100)
    values = exact.current(SITES, line[None], line[:, None])
    shown = axes[1].contourf(line, line, values, 12, cmap="viridis", vmin=0, vmax=0.26)
    dots: dict[str, Any] = {
        "vmin": 0,
        "vmax": 0.26,
        "cmap": "viridis",
        "edgecolors": "white",
        "linewidths": 0.6,
    }
    axes[1].scatter(alpha, beta, c=diagram["current"], s=26, **dots)
    axes[1].plot([0, 0.5, 0.5], [0, 0.5, 1], "w--", lw=1)
    axes[1].plot([0.5, 1], [0.5, 0.5], "w--", lw=1)
    axes[1].set(title=f"current, {SITES} sites", xlabel="alpha", ylabel="beta")
    figure.colorbar(shown, ax=axes[1])
    for gates in ((0.8, 0.8), (0.2, 0.7), (0.7, 0.2), (0.3, 0.3)):
        site = np.arange(1, 41)
        (curve,) = axes[2].plot(site, exact.profile(40, *gates), lw=1, label=f"{gates}")
        axes[2].plot(site, snapshot(*gates), ".", color=curve.get_color())
    axes[2].set(title="density, 40 sites: exact (lines) and counted (dots)", xlabel="site")
    axes[2].set(ylim=(0, 1), ylabel="density")
    figure.legend(
        *axes[2].get_legend_handles_labels(),
        loc="outside lower center",
        title="alpha, beta",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    save_figure(figure, path)


def space_time() -> np.ndarray:
    """Sites of one chain after every sweep [sweeps, sites]."""
    system: Any = invariantzoo.make_system("tasep-open-v0", n_sites=SITES, alpha=0.25, beta=0.25)
    env = VectorEnv(system, 1, seed=3)
    env.reset()
    rows = []
    for _ in range(300):
        env.rollout("hop", system.sweep, every=system.sweep)
        rows.append(env.state.occupied[0].copy())
    return np.array(rows)


def snapshot(alpha: float, beta: float) -> np.ndarray:
    """Mean occupation [40] of independent chains at one time."""
    system: Any = invariantzoo.make_system("tasep-open-v0", n_sites=40, alpha=alpha, beta=beta)
    env = VectorEnv(system, 4_000, seed=1)
    env.reset()
    env.rollout("hop", 400 * system.sweep, every=400 * system.sweep)
    occupied: np.ndarray = env.state.occupied
    return np.asarray(occupied.mean(0))


if __name__ == "__main__":
    main()
