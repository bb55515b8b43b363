"""Films of a policy at work, as mp4 or gif."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ..agents.policy import Policy
from ..envs.core.render import BACKGROUND, Painter
from ..envs.core.rng import POLICY
from ..envs.core.system import System
from ..envs.core.vector import VectorEnv

SUFFIXES = (".mp4", ".gif")
FPS = 20
MOST_WORLDS = 9  # in one film
_BLOCK = 16  # encoders want sizes in multiples of this
_TRAIL = 12


def record_video(
    system: System,
    policy: Policy,
    path: str | Path,
    *,
    n_worlds: int = 1,
    n_steps: int | None = None,
    seed: int = 0,
    deterministic: bool | None = None,
    size: int = 640,
    fps: int = FPS,
) -> None:
    """Film `n_steps` (default: one episode) of worlds in a grid, from the start to the last state.

    deterministic: hand the policy no generator; by default unless the system is stochastic.

    Raises ValueError if the system has no picture or the file's name does not end in a suffix.
    """
    if deterministic is None:
        deterministic = not system.stochastic
    steps = system.horizon if n_steps is None else n_steps
    env = VectorEnv(system, n_worlds, seed=seed, autoreset=steps > system.horizon)
    observation = env.reset()
    with filming(path, env, size=size, fps=fps) as shoot:
        shoot()
        for _ in range(steps):
            step = env.step(act(env, policy, observation, deterministic))
            observation = step.observation
            shoot()
            if step.done.all() and not env.autoreset:
                return


@contextmanager
def filming(
    path: str | Path, env: VectorEnv, *, size: int = 640, fps: int = FPS
) -> Iterator[Callable[[], None]]:
    """A function that adds a picture of `env`; the film appears when the block ends well."""
    camera = Camera(env, size=size)
    with film(path, fps=fps) as add:
        yield lambda: add(camera.frame())


def act(env: VectorEnv, policy: Policy, observation: np.ndarray, deterministic: bool) -> np.ndarray:
    """A policy's actions [worlds, agents, ...], sampled with the worlds' own numbers or not."""
    with torch.no_grad():
        rng = None if deterministic else env.rng(POLICY)
        return policy(torch.from_numpy(observation), rng).numpy()


class Camera:
    """Pictures of the first worlds of `env`, in a grid of at most about `size` pixels a side."""

    def __init__(self, env: VectorEnv, *, size: int = 640) -> None:
        self._env = env
        count = min(env.n_worlds, MOST_WORLDS)
        self._columns = int(np.ceil(np.sqrt(count)))
        self._rows = -(-count // self._columns)
        self._tile = max(size // self._columns // _BLOCK, 1) * _BLOCK
        tile = (self._tile, self._tile)
        self._painters = [Painter(size=tile, trail=_TRAIL) for _ in range(count)]

    def frame(self) -> np.ndarray:
        """The worlds as they are now [height, width, 3] uint8, both multiples of 16."""
        tile = self._tile
        if len(self._painters) == 1:
            return self._world(0)
        image = np.empty((self._rows * tile, self._columns * tile, 3), np.uint8)
        image[:] = BACKGROUND
        for i in range(len(self._painters)):
            row, column = divmod(i, self._columns)
            place = image[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
            place[:] = self._world(i)
            place[0], place[:, 0] = 0, 0
        return image

    def _world(self, i: int) -> np.ndarray:
        env, painter = self._env, self._painters[i]
        if env.age[i] == 0:
            painter.forget()
        scene = env.system.scene(type(env.state)(*(part[i : i + 1] for part in env.tensors)))
        if scene is None:
            raise ValueError(f"{type(env.system).__name__} has no picture to film")
        return painter.draw(scene)


@contextmanager
def film(path: str | Path, *, fps: int = FPS) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame [height, width, 3]; the file appears when the block ends well.

    Raises ValueError if the file's name does not end in one of SUFFIXES.
    """
    import imageio.v2 as imageio

    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"film {str(path)!r} must end in {' or '.join(SUFFIXES)}")
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        if path.suffix == ".mp4":
            writer = imageio.get_writer(part, fps=fps, quality=7, macro_block_size=_BLOCK)
        else:
            writer = imageio.get_writer(part, duration=1000 / fps, loop=0, subrectangles=True)
        try:
            yield writer.append_data
        finally:
            writer.close()
        if part.exists():
            os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path} could not be written: {_reason(error)}") from error
    finally:
        part.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    """Why a film failed: ffmpeg's last words, where it is ffmpeg that failed."""
    return error.strerror or str(error).strip().splitlines()[-1]
