"""Lennard-Jones clusters: atoms that look for the arrangement of least energy.

State      position x_i and last move m_i of every atom, in open space; steps since the start
Dynamics   x_i += m_i with m_i = short(sum_a g_a w_a A_a,i + w_m m_i), short() cuts to max_move
Invariants radial q_a = sum_j b_a(r_ij); A_a.A_b of the vectors A_a,i = sum_j b_a(r_ij) n_ij towards
           the neighbours, and its like with (n_ij.n_im)^2, of three broad channels; |m|^2, m.A_a;
           the part of the episode that is left
Action     w_a in [-1, 1], one per radial channel, and w_m of the own last move: the general
           pair-additive move that turns with the world, with inertia
Loss       L_i = half the energies of the atom's pairs, 4 (r^-12 - r^-6), at everybody's new places;
           below 0.9 the pair energy goes on as its tangent, which no minimum feels
Reference  energies of the global minima, `GLOBAL_MINIMA`

Reduced units: sigma = epsilon = 1. The minima of 13, 38 and 55 atoms are those of the Cambridge
Cluster Database (Wales et al.); the others are the best that we found. One step asks for the forces
once, so steps and calls of a local minimiser are counted alike. Idea: Gusev and Vanchurin,
"Molecular Learning Dynamics" (arXiv 2504.10560), of which only the abstract was available:
channels, scales and numbers are ours.

Channels are bumps b_a(r) = (1 - ((r - c_a) / h_a)^2)^2 within h_a of the centre c_a, else 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..core.kernel import Kernel, parameter_record
from ..core.observation import observation_limits
from ..core.physics.descriptors import bump, distances, moments, products
from ..core.physics.lennard_jones import lennard_jones_energy
from ..core.physics.plane import dot
from ..core.rng import Rng
from ..core.scene import Chart, LegendEntry, Scene
from ..core.system import System
from ..core.types import Bound, Symmetry
from ..core.validation import FARTHEST, require_count, require_fields, require_number

SCENARIOS = {
    "cluster-relaxation-v0": {
        "system": "Clusters",
        "summary": "Lennard-Jones atoms that look for the global minimum of their energy",
        "training": {
            "ppo": {"steps": 2_000_000, "n_steps": 20, "lr": 1e-3, "gamma": 0.97},
            "descent": {"lr": 1e-2},
        },
        "film": {
            "policy": "soft",
            "n_worlds": 2,
            "size": 352,
            "training": {"algo": "descent", "steps": 832_000},
        },
        "variants": [
            {"n_agents": 2},
            {"n_agents": 6, "horizon": 3},
        ],
        "score": {
            "random": -1706.0,
            "best": 104.5,
            "policy": "descent",
            "origin": "random: docs/scores.md; best: two runs of docs/results/benchmark.json",
        },
    },
}

GLOBAL_MINIMA = {
    2: -1.000000,
    3: -3.000000,
    4: -6.000000,
    5: -9.103852,
    6: -12.712062,
    7: -16.505384,
    8: -19.821489,
    9: -24.113360,
    10: -28.422532,
    11: -32.765970,
    12: -37.967600,
    13: -44.326801,
    19: -72.659782,
    38: -173.928427,
    55: -279.248470,
}
_CENTRES = (0.50, 0.80, 1.00, 1.20, 1.50, 1.90, 2.50, 3.30)
_HALF_WIDTHS = (0.50, 0.35, 0.30, 0.35, 0.50, 0.70, 1.00, 1.40)
_GAINS = (0.40, 0.40, 0.20, 0.05, 0.05, 0.05, 0.05, 0.05)  # sigma per unit of w A
_BROAD = ((0.90, 0.60), (1.45, 0.60), (2.20, 1.00))  # centre, half width
_TANGENT = 0.9  # sigma
_LEGEND = (LegendEntry("energy of an atom: -6 to 0", "scale"),)
_BONDED = 1.35  # sigma, in the picture
_VOLUME = 1.0901730**3 / math.sqrt(2)  # of an atom in the fcc crystal
# The soft force is that of a Morse potential, exp(-2 rho (r - 1)) - 2 exp(-rho (r - 1)) with r in
# its own minimum, so broad that few minima are left (rho = 3; Lennard-Jones is near 6).
_SOFTNESS, _PULL, _INERTIA = 3.0, 0.01, 0.8


class State(NamedTuple):
    position: Tensor  # [worlds, agents, 3] sigma
    move: Tensor  # [worlds, agents, 3] sigma
    age: Tensor  # [worlds, 1] steps


class Pairs(NamedTuple):
    """All pairs; an atom is no neighbour of itself."""

    distance: Tensor  # [worlds, agents, agents], far on the diagonal
    direction: Tensor  # [worlds, agents, agents, 3] unit vectors to the neighbour


@dataclass(frozen=True)
class Clusters(System):
    """Parameters with their units.

    n_agents: atoms.  horizon: steps of an episode, each one call of the forces.
    max_move: how far an atom moves in a step at most, sigma.
    """

    n_agents: int = 13
    horizon: int = 40
    max_move: float = 0.2

    agent_name: ClassVar[str] = "atom"
    reductions: ClassVar[dict[str, str]] = {"energy": "last", "radius": "last"}

    def __post_init__(self) -> None:
        require_count("n_agents", self.n_agents, 2)
        require_count("horizon", self.horizon)
        require_number("max_move", self.max_move, 0, strict=True)

    @property
    def bounds(self) -> dict[str, Bound]:
        others = self.n_agents - 1
        product = math.asinh(others**2)
        along = self.max_move * others
        channels = len(_BROAD)
        return {
            "radial": Bound(0, math.log1p(others), len(_CENTRES)),
            "along": Bound(-product, product, channels * (channels + 1) // 2),
            "angular": Bound(-product, product, channels * (channels + 1) // 2),
            "speed": Bound(0, self.max_move**2),
            "climb": Bound(-along, along, channels),
            "left": Bound(0, 1),
        }

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (len(_CENTRES) + 1,), np.float32)

    def initial(self, rng: Rng, worlds: int) -> State:
        """Atoms uniform in a ball of the volume that they have in the crystal."""
        n = self.n_agents
        radius = (3 * n * _VOLUME / (4 * math.pi)) ** (1 / 3)
        away = rng.normal(worlds, n, 3)
        away = away / dot(away, away).sqrt().unsqueeze(-1).clamp(min=1e-9)
        depth = (rng.uniform(worlds, n).log() / 3).exp()  # `pow` depends on the batch
        position = radius * depth.unsqueeze(-1) * away
        age = torch.zeros(worlds, 1, dtype=position.dtype, device=position.device)
        return State(position, torch.zeros_like(position), age)

    def require_state(self, state: State) -> None:
        require_fields(state, ("position", "move"), -FARTHEST, FARTHEST)
        require_fields(state, ("age",), 0)

    def transition(self, state: State, action: Tensor, rng: Rng | None) -> State:
        """`action` [worlds, agents, 9]: w of the eight channels, then of the last move."""
        pairs = all_pairs(state.position)
        gains = torch.tensor(_GAINS, dtype=action.dtype, device=action.device)
        weight = dot(
            bumps(pairs.distance, _CENTRES, _HALF_WIDTHS), (gains * action[..., :-1]).unsqueeze(2)
        )
        towards = (weight.unsqueeze(-1) * pairs.direction).sum(-2)
        move = towards + action[..., -1:] * state.move
        length = dot(move, move).clamp(min=1e-24).sqrt().unsqueeze(-1)
        move = move * (self.max_move / length).clamp(max=1.0)
        return State(state.position + move, move, state.age + 1)

    def invariants(self, state: State) -> dict[str, Tensor]:
        """Of every atom.

        radial: log(1 + q_a) of the eight channels.  along: asinh of A_a.A_b of the broad channels,
        a <= b.  angular: the same with the squared cosine of the two neighbours.
        speed: |m|^2.  climb: m.A_a.  left: the part of the episode to come.
        """
        pairs = all_pairs(state.position)
        radial = bumps(pairs.distance, _CENTRES, _HALF_WIDTHS).sum(-2)
        centres, half_widths = zip(*_BROAD, strict=True)
        broad = bumps(pairs.distance, centres, half_widths)
        first, second = moments(broad, pairs.direction)
        speed = dot(state.move, state.move)
        return {
            "radial": torch.log1p(radial),
            "along": products(first),
            "angular": products(second),
            "speed": speed,
            "climb": dot(first, state.move.unsqueeze(-2)),
            "left": (1 - state.age / self.horizon).expand_as(speed),
        }

    def loss(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return 0.5 * pair_energy(all_pairs(next_state.position).distance).sum(-1)

    def metrics(self, state: State, action: Tensor, next_state: State) -> dict[str, Tensor]:
        """energy: of the whole cluster.  radius: of gyration."""
        away = next_state.position - next_state.position.mean(1, keepdim=True)
        return {
            "energy": self.loss(state, action, next_state).sum(-1),
            "radius": dot(away, away).mean(-1).sqrt(),
        }

    def symmetries(self, state: State, rng: Rng) -> Iterator[Symmetry]:
        worlds, n = state.position.shape[:2]
        order = torch.argsort(rng.uniform(worlds, n), -1)
        index = order.unsqueeze(-1).expand(-1, -1, 3)
        x, m = (vectors.gather(1, index) for vectors in state[:2])
        yield Symmetry("relabel", State(x, m, state.age), order)
        shift = 20 * rng.uniform(worlds, 1, 3) - 10
        yield Symmetry("translation", state._replace(position=state.position + shift))
        turn = rotation(rng.normal(worlds, 4))
        x, m = (dot(vectors.unsqueeze(-2), turn.unsqueeze(1)) for vectors in state[:2])
        yield Symmetry("rotation", State(x, m, state.age))
        yield Symmetry("reflection", State(-state.position, -state.move, state.age))

    def policies(self) -> dict[str, Callable[[dict[str, Tensor], Rng], Tensor]]:
        return {"soft": soft}

    def kernel(self, worlds: int) -> Kernel:
        from .step import PARAMETERS, Tables, make_kernel

        channels = np.array([_CENTRES, np.divide(1, _HALF_WIDTHS), _GAINS])
        centres, half_widths = np.array(_BROAD).T
        limits = np.stack(observation_limits(self)).astype(float)
        tables = Tables(channels, np.array([centres, 1 / half_widths]), limits)
        parameters = parameter_record(
            PARAMETERS, horizon=self.horizon, max_move=self.max_move, tangent=_TANGENT
        )
        return make_kernel(self.n_agents, tables, parameters)

    def scene(self, state: State) -> Scene:
        """The cluster with bonds between neighbours; colour: energy, from -6 up."""
        x = state.position[0] - state.position[0].mean(0)
        side = 1.3 * (3 * self.n_agents * _VOLUME / (4 * math.pi)) ** (1 / 3) + 0.6
        pairs = all_pairs(state.position[:1])
        own = 0.5 * pair_energy(pairs.distance[0]).sum(-1)
        energy = float(own.sum())
        best = GLOBAL_MINIMA.get(self.n_agents)
        depth = 3.4 * self.n_agents if best is None else -best
        chart = Chart(
            low=-1.1 * depth,
            high=0.5 * depth,
            series={"energy": energy},
            levels={} if best is None else {"global minimum": best},
            length=self.horizon,
        )
        known = "" if best is None else f" of {best:.2f}"
        return Scene(
            view=(-side, -side, side, side),
            balls=x.numpy(),
            bonds=np.argwhere(np.triu(pairs.distance[0].numpy() < _BONDED)),
            disc_radius=np.full(self.n_agents, 0.28),
            disc_value=((own + 6) / 6).clamp(0, 1).numpy(),
            caption=(f"energy {energy:.2f}{known}",),
            charts=(chart,),
            legend=_LEGEND,
        )


def soft(seen: dict[str, Tensor], rng: Rng) -> Tensor:
    """A Morse force so broad that most minima are gone, with inertia."""
    w = torch.tensor([*_soft_weights(), _INERTIA], dtype=seen["speed"].dtype)
    return w.to(seen["speed"].device).expand(*seen["speed"].shape, -1)


def _soft_weights() -> np.ndarray:
    """Weights [channels] that fit the soft force between 0.5 and 4 sigma."""
    r = np.linspace(0.5, 4.0, 200)
    q = np.exp(_SOFTNESS * (1 - r / 2 ** (1 / 6)))
    force = _PULL * 2 * _SOFTNESS / 2 ** (1 / 6) * (q - q * q)
    b = bumps(torch.from_numpy(r), _CENTRES, _HALF_WIDTHS).numpy() * np.array(_GAINS)
    near = 1 / (0.02 + np.abs(force))[:, None]
    weights = np.linalg.lstsq(near * b, near[:, 0] * force, rcond=None)[0]
    return weights.clip(-1, 1)


def all_pairs(position: Tensor) -> Pairs:
    """Pairs of atoms at `position` [worlds, agents, 3]."""
    return Pairs(*distances(position.unsqueeze(1) - position.unsqueeze(2)))


def bumps(distance: Tensor, centres: tuple[float, ...], half_widths: tuple[float, ...]) -> Tensor:
    """Radial channels [..., channels] at distances [...]."""
    c = torch.tensor(centres, dtype=distance.dtype, device=distance.device)
    h = torch.tensor(half_widths, dtype=distance.dtype, device=distance.device)
    return bump(distance, c, h)


def pair_energy(distance: Tensor) -> Tensor:
    """4 (r^-12 - r^-6), below 0.9 its tangent there."""
    slope = -24 * (2 * _TANGENT**-13 - _TANGENT**-7)
    energy = lennard_jones_energy(distance.clamp(min=_TANGENT) ** 2)
    return energy + slope * (distance - _TANGENT).clamp(max=0)


def rotation(quaternion: Tensor) -> Tensor:
    """Rotations [worlds, 3, 3] of quaternions [worlds, 4] of any length."""
    w, x, y, z = (quaternion / dot(quaternion, quaternion).sqrt().unsqueeze(-1)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
