"""A network loss: agents that hear their neighbours' invariants and directions once.

L_i = net_s(invariants of i), conservative when all agents share the sum. With n_ij the unit vector
from i to j, phi the radial basis and Y^l the weighted monomials of `monomials` (l <= 3):

    A^l_ik = sum_j R_k(r_ij) Y^l(n_ij),              R = phi W_st for species s of i, t of j
    invariants: A^0_k, A^l_k . (W A^l)_k for l = 1..3, and Y^2(v_k) . Q_k with v, Q mixed A^1, A^2
    (h_i, g_i, e_i) = MLP_s(invariants);  v_ik = g_ik (W A^1)_ik
    A'^l_ik = (W A^l)_ik + sum_j [R'_k h_jk + R''_k (v_jk . n_ij)] Y^l(n_ij),
              plus sum_j R'''_k v_jk for l = 1
    L_i = e_i + MLP'_s(invariants of A', h_i)

The parts are those of many equivariant networks (Drautz, PRB 99, 014104 (2019); Schutt et al., ICML
2021); this small composition of them is ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..core.physics.kernels.neighbours import periodic_neighbours

ORDERS = (1, 3, 6, 10)  # monomials of degree 0..3
_START = (0, 1, 4, 10, 20)


class Block(NamedTuple):
    """Neighbours of species t of all agents of species s, padded."""

    centre: Tensor  # [n] index of the agent
    neighbour: Tensor  # [n, m] index of the neighbour, any where absent
    shift: Tensor  # [n, m, 3] what the image adds to x_j - x_i
    present: Tensor  # [n, m]


Graph = dict[str, Block]  # by "s-t", positions of the species in the sorted list of species


def blocks(
    position: np.ndarray,
    cell: np.ndarray,
    numbers: np.ndarray,
    species: Sequence[int],
    cutoff: float,
) -> Graph:
    """The padded neighbours within `cutoff` of one frame [atoms, 3]; rows of `cell` are vectors.

    All images within `cutoff` are neighbours, so that cells of any size are right.
    """
    near = periodic_neighbours(position, cell, cutoff)
    owner = np.repeat(np.arange(len(position)), np.diff(near.start))
    graph: Graph = {}
    for a, first in enumerate(species):
        centre = np.flatnonzero(numbers == first)
        for b, second in enumerate(species):
            pairs = np.flatnonzero((numbers[owner] == first) & (numbers[near.neighbour] == second))
            count = np.bincount(owner[pairs], minlength=len(position))[centre]
            row = np.repeat(np.arange(len(centre)), count)
            column = np.arange(len(pairs)) - np.repeat(np.cumsum(count) - count, count)
            shape = len(centre), max(1, int(count.max(initial=0)))
            neighbour = np.zeros(shape, np.int64)
            shift = np.zeros((*shape, 3))
            present = np.zeros(shape, bool)
            neighbour[row, column] = near.neighbour[pairs]
            shift[row, column] = near.shift[pairs]
            present[row, column] = True
            arrays = (centre, neighbour, shift, present)
            graph[f"{a}-{b}"] = Block(*map(torch.from_numpy, arrays))
    return graph


def join(graphs: Sequence[Graph], atoms: int, dtype: torch.dtype) -> Graph:
    """The graph of several frames of `atoms` atoms each, one after another."""
    joined: Graph = {}
    for key in graphs[0]:
        parts = [graph[key] for graph in graphs]
        width = max(block.neighbour.shape[1] for block in parts)
        joined[key] = Block(
            torch.cat([p.centre + f * atoms for f, p in enumerate(parts)]),
            torch.cat([_wide(p.neighbour, width) + f * atoms for f, p in enumerate(parts)]),
            torch.cat([_wide(p.shift, width) for p in parts]).to(dtype),
            torch.cat([_wide(p.present, width) for p in parts]),
        )
    return joined


def _wide(rows: Tensor, width: int) -> Tensor:
    if rows.shape[1] == width:
        return rows
    empty = rows.new_zeros(rows.shape[0], width - rows.shape[1], *rows.shape[2:])
    return torch.cat([rows, empty], 1)


def monomials(n: Tensor) -> Tensor:
    """Weighted monomials [..., 20] of degree 0..3 of vectors [..., 3].

    Within degree l the dot product for n and m is (n . m)^l.
    """
    second = squares(n)
    # xxx yyy zzz xxy xxz yyx yyz zzx zzy xyz, from xx yy zz xy yz zx (with their weights)
    third = _taken(second, (0, 1, 2, 0, 0, 1, 1, 2, 2, 3)) * _taken(
        n, (0, 1, 2, 1, 2, 0, 2, 0, 1, 2)
    )
    third = third * n.new_tensor([1.0] * 3 + [math.sqrt(3)] * 7)
    return torch.cat([torch.ones_like(n[..., :1]), n, second, third], -1)


def squares(n: Tensor) -> Tensor:
    """Those of degree 2 alone: [..., 6]."""
    weight = n.new_tensor([1.0] * 3 + [math.sqrt(2)] * 3)
    return _taken(n, (0, 1, 2, 0, 1, 2)) * _taken(n, (0, 1, 2, 1, 2, 0)) * weight


def _taken(n: Tensor, columns: tuple[int, ...]) -> Tensor:
    return n.index_select(-1, torch.tensor(columns))


class Products(nn.Module):
    """Invariants [n, 5 k] of moments [n, k, 20], and the mixed vectors [n, k, 3]."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mix = _weights(generator, 5, channels, channels)

    def forward(self, a: Tensor) -> tuple[Tensor, Tensor]:
        parts = [a[..., _START[order] : _START[order + 1]] for order in range(4)]
        invariants = [parts[0].squeeze(-1)]
        invariants += [(p * (self.mix[m] @ p)).sum(-1) for m, p in enumerate(parts[1:])]
        v = self.mix[3] @ parts[1]
        invariants.append(((self.mix[4] @ parts[2]) * squares(v)).sum(-1))
        return torch.cat(invariants, -1), v


