"""What an environment hands out, judged: keys, types, values, and whether they change later."""

from __future__ import annotations

import contextlib
import copy
import itertools
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from hashlib import sha1
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.utils.passive_env_checker import check_action_space, check_observation_space
from pettingzoo import ParallelEnv

from .. import renamed

OUTPUTS = ("observations", "rewards", "terminations", "truncations", "infos")
_HELD = 3  # results watched for later change: the first ones of an episode and the last ones
_DEPTH = 8
_LIMIT = re.compile(
    r"(?i)horizon|limit|max_?(cycles|steps|episode|iter|moves|frames|time|t$)|_iters$"
)
_Spaces = tuple[spaces.Space, spaces.Space]


class Finding(NamedTuple):
    """A broken promise: the short name of the check, and what was seen where."""

    name: str
    message: str


class Report:
    """Findings in the order in which they were met, one for each name."""

    def __init__(self) -> None:
        self._messages: dict[str, str] = {}

    def add(self, name: str, message: str) -> None:
        """Note a finding, unless one of that name is there."""
        self._messages.setdefault(name, " ".join(message.split()))

    def has(self, names: Iterable[str]) -> bool:
        """Whether any of `names` was found."""
        return any(name in self._messages for name in names)

    def has_prefix(self, prefixes: tuple[str, ...]) -> bool:
        """Whether the name of any finding starts with one of `prefixes`."""
        return any(name.startswith(prefixes) for name in self._messages)

    def findings(self) -> list[Finding]:
        """All findings."""
        return [Finding(*item) for item in self._messages.items()]


class Malformed(Exception):
    """What reset or step returned cannot be taken apart."""


def fingerprint(value: Any) -> bytes:
    """A digest of nested dictionaries, sequences, arrays and numbers, the same in every process.

    Of other objects only the type counts.
    """
    digest = sha1(usedforsecurity=False)
    _feed(digest, value, 0)
    return digest.digest()


def _feed(digest: Any, value: Any, depth: int) -> None:
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(value.tobytes())
    elif isinstance(value, _ATOMS):
        digest.update(f"{value!r};".encode())
    elif depth == _DEPTH:
        digest.update(b"...")
    elif isinstance(value, _MAPPINGS):
        digest.update(f"{{{len(value)}".encode())
        for key in sorted(value, key=repr):
            digest.update(f"{key!r}:".encode())
            _feed(digest, value[key], depth + 1)
    elif isinstance(value, list | tuple | np.ndarray):
        digest.update(f"[{len(value)}".encode())
        for element in value:
            _feed(digest, element, depth + 1)
    elif isinstance(value, set | frozenset):
        digest.update(repr(sorted(map(repr, value))).encode())
    else:
        digest.update(type(value).__qualname__.encode())
        if callable(getattr(value, "__array__", None)) and not isinstance(value, type):
            with contextlib.suppress(Exception):
                _feed(digest, np.asarray(value), depth + 1)


_ATOMS = (bool, int, float, complex, str, bytes, type(None), np.generic)
_MAPPINGS = (dict, Mapping)  # dict first, as it is told at once


def arrays(value: Any) -> list[np.ndarray]:
    """The writable arrays inside nested dictionaries and sequences."""
    if isinstance(value, np.ndarray):
        return [value] if value.flags.writeable and value.dtype != object else []
    parts = value.values() if isinstance(value, Mapping) else value
    return [a for element in parts for a in arrays(element)] if isinstance(value, _NESTED) else []


_NESTED = (Mapping, list, tuple)


def scribble(value: Any) -> None:
    """Change every writable array inside `value`, in place."""
    for array in arrays(value):
        if array.dtype == bool:
            np.logical_not(array, out=array)
        elif array.dtype.kind in "iu":
            np.bitwise_xor(array, array.dtype.type(1), out=array)
        else:
            array[...] = array * -0.5 + 1.37


