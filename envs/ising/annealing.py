"""A spin glass that cools towards its ground state, which is known: spins of `equilibrium.py`."""

from __future__ import annotations

from .equilibrium import Ising

__all__ = ["Ising"]

SCENARIOS = {
    "ising-anneal-v0": {
        "system": "Ising",
        "summary": "a spin glass that cools towards its ground state, which is known",
        "parameters": {
            "lattice_size": 6,
            "bonds": "random",
            "temperature": 3.0,
            "final_temperature": 0.2,
            "n_sweeps": 50,
            "burn_in": 0,
        },
        "training": {
            "ppo": {
                "steps": 40_000_000,
                "n_worlds": 128,
                "batch_size": 8192,
                "lr": 3e-3,
                "gamma": 0.98,
            },
            "es": {"std": 0.15, "std_final": 0.05, "lr": 0.15},  # few updates: episodes are long
        },
        "film": {
            "parameters": {"update": "checkerboard", "n_sweeps": 30},
            "policy": "heat-bath",
            "n_worlds": 4,
            "size": 320,
        },
        "variants": [
            {"lattice_size": 3, "update": "parallel"},
            {"lattice_size": 4, "update": "checkerboard", "field": 0.1},
            {"lattice_size": 4, "bonds": "uniform"},
        ],
        "score": {
            "random": -9.227,
            "best": 4554.0,
            "policy": "ppo",
            "origin": "5 trained runs of docs/scores.md",
        },
    },
}
