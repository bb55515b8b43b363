"""Registers the test systems, so that every test over registered ids runs on them too."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import invariantzoo

MOST_WORKERS = 8  # each holds torch, compiled code and a copy of what it tests

invariantzoo.register(
    "test-hold-v0", "systems:Hold", summary="one controller holds a kicked point at the origin"
)
invariantzoo.register(
    "test-leave-v0", "systems:Leave", summary="walkers leave a corridor, one step at a time"
)


def of_whole_folders(config: pytest.Config) -> bool:
    return all(Path(arg).is_dir() for arg in config.args)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker per core for whole folders; none for named files, which run sooner without."""
    if not of_whole_folders(config):
        return 0
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(cores, MOST_WORKERS) if cores > 1 else 0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays: unused objects are not looked for among it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Each worker compiles what its share of the ids needs, so that no two compile the same.

    That takes a minute where no code is kept from before, else a second. What fails is left to
    the tests.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or not of_whole_folders(session.config):
        return
    number, workers = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for id in invariantzoo.ids()[number::workers]:
        with contextlib.suppress(Exception):
            env = invariantzoo.parallel_env(id)
            env.reset(seed=0)
            env.step({agent: env.action_space(agent).sample() for agent in env.agents})
