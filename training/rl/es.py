"""Evolution strategy: the expected return under Gaussian noise on the weights is climbed.

    J(theta) = E[F(theta + std eps)],     grad J = E[F(theta + std eps) eps] / std,   eps ~ N(0, 1)

The expectation is over antithetic pairs +-eps, so that a constant in F drops out. All candidates of
a generation play the same worlds with the same random numbers (seed, world and clock), and F is
shaped: in every world candidates are ranked by their return, and F is the mean of a candidate's
ranks over the worlds. So a hard world counts as much as an easy one, and only the order matters.
An optimizer steps against the estimate as against any other gradient of a loss. Nothing is
differentiated, so the dynamics and the return may be anything.

Source: Salimans et al. 2017 (arXiv 1703.03864); ranks per world are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...agents.networks.choose import make_network, network_names
from ...agents.networks.population import PopulationForward, population_forward
from ...agents.policy import Policy, computing, network_policy
from ...envs.core.memory import require_memory
from ...envs.core.observation import is_discrete
from ...envs.core.rng import SEARCH, Rng
from ...envs.core.system import System
from ...envs.core.validation import require_choice, require_count
from ...envs.core.vector import VectorEnv
from ..geometry.regimes import StepRecorder
from ..optim.config import choose
from . import sb3
from .categorical import CategoricalPolicy
from .configs import ESConfig
from .devices import computing_device
from .episode_log import EpisodeLog
from .score import Scores, run_episodes, score_means
from .trainer import Update

_CROWDED = 0.75  # share of rows that act, above which picking them costs more than it spares


def centred_ranks(returns: np.ndarray) -> np.ndarray:
    """Ranks [candidates] of returns [candidates, worlds] in each world, averaged over worlds.

    From -1/2 (the lowest in every world) to 1/2; equal returns share their mean rank.
    """
    above = returns[:, None] > returns[None]
    equal = returns[:, None] == returns[None]
    rank = above.sum(1) + 0.5 * (equal.sum(1) - 1)
    return (rank / (len(returns) - 1) - 0.5).mean(-1)


def gradient_estimate(noise: Tensor, fitness: Tensor, std: float) -> Tensor:
    """Estimate [n] of the gradient of E[F(theta + std eps)] from antithetic pairs.

    noise [pairs, n]: eps of each pair.  fitness [2 pairs]: F at theta + std eps of all pairs, then
    F at theta - std eps of all pairs.
    """
    plus, minus = fitness.to(noise.dtype).chunk(2)
    return (plus - minus) @ noise / (2 * std * len(noise))


def search_noise(seed: int, update: int, pairs: int, n: int) -> Tensor:
    """Standard normal numbers float64 [pairs, n] of an update; pair i draws from a stream of i."""
    pair = torch.arange(pairs)
    return Rng(seed, pair, torch.full_like(pair, update), SEARCH).normal(pairs, n)


class SameWorlds:
    """Every candidate in the same `n_worlds` worlds: world w of candidate c is row c n_worlds + w.

    Rows of one world start from equal states and meet equal random numbers.
    """

    def __init__(
        self,
        system: System,
        candidates: int,
        n_worlds: int,
        seed: int,
        *,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self.n_worlds, self.candidates = n_worlds, candidates
        rows = candidates * n_worlds
        self.env = VectorEnv(system, rows, seed=seed, autoreset=False, dtype=dtype)
        self._seed = seed

    def start(self, first_world: int) -> np.ndarray:
        """Begin episodes in the worlds from `first_world` on; observations [rows, agents, size]."""
        original = VectorEnv(
            self.env.system, self.n_worlds, seed=self._seed, first_world=first_world
        )
        original.reset()
        saved = {
            name: np.tile(value, (self.candidates, *(1,) * (value.ndim - 1)))
            if isinstance(value, np.ndarray)
            else value
            for name, value in original.save().items()
        }
        return self.env.restore(saved)

    def policy(self, forward: PopulationForward) -> Policy:
        """All candidates as one policy of `env`; only of who acts an output is computed."""

        def output(observation: Tensor) -> Tensor:
            acts = self.env.active().reshape(self.candidates, -1)
            most = max(int(acts.sum(1).max()), 1)
            if most > _CROWDED * acts.shape[1]:
                return forward(observation)
            chosen = torch.from_numpy(np.argsort(~acts, axis=1, kind="stable")[:, :most])
            rows = observation.reshape(*acts.shape, -1)
            size = rows.shape[-1]
            picked = rows.gather(1, chosen[..., None].expand(-1, -1, size))
            answer = forward(picked.reshape(-1, 1, size))
            answer = answer.reshape(self.candidates, most, -1)
            full = answer.new_zeros(*acts.shape, answer.shape[-1])
            full.scatter_(1, chosen[..., None].expand_as(answer), answer)
            return full.reshape(*observation.shape[:-1], -1)

        return _policy(self.env.system, output)


class Trainer:
    """Weights, optimizer and counter of an evolution strategy; `state_dict` holds all there is.

    An update is a generation. Its row holds means over all candidates, whose weights are perturbed,
    and not scores of the weights themselves; these are scored (see `EpisodeLog`) only where no
    whole episodes are played. Every candidate's world counts in full as agent-steps, even if it
    ends early.
    """

    def __init__(self, system: System, config: ESConfig, *, seed: int, steps: int) -> None:
        require_count("steps", steps)
        if config.rollout > system.horizon:
            raise ValueError(
                f"rollout={config.rollout} must be at most the horizon, {system.horizon} steps "
                "(0: whole episodes)"
            )
        known = network_names(system)
        name = config.network or known[0]
        require_choice("network", name, known)
        self.system, self.config, self.seed = system, config, seed
        candidates = 2 * config.pairs
        length = config.rollout or system.horizon
        self.per_update = candidates * config.n_worlds * length * system.n_agents
        self.updates = -(-steps // self.per_update)
        self.update = 0
        device = computing_device(config.device)
        self.network = make_network(name, system, seed, width=config.width).to(device)
        self.n_parameters = sum(weight.numel() for weight in self.network.parameters())
        require_memory(
            f"pairs={config.pairs} with n_worlds={config.n_worlds} and width={config.width}",
            candidates * 12 * self.n_parameters
            + candidates * config.n_worlds * system.n_agents * 4 * config.width,
        )
        self._log: EpisodeLog | None = None
        if length < system.horizon:
            self._log = EpisodeLog(
                system, updates=self.updates, rollout=length, n_worlds=config.n_worlds, seed=seed
            )
        self._worlds = SameWorlds(system, candidates, config.n_worlds, seed)
        make, arguments = choose(config)
        self.optimizer = make(self.network.parameters(), lr=config.lr, **arguments)
        self._regimes = StepRecorder(config.regimes) if config.regimes else None
        if self._regimes is not None:
            self.watch(self._regimes)

    @property
    def steps(self) -> int:
        """Agent-steps of all candidates so far."""
        return self.update * self.per_update

    def policy(self) -> Policy:
        """The policy as it is now, without noise on its weights."""
        return _network_policy(self.system, self.network)

    def use(self, system: System) -> None:
        """Play from the next update on under other parameters."""
        self._worlds.env.use(system)
        if self._log is not None:
            self._log.system = system

    def __iter__(self) -> Iterator[Update]:
        """Run the updates that are left, one at a time."""
        while self.update < self.updates:
            yield self._step()

    def _step(self) -> Update:
        config, done = self.config, self.update / self.updates
        std = config.std * (config.std_final / config.std) ** done
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * done))
        noise = search_noise(self.seed, self.update, config.pairs, self.n_parameters)
        scores = self._play(noise, std)
        ranks = centred_ranks(scores["return"].reshape(-1, config.n_worlds))
        loss_gradient = -gradient_estimate(noise, torch.from_numpy(ranks), std)
        _set_gradient(self.network, loss_gradient)
        self.optimizer.step()
        self.update += 1
        row = score_means(scores)
        loss = row["loss"]
        if self._log is not None:
            row = {**self._log.row(self.update, self.policy()), "rollout_loss": loss}
        row |= {"grad_norm": float(loss_gradient.norm()), "std": std}
        regimes = self._regimes.row() if self._regimes is not None else {}
        return Update(self.steps, {**row, **regimes}, loss)

    def _play(self, noise: Tensor, std: float) -> Scores:
        """Scores [candidates * worlds] of the generation with this noise [pairs, n]."""
        with torch.no_grad():
            theta = nn.utils.parameters_to_vector(self.network.parameters()).double().cpu()
        weights = torch.cat([theta + std * noise, theta - std * noise])
        worlds = self._worlds
        return run_episodes(
            worlds.env,
            worlds.policy(self._forward(weights)),
            deterministic=not self.system.stochastic,
            started=worlds.start(self.update * self.config.n_worlds),
            steps=self.config.rollout or None,
        )

    def _forward(self, weights: Tensor) -> PopulationForward:
        """All candidates on the device of the network; observations and outputs are on the CPU."""
        device = next(self.network.parameters()).device
        forward = population_forward(self.network, weights.to(device))
        if device.type == "cpu":
            return forward
        return lambda observation: forward(observation.to(device)).cpu()

    def watch(self, steps: StepRecorder) -> None:
        """Let `steps` see every step of the optimizer from now on."""
        steps.attach(self.optimizer, self.network.named_parameters())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers from which `load_state_dict` continues exactly."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "update": self.update,
        }
        if self._regimes is not None:
            state["regimes"] = self._regimes.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        require_count("update", state["update"], 0)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.update = state["update"]
        if self._regimes is not None:
            self._regimes.load_state_dict(state["regimes"])

    def save_policy(self, path: Path) -> None:
        """Write the network as the actor of a model for `PPO.load`."""
        sb3.export(self.system, self.network, self.config.network, self.config.width, path)


def load_policy(
    system: System, config: ESConfig, state: dict[str, Any], device: str = "cpu"
) -> Policy:
    """The policy in a trainer's `state_dict`, to compute on a device, wherever it was trained."""
    network = make_network(config.network or network_names(system)[0], system, width=config.width)
    network.load_state_dict(state["network"])
    network.requires_grad_(False)
    return _network_policy(system, network.to(computing_device(device)))


def _network_policy(system: System, network: nn.Module) -> Policy:
    if is_discrete(system):
        return CategoricalPolicy(computing(network))
    return network_policy(network)


def _policy(system: System, output: PopulationForward) -> Policy:
    """Actions from what networks give."""
    if is_discrete(system):
        return CategoricalPolicy(output)
    return lambda observation, rng: output(observation).clamp(-1, 1)


def _set_gradient(network: nn.Module, gradient: Tensor) -> None:
    """Write a gradient [n] into `.grad` of the parameters."""
    start = 0
    for weight in network.parameters():
        stop = start + weight.numel()
        weight.grad = gradient[start:stop].to(weight).reshape(weight.shape)
        start = stop
