"""Discs that know of each other by a field, beside discs that see each other: law and driving.

    python -m invariantzoo.figures.particles_field [--out docs] [--seeds 5]

The pair force on the grid is compared with its exact value, the energy of a free run with that at
its start.
Then the same descent through the dynamics trains drivers of discs by a wide field, by a narrow one
and by sight on the same task, and a search finds the best action that is the same always; tests are
64 worlds of 200 steps on held-out seeds. Writes particles-field.md, its picture and
particles-field.json, from which an interrupted run goes on.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from invariantzoo.report import figure_parser, page_figure, recorded, save_figure, table, write_text

BOX, WIDTH, DISTANCE = 16.0, 0.5, 3.0
UPDATES, WORLDS, ROLLOUT, RATE = 40, 8, 50, 0.01
SPEED_WEIGHT = 2.0
GENERATIONS = 10
_NARROW: dict[str, Any] = {"cells": 30, "passes": 1}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "by the field": ("particles-field-v0", {"cells": 20, "passes": 2}),
    "by a narrow field": ("particles-field-v0", {**_NARROW, "mass": 3.0, "gain": 45.0}),
    "by sight": ("particles-crowd-v0", {"speed": 0.5}),
    "by the field, pushed harder": (
        "particles-field-v0",
        {"cells": 20, "passes": 2, "gain": 100.0},
    ),
    "by the field of small clouds": ("particles-field-v0", _NARROW),
}
TRAINED = ("by the field", "by a narrow field", "by sight")
SEARCHED = tuple(kind for kind in KINDS if kind != "by sight")
DRIVERS = {
    "by the field": ("none", "straight", "social-force"),
    "by a narrow field": ("none", "straight", "social-force"),
    "by sight": ("straight", "brake", "social-force"),
}
_SHOWN = ("loss", "contacts", "progress")
COLOURS = {
    "by the field": "tab:orange",
    "by a narrow field": "tab:green",
    "by sight": "tab:blue",
}


def pair_law(cells: int, form: str, order: int, width: float) -> dict[str, float]:
    """Error of the pair force and size of the self force, relative, at a distance of 3."""
    import torch

    from invariantzoo import Rng
    from invariantzoo.envs.particles.discs import State
    from invariantzoo.envs.particles.field import FieldDiscs

    passes = round(2 * (width * cells / BOX) ** 2)
    system = FieldDiscs(
        n_agents=2, density=2 / BOX**2, cells=cells, form=form, order=order, passes=passes, dt=0.01
    )
    rng = Rng.single(5, 64)
    first, angle = BOX * rng.uniform(64, 2), 2 * math.pi * rng.uniform(64)
    apart = DISTANCE * torch.stack([angle.cos(), angle.sin()], -1)
    position = torch.stack([first, (first + apart) % BOX], 1)
    box = torch.full((64, 1), BOX, dtype=torch.float64)
    still = torch.zeros_like(position)
    start = State(position, still, still, torch.full_like(position[..., 0], 0.25), box)

    def force(second: float) -> torch.Tensor:
        charge = torch.tensor([1.0, second], dtype=torch.float64).expand(64, -1)
        return system.reading(system.at_rest(start, charge, torch.ones_like(box))).gradient[:, 0]

    exact = _series(apart, width)
    size = float(exact.square().sum(-1).mean().sqrt())
    off = float((force(1.0) - exact).square().sum(-1).mean().sqrt())
    own = float(force(0.0).square().sum(-1).mean().sqrt())
    return {"error": off / size, "self": own / size}


def _series(apart: Any, width: float, waves: int = 100) -> Any:
    """The force on the first of two clouds of unit charge, by its Fourier series."""
    import torch

    k = 2 * math.pi / BOX * torch.arange(-waves, waves + 1, dtype=torch.float64)
    kx, ky = torch.meshgrid(k, k, indexing="ij")
    k2 = kx**2 + ky**2
    cloud = max(width, 0.05)  # of a point: more than the series can tell from none
    strength = torch.exp(-k2 * cloud**2) / (k2 + 1) / BOX**2
    pull = strength * (kx * apart[:, 0, None, None] + ky * apart[:, 1, None, None]).sin()
    return torch.stack([(kx * pull).sum((1, 2)), (ky * pull).sum((1, 2))], -1)


def free_run(form: str, passes: int, dt: float) -> dict[str, float]:
    """Errors of energy and momentum of eight discs that nobody drives, over a time of 100."""
    import numpy as np

    from invariantzoo.envs.core.vector import VectorEnv
    from invariantzoo.envs.particles.field import FieldDiscs

    system = FieldDiscs(
        n_agents=8, density=8 / BOX**2, cells=64, form=form, passes=passes, dt=dt, order=3
    )
    env = VectorEnv(system, 2, seed=2, autoreset=False)
    env.reset()
    for _ in range(round(100 / dt)):
        env.step(np.zeros((2, 8, 4), np.float32))
    scores = env.episode_metrics()
    return {name: float(scores[name].max()) for name in ("energy_error", "momentum")}


def system_of(kind: str) -> Any:
    """The task, with discs of a kind."""
    from invariantzoo import make_system

    id, parameters = KINDS[kind]
    return make_system(id, speed_weight=SPEED_WEIGHT, **parameters)


def score(kind: str, policy: Any) -> dict[str, float]:
    """Mean metrics of a policy over the test worlds."""
    from invariantzoo.training.rl.score import evaluate

    scores = evaluate(system_of(kind), policy, episodes=16, seeds=4, deterministic=True)
    contacts = "collisions" if kind == "by sight" else "contacts"
    names = {"contacts": contacts, "progress": "progress", "loss": "loss"}
    return {name: float(scores[own].mean()) for name, own in names.items()}


def driver(kind: str, name: str) -> dict[str, float]:
    """Scores of a policy that needs no training."""
    from invariantzoo.agents.policy import make_policy

    return score(kind, make_policy(name, system_of(kind)))


def constant(kind: str) -> dict[str, Any]:
    """Scores of the best action that is the same always, searched by cross entropy."""
    import numpy as np
    import torch

    from invariantzoo.training.rl.score import evaluate

    system = system_of(kind)

    def policy(action: Any) -> Any:
        given = torch.tensor(action, dtype=torch.float32)
        return lambda seen, rng: given.expand(*seen.shape[:-1], -1).contiguous()

    def loss(action: Any) -> float:
        held_in: dict[str, Any] = {"episodes": 8, "seeds": 1, "first_seed": 100}
        scores = evaluate(system, policy(action), deterministic=True, **held_in)
        return float(scores["loss"].mean())

    generator = np.random.default_rng(0)
    mean, width = np.array([-0.3, -0.5, 0.0, 0.7]), np.full(4, 0.3)
    for _ in range(GENERATIONS):
        actions = np.clip(mean + width * generator.normal(size=(12, 4)), -1, 1)
        best = actions[np.argsort([loss(action) for action in actions])[:4]]
        mean, width = best.mean(0), best.std(0) * 1.1 + 0.02
    return {**score(kind, policy(mean)), "action": [round(float(a), 3) for a in mean]}


def trained(kind: str, seed: int) -> dict[str, Any]:
    """Scores of a trained policy, with its learning curve."""
    from invariantzoo.agents.policy import network_policy
    from invariantzoo.training.rl.descent import DescentConfig, Trainer

    config = DescentConfig(n_worlds=WORLDS, rollout=ROLLOUT, lr=RATE)
    trainer = Trainer(system_of(kind), config, seed, UPDATES)
    curve = [(update.update, update.loss) for update in trainer]
    return {
        **score(kind, network_policy(trainer.network)),
        "curve": curve[:: max(UPDATES // 40, 1)],
    }


def main() -> None:
    """Compute what is missing, then print and write the page."""
    import torch

    args = figure_parser(__doc__, out=Path("docs"), seeds=5).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "particles-field.json"
    laws = {
        (form, order, width): [
            recorded(
                store,
                f"law {form} {order} {width} {cells}",
                partial(pair_law, cells, form, order, width),
            )
            for cells in (32, 64, 128)
        ]
        for form, order, width in (
            ("energy", 3, WIDTH),
            ("momentum", 3, WIDTH),
            ("momentum", 1, 0.0),
            ("energy", 2, 0.0),
        )
    }
    free = {
        key: recorded(store, f"free {key}", partial(free_run, *key))
        for key in (("energy", 8, 0.1), ("energy", 8, 0.05), ("momentum", 8, 0.05))
    }
    plain = {
        (kind, name): recorded(store, f"{kind}, {name}", partial(driver, kind, name))
        for kind, names in DRIVERS.items()
        for name in names
    }
    constants = {
        kind: recorded(store, f"{kind}, constant", partial(constant, kind)) for kind in SEARCHED
    }
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in TRAINED}
    for seed in range(args.seeds):
        for kind in TRAINED:
            key = f"{kind}, trained, seed {seed}"
            runs[kind].append(recorded(store, key, partial(trained, kind, seed)))
    page = _page(laws, free, plain, constants, runs)
    print(page)
    write_text(args.out / "particles-field.md", page)
    save_figure(_figure(plain, runs), args.out / "images" / "particles-field.png")


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3g} ± {_spread(values):.2g}"


def _spread(values: list[float]) -> float:
    """Standard deviation."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1))


