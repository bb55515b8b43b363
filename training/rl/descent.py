"""Descent: back-propagation of the summed loss through the dynamics into the policy's weights.

The agents' expected loss is a differentiable function of the weights because transition,
invariants and loss are. A batch of worlds is rolled out in torch and the mean loss per agent and
step is lowered by Adam, or another optimizer, with a cosine learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...agents.networks.agents import make_networks
from ...agents.networks.choose import network_names
from ...envs.core.memory import require_memory
from ...envs.core.observation import flatten, is_discrete
from ...envs.core.rng import INITIAL, TRANSITION, Rng
from ...envs.core.system import System
from ...envs.core.validation import require_choice, require_count
from ..optim.config import choose
from .configs import DescentConfig
from .devices import computing_device


class Update(NamedTuple):
    """What one update leaves: the loss per agent and step of its rollout, and the gradient's norm.

    A rollout has as many steps as it is given, from the start of episodes on and past their end, so
    its loss is not that of whole ones.
    """

    update: int
    loss: float
    grad_norm: float


class Trainer:
    """Weights, optimizer and counter of a descent run; `state_dict` holds all there is."""

    def __init__(self, system: System, config: DescentConfig, seed: int, updates: int) -> None:
        require_count("updates", updates)
        device = computing_device(config.device)
        if is_discrete(system):
            raise ValueError("descent needs continuous actions; use ppo or a2c here")
        if not system.differentiable:
            raise ValueError("descent needs a loss with a gradient; events are drawn here: use ppo")
        slots = config.rollout * config.n_worlds * system.n_agents
        width = sum(bound.width for bound in system.bounds.values())
        what = f"rollout={config.rollout} of n_worlds={config.n_worlds}"
        require_memory(what, 4 * slots * (width + config.width))
        known = network_names(system)
        name = config.network or known[0]
        require_choice("network", name, known)
        self.system, self.config, self.seed, self.updates = system, config, seed, updates
        dtype = torch.float64 if config.float64 else torch.float32
        self.network = make_networks(name, system, seed, width=config.width, share=config.share)
        self.network.to(device, dtype)
        make, arguments = choose(config)
        self.optimizer = make(self.network.parameters(), lr=config.lr, **arguments)
        self.update = 0
        self._dtype = dtype

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers from which `load_state_dict` continues exactly."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "update": self.update,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.update = state["update"]

    def __iter__(self) -> Iterator[Update]:
        """Run the updates that are left, one at a time."""
        while self.update < self.updates:
            yield self._step()

    def _step(self) -> Update:
        config = self.config
        for group in self.optimizer.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * self.update / self.updates))
            group["lr"] = config.lr * cosine
        loss = rollout_loss(
            self.system,
            self.network,
            seed=self.seed,
            first_world=self.update * config.n_worlds,
            n_worlds=config.n_worlds,
            steps=config.rollout,
            dtype=self._dtype,
            device=config.device,
        )
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self.update += 1
        return Update(self.update, float(loss.detach()), float(norm))


def rollout_loss(
    system: System,
    network: nn.Module,
    *,
    seed: int,
    first_world: int,
    n_worlds: int,
    steps: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Mean loss per agent and step of a differentiable rollout.

    World i starts as world `first_world + i` of `seed` does everywhere else.
    """
    world = torch.arange(first_world, first_world + n_worlds, device=device)
    clock = torch.zeros_like(world)
    state = system.initial(Rng(seed, world, clock, INITIAL), n_worlds)
    state = type(state)(*(p.to(dtype) if p.is_floating_point() else p for p in state))
    total = torch.zeros((), dtype=dtype, device=device)
    for _ in range(steps):
        clock = clock + 1
        observation = flatten(system, system.invariants(state)).to(dtype)
        action = network(observation).clamp(-1, 1)
        after = system.transition(state, action, Rng(seed, world, clock, TRANSITION))
        total = total + system.loss(state, action, after).mean()
        state = after
    return total / steps
