"""Active learning shown once: agents learn GFN1-xTB water from the frames they are unsure of.

    python -m invariantzoo.figures.water_active [--out docs]

Needs tblite and ASE. Writes water-active.md and water-active.json. Beside it, as many frames that
are drawn at random from the same kind of simulation.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.report import figure_parser, recorded, table, write_text

FIRST, EACH, ROUNDS, TEST = 5, 6, 2, 4  # frames, and rounds of asking
STEPS, SEEDS, REPEATS, COLD = 3000, 3, 3, 100.0  # COLD: K
LIMIT, RUIN = 1.0, 20.0  # eV/Angstrom
SETTINGS: dict[str, Any] = {
    "loss": "angular",
    "shared": True,
    "order": 2,
    "fineness": 0.6,
    "ridge": 1e-4,
}


def walked(
    sample: Any, seed: int, gap: int, count: int, kelvin: float = 330.0, first: int = 0
) -> np.ndarray:
    """Positions [count, n, 3] of a run with `water-angular`, `gap` steps apart, after `first`."""
    from invariantzoo.envs.molecules.files import load_model
    from invariantzoo.envs.molecules.molecular_dynamics import advance, start_md
    from invariantzoo.training.molecules.simulate import Plan, World, draw_velocity

    plan = Plan(kelvin, "csvr", 50.0, 0.5, 1, 1e3, seed, 1, "float64")
    world = World(load_model("water-angular"), sample, plan)
    bodies = start_md(sample.position[None], draw_velocity(sample, plan), world.forces)
    positions = []
    for number in range(count):
        settings: dict[str, Any] = {"freedom": world.freedom, "seed": seed}
        steps = gap + (first if number == 0 else 0)
        advance(bodies, world.forces, world.mass, 0.5, steps, thermostat=world.bath, **settings)
        positions.append(bodies.position[0].copy())
    return np.array(positions)


def learn(repeat: int, counts: list[int] | None) -> list[dict[str, Any]]:
    """The whole loop: one dictionary per round.

    counts: frames by round, drawn at random from the simulations; None: frames of doubt.
    """
    from tblite.ase import TBLite

    from invariantzoo.envs.molecules.files import load_model
    from invariantzoo.training.molecules.active import ase_reference, asked, explore, fit_ensemble
    from invariantzoo.training.molecules.errors import force_errors
    from invariantzoo.training.molecules.frames import Frames, chosen

    sample: Any = load_model("water-angular").sample
    xtb = ase_reference(sample.numbers, sample.cell, TBLite(method="GFN1-xTB", verbosity=0))
    test = walked(sample, 7, 1000, TEST)
    answers = [xtb(x) for x in test]
    frames = Frames(
        test,
        np.array([f for f, _ in answers]),
        sample.numbers,
        np.repeat(sample.cell[None], TEST, 0),
        np.array([e for _, e in answers]),
        np.full(TEST, "val", dtype="<U5"),
        sample.owner,
        "GFN1-xTB",
        "",
    )
    frames = asked(frames, walked(sample, 1 + 10 * repeat, 40, FIRST, COLD, 2000), xtb)
    rounds = []
    for number in range(ROUNDS + 1):
        models = fit_ensemble(frames, size=4, seed=number, **SETTINGS)
        judged = force_errors(models[0], chosen(frames, "val"))
        runs = [
            explore(
                models,
                sample.position,
                frames,
                temperature=330.0,
                limit=LIMIT if counts is None else 0.0,
                ruin=RUIN,
                steps=STEPS,
                keep=EACH // SEEDS if counts is None else STEPS,
                seed=100 * repeat + 10 * number + k,
            )
            for k in range(SEEDS)
        ]
        ask = np.concatenate([run.uncertain for run in runs])
        if counts is not None:
            ask = np.random.default_rng([repeat, number]).permutation(ask)[: counts[number]]
        rounds.append(
            {
                "frames": int((frames.split == "train").sum()),
                "error": judged["rmse_mev_per_angstrom"]["all"],
                "ps": [run.steps * 0.5e-3 for run in runs],
                "ended": [run.ended for run in runs],
                "largest": [run.largest for run in runs],
                "asked": len(ask) if number < ROUNDS else 0,
            }
        )
        print(rounds[-1], flush=True)
        if number < ROUNDS:
            frames = asked(frames, ask, xtb)
    return rounds


def main() -> None:
    """Compute what is missing, then print and write the page."""
    args = figure_parser(__doc__, out=Path("docs")).parse_args()
    store = args.out / "results" / "water-active.json"
    groups: dict[str, list[list[dict[str, Any]]]] = {"doubt": [], "random": []}
    for repeat in range(REPEATS):
        rounds = recorded(store, f"doubt {repeat}", partial(learn, repeat, None))
        counts = [step["asked"] for step in rounds]
        groups["doubt"].append(rounds)
        groups["random"].append(recorded(store, f"random {repeat}", partial(learn, repeat, counts)))
    page = _page(groups)
    print(page)
    write_text(args.out / "water-active.md", page)


def _page(groups: dict[str, list[list[dict[str, Any]]]]) -> str:
    length = STEPS * 0.5e-3
    rows = []
    for repeat in range(REPEATS):
        for name, group in groups.items():
            for number, outcome in enumerate(group[repeat]):
                if number == 0 and name == "random":
                    continue  # the same frames and losses as those of doubt
                ends = ", ".join(
                    f"{t:.2g}" + ("" if end else "+")
                    for t, end in zip(outcome["ps"], outcome["ended"], strict=True)
                )
                spread = ", ".join(f"{value:.2g}" for value in outcome["largest"])
                asked = name if number else ""
                error = f"{outcome['error']:.0f}"
                rows.append([repeat, number, asked, outcome["frames"], error, ends, spread])
    heads = ["repeat", "round", "asked for", "frames", "test error (meV/Å)", "ps", "largest spread"]
    return f"""# Frames asked for by doubt teach no more than random frames

Active learning, start to end, with GFN1-xTB (tblite, through its calculator of ASE) as the
reference and 64 waters, three times with other seeds. It begins with {FIRST} frames of cold water
({COLD:g} K), 20 fs apart. In each round four losses (angular, l up to 2, ridge 1e-4) are fitted,
one to all frames and three to resampled ones; the first drives {SEEDS} simulations of at most
{length:g} ps at 330 K from one start. "doubt": frames in which the four disagree by more than
{LIMIT:g} eV/Å on some atom are kept, up to {EACH // SEEDS} of each simulation are shown to the
reference, and all losses are fitted anew. "random": as many frames, drawn at random from such
simulations. A simulation ends where the four disagree by more than {RUIN:g} eV/Å. The {TEST} test
frames are of 330 K, 0.5 ps apart, from another run.

{table(heads, rows)}
"ps": until that end, of each simulation; + where it was not reached. Largest spread in eV/Å.
Losses of cold water do not know what hot water meets. A few frames of the simulation that they
drive themselves bring the test error down to about 60 meV/Å, which is what losses of this form are
capable of here, and the disagreement with it. Frames drawn at random from those simulations do as
well as frames of doubt: it matters that frames are asked for where the losses lead, not which of
them. Doubt says when to stop asking. Walls stand in all rounds, so this shows how doubt goes away,
not a rescue from an explosion.

Nothing but the reference's answers is added: no wall was moved by hand, and no frame was chosen.
Any calculator of ASE can be the reference, CP2K's among them: `training/molecules/active.py`.

To reproduce: `python -m invariantzoo.figures.water_active`.
"""


if __name__ == "__main__":
    main()
