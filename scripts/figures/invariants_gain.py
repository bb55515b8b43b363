"""What invariants buy: PPO on the same worlds with invariants, and with what they are made of.

    python -m invariantzoo.figures.invariants_gain [--out docs] [--seeds 3]

Agents that see invariants, and whose actions multiply vectors that turn with the world, learn
beside agents that see velocities, goals and neighbours as x and y, nearest first, and act along x
and y. Spins of a glass see theirs beside spins that see spins and bonds. The worlds, dynamics,
losses, steps, seeds, settings and widths of networks are the same. Scores are of fresh worlds, and
of the same worlds as other observers see them.
Writes results/invariants-gain.json, and images/invariants-gain.png; `figures/benchmark.py` puts
both on its page. Only what is missing in the results is trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import invariantzoo
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.types import Symmetry
from invariantzoo.figures.invariants_worlds import WORLDS, World, register
from invariantzoo.report import (
    TEXT_SIZE,
    figure_parser,
    page_figure,
    page_legend,
    recorded,
    save_figure,
    table,
)

RATES, SEED_OF_RATES = (3e-4, 1e-3, 3e-3), 10_000  # of agents without invariants
SHARE = 0.9  # of the score of ours
RECORD = "invariants-gain.json"
_Variants = dict[str, list[dict[str, Any]]]  # runs by what their agents see
_Groups = dict[str, _Variants]  # and by world
_TICKS = (30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
_FIRST, _POINTS = 0.03, 8  # of a curve: share of the steps, number


def make_run(world: World, variant: str, seed: int, lr: float | None) -> tuple[System, Any]:
    """A system and its trainer; lr None: the learning rate of the id."""
    from invariantzoo.training.rl.algorithms import make_config, make_trainer

    bare, network = world.variants[variant]
    id = world.name if bare else world.id
    system = invariantzoo.make_system(id, **world.parameters)
    settings: dict[str, Any] = {"network": network} if network else {}
    config = make_config(id, "ppo", settings | ({} if lr is None else {"lr": lr}))
    return system, make_trainer("ppo", system, config, seed=seed, steps=world.steps)


def rates(world: World) -> dict[str, float]:
    """Return of the usual agents by learning rate, on a seed that nothing else is trained with."""
    results = {}
    for lr in RATES:
        system, run = make_run(world, world.usual, SEED_OF_RATES, lr)
        for _ in run:
            pass
        results[f"{lr:g}"] = round(float(returns(system, run.policy(), world.episodes).mean()), 4)
    return results


def rate(world: World, variant: str, store: Path) -> float | None:
    """The learning rate: invariants have that of the id, the others the best of `RATES`."""
    if not world.variants[variant][0]:
        return None
    by_rate = recorded(store, f"rates/{world.id}", partial(rates, world))
    return float(max(by_rate, key=by_rate.__getitem__))


def trained(world: World, variant: str, seed: int, store: Path) -> dict[str, Any]:
    """Returns of a run while it learns, and of the policy that it leaves."""
    import time

    id = world.name if world.variants[variant][0] else world.id
    system, run = make_run(world, variant, seed, rate(world, variant, store))
    stops = list(world.steps * np.geomspace(_FIRST, 1, _POINTS))
    curve, spent, start = [], 0.0, time.process_time()
    for update in run:
        if update.steps < stops[0]:
            continue
        stops = [stop for stop in stops if stop > update.steps]
        spent += time.process_time() - start
        score = float(returns(system, run.policy(), world.episodes // 2).mean())
        curve.append([update.steps, round(score, 4)])
        start = time.process_time()
    fresh = invariantzoo.make_system(id, **{**world.parameters, **world.turns})
    scores = seen_otherwise(world, fresh, run.policy())
    trained_in = returns(system, run.policy(), world.episodes).mean()
    return {
        "curve": curve,
        "CPU s": round(spent, 1),
        "trained in": round(float(trained_in), 4),
        **scores,
    }


def start(world: World) -> float:
    """Mean return of what untrained networks do."""
    from invariantzoo.agents.policy import make_policy

    system = invariantzoo.make_system(world.id, **world.parameters)
    return float(returns(system, make_policy(world.start, system), world.episodes).mean())


def returns(system: System, policy: Any, worlds: int, state: Any = None) -> np.ndarray:
    """Returns [worlds] of an episode of held-out worlds, or of worlds that start from a state."""
    from invariantzoo.envs.core.seeds import HELD_OUT
    from invariantzoo.envs.core.vector import VectorEnv
    from invariantzoo.training.rl.score import run_episodes

    env = VectorEnv(system, worlds, seed=HELD_OUT, autoreset=False)
    options = None if state is None else {"state": state._asdict()}
    started = env.reset(options=options)
    most_likely = not system.stochastic
    return run_episodes(env, policy, deterministic=most_likely, started=started)["return"]


def seen_otherwise(world: World, system: System, policy: Any) -> dict[str, Any]:
    """Mean return of fresh worlds, and of the same as other observers see them.

    Of those: the mean return, and the mean and the largest change of a world's return.
    """
    from invariantzoo.envs.core.seeds import HELD_OUT
    from invariantzoo.envs.core.vector import VectorEnv

    env = VectorEnv(system, world.episodes, seed=HELD_OUT, autoreset=False)
    env.reset()
    fresh = returns(system, policy, world.episodes)
    scores: dict[str, Any] = {"fresh": round(float(fresh.mean()), 4)}
    for symmetry in symmetries(world, env.tensors):
        other = returns(system, policy, world.episodes, symmetry.state)
        change = np.abs(other - fresh)
        scores[symmetry.name] = [
            round(float(other.mean()), 4),
            *(float(f"{value:.3g}") for value in (change.mean(), change.max())),
        ]
    return scores


def symmetries(world: World, state: Any) -> Iterator[Symmetry]:
    """The worlds of `state` as other observers see them, as their id says."""
    system = invariantzoo.make_system(world.id)
    rng = Rng.single(1, len(state[0]))
    return (change for change in system.symmetries(state, rng) if change.name in world.changes)


def section(record: Mapping[str, Any]) -> str:
    """What the page says of it; empty without results."""
    groups = _grouped(record)
    if not groups:
        return ""
    seeds = sorted({len(runs) for variants in groups.values() for runs in variants.values()})
    steps = ", ".join(f"{name} {WORLDS[name].steps:,}" for name in groups)
    return _SECTION.format(
        seeds=f"{seeds[-1]} {'seed' if seeds[-1] == 1 else 'seeds'}"
        if len(seeds) == 1
        else f"{seeds[0]} to {seeds[-1]} seeds",
        steps=steps,
        rates=_rates(record),
        start=", ".join(
            f"{name} {_score(world, record[f'start/{name}']):.2f}"
            for name, world in WORLDS.items()
            if f"start/{name}" in record
        ),
        scores="\n".join(_scores(kind) for kind in _kinds(groups)),
        changes="\n".join(_changes(kind) for kind in _kinds(groups)),
        same=_SAME if _line_changes_nothing(record) else "",
        verdict="\n".join(f"- **{name}**: {_verdict(name, of)}" for name, of in groups.items()),
    )


_SECTION = """## What invariants buy

