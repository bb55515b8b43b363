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

ORDERS = (1, 3, 6, 10)  # monomials of degree 0..3
_START = (0, 1, 4, 10, 20)


class Block(NamedTuple):
    """Neighbours of species t of all agents of species s, padded."""

    centre: Tensor  # [n] index of the agent
    neighbour: Tensor  # [n, m] index of the neighbour, any where absent
    shift: Tensor  # [n, m, 3] what the nearest image adds to x_j - x_i
    present: Tensor  # [n, m]


Graph = dict[str, Block]  # by "s-t", positions of the species in the sorted list of species


def blocks(
    position: np.ndarray,
    cell: np.ndarray,
    numbers: np.ndarray,
    species: Sequence[int],
    reach: float,
) -> Graph:
    """The padded neighbours within `reach` of one frame [atoms, 3]; rows of `cell` are vectors.

    All pairs are compared; `reach` must not exceed half the smallest width of the cell.
    """
    delta = position[None, :] - position[:, None]
    s = delta @ np.linalg.inv(cell)
    shift = -np.round(s) @ cell
    d2 = ((delta + shift) ** 2).sum(-1)
    np.fill_diagonal(d2, np.inf)
    found: Graph = {}
    for a, first in enumerate(species):
        centre = np.flatnonzero(numbers == first)
        for b, second in enumerate(species):
            other = np.flatnonzero(numbers == second)
            near = d2[np.ix_(centre, other)] < reach**2
            width = max(1, int(near.sum(1).max(initial=0)))
            order = np.argsort(~near, axis=1, kind="stable")[:, :width]
            present = np.take_along_axis(near, order, 1)
            index = other[order] if len(other) else np.zeros_like(order)
            kept = np.where(present[..., None], shift[centre[:, None], index], 0.0)
            found[f"{a}-{b}"] = Block(
                torch.from_numpy(centre),
                torch.from_numpy(index),
                torch.from_numpy(kept),
                torch.from_numpy(present),
            )
    return found


def join(graphs: Sequence[Graph], atoms: int, dtype: torch.dtype) -> Graph:
    """The graph of several frames of `atoms` atoms each, one after another."""
    joined: Graph = {}
    for key in graphs[0]:
        parts = [graph[key] for graph in graphs]
        width = max(part.neighbour.shape[1] for part in parts)
        joined[key] = Block(
            torch.cat([p.centre + f * atoms for f, p in enumerate(parts)]),
            torch.cat([_wide(p.neighbour, width) + f * atoms for f, p in enumerate(parts)]),
            torch.cat([_wide(p.shift, width) for p in parts]).to(dtype),
            torch.cat([_wide(p.present, width) for p in parts]),
        )
    return joined


def _wide(part: Tensor, width: int) -> Tensor:
    if part.shape[1] == width:
        return part
    empty = part.new_zeros(part.shape[0], width - part.shape[1], *part.shape[2:])
    return torch.cat([part, empty], 1)


def monomials(n: Tensor) -> Tensor:
    """Weighted monomials [..., 20] of degree 0..3 of vectors [..., 3].

    Within degree l the dot product for n and m is (n . m)^l.
    """
    x, y, z = n.unbind(-1)
    root2, root3, root6 = math.sqrt(2), math.sqrt(3), math.sqrt(6)
    xx, yy, zz = x * x, y * y, z * z
    xy, yz, zx = x * y, y * z, z * x
    second = [xx, yy, zz, root2 * xy, root2 * yz, root2 * zx]
    third = [xx * x, yy * y, zz * z, root3 * xx * y, root3 * xx * z, root3 * yy * x]
    third += [root3 * yy * z, root3 * zz * x, root3 * zz * y, root6 * xy * z]
    return torch.stack([torch.ones_like(x), x, y, z, *second, *third], -1)


