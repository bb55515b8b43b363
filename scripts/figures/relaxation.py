"""Lennard-Jones clusters: what a hit of the global minimum costs, five training seeds each.

    python -m invariantzoo.figures.relaxation [--out docs] [--runs runs/relaxation] [--seeds 5]

Local minimisation from random starts and basin hopping are compared with policies of
`cluster-relaxation-v0` that were trained with PPO and by descent through the dynamics. Writes
relaxation.md, its picture and relaxation.json; what is there is not computed again.
"""

from __future__ import annotations

import subprocess
import sys
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

ID = "cluster-relaxation-v0"
SIZES = (6, 7, 13, 19, 38)
ATTEMPTS = 1000
HOPS = {
    6: (100, 5000),
    7: (100, 5000),
    13: (100, 5000),
    19: (40, 5000),
    38: (4, 100),
}  # attempts and most quenches of each, where a hit is far
UPDATES = {13: 100, 19: 50}


def baseline(size: int, name: str) -> dict[str, Any]:
    """Attempts of a search that is not trained."""
    from invariantzoo import make_system
    from invariantzoo.agents.policy import make_policy
    from invariantzoo.training import search

    system: Any = make_system(ID, n_agents=size)
    if name == "restarts":
        return plain(search.restarts(system, ATTEMPTS))
    if name == "hopping":
        attempts, most = HOPS.get(size, (ATTEMPTS, 5000))
        return plain(search.hopping(system, attempts, most=most))
    return plain(search.with_policy(system, make_policy(name, system), ATTEMPTS))


