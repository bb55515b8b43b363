"""A run's folder: its files, and those of them that are text. Nothing heavy is imported here.

config.json      what was trained and how; with checkpoint.pt enough to rebuild and continue it
checkpoint.pt    weights, optimizer, counters, generators and worlds: tensors and numbers only
policy.zip       for `PPO.load` (A2C, SAC); never read here unless it is trusted
progress.csv     a row per update; tb/ the same for TensorBoard
scores.json, learning_curve.png, rollout.mp4    what the command line adds at the end
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ...envs.core.files import write_atomically
from ...envs.core.registry import spec_in_file
from ...envs.core.validation import shown
from ..rl.hyperparameters import ALGORITHMS

SCHEMA = 1
CONFIG, CHECKPOINT, POLICY, PROGRESS = "config.json", "checkpoint.pt", "policy.zip", "progress.csv"
SCORES, CURVE, FILM, BOARD = "scores.json", "learning_curve.png", "rollout.mp4", "tb"
WEIGHTS = "model.safetensors"  # in place of checkpoint.pt in a folder made to be shared
FILES = (CONFIG, CHECKPOINT, POLICY, PROGRESS, SCORES, CURVE, FILM, BOARD)


class _Kind(NamedTuple):
    """What an entry of config.json must be."""

    name: str
    holds: Callable[[Any], bool]


def _whole_from(low: int) -> _Kind:
    return _Kind(
        f"a whole number of at least {low}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low,
    )


_TEXT = _Kind("a text", lambda value: isinstance(value, str))
_NAMED = _Kind("an object of named values", lambda value: isinstance(value, dict))
_KEYS = {
    "version": _TEXT,
    "id": _TEXT,
    "algo": _TEXT,
    "parameters": _NAMED,
    "hyperparameters": _NAMED,
    "network": _TEXT,
    "steps": _whole_from(1),
    "seed": _whole_from(0),
}


def refuse_occupied(folder: Path) -> None:
    """Raise ValueError if `folder` cannot take a new run without overwriting something."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another --out")
    present = [name for name in FILES if (folder / name).exists()]
    if CONFIG in present:
        raise ValueError(
            f"{folder} already holds a run; give --resume to continue it, or another --out"
        )
    if present:
        raise ValueError(f"{folder} already holds {present[0]}; choose another --out")


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write config.json, making the folder if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, config)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a run.

    Raises FileNotFoundError or ValueError if it is not a run that this version can read.
    """
    path = folder / CONFIG
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist")
    if not path.is_file():
        raise ValueError(f"{folder} is not a run: it has no {CONFIG}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict) or "schema" not in config:
        raise ValueError(f"{folder} is not a run: its {CONFIG} has no schema")
    if config["schema"] != SCHEMA or isinstance(config["schema"], bool):
        was = shown(config["schema"])
        raise ValueError(f"{folder} has schema {was}; this version reads {SCHEMA}")
    missing = [name for name in _KEYS if name not in config]
    if missing:
        raise ValueError(f"{path} has no {missing[0]!r}")
    for name, kind in _KEYS.items():
        if not kind.holds(config[name]):
            was = shown(config[name])
            raise ValueError(f"{path}: {name!r} is {was}; it must be {kind.name}")
    if config["algo"] not in ALGORITHMS:
        raise ValueError(f"{folder} was trained by {config['algo']!r}, which is not known here")
    try:
        spec_in_file(config["id"])
    except KeyError as error:
        raise ValueError(f"{folder} is of another version: {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return config


def write_progress(folder: Path, rows: list[dict[str, float]]) -> None:
    """Write progress.csv; what a row lacks is left blank."""
    names = (name for row in rows for name in row)
    columns = list(dict.fromkeys(("steps", "seconds", "cpu_seconds", "loss", *names)))

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([_shown(row.get(name)) for name in columns] for row in rows)

    write_atomically(folder / PROGRESS, write)


def require_resumable(folder: Path) -> None:
    """Raise FileNotFoundError or ValueError unless a training can go on in this folder."""
    read_config(folder)
    if (folder / WEIGHTS).is_file() and not (folder / CHECKPOINT).is_file():
        raise ValueError(
            f"{folder} holds weights to share, and not the optimizer and worlds that a training "
            "goes on with: resume the run that it was exported from"
        )


def read_progress(folder: Path) -> list[dict[str, float]]:
    """Rows of progress.csv, without what is blank; none if there is no such file.

    Raises ValueError, with the line, for what is no table of numbers with a column "steps".
    """
    path = folder / PROGRESS
    if not path.is_file():
        return []
    rows: list[dict[str, float]] = []
    line = 1
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, strict=True)
            columns = next(reader, ["steps"])
            for cells in reader:
                line = reader.line_num
                if len(cells) != len(columns):
                    raise ValueError(f"{len(cells)} values for {len(columns)} columns")
                row = {name: float(cell) for name, cell in zip(columns, cells, strict=True) if cell}
                rows.append({**row, "steps": int(row["steps"])})
    except (ArithmeticError, KeyError, ValueError, csv.Error) as error:
        reason = "no number of steps" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}, line {line}, cannot be read: {reason}") from None
    return rows


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, whole or not at all; ValueError for NaN and infinity."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _shown(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
