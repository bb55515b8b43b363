"""How long the ways of agents on latent-travel-v0 are, over the shortest, between held-out pairs.

    python -m invariantzoo.figures.latent_travel [--out docs]

Built-in policies, and agents trained with the settings of the id, on all charts.
Writes latent-travel.md, its picture and results/latent-travel.json; what is in the json is not
made again.
"""

from __future__ import annotations

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

ID, ALGORITHM, EPISODES = "latent-travel-v0", "descent", 1000
BUILT_IN = ("random", "gradient", "straight", "detour", "geodesic")
TRAINED = {"digits": (0, 1, 2, 3, 4), "ising": (0, 1, 2), "tasep": (0, 1, 2)}  # charts -> seeds
DRAWN, WAYS = 0, 8  # the chart that is drawn, and how many ways in it
COLOURS = {"straight": "0.6", "detour": "tab:orange", "descent": "tab:blue", "geodesic": "k"}


def main() -> None:
    """Train what is missing, then print and write the page."""
    import torch

    from invariantzoo.envs.latent_travel.travel import METRICS

    args = figure_parser(__doc__, out=Path("docs")).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "latent-travel.json"
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for metric in METRICS:
        group = runs[metric] = {}
        for name in BUILT_IN:
            group[name] = recorded(store, f"{metric} {name}", partial(built_in, metric, name))
        for seed in TRAINED[metric]:
            name = f"{ALGORITHM}, seed {seed}"
            key = name if metric == "digits" else f"{metric} {name}"
            group[name] = recorded(store, key, partial(trained, metric, seed))
    page = _page(runs)
    print(page)
    write_text(args.out / "latent-travel.md", page)
    save_figure(_figure(runs["digits"]), args.out / "images" / "latent-travel.png")


def built_in(metric: str, name: str) -> dict[str, Any]:
    """What a policy by name scores."""
    import invariantzoo

    policy = invariantzoo.make_policy(name, invariantzoo.make_system(ID, metric=metric))
    return measured(metric, policy)


def trained(metric: str, seed: int) -> dict[str, Any]:
    """The same after training on charts with the settings of the id; CPU seconds, and some ways."""
    import invariantzoo
    from invariantzoo.training.rl.algorithms import make_config, make_trainer

    config = make_config(ID, ALGORITHM, {})
    steps = invariantzoo.spec(ID).training[ALGORITHM]["steps"]
    system = invariantzoo.make_system(ID, metric=metric)
    trainer = make_trainer(ALGORITHM, system, config, seed=seed, steps=steps)
    start = time.process_time()
    for _ in trainer:
        pass
    seconds = round(time.process_time() - start, 1)
    policy = trainer.policy()
    run = {**measured(metric, policy), "seconds": seconds}
    if metric == "digits":
        run["ways"] = [np.round(way, 3).tolist() for way in ways(policy)]
    return run


def measured(metric: str, policy: Any) -> dict[str, Any]:
    """Means over episodes between pairs held out, and percentiles of the ratio."""
    import invariantzoo

    system = invariantzoo.make_system(ID, metric=metric, held_out=True)
    scores = invariantzoo.evaluate(system, policy, episodes=EPISODES, seeds=1, deterministic=True)
    percentiles = np.percentile(scores["ratio"], np.arange(101))
    means = {name: float(scores[name].mean()) for name in ("ratio", "failures")}
    return {**means, "percentiles": np.round(percentiles, 4).tolist()}


def drawn_state() -> Any:
    """Worlds between held-out pairs of the chart that is drawn, the first that are drawn."""
    import torch

    import invariantzoo
    from invariantzoo.envs.core.rng import Rng

    system = invariantzoo.make_system(ID, held_out=True)
    state = system.initial(Rng.single(0, 20 * WAYS), 20 * WAYS)
    chosen = torch.nonzero(state.chart[:, 0] == DRAWN)[:WAYS, 0]
    return type(state)(*(value[chosen] for value in state))


def ways(policy: Any) -> np.ndarray:
    """Points [worlds, steps + 1, 2] of the ways of a policy of observations, from `drawn_state`."""
    import torch

    import invariantzoo
    from invariantzoo.envs.core.observation import flatten
    from invariantzoo.envs.core.rng import Rng

    system, state = invariantzoo.make_system(ID, held_out=True), drawn_state()
    points, rng = [state.point], Rng.single(0, len(state.point))
    with torch.no_grad():
        for _ in range(system.horizon):
            seen = flatten(system, system.invariants(state)).float()
            action = policy(seen, rng).double().clamp(-1, 1)
            state = system.transition(state, action, rng)
            points.append(state.point)
    return torch.stack(points, 1).numpy()


