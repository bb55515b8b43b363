"""Our networks as Stable-Baselines3 policies: for PPO and A2C, and for SAC.

Sampling draws from the policy's own generator, never from torch's global one.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ...agents.networks.agents import AgentNetworks
from ...agents.networks.choose import make_network
from ...agents.networks.layers import (
    PreparedNetwork,
    action_size,
    initialise,
    inputs_of,
    output_of,
)
from ...agents.networks.neighbours import PairNetwork
from ...agents.networks.plain import PlainNetwork
from ...agents.policy import Policy, computing
from ...envs.core.rng import Rng
from ...envs.core.system import System
from .categorical import CategoricalPolicy, MaskedPolicy
from .processes import Share

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Scaled(BaseFeaturesExtractor):
    """An observation in a bounded box brought to [-2, 2]."""

    low: Tensor
    factor: Tensor

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, observation_space.shape[0])
        low, high = (
            torch.from_numpy(observation_space.low),
            torch.from_numpy(observation_space.high),
        )
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("factor", 4 / (high - low).clamp(min=1e-6), persistent=False)

    def forward(self, observation: Tensor) -> Tensor:
        return (observation - self.low) * self.factor - 2


class ValueNetwork(nn.Sequential, PreparedNetwork):
    """`Scaled`, then layers."""

    def inputs(self, observation: Tensor) -> tuple[Tensor, ...]:
        """The scaled observation."""
        return (self[0](observation),)

    def output(self, scaled: Tensor) -> Tensor:
        """What the layers make of it."""
        for layer in islice(self, 1, None):
            scaled = layer(scaled)
        return scaled


class PolicyInputs(NamedTuple):
    """What networks make of observations before their weights come in, rows first."""

    actor: tuple[Tensor, ...]
    critic: tuple[Tensor, ...]

    def rows(self, chosen: Tensor) -> PolicyInputs:
        """Some of the rows."""
        parts = ([part.index_select(0, chosen) for part in own] for own in self)
        return PolicyInputs(*map(tuple, parts))

    @staticmethod
    def joined(parts: list[PolicyInputs]) -> PolicyInputs:
        """Rows of all parts, one after another."""
        whole = (tuple(map(torch.cat, zip(*own, strict=True))) for own in zip(*parts, strict=True))
        return PolicyInputs(*whole)

    def to(self, device: torch.device | str) -> PolicyInputs:
        """On another device."""
        return PolicyInputs(*(tuple(part.to(device) for part in own) for own in self))


class OwnNetworkPolicy(BasePolicy):
    """A policy of SB3 around one of our networks; the other base is SB3's own class.

    network: what the networks are made of, from which a saved policy is made again.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        system: System,
        network: str,
        width: int,
        critic_width: int,
        seed: int = 0,
        log_std_init: float = -1.0,
        **settings: Any,
    ) -> None:
        self.network: dict[str, Any] = {
            "system": system,
            "network": network,
            "width": width,
            "critic_width": critic_width,
            "seed": seed,
        }
        super().__init__(
            observation_space, action_space, lr_schedule, log_std_init=log_std_init, **settings
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self.network}


