"""Klein-Gordon waves whose boundary sites are agents that let them leave.

State      the field at the last two steps, its interior one step further; what it was beside the
           boundary at all steps; the same packets on a lattice without boundary
Dynamics   (phi'' - 2 phi' + phi) / dt^2 = Laplacian phi' - m^2 phi' inside, over three steps; at
           the two boundaries phi is what the agents say
World      `packets` separate lattices, one wave packet each, wave numbers from .2 to 1.2 (on a
           plane at 0 to 75 degrees to the normal); in a plane the boundary is periodic
Invariants eight taps: phi at sites j inwards, l steps before, (j, l) = (1,0) (2,0) (0,1) (1,1)
           (2,1) (0,2) (1,2) (2,2). All change sign with the field, as the action does
Action     the boundary value less that of Mur's law, in units of `reach`
Loss       (phi_N - sum_l G_l phi_{N-1} l steps before)^2: its least value is the open lattice
Reference  G, the exact memory of the half lattice beyond; on a plane one for each wave along the
           boundary. The policy "kernel" has it, and reflects nothing but rounding

`mur` (1981) and `higdon` (1987) are linear laws of three and eight taps, `taps` the eight taps of
least reflection that are stable; `sponge` and `pml` simulate a damping layer beyond the boundary
and keep it in their own memory; under `wall` the boundary stays at rest.

Boundary sites as learning agents are our own choice; the paper on fields from neural networks
(arXiv 2411.08138) has no boundaries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.system import System
from ..core.types import Bound, StatePolicy, Symmetry
from ..core.validation import require_count, require_fields, require_number
from . import boundary, layers, picture

SCENARIOS = {
    "klein-gordon-absorber-v0": {
        "system": "KleinGordonAbsorber",
        "summary": "boundary sites of a field that learn to let waves out",
        "training": {
            "ppo": {"gamma": 0.0},
            # A packet takes some 100 steps to the boundary; the taps see nearly the same.
            "descent": {
                "network": "linear",
                "optimizer": "cgd",
                "metric": "full",
                "cgd_tau2": 99.0,
                "cgd_eps": 1e-12,
                "cgd_refresh": 1,
                "rollout": 400,
                "n_worlds": 1,
                "lr": 0.05,
                "float64": True,
                "steps": 704_000,
            },
        },
        "score": {
            "random": -56.66,
            "best": 0.0,
            "policy": "kernel",
            "exact": True,
            "origin": "500 episodes of random actions; the loss of the open lattice is 0",
            "resolution": 1e-8,  # what the best stable taps leave
        },
        "film": {
            "parameters": {
                "dimensions": 2,
                "length": 64,
                "width": 64,
                "packets": 1,
                "beam": 5.0,
                "steepest": 30.0,
                "horizon": 240,
            },
            "policy": "higdon",
            "steps": 168,
            "every": 4,
            "size": 240,
        },
        "variants": [
            {"length": 16, "packets": 2, "horizon": 30, "mass": 0.5},
            {"dimensions": 2, "length": 12, "width": 5, "packets": 3, "horizon": 20},
        ],
    },
}

SIGMA = 12.0  # of a packet across the boundary, at most a tenth of the length
_WAVES = (0.2, 1.2)  # wave numbers of the packets
_ENDS = 2
_DEEP = 3  # sites beside a boundary that are remembered
_GOLDEN = 0.6180339887498949
_MOST = 2.0  # limit of what agents see, in amplitudes of a packet


class AbsorberState(NamedTuple):
    """Of every packet's lattice, n being the step that is about to be decided at the boundary."""

    phi: Tensor  # [worlds, packets, length, width] step n inside, n - 1 at the boundary
    before: Tensor  # the same at n - 1
    earlier: Tensor  # [worlds, packets, 2, 3, width] beside both boundaries, from them on, at n - 2
    memory: Tensor  # [worlds, packets, 2, horizon, width] waves next to the boundary, by step
    open: Tensor  # [worlds, packets, long, width] the open lattice at n
    open_before: Tensor  # the same at n - 1
    energy: Tensor  # [worlds, packets] at the start
    worst: Tensor  # [worlds, packets] largest energy of the difference from the open lattice
    step: Tensor  # [worlds, 1] int64 steps made


