"""Discs that know of each other by a field, beside discs that see each other: law and driving.

    python -m invariantzoo.figures.particles_field [--out docs] [--seeds 5]

The pair force on the grid is compared with its exact value, the energy of a free run with that at
its start.
Then the same descent through the dynamics trains drivers of both kinds of discs on the same
task; tests are 64 worlds of 200 steps on held-out seeds. Writes particles-field.md, its picture and
particles-field.json, from which an interrupted run goes on.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from invariantzoo.report import figure_parser, page_figure, recorded, save_figure, table, write_text

BOX, WIDTH, DISTANCE = 16.0, 0.5, 3.0
UPDATES, WORLDS, ROLLOUT, RATE = 40, 8, 25, 0.01
SPEED_WEIGHT = 2.0
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "by the field": ("particles-field-v0", {"cells": 20, "passes": 2}),
    "by sight": ("particles-crowd-v0", {"speed": 0.5}),
}
DRIVERS = {
    "by the field": ("none", "straight", "social-force"),
    "by sight": ("straight", "brake", "social-force"),
}
_CONTACTS = {"by the field": "contacts", "by sight": "collisions"}


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
    names = {"contacts": _CONTACTS[kind], "progress": "progress", "loss": "loss"}
    return {name: float(scores[own].mean()) for name, own in names.items()}


def driver(kind: str, name: str) -> dict[str, float]:
    """Scores of a policy that needs no training."""
    from invariantzoo.agents.policy import make_policy

    return score(kind, make_policy(name, system_of(kind)))


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
    runs = {
        kind: [
            recorded(store, f"{kind}, trained, seed {seed}", partial(trained, kind, seed))
            for seed in range(args.seeds)
        ]
        for kind in KINDS
    }
    page = _page(laws, free, plain, runs)
    print(page)
    write_text(args.out / "particles-field.md", page)
    save_figure(_figure(plain, runs), args.out / "images" / "particles-field.png")


def _mean(values: list[float]) -> str:
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1))
    return f"{mean:.3g} ± {spread:.2g}"


def _verdict(plain: dict[Any, Any], runs: dict[str, list[dict[str, Any]]]) -> tuple[str, str]:
    """A heading and a paragraph, as the numbers have it."""
    losses = {kind: [run["loss"] for run in rows] for kind, rows in runs.items()}
    field, sight = losses["by the field"], losses["by sight"]
    standing = SPEED_WEIGHT * 0.5**2
    straight = plain["by the field", "straight"]["loss"]
    drives = max(field) < min(standing, straight)
    heading = (
        "A field is enough to drive by, and seeing the others is better"
        if drives and max(sight) < min(field)
        else "Discs that know of each other by a field alone hardly drive"
        if max(sight) < min(field)
        else "Driving by a field and driving by sight are within the scatter of seeds"
    )
    text = f"""Standing still costs {standing:.3g} a step, driving straight on through everybody
{straight:.3g}. Trained on the field: {_mean(field)} (mean and standard deviation of
{len(field)} seeds), with {_mean([run["contacts"] for run in runs["by the field"]])} contacts per
particle and time and a progress of {_mean([run["progress"] for run in runs["by the field"]])}.
Trained on the invariants of the others, with the same budget: {_mean(sight)},
{_mean([run["contacts"] for run in runs["by sight"]])} and
{_mean([run["progress"] for run in runs["by sight"]])}."""
    return heading, text


def _page(
    laws: dict[Any, Any],
    free: dict[Any, Any],
    plain: dict[Any, Any],
    runs: dict[str, list[dict[str, Any]]],
) -> str:
    heading, verdict = _verdict(plain, runs)
    law_rows = []
    for (form, order, width), rows in laws.items():
        name = f"{form}, order {order}, " + (f"clouds of width {width}" if width else "points")
        errors = [f"{row['error']:.2g}" for row in rows]
        own = [f"{row['self']:.1g}" for row in rows]
        law_rows.append([name, *errors, *own])
    law_heads = ["form", *(f"error, a = {a}" for a in (0.5, 0.25, 0.125))]
    law_heads += [f"self force, a = {a}" for a in (0.5, 0.25, 0.125)]
    free_rows = [
        [form, dt, f"{row['energy_error']:.1g}", f"{row['momentum']:.1g}"]
        for (form, _, dt), row in free.items()
    ]
    table_rows: list[list[Any]] = []
    for kind in KINDS:
        for name in DRIVERS[kind]:
            row = plain[kind, name]
            table_rows.append([kind, name, row["contacts"], row["progress"], row["loss"]])
        for seed, run in enumerate(runs[kind]):
            shown = [run["contacts"], run["progress"], run["loss"]]
            table_rows.append([kind, f"trained, seed {seed}", *shown])
    heads = ["discs know of each other", "policy", "contacts per particle and time", "progress"]
    return f"""# {heading}

