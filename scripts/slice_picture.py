"""The picture of a surveyed slice of a diffusion model: images, phases, metric, shortest paths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from invariantzoo.report import page_figure, save_figure

if TYPE_CHECKING:
    from invariantzoo.training.geometry.survey import Survey

_IMAGES = 9  # along a side


def draw_slice(surveyed: Survey, file: Path) -> None:
    """Images of the slice, its labels, and the volume of its metric with shortest paths."""
    figure, ((pictures, phases, volume),) = page_figure(1, 3, 3.0)
    nodes = len(surveyed.axis)
    chosen = np.rint(np.linspace(0, nodes - 1, _IMAGES)).astype(int)
    tiles = surveyed.images[chosen][:, chosen].reshape(_IMAGES, _IMAGES, 8, 8)
    sheet = tiles.transpose(1, 2, 0, 3)[::-1].reshape(8 * _IMAGES, -1)
    pictures.imshow(sheet, cmap="gray", extent=(0, 1, 0, 1), vmin=-1, vmax=1)
    looks = {"extent": (0, 1, 0, 1), "origin": "lower"}
    phases.imshow(surveyed.labels.T, cmap="tab10", vmin=-0.5, vmax=9.5, **looks)
    for digit in np.unique(surveyed.labels):
        where = np.argwhere(surveyed.labels == digit)
        inside = where[np.square(where - where.mean(0)).sum(1).argmin()]
        phases.text(*(inside / (nodes - 1)), f"{digit:.0f}", ha="center", va="center")
    root = np.sqrt(np.maximum(np.linalg.det(surveyed.metric), 1e-12))
    image = volume.imshow(np.log10(root).T, **looks)
    figure.colorbar(image, ax=volume, shrink=0.8)
    for paths, colour in ((surveyed.same, "white"), (surveyed.other, "tab:red")):
        for path in () if paths is None else paths.points[:6]:
            volume.plot(*path.T, color=colour, lw=1)
    titles = ("images", "digits", "log10 volume, paths")
    for axis, title in zip((pictures, phases, volume), titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel("a")
    pictures.set_ylabel("b")
    save_figure(figure, file)
