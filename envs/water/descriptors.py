"""Atoms of liquid water that infer their forces, or live by them.

State      positions x_i of oxygens and hydrogens in a periodic cell; forces of the reference data,
           or velocities v_i and what an atom has seen of its neighbourhood on average
Dynamics   inference: a frame of the data that nothing moves. dynamics: m_i a_i = F_i by
           leap-frog, momentum taken out and speeds scaled to the temperature after every kick
Invariants radial q_a = sum_j b_a(r_ij) by species of the neighbours; dot products A_a.A_b of broad
           vectors A_a = sum_j b_a(r_ij) n_ij, and their like with (n_ij.n_im)^2; in dynamics the
           own kinetic energy and v.A_a
Action     F_i = sum_a gain_a w_a A_a, the most general pairwise own force; in dynamics also a push
           along v
Loss       inference: |F_i - F_ref|^2 over the mean of |F_ref|^2. dynamics: the squared distance of
           the mean q over the last 20 steps from that of the data, relative
Reference  inference: with w that depends on the species alone the least loss is a linear
           least-squares problem, `optimum`; its weights are the policy "least-squares"

Lengths in Angstrom, forces in eV/Angstrom, times in fs, masses in amu, temperatures in K. Idea:
Gusev and Vanchurin, "Molecular Learning Dynamics" (arXiv 2504.10560), of which only the abstract
was available: radial functions, losses and numbers are ours. In dynamics an agent's loss is judged
at everybody's new places.

Radial functions are bumps b(r) = (1 - ((r - c) / h)^2)^2 within h of the centre c, else 0, that
depend on both species. All vanish beyond 3.9 Angstrom. The data that ship are 20 frames each:
`water16`, 16 waters of our own run of CP2K, and `water64`, 64 waters of the example of DeePMD-kit
(see the README beside them); more come from a file.
"""

from __future__ import annotations

import functools
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.observation import observation_limits
from ..core.physics.cell import half_width, inverse
from ..core.physics.plane import dot
from ..core.physics.units import ACCELERATION, ATOMIC_WEIGHTS, BOLTZMANN, KINETIC
from ..core.rng import Rng
from ..core.scene import Chart, LegendEntry, Plot, Scene
from ..core.system import System
from ..core.types import Bound, Range, Symmetry
from ..core.validation import nearest, require_count, require_number, require_range

SCENARIOS = {
    "water-inference-v0": {
        "system": "Inference",
        "summary": "atoms of water that infer their own forces from frames of ab-initio data",
        "training": {
            "ppo": {
                "steps": 4_000_000,
                "n_steps": 4,
                "n_epochs": 8,
                "lr": 1e-3,
                "gamma": 0.0,
                "log_std_init": -3.0,
            },
            "descent": {"n_worlds": 8, "rollout": 1, "lr": 2e-2},
        },
        "film": {
            "parameters": {"horizon": 20},
            "policy": "least-squares",
            "size": 272,
            "learning": 45,
        },
    },
    "water-dynamics-v0": {
        "system": "Dynamics",
        "summary": "atoms of water whose forces must keep the structure of the liquid",
        "training": {
            "ppo": {
                "steps": 10_000_000,
                "n_steps": 25,
                "n_epochs": 8,
                "lr": 3e-4,
                "log_std_init": -1.0,
            },
            "descent": {"n_worlds": 4, "rollout": 20, "lr": 5e-3},
        },
        "film": {
            "parameters": {"data": "water64"},
            "policy": "least-squares",
            "steps": 45,
            "size": 272,
        },
    },
}

