"""Conformance checks for any PettingZoo parallel environment.

The environment is run for some episodes and everything it hands out is judged (contract.py). Then
the same episodes are run again, with the same seeds and actions, under perturbations: the caller
hands in actions in another order, writes into what was handed out, runs a second environment
between the steps and so on (`replay.py`). None of that may be seen in what the agents get; if it
is, the perturbations are tried one by one to find the cause. Last come the checkers of PettingZoo,
Gymnasium and Stable-Baselines3 (`third_party.py`).
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from .contract import Finding, Report, describe, fingerprint, space_fault
from .replay import (
    MALFORMED,
    PERTURBATIONS,
    Actor,
    Difference,
    EpisodePlan,
    MakeEnv,
    StepRecord,
    Unmakeable,
    another_time,
    compare,
    endless_transcript,
    global_states,
    globals_kept,
    legal_masks,
    make_again,
    scramble,
    transcript,
)
from .third_party import run_checkers

_IRREPRODUCIBLE = ("seed-ignored", "unseeded-noise", "global-generator", "shared-state")
# Findings of a perturbation that are explained by others.
_SAME_FAULT = {
    "observations-aliased": ("observations-reused",),
    "rewards-aliased": ("rewards-reused",),
    "infos-aliased": ("infos-reused", "infos-shared"),
    "shared-state": ("global-generator",),
}
_SEEDS = 8
_HASH_SEEDS = ("1", "2")  # one alone may give the order that this process has
_SHORT = 5
_SOME = 30
_MAX_CYCLES = 5


class _Subject(NamedTuple):
    """What is checked: the factory, the plan, and what the judged run of it gave.

    broken: whether the run ended early.
    """

    make_env: MakeEnv
    plan: EpisodePlan
    env: ParallelEnv
    reference: list[StepRecord]
    broken: bool


def check_parallel(make_env: MakeEnv, *, seed: int = 0, steps: int = 1000) -> list[Finding]:
    """Everything found wrong with the environments that `make_env` makes; empty if they are sound.

    make_env: returns a new environment; takes `render_mode` if pictures are to be checked.
    seed: of the first episode; the next ones count up.  steps: length of a run, which holds as
    many episodes as fit. Raises what the first call of `make_env` raises.
    """
    report = Report()
    with _quiet(), globals_kept():
        before = global_states()
        first = make_env()
        if not isinstance(first, ParallelEnv):
            kind = f"{type(first).__module__}.{type(first).__qualname__}"
            return [Finding("not-parallel", f"a {kind} is not a pettingzoo.ParallelEnv")]
        # What is imported late is imported now.
        list(islice(endless_transcript(first, seed), _SHORT))
        _check_close(first, report)
        _compare_globals(before, "global-settings", report)
        with _guarded(report):
            if make_again(make_env) is first:
                text = "the factory returned the same environment again, not a new one"
                return [Finding("construction", text)]
            subject = _judged(make_env, EpisodePlan(seed, steps), report)
            for check in (_check_repetition, _check_render):
                with _guarded(report):
                    check(subject, report)
            if not subject.broken:
                for check in _CHECKS:
                    with _guarded(report):
                        check(subject, report)
                run_checkers(make_env, subject.env, _masked(subject), steps, report)
            _check_close(subject.env, report)
    return report.findings()


def check_processes(make_env: MakeEnv, *, seed: int = 0, steps: int = 200) -> list[Finding]:
    """Whether another process, in which strings hash otherwise, sees the same episodes.

    Empty also if `make_env` cannot be pickled, or another process cannot load or call it.
    """
    plan = EpisodePlan(seed, steps)
    try:
        task = pickle.dumps((sys.path, pickle.dumps((make_env, plan))))
    except Exception:
        return []
    with _quiet(), globals_kept():
        here = list(transcript(make_env, plan))
    code = (
        "import sys, pickle; sys.path[:], task = pickle.load(sys.stdin.buffer);"
        f"from {__name__} import _answer; _answer(task)"
    )
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in _HASH_SEEDS
    ]
    answers = [other.communicate(task)[0] for other in others]
    for other, answer in zip(others, answers, strict=True):
        if other.returncode != 0:
            continue
        difference = compare(here, [StepRecord(*fields) for fields in pickle.loads(answer)])
        if difference is not None:
            text = "with the same seed and actions, in another process, "
            return [Finding("process-dependent", text + difference.text)]
    return []


def _answer(task: bytes) -> None:
    """In the other process: run the plan and write its transcript to standard output."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        make_env, plan = pickle.loads(task)
        with _quiet():
            pickle.dump([tuple(record) for record in transcript(make_env, plan)], out)


