"""A plane through the latent space of a model: images, phases, how steep the map is, and where.

Points of the plane are t = (a, b), and stand for the latents z0 + a (z1 - z0) + b (z2 - z0).
Boundaries of phases are where labels change. A wall of finite steepness looks like a jump in every
window that is wider than the wall, so what counts is whether the slope goes on growing in ever
smaller windows (`zoom`), and whether the boundary shows more length in them (`box_dimension`).

Slices as in "Hessian Geometry of Latent Space in Generative Models" (arXiv 2506.10632); how the
slope and the dimension are taken is our choice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np

from ...envs.core.validation import require_count, require_number
from .fields import as_array, require_finite

_BATCH = 4096  # latents that are mapped at once
_BISECTIONS = 60  # more than a double has bits
_SPACINGS = 64  # of a window in which the slope is looked for
_LARGEST_BOX = 8  # of these fit into a window side by side


class BoxDimension(NamedTuple):
    """The dimension of a boundary, by boxes.

    dimension: slope of log(count) over log(1 / size).  error: of the fit.
    sizes: sides of boxes, in sides of the window.  counts: boxes that the boundary meets, mean over
    all shifts of the boxes.
    """

    dimension: float
    error: float
    sizes: np.ndarray
    counts: np.ndarray


@final
class LatentSlice:
    """The plane through latents z0, z1, z2 [latent], under `map`: latents [m, latent] to images.

    map, and `classify` (images [m, ...] to labels [m]), get float64 arrays, or float64 tensors on
    the device of z0 where that is a tensor.
    normalise: latents of the plane are divided by their own standard deviation, as samples of a
    standard normal law nearly are.
    Raises ValueError for latents that are not three of one shape.
    """

    def __init__(
        self,
        map: Callable[[Any], Any],
        z0: Any,
        z1: Any,
        z2: Any,
        *,
        classify: Callable[[Any], Any] | None = None,
        normalise: bool = True,
    ) -> None:
        import torch

        self._map, self._classify, self._normalise = map, classify, normalise
        self._device = z0.device if isinstance(z0, torch.Tensor) else None
        origin, *ends = (as_array(f"z{i}", z) for i, z in enumerate((z0, z1, z2)))
        for i, z in enumerate((origin, *ends)):
            if z.ndim != 1 or z.shape != origin.shape or not z.size:
                raise ValueError(f"z{i} has shape {z.shape}; z0, z1 and z2 must be [latent]")
            require_finite(f"z{i}", z)
        self._origin, self._axes = origin, np.stack([end - origin for end in ends])

    def latent(self, t: Any) -> np.ndarray:
        """The latents [m, latent] of points t [m, 2]."""
        latents = self._origin + _points(t) @ self._axes
        if not self._normalise:
            return latents
        spread = latents.std(-1, keepdims=True)
        if not (spread > 0).all():
            raise ValueError("a latent of the plane is constant; it cannot be normalised")
        return np.asarray(latents / spread)

    def image(self, t: Any) -> np.ndarray:
        """What the map makes of points t [m, 2]: [m, ...] in float64."""
        return self._features(t, None)

    def label(self, t: Any) -> np.ndarray:
        """Labels [m] of points t [m, 2]. Raises ValueError without `classify`."""
        if self._classify is None:
            raise ValueError("labels need classify=, a function of images")
        labels = self._features(t, self._classify)
        if labels.ndim != 1:
            raise ValueError(f"classify gave shape {labels.shape}; one label an image is wanted")
        return labels

    def metric(
        self, t: Any, features: Callable[[Any], Any] | None = None, *, step: float = 1e-4
    ) -> np.ndarray:
        """The pull-back J^T J [m, 2, 2] at points t [m, 2] of features of images, or of images.

        step: of the differences that make J; their error is of its fourth order.
        """
        require_number("step", step, 0, strict=True)
        points = _points(t)
        slopes = []
        for axis in np.eye(2):
            far2, far1, near1, near2 = (
                self._features(points + k * step * axis, features).reshape(len(points), -1)
                for k in (-2, -1, 1, 2)
            )
            slopes.append((far2 - near2 + 8 * (near1 - far1)) / (12 * step))
        jacobian = np.stack(slopes, -1)
        return np.einsum("mki,mkj->mij", jacobian, jacobian)

    def crossing(self, p: Any, q: Any) -> np.ndarray:
        """A point [2] between p and q [2] where the label of p ends, to the last bit.

        Raises ValueError where p and q have the same label.
        """
        ends = np.stack([_point("p", p), _point("q", q)])
        here, there = self.label(ends)
        if here == there:
            raise ValueError(f"p={ends[0].tolist()} and q={ends[1].tolist()} have label {here:g}")
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if self.label(_between(ends[0], ends[1], middle))[0] == here:
                low = middle
            else:
                high = middle
        return np.asarray(_between(ends[0], ends[1], (low + high) / 2)[0])

    def zoom(self, centre: Any, direction: Any, widths: Any) -> np.ndarray:
        """The largest slope |d image| / |d t| [widths] along a line, in windows round `centre` [2].

        direction [2]: of the line; its length does not matter.  widths: of the windows, in t.
        """
        middle, along = _point("centre", centre), _point("direction", direction)
        sizes = np.atleast_1d(as_array("widths", widths))
        if not (along.any() and (sizes > 0).all()):
            raise ValueError(f"direction={along.tolist()} and widths must not be zero or negative")
        along = along / np.linalg.norm(along)
        places = np.linspace(-0.5, 0.5, _SPACINGS + 1)
        slopes = []
        for width in sizes:
            images = self.image(middle + width * places[:, None] * along)
            change = np.diff(images.reshape(len(images), -1), axis=0)
            slopes.append(np.linalg.norm(change, axis=-1).max() * _SPACINGS / width)
        return np.asarray(slopes)

    def box_dimension(self, centre: Any, width: float, *, resolution: int = 256) -> BoxDimension:
        """The dimension of the boundary between labels in a square of side `width` round `centre`.

        resolution: steps across the square, a multiple of 16. Boxes of 1, 2, 4 ... steps, up to an
        eighth of the square, are put with their centres at every place of it: a straight boundary
        then has dimension 1 wherever it lies.
        Raises ValueError where there is but one label.
        """
        from scipy.ndimage import maximum_filter1d, minimum_filter1d

        require_number("width", width, 0, strict=True)
        require_count("resolution", resolution, 16)
        if resolution % 16:
            raise ValueError(f"resolution={resolution} must be a multiple of 16")
        largest = resolution // _LARGEST_BOX
        margin = largest // 2
        axis = (np.arange(-margin, resolution + margin + 1) / resolution - 0.5) * width
        grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
        labels = self.label(_point("centre", centre) + grid.reshape(-1, 2)).reshape(grid.shape[:2])
        steps = 2 ** np.arange(int(np.log2(largest)) + 1)
        counts = []
        for side in steps:
            high = low = labels
            for i in range(2):  # of the corners of boxes that begin at each place
                shift = {"size": side + 1, "axis": i, "origin": -((side + 1) // 2)}
                high, low = maximum_filter1d(high, **shift), minimum_filter1d(low, **shift)
            first = margin - side // 2
            mixed = (high != low)[first:, first:][:resolution, :resolution]
            counts.append(mixed.mean() * (resolution / side) ** 2)
        if not counts[0]:
            centre_label = labels[len(labels) // 2, len(labels) // 2]
            raise ValueError(f"all of the square of width {width:g} has label {centre_label:g}")
        sizes = steps / resolution
        return BoxDimension(*_slope(-np.log(sizes), np.log(counts)), sizes, np.asarray(counts))

    def _features(self, t: Any, features: Callable[[Any], Any] | None) -> np.ndarray:
        """Images, or features of them, of points t [m, 2], a batch at a time."""
        import torch

        latents = self.latent(t)
        rows = []
        for batch in np.split(latents, range(_BATCH, len(latents), _BATCH)):
            given = batch if self._device is None else torch.from_numpy(batch).to(self._device)
            with torch.no_grad():
                images = self._map(given)
                images = images if features is None else features(images)
            rows.append(as_array("map(latents)", images))
            if rows[-1].shape[:1] != (len(batch),):
                raise ValueError(
                    f"map gave shape {rows[-1].shape} for {len(batch)} latents; the first axis "
                    "must be that of latents"
                )
        return np.concatenate(rows)


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The slope of a straight line through points, and its standard error."""
    from scipy.stats import linregress

    fit = linregress(x, y)
    return float(fit.slope), float(fit.stderr)


def _points(t: Any) -> np.ndarray:
    points = as_array("t", t)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"t has shape {points.shape}; it must be [m, 2]")
    return points


def _point(name: str, value: Any) -> np.ndarray:
    point = as_array(name, value)
    if point.shape != (2,):
        raise ValueError(f"{name} has shape {point.shape}; it must be [2]")
    require_finite(name, point)
    return point


def _between(p: np.ndarray, q: np.ndarray, part: float) -> np.ndarray:
    """The point [1, 2] that lies a part of the way from p to q."""
    return np.asarray(((1 - part) * p + part * q)[None])