def space_fault(space: spaces.Space, value: Any, part: str = "") -> tuple[str, str] | None:
    """How `value` fails to be an element of `space`: (kind of fault, explanation), or None.

    Kinds: type, keys, dtype, shape, nan, infinite, outside.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping):
            return "type", f"{part} is a {_type(value)}, not a dict"
        if set(value) != set(space.spaces):
            return "keys", f"{part} has keys {sorted(value)}, not {sorted(space.spaces)}"
        faults = (space_fault(s, value[k], f"{part}[{k!r}]") for k, s in space.spaces.items())
        return next(filter(None, faults), None)
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list):
            return "type", f"{part} is a {_type(value)}, not a tuple"
        if len(value) != len(space.spaces):
            return "shape", f"{part} has {len(value)} parts, not {len(space.spaces)}"
        faults = (space_fault(s, value[i], f"{part}[{i}]") for i, s in enumerate(space.spaces))
        return next(filter(None, faults), None)
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        return _array_fault(space, value, part)
    try:
        inside = space.contains(value)
    except Exception:
        inside = False
    return None if inside else ("outside", f"{part} is {value!r}, not in {space}")


def _array_fault(space: spaces.Space, value: Any, part: str) -> tuple[str, str] | None:
    if isinstance(value, np.generic) and space.shape == ():
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        return "type", f"{part} is a {_type(value)}, not an array"
    if value.dtype != space.dtype:
        return "dtype", f"{part} has dtype {value.dtype}, its space {space.dtype}"
    if value.shape != space.shape:
        return "shape", f"{part} has shape {value.shape}, its space {space.shape}"
    if value.dtype.kind == "f" and np.isnan(value).any():
        return "nan", f"{part} holds NaN at index {_first(np.isnan(value))}"
    if value.dtype.kind == "f" and np.isinf(value).any():
        return "infinite", f"{part} is infinite at index {_first(np.isinf(value))}"
    if space.contains(value):
        return None
    if isinstance(space, spaces.Box):
        at = _first((value < space.low) | (value > space.high))
        limits = f"[{space.low[at]}, {space.high[at]}]"
        return "outside", f"{part} is {value[at]} at index {at}, outside {limits}"
    return "outside", f"{part} is {value.tolist()}, not in {space}"


def _first(flags: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(flags)[0])


def _type(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def mask_of(observation: Any, info: Any) -> Any:
    """The action mask of an agent, from its observation or its info, or None."""
    for holder in (observation, info):
        if isinstance(holder, Mapping) and "action_mask" in holder:
            return holder["action_mask"]
    return None


def mask_fault(space: spaces.Space, mask: Any) -> str | None:
    """What is wrong with the mask of a discrete action, or None."""
    if not isinstance(space, spaces.Discrete):
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.int8, np.bool_):
        kind = mask.dtype if isinstance(mask, np.ndarray) else _type(mask)
        return f"is {kind}, not an array of int8 or bool"
    if mask.shape != (space.n,):
        return f"has shape {mask.shape}; the action space has {space.n} choices"
    if not np.isin(mask, (0, 1)).all():
        return f"holds {mask.tolist()}; only 0 and 1 are allowed"
    return None


class ContractChecker:
    """Follows one environment through its episodes and reports what breaks the contract."""

    def __init__(self, env: ParallelEnv, report: Report) -> None:
        self._env = env
        self._report = report
        self._possible = list(getattr(env, "possible_agents", []))
        self._spaces: dict[Any, tuple[_Spaces, _Spaces]] = {}  # the objects, and copies of them
        self._held: deque[tuple[str, str, Any, bytes]] = deque(maxlen=_HELD * len(OUTPUTS))
        self._first: list[tuple[str, str, Any, bytes]] = []
        self._ends: list[tuple[bool, bool]] = []  # flags of agents that left
        self._lengths: list[int] = []  # of episodes that came to an end
        self._finished: set[Any] = set()
        self._previous: list[Any] = []
        self._episodes = 0
        self._where = "before reset"
        self._look_at_class()

    def reset(self, result: Any, seed: int) -> tuple[dict, dict]:
        """Judge what reset returned; raises Malformed if nothing more can be said of it."""
        self._recheck([*self._first, *self._held])
        self._first = []
        self._finished, self._previous = set(), []
        self._episodes += 1
        self._where = f"at reset(seed={seed})"
        self._unpack(result, "reset", ("observations", "infos"))
        observations, infos = result
        agents = self._agents()
        if not agents:
            self._report.add("no-agents", f"`agents` is empty {self._where}")
            raise Malformed
        self._keys({"observations": observations, "infos": infos}, set(agents), set(agents))
        self._check_observations(observations, infos, agents)
        self._check_sharing(observations, infos, agents)
        self._hold({"observations": observations, "infos": infos})
        return observations, infos

    def step(self, result: Any, before: list[Any], seed: int, step: int) -> None:
        """Judge what step returned to the agents `before`; raises Malformed."""
        self._where = f"at step {step} after reset(seed={seed})"
        self._unpack(result, "step", OUTPUTS)
        outputs = dict(zip(OUTPUTS, result, strict=True))
        agents = self._agents()
        born = [agent for agent in agents if agent not in {*before, *self._finished}]
        self._keys(outputs, {*before, *born}, {*before, *agents})
        observations, rewards, terminations, truncations, infos = result
        self._check_observations(observations, infos, [*before, *born])
        if step <= 2:
            self._check_sharing(observations, infos, before)
        for agent in before:
            if agent in rewards:
                self._check_reward(agent, rewards[agent])
            flags = (terminations.get(agent, False), truncations.get(agent, False))
            self._check_flags(agent, flags, agent in agents)
        if not agents:
            self._lengths.append(step)
        self._recheck(self._held)
        self._hold(outputs)

    def actions(self, actions: dict, given: bytes, seed: int, step: int) -> None:
        """Judge whether step left the caller's actions, of digest `given`, as they were."""
        if fingerprint(actions) != given:
            text = f"step {step} after reset(seed={seed}) changed the caller's actions"
            self._report.add("actions-mutated", text)

    def raised(self, error: Exception, seed: int, step: int) -> None:
        """Report what reset (step 0) or a step with legal actions raised."""
        if self._report.has(["agent-not-removed"]):  # it may have wanted an action of that agent
            return
        where = f"step {step} after reset" if step else "reset"
        text = f"{where}(seed={seed}) raised {describe(error)}"
        self._report.add("step-raised" if step else "reset-raised", text)

    def finish(self) -> None:
        """What can be said only when all episodes are over."""
        self._recheck([*self._first, *self._held])
        if [*getattr(self._env, "possible_agents", [])] != self._possible:
            self._report.add("possible-agents", "`possible_agents` changed while the env ran")
        for agent in self._possible:
            self._space(agent)
        for agent, (objects, copies) in self._spaces.items():
            if any(now != old for now, old in zip(objects, copies, strict=True)):
                self._report.add("space-changed", f"a space of {agent!r} changed while the env ran")
        truncated = [terminated for terminated, flag in self._ends if flag]
        if truncated and all(truncated):
            message = "whenever an agent is truncated it is terminated too: truncation is lost"
            self._report.add("truncation-lost", message)
        if self._ends and not truncated and len(self._lengths) > 1 and len(set(self._lengths)) == 1:
            limit = _limit_named(self._env, self._lengths[0])
            if limit is not None:
                text = f"the end at {limit} is given as termination, not as truncation"
                self._report.add("truncation-lost", text)

    def _look_at_class(self) -> None:
        env, report = self._env, self._report
        if not isinstance(getattr(env, "metadata", None), dict):
            report.add("metadata", "`metadata` is missing or is not a dict")
        else:
            modes = env.metadata.get("render_modes", [])
            if not isinstance(modes, list | tuple) or not all(isinstance(m, str) for m in modes):
                report.add("metadata", f"metadata['render_modes'] is {modes!r}, no list of names")
        if not isinstance(getattr(env, "possible_agents", None), list) or not self._possible:
            report.add("possible-agents", "`possible_agents` is missing, empty or not a list")
        elif len(set(self._possible)) < len(self._possible):
            report.add("possible-agents", "`possible_agents` names an agent twice")

    def _agents(self) -> list[Any]:
        """The live agents, judged."""
        agents = getattr(self._env, "agents", None)
        if not isinstance(agents, list):
            self._report.add("agents", f"`agents` is a {_type(agents)}, not a list {self._where}")
            raise Malformed
        if len(set(agents)) < len(agents):
            self._report.add("agents", f"`agents` names an agent twice {self._where}")
        if self._env.num_agents != len(agents):
            text = f"`num_agents` is {self._env.num_agents} {self._where}; `agents` has"
            self._report.add("agents", f"{text} {len(agents)}")
        strangers = [agent for agent in agents if self._possible and agent not in self._possible]
        if strangers:
            text = f"{strangers[0]!r} in `agents` {self._where} is not in `possible_agents`"
            self._report.add("agents-unknown", text)
        revived = [a for a in agents if a in self._finished and a not in self._previous]
        if revived:
            text = f"{revived[0]!r} is back in `agents` {self._where} although it had left"
            self._report.add("agent-revived", text)
        self._previous = list(agents)
        return self._previous

    def _unpack(self, result: Any, call: str, names: tuple[str, ...]) -> None:
        if not isinstance(result, tuple) or len(result) != len(names):
            text = f"{call}() returned a {_type(result)} {self._where}; it must return"
            self._report.add("return-type", f"{text} a tuple ({', '.join(names)})")
            raise Malformed
        for name, output in zip(names, result, strict=True):
            if not isinstance(output, dict):
                text = f"the {name} that {call}() returned {self._where} are a {_type(output)}"
                self._report.add("return-type", f"{text}, not a dict")
                raise Malformed

    def _keys(self, outputs: dict[str, dict], required: set[Any], allowed: set[Any]) -> None:
        for name, by_agent in outputs.items():
            missing = required - set(by_agent)
            if missing:
                text = f"{name} {self._where} have no entry for {_some(missing)}"
                self._report.add("missing-keys", text)
            extra = set(by_agent) - allowed
            if name in ("observations", "infos"):  # these two may hold something common to all
                extra &= {*self._possible, *self._finished}
            if extra:
                text = f"{name} {self._where} have an entry for {_some(extra)}, which is not live"
                self._report.add("extra-keys", text)

    def _check_observations(self, observations: dict, infos: dict, agents: list[Any]) -> None:
        for agent in agents:
            both = self._space(agent)
            if both is not None and agent in observations:
                what = f"the observation of {agent!r} {self._where}"
                fault = space_fault(both[0], observations[agent], what)
                if fault is not None:
                    self._report.add(f"observation-{fault[0]}", fault[1])
            info = infos.get(agent, {})
            if not isinstance(info, dict):
                text = f"the info of {agent!r} {self._where} is a {_type(info)}, not a dict"
                self._report.add("info-type", text)
            mask = mask_of(observations.get(agent), info)
            wrong = None if mask is None or both is None else mask_fault(both[1], mask)
            if wrong:
                self._report.add("action-mask", f"the mask of {agent!r} {self._where} {wrong}")

    def _check_sharing(self, observations: dict, infos: dict, agents: list[Any]) -> None:
        for agent, following in itertools.pairwise(agents):
            if infos.get(agent) is infos.get(following) is not None:
                text = (
                    f"{agent!r} and {following!r} are given the same info dictionary {self._where}"
                )
                self._report.add("infos-shared", text)
            if _share(observations.get(agent), observations.get(following)):
                text = f"{agent!r} and {following!r} are given observations in the same memory"
                self._report.add("observations-shared", f"{text} {self._where}")

    def _check_reward(self, agent: Any, reward: Any) -> None:
        what = f"the reward of {agent!r} {self._where}"
        if isinstance(reward, np.ndarray):
            self._report.add("reward-array", f"{what} is an array of shape {reward.shape}")
        elif not isinstance(reward, Real) or isinstance(reward, np.bool_):
            self._report.add("reward-type", f"{what} is a {_type(reward)}, not a number")
        elif not np.isfinite(float(reward)):
            self._report.add("reward-not-finite", f"{what} is {reward}")

    def _check_flags(self, agent: Any, flags: tuple[Any, Any], live: bool) -> None:
        for name, flag in zip(("terminations", "truncations"), flags, strict=True):
            if not isinstance(flag, bool):
                kind = type(flag).__module__ + "." + type(flag).__name__
                text = f"{name} of {agent!r} {self._where} holds a {kind}, not a bool"
                self._report.add("flag-type", text)
        terminated, truncated = (_true(flag) for flag in flags)
        if terminated or truncated:
            self._ends.append((terminated, truncated))
            self._finished.add(agent)
            if live:
                word = "terminated" if terminated else "truncated"
                text = f"{agent!r} is still in `agents` though {word} {self._where}"
                self._report.add("agent-not-removed", text)
        elif not live:
            self._finished.add(agent)
            text = f"{agent!r} left `agents` {self._where}, neither terminated nor truncated"
            self._report.add("agent-vanished", text)

    def _space(self, agent: Any) -> _Spaces | None:
        """The agent's two spaces; None if they cannot be had or used."""
        try:
            now = (self._env.observation_space(agent), self._env.action_space(agent))
        except Exception as error:
            self._report.add("space-raised", f"a space of {agent!r}: {describe(error)}")
            return None
        if agent not in self._spaces:
            fault = _spaces_fault(now)
            if fault is not None:
                self._report.add("space-invalid", f"a space of {agent!r}: {fault}")
                return None
            self._spaces[agent] = (now, copy.deepcopy(now))
        for which, space, before in zip(("observation", "action"), now, self._spaces[agent][0]):  # noqa: B905
            if space is not before:
                text = f"{which}_space({agent!r}) returned another object {self._where} than before"
                self._report.add("space-changed", text)
        return now

    def _hold(self, outputs: dict[str, dict]) -> None:
        """Remember what was handed out, to see later whether it is still the same."""
        held = [
            (name, self._where, output, fingerprint(output)) for name, output in outputs.items()
        ]
        self._held.extend(held)
        if self._episodes <= 2 and len(self._first) < _HELD * len(OUTPUTS):
            self._first.extend(held)

    def _recheck(self, held: Iterable[tuple[str, str, Any, bytes]]) -> None:
        for name, where, output, digest in held:
            if fingerprint(output) != digest:
                text = f"{name} handed out {where} had changed {self._where}"
                self._report.add(f"{name}-reused", text)


