"""The published benchmark: what its runs are said to decide, and the worlds in x and y."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.agents.networks.choose import make_network
from invariantzoo.agents.policy import network_policy
from invariantzoo.envs.core.rng import Rng
from invariantzoo.figures import benchmark, benchmark_search, benchmark_searches, invariants_gain
from invariantzoo.figures import benchmark_verdicts as verdicts
from invariantzoo.training.benchmark import results
from invariantzoo.training.rl.algorithms import make_config

IDS = ["particles-encounter-v0", "tasep-gates-v0", "quadratic-regimes-v0", "neurons-v0"]
SEEDS = 5


def planted(better: float, cgd: float) -> list[dict[str, object]]:
    """Runs of two algorithms, the first ahead by `better`, and by `cgd` with that optimizer."""
    noise = np.random.default_rng(0).normal(0, 0.05, (len(IDS), SEEDS, 3))
    ahead = {("ppo", "adam"): better, ("es", "adam"): 0.0, ("ppo", "cgd"): better + cgd}
    return [
        {
            "id": id,
            "algo": algo,
            "optimizer": optimizer,
            "seed": seed,
            "steps": 1000,
            "seconds": 1.0,
            "cpu_seconds": 1.0,
            "return": 0.0,
            "score": 0.5 + more + float(noise[place, seed, column]),
            "curve": [[500, 0.5, 0.1], [1000, 1.0, 0.4]],
        }
        for column, ((algo, optimizer), more) in enumerate(ahead.items())
        for place, id in enumerate(IDS)
        for seed in range(SEEDS)
    ]


def test_a_chance_is_one_or_zero_where_one_is_always_ahead() -> None:
    groups = verdicts.by_label(planted(0.4, -0.4))
    of = verdicts.chance(groups["ppo"], groups["es"], IDS)
    assert of == (1.0, 1.0, 1.0, len(IDS))
    assert of is not None
    assert of.decided
    back = verdicts.chance(groups["es"], groups["ppo"], IDS)
    assert back == (0.0, 0.0, 0.0, len(IDS))
    paired = verdicts.chance(groups["ppo cgd"], groups["ppo"], IDS, paired=True)
    assert paired == (0.0, 0.0, 0.0, len(IDS))


def test_a_paired_chance_compares_the_same_seeds_alone() -> None:
    ours, theirs = {"a": {0: 1.0, 1: 0.0, 5: 9.0}}, {"a": {0: 0.0, 1: 0.0, 7: -9.0}}
    of = verdicts.chance(ours, theirs, ["a"], paired=True)
    assert of is not None
    assert of.value == 0.75  # one is ahead, one is even
    assert verdicts.chance(ours, {"b": {0: 1.0}}, ["a"], paired=True) is None


def test_few_ids_decide_nothing() -> None:
    groups = verdicts.by_label(planted(0.4, 0.0))
    of = verdicts.chance(groups["ppo"], groups["es"], IDS[:3])
    assert of is not None
    assert not of.decided
    assert "undecided" in verdicts.leaders(groups, IDS[:3])


def test_who_is_ahead_is_named_and_who_is_not_is_undecided() -> None:
    adam = {name: group for name, group in verdicts.by_label(planted(0.4, 0.0)).items()}
    del adam["ppo cgd"]
    assert "`ppo` has the highest" in verdicts.leaders(adam, IDS)
    assert "better than `es` (1.00" in verdicts.leaders(adam, IDS)
    even = {name: group for name, group in verdicts.by_label(planted(0.0, 0.0)).items()}
    del even["ppo cgd"]
    assert "better than" not in verdicts.leaders(even, IDS)
    assert "undecided against" in verdicts.leaders(even, IDS)


def test_who_wins_on_most_ids_is_not_undecided_for_a_lower_mean() -> None:
    """A few ids by which `es` is far behind lower its mean, not its chance."""
    ids = [f"id{k}" for k in range(8)]
    ppo = dict(zip(ids, [0.9, 0.9, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5], strict=True))
    es = dict(zip(ids, [0.91, 0.91, 0.91, 0.1, 0.51, 0.51, 0.51, 0.51], strict=True))
    groups = {
        name: {id: {seed: score for seed in range(3)} for id, score in scores.items()}
        for name, scores in (("ppo", ppo), ("es", es))
    }
    said = verdicts.leaders(groups, ids)
    assert said.startswith("`ppo` has the highest")
    assert "worse than `es` (0.12 [0.00, 0.38])" in said
    assert "undecided" not in said


@pytest.mark.parametrize(
    ("ahead", "said"), [(0.4, "`cgd` is better"), (-0.4, "Adam is better"), (0.0, "undecided")]
)
def test_what_covariant_descent_buys_follows_from_the_runs(ahead: float, said: str) -> None:
    lines, rows = verdicts.covariant(verdicts.by_label(planted(0.0, ahead)), IDS)
    assert said in lines[0]
    assert lines[1] == "- `descent`: no pairs yet."
    assert [row[0] for row in rows[1:]] == [f"`{id}`" for id in IDS]
    if ahead:
        wins, losses = lines[0].split("; it loses on ")
        assert all(id in (wins if ahead > 0 else losses) for id in IDS)


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([0.01, 0.012, 0.008, 0.011, 0.009], "wins on `neurons-v0` (+0.010); it loses on none"),
        ([0.01, 0.02, 0.005, 0.03, 0.001], "wins on none; it loses on none"),  # by chance
        ([-4e-4, -5e-4, -4e-4, -5e-4, -4e-4], "wins on none; it loses on none"),  # too little
    ],
)
def test_an_id_is_named_where_a_difference_is_more_than_chance(
    differences: list[float], said: str
) -> None:
    groups = {
        "ppo": {"neurons-v0": dict.fromkeys(range(5), 0.5)},
        "ppo cgd": {"neurons-v0": {seed: 0.5 + more for seed, more in enumerate(differences)}},
    }
    assert said in verdicts.covariant(groups, ["neurons-v0"])[0][0]


def test_kinds_divide_the_ids() -> None:
    groups = list(verdicts.kinds(IDS).values())
    for one, other in zip(groups[::2], groups[1::2], strict=True):
        assert sorted(one + other) == sorted(IDS)


def test_a_benchmark_becomes_a_page_and_results_to_compare_with(tmp_path: Path) -> None:
    lacks = (IDS[-1], "es", SEEDS - 1)
    runs = [run for run in planted(0.4, 0.0) if (run["id"], run["algo"], run["seed"]) != lacks]
    scales = {id: results.scale(id)._asdict() for id in IDS}
    reason = "sac needs continuous actions; use another"
    dashes = [{"id": IDS[0], "algo": "sac", "reason": reason}]
    settings = [
        {"id": IDS[0], "algo": "ppo", "optimizer": optimizer, "hyperparameters": hyper}
        for optimizer, hyper in (
            ("adam", {"optimizer": "adam", "lr": 0.1, "metric": "diagonal"}),
            ("cgd", {"optimizer": "cgd", "lr": 0.1, "metric": "full"}),
        )
    ]
    document = {"schema": 1, "scales": scales, "runs": runs, "dashes": dashes, "machines": ["any"]}
    document["settings"] = settings
    benchmark.draw(document, tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 3
    page = benchmark.page(document, {}, {}, {})
    row = next(line for line in page.splitlines() if line.startswith(f"| `{IDS[0]}`"))
    cells = [cell.strip() for cell in row.split("|")]
    assert re.fullmatch(r"0\.\d+ \[0\.\d+, \d\.\d+\]", cells[2])
    assert f"nothing else changed, save on `{IDS[0]}` (`ppo`: `metric=full`), as the" in page
    assert cells[3] == ""  # mappo could, and was not yet
    assert cells[6] == "–"
    last = next(line for line in page.splitlines() if line.startswith(f"| `{IDS[-1]}`"))
    assert last.split("|")[8].endswith(f"({SEEDS - 1}) ")
    assert "sac needs continuous actions: `particles-encounter-v0`" in page
    record = tmp_path / "benchmark.json"
    record.write_text(json.dumps(document), encoding="utf-8")
    assert len(results.read(record)["runs"]) == len(runs)


def _write_run(folder: Path, config: dict[str, Any], mean: float) -> None:
    """A run's config.json, with what every run has, and a scores.json of that mean return."""
    common = {"schema": 1, "version": "1.0.0", "parameters": {}, "network": "default"}
    (folder / "config.json").write_text(json.dumps(common | config), encoding="utf-8")
    scores = {"trained": {"return": {"mean": mean}}}
    report = {"scores": scores, "steps": config["steps"], "seconds": 2.0, "cpu_seconds": 1.0}
    (folder / "scores.json").write_text(json.dumps(report), encoding="utf-8")


