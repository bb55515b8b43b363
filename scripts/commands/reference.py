"""Make reference data of water with CP2K or tblite: write the input, run it, read it back.

The folder goes on where it stopped when the same command is given again; more --steps lengthen a
run. What `fit` takes is the folder's frames.npz, or for CP2K the folder itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from invariantzoo import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reference` takes."""
    parser.add_argument("--engine", required=True, metavar="NAME", help="cp2k or tblite")
    parser.add_argument(
        "--method",
        default="xtb",
        metavar="NAME",
        help="xtb: GFN1-xTB (default); dft: revPBE-D3 with DZVP-GTH, by CP2K alone",
    )
    parser.add_argument("--waters", type=options.count, default=16, metavar="N", help="(16)")
    parser.add_argument(
        "--temperature", type=float, default=330.0, metavar="K", help="of the thermostat (330)"
    )
    parser.add_argument("--steps", type=options.count, default=2000, metavar="N", help="(2000)")
    parser.add_argument("--dt", type=float, default=0.5, metavar="FS", help="time step (0.5)")
    parser.add_argument(
        "--every", type=options.count, default=10, metavar="N", help="steps between frames (10)"
    )
    parser.add_argument(
        "--warm-up",
        type=options.count_from_zero,
        default=0,
        metavar="N",
        help="first steps whose frames are left out of frames.npz (0)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the run")


def run(args: argparse.Namespace) -> int:
    """Make the data and say what they are."""
    from invariantzoo.training.molecules.frames import read_frames
    from invariantzoo.training.molecules.reference.cp2k import ReferenceConfig, make_reference

    config = ReferenceConfig(
        engine=args.engine,
        method=args.method,
        waters=args.waters,
        temperature=args.temperature,
        dt=args.dt,
        every=args.every,
        warm_up=args.warm_up,
        seed=args.seed,
    )
    options.require_output_folder("--out", args.out)
    log = options.messages()
    path = make_reference(
        config, args.out, args.steps, lambda text: log.print(text, highlight=False, soft_wrap=True)
    )
    frames = read_frames(path)
    rms = float((frames.forces**2).mean() ** 0.5)
    if args.json:
        report = {"data": str(path), "frames": len(frames.positions), "rms_force": rms}
        options.print_json(args, report)
        return 0
    text = f"{path}: {len(frames.positions)} frames, rms force component {rms:.3f} eV/Å"
    options.console(args).print(text, highlight=False, soft_wrap=True)
    return 0
