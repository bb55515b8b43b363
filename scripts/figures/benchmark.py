"""The published benchmark: all ids by all algorithms, as far as its runs are done.

    python -m invariantzoo.figures.benchmark [--out docs] [--runs runs/standard]

Reads the run folders that `invariantzoo benchmark --suite standard --out DIR` leaves, finished or
not, into results/benchmark.json, which `benchmark --against` takes, and writes
benchmark-results.md and images/benchmark-*.png from it. Runs that the record has and the folder has
not are kept, so the folder may hold some seeds only. Runs whose settings or steps are no more those
of the suite are left out, and named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.figures import benchmark_search, benchmark_searches, invariants_gain
from invariantzoo.figures import benchmark_verdicts as verdicts
from invariantzoo.report import (
    TEXT_SIZE,
    figure_parser,
    json_text,
    page_figure,
    page_legend,
    save_figure,
    table,
    write_text,
)

ALGORITHMS = ("ppo", "mappo", "maskable_ppo", "a2c", "sac", "descent", "es")
RECORD = "benchmark.json"
_CURVE = 16  # points of a run's curve that are kept
_AS_GOOD = 0.001  # of score
_POINTS = 60  # of a picture's curve
_SHOWN = (-0.25, 1.15)  # scores that the pictures show
_PAGE = """# Which algorithm for which id

Ids by {algorithms} algorithms, as [`invariantzoo benchmark --suite standard`](benchmark.md)
trains them: {runs} runs, of {ids} of {all_ids} ids, with {counts}.

A score of 0 is the mean return of random actions, 1 that of the best policy that is known, or,
where the last column says so, that there can be. A cell holds the mean over seeds and, from two
seeds on, its 95 % bootstrap interval; (n) names the number of seeds where it is not {most}. Of five
runs whose scores are normal such an interval holds the mean 5 times in 6, not 19 in 20. A dash is
where an algorithm cannot train; a cell without anything has no run yet. Each run is scored by 100
whole episodes on held-out worlds, and by fewer, at least 5, where these would take more agent-steps
than the training and than 20 million.

{scores}
{above}

{dashes}

{pictures}
## All ids together

Interquartile means over runs, with 95 % intervals that draw the runs of each id anew (stratified
bootstrap); without an interval, some id has a single run. Algorithms are compared on the ids that
all of a column have: {all_of} for all ids, these, `sac` and `descent` for continuous actions.

{aggregates}
Chance that a run of the row is better than one of the column, on the same id:

{improvement}
## Which algorithm where

Intervals of this and the next section draw ids anew, and the runs of each: they say what to expect
of other ids of the kind. Where one includes 1/2, or there are fewer than {least} ids, the data
decide nothing.

{where}

Numbers behind a name are the chance that a run of the first is better. Ids count that have runs of
all algorithms that can train them ({complete} of {ids}); compared are those algorithms that
have runs of all ids of a kind. {mappo}

## What covariant descent buys

[`cgd`](optimizer.md) with a diagonal metric in place of Adam, with the learning rate that the id
has and nothing else changed{more_changed}; runs are compared by id and seed.

{covariant}

{differences}
{invariants}
## How it was made

Settings are those of each id for an algorithm, as its [page](index.md) lists them, else the
algorithm's own defaults. Most were chosen by hand when the id was made; ids with settings of their
own: {own}.
All runs have Adam, save those of `cgd`: `a2c` too, whose default is RMSprop{other_optimizers}.

{searched}{changed}

Steps are those of `standard_steps.json` of the package: what an id states for the algorithm where
this takes two minutes of CPU time or less, else those of about one minute. {seconds} Runs had one
thread each of machines with other work on them ({machines}); CPU seconds are of the process, and
depend on the machine.

    invariantzoo benchmark --suite standard --algos {algos} --seeds 5 --out runs/standard
    invariantzoo benchmark --suite standard --algos ppo,descent --optimizers adam,cgd --seeds 5 \\
        --out runs/standard
    python -m invariantzoo.figures.benchmark

