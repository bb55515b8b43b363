"""Multi-agent reinforcement learning on physical systems.

Agents are particles and lattice sites; each lowers a loss over invariant observations, and its
reward is minus that loss. `import invariantzoo` registers the ids with PettingZoo and Gymnasium
and does nothing else: the names below are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from invariantzoo import signals

signals.end_at_once_while_importing()

from invariantzoo.envs.core import renamed  # noqa: E402 - what takes long comes after
from invariantzoo.envs.core.registry import ids, make_system, register, spec  # noqa: E402

if TYPE_CHECKING:
    import torch

    from invariantzoo.agents.baselines.guard import Guarded
    from invariantzoo.agents.player import Player
    from invariantzoo.agents.policy import make_policy, policy_names
    from invariantzoo.envs.core.conformance.check import check_parallel
    from invariantzoo.envs.core.interfaces.benchmarl import SystemTask
    from invariantzoo.envs.core.interfaces.pettingzoo import AecEnv, ParallelEnv
    from invariantzoo.envs.core.interfaces.stable_baselines3 import SystemVecEnv
    from invariantzoo.envs.core.interfaces.torchrl import SystemTorchEnv
    from invariantzoo.envs.core.observation import observation_names
    from invariantzoo.envs.core.physics.lattice import Torus
    from invariantzoo.envs.core.physics.network_form import (
        dirac_network,
        klein_gordon_network,
        klein_gordon_weights,
    )
    from invariantzoo.envs.core.physics.updates import Update
    from invariantzoo.envs.core.rng import Rng
    from invariantzoo.envs.core.scene import Plot, Scene
    from invariantzoo.envs.core.system import System
    from invariantzoo.envs.core.types import Bound, Range, State, StatePolicy, Symmetry
    from invariantzoo.envs.core.validation import require_count, require_number, require_range
    from invariantzoo.envs.core.vector import VectorEnv
    from invariantzoo.envs.dirac.wilson import (
        cayley_step,
        dirac_frequencies,
        dirac_generator,
        gauge_components,
    )
    from invariantzoo.envs.molecules.ase import LossCalculator
    from invariantzoo.envs.molecules.files import load_model, save_model
    from invariantzoo.envs.molecules.forces import forces_of_frame
    from invariantzoo.envs.molecules.system import LossSystem
    from invariantzoo.training.geometry.diffusion import load_diffusion
    from invariantzoo.training.geometry.estimate import estimate_metric
    from invariantzoo.training.geometry.fields import MetricTable
    from invariantzoo.training.geometry.geodesics import geodesic
    from invariantzoo.training.geometry.latent_slice import LatentSlice
    from invariantzoo.training.geometry.metric import load_metric
    from invariantzoo.training.geometry.power_law import fit_power_law
    from invariantzoo.training.geometry.regimes import estimate_alpha, regime, sphericity
    from invariantzoo.training.geometry.tangent import tangent_map
    from invariantzoo.training.optim.cgd import CGD
    from invariantzoo.training.rl.buffers import MaskedRolloutBuffer
    from invariantzoo.training.rl.criticality_callback import CriticalityCallback
    from invariantzoo.training.rl.regime_callback import RegimeCallback
    from invariantzoo.training.rl.score import evaluate, summarise
    from invariantzoo.training.runs.run import load_run, train

__version__ = "1.1.0"

_MODULES = {  # name -> the module that it is imported from when it is used
    "System": "envs.core.system",
    "State": "envs.core.types",
    "Range": "envs.core.types",
    "Bound": "envs.core.types",
    "StatePolicy": "envs.core.types",
    "Symmetry": "envs.core.types",
    "Scene": "envs.core.scene",
    "Plot": "envs.core.scene",
    "Rng": "envs.core.rng",
    "VectorEnv": "envs.core.vector",
    "Torus": "envs.core.physics.lattice",
    "Update": "envs.core.physics.updates",
    "require_count": "envs.core.validation",
    "require_number": "envs.core.validation",
    "require_range": "envs.core.validation",
    "observation_names": "envs.core.observation",
    "check_parallel": "envs.core.conformance.check",
    "Guarded": "agents.baselines.guard",
    "Player": "agents.player",
    "make_policy": "agents.policy",
    "policy_names": "agents.policy",
    "LossSystem": "envs.molecules.system",
    "LossCalculator": "envs.molecules.ase",
    "load_model": "envs.molecules.files",
    "save_model": "envs.molecules.files",
    "forces_of_frame": "envs.molecules.forces",
    "CGD": "training.optim.cgd",
    "MaskedRolloutBuffer": "training.rl.buffers",
    "CriticalityCallback": "training.rl.criticality_callback",
    "RegimeCallback": "training.rl.regime_callback",
    "load_diffusion": "training.geometry.diffusion",
    "MetricTable": "training.geometry.fields",
    "geodesic": "training.geometry.geodesics",
    "LatentSlice": "training.geometry.latent_slice",
    "estimate_metric": "training.geometry.estimate",
    "load_metric": "training.geometry.metric",
    "klein_gordon_network": "envs.core.physics.network_form",
    "klein_gordon_weights": "envs.core.physics.network_form",
    "dirac_network": "envs.core.physics.network_form",
    "dirac_generator": "envs.dirac.wilson",
    "dirac_frequencies": "envs.dirac.wilson",
    "cayley_step": "envs.dirac.wilson",
    "gauge_components": "envs.dirac.wilson",
    "fit_power_law": "training.geometry.power_law",
    "tangent_map": "training.geometry.tangent",
    "estimate_alpha": "training.geometry.regimes",
    "regime": "training.geometry.regimes",
    "sphericity": "training.geometry.regimes",
    "train": "training.runs.run",
    "load_run": "training.runs.run",
    "evaluate": "training.rl.score",
    "summarise": "training.rl.score",
}
__all__ = [
    "CGD",
    "Bound",
    "CriticalityCallback",
    "Guarded",
    "LatentSlice",
    "LossCalculator",
    "LossSystem",
    "MaskedRolloutBuffer",
    "MetricTable",
    "Player",
    "Plot",
    "Range",
    "RegimeCallback",
    "Rng",
    "Scene",
    "State",
    "StatePolicy",
    "Symmetry",
    "System",
    "Torus",
    "Update",
    "VectorEnv",
    "benchmarl_task",
    "cayley_step",
    "check_parallel",
    "dirac_frequencies",
    "dirac_generator",
    "dirac_network",
    "env",
    "estimate_alpha",
    "estimate_metric",
    "evaluate",
    "fit_power_law",
    "forces_of_frame",
    "gauge_components",
    "geodesic",
    "ids",
    "klein_gordon_network",
    "klein_gordon_weights",
    "load_diffusion",
    "load_metric",
    "load_model",
    "load_run",
    "make_policy",
    "make_system",
    "observation_names",
    "parallel_env",
    "policy_names",
    "regime",
    "register",
    "require_count",
    "require_number",
    "require_range",
    "save_model",
    "spec",
    "sphericity",
    "summarise",
    "tangent_map",
    "torchrl_env",
    "train",
    "vec_env",
]

renamed.install()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def parallel_env(id: str, *, render_mode: str | None = None, **parameters: Any) -> ParallelEnv:
    """One world as a PettingZoo ParallelEnv; parameters are those of the system."""
    from invariantzoo.envs.core.interfaces.pettingzoo import make_parallel

    return make_parallel(id, render_mode=render_mode, **parameters)


def env(id: str, *, render_mode: str | None = None, **parameters: Any) -> AecEnv:
    """One world as a PettingZoo AECEnv; agents act in the order of the system's own law."""
    from invariantzoo.envs.core.interfaces.pettingzoo import make_aec

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
    from invariantzoo.envs.core.interfaces.stable_baselines3 import make_vec_env

    return make_vec_env(id, n_worlds=n_worlds, seed=seed, render_mode=render_mode, **parameters)


def torchrl_env(
    id: str,
    *,
    n_worlds: int = 1,
    seed: int | None = None,
    device: torch.device | str = "cpu",
    with_state: bool = False,
    **parameters: Any,
) -> SystemTorchEnv:
    """Many worlds as a batched TorchRL environment; all agents are its group "agents".

    Raises ModuleNotFoundError without TorchRL: pip install "invariantzoo[torchrl]".
    """
    from invariantzoo.envs.core.extras import require_extra

    require_extra("torchrl", "torchrl", "TorchRL")
    from invariantzoo.envs.core.interfaces.torchrl import make_torchrl_env

    return make_torchrl_env(
        id, n_worlds=n_worlds, seed=seed, device=device, with_state=with_state, **parameters
    )


def benchmarl_task(id: str, **parameters: Any) -> SystemTask:
    """An id as a task of BenchMARL; parameters are those of the system.

    Raises ModuleNotFoundError without BenchMARL: pip install benchmarl "torchrl<0.12".
    """
    from invariantzoo.envs.core.extras import require_packages

    require_packages("benchmarl", 'benchmarl "torchrl<0.12"', "BenchMARL")
    from invariantzoo.envs.core.interfaces.benchmarl import make_task

    return make_task(id, **parameters)
