"""Run a liquid of agents that follow inferred losses.

Run the same command again to go on where it stopped, or with more --steps to go further; a run
that was interrupted, or made in several goes, measures what one run measures. It stops, with exit
code 1, where it leaves what the model knows: a distance or bond outside the sampled range, a broken
molecule, or a conserved quantity (with the thermostat's part) more than 1 meV/atom off its start.
What was measured until then is written; such a run does not go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from invariantzoo import options
from invariantzoo.progress import progress, say

if TYPE_CHECKING:
    from invariantzoo.envs.molecules.files import Sample, Saved
    from invariantzoo.training.molecules.simulate import OutOfDomain, Plan, Progress

THERMOSTATS = ("none", "nose-hoover", "langevin", "csvr")
_LIMITS = {  # of numbers above 0
    "temperature": 1e5,
    "tau": 1e9,
    "dt": np.inf,
    "frames": 1e9,
    "minutes": np.inf,
    "viscosity": np.inf,
}
_SHORTEST = 1e-3  # fs
_LONGEST = (2.0, 20.0)  # fs of a step, with bonds of hydrogen and without
_ATOM = 1000  # bytes of memory that an atom takes at least


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
    options.add_viscosity(parser)
    options.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Simulate, then print what was observed."""
    from invariantzoo.envs.molecules.files import load_model
    from invariantzoo.training.molecules.measurements import block_files

    for name, most in _LIMITS.items():
        options.require_positive(name, getattr(args, name), most)
    options.require_output_folder("--out", args.out)
    saved = load_model(args.model)
    start = _start(args, saved)
    _require_time_step(args.dt, start.sample)
    plan = _plan(args)
    if start.note:
        say(start.note)
    outcome = _simulate(args, saved, start, plan)
    if outcome.signal is not None:
        say(f"stopped after {outcome.steps} of {args.steps} steps; the same command goes on")
        return 128 + outcome.signal
    _tell(args, outcome, plan)
    from invariantzoo.commands.observe import show
    from invariantzoo.training.molecules.observables import observe, unmeasured

    if block_files(args.out):
        drop = _drop(outcome.steps * args.dt / 1e3)
        show(args, observe(args.out, drop=drop, viscosity=args.viscosity), args.out)
    elif args.json:
        options.print_json(args, unmeasured(args.out))
    return 0 if outcome.alarm is None else 1


class Outcome(NamedTuple):
    """Steps made, and what ended the run early: an alarm or a signal."""

    steps: int
    alarm: OutOfDomain | None
    signal: int | None


def _simulate(args: argparse.Namespace, saved: Saved, start: Start, plan: Plan) -> Outcome:
    """Run, with its progress, until the end or until it is stopped."""
    from invariantzoo.signals import Interruptions
    from invariantzoo.training.molecules.simulate import OutOfDomain, simulate

    about = {
        "model": str(args.model),
        "digest": saved.about.get("digest"),
        "start": start.name,
    }
    seconds = np.inf if args.minutes is None else 60 * args.minutes
    log = options.messages()
    with (
        Interruptions("stopping at the next step ...") as interruption,
        progress(
            log, args.steps, name="simulation", notice=lambda: interruption.notice
        ) as show_progress,
    ):

        def report(now: Progress) -> None:
            temperature = ", ".join(f"{t:.0f}" for t in now.temperature[:4])
            show_progress(now.steps, f"{now.steps * args.dt / 1e3:.1f} ps, {temperature} K")

        try:
            made = simulate(
                args.out,
                saved,
                start.sample,
                plan,
                about,
                velocity=start.velocity,
                seconds=seconds,
                threads=args.threads,
                report=report,
                stop=lambda: interruption.number is not None,
                told=say,
            )
        except OutOfDomain as alarm:
            return Outcome(alarm.step, alarm, None)
    return Outcome(made, None, interruption.number if made < args.steps else None)


def _tell(args: argparse.Namespace, outcome: Outcome, plan: Plan) -> None:
    """Say what ended the run, where that is not that all steps are made."""
    from invariantzoo.training.molecules.measurements import block_files
    from invariantzoo.training.molecules.simulate import Intervals

    if outcome.alarm is not None:
        measured = f"what was measured until then is in {args.out}"
        if not block_files(args.out):
            measured = "nothing had been measured"
        say(f"invariantzoo: stopped at {outcome.alarm}; {measured}; the run does not go on")
    elif outcome.steps < args.steps:
        say(f"{outcome.steps} of {args.steps} steps; the same command goes on")
    elif outcome.steps > args.steps:
        say(f"{args.out} has {outcome.steps} steps already, more than --steps {args.steps}")
    sample = Intervals.of(plan).sample
    if outcome.alarm is None and outcome.steps < sample:
        say(f"shorter than the {sample} steps between two samples: measured at the last step alone")