class NetworkActorCritic(OwnNetworkPolicy):
    """Actions around the output of one of our networks, or chosen with it as logits.

    The value comes from a network of its own with two hidden layers of `critic_width` (it sees
    neighbours by distance, so their numbering does not matter); with "mlp" the action and the value
    share the hidden layers.
    """

    processes: Share | None = None  # that train together
    heeds_masks: ClassVar[bool] = False
    latest: tuple[Tensor, PolicyInputs] | None = None  # observations that it acted on last
    action_dist: Any
    log_std_init: float

    def _build(self, lr_schedule: Schedule) -> None:
        made = self.network
        self.generator = torch.Generator().manual_seed(made["seed"])
        self.discrete = isinstance(self.action_space, spaces.Discrete)
        self.actor = self._make_actor()
        if isinstance(self.actor, PairNetwork):
            self.actor.skip_empty = True
        self.critic = self._make_critic()
        if not self.discrete:
            start = torch.full(self._spread_shape(), float(self.log_std_init))
            self.log_std = nn.Parameter(start)
        settings: dict[str, Any] = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), **settings)

    def _make_actor(self) -> nn.Module:
        made = self.network
        return make_network(made["network"], made["system"], made["seed"], width=made["width"])

    def _spread_shape(self) -> tuple[int, ...]:
        """Of the logarithms of standard deviations."""
        assert self.action_space.shape is not None
        return self.action_space.shape

    def _make_critic(self) -> nn.Module:
        critic: nn.Module = nn.Linear(self.network["width"], 1)
        if not isinstance(self.actor, PlainNetwork):
            critic = value_network(self.observation_space, self.network["critic_width"])
        initialise(critic, self.network["seed"] + 1)
        return critic

    def inputs(self, observation: Tensor) -> PolicyInputs:
        """What of `heads` does not hang on weights; `evaluate_actions` takes it too."""
        shared = isinstance(self.actor, PlainNetwork)
        of_critic = () if shared else inputs_of(self.critic, observation)
        return PolicyInputs(inputs_of(self.actor, observation), of_critic)

    def _noted_inputs(self, observation: Tensor) -> Any:
        """The same, remembered for the buffer that is handed these observations next."""
        inputs = self.inputs(observation)
        self.latest = None if torch.is_grad_enabled() else (observation, inputs)
        return inputs

    def noted_inputs(self, observation: np.ndarray) -> PolicyInputs | None:
        """Inputs of these observations, if they are those, in memory, that it acted on last."""
        if self.latest is None or self.latest[0].device.type != "cpu":
            return None
        seen, inputs = self.latest
        return inputs if seen.data_ptr() == observation.ctypes.data else None

    def heads(self, observation: Any) -> tuple[Tensor, Tensor]:
        """Mean or logits [..., actions], and value [..., 1]; of observations or of `inputs`."""
        made = isinstance(observation, PolicyInputs)
        inputs = observation if made else self.inputs(observation)
        if isinstance(self.actor, PlainNetwork):
            hidden = self.actor.hidden(*inputs.actor)
            return self.actor.net[-1](hidden), self.critic(hidden)
        return output_of(self.actor, inputs.actor), output_of(self.critic, inputs.critic)

    def output(self, observation: Any) -> Tensor:
        """Mean or logits [rows, actions]."""
        return self.heads(observation)[0]

    def spread(self, observation: Any) -> Tensor:
        """Logarithm of the standard deviation of the actions, of all rows or [rows, actions]."""
        return self.log_std

    @property
    def agent_spread(self) -> Tensor:
        """The same of all agents, or [agents, actions]."""
        return self.log_std

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        output, value = self.heads(self._noted_inputs(obs))
        action = self._choose(obs, output, deterministic)
        return action, value, self._log_prob(obs, output, action)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self._evaluate(obs, *self.heads(obs), actions)

    def _evaluate(
        self, obs: Any, output: Tensor, value: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.discrete:
            log_probs = output.log_softmax(-1)
            entropy = -(log_probs.exp() * log_probs).sum(-1)
        else:
            entropy = (self.spread(obs) + 0.5 + _LOG_SQRT_2PI).sum(-1).expand(len(output))
        return value, self._log_prob(obs, output, actions), entropy

    def predict_values(self, obs: Any) -> Tensor:
        return self.heads(obs)[1]

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        assert isinstance(obs, Tensor)
        output = self.output(obs)
        more = () if self.discrete else (self.spread(obs),)
        return self.action_dist.proba_distribution(output, *more)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        return self._choose(observation, self.output(observation), deterministic)

    def _choose(self, observation: Any, output: Tensor, deterministic: bool) -> Tensor:
        if self.discrete:
            if deterministic:
                return output.argmax(-1)
            chances = output.softmax(-1)
            return self._drawn(chances.cpu()).to(output.device)
        if deterministic:
            return output
        noise = self._noise(output.shape).to(output.device)
        return output + self.spread(observation).exp() * noise

    def _noise(self, shape: torch.Size) -> Tensor:
        """Standard normal numbers; of several processes each takes its share of the same ones."""
        if self.processes is None:
            return torch.randn(shape, generator=self.generator)
        whole = (self.processes.size * shape[0], *shape[1:])
        return self.processes.part(torch.randn(whole, generator=self.generator))

    def _drawn(self, chances: Tensor) -> Tensor:
        """Choices [rows]; of several processes each takes its share, as torch draws them.

        Raises ValueError for chances that are no numbers.
        """
        if not chances.isfinite().all():
            raise ValueError("the chances of actions are not finite: the training has diverged")
        if self.processes is None:
            return torch.multinomial(chances, 1, generator=self.generator).squeeze(-1)
        whole = chances.new_empty(self.processes.size * len(chances), chances.shape[1])
        waiting = self.processes.part(whole.exponential_(generator=self.generator))
        return (chances / waiting).argmax(-1)

    def _log_prob(self, observation: Any, output: Tensor, action: Tensor) -> Tensor:
        if self.discrete:
            index = action.long().unsqueeze(-1)
            return output.log_softmax(-1).gather(-1, index).squeeze(-1)
        density: Tensor = GaussianDensity.apply(action, output, self.spread(observation))
        return density


class NetworkPolicy(NetworkActorCritic, ActorCriticPolicy):
    """The same for PPO and A2C."""


class NetworkActor(Actor):
    """SAC's actor: tanh of a Gaussian around the output of one of our networks."""

    def __init__(
        self,
        *,
        system: System,
        network: str,
        width: int,
        critic_width: int,
        seed: int,
        **settings: Any,
    ) -> None:
        super().__init__(**{**settings, "net_arch": []})
        self.generator = torch.Generator().manual_seed(seed)
        self.mu = make_network(network, system, seed, width=width)
        log_std = value_network(self.observation_space, critic_width, action_size(system))
        initialise(log_std, seed + 1)
        last = log_std[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, self.log_std_init)
        self.add_module("log_std", log_std)  # in place of SB3's single layer

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> Tensor:
        mean, log_std, _ = self.get_action_dist_params(obs)
        return mean.tanh() if deterministic else self._sample(mean, log_std)[0]

    def action_log_prob(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        mean, log_std, _ = self.get_action_dist_params(obs)
        return self._sample(mean, log_std)

    def _sample(self, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.randn(mean.shape, generator=self.generator).to(mean.device)
        raw = mean + log_std.exp() * noise
        squashed = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))  # log of 1 - tanh^2
        return raw.tanh(), _gaussian(noise, log_std) - squashed.sum(-1)


class NetworkSACPolicy(OwnNetworkPolicy, SACPolicy):
    """SAC's actor and critics around one of our networks."""

    actor: NetworkActor

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        critic_width: int,
        **settings: Any,
    ) -> None:
        settings |= {"net_arch": [critic_width] * 2, "features_extractor_class": Scaled}
        super().__init__(
            observation_space, action_space, lr_schedule, critic_width=critic_width, **settings
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        initialise(self.critic, self.network["seed"] + 2)
        self.critic_target.load_state_dict(self.critic.state_dict())

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> NetworkActor:
        flat = FlattenExtractor(self.observation_space)
        settings = self._update_features_extractor(self.actor_kwargs, flat)
        return NetworkActor(**settings, **self.network).to(self.device)


def network_of(policy: NetworkActorCritic | NetworkSACPolicy) -> nn.Module:
    """The network that decides, without exploration."""
    actor = policy.actor
    return actor.mu if isinstance(actor, NetworkActor) else actor


def as_policy(policy: NetworkActorCritic | NetworkSACPolicy) -> Policy:
    """The same as a function of observations [worlds, agents, size]; it draws from `rng`."""
    return _squashed(policy) if isinstance(policy, NetworkSACPolicy) else _plain(policy)


def _plain(policy: NetworkActorCritic) -> Policy:
    if policy.discrete:
        categorical = (MaskedPolicy if policy.heeds_masks else CategoricalPolicy)(
            computing(policy.actor)
        )
        if isinstance(policy.actor, AgentNetworks):  # no law of a single observation
            return lambda observation, rng: categorical(observation, rng)
        return categorical

    network = computing(policy.actor)

    def choose(observation: Tensor, rng: Rng | None) -> Tensor:
        output = network(observation)
        if rng is not None:
            spread = policy.agent_spread.exp().to(output.device)
            output = output + spread * rng.normal(*output.shape)
        return output.clamp(-1, 1)

    return choose


def _squashed(policy: NetworkSACPolicy) -> Policy:
    def choose(observation: Tensor, rng: Rng | None) -> Tensor:
        flat = observation.to(policy.device, torch.float32).flatten(0, 1)
        mean, log_std, _ = policy.actor.get_action_dist_params(flat)
        mean, log_std = mean.to(observation.device), log_std.to(observation.device)
        if rng is not None:
            noise = rng.normal(*observation.shape[:2], mean.shape[-1])
            mean = mean + log_std.exp() * noise.flatten(0, 1)
        return mean.tanh().reshape(*observation.shape[:2], -1)

    return choose


def value_network(space: spaces.Space, width: int, outputs: int = 1) -> ValueNetwork:
    """Two hidden layers from an observation to `outputs` numbers."""
    assert isinstance(space, spaces.Box)
    return ValueNetwork(
        Scaled(space),
        nn.Linear(space.shape[0], width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )


class GaussianDensity(torch.autograd.Function):
    """Log density [rows] of actions [rows, size] around means, by logarithms of spreads.

    log_std: [size] or [rows, size]. Differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        shrunk = (-log_std).exp()
        noise = (action - mean).mul_(shrunk)
        ctx.save_for_backward(noise, shrunk)
        return _gaussian(noise, log_std)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        noise, shrunk = ctx.saved_tensors
        each = gradient.unsqueeze(-1)
        pull = noise * each
        of_spread = (pull * noise).sub_(each)
        if shrunk.ndim == 1:
            of_spread = of_spread.sum(0)
        of_mean = pull.mul_(shrunk)
        return -of_mean if ctx.needs_input_grad[0] else None, of_mean, of_spread


def _gaussian(noise: Tensor, log_std: Tensor) -> Tensor:
    """Log density of mean + exp(log_std) noise [..., size] -> [...]."""
    constant = noise.shape[-1] * _LOG_SQRT_2PI
    return -0.5 * noise.square().sum(-1) - log_std.sum(-1) - constant
