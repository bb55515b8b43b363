"""TASEP: exact values of open chains and rings, and that the agents reach them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from invariantzoo import make_system
from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.kernels.rollouts import rollout_plan
from invariantzoo.envs.core.rng import POLICY, Rng
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.tasep import exact
from invariantzoo.envs.tasep import rollout_words as kernels
from invariantzoo.envs.tasep.gates import GatedTasep
from invariantzoo.envs.tasep.open import OpenState, OpenTasep
from invariantzoo.envs.tasep.ring import RingState, RingTasep
from invariantzoo.envs.tasep.step import OpenArrays
from invariantzoo.training.rl.score import evaluate

LENGTHS = (1, 2, 10, 50, 100, 1000)
CURRENTS = {
    (0.3, 0.8): (0.21818182, 0.21393841, 0.21016939, 0.21000002, 0.21, 0.21),
    (1.0, 1.0): (0.5, 0.4, 0.28571429, 0.25742574, 0.25373134, 0.25037481),
    (0.7, 0.7): (0.35, 0.31818182, 0.27328213, 0.2563673, 0.25341741, 0.25037098),
    (0.3, 0.3): (0.15, 0.16666667, 0.1944726, 0.20608391, 0.20797346, 0.20979076),
    (0.5, 0.5): (0.25,) * 6,
}


def master(n: int, alpha: float, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """States [2^n, n] of the open chain and their stationary law, from the master equation."""
    state = np.arange(2**n)[:, None] >> np.arange(n) & 1
    code = state @ (1 << np.arange(n))
    generator = np.zeros((2**n, 2**n))
    for s in range(2**n):
        moves = [(alpha, [0])] if not state[s, 0] else []
        moves += [(beta, [n - 1])] if state[s, -1] else []
        moves += [(1.0, [i, i + 1]) for i in range(n - 1) if state[s, i] > state[s, i + 1]]
        for rate, sites in moves:
            after = state[s].copy()
            after[sites] ^= 1
            generator[code[s], code[s]] -= rate
            generator[after @ (1 << np.arange(n)), code[s]] += rate
    generator[0] = 1.0
    return state, np.linalg.solve(generator, np.eye(2**n)[0])


# Closed forms


@pytest.mark.parametrize(("gates", "known"), CURRENTS.items())
def test_currents_of_the_open_chain(gates: tuple[float, float], known: tuple[float, ...]) -> None:
    found = [float(exact.current(n, *gates)) for n in LENGTHS]
    np.testing.assert_allclose(found, known, rtol=0, atol=6e-9)


def test_current_with_open_gates_and_with_gates_that_sum_to_one() -> None:
    for n in (3, 20, 500):
        assert exact.current(n, 1, 1) == pytest.approx((n + 2) / (2 * (2 * n + 1)), rel=1e-10)
        assert exact.current(n, 0.2, 0.8) == pytest.approx(0.16, rel=1e-10)
        np.testing.assert_allclose(exact.profile(n, 0.2, 0.8), 0.2, rtol=1e-9)


@pytest.mark.parametrize(
    ("gates", "known"),
    [
        ((0.6, 0.7), (0.540274, 0.510334, 0.485537, 0.460973, 0.432935, 0.394051)),
        ((0.3, 0.8), (0.297896, 0.295732, 0.292727, 0.288078, 0.280049, 0.263289)),
    ],
)
def test_profiles_of_six_sites(gates: tuple[float, float], known: tuple[float, ...]) -> None:
    np.testing.assert_allclose(exact.profile(6, *gates), known, rtol=0, atol=6e-7)


@pytest.mark.parametrize("gates", [(0.6, 0.7), (0.3, 0.8), (0.2, 0.3), (1.0, 1.0)])
def test_matrix_product_solves_the_master_equation(gates: tuple[float, float]) -> None:
    state, law = master(6, *gates)
    np.testing.assert_allclose(exact.profile(6, *gates), law @ state, rtol=0, atol=1e-13)
    leaving = gates[1] * law @ state[:, -1]
    assert exact.current(6, *gates) == pytest.approx(leaving, rel=1e-12)


def test_profile_of_holes_seen_in_a_mirror() -> None:
    one, other = exact.profile(30, 0.3, 0.6), exact.profile(30, 0.6, 0.3)
    np.testing.assert_allclose(one, 1 - other[::-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("gates", "name", "current", "density"),
    [
        ((0.2, 0.9), "low", 0.16, 0.2),
        ((0.9, 0.2), "high", 0.16, 0.8),
        ((0.8, 0.7), "maximal", 0.25, 0.5),
        ((0.3, 0.3), "shock", 0.21, 0.5),
    ],
)
def test_phases(gates: tuple[float, float], name: str, current: float, density: float) -> None:
    """The middle of a long chain against the limit; in the maximal phase it comes as 1 / N."""
    assert exact.phase(*gates) == name
    assert exact.limit_current(*gates) == pytest.approx(current)
    assert exact.limit_density(*gates) == pytest.approx(density)
    n = 800
    assert exact.current(n, *gates) == pytest.approx(current, abs=1e-3)
    middle = exact.profile(n, *gates)[n // 2 - 1 : n // 2 + 1].mean()
    assert middle == pytest.approx(density, abs=1e-3)


def test_the_end_of_the_maximal_phase_decays_with_the_root_of_the_distance() -> None:
    n, site = 2000, np.array([100, 400])
    excess = exact.profile(n, 1.0, 1.0)[site - 1] - 0.5
    x = (site - 0.5) / n
    np.testing.assert_allclose(
        excess, (1 - 2 * x) / np.sqrt(4 * np.pi * n * x * (1 - x)), rtol=0.01
    )


def test_best_gates() -> None:
    alpha, beta, value = exact.best_gates(50, 0.1)
    assert value == pytest.approx(0.1562, abs=5e-5)
    assert alpha == pytest.approx(beta, abs=1e-4)
    assert alpha == pytest.approx(0.41, abs=5e-3)
    assert exact.current(50, 1, 1) - 0.2 == pytest.approx(0.0574, abs=5e-5)
    nearby = exact.current(50, alpha + 0.01, beta - 0.01) - 0.1 * (alpha + beta)
    assert nearby < value


# The agents


def measured(system: Any, worlds: int, sweeps: int, burn_in: int) -> dict[str, np.ndarray]:
    """Means over `sweeps` sweeps of fused runs by independent worlds [worlds]."""
    env = VectorEnv(system, worlds, seed=11)
    env.reset()
    env.rollout("hop", burn_in * system.sweep, every=burn_in * system.sweep)
    records = env.rollout("hop", sweeps * system.sweep, every=system.sweep)
    return {name: value.mean(0) for name, value in records.items()}


def require_mean(found: np.ndarray, expected: float, errors: float = 3.5) -> None:
    """Within so many standard errors, which must be small and not zero."""
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert 0 < error < 0.01 * max(abs(expected), 0.1)
    assert abs(found.mean() - expected) < errors * error


@pytest.mark.parametrize("gates", CURRENTS)
def test_fused_runs_have_the_exact_current(gates: tuple[float, float]) -> None:
    system = OpenTasep(n_sites=10, alpha=gates[0], beta=gates[1])
    found = measured(system, 64, 2000, 300)
    require_mean(found["current"], system.references()["current"])
    require_mean(found["density"], system.references()["density"])
    np.testing.assert_allclose(found["loss"], -found["current"] / system.sweep, rtol=1e-12)


def test_fused_runs_with_slow_bonds() -> None:
    system = OpenTasep(n_sites=10, alpha=0.3, beta=0.4, hop_probability=0.5)
    found = measured(system, 64, 3000, 500)
    require_mean(found["current"], system.references()["current"])


@pytest.mark.parametrize("gates", [(0.6, 0.7), (0.3, 0.8)])
def test_fused_runs_have_the_exact_profile(gates: tuple[float, float]) -> None:
    """Each of 40,000 worlds gives one snapshot, so that the errors are those of coins."""
    worlds = 40_000
    env = VectorEnv(OpenTasep(n_sites=6, alpha=gates[0], beta=gates[1]), worlds, seed=3)
    env.reset()
    env.rollout("hop", 60 * 7, every=60 * 7)
    expected = exact.profile(6, *gates)
    error = np.sqrt(expected * (1 - expected) / worlds)
    z = (env.state.occupied.mean(0) - expected) / error
    assert np.abs(z).max() < 4.0


def test_worlds_are_independent() -> None:
    """With open gates, worlds that shared the choice of the bond would become the same."""
    env = VectorEnv(OpenTasep(n_sites=8, alpha=1.0, beta=1.0), 4000, seed=5)
    env.reset()
    env.rollout("hop", 900, every=900)
    x = env.state.occupied
    even, odd = x[::2], x[1::2]
    spread = np.sqrt(x.var(0) ** 2 / len(even))
    covariance = (even * odd).mean(0) - even.mean(0) * odd.mean(0)
    assert np.abs(covariance / spread).max() < 4.0


def words(n: int, gates: tuple[float, float], worlds: int, sweeps: int) -> Any:
    """A run of the kernel of 32 worlds to a word, of any length: (state, records of a sweep)."""
    system = OpenTasep(n_sites=n, alpha=gates[0], beta=gates[1])
    env = VectorEnv(system, worlds, seed=6)
    env.reset()
    state = env.state
    rng = Rng.single(6, worlds)
    plan = rollout_plan(sweeps * system.sweep, system.sweep, rng, 3)
    kernels.run_words(OpenArrays(*state), plan)
    records = plan.records
    return state, records


@pytest.mark.parametrize("gates", CURRENTS)
@pytest.mark.parametrize("n", [1, 10])
def test_words_have_the_exact_current(n: int, gates: tuple[float, float]) -> None:
    """Short chains: the worlds of a word vary together, so the error is that of 64 words."""
    state, records = words(n, gates, 32 * 64, 500)
    found = records[100:].mean(0).reshape(64, 32, 3).mean(1)
    require_mean(found[:, 0], float(exact.current(n, *gates)))
    require_mean(found[:, 1], float(exact.profile(n, *gates).mean()))
    np.testing.assert_array_equal(records[-1, :, 1], state.occupied.mean(1))


@pytest.mark.parametrize("gates", [(0.6, 0.7), (0.3, 0.8)])
def test_words_have_the_exact_profile(gates: tuple[float, float]) -> None:
    state, _ = words(6, gates, 40_000, 60)
    expected = exact.profile(6, *gates)
    error = np.sqrt(expected * (1 - expected) / 40_000)
    assert np.abs((state.occupied.mean(0) - expected) / error).max() < 4.0


def test_hops_are_counted() -> None:
    """One attempt a record: a hop or none; the first at the entry of an empty chain."""
    system = OpenTasep(n_sites=100, alpha=0.5, beta=0.5)
    env = VectorEnv(system, 32, seed=1)
    env.reset()
    assert kernels.in_words(32, system.n_sites, system.hop_probability)
    env.state.occupied[:] = 0.0
    env.state.turn[:] = 0
    found = env.rollout("hop", 2000, every=1)
    hops = found["current"] * system.n_agents / system.sweep
    assert set(np.unique(np.rint(hops * 1e6) / 1e6)) == {0.0, 1.0}
    np.testing.assert_allclose(hops[0], found["density"][0] * 100)  # the first is at the entry


@pytest.mark.parametrize("gates", [(1.0, 1.0), (0.6, 0.7)])
def test_worlds_of_a_word_vary_as_independent_ones(gates: tuple[float, float]) -> None:
    """Variance of a mean over the 32 worlds of a word, over a 32nd of that of a world."""
    system = OpenTasep(n_sites=100, alpha=gates[0], beta=gates[1])
    assert kernels.in_words(2048, system.n_sites, system.hop_probability)
    env = VectorEnv(system, 2048, seed=8)
    env.reset()
    every = 20 * system.sweep
    env.rollout("hop", 40 * every, every=40 * every)
    current = env.rollout("hop", 20 * every, every=every)["current"].reshape(20, 64, 32)
    of_means = current.mean(2).var(1, ddof=1).mean()
    of_worlds = current.var((1, 2), ddof=1).mean()
    ratio = of_means / (of_worlds / 32)
    assert abs(ratio - 1) < 0.04 + 4 * np.sqrt(2 / (20 * 63))


@pytest.mark.parametrize("update", ["sequential", "parallel"])
def test_single_steps_and_fused_runs_obey_one_law(update: str) -> None:
    system = OpenTasep(n_sites=5, alpha=0.4, beta=0.9, hop_probability=0.8, update=update)
    fused = measured(system, 64, 1000, 50)["current"]
    env = VectorEnv(system, 256, seed=2)
    observation, hops = env.reset(), np.zeros(256)
    policy = make_policy("hop", system)
    for t in range(300 * system.sweep):
        action = policy(torch.from_numpy(observation), env.rng(POLICY))
        out = env.step(action.numpy())
        hops += out.reward.sum(1) if t >= 30 * system.sweep else 0
        observation = out.observation
    stepped = hops / (270 * system.n_agents)
    error = np.hypot(fused.std() / 8, stepped.std() / 16)
    assert abs(fused.mean() - stepped.mean()) < 4 * error


@pytest.mark.parametrize(
    ("sites", "particles"), [(100, 50), (100, 20), (100, 60)], ids=["half", "fifth", "crowded"]
)
def test_ring(sites: int, particles: int) -> None:
    system = RingTasep(n_sites=sites, n_particles=particles, sight=0, hop_probability=0.7)
    found = measured(system, 32, 1500, 20)
    require_mean(found["current"], system.references()["current"])
    require_mean(found["crashes"], system.references()["crashes"])


@pytest.mark.parametrize(("density", "p"), [(0.5, 0.75), (0.2, 0.8), (0.3, 0.5)])
def test_parallel_ring(density: float, p: float) -> None:
    n = 1000
    ring = RingTasep(n_sites=n, n_particles=int(n * density), hop_probability=p, update="parallel")
    found = measured(ring, 16, 1500, 1000)["current"]
    expected = float(exact.parallel_ring_current(density, p))
    assert abs(found.mean() - expected) < 3.5 * found.std(ddof=1) / 4 + 1 / n * expected


def test_parallel_open_chain_in_its_phases() -> None:
    p = 0.75
    for alpha, beta in ((0.3, 0.7), (0.7, 0.3), (0.7, 0.7)):
        system = OpenTasep(
            n_sites=400, alpha=alpha, beta=beta, hop_probability=p, update="parallel"
        )
        found = measured(system, 16, 3000, 3000)["current"].mean()
        expected = float(exact.parallel_limit_current(alpha, beta, p))
        assert found == pytest.approx(expected, rel=0.01)
    assert exact.parallel_limit_current(0.7, 0.7, p) == pytest.approx(0.25)  # (1 - sqrt(1-p)) / 2


def test_all_at_once_is_another_law() -> None:
    one = measured(OpenTasep(n_sites=10), 32, 500, 100)["current"]
    other = measured(OpenTasep(n_sites=10, update="parallel"), 32, 500, 100)["current"]
    assert other.mean() > one.mean() + 0.05


def test_full_ring_stands_still_and_a_lone_particle_runs() -> None:
    full = RingTasep(n_sites=6, n_particles=6, update="parallel")
    state = full.initial(torch_rng(), 2)
    hop = torch.ones(2, 6, dtype=torch.int64)
    assert torch.equal(full.loss(state, hop, state), torch.ones(2, 6).double())
    assert torch.equal(full.transition(state, hop, torch_rng()).position, state.position)
    lone = RingTasep(n_sites=6, n_particles=1, update="parallel")
    state = RingState(torch.tensor([[5]]), torch.zeros(1, 1, dtype=torch.int64))
    assert lone.transition(state, torch.ones(1, 1), torch_rng(1)).position.tolist() == [[0]]


def torch_rng(worlds: int = 2) -> Any:
    return Rng.single(0, worlds)


def test_an_open_chain_moves_as_it_should() -> None:
    """All at once: entry, exit and the hop inside at the same time; nothing jumps two sites."""
    system = OpenTasep(n_sites=4, update="parallel")
    one = torch.ones(1, 1, dtype=torch.float64)
    state = OpenState(torch.tensor([[0.0, 1, 0, 1]]).double(), one, one, torch.zeros(1, 1).long())
    hop = torch.ones(1, 5, dtype=torch.int64)
    after = system.transition(state, hop, torch_rng(1))
    assert after.occupied.tolist() == [[1.0, 0.0, 1.0, 0.0]]
    assert system.loss(state, hop, after).tolist() == [[-1.0, -0.0, -1.0, -0.0, -1.0]]


def test_gates_have_the_exact_current() -> None:
    system = GatedTasep(n_sites=10, depth=3, sweeps=10, horizon=400)
    env = VectorEnv(system, 64, seed=4, autoreset=False)
    env.reset()
    action = np.broadcast_to(np.array([[0.2], [-0.4]], np.float32), (64, 2, 1)).copy()
    hops = []
    for t in range(200):
        reward = env.step(action).reward[:, 0]
        if t >= 30:
            hops.append(reward + 0.1 * (0.6 + 0.3))
    require_mean(np.mean(hops, 0), float(exact.current(10, 0.6, 0.3)))


def test_policy_optimum_has_the_best_reward() -> None:
    system = make_system("tasep-gates-v0")
    policy = make_policy("optimum", system)
    found = evaluate(system, policy, episodes=64, seeds=1, deterministic=True)
    alpha, beta, _ = exact.best_gates(50, 0.1)
    assert found["alpha"].mean() == pytest.approx(alpha, abs=1e-6)
    assert found["current"].mean() == pytest.approx(exact.current(50, alpha, beta), abs=5e-3)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: OpenTasep(alpha=0.0), "alpha=0.0 must be"),
        (lambda: OpenTasep(beta=(0.5, 1.5)), r"beta=\(0.5, 1.5\) must be at most 1"),
        (lambda: OpenTasep(update="checkerboard"), "update='checkerboard' must be one of"),
        (lambda: RingTasep(n_sites=5, n_particles=6), "n_particles=6 must be at most n_sites"),
        (lambda: RingTasep(burn_in=10_000), "burn_in=10000 must be below"),
        (lambda: GatedTasep(n_sites=3), "depth=5 must be at most n_sites=3"),
    ],
)
def test_bad_parameters_are_named(made: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made()