def _masked(subject: _Subject) -> bool:
    """Whether the environment masks actions at the start of an episode."""
    env = subject.env
    observations, infos = env.reset(seed=subject.plan.seed)
    return bool(legal_masks(env, observations, infos))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _guarded(report: Report) -> Iterator[None]:
    """One check that breaks does not keep the others from running."""
    try:
        yield
    except Unmakeable as error:
        report.add("construction", f"a second environment could not be made: {error}")
    except Exception as error:
        report.add("check-broken", f"a check could not be finished: {describe(error)}")


def _judged(make_env: MakeEnv, plan: EpisodePlan, report: Report) -> _Subject:
    """The first run, in which everything is judged that is handed out."""
    scramble(1)
    before = global_states()
    env = make_again(make_env)
    reference = list(transcript(make_env, plan, env=env, report=report))
    _compare_globals(before, "global", report)
    broken = bool(reference[-1].raised)
    if reference[-1].raised == MALFORMED:
        reference.pop()
    return _Subject(make_env, plan, env, reference, broken)


def _compare_globals(before: dict[tuple[str, str], bytes], which: str, report: Report) -> None:
    for (name, what), state in global_states().items():
        if name.startswith(which) and before.get((name, what), state) != state:
            report.add(name, f"{what} is changed while the environment is made or runs")


def _check_repetition(subject: _Subject, report: Report) -> None:
    """Same seeds and actions give the same episodes, whatever else the caller does."""
    perturbations = set(PERTURBATIONS)
    difference = _repeat(subject, perturbations)
    if difference is None or _check_chance(subject, report):
        return
    while difference is not None:
        stop = difference.record + 1
        culprits = {p for p in perturbations if _repeat(subject, {p}, stop) is not None}
        if not culprits:
            text = f"with the same seed and actions, {difference.text}, but not in every run"
            report.add("unseeded-noise", text)
            return
        for perturbation, (name, what) in PERTURBATIONS.items():
            if perturbation in culprits and not report.has(_SAME_FAULT.get(name, ())):
                report.add(name, f"{what} has an effect on the episode: {difference.text}")
        perturbations -= culprits
        difference = _repeat(subject, perturbations)


def _repeat(
    subject: _Subject, perturbations: Iterable[str] = (), stop: int | None = None
) -> Difference | None:
    """How a new environment, on another day, differs from the judged one in the first records."""
    with another_time():
        again = transcript(subject.make_env, subject.plan, perturbations=perturbations)
        return compare(subject.reference[:stop], again)


def _check_chance(subject: _Subject, report: Report) -> bool:
    """Whether two runs differ although the caller does the same."""
    before = _class_attributes(subject.env)
    difference = _repeat(subject)
    if difference is None:
        return False
    changed = [k for k, v in _class_attributes(subject.env).items() if before.get(k, v) != v]
    text = f"with the same seed and actions, in a fresh environment, {difference.text}"
    if changed:
        text += f"; {changed[0]} is shared by all environments and changes while they run"
    name = "seed-ignored" if difference.step == 0 else "unseeded-noise"
    report.add("shared-state" if changed else name, text)
    return True


def _class_attributes(env: ParallelEnv) -> dict[str, bytes]:
    """Digests of what all environments of a class share: its attributes and its module's."""
    digests = {}
    for cls in type(env.unwrapped).__mro__:
        if cls.__module__.partition(".")[0] not in ("builtins", "typing", "abc"):
            for name, value in vars(cls).items():
                digests[f"{cls.__name__}.{name}"] = value
    module = type(env.unwrapped).__module__
    for name, value in vars(sys.modules.get(module, object)).items():
        digests[f"{module}.{name}"] = value
    return {k: fingerprint(v) for k, v in digests.items() if not k.endswith("__")}


