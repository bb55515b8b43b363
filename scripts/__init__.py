"""Multi-agent reinforcement learning on physical systems.

Agents are particles and lattice sites; each lowers a loss over invariant observations, and its
reward is minus that loss. `import invariantzoo` registers the ids with PettingZoo and Gymnasium
and does nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invariantzoo.envs.core.registry import ids, make_system, register, spec

if TYPE_CHECKING:
    from invariantzoo.envs.core.parallel import AecEnv, ParallelEnv
    from invariantzoo.training.vec_env import SystemVecEnv

__version__ = "0.1.0"
__all__ = ["env", "ids", "make_system", "parallel_env", "register", "spec", "vec_env"]


def parallel_env(id: str, *, render_mode: str | None = None, **parameters: Any) -> ParallelEnv:
    """One world as a PettingZoo ParallelEnv; parameters are those of the system."""
    from invariantzoo.envs.core.parallel import make_parallel

    return make_parallel(id, render_mode=render_mode, **parameters)


def env(id: str, *, render_mode: str | None = None, **parameters: Any) -> AecEnv:
    """One world as a PettingZoo AECEnv; agents act in the order of the system's own law."""
    from invariantzoo.envs.core.parallel import make_aec

    return make_aec(id, render_mode=render_mode, **parameters)


def vec_env(
    id: str,
    *,
    n_worlds: int = 1,
    seed: int | None = None,
    render_mode: str | None = None,
    **parameters: Any,
) -> SystemVecEnv:
    """Many worlds as a Stable-Baselines3 VecEnv with num_envs = n_worlds * n_agents."""
    from invariantzoo.training.vec_env import make_vec_env

    return make_vec_env(id, n_worlds=n_worlds, seed=seed, render_mode=render_mode, **parameters)