class MessageNet(nn.Module):
    """See the module. `numbers` are the atomic numbers of the species in rising order.

    cutoff: Angstrom.  centres, widths: of the Gaussians of the radial basis, Angstrom.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        *,
        cutoff: float,
        channels: int,
        hidden: int,
        centres: Tensor,
        widths: Tensor,
        seed: int,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        n, size = len(numbers), len(centres)
        self.numbers, self.cutoff, self.channels = tuple(numbers), cutoff, channels
        self.centres: Tensor
        self.widths: Tensor
        self.register_buffer("centres", centres)
        self.register_buffer("widths", widths)
        self.radial = nn.ParameterDict(
            {
                f"{a}-{b}": _weights(generator, size, 4 * channels)
                for a in range(n)
                for b in range(n)
            }
        )
        self.first = Products(channels, generator)
        self.second = Products(channels, generator)
        self.carry = _weights(generator, 4, channels, channels)
        inputs = 5 * channels
        self.talk = nn.ModuleList(
            [mlp(generator, inputs, hidden, 2 * channels + 1) for _ in numbers]
        )
        self.judge = nn.ModuleList([mlp(generator, inputs + channels, hidden, 1) for _ in numbers])

    def forward(self, position: Tensor, graph: Graph) -> Tensor:
        """The losses [atoms] in eV at positions [atoms, 3] in Angstrom."""
        atoms, k = len(position), self.channels
        count = len(self.numbers)
        centre = [graph[f"{a}-0"].centre for a in range(count)]
        where = torch.cat(centre)
        back = torch.empty_like(where)
        back[where] = torch.arange(atoms)
        pairs = _pairs(graph)
        seen = self._see(position, pairs)
        moments = self._gather(
            [
                radial[..., :k].transpose(1, 2) @ angular
                for radial, angular in zip(seen.radial, seen.angular, strict=True)
            ]
        )
        invariants, v = self.first(moments)
        messages = self._per_species(self.talk, invariants, centre)
        h, gate, own = messages[:, :k], messages[:, k : 2 * k], messages[:, -1]
        spoken = torch.cat([h.unsqueeze(-1), gate.unsqueeze(-1) * v], -1)[back]
        heard = self._gather(self._hear(seen, spoken.index_select(0, pairs.neighbour)))
        carried = [
            self.carry[order] @ moments[..., _START[order] : _START[order + 1]]
            for order in range(4)
        ]
        again, _ = self.second(torch.cat(carried, -1) + heard)
        judged = self._per_species(self.judge, torch.cat([again, h], -1), centre)
        return (own + judged.squeeze(-1))[back]

    def _see(self, position: Tensor, pairs: Pairs) -> Seen:
        r = position.index_select(0, pairs.neighbour) - position.index_select(0, pairs.centre)
        away = torch.zeros_like(r)
        away[:, 0] = self.cutoff
        r = torch.where(pairs.present.unsqueeze(-1), r + pairs.shift, away)
        d = (r * r).sum(-1, keepdim=True).sqrt()
        n = r / d
        x = (d / self.cutoff).clamp(max=1.0)
        phi = torch.exp(-0.5 * ((d - self.centres) / self.widths) ** 2) * (1 - x * x) ** 3
        radial = [
            (basis @ self.radial[key]).view(*shape, -1)
            for (key, shape), basis in zip(pairs.shapes.items(), pairs.split(phi), strict=True)
        ]
        return Seen(radial, pairs.blocks(monomials(n)), n, pairs)

    def _hear(self, seen: Seen, spoken: Tensor) -> list[Tensor]:
        k, pairs = self.channels, seen.pairs
        h, v = spoken[..., 0], spoken[..., 1:]
        along = (v * seen.direction.unsqueeze(1)).sum(-1)
        heard = []
        parts = (seen.radial, seen.angular, pairs.blocks(h), pairs.blocks(along), pairs.blocks(v))
        for radial, angular, message, turned, vector in zip(*parts, strict=True):
            _, r1, r2, r3 = radial.split(k, -1)
            total = (r1 * message + r2 * turned).transpose(1, 2) @ angular
            passed = (r3.unsqueeze(-1) * vector).sum(1)
            zero, rest = torch.zeros_like(total[..., :1]), torch.zeros_like(total[..., 4:])
            heard.append(total + torch.cat([zero, passed, rest], -1))
        return heard

    def _gather(self, parts: list[Tensor]) -> Tensor:
        """Sum over the neighbours' species; agents stay grouped by their own."""
        count = len(self.numbers)
        rows = [parts[a * count : (a + 1) * count] for a in range(count)]
        return 0.3 * torch.cat([torch.stack(row).sum(0) for row in rows])

    def _per_species(self, nets: nn.ModuleList, x: Tensor, centre: list[Tensor]) -> Tensor:
        parts = x.split([len(c) for c in centre])
        return torch.cat([net(rows) for net, rows in zip(nets, parts, strict=True)])


