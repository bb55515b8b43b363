"""Train a policy, score it beside the baselines, and leave a run folder."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from invariantzoo import options
from invariantzoo.progress import LINE_SECONDS, progress, say
from invariantzoo.signals import Interruptions

if TYPE_CHECKING:
    from rich.console import Console

    from invariantzoo.envs.core.system import System
    from invariantzoo.training.rl.curriculum import Curriculum, Move
    from invariantzoo.training.rl.score import Summary
    from invariantzoo.training.rl.trainer import Trainer, Update

EPISODES, SEEDS = 20, 5  # of each seed, and seeds, of the scores at the end, at most
SCORED = 20_000_000  # agent-steps that a score may take, or as many as were trained with
FRAMES = 240
TRAINED = "trained"


class Plan(NamedTuple):
    """A checked training run: config.json, what it stands for, and a trainer that is ready."""

    folder: Path
    config: dict[str, Any]
    system: System
    hyper: Any
    trainer: Trainer
    since: int
    curriculum: Curriculum | None

    @property
    def total(self) -> int:
        """Agent-steps at the end: whole updates."""
        return self.config["total_steps"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `train` takes."""
    parser.set_defaults(seed=None)  # 0; a run that goes on keeps its own
    parser.add_argument("id", metavar="ID", help="see `list`")
    parser.add_argument(
        "--algo",
        type=str.lower,
        metavar="NAME",
        help="ppo, mappo, a2c, sac, descent, es or maskable_ppo (default: ppo)",
    )
    parser.add_argument(
        "--steps", type=options.count, metavar="N", help="agent-steps (default: what suits the id)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder (default: runs/ID)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--optimizer", metavar="NAME", help="short for --set optimizer=NAME")
    parser.add_argument(
        "--share", metavar="WHO", help="short for --set share=WHO: all, type or none"
    )
    parser.add_argument("--metric", metavar="NAME", help="short for --set metric=NAME")
    parser.add_argument(
        "--no-baselines", action="store_true", help="score the trained policy alone at the end"
    )
    parser.add_argument("--no-film", action="store_true", help="leave no film and no picture")
    options.add_settings(parser, "a parameter of the system or a hyper-parameter below")
    parser.epilog = _help()


def run(args: argparse.Namespace) -> int:
    """Check everything, train, score, draw and film; what is done is kept if it is interrupted."""
    import invariantzoo
    from invariantzoo.envs.core.files import claim
    from invariantzoo.envs.core.validation import require_choice
    from invariantzoo.training.rl import processes
    from invariantzoo.training.rl.hyperparameters import ALGORITHMS
    from invariantzoo.training.runs.folder import (
        read_progress,
        refuse_occupied,
        require_resumable,
    )

    if args.resume and Path(args.id).is_dir():
        raise ValueError(f"{args.id} is a folder, not an id: train ID --out {args.id} --resume")
    # The module that an id names is imported before the run is read.
    id = invariantzoo.spec(args.id).id
    folder = args.out or Path("runs") / id
    if not processes.is_first():
        return _follow(args, folder)
    if args.algo is not None:
        require_choice("--algo", args.algo, ALGORITHMS)
    if args.resume:
        require_resumable(folder)
        read_progress(folder)
    elif not folder.is_dir():
        refuse_occupied(folder)
    options.require_output_folder("--out", folder)
    with claim(folder) as held:
        if not args.resume:
            refuse_occupied(folder)
        return _train(args, folder, held)


def _follow(args: argparse.Namespace, folder: Path) -> int:
    """Train together with the process that holds the folder, and write and say nothing."""
    import torch

    from invariantzoo.training.rl import processes
    from invariantzoo.training.runs import run as runs

    torch.set_num_threads(1)
    plan = _resumed(args, folder) if args.resume else _fresh(args, folder)
    with Interruptions("") as stop:
        runs.train(
            plan.trainer,
            runs.Follower(),
            checkpoint_every=plan.hyper.checkpoint_every,
            watch=lambda update: not processes.agreed(stop.number is not None),
            curriculum=plan.curriculum,
        )
    processes.leave()
    return 0


