"""Velocities that the library RVO2 chooses, recorded for the test of the compiled ORCA.

    python scripts/figures/rvo2_velocities.py

Writes tests/data/rvo2_velocities.npz: scenes of 64 discs on their way, as the library itself drives
them: squares of 5, 20 and 35 % cover with random starts and goals, and circles whose discs change
places with the opposite ones. float32 arrays [scenes, 64, 2]: position, velocity, goal, and
next_velocity after one step. Radius 0.2, speed 1, dt 0.1, horizon 2, 10 neighbours within 5, radii
times 1.05, as in agents/baselines/orca.py. Needs `pyrvo` (extra `bench`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

N, RADIUS, SPEED, DT = 64, 0.2, 1.0, 0.1
HORIZON, NEIGHBOURS, RANGE, INFLATION, JITTER = 2.0, 10, 5.0, 1.05, 0.01
COVERS, SEEDS, AFTER = (0.05, 0.2, 0.35), range(5), (0, 10, 40, 120)  # steps made before
CIRCLES, CIRCLE_AFTER = (0.02, 0.05, 0.1), (0, 20, 60, 90)
FILE = Path(__file__).resolve().parents[2] / "tests" / "data" / "rvo2_velocities.npz"


def apart(rng: np.random.Generator, side: float) -> np.ndarray:
    """Places [N, 2] in a square, none closer than 2.12 radii to another."""
    places = np.empty((0, 2))
    while len(places) < N:
        place = side * rng.random(2)
        if np.all(np.hypot(*(places - place).T) >= 2.12 * RADIUS):
            places = np.vstack([places, place])
    return places


def square(rng: np.random.Generator, cover: float) -> tuple[np.ndarray, np.ndarray]:
    """Starts and goals."""
    side = math.sqrt(N * math.pi * RADIUS**2 / cover)
    return apart(rng, side), apart(rng, side)


def circle(rng: np.random.Generator, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Starts, each moved by up to `shift`, and goals."""
    angle = 2 * np.pi * np.arange(N) / N
    start = 0.143 * N * np.stack([np.cos(angle), np.sin(angle)], -1)
    return start + shift * (2 * rng.random((N, 2)) - 1), -start


def preferred(position: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Towards the goal, and no farther."""
    way = goal - position
    distance = np.hypot(*way.T)[:, None]
    return way * np.where(distance > SPEED * DT, SPEED / np.maximum(distance, 1e-12), 1 / DT)


def simulator(position: np.ndarray) -> Any:
    """The library with discs at rest."""
    from pyrvo import RVOSimulator

    library = RVOSimulator(DT, RANGE, NEIGHBOURS, HORIZON, HORIZON, INFLATION * RADIUS, SPEED)
    for place in position:
        library.add_agent(tuple(place))
    return library


def vectors(library: Any, name: str) -> np.ndarray:
    """Positions or velocities of all agents, float32 [N, 2]."""
    read = getattr(library, f"get_agent_{name}")
    return np.array([(v.x, v.y) for v in map(read, range(N))], np.float32)


def step(library: Any, velocities: np.ndarray) -> None:
    """One step with these preferred velocities."""
    for i, velocity in enumerate(velocities):
        library.set_agent_pref_velocity(i, tuple(velocity))
    library.do_step()


def record(
    rng: np.random.Generator, start: np.ndarray, goal: np.ndarray, after: tuple[int, ...]
) -> list[tuple[np.ndarray, ...]]:
    """(position, velocity, goal, next velocity) after so many steps with noise."""
    library = simulator(start)
    records: list[tuple[np.ndarray, ...]] = []
    goal = goal.astype(np.float32)
    for made in range(max(after) + 1):
        position = vectors(library, "position")
        wish = preferred(position.astype(float), goal.astype(float))
        if made in after:
            velocity = vectors(library, "velocity")
            fresh = simulator(position)
            for i in range(N):
                fresh.set_agent_velocity(i, tuple(velocity[i]))
            step(fresh, wish)
            records.append((position, velocity, goal, vectors(fresh, "velocity")))
        length, angle = JITTER * rng.random(N), 2 * np.pi * rng.random(N)
        step(library, wish + length[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1))
    return records


def main() -> None:
    records = []
    for seed in SEEDS:
        for cover in COVERS:
            rng = np.random.default_rng([seed, round(100 * cover)])
            records += record(rng, *square(rng, cover), AFTER)
    for number, shift in enumerate(CIRCLES):
        rng = np.random.default_rng([100, number])
        records += record(rng, *circle(rng, shift), CIRCLE_AFTER)
    names = ("position", "velocity", "goal", "next_velocity")
    arrays = {
        name: np.stack(column)
        for name, column in zip(names, zip(*records, strict=True), strict=True)
    }
    savez: Any = np.savez_compressed
    savez(FILE, **arrays)
    print(f"{FILE.name}: {arrays['position'].shape[0] * N} states")


if __name__ == "__main__":
    main()