make all of it; the last writes `docs/results/benchmark.json`, and
`invariantzoo benchmark … --against docs/results/benchmark.json` puts your runs beside these.
"""


def collect(folder: Path, former: Mapping[str, Any]) -> dict[str, Any]:
    """The document of all runs of a folder that are done, and of those of a former document.

    former: the document that was, or nothing.
    """
    from invariantzoo import ids, spec
    from invariantzoo.training.benchmark import results, units
    from invariantzoo.training.runs.folder import read_config

    known = [id for id in ids() if spec(id).score is not None]
    current: list[units.Unit] = []
    for scores in sorted(folder.glob("*/*/scores.json")):
        algo, optimizer, seed = scores.parent.name.rsplit("-", 2)
        config = read_config(scores.parent)
        unit = units.Unit(scores.parent.parent.name, algo, optimizer, int(seed), config["steps"])
        if unit.id not in known:
            continue
        settings = {"steps": unit.steps, "hyperparameters": config["hyperparameters"]}
        if _is_current(settings, suite_settings(*unit[:3])):
            current.append(unit)
        else:
            print(f"{unit.name}: its settings or steps are no more those of the suite: left out")
    rows = {_key(run): run for run in _kept(former)}
    rows |= {_key(run): _short(run) for run in results.runs(current, folder)}
    runs = [rows[key] for key in sorted(rows)]
    trained = {(run["id"], run["algo"]) for run in runs}
    refused = {(d["id"], d["algo"]): d["reason"] for d in former.get("dashes", [])}
    for id in dict.fromkeys(run["id"] for run in runs):
        for algo in ALGORITHMS:
            if (id, algo) not in trained and (id, algo) not in refused:
                refused[id, algo] = units.refusal(id, algo)  # empty: it can, and was not yet
    document = results.document(runs, refused, suite="standard")
    del document["improvement"]  # the page has its own, without what differs by its optimizer
    kinds = dict.fromkeys((run["id"], run["algo"], run["optimizer"]) for run in runs)
    suite = [
        {"id": id, "algo": algo, "optimizer": optimizer, **suite_settings(id, algo, optimizer)}
        for id, algo, optimizer in kinds
    ]
    machines = list(dict.fromkeys([*former.get("machines", []), _machine()]))
    return {**document, "settings": suite, "machines": machines}


def _key(run: Mapping[str, Any]) -> tuple[str, str, str, int]:
    return run["id"], run["algo"], run["optimizer"], run["seed"]


def _kept(former: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Runs of a former document whose settings are current, on the scales of now."""
    from invariantzoo import spec
    from invariantzoo.envs.core.registry import ScoreScale
    from invariantzoo.training.benchmark import results

    then = {(of["id"], of["algo"], of["optimizer"]): of for of in former.get("settings", [])}
    runs = []
    for run in former.get("runs", []):
        kind = run["id"], run["algo"], run["optimizer"]
        if spec(run["id"]).score is None:
            continue
        if not _is_current(then[kind], suite_settings(*kind)):
            print(f"{_key(run)} of the record: its settings are no more those of the suite")
            continue
        old, new = ScoreScale(**former["scales"][run["id"]]), results.scale(run["id"])
        if old.measure != new.measure:
            curve = [
                [steps, seconds, _rounded(results.on_scale(score, old, new), 5)]
                for steps, seconds, score in run["curve"]
            ]
            run = {**run, "score": round(float(new.score(run["return"])), 6), "curve": curve}
        runs.append(run)
    return runs


def suite_settings(id: str, algo: str, optimizer: str) -> dict[str, Any]:
    """Agent-steps and hyper-parameters that the standard suite has now for a kind of run."""
    from invariantzoo.training.benchmark.units import hyperparameters, standard_steps

    return {
        "steps": standard_steps(id, algo),
        "hyperparameters": hyperparameters(id, algo, optimizer),
    }


