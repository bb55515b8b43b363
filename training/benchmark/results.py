"""Results of a benchmark as one JSON document, read again and compared with others.

    {"schema": 1, "version": …, "suite": …, "label": …,
     "scales": {id: {"random", "best", "policy", "exact", "origin"}},
     "runs": [{"id", "algo", "optimizer", "seed", "steps", "seconds", "cpu_seconds", "return",
               "score", "curve": [[steps, CPU seconds, score], …]}, …],
     "dashes": [{"id", "algo", "reason"}, …],
     "aggregates": {label: {"iqm", "ci95", "runs", "ids"}},
     "improvement": {label: {label: {"probability", "ci95", "ids"}}}}

`return` is the mean of held-out episodes of the trained policy; `score` is that on the scale of its
id; `seconds` are those of the clock, which other work on the machine lengthens. A label is
"algo optimizer", "of algo optimizer" of another's runs. Anybody's results compare if they have
"runs" with "id", "algo" and "return" or "score"; of both the return counts, on the scale of here.
Scores and curves are put on that scale too where the document says, in "scales", on which they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ...envs.core.registry import ScoreScale, Spec, spec, spec_in_file
from ...envs.core.validation import shown
from ..runs.folder import read_progress
from . import scoring
from .units import Unit

SCHEMA = 1
_POINTS = 50  # of a run's curve, at most
_HUGE = 1e100  # of what others call a return or a score: sums of such are still numbers


def scale(id: str) -> ScoreScale:
    """The scale of an id's score; ValueError for an id that has none."""
    return _scale(spec(id))


def _scale(known: Spec) -> ScoreScale:
    if known.score is None:
        raise ValueError(f"{known.id} has no scale of scores: register it with score={{...}}")
    return known.score


def collect(
    units: Iterable[Unit], refused: dict[tuple[str, str], str], out: Path, *, suite: str
) -> dict[str, Any]:
    """The document of all units that are done."""
    return document(runs(units, out), refused, suite=suite)


def runs(units: Iterable[Unit], out: Path) -> list[dict[str, Any]]:
    """The row of each unit that is done."""
    return [_run(unit, out) for unit in units if unit.done(out)]


def document(
    runs: Sequence[dict[str, Any]], refused: dict[tuple[str, str], str], *, suite: str
) -> dict[str, Any]:
    """The document of runs, with their scales and summaries."""
    ids = list(dict.fromkeys(run["id"] for run in runs))
    rows = {
        "schema": SCHEMA,
        "version": version("invariantzoo"),
        "suite": suite,
        "scales": {id: scale(id)._asdict() for id in ids},
        "runs": list(runs),
        "dashes": [{"id": i, "algo": a, "reason": why} for (i, a), why in refused.items()],
    }
    return {**rows, **summaries(rows)}


def readable(units: Iterable[Unit], out: Path) -> tuple[list[Unit], list[tuple[Unit, str]]]:
    """Units that are done and whose files can be read, and what is wrong with those of others."""
    whole, damaged = [], []
    for unit in units:
        if unit.done(out):
            try:
                _run(unit, out)
            except ValueError as error:
                damaged.append((unit, str(error)))
            else:
                whole.append(unit)
    return whole, damaged


def summaries(document: dict[str, Any]) -> dict[str, Any]:
    """ "aggregates" and "improvement" of the runs of a document."""
    groups = by_label(document["runs"])
    aggregates = {
        label: {
            **scoring.interquartile_mean(group),
            "runs": sum(len(values) for values in group.values()),
            "ids": len(group),
        }
        for label, group in groups.items()
    }
    improvement = {
        one: {
            other: scoring.probability_of_improvement(groups[one], groups[other])
            for other in groups
            if other != one
        }
        for one in groups
    }
    return {"aggregates": aggregates, "improvement": improvement}


def by_label(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Scores [runs] by label and id."""
    groups: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        groups.setdefault(label(run), {}).setdefault(run["id"], []).append(run["score"])
    return {
        name: {id: np.array(values) for id, values in group.items()}
        for name, group in groups.items()
    }


def label(run: dict[str, Any]) -> str:
    """What a run is called: its algorithm and its optimizer, after whose it is."""
    words = (run.get("of", ""), run["algo"], run.get("optimizer", ""))
    return " ".join(word for word in words if word)


def read(path: Path) -> dict[str, Any]:
    """Anybody's results, with scores of all runs whose ids have a scale here.

    Raises ValueError for what is no such document.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("runs"), list):
        raise ValueError(f'{path} is no result of a benchmark: it has no list "runs"')
    if document.get("schema", SCHEMA) != SCHEMA:
        was = shown(document["schema"])
        raise ValueError(f"{path} has schema {was}; this version reads {SCHEMA}")
    runs = [_checked(path, run, document.get("scales")) for run in document["runs"]]
    seen: set[tuple[Any, ...]] = set()
    for run in runs:
        which = run["id"], label(run), run.get("seed")
        if "seed" in run and which in seen:
            raise ValueError(f"{path} holds two runs of {' '.join(which[:2])}, seed {which[2]}")
        seen.add(which)
    return {**document, "runs": runs}


