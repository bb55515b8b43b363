"""Pages that are made from the code: one per id, and parts of others.

    python -m invariantzoo.site.pages [--root .]

Writes docs/environments/<id>.md for every id of the package, removes the page of an id that is no
more, writes docs/former-names.md, and renews what stands between two markers: the ids and the pages
with results in README.md and docs/index.md, the hyper-parameters in docs/training.md.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gymnasium.spaces import Discrete

import invariantzoo
from invariantzoo.agents.networks.choose import network_names
from invariantzoo.agents.policy import policy_names
from invariantzoo.envs.core import renamed
from invariantzoo.envs.core.observation import observation_names, parameters
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.report import table, write_text
from invariantzoo.training.rl.hyperparameters import (
    ALGORITHMS,
    optimizer_hyperparameters,
    own_hyperparameters,
    title,
)

LIBRARIES = (  # a tutorial for each
    "pettingzoo",
    "gymnasium",
    "stable-baselines3",
    "torchrl",
    "benchmarl",
    "rllib",
    "skrl",
    "jax",
    "trackers",
    "minari",
    "optuna",
)
GUIDES = (
    "architecture",
    "former-names",
    "index",
    "apis",
    *LIBRARIES,
    "training",
    "train-a-driver",
    "benchmark",
    "write-your-own-system",
    "optimizer",
    "optimizer-derived",
    "molecules",
    "water-paper",
    "fields-from-learning",
)
RESULTS = {  # a question -> the pages with results that answer it
    "How well, and how fast, do agents learn?": (
        "scores",
        "benchmark-results",
        "mappo",
        "speed",
        "processes",
        "memory",
        "conformance",
        "brute-force",
    ),
    "Which invariants does driving need?": ("encounter", "crowd", "goals", "traffic"),
    "Do spins and hopping particles agree with what is exact?": ("ising", "heat-bath", "exclusion"),
    "What can agents do with a field?": (
        "dirac-steer",
        "klein-gordon-force",
        "klein-gordon-absorber",
        "particles-field",
    ),
    "Can atoms learn the losses that move them?": (
        "water-fit",
        "water-liquid",
        "water-cp2k",
        "water-active",
        "relaxation",
    ),
    "What does an optimizer gain by a metric?": (
        "descent-agents",
        "descent-compared",
        "descent-valley",
        "descent-subspace",
        "descent-refresh",
    ),
    "What is the metric of somebody's samples?": (
        "geometry",
        "geometry-ising",
        "geometry-epidemic",
        "geometry-tasep",
        "geometry-laws",
        "geometry-samples",
        "diffusion",
        "latent-travel",
    ),
    "In which regime do networks learn, and is it critical?": (
        "regimes",
        "does-criticality-emerge",
        "criticality",
        "neurons",
    ),
}
OPTIMIZER = "Every algorithm has these too; those of `cgd` need `--optimizer cgd`."
_BY = "made by invariantzoo.site.pages"
_SYSTEM_MODULE = re.compile(r"invariantzoo\.envs\.(?!core\.)")
_FIELD = re.compile(r"(?:^|(?<=\s))(\w+(?:, \w+)*): ")


def main() -> None:
    """Write every page that has changed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--root", type=Path, default=Path("."), help="where README.md stands")
    args = parser.parse_args()
    for name, text in pages(args.root).items():
        path = args.root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            print(path)
    for path in (args.root / "docs/environments").glob("*.md"):
        if path.stem not in own_ids():
            path.unlink()


def own_ids() -> list[str]:
    """The ids of this package; systems that others registered have pages elsewhere."""
    home = "invariantzoo.envs."
    return [id for id in invariantzoo.ids() if invariantzoo.spec(id).entry_point.startswith(home)]


def pages(root: Path) -> dict[str, str]:
    """Text of every page by its path; of a page that is made here in part the rest stays."""
    texts = {f"docs/environments/{id}.md": page(id, root) for id in own_ids()}
    texts["docs/former-names.md"] = former_names()
    made = [
        ("README.md", "ids", ids_table("docs/environments/")),
        ("README.md", "results", results_list(root, "docs/")),
        ("docs/index.md", "ids", ids_table("environments/")),
        ("docs/index.md", "results", results_list(root, "")),
        ("docs/training.md", "hyper-parameters", hyperparameter_tables()),
    ]
    for name, what, text in made:
        before = texts.get(name) or (root / name).read_text(encoding="utf-8")
        texts[name] = with_part(before, what, text)
    return texts


def with_part(text: str, what: str, made: str) -> str:
    """A page whose part between two markers is renewed; raises ValueError if it lacks them."""
    first, last = f"<!-- {what}: {_BY} -->", f"<!-- end of {what} -->"
    before, start, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise ValueError(f"no place for the {what}: the page lacks {first!r} or {last!r}")
    return f"{before}{start}\n{made}{end}{after}"


