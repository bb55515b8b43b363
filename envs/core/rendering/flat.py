"""What is flat in a scene: rings, discs with their trails, and lines that join them."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from ..scene import Scene
from . import raster as kernel
from .colours import BACKGROUND, LINK, disc_colours
from .lens import Lens

RING_WIDTH, LEAST_RING = 0.22, 1.2  # of a place to go to: share of its radius, and pixels
CORE = 0.42  # radius of a dot in a disc, in radii of the disc
LEAST_CORE = 1.1  # pixels
LINK_SHARE = np.array([0.2, 0.06])  # width at its start and end, in radii of the disc it begins at
LEAST_LINK = np.array([1.2, 0.6])  # pixels
_UP = 0.5 * np.pi
_TRAIL_OPACITY = 0.45
_BRIGHT = (255.0, 255.0, 255.0, 1.0)
_DARK = (*(float(part) for part in BACKGROUND), 1.0)
_OPEN = np.zeros(2)


class Flat(NamedTuple):
    """Discs as a picture has them: radius [n] as a length, colour [n, 4]."""

    radius: np.ndarray
    colour: np.ndarray


def flat_discs(scene: Scene) -> Flat:
    """Radius and colour of the discs of a scene."""
    assert scene.discs is not None
    n = len(scene.discs)
    value = np.zeros(n) if scene.disc_value is None else scene.disc_value
    radius = np.full(n, 1.0) if scene.disc_radius is None else scene.disc_radius
    return Flat(radius, disc_colours(scene.palette, value))


def paint_rings(image: np.ndarray, lens: Lens, period: np.ndarray, scene: Scene) -> None:
    """The rings of a scene, their outer rims at their radius."""
    assert scene.rings is not None
    n = len(scene.rings)
    value = np.zeros(n) if scene.ring_value is None else scene.ring_value
    radius = np.full(n, 1.0) if scene.ring_radius is None else scene.ring_radius
    ring = np.empty((n, 4))
    ring[:, :2] = lens.pixels(scene.rings)
    ring[:, 2] = lens.scale * radius
    width = np.maximum(RING_WIDTH * ring[:, 2], LEAST_RING)
    ring[:, 3] = (ring[:, 2] - width).clip(min=0)
    kernel.discs(image, ring, disc_colours(scene.palette, value), lens.clip, period)


def paint_discs(
    image: np.ndarray, lens: Lens, period: np.ndarray, scene: Scene, flat: Flat
) -> None:
    """Discs and polygons with the dots in their middles, and links."""
    assert scene.discs is not None
    n = len(scene.discs)
    disc = np.zeros((n, 4))
    disc[:, :2] = lens.pixels(scene.discs)
    disc[:, 2] = lens.scale * flat.radius
    corners = np.zeros(n) if scene.disc_corners is None else scene.disc_corners
    edged = corners > 0
    kernel.discs(image, disc[~edged], flat.colour[~edged], lens.clip, period)
    if edged.any():
        turn = np.full(n, _UP) if scene.disc_turn is None else scene.disc_turn
        shape = np.column_stack([disc[:, :3], corners, turn])[edged]
        kernel.polygons(image, shape, flat.colour[edged], lens.clip, period)
    if scene.disc_core is not None:
        marked = np.flatnonzero(scene.disc_core)
        dot = disc[marked]
        dot[:, 2] = np.maximum(CORE * dot[:, 2], LEAST_CORE)
        shade = np.where((scene.disc_core[marked] > 0)[:, None], _BRIGHT, _DARK)
        kernel.discs(image, dot, shade, lens.clip, period)
    if scene.links is not None and len(scene.links):
        start, end = scene.links.T
        way = disc[end, :2] - disc[start, :2]
        if scene.periodic:
            way -= lens.extent * np.round(way / lens.extent)
        line = np.column_stack([disc[start, :2], way])
        widths = np.maximum(LINK_SHARE * disc[start, 2:3], LEAST_LINK)
        colours = np.full((len(line), 4), LINK)
        kernel.lines(image, line, widths, colours, lens.clip, period, BACKGROUND, False)


def paint_trails(
    image: np.ndarray, lens: Lens, scene: Scene, flat: Flat, past: deque[np.ndarray]
) -> None:
    """Fading trails of discs through the places `past`, to which theirs of now are added."""
    discs = scene.discs
    assert discs is not None
    assert past.maxlen is not None
    if past and past[-1].shape != discs.shape:
        past.clear()
    if not past or not np.array_equal(past[-1], discs):
        past.append(np.array(discs))
    if len(past) < 2:
        return
    colour = flat.colour
    sides = lens.extent / lens.scale if scene.periodic else _OPEN
    places = np.stack(past)
    back = places[:-1] - places[1:]
    if scene.periodic:
        back -= sides * np.round(back / sides)
    age = np.arange(len(past), 0, -1.0) - 1  # of the places, in frames
    fade = (1 - age / past.maxlen)[:, None].repeat(len(discs), 1)
    thick = 1.0 * lens.scale * flat.radius * fade
    shade = np.broadcast_to(colour, (len(past) - 1, *colour.shape)).copy()
    shade[..., 3] = _TRAIL_OPACITY * fade[:-1]
    width = np.stack([thick[1:], thick[:-1]], -1)
    line = np.empty((*back.shape[:2], 4))
    line[..., :2] = lens.pixels(places[1:])
    line[..., 2:] = lens.scale * back * (1, -1)
    period = lens.extent if scene.periodic else _OPEN
    line, width, shade = (array.reshape(-1, array.shape[-1]) for array in (line, width, shade))
    kernel.lines(image, line, width, shade, lens.clip, period, BACKGROUND, True)
