"""Traffic: shares, masks, the road's frame, contacts, and that a kind more changes nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from cases import action_table
from torch import Tensor

from invariantzoo.agents.baselines.traffic import DRIVERS, buffered_voronoi
from invariantzoo.agents.baselines.traffic_guard import GuardedTraffic
from invariantzoo.envs.core.observation import by_name, flatten
from invariantzoo.envs.core.rng import POLICY, Rng
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.particles.traffic import Traffic
from invariantzoo.envs.particles.traffic_kinds import OBSERVED, TRAFFIC, Kind, Kinds, Regard
from invariantzoo.envs.particles.traffic_state import State

CAR, PEDESTRIAN, BUILDING = (TRAFFIC.code(name) for name in ("car", "pedestrian", "building"))
LAYOUTS = ("crossing", "street")


def start(system: Traffic, worlds: int = 1, seed: int = 3) -> State:
    return system.initial(Rng.single(seed, worlds), worlds)


def asks(system: Traffic, velocity: Tensor) -> Tensor:
    """The action of agents that want these velocities [worlds, agents, 2] along and across e."""
    action = torch.zeros(*velocity.shape[:2], 4 * system.k + 2, dtype=torch.float64)
    action[..., -2:] = velocity
    return action


def two(system: Traffic, places: list[list[float]], goals: list[list[float]]) -> State:
    """Two agents at these places with these goals, far from houses and signs."""
    state = start(system)
    far = torch.full_like(state.building, 100.0)
    return state._replace(
        position=torch.tensor([places], dtype=torch.float64),
        goal=torch.tensor([goals], dtype=torch.float64),
        building=far,
        sign=far[:, : state.sign.shape[1], 0],
    )


# ------------------------------------------------------------------------------------ the table


def test_parts_of_a_pair_add_to_one() -> None:
    for layout in LAYOUTS:
        for right_of_way in ("main", "side"):
            system = Traffic(layout=layout, right_of_way=right_of_way, cutoff=50.0, n_neighbours=15)
            state = start(system, 20)
            pairs = system.pairs(state)
            for w in range(20):
                give = np.full((16, 16), np.nan)
                for i in range(16):
                    r = state.position[w] - state.position[w, i]
                    for m in range(15):
                        j = int((r - pairs.r[w, i, m]).norm(dim=-1).argmin())
                        give[i, j] = float(pairs.give[w, i, m])
                off = ~np.eye(16, dtype=bool)
                np.testing.assert_array_equal((give + give.T)[off], 1.0)


def test_who_goes_first() -> None:
    """Cars come from the south and the west; pedestrians need not give anything to cars."""
    system = Traffic(n_cars=2, n_pedestrians=0)
    state = two(system, [[0.0, -1.5], [-1.5, 0.0]], [[0.0, 5.0], [5.0, 0.0]])
    state = state._replace(heading=torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]).double())

    def gives(**changed: Any) -> list[float]:
        return system.pairs(state._replace(**changed)).give[0, :, 0].tolist()

    no_rank = torch.zeros(1, 2, dtype=torch.float64)
    assert gives(rank=no_rank) == [0.0, 1.0]  # that from the south comes from the right
    assert gives(rank=no_rank, hand=-state.hand) == [1.0, 0.0]
    assert gives(rank=torch.tensor([[0.0, 1.0]]).double()) == [1.0, 0.0]
    opposite = torch.tensor([[[0.0, 1.0], [0.0, -1.0]]]).double()
    assert gives(rank=no_rank, heading=opposite) == [0.5, 0.5]
    assert TRAFFIC.regard("car", "pedestrian").give == 1.0
    assert TRAFFIC.regard("pedestrian", "car").give == 0.0


def test_parts_that_do_not_add_to_one_are_refused() -> None:
    regards = {**TRAFFIC.regards, ("car", "pedestrian"): Regard(OBSERVED, give=0.75)}
    with pytest.raises(ValueError, match=r"give=0\.75 of car to pedestrian .* must add to 1"):
        Kinds(TRAFFIC.kinds, regards)
    with pytest.raises(ValueError, match="seen='tram' must be one of"):
        Kinds(TRAFFIC.kinds, {("car", "tram"): Regard()})


def test_losses_are_not_mutual() -> None:
    """A car that is near a pedestrian loses five times as much and from farther away."""
    system = Traffic(n_cars=1, n_pedestrians=1, distance_weight=0, absence_weight=0)
    action = asks(system, torch.zeros(1, 2, 2))
    for gap, car, pedestrian in ((0.0, 1.3, 1.1), (0.1, 1.3, 1.1), (0.5, 1.3, 1.1)):
        distance = 0.55 + gap
        state = two(system, [[0.0, 0.0], [distance, 0.0]], [[0.0, 5.0], [5.0, 0.0]])
        loss = system.loss(state, action, state)[0].tolist()
        expected = [
            150 * max(car * 0.55 - distance, 0) ** 2,
            30 * max(pedestrian * 0.55 - distance, 0) ** 2,
        ]
        np.testing.assert_allclose(loss, expected, atol=1e-12)


def test_a_closest_approach_that_is_near_costs_in_advance() -> None:
    """Two cars pass at distance b after a time t: weight (margin D - b)^2 (1 - t / 3)^2."""
    system = Traffic(
        n_cars=2, n_pedestrians=0, distance_weight=0, absence_weight=0, effort_weight=0
    )
    state = two(system, [[0.0, 0.0], [2.0, 0.5]], [[9.0, 0.0], [-9.0, 0.5]])
    moving = state._replace(velocity=torch.tensor([[[1.0, 0.0], [-0.5, 0.0]]]).double())
    loss = system.loss(moving, asks(system, torch.zeros(1, 2, 2)), moving)[0].tolist()
    expected = 30 * (1.1 * 0.8 - 0.5) ** 2 * (1 - (2 / 1.5) / 3) ** 2
    np.testing.assert_allclose(loss, [expected] * 2, rtol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_masked_reads_zero_and_has_no_gradient(layout: str) -> None:
    system = Traffic(layout=layout, n_cars=4, n_pedestrians=6, cutoff=8.0)
    state = start(system, 3)
    rng = Rng.single(1, 3)
    velocity, moved = (0.2 * rng.normal(*state.velocity.shape) for _ in range(2))
    state = state._replace(
        position=(state.position + moved).requires_grad_(), velocity=velocity.requires_grad_()
    )
    seen = system.invariants(state)
    masked = shown = 0
    for name in OBSERVED:
        for code in (CAR, PEDESTRIAN):
            for other in (CAR, PEDESTRIAN, BUILDING):
                one, what = (TRAFFIC.kinds[c - 1].name for c in (code, other))
                entries = (state.kind == code).unsqueeze(-1) & (seen["neighbour_kind"] == other)
                value = seen[name][entries]
                wants = (state.position, state.velocity)
                grads = torch.autograd.grad(
                    value.sum(), wants, retain_graph=True, materialize_grads=True
                )
                if name in TRAFFIC.regard(one, what).seen:
                    assert (value != 0).any()
                    shown += any(bool((grad != 0).any()) for grad in grads)
                else:
                    assert (value == 0).all()
                    assert all(bool((grad == 0).all()) for grad in grads)
                    masked += 1
    assert masked == 6  # I3, u along and u across of buildings
    assert shown > 30
    walkers = state.kind == PEDESTRIAN
    assert (seen["sign_I3"][walkers] == 0).all()
    assert (seen["sign_limit"][walkers] == 0).all()


def test_limits_hold_within_the_range_of_a_sign() -> None:
    """A car drives by a sign at the origin; limit 0.6 within 2, seen from 0.1 farther away."""
    system = Traffic(n_cars=1, n_pedestrians=0, arrival=0.01)
    state = start(system)
    sign = torch.full_like(state.sign, 100.0)
    sign[:, 0] = 0.0
    nothing = torch.full_like(state.building, 100.0)
    state = state._replace(
        sign=sign,
        building=nothing,
        position=torch.tensor([[[-3.05, 0.0]]]).double(),
        goal=torch.tensor([[[6.0, 0.0]]]).double(),
    )
    limits = []
    for _ in range(60):
        limits.append(float(system.invariants(state)["sign_limit"][0, 0]))
        x = float(state.position[0, 0, 0])
        assert (limits[-1] > 0) == (abs(x) < 2.1)
        state = system.transition(state, asks(system, torch.tensor([[[1.0, 0.0]]])), None)
    assert float(state.watched[0, 0]) == 40  # from -1.95 to 1.95
    assert float(state.over[0, 0]) == 40
    assert sorted(set(limits)) == [0.0, 0.6]


# ------------------------------------------------------------------------------------ the frame


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_a_boost_of_everything_leaves_actions_as_they_are(name: str) -> None:
    system = Traffic(layout="street")
    policy = DRIVERS[name](system)
    state = start(system, 4)
    rng = np.random.default_rng(0)
    velocity = torch.from_numpy(rng.uniform(-0.3, 0.3, state.velocity.shape))
    state = state._replace(velocity=velocity, position=state.position * 0.8)
    boost = torch.tensor([[[3.0, -2.0]]]).double()
    boosted = state._replace(velocity=velocity + boost, road_velocity=state.road_velocity + boost)

    def acts(state: State) -> Tensor:
        return policy(flatten(system, system.invariants(state)), None)

    action = acts(state)
    torch.testing.assert_close(acts(boosted), action, atol=1e-9, rtol=0)
    left_out = boosted._replace(road_velocity=state.road_velocity)
    changed = (acts(left_out) - action).abs().max()
    seen_of_own_speed = name not in ("straight", "buffered-voronoi")
    assert (changed > 1e-3) == seen_of_own_speed
    kept = system.invariants(left_out)["c_along"] - system.invariants(state)["c_along"]
    assert kept.abs().max() > 1e-3


# ------------------------------------------------------------------------------------ contacts


def slow_gap(before: Any, after: Any, radius: list[float], w: int, substeps: int = 10) -> float:
    """Smallest gap of any two, or of one and a building, on the straight way; plain code."""
    here = np.flatnonzero(before.arrival_time[w] < 0).tolist()
    walls = list(zip(before.building[w].tolist(), before.thickness[w].tolist(), strict=True))
    smallest = math.inf
    for part in np.linspace(0, 1, substeps + 1):
        x = ((1 - part) * before.position[w] + part * after.position[w]).tolist()
        for i in here:
            for j in here:
                if j > i:
                    smallest = min(smallest, math.dist(x[i], x[j]) - radius[i] - radius[j])
            for ((ax, ay), (bx, by)), thick in walls:
                sx, sy = bx - ax, by - ay
                t = ((x[i][0] - ax) * sx + (x[i][1] - ay) * sy) / max(sx * sx + sy * sy, 1e-300)
                t = min(max(t, 0.0), 1.0)
                gap = math.dist(x[i], (ax + t * sx, ay + t * sy)) - thick - radius[i]
                smallest = min(smallest, gap)
    return smallest


def copy_of(env: VectorEnv) -> Any:
    return type(env.state)(*(array.copy() for array in env.state))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wild", [False, True])
def test_guarded_agents_never_touch(layout: str, wild: bool) -> None:
    """Neither each other nor a building, whatever they want; by separate code."""
    parameters: dict[str, Any] = {"n_neighbours": 4, "n_buildings": 2} if wild else {}
    system = Traffic(layout=layout, n_cars=8, n_pedestrians=14, **parameters)
    rng = np.random.default_rng(5)

    def anything(observation: Tensor, _: Rng | None) -> Tensor:
        shape = (*observation.shape[:2], 4 * system.k + 2)
        return torch.from_numpy(rng.uniform(-1, 1, shape))

    policy = GuardedTraffic(anything, system=system) if wild else buffered_voronoi(system)
    env = VectorEnv(system, 2, seed=4, autoreset=False, dtype=np.float64)
    seen, smallest, moved = env.reset(), math.inf, 0.0
    for step in range(150):
        before = copy_of(env)
        action = policy(torch.from_numpy(seen), env.rng(POLICY))
        seen = env.step(action.numpy()).observation
        moved += float(np.abs(env.state.velocity).mean())
        if step % 3 == 0:
            radius = system.tables.radius[env.state.kind[0] - 1].tolist()
            smallest = min(smallest, *(slow_gap(before, env.state, radius, w) for w in range(2)))
    assert smallest > -1e-11
    assert smallest < 0.05
    assert moved / 150 > 0.02
    assert env.state.deepest.max() < 1e-9


def test_contacts_between_steps_count() -> None:
    """Two cars that jump through each other, and one that jumps through a wall."""
    system = Traffic(n_cars=2, n_pedestrians=0, dt=2.0, max_acceleration=9.0, arrival=0.01)
    state = two(system, [[-1.0, 0.3], [1.0, 0.0]], [[9.0, 0.3], [-9.0, 0.0]])
    after = system.transition(state, asks(system, torch.tensor([[[1.0, 0.0]] * 2])), None)
    assert after.touched[0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    np.testing.assert_allclose(after.deepest[0], [0.5, 0.5], atol=1e-12)
    building = state.building.clone()
    building[0, 0] = torch.tensor([[0.0, -1.0], [0.0, 1.0]])
    state = state._replace(building=building, position=state.position + torch.tensor([0.0, 9.0]))
    state.position[0, 0, 1] = 0.0
    after = system.transition(state, asks(system, torch.tensor([[[1.0, 0.0]] * 2])), None)
    assert after.struck[0, :, 0].tolist() == [1.0, 0.0]
    assert after.touched.sum() == 0
    metrics = system.metrics(state, asks(system, torch.zeros(1, 2, 2)), after)
    assert float(metrics["contact_car_building"]) == 1 / (2 * 16)
    assert float(metrics["contact_car_car"]) == 0
    assert float(metrics["hit"]) == 0.5


def test_a_pedestrian_keeps_its_way_beside_a_car_to_the_bit() -> None:
    """The car has to give; with equal parts the pedestrian is held up."""

    @dataclass(frozen=True)
    class Equal(Traffic):
        kinds: ClassVar[Kinds] = Kinds(
            TRAFFIC.kinds,
            {
                **TRAFFIC.regards,
                ("car", "pedestrian"): Regard(OBSERVED, give=0.5),
                ("pedestrian", "car"): Regard(OBSERVED, give=0.5),
            },
        )

    ways = {}
    for cls in (Traffic, Equal):
        for car in (True, False):
            system = cls(n_cars=1, n_pedestrians=1)
            at = [-1.2, 0.0] if car else [-50.0, 0.0]
            state = two(system, [at, [0.0, -0.1]], [[9.0, 0.0], [-1.0, 2.0]])
            policy, path = GuardedTraffic(DRIVERS["straight"](system)), []
            for _ in range(40):
                action = policy(flatten(system, system.invariants(state)), None)
                state = system.transition(state, action, None)
                path.append(state.position[0, 1].tolist())
            ways[cls, car] = path
            assert float(state.deepest.max()) == 0
    assert ways[Traffic, True] == ways[Traffic, False]
    assert ways[Equal, True] != ways[Equal, False]


# ------------------------------------------------------------------------------- one kind more

CYCLIST = Kind("cyclist", "road", "n_cyclists", radius=0.2, speed=0.7)


@dataclass(frozen=True)
class WithCyclists(Traffic):
    """Traffic with one kind more, made outside of the package."""

    n_cyclists: int = 0

    kinds: ClassVar[Kinds] = TRAFFIC.plus(
        CYCLIST,
        {
            ("cyclist", "cyclist"): Regard(OBSERVED, 30.0, 1.1, 0.0, 0.5),
            ("cyclist", "car"): Regard(OBSERVED, 30.0, 1.1, 3.0, 0.25),
            ("car", "cyclist"): Regard(OBSERVED, 90.0, 1.3, 3.0, 0.75),
            ("cyclist", "pedestrian"): Regard(OBSERVED, 60.0, 1.1, 3.0, 1.0),
            ("pedestrian", "cyclist"): Regard(OBSERVED, 30.0, 1.1, 3.0, 0.0),
            ("cyclist", "building"): Regard(OBSERVED[:2], 30.0, 1.1, 0.0, 1.0),
        },
    )


@pytest.mark.parametrize("kernel", [True, False])
def test_a_kind_more_changes_no_bit_of_worlds_without_it(kernel: bool) -> None:
    plain, more = Traffic(n_cars=4, n_pedestrians=5), WithCyclists(n_cars=4, n_pedestrians=5)
    assert plain.bounds == more.bounds
    assert list(plain.reductions) == list(more.reductions)
    envs = [VectorEnv(system, 3, seed=8, kernel=kernel) for system in (plain, more)]
    assert envs[0].reset().tobytes() == envs[1].reset().tobytes()
    for action in action_table(plain, 12, 3):
        steps = [env.step(action) for env in envs]
        assert steps[0].observation.tobytes() == steps[1].observation.tobytes()
        assert steps[0].reward.tobytes() == steps[1].reward.tobytes()
        for name, array in envs[0].state._asdict().items():
            assert array.tobytes() == getattr(envs[1].state, name).tobytes(), name
        metrics = [env.episode_metrics() for env in envs]
        for name, value in metrics[0].items():
            assert value.tobytes() == metrics[1][name].tobytes(), name


def test_a_kind_more_takes_part() -> None:
    system = WithCyclists(n_cars=3, n_pedestrians=4, n_cyclists=2, layout="street")
    assert system.n_agents == 9
    assert "contact_car_cyclist" not in Traffic().reductions
    names = set(system.reductions) - set(Traffic().reductions)
    assert names >= {"flow_cyclist", "contact_car_cyclist", "contact_pedestrian_cyclist"}
    fast, slow = (VectorEnv(system, 2, seed=1, kernel=kernel) for kernel in (True, False))
    np.testing.assert_allclose(fast.reset(), slow.reset(), rtol=1e-6, atol=1e-6)
    for action in action_table(system, 5, 2):
        one, other = fast.step(action), slow.step(action)
        np.testing.assert_allclose(one.reward, other.reward, rtol=1e-11)
    code = system.kinds.code("cyclist")
    assert (fast.state.kind == code).sum() == 4
    seen = by_name(system, torch.from_numpy(fast.observe()))
    cyclists = seen["kind"] == code
    assert (seen["I3"][cyclists][seen["neighbour_kind"][cyclists] == BUILDING] == 0).all()


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="n_pedestrians=65 must be at most 56"):
        Traffic(n_pedestrians=65)
    with pytest.raises(ValueError, match=r"n_cars \+ n_pedestrians=0 must be at least 1"):
        Traffic(n_cars=0, n_pedestrians=0)
    with pytest.raises(ValueError, match="layout='square' must be one of crossing, street"):
        Traffic(layout="square")
    slow = Traffic(max_acceleration=2.0)
    assert "buffered-voronoi" not in slow.baselines
    with pytest.raises(ValueError, match=r"max_acceleration=2\.0 must be at least 20"):
        buffered_voronoi(slow)
    assert replace(slow, max_acceleration=20.0).baselines[0] == "buffered-voronoi"
