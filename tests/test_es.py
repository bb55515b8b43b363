"""The evolution strategy: its estimate against exact gradients, its worlds, and what it learns."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from systems import Leave
from torch import Tensor, nn

import invariantzoo
from invariantzoo.agents.networks.choose import make_network, network_names
from invariantzoo.agents.networks.layers import action_size
from invariantzoo.agents.networks.population import PopulationNetwork, population_forward
from invariantzoo.agents.policy import Policy, make_policy
from invariantzoo.envs.core.observation import is_discrete, observation_space
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.training.rl import es
from invariantzoo.training.rl.algorithms import load_trusted, make_config, make_trainer
from invariantzoo.training.rl.score import evaluate, run_episodes, score_means

CROWD, ENCOUNTER, ANNEAL = "particles-crowd-v0", "particles-encounter-v0", "ising-anneal-v0"
SMALL_CROWD = {"n_agents": 4, "n_neighbours": 3, "horizon": 8, "density": 0.1}
SMALL_ISING = {"lattice_size": 3, "n_sweeps": 2}
SMALL_GOALS: list[tuple[str, dict[str, Any]]] = [
    (CROWD, SMALL_CROWD),
    (ENCOUNTER, {"horizon": 30}),
    (ANNEAL, SMALL_ISING),
    ("tasep-gates-v0", {}),
]


def trainer(id: str, system: dict[str, Any], *, steps: int, seed: int = 0, **more: Any) -> Any:
    config = make_config(id, "es", more)
    made = invariantzoo.make_system(id, **system)
    return make_trainer("es", made, config, seed=seed, steps=steps)


# The estimate


def test_the_estimate_of_a_linear_function_is_its_gradient() -> None:
    """Its error is that of the mean of eps eps^T: each component has variance (c_i^2 + c^2) / n."""
    n, pairs, std = 5, 40_000, 0.3
    slope = torch.tensor([3.0, -1.0, 0.5, 0.0, 2.0], dtype=torch.float64)
    noise = es.search_noise(7, 3, pairs, n)
    values = 11.0 + torch.cat([std * noise @ slope, -std * noise @ slope])
    estimate = es.gradient_estimate(noise, values, std)
    error = ((slope.square() + slope.square().sum()) / pairs).sqrt()
    assert ((estimate - slope).abs() < 4 * error).all()
    assert (estimate - slope).abs().max() > 1e-6  # an estimate, and no derivative


def test_pairs_cancel_what_is_even() -> None:
    """Exactly: of a + b^T theta + theta^T H theta around 0 the estimate sees b alone."""
    noise = es.search_noise(0, 0, 6, 4)
    hessian, slope = torch.ones(4, 4, dtype=torch.float64), torch.arange(4.0).double()

    def values(theta: Tensor) -> Tensor:
        return 2.0 + theta @ slope + ((theta @ hessian) * theta).sum(-1)

    std = 0.5
    both = torch.cat([values(std * noise), values(-std * noise)])
    expected = (noise @ slope) @ noise / len(noise)
    torch.testing.assert_close(
        es.gradient_estimate(noise, both, std), expected, rtol=1e-12, atol=1e-12
    )


def test_it_descends_a_quadratic_to_its_minimum() -> None:
    """Estimate, ranks and optimizer together, without a world."""
    theta = torch.full((6,), 2.0, dtype=torch.float64, requires_grad=True)
    goal = torch.linspace(-1, 1, 6).double()
    optimizer = torch.optim.Adam([theta], lr=0.1)
    for update in range(300):
        std = 0.1
        noise = es.search_noise(1, update, 10, 6)
        candidates = theta.detach() + std * torch.cat([noise, -noise])
        returns = -(candidates - goal).square().sum(-1, keepdim=True)
        ranks = torch.from_numpy(es.centred_ranks(returns.numpy()))
        theta.grad = -es.gradient_estimate(noise, ranks, std)
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - update / 300)
        optimizer.step()
    assert (theta.detach() - goal).abs().max() < 0.03


def test_only_the_order_within_a_world_counts() -> None:
    """Any increasing map of the returns of a world, another one in each, leaves the ranks."""
    returns = np.random.default_rng(0).normal(size=(8, 3))
    ranks = es.centred_ranks(returns)
    mapped = np.stack([np.exp(returns[:, 0]), 1e6 * returns[:, 1] - 3, np.arctan(returns[:, 2])], 1)
    assert np.array_equal(es.centred_ranks(mapped), ranks)
    assert not np.array_equal(es.centred_ranks(-returns), ranks)
    order = np.random.default_rng(1).permutation(8)
    assert np.array_equal(es.centred_ranks(returns[order]), ranks[order])


def test_ranks_by_hand() -> None:
    """In world 0 the order is 2 0 1 (candidates); in world 1 two share the lowest place."""
    returns = np.array([[5.0, 1.0], [9.0, 1.0], [-2.0, 4.0]])
    by_world = np.array([[0.0, -0.25], [0.5, -0.25], [-0.5, 0.5]])
    assert np.allclose(es.centred_ranks(returns), by_world.mean(1), atol=1e-15)


def test_noise_belongs_to_seed_and_update() -> None:
    noise = es.search_noise(3, 5, 4, 7)
    assert torch.equal(noise, es.search_noise(3, 5, 4, 7))
    assert torch.equal(noise[:2], es.search_noise(3, 5, 2, 7))
    for other in (es.search_noise(3, 6, 4, 7), es.search_noise(4, 5, 4, 7)):
        assert not torch.isin(noise, other).any()


# Candidates and their worlds


@pytest.mark.parametrize(("id", "settings"), SMALL_GOALS)
def test_candidates_together_are_each_alone(id: str, settings: dict[str, Any]) -> None:
    """Scores of a generation, its second, against networks that play their worlds one by one."""
    made = trainer(id, settings, steps=10**6, pairs=2, n_worlds=3, width=8)
    system = made.system
    next(iter(made))
    noise = 3 * es.search_noise(0, 1, 2, made.n_parameters)
    together = made._play(noise, 0.5)
    theta = nn.utils.parameters_to_vector(made.network.parameters()).detach().double()
    for candidate, weights in enumerate([*(theta + 0.5 * noise), *(theta - 0.5 * noise)]):
        network = copy.deepcopy(made.network)
        nn.utils.vector_to_parameters(weights.float(), network.parameters())
        env = VectorEnv(system, 3, seed=0, first_world=3, autoreset=False)
        policy = es._network_policy(system, network)
        alone = run_episodes(env, policy, deterministic=not system.stochastic)
        for name, values in alone.items():
            mine = together[name][3 * candidate : 3 * candidate + 3]
            assert np.allclose(mine, values, rtol=1e-4, atol=1e-4, equal_nan=True), name
    spread = together["return"].reshape(4, 3).std(0)
    assert (spread > 0).any()


def test_equal_candidates_have_equal_fates() -> None:
    """To the bit, where worlds and actions are drawn: nobody is lucky."""
    for id, settings in ((ANNEAL, SMALL_ISING), ("resampling-neutral-v0", {})):
        made = trainer(id, settings, steps=10**6, pairs=2, n_worlds=3, width=8)
        scores = made._play(torch.zeros(2, made.n_parameters, dtype=torch.float64), 0.5)
        fates = scores["return"].reshape(4, 3)
        assert (fates == fates[0]).all()
        assert fates.std(1).min() > 0


def test_who_does_not_act_is_not_computed() -> None:
    made = trainer(ANNEAL, SMALL_ISING, steps=10**6, pairs=2, n_worlds=3, width=8)
    rows = []

    def forward(observation: Tensor) -> Tensor:
        rows.append(observation.shape[:-1].numel())
        return torch.zeros(*observation.shape[:-1], 2)

    made._worlds.start(0)
    policy: Policy = made._worlds.policy(forward)
    action = policy(torch.zeros(12, 9, observation_space(made.system).shape[0]), None)
    assert action.shape == (12, 9)
    assert rows == [12]  # one site of nine in each of 12 worlds


def test_worlds_that_have_ended_cost_nothing_more() -> None:
    """All agents leave before the horizon: nothing is stepped after that."""
    system = Leave(horizon=1000)
    config = make_config("test-leave-v0", "es", {"pairs": 2, "n_worlds": 2})
    made: Any = make_trainer("es", system, config, seed=0, steps=10**6)
    with torch.no_grad():  # everybody walks to the door
        made.network.net[-1].bias.copy_(torch.tensor([-9.0, 9.0]))
    env, moves = made._worlds.env, []
    step = env.step

    def counted(action: np.ndarray, *, unbounded: bool) -> Any:
        moves.append(env.alive.any(1).sum())
        return step(action, unbounded=unbounded)

    env.step = counted
    update = next(iter(made))
    assert moves[-1] > 0
    assert moves[-1] < 8  # some had ended, and waited
    assert len(moves) < 100
    assert update.row["left"] == 1


class Shifted(nn.Module):
    """One weight, and a way of its own to be many."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([0.25]))
        self.seen: list[tuple[torch.dtype, tuple[int, ...]]] = []

    def forward(self, observation: Tensor) -> Tensor:
        return observation[..., :1] + self.shift

    def population_forward(self, parameters: Tensor, observation: Tensor) -> Tensor:
        self.seen.append((parameters.dtype, tuple(parameters.shape)))
        each = observation.reshape(len(parameters), -1, *observation.shape[1:])
        return (each[..., :1] + parameters[:, None, None]).flatten(0, 1)