def _verdict(plain: dict[Any, Any], runs: dict[str, list[dict[str, Any]]]) -> tuple[str, str]:
    """A heading and a paragraph, as the numbers have it."""
    losses = {kind: [run["loss"] for run in rows] for kind, rows in runs.items()}
    wide, narrow, sight = (losses[kind] for kind in TRAINED)
    standing = SPEED_WEIGHT * 0.5**2
    force = min(plain["by sight", "social-force"]["loss"], plain["by sight", "brake"]["loss"])
    if max(narrow) > standing:
        heading = "Discs that know of each other by a field alone hardly drive"
    elif sum(narrow) < sum(wide):
        heading = "A field is enough to drive by if it is as narrow as the discs"
    else:
        heading = "A field is enough to drive by"
    means = [sum(values) / len(values) for values in (narrow, sight)]
    close = abs(means[0] - means[1]) < _spread(narrow) + _spread(sight)
    against = (
        "within the scatter of seeds of"
        if close
        else "better than"
        if means[0] < means[1]
        else "worse than"
    )
    rows = [
        [kind, *(_mean([run[name] for run in runs[kind]]) for name in _SHOWN)] for kind in TRAINED
    ]
    text = f"""Standing still costs {standing:.3g} a step, driving straight on through everybody
{plain["by the field", "straight"]["loss"]:.3g}, and the best driver by sight that is not trained
{force:.3g}. Trained with the same budget, mean and standard deviation of {len(wide)} seeds:

{table(["discs know of each other", "loss", "contacts per particle and time", "progress"], rows)}
The narrow field is {against} sight, at a budget that is small.
The wide field is hardly better than to stand still."""
    return heading, text