def _is_current(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the settings of a run are those of now; what it did not have yet makes none stale."""
    from invariantzoo.training.benchmark.units import changed

    same_steps = then["steps"] == now["steps"]
    return bool(same_steps and not changed(then["hyperparameters"], now["hyperparameters"]))


def _short(run: dict[str, Any]) -> dict[str, Any]:
    """A run with a few points of its curve, and few digits."""
    rows = np.linspace(0, len(run["curve"]) - 1, min(_CURVE, len(run["curve"]))).round()
    curve = [
        [steps, _rounded(seconds, 4), _rounded(score, 5)]
        for steps, seconds, score in (run["curve"][m] for m in rows.astype(int))
    ]
    return {
        **run,
        "curve": curve,
        "seconds": round(run["seconds"], 1),
        "return": _rounded(run["return"], 7),
        "score": round(run["score"], 6),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _machine() -> str:
    from invariantzoo.bench.process import machine

    return str(machine()["cpu"])


def page(
    document: Mapping[str, Any],
    gain: Mapping[str, Any],
    changes: Mapping[str, Any],
    search: Mapping[str, Any],
) -> str:
    """The page as Markdown.

    changes: new settings of poor cells.  search: what the search of every id found.
    """
    from invariantzoo import ids as own_ids
    from invariantzoo import spec

    runs, ids = document["runs"], list(document["scales"])
    groups = {name: g for name, g in verdicts.by_label(runs).items() if name in ALGORITHMS}
    groups = {name: groups[name] for name in ALGORITHMS if name in groups}
    whole = verdicts.by_label(runs)
    refused = _refused(document)
    complete = [
        id
        for id in ids
        if all(id in groups.get(a, {}) for a in ALGORITHMS if (id, a) not in refused)
    ]
    said, differences = verdicts.covariant(whole, ids)
    numbers = [len(seeds) for group in groups.values() for seeds in group.values()]
    most = max(numbers, default=0)
    own = [f"`{id}` ({', '.join(spec(id).training)})" for id in ids if spec(id).training]
    seconds = [run["cpu_seconds"] for run in runs if run["cpu_seconds"] is not None]
    shared = [name for name in groups if name in ("ppo", "mappo", "a2c", "es")]
    return _PAGE.format(
        ids=len(ids),
        all_ids=sum(spec(id).score is not None for id in own_ids()),
        algorithms=len(ALGORITHMS),
        runs=len(runs),
        counts=_counts(numbers),
        most=most,
        scores=_scores(groups, document, most),
        above=_above(groups, document["scales"]),
        dashes=_dashes(document),
        pictures=_pictures(),
        all_of=", ".join(f"`{name}`" for name in shared),
        aggregates=_aggregates(groups, ids, runs),
        improvement=_improvement(groups),
        least=verdicts.LEAST_IDS,
        where="\n".join(verdicts.where(groups, complete)),
        complete=len(complete),
        mappo=_unequal_steps(runs),
        covariant="\n".join(said),
        differences=_table_of_differences(differences),
        invariants=invariants_gain.section(gain),
        own=", ".join(own),
        more_changed=_more_changed(document["settings"]),
        other_optimizers=_other_optimizers(ids),
        searched=_searched(search),
        changed=_changed(changes),
        seconds=f"In all the runs took {sum(seconds) / 3600:.1f} CPU hours.",
        machines=", ".join(document["machines"]),
        algos=",".join(ALGORITHMS),
    )


def _more_changed(settings: Sequence[Mapping[str, Any]]) -> str:
    """Where runs with `cgd` differ from those with Adam by more than the optimizer."""
    by_kind = {(of["id"], of["algo"], of["optimizer"]): of["hyperparameters"] for of in settings}
    told = []
    for (id, algo, optimizer), made in by_kind.items():
        adam = by_kind.get((id, algo, "adam"))
        if optimizer == "cgd" and adam is not None:
            names = [name for name in made if name != "optimizer" and made[name] != adam[name]]
            if names:
                values = ", ".join(f"{name}={made[name]}" for name in names)
                told.append(f"`{id}` (`{algo}`: `{values}`)")
    return f", save on {', '.join(told)}, as the id has it" if told else ""


def _other_optimizers(ids: Sequence[str]) -> str:
    """Whose settings name an optimizer that the runs with Adam do not have."""
    from invariantzoo import spec

    told = [
        f"`{algo}` on `{id}`, whose settings name `{of['optimizer']}`"
        for id in ids
        for algo, of in spec(id).training.items()
        if of.get("optimizer", "adam") != "adam"
    ]
    return "".join(f", and {text}" for text in told)


def _refused(document: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Ids and algorithms that cannot train them."""
    return {(dash["id"], dash["algo"]) for dash in document["dashes"] if dash["reason"]}


def _counts(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    if high == 1:
        return "one seed of each: differences of single runs, to be read with care"
    seeds = f"{low} to {high} seeds of each" if low < high else f"{high} seeds of each"
    return seeds + (": of two, an interval is their range" if high == 2 else "")


def _scores(groups: Mapping[str, verdicts.Runs], document: Mapping[str, Any], most: int) -> str:
    refused = _refused(document)
    rows = []
    for id, scale in document["scales"].items():
        cells = [
            "–" if (id, name) in refused else _cell(groups.get(name, {}).get(id, {}), most)
            for name in ALGORITHMS
        ]
        kind = ", exact" if scale["exact"] else ""
        rows.append([f"`{id}`", *cells, f"`{scale['policy']}`{kind}"])
    return table(["id", *ALGORITHMS, "score 1 is"], rows)


def _cell(seeds: Mapping[int, float], most: int) -> str:
    from invariantzoo.training.benchmark.scoring import mean_interval

    values = np.array(list(seeds.values()))
    if not len(values):
        return ""
    text = f"{values.mean():.3g}" if abs(values.mean()) >= 10 else f"{values.mean():.3f}"
    if len(values) > 1:
        low, high = mean_interval(values)
        text += f" [{low:.3f}, {high:.3f}]"
    return text if len(values) == most else f"{text} ({len(values)})"


def _above(groups: Mapping[str, verdicts.Runs], scales: Mapping[str, Any]) -> str:
    """Who has a higher return than the policy of score 1, where this is not exact."""
    better: dict[str, list[str]] = {}
    for name, group in groups.items():
        for id, seeds in group.items():
            mean = float(np.mean(list(seeds.values())))
            if mean > 1 + _AS_GOOD and not scales[id]["exact"]:
                better.setdefault(id, []).append(f"`{name}` {mean:.3f}")
    if not better:
        return "No algorithm has a higher return than the policy of score 1."
    listed = "; ".join(f"`{id}` ({', '.join(who)})" for id, who in better.items())
    return f"Higher returns than that of score 1, by more than {_AS_GOOD}, have: {listed}."


def _dashes(document: Mapping[str, Any]) -> str:
    reasons: dict[str, list[str]] = {}
    for dash in document["dashes"]:
        if dash["reason"]:
            reasons.setdefault(dash["reason"].partition(";")[0], []).append(f"`{dash['id']}`")
    lines = [f"- {why}: {', '.join(ids)}" for why, ids in reasons.items()]
    text = "\n".join(lines)
    return f"<details><summary>Why there are dashes</summary>\n\n{text}\n\n</details>"


def _pictures() -> str:
    texts = {
        "scores": "Scores by id; dots are runs, bars 95 % intervals of means. What lies beyond "
        "the axis stands at its edge.",
        "profiles": "Share of runs above a score, on the ids that all of a panel have run; bands "
        "are 95 % intervals.",
        "curves": "Interquartile mean of the score while training, which explores, over those of "
        "these ids where an episode of every run ended; 0 before the first one ends. Of a run "
        "that is over the last value counts.",
    }
    return "\n".join(
        f"![{text.partition(';')[0].partition(',')[0]}](images/benchmark-{name}.png)\n\n{text}\n"
        for name, text in texts.items()
    )


def _aggregates(
    groups: Mapping[str, verdicts.Runs], ids: Sequence[str], runs: Sequence[Mapping[str, Any]]
) -> str:
    columns = _panels(groups, ids)
    head = ["algorithm", *(f"{name} ({len(of)})" for name, (_, of) in columns.items())]
    rows = []
    for algo, group in groups.items():
        cells = [_iqm(group, of) if algo in names else "–" for names, of in columns.values()]
        seconds = [run["cpu_seconds"] for run in runs if verdicts.label(run) == algo]
        spent = float(np.mean([value for value in seconds if value is not None]))
        rows.append([algo, *cells, f"{spent:.0f}", f"{len(group)}"])
    return table([*head, "CPU s of a run", "ids it has"], rows)


def _panels(
    groups: Mapping[str, verdicts.Runs], ids: Sequence[str]
) -> dict[str, tuple[list[str], list[str]]]:
    """Comparable sets: name -> algorithms, and the ids that each of them has run."""
    kinds = verdicts.kinds(ids)
    sets = {
        "all ids": (("ppo", "mappo", "a2c", "es"), ids),
        "continuous actions": (
            ("ppo", "mappo", "a2c", "sac", "descent", "es"),
            kinds["continuous actions"],
        ),
        "discrete actions": (
            ("ppo", "mappo", "maskable_ppo", "a2c", "es"),
            kinds["discrete actions"],
        ),
    }
    panels = {}
    for name, (algos, of) in sets.items():
        here = [algo for algo in algos if any(id in groups.get(algo, {}) for id in of)]
        panels[name] = (here, [id for id in of if all(id in groups[algo] for algo in here)])
    return {name: panel for name, panel in panels.items() if panel[1]}


def _iqm(group: verdicts.Runs, ids: Sequence[str]) -> str:
    from invariantzoo.training.benchmark.scoring import interquartile_mean

    values = {id: np.array(list(group[id].values())) for id in ids}
    of = interquartile_mean(values)
    low, high = of["ci95"]
    if low is None:
        return f"{of['iqm']:.3f}"
    return f"{of['iqm']:.3f} [{low:.3f}, {high:.3f}]"


def _improvement(groups: Mapping[str, verdicts.Runs]) -> str:
    rows = []
    for one, ours in groups.items():
        chances = [
            "" if one == other else verdicts.chance(ours, theirs, list(ours)) or "–"
            for other, theirs in groups.items()
        ]
        rows.append([one, *chances])
    return table(["", *groups], rows)


def _unequal_steps(runs: Sequence[Mapping[str, Any]]) -> str:
    """Where MAPPO made other steps than PPO: these do not compare at equal steps."""
    steps = {(run["id"], run["algo"]): run["steps"] for run in runs if run["optimizer"] == "adam"}
    other = [
        f"`{id}` ({_million(made)} instead of {_million(steps[id, 'ppo'])})"
        for (id, algo), made in steps.items()
        if algo == "mappo" and (id, "ppo") in steps
        if not 0.9 < made / steps[id, "ppo"] < 1.1
    ]
    if not other:
        return ""
    return (
        "`mappo` made other agent-steps than `ppo`, in millions, on "
        f"{', '.join(other)}: there they do not compare at equal steps."
    )


def _million(steps: float) -> str:
    return f"{steps / 1e6:.3g}"


def _table_of_differences(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head, *body = rows
    return (
        "Score with `cgd` less that with Adam, and the 95 % interval of its mean by Student's t.\n"
        "An id is named above where this excludes 0 and the difference is at least .001; of ids\n"
        "without any difference chance alone would name one in 20.\n\n"
        f"{table(head, body)}"
    )


def _changed(changes: Mapping[str, Any]) -> str:
    """New settings of poor cells, and whether they were kept."""
    if not changes:
        return ""
    rows = [
        [
            f"`{name}`",
            str(of["trials"]) if of["trials"] else "by hand",
            f"`{of['found']}`",
            *(of[column] for column in ("before", "after", "kept")),
        ]
        for name, of in changes.items()
    ]
    head = ["id, algorithm", "trials", "found", "score before", "with it", "kept"]
    return (
        "\n\nCells that were poor where another algorithm was good have new settings, by hand or\n"
        "by trials of `invariantzoo search`, at the steps of the benchmark, on seeds that no\n"
        "benchmark has (20 and 21). Runs of such cells that the record had are made anew.\n\n"
        f"{table(head, rows).rstrip()}"
    )


def _searched(search: Mapping[str, Any]) -> str:
    """What the search of every id found, beside the settings that the id has."""
    if not search:
        return "No search over all ids was made for this benchmark so far."
    tried = [of for of in search.values() if "full" in of]
    kept = sum(np.mean(of["full"]) > np.mean(of["published"]) for of in tried)
    rows = [
        [
            f"`{name}`",
            f"{of['steps']:,}",
            f"{of['trials']} ({of['pruned']}, {of['failed']})",
            "–" if of["present"] is None else f"{of['present']:.3f}",
            f"{of['best']:.3f}",
            _mean_and_range(of.get("published")),
            _mean_and_range(of.get("full")),
            ", ".join(f"`{key}={value}`" for key, value in of["found"].items()) or "these",
        ]
        for name, of in search.items()
    ]
    head = ["id, algorithm", "steps", "trials (pruned, failed)", "settings of then", "best"]
    head += ["full length, then", "full length, best", "best"]
    margin = benchmark_search.CANDIDATE
    return (
        "One search was made alike for each id, by `python -m\n"
        "invariantzoo.figures.benchmark_search`: trials of a fifth of the steps, on one seed\n"
        f"that no benchmark has. Of {len(search)} ids {len(tried)} found settings whose score was\n"
        f"higher by more than {margin} there. Short trainings on one seed flatter: at full\n"
        "length, on two other seeds, they were better than the runs of the benchmark of then\n"
        f"on {kept} ids, which have them now, and worse on {len(tried) - kept}.\n\n"
        "<details><summary>The search</summary>\n\n"
        f"{table(head, rows)}\n</details>"
    )


def _mean_and_range(scores: Sequence[float] | None) -> str:
    if not scores:
        return "–"
    return f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"


def draw(document: Mapping[str, Any], folder: Path) -> None:
    """Paint the three pictures."""
    runs, ids = document["runs"], list(document["scales"])
    groups = verdicts.by_label(runs)
    groups = {name: groups[name] for name in ALGORITHMS if name in groups}
    colours = {name: f"C{m}" for m, name in enumerate(ALGORITHMS)}
    _draw_scores(groups, ids, colours, folder / "benchmark-scores.png")
    panels = {n: of for n, of in _panels(groups, ids).items() if n != "all ids"}
    _draw_profiles(groups, panels, colours, folder / "benchmark-profiles.png")
    seen = {name: (of, _with_curves(runs, of, here)) for name, (of, here) in panels.items()}
    seen = {name: panel for name, panel in seen.items() if panel[1]}
    _draw_curves(runs, seen, colours, folder / "benchmark-curves.png")


def _draw_scores(
    groups: Mapping[str, verdicts.Runs], ids: Sequence[str], colours: dict[str, str], path: Path
) -> None:
    from invariantzoo.training.benchmark.scoring import mean_interval

    figure, axes = page_figure(1, 1, 0.34 * len(ids) + 1.4)
    axis = axes[0, 0]
    for m, (name, group) in enumerate(groups.items()):
        shift = 0.11 * (m - (len(groups) - 1) / 2)
        for id, seeds in group.items():
            values, height = np.array(list(seeds.values())), ids.index(id) + shift
            runs, mean = values.clip(*_SHOWN), values.mean().clip(*_SHOWN)
            axis.plot(runs, np.full(len(values), height), ".", ms=3, color=colours[name])
            if len(values) > 1:
                interval = np.clip(mean_interval(values), *_SHOWN)
                axis.plot(interval, [height] * 2, lw=1.5, color=colours[name])
            axis.plot([mean], [height], "o", ms=4.5, color=colours[name])
        axis.plot([], [], "o", ms=4.5, color=colours[name], label=name)
    for line in (0, 1):
        axis.axvline(line, color="0.6", lw=0.8)
    for m in range(len(ids)):
        axis.axhspan(m - 0.5, m + 0.5, color="0.95" if m % 2 else "white", zorder=0)
    axis.set_xlim(_SHOWN[0] - 0.02, _SHOWN[1] + 0.02)
    axis.set_ylim(len(ids) - 0.5, -0.5)
    axis.set_yticks(range(len(ids)), ids)
    axis.set_xlabel("score: 0 random actions, 1 the best that is known")
    page_legend(figure, 7)
    save_figure(figure, path)


def _draw_profiles(
    groups: Mapping[str, verdicts.Runs],
    panels: Mapping[str, tuple[list[str], list[str]]],
    colours: dict[str, str],
    path: Path,
) -> None:
    from invariantzoo.training.benchmark import scoring

    figure, axes = page_figure(1, max(len(panels), 1), 3.1)
    for axis, (title, (names, ids)) in zip(axes.ravel(), panels.items(), strict=False):
        for name in names:
            of = scoring.profile({id: np.array(list(groups[name][id].values())) for id in ids})
            axis.plot(scoring.LEVELS, of["share"], color=colours[name], lw=1.5)
            if of["low"]:
                axis.fill_between(
                    scoring.LEVELS, of["low"], of["high"], color=colours[name], alpha=0.15, lw=0
                )
        axis.set_title(f"{title}: {verdicts.counted(ids)}")
        axis.set_xlabel("score")
        axis.set_xticks(np.arange(scoring.LEVELS[0], scoring.LEVELS[-1] + 0.1, 0.5))
    axes[0, 0].set_ylabel("share of runs above it", fontsize=TEXT_SIZE)
    _legend(figure, axes[0, 0], panels, colours)
    save_figure(figure, path)


def _draw_curves(
    runs: Sequence[Mapping[str, Any]],
    panels: Mapping[str, tuple[list[str], list[str]]],
    colours: dict[str, str],
    path: Path,
) -> None:
    figure, axes = page_figure(max(len(panels), 1), 2, 2.6 * max(len(panels), 1) + 0.4)
    for row, (title, (names, ids)) in zip(axes, panels.items(), strict=False):
        for name in names:
            those = [run for run in runs if verdicts.label(run) == name and run["id"] in ids]
            for axis, column in zip(row, (0, 1), strict=True):
                axis.plot(*_curve(those, column), color=colours[name], lw=1.5)
        row[0].set_title(f"{title}: {verdicts.counted(ids)}")
        row[0].set_ylabel("score while training", fontsize=TEXT_SIZE)
        row[0].set_xlabel("share of the run's agent-steps")
        row[1].set_xlabel("CPU seconds")
        for axis in row:
            axis.set_ylim(-0.1, 1.05)
    _legend(figure, axes[0, 0], panels, colours)
    save_figure(figure, path)


def _legend(figure: Any, axis: Any, panels: Mapping[str, Any], colours: dict[str, str]) -> None:
    """One line for each algorithm of any panel."""
    for name, colour in colours.items():
        if any(name in names for names, _ in panels.values()):
            axis.plot([], [], color=colour, lw=1.5, label=name)
    page_legend(figure, 7, axis)


def _with_curves(
    runs: Sequence[Mapping[str, Any]], names: Sequence[str], ids: Sequence[str]
) -> list[str]:
    """The ids on which every run of these algorithms ended an episode while it was trained."""
    without = {run["id"] for run in runs if not run["curve"] and verdicts.label(run) in names}
    return [id for id in ids if id not in without]


def _curve(runs: Sequence[Mapping[str, Any]], column: int) -> tuple[np.ndarray, np.ndarray]:
    """Interquartile mean of scores against the share of steps (0) or CPU seconds (1)."""
    from invariantzoo.training.rl.score import iqm

    rows = [[point for point in run["curve"] if point[column] is not None] for run in runs]
    scale = [run["steps"] if column == 0 else 1.0 for run in runs]
    last = max((row[-1][column] / s for row, s in zip(rows, scale, strict=True) if row), default=1)
    points = np.linspace(0, min(last, 1.0) if column == 0 else last, _POINTS)
    values = np.zeros((len(runs), _POINTS))
    for run, (row, s) in enumerate(zip(rows, scale, strict=True)):
        if row:
            at = np.array([point[column] / s for point in row])
            score = np.array([0.0, *(point[2] for point in row)])
            values[run] = score[np.searchsorted(at, points, side="right")]
    return points, iqm(values.T)


def main() -> None:
    """Collect, draw, and write the page."""
    parser = figure_parser(__doc__, out=Path("docs"), runs=Path("runs/standard"))
    args = parser.parse_args()
    store = args.out / "results" / RECORD
    read = partial(_read, args.out / "results")
    document = read(RECORD)
    if args.runs.is_dir():
        document = collect(args.runs, document)
        write_text(store, json_text(document))
    if not document:
        parser.error(f"--runs {args.runs}: there is no such folder, and no record in {store}")
    draw(document, args.out / "images")
    searches = read(benchmark_searches.RECORD), read(benchmark_search.RECORD)
    text = page(document, read(invariants_gain.RECORD), *searches)
    write_text(args.out / "benchmark-results.md", text)


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


if __name__ == "__main__":
    main()
