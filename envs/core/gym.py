"""Gymnasium's two doors: `make_vec` for every id, `make` for ids with a single controller."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space

from .registry import make_system
from .seeds import require_seed
from .system import System, observation_space
from .vector import VectorEnv


class SystemVectorEnv(gymnasium.vector.VectorEnv):
    """Agent slots as sub-environments: slot = world * n_agents + agent. SAME_STEP autoreset.

    An agent that has left shows a constant observation and reward 0 until its world ends; it is
    `terminated` in the step in which it leaves and again, with its world, at the end.
    """

    def __init__(self, system: System, num_envs: int, render_mode: str | None = None) -> None:
        n = system.n_agents
        if num_envs < 1 or num_envs % n:
            raise ValueError(
                f"num_envs={num_envs!r} must be a multiple of the {n} agents of a world"
            )
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = {
            "autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP,
            "render_modes": ["rgb_array"],
            "render_fps": 20,
        }
        self.single_observation_space = observation_space(system)
        self.single_action_space = system.action_space
        self._env = VectorEnv(system, num_envs // n)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._picture = _Picture(system, self._env, render_mode)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start all worlds anew; `options={"reset_mask": flags}` only some."""
        if isinstance(seed, list):
            raise ValueError("seed must be one whole number: worlds draw their own streams from it")
        worlds = None
        if options and options.get("reset_mask") is not None:
            flags = np.asarray(options["reset_mask"]).reshape(self._env.n_worlds, -1)
            worlds = np.asarray(flags.any(1))
        observation = self._env.reset(seed, worlds=worlds)
        return observation.reshape(self.num_envs, -1), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance all worlds; at an episode's end infos hold `final_obs` and `final_info`."""
        shape = (self._env.n_worlds, self._env.n_agents, *(self.single_action_space.shape or ()))
        out = self._env.step(np.asarray(actions).reshape(shape))
        infos: dict[str, Any] = {}
        terminated, truncated = out.terminated, out.truncated
        if out.final_observation is not None:
            slots = np.repeat(out.done, self._env.n_agents)
            final = np.empty(self.num_envs, object)
            rows = out.final_observation.reshape(self.num_envs, -1)
            for slot in np.flatnonzero(slots):
                final[slot] = rows[slot].copy()
            metrics: dict[str, Any] = {}
            for name, value in out.metrics.items():
                metrics[name] = np.repeat(value, self._env.n_agents)
                metrics[f"_{name}"] = slots
            infos = {
                "final_obs": final,
                "_final_obs": slots,
                "final_info": metrics,
                "_final_info": slots.copy(),
            }
        return (
            out.observation.reshape(self.num_envs, -1),
            out.reward.reshape(-1),
            terminated.reshape(-1),
            truncated.reshape(-1),
            infos,
        )

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A frame of the first world."""
        frame = self._picture.frame()
        return None if frame is None else (frame,)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the picture."""
        self._picture.close()


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
        """Start an episode."""
        if seed is not None:
            require_seed("seed", seed)
        super().reset(seed=None if seed is None else int(seed))
        return self._env.reset(seed)[0, 0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one step."""
        out = self._env.step(np.asarray(action)[None, None])
        info: dict[str, Any] = {}
        if out.done[0]:
            info["metrics"] = {name: float(value[0]) for name, value in out.metrics.items()}
        return (
            out.observation[0, 0],
            float(out.reward[0, 0]),
            bool(out.terminated[0, 0]),
            bool(out.truncated[0, 0]),
            info,
        )

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """A frame [height, width, 3] uint8."""
        return self._picture.frame()

    def close(self) -> None:
        """Close the picture."""
        self._picture.close()


class _Picture:
    """Frames of the first world of an environment."""

    def __init__(self, system: System, env: VectorEnv, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r} must be None or 'rgb_array'")
        self._system, self._env, self._render_mode = system, env, render_mode
        self._painter: Any = None

    def frame(self) -> np.ndarray | None:
        if self._render_mode is None:
            return None
        if self._painter is None:
            from .render import Painter

            self._painter = Painter()
        scene = self._system.scene(self._env.tensors)
        return None if scene is None else self._painter.draw(scene)

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()
            self._painter = None


def make_vector(
    num_envs: int, system_id: str, render_mode: str | None = None, **parameters: Any
) -> SystemVectorEnv:
    """Gymnasium's vector environment of an id."""
    return SystemVectorEnv(make_system(system_id, **parameters), num_envs, render_mode)


def make_single(system_id: str, render_mode: str | None = None, **parameters: Any) -> SystemEnv:
    """Gymnasium's environment of an id with a single controller."""
    system = make_system(system_id, **parameters)
    if system.n_agents != 1:
        raise ValueError(
            f"{system_id} has {system.n_agents} agents; use gymnasium.make_vec or "
            "invariantzoo.parallel_env"
        )
    return SystemEnv(system, render_mode)
