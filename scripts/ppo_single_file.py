"""PPO in one file, on `gymnasium.make_vec` alone: to be read, copied and changed.

    python -m invariantzoo.ppo_single_file particles-encounter-v0 --steps 400000

All agents of all worlds share one policy. Actions may be continuous or discrete; what `action_mask`
forbids has no chance. Runs with checkpoints, scores and films are made by `invariantzoo train`.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

import invariantzoo


@dataclass(frozen=True)
class Settings:
    """Steps are agent-steps: one agent in one step of one world."""

    steps: int = 400_000
    worlds: int = 64
    rollout: int = 32
    epochs: int = 4
    batch: int = 4096
    width: int = 64
    lr: float = 1e-3
    gamma: float = 0.95
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    longest_gradient: float = 0.5
    reward_scale: float = 0.1
    seed: int = 0


class Batch(NamedTuple):
    """A rollout, arrays [steps, slots, …]."""

    seen: Tensor
    action: Tensor
    mask: Tensor
    log_prob: Tensor
    advantage: Tensor
    target: Tensor


class Agent(nn.Module):
    """Policy and value: two networks on observations that are brought to [-1, 1]."""

    def __init__(self, envs: Any, width: int, rng: torch.Generator) -> None:
        super().__init__()
        seen, acts = envs.single_observation_space, envs.single_action_space
        self.low, self.range = torch.from_numpy(seen.low), torch.from_numpy(seen.high - seen.low)
        self.discrete = isinstance(acts, spaces.Discrete)
        self.outputs = int(acts.n) if self.discrete else acts.shape[0]
        self.actor = network((len(seen.low), width, width, self.outputs), 0.01, rng)
        self.critic = network((len(seen.low), width, width, 1), 1.0, rng)
        self.log_std = nn.Parameter(torch.full((self.outputs,), -1.0))

    def scaled(self, seen: Tensor) -> Tensor:
        return 2 * (seen - self.low) / self.range.clamp(min=1e-6) - 1

    def policy(self, seen: Tensor, mask: Tensor) -> Distribution:
        """What is done at observations [..., size], where masks [..., n] allow it."""
        output = self.actor(self.scaled(seen))
        if self.discrete:
            return Categorical(logits=output.masked_fill(~mask, -1e8), validate_args=False)
        return Independent(Normal(output, self.log_std.exp(), validate_args=False), 1)

    def value(self, seen: Tensor) -> Tensor:
        return self.critic(self.scaled(seen)).squeeze(-1)


def network(sizes: tuple[int, ...], last: float, rng: torch.Generator) -> nn.Sequential:
    """Layers with tanh between them; `last` scales the weights of the last one."""
    layers: list[nn.Module] = []
    for n, (inputs, outputs) in enumerate(pairwise(sizes), 2):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        nn.init.orthogonal_(layer.weight, last if n == len(sizes) else 2**0.5, generator=rng)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def draw(policy: Distribution, rng: torch.Generator) -> Tensor:
    """A sample from our own generator: torch's distributions take the global one."""
    if isinstance(policy, Categorical):
        return torch.multinomial(policy.probs, 1, generator=rng).squeeze(-1)
    return policy.mean + policy.stddev * torch.randn(policy.mean.shape, generator=rng)


def train(id: str, settings: Settings, watch: Any = print) -> tuple[Agent, list[dict[str, float]]]:
    """The trained agent, and a row after every update, with which `watch` is called too."""
    rng = torch.Generator().manual_seed(settings.seed)
    n_agents = invariantzoo.make_system(id).n_agents
    envs = gymnasium.make_vec(f"invariantzoo/{id}", num_envs=settings.worlds * n_agents)
    agent = Agent(envs, settings.width, rng)
    optimizer = torch.optim.Adam(agent.parameters(), settings.lr, eps=1e-5)
    per_update = settings.rollout * envs.num_envs
    updates, rows = -(-settings.steps // per_update), []
    observation, infos = envs.reset(seed=settings.seed)
    all_legal = np.ones((envs.num_envs, agent.outputs), np.int8)
    running, latest = np.zeros(envs.num_envs), float("nan")
    start = time.process_time()
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = settings.lr * (1 - update / updates)
        steps: list[Any] = []
        ended: list[float] = []
        for _ in range(settings.rollout):
            seen = torch.from_numpy(observation)
            mask = torch.from_numpy(infos.get("action_mask", all_legal)).bool()
            with torch.no_grad():
                policy, value = agent.policy(seen, mask), agent.value(seen)
                action = draw(policy, rng)
                log_prob = policy.log_prob(action)
            given = action.numpy() if agent.discrete else action.clamp(-1, 1).numpy()
            observation, reward, terminated, truncated, infos = envs.step(given)
            running += reward
            gain, over = (
                settings.reward_scale * torch.from_numpy(reward).float(),
                terminated | truncated,
            )
            if over.any():
                ended += running[over].tolist()
                running[over] = 0
                cut = np.flatnonzero(truncated)  # what would have followed counts by its value
                last = torch.from_numpy(np.stack(infos["final_obs"][over]))[truncated[over]]
                with torch.no_grad():
                    gain[cut] += settings.gamma * agent.value(last)
            steps.append((seen, action, mask, log_prob, value, gain, torch.from_numpy(~over)))
        batch = advantages(agent, steps, torch.from_numpy(observation), settings)
        improve(agent, optimizer, batch, settings, rng)
        latest = float(np.mean(ended)) if ended else latest
        speed = (update + 1) * per_update / (time.process_time() - start)
        rows.append({"steps": (update + 1) * per_update, "return": latest, "steps/CPU s": speed})
        watch(rows[-1])
    envs.close()
    return agent, rows


def advantages(agent: Agent, steps: list[Any], after: Tensor, settings: Settings) -> Batch:
    """Generalized advantage estimation (Schulman et al. 2016), backwards through the rollout."""
    seen, action, mask, log_prob, value, gain, goes_on = map(torch.stack, zip(*steps, strict=True))
    with torch.no_grad():
        following, carried = agent.value(after), torch.zeros(seen.shape[1])
    advantage = torch.zeros_like(value)
    for t in reversed(range(len(steps))):
        error = gain[t] + settings.gamma * goes_on[t] * following - value[t]
        carried = error + settings.gamma * settings.gae_lambda * goes_on[t] * carried
        advantage[t], following = carried, value[t]
    return Batch(seen, action, mask, log_prob, advantage, advantage + value)


def improve(agent: Agent, optimizer: Any, batch: Batch, settings: Settings, rng: Any) -> None:
    """The gradient steps of an update (Schulman et al. 2017)."""
    flat = Batch(*(column.flatten(0, 1) for column in batch))
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(flat.seen), generator=rng).split(settings.batch):
            seen, action, mask, log_prob, advantage, target = (column[rows] for column in flat)
            policy = agent.policy(seen, mask)
            ratio = (policy.log_prob(action) - log_prob).exp()
            if len(rows) > 1:  # one has no spread
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            loss = -torch.min(ratio * advantage, clipped * advantage).mean()
            loss = loss + settings.value_weight * (agent.value(seen) - target).square().mean()
            loss = loss - settings.entropy_weight * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), settings.longest_gradient)
            optimizer.step()


def main() -> None:
    """Train from the command line and print a row per update."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("id")
    for field in dataclasses.fields(Settings):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=type(field.default), default=field.default)
    given = vars(parser.parse_args())
    torch.set_num_threads(1)
    train(given.pop("id"), Settings(**given))


if __name__ == "__main__":
    main()
