"""What the figure scripts share: options, results that survive an interruption, tables, figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from invariantzoo.envs.core.files import write_atomically

_LINE = 10_000  # letters of JSON that may stand on one line

PAGE_WIDTH = 8.0  # inches of a figure
TEXT_SIZE = 9  # points


def figure_parser(doc: str | None, **defaults: Path | int | str) -> argparse.ArgumentParser:
    """A parser of options by name with their defaults, whose types they take.

    doc: the docstring of the script; its first line says what it is for.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def recorded(path: Path, key: str, compute: Callable[[], Any]) -> Any:
    """The result stored under `key` of a JSON file, computed and added if it is not there."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if key not in results:
        results[key] = compute()
        write_text(path, json_text(results))
    return results[key]


def json_text(value: Any, indent: str = "") -> str:
    """JSON in lines that a person can compare: what is short stands on one line."""
    flat = json.dumps(value, sort_keys=True)
    if not isinstance(value, dict | list) or not value or (indent and len(flat) <= _LINE):
        return flat if indent else flat + "\n"
    deeper = indent + " "
    if isinstance(value, dict):
        rows = [f"{json.dumps(key)}: {json_text(value[key], deeper)}" for key in sorted(value)]
    else:
        rows = _packed([json_text(item, deeper) for item in value])
    first, last = "{}" if isinstance(value, dict) else "[]"
    body = ",\n".join(deeper + row for row in rows)
    return f"{first}\n{body}\n{indent}{last}" + ("" if indent else "\n")


def _packed(rows: list[str]) -> list[str]:
    """Items of a list, as many to a line as it holds."""
    lines = rows[:1]
    for row in rows[1:]:
        if len(lines[-1]) + len(row) <= _LINE and "\n" not in lines[-1] + row:
            lines[-1] += f", {row}"
        else:
            lines.append(row)
    return lines


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers are shown with four significant digits."""
    lines = [list(headers), ["---"] * len(headers), *[[_cell(v) for v in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def page_figure(rows: int, columns: int, height: float) -> tuple[Any, Any]:
    """A matplotlib figure as wide as a page (900 pixels) and so many inches high, and its axes.

    Text is set so that it can be read at that width.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.tick_params(labelsize=TEXT_SIZE)
        axis.title.set_size(TEXT_SIZE + 1)
        axis.xaxis.label.set_size(TEXT_SIZE)
        axis.yaxis.label.set_size(TEXT_SIZE)
    return figure, axes


def page_legend(figure: Any, columns: int, axis: Any = None) -> None:
    """A legend below all axes, of what is labelled in `axis` or, without one, anywhere."""
    entries = () if axis is None else axis.get_legend_handles_labels()
    looks = {"loc": "outside lower center", "frameon": False, "fontsize": TEXT_SIZE}
    figure.legend(*entries, ncols=columns, **looks)


def save_figure(figure: Any, path: Path) -> None:
    """Save a matplotlib figure whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    looks: dict[str, Any] = {"dpi": 110, "bbox_inches": "tight", "metadata": {"Software": None}}
    write_atomically(path, lambda temporary: figure.savefig(temporary, **looks))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
