"""A scalar field on the nodes of a periodic square grid, and what discs give to it and read of it.

Field      phi and its rate pi at nodes (i a, j a); energy of the field
           sum a^2 [pi^2 + |grad phi|^2 + m^2 phi^2] / 2, gradients between neighbouring nodes
Disc       charge q at x: it gives q W_n(x) / a^2 to node n and reads sum_n W_n(x) phi_n, where W is
           a B-spline of some order, smoothed by passes of (1, 2, 1) / 4 along both axes
Slope      form "energy": the gradient of what is read, so that the force is that of an energy;
           form "momentum": central differences of phi, read with W, so that force and reaction
           are equal

Smoothing and spline are one product of two weights along the axes: the weights of the next nodes,
polynomials of the place between them, so that no pass over the grid is needed. A pass adds a^2 / 2
to the variance of the cloud along each axis.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor

FORMS = ("energy", "momentum")


class Taps(NamedTuple):
    """Weights of the nodes around a place along one axis, as polynomials [taps, order + 1].

    A place x / a = f + node has the weights sum_p value[:, p] f^p, from the node `first` after
    the next one below x / a + shift on; 0 <= f < 1. slope: of the derivative by x / a.
    """

    value: np.ndarray
    slope: np.ndarray
    shift: float
    first: int


@lru_cache
def taps(order: int, passes: int, form: str) -> Taps:
    """Weights of a B-spline smoothed so often; order 1 is linear interpolation."""
    pieces = [Polynomial([1.0])]
    for n in range(2, order + 2):
        padded = [Polynomial([0.0]), *pieces, Polynomial([0.0])]
        pieces = [
            (Polynomial([k, 1.0]) * padded[k + 1] + Polynomial([n - k, -1.0]) * padded[k]) / (n - 1)
            for k in range(n)
        ]
    spline = np.zeros((order + 1, order + 1))
    for row, piece in zip(spline, reversed(pieces), strict=True):
        row[: len(piece.coef)] = piece.coef
    bell = np.array([1.0])
    for _ in range(passes):
        bell = np.convolve(bell, [0.25, 0.5, 0.25])
    smooth = np.stack([np.convolve(bell, column) for column in spline.T], -1)
    value = np.pad(smooth, ((1, 1), (0, 0)))
    if form == "energy":
        slope = np.pad(value[:, 1:] * np.arange(1, order + 1), ((0, 0), (0, 1)))
    else:
        slope = 0.5 * (np.roll(value, 1, 0) - np.roll(value, -1, 0))  # the ends are zeros
    return Taps(value, slope, -0.5 * (order - 1), -passes - 1)


class Reading(NamedTuple):
    """What discs read of a field [worlds, agents, ...]."""

    value: Tensor
    gradient: Tensor  # [worlds, agents, 2]
    rate: Tensor


class Footprint(NamedTuple):
    """The nodes around discs and their weights."""

    node: Tensor  # [worlds, agents, taps, taps] int64, flat
    x: Tensor  # [worlds, agents, taps] weights along each axis
    y: Tensor
    slope_x: Tensor
    slope_y: Tensor


def footprint(position: Tensor, spacing: Tensor, cells: int, weights: Taps) -> Footprint:
    """Of discs at `position` [worlds, agents, 2] on grids with `spacing` [worlds, 1]."""
    place = position / spacing.unsqueeze(-1) + weights.shift
    below = place.detach().floor()
    f = (place - below).unsqueeze(-1)
    powers = torch.cat([torch.ones_like(f), *(f**p for p in range(1, weights.value.shape[1]))], -1)
    value, slope = (torch.from_numpy(table).to(position) for table in weights[:2])
    along = (powers.unsqueeze(-2) * value).sum(-1)
    change = (powers.unsqueeze(-2) * slope).sum(-1) / spacing[..., None, None]
    step = torch.arange(weights.first, weights.first + len(value), device=position.device)
    node = (below.long().unsqueeze(-1) + step) % cells
    flat = node[..., 0, :, None] * cells + node[..., 1, None, :]
    return Footprint(flat, along[..., 0, :], along[..., 1, :], change[..., 0, :], change[..., 1, :])


def deposit(charge: Tensor, at: Footprint, spacing: Tensor, cells: int) -> Tensor:
    """Charge per area [worlds, cells, cells] of discs with `charge` [worlds, agents]."""
    share = (charge / spacing**2)[..., None, None] * at.x.unsqueeze(-1) * at.y.unsqueeze(-2)
    empty = share.new_zeros(len(charge), cells * cells)
    return empty.scatter_add(1, at.node.flatten(1), share.flatten(1)).unflatten(1, (cells, cells))


def read(field: Tensor, rate: Tensor, at: Footprint) -> Reading:
    """What discs read of a field and its rate [worlds, cells, cells]."""
    shape = at.node.shape
    local, local_rate = (
        grid.flatten(1).gather(1, at.node.flatten(1)).view(shape) for grid in (field, rate)
    )
    across = (local * at.y.unsqueeze(-2)).sum(-1)  # [worlds, agents, taps]
    along = (local * at.slope_y.unsqueeze(-2)).sum(-1)
    changing = (local_rate * at.y.unsqueeze(-2)).sum(-1)
    gradient = torch.stack([(at.slope_x * across).sum(-1), (at.x * along).sum(-1)], -1)
    return Reading((at.x * across).sum(-1), gradient, (at.x * changing).sum(-1))


def laplacian(field: Tensor, spacing: Tensor) -> Tensor:
    """Of a field [worlds, cells, cells], by next neighbours."""
    around = field.roll(1, 1) + field.roll(-1, 1) + field.roll(1, 2) + field.roll(-1, 2)
    return (around - 4 * field) / spacing.unsqueeze(-1) ** 2


def field_energy(field: Tensor, rate: Tensor, mass: Tensor, spacing: Tensor) -> Tensor:
    """Energy [worlds] of the field alone; mass, spacing [worlds, 1]."""
    steps = (field.roll(-1, 1) - field) ** 2 + (field.roll(-1, 2) - field) ** 2
    area, heavy = spacing[:, 0] ** 2, mass[:, 0] ** 2
    squares = area * ((rate**2).sum((1, 2)) + heavy * (field**2).sum((1, 2)))
    return 0.5 * (squares + steps.sum((1, 2)))


def field_momentum(field: Tensor, rate: Tensor, spacing: Tensor) -> Tensor:
    """Momentum [worlds, 2] of the field: - sum a^2 pi grad phi, by central differences."""
    parts = [(rate * (field.roll(-1, axis) - field.roll(1, axis))).sum((1, 2)) for axis in (1, 2)]
    return -0.5 * spacing * torch.stack(parts, -1)


def static_field(source: Tensor, mass: Tensor, spacing: Tensor) -> Tensor:
    """The field [worlds, cells, cells] at rest around a source [worlds, cells, cells].

    On the CPU world by world, so that each is the same to the last bit in any batch.
    """
    cells = source.shape[1]
    wave = 2 - 2 * np.cos(2 * np.pi * np.arange(cells) / cells)
    stiffness = wave[:, None] + wave[None, : cells // 2 + 1]
    if source.device.type != "cpu":
        k2 = torch.from_numpy(stiffness).to(source) / spacing.unsqueeze(-1) ** 2
        waves = torch.fft.rfft2(source) / (k2 + mass.unsqueeze(-1) ** 2)
        return torch.fft.irfft2(waves, s=(cells, cells))
    masses, spacings = mass[:, 0].tolist(), spacing[:, 0].tolist()
    fields = [
        np.fft.irfft2(np.fft.rfft2(density) / (stiffness / a**2 + m**2), s=(cells, cells))
        for density, m, a in zip(source.numpy(), masses, spacings, strict=True)
    ]
    return torch.from_numpy(np.stack(fields)).to(source)