def ids_table(links: str) -> str:
    """All ids with what they are, linked to their pages."""
    rows = []
    for id in own_ids():
        system = invariantzoo.make_system(id)
        agents = f"{system.n_agents} {system.agent_name}{'' if system.n_agents == 1 else 's'}"
        rows.append([f"[`{id}`]({links}{id}.md)", invariantzoo.spec(id).summary, agents])
    return table(["id", "what it is", "agents"], rows)


def results_list(root: Path, links: str) -> str:
    """The pages of docs/ that are no guides, by subject and by their headings.

    Raises ValueError for a page that no subject of RESULTS names.
    """
    grouped = {name for names in RESULTS.values() for name in names}
    pages = {path.stem for path in (root / "docs").glob("*.md")} - set(GUIDES)
    if pages - grouped:
        raise ValueError(f"docs/{min(pages - grouped)}.md is neither in GUIDES nor in RESULTS")
    lines = []
    for subject, names in RESULTS.items():
        lines.append(f"\n**{subject}**\n\n")
        for name in names:
            lines.append(f"- [{heading(root, f'{name}.md')}]({links}{name}.md)\n")
    return "".join([*lines, "\n"])


def heading(root: Path, name: str) -> str:
    """The heading of a page of docs/."""
    return (root / "docs" / name).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def hyperparameter_tables() -> str:
    """Every hyper-parameter of every algorithm with its default."""
    parts = [(algo, title(algo), own_hyperparameters(algo)) for algo in ALGORITHMS]
    parts += [("optimizer", OPTIMIZER, optimizer_hyperparameters())]
    texts = []
    for name, heading, hyperparameters in parts:
        rows = [
            [f"`{setting.name}`", f"`{setting.default}`", setting.help]
            for setting in hyperparameters
        ]
        texts.append(f"### {name}\n\n{heading}\n\n{table(['name', 'default', 'meaning'], rows)}")
    return "\n".join(["", *texts, ""])


def former_names() -> str:
    """The page of names that warn, and what stands in their place."""
    moved = {f"envs.core.system.{name}": home for name, home in renamed.SYSTEM_NAMES.items()}
    names = {
        "envs.core.vector.VectorEnv.turn": "envs.core.vector.VectorEnv.adjust",
        **renamed.NAMES,
        **{name: f"{home}.{name.rpartition('.')[2]}" for name, home in moved.items()},
    }
    values = [
        [f"`{id}`", f"`{name}`", "any value" if value is ... else f"`{value!r}` alone"]
        for id, former in renamed.PARAMETERS.items()
        for name, value in former.items()
    ]
    header = ["former", "now"]

    def rows(former: dict[str, str]) -> list[list[str]]:
        return [[f"`{name}`", f"`{former[name]}`"] for name in sorted(former)]

    return "\n".join(
        [
            "# Former names and what stands in their place\n",
            "All of these still work and raise a `DeprecationWarning` that names the new one. They",
            "go with version 2. Modules and names are those below `invariantzoo.`.\n",
            f"## Modules\n\n{table(header, rows(renamed.MODULES))}",
            f"## Names\n\n{table(header, rows(names))}",
            "## What a system defines\n",
            f"{table(header, rows(renamed.MEMBERS))}",
            "## Parameters of ids\n",
            "Settings and run folders that name them are taken with the value that is left.\n",
            f"{table(['id', 'parameter', 'taken with'], values)}",
            "This page is made from the code by `python -m invariantzoo.site.pages`.\n",
        ]
    )


def page(id: str, root: Path) -> str:
    """The page of an id."""
    system = invariantzoo.make_system(id)
    parts = [
        f"# {id}\n\n{_sentence(invariantzoo.spec(id).summary)}\n",
        f"![{id}](../images/{id}.gif)\n",
        _head(id, system),
        *(f"Results: [{heading(root, path)}](../{path})\n" for path in _results(id, root)),
        f"## The system\n\n{_module(system)}",
        f"## Parameters\n\n{_parameters(id, system)}",
        f"## What an agent sees\n\n{_observation(system)}",
        f"## What an agent does\n\n{_action(system)}",
        f"## Reward and metrics\n\n{_metrics(system)}",
        f"## Symmetries\n\n{_symmetries(system)}",
        f"## Policies\n\n{_policies(id, system)}",
        f"## How to make it\n\n{_doors(id, system)}",
        "This page is made from the code by `python -m invariantzoo.site.pages`.\n",
    ]
    return "\n".join(parts)


