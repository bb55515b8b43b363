"""Run a policy: watch it, film it, replay it in a page, save its trajectory.

Prints means over the episodes that ended, or over the running ones if none has.

A window, a film or a page opens with the parameters and the policy that the id's file declares for
films, unless --set, --policy or the like say otherwise; that is said on standard error.

A trajectory is an .npz file without pickles. It holds "state.NAME" [steps + 1, worlds, ...] for
every part of the state, "observation" [steps + 1, worlds, agents, size], "action" [steps, worlds,
agents, ...], "reward" [steps, worlds, agents], "episode" [steps + 1, worlds], which counts a
world's episodes (the last state of an episode gives way to the first of the next), and "config",
a JSON text. Of at most one episode all states are kept, and nothing begins anew.

A dataset is a folder that Minari loads. Every agent's part of every episode is an episode of it.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from invariantzoo import options
from invariantzoo.envs.core.files import write_atomically
from invariantzoo.envs.core.memory import require_memory
from invariantzoo.progress import progress

if TYPE_CHECKING:
    from invariantzoo.agents.policy import Policy
    from invariantzoo.envs.core.film import Film
    from invariantzoo.envs.core.system import System
    from invariantzoo.envs.core.vector import Step, VectorEnv
    from invariantzoo.training.runs.minari_dataset import Episodes


class Play(NamedTuple):
    """What is played: a policy on a system, with actions that are drawn or the most likely.

    name: of the policy.  film: how it is shown.  borrowed: what was taken from that film.
    """

    system: System
    policy: Policy
    deterministic: bool
    name: str
    film: Film
    borrowed: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `rollout` takes."""
    parser.add_argument("id", metavar="ID", help="see `list`")
    parser.add_argument(
        "--policy",
        metavar="NAME_OR_RUN",
        help="a policy by name (see `list --json`), or a run folder, whose parameters then hold "
        "where --set says nothing (default: random; in a window or film the one that shows best "
        "what the id is about)",
    )
    options.add_settings(
        parser, "a parameter of the system, or the device on which a trained policy computes"
    )
    parser.add_argument(
        "--n-worlds", type=options.count, metavar="W", help="worlds at once (default: 1)"
    )
    parser.add_argument(
        "--n-steps",
        type=options.count,
        metavar="T",
        help="how many (default: one episode, or what a film of the id has; with --human until "
        "you quit)",
    )
    parser.add_argument("--human", action="store_true", help="watch the first world in a window")
    parser.add_argument(
        "--video", type=Path, metavar="FILE", help="film up to nine worlds as .mp4 or .gif"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write a page that replays up to nine worlds in a browser, as .html",
    )
    parser.add_argument("--npz", type=Path, metavar="FILE", help="save the trajectory as .npz")
    parser.add_argument(
        "--minari", type=Path, metavar="DIR", help="save the agents' episodes as a Minari dataset"
    )
    options.add_deterministic(parser)
    options.add_trust(parser)


def run(args: argparse.Namespace) -> int:
    """Check everything, then play; Ctrl-C keeps what there is so far and returns 130."""
    import invariantzoo

    invariantzoo.spec(args.id)  # the module that it names is imported before the run is read
    options.require_runs(args.policy)
    import torch

    from invariantzoo.agents.policy import seen_dtype
    from invariantzoo.envs.core.system import System
    from invariantzoo.envs.core.vector import VectorEnv
    from invariantzoo.training.runs import replay
    from invariantzoo.training.runs.minari_dataset import (
        Episodes,
        require_new_dataset,
        write_dataset,
    )
    from invariantzoo.training.runs.video import SUFFIXES

    torch.set_num_threads(1)
    play = _play(args)
    options.require_output_file("--video", args.video, SUFFIXES)
    options.require_output_file("--html", args.html, replay.SUFFIXES)
    options.require_output_file("--npz", args.npz, (".npz",))
    if args.minari is not None:
        require_new_dataset(args.minari)
        options.require_output_folder("--minari", args.minari)
    filmed = args.video is not None or args.html is not None
    worlds = args.n_worlds or (play.film.n_worlds if args.video is not None else 1)
    skip = play.film.skip if filmed and args.n_steps is None and not args.human else 0
    steps = args.n_steps
    if steps is None and not args.human:
        steps = skip + ((play.film.steps if filmed else 0) or play.system.horizon)
    again = args.human or (steps or 0) > play.system.horizon
    dtype = seen_dtype(play.policy)
    env = VectorEnv(play.system, worlds, seed=args.seed, autoreset=again, dtype=dtype)
    episodes = None if args.minari is None else Episodes(env)
    session = Session(env, play.policy, play.deterministic, args.npz is not None, episodes)
    if episodes is not None and session.unbounded:
        raise ValueError(f"--minari: actions of {play.name} may lie outside their space")
    if (args.human or filmed) and type(play.system).scene is System.scene:
        raise ValueError(f"{args.id} has no picture: leave out --human, --video and --html")
    interrupted = False
    if args.npz is not None and not args.human:
        session.require_memory(steps or play.system.horizon)
    if episodes is not None and not args.human:
        episodes.require_memory(steps or play.system.horizon)
    about = f"policy {play.name}, seed {args.seed}"
    with (
        _film(args.video, env, skip) as film,
        _replay(args.html, env, skip, args.id, about, steps) as keep,
    ):

        def shoot() -> None:
            film()
            keep(session.last)

        try:
            if args.human:
                _watch(args.id, play, session, shoot, steps)
            else:
                _run(args.id, play, session, shoot, steps or play.system.horizon)
        except KeyboardInterrupt:
            interrupted = True
    report = {**_config(args, play, session), "interrupted": interrupted, **_outcome(session)}
    if args.npz is not None:
        _save(args.npz, session, report)
    if episodes is not None:
        write_dataset(args.minari, episodes, options.plain(report))
    if args.json:
        options.print_json(args, report)
    else:
        _print(args, report)
    return 130 if interrupted else 0