PPO learns to drive discs, and spins of a glass to cool, in the same worlds, with the same dynamics,
losses, agent-steps, seeds, settings and widths of networks, with what this package gives its
agents, and with what that is made of:

- *invariants*: the id as it is. Discs see scalars that no observer's place, turn or motion
  changes, and act by multiplying vectors that turn with the world. Spins see how well they are
  aligned with their neighbours, through bonds, and 1 / T.
- *x and y*, of discs: agents see their velocity, the velocity or place that they want, and the
  relative places and velocities of the same neighbours, nearest first, as x and y, with a flag for
  who is there; they choose an acceleration, or with goals a velocity, along x and y.
- *spins and bonds*, of spins: agents see themselves, their four neighbours and the bonds to these,
  in a fixed order, and 1 / T.

Each with a *plain network* on all that is seen, and with one *shared by neighbours* (discs with
invariants: the id's usual network; without: the neighbours are embedded by one network and summed).
Worlds are those of the ids with default parameters; discs start in random directions, so turned
worlds are among those that are learned from. *Encounter on one line* is the encounter whose discs
always come along the same line in training. Settings are those of the ids, which were chosen with
invariants; {rates}.

{seeds} of each; agent-steps of a run: {steps}. Scores are on the scales of the ids,
of held-out worlds, and of the same as other observers see them: turned (by any angle in the open
plane, by quarters on the torus) and mirrored; with all spins flipped, or with up and down of some
spins exchanged, and the sign of the bonds between these and the rest. Untrained discs hardly act,
and untrained spins flip at random, so what driving straight on, and flipping at random, score is
where they begin: {start}.

{scores}
![Scores while learning, with invariants and with x and y](images/invariants-gain.png)

Lines are means over runs, thin ones runs: scores of held-out worlds of the kind that is trained in,
with the most likely actions of discs, and with spins' actions drawn.{same}

{verdict}

How much the return of a world changes at most when it is seen by another observer, in units of the
best return's distance from random:

{changes}
Renumbering changes nothing in either, as discs see neighbours nearest first. Mirroring does change
what is done with invariants: I4 and what lies across change sign, so agents may tell left from
right, as a rule of the road needs; without I4 (`seen=("I1", "I2", "I3")`) they cannot.

    python -m invariantzoo.figures.invariants_gain

trains all of it.
"""


def _rates(record: Mapping[str, Any]) -> str:
    """Which learning rates x and y have."""
    ids = dict.fromkeys(WORLDS[name].id for name in _grouped(record))
    best = {id: record[f"rates/{id}"] for id in ids if f"rates/{id}" in record}
    same = " and ".join(f"`{id}`" for id in ids if id not in best)
    rest = f"on {same} they have that of the id, which favours invariants"
    if not best:
        return f"agents without them had no learning rate of their own: {rest}"
    chosen = " and ".join(f"{max(of, key=of.__getitem__)} for `{id}`" for id, of in best.items())
    text = "agents without them have the best of three learning rates "
    text += f"({', '.join(f'{lr:g}' for lr in RATES)}), by a seed of its own: {chosen}"
    return f"{text}; {rest}" if same else text


_SAME = """ Agents with invariants learn the same on one line as in any direction, to the last
digit: they cannot tell these worlds apart."""


def _line_changes_nothing(record: Mapping[str, Any]) -> bool:
    """Whether all runs with invariants on one line are those of any direction."""
    pairs = [
        (record[key]["curve"], record[key.replace("encounter on one line", "encounter")]["curve"])
        for key in record
        if key.startswith("encounter on one line/invariants")
    ]
    return bool(pairs) and all(one == other for one, other in pairs)


def _grouped(record: Mapping[str, Any]) -> _Groups:
    """Runs by world and variant, in their order."""
    groups: _Groups = {}
    for name in WORLDS:
        for variant in WORLDS[name].variants:
            prefix = f"{name}/{variant}/"
            runs = [record[key] for key in sorted(record) if key.startswith(prefix)]
            if runs:
                groups.setdefault(name, {})[variant] = runs
    return groups


def _kinds(groups: _Groups) -> list[_Groups]:
    """Groups of the worlds whose agents see the same."""
    kinds: dict[tuple[str, ...], _Groups] = {}
    for name, variants in groups.items():
        kinds.setdefault(tuple(WORLDS[name].variants), {})[name] = variants
    return list(kinds.values())


def _scores(groups: _Groups) -> str:
    """A table of worlds of one kind, as two other observers see them."""
    rows, changes = [], WORLDS[next(iter(groups))].changes
    seen = list(changes)[:2]
    for name, variants in groups.items():
        world = WORLDS[name]
        columns = [
            "trained in",
            *("fresh" if world.turns and m == 0 else of for m, of in enumerate(seen)),
        ]
        for variant, runs in variants.items():
            cells = [_interval(world, runs, of) for of in columns]
            seconds = np.mean([run["CPU s"] for run in runs])
            rows.append(
                [name, variant, *cells, _reached(name, variants, variant), f"{seconds:.0f}"]
            )
    steps = f"agent-steps to {100 * SHARE:.0f} % of the first row's score"
    words = [changes[of] for of in seen]
    return table(["worlds", "agents see", "score", *words, steps, "CPU s"], rows)


def _score(world: World, value: Any) -> Any:
    scale = invariantzoo.spec(world.id).score
    assert scale is not None  # all ids here have one
    return scale.score(value)


def _interval(world: World, runs: list[dict[str, Any]], name: str) -> str:
    from invariantzoo.training.benchmark.scoring import mean_interval

    values = [run[name][0] if isinstance(run[name], list) else run[name] for run in runs]
    scores = _score(world, np.array(values))
    if len(scores) == 1:
        return f"{scores[0]:.3f}"
    low, high = mean_interval(scores)
    return f"{scores.mean():.3f} [{low:.3f}, {high:.3f}]"


def _mean_curve(world: World, runs: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    curves = np.array([run["curve"] for run in runs])
    return curves[0, :, 0], _score(world, curves[..., 1].mean(0))


def _steps_to(world: World, runs: list[dict[str, Any]], wanted: float) -> float | None:
    """Agent-steps at which the mean of runs first has a score; None if it never has."""
    steps, scores = _mean_curve(world, runs)
    reached = np.flatnonzero(scores >= wanted)
    return float(steps[reached[0]]) if len(reached) else None


def _wanted(name: str, variants: _Variants) -> float:
    """The share of the score that agents with invariants have in the end."""
    return SHARE * float(_mean_curve(WORLDS[name], variants[WORLDS[name].ours])[1][-1])


def _reached(name: str, variants: _Variants, variant: str) -> str:
    if WORLDS[name].ours not in variants:
        return ""
    steps = _steps_to(WORLDS[name], variants[variant], _wanted(name, variants))
    return "not reached" if steps is None else f"{steps:,.0f}"


def _verdict(name: str, variants: _Variants) -> str:
    """One sentence on the two ways that differ most."""
    world = WORLDS[name]
    if world.ours not in variants or world.usual not in variants:
        return "not all runs are there."
    wanted = _wanted(name, variants)
    scores = {
        variant: _score(world, np.array([run["fresh"] for run in variants[variant]]))
        for variant in (world.ours, world.usual)
    }
    ours = _steps_to(world, variants[world.ours], wanted)
    theirs = _steps_to(world, variants[world.usual], wanted)
    several = min(len(values) for values in scores.values()) > 1
    apart = several and scores[world.ours].min() > scores[world.usual].max()
    text = f"{scores[world.ours].mean():.2f} with invariants and the id's network, "
    text += (
        f"{scores[world.usual].mean():.2f} with {world.usual.partition(',')[0]} and a plain one, "
    )
    text += "on fresh worlds"
    text += "; every run of the first is better than every run of the second. " if apart else ". "
    if world.turns:
        known = _score(world, np.mean([run["trained in"] for run in variants[world.usual]]))
        text += f"(On the line that it was trained on the second scores {known:.2f}.) "
    if ours is None:
        return text
    if theirs is None:
        return text + (
            f"What the first has after {ours:,.0f} agent-steps, a score of {wanted:.2f}, the "
            f"second does not reach in {world.steps:,}."
        )
    return text + (
        f"For a score of {wanted:.2f} the first needs at most {ours:,.0f} agent-steps, the second "
        f"{theirs:,.0f}: {theirs / ours:.2g} times as many."
    )


def _changes(groups: _Groups) -> str:
    rows, changes = [], WORLDS[next(iter(groups))].changes
    for name, variants in groups.items():
        best = abs(_score(WORLDS[name], 1.0) - _score(WORLDS[name], 0.0))  # scores per return
        for variant, runs in variants.items():
            most = [max(run[change][2] for run in runs) * best for change in changes]
            rows.append([name, variant, *(f"{value:.1e}" for value in most)])
    return table(["worlds", "agents see", *changes.values()], rows)


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Scores against agent-steps in every kind of world."""
    from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

    groups = _grouped(record)
    columns = 2
    rows = -(-len(groups) // columns)
    seen = list(dict.fromkeys(variant for world in WORLDS.values() for variant in world.variants))
    figure, axes = page_figure(rows, columns, 2.5 * rows + 0.6)
    for axis, (name, variants) in zip(axes.ravel(), groups.items(), strict=False):
        world = WORLDS[name]
        for variant, runs in variants.items():
            colour = f"C{seen.index(variant)}"
            for run in runs:
                steps, value = np.array(run["curve"]).T
                axis.plot(steps, _score(world, value), color=colour, lw=0.6, alpha=0.4)
            axis.plot(*_mean_curve(world, runs), color=colour, lw=1.8)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(_TICKS))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_ylim(-0.1, 1.05)
        axis.set_title(name)
        axis.set_xlabel("agent-steps")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    for row in axes:
        row[0].set_ylabel("score", fontsize=TEXT_SIZE)
    for axis in axes.ravel()[len(groups) :]:
        axis.remove()
    for place, variant in enumerate(seen):
        axes[0, 0].plot([], [], color=f"C{place}", lw=1.8, label=variant)
    page_legend(figure, 2, axes[0, 0])
    save_figure(figure, path)


def main() -> None:
    """Train what is missing, and draw."""
    parser = figure_parser(__doc__, out=Path("docs"), seeds=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    register()
    store = args.out / "results" / RECORD
    for seed in range(args.seeds):
        for name, world in WORLDS.items():
            recorded(store, f"start/{name}", partial(start, world))
            for variant in world.variants:
                compute = partial(trained, world, variant, seed, store)
                recorded(store, f"{name}/{variant}/{seed}", compute)
                print(name, variant, seed, flush=True)
    draw(json.loads(store.read_text(encoding="utf-8")), args.out / "images" / "invariants-gain.png")


if __name__ == "__main__":
    main()
