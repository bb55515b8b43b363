"""Pictures of a Dirac packet: both components, the phase as colour, the field on the links."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..core.scene import Chart, LegendEntry, Scene
from .state import Problem, SteerState, target_overlap
from .walk import gauge_lines

_LEGEND = (
    LegendEntry("|u|^2 up, |d|^2 down: colour is the phase", "scale", palette="wheel"),
    LegendEntry("target", "segment"),
    LegendEntry("gauge field of a link", "arrow"),
)
_LEGEND_2D = (
    LegendEntry("|u|^2 + |d|^2: colour is the phase", "scale", palette="wheel"),
    LegendEntry("target", "segment"),
    LegendEntry("gauge field, mean of 16 links", "arrow"),
)
_FAINTEST = 0.003  # density over the packet's peak that is still drawn in two dimensions
_FULL = 2.0  # gauge field of the longest arrow, radians
_BLOCK = 4  # sites of a side over which links are averaged there


def packet_scene(problem: Problem, state: SteerState, task: str) -> Scene:
    """The first world, in the gauge of whoever stands at the target's centre."""
    lattice = problem.lattice
    chi = gauge_lines(lattice, state.link[:1], state.centre[:1])[0]
    fields = torch.view_as_complex(torch.stack([state.u[0], state.d[0]]))
    fields = fields * torch.polar(torch.ones_like(chi), -chi)
    density = problem.peak_volume * (fields.real**2 + fields.imag**2)
    hue = fields.angle() / (2 * math.pi) % 1
    overlap = target_overlap(lattice, *(part[:1] for part in state[:6]))
    fidelity = float(overlap.abs()[0] ** 2)
    gone, norm = int(state.time[0, 0]), float(density.sum()) / problem.peak_volume
    caption = (f"{task}, step {gone} of {problem.horizon}", f"fidelity {fidelity:.4f}")
    charts = (
        Chart(0.0, 1.0, {"fidelity": fidelity}, length=problem.horizon),
        Chart(-1e-12, 1e-12, {"norm - 1": norm - 1}, length=problem.horizon),
    )
    draw = _ring if lattice.dimension == 1 else _torus
    return draw(problem, state, density, hue, caption, charts)


def _ring(
    problem: Problem,
    state: SteerState,
    density: Tensor,
    hue: Tensor,
    caption: tuple[str, ...],
    charts: tuple[Chart, ...],
) -> Scene:
    """u above the middle and d below it, at each site; arrows of the links underneath."""
    n = problem.lattice.n_sites
    site = torch.arange(n) + 0.5
    height = n / 3.2  # of a packet that has all its density in one component
    sides = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    place = torch.stack([site.expand(2, -1), sides * (height * density + 0.6)], -1)
    target = torch.stack([state.target_u[0], state.target_d[0]]).square().sum(-1)
    level = sides * (height * problem.peak_volume * target + 0.6)
    stroke = torch.stack([site[:-1].expand(2, -1), level[:, :-1], site[1:].expand(2, -1)], -1)
    outline = torch.cat([stroke, level[:, 1:, None]], -1).flatten(0, 1)
    field = (state.link[0] / _FULL).clamp(-1, 1)
    flat = torch.zeros_like(field)
    arrows = torch.stack([site + 0.5, flat - 0.46 * n, flat, 0.14 * n * field], -1)
    return Scene(
        view=(0.0, -0.62 * n, float(n), 0.38 * n),
        discs=place.flatten(0, 1).numpy(),
        disc_radius=np.full(2 * n, 0.62),
        disc_value=hue.flatten().numpy(),
        palette="wheel",
        segments=outline.numpy(),
        arrows=arrows[field.abs() > 0.01].numpy(),
        agents=np.tile(np.arange(n), 2),
        caption=caption,
        charts=charts,
        legend=_LEGEND,
    )


def _torus(
    problem: Problem,
    state: SteerState,
    density: Tensor,
    hue: Tensor,
    caption: tuple[str, ...],
    charts: tuple[Chart, ...],
) -> Scene:
    """A disc per site, as large as the density; arrows of the links, averaged."""
    lattice, side = problem.lattice, problem.lattice.shape[0]
    total = density.sum(0)
    larger = density.argmax(0, keepdim=True)
    shown = total > _FAINTEST
    place = lattice.coordinates().double() + 0.5
    radius = 0.5 * total.clamp(max=1).sqrt()
    block = min(_BLOCK, side)
    links = state.link[0].view(2, side, side)
    mean = torch.nn.functional.avg_pool2d(links[None], block)[0].flatten(1).T
    mean = mean / _FULL
    mean = mean / mean.norm(dim=-1, keepdim=True).clamp(min=1)
    cells = torch.arange(side // block) * block + block / 2
    start = torch.stack(torch.meshgrid(cells, cells, indexing="ij"), -1).flatten(0, 1)
    arrows = torch.cat([start, 0.9 * block * mean], -1).double()
    angle = 2 * math.pi * torch.arange(48, dtype=torch.float64) / 48
    rim = 2 * problem.width * torch.stack([angle.cos(), angle.sin()], -1)
    around = state.centre[0].double() + 0.5 + rim
    return Scene(
        view=(0.0, 0.0, float(side), float(side)),
        discs=place[shown].numpy(),
        disc_radius=radius[shown].numpy(),
        disc_value=hue.gather(0, larger)[0][shown].numpy(),
        palette="wheel",
        segments=torch.cat([around, around.roll(-1, 0)], -1).numpy(),
        periodic=True,
        arrows=arrows[mean.norm(dim=-1) > 0.01].numpy(),
        agents=np.flatnonzero(shown.numpy()),
        caption=caption,
        charts=charts,
        legend=_LEGEND_2D,
    )
