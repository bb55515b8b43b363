"""Text that is measured before it is drawn, so that none is cut off.

Sizes are those of pygame's own font, about the height of a line in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import pygame

LARGEST, SMALLEST = 19, 14
_ELLIPSIS = "…"
_FONTS: dict[int, pygame.font.Font] = {}


def font(size: int) -> pygame.font.Font:
    """pygame's own font, anew if somebody has shut pygame down since."""
    try:
        if size in _FONTS and _FONTS[size].get_height():
            return _FONTS[size]
    except pygame.error:
        pass
    pygame.font.init()
    _FONTS[size] = pygame.font.Font(None, size)
    return _FONTS[size]


def width(text: str, size: int) -> int:
    """Pixels that a text takes."""
    return font(size).size(text)[0]


def line_height(size: int) -> int:
    """Pixels from a line of text to the next."""
    return size


def largest_fit(
    lines: Sequence[str], room: int, *, largest: int = LARGEST, smallest: int = SMALLEST
) -> int:
    """The largest size at which every line fits into `room` pixels, or the smallest."""
    for size in range(largest, smallest, -1):
        if all(width(line, size) <= room for line in lines):
            return size
    return smallest


def wrapped(line: str, room: int, size: int) -> list[str]:
    """A line broken between words into rows that fit; what is wider alone is shortened."""
    rows: list[str] = []
    for word in line.split():
        joined = f"{rows[-1]} {word}" if rows else word
        if rows and width(joined, size) <= room:
            rows[-1] = joined
        else:
            rows.append(shortened(word, room, size))
    return rows


def shortened(text: str, room: int, size: int) -> str:
    """The text, or as much of its start as fits with an ellipsis; nothing if none does."""
    if width(text, size) <= room:
        return text
    for end in range(len(text) - 1, 0, -1):
        if width(text[:end] + _ELLIPSIS, size) <= room:
            return text[:end] + _ELLIPSIS
    return ""


def write(
    surface: pygame.Surface,
    text: str,
    place: tuple[int, int],
    size: int,
    colour: tuple[int, int, int],
) -> int:
    """Draw a text with its upper left corner at `place`; the pixels that it takes.

    Accents may rise above that: the letters below them keep their line.
    """
    if not text:
        return 0
    drawn = font(size).render(text, True, colour)
    surface.blit(drawn, (place[0], place[1] - above(text, size)))
    return drawn.get_width()


def above(text: str, size: int) -> int:
    """Pixels by which accents rise above a line."""
    return font(size).size(text)[1] - font(size).size("x")[1]
