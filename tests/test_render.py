"""Pictures show what the scene says, need no display, and a person can watch and steer them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pygame
import pytest
import torch

import invariantzoo
from invariantzoo.agents.policy import make_policy
from invariantzoo.commands.rollout import Session
from invariantzoo.envs.core.observation import by_name
from invariantzoo.envs.core.rendering import raster as kernel
from invariantzoo.envs.core.rendering.colours import (
    BACKGROUND,
    CELL_PALETTE,
    DISC_PALETTE,
    FILL,
    LINE,
    PANEL,
)
from invariantzoo.envs.core.rendering.lens import Lens, agent_at
from invariantzoo.envs.core.rendering.painter import Painter
from invariantzoo.envs.core.rendering.viewer import FASTEST, SLOWEST, Viewer
from invariantzoo.envs.core.rendering.window import _OPEN_WINDOWS, Window
from invariantzoo.envs.core.scene import Plot, Scene
from invariantzoo.envs.core.vector import VectorEnv

UNIT = (0.0, 0.0, 1.0, 1.0)


def one_disc(x: float, y: float, value: float = 0.0, **more: object) -> Scene:
    return Scene(
        view=UNIT,
        discs=np.array([[x, y]]),
        disc_radius=np.array([0.05]),
        disc_value=np.array([value]),
        **more,  # type: ignore[arg-type]
    )


def draw(scene: Scene, size: tuple[int, int] = (200, 200)) -> np.ndarray:
    return Painter(size=size).draw(scene)


def painted(image: np.ndarray) -> np.ndarray:
    """Flags [height, width] of pixels that are not background."""
    return (image != np.array(BACKGROUND, np.uint8)).any(-1)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Windows that nobody sees."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.display.quit()


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_frames_are_fresh_images(id: str) -> None:
    env = invariantzoo.parallel_env(id, render_mode="rgb_array")
    env.reset(seed=1)
    first = env.render()
    assert isinstance(first, np.ndarray)
    assert first.shape == (640, 640, 3)
    assert first.dtype == np.uint8
    assert first.flags.writeable
    assert first.flags.c_contiguous
    assert painted(first).any()
    kept = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(env.render(), kept)
    again = invariantzoo.parallel_env(id, render_mode="rgb_array")
    again.reset(seed=1)
    np.testing.assert_array_equal(again.render(), kept)
    env.close()


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_frames_follow_the_world(id: str) -> None:
    env = invariantzoo.parallel_env(id, render_mode="rgb_array")
    env.reset(seed=1)
    before = env.render()
    for _ in range(20):
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    assert (env.render() != before).any()


@pytest.mark.parametrize(("value", "colour"), [(0.0, 0), (0.5, 127), (1.0, 255)])
def test_a_disc_has_its_place_and_colour(value: float, colour: int) -> None:
    image = draw(one_disc(0.3, 0.8, value))
    np.testing.assert_array_equal(image[40, 60], DISC_PALETTE[colour])
    row, column = np.nonzero(painted(image))
    assert abs(row.mean() + 0.5 - 40) < 0.1
    assert abs(column.mean() + 0.5 - 60) < 0.1
    assert np.hypot(row + 0.5 - 40, column + 0.5 - 60).max() < 10.8


def test_discs_move_by_less_than_a_pixel() -> None:
    image = draw(one_disc(0.5, 0.5)).astype(float) - BACKGROUND
    moved = draw(one_disc(0.501, 0.5)).astype(float) - BACKGROUND
    x = np.arange(200)[None, :, None]
    shift = (x * moved).sum() / moved.sum() - (x * image).sum() / image.sum()
    assert shift == pytest.approx(0.2, abs=0.02)


def test_calm_is_blue_and_alarmed_is_red() -> None:
    calm, alarmed = DISC_PALETTE[0].astype(int), DISC_PALETTE[-1].astype(int)
    assert calm.argmax() == 2
    assert alarmed.argmax() == 0


def test_a_periodic_picture_has_no_edge() -> None:
    rng = np.random.default_rng(0)
    place, radius, speed = rng.random((60, 2)), rng.uniform(0.01, 0.1, 60), rng.normal(size=(60, 2))
    value = rng.random(60)

    def picture(shift: np.ndarray) -> np.ndarray:
        discs = (place + shift) % 1
        arrows = np.concatenate([discs, 0.1 * speed], -1)
        return draw(Scene(UNIT, discs, radius, value, periodic=True, arrows=arrows), (128, 128))

    rolled = np.roll(picture(np.zeros(2)), (-96, 32), (0, 1))
    np.testing.assert_allclose(picture(np.array([0.25, 0.75])).astype(int), rolled, atol=2)


def test_open_space_has_an_edge() -> None:
    image = draw(one_disc(0.0, 0.5))
    assert painted(image)[:, :10].any()
    assert not painted(image)[:, 100:].any()


def test_a_wide_view_is_not_distorted() -> None:
    scene = Scene((0.0, 0.0, 4.0, 1.0), np.array([[2.0, 0.5]]), np.array([0.4]))
    row, column = np.nonzero(painted(draw(scene, (400, 200))))
    assert np.ptp(row) == np.ptp(column) == 79
    assert row.mean() == 99.5


def test_painting_is_deterministic() -> None:
    scene = one_disc(0.31, 0.47, 0.3, caption=("T 2.27",))
    painter = Painter(size=(200, 200))
    first = painter.draw(scene)
    np.testing.assert_array_equal(painter.draw(scene), first)
    np.testing.assert_array_equal(draw(scene), first)


@pytest.mark.parametrize("radius", [1.5, 3.3, 17.0])
def test_a_disc_covers_its_area(radius: float) -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    disc, white = np.array([[25.3, 24.8, radius, 0.0]]), np.array([[255.0, 255.0, 255.0, 1.0]])
    kernel.discs(image, disc, white, (0, 0, 50, 50), np.zeros(2))
    assert image[..., 0].sum() / 255 == pytest.approx(math.pi * radius**2, rel=0.06)


def test_a_stroke_covers_its_area() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    line, white = np.array([[10.0, 12.0, 33.0, 21.0]]), np.array([[255.0, 255.0, 255.0, 1.0]])
    width, clip, ground = np.array([[5.0, 3.0]]), (0, 0, 60, 60), (0, 0, 0)
    kernel.lines(image, line, width, white, clip, np.zeros(2), ground, False)
    area = 4 * math.hypot(33, 21) + 0.5 * math.pi * (2.5**2 + 1.5**2)
    assert image[..., 0].sum() / 255 == pytest.approx(area, rel=0.02)


def test_joined_strokes_look_like_one() -> None:
    image = [np.zeros((60, 60, 3), np.uint8) for _ in range(2)]
    one = np.array([[10.0, 30.5, 40.0, 0.0]])
    parts = np.array([[x, 30.5, 10.0, 0.0] for x in (10.0, 20.0, 30.0, 40.0)])
    for canvas, line in zip(image, (one, parts), strict=True):
        n = len(line)
        colour, width = np.full((n, 4), (255.0, 128.0, 40.0, 0.5)), np.full((n, 2), 6.0)
        kernel.lines(canvas, line, width, colour, (0, 0, 60, 60), np.zeros(2), (0, 0, 0), True)
    np.testing.assert_array_equal(*image)
    assert image[0][30, 30].tolist() == [128, 64, 20]


def test_what_is_smaller_than_a_pixel_is_fainter() -> None:
    light = []
    for radius in (0.5, 0.25, 0.125):
        image = np.zeros((9, 9, 3), np.uint8)
        disc, white = np.array([[4.5, 4.5, radius, 0.0]]), np.array([[255.0, 255.0, 255.0, 1.0]])
        kernel.discs(image, disc, white, (0, 0, 9, 9), np.zeros(2))
        light.append(image[..., 0].sum())
    np.testing.assert_allclose(light[0], np.array(light[1:]) * (4, 16), rtol=0.03)


def test_nothing_is_painted_outside_the_clip() -> None:
    rng = np.random.default_rng(0)
    n, clip = 5000, (30, 20, 130, 100)
    place, white = rng.uniform(-60, 220, (n, 2)), np.full((n, 4), (255.0, 255.0, 255.0, 1.0))
    disc = np.column_stack([place, rng.uniform(0, 30, n), rng.choice([0.0, 5.0], n)])
    disc[:3] = (np.nan, 50, 9, 0), (50, np.inf, 9, 0), (50, 50, np.nan, 0)
    line = np.column_stack([place, rng.normal(0, 40, (n, 2))])
    line[:3] = (np.nan, 50, 9, 9), (50, 50, np.inf, 0), (50, 50, 0, 0)
    for period in (np.zeros(2), np.array([100.0, 80.0])):
        image = np.zeros((120, 160, 3), np.uint8)
        kernel.discs(image, disc, white, clip, period)
        for join in (False, True):
            kernel.lines(image, line, np.full((n, 2), 3.0), white, clip, period, (0, 0, 0), join)
        assert image[20:100, 30:130].min() == 255
        image[20:100, 30:130] = 0
        assert not image.any()


def test_many_discs() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    scene = Scene(UNIT, rng.random((n, 2)), np.full(n, 0.0012), rng.random(n), periodic=True)
    assert 0.05 < painted(draw(scene, (640, 640))).mean() < 0.5


@pytest.mark.parametrize("cells", [(4, 4), (3, 5), (1, 7), (1024, 1024)])
def test_a_lattice_is_scaled_by_nearest_neighbour(cells: tuple[int, int]) -> None:
    value = np.random.default_rng(0).random(cells)
    image = draw(Scene((0.0, 0.0, 1.0, 1.0), cells=value), (320, 320))
    row = np.arange(320) * cells[0] // 320
    column = np.arange(320) * cells[1] // 320
    index = np.rint(255 * value[row][:, column]).astype(int)
    np.testing.assert_array_equal(image, CELL_PALETTE[index])


def test_cells_out_of_range_take_the_ends() -> None:
    image = draw(Scene(UNIT, cells=np.array([[-3.0, 9.0, np.nan]])), (30, 10))
    np.testing.assert_array_equal(image[4, 15], CELL_PALETTE[-1])


def test_segments_join_their_ends() -> None:
    image = draw(Scene(UNIT, segments=np.array([[0.1, 0.5, 0.9, 0.5]])))
    row, column = np.nonzero(painted(image))
    assert (column.min(), column.max()) == (19, 180)  # round ends
    assert set(row) == {99, 100}


def test_trails_fade_and_are_forgotten() -> None:
    painter, plain = Painter(size=(200, 200), trail=4), Painter(size=(200, 200))
    for x in (0.3, 0.4, 0.5, 0.6, 0.7, 0.7):
        scene = one_disc(x, 0.5)
        image = painter.draw(scene)
    bare = plain.draw(scene)
    light = (image.astype(int) - bare).sum(-1)
    assert light[100, 90] > 0  # where the disc was
    assert 0 < light[100, 90] < light[100, 110]
    assert not light[100, :58].any()  # more than four places ago
    painter.forget()
    np.testing.assert_array_equal(painter.draw(scene), bare)


def test_a_trail_crosses_the_edge_of_a_torus() -> None:
    painter = Painter(size=(200, 200), trail=4)
    painter.draw(one_disc(0.95, 0.5, periodic=True))
    image = painter.draw(one_disc(0.05, 0.5, periodic=True))
    assert not painted(image)[:, 30:185].any()
    assert painted(image)[:, 190:].any()


def test_the_one_who_is_followed_has_a_ring() -> None:
    scene = Scene(
        UNIT,
        np.array([[0.25, 0.5], [0.75, 0.5]]),
        np.array([0.05, 0.05]),
        agents=np.array([7, 3]),
    )
    painter = Painter(size=(200, 200))
    changed = (painter.draw(scene, follow=3) != painter.draw(scene)).any(-1)
    row, column = np.nonzero(changed)
    away = np.hypot(row + 0.5 - 100, column + 0.5 - 150)
    assert 10 < away.min() < away.max() < 18
    np.testing.assert_array_equal(painter.draw(scene, follow=99), painter.draw(scene))


def test_text_stays_in_its_place() -> None:
    painter = Painter(size=(200, 200), panel=150)
    blank = painter.draw(Scene(UNIT))
    assert blank.shape == (200, 350, 3)
    np.testing.assert_array_equal(blank[0, 0], BACKGROUND)
    np.testing.assert_array_equal(blank[0, -1], PANEL)
    caption = (painter.draw(Scene(UNIT, caption=("T 2.3", "h 0.1"))) != blank).any(-1)
    assert caption.any()
    assert not caption[60:].any()
    assert not caption[:, 120:].any()
    panel = (painter.draw(Scene(UNIT), lines=["loss\t0.25", "a" * 99]) != blank).any(-1)
    assert panel.any()
    assert not panel[:, :200].any()


def test_text_survives_that_somebody_shuts_pygame_down() -> None:
    painter = Painter()
    first = painter.draw(Scene(UNIT, caption=("m 0.3",)))
    pygame.quit()
    np.testing.assert_array_equal(painter.draw(Scene(UNIT, caption=("m 0.3",))), first)


def test_a_picture_needs_no_display_and_no_sound() -> None:
    code = (
        "import pygame, invariantzoo as iz\n"
        "for id in iz.ids():\n"
        "    env = iz.parallel_env(id, render_mode='rgb_array'); env.reset(seed=1); env.render()\n"
        "assert not pygame.display.get_init() and not pygame.mixer.get_init()\n"
    )
    nothing = {"SDL_VIDEODRIVER": "nonesuch", "SDL_AUDIODRIVER": "nonesuch", "DISPLAY": ""}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env={**os.environ, **nothing}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("size", [(0, 10), (10, -1)])
def test_an_empty_picture_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Painter(size=size)


def test_who_is_drawn_at_a_pixel() -> None:
    rng = np.random.default_rng(0)
    grid = (np.stack(np.meshgrid(*2 * [np.arange(5)]), -1).reshape(-1, 2) + 0.02) / 5
    scene = Scene(UNIT, grid, np.full(25, 0.05), periodic=True, agents=rng.permutation(25))
    size = (300, 200)
    for agent, pixel in zip(scene.agents, Lens(UNIT, size).pixels(grid), strict=True):  # type: ignore[arg-type]
        assert agent_at(scene, size, (int(pixel[0]), int(pixel[1]))) == agent
    assert agent_at(scene, size, (50 + 199, 100)) == agent_at(scene, size, (50, 100))
    assert agent_at(scene, size, (70, 20)) is None
    lattice = Scene(UNIT, cells=np.zeros((2, 4)))
    assert [agent_at(lattice, size, pixel) for pixel in ((50, 0), (249, 199), (49, 0))] == [
        0,
        7,
        None,
    ]
    assert agent_at(Scene(UNIT), size, (100, 100)) is None


@pytest.mark.usefixtures("window")
def test_a_window_shows_frames_until_it_is_closed() -> None:
    painter = Painter(size=(160, 160), human=True, fps=1000)
    scene = one_disc(0.5, 0.5)
    image = painter.draw(scene)
    window = painter._window
    assert window is not None
    assert window._window is not None
    shown = pygame.surfarray.array3d(window._window.get_surface()).swapaxes(0, 1)
    np.testing.assert_array_equal(shown, image)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    painter.draw(scene)
    assert not window.is_open
    np.testing.assert_array_equal(painter.draw(scene), image)
    assert not window.is_open
    painter.close()


@pytest.mark.usefixtures("window")
def test_an_environment_for_people() -> None:
    env = invariantzoo.parallel_env("particles-encounter-v0", render_mode="human")
    env.reset(seed=1)
    assert env.render() is None
    assert len(_OPEN_WINDOWS) == 1
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    for _ in range(3):
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    assert not _OPEN_WINDOWS
    env.close()


def test_a_drag_turns_balls_in_the_viewer_and_in_a_window(window: None) -> None:
    viewer = make_viewer("cluster-relaxation-v0", "soft")
    before = viewer.frame()

    def drag(held: int, across: int) -> pygame.event.Event:
        given = {"buttons": (held, 0, 0), "rel": (across, 0), "pos": (200, 200)}
        return pygame.event.Event(pygame.MOUSEMOTION, given)

    viewer.handle(drag(0, 80))
    np.testing.assert_array_equal(viewer.frame(), before)
    viewer.handle(drag(1, 80))
    turned = viewer.frame()
    assert (turned != before)[:, :720].any()
    viewer.handle(drag(1, -80))
    np.testing.assert_allclose(viewer.frame().astype(int), before.astype(int), atol=2)

    painter = Painter(size=(160, 160), human=True, fps=1000)
    scene = viewer.scene()
    first = painter.draw(scene)
    pygame.event.post(drag(1, 80))
    painter.draw(scene)
    assert (painter.draw(scene) != first).any()
    painter.close()


def test_a_plot_fills_the_strip_below_and_the_scene_keeps_above() -> None:
    x = np.linspace(0.0, 1.0, 20)
    y = np.stack([np.full(20, 0.5), np.zeros(20)])
    scene = Scene(
        UNIT,
        np.array([[0.5, 0.5]]),
        np.array([0.4]),
        plot=Plot(x, y, np.ones((2, 20)), ("a", "b"), top=2.0, axis="r (Å)"),
    )
    painter = Painter(size=(300, 300))
    image, strip = painter.draw(scene), painter.layout(scene).strip
    blue, line, ground = ((image == np.array(colour)).all(-1) for colour in (FILL, LINE, PANEL))
    rows, columns = np.nonzero(blue)
    assert columns.max() < 150, "the second function is 0"
    high = np.ptp(np.nonzero((blue | line | ground).any(1))[0]) + 1
    assert np.ptp(rows) + 1 == pytest.approx(0.25 * high, abs=1.5), "a quarter of the top"
    assert np.ptp(columns) + 1 == pytest.approx(130, abs=15)
    assert line[:, :150].any()
    assert line[:, 150:].any()
    assert not (blue | line)[:strip].any()
    faint = (image[strip:].astype(int) - BACKGROUND).sum(-1) > 60
    assert faint[:, :12].any(), "numbers stand at the left"
    disc = (image[:strip] == DISC_PALETTE[0]).all(-1)
    assert disc.any()
    assert not (image[strip:] == DISC_PALETTE[0]).all(-1).any()


@pytest.mark.parametrize("driver", ["nonesuch", None])
def test_no_display_is_one_clear_error(driver: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    if driver is not None:
        monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    elif sys.platform != "linux":
        pytest.skip("other systems always have a display")
    with pytest.raises(OSError, match="no window can be opened"):
        Window((64, 64), title="", fps=10)


def make_viewer(
    id: str = "particles-crowd-v0", policy: str = "random", **parameters: int
) -> Viewer:
    system = invariantzoo.make_system(id, **parameters)
    env = VectorEnv(system, 1, seed=3)
    session = Session(env, make_policy(policy, system), deterministic=False)
    session.begin()
    return Viewer(env, session.step, session.reset, title="here")


def texts(viewer: Viewer) -> list[str]:
    """The panel without its legend."""
    return [line for line in viewer.panel() if isinstance(line, str)]


def press(viewer: Viewer, *keys: int, mod: int = 0) -> None:
    for key in keys:
        viewer.handle(pygame.event.Event(pygame.KEYDOWN, key=key, mod=mod))


def click(viewer: Viewer, x: float, y: float) -> None:
    place = (int(x), int(y))
    viewer.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=place))


def test_time_runs_at_its_rate_and_stops_when_paused() -> None:
    viewer = make_viewer()
    for _ in range(20):
        viewer.advance(0.05)
    assert viewer.env.age[0] == 20
    press(viewer, pygame.K_SPACE)
    viewer.advance(0.1)
    assert viewer.env.age[0] == 20
    press(viewer, pygame.K_n, pygame.K_RIGHT)
    assert viewer.env.age[0] == 22
    assert viewer.paused
    press(viewer, pygame.K_SPACE, pygame.K_EQUALS)
    viewer.advance(0.1)
    assert viewer.env.age[0] == 26


def test_speed_has_limits() -> None:
    viewer = make_viewer()
    press(viewer, *[pygame.K_PLUS] * 20)
    assert viewer.rate == FASTEST
    press(viewer, *[pygame.K_MINUS] * 40)
    assert viewer.rate == SLOWEST
    press(viewer, pygame.K_KP_PLUS)
    assert viewer.rate == 2 * SLOWEST


def test_reset_starts_a_new_episode() -> None:
    viewer = make_viewer()
    before = viewer.env.state.position.copy()
    press(viewer, pygame.K_n, pygame.K_n, pygame.K_r)
    assert viewer.env.age[0] == 0
    assert viewer.last is None
    assert (viewer.env.state.position != before).all()


def test_live_parameters_are_adjusted_while_it_runs() -> None:
    viewer = make_viewer("ising-equilibrium-v0", "heat-bath", lattice_size=6)
    assert any("temperature" in line for line in texts(viewer))
    press(viewer, *[pygame.K_RIGHTBRACKET] * 3, pygame.K_QUOTE, pygame.K_n)
    assert viewer.env.state.temperature[0, 0] == pytest.approx(2.65)
    assert viewer.env.state.field[0, 0] == pytest.approx(0.05)
    assert viewer.env.observe()[0, 0, 2] == pytest.approx(1 / 2.65)
    press(viewer, *[pygame.K_LEFTBRACKET] * 99)
    assert viewer.env.state.temperature[0, 0] == 2.5  # what is colder is not seen
    assert not any("temperature" in line for line in texts(make_viewer()))


@pytest.mark.parametrize("key", [pygame.K_q, pygame.K_ESCAPE])
def test_quit(key: int) -> None:
    viewer = make_viewer()
    press(viewer, key)
    assert viewer.done
    closed = make_viewer()
    closed.handle(pygame.event.Event(pygame.QUIT))
    assert closed.done


def test_agents_are_followed_by_click_and_tab() -> None:
    viewer = make_viewer()
    scene = viewer.scene()
    assert scene.discs is not None
    for agent, pixel in enumerate(Lens(scene.view, (720, 720)).pixels(scene.discs)):
        click(viewer, *pixel)
        assert viewer.follow == agent
    click(viewer, 900, 100)  # the panel
    assert viewer.follow is None
    press(viewer, pygame.K_TAB, pygame.K_TAB)
    assert viewer.follow == 1
    press(viewer, pygame.K_TAB, pygame.K_TAB, mod=pygame.KMOD_LSHIFT)
    assert viewer.follow == viewer.env.n_agents - 1
    press(viewer, pygame.K_TAB)
    assert viewer.follow == 0


def test_those_who_left_are_passed_over() -> None:
    viewer = make_viewer("test-leave-v0")
    press(viewer, pygame.K_TAB)
    while viewer.env.alive[0].sum() > 2 and not viewer.done:
        viewer.step()
    present = np.flatnonzero(viewer.env.alive[0])
    viewer.follow = int(np.flatnonzero(~viewer.env.alive[0])[0])
    assert "has left" in texts(viewer)
    seen = set()
    for _ in range(4):
        press(viewer, pygame.K_TAB)
        seen.add(viewer.follow)
    assert seen == set(present.tolist())


def test_the_panel_shows_invariants_by_name_and_the_loss() -> None:
    viewer = make_viewer("ising-equilibrium-v0", "heat-bath")
    viewer.follow = 5
    viewer.step()
    shown = dict(line.split("\t") for line in texts(viewer) if "\t" in line)
    env = viewer.env
    own = by_name(env.system, torch.from_numpy(env.observe()[0, 5]))
    for name, value in own.items():
        assert float(shown[name]) == pytest.approx(float(value), abs=0.005)
    assert viewer.last is not None
    assert float(shown["loss"]) == pytest.approx(-viewer.last.reward[0, 5], abs=0.005)
    assert shown["step"] == f"1 of {env.system.horizon:,}"
    later = f"from step {env.system.warm_up + 1:,} on"
    assert {shown[name] for name in env.system.reductions} == {later}


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_every_world_can_be_watched(id: str) -> None:
    viewer = make_viewer(id)
    viewer.follow = 0
    before = viewer.frame()
    for _ in range(40):
        viewer.step()
    assert (viewer.frame() != before).any()


@pytest.mark.usefixtures("window")
def test_the_window_takes_keys_until_quit() -> None:
    viewer = make_viewer()
    shown = 0
    seen: list[str] = []
    inner = viewer.frame

    def frame() -> np.ndarray:
        nonlocal shown
        shown += 1
        keys = {2: pygame.K_SPACE, 3: pygame.K_n, 4: pygame.K_TAB, 6: pygame.K_q}
        if shown in keys:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=keys[shown], mod=0))
        seen.append(viewer.panel()[3])
        return inner()

    viewer.frame = frame  # type: ignore[method-assign]
    viewer.run()
    assert shown == 6
    assert seen[-1] == "speed\tpaused"
    assert viewer.follow == 0
    assert viewer.last is not None
    assert not _OPEN_WINDOWS


@pytest.mark.usefixtures("window")
def test_the_window_closes_when_the_steps_are_over() -> None:
    system = invariantzoo.make_system("particles-encounter-v0")
    env = VectorEnv(system, 1, seed=3)
    session = Session(env, make_policy("brake", system), deterministic=False)
    viewer = Viewer(
        env,
        lambda: session.step() if session.n_steps < 5 else None,
        session.reset,
        title="here",
        rate=1000,
        begin=session.begin,
    )
    viewer.run()
    assert session.n_steps == 5


def test_nearer_balls_hide_farther_ones_and_the_mouse_turns_them() -> None:
    ends = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    scene = Scene(
        view=(-2.0, -2.0, 2.0, 2.0),
        balls=ends,
        bonds=np.array([[0, 1]]),
        disc_radius=np.array([0.4, 0.4]),
        disc_value=np.array([0.0, 1.0]),
    )
    painter = Painter(size=(96, 96))
    painter.turn(-0.5, -0.35)  # straight on, as it begins turned
    front = painter.draw(scene)[48, 48].astype(int)
    assert front[2] > front[0], "the calm ball is nearer"
    painter.turn(math.pi, 0.0)
    back = painter.draw(scene)[48, 48].astype(int)
    assert back[0] > back[2], "from behind it is the alarmed one"
    painter.turn(0.5 * math.pi, 0.0)
    beside = painter.draw(scene)
    lit = (beside.astype(int) - BACKGROUND).any(-1)
    assert lit[48, 36:60].all(), "the bond joins the two balls"
    assert not lit[:30].any()
