"""Ising: exact values on small tori, which law each update obeys, and that the agents reach it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import reference
import torch

from invariantzoo.envs.core.rng import POLICY
from invariantzoo.envs.core.system import by_name
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.ising import Ising, State, heat_bath, metropolis

T_CRITICAL = 2 / np.log(1 + np.sqrt(2))
UPDATES = ("sequential", "checkerboard", "parallel")
POLICIES = {"heat-bath": heat_bath, "metropolis": metropolis}


@cache
def spins(size: int) -> np.ndarray:
    return reference.spins(size)


def as_state(system: Ising, s: np.ndarray, turn: int = 0) -> State:
    """States [states, N] as worlds of the system, whose parameters are numbers."""

    def filled(value: float) -> torch.Tensor:
        return torch.full((len(s), 1), value, dtype=torch.float64)

    world = [filled(float(v)) for v in (system.temperature, system.field, system.coupling)]  # type: ignore[arg-type]
    return State(torch.from_numpy(s.astype(float)), *world, torch.full((len(s), 1), turn))


def flips(system: Ising, chance: Callable[..., torch.Tensor]) -> np.ndarray:
    """The policy's chance to flip every spin in every state [states, N]."""
    return chance(system.invariants(as_state(system, spins(system.lattice_size)))).numpy()


def groups(system: Ising) -> list[list[int]]:
    """The sets of spins that act together, as `active` says."""
    s = -np.ones((1, system.n_agents))
    if system.update == "parallel":
        return [list(range(system.n_agents))]
    turns = {"sequential": system.n_agents, "checkerboard": 2}[system.update]
    active = [system.active(as_state(system, s, turn)) for turn in range(turns)]
    return [torch.nonzero(flags[0]).flatten().tolist() for flags in active if flags is not None]


# Exact values of the 4 x 4 torus


def test_degeneracies_of_the_4_x_4_torus() -> None:
    system = Ising()
    energy = 16 * system.energy(as_state(system, spins(4)))
    values, counts = np.unique(energy.numpy().round(9), return_counts=True)
    assert values.tolist() == [-32, *range(-24, 25, 4), 32]
    assert counts.tolist()[:8] == [2, 32, 64, 424, 1728, 6688, 13568, 20524]
    assert counts.tolist() == counts.tolist()[::-1]


def test_stable_states_of_the_4_x_4_torus() -> None:
    """No lone flip gains: 702 states; every lone flip costs: 10."""
    system = Ising()
    alignment = system.invariants(as_state(system, spins(4)))["alignment"].numpy()
    assert (alignment >= 0).all(1).sum() == 702
    assert (alignment > 0).all(1).sum() == 10


@pytest.mark.parametrize("field", [0.0, 0.3])
def test_energy_and_loss_are_those_of_the_formula(field: float) -> None:
    s = spins(4)[::7]
    system = Ising(field=field, coupling=-0.7)
    state = as_state(system, s)
    energy = -(-0.7 * reference.bonds(s) + field * s.sum(1)) / 16
    np.testing.assert_allclose(system.energy(state), energy, rtol=0, atol=1e-14)
    local = -0.7 * reference.neighbour_sum(s) + field
    loss = system.loss(state, torch.zeros(len(s), 16), state)
    np.testing.assert_allclose(loss, -s * local, rtol=0, atol=1e-14)
    found = system.invariants(state)
    np.testing.assert_allclose(
        found["alignment"] + found["field_alignment"], s * local, rtol=0, atol=1e-14
    )


def test_a_lone_flip_changes_the_loss_by_the_energy() -> None:
    """The game has the energy as its exact potential."""
    system = Ising(field=0.2, coupling=0.9)
    state = as_state(system, spins(4)[::97])
    for site in range(16):
        spin = state.spin.clone()
        spin[:, site] *= -1
        after = state._replace(spin=spin)
        loss = system.loss(state, None, after)[:, site]  # type: ignore[arg-type]
        before = system.loss(state, None, state)[:, site]  # type: ignore[arg-type]
        change = 16 * (system.energy(after) - system.energy(state))
        torch.testing.assert_close(loss - before, change, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("temperature", "field", "known"),
    [
        (
            2.5,
            0.1,
            {"log Z": 14.690292559447, "bonds": 1.413016953, "m": 0.389340806, "|m|": 0.780647656},
        ),
        (3.0, 0.5, {"log Z": 14.508888764751, "m": 0.743207342}),
        (2.0, 0.0, {"log Z": 17.105367118732, "|m|": 0.918943267, "m^2": 0.868921682}),
        (T_CRITICAL, 0.0, {"log Z": 16 * 0.970119716172, "energy": -1.565623788, "c": 0.783267}),
    ],
)
def test_exact_values_of_the_4_x_4_torus(
    temperature: float, field: float, known: dict[str, float]
) -> None:
    """Ours, the enumeration of the tests, and values found by transfer matrix and Kaufman."""
    s = spins(4)
    law, log_z = reference.gibbs(s, temperature, field)
    m = s.mean(1)
    energy = -(reference.bonds(s) + field * s.sum(1)) / 16
    found = {
        "log Z": log_z,
        "bonds": law @ reference.bonds(s) / 16,
        "energy": law @ energy,
        "m": law @ m,
        "|m|": law @ abs(m),
        "m^2": law @ m**2,
        "c": 16 * (law @ energy**2 - (law @ energy) ** 2) / temperature**2,
    }
    for name, value in known.items():
        assert abs(found[name] / value - 1) < (1e-6 if name == "c" else 2e-9), name
    for update in ("sequential", "checkerboard"):
        ours = Ising(temperature=temperature, field=field, update=update)
        log_weight = ours.log_weight(as_state(ours, s))
        np.testing.assert_allclose(log_weight.softmax(0), law, rtol=1e-12)
        assert abs(float(log_weight.logsumexp(0)) - log_z) < 1e-12
        exact = {"energy": found["energy"], "magnetization": found["m"]}
        exact["abs_magnetization"] = found["|m|"]
        for name, value in ours.references().items():
            assert abs(value - exact[name]) < 1e-12, name


