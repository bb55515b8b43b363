"""Gymnasium's two doors: `make_vec` for every id, `make` for ids with a single controller."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ..given_state import require_options
from ..observation import observation_space
from ..registry import make_system
from ..system import System
from ..validation import nearest, require_count, require_shape
from ..vector import Step, VectorEnv

AUTORESET_MODES = {
    "same_step": AutoresetMode.SAME_STEP,
    "next_step": AutoresetMode.NEXT_STEP,
    "disabled": AutoresetMode.DISABLED,
}


class SystemVectorEnv(gymnasium.vector.VectorEnv):
    """Agent slots as sub-environments: slot = world * n_agents + agent.

    All slots of a world end together: `terminated` where the agent had left, else `truncated`. An
    agent that has left earlier shows a constant observation and reward 0 until then.
    autoreset_mode: what follows an end, as Gymnasium means it. "same_step": the observation is the
    next episode's, and infos hold `final_obs` and `final_info`; "next_step": the next step starts
    the next episode, whatever the action, with reward 0; "disabled": worlds that have ended wait
    for `reset(options={"reset_mask": flags})`. Infos hold the episode's metrics by name where it
    ended: `infos["metrics"]`, in "same_step" `infos["final_info"]["metrics"]`. Where actions may be
    illegal, infos hold `action_mask` [num_envs, n], 1 for what is legal next.
    """

    _picture: _Picture | None = None  # Gymnasium closes what could not be made

    def __init__(
        self,
        system: System,
        num_envs: int,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = "same_step",
    ) -> None:
        n = system.n_agents
        require_count("num_envs", num_envs)
        if num_envs % n:
            raise ValueError(
                f"num_envs={num_envs!r} must be a multiple of the {n} agents of a world"
            )
        self._mode = _autoreset_mode(autoreset_mode)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = {
            "autoreset_mode": self._mode,
            "render_modes": ["rgb_array"],
            "render_fps": 20,
        }
        self.single_observation_space = observation_space(system)
        self.single_action_space = system.action_space
        self._same_step = self._mode is AutoresetMode.SAME_STEP
        self._env = VectorEnv(system, num_envs // n, autoreset=self._same_step)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = np.zeros(num_envs // n, bool)
        self._picture = _Picture(system, self._env, render_mode)
        of_agent = self.single_action_space.shape or ()
        self._shape = (num_envs, *of_agent)
        self._world_shape = (num_envs // n, n, *of_agent)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start all worlds anew; `options={"reset_mask": flags}`, [num_envs] bool, only some.

        `options={"state": {name: array [worlds that start, ...]}}` starts from these fields of the
        state, as `VectorEnv.reset` says.
        Raises ValueError for a mask of another form, or one that takes a part of a world.
        """
        worlds = None
        require_options(options)
        if options and options.get("reset_mask") is not None:
            if seed is not None:
                raise ValueError(f"seed={seed!r} resets all worlds: leave out reset_mask")
            self._env.require_reset("reset() with a reset_mask")
            worlds = self._masked_worlds(options["reset_mask"])
        if seed is not None:
            if not isinstance(seed, int | np.integer):
                raise ValueError(
                    f"seed={seed!r} must be one whole number: worlds draw their own streams from it"
                )
        observation = self._env.reset(seed, worlds=worlds, options=options)
        super().reset(seed=None if seed is None else int(seed))
        self._ended[slice(None) if worlds is None else worlds] = False
        return observation.reshape(self.num_envs, -1), self._masks()

    def action_masks(self) -> np.ndarray:
        """Flags [num_envs, n] of the legal discrete actions; ValueError for continuous ones."""
        return self._env.legal_actions().reshape(self.num_envs, -1)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance all worlds.

        Raises ValueError for actions of another shape or outside their space, and RuntimeError if
        "disabled" worlds that have ended were not reset.
        """
        actions = np.asarray(actions)
        if actions.shape != self._shape:
            require_shape(actions, self._shape)
        actions = actions.reshape(self._world_shape)
        if self._same_step:
            out = self._env.step(actions)
        else:
            if self._mode is AutoresetMode.DISABLED and self._ended.any():
                slots = np.flatnonzero(self._slots(self._ended)).tolist()
                raise RuntimeError(
                    f"episodes of slots {slots} have ended: call reset(options={{'reset_mask': "
                    "flags}) first"
                )
            out = self._env.step(actions, restart=self._ended)
            self._ended = out.done
        infos = self._masks()
        terminated, truncated = out.terminated, out.truncated
        if out.final_observation is not None:
            terminated = terminated & out.done[:, None]
            infos |= self._last_infos(out, out.final_observation)
        elif self._env.may_leave:
            terminated = np.zeros_like(terminated)
        return (
            out.observation.reshape(self.num_envs, -1),
            out.reward.reshape(-1),
            terminated.reshape(-1),
            truncated.reshape(-1),
            infos,
        )

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A frame [height, width, 3] uint8 for every slot; those of a world share it."""
        if self.render_mode is None:
            return None
        assert self._picture is not None
        frames = self._picture.frames()
        return tuple(frame for frame in frames for _ in range(self._env.n_agents))

    def close_extras(self, **kwargs: Any) -> None:
        """Close the picture."""
        if self._picture is not None:
            self._picture.close()

    def _masks(self) -> dict[str, Any]:
        """The legal actions of all slots as Gymnasium lays infos out; {} where all are."""
        if not self._env.may_be_illegal:
            return {}
        known = np.ones(self.num_envs, bool)
        return {"action_mask": self.action_masks().astype(np.int8), "_action_mask": known}

    def _last_infos(self, out: Step, final: np.ndarray) -> dict[str, Any]:
        """Infos of a step in which worlds ended, as Gymnasium lays them out."""
        ended = self._slots(out.done)
        metrics: dict[str, Any] = {}
        for name, value in out.metrics.items():
            metrics[name] = np.where(ended, self._slots(value), 0.0)
            metrics[f"_{name}"] = ended.copy()
        infos: dict[str, Any] = {"metrics": metrics, "_metrics": ended.copy()}
        if not self._same_step:
            return infos
        final_obs = np.empty(self.num_envs, object)
        rows = final.reshape(self.num_envs, -1)
        for slot in np.flatnonzero(ended):
            final_obs[slot] = rows[slot].copy()
        return {
            "final_obs": final_obs,
            "_final_obs": ended.copy(),
            "final_info": {**metrics, **infos},
            "_final_info": ended,
        }

    def _slots(self, by_world: np.ndarray) -> np.ndarray:
        """What is known of each world, for each of its slots."""
        return by_world.repeat(self._env.n_agents)

    def _masked_worlds(self, mask: Any) -> np.ndarray:
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (self.num_envs,):
            kind = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask)
            raise ValueError(f"reset_mask is {kind}; it must be an array of {self.num_envs} bools")
        if not mask.any():
            raise ValueError("reset_mask is False everywhere; one world at least must be reset")
        n = self._env.n_agents
        taken = mask.reshape(-1, n).sum(1)
        for world in np.flatnonzero((taken > 0) & (taken < n)).tolist():
            raise ValueError(
                f"reset_mask takes a part of slots {world * n} to {world * n + n - 1}, which are "
                "one world; reset all of them or none"
            )
        return np.asarray(taken == n)


