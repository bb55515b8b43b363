"""Compiled twin of `envs/ising/equilibrium.py`: one step of every world from given actions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core.kernel import Kernel
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.reductions import accumulate_metrics
from ..core.physics.kernels.updates import PARALLEL, SEQUENTIAL, Scores, bad_choice, drawn_turn

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")


class Spins(NamedTuple):
    """The state, in the order of its fields."""

    spin: Any
    temperature: Any
    field: Any
    coupling: Any
    turn: Any
    ground: Any


class Scratch(NamedTuple):
    """Memory for one world."""

    local: np.ndarray  # [agents] force of the neighbours


PARAMETERS = np.dtype(
    [
        ("update", np.int64),
        ("lattice_size", np.int64),
        ("solves", np.bool_),  # whether it is judged by the ground state
        ("most_aligned", float),  # limits of the observation
        ("most_field", float),
        ("coldest", float),
        ("cooling", float),  # factor of the temperature per step
    ]
)


def make_kernel(n_agents: int, parameters: np.ndarray) -> Kernel:
    """The kernel for worlds of `n_agents` spins."""
    return Kernel(step, observe, parameters, scratch=Scratch(np.empty(n_agents)))


@_part
def _compute_forces(spin: Any, coupling: Any, size: Any, local: Any) -> None:
    """J times the neighbours of every spin of one world [N]."""
    for r in range(size):
        up = (r - 1 if r > 0 else size - 1) * size
        down = (r + 1 if r < size - 1 else 0) * size
        row = r * size
        if len(coupling) == 1:
            j = coupling[0]
            for c in range(size):
                left = c - 1 if c > 0 else size - 1
                right = c + 1 if c < size - 1 else 0
                total = spin[up + c] + spin[down + c] + spin[row + left] + spin[row + right]
                local[row + c] = j * total
        else:
            n = size * size
            for c in range(size):
                left = c - 1 if c > 0 else size - 1
                right = c + 1 if c < size - 1 else 0
                local[row + c] = (
                    coupling[row + c] * spin[row + right]
                    + coupling[row + left] * spin[row + left]
                    + coupling[n + row + c] * spin[down + c]
                    + coupling[n + up + c] * spin[up + c]
                )


@_part
def _write_observations(
    spin: Any, temperature: float, field: float, local: Any, p: Any, observation: Any
) -> None:
    """Observations of one world whose forces are known."""
    aligned, most, cold = p.most_aligned, p.most_field, 1.0 / temperature
    cold = cold if cold < p.coldest else p.coldest
    for i in range(len(spin)):
        value = spin[i] * local[i]
        value = value if value < aligned else aligned
        observation[i, 0] = value if value > -aligned else -aligned
        value = spin[i] * field
        value = value if value < most else most
        observation[i, 1] = value if value > -most else -most
        observation[i, 2] = cold


@_compile
def observe(arrays: Any, parameters: Any, worlds: Any, observation: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state, scratch = arrays_at(arrays[0].state, Spins), arrays_at(arrays[0].scratch, Scratch)
    p, local = parameters[0], scratch.local
    for w in worlds:
        s, heat, h = state.spin[w], state.temperature[w, 0], state.field[w, 0]
        _compute_forces(s, state.coupling[w], p.lattice_size, local)
        _write_observations(s, heat, h, local, p, observation[w])


@_compile
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_choice(action)
    if bad >= 0:
        return bad
    worlds, n = action.shape
    state, scratch = arrays_at(arrays[0].state, Spins), arrays_at(arrays[0].scratch, Scratch)
    episode, p = arrays_at(arrays[0].episode, Scores), parameters[0]
    size, local, turn, metric = p.lattice_size, scratch.local, state.turn, episode.metric
    for w in range(worlds):
        s, h = state.spin[w], state.field[w, 0]
        _compute_forces(s, state.coupling[w], size, local)
        acts = turn[w, 0]
        if p.update == SEQUENTIAL:
            if action[w, acts] == 1:
                s[acts] = -s[acts]
            turn[w, 0] = drawn_turn(episode.seed[0], episode.world[w], episode.clock[w], n)
        elif p.update == PARALLEL:
            for i in range(n):
                s[i] *= 1.0 - 2.0 * action[w, i]
        else:
            for r in range(size):
                for i in range(r * size + (r + acts) % 2, (r + 1) * size, 2):
                    s[i] *= 1.0 - 2.0 * action[w, i]
            turn[w, 0] = 1 - acts
        for i in range(n):
            episode.reward[w, i] = -s[i] * (local[i] + h)
        state.temperature[w, 0] *= p.cooling
        _compute_forces(s, state.coupling[w], size, local)
        _write_observations(s, state.temperature[w, 0], h, local, p, observation[w])
        energy, up = 0.0, 0.0
        for i in range(n):
            energy -= s[i] * (0.5 * local[i] + h)
            up += s[i]
        metric[w, 0] = energy / n
        metric[w, 1] = up / n
        metric[w, 2] = abs(up / n)
        if p.solves:
            excess = energy / n - state.ground[w, 0]
            metric[w, 3] = excess
            metric[w, 4] = 1.0 if excess < 1e-9 else 0.0
    accumulate_metrics(arrays[0].episode)
    return -1
