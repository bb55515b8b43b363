"""The same episodes of a parallel environment, run again under perturbations by their caller."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from .. import renamed
from .contract import (
    ContractChecker,
    Malformed,
    Report,
    describe,
    fingerprint,
    mask_fault,
    mask_of,
    scribble,
)

MakeEnv = Callable[..., ParallelEnv]

# What a caller may do, what an environment that notices has got wrong, and the finding's name.
PERTURBATIONS = {
    "globals": ("global-generator", "the state of a global random generator"),
    "order": ("action-order", "the order of the keys in the actions"),
    "actions": ("actions-aliased", "what the caller writes into its actions after step()"),
    "observations": ("observations-aliased", "what the caller writes into an observation"),
    "rewards": ("rewards-aliased", "what the caller writes into the rewards"),
    "infos": ("infos-aliased", "what the caller writes into an info"),
    "spaces": ("space-generator", "the caller seeding and sampling the spaces"),
    "state": ("state-side-effect", "calls of state()"),
    "twin": ("shared-state", "a second environment that runs beside it"),
}
_RESET_OUTPUTS = ("observations", "infos", "agents")
_STEP_OUTPUTS = ("observations", "rewards", "terminations", "truncations", "infos", "agents")
MALFORMED = "Malformed"
_HOLD = 40  # steps for which an action is held
_TWIN_STEPS = 100  # after which the second environment is closed and another one is made


class Unmakeable(Exception):
    """The factory made one environment but not another."""


class StepRecord(NamedTuple):
    """Digests of what a reset (step 0) or a step handed out, or the type of what it raised."""

    seed: int
    step: int
    prints: tuple[bytes, ...]
    raised: str = ""


class Difference(NamedTuple):
    """Where two runs first differ (number of the record, step of its episode), and in what."""

    record: int
    step: int
    text: str


@dataclass(frozen=True)
class EpisodePlan:
    """Episodes to run: as many as fit into `steps` steps, then half as many with held actions.

    seed: of the first episode; the next ones count up.  stream: which random actions.
    """

    seed: int
    steps: int
    stream: int = 0

    def parts(self) -> Iterator[tuple[bool, int]]:
        """Whether actions are held, and the number of steps."""
        yield False, self.steps
        yield True, max(self.steps // 2, 1)


class Actor:
    """Chooses legal actions with generators of its own, from copies of the spaces."""

    def __init__(self, env: ParallelEnv, seed: int) -> None:
        self._env = env
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._spaces: dict[Any, spaces.Space] = {}
        self._spares: dict[Any, spaces.Space] = {}
        self._held: dict[Any, tuple[Any, int]] = {}

    def act(self, agents: list[Any], masks: dict[Any, Any], held: bool) -> dict[Any, Any]:
        """Actions of `agents`: fresh ones, or extreme ones that are kept for some steps."""
        if held:
            return {agent: self._keep(agent, masks.get(agent)) for agent in agents}
        return {agent: _sample(self._space(agent), masks.get(agent)) for agent in agents}

    def overwrite(self, actions: dict[Any, Any]) -> None:
        """What a caller does who uses its buffers again."""
        scribble(actions)
        for agent in actions:
            if agent not in self._spares:
                self._spares[agent] = copy.deepcopy(self._space(agent))
            actions[agent] = self._spares[agent].sample()

    def _space(self, agent: Any) -> spaces.Space:
        if agent not in self._spaces:
            self._spaces[agent] = copy.deepcopy(self._env.action_space(agent))
            self._spaces[agent].seed(self._seed + len(self._spaces))
        return self._spaces[agent]

    def _keep(self, agent: Any, mask: Any) -> Any:
        action, left = self._held.get(agent, (None, 0))
        if left == 0 or not _legal(self._space(agent), action, mask):
            action, left = self._extreme(self._space(agent), mask), _HOLD
        self._held[agent] = (action, left - 1)
        return copy.deepcopy(action)

    def _extreme(self, space: spaces.Space, mask: Any) -> Any:
        """A corner of a bounded box, else a random action."""
        if isinstance(space, spaces.Box) and space.is_bounded():
            low = self._rng.random(space.shape) < 0.5
            return np.where(low, space.low, space.high).astype(space.dtype)
        return _sample(space, mask)


def _sample(space: spaces.Space, mask: Any) -> Any:
    if mask is None:
        return space.sample()
    with contextlib.suppress(Exception):  # not every space takes a mask
        return space.sample(mask.astype(np.int8) if isinstance(mask, np.ndarray) else mask)
    return space.sample()


def _legal(space: spaces.Space, action: Any, mask: Any) -> bool:
    if mask is None:
        return True
    return isinstance(space, spaces.Discrete) and bool(mask[int(action) - int(space.start)])


def legal_masks(env: ParallelEnv, observations: dict, infos: dict) -> dict[Any, Any]:
    """Copies of the sound action masks of the live agents."""
    masks = {}
    for agent in env.agents:
        mask = mask_of(observations.get(agent), infos.get(agent))
        if mask is not None and mask_fault(env.action_space(agent), mask) is None:
            masks[agent] = copy.deepcopy(mask)
    return masks


def make_again(make_env: MakeEnv, **given: Any) -> ParallelEnv:
    """Another environment; raises Unmakeable."""
    try:
        return make_env(**given)
    except Exception as error:
        raise Unmakeable(describe(error)) from error


@dataclass
class _Caller:
    """Who runs an environment, and how."""

    env: ParallelEnv
    actor: Actor
    perturbations: frozenset[str]
    checker: ContractChecker | None = None
    twin: Iterator[None] | None = None

    def looks(self, result: tuple) -> None:
        """Do to what was handed out what one is free to do."""
        observations, infos = result[0], result[-1]
        if "observations" in self.perturbations:
            scribble(observations)
        if "infos" in self.perturbations:
            for info in filter(_is_dict, infos.values()):
                info["the caller"] = "was here"
        if "rewards" in self.perturbations and len(result) == 5:
            for agent in result[1]:
                result[1][agent] = 1234.5
        if "spaces" in self.perturbations:
            for agent in self.env.agents:
                with contextlib.suppress(Exception):
                    self.env.observation_space(agent).seed(7)
                    self.env.action_space(agent).seed(7)
                    self.env.action_space(agent).sample()
        if "state" in self.perturbations:
            with contextlib.suppress(Exception):
                self.env.state()
        if self.twin is not None:
            next(self.twin)


def transcript(
    make_env: MakeEnv,
    plan: EpisodePlan,
    *,
    perturbations: Iterable[str] = (),
    env: ParallelEnv | None = None,
    report: Report | None = None,
) -> Iterator[StepRecord]:
    """Run the plan, in `env` or else in a new environment; yields what was handed out.

    With a report, what is handed out is judged too. Raises Unmakeable.
    """
    perturbations, made = frozenset(perturbations), env is None
    if env is None:
        scramble(2 if "globals" in perturbations else 1)
        env = make_again(make_env)
    caller = _Caller(env, Actor(env, plan.seed + plan.stream), perturbations)
    if report is not None:
        caller.checker = ContractChecker(env, report)
    if "twin" in perturbations:
        caller.twin = _twin(make_env, plan.seed + 1)
    seeds = itertools.count(plan.seed)
    for held, budget in plan.parts():
        left = budget
        while left > 0:
            for record in _episode(caller, next(seeds), left, held):
                left -= record.step > 0
                yield record
            if record.raised or record.step == 0:
                return
    if caller.checker is not None:
        caller.checker.finish()
    if made:
        with contextlib.suppress(Exception):
            env.close()


def _episode(caller: _Caller, seed: int, budget: int, held: bool) -> Iterator[StepRecord]:
    """One episode of at most `budget` steps; the last record may say that something was raised."""
    env, checker, step = caller.env, caller.checker, 0
    try:
        result: tuple = env.reset(seed=seed)
        if checker is not None:
            checker.reset(result, seed)
        live = list(env.agents)
        while True:
            prints = (*map(fingerprint, result), fingerprint(list(env.agents)))
            masks = legal_masks(env, result[0], result[-1])
            caller.looks(result)
            yield StepRecord(seed, step, prints)
            if not live or step == budget:
                return
            step += 1
            actions = caller.actor.act(live, masks, held)
            if "order" in caller.perturbations:
                actions = dict(reversed(actions.items()))
            given = fingerprint(actions)
            before, result = live, env.step(actions)
            if checker is not None:
                checker.actions(actions, given, seed, step)
                checker.step(result, before, seed, step)
            live = [a for a in env.agents if not (_flag(result[2], a) or _flag(result[3], a))]
            if "actions" in caller.perturbations:
                caller.actor.overwrite(actions)
    except Unmakeable:
        raise
    except Malformed:
        yield StepRecord(seed, step, (), MALFORMED)
    except Exception as error:
        if checker is not None:
            checker.raised(error, seed, step)
        yield StepRecord(seed, step, (), type(error).__name__)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _flag(flags: dict, agent: Any) -> bool:
    flag = flags.get(agent, False)
    return flag if isinstance(flag, bool) else bool(np.any(flag))


def _twin(make_env: MakeEnv, seed: int) -> Iterator[None]:
    """Run a second environment, a step at each `next`; from time to time it is a new one."""
    while True:
        env = make_again(make_env)
        for record in itertools.islice(endless_transcript(env, seed), _TWIN_STEPS):
            yield
            if record.raised:
                break
        yield
        with contextlib.suppress(Exception):
            env.close()


def endless_transcript(env: ParallelEnv, seed: int) -> Iterator[StepRecord]:
    """One episode after another in `env`, without end."""
    caller = _Caller(env, Actor(env, seed), frozenset())
    for episode in itertools.count(seed):
        yield from _episode(caller, episode, sys.maxsize, False)


def compare(reference: Iterable[StepRecord], other: Iterable[StepRecord]) -> Difference | None:
    """Where two runs first differ; None if they agree as far as the shorter one goes."""
    for index, (first, second) in enumerate(zip(reference, other, strict=False)):
        if first == second:
            continue
        where = f"at step {first.step} after reset(seed={first.seed})"
        if first.raised or second.raised:
            words = (
                f"{m.raised} is raised" if m.raised else "nothing is raised"
                for m in (first, second)
            )
            return Difference(
                index, first.step, f"{where} {' in one run, '.join(words)} in the other"
            )
        names = _STEP_OUTPUTS if first.step else _RESET_OUTPUTS
        parts = zip(names, first.prints, second.prints, strict=False)
        name = next((name for name, a, b in parts if a != b), "lengths of the episodes")
        return Difference(index, first.step, f"{name} differ {where}")
    return None


# --- what belongs to the process -----------------------------------------------------------------


@contextlib.contextmanager
def globals_kept() -> Iterator[None]:
    """Leave the global random generators and settings as they were."""
    states = (random.getstate(), np.random.get_state())  # noqa: NPY002
    folder = os.getcwd()
    torch = sys.modules.get("torch")
    torch_state = None if torch is None else (torch.get_rng_state(), torch.get_default_dtype())
    try:
        with np.errstate():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        os.chdir(folder)
        if torch is not None and torch_state is not None:
            torch.set_rng_state(torch_state[0])
            torch.set_default_dtype(torch_state[1])


def scramble(key: int) -> None:
    """Bring the global random generators into a state that depends on `key` alone."""
    random.setstate(random.Random(key).getstate())
    np.random.set_state(np.random.RandomState(key).get_state())  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_rng_state(torch.Generator().manual_seed(key).get_state())


def global_states() -> dict[tuple[str, str], bytes]:
    """Digests of the generators and settings that an environment has no business with.

    Keys: the name of the finding if one of them changes, and what it is.
    """
    states: dict[tuple[str, str], Any] = {
        ("global-generator", "random"): random.getstate(),
        ("global-generator", "numpy.random"): np.random.get_state(),  # noqa: NPY002
        ("global-settings", "numpy.seterr"): np.geterr(),
        ("global-settings", "the working directory"): os.getcwd(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        states["global-generator", "torch"] = torch.get_rng_state().numpy()
        states["global-settings", "torch's default dtype"] = str(torch.get_default_dtype())
    return {key: fingerprint(value) for key, value in states.items()}


@contextlib.contextmanager
def another_time() -> Iterator[None]:
    """Let the clock be some days ahead."""
    real, real_ns = time.time, time.time_ns

    def later() -> float:
        return real() + 1e6

    def later_ns() -> int:
        return real_ns() + 10**15

    with (
        mock.patch.object(time, "time", later),
        mock.patch.object(time, "time_ns", later_ns),
    ):
        yield


def __getattr__(name: str) -> Any:
    return renamed.former_name(__name__, name)
