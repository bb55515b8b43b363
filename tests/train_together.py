"""Short trainings of one process or, under torchrun, of several: `train_together.py FOLDER`.

Leaves the state of each, after so many updates, in FOLDER/<name>.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

import invariantzoo
from invariantzoo.training.rl import processes
from invariantzoo.training.rl.algorithms import config_class, make_trainer

UPDATES = 3
TINY: dict[str, Any] = {"n_worlds": 4, "n_steps": 7, "batch_size": 20, "n_epochs": 2}
CROWD = ("particles-crowd-v0", {"n_agents": 4, "horizon": 9})
SPINS = ("ising-equilibrium-v0", {"lattice_size": 2, "n_sweeps": 2, "burn_in": 0})
CASES: dict[str, tuple[str, tuple[str, dict[str, Any]], dict[str, Any]]] = {
    "ppo": ("ppo", CROWD, TINY),
    "ppo of spins": ("ppo", SPINS, TINY),
    "mappo": ("mappo", CROWD, {**TINY, "optimizer": "cgd", "batch_size": 24}),
    "mappo of spins": ("mappo", SPINS, {**TINY, "share": "none", "batch_size": 5}),
    "a2c": ("a2c", CROWD, {"n_worlds": 4, "n_steps": 6}),
}


def trainer(name: str) -> Any:
    """A trainer of a case."""
    algo, (id, parameters), settings = CASES[name]
    system = invariantzoo.make_system(id, **parameters)
    config = config_class(algo)(**settings)
    steps = (UPDATES + 2) * config.n_worlds * config.n_steps * system.n_agents
    return make_trainer(algo, system, config, seed=3, steps=steps)


def trained(name: str) -> tuple[dict[str, Any], dict[str, float]]:
    """The state after all updates, and the row of the last of them."""
    made = trainer(name)
    for update in made:
        if update.steps >= UPDATES * made.per_update:
            break
    return made.state_dict(), update.row


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        result = trained(case)
        if processes.is_first():
            torch.save(result, Path(sys.argv[1]) / f"{case}.pt")
    processes.leave()
