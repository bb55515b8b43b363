"""Many worlds as arrays: the time limit, automatic reset, seeds, and reward = -loss.

Every other interface is a thin face of `VectorEnv`. It is the only thing here that holds state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from . import renamed
from .given_state import given_state
from .kernel import Episode
from .kernels import reductions
from .memory import require_memory
from .observation import flatten, is_discrete, observation_limits
from .rng import INITIAL, Rng, fresh_seed
from .seeds import require_seed
from .system import System, require_system
from .types import State
from .validation import require_choice, require_count, require_shape, shown

_MOST_WORLDS = 2**32  # indices that random numbers tell apart
_SAVED = ("world", "clock", "age", "totals")  # of an episode, beside its seed
ILLEGAL = "illegal_actions"  # among metrics
_PRECISIONS = (np.dtype(np.float32), np.dtype(np.float64))  # of observations
_WORTH_A_LOOK = 2**22  # bytes of observations above which the size of a state is looked up


class Step(NamedTuple):
    """What a step of all worlds gives.

    observation [worlds, agents, size]: of the next episode where `done`.
    reward [worlds, agents]; terminated, truncated [worlds, agents]; done [worlds].
    final_observation: as `observation`, of the ended episode where `done`; None if no world ended.
    metrics: name -> [worlds], over the ended episode where `done`; empty if no world ended.
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    done: np.ndarray
    final_observation: np.ndarray | None
    metrics: dict[str, np.ndarray]