def test_a_network_may_have_a_way_of_its_own() -> None:
    network = Shifted()
    assert isinstance(network, PopulationNetwork)
    weights = torch.tensor([[0.0], [1.0], [-2.0]], dtype=torch.float64)
    observation = torch.arange(24.0).reshape(6, 2, 2)
    mine = population_forward(network, weights)(observation)
    assert network.seen == [(torch.float64, (3, 1))]
    assert mine.shape == (6, 2, 1)
    assert torch.equal(mine[2:4, :, 0], observation[2:4, :, 0] + 1)


@pytest.mark.parametrize(
    ("id", "settings"),
    [
        (CROWD, {}),
        ("cluster-relaxation-v0", {}),
        (ANNEAL, {}),
        ("particles-circle-v0", {"n_agents": 5}),
        ("particles-circle-v0", {"n_agents": 5, "control": "acceleration"}),
        ("particles-goals-v0", {"n_agents": 4, "control": "acceleration", "max_acceleration": 2.0}),
    ],
)
def test_every_network_runs_as_many(id: str, settings: dict[str, Any]) -> None:
    system = invariantzoo.make_system(id, **settings)
    env = VectorEnv(system, 6, seed=0, kernel=False)
    observation = torch.from_numpy(env.reset())
    if "control" in settings:  # discs that move
        observation = torch.from_numpy(env.step(np.full(env._action_shape, 0.3)).observation)
    for name in network_names(system):
        network = make_network(name, system, 1, width=8)
        theta = nn.utils.parameters_to_vector(network.parameters()).detach().double()
        weights = theta * torch.tensor([[1.0], [3.0], [-2.0]], dtype=torch.float64)
        with torch.no_grad():
            together = population_forward(network, weights)(observation)
            for candidate in range(3):
                nn.utils.vector_to_parameters(weights[candidate].float(), network.parameters())
                rows = slice(2 * candidate, 2 * candidate + 2)
                expected = network(observation[rows])
                torch.testing.assert_close(together[rows], expected, rtol=1e-4, atol=1e-5)