SHIPPED = ("water16", "water64")
REACH = 3.9  # Angstrom
# Centres, half widths (Angstrom) and gains (eV/Angstrom) of ten functions: for pairs of oxygens, of
# unlike atoms, of hydrogens.
_RADIAL = np.array(
    [
        [
            (2.20, 2.45, 2.60, 2.75, 2.90, 3.05, 3.20, 3.35, 3.50, 3.65),
            (0.75, 0.90, 0.95, 1.00, 1.05, 1.12, 1.60, 1.90, 2.30, 2.90),
            (1.30, 1.42, 1.52, 1.62, 1.75, 2.00, 2.30, 2.70, 3.10, 3.50),
        ],
        [
            (0.35, 0.25, 0.22, 0.22, 0.22, 0.22, 0.22, 0.22, 0.25, 0.25),
            (0.20, 0.08, 0.08, 0.08, 0.08, 0.12, 0.45, 0.50, 0.70, 1.00),
            (0.20, 0.15, 0.15, 0.15, 0.20, 0.35, 0.45, 0.50, 0.50, 0.40),
        ],
        [
            (6.00, 3.00, 3.00, 3.00, 3.00, 2.00, 2.00, 2.00, 2.00, 2.00),
            (20.0, 8.00, 8.00, 8.00, 8.00, 8.00, 4.00, 2.00, 2.00, 1.00),
            (4.00, 3.00, 3.00, 3.00, 3.00, 2.00, 1.00, 1.00, 1.00, 1.00),
        ],
    ]
)
_BROAD = ((0.0, 1.4), (2.2, 1.6))  # centre, half width of what is seen of angles
_K = _RADIAL.shape[2]
_MEMORY = 20  # steps that the mean neighbourhood goes back
_PUSH = 0.05  # 1/fs along the own velocity
_PRODUCTS = 2 * len(_BROAD) * (2 * len(_BROAD) + 1) // 2
_BIN = 0.1  # Angstrom, of radial distribution functions
_BINS = round(REACH / _BIN)
_BETWEEN = (2.0, 1.25, 1.9)  # Angstrom, from where distances are those between molecules
_KINDS = ("O-O", "O-H", "H-H")
_BONDED = 1.3  # Angstrom
_ARROW = 0.9  # Angstrom, of an arrow that stands for a force of the usual size
_LEGEND = (
    LegendEntry("oxygen, O", "disc", 0.0, 1.0),
    LegendEntry("hydrogen, H", "disc", 0.0, 0.57),
    LegendEntry("loss of an atom: 0 to 0.5", "scale"),
)
_MASS = {True: ATOMIC_WEIGHTS[8], False: ATOMIC_WEIGHTS[1]}


class Frame(NamedTuple):
    """A frame of the data, and how far its agents were off."""

    position: Tensor  # [worlds, agents, 3]
    force: Tensor  # [worlds, agents, 3] of the data
    oxygen: Tensor  # [worlds, agents] 1, or 0 for hydrogen
    cell: Tensor  # [worlds, 3, 3] rows are the lattice vectors
    error: Tensor  # [worlds, agents] loss of the last step
    residual: Tensor  # [worlds, agents, 3] force of the last step less that of the data


class Motion(NamedTuple):
    """A liquid in motion."""

    position: Tensor  # [worlds, agents, 3]
    velocity: Tensor  # [worlds, agents, 3]
    oxygen: Tensor  # [worlds, agents]
    cell: Tensor  # [worlds, 3, 3]
    mean: Tensor  # [worlds, agents, 20] of the radial invariants, lately
    histogram: Tensor  # [worlds, 3, bins] distances seen since the start, each twice
    kt: Tensor  # [worlds, 1] eV
    age: Tensor  # [worlds, 1] steps


class Data(NamedTuple):
    """Frames of the data as numpy arrays, and what is compared with."""

    position: np.ndarray  # [frames, agents, 3]
    force: np.ndarray  # [frames, agents, 3]
    cell: np.ndarray  # [3, 3]
    oxygen: np.ndarray  # [agents]


class Pairs(NamedTuple):
    """All pairs; an atom is no neighbour of itself."""

    distance: Tensor  # [worlds, agents, agents], far on the diagonal
    direction: Tensor  # [worlds, agents, agents, 3] unit vectors to the neighbour
    kind: Tensor  # [worlds, agents, agents] 0: O-O, 1: O-H, 2: H-H
    other: Tensor  # [worlds, agents, agents, 2] whether the neighbour is an oxygen, a hydrogen


