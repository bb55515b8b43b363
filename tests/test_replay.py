"""Pages that replay a rollout: what they hold, what they leave out, and what a browser makes of it.

The tests in a browser skip where playwright or Chromium is absent (see `browser.py`).
"""

from __future__ import annotations

import base64
import copy
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Tab, browser

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.agents.player import Player
from invariantzoo.agents.policy import make_policy
from invariantzoo.envs.core.observation import observation_names
from invariantzoo.envs.core.rendering.colours import CELL_PALETTE
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.training.runs import replay

CROWD, ISING, WATER = "particles-crowd-v0", "ising-equilibrium-v0", "water-inference-v0"
GOALS = "particles-goals-v0"
BYTES = {1: np.uint8, 2: np.uint16, 4: np.uint32}
ONE_OF_A_KIND = {  # what a scene can hold: id -> steps
    "particles-goals-v0": 30,  # discs, rings, links, a wheel of colours
    "particles-traffic-v0": 20,  # polygons, segments; agents that leave
    "ising-anneal-v0": 20,  # cells, a chart
    "tasep-ring-v0": 20,  # rows of cells over time
    "water-inference-v0": 20,  # balls, bonds, letters, a chart with a level
    "water-dynamics-v0": 5,  # plots
    "ising-transport-v0": 20,  # one agent
}


def unpack(track: dict[str, Any], data: bytes) -> list[np.ndarray]:
    """The array of every frame, by what `packed` promises."""
    counts = track.get("counts") or [track["rows"]] * (1 if track["still"] else track["frames"])
    n, size = sum(counts) * track["columns"], track["size"]
    planes = np.frombuffer(data, np.uint8, n * size, track.get("at", 0)).reshape(size, n)
    codes = sum(plane.astype(np.uint64) << (8 * k) for k, plane in enumerate(planes))
    codes = np.asarray(codes, BYTES[size])
    if track["delta"]:
        moving = codes.reshape(track["frames"], -1)
        codes = np.cumsum(moving, axis=0, dtype=codes.dtype).reshape(-1)
    codes = codes.reshape(-1, track["columns"])
    if track["bits"]:
        frames = np.split(codes.view(np.float32), np.cumsum(counts)[:-1])
        return frames * track["frames"] if track["still"] else frames
    value = (codes + np.array(track["base"], float)) * np.array(track["step"])
    value = np.where(track["gaps"] & (codes == np.iinfo(codes.dtype).max), np.nan, value)
    frames = np.split(value, np.cumsum(counts)[:-1])
    return frames * track["frames"] if track["still"] else frames


@dataclass
class Page:
    """What a page holds: `meta`, and the arrays of every world by name and frame."""

    meta: dict[str, Any]
    worlds: list[dict[str, list[np.ndarray]]]