def _page(
    laws: dict[Any, Any],
    free: dict[Any, Any],
    plain: dict[Any, Any],
    constants: dict[str, dict[str, Any]],
    runs: dict[str, list[dict[str, Any]]],
) -> str:
    heading, verdict = _verdict(plain, runs)
    law_rows = []
    for (form, order, width), rows in laws.items():
        name = f"{form}, order {order}, " + (f"clouds of width {width}" if width else "points")
        errors = [f"{row['error']:.2g}" for row in rows]
        own = [f"{row['self']:.2g}" for row in rows]
        law_rows.append([name, *errors, *own])
    law_heads = ["form", *(f"error, a = {a}" for a in (0.5, 0.25, 0.125))]
    law_heads += [f"self force, a = {a}" for a in (0.5, 0.25, 0.125)]
    free_rows = [
        [form, dt, f"{row['energy_error']:.1g}", f"{row['momentum']:.1g}"]
        for (form, _, dt), row in free.items()
    ]
    table_rows: list[list[Any]] = []
    for kind in TRAINED:
        for name in DRIVERS[kind]:
            row = plain[kind, name]
            table_rows.append([kind, name, row["contacts"], row["progress"], row["loss"]])
        if kind in constants:
            row = constants[kind]
            table_rows.append([kind, "constant", row["contacts"], row["progress"], row["loss"]])
        for seed, run in enumerate(runs[kind]):
            shown = [run["contacts"], run["progress"], run["loss"]]
            table_rows.append([kind, f"trained, seed {seed}", *shown])
    heads = ["discs know of each other", "policy", "contacts per particle and time", "progress"]
    best = {kind: f"{row['loss']:.3g}" for kind, row in constants.items()}
    constant_rows = [
        [range_, cloud, gain, " ".join(f"{a:.2f}" for a in constants[kind]["action"]), best[kind]]
        for range_, cloud, gain, kind in (
            ("1", "0.58", "20", "by the field"),
            ("1", "0.58", "100", "by the field, pushed harder"),
            ("1", "0.30", "20", "by the field of small clouds"),
            ("1/3", "0.30", "45", "by a narrow field"),
        )
    ]
    return f"""# {heading}

[`particles-field-v0`](environments/particles-field-v0.md): 24 discs of radius 0.25 carry a charge,
make a massive field on a grid and are pulled by it; waves run with speed 1, the discs want to go at
0.5 in directions of their own. A disc sees the field at its own place, its own field included: the
value, its rate of change, its slope and how its velocity stands to it, and how far it is from the
velocity that it wants. It acts along its velocity, up or down the slope, across it, and back to
what it wants. "By the field" is that of the id: range 1 / mass = 1 and charges in clouds of about
0.5. "By a narrow field": range 1/3 and clouds of 0.3. "By sight": discs of
[`particles-crowd-v0`](environments/particles-crowd-v0.md), which see the pair invariants I1 to I4
of their eight nearest neighbours; there is no field. Where discs start, the time step, the largest
acceleration and the loss are the same: 30 d^2 + {SPEED_WEIGHT:g} |p|^2 + 0.01 |a|^2, where d is
the overlap of margins.

{verdict}

![contacts against progress, and learning curves](images/particles-field.png)

## What limits a driver by field

How sharp the field is. The best action that is the same always (V along the velocity, G up the
slope, H across it, E back to what is wanted), found by a search on other worlds:

{table(["range", "cloud", "gain", "V G H E", "loss"], constant_rows)}
A field of range 1 in clouds of 0.5 is a smooth hill over several discs: near a neighbour its slope
does not grow, so who is pushed enough to avoid a contact is pushed about by everybody else, and the
best that is left is to crawl. A stronger push does not help. Smaller clouds do, and a shorter range
does more: then a force that knows nothing but the slope does about as well as the social force that
sees all distances. That the field is one sum for all neighbours, that it is late by their distance
and that nobody's velocity is seen stands in the way much less than its reach.

A disc cannot tell its own field from that of others, either. At constant velocity its own field has
no slope where it is; when it speeds up, the field lags behind, and its slope points back. Who goes
down the slope hard enough is then driven on by its own field. The social force therefore brakes
(V = -0.3), and the gain of the narrow field was set by hand so that it does not run away.

## All drivers

{table([*heads, "loss"], table_rows)}
"constant" is the action of the table above. Training: descent through the dynamics, {UPDATES}
updates of {WORLDS} worlds and {ROLLOUT} steps, Adam, learning rate {RATE:g} falling as a cosine;
each kind with the network that `train` gives it (a pair net for sight, a plain net of the same
width for the field). Training sees the first {ROLLOUT} steps of an episode, tests are 64 worlds of
200 steps on held-out seeds. Grids have 20 x 20 nodes and two passes, which give about the clouds of
the 40 x 40 nodes and eight passes of the id at a quarter of the price, and 30 x 30 nodes and one
pass for the narrow field.

## The force on the grid

Two charges 3 apart on a torus of side 16, 64 places and directions: root mean square error of the
force, and size of the force of a charge on itself, both relative to the exact pair force, the
Fourier series of the torus (q^2 m K1(m r) / 2 pi for points in the open plane).

{table(law_heads, law_rows)}
The last row is a trap: the energy form without clouds has a self force that grows as the grid gets
finer. The id has clouds of width 0.5 and the energy form. Eight discs that nobody drives, for a
time of 100 on 64 x 64 cells:

{table(["form", "dt", "energy error / kinetic energy", "momentum error / sum M w"], free_rows)}
Energy form: the error is that of the leapfrog, a quarter at half the step. Momentum form: momentum
of discs and field is exact to rounding, and energy is not a law.

The choice of the field, of the invariants and all numbers are ours; the idea that what particles
see of each other acts as a field is that of "Autonomous particles" (arXiv 2301.10077). To
reproduce: `python -m invariantzoo.figures.particles_field`.
"""


