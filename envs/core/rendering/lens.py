"""Where a scene lies on a picture, and which agent at which pixel."""

from __future__ import annotations

import numpy as np

from ..scene import Scene

CLOSE = 8.0  # pixels from its rim within which a click means a disc


class Lens:
    """Where a scene lies on a picture of `size` (width, height): undistorted and centred.

    top: pixels above it.  scale: pixels per length.
    clip: left, top, right, bottom of the view in whole pixels.
    """

    def __init__(
        self, view: tuple[float, float, float, float], size: tuple[int, int], top: int = 0
    ) -> None:
        self.view, self.size, self.top = view, size, top
        left, bottom, right, high = view
        width, height = right - left, high - bottom
        self.scale = min(size[0] / width, size[1] / height)
        x = 0.5 * (size[0] - width * self.scale)
        y = 0.5 * (size[1] - height * self.scale) + top
        self._corner = np.array([left, high])
        self._place = np.array([x, y])
        self._flip = np.array([self.scale, -self.scale])
        self.extent = np.array([width * self.scale, height * self.scale])
        self.clip = (round(x), round(y), round(x + self.extent[0]), round(y + self.extent[1]))

    def pixels(self, position: np.ndarray) -> np.ndarray:
        """Pixels [n, 2] of positions [n, 2]; the second axis points down."""
        return (position - self._corner) * self._flip + self._place

    def positions(self, pixel: np.ndarray) -> np.ndarray:
        """Positions [n, 2] at pixels [n, 2]."""
        return (pixel - self._place) / self._flip + self._corner


def agent_at(scene: Scene, size: tuple[int, int], pixel: tuple[int, int]) -> int | None:
    """The agent drawn at a pixel of a picture of `size`: the nearest disc, or the cell; or None."""
    return agent_under(scene, Lens(scene.view, size), pixel)


def agent_under(scene: Scene, lens: Lens, pixel: tuple[int, int]) -> int | None:
    """The agent drawn at a pixel of a picture seen through `lens`, or None."""
    left, top, right, bottom = lens.clip
    x, y = pixel
    if not (left <= x < right and top <= y < bottom):
        return None
    if scene.discs is not None and len(scene.discs):
        away = lens.pixels(scene.discs) - (x + 0.5, y + 0.5)
        if scene.periodic:
            away -= lens.extent * np.round(away / lens.extent)
        radius = 1.0 if scene.disc_radius is None else scene.disc_radius
        gap = np.hypot(*away.T) - lens.scale * radius
        nearest = int(gap.argmin())
        if gap[nearest] > CLOSE:
            return None
        return nearest if scene.agents is None else int(scene.agents[nearest])
    if scene.cells is not None:
        rows, columns = scene.cells.shape
        row, column = (y - top) * rows // (bottom - top), (x - left) * columns // (right - left)
        return column if scene.kept_rows else row * columns + column
    return None


def shows_agents(scene: Scene, n_agents: int) -> bool:
    """Whether who is drawn somewhere is an agent: a disc, a ball, or one cell for each agent.

    Where rows of cells are time, one column for each.
    """
    if scene.balls is not None or (scene.discs is not None and len(scene.discs)):
        return True
    if scene.cells is None:
        return False
    rows, columns = scene.cells.shape
    return (columns if scene.kept_rows else rows * columns) == n_agents
