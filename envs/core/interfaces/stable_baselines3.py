"""Many worlds as a Stable-Baselines3 VecEnv: one slot per agent, world * n_agents + agent.

An agent that left keeps its slot until its world ends: constant observation, reward 0, not done.
The flags of ended episodes also say which slots learners should leave out: see `Dones`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from ..kernels.announcement import announce_to_standard_error
from ..memory import require_memory
from ..observation import observation_space, parameters
from ..registry import make_system
from ..rng import fresh_seed
from ..seeds import require_seed
from ..system import System
from ..validation import require_choice, require_shape
from ..vector import VectorEnv

if TYPE_CHECKING:
    from ..rendering.painter import Painter

_FPS = 30
_WIDEST = 1280  # pixels of the picture of several worlds


class Dones(np.ndarray):
    """Flags [num_envs] of ended episodes that also say who acted in the same step.

    Learners and wrappers pass them on to the buffers (`buffers.py`), which so need not know the
    environment. Copies say it too; saved ones are plain flags.

    acted: whose action counted [num_envs]; None: everybody's.
    terminated: who had left for good, before a world started anew [num_envs]; None: nobody.
    """

    acted: np.ndarray | None
    terminated: np.ndarray | None

    def __array_finalize__(self, source: Any) -> None:
        same = source is not None and source.shape == self.shape
        self.acted = getattr(source, "acted", None) if same else None
        self.terminated = getattr(source, "terminated", None) if same else None

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()


class Slot:
    """One agent of one world, as `get_attr`, `set_attr` and `env_method` see it.

    Its attributes are those of the system, of this class, and those that were set.
    """

    def __init__(self, vec_env: SystemVecEnv, index: int) -> None:
        self._vec_env = vec_env
        self.world, self.agent = divmod(index, vec_env.system.n_agents)

    @property
    def render_mode(self) -> str | None:
        """How the worlds are drawn."""
        return self._vec_env.render_mode

    @property
    def observation_space(self) -> spaces.Space:
        """The space of the slot's observations."""
        return self._vec_env.observation_space

    @property
    def action_space(self) -> spaces.Space:
        """The space of the slot's actions."""
        return self._vec_env.action_space

    def render(self) -> np.ndarray | None:
        """A picture of the slot's world."""
        return self._vec_env.picture(self.world)

    def action_masks(self) -> np.ndarray:
        """Flags [n] of the legal discrete actions."""
        return self._vec_env.action_masks()[self.world * self.system.n_agents + self.agent]

    def get_wrapper_attr(self, name: str) -> Any:
        """An attribute by name."""
        return getattr(self, name)

    @property
    def system(self) -> System:
        """The system of all worlds."""
        return self._vec_env.system

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._vec_env.system, name)


