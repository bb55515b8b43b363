"""One world as a PettingZoo environment: the ParallelEnv and its AEC face.

Both stand on `VectorEnv` with one world. In the parallel face everybody hands in an action and
those who are not active are ignored; in the AEC face only the active agents are selected, so both
obey the same law whatever the system's update order.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pettingzoo
from gymnasium import spaces

from ..kernels.announcement import announce_to_standard_error
from ..kernels.reductions import ACTION_LIMIT
from ..memory import require_memory
from ..observation import is_discrete, observation_space, parameters
from ..registry import make_system
from ..rng import Rng
from ..system import System
from ..validation import nearest, require_count
from ..vector import VectorEnv

if TYPE_CHECKING:
    from ..rendering.painter import Painter

_FAR = 1e12  # no number of a state is larger; checkers dislike infinite boxes
_ROLES = ["human", "rgb_array"]
_WHOLE = (int, np.integer)
_SEEN = np.dtype(np.float32)  # made once: numpy takes a while to find it from the type


def make_parallel(
    id: str, *, render_mode: str | None = None, max_cycles: int | None = None, **parameters: Any
) -> ParallelEnv:
    """The parallel environment of an id; `max_cycles` stands for `horizon`, and goes before it."""
    system = make_system(id, **parameters)
    return ParallelEnv(system, name=id, render_mode=render_mode, max_cycles=max_cycles)


def make_aec(
    id: str, *, render_mode: str | None = None, max_cycles: int | None = None, **parameters: Any
) -> AecEnv:
    """The agent-by-agent environment of an id; `max_cycles` as in `make_parallel`."""
    system = make_system(id, **parameters)
    return AecEnv(system, name=id, render_mode=render_mode, max_cycles=max_cycles)


class Metrics(dict[str, float]):
    """Metrics of an episode by name; array libraries read them as one row, NaN where unknown.

    So TorchRL, which makes a tensor of everything in infos, can take them.
    """

    def __init__(self, names: Iterable[str], values: Mapping[str, float]) -> None:
        super().__init__(values)
        self._names = tuple(names)

    def __dlpack__(self, **kwargs: Any) -> Any:
        row = [self.get(name, math.nan) for name in self._names]
        return np.array(row, np.float64).__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the CPU


class _World:
    """What both faces share: one world, its agents' names, spaces, infos and picture."""

    def __init__(
        self, system: System, name: str, render_mode: str | None, max_cycles: int | None
    ) -> None:
        if render_mode not in (None, *_ROLES):
            raise ValueError(f"render_mode={render_mode!r} must be None, 'human' or 'rgb_array'")
        if max_cycles is not None:
            require_count("max_cycles", max_cycles)
            if "horizon" in parameters(type(system)):
                system = dataclasses.replace(system, horizon=max_cycles)  # type: ignore[type-var]
        if render_mode == "human":
            announce_to_standard_error()
        self.system = system
        self._horizon = system.horizon if max_cycles is None else max_cycles
        self.render_mode = render_mode
        self.metadata = {"name": name, "render_modes": _ROLES, "render_fps": 20}
        # Names, and where each stands: Python objects, which are larger than what they name.
        require_memory(f"n_agents={system.n_agents}", 150 * system.n_agents)
        self._env = VectorEnv(system, 1, autoreset=False)
        self.possible_agents = [f"{system.agent_name}_{i}" for i in range(system.n_agents)]
        self.agents: list[str] = []
        self._number = {agent: i for i, agent in enumerate(self.possible_agents)}
        self._spaces: dict[str, tuple[spaces.Box, spaces.Space]] = {}
        self._painter: Painter | None = None
        self._seed: int | None = None
        self._np_random: np.random.Generator | None = None
        probe = system.initial(Rng.single(0, 1), 1)
        self._state_size = sum(array[0].numel() for array in probe)
        legal = system.action_mask(probe)
        self._plain = (
            system.terminated(probe) is None and legal is None and not system.one_at_a_time
        )
        self._discrete = is_discrete(system)
        self._action_shape = system.action_space.shape or ()
        self._n_actions = int(getattr(system.action_space, "n", 0))

    def observation_space(self, agent: str) -> spaces.Box:
        """The box of an agent's flat observation (the same object at every call)."""
        return self._agent_spaces(agent)[0]

    def action_space(self, agent: str) -> spaces.Space:
        """The space of an agent's action (the same object at every call)."""
        return self._agent_spaces(agent)[1]

    @property
    def observation_spaces(self) -> dict[str, spaces.Box]:
        """The same of every agent by name, as PettingZoo once had it and some libraries ask."""
        return {agent: self.observation_space(agent) for agent in self.possible_agents}

    @property
    def action_spaces(self) -> dict[str, spaces.Space]:
        """Action spaces of every agent by name."""
        return {agent: self.action_space(agent) for agent in self.possible_agents}

    @property
    def np_random(self) -> np.random.Generator:
        """Draws for wrappers (SuperSuit's `frame_skip_v0` asks); the world has draws of its own.

        Begun anew where `reset` is given a seed.
        """
        if self._np_random is None:
            self._np_random = np.random.default_rng(self._seed)
        return self._np_random

    def _agent_spaces(self, agent: str) -> tuple[spaces.Box, spaces.Space]:
        if agent not in self._spaces:
            if agent not in self._number:
                raise KeyError(f"unknown agent {agent!r}; agents are {self._range()}")
            # A copy: each agent's space has a generator of its own.
            actions = copy.deepcopy(self.system.action_space)
            self._spaces[agent] = (observation_space(self.system), actions)
        return self._spaces[agent]

    def _range(self) -> str:
        return f"{self.possible_agents[0]} to {self.possible_agents[-1]}"

    @property
    def state_space(self) -> spaces.Box:
        """The box of `state()`."""
        return spaces.Box(-_FAR, _FAR, (self._state_size,), np.float64)

    def state(self) -> np.ndarray:
        """Everything, as one flat float64 array, for centralised critics."""
        self._require_reset("state()")
        return np.concatenate([array[0].ravel().astype(np.float64) for array in self._env.state])

    def render(self) -> np.ndarray | None:
        """A frame [height, width, 3] uint8 if the mode is "rgb_array"; "human" draws the window."""
        if self.render_mode is None:
            return None
        self._require_reset("render()")
        if self._painter is None:
            from ..rendering.painter import Painter

            human = self.render_mode == "human"
            self._painter = Painter(human=human, title=str(self.metadata["name"]))
        scene = self.system.scene(self._env.tensors)
        if scene is None:
            raise ValueError(f"{self.metadata['name']} has no picture")
        frame = self._painter.draw(scene)
        return frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the window."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def _begin(self, seed: int | None, options: dict[str, Any] | None) -> np.ndarray:
        observation = self._env.reset(seed, options=options)[0]
        if seed is not None:
            self._seed, self._np_random = seed, None
        alive = self._env.alive[0]
        self.agents = list(itertools.compress(self.possible_agents, alive))
        return observation

    def _require_reset(self, what: str) -> None:
        self._env.require_reset(what)

    def _infos(self, last: bool = False) -> dict[str, dict[str, Any]]:
        """Legal actions and whose turn it is, where a system has such a thing; metrics at the end.

        last: whether the episode ends here.
        """
        infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        if not self._plain:
            self._tell_turns(infos)
        if last:
            self._tell_metrics(infos, self.metrics())
        return infos

    def _first_infos(self) -> dict[str, dict[str, Any]]:
        """As `_infos`, with all keys that infos can have: TorchRL knows no others later.

        Where they would be empty they stay so: then TorchRL reads none at all.
        """
        infos = self._infos()
        if not self._plain:
            self._tell_metrics(infos, {})
        return infos

    def _tell_metrics(self, infos: dict[str, dict[str, Any]], metrics: dict[str, float]) -> None:
        for info in infos.values():
            info["metrics"] = Metrics(self._env.metric_names, metrics)

    def _tell_turns(self, infos: dict[str, dict[str, Any]]) -> None:
        if self._env.may_be_illegal:
            mask = self._env.legal_actions()[0].astype(np.int8)
            for agent, info in infos.items():
                info["action_mask"] = mask[self._number[agent]].copy()
        if self.system.one_at_a_time:
            active = self._env.active()[0].tolist()
            for agent, info in infos.items():
                info["active"] = active[self._number[agent]]

    def _takes(self, action: Any) -> bool:
        """A quick look at an action of the usual type: whether it is in the space."""
        if self._discrete:
            return isinstance(action, _WHOLE) and bool(0 <= action < self._n_actions)
        return (
            isinstance(action, np.ndarray)
            and action.dtype.kind == "f"
            and action.shape == self._action_shape
            and all(map(ACTION_LIMIT.__ge__, map(abs, action.tolist())))
        )

    def _refused(self, agent: str, action: Any, *, values: bool = True) -> str | None:
        """Why an action is not in an agent's space, or None if it is; without `values` its form."""
        shape = self._action_shape
        try:
            value = np.asarray(action)
        except (ValueError, TypeError, RuntimeError):
            value = np.asarray(None)
        if value.dtype.kind not in "biuf":
            given = " ".join(repr(action).split())
        elif value.shape != shape:
            given = f"{value.tolist()}, of shape {value.shape}"
        elif not values or self._allowed(value):
            return None
        else:
            given = str(value.tolist())
        if self._discrete:
            wanted = f"a whole number from 0 to {self._n_actions - 1}"
        else:
            wanted = f"finite numbers in [-1, 1] of shape {shape}"
        return f"action of {agent} is {given}; it must be {wanted}"

    def _allowed(self, value: np.ndarray) -> bool:
        if self._discrete:
            return bool(value == np.floor(value) and 0 <= value < self._n_actions)
        return bool(np.abs(value).max() <= ACTION_LIMIT)

    def metrics(self) -> dict[str, float]:
        """Metrics of the episode so far, or of the one that has just ended, by name."""
        self._require_reset("metrics()")
        return {name: float(value[0]) for name, value in self._env.episode_metrics().items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_painter": None}


class ParallelEnv(_World, pettingzoo.ParallelEnv):
    """One world in which all agents hand in their actions at once."""

    def __init__(
        self,
        system: System,
        *,
        name: str,
        render_mode: str | None = None,
        max_cycles: int | None = None,
    ) -> None:
        super().__init__(system, name, render_mode, max_cycles)
        self.metadata["is_parallelizable"] = True
        self._shape = (1, system.n_agents, *(system.action_space.shape or ()))
        self._size = math.prod(self._action_shape)
        # All agents' actions at once, which takes half the time of one by one.
        agents = self.possible_agents
        self._pick = itemgetter(*agents) if len(agents) > 1 else partial(_only, agents[0])
        self._action = np.zeros(self._shape, np.float32)
        self._flat = self._action.reshape(-1)
        self._age = 0
        self._nobody = dict.fromkeys(agents, False)  # copied at every step, never handed out
        self._seen_shape = (1, system.n_agents, *(observation_space(system).shape or ()))

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Start an episode.

        options: `{"world": i}` runs world i of a batch with the same seed; `{"state": {name:
        array}}` starts from these fields of the state, as `VectorEnv.reset` says.
        """
        observation = self._begin(seed, options)
        self._age = 0
        seen = {agent: observation[self._number[agent]] for agent in self.agents}
        return seen, self._first_infos()

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[
        dict[str, np.ndarray],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Advance by one step; an agent that is gone needs no action.

        Raises KeyError for a missing action or an unknown agent, ValueError for an action outside
        its space; then nothing has moved.
        """
        agents = self.agents
        if not agents:
            self._require_reset("step()")
            return {}, {}, {}, {}, {}
        action = self._gather(actions)
        if self._plain:
            step = self._step_plain(agents, action)
        else:
            step = self._step_any(agents, action)
        if self.render_mode == "human":
            self.render()
        return step

    def _step_plain(self, agents: list[str], action: np.ndarray) -> Any:
        """All act at every step until all are truncated: nothing is looked up by name."""
        observation = np.empty(self._seen_shape, _SEEN)
        reward = self._env.run(action, observation)
        # No strict=True: it would cost a tenth of a small step.
        seen = dict(zip(agents, observation[0]))  # noqa: B905
        rewards = dict(zip(agents, reward.tolist()[0]))  # noqa: B905
        infos: dict[str, dict[str, Any]] = {agent: {} for agent in agents}
        terminated = self._nobody.copy()
        self._age += 1
        if self._age < self._horizon:
            return seen, rewards, terminated, terminated.copy(), infos
        self._tell_metrics(infos, self.metrics())
        self.agents = []
        return seen, rewards, terminated, dict.fromkeys(agents, True), infos

    def _step_any(self, agents: list[str], action: np.ndarray) -> Any:
        observation, reward = self._env.advance(action)
        terminated_now, values = (~self._env.alive[0]).tolist(), reward[0].tolist()
        rows = {agent: self._number[agent] for agent in agents}
        terminated = {agent: terminated_now[i] for agent, i in rows.items()}
        seen = {agent: observation[0, i] for agent, i in rows.items()}
        rewards = {agent: values[i] for agent, i in rows.items()}
        self._age += 1
        over = self._age >= self._horizon
        infos = self._infos(last=over or all(terminated.values()))
        truncated = {agent: over and not has_left for agent, has_left in terminated.items()}
        self.agents = [] if over else [agent for agent in agents if not terminated[agent]]
        return seen, rewards, terminated, truncated, infos

    def _gather(self, actions: dict[str, Any]) -> np.ndarray:
        """Actions of all agents [1, agents, size]; zeros for those who have left."""
        agents = self.agents
        try:
            if len(agents) == len(self._number):
                given = self._pick(actions)
            else:
                given = [actions[agent] for agent in agents]
            if len(actions) != len(given):
                self._require_agents(actions)
        except (KeyError, TypeError, IndexError):
            self._refuse_names(actions)
        try:
            if self._discrete:
                rows = np.array(given)
                if rows.ndim != 1 or rows.dtype.kind not in "biuf":
                    raise ValueError
            elif max(map(len, given)) > self._size:  # the others could make up for it
                raise ValueError
            elif len(given) == len(self._number):
                np.concatenate(given, out=self._flat)
                return self._action
            else:
                rows = np.concatenate(given, dtype=np.float32)
        except (ValueError, TypeError):
            self._refuse_forms(given)
        if len(given) == len(self._number):
            return rows.reshape(self._shape)
        action = np.zeros(self._shape, rows.dtype)
        try:
            rows = rows.reshape(len(given), *self._action_shape)
        except ValueError:
            self._refuse_forms(given)
        action[0, [self._number[agent] for agent in agents]] = rows
        return action

    def _require_agents(self, actions: dict[str, Any]) -> None:
        for agent in actions:
            if agent not in self._number:
                raise KeyError(agent)

    def _refuse_names(self, actions: Any) -> NoReturn:
        """Raise what is wrong with the keys of `actions`."""
        if not isinstance(actions, Mapping):
            kind = type(actions).__name__
            raise ValueError(f"actions are a {kind}; they must be a dictionary: agent -> action")
        for agent in actions:
            if agent not in self._number:
                hint = nearest(str(agent), self.possible_agents)
                raise KeyError(f"unknown agent {agent!r}{hint} (agents are {self._range()})")
        missing = next(agent for agent in self.agents if agent not in actions)
        raise KeyError(f"no action for agent {missing!r}; all live agents must act")

    def _refuse_forms(self, given: Sequence[Any]) -> NoReturn:
        """Raise what is wrong with the first action that has no right shape and type."""
        for agent, action in zip(self.agents, given, strict=True):
            reason = self._refused(agent, action, values=False)
            if reason is not None:
                raise ValueError(reason)
        raise ValueError(f"actions have types that do not fit together: {given}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._flat = self._action.reshape(-1)


def _only(agent: str, actions: dict[str, Any]) -> tuple[Any]:
    return (actions[agent],)


class AecEnv(_World, pettingzoo.AECEnv):
    """One world in which the agents that are active act one after another."""

    def __init__(
        self,
        system: System,
        *,
        name: str,
        render_mode: str | None = None,
        max_cycles: int | None = None,
    ) -> None:
        pettingzoo.AECEnv.__init__(self)
        _World.__init__(self, system, name, render_mode, max_cycles)
        # Elsewhere agents act in an order that PettingZoo's `aec_to_parallel` cannot follow.
        self.metadata["is_parallelizable"] = not system.one_at_a_time
        self.agent_selection: str = ""
        self.rewards: dict[str, float] = {}
        self.terminations: dict[str, bool] = {}
        self.truncations: dict[str, bool] = {}
        self.infos: dict[str, dict[str, Any]] = {}
        self._cumulative_rewards: dict[str, float] = {}

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start an episode.

        options: `{"world": i}` runs world i of a batch with the same seed; `{"state": {name:
        array}}` starts from these fields of the state, as `VectorEnv.reset` says.
        """
        self._observation = self._begin(seed, options)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = self._first_infos()
        self._turn()

    def last(
        self, observe: bool = True
    ) -> tuple[np.ndarray | None, float, bool, bool, dict[str, Any]]:
        """Observation, reward, termination, truncation and info of the selected agent."""
        self._require_reset("last()")
        return super().last(observe)

    def agent_iter(self, max_iter: int = 2**63) -> Iterator[str]:
        """The agents as they are selected, until all have left."""
        self._require_reset("agent_iter()")
        return super().agent_iter(max_iter)

    def observe(self, agent: str) -> np.ndarray:
        """The last observation of an agent, freshly copied."""
        self._require_reset("observe()")
        if agent not in self._number:
            raise KeyError(f"unknown agent {agent!r}; agents are {self._range()}")
        return self._observation[self._number[agent]].copy()

    def step(self, action: Any) -> None:
        """Take the selected agent's action; the world moves when all active agents have acted.

        Raises ValueError for an action outside the agent's space; then nothing has moved.
        """
        if not self.agents:
            self._require_reset("step()")
            raise RuntimeError("the episode is over: reset() must be called before step()")
        agent = self.agent_selection
        if self._left(agent):
            self._was_dead_step(action)
            return
        if action is None:
            raise ValueError(f"action of {agent} is None; only agents that have left may pass None")
        if not self._takes(action):
            reason = self._refused(agent, action)
            if reason is not None:
                raise ValueError(reason)
        self._action[0, self._number[agent]] = action
        if len(self._queue) > 1:
            self._cumulative_rewards[agent] = 0.0
            self._clear_rewards()
            self._queue.pop(0)
            self.agent_selection = self._queue[0]
            return
        observation, reward = self._env.advance(self._action)
        self._cumulative_rewards[agent] = 0.0
        self._observation = observation[0]
        over = int(self._env.age[0]) >= self._horizon
        for name in self.agents:
            i = self._number[name]
            self.rewards[name] = float(reward[0, i])
            self.terminations[name] = not bool(self._env.alive[0, i])
            self.truncations[name] = over and not self.terminations[name]
        self._accumulate_rewards()
        self.infos = self._infos(last=over or all(self.terminations.values()))
        if self.render_mode == "human":
            self.render()
        self._turn()
        self._deads_step_first()

    def _left(self, agent: str) -> bool:
        return self.terminations[agent] or self.truncations[agent]

    def _turn(self) -> None:
        """Line up the active agents; an update that nobody takes part in still needs one to act."""
        shape = (1, self.system.n_agents, *(self.system.action_space.shape or ()))
        self._action = np.zeros(shape, self.system.action_space.dtype)
        active = self._env.active()[0]
        present = [agent for agent in self.agents if not self._left(agent)]
        self._queue = [agent for agent in present if active[self._number[agent]]]
        self.agent_selection = (self._queue or present or self.agents)[0]
