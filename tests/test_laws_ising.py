"""Ising: exact values on small tori, which law each update obeys, and that the agents reach it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from invariantzoo import make_system, spec
from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.observation import by_name
from invariantzoo.envs.core.rng import POLICY, Rng
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.ising import exact, stationary
from invariantzoo.envs.ising.equilibrium import Ising, State
from invariantzoo.envs.ising.ground_state import ground_energy
from invariantzoo.envs.ising.policies import cold, heat_bath, metropolis
from invariantzoo.envs.ising.transport import IsingTransport
from invariantzoo.training.rl.score import evaluate, run_episodes

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
    turns = torch.full((len(s), 1), turn)
    return State(torch.from_numpy(s.astype(float)), *world, turns, filled(0.0))


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
    assert Ising(lattice_size=9).references() == {}
    assert Ising(lattice_size=5, update="parallel").references() == {}
    assert Ising(bonds="random").references() == {}
    assert set(Ising(lattice_size=5).references()) == {"energy", "magnetization"}
    assert Ising(temperature=(2.0, 3.0)).references() == {}
    assert set(Ising(update="parallel").references()) == set(Ising().reductions)


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


def test_no_policy_gets_more_than_aligned_spins_and_cold_ones_nearly_do() -> None:
    """Exact returns on 3 x 3: of policies by their chains, of the best by value iteration.

    The best sees all spins, so that no policy of what a spin sees can do better.
    """
    system = Ising(lattice_size=3)
    s, n = spins(3), system.n_agents
    bit = 1 << np.arange(n)
    place = np.empty(len(s), int)
    place[(s > 0) @ bit] = np.arange(len(s))
    after = place[((s > 0) @ bit)[:, None] ^ bit]  # [states, spin that is flipped]
    before = as_state(system, s)

    def reward(flipped: np.ndarray) -> np.ndarray:
        loss = system.loss(before, before.turn, as_state(system, flipped))
        return -loss.mean(1).numpy()

    kept = np.repeat(reward(s)[:, None], n, 1)
    flipped = np.stack([reward(s[after[:, i]]) for i in range(n)], 1)
    most = np.maximum(kept, flipped).max(1)
    assert most.max() == 4
    assert (abs(s.sum(1)[most == 4]) == n).all()
    best = np.zeros(len(s))
    for _ in range(500):
        best = np.maximum(kept + best[:, None], flipped + best[after]).mean(1)
    lost = 4 * 500 - best.mean()  # what it costs to align the spins, once
    assert 10 < lost < 60

    def lost_by(chance: Callable[..., torch.Tensor]) -> float:
        flip = flips(system, chance)
        step = np.diag((1 - flip).mean(1))
        np.add.at(step, (np.arange(len(s))[:, None], after), flip / n)
        steps, total = 1, ((1 - flip) * kept + flip * flipped).mean(1)
        while steps < 2**16:
            steps, total, step = 2 * steps, total + step @ total, step @ step
        return float(4 * steps - total.mean())

    assert lost < lost_by(cold) < 0.001 * 4 * 2**16
    assert lost_by(heat_bath) > 0.2 * 4 * 2**16


def test_cold_spins_have_the_return_of_the_scale() -> None:
    """Whole episodes of the id, fused, and fewer sweeps one step after the other."""
    scale = spec("ising-equilibrium-v0").score
    assert scale is not None
    env = VectorEnv(Ising(), 64, seed=13)
    env.reset()
    steps = env.system.horizon
    returns = -steps * env.rollout("cold", steps, every=16)["loss"].mean(0)
    assert (returns <= scale.best).all()
    assert scale.score(returns.mean()) > 0.999
    one = rollout(Ising(lattice_size=6, temperature=5.0), "cold", 256, 40 * 36, 18)
    env = VectorEnv(Ising(lattice_size=6, temperature=5.0, n_sweeps=40, burn_in=13), 256, seed=12)
    env.reset()
    env.rollout("cold", env.system.horizon, every=18)
    other = env.episode_metrics()["energy"]
    error = np.hypot(one["energy"].std(), other.std()) / np.sqrt(256)
    assert abs(one["energy"].mean() - other.mean()) < 3.5 * error
    assert -1.99 < other.mean() < -1.5


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
    env = VectorEnv(Ising(n_sweeps=1000, burn_in=0), 512, seed=3)
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
        ({"bonds": "gauss"}, "bonds='gauss' must be one of uniform, random"),
        ({"final_temperature": 0.0}, "final_temperature=0.0 must be a finite number"),
        ({"final_temperature": 1.0, "temperature": (2.0, 3.0)}, "must be a number with"),
        ({"final_temperature": 1.0, "lattice_size": 7}, "lattice_size=7 must be at most 6"),
        ({"final_temperature": 3.0}, "final_temperature=3.0 must be at most temperature=2.5"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ising(**parameters)  # type: ignore[arg-type]


# Exact values beyond 4 x 4


@pytest.mark.parametrize(
    ("temperature", "f", "u", "m"),
    [
        (1.5, -2.0084431854, -1.9511165731, 0.9864996026),
        (2.0, -2.0515856254, -1.7455645753, 0.9113193779),
        (2.1, -2.0688414574, -1.6620824131, 0.8687476244),
        (2.5, -2.1984095519, -1.1060792037, 0.0),
        (3.0, -2.4476481956, -0.8173095925, 0.0),
        (4.0, -3.0364259141, -0.5572722406, 0.0),
    ],
)
def test_the_infinite_lattice(temperature: float, f: float, u: float, m: float) -> None:
    found = exact.onsager(temperature)
    np.testing.assert_allclose(found[:2], (f, u), rtol=0, atol=2e-10)
    assert abs(found[3] - m) < 1e-10
    step = 1e-4
    slope = (exact.onsager(temperature + step)[1] - exact.onsager(temperature - step)[1]) / 2 / step
    assert abs(found[2] / slope - 1) < 1e-5


def test_the_infinite_lattice_at_the_critical_point() -> None:
    assert abs(T_CRITICAL - 2.269185314213022) < 1e-14
    f, u, *_ = exact.onsager(T_CRITICAL * (1 + 1e-12))
    assert abs(f + 2.1096511446) < 1e-9
    assert abs(u + np.sqrt(2)) < 1e-9


@pytest.mark.parametrize(
    ("size", "log_z", "u", "c"),
    [
        (4, 0.970119716172, -1.565623788, 0.783267),
        (8, 0.939715324829, -1.491589, 1.145559),
        (16, 0.932196314981, -1.453065, 1.498704),
        (32, 0.930320390184, -1.433658, 1.846765),
        (64, 0.929851631694, -1.423938, 2.192199),
        (128, 0.929734455770, -1.419075, 2.536283),
    ],
)
def test_finite_tori_at_the_critical_point(size: int, log_z: float, u: float, c: float) -> None:
    n, step = size**2, 1e-4
    k = 1 / T_CRITICAL
    low, here, high = (exact.kaufman(size, 1 / (k + d)) / n for d in (-step, 0, step))
    assert abs(here - log_z) < 1e-12
    assert abs(-(high - low) / (2 * step) - u) < 2e-6
    assert abs(k * k * (high - 2 * here + low) / step**2 / c - 1) < 1e-4
    if size <= exact.MOST_COLUMNS:
        found = exact.moments(size, k, 0.0)
        assert abs(found.log_z / n - log_z) < 1e-12
        assert abs(exact.log_z(size, k, 0.0) / n - log_z) < 1e-12
        assert abs(-found.mean[0] / n - u) < 1e-6
        assert abs(k * k * found.covariance[0, 0] / n - c) < 1e-6


@pytest.mark.parametrize(
    ("temperature", "field", "metric"),
    [
        (2.5, 0.1, [4.931204316, 1.549988521, 8.379507294]),
        (3.0, 0.5, [4.930477637, 2.202663610, 1.658988666]),
    ],
)
def test_the_metric_is_the_covariance(
    temperature: float, field: float, metric: list[float]
) -> None:
    found = exact.moments(4, 1 / temperature, field / temperature)
    g = found.covariance / 16
    np.testing.assert_allclose([g[0, 0], g[0, 1], g[1, 1]], metric, rtol=1e-8)
    law, log_z = reference.gibbs(spins(4), temperature, field)
    x = np.stack([reference.bonds(spins(4)), spins(4).sum(1)], -1).astype(float)
    mean = law @ x
    np.testing.assert_allclose(found.mean, mean, rtol=1e-11)
    np.testing.assert_allclose(found.covariance, (law[:, None] * x).T @ x - np.outer(mean, mean))
    assert abs(found.log_z - log_z) < 1e-11


@pytest.mark.parametrize("size", [2, 3, 5, 6])
def test_moments_are_derivatives_of_log_z(size: int) -> None:
    x, y, step = 0.3, -0.12, 1e-5
    found = exact.moments(size, x, y)
    for axis, (dx, dy) in enumerate(((step, 0.0), (0.0, step))):
        slope = exact.log_z(size, x + dx, y + dy) - exact.log_z(size, x - dx, y - dy)
        assert abs(slope / (2 * step) - found.mean[axis]) < 1e-7 * size**2
        high, low = exact.moments(size, x + dx, y + dy), exact.moments(size, x - dx, y - dy)
        curve = (high.mean - low.mean) / (2 * step)
        np.testing.assert_allclose(curve, found.covariance[axis], rtol=1e-6)


def test_exact_samples() -> None:
    """Energy, |m| and the field's sign over 40,000 independent samples."""
    temperature, field = 2.5, 0.1
    uniform = np.random.default_rng(3).random((40_000, 4))
    system = Ising(temperature=temperature, field=field)
    s = exact.sample_rows(4, 1 / temperature, field / temperature, uniform)
    found = system.metrics(as_state(system, s), None, as_state(system, s))  # type: ignore[arg-type]
    for name, value in system.references().items():
        assert abs(off(found[name].numpy(), value)) < 3.5, name


