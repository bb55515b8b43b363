"""Small parallel environments: sound ones of several kinds, and ones with a single planted defect.

`HEALTHY` lists the sound ones; `DEFECTS` pairs a defective one with the name of the finding.
Torch is imported by the two that need it: the processes in which others are checked start sooner.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

HEALTHY: list[Callable[..., ParallelEnv]] = []
DEFECTS: list[tuple[str, Callable[..., ParallelEnv]]] = []


def healthy(cls: type) -> type:
    """List a class as sound."""
    HEALTHY.append(cls)
    return cls


def defect(name: str) -> Callable[[type], type]:
    """List a class as one in which `name` must be found."""

    def listed(cls: type) -> type:
        DEFECTS.append((name, cls))
        return cls

    return listed


# --- sound environments --------------------------------------------------------------------------


@healthy
class Walkers(ParallelEnv):
    """Walkers in a square that are pushed by their actions and by chance, until time is up."""

    metadata: ClassVar[dict] = {"name": "walkers_v0", "render_modes": ["human", "rgb_array"]}
    horizon = 20

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.possible_agents = [f"walker_{i}" for i in range(3)]
        self.agents: list[str] = []
        self.rng: np.random.Generator | None = None
        self._spaces = {agent: self.make_spaces(agent) for agent in self.possible_agents}
        self.state_space = spaces.Box(-2, 2, (6,), np.float64)

    def make_spaces(self, agent: str) -> tuple[spaces.Space, spaces.Space]:
        return spaces.Box(-2, 2, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)

    def observation_space(self, agent: str) -> spaces.Space:
        return self._spaces[agent][0]

    def action_space(self, agent: str) -> spaces.Space:
        return self._spaces[agent][1]

    def seed(self, seed: int | None) -> None:
        if seed is not None or self.rng is None:
            self.rng = np.random.default_rng(seed)

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        self.seed(seed)
        self.agents = self.possible_agents[:]
        self.age = 0
        self.start()
        return self.observations(self.agents), self.infos(self.agents)

    def start(self) -> None:
        self.x = {agent: self.rng.uniform(-1, 1, 2) for agent in self.agents}

    def step(self, actions: dict) -> tuple:
        acting = self.agents
        self.age += 1
        self.move(actions)
        terminated, truncated = self.terminations(acting), self.truncations(acting)
        self.agents = [a for a in acting if not (terminated[a] or truncated[a])]
        rewards = self.rewards(acting)
        return self.observations(acting), rewards, terminated, truncated, self.infos(acting)

    def move(self, actions: dict) -> None:
        for agent in self.agents:
            self.x[agent] = self.push(self.x[agent], np.clip(actions[agent], -1, 1))

    def push(self, x: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.clip(x + 0.2 * action + 0.05 * self.noise(), -2, 2)

    def noise(self) -> np.ndarray:
        return self.rng.normal(size=2)

    def observations(self, agents: list[str]) -> dict:
        return {agent: self.observe(agent) for agent in agents}

    def observe(self, agent: str) -> Any:
        return np.array([*self.x[agent], self.age / self.horizon], np.float32)

    def rewards(self, agents: list[str]) -> dict:
        return {agent: self.reward(agent) for agent in agents}

    def reward(self, agent: str) -> Any:
        return -float(np.abs(self.x[agent]).sum())

    def terminations(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents, False)

    def truncations(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents, self.age >= self.horizon)

    def infos(self, agents: list[str]) -> dict:
        return {agent: {} for agent in agents}

    def state(self) -> np.ndarray:
        return np.concatenate(list(self.x.values()))

    def render(self) -> np.ndarray | None:
        return self.paint() if self.render_mode == "rgb_array" else None

    def paint(self) -> Any:
        frame = np.zeros((20, 24, 3), np.uint8)
        for x in self.x.values():
            i, j = ((x + 2) * 4).astype(int)
            frame[i, j] = 255
        return frame

    def close(self) -> None:
        pass


@healthy
class Leavers(Walkers):
    """Who reaches the right side has arrived and leaves."""

    def terminations(self, agents: list[str]) -> dict:
        return {agent: bool(self.x[agent][0] > 1) for agent in agents}

    def truncations(self, agents: list[str]) -> dict:
        over = self.age >= self.horizon
        return {agent: over and not done for agent, done in self.terminations(agents).items()}


@healthy
class Both(Leavers):
    """Who arrives in the last step is both terminated and truncated."""

    def truncations(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents, self.age >= self.horizon)


@healthy
class Newcomers(Walkers):
    """The last walker joins late."""

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed, options)
        self.agents = self.possible_agents[:2]
        return self.observations(self.agents), self.infos(self.agents)

    def step(self, actions: dict) -> tuple:
        result = super().step(actions)
        if self.age == 4:
            newcomer = self.possible_agents[2]
            self.agents = [*self.agents, newcomer]
            parts = (self.observe(newcomer), 0.0, False, False, {})
            for outputs, part in zip(result, parts, strict=True):
                outputs[newcomer] = part
        return result


@healthy
class Endless(Walkers):
    """Nobody ever stops."""

    horizon = 10**9


@healthy
class Chaos(Walkers):
    """Deterministic but chaotic; chance only chooses the start."""

    def push(self, x: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.clip(2 - (1.4 + 0.01 * action) * x**2 / 2, -2, 2)


@healthy
class Clockwork(Walkers):
    """No chance at all: every episode starts alike."""

    metadata: ClassVar[dict] = {"name": "clockwork_v0"}

    def start(self) -> None:
        self.x = {agent: np.zeros(2) for agent in self.agents}

    def noise(self) -> np.ndarray:
        return np.zeros(2)


@healthy
class Turns(Walkers):
    """One at a time; the others may only pass. The mask is in the infos."""

    def make_spaces(self, agent: str) -> tuple[spaces.Space, spaces.Space]:
        return spaces.Box(-2, 2, (3,), np.float32), spaces.Discrete(3)

    def move(self, actions: dict) -> None:
        for agent, mask in ((a, self.mask(a, self.age - 1)) for a in self.agents):
            if not mask[actions[agent]]:
                raise ValueError(f"illegal action {actions[agent]} of {agent}")
            step = np.full(2, float(actions[agent]) - 1) if actions[agent] else np.zeros(2)
            self.x[agent] = self.push(self.x[agent], step)

    def mask(self, agent: str, age: int) -> np.ndarray:
        turn = self.possible_agents[age % 3] == agent
        return np.array([1, turn, turn], np.int8)

    def infos(self, agents: list[str]) -> dict:
        return {agent: {"action_mask": self.mask(agent, self.age)} for agent in agents}


@healthy
class Boards(Turns):
    """Observations are dictionaries and hold the mask."""

    def make_spaces(self, agent: str) -> tuple[spaces.Space, spaces.Space]:
        observation = {
            "observation": spaces.Box(-2, 2, (2,), np.float64),
            "action_mask": spaces.MultiBinary(3),
        }
        return spaces.Dict(observation), spaces.Discrete(3)

    def observe(self, agent: str) -> dict:
        mask = self.mask(agent, self.age)
        return {"observation": self.x[agent].copy(), "action_mask": mask}

    def infos(self, agents: list[str]) -> dict:
        return {agent: {} for agent in agents}


@healthy
class Numbers(Walkers):
    """Observations are plain integers."""

    def make_spaces(self, agent: str) -> tuple[spaces.Space, spaces.Space]:
        return spaces.Discrete(5), spaces.Box(-1, 1, (2,), np.float32)

    def observe(self, agent: str) -> Any:
        return int(self.x[agent][0] + 2)


@healthy
class Pairs(Walkers):
    """Observations and actions are tuples of unlike things, and there is no state."""

    def make_spaces(self, agent: str) -> tuple[spaces.Space, spaces.Space]:
        seen = spaces.Tuple([spaces.Discrete(5), spaces.Box(0, 255, (2, 2, 3), np.uint8)])
        return seen, spaces.Tuple([spaces.Discrete(3), spaces.MultiDiscrete([3, 3])])

    def move(self, actions: dict) -> None:
        for agent in self.agents:
            speed, direction = actions[agent]
            self.x[agent] = self.push(self.x[agent], speed * (direction - 1.0))

    def observe(self, agent: str) -> tuple:
        place = np.int64(self.x[agent][0] + 2)
        return place, np.full((2, 2, 3), np.uint8(self.x[agent][1] * 50 + 100))

    def state(self) -> np.ndarray:
        raise NotImplementedError


@healthy
class Anew(Walkers):
    """Every reset makes a new generator; without a seed from the system's entropy."""

    def seed(self, seed: int | None) -> None:
        self.rng = np.random.default_rng(seed)


