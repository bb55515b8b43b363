"""Ids as tasks of BenchMARL: one batch of MAPPO, with masks and agents that leave too."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import invariantzoo

pytestmark = pytest.mark.filterwarnings("ignore")  # of BenchMARL's own
needs_benchmarl = pytest.mark.skipif(
    importlib.util.find_spec("benchmarl") is None, reason="BenchMARL is not installed"
)


@needs_benchmarl
@pytest.mark.parametrize("id", ["particles-encounter-v0", "test-leave-v0", "ising-equilibrium-v0"])
def test_mappo_learns_from_a_batch(id: str, tmp_path: Path) -> None:
    from benchmarl.algorithms import MappoConfig
    from benchmarl.experiment import Experiment, ExperimentConfig
    from benchmarl.models.mlp import MlpConfig

    settings = ExperimentConfig.get_from_yaml()
    settings.max_n_frames = settings.on_policy_collected_frames_per_batch = 64
    settings.on_policy_n_envs_per_worker = 4
    settings.on_policy_n_minibatch_iters = 1
    settings.on_policy_minibatch_size = 32
    settings.evaluation = False
    settings.loggers = []
    settings.save_folder = str(tmp_path)
    task = invariantzoo.benchmarl_task(id)
    discrete = not invariantzoo.make_system(id).action_space.shape
    assert task.supports_discrete_actions() == discrete
    assert task.supports_continuous_actions() != discrete
    experiment = Experiment(
        task=task,
        algorithm_config=MappoConfig.get_from_yaml(),
        model_config=MlpConfig.get_from_yaml(),
        critic_model_config=MlpConfig.get_from_yaml(),
        seed=0,
        config=settings,
    )
    masks = task.action_mask_spec(experiment.test_env)
    assert (masks is not None) == (id == "test-leave-v0")
    experiment.run()
    assert experiment.total_frames == 64


@needs_benchmarl
def test_unknown_parameters_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="wheels"):
        invariantzoo.benchmarl_task("particles-encounter-v0", wheels=4)


def test_without_benchmarl_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "benchmarl" else find(name)
    )
    line = r'^BenchMARL is not installed: pip install benchmarl "torchrl<0.12"$'
    with pytest.raises(ModuleNotFoundError, match=line):
        invariantzoo.benchmarl_task("particles-encounter-v0")
