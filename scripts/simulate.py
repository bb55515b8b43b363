"""Run a liquid of agents that follow inferred losses.

Run the same command again to go on where it stopped, or with more --steps to go further; a run
that was interrupted ends as if it had not been. It stops, with exit code 1, where it leaves what
the model knows: a distance or bond outside the sampled range, a broken molecule, or a conserved
quantity (with the thermostat's part) more than 1 meV/atom off its start.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo import options

THERMOSTATS = ("none", "nose-hoover", "langevin", "csvr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simulate` takes."""
    parser.add_argument("model", help="a model file, or the name of a model that ships")
    parser.add_argument("--steps", type=options.count, required=True, metavar="N")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="a folder")
    parser.add_argument(
        "--waters",
        type=options.count,
        metavar="N",
        help="molecules: the model's sample frame, repeated (default: once)",
    )
    parser.add_argument("--temperature", type=float, default=330.0, metavar="K", help="330")
    parser.add_argument(
        "--thermostat", choices=THERMOSTATS, default="nose-hoover", help="none: constant energy"
    )
    parser.add_argument("--tau", type=float, default=100.0, metavar="FS", help="of the thermostat")
    parser.add_argument("--dt", type=float, default=0.5, metavar="FS", help="time step (0.5)")
    parser.add_argument(
        "--replicas", type=options.count, default=1, metavar="W", help="worlds at once (default: 1)"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--start", metavar="DATA", help="begin with the last frame of these")
    start.add_argument("--after", type=Path, metavar="RUN", help="begin where this run is")
    parser.add_argument(
        "--frames", type=float, default=100.0, metavar="FS", help="between trajectory frames (100)"
    )
    parser.add_argument(
        "--precision", choices=("float64", "float32"), default="float64", help="of the losses"
    )
    parser.add_argument(
        "--threads", type=options.count, default=1, metavar="N", help="that share the replicas"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="stop at the next whole block after this time"
    )


def run(args: argparse.Namespace) -> int:
    """Simulate, then print what was observed."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from invariantzoo.agents.model_file import load_model
    from invariantzoo.training.simulation import Alarm, Plan, simulate

    for name in ("temperature", "tau", "dt", "frames", "minutes"):
        value = getattr(args, name)
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"--{name} {value:g} must be above 0")
    saved = load_model(args.model)
    plan = Plan(
        args.temperature,
        args.thermostat,
        args.tau,
        args.dt,
        args.steps,
        args.frames,
        args.seed,
        args.replicas,
        args.precision,
    )
    sample, velocity = _start(args, saved)
    longest, of = (2, "bonds of hydrogen") if (sample.numbers == 1).any() else (20, "atoms")
    if args.dt > longest:
        raise ValueError(f"--dt {args.dt:g} fs is too long for {of} (at most {longest})")
    about = {
        "model": str(args.model),
        "digest": saved.about.get("digest"),
        "numbers": sample.numbers.tolist(),
        "cell": sample.cell.tolist(),
    }
    seconds = np.inf if args.minutes is None else 60 * args.minutes
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    stopped = None
    log = options.messages()
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as bar:
        task = bar.add_task("starting", total=args.steps)

        def report(now: Any) -> None:
            temperature = ", ".join(f"{t:.0f}" for t in now.temperature)
            text = f"{now.steps * args.dt / 1e3:.1f} ps, {temperature} K"
            bar.update(task, completed=now.steps, description=text)

        try:
            made = simulate(
                args.out,
                saved,
                sample,
                plan,
                about,
                velocity=velocity,
                seconds=seconds,
                threads=args.threads,
                report=report,
            )
        except Alarm as alarm:
            made, stopped = alarm.step, alarm
    if stopped is not None:
        log.print(
            f"invariantzoo: stopped at {stopped}; what was measured before is in {args.out}",
            soft_wrap=True,
            highlight=False,
        )
    elif made < args.steps:
        log.print(f"{made} of {args.steps} steps; the same command goes on")
    from invariantzoo.observe import show
    from invariantzoo.training.observables import observe

    if any((args.out / "blocks").iterdir()):
        found = observe(args.out, drop=_drop(made * args.dt / 1e3))
        found["stopped"] = None if stopped is None else stopped.__dict__
        show(args, found, args.out)
    return 0 if stopped is None else 1


def _drop(ps: float) -> float:
    """What is left out at the start: 5 ps, and nothing of a short run."""
    return 5.0 if ps >= 20 else 0.0


def _start(args: argparse.Namespace, saved: Any) -> tuple[Any, np.ndarray | None]:
    """The first frame and, where it goes on from a run, velocities."""
    from invariantzoo.agents.forces import cutoff_of
    from invariantzoo.agents.model_file import Sample
    from invariantzoo.envs.core.cell import copies_for
    from invariantzoo.training.frames import owners, read_frames
    from invariantzoo.training.simulation import final_state, read_config, repeated

    if args.after is not None:
        config, state = read_config(args.after), final_state(args.after)
        if len(state["position"]) != args.replicas:
            raise ValueError(
                f"--replicas {args.replicas}: {args.after} has {len(state['position'])}"
            )
        numbers, cell = np.array(config["numbers"]), np.array(config["cell"])
        frames = read_frames_of(state["position"], numbers, cell)
        return Sample(state["position"], cell, numbers, owners(frames)), state["velocity"]
    sample = saved.sample
    if args.start is not None:
        frames = read_frames(args.start)
        sample = Sample(frames.positions[-1], frames.cell[-1], frames.numbers, owners(frames))
    if sample is None:
        raise ValueError(f"{args.model} holds no frame to start from: give one with --start")
    copies = (1, 1, 1)
    if sample.cell.any():
        copies = copies_for(cutoff_of(saved.model), sample.cell)
    have = int((sample.numbers == 8).sum()) or len(sample.numbers)
    if args.waters is not None:
        copies = _copies(args.waters, have, copies)
    return (sample if copies == (1, 1, 1) else repeated(sample, copies)), None


def read_frames_of(position: np.ndarray, numbers: np.ndarray, cell: np.ndarray) -> Any:
    """Frames without forces, to find owners in."""
    from invariantzoo.training.frames import Frames

    count = len(position)
    cells = np.repeat(cell[None], count, 0)
    nothing = np.full(count, np.nan)
    split = np.full(count, "train")
    return Frames(position, position * 0, numbers, cells, nothing, split, None, "run", "")


def _copies(waters: int, have: int, least: tuple[int, int, int]) -> tuple[int, int, int]:
    """How often to repeat a frame of `have` molecules, as evenly as possible."""
    if waters % have:
        raise ValueError(f"--waters {waters} must be a multiple of the sample's {have}")
    times = waters // have
    found = [
        (a, b, times // a // b)
        for a in range(1, times + 1)
        if times % a == 0
        for b in range(1, times // a + 1)
        if (times // a) % b == 0
    ]
    found = [c for c in found if all(n >= m for n, m in zip(c, least, strict=True))]
    if not found:
        wanted = have * int(np.prod(least))
        raise ValueError(
            f"--waters {waters}: the cell is narrower than twice the cutoff; take {wanted} or more"
        )
    return min(found, key=lambda c: (max(c) - min(c), c))