@healthy
class Alone(Walkers):
    """A single agent, unbounded in what it sees and does; the end is its own doing."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.possible_agents = ["controller_0"]
        self._spaces = {"controller_0": self.make_spaces("controller_0")}
        self.state_space = spaces.Box(-2, 2, (2,), np.float64)

    def make_spaces(self, agent: str) -> tuple[spaces.Space, spaces.Space]:
        infinite = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        return infinite, spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def terminations(self, agents: list[str]) -> dict:
        return {agent: bool(self.x[agent][0] > 1.5) for agent in agents}

    def truncations(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents, False)


@healthy
class Arguments(Walkers):
    """The factory takes max_cycles, and copies are made by the arguments."""

    def __init__(self, max_cycles: int = 15, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.horizon = max_cycles


# --- observations --------------------------------------------------------------------------------


@defect("observation-outside")
class Escapes(Walkers):
    """Leaves its box, but only if pushed in one direction for long."""

    def push(self, x: np.ndarray, action: np.ndarray) -> np.ndarray:
        return x + 0.1 * action + 0.05 * self.noise()


@defect("observation-outside")
class LateEscape(Walkers):
    """One number out of bounds in one step of a long episode."""

    horizon = 90

    def observe(self, agent: str) -> Any:
        seen = super().observe(agent)
        return seen + np.float32(4) if self.age == 41 and agent == "walker_2" else seen


@defect("observation-outside")
class BigNumber(Numbers):
    def observe(self, agent: str) -> Any:
        return 5 if self.age == 3 else super().observe(agent)


@defect("observation-nan")
class Nan(Walkers):
    def observe(self, agent: str) -> Any:
        seen = super().observe(agent)
        seen[1] = np.nan if self.age == 13 else seen[1]
        return seen


@defect("observation-nan")
class NanInside(Boards):
    def observe(self, agent: str) -> dict:
        return {**super().observe(agent), "observation": np.array([0, np.nan])}


@defect("observation-infinite")
class Infinite(Alone):
    def observe(self, agent: str) -> Any:
        return super().observe(agent) / np.float32(0 if self.age == 5 else 1)

    def step(self, actions: dict) -> tuple:
        with np.errstate(all="ignore"):
            return super().step(actions)


@defect("observation-dtype")
class Double(Walkers):
    def observe(self, agent: str) -> Any:
        return super().observe(agent).astype(np.float64)


@defect("observation-dtype")
class Half(Walkers):
    """Its space contains it, for it can be cast."""

    def observe(self, agent: str) -> Any:
        return super().observe(agent).astype(np.float16)


@defect("observation-shape")
class Column(Walkers):
    def observe(self, agent: str) -> Any:
        return super().observe(agent)[:, None]


@defect("observation-type")
class Lists(Walkers):
    def observe(self, agent: str) -> Any:
        return super().observe(agent).tolist()


@defect("observation-keys")
class Unlabelled(Boards):
    def observe(self, agent: str) -> dict:
        seen = super().observe(agent)
        return {"action_mask": seen["action_mask"]} if self.age > 2 else seen


@defect("missing-keys")
class NoLastObservation(Leavers):
    """Who leaves is not told what it saw last."""

    def step(self, actions: dict) -> tuple:
        seen, *rest = super().step(actions)
        return {agent: seen[agent] for agent in self.agents}, *rest


@defect("missing-keys")
class NoInfos(Walkers):
    def infos(self, agents: list[str]) -> dict:
        return {}


@defect("missing-keys")
class NoReward(Walkers):
    def rewards(self, agents: list[str]) -> dict:
        return super().rewards(agents[:-1])


@defect("extra-keys")
class Ghosts(Leavers):
    """Those who have left are still shown things."""

    def observations(self, agents: list[str]) -> dict:
        return super().observations(self.possible_agents)


@defect("extra-keys")
class PaidGhosts(Leavers):
    def rewards(self, agents: list[str]) -> dict:
        return super().rewards(self.possible_agents)


@defect("observations-reused")
class Buffer(Walkers):
    """Everybody's observation is written to the same place at every step."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.buffer = {agent: np.empty(3, np.float32) for agent in self.possible_agents}

    def observe(self, agent: str) -> Any:
        self.buffer[agent][:] = super().observe(agent)
        return self.buffer[agent]