def _page(runs: dict[str, dict[str, dict[str, Any]]]) -> str:
    rows = []
    for metric, group in runs.items():
        for name, run in group.items():
            tail = [f"{run['percentiles'][k]:.3f}" for k in (50, 95)]
            seconds = f"{run['seconds']:.0f}" if "seconds" in run else ""
            failures = f"{100 * run['failures']:.1f}"
            rows.append([metric, name, f"{run['ratio']:.3f}", *tail, failures, seconds])
    excess = ",\n".join(
        f"on `{metric}` {_excess(group, 1)} % (straight lines "
        f"{100 * (group['straight']['ratio'] - 1):.1f} %)"
        for metric, group in runs.items()
    )
    of_digits = _excess(runs["digits"], 0)
    columns = ["charts", "policy", "ratio", "median", "95th percentile", "failures, %", "CPU s"]
    return f"""# Trained travellers' ways are {of_digits} % longer than the shortest ones

[`{ID}`](environments/{ID}.md) with default parameters
but `metric`, {EPISODES:,} episodes between pairs that no training sees. The ratio is the Fisher
length of the way over that of the shortest path; where an agent has not arrived within `delta` it
counts the straight line that is left, and the episode is a failure.

![ways through the map of the metric, and how long they are](images/latent-travel.png)

On the left the trace of the metric (bright: steep) of one slice of the digits' latent space, and
ways between the first {WAYS} held-out pairs that are drawn there. On the right the share of
episodes with at most that ratio.

{table(columns, rows)}
`descent` is trained on pairs of the same charts with the settings of the id, which were chosen on
digits, through the dynamics and what the agent sees, at the CPU seconds given. By so much its ways
are longer than the shortest:
{excess}.

An agent sees what ways by twelve waypoints would save. With the logarithms
of their lengths instead, most of which say how bad a way is that nobody takes, the same training
stood at 1.054 over the training's own pairs after 71 CPU s where this one stood at 1.035 (one seed
each). PPO with the settings of the id, for 250,000 steps instead of 600,000, reached 1.058 in 42
CPU s (one seed, 500 episodes between held-out pairs, no failures).

"gradient" follows g^-1 e, e to the target: it slides along walls and often does not arrive.
"detour" goes by the best of the twelve waypoints, or straight on; it is written by hand.

The shortest paths are the shortest of a graph of all nodes of the table, with edges to 32
neighbours, relaxed as polylines of 40 segments. For digits and the open chain another search, from
a graph twice as fine with 48 neighbours, found none of 144 more than 0.04 % shorter; smooth
polynomials found none of 24 of all charts more than 0.5 %. For digits the metric is the pull-back
J^T J of the classifier's features through the diffusion model (see [the geometry of
samples](geometry.md)), taken by differences on a grid twice as fine as the table.

This page is made by `python -m invariantzoo.figures.latent_travel`, the charts by
`python -m invariantzoo.figures.latent_travel_charts`.
"""


def _excess(group: dict[str, dict[str, Any]], digits: int) -> str:
    """By how many per cent the trained agents' ways are longer than the shortest."""
    ratios = [run["ratio"] for name, run in group.items() if name.startswith(ALGORITHM)]
    low, high = (f"{100 * (pick(ratios) - 1):.{digits}f}" for pick in (min, max))
    return low if low == high else f"{low} to {high}"


def _figure(runs: dict[str, dict[str, Any]]) -> Any:
    from invariantzoo.envs.latent_travel import chart

    figure, panels = page_figure(1, 2, 3.8)
    plane, shares = panels[0]
    a, b, c = chart.read("digits").factor[DRAWN].double().unbind(-1)
    trace = ((2 * a).exp() + b**2 + (2 * c).exp()).log10().T.numpy()
    low, high = np.quantile(trace, [0.02, 0.995])
    plane.imshow(
        trace, origin="lower", extent=(0, 1, 0, 1), cmap="Greys_r", vmin=low - 1, vmax=high
    )
    state = drawn_state()
    for way in runs["descent, seed 0"]["ways"]:
        plane.plot(*np.array(way).T, c="tab:cyan", lw=1.8)
    for path, start, end in zip(state.path, state.point, state.target, strict=True):
        plane.plot(*path.numpy().T, c="tab:red", lw=1, ls="--")
        plane.plot(*np.stack([start, end]).T, "o", c="w", ms=4, mec="k")
    plane.plot([], [], c="tab:cyan", label="descent, seed 0")
    plane.plot([], [], c="tab:red", ls="--", label="shortest path")
    plane.set(xlabel="a", ylabel="b", xlim=(0, 1), ylim=(0, 1))
    for name, run in runs.items():
        label = name.partition(",")[0]
        if label in COLOURS:
            first = name == label or name.endswith("seed 0")
            shares.plot(
                run["percentiles"],
                np.arange(101),
                c=COLOURS[label],
                lw=1.2,
                label=label if first else None,
            )
    shares.axvline(1.05, c="0.8", lw=0.8, zorder=0)
    shares.set(xlim=(0.98, 1.3), xlabel="length / shortest", ylabel="episodes, %")
    page_legend(figure, 4)
    return figure


if __name__ == "__main__":
    main()