def test_references_are_only_given_where_they_are_exact() -> None:
    assert Ising(lattice_size=5).references() == {}
    assert Ising(temperature=(2.0, 3.0)).references() == {}
    assert set(Ising(update="parallel").references()) == set(Ising.reductions)


# Which law: the transition matrix from the policies' own chances


def test_the_two_laws_of_the_3_x_3_torus() -> None:
    s, temperature, field = spins(3), 2.5, 0.15
    bonds = reference.bonds(s) / 9
    gibbs, _ = reference.gibbs(s, temperature, field)
    parallel = reference.all_at_once(s, temperature, field)
    assert abs(-gibbs @ bonds + 1.492599) < 1e-6
    assert abs(-parallel @ bonds + 1.313611) < 1e-6
    for update, law in (("sequential", gibbs), ("parallel", parallel)):
        system = Ising(lattice_size=3, temperature=temperature, field=field, update=update)
        ours = system.log_weight(as_state(system, s)).softmax(0)
        np.testing.assert_allclose(ours, law, rtol=1e-12)


@pytest.mark.parametrize(
    ("size", "update", "policy"),
    [
        (3, "sequential", "heat-bath"),
        (3, "sequential", "metropolis"),
        (3, "parallel", "heat-bath"),
        (2, "checkerboard", "heat-bath"),
        (2, "checkerboard", "metropolis"),
    ],
)
@pytest.mark.parametrize("coupling", [1.0, -0.6])
def test_stationary_law_and_detailed_balance(
    size: int, update: str, policy: str, coupling: float
) -> None:
    system = Ising(lattice_size=size, temperature=2.5, field=0.15, coupling=coupling, update=update)
    s = spins(size)
    chain = reference.chain(flips(system, POLICIES[policy]), groups(system))
    np.testing.assert_allclose(chain.sum(1), 1, rtol=0, atol=1e-14)
    if update == "parallel":
        law = reference.all_at_once(s * 1, 2.5 / coupling, 0.15 / coupling)
    else:
        law, _ = reference.gibbs(s, 2.5 / coupling, 0.15 / coupling)
    assert abs(law @ chain - law).max() < 1e-15
    flow = law[:, None] * chain
    assert abs(flow - flow.T).max() < 1e-15
    if update == "parallel":
        gibbs, _ = reference.gibbs(s, 2.5 / coupling, 0.15 / coupling)
        assert abs(gibbs @ chain - gibbs).max() > 1e-3


def test_metropolis_all_at_once_obeys_neither_law() -> None:
    system = Ising(lattice_size=3, temperature=2.5, field=0.15, update="parallel")
    chain = reference.chain(flips(system, metropolis), groups(system))
    gibbs, _ = reference.gibbs(spins(3), 2.5, 0.15)
    for law in (gibbs, reference.all_at_once(spins(3), 2.5, 0.15)):
        assert abs(law @ chain - law).max() > 1e-3


def test_sublattices_of_a_checkerboard_hold_no_neighbours() -> None:
    for size in (2, 4, 6):
        system = Ising(lattice_size=size, update="checkerboard")
        even, odd = groups(system)
        assert sorted(even + odd) == list(range(size * size))
        for group in (even, odd):
            place = np.stack(np.unravel_index(group, (size, size)), -1)
            apart = abs(place[:, None] - place[None])
            assert not (np.minimum(apart, size - apart).sum(-1) == 1).any()


# The agents reach it: statistics through the environment


def rollout(
    system: Ising, policy: str, worlds: int, steps: int, every: int
) -> dict[str, np.ndarray]:
    """Means per world, over every `every`-th step after a third of the run, under a policy."""
    env = VectorEnv(system, worlds, seed=11, autoreset=False)
    act = system.policies()[policy]
    seen = env.reset()
    sums = {name: np.zeros(worlds) for name in ("energy", "m", "|m|", "bonds")}
    counted = 0
    for t in range(steps):
        action = act(by_name(system, torch.from_numpy(seen)), env.rng(POLICY))
        seen, _ = env.advance(action.numpy())
        if t >= steps // 3 and t % every == 0:
            counted += 1
            energy, m = system.energy(env.tensors).numpy(), env.state.spin.mean(1)
            sums["energy"] += energy
            sums["m"] += m
            sums["|m|"] += abs(m)
            sums["bonds"] += energy + env.state.field[:, 0] * m
    return {name: total / counted for name, total in sums.items()}


