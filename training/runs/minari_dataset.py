"""Rollouts as a dataset that Minari loads: an episode is what one agent saw, did and got.

The episodes of a world's agents follow each other in the order of the agents, and their options say
which world, agent and episode of the world they are.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...envs.core.extras import require_extra
from ...envs.core.files import write_folder
from ...envs.core.memory import require_memory
from ...envs.core.observation import observation_space
from ...envs.core.registry import spec
from ...envs.core.vector import Step, VectorEnv

DATA = "data"  # Minari's name for the folder in a dataset's folder that holds it
_FORMAT = "hdf5"
_EPISODE_BYTES = 2**15  # of a file, beside the arrays of an episode


class AgentEpisode(NamedTuple):
    """An episode of one agent of T steps: observation [T + 1, size], the others [T, ...].

    acted: whether its action counted.  whole: whether it ended, rather than the data.
    """

    world: int
    agent: int
    episode: int
    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    acted: np.ndarray
    terminated: bool
    whole: bool


class _Row(NamedTuple):
    """A step of all worlds, each array [worlds, ...]; `last` is where it led, before any reset."""

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    acted: np.ndarray
    present: np.ndarray
    terminated: np.ndarray
    last: np.ndarray
    done: np.ndarray
    going: np.ndarray


class Episodes:
    """What a batch of worlds went through, step by step, to be cut into episodes of agents."""

    def __init__(self, env: VectorEnv) -> None:
        require_extra("minari", "minari", "Minari")
        require_extra("h5py", "minari", "h5py")
        self.env = env
        self._rows: list[_Row] = []
        self._ends: set[int] = set()  # rows after which all worlds began anew, as asked

    def require_memory(self, n_steps: int) -> None:
        """Raise ValueError if so many steps cannot be kept."""
        env = self.env
        size = observation_space(env.system).shape[0]
        of_agent = 4 * 2 * size + 8 * int(np.prod(env.system.action_space.shape or ())) + 8 + 3
        require_memory(f"--minari of {n_steps} steps", n_steps * of_agent * env.alive.size)

    def add(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        step: Step,
        present: np.ndarray,
        going: np.ndarray,
    ) -> None:
        """Note a step.

        observation: before it.  present: who had not left before it [worlds, agents].
        going: worlds that count [worlds].
        """
        last = step.observation if step.final_observation is None else step.final_observation
        seen, acts = observation_space(self.env.system).dtype, self.env.system.action_space.dtype
        self._rows.append(
            _Row(
                observation.astype(seen, copy=False),
                np.array(action, acts),
                step.reward,
                self.env.acted.copy(),
                present,
                step.terminated,
                last.astype(seen, copy=False),
                step.done,
                going,
            )
        )

    def end(self) -> None:
        """Note that all worlds begin anew though they had not ended."""
        self._ends.add(len(self._rows) - 1)

    def __iter__(self) -> Iterator[AgentEpisode]:
        if not self._rows:
            return
        rows = _Row(*(np.stack(column) for column in zip(*self._rows, strict=True)))
        cut = rows.done | np.isin(np.arange(len(rows.done)), list(self._ends))[:, None]
        for world in range(self.env.n_worlds):
            n_rows = int(rows.going[:, world].sum())  # those after a world's end come last
            ends = np.flatnonzero(cut[:n_rows, world]) + 1
            bounds = [0, *ends.tolist(), n_rows]
            stretches = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
            for episode, (first, stop) in enumerate(stretches):
                whole = bool(rows.done[stop - 1, world])
                yield from self._of_agents(rows, world, episode, slice(first, stop), whole)

    def _of_agents(
        self, rows: _Row, world: int, episode: int, steps: slice, whole: bool
    ) -> Iterator[AgentEpisode]:
        for agent in range(self.env.n_agents):
            here = steps, world, agent
            n_steps = int(rows.present[here].sum())  # an agent that has left stays away
            if n_steps:
                terminated = bool(rows.terminated[here][n_steps - 1])
                where = rows.last[here][n_steps - 1 : n_steps]
                yield AgentEpisode(
                    world,
                    agent,
                    episode,
                    np.concatenate([rows.observation[here][:n_steps], where]),
                    rows.action[here][:n_steps],
                    rows.reward[here][:n_steps],
                    rows.acted[here][:n_steps],
                    terminated,
                    terminated or whole,
                )


def require_new_dataset(path: Path) -> None:
    """Raise ValueError if a dataset cannot be made in the folder `path`, or would overwrite."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"--minari {str(path)!r} is there already; choose another folder")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--minari {str(path)!r}: there is no folder {str(path.parent)!r}")


def write_dataset(path: Path, episodes: Episodes, config: dict[str, Any]) -> None:
    """Write the folder `path` whole or not at all: `minari.MinariDataset(path / "data")` reads it.

    The disk must have room at the start: a library of HDF5 that meets a full one ends the process.
    config: what was run, as `rollout --json` prints it; metadata keep it as "rollout".
    """
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    system = episodes.env.system

    def buffers() -> Iterator[EpisodeBuffer]:
        for episode in episodes:
            n_steps = len(episode.reward)
            last = np.arange(n_steps) == n_steps - 1
            yield EpisodeBuffer(
                seed=config["seed"],
                options={name: getattr(episode, name) for name in ("world", "agent", "episode")},
                observations=episode.observation,
                actions=episode.action,
                rewards=episode.reward,
                terminations=last & episode.terminated,
                truncations=last & (not episode.terminated),
                infos={"acted": episode.acted},
            )

    def write(folder: Path) -> None:
        spaces = observation_space(system), system.action_space
        storage = MinariStorage.new(folder / DATA, *spaces, data_format=_FORMAT)
        storage.update_episodes(buffers())
        storage.update_metadata(
            {
                "dataset_id": f"invariantzoo/{spec(config['id']).id}/rollout-v0",
                "minari_version": minari.__version__,
                "algorithm_name": str(config["policy"]),
                "description": "Each episode is one agent's; its options name world and agent.",
                "requirements": [f"invariantzoo=={importlib.metadata.version('invariantzoo')}"],
                "rollout": config,
            }
        )

    write_folder(path, write, size=sum(map(_bytes, episodes)))


def _bytes(episode: AgentEpisode) -> int:
    """What an episode takes on the disk, at most."""
    arrays = (episode.observation, episode.action, episode.reward, episode.acted)
    flags = 2 * len(episode.reward)
    return sum(array.nbytes for array in arrays) + flags + _EPISODE_BYTES
