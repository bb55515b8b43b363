"""Critics that see whole worlds, and weights of each agent's or each type's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from commands import refused
from gymnasium.spaces import Box
from stable_baselines3 import PPO
from torch import Tensor

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.agents.networks.agents import AgentNetworks, groups_of, make_networks
from invariantzoo.agents.networks.choose import make_network, network_names
from invariantzoo.envs.core.interfaces.stable_baselines3 import SystemVecEnv
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.types import Bound
from invariantzoo.training.rl import sb3
from invariantzoo.training.rl.algorithms import (
    config_class,
    load_policy,
    load_trusted,
    make_config,
    make_trainer,
)
from invariantzoo.training.rl.buffers import MaskedRolloutBuffer, WorldRolloutBuffer

TINY = {"n_worlds": 3, "n_steps": 6, "batch_size": 16, "n_epochs": 2}
IDS = ("particles-crowd-v0", "test-leave-v0", "ising-equilibrium-v0", "particles-traffic-v0")
BRIEF: dict[str, dict[str, Any]] = {
    "particles-crowd-v0": {"n_agents": 4, "horizon": 5},
    "test-leave-v0": {"horizon": 30},
    "ising-equilibrium-v0": {"lattice_size": 2, "n_sweeps": 2, "burn_in": 0},
    "particles-traffic-v0": {"horizon": 8},
    "water-inference-v0": {"horizon": 2},
}


def brief(id: str) -> System:
    return invariantzoo.make_system(id, **BRIEF[id])


def model_of(id: str, algo: str = "mappo", **settings: Any) -> Any:
    config = config_class(algo)(**{**TINY, **settings})
    return sb3.make_model(SystemVecEnv(brief(id), 3, seed=0), config, seed=0)


def after_a_rollout(id: str) -> Any:
    """A model that has learned next to nothing, with what it learned from in its buffer."""
    config = config_class("mappo")(**TINY, lr=1e-12)
    trainer = sb3.Trainer(brief(id), config, seed=0, steps=10**6)
    next(iter(trainer))
    return trainer.model


def observed(model: Any) -> Tensor:
    """Observations of all rows after a few steps, with agents that differ."""
    env = model.env
    env.reset()
    for _ in range(3):
        actions = np.stack([env.action_space.sample() for _ in range(env.num_envs)])
        observation = env.step(actions)[0]
    noise = torch.rand(observation.shape, generator=torch.Generator().manual_seed(1))
    return torch.from_numpy(observation) + 0.1 * noise


# ------------------------------------------------------------------------------- central critics


@pytest.mark.parametrize("id", IDS)
def test_relabelling_agents_relabels_their_values_and_actions(id: str) -> None:
    model = model_of(id)
    n = model.env.system.n_agents
    rows = observed(model)
    order = torch.stack(
        [torch.randperm(n, generator=torch.Generator().manual_seed(s)) + n * s for s in range(3)]
    ).flatten()
    with torch.no_grad():
        output, value = model.policy.heads(rows)
        relabelled, revalued = model.policy.heads(rows[order])
    assert value.std() > 1e-3
    torch.testing.assert_close(relabelled, output[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(revalued, value[order], rtol=1e-5, atol=1e-6)


def test_the_critic_sees_everybody_and_the_actor_itself() -> None:
    model = model_of("particles-crowd-v0")
    rows = observed(model).requires_grad_()
    output, value = model.policy.heads(rows)
    for result, seen in ((value[1], [0, 1, 2, 3]), (output[1], [1])):
        (slope,) = torch.autograd.grad(result.sum(), rows, retain_graph=True)
        assert torch.nonzero(slope.abs().sum(1) > 0).flatten().tolist() == seen


@pytest.mark.parametrize("id", IDS)
def test_minibatches_of_worlds_hold_the_rows_of_who_acted(id: str) -> None:
    """Each once, with the world around it, whatever the size of a minibatch."""
    model = after_a_rollout(id)
    ours = model.rollout_buffer
    assert isinstance(ours, WorldRolloutBuffer)
    acted = [batch.actions for batch in MaskedRolloutBuffer.get(ours, None)]
    for size in (None, 7):
        table = []
        for batch in ours.get(size):
            worlds, rows = batch.observations
            own = worlds.flatten(0, 1)[rows]
            actions = batch.actions.reshape(len(rows), -1)
            numbers = [batch.old_values, batch.advantages, batch.returns, batch.old_log_prob]
            table.append(torch.cat([own, actions, torch.stack(numbers, 1)], 1))
            with torch.no_grad():
                again, log_prob, _ = model.policy.evaluate_actions(
                    batch.observations,
                    batch.actions.squeeze(-1) if model.policy.discrete else batch.actions,
                )
            assert again.shape == (len(rows), 1)
            assert log_prob.shape == (len(rows),)
        together = torch.cat(table)
        assert len(together) == len(acted[0]) == ours.acted.sum()
        (theirs,) = MaskedRolloutBuffer.get(ours, None)
        plain = torch.cat(
            [
                theirs.observations,
                theirs.actions.reshape(len(together), -1),
                torch.stack(
                    [theirs.old_values, theirs.advantages, theirs.returns, theirs.old_log_prob], 1
                ),
            ],
            1,
        )
        assert sorted(together.tolist()) == sorted(plain.tolist())


def test_values_that_were_kept_are_those_of_the_worlds() -> None:
    """What the buffer yields is valued as the rollout valued it, before anything is learned."""
    model = after_a_rollout("particles-crowd-v0")
    for batch in model.rollout_buffer.get(9):
        with torch.no_grad():
            value, log_prob, _ = model.policy.evaluate_actions(batch.observations, batch.actions)
        torch.testing.assert_close(value.flatten(), batch.old_values, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(log_prob, batch.old_log_prob, rtol=1e-4, atol=1e-4)


def test_cut_off_ends_are_valued_in_their_worlds() -> None:
    """Also where some agents have left: their rows are of the world, and get no value."""
    system = brief("test-leave-v0")
    trainer = sb3.Trainer(system, config_class("mappo")(**TINY), seed=0, steps=10**6)
    seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    watch, policy = trainer._watch, trainer.model.policy
    finish = watch._finish

    def spied(rewards: np.ndarray, ended: list[int], infos: list[dict[str, Any]]) -> None:
        before = rewards.copy()
        final = np.stack([infos[slot]["terminal_observation"] for slot in ended])
        cut = np.array([infos[slot]["TimeLimit.truncated"] for slot in ended])
        finish(rewards, ended, infos)
        with torch.no_grad():
            value = policy.predict_values(torch.from_numpy(final)).numpy().reshape(-1)
        gain = np.where(cut, trainer.model.gamma * value, 0)
        seen.append((rewards[ended] - before[ended], gain, cut))

    watch._finish = spied  # type: ignore[method-assign]
    updates = iter(trainer)
    while sum(0 < cut.sum() < len(cut) for _, _, cut in seen) < 2:
        next(updates)
    for added, gain, _ in seen:
        np.testing.assert_allclose(added, gain, rtol=1e-5, atol=1e-5)


def test_settings_of_an_id_for_ppo_hold_for_its_form_with_a_central_critic() -> None:
    ppo, mappo = (
        make_config("particles-crowd-v0", algo, {"width": 7}) for algo in ("ppo", "mappo")
    )
    assert mappo.gamma == ppo.gamma == 0.9
    assert vars(mappo) == vars(ppo)


def test_a_part_of_a_world_is_refused() -> None:
    model = model_of("particles-crowd-v0")
    with pytest.raises(ValueError, match="7 observations are not those of whole worlds of 4"):
        model.policy.predict_values(observed(model)[:7])


# ------------------------------------------------------------------------- weights of one's own


@pytest.mark.parametrize("name", ["particles-crowd-v0", "ising-equilibrium-v0"])
def test_networks_with_equal_weights_are_one_network(name: str) -> None:
    system = brief(name)
    for network in network_names(system):
        one = make_network(network, system, 3)
        groups = [0, 1] * (system.n_agents // 2)
        several = AgentNetworks([one, one], groups)
        model = model_of(name)
        worlds = observed(model).reshape(3, system.n_agents, -1)
        with torch.no_grad():
            torch.testing.assert_close(several(worlds), one(worlds), rtol=1e-5, atol=1e-6)


def test_weights_of_an_agent_are_its_own() -> None:
    model = model_of("particles-crowd-v0", "ppo", share="none")
    output, value = model.policy.heads(observed(model))
    for result in (output, value):
        loss = result.reshape(3, 4, -1)[:, 2].square().sum()
        slopes = torch.autograd.grad(loss, list(model.policy.parameters()), allow_unused=True)
        several = [slope for slope in slopes if slope is not None]
        assert several
        for slope in several:
            moved = slope.flatten(1).abs().sum(1)
            assert moved[2] > 0 or slope[2].numel() == 1
            assert not moved[[0, 1, 3]].any()


def test_types_are_told_apart() -> None:
    traffic = invariantzoo.make_system("particles-traffic-v0")
    types = groups_of("type", traffic)
    assert types is not None
    assert len(types) == traffic.n_agents
    state = traffic.initial(Rng.single(0, 1), 1)
    kinds = state.kind[0, : traffic.n_agents].tolist()
    assert len(set(zip(types, kinds, strict=True))) == len(set(types)) == len(set(kinds)) > 1
    for id in ("water-inference-v0", "water-dynamics-v0"):
        water = invariantzoo.make_system(id)
        oxygen = water.initial(Rng.single(0, 1), 1).oxygen[0]
        assert torch.equal(torch.tensor(water.agent_types), 1 - oxygen.long())
    with pytest.raises(ValueError, match="all agents of Ising"):
        groups_of("type", brief("ising-equilibrium-v0"))


@pytest.mark.parametrize(
    ("id", "algo", "share"),
    [
        ("particles-crowd-v0", "ppo", "none"),
        ("particles-crowd-v0", "a2c", "none"),
        ("particles-crowd-v0", "descent", "none"),
        ("particles-traffic-v0", "mappo", "type"),
        ("water-inference-v0", "descent", "type"),
        ("ising-equilibrium-v0", "ppo", "none"),
        ("test-leave-v0", "mappo", "none"),
    ],
)
def test_saved_loaded_and_gone_on_with(id: str, algo: str, share: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_worlds": 3, "share": share}
    settings |= {"rollout": 2} if algo == "descent" else {"n_steps": 6}
    config, system = config_class(algo)(**settings), brief(id)

    def fresh() -> Any:
        return make_trainer(algo, system, config, seed=0, steps=3 * first.per_update)

    first: Any = make_trainer(algo, system, config, seed=0, steps=1)
    whole, stopped, resumed = fresh(), fresh(), fresh()
    start = [weight.clone() for weight in whole.state_dict()[key(algo)].values()]
    list(whole)
    next(iter(stopped))
    torch.save(stopped.state_dict(), tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed.load_state_dict(saved)
    list(resumed)
    end = whole.state_dict()[key(algo)]
    for before, a, b in zip(
        start, end.values(), resumed.state_dict()[key(algo)].values(), strict=True
    ):
        assert torch.equal(a, b)
        assert a.isfinite().all()
        assert before.shape == a.shape
    assert any(not torch.equal(x, y) for x, y in zip(start, end.values(), strict=True))
    env = SystemVecEnv(system, 2, seed=5)
    rows = env.reset()
    worlds = torch.from_numpy(rows).reshape(2, system.n_agents, -1)
    with torch.no_grad():
        here = whole.policy()(worlds, None)
        again = load_policy(algo, system, config, whole.state_dict())(worlds, None)
        whole.save_policy(tmp_path / "policy.zip")
        trusted = load_trusted(algo, tmp_path / "policy.zip")(worlds, None)
        drawn = whole.policy()(worlds, Rng.single(0, 2))
    assert torch.equal(here, again)
    assert torch.equal(here, trusted)
    assert drawn.shape == here.shape
    if algo in ("ppo", "mappo"):
        theirs, _ = PPO.load(tmp_path / "policy.zip", device="cpu").predict(
            rows, deterministic=True
        )
        np.testing.assert_allclose(theirs, here.flatten(0, 1).numpy(), atol=1e-6)


def key(algo: str) -> str:
    return "network" if algo == "descent" else "policy"


def test_another_number_of_agents_is_refused() -> None:
    network = make_networks("mlp", brief("particles-crowd-v0"), share="none")
    assert network(torch.zeros(1, 4, size_of("particles-crowd-v0"))).shape[:2] == (1, 4)
    with pytest.raises(ValueError, match="a policy of 4 agents with weights of their own"):
        network(torch.zeros(1, 5, size_of("particles-crowd-v0")))


def size_of(id: str) -> int:
    return sum(bound.width for bound in brief(id).bounds.values())


class Nothing(NamedTuple):
    place: Tensor  # [worlds, agents]


@dataclass(frozen=True)
class Apart(System):
    """Two agents that see nothing, of which one is to act 0.5, the other -0.5."""

    horizon: int = 4

    n_agents = 2

    @property
    def bounds(self) -> dict[str, Bound]:
        return {"place": Bound(-1, 1)}

    @property
    def action_space(self) -> Box:
        return Box(-1, 1, (1,))

    def initial(self, rng: Rng, worlds: int) -> Nothing:
        return Nothing(0 * rng.uniform(worlds, 2))

    def transition(self, state: Nothing, action: Tensor, rng: Rng) -> Nothing:
        return state

    def invariants(self, state: Nothing) -> dict[str, Tensor]:
        return {"place": state.place}

    def loss(self, state: Nothing, action: Tensor, next_state: Nothing) -> Tensor:
        return (action[..., 0] - torch.tensor([0.5, -0.5], dtype=action.dtype)).square()


def test_own_weights_learn_what_one_policy_cannot() -> None:
    """Agents that see the same and must do different things: each finds its own."""
    system = Apart()
    values = {}
    for share in ("all", "none"):
        config = config_class("descent")(share=share, n_worlds=2, rollout=1, lr=0.01, network="mlp")
        trainer = make_trainer("descent", system, config, seed=0, steps=300 * 4)
        *_, last = trainer
        values[share] = last.loss
    assert values["all"] > 0.2
    assert values["none"] < 0.01


# ----------------------------------------------------------------------------------- commands


def test_commands_train_score_and_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("invariantzoo.commands.train.EPISODES", 1)
    monkeypatch.setattr("invariantzoo.commands.train.SEEDS", 1)
    run = str(tmp_path / "run")
    words = ["train", "particles-crowd-v0", "--algo", "mappo", "--share", "none", "--steps", "100"]
    words += [
        "--set",
        "n_agents=8",
        "--set",
        "n_neighbours=3",
        "--set",
        "horizon=10",
        "--set",
        "n_worlds=2",
    ]
    words += ["--optimizer", "cgd", "--no-baselines", "--no-film", "--out", run]
    assert main(words) == 0
    assert (
        main([*words[:3], "mappo", "--steps", "600", "--out", run, "--resume", *words[-4:-2]]) == 0
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["hyperparameters"]["share"] == "none"
    capsys.readouterr()
    assert main(["evaluate", run, "--episodes", "1", "--seeds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "particles-crowd-v0"
    said = refused(capsys, "evaluate", run, "--set", "n_agents=9")
    assert "trained with share='none' for 8 agents" in said
    said = refused(capsys, "train", "particles-crowd-v0", "--share", "some", "--out", run + "2")
    assert "share='some' must be one of all, type, none" in said
    said = refused(capsys, "train", "particles-crowd-v0", "--share", "type", "--out", run + "2")
    assert "all agents of Crowd are of one type" in said
    said = refused(capsys, "train", "particles-crowd-v0", "--algo", "es", "--share", "none")
    assert "share" in said
