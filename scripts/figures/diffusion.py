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

from invariantzoo.figures.diffusion_networks import (
    NETWORKS,
    described,
    model_of,
    surveyed_under,
)
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
SHIPPED, MAIN = "as shipped", "embedding"  # the network and the metric of the first tables
WAYS = (  # networks, metrics, and pairs of shortest paths of a kind on a slice
    (SHIPPED, "embedding", 20),
    (SHIPPED, "features", 20),
    (SHIPPED, "logits", 0),
    (SHIPPED, "pixels", 0),
    (SHIPPED, "posterior", 0),
    *((name, MAIN, 20) for name in NETWORKS),
    *((name, "posterior", 0) for name in NETWORKS),
)
WAYS_WORDS = """\
The metric in bold is the paper's own choice, and was made the main one before its figures were
seen. The paper's public code compares CLIP embeddings of images at unit length: the last layer
of a network that tells contents by inner products. Here that is the classifier's last hidden
layer at unit length, `embedding`. `features` is the same layer, each number over its standard
deviation over the data; `logits` what follows it; `pixels` the image itself; `posterior` is
Fisher's metric of the classifier's chances p of the ten digits, the sum of dp dp^T / p. Slices
of every network are those of the first five seeds by the same rule; `-` is where no paths were
sought. The CPU seconds of `features` are with slopes and dimensions.

Wanted were {contrast} times and more on each of 5 slices, more than {straight:g} of the
straight line with one digit and less than {bent:g} with two. No row has all three on all
slices. What tells how an image looks goes on changing within a digit, so that its metric is not
small there, and how much smaller differs from slice to slice, by more than from metric to
metric. In the larger network paths bend more, within digits too.

Fisher's metric of the chances has the first on every slice of both networks, for it sees what
changes the decision and nothing else. That much is by construction, as the phases are those
decisions: it says where the classifier's digits meet, and less of the diffusion model than the
rows above it. And it has no use for bent paths: a way along which the chances go from one digit
to another, and to no third, is a great circle of length pi, and no way is shorter. On the slice
of seed {first}, {pairs} pairs each, the medians were {ones:.4f} with one digit and {twos:.4f}
with two; of the latter {converged:.0%} converged, as the metric spans many powers of ten.

`invariantzoo geometry digits --metric posterior --out results` surveys a slice with it.
"""
CPU_LIMIT = 5  # minutes of a training
POSTERIOR_PAIRS = 20  # of the shortest paths on one slice under the metric of chances
CONTRAST, STRAIGHT, BENT = 10, 0.99, 0.98  # of which the table counts how many slices have them
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
    slices = {s: recorded(store, f"slice {s}", partial(surveyed, s)) for s in seeds}
    picture = args.out / "images" / "diffusion-slice.png"
    if not picture.exists():
        draw_first(seeds[0], picture)
    networks = {
        name: recorded(store, f"network {name}", partial(described, name)) for name in NETWORKS
    }
    ways = {}
    for name, metric, pairs in WAYS:
        ways[name, metric] = [
            recorded(store, f"{name} {metric} {seed}", partial(way, name, metric, seed, pairs))
            for seed in (networks[name]["seeds"] if name in networks else seeds)[: args.slices]
        ]
    _zoom_picture(args.out / "images" / "diffusion-zoom.png", ideal, slices, windows)
    paths = recorded(
        store, "posterior paths", partial(way, SHIPPED, "posterior", seeds[0], POSTERIOR_PAIRS)
    )
    section = _ways_text(networks, ways, paths, seeds[0])
    page = _page(mixture, contrast, ideal, ideal_slice, slices, networks, ways, section)
    print(page)
    write_text(args.out / "diffusion.md", page)


def draw_first(seed: int, picture: Path) -> None:
    """The picture of a slice under the metric of the first tables."""
    import invariantzoo
    from invariantzoo.slice_picture import draw_slice
    from invariantzoo.training.geometry.survey import survey

    model = invariantzoo.load_diffusion("digits")
    draw_slice(survey(model, seed, metric=MAIN, crossings=0), picture)


def way(name: str, metric: str, seed: int, pairs: int) -> dict[str, Any]:
    """Figures of a slice of a network under a metric."""
    import invariantzoo

    shipped = name == SHIPPED
    model = invariantzoo.load_diffusion("digits") if shipped else model_of(name)
    return surveyed_under(model, seed, metric, pairs)


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


def surveyed(seed: int) -> dict[str, Any]:
    """Figures of a slice with box dimensions of its boundary, and CPU seconds."""
    import invariantzoo
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


