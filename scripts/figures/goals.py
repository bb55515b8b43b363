"""Discs with goals: ORCA and learned drivers on the same held-out worlds, and what invariants buy.

    python -m invariantzoo.figures.goals [--out docs] [--drivers runs/drivers]

Scores hand-written drivers, and those that `invariantzoo.figures.goals_training` and
`goals_unguarded` left in --drivers, five seeds a recipe, and writes goals.md and its record. Only
what is missing in the record is computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.envs.core.files import load_arrays
from invariantzoo.figures.goals_algorithms import ALGORITHMS, COVERS, SECONDS
from invariantzoo.figures.goals_algorithms import EPISODES as ALGORITHM_EPISODES
from invariantzoo.report import figure_parser, recorded, table, write_text

SQUARES = {
    f"{cover:.0%}, N = {n}": ("particles-goals-v0", {"n_agents": n, "cover": cover})
    for n, cover in [(64, 0.05), (64, 0.2), (64, 0.35)]
}
LARGE = {
    f"{cover:.0%}, N = 1024": ("particles-goals-v0", {"n_agents": 1024, "cover": cover})
    for cover in (0.05, 0.2)
}
CIRCLES = {
    f"circle, N = {n}": ("particles-circle-v0", {"n_agents": n}) for n in (2, 4, 8, 16, 32, 64)
}
SHIFTED = {
    f"shifted circle, N = {n}": ("particles-circle-v0", {"n_agents": n, "shift": 0.05})
    for n in (8, 16, 32, 64)
}
ABLATED = (*SQUARES, "circle, N = 8", "circle, N = 16", "circle, N = 64")
CELLS: dict[str, tuple[str, dict[str, Any]]] = SQUARES | CIRCLES | SHIFTED | LARGE
HAND_WRITTEN = ("orca", "orca-tuned", "orca-right-hand", "buffered-voronoi", "social-force")
ABLATIONS = (
    *("full-short", "mirror-even", "four"),
    *("four-without-I1", "four-without-I2", "four-without-I3", "four-without-I4"),
)
LEARNED = "learned-unguarded"
METRICS = ("ok", "all_ok", "hit", "settled", "time_ratio", "deepest_overlap", "effort")
SEEDS, EPISODES, LARGE_EPISODES, RESAMPLES = 5, 100, 20, 2000


TEXT = """# Discs with goals: do four invariants suffice, and what does it take to beat ORCA?

`particles-goals-v0` and `particles-circle-v0`: discs cross a square, or a circle, to goals of their
own. A disc is ok if it is at its goal at the end and never overlapped another by more than 1 mm,
on the straight ways between steps neither; who leaves its goal by more than a radius has not
arrived. Cells hold ok in percent / discs that hit in percent / time ratio (sum of the times of
arrival over that of straight drives at full speed, of discs that are ok), means over seeds, and in
parentheses ok of every seed. {episodes} held-out episodes a cell ({large} of 1,024 discs), with
95 % intervals over episodes in brackets where there are no seeds. Learned drivers are one network
of 370 numbers for all discs, trained on at most 16 discs, inside the guard
(`python -m invariantzoo.figures.goals_training`).

## Do four invariants suffice?

{ablations}{ablated_text}
## What does left and right buy?

On the exact circle everybody meets in the middle, and no mirror-even rule knows to which side to
go; the noise of 0.01 in the velocity can break that symmetry. Here it is left out:

{quiet}
A network that sees and does nothing that changes sign in a mirror cannot leave the axis of a world
that is its own mirror image, but for rounding and the order in which half-planes are looked at.

## Against ORCA

{against}
`orca` has the defaults of the library, whose velocities ours are (largest difference 8e-6 on 4,608
recorded states); `orca-tuned` the best settings on scenes of their own, without a rule of the road;
`orca-right-hand` turns the preferred velocity to the right of who is in the way. The driver that
ships as `learned` is seed {shipped}, which did best on worlds that were kept for choosing. Nobody
hits inside the guard, by construction; ORCA has no guard. What the guard does alone:

