"""Lattices and orders of updates: neighbours, colours, maps onto themselves, whose turn it is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from lattice_field import Field
from test_invariance import check_symmetry, states_and_symmetries
from torch import Tensor

from invariantzoo.envs.core.physics.lattice import Isometry, Torus
from invariantzoo.envs.core.physics.updates import UPDATES, Update, require_update
from invariantzoo.envs.core.rng import Rng

SHAPES = [(5,), (1,), (3, 4), (2, 2), (2, 3, 4), (4, 4, 4)]


def drawn(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(math.prod(shape)).normal(size=shape))


def bonds_of(torus: Torus, worlds: int) -> list[Tensor]:
    return [drawn(worlds, torus.n_sites) + axis for axis in range(torus.dimension)]


def slow_neighbour_sum(torus: Torus, value: Tensor, bonds: list[Tensor]) -> Tensor:
    """Site by site from coordinates."""
    total = torch.zeros_like(value)
    for i, place in enumerate(itertools.product(*map(range, torus.shape))):
        for axis, side in enumerate(torus.shape):
            ahead = list(place)
            ahead[axis] = (place[axis] + 1) % side
            j = int(np.ravel_multi_index(ahead, torus.shape))
            total[:, i] += bonds[axis][:, i] * value[:, j]
            total[:, j] += bonds[axis][:, i] * value[:, i]
    return total


@pytest.mark.parametrize("shape", SHAPES)
def test_neighbours_are_those_beside_a_site(shape: tuple[int, ...]) -> None:
    torus = Torus(shape)
    value, bonds = drawn(3, torus.n_sites), bonds_of(torus, 3)
    expected = slow_neighbour_sum(torus, value, bonds)
    torch.testing.assert_close(torus.neighbour_sum(value, bonds), expected)
    ones = [torch.ones_like(bond) for bond in bonds]
    expected = slow_neighbour_sum(torus, value, ones)
    torch.testing.assert_close(torus.neighbour_sum(value), expected)


def test_values_may_have_components() -> None:
    torus = Torus((3, 4))
    value, bonds = drawn(2, 12, 3), bonds_of(torus, 2)
    parts = [torus.neighbour_sum(value[..., k], bonds) for k in range(3)]
    torch.testing.assert_close(torus.neighbour_sum(value, bonds), torch.stack(parts, -1))


@pytest.mark.parametrize("shape", [(4,), (2, 4), (4, 2, 6)])
def test_neighbours_differ_in_colour_where_sides_are_even(shape: tuple[int, ...]) -> None:
    torus = Torus(shape)
    colour = torus.colours()[None]
    for axis in range(torus.dimension):
        assert (torus.ahead(colour, axis) == 1 - colour).all()


def isometries(torus: Torus, worlds: int) -> dict[str, Isometry]:
    steps = torch.tensor([[1, 2, 5][: torus.dimension], [0, -1, 3][: torus.dimension]])
    found = {"shift": torus.shift(steps)}
    for axis in range(torus.dimension):
        found[f"mirror {axis}"] = torus.mirror(worlds, axis)
    for axes in itertools.permutations(range(torus.dimension), 2):
        if torus.shape[axes[0]] == torus.shape[axes[1]]:
            found[f"turn {axes}"] = torus.turn(worlds, axes)
    return found


@pytest.mark.parametrize("shape", [(5,), (2, 2), (3, 3), (3, 4), (4, 4, 4), (2, 3, 3)])
def test_neighbours_move_along_with_the_lattice(shape: tuple[int, ...]) -> None:
    """The sum over neighbours after a map is the map of the sum, bonds being carried along."""
    torus = Torus(shape)
    value, bonds = drawn(2, torus.n_sites), bonds_of(torus, 2)
    before = torus.neighbour_sum(value, bonds)
    for name, isometry in isometries(torus, 2).items():
        assert (isometry.sites.sort(1).values == torch.arange(torus.n_sites)).all(), name
        moved = torus.moved(value, isometry), torus.moved_bonds(bonds, isometry)
        after = torus.neighbour_sum(*moved)
        torch.testing.assert_close(after, torus.moved(before, isometry), msg=name)


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 3, 4)])
def test_steps_along_an_axis_are_steps_along_the_old_one(shape: tuple[int, ...]) -> None:
    """What `axes` and `backward` say, from which maps of vectors and links are made."""
    torus = Torus(shape)
    for name, (sites, axes, backward) in isometries(torus, 2).items():
        for axis in range(torus.dimension):
            ahead = torus.ahead(sites, axis)
            old = torch.arange(torus.n_sites).expand(2, -1)
            steps = -1 if backward[axis] else 1
            expected = torus.ahead(old, axes[axis], steps).gather(1, sites)
            assert (ahead == expected).all(), name


def test_four_turns_are_none() -> None:
    torus = Torus((3, 4, 4))
    value = drawn(1, torus.n_sites)
    moved = value
    for _ in range(4):
        moved = torus.moved(moved, torus.turn(1, (1, 2)))
    assert (moved == value).all()
    assert not (torus.moved(value, torus.turn(1, (1, 2))) == value).all()


@pytest.mark.parametrize("shape", [(), (2, 2, 2, 2), (0, 3), (2.5,)])
def test_bad_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape=|side="):
        Torus(shape)


def test_a_turn_needs_equal_sides() -> None:
    with pytest.raises(ValueError, match="no quarter turn"):
        Torus((3, 4)).turn(1)


# Updates


def everyone(order: str, torus: Torus) -> Update:
    return Update(order, torus.n_sites, torus.colours)


@pytest.mark.parametrize("order", UPDATES)
def test_in_a_sweep_everyone_acts_once_on_average(order: str) -> None:
    torus = Torus((4, 2))
    update, worlds = everyone(order, torus), 2000
    rng = Rng.single(3, worlds)
    turn = update.first_turn(rng, worlds)
    acted = torch.zeros(torus.n_sites)
    for _ in range(update.sweep):
        action = torch.ones(worlds, torus.n_sites)
        acted += update.used(action, turn).sum(0) / worlds
        turn = update.next_turn(turn, rng)
    tolerance = 5 / math.sqrt(worlds) if order == "sequential" else 0
    assert (acted - 1).abs().max() <= tolerance
    assert (update.active(turn) is None) == (order == "parallel")


@pytest.mark.parametrize("order", UPDATES)
def test_whose_turn_it_is_moves_along(order: str) -> None:
    """Now, and after a step in which the numbers drawn are seen as the map of them says."""
    torus = Torus((4, 4))
    update, n = everyone(order, torus), torus.n_sites
    turn = update.first_turn(Rng.single(1, 2), 2)
    if order == "checkerboard":
        turn = torch.tensor([[0], [1]])
    for name, isometry in isometries(torus, 2).items():
        moved, noise = update.rearranged(turn, isometry.sites)
        active, after = update.active(turn), update.active(moved)
        if active is None or after is None:
            assert order == "parallel"
            assert noise is None
            continue
        assert (after == active.gather(1, isometry.sites)).all(), name
        if noise is not None:
            uniform = (torch.arange(2 * n).reshape(2, n) % n + 0.25) / n
            drawn, seen = (n * uniform).long(), (n * noise(uniform)).long()
            assert (isometry.sites.gather(1, seen) == drawn).all(), name


def test_three_colours_take_turns() -> None:
    update = Update("checkerboard", 6, lambda: torch.arange(6) % 3, 3)
    turn, rng = update.first_turn(Rng.single(0, 1), 1), Rng.single(0, 1)
    seen = []
    for _ in range(update.sweep + 1):
        active = update.active(turn)
        assert active is not None
        seen.append(active[0].nonzero().flatten().tolist())
        turn = update.next_turn(turn, rng)
    assert seen == [[0, 3], [1, 4], [2, 5], [0, 3]]


def test_what_updates_refuse() -> None:
    with pytest.raises(ValueError, match="needs the colours"):
        Update("checkerboard", 4).active(torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="did you mean 'parallel'"):
        require_update("paralel", 2, 1)
    with pytest.raises(ValueError, match="update='checkerboard' must be one of"):
        require_update("checkerboard", 2, 1, ("sequential", "parallel"))
    with pytest.raises(ValueError, match="burn_in=2 must be below n_sweeps=2"):
        require_update("parallel", 2, 2)


# A system on a lattice


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("shape", [(6,), (4, 4), (2, 4, 2)])
def test_a_field_looks_the_same_from_everywhere(shape: tuple[int, ...], update: str) -> None:
    names = []
    system = Field(shape=shape, update=update)
    for state, symmetry in states_and_symmetries(system):
        check_symmetry(system, state, symmetry)
        names.append(symmetry.name)
    assert names == ["translation", "reflection", *["rotation"] * (shape == (4, 4)), "sign"]


@pytest.mark.parametrize("shape", [(8,), (4, 6), (4, 2, 6)])
def test_waves_have_the_frequencies_of_the_lattice(shape: tuple[int, ...]) -> None:
    """A plane wave of a free field is an eigenvector: w^2 = m^2 + sum of 4 sin^2(k / 2)."""
    system = Field(shape=shape, mass=0.7)
    numbers = torch.tensor([1, 2, 1][: len(shape)])
    k = 2 * math.pi * numbers.double() / torch.tensor(shape)
    phi = (system.lattice.coordinates() * k).sum(-1).cos()[None]
    squared = 0.49 + (4 * (k / 2).sin() ** 2).sum()
    force = system.force(phi, torch.tensor([[0.7]], dtype=torch.float64))
    torch.testing.assert_close(force, -squared * phi, rtol=0, atol=1e-12)


def test_a_free_field_keeps_its_energy() -> None:
    system = Field(shape=(4, 4, 4), dt=0.01)
    rng = Rng.single(2, 3)
    state = system.initial(rng, 3)
    before = system.energy(state).sum(-1)
    for _ in range(200):
        state = system.transition(state, torch.zeros(3, 64, 1), rng)
    torch.testing.assert_close(system.energy(state).sum(-1), before, rtol=1e-3, atol=0)
