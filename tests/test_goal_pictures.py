"""Pictures of discs with places to go: rings, kinds, who gives way; charts of who is followed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.agents.policy import make_policy
from invariantzoo.commands.rollout import Session
from invariantzoo.envs.core.observation import by_name
from invariantzoo.envs.core.rendering import plots
from invariantzoo.envs.core.rendering.colours import BACKGROUND, PALETTES, WHEEL_PALETTE
from invariantzoo.envs.core.rendering.painter import Painter
from invariantzoo.envs.core.rendering.viewer import Viewer
from invariantzoo.envs.core.scene import Scene
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.particles.goal_state import State
from invariantzoo.envs.particles.goals import Goals
from invariantzoo.envs.particles.yielding import look_ahead, straight_on, time_to_touch, yields

UNIT = (0.0, 0.0, 1.0, 1.0)
SIDE = 200
ORANGE = np.array(plots.SERIES[0])


def draw(scene: Scene, **given: Any) -> np.ndarray:
    return Painter(size=(SIDE, SIDE)).draw(scene, **given)


def painted(image: np.ndarray) -> np.ndarray:
    return (image != np.array(BACKGROUND)).any(-1)


def discs(*places: tuple[float, float], radius: float = 0.1, **given: Any) -> Scene:
    return Scene(UNIT, np.array(places), np.full(len(places), radius), **given)


def away_from(image: np.ndarray, place: tuple[float, float]) -> np.ndarray:
    """Distances of all painted pixels from a place, in pixels."""
    row, column = np.nonzero(painted(image))
    return np.hypot(column + 0.5 - SIDE * place[0], row + 0.5 - SIDE * (1 - place[1]))


def test_a_ring_lies_inside_its_radius_and_has_its_colour() -> None:
    ring: dict[str, Any] = {"ring_radius": np.array([0.1]), "ring_value": np.array([0.5])}
    image = draw(Scene(UNIT, rings=np.array([[0.3, 0.6]]), palette="wheel", **ring))
    away = away_from(image, (0.3, 0.6))
    assert 14 < away.min() < 17
    assert 19 < away.max() < 21
    np.testing.assert_array_equal(image[80, 60 + 18], WHEEL_PALETTE[127])


def test_discs_hide_rings() -> None:
    ring: dict[str, Any] = {"ring_radius": np.array([0.1]), "ring_value": np.array([1.0])}
    plain = discs((0.3, 0.6))
    both = discs((0.3, 0.6), rings=plain.discs, **ring)
    np.testing.assert_array_equal(draw(both)[66:94, 46:74], draw(plain)[66:94, 46:74])


@pytest.mark.parametrize("corners", [3, 4, 6])
def test_a_polygon_covers_its_area_inside_the_rim_of_its_disc(corners: int) -> None:
    turn = 0.3
    given: dict[str, Any] = {"disc_corners": np.array([corners]), "disc_turn": np.array([turn])}
    image = draw(discs((0.5, 0.5), radius=0.25, **given)).astype(float)
    colour, ground = PALETTES["alarm"][0].astype(float), np.array(BACKGROUND, float)
    share = ((image - ground) @ (colour - ground)) / ((colour - ground) ** 2).sum()
    area = 0.5 * corners * 50**2 * math.sin(2 * math.pi / corners)
    assert share.sum() == pytest.approx(area, rel=0.01)
    assert away_from(image, (0.5, 0.5)).max() < 51
    tip = (0.5 + 0.24 * math.cos(turn), 0.5 + 0.24 * math.sin(turn))
    between = turn + math.pi / corners
    edge = (0.5 + 0.24 * math.cos(between), 0.5 + 0.24 * math.sin(between))
    assert away_from(image, tip).min() < 1
    assert away_from(image, edge).min() > 4


def test_round_discs_and_polygons_stand_side_by_side() -> None:
    given: dict[str, Any] = {"disc_corners": np.array([0, 4]), "disc_value": np.array([0.0, 1.0])}
    image = draw(discs((0.25, 0.5), (0.75, 0.5), **given))
    np.testing.assert_array_equal(image[100, 50], PALETTES["alarm"][0])
    np.testing.assert_array_equal(image[100, 150], PALETTES["alarm"][255])
    np.testing.assert_array_equal(image[85:115, 20:80], draw(discs((0.25, 0.5)))[85:115, 20:80])
    assert not painted(image)[84, 164], "where a disc would be, beside a corner that points up"


def test_cores_mark_discs() -> None:
    places = ((0.2, 0.5), (0.5, 0.5), (0.8, 0.5))
    image = draw(discs(*places, disc_core=np.array([1, 0, -1])))
    np.testing.assert_array_equal(image[100, 40], (255, 255, 255))
    np.testing.assert_array_equal(image[100, 100], PALETTES["alarm"][0])
    np.testing.assert_array_equal(image[100, 160], BACKGROUND)


def test_a_link_is_broad_at_its_first_disc_and_lies_over_both() -> None:
    plain = discs((0.2, 0.5), (0.8, 0.5))
    linked = discs((0.2, 0.5), (0.8, 0.5), links=np.array([[1, 0]]))
    light = np.abs(draw(linked).astype(int) - draw(plain)).sum((0, 2))
    assert light[42] > 0
    assert light[158] > 1.5 * light[42]
    nearer = discs((0.05, 0.5), (0.95, 0.5), links=np.array([[1, 0]]), periodic=True)
    assert not painted(draw(nearer))[:, 60:140].any(), "the shorter way on a torus"


def test_the_goal_of_who_is_followed_is_marked_too() -> None:
    rings: dict[str, Any] = {
        "rings": np.array([[0.7, 0.7], [0.3, 0.3]]),
        "ring_radius": np.full(2, 0.05),
    }
    scene = discs((0.2, 0.8), (0.8, 0.2), radius=0.05, **rings)
    changed = (draw(scene, follow=1) != draw(scene)).any(-1)
    assert changed[160 - 20 : 160 + 20, 160 - 20 : 160 + 20].any(), "the disc"
    assert changed[140 - 20 : 140 + 20, 60 - 20 : 60 + 20].any(), "its goal"
    assert not changed[:100].any(), "nothing of the other"


def test_hues_are_far_from_each_other_and_close_their_circle() -> None:
    wheel = WHEEL_PALETTE.astype(int)
    assert np.abs(wheel[0] - wheel[-1]).max() <= 6
    assert np.abs(np.diff(wheel, axis=0)).max() <= 16
    eight = wheel[::32]
    apart = np.abs(eight[:, None] - eight).sum(-1) + 1000 * np.eye(8, dtype=int)
    assert apart.min() > 60
    assert np.abs(eight - np.array(BACKGROUND)).max(-1).min() > 100


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.41])
def test_time_to_touch_is_that_of_the_closed_form(offset: float) -> None:
    r, s = np.array([3.0, offset]), np.array([-1.5, 0.0])
    expected = (3 - math.sqrt(0.4**2 - offset**2)) / 1.5 if offset < 0.4 else math.inf
    assert time_to_touch(r, s, np.array(0.4)) == pytest.approx(expected, rel=1e-12)
    assert time_to_touch(r, -s, np.array(0.4)) == math.inf, "it has passed"
    assert time_to_touch(np.array([0.3, 0.0]), s, np.array(0.4)) == 0


def pairs_of(velocity: list[list[float]], goal: list[list[float]]) -> list[list[int]]:
    """Who gives way to whom of two discs 1.5 apart on a line."""
    x = np.array([[0.0, 0.0], [1.5, 0.0]])
    straight = straight_on(np.array(goal) - x, 1.0, 0.1)
    other = np.array([[1], [0]])
    return yields(
        np.array(velocity),
        straight,
        other,
        x[other] - x[:, None],
        np.full((2, 1), 0.4),
        np.full((2, 1), True),
        look_ahead(np.array(goal) - x, np.full(2, 0.2), 1.0),
        1.0,
    ).tolist()


def test_who_leaves_its_straight_way_for_another_gives_way() -> None:
    head_on = [[5.0, 0.0], [-5.0, 0.0]]
    assert pairs_of([[1.0, 0.0], [-1.0, 0.0]], head_on) == [], "both drive straight on"
    assert pairs_of([[0.5, 0.0], [-1.0, 0.0]], head_on) == [[0, 1]], "slowed"
    assert pairs_of([[1.0, 0.0], [-0.8, 0.6]], head_on) == [[1, 0]], "turned"
    assert pairs_of([[0.95, 0.31], [-0.8, 0.6]], head_on) == [[1, 0]], "who turns more"
    assert pairs_of([[0.0, 0.0], [0.0, 0.0]], head_on) == [], "nobody turns more"
    assert pairs_of([[0.5, 0.0], [1.0, 0.0]], [[5.0, 0.0], [9.0, 0.0]]) == [], "it drives away"
    assert pairs_of([[0.5, 0.0], [-1.0, 0.0]], [[0.0, 5.0], [-5.0, 0.0]]) == [], "not in its way"
    assert pairs_of([[0.2, 0.0], [0.0, 0.0]], [[5.0, 0.0], [1.5, 0.0]]) == [[0, 1]], (
        "it has arrived"
    )


def test_a_disc_alone_gives_way_to_nobody() -> None:
    none = np.zeros((1, 0))
    found = yields(
        np.zeros((1, 2)),
        np.ones((1, 2)),
        none.astype(int),
        np.zeros((1, 0, 2)),
        none,
        none.astype(bool),
        np.ones(1),
        1.0,
    )
    assert found.shape == (0, 2)


def scene_of(system: Goals, state: State) -> Scene:
    scene = system.scene(state)
    assert scene is not None
    assert scene.discs is not None
    return scene


def test_a_scene_shows_goals_arrivals_hits_and_who_gives_way() -> None:
    system = Goals(n_agents=4)
    x = torch.tensor([[[0.0, 0.0], [1.5, 0.0], [0.0, 3.0], [0.0, -3.0]]], dtype=torch.float64)
    goal = torch.tensor([[[4.0, 0.0], [-4.0, 0.0], [0.0, 3.0], [0.0, -9.0]]], dtype=torch.float64)
    state = system.start(x, goal, torch.full((1, 1), 10.0, dtype=torch.float64))
    state.velocity[0] = torch.tensor([[0.3, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, -1.0]])
    state.arrival_time[0, 2] = 1.0
    state.hit[0, 3] = 1.0
    scene = scene_of(system, state)
    assert scene.disc_core is not None
    assert scene.disc_value is not None
    assert scene.links is not None
    assert scene.disc_core.tolist() == [0, 0, 1, -1]
    assert scene.links.tolist() == [[0, 1]]
    np.testing.assert_array_equal(scene.rings, goal[0])
    np.testing.assert_allclose(scene.disc_value, [0, 0.5, 0.25, 0.75], atol=1e-12)
    np.testing.assert_array_equal(scene.disc_value, scene.ring_value)
    boost = torch.tensor([0.7, -0.4], dtype=torch.float64)
    moving = state._replace(
        velocity=state.velocity + boost, goal_velocity=state.goal_velocity + boost
    )
    assert scene_of(system, moving).links.tolist() == [[0, 1]]  # type: ignore[union-attr]


def test_who_gives_way_is_seen_when_discs_meet() -> None:
    """With drivers that avoid each other links appear; straight on, none do on the way."""
    linked = {}
    for policy in ("orca-right-hand", "straight"):
        system = invariantzoo.make_system("particles-goals-v0", n_agents=16, cover=0.3)
        env = VectorEnv(system, 1, seed=1)
        session = Session(env, make_policy(policy, system), deterministic=True)
        linked[policy] = 0
        for _ in range(20):
            session.step()
            scene = system.scene(env.tensors)
            assert scene is not None
            assert scene.links is not None
            assert len(np.unique(scene.links[:, 0])) == len(scene.links)
            assert scene.discs is not None
            way = np.hypot(*(scene.rings - scene.discs).T)  # type: ignore[operator]
            linked[policy] += int((way[scene.links[:, 0]] > 0.1).sum())
    assert linked["orca-right-hand"] > 20
    assert linked["straight"] == 0


def watched(id: str, **given: Any) -> Viewer:
    system = invariantzoo.make_system(id, **given)
    env = VectorEnv(system, 1, seed=3)
    session = Session(env, make_policy("random", system), deterministic=False)
    session.reset()
    return Viewer(env, session.step, session.reset, title=id)


def orange(viewer: Viewer) -> np.ndarray:
    """Columns of the panel that hold something of a chart's colour."""
    panel = viewer.frame()[:, viewer._painter.size[0] :].astype(int)
    return np.flatnonzero((np.abs(panel - ORANGE).max(-1) < 8).any(0))


