"""Say whether the gradients of a run follow power laws, layer by layer.

Training goes on from the run's last checkpoint, on the side, until so many samples have given their
gradients; their sizes are judged for weights and biases of every layer. Nothing of the run is
changed; the picture goes to criticality.png in its folder, or to --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariantzoo import options
from invariantzoo.progress import progress, say
from invariantzoo.training.runs.folder import read_config

if TYPE_CHECKING:
    from invariantzoo.training.geometry.criticality import Verdict

PICTURE = "criticality.png"
_LONGEST = 200  # updates


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `criticality` takes."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--samples", type=options.count, default=4096, metavar="N", help="samples (default: 4096)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the picture (.png)")


def run(args: argparse.Namespace) -> int:
    """Continue on the side, judge, print and draw."""
    folder = Path(args.run)
    path = args.out or folder / PICTURE
    if args.samples < 200:
        raise ValueError(f"--samples {args.samples} must be at least 200")
    config = read_config(folder)
    options.require_output_file("--out", path, (".png",))
    if config["algo"] == "es":
        raise ValueError(f"{folder}: an evolution strategy has no gradients of single samples")
    import torch

    from invariantzoo.training.geometry.criticality import described
    from invariantzoo.training.geometry.criticality_plot import draw_criticality

    torch.set_num_threads(1)
    verdicts, left_out = judged(folder, config, args.samples)
    if not verdicts:
        raise ValueError(f"{folder}: no linear layer and no convolution has had a gradient")
    draw_criticality(verdicts, path, title=f"{config['id']}, {config['algo']}")
    rows = described(verdicts)
    if args.json:
        report = {"run": str(folder), "id": config["id"], "algo": config["algo"], "parts": rows}
        options.print_json(args, report | {"left_out": list(left_out)})
    else:
        _print(config, rows, args)
    for reason in dict.fromkeys(left_out.values()):
        names = [name for name, its in left_out.items() if its == reason]
        say(f"left out, {reason}: {', '.join(names)}")
    say(f"wrote {path}")
    return 0


def judged(
    folder: Path, config: dict[str, Any], samples: int
) -> tuple[dict[str, Verdict], dict[str, str]]:
    """Verdicts on the gradients of the run's next samples; parameters that have none, and why."""
    from invariantzoo.training.geometry.criticality import SampleRecorder
    from invariantzoo.training.runs import run as runs

    trainer: Any = runs.on_the_side(folder, config, samples)
    recorder = SampleRecorder(samples)
    recorder.attach(trainer.network if hasattr(trainer, "network") else trainer.model.policy)
    with progress(options.messages(), samples, name="watching") as show:
        for update, _ in enumerate(trainer, 1):
            show(min(len(recorder), samples))
            if len(recorder) >= samples or update == _LONGEST:
                break
    if len(recorder) < samples:
        say(f"{len(recorder)} samples, no more in {_LONGEST} updates; --samples asks for {samples}")
    return recorder.verdicts(), recorder.left_out()


def _print(config: dict[str, Any], rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    from invariantzoo.tables import print_table

    table = []
    for row in rows:
        known = "exponent" in row
        decades = " ".join("-" if k is None else f"{k:.2f}" for k in row["by_decade"])
        table.append(
            [
                f"{row['layer']} {row['kind']}",
                f"{row['exponent']:.3f}±{row['error']:.3f}" if known else "",
                f"{row['ks']:.3f}" if known else "",
                decades,
                f"{row['coupling']:+.2f}" if "coupling" in row else "",
                "power law" if row.get("is_power_law") else "no" if known else row["verdict"],
            ]
        )
    print_table(
        options.console(args),
        f"{config['id']}: {config['algo']}",
        ["part", "k", "KS", "k by decade, from the top", "shuffled", "power law"],
        table,
    )