def test_ground_states_by_enumeration() -> None:
    """Rows added one by one find what looking at all states finds."""
    for size, field in ((2, 0.0), (3, 0.0), (3, 0.7), (4, 0.0), (4, -0.3)):
        system = Ising(lattice_size=size, bonds="random", field=field)
        state = system.initial(Rng.single(size, 3), 3)
        found = ground_energy(state.coupling, state.field, size)
        for w in range(3):
            states = as_state(system, spins(size))
            glass = states._replace(coupling=state.coupling[w : w + 1].expand(len(states.spin), -1))
            assert abs(float(system.energy(glass).min()) - float(found[w])) < 1e-12


def test_ground_states_of_equal_bonds() -> None:
    for size in (4, 5, 6):
        one = torch.ones(1, 1, dtype=torch.float64)
        assert abs(float(ground_energy(one, 0.2 * one, size)) + 2.2) < 1e-12
        frustrated = 2 - (size % 2) * 4 / size  # one bond of every odd ring
        assert abs(float(ground_energy(-one, 0 * one, size)) + frustrated) < 1e-12


# Fused runs


FUSED = [
    ("sequential", "heat-bath", 20),
    ("sequential", "metropolis", 20),
    ("sequential", "wolff", 20),
    ("checkerboard", "heat-bath", 20),
    ("checkerboard", "heat-bath", 128),
    ("checkerboard", "metropolis", 20),
    ("checkerboard", "wolff", 20),
    ("parallel", "heat-bath", 20),
]


