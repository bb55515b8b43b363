"""The house: which way imports run, what they cost, what is packaged, no global randomness."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import gymnasium
import pettingzoo
import pytest
import scipy.sparse
from scipy.sparse.csgraph import connected_components

import invariantzoo

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {  # folder of the tree -> its package
    "envs": "invariantzoo.envs",
    "agents": "invariantzoo.agents",
    "training": "invariantzoo.training",
    "scripts": "invariantzoo",
}
LAYERS = ["envs", "agents", "training", "scripts"]  # each may import those before it
SOURCES = sorted(path for folder in LAYERS for path in (ROOT / folder).rglob("*.py"))
HEAVY = ("torch", "numba", "stable_baselines3", "pygame", "matplotlib", "tensorboard", "imageio")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    """invariantzoo.envs.core.rng of envs/core/rng.py; packages end in .__init__."""
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *rest])


@functools.cache
def import_nodes(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """All imports of a file, those within functions and for the type checker included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


@functools.cache
def imports(path: Path) -> list[str]:
    """Absolute names of what a file imports."""
    package, found = module_name(path).split(".")[:-1], []
    for node in import_nodes(path):
        start = ""
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else []), ""])
        found += [start + alias.name for alias in node.names]
    return found


def layer(name: str) -> str | None:
    """The folder that an imported name of ours stands in."""
    if not (name + ".").startswith("invariantzoo."):
        return None
    for folder in LAYERS[:-1]:
        if (name + ".").startswith(FOLDERS[folder] + "."):
            return folder
    return "scripts"


def test_imports_run_one_way() -> None:
    wrong = []
    for path in SOURCES:
        allowed = (None, *LAYERS[: LAYERS.index(path.relative_to(ROOT).parts[0]) + 1])
        names = [name for name in imports(path) if layer(name) not in allowed]
        wrong += [f"{relative(path)}: {name}" for name in names]
    assert wrong == []


def test_imports_are_relative_below_and_absolute_in_scripts() -> None:
    wrong = []
    for path in SOURCES:
        in_scripts = path.relative_to(ROOT).parts[0] == "scripts"
        for node in import_nodes(path) if path.parts[-2] != "scripts" else ():
            if not isinstance(node, ast.ImportFrom):
                continue
            ours = node.level or "invariantzoo" in str(node.module)
            if ours and (node.level == 0) != in_scripts:
                wrong.append(f"{relative(path)}: line {node.lineno}")
    assert wrong == []


def system(name: str) -> str | None:
    """The system that a module belongs to: its file or folder in envs."""
    parts = name.split(".")
    if parts[:2] != ["invariantzoo", "envs"] or len(parts) < 3 or parts[2] in ("core", "*"):
        return None
    return parts[2]


def test_no_system_knows_another_and_the_core_knows_none() -> None:
    wrong = []
    for path in sorted((ROOT / "envs").rglob("*.py")):
        own = {system(module_name(path)), None}
        wrong += [f"{relative(path)}: {n}" for n in imports(path) if system(n) not in own]
    assert wrong == []


def test_kernels_import_kernels_alone() -> None:
    wrong = []
    for path in sorted((ROOT / "envs").rglob("kernels/*.py")):
        ours = [name for name in imports(path) if layer(name)]
        wrong += [f"{relative(path)}: {name}" for name in ours if ".kernels" not in name]
    assert wrong == []


