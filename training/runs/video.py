"""Films of a policy at work, as mp4 or gif."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...agents.player import Player
from ...agents.policy import Policy, seen_dtype
from ...envs.core.files import process_name, write_atomically
from ...envs.core.rendering.painter import BACKGROUND, Painter
from ...envs.core.scene import Scene
from ...envs.core.system import System
from ...envs.core.vector import VectorEnv

SUFFIXES = (".mp4", ".gif")
FPS = 20
MOST_WORLDS = 9  # in one film
_BLOCK = 16  # encoders want sizes in multiples of this
_TRAIL = 12
_SHADE = 8  # steps of brightness in a gif
_GROUND = np.array(BACKGROUND, np.int16)
_DARKER = 4  # steps below the ground, at most
_LEVELS = _DARKER + 256 // _SHADE  # of brightness


def record_video(
    system: System,
    policy: Policy,
    path: str | Path,
    *,
    n_worlds: int = 1,
    n_steps: int | None = None,
    skip: int = 0,
    every: int = 1,
    seed: int = 0,
    deterministic: bool | None = None,
    size: int = 640,
    fps: int = FPS,
) -> None:
    """Film `n_steps` (default: one episode) of worlds in a grid, from the start to the last state.

    skip: steps that are made before the first picture.  every: steps from a picture to the next.
    deterministic: hand the policy no generator; by default unless the system is stochastic.

    Raises ValueError if the system has no picture or the file's name does not end in a suffix.
    """
    if deterministic is None:
        deterministic = not system.stochastic
    steps = skip + (system.horizon if n_steps is None else n_steps)
    again, dtype = steps > system.horizon, seen_dtype(policy)
    env = VectorEnv(system, n_worlds, seed=seed, autoreset=again, dtype=dtype)
    observation, player = env.reset(), Player(env, policy, deterministic=deterministic)
    with filming(path, env, size=size, fps=fps, skip=skip, every=every) as shoot:
        shoot()
        for _ in range(steps):
            step = player.step(observation)
            observation = step.observation
            shoot()
            if step.done.all() and not env.autoreset:
                return


@contextmanager
def filming(
    path: str | Path,
    env: VectorEnv,
    *,
    size: int = 640,
    fps: int = FPS,
    skip: int = 0,
    every: int = 1,
) -> Iterator[Callable[[], None]]:
    """A function that adds a picture of `env`; the film appears when the block ends well.

    skip: pictures at first that are left out.  every: of the others, the first of so many is shown.
    Trails, charts and earlier rows have them all the same.
    """
    camera = Camera(env, size=size)
    made = -skip
    with film(path, fps=fps) as add:

        def shoot() -> None:
            nonlocal made
            picture = camera.frame()
            if made >= 0 and made % every == 0:
                add(picture)
            made += 1

        yield shoot


class Camera:
    """Pictures of the first worlds of `env`, in a grid about `size` pixels wide.

    A world's scene is as high as it is wide; captions and charts take rows of their own, and what
    colours mean stands once, below all worlds.

    time: what charts count, if it is not steps of the episode.
    """

    def __init__(self, env: VectorEnv, *, size: int = 640, time: str = "step") -> None:
        self._env = env
        count = min(env.n_worlds, MOST_WORLDS)
        self._columns = int(np.ceil(np.sqrt(count)))
        self._rows = -(-count // self._columns)
        self._side = max(size // self._columns // _BLOCK, 1) * _BLOCK
        side = (self._side, self._side)
        self._painters = [Painter(size=side, trail=_TRAIL, time=time) for _ in range(count)]
        self._key = Painter(size=(self._columns * self._side, _BLOCK), legend=True)
        self._laid_out = False

    def frame(self, time: int | None = None) -> np.ndarray:
        """The worlds as they are now [height, width, 3] uint8, both multiples of 16.

        time: for charts, if it is not the step of the episode.
        """
        if not self._laid_out:
            self._lay_out(self._scene(0))
        wide, high = self._painters[0].size
        image = np.empty((self._rows * high, self._columns * wide, 3), np.uint8)
        image[:] = BACKGROUND
        for i in range(len(self._painters)):
            row, column = divmod(i, self._columns)
            tile = image[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            tile[:] = self._world(i, time)
            if len(self._painters) > 1:
                tile[0], tile[:, 0] = 0, 0
        key = self._key.key(self._scene(0))
        if key is None:
            return image
        below = np.empty((-len(key) % _BLOCK, len(key[0]), 3), np.uint8)
        below[:] = BACKGROUND
        return np.concatenate([image, key, below])

    def _lay_out(self, scene: Scene) -> None:
        """Give every world the height that its captions and charts ask for, once for the film."""
        for painter in self._painters:
            high = -(-painter.height_for(scene, self._side) // _BLOCK) * _BLOCK
            painter.resize((self._side, high))
        self._laid_out = True

    def _scene(self, i: int) -> Scene:
        env = self._env
        scene = env.system.scene(type(env.state)(*(array[i : i + 1] for array in env.tensors)))
        if scene is None:
            raise ValueError(f"{type(env.system).__name__} has no picture to film")
        return scene

    def _world(self, i: int, time: int | None) -> np.ndarray:
        env, painter = self._env, self._painters[i]
        step = int(env.age[i]) if time is None else time
        if step == 0:
            painter.forget()
        metrics = {name: float(value[i]) for name, value in env.episode_metrics().items()}
        return painter.draw(self._scene(i), step=step, metrics=metrics)


@contextmanager
def film(path: str | Path, *, fps: int = FPS) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame [height, width, 3]; the file appears when the block ends well.

    Raises ValueError if the file's name does not end in one of SUFFIXES.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"film {str(path)!r} must end in {' or '.join(SUFFIXES)}")
    if path.suffix == ".gif":
        gif = _Gif()
        yield gif.add
        if gif.shots:
            write_atomically(path, lambda temporary: gif.save(temporary, fps))
        return
    import imageio.v2 as imageio

    temporary = path.with_name(f".{path.stem}.{process_name()}.tmp{path.suffix}")
    try:
        writer = imageio.get_writer(temporary, fps=fps, quality=7, macro_block_size=_BLOCK)

        def add(frame: np.ndarray) -> None:
            try:
                writer.append_data(frame)
            except OSError as error:  # ffmpeg has ended
                raise OSError(f"{path} could not be written: {_last_line(error)}") from error

        try:
            yield add
        finally:
            writer.close()
        if temporary.exists():
            _require_whole(temporary, path)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _Gif:
    """Frames that share at most 255 colours, none dithered, so that a gif of them stays small."""

    def __init__(self) -> None:
        self.shots: list[bytes] = []
        self._shape = (0, 0)
        self._count = np.zeros(_LEVELS**3, np.int64)  # of pixels with a colour in coarse steps

    def add(self, frame: np.ndarray) -> None:
        """Keep a frame [height, width, 3], its colours in coarse steps."""
        level = (frame - _GROUND + _SHADE // 2) // _SHADE + _DARKER
        code = (level * (_LEVELS**2, _LEVELS, 1)).sum(-1).astype(np.uint16)
        self._count += np.bincount(code.reshape(-1), minlength=len(self._count))
        self._shape = code.shape
        self.shots.append(zlib.compress(code.tobytes(), 1))

    def save(self, path: Path, fps: int) -> None:
        """Write the file. Frames like the one before them only lengthen that one's time."""
        from PIL import Image

        palette, index = self._palette()

        def shown(shot: bytes) -> Image.Image:
            code = np.frombuffer(zlib.decompress(shot), np.uint16).reshape(self._shape)
            image = Image.fromarray(index[code])
            image.putpalette(palette.tobytes())
            return image

        first, *others = self.shots
        shown(first).save(
            path,
            format="GIF",
            save_all=True,
            append_images=(shown(shot) for shot in others),
            duration=round(1000 / fps),
            loop=0,
        )

    def _palette(self) -> tuple[np.ndarray, np.ndarray]:
        """At most 255 colours [n, 3] uint8, and which of them stands for each coarse colour."""
        from PIL import Image

        present = np.flatnonzero(self._count)
        level = np.stack(np.unravel_index(present, 3 * [_LEVELS]), -1) - _DARKER
        coarse = (level * _SHADE + _GROUND).clip(0, 255).astype(np.uint8)
        often = np.ceil(np.sqrt(self._count[present])).astype(int)
        sample = Image.fromarray(coarse.repeat(often, 0)[None])
        few = sample.quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        palette = np.array(few.getpalette(), np.uint8).reshape(-1, 3)[:255]
        ground = np.abs(palette - _GROUND).sum(-1).argmin()
        palette[ground] = _GROUND
        away = ((coarse[:, None].astype(int) - palette) ** 2).sum(-1)
        index = np.zeros(len(self._count), np.uint8)
        index[present] = away.argmin(1)
        return palette, index


def _last_line(error: OSError) -> str:
    """The reason; where ffmpeg gives it, its last words."""
    return error.strerror or (str(error).strip().splitlines() or ["ffmpeg failed"])[-1]


def _require_whole(part: Path, path: Path) -> None:
    """Raise OSError unless an .mp4 file is a chain of boxes to its end, with an index ("moov").

    imageio does not say how ffmpeg ended; on a full disk it leaves a file without an index.
    """
    size, offset, names = part.stat().st_size, 0, []
    with part.open("rb") as file:
        while offset + 8 <= size:
            file.seek(offset)
            length, name = struct.unpack(">I4s", file.read(8))
            if length == 1:  # a length of 64 bits follows
                length = int.from_bytes(file.read(8))
            if length < 8:
                break
            names.append(name)
            offset += length
    if offset != size or b"moov" not in names:
        raise OSError(f"{path} could not be written: ffmpeg could not end it; is the disk full?")