def test_runs_of_other_steps_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a benchmark that is not done those runs are collected that the suite makes now."""
    id = IDS[0]
    settings = benchmark.suite_settings(id, "ppo", "adam")
    standard = settings["steps"]
    for seed, steps in enumerate((standard, standard + 1)):
        folder = tmp_path / id / f"ppo-adam-{seed}"
        folder.mkdir(parents=True)
        config = {"id": id, "algo": "ppo", "seed": seed, **settings, "steps": steps}
        _write_run(folder, config, -1.0)
        rows = "steps,cpu_seconds,return\n100,0.5,-9.0\n200,1.0,-1.0\n"
        (folder / "progress.csv").write_text(rows, encoding="utf-8")
    (tmp_path / id / "es-adam-0").mkdir()  # under way
    former = [{"id": id, "algo": algo, "reason": ""} for algo in benchmark.ALGORITHMS]
    document = benchmark.collect(tmp_path, {"dashes": former})
    assert [(run["algo"], run["seed"]) for run in document["runs"]] == [("ppo", 0)]
    assert document["runs"][0]["score"] == pytest.approx(results.scale(id).score(-1.0))
    assert len(document["runs"][0]["curve"]) == 2
    assert f"{id}/ppo-adam-1: its settings or steps" in capsys.readouterr().out

    scale = {**document["scales"][id], "best": 0.0, "random": -4.0}  # the scale of an earlier day
    kept = {**document["runs"][0], "seed": 3, "score": 0.75, "curve": [[100, 0.5, 0.75]]}
    stale = {**kept, "algo": "es", "seed": 4}
    old = [{**settings, "id": id, "algo": algo, "optimizer": "adam"} for algo in ("ppo", "es")]
    record = {**document, "scales": {id: scale}, "runs": [kept, stale], "settings": old}
    older = {name: v for name, v in settings["hyperparameters"].items() if name != "regimes"}
    old[0]["hyperparameters"] = older  # of a version that had one less
    both = benchmark.collect(tmp_path, record)
    assert [(run["algo"], run["seed"]) for run in both["runs"]] == [("ppo", 0), ("ppo", 3)]
    expected = pytest.approx(results.scale(id).score(-1.0), abs=1e-4)
    assert both["runs"][1]["score"] == expected
    assert both["runs"][1]["curve"][0][2] == expected
    assert [of["algo"] for of in both["settings"]] == ["ppo"]
    assert "('particles-encounter-v0', 'es', 'adam', 4)" in capsys.readouterr().out


def test_bare_spins_see_what_their_alignment_is_made_of() -> None:
    world = invariants_gain.WORLDS["spin glass"]
    of_id = invariantzoo.make_system(world.id)
    bare = world.bare(**invariantzoo.spec(world.id).parameters)
    state = bare.initial(Rng.single(3, 2), 2)
    seen, known = bare.invariants(state), of_id.invariants(state)
    torch.testing.assert_close(
        seen["spin"] * (seen["bond"] * seen["neighbour_spin"]).sum(-1), known["alignment"]
    )
    torch.testing.assert_close(seen["inverse_temperature"], known["inverse_temperature"])


VECTORS = ("position", "velocity", "desired", "goal", "goal_velocity")


@pytest.mark.parametrize("name", ["encounter", "crowd", "goals"])
def test_worlds_in_x_and_y_obey_the_same_law(name: str) -> None:
    """Mirrored, with the action mirrored too, they do the same; losses are those of the id."""
    world = invariants_gain.WORLDS[name]
    system, of_id = world.bare(), invariantzoo.make_system(world.id)
    rng, mirror = Rng.single(3, 2), torch.tensor([-1.0, 1.0], dtype=torch.float64)
    state = system.initial(rng, 2)
    other = state._replace(
        **{field: mirror * getattr(state, field) for field in VECTORS if hasattr(state, field)}
    )
    for _ in range(3):
        action = 2 * rng.uniform(2, system.n_agents, 2) - 1
        after = system.transition(state, action, rng)
        other_after = system.transition(other, mirror * action, rng)
        loss = of_id.loss(state, action, after)
        torch.testing.assert_close(system.loss(state, action, after), loss)
        torch.testing.assert_close(system.loss(other, mirror * action, other_after), loss)
        seen, other_seen = system.invariants(after), system.invariants(other_after)
        assert set(seen) == set(system.bounds)
        for invariant, value in seen.items():
            sign = -1.0 if invariant.endswith("_x") else 1.0
            torch.testing.assert_close(other_seen[invariant], sign * value)
        state, other = after, other_after


def test_turned_worlds_are_the_same_to_agents_with_invariants_alone() -> None:
    world = invariants_gain.WORLDS["encounter on one line"]._replace(episodes=8)
    changes = {}
    made = {"invariants": invariantzoo.make_system(world.id), "x and y": world.bare()}
    for kind, system in made.items():
        network = make_network("mlp", system, 0)
        with torch.no_grad():
            network.heads[0].weight.mul_(100.0)  # untrained ones hardly act
        scores = invariants_gain.seen_otherwise(world, system, network_policy(network))
        changes[kind] = scores["rotation"][2]
        assert scores["relabel"][2] < 1e-9
    assert changes["invariants"] < 1e-6
    assert changes["x and y"] > 1e-2


def test_new_settings_stand_beside_those_of_the_record(tmp_path: Path) -> None:
    id, of = "neurons-v0", results.scale("neurons-v0").mean_return

    def run(seed: int, score: float, **settings: object) -> Path:
        folder = tmp_path / f"{seed}-{len(settings)}"
        folder.mkdir()
        hyperparameters = {"optimizer": "", "lr": 0.01, "gamma": 0.9, **settings}
        config = {"id": id, "algo": "ppo", "steps": 500, "seed": seed}
        config |= {"hyperparameters": hyperparameters, "optimizer": {"name": "adam"}}
        _write_run(folder, config, of(score))
        return folder

    cell = {"id": id, "algo": "ppo", "optimizer": "adam"}
    then = {"optimizer": "adam", "lr": 0.02, "gamma": 0.9}
    record = {
        "runs": [{**cell, "seed": 0, "return": of(0.25)}, {**cell, "optimizer": "cgd"}],
        "settings": [{**cell, "steps": 400, "hyperparameters": then}],
    }
    name, entry = benchmark_searches.compared([run(7, 0.5), run(9, 0.7)], record, 0)
    assert name == "neurons-v0, ppo"
    assert entry == {
        "trials": 0,
        "found": "lr=0.01, steps=500",
        "before": "0.250 (seed 0)",
        "after": "0.600, 0.500 to 0.700 (seeds 7, 9)",
        "kept": "yes",
    }
    assert benchmark_searches.compared([run(8, 0.1)], record, 3)[1]["kept"] == "no"
    with pytest.raises(ValueError, match="same id, algorithm, settings and steps"):
        benchmark_searches.compared([run(10, 0.5), run(11, 0.5, gamma=1.0, lr=1)], record, 0)
    with pytest.raises(ValueError, match="no runs of ppo on neurons-v0"):
        benchmark_searches.compared([run(12, 0.5)], {**record, "runs": []}, 0)


def test_what_a_search_found_is_told_on_the_scale_of_the_id() -> None:
    id, of = "neurons-v0", results.scale("neurons-v0").mean_return
    present = make_config(id, "ppo", {"optimizer": "adam"})
    trial = {"number": 0, "state": "complete", "value": of(0.5), "settings": {}}
    best = {
        **trial,
        "number": 2,
        "value": of(0.75),
        "settings": {"lr": 0.5, "gamma": present.gamma},
    }
    trials = [trial, {**trial, "number": 1, "state": "pruned", "value": of(0.1)}, best]
    report = {"id": id, "algo": "ppo", "steps": 1000, "trials": trials, "best": best}
    assert benchmark_search.summary(report, present) == {
        "steps": 1000,
        "trials": 3,
        "pruned": 1,
        "failed": 0,
        "present": 0.5,
        "best": 0.75,
        "found": {"lr": 0.5},
    }
    pruned = [{**trial, "state": "pruned"}, *trials[1:]]
    told = benchmark_search.summary({**report, "trials": pruned}, present)
    assert (told["present"], told["pruned"]) == (None, 2)


def test_curves_are_of_ids_whose_episodes_end_in_every_run() -> None:
    point = [10, 1.0, 0.5]
    runs = [
        {"id": "a", "algo": "ppo", "optimizer": "adam", "curve": [point]},
        {"id": "a", "algo": "sac", "optimizer": "adam", "curve": []},
        {"id": "b", "algo": "ppo", "optimizer": "adam", "curve": []},
        {"id": "c", "algo": "ppo", "optimizer": "adam", "curve": [point]},
    ]
    assert benchmark._with_curves(runs, ["ppo"], ["a", "b", "c"]) == ["a", "c"]
    assert benchmark._with_curves(runs, ["ppo", "sac"], ["a", "b", "c"]) == ["c"]
