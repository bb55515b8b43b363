"""Small moving pictures: one per id, and the README's.

    python -m invariantzoo.site.gif [--out docs/images] [--runs runs/films] [--only ID]
        [--policy NAME_OR_RUN]

Every id is filmed as its system's file says in "film": with those parameters, by that policy, or by
one that is trained first with the command that is printed (two minutes at most; a run that is there
already is used). --policy, with --only, takes another. Writes <id>.gif for every id of the package
and readme.gif.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import invariantzoo
from invariantzoo import options
from invariantzoo.site.pages import own_ids

if TYPE_CHECKING:
    from invariantzoo.agents.policy import Policy
    from invariantzoo.envs.core.film import Film
    from invariantzoo.envs.core.system import System

README, LARGEST = "particles-crowd-v0", 600_000
SPARSE_FPS = 10  # of films that leave out steps


def main() -> None:
    """Film every id."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--runs", type=Path, default=Path("runs/films"))
    parser.add_argument("--only", metavar="ID", help="film this id alone")
    parser.add_argument("--policy", metavar="NAME_OR_RUN", help="who acts; with --only")
    args = parser.parse_args()
    if args.policy and not args.only:
        parser.error("--policy needs --only")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for id in [args.only] if args.only else own_ids():
        film = invariantzoo.spec(id).film
        system = invariantzoo.make_system(id, **film.parameters)
        path = args.out / f"{id}.gif"
        if film.learning and not args.policy:
            film_learning(path, id, system, film)
        else:
            policy = options.load_policy(args.policy or acting(id, film, args.runs), system)
            film_policy(path, system, policy, film)
            if id == README:
                longer = replace(film, steps=70, size=304)
                film_policy(args.out / "readme.gif", system, policy, longer)


def acting(id: str, film: Film, runs: Path) -> str:
    """The name of who acts in the film of an id, or the folder of the run that it asks for."""
    if not film.training:
        return film.policy or "random"
    folder = runs / id
    if not (folder / "scores.json").exists():
        command = ["train", id, "--out", str(folder)]
        for name, value in film.training.items():
            command += [f"--{name}", str(value)] if name in ("algo", "steps") else []
            command += [] if name in ("algo", "steps") else ["--set", f"{name}={value!r}"]
        command += ["--resume"] if folder.exists() else []
        print(" ".join(["invariantzoo", *command]), flush=True)
        subprocess.run([sys.executable, "-m", "invariantzoo", *command], check=True)
    return str(folder)


def film_policy(path: Path, system: System, policy: Policy, film: Film) -> None:
    """Film a policy at work."""
    from invariantzoo.training.runs import video

    video.record_video(
        system,
        policy,
        path,
        n_worlds=film.n_worlds,
        n_steps=film.steps or None,
        skip=film.skip,
        every=film.every,
        fps=video.FPS if film.every == 1 else SPARSE_FPS,
        size=film.size,
    )
    _check(path)


def film_learning(path: Path, id: str, system: System, film: Film) -> None:
    """Film updates of descent with the id's settings, by what each policy does on one world."""
    from invariantzoo.agents.player import Player
    from invariantzoo.agents.policy import network_policy
    from invariantzoo.envs.core.vector import VectorEnv
    from invariantzoo.training.rl.descent import DescentConfig, Trainer
    from invariantzoo.training.runs import video

    settings: dict[str, Any] = invariantzoo.spec(id).training.get("descent", {})
    trainer = Trainer(system, DescentConfig(**settings), 0, film.learning)
    env = VectorEnv(system, 1, seed=0)
    observation = env.reset()
    camera = video.Camera(env, size=film.size, time="update")
    begun = env.save()
    with video.film(path) as add:
        add(camera.frame())
        for update in trainer:
            env.restore(begun)
            Player(env, network_policy(trainer.network), deterministic=True).step(observation)
            add(camera.frame(update.update))
    _check(path)


def _check(path: Path) -> None:
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    if size > LARGEST:
        raise ValueError(f"{path} has {size} bytes, more than {LARGEST}: film fewer steps")


if __name__ == "__main__":
    main()
