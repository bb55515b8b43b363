"""What a benchmark's runs decide, and what they leave open: sentences for its page.

Intervals here draw ids anew, and runs within each id: they say what may be expected of other ids
of the same kind, and exist for a single run of each too. Where one includes 1/2, nothing is said to
be better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from invariantzoo.training.benchmark.scoring import RESAMPLES
from invariantzoo.training.rl.score import iqm

Runs = Mapping[str, Mapping[int, float]]  # by id and seed: scores
LEAST_IDS = 4  # fewer of them decide nothing
LEAST_PAIRS = 5  # of an id: of 2, half have one sign by chance, of 5 one in 16
_LEAST_DIFFERENCE = 0.001  # of scores, for an id to be named
_FEW = 6  # agents


class Chance(NamedTuple):
    """That one is better than another, ties one half, with its 95 % interval over so many ids."""

    value: float
    low: float
    high: float
    ids: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 1/2, over enough ids."""
        return self.ids >= LEAST_IDS and not self.low <= 0.5 <= self.high

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def by_label(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Scores by algorithm and optimizer ("ppo", "ppo cgd"), id and seed."""
    groups: dict[str, dict[str, dict[int, float]]] = {}
    for run in runs:
        scores = groups.setdefault(label(run), {}).setdefault(run["id"], {})
        scores[run["seed"]] = run["score"]
    return groups


def label(run: Mapping[str, Any]) -> str:
    """The algorithm, with its optimizer where this is not Adam."""
    return run["algo"] if run["optimizer"] == "adam" else f"{run['algo']} {run['optimizer']}"


def kinds(ids: Sequence[str]) -> dict[str, list[str]]:
    """Ids by what they are like; an id is of several kinds."""
    from gymnasium.spaces import Discrete

    from invariantzoo import make_system

    systems = {id: make_system(id) for id in ids}
    discrete = {id: isinstance(system.action_space, Discrete) for id, system in systems.items()}
    flows = {id: systems[id].differentiable and not discrete[id] for id in ids}
    few = {id: system.n_agents <= _FEW for id, system in systems.items()}
    return {
        "continuous actions": [id for id in ids if not discrete[id]],
        "discrete actions": [id for id in ids if discrete[id]],
        f"up to {_FEW} agents": [id for id in ids if few[id]],
        f"more than {_FEW} agents": [id for id in ids if not few[id]],
        "losses with a gradient": [id for id in ids if flows[id]],
        "losses without a gradient": [id for id in ids if not flows[id]],
    }


def chance(of: Runs, over: Runs, ids: Sequence[str], *, paired: bool = False) -> Chance | None:
    """That a run of one is better than one of the other on the same id, mean over ids.

    paired: runs of the same seed alone are compared. None where no id has both.
    """
    rng = np.random.default_rng(0)
    values, drawn = [], []
    for id in ids:
        ours, theirs = of.get(id, {}), over.get(id, {})
        if paired:
            better = [_better(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
            table = np.diag(better)
        else:
            table = np.array([[_better(x, y) for y in theirs.values()] for x in ours.values()])
        if not table.size:
            continue
        rows, columns = (rng.integers(n, size=(RESAMPLES, n)) for n in table.shape)
        if paired:
            values.append(float(np.mean(better)))
            drawn.append(table[rows, rows].mean(-1))
        else:
            values.append(float(table.mean()))
            drawn.append(table[rows[:, :, None], columns[:, None]].mean((1, 2)))
    if not values:
        return None
    n = len(values)
    chosen = rng.integers(n, size=(RESAMPLES, n))
    means = np.stack(drawn)[chosen, np.arange(RESAMPLES)[:, None]].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Chance(float(np.mean(values)), float(low), float(high), n)


def _better(x: float, y: float) -> float:
    return 0.5 if x == y else float(x > y)


def middle(runs: Runs, ids: Sequence[str]) -> float:
    """Interquartile mean of all runs of some ids."""
    return float(iqm(np.array([score for id in ids for score in runs[id].values()])))


def leaders(groups: Mapping[str, Runs], ids: Sequence[str]) -> str:
    """Which algorithm is best on some ids, against whom it is decided, and against whom not.

    Algorithms compete that have runs of all these ids.
    """
    rivals = {
        name: middle(group, ids)
        for name, group in groups.items()
        if ids and all(id in group for id in ids)
    }
    if not rivals:
        return "no id has all its runs yet."
    ranked = sorted(rivals, key=lambda name: -rivals[name])
    first = ranked[0]
    if len(ids) < LEAST_IDS:
        listed = ", ".join(f"`{name}` {rivals[name]:.2f}" for name in ranked)
        return f"undecided by so few ids; interquartile means: {listed}."
    text = f"`{first}` has the highest interquartile mean, {rivals[first]:.2f}"
    beaten: list[str] = []
    even: list[str] = []
    ahead: list[str] = []  # on most ids, by less than they lose by on the others
    for name in ranked[1:]:
        of = chance(groups[first], groups[name], ids)
        assert of is not None  # both have runs of all ids
        decided = beaten if of.low > 0.5 else ahead
        (decided if of.decided else even).append(f"`{name}` ({of})")
    if beaten:
        text += f"; it is better than {', '.join(beaten)}"
    if ahead:
        text += f"; yet run by run it is worse than {', '.join(ahead)}"
    if even:
        text += f"; undecided against {', '.join(even)}"
    return text + "."


def counted(ids: Sequence[str]) -> str:
    """How many ids, in words."""
    return "1 id" if len(ids) == 1 else f"{len(ids)} ids"


def where(groups: Mapping[str, Runs], ids: Sequence[str]) -> list[str]:
    """A line for each kind of id; only ids count all of whose runs are there."""
    return [
        f"- **{name}** ({counted(group)}): {leaders(groups, group)}"
        for name, group in kinds(ids).items()
    ]


def covariant(groups: Mapping[str, Runs], ids: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """What covariant descent buys: sentences, and a table of differences by id."""
    said, columns = [], {}
    for algo in ("ppo", "descent"):
        ours, theirs = groups.get(f"{algo} cgd", {}), groups.get(algo, {})
        of = chance(ours, theirs, ids, paired=True)
        if of is None:
            said.append(f"- `{algo}`: no pairs yet.")
            continue
        columns[algo] = {
            id: np.array([ours[id][s] - theirs[id][s] for s in ours[id] if s in theirs[id]])
            for id in ids
            if id in ours and id in theirs and set(ours[id]) & set(theirs[id])
        }
        verdict = "undecided"
        if of.decided:
            verdict = "`cgd` is better" if of.low > 0.5 else "Adam is better"
        wins, losses = _listed(columns[algo], 1), _listed(columns[algo], -1)
        said.append(
            f"- `{algo}`: a run with `cgd` is better than that with Adam of the same seed with "
            f"chance {of} over {of.ids} ids: {verdict}. It wins on {wins}; it loses on {losses}."
        )
    rows = [
        [f"`{id}`", *(_difference(column.get(id)) for column in columns.values())]
        for id in ids
        if any(id in column for column in columns.values())
    ]
    return said, [["id", *columns], *rows] if rows else []


def _listed(column: dict[str, np.ndarray], sign: int) -> str:
    """Ids whose difference has this sign, and by how much, of those with enough pairs."""
    known = {id: values for id, values in column.items() if len(values) >= LEAST_PAIRS}
    if not known:
        return f"none that is known (no id has {LEAST_PAIRS} pairs yet)"
    decided = {
        id: v.mean() for id, v in known.items() if min(sign * end for end in _interval(v)) > 0
    }
    told = [f"`{id}` ({m:+.3f})" for id, m in decided.items() if sign * m >= _LEAST_DIFFERENCE]
    return ", ".join(told) or "none"


def _interval(differences: np.ndarray) -> list[float]:
    """95 % interval of the mean of a few, by Student's t: their bootstrap is too narrow."""
    from scipy.stats import t

    error = differences.std(ddof=1) / np.sqrt(len(differences))
    reach = float(error * t.ppf(0.975, len(differences) - 1))
    mean = float(differences.mean())
    return [mean - reach, mean + reach]


def _difference(values: np.ndarray | None) -> str:
    if values is None:
        return "–"
    if len(values) == 1:
        return f"{values[0]:+.3f}"
    low, high = _interval(values)
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