@pytest.mark.parametrize(("update", "policy", "worlds"), FUSED)
@pytest.mark.parametrize(
    "world",
    [
        {"temperature": 2.5, "field": 0.1},
        {"temperature": 3.0, "field": 0.5, "lattice_size": 8},
        {"temperature": 2.6, "field": -0.4, "coupling": -0.8, "lattice_size": 6},
        {"temperature": T_CRITICAL, "lattice_size": 4},
    ],
    ids=["4x4", "8x8", "6x6 antiferromagnet", "4x4 critical"],
)
def test_fused_runs_obey_the_law(
    update: str, policy: str, worlds: int, world: dict[str, float]
) -> None:
    """Colours, words (128 worlds) and spins one by one, within 3.5 standard errors over worlds."""
    if update == "parallel" and world.get("lattice_size", 4) != 4:
        pytest.skip("the law of all at once is summed up to 4 x 4")
    system = Ising(update=update, n_sweeps=2600, burn_in=200, **world)  # type: ignore[arg-type]
    env = VectorEnv(system, worlds, seed=21)
    env.reset()
    env.rollout(policy, system.horizon, every=system.sweep)
    found = env.episode_metrics()
    assert 0 < found["energy"].std(ddof=1) < (0.4 if update == "parallel" else 0.1)
    for name, value in system.references().items():
        assert abs(off(found[name], value)) < 3.5, name