@dataclass
class Session:
    """A policy at work in `env`, and what is kept of it.

    scores: of every episode that ended, by name.  rows: the trajectory, if it is kept; row 0 is the
    start, each later one an action and where it led.  episodes: those of a dataset, if one is made.
    going: worlds that have not ended for good.  last: the step that was made last, if one was made.
    """

    env: VectorEnv
    policy: Policy
    deterministic: bool
    keep: bool = False
    episodes: Episodes | None = None
    n_steps: int = 0
    scores: dict[str, list[float]] = field(default_factory=dict)
    rows: list[dict[str, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        from invariantzoo.agents.player import Player

        self._player = Player(self.env, self.policy, deterministic=self.deterministic)
        self._begun = False
        self.last: Step | None = None
        self._episode = np.zeros(self.env.n_worlds, np.int64)
        self._total = np.zeros(self.env.n_worlds)
        self.going = np.ones(self.env.n_worlds, bool)

    @property
    def unbounded(self) -> bool:
        """Whether actions may lie outside their box."""
        return self._player.unbounded

    def begin(self) -> None:
        """Start the first episodes, once; the first step does it too."""
        if not self._begun:
            self._observation = self.env.reset()
            self._begun = True
            self._keep({})

    def step(self) -> Step:
        """Make one step of all worlds."""
        self.begin()
        before, present = self._observation, self.env.alive.copy()
        action = self._player.act(before)
        if self.episodes is not None:  # made are the actions that it will hold, to the last digit
            kept = np.asarray(action, self.env.system.action_space.dtype)
            action = kept.astype(action.dtype)
        step = self.env.step(action, unbounded=self._player.unbounded)
        if self.episodes is not None:
            self.episodes.add(before, action, step, present, self.going.copy())
        self.n_steps += 1
        self.last = step
        self._observation = step.observation
        self._total += self.going * step.reward.sum(1)
        ended = step.done & self.going
        if ended.any():
            for name, value in self._running(step.metrics).items():
                self.scores.setdefault(name, []).extend(value[ended].tolist())
        if self.env.autoreset:
            self._episode += ended
            self._total[ended] = 0
        else:
            self.going &= ~ended
        self._keep({"action": np.array(action), "reward": step.reward.copy()})
        return step

    def reset(self) -> None:
        """Start new episodes in all worlds; what has not ended does not count."""
        self._observation = self.env.reset()
        self.last = None
        if self.episodes is not None:
            self.episodes.end()
        self._episode += 1
        self._total[:] = 0
        if self.keep:
            self._keep(self.rows.pop())

    def require_memory(self, n_steps: int) -> None:
        """Raise ValueError if the trajectory of so many steps cannot be kept, and copied once."""
        self.begin()
        row = sum(array.nbytes for array in self.rows[0].values()) + 8 * self.env.alive.size
        require_memory(f"--npz of {n_steps} steps", 2 * n_steps * row)

    def results(self) -> dict[str, float]:
        """The return per agent and the metrics: means over the episodes that have them."""
        from invariantzoo.training.rl.score import score_means

        values: dict[str, Any] = self.scores
        self.begin()
        if not values:
            values = self._running(self.env.episode_metrics() if self.env.age.any() else {})
        return score_means({name: np.asarray(value, float) for name, value in values.items()})

    def trajectory(self) -> dict[str, np.ndarray]:
        """Arrays over time, by name."""
        names = self.rows[-1]
        return {name: np.stack([row[name] for row in self.rows if name in row]) for name in names}

    def _running(self, metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"return": self._total / self.env.n_agents, **metrics}

    def _keep(self, made: dict[str, np.ndarray]) -> None:
        if not self.keep:
            return
        state = {f"state.{name}": array.copy() for name, array in self.env.state._asdict().items()}
        here = {"observation": self._observation.copy(), "episode": self._episode.copy()}
        self.rows.append({**made, **state, **here})


def _play(args: argparse.Namespace) -> Play:
    """Everything that can be wrong with the id, the policy and the settings is found here."""
    import invariantzoo
    from invariantzoo.envs.core.film import Film

    spec, settings = invariantzoo.spec(args.id), options.parse_settings(args.set)
    device = options.device_of(settings)
    film = spec.film if args.human or args.video or args.html else Film()
    trained = args.policy is not None and options.is_run(args.policy)
    run = options.read_run(args.policy, trust=args.trust) if trained else None
    borrowed: dict[str, Any] = {}
    if run is not None and run.id == spec.id:
        system = run.system_with(settings)
    else:
        system, borrowed = _shown(args.id, film.parameters, settings)
    name = args.policy or film.policy or "random"
    policy = options.load_policy(name, system, trust=args.trust, device=device)
    likely = not system.stochastic if args.deterministic is None else args.deterministic
    choices = [f"{key}={value!r}" for key, value in borrowed.items()]
    choices += [] if args.policy or name == "random" else [f"policy {name}"]
    return Play(system, policy, trained and likely, name, film, ", ".join(choices))


def _shown(
    id: str, film: dict[str, Any], settings: dict[str, Any]
) -> tuple[System, dict[str, Any]]:
    """A system with those of a film's parameters that `settings` leave open, and which they are.

    Without any of the film's if they do not go with the settings.
    """
    import invariantzoo

    borrowed = {name: value for name, value in film.items() if name not in settings}
    try:
        return invariantzoo.make_system(id, **{**borrowed, **settings}), borrowed
    except ValueError:
        return invariantzoo.make_system(id, **settings), {}


def _film(
    path: Path | None, env: VectorEnv, skip: int
) -> AbstractContextManager[Callable[[], None]]:
    """A function that films the worlds as they are."""
    if path is None:
        return nullcontext(lambda: None)
    from invariantzoo.training.runs.video import filming

    return filming(path, env, skip=skip)


def _replay(
    path: Path | None, env: VectorEnv, skip: int, title: str, about: str, steps: int | None
) -> AbstractContextManager[Callable[[Step | None], None]]:
    """A function that keeps the worlds as they are, after a step, for a page."""
    if path is None:
        return nullcontext(lambda step: None)
    from invariantzoo.training.runs import replay

    frames = replay.MOST_FRAMES if steps is None else steps + 1
    return replay.replaying(path, env, title=title, subtitle=about, skip=skip, frames=frames)


def _begin(id: str, play: Play, session: Session, shoot: Callable[[], None]) -> None:
    """Start the episodes and take the first picture; say what a film's settings are."""
    if play.borrowed:
        notice = f"{id} is shown with {play.borrowed}; --set and --policy change that"
        options.messages().print(notice, highlight=False, markup=False, soft_wrap=True)
    session.begin()
    shoot()


def _run(id: str, play: Play, session: Session, shoot: Callable[[], None], n_steps: int) -> None:
    """So many steps, or fewer if all worlds end for good."""
    _begin(id, play, session, shoot)
    with progress(options.messages(), n_steps, name=id) as show:
        for step in range(1, n_steps + 1):
            session.step()
            shoot()
            show(step)
            if not session.going.any():
                return


def _watch(
    id: str, play: Play, session: Session, shoot: Callable[[], None], n_steps: int | None
) -> None:
    """Steps in a window, until the user quits or so many are made."""
    from invariantzoo.envs.core.rendering.viewer import Viewer

    def step() -> Step | None:
        if session.n_steps == n_steps:
            return None
        made = session.step()
        shoot()
        return made

    begin = functools.partial(_begin, id, play, session, shoot)
    Viewer(session.env, step, session.reset, title=f"{id}, {play.name}", begin=begin).run()


def _config(args: argparse.Namespace, play: Play, session: Session) -> dict[str, Any]:
    from invariantzoo.envs.core.observation import parameter_values

    return {
        "id": args.id,
        "policy": play.name,
        "parameters": parameter_values(play.system),
        "seed": args.seed,
        "n_worlds": session.env.n_worlds,
        "n_steps": session.n_steps,
        "deterministic": play.deterministic,
    }


def _outcome(session: Session) -> dict[str, Any]:
    results = session.results()
    episodes = len(session.scores.get("return", ()))
    return {"episodes": episodes, "return": results.pop("return"), "metrics": results}


def _save(path: Path, session: Session, report: dict[str, Any]) -> None:
    """The file appears whole or not at all."""
    config = json.dumps(options.plain(report))
    arrays: dict[str, Any] = {"config": np.array(config), **session.trajectory()}
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def _print(args: argparse.Namespace, report: dict[str, Any]) -> None:
    from invariantzoo.tables import number, print_table

    over = "over whole episodes" if report["episodes"] else "of an episode that has not ended"
    console = options.console(args)
    means = {"return": report["return"], **report["metrics"]}
    print_table(
        console,
        f"{report['id']}, {report['policy']}",
        ["", "mean"],
        [[name, number(value)] for name, value in means.items()],
        caption=over,
    )
    for path in (args.video, args.html, args.npz, args.minari):
        if path is not None and path.exists():
            options.print_line(console, f"wrote {path}")