@defect("observations-reused")
class TwoBuffers(Walkers):
    """Two buffers in turn, one array for all agents."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.buffers = np.empty((2, 3, 3), np.float32)

    def observations(self, agents: list[str]) -> dict:
        buffer = self.buffers[self.age % 2]
        for i, agent in enumerate(agents):
            buffer[i] = self.observe(agent)
        return {agent: buffer[i] for i, agent in enumerate(agents)}


@defect("observations-reused")
class SameDictionary(Walkers):
    """The arrays are new, the dictionary is not."""

    def observations(self, agents: list[str]) -> dict:
        self.seen = getattr(self, "seen", {})
        self.seen.update(super().observations(agents))
        return self.seen


@defect("observations-reused")
class SpoiltStart(Walkers):
    """A reset overwrites what the last one showed."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.first = {agent: np.empty(3, np.float32) for agent in self.possible_agents}

    def observe(self, agent: str) -> Any:
        if self.age:
            return super().observe(agent)
        self.first[agent][:] = super().observe(agent)
        return self.first[agent]


class _Exact(Walkers):
    """Sees its place as it is."""

    def make_spaces(self, agent: str) -> tuple[spaces.Space, spaces.Space]:
        return spaces.Box(-2, 2, (2,), np.float64), spaces.Box(-1, 1, (2,), np.float32)


@defect("observations-aliased")
class OwnState(_Exact):
    """Hands out its own state; a caller that normalises in place moves the walkers."""

    def observe(self, agent: str) -> Any:
        return self.x[agent]


@defect("observations-shared")
class OneForAll(Walkers):
    """All agents are given the same array."""

    def observations(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents, self.observe(agents[0]))


