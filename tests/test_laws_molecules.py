"""Molecular dynamics against exact answers: geometry, neighbours, forces, integrators."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from invariantzoo.envs.core.physics import integrators as readable
from invariantzoo.envs.core.physics.cell import (
    copies_for,
    half_width,
    nearest_image,
    replicate,
    require_cutoff,
    widths,
)
from invariantzoo.envs.core.physics.integrators import REDUCED
from invariantzoo.envs.core.physics.kernels.neighbours import NeighbourList, periodic_neighbours
from invariantzoo.envs.core.physics.units import ACCELERATION, ATOMIC_WEIGHTS, KINETIC, WAVENUMBER
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.molecules import molecular_dynamics as dynamics
from invariantzoo.envs.molecules.lennard_jones import (
    MINIMUM_FCC,
    LennardJonesForces,
    lennard_jones_losses,
)
from invariantzoo.envs.molecules.molecular_dynamics import (
    Thermostat,
    advance,
    conserved,
    maxwell,
    start_md,
)

SHEARED = np.array([[9.0, 0.0, 0.0], [2.5, 8.0, 0.0], [-1.0, 1.5, 8.5]])
OPEN = np.zeros((1, 3, 3))


def liquid(seed: int, copies: int, density: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """A jittered fcc lattice: positions [n, 3] and cell [3, 3]."""
    edge = (4 / density) ** (1 / 3)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * edge
    x, cell = replicate(basis, edge * np.eye(3), (copies,) * 3)
    return x + np.random.default_rng(seed).normal(0, 0.05, x.shape), cell


# ---------------------------------------------------------------------------------- geometry


def test_the_nearest_image_is_the_best_of_27() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(-20, 20, (4000, 3)))
    cell = torch.from_numpy(SHEARED)
    shifts = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3) @ cell
    r = nearest_image(x, cell)
    best = torch.linalg.vector_norm(r[:, None] + shifts, dim=-1).min(1).values
    inside = best < 0.5 * widths(cell).min()
    assert inside.sum() > 500
    found = torch.linalg.vector_norm(r, dim=-1)[inside]
    assert torch.allclose(found, best[inside], rtol=0, atol=1e-12)


def test_open_space_has_no_images_and_cutoffs_fit() -> None:
    x = torch.tensor([[50.0, -3.0, 7.0]], dtype=torch.float64)
    assert torch.equal(nearest_image(x, torch.zeros(3, 3, dtype=torch.float64)), x)
    assert torch.isinf(widths(torch.zeros(3, 3, dtype=torch.float64))).all()
    with pytest.raises(ValueError, match="replicate the cell"):
        require_cutoff(4.0, np.diag([7.826] * 3))
    assert copies_for(4.0, np.diag([7.826, 8.0, 20.0])) == (2, 1, 1)


@pytest.mark.parametrize("cell", [np.diag([9.0, 10.0, 11.0]), SHEARED, np.zeros((3, 3))])
def test_lists_hold_what_brute_force_finds(cell: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(-15, 15, (1, 60, 3))
    near = NeighbourList(cell[None], 60, 3.0, 0.5)
    near.update(x)
    r = nearest_image(torch.from_numpy(x[0][None] - x[0][:, None]), torch.from_numpy(cell))
    d = torch.linalg.vector_norm(r, dim=-1).fill_diagonal_(99).numpy()
    for i in range(60):
        assert near.index[0, i, : near.count[0, i]].tolist() == np.flatnonzero(d[i] < 3.5).tolist()


@pytest.mark.parametrize("cell", [np.diag([8.5] * 3), 6 * (np.ones((3, 3)) - np.eye(3))])
def test_lists_hold_what_comes_within_the_cutoff_later(cell: np.ndarray) -> None:
    """In a cell that is hardly two cutoffs wide, from beyond half its width."""
    rng, cutoff = np.random.default_rng(5), half_width(cell) - 0.02
    x = rng.uniform(size=(60, 3)) @ cell
    near = NeighbourList(cell[None], 60, cutoff, 0.8)
    near.update(x[None])
    step = rng.normal(size=(60, 3))
    x += 0.39 * step / np.linalg.norm(step, axis=1, keepdims=True)
    near.update(x[None])
    assert near.builds == 1
    exact = periodic_neighbours(x, cell, cutoff)
    for i in range(60):
        row = near.index[0, i, : near.count[0, i]]
        assert set(exact.neighbour[exact.start[i] : exact.start[i + 1]]) <= set(row)


@pytest.mark.parametrize("shear", [0.0, 3.0])
def test_cells_find_the_same_list_as_all_pairs(shear: float) -> None:
    x, cell = liquid(2, 6)
    cell = cell + np.array([[0, 0, 0], [shear, 0, 0], [0, shear, 0]])
    lists = []
    for start in (x, x[:400]):
        near = NeighbourList(cell[None], len(start), 2.0, 0.3)
        near.update(start[None])
        lists.append(near)
    r = nearest_image(torch.from_numpy(x[None] - x[:, None]), torch.from_numpy(cell)).numpy()
    d2 = (r**2).sum(-1)
    np.fill_diagonal(d2, np.inf)
    assert len(x) == 864  # above the size from which cells are used
    for near, n in zip(lists, (864, 400), strict=True):
        inside = d2[:n, :n] < 2.3**2
        for i in range(n):
            row = near.index[0, i, : near.count[0, i]]
            assert row.tolist() == np.flatnonzero(inside[i]).tolist()


def test_lists_are_rebuilt_in_time() -> None:
    x, cell = liquid(3, 4)
    forces = LennardJonesForces(cell[None], len(x), cutoff=2.0)
    rng = np.random.default_rng(4)
    for _ in range(20):
        x = x + rng.normal(0, 0.03, x.shape)
        found = forces(x[None])[0]
        fresh = LennardJonesForces(cell[None], len(x), cutoff=2.0)(x[None])[0]
        assert np.abs(found - fresh).max() < 1e-10 * np.abs(fresh).max()
    assert 1 < forces.neighbours.builds < 20


# ------------------------------------------------------------------------------------ forces


@pytest.mark.parametrize("cell", [7.0 * np.eye(3), SHEARED * 0.8, np.zeros((3, 3))])
def test_lennard_jones_forces_are_the_gradient(cell: np.ndarray) -> None:
    x, _ = liquid(5, 3)
    x = np.stack([x[:50], x[20:70] * 1.02])
    cells = np.stack([cell, cell])
    force, loss = LennardJonesForces(cells, 50)(x)
    position = torch.from_numpy(x).requires_grad_()
    expected = lennard_jones_losses(position, torch.from_numpy(cells), 2.5)
    gradient = torch.autograd.grad(expected.sum(), position)[0].numpy()
    assert np.abs(force + gradient).max() < 1e-10 * np.abs(gradient).max()
    assert np.allclose(loss, expected.detach().numpy(), rtol=1e-10, atol=1e-10)
    assert np.abs(force.sum(1)).max() < 1e-12 * np.abs(force).max()


def test_the_fcc_crystal() -> None:
    """E = 2 (A12 / r^12 - A6 / r^6) per atom with lattice sums A12, A6: minimum at 1.0901730."""
    edge, far = 1.0901730 * math.sqrt(2), 40.0
    grid = np.stack(np.meshgrid(*[np.arange(-26, 27)] * 3, indexing="ij"), -1).reshape(-1, 3)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    d2 = ((((grid[:, None] + basis) * edge) ** 2).sum(-1)).ravel()
    d2 = d2[(d2 > 1e-9) & (d2 < far**2)]
    tail = -4 * math.pi * (4 / edge**3) * 4 / 2 / 3 / far**3  # of -4 r^-6 beyond `far`, per atom
    energy = 2 * (d2**-6.0 - d2**-3.0).sum() + tail
    assert abs(energy - MINIMUM_FCC) < 2e-6
    x, cell = replicate(basis * edge, edge * np.eye(3), (5, 5, 5))
    _, loss = LennardJonesForces(cell[None], len(x), cutoff=3.8, shifted=False)(x[None])
    near = d2[d2 < 3.8**2]
    assert np.allclose(loss, 2 * (near**-6.0 - near**-3.0).sum(), atol=1e-10)


# ------------------------------------------------------------------------------- integrators


def spring(k: float, length: float = 0.0):  # type: ignore[no-untyped-def]
    """A spring between two bodies: positions [worlds, 2, 3] -> forces, losses."""

    def forces(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r = x[:, 1] - x[:, 0]
        d = np.sqrt((r * r).sum(-1, keepdims=True))
        pull = k * (1 - length / d) * r
        energy = 0.25 * k * (d - length) ** 2
        return np.stack([pull, -pull], 1), np.repeat(energy, 2, 1)

    return forces


def trap(k: float):  # type: ignore[no-untyped-def]
    def forces(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -k * x, 0.5 * k * (x * x).sum(-1)

    return forces


def test_a_dimer_vibrates_at_the_discrete_frequency() -> None:
    """omega' = (2 / dt) asin(omega dt / 2); mu v^2 / 2 + k x^2 (1 - omega^2 dt^2 / 4) / 2 stays."""
    k, dt, length = 45.0, 0.5, 0.98
    mass = np.array([ATOMIC_WEIGHTS[8], ATOMIC_WEIGHTS[1]])
    mu = mass.prod() / mass.sum()
    omega = math.sqrt(k * ACCELERATION / mu)
    assert abs(omega / (2 * math.pi) / WAVENUMBER - 3592.3) < 0.05
    stretch = 0.05
    x = np.array([[[0, 0, 0], [length + stretch, 0, 0]]])
    bodies = start_md(x, np.zeros_like(x), spring(k, length))
    discrete = 2 / dt * math.asin(0.5 * omega * dt)
    shadows = []
    for _ in range(200):
        advance(bodies, spring(k, length), mass, dt, 10, freedom=1)
        r = bodies.position[0, 1, 0] - bodies.position[0, 0, 0] - length
        u = bodies.velocity[0, 1, 0] - bodies.velocity[0, 0, 0]
        assert abs(r - stretch * math.cos(discrete * dt * bodies.clock[0])) < 1e-11
        shadows.append(0.5 * mu * u * u * KINETIC + 0.5 * k * r * r * (1 - (omega * dt) ** 2 / 4))
    assert np.ptp(shadows) < 1e-12 * shadows[0] * 10
    slow = start_md(x, np.zeros_like(x), spring(k, length))
    advance(slow, spring(k, length), mass, 2.1 / omega, 60, freedom=1)
    assert np.abs(slow.position).max() > 10  # omega dt > 2 is unstable