def _plan(args: argparse.Namespace) -> Plan:
    from invariantzoo.training.molecules.simulate import Plan

    return Plan(
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


def _require_time_step(dt: float, sample: Sample) -> None:
    hydrogen = (sample.numbers == 1).any()
    longest, of = (_LONGEST[0], "bonds of hydrogen") if hydrogen else (_LONGEST[1], "atoms")
    if dt > longest:
        raise ValueError(f"--dt {dt:g} fs is too long for {of} (at most {longest:g})")
    if dt < _SHORTEST:
        raise ValueError(f"--dt {dt:g} fs is too short (at least {_SHORTEST:g})")


def _drop(ps: float) -> float:
    """What is left out at the start: 5 ps, and nothing of a short run."""
    return 5.0 if ps >= 20 else 0.0


class Start(NamedTuple):
    """Where a run begins: a frame, velocities of a run that it goes on from, and what to say.

    name: of what gave the frame, to know the run again by.
    """

    sample: Sample
    velocity: np.ndarray | None
    name: str
    note: str = ""


def _start(args: argparse.Namespace, saved: Saved) -> Start:
    from invariantzoo.envs.core.physics.cell import copies_for
    from invariantzoo.envs.molecules.files import Sample
    from invariantzoo.envs.molecules.forces import cutoff_of
    from invariantzoo.training.molecules.frames import owners
    from invariantzoo.training.molecules.simulate import repeated

    if args.after is not None:
        return _after(args)
    sample, name = saved.sample, "model"
    if args.start is not None:
        last = options.read_data(args, args.start).part(np.array([-1]))
        sample = Sample(last.positions[0], last.cell[0], last.numbers, owners(last))
        name = Path(args.start).name
    if sample is None:
        raise ValueError(f"{args.model} holds no frame to start from: give one with --start")
    cutoff, needed = cutoff_of(saved.model), (1, 1, 1)
    if sample.cell.any():
        needed = copies_for(cutoff, sample.cell)
    have = int((sample.numbers == 8).sum()) or len(sample.numbers)
    times = int(np.prod(needed))
    if args.waters is not None:
        times = _times(args.waters, have)
    _require_memory(args, times * len(sample.numbers))
    copies = needed if args.waters is None else _copies(args.waters, have, needed)
    if copies == (1, 1, 1):
        return Start(sample, None, name)
    if not sample.cell.any():
        raise ValueError(f"--waters {args.waters}: without a cell the frame cannot be repeated")
    note = ""
    if args.waters is None:
        atoms = len(sample.numbers)
        note = (
            f"the frame of {atoms} atoms is repeated {' x '.join(map(str, copies))} times, to "
            f"{times * atoms}: a cell must be two cutoffs, {2 * cutoff:g} A, wide"
        )
    return Start(repeated(sample, copies), None, name, note)


def _after(args: argparse.Namespace) -> Start:
    """Where another run was saved last."""
    from invariantzoo.envs.core.physics.units import ATOMIC_WEIGHTS
    from invariantzoo.envs.molecules.files import Sample
    from invariantzoo.envs.molecules.molecular_dynamics import at_rest
    from invariantzoo.training.molecules.frames import owners
    from invariantzoo.training.molecules.simulate import final_state, read_config

    if args.waters is not None:
        raise ValueError(f"--waters {args.waters} does not go with --after: {args.after} has atoms")
    config, state = read_config(args.after), final_state(args.after)
    if len(state["position"]) != args.replicas:
        raise ValueError(f"--replicas {args.replicas}: {args.after} has {len(state['position'])}")
    numbers, cell = np.array(config["numbers"]), np.array(config["cell"])
    frames = read_frames_of(state["position"], numbers, cell)
    sample = Sample(state["position"], cell, numbers, owners(frames))
    velocity = state["velocity"]
    if config["plan"]["thermostat"] == "langevin" != args.thermostat:
        # Noise moved the centre of mass, which no other thermostat counts among what moves.
        velocity = at_rest(velocity, np.array(ATOMIC_WEIGHTS)[numbers])
    return Start(sample, velocity, Path(args.after).name)


def read_frames_of(position: np.ndarray, numbers: np.ndarray, cell: np.ndarray) -> Any:
    """Frames without forces, to find owners in."""
    from invariantzoo.training.molecules.frames import Frames

    count = len(position)
    cells = np.repeat(cell[None], count, 0)
    nothing = np.full(count, np.nan)
    split = np.full(count, "train")
    return Frames(position, position * 0, numbers, cells, nothing, split, None, "run", "")


def _times(waters: int, have: int) -> int:
    """How many frames of `have` molecules make `waters`."""
    if waters % have:
        raise ValueError(f"--waters {waters} must be a multiple of the sample's {have}")
    return waters // have


def _require_memory(args: argparse.Namespace, atoms: int) -> None:
    """Raise ValueError if there is not the memory for so many atoms of every world."""
    from invariantzoo.envs.core.memory import require_memory

    what = f"--waters {args.waters}" if args.waters is not None else f"--replicas {args.replicas}"
    many = f"{args.replicas:,} x {atoms:,} atoms" if args.replicas > 1 else f"{atoms:,} atoms"
    require_memory(f"{what} ({many})", _ATOM * atoms * args.replicas)


def _copies(waters: int, have: int, least: tuple[int, int, int]) -> tuple[int, int, int]:
    """How often to repeat a frame of `have` molecules, as evenly as possible."""
    times = _times(waters, have)
    factors = [
        (a, b, times // a // b)
        for a in range(1, times + 1)
        if times % a == 0
        for b in range(1, times // a + 1)
        if (times // a) % b == 0
    ]
    factors = [c for c in factors if all(n >= m for n, m in zip(c, least, strict=True))]
    if not factors:
        wanted = have * int(np.prod(least))
        raise ValueError(
            f"--waters {waters}: the cell is narrower than twice the cutoff; take {wanted} or more"
        )
    return min(factors, key=lambda c: (max(c) - min(c), c))