@dataclass(frozen=True)
class KleinGordonAbsorber(System):
    """Parameters with their units.

    dimensions: 1, or 2 for a plane whose boundary is a line of sites.
    length: sites from boundary to boundary.  width: sites along the boundary, on a plane.
    packets: separate lattices of a world, with one wave packet each.
    mass: inverse of a length.  dt: time step; the spacing and the speed of light are 1.
    steepest: largest angle to the normal at which packets run, on a plane, degrees.
    beam: standard deviation of a packet along the boundary, in sites; 0: a plane wave.
    reach: change of the boundary value that an action of 1 makes, in amplitudes of a packet.
    horizon: steps of an episode.
    """

    dimensions: int = 1
    length: int = 120
    width: int = 32
    packets: int = 11
    mass: float = 0.0
    dt: float = 0.5
    steepest: float = 75.0
    beam: float = 0.0
    reach: float = 0.5
    horizon: int = 600

    agent_name: ClassVar[str] = "site"
    networks: ClassVar[tuple[str, ...]] = ("linear",)
    reductions: ClassVar[dict[str, str]] = {"reflected": "last", "reflected_worst": "last"}

    def __post_init__(self) -> None:
        require_count("dimensions", self.dimensions, 1, 2)
        require_count("length", self.length, 8)
        require_count("width", self.width, 2)
        require_count("packets", self.packets)
        require_number("mass", self.mass, 0)
        limit = 2 / math.sqrt(self.mass**2 + 4 * self.dimensions)
        require_number("dt", self.dt, 0, strict=True)
        if self.dt >= limit:
            raise ValueError(f"dt={self.dt} must be below {limit:.4g}, where the waves blow up")
        require_number("steepest", self.steepest, 0, 85)
        require_number("beam", self.beam, 0)
        require_number("reach", self.reach, 0, strict=True)
        require_count("horizon", self.horizon)

    @property
    def sites(self) -> int:
        """Of one boundary."""
        return self.width if self.dimensions == 2 else 1

    @property
    def n_agents(self) -> int:
        return self.packets * _ENDS * self.sites

    @property
    def bounds(self) -> dict[str, Bound]:
        return {"taps": Bound(-_MOST, _MOST, len(boundary.TAPS))}

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))

    @property
    def pad(self) -> int:
        """Sites beyond each boundary of the open lattice: none comes back from its end in time."""
        return self.horizon // 2 + 2

    def world_bytes(self) -> int:
        lattices = 4 * self.length + 4 * self.pad + 2 * self.horizon
        return 8 * self.packets * self.sites * lattices

    @cached_property
    def kernel_memory(self) -> Tensor:
        """G [horizon, modes], the delay of one step first."""
        squared = self.mass**2 + boundary.along(self.sites)[1]
        return torch.from_numpy(boundary.exact_memory(squared, self.dt, self.horizon))

    @cached_property
    def modes(self) -> Tensor:
        """Waves along the boundary, an orthogonal matrix [modes, sites]."""
        return torch.from_numpy(boundary.along(self.sites)[0])

    def initial(self, rng: Rng, worlds: int) -> AbsorberState:
        """Packets in the middle that run to one side or the other, with any phase."""
        phase = 2 * math.pi * rng.uniform(worlds, self.packets)
        side = 2 * (rng.uniform(worlds, self.packets) < 0.5).double() - 1
        first, second = (self._packets(phase, side, step) for step in (-1, 0))
        memory = self._waves_beside(first, 1).unsqueeze(3)
        memory = 0 * memory.expand(-1, -1, -1, self.horizon, -1)
        wide = torch.nn.functional.pad
        beyond = (0, 0, self.pad, self.pad)
        opened, open_before = wide(second, beyond), wide(first, beyond)
        inside = self._next(second, first)
        energy = self._energy(second, first)
        begun = AbsorberState(
            phi=inside,
            before=second,
            earlier=self._beside(first),
            memory=memory,
            open=self._next(opened, open_before, open_ends=True),
            open_before=opened,
            energy=energy,
            worst=torch.zeros_like(energy),
            step=torch.zeros(worlds, 1, dtype=torch.int64, device=phase.device),
        )
        return self._remembering(begun)

    def require_state(self, state: AbsorberState) -> None:
        require_fields(state, ("step",), 0)

    def transition(self, state: AbsorberState, action: Tensor, rng: Rng) -> AbsorberState:
        """`action` [worlds, agents, 1]: what is added to the value of Mur's law, over `reach`."""
        value = self.by_packet(self._values(state, action))
        now = state.phi.clone()
        now[:, :, 0], now[:, :, -1] = value[:, :, 0], value[:, :, 1]
        inside = slice(self.pad, self.pad + self.length)
        off = now - state.open[:, :, inside]
        off_before = state.before - state.open_before[:, :, inside]
        share = self._energy(off, off_before) / state.energy
        after = AbsorberState(
            phi=self._next(now, state.before),
            before=now,
            earlier=self._beside(state.before),
            memory=state.memory,
            open=self._next(state.open, state.open_before, open_ends=True),
            open_before=state.open,
            energy=state.energy,
            worst=torch.maximum(state.worst, share),
            step=state.step + 1,
        )
        return self._remembering(after)

    def invariants(self, state: AbsorberState) -> dict[str, Tensor]:
        """Eight taps."""
        return {"taps": self.taps(state)}

    def loss(self, state: AbsorberState, action: Tensor, next_state: AbsorberState) -> Tensor:
        return (self._values(state, action) - self.open_values(state)) ** 2

    def metrics(
        self, state: AbsorberState, action: Tensor, next_state: AbsorberState
    ) -> dict[str, Tensor]:
        """reflected: largest energy so far of the field less the open lattice's, over the packet's.

        That is its mean over the packets; reflected_worst is that of the worst packet.
        """
        worst = next_state.worst
        return {"reflected": worst.mean(-1), "reflected_worst": worst.amax(-1)}

    def symmetries(self, state: AbsorberState, rng: Rng) -> Iterator[Symmetry]:
        fields = ("phi", "before", "earlier", "memory", "open", "open_before")
        flipped = state._replace(**{name: -getattr(state, name) for name in fields})
        yield Symmetry("sign", flipped, signs={"taps": -1.0, "action": -1.0})
        worlds = len(state.phi)
        number = torch.arange(self.n_agents, device=state.phi.device).expand(worlds, -1)
        agents = self.by_packet(number)
        ends = {name: getattr(state, name).flip(2) for name in fields}
        yield Symmetry("reflection", state._replace(**ends), agents.flip(2).flatten(1))
        if self.sites > 1:
            turned = {name: getattr(state, name).roll(1, -1) for name in fields if name != "memory"}
            real = state.memory @ self.modes.to(state.memory)
            turned["memory"] = real.roll(1, -1) @ self.modes.T.to(state.memory)
            moved = agents.roll(1, -1).flatten(1)
            yield Symmetry("translation", state._replace(**turned), moved)

    def scene(self, state: AbsorberState) -> Scene:
        """The first packet: its field, and the open lattice around it, boundaries marked."""
        n, made = self.length, int(state.step[0, 0])
        shown = min(self.pad, n // 2)
        inside = state.before[0, 0].double()
        around = state.open_before[0, 0, self.pad - shown : self.pad + n + shown]
        caption = (
            f"mass {self.mass:g}, time {made * self.dt:.1f}",
            f"reflected so far {float(state.worst[0, 0]):.1e}",
        )
        return picture.beside_open(inside.numpy(), around.numpy(), shown, caption)

    def state_policies(self) -> dict[str, StatePolicy]:
        linear = {
            "mur": boundary.mur(self.dt),
            "higdon": boundary.higdon(boundary.speeds_of(self.mass, self.sites > 1), self.dt),
        }
        by_taps = {
            name: StatePolicy(partial(_by_taps, self, torch.from_numpy(taps)))
            for name, taps in linear.items()
        }
        best: Callable[..., Any] = partial(_by_best_taps, self)
        damped = {
            name: StatePolicy(partial(_by_layer, self, layer), partial(layer.start, self.packets))
            for name, layer in self.damping_layers().items()
        }
        exact = {"kernel": StatePolicy(partial(_by_memory, self)), "taps": StatePolicy(best)}
        return {**exact, **by_taps, **damped, "wall": StatePolicy(partial(_at_rest, self))}

    def damping_layers(self) -> dict[str, layers.Layer]:
        """What the policies of that name simulate beyond the boundary."""
        squared = self.mass**2
        return {
            "sponge": layers.sponge(squared, self.dt, self.sites),
            "pml": layers.matched(squared, self.dt, self.sites),
        }

    def references(self) -> dict[str, float]:
        """Of the policy "kernel"."""
        return {"reflected": 0.0, "reflected_worst": 0.0, "loss": 0.0}

    def kernel(self, worlds: int) -> Kernel:
        from .absorber_step import PARAMETERS, Memory, Scratch, observe, step

        parameters = parameter_record(
            PARAMETERS,
            squared_mass=self.mass**2,
            squared_step=self.dt**2,
            dt=self.dt,
            reach=self.reach,
            mur=(self.dt - 1) / (self.dt + 1),
            pad=self.pad,
            most=_MOST,
        )
        tables = Memory(self.kernel_memory.contiguous().numpy(), self.modes.contiguous().numpy())
        long = self.length + 2 * self.pad
        return Kernel(
            step,
            observe,
            parameters,
            tables=tables,
            bounded=False,
            scratch=Scratch(np.empty((long, self.sites)), np.empty(self.sites)),
        )

    # What agents see and say

    def by_packet(self, value: Tensor) -> Tensor:
        """Values of agents [worlds, agents] as [worlds, packets, 2, sites]."""
        return value.unflatten(1, (self.packets, _ENDS, self.sites))

    def taps(self, state: AbsorberState) -> Tensor:
        """[worlds, agents, 8]."""
        levels = (self._beside(state.phi), self._beside(state.before), state.earlier)
        values = [levels[step][:, :, :, sites] for sites, step in boundary.TAPS]
        return torch.stack(values, -1).flatten(1, 3)

    def mur_values(self, state: AbsorberState) -> Tensor:
        """Boundary values of Mur's law [worlds, agents]."""
        now, before = self._beside(state.phi), self._beside(state.before)
        r = (self.dt - 1) / (self.dt + 1)
        return (before[:, :, :, 1] + r * (now[:, :, :, 1] - before[:, :, :, 0])).flatten(1)

    def open_values(self, state: AbsorberState) -> Tensor:
        """Boundary values through which everything leaves [worlds, agents]."""
        delay = torch.arange(self.horizon, device=state.step.device)
        slot = (state.step - delay) % self.horizon  # G's first belongs to the latest step
        kept = slot[:, None, None, :, None].expand(*state.memory.shape)
        latest = state.memory.gather(3, kept)
        waves = (latest * self.kernel_memory.to(latest)).sum(3)
        return (waves @ self.modes.to(latest)).flatten(1)

    def _values(self, state: AbsorberState, action: Tensor) -> Tensor:
        return self.mur_values(state) + self.reach * action[..., 0]

    # The lattice

    def _next(self, now: Tensor, before: Tensor, open_ends: bool = False) -> Tensor:
        """The field [..., length, sites] a step later; its ends stay, or see 0 beyond."""
        around = torch.nn.functional.pad(now, (0, 0, 1, 1))
        total = around[..., :-2, :] + around[..., 2:, :] - 2 * now
        if self.sites > 1:
            total = total + now.roll(1, -1) + now.roll(-1, -1) - 2 * now
        after = 2 * now - before + self.dt**2 * (total - self.mass**2 * now)
        if not open_ends:
            after[..., 0, :], after[..., -1, :] = now[..., 0, :], now[..., -1, :]
        return after

    def _energy(self, now: Tensor, before: Tensor) -> Tensor:
        """What leapfrog conserves between two steps [worlds, packets]."""
        total = (((now - before) / self.dt) ** 2 + self.mass**2 * now * before).sum((-1, -2))
        total = total + (now.diff(dim=-2) * before.diff(dim=-2)).sum((-1, -2))
        if self.sites > 1:
            beside = (now.roll(-1, -1) - now) * (before.roll(-1, -1) - before)
            total = total + beside.sum((-1, -2))
        return 0.5 * total

    def _beside(self, field: Tensor) -> Tensor:
        """[worlds, packets, 2, 3, sites] the sites of both boundaries, and two inwards."""
        return torch.stack([field[:, :, :_DEEP], field[:, :, -_DEEP:].flip(2)], 2)

    def _waves_beside(self, field: Tensor, sites: int) -> Tensor:
        """[worlds, packets, 2, modes] so many sites inwards of both boundaries."""
        return self._beside(field)[:, :, :, sites] @ self.modes.T.to(field)

    def _remembering(self, state: AbsorberState) -> AbsorberState:
        """The state with what is known of the last complete step beside the boundary."""
        slot = (state.step % self.horizon)[:, None, None, :, None]
        value = self._waves_beside(state.before, 1).unsqueeze(3)
        memory = state.memory.scatter(3, slot.expand_as(value), value)
        return state._replace(memory=memory)

    def _packets(self, phase: Tensor, side: Tensor, step: int) -> Tensor:
        """Packets [worlds, packets, length, sites] at a step, which run to their side."""
        n, device = self.length, phase.device
        number = torch.arange(self.packets, dtype=torch.float64, device=device)
        share = number / max(self.packets - 1, 1) if self.packets > 1 else number + 0.3
        k = _WAVES[0] + (_WAVES[1] - _WAVES[0]) * share
        turns = torch.zeros_like(k)
        if self.sites > 1:
            angle = math.radians(self.steepest) * ((number * _GOLDEN) % 1)
            angle = angle if self.packets > 1 else angle + math.radians(self.steepest)
            turns = (k * angle.sin() * self.sites / (2 * math.pi)).round()
            k = k * angle.cos()
        q = 2 * math.pi * turns / self.sites
        squared = self.mass**2 + 2 - 2 * q.cos() + (2 * (k / 2).sin()) ** 2
        w = 2 * (self.dt / 2 * squared.sqrt()).asin() / self.dt
        sigma = min(SIGMA, n / 10)
        place = torch.arange(n, dtype=torch.float64, device=device) - (n - 1) / 2
        along = torch.arange(self.sites, dtype=torch.float64, device=device)
        time = (step - 1) * self.dt
        moved = self._group_velocity(k, w) * time * side
        bell = torch.exp(-((place - moved[..., None]) ** 2) / (2 * sigma**2))
        beam = torch.ones(self.sites, dtype=torch.float64, device=device)
        if self.beam > 0 and self.sites > 1:
            off = along - self.sites / 2
            beam = torch.exp(-(off**2) / (2 * self.beam**2))
        turned = k[:, None] * place * side[..., None] - (w * time)[:, None] + phase[..., None]
        wave = torch.cos(turned[..., None] + q[:, None, None] * along)
        value = bell[..., None] * beam * wave
        value[:, :, 0], value[:, :, -1] = 0.0, 0.0
        return value

    def _group_velocity(self, k: Tensor, w: Tensor) -> Tensor:
        """Of waves of the lattice across the boundary."""
        return k.sin() * self.dt / (w * self.dt).sin()


def _acting(system: KleinGordonAbsorber, state: AbsorberState, value: Tensor) -> Tensor:
    """The action that makes the boundary have these values [worlds, agents]."""
    return ((value - system.mur_values(state)) / system.reach).unsqueeze(-1)


def _by_memory(
    system: KleinGordonAbsorber, state: AbsorberState, memory: Any, rng: Rng
) -> tuple[Tensor, Any]:
    """The exact law of the open lattice, from everything that was beside the boundary."""
    return _acting(system, state, system.open_values(state)), memory


def _by_taps(
    system: KleinGordonAbsorber, taps: Tensor, state: AbsorberState, memory: Any, rng: Rng
) -> tuple[Tensor, Any]:
    """A linear law of eight taps."""
    return _acting(system, state, system.taps(state) @ taps), memory


def _by_best_taps(
    system: KleinGordonAbsorber, state: AbsorberState, memory: Any, rng: Rng
) -> tuple[Tensor, Any]:
    """The stable law of eight taps that reflects least."""
    taps = boundary.best_taps(system.mass, system.dt, system.sites > 1)
    return _by_taps(system, torch.tensor(taps, dtype=torch.float64), state, memory, rng)


def _by_layer(
    system: KleinGordonAbsorber,
    layer: layers.Layer,
    state: AbsorberState,
    memory: Any,
    rng: Rng,
) -> tuple[Tensor, Any]:
    """The lattice goes on beyond the boundary, through a layer that damps."""
    now, before = system._beside(state.before), state.earlier
    value, memory = layer.step(now[:, :, :, 0], before[:, :, :, 0], now[:, :, :, 1], memory)
    return _acting(system, state, value.flatten(1)), memory


def _at_rest(
    system: KleinGordonAbsorber, state: AbsorberState, memory: Any, rng: Rng
) -> tuple[Tensor, Any]:
    """A wall: everything comes back."""
    value = torch.zeros(len(state.phi), system.n_agents, dtype=torch.float64)
    return _acting(system, state, value), memory
