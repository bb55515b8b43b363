"""A quantum walk whose long waves obey the Dirac equation, on links that carry a U(1) gauge field.

Symbols    psi = (u, d), two components per site; theta the angle of the coin, which is the mass;
           A_l the gauge field of the link from a site to the one ahead, in radians
1 + 1      psi -> shift_x exp(-i theta sigma_x) psi:  cos w = cos theta cos k
2 + 1      psi -> shift_y shift_x exp(-i theta sigma_y) psi; shift_x moves u ahead and d back,
           shift_y the sum and the difference of both:
           cos w = cos theta cos kx cos ky + sin theta sin kx sin ky
Gauge      what moves ahead takes the factor exp(i A_l), what moves back exp(-i A_l), so that
           psi -> exp(i chi) psi, A_l -> A_l + chi(ahead) - chi(here) commutes with a step; where
           chi changes in time, A_t of a site changes by that

Sites are those of a `Torus`, row by row; links of axis a are the a-th of the blocks of so many
links as sites. Complex fields are [worlds, sites]. The discrete walk follows the literature on
quantum walks (Meyer 1996; Arrighi, Nesme and Forets 2014); the split in 2 + 1 dimensions is ours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.physics.lattice import Torus

_PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
_HALF = math.sqrt(0.5)


class Spinor(NamedTuple):
    """Both components of a field, complex [worlds, sites]."""

    u: Tensor
    d: Tensor


def walk_step(
    lattice: Torus, psi: Spinor, link: Tensor, angle: float, potential: Tensor | None = None
) -> Spinor:
    """One step on links whose gauge field is `link` [worlds, links].

    potential: A_t of the sites [worlds, sites]; the field turns by it at the end of the step.
    """
    phase = torch.polar(torch.ones_like(link), link).chunk(lattice.dimension, 1)
    psi = _shift(lattice, toss(psi, angle, lattice.dimension), phase[0], 0)
    if lattice.dimension == 2:
        psi = mixed(_shift(lattice, mixed(psi), phase[1], 1))
    if potential is None:
        return psi
    turn = torch.polar(torch.ones_like(potential), potential)
    return Spinor(turn * psi.u, turn * psi.d)


def toss(psi: Spinor, angle: float, dimension: int) -> Spinor:
    """The coin: exp(-i angle sigma_x) in one dimension, exp(-i angle sigma_y) in two."""
    u, d = psi
    c, s = math.cos(angle), math.sin(angle)
    if dimension == 1:
        return Spinor(c * u - 1j * s * d, c * d - 1j * s * u)
    return Spinor(c * u - s * d, c * d + s * u)


def mixed(psi: Spinor) -> Spinor:
    """Sum and difference of the components, over the root of 2: what moves along the second axis.

    It is its own inverse.
    """
    return Spinor(_HALF * (psi.u + psi.d), _HALF * (psi.u - psi.d))


def _shift(lattice: Torus, psi: Spinor, phase: Tensor, axis: int) -> Spinor:
    u = lattice.ahead(phase * psi.u, axis, -1)
    return Spinor(u, phase.conj() * lattice.ahead(psi.d, axis))


def gauge_transformed(
    lattice: Torus, psi: Spinor, link: Tensor, chi: Tensor
) -> tuple[Spinor, Tensor]:
    """The same field and links in another gauge; chi [worlds, sites] radians."""
    factor = torch.polar(torch.ones_like(chi), chi)
    change = [lattice.ahead(chi, axis) - chi for axis in range(lattice.dimension)]
    return Spinor(factor * psi.u, factor * psi.d), link + torch.cat(change, 1)


def gauge_lines(lattice: Torus, link: Tensor, centre: Tensor) -> Tensor:
    """The line integral chi [worlds, sites] of A from a centre to every site.

    Lines run along the first axis on the row of the centre, then along the second, without
    crossing the site opposite to the centre: exp(-i chi) psi is the field in the gauge of whoever
    stands at the centre. centre: sites along each axis [worlds, dimension] int64.
    """
    along = [part.unflatten(1, lattice.shape) for part in link.chunk(lattice.dimension, 1)]
    if lattice.dimension == 1:
        return _line(along[0], centre[:, :1])
    row = centre[:, 1, None, None].expand(-1, lattice.shape[0], 1)
    first = _line(along[0].gather(2, row)[..., 0], centre[:, :1])
    second = _line(along[1], centre[:, 1, None, None].expand(-1, lattice.shape[0], 1))
    return (first.unsqueeze(-1) + second).flatten(1)


def _line(link: Tensor, centre: Tensor) -> Tensor:
    """Sums of links [..., sites] from `centre` [..., 1] to every site of a ring."""
    n = link.shape[-1]
    cut = centre - n // 2
    site = torch.arange(n, device=link.device)
    summed = link.gather(-1, (site + cut) % n).cumsum(-1)
    chi = torch.cat([torch.zeros_like(summed[..., :1]), summed[..., :-1]], -1)
    chi = chi.gather(-1, (site - cut) % n)
    return chi - chi.gather(-1, centre % n)


def flux(lattice: Torus, link: Tensor) -> Tensor:
    """Sum of A around the plaquette ahead of every site along both axes [worlds, sites]."""
    first, second = link.chunk(2, 1)
    return first + lattice.ahead(second, 0) - lattice.ahead(first, 1) - second


def frequency(wave_number: np.ndarray, angle: float) -> np.ndarray:
    """w in [0, pi] of the positive branch; wave_number [..., dimension] radians per site."""
    c, s = math.cos(angle), math.sin(angle)
    k = np.asarray(wave_number, float)
    if k.shape[-1] == 1:
        return np.arccos(c * np.cos(k[..., 0]))
    return np.arccos(c * np.cos(k).prod(-1) + s * np.sin(k).prod(-1))


def velocity(wave_number: np.ndarray, angle: float) -> np.ndarray:
    """Group velocity dw/dk [..., dimension] of the positive branch, sites per step."""
    c, s = math.cos(angle), math.sin(angle)
    k = np.asarray(wave_number, float)
    w = frequency(k, angle)[..., None]
    if k.shape[-1] == 1:
        return c * np.sin(k) / np.sin(w)
    other = k[..., ::-1]
    slope = c * np.sin(k) * np.cos(other) - s * np.cos(k) * np.sin(other)
    return slope / np.sin(w)


def step_matrix(wave_number: np.ndarray, angle: float) -> np.ndarray:
    """W(k) [..., 2, 2]: one step of a plane wave without gauge field."""
    k = np.asarray(wave_number, float)
    x, y, z = _PAULI
    identity = np.eye(2)

    def rotation(a: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        a = np.asarray(a)[..., None, None]
        return np.cos(a) * identity - 1j * np.sin(a) * sigma

    if k.shape[-1] == 1:
        return rotation(k[..., 0], z) @ rotation(np.array(angle), x)
    return rotation(k[..., 1], x) @ rotation(k[..., 0], z) @ rotation(np.array(angle), y)


def positive_branch(wave_number: np.ndarray, angle: float) -> np.ndarray:
    """Projector [..., 2, 2] on the waves exp(-i w t) with w above 0."""
    w = frequency(wave_number, angle)[..., None, None]
    matrix = step_matrix(wave_number, angle)
    return 0.5 * np.eye(2) + 0.5j * (matrix - np.cos(w) * np.eye(2)) / np.sin(w)


def packets(
    lattice: Torus, angle: float, width: float, centre: np.ndarray, wave_number: np.ndarray
) -> np.ndarray:
    """Gaussian packets of the positive branch, complex [packets, 2, sites], each of norm 1.

    width: standard deviation of the density, sites.  centre, wave_number [packets, dimension]:
    sites and radians per site. They vanish on the rows opposite to the centre, where gauge lines
    end.
    """
    shape, axes = lattice.shape, tuple(range(-lattice.dimension, 0))
    per_site = (slice(None), *[None] * lattice.dimension)
    centre, wave_number = centre[per_site], wave_number[per_site]
    waves = [2 * np.pi * np.fft.fftfreq(side) for side in shape]
    k = np.stack(np.meshgrid(*waves, indexing="ij"), -1)
    away = (k - wave_number + np.pi) % (2 * np.pi) - np.pi
    weight = np.exp(-(width**2) * (away**2).sum(-1) - 1j * (k * centre).sum(-1))
    projector = positive_branch(wave_number, angle)  # either column is an eigenvector
    larger = projector[..., 0, 0].real >= projector[..., 1, 1].real
    column = np.where(larger[..., None], projector[..., 0], projector[..., 1])
    spinor = (positive_branch(k, angle) * column[..., None, :]).sum(-1)
    spinor /= np.sqrt((np.abs(spinor) ** 2).sum(-1, keepdims=True))
    field = np.fft.ifftn(np.moveaxis(weight[..., None] * spinor, -1, 1), axes=axes)
    sites = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    inside = ((sites - centre) % shape != np.array(shape) // 2).all(-1)
    field = field.reshape(len(field), 2, -1) * inside.reshape(len(field), 1, -1)
    return field / np.sqrt((np.abs(field) ** 2).sum((1, 2), keepdims=True))