def _check_leaks(subject: _Subject, report: Report) -> None:
    """A seeded episode is the same whatever episodes the environment has had before."""
    make_env, plan, env, reference, _ = subject
    if report.has(_IRREPRODUCIBLE):
        return
    list(islice(endless_transcript(env, plan.seed + 77), _SHORT))
    difference = compare(reference, transcript(make_env, plan, env=env))
    if difference is None:
        return
    fresh = make_again(make_env)
    starts = {fingerprint(fresh.reset(seed=plan.seed)) for _ in range(2)}
    _check_close(fresh, report)
    if len(starts) > 1:
        text = f"reset(seed={plan.seed}) twice in a row gives two different starts"
        report.add("seed-ignored", text)
    else:
        text = f"in an environment that has had episodes before, {difference.text}"
        report.add("state-leak", text)


def _check_seeds(subject: _Subject, report: Report) -> None:
    """The seed has an effect if chance has; without a seed not every episode is the same."""
    make_env, plan = subject.make_env, subject.plan
    if report.has(_IRREPRODUCIBLE):
        return
    env = make_again(make_env)
    seeded = {_start(env, plan.seed + i) for i in range(_SEEDS)}
    unseeded = {_start(env, None) for _ in range(_SEEDS)}
    _check_close(env, report)
    if len(seeded) == _SEEDS and len(unseeded) == 1:
        report.add("unseeded-reset", "reset() without a seed starts the same episode every time")
    if len(seeded) == 1 and len(unseeded) == _SEEDS:
        report.add("seed-ignored", "all seeds start the same episode, yet reset() does not")


def _start(env: ParallelEnv, seed: int | None) -> bytes:
    first = env.reset(seed=seed)
    return fingerprint([first, *_play(env, first, 0, _SHORT)])


def _play(env: ParallelEnv, last: tuple, seed: int, steps: int) -> list[tuple]:
    """Go on after `last` with random actions for some steps; returns what they returned."""
    actor = Actor(env, seed)
    results: list[tuple] = []
    while env.agents and len(results) < steps:
        masks = legal_masks(env, last[0], last[-1])
        last = env.step(actor.act(list(env.agents), masks, False))
        results.append(last)
    return results


def _check_actions(subject: _Subject, report: Report) -> None:
    """Other actions make another run."""
    make_env, plan, env, reference, _ = subject
    agents = getattr(env, "possible_agents", [])
    if all(_single(env.action_space(agent)) for agent in agents):
        return
    if compare(reference, transcript(make_env, replace(plan, stream=1000))) is None:
        report.add("actions-ignored", "other actions change nothing in what is handed out")


def _single(space: spaces.Space) -> bool:
    if isinstance(space, spaces.Box):
        return bool((space.low == space.high).all())
    return isinstance(space, spaces.Discrete) and space.n == 1


def _check_copy(subject: _Subject, report: Report) -> None:
    """A deep copy, where it can be made, is independent of its original and goes on like it."""
    if report.has(_IRREPRODUCIBLE):
        return
    seed = subject.plan.seed
    alone, copied = make_again(subject.make_env), make_again(subject.make_env)
    for env in (alone, copied):
        first = env.reset(seed=seed)
        last = [first, *_play(env, first, seed, _SHORT)][-1]
    try:
        disturbing, same = copy.deepcopy(copied), copy.deepcopy(alone)
    except Exception:
        return
    with contextlib.suppress(Exception):
        _play(disturbing, last, seed + 1, _SOME)
    expected = fingerprint(_play(alone, last, seed + 2, _SOME))
    if fingerprint(_play(copied, last, seed + 2, _SOME)) != expected:
        report.add("copy-shares-state", "steps of a deep copy change the original's episode")
        return
    rebuilt = any(cls.__name__ == "EzPickle" for cls in type(alone.unwrapped).__mro__)
    if rebuilt:  # by design such a copy is a new environment with the same arguments
        return
    try:
        going_on = fingerprint(_play(same, last, seed + 2, _SOME))
    except Exception as error:
        report.add("copy-diverges", f"a deep copy cannot go on: {describe(error)}")
        return
    if going_on != expected:
        report.add("copy-diverges", "a deep copy goes on otherwise than its original")
    for env in (alone, copied):
        _check_close(env, report)