@defect("observations-shared")
class Windows(Walkers):
    """Observations are windows on one array that overlap."""

    def observations(self, agents: list[str]) -> dict:
        row = np.concatenate([self.x[agent] for agent in self.possible_agents]).astype(np.float32)
        return {agent: row[i : i + 3] for i, agent in enumerate(agents)}


# --- rewards, flags, infos -----------------------------------------------------------------------


@defect("reward-not-finite")
class NanReward(Walkers):
    def reward(self, agent: str) -> Any:
        return float("nan") if self.age == 11 else super().reward(agent)


@defect("reward-not-finite")
class InfiniteReward(Walkers):
    def reward(self, agent: str) -> Any:
        return -np.inf if self.age == 19 and agent == "walker_1" else super().reward(agent)


@defect("reward-array")
class ArrayReward(Walkers):
    def reward(self, agent: str) -> Any:
        return np.array([super().reward(agent)])


class Talks(ArrayReward):
    """The same, and it prints to standard output."""

    def step(self, actions: dict) -> tuple:
        print("step")
        return super().step(actions)


class Failing(Walkers):
    """Cannot be made at all."""

    def __init__(self) -> None:
        raise RuntimeError("not today")


@defect("reward-array")
class PointReward(Walkers):
    def reward(self, agent: str) -> Any:
        return np.array(super().reward(agent))


@defect("reward-type")
class NoneReward(Walkers):
    def reward(self, agent: str) -> Any:
        return None if self.age == 20 else super().reward(agent)


@defect("reward-type")
class TensorReward(Walkers):
    def reward(self, agent: str) -> Any:
        import torch

        return torch.tensor(super().reward(agent))


@defect("rewards-reused")
class RewardBuffer(Walkers):
    def rewards(self, agents: list[str]) -> dict:
        self.paid = getattr(self, "paid", {})
        self.paid.update(super().rewards(agents))
        return self.paid


@defect("rewards-aliased")
class Tally(Walkers):
    """Counts up what it finds in the dictionary that it handed out."""

    def start(self) -> None:
        super().start()
        self.paid = dict.fromkeys(self.agents, 0.0)

    def rewards(self, agents: list[str]) -> dict:
        self.paid = {agent: 0.5 * self.paid[agent] + self.reward(agent) for agent in agents}
        return self.paid


@defect("flag-type")
class NumpyFlags(Leavers):
    def terminations(self, agents: list[str]) -> dict:
        return {agent: self.x[agent][0] > 1 for agent in agents}


@defect("flag-type")
class NumberFlags(Walkers):
    def truncations(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents, int(self.age >= self.horizon))


@defect("truncation-lost")
class AlwaysBoth(Walkers):
    """One flag for the end, given twice."""

    def terminations(self, agents: list[str]) -> dict:
        return self.truncations(agents)


@defect("truncation-lost")
class TimeIsDeath(Arguments):
    def terminations(self, agents: list[str]) -> dict:
        return super().truncations(agents)

    def truncations(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents, False)


@defect("truncation-lost")
class LimitIsDeath(Walkers):
    """Ends at its horizon, as if that were its own doing."""

    def terminations(self, agents: list[str]) -> dict:
        return super().truncations(agents)

    def truncations(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents, False)


@defect("max-cycles")
class OneMore(Arguments):
    def truncations(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents, self.age > self.horizon)


@defect("info-type")
class NoneInfo(Walkers):
    def infos(self, agents: list[str]) -> dict:
        return dict.fromkeys(agents)


@defect("infos-shared")
class OneInfo(Walkers):
    def infos(self, agents: list[str]) -> dict:
        one: dict = {}
        return {agent: one for agent in agents}


@defect("infos-reused")
class OldInfo(Walkers):
    def infos(self, agents: list[str]) -> dict:
        self.known = getattr(self, "known", {agent: {} for agent in self.possible_agents})
        for agent in agents:
            self.known[agent]["age"] = self.age
        return dict(self.known)


@defect("infos-aliased")
class KeptInfo(Walkers):
    """The same empty info at every step: what a wrapper notes in it stays."""

    def start(self) -> None:
        super().start()
        self.known: dict[str, dict] = {agent: {} for agent in self.agents}

    def infos(self, agents: list[str]) -> dict:
        return {agent: self.known[agent] for agent in agents}


class _AllLegal(Turns):
    """Everybody may do everything."""

    def mask(self, agent: str, age: int) -> np.ndarray:
        return np.ones(3, np.int8)


@defect("action-mask")
class ShortMask(_AllLegal):
    def infos(self, agents: list[str]) -> dict:
        return {a: {"action_mask": np.ones(2, np.int8)} for a in agents}


@defect("action-mask")
class WeightMask(_AllLegal):
    def infos(self, agents: list[str]) -> dict:
        return {a: {"action_mask": np.full(3, 0.5, np.float32)} for a in agents}


@defect("action-mask")
class CountMask(_AllLegal):
    def infos(self, agents: list[str]) -> dict:
        return {a: {"action_mask": np.full(3, 2, np.int8)} for a in agents}