def _train(args: argparse.Namespace, folder: Path, held: bool) -> int:
    """The same in a folder that this process holds, if it can be held."""
    import torch

    from invariantzoo.training.rl import processes
    from invariantzoo.training.runs import run as runs

    torch.set_num_threads(1)
    plan = _resumed(args, folder) if args.resume else _fresh(args, folder)
    _announce(args, plan)
    if not held:
        say(f"{folder} cannot be locked: let no other training write to it")
    log = options.messages()
    with (
        Interruptions("stopping after this update ...") as stop,
        runs.recording(plan.folder, since=plan.since) as recorder,
    ):
        with progress(
            log,
            plan.total,
            start=plan.trainer.steps,
            unit="agent-steps",
            every=LINE_SECONDS,
            tenths=True,
            notice=lambda: stop.notice,
        ) as show:
            told = _told(plan.system)

            def watch(update: Update) -> bool:
                show(update.steps, told(update))
                return not processes.agreed(stop.number is not None)

            every = plan.hyper.checkpoint_every
            whole = runs.train(
                plan.trainer,
                recorder,
                checkpoint_every=every,
                watch=watch,
                curriculum=plan.curriculum,
            )
    processes.leave()
    if not whole:
        number = stop.number or signal.SIGTERM  # which another process was given
        say(f"stopped after {plan.trainer.steps:,} agent-steps; continue with:")
        say(_command("train", plan.config["id"], "--out", plan.folder, "--resume"))
        if args.json:
            options.print_json(args, {**_about(plan), "interrupted": True})
        return 128 + number
    try:
        report = _finish(args, plan, recorder.rows, log)
    except KeyboardInterrupt:
        say(f"training is complete and saved in {plan.folder}; score it with:")
        say(_command("evaluate", plan.folder))
        if args.json:
            options.print_json(args, {**_about(plan), "interrupted": True})
        return 130
    if args.json:
        options.print_json(args, report)
    return 0


def _announce(args: argparse.Namespace, plan: Plan) -> None:
    """Say what begins, and where `--steps` is not what will be made."""
    config, per_update = plan.config, plan.trainer.per_update
    say(f"{config['id']}: {config['algo']}, {config['network']} network, to {plan.folder}")
    updates = plan.total // per_update
    line = f"{plan.total:,} agent-steps in {updates:,} update{'s' * (updates > 1)}"
    line += f" of {per_update:,}" if updates > 1 else ""
    if args.steps and args.steps < plan.total:
        line += f"; --steps {args.steps:,} rounded up"
        if 5 * plan.total > 6 * args.steps:
            line += " (fewer worlds make smaller updates: --set n_worlds=N)"
    say(line)
    starts = getattr(plan.hyper, "learning_starts", 0)
    if starts >= plan.total:
        say(f"nothing is learned before {starts:,} agent-steps (learning_starts), so nothing here")
    if plan.since:
        say(f"goes on from {plan.since:,}")
    elif args.resume:
        say(f"{plan.folder} has no checkpoint yet: training begins at step 0")


def _command(*words: object) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(["invariantzoo", *map(str, words)])


def _about(plan: Plan) -> dict[str, Any]:
    """What a report says of a run."""
    return {
        "id": plan.config["id"],
        "run": str(plan.folder),
        "algo": plan.config["algo"],
        "steps": plan.trainer.steps,
    }