class Products(nn.Module):
    """Invariants [n, 5 k] of moments [n, k, 20], and the mixed vectors [n, k, 3]."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mix = _weights(generator, 5, channels, channels)

    def forward(self, a: Tensor) -> tuple[Tensor, Tensor]:
        parts = [a[..., _START[order] : _START[order + 1]] for order in range(4)]
        found = [parts[0].squeeze(-1)]
        found += [(p * (self.mix[m] @ p)).sum(-1) for m, p in enumerate(parts[1:])]
        v = self.mix[3] @ parts[1]
        found.append(((self.mix[4] @ parts[2]) * monomials(v)[..., 4:10]).sum(-1))
        return torch.cat(found, -1), v


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
        seen = {key: self._seen(position, key, block) for key, block in graph.items()}
        moments = self._gather(
            [
                [
                    seen[f"{a}-{b}"].radial[..., :k].transpose(1, 2) @ seen[f"{a}-{b}"].angular
                    for b in range(count)
                ]
                for a in range(count)
            ]
        )
        invariants, v = self.first(moments)
        said = self._per_species(self.talk, invariants, centre)
        h, gate, own = said[:, :k], said[:, k : 2 * k], said[:, -1]
        spoken = torch.cat([h.unsqueeze(-1), gate.unsqueeze(-1) * v], -1)[back]
        heard = self._gather(
            [
                [
                    self._hear(seen[f"{a}-{b}"], spoken[graph[f"{a}-{b}"].neighbour])
                    for b in range(count)
                ]
                for a in range(count)
            ]
        )
        carried = [
            self.carry[order] @ moments[..., _START[order] : _START[order + 1]]
            for order in range(4)
        ]
        again, _ = self.second(torch.cat(carried, -1) + heard)
        judged = self._per_species(self.judge, torch.cat([again, h], -1), centre)
        return (own + judged.squeeze(-1))[back]

    def _seen(self, position: Tensor, key: str, block: Block) -> Seen:
        r = position[block.neighbour] - position[block.centre].unsqueeze(1) + block.shift
        away = torch.zeros_like(r)
        away[..., 0] = self.cutoff
        r = torch.where(block.present.unsqueeze(-1), r, away)
        d = (r * r).sum(-1).sqrt()
        n = r / d.unsqueeze(-1)
        x = (d / self.cutoff).clamp(max=1.0)
        window = (1 - x * x) ** 3
        phi = torch.exp(-0.5 * ((d.unsqueeze(-1) - self.centres) / self.widths) ** 2)
        radial = (phi * window.unsqueeze(-1)) @ self.radial[key]
        return Seen(radial, monomials(n), n)

    def _hear(self, seen: Seen, spoken: Tensor) -> Tensor:
        k = self.channels
        _, scalar, turned, vector = seen.radial.split(k, -1)
        h, v = spoken[..., 0], spoken[..., 1:]
        along = (v * seen.direction.unsqueeze(2)).sum(-1)
        heard = (scalar * h + turned * along).transpose(1, 2) @ seen.angular
        passed = (vector.unsqueeze(-1) * v).sum(1)
        zero, rest = torch.zeros_like(heard[..., :1]), torch.zeros_like(heard[..., 4:])
        return heard + torch.cat([zero, passed, rest], -1)

    def _gather(self, parts: list[list[Tensor]]) -> Tensor:
        """Sum over the neighbours' species; agents stay grouped by their own."""
        return 0.3 * torch.cat([torch.stack(row).sum(0) for row in parts])

    def _per_species(self, nets: nn.ModuleList, x: Tensor, centre: list[Tensor]) -> Tensor:
        parts = x.split([len(c) for c in centre])
        return torch.cat([net(part) for net, part in zip(nets, parts, strict=True)])


class Seen(NamedTuple):
    """A block's radial channels [n, m, 4 k], monomials [n, m, 20] and directions [n, m, 3]."""

    radial: Tensor
    angular: Tensor
    direction: Tensor


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