@dataclass(frozen=True)
class Inference(System):
    """Parameters with their units.

    data: "water16", "water64", or an .npz with positions, forces, numbers (8 and 1) and cell.
    split: the frames of the data that are used, "train" or "val"; empty: all.
    horizon: steps of an episode, all on one frame; Gymnasium's checks refuse episodes of one.
    """

    data: str = "water16"
    split: str = ""
    horizon: int = 2

    agent_name: ClassVar[str] = "atom"
    reductions: ClassVar[dict[str, str]] = {
        "unexplained": "mean",
        "oxygen": "mean",
        "hydrogen": "mean",
        "net_force": "mean",
    }

    def __post_init__(self) -> None:
        require_count("horizon", self.horizon)
        read(self.data, self.split)

    @property
    def n_agents(self) -> int:  # type: ignore[override]
        """Atoms of the data."""
        return len(read(self.data, self.split).oxygen)

    @property
    def bounds(self) -> dict[str, Bound]:
        return _bounds(self.n_agents)

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2 * _K,), np.float32)

    def initial(self, rng: Rng, worlds: int) -> Frame:
        position, force, oxygen, cell = _drawn(read(self.data, self.split), rng, worlds)
        residual = torch.zeros_like(force)
        return Frame(position, force, oxygen, cell, residual[..., 0], residual)

    def transition(self, state: Frame, action: Tensor, rng: Rng | None) -> Frame:
        """`action` [worlds, agents, 20]: w of the functions of oxygens, then of hydrogens."""
        force = forces(all_pairs(state.position, state.oxygen, state.cell), action)
        residual = force - state.force
        scale = mean_square(self.data, self.split)
        return state._replace(error=dot(residual, residual) / scale, residual=residual)

    def invariants(self, state: Frame) -> dict[str, Tensor]:
        """Of every atom.

        oxygen: 1, or 0 for hydrogen.  radial: log(1 + q_a), ten of oxygens and ten of hydrogens.
        along: asinh of A_a.A_b, a <= b, of two broad vectors to oxygens and two to hydrogens.
        angular: the same with the squared cosine of the two neighbours.
        """
        return _seen(state.oxygen, all_pairs(state.position, state.oxygen, state.cell))[0]

    def loss(self, state: Frame, action: Tensor, next_state: Frame) -> Tensor:
        return next_state.error

    def metrics(self, state: Frame, action: Tensor, next_state: Frame) -> dict[str, Tensor]:
        """unexplained: mean loss of the atoms.  oxygen, hydrogen: the same of one species.

        net_force: mean force on an atom, eV/Angstrom; nothing imposes the third law.
        """
        error, o = next_state.error, next_state.oxygen
        net = (next_state.residual + next_state.force).mean(1)
        return {
            "unexplained": error.mean(-1),
            "oxygen": (error * o).sum(-1) / o.sum(-1),
            "hydrogen": (error * (1 - o)).sum(-1) / (1 - o).sum(-1),
            "net_force": dot(net, net).sqrt(),
        }

    def symmetries(self, state: Frame, rng: Rng) -> Iterator[Symmetry]:
        for name, seen in _observers(state.position, state.cell, rng):
            x, f, r = (seen.move(v) for v in (state.position, state.force, state.residual))
            oxygen, error = seen.order(state.oxygen), seen.order(state.error)
            moved = Frame(x + seen.shift, f, oxygen, seen.turned(state.cell), error, r)
            yield Symmetry(name, moved, seen.agents)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"least-squares": functools.partial(by_species, self._optimum().weights)}

    def references(self) -> dict[str, float]:
        """The least mean loss of weights that depend on the species alone."""
        best = self._optimum()
        return {"unexplained": best.loss, "oxygen": best.oxygen, "hydrogen": best.hydrogen}

    def _optimum(self) -> Optimum:
        return optimum(self.data, self.split)

    def kernel(self, worlds: int) -> Kernel:
        from .step import FRAME_PARAMETERS, Shapes, frame_kernel

        square = mean_square(self.data, self.split)
        parameters = parameter_record(FRAME_PARAMETERS, reach=REACH, mean_square=square)
        return frame_kernel(self.n_agents, Shapes(*_shapes(self)), parameters)

    def scene(self, state: Frame) -> Scene:
        """Balls and bonds; arrows: the force that is not explained; colour: its square, the loss.

        Before the first step that is the whole force of the data.
        """
        scale = mean_square(self.data, self.split)
        residual, error = state.residual[0], state.error[0]
        if not residual.any():
            residual, error = -state.force[0], dot(state.force[0], state.force[0]) / scale
        mean = float(error.mean())
        best = self._optimum().loss
        levels = {"least of fixed weights": best}
        return replace(
            _scene(state.position, state.oxygen, state.cell, 2 * error),
            ball_arrows=(-_ARROW / math.sqrt(scale) * residual).numpy(),
            caption=(f"unexplained part of the force squared: {mean:.3f}",),
            charts=(Chart(0.0, 1.0, {"unexplained": mean}, levels=levels),),
            legend=(*_LEGEND, LegendEntry("force that is not explained", "arrow")),
        )


