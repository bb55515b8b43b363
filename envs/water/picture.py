"""Molecules of water as balls and bonds, and the radial distribution functions beside them."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..core.physics.cell import nearest_image_array
from ..core.scene import LegendEntry, Plot, Scene
from .descriptors import BIN, BINS, BONDED, between_molecules
from .frames import reference_rdf

LEGEND = (
    LegendEntry("oxygen, O", "disc", 0.0, 1.0),
    LegendEntry("hydrogen, H", "disc", 0.0, 0.57),
    LegendEntry("loss of an atom: 0 to 0.5", "scale"),
)
_KINDS = ("O-O", "O-H", "H-H")


def rdf_plot(g: np.ndarray, name: str, split: str) -> Plot:
    """g(r) [3, bins] beside that of the data, between molecules."""
    r = BIN * (np.arange(BINS) + 0.5)
    between = between_molecules()
    labels = tuple(f"g(r) {kind}" for kind in _KINDS)
    return Plot(r, g * between, reference_rdf(name, split) * between, labels, 3.0, "r (Å)")


def molecules_scene(position: Tensor, oxygen: Tensor, cell: Tensor, value: Tensor) -> Scene:
    """Balls and bonds, coloured by `value` [agents]."""
    box, o = cell[0].numpy(), oxygen[0].numpy() == 1
    into = np.linalg.inv(box)
    x = position[0].numpy() @ into
    x = (x - np.floor(x) - 0.5) @ box
    r = x[~o][:, None] - x[o]
    r = nearest_image_array(r, box)
    owner = np.linalg.norm(r, axis=-1).argmin(1)  # molecules are drawn whole
    bound = r[np.arange(len(r)), owner]
    near = np.linalg.norm(bound, axis=-1, keepdims=True) < BONDED
    x[~o] = np.where(near, x[o][owner] + bound, x[~o])
    gap = np.linalg.norm(x[:, None] - x, axis=-1)
    bonds = np.argwhere(np.triu(gap < BONDED, 1) & (o[:, None] != o))
    side = 0.8 * float(np.linalg.norm(box, axis=-1).max())
    return Scene(
        view=(-side, -side, side, side),
        balls=x,
        bonds=bonds,
        disc_radius=np.where(o, 0.46, 0.26),
        disc_value=value.clamp(0, 1).numpy(),
        marks=tuple(np.where(o, "O", "H").tolist()),
    )
