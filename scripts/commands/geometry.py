"""Estimate the Fisher metric of samples and draw it with its shortest paths.

SAMPLES.npz holds `samples` [points, per point, ...] and `parameters` [points, d], of whatever made
them, and may hold `names` of the parameters. An id is sampled by its own kernels; the parameters
that --set makes ranges differ by world, such as --set "temperature=(3.0, 5.0)".

The shipped diffusion model, `digits`, needs no samples: of a plane through its latent space, drawn
by --seed, slice.png shows images, phases, metric and shortest paths, and report.json their figures.
The metric is that of --metric: by "posterior", Fisher's of the classifier's chances, what tells
digits apart and nothing else.

Otherwise the folder --out gets metric.npz (see `invariantzoo.load_metric`), metric.png and
report.json.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import invariantzoo
from invariantzoo import options
from invariantzoo.progress import progress, say

if TYPE_CHECKING:
    from invariantzoo.training.geometry.metric import Metric
    from invariantzoo.training.geometry.sampling import Samples

_GRID = 41  # points along a side of the map
_REPORT = "report.json"
_OF_AN_ID = {"points": 4000, "per_point": 16, "sweeps": 300}
_OF_A_FIT = {"members": 4, "recipe": "moments", "statistic": "auto"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `geometry` takes."""
    parser.add_argument("source", metavar="SAMPLES.npz|ID|MODEL", help="samples, or who makes them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    options.add_settings(parser)
    counts = (
        ("points", "values of the parameters, of an id"),
        ("per_point", "samples at each, of an id"),
        ("sweeps", "attempts per agent before the first sample, of an id"),
        ("members", "fits, whose spread gives the errors"),
    )
    for name, words in counts:
        default = (_OF_AN_ID | _OF_A_FIT)[name]
        option, help = f"--{name.replace('_', '-')}", f"{words} (default: {default})"
        parser.add_argument(option, type=options.count, metavar="N", help=help)
    recipes = "moments (default), posterior, or swap or chain where parameters are natural"
    parser.add_argument("--recipe", metavar="NAME", help=recipes)
    statistics = "auto (default), polynomial, network, convolution, patterns, mean or pca-vae"
    parser.add_argument("--statistic", metavar="NAME", help=statistics)
    metrics = "features (default), embedding, logits, posterior or pixels, of a diffusion model"
    parser.add_argument("--metric", metavar="NAME", help=metrics)
    nearest = "points whose samples alone tell the covariance at a place, such as 200; for lattices"
    parser.add_argument("--nearest", type=options.count, metavar="N", help=nearest)


def run(args: argparse.Namespace) -> int:
    """Sample or read, estimate, measure paths, draw, write."""
    from invariantzoo.envs.core.files import claim

    options.require_output_folder("--out", args.out)
    files = (_REPORT, "metric.npz", "metric.png", "slice.png")
    options.require_own_files("--out", args.out, _REPORT, "source", files)
    _require_options_of(args)  # last: it imports torch
    options.fill_in(args, _OF_AN_ID | _OF_A_FIT)
    with claim(args.out):
        return _run(args)


def _require_options_of(args: argparse.Namespace) -> None:
    """Raise ValueError for an option that is given and of another source."""
    from invariantzoo.training.geometry.diffusion import MODELS

    if args.source in MODELS:
        of_samples = (*_OF_A_FIT, "nearest")
        options.require_not_given(args, of_samples, f"samples; {args.source} is a diffusion model")
    else:
        models = ", ".join(MODELS)
        options.require_not_given(args, ["metric"], f"a diffusion model: {models}")
    if args.source in MODELS or args.source.endswith(".npz"):
        whose = f"an id, which is sampled; {args.source} is as it is"
        options.require_not_given(args, ("set", *_OF_AN_ID), whose)


def _run(args: argparse.Namespace) -> int:
    """The same in a folder that this process holds."""
    import torch

    from invariantzoo.envs.core.files import write_together
    from invariantzoo.training.geometry.diffusion import MODELS
    from invariantzoo.training.runs.folder import write_json

    torch.set_num_threads(1)
    if args.source in MODELS:
        return _run_slice(args)
    start = time.process_time()
    data = _samples(args)
    with progress(options.messages(), 1, name="estimating") as show:
        metric = invariantzoo.estimate_metric(
            data.samples,
            data.parameters,
            recipe=args.recipe,
            statistic=args.statistic,
            nearest=args.nearest,
            members=args.members,
            seed=args.seed,
            progress=lambda done, total: show(done / total),
        )
    report = described(args.source, data, metric)
    report["cpu_seconds"] = time.process_time() - start

    def write(folder: Path) -> None:
        metric.save(folder / "metric.npz")
        draw(metric, data, report, folder / "metric.png")
        write_json(folder / _REPORT, options.plain(report))

    write_together(args.out, write)
    if args.json:
        options.print_json(args, report)
    else:
        _print(args, report)
    say(f"wrote metric.npz, metric.png and report.json in {args.out}")
    return 0


def _run_slice(args: argparse.Namespace) -> int:
    """Survey a plane through the latent space of a model, draw, write."""
    from invariantzoo.envs.core.files import write_together
    from invariantzoo.slice_picture import draw_slice
    from invariantzoo.tables import print_table
    from invariantzoo.training.geometry.survey import summary, survey
    from invariantzoo.training.runs.folder import write_json

    start = time.process_time()
    metric = args.metric or "features"
    surveyed = survey(invariantzoo.load_diffusion(args.source), args.seed, metric=metric)
    report = {"source": args.source, "seed": args.seed, "metric": metric, **summary(surveyed)}
    report["cpu_seconds"] = time.process_time() - start

    def write(folder: Path) -> None:
        draw_slice(surveyed, folder / "slice.png")
        write_json(folder / _REPORT, options.plain(report))

    write_together(args.out, write)
    if args.json:
        options.print_json(args, report)
    else:
        rows = [[name, _shown(value)] for name, value in report.items() if name != "slopes"]
        print_table(options.console(args), "a slice", ["what", "value"], rows)
    say(f"wrote slice.png and report.json in {args.out}")
    return 0


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:.4g}" for name, number in value.items())
    return _numbers(value, ".4g") if isinstance(value, list | float) else str(value)