@dataclass(frozen=True)
class Dynamics(System):
    """Parameters with their units.

    data: "water16", "water64", or an .npz with positions, forces, numbers (8 and 1) and cell.
    split: the frames of the data that are used, "train" or "val"; empty: all.
    horizon: steps of an episode.  dt: time step, fs.  temperature: K.
    """

    data: str = "water16"
    split: str = ""
    horizon: int = 100
    dt: float = 0.5
    temperature: Range = 350.0

    agent_name: ClassVar[str] = "atom"
    reductions: ClassVar[dict[str, str]] = {"structure": "last", "broken": "last"}

    def __post_init__(self) -> None:
        require_count("horizon", self.horizon)
        require_number("dt", self.dt, 0, 5, strict=True)
        require_range("temperature", self.temperature, 0, strict=True)
        read(self.data, self.split)

    @property
    def n_agents(self) -> int:  # type: ignore[override]
        """Atoms of the data."""
        return len(read(self.data, self.split).oxygen)

    @property
    def bounds(self) -> dict[str, Bound]:
        along = math.asinh(10.0 * self.n_agents)
        own = {"speed": Bound(0, 6), "climb": Bound(-along, along, 2 * len(_BROAD))}
        return _bounds(self.n_agents) | own

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2 * _K + 1,), np.float32)

    def initial(self, rng: Rng, worlds: int) -> Motion:
        """A frame of the data with velocities of the temperature."""
        position, force, oxygen, cell = _drawn(read(self.data, self.split), rng, worlds)
        kt = BOLTZMANN * rng.draw(self.temperature, worlds)
        velocity = rng.normal(*force.shape) / masses(oxygen).sqrt().unsqueeze(-1)
        mean = torch.zeros_like(oxygen).unsqueeze(-1).repeat(1, 1, 2 * _K)
        histogram = position.new_zeros(worlds, 3, _BINS)
        velocity = thermal(velocity, oxygen, kt)
        age = torch.zeros_like(kt)
        return Motion(position, velocity, oxygen, cell, mean, histogram, kt, age)

    def transition(self, state: Motion, action: Tensor, rng: Rng | None) -> Motion:
        """`action` [worlds, agents, 21]: w of the functions of oxygens, of hydrogens, along v."""
        pairs = all_pairs(state.position, state.oxygen, state.cell)
        force = forces(pairs, action[..., :-1])
        kick = ACCELERATION * force / masses(state.oxygen).unsqueeze(-1)
        velocity = state.velocity + self.dt * (kick + _PUSH * action[..., -1:] * state.velocity)
        velocity = thermal(velocity, state.oxygen, state.kt)
        position = state.position + self.dt * velocity
        after = all_pairs(position, state.oxygen, state.cell)
        age = state.age + 1
        mean = state.mean + (radial(after) - state.mean) / age.clamp(max=_MEMORY).unsqueeze(-1)
        histogram = state.histogram + counts(after)
        return state._replace(
            position=position, velocity=velocity, mean=mean, histogram=histogram, age=age
        )

    def invariants(self, state: Motion) -> dict[str, Tensor]:
        """Of every atom.

        oxygen: 1, or 0 for hydrogen.  radial: log(1 + q_a), ten of oxygens and ten of hydrogens.
        along: asinh of A_a.A_b, a <= b, of two broad vectors to oxygens and two to hydrogens.
        angular: the same with the squared cosine of the two neighbours.
        speed: log(1 + own kinetic energy / kT).  climb: asinh of v.A_a over the thermal speed.
        """
        pairs = all_pairs(state.position, state.oxygen, state.cell)
        found, first = _seen(state.oxygen, pairs)
        mass = masses(state.oxygen)
        kinetic = 0.5 * KINETIC * mass * dot(state.velocity, state.velocity)
        slow = (state.kt / (KINETIC * mass)).sqrt().unsqueeze(-1)
        climb = dot(first, state.velocity.unsqueeze(-2)) / slow
        return found | {"speed": torch.log1p(kinetic / state.kt), "climb": torch.asinh(climb)}

    def loss(self, state: Motion, action: Tensor, next_state: Motion) -> Tensor:
        return self._off(next_state)

    def _off(self, state: Motion) -> Tensor:
        """Relative squared distance [worlds, agents] of the mean neighbourhood from the data's."""
        mean = state.mean
        usual = torch.from_numpy(neighbourhood(self.data, self.split)).to(mean)
        own = usual[(1 - state.oxygen).long()]
        return dot(mean - own, mean - own) / dot(own, own)

    def metrics(self, state: Motion, action: Tensor, next_state: Motion) -> dict[str, Tensor]:
        """structure: mean |g - g of the data| between molecules, over kinds and distances.

        broken: part of the hydrogens that have no oxygen within 1.3 Angstrom.
        """
        g = normalised(next_state.histogram, next_state.oxygen, next_state.cell) / next_state.age[
            ..., None
        ].clamp(min=1)
        usual = torch.from_numpy(structure(self.data, self.split)).to(g)
        between = torch.from_numpy(_between()).to(g)
        pairs = all_pairs(next_state.position, next_state.oxygen, next_state.cell)
        bond = torch.where(pairs.kind == 1, pairs.distance, 1e6).amin(-1)
        hydrogen = 1 - next_state.oxygen
        free = hydrogen * (bond > _BONDED)
        return {
            "structure": ((g - usual).abs() * between).sum((1, 2)) / between.sum(),
            "broken": free.sum(-1) / hydrogen.sum(-1),
        }

    def symmetries(self, state: Motion, rng: Rng) -> Iterator[Symmetry]:
        for name, seen in _observers(state.position, state.cell, rng):
            x, v = seen.move(state.position) + seen.shift, seen.move(state.velocity)
            moved = state._replace(
                position=x,
                velocity=v,
                oxygen=seen.order(state.oxygen),
                cell=seen.turned(state.cell),
                mean=seen.order(state.mean),
            )
            yield Symmetry(name, moved, seen.agents)

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        weights = optimum(self.data, self.split).weights
        still = np.zeros((2, 1))
        return {
            "least-squares": functools.partial(by_species, np.append(weights, still, 1)),
            "free": functools.partial(by_species, np.zeros((2, 2 * _K + 1))),
        }

    def kernel(self, worlds: int) -> Kernel:
        from .step import MOTION_PARAMETERS, MotionTables, motion_kernel

        tables = MotionTables(
            *_shapes(self),
            np.ascontiguousarray(neighbourhood(self.data, self.split)),
            np.ascontiguousarray(structure(self.data, self.split)),
            np.ascontiguousarray(_between()),
        )
        parameters = parameter_record(
            MOTION_PARAMETERS,
            reach=REACH,
            dt=self.dt,
            oxygen_mass=_MASS[True],
            hydrogen_mass=_MASS[False],
            kinetic=KINETIC,
            acceleration=ACCELERATION,
            push=_PUSH,
            memory=_MEMORY,
            bin_width=_BIN,
            bonded=_BONDED,
        )
        return motion_kernel(self.n_agents, tables, parameters)

    def scene(self, state: Motion) -> Scene:
        """Balls and bonds; colour: the loss, alarmed from 0.5 up; g(r) since the start."""
        age = float(state.age[0, 0])
        g = normalised(state.histogram[:1], state.oxygen[:1], state.cell[:1])[0].numpy() / max(
            age, 1
        )
        off = self._off(type(state)(*(part[:1] for part in state)))[0] * min(age, 1.0)
        return replace(
            _scene(state.position, state.oxygen, state.cell, 2 * off),
            caption=(f"{self.dt * age:.1f} fs",),
            plot=_plot(g, self.data, self.split),
            legend=(
                *_LEGEND,
                LegendEntry("g(r) of this world", "fill"),
                LegendEntry("g(r) of the data", "line"),
            ),
        )