def _check_reset_arguments(subject: _Subject, report: Report) -> None:
    """reset() takes nothing, a seed, and options that it leaves alone."""
    env = make_again(subject.make_env)
    options: dict[str, Any] = {}
    for given in ({}, {"seed": subject.plan.seed, "options": options}, {"options": None}):
        try:
            env.reset(**given)
        except Exception as error:
            words = ", ".join(f"{name}={value!r}" for name, value in given.items())
            report.add("reset-signature", f"reset({words}) raised {describe(error)}")
    if options:
        report.add("reset-signature", f"reset() wrote {options!r} into the caller's options")
    _check_close(env, report)


def _check_end(subject: _Subject, report: Report) -> None:
    """A step after the end brings nobody back, and the next episode is a sound one."""
    make_env, plan, reference = subject.make_env, subject.plan, subject.reference
    ends = [record.step for record in reference if record.seed == plan.seed]
    env = make_again(make_env)
    for record in islice(endless_transcript(env, plan.seed), len(ends)):
        if record.step == len(ends) - 1:
            break
    if env.agents:
        return
    with contextlib.suppress(Exception):
        env.step({})
    if env.agents:
        report.add("step-after-end", f"step() after the end brings back {env.agents[0]!r}")
    elif not report.has((*_IRREPRODUCIBLE, "state-leak")):
        start = next(endless_transcript(env, plan.seed))
        if start != reference[0]:
            report.add("step-after-end", "after a step() past the end a seeded reset is different")
    _check_close(env, report)


def _check_max_cycles(subject: _Subject, report: Report) -> None:
    """Where the factory names a parameter `max_cycles`, episodes stop there, as truncated."""
    if "max_cycles" not in _parameters(subject.make_env):
        return
    try:
        env = subject.make_env(max_cycles=_MAX_CYCLES)
        first = env.reset(seed=subject.plan.seed)
    except Exception:
        return
    results = _play(env, first, 0, _MAX_CYCLES + 1)
    if len(results) > _MAX_CYCLES:
        text = f"an episode with max_cycles={_MAX_CYCLES} had not ended after as many steps"
        report.add("max-cycles", text)
    elif len(results) == _MAX_CYCLES:
        terminations, truncations = results[-1][2], results[-1][3]
        if not any(truncations.values()) and all(terminations.values()):
            text = f"the end at max_cycles={_MAX_CYCLES} is given as termination, not truncation"
            report.add("truncation-lost", text)
    _check_close(env, report)


def _check_state(subject: _Subject, report: Report) -> None:
    """state(), where there is one, is in its space, is fresh and stays as it was."""
    make_env, plan = subject.make_env, subject.plan
    env = make_again(make_env)
    space, held = None, []
    for record in islice(endless_transcript(env, plan.seed), _SOME):
        if not env.agents:
            continue
        where = f"at step {record.step} after reset(seed={record.seed})"
        try:
            state, again = env.state(), env.state()
            space = getattr(env, "state_space", None)
        except (NotImplementedError, AttributeError):
            return
        except Exception as error:
            report.add("state-raised", f"state() {where} raised {describe(error)}")
            return
        if fingerprint(state) != fingerprint(again):
            report.add("state-unstable", f"two calls of state() {where} differ")
        if isinstance(space, spaces.Space):
            fault = space_fault(space, state, f"state() {where}")
            if fault is not None:
                report.add(f"state-{fault[0]}", fault[1])
        elif isinstance(state, np.ndarray) and state.dtype.kind == "f" and np.isnan(state).any():
            report.add("state-nan", f"state() {where} holds NaN")
        held.append((where, state, fingerprint(state)))
        for then, old, digest in held[-3:]:
            if fingerprint(old) != digest:
                report.add("state-reused", f"state() {then} had changed {where}")
    _check_close(env, report)


