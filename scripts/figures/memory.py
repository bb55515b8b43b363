"""Resident memory over many short episodes and many frames, which has to stay flat.

    python -m invariantzoo.figures.memory [--out docs] [--episodes 100000] [--frames 10000]

Every id of the package runs as a PettingZoo parallel environment. Writes memory.md. Needs Linux.
Exits with 1 if memory grew by more than 4 MB after the first tenth.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import invariantzoo
from invariantzoo.report import figure_parser, table, write_text
from invariantzoo.site.pages import own_ids

PARTS = (0.1, 0.25, 0.5, 0.75, 1.0)
STEPS, GROWTH = 2, 4.0  # steps of an episode; MB


def main() -> int:
    """Measure, print and write the table; the exit code says whether memory is flat."""
    args = figure_parser(__doc__, out=Path("docs"), episodes=100_000, frames=10_000).parse_args()
    rows = []
    for id in own_ids():
        for what, count, work in (
            (f"episodes of {STEPS} steps", args.episodes, episodes(id)),
            ("frames of 640 x 640", args.frames, frames(id)),
        ):
            megabytes = measure(work, count)
            rows.append((id, what, count, megabytes))
            print(
                f"{id}, {count} {what}: {', '.join(f'{mb:.1f}' for mb in megabytes)} MB", flush=True
            )
    write_text(args.out / "memory.md", page(rows))
    return int(any(megabytes[-1] - megabytes[0] > GROWTH for *_, megabytes in rows))


def episodes(id: str) -> Callable[[], None]:
    """What runs one short episode."""
    env = invariantzoo.parallel_env(id, max_cycles=STEPS)
    env.reset(seed=0)
    action = {agent: env.action_space(agent).sample() for agent in env.possible_agents}

    def work() -> None:
        env.reset()
        while env.agents:
            env.step({agent: action[agent] for agent in env.agents})

    return work


def frames(id: str) -> Callable[[], None]:
    """What makes one step and draws one picture."""
    env = invariantzoo.parallel_env(id, render_mode="rgb_array")
    env.reset(seed=0)
    action = {agent: env.action_space(agent).sample() for agent in env.possible_agents}

    def work() -> None:
        if not env.agents:
            env.reset()
        env.step({agent: action[agent] for agent in env.agents})
        env.render()

    return work


def measure(work: Callable[[], None], count: int) -> list[float]:
    """Resident memory in MB after each of PARTS of `count` repetitions."""
    megabytes, done = [], 0
    for share in PARTS:
        for _ in range(done, max(int(share * count), 1)):
            work()
        done = int(share * count)
        megabytes.append(resident())
    return megabytes


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def page(rows: list[tuple[str, str, int, list[float]]]) -> str:
    """The Markdown page."""
    headers = ["id", "what", "how many", *(f"MB after {share:.0%}" for share in PARTS)]
    lines = [
        [id, what, count, *(f"{mb:.1f}" for mb in megabytes)] for id, what, count, megabytes in rows
    ]
    return f"""# Memory stays the same over 100,000 episodes

Resident memory of one process that runs PettingZoo parallel environments one after the other: short
episodes, and `rgb_array` pictures.

{table(headers, lines)}
To reproduce: `python -m invariantzoo.figures.memory`.
"""


if __name__ == "__main__":
    sys.exit(main())