@functools.lru_cache(maxsize=16)
def read(name: str, split: str = "") -> Data:
    """Frames of data that ship, or of a file.

    Raises ValueError for a file that is missing or no such data, and for an unknown split.
    """
    path = Path(name)
    if name in SHIPPED:
        path = Path(str(resources.files(__package__) / "data" / f"{name}.npz"))
    if not path.is_file():
        known = ", ".join(SHIPPED)
        raise ValueError(f"data={name!r} is no file{nearest(name, SHIPPED)} (ship: {known})")
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = {key: file[key] for key in file.files}
        numbers, cell = parts["numbers"], parts["cell"].astype(float)
        position, force = (parts[key].astype(float) for key in ("positions", "forces"))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"data={name!r} is no such data: {error}") from None
    if set(numbers.tolist()) != {1, 8}:
        raise ValueError(f"data={name!r} must hold oxygen and hydrogen, numbers 8 and 1")
    if cell.shape != (3, 3) or half_width(cell) < REACH:
        raise ValueError(f"data={name!r} must have one cell at least {2 * REACH:g} Angstrom wide")
    if not (np.isfinite(position).all() and np.isfinite(force).all()):
        raise ValueError(f"data={name!r} must have finite positions and forces")
    if split:
        blocks = parts.get("split", np.array([""] * len(position)))
        if split not in blocks:
            said = ", ".join(sorted(set(map(str, blocks)) - {""})) or "none"
            raise ValueError(f"split={split!r} must be one of those of the data: {said}")
        position, force = position[blocks == split], force[blocks == split]
    return Data(position, force, cell, (numbers == 8).astype(float))


