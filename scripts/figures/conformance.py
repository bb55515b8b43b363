"""The verdict of `invariantzoo check` on our ids, on MPE2 and on PettingZoo's butterfly.

    python -m invariantzoo.figures.conformance [--out docs] [--steps 500]

Checks every environment, runs the short reproduction that belongs to each finding, and writes
conformance.md and results/conformance.json. Environments that cannot be imported are named. A
finding without a reproduction, or one that does not reproduce, ends the script with exit code 1.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import invariantzoo
from invariantzoo.report import figure_parser, recorded, table, write_text

MakeEnv = Callable[..., Any]


class Row(NamedTuple):
    """An environment: whose it is, its name, its version, and its factory or why there is none."""

    family: str
    name: str
    version: str
    make_env: MakeEnv | None
    reason: str = ""


# --- reproductions -------------------------------------------------------------------------------


def info_is_kept(make_env: MakeEnv) -> bool:
    env = make_env()
    _, infos = env.reset(seed=0)
    agent = env.agents[0]
    infos[agent]["note"] = "of the first step"
    *_, later = env.step({a: env.action_space(a).sample() for a in env.agents})
    return "note" in later[agent]


def info_is_common(make_env: MakeEnv) -> bool:
    env = make_env()
    _, infos = env.reset(seed=0)
    return infos["paddle_0"] is infos["paddle_1"]


def screen_is_blank(make_env: MakeEnv) -> bool:
    blind, seeing = make_env(), make_env(render_mode="rgb_array")
    blind_rows, seeing_rows = blind.reset(seed=0)[0], seeing.reset(seed=0)[0]
    return any((blind_rows[agent] != seeing_rows[agent]).any() for agent in blind_rows)


def zombies_come_early(make_env: MakeEnv) -> bool:
    env = make_env()
    zombies = []
    for _ in range(2):
        env.reset(seed=0)
        for _ in range(14):  # a zombie comes at every twentieth step, says the documentation
            env.step(dict.fromkeys(env.agents, 5))
        zombies.append(len(env.unwrapped.zombie_list))
    return zombies == [0, 1]


class Cause(NamedTuple):
    """A finding as confirmed: where, what is wrong in the source, and code that shows it."""

    finding: str
    where: str
    text: str
    shown: Callable[[MakeEnv], bool]


CAUSES = [
    Cause(
        "infos-aliased",
        r"mpe2\..*|pettingzoo\.butterfly\.(pistonball|knights_archers_zombies).*",
        "`reset()` makes one empty dictionary per agent (`self.infos = …` in MPE2's "
        "`_mpe_utils/simple_env.py`, in `pistonball.py` and in `knights_archers_zombies.py`), no "
        "step replaces it, and PettingZoo's `aec_to_parallel_wrapper.step` returns "
        "`dict(**self.aec_env.infos)`, which copies the outer dictionary only. What a wrapper or a "
        "trainer notes in an agent's info therefore stays there until the episode ends, and infos "
        "that were stored change. Gymnasium's own `check_env` refuses this too: infos of two calls "
        "“share an object”.",
        info_is_kept,
    ),
    Cause(
        "infos-shared",
        r"pettingzoo\.butterfly\.cooperative_pong.*",
        "`CooperativePong.reinit` writes `dict(zip(self.agents, [{}] * len(self.agents)))`: the "
        "list holds the same dictionary twice, so after a reset a note on one paddle is a note on "
        "both.",
        info_is_common,
    ),
    Cause(
        "render-mode-dependent",
        r"pettingzoo\.butterfly\.(cooperative_pong|pistonball).*",
        "Observations are read from the screen, and the screen is not drawn if `render_mode` is "
        "None, the default: `CooperativePong.render` warns and returns, `raw_env.draw` of "
        "pistonball returns at once. Agents then see a picture that never changes during an "
        "episode (cooperative pong: black; pistonball: the walls and piston shafts, no ball), and "
        "what is trained without rendering is another task than what is shown.",
        screen_is_blank,
    ),
    Cause(
        "state-leak",
        r"pettingzoo\.butterfly\.knights_archers_zombies.*",
        "`zombie_spawn_interval` is made in `raw_env.__init__` and counts on through `reset` and "
        "`reinit`, so that the first zombie of an episode comes the earlier the further the count "
        "stood: a seeded episode depends on the episodes before it.",
        zombies_come_early,
    ),
]

# Names of findings, and what they are about.
CHECKS = {
    "observation-outside observation-nan observation-infinite observation-dtype observation-shape "
    "observation-type observation-keys": "an observation that is not an element of its space, or "
    "is one only after a cast",
    "missing-keys extra-keys": "an agent that acted or joined is not told something, or one that "
    "left is",
    "return-type info-type reward-type reward-array reward-not-finite flag-type": "values of "
    "another kind: arrays or tensors as rewards, numpy's booleans as flags, NaN",
    "action-mask": "a mask that does not fit the action space",
    "agents no-agents agents-unknown possible-agents": "lists of agents that are no lists, name "
    "somebody twice, name strangers, or change",
    "agent-not-removed agent-vanished agent-revived step-after-end": "agents that stay after "
    "their end, go without one, or come back",
    "truncation-lost max-cycles": "a time limit told as termination, or always as both; "
    "`max_cycles` that is not kept",
    "space-changed space-raised space-invalid": "a space that is another object at a later call, "
    "changes, cannot be had (also after the agent left), or has bounds upside down",
    "reset-raised step-raised reset-signature close-raised construction not-parallel metadata": ""
    "what cannot be called as PettingZoo says: with any action of the space, before the end of an "
    "episode, twice, or side by side",
    "seed-ignored unseeded-noise unseeded-reset": "episodes that do not follow from seed and "
    "actions (also on another day), or that never differ without a seed",
    "global-generator global-settings": "a global random generator that is drawn from, seeded or "
    "depended on; `numpy.seterr`, torch's default dtype or the working directory changed",
    "process-dependent": "another process sees another episode, for instance by the order of a "
    "set of names",
    "state-leak shared-state copy-shares-state copy-diverges": "what one episode, environment or "
    "deep copy leaves behind for another",
    "observations-reused rewards-reused terminations-reused truncations-reused infos-reused "
    "state-reused render-reused": "what was handed out and changes later",
    "observations-aliased rewards-aliased infos-aliased actions-aliased actions-mutated": "what "
    "the caller writes into results or its own actions has an effect, or its actions are written "
    "to",
    "observations-shared infos-shared": "two agents are given the same memory",
    "action-order actions-ignored space-generator": "the order of the keys matters, the actions "
    "do not, the caller's sampling does",
    "state-outside state-nan state-infinite state-dtype state-shape state-type state-keys "
    "state-raised state-unstable state-side-effect": "`state()` that is not in `state_space`, or "
    "whose call changes something",
    "render-frame render-raised render-mode render-unstable render-side-effect "
    "render-mode-dependent": "frames that are not uint8 [height, width, 3], change in size or "
    "differ without cause; an episode that depends on whether somebody watches",
    "pettingzoo-parallel-api pettingzoo-api pettingzoo-seed pettingzoo-state gymnasium "
    "stable-baselines3": "what the checkers of these packages say that none of ours explains",
    "check-broken": "a check that could not be finished",
}

PAGE = """\
# `check` finds a fault in every environment of MPE2 and in three of PettingZoo's

