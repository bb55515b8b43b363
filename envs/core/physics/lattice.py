"""Periodic lattices in one to three dimensions: neighbours, colours, and the maps onto themselves.

Sites are numbered row by row: the last axis runs fastest. Values of sites are [worlds, sites, ...];
a bond belongs to the site it starts from and leads one site ahead along its axis, so that the bonds
of a lattice are one array [worlds, sites, ...] for each axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, final

import torch
from torch import Tensor

from ..validation import require_count

Number = TypeVar("Number", float, Tensor)


class Isometry(NamedTuple):
    """A map of a lattice onto itself: new site i is old site `sites[world, i]`."""

    sites: Tensor  # [worlds, sites] int64
    axes: tuple[int, ...]  # the old axis that each new axis runs along
    backward: tuple[bool, ...]  # whether it runs against it


@final
@dataclass(frozen=True)
class Torus:
    """A periodic lattice.

    shape: sites along each of one, two or three axes.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.shape) <= 3:
            raise ValueError(f"shape={self.shape!r} must name one to three sides")
        for side in self.shape:
            require_count("side", side)

    @property
    def dimension(self) -> int:
        return len(self.shape)

    @property
    def n_sites(self) -> int:
        return math.prod(self.shape)

    def ahead(self, value: Tensor, axis: int, steps: int = 1) -> Tensor:
        """What stands so many sites ahead of every site along an axis [worlds, sites, ...]."""
        grid = value.unflatten(1, self.shape)
        return grid.roll(-steps, axis + 1).flatten(1, self.dimension)

    def neighbour_sum(self, value: Tensor, bonds: Sequence[Tensor] | None = None) -> Tensor:
        """Sum over the neighbours of every site, two for each axis [worlds, sites, ...].

        bonds: strengths [worlds, sites] for each axis, else all are 1.
        """
        terms = []
        for axis in reversed(range(self.dimension)):
            if bonds is None:
                terms += [self.ahead(value, axis), self.ahead(value, axis, -1)]
            else:
                bond = bonds[axis].reshape(*bonds[axis].shape, *[1] * (value.ndim - 2))
                terms += [bond * self.ahead(value, axis), self.ahead(bond * value, axis, -1)]
        return sum(terms[1:], terms[0])

    def coordinates(self, device: torch.device | str = "cpu") -> Tensor:
        """Where every site stands along each axis [sites, dimension] int64."""
        axes = [torch.arange(side, device=device) for side in self.shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)

    def site(self, coordinates: Tensor) -> Tensor:
        """The site at coordinates [..., dimension] int64, counted around the torus."""
        index = torch.zeros_like(coordinates[..., 0])
        for axis, side in enumerate(self.shape):
            index = index * side + coordinates[..., axis] % side
        return index

    def colours(self, device: torch.device | str = "cpu") -> Tensor:
        """0 or 1 [sites] int64: if all sides are even, no two neighbours have the same."""
        return self.coordinates(device).sum(-1) % 2

    def shift(self, steps: Tensor) -> Isometry:
        """The lattice seen from so many sites ahead; steps [worlds, dimension] int64."""
        sites = self.site(self.coordinates(steps.device) + steps[:, None])
        return Isometry(sites, tuple(range(self.dimension)), (False,) * self.dimension)

    def turn(
        self,
        worlds: int,
        axes: tuple[int, int] = (0, 1),
        device: torch.device | str = "cpu",
    ) -> Isometry:
        """A quarter turn in the plane of two axes, whose sides must be equal."""
        first, second = axes
        if self.shape[first] != self.shape[second]:
            raise ValueError(f"shape={self.shape} has no quarter turn in the plane of {axes}")
        new = self.coordinates(device)
        old = new.clone()
        old[:, first], old[:, second] = new[:, second], self.shape[first] - 1 - new[:, first]
        order, backward = list(range(self.dimension)), [False] * self.dimension
        order[first], order[second], backward[first] = second, first, True
        return Isometry(self.site(old).expand(worlds, -1), tuple(order), tuple(backward))

    def mirror(self, worlds: int, axis: int = -1, device: torch.device | str = "cpu") -> Isometry:
        """The order of the sites along an axis reversed."""
        axis %= self.dimension
        old = self.coordinates(device)
        old[:, axis] = self.shape[axis] - 1 - old[:, axis]
        backward = tuple(other == axis for other in range(self.dimension))
        return Isometry(self.site(old).expand(worlds, -1), tuple(range(self.dimension)), backward)

    def moved(self, value: Tensor, isometry: Isometry) -> Tensor:
        """Values of sites [worlds, sites, ...] as they stand after the map."""
        return _at(value, isometry.sites)

    def moved_bonds(self, bonds: Sequence[Tensor], isometry: Isometry) -> list[Tensor]:
        """What bonds hold, for each new axis [worlds, sites, ...].

        What has a direction, as a link of a gauge field has, must also be reversed where
        `isometry.backward` says so.
        """
        moved = []
        for axis, (old, backward) in enumerate(zip(isometry.axes, isometry.backward, strict=True)):
            start = self.ahead(isometry.sites, axis) if backward else isometry.sites
            moved.append(_at(bonds[old], start))
        return moved


def _at(value: Tensor, sites: Tensor) -> Tensor:
    """Values [worlds, sites, ...] at sites [worlds, sites]."""
    index = sites.reshape(*sites.shape, *[1] * (value.ndim - 2)).expand(-1, -1, *value.shape[2:])
    return value.gather(1, index)


def largest_step(mass: Number, spacing: Number, dimension: int) -> Number:
    """The time step at which the fastest wave of a field on a lattice becomes unstable."""
    fastest: Number = (mass**2 + 4 * dimension / spacing**2) ** 0.5
    return 2 / fastest
