"""Inferred losses as a system: the atoms of a model file as agents, in every interface.

State      positions x_i and velocities v_i of the model's atoms in their periodic cell
Dynamics   m_i a_i = (1 + s_i) F_i + 20 u_i m_i v_i / ps by velocity Verlet, where F_i comes from
           the model's losses; without action it conserves energy
Invariants species, radial sums over neighbours by species, own loss, kinetic energy, |F_i|, v_i.F_i
Action     s_i and u_i: scalars times vectors that the agent has, so they turn with the world
Loss       the agent's own inferred loss, in eV

It has no id of its own, for it is nothing without a model: `register` gives it one. Lengths in
Angstrom, forces in eV/Angstrom, times in fs, masses in amu, temperatures in K. What an agent sees
and does is ours; where losses come from is told in `envs/molecules/linear.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core import renamed
from ..core.kernels.compiling import compiled
from ..core.physics.cell import copies_for, inverse, nearest_image_array, replicate
from ..core.physics.kernels.descriptors import bump_root
from ..core.physics.kernels.images import vector_between
from ..core.physics.plane import dot
from ..core.physics.units import ACCELERATION, ATOMIC_WEIGHTS, BOLTZMANN, KINETIC
from ..core.rng import Rng
from ..core.scene import Scene
from ..core.system import System
from ..core.types import Bound, Range, Symmetry
from ..core.validation import require_count, require_number, require_range
from .files import NetModel, Sample, load_model
from .forces import Forces, bonds_of, cutoff_of, make_forces
from .linear import LossModel, species_index

_BUMPS = 8  # radial functions by species
_PUSH = 0.02  # 1/fs along the own velocity
_LARGE = 1e4  # eV, and eV/Angstrom: what observations end at


class LossState(NamedTuple):
    """Atoms in motion; forces and losses are those of the positions."""

    position: Tensor  # [worlds, agents, 3]
    velocity: Tensor  # [worlds, agents, 3]
    force: Tensor  # [worlds, agents, 3]
    per_atom_energy: Tensor  # [worlds, agents] own losses, eV
    cell: Tensor  # [worlds, 3, 3] rows are the lattice vectors
    kt: Tensor  # [worlds, 1] eV, of the start


@dataclass(frozen=True)
class LossSystem(System):
    """Parameters with their units.

    model: a model file with a frame to start from, or the name of a model that ships.
    horizon: steps of an episode.  dt: time step, fs.  temperature: K, of the start.
    """

    model: str = "water-angular"
    horizon: int = 100
    dt: float = 0.5
    temperature: Range = 330.0

    agent_name: ClassVar[str] = "atom"
    differentiable: ClassVar[bool] = False  # forces are compiled
    reductions: ClassVar[dict[str, str]] = {
        "energy": "last",
        "temperature": "last",
    }

    def __post_init__(self) -> None:
        require_count("horizon", self.horizon)
        require_number("dt", self.dt, 0, 5, strict=True)
        require_range("temperature", self.temperature, 0, strict=True)
        start(self.model)

    @property
    def n_agents(self) -> int:
        """Atoms of the frame that the model starts from."""
        return len(start(self.model).numbers)

    @property
    def bounds(self) -> dict[str, Bound]:
        species = len(species_of(self.model))
        large = math.asinh(_LARGE)
        return {
            "species": Bound(0, 1, species),
            "radial": Bound(0, math.log1p(self.n_agents), species * _BUMPS),
            "own": Bound(-large, large),
            "kinetic": Bound(0, 6),
            "pull": Bound(0, large),
            "climb": Bound(-large, large),
        }

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

    def initial(self, rng: Rng, worlds: int) -> LossState:
        """The frame of the model, with velocities of the temperature and no momentum."""
        sample = start(self.model)
        kt = BOLTZMANN * rng.draw(self.temperature, worlds)
        device = kt.device
        x = torch.from_numpy(sample.position).to(device).expand(worlds, -1, -1).clone()
        cell = torch.from_numpy(sample.cell).to(device).expand(worlds, -1, -1).clone()
        mass = self._mass().to(device)
        velocity = rng.normal(*x.shape) * (kt.unsqueeze(-1) / (KINETIC * mass)).sqrt()
        velocity = velocity - (mass * velocity).sum(1, keepdim=True) / mass.sum()
        force, own = self._forces(x, cell)
        return LossState(x, velocity, force, own, cell, kt)

    def transition(self, state: LossState, action: Tensor, rng: Rng | None) -> LossState:
        """`action` [worlds, agents, 2]: of the own force, and along the own velocity."""
        strength = 1 + action[..., :1]
        half = 0.5 * self.dt * ACCELERATION / self._mass().to(state.position)
        drive = torch.exp(0.5 * self.dt * _PUSH * action[..., 1:])
        velocity = drive * state.velocity + half * strength * state.force
        position = state.position + self.dt * velocity
        force, energy = self._forces(position, state.cell)
        velocity = drive * (velocity + half * strength * force)
        return state._replace(
            position=position, velocity=velocity, force=force, per_atom_energy=energy
        )

    def invariants(self, state: LossState) -> dict[str, Tensor]:
        """Of every atom.

        species: one-hot.  radial: log(1 + sum of bumps) by species of the neighbours.
        own: asinh of the own loss in eV.  kinetic: log(1 + kinetic energy / kT).
        pull: asinh of |F|.  climb: asinh of v.F over the thermal speed.
        """
        x, numbers = state.position, start(self.model).numbers
        known = species_of(self.model)
        kinds = species_index(numbers, known)
        each = torch.from_numpy(np.eye(len(known))[kinds]).to(x)
        mass = self._mass().to(x)
        energy = 0.5 * KINETIC * mass[:, 0] * dot(state.velocity, state.velocity)
        thermal = (state.kt / (KINETIC * mass[:, 0])).sqrt()
        return {
            "species": each.expand(len(x), -1, -1),
            "radial": torch.log1p(
                _radial(x, state.cell, kinds, len(known), cutoff_of(_loaded(self.model)))
            ),
            "own": torch.asinh(state.per_atom_energy),
            "kinetic": torch.log1p(energy / state.kt),
            "pull": torch.asinh(dot(state.force, state.force).sqrt()),
            "climb": torch.asinh(dot(state.force, state.velocity) / thermal),
        }

    def loss(self, state: LossState, action: Tensor, next_state: LossState) -> Tensor:
        return next_state.per_atom_energy

    def metrics(self, state: LossState, action: Tensor, next_state: LossState) -> dict[str, Tensor]:
        """energy: losses and kinetic energy, eV per atom.  temperature: K."""
        mass = self._mass().to(next_state.position)
        twice = KINETIC * (mass * next_state.velocity**2).sum((1, 2))
        freedom = 3 * self.n_agents - 3
        return {
            "energy": next_state.per_atom_energy.mean(-1) + 0.5 * twice / self.n_agents,
            "temperature": twice / (freedom * BOLTZMANN),
        }

    def symmetries(self, state: LossState, rng: Rng) -> Iterator[Symmetry]:
        worlds, n = state.position.shape[:2]
        alike = _alike(start(self.model), species_of(self.model))
        order = torch.from_numpy(alike).to(state.position.device)
        shuffled = torch.argsort(rng.uniform(worlds, n), -1)
        # Only atoms that nothing tells apart change places: sort the shuffled by group.
        by_group = shuffled.gather(1, torch.argsort(order[shuffled], dim=1, stable=True))
        agents = torch.empty_like(by_group)
        agents.scatter_(1, torch.argsort(order, stable=True).expand(worlds, -1), by_group)
        rows = agents.unsqueeze(-1).expand_as(state.position)
        vectors = (state.position, state.velocity, state.force)
        x, v, f = (array.gather(1, rows) for array in vectors)
        yield Symmetry(
            "relabel",
            LossState(x, v, f, state.per_atom_energy.gather(1, agents), *state[4:]),
            agents,
        )
        shift = 20 * rng.uniform(worlds, 1, 3) - 10
        yield Symmetry("translation", state._replace(position=state.position + shift))
        turn = torch.linalg.qr(rng.normal(worlds, 3, 3))[0].mT
        x, v, f = (array @ turn for array in vectors)
        turned = LossState(x, v, f, state.per_atom_energy, state.cell @ turn, state.kt)
        yield Symmetry("rotation or reflection", turned)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        """follow: the losses and nothing else.  settle: with friction."""
        return {
            "follow": functools.partial(_constant, (0.0, 0.0)),
            "settle": functools.partial(_constant, (0.0, -1.0)),
        }

    def scene(self, state: LossState) -> Scene:
        """Balls and bonds; colour: the kinetic energy, alarmed from 4 kT up."""
        sample = start(self.model)
        box = state.cell[0].numpy()
        x = state.position[0].numpy()
        into = inverse(state.cell[0]).numpy()
        x = x - (np.floor(x @ into) + 0.5 * (box.any())) @ box if box.any() else x - x.mean(0)
        bonds = bonds_of(sample.numbers, sample.owner)
        for held, owner in bonds:  # molecules are drawn whole
            r = x[held] - x[owner]
            x[held] = x[owner] + nearest_image_array(r, box)
        energy = self.invariants(type(state)(*(field[:1] for field in state)))["kinetic"][0]
        metrics = self.metrics(state, state.per_atom_energy, state)
        kelvin = float(metrics["temperature"][0])
        side = 0.8 * float(np.linalg.norm(box, axis=-1).max()) or 1.2 * float(np.abs(x).max())
        return Scene(
            view=(-side, -side, side, side),
            balls=x,
            bonds=bonds,
            disc_radius=np.where(sample.numbers == 1, 0.26, 0.42),
            disc_value=(torch.expm1(energy) / 4).clamp(0, 1).numpy(),
            caption=(f"{kelvin:.0f} K",),
        )

    def _mass(self) -> Tensor:
        """amu [agents, 1]."""
        return torch.from_numpy(np.array(ATOMIC_WEIGHTS)[start(self.model).numbers]).unsqueeze(-1)

    def _forces(self, position: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        x = position.detach().cpu().double().contiguous().numpy()
        forces = _bound(self.model, cell.detach().cpu().double().numpy().tobytes())
        forces.forget()
        force, own = forces(x)
        return torch.from_numpy(force).to(position), torch.from_numpy(own).to(position)


@functools.lru_cache(maxsize=16)
def start(model: str) -> Sample:
    """The frame of a model, repeated where its cell is narrower than two cutoffs.

    Raises FileNotFoundError and ValueError for what is no model file or holds no frame.
    """
    saved = load_model(model)
    sample = saved.sample
    if sample is None:
        raise ValueError(f"model={model!r} must hold a frame to start from; fit it again")
    if not sample.cell.any():
        return sample
    copies = copies_for(cutoff_of(saved.model), sample.cell)
    position, cell = replicate(sample.position, sample.cell, copies)
    times, n = int(np.prod(copies)), len(sample.numbers)
    owner = sample.owner
    if owner is not None:
        owner = np.concatenate([owner + n * k for k in range(times)])
    return Sample(position, cell, np.tile(sample.numbers, times), owner)


def species_of(model: str) -> tuple[int, ...]:
    """Atomic numbers that a model knows."""
    loaded = _loaded(model)
    return loaded.numbers if isinstance(loaded, LossModel) else loaded.net.numbers


@functools.lru_cache(maxsize=16)
def _loaded(model: str) -> LossModel | NetModel:
    return load_model(model).model


@functools.lru_cache(maxsize=16)
def _bound(model: str, cell: bytes) -> Forces:
    """Forces of a batch of worlds with the given cells."""
    sample = start(model)
    cells = np.frombuffer(cell).reshape(-1, 3, 3).copy()
    bonds = bonds_of(sample.numbers, sample.owner)
    return make_forces(_loaded(model), cells, sample.numbers, bonds=bonds)


def _radial(
    position: Tensor, cell: Tensor, kinds: np.ndarray, species: int, cutoff: float
) -> Tensor:
    """Sums of bumps [worlds, agents, species * bumps] over the neighbours of each species."""
    x, h = (array.detach().cpu().double().contiguous().numpy() for array in (position, cell))
    sums = np.zeros((*x.shape[:2], species * _BUMPS))
    _sum_bumps(x, h, inverse(torch.from_numpy(h)).numpy(), kinds, cutoff, sums)
    return torch.from_numpy(sums).to(position)


@compiled(error_model="numpy", nogil=True)
def _sum_bumps(x: Any, h: Any, inv: Any, kinds: Any, cutoff: float, sums: Any) -> None:
    width = cutoff / (_BUMPS + 1)
    for w in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(i + 1, x.shape[1]):
                rx, ry, rz = vector_between(x[w], i, j, h[w], inv[w])
                d2 = rx * rx + ry * ry + rz * rz
                if d2 >= cutoff * cutoff:
                    continue
                d = math.sqrt(d2)
                inside = int(d / width)
                for k in range(max(1, inside), min(_BUMPS, inside + 1) + 1):
                    root = max(bump_root(d, k * width, 1 / width), 0.0)
                    b = root * root
                    sums[w, i, kinds[j] * _BUMPS + k - 1] += b
                    sums[w, j, kinds[i] * _BUMPS + k - 1] += b


def _alike(sample: Sample, species: tuple[int, ...]) -> np.ndarray:
    """A group number [agents]; atoms of a group can change places without any difference."""
    if sample.owner is None:
        return species_index(sample.numbers, species)
    group = np.arange(len(sample.numbers))
    for held, owner in bonds_of(sample.numbers, sample.owner):
        group[held] = len(group) + owner
    return group


def _constant(action: tuple[float, float], seen: dict[str, Any], rng: Rng) -> Tensor:
    own = seen["own"]
    return torch.tensor(action, dtype=own.dtype, device=own.device).expand(*own.shape, 2)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return renamed.former_name(__name__, name)