def test_worlds_that_share_a_word_are_independent() -> None:
    """The mean over a word's 64 worlds varies as 1 / 64 of the worlds' own variance."""
    system = Ising(lattice_size=8, temperature=2.4, update="checkerboard", n_sweeps=60, burn_in=20)
    env = VectorEnv(system, 64 * 64, seed=8)
    env.reset()
    env.rollout("heat-bath", system.horizon, every=system.sweep)
    for name in ("energy", "magnetization"):
        values = env.episode_metrics()[name].reshape(64, 64)
        ratio = 64 * values.mean(1).var(ddof=1) / values.var(ddof=1)
        # A chi-squared variable with 63 degrees of freedom, over 63.
        assert abs(ratio - 1) < 4 * np.sqrt(2 / 63), name
    s = env.state.spin.reshape(64, 64, 64)
    alike = (s[:, :-1] * s[:, 1:]).mean(-1)
    m = s.mean(-1)
    assert abs(alike - m[:, :-1] * m[:, 1:]).mean() < 0.2
    assert abs(off((m[:, :-1] * m[:, 1:]).mean(1), 0.0)) < 3.5


@pytest.mark.parametrize(("update", "policy", "worlds"), FUSED)
def test_records_are_of_the_state_that_is_left(update: str, policy: str, worlds: int) -> None:
    system = Ising(lattice_size=6, update=update, temperature=2.2, field=0.3, n_sweeps=9, burn_in=0)
    env = VectorEnv(system, worlds, seed=5)
    env.reset()
    found = env.rollout(policy, 9 * system.sweep, every=3 * system.sweep)
    known = system.metrics(env.tensors, None, env.tensors)  # type: ignore[arg-type]
    for name, value in known.items():
        assert found[name].shape == (3, worlds)
        np.testing.assert_allclose(found[name][-1], value, rtol=0, atol=1e-12)
        np.testing.assert_allclose(env.episode_metrics()[name], found[name].mean(0), atol=1e-12)
    if update != "parallel":
        at_rest = system.loss(env.tensors, None, env.tensors).mean(1)  # type: ignore[arg-type]
        np.testing.assert_allclose(found["loss"][-1], at_rest, rtol=0, atol=1e-12)
    assert (env.age == 9 * system.sweep).all()
    assert set(np.unique(env.state.spin)) == {-1.0, 1.0}


