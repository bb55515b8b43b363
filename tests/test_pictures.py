"""Pictures, films and windows can be read at any size, and show what an id is about."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest
import torch
from PIL import Image, ImageSequence

import invariantzoo
from invariantzoo.agents.policy import make_policy, policy_names
from invariantzoo.commands.rollout import Session
from invariantzoo.envs.core.film import Film, film_of
from invariantzoo.envs.core.rendering import plots, text
from invariantzoo.envs.core.rendering.colours import BACKGROUND, CELL_PALETTE, PALETTES
from invariantzoo.envs.core.rendering.legend import flow
from invariantzoo.envs.core.rendering.painter import Painter
from invariantzoo.envs.core.rendering.viewer import COMPILING, Viewer
from invariantzoo.envs.core.rendering.window import Window
from invariantzoo.envs.core.scene import Chart, LegendEntry, Scene
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.site.pages import own_ids
from invariantzoo.training.rl.hyperparameters import ALGORITHMS
from invariantzoo.training.runs.video import Camera, film, record_video

UNIT = (0.0, 0.0, 1.0, 1.0)
SIZES = [(260, 260), (480, 300), (640, 640), (1200, 500), (1280, 720)]
SMALLER: dict[str, dict[str, Any]] = {
    "water-dynamics-v0": {"data": "water16"},
    "ising-equilibrium-v0": {"lattice_size": 64},
}
Written = list[tuple[str, int, int, int, int]]  # text; left, top, right, bottom


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """Every text that is drawn from now on, and where."""
    texts: Written = []
    inner = text.write

    def write(surface: Any, said: str, place: tuple[int, int], size: int, colour: Any) -> int:
        wide = inner(surface, said, place, size, colour)
        if said:
            top = place[1] - text.above(said, size)
            texts.append(
                (said, place[0], top, place[0] + wide, top + text.font(size).size(said)[1])
            )
        return wide

    monkeypatch.setattr(text, "write", write)
    return texts


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Windows that nobody sees."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.display.quit()


def world(id: str, n_worlds: int = 1, **parameters: Any) -> tuple[Session, Film]:
    """A session of an id as its film has it, if that is quickly made, three steps old."""
    film = invariantzoo.spec(id).film
    system = invariantzoo.make_system(
        id, **{**film.parameters, **SMALLER.get(id, {}), **parameters}
    )
    env = VectorEnv(system, n_worlds, seed=3)
    session = Session(env, make_policy("random", system), deterministic=False)
    for _ in range(3):
        session.step()
    return session, film


def viewer_of(session: Session, size: tuple[int, int], title: str = "here") -> Viewer:
    viewer = Viewer(session.env, session.step, session.reset, title=title)
    viewer.resize(size)
    return viewer


@pytest.mark.parametrize("id", own_ids())
def test_every_text_of_a_window_stands_whole_beside_the_scene(id: str, written: Written) -> None:
    session, film = world(id)
    scene = viewer_of(session, SIZES[0]).scene()
    for size in SIZES:
        viewer = viewer_of(session, size, f"{id}, {film.policy}")
        viewer.follow = 0
        written.clear()
        image = viewer.frame()
        assert image.shape == (size[1], size[0], 3)
        painter = viewer._painter
        layout = painter.layout(scene, charts=True)
        assert layout.strip - layout.scene >= 0.3 * size[1], "the scene keeps its room"
        for said, left, top, right, bottom in written:
            assert 0 <= left < right <= size[0], (said, size)
            assert 0 <= top < bottom <= size[1], (said, size)
            inside = left < painter.size[0] and layout.scene < bottom and top < layout.strip
            assert not inside or said in scene.marks, f"{said!r} lies over the scene at {size}"
            assert not said.endswith("…") or left >= painter.size[0], f"{said!r} is cut at {size}"
        for row in layout.caption:
            assert any(said == row for said, *_ in written), f"{row!r} is missing at {size}"
        assert " ".join(layout.caption) == " ".join(" ".join(scene.caption).split())


@pytest.mark.parametrize("id", own_ids())
def test_texts_of_films_stand_whole_beside_the_scenes(id: str, written: Written) -> None:
    for n_worlds, width in ((1, 260), (4, 320), (9, 448), (9, 1280)):
        session, _ = world(id, n_worlds)
        camera = Camera(session.env, size=width)
        image = camera.frame()
        assert image.shape[0] % 16 == image.shape[1] % 16 == 0
        painter = camera._painters[0]
        scene = camera._scene(0)
        layout = painter.layout(scene, charts=True)
        assert layout.strip - layout.scene >= painter.size[0] - 1, "the scene is not squeezed"
        for said, left, top, right, bottom in written:
            assert "…" not in said, (said, width)
            assert 0 <= left < right <= image.shape[1], (said, width)
            assert 0 <= top < bottom <= image.shape[0], (said, width)
        if scene.caption:
            assert layout.caption, f"the caption is left out of {n_worlds} worlds at {width}"
        written.clear()


def test_a_caption_changes_no_pixel_of_the_scene() -> None:
    cells = np.random.default_rng(0).random((8, 8))
    painter = Painter(size=(300, 300))
    first, second = (
        painter.draw(Scene(UNIT, cells=cells, caption=(said,))) for said in ("T 2.30", "h +0.10")
    )
    layout = painter.layout(Scene(UNIT, cells=cells, caption=("T 2.30",)))
    changed = (first != second).any((1, 2))
    assert changed[: layout.scene].any()
    assert not changed[layout.scene :].any()


def test_words_are_wrapped_and_only_what_is_too_wide_alone_is_shortened() -> None:
    size = text.largest_fit(["energy -44.33 of -44.33"], 90)
    assert size == text.SMALLEST
    rows = text.wrapped("energy -44.33 of -44.33", 90, size)
    assert len(rows) > 1
    assert " ".join(rows) == "energy -44.33 of -44.33"
    assert all(text.width(row, size) <= 90 for row in rows)
    assert text.largest_fit(["m"], 90) == text.LARGEST
    (cut,) = text.wrapped("W" * 50, 90, size)
    assert cut.endswith("…")
    assert text.width(cut, size) <= 90
    assert text.shortened("W", 1, size) == ""


def test_accents_do_not_push_a_text_below_its_line() -> None:
    bottoms = []
    for said in ("r (A)", "r (Å)"):
        image = np.zeros((40, 80, 3), np.uint8)
        surface = pygame.image.frombuffer(image.data, (80, 40), "RGB")
        text.write(surface, said, (5, 15), 16, (255, 255, 255))
        bottoms.append(np.nonzero(image.any((1, 2)))[0].max())
    assert bottoms[0] == bottoms[1]


def test_a_caption_keeps_its_size_in_an_episode() -> None:
    painter = Painter(size=(230, 230), trail=3)
    long, short = (
        Scene(UNIT, caption=("energy 1234567890123456789012.12 of -44.33",)),
        Scene(UNIT, caption=("energy 1 of -44.33",)),
    )
    alone = painter.layout(short).caption_size
    crowded = painter.layout(long).caption_size
    assert crowded < alone
    assert painter.layout(short).caption_size == crowded
    painter.forget()
    assert painter.layout(short).caption_size == alone


def test_too_small_a_picture_shows_the_scene_alone(written: Written) -> None:
    cells = np.array([[0.0, 1.0]])
    scene = Scene(UNIT, cells=cells, caption=("T 2.30", "h +0.10"))
    image = Painter(size=(30, 30)).draw(scene)
    assert written == []
    np.testing.assert_array_equal(image[0, -1], CELL_PALETTE[-1])


@pytest.mark.parametrize("id", own_ids())
def test_colours_have_a_legend_in_the_window_and_in_the_film(id: str) -> None:
    session, _ = world(id)
    viewer = viewer_of(session, (1050, 640))
    entries = [line for line in viewer.panel() if isinstance(line, LegendEntry)]
    assert entries
    assert entries == list(viewer.scene().legend)
    frame = Camera(session.env, size=256).frame()
    key = Painter(size=(256, 16), legend=True).key(viewer.scene())
    assert key is not None
    rest = -len(key) % 16
    np.testing.assert_array_equal(frame[len(frame) - len(key) - rest : len(frame) - rest], key)
    shown = {tuple(colour) for colour in key.reshape(-1, 3).tolist()}
    for entry in entries:
        if entry.shape == "scale":
            ends = PALETTES[entry.palette][[0, 255]]
            assert {tuple(colour.tolist()) for colour in ends} <= shown
        if entry.shape in ("cell", "disc", "ring"):
            palette = CELL_PALETTE if entry.shape == "cell" else PALETTES[entry.palette]
            assert tuple(palette[int(255 * entry.value)].tolist()) in shown


def test_a_narrow_window_has_its_legend_below() -> None:
    session, _ = world("ising-equilibrium-v0", lattice_size=8)
    viewer = viewer_of(session, (260, 260))
    layout = viewer._painter.layout(viewer.scene(), charts=True)
    assert layout.key < layout.end
    assert viewer.window_size == (260, 260)


def test_a_legend_flows_into_rows() -> None:
    entries = [LegendEntry(f"entry {k}", "disc", 0.1 * k) for k in range(7)]
    rows = flow(entries, 200, 14)
    assert [entry for row in rows for entry in row.entries] == entries
    assert len(rows) > 1
    assert all(left < 200 for row in rows for left in row.left)


def test_species_of_atoms_differ_in_size_and_letter() -> None:
    session, _ = world("water-dynamics-v0")
    viewer = viewer_of(session, (1050, 640))
    scene = viewer.scene()
    assert set(scene.marks) == {"O", "H"}
    radius = {mark: scene.disc_radius[np.array(scene.marks) == mark] for mark in "OH"}  # type: ignore[index]
    assert radius["O"].min() > 1.5 * radius["H"].max()
    bare = viewer._painter.draw(replace(scene, marks=()))
    marked = viewer._painter.draw(scene)
    assert (bare != marked).any()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("n", [4, 256])
def test_the_ring_of_a_spin_can_be_seen_on_every_cell(value: float, n: int) -> None:
    scene = Scene(UNIT, cells=np.full((n, n), value))
    painter = Painter(size=(512, 512))
    agent = n * (n // 2) + n // 2
    plain, ringed = painter.draw(scene).astype(int), painter.draw(scene, follow=agent).astype(int)
    contrast = np.abs(ringed - plain).max(-1)
    assert (contrast > 120).sum() > 60, (contrast.max(), (contrast > 120).sum())
    row, column = np.nonzero(contrast)
    middle = (n // 2 + 0.5) * 512 / n - 0.5
    away = np.hypot(row - middle, column - middle)
    assert away.max() < (64 if n == 4 else 20), "where a cell has room the ring lies inside it"
    assert away.min() > 4, "the cell itself can be seen"


def test_an_atom_is_followed_by_click_and_has_a_ring() -> None:
    session, _ = world("cluster-relaxation-v0")
    viewer = viewer_of(session, (800, 600))
    before = viewer.frame()
    ball = viewer._painter._ball
    nearest = int(ball[:, 2].argmax())
    place = (int(ball[nearest, 0]), int(ball[nearest, 1]))
    viewer.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=place))
    assert viewer.follow == nearest
    assert (viewer.frame()[:, : viewer._painter.size[0]] != before[:, :552]).any()
    viewer.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(2, 300)))
    assert viewer.follow is None


def test_a_click_finds_the_cell_below_a_caption() -> None:
    session, _ = world("ising-equilibrium-v0", lattice_size=4)
    viewer = viewer_of(session, (900, 500))
    viewer.frame()
    left, top, right, bottom = viewer._painter._lens.clip
    assert top > 0
    place = (left + (right - left) * 3 // 8, top + (bottom - top) * 7 // 8)
    viewer.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=place))
    assert viewer.follow == 3 * 4 + 1


@pytest.mark.parametrize(
    ("id", "settings", "follows"),
    [
        ("ising-transport-v0", {}, 0),
        ("klein-gordon-absorber-v0", {}, None),
        ("klein-gordon-force-v0", {"dimensions": 3, "lattice_size": 4}, None),
        ("tasep-ring-v0", {}, None),
        ("tasep-gates-v0", {}, None),
    ],
)
def test_a_click_on_a_cell_that_is_no_agent_means_none(
    id: str, settings: dict[str, Any], follows: int | None
) -> None:
    """Cells of a lattice were taken for agents, and the window ended where there are fewer."""
    session, _ = world(id, **settings)
    viewer = viewer_of(session, (900, 500))
    plain = viewer.frame()
    left, top, right, bottom = viewer._painter._lens.clip
    place = (left + (right - left) * 7 // 8, top + (bottom - top) * 7 // 8)
    viewer.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=place))
    assert viewer.follow == follows
    viewer.follow = 0
    scene = np.s_[:, : viewer._painter.size[0]]
    np.testing.assert_array_equal(viewer.frame()[scene], plain[scene])


def test_a_drag_is_offered_only_where_there_is_depth() -> None:
    flat, _ = world("particles-crowd-v0")
    deep, _ = world("cluster-relaxation-v0")
    assert not any(str(line).startswith("drag") for line in viewer_of(flat, (900, 600)).panel())
    assert any(str(line).startswith("drag") for line in viewer_of(deep, (900, 600)).panel())


@pytest.mark.parametrize("id", own_ids())
def test_the_keys_name_what_a_press_does_where_it_does_something(id: str) -> None:
    session, _ = world(id)
    system = session.env.system
    presses = type(system).pressed is not System.pressed
    assert presses == bool(system.press)
    lines = viewer_of(session, (900, 600)).panel()
    assert (f"click\t{system.press}" in lines) == presses


def chart(**given: Any) -> Scene:
    return Scene(UNIT, charts=(Chart(-1.0, 1.0, **given),))


def test_a_chart_is_drawn_from_what_was_drawn_before() -> None:
    painter = Painter(size=(300, 300), trail=2)
    strip = painter.layout(chart(series={"a": 0.0}), charts=True).strip
    orange = np.array(plots.SERIES[0])

    def drawn(step: int, value: float, **more: Any) -> np.ndarray:
        image = painter.draw(chart(series={"a": value}, length=100, **more), step=step)
        assert not (image[:strip] == orange).all(-1).any()
        return np.stack(np.nonzero((np.abs(image[strip + 20 :].astype(int) - orange) < 8).all(-1)))

    first = drawn(0, 0.5)
    later = drawn(50, -1.0)
    assert np.ptp(later[1]) > 5 * np.ptp(first[1]), "a line from the left to the middle"
    assert np.ptp(later[0]) > 3 * np.ptp(first[0])
    assert 0.35 < (later[1].max() - later[1].min()) / 280 < 0.6
    np.testing.assert_array_equal(drawn(50, -1.0), later)
    again = drawn(0, 0.5)  # another episode
    assert np.ptp(again[1]) == np.ptp(first[1])


def test_a_space_time_diagram_has_a_row_of_every_step() -> None:
    """Also of one in which nothing changes; without steps, of all that is new."""
    scenes = [Scene(UNIT, cells=np.full((1, 4), v), kept_rows=9) for v in (0.0, 0.0, 1.0, 1.0)]
    painter = Painter(size=(90, 90), trail=2)
    for step, scene in enumerate(scenes):
        painter.draw(scene, step=step)
        painter.draw(scene, step=step)
        assert len(painter._rows) == step + 1
    without = Painter(size=(90, 90), trail=2)
    for scene in scenes:
        without.draw(scene)
    assert len(without._rows) == 2


def test_charts_need_a_step_and_a_memory() -> None:
    scene = chart(series={"a": 0.5}, levels={"best": -0.5})
    bare = Painter(size=(300, 300)).draw(Scene(UNIT))
    np.testing.assert_array_equal(Painter(size=(300, 300)).draw(scene, step=3), bare)
    np.testing.assert_array_equal(Painter(size=(300, 300), trail=2).draw(scene), bare)
    assert (Painter(size=(300, 300), trail=2).draw(scene, step=3) != bare).any()


def test_a_chart_draws_metrics_of_the_episode_where_there_are_any() -> None:
    history = plots.History()
    painter = Painter(size=(300, 300), trail=2)
    painter._history = history
    scene = chart(metrics=("work",))
    painter.draw(scene, step=0, metrics={"work": float("nan")})
    painter.draw(scene, step=1, metrics={"work": 0.25})
    painter.draw(scene, step=2)
    assert history.steps == [0, 1, 2]
    np.testing.assert_array_equal(history.values["work"], [np.nan, 0.25, np.nan])


def test_a_long_history_is_thinned_and_keeps_its_ends() -> None:
    history = plots.History()
    for step in range(10_001):
        history.add(step, {"a": float(step)})
    assert len(history.steps) <= 4097
    assert history.steps[0] == 0
    assert history.steps[-1] == 10_000
    assert history.values["a"] == [float(step) for step in history.steps]
    history.add(5, {"a": 1.0})
    assert history.steps == [5]


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0.0, 1.0, 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.0, 40.0, 3, [0.0, 20.0, 40.0]),
        (-48.8, 22.2, 3, [-25.0, 0.0]),
        (0.0, 3.85, 4, [0.0, 1.0, 2.0, 3.0]),
        (1.0, 1.0, 4, []),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, most: int, expected: list[float]) -> None:
    found = plots.ticks(low, high, most)
    assert found == pytest.approx(expected)


@pytest.mark.usefixtures("windows")
def test_a_window_follows_its_user_to_other_sizes() -> None:
    session, _ = world("water-dynamics-v0")
    viewer = Viewer(session.env, session.step, session.reset, title="here")
    shapes: list[tuple[int, ...]] = []
    asked = [(1200, 500), (260, 260), (700, 400)]
    inner, opened = viewer.frame, []
    show = Window.show

    def frame() -> np.ndarray:
        image = inner()
        shapes.append(image.shape[1::-1])
        return image

    def shown(window: Window, image: np.ndarray) -> float:
        opened.append(window)
        seconds = show(window, image)
        assert window._window is not None
        if len(opened) in (1, 3, 5):
            window._window.size = asked[len(opened) // 2]
        if len(opened) == 8:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q, mod=0))
        return seconds

    viewer.frame = frame  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Window, "show", shown)
        viewer.run()
    assert set(asked) <= set(shapes)
    assert shapes[-1] == asked[-1]


@pytest.mark.usefixtures("windows")
def test_a_window_of_an_environment_follows_too() -> None:
    painter = Painter(size=(160, 160), human=True, fps=1000)
    scene = Scene(UNIT, cells=np.array([[0.0, 1.0]]))
    painter.draw(scene)
    window = painter._window
    assert window is not None
    assert window._window is not None
    window._window.size = (300, 200)
    painter.draw(scene)
    assert painter.draw(scene).shape == (200, 300, 3)
    painter.close()


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("stage", ["begin", "step"])
def test_the_window_answers_while_the_step_is_compiled(stage: str) -> None:
    session, _ = world("particles-encounter-v0")
    free, entered = threading.Event(), threading.Event()
    notices: list[np.ndarray] = []
    show, close = Window.show, Window.close

    def slow(work: Callable[[], Any]) -> Callable[[], Any]:
        def waiting() -> Any:
            entered.set()
            assert free.wait(60), "the window did not close while it waited"
            return work()

        return waiting

    def shown(window: Window, image: np.ndarray) -> float:
        if entered.is_set():
            notices.append(image)
            if len(notices) == 3:
                pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q, mod=0))
        return show(window, image)

    def closed(window: Window) -> None:
        close(window)
        free.set()

    begin, step = session.begin, session.step
    viewer = Viewer(
        session.env,
        slow(step) if stage == "step" else step,
        session.reset,
        title="here",
        begin=slow(begin) if stage == "begin" else begin,
    )
    steps = session.n_steps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Window, "show", shown)
        patch.setattr(Window, "close", closed)
        viewer.run()
    assert viewer.done
    assert len(notices) >= 3
    assert session.n_steps == steps + (stage == "step"), "a step that was begun is ended"
    empty = np.broadcast_to(np.array(BACKGROUND, np.uint8), (1, 1, 3))
    middle = notices[0][len(notices[0]) // 2 - 12 : len(notices[0]) // 2 + 12]
    assert (middle != empty).any()
    assert "once" in COMPILING


@pytest.mark.usefixtures("windows")
def test_what_fails_in_the_first_step_is_heard() -> None:
    session, _ = world("particles-encounter-v0")

    def fail() -> None:
        raise RuntimeError("no such step")

    viewer = Viewer(session.env, fail, session.reset, title="here")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="no such step"):
        viewer.run()


@pytest.mark.parametrize("id", own_ids())
def test_every_id_says_how_it_is_filmed(id: str) -> None:
    film = invariantzoo.spec(id).film
    assert film != Film(), "its file declares a film"
    system = invariantzoo.make_system(id, **film.parameters)
    assert film.policy in policy_names(system)
    assert film.n_worlds >= 1
    assert film.steps >= 0
    assert film.skip >= 0
    assert 128 <= film.size <= 640
    assert set(film.training) - {"algo", "steps"} <= {"n_worlds"}
    assert film.training.get("algo", "ppo") in ALGORITHMS
    usual = invariantzoo.make_system(id)
    for name in film.parameters:
        assert getattr(usual, name) != film.parameters[name], f"{name} is the default of the id"


def test_a_film_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown 'speed'"):
        film_of({"speed": 3})
    assert film_of({"steps": 3}) == Film(steps=3)
    assert {one.name for one in fields(Film)} >= {"parameters", "policy", "steps"}


def test_pictures_that_are_skipped_are_remembered(tmp_path: Path) -> None:
    system = invariantzoo.make_system("tasep-ring-v0", update="parallel")
    policy = make_policy("hop", system)
    frames = {}
    for skip in (0, 30):
        path = tmp_path / f"{skip}.gif"
        record_video(system, policy, path, n_steps=4, skip=skip, size=160)
        with Image.open(path) as image:
            frames[skip] = np.asarray(image.convert("RGB")).astype(int)
            assert getattr(image, "n_frames", 1) == 5
    bright = {skip: (frame.sum(-1) > 500).any(1).sum() for skip, frame in frames.items()}
    assert bright[30] > 3 * bright[0], "rows of the steps before the first picture are there"


def test_a_film_of_every_third_step_has_the_trails_of_all(tmp_path: Path) -> None:
    system = invariantzoo.make_system("particles-encounter-v0")
    policy = make_policy("straight", system)
    shots = {}
    for every in (1, 3):
        path = tmp_path / f"{every}.gif"
        record_video(system, policy, path, n_steps=7, every=every, size=160)
        with Image.open(path) as image:
            shots[every] = [
                np.asarray(frame.convert("RGB")).astype(int)
                for frame in ImageSequence.Iterator(image)
            ]
    assert [len(frames) for frames in shots.values()] == [8, 3]
    for sparse, whole in zip(shots[3], shots[1][::3], strict=True):
        assert np.abs(sparse - whole).max() < 24, "but for the colours that they have in common"


def test_a_film_takes_few_colours_and_keeps_the_ground(tmp_path: Path) -> None:
    session, _ = world("cluster-relaxation-v0")
    path = tmp_path / "film.gif"
    record_video(session.env.system, session.policy, path, n_steps=2, size=160)
    with Image.open(path) as image:
        frame = np.asarray(image.convert("RGB"))
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) <= 256
    assert (frame == np.array(BACKGROUND)).all(-1).mean() > 0.3


def test_colours_of_a_film_are_near_those_of_its_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [np.full((16, 32, 3), BACKGROUND, np.uint8) for _ in range(3)]
    for picture in pictures:
        picture[:, 16:] = PALETTES["wheel"][rng.integers(0, 256, (16, 16))]
    path = tmp_path / "film.gif"
    with film(path, fps=10) as add:
        for picture in pictures:
            add(picture)
    with Image.open(path) as image:
        assert image.info["duration"] == 100
        for picture, frame in zip(pictures, ImageSequence.Iterator(image), strict=True):
            shown = np.asarray(frame.convert("RGB")).astype(int)
            assert np.abs(shown - picture).max() <= 12
            assert (shown[:, :16] == np.array(BACKGROUND)).all()


def test_unsatisfied_bonds_are_drawn() -> None:
    system = invariantzoo.make_system("ising-anneal-v0", update="checkerboard")
    env = VectorEnv(system, 1, seed=0)
    env.reset()
    scene = system.scene(env.tensors)
    assert scene is not None
    assert scene.segments is not None
    state = env.tensors
    energy = float(system.energy(state)[0]) * 36  # type: ignore[attr-defined]
    assert len(scene.segments) == pytest.approx((72 + energy) / 2), "E = unsatisfied - satisfied"


def test_forces_that_nobody_has_explained_yet_are_shown_whole() -> None:
    system = invariantzoo.make_system("water-inference-v0")
    env = VectorEnv(system, 1, seed=0, autoreset=False)
    observation = env.reset()
    before = system.scene(env.tensors)
    policy = make_policy("least-squares", system)
    with torch.no_grad():
        env.step(policy(torch.from_numpy(observation), None).numpy())
    after = system.scene(env.tensors)
    assert before is not None
    assert after is not None
    assert before.ball_arrows is not None
    assert after.ball_arrows is not None
    force = env.tensors.force[0].numpy()
    along = (before.ball_arrows * force).sum(-1)
    lengths = np.linalg.norm(before.ball_arrows, axis=-1) * np.linalg.norm(force, axis=-1)
    np.testing.assert_allclose(along, lengths)
    assert (after.ball_arrows**2).sum() < 0.2 * (before.ball_arrows**2).sum()
    assert before.charts[0].series["unexplained"] > 0.5
    assert after.charts[0].series["unexplained"] < 0.2