def _fresh(args: argparse.Namespace, folder: Path) -> Plan:
    """A new run; ValueError or KeyError for anything wrong with it."""
    import invariantzoo
    from invariantzoo.training.rl import algorithms as trainer
    from invariantzoo.training.rl import processes
    from invariantzoo.training.rl.curriculum import Curriculum
    from invariantzoo.training.runs import run as runs

    algo = args.algo or "ppo"
    given, chosen = sorted_settings(args.id, algo, _settings(args, algo))
    moves = _moves(given)
    system = invariantzoo.make_system(
        args.id, **{**given, **{name: move.last for name, move in moves.items()}}
    )
    hyper = trainer.make_config(args.id, algo, chosen)
    steps = args.steps or trainer.default_steps(args.id, algo)
    seed = args.seed or 0
    made = trainer.make_trainer(algo, system, hyper, seed=seed, steps=steps)
    config = runs.describe(args.id, algo, system, hyper, steps=steps, seed=seed)
    config["total_steps"] = _whole_updates(made, steps)
    if moves:
        config["curriculum"] = {name: list(move) for name, move in moves.items()}
        Curriculum(system, moves, steps)  # says what is wrong with them
    curriculum = runs.curriculum_of(folder, config, system, made)
    if processes.is_first():
        runs.write_config(folder, config)
    return Plan(folder, config, system, hyper, made, 0, curriculum)


def _resumed(args: argparse.Namespace, folder: Path) -> Plan:
    """The run in `folder` from its last checkpoint, or from the start if it has none."""
    from invariantzoo.training.rl import algorithms as trainer
    from invariantzoo.training.rl import processes
    from invariantzoo.training.runs import run as runs

    config = runs.read_config(folder)
    system, hyper = runs.rebuild(folder, config)
    _require_same(args, folder, config, system, hyper)
    _, chosen = sorted_settings(args.id, config["algo"], _settings(args, config["algo"]))
    if "device" in chosen:  # a run may go on elsewhere
        hyper = dataclasses.replace(hyper, device=chosen["device"])
        config["hyperparameters"]["device"] = hyper.device
    steps = args.steps or config["steps"]
    made = trainer.make_trainer(config["algo"], system, hyper, seed=config["seed"], steps=steps)
    if (folder / runs.CHECKPOINT).exists():
        runs.restore(folder, made)
    if steps <= made.steps - made.per_update:
        raise ValueError(
            f"{folder} has made {made.steps} agent-steps already, more than --steps {steps}; "
            "leave it out, or give as many"
        )
    config["steps"], config["total_steps"] = steps, _whole_updates(made, steps)
    curriculum = runs.curriculum_of(folder, config, system, made)
    if processes.is_first():
        runs.write_config(folder, config)
    return Plan(folder, config, system, hyper, made, made.steps, curriculum)


def _moves(given: dict[str, Any]) -> dict[str, Move]:
    """Parameters that are written as "first..last"."""
    from invariantzoo.training.rl.curriculum import Move, parse_move

    moves = {}
    for name, value in given.items():
        ends = parse_move(value) if isinstance(value, str) else None
        if ends is not None:
            moves[name] = Move(*(options.parse_settings([f"{name}={end}"])[name] for end in ends))
    return moves