@defect("return-type")
class FourParts(Walkers):
    def step(self, actions: dict) -> tuple:
        seen, rewards, terminated, _, infos = super().step(actions)
        return seen, rewards, terminated, infos


@defect("return-type")
class OnlyObservations(Walkers):
    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        return super().reset(seed, options)[0]


@defect("return-type")
class RewardList(Walkers):
    def step(self, actions: dict) -> tuple:
        seen, rewards, *rest = super().step(actions)
        return seen, list(rewards.values()), *rest


# --- agents --------------------------------------------------------------------------------------


@defect("agent-not-removed")
class Immortal(Leavers):
    """Terminated agents stay."""

    def step(self, actions: dict) -> tuple:
        before = self.agents
        result = super().step(actions)
        self.agents = before if self.age < self.horizon else []
        return result


@defect("agent-not-removed")
class Stuck(Walkers):
    """The time limit is announced, and nobody goes."""

    def step(self, actions: dict) -> tuple:
        before = self.agents
        result = super().step(actions)
        self.agents = before
        return result


@defect("agent-vanished")
class Silent(Walkers):
    """Episodes end with neither flag."""

    def step(self, actions: dict) -> tuple:
        seen, rewards, terminated, truncated, infos = super().step(actions)
        return seen, rewards, terminated, dict.fromkeys(truncated, False), infos


@defect("agent-vanished")
class OneLost(Walkers):
    def step(self, actions: dict) -> tuple:
        result = super().step(actions)
        self.agents = [a for a in self.agents if self.age < 9 or a != "walker_1"]
        return result


@defect("agent-revived")
class Revived(Leavers):
    """Those who left are back some steps later."""

    def step(self, actions: dict) -> tuple:
        gone = [agent for agent in self.possible_agents if agent not in self.agents]
        result = super().step(actions)
        if self.agents and self.age % 3 == 0:
            for agent in gone:
                self.agents = [*self.agents, agent]
                self.x[agent] = np.zeros(2)
                parts = (self.observe(agent), 0.0, False, False, {})
                for outputs, part in zip(result, parts, strict=True):
                    outputs[agent] = part
        return result


@defect("agents-unknown")
class Stranger(Walkers):
    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed, options)
        self.possible_agents = self.possible_agents[:2]
        self.agents = ["walker_0", "walker_1", "walker_2"]
        return self.observations(self.agents), self.infos(self.agents)

    def start(self) -> None:
        self.x = {f"walker_{i}": self.rng.uniform(-1, 1, 2) for i in range(3)}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.possible_agents = self.possible_agents[:2]


@defect("agents")
class TwiceNamed(Walkers):
    def step(self, actions: dict) -> tuple:
        result = super().step(actions)
        self.agents = self.agents + self.agents[:1]
        return result


@defect("agents")
class TupleOfAgents(Walkers):
    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        result = super().reset(seed, options)
        self.agents = tuple(self.agents)  # type: ignore[assignment]
        return result


@defect("possible-agents")
class Shrinking(Leavers):
    """`agents` is `possible_agents` itself, from which those who leave are struck."""

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        self.possible_agents = [f"walker_{i}" for i in range(3)]
        result = super().reset(seed, options)
        self.agents = self.possible_agents
        return result

    def step(self, actions: dict) -> tuple:
        shared, before = self.possible_agents, self.agents
        self.agents = list(before)
        result = super().step(actions)
        shared[:] = self.agents
        self.agents = shared
        return result


@defect("possible-agents")
class Unnamed(Walkers):
    @property
    def possible_agents(self) -> list[str]:  # type: ignore[override]
        raise AttributeError("possible_agents")

    @possible_agents.setter
    def possible_agents(self, names: list[str]) -> None:
        self.names = names

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.names = [f"walker_{i}" for i in range(3)]
        self.agents = []
        self.rng = None
        self._spaces = {agent: self.make_spaces(agent) for agent in self.names}

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        self.seed(seed)
        self.agents = self.names[:]
        self.age = 0
        self.start()
        return self.observations(self.agents), self.infos(self.agents)


@defect("no-agents")
class Deserted(Walkers):
    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed, options)
        self.agents = []
        return {}, {}


@defect("step-after-end")
class Undead(Walkers):
    """A step too many starts another episode."""

    def step(self, actions: dict) -> tuple:
        if not self.agents:
            self.agents = self.possible_agents[:]
            self.age = 0
            actions = {agent: np.zeros(2) for agent in self.agents}
        return super().step(actions)


# --- spaces and actions --------------------------------------------------------------------------


@defect("space-changed")
class FreshSpaces(Walkers):
    def observation_space(self, agent: str) -> spaces.Space:
        return self.make_spaces(agent)[0]


@defect("space-changed")
class FreshActionSpaces(Walkers):
    def action_space(self, agent: str) -> spaces.Space:
        return copy.deepcopy(super().action_space(agent))


