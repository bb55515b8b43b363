"""Boundary sites of a Klein-Gordon field that learn to let waves out, beside laws that are known.

    python -m invariantzoo.figures.klein_gordon_absorber [--root .]

Writes docs/klein-gordon-absorber.md, docs/results/klein-gordon-absorber.json and
docs/images/klein-gordon-boundaries.gif.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import invariantzoo
from invariantzoo import make_policy
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.klein_gordon import boundary
from invariantzoo.envs.klein_gordon.absorber import KleinGordonAbsorber
from invariantzoo.report import figure_parser, recorded, table, write_text
from invariantzoo.training.rl.score import evaluate

ID = "klein-gordon-absorber-v0"
TASKS: dict[str, dict[str, Any]] = {
    "m = 0": {},
    "m = 0.5": {"mass": 0.5},
    "a plane, m = 0": {"dimensions": 2, "length": 64, "packets": 12, "horizon": 400},
}
GOALS = {"m = 0": 1e-5, "m = 0.5": 2e-3, "a plane, m = 0": 5e-3}
LAWS = ("kernel", "taps", "pml", "higdon", "sponge", "mur", "wall")
SEEDS = 5
ROUNDS = 2
SHARES = (1.0, 0.5, 0.25)
NOISE = 1e-6  # of the actions that are watched
STABLE = 1 + 1e-8  # rounding of eigenvalues on the unit circle, some of them double
LONG = 100_000
LEAK = 1e-3  # of a unit by site and by step
STEPS = 20  # at most, of a run on a plane
TEXT = """# Boundary sites learn to let waves out with eight taps of memory

Packets of wave numbers 0.2 to 1.2 run against the boundaries of a lattice
([{id}](environments/{id}.md), dt = 0.5). What counts is the largest energy, at any time, of the
field less that of a lattice without boundary, over the energy of the packet. Cells: mean over the
packets, and the worst packet; of `learned` the median over its runs, with the least and the largest
mean.

{scores}
On the plane the boundary is a line of 32 sites, and the packets run at 0 to 75 degrees to its
normal.

`kernel` has the exact memory of the half lattice beyond, all {steps} steps of it. `taps` are the
eight taps of least mean |R|^2 that are stable, by least squares on the formula for R; on the plane
none that it meets are stable and better than Higdon's, from which they start. `pml` (10 sites) and
`sponge` (20 sites) simulate a layer beyond the boundary. `learned` are eight weights on the same
taps, from the agents' local loss.

On a line: one linear unit, {rounds} rounds of one world whose boundaries are exact but for a little
noise. Each takes a Gauss-Newton step in the leading directions of what was seen, of those under
which nothing grows (below) the one of least loss. Learning on worlds under its own weights did
worse when it was tried, at m = 0.5 above all: early weights blow up, and what they stir up
outweighs the packets.

On the plane that way reaches {one:.1e}: it asks how well waves that leave are foretold, and not
how much of a wave comes back once it is not, which is most where waves graze the boundary; and it
stops where one more step would be unstable. So there the weights are those of two units in turn,
each of which says u(1, 1) + a (u(1, 0) - u(1, 1)) + b (u(0, 1) - u(1, 1)), with u(j, l) the field j
sites inwards and l steps before; the second applies to what the first leaves. A unit sees nothing
but differences, as adding a number to a massless field changes nothing, and forgets a thousandth by
site and by step, so that nothing grows. a and b start at random, and Gauss-Newton brings down the
losses of one world under its own weights, from nothing but these losses, in at most {most} steps.

![A wall, and boundaries that have learned](images/klein-gordon-boundaries.gif)

One packet on a plane between walls, left, and between boundaries that have learned, right; below
each the same packet without boundary. Upper and lower edge are one: what goes out above comes in
below.

## Stability

{stable}
Radius: the largest factor by which anything between two such boundaries, {closed} sites apart,
grows in a step, at the wave numbers along the boundary that occur; growth: the largest entry of the
matrix of {long:,} such steps. A radius above 1 would be an instability even if no packet of the
score shows it.

