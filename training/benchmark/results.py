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
"algo optimizer". Anybody's results compare if they have "runs" with "id", "algo" and "return" or
"score".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...envs.core.registry import ScoreScale, spec
from ...envs.core.validation import shown
from ..runs.folder import read_progress
from . import scoring
from .units import Unit

SCHEMA = 1
_POINTS = 50  # of a run's curve, at most


def scale(id: str) -> ScoreScale:
    """The scale of an id's score; ValueError for an id that has none."""
    known = spec(id).score
    if known is None:
        raise ValueError(f"{id} has no scale of scores: register it with score={{...}}")
    return known


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
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("runs"), list):
        raise ValueError(f'{path} is no result of a benchmark: it has no list "runs"')
    if document.get("schema", SCHEMA) != SCHEMA:
        was = shown(document["schema"])
        raise ValueError(f"{path} has schema {was}; this version reads {SCHEMA}")
    return {**document, "runs": [_checked(path, run) for run in document["runs"]]}


def _checked(path: Path, run: Any) -> dict[str, Any]:
    """A run of somebody's results with its score."""
    if not isinstance(run, dict) or not all(isinstance(run.get(n), str) for n in ("id", "algo")):
        raise ValueError(f'{path}: {shown(run)} must have texts "id" and "algo"')
    for name in ("score", "return"):
        value = run.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            score = float(value) if name == "score" else scale(run["id"]).score(float(value))
            return {**run, "score": score}
    raise ValueError(f'{path}: {shown(run)} must have a number "score" or "return"')


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
        "id": unit.id,
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