class SystemEnv(gymnasium.Env[np.ndarray, Any]):
    """A system with one agent as a Gymnasium environment."""

    def __init__(self, system: System, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        self.observation_space = observation_space(system)
        self.action_space = system.action_space
        self._env = VectorEnv(system, 1, autoreset=False)
        self._picture = _Picture(system, self._env, render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode.

        options: `{"world": i}` runs world i of a batch with the same seed; `{"state": {name:
        array}}` starts from these fields of the state, as `VectorEnv.reset` says.
        """
        observation = self._env.reset(seed, options=options)[0, 0]
        super().reset(seed=None if seed is None else int(seed))
        return observation, self._mask()

    def action_masks(self) -> np.ndarray:
        """Flags [n] of the legal discrete actions; ValueError for continuous ones."""
        return self._env.legal_actions()[0, 0]

    def _mask(self) -> dict[str, Any]:
        """The legal actions as an info; {} where all are."""
        if not self._env.may_be_illegal:
            return {}
        return {"action_mask": self.action_masks().astype(np.int8)}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one step; the last infos of an episode hold its `metrics`."""
        action = np.asarray(action)
        require_shape(action, self.action_space.shape or ())
        out = self._env.step(action[None, None])
        info = self._mask()
        if out.done[0]:
            info["metrics"] = {name: float(value[0]) for name, value in out.metrics.items()}
        return (
            out.observation[0, 0],
            float(out.reward[0, 0]),
            bool(out.terminated[0, 0]),
            bool(out.truncated[0, 0]),
            info,
        )

    # Gymnasium declares one generic type for all that a picture may be.
    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """A frame [height, width, 3] uint8."""
        return None if self.render_mode is None else self._picture.frames()[0]

    def close(self) -> None:
        """Close the picture."""
        self._picture.close()


class _Picture:
    """Frames of the worlds of an environment."""

    def __init__(self, system: System, env: VectorEnv, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r} must be None or 'rgb_array'")
        self._system, self._env = system, env
        self._painter: Any = None

    def frames(self) -> list[np.ndarray]:
        """One of every world, each [height, width, 3] uint8."""
        self._env.require_reset("render()")
        if self._painter is None:
            from ..rendering.painter import Painter

            self._painter = Painter()
        state = self._env.tensors
        frames = []
        for world in range(self._env.n_worlds):
            one_world = type(state)(*(array[world : world + 1] for array in state))
            scene = self._system.scene(one_world)
            if scene is None:
                raise ValueError(f"{type(self._system).__name__} has no picture")
            frames.append(self._painter.draw(scene))
        return frames

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_painter": None}


def make_vector(
    num_envs: int,
    system_id: str,
    render_mode: str | None = None,
    autoreset_mode: str | AutoresetMode = "same_step",
    **parameters: Any,
) -> SystemVectorEnv:
    """Gymnasium's vector environment of an id."""
    system = make_system(system_id, **parameters)
    return SystemVectorEnv(system, num_envs, render_mode, autoreset_mode)


def make_single(system_id: str, render_mode: str | None = None, **parameters: Any) -> SystemEnv:
    """Gymnasium's environment of an id with a single controller."""
    system = make_system(system_id, **parameters)
    if system.n_agents != 1:
        raise ValueError(
            f"{system_id} has {system.n_agents} agents; use gymnasium.make_vec or "
            "invariantzoo.parallel_env (make_vec without vectorization_mode: 'sync' and 'async' "
            "are for environments of one agent)"
        )
    return SystemEnv(system, render_mode)


def _autoreset_mode(given: str | AutoresetMode) -> AutoresetMode:
    """A mode from itself, its name here or its value in Gymnasium."""
    if isinstance(given, AutoresetMode):
        return given
    for name, mode in AUTORESET_MODES.items():
        if given in (name, mode.name, mode.value):
            return mode
    hint = nearest(given, AUTORESET_MODES) if isinstance(given, str) else ""
    allowed = ", ".join(AUTORESET_MODES)
    raise ValueError(f"autoreset_mode={given!r} must be one of {allowed}{hint}")