@pytest.mark.parametrize("id", ["particles-circle-v0", "particles-crowd-v0"])
def test_invariants_of_who_is_followed_are_drawn_against_time(id: str) -> None:
    viewer = watched(id, n_agents=8)
    assert not len(orange(viewer)), "nobody is followed"
    viewer.follow = 2
    first = len(orange(viewer))
    for _ in range(30):
        viewer.step()
        later = len(orange(viewer))
    assert later > first + 20
    own = by_name(viewer.env.system, torch.from_numpy(viewer.env.observe()[0, 2]))
    history = viewer._painter._followed_history
    assert history.steps == list(range(31))
    assert {name: series[-1] for name, series in history.values.items()} == {
        f"nearest {name}": float(own[name][0]) for name in ("I1", "I2", "I3", "I4")
    }
    viewer.follow = 3
    viewer.frame()
    assert history.steps == [30], "another agent begins anew"
    viewer.follow = None
    assert not len(orange(viewer))


def test_charts_of_who_is_followed_are_those_it_sees() -> None:
    viewer = watched("particles-crowd-v0", n_agents=8, seen=("I1",))
    viewer.follow = 0
    assert [list(chart.series) for chart in viewer.charts()] == [["nearest I1"]]
    other = watched("ising-equilibrium-v0", lattice_size=4)
    other.follow = 0
    assert other.charts() == []