class Optimum(NamedTuple):
    """weights [2, 20] of oxygens and hydrogens; mean losses of all atoms and of each species."""

    weights: np.ndarray
    loss: float
    oxygen: float
    hydrogen: float


@functools.lru_cache(maxsize=16)
def optimum(name: str, split: str = "") -> Optimum:
    """The weights in [-1, 1] by species that leave the least squared error of the forces."""
    from scipy.optimize import lsq_linear

    data = read(name, split)
    columns = []
    for frame in range(len(data.position)):
        pairs = _pairs_of(data, frame)
        columns.append(vectors(pairs)[0].numpy())
    design = np.stack(columns)
    scale = mean_square(name, split)
    weights, losses = [], []
    for chosen in (data.oxygen == 1, data.oxygen == 0):
        a = design[:, chosen].transpose(0, 1, 3, 2).reshape(-1, 2 * _K)
        b = data.force[:, chosen].reshape(-1)
        seen = np.abs(a).max(0) > 0
        w = np.zeros(2 * _K)
        w[seen] = lsq_linear(a[:, seen], b, (-1, 1), tol=1e-12, lsq_solver="exact").x
        weights.append(w)
        losses.append(float(((a @ w - b) ** 2).sum() / (len(b) / 3) / scale))
    part = float(data.oxygen.mean())
    whole = part * losses[0] + (1 - part) * losses[1]
    return Optimum(np.stack(weights), whole, losses[0], losses[1])


@functools.lru_cache(maxsize=16)
def mean_square(name: str, split: str = "") -> float:
    """Mean squared force on an atom of the data, (eV/Angstrom)^2."""
    return float((read(name, split).force ** 2).sum(-1).mean())


@functools.lru_cache(maxsize=16)
def neighbourhood(name: str, split: str = "") -> np.ndarray:
    """Mean radial invariants [2, 20] of oxygens and of hydrogens in the data."""
    data = read(name, split)
    q = np.stack([radial(_pairs_of(data, f))[0].numpy() for f in range(len(data.position))])
    return np.stack([q[:, data.oxygen == 1].mean((0, 1)), q[:, data.oxygen == 0].mean((0, 1))])


@functools.lru_cache(maxsize=16)
def structure(name: str, split: str = "") -> np.ndarray:
    """Radial distribution functions [3, bins] of the data: O-O, O-H, H-H."""
    data = read(name, split)
    found = sum(counts(_pairs_of(data, f)) for f in range(len(data.position)))
    assert isinstance(found, Tensor)
    oxygen, cell = torch.from_numpy(data.oxygen)[None], torch.from_numpy(data.cell)[None]
    return (normalised(found, oxygen, cell)[0] / len(data.position)).numpy()


def _pairs_of(data: Data, frame: int) -> Pairs:
    parts = data.position[frame], data.oxygen, data.cell
    return all_pairs(*(torch.from_numpy(part)[None] for part in parts))


def all_pairs(position: Tensor, oxygen: Tensor, cell: Tensor) -> Pairs:
    """Pairs of atoms at `position` [worlds, agents, 3]; oxygen [worlds, agents]."""
    r = position.unsqueeze(1) - position.unsqueeze(2)
    turns = dot(r.unsqueeze(-2), inverse(cell).mT[:, None, None]).round().detach()
    r = r - dot(turns.unsqueeze(-2), cell.mT[:, None, None])
    own = torch.eye(position.shape[1], dtype=torch.bool, device=position.device)
    d2 = torch.where(own, 1e12, dot(r, r)).clamp(min=1e-12)
    distance = d2.sqrt()
    kind = (2 - oxygen.unsqueeze(1) - oxygen.unsqueeze(2)).long()
    other = torch.stack([oxygen, 1 - oxygen], -1).unsqueeze(1).expand(*kind.shape, 2)
    return Pairs(distance, r / distance.unsqueeze(-1), kind, other)


def bumps(pairs: Pairs) -> Tensor:
    """Radial functions [worlds, agents, agents, 10] of every pair."""
    c, h = (torch.from_numpy(part).to(pairs.distance)[pairs.kind] for part in _RADIAL[:2])
    return (1 - ((pairs.distance.unsqueeze(-1) - c) / h) ** 2).clamp(min=0) ** 2