def meanings(system: System) -> dict[str, str]:
    """What each parameter means, by name, as the docstrings of the class and its bases say."""
    known = set(parameters(system))
    by_name: dict[str, str] = {}
    for cls in reversed(type(system).__mro__):
        text = inspect.cleandoc(vars(cls).get("__doc__") or "")
        starts = [
            match for match in _FIELD.finditer(text) if set(match[1].split(", ")).issubset(known)
        ]
        ends = [match.start() for match in starts[1:]] + [len(text)]
        for match, end in zip(starts, ends[: len(starts)], strict=True):
            meaning = " ".join(text[match.end() : end].split()).rstrip(".")
            by_name |= {name: meaning for name in match[1].split(", ")}
    return by_name


def _results(id: str, root: Path) -> Iterator[str]:
    """Pages with results of an id: docs/<scenario>.md and docs/<id without its version>.md."""
    for name in (id.split("-")[1], id.rpartition("-")[0]):
        if (root / "docs" / f"{name}.md").exists():
            yield f"{name}.md"


def _module(system: System) -> str:
    """The docstrings of the system's file, then of its bases'; rows are kept as they stand."""
    modules = [cls.__module__ for cls in type(system).__mro__]
    own = [name for name in dict.fromkeys(modules) if _SYSTEM_MODULE.match(name)]
    text = "\n\n".join(inspect.getdoc(importlib.import_module(name)) or "" for name in own)
    parts = []
    for paragraph in text.split("\n\n"):
        aligned = re.match(r"\w+ {2,}\S", paragraph)
        parts.append(f"```text\n{paragraph}\n```\n" if aligned else f"{_plain(paragraph)}\n")
    return "\n".join(parts)


def _head(id: str, system: System) -> str:
    """What one asks of an environment first: spaces, agents, names, doors."""
    own = system.agent_name if system.n_agents == 1 else f"{system.agent_name}s"
    turns = "some at a time" if system.one_at_a_time else "all at once"
    doors = ["PettingZoo (parallel, AEC)", "Gymnasium `make_vec`", "Stable-Baselines3", "TorchRL"]
    if system.n_agents == 1:
        doors.insert(1, "Gymnasium `make`")
        turns = "alone"
    size = sum(bound.width for bound in system.bounds.values())
    state = system.initial(Rng.single(0, 1), 1)
    space = system.action_space
    masked = ", masked" if system.action_mask(state) is not None else ""
    action = f"`Box(-1, 1, {space.shape})`"
    if isinstance(space, Discrete):
        action = f"`Discrete({space.n})`"
    end = "; agents may end theirs sooner" if system.terminated(state) is not None else ""
    names = [f"`{id}`", f"`invariantzoo/{id}` in the registries of PettingZoo and Gymnasium"]
    rows = [
        ["id", ", ".join(names)],
        ["agents", f"{system.n_agents} {own}, which act {turns}"],
        ["observation", f"`Box(({size},), float32)` per agent: {len(system.bounds)} invariants"],
        ["action", f"{action} per agent{masked}"],
        ["episode", f"{system.horizon} steps{end}"],
        ["doors", f"{', '.join([*doors, 'arrays', 'torch'])}: [with code](../apis.md)"],
    ]
    return table(rows[0], rows[1:])


def _parameters(id: str, system: System) -> str:
    """Names, values for this id, and meanings."""
    explanations, standard = meanings(system), parameters(system)
    rows = []
    for name in standard:
        value = getattr(system, name)
        shown = f"`{value!r}`"
        if value != standard[name]:
            shown = f"**{shown}** (`{type(system).__name__}` alone: `{standard[name]!r}`)"
        rows.append([f"`{name}`", shown, _plain(explanations.get(name, ""))])
    out = table(["name", "default", "meaning"], rows)
    return f"{out}\nGive them by name to any of the doors below, or as `--set name=value`.\n"


def _observation(system: System) -> str:
    """Where each invariant stands in the flat observation, and its limits."""
    rows = []
    for name, columns in observation_names(system).items():
        bound = system.bounds[name]
        positions = (
            f"{columns.start}"
            if columns.stop == columns.start + 1
            else f"{columns.start}–{columns.stop - 1}"
        )
        rows.append([f"`{name}`", positions, float(bound.low), float(bound.high)])
    description = _plain(inspect.getdoc(type(system).invariants) or "")
    size = sum(bound.width for bound in system.bounds.values())
    return (
        f"{description}\n\n{table(['name', 'place', 'lowest', 'highest'], rows)}\n"
        f"The observation is a flat float32 array of size {size}, clipped to these limits;\n"
        "`invariantzoo.envs.core.observation.observation_names(system)` gives the places by name.\n"
    )


