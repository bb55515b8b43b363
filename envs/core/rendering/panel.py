"""The strip of text at the right of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..scene import LegendEntry
from . import legend, pygame, text
from .colours import FAINT_TEXT, TEXT

MARGIN = 14  # pixels, where there is room


def panel_height(lines: Sequence[str | LegendEntry]) -> int:
    """Pixels that lines take at least."""
    return sum(line != "" for line in lines) * text.line_height(text.SMALLEST) + MARGIN


def write_panel(
    image: np.ndarray,
    surface: pygame.Surface,
    lines: Sequence[str | LegendEntry],
    *,
    start: int,
) -> None:
    """Lines at the right of column `start` of an image [height, width, 3] and its surface.

    They are smaller where there are many, and the last are left out if there are more. What stands
    after a tab is brighter, in a second column.
    """
    height, width, _ = image.shape
    margin = min(MARGIN, (width - start) // 12)
    left, room = start + margin, width - start - 2 * margin
    available = height - margin
    size = text.LARGEST
    while size > text.SMALLEST and len(lines) * text.line_height(size) > available:
        size -= 1
    if len(lines) * text.line_height(size) > available:
        lines = [line for line in lines if line != ""]
    most = max(available // text.line_height(size), 1)
    if len(lines) > most:
        lines = [*lines[: most - 1], "…"]
    texts = [line.partition("\t") for line in lines if isinstance(line, str)]
    labels = [text.width(label, size) for label, tab, _ in texts if tab]
    second = min(max(labels, default=0), room // 2) + margin
    for k, line in enumerate(lines):
        top = margin + k * text.line_height(size)
        if isinstance(line, LegendEntry):
            legend.draw_entry(image, surface, line, (left, top), size, room)
            continue
        label, tab, value = line.partition("\t")
        first = second - margin // 2 if tab else room
        _fit(surface, label, (left, top), size, first, FAINT_TEXT)
        _fit(surface, value, (left + second, top), size, room - second, TEXT)


def _fit(
    surface: pygame.Surface,
    words: str,
    corner: tuple[int, int],
    size: int,
    room: int,
    colour: tuple[int, int, int],
) -> None:
    """Write a text in at most `room` pixels: smaller, and shortened where that is not enough."""
    size = text.largest_fit([words], room, largest=size)
    text.write(surface, text.shortened(words, room, size), corner, size, colour)
