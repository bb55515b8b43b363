"""Small moving pictures: one per id, and the README's.

    python -m invariantzoo.figures.gif [--out docs/images] [--only ID] [--policy NAME_OR_RUN]

Systems that can be differentiated are driven by a policy trained here by descent, about two minutes
each; others by their own exact policy, or else at random. --policy, with --only, takes another.
Writes <id>.gif for every id of the package and readme.gif.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import invariantzoo
from invariantzoo import options
from invariantzoo.figures.pages import own_ids

if TYPE_CHECKING:
    from invariantzoo.agents.policy import Policy
    from invariantzoo.envs.core.system import System

README, UPDATES, LARGEST = "particles-crowd-v0", 250, 600_000


@dataclass(frozen=True)
class Shot:
    """How an id is filmed: what the system is given, how many worlds, frames and pixels."""

    parameters: dict[str, Any] = field(default_factory=dict)
    n_worlds: int = 1
    n_steps: int = 60
    size: int = 288


SHOTS = {
    "particles-encounter-v0": Shot(n_worlds=4, n_steps=50),
    "ising-equilibrium-v0": Shot(
        {"lattice_size": 48, "update": "checkerboard", "temperature": 2.0}, n_steps=50, size=240
    ),
    "ising-anneal-v0": Shot({"update": "checkerboard", "n_sweeps": 30}, n_steps=60, size=240),
    "ising-transport-v0": Shot(n_steps=40, size=240),
    "tasep-open-v0": Shot(
        {"update": "parallel", "hop_probability": 0.5, "alpha": 0.25, "beta": 0.25}, 1, 90, 240
    ),
    "tasep-ring-v0": Shot({"update": "parallel", "hop_probability": 0.7}, 1, 90, 240),
    "tasep-gates-v0": Shot({"sweeps": 1}, 1, 60, 240),
    "quadratic-regimes-v0": Shot(n_steps=60, size=240),
    "cluster-relaxation-v0": Shot(n_worlds=4, n_steps=40, size=240),
    "water-inference-v0": Shot({"horizon": 8}, 1, 40, 320),
    "water-dynamics-v0": Shot({"data": "water64"}, 1, 40, 304),
    "resampling-neutral-v0": Shot({"n_agents": 100}, n_steps=60, size=192),
}


def main() -> None:
    """Film every id."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", metavar="ID", help="film this id alone")
    parser.add_argument("--policy", metavar="NAME_OR_RUN", help="who acts; with --only")
    args = parser.parse_args()
    if args.policy and not args.only:
        parser.error("--policy needs --only")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for id in [args.only] if args.only else own_ids():
        shot = SHOTS.get(id, Shot())
        system = invariantzoo.make_system(id, **shot.parameters)
        policy = options.load_policy(args.policy, system) if args.policy else best(system)
        _film(args.out / f"{id}.gif", system, policy, shot)
        if id == README:
            _film(args.out / "readme.gif", system, policy, Shot(n_steps=70, size=304))


def best(system: System) -> Policy:
    """A policy trained by descent, the system's own exact one, or the random one."""
    from invariantzoo.agents.policy import make_policy
    from invariantzoo.envs.core.system import is_discrete

    own = next(iter(system.policies()), "random")
    if own == "random" and not is_discrete(system):
        return trained(system)
    return make_policy(own, system)


def trained(system: System) -> Policy:
    """A policy after UPDATES updates of descent, from seed 0."""
    from rich.progress import track

    from invariantzoo.agents.policy import network_policy
    from invariantzoo.training.descent import DescentConfig, Trainer

    trainer = Trainer(system, DescentConfig(n_worlds=8), 0, UPDATES)
    for _ in track(trainer, "training", total=UPDATES, console=options.messages()):
        pass
    return network_policy(trainer.network)


def _film(path: Path, system: System, policy: Policy, shot: Shot) -> None:
    from invariantzoo.training.video import record_video

    record_video(system, policy, path, n_worlds=shot.n_worlds, n_steps=shot.n_steps, size=shot.size)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    if size > LARGEST:
        raise ValueError(f"{path} has {size} bytes, more than {LARGEST}: film fewer steps")


if __name__ == "__main__":
    main()
