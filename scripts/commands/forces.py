"""Judge an inferred loss: its forces against those of reference data."""

from __future__ import annotations

import argparse

from invariantzoo import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `forces` takes."""
    parser.add_argument("model", help="a model file, or the name of a model that ships")
    parser.add_argument("data", help="as in `fit`")
    options.add_reading(parser)
    parser.add_argument("--split", metavar="NAME", help="only these frames (default: all)")


def run(args: argparse.Namespace) -> int:
    """Print the errors."""
    from invariantzoo.envs.molecules.files import load_model
    from invariantzoo.training.molecules.errors import force_errors
    from invariantzoo.training.molecules.frames import chosen

    saved = load_model(args.model)
    frames = options.read_data(args, args.data, [] if args.split is None else [args.split])
    if args.split is not None:
        frames = chosen(frames, args.split)
    report = {"model": args.model, "data": args.data, **force_errors(saved.model, frames)}
    if args.json:
        options.print_json(args, report)
        return 0
    console = options.console(args)
    rmse = ", ".join(f"{name} {v:.1f}" for name, v in report["rmse_mev_per_angstrom"].items())
    console.print(f"{report['frames']} frames: RMSE {rmse} meV/Å")
    console.print(f"relative {report['relative']:.4f}, correlation {report['correlation']:.5f}")
    console.print(f"net force of a frame {report['net_force']:.2e} eV/Å")
    return 0
