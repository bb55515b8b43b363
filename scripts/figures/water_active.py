"""Active learning shown once: agents learn GFN1-xTB water from the frames they are unsure of.

    python -m invariantzoo.figures.water_active [--out docs]

Needs tblite and ASE. Writes water-active.md and water-active.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from invariantzoo.figures.records import recorded, table, write_text

FIRST, EACH, ROUNDS, TEST = 5, 6, 2, 4  # frames, and rounds of asking
STEPS, SEEDS = 3000, 3
LIMIT, RUIN = 1.0, 20.0  # eV/Angstrom
SETTINGS: dict[str, Any] = {
    "loss": "angular",
    "shared": True,
    "order": 2,
    "fineness": 0.6,
    "ridge": 1e-4,
}


def walked(sample: Any, seed: int, gap: int, count: int) -> np.ndarray:
    """Positions [count, n, 3] of a run with `water-angular`, `gap` steps apart."""
    from invariantzoo.agents.dynamics import advance, make_bodies
    from invariantzoo.agents.model_file import load_model
    from invariantzoo.training.simulation import Plan, World, draw_velocity

    plan = Plan(330.0, "csvr", 50.0, 0.5, 1, 1e3, seed, 1, "float64")
    world = World(load_model("water-angular"), sample, plan)
    bodies = make_bodies(sample.position[None], draw_velocity(sample, plan), world.forces)
    found = []
    for _ in range(count):
        settings: dict[str, Any] = {"freedom": world.freedom, "seed": seed}
        advance(bodies, world.forces, world.mass, 0.5, gap, thermostat=world.bath, **settings)
        found.append(bodies.position[0].copy())
    return np.array(found)


def learn() -> list[dict[str, Any]]:
    """The whole loop: one dictionary per round."""
    from tblite.ase import TBLite

    from invariantzoo.agents.model_file import load_model
    from invariantzoo.training.active import ase_reference, asked, explore, fit_ensemble
    from invariantzoo.training.frames import Frames, chosen
    from invariantzoo.training.judge_forces import judge

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
    frames = asked(frames, walked(sample, 1, 40, FIRST), xtb)
    rounds = []
    for number in range(ROUNDS + 1):
        models = fit_ensemble(frames, size=4, seed=number, **SETTINGS)
        judged = judge(models[0], chosen(frames, "val"))
        runs = [
            explore(
                models,
                sample.position,
                frames,
                temperature=330.0,
                limit=LIMIT,
                ruin=RUIN,
                steps=STEPS,
                keep=EACH // SEEDS,
                seed=10 * number + k,
            )
            for k in range(SEEDS)
        ]
        uncertain = np.concatenate([run.uncertain for run in runs])
        rounds.append(
            {
                "frames": int((frames.split == "train").sum()),
                "error": judged["rmse_mev_per_angstrom"]["all"],
                "ps": [run.steps * 0.5e-3 for run in runs],
                "ended": [run.ended for run in runs],
                "largest": [run.largest for run in runs],
                "asked": len(uncertain) if number < ROUNDS else 0,
            }
        )
        print(rounds[-1], flush=True)
        if number < ROUNDS:
            frames = asked(frames, uncertain, xtb)
    return rounds


def main() -> None:
    """Compute what is missing, then print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    rounds = recorded(args.out / "results" / "water-active.json", "rounds", learn)
    page = _page(rounds)
    print(page)
    write_text(args.out / "water-active.md", page)


def _page(rounds: list[dict[str, Any]]) -> str:
    length = STEPS * 0.5e-3
    rows = []
    for number, found in enumerate(rounds):
        ends = ", ".join(f"{t:g}" + ("" if e else "+") for t, e in zip(*_ends(found), strict=True))
        spread = ", ".join(f"{s:.2g}" for s in found["largest"])
        rows.append(
            [number, found["frames"], f"{found['error']:.0f}", ends, spread, found["asked"]]
        )
    heads = ["round", "frames", "test error (meV/Å)", "ps stable", "largest spread", "then asked"]
    return f"""# Agents that ask where they are unsure

Active learning, start to end, with GFN1-xTB (tblite, through its calculator of ASE) as the
reference and 64 waters. It begins with {FIRST} frames that lie 20 fs apart, nearly copies. In each
round four losses (angular, l up to 2, ridge 1e-4) are fitted, one to all frames and three to
resampled ones; the first drives {SEEDS} simulations of at most {length:g} ps at 330 K from one
start; frames in which the four disagree by more than {LIMIT:g} eV/Å on some atom are kept, two of
each simulation are shown to the reference, and all losses are fitted anew. A simulation ends where
they disagree by more than {RUIN:g} eV/Å. The {TEST} test frames are 0.5 ps apart, from another run.

{table(heads, rows)}
"ps stable": until that end, of each simulation; + where it was not reached. Largest spread in eV/Å.
The frames that were asked for bring the largest disagreement down about tenfold, and the error on
frames of another run hardly: that error is what losses of this form are capable of. Walls stand in
all rounds, so this shows how doubt goes away, not a rescue from an explosion.
Nothing but the reference's answers is added: no wall was moved by hand, and no frame was chosen.
Any calculator of ASE can be the reference, CP2K's among them: `training/active.py`.

Reprint with `python -m invariantzoo.figures.water_active`.
"""


def _ends(found: dict[str, Any]) -> tuple[list[float], list[str]]:
    return found["ps"], found["ended"]


if __name__ == "__main__":
    main()
