"""Names that moved: the former ones work for one version, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]
MODULES = {  # former module -> where it stands now
    "agents.calculator": "envs.molecules.ase",
    "agents.driving": "agents.baselines.driving",
    "agents.dynamics": "envs.molecules.molecular_dynamics",
    "agents.forces": "envs.molecules.forces",
    "agents.lennard_jones": "envs.molecules.lennard_jones",
    "agents.loss_system": "envs.molecules.system",
    "agents.losses": "envs.molecules.linear",
    "agents.message_net": "envs.molecules.network",
    "agents.model_file": "envs.molecules.files",
    "envs.core.cell": "envs.core.physics.cell",
    "envs.core.check": "envs.core.conformance.check",
    "envs.core.checkers": "envs.core.conformance.third_party",
    "envs.core.dynamics": "envs.core.physics.integrators",
    "envs.core.gym": "envs.core.interfaces.gymnasium",
    "envs.core.invariants": "envs.core.physics.invariants",
    "envs.core.judge": "envs.core.conformance.contract",
    "envs.core.parallel": "envs.core.interfaces.pettingzoo",
    "envs.core.render": "envs.core.rendering.painter",
    "envs.core.replay": "envs.core.conformance.replay",
    "envs.core.space": "envs.core.physics.plane",
    "envs.core.units": "envs.core.physics.units",
    "envs.core.viewer": "envs.core.rendering.viewer",
    "training.active": "training.molecules.active",
    "training.actors": "training.rl.policies",
    "training.buffers": "training.rl.buffers",
    "training.cgd": "training.optim.cgd",
    "training.curve": "training.runs.learning_curve",
    "training.descent": "training.rl.descent",
    "training.fit": "training.molecules.fit_linear",
    "training.fit_net": "training.molecules.fit_network",
    "training.frames": "training.molecules.frames",
    "training.hyperparameters": "training.rl.hyperparameters",
    "training.judge_forces": "training.molecules.errors",
    "training.observables": "training.molecules.observables",
    "training.optimizers": "training.optim.config",
    "training.reference": "training.molecules.reference.cp2k",
    "training.regime_callback": "training.rl.regime_callback",
    "training.regime_picture": "training.geometry.regimes_plot",
    "training.regimes": "training.geometry.regimes",
    "training.run": "training.runs.run",
    "training.sb3": "training.rl.sb3",
    "training.score": "training.rl.score",
    "training.simulation": "training.molecules.simulate",
    "training.structure": "training.molecules.rdf",
    "training.trainer": "training.rl.algorithms",
    "training.vec_env": "envs.core.interfaces.stable_baselines3",
    "training.video": "training.runs.video",
}
SYSTEM_NAMES = {  # what once stood in envs.core.system -> the module that holds it now
    "Range": "envs.core.types",
    "Plot": "envs.core.scene",
    "by_name": "envs.core.observation",
    "flatten": "envs.core.observation",
    "is_discrete": "envs.core.observation",
    "observation_limits": "envs.core.observation",
    "observation_names": "envs.core.observation",
    "observation_space": "envs.core.observation",
    "parameters": "envs.core.observation",
    "nearest": "envs.core.validation",
    "require_choice": "envs.core.validation",
    "require_count": "envs.core.validation",
    "require_number": "envs.core.validation",
    "require_range": "envs.core.validation",
}

NAMES = {  # other former names, with their module -> where they stand now
    "envs.core.conformance.contract.Judge": "envs.core.conformance.contract.ContractChecker",
    "envs.core.conformance.replay.HABITS": "envs.core.conformance.replay.PERTURBATIONS",
    "envs.core.conformance.replay.Moment": "envs.core.conformance.replay.StepRecord",
    "envs.core.conformance.replay.Plan": "envs.core.conformance.replay.EpisodePlan",
    "envs.core.conformance.replay.moments": "envs.core.conformance.replay.transcript",
    "envs.core.conformance.replay.moments_of": "envs.core.conformance.replay.endless_transcript",
    "envs.core.system.Knob": "envs.core.types.LiveParameter",
    "envs.core.types.Knob": "envs.core.types.LiveParameter",
    "training.geometry.regimes.Steps": "training.geometry.regimes.StepRecorder",
    "training.molecules.errors.judge": "training.molecules.errors.force_errors",
    "training.molecules.simulate.Alarm": "training.molecules.alarms.OutOfDomain",
    "training.rl.sb3.Watch": "training.rl.sb3.RewardScalingCallback",
    "training.optim.cgd.coefficients": "training.optim.metrics.coefficients",
    "training.optim.cgd.inverse_metric": "training.optim.metrics.inverse_metric",
    "training.optim.cgd.longest": "training.optim.metrics.longest",
    "training.optim.cgd.modes": "training.optim.metrics.modes",
    "training.optim.cgd.scale": "training.optim.metrics.scale",
    "envs.particles.Particles": "envs.particles.crowd.Crowd",
    "envs.particles.State": "envs.particles.discs.State",
    "envs.particles.gas_collision_rate": "envs.particles.crowd.gas_collision_rate",
    "envs.core.rendering.painter.agent_at": "envs.core.rendering.lens.agent_at",
    "envs.clusters.Clusters": "envs.clusters.relaxation.Clusters",
    "envs.clusters.State": "envs.clusters.relaxation.State",
    "envs.clusters.GLOBAL_MINIMA": "envs.clusters.relaxation.GLOBAL_MINIMA",
    "envs.ising.Ising": "envs.ising.equilibrium.Ising",
    "envs.ising.State": "envs.ising.equilibrium.State",
    "envs.ising.Transport": "envs.ising.transport.IsingTransport",
    "envs.ising.Driven": "envs.ising.transport.TransportState",
    "envs.ising.heat_bath": "envs.ising.policies.heat_bath",
    "envs.ising.metropolis": "envs.ising.policies.metropolis",
    "envs.ising.ground_energy": "envs.ising.ground_state.ground_energy",
    "envs.quadratic.EXPONENTS": "envs.quadratic.regimes.EXPONENTS",
    "envs.quadratic.Quadratic": "envs.quadratic.regimes.Quadratic",
    "envs.quadratic.State": "envs.quadratic.regimes.State",
    "envs.quadratic.relaxation_steps": "envs.quadratic.regimes.relaxation_steps",
    "envs.quadratic.stationary_loss": "envs.quadratic.regimes.stationary_loss",
    "envs.tasep.Open": "envs.tasep.open.OpenTasep",
    "envs.tasep.Chain": "envs.tasep.open.OpenState",
    "envs.tasep.Ring": "envs.tasep.ring.RingTasep",
    "envs.tasep.Traffic": "envs.tasep.ring.RingState",
    "envs.tasep.Gates": "envs.tasep.gates.GatedTasep",
    "envs.tasep.Guarded": "envs.tasep.gates.GatesState",
    "envs.molecules.linear.Walls": "envs.molecules.linear.RepulsiveWall",
    "envs.molecules.linear.kinds_of": "envs.molecules.linear.species_index",
    "envs.molecules.linear.reach": "envs.molecules.linear.interaction_cutoff",
    "envs.molecules.molecular_dynamics.Bodies": "envs.molecules.molecular_dynamics.MDState",
    "envs.molecules.molecular_dynamics.make_bodies": "envs.molecules.molecular_dynamics.start_md",
    "envs.molecules.system.Motion": "envs.molecules.system.LossState",
    "envs.water.Inference": "envs.water.inference.WaterInference",
    "envs.water.Frame": "envs.water.inference.InferenceState",
    "envs.water.Dynamics": "envs.water.dynamics.WaterDynamics",
    "envs.water.Motion": "envs.water.dynamics.DynamicsState",
    "envs.water.Data": "envs.water.frames.Data",
    "envs.water.read": "envs.water.frames.read",
    "envs.water.optimum": "envs.water.least_squares.optimum",
}
MEMBERS = {  # what a system may define under its former name -> under which it is asked for
    "gone": "terminated",
    "judge": "exact_evaluation",
    "knobs": "live_parameters",
}
PARAMETERS: dict[str, dict[str, Any]] = {  # former parameters of ids -> the value that is left
    "particles-crowd-v0": {
        "layout": "crowd",
        "view": "invariants",
        **dict.fromkeys(("separation", "impact", "angle", "orientation"), ...),
    },
    "particles-encounter-v0": {"layout": "encounter", "view": "invariants", "density": ...},
}


class _FormerModules(MetaPathFinder, Loader):
    """Imports of a former name give the module itself, under both names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        former = name.removeprefix(f"{PACKAGE}.")
        return ModuleSpec(name, self) if former != name and former in MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = f"{PACKAGE}.{MODULES[spec.name.removeprefix(f'{PACKAGE}.')]}"
        warnings.warn(f"{spec.name} is now {new}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__  # which importlib is about to replace
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Let `import` find modules by their former names, too; the second call changes nothing."""
    if not any(isinstance(finder, _FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(_FormerModules())


def without_former_parameters(id: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Those of an id's parameters that it still has; `...` stands for one that never mattered.

    Raises ValueError for a former parameter of a value that is no longer there.
    """
    former = PARAMETERS.get(id, {})
    for name in former.keys() & parameters.keys():
        if former[name] is not ... and parameters[name] != former[name]:
            raise ValueError(f"{name}={parameters[name]!r} of {id} must be {former[name]!r}")
    return {name: value for name, value in parameters.items() if name not in former}


def adopt_former_members(cls: type) -> None:
    """Let a class that defines a member under its former name offer it under the new one."""
    for former, new in MEMBERS.items():
        if former in vars(cls) and new not in vars(cls):
            warn(f"{cls.__qualname__}.{former}", f"{cls.__qualname__}.{new}", stacklevel=5)
            setattr(cls, new, vars(cls)[former])


def warn(former: str, new: str, *, stacklevel: int = 3) -> None:
    """Say that a name has changed, to whoever calls the caller."""
    warnings.warn(f"{former} is now {new}", DeprecationWarning, stacklevel=stacklevel)


def system_name(name: str) -> Any:
    """What envs.core.system once held under this name; AttributeError if nothing."""
    target = f"{SYSTEM_NAMES[name]}.{name}" if name in SYSTEM_NAMES else None
    return _former("envs.core.system", name, target or NAMES.get(f"envs.core.system.{name}"))


def former_name(module: str, name: str) -> Any:
    """What a module once held under this name; AttributeError if nothing.

    For the `__getattr__` of the module, which hands over its own `__name__`.
    """
    own = module.removeprefix(f"{PACKAGE}.")
    return _former(own, name, NAMES.get(f"{own}.{name}"))


def _former(module: str, name: str, target: str | None) -> Any:
    if target is None:
        raise AttributeError(f"module '{PACKAGE}.{module}' has no attribute {name!r}")
    new = f"{PACKAGE}.{target}"
    warnings.warn(f"{PACKAGE}.{module}.{name} is now {new}", DeprecationWarning, stacklevel=4)
    home, _, attribute = new.rpartition(".")
    return getattr(importlib.import_module(home), attribute)