def _samples(args: argparse.Namespace) -> Samples:
    from invariantzoo.training.geometry.sampling import draw_samples, read_samples

    if args.source.endswith(".npz"):
        return read_samples(args.source)
    system = invariantzoo.make_system(args.source, **options.parse_settings(args.set))
    return draw_samples(
        system,
        points=args.points,
        per_point=args.per_point,
        sweeps=args.sweeps,
        seed=args.seed,
    )


def described(source: str, data: Samples, metric: Metric) -> dict[str, Any]:
    """What --json prints: the metric on a coarse grid with its errors, and paths across."""
    low, high = metric.window
    fractions = itertools.product((0.2, 0.5, 0.8), repeat=len(low))
    grid = low + (high - low) * np.array(list(itertools.islice(fractions, 27)))
    value, error = metric(grid), metric.covariance_error(grid)
    hessian, hessian_error = metric.hessian(grid), metric.hessian_error(grid)
    ends = low + (high - low) * np.array([np.full(len(low), 0.1), np.full(len(low), 0.9)])
    first, last = (np.repeat(end[None], len(low) + 1, 0) for end in ends)
    for i in range(len(low)):  # along each side, then along the diagonal
        last[i] = first[i]
        last[i, i] = ends[1][i]
    path = invariantzoo.geodesic(metric, first, last)
    report: dict[str, Any] = {
        "source": source,
        "points": len(data.parameters),
        "per_point": data.samples.shape[1],
        "names": data.names,
        "recipe": metric.recipe,
        "statistic": metric.statistic,
        "window": {"low": low, "high": high},
        "metric": [
            {"at": t, "covariance": g, "error": e, "hessian": h, "hessian_error": he}
            for t, g, e, h, he in zip(grid, value, error, hessian, hessian_error, strict=True)
        ],
        "paths": [
            {"from": a, "to": b, "length": length, "ratio": ratio, "bend": bend}
            for a, b, length, ratio, bend in zip(
                first, last, path.length, path.ratio, path.bend, strict=True
            )
        ],
    }
    if metric.recipe in ("swap", "chain"):
        report["log_z"] = metric.log_z(grid)
    return report


def draw(metric: Metric, data: Samples, report: dict[str, Any], file: Path) -> None:
    """The volume of the metric over the first two parameters, and paths; a curve for one."""
    from invariantzoo.report import page_figure, save_figure

    low, high = metric.window
    axes = [np.linspace(a, b, _GRID) for a, b in zip(low, high, strict=True)]
    figure, ((axis,),) = page_figure(1, 1, 5.0)
    axis.set_xlabel(data.names[0])
    if len(low) == 1:
        points = axes[0][:, None]
        value, error = metric(points)[:, 0, 0], metric.covariance_error(points)[:, 0, 0]
        axis.plot(axes[0], value)
        axis.fill_between(axes[0], value - error, value + error, alpha=0.3)
        axis.set_ylabel("Fisher information")
        save_figure(figure, file)
        return
    middle = (low + high) / 2
    points = np.tile(middle, (_GRID**2, 1))
    points[:, :2] = np.stack(np.meshgrid(axes[0], axes[1], indexing="ij"), -1).reshape(-1, 2)
    squares = np.maximum(np.linalg.det(metric(points)[:, :2, :2]), 1e-12)
    volume = np.sqrt(squares).reshape(_GRID, _GRID)
    picture = axis.pcolormesh(axes[0], axes[1], np.log10(volume).T, shading="gouraud")
    figure.colorbar(picture, label="log10 of the volume of the metric")
    ends = np.array([[0.1, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.9], [0.5, 0.1], [0.1, 0.5]])
    pairs = [(0, 3), (1, 2), (0, 2), (0, 1), (4, 1), (5, 2), (4, 3), (5, 3)]
    first, last = (np.tile(middle, (len(pairs), 1)) for _ in range(2))
    for end, side in ((first, 0), (last, 1)):
        share = np.array([ends[pair[side]] for pair in pairs])
        end[:, :2] = low[:2] + (high - low)[:2] * share
    for path in invariantzoo.geodesic(metric, first, last).points:
        axis.plot(path[:, 0], path[:, 1], color="white", lw=1.2)
    axis.set_ylabel(data.names[1])
    axis.set_title("shortest paths over the volume of the Fisher metric")
    save_figure(figure, file)


def _print(args: argparse.Namespace, report: dict[str, Any]) -> None:
    from invariantzoo.tables import print_table

    console = options.console(args)
    names = ("at", "covariance", "error", "hessian")
    print_table(
        console,
        f"Fisher metric, statistic {report['statistic']}",
        ["at", "metric", "error", "other way"],
        [[_numbers(row[name], ".3g") for name in names] for row in report["metric"]],
    )
    columns = (("from", ".3g"), ("to", ".3g"), ("length", ".4f"), ("ratio", ".4f"), ("bend", ".4f"))
    print_table(
        console,
        "shortest paths",
        ["from", "to", "length", "over the straight line", "bend"],
        [[_numbers(row[name], form) for name, form in columns] for row in report["paths"]],
        caption=f"{report['cpu_seconds']:.1f} s of CPU",
    )


def _numbers(values: Any, form: str) -> str:
    return " ".join(f"{value:{form}}" for value in np.ravel(values))