def edges() -> dict[str, set[str]]:
    """Which files import which, imports for the type checker and within functions included."""
    files = {module_name(path).removesuffix(".__init__"): path for path in SOURCES}
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        targets = set()
        for imported in imports(path):
            module = next((m for m in (imported, imported.rpartition(".")[0]) if m in files), None)
            if module not in (None, name, "invariantzoo"):
                targets.add(str(module))
        graph[name] = targets
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups that reach each other."""
    adjacency = scipy.sparse.lil_matrix((len(graph), len(graph)))
    names = sorted(graph)
    places = {name: i for i, name in enumerate(names)}
    for name, targets in graph.items():
        for target in targets:
            adjacency[places[name], places[target]] = 1
    _, labels = connected_components(adjacency, connection="strong")
    groups = [[n for n in names if labels[places[n]] == label] for label in set(labels)]
    return [group for group in groups if len(group) > 1]


def test_no_circles_between_files() -> None:
    assert circles(edges()) == []


def test_no_circles_between_folders() -> None:
    graph: dict[str, set[str]] = {}
    for name, targets in edges().items():
        own = name.rpartition(".")[0]
        graph.setdefault(own, set())
        for target in targets:
            folder = target.rpartition(".")[0]
            graph.setdefault(folder, set())
            if folder != own:
                graph[own].add(folder)
    assert circles(graph) == []


def test_compiled_functions_find_a_place_for_their_code() -> None:
    plain = re.compile(r"njit\(.*cache=|\bjit\(.*cache=")
    found = {relative(path) for path in SOURCES if plain.search(path.read_text("utf-8"))}
    assert found == {"envs/core/kernels/compiling.py"}


def test_the_import_is_light() -> None:
    code = "import sys, invariantzoo; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    command = [sys.executable, "-W", "error", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True)
    assert loaded.stderr == ""
    assert "invariantzoo" in loaded.stdout.split()
    assert not set(HEAVY) & set(loaded.stdout.split())


def test_the_import_touches_no_global_generator() -> None:
    code = (
        "import random, numpy as np, invariantzoo as iz\n"
        "before = random.getstate(), np.random.get_state()[1].tolist()\n"
        "import torch; seen = torch.random.get_rng_state().tolist()\n"
        "for id in iz.ids():\n"
        "    env = iz.parallel_env(id); env.reset(seed=1)\n"
        "    env.step({a: env.action_space(a).sample() for a in env.agents})\n"
        "assert before == (random.getstate(), np.random.get_state()[1].tolist())\n"
        "assert seen == torch.random.get_rng_state().tolist()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_packages_listed_are_the_tree() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setup = listed["tool"]["setuptools"]
    found = set()
    for folder in LAYERS:
        for start in (ROOT / folder).rglob("__init__.py"):
            found.add(module_name(start).removesuffix(".__init__"))
    figures = {name.replace(".scripts.", ".") for name in found}
    assert sorted(setup["packages"]) == sorted(figures)
    for package, folder in setup["package-dir"].items():
        assert (ROOT / folder / "__init__.py").exists(), package


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert invariantzoo.__version__ == project["version"]
    assert importlib.metadata.version("invariantzoo") == project["version"]


def test_no_command_hides_another_module() -> None:
    for path in (ROOT / "scripts").glob("*.py"):
        assert path.stem not in LAYERS


def test_no_global_generator_in_shipped_code() -> None:
    # The conformance checks watch the global generators of somebody else's environment.
    watching = {
        "envs/core/conformance/check.py",
        "envs/core/conformance/contract.py",
        "envs/core/conformance/replay.py",
    }
    banned = re.compile(
        r"np\.random\.(?!default_rng|SeedSequence|Generator)\w+|numpy\.random import|"
        r"torch\.(manual_seed|seed|rand|randn|randint|randperm|normal|bernoulli|multinomial)\(|"
        r"(?<!\.)\brandom\.\w+\(",
    )
    found = []
    for path in SOURCES:
        if relative(path) in watching:
            continue
        for match in banned.finditer(path.read_text(encoding="utf-8")):
            line = path.read_text(encoding="utf-8")[match.start() :].split("\n", 1)[0]
            if "generator=" not in line:
                found.append(f"{relative(path)}: {line}")
    assert not found


def test_registering_twice_is_silent() -> None:
    before = {id: invariantzoo.spec(id) for id in invariantzoo.ids()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for id, spec in before.items():
            invariantzoo.register(
                id,
                spec.entry_point,
                summary=spec.summary,
                parameters=spec.parameters,
                training=spec.training,
                film=dataclasses.asdict(spec.film),
                variants=spec.variants,
                score=spec.score and spec.score._asdict(),
            )
    assert before == {id: invariantzoo.spec(id) for id in invariantzoo.ids()}
    for id in before:
        assert f"invariantzoo/{id}" in pettingzoo.parallel_registry
        assert f"invariantzoo/{id}" in pettingzoo.aec_registry
        assert f"invariantzoo/{id}" in gymnasium.registry


def test_importing_twice_is_silent() -> None:
    code = (
        "import sys, invariantzoo\n"
        "for name in [m for m in sys.modules if m.startswith('invariantzoo')]:\n"
        "    del sys.modules[name]\n"
        "import invariantzoo\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == again.stderr == ""


@pytest.mark.parametrize(
    "id", ["Particles-Crowd-v0", "crowd", "particles-crowd", "particles_crowd-v0"]
)
def test_an_id_of_another_form_is_refused(id: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        invariantzoo.register(id, "systems:Hold")


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(KeyError, match="did you mean 'particles-crowd-v0'"):
        invariantzoo.make_system("particles-croud-v0")
    with pytest.raises(ValueError, match="did you mean 'temperature'"):
        invariantzoo.make_system("ising-equilibrium-v0", temperatur=1.0)


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_every_id_can_be_made_and_says_what_it_is(id: str) -> None:
    spec = invariantzoo.spec(id)
    system = invariantzoo.make_system(id)
    assert spec.summary
    assert type(system).__name__ == spec.entry_point.rpartition(":")[2]
    assert type(system).__doc__
    module = importlib.import_module(type(system).__module__)
    assert module.__doc__