def test_nobody_near_is_a_gap_in_the_chart() -> None:
    viewer = watched("particles-circle-v0", n_agents=2, cutoff=0.5)
    viewer.follow = 0
    assert all(math.isnan(v) for chart in viewer.charts() for v in chart.series.values())
    viewer.frame()


def test_a_panel_without_room_keeps_its_text() -> None:
    viewer = watched("particles-circle-v0", n_agents=8)
    viewer.follow = 2
    viewer.resize((1050, 500))
    assert not len(orange(viewer))


def test_a_chart_of_the_latest_steps_spans_what_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    chart = plots.Chart(0.0, 0.0, {"a": 0.0}, latest=10)
    history = plots.History()
    for step in range(51):
        history.add(step, {"a": 1000.0 if step < 30 else -0.5 if step == 45 else 2.0})
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    stroke = plots._stroke

    def record(image: Any, area: Any, column: Any, row: Any, *rest: Any) -> None:
        drawn.append((column, row))
        stroke(image, area, column, row, *rest)

    monkeypatch.setattr(plots, "_stroke", record)
    image = np.zeros((100, 200, 3), np.uint8)
    surface = plots.pygame.image.frombuffer(image.data, (200, 100), "RGB")
    plots.draw_chart(image, surface, (0, 0, 200, 100), chart, history, "step")
    (column, row) = drawn[0]
    assert len(column) == 11
    assert np.ptp(column) > 100
    assert row.argmax() == 5
    assert row[0] == row.min(), "the largest of the latest is at the top"
    assert plots._limits(chart, {"a": np.array([-0.5, 2.0, np.nan])}) == (-0.5, 2.0)
    assert plots._limits(chart, {"a": np.array([0.0])}) == (0.0, 1.0)