@defect("space-changed")
class Rebuilt(Walkers):
    """Every episode has spaces of its own, equal to the old ones but not seeded like them."""

    def start(self) -> None:
        super().start()
        self._spaces = {agent: self.make_spaces(agent) for agent in self.possible_agents}


@defect("space-changed")
class Growing(Walkers):
    """The box widens in place, so that all fits."""

    def step(self, actions: dict) -> tuple:
        for agent in self.possible_agents:
            self.observation_space(agent).high[:] += 0.01
        return super().step(actions)


@defect("space-raised")
class ForgetfulSpaces(Leavers):
    """Who has left has no space any more."""

    def observation_space(self, agent: str) -> spaces.Space:
        if self.agents and agent not in self.agents:
            raise KeyError(agent)
        return super().observation_space(agent)

    def terminations(self, agents: list[str]) -> dict:
        return {agent: agent == "walker_0" and self.age == 3 for agent in agents}


@defect("space-invalid")
class UpsideDown(Walkers):
    def make_spaces(self, agent: str) -> tuple[spaces.Space, spaces.Space]:
        seen, action = super().make_spaces(agent)
        seen.low[:], seen.high[:] = seen.high.copy(), seen.low.copy()
        return seen, action


@defect("space-invalid")
class NoSpace(Walkers):
    def make_spaces(self, agent: str) -> tuple[spaces.Space, spaces.Space]:
        return (3,), super().make_spaces(agent)[1]  # type: ignore[return-value]


@defect("space-generator")
class Borrowed(Walkers):
    """Draws its noise from the action space, which belongs to the caller."""

    def seed(self, seed: int | None) -> None:
        super().seed(seed)
        for agent in self.possible_agents:
            self.action_space(agent).seed(seed)

    def noise(self) -> np.ndarray:
        return self.action_space("walker_0").sample()


@defect("actions-mutated")
class Clips(Walkers):
    """Clips the caller's arrays in place."""

    def move(self, actions: dict) -> None:
        for action in actions.values():
            np.clip(action, -0.9, 0.9, out=action)
        super().move(actions)


@defect("actions-mutated")
class Pops(Walkers):
    def move(self, actions: dict) -> None:
        for agent in self.agents:
            self.x[agent] = self.push(self.x[agent], actions.pop(agent))


@defect("actions-aliased")
class Remembers(Walkers):
    """Keeps the caller's arrays until the next step."""

    def start(self) -> None:
        super().start()
        self.last = {agent: np.zeros(2) for agent in self.agents}

    def move(self, actions: dict) -> None:
        for agent in self.agents:
            self.x[agent] = self.push(self.x[agent], actions[agent] - self.last[agent])
        self.last = dict(actions)


@defect("actions-aliased")
class RemembersDictionary(_AllLegal):
    """Keeps the caller's dictionary of numbers."""

    def start(self) -> None:
        super().start()
        self.last = dict.fromkeys(self.agents, 0)

    def reward(self, agent: str) -> Any:
        return float(self.before[agent])

    def move(self, actions: dict) -> None:
        self.before, self.last = {**self.last}, actions
        super().move(actions)


@defect("action-order")
class InOrder(Walkers):
    """Noise goes to whoever is named first."""

    def move(self, actions: dict) -> None:
        for agent, action in actions.items():
            self.x[agent] = self.push(self.x[agent], action)


@defect("actions-ignored")
class Deaf(Walkers):
    def push(self, x: np.ndarray, action: np.ndarray) -> np.ndarray:
        return super().push(x, np.zeros(2))


@defect("step-raised")
class Picky(Turns):
    """Accepts only Python's own integers."""

    def move(self, actions: dict) -> None:
        if any(type(action) is not int for action in actions.values()):
            raise TypeError("actions must be int")


@defect("step-raised")
class NoCorners(Walkers):
    """Refuses the bounds of its own action space."""

    def move(self, actions: dict) -> None:
        if any(np.abs(action).min() == 1 for action in actions.values()):
            raise ValueError("action out of bounds")
        super().move(actions)


@defect("step-raised")
class Dies(Walkers):
    """Fails when the first agent leaves."""

    def terminations(self, agents: list[str]) -> dict:
        return {agent: agent == "walker_0" and self.age == 7 for agent in agents}

    def move(self, actions: dict) -> None:
        self.x["walker_0"] = self.push(self.x["walker_0"], actions["walker_0"])


# --- chance --------------------------------------------------------------------------------------


@defect("seed-ignored")
class OwnEntropy(Walkers):
    def seed(self, seed: int | None) -> None:
        self.rng = np.random.default_rng()


@defect("seed-ignored")
class SeededOnce(Walkers):
    """A fixed generator that goes on from episode to episode."""

    def seed(self, seed: int | None) -> None:
        self.rng = self.rng or np.random.default_rng(0)


@defect("seed-ignored")
class CountsResets(Walkers):
    def seed(self, seed: int | None) -> None:
        self.resets = getattr(self, "resets", 0) + 1
        self.rng = np.random.default_rng(None if seed is None else [seed, self.resets])