def radial(pairs: Pairs) -> Tensor:
    """q [worlds, agents, 20]: of oxygens, then of hydrogens."""
    b = bumps(pairs)
    return torch.cat([(b * pairs.other[..., t, None]).sum(2) for t in range(2)], -1)


def vectors(pairs: Pairs) -> Tensor:
    """Forces [worlds, agents, 20, 3] of unit weights: gain times A, away from the neighbours."""
    b = bumps(pairs) * torch.from_numpy(_RADIAL[2]).to(pairs.distance)[pairs.kind]
    away = -pairs.direction.unsqueeze(-2)
    parts = [((b * pairs.other[..., t, None]).unsqueeze(-1) * away).sum(2) for t in range(2)]
    return torch.cat(parts, 2)


def forces(pairs: Pairs, weights: Tensor) -> Tensor:
    """Forces [worlds, agents, 3] of weights [worlds, agents, 20]."""
    return (weights.unsqueeze(-1) * vectors(pairs)).sum(2)


def counts(pairs: Pairs) -> Tensor:
    """Ordered pairs [worlds, 3, bins] by kind and distance."""
    worlds = len(pairs.distance)
    at = (pairs.distance.detach() / _BIN).clamp(max=_BINS).long()
    place = torch.where(at < _BINS, pairs.kind * _BINS + at, 3 * _BINS).reshape(worlds, -1)
    found = torch.zeros(worlds, 3 * _BINS + 1, dtype=pairs.distance.dtype, device=place.device)
    found = found.scatter_add(1, place, torch.ones_like(place, dtype=found.dtype))
    return found[:, :-1].reshape(worlds, 3, _BINS)


def normalised(count: Tensor, oxygen: Tensor, cell: Tensor) -> Tensor:
    """g(r) [worlds, 3, bins] of the ordered pairs of one frame."""
    o, h = oxygen.sum(-1), (1 - oxygen).sum(-1)
    pairs = torch.stack([o * (o - 1), 2 * o * h, h * (h - 1)], -1)
    edge = _BIN * torch.arange(_BINS + 1, dtype=count.dtype, device=count.device)
    shell = 4 / 3 * math.pi * (edge[1:] ** 3 - edge[:-1] ** 3)
    volume = (dot(torch.linalg.cross(cell[:, 0], cell[:, 1]), cell[:, 2])).abs()
    return count * (volume.unsqueeze(-1) / pairs).unsqueeze(-1) / shell


def masses(oxygen: Tensor) -> Tensor:
    """amu."""
    return _MASS[False] + (_MASS[True] - _MASS[False]) * oxygen


def thermal(velocity: Tensor, oxygen: Tensor, kt: Tensor) -> Tensor:
    """Velocities without momentum, scaled to the kinetic energy that `kt` [worlds, 1] gives."""
    mass = masses(oxygen).unsqueeze(-1)
    velocity = velocity - (mass * velocity).sum(1, keepdim=True) / mass.sum(1, keepdim=True)
    twice = KINETIC * (mass * velocity**2).sum((1, 2)).clamp(min=1e-12)
    aim = (3 * velocity.shape[1] - 3) * kt[:, 0]
    return velocity * (aim / twice).sqrt()[:, None, None]


def by_species(weights: np.ndarray, seen: dict[str, Tensor], rng: Rng) -> Tensor:
    """The policy of constant weights [2, size] of oxygens and hydrogens."""
    own = seen["oxygen"].unsqueeze(-1)
    first, second = torch.from_numpy(weights).to(own)
    return second + own * (first - second)