def off(found: np.ndarray, expected: float) -> float:
    """Distance from the expected mean in standard errors, over independent worlds."""
    return float((found.mean() - expected) / (found.std(ddof=1) / np.sqrt(len(found))))


@pytest.mark.parametrize(("temperature", "field"), [(2.5, 0.0), (3.0, 0.5)])
@pytest.mark.parametrize("policy", ["heat-bath", "metropolis"])
@pytest.mark.parametrize("update", ["sequential", "checkerboard"])
def test_the_agents_reach_equilibrium(
    update: str, policy: str, temperature: float, field: float
) -> None:
    """512 worlds; relaxation takes under 10 sweeps, of which 40 are left out."""
    system = Ising(temperature=temperature, field=field, update=update)
    found = rollout(system, policy, 512, 120 * system.sweep, max(system.sweep // 2, 1))
    exact = system.references()
    known = {"energy": "energy", "m": "magnetization", "|m|": "abs_magnetization"}
    for name, metric in known.items():
        assert abs(off(found[name], exact[metric])) < 3, name
    assert found["energy"].std(ddof=1) / np.sqrt(512) < 0.01, "too few samples to tell"


def test_all_at_once_reaches_the_other_law() -> None:
    system = Ising(lattice_size=3, temperature=2.5, field=0.15, update="parallel")
    found = rollout(system, "heat-bath", 512, 300, 1)
    s = spins(3)
    parallel = reference.all_at_once(s, 2.5, 0.15) @ reference.bonds(s) / 9
    gibbs = reference.gibbs(s, 2.5, 0.15)[0] @ reference.bonds(s) / 9
    assert abs(off(found["bonds"], -parallel)) < 3
    assert abs(off(found["bonds"], -gibbs)) > 20


@pytest.mark.parametrize("update", UPDATES)
def test_metrics_of_an_episode_are_means_after_burn_in(update: str) -> None:
    system = Ising(update=update, n_sweeps=6, burn_in=2, field=0.2)
    env = VectorEnv(system, 3, seed=5)
    act, seen = system.policies()["heat-bath"], env.reset()
    energies, sizes = [], []
    for t in range(system.horizon):
        action = act(by_name(system, torch.from_numpy(seen)), env.rng(POLICY))
        # The step that ends the episode is taken by hand: the environment resets within it.
        if t == system.horizon - 1:
            rng = env.rng(0)
            after = system.transition(env.tensors, action, rng)
        out = env.step(action.numpy())
        seen = out.observation
        if t < system.horizon - 1:
            assert out.metrics == {}
            after = env.tensors
        energies.append(system.energy(after).numpy().copy())
        sizes.append(after.spin.mean(-1).abs().numpy().copy())
    start = 2 * system.sweep
    np.testing.assert_allclose(out.metrics["energy"], np.mean(energies[start:], 0), atol=1e-13)
    np.testing.assert_allclose(
        out.metrics["abs_magnetization"], np.mean(sizes[start:], 0), atol=1e-13
    )


@pytest.mark.parametrize("update", ["sequential", "checkerboard"])
def test_only_those_whose_turn_it_is_flip(update: str) -> None:
    system = Ising(update=update)
    env = VectorEnv(system, 32, seed=2)
    env.reset()
    seen = np.zeros(16, bool)
    for _ in range(40):
        active, before = env.active().copy(), env.state.spin.copy()
        out = env.step(np.ones((32, 16), np.int64))
        assert not out.done.any()
        assert ((env.state.spin != before) == active).all()
        assert (env.acted == active).all()
        assert (active.sum(1) == {"sequential": 1, "checkerboard": 8}[update]).all()
        seen |= active.any(0)
    assert seen.all()


def test_turns_are_drawn_evenly() -> None:
    env = VectorEnv(Ising(n_sweeps=1000), 512, seed=3)
    env.reset()
    counts = np.zeros(16)
    for _ in range(100):
        counts += env.active().sum(0)
        env.step(np.zeros((512, 16), np.int64))
    n = counts.sum()
    assert n == 51200
    chi2 = ((counts - n / 16) ** 2 / (n / 16)).sum()
    assert chi2 < 15 + 5 * np.sqrt(30)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lattice_size": 5, "update": "checkerboard"}, "lattice_size=5 must be even"),
        ({"lattice_size": 1}, "lattice_size=1 must be a whole number of at least 2"),
        ({"temperature": 0.0}, "temperature=0.0 must be a finite number"),
        ({"temperature": (3.0, 2.0)}, "low <= high"),
        ({"field": float("nan")}, "field=nan must be a finite number"),
        ({"update": "sequental"}, "did you mean 'sequential'"),
        ({"n_sweeps": 40, "burn_in": 40}, "burn_in=40 must be below n_sweeps=40"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ising(**parameters)  # type: ignore[arg-type]
