"""Say in which regime of learning a run is, layer by layer.

Training goes on from the run's last checkpoint, on the side, for as many optimizer steps as asked;
the gradients and updates of these steps give the exponent alpha of every layer's metric. Nothing of
the run is changed; the picture goes to regimes.png in its folder, or to --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariantzoo import options
from invariantzoo.progress import progress, say
from invariantzoo.training.runs.folder import read_config

if TYPE_CHECKING:
    from invariantzoo.training.geometry.regimes import StepRecorder

PICTURE = "regimes.png"
WHOLE = "all together"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `regimes` takes."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--window", type=options.count, default=200, metavar="N", help="steps (default: 200)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the picture (.png)")


def run(args: argparse.Namespace) -> int:
    """Continue on the side, estimate, print and draw."""
    folder = Path(args.run)
    path = args.out or folder / PICTURE
    if args.window < 30:
        raise ValueError(f"--window {args.window} must be at least 30")
    config = read_config(folder)
    options.require_output_file("--out", path, (".png",))
    import torch

    from invariantzoo.training.geometry.regimes_plot import draw_regimes
    from invariantzoo.training.optim import config as optimizers
    from invariantzoo.training.runs import run as runs

    torch.set_num_threads(1)
    steps = watched(folder, config, args.window)
    exponents = estimates(steps)
    if not exponents:
        raise ValueError(f"{folder}: no layer has three modes with noise in {len(steps)} steps")
    optimizer = optimizers.title(runs.rebuild(folder, config)[1])
    title = f"{config['id']}, {config['algo']}, {optimizer}"
    report = {
        "run": str(folder),
        "id": config["id"],
        "algo": config["algo"],
        "optimizer": optimizer,
        "window": len(steps),
        "parts": described(steps, exponents),
    }
    draw_regimes(exponents, path, title=f"{title}: {len(steps)} steps")
    if args.json:
        options.print_json(args, report)
    else:
        _print(report, args)
    say(f"wrote {path}")
    return 0


def watched(folder: Path, config: dict[str, Any], window: int) -> StepRecorder:
    """The optimizer's next `window` steps after a run's checkpoint."""
    from invariantzoo.training.geometry.regimes import StepRecorder
    from invariantzoo.training.runs import run as runs

    trainer, steps = runs.on_the_side(folder, config, window), StepRecorder(window)
    trainer.watch(steps)
    with progress(options.messages(), window, name="watching") as show:
        for _ in trainer:
            show(len(steps))
            if len(steps) >= window:
                break
    return steps


def estimates(steps: StepRecorder) -> dict[str, Any]:
    """The exponent of every tensor for which there is one, and of all together."""
    from invariantzoo.training.geometry.regimes import estimate_alpha

    exponents = {}
    for name, (gradients, updates) in [*steps.tensors().items(), (WHOLE, steps.together())]:
        try:
            exponents[name] = estimate_alpha(gradients, updates)
        except ValueError:  # fewer than three modes
            continue
    return exponents


def described(steps: StepRecorder, exponents: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry per tensor and one for all together, as --json prints it."""
    from invariantzoo.training.geometry.regimes import regime, summarise

    rows = []
    for name, (gradients, updates) in [*steps.tensors().items(), (WHOLE, steps.together())]:
        exponent = exponents.get(name)
        row: dict[str, Any] = {"part": name, "parameters": gradients.shape[1]}
        row |= summarise(gradients, updates)
        row |= {
            "modes": exponent.modes if exponent else 0,
            "regime": regime(exponent) if exponent else "undecided",
        }
        rows.append(row)
    return rows


def _print(report: dict[str, Any], args: argparse.Namespace) -> None:
    from invariantzoo.tables import print_table

    rows = []
    for row in report["parts"]:
        known = "alpha" in row
        rows.append(
            [
                row["part"],
                str(row["parameters"]),
                f"{row['effective_rank']:.1f}",
                f"{row['alpha']:.2f}±{row['alpha_error']:.2f}" if known else "",
                f"{row['alpha_r2']:.2f}" if known else "",
                f"{row['sphericity']:.1f}" if "sphericity" in row else "",
                row["regime"],
            ]
        )
    print_table(
        options.console(args),
        f"{report['id']}: {report['algo']}, {report['optimizer']}, {report['window']} steps",
        ["part", "n", "rank", "alpha", "R²", "sphericity", "regime"],
        rows,
    )