@defect("seed-ignored")
class AnySeed(Walkers):
    """All seeds are one."""

    def seed(self, seed: int | None) -> None:
        if seed is not None or self.rng is None:
            self.rng = np.random.default_rng(None if seed is None else 0)


@defect("seed-ignored")
class SecondHand(Walkers):
    """Seeded by the clock, to the second."""

    def seed(self, seed: int | None) -> None:
        self.rng = np.random.default_rng(int(time.time()))


@defect("unseeded-reset")
class NoSeedIsZero(Walkers):
    def seed(self, seed: int | None) -> None:
        self.rng = np.random.default_rng(seed or 0)


@defect("global-generator")
class GlobalStart(Walkers):
    def start(self) -> None:
        self.x = {agent: np.random.uniform(-1, 1, 2) for agent in self.agents}  # noqa: NPY002


@defect("global-generator")
class GlobalSeed(Walkers):
    """Seeds everybody's generator so that its own episodes repeat."""

    def seed(self, seed: int | None) -> None:
        super().seed(seed)
        np.random.seed(seed)  # noqa: NPY002


@defect("global-generator")
class LateRandom(Walkers):
    """Python's generator, and only once in a while."""

    def noise(self) -> np.ndarray:
        return np.full(2, random.random() if self.age == 17 else 0.0)


@defect("global-generator")
class GlobalTorch(Walkers):
    def noise(self) -> np.ndarray:
        import torch

        return torch.randn(2).numpy()


