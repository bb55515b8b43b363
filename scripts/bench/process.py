"""What a process costs: the import, the memory of a batch; and the machine it ran on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import invariantzoo
from invariantzoo.bench.interfaces import CROWD, batched

IMPORT_SECONDS = 0.4
NOT_IMPORTED = ("torch", "stable_baselines3", "numba", "pygame")
VERSIONS = (
    "numpy",
    "numba",
    "torch",
    "stable-baselines3",
    "gymnasium",
    "pettingzoo",
    "torchrl",
    "mpe2",
    "vmas",
    "supersuit",
    "mcising",
    "openmm",
    "ase",
    "tblite",
)


def import_time(repeats: int) -> dict[str, Any]:
    """CPU seconds of `import invariantzoo` in a fresh interpreter, and what came along."""
    code = (
        "import sys, time; start = time.process_time(); import invariantzoo; "
        "print(time.process_time() - start, *sys.modules)"
    )
    seconds, modules = [], set()
    for _ in range(repeats):
        first, *names = _fresh(code).split()
        seconds.append(float(first))
        modules.update(names)
    spent = statistics.median(seconds)
    heavy = [name for name in NOT_IMPORTED if name in modules]
    return {
        "cpu_s": spent,
        "at_most": IMPORT_SECONDS,
        "imported": heavy,
        "met": spent <= IMPORT_SECONDS and not heavy,
    }


def memory(worlds: int, agents: int) -> dict[str, Any]:
    """Peak memory in MiB of a fresh process before and after ten steps of a batch."""
    code = f"from invariantzoo.bench import process; print(*process.peak_of({worlds}, {agents}))"
    before, after = map(float, _fresh(code).split())
    return {"worlds": worlds, "agents": agents, "imports_mib": before, "peak_mib": after}


def peak_of(worlds: int, agents: int) -> tuple[float, float]:
    """Peak memory of this process in MiB, before and after ten steps of a batch."""
    one_thread()
    batched(CROWD, 1, n_agents=2)()
    before = _peak()
    work = batched(CROWD, worlds, n_agents=agents)
    for _ in range(10):
        work()
    return before, _peak()


def _peak() -> float:
    """Largest resident size of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def one_thread() -> None:
    """Let torch compute in one thread, as all that is measured does."""
    import torch

    torch.set_num_threads(1)


def machine() -> dict[str, str]:
    """When, on what and with which versions this was measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {
        "date": datetime.date.today().isoformat(),
        "cpu": models[0] if models else platform.processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "invariantzoo": invariantzoo.__version__,
    }
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
