"""The colours of pictures, and how numbers in [0, 1] become colours."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BACKGROUND = (14, 19, 28)
PANEL = (20, 27, 38)
TEXT = (222, 229, 236)
FAINT_TEXT = (126, 140, 156)
ARROW = (226.0, 236.0, 244.0, 0.75)
SEGMENT = (150.0, 166.0, 182.0, 0.9)
LINK = (255.0, 255.0, 255.0, 0.95)
FILL = (58, 104, 128)
LINE = (238, 190, 110)
SERIES = ((238, 190, 110), (104, 178, 240), (128, 206, 132), (236, 112, 118), (190, 150, 226))
LEVEL = (164, 178, 192)

# Lightness, green-red and blue-yellow of OKLab (B. Ottosson, 2020), between which colours run.
_CALM_TO_ALARMED = (
    (0.70, -0.085, -0.065),
    (0.83, -0.045, 0.05),
    (0.77, 0.06, 0.125),
    (0.63, 0.20, 0.10),
)
_LOW_TO_HIGH = (
    (0.27, -0.01, -0.055),
    (0.48, -0.055, -0.045),
    (0.72, -0.05, 0.03),
    (0.92, 0.01, 0.06),
)

_WHEEL_LIGHTNESS, _WHEEL_CHROMA, _WHEEL_START = 0.74, 0.135, 0.35  # the last in radians


def _oklab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """[n, 3] in [0, 255]."""
    to_cone = [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728]]
    to_cone += [[1, -0.0894841775, -1.2914855480]]
    to_rgb = [[4.0767416621, -3.3077115913, 0.2309699292]]
    to_rgb += [[-1.2684380046, 2.6097574011, -0.3413193965]]
    to_rgb += [[-0.0041960863, -0.7034186147, 1.7076147010]]
    linear = (lab @ np.array(to_cone).T) ** 3 @ np.array(to_rgb).T
    linear = linear.clip(0, 1)
    curved = 1.055 * linear ** (1 / 2.4) - 0.055
    return 255 * np.where(linear > 0.0031308, curved, 12.92 * linear)


def _palette(anchors: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """256 colours [256, 3] uint8 that run through the anchors at equal steps."""
    at = np.linspace(0, len(anchors) - 1, 256)
    lab = [
        np.interp(at, range(len(anchors)), component) for component in zip(*anchors, strict=True)
    ]
    return np.rint(_oklab_to_rgb(np.stack(lab, -1))).astype(np.uint8)


def _wheel() -> list[tuple[float, float, float]]:
    """Anchors of all hues at one lightness, the last of them the first."""
    angles = _WHEEL_START + np.linspace(0, 2 * math.pi, 25)
    shift = _WHEEL_CHROMA * np.stack([np.cos(angles), np.sin(angles)], -1)
    return [(_WHEEL_LIGHTNESS, float(a), float(b)) for a, b in shift]


DISC_PALETTE = _palette(_CALM_TO_ALARMED)
WHEEL_PALETTE = _palette(_wheel())
PALETTES = {"alarm": DISC_PALETTE, "wheel": WHEEL_PALETTE}  # of discs, by name
CELL_PALETTE = _palette(_LOW_TO_HIGH)


def disc_colours(palette: str, value: np.ndarray) -> np.ndarray:
    """Opaque colours [n, 4] of values [n] in [0, 1] in a palette of discs."""
    index = (255 * np.asarray(value)).astype(np.intp).clip(0, 255)
    return np.column_stack([PALETTES[palette][index], np.ones(len(index))])