# Training


@pytest.mark.parametrize("optimizer", ["adam", "cgd"])
@pytest.mark.parametrize("id", [CROWD, ANNEAL])
def test_it_goes_on_bit_for_bit(id: str, optimizer: str) -> None:
    """Rows and weights of a run that was interrupted, against one that was not."""
    settings = SMALL_CROWD if id == CROWD else SMALL_ISING
    learner: dict[str, Any] = {"pairs": 2, "n_worlds": 2, "width": 8, "optimizer": optimizer}
    steps = 6 * trainer(id, settings, steps=1, **learner).per_update
    whole, first, second = (trainer(id, settings, steps=steps, seed=5, **learner) for _ in range(3))
    rows = [update.row for update in whole]
    updates = iter(first)
    for _ in range(3):
        next(updates)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.steps == first.steps == 3 * first.per_update
    assert [update.row for update in second] == rows[3:]
    assert len(rows) == 6
    for name, weight in whole.state_dict()["network"].items():
        assert torch.equal(weight, second.state_dict()["network"][name])


def test_generations_play_new_worlds() -> None:
    made = trainer(CROWD, SMALL_CROWD, steps=10**6, pairs=2, n_worlds=3)
    first, again, later = (made._worlds.start(k) for k in (0, 0, 3))
    assert np.array_equal(first, again)
    assert np.array_equal(first[:3], first[3:6])
    assert not np.isin(first, later).all()
    env = VectorEnv(made.system, 3, seed=0, first_world=3)
    assert np.array_equal(later[:3], env.reset())


def test_steps_of_the_search_fall() -> None:
    made = trainer(CROWD, SMALL_CROWD, steps=2000, pairs=2, n_worlds=2, std=0.4, std_final=0.1)
    rows = []
    rates = []
    for update in made:
        rows.append(update.row["std"])
        rates.append(made.optimizer.param_groups[0]["lr"])
    assert rows[0] == 0.4
    assert np.allclose(np.diff(np.log(rows)), np.log(0.25) / len(rows))
    assert rates[0] == made.config.lr
    assert (np.diff(rates) < 0).all()