`invariantzoo check TARGET` judges any PettingZoo parallel environment: an id of ours or a
`module:factory`. It runs whole episodes and judges everything handed out; it runs them again, with
the same seeds and actions, as a caller of other habits, in the same environment, beside another one
and in another process; then it calls the checkers of PettingZoo, Gymnasium and
Stable-Baselines3. In Python: `invariantzoo.envs.core.conformance.check.check_parallel(make_env)`.

Not judged, since PettingZoo does not promise it: whether `reset()` without a seed goes on with the
generator or makes a new one, whether two new environments differ without a seed, whether an
environment can be pickled, and human windows. The checkers of others are left out where they
do not apply: those that sample without a mask if actions are masked, and those for arrays and one
agent if spaces are of another kind. Noise that begins only after more steps than the run has
(`--steps`, 1000 unless told otherwise) is not seen.

## Verdicts

{verdicts}
{versions} Runs of {steps} steps, made by `python -m invariantzoo.figures.conformance`.
Pistonball needs `pip install pymunk`.
{missing}
## Findings, confirmed

Each was traced to its cause in the source of the version named above and is shown again by the
code below it, which the script runs on every environment with the finding.

{findings}
## What is checked

{checks}
The planted defects in `tests/planted_defects.py` have one example or more of almost every line, and
sound environments of many kinds in which nothing may be found.
"""


def main() -> int:
    """Check what is not in the record yet, then print and write the page."""
    args = figure_parser(__doc__, out=Path("docs"), steps=500).parse_args()
    store = args.out / "results" / "conformance.json"
    rows = list(environments())
    findings: dict[str, list[list[str]]] = {}
    for row in rows:
        if row.make_env is not None:
            key = f"{row.name} ({row.family} {row.version}), {args.steps} steps"
            findings[row.name] = recorded(store, key, functools.partial(check, row, args.steps))
            print(
                key, ", ".join(name for name, _ in findings[row.name]) or "sound", file=sys.stderr
            )
    open_questions = [
        f"{row.name}: {name}: {message}"
        for row in rows
        for name, message in findings.get(row.name, [])
        if not confirmed(row, name)
    ]
    page = _page(rows, findings, args.steps)
    print(page)
    write_text(args.out / "conformance.md", page)
    for line in open_questions:
        print("not confirmed:", line, file=sys.stderr)
    return int(bool(open_questions))


def environments() -> Iterator[Row]:
    """All that are checked."""
    from invariantzoo.envs.core.interfaces.pettingzoo import make_parallel

    for id in invariantzoo.ids():
        version = invariantzoo.__version__
        yield Row("invariantzoo", id, version, functools.partial(make_parallel, id))
    for family, package in (("mpe2", "mpe2"), ("pettingzoo", "pettingzoo.butterfly")):
        try:
            path, version = importlib.import_module(package).__path__, _version(family)
        except ImportError as error:
            yield Row(family, package, "", None, str(error))
            continue
        for module in pkgutil.iter_modules(path):
            if re.search(r"_v\d+$", module.name):
                name = f"{package}.{module.name}"
                try:
                    make_env = importlib.import_module(name).parallel_env
                except ImportError as error:
                    yield Row(family, name, version, None, str(error))
                else:
                    yield Row(family, name, version, make_env)


def check(row: Row, steps: int) -> list[list[str]]:
    """Findings of an environment as [name, message]."""
    from invariantzoo.envs.core.conformance.check import check_parallel, check_processes

    assert row.make_env is not None
    findings = check_parallel(row.make_env, steps=steps)
    findings += check_processes(row.make_env, steps=min(steps, 200))
    return [list(finding) for finding in findings]


def confirmed(row: Row, finding: str) -> bool:
    """Whether the cause of a finding is known, and its reproduction shows it."""
    known = [c for c in CAUSES if c.finding == finding and re.fullmatch(c.where, row.name)]
    if not known or row.make_env is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(np.all([cause.shown(row.make_env) for cause in known]))


def _page(rows: list[Row], findings: dict[str, list[list[str]]], steps: int) -> str:
    checked = [row for row in rows if row.make_env is not None]
    verdicts = table(
        ["environment", "verdict"],
        [
            (f"`{row.name}`", ", ".join(f"`{name}`" for name, _ in findings[row.name]) or "sound")
            for row in checked
        ],
    )
    missing = [f"- `{row.name}`: {row.reason}" for row in rows if row.make_env is None]
    lines = "\nCould not be imported:\n\n" + "\n".join(missing) + "\n" if missing else ""
    families = sorted({(row.family, row.version) for row in checked})
    return PAGE.format(
        verdicts=verdicts,
        versions=", ".join(f"{family} {version}" for family, version in families) + ".",
        steps=steps,
        missing=lines,
        findings="\n".join(_cause(cause, checked, findings) for cause in CAUSES),
        checks=table(["findings", "what they are about"], _checks()),
    )


def _cause(cause: Cause, rows: list[Row], findings: dict[str, list[list[str]]]) -> str:
    names = [
        f"`{row.name}`"
        for row in rows
        if re.fullmatch(cause.where, row.name)
        and cause.finding in [name for name, _ in findings[row.name]]
    ]
    code = inspect.getsource(cause.shown).strip()
    return f"""### `{cause.finding}` in {", ".join(names)}

{cause.text}

```python
{code}
```
"""


def _checks() -> Iterator[tuple[str, str]]:
    for names, about in CHECKS.items():
        yield ", ".join(f"`{name}`" for name in names.split()), about


def _version(package: str) -> str:
    return importlib.metadata.version(package)


if __name__ == "__main__":
    sys.exit(main())
