"""Registers the test systems, so that every test over registered ids runs on them too."""

from __future__ import annotations

import os
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


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker per core for whole folders; none for named files, which run sooner without."""
    if not all(Path(arg).is_dir() for arg in config.args):
        return 0
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(cores, MOST_WORKERS) if cores > 1 else 0