def test_first_steps_are_logged_as_such() -> None:
    """Their loss, and beside it whole episodes of the weights without noise."""
    made = trainer(CROWD, SMALL_CROWD, steps=500, pairs=2, n_worlds=2, rollout=3)
    updates = list(made)
    assert made.per_update == 4 * 2 * 3 * 4
    assert ["loss" in update.row for update in updates] == [True, *[False] * 4, True]
    assert all(update.row["rollout_loss"] == update.loss for update in updates)
    env = VectorEnv(made.system, 1, seed=0, first_world=12, autoreset=False)
    scores = run_episodes(env, made.policy(), deterministic=True)
    assert updates[-1].row["return"] == scores["return"].mean()
    env = VectorEnv(made.system, 2, seed=0, autoreset=False)
    part = run_episodes(env, made.policy(), deterministic=True, steps=3)
    env.reset()
    loss = [-env.step(_straight(made.system, env)).reward.mean(1) for _ in range(3)]
    env.reset()
    hand = run_episodes(
        env,
        lambda o, rng: torch.from_numpy(_straight(made.system, env)),
        deterministic=True,
        steps=3,
    )
    assert np.allclose(hand["return"], -np.sum(loss, 0), rtol=1e-12)
    assert set(part) == set(hand)


def _straight(system: System, env: VectorEnv) -> np.ndarray:
    action = np.zeros((env.n_worlds, system.n_agents, action_size(system)), np.float32)
    action[..., -1] = 1
    return action


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_to_pass(seed: int) -> None:
    """Of two that meet, in 21 updates: straight ahead four of five pairs would touch."""
    made = trainer(ENCOUNTER, {}, steps=400_000, seed=seed)
    list(made)
    scores = evaluate(made.system, made.policy(), episodes=40, seeds=1, deterministic=True)
    straight = evaluate(
        made.system, make_policy("straight", made.system), episodes=40, seeds=1, deterministic=True
    )
    assert scores["return"].mean() > -3.5
    assert scores["return"].mean() > straight["return"].mean() + 1
    assert scores["contact"].mean() < straight["contact"].mean() / 2


def test_it_learns_discrete_actions_where_nothing_has_a_gradient() -> None:
    """Spins that cool: fields are learned to be followed."""
    made = trainer(ANNEAL, {"lattice_size": 4, "n_sweeps": 10}, steps=3_000_000)
    before = made.policy()
    scores = {}
    for name, policy in (("before", before), ("after", None)):
        if policy is None:
            list(made)
        chosen = made.policy()
        scores[name] = evaluate(made.system, chosen, episodes=50, seeds=1, deterministic=False)[
            "return"
        ].mean()
    assert scores["after"] > scores["before"] + 0.1


@pytest.mark.parametrize(("id", "settings"), SMALL_GOALS)
def test_the_policy_is_left_for_ppo(id: str, settings: dict[str, Any], tmp_path: Any) -> None:
    made = trainer(id, settings, steps=1, pairs=2, n_worlds=2, width=8)
    list(made)
    path = tmp_path / "policy.zip"
    made.save_policy(path)
    trusted = load_trusted("es", path)
    env = VectorEnv(made.system, 3, seed=1)
    observation = torch.from_numpy(env.reset())
    flat = observation.flatten(0, 1).numpy()
    theirs, _ = PPO.load(path, device="cpu").predict(flat, deterministic=True)
    with torch.no_grad():
        mine = made.policy()(observation, None)
        # a pair network takes empty places at once there, so its sums are of another length
        torch.testing.assert_close(mine, trusted(observation, None), rtol=1e-5, atol=1e-6)
    assert np.allclose(theirs, mine.flatten(0, 1).numpy(), atol=1e-6)
    assert mine.dtype == (torch.int64 if is_discrete(made.system) else torch.float32)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pairs": 0}, r"pairs=0 must be a whole number of at least 1"),
        ({"pairs": 2.5}, r"pairs=2.5 must be a whole number"),
        ({"n_worlds": 0}, r"n_worlds=0 must be"),
        ({"std": 0}, r"std=0 must be"),
        ({"std_final": -1.0}, r"std_final=-1.0 must be"),
        ({"std": float("nan")}, r"std=nan must be"),
        ({"lr": 0.0}, r"lr=0.0 must be"),
        ({"rollout": -1}, r"rollout=-1 must be a whole number of at least 0"),
        ({"rollout": 9}, r"rollout=9 must be at most the horizon, 8 steps \(0: whole episodes\)"),
        ({"network": "conv"}, r"network.*conv.*pair.*set.*mlp"),
        ({"optimizer": "sgd"}, r"optimizer.*sgd.*adam.*cgd"),
        ({"n_step": 3}, r"unknown hyper-parameter 'n_step' of es"),
        ({"pairs": 10**12}, r"n_worlds=.* needs at least .* memory|pairs=10+ .* memory"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trainer(CROWD, SMALL_CROWD, steps=10, **settings)


def test_means_leave_out_what_is_not_defined() -> None:
    nan = float("nan")
    means = score_means({"a": np.array([1.0, nan, 3.0]), "b": np.array([nan, nan])})
    assert means["a"] == 2
    assert np.isnan(means["b"])