@pytest.mark.parametrize("bonds", ["uniform", "random"])
@pytest.mark.parametrize("update", UPDATES)
def test_the_loss_of_a_step_is_that_among_the_neighbours_as_they_were(
    update: str, bonds: str
) -> None:
    system = Ising(lattice_size=6, update=update, field=0.3, coupling=0.7, bonds=bonds)
    env = VectorEnv(system, 9, seed=5)
    env.reset()
    for _ in range(3):
        before = type(env.state)(*(torch.from_numpy(field.copy()) for field in env.state))
        found = env.rollout("heat-bath", 1, every=1)["loss"][0]
        expected = system.loss(before, before.turn, env.tensors).mean(1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("update", ["sequential", "checkerboard"])
def test_a_short_episode_scores_what_its_steps_do(update: str) -> None:
    """Fused as one by one, where hot spins cool down and sweeps differ from each other."""
    given = {"lattice_size": 6, "temperature": 3.0, "final_temperature": 0.2, "field": 0.2}
    system = make_system("ising-anneal-v0", update=update, n_sweeps=3, **given)
    own = make_policy("heat-bath", system)
    fused = evaluate(system, own, episodes=400, seeds=1, deterministic=False)
    env = VectorEnv(system, 400, seed=3, autoreset=False)
    stepped = run_episodes(env, own, deterministic=False)
    assert fused.keys() == stepped.keys()
    for name, values in stepped.items():
        error = np.hypot(values.std(), fused[name].std()) / 20
        assert abs(values.mean() - fused[name].mean()) <= 4 * error


def test_the_loss_of_clusters_is_at_rest_whatever_the_update() -> None:
    system = Ising(lattice_size=6, update="parallel", field=0.3)
    env = VectorEnv(system, 9, seed=5)
    env.reset()
    found = env.rollout("wolff", 4, every=2)["loss"][-1]
    at_rest = system.loss(env.tensors, None, env.tensors).mean(1)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, at_rest, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [5, 8])
def test_exact_means_of_the_coldest(size: int) -> None:
    """All spins along the field, where V has elements beyond any number."""
    cold = Ising(lattice_size=size, temperature=0.01, field=0.1).references()
    assert cold == pytest.approx({"energy": -2.1, "magnetization": 1.0}, abs=1e-12)


def test_fused_worlds_do_not_depend_on_the_batch() -> None:
    for update in ("sequential", "checkerboard"):
        system = Ising(update=update, temperature=(1.0, 4.0), field=(-1.0, 1.0))
        together, alone = VectorEnv(system, 5, seed=4), VectorEnv(system, 1, seed=4, first_world=3)
        for env in (together, alone):
            env.reset()
            env.rollout("heat-bath", 40 * system.sweep, every=system.sweep)
        assert (together.state.spin[3] == alone.state.spin[0]).all()
        assert together.state.turn[3] == alone.state.turn[0]
        for name, value in together.episode_metrics().items():
            assert value.shape == (5,), name


def test_fused_and_step_by_step_anneal_alike() -> None:
    """Energy at the end and chance to find the ground state, over 200 worlds each."""
    system = make_system("ising-anneal-v0", lattice_size=4, n_sweeps=20)
    fused = VectorEnv(system, 400, seed=6)
    fused.reset()
    fused.rollout("metropolis", system.horizon, every=1)
    np.testing.assert_allclose(fused.state.temperature, 0.2, rtol=1e-9)
    plain = VectorEnv(system, 400, seed=7, autoreset=False)
    act, seen = system.policies()["metropolis"], plain.reset()
    for _ in range(system.horizon):
        action = act(by_name(system, torch.from_numpy(seen)), plain.rng(POLICY))
        seen, _ = plain.advance(action.numpy())
    np.testing.assert_allclose(plain.state.temperature, 0.2, rtol=1e-9)
    one, other = fused.episode_metrics(), plain.episode_metrics()
    for name in ("residual_energy", "solved", "energy"):
        error = np.hypot(one[name].std(), other[name].std()) / np.sqrt(400)
        assert abs(one[name].mean() - other[name].mean()) < 3.5 * error, name
    assert (one["residual_energy"] > -1e-12).all()
    assert 0.1 < one["solved"].mean() < 1


