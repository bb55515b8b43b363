"""Replays: one page that plays what worlds did, by itself, in any browser and without a network.

The page holds the scenes that a film would be painted from, as whole numbers, and draws them anew:
it can be stopped, moved through, turned where there is depth, and asked for what an agent saw and
lost. What does not fit into the size of the page is left out evenly: first what agents beyond a
sample saw, then every other frame.
"""

from __future__ import annotations

import base64
import html
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...envs.core.files import write_atomically
from ...envs.core.observation import observation_names
from ...envs.core.rendering import colours
from ...envs.core.scene import Scene
from ...envs.core.vector import Step, VectorEnv

SUFFIXES = (".html",)
MOST_BYTES = 3_000_000  # of a page
FPS = 20
MOST_WORLDS = 9  # in one page
MOST_FRAMES = 1200  # kept at a time: of more, every other one stays
MOST_VALUES = 2**23  # of what agents saw, kept at a time
LEAST_AGENTS, LEAST_FRAMES = 64, 2  # that are kept whatever they take
SHOWN = 4  # entries of an invariant
_ENTRIES = 255  # of a palette, from 0
_PLACES = ("discs", "rings", "arrows", "segments", "balls", "ball_arrows")
_SIZES = ("disc_radius", "disc_corners", "disc_turn", "disc_core", "ring_radius")
_INDICES = ("links", "agents", "bonds")
_SHADES = ("disc_value", "ring_value")
_READ = ("loss", "metrics", "series")  # as numbers, by people
_HERE = Path(__file__).parent


@contextmanager
def replaying(
    path: str | Path,
    env: VectorEnv,
    *,
    title: str,
    subtitle: str = "",
    skip: int = 0,
    every: int = 1,
    frames: int = MOST_FRAMES,
    most_bytes: int = MOST_BYTES,
) -> Iterator[Callable[[Step | None], None]]:
    """A function that takes `env` as it is, and the step that led there; the page appears when the
    block ends well.

    title, subtitle: text at the head of the page.
    skip: calls at first that are left out.  every: of the others, the first of so many is shown,
    and the last.  frames: how many there will be at most, if that is known.
    most_bytes: of the page; what is left out for it is said there.

    Raises ValueError if the file's name does not end in a suffix.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"replay {str(path)!r} must end in {' or '.join(SUFFIXES)}")
    recorder = Recorder(env, every=every, frames=frames)
    made = -skip

    def shoot(step: Step | None) -> None:
        nonlocal made
        if made >= 0:
            recorder.add(step)
        made += 1

    yield shoot
    if recorder.made:
        text = page(recorder, title, subtitle, most_bytes)
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


@dataclass
class Frame:
    """A world at a step: what of its scene stays as text, and arrays [rows, columns] by name.

    said: the scene but for its arrays, as JSON.  caption: lines above it.
    """

    step: int
    episode: int
    said: str
    caption: tuple[str, ...]
    arrays: dict[str, np.ndarray]


@dataclass
class Tape:
    """The frames of one world, and its row of cells at every step, of which scenes show the last.

    age: steps of the episode so far, -1 before the first look.  episode: how many have ended.
    begun: rows before this episode.
    """

    frames: list[Frame] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    age: int = -1
    episode: int = 0
    begun: int = 0


class Track(NamedTuple):
    """An array over frames as whole numbers: what the page must know of it, and the bytes."""

    about: dict[str, Any]
    data: bytes


class Recorder:
    """Keeps the first worlds of `env`, frame by frame.

    every: calls of `add` from a frame to the next; it grows where there are too many.
    followed: agents whose losses and invariants are kept.
    """

    def __init__(self, env: VectorEnv, *, every: int = 1, frames: int = MOST_FRAMES) -> None:
        self.env, self.every, self.made = env, every, 0
        self.tapes = [Tape() for _ in range(min(env.n_worlds, MOST_WORLDS))]
        names = observation_names(env.system).items()
        self.columns = np.array(
            [k for _, at in names for k in range(at.start, min(at.stop, at.start + SHOWN))], np.intp
        )
        each = (len(self.columns) + 1) * min(max(frames, 1), 2 * MOST_FRAMES) * len(self.tapes)
        count = min(env.n_agents, max(MOST_VALUES // each, 1))
        self.followed = sample(np.arange(env.n_agents), count)
        self._last: list[Frame] = []

    def add(self, step: Step | None) -> None:
        """Take the worlds as they are, after `step`."""
        shown = self.made % self.every == 0
        observation = self.env.observe()
        metrics = list(self.env.episode_metrics().values())
        self._last = []
        for world, tape in enumerate(self.tapes):
            scene = self._scene(world)
            self._add_rows(tape, scene, int(self.env.age[world]))
            reward = None if step is None else step.reward[world]
            values = np.array([float(metric[world]) for metric in metrics])
            one = self._frame(world, scene, observation[world], reward, values)
            self._last.append(one)
            if shown:
                tape.frames.append(one)
        self.made += 1
        if len(self.tapes[0].frames) > MOST_FRAMES:
            self.every *= 2
            for tape in self.tapes:
                tape.frames = tape.frames[::2]

    def frames(self, world: int, stride: int = 1) -> list[Frame]:
        """The frames of a world, every `stride`-th of those kept, and the last of all."""
        chosen = self.tapes[world].frames[::stride]
        if self._last and chosen[-1] is not self._last[world]:
            chosen = [*chosen, self._last[world]]
        return chosen

    def _scene(self, world: int) -> Scene:
        env = self.env
        state = type(env.state)(*(array[world : world + 1] for array in env.tensors))
        scene = env.system.scene(state)
        if scene is None:
            raise ValueError(f"{type(env.system).__name__} has no picture to replay")
        return scene

    def _add_rows(self, tape: Tape, scene: Scene, age: int) -> None:
        """Keep a scene's row of cells where rows are shown over time; notice a new episode."""
        if age <= tape.age:
            tape.episode += 1
            tape.begun = len(tape.rows)
        tape.age = age
        if not scene.kept_rows or scene.cells is None:
            return
        fresh = len(tape.rows) == tape.begun
        tape.rows += list(shades(scene.cells if fresh else scene.cells[-1:], rounded=True))

    def _frame(
        self,
        world: int,
        scene: Scene,
        observation: np.ndarray,
        reward: np.ndarray | None,
        metrics: np.ndarray,
    ) -> Frame:
        env, tape = self.env, self.tapes[world]
        age = int(env.age[world])
        loss = np.full(env.n_agents, np.nan) if reward is None or age == 0 else -reward
        arrays = scene_arrays(scene)
        arrays["loss"] = np.asarray(loss, np.float32)[self.followed, None]
        arrays["values"] = observation[np.ix_(self.followed, self.columns)].astype(np.float32)
        if env.may_leave:
            arrays["alive"] = env.alive[world].astype(np.uint8)[:, None]
        if len(metrics):
            arrays["metrics"] = metrics[None].astype(np.float32)
        if scene.kept_rows:
            arrays["rows_start"] = np.array([[tape.begun]])
            arrays["rows_end"] = np.array([[len(tape.rows)]])
        return Frame(age, tape.episode, scene_text(scene), tuple(scene.caption), arrays)


