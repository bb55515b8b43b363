"""Traffic: hand-written and learned drivers on the same held-out worlds, and who touched whom.

    python -m invariantzoo.figures.traffic [--out docs] [--drivers runs/traffic]

Scores the drivers that have names, and those that `invariantzoo.figures.traffic_training` left in
--drivers, one a seed, and writes traffic.md and its record. Only what is missing in the record is
computed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.envs.core.files import load_arrays
from invariantzoo.figures.goals import interval, shipped_seed
from invariantzoo.report import figure_parser, recorded, table, write_text

LAYOUTS = ("crossing", "street")
GUARDED = ("learned", "buffered-voronoi")
UNGUARDED = ("orca", "orca-right-hand", "orca-tuned", "social-force", "straight")
SEEDS, EPISODES = 5, 100

TEXT = """# Traffic: drivers of cars and pedestrians side by side

`particles-traffic-v0` with its defaults, 6 cars and 10 pedestrians, {episodes} held-out episodes a
layout. ok: at the goal, and never touched anybody or a house by more than 1 mm. flow: arrivals per
time. contacts: ordered pairs that ever overlapped, of 10,000. over the limit: steps near signs that
were too fast. Intervals are 95 %, over episodes.

{scores}
`learned` is the driver that ships, two networks of 370 numbers, one for who starts on the road and
one for the pavement, and it drives inside the guard, as `buffered-voronoi` does; the others have no
guard. `orca` has the settings of the library, told of buildings as discs that give no way;
`orca-tuned` and `orca-right-hand` have the horizon and the angle that did best on scenes of their
own.

## Seeds of the learned driver

{seeds}
The seed that ships, {shipped}, is the one with the most flow on scenes that were kept for choosing
(`python -m invariantzoo.figures.traffic_training`).

## Who touched whom

Contacts of ordered pairs by kind, of 10,000, both layouts together:

{contacts}
A car gives way to a pedestrian by the whole gap, and two cars share it by the right of way: with
parts that add to 1 nobody in the guard can touch, whatever the networks ask for.

## What we chose

The papers name kinds of particles and losses per pair. Kinds, losses, layouts, sizes and speeds,
and that who has arrived leaves, are ours; so is the guard. Kinds are data: a kind more is a table
with one more row, and worlds without it do not change by a bit.
"""


def score(layout: str, make: Any, episodes: int = EPISODES) -> dict[str, Any]:
    """Means and 95 % intervals of a policy's metrics; `make` makes it of a system."""
    from invariantzoo import evaluate, make_system

    system = make_system("particles-traffic-v0", layout=layout)
    scores = evaluate(system, make(system), episodes=episodes, seeds=1, deterministic=False)
    return {name: interval(values[0]) for name, values in scores.items()}


def named(name: str, system: Any) -> Any:
    """A driver that ships."""
    from invariantzoo import make_policy

    return make_policy(name, system)


def trained(path: Path, system: Any) -> Any:
    """A driver that `traffic_training` left, in the guard."""
    from invariantzoo.agents.baselines.learned import N_WEIGHTS
    from invariantzoo.agents.baselines.traffic_guard import GuardedTraffic
    from invariantzoo.agents.baselines.traffic_learned import NETWORKS, learned_traffic

    weights = load_arrays(path)["weights"].astype(np.float32).astype(float)
    networks = weights.reshape(1, len(NETWORKS), N_WEIGHTS)
    return GuardedTraffic(learned_traffic(system, networks, "learned"))


def main() -> None:
    """Compute what is missing, then print and write the page."""
    import torch

    parser = figure_parser(__doc__, out=Path("docs"), drivers=Path("runs/traffic"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "traffic.json"
    drivers = {name: partial(named, name) for name in (*GUARDED, *UNGUARDED)}
    for seed in range(SEEDS):
        path = args.drivers / f"{seed}.npz"
        if path.exists():
            drivers[f"seed {seed}"] = partial(trained, path)
    results: dict[tuple[str, str], dict[str, Any]] = {}
    for name, make in drivers.items():
        for layout in LAYOUTS:
            compute = partial(score, layout, make)
            scores = recorded(store, f"{name}: {layout}", compute)
            results[name, layout] = scores
            print(name, layout, {key: scores[key] for key in ("ok", "flow", "contact")}, flush=True)
    write_text(args.out / "traffic.md", _page(results))


def _row(scores: dict[str, Any]) -> list[str]:
    ok, low, high = (100 * value for value in scores["ok"])
    flow, least, most = scores["flow"]
    return [
        f"{ok:.1f} [{low:.1f}, {high:.1f}]",
        f"{flow:.3f} [{least:.3f}, {most:.3f}]",
        f"{1e4 * scores['contact'][0]:.2g}",
        f"{100 * scores['over_limit'][0]:.2g}" if scores["over_limit"] else "-",
        f"{scores['time_ratio'][0]:.2f}",
        f"{scores['effort'][0]:.2f}",
    ]


def _page(results: dict[tuple[str, str], dict[str, Any]]) -> str:
    columns = ["ok, %", "flow", "contacts", "over the limit, %", "time ratio", "effort"]
    names = list(dict.fromkeys(name for name, _ in results))
    ships = [name for name in names if not name.startswith("seed ")]
    seeds = [name for name in names if name.startswith("seed ")]
    scores = [[name, where, *_row(results[name, where])] for where in LAYOUTS for name in ships]
    by_seed = [[name, where, *_row(results[name, where])] for where in LAYOUTS for name in seeds]
    for where in LAYOUTS if seeds else ():
        means = [np.mean([results[n, where][m][0] for n in seeds]) for m in ("ok", "flow")]
        by_seed.append(["mean", where, f"{100 * means[0]:.1f}", f"{means[1]:.3f}", *[""] * 4])
    pairs = [key for key in results["orca", "crossing"] if key.startswith("contact_")]
    contacts = [
        [name, *(f"{1e4 * np.mean([results[name, w][p][0] for w in LAYOUTS]):.2g}" for p in pairs)]
        for name in ships
    ]
    headings = [pair.removeprefix("contact_").replace("_", ", ") for pair in pairs]
    return TEXT.format(
        episodes=EPISODES,
        scores=table(["driver", "layout", *columns], scores),
        seeds=table(["driver", "layout", *columns], by_seed),
        contacts=table(["driver", *headings], contacts),
        shipped=shipped_seed("traffic"),
    )


if __name__ == "__main__":
    main()
