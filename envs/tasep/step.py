"""Compiled twins of the exclusion processes: one step of every world from given actions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.philox import uniform_pair
from ..core.kernels.reductions import accumulate_metrics, bad_action
from ..core.physics.kernels.updates import Scores, bad_choice, drawn_turn

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")


# Open chain


class OpenArrays(NamedTuple):
    """The state of open chains, in the order of its fields."""

    occupied: Any
    alpha: Any
    beta: Any
    turn: Any


OPEN_PARAMETERS = np.dtype([("parallel", np.bool_), ("hop_probability", float), ("sweep", float)])


@_part
def _observe_bonds(taken: Any, alpha: float, beta: float, p: Any, rows: Any) -> float:
    """Observations of the bonds of one chain; returns its particles."""
    n, behind, particles = len(taken), 1.0, 0.0
    for bond in range(n + 1):
        rate = alpha if bond == 0 else (beta if bond == n else p.hop_probability)
        ahead = taken[bond] if bond < n else 0.0
        rows[bond, 0] = behind * (1.0 - ahead)
        rows[bond, 1] = behind + ahead - 1.0
        rows[bond, 2] = rate if rate < 1.0 else 1.0
        particles += ahead
        behind = ahead
    return particles


@_compile
def observe_open(arrays: Any, parameters: Any, worlds: Any, observation: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state, p = arrays_at(arrays[0].state, OpenArrays), parameters[0]
    for w in worlds:
        _observe_bonds(state.occupied[w], state.alpha[w, 0], state.beta[w, 0], p, observation[w])


@_compile
def step_open(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_choice(action)
    if bad >= 0:
        return bad
    state, p = arrays_at(arrays[0].state, OpenArrays), parameters[0]
    episode, turn = arrays_at(arrays[0].episode, Scores), state.turn
    worlds, n = state.occupied.shape
    for w in range(worlds):
        taken, hops = state.occupied[w], 0.0
        ahead = 1.0  # what lay behind the bond before the step
        for bond in range(n + 1):
            behind = ahead
            ahead = taken[bond] if bond < n else 0.0
            acts = p.parallel or bond == turn[w, 0]
            hop = behind * (1.0 - ahead) if acts and action[w, bond] == 1 else 0.0
            episode.reward[w, bond] = -hop
            hops += hop
            if hop > 0.0:
                if bond > 0:
                    taken[bond - 1] = 0.0
                if bond < n:
                    taken[bond] = 1.0
        if not p.parallel:
            turn[w, 0] = drawn_turn(episode.seed[0], episode.world[w], episode.clock[w], n + 1)
        episode.metric[w, 0] = hops * p.sweep / (n + 1)
        alpha, beta = state.alpha[w, 0], state.beta[w, 0]
        episode.metric[w, 1] = _observe_bonds(taken, alpha, beta, p, observation[w]) / n
    accumulate_metrics(arrays[0].episode)
    return -1


# Ring


@_part
def gap(x: Any, i: int, sites: int) -> int:
    """Empty sites ahead of particle i."""
    n = len(x)
    if n == 1:
        return sites - 1
    free = x[i + 1 if i + 1 < n else 0] - x[i] - 1
    return free if free >= 0 else free + sites


class RingArrays(NamedTuple):
    """The state of rings, in the order of its fields."""

    position: Any
    turn: Any


RING_PARAMETERS = np.dtype(
    [
        ("parallel", np.bool_),
        ("n_sites", np.int64),
        ("sight", np.int64),
        ("hop_probability", float),
        ("crash_cost", float),
        ("per_site", float),  # from a count per step to one per site and sweep
    ]
)


@_part
def _observe_particles(x: Any, p: Any, rows: Any) -> None:
    for i in range(len(x)):
        ahead = gap(x, i, p.n_sites)
        rows[i, 0] = ahead if ahead < p.sight else p.sight
        rows[i, 1] = len(x) / p.n_sites
        rows[i, 2] = p.hop_probability


@_compile
def observe_ring(arrays: Any, parameters: Any, worlds: Any, observation: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, RingArrays)
    for w in worlds:
        _observe_particles(state.position[w], parameters[0], observation[w])


@_compile
def step_ring(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_choice(action)
    if bad >= 0:
        return bad
    state, p = arrays_at(arrays[0].state, RingArrays), parameters[0]
    episode, turn = arrays_at(arrays[0].episode, Scores), state.turn
    loss, sites = episode.reward, p.n_sites
    worlds, n = state.position.shape
    for w in range(worlds):
        x, hops, crashes = state.position[w], 0.0, 0.0
        for i in range(n):  # losses first: they count what is free before the step
            loss[w, i] = 0.0
            if action[w, i] == 1 and (p.parallel or i == turn[w, 0]):
                free = gap(x, i, sites) > 0
                loss[w, i] = -1.0 if free else p.crash_cost
                hops += free
                crashes += not free
        for i in range(n):
            if loss[w, i] < 0.0:
                x[i] = x[i] + 1 if x[i] + 1 < sites else 0
        if not p.parallel:
            turn[w, 0] = drawn_turn(episode.seed[0], episode.world[w], episode.clock[w], n)
        episode.metric[w, 0] = p.per_site * hops
        episode.metric[w, 1] = p.per_site * crashes
        _observe_particles(x, p, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1


# Gates


@_part
def _observe_gates(taken: Any, rate: Any, depth: int, rows: Any) -> float:
    """Observations of the gates of one chain; returns its particles per site."""
    n = len(taken)
    first, last, total = 0.0, 0.0, 0.0
    for i in range(n):
        total += taken[i]
        first += taken[i] if i < depth else 0.0
        last += taken[i] if i >= n - depth else 0.0
    rows[0, 0], rows[1, 0] = first / depth, 1.0 - last / depth
    rows[0, 1], rows[1, 1] = total / n, 1.0 - total / n
    rows[0, 2], rows[1, 2] = rate[0], rate[1]
    return total / n


class GatesArrays(NamedTuple):
    """The state of chains between two gates, in the order of its fields."""

    occupied: Any
    hops: Any
    rate: Any


GATES_PARAMETERS = np.dtype([("sweeps", np.int64), ("depth", np.int64), ("cost", float)])


@_compile
def observe_gates(arrays: Any, parameters: Any, worlds: Any, observation: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, GatesArrays)
    for w in worlds:
        _observe_gates(state.occupied[w], state.rate[w], parameters[0].depth, observation[w])


@_compile
def step_gates(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    state, p = arrays_at(arrays[0].state, GatesArrays), parameters[0]
    episode, rate = arrays_at(arrays[0].episode, Scores), state.rate
    worlds, n = state.occupied.shape
    tries = p.sweeps * (n + 1)
    for w in range(worlds):
        taken, moved = state.occupied[w], 0
        for i in range(2):
            opening: Any = np.float64(action[w, i, 0])
            opening = opening if opening < 1.0 else 1.0
            rate[w, i] = 0.5 * ((opening if opening > -1.0 else -1.0) + 1.0)
        for block in range((tries + 1) // 2):
            first, second = uniform_pair(
                episode.seed[0], episode.world[w], episode.clock[w], 0, block
            )
            for k in range(2 if 2 * block + 1 < tries else 1):
                drawn = (n + 1) * (first if k == 0 else second)
                bond = np.int64(drawn)
                limit = rate[w, 0] if bond == 0 else (rate[w, 1] if bond == n else 1.0)
                full = bond == 0 or taken[bond - 1] > 0.0
                empty = bond == n or taken[bond] == 0.0
                if full and empty and drawn - bond < limit:
                    if bond > 0:
                        taken[bond - 1] = 0.0
                    if bond < n:
                        taken[bond] = 1.0
                    moved += 1
        hops = moved / tries
        state.hops[w, 0] = hops
        shared = p.cost * (rate[w, 0] + rate[w, 1]) - hops
        episode.reward[w, 0], episode.reward[w, 1] = shared, shared
        density = _observe_gates(taken, rate[w], p.depth, observation[w])
        episode.metric[w, 0], episode.metric[w, 1] = hops, density
        episode.metric[w, 2], episode.metric[w, 3] = rate[w, 0], rate[w, 1]
    accumulate_metrics(arrays[0].episode)
    return -1