{others}
`buffered-voronoi` is the guard round a straight driver, without a rule of the road.

## What it costs: root mean square of the acceleration

What drivers cost the processor is on [the page of speeds](speed.md#discs).

{effort}
Any velocity can be had within a step here, and a search uses that. The guard of `learned` plans
with an acceleration of 8, that of `smooth`, whose training also paid for effort, with 2.7; it ships
as `learned-smooth` (seed {shipped_smooth}):

{smooth}
## Without a guard: discs that have learned not to touch

{unguarded}
Evolution strategies on the return alone learn to drive straight through (see the next table). These
drivers have imitated instead: on their own ways, without a guard, they were told which velocity the
guard of `learned` would have let pass, and paid for crossing its half-planes
(`python -m invariantzoo.figures.goals_unguarded`). Nothing holds them when they drive. `learned-
unguarded` is seed {shipped_unguarded}, which touched least on worlds kept for choosing.

## Other ways to train

The same network, on the reward of the environment and without a guard, for {seconds} CPU seconds
each (`python -m invariantzoo.figures.goals_algorithms`; {algorithm_episodes} episodes a cell), then
driven bare and inside the guard:

{algorithms}
## What failed

- No driver brings all discs home at 35 %: some are locked out by discs that have arrived.
- An evolution strategy on flags of overlap alone, or on the return, without a guard: it hits.
- Seeds differ by more than most ablations at 35 %: read the parentheses before the means.
"""

ABLATED_TEXT = """
`full-short` may use all there is, `mirror-even` nothing that changes sign in a mirror, `four` of a
neighbour only I1..I4 and whether it has arrived (and of itself its distance, velocity and arrival),
the rest `four` without one of them. Without I1 the network does not see the gap; its window and the
guard still do. Each was trained for 120 generations, about a CPU minute, {n} seeds.

**Verdict: yes.** With I1..I4 alone drivers are as good as with everything, within the scatter of
seeds. In random squares, inside this guard, hardly anything is lost without any one of the four,
and networks without a left and a right do best. What I3, I4 and the mirror-odd sector buy is the
exact circle: without them some seeds stand still there, with noise and more so without.
"""


def score(cell: str, make: Any, episodes: int = EPISODES) -> dict[str, Any]:
    """Means and 95 % intervals of a policy's metrics in a cell; `make` makes it of a system."""
    from invariantzoo import evaluate, make_system

    id, parameters = CELLS[cell]
    system = make_system(id, **parameters)
    episodes = min(episodes, LARGE_EPISODES) if cell in LARGE else episodes
    scores = evaluate(system, make(system), episodes=episodes, seeds=1, deterministic=False)
    return {name: interval(scores[name][0]) for name in METRICS}


def shipped_seed(name: str) -> int:
    """The seed that made the weights that ship under a name."""
    import invariantzoo.agents.baselines as baselines

    return int(load_arrays(Path(baselines.__path__[0]) / "data" / f"{name}.npz")["seed"])


def interval(values: np.ndarray) -> list[float]:
    """Mean of the values [episodes] that are defined, and its 95 % bootstrap interval."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return []
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return [round(float(value), 5) for value in (values.mean(), low, high)]


def named(name: str, system: Any, *, jitter: float | None = None) -> Any:
    """A policy that ships; `jitter` replaces the noise of its velocity."""
    from invariantzoo import make_policy

    policy: Any = make_policy(name, system)
    if jitter is not None:
        import dataclasses

        driver = getattr(policy, "policy", policy)
        quiet = dataclasses.replace(driver, jitter=jitter)
        if driver is policy:
            return quiet
        policy.policy = quiet
    return policy


def trained(recipe: str, seed: int, drivers: Path, system: Any, *, jitter: float = 0.01) -> Any:
    """A driver that `goals_training` or `goals_unguarded` left."""
    from invariantzoo.agents.baselines.guard import Guarded
    from invariantzoo.agents.baselines.learned import Learned
    from invariantzoo.figures.goals_training import RECIPES, Recipe, used_by

    stored = load_arrays(drivers / f"{recipe}-{seed}.npz")
    weights = stored["weights"][None].astype(np.float32).astype(float)
    settings = Recipe(guarded=False) if recipe == LEARNED else RECIPES[recipe]
    driver = Learned(system, weights=weights, used=used_by(settings), jitter=jitter)
    if not settings.guarded:
        return driver
    return Guarded(driver, max_acceleration=settings.acceleration)


def jobs(drivers: Path, episodes: int) -> Iterator[tuple[str, str, Any]]:
    """Names of drivers, cells, and how their scores are computed."""
    for name in HAND_WRITTEN:
        for cell in CELLS:
            if cell not in LARGE or name.startswith("orca"):
                yield name, cell, partial(score, cell, partial(named, name), episodes)
    for recipe, cells in (
        ("full", (*SQUARES, *CIRCLES, *SHIFTED, *LARGE)),
        ("smooth", (*SQUARES, *CIRCLES)),
        (LEARNED, (*SQUARES, *CIRCLES)),
        *((ablation, ABLATED) for ablation in ABLATIONS),
    ):
        for seed in range(SEEDS):
            if not (drivers / f"{recipe}-{seed}.npz").exists():
                continue
            for cell in cells:
                make = partial(trained, recipe, seed, drivers)
                yield f"{recipe} {seed}", cell, partial(score, cell, make, episodes)
                if cell in CIRCLES and recipe in ("full", *ABLATIONS):
                    still = partial(make, jitter=0.0)
                    key = f"{cell}, no noise"
                    yield f"{recipe} {seed}", key, partial(score, cell, still, episodes)


def main() -> None:
    """Compute what is missing, then print and write the page."""
    import torch

    parser = figure_parser(__doc__, out=Path("docs"), drivers=Path("runs/drivers"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "goals.json"
    results: dict[str, dict[str, Any]] = {}
    for driver, cell, compute in jobs(args.drivers, EPISODES):
        scores = recorded(store, f"{driver}: {cell}", compute)
        results.setdefault(driver, {})[cell] = scores
        print(driver, cell, {name: scores[name] for name in ("ok", "hit", "time_ratio")})
    page = _page(results, args.out / "results" / "goals-algorithms.json")
    write_text(args.out / "goals.md", page)


def _share(scores: dict[str, Any]) -> str:
    """ok [interval] / hit / time ratio, in percent."""
    ok, low, high = (100 * value for value in scores["ok"])
    ratio = f"{scores['time_ratio'][0]:.2f}" if scores["time_ratio"] else "-"
    return f"{ok:.1f} [{low:.1f}, {high:.1f}] / {100 * scores['hit'][0]:.2g} / {ratio}"


def _of_seeds(results: dict[str, Any], recipe: str, cell: str) -> str:
    """The mean over seeds of ok, hit and time ratio, and ok of every seed."""
    runs = [
        scores[cell] for name, scores in results.items() if _is(name, recipe) and cell in scores
    ]
    if not runs:
        return "-"
    ok = [100 * run["ok"][0] for run in runs]
    hit = np.mean([100 * run["hit"][0] for run in runs])
    ratios = [run["time_ratio"][0] for run in runs if run["time_ratio"]]
    ratio = f"{np.mean(ratios):.2f}" if ratios else "-"
    each = ", ".join(f"{value:.1f}" for value in ok)
    return f"{np.mean(ok):.1f} / {hit:.2g} / {ratio} ({each})"


def _is(name: str, recipe: str) -> bool:
    return name.rpartition(" ")[0] == recipe


def _row(results: dict[str, Any], name: str, cells: Iterable[str]) -> list[str]:
    """A driver that has a name, in these cells."""
    scores = results.get(name, {})
    return [name, *(_share(scores[cell]) if cell in scores else "-" for cell in cells)]


def _rows(results: dict[str, Any], recipes: Iterable[str], cells: Iterable[str]) -> list[list[str]]:
    """Those of recipes that were scored, by means over seeds."""
    cells = tuple(cells)
    return [
        [recipe, *(_of_seeds(results, recipe, cell) for cell in cells)]
        for recipe in recipes
        if any(_is(name, recipe) for name in results)
    ]


def _effort(results: dict[str, Any], recipe: str, cell: str) -> str:
    """The effort of a driver, or the mean of a recipe's seeds."""
    runs = [
        scores[cell]["effort"][0]
        for name, scores in results.items()
        if cell in scores and (name == recipe or _is(name, recipe))
    ]
    return f"{np.mean(runs):.2f}" if runs else "-"


def _algorithms(store: Path) -> str:
    """Scores by algorithm of `figures/goals_algorithms.py`: mean over seeds, ok of each."""
    results = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    rows = []
    for algo in ALGORITHMS:
        runs = [run for name, run in results.items() if name.rpartition(" ")[0] == algo]
        if not runs:
            continue
        row = [algo, f"{np.mean([run['steps'] for run in runs]) / 1e6:.1f} M"]
        for kind in ("bare", "guarded"):
            for cover in COVERS:
                ok, hit, ratio = (
                    [run[f"{kind} {cover} {metric}"] for run in runs]
                    for metric in ("ok", "hit", "time_ratio")
                )
                each = ", ".join(f"{100 * value:.0f}" for value in ok)
                row.append(
                    f"{100 * np.mean(ok):.1f} / {100 * np.mean(hit):.2g} / "
                    f"{np.mean(ratio):.2f} ({each})"
                )
        rows.append(row)
    cells = [f"{kind}, {cover:.0%}" for kind in ("bare", "guarded") for cover in COVERS]
    return table(["algorithm", "agent-steps", *cells], rows)


def _page(results: dict[str, Any], algorithms: Path) -> str:
    hand = ("orca", "orca-tuned", "orca-right-hand")
    by_hand = {name: _row(results, name, CELLS)[1:] for name in hand}
    against = [
        [cell, *(by_hand[name][at] for name in hand), _of_seeds(results, "full", cell)]
        for at, cell in enumerate(CELLS)
    ]
    more = (*SQUARES, "circle, N = 64")
    still = [f"{cell}, no noise" for cell in CIRCLES]
    still_rows = _rows(results, ("full", *ABLATIONS), still)
    others = [_row(results, name, more) for name in ("buffered-voronoi", "social-force")]
    efforts = (*hand, "buffered-voronoi", "full", "smooth", LEARNED)
    effort = [[name, *(_effort(results, name, cell) for cell in SQUARES)] for name in efforts]
    wide = (*SQUARES, "circle, N = 8", "circle, N = 16", "circle, N = 64")
    return TEXT.format(
        episodes=EPISODES,
        large=LARGE_EPISODES,
        ablations=table(["network", *ABLATED], _rows(results, ABLATIONS, ABLATED)),
        ablated_text=ABLATED_TEXT.format(n=SEEDS),
        quiet=table(["network", *CIRCLES], still_rows),
        against=table(["world", *hand, "learned, mean over seeds (ok of each)"], against),
        others=table(["driver", *more], others),
        effort=table(["driver", *SQUARES], effort),
        smooth=table(["network", *wide], _rows(results, ("smooth",), wide)),
        unguarded=table(["network", *wide], _rows(results, (LEARNED,), wide)),
        algorithms=_algorithms(algorithms),
        algorithm_episodes=ALGORITHM_EPISODES,
        seconds=SECONDS,
        shipped=shipped_seed("learned"),
        shipped_smooth=shipped_seed("learned-smooth"),
        shipped_unguarded=shipped_seed(LEARNED),
    )


if __name__ == "__main__":
    main()