def read(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    (meta,) = re.findall(r'id="meta">(.*?)</script>', text)
    (data,) = re.findall(r'id="data">(.*?)</script>', text)
    known, raw = json.loads(meta), zlib.decompress(base64.b64decode(data))
    worlds = [{t["name"]: unpack(t, raw) for t in world["tracks"]} for world in known["worlds"]]
    return Page(known, worlds)


def rollout(*words: object) -> int:
    return main(["rollout", *map(str, words)])


@dataclass
class Truth:
    """What an environment showed at every frame."""

    step: list[int]
    scene: list[Any]
    seen: list[np.ndarray]
    loss: list[np.ndarray]


def played(path: Path, id: str, policy: str, steps: int, **settings: Any) -> Truth:
    """A page of the first world, and the truth beside it."""
    system = invariantzoo.make_system(id, **settings)
    env = VectorEnv(system, 1, seed=0)
    observation, player = env.reset(), Player(env, make_policy(policy, system), deterministic=True)
    truth = Truth([], [], [], [])

    def note(reward: np.ndarray) -> None:
        truth.step.append(int(env.age[0]))
        state = type(env.state)(*(array[:1] for array in env.tensors))
        truth.scene.append(copy.deepcopy(env.system.scene(state)))
        truth.seen.append(env.observe()[0].copy())
        truth.loss.append(-reward)

    with replay.replaying(path, env, title=id) as shoot:
        shoot(None)
        note(np.full(env.n_agents, np.nan))
        for _ in range(steps):
            step = player.step(observation)
            observation = step.observation
            shoot(step)
            note(step.reward[0])
    return truth


@pytest.mark.parametrize(
    "value",
    [
        np.linspace(-3, 8, 24).reshape(4, 3, 2) ** 3,
        np.array([[[1.0, np.nan], [np.inf, 0.0]]] * 3),
        np.full((5, 2, 1), 0.1),
        np.full((5, 2, 1), 1e-4),
        np.arange(12).reshape(3, 2, 2) * 7,
        np.arange(6).reshape(3, 2, 1) * 40_000,
        np.arange(6).reshape(3, 2, 1).astype(np.uint8) * 51,
        np.full((2, 3, 1), np.nan),
    ],
)
def test_arrays_come_back(value: np.ndarray) -> None:
    track = replay.packed("x", list(value))
    back = np.stack(unpack(track.about, track.data))
    finite = np.where(np.isfinite(value), value, np.nan).astype(float)
    span = np.nanmax(finite, initial=0) - np.nanmin(finite, initial=0)
    whole = np.issubdtype(value.dtype, np.integer)
    np.testing.assert_allclose(back, finite, rtol=0, atol=0 if whole else span / 65_000)
    assert (back[finite == 0] == 0).all()


@pytest.mark.parametrize("name", ["loss", "metrics", "series"])
@pytest.mark.parametrize("moves", [True, False])
def test_what_people_read_as_numbers_keeps_its_digits(name: str, moves: bool) -> None:
    """Of random kicks of a field the loss rises by ten magnitudes; its start was shown as 0."""
    value = np.geomspace(1e-5, 1e5, 24).reshape(4, 3, 2).astype(np.float32)
    value[1, 2, 1], value[2, 0, 0] = np.nan, np.inf
    value = value if moves else value[:1].repeat(4, 0)
    track = replay.packed(name, list(value))
    back = np.stack(unpack(track.about, track.data))
    np.testing.assert_array_equal(back, np.where(np.isfinite(value), value, np.nan))


def test_arrays_that_change_their_length_come_back() -> None:
    frames = [np.ones((2, 3)), None, np.zeros((0, 3)), np.full((4, 3), 0.5)]
    track = replay.packed("x", frames)
    back = unpack(track.about, track.data)
    assert [len(array) for array in back] == [2, 0, 0, 4]
    np.testing.assert_allclose(back[3], 0.5, atol=1e-4)


def test_a_page_holds_what_happened(tmp_path: Path) -> None:
    path = tmp_path / "crowd.html"
    truth = played(path, CROWD, "social-force", 12)
    page = read(path)
    (world,) = page.worlds
    assert [int(step[0, 0]) for step in world["step"]] == truth.step
    names = observation_names(invariantzoo.make_system(CROWD))
    for k, scene in enumerate(truth.scene):
        np.testing.assert_allclose(world["discs"][k], scene.discs, atol=2e-3)
        shades = replay.shades(scene.disc_value)
        np.testing.assert_array_equal(world["disc_value"][k][:, 0], shades)
        np.testing.assert_allclose(world["loss"][k][:, 0], truth.loss[k], atol=1e-3)
        for about in page.meta["invariants"]:
            start = names[about["name"]].start
            mine = world["values"][k][:, about["at"] : about["at"] + about["shown"]]
            theirs = truth.seen[k][:, start : start + about["shown"]]
            np.testing.assert_allclose(mine, theirs, atol=2e-3)
    assert page.meta["followed"] is None


@pytest.mark.parametrize("update", ["parallel", "sequential"])
def test_rows_of_cells_hold_every_step(update: str, tmp_path: Path) -> None:
    """Where rows run over time none is lost, though only one step of three is shown.

    Nor where nothing moves: time runs in the page as in a film.
    """
    system = invariantzoo.make_system("tasep-ring-v0", update=update)
    env = VectorEnv(system, 1, seed=0)
    observation, player = env.reset(), Player(env, make_policy("hop", system), deterministic=False)
    rows: list[np.ndarray] = []
    with replay.replaying(tmp_path / "ring.html", env, title="ring", every=3) as shoot:
        step = None
        for k in range(11):
            shoot(step)
            scene = system.scene(type(env.state)(*(array[:1] for array in env.tensors)))
            assert scene is not None
            assert scene.cells is not None
            rows.append(scene.cells[-1])
            if k < 10:
                step = player.step(observation)
                observation = step.observation
    (world,) = read(tmp_path / "ring.html").worlds
    np.testing.assert_array_equal(world["rows"][0], replay.shades(np.stack(rows), rounded=True))
    assert [int(step[0, 0]) for step in world["step"]] == [0, 3, 6, 9, 10]
    assert int(world["rows_end"][-1][0, 0]) == len(rows)


def test_the_usual_page_is_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "goals.html"
    assert rollout(GOALS, "--html", path) == 0
    assert f"wrote {path}" in capsys.readouterr().out.replace("\n", "")
    assert path.stat().st_size < replay.MOST_BYTES
    assert len(read(path).worlds[0]["step"]) == invariantzoo.spec(GOALS).film.steps + 1
    assert list(tmp_path.iterdir()) == [path]


def test_several_worlds_and_episodes(tmp_path: Path) -> None:
    words = (CROWD, "--html", tmp_path / "x.html", "--n-worlds", 2, "--n-steps", 9)
    assert rollout(*words, "--set", "horizon=4") == 0
    first, second = read(tmp_path / "x.html").worlds
    assert [int(episode[0, 0]) for episode in first["episode"]] == [0] * 4 + [1] * 4 + [2] * 2
    assert [int(step[0, 0]) for step in second["step"]] == [0, 1, 2, 3] * 2 + [0, 1]
    assert not np.allclose(first["discs"][0], second["discs"][0], atol=0.01)


def test_an_episode_that_is_broken_off_has_ended(tmp_path: Path) -> None:
    """As a key of the window does it: the page sees the next one from its first step on."""
    env = VectorEnv(invariantzoo.make_system("neurons-v0"), 1, seed=0)
    action = np.zeros((1, 1, 1), np.float32)
    env.reset()
    with replay.replaying(tmp_path / "x.html", env, title="x") as shoot:
        shoot(None)
        for k in range(6):
            if k in (3, 4):
                env.reset()
            shoot(env.step(action))
    (world,) = read(tmp_path / "x.html").worlds
    assert [int(episode[0, 0]) for episode in world["episode"]] == [0] * 4 + [1] + [2] * 2


@pytest.mark.parametrize("most", [700_000, 300_000])
def test_what_does_not_fit_is_left_out_evenly(tmp_path: Path, most: int) -> None:
    """10,000 agents: fewer of them with values, then fewer frames; the last frame stays."""
    system = invariantzoo.make_system("neurons-v0", n_networks=10_000)
    env = VectorEnv(system, 1, seed=0)
    observation, player = env.reset(), Player(env, make_policy("sgd", system), deterministic=True)
    path = tmp_path / "many.html"
    with replay.replaying(path, env, title="many", most_bytes=most) as shoot:
        shoot(None)
        for _ in range(8):
            step = player.step(observation)
            observation = step.observation
            shoot(step)
    page = read(path)
    (world,) = page.worlds
    assert len(page.meta["followed"]) == len(world["loss"][0])
    assert 64 <= len(page.meta["followed"]) < 10_000
    assert page.meta["followed"][-1] == 9999
    assert [int(world["step"][k][0, 0]) for k in (0, -1)] == [0, 8]
    assert path.stat().st_size <= most
    assert len(world["step"]) == {700_000: 9, 300_000: 3}[most]


def test_frames_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST_FRAMES", 8)
    path = tmp_path / "x.html"
    played(path, CROWD, "social-force", 29)
    steps = [int(step[0, 0]) for step in read(path).worlds[0]["step"]]
    assert steps == [0, 4, 8, 12, 16, 20, 24, 28, 29]
    assert read(path).meta["every"] == 4


def test_one_frame_and_numbers_that_are_none(tmp_path: Path) -> None:
    system = invariantzoo.make_system(CROWD)
    env = VectorEnv(system, 1, seed=0)
    env.reset()
    bare = env.observe
    env.observe = lambda: np.full_like(bare(), np.nan)  # type: ignore[method-assign]
    with replay.replaying(tmp_path / "x.html", env, title="</script><b>&") as shoot:
        shoot(None)
    page = read(tmp_path / "x.html")
    assert page.meta["title"] == "</script><b>&"
    assert np.isnan(page.worlds[0]["values"][0]).all()
    assert len(page.worlds[0]["step"]) == 1


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: object) -> str:
        assert rollout(*words) == 2
        return capsys.readouterr().err

    assert "must end in .html" in said(CROWD, "--html", tmp_path / "x.htm")
    assert "there is no folder" in said(CROWD, "--html", tmp_path / "no" / "x.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    path.write_text("before")
    env = VectorEnv(invariantzoo.make_system(CROWD), 1, seed=0)
    env.reset()

    def fail() -> None:
        with replay.replaying(path, env, title="x") as shoot:
            shoot(None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


def opened(chromium: Any, path: Path, at: str = "#paused") -> Tab:
    tab = Tab(chromium)
    tab.open(path, at)
    tab.wait("window.replay !== undefined")
    return tab


def ink(tab: Tab) -> Any:
    """Every pixel of the picture."""
    script = "(() => { const c = document.getElementById('scene');"
    return tab.run(f"{script} return c.toDataURL(); }})()")


@pytest.mark.parametrize("id", ONE_OF_A_KIND)
def test_every_kind_of_scene_in_a_browser(chromium: Any, tmp_path: Path, id: str) -> None:
    """Each is drawn, moves, is followed, and the browser complains of nothing."""
    path = tmp_path / "x.html"
    assert rollout(id, "--html", path, "--n-steps", ONE_OF_A_KIND[id]) == 0
    tab = opened(chromium, path)
    first = ink(tab)
    colours = (
        "(() => { const c = document.getElementById('scene'), d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data, s = new Set();"
        "for (let i = 0; i < d.length; i += 4) s.add(d[i] * 65536 + d[i + 1] * 256 + d[i + 2]);"
        "return s.size; })()"
    )
    assert tab.run(colours) > 1
    tab.page.keyboard.press("End")
    assert tab.run("replay.frame") == tab.run("replay.frames - 1")
    assert ink(tab) != first
    tab.page.keyboard.press("n")
    assert tab.run("replay.follow") is not None
    assert tab.page.title() == id
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith("file:")] == []


def test_keys_and_the_frame_that_was_asked_for(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    truth = played(path, CROWD, "social-force", 20)
    tab = opened(chromium, path)
    press, run = tab.page.keyboard.press, tab.run
    assert (run("replay.frames"), run("replay.frame"), run("replay.playing")) == (21, 0, False)
    for _ in range(3):
        press("ArrowRight")
    press("ArrowLeft")
    assert run("replay.frame") == 2
    press("End")
    assert run("replay.frame") == 20
    press("Home")
    assert run("replay.frame") == 0
    press("+")
    assert run("replay.speed") == 2
    press("-")
    press("-")
    assert run("replay.speed") == 0.5
    tab.page.select_option("#speed", "8")
    assert run("replay.speed") == 8
    tab.page.select_option("#speed", "0.125")  # 8 seconds, so that a slow machine sees it play
    tab.page.evaluate("document.activeElement.blur()")
    press(" ")
    assert run("replay.playing")
    tab.wait("replay.frame > 0")
    press(" ")
    assert not run("replay.playing")
    assert 0 < run("replay.frame") < 20
    tab.page.locator("#scrub").fill("13")  # as a hand on the slider
    assert run("replay.frame") == 13
    assert tab.page.locator("#where").text_content() == f"step {truth.step[13]} of 200"
    scrubbed = ink(tab)
    shown = np.array(run("replay.values('discs', replay.frame)")).reshape(-1, 2)
    np.testing.assert_allclose(shown, truth.scene[13].discs, atol=2e-3)
    fresh = opened(chromium, path, "#frame=13")
    assert ink(fresh) == scrubbed
    assert fresh.run("replay.playing") is False
    tab.page.click("#ahead")
    assert run("replay.frame") == 14
    assert ink(tab) != scrubbed
    assert tab.complaints + fresh.complaints == []


def test_a_click_shows_an_agents_invariants_and_loss(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    truth = played(path, CROWD, "social-force", 9)
    tab = opened(chromium, path, "#frame=9")
    place = truth.scene[9].discs
    inside = np.flatnonzero((np.abs(place - place.mean(0)) < 0.4 * np.ptp(place, 0)).all(1))
    agent = int(inside[0])
    box = tab.page.locator("#scene").bounding_box()
    x, y = tab.run(f"[replay.lens.x({place[agent, 0]}), replay.lens.y({place[agent, 1]})]")
    tab.page.mouse.click(box["x"] + x, box["y"] + y)
    assert tab.run("replay.follow") == agent
    text = tab.page.locator("#agent").inner_text()
    assert f"particle_{agent}" in text
    rows = dict(re.findall(r"^(\S+)\t(.*)$", text, re.MULTILINE))
    assert float(rows["loss"]) == pytest.approx(truth.loss[9][agent], abs=1e-2)
    seen = truth.seen[9][agent]
    place_of = observation_names(invariantzoo.make_system(CROWD))
    assert set(place_of) < set(rows)
    for name, at in place_of.items():
        first = float(rows[name].split()[0])
        assert first == pytest.approx(float(seen[at.start]), rel=6e-3, abs=2e-3)
    tab.page.keyboard.press("Escape")
    assert tab.run("replay.follow") is None
    assert tab.complaints == []


def test_cells_are_clicked_and_coloured(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    truth = played(path, ISING, "heat-bath", 5, lattice_size=8)
    tab = opened(chromium, path, "#frame=5")
    cells = truth.scene[5].cells
    left, top = tab.run("replay.lens.corner")
    wide, high = tab.run("replay.lens.extent")
    ratio = tab.run("window.devicePixelRatio")
    for row, column in ((0, 0), (3, 6), (7, 1)):
        x, y = left + (column + 0.5) * wide / 8, top + (row + 0.5) * high / 8
        assert tab.run(f"replay.agentAt({x}, {y})") == 8 * row + column
        at = f"{ratio * x}, {ratio * y}, 1, 1"
        pixel = tab.run(
            f"Array.from(document.getElementById('scene').getContext('2d').getImageData({at}).data)"
        )
        shade = CELL_PALETTE[replay.shades(cells[row, column], rounded=True)]
        assert pixel[:3] == shade.tolist()


def test_cells_that_are_no_agents_are_not_clicked(chromium: Any, tmp_path: Path) -> None:
    """20 particles on 40 sites: no cell is a particle's. One controller of 64 spins: all are."""
    path = tmp_path / "x.html"
    assert rollout("tasep-ring-v0", "--html", path, "--n-steps", 3) == 0
    tab = opened(chromium, path)
    x, y = tab.run("[replay.lens.corner[0] + 5, replay.lens.corner[1] + 5]")
    assert tab.run(f"replay.agentAt({x}, {y})") is None
    assert "n and p" in tab.page.locator("#agent").inner_text()
    tab.page.keyboard.press("n")
    assert "particle_0" in tab.page.locator("#agent").inner_text()
    assert rollout("ising-transport-v0", "--html", path, "--n-steps", 3) == 0
    tab.open(path, "#paused")
    tab.wait("window.replay !== undefined")
    assert tab.run("replay.agentAt(replay.lens.corner[0] + 90, replay.lens.corner[1] + 90)") == 0
    assert tab.complaints == []


def test_balls_turn_and_the_nearer_is_clicked(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    assert rollout(WATER, "--html", path, "--n-steps", 2) == 0
    tab = opened(chromium, path)
    before = ink(tab)
    box = tab.page.locator("#scene").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(*middle)
    tab.page.mouse.down()
    tab.page.mouse.move(middle[0] + 60, middle[1] + 20)
    tab.page.mouse.up()
    assert tab.run("replay.follow") is None  # a drag is no click
    assert ink(tab) != before
    balls = tab.run("replay.balls")
    nearest = max(range(len(balls)), key=lambda i: balls[i]["z"])
    ball = balls[nearest]
    assert tab.run(f"replay.agentAt({ball['x']}, {ball['y']})") == nearest
    assert tab.complaints == []


def test_odd_pages_open(chromium: Any, tmp_path: Path) -> None:
    """One frame with numbers that are none; 10,000 agents of whom few have values."""
    system = invariantzoo.make_system(CROWD)
    env = VectorEnv(system, 1, seed=0)
    env.reset()
    bare = env.observe
    env.observe = lambda: np.full_like(bare(), np.nan)  # type: ignore[method-assign]
    with replay.replaying(tmp_path / "one.html", env, title="</script><b>&") as shoot:
        shoot(None)
    tab = opened(chromium, tmp_path / "one.html", "#follow=3")
    assert tab.run("replay.frames") == 1
    assert not tab.run("replay.playing")
    assert tab.page.title() == "</script><b>&"
    assert "–" in tab.page.locator("#agent").inner_text()
    tab.page.keyboard.press(" ")
    tab.page.keyboard.press("ArrowRight")
    assert tab.run("replay.frame") == 0
    env = VectorEnv(invariantzoo.make_system("neurons-v0", n_networks=10_000), 1, seed=0)
    env.reset()
    with replay.replaying(tmp_path / "many.html", env, title="many", most_bytes=90_000) as shoot:
        shoot(None)
    many = opened(chromium, tmp_path / "many.html", "#follow=1")
    assert "of 10000 agents" in many.page.locator("#agent").inner_text()
    assert tab.complaints + many.complaints == []


def test_a_narrow_screen_needs_no_sideways_scroll(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    played(path, CROWD, "social-force", 3)
    tab = Tab(chromium, (390, 780))
    tab.open(path, "#frame=2&follow=0")
    tab.wait("window.replay !== undefined")
    assert tab.run("document.documentElement.scrollWidth") <= 390
    assert tab.complaints == []