`particles-field-v0`: 24 discs of radius 0.25 carry a charge, make a field of mass 1 on a grid and
are pulled by it; waves run with speed 1, the discs want to go at 0.5 in directions of their own.
A disc sees the field at its own place, its own field included: the value, its rate of change, its
slope and how its velocity stands to it. It acts along its velocity, up or down the slope, across
it, and back to what it wants. Discs of `particles-crowd-v0` see the pair invariants I1 to I4 of
their eight nearest neighbours instead; there is no field. Where discs start, the time step, the
largest acceleration and the loss are the same: 30 (overlap of margins)^2 + {SPEED_WEIGHT:g} |p|^2
+ 0.01 |a|^2.

{verdict}

![contacts against progress, and learning curves](images/particles-field.png)

{table([*heads, "loss"], table_rows)}
Training: descent through the dynamics, {UPDATES} updates of {WORLDS} worlds and {ROLLOUT} steps,
Adam, learning rate {RATE:g} falling as a cosine; each kind with the network that `train` gives it
(a pair net for sight, a plain net of the same width for the field). Tests: 64 worlds of 200 steps
on held-out seeds. The grid of the driving discs has 20 x 20 cells and two passes, which give the
same clouds as the 40 x 40 cells and eight passes of the id at a quarter of the price.

## What makes it hard

A disc cannot tell its own field from that of others. At constant velocity its own field has no
slope where it is; when it speeds up, the field lags behind, and its slope points back. Who goes
down the slope hard enough is then driven on by its own field: with G = -1 and nothing else, the
discs of the id run away. The social force therefore brakes (V = -0.3). Two neighbours on opposite
sides cancel, and what is seen of a neighbour is as old as its distance.

## The force on the grid

Two charges 3 apart on a torus of side 16, 64 places and directions: root mean square error of the
force, and size of the force of a charge on itself, both relative to the exact pair force, the
Fourier series of the torus (q^2 m K1(m r) / 2 pi for points in the open plane).

{table(law_heads, law_rows)}
The last row is a trap: the energy form without clouds has a self force that grows as the grid gets
finer. The id has clouds of width 0.5 and the energy form. Eight discs that nobody drives, for a
time of 100 on 64 x 64 cells:

{table(["form", "dt", "energy error / kinetic energy", "momentum error / sum M |w|"], free_rows)}
Energy form: the error is that of the leapfrog, a quarter at half the step. Momentum form: momentum
of discs and field is exact to rounding, and energy is not a law.

The choice of the field, of the invariants and all numbers are ours; the idea that what particles
see of each other acts as a field is that of "Autonomous particles" (arXiv 2301.10077). To
reproduce: `python -m invariantzoo.figures.particles_field`.
"""


def _figure(plain: dict[Any, Any], runs: dict[str, list[dict[str, Any]]]) -> Any:
    figure, axes = page_figure(1, 2, 3.4)
    left, right = axes[0]
    colours = {"by the field": "tab:orange", "by sight": "tab:blue"}
    for (kind, name), scores in plain.items():
        left.plot(scores["progress"], scores["contacts"], "s", c=colours[kind], mfc="none")
        left.annotate(
            name,
            (scores["progress"], scores["contacts"]),
            (-6, 5),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    for kind, rows in runs.items():
        x, y = [[run[m] for run in rows] for m in ("progress", "contacts")]
        left.plot(x, y, "o", c=colours[kind], alpha=0.7, label=f"trained {kind}")
        for run in rows:
            updates, losses = zip(*run["curve"], strict=True)
            right.plot(updates, losses, c=colours[kind], lw=0.8, alpha=0.7)
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
    left.legend(frameon=False, fontsize=9)
    right.set(xlabel="update", ylabel="training loss", yscale="log")
    return figure


if __name__ == "__main__":
    main()