def _figure(plain: dict[Any, Any], runs: dict[str, list[dict[str, Any]]]) -> Any:
    figure, axes = page_figure(1, 2, 3.4)
    left, right = axes[0]
    for (kind, name), scores in plain.items():
        left.plot(scores["progress"], scores["contacts"], "s", c=COLOURS[kind], mfc="none")
        plain_name = name in ("none", "straight")
        if plain_name and kind != "by the field":
            continue  # all kinds have them at about one place
        left.annotate(
            name,
            (scores["progress"], scores["contacts"]),
            (-6, -10 if name == "straight" else 0 if plain_name else 5),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    for kind, rows in runs.items():
        x, y = [[run[m] for run in rows] for m in ("progress", "contacts")]
        left.plot(x, y, "o", c=COLOURS[kind], alpha=0.7, label=f"trained {kind}")
        for run in rows:
            updates, losses = zip(*run["curve"], strict=True)
            right.plot(updates, losses, c=COLOURS[kind], lw=0.8, alpha=0.7)
    right.axhline(SPEED_WEIGHT * 0.5**2, c="grey", lw=0.8, ls="--")
    right.annotate(
        "standing still",
        (0.98, SPEED_WEIGHT * 0.5**2),
        (0, 3),
        fontsize=8,
        ha="right",
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
    )
    left.set(xlabel="progress", ylabel="contacts / particle / time")
    left.set_yscale("symlog", linthresh=1e-3)
    right.set(xlabel="update", ylabel="training loss", yscale="log")
    right.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=9, loc="upper right")
    return figure


if __name__ == "__main__":
    main()