def test_verlet_is_reversible_and_of_order_two() -> None:
    x, cell = liquid(6, 3)
    forces = LennardJonesForces(cell[None], len(x), cutoff=2.5)
    mass = np.ones(len(x))
    v = maxwell(np.random.default_rng(7), 1, mass, 1.0, REDUCED)
    bodies = start_md(x[None], v, forces)
    advance(bodies, forces, mass, 0.001, 300, freedom=3 * len(x) - 3, units=REDUCED)
    warm = bodies.position.copy(), bodies.velocity.copy()
    assert np.abs(warm[0] - x).max() > 0.2
    bodies.velocity[:] *= -1
    advance(bodies, forces, mass, 0.001, 300, freedom=3 * len(x) - 3, units=REDUCED)
    assert np.abs(bodies.position[0] - x).max() < 1e-9
    spread = []
    for dt in (0.002, 0.001):
        again = start_md(*warm, forces)
        energies = []
        for _ in range(round(0.4 / dt)):
            advance(again, forces, mass, dt, 1, freedom=0, units=REDUCED)
            energies.append(conserved(again, mass, None, 0, REDUCED)[0])
        spread.append(np.std(energies))
    assert 3.6 < spread[0] / spread[1] < 4.4


def test_an_ideal_gas_moves_in_straight_lines() -> None:
    def nothing(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(x), np.zeros(x.shape[:2])

    rng = np.random.default_rng(8)
    x, v = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 3))
    bodies = start_md(x, v, nothing)
    advance(bodies, nothing, np.ones(5), 0.25, 40, freedom=12)
    assert np.allclose(bodies.position, x + 10 * v, rtol=0, atol=1e-12)


