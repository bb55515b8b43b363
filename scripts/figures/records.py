"""What the figure scripts share: results that survive an interruption, and Markdown tables."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def recorded(path: Path, key: str, compute: Callable[[], Any]) -> Any:
    """The result stored under `key` of a JSON file, computed and added if it is not there."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if key not in found:
        found[key] = compute()
        write_text(path, json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found[key]


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers are shown with four significant digits."""
    lines = [list(headers), ["---"] * len(headers), *[[_cell(v) for v in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def save_figure(figure: Any, path: Path) -> None:
    """Save a matplotlib figure whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("part-" + path.name)
    figure.savefig(part, dpi=110, bbox_inches="tight", metadata={"Software": None})
    os.replace(part, path)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