@defect("global-generator")
class GlobalLayout(Walkers):
    """Drawn when the environment is made, never again."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.wind = np.random.uniform(-1, 1, 2)  # noqa: NPY002

    def noise(self) -> np.ndarray:
        return self.wind


@defect("global-generator")
class ReadsGlobal(Walkers):
    """Leaves the global generator as it was, but depends on it."""

    def start(self) -> None:
        state = np.random.get_state()  # noqa: NPY002
        self.x = {agent: np.random.uniform(-1, 1, 2) for agent in self.agents}  # noqa: NPY002
        np.random.set_state(state)  # noqa: NPY002


@defect("global-settings")
class Settings(Walkers):
    def step(self, actions: dict) -> tuple:
        np.seterr(under="raise")
        return super().step(actions)


@defect("unseeded-noise")
class LateNoise(Walkers):
    """Seeded for the first forty steps of a long episode."""

    horizon = 60

    def noise(self) -> np.ndarray:
        return self.rng.normal(size=2) if self.age < 40 else np.random.default_rng().normal(size=2)


@defect("unseeded-noise")
class LaterNoise(Walkers):
    """Sound for the first two episodes of an environment."""

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        self.episode = getattr(self, "episode", -1) + 1
        return super().reset(seed, options)

    def noise(self) -> np.ndarray:
        if self.episode >= 2:
            return np.random.default_rng().normal(size=2)
        return super().noise()


@defect("unseeded-noise")
class RareNoise(Walkers):
    """Once in fifty draws something unseeded."""

    def noise(self) -> np.ndarray:
        chance = np.random.default_rng()
        return chance.normal(size=2) if chance.random() < 0.02 else super().noise()


@defect("unseeded-noise")
class NoisyReward(Walkers):
    def reward(self, agent: str) -> Any:
        return super().reward(agent) + 1e-9 * np.random.default_rng().normal()


@defect("unseeded-noise")
class ByTheClock(Walkers):
    """The wind turns with the hour."""

    def noise(self) -> np.ndarray:
        return np.full(2, np.sin(int(time.time()) // 60)) if self.age > 5 else np.zeros(2)


# --- what is shared and what is left behind ------------------------------------------------------


@defect("state-leak")
class Tired(Walkers):
    """Wears out, and no reset mends it."""

    wear = 0.0

    def push(self, x: np.ndarray, action: np.ndarray) -> np.ndarray:
        self.wear += 0.001
        return super().push(x, action * (1 - min(self.wear, 0.5)))


@defect("state-leak")
class HalfReset(Walkers):
    """A reset in mid-episode keeps the clock."""

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        age = getattr(self, "age", 0) if self.agents else 0
        result = super().reset(seed, options)
        self.age = age
        return result if age == 0 else (self.observations(self.agents), result[1])


@defect("shared-state")
class ClassState(Walkers):
    """Places are kept by the class, not by the environment."""

    places: ClassVar[dict] = {}

    def start(self) -> None:
        for agent in self.agents:
            self.places[agent] = self.rng.uniform(-1, 1, 2)
        self.x = self.places


@defect("shared-state")
class ClassGenerator(Walkers):
    def seed(self, seed: int | None) -> None:
        if seed is not None or type(self).rng is None:
            type(self).rng = np.random.default_rng(seed)

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        del self.rng

    rng: Any = None


@defect("shared-state")
class ClassCounter(Walkers):
    """Environments are numbered, and the number is part of the seed."""

    made: ClassVar[list] = []

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.number = len(self.made)
        self.made.append(self.number)

    def seed(self, seed: int | None) -> None:
        self.rng = np.random.default_rng(None if seed is None else [seed, self.number])


@defect("copy-shares-state")
class ShallowCopy(Walkers):
    def __deepcopy__(self, memo: dict) -> ShallowCopy:
        return copy.copy(self)


@defect("copy-diverges")
class Forgets(Walkers):
    """A copy starts with a new generator."""

    def __deepcopy__(self, memo: dict) -> Forgets:
        new = type(self)()
        new.agents, new.x, new.age = list(self.agents), copy.deepcopy(self.x), self.age
        new.rng = np.random.default_rng()
        return new


@defect("construction")
class OnlyOne(Walkers):
    made: ClassVar[set] = set()

    def __init__(self, render_mode: str | None = None) -> None:
        if self.made:
            raise RuntimeError("there can be only one")
        self.made.add(1)
        super().__init__(render_mode)


@defect("construction")
class Singleton(Walkers):
    """There is one environment, and everybody is given it."""

    one: ClassVar[list] = []

    def __new__(cls, *given: Any, **named: Any) -> Singleton:
        if not cls.one:
            cls.one.append(super().__new__(cls))
        return cls.one[0]


@defect("process-dependent")
class HashOrder(Walkers):
    """Who starts where depends on the order of a set of names."""

    def start(self) -> None:
        self.x = {agent: self.rng.uniform(-1, 1, 2) for agent in set(self.agents)}


# --- reset, close, state, pictures ---------------------------------------------------------------


@defect("reset-signature")
class NoOptions(Walkers):
    def reset(self, seed: int | None = None) -> tuple:  # type: ignore[override]
        return super().reset(seed)


@defect("reset-signature")
class WritesOptions(Walkers):
    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        if options is not None:
            options["seed"] = seed
        return super().reset(seed, options)


@defect("reset-raised")
class NoSeed(Walkers):
    def reset(self, options: dict | None = None) -> tuple:  # type: ignore[override]
        return super().reset(None, options)


@defect("reset-raised")
class ToTheEnd(Endless):
    """Cannot be reset before the end."""

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        if self.agents:
            raise RuntimeError("the episode is not over")
        return super().reset(seed, options)


@defect("close-raised")
class ClosesOnce(Walkers):
    def close(self) -> None:
        del self.rng


@defect("metadata")
class NoMetadata(Walkers):
    metadata = None  # type: ignore[assignment]


@defect("state-dtype")
class SingleState(Walkers):
    def state(self) -> np.ndarray:
        return super().state().astype(np.float32)


@defect("state-outside")
class WideState(Walkers):
    def state(self) -> np.ndarray:
        return super().state() + 4


@defect("state-reused")
class StateBuffer(Walkers):
    buffer = np.zeros(6)

    def state(self) -> np.ndarray:
        self.buffer[:] = super().state()
        return self.buffer


@defect("state-unstable")
class NoisyState(Walkers):
    def state(self) -> np.ndarray:
        return super().state() * np.random.default_rng().uniform()


@defect("state-side-effect")
class Peeking(Walkers):
    """Looking at the state draws from the generator."""

    def state(self) -> np.ndarray:
        self.last = self.rng.random()
        return super().state()


@defect("render-frame")
class FloatFrame(Walkers):
    def paint(self) -> Any:
        return super().paint() / 255


@defect("render-frame")
class ChannelsFirst(Walkers):
    def paint(self) -> Any:
        return super().paint().transpose(2, 0, 1)


@defect("render-frame")
class NoFrame(Walkers):
    def paint(self) -> Any:
        return None


@defect("render-frame")
class Zooming(Walkers):
    def paint(self) -> Any:
        return super().paint()[: 20 - self.age]


@defect("render-reused")
class FrameBuffer(Walkers):
    def paint(self) -> Any:
        self.frame = getattr(self, "frame", np.zeros((20, 24, 3), np.uint8))
        self.frame[:] = super().paint()
        return self.frame


@defect("render-side-effect")
class Sparkle(Walkers):
    """The picture's glitter comes from the generator of the dynamics."""

    def paint(self) -> Any:
        self.rng.random()
        return super().paint()


@defect("render-mode-dependent")
class SeesScreen(Walkers):
    """What agents see is drawn only if somebody watches."""

    def observe(self, agent: str) -> Any:
        seen = super().observe(agent)
        return seen if self.render_mode else 0 * seen


@defect("render-unstable")
class Flicker(Walkers):
    def paint(self) -> Any:
        frame = super().paint()
        frame[0, 0] = np.random.default_rng().integers(255)
        return frame


@defect("render-raised")
class Unpainted(Walkers):
    def paint(self) -> Any:
        raise NotImplementedError


@defect("render-mode")
class ForgetsMode(Walkers):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(None)
        self.mode = render_mode

    def render(self) -> np.ndarray | None:
        return self.paint()