def test_what_rollout_refuses() -> None:
    env = VectorEnv(Ising(), 1, seed=0)
    with pytest.raises(RuntimeError, match="reset"):
        env.rollout("heat-bath", 16, every=16)
    env.reset()
    for arguments, message in (
        (("heatbath", 16, 16), "did you mean 'heat-bath'"),
        (("heat-bath", 17, 16), "steps=17 must be a multiple of every=16"),
        (("heat-bath", 0, 16), "steps=0 must be a whole number of at least 1"),
    ):
        policy, steps, every = arguments
        with pytest.raises(ValueError, match=message):
            env.rollout(policy, steps, every=every)
    with pytest.raises(ValueError, match="moves many agents as one"):
        make_policy("wolff", env.system)(torch.zeros(1, 16, 3), None)


# Transport


def test_transport_dissipates_and_obeys_jarzynski() -> None:
    """exp(-dissipated work) has mean 1, also far from equilibrium: weak fields on 4 x 4."""
    system = IsingTransport(side=4, start=(0.3, 0.1), end=(0.4, -0.05), horizon=6)
    scores = evaluate(
        system, make_policy("straight", system), episodes=4000, seeds=1, deterministic=False
    )
    work = scores["dissipation"][0]
    assert off(work, 0.0) > 5
    assert abs(off(np.exp(-work), 1.0)) < 3.5
    exact_change = reference.gibbs(spins(4), 2.5, -0.125)[1]
    exact_change -= reference.gibbs(spins(4), 1 / 0.3, 0.1 / 0.3)[1]
    assert abs(system.path.free_change() - exact_change) < 1e-10


def test_slow_transport_loses_what_the_metric_says() -> None:
    """With full relaxation a step loses the Bregman divergence of log Z."""
    system = IsingTransport(side=4, start=(0.2, 0.3), end=(0.2, -0.3), horizon=12, relaxation=12)
    scores = evaluate(
        system, make_policy("straight", system), episodes=4000, seeds=1, deterministic=False
    )
    points = system.path.line(torch.arange(13)[:, None]).numpy()
    expected = 0.0
    for here, there in pairwise(points):
        mean = exact.moments(4, *here).mean
        expected += exact.log_z(4, *there) - exact.log_z(4, *here) - (there - here) @ mean
    assert abs(off(scores["dissipation"][0], expected)) < 3.5


def test_the_geodesic_is_shorter_than_the_straight_line() -> None:
    start, end, n = (0.3, 0.2), (0.1, -0.2), 12

    def cost(points: np.ndarray) -> float:
        middle, change = (points[1:] + points[:-1]) / 2, np.diff(points, axis=0)
        steps = zip(middle, change, strict=True)
        return sum(float(d @ exact.moments(4, *p).covariance @ d) for p, d in steps)

    found = exact.geodesic(4, start, end, n)
    np.testing.assert_allclose(found[[0, -1]], [start, end])
    straight = np.linspace(start, end, n + 1)
    assert cost(found) < cost(straight) - 0.01


def test_the_learned_geodesic_is_nearly_as_short_as_the_exact_one() -> None:
    """Both under the exact metric of 6 x 6 spins, at several places of every step."""
    start, end, n = (0.5, 0.2), (0.5, -0.2), 40

    def cost(points: np.ndarray) -> float:
        total = 0.0
        for first, last in pairwise(points):
            for share in (0.1, 0.3, 0.5, 0.7, 0.9):
                metric = exact.moments(6, *(first + share * (last - first))).covariance
                total += float((last - first) @ metric @ (last - first)) / 5
        return total

    learned, known = exact.learned_geodesic(start, end, n), exact.geodesic(6, start, end, n)
    np.testing.assert_allclose(learned[[0, -1]], [start, end])
    assert cost(known) < 0.5 * cost(np.linspace(start, end, n + 1))
    assert cost(learned) < 1.02 * cost(known)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"side": 5}, "side=5 must be even and at most 8"),
        ({"side": 10}, "side=10 must be even and at most 8"),
        ({"start": (0.0, 0.1)}, "1 / T of start=0.0 must be a finite number"),
        ({"end": (0.005, 0.1)}, "1 / T of end=0.005 must be a finite number: from 0.01"),
        ({"end": 0.5}, "end=0.5 must be two numbers"),
        ({"reach": (0.5, 0.0)}, "h / T of reach=0.0 must be a finite number: above 0"),
    ],
)
def test_bad_transport_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IsingTransport(**parameters)  # type: ignore[arg-type]