class Pairs(NamedTuple):
    """The blocks of a graph one after another.

    centre, neighbour, present [pairs], shift [pairs, 3]: as in `Block`.
    shapes: (n, m) of each block, by its key, n m in `pairs`.
    """

    centre: Tensor
    neighbour: Tensor
    present: Tensor
    shift: Tensor
    shapes: dict[str, tuple[int, int]]

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The rows of x [pairs, ...] by block."""
        return x.split([n * m for n, m in self.shapes.values()])

    def blocks(self, x: Tensor) -> list[Tensor]:
        """x [pairs, ...] as blocks [n, m, ...]."""
        parts = zip(self.split(x), self.shapes.values(), strict=True)
        return [rows.view(*shape, *x.shape[1:]) for rows, shape in parts]


def _pairs(graph: Graph) -> Pairs:
    return Pairs(
        torch.cat([b.centre.repeat_interleave(b.neighbour.shape[1]) for b in graph.values()]),
        torch.cat([b.neighbour.flatten() for b in graph.values()]),
        torch.cat([b.present.flatten() for b in graph.values()]),
        torch.cat([b.shift.flatten(0, 1) for b in graph.values()]),
        {key: (b.neighbour.shape[0], b.neighbour.shape[1]) for key, b in graph.items()},
    )


class Seen(NamedTuple):
    """Radial channels [n, m, 4 k] and monomials [n, m, 20] by block, directions [pairs, 3]."""

    radial: list[Tensor]
    angular: list[Tensor]
    direction: Tensor
    pairs: Pairs


def mlp(generator: torch.Generator, inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers with smooth activations."""
    sizes = [inputs, hidden, hidden, outputs]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        linear = nn.Linear(a, b)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(b, a, generator=generator) / math.sqrt(a))
            linear.bias.zero_()
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def _weights(generator: torch.Generator, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=generator) / math.sqrt(shape[-2]))
