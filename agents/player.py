"""A policy at work in the worlds of a batch, with what it remembers of them."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..envs.core.rng import POLICY, Rng
from ..envs.core.validation import shown
from ..envs.core.vector import Step, VectorEnv
from .policy import OwnPolicy, Policy

_MEMORY = "memory."  # how parts of a policy's memory are named among what is saved
_FORMER = {"heeds_masks": "legal_actions"}  # what said the same until 1.0


@final
class Player:
    """A policy that acts in `env`.

    A policy on observations is asked with them. One of the system's `state_policies` is asked with
    the state itself, and what it remembers is kept here: worlds whose episode has just begun, of
    age 0, remember nothing of the one before. One with an attribute `also_sees` is handed a
    tensor more, what the method of `VectorEnv` of that name returns: "legal_actions" or "active".

    deterministic: hand the policy no generator.
    """

    def __init__(self, env: VectorEnv, policy: Policy, *, deterministic: bool = False) -> None:
        if not callable(policy):
            raise ValueError(
                f"policy={shown(policy)} is no function of observations, as "
                "make_policy(name, system) and load_run(folder).policy are"
            )
        self.env, self.policy, self.deterministic = env, policy, deterministic
        self._own = policy.of_state if isinstance(policy, OwnPolicy) else None
        self._also_seen = [getattr(env, name) for name in _also_sees(policy)]
        self._memory: tuple[Tensor, ...] | None = None

    @property
    def unbounded(self) -> bool:
        """Whether its actions may lie outside the box of actions."""
        return self._own is not None

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions [worlds, agents, ...] for the present state, which looks like `observation`.

        To be called once a step: a policy remembers each call.
        """
        env = self.env
        with torch.no_grad():
            if self._own is not None:
                return self._act_on_state()
            rng = None if self.deterministic else env.rng(POLICY)
            asked: Any = self.policy
            more = [torch.from_numpy(look()) for look in self._also_seen]
            return np.asarray(asked(torch.from_numpy(observation), rng, *more))

    def step(self, observation: np.ndarray) -> Step:
        """Act and let all worlds make a step."""
        return self.env.step(self.act(observation), unbounded=self.unbounded)

    def save(self) -> dict[str, Any]:
        """What `restore` needs: that of the batch, and the memory."""
        parts = enumerate(self._memory or ())
        return {**self.env.save(), **{f"{_MEMORY}{i}": part.numpy().copy() for i, part in parts}}

    def restore(self, saved: dict[str, Any]) -> np.ndarray:
        """Go back to what `save` returned; returns observations.

        Raises ValueError for what another policy or other worlds saved; then nothing has changed.
        """
        parts = [np.array(saved[name]) for name in _parts(saved)]
        self.env.require_reset("restore()")
        fresh = self._start(self.env.tensors)
        shapes = [tuple(part.shape) for part in fresh]
        if parts and [part.shape for part in parts] != shapes:
            given = [part.shape for part in parts]
            raise ValueError(f"memory of shapes {given} was saved, not {shapes}: another policy's")
        observation = self.env.restore(saved)
        self._memory = tuple(torch.from_numpy(part) for part in parts) if parts else None
        return observation

    def _act_on_state(self) -> np.ndarray:
        assert self._own is not None
        env, state = self.env, self.env.tensors
        begun = torch.from_numpy(env.age == 0)
        memory = self._memory
        if memory is None or bool(begun.all()):
            memory = self._start(state)
        elif bool(begun.any()):
            for part, fresh in zip(memory, self._start(state), strict=True):
                part[begun] = fresh[begun]
        rng = Rng.single(0, env.n_worlds) if self.deterministic else env.rng(POLICY)
        action, memory = self._own.act(state, memory, rng)
        self._memory = tuple(part.clone() for part in memory)  # it may share the state's numbers
        return action.numpy()

    def _start(self, state: Any) -> tuple[Tensor, ...]:
        started = self._own.start(state) if self._own is not None else ()
        return tuple(part.clone() for part in started)


def _also_sees(policy: Policy) -> list[str]:
    former = [method for name, method in _FORMER.items() if getattr(policy, name, False)]
    name = getattr(policy, "also_sees", None)
    return former if name is None else [name]


def _parts(saved: dict[str, Any]) -> list[str]:
    """Names of the parts of a memory, in order."""
    names = [name for name in saved if name.startswith(_MEMORY)]
    return sorted(names, key=lambda name: int(name.removeprefix(_MEMORY)))
