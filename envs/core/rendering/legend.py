"""A legend: small samples of the colours and shapes of a scene, each with what it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..scene import LegendEntry, Scene
from . import flat, pygame, text
from . import raster as kernel
from .colours import (
    ARROW,
    BACKGROUND,
    CELL_PALETTE,
    FILL,
    LINE,
    LINK,
    PALETTES,
    SEGMENT,
    TEXT,
)
from .lens import Lens

_SCALE = 3.0  # width of a scale of colours, in heights
_OPEN = np.zeros(2)


class Row(NamedTuple):
    """Entries that stand side by side, and where each begins."""

    entries: tuple[LegendEntry, ...]
    left: tuple[int, ...]


def entry_width(entry: LegendEntry, size: int) -> int:
    """Pixels from the start of an entry's sample to the end of its text."""
    return _label_start(entry, size) + text.width(entry.label, size)


def flow(entries: Sequence[LegendEntry], room: int, size: int) -> list[Row]:
    """Entries in rows of at most `room` pixels; one that is wider alone gets a row of its own."""
    rows: list[tuple[list[LegendEntry], list[int]]] = []
    at = room
    for entry in entries:
        wide = entry_width(entry, size)
        if not rows or at + wide > room:
            rows.append(([], []))
            at = 0
        rows[-1][0].append(entry)
        rows[-1][1].append(at)
        at += wide + size
    return [Row(tuple(chosen), tuple(left)) for chosen, left in rows]


def draw_entry(
    image: np.ndarray,
    surface: pygame.Surface,
    entry: LegendEntry,
    place: tuple[int, int],
    size: int,
    room: int,
) -> None:
    """Draw an entry with its upper left corner at `place`, in at most `room` pixels."""
    gap = _label_start(entry, size)
    if entry.shape != "none":
        _draw_sample(image, entry, place, _sample_width(entry, size), size)
    label = text.shortened(entry.label, room - gap, size)
    text.write(surface, label, (place[0] + gap, place[1]), size, TEXT)


def _label_start(entry: LegendEntry, size: int) -> int:
    """Pixels from the start of an entry to that of its text."""
    return 0 if entry.shape == "none" else _sample_width(entry, size) + size // 3


def _sample_width(entry: LegendEntry, size: int) -> int:
    tall = text.font(size).get_height()
    return round(_SCALE * tall) if entry.shape == "scale" else tall + 2


def _draw_sample(
    image: np.ndarray, entry: LegendEntry, place: tuple[int, int], wide: int, size: int
) -> None:
    height, width, _ = image.shape
    tall = text.font(size).get_height()
    left, top = place
    right, bottom = min(left + wide, width), min(top + tall, height)
    if left < 0 or top < 0 or right - left < 2 or bottom - top < 2:
        return
    clip = (left, top, right, bottom)
    middle = 0.5 * (top + bottom)
    if entry.shape == "scale":
        colour = np.linspace(0, 255, right - left).astype(int)
        image[top + 1 : bottom - 1, left:right] = PALETTES[entry.palette][colour]
    elif entry.shape == "cell":
        image[top:bottom, left : left + tall] = CELL_PALETTE[int(255 * min(entry.value, 1.0))]
    elif entry.shape == "fill":
        image[top:bottom, left:right] = FILL
    elif entry.shape in ("disc", "ring"):
        _draw_disc(image, entry, (0.5 * (left + right), middle), 0.5 * tall * entry.size, clip)
    else:
        shade = np.array([_STROKES[entry.shape]])
        line = np.array([[left + 1.0, middle, right - left - 2.0, 0.0]])
        taper = np.array([_TAPERS.get(entry.shape, (2.0, 2.0))])
        kernel.lines(image, line, taper, shade, clip, _OPEN, BACKGROUND, False)


def _draw_disc(
    image: np.ndarray,
    entry: LegendEntry,
    middle: tuple[float, float],
    radius: float,
    clip: tuple[int, int, int, int],
) -> None:
    """A disc or a ring as the painter has it, alone."""
    value, place = np.array([entry.value]), np.array([middle])
    view = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    lens = Lens(view, (image.shape[1], image.shape[0]))
    lens.clip = clip
    sample = Scene(
        view,
        discs=lens.positions(place),
        disc_radius=np.array([radius]),
        disc_value=value,
        palette=entry.palette,
        disc_corners=np.array([entry.corners]),
        disc_core=np.array([entry.core]),
    )
    if entry.shape == "ring":
        ring = replace(sample, rings=sample.discs, ring_radius=sample.disc_radius, ring_value=value)
        flat.paint_rings(image, lens, _OPEN, ring)
        return
    flat.paint_discs(image, lens, _OPEN, sample, flat.flat_discs(sample))


_STROKES = {
    "arrow": ARROW,
    "segment": SEGMENT,
    "link": LINK,
    "line": (*(float(component) for component in LINE), 1.0),
}
_TAPERS = {"arrow": (2.4, 1.0), "link": (4.0, 1.0)}
