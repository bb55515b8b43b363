"""What holds of the paper on the latent space of diffusion models, for three kinds of model.

    python -m invariantzoo.figures.diffusion [--out docs] [--slices 5]

Writes diffusion.md, its pictures and json; what is in the json is not computed again.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import (
    figure_parser,
    page_figure,
    page_legend,
    recorded,
    save_figure,
    table,
    write_text,
)

SLICES = 5
WIDTHS = (0.8, 0.5, 0.3, 0.2, 0.1)  # of two Gaussians
IDEAL = (2.0, 1.0, 0.5, 0.3)  # widths of the Gaussians of the ideal denoiser
IMAGES, CROSSINGS = 60, 4
ZOOMS = [10.0**-k for k in range(1, 9)]
DEEP = 1e-3  # window of the second box dimension
RESOLVED, SHARP = 1.0, 0.3  # widths of ideal denoisers: walls that a grid resolves, and narrow ones
MIDDLE = 0.6745  # of the noise of one phase of two Gaussians: half of it is nearer to the wall


def main() -> None:
    """Compute what is missing, then print and write the page."""
    import torch

    from invariantzoo.training.geometry.survey import WIDTHS as windows

    args = figure_parser(__doc__, out=Path("docs"), slices=SLICES).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "diffusion.json"
    mixture = recorded(store, "mixture", two_gaussians)
    ideal = {s: recorded(store, f"ideal {s:g}", partial(ideal_zoom, s)) for s in IDEAL}
    ideal_slice = recorded(store, "ideal slice", surveyed_ideal)
    contrast = recorded(store, "mixture contrast", mixture_contrast)
    seeds = recorded(store, "seeds", clear_seeds)[: args.slices]
    picture = args.out / "images" / "diffusion-slice.png"
    slices = {
        s: recorded(store, f"slice {s}", partial(surveyed, s, picture if s == seeds[0] else None))
        for s in seeds
    }
    _zoom_picture(args.out / "images" / "diffusion-zoom.png", ideal, slices, windows)
    page = _page(mixture, contrast, ideal, ideal_slice, slices)
    print(page)
    write_text(args.out / "diffusion.md", page)


def two_gaussians() -> list[list[float]]:
    """Of every width: log slope by the closed form, and the error of the integration."""
    from invariantzoo.training.geometry import ideal_diffusion as exact

    rows = []
    for width in WIDTHS:
        wanted = exact.mixture_log_slope(width)
        rows.append([width, wanted, abs(exact.integrate_mixture(width, 0.0)[1] - wanted)])
    return rows


def mixture_contrast() -> list[list[float]]:
    """Of every width: the metric, slope squared, at the wall over that amid a phase."""
    from invariantzoo.training.geometry import ideal_diffusion as exact

    slopes = [[exact.integrate_mixture(s, z)[1] for z in (0.0, MIDDLE)] for s in WIDTHS]
    return [
        [width, float(np.exp(2 * (wall - amid)))]
        for width, (wall, amid) in zip(WIDTHS, slopes, strict=True)
    ]


def surveyed_ideal() -> dict[str, Any]:
    """Figures of a slice of an ideal denoiser, in pixels; box dimensions with sharp walls too."""
    from invariantzoo.training.geometry.diffusion import read_digits
    from invariantzoo.training.geometry.ideal_diffusion import IdealModel
    from invariantzoo.training.geometry.survey import make_slice, summary, survey

    start = time.process_time()
    images = np.random.default_rng(0).permutation(read_digits()[0])[:IMAGES]
    result = summary(survey(IdealModel(images, RESOLVED), 0, pairs=12))
    result["dimensions"] = {}
    for width in (RESOLVED, SHARP):
        chart = make_slice(IdealModel(images, width), 0)
        rng = np.random.default_rng(1)
        p, q = rng.uniform(size=(2, 2))
        while len(set(chart.label([p, q]))) == 1:
            p, q = rng.uniform(size=(2, 2))
        boxes = (([0.5, 0.5], 1.0), (chart.crossing(p, q), DEEP))
        result["dimensions"][f"{width:g}"] = [
            chart.box_dimension(centre, window, resolution=64).dimension for centre, window in boxes
        ]
    result["seconds"] = round(time.process_time() - start, 1)
    return result


def ideal_zoom(width: float) -> dict[str, Any]:
    """Slopes [crossings, zooms] of the ideal denoiser of digits, near walls of one slice."""
    import invariantzoo
    from invariantzoo.training.geometry import ideal_diffusion
    from invariantzoo.training.geometry.diffusion import read_digits

    start = time.process_time()
    rng = np.random.default_rng(0)
    images = rng.permutation(read_digits()[0])[:IMAGES]
    chart = invariantzoo.LatentSlice(
        ideal_diffusion.ideal_denoiser(images, width, steps=400 if width == 2 else 160),
        *rng.normal(size=(3, images.shape[1])),
        classify=ideal_diffusion.nearest_image(images),
    )
    slopes: list[list[float]] = []
    while len(slopes) < CROSSINGS:
        p, q = rng.uniform(size=(2, 2))
        if len(set(chart.label([p, q]))) == 2:
            slopes.append(chart.zoom(chart.crossing(p, q), q - p, ZOOMS).tolist())
    return {"slopes": slopes, "seconds": round(time.process_time() - start, 1)}


def clear_seeds() -> list[int]:
    """The first seeds whose corners are three different digits, each of probability above .95."""
    import invariantzoo
    from invariantzoo.training.geometry.survey import is_clear

    model = invariantzoo.load_diffusion("digits")
    return [seed for seed in range(100) if is_clear(model, seed)][:SLICES]


def surveyed(seed: int, picture: Path | None) -> dict[str, Any]:
    """Figures of a slice with box dimensions of its boundary, and CPU seconds."""
    import invariantzoo
    from invariantzoo.slice_picture import draw_slice
    from invariantzoo.training.geometry.survey import make_slice, summary, survey

    start = time.process_time()
    slice_survey = survey(invariantzoo.load_diffusion("digits"), seed)
    result = summary(slice_survey)
    quick = make_slice(invariantzoo.load_diffusion("digits", dtype="float32"), seed)
    boxes = (([0.5, 0.5], 1.0, 64), (slice_survey.crossings[0], DEEP, 64))
    result["dimensions"] = [
        quick.box_dimension(centre, width, resolution=n).dimension for centre, width, n in boxes
    ]
    result["seconds"] = round(time.process_time() - start, 1)
    if picture is not None:
        draw_slice(slice_survey, picture)
    return result


def _span(values: list[float]) -> str:
    """The least and the largest, with three digits."""
    return f"{min(values):.3g} to {max(values):.3g}"


def _zoom_picture(
    path: Path, ideal: dict[float, Any], slices: dict[int, Any], windows: Any
) -> None:
    """Slopes in ever smaller windows: trained nets are flat, ideal denoisers climb."""
    figure, ((axis,),) = page_figure(1, 1, 3.6)
    for k, of in enumerate(slices.values()):
        for i, slopes in enumerate(of["slopes"]):
            label = "trained net" if k == i == 0 else None
            axis.loglog(windows, slopes, color="black", lw=0.8, label=label)
    for k, (width, of) in enumerate(ideal.items()):
        for i, slopes in enumerate(of["slopes"]):
            label = None if i else f"ideal, s = {width:g}"
            axis.loglog(ZOOMS, slopes, color=f"C{k}", lw=0.8, label=label)
    axis.invert_xaxis()
    axis.set_xlabel("window round a wall, in sides of the slice")
    axis.set_ylabel("largest slope in it")
    page_legend(figure, 5)
    save_figure(figure, path)


def _page(
    mixture: Any,
    of_mixture: list[list[float]],
    ideal: dict[float, Any],
    ideal_slice: dict[str, Any],
    slices: dict[int, Any],
) -> str:
    def steepest(width: float, zoom: int) -> float:
        return max(row[zoom] for row in ideal[width]["slopes"])

    rows = []
    for seed, of in slices.items():
        digits = " ".join(f"{digit:.0f}" for digit in of["digits"])
        contrast = [f"{of[n][k]:.1f}" for n in ("volume", "trace") for k in ("mean", "median")]
        shares = [f"{of[n]['share']:.0%}" for n in ("volume", "trace")]
        first, deep = of["dimensions"]
        ratios = [f"{of[n]['ratio']:.4f}" for n in ("one_digit", "two_digits")]
        ratios.append(f"{of['two_digits']['lowest']:.2f}")
        top = f"{max(row[-1] for row in of['slopes']):.1f}"
        cells = [f"{of['boundary_share']:.1%}", *contrast, *shares, top, f"{of['plateau']:.1%}"]
        rows.append([seed, digits, *cells, f"{first:.2f}", f"{deep:.2f}", *ratios, of["seconds"]])
    values = list(slices.values())
    traces = [of["trace"]["mean"] for of in values]
    volumes = [of["volume"]["mean"] for of in values]
    ones = [of["one_digit"]["ratio"] for of in values]
    twos = [of["two_digits"]["ratio"] for of in values]
    least = min(of["two_digits"]["lowest"] for of in values)
    tenfold = sum(trace >= 10 for trace in traces)
    tops = [row[-1] for of in values for row in of["slopes"]]
    plateau = max(of["plateau"] for of in values)
    dims = [d for of in values for d in of["dimensions"]]
    widths = ", ".join(f"{width:g}" for width, _ in of_mixture[:3])
    ratios_of_mixture = ", ".join(f"{ratio:.3g}" for _, ratio in of_mixture[:3])
    counted = sum(ideal_slice[name]["pairs"] for name in ("one_digit", "two_digits"))
    spent = ideal_slice["seconds"]
    ideal_dims = [d for pair in ideal_slice["dimensions"].values() for d in pair]
    width_list = ", ".join(f"{s:g}" for s in IDEAL)
    growth = ", ".join(f"{steepest(s, 5):.3g}" for s in IDEAL)
    claims = table(
        ["claim", "trained net", "ideal denoiser, s to 0", "two Gaussians, exact"],
        [
            [
                "the metric is concentrated on boundaries",
                f"yes, but by {_span(traces)} times (mean trace there over elsewhere; volume "
                f"{_span(volumes)}); trace 10 times and more on {tenfold} slices of {len(values)}",
                f"yes, by {ideal_slice['trace']['mean']:.3g} times for s = {RESOLVED:g} (trace; "
                f"volume {ideal_slice['volume']['mean']:.3g})",
                f"yes: at the wall {ratios_of_mixture} times that amid a phase for s = {widths}",
            ],
            [
                "change is abrupt",
                f"no: walls of slope {_span(tops)}; from windows of 1e-3 down to 1e-7 they change "
                f"by {plateau:.1%} at the most",
                "as steep as the window allows until that is narrower than the wall",
                "steep, but analytic",
            ],
            [
                "the Lipschitz constant diverges",
                f"no: {max(tops):.0f} at the most, of {len(tops)} crossings",
                f"grows: {growth} for s = {width_list}, in windows of 1e-6",
                "yes, like exp(1 / (2 s^2))",
            ],
            [
                "the boundary is a fractal",
                f"no sign of it: dimensions {_span(dims)} (smooth curve: 1)",
                f"no sign of it: {_span(ideal_dims)} for s = {RESOLVED:g} and {SHARP:g}",
                "no: a point",
            ],
            [
                "geodesics are straight within a phase",
                f"nearly: length over that of the straight line {_span(ones)}",
                f"for s = {RESOLVED:g}: {ideal_slice['one_digit']['ratio']:.3f}",
                "one dimension: every way is straight",
            ],
            [
                "geodesics bend across a boundary",
                f"some do: medians {_span(twos)}, single paths down to {least:.2f}",
                f"for s = {RESOLVED:g}: {ideal_slice['two_digits']['ratio']:.3f}, single paths "
                f"down to {ideal_slice['two_digits']['lowest']:.2f}",
                "one dimension",
            ],
            [
                "the estimate is better than baselines",
                "not told: no exact metric is known here. On [Ising lattices](geometry-ising.md), "
                "where one is, errors are 36 to 185 times smaller than those of both baselines",
                *("nothing is estimated", "nothing is estimated"),
            ],
        ],
    )
    return f"""# What holds of the paper on the geometry of a diffusion model's latent space

