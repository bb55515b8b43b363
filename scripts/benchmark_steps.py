"""Agent-steps of the runs of the standard benchmark, from the CPU time that they take.

    python -m invariantzoo.benchmark_steps [ID …]

Ids that are named are measured anew, otherwise what the table does not have. A run makes the
agent-steps that its id states for the algorithm, if these take at most MOST seconds of CPU time;
else, and where it states none, what takes USUAL seconds. The table is written beside the suites, so
that a benchmark makes the same steps on every machine.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

import invariantzoo
from invariantzoo.envs.core.registry import make_system, spec
from invariantzoo.training.benchmark import units
from invariantzoo.training.rl.algorithms import make_config, make_trainer
from invariantzoo.training.rl.hyperparameters import ALGORITHMS
from invariantzoo.training.runs.folder import write_json

USUAL, MOST = 60.0, 120.0  # CPU seconds of a run
_PROBE = 5.0  # CPU seconds of a measurement
_NEVER = 10**15  # agent-steps; where a trainer's schedules end


def steps_per_second(id: str, algo: str) -> float:
    """Agent-steps per CPU second, without what is compiled or begun in the first update."""
    trainer = make_trainer(algo, make_system(id), make_config(id, algo, {}), seed=0, steps=_NEVER)
    updates = iter(trainer)
    first = next(updates).steps
    start = time.process_time()
    while True:
        steps = next(updates).steps
        if (spent := time.process_time() - start) > _PROBE:
            return (steps - first) / spent


def steps_by_time(id: str, algo: str) -> int:
    """Agent-steps of a run, to two digits."""
    speed = steps_per_second(id, algo)
    stated = spec(id).training.get(algo, {}).get("steps")
    if stated is not None and stated <= MOST * speed:
        return int(stated)
    return int(float(np.format_float_scientific(USUAL * speed, precision=1)))


def main() -> int:
    """Measure what is asked, or what the table lacks of ids that have a scale, and write it."""
    torch.set_num_threads(1)
    table = json.loads(units.STANDARD_STEPS.read_text()) if units.STANDARD_STEPS.exists() else {}
    for id in sys.argv[1:]:
        table[id] = {}
    scaled = (id for id in invariantzoo.ids() if spec(id).score is not None)
    for id in sys.argv[1:] or scaled:
        table.setdefault(id, {})
        for algo in ALGORITHMS:
            if algo not in table[id] and not units.refusal(id, algo):
                table[id][algo] = steps_by_time(id, algo)
        print(id, table[id], flush=True)
        write_json(units.STANDARD_STEPS, dict(sorted(table.items())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