def scored(policy: Any, seeds: int) -> dict[str, Any]:
    """Attempts of a trained policy at every size."""
    from invariantzoo import make_system
    from invariantzoo.training.search import with_policy

    attempts = {}
    for size in SIZES:
        system: Any = make_system(ID, n_agents=size)
        attempts[str(size)] = plain(with_policy(system, policy, ATTEMPTS // seeds))
    return attempts


def by_descent(size: int, seed: int, seeds: int) -> dict[str, Any]:
    """A policy trained at one size by descent through the dynamics."""
    from invariantzoo import make_system
    from invariantzoo.agents.policy import network_policy
    from invariantzoo.training.rl.descent import DescentConfig, Trainer

    config = DescentConfig(n_worlds=16, rollout=40, lr=1e-2)
    trainer = Trainer(make_system(ID, n_agents=size), config, seed, UPDATES[size])
    curve = [(update.update, update.loss) for update in trainer]
    return {"curve": curve, "attempts": scored(network_policy(trainer.network), seeds)}


def by_ppo(folder: Path, seed: int, seeds: int) -> dict[str, Any]:
    """The run that `invariantzoo train` leaves with the id's own settings."""
    from invariantzoo.training.runs.run import load_run

    if not (folder / "scores.json").exists():
        command = ["train", ID, "--seed", str(seed), "--out", str(folder)]
        resumed = ["--resume"] if folder.exists() else []
        subprocess.run([sys.executable, "-m", "invariantzoo", *command, *resumed], check=True)
    return {"attempts": scored(load_run(folder).policy, seeds)}


def plain(attempts: Any) -> dict[str, Any]:
    """Attempts as JSON takes them."""
    return {"calls": attempts.calls.astype(int).tolist(), "hit": attempts.hit.astype(int).tolist()}


def pooled(searches: list[dict[str, Any]]) -> Any:
    """Attempts of several policies as one."""
    import numpy as np

    from invariantzoo.training.search import Attempts

    calls = np.concatenate([search["calls"] for search in searches]).astype(float)
    return Attempts(calls, np.concatenate([search["hit"] for search in searches]).astype(bool))


def main() -> None:
    """Compute what is missing, then print and write the page."""
    import torch

    args = figure_parser(
        __doc__, out=Path("docs"), runs=Path("runs/relaxation"), seeds=5
    ).parse_args()
    torch.set_num_threads(1)
    store, seeds = args.out / "results" / "relaxation.json", range(args.seeds)
    rows: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for name, label in (("restarts", "L-BFGS restarts"), ("soft", "own policy `soft`")):
        rows[label] = {
            n: [recorded(store, f"{name} {n}", partial(baseline, n, name))] for n in SIZES
        }
    runs = {
        "PPO at 13": [
            recorded(store, f"ppo {k}", partial(by_ppo, args.runs / f"ppo-{k}", k, args.seeds))
            for k in seeds
        ]
    }
    for size in UPDATES:
        runs[f"descent at {size}"] = [
            recorded(store, f"descent {size} {k}", partial(by_descent, size, k, args.seeds))
            for k in seeds
        ]
    for label, group in runs.items():
        rows[label] = {n: [run["attempts"][str(n)] for run in group] for n in SIZES}
    rows["basin hopping"] = {
        n: [recorded(store, f"hopping {n}", partial(baseline, n, "hopping"))] for n in SIZES
    }
    page = _page(rows)
    print(page)
    write_text(args.out / "relaxation.md", page)
    save_figure(_figure(rows, runs), args.out / "images" / "relaxation.png")


def _page(rows: dict[str, dict[int, list[dict[str, Any]]]]) -> str:
    parts = []
    for size in SIZES:
        lines: list[list[Any]] = []
        for label, searches in rows.items():
            every = pooled(searches[size])
            low, high = every.interval()
            each = [pooled([search]).calls_per_hit for search in searches[size]]
            lines.append(
                [
                    label,
                    len(every.calls),
                    f"{100 * every.rate:.1f} %",
                    f"{every.calls.mean():.0f}",
                    f"{_cost(every.calls_per_hit)} [{_cost(low)}, {_cost(high)}]",
                    ", ".join(map(_cost, each)) if len(each) > 1 else "",
                ]
            )
        headers = ["search", "attempts", "hit", "calls per attempt", "calls per hit", "per seed"]
        parts.append(f"## {size} atoms\n\n{table(headers, lines)}")
    text = "\n".join(parts)
    return f"""# Learned searches find 13 atoms' minimum in 7 to 11 times fewer calls

`cluster-relaxation-v0`: Lennard-Jones atoms start uniform in a ball of the volume that they have in
the crystal. An attempt is 40 steps of a policy and a quench by SciPy's L-BFGS-B, and hits if the
energy is within 1e-3 of the global minimum. Every step, and every energy or gradient that a
minimiser asks for, is one call; failures are counted. Brackets hold the 95 % interval of a
bootstrap over attempts; "per seed" are the trained policies of the five training seeds, 200
attempts each. All searches have the same starts. The 1,000 attempts of trained policies are five
policies on one set of 200 starts; their interval does not know that. "none" means that nothing was
hit.

{text}
![calls per hit against the number of atoms](images/relaxation.png)

A search that hit nothing has no dot; a bar to the upper edge has no upper end.

PPO: `invariantzoo train {ID}` with the settings of the id, 13 atoms. Descent: the mean loss of 16
worlds is lowered through 40 steps of the dynamics, Adam, learning rate 0.01 falling as a cosine,
{UPDATES[13]} updates with 13 atoms and {UPDATES[19]} with 19. A policy that was trained at one size
acts at all the others unchanged, because what it sees and does is the same for any number of atoms.
Policies act without noise, and no number was chosen on the held-out starts.

`soft` is no learned policy but an answer known from physics: the force of a Morse potential that is
much broader than Lennard-Jones (rho = 3), with inertia. Most minima of the landscape are gone under
it, and the quench then finds the one that is left. Training lowers the mean energy of the episode,
which is another aim than a hit: at 7 and 13 atoms descent is the cheapest, at 6 and 19 `soft` is,
although it ends at higher energies. At 19 atoms, and away from the size of training, seeds differ
much: PPO and descent at 13 each have one seed that costs more than restarts do at 19, and their
rows are below restarts because the other seeds are. 38 atoms stay hard for all. Training at 19 was
ended after 50 updates to save time.

Basin hopping starts where restarts start, moves every atom by up to 0.4 along each axis, accepts at
temperature 0.8 and stops at the first hit, so each of its attempts hits unless it is ended (38
atoms: {HOPS[38][1]} quenches at most).

To reproduce: `python -m invariantzoo.figures.relaxation`.
"""


def _cost(value: float) -> str:
    return f"{value:.0f}" if value < float("inf") else "none"


def _figure(rows: dict[str, dict[int, list[dict[str, Any]]]], runs: dict[str, Any]) -> Any:
    figure, panels = page_figure(1, 2, 4.2)
    left, right = panels[0]
    for k, (label, searches) in enumerate(rows.items()):
        every = {size: pooled(searches[size]) for size in SIZES}
        hit = [i for i, size in enumerate(SIZES) if every[size].hit.any()]
        columns = [i + 0.11 * (k - 0.5 * (len(rows) - 1)) for i in hit]
        cost = [every[SIZES[i]].calls_per_hit for i in hit]
        ends = [every[SIZES[i]].interval() for i in hit]
        low, high = zip(*ends, strict=True)
        for x, y, bottom, top in zip(columns, cost, low, high, strict=True):
            left.plot([x, x], [bottom, min(top, 1e6)], c=f"C{k}", lw=1)
            left.plot(x, y, "o", c=f"C{k}", ms=4)
        left.plot([], [], "o", c=f"C{k}", ms=4, label=label.replace("`", ""))
    for i in range(len(SIZES) - 1):
        left.axvline(i + 0.5, c="0.85", lw=0.8)
    left.set_xticks(range(len(SIZES)), SIZES)
    left.set(xlabel="atoms", ylabel="calls per hit", yscale="log", xlim=(-0.5, len(SIZES) - 0.5))
    for colour, (label, group) in zip(("", "tab:green", "tab:red"), runs.items(), strict=True):
        for k, run in enumerate(group):
            if "curve" in run:
                updates, losses = zip(*run["curve"], strict=True)
                legend = {"label": label} if k == 0 else {}
                right.plot(updates, losses, c=colour, lw=0.8, alpha=0.7, **legend)
    right.set(xlabel="update of descent", ylabel="mean loss per atom", ylim=(-3.5, 2))
    right.legend(frameon=False, fontsize=9)
    page_legend(figure, 3, left)
    return figure


if __name__ == "__main__":
    main()