def _ways_text(
    networks: dict[str, Any],
    ways: dict[tuple[str, str], list[dict[str, Any]]],
    paths: dict[str, Any],
    first: int,
) -> str:
    """The section on the same measurements under other metrics and of other networks."""
    rows = []
    for (name, metric), slices in ways.items():
        traces = [of["trace"]["mean"] for of in slices]
        cells = [" ".join(f"{x:.3g}" for x in traces), sum(x >= CONTRAST for x in traces)]
        for kind, counts in (
            ("one_digit", lambda x: x > STRAIGHT),
            ("two_digits", lambda x: x < BENT),
        ):
            ratios = [of[kind]["ratio"] for of in slices if kind in of]
            shown = " ".join(f"{x:.3f}"[1:] if x < 0.9995 else "1.000" for x in ratios)
            cells += [shown or "-", sum(map(counts, ratios)) if ratios else "-"]
        main = name == SHIPPED and metric == MAIN
        label = f"**{metric}**" if main else metric
        rows.append([name, label, *cells, round(sum(of["seconds"] for of in slices))])
    columns = ["network", "metric", "boundary over bulk, slice by slice", f"{CONTRAST} and more"]
    columns += ["one digit", f"above {STRAIGHT:g}", "two digits", f"below {BENT:g}", "CPU s"]
    trained = [
        [
            name,
            f"{of['size']:,}",
            f"{NETWORKS[name].steps:,} of {NETWORKS[name].batch}",
            *(f"{loss:.3f}" for loss in of["losses"]),
            f"{of['seconds']}",
            " ".join(map(str, of["seeds"])),
        ]
        for name, of in networks.items()
    ]
    words = WAYS_WORDS.format(
        contrast=CONTRAST,
        straight=STRAIGHT,
        bent=BENT,
        first=first,
        pairs=POSTERIOR_PAIRS,
        ones=paths["one_digit"]["ratio"],
        twos=paths["two_digits"]["ratio"],
        converged=paths["two_digits"]["converged"],
    )
    return f"""{table(columns, rows)}
{words}
{
        table(
            ["network", "numbers", "steps", "loss", "held back", "CPU s", "seeds of its slices"],
            trained,
        )
    }"""


def _page(
    mixture: Any,
    of_mixture: list[list[float]],
    ideal: dict[float, Any],
    ideal_slice: dict[str, Any],
    slices: dict[int, Any],
    networks: dict[str, Any],
    ways: dict[tuple[str, str], list[dict[str, Any]]],
    section: str,
) -> str:
    def steepest(width: float, zoom: int) -> float:
        return max(row[zoom] for row in ideal[width]["slopes"])

    rows = []
    main, posterior = ways[SHIPPED, MAIN], ways[SHIPPED, "posterior"]
    for (seed, of), under in zip(slices.items(), main, strict=True):
        digits = " ".join(f"{digit:.0f}" for digit in of["digits"])
        contrast = [f"{under[n][k]:.1f}" for n in ("volume", "trace") for k in ("mean", "median")]
        shares = [f"{under[n]['share']:.0%}" for n in ("volume", "trace")]
        first, deep = of["dimensions"]
        ratios = [f"{under[n]['ratio']:.4f}" for n in ("one_digit", "two_digits")]
        ratios.append(f"{under['two_digits']['lowest']:.2f}")
        top = f"{max(row[-1] for row in of['slopes']):.1f}"
        cells = [f"{of['boundary_share']:.1%}", *contrast, *shares, top, f"{of['plateau']:.1%}"]
        spent = round(of["seconds"] + under["seconds"])
        rows.append([seed, digits, *cells, f"{first:.2f}", f"{deep:.2f}", *ratios, spent])
    values = list(slices.values())
    traces = [of["trace"]["mean"] for of in main]
    volumes = [of["volume"]["mean"] for of in main]
    fisher = [of["trace"]["mean"] for of in posterior]
    ones, twos = ([of[n]["ratio"] for of in main] for n in ("one_digit", "two_digits"))
    larger = next(iter(networks))
    ones_of_larger, twos_of_larger = (
        [of[n]["ratio"] for of in ways[larger, MAIN]] for n in ("one_digit", "two_digits")
    )
    least = min(of["two_digits"]["lowest"] for of in main)
    tenfold, tenfold_of_fisher = (sum(trace >= CONTRAST for trace in of) for of in (traces, fisher))
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
                f"{_span(volumes)}); {CONTRAST} times and more on {tenfold} slices of "
                f"{len(values)}. In Fisher's metric of the classifier's chances by "
                f"{_span(fisher)} times, {CONTRAST} and more on {tenfold_of_fisher}",
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
                f"nearly: length over that of the straight line {_span(ones)}; of a network "
                f"{larger} {_span(ones_of_larger)}",
                f"for s = {RESOLVED:g}: {ideal_slice['one_digit']['ratio']:.3f}",
                "one dimension: every way is straight",
            ],
            [
                "geodesics bend across a boundary",
                f"some do: medians {_span(twos)}, single paths down to {least:.2f}; of a network "
                f"{larger} medians {_span(twos_of_larger)}",
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
of the trace of the pull-back metric g = J^T J of `embedding` (below); then the share of the
total that lies on the boundary. `plateau` is how much the slope changes from windows of 1e-3 to
1e-7, the worst of 4 crossings; dimensions are those of boxes at every shift. `one digit`,
`two digits`: median length of shortest paths over straight lines, 20 pairs each, in embeddings that
are splines between the nodes, and the lowest with two digits. The straight lines of the first kind
keep to one digit all along. Paths of 80 segments are relaxed from the straight line and from the
shortest path along the edges of the grid, 16 from every node; none is longer than the straight
line.

## Other metrics, other networks

{section}
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

Not done: the paper's fit of log Z to the posterior of distances, convolutional networks, networks
of more than {CPU_LIMIT} CPU minutes, other data.

To reproduce: `python -m invariantzoo.figures.diffusion`; the network itself:
`python -m invariantzoo.figures.diffusion_training`.
"""


if __name__ == "__main__":
    main()