class VectorEnv:
    """`n_worlds` worlds of one system, stepped together.

    World i is the world (seed, first_world + i): bit for bit the one that runs alone under that
    index, at any batch size. `kernel=False` runs the torch form even where a kernel exists.
    dtype: of observations, np.float32 or np.float64.
    """

    def __init__(
        self,
        system: System,
        n_worlds: int = 1,
        *,
        seed: int | None = None,
        first_world: int = 0,
        autoreset: bool = True,
        kernel: bool = True,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        require_system(system)
        require_count("n_worlds", n_worlds)
        require_memory_of(system, n_worlds)
        require_count("first_world", first_world, 0, _MOST_WORLDS - n_worlds)
        self.system = system
        self.n_worlds = n_worlds
        self.n_agents = system.n_agents
        self.autoreset = autoreset
        self._wants_kernel = kernel
        self._dtype = np.dtype(dtype)
        if self._dtype not in _PRECISIONS:
            raise ValueError(f"dtype={shown(dtype)} must be np.float32 or np.float64")
        low, high = observation_limits(system)
        self._absent = np.clip(np.float32(0), low, high)
        self._shape = (n_worlds, system.n_agents, len(low))
        self._discrete = is_discrete(system)
        space = system.action_space
        if not _is_usual(space):
            raise ValueError(
                f"{type(system).__name__}.action_space is {space}; it must be Box(-1, 1, (size,)) "
                "or Discrete(n)"
            )
        self._action_shape = (n_worlds, system.n_agents, *(space.shape or ()))
        self._action_types = (np.int64,) if self._discrete else (np.float32, np.float64)
        self._n_actions = int(getattr(space, "n", 0))
        codes = [reductions.CODES[how] for how in system.reductions.values()]
        self._episode = Episode(
            seed=np.zeros(1, np.uint64),
            world=np.arange(first_world, first_world + n_worlds),
            clock=np.zeros(n_worlds, np.int64),
            age=np.zeros(n_worlds, np.int64),
            reward=np.empty((n_worlds, system.n_agents)),
            metric=np.zeros((n_worlds, len(codes))),
            totals=np.zeros((n_worlds, len(codes))),
            reduction=np.array(codes, np.int64),
            warm_up=np.array([system.warm_up]),
        )
        self._none_terminated = np.zeros((n_worlds, system.n_agents), bool)
        self._kernel = system.kernel(n_worlds) if kernel else None
        self._alive = np.ones((n_worlds, system.n_agents), bool)
        self._acted: np.ndarray | None = None
        self._leaves = False
        self._masks = False
        self._illegal = np.zeros(n_worlds, np.int64)
        self._state: State = None
        self._run: Callable[[np.ndarray, np.ndarray], int] | None = None
        self._seed(fresh_seed() if seed is None else seed)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of observations."""
        return self._dtype

    @property
    def state(self) -> State:
        """The system's state: a NamedTuple of numpy arrays [worlds, ...]; do not write to it."""
        return self._state

    @property
    def tensors(self) -> State:
        """The same as torch tensors that share its memory; RuntimeError before the first reset."""
        self.require_reset("its state can be read")
        return _as_tensors(self._state)

    def require_reset(self, what: str) -> None:
        """Raise RuntimeError before the first reset; `what` is what was asked for."""
        if self._state is None:
            raise RuntimeError(f"reset() must be called before {what}")

    def use(self, system: System) -> np.ndarray | None:
        """Go on in the same worlds under other parameters; observations, or None before a reset.

        system: of the same class, with the same agents, spaces, metrics and length of an episode.
        What its state holds stays as it is until the next episode starts.
        """
        self.system = system
        self._kernel = system.kernel(self.n_worlds) if self._wants_kernel else None
        self._run = None
        if self._state is None:
            return None
        self._bind()
        return self.observe()

    def adjust(self, name: str, clicks: int) -> None:
        """Change one of the system's live parameters in all worlds, by so many of its steps.

        Observations follow from the next step on. Raises KeyError for an unknown name.
        """
        self.require_reset("adjust()")
        parameter = self.system.live_parameters[name]
        value = getattr(self._state, name)
        np.clip(value + clicks * parameter.step, parameter.low, parameter.high, out=value)
        for array, new in zip(self._state, self.system.adjusted(self.tensors), strict=True):
            array[:] = new.numpy()

    def press(self, agent: int) -> None:
        """Press an agent of the first world, where the system makes something of it."""
        pressed = self.system.pressed(self.tensors, agent)
        if pressed is not None:
            for array, value in zip(self._state, pressed, strict=True):
                array[:] = value.numpy()
            self.observe()  # kernels remember neighbours

    def turn(self, name: str, clicks: int) -> None:
        """The former name of `adjust`."""
        renamed.warn("VectorEnv.turn", "VectorEnv.adjust")
        self.adjust(name, clicks)

    @property
    def age(self) -> np.ndarray:
        """Steps that each world has made in its episode [worlds]; it changes with every step."""
        return self._episode.age

    @property
    def alive(self) -> np.ndarray:
        """Who has not left [worlds, agents]; it changes with every step."""
        return self._alive

    @property
    def acted(self) -> np.ndarray:
        """Whose action counted in the last step [worlds, agents]."""
        return ~self._none_terminated if self._acted is None else self._acted

    @property
    def may_leave(self) -> bool:
        """Whether agents of this system can leave for good; known after the first reset."""
        return self._leaves

    @property
    def all_act(self) -> bool:
        """Whether everybody's action counted in the last step because it always does."""
        return self._acted is None

    def active(self) -> np.ndarray:
        """Who acts in the next step [worlds, agents], fresh flags."""
        self.require_reset("active()")
        flags = self.system.active(self.tensors) if self.system.one_at_a_time else None
        return self._alive.copy() if flags is None else self._alive & flags.numpy()

    def action_mask(self) -> np.ndarray | None:
        """Legal discrete actions [worlds, agents, n], or None if all are."""
        self.require_reset("action_mask()")
        mask = self.system.action_mask(self.tensors)
        return None if mask is None else mask.numpy()

    def legal_actions(self) -> np.ndarray:
        """Flags [worlds, agents, n] of the discrete actions that can be chosen, fresh ones.

        As `action_mask`, with all of them where the system has no masks; and where a mask leaves an
        agent nothing, whatever it does is as good. ValueError for continuous actions.
        """
        if not self._discrete:
            raise ValueError(f"{type(self.system).__name__} has continuous actions, without masks")
        mask = self.action_mask()
        if mask is None:
            return np.ones((self.n_worlds, self.n_agents, self._n_actions), bool)
        return mask | ~mask.any(-1, keepdims=True)

    @property
    def may_be_illegal(self) -> bool:
        """Whether this system has illegal actions; known after the first reset."""
        return self._masks

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Of an episode: the system's, and "illegal_actions" where there are such actions."""
        return (*self.system.reductions, *([ILLEGAL] if self._masks else []))

    def reset(
        self,
        seed: int | None = None,
        *,
        worlds: np.ndarray | None = None,
        options: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Start new episodes, of all worlds or of those in `worlds` (indices or flags).

        Returns the observations of all worlds [worlds, agents, size]. With a seed, all worlds start
        anew as if just made with it.
        options: `{"state": {name: array}}` starts from arrays [worlds that start, ...] in place of
            those fields of the state that are named; the others are drawn as ever. A world alone
            may leave out the first axis. What follows from a field must be given with it.
            `{"world": i}` lets a world alone `become` world i of a batch.
        Raises ValueError for worlds that are not there, and for a field, shape or value that the
        state cannot have; then nothing has changed.
        """
        if seed is not None:
            if worlds is not None:
                raise ValueError(f"seed={seed!r} resets all worlds; leave out `worlds`")
            require_seed("seed", seed)
        chosen = np.arange(self.n_worlds) if worlds is None else _indices(worlds, self.n_worlds)
        given = given_state(self.system, options, len(chosen))
        if self._state is None and len(chosen) < self.n_worlds:
            raise ValueError("the first reset must be of all worlds: leave out `worlds`")
        if options and "world" in options:
            self.become(options["world"], seed)
        elif seed is not None:
            self._seed(seed)
        if len(chosen):
            self._start(chosen, given)
        return self.observe()

    def become(self, world: int, seed: int | None = None) -> None:
        """Be the world of another index, of a batch of one, with another seed if one is given.

        It begins with the next reset.
        """
        if self.n_worlds != 1:
            raise ValueError(
                f"world={world!r}: only a world alone can become another, not one of "
                f"{self.n_worlds}"
            )
        require_count("world", world, 0, _MOST_WORLDS - 1)
        if seed is not None:
            self._seed(seed)
        self._episode.world[:] = world

    def observe(self) -> np.ndarray:
        """Observations of all worlds [worlds, agents, size], freshly made."""
        self.require_reset("observe()")
        observation = np.empty(self._shape, self._dtype)
        self._observe(np.arange(self.n_worlds), observation)
        return observation

    def step(
        self, action: np.ndarray, *, restart: np.ndarray | None = None, unbounded: bool = False
    ) -> Step:
        """Advance all worlds by one step.

        action: [worlds, agents, size] in [-1, 1], or [worlds, agents] whole numbers. Rows of agents
        that are gone or not active are ignored.
        restart: flags [worlds]; these start a new episode instead. Their actions are ignored, their
        rewards are 0 and nothing ends there; only without automatic reset.
        unbounded: actions may lie outside the box, as those of a system's `state_policies` do.
        Raises ValueError for a wrong shape, NaN, or an action outside its space; then nothing has
        moved.
        """
        if self._state is None:
            self.require_reset("step()")
        if restart is not None and restart.any():
            observation, reward = self._advance_others(action, np.flatnonzero(restart), unbounded)
        else:
            observation, reward = self.advance(action, unbounded)
        truncated_worlds = self._episode.age >= self.system.horizon
        if self._leaves:
            terminated = ~self._alive
            done = truncated_worlds | terminated.all(1)
            truncated = truncated_worlds[:, None] & self._alive
        else:
            terminated = self._none_terminated.copy()
            done = truncated_worlds
            truncated = np.repeat(truncated_worlds[:, None], self.n_agents, 1)
        final, metrics = None, {}
        if done.any():
            metrics = self.episode_metrics()
            if self.autoreset:
                final = observation.copy()
                chosen = np.flatnonzero(done)
                self._start(chosen)
                self._observe(chosen, observation)
            else:
                final = observation
        return Step(observation, reward, terminated, truncated, done, final, metrics)

    def advance(self, action: np.ndarray, unbounded: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The bare step: observation and reward, without time limit and reset."""
        system, alive = self.system, self._alive
        if system.one_at_a_time or self._leaves:
            self._acted = self.active()
            alive = self._alive.copy()
        observation = np.empty(self._shape, self._dtype)
        action = self._plain(action)
        acted = self._acted
        if acted is not None and action.shape == self._action_shape and not acted.all():
            rows = acted.reshape(acted.shape + (1,) * (action.ndim - 2))
            action = np.where(rows, action, action.dtype.type(0))
        legal = self.legal_actions() if self._masks else None  # of the state before the step
        self.run(action, observation, unbounded)
        if legal is not None:
            chosen = np.take_along_axis(legal, action.astype(np.int64)[..., None], -1)[..., 0]
            self._illegal += (~chosen & alive & (True if acted is None else acted)).sum(1)
        reward = self._episode.reward.copy()
        if self._leaves:
            if not alive.all():
                reward *= alive
                observation[~alive] = self._absent
            self._alive &= ~self._terminated()
        return observation, reward

    def _advance_others(
        self, action: np.ndarray, chosen: np.ndarray, unbounded: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `advance`, but the worlds `chosen` (indices) start a new episode instead of moving.

        All worlds move together, so these move too, after their start, and are put back there.
        """
        require_shape(action, self._action_shape)
        action = self._plain(action).copy()
        action[chosen] = 0
        first = np.empty(self._shape, self._dtype)
        rows = self._rows(chosen)
        self._start(chosen)
        self._observe(chosen, first)
        try:
            start = self._rows(chosen)
            observation, reward = self.advance(action, unbounded)
            rows = start
        finally:
            for array, values in zip(self._arrays(), rows, strict=True):
                array[chosen] = values
            self._observe(chosen, first)  # kernels remember neighbours
        observation[chosen] = first[chosen]
        reward[chosen] = 0
        return observation, reward

    def _arrays(self) -> tuple[np.ndarray, ...]:
        """All that changes from step to step, each [worlds, ...]."""
        return (
            *self._state,
            self._episode.clock,
            self._episode.age,
            self._episode.totals,
            self._alive,
            self._illegal,
        )

    def _rows(self, chosen: np.ndarray) -> list[np.ndarray]:
        return [array[chosen] for array in self._arrays()]

    def rollout(self, policy: str, steps: int, *, every: int) -> dict[str, np.ndarray]:
        """Make `steps` steps under a policy of `system.fused` without Python between them.

        Returns "loss" and the metrics, name -> [steps // every, worlds]; see `System.rollout`.
        Episodes go on past the time limit: when to reset is up to the caller.
        Raises ValueError for another policy, or unless `every` divides `steps`.
        """
        system = self.system
        self.require_reset("rollout()")
        require_choice("policy", policy, system.fused)
        require_count("steps", steps)
        require_count("every", every)
        if steps % every:
            raise ValueError(f"steps={steps} must be a multiple of every={every}")
        after, recorded = system.rollout(self.tensors, policy, steps, self.rng(0), every)
        for array, tensor in zip(self._state, after, strict=True):
            array[:] = tensor.numpy()
        records = {name: value.numpy() for name, value in recorded.items()}
        for m, (name, how) in enumerate(system.reductions.items()):
            self._reduce(m, how, records[name], every)
        self._episode.clock[:] += steps
        self._episode.age[:] += steps
        return records

    def _reduce(self, m: int, how: str, value: np.ndarray, every: int) -> None:
        """Add records [records, worlds] of one metric to the totals, save those of the warm-up."""
        ends = self._episode.age + every * np.arange(1, len(value) + 1)[:, None]
        counted = np.clip(ends - self.system.warm_up, 0, every)
        total = self._episode.totals[:, m]
        if how == "max":
            seen = np.where(counted > 0, value, -np.inf).max(0)
            total[:] = np.maximum(total, seen)
        elif how == "last":
            total[:] = np.where(counted[-1] > 0, value[-1], total)
        else:
            total += (counted * value).sum(0)

    def _plain(self, action: np.ndarray) -> np.ndarray:
        """As kernels and torch take it: one writable block of the usual numbers."""
        action = np.asarray(action)
        if action.flags.carray and action.dtype in self._action_types:
            return action
        if action.dtype.kind not in "biuf":
            raise ValueError(f"actions are {action.dtype.name}; they must be numbers")
        whole = self._discrete and action.dtype.kind in "biu"
        usual = action.dtype if action.dtype in self._action_types else np.float64
        return np.array(action, np.int64 if whole else usual, order="C")

    def run(
        self, action: np.ndarray, observation: np.ndarray, unbounded: bool = False
    ) -> np.ndarray:
        """The innermost step: fills `observation`, returns the rewards in a buffer of its own.

        Most compiled steps know the box of actions; what is outside it goes to the torch form then.
        """
        if action.shape != self._action_shape:
            require_shape(action, self._action_shape)
        if self._kernel is not None and not self._kernel.bounded:
            action = self._checked(action, unbounded)
            unbounded = False
        if self._run is not None and not unbounded:
            bad = self._run(action, observation)
            if bad >= 0:
                self._refuse(action, bad)
        else:
            self._advance_torch(self._checked(action, unbounded), observation)
            if self._kernel is not None:
                self._observe(np.arange(self.n_worlds), observation)  # kernels remember neighbours
        return self._episode.reward

    def episode_metrics(self) -> dict[str, np.ndarray]:
        """Metrics of the running episode, each [worlds], reduced as the system says.

        NaN in a world that is still warming up. "illegal_actions", where the system has masks, are
        choices that a mask forbade, of all agents in all steps.
        """
        self.require_reset("metrics")
        steps = self._episode.age - self.system.warm_up
        metrics = {}
        for m, (name, how) in enumerate(self.system.reductions.items()):
            value = self._episode.totals[:, m]
            value = value / np.maximum(steps, 1) if how == "mean" else value
            metrics[name] = np.where(steps > 0, value, np.nan)
        if self._masks:
            metrics[ILLEGAL] = self._illegal.astype(float)
        return metrics

    def save(self) -> dict[str, Any]:
        """Everything that `restore` needs: a dictionary of whole numbers and fresh arrays."""
        self.require_reset("save()")
        state = {f"state.{name}": array.copy() for name, array in self._state._asdict().items()}
        return {
            **state,
            "seed": int(self._episode.seed[0]),
            **{name: getattr(self._episode, name).copy() for name in _SAVED},
            "alive": self._alive.copy(),
            **({"illegal": self._illegal.copy()} if self._masks else {}),
        }

    def restore(self, saved: dict[str, Any]) -> np.ndarray:
        """Go back to what `save` returned, here or in another process; returns observations.

        Raises ValueError for what other worlds saved; then nothing has changed.
        """
        for name in ("world", "seed"):
            if name not in saved:
                raise ValueError(f"saved has no {name!r}: it is not what save() returned")
        if len(saved["world"]) != self.n_worlds:
            raise ValueError(f"saved with n_worlds={len(saved['world'])}, not {self.n_worlds}")
        if self._state is None:
            self.reset()
        names = self._state._fields
        mine = {f"state.{name}": array for name, array in zip(names, self._state, strict=True)}
        mine |= {name: getattr(self._episode, name) for name in _SAVED}
        mine["alive"] = self._alive
        if "illegal" in saved:  # no version before counted them
            mine["illegal"] = self._illegal
        for name, array in mine.items():  # all are looked at before one is changed
            if name not in saved:
                raise ValueError(f"saved has no {name!r}: another system saved it")
            if np.shape(saved[name]) != array.shape:
                raise ValueError(f"{name} has shape {np.shape(saved[name])}, not {array.shape}")
        require_seed("seed", saved["seed"])
        fields = [
            np.asarray(saved[f"state.{name}"], array.dtype)
            for name, array in zip(names, self._state, strict=True)
        ]
        self.system.require_state(type(self._state)(*map(torch.from_numpy, fields)))
        self._episode.seed[0] = np.uint64(int(saved["seed"]))
        for name, array in mine.items():
            array[:] = saved[name]
        return self.observe()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernel": None, "_run": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._kernel = self.system.kernel(self.n_worlds) if self._wants_kernel else None
        if self._state is not None:
            self._bind()
            self.observe()

    def _bind(self) -> None:
        if self._kernel is not None:
            self._run = self._kernel.bind(self._state, self._episode)

    def _seed(self, seed: int) -> None:
        require_seed("seed", seed)
        self._episode.seed[0] = np.uint64(int(seed))
        self._episode.clock[:] = 0

    def rng(self, purpose: int) -> Rng:
        """The generator of all worlds at their present clocks."""
        return Rng(
            int(self._episode.seed[0]),
            torch.from_numpy(self._episode.world),
            torch.from_numpy(self._episode.clock),
            purpose,
        )

    def _start(self, chosen: np.ndarray, given: dict[str, np.ndarray] | None = None) -> None:
        rng = Rng(
            int(self._episode.seed[0]),
            torch.from_numpy(self._episode.world[chosen]),
            torch.from_numpy(self._episode.clock[chosen]),
            INITIAL,
        )
        fresh: Iterable[np.ndarray]
        with torch.no_grad():
            fresh = [new.numpy() for new in self.system.initial(rng, len(chosen))]
        if self._state is None:
            kind = type(self.system.initial(Rng.single(0, 1), 1))
            self._state = kind(*(np.array(new, order="C") for new in fresh))
            self._bind()
        else:
            for array, new in zip(self._state, fresh, strict=True):
                array[chosen] = new
        if given:
            for name, rows in given.items():
                getattr(self._state, name)[chosen] = rows
            started = type(self._state)(*(torch.from_numpy(a[chosen]) for a in self._state))
            for array, new in zip(self._state, self.system.settled(started), strict=True):
                array[chosen] = new.numpy()
        self._episode.clock[chosen] += 1
        self._episode.age[chosen] = 0
        self._illegal[chosen] = 0
        reductions.start_totals(self._episode, chosen)
        terminated = self.system.terminated(self.tensors)
        self._leaves = terminated is not None
        self._masks = self._discrete and self.system.action_mask(self.tensors) is not None
        self._alive[chosen] = True if terminated is None else ~terminated.numpy()[chosen]

    def _terminated(self) -> np.ndarray:
        terminated = self.system.terminated(self.tensors)
        assert terminated is not None
        return terminated.numpy()

    def _observe(self, chosen: np.ndarray, observation: np.ndarray) -> None:
        if self._kernel is not None:
            self._kernel.observe(chosen, observation)
        else:
            restarted = type(self._state)(*(torch.from_numpy(a[chosen]) for a in self._state))
            with torch.no_grad():
                observation[chosen] = flatten(
                    self.system, self.system.invariants(restarted)
                ).numpy()
        if self._leaves:
            here = observation[chosen]
            here[~self._alive[chosen]] = self._absent
            observation[chosen] = here

    def _advance_torch(self, action: np.ndarray, observation: np.ndarray) -> None:
        system, state = self.system, self.tensors
        with torch.no_grad():
            # A copy: axes of length 1 may run backwards in what numpy calls contiguous.
            chosen = torch.from_numpy(action.copy())
            chosen = chosen.long() if self._discrete else chosen.double()
            after = system.transition(state, chosen, self.rng(0))
            loss = system.loss(state, chosen, after)
            metrics = system.metrics(state, chosen, after)
            self._require_scores(loss, metrics)
            self._episode.reward[:] = loss.numpy()
            for m, name in enumerate(system.reductions):
                self._episode.metric[:, m] = metrics[name].numpy()
            observation[:] = flatten(system, system.invariants(after)).numpy()
            # Copies first: a part of the next state may share memory with another part of this one.
            fresh = [
                new.numpy() if new is old else new.numpy().copy()
                for new, old in zip(after, state, strict=True)
            ]
        for array, new in zip(self._state, fresh, strict=True):
            array[:] = new
        reductions.accumulate_plainly(self._episode)

    def _require_scores(self, loss: torch.Tensor, metrics: dict[str, torch.Tensor]) -> None:
        """Raise ValueError for a loss or metrics of a system that would be taken for others."""
        name, shape = type(self.system).__name__, self._episode.reward.shape
        if loss.shape != shape:
            raise ValueError(
                f"{name}.loss has shape {tuple(loss.shape)}; it must be [worlds, agents], {shape}"
            )
        if metrics.keys() != self.system.reductions.keys():
            raise ValueError(
                f"{name}.metrics gives {_listed(metrics)}, but its reductions are those of "
                f"{_listed(self.system.reductions)}"
            )
        for key, value in metrics.items():
            if value.shape != shape[:1]:
                raise ValueError(
                    f"metric {key!r} of {name} has shape {tuple(value.shape)}; it must be [worlds],"
                    f" {shape[:1]}"
                )

    def _checked(self, action: np.ndarray, unbounded: bool) -> np.ndarray:
        action = np.asarray(action)
        if self._discrete:
            allowed = (action >= 0) & (action < self._n_actions) & (action == np.floor(action))
        else:
            limit = np.finfo(np.float64).max if unbounded else reductions.ACTION_LIMIT
            allowed = (np.abs(action) <= limit).all(-1)
        if not allowed.all():
            self._refuse(action, int(np.flatnonzero(~allowed.ravel())[0]), unbounded)
        return action

    def _refuse(self, action: np.ndarray, flat: int, unbounded: bool = False) -> None:
        world, agent = divmod(flat, self.n_agents)
        allowed = " and in [-1, 1]"
        if self._discrete:
            allowed = f" and whole numbers 0 to {self._n_actions - 1}"
        elif unbounded:
            allowed = ""
        raise ValueError(
            f"action of {self.system.agent_name}_{agent} in world {world} is "
            f"{action[world, agent].tolist()}; actions must be finite{allowed}"
        )


def require_memory_of(system: System, n_worlds: int) -> None:
    """Raise ValueError if the memory that is free does not hold `n_worlds` worlds for a step.

    Counted is what surely is needed: observations before and after, actions, rewards and flags of
    every agent, the state, and as much again to make it.
    """
    what = f"n_worlds={n_worlds} with {system.n_agents} agents each"
    width = sum(bound.width for bound in system.bounds.values())
    space = system.action_space
    action = 8 if is_discrete(system) else 4 * math.prod(space.shape or ())
    faces = n_worlds * system.n_agents * (2 * 4 * width + action + 8 + 4)
    require_memory(what, faces + n_worlds * system.world_bytes())
    if n_worlds > 1 and faces > _WORTH_A_LOOK:
        with torch.no_grad():
            state = system.initial(Rng.single(0, 1), 1)
        state_bytes = sum(array.numel() * array.element_size() for array in state)
        require_memory(what, faces + 2 * n_worlds * max(state_bytes, system.world_bytes()))


def _is_usual(space: Any) -> bool:
    """Whether actions are numbers in [-1, 1], or whole numbers from 0 on."""
    if isinstance(space, spaces.Discrete):
        return int(space.start) == 0
    box = isinstance(space, spaces.Box) and len(space.shape) == 1
    return box and bool((space.low == -1).all() and (space.high == 1).all())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _as_tensors(state: State) -> State:
    return type(state)(*map(torch.from_numpy, state))


def _indices(worlds: np.ndarray, n_worlds: int) -> np.ndarray:
    chosen = np.asarray(worlds)
    if chosen.dtype == bool:
        if chosen.shape != (n_worlds,):
            raise ValueError(
                f"worlds are flags of shape {chosen.shape}; they must be ({n_worlds},)"
            )
        return np.flatnonzero(chosen)
    whole = chosen.ndim == 1 and (chosen.dtype.kind in "iu" or not chosen.size)
    if not whole or not ((chosen >= 0) & (chosen < n_worlds)).all():
        allowed = f"flags, or indices between 0 and {n_worlds - 1}"
        raise ValueError(f"worlds={shown(worlds)} must be {allowed}")
    return chosen.astype(np.int64)