def _shapes(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radial functions, broad ones, and limits of the observations, for a kernel."""
    limits = np.stack(observation_limits(system)).astype(float)
    return np.ascontiguousarray(_RADIAL), np.array(_BROAD), limits


def _bounds(n: int) -> dict[str, Bound]:
    product = math.asinh(float(n * n))
    return {
        "oxygen": Bound(0, 1),
        "radial": Bound(0, math.log1p(n), 2 * _K),
        "along": Bound(-product, product, _PRODUCTS),
        "angular": Bound(0, product, _PRODUCTS),
    }


def _seen(oxygen: Tensor, pairs: Pairs) -> tuple[dict[str, Tensor], Tensor]:
    """Invariants that do not ask for velocities, and broad vectors [worlds, agents, 4, 3]."""
    c, h = torch.tensor(_BROAD, dtype=torch.float64).mT.to(pairs.distance)
    b = (1 - ((pairs.distance.unsqueeze(-1) - c) / h) ** 2).clamp(min=0) ** 2
    broad = torch.cat([b * pairs.other[..., t, None] for t in range(2)], -1)
    n = pairs.direction
    first = (broad.unsqueeze(-1) * n.unsqueeze(-2)).sum(2)
    square = (n.unsqueeze(-1) * n.unsqueeze(-2)).flatten(-2)
    second = (broad.unsqueeze(-1) * square.unsqueeze(-2)).sum(2)
    i, j = torch.triu_indices(broad.shape[-1], broad.shape[-1])
    found = {
        "oxygen": oxygen,
        "radial": torch.log1p(radial(pairs)),
        "along": torch.asinh(dot(first[:, :, i], first[:, :, j])),
        "angular": torch.asinh(dot(second[:, :, i], second[:, :, j])),
    }
    return found, first


def _drawn(data: Data, rng: Rng, worlds: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions, forces, species and cells of frames drawn at random."""
    frame = (len(data.position) * rng.uniform(worlds)).long()
    device = frame.device
    x, f = (torch.from_numpy(part).to(device)[frame] for part in (data.position, data.force))
    oxygen = torch.from_numpy(data.oxygen).to(device).expand(worlds, -1).clone()
    return x, f, oxygen, torch.from_numpy(data.cell).to(device).expand(worlds, -1, -1).clone()


class _Observer(NamedTuple):
    """How another observer sees vectors: turned by `turn` [worlds, 3, 3], moved, relabelled."""

    turn: Tensor
    shift: Tensor
    agents: Tensor | None = None

    def move(self, vector: Tensor) -> Tensor:
        return self.order(self.turned(vector))

    def turned(self, vector: Tensor) -> Tensor:
        return dot(vector.unsqueeze(-2), self.turn.unsqueeze(1))

    def order(self, part: Tensor) -> Tensor:
        if self.agents is None:
            return part
        index = self.agents if part.ndim == 2 else self.agents.unsqueeze(-1).expand_as(part)
        return part.gather(1, index)


def _observers(position: Tensor, cell: Tensor, rng: Rng) -> Iterator[tuple[str, _Observer]]:
    worlds, n = position.shape[:2]
    same = torch.eye(3, dtype=position.dtype).expand(worlds, 3, 3)
    still = position.new_zeros(worlds, 1, 3)
    yield "relabel", _Observer(same, still, torch.argsort(rng.uniform(worlds, n), -1))
    yield "translation", _Observer(same, 20 * rng.uniform(worlds, 1, 3) - 10)
    turn = torch.linalg.qr(rng.normal(worlds, 3, 3))[0]
    yield "rotation or reflection", _Observer(turn, still)


def _between() -> np.ndarray:
    """Flags [3, bins] of distances between molecules."""
    r = _BIN * (np.arange(_BINS) + 0.5)
    return (r > np.array(_BETWEEN)[:, None]).astype(float)


def _plot(g: np.ndarray, name: str, split: str) -> Plot:
    r = _BIN * (np.arange(_BINS) + 0.5)
    between = _between()
    labels = tuple(f"g(r) {kind}" for kind in _KINDS)
    return Plot(r, g * between, structure(name, split) * between, labels, 3.0, "r (Å)")


def _scene(position: Tensor, oxygen: Tensor, cell: Tensor, value: Tensor) -> Scene:
    """Balls and bonds, coloured by `value` [agents]."""
    box, o = cell[0].numpy(), oxygen[0].numpy() == 1
    into = np.linalg.inv(box)
    x = position[0].numpy() @ into
    x = (x - np.floor(x) - 0.5) @ box
    r = x[~o][:, None] - x[o]
    r -= np.round(r @ into) @ box
    owner = np.linalg.norm(r, axis=-1).argmin(1)  # molecules are drawn whole
    bound = r[np.arange(len(r)), owner]
    near = np.linalg.norm(bound, axis=-1, keepdims=True) < _BONDED
    x[~o] = np.where(near, x[o][owner] + bound, x[~o])
    gap = np.linalg.norm(x[:, None] - x, axis=-1)
    bonds = np.argwhere(np.triu(gap < _BONDED, 1) & (o[:, None] != o))
    side = 0.8 * float(np.linalg.norm(box, axis=-1).max())
    return Scene(
        view=(-side, -side, side, side),
        balls=x,
        bonds=bonds,
        disc_radius=np.where(o, 0.46, 0.26),
        disc_value=value.clamp(0, 1).numpy(),
        marks=tuple(np.where(o, "O", "H").tolist()),
    )
