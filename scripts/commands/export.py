"""Write a run's policy as a folder to share: model card, safetensors, config.

Whoever has the folder uses it in place of a run: `--policy DIR` and `load_run(DIR)` read it, and
the actions are the same to the bit. It can be uploaded to a model hub as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from invariantzoo import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `export` takes."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--hub", type=Path, required=True, metavar="DIR", help="the folder to write"
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder and name its files."""
    from invariantzoo.training.runs.folder import read_config

    folder = Path(args.run)
    config = read_config(folder)
    options.require_output_folder("--hub", args.hub)
    if args.hub.is_dir() and any(args.hub.iterdir()):
        raise ValueError(f"--hub {str(args.hub)!r} holds files already; choose another folder")
    from invariantzoo.training.runs import hub
    from invariantzoo.training.runs.run import load_run, read_checkpoint

    load_run(folder)  # a run that does not fit this version is refused
    names = hub.export(folder, config, read_checkpoint(folder), args.hub)
    if args.json:
        options.print_json(args, {"folder": str(args.hub), "files": names})
    else:
        options.print_line(options.console(args), f"wrote {', '.join(names)} in {args.hub}")
    return 0