def _action(system: System) -> str:
    """The action space, what the action means, and who acts."""
    action_space = system.action_space
    if isinstance(action_space, Discrete):
        space = f"`Discrete({action_space.n})`"
    else:
        space = f"`Box(-1, 1, {action_space.shape})`"
    rng = Rng.single(0, 1)
    state = system.initial(rng, 1)
    lines = [f"Space: {space}. {_plain(inspect.getdoc(type(system).transition) or '')}", ""]
    if system.one_at_a_time:
        lines += ["In a step only the agents that are active act; the others' actions are ignored."]
    else:
        lines += ["All agents act at once."]
    if system.terminated(state) is not None:
        lines += ["Agents may leave before the episode ends."]
    if system.action_mask(state) is not None:
        lines += ["Some actions may be illegal: see `action_mask` in the infos."]
    lines += [f"An episode is truncated after {system.horizon} steps."]
    return "\n".join(lines) + "\n"


def _metrics(system: System) -> str:
    """The metrics, how they are reduced over an episode, and exact values."""
    exact = system.references()
    over = {"mean": "mean", "sum": "sum", "max": "maximum", "last": "last value"}
    rows = []
    for name, how in system.reductions.items():
        value = f"{round(exact[name], 8) + 0.0:g}" if name in exact else ""
        rows.append([f"`{name}`", over[how], *([value] if exact else [])])
    text = "The reward of an agent is minus its loss.\n"
    if rows:
        head = ["metric", "over the steps of an episode", *(["exact value"] if exact else [])]
        text += f"\n{table(head, rows)}"
    description = inspect.getdoc(type(system).metrics)
    if description and description != inspect.getdoc(System.metrics):
        text += f"\n{_plain(description)}\n"
    if system.warm_up:
        text += f"\nMetrics leave out the first {system.warm_up} steps of an episode.\n"
    if exact:
        text += f"\n{_plain(inspect.getdoc(type(system).references) or '')}\n"
    return text


def _symmetries(system: System) -> str:
    """What leaves invariants and loss alone, and what changes sign."""
    rng = Rng.single(0, 1)
    lines = []
    for symmetry in system.symmetries(system.initial(rng, 1), rng):
        signs = {name: value for name, value in symmetry.signs.items() if name in system.bounds}
        odd = ", ".join(f"`{name}`" for name in signs)
        lines.append(f"- {symmetry.name}{f'; {odd} changes sign' if odd else ''}")
        if "action" in symmetry.signs:
            lines[-1] += ", and so does the part of the action that turns with it"
    if not lines:
        return "None is declared.\n"
    return (
        "Invariants and losses stay the same, at every step, when the world is changed by\n\n"
        + "\n".join(lines)
        + "\n\nA test transforms random worlds in each of these ways and compares.\n"
    )


def _policies(id: str, system: System) -> str:
    """Policies that need no training, networks, and training settings of the id."""
    ready = ", ".join(f"`{name}`" for name in policy_names(system))
    learned = ", ".join(f"`{name}`" for name in network_names(system))
    how = "by sampling its actions" if system.stochastic else "with its most likely actions"
    text = f"Without training: {ready}.\nNetworks: {learned}.\n"
    text += f"A trained policy is evaluated {how}, unless told otherwise.\n"
    training = invariantzoo.spec(id).training
    if training:
        rows = [
            [algorithm, f"`{name}`", f"`{value!r}`"]
            for algorithm, given in training.items()
            for name, value in given.items()
        ]
        text += f"\nTraining settings of this id:\n\n{table(['algorithm', 'name', 'value'], rows)}"
    return text


def _doors(id: str, system: System) -> str:
    """Code that makes the id through every interface, and commands."""
    slots = 4 * system.n_agents
    lines = [
        "import gymnasium",
        "import pettingzoo",
        "",
        "import invariantzoo",
        "",
        f'env = invariantzoo.parallel_env("{id}")  # all agents at once',
        f'env = invariantzoo.env("{id}")  # one agent after another',
        f'env = pettingzoo.make("parallel", "invariantzoo/{id}")',
        f'env = pettingzoo.make("aec", "invariantzoo/{id}")',
        f'env = gymnasium.make_vec("invariantzoo/{id}", num_envs={slots})',
        f'env = invariantzoo.vec_env("{id}", n_worlds=4, seed=0)  # Stable-Baselines3',
        f'system = invariantzoo.make_system("{id}")  # pure functions of torch tensors',
    ]
    if system.n_agents == 1:
        lines.insert(-2, f'env = gymnasium.make("invariantzoo/{id}")')
    commands = [
        f"invariantzoo train {id} --out runs/{id}",
        f"invariantzoo evaluate {id} --policy {policy_names(system)[0]}",
        f"invariantzoo rollout {id} --policy {policy_names(system)[0]} --human",
        f"invariantzoo check {id}",
    ]
    python, shell = "\n".join(lines), "\n".join(commands)
    return f"```python\n{python}\n```\n\n```\n{shell}\n```\n"


def _plain(text: Any) -> str:
    """Prose in Markdown: what it would take for emphasis or a column is escaped."""
    return re.sub(r"(?<!`)([*|<])(?!`)", r"\\\1", str(text))


def _sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


if __name__ == "__main__":
    main()