def _check_render(subject: _Subject, report: Report) -> None:
    """Pictures and texts are what their mode says, fresh, and have no effect on the episode."""
    metadata = getattr(subject.env, "metadata", None)
    modes = metadata.get("render_modes", ()) if isinstance(metadata, dict) else ()
    taken = _parameters(subject.make_env)
    for mode in ("rgb_array", "ansi"):
        if mode in modes and ("render_mode" in taken or "**" in taken):
            _check_mode(subject, mode, report)


def _check_mode(subject: _Subject, mode: str, report: Report) -> None:
    make_env, plan, reference = subject.make_env, subject.plan, subject.reference
    films = []
    for _ in range(2):
        scramble(1)
        try:
            env = make_env(render_mode=mode)
        except TypeError:
            return
        before = global_states()
        run: list[StepRecord] = []
        film: list[bytes] = []
        last: Any = None
        for record in islice(transcript(make_env, plan, env=env), _SOME):
            run.append(record)
            where = f"at step {record.step} after reset(seed={record.seed})"
            if record.raised or not env.agents:
                continue
            try:
                frame, again = env.render(), env.render()
            except Exception as error:
                report.add("render-raised", f"render() {where} raised {describe(error)}")
                return
            fault = _frame_fault(mode, frame, last)
            if fault:
                report.add("render-frame", f"render() {where} in mode {mode!r} {fault}")
                return
            if last is not None and fingerprint(last) != film[-1]:
                report.add(
                    "render-reused", f"the last frame changed when the one {where} was drawn"
                )
            film.append(fingerprint(frame))
            if fingerprint(again) != film[-1]:
                report.add("render-unstable", f"two frames of the same state differ {where}")
            last = frame
        if getattr(env, "render_mode", None) != mode:
            text = f"`render_mode` of an environment made with {mode!r} is"
            report.add("render-mode", f"{text} {getattr(env, 'render_mode', None)!r}")
        _compare_globals(before, "global", report)
        difference = compare(reference, run)
        if difference is not None and not report.has(_IRREPRODUCIBLE):
            if difference.step == 0 and difference.text.endswith(f"reset(seed={plan.seed})"):
                text = f"made with render_mode={mode!r} it gives another episode: {difference.text}"
                report.add("render-mode-dependent", text)
            else:
                report.add(
                    "render-side-effect", f"rendering changes the episode: {difference.text}"
                )
        films.append(film)
        _check_close(env, report)
    if films[0] != films[1] and not report.has((*_IRREPRODUCIBLE, "render-unstable")):
        report.add("render-unstable", "the frames of two environments with the same seed differ")


def _frame_fault(mode: str, frame: Any, last: Any) -> str | None:
    if mode == "ansi":
        return None if isinstance(frame, str) else f"gave a {type(frame).__name__}, not a str"
    if not isinstance(frame, np.ndarray):
        return f"gave a {type(frame).__name__}, not an array"
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        return f"gave {frame.dtype} {frame.shape}, not uint8 (height, width, 3)"
    if last is not None and last.shape != frame.shape:
        return f"gave a frame of shape {frame.shape} after one of {last.shape}"
    return None


def _check_close(env: ParallelEnv, report: Report) -> None:
    """close() may be called, and called again."""
    for times in ("once", "twice"):
        try:
            env.close()
        except Exception as error:
            report.add("close-raised", f"close() called {times} raised {describe(error)}")
            return


def _parameters(make_env: MakeEnv) -> set[str]:
    """Names of the parameters that the factory takes; "**" if it takes any."""
    try:
        parameters = inspect.signature(make_env).parameters.values()
    except (TypeError, ValueError):
        return set()
    return {"**" if p.kind is inspect.Parameter.VAR_KEYWORD else p.name for p in parameters}


_CHECKS = (
    _check_leaks,
    _check_seeds,
    _check_actions,
    _check_copy,
    _check_reset_arguments,
    _check_end,
    _check_max_cycles,
    _check_state,
)