class SystemVecEnv(VecEnv):
    """`n_worlds` worlds of one system as num_envs = n_worlds * n_agents environments.

    Every array and dictionary that is returned is fresh. At the end of an episode the infos hold
    `terminal_observation`, `TimeLimit.truncated`, `episode` {"r", "l", "t"} and `metrics`. Where
    actions may be illegal the infos of every step hold `action_mask`, 1 for what is legal next, and
    the metrics how many illegal ones were chosen.
    """

    def __init__(
        self,
        system: System,
        n_worlds: int = 1,
        *,
        seed: int | None = None,
        render_mode: str | None = None,
        first_world: int = 0,
    ) -> None:
        if render_mode is not None:
            require_choice("render_mode", render_mode, ("human", "rgb_array"))
        if render_mode == "human":
            announce_to_standard_error()
        self.system = system
        self.worlds = VectorEnv(system, n_worlds, seed=seed, first_world=first_world)
        # A dictionary of every slot, of the reset and of a step.
        slots = n_worlds * system.n_agents
        require_memory(f"n_worlds={n_worlds} with {system.n_agents} agents each", 2 * 72 * slots)
        self.render_mode = render_mode
        self._slots: dict[int, Slot] = {}
        self._painter: Painter | None = None
        num_envs = n_worlds * system.n_agents
        space = system.action_space
        self._shape = (num_envs, *(space.shape or ()))
        self._action_shape = (n_worlds, system.n_agents, *(space.shape or ()))
        self._next_seed: int | None = None
        self._start = time.time()
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self._terminated = np.zeros(num_envs, bool)
        self._actions = np.zeros(0)
        super().__init__(num_envs, observation_space(system), space)
        self.metadata: dict[str, Any] = {**self.metadata, "render_fps": _FPS}

    @property
    def acted(self) -> np.ndarray:
        """Whose action counted in the last step [num_envs]: not gone, and active."""
        return self.worlds.acted.reshape(-1)

    @property
    def terminated(self) -> np.ndarray:
        """Who had left for good after the last step, before its world started anew [num_envs]."""
        return self._terminated

    def reset(self) -> np.ndarray:
        """Start all worlds anew, with the seed given to `seed()` if there is a new one.

        `set_options({"state": {name: array [worlds, ...]}})` makes the next reset start from these
        fields of the state, as `VectorEnv.reset` says.
        """
        observation = self.worlds.reset(self._next_seed, options=self._common_options())
        self._next_seed = None
        self._reset_options()
        self._returns[:] = 0
        self._lengths[:] = 0
        self._terminated = ~self.worlds.alive.reshape(-1)
        self.reset_infos = self._infos()
        return observation.reshape(self.num_envs, -1)

    def _infos(self) -> list[dict[str, Any]]:
        """A dictionary of every slot, with the legal actions where some may be illegal."""
        if not self.worlds.may_be_illegal:
            return [{} for _ in range(self.num_envs)]
        return [{"action_mask": mask} for mask in self.action_masks().astype(np.int8)]

    def _common_options(self) -> dict[str, Any]:
        """Options of the next reset, which worlds share; ValueError for those of a slot alone."""
        first = self._options[0]
        if any(options is not first for options in self._options if options or first):
            raise ValueError("set_options() must be given one dictionary, for all worlds together")
        return first

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions [num_envs, ...] of the next step; ValueError for another shape."""
        actions = np.asarray(actions)
        if actions.shape != self._shape:
            require_shape(actions, self._shape)
        self._actions = actions.reshape(self._action_shape)

    def step_wait(self) -> VecEnvStepReturn:
        worlds, n = self.worlds, self.num_envs
        alive = worlds.alive.reshape(n).copy() if worlds.may_leave else 1
        step = worlds.step(self._actions)
        reward = step.reward.reshape(n)
        self._returns += reward
        self._lengths += alive
        self._terminated = step.terminated.reshape(n)
        infos = self._infos()
        if step.final_observation is not None:
            final = step.final_observation.reshape(n, -1)
            self._finish(infos, step.done, final, step.truncated.reshape(n), step.metrics)
        done = step.done.repeat(self.system.n_agents).view(Dones)
        if not worlds.all_act:
            done.acted, done.terminated = self.acted, self._terminated
        return step.observation.reshape(n, -1), reward.astype(np.float32), done, infos

    def _finish(
        self,
        infos: list[dict[str, Any]],
        done: np.ndarray,
        final: np.ndarray,
        truncated: np.ndarray,
        metrics: dict[str, np.ndarray],
    ) -> None:
        """Fill the infos of the worlds whose episode ended, and clear their sums."""
        n = self.system.n_agents
        seconds = round(time.time() - self._start, 6)
        for world in np.flatnonzero(done).tolist():
            scores = {name: float(value[world]) for name, value in metrics.items()}
            slots = slice(world * n, (world + 1) * n)
            returns, lengths = self._returns[slots].tolist(), self._lengths[slots].tolist()
            limit = truncated[slots].tolist()
            for agent, slot in enumerate(range(world * n, (world + 1) * n)):
                infos[slot] |= {
                    "terminal_observation": final[slot],
                    "TimeLimit.truncated": limit[agent],
                    "episode": {"r": returns[agent], "l": lengths[agent], "t": seconds},
                    "metrics": scores.copy(),
                }
            self._returns[slots] = 0
            self._lengths[slots] = 0

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Choose the seed of the next `reset`; all slots share it (a world is seed and index)."""
        if seed is not None:
            require_seed("seed", seed)
        self._next_seed = fresh_seed() if seed is None else int(seed)
        return [self._next_seed] * self.num_envs

    def use(self, system: System) -> np.ndarray | None:
        """Go on in the same worlds under other parameters, as `VectorEnv.use` says."""
        self.system = system
        observation = self.worlds.use(system)
        return None if observation is None else observation.reshape(self.num_envs, -1)

    def save(self) -> dict[str, Any]:
        """Everything that `restore` needs: whole numbers and fresh arrays."""
        own = {"returns": self._returns.copy(), "lengths": self._lengths.copy()}
        return {**self.worlds.save(), **own, "terminated": self._terminated.copy()}

    def restore(self, saved: dict[str, Any]) -> np.ndarray:
        """Go back to what `save` returned; returns observations [num_envs, size].

        Raises ValueError for what another kind of environment saved; then nothing has changed.
        """
        names = ("returns", "lengths", "terminated")
        own = [np.array(saved.get(name)) for name in names]
        for name, value in zip(names, own, strict=True):
            if value.shape != (self.num_envs,):
                raise ValueError(f"saved {name} have shape {value.shape}, not ({self.num_envs},)")
        observation = self.worlds.restore(saved)
        self._returns, self._lengths, self._terminated = own
        return observation.reshape(self.num_envs, -1)

    def action_masks(self) -> np.ndarray:
        """Flags [num_envs, n] of the legal discrete actions; ValueError for continuous ones."""
        return self.worlds.legal_actions().reshape(self.num_envs, -1)

    def picture(self, world: int) -> np.ndarray | None:
        """What world `world` looks like, [height, width, 3] uint8."""
        self.worlds.require_reset("render()")
        state = self.worlds.tensors
        scene = self.system.scene(type(state)(*(array[world : world + 1] for array in state)))
        if scene is None:
            raise ValueError(f"{type(self.system).__name__} has no picture: leave out render_mode")
        if self._painter is None:
            from ..rendering.painter import Painter

            human = self.render_mode == "human"
            side = _WIDEST / math.ceil(math.sqrt(1 if human else self.worlds.n_worlds))
            side = min(640, max(128, 16 * int(side / 16)))
            self._painter = Painter(size=(side, side), human=human)
        return self._painter.draw(scene)

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture per world (not per slot: agents of a world look the same)."""
        return [self.picture(world) for world in range(self.worlds.n_worlds)]

    def render(self, mode: str | None = None) -> np.ndarray | None:
        """All worlds side by side; the first one in a window if render_mode is "human"."""
        if self.render_mode == "human" and mode in (None, "human"):
            self.picture(0)
            return None
        return super().render(mode)

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(slot, attr_name) for slot in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of slots; ValueError for a parameter, which the system fixes."""
        if attr_name in parameters(self.system):
            raise ValueError(f"{attr_name} is a parameter of the system: make the environment anew")
        for slot in self._chosen(indices):
            setattr(slot, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        if method_name == "action_masks" and not (method_args or method_kwargs):
            masks = self.action_masks()  # of all slots at once: learners ask at every step
            return [masks[index] for index in self._get_indices(indices)]
        slots = self._chosen(indices)
        return [getattr(slot, method_name)(*method_args, **method_kwargs) for slot in slots]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """Whether infos hold what a wrapper adds: `episode` as a Monitor does, else no."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_painter": None, "_slots": {}}

    def _chosen(self, indices: VecEnvIndices) -> Iterable[Slot]:
        for index in self._get_indices(indices):
            slot = range(self.num_envs)[index]
            if slot not in self._slots:
                self._slots[slot] = Slot(self, slot)
            yield self._slots[slot]


def make_vec_env(
    id: str,
    *,
    n_worlds: int = 1,
    seed: int | None = None,
    render_mode: str | None = None,
    **parameters: Any,
) -> SystemVecEnv:
    """The VecEnv of an id; `parameters` are those of its system."""
    system = make_system(id, **parameters)
    return SystemVecEnv(system, n_worlds, seed=seed, render_mode=render_mode)
