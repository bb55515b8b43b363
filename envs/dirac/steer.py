"""Links steer a packet of a Dirac field by the gauge field that they carry.

State      the field (u, d) on the sites of a ring or a torus, the gauge field A_l of every link
Dynamics   A_l += max_field a_l, then a step of the quantum walk (`walk.py`)
Agents     the links; all see gauge invariants of the field at their ends, and the target
Loss       shared: infidelity 1 - |<target|psi>|^2 after the last step, effort <a^2> / horizon at
           every step
Tasks      from wave number .5 at first: "stop" it, 20 sites on; "turn" it back, 10 sites on;
           "carry" it on, 36 sites, 4 less than it would drift; "random" ones of this kind
Reference  optimal control by the exact gradient (GRAPE), a local optimum

The target is a packet as an observer at its centre sees it: the field is taken into that gauge
along lines of links (`gauge_lines`). A walk on a lattice with local U(1) phases stands in the
literature; agents on links, tasks, what is seen, and effort are our choice. In two dimensions a
packet also drifts across, as the product of sines in the dispersion has it; targets allow for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.physics.lattice import Torus
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.system import System
from ..core.types import Bound, StatePolicy, Symmetry
from ..core.validation import require_choice, require_count, require_fields, require_number
from .picture import packet_scene
from .state import Problem, SteerState, as_spinor, target_overlap, translated
from .walk import Spinor, flux, gauge_transformed, mixed, packets, velocity, walk_step

SCENARIOS = {
    "dirac-steer-v0": {
        "system": "DiracSteer",
        "summary": "links whose gauge field stops, turns or carries a packet of a Dirac field",
        "training": {
            # The return is about -1 and hardly varies at first: the errors of a critic are
            # larger. Without one, the mean of a batch is the baseline, and what the untrained
            # critic says is nothing beside rewards of 1000.
            "ppo": {
                "gamma": 1.0,
                "gae_lambda": 1.0,
                "n_steps": 48,
                "vf_coef": 0.0,
                "reward_scale": 1000.0,
                "lr": 3e-3,
            },
            "a2c": {
                "steps": 20_000_000,
                "gamma": 1.0,
                "gae_lambda": 1.0,
                "n_steps": 48,
                "n_worlds": 8,
                "vf_coef": 0.0,
                "reward_scale": 1000.0,
                "lr": 3e-3,
                "normalize_advantage": True,
            },
            "descent": {"steps": 15_000_000, "rollout": 48},  # losses come with the last step
        },
        "score": {
            "random": -0.987,
            "best": -0.00126,
            "policy": "es",
            "origin": "random: docs/scores.md; best: two runs of docs/results/benchmark.json",
        },
        "film": {"parameters": {"task": "turn"}, "policy": "grape"},
        "variants": [
            {"side": 12, "width": 1.5, "task": "random", "horizon": 5},
            {"dimensions": 2, "side": 8, "width": 1.0, "task": "random", "horizon": 5},
        ],
    },
}

TASKS = {"stop": (0.0, 20), "turn": (-0.5, 10), "carry": (0.5, 36)}  # wave number, sites on
SIDES = (96, 64)  # sites of a side in one and in two dimensions
_PLANS = ("none", "constant", "uniform", "grape")  # policies on the state
_START = 0.5  # wave number of the first axis
_FASTEST = 0.6  # wave number of a random task
_STRAY = 10.0  # sites by which its target differs from what a constant force leads to
_DENSEST = 2.0  # density that is told from larger ones, over the packet's peak
_URGENT = 2.0  # the same of what remains to be done per step
_UNIT = 1e-6  # by which the norm of a given state may differ from 1
_FAINT = 1e-3  # density below which what is seen per density fades, over the packet's peak


@dataclass(frozen=True)
class DiracSteer(System):
    """Parameters with their units.

    dimensions: 1, a ring, or 2, a torus.  task: "stop", "turn", "carry" or "random".
    side: sites of a ring, or of a side of a torus, even; 0: 96, or 64 in two dimensions.
    horizon: steps to the target.
    angle: of the coin, which is the mass.  width: standard deviation of a packet's density, sites.
    max_field: what an action of 1 adds to a link, radians.
    effort: price of <a^2> = 1 in all steps, in units of infidelity.
    """

    dimensions: int = 1
    task: str = "stop"
    side: int = 0
    horizon: int = 48
    angle: float = 0.3
    width: float = 6.0
    max_field: float = 0.1
    effort: float = 0.01

    agent_name: ClassVar[str] = "link"
    reductions: ClassVar[dict[str, str]] = {"fidelity": "last", "norm_error": "max"}
    fused: ClassVar[tuple[str, ...]] = _PLANS

    def __post_init__(self) -> None:
        require_count("dimensions", self.dimensions, 1, 2)
        require_choice("task", self.task, [*TASKS, "random"])
        require_count("side", self.side, 0)
        if self.side % 2 or self.side == 2:
            raise ValueError(f"side={self.side} must be 0 or even, from 4 on")
        require_count("horizon", self.horizon)
        require_number("angle", self.angle, 0, math.pi / 2, strict=True)
        if self.dimensions == 2 and self.angle == math.pi / 2:
            raise ValueError(f"angle={self.angle} must be below pi / 2 in two dimensions")
        require_number("width", self.width, 0.5)
        require_number("max_field", self.max_field, 0, math.pi, strict=True)
        require_number("effort", self.effort, 0)

    @cached_property
    def lattice(self) -> Torus:
        return Torus((self.side or SIDES[self.dimensions - 1],) * self.dimensions)

    @property
    def n_agents(self) -> int:
        return self.dimensions * self.lattice.n_sites

    @cached_property
    def problem(self) -> Problem:
        """What control and pictures know of this system."""
        return Problem(
            self.lattice, self.horizon, self.angle, self.width, self.max_field, self.effort
        )

    @property
    def bounds(self) -> dict[str, Bound]:
        half = self.lattice.shape[0] / 2
        names = ("slope", "current", "coherence", "mismatch", "overlap", "twist")
        one = Bound(-1.0, 1.0)
        bounds = {"density": Bound(0.0, _DENSEST), **dict.fromkeys(names, one)}
        bounds |= {
            "offset": Bound(-half, half),
            "target_wave_number": one,
            "time_left": Bound(0.0, 1.0),
            "pull": Bound(-_URGENT, _URGENT),
            "pace": Bound(-_URGENT, _URGENT),
        }
        if self.dimensions == 2:
            bounds |= {
                "offset_across": Bound(-half, half),
                "target_wave_number_across": one,
                "flux_ahead": one,
                "flux_behind": one,
            }
        return bounds

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (1,))

    def world_bytes(self) -> int:
        """Field and target of every site, and its links."""
        return (64 + 8 * self.dimensions) * self.lattice.n_sites

    def initial(self, rng: Rng, worlds: int) -> SteerState:
        """Packets of the positive branch on links without field, and what they are to become.

        They start anywhere.
        """
        device = rng.world.device
        draws = 2 * rng.uniform(worlds, 3 * self.dimensions).cpu().numpy() - 1
        fields, centre, wave_number = self._tasks(draws if self.task == "random" else draws[:1])
        u, d, target_u, target_d = (
            torch.view_as_real(torch.from_numpy(field)).expand(worlds, -1, -1).to(device)
            for field in np.moveaxis(fields, 1, 0)
        )
        state = SteerState(
            u,
            d,
            torch.zeros(worlds, self.n_agents, dtype=torch.float64, device=device),
            target_u,
            target_d,
            torch.from_numpy(centre).expand(worlds, -1).to(device),
            torch.from_numpy(wave_number).expand(worlds, -1).to(device).clone(),
            torch.zeros(worlds, 1, dtype=torch.int64, device=device),
        )
        steps = (self.lattice.shape[0] * rng.uniform(worlds, self.dimensions)).long()
        return translated(self.lattice, state, steps)[0]

    def _tasks(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each task the fields [tasks, 4, sites], the target's centre and its wave number.

        The fields are u, d and those of the target.
        draws [tasks, 3 * dimensions]: numbers in [-1, 1], of which random tasks are made.
        """
        tasks, dimensions, side = len(draws), self.dimensions, self.lattice.shape[0]
        start, end, stray = np.zeros((3, tasks, dimensions))
        if self.task == "random":
            start, end, stray = draws.reshape(tasks, 3, dimensions).transpose(1, 0, 2)
            start, end, stray = _FASTEST * start, _FASTEST * end, _STRAY * stray
        else:
            start[:, 0], end[:, 0] = _START, TASKS[self.task][0]
        ramp = start + np.linspace(0, 1, 101)[:, None, None] * (end - start)
        on = self.horizon * velocity(ramp, self.angle).mean(0) + stray
        if self.task != "random":
            on[:, 0] = TASKS[self.task][1]
        first = np.full((tasks, dimensions), side // 4)
        centre = np.rint(first + on).astype(np.int64) % side
        fields = [
            packets(self.lattice, self.angle, self.width, place, k)
            for place, k in ((first, start), (centre, end))
        ]
        return np.concatenate(fields, 1), centre, end

    def require_state(self, state: SteerState) -> None:
        require_fields(state, ("time",), 0)
        require_fields(state, ("centre",), 0, self.lattice.shape[0] - 1)
        for of in ("", "target_"):
            u, d = getattr(state, f"{of}u"), getattr(state, f"{of}d")
            norm = (u**2 + d**2).sum((1, 2))
            if ((norm - 1).abs() > _UNIT).any():
                shown = f"{norm[(norm - 1).abs() > _UNIT][0].item():g}"
                raise ValueError(f"state fields '{of}u' and '{of}d' have the norm {shown}, not 1")

    def transition(self, state: SteerState, action: Tensor, rng: Rng) -> SteerState:
        """`action` [worlds, links, 1]: what to add to the gauge field, in units of `max_field`."""
        link = state.link + self.max_field * action[..., 0]
        psi = walk_step(self.lattice, as_spinor(state), link, self.angle)
        return state._replace(
            u=torch.view_as_real(psi.u),
            d=torch.view_as_real(psi.d),
            link=link,
            time=state.time + 1,
        )

    def invariants(self, state: SteerState) -> dict[str, Tensor]:
        """What every link sees of the field at its ends i and j, and of the target.

        p moves ahead along the link, m back: u and d, on the second axis their sum and difference
        over the root of 2. rho is the mean density of the ends; means and halves are over both.

        density: rho over the peak of a packet.  Those up to twist are per rho:
        slope: half of what the density rises.  current: mean |p|^2 - |m|^2.
        coherence, mismatch: real and imaginary part of (p_i* p_j + m_i* m_j) exp(-i A - i k), k the
            target's wave number: a wave that has it shows none of the latter.
        overlap, twist: real and imaginary part of twice the mean of p* m.
        pull: mismatch per step left, in units of `max_field`.  pace: offset per step left.
        offset: sites along the link from the target's centre to its middle; offset_across: the
            same across.  flux_ahead, flux_behind: sine of the flux through the plaquettes beside.
        """
        lattice, psi = self.lattice, as_spinor(state)
        by_axis = [
            self._seen(state, Spinor(psi.u, psi.d) if axis == 0 else mixed(psi), axis)
            for axis in range(lattice.dimension)
        ]
        return {name: torch.cat([seen[name] for seen in by_axis], 1) for name in by_axis[0]}

    def _seen(self, state: SteerState, psi: Spinor, axis: int) -> dict[str, Tensor]:
        lattice = self.lattice
        p, m = psi
        p_on, m_on = lattice.ahead(p, axis), lattice.ahead(m, axis)
        ahead, back = squared(p), squared(m)
        ahead_on, back_on = lattice.ahead(ahead, axis), lattice.ahead(back, axis)
        here, there = ahead + back, ahead_on + back_on
        density = 0.5 * (here + there)
        per = 1 / (density + _FAINT / self.problem.peak_volume)
        link = state.link.chunk(lattice.dimension, 1)[axis] + state.wave_number[:, axis, None]
        hop = (p.conj() * p_on + m.conj() * m_on) * torch.polar(torch.ones_like(link), -link)
        coin = p.conj() * m
        coin = coin + lattice.ahead(coin, axis)
        away = self._away(state, axis)
        left = (self.horizon - state.time).clamp(min=1).to(density)
        seen = {
            "density": (self.problem.peak_volume * density).clamp(max=_DENSEST),
            "slope": 0.5 * (there - here) * per,
            "current": 0.5 * (ahead - back + ahead_on - back_on) * per,
            "coherence": hop.real * per,
            "mismatch": hop.imag * per,
            "overlap": coin.real * per,
            "twist": coin.imag * per,
            "offset": away + 0.5,
            "target_wave_number": state.wave_number[:, axis, None].expand_as(density),
            "time_left": (1 - state.time.to(density) / self.horizon).expand_as(density),
            "pull": (hop.imag * per / (left * self.max_field)).clamp(-_URGENT, _URGENT),
            "pace": ((away + 0.5) / left).clamp(-_URGENT, _URGENT),
        }
        if lattice.dimension == 2:
            curl = flux(lattice, state.link).sin()
            seen |= {
                "offset_across": self._away(state, 1 - axis).to(density),
                "target_wave_number_across": state.wave_number[:, 1 - axis, None].expand_as(
                    density
                ),
                "flux_ahead": curl,
                "flux_behind": lattice.ahead(curl, 1 - axis, -1),
            }
        return seen

    def _away(self, state: SteerState, axis: int) -> Tensor:
        """Sites from the target's centre to every site along an axis [worlds, sites] int64."""
        side = self.lattice.shape[axis]
        site = self.lattice.coordinates(state.link.device)[:, axis]
        return (site - state.centre[:, axis, None] + side // 2) % side - side // 2

    def loss(self, state: SteerState, action: Tensor, next_state: SteerState) -> Tensor:
        effort = self.effort / self.horizon * (action[..., 0] ** 2).mean(-1, keepdim=True)
        last = (next_state.time == self.horizon).to(effort)
        shared = effort + last * (1 - self.fidelity(next_state)[:, None])
        return shared.expand(-1, self.n_agents)

    def metrics(
        self, state: SteerState, action: Tensor, next_state: SteerState
    ) -> dict[str, Tensor]:
        """fidelity: |<target|psi>|^2.  norm_error: by how much the norm of psi is not 1."""
        norm = (next_state.u**2 + next_state.d**2).sum((1, 2))
        return {"fidelity": self.fidelity(next_state), "norm_error": (norm - 1).abs()}

    def fidelity(self, state: SteerState) -> Tensor:
        """|<target|psi>|^2 [worlds] in the gauge of whoever stands at the target's centre."""
        overlap = target_overlap(self.lattice, *state[:6])
        return overlap.real**2 + overlap.imag**2

    def symmetries(self, state: SteerState, rng: Rng) -> Iterator[Symmetry]:
        lattice, worlds = self.lattice, len(state.u)
        chi = 2 * math.pi * rng.uniform(worlds, lattice.n_sites)
        psi, link = gauge_transformed(lattice, as_spinor(state), state.link, chi)
        u, d = torch.view_as_real(psi.u), torch.view_as_real(psi.d)
        yield Symmetry("gauge", state._replace(u=u, d=d, link=link))
        side = lattice.shape[0]
        steps = (side * rng.uniform(worlds, lattice.dimension)).long()
        yield Symmetry("translation", *translated(lattice, state, steps))
        if lattice.dimension == 1:
            yield self._mirrored(state)

    def _mirrored(self, state: SteerState) -> Symmetry:
        """What moved ahead moves back, on links that lead the other way."""
        side = self.lattice.n_sites
        place = torch.arange(side, device=state.link.device)
        site = (side - 1 - place).expand(len(state.u), -1)
        agents = ((side - 2 - place) % side).expand(len(state.u), -1)

        def turned(field: Tensor) -> Tensor:
            return field.flip(1)

        mirrored = state._replace(
            u=turned(state.d),
            d=turned(state.u),
            link=-state.link.gather(1, agents),
            target_u=turned(state.target_d),
            target_d=turned(state.target_u),
            centre=site[:, :1] - state.centre,
            wave_number=-state.wave_number,
        )
        seen = ("slope", "current", "mismatch", "twist", "pull", "offset", "pace")
        odd = (*seen, "target_wave_number", "action")
        return Symmetry("reflection", mirrored, agents, dict.fromkeys(odd, -1.0))

    def state_policies(self) -> dict[str, StatePolicy]:
        """Fields that are found when an episode begins, for all of its steps, and remembered."""
        return {name: StatePolicy(self._recall, partial(self._plan, name)) for name in _PLANS}

    def _plan(self, policy: str, state: SteerState) -> tuple[Tensor]:
        """Actions of every step [worlds, horizon, links], none where they are all 0."""
        if policy == "none":
            return (state.link.new_zeros(len(state.u), 0, self.n_agents),)
        from .control import plan

        return (torch.from_numpy(plan(self.problem, state, policy)).to(state.u.device),)

    def _recall(
        self, state: SteerState, memory: tuple[Tensor], rng: Rng
    ) -> tuple[Tensor, tuple[Tensor]]:
        """The actions of the present step."""
        (actions,) = memory
        if actions.shape[1] == 0:
            return torch.zeros_like(state.link).unsqueeze(-1), memory
        now = state.time.clamp(max=self.horizon - 1).unsqueeze(-1)
        chosen = actions.gather(1, now.expand(-1, 1, actions.shape[2]))
        return chosen.transpose(1, 2), memory

    def rollout(
        self, state: SteerState, policy: str, steps: int, rng: Rng, every: int
    ) -> tuple[SteerState, dict[str, Tensor]]:
        """Fused, under a field that is found first; the loss is a mean over steps."""
        from ..core.kernels.rollouts import rollout_arrays, rollout_plan
        from .control import plan
        from .step import SteerArrays, make_scratch, run_rollout

        after, arrays = rollout_arrays(state, SteerArrays)
        record = rollout_plan(steps, every, rng, 3)
        control = self.max_field * plan(self.problem, state, policy)
        scratch = make_scratch(self.n_agents, *self.problem.rows_and_columns)
        run_rollout(arrays, record, control, self.parameter_record(), scratch)
        loss, fidelity, norm_error = torch.from_numpy(record.records).unbind(-1)
        return after, {"loss": loss, "fidelity": fidelity, "norm_error": norm_error}

    def kernel(self, worlds: int) -> Kernel:
        from .step import make_kernel

        return make_kernel(self.parameter_record(), self.n_agents)

    def parameter_record(self) -> np.ndarray:
        """What compiled code knows of this system."""
        from .step import PARAMETERS

        rows, columns = self.problem.rows_and_columns
        return parameter_record(
            PARAMETERS,
            rows=rows,
            columns=columns,
            cosine=math.cos(self.angle),
            sine=math.sin(self.angle),
            field=self.max_field,
            effort=self.effort,
            scale=self.problem.peak_volume,
            faint=_FAINT / self.problem.peak_volume,
            densest=_DENSEST,
            urgent=_URGENT,
            horizon=self.horizon,
        )

    def scene(self, state: SteerState) -> Scene:
        """The packet, its phase as colour, the gauge field of the links, and the target."""
        return packet_scene(self.problem, state, self.task)


def squared(field: Tensor) -> Tensor:
    """|field|^2, with a gradient where it is 0."""
    return field.real**2 + field.imag**2