To reproduce: `python -m invariantzoo.figures.klein_gordon_absorber`; one row of a law is
`invariantzoo evaluate {id} --policy LAW`."""


def main() -> None:
    """Do what is not recorded yet and write the page."""
    root = figure_parser(__doc__, root=Path()).parse_args().root
    torch.set_num_threads(1)
    path = root / "docs/results/klein-gordon-absorber.json"
    rows = []
    for law in LAWS:
        found = [recorded(path, f"{law}, {task}", partial(score_law, law, task)) for task in TASKS]
        rows.append([f"`{law}`", *(f"{mean:.1e}, {worst:.1e}" for mean, worst in found)])
    runs = {
        task: [
            recorded(path, f"descent, {task}, {seed}", partial(learned, task, seed))
            for seed in range(SEEDS)
        ]
        for task in TASKS
    }
    plane = list(TASKS)[-1]
    one = recorded(path, f"one unit, {plane}", partial(one_unit, plane))
    rows.insert(2, ["`learned`", *(_spread(group) for group in runs.values())])
    rows.append(["goal of `learned`", *(f"{GOALS[task]:.0e}" for task in TASKS)])
    stable = [
        [
            task,
            f"{sum(run['mean'] <= GOALS[task] for run in group)} of {len(group)}",
            f"{max(run['radius'] for run in group) - 1:+.1e}",
            f"{max(run['growth'] for run in group):.3g}",
        ]
        for task, group in runs.items()
    ]
    head = ["task", "runs within the goal", "largest radius less 1", "largest growth"]
    text = TEXT.format(
        id=ID,
        scores=table(["policy", *TASKS], rows),
        steps=600,
        rounds=ROUNDS,
        most=STEPS,
        one=one,
        stable=table(head, stable),
        closed=boundary.CLOSED,
        long=LONG,
    )
    film(root / "docs/images/klein-gordon-boundaries.gif", np.array(runs[plane][0]["taps"]))
    print(text)
    write_text(root / "docs/klein-gordon-absorber.md", text + "\n")


def _spread(group: list[dict[str, Any]]) -> str:
    means, worst = ([run[name] for run in group] for name in ("mean", "worst"))
    return f"{np.median(means):.1e} ({min(means):.0e} to {max(means):.0e}), {np.median(worst):.1e}"


def film(path: Path, taps: np.ndarray) -> None:
    """A packet between walls beside the same between boundaries of such taps."""
    from invariantzoo.training.runs import video

    opened = invariantzoo.spec(ID).film
    system = invariantzoo.make_system(ID, **opened.parameters)
    assert isinstance(system, KleinGordonAbsorber)
    env = VectorEnv(system, 2, seed=0, dtype=np.float64, autoreset=False)
    env.reset()
    for part in env.state:
        part[1] = part[0]
    law = (taps - boundary.mur(system.dt)) / system.reach
    with video.filming(path, env, size=384, fps=8, every=6) as shoot:
        shoot()
        for _ in range(opened.steps):
            action = env.observe() @ law
            action[0] = -system.mur_values(env.tensors)[0] / system.reach
            env.advance(action[..., None], unbounded=True)
            shoot()


def system_of(task: str) -> KleinGordonAbsorber:
    """The system of a task."""
    made = invariantzoo.make_system(ID, **TASKS[task])
    assert isinstance(made, KleinGordonAbsorber)
    return made


def score_law(law: str, task: str) -> list[float]:
    """Mean and worst reflection of a law."""
    return _score(system_of(task), make_policy(law, system_of(task)))


def _score(system: KleinGordonAbsorber, policy: Any) -> list[float]:
    scores = evaluate(system, policy, episodes=2, seeds=1, deterministic=True)
    return [float(scores[name].mean()) for name in ("reflected", "reflected_worst")]


class Linear:
    """One linear unit on the taps: [8] weights; asked with observations in double precision."""

    dtype = np.float64

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __call__(self, observation: Tensor, rng: Any) -> Tensor:
        action = observation.double() @ self.weights
        return action.clamp(-1, 1).unsqueeze(-1)


def learned(task: str, seed: int) -> dict[str, Any]:
    """Train a law and judge it."""
    system = system_of(task)
    squared = squared_masses(system)
    if system.sites == 1:
        weights = train(system, seed)
    else:
        law = two_units(train_units(system, seed))
        weights = torch.from_numpy(law - boundary.mur(system.dt)) / system.reach
    taps = boundary.mur(system.dt) + system.reach * weights.numpy()
    mean, worst = _score(system, Linear(weights))
    closed = [boundary.closed_step(taps, m2, system.dt) for m2 in squared]
    return {
        "mean": mean,
        "worst": worst,
        "radius": boundary.growth(taps, squared, system.dt),
        "growth": max(float(np.abs(np.linalg.matrix_power(c, LONG)).max()) for c in closed),
        "taps": taps.tolist(),
    }


def one_unit(task: str) -> float:
    """Mean reflection of weights that are learned as on a line."""
    return _score(system_of(task), Linear(train(system_of(task), 0)))[0]


def two_units(weights: np.ndarray) -> np.ndarray:
    """The eight taps of two units in turn, whose weights are the halves of [4].

    A unit says u(1, 1) + a (u(1, 0) - u(1, 1)) + b (u(0, 1) - u(1, 1)), and forgets a little.
    """
    first, second = (np.array([[1.0, -b], [-a, a + b - 1]]) for a, b in weights.reshape(2, 2))
    law = boundary.product(first, second)
    return np.array([-law[tap] * (1 - LEAK) ** sum(tap) for tap in boundary.TAPS])


def train_units(system: KleinGordonAbsorber, seed: int) -> np.ndarray:
    """Weights [4] of two units, by Gauss-Newton descent on the agents' losses in their own world.

    It needs nothing but the losses: their roots are what is brought down, and a world of slightly
    different weights gives each derivative.
    """
    from scipy.optimize import least_squares

    world = 100 * seed + 1
    env = VectorEnv(system, 1, seed=0, first_world=world, dtype=np.float64, autoreset=False)
    env.reset()
    start = env.save()

    def off(weights: np.ndarray) -> np.ndarray:
        law = two_units(weights) - boundary.mur(system.dt)
        observation, losses = env.restore(start), []
        for _ in range(system.horizon):
            action = (observation @ law / system.reach)[..., None]
            observation, reward = env.advance(action, unbounded=True)
            losses.append(-reward.astype(float))
        return np.sqrt(np.concatenate(losses, None))

    first = 0.3 * np.random.default_rng(seed).normal(size=4)
    return least_squares(off, first, x_scale=1.0, diff_step=1e-4, max_nfev=STEPS).x


def train(system: KleinGordonAbsorber, seed: int) -> Tensor:
    """Weights [8] of the action, by Gauss-Newton descent on the agents' own loss.

    A round watches one world under the exact policy. Of steps in so many leading directions of
    what was seen, whole or in part, it takes the one of least loss under which nothing grows.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = 1e-4 * torch.randn(len(boundary.TAPS), generator=generator, dtype=torch.float64)
    usual, squared = boundary.mur(system.dt), squared_masses(system)
    for turn in range(ROUNDS):
        taps, right = watched(system, 100 * seed + turn, generator)
        missing = right - taps @ weights
        left, spread, axes = torch.linalg.svd(taps, full_matrices=False)
        steps = (left.T @ missing / spread)[:, None] * axes
        best, least = weights, math.inf
        for leading in range(1, len(boundary.TAPS)):
            for share in SHARES:
                other = weights + share * steps[:leading].sum(0)
                loss = float((right - taps @ other).square().mean())
                law = usual + system.reach * other.numpy()
                if loss < least and boundary.growth(law, squared, system.dt) <= STABLE:
                    best, least = other, loss
        weights = best
    return weights


def squared_masses(system: KleinGordonAbsorber) -> np.ndarray:
    """What waves along the boundary add to the squared mass, with it."""
    return np.unique(boundary.along(system.sites)[1].round(12)) + system.mass**2


def watched(
    system: KleinGordonAbsorber, world: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Taps [rows, 8] of one episode under the exact policy and a little noise, and its actions."""
    env = VectorEnv(system, 1, seed=0, first_world=world, dtype=np.float64, autoreset=False)
    observation, seen, right = env.reset(), [], []
    every = max(1, system.n_agents // 64)
    for _ in range(system.horizon):
        state = env.tensors
        exact = (system.open_values(state) - system.mur_values(state)) / system.reach
        seen.append(torch.from_numpy(observation)[0, ::every].clone())
        right.append(exact[0, ::every].clone())
        noise = torch.randn(exact.shape, generator=generator, dtype=torch.float64)
        action = (exact + NOISE * noise).unsqueeze(-1).numpy()
        observation = env.step(action, unbounded=True).observation
    return torch.cat(seen), torch.cat(right)


if __name__ == "__main__":
    main()