def test_langevin_without_forces_diffuses_as_it_must() -> None:
    """<v^2> = kT / m at any dt, D = (kT / m) (dt / 2) (1 + c) / (1 - c), c = exp(-gamma dt)."""

    def nothing(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(x), np.zeros(x.shape[:2])

    worlds, n, dt, tau, kt, m = 40, 50, 1.5, 1.0, 0.7, 2.0
    mass = np.full(n, m)
    v = maxwell(np.random.default_rng(9), worlds, mass, kt, REDUCED)
    bodies = start_md(np.zeros((worlds, n, 3)), v, nothing)
    heat_bath = Thermostat("langevin", np.full(worlds, kt), tau)
    options = {"thermostat": heat_bath, "freedom": 3 * n, "seed": 3, "units": REDUCED}
    advance(bodies, nothing, mass, dt, 100, **options)
    assert abs((bodies.velocity**2).mean() / (kt / m) - 1) < 5 * math.sqrt(2 / (3 * worlds * n))
    c = math.exp(-dt / tau)
    expected = (kt / m) * dt / 2 * (1 + c) / (1 - c)
    found = (bodies.position**2).mean() / (2 * 100 * dt)
    assert abs(found / expected - 1) < 0.02 + 5 * math.sqrt(2 / (3 * worlds * n))
    kept = conserved(bodies, mass, heat_bath, 3 * n, REDUCED)
    assert np.allclose(kept, dynamics.kinetic(start_md(v, v, nothing), mass, REDUCED))


def test_baoab_samples_a_trap_exactly_and_reads_cold() -> None:
    """<x^2> = kT / k for any stable dt; the kinetic temperature reads 1 - (omega dt)^2 / 4."""
    worlds, n, k, dt, kt = 20, 400, 1.0, 1.2, 0.5
    mass = np.ones(n)
    rng = np.random.default_rng(10)
    x = rng.normal(size=(worlds, n, 3)) * math.sqrt(kt / k)
    v = rng.normal(size=(worlds, n, 3)) * math.sqrt(kt)
    bodies = start_md(x, v, trap(k))
    heat_bath = Thermostat("langevin", np.full(worlds, kt), 1.0)
    squares, kinetics = [], []
    for _ in range(40):
        advance(
            bodies,
            trap(k),
            mass,
            dt,
            5,
            thermostat=heat_bath,
            freedom=3 * n,
            seed=5,
            units=REDUCED,
        )
        squares.append((bodies.position**2).mean())
        kinetics.append((bodies.velocity**2).mean())
    assert abs(np.mean(squares[4:]) / (kt / k) - 1) < 0.01
    assert abs(np.mean(kinetics[4:]) / kt - (1 - (k * dt * dt) / 4)) < 0.01


def test_csvr_gives_the_canonical_kinetic_energy() -> None:
    """K is Gamma(N_f / 2, kT): var K / <K>^2 = 2 / N_f."""

    def nothing(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(x), np.zeros(x.shape[:2])

    worlds, mass, kt, freedom = 500, np.ones(4), 1.3, 9
    v = maxwell(np.random.default_rng(11), worlds, mass, kt, REDUCED)
    bodies = start_md(np.zeros_like(v), v, nothing)
    heat_bath = Thermostat("csvr", np.full(worlds, kt), 3.0)
    start = conserved(bodies, mass, heat_bath, freedom, REDUCED)
    seen = []
    for _ in range(60):
        advance(
            bodies,
            nothing,
            mass,
            1.0,
            5,
            thermostat=heat_bath,
            freedom=freedom,
            seed=6,
            units=REDUCED,
        )
        seen.append(dynamics.kinetic(bodies, mass, REDUCED))
    energy = np.concatenate(seen[4:])
    assert abs(energy.mean() / (0.5 * freedom * kt) - 1) < 0.015
    assert abs(energy.var() / energy.mean() ** 2 - 2 / freedom) < 0.012
    assert np.allclose(conserved(bodies, mass, heat_bath, freedom, REDUCED), start, atol=1e-10)


def test_the_chain_conserves_its_energy_to_order_two() -> None:
    x, cell = liquid(12, 3)
    forces = LennardJonesForces(cell[None], len(x), cutoff=2.5)
    mass, freedom = np.ones(len(x)), 3 * len(x) - 3
    v = maxwell(np.random.default_rng(13), 1, mass, 1.0, REDUCED)
    heat_bath = Thermostat("nose-hoover", np.array([1.0]), 0.5)
    warm = start_md(x[None], v, forces)
    advance(warm, forces, mass, 0.004, 300, thermostat=heat_bath, freedom=freedom, units=REDUCED)
    spread = []
    for dt in (0.004, 0.002):
        bodies = start_md(warm.position, warm.velocity, forces)
        energies = []
        for _ in range(round(1.0 / dt)):
            advance(
                bodies,
                forces,
                mass,
                dt,
                1,
                thermostat=heat_bath,
                freedom=freedom,
                units=REDUCED,
            )
            energies.append(conserved(bodies, mass, heat_bath, freedom, REDUCED)[0])
        spread.append(np.std(energies))
    assert 3.4 < spread[0] / spread[1] < 4.6
    assert np.abs(bodies.velocity.mean(1)).max() < 1e-12


def test_the_lennard_jones_liquid() -> None:
    """rho = 0.75, T = 1, cut and shifted at 2.5: E / N = -2.9280, P = 0.9909 (Thol et al. 2015)."""
    x, cell = liquid(14, 4)
    n, kt, steps = len(x), 1.0, 6000
    forces = LennardJonesForces(cell[None], n, cutoff=2.5)
    mass, freedom = np.ones(n), 3 * n - 3
    v = maxwell(np.random.default_rng(15), 1, mass, kt, REDUCED)
    heat_bath = Thermostat("csvr", np.array([kt]), 0.5)
    bodies = start_md(x[None], v, forces)
    energy, pressure = [], []
    for at in range(steps // 5):
        advance(
            bodies,
            forces,
            mass,
            0.005,
            5,
            thermostat=heat_bath,
            freedom=freedom,
            seed=7,
            units=REDUCED,
        )
        if at > 200:
            kin = dynamics.kinetic(bodies, mass, REDUCED)[0]
            energy.append((bodies.loss.sum() + 1.5 * n * kt) / n)
            volume = np.linalg.det(cell)
            pressure.append((2 * kin * n / (n - 1) + forces.virial[0]) / (3 * volume))
    assert abs(np.mean(energy) + 2.9280) < 0.02
    assert abs(np.mean(pressure) - 0.9909) < 0.06


# ------------------------------------------------------------------------------------- twins


@pytest.mark.parametrize("name", ["none", "nose-hoover", "langevin", "csvr"])
def test_the_kernels_are_the_readable_integrators(name: str) -> None:
    rng = np.random.default_rng(16)
    worlds, n, dt = 3, 32, 0.004
    x, cell = liquid(17, 2, 0.3)
    cells = np.stack([cell] * worlds)
    start = x + rng.normal(0, 0.02, (worlds, n, 3))
    mass = rng.uniform(0.5, 2.0, n)
    v = maxwell(rng, worlds, mass, 1.0, REDUCED)
    kt, tau, freedom = np.array([0.8, 1.0, 1.2]), 0.5, 3 * n - 3
    forces = LennardJonesForces(cells, n, cutoff=2.3)
    bodies = start_md(start, v, forces)
    heat_bath = Thermostat(name, kt, tau)

    def torch_forces(position: torch.Tensor) -> torch.Tensor:
        leaf = position.detach().requires_grad_()
        loss = lennard_jones_losses(leaf, torch.from_numpy(cells), 2.3)
        return -torch.autograd.grad(loss.sum(), leaf)[0]

    t = torch.from_numpy
    motion = readable.start(t(start.copy()), t(v.copy()), t(bodies.force.copy()))
    for step in range(20):
        advance(
            bodies,
            forces,
            mass,
            dt,
            1,
            thermostat=heat_bath,
            freedom=freedom,
            seed=11,
            units=REDUCED,
        )
        clock = torch.full((worlds,), step)
        noise = Rng(11, torch.arange(worlds), clock)
        arguments = (t(mass)[:, None], dt)
        if name == "langevin":
            motion = readable.baoab(
                motion, torch_forces, *arguments, t(kt), 1 / tau, noise, REDUCED
            )
            continue
        chain = (*arguments, t(kt), tau, freedom)
        if name == "nose-hoover":
            motion = readable.chain_half(motion, *chain, REDUCED)
        motion = readable.verlet(motion, torch_forces, *arguments, REDUCED)
        if name == "nose-hoover":
            motion = readable.chain_half(motion, *chain, REDUCED)
        elif name == "csvr":
            motion = readable.rescale(motion, *chain, noise, REDUCED)
    assert np.abs(bodies.position - motion.position.numpy()).max() < 1e-10
    assert np.abs(bodies.velocity - motion.velocity.numpy()).max() < 1e-10
    assert np.abs(bodies.chain - motion.chain.numpy()).max() < 1e-10
    assert np.abs(bodies.heat - motion.heat.numpy()).max() < 1e-9
    if name == "nose-hoover":
        ours = conserved(bodies, mass, heat_bath, freedom, REDUCED)
        held = readable.chain_energy(motion.chain, t(kt), tau, freedom)
        theirs = readable.kinetic(motion.velocity, t(mass)[:, None], REDUCED) + held
        assert np.allclose(ours, theirs.numpy() + bodies.loss.sum(1), atol=1e-10)


@pytest.mark.parametrize("name", ["none", "nose-hoover", "langevin", "csvr"])
def test_a_world_of_a_batch_is_the_world_alone(name: str) -> None:
    x, cell = liquid(18, 3)
    rng = np.random.default_rng(19)
    start = x + rng.normal(0, 0.02, (4, len(x), 3))
    mass = np.ones(len(x))
    v = maxwell(rng, 4, mass, 1.0, REDUCED)

    def go(worlds: slice) -> bytes:
        count = len(start[worlds])
        forces = LennardJonesForces(np.stack([cell] * count), len(x))
        bodies = start_md(start[worlds], v[worlds], forces)
        heat_bath = Thermostat(name, np.ones(count), 0.5)
        advance(
            bodies,
            forces,
            mass,
            0.004,
            40,
            thermostat=heat_bath,
            freedom=3 * len(x) - 3,
            seed=1,
            units=REDUCED,
        )
        return b"".join(part[0].tobytes() for part in bodies[:-1])

    assert go(slice(0, 1)) == go(slice(0, 4))
