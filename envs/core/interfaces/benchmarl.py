"""An id as a task of BenchMARL: our TorchRL environment, and what BenchMARL asks about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarl.environments.common import TaskClass
from torchrl.data import Composite
from torchrl.envs import EnvBase

from ..observation import is_discrete
from ..registry import make_system
from .torchrl import GROUP, SystemTorchEnv, make_torchrl_env


class SystemTask(TaskClass):
    """The id `name` with the parameters in `config`; critics are given the state."""

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], EnvBase]:
        """What makes `num_envs` worlds."""

        def make() -> SystemTorchEnv:
            own = {"seed": seed, "device": device, "with_state": True}
            return make_torchrl_env(self.name, n_worlds=num_envs, **own, **self.config)

        return make

    def supports_continuous_actions(self) -> bool:
        """Whether actions are numbers."""
        return not self.supports_discrete_actions()

    def supports_discrete_actions(self) -> bool:
        """Whether agents choose among n actions."""
        return is_discrete(make_system(self.name, **self.config))

    def has_render(self, env: EnvBase) -> bool:
        """BenchMARL takes no films of it; `invariantzoo rollout` does."""
        return False

    def max_steps(self, env: SystemTorchEnv) -> int:
        """Steps of an episode."""
        return env.system.horizon

    def group_map(self, env: SystemTorchEnv) -> dict[str, list[str]]:
        """The agents of the one group."""
        return env.group_map

    def observation_spec(self, env: EnvBase) -> Composite:
        """What agents see."""
        return _of_agents(env, "observation")

    def action_mask_spec(self, env: EnvBase) -> Composite | None:
        """Legal actions, where some may be illegal."""
        return _of_agents(env, "action_mask")

    def info_spec(self, env: EnvBase) -> Composite | None:
        """There are no infos: "metrics" are of worlds."""
        return None

    def state_spec(self, env: EnvBase) -> Composite:
        """The state of the world."""
        return Composite(state=env.full_observation_spec_unbatched["state"].clone())

    def action_spec(self, env: EnvBase) -> Composite:
        """What agents do."""
        return env.full_action_spec_unbatched

    @staticmethod
    def env_name() -> str:
        """Under which BenchMARL files its results."""
        return "invariantzoo"


def _of_agents(env: EnvBase, key: str) -> Any:
    """The spec of one thing that agents have, or None."""
    agents = env.full_observation_spec_unbatched[GROUP]
    if key not in agents.keys():
        return None
    return Composite({GROUP: Composite({key: agents[key].clone()}, shape=agents.shape)})


def make_task(id: str, **parameters: Any) -> SystemTask:
    """The task of an id; `parameters` are those of its system, and looked at now."""
    make_system(id, **parameters)
    return SystemTask(id, parameters)