*Hessian Geometry of Latent Space in Generative Models* (arXiv 2506.10632) finds phases in the
latent space of diffusion models, with abrupt, fractal boundaries and a Lipschitz constant that
diverges. Does that hold? Here for a small trained network (the shipped model of 8 x 8 digits),
for the ideal denoiser of 60 digits, each a Gaussian of width s, and for two Gaussians, exactly.

![slopes in ever smaller windows](images/diffusion-zoom.png)

A jump has a slope that grows without end as the window shrinks; a wall of finite steepness has one
that levels off as soon as the window is narrower than the wall. A smooth network with
50 steps is of the second kind by construction, and in windows wider than 1 / slope it cannot be
told from a jump. To see a divergence, something must go to a limit: here the width s of the data.

{claims}
## Slices of the trained net

Slices are those of the first {
        len(slices)
    } seeds from 0 on whose corners are three different digits with
probability above .95 each: the rule was set before any metric was seen.

![a slice](images/diffusion-slice.png)

{
        table(
            [
                *("seed", "digits", "boundary", "volume mean", "median", "trace mean", "median"),
                *("volume there", "trace there", "top slope", "plateau"),
                *("dimension", f"at {DEEP:g}", "one digit", "two digits", "lowest", "CPU s"),
            ],
            rows,
        )
    }