def chances_of(flip: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Chances of both actions of a policy that goes by alignment and 1 / T."""

    def probabilities(observation: Tensor) -> Tensor:
        chance = flip(observation[..., 0].double() + observation[..., 1], observation[..., 2])
        return torch.stack([1 - chance, chance], -1)

    return probabilities


def test_the_heat_bath_is_judged_to_be_exact() -> None:
    system = make_system("ising-equilibrium-v0", temperature=2.0, field=0.1)
    found = system.exact_evaluation(chances_of(lambda a, x: 1 / (1 + (2 * a * x).exp())))
    assert abs(found["kl"]) < 1e-9
    for name, value in system.references().items():
        assert found[name] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("update", ["parallel", "checkerboard"])
def test_nobody_is_judged_by_the_law_of_another_update(update: str) -> None:
    system = make_system("ising-equilibrium-v0", update=update)
    assert system.exact_evaluation(chances_of(lambda a, x: 1 / (1 + (2 * a * x).exp()))) == {}


@pytest.mark.parametrize("size", [3, 4])
def test_a_policy_of_another_temperature_is_judged_by_its_own_law(size: int) -> None:
    """Heat baths at 2.5 seen from 2.0: KL of two Gibbs laws, (x - y) <E> + change of log Z."""
    system = make_system("ising-equilibrium-v0", temperature=2.0, lattice_size=size)
    found = system.exact_evaluation(chances_of(lambda a, x: 1 / (1 + (2 * a / 2.5).exp())))
    other = make_system("ising-equilibrium-v0", temperature=2.5, lattice_size=size)
    energy = other.references()["energy"]
    assert found["energy"] == pytest.approx(energy, abs=1e-10)
    change = exact.log_z(size, 0.5, 0.0) - exact.log_z(size, 0.4, 0.0)
    assert found["kl"] == pytest.approx(size**2 * (0.5 - 0.4) * energy + change, abs=1e-9)
    for given in ({"bonds": "random"}, {"temperature": (2.0, 3.0)}, {"lattice_size": 6}):
        varied = make_system("ising-equilibrium-v0", **given)
        assert varied.exact_evaluation(chances_of(lambda a, x: a)) == {}


@pytest.mark.parametrize(("temperature", "field"), [(2.0, 0.0), (0.5, 0.1), (0.25, 0.02)])
def test_what_cold_flips_keep_is_found(temperature: float, field: float) -> None:
    """Flips in detailed balance with Gibbs's law, each at a rate of its own, keep that law.

    Found from the law of another temperature and field; to go from all spins down to all up takes
    them 1e9 steps and more where it is cold.
    """
    system = make_system(
        "ising-equilibrium-v0", lattice_size=3, temperature=temperature, field=field
    )
    n, sites = system.n_agents, torch.arange(system.n_agents)
    weight = system.log_weight(system._every_state()).flatten()
    partner = torch.arange(2**n)[:, None] ^ (1 << sites)
    rate = torch.rand(2**n, n, generator=torch.Generator().manual_seed(0)).double()
    rate = torch.maximum(rate, rate[partner, sites])  # of both ways
    flip = rate * (weight[partner] - weight[:, None]).clamp(max=0).exp()
    law = stationary.law_of_flips(flip, (0.7 * weight).softmax(0))
    assert law is not None
    gibbs = weight.softmax(0)
    assert float((law - gibbs).abs().sum()) < 1e-8
    assert float(law[0] / law[-1]) == pytest.approx(float(gibbs[0] / gibbs[-1]), rel=1e-7)


def test_spins_that_never_flip_back_have_no_law() -> None:
    system = make_system("ising-equilibrium-v0", lattice_size=3)
    assert system.exact_evaluation(chances_of(lambda a, x: torch.zeros_like(a))) == {}