def _whole_updates(trainer: Trainer, steps: int) -> int:
    """Agent-steps that will have been made when `steps` are reached."""
    return max(-(-steps // trainer.per_update) * trainer.per_update, trainer.steps)


def _settings(args: argparse.Namespace, algo: str) -> list[str]:
    """What `--set` and the options that are short for it give."""
    names = ("optimizer", "metric", "share")
    short = [f"{algo}.{name}={value}" for name in names if (value := vars(args)[name])]
    return [*args.set, *short]


def sorted_settings(
    id: str, algo: str, given: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What "name=value" texts of `--set` give the system, and what they give the learner.

    Where both have a name, "system.name=value" and "ppo.name=value", with the algorithm's name, say
    which is meant. Raises ValueError for a name that neither has, and for one that is not clear.
    """
    import invariantzoo
    from invariantzoo.envs.core.observation import parameters
    from invariantzoo.envs.core.registry import nearest_parameter, system_class
    from invariantzoo.envs.core.validation import require_choice
    from invariantzoo.training.rl.hyperparameters import ALGORITHMS, hyperparameters

    require_choice("--algo", algo, ALGORITHMS)
    hyper = [parameter.name for parameter in hyperparameters(algo)]
    of_system = list(parameters(system_class(invariantzoo.spec(id).id)))
    known = {"": [*hyper, *of_system], "system": of_system, algo: hyper}
    texts: dict[str, list[str]] = {owner: [] for owner in known}
    for text in given:
        owner, dot, _ = text.partition("=")[0].strip().partition(".")
        owner = owner if dot and owner in known else ""
        texts[owner].append(text.strip().removeprefix(f"{owner}.") if owner else text)
    settings = {owner: options.parse_settings(of) for owner, of in texts.items()}
    for owner, name in [(owner, name) for owner, of in settings.items() for name in of]:
        if name not in known[owner]:
            hint = nearest_parameter(name, known[owner])
            raise ValueError(
                f"--set {name}: no parameter of {owner or f'{id} or {algo}'}{hint} ({id} has "
                f"{', '.join(of_system)}; for {algo} see `invariantzoo train --help`)"
            )
    for name in settings[""]:
        if name in hyper and name in of_system:
            raise ValueError(
                f"--set {name}: {id} and {algo} both have it; say system.{name} or {algo}.{name}"
            )
        if name in settings["system"] or name in settings[algo]:
            raise ValueError(f"--set {name} is given twice")
    plain = settings[""]
    of_world = {name: value for name, value in plain.items() if name in of_system}
    of_learner = {name: value for name, value in plain.items() if name in hyper}
    return of_world | settings["system"], of_learner | settings[algo]


def _require_same(
    args: argparse.Namespace, folder: Path, config: dict[str, Any], system: System, hyper: Any
) -> None:
    """Raise ValueError if the command asks a run to continue as something else."""
    import invariantzoo

    wanted, made = invariantzoo.spec(args.id).id, invariantzoo.spec(config["id"]).id
    if wanted != made:
        raise ValueError(f"{folder} is a run of {made}, not of {wanted}")
    if args.algo not in (None, config["algo"]):
        raise ValueError(f"{folder} was trained by {config['algo']}, not by {args.algo}")
    if args.seed not in (None, config["seed"]):
        raise ValueError(f"{folder} was made with --seed {config['seed']}, not {args.seed}")
    given, chosen = sorted_settings(args.id, config["algo"], _settings(args, config["algo"]))
    chosen.pop("device", None)
    moves, moved = _moves(given), config.get("curriculum", {})
    asked = [(system, *item) for item in given.items()]
    for owner, name, value in [*asked, *((hyper, *item) for item in chosen.items())]:
        before = getattr(owner, name)
        if owner is system and (name in moves or name in moved):
            was, now = moved.get(name), list(moves[name]) if name in moves else None
            if json.dumps(was) != json.dumps(now):
                was_text = "..".join(map(str, was)) if was else repr(before)
                raise ValueError(f"{folder} was made with {name}={was_text}, not {value!r}")
        elif before != value:
            raise ValueError(f"{folder} was made with {name}={before!r}, not {value!r}")


def _told(system: System) -> Callable[[Update], str]:
    """A function from an update to what is said of it: the latest loss, return and metrics."""
    from invariantzoo.envs.core.vector import ILLEGAL

    names = ("loss", "running_loss", "return", *system.reductions, ILLEGAL, "rollout_loss")
    last: dict[str, float] = {}

    def text(update: Update) -> str:
        last.update({name: update.row[name] for name in names if name in update.row})
        if "loss" in last:
            last.pop("running_loss", None)
        here = [name for name in names if name in last]
        return "  ".join(f"{name.replace('_', ' ')} {last[name]:.3g}" for name in here)

    return text


def _finish(
    args: argparse.Namespace, plan: Plan, rows: list[dict[str, float]], log: Console
) -> dict[str, Any]:
    """Score the policy and the baselines, print the table, draw the curve and make the film."""
    from invariantzoo.agents.policy import make_policy, policy_names
    from invariantzoo.training.rl.score import evaluate, summarise
    from invariantzoo.training.runs import run as runs
    from invariantzoo.training.runs.learning_curve import draw_learning_curve
    from invariantzoo.training.runs.video import record_video

    system, folder = plan.system, plan.folder
    trained = runs.load_run(folder).policy
    policies = {TRAINED: trained}
    if not args.no_baselines:
        policies |= {name: make_policy(name, system) for name in policy_names(system)}
    seeds, episodes = _scored_episodes(system, plan.trainer.steps)
    scores: dict[str, dict[str, Summary]] = {}
    for name, policy in policies.items():
        say(f"scoring {name}")
        likely = name == TRAINED and not system.stochastic
        with progress(log, 1, name=f"scoring {name}") as show:
            seed_scores = evaluate(
                system,
                policy,
                episodes=episodes,
                seeds=seeds,
                deterministic=likely,
                watch=show,
            )
        scores[name] = summarise(seed_scores)
    last = rows[-1] if rows else {}
    seconds = last.get("seconds", 0.0)
    report = {
        **_about(plan),
        "seconds": seconds,
        "cpu_seconds": last.get("cpu_seconds"),
        "steps_per_second": plan.trainer.steps / seconds if seconds else None,
        "episodes": episodes,
        "seeds": seeds,
        "scores": scores,
    }
    runs.write_json(folder / runs.SCORES, options.plain(report))
    _print_scores(plan.config["id"], scores, seeds * episodes, options.console(args))
    written = [runs.POLICY, runs.SCORES, runs.PROGRESS]
    if args.no_film:
        say(f"wrote {', '.join(written)} in {folder}")
        return report
    means = {
        name: {key: summary["mean"] for key, summary in of.items()} for name, of in scores.items()
    }
    metrics = tuple(system.reductions)
    exploring = plan.config["algo"] != "descent" and not system.stochastic
    draw_learning_curve(
        rows, folder / runs.CURVE, metrics=metrics, scores=means, exploring=exploring
    )
    written.append(runs.CURVE)
    if system.scene(system.initial(_probe(), 1)) is not None:
        frames = min(system.horizon, FRAMES)
        record_video(system, trained, folder / runs.FILM, n_steps=frames)
        written.append(runs.FILM)
    say(f"wrote {', '.join(written)} in {folder}")
    return report


def _scored_episodes(system: System, steps: int) -> tuple[int, int]:
    """Held-out seeds and episodes of each, so that scoring takes no more steps than training.

    An episode of hundreds of thousands of steps averages over itself; of such a few are enough, and
    worlds of a single seed, which step together, are five times as fast.
    """
    most = max(steps, SCORED) // (system.horizon * system.n_agents)
    return (SEEDS, EPISODES) if most >= SEEDS * EPISODES else (1, max(most, SEEDS))


def _print_scores(
    id: str, scores: dict[str, dict[str, Summary]], episodes: int, console: Console
) -> None:
    from invariantzoo.tables import print_table, with_error

    shown = [name for name in scores[TRAINED] if name != "loss"]  # the return over the steps
    print_table(
        console,
        id,
        ["policy", *(name.replace("_", "\n") for name in shown)],
        [
            [policy, *(with_error(metrics[name]["mean"], metrics[name]["se"]) for name in shown)]
            for policy, metrics in scores.items()
        ],
        caption=f"Means ± standard errors over {episodes} episodes. The return ranks policies, "
        "higher is better: it is what training raises. The rest describes them.",
        emphasized=TRAINED,
    )


def _probe() -> Any:
    from invariantzoo.envs.core.rng import Rng

    return Rng.single(0, 1)


def _help() -> str:
    """Every algorithm's hyper-parameters with their defaults."""
    from invariantzoo.training.rl.hyperparameters import (
        ALGORITHMS,
        optimizer_hyperparameters,
        own_hyperparameters,
        title,
    )

    lines = ["hyper-parameters, to be given as --set name=value (an id may have other defaults):"]
    parts = [(f"--algo {algo}: {title(algo)}", own_hyperparameters(algo)) for algo in ALGORITHMS]
    for head, hyperparameters in [
        *parts,
        ("the optimizer of each of them:", optimizer_hyperparameters()),
    ]:
        lines += ["", head]
        for name, default, help in hyperparameters:
            lines.append(f"  {f'{name}={default}':<24} {help}")
    return "\n".join(lines)