`boundary` is the share of nodes of a 65 x 65 grid beside another digit. Boundary over bulk is the
mean (or the median) over those nodes, over that of all other nodes, of the volume sqrt(det g) and
of the trace of the pull-back metric g = J^T J of the classifier's features; then the share of the
total that lies on the boundary. `plateau` is how much the slope changes from windows of 1e-3 to
1e-7, the worst of 4 crossings; dimensions are those of boxes at every shift. `one digit`,
`two digits`: median length of shortest paths over straight lines, 20 pairs each, in features that
are splines between the nodes, and the lowest with two digits. The straight lines of the first kind
keep to one digit all along. Paths of 80 segments are relaxed from the straight line and from the
shortest path along the edges of the grid, 16 from every node; none is longer than the straight
line.

## Two Gaussians

{
        table(
            ["s", "log slope, closed form", "error of the integration"],
            [[a, f"{b:.6f}", f"{c:.1e}"] for a, b, c in mixture],
        )
    }
By DOP853 with the variational equation, tolerance 1e-12.

## The ideal denoiser

{
        table(
            ["s", *(f"{w:g}" for w in ZOOMS), "CPU s"],
            [
                [s, *(f"{steepest(s, k):.3g}" for k in range(len(ZOOMS))), of["seconds"]]
                for s, of in ideal.items()
            ],
        )
    }
The largest slope of {
        CROSSINGS
    } crossings in windows of these widths, some at no wall; 160 steps (400 for s = 2). One slice.
The metric, the box dimensions and the {counted} shortest paths of the first table are those of
another slice, in the metric of pixels, and its phases are the nearest images. With a smaller s
walls are narrower than the grid of paths, which then says nothing. That one took {spent:.0f} CPU s.

Not done: the paper's fit of log Z to the posterior of distances, larger models, other data.

To reproduce: `python -m invariantzoo.figures.diffusion`; the network itself:
`python -m invariantzoo.figures.diffusion_training`.
"""


if __name__ == "__main__":
    main()