def on_scale(score: float, then: ScoreScale, now: ScoreScale) -> float:
    """A score of the scale `then`, on the scale `now`."""
    return score if then.measure == now.measure else float(now.score(then.mean_return(score)))


def _checked(path: Path, run: Any, scales: Any) -> dict[str, Any]:
    """A run of somebody's results, with its scores on the scale that its id has here.

    scales: by id, those that they are on; on that of here where there is none.
    """
    if not isinstance(run, dict) or not all(_is_text(run.get(n)) for n in ("id", "algo")):
        raise ValueError(f'{path}: {shown(run)} must have texts "id" and "algo"')
    if not all(_is_text(run.get(name, "")) for name in ("optimizer", "of")):
        raise ValueError(f'{path}: "optimizer" of {shown(run)} must be a text')
    if not isinstance(run.get("seed", 0), int | str):
        raise ValueError(f'{path}: "seed" of {shown(run)} must be a whole number')
    if "curve" in run and not _is_curve(run["curve"], run.get("steps")):
        raise ValueError(
            f'{path}: a run of {run["id"]} by {run["algo"]} must have "curve": [[steps, CPU '
            'seconds or null, score], ...], rising, with "steps" above 0, or none'
        )
    try:
        known = spec_in_file(run["id"])
        points = _scale(known)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error.args[0]}") from None
    then, score = _scale_in_file(path, run["id"], scales) or points, run.get("score")
    try:
        if _is_number(run.get("return")):  # first: what a score was measured by may have changed
            score = points.score(float(run["return"]))
        elif _is_number(score):
            score = on_scale(score, then, points)
        else:
            raise ValueError(f'{path}: {shown(run)} must have a number "return" or "score"')
        curve = [[*spent, on_scale(at, then, points)] for *spent, at in run.get("curve", ())]
    except OverflowError:
        raise ValueError(f"{path}: a score of {run['id']} is too far below 0") from None
    moved = {"curve": curve} if "curve" in run else {}
    return {**run, **moved, "id": known.id, "score": float(score)}


def _scale_in_file(path: Path, id: str, scales: Any) -> ScoreScale | None:
    """The scale that somebody's results say they have of an id; None if they say nothing."""
    if not isinstance(scales, dict) or id not in scales:
        return None
    of = scales[id]
    if isinstance(of, dict):
        ends: list[Any] = [of.get("random"), of.get("best"), of.get("resolution", 0.0)]
        if all(map(_is_number, ends)) and ends[1] > ends[0] and ends[2] >= 0:
            return ScoreScale(ends[0], ends[1], "", "", resolution=ends[2])
    raise ValueError(
        f'{path}: "scales" of {id} must have numbers "random" below "best" and "resolution" of at '
        f"least 0, not {shown(of)}"
    )


def _finite(text: str) -> float:
    """A number of a file; ValueError for NaN and infinity, which cannot be written again."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is no finite number")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a number of which sums can be taken."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE


def _is_curve(value: Any, steps: Any) -> bool:
    """Whether `value` is a curve of a run of so many steps."""
    if not isinstance(value, list) or not all(isinstance(p, list) and len(p) == 3 for p in value):
        return False
    made, spent, scores = ([p[column] for p in value] for column in range(3))
    spent = [seconds for seconds in spent if seconds is not None]
    if not all(map(_is_number, [*made, *spent, *scores])):
        return False
    rising = made == sorted(made) and spent == sorted(spent)
    return rising and (not value or (_is_number(steps) and steps > 0))


def _run(unit: Unit, out: Path) -> dict[str, Any]:
    report, known = unit.report(out), scale(unit.id)
    mean = report["scores"]["trained"]["return"]["mean"]
    rows = [row for row in read_progress(out / unit.name) if "return" in row]
    chosen = np.unique(np.linspace(0, max(len(rows) - 1, 0), _POINTS).round().astype(int))
    curve = [
        [rows[m]["steps"], rows[m].get("cpu_seconds"), round(known.score(rows[m]["return"]), 5)]
        for m in chosen[: len(rows)]
    ]
    return {
        "id": spec(unit.id).id,
        "algo": unit.algo,
        "optimizer": unit.optimizer,
        "seed": unit.seed,
        "steps": report["steps"],
        "seconds": report["seconds"],
        "cpu_seconds": report.get("cpu_seconds"),
        "return": mean,
        "score": known.score(mean),
        "curve": curve,
    }