def _spaces_fault(both: _Spaces) -> str | None:
    """What makes spaces unusable, in the words of Gymnasium's checker if it is that."""
    try:
        check_observation_space(both[0])
        check_action_space(both[1])
    except Exception as error:
        return describe(error)
    for space in both:
        if isinstance(space, spaces.Box) and not (space.low <= space.high).all():
            return f"{space} has a lower bound that is NaN or above the upper one"
    return None


def _limit_named(env: ParallelEnv, length: int) -> str | None:
    """An attribute or module constant whose name says that it is a time limit of `length`."""
    raw = env.unwrapped
    holders = [vars(raw), *(vars(cls) for cls in type(raw).__mro__)]
    holders.append(vars(sys.modules.get(type(raw).__module__, object)))
    for name, value in (item for holder in holders for item in holder.items()):
        if type(value) is int and value == length and _LIMIT.search(name):
            return f"{name}={value}"
    return None


def _share(one: Any, two: Any) -> bool:
    """Whether a write into a part of `one` can change `two`."""
    pairs = itertools.product(arrays(one), arrays(two))
    return any(np.shares_memory(a, b) for a, b in pairs)


def _true(flag: Any) -> bool:
    try:
        return bool(np.any(flag))
    except Exception:
        return False


def _some(agents: set[Any]) -> str:
    return repr(min(agents, key=repr))


def describe(error: BaseException) -> str:
    """The type and the first line of an exception."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