def page(recorder: Recorder, title: str, subtitle: str, most_bytes: int = MOST_BYTES) -> str:
    """The whole page, with as many frames and values of agents as `most_bytes` allows."""
    script, style, body = (
        (_HERE / f"replay.{kind}").read_text(encoding="utf-8") for kind in ("js", "css", "html")
    )
    room = 3 * (most_bytes - len(script) - len(style) - len(body)) // 4  # base64 takes a third more
    stride, followed = 1, np.arange(len(recorder.followed))
    while True:
        tapes = [_packed(recorder, world, stride, followed) for world in range(len(recorder.tapes))]
        meta = _meta(recorder, tapes, stride, followed, title, subtitle)
        data = zlib.compress(b"".join(track.data for tracks, _ in tapes for track in tracks))
        over = len(data) + 3 * len(meta) // 4 - room
        if over <= 0:
            break
        values = len(zlib.compress(b"".join(_of_agents(tracks) for tracks, _ in tapes)))
        fewer = int(0.95 * len(followed) * (values - over) / max(values, 1))
        if fewer >= min(LEAST_AGENTS, len(followed)) and fewer < len(followed):
            followed = sample(followed, fewer)
        elif len(recorder.frames(0, stride)) > LEAST_FRAMES:
            stride *= 2
        elif len(followed) > LEAST_AGENTS:
            followed = sample(followed, max(len(followed) // 2, LEAST_AGENTS))
        else:
            break
    parts = {
        "@TITLE@": html.escape(title),
        "@STYLE@": style,
        "@META@": meta,
        "@DATA@": base64.b64encode(data).decode(),
        "@SCRIPT@": script,
    }
    pieces = re.split(f"({'|'.join(parts)})", body)
    return "".join(parts.get(piece, piece) for piece in pieces)


def sample(values: np.ndarray, count: int) -> np.ndarray:
    """So many of some values, evenly spread, the first and the last among them."""
    return values[np.unique(np.linspace(0, len(values) - 1, count).round().astype(np.intp))]


def shades(value: np.ndarray, *, rounded: bool = False) -> np.ndarray:
    """Places [...] in a palette of 256 of values in [0, 1]; NaN is its start.

    rounded: to the nearest place, as cells have it; else down, as discs have it.
    """
    place = _ENTRIES * np.nan_to_num(np.asarray(value, float), nan=0.0) + 0.5 * rounded
    return place.clip(0, _ENTRIES).astype(np.uint8)


def scene_arrays(scene: Scene) -> dict[str, np.ndarray]:
    """The arrays of a scene, each [rows, columns], by name."""
    arrays: dict[str, np.ndarray] = {}
    for name in (*_PLACES, *_SIZES, *_INDICES, *_SHADES):
        value = getattr(scene, name)
        if value is None:
            continue
        value = np.asarray(value)
        value = value[:, None] if value.ndim == 1 else value
        if name in _SHADES:
            value = shades(value)
        arrays[name] = value.copy() if name in (*_SHADES, *_INDICES) else value.astype(np.float32)
    if scene.cells is not None and not scene.kept_rows:
        arrays["cells"] = shades(scene.cells, rounded=True)
    if scene.plot is not None:
        arrays["plot_x"] = np.asarray(scene.plot.x, np.float32)[:, None]
        arrays["plot_y"] = np.asarray(scene.plot.y, np.float32).reshape(-1, 1)
        arrays["plot_usual"] = np.asarray(scene.plot.usual, np.float32).reshape(-1, 1)
    series = [value for chart in scene.charts for value in chart.series.values()]
    if series:
        arrays["series"] = np.array([series], np.float32)
    return arrays


def scene_text(scene: Scene) -> str:
    """A scene but for its arrays and its caption, as JSON."""
    plot = scene.plot
    return _json(
        {
            "view": [float(side) for side in scene.view],
            "palette": scene.palette,
            "periodic": bool(scene.periodic),
            "kept_rows": int(scene.kept_rows),
            "marks": list(scene.marks),
            "legend": [entry._asdict() for entry in scene.legend],
            "plot": plot and {"labels": plot.labels, "top": float(plot.top), "axis": plot.axis},
            "charts": [
                {
                    **chart._asdict(),
                    "series": list(chart.series),
                    "levels": {name: float(value) for name, value in chart.levels.items()},
                }
                for chart in scene.charts
            ],
        }
    )


def packed(name: str, arrays: Sequence[np.ndarray | None]) -> Track:
    """An array of every frame, None where a scene has none, as whole numbers.

    Whole numbers in the arrays stay exact up to 2^32; others are rounded to 1/65,000 of the range
    of their column, 0 staying 0. What is no finite number is the largest whole number where there
    may be any, "gaps". Losses, metrics and series of charts, which people read as numbers of
    whatever magnitude, are the bits of single floats, "bits".
    """
    first = next(array for array in arrays if array is not None)
    columns = first.shape[1]
    present = [np.zeros((0, columns), first.dtype) if a is None else a for a in arrays]
    counts = [len(array) for array in present]
    even = len(set(counts)) == 1
    still = even and all(np.array_equal(a, present[0], equal_nan=True) for a in present[1:])
    value = present[0] if still else np.concatenate(present)
    bits = name in _READ
    base, step, codes = ([], [], _bits(value)) if bits else _whole_numbers(value)
    about: dict[str, Any] = {"name": name, "columns": columns, "size": codes.itemsize}
    about |= {"base": base, "step": step, "frames": len(arrays), "still": still, "bits": bits}
    delta = even and not still
    if delta:
        moving = codes.reshape(len(arrays), -1)
        codes = np.concatenate([moving[:1], np.diff(moving, axis=0)])
    about |= {"rows": counts[0]} if even else {"counts": counts}
    about |= {"delta": delta, "gaps": value.dtype != np.uint8}
    planes = codes.astype(codes.dtype.newbyteorder("<")).reshape(-1, 1).view(np.uint8)
    return Track(about, np.ascontiguousarray(planes.reshape(-1, codes.itemsize).T).tobytes())


def _bits(value: np.ndarray) -> np.ndarray:
    """Single floats as whole numbers; what is not finite is NaN."""
    single = np.asarray(value, np.float32)
    return np.where(np.isfinite(single), single, np.float32(np.nan)).view(np.uint32)


def _whole_numbers(value: np.ndarray) -> tuple[list[int], list[float], np.ndarray]:
    """Base and step by column, and whole numbers [n, columns]: value = (base + number) * step."""
    if value.dtype == np.uint8:  # places in a palette and flags, as they are
        return [0] * value.shape[1], [1.0] * value.shape[1], value
    wide = value.astype(float)
    finite = np.isfinite(wide)
    low = np.where(finite, wide, np.inf).min(0, initial=np.inf)
    high = np.where(finite, wide, -np.inf).max(0, initial=-np.inf)
    none = low > high
    low, high = np.where(none, 0.0, low), np.where(none, 0.0, high)
    whole = np.array([bool((column == np.rint(column)).all()) for column in _columns(wide, finite)])
    exact = whole & (high - low < 2**32 - 1)
    large = bool((high - low)[exact].max(initial=0) >= 2**16 - 2) and bool(exact.all())
    most = 2**32 - 1 if large else 2**16 - 1
    exact &= high - low < most
    span = np.where(high > low, high - low, np.where(low == 0, 1.0, np.abs(low)))
    step = np.where(exact, 1.0, span / 65_000)
    base = np.floor(low / step)
    dtype: type[np.unsignedinteger[Any]] = np.uint32 if large else np.uint16
    if exact.all() and (high - low).max(initial=0) < 2**8 - 1:
        dtype, most = np.uint8, 2**8 - 1
    codes = np.where(finite, np.rint(np.where(finite, wide, low) / step) - base, most)
    return [int(k) for k in base], [float(s) for s in step], codes.astype(dtype)


def _columns(value: np.ndarray, finite: np.ndarray) -> Iterator[np.ndarray]:
    """The finite values of each column."""
    for column, there in zip(value.T, finite.T, strict=True):
        yield column[there]


def _packed(
    recorder: Recorder, world: int, stride: int, followed: np.ndarray
) -> tuple[list[Track], dict[str, Any]]:
    """The tracks of a world, and what the page must know of it beside them."""
    frames, tape = recorder.frames(world, stride), recorder.tapes[world]
    names = list(dict.fromkeys(name for frame in frames for name in frame.arrays))
    tracks = []
    for name in names:
        arrays = [frame.arrays.get(name) for frame in frames]
        if name in ("loss", "values"):
            arrays = [None if array is None else array[followed] for array in arrays]
        if name != "values" or len(recorder.columns):
            tracks.append(packed(name, arrays))
    tracks.append(packed("step", [np.array([[frame.step]]) for frame in frames]))
    tracks.append(packed("episode", [np.array([[frame.episode]]) for frame in frames]))
    if tape.rows:
        tracks.append(packed("rows", [np.stack(tape.rows)]))
    scenes = list(dict.fromkeys(frame.said for frame in frames))
    captions = list(dict.fromkeys(frame.caption for frame in frames))
    scene_of, caption_of = ({text: k for k, text in enumerate(x)} for x in (scenes, captions))
    about = {
        "frames": len(frames),
        "scenes": [json.loads(text) for text in scenes],
        "scene": [scene_of[frame.said] for frame in frames],
        "captions": captions,
        "caption": [caption_of[frame.caption] for frame in frames],
    }
    return tracks, about


def _of_agents(tracks: Sequence[Track]) -> bytes:
    """The bytes that hold what agents saw and lost."""
    return b"".join(track.data for track in tracks if track.about["name"] in ("loss", "values"))


def _meta(
    recorder: Recorder,
    tapes: Sequence[tuple[list[Track], dict[str, Any]]],
    stride: int,
    followed: np.ndarray,
    title: str,
    subtitle: str,
) -> str:
    """What the page knows beside the bytes, as JSON."""
    system, worlds, at, column = recorder.env.system, [], 0, 0
    for tracks, about in tapes:
        places = []
        for track in tracks:
            places.append({**track.about, "at": at})
            at += len(track.data)
        worlds.append({**about, "tracks": places})
    invariants = []
    for name, place in observation_names(system).items():
        width = place.stop - place.start
        shown = min(width, SHOWN)
        invariants.append({"name": name, "at": column, "shown": shown, "width": width})
        column += shown
    agents = recorder.followed[followed]
    meta = {
        "title": title,
        "subtitle": subtitle,
        "fps": FPS,
        "every": recorder.every * stride,
        "horizon": system.horizon,
        "warm_up": system.warm_up,
        "agent": system.agent_name,
        "n_agents": recorder.env.n_agents,
        "followed": None if len(agents) == recorder.env.n_agents else agents.tolist(),
        "invariants": invariants,
        "metrics": list(system.reductions),
        "worlds": worlds,
        "palettes": {
            **{name: palette.tobytes().hex() for name, palette in colours.PALETTES.items()},
            "cells": colours.CELL_PALETTE.tobytes().hex(),
        },
        "colours": {
            "background": colours.BACKGROUND,
            "panel": colours.PANEL,
            "faint": colours.FAINT_TEXT,
            "arrow": colours.ARROW[:3],
            "fill": colours.FILL,
            "line": colours.LINE,
            "level": colours.LEVEL,
            "series": colours.SERIES,
        },
    }
    return _json(meta)


def _json(value: Any) -> str:
    """JSON that can stand in a page; what is no finite number is null."""
    text = json.dumps(_plain(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
